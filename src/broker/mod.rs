//! The use cases: check the rules, write the intent in one transaction, return.
//!
//! Nothing here does the work. What is accepted is durable when the use case returns, and the
//! [runner](crate::operation::runner) takes it from there. A refusal leaves nothing behind.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{
    backups::{BackupStoreError, Vault},
    clock::Clock,
    model::{
        catalog::CurrentCatalog,
        ids::{BindingId, InstanceId},
        instance::dashboard_url,
        limits::SYNC_WAIT,
        name::DeploymentNames,
        operation::{DeletedPoll, OperationKind},
        placement::Cluster,
        queue::Limits,
        renewal::CertificateLife,
        tenant::{RestoreScope, TenantKeys},
    },
    registrar::{Registrar, RegistrarError},
    seal::{KeyRing, SealError},
    store::{Store, StoreError},
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
mod credentials;
mod dashboard;
mod defragment;
mod deleted;
mod deployment;
mod download;
mod due;
mod estate;
mod expiry;
mod fate;
mod finding;
mod health;
mod history;
mod instance;
mod inventory;
mod leftover;
mod link;
mod logfile;
mod messenger;
mod mirror;
mod observation;
mod outbox;
mod oversight;
mod owner;
mod page;
mod pin;
mod prefix;
mod profile;
mod proof;
mod provision;
mod quota;
mod readdress;
mod ready;
mod reconcile;
mod recover;
mod refusal;
mod relief;
mod renewal;
mod repair;
mod restore;
mod retention;
mod round;
mod schedule;
mod session;
mod settings;
mod source;
mod status;
mod target;
mod tenant_key;
#[cfg(test)]
mod tests;
mod token;
mod update;
mod upgrade;
mod upkeep;
mod upload;
mod versions;
mod vitals;

pub use crate::timekeeper::ClockState;
pub use adopt::{AdoptedDeployment, Census, CensusError, Stray, Strays};
pub use audit::{Audit, AuditPage, AuditQuery};
pub use backup::Backups;
pub use binding::{BindRequest, Bindings, Bound, FetchedBinding, UnbindRequest, Unbound};
pub use catalog::{CatalogRefusal, Catalogs, LostPlan, LostPlans, keeps_all_plans};
pub use clock::TrustedTime;
pub use cluster::Clusters;
pub use credentials::{Credential, Credentials, CredentialsRequest, PageBindings};
pub use dashboard::{BackUpNow, InstanceListed, InstanceView, TasksPage, Views};
pub use deleted::{DeletedInstances, DeletedListed};
pub use deployment::{DeploymentView, Deployments, Source, Task};
pub use download::{
    ArchiveLength, Archives, BackupDownload, Download, DownloadLink, Downloads, backup_name,
};
pub use estate::{ClusterSeen, Estate, EstatePage, EstateQuery, Estates, Late, Listed, Order};
pub use expiry::Expiry;
pub use fate::{Fate, Fates, Gone, Left};
pub use finding::{Finding, FindingRepair, Repaired};
pub use history::Histories;
pub use instance::{DeprovisionRequest, FetchedInstance, InstanceLabels, Instances, Provisioned};
pub use inventory::{Installed, Inventory, Kept, Versions};
pub use link::Links;
pub use logfile::{LogError, LogLink, Logfiles, Logs, logfile_id, logfile_name};
pub use messenger::{Messenger, Tested, WebhookTests};
pub use mirror::{MirrorView, Mirrors};
pub use observation::Observer;
pub use outbox::{Backlog, Outbox};
pub use oversight::{OperationDetail, OperationsPage, OperationsQuery, Oversight, StepTold};
pub use owner::{OwnerFinding, Owners};
pub use pin::{BackupChange, KeptNow, Pins};
pub use profile::Profiles;
pub use proof::Proofs;
pub use provision::ProvisionRequest;
pub use readdress::Moves;
pub use reconcile::{Reconciler, Unknown};
pub use recover::Recoveries;
pub use renewal::Renewals;
pub use repair::RepairBegun;
pub use restore::{
    RestoreOptions, RestorePlace, RestorePreflight, RestoreRequest, Restored, Restores,
};
pub use retention::Retention;
pub use round::{LookedOver, Rounds};
pub use schedule::{BackupSchedule, back_up_due};
pub use session::{Doorkeeper, Sessions, SignInWay, SignedIn, no_such_page, read_only};
pub use settings::{Settings, SizePreflight, Sizes};
pub use status::{OperationStatus, StatusState, Statuses, status_of};
pub use tenant_key::{BACKUP_PRIVATE_KEY, PrivateKey, without_private_key};
pub use token::Tokens;
pub use update::{UpdateRequest, Updated, Updates};
pub use upgrade::{Preflight, Upgrades};
pub use upkeep::Upkeep;
pub use upload::{UploadRequest, Uploads};
pub use versions::VersionInUse;
pub use vitals::Vitals;

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
        "too many backups are being sent or received at the moment, or too many of this instance or to this address; try again later"
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
    /// Another broker lacks the plan.
    #[error(
        "the broker on {0} does not offer this plan now: once all brokers have the same catalog, it can be \
         asked for"
    )]
    NotOfferedByAll(String),
    /// Another broker has what was asked for.
    #[error(
        "another broker looks after the cluster {0}, and has what its members print; ask a broker of that \
         machine"
    )]
    Elsewhere(String),
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

