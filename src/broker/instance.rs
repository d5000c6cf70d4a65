//! Provision, fetch and deprovision service instances.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Broker, BrokerError, instance_key};
use crate::{
    model::{
        backup::Manifest,
        catalog::{Offering, Plan},
        deployment::Deployment,
        ids::{DeploymentId, InstanceId, OperationId},
        instance::{Instance, InstanceState, ProvisionIdentity, normal_form},
        limits::{UNITS_DEFAULT, UNITS_MAX},
        operation::{Operation, OperationKind, RestoreSource, WaitsFor},
        placement,
        tenant::Tenant,
        version,
    },
    store::{self, Conn},
};

/// OSB "Provisioning".
#[derive(Debug, Clone)]
pub struct ProvisionRequest {
    /// The id that the platform chose.
    pub instance: InstanceId,
    /// OSB `service_id`.
    pub service_id: String,
    /// OSB `plan_id`.
    pub plan_id: String,
    /// OSB `organization_guid`.
    pub organization: String,
    /// OSB `space_guid`.
    pub space: String,
    /// OSB `context`.
    pub context: Option<Value>,
    /// OSB `parameters`.
    pub parameters: Option<Value>,
    /// OSB `maintenance_info.version`.
    pub maintenance_version: Option<String>,
    /// Whether the platform takes a 202.
    pub accepts_incomplete: bool,
}

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
}

/// The parameters of a provision request, as the schemas of the catalog describe them.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ProvisionParameters {
    pub source_service_instance_id: Option<String>,
    pub backup_id: Option<String>,
    pub cluster_id: Option<String>,
    pub cluster_service_instance_id: Option<String>,
    pub db_version: Option<String>,
    pub units: Option<u32>,
}

impl Broker {
    /// Accepts a provision request, or tells that the same one was accepted before.
    pub async fn provision(
        self: &std::sync::Arc<Self>,
        request: ProvisionRequest,
    ) -> Result<Provisioned, BrokerError> {
        let broker = self.clone();
        self.store
            .decide(move |conn| broker.provision_in(conn, &request))
            .await
    }

    fn provision_in(
        &self,
        conn: &mut Conn<'_>,
        request: &ProvisionRequest,
    ) -> Result<Provisioned, BrokerError> {
        let (offering, plan) = self.offering_and_plan(&request.service_id, &request.plan_id)?;
        let parameters = normal_form(request.parameters.as_ref());
        plan.provision_schema.check(&parameters).map_err(|reason| {
            BrokerError::BadRequest(format!(
                "the parameters do not fit the plan's schema: {reason}"
            ))
        })?;
        check_maintenance(plan, request.maintenance_version.as_deref())?;
        let identity = ProvisionIdentity {
            service_id: request.service_id.clone(),
            plan_id: request.plan_id.clone(),
            organization: request.organization.clone(),
            space: request.space.clone(),
            parameters: parameters.clone(),
        };
        if let Some(existing) = store::instance::find(conn, &request.instance)? {
            return repeated(conn, &existing, &identity, request.accepts_incomplete);
        }
        if !request.accepts_incomplete {
            return Err(BrokerError::AsyncRequired);
        }
        let asked: ProvisionParameters = serde_json::from_value(parameters)
            .map_err(|e| BrokerError::BadRequest(format!("the parameters cannot be read: {e}")))?;
        self.accept_provision(conn, request, identity, offering, plan, &asked)
    }

    fn accept_provision(
        &self,
        conn: &mut Conn<'_>,
        request: &ProvisionRequest,
        identity: ProvisionIdentity,
        offering: &Offering,
        plan: &Plan,
        asked: &ProvisionParameters,
    ) -> Result<Provisioned, BrokerError> {
        let now = self.clock.now();
        let tenant = tenant_of(request);
        let cluster = placement::place(
            plan.rules.placement,
            asked.cluster_id.as_deref(),
            asked.cluster_service_instance_id.as_deref(),
            &self.clusters,
        )
        .map_err(|refusal| BrokerError::BadRequest(refusal.to_string()))?;
        let available = self.versions_on(&cluster.id, &offering.rules.engine);
        let source = self.restore_source(conn, &tenant, offering, asked)?;
        let wanted = asked.db_version.as_deref();
        let (kind, version, units) = match &source {
            None => (
                OperationKind::Provision,
                version::for_new(wanted, available),
                asked.units.unwrap_or(UNITS_DEFAULT),
            ),
            Some(manifest) => (
                OperationKind::Restore,
                version::for_restore(manifest.version, wanted, available),
                asked
                    .units
                    .unwrap_or_else(|| manifest.units_needed().max(manifest.units)),
            ),
        };
        let version = version.map_err(|refusal| BrokerError::BadRequest(refusal.to_string()))?;
        if !(1..=UNITS_MAX).contains(&units) {
            return Err(BrokerError::BadRequest(format!(
                "units is {units}; an instance has from 1 to {UNITS_MAX} units"
            )));
        }
        let deployment = Deployment {
            id: DeploymentId::generate(now),
            instance: request.instance.clone(),
            cluster: cluster.id.clone(),
            engine: offering.rules.engine.clone(),
            version,
            units,
            members: Vec::new(),
        };
        if let Some(manifest) = &source {
            check_size(manifest, &deployment)?;
        }
        let instance = Instance {
            id: request.instance.clone(),
            service_id: request.service_id.clone(),
            plan_id: request.plan_id.clone(),
            tenant,
            deployment: deployment.id.clone(),
            context: request.context.clone().unwrap_or_else(|| json!({})),
            parameters: request
                .parameters
                .clone()
                .filter(|p| !p.is_null())
                .unwrap_or_else(|| json!({})),
            request: identity,
            state: InstanceState::Provisioning,
            created_at: now,
        };
        let operation = Operation {
            backup: source.as_ref().map(|manifest| manifest.backup_id.clone()),
            source: source.map(|manifest| RestoreSource { manifest }),
            ..Operation::queued(kind, &instance.id, "osb", now)
        };
        store::instance::insert(conn, &instance)?;
        store::deployment::insert(conn, &deployment)?;
        store::operation::insert(conn, &operation, Some(&instance_key(&instance.id)))?;
        Ok(Provisioned::Accepted(operation.id))
    }

