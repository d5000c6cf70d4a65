//! A cluster in memory. Its members are functions that are given a home; a process is the fact that
//! one of them was called and did not end.
//!
//! It outlives brokers, as processes do. Members that end by themselves are started again whenever
//! somebody looks at the cluster.
//!
//! It is no machine, and not the broker's: each member has a host of its own, whose name depends on
//! who reaches it, and all have the same ports.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io,
    net::IpAddr,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use compose_broker::{
    model::{
        address::{Address, Network},
        deployment,
        engine::{Port, PortUser, Profile},
        ids::DeploymentId,
        logfile::{LogPart, Logfile},
        placement::Cluster,
        reach::{Reach, Whereabouts},
        server::{FILES, HOME, MemberSeen, STAGE, Server, Task},
        tenant::Resident,
        version::Version,
    },
    provisioner::{Backing, FileSeen, MachinePorts, Opened, ProcessState, Provisioner},
    stream::{ByteStream, TextStream},
    workbench::{ProvisionerError, Workbench},
};
use futures::{StreamExt, TryStreamExt, stream};

use crate::control::now;

type Result<T> = std::result::Result<T, ProvisionerError>;

/// Files by their paths, seen from their folder.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Hosts that there are for the members of one deployment.
const HOSTS: usize = 20_000;
/// The first port of each member.
const FIRST_PORT: u16 = 7000;
/// All that fits, in bytes.
const CAPACITY_BYTES: u64 = 1 << 40;

/// What a program sees of the place where it runs.
pub struct Place<'a> {
    pub args: &'a [String],
    pub home: &'a mut Files,
    stage: &'a mut Files,
    given: &'a Files,
}

impl Place<'_> {
    /// A file by the path that it has in an argument.
    pub fn read(&self, path: &str) -> Option<&Vec<u8>> {
        let (folder, name) = path.split_once('/')?;
        match folder {
            HOME => self.home.get(name),
            STAGE => self.stage.get(name),
            FILES => self.given.get(name),
            _ => None,
        }
    }

    /// The value of the argument `--name=value`.
    pub fn flag(&self, name: &str) -> Option<&str> {
        flag(self.args, name)
    }
}

/// The value of the argument `--name=value`.
pub fn flag<'a>(args: &'a [String], name: &str) -> Option<&'a str> {
    let of = |arg: &'a String| {
        arg.strip_prefix("--")?
            .strip_prefix(name)?
            .strip_prefix('=')
    };
    args.iter().find_map(of)
}

/// How a task ends.
pub enum Ended {
    /// Well, having printed this.
    Printed(String),
    /// With a failure, having printed this.
    Failed(String),
    /// Not by itself.
    Never,
}

/// The programs of an engine in one version.
#[derive(Clone, Copy)]
pub struct Installed {
    pub engine: &'static str,
    pub version: Version,
    /// Begins as a server; what it prints. An error: it ends at once, with these last words.
    pub serve: fn(&mut Place<'_>) -> std::result::Result<String, String>,
    /// Runs once, under the name of its binary.
    pub run: fn(&str, &mut Place<'_>) -> Ended,
}

/// A cluster in memory.
pub struct MemoryCluster {
    installed: Vec<Installed>,
    deployments: Mutex<BTreeMap<DeploymentId, Deployment>>,
    /// How often somebody asked where a member is to be reached.
    asked: AtomicUsize,
}

#[derive(Default)]
struct Deployment {
    members: BTreeMap<String, Member>,
    stage: Files,
}

#[derive(Default)]
struct Member {
    server: Option<Server>,
    wanted: bool,
    running: bool,
    restarts: u32,
    lost: bool,
    home: Files,
    given: Files,
    aside: BTreeMap<String, Files>,
    printed: String,
    /// Where the output of the last process begins.
    printed_from: usize,
}

/// A member whose process runs.
pub struct Running<'a> {
    pub server: &'a Server,
    pub home: &'a mut Files,
}

/// What opens a cluster in memory: it is there already.
pub struct MemoryBacking(pub Arc<MemoryCluster>);

impl std::fmt::Debug for MemoryBacking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("memory")
    }
}

#[async_trait]
impl Backing for MemoryBacking {
    fn folder(&self) -> Option<&Path> {
        None
    }

