//! The use cases: check the rules, write the intent in one transaction, return.
//!
//! Nothing here does the work. What is accepted is durable when the use case returns, and the
//! [runner](crate::operation::runner) takes it from there. A refusal leaves nothing behind.

use std::{collections::BTreeMap, sync::Arc};

use tokio::{sync::watch, time::Instant};

use crate::{
    backups::{BackupStoreError, Vault},
    clock::Clock,
    model::{
        catalog::{CurrentCatalog, Offering, Plan},
        deployment::Deployment,
        engine::Profile,
        exposure::Exposure,
        ids::{BindingId, InstanceId, OperationId},
        limits::SYNC_WAIT,
        name::DeploymentNames,
        operation::{DeletedPoll, Operation, OperationState},
        placement::Cluster,
        renewal::CertificateLife,
        tenant::{RestoreScope, TenantKeys},
        version::Version,
        volume::Volume,
    },
    seal::{KeyRing, SealError},
    store::{self, Store, StoreError},
    timekeeper::Timekeeper,
    volumes::Volumes,
};

mod adopt;
mod alert;
mod audit;
mod backup;
mod binding;
mod catalog;
mod clock;
mod cluster;
mod dashboard;
mod defragment;
mod deployment;
mod download;
mod estate;
mod expiry;
mod fate;
mod finding;
mod health;
mod instance;
mod leftover;
mod link;
mod logfile;
mod observation;
mod oversight;
mod owner;
mod profile;
mod quota;
mod readdress;
mod reconcile;
mod recover;
mod relief;
mod renewal;
mod repair;
mod restore;
mod retention;
mod round;
mod schedule;
mod session;
mod status;
mod target;
#[cfg(test)]
mod tests;
mod token;
mod update;
mod upgrade;
mod upkeep;
mod versions;

pub use crate::timekeeper::Standing as ClockStanding;
pub use adopt::{AdoptedDeployment, Census, CensusError, Stray, Strays};
pub use audit::{Audit, AuditPage, AuditQuery};
pub use binding::{BindRequest, Bound, FetchedBinding, UnbindRequest, Unbound};
pub use catalog::{CatalogRefusal, LostPlan, LostPlans, keeps_all_plans};
pub use dashboard::{BackUpNow, InstanceListed, InstanceView};
pub use deployment::DeploymentView;
pub use download::{BackupDownload, Download, DownloadLink, Downloads, backup_name};
pub use estate::{ClusterSeen, Estate, EstatePage, EstateQuery, Late, Listed, Order};
pub use expiry::Expiry;
pub use fate::Fate;
pub use finding::{Finding, Repair, Repaired};
pub use instance::{
    DeprovisionRequest, FetchedInstance, InstanceLabels, ProvisionRequest, Provisioned,
};
pub use link::Links;
pub use logfile::{LogError, LogLink, Logs, logfile_id, logfile_name};
pub use observation::Observer;
pub use oversight::{OperationDetail, OperationsPage, OperationsQuery, Oversight};
pub use owner::OwnerFinding;
pub use profile::Profiles;
pub use readdress::Moves;
pub use reconcile::Reconciler;
pub use renewal::Renewals;
pub use repair::RepairBegun;
pub use restore::{RestoreOptions, RestorePlace, RestoreRequest, Restored};
pub use retention::Retention;
pub use round::LookedOver;
pub use schedule::{BackupSchedule, back_up_due};
pub use session::{Doorkeeper, Sessions, SignInWay, SignedIn, no_such_page, read_only};
pub use status::{OperationStatus, StatusState, status_of};
pub use token::Tokens;
pub use update::{UpdateRequest, Updated};
pub use upgrade::Preflight;
pub use upkeep::Upkeep;
pub use versions::VersionInUse;

