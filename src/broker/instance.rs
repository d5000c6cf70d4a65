//! Provision, fetch and deprovision service instances.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    BrokerError, BrokerParts,
    backup::queue_final_backup,
    catalog::is_offered_by_all,
    instance_key,
    inventory::Inventory,
    owner::Owners,
    provision::{Asker, INSTANCE_NAME, ProvisionRequest},
    quota::Quotas,
    source::restore_source,
    status::OF_INSTANCE,
    target::{Target, Targets},
    tenant_key::{self, opened},
};
use crate::{
    clock::Clock,
    model::{
        audit::AtOnce,
        backup::Manifest,
        catalog::Plan,
        deployment::{Deployment, Shape},
        engine::Profile,
        ids::{DeploymentId, InstanceId, OperationId},
        instance::{Instance, InstanceState, ProvisionIdentity, normal_form},
        limits::PLATFORM_NAME_BYTES_MAX,
        name::DeploymentNames,
        operation::{Operation, OperationKind, RestoreSource, WaitsFor},
        origin::Origin,
        parameters::{ProvisionParameters, in_force},
        provenance::Provenance,
        tenant::{RestoreScope, Tenant},
        version::Version,
    },
    seal::{KeyRing, age::FileKey},
    store::{self, Conn, Store, StoreError},
};

/// What came of a provision request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provisioned {
    /// The same request was fulfilled before.
    Exists,
    /// It is being worked on.
    Accepted(OperationId),
}

/// OSB "Deprovisioning".
#[derive(Debug, Clone)]
pub struct DeprovisionRequest {
    /// The instance.
    pub instance: InstanceId,
    /// OSB `service_id`.
    pub service_id: String,
    /// OSB `plan_id`.
    pub plan_id: String,
    /// Whether the platform takes a 202.
    pub accepts_incomplete: bool,
    /// Where it comes from.
    pub origin: Origin,
}

/// OSB "Fetching a Service Instance".
#[derive(Debug, Clone, PartialEq)]
pub struct FetchedInstance {
    /// OSB `service_id`.
    pub service_id: String,
    /// OSB `plan_id`.
    pub plan_id: String,
    /// OSB `parameters`.
    pub parameters: Value,
    /// OSB `maintenance_info.version`: the version that runs, where the plan has one.
    pub maintenance_version: Option<Version>,
    /// What users may read of it.
    pub labels: InstanceLabels,
}

/// What users of a platform may read of an instance beside its name (OSB `metadata.labels`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceLabels {
    /// The engine's name.
    pub engine: String,
    /// The version that runs, or will.
    pub version: Version,
    /// The size.
    pub units: u32,
}

impl InstanceLabels {
    fn of(deployment: Deployment) -> Self {
        Self {
            engine: deployment.engine,
            version: deployment.version,
            units: deployment.units,
        }
    }

    /// The same of an instance that becomes something else.
    pub fn becoming(self, goal: Option<Shape>) -> Self {
        match goal {
            None => self,
            Some(Shape { version, units }) => Self {
                version,
                units,
                ..self
            },
        }
    }
}

/// Service instances: makes, tells of and deletes them.
pub struct Instances {
    store: Arc<Store>,
    clock: Clock,
    inventory: Arc<Inventory>,
    owners: Arc<Owners>,
    quotas: Quotas,
    targets: Targets,
    restore_scope: RestoreScope,
    deployment_names: DeploymentNames,
    keys: Arc<KeyRing>,
}

impl Instances {
    pub(super) fn new(parts: &BrokerParts, inventory: Arc<Inventory>, owners: Arc<Owners>) -> Self {
        Self {
            store: parts.store.clone(),
            clock: parts.clock.clone(),
            owners,
            quotas: Quotas::new(parts),
            targets: Targets::new(parts, inventory.clone()),
            inventory,
            restore_scope: parts.restore_scope,
            deployment_names: parts.deployment_names.clone(),
            keys: parts.keys.clone(),
        }
    }

