//! Deployments that the store does not know, and rows whose deployment is nowhere: after a
//! database was lost or put back to an older state, or after a cluster's disk was.
//!
//! Looking changes nothing. A deployment is adopted or removed only on an operator's word, one at a
//! time. What it takes to adopt one stands beside its backups: whose it is, and its secrets, sealed
//! under the key ring. Its members run on meanwhile.

use std::{collections::BTreeSet, pin::pin, sync::Arc};

use futures::{TryStreamExt as _, future::BoxFuture};
use serde_json::json;

use super::{
    BrokerError, BrokerParts,
    catalog::{is_offered_by_all, offering_and_plan},
    deployment::usable_deployments,
    finding::Finding,
    leftover::Leftovers,
    profile::Profiles,
};
use crate::{
    backups::{BackupStoreError, Vault},
    clock::Clock,
    model::{
        audit::AtOnce,
        backup::Manifest,
        catalog::CurrentCatalog,
        deleted::DeletedInstance,
        deployment::{Deployment, DeploymentSecrets, Member, Membership, Shape},
        engine::{Port, PortUser, Profile},
        ids::{BackupId, DeploymentId, InstanceId},
        instance::{BACKUP_PUBLIC_KEY, Instance, InstanceState, ProvisionIdentity, normal_form},
        name::DeploymentNames,
        origin::Origin,
        placement::Cluster,
        reach::{Reach, Whereabouts},
        renewal::CertificateLife,
        schedule::Schedule,
        server::MemberSeen,
    },
    seal::KeyRing,
    store::{self, Conn, Store},
};

/// Why the clusters could not be looked at.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct CensusError(Box<dyn std::error::Error + Send + Sync>);

impl CensusError {
    /// Because of `source`.
    pub fn new(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self(Box::new(source))
    }
}

/// Says what is on the clusters, whatever the store knows of it, and where members are to be reached there.
pub trait Census: Send + Sync {
    /// Whether this broker looks after the members of a cluster, and no other one.
    fn looks_after(&self, cluster: &str) -> bool;

    /// Whether the members of a cluster are found from where this broker is.
    fn finds(&self, cluster: &str) -> bool;

    /// Every deployment of which anything is left on a cluster.
    fn deployments<'a>(
        &'a self,
        cluster: &'a str,
    ) -> BoxFuture<'a, Result<Vec<DeploymentId>, CensusError>>;

    /// Its members, by what is written down about them where they run.
    fn members<'a>(
        &'a self,
        cluster: &'a str,
        deployment: &'a DeploymentId,
    ) -> BoxFuture<'a, Result<Vec<MemberSeen>, CensusError>>;

    /// Where the members of a deployment are to be reached, in their order, so that applications reach them
    /// as `reach` says.
    fn whereabouts<'a>(
        &'a self,
        deployment: &'a Deployment,
        ports: &'a [Port],
        reach: &'a Reach,
    ) -> BoxFuture<'a, Result<Vec<Whereabouts>, CensusError>>;

    /// Ends and removes everything of a deployment.
    fn remove<'a>(
        &'a self,
        cluster: &'a str,
        deployment: &'a DeploymentId,
    ) -> BoxFuture<'a, Result<(), CensusError>>;
}

/// A deployment without a row that an operator decides about.
#[derive(Debug, Clone)]
pub struct Stray {
    /// The cluster that it is on.
    pub cluster: String,
    /// The deployment.
    pub deployment: DeploymentId,
}

/// What came of an adoption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdoptedDeployment {
    /// The instance that the deployment is behind of again.
    pub instance: InstanceId,
    /// Its backups that are listed again.
    pub backups: usize,
}

/// Finds deployments without a row, adopts and removes them.
pub struct Strays {
    store: Arc<Store>,
    backups: Vault,
    keys: Arc<KeyRing>,
    clock: Clock,
    catalog: Arc<CurrentCatalog>,
    clusters: Arc<[Cluster]>,
    profiles: Profiles,
    names: DeploymentNames,
    life: CertificateLife,
    census: Arc<dyn Census>,
    leftovers: Leftovers,
}

impl Strays {
    pub(super) fn new(parts: &BrokerParts, leftovers: Leftovers) -> Self {
        Self {
            store: parts.store.clone(),
            backups: parts.backups.clone(),
            keys: parts.keys.clone(),
            clock: parts.clock.clone(),
            catalog: parts.catalog.clone(),
            clusters: parts.clusters.clone(),
            profiles: parts.profiles.clone(),
            names: parts.deployment_names.clone(),
            life: parts.certificate_life,
            census: parts.census.clone(),
            leftovers,
        }
    }

