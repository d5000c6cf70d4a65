//! Durable, multi-step work.
//!
//! One file per operation kind: a readable list of named steps, and the list that cleans up when
//! they fail. Steps are repeated after failures and crashes, so each must be idempotent; what a
//! step returns is recorded, and a recorded step is never done again. The
//! [`runner`] knows no operation by name.
//!
//! To add an operation: a kind in [`OperationKind`], a file here with its [`Definition`], a line
//! in [`definition`], and a use case in `broker` that accepts it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::future::BoxFuture;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    backups::Vault,
    clock::Clock,
    engine::SharedEngine,
    metrics::Metrics,
    model::{
        catalog::{CurrentCatalog, PlanRules},
        deployment::{Deployment, DeploymentSecrets},
        exposure::Exposure,
        instance::Instance,
        observation::Observation,
        operation::{Claim, Operation, OperationKind},
        queue::Limits,
        renewal::CertificateLife,
        retention::Rules,
        tenant::Tenant,
        timetable::Timetable,
        turn::Turn,
    },
    provisioner::{SharedProvisioner, looked_after},
    registrar::Registrar,
    seal::KeyRing,
    store::{self, Conn, Store, StoreError},
    timekeeper::Timekeeper,
};

mod aside;
mod backup;
mod bind;
mod defragment;
mod deprovision;
mod error;
pub mod fault;
mod healing;
mod import;
mod liveness;
mod members;
mod meter;
mod open_deployment;
mod proof;
mod provision;
mod prune;
mod readdress;
mod recover;
mod relief;
mod renew;
mod repair;
mod restore;
mod restore_prefix;
pub mod runner;
mod safety;
mod sizes;
mod unbind;
mod update;

pub use error::StepError;
pub use meter::Meter;
pub use open_deployment::OpenDeployment;

/// What operations act with.
pub struct Parts {
    /// The broker's store.
    pub store: Arc<Store>,
    /// The engines, by name.
    pub engines: BTreeMap<String, SharedEngine>,
    /// The placement targets, by id.
    pub clusters: BTreeMap<String, ClusterParts>,
    /// How much of it may be done at once.
    pub limits: Limits,
    /// Where backups lie.
    pub backups: Vault,
    /// What says which of them should be there.
    pub registrar: Registrar,
    /// What seals secrets.
    pub keys: Arc<KeyRing>,
    /// The offerings and plans.
    pub catalog: Arc<CurrentCatalog>,
    /// The time of day.
    pub clock: Clock,
    /// The gate in front of what cannot be undone.
    pub time: Arc<Timekeeper>,
    /// How long a backup that is old enough to go is kept on.
    pub backup_grace: chrono::TimeDelta,
    /// Whether backups are proved.
    pub proves_backups: bool,
    /// How long certificates of deployments live.
    pub certificate_life: CertificateLife,
    /// How long a member may give no sign of life while others do.
    pub hang_after: Duration,
    /// Where is counted what comes of them.
    pub metrics: Arc<Metrics>,
    /// Where clients reach the broker, as bindings tell it; without a slash at the end.
    pub public_url: String,
}

impl Parts {
    /// How many backups of an instance are kept, and how long, by what its users chose. When its plan
    /// is gone from the catalog, by the fixed schedule.
    pub fn retention(&self, instance: &Instance, chosen: Timetable) -> Rules {
        let rules = self.plan_rules(instance);
        Rules {
            on_demand_kept: rules.on_demand_backups_kept,
            timetable: chosen.within(rules.backup_schedule),
        }
    }

    /// The rules of the plan of an instance.
    fn plan_rules(&self, instance: &Instance) -> PlanRules {
        (self.catalog.get()).rules_of(&instance.service_id, &instance.plan_id)
    }

    /// The clusters that this broker looks after at the moment.
    fn looked_after(&self) -> BTreeSet<String> {
        let clusters = self.clusters.iter().map(|(id, of)| (id, &of.provisioner));
        looked_after(clusters).map(|(id, _)| id.clone()).collect()
    }
}

/// A placement target, as operations use it.
#[derive(Clone)]
pub struct ClusterParts {
    /// What runs members there.
    pub provisioner: SharedProvisioner,
    /// What it shows of its members to applications.
    pub exposure: Exposure,
}

