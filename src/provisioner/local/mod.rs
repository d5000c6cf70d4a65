//! Members as processes of this machine.
//!
//! Each member is a process in a process group of its own, described on disk (see `folders`), so it
//! outlives the broker: the next broker finds it by its process record, or by the marks that each
//! of our processes carries (see `process`). A full stop of the machine is recovered by the
//! next start. An operator who runs the broker as a service must let it end alone (systemd:
//! `KillMode=process`), else the service manager takes the members along.
//!
//! Invariants:
//! - One broker looks after a cluster folder: it holds a lock on it. A child that is between fork
//!   and exec holds the lock too, so the next broker never misses a process that is just being
//!   started.
//! - At most one thing at a time changes a deployment: it has the deployment's lock, and runs to
//!   its end even if nobody waits for it any more. Tasks and staging hold the lock only to begin
//!   and to finish; they end when dropped.
//! - Nothing here blocks the runtime: all work on files and processes is done in blocking threads.

mod backing;
mod backoff;
mod deployment;
mod discovery;
mod folders;
mod member;
mod places;
mod ports;
mod printed;
mod process;
mod record;
mod staging;
mod supervisor;
mod task;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs::{File, TryLockError},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use async_trait::async_trait;
use futures::StreamExt as _;

use self::{
    deployment::Deployment,
    discovery::Programs,
    folders::{DeploymentFolder, MemberFolder},
    printed::Reading,
    process::{Found, PlacedProcess},
    record::ServerRecord,
    staging::UnfinishedFile,
    task::RunningTask,
};
use super::{FileSeen, ProcessState, Provisioner, ProvisionerError, names};
use crate::{
    disk,
    folder::FolderId,
    model::{
        self,
        address::Address,
        engine::Port,
        failure::chain,
        ids::DeploymentId,
        limits::{CHUNK_BYTES, LAST_WORDS_BYTES_MAX},
        logfile::{LogPart, Logfile},
        placement::PortRange,
        reach::{Reach, Whereabouts},
        server::{EngineBinaries, MemberSeen, Server, Task},
        tenant::Resident,
        version::Version,
    },
    stream::{ByteStream, TextStream},
    workbench::Workbench,
};

pub use self::backing::KIND;

type Result<T> = std::result::Result<T, ProvisionerError>;
type SharedDeployment = Arc<tokio::sync::Mutex<Deployment>>;

/// Runs members as processes of this machine.
pub struct LocalProvisioner {
    cluster: Arc<ClusterFolder>,
    /// What members get.
    ports: PortRange,
    /// Members that ran when this took the cluster over.
    adopted: usize,
}

/// A cluster folder and what is known of it.
struct ClusterFolder {
    folder: PathBuf,
    /// What the folder was when its lock was taken.
    id: Option<FolderId>,
    /// Whether the path led elsewhere at the supervisor's last look.
    is_elsewhere: AtomicBool,
    programs: Programs,
    deployments: Mutex<BTreeMap<DeploymentId, SharedDeployment>>,
    /// Held until the last action has ended.
    _lock: File,
}

/// The ports of `range` from which this machine opens connections of its own: one of them is taken now
/// and then when a member needs it.
pub fn not_always_free(range: PortRange) -> Option<PortRange> {
    let outgoing = ports::outgoing()?;
    outgoing.overlaps(&range).then_some(PortRange {
        first: outgoing.first.max(range.first),
        last: outgoing.last.min(range.last),
    })
}