    /// Accepts a provision request, or tells that the same one was accepted before; also what may be told of the
    /// instance.
    pub async fn provision(
        self: &Arc<Self>,
        request: ProvisionRequest,
    ) -> Result<(Provisioned, Option<InstanceLabels>), BrokerError> {
        check_texts(&request)?;
        let instances = self.clone();
        self.store
            .decide(move |conn| {
                let provisioned = instances.provision_in(conn, &request, Asker::Platform)?;
                let deployment = store::deployment::of_instance(conn, &request.instance)?;
                let labels = deployment.map(|(deployment, _)| InstanceLabels::of(deployment));
                Ok((provisioned, labels))
            })
            .await
    }

    /// The one way to an instance, for every caller.
    pub(super) fn provision_in(
        &self,
        conn: &mut Conn<'_>,
        request: &ProvisionRequest,
        asker: Asker<'_>,
    ) -> Result<Provisioned, BrokerError> {
        let (offering, plan) = self
            .inventory
            .offering_and_plan(&request.service_id, &request.plan_id)?;
        let parameters = checked_parameters(&plan, request)?;
        check_maintenance(&plan, request.maintenance_version.as_deref())?;
        let identity = ProvisionIdentity {
            service_id: request.service_id.clone(),
            plan_id: request.plan_id.clone(),
            organization: request.organization.clone(),
            space: request.space.clone(),
            parameters: parameters.clone(),
        };
        if self.inventory.cluster_of(&request.instance).is_some()
            || request.instance.is_of_deleted()
        {
            return Err(taken());
        }
        if let Some(existing) = store::instance::find(conn, &request.instance)? {
            return self.repeated_or_adopted(conn, &existing, request, &identity);
        }
        if !request.accepts_incomplete {
            return Err(BrokerError::AsyncRequired);
        }
        let asked: ProvisionParameters = serde_json::from_value(parameters)
            .map_err(|e| BrokerError::BadRequest(format!("the parameters cannot be read: {e}")))?;
        let tenant = self.tenant(request, asker)?;
        let scope = (&tenant, self.restore_scope);
        let source = restore_source(conn, asker, scope, &offering, &asked)?;
        let key = opened(source.as_ref(), &request.private_key)?;
        let target = self
            .targets
            .target(conn, &offering, &plan, &asked, source.as_ref())?;
        if asked.clients_notice == Some(true) {
            let profile = self.inventory.profile(&offering.rules.engine)?;
            clients_would_notice(profile, source.as_ref(), target.version)?;
        }
        self.quotas
            .check_quotas(conn, &tenant, &plan, target.units)?;
        is_offered_by_all(conn, (&offering.id, &plan.id), self.clock.now())?;
        let engine = &offering.rules.engine;
        let name = self.deployment_name(request, asker, engine, &target.cluster.id);
        insert_instance(
            conn,
            Accepted {
                request,
                identity,
                tenant,
                engine,
                name,
                target,
                source,
                key,
                clients_notice: asked.clients_notice == Some(true),
            },
            asker,
            (&self.keys, self.clock.now()),
        )
    }

    /// The answer to a request for an instance whose id is there, which may make it its platform's.
    fn repeated_or_adopted(
        &self,
        conn: &mut Conn<'_>,
        existing: &Instance,
        request: &ProvisionRequest,
        identity: &ProvisionIdentity,
    ) -> Result<Provisioned, BrokerError> {
        let asked = self.asked_again(existing, request, identity);
        let answer = repeated(conn, existing, asked)?;
        if asked.the_same && existing.restored_from.is_some() {
            adopt(conn, existing, request, identity, self.clock.now())?;
        }
        Ok(answer)
    }

    /// How an instance that is there is asked for once more.
    fn asked_again(
        &self,
        existing: &Instance,
        request: &ProvisionRequest,
        identity: &ProvisionIdentity,
    ) -> Asked {
        let owner = self.owners.is_owner(existing, request);
        Asked {
            // What the broker named and made by itself was asked for by no platform, but one may adopt it.
            the_same: owner
                && match existing.restored_from {
                    Some(_) => may_adopt(existing, identity),
                    None => existing.request == *identity,
                },
            by_its_owner: owner,
            accepts_incomplete: request.accepts_incomplete,
        }
    }

