//! Kinds of database.
//!
//! An engine knows how its members are configured, secured, probed, saved and restored; it talks
//! to running members over their own protocol and leaves running them to a
//! [provisioner](crate::provisioner). Every method may be called again after a crash.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::{
    model::{
        backup::SnapshotContent,
        binding::Rights,
        deployment::{Deployment, DeploymentSecrets, Member, Site},
        engine::{Obstacle, Profile},
        observation::MemberObservation,
        renewal::{Certificates, Renewal},
        secret::Secret,
        server::Server,
        version::Version,
    },
    seal::SealError,
    stream::ByteStream,
    workbench::{ProvisionerError, Workbench},
};

pub mod etcd;

/// Why an engine could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The members did not come up, or not in time.
    #[error("the members are not ready: {0}")]
    NotReady(String),
    /// A member refused or broke off a call.
    #[error("{doing}: {meaning}")]
    Call {
        /// What was being done.
        doing: &'static str,
        /// What came of it, for people.
        meaning: String,
        /// Whether the same would be refused again, however often it is asked for.
        is_final: bool,
        /// Whether no member answered, or those that did have no majority.
        is_silence: bool,
        /// What the member said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Somebody else was there first: a new deployment is not empty, or a restored one holds
    /// something else than its backup.
    #[error("{0}")]
    Unexpected(String),
    /// The engine's tool said something that we do not understand.
    #[error("cannot read what {tool} printed: {reason}")]
    Output {
        /// The tool.
        tool: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A key or certificate could not be made.
    #[error("cannot make the deployment's certificates")]
    Certificates(#[from] rcgen::Error),
    /// A password could not be made.
    #[error("cannot make a password")]
    Password(#[from] SealError),
    /// What was to be done where members run was not done.
    #[error(transparent)]
    Workbench(#[from] ProvisionerError),
}

impl EngineError {
    /// Whether the members gave no answer.
    pub fn is_silence(&self) -> bool {
        matches!(
            self,
            Self::Call {
                is_silence: true,
                ..
            }
        )
    }
}

/// A snapshot that is being taken.
pub struct Snapshot {
    /// About how many bytes will come, for progress.
    pub bytes_expected: u64,
    /// What is in the snapshot, when nobody wrote at the moment it was begun. Otherwise the stored
    /// snapshot tells ([`Engine::describe`]).
    pub known: Option<SnapshotContent>,
    /// The snapshot. It ends without an error only when the engine sent all of it and it is whole.
    pub content: ByteStream,
}

/// What an engine finds out about a stored snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Description {
    /// This is in it.
    Content(SnapshotContent),
    /// It cannot be told any more, for this reason: another snapshot has to be taken.
    Unknown(String),
}

/// What a member's data is made of: a file on the stage, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seed<'a> {
    /// A snapshot.
    Snapshot(&'a str),
    /// What [`Engine::salvage`] has put there.
    Salvage(&'a str),
}

/// A user of the database, for one binding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseUser {
    /// The user's name.
    pub name: String,
    /// The user's password.
    pub password: Secret,
    /// What the user may do.
    pub rights: Rights,
}

/// Files that an engine's member has, below its home.
#[derive(Debug, Clone, Copy)]
pub struct FilesOfMember {
    /// Their folder, seen from the member's home.
    pub folder: &'static str,
    /// Whether a file of that name is one.
    pub has: fn(&str) -> bool,
}

/// How applications reach a deployment as one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionStrings {
    /// One URI for each member; the first is the main one.
    pub uris: Vec<Secret>,
    /// A command line for people.
    pub cli: Secret,
}

/// A kind of database.
#[async_trait]
pub trait Engine: Send + Sync {
    /// What is known of the engine: its versions, and which may follow which.
    fn profile(&self) -> &'static Profile;

    /// The engine's name, as in catalogs, manifests and folders.
    fn name(&self) -> &'static str {
        self.profile().name
    }

    /// New secrets for a new deployment, whose members have their addresses. `certificates`: how long
    /// those are good for, seen from `now`.
    fn generate_secrets(
        &self,
        deployment: &Deployment,
        certificates: &Certificates,
        now: DateTime<Utc>,
    ) -> Result<DeploymentSecrets, EngineError>;

    /// The secrets of a deployment after a renewal. `certificates`: how long those are good for from
    /// then on, seen from `now`.
    fn renew_secrets(
        &self,
        deployment: &Deployment,
        secrets: &DeploymentSecrets,
        what: Renewal,
        certificates: &Certificates,
        now: DateTime<Utc>,
    ) -> Result<DeploymentSecrets, EngineError>;

    /// The members of a deployment as servers to run. Needs the deployment's members.
    fn servers(&self, site: Site<'_>) -> Vec<Server>;

    /// Fills the home of the member at `place`, which is empty, from `seed`.
    async fn seed(
        &self,
        deployment: &Deployment,
        place: usize,
        seed: Seed<'_>,
        bench: &dyn Workbench,
    ) -> Result<(), EngineError>;

    /// Puts what the member at `place` has on the stage, under the name `staged`. It does not run.
    async fn salvage(
        &self,
        deployment: &Deployment,
        place: usize,
        staged: &str,
        bench: &dyn Workbench,
    ) -> Result<(), EngineError>;

    /// What the data of the member at `place` holds, as far as that can be told without asking the
    /// member, which may run.
    async fn survey(
        &self,
        deployment: &Deployment,
        place: usize,
        bench: &dyn Workbench,
    ) -> Result<SnapshotContent, EngineError>;

    /// Waits for [`LISTEN_TIMEOUT`](crate::model::limits::LISTEN_TIMEOUT) at the most until a
    /// member that was just started listens for the others. Members are started one after the
    /// other with this in between. It never fails: what is wrong with a member that does not
    /// listen, [`Engine::wait_until_ready`] finds out.
    async fn wait_until_listening(&self, member: &Member);

    /// Waits until all members serve and agree on a leader.
    async fn wait_until_ready(&self, site: Site<'_>) -> Result<(), EngineError>;

    /// Makes a new, empty deployment safe: an administrator with the secret password, and no
    /// entry without a password from then on. Fails when anybody else left a trace before.
    ///
    /// With [`Access::Passwords`](crate::model::deployment::Access::Passwords) somebody may have come in before and listen from then on, without
    /// a trace. Only a deployment that ran with [`Access::Certificates`](crate::model::deployment::Access::Certificates) until it was secured, and
    /// was started anew afterwards, is the broker's own for certain.
    async fn secure_new(&self, site: Site<'_>) -> Result<(), EngineError>;

    /// Makes a restored deployment safe while it runs with [`Access::Certificates`](crate::model::deployment::Access::Certificates): a new
    /// administrator password, every other user and role gone, alarms disarmed.
    async fn secure_restored(&self, site: Site<'_>) -> Result<(), EngineError>;

    /// Compares what a restored deployment holds with what its backup's manifest says.
    async fn verify_content(
        &self,
        site: Site<'_>,
        expected: &SnapshotContent,
    ) -> Result<(), EngineError>;

    /// Makes the member at place `heir` the leader of a running deployment. It must be up to date,
    /// as one is that serves.
    async fn hand_over(&self, site: Site<'_>, heir: usize) -> Result<(), EngineError>;

    /// The version that the members of a running deployment have agreed to work by: the oldest one
    /// among them, raised by themselves a moment after the last of them runs a newer one. Only its
    /// line counts. From then on no member can be taken back to an older line.
    async fn agreed_version(&self, site: Site<'_>) -> Result<Version, EngineError>;

    /// What is in the way of taking the members of a running deployment to `to`; empty when nothing
    /// is.
    async fn obstacles(&self, site: Site<'_>, to: Version) -> Result<Vec<Obstacle>, EngineError>;

    /// Takes the member at `place`, which does not run any more, out of the cluster that the others
    /// are; ends alarms of members that are no more. One that has left is fine.
    async fn remove_member(&self, site: Site<'_>, place: usize) -> Result<(), EngineError>;

    /// Has the others take a new member in at `place`, where the old one has left. It has no vote yet
    /// where the version knows of that. One that is in already is fine.
    async fn add_member(&self, site: Site<'_>, place: usize) -> Result<(), EngineError>;

    /// Waits, for `patience` at the most, until the new member at `place` has a vote, which it gets
    /// when it has caught up with the others.
    async fn join(
        &self,
        site: Site<'_>,
        place: usize,
        patience: Duration,
    ) -> Result<(), EngineError>;

    /// Whether each member gives a sign of life, in member order. One needs neither a leader nor the
    /// others for that.
    async fn alive(&self, site: Site<'_>) -> Result<Vec<bool>, EngineError>;

    /// Whether a member that has ended tells by its last words that it cannot use what it kept, and
    /// never will. False for whatever may pass.
    fn tells_damage(&self, printed: &str) -> bool;

    /// Where a member that is [checkpointing](crate::model::deployment::Member::checkpointing)
    /// leaves its whole state, each time in a file of a later name.
    fn checkpoints(&self) -> FilesOfMember;

    /// Gives running members something to write into their logs that changes nothing of what the
    /// database holds: those that are checkpointing write their state down after it.
    async fn fill_logs(&self, site: Site<'_>) -> Result<(), EngineError>;

    /// Lets members that have all agreed on a newer line go back to that of `to`, one by one.
    async fn begin_way_back(&self, site: Site<'_>, to: Version) -> Result<(), EngineError>;

    /// Ends the way back: members agree on newer lines again. Fine when there is none under way.
    async fn end_way_back(&self, site: Site<'_>) -> Result<(), EngineError>;

    /// The file that is a member's database. Its length is never less than what the members call
    /// the database's size; what it has on the disk is that size, where the disk has no holes of its
    /// own.
    fn database_file(&self) -> FilesOfMember;

    /// Forgets the database's history: what it took becomes unused storage.
    async fn forget_history(&self, site: Site<'_>) -> Result<(), EngineError>;

    /// Gives unused storage back, member by member, the leader last. A member serves nobody
    /// meanwhile.
    async fn give_back(&self, site: Site<'_>) -> Result<(), EngineError>;

    /// The same of the member at `place` alone, and only while all members serve: an earlier call that
    /// broke off may go on at another one, which then stands still.
    async fn give_back_of(&self, site: Site<'_>, place: usize) -> Result<(), EngineError>;

    /// Deletes every key that begins with `prefix`; returns how many.
    async fn delete_keys(&self, site: Site<'_>, prefix: &str) -> Result<u64, EngineError>;

    /// Puts right whoever may enter a running deployment: its administrator and `users`, with their
    /// passwords and rights, and nobody else but `others`, who may be there or not. Returns what
    /// was not so before, one sentence each, without secrets.
    async fn restore_users(
        &self,
        site: Site<'_>,
        users: &[DatabaseUser],
        others: &[String],
    ) -> Result<Vec<String>, EngineError>;

    /// Lets a deployment take writes again that was full before it got more storage.
    async fn clear_alarms(&self, site: Site<'_>) -> Result<(), EngineError>;

    /// How the members of a running deployment fare. A member that does not answer is an
    /// observation like others; what fails is asking at all.
    async fn observe(&self, site: Site<'_>) -> Result<Vec<MemberObservation>, EngineError>;

    /// Begins a snapshot of a running deployment.
    async fn snapshot(&self, site: Site<'_>) -> Result<Snapshot, EngineError>;

    /// Opens the snapshot `staged` of a running deployment with the engine's own tool, and tells what
    /// is in it. `known`: what [`Snapshot::known`] said of it.
    async fn describe(
        &self,
        site: Site<'_>,
        staged: &str,
        known: Option<&SnapshotContent>,
        bench: &dyn Workbench,
    ) -> Result<Description, EngineError>;

    /// Makes a user that has its rights and may do nothing else; one that is there already gets
    /// the given password.
    async fn add_user(&self, site: Site<'_>, user: &DatabaseUser) -> Result<(), EngineError>;

    /// Removes a user and what was made for it alone; one that is not there is fine. What the user
    /// already listens to may go on until its connection ends.
    async fn remove_user(&self, site: Site<'_>, name: &str) -> Result<(), EngineError>;

    /// How `user` reaches the deployment.
    fn connection_strings(&self, deployment: &Deployment, user: &DatabaseUser)
    -> ConnectionStrings;

    /// Lines that a member printed, without what would let a reader of them in.
    fn without_secrets(&self, printed: &str) -> String;
}

/// An engine, shared.
pub type SharedEngine = Arc<dyn Engine>;