impl LocalProvisioner {
    /// Takes over the cluster in `cluster_dir` (made when missing) with the engines installed in
    /// `engines_dir`: members that run are adopted, those that should run are started, and what
    /// was half destroyed goes away. From then on the members are supervised.
    pub async fn open(
        cluster_dir: PathBuf,
        engines_dir: PathBuf,
        discover: &[EngineBinaries],
        ports: PortRange,
    ) -> Result<Arc<Self>> {
        let (folder, lock) = blocking(move || lock_cluster(&cluster_dir)).await?;
        let engines = engines_dir.display().to_string();
        let programs = match engines_dir.canonicalize() {
            Ok(root) => Programs::discover(root, discover).await,
            Err(error) => Err(error),
        }
        .map_err(ProvisionerError::while_doing(format!(
            "looking for engines in {engines}"
        )))?;
        let id = FolderId::of(&folder).map_err(ProvisionerError::while_doing(
            "looking at the cluster folder",
        ))?;
        let cluster = Arc::new(ClusterFolder {
            folder,
            id,
            is_elsewhere: AtomicBool::new(false),
            programs,
            deployments: Mutex::default(),
            _lock: lock,
        });
        let taken_over = cluster.clone();
        let adopted = blocking(move || {
            let adopted = taken_over.take_over()?;
            // The one that opens it may end at once: what should run runs by then.
            supervisor::one_round(&taken_over);
            Ok(adopted)
        })
        .await?;
        supervisor::supervise(&cluster);
        Ok(Arc::new(Self {
            cluster,
            ports,
            adopted,
        }))
    }

    /// Members that ran when this took the cluster over.
    pub fn adopted(&self) -> usize {
        self.adopted
    }
}

impl ClusterFolder {
    /// Fails when the cluster's path does not lead to the folder any more whose lock is held, as
    /// when its disk is no longer mounted: what would be started there would begin anew with
    /// nothing.
    fn check(&self) -> Result<()> {
        let id = FolderId::of(&self.folder).map_err(ProvisionerError::while_doing(
            "looking at the cluster folder",
        ))?;
        if id.is_some() && id == self.id {
            return Ok(());
        }
        Err(ProvisionerError::FolderGone {
            folder: self.folder.display().to_string(),
        })
    }

    /// Adopts what an earlier broker left here; returns how many members run.
    fn take_over(&self) -> Result<usize> {
        let failed = || ProvisionerError::while_doing("taking over the cluster");
        let running = self.running().map_err(failed())?;
        let (ids, half_destroyed) = folders::deployments_in(&self.folder).map_err(failed())?;
        // Before anything is touched: a copy would begin the same databases a second time.
        for id in ids.iter().chain(&half_destroyed) {
            if let Some(namesake) = running.namesake(id.as_str()) {
                return Err(member::runs_elsewhere(id, namesake));
            }
        }
        let running = running.ours;
        self.kill_tasks(&running).map_err(failed())?;
        for id in half_destroyed {
            // The operation that wanted it destroyed will ask again.
            if let Err(error) = Deployment::new(&self.folder, &id).destroy(&self.programs) {
                log::warn!(deployment:% = id; "{}", chain(&error));
            }
        }
        let (mut deployments, mut adopted) = (self.deployments(), 0);
        for id in ids {
            match Deployment::adopt(&self.folder, &id, &running) {
                Ok(deployment) => {
                    adopted += deployment.running();
                    deployments.insert(id, Arc::new(tokio::sync::Mutex::new(deployment)));
                }
                // One must not keep all others from being looked after. Its members are known
                // again as soon as they are started again.
                Err(error) => log::error!(deployment:% = id; "{}", chain(&error)),
            }
        }
        Ok(adopted)
    }

    fn running(&self) -> io::Result<Found> {
        process::processes_below(&self.folder, self.programs.root())
    }

    /// Nobody waits any more for a task of an earlier broker.
    fn kill_tasks(&self, running: &[PlacedProcess]) -> io::Result<()> {
        let is_task = |process: &&PlacedProcess| !folders::is_home(&self.folder, &process.place);
        process::kill_all(|| {
            let tasks = running.iter().filter(is_task);
            Ok(tasks.map(|found| found.process.clone()).collect())
        })
    }

    fn deployments(&self) -> MutexGuard<'_, BTreeMap<DeploymentId, SharedDeployment>> {
        // Every change of the map is one call, so it is whole even after a panic.
        self.deployments
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn known_deployments(&self) -> Vec<SharedDeployment> {
        self.deployments().values().cloned().collect()
    }