    /// Deployments on the clusters that no row knows, and usable instances whose deployment is not
    /// on its cluster.
    pub(super) async fn unmatched(&self) -> Result<Vec<Finding>, BrokerError> {
        let mut findings = Vec::new();
        let mut placed = BTreeSet::new();
        let is_ours = |cluster: &str| self.census.looks_after(cluster);
        for cluster in self.clusters.iter().filter(|of| is_ours(&of.id)) {
            for deployment in self.census.deployments(&cluster.id).await? {
                placed.insert((cluster.id.clone(), deployment.clone()));
                let stray = Stray {
                    cluster: cluster.id.clone(),
                    deployment,
                };
                if !self.is_stray(&stray).await? {
                    continue;
                }
                let manifest = self.newest_manifest(&stray.deployment).await?;
                let adoptable = match &manifest {
                    Some(manifest) => self.can_be_adopted(&stray, manifest).await?,
                    None => false,
                };
                findings.push(Finding::DeploymentWithoutRow {
                    deployment: stray.deployment,
                    cluster: stray.cluster,
                    instance: manifest.as_ref().map(|m| m.instance_id.clone()),
                    backup: manifest.map(|manifest| manifest.backup_id),
                    adoptable,
                });
            }
        }
        let mut usable = pin!(usable_deployments(&self.store, &self.profiles));
        while let Some(deployment) = usable.try_next().await? {
            let place = (deployment.cluster.clone(), deployment.id.clone());
            // It may have been made since the clusters were looked at: once more then.
            if is_ours(&deployment.cluster)
                && !placed.contains(&place)
                && self.is_away(&deployment).await?
            {
                findings.push(Finding::RowWithoutDeployment {
                    instance: deployment.instance,
                    deployment: deployment.id,
                    cluster: deployment.cluster,
                });
            }
        }
        Ok(findings)
    }

    /// Takes a deployment without a row for that of the instance which its newest backup tells of,
    /// with all its backups. `plan`: the instance's plan, where no backup tells.
    pub async fn adopt(
        &self,
        stray: &Stray,
        plan: Option<&str>,
    ) -> Result<AdoptedDeployment, BrokerError> {
        self.check_stray(stray).await?;
        let manifest = self.newest_manifest(&stray.deployment).await?;
        let manifest = manifest.ok_or_else(|| {
            BrokerError::BadRequest(format!(
                "no backup of deployment {} tells whose it is and opens with the key ring",
                stray.deployment
            ))
        })?;
        let instance = self.adopted_instance(&manifest, plan)?;
        let members = self.members_seen(stray).await?;
        let profile = self.profiles.get(&manifest.engine)?;
        let names = &self.names;
        let deployment = adopted_deployment(profile, names, &manifest, stray, &members)?;
        let secrets = self.secrets_of(&manifest)?;
        let sealed = self
            .keys
            .seal(&deployment.seal_context(), &serde_json::to_vec(&secrets)?)?;
        let outlook = secrets.certificates(&deployment.id).outlook(&self.life);
        let now = self.clock.now();
        let id = instance.id.clone();
        self.store
            .decide(move |conn| {
                check_free(conn, &instance, &deployment)?;
                is_offered_by_all(conn, (&instance.service_id, &instance.plan_id), now)?;
                store::instance::insert(conn, &instance)?;
                store::deployment::insert(conn, &deployment)?;
                store::deployment::allocate(conn, &deployment, &sealed)?;
                store::renewal::set(conn, &deployment.id, &outlook)?;
                let schedule = Schedule::begin(instance.id.clone(), now);
                store::schedule::begin(conn, &schedule, &deployment.cluster)?;
                let (what, id) = (AtOnce::Adoption, Some(&instance.id));
                store::audit::done(conn, what, Origin::Operator, id, now)?;
                Ok::<_, BrokerError>(())
            })
            .await?;
        log::warn!(deployment:% = stray.deployment, instance:% = id; "adopted from its backups");
        let mut backups = 0;
        for backup in self.backups.backups_of(&stray.deployment).await? {
            backups += usize::from(self.leftovers.adopt(&stray.deployment, &backup).await?);
        }
        Ok(AdoptedDeployment {
            instance: id,
            backups,
        })
    }