    /// A usable instance.
    pub async fn instance(&self, id: InstanceId) -> Result<FetchedInstance, BrokerError> {
        let instance = self
            .store
            .read(move |conn| store::instance::find(conn, &id))
            .await?;
        match instance {
            Some(instance) if instance.state == InstanceState::Ready => Ok(FetchedInstance {
                service_id: instance.service_id,
                plan_id: instance.plan_id,
                parameters: instance.parameters,
            }),
            _ => Err(BrokerError::NotFound(
                "there is no such service instance (yet)".to_owned(),
            )),
        }
    }

    /// Accepts the deletion of an instance. Whatever else is being done to it is halted.
    pub async fn deprovision(
        &self,
        request: DeprovisionRequest,
    ) -> Result<OperationId, BrokerError> {
        if !request.accepts_incomplete {
            return Err(BrokerError::AsyncRequired);
        }
        let now = self.clock.now();
        self.store
            .decide(move |conn| deprovision_in(conn, &request, now))
            .await
    }
}

fn deprovision_in(
    conn: &mut Conn<'_>,
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
    for operation in &active {
        store::operation::halt(conn, &operation.id)?;
    }
    let operation = Operation {
        waits_for: WaitsFor::Instance,
        ..Operation::queued(OperationKind::Deprovision, &instance.id, "osb", now)
    };
    store::operation::insert(conn, &operation, Some(&instance_key(&instance.id)))?;
    store::instance::set_state(conn, &instance.id, InstanceState::Deleting)?;
    store::schedule::end(conn, &instance.id)?;
    store::binding::revoke_tokens_of_instance(conn, &instance.id)?;
    Ok(operation.id)
}

fn repeated(
    conn: &mut Conn<'_>,
    existing: &Instance,
    identity: &ProvisionIdentity,
    accepts_incomplete: bool,
) -> Result<Provisioned, BrokerError> {
    match existing.state {
        InstanceState::Deleting => Err(BrokerError::Concurrency(
            "the service instance of this id is being deleted; try again when it is gone"
                .to_owned(),
        )),
        _ if existing.request != *identity => Err(BrokerError::Conflict(
            "another service instance has this id".to_owned(),
        )),
        InstanceState::Failed => Err(BrokerError::Conflict(
            "the service instance of this id failed; deprovision it first".to_owned(),
        )),
        InstanceState::Ready => Ok(Provisioned::Exists),
        InstanceState::Provisioning if !accepts_incomplete => Err(BrokerError::AsyncRequired),
        InstanceState::Provisioning => {
            let kinds = [OperationKind::Provision, OperationKind::Restore];
            let operation = store::operation::newest(conn, &existing.id, None, &kinds)?;
            let operation = operation.ok_or_else(|| {
                store::StoreError::Missing("the operation that makes the instance".to_owned())
            })?;
            Ok(Provisioned::Accepted(operation.id))
        }
    }
}

fn check_maintenance(plan: &Plan, sent: Option<&str>) -> Result<(), BrokerError> {
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

fn check_size(manifest: &Manifest, target: &Deployment) -> Result<(), BrokerError> {
    let needed = manifest.units_needed();
    if needed <= target.units {
        return Ok(());
    }
    Err(BrokerError::BadRequest(format!(
        "the backup holds {} MB, more than the {} unit(s) asked for; give units as at least {needed}",
        manifest.stored.snapshot_bytes.div_ceil(1024 * 1024),
        target.units,
    )))
}

/// The owner of the instance to be: by the context where the platform has one of its own kind,
/// else by the fields that every platform sends.
fn tenant_of(request: &ProvisionRequest) -> Tenant {
    let text = |field: &str| {
        request
            .context
            .as_ref()?
            .get(field)?
            .as_str()
            .filter(|t| !t.is_empty())
            .map(str::to_owned)
    };
    let platform = text("platform").unwrap_or_else(|| "cloudfoundry".to_owned());
    let (organization, space) = if platform == "kubernetes" {
        (text("clusterid"), text("namespace"))
    } else {
        (None, None)
    };
    Tenant {
        platform,
        organization: organization.unwrap_or_else(|| request.organization.clone()),
        space: space.unwrap_or_else(|| request.space.clone()),
    }
}