    /// Forgets deployments that are gone, unless somebody is about to use one: then it must stay
    /// the one that everybody locks.
    fn forget_gone(&self) {
        self.deployments().retain(|_, deployment| {
            Arc::strong_count(deployment) > 1
                || deployment.try_lock().is_ok_and(|known| !known.is_gone())
        });
    }

    /// Changes a deployment under its lock. Once begun, the change runs to its end even if the
    /// caller is dropped; until then the next one waits.
    async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        id: &DeploymentId,
        change: impl FnOnce(&ClusterFolder, &mut Deployment) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let deployment = self
            .deployments()
            .entry(id.clone())
            .or_insert_with(|| Arc::new(tokio::sync::Mutex::new(Deployment::new(&self.folder, id))))
            .clone();
        let mut deployment = deployment.lock_owned().await;
        let cluster = self.clone();
        blocking(move || {
            cluster.check()?;
            record::check_owner(&deployment.folder)?;
            change(&cluster, &mut deployment)
        })
        .await
    }

    /// Looks at a deployment as it is on disk, without its lock.
    async fn look<T: Send + 'static>(
        &self,
        id: &DeploymentId,
        doing: &str,
        look: impl FnOnce(&DeploymentFolder) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let folder = DeploymentFolder::new(&self.folder, id);
        let failed = ProvisionerError::while_doing(format!("{doing} {id}"));
        blocking(move || {
            record::check_owner(&folder)?;
            look(&folder).map_err(failed)
        })
        .await
    }
}

#[async_trait]
impl Workbench for LocalProvisioner {
    async fn run(&self, deployment: &DeploymentId, member: &str, task: &Task) -> Result<String> {
        names::check_member_name(member)?;
        let member = member.to_owned();
        let (binary, timeout) = (task.program.binary, task.timeout);
        let task = task.clone();
        let begin = move |cluster: &ClusterFolder, deployment: &mut Deployment| {
            deployment.member(&member).kill_tasks(&cluster.programs)?;
            begin_task(&deployment.folder.member(&member), &task, &cluster.programs)
        };
        let ended = self.cluster.change(deployment, begin).await?;
        let ended = ended.end(timeout).await;
        let ended = ended.map_err(ProvisionerError::while_doing(format!("running {binary}")))?;
        match ended {
            Some(ended) if ended.status.success() => Ok(ended.output()),
            Some(ended) => Err(ProvisionerError::TaskFailed {
                binary,
                status: ended.status.to_string(),
                output: ended.last_words(),
            }),
            None => Err(ProvisionerError::TaskTimeout { binary, timeout }),
        }
    }

    async fn stage(
        &self,
        deployment: &DeploymentId,
        name: &str,
        bytes_expected: u64,
        content: ByteStream,
    ) -> Result<()> {
        names::check_file_name(name)?;
        let name = name.to_owned();
        let begin = move |_: &ClusterFolder, deployment: &mut Deployment| {
            UnfinishedFile::create(deployment.folder.stage(), &name, bytes_expected)
        };
        let mut file = self.cluster.change(deployment, begin).await?;
        file.fill(content).await?;
        let finish = move |_: &ClusterFolder, _: &mut Deployment| file.finish();
        self.cluster.change(deployment, finish).await
    }

    async fn stage_file(
        &self,
        deployment: &DeploymentId,
        member: &str,
        path: &str,
        name: &str,
    ) -> Result<()> {
        names::check_member_name(member)?;
        names::check_folder_name(path)?;
        names::check_file_name(name)?;
        let failed = || ProvisionerError::while_doing(format!("reading a file of {deployment}"));
        let (member, path) = (member.to_owned(), path.to_owned());
        let open = move |of: &DeploymentFolder| File::open(of.member(&member).home().join(path));
        let file = self
            .cluster
            .look(deployment, "reading a file of", open)
            .await?;
        let file = tokio::fs::File::from_std(file);
        let bytes = file.metadata().await.map_err(failed())?.len();
        let content = tokio_util::io::ReaderStream::with_capacity(file, CHUNK_BYTES);
        self.stage(deployment, name, bytes, content.boxed()).await
    }