    fn ports(&self) -> Option<MachinePorts> {
        None
    }

    fn engines_from(&self) -> String {
        "memory".to_owned()
    }

    async fn open(&self, _: &Cluster, _: &[&'static Profile]) -> Result<Opened> {
        Ok(Opened {
            provisioner: self.0.clone(),
            adopted: self.0.running().len(),
        })
    }
}

impl MemoryCluster {
    pub fn new(installed: Vec<Installed>) -> Arc<Self> {
        Arc::new(Self {
            installed,
            deployments: Mutex::default(),
            asked: AtomicUsize::default(),
        })
    }

    /// How often somebody asked where a member is to be reached.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// Does something with the members of a deployment that run.
    pub fn visit<T>(
        &self,
        deployment: &DeploymentId,
        visit: impl FnOnce(&mut [Running<'_>]) -> T,
    ) -> T {
        let mut all = self.all();
        let mut running = Vec::new();
        if let Some(deployment) = all.get_mut(deployment) {
            deployment.look_after(&self.installed);
            let members = deployment.members.values_mut();
            running.extend(
                members
                    .filter(|member| member.running)
                    .filter_map(|member| {
                        Some(Running {
                            server: member.server.as_ref()?,
                            home: &mut member.home,
                        })
                    }),
            );
        }
        visit(&mut running)
    }

    /// The deployment whose member listens at a port of a host.
    pub fn listening_at(&self, host: &str, port: u16) -> Option<DeploymentId> {
        let all = self.all();
        let has = |member: &Member| {
            member.running
                && member
                    .server
                    .as_ref()
                    .is_some_and(|of| listens_at(of, host, port))
        };
        let found = all.iter().find(|(_, of)| of.members.values().any(has));
        found.map(|(id, _)| id.clone())
    }

    /// Takes from a member all that it keeps, and ends its process.
    pub fn lose(&self, deployment: &DeploymentId, member: &str) {
        let mut all = self.all();
        let member = all
            .get_mut(deployment)
            .and_then(|of| of.members.get_mut(member));
        let member = member.expect("a member");
        member.home.clear();
        member.running = false;
    }

    /// Leaves a file in a member's home.
    pub fn leave(&self, deployment: &DeploymentId, member: &str, path: &str) {
        let mut all = self.all();
        let member = all
            .get_mut(deployment)
            .and_then(|of| of.members.get_mut(member));
        let member = member.expect("a member");
        member.home.insert(path.to_owned(), Vec::new());
    }

    /// The members whose process runs, with their deployments.
    pub fn running(&self) -> Vec<String> {
        let all = self.all();
        let members = all
            .iter()
            .flat_map(|(id, of)| of.members.iter().map(move |m| (id, m)));
        let running = members.filter(|(_, (_, member))| member.running);
        running
            .map(|(id, (name, _))| format!("{id} {name}"))
            .collect()
    }

    /// All deployments, with how many of their members' processes run.
    pub fn deployments_running(&self) -> Vec<(String, usize)> {
        let count = |of: &Deployment| of.members.values().filter(|m| m.running).count();
        let all = self.all();
        all.iter()
            .map(|(id, of)| (id.to_string(), count(of)))
            .collect()
    }

    /// Ends the process of one of all members that run; `choose` gets how many there are.
    pub fn kill_one(&self, choose: impl FnOnce(usize) -> usize) {
        let mut all = self.all();
        let members = all.values_mut().flat_map(|of| of.members.values_mut());
        let mut running: Vec<&mut Member> = members.filter(|member| member.running).collect();
        if !running.is_empty() {
            let chosen = choose(running.len());
            running[chosen].running = false;
        }
    }

    /// The names of all files, without ids of deployments and without what is in homes.
    pub fn files(&self) -> Vec<String> {
        let all = self.all();
        let mut found = Vec::new();
        for deployment in all.values() {
            found.extend(
                deployment
                    .stage
                    .keys()
                    .map(|name| format!("memory/stage/{name}")),
            );
            for (name, member) in &deployment.members {
                found.extend(
                    member
                        .given
                        .keys()
                        .map(|file| format!("memory/{name}/{file}")),
                );
                found.extend(member.aside.keys().map(|_| format!("memory/{name}/aside")));
            }
        }
        found.sort();
        found
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<DeploymentId, Deployment>> {
        let all = self.deployments.lock();
        all.unwrap_or_else(PoisonError::into_inner)
    }

    fn free(&self) -> u64 {
        let all = self.all();
        let used = all.values().map(|of| {
            let homes = of.members.values().flat_map(|m| m.home.values());
            homes
                .chain(of.stage.values())
                .map(|f| f.len() as u64)
                .sum::<u64>()
        });
        CAPACITY_BYTES.saturating_sub(used.sum())
    }

    fn check_room(&self, needed: u64) -> Result<()> {
        let free = self.free();
        if needed <= free {
            return Ok(());
        }
        Err(ProvisionerError::DiskFull { needed, free })
    }

    fn installed(&self, engine: &str, version: Version) -> Result<&Installed> {
        find(&self.installed, engine, version).ok_or_else(|| ProvisionerError::NotInstalled {
            engine: engine.to_owned(),
            version,
        })
    }
}

impl Deployment {
    /// Starts again what ended by itself.
    fn look_after(&mut self, installed: &[Installed]) {
        let names: Vec<String> = self.members.keys().cloned().collect();
        for name in names {
            let member = &self.members[&name];
            if member.wanted && !member.running {
                let _ = self.launch(&name, installed, true);
            }
        }
    }

    fn launch(&mut self, name: &str, installed: &[Installed], is_again: bool) -> Result<()> {
        let member = self.members.get_mut(name).expect("a member");
        let server = member.server.clone().expect("a member that was described");
        member.lost = !member.has_its_data(&server);
        if member.lost {
            return Err(ProvisionerError::DataLost {
                member: name.to_owned(),
            });
        }
        let program = &server.program;
        let installed = find(installed, program.engine, program.version);
        let installed = installed.expect("a program that was looked for");
        member.restarts += u32::from(is_again);
        member.printed_from = member.printed.len();
        let served = (installed.serve)(&mut Place {
            args: &server.args,
            home: &mut member.home,
            stage: &mut self.stage,
            given: &member.given,
        });
        member.running = served.is_ok();
        let words = served.unwrap_or_else(|words| words);
        member.printed.push_str(&words);
        Ok(())
    }
}

impl Member {
    fn has_its_data(&self, server: &Server) -> bool {
        let Some(data) = &server.data else {
            return true;
        };
        let is_data = |path: &String| {
            let name = path.strip_prefix(&format!("{}/", data.folder));
            name.is_some_and(|name| name.ends_with(&data.suffix))
        };
        self.home.keys().any(is_data)
    }

    fn is_described(&self, server: &Server) -> bool {
        // What is asked before a start changes nothing of the process.
        let data = server.data.clone();
        let same = |known: &Server| {
            Server {
                data,
                ..known.clone()
            } == *server
        };
        self.server.as_ref().is_some_and(same)
    }

    fn must_be_stopped(&self, name: &str) -> Result<()> {
        match self.wanted {
            false => Ok(()),
            true => Err(ProvisionerError::NotStopped {
                member: name.to_owned(),
            }),
        }
    }
}

/// Whether a member has a port on a host.
pub fn listens_at(server: &Server, host: &str, port: u16) -> bool {
    let mut addresses = server.addresses.values();
    addresses.any(|address| address.host == host && address.port == port)
}

/// Where a port of a member is reached: by a name in a zone for those within the cluster, or in one for
/// applications.
fn address(
    deployment: &DeploymentId,
    member: &str,
    port: &Port,
    number: u16,
    reach: &Reach,
) -> Address {
    let network = match is_closed(port.used_by, reach) {
        true => Network::Closed,
        false => Network::Open,
    };
    Address::within(
        network,
        &host(deployment, member, port.used_by, reach),
        number,
    )
}

fn is_closed(used_by: PortUser, reach: &Reach) -> bool {
    used_by != PortUser::Applications || reach.is_loopback()
}

fn host(deployment: &DeploymentId, member: &str, used_by: PortUser, reach: &Reach) -> String {
    let zone = match is_closed(used_by, reach) {
        true => "inside",
        false => "outside",
    };
    // A name that the operator gives is a zone of its own.
    let is_named = used_by == PortUser::Applications && reach.host.parse::<IpAddr>().is_err();
    let zone = if is_named { &reach.host } else { zone };
    format!("{member}.{deployment}.{zone}")
}

fn find<'i>(installed: &'i [Installed], engine: &str, version: Version) -> Option<&'i Installed> {
    let mut all = installed.iter();
    all.find(|one| one.engine == engine && one.version == version)
}

/// A name of a member or a file.
fn check(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
        return Err(ProvisionerError::BadName(name.to_owned()));
    }
    Ok(())
}

fn check_path(path: &str) -> Result<()> {
    path.split('/').try_for_each(check)
}

fn no_such_file(doing: &str) -> ProvisionerError {
    ProvisionerError::Io {
        doing: doing.to_owned(),
        source: io::ErrorKind::NotFound.into(),
    }
}

#[async_trait]
impl Workbench for MemoryCluster {
    async fn run(&self, deployment: &DeploymentId, member: &str, task: &Task) -> Result<String> {
        check(member)?;
        let installed = *self.installed(task.program.engine, task.program.version)?;
        let binary = task.program.binary;
        let ended = {
            let mut all = self.all();
            let of = all.entry(deployment.clone()).or_default();
            let member = of.members.entry(member.to_owned()).or_default();
            (installed.run)(
                binary,
                &mut Place {
                    args: &task.args,
                    home: &mut member.home,
                    stage: &mut of.stage,
                    given: &member.given,
                },
            )
        };
        match ended {
            Ended::Printed(printed) => Ok(printed),
            Ended::Failed(output) => Err(ProvisionerError::TaskFailed {
                binary,
                status: "exit status: 1".to_owned(),
                output,
            }),
            Ended::Never => {
                tokio::time::sleep(task.timeout).await;
                Err(ProvisionerError::TaskTimeout {
                    binary,
                    timeout: task.timeout,
                })
            }
        }
    }