    /// Who owns what is asked for.
    fn tenant(&self, request: &ProvisionRequest, asker: Asker<'_>) -> Result<Tenant, BrokerError> {
        match asker {
            Asker::Platform => self
                .owners
                .owner(request)
                .map_err(|refusal| BrokerError::BadRequest(refusal.to_string())),
            Asker::Neighbour { source, .. } => Ok(source.tenant.clone()),
        }
    }

    fn deployment_name(
        &self,
        request: &ProvisionRequest,
        asker: Asker<'_>,
        engine: &str,
        cluster: &str,
    ) -> String {
        match (asker, text_of_context(request, INSTANCE_NAME)) {
            // The user who asked for a restore under a name finds it under that name.
            (Asker::Neighbour { .. }, Some(name)) => name,
            _ => self
                .deployment_names
                .name(engine, cluster, &request.instance),
        }
    }

    /// A usable instance.
    pub async fn instance(&self, id: InstanceId) -> Result<FetchedInstance, BrokerError> {
        let (instance, deployment) = self
            .store
            .read(move |conn| {
                let deployment = store::deployment::of_instance(conn, &id)?;
                Ok((store::instance::find(conn, &id)?, deployment))
            })
            .await?;
        match (instance, deployment) {
            (Some(instance), Some((deployment, _))) if instance.state == InstanceState::Ready => {
                let plan = self.inventory.plan_of(&instance);
                let maintained = plan.is_some_and(|plan| plan.maintenance_info.is_some());
                Ok(FetchedInstance {
                    service_id: instance.service_id,
                    plan_id: instance.plan_id,
                    parameters: in_force(instance.parameters, deployment.version),
                    maintenance_version: maintained.then_some(deployment.version),
                    labels: InstanceLabels::of(deployment),
                })
            }
            _ => Err(BrokerError::NotFound(
                "there is no such service instance (yet)".to_owned(),
            )),
        }
    }

    /// What is told of an instance, also while it is being made; none when there is no such
    /// instance.
    pub async fn labels(&self, id: InstanceId) -> Result<Option<InstanceLabels>, BrokerError> {
        let found = self
            .store
            .read(move |conn| store::deployment::of_instance(conn, &id))
            .await?;
        Ok(found.map(|(deployment, _)| InstanceLabels::of(deployment)))
    }

    /// Accepts the deletion of an instance. Whatever else is being done to it is halted.
    pub async fn deprovision(
        &self,
        request: DeprovisionRequest,
    ) -> Result<OperationId, BrokerError> {
        if !request.accepts_incomplete {
            return Err(BrokerError::AsyncRequired);
        }
        let (inventory, now) = (self.inventory.clone(), self.clock.now());
        self.store
            .decide(move |conn| deprovision_in(conn, &inventory, &request, now))
            .await
    }
}

/// The parameters of a provision in normal form, when they fit its plan.
fn checked_parameters(plan: &Plan, request: &ProvisionRequest) -> Result<Value, BrokerError> {
    let parameters = normal_form(request.parameters.as_ref());
    plan.provision_schema.check(&parameters).map_err(|reason| {
        BrokerError::BadRequest(format!(
            "the parameters do not fit the plan's schema: {reason}"
        ))
    })?;
    tenant_key::public_key(&parameters)?;
    Ok(parameters)
}

/// A request that nothing speaks against, with what was decided about it.
struct Accepted<'a> {
    request: &'a ProvisionRequest,
    identity: ProvisionIdentity,
    tenant: Tenant,
    engine: &'a str,
    /// What the deployment is called.
    name: String,
    target: Target<'a>,
    source: Option<Manifest>,
    /// The key to it, where the broker has none.
    key: Option<FileKey>,
    /// See [`RestoreSource::clients_notice`].
    clients_notice: bool,
}