    async fn unstage(&self, deployment: &DeploymentId, name: &str) -> Result<()> {
        names::check_file_name(name)?;
        let name = name.to_owned();
        let remove = move |_: &ClusterFolder, deployment: &mut Deployment| {
            folders::remove_file(&deployment.folder.stage().join(&name))
                .map_err(ProvisionerError::while_doing(format!("removing {name}")))
        };
        self.cluster.change(deployment, remove).await
    }
}

#[async_trait]
impl Provisioner for LocalProvisioner {
    fn versions(&self, engine: &str) -> Vec<Version> {
        self.cluster.programs.versions(engine)
    }

    fn hosts(&self, _: Resident<'_>, _: &[String], _: &Reach) -> Vec<String> {
        // A port is held on whichever address of the machine.
        vec![Address::on_loopback(0).host]
    }

    async fn place(
        &self,
        _: Resident<'_>,
        members: &[String],
        ports: &[Port],
        reach: &Reach,
        taken: &HashSet<Address>,
    ) -> Result<Vec<BTreeMap<String, Address>>> {
        let taken: HashSet<u16> = taken
            .iter()
            .filter(|address| **address == Address::on_loopback(address.port))
            .map(|address| address.port)
            .collect();
        let is_needed = |port: &&Port| places::is_needed(port, reach);
        let ports: Vec<&Port> = ports.iter().filter(is_needed).collect();
        let (range, needed) = (self.ports, members.len() * ports.len());
        let listen = reach.listen;
        let free: Vec<u16> = blocking(move || {
            if !ports::is_ours(listen) {
                return Err(ProvisionerError::NotOurAddress { address: listen });
            }
            let is_free = |port: &u16| {
                let at = [ports::on_loopback(*port), SocketAddr::new(listen, *port)];
                !taken.contains(port) && at.into_iter().all(ports::is_free)
            };
            let free = (range.first..=range.last).filter(is_free);
            Ok(free.take(needed).collect())
        })
        .await?;
        if free.len() < needed {
            return Err(ProvisionerError::NoFreePort);
        }
        let at = |(port, number): (&&Port, &u16)| {
            (port.name.to_owned(), places::address(port, reach, *number))
        };
        let of_members = free.chunks_exact(ports.len().max(1));
        Ok(of_members
            .map(|free| ports.iter().zip(free).map(at).collect())
            .collect())
    }

    async fn whereabouts(
        &self,
        _: &DeploymentId,
        member: &model::deployment::Member,
        ports: &[Port],
        reach: &Reach,
    ) -> Result<Whereabouts> {
        Ok(places::whereabouts(member, ports, reach))
    }

    async fn room_for(&self, _: Resident<'_>, bytes: u64) -> Result<()> {
        let folder = self.cluster.folder.clone();
        blocking(move || staging::check_room(&folder, bytes).map(|_| ())).await
    }

    async fn start(&self, server: &Server) -> Result<()> {
        names::check_member_name(&server.member)?;
        let id = server.deployment.clone();
        let server = server.clone();
        let start = move |cluster: &ClusterFolder, deployment: &mut Deployment| {
            let member = deployment.member(&server.member);
            member.start(&server, &cluster.programs)
        };
        self.cluster.change(&id, start).await
    }

    async fn runs_as(&self, server: &Server) -> Result<bool> {
        names::check_member_name(&server.member)?;
        let (name, wanted) = (server.member.clone(), ServerRecord::of(server));
        let look = move |of: &DeploymentFolder| member::runs_as(&of.member(&name), &wanted);
        let cluster = &self.cluster;
        cluster
            .look(&server.deployment, "looking at deployment", look)
            .await
    }

