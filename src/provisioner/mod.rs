//! Where members run.
//!
//! A provisioner runs what an engine describes and knows nothing of any engine. Members outlive
//! the broker: dropping a provisioner stops nothing, and the next one adopts what runs. Every
//! method may be called again after a crash or a time-out, with the same result.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::{
    model::{
        address::Address,
        deployment::{Deployment, Member},
        engine::{FilesOfMember, Port},
        ids::DeploymentId,
        logfile::{LogPart, Logfile},
        reach::{Reach, Whereabouts},
        repair::Sign,
        server::{MemberSeen, Server},
        tenant::Resident,
        version::Version,
    },
    stream::TextStream,
    workbench::Workbench,
};

pub use crate::workbench::ProvisionerError;

pub use self::backing::{
    Backing, ClusterKind, Defaults, MachinePorts, Opened, ReadFields, SharedBacking,
};

mod backing;
pub mod handover;
pub mod kubernetes;
mod lines;
pub mod local;
mod names;

/// The kinds of clusters that there are, the one in front for those that name none. Another one is a
/// line here.
pub const KINDS: [ClusterKind; 2] = [local::KIND, kubernetes::KIND];

/// The state of one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessState {
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
    processes: &[ProcessState],
) -> Vec<Sign> {
    let members = deployment.members.iter().zip(alive);
    members
        .map(|(member, answers)| {
            let of_it = |process: &&ProcessState| process.member == member.name && process.running;
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

/// Those files of a member that an engine means by `wanted`, sorted by name.
pub async fn files_of(
    provisioner: &SharedProvisioner,
    deployment: &DeploymentId,
    member: &str,
    wanted: &FilesOfMember,
) -> Result<Vec<FileSeen>, ProvisionerError> {
    let mut found = provisioner.files(deployment, member, wanted.folder).await?;
    found.retain(|file| (wanted.has)(&file.name));
    Ok(found)
}

/// The same of all members of a deployment. What cannot be looked at is left out: its member is being
/// made or removed.
pub async fn files_of_all(
    provisioner: &SharedProvisioner,
    deployment: &Deployment,
    wanted: &FilesOfMember,
) -> Vec<FileSeen> {
    let mut found = Vec::new();
    for member in &deployment.members {
        let seen = files_of(provisioner, &deployment.id, &member.name, wanted).await;
        found.extend(seen.into_iter().flatten());
    }
    found
}

/// Where the members of a deployment are to be reached, in their order.
pub async fn whereabouts_of_all(
    provisioner: &SharedProvisioner,
    deployment: &Deployment,
    ports: &[Port],
    reach: &Reach,
) -> Result<Vec<Whereabouts>, ProvisionerError> {
    let mut all = Vec::new();
    for member in &deployment.members {
        let of = provisioner.whereabouts(&deployment.id, member, ports, reach);
        all.push(of.await?);
    }
    Ok(all)
}

/// What a broker has to do with a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// It looks after the members there.
    LooksAfter,
    /// Another broker does. This one takes over when that one is gone; it finds members where they are.
    StandsBy,
    /// Another broker does, on another machine, whose members this one does not find.
    None,
}

/// What this broker has to do with the cluster of that id, one of `clusters`; nothing with another one.
pub fn duty_of(clusters: &BTreeMap<String, SharedProvisioner>, id: &str) -> Duty {
    clusters
        .get(id)
        .map_or(Duty::None, |cluster| cluster.duty())
}

/// Those of `clusters` that this broker looks after at the moment.
pub fn looked_after<'a>(
    clusters: impl IntoIterator<Item = (&'a String, &'a SharedProvisioner)>,
) -> impl Iterator<Item = (&'a String, &'a SharedProvisioner)> {
    let clusters = clusters.into_iter();
    clusters.filter(|(_, cluster)| cluster.duty() == Duty::LooksAfter)
}

/// A place that runs members.
#[async_trait]
pub trait Provisioner: Workbench {
    /// What this broker has to do with the place. Nothing can be done there that another one looks after
    /// ([`ProvisionerError::LookedAfterElsewhere`]).
    fn duty(&self) -> Duty {
        Duty::LooksAfter
    }

    /// The versions of `engine` whose binaries are all installed, oldest first; found by asking the
    /// binaries.
    fn versions(&self, engine: &str) -> Vec<Version>;

    /// The hosts of all addresses ([`Address::held`]) that [`Provisioner::place`] can choose for these members.
    fn hosts(&self, of: Resident<'_>, members: &[String], reach: &Reach) -> Vec<String>;

    /// Chooses where the new `members` of a deployment are reached: for each of them, in their order,
    /// an address for each of `ports` that it needs, by its name. Applications reach theirs as `reach` says;
    /// where that is loopback, nobody from elsewhere gets to any of them, wherever members run
    /// ([`Address::is_reached_from_elsewhere`]). None of `taken`, which others have at
    /// [`Provisioner::hosts`] ([`Address::held`]), is among them. Nothing is reserved by it; what has to be made
    /// before an address is known goes with the deployment.
    async fn place(
        &self,
        of: Resident<'_>,
        members: &[String],
        ports: &[Port],
        reach: &Reach,
        taken: &HashSet<Address>,
    ) -> Result<Vec<BTreeMap<String, Address>>, ProvisionerError>;

    /// Where a member is to be reached that has its addresses already, so that applications reach it as
    /// `reach` says. It stays where [`Provisioner::place`] put it, as long as that is asked for, and once it
    /// was moved it stays there: the broker moves whatever is not where this says.
    async fn whereabouts(
        &self,
        deployment: &DeploymentId,
        member: &Member,
        ports: &[Port],
        reach: &Reach,
    ) -> Result<Whereabouts, ProvisionerError>;

    /// Fails when `bytes` more would not fit on the disk that the members of a deployment live on, or will.
    async fn room_for(&self, of: Resident<'_>, bytes: u64) -> Result<(), ProvisionerError>;

    /// Whether members that are to run together are started one after the other, which suits them. Where each
    /// start takes long, they are started at once.
    fn starts_in_turn(&self) -> bool {
        true
    }

    /// Makes the member run as described: starts it, leaves it alone when it already runs just
    /// so, starts it anew when its description changed. From now on it is kept running. One that
    /// finds nothing of the data that it must have is not started
    /// ([`ProvisionerError::DataLost`]).
    async fn start(&self, server: &Server) -> Result<(), ProvisionerError>;

    /// Whether the member runs, and was started just as described.
    async fn runs_as(&self, server: &Server) -> Result<bool, ProvisionerError>;

    /// Ends a member at once that is kept running, in whatever state it is, and starts it again as it was
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

    /// The states of the members of a deployment, sorted by name. An unknown deployment has none.
    async fn observe(
        &self,
        deployment: &DeploymentId,
    ) -> Result<Vec<ProcessState>, ProvisionerError>;

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

    /// Ends and removes everything of the deployment: processes, data, staged files. Afterwards
    /// nothing is left, also of what a crashed broker left half made.
    async fn destroy(&self, deployment: &DeploymentId) -> Result<(), ProvisionerError>;

    /// What members of a deployment have printed and is still kept, by member. An unknown deployment
    /// has none.
    async fn logs(&self, deployment: &DeploymentId) -> Result<Vec<Logfile>, ProvisionerError>;

    /// One of these from its beginning to the end that it has now, however it grows meanwhile and
    /// is turned over; none when it is not there. `last`: at most so many bytes of its end, from the
    /// beginning of a line on; none: all of it. Places of the machine are left out.
    async fn read_log(
        &self,
        deployment: &DeploymentId,
        member: &str,
        part: LogPart,
        last: Option<u64>,
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