/// One named step.
pub struct Step {
    /// The name under which it is recorded: renaming one is a migration.
    pub name: &'static str,
    /// What it does, for people.
    pub title: &'static str,
    /// Does it.
    pub run: fn(Arc<Work>) -> BoxFuture<'static, Result<Outcome, StepError>>,
}

/// What came of a step that did not fail.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It is done, with this result.
    Done(Value),
    /// A part of it is done, and kept by what it was done to; the next part is due at once.
    Again,
    /// It cannot be done yet; come again after this pause.
    Later(Duration),
    /// The world moved on; the whole operation begins anew. Counts as a failure of this step.
    StartOver(String),
}

impl Outcome {
    /// Done, with nothing to tell later steps.
    pub fn done() -> Result<Self, StepError> {
        Ok(Self::Done(Value::Null))
    }

    /// Done, with something to tell later steps.
    pub fn with(result: &impl Serialize) -> Result<Self, StepError> {
        Ok(Self::Done(
            serde_json::to_value(result).map_err(StepError::unreadable)?,
        ))
    }
}

/// An operation kind: what is done, and what becomes of the world's rows in the end.
pub struct Definition {
    /// The way forward.
    pub steps: &'static [Step],
    /// Written together with the beginning of the first step.
    pub begun: fn(&mut Conn<'_>, &Operation) -> Result<(), StoreError>,
    /// What is undone when the way forward failed or was halted.
    pub cleanup: &'static [Step],
    /// Written together with the end, when all steps are done.
    pub succeed: fn(&mut Conn<'_>, &Ending<'_>) -> Result<(), StoreError>,
    /// Written together with the end, when the operation failed.
    pub fail: fn(&mut Conn<'_>, &Ending<'_>, &str) -> Result<(), StoreError>,
}

/// What is known when an operation ends.
pub struct Ending<'a> {
    /// The operation.
    pub operation: &'a Operation,
    /// When it ends.
    pub now: chrono::DateTime<chrono::Utc>,
    /// What operations act with.
    pub parts: &'a Parts,
}

/// What a step of an operation does, for people; none where no step of that kind is called so.
pub fn title_of(kind: OperationKind, step: &str) -> Option<&'static str> {
    let definition = definition(kind);
    let mut steps = definition.steps.iter().chain(definition.cleanup);
    steps.find(|of| of.name == step).map(|of| of.title)
}

/// The definition of a kind.
pub fn definition(kind: OperationKind) -> &'static Definition {
    match kind {
        OperationKind::Provision => &provision::DEFINITION,
        OperationKind::Restore => &restore::DEFINITION,
        OperationKind::Update => &update::DEFINITION,
        OperationKind::Deprovision => &deprovision::DEFINITION,
        OperationKind::Bind => &bind::DEFINITION,
        OperationKind::Unbind => &unbind::DEFINITION,
        OperationKind::Backup => &backup::DEFINITION,
        OperationKind::FinalBackup => &backup::FINAL,
        OperationKind::Prune => &prune::DEFINITION,
        OperationKind::Relief => &relief::DEFINITION,
        OperationKind::Defragment => &defragment::DEFINITION,
        OperationKind::Repair => &repair::DEFINITION,
        OperationKind::Recover => &recover::DEFINITION,
        OperationKind::Renew => &renew::DEFINITION,
        OperationKind::Readdress => &readdress::DEFINITION,
        OperationKind::Proof => &proof::DEFINITION,
        OperationKind::Import => &import::DEFINITION,
        OperationKind::RestorePrefix => &restore_prefix::DEFINITION,
    }
}

/// What a step works with.
pub struct Work {
    /// What operations act with.
    pub parts: Arc<Parts>,
    /// The operation, as it was when it was claimed.
    pub operation: Operation,
    /// The right to write for it.
    pub claim: Claim,
    /// Counts the bytes of the current step.
    pub meter: Arc<Meter>,
}

impl Work {
    /// Reads from the store.
    pub async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Conn<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StepError> {
        Ok(self.parts.store.read(work).await?)
    }

    /// Reads what may be much.
    pub async fn scan<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Conn<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StepError> {
        Ok(self.parts.store.scan(work).await?)
    }

    /// Writes to the store, as long as the claim holds.
    pub async fn write<T: Send + 'static>(
        &self,
        work: impl Fn(&mut Conn<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StepError> {
        let claim = self.claim.clone();
        let write = move |conn: &mut Conn<'_>| {
            store::claim::fence(conn, &claim)?;
            work(conn)
        };
        Ok(self.parts.store.write(write).await?)
    }