impl From<RegistrarError> for BrokerError {
    fn from(error: RegistrarError) -> Self {
        match error {
            RegistrarError::Store(error) => error.into(),
            RegistrarError::Backups(error) => error.into(),
        }
    }
}

impl BrokerError {
    /// Whether there is no room for the bytes of a backup: room may be made.
    pub fn lacks_room(&self) -> bool {
        matches!(self, Self::BackupStore(BackupStoreError::Full { .. }))
    }
}

/// What a failure of the backup store means to who asked.
fn meaning_of(error: &BackupStoreError) -> &'static str {
    match error {
        BackupStoreError::NotFound(_) => "the backup's bytes are missing from the backup store",
        BackupStoreError::Damaged { .. } => "the backup's bytes are damaged",
        BackupStoreError::Absent { .. } => {
            "the backup store is not there; the broker's operator has to look whether its disk is \
             mounted, or its bucket there"
        }
        BackupStoreError::Full { .. } => "the backup store is full",
        BackupStoreError::Server {
            may_pass: false, ..
        } => "the backup store refuses; the broker's operator has to look",
        BackupStoreError::KeyMissing { .. } => {
            "the backup is sealed under a key that the broker lacks; its operator has to put it back"
        }
        BackupStoreError::ForTenant { .. } => {
            "the backup is sealed for your own key, which the broker has not"
        }
        BackupStoreError::BrokenSource(_)
        | BackupStoreError::NotSealed(_)
        | BackupStoreError::Server { .. }
        | BackupStoreError::Io { .. } => "the backup store did not answer",
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

/// Says what the step of that name does, of operations of a kind.
pub type StepTitles = fn(OperationKind, &str) -> Option<&'static str>;

/// What the use cases work with, as it comes from outside.
pub struct BrokerParts {
    /// The broker's store.
    pub store: Arc<Store>,
    /// The broker's id among those that share the store.
    pub replica: String,
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
    /// What says which of them should be there.
    pub registrar: Registrar,
    /// The placement targets; the first enabled one is the default.
    pub clusters: Arc<[Cluster]>,
    /// The versions of each engine on each cluster: cluster id, then engine.
    pub versions: Versions,
    /// What is known of each engine.
    pub profiles: Profiles,
    /// The most units of all instances of one tenant together; absent: no limit.
    pub units_per_tenant: Option<u32>,
    /// How much of what operations do may be done at once.
    pub limits: Limits,
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
    /// Whether backups are proved.
    pub proves_backups: bool,
    /// What a step of an operation does, for people.
    pub step_titles: StepTitles,
    /// How long certificates of deployments live.
    pub certificate_life: CertificateLife,
    /// Who signs in as operator, and how often a client may fail to.
    pub doorkeeper: Arc<Doorkeeper>,
    /// Sends downloads, apart from the threads that answer requests.
    pub downloads: Arc<Downloads>,
    /// How much room there is for what the broker keeps.
    pub volumes: Arc<Volumes>,
    /// Says what state deployments are in.
    pub observer: Arc<dyn Observer>,
    /// Says what is on the clusters.
    pub census: Arc<dyn Census>,
    /// Reads what members print.
    pub logs: Arc<dyn Logs>,
    /// Brings messages to the operator's webhook, where there is one.
    pub messenger: Option<Arc<dyn Messenger>>,
}

/// The use cases: one type for each noun, which has the parts that it needs. A type uses those before it in
/// [`Broker::new`].
pub struct Broker {
    /// The time of day.
    pub clock: Clock,
    /// Where clients reach the broker, without a slash at the end.
    pub public_url: String,
    /// What there is to offer.
    pub inventory: Arc<Inventory>,
    /// Service instances.
    pub instances: Arc<Instances>,
    /// Service bindings.
    pub bindings: Arc<Bindings>,
    /// Service bindings that visitors of the pages make.
    pub credentials: PageBindings,
    /// What becomes of instances.
    pub updates: Arc<Updates>,
    /// What an upgrade would do.
    pub upgrades: Upgrades,
    /// What visitors of the pages change about instances themselves.
    pub settings: Settings,
    /// What became of operations.
    pub statuses: Arc<Statuses>,
    /// Deployments, as users reach them.
    pub deployments: Arc<Deployments>,
    /// What clusters have.
    pub clusters: Clusters,
    /// Backups of instances.
    pub backups: Arc<Backups>,
    /// Notes and pins of backups.
    pub pins: Pins,
    /// Backups that users bring along.
    pub uploads: Arc<Uploads>,
    /// The bytes of backups.
    pub archives: Archives,
    /// Instances that are made of backups.
    pub restores: Arc<Restores>,
    /// What members print.
    pub logfiles: Logfiles,
    /// How databases are.
    pub vitals: Arc<Vitals>,
    /// Databases that are brought back.
    pub recoveries: Recoveries,
    /// What pages show.
    pub views: Views,
    /// What became of what pages are about.
    pub fates: Fates,
    /// All instances at once.
    pub estates: Estates,
    /// All instances, one after the other.
    pub rounds: Rounds,
    /// What the operator's webhook is told.
    pub outbox: Arc<Outbox>,
    /// How databases were over time.
    pub histories: Histories,
    /// Whether the operator's webhook takes messages.
    pub webhook: WebhookTests,
    /// Whose instances are.
    pub owners: Arc<Owners>,
    /// The catalog that is in force, and the next one.
    pub catalogs: Catalogs,
    /// How far the clock is believed.
    pub time: TrustedTime,
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
    /// Backups that are restored aside.
    pub proofs: Proofs,
    /// Backups whose time has come.
    pub retention: Retention,
    /// Copies of backups in a second store.
    pub mirrors: Mirrors,
    /// Certificates that end soon.
    pub renewals: Renewals,
    /// Members that applications should reach elsewhere.
    pub moves: Arc<Moves>,
    store: Arc<Store>,
    vault: Vault,
}

impl Broker {
    /// The use cases over `parts`.
    pub fn new(parts: &BrokerParts) -> Self {
        let (inventory, audit) = (Arc::new(Inventory::new(parts)), Arc::new(Audit::new(parts)));
        let (oversight, tokens) = (Oversight::new(parts), Tokens::new(parts.store.clone()));
        let sessions = Arc::new(Sessions::new(parts, tokens.clone(), audit.clone()));
        let links = Arc::new(Links::new(parts, sessions.clone()));
        let (moves, backups) = (Arc::new(Moves::new(parts)), Arc::new(Backups::new(parts)));
        let vitals = Arc::new(Vitals::new(parts, inventory.clone(), moves.clone()));
        let (deployments, mirrors) = (Arc::new(Deployments::new(parts)), Mirrors::new(parts));
        let (statuses, owners) = (Arc::new(Statuses::new(parts)), Arc::new(Owners::new(parts)));
        let instances = Arc::new(Instances::new(parts, inventory.clone(), owners.clone()));
        let updates = Arc::new(Updates::new(parts, inventory.clone()));
        let (of, seen, at) = (inventory.clone(), audit.clone(), deployments.clone());
        let bindings = Arc::new(Bindings::new(parts, seen, of, at, statuses.clone()));
        let (kept, seen, from) = (backups.clone(), audit.clone(), deployments.clone());
        Self {
            archives: Archives::new(parts, links.clone(), seen, from, kept),
            logfiles: Logfiles::new(parts, links, audit.clone(), deployments.clone()),
            restores: Arc::new(Restores::new(parts, inventory.clone(), instances.clone())),
            upgrades: Upgrades::new(parts, inventory.clone(), updates.clone()),
            settings: Settings::new(parts, inventory.clone(), updates.clone(), vitals.clone()),
            clusters: Clusters::new(parts, inventory.clone(), deployments.clone()),
            recoveries: Recoveries::new(parts, inventory.clone()),
            views: Views::new(parts, inventory.clone(), vitals.clone()),
            fates: Fates::new(parts),
            uploads: Arc::new(Uploads::new(parts)),
            pins: Pins::new(parts, inventory.clone()),
            outbox: Arc::new(Outbox::new(parts)),
            histories: Histories::new(parts),
            webhook: WebhookTests::new(parts),
            rounds: Rounds::new(parts, inventory.clone(), vitals.clone()),
            estates: Estates::new(parts, inventory.clone(), vitals.clone()),
            reconciler: Reconciler::new(parts, oversight.clone()),
            catalogs: Catalogs::new(parts),
            time: TrustedTime::new(parts),
            upkeep: Arc::new(Upkeep::new(parts)),
            schedule: BackupSchedule::new(parts),
            expiry: Expiry::new(parts),
            proofs: Proofs::new(parts),
            retention: Retention::new(parts),
            mirrors,
            renewals: Renewals::new(parts),
            credentials: PageBindings::new(parts, bindings.clone()),
            bindings,
            inventory,
            instances,
            updates,
            statuses,
            deployments,
            backups,
            vitals,
            owners,
            audit,
            tokens,
            sessions,
            oversight,
            moves,
            clock: parts.clock.clone(),
            public_url: parts.public_url.clone(),
            store: parts.store.clone(),
            vault: parts.backups.clone(),
        }
    }

    /// Where the dashboard of an instance is.
    pub fn dashboard_url(&self, instance: &InstanceId) -> String {
        dashboard_url(&self.public_url, instance)
    }

    /// Changes with every operation that has ended: a place may have become free.
    pub fn ends(&self) -> watch::Receiver<u64> {
        self.store.ends()
    }

    /// Fails when the store takes no write at the moment.
    pub async fn check_store(&self) -> Result<(), BrokerError> {
        Ok(self.store.ping().await?)
    }

    /// Fails when the backup store is not the one that the broker knows, or cannot be asked.
    pub async fn check_backups(&self) -> Result<(), BrokerError> {
        Ok(self.vault.check().await?)
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