fn insert_instance(
    conn: &mut Conn<'_>,
    accepted: Accepted<'_>,
    asker: Asker<'_>,
    (keys, now): (&KeyRing, chrono::DateTime<chrono::Utc>),
) -> Result<Provisioned, BrokerError> {
    let Accepted {
        request, target, ..
    } = accepted;
    let deployment = Deployment {
        id: DeploymentId::generate(now),
        instance: request.instance.clone(),
        name: accepted.name,
        cluster: target.cluster.id.clone(),
        engine: accepted.engine.to_owned(),
        version: target.version,
        units: target.units,
        members: Vec::new(),
        closed_since: None,
    };
    let (origin, restored_from) = match asker {
        Asker::Platform => (Origin::Osb, None),
        Asker::Neighbour { source, origin } => (origin, Some(source.deployment.clone())),
    };
    let instance = Instance {
        id: request.instance.clone(),
        service_id: request.service_id.clone(),
        plan_id: request.plan_id.clone(),
        tenant: accepted.tenant,
        name: text_of_context(request, INSTANCE_NAME),
        restored_from,
        deployment: deployment.id.clone(),
        context: request.context.clone().unwrap_or_else(|| json!({})),
        parameters: request
            .parameters
            .clone()
            .filter(|p| !p.is_null())
            .unwrap_or_else(|| json!({})),
        request: accepted.identity,
        state: InstanceState::Provisioning,
        created_at: now,
        ordinal: 0,
    };
    let kind = match accepted.source {
        None => OperationKind::Provision,
        Some(_) => OperationKind::Restore,
    };
    let mut operation = Operation::queued(kind, &instance.id, origin, now);
    if let Some(manifest) = accepted.source {
        let provenance = Provenance::of(&manifest, name_of(conn, &manifest.deployment_id)?);
        store::provenance::insert(conn, &instance.id, &provenance)?;
        operation.backup = Some(manifest.backup_id.clone());
        let source = tenant_key::source_of(&operation, manifest, accepted.key, keys)?;
        operation.source = Some(RestoreSource {
            clients_notice: accepted.clients_notice,
            ..source
        });
    }
    store::instance::insert(conn, &instance)?;
    store::deployment::insert(conn, &deployment)?;
    store::operation::insert(conn, &operation, Some(&instance_key(&instance.id)))?;
    Ok(Provisioned::Accepted(operation.id))
}

/// Fails where there is no source whose clients could notice anything, or the version cannot tell them.
fn clients_would_notice(
    profile: &Profile,
    source: Option<&Manifest>,
    version: Version,
) -> Result<(), BrokerError> {
    if source.is_none() {
        let reason =
            "revision_bump needs source_service_instance_id and a backup: it is about a restore";
        return Err(BrokerError::BadRequest(reason.to_owned()));
    }
    if !(profile.tells_clients)(version) {
        return Err(BrokerError::BadRequest(format!(
            "a restore into version {version} cannot tell clients of the source that it is another \
             database: leave revision_bump out, or choose a newer db_version"
        )));
    }
    Ok(())
}

/// What people call the instance with that deployment, or called it before it was deleted.
fn name_of(conn: &mut Conn<'_>, deployment: &DeploymentId) -> Result<Option<String>, StoreError> {
    Ok(match store::instance::of_deployment(conn, deployment)? {
        Some(source) => source.name,
        None => store::deleted::find(conn, deployment)?.and_then(|deleted| deleted.name),
    })
}

