//! What engines may have done where members run, beside running them: files are handed to tasks, and
//! tasks work on them in the members' homes.
//!
//! It lies below both rooms: an engine knows what a task of its own has to do, and a
//! [provisioner](crate::provisioner) where it can be done. So neither an operation nor a provisioner
//! carries what an engine's tool says.

use std::{io, time::Duration};

use async_trait::async_trait;

use crate::{
    model::{ids::DeploymentId, server::Task, version::Version},
    stream::ByteStream,
};

/// Why the place where members run could not do what it was asked.
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
    #[error("another broker already uses {what}")]
    InUse {
        /// What both were given.
        what: String,
    },
    /// The cluster is not fit for members.
    #[error("the cluster cannot be used: {why}")]
    Unfit {
        /// What its operator has to do about.
        why: String,
    },
    /// This broker stands by, or has nothing to do with the cluster.
    #[error("another broker looks after the cluster {cluster}")]
    LookedAfterElsewhere {
        /// The cluster.
        cluster: String,
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
    /// A new member finds no port.
    #[error("the cluster has no free ports left")]
    NoFreePort,
    /// A port of a member is not free.
    #[error("port {port} of member {member} is taken by another process or connection")]
    PortTaken {
        /// The member.
        member: String,
        /// The port.
        port: u16,
    },
    /// A member was to listen where this machine is not.
    #[error(
        "members are to listen at {address}, and this machine does not have that address; the operator \
         has to give it one, or the cluster another address to listen at"
    )]
    NotOurAddress {
        /// The address.
        address: std::net::IpAddr,
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
    /// The API server of the cluster gives no answer for now.
    #[error("the cluster does not answer")]
    ClusterSilent {
        /// What was being done, and why it came to nothing.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The API server of the cluster refuses.
    #[error("the cluster refuses, {doing}: {why}")]
    ClusterRefuses {
        /// What was being done.
        doing: String,
        /// What the server said.
        why: String,
    },
    /// A pod does not start.
    #[error("{what} does not start: {told}{}{why}", if why.is_empty() { "" } else { ": " })]
    NotStarted {
        /// What was to start.
        what: String,
        /// Why, for users.
        told: &'static str,
        /// What the cluster says of it, for its operator; empty where it says nothing.
        why: String,
    },
    /// A pod does not end: nobody knows whether its machine still runs it.
    #[error("{what} does not end: the cluster has not heard of its end within {} s", waited.as_secs())]
    NotEnded {
        /// What was to end.
        what: String,
        /// How long was waited.
        waited: Duration,
    },
    /// What a deployment was made of does not go.
    #[error("{} s after it was told to go there is still: {left}", waited.as_secs())]
    Remains {
        /// The objects that are left, and what keeps them.
        left: String,
        /// How long was waited.
        waited: Duration,
    },
    /// An object that is not the broker's has the name of one that is to be made.
    #[error("there is a {kind} {name} already, which this broker has not made: it stays as it is")]
    NameTaken {
        /// The kind of object.
        kind: String,
        /// Its name.
        name: String,
    },
    /// A member needs a larger volume.
    #[error("the volume of member {member} cannot grow from {from} to {to} bytes: {why}")]
    NoGrowth {
        /// The member.
        member: String,
        /// Its size, in bytes.
        from: u64,
        /// The size that it is to have, in bytes.
        to: u64,
        /// What the cluster says.
        why: String,
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

/// The place where a deployment's members have their homes, and a stage for files beside these. Every
/// method may be called again after a crash or a time-out, with the same result.
#[async_trait]
pub trait Workbench: Send + Sync {
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

    /// Removes a staged file; one that is not there is fine.
    async fn unstage(&self, deployment: &DeploymentId, name: &str) -> Result<(), ProvisionerError>;
}