    async fn restart(&self, deployment: &DeploymentId, member: &str) -> Result<()> {
        names::check_member_name(member)?;
        let member = member.to_owned();
        let restart = move |cluster: &ClusterFolder, deployment: &mut Deployment| {
            let known = deployment.known_member(&member);
            known.map_or(Ok(()), |member| member.restart(&cluster.programs))
        };
        self.cluster.change(deployment, restart).await
    }

    async fn stop(&self, deployment: &DeploymentId, member: &str, grace: Duration) -> Result<()> {
        names::check_member_name(member)?;
        let member = member.to_owned();
        let stop = move |cluster: &ClusterFolder, deployment: &mut Deployment| {
            let known = deployment.known_member(&member);
            known.map_or(Ok(()), |member| member.stop(&cluster.programs, grace))
        };
        self.cluster.change(deployment, stop).await
    }

    async fn wipe(&self, deployment: &DeploymentId, member: &str) -> Result<()> {
        names::check_member_name(member)?;
        let member = member.to_owned();
        let wipe = move |cluster: &ClusterFolder, deployment: &mut Deployment| {
            deployment.member(&member).wipe(&cluster.programs)
        };
        self.cluster.change(deployment, wipe).await
    }

    async fn observe(&self, deployment: &DeploymentId) -> Result<Vec<ProcessState>> {
        let look = |of: &DeploymentFolder| of.look_at_members(member::observe);
        let cluster = &self.cluster;
        cluster
            .look(deployment, "looking at deployment", look)
            .await
    }

    async fn members(&self, deployment: &DeploymentId) -> Result<Vec<MemberSeen>> {
        let host = ports::HOST.to_string();
        let described = move |folder: &MemberFolder| member::described(folder, &host);
        let look = |of: &DeploymentFolder| of.look_at_members(described);
        let cluster = &self.cluster;
        cluster
            .look(deployment, "looking at deployment", look)
            .await
    }

    async fn files(
        &self,
        deployment: &DeploymentId,
        member: &str,
        folder: &str,
    ) -> Result<Vec<FileSeen>> {
        names::check_member_name(member)?;
        names::check_folder_name(folder)?;
        let (member, folder) = (member.to_owned(), folder.to_owned());
        let look =
            move |of: &DeploymentFolder| folders::files_in(&of.member(&member).home().join(folder));
        self.cluster
            .look(deployment, "looking at files of", look)
            .await
    }

    async fn set_aside(&self, deployment: &DeploymentId, member: &str, aside: &str) -> Result<()> {
        names::check_member_name(member)?;
        names::check_file_name(aside)?;
        let (member, aside) = (member.to_owned(), aside.to_owned());
        let move_there = move |cluster: &ClusterFolder, deployment: &mut Deployment| {
            let member = deployment.member(&member);
            member.set_aside(&cluster.programs, &aside)
        };
        self.cluster.change(deployment, move_there).await
    }

    async fn put_back(&self, deployment: &DeploymentId, member: &str, aside: &str) -> Result<()> {
        names::check_member_name(member)?;
        names::check_file_name(aside)?;
        let (member, aside) = (member.to_owned(), aside.to_owned());
        let move_back = move |cluster: &ClusterFolder, deployment: &mut Deployment| {
            let member = deployment.member(&member);
            member.put_back(&cluster.programs, &aside)
        };
        self.cluster.change(deployment, move_back).await
    }

    async fn destroy(&self, deployment: &DeploymentId) -> Result<()> {
        let destroy = |cluster: &ClusterFolder, deployment: &mut Deployment| {
            deployment.destroy(&cluster.programs)
        };
        self.cluster.change(deployment, destroy).await
    }

    async fn logs(&self, deployment: &DeploymentId) -> Result<Vec<Logfile>> {
        let look = |of: &DeploymentFolder| {
            let members = of.all_members()?;
            let logs = members.iter().map(printed::list);
            Ok(logs.collect::<io::Result<Vec<_>>>()?.concat())
        };
        self.cluster
            .look(deployment, "listing the logs of", look)
            .await
    }