/// The one way to the end of an instance, for every caller.
pub(super) fn deprovision_in(
    conn: &mut Conn<'_>,
    inventory: &Inventory,
    request: &DeprovisionRequest,
    now: chrono::DateTime<chrono::Utc>,
) -> Result<OperationId, BrokerError> {
    let Some(instance) = store::instance::find(conn, &request.instance)? else {
        return Err(BrokerError::Gone);
    };
    if (&instance.service_id, &instance.plan_id) != (&request.service_id, &request.plan_id) {
        return Err(BrokerError::BadRequest(
            "service_id and plan_id are not those of the service instance".to_owned(),
        ));
    }
    let active = store::operation::active_on_instance(conn, &instance.id)?;
    if let Some(running) = active.iter().find(|o| o.kind == OperationKind::Deprovision) {
        return Ok(running.id.clone());
    }
    if instance.is_protected() {
        return Err(BrokerError::Protected);
    }
    for operation in &active {
        store::operation::halt(conn, &operation.id, now)?;
    }
    let is_used = instance.state == InstanceState::Ready;
    let final_backup = if is_used
        && inventory
            .after_delete(&instance)
            .takes_final_backup(&instance)
    {
        let of = (&instance.id, &instance.deployment);
        queue_final_backup(conn, of, request.origin, now)?.backup
    } else {
        None
    };
    let operation = Operation {
        waits_for: WaitsFor::Instance,
        backup: final_backup,
        ..Operation::queued(
            OperationKind::Deprovision,
            &instance.id,
            request.origin,
            now,
        )
    };
    store::operation::insert(conn, &operation, Some(&instance_key(&instance.id)))?;
    store::instance::set_state(conn, &instance.id, InstanceState::Deleting)?;
    store::schedule::end(conn, &instance.id)?;
    // What was restored from it goes on saying so.
    let name = instance.name.as_deref();
    store::provenance::rename_source(conn, &instance.deployment, name)?;
    store::binding::revoke_tokens_of_instance(conn, &instance.id)?;
    store::session::delete_of_instance(conn, &instance.id)?;
    Ok(operation.id)
}

/// Whether a platform's request may be for an instance that the broker itself restored: with the service and
/// the plan that it has, and with its own parameters or none.
fn may_adopt(existing: &Instance, identity: &ProvisionIdentity) -> bool {
    let own = &existing.request;
    let plan = (&identity.service_id, &identity.plan_id) == (&own.service_id, &own.plan_id);
    let parameters = &identity.parameters;
    let fits = *parameters == own.parameters || *parameters == normal_form(None);
    let usable = matches!(
        existing.state,
        InstanceState::Ready | InstanceState::Provisioning
    );
    usable && plan && fits
}

/// From now on the instance is the platform's, as if it had asked for it: the source's tokens lead to it no
/// longer.
fn adopt(
    conn: &mut Conn<'_>,
    existing: &Instance,
    request: &ProvisionRequest,
    identity: &ProvisionIdentity,
    now: chrono::DateTime<chrono::Utc>,
) -> Result<(), BrokerError> {
    store::instance::adopt(conn, &existing.id, identity)?;
    if let Some(context) = &request.context {
        let name = text_of_context(request, INSTANCE_NAME).or_else(|| existing.name.clone());
        store::instance::set_context(conn, &existing.id, context, name.as_deref())?;
    }
    let what = AtOnce::Adoption;
    store::audit::done(conn, what, Origin::Osb, Some(&existing.id), now)?;
    Ok(())
}

fn taken() -> BrokerError {
    BrokerError::Conflict("another service instance has this id".to_owned())
}

/// A request for an instance whose id is there.
#[derive(Clone, Copy)]
struct Asked {
    /// It is what the instance was asked for with.
    the_same: bool,
    by_its_owner: bool,
    accepts_incomplete: bool,
}

