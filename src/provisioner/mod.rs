//! Where members run.
//!
//! A provisioner runs what an engine describes and knows nothing of any engine. Members outlive
//! the broker: dropping a provisioner stops nothing, and the next one adopts what runs. Every
//! method may be called again after a crash or a time-out, with the same result.

use std::{io, sync::Arc, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::{
    model::{
        deployment::Deployment,
        ids::DeploymentId,
        logfile::{LogPart, Logfile},
        repair::Sign,
        server::{MemberSeen, Server, Task},
        version::Version,
    },
    stream::{ByteStream, TextStream},
};

pub mod local;

/// Why a provisioner could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionerError {
    /// The program is not installed (any more).
    #[error("{engine} {version} is not installed on this cluster")]
    NotInstalled {
        /// The engine's name.
        engine: String,
        /// The version that is missing.
        version: Version,
    },
    /// A task ended with a failure; its output says why.
    #[error("{binary} failed ({status}): {output}")]
    TaskFailed {
        /// The binary that was run.
        binary: &'static str,
        /// How it ended.
        status: String,
        /// The end of what it printed.
        output: String,
    },
    /// A task took longer than it may.
    #[error("{binary} did not end within {} s", timeout.as_secs())]
    TaskTimeout {
        /// The binary that was run.
        binary: &'static str,
        /// The task's limit.
        timeout: Duration,
    },
    /// The disk has not the room.
    #[error("not enough disk space: {needed} bytes needed, {free} bytes free")]
    DiskFull {
        /// Bytes that were asked for.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// Another broker looks after the same cluster.
    #[error("another broker already uses the cluster folder {folder}")]
    InUse {
        /// The folder that both were given.
        folder: String,
    },
    /// The cluster's path leads elsewhere by now.
    #[error(
        "the cluster folder {folder} is not the one that the broker started with: is its disk \
         mounted?"
    )]
    FolderGone {
        /// The folder.
        folder: String,
    },
    /// A deployment of this cluster runs in another folder: one of the two is a copy.
    #[error(
        "deployment {deployment} runs in another folder already (process {pid} in {place}): one of \
         the two is a copy. Go on with the other one, or end its members and start again"
    )]
    RunsElsewhere {
        /// The deployment.
        deployment: String,
        /// One of its processes.
        pid: i32,
        /// Where that was started.
        place: String,
    },
    /// The folder of a deployment is another one's.
    #[error(
        "the folder of member {member} of deployment {deployment} belongs to {}: were folders or disks \
         swapped? Nothing is done with this deployment until each folder is where it was and the \
         broker is started again",
        owner.as_deref().unwrap_or("another deployment")
    )]
    NotItsFolder {
        /// The deployment.
        deployment: String,
        /// The member by whose name it is called.
        member: String,
        /// The member that it belongs to, where that is known.
        owner: Option<String>,
    },
    /// A port of a member is not free.
    #[error("port {port} of member {member} is taken by another process or connection")]
    PortTaken {
        /// The member.
        member: String,
        /// The port.
        port: u16,
    },
    /// The data of a member that is wanted running was to be removed.
    #[error("member {member} has to be stopped first")]
    NotStopped {
        /// The member's name.
        member: String,
    },
    /// A member that has served once was to be started, and finds nothing of what it kept.
    #[error("member {member} has lost its data")]
    DataLost {
        /// The member's name.
        member: String,
    },
    /// A name that could lead out of its folder.
    #[error("{0:?} is no name for a member or a file")]
    BadName(String),
    /// The machine refused.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl ProvisionerError {
    /// Says what was being done when the system refused; for `map_err`.
    pub(crate) fn while_doing(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        |source| Self::Io { doing, source }
    }
}

/// How one member fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// The member's name.
    pub member: String,
    /// Whether its process runs now.
    pub running: bool,
    /// How often it was started again after it ended by itself, since it last ran well for
    /// [`RESTART_BACKOFF_RESET`](crate::model::limits::RESTART_BACKOFF_RESET), its description
    /// changed or it was stopped.
    pub restarts: u32,
    /// It is not started, because what it kept is gone.
    pub has_lost_data: bool,
}

/// What each member of a deployment shows of its life, in member order: whether it is `alive`, and the
/// process that it has.
pub fn signs_of_life(
    deployment: &Deployment,
    alive: &[bool],
    processes: &[Observation],
) -> Vec<Sign> {
    let members = deployment.members.iter().zip(alive);
    members
        .map(|(member, answers)| {
            let of_it = |process: &&Observation| process.member == member.name && process.running;
            Sign {
                answers: *answers,
                restarts: processes.iter().find(of_it).map(|process| process.restarts),
            }
        })
        .collect()
}

/// A file of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSeen {
    /// Its name.
    pub name: String,
    /// Its length, in bytes.
    pub bytes: u64,
    /// What of it has room on the disk, in bytes: less than its length where it has holes.
    pub bytes_on_disk: u64,
    /// When it was written to last.
    pub written_at: DateTime<Utc>,
}

/// A place that runs members.
#[async_trait]
pub trait Provisioner: Send + Sync {
    /// The versions of `engine` whose binaries are all installed, oldest first; found by asking the
    /// binaries.
    fn versions(&self, engine: &str) -> Vec<Version>;

    /// The host under which members are reached.
    fn host(&self) -> &str;