    /// Lists a backup of a deployment that neither a row nor a cluster knows, as one of a deleted instance: the
    /// former owner makes a new one of it. Tells whether it is listed now.
    pub(super) async fn keep(
        &self,
        deployment: &DeploymentId,
        backup: &BackupId,
    ) -> Result<bool, BrokerError> {
        let id = deployment.clone();
        let known = self.store.read(move |conn| {
            let is_deleted = store::deleted::find(conn, &id)?.is_some();
            Ok((store::deployment::is_known(conn, &id)?, is_deleted))
        });
        match known.await? {
            (true, _) => return Ok(false),
            (false, true) => {}
            (false, false) => {
                let Some(manifest) = self.newest_manifest(deployment).await? else {
                    return Ok(false);
                };
                let plan = manifest.plan_id.as_deref().unwrap_or_default();
                let rules = self.catalog.get().rules_of(&manifest.service_id, plan);
                let deleted =
                    DeletedInstance::lost(&manifest, rules.after_delete, self.clock.now());
                let keep = move |conn: &mut Conn<'_>| store::deleted::insert(conn, &deleted);
                self.store.write(keep).await?;
            }
        }
        self.leftovers.keep(deployment, backup).await
    }

    /// Ends and removes a deployment without a row. Its backups stay.
    pub async fn remove(&self, stray: &Stray) -> Result<(), BrokerError> {
        self.check_stray(stray).await?;
        let now = self.clock.now();
        // Before it is begun: a removal that breaks off was asked for nevertheless.
        self.store
            .write(move |conn| {
                store::audit::done(conn, AtOnce::Removal, Origin::Operator, None, now)
            })
            .await?;
        log::warn!(
            deployment:% = stray.deployment, cluster = stray.cluster.as_str();
            "it has no row, and is removed as its operator asked"
        );
        self.census
            .remove(&stray.cluster, &stray.deployment)
            .await?;
        Ok(())
    }

    /// Whether a deployment is on a cluster and has no row. Its row goes after it, and comes before
    /// it: so the row is looked for first.
    async fn is_stray(&self, stray: &Stray) -> Result<bool, BrokerError> {
        let id = stray.deployment.clone();
        let known = self
            .store
            .read(move |conn| store::deployment::is_known(conn, &id));
        if known.await? || !self.clusters.iter().any(|c| c.id == stray.cluster) {
            return Ok(false);
        }
        let there = self.census.deployments(&stray.cluster).await?;
        Ok(there.contains(&stray.deployment))
    }

    async fn check_stray(&self, stray: &Stray) -> Result<(), BrokerError> {
        if self.is_stray(stray).await? {
            return Ok(());
        }
        Err(BrokerError::NotFound(format!(
            "there is no deployment {} without a row on cluster {:?}",
            stray.deployment, stray.cluster
        )))
    }

    /// Whether nothing of a usable deployment is on its cluster, and it still counts as usable.
    async fn is_away(&self, deployment: &Deployment) -> Result<bool, BrokerError> {
        let there = self.census.deployments(&deployment.cluster).await?;
        if there.contains(&deployment.id) {
            return Ok(false);
        }
        let id = deployment.instance.clone();
        let instance = self
            .store
            .read(move |conn| store::instance::find(conn, &id))
            .await?;
        Ok(instance.is_some_and(|instance| {
            instance.state == InstanceState::Ready && instance.deployment == deployment.id
        }))
    }

    async fn can_be_adopted(
        &self,
        stray: &Stray,
        manifest: &Manifest,
    ) -> Result<bool, BrokerError> {
        let members = self.members_seen(stray).await?;
        let profile = self.profiles.get(&manifest.engine)?;
        let names = &self.names;
        let Ok(deployment) = adopted_deployment(profile, names, manifest, stray, &members) else {
            return Ok(false);
        };
        let instance = manifest.instance_id.clone();
        let taken = self.store.read(move |conn| {
            let taken = store::instance::find(conn, &instance)?.is_some();
            Ok(taken || store::deployment::held_by_another(conn, &deployment)?.is_some())
        });
        Ok(!taken.await?)
    }

    async fn members_seen(&self, stray: &Stray) -> Result<Vec<MemberSeen>, BrokerError> {
        Ok(self
            .census
            .members(&stray.cluster, &stray.deployment)
            .await?)
    }