fn repeated(
    conn: &mut Conn<'_>,
    existing: &Instance,
    asked: Asked,
) -> Result<Provisioned, BrokerError> {
    match existing.state {
        InstanceState::Deleting => Err(BrokerError::Concurrency(
            "the service instance of this id is being deleted; try again when it is gone"
                .to_owned(),
        )),
        InstanceState::Failed => {
            let newest = store::operation::newest(conn, &existing.id, None, &OF_INSTANCE)?;
            match newest {
                // Korifi asks again before each poll: the token is its way to the reason.
                Some(failed)
                    if asked.the_same
                        && asked.accepts_incomplete
                        && makes_instances(failed.kind) =>
                {
                    Ok(Provisioned::Accepted(failed.id))
                }
                // Only its owner learns why.
                newest if asked.by_its_owner => Err(failed_before(newest)),
                _ => Err(taken()),
            }
        }
        _ if !asked.the_same => Err(taken()),
        InstanceState::Ready => Ok(Provisioned::Exists),
        InstanceState::Provisioning if !asked.accepts_incomplete => Err(BrokerError::AsyncRequired),
        InstanceState::Provisioning => {
            let kinds = [OperationKind::Provision, OperationKind::Restore];
            let operation = store::operation::newest(conn, &existing.id, None, &kinds)?;
            let operation = operation.ok_or_else(|| {
                StoreError::Missing("the operation that makes the instance".to_owned())
            })?;
            Ok(Provisioned::Accepted(operation.id))
        }
    }
}

fn makes_instances(kind: OperationKind) -> bool {
    matches!(kind, OperationKind::Provision | OperationKind::Restore)
}

/// The refusal where an instance of this id failed.
fn failed_before(newest: Option<Operation>) -> BrokerError {
    let deleted = newest.as_ref().map(|o| o.kind) == Some(OperationKind::Deprovision);
    let what = if deleted {
        "the service instance of this id could not be deleted"
    } else {
        "the service instance of this id failed"
    };
    let reason = newest.and_then(|operation| operation.failure);
    BrokerError::Conflict(with_reason(what, reason, "deprovision it first"))
}

/// A refusal because of an earlier failure: what failed, why, and what to do.
pub(super) fn with_reason(what: &str, reason: Option<String>, remedy: &str) -> String {
    match reason {
        Some(reason) => format!("{what}: {}; {remedy}", reason.trim_end_matches('.')),
        None => format!("{what}; {remedy}"),
    }
}

pub(super) fn check_maintenance(plan: &Plan, sent: Option<&str>) -> Result<(), BrokerError> {
    let current = plan
        .maintenance_info
        .as_ref()
        .map(|info| info.version.as_str());
    match (sent, current) {
        (None, _) => Ok(()),
        (Some(sent), Some(current)) if sent == current => Ok(()),
        (Some(_), _) => Err(BrokerError::MaintenanceInfoConflict(
            "maintenance_info.version is not that of the catalog; update the catalog first"
                .to_owned(),
        )),
    }
}

fn text_of_context(request: &ProvisionRequest, field: &str) -> Option<String> {
    text_in(request.context.as_ref()?, field)
}

/// A text in a context; one that is empty is none.
fn text_in(context: &Value, field: &str) -> Option<String> {
    let text = context.get(field)?.as_str()?;
    (!text.is_empty()).then(|| text.to_owned())
}

/// What the platform calls the instance in this context, where it says so.
pub(super) fn name_in(context: &Value) -> Result<Option<String>, BrokerError> {
    let name = text_in(context, INSTANCE_NAME);
    if let Some(name) = &name {
        check_text("the context's instance_name", name)?;
    }
    Ok(name)
}

/// Refuses names of an instance and its owner that no store keeps and finds again.
fn check_texts(request: &ProvisionRequest) -> Result<(), BrokerError> {
    check_text("organization_guid", &request.organization)?;
    check_text("space_guid", &request.space)?;
    for field in ["platform", "clusterid", "namespace", INSTANCE_NAME] {
        if let Some(text) = text_of_context(request, field) {
            check_text(&format!("the context's {field}"), &text)?;
        }
    }
    Ok(())
}

fn check_text(what: &str, text: &str) -> Result<(), BrokerError> {
    let reason = if text.contains('\0') {
        "has a NUL character".to_owned()
    } else if text.len() > PLATFORM_NAME_BYTES_MAX {
        format!("is longer than {PLATFORM_NAME_BYTES_MAX} bytes")
    } else {
        return Ok(());
    };
    Err(BrokerError::BadRequest(format!("{what} {reason}")))
}
