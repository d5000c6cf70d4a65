//! What may be restored, by whom: every refusal says what to do, and comes before anything is
//! made.
//!
//! A platform asks for an instance with the source and the backup among its parameters. A user of
//! the source asks the broker itself ([`Restores::restore_here`]): then the broker chooses the new
//! instance's id and name, and goes the platform's way from there. There is no second set of rules.

mod rehearsal;

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value, json};

use super::{
    BrokerError, BrokerParts,
    instance::Instances,
    inventory::Inventory,
    provision::{Asker, INSTANCE_NAME, ProvisionRequest},
    quota::Quotas,
    refusal::{Refusal, RuleError, answer},
    source::{Source, manifest_of, restorable},
    target::{Targets, units_of_a_restore},
    tenant_key::PrivateKey,
};
use crate::{
    clock::Clock,
    model::{
        backup::{Backup, BackupState, Manifest},
        catalog::{Offering, Placement, Plan},
        deployment::Deployment,
        estimate::{Estimate, estimate},
        ids::{BackupId, InstanceId},
        instance::{BACKUP_PUBLIC_KEY, Instance, InstanceState, normal_form},
        name,
        operation::{Operation, OperationKind},
        origin::Origin,
        parameters::ProvisionParameters,
        placement::{self, Candidate, Cluster},
        tenant::Tenant,
        version::Version,
    },
    store::{self, Conn, Store, StoreError},
};

/// A restore into a new instance that the broker makes by itself.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// The instance that the backup was taken of.
    pub source: InstanceId,
    /// As the parameter `backup_id` of a provision.
    pub backup: String,
    /// As the parameter `restore_time` of a provision.
    pub restore_time: Option<String>,
    /// What the new instance shall be called; absent: [`name::of_restore`].
    pub name: Option<String>,
    /// As the parameter `revision_bump` of a provision.
    pub clients_notice: bool,
    /// As the parameter `db_version` of a provision.
    pub version: Option<String>,
    /// As the parameter `cluster_id` of a provision; absent where the plan needs one: the source's.
    pub cluster: Option<String>,
    /// As the parameter `units` of a provision.
    pub units: Option<u32>,
    /// As the parameter `backup_private_key` of a provision.
    pub private_key: PrivateKey,
    /// Where the user came from, as operations name it: `compose`, `dashboard`.
    pub origin: Origin,
}

/// An instance that was made from a backup, or is being made.
#[derive(Debug, Clone)]
pub struct Restored {
    /// The instance.
    pub instance: Instance,
    /// Its deployment.
    pub deployment: Deployment,
    /// The operation that made it or makes it.
    pub restore: Operation,
}

impl Restored {
    /// Whether it is a platform's, and not reached by way of its source.
    pub fn is_platform_s(&self) -> bool {
        self.instance.restored_from.is_none()
    }
}

/// What a restore of a backup by the broker itself could be.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// Why it would be refused, whatever else is asked for.
    pub refusal: Option<String>,
    /// A name that is free.
    pub name: String,
    /// Whether the plan lets one choose the cluster.
    pub chooses_cluster: bool,
    /// Where it could go: the enabled clusters of a plan that lets one choose, those that can
    /// take it before the others, the source's own one before the others of its kind; else the
    /// default one.
    pub places: Vec<RestorePlace>,
    /// How many known faults each version has that has some, of all places.
    pub faulty: BTreeMap<Version, usize>,
    /// The smallest size that holds the backup.
    pub units_needed: u32,
    /// The size without a choice.
    pub units: u32,
    /// About how long it takes; none where no restore of this engine is known that succeeded.
    pub estimate: Option<Estimate>,
}

/// A cluster that a restore could go to.
#[derive(Debug, Clone)]
pub struct RestorePlace {
    /// The cluster's id.
    pub cluster: String,
    /// Its name for people.
    pub name: String,
    /// The versions that the backup can be restored into, newest first.
    pub versions: Vec<Version>,
    /// The version without a choice; none: one must be chosen.
    pub version: Option<Version>,
    /// The units that are left there; none: as many as you like.
    pub units_free: Option<u64>,
    /// Why a restore without a choice of version and size would be refused here.
    pub refusal: Option<String>,
}

pub use rehearsal::RestorePreflight;