/// Why a use case refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The request itself is wrong; the text says what to do.
    #[error("{0}")]
    BadRequest(String),
    /// There is no such thing, or none that the caller may know of.
    #[error("{0}")]
    NotFound(String),
    /// What is to be deleted is gone already.
    #[error("it does not exist (any more)")]
    Gone,
    /// The id is taken by something else.
    #[error("{0}")]
    Conflict(String),
    /// The platform must accept an asynchronous answer. The client library of service-catalog and
    /// Service Manager compares the text with the specification's sentence, word by word.
    #[error("This service plan requires client support for asynchronous service operations.")]
    AsyncRequired,
    /// Something else is being done there.
    #[error("{0}")]
    Concurrency(String),
    /// The platform knows another version of the plan.
    #[error("{0}")]
    MaintenanceInfoConflict(String),
    /// The instance cannot become what was asked for. It goes on as it is.
    #[error("{reason}")]
    UpdateRefused {
        /// What to do.
        reason: String,
        /// Whether the same may be accepted later.
        repeatable: bool,
    },
    /// The instance was protected against what is asked for.
    #[error(
        "the service instance is protected against deletion; update it with the parameter \
         delete_protection: false first"
    )]
    Protected,
    /// Too much of the same is being done already.
    #[error(
        "too many downloads are being sent at the moment, or too many of this instance or to this address; try again later"
    )]
    Busy,
    /// Who asks may not: what was shown is not good.
    #[error("{0}")]
    Denied(String),
    /// A backup was asked for so soon after the one before; the next one is taken after this long.
    #[error("the last backups of this instance were asked for not long ago; try again in {} s", .0.as_secs())]
    TooSoon(std::time::Duration),
    /// Too many sign-ins failed; nothing is looked at for so long.
    #[error("Too many sign-ins failed. Try again in {} s.", .0.as_secs())]
    Throttled(std::time::Duration),
    /// It was begun, but did not end in the time that the client waits.
    #[error("the operation goes on, but did not end within {wait} s: {0}", wait = SYNC_WAIT.as_secs())]
    StillRunning(String),
    /// It was begun and failed.
    #[error("{0}")]
    Failed(String),
    /// The store did not do its part.
    #[error("the broker's store did not answer")]
    Store(#[source] StoreError),
    /// The store's disk is full.
    #[error(
        "the disk of the broker's store is full, so nothing new is accepted; its operator has to make \
         room"
    )]
    StoreFull(#[source] StoreError),
    /// A secret could not be opened or made.
    #[error("the broker cannot open or seal its secrets")]
    Seal(#[from] SealError),
    /// The backup store did not do its part.
    #[error("{}", meaning_of(.0))]
    BackupStore(#[from] BackupStoreError),
    /// The clusters did not do their part.
    #[error("the clusters cannot be looked at")]
    Clusters(#[from] CensusError),
    /// What members print cannot be read.
    #[error("the members' logs cannot be read")]
    Logs(#[from] LogError),
    /// Something recorded cannot be read.
    #[error("the broker cannot read what it recorded")]
    Unreadable(#[from] serde_json::Error),
}

/// What a failure of the backup store means to who asked.
fn meaning_of(error: &BackupStoreError) -> &'static str {
    match error {
        BackupStoreError::NotFound(_) => "the backup's bytes are missing from the backup store",
        BackupStoreError::Damaged { .. } => "the backup's bytes are damaged",
        BackupStoreError::Absent { .. } => {
            "the backup store is not there; the broker's operator has to look whether its disk is \
             mounted"
        }
        BackupStoreError::Full { .. } => "the backup store is full",
        BackupStoreError::BrokenSource(_) | BackupStoreError::Io { .. } => {
            "the backup store did not answer"
        }
    }
}

impl From<StoreError> for BrokerError {
    fn from(error: StoreError) -> Self {
        match error {
            // Where several replicas share a database, the second of two equal requests finds the
            // place taken at the very end.
            StoreError::Duplicate => Self::Concurrency(
                "another request for the same thing came first; try again".to_owned(),
            ),
            full if full.is_full() => Self::StoreFull(full),
            other => Self::Store(other),
        }
    }
}

/// What the use cases work with, as it comes from outside.
pub struct BrokerParts {
    /// The broker's store.
    pub store: Arc<Store>,
    /// The offerings and plans.
    pub catalog: Arc<CurrentCatalog>,
    /// What seals secrets and signs links.
    pub keys: Arc<KeyRing>,
    /// The time of day.
    pub clock: Clock,
    /// The gate in front of what cannot be undone.
    pub time: Arc<Timekeeper>,
    /// Where backups lie. Read from here; written by nobody but operations and the repair that an
    /// operator asks for.
    pub backups: Vault,
    /// The placement targets; the first enabled one is the default.
    pub clusters: Arc<[Cluster]>,
    /// The versions of each engine on each cluster: cluster id, then engine.
    pub versions: BTreeMap<String, BTreeMap<String, Vec<Version>>>,
    /// What is known of each engine.
    pub profiles: Profiles,
    /// The most units of all instances of one tenant together; absent: no limit.
    pub units_per_tenant: Option<u32>,
    /// How far a restore may reach for its source.
    pub restore_scope: RestoreScope,
    /// The ids of contexts that tell tenants apart, where the operator names them.
    pub tenant_keys: TenantKeys,
    /// What a poll with the token of a deletion that is done is answered.
    pub deleted_poll: DeletedPoll,
    /// Where clients reach the broker, without a slash at the end.
    pub public_url: String,
    /// Time between on-demand backups of an instance, after some in a row.
    pub on_demand_pause: std::time::Duration,
    /// How deployments are called.
    pub deployment_names: DeploymentNames,
    /// How many days the audit is kept; absent: for ever.
    pub audit_days: Option<u32>,
    /// How long certificates of deployments live.
    pub certificate_life: CertificateLife,
    /// Who signs in as operator, and how often a client may fail to.
    pub doorkeeper: Arc<Doorkeeper>,
    /// Sends downloads, apart from the threads that answer requests.
    pub downloads: Downloads,
    /// How much room there is for what the broker keeps.
    pub volumes: Arc<Volumes>,
    /// Says what state deployments are in.
    pub observer: Arc<dyn Observer>,
    /// Says what is on the clusters.
    pub census: Arc<dyn Census>,
    /// Reads what members print.
    pub logs: Box<dyn Logs>,
}

/// The use cases. Those about instances and what belongs to them are methods of this type, one file for
/// each noun; what stands on its own is a type of its own, which says what it needs.
pub struct Broker {
    /// The offerings and plans.
    pub catalog: Arc<CurrentCatalog>,
    /// The time of day.
    pub clock: Clock,
    /// Where clients reach the broker, without a slash at the end.
    pub public_url: String,
    /// The versions of each engine on each cluster: cluster id, then engine.
    pub versions: BTreeMap<String, BTreeMap<String, Vec<Version>>>,
    /// What is known of each engine.
    pub profiles: Profiles,
    /// Who did and saw what.
    pub audit: Arc<Audit>,
    /// Tokens of the administration API.
    pub tokens: Tokens,
    /// Who may see the dashboard.
    pub sessions: Arc<Sessions>,
    /// The operator's view of operations.
    pub oversight: Oversight,
    /// Finds and repairs where the store is not what is there.
    pub reconciler: Reconciler,
    /// What keeps databases in good state.
    pub upkeep: Arc<Upkeep>,
    /// Backups that are due by themselves.
    pub schedule: BackupSchedule,
    /// Bindings whose time is over.
    pub expiry: Expiry,
    /// Backups whose time has come.
    pub retention: Retention,
    /// Certificates that end soon.
    pub renewals: Renewals,
    /// Members that applications should reach elsewhere.
    pub moves: Moves,
    store: Arc<Store>,
    keys: Arc<KeyRing>,
    time: Arc<Timekeeper>,
    backups: Vault,
    clusters: Arc<[Cluster]>,
    units_per_tenant: Option<u32>,
    restore_scope: RestoreScope,
    tenant_keys: TenantKeys,
    deleted_poll: DeletedPoll,
    deployment_names: DeploymentNames,
    on_demand_pause: std::time::Duration,
    links: Links,
    downloads: Downloads,
    volumes: Arc<Volumes>,
    observer: Arc<dyn Observer>,
    logs: Box<dyn Logs>,
    estate: estate::Memory,
}

impl Broker {
    /// The use cases over `parts`.
    pub fn new(parts: BrokerParts) -> Self {
        let audit = Arc::new(Audit::new(&parts));
        let oversight = Oversight::new(&parts);
        let reconciler = Reconciler::new(&parts, oversight.clone());
        let (schedule, expiry) = (BackupSchedule::new(&parts), Expiry::new(&parts));
        let (retention, renewals) = (Retention::new(&parts), Renewals::new(&parts));
        let (moves, upkeep) = (Moves::new(&parts), Arc::new(Upkeep::new(&parts)));
        let tokens = Tokens::new(parts.store.clone());
        let sessions = Arc::new(Sessions::new(&parts, tokens.clone(), audit.clone()));
        let links = Links::new(&parts, sessions.clone());
        Self {
            store: parts.store,
            catalog: parts.catalog,
            clock: parts.clock,
            public_url: parts.public_url,
            versions: parts.versions,
            profiles: parts.profiles,
            audit,
            tokens,
            sessions,
            oversight,
            reconciler,
            upkeep,
            schedule,
            expiry,
            retention,
            renewals,
            moves,
            keys: parts.keys,
            time: parts.time,
            backups: parts.backups,
            clusters: parts.clusters,
            units_per_tenant: parts.units_per_tenant,
            restore_scope: parts.restore_scope,
            tenant_keys: parts.tenant_keys,
            deleted_poll: parts.deleted_poll,
            deployment_names: parts.deployment_names,
            on_demand_pause: parts.on_demand_pause,
            links,
            downloads: parts.downloads,
            volumes: parts.volumes,
            observer: parts.observer,
            logs: parts.logs,
            estate: estate::Memory::default(),
        }
    }

    /// The offering and its own plan of those ids.
    fn offering_and_plan(
        &self,
        service_id: &str,
        plan_id: &str,
    ) -> Result<(Arc<Offering>, Arc<Plan>), BrokerError> {
        catalog::offering_and_plan(&self.catalog, service_id, plan_id)
    }

    /// What is known of an engine.
    pub fn profile(&self, engine: &str) -> Result<&'static Profile, BrokerError> {
        self.profiles.get(engine)
    }

    /// Where applications find the members of a deployment; nothing of an engine that is not known.
    pub fn urls(&self, deployment: &Deployment) -> Vec<String> {
        let profile = self.profile(&deployment.engine).ok();
        profile.map_or_else(Vec::new, |profile| profile.urls(deployment))
    }

    /// How many members a deployment has, or will have.
    pub fn members_of(&self, deployment: &Deployment) -> usize {
        let profile = self.profile(&deployment.engine).ok();
        profile.map_or(deployment.members.len(), |profile| profile.members)
    }

    /// The versions of an engine on a cluster.
    fn versions_on(&self, cluster: &str, engine: &str) -> &[Version] {
        self.versions
            .get(cluster)
            .and_then(|v| v.get(engine))
            .map_or(&[], Vec::as_slice)
    }

    /// What a cluster shows of its members to applications; nothing of one that is not known.
    fn exposure(&self, cluster: &str) -> Exposure {
        cluster::exposure(&self.clusters, cluster)
    }

    /// Changes with every operation that was accepted, halted or ended: a place may have become free.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.store.changes()
    }

    /// Fails when the store takes no write at the moment.
    pub async fn check_store(&self) -> Result<(), BrokerError> {
        Ok(self.store.ping().await?)
    }

    /// Fails when the broker cannot do anything useful at the moment.
    pub async fn check_ready(&self) -> Result<(), BrokerError> {
        self.check_store().await?;
        Ok(self.backups.check().await?)
    }

    /// The volumes of store, members and backups, as they were seen last.
    pub fn volumes(&self) -> Vec<Volume> {
        self.volumes.seen()
    }

    /// Waits for the end of an operation, for clients that cannot ask again.
    async fn wait_for(&self, id: &OperationId) -> Result<Operation, BrokerError> {
        let deadline = Instant::now() + SYNC_WAIT;
        let mut changes = self.store.changes();
        loop {
            changes.mark_unchanged();
            let wanted = id.clone();
            let operation = self
                .store
                .read(move |conn| store::operation::get(conn, &wanted))
                .await?;
            match operation.state {
                OperationState::Succeeded => return Ok(operation),
                OperationState::Failed | OperationState::Stuck | OperationState::Abandoned => {
                    let failure = operation.failure.unwrap_or_default();
                    return Err(BrokerError::Failed(failure));
                }
                OperationState::Queued | OperationState::Running => {}
            }
            // Another replica's changes are not told of: look now and then.
            let look_again = (Instant::now() + std::time::Duration::from_millis(500)).min(deadline);
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep_until(look_again) => {}
            }
            if Instant::now() >= deadline {
                let told = status_of(&operation, self.clock.now()).description;
                return Err(BrokerError::StillRunning(told));
            }
        }
    }
}

fn instance_key(id: &InstanceId) -> String {
    format!("instance {id}")
}

fn binding_key(instance: &InstanceId, id: &BindingId) -> String {
    // No id has a control character, so no two keys are alike: with a space between them, "a b"
    // and "c" would be "a" and "b c".
    format!("binding {instance}\u{1f}{id}")
}

fn backup_key(instance: &InstanceId) -> String {
    format!("backup {instance}")
}