    /// Whether nobody else uses the TCP port at the moment.
    fn port_is_free(&self, port: u16) -> bool;

    /// Fails when `bytes` more would not fit on the disk that members live on.
    async fn room_for(&self, bytes: u64) -> Result<(), ProvisionerError>;

    /// Makes the member run as described: starts it, leaves it alone when it already runs just
    /// so, starts it anew when its description changed. From now on it is kept running. One that
    /// finds nothing of the data that it must have is not started
    /// ([`ProvisionerError::DataLost`]).
    async fn start(&self, server: &Server) -> Result<(), ProvisionerError>;

    /// Whether the member runs, and was started just as described.
    async fn runs_as(&self, server: &Server) -> Result<bool, ProvisionerError>;

    /// Ends a member at once that is kept running, however it fares, and starts it again as it was
    /// described last. One that is kept stopped, or unknown, is left alone.
    async fn restart(
        &self,
        deployment: &DeploymentId,
        member: &str,
    ) -> Result<(), ProvisionerError>;

    /// Stops the member, gracefully for `grace` at the most, and keeps its data. From now on it is
    /// kept stopped. An unknown member is fine.
    async fn stop(
        &self,
        deployment: &DeploymentId,
        member: &str,
        grace: Duration,
    ) -> Result<(), ProvisionerError>;

    /// Removes what a stopped member has in its home, so that it can be seeded again. Refused while
    /// the member is wanted running, even if it does not run at the moment.
    async fn wipe(&self, deployment: &DeploymentId, member: &str) -> Result<(), ProvisionerError>;

    /// How the members of a deployment fare, sorted by name. An unknown deployment has none.
    async fn observe(
        &self,
        deployment: &DeploymentId,
    ) -> Result<Vec<Observation>, ProvisionerError>;

    /// The members of a deployment as they were last described, sorted by name. An unknown deployment
    /// has none.
    async fn members(&self, deployment: &DeploymentId)
    -> Result<Vec<MemberSeen>, ProvisionerError>;

    /// The files in a folder of a member's home, sorted by name. `folder` is seen from the home; one
    /// that is not there has none.
    async fn files(
        &self,
        deployment: &DeploymentId,
        member: &str,
        folder: &str,
    ) -> Result<Vec<FileSeen>, ProvisionerError>;

    /// Runs a task in the home of `member` (made when missing) and returns what it printed to its
    /// standard output. Dropping the future ends the task. A member has one task at a time: a new
    /// one ends what is left of an earlier one. The member's server may run meanwhile.
    async fn run(
        &self,
        deployment: &DeploymentId,
        member: &str,
        task: &Task,
    ) -> Result<String, ProvisionerError>;

    /// Hands a file to the tasks of a deployment, as `{stage}/name`. Replaces one of that name.
    /// `bytes_expected` is checked against the free disk before the first byte is written.
    /// A stream that fails leaves no file.
    async fn stage(
        &self,
        deployment: &DeploymentId,
        name: &str,
        bytes_expected: u64,
        content: ByteStream,
    ) -> Result<(), ProvisionerError>;

    /// Hands a copy of a file in a member's home to the tasks of its deployment, as `{stage}/name`.
    /// `path` is seen from the home. Dropping the future leaves no file.
    async fn stage_file(
        &self,
        deployment: &DeploymentId,
        member: &str,
        path: &str,
        name: &str,
    ) -> Result<(), ProvisionerError>;

    /// Moves all that a stopped member has in its home aside, under the name `aside`, and leaves the
    /// home empty; refused while the member is wanted running. What was moved there before stays.
    async fn set_aside(
        &self,
        deployment: &DeploymentId,
        member: &str,
        aside: &str,
    ) -> Result<(), ProvisionerError>;

    /// Stops the member, and gives its home again what was set aside under that name; when there is
    /// nothing, it is only stopped.
    async fn put_back(
        &self,
        deployment: &DeploymentId,
        member: &str,
        aside: &str,
    ) -> Result<(), ProvisionerError>;

    /// Removes a staged file; one that is not there is fine.
    async fn unstage(&self, deployment: &DeploymentId, name: &str) -> Result<(), ProvisionerError>;

    /// Ends and removes everything of the deployment: processes, data, staged files. Afterwards
    /// nothing is left, also of what a crashed broker left half made.
    async fn destroy(&self, deployment: &DeploymentId) -> Result<(), ProvisionerError>;

    /// What members of a deployment have printed and is still kept, by member. An unknown deployment
    /// has none.
    async fn logs(&self, deployment: &DeploymentId) -> Result<Vec<Logfile>, ProvisionerError>;

    /// One of these from its beginning to the end that it has now, however it grows meanwhile and
    /// is turned over; none when it is not there. Places of the machine are left out.
    async fn read_log(
        &self,
        deployment: &DeploymentId,
        member: &str,
        part: LogPart,
    ) -> Result<Option<TextStream>, ProvisionerError>;

    /// The end of what a member printed from its last start on to its end; none while it runs, and
    /// where it was never started.
    async fn last_words(
        &self,
        deployment: &DeploymentId,
        member: &str,
    ) -> Result<Option<String>, ProvisionerError>;

    /// Every deployment of which anything is left here.
    async fn deployments(&self) -> Result<Vec<DeploymentId>, ProvisionerError>;
}

/// A provisioner, shared.
pub type SharedProvisioner = Arc<dyn Provisioner>;