    async fn read_log(
        &self,
        deployment: &DeploymentId,
        member: &str,
        part: LogPart,
        last: Option<u64>,
    ) -> Result<Option<TextStream>> {
        names::check_member_name(member)?;
        let member = member.to_owned();
        let (cluster, engines) = (
            self.cluster.folder.clone(),
            self.cluster.programs.root().to_owned(),
        );
        let begin = move |of: &DeploymentFolder| {
            let places = (cluster.as_path(), engines.as_path());
            Reading::begin(of.member(&member), part, last, places)
        };
        let begun = self
            .cluster
            .look(deployment, "reading a log of", begin)
            .await?;
        Ok(begun.map(printed_lines))
    }

    async fn last_words(&self, deployment: &DeploymentId, member: &str) -> Result<Option<String>> {
        names::check_member_name(member)?;
        let member = member.to_owned();
        let look = move |of: &DeploymentFolder| {
            member::last_words(&of.member(&member), LAST_WORDS_BYTES_MAX)
        };
        self.cluster
            .look(deployment, "reading a log of", look)
            .await
    }

    async fn deployments(&self) -> Result<Vec<DeploymentId>> {
        let cluster = self.cluster.clone();
        blocking(move || {
            let (sound, half_destroyed) = folders::deployments_in(&cluster.folder)
                .map_err(ProvisionerError::while_doing("listing deployments"))?;
            let all: BTreeSet<_> = sound.into_iter().chain(half_destroyed).collect();
            Ok(all.into_iter().collect())
        })
        .await
    }
}

/// The lines of a log, as they are wanted.
fn printed_lines(reading: Reading) -> TextStream {
    let next = |mut reading: Reading| async {
        let read = blocking(move || Ok(reading.next().map(|lines| (lines, reading)))).await;
        let (lines, reading) = read.map_err(io::Error::other)??;
        Ok((!lines.is_empty()).then_some((lines, reading)))
    };
    Box::pin(futures::stream::try_unfold(reading, next))
}

fn begin_task(
    folder: &folders::MemberFolder,
    task: &Task,
    programs: &Programs,
) -> Result<RunningTask> {
    let program = &task.program;
    let binary = programs.binary(program.engine, program.version, program.binary)?;
    let mut command = process::command(&binary, folder.path());
    command.args(task.args.iter().map(|arg| folder.fill_in(arg)));
    command.envs(
        task.env
            .iter()
            .map(|(name, value)| (name, folder.fill_in(value))),
    );
    disk::make_folder(&folder.home())
        .and_then(|()| RunningTask::spawn(command))
        .map_err(ProvisionerError::while_doing(format!(
            "starting {}",
            program.binary
        )))
}

/// Makes the cluster folder if need be and locks it for as long as the returned file is open.
fn lock_cluster(folder: &Path) -> Result<(PathBuf, File)> {
    let name = folder.display().to_string();
    let failed = || ProvisionerError::while_doing(format!("opening the cluster folder {name}"));
    disk::make_folder(folder).map_err(failed())?;
    let folder = folder.canonicalize().map_err(failed())?;
    if folder.to_str().is_none() {
        let error = io::Error::new(io::ErrorKind::InvalidInput, "its path is no UTF-8");
        return Err(failed()(error));
    }
    match disk::lock_soon(&folder.join(folders::LOCK)) {
        Ok(lock) => Ok((folder, lock)),
        Err(TryLockError::Error(error)) => Err(failed()(error)),
        Err(TryLockError::WouldBlock) => Err(ProvisionerError::InUse {
            what: format!("the cluster folder {name}"),
        }),
    }
}

/// Does work that blocks, in a thread made for it. It runs to its end even if nobody waits.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(ProvisionerError::Io {
                doing: "the broker is ending".to_owned(),
                source: io::Error::other(error),
            }),
        },
    }
}
