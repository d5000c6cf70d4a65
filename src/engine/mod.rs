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
        prefix::{PrefixDifference, PrefixRestore},
        proof::Evidence,
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

/// The engines that there are. Another one is a line here.
pub fn all() -> Vec<SharedEngine> {
    vec![Arc::new(etcd::Etcd)]
}

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
    /// A snapshot, for a database that nobody knows yet.
    Snapshot(&'a str),
    /// A snapshot, for a database in its place, or one that clients of its source come to. They may have seen
    /// changes that are lost by it, and have to notice.
    Backup(&'a str),
    /// What [`Engine::salvage`] has put there, for a database in its place, too.
    Salvage(&'a str),
}

/// What came of putting some keys back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PutBack {
    /// The bytes that were written, or were there already.
    pub bytes: u64,
    /// Keys that were not written, since clients changed them after the comparison.
    pub left: u64,
    /// The same of keys that were not deleted.
    pub kept: u64,
    /// The key to go on with; none: all is done.
    pub next: Option<Vec<u8>>,
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

/// Which secrets an engine makes.
#[derive(Debug, Clone, Copy)]
pub enum Issue<'a> {
    /// All of them, for a new deployment, whose members have their addresses.
    First,
    /// What a renewal makes anew.
    Renewal {
        /// The secrets as they are.
        secrets: &'a DeploymentSecrets,
        /// What is renewed.
        what: Renewal,
    },
}

/// What a deployment holds that is made safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holding {
    /// Nothing: it is new.
    Nothing,
    /// A backup, with the users and roles of its source.
    Backup,
}

/// What becomes of one member's part in the cluster of a running deployment. Each is fine when it is so
/// already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberChange {
    /// It becomes the leader. It must be up to date, as one is that serves.
    Lead,
    /// It leaves the cluster that the others are; it does not run any more. Alarms of members that are
    /// no more end.
    Leave,
    /// The others take a new one in at the place where the old one has left. It has no vote yet where
    /// the version knows of that.
    Enter,
    /// The new one has a vote, which it gets when it has caught up with the others; that is waited for.
    Vote {
        /// The most time that it may take.
        patience: Duration,
    },
}

/// What members need on their way to another line of versions and back, beside being started as that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// They get something to write into their logs that changes nothing of what the database holds:
    /// those that are [checkpointing](crate::model::deployment::Member::checkpointing) write their
    /// state down after it.
    FillLogs,
    /// Members that have all agreed on a newer line may go back to that of this version, one by one.
    BeginWayBack(Version),
    /// The way back ends: members agree on newer lines again. Fine when there is none under way.
    EndWayBack,
}

/// What gives a database room again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relief<'a> {
    /// Every key that begins with this is deleted.
    DeleteKeys(&'a str),
    /// The history is forgotten: what it took becomes unused storage.
    ForgetHistory,
    /// Unused storage is given back, member by member, the leader last. A member serves nobody
    /// meanwhile.
    GiveBack,
    /// The same of the member at this place alone, and only while all members serve: an earlier call
    /// that broke off may go on at another one, which then stands still.
    GiveBackOf(usize),
    /// A deployment that was full takes writes again.
    ClearAlarms,
}