/// Restores that users ask the broker itself for.
pub struct Restores {
    store: Arc<Store>,
    clock: Clock,
    inventory: Arc<Inventory>,
    instances: Arc<Instances>,
    targets: Targets,
    quotas: Quotas,
}

impl Restores {
    pub(super) fn new(
        parts: &BrokerParts,
        inventory: Arc<Inventory>,
        instances: Arc<Instances>,
    ) -> Self {
        Self {
            store: parts.store.clone(),
            clock: parts.clock.clone(),
            instances,
            targets: Targets::new(parts, inventory.clone()),
            quotas: Quotas::new(parts),
            inventory,
        }
    }

    /// Accepts a restore into a new instance of the source's owner, offering and plan.
    ///
    /// It may be repeated: what is being made and is all that the request asks for is the answer,
    /// and so is what was made under the name that the request gives.
    pub async fn restore_here(
        self: &Arc<Self>,
        request: RestoreRequest,
    ) -> Result<Restored, BrokerError> {
        let restores = self.clone();
        self.store
            .decide(move |conn| restores.restore_here_in(conn, &request))
            .await
    }

    fn restore_here_in(
        &self,
        conn: &mut Conn<'_>,
        request: &RestoreRequest,
    ) -> Result<Restored, BrokerError> {
        let source = known(conn, &request.source)?;
        let parameters = self.parameters_of(conn, &source, request)?;
        if let Some(same) = same_restore(conn, &source, request, &parameters)? {
            return Ok(same);
        }
        let name = match &request.name {
            Some(name) => given_name(conn, &source.tenant, name)?,
            None => self.free_name(conn, &source)?,
        };
        let mut context = source.context.clone();
        context[INSTANCE_NAME] = json!(name);
        let provision = ProvisionRequest {
            instance: InstanceId::generate(),
            service_id: source.service_id.clone(),
            plan_id: source.plan_id.clone(),
            organization: source.request.organization.clone(),
            space: source.request.space.clone(),
            context: Some(context),
            parameters: Some(parameters),
            private_key: request.private_key.clone(),
            maintenance_version: None,
            accepts_incomplete: true,
        };
        let asker = Asker::Neighbour {
            source: &source,
            origin: request.origin,
        };
        self.instances.provision_in(conn, &provision, asker)?;
        let instance = store::instance::get(conn, &provision.instance)?;
        Ok(restored(conn, instance)?)
    }