    /// Tells which member has its turn in the current step.
    pub async fn take_turn(&self, turn: Turn) -> Result<(), StepError> {
        let claim = self.claim.clone();
        self.write(move |conn| store::step::take_turn(conn, &claim, &turn))
            .await
    }

    /// The instance worked on.
    pub async fn instance(&self) -> Result<Instance, StepError> {
        let id = self.operation.instance.clone();
        self.read(move |conn| store::instance::get(conn, &id)).await
    }

    /// Who owns the instance worked on.
    pub async fn tenant(&self) -> Result<Tenant, StepError> {
        Ok(self.instance().await?.tenant)
    }

    /// The deployment worked on.
    pub async fn deployment(&self) -> Result<Deployment, StepError> {
        Ok(self.deployment_row().await?.0)
    }

    /// The deployment worked on, once members are allocated.
    pub async fn opened(&self) -> Result<OpenDeployment, StepError> {
        let (deployment, sealed) = self.deployment_row().await?;
        let sealed = sealed.ok_or_else(|| StepError::last("the deployment has no members"))?;
        let secrets = self.open(&deployment.seal_context(), &sealed)?;
        self.with_secrets(deployment, secrets)
    }

    /// A deployment and its secrets, with the rest that it takes to work on it.
    pub fn with_secrets(
        &self,
        deployment: Deployment,
        secrets: DeploymentSecrets,
    ) -> Result<OpenDeployment, StepError> {
        Ok(OpenDeployment {
            engine: self.engine(&deployment)?.clone(),
            cluster: self.cluster(&deployment)?.clone(),
            access: deployment.access(),
            deployment,
            secrets,
        })
    }

    async fn deployment_row(&self) -> Result<(Deployment, Option<String>), StepError> {
        let id = self.operation.instance.clone();
        self.read(move |conn| store::deployment::of_instance(conn, &id))
            .await?
            .ok_or_else(|| StepError::last("the deployment is gone"))
    }

    /// Whether the operation was told to halt since it was claimed, or before.
    pub async fn was_halted(&self) -> Result<bool, StepError> {
        let id = self.operation.id.clone();
        let operation = self.read(move |conn| store::operation::get(conn, &id));
        Ok(operation.await?.halted)
    }

    /// Opens a sealed value that belongs to `context`.
    pub fn open<T: DeserializeOwned>(&self, context: &str, sealed: &str) -> Result<T, StepError> {
        Ok(self.parts.keys.open_as(context, sealed)?)
    }

    /// Seals a value for `context`.
    pub fn seal(&self, context: &str, value: &impl Serialize) -> Result<String, StepError> {
        let plain = serde_json::to_vec(value).map_err(StepError::unreadable)?;
        Ok(self.parts.keys.seal(context, &plain)?)
    }

    /// What an earlier step of this operation returned.
    pub async fn result<T: DeserializeOwned>(&self, step: &'static str) -> Result<T, StepError> {
        let id = self.operation.id.clone();
        let mut results = self
            .read(move |conn| store::step::results(conn, &id))
            .await?;
        let value = results
            .remove(step)
            .ok_or_else(|| StepError::last(format!("the step {step} left no result")))?;
        serde_json::from_value(value).map_err(StepError::unreadable)
    }

    /// The engine of a deployment.
    pub fn engine(&self, deployment: &Deployment) -> Result<&SharedEngine, StepError> {
        self.parts.engines.get(&deployment.engine).ok_or_else(|| {
            StepError::last(format!("this broker has no engine {}", deployment.engine))
        })
    }

    /// The members of a deployment as they are now.
    pub async fn observe(&self, opened: &OpenDeployment) -> Result<Observation, StepError> {
        let members = opened.engine.observe(opened.site()).await?;
        let needed = opened.profile().members_needed;
        Ok(Observation::first(members, needed, self.parts.clock.now()))
    }

    /// The cluster of a deployment.
    pub fn cluster(&self, deployment: &Deployment) -> Result<&ClusterParts, StepError> {
        self.parts.clusters.get(&deployment.cluster).ok_or_else(|| {
            StepError::last(format!("this broker has no cluster {}", deployment.cluster))
        })
    }
}