/// What becomes of one database user.
#[derive(Debug, Clone, Copy)]
pub enum UserChange<'a> {
    /// It is there, has its rights and may do nothing else; one that is there already gets the given
    /// password.
    Add(&'a DatabaseUser),
    /// It is not there any more, nor what was made for it alone. What it already listens to may go on
    /// until its connection ends.
    Remove(&'a str),
}

/// A kind of database. What can be said of it without asking a member is in its [`Profile`].
#[async_trait]
pub trait Engine: Send + Sync {
    /// What is known of the engine: its versions, which may follow which, its files and its words.
    fn profile(&self) -> &'static Profile;

    /// The engine's name, as in catalogs, manifests and folders.
    fn name(&self) -> &'static str {
        self.profile().name
    }

    /// The secrets of a deployment. `certificates`: how long those are good for from then on, seen from
    /// `now`.
    fn secrets(
        &self,
        deployment: &Deployment,
        issue: Issue<'_>,
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
    /// member that was just started listens for the others. Where members are started one after the
    /// other, this is in between. It never fails: what is wrong with a member that does not
    /// listen, [`Engine::ready`] finds out.
    async fn listening(&self, member: &Member);

    /// Waits until all members serve and agree on a leader.
    async fn ready(&self, site: Site<'_>) -> Result<(), EngineError>;

    /// Makes a deployment safe.
    ///
    /// Of a new one ([`Holding::Nothing`]): an administrator with the secret password, and no entry
    /// without a password from then on. Fails when anybody else left a trace before. With
    /// [`Access::Passwords`](crate::model::deployment::Access::Passwords) somebody may have come in
    /// before and listen from then on, without a trace. Only a deployment that ran with
    /// [`Access::Certificates`](crate::model::deployment::Access::Certificates) until it was secured,
    /// and was started anew afterwards, is the broker's own for certain.
    ///
    /// Of a restored one ([`Holding::Backup`]), which runs with `Access::Certificates`: a new
    /// administrator password, every other user and role gone, alarms disarmed.
    async fn secure(&self, site: Site<'_>, holding: Holding) -> Result<(), EngineError>;

    /// Compares what a restored deployment holds with what its backup's manifest says.
    async fn verify(&self, site: Site<'_>, expected: &SnapshotContent) -> Result<(), EngineError>;

    /// Compares all that a deployment holds, which was made of a backup and is thrown away after it, with
    /// what the backup's manifest says: every key and value, where the manifest tells enough. It runs with
    /// [`Access::Certificates`](crate::model::deployment::Access::Certificates), has one member, and may be
    /// changed by it. What differs is an [`EngineError::Unexpected`].
    async fn prove(
        &self,
        site: Site<'_>,
        expected: &SnapshotContent,
    ) -> Result<Evidence, EngineError>;

    /// Compares the keys with a prefix of a running deployment with those of `aside`, which was made of a
    /// backup, runs with [`Access::Certificates`](crate::model::deployment::Access::Certificates) and is thrown
    /// away.
    async fn compare_prefix(
        &self,
        aside: Site<'_>,
        site: Site<'_>,
        prefix: &str,
    ) -> Result<PrefixDifference, EngineError>;

    /// Puts back some of those keys, as few as fit into one change of the database, from the key `from` on; none:
    /// from the first. `point`: where the database was when it was compared ([`PrefixDifference::point`]). A key
    /// that was changed since stays as it is.
    async fn put_back(
        &self,
        aside: Site<'_>,
        site: Site<'_>,
        wanted: &PrefixRestore,
        point: &str,
        from: Option<Vec<u8>>,
    ) -> Result<PutBack, EngineError>;

    /// The state of the members of a running deployment. A member that does not answer is an
    /// observation like others; what fails is asking at all.
    async fn observe(&self, site: Site<'_>) -> Result<Vec<MemberObservation>, EngineError>;

    /// Whether each member gives a sign of life, in member order. One needs neither a leader nor the
    /// others for that.
    async fn alive(&self, site: Site<'_>) -> Result<Vec<bool>, EngineError>;

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

    /// The same snapshot, which ends without an error only when it is whole, as far as that can be told without
    /// opening it.
    fn whole(&self, snapshot: ByteStream) -> ByteStream;

    /// Tells what is in the snapshot `staged`, of which a running deployment was made that nobody writes to.
    async fn take_stock(
        &self,
        site: Site<'_>,
        staged: &str,
        bench: &dyn Workbench,
    ) -> Result<SnapshotContent, EngineError>;

    /// The version that the members of a running deployment have agreed to work by: the oldest one
    /// among them, raised by themselves a moment after the last of them runs a newer one. Only its
    /// line counts. From then on no member can be taken back to an older line.
    async fn agreed_version(&self, site: Site<'_>) -> Result<Version, EngineError>;

    /// What is in the way of taking the members of a running deployment to `to`; empty when nothing
    /// is.
    async fn obstacles(&self, site: Site<'_>, to: Version) -> Result<Vec<Obstacle>, EngineError>;

    /// Does what members need for a change of their line.
    async fn pass(&self, site: Site<'_>, passage: Passage) -> Result<(), EngineError>;

    /// Changes what the member at `place` is in its cluster.
    async fn change_member(
        &self,
        site: Site<'_>,
        place: usize,
        change: MemberChange,
    ) -> Result<(), EngineError>;

    /// How many keys of a running deployment begin with `prefix`, which is not empty.
    async fn count_keys(&self, site: Site<'_>, prefix: &str) -> Result<u64, EngineError>;

    /// Gives a database room; returns how many keys it deleted.
    async fn relieve(&self, site: Site<'_>, relief: Relief<'_>) -> Result<u64, EngineError>;

    /// Changes one user of a running deployment.
    async fn change_user(&self, site: Site<'_>, change: UserChange<'_>) -> Result<(), EngineError>;

    /// Puts right who may enter a running deployment: its administrator and `users`, with their
    /// passwords and rights, and nobody else but `others`, who may be there or not. Returns what
    /// was not so before, one sentence each, without secrets.
    async fn restore_users(
        &self,
        site: Site<'_>,
        users: &[DatabaseUser],
        others: &[String],
    ) -> Result<Vec<String>, EngineError>;
}

/// An engine, shared.
pub type SharedEngine = Arc<dyn Engine>;