    async fn stage(
        &self,
        deployment: &DeploymentId,
        name: &str,
        bytes_expected: u64,
        content: ByteStream,
    ) -> Result<()> {
        check(name)?;
        self.check_room(bytes_expected)?;
        let chunks: io::Result<Vec<_>> = content.try_collect().await;
        let mut all = self.all();
        let stage = &mut all.entry(deployment.clone()).or_default().stage;
        stage.remove(name);
        let chunks = chunks.map_err(|source| ProvisionerError::Io {
            doing: format!("staging {name}"),
            source,
        })?;
        stage.insert(name.to_owned(), chunks.concat());
        Ok(())
    }

    async fn stage_file(
        &self,
        deployment: &DeploymentId,
        member: &str,
        path: &str,
        name: &str,
    ) -> Result<()> {
        check(member)?;
        check(name)?;
        check_path(path)?;
        let mut all = self.all();
        let of = all.get_mut(deployment);
        let missing = || no_such_file("staging a member's file");
        let of = of.ok_or_else(missing)?;
        let home = of.members.get(member).map(|member| &member.home);
        let file = home.and_then(|home| home.get(path)).ok_or_else(missing)?;
        of.stage.insert(name.to_owned(), file.clone());
        Ok(())
    }

    async fn unstage(&self, deployment: &DeploymentId, name: &str) -> Result<()> {
        check(name)?;
        if let Some(of) = self.all().get_mut(deployment) {
            of.stage.remove(name);
        }
        Ok(())
    }
}

#[async_trait]
impl Provisioner for MemoryCluster {
    fn versions(&self, engine: &str) -> Vec<Version> {
        let of_engine = self.installed.iter().filter(|one| one.engine == engine);
        let versions: BTreeSet<Version> = of_engine.map(|one| one.version).collect();
        versions.into_iter().collect()
    }