    /// The parameters with which a platform would ask for the same.
    fn parameters_of(
        &self,
        conn: &mut Conn<'_>,
        source: &Instance,
        request: &RestoreRequest,
    ) -> Result<Value, BrokerError> {
        let (_, plan) = self
            .inventory
            .offering_and_plan(&source.service_id, &source.plan_id)?;
        let cluster = match (&request.cluster, plan.rules.placement) {
            (Some(cluster), _) => Some(cluster.clone()),
            (None, Placement::Chosen) => Some(deployment_of(conn, source)?.cluster),
            (None, Placement::Default) => None,
        };
        let mut parameters = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                parameters.insert(name.to_owned(), value);
            }
        };
        put("source_service_instance_id", Some(json!(source.id)));
        put("backup_id", Some(json!(request.backup)));
        put(
            "restore_time",
            request.restore_time.as_ref().map(|at| json!(at)),
        );
        put(
            "revision_bump",
            request.clients_notice.then_some(json!(true)),
        );
        put("db_version", request.version.as_ref().map(|v| json!(v)));
        put("cluster_id", cluster.map(Value::from));
        put("units", request.units.map(Value::from));
        // Nobody can ask for another one here, and who has one wants it for what is made of their backups, too.
        put(BACKUP_PUBLIC_KEY, source.recipient().map(Value::from));
        Ok(Value::Object(parameters))
    }

    fn free_name(&self, conn: &mut Conn<'_>, source: &Instance) -> Result<String, BrokerError> {
        let (offering, _) = self
            .inventory
            .offering_and_plan(&source.service_id, &source.plan_id)?;
        for name in name::of_restore(&offering.rules.engine, self.clock.now()) {
            if !store::instance::is_named(conn, &source.tenant, &name)? {
                return Ok(name);
            }
        }
        Err(BrokerError::Conflict("no name is free".to_owned()))
    }

    /// What [`Self::restore_here`] would take and refuse for some backups of an instance, in their
    /// order. Nothing is made.
    pub async fn restore_options(
        self: &Arc<Self>,
        source: InstanceId,
        backups: Vec<BackupId>,
    ) -> Result<Vec<RestoreOptions>, BrokerError> {
        let restores = self.clone();
        self.store
            .scan(move |conn| Ok(restores.restore_options_in(conn, &source, &backups)))
            .await?
    }

    /// About how long a restore of a backup takes; none where no restore of its engine is known that
    /// succeeded, or where it cannot be restored.
    pub async fn estimate(&self, backup: &Backup) -> Result<Option<Estimate>, BrokerError> {
        let is_good = backup.state == BackupState::Complete;
        let Some(manifest) = backup.manifest.as_ref().filter(|_| is_good) else {
            return Ok(None);
        };
        let (engine, bytes) = (manifest.engine.clone(), manifest.stored.snapshot_bytes);
        let past = self
            .store
            .read(move |conn| store::restore_time::last(conn, &engine))
            .await?;
        Ok(estimate(&past, bytes))
    }

    fn restore_options_in(
        &self,
        conn: &mut Conn<'_>,
        source: &InstanceId,
        backups: &[BackupId],
    ) -> Result<Vec<RestoreOptions>, BrokerError> {
        let source = known(conn, source)?;
        let (offering, plan) = self
            .inventory
            .offering_and_plan(&source.service_id, &source.plan_id)?;
        let of_the_source = |found: &Instance| found.deployment == source.deployment;
        let restorable = restorable(conn, of_the_source, &offering, source.id.as_str());
        let nothing = RestoreOptions {
            refusal: answer(restorable)?.err().map(|refusal| refusal.to_string()),
            name: self.free_name(conn, &source)?,
            chooses_cluster: plan.rules.placement == Placement::Chosen,
            places: Vec::new(),
            faulty: BTreeMap::new(),
            units_needed: 0,
            units: 0,
            estimate: None,
        };
        let past = store::restore_time::last(conn, &offering.rules.engine)?;
        let clusters: Vec<&Cluster> = if nothing.chooses_cluster {
            let own = deployment_of(conn, &source)?.cluster;
            let mut enabled: Vec<_> = self
                .inventory
                .clusters
                .iter()
                .filter(|c| c.enabled)
                .collect();
            enabled.sort_by_key(|cluster| cluster.id != own);
            enabled
        } else {
            placement::default_cluster(&self.inventory.clusters)
                .into_iter()
                .collect()
        };
        let candidates = self.targets.candidates(conn)?;
        let mut all = Vec::with_capacity(backups.len());
        for backup in backups {
            let mut options = nothing.clone();
            if options.refusal.is_none() {
                match answer(manifest_of(conn, &Source::from(&source), backup))? {
                    Ok(manifest) => {
                        let of = (&*offering, &*plan);
                        self.describe(&mut options, of, &clusters, &candidates, &manifest)?;
                        options.estimate = estimate(&past, manifest.stored.snapshot_bytes);
                    }
                    Err(refusal) => options.refusal = Some(refusal.to_string()),
                }
            }
            all.push(options);
        }
        Ok(all)
    }

    /// Says what a restore of one backup could be on each of some clusters.
    fn describe(
        &self,
        options: &mut RestoreOptions,
        of: (&Offering, &Plan),
        clusters: &[&Cluster],
        candidates: &[Candidate<'_>],
        manifest: &Manifest,
    ) -> Result<(), BrokerError> {
        options.units_needed = manifest.units_needed();
        options.units = units_of_a_restore(manifest);
        for cluster in clusters {
            let place = self.place_of_a_restore(of, cluster, candidates, manifest)?;
            for version in &place.versions {
                let count = self
                    .inventory
                    .known_faults(&of.0.rules.engine, *version)
                    .len();
                if count > 0 {
                    options.faulty.insert(*version, count);
                }
            }
            options.places.push(place);
        }
        // A user who takes the first one as it comes gets something.
        options
            .places
            .sort_by_key(|place| place.versions.is_empty());
        if options.places.iter().all(|place| place.versions.is_empty()) {
            options.refusal = options.places.iter().find_map(|p| p.refusal.clone());
        }
        Ok(())
    }

    fn place_of_a_restore(
        &self,
        (offering, plan): (&Offering, &Plan),
        cluster: &Cluster,
        candidates: &[Candidate<'_>],
        manifest: &Manifest,
    ) -> Result<RestorePlace, BrokerError> {
        let chosen = plan.rules.placement == Placement::Chosen;
        let mut asked = ProvisionParameters {
            cluster_id: chosen.then(|| cluster.id.clone()),
            ..ProvisionParameters::default()
        };
        let target = |asked: &ProvisionParameters| {
            self.targets
                .target_among(candidates, offering, plan, asked, Some(manifest))
        };
        let default = target(&asked)?;
        let mut versions = Vec::new();
        for version in self
            .inventory
            .versions_on(&cluster.id, &offering.rules.engine)
        {
            asked.db_version = Some(version.to_string());
            if target(&asked)?.is_ok() {
                versions.push(version);
            }
        }
        versions.sort_by(|a, b| b.cmp(a));
        Ok(RestorePlace {
            cluster: cluster.id.clone(),
            name: cluster.name.clone(),
            versions,
            version: default.as_ref().ok().map(|target| target.version),
            units_free: candidates
                .iter()
                .find(|candidate| candidate.cluster.id == cluster.id)
                .and_then(Candidate::units_free),
            refusal: default.err().map(|refusal| refusal.to_string()),
        })
    }

    /// The instances that were made of an instance's backups and that are there, newest first: those
    /// of platforms, too.
    pub async fn restores_of(&self, source: InstanceId) -> Result<Vec<Restored>, BrokerError> {
        let restores = self
            .store
            .read(move |conn| match store::instance::find(conn, &source)? {
                Some(source) => restores_in(conn, &source),
                None => Ok(Vec::new()),
            });
        Ok(restores.await?)
    }
}

/// See [`Restores::restores_of`].
pub(super) fn restores_in(
    conn: &mut Conn<'_>,
    source: &Instance,
) -> Result<Vec<Restored>, StoreError> {
    let mut found = Vec::new();
    for id in store::provenance::restored_from(conn, &source.deployment)? {
        let instance = store::instance::get(conn, &id)?;
        found.push(restored(conn, instance)?);
    }
    found.sort_by_key(|restored: &Restored| Reverse(restored.instance.ordinal));
    Ok(found)
}

fn known(conn: &mut Conn<'_>, id: &InstanceId) -> Result<Instance, BrokerError> {
    store::instance::find(conn, id)?
        .ok_or_else(|| BrokerError::NotFound("there is no such instance".to_owned()))
}

fn deployment_of(conn: &mut Conn<'_>, of: &Instance) -> Result<Deployment, StoreError> {
    let found = store::deployment::of_instance(conn, &of.id)?;
    let (deployment, _) = found.ok_or_else(|| StoreError::Missing("the deployment".to_owned()))?;
    Ok(deployment)
}

fn restored(conn: &mut Conn<'_>, instance: Instance) -> Result<Restored, StoreError> {
    let restore = store::operation::newest(conn, &instance.id, None, &[OperationKind::Restore])?
        .ok_or_else(|| StoreError::Missing("the operation that makes the instance".to_owned()))?;
    Ok(Restored {
        deployment: deployment_of(conn, &instance)?,
        instance,
        restore,
    })
}

/// What an earlier request made or is making that fulfils this one too. Clients repeat a request
/// when they hear nothing, and people click twice.
fn same_restore(
    conn: &mut Conn<'_>,
    source: &Instance,
    request: &RestoreRequest,
    parameters: &Value,
) -> Result<Option<Restored>, StoreError> {
    let parameters = normal_form(Some(parameters));
    let fulfils = |instance: &Instance| {
        let of_that_name = request.name.is_none() || instance.name == request.name;
        let state = match instance.state {
            InstanceState::Provisioning => true,
            InstanceState::Ready => request.name.is_some(),
            InstanceState::Failed | InstanceState::Deleting => false,
        };
        of_that_name && state && instance.request.parameters == parameters
    };
    let mut all = store::instance::restored_from(conn, &source.deployment)?.into_iter();
    let found = all.find(fulfils);
    found.map(|instance| restored(conn, instance)).transpose()
}

fn given_name(conn: &mut Conn<'_>, tenant: &Tenant, name: &str) -> Result<String, RuleError> {
    name::check(name).map_err(Refusal::from)?;
    if store::instance::is_named(conn, tenant, name)? {
        return Err(Refusal::NameTaken(name.to_owned()).into());
    }
    Ok(name.to_owned())
}