    /// The newest manifest of a deployment whose secrets open with the key ring.
    async fn newest_manifest(
        &self,
        deployment: &DeploymentId,
    ) -> Result<Option<Manifest>, BrokerError> {
        for backup in self.backups.backups_of(deployment).await? {
            match self.backups.read_manifest(deployment, &backup).await {
                Ok(manifest) if self.secrets_of(&manifest).is_ok() => return Ok(Some(manifest)),
                Ok(_)
                | Err(
                    BackupStoreError::NotFound(_)
                    | BackupStoreError::Damaged { .. }
                    | BackupStoreError::KeyMissing { .. },
                ) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    fn secrets_of(&self, manifest: &Manifest) -> Result<DeploymentSecrets, BrokerError> {
        let sealed = manifest.sealed_credentials.as_deref().unwrap_or_default();
        Ok(self.keys.open_as(&manifest.seal_context(), sealed)?)
    }

    /// The instance that a manifest tells of. What the platform said of it beside its owner is lost.
    fn adopted_instance(
        &self,
        manifest: &Manifest,
        plan: Option<&str>,
    ) -> Result<Instance, BrokerError> {
        let plan_id = plan.or(manifest.plan_id.as_deref()).ok_or_else(|| {
            BrokerError::BadRequest(
                "the backups do not name the instance's plan: give its plan_id".to_owned(),
            )
        })?;
        let (offering, plan) = offering_and_plan(&self.catalog, &manifest.service_id, plan_id)?;
        Ok(Instance {
            id: manifest.instance_id.clone(),
            service_id: offering.id.clone(),
            plan_id: plan.id.clone(),
            tenant: manifest.tenant.clone(),
            name: None,
            restored_from: None,
            deployment: manifest.deployment_id.clone(),
            context: json!({}),
            // What was sealed for a key of the tenant's goes on to be.
            parameters: match manifest.recipient() {
                Some(key) => json!({ BACKUP_PUBLIC_KEY: key }),
                None => normal_form(None),
            },
            request: ProvisionIdentity {
                service_id: offering.id.clone(),
                plan_id: plan.id.clone(),
                organization: manifest.tenant.organization.clone(),
                space: manifest.tenant.space.clone(),
                parameters: normal_form(None),
            },
            state: InstanceState::Ready,
            created_at: manifest.requested_at,
            ordinal: 0,
        })
    }
}

/// The deployment as its newest backup and the records of its members tell of it.
fn adopted_deployment(
    profile: &Profile,
    names: &DeploymentNames,
    manifest: &Manifest,
    stray: &Stray,
    seen: &[MemberSeen],
) -> Result<Deployment, BrokerError> {
    let oldest = seen.iter().map(|member| member.version).min();
    let version = oldest.ok_or_else(|| {
        BrokerError::BadRequest(format!(
            "of deployment {} no member is left that could be run",
            stray.deployment
        ))
    })?;
    let members = seen.iter().map(|member| {
        let addresses = match member.addresses.is_empty() {
            true => profile.addresses(&member.host, &member.ports),
            false => member.addresses.clone(),
        };
        // The broker goes without a port of its own where there is none.
        let mut needed = profile
            .ports
            .iter()
            .filter(|p| p.used_by != PortUser::Broker);
        if let Some(port) = needed.find(|port| !addresses.contains_key(port.name)) {
            let (name, port) = (&member.name, port.name);
            return Err(BrokerError::BadRequest(format!(
                "member {name} has no port {port}"
            )));
        }
        let shape = Shape {
            version: member.version,
            units: manifest.units,
        };
        Ok(Member {
            name: member.name.clone(),
            addresses,
            shape: (member.version != version).then_some(shape),
            checkpointing: false,
            membership: Membership::Joined,
        })
    });
    Ok(Deployment {
        id: stray.deployment.clone(),
        instance: manifest.instance_id.clone(),
        name: names.name(&manifest.engine, &stray.cluster, &manifest.instance_id),
        cluster: stray.cluster.clone(),
        engine: manifest.engine.clone(),
        version,
        units: manifest.units,
        members: members.collect::<Result<_, _>>()?,
        closed_since: None,
    })
}

fn check_free(
    conn: &mut store::Conn<'_>,
    instance: &Instance,
    deployment: &Deployment,
) -> Result<(), BrokerError> {
    if store::instance::find(conn, &instance.id)?.is_some()
        || store::deployment::is_known(conn, &deployment.id)?
    {
        return Err(BrokerError::Conflict(format!(
            "there is a service instance {:?} already",
            instance.id.as_str()
        )));
    }
    match store::deployment::held_by_another(conn, deployment)? {
        None => Ok(()),
        Some(address) => Err(BrokerError::Conflict(format!(
            "port {} of its members is another deployment's",
            address.port
        ))),
    }
}