    fn hosts(&self, of: Resident<'_>, members: &[String], reach: &Reach) -> Vec<String> {
        let hosts = |member: &String| {
            let ports = [PortUser::Applications, PortUser::Members, PortUser::Broker];
            ports.map(|used_by| host(of.deployment, member, used_by, reach))
        };
        members.iter().flat_map(hosts).collect()
    }

    async fn place(
        &self,
        of: Resident<'_>,
        members: &[String],
        ports: &[Port],
        reach: &Reach,
        taken: &HashSet<Address>,
    ) -> Result<Vec<BTreeMap<String, Address>>> {
        if members.len() > HOSTS {
            return Err(ProvisionerError::NoFreePort);
        }
        let of_member = |member: &String| {
            let mut numbers = FIRST_PORT..;
            let mut place = |port: &Port| {
                let mut all = numbers
                    .by_ref()
                    .map(|number| address(of.deployment, member, port, number, reach));
                let free = all.find(|address| !taken.contains(&address.held()));
                (port.name.to_owned(), free.expect("a port"))
            };
            ports.iter().map(&mut place).collect()
        };
        Ok(members.iter().map(of_member).collect())
    }

    async fn whereabouts(
        &self,
        deployment: &DeploymentId,
        member: &deployment::Member,
        ports: &[Port],
        reach: &Reach,
    ) -> Result<Whereabouts> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let (mut addresses, mut lacking) = (member.addresses.clone(), Vec::new());
        for port in ports {
            match addresses.get_mut(port.name) {
                Some(at) => *at = address(deployment, &member.name, port, at.port, reach),
                None => lacking.push(*port),
            }
        }
        Ok(Whereabouts { addresses, lacking })
    }

    async fn room_for(&self, _: Resident<'_>, bytes: u64) -> Result<()> {
        self.check_room(bytes)
    }

    async fn start(&self, server: &Server) -> Result<()> {
        self.installed(server.program.engine, server.program.version)?;
        check(&server.member)?;
        for file in &server.files {
            check(file.name)?;
        }
        let mut all = self.all();
        let of = all.entry(server.deployment.clone()).or_default();
        let member = of.members.entry(server.member.clone()).or_default();
        let is_described = member.is_described(server);
        member.wanted = true;
        if is_described && member.running {
            member.server = Some(server.clone());
            return Ok(());
        }
        member.running = false;
        if !is_described {
            member.restarts = 0;
        }
        member.server = Some(server.clone());
        let given = server.files.iter();
        let given = given.map(|f| (f.name.to_owned(), f.contents.expose().as_bytes().to_vec()));
        member.given.extend(given);
        of.launch(&server.member, &self.installed, false)
    }

    async fn runs_as(&self, server: &Server) -> Result<bool> {
        let mut all = self.all();
        let of = all.get_mut(&server.deployment);
        let member = of.and_then(|of| of.members.get(&server.member));
        Ok(member.is_some_and(|member| member.running && member.is_described(server)))
    }

    async fn restart(&self, deployment: &DeploymentId, member: &str) -> Result<()> {
        let mut all = self.all();
        let Some(of) = all.get_mut(deployment) else {
            return Ok(());
        };
        match of.members.get_mut(member) {
            Some(known) if known.wanted => known.running = false,
            _ => return Ok(()),
        }
        of.launch(member, &self.installed, true)
    }

    async fn stop(&self, deployment: &DeploymentId, member: &str, _: Duration) -> Result<()> {
        let mut all = self.all();
        let of = all.get_mut(deployment);
        if let Some(member) = of.and_then(|of| of.members.get_mut(member)) {
            (member.wanted, member.running) = (false, false);
            member.restarts = 0;
        }
        Ok(())
    }

    async fn wipe(&self, deployment: &DeploymentId, member: &str) -> Result<()> {
        let mut all = self.all();
        let of = all.get_mut(deployment);
        if let Some(known) = of.and_then(|of| of.members.get_mut(member)) {
            known.must_be_stopped(member)?;
            known.home.clear();
        }
        Ok(())
    }

    async fn observe(&self, deployment: &DeploymentId) -> Result<Vec<ProcessState>> {
        let mut all = self.all();
        let Some(of) = all.get_mut(deployment) else {
            return Ok(Vec::new());
        };
        of.look_after(&self.installed);
        let described = of.members.iter().filter(|(_, m)| m.server.is_some());
        let seen = described.map(|(name, member)| ProcessState {
            member: name.clone(),
            running: member.running,
            restarts: member.restarts,
            has_lost_data: member.lost,
        });
        Ok(seen.collect())
    }

    async fn members(&self, deployment: &DeploymentId) -> Result<Vec<MemberSeen>> {
        let all = self.all();
        let members = all
            .get(deployment)
            .into_iter()
            .flat_map(|of| of.members.values());
        let servers = members.filter_map(|member| member.server.as_ref());
        let seen = servers.map(|server| MemberSeen {
            name: server.member.clone(),
            version: server.program.version,
            addresses: server.addresses.clone(),
            host: String::new(),
            ports: Vec::new(),
        });
        Ok(seen.collect())
    }

    async fn files(
        &self,
        deployment: &DeploymentId,
        member: &str,
        folder: &str,
    ) -> Result<Vec<FileSeen>> {
        check_path(folder)?;
        let all = self.all();
        let member = all.get(deployment).and_then(|of| of.members.get(member));
        let files = member.into_iter().flat_map(|member| &member.home);
        let in_folder = files.filter_map(|(path, bytes)| {
            let name = path.strip_prefix(folder)?.strip_prefix('/')?;
            (!name.contains('/')).then(|| FileSeen {
                name: name.to_owned(),
                bytes: bytes.len() as u64,
                bytes_on_disk: bytes.len() as u64,
                written_at: now(),
            })
        });
        Ok(in_folder.collect())
    }

    async fn set_aside(&self, deployment: &DeploymentId, member: &str, aside: &str) -> Result<()> {
        check(aside)?;
        let mut all = self.all();
        let of = all.get_mut(deployment);
        if let Some(known) = of.and_then(|of| of.members.get_mut(member)) {
            known.must_be_stopped(member)?;
            let home = std::mem::take(&mut known.home);
            known.aside.entry(aside.to_owned()).or_insert(home);
        }
        Ok(())
    }

    async fn put_back(&self, deployment: &DeploymentId, member: &str, aside: &str) -> Result<()> {
        check(aside)?;
        self.stop(deployment, member, Duration::ZERO).await?;
        let mut all = self.all();
        let of = all.get_mut(deployment);
        if let Some(known) = of.and_then(|of| of.members.get_mut(member))
            && let Some(home) = known.aside.remove(aside)
        {
            known.home = home;
        }
        Ok(())
    }

    async fn destroy(&self, deployment: &DeploymentId) -> Result<()> {
        self.all().remove(deployment);
        Ok(())
    }

    async fn logs(&self, deployment: &DeploymentId) -> Result<Vec<Logfile>> {
        let all = self.all();
        let members = all.get(deployment).into_iter().flat_map(|of| &of.members);
        let with_log = members.filter(|(_, member)| !member.printed.is_empty());
        let logs = with_log.map(|(name, member)| Logfile {
            member: name.clone(),
            part: LogPart::Current,
            bytes: member.printed.len() as u64,
            written_at: now(),
        });
        Ok(logs.collect())
    }

    async fn read_log(
        &self,
        deployment: &DeploymentId,
        member: &str,
        part: LogPart,
        last: Option<u64>,
    ) -> Result<Option<TextStream>> {
        let all = self.all();
        let member = all.get(deployment).and_then(|of| of.members.get(member));
        let printed = member.map(|member| member.printed.clone());
        let printed = printed.filter(|p| part == LogPart::Current && !p.is_empty());
        let end = |printed: String| match last.and_then(|last| usize::try_from(last).ok()) {
            Some(last) if last < printed.len() => {
                // From one before on: what begins there may be whole.
                let from = printed.floor_char_boundary(printed.len() - last - 1);
                let (_, lines) = printed[from..].split_once('\n').unwrap_or_default();
                lines.to_owned()
            }
            _ => printed,
        };
        Ok(printed.map(|printed| stream::iter([Ok(end(printed))]).boxed()))
    }

    async fn last_words(&self, deployment: &DeploymentId, member: &str) -> Result<Option<String>> {
        let all = self.all();
        let member = all.get(deployment).and_then(|of| of.members.get(member));
        let ended = member.filter(|member| member.server.is_some() && !member.running);
        Ok(ended.map(|member| member.printed[member.printed_from..].to_owned()))
    }

    async fn deployments(&self) -> Result<Vec<DeploymentId>> {
        Ok(self.all().keys().cloned().collect())
    }
}
