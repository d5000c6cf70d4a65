//! With real processes: small shell programs where only their coming and going matters, and real
//! etcd.

use std::{
    fs,
    io::Write,
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use chrono::Utc;
use futures::{FutureExt, StreamExt, stream};
use tempfile::TempDir;

use super::{ports::HOST, process::ProcessId, record::ProcessRecord, *};
use crate::model::limits::STOP_GRACE;
use crate::model::{
    limits::{
        DISK_RESERVE_BYTES, MEMBER_LOG_BYTES_MAX, MEMBER_OPEN_FILES_MAX, PROCESS_POLL,
        RESTART_BACKOFF_FIRST, TASK_OUTPUT_BYTES_MAX,
    },
    secret::Secret,
    server::{EngineBinaries, Program, Resources, ServerFile},
};

mod copies;
mod loss;
mod places;

/// Longer than anything here takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const MEMBER: &str = "m0";

/// An engine whose server does nothing. `$0 serve` leaves a line for each start.
const SLEEPER: &str = r#"#!/bin/sh
case "$1" in
--version) echo "sleeper Version: 1.0.0" ;;
serve) echo "hello from $GREETING"; echo $$ >>starts; exec sleep 600 ;;
nest) sleep 600 & echo $! >nested; echo $$ >>starts; wait ;;
print) echo "$2"; echo "not this" >&2 ;;
fail) echo "some output"; echo "the reason" >&2; exit 3 ;;
flood) exec yes flood ;;
say) echo "$2"; exit 1 ;;
chat) while :; do echo chatter; sleep 0.05; done ;;
hang) echo $$ >"$2"; sleep 600; true ;;
insist) while :; do mkdir -p "$2/data"; : >"$2/data/.touch"; done ;;
esac
"#;

/// A cluster folder and an engines folder for one test; what still runs is killed in the end.
struct World {
    folder: TempDir,
    engines: PathBuf,
    discover: Vec<EngineBinaries>,
    ports: PortRange,
}

/// What members get in tests that are not about that.
const RANGE: PortRange = PortRange {
    first: PORTS.start,
    last: PORTS.end - 1,
};

impl World {
    fn with_sleeper() -> Self {
        let folder = TempDir::new().unwrap();
        let engines = folder.path().join("engines");
        install(&engines.join("sleeper/1.0.0/sleeper"), SLEEPER);
        Self {
            folder,
            engines,
            discover: vec![binaries("sleeper")],
            ports: RANGE,
        }
    }

    fn with_etcd() -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("engines");
        let engines = std::env::var_os("COMPOSE_BROKER_ENGINES_DIR").map_or(here, PathBuf::from);
        Self {
            folder: TempDir::new().unwrap(),
            engines,
            discover: vec![EngineBinaries {
                required: |version| {
                    if version.minor < 5 {
                        &["etcd", "etcdctl"]
                    } else {
                        &["etcd", "etcdctl", "etcdutl"]
                    }
                },
                offered: |version| version.major == 3 && version.minor >= 3,
                ..binaries("etcd")
            }],
            ports: RANGE,
        }
    }

    fn cluster(&self) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join("cluster")
    }

    async fn try_open(&self) -> Result<Arc<LocalProvisioner>> {
        LocalProvisioner::open(
            self.cluster(),
            self.engines.clone(),
            &self.discover,
            self.ports,
        )
        .await
    }

    async fn open(&self) -> Arc<LocalProvisioner> {
        self.try_open().await.expect("the cluster can be opened")
    }

    fn member(&self, id: &DeploymentId) -> folders::MemberFolder {
        DeploymentFolder::new(&self.cluster(), id).member(MEMBER)
    }

    fn process(&self, id: &DeploymentId) -> ProcessId {
        let record: ProcessRecord = record::read(&self.member(id).process_record())
            .unwrap()
            .expect("the member has a process");
        record.process
    }

    fn running(&self) -> Vec<PlacedProcess> {
        let found = process::processes_below(&self.cluster(), &self.engines);
        found.unwrap().ours
    }

    /// How often the sleeper was started, by its own account.
    fn starts(&self, id: &DeploymentId) -> usize {
        let starts = fs::read_to_string(self.member(id).home().join("starts"));
        starts.map_or(0, |text| text.lines().count())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = process::kill_all(|| Ok(self.running().into_iter().map(|p| p.process).collect()));
    }
}

fn binaries(engine: &'static str) -> EngineBinaries {
    EngineBinaries {
        engine,
        probe: engine,
        probe_args: &["--version"],
        parse_version: |text| {
            let line = text.lines().find_map(|line| line.split_once("Version: "))?;
            line.1.trim().parse().ok()
        },
        required: |_| &[],
        offered: |_| true,
    }
}

/// Writes a program by the hand of another process: if this one had it open for writing while
/// another test forks, it could not be executed ("text file busy").
fn install(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut shell = std::process::Command::new("sh")
        .args(["-c", r#"cat >"$0" && chmod 755 "$0""#])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = shell.stdin.take().unwrap();
    input.write_all(text.as_bytes()).unwrap();
    drop(input);
    assert!(shell.wait().unwrap().success());
}

fn new_id() -> DeploymentId {
    DeploymentId::generate(Utc::now())
}

fn sleeper(binary: &'static str) -> Program {
    Program {
        engine: "sleeper",
        version: "1.0.0".parse().unwrap(),
        binary,
    }
}

/// This machine reserves nothing.
const RESOURCES: Resources = Resources {
    disk_bytes: 0,
    memory_bytes: 0,
};

fn server(id: &DeploymentId) -> Server {
    Server {
        deployment: id.clone(),
        member: MEMBER.to_owned(),
        program: sleeper("sleeper"),
        args: vec!["serve".to_owned()],
        env: vec![("GREETING", "{home}".to_owned())],
        files: vec![ServerFile {
            name: "server.key",
            contents: Secret::new("the private key"),
        }],
        resources: RESOURCES,
        addresses: BTreeMap::new(),
        data: None,
        probe: None,
    }
}

fn task(args: &[&str], timeout: Duration) -> Task {
    Task {
        program: sleeper("sleeper"),
        args: args.iter().map(|arg| String::from(*arg)).collect(),
        env: vec![],
        resources: RESOURCES,
        timeout,
    }
}

fn bytes(chunks: &'static [&'static str]) -> ByteStream {
    stream::iter(chunks.iter().map(|chunk| Ok(Bytes::from(*chunk)))).boxed()
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "never came true: {what}");
        tokio::time::sleep(PROCESS_POLL).await;
    }
}

fn kill(process: &ProcessId) {
    let pid = rustix::process::Pid::from_raw(process.pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while process.is_alive().unwrap() {
        assert!(Instant::now() < deadline, "a process that does not end");
        std::thread::sleep(PROCESS_POLL);
    }
}

async fn observed(provisioner: &LocalProvisioner, id: &DeploymentId) -> ProcessState {
    let mut members = provisioner.observe(id).await.unwrap();
    assert_eq!(members.len(), 1, "{members:?}");
    members.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn start_leaves_a_member_alone_until_its_description_changes() {
    let world = World::with_sleeper();
    let provisioner = world.open().await;
    let id = new_id();
    let mut server = server(&id);

    provisioner.start(&server).await.unwrap();
    let first = world.process(&id);
    provisioner.start(&server).await.unwrap();
    assert_eq!(world.process(&id), first);

    for change in [
        |server: &mut Server| server.args.push("more".to_owned()),
        |server: &mut Server| server.env.push(("MORE", "1".to_owned())),
        |server: &mut Server| server.files[0].contents = Secret::new("another private key"),
    ] {
        let before = world.process(&id);
        change(&mut server);
        provisioner.start(&server).await.unwrap();
        assert!(!before.is_alive().unwrap());
        assert!(world.process(&id).is_alive().unwrap());
    }
    let observation = observed(&provisioner, &id).await;
    assert_eq!((observation.running, observation.restarts), (true, 0));

    let missing = Server {
        program: Program {
            version: "9.9.9".parse().unwrap(),
            ..server.program.clone()
        },
        ..server.clone()
    };
    let error = provisioner.start(&missing).await.unwrap_err();
    assert!(matches!(error, ProvisionerError::NotInstalled { .. }));
    assert!(world.process(&id).is_alive().unwrap(), "still the old one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_is_private_bounded_and_detached() {
    let world = World::with_sleeper();
    let provisioner = world.open().await;
    let id = new_id();
    provisioner.start(&server(&id)).await.unwrap();
    eventually("it started", async || world.starts(&id) == 1).await;
    let folder = world.member(&id);
    let (home, files) = (folder.home(), folder.files());

    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&home), 0o700);
    assert_eq!(mode(folder.path()), 0o700);
    assert_eq!(mode(&files.join("server.key")), 0o600);
    for file in [
        folder.server_record(),
        folder.process_record(),
        folder.log(),
    ] {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    let key = fs::read_to_string(files.join("server.key")).unwrap();
    assert_eq!(key, "the private key");
    let record = fs::read_to_string(folder.server_record()).unwrap();
    assert!(!record.contains("private key"), "{record}");
    let log = fs::read_to_string(folder.log()).unwrap();
    assert_eq!(log, format!("hello from {}\n", home.display()));

    let process = procfs::process::Process::new(world.process(&id).pid).unwrap();
    assert_eq!(process.cwd().unwrap(), home);
    assert_eq!(process.stat().unwrap().pgrp, process.pid());
    let limits = process.limits().unwrap();
    let core = limits.max_core_file_size.hard_limit;
    assert!(matches!(core, procfs::process::LimitValue::Value(0)));
    let open_files = match limits.max_open_files.hard_limit {
        procfs::process::LimitValue::Value(files) => files,
        procfs::process::LimitValue::Unlimited => u64::MAX,
    };
    assert!(open_files <= MEMBER_OPEN_FILES_MAX, "{open_files}");
    let mut environment = process.environ().unwrap();
    // While the shell gives way to another program there is none.
    eventually("it has an environment", async || {
        environment = process.environ().unwrap();
        !environment.is_empty()
    })
    .await;
    let mut names: Vec<_> = environment.keys().collect();
    names.sort();
    // The shell adds one of its own.
    names.retain(|name| *name != "PWD");
    assert_eq!(names, ["COMPOSE_BROKER_PLACE", "GREETING"]);
    let inherited = process.fd().unwrap().flatten();
    let lock = world.cluster().join(folders::LOCK);
    for file in inherited {
        let leads_to_lock = matches!(file.target, procfs::process::FDTarget::Path(p) if p == lock);
        assert!(!leads_to_lock, "a member must not hold the cluster's lock");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_member_comes_back_after_growing_pauses_and_leaves_no_zombie() {
    let world = World::with_sleeper();
    let provisioner = world.open().await;
    let id = new_id();
    provisioner.start(&server(&id)).await.unwrap();

    for restarts in 1..=2 {
        eventually("it started", async || {
            world.starts(&id) == restarts as usize
        })
        .await;
        let killed = world.process(&id);
        kill(&killed);
        let at = Instant::now();
        eventually("it came back", async || {
            let now = observed(&provisioner, &id).await;
            now.running && now.restarts == restarts
        })
        .await;
        let pause = RESTART_BACKOFF_FIRST * restarts;
        assert!(at.elapsed() >= pause, "{:?}", at.elapsed());
        assert!(!Path::new(&format!("/proc/{}", killed.pid)).exists());
    }
    eventually("it started", async || world.starts(&id) == 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_outlive_the_broker_and_are_adopted() {
    let world = World::with_sleeper();
    let provisioner = world.open().await;
    let id = new_id();
    provisioner.start(&server(&id)).await.unwrap();
    let process = world.process(&id);
    drop(provisioner);

    let provisioner = world.open().await;
    provisioner.start(&server(&id)).await.unwrap();
    assert_eq!(world.process(&id), process);
    assert_eq!(observed(&provisioner, &id).await.restarts, 0);

    // An adopted process is not our child: its end is noticed nevertheless.
    kill(&process);
    eventually("it came back", async || {
        observed(&provisioner, &id).await.running
    })
    .await;
    assert_ne!(world.process(&id), process);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_should_run_and_does_not_is_started_by_the_next_broker() {
    let world = World::with_sleeper();
    let provisioner = world.open().await;
    let id = new_id();
    provisioner.start(&server(&id)).await.unwrap();
    let process = world.process(&id);
    drop(provisioner);
    kill(&process);

    // Another process has the pid now.
    let other = ProcessId::of_child(std::process::id()).unwrap();
    let path = world.member(&id).process_record();
    let record = fs::read_to_string(&path).unwrap();
    let (old, new) = (process.pid.to_string(), other.pid.to_string());
    fs::write(
        &path,
        record.replace(&format!("\"pid\": {old}"), &format!("\"pid\": {new}")),
    )
    .unwrap();
    assert_eq!(world.process(&id).pid, other.pid);
    assert!(!world.process(&id).is_alive().unwrap());

    let provisioner = world.open().await;
    eventually("it runs", async || {
        observed(&provisioner, &id).await.running
    })
    .await;
    assert_eq!(observed(&provisioner, &id).await.restarts, 1);
    provisioner.destroy(&id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_member_stays_stopped() {
    let world = World::with_sleeper();
    let provisioner = world.open().await;
    let id = new_id();
    provisioner.stop(&id, MEMBER, STOP_GRACE).await.unwrap();
    provisioner.start(&server(&id)).await.unwrap();
    let wipe = provisioner.wipe(&id, MEMBER).await.unwrap_err();
    assert!(matches!(wipe, ProvisionerError::NotStopped { .. }));
    let process = world.process(&id);
    provisioner.stop(&id, MEMBER, STOP_GRACE).await.unwrap();
    assert!(!process.is_alive().unwrap());
    drop(provisioner);

    let provisioner = world.open().await;
    // More than one round of the supervisor.
    tokio::time::sleep(crate::model::limits::SUPERVISION_INTERVAL * 3).await;
    assert!(!observed(&provisioner, &id).await.running);

    fs::write(world.member(&id).home().join("data"), "data").unwrap();
    provisioner.wipe(&id, MEMBER).await.unwrap();
    assert_eq!(fs::read_dir(world.member(&id).home()).unwrap().count(), 0);
    provisioner.start(&server(&id)).await.unwrap();
    assert!(observed(&provisioner, &id).await.running);
    assert!(world.member(&id).files().join("server.key").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_not_written_down_is_found() {
    let world = World::with_sleeper();
    let provisioner = world.open().await;
    let id = new_id();
    provisioner.start(&server(&id)).await.unwrap();
    let process = world.process(&id);
    drop(provisioner);
    fs::remove_file(world.member(&id).process_record()).unwrap();

    let provisioner = world.open().await;
    assert_eq!(world.process(&id), process);
    provisioner.start(&server(&id)).await.unwrap();
    assert_eq!(world.process(&id), process);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_runs_beside_a_new_process_on_the_same_home() {
    let world = World::with_sleeper();
    let provisioner = world.open().await;
    let id = new_id();
    let mut nest = server(&id);
    nest.args = vec!["nest".to_owned()];
    provisioner.start(&nest).await.unwrap();
    eventually("it started", async || world.starts(&id) == 1).await;
    let nested = fs::read_to_string(world.member(&id).home().join("nested")).unwrap();
    let nested = ProcessId::of_child(nested.trim().parse().unwrap()).unwrap();

    kill(&world.process(&id));
    assert!(nested.is_alive().unwrap());
    eventually("it started again", async || world.starts(&id) == 2).await;
    assert!(!nested.is_alive().unwrap());
    provisioner.stop(&id, MEMBER, STOP_GRACE).await.unwrap();
    assert!(world.running().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_broker_on_the_same_folder_is_refused() {
    let world = World::with_sleeper();
    let _first = world.open().await;
    let Err(error) = world.try_open().await else {
        panic!("two brokers would fight");
    };
    assert!(matches!(error, ProvisionerError::InUse { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn destroy_leaves_nothing() {
    let world = World::with_sleeper();
    let provisioner = world.open().await;
    let (id, other) = (new_id(), new_id());
    provisioner.destroy(&id).await.unwrap();
    provisioner.start(&server(&id)).await.unwrap();
    provisioner.start(&server(&other)).await.unwrap();
    provisioner
        .stage(&id, "s.db", 4, bytes(&["data"]))
        .await
        .unwrap();
    let pid_file = world.folder.path().join("pid");
    let hanging = task(&["hang", pid_file.to_str().unwrap()], PATIENCE);
    let run = tokio::spawn({
        let (provisioner, id) = (provisioner.clone(), id.clone());
        async move { provisioner.run(&id, MEMBER, &hanging).await }
    });
    eventually("the task runs", async || pid_file.exists()).await;
    assert_eq!(provisioner.deployments().await.unwrap().len(), 2);

    provisioner.destroy(&id).await.unwrap();
    provisioner.destroy(&id).await.unwrap();
    assert!(run.await.unwrap().is_err());
    let left = provisioner.deployments().await.unwrap();
    assert_eq!(left, std::slice::from_ref(&other));
    assert_eq!(provisioner.observe(&id).await.unwrap(), []);
    assert!(!world.cluster().join(id.as_str()).exists());
    let left = world.running();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(left[0].process.id, world.process(&other));
    eventually("it is forgotten", async || {
        provisioner.cluster.known_deployments().len() == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_makes_its_folder_once_more_is_destroyed_with_it() {
    let world = World::with_sleeper();
    let provisioner = world.open().await;
    let id = new_id();
    let mut insisting = server(&id);
    insisting.args = vec!["insist".to_owned(), "{home}".to_owned()];
    provisioner.start(&insisting).await.unwrap();
    let touched = world.member(&id).home().join("data/.touch");
    eventually("it is there", async || touched.exists()).await;

    provisioner.destroy(&id).await.unwrap();
    assert_eq!(provisioner.deployments().await.unwrap(), []);
    assert!(world.running().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_destroyed_deployment_is_not_started_but_finished() {
    let world = World::with_sleeper();
    let provisioner = world.open().await;
    let id = new_id();
    provisioner.start(&server(&id)).await.unwrap();
    drop(provisioner);
    let folder = DeploymentFolder::new(&world.cluster(), &id);
    fs::rename(folder.path(), folder.destroyed()).unwrap();

    let provisioner = world.open().await;
    assert_eq!(provisioner.deployments().await.unwrap(), []);
    assert!(world.running().is_empty());
    provisioner.destroy(&id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_dropped_leave_nothing_that_destroy_misses() {
    let world = World::with_sleeper();
    let provisioner = world.open().await;
    for steps in 0..8 {
        let id = new_id();
        for call in 0..4 {
            // The caller gives up a little later each time, on its way through the action.
            let patience = Duration::from_millis(steps * 2);
            let described = server(&id);
            let printing = task(&["print", "x"], PATIENCE);
            let action = match call {
                0 | 2 => provisioner.start(&described).boxed(),
                1 => provisioner.stop(&id, MEMBER, STOP_GRACE).boxed(),
                _ => provisioner
                    .run(&id, MEMBER, &printing)
                    .map(|r| r.map(drop))
                    .boxed(),
            };
            let _ = tokio::time::timeout(patience, action).await;
        }
        provisioner.destroy(&id).await.unwrap();
        let left: Vec<_> = world.running();
        assert!(left.is_empty(), "{left:?}");
    }
    assert_eq!(provisioner.deployments().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_returns_what_it_printed_or_why_it_failed() {
    let world = World::with_sleeper();
    let provisioner = world.open().await;
    let id = new_id();
    let run =
        async |args: &[&str], timeout| provisioner.run(&id, MEMBER, &task(args, timeout)).await;

    let printed = run(&["print", "{stage}|{home}"], PATIENCE).await.unwrap();
    let home = world.member(&id).home();
    let stage = DeploymentFolder::new(&world.cluster(), &id).stage();
    assert_eq!(printed, format!("{}|{}\n", stage.display(), home.display()));
    assert!(home.is_dir());

    match run(&["fail"], PATIENCE).await.unwrap_err() {
        ProvisionerError::TaskFailed { status, output, .. } => {
            assert_eq!(status, "exit status: 3");
            assert_eq!(output, "some output\nthe reason");
        }
        error => panic!("{error}"),
    }
    let pid_file = world.folder.path().join("pid");
    let hang = ["hang", pid_file.to_str().unwrap()];
    for args in [["flood", ""], hang] {
        let error = run(&args, Duration::from_millis(500)).await.unwrap_err();
        assert!(matches!(error, ProvisionerError::TaskTimeout { .. }));
        eventually("its children are gone", async || world.running().is_empty()).await;
    }
    // A task alone is no member.
    assert_eq!(provisioner.observe(&id).await.unwrap(), []);
    let many = "x".repeat(TASK_OUTPUT_BYTES_MAX + 1);
    let kept = run(&["print", &many], PATIENCE).await.unwrap();
    assert_eq!(kept.len(), TASK_OUTPUT_BYTES_MAX);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_ends_with_its_future_and_with_its_broker() {
    let world = World::with_sleeper();
    let provisioner = world.open().await;
    let id = new_id();
    let pid_file = world.folder.path().join("pid");
    let hanging = task(&["hang", pid_file.to_str().unwrap()], PATIENCE);
    let run = tokio::spawn({
        let (provisioner, id) = (provisioner.clone(), id.clone());
        async move { provisioner.run(&id, MEMBER, &hanging).await }
    });
    eventually("the task runs", async || pid_file.exists()).await;
    // The task does not keep anybody else waiting.
    provisioner.start(&server(&id)).await.unwrap();
    run.abort();
    let server = world.process(&id);
    eventually("the task is gone", async || {
        world
            .running()
            .iter()
            .all(|found| found.process.id == server)
    })
    .await;
    drop(run.await);
    drop(provisioner);

    // What a killed broker leaves.
    let folder = world.member(&id);
    let mut command = process::command(&world.engines.join("sleeper/1.0.0/sleeper"), folder.path());
    let mut child = command.args(["hang", "pid"]).spawn().unwrap();
    let left_over = ProcessId::of_child(child.id()).unwrap();
    let provisioner = world.open().await;
    assert!(!left_over.is_alive().unwrap());
    child.wait().unwrap();
    assert_eq!(world.process(&id), server);
    provisioner.destroy(&id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn staged_files_are_whole_or_not_there() {
    let world = World::with_sleeper();
    let provisioner = world.open().await;
    let id = new_id();
    let stage = DeploymentFolder::new(&world.cluster(), &id).stage();
    let names = || disk::names_in(&stage).unwrap();

    for text in [&["old"][..], &["n", "ew"]] {
        provisioner
            .stage(&id, "s.db", 3, bytes(text))
            .await
            .unwrap();
        assert_eq!(
            fs::read_to_string(stage.join("s.db")).unwrap(),
            text.concat()
        );
    }
    let broken = stream::iter([Ok(Bytes::from("half")), Err(io::Error::other("cut off"))]);
    let error = provisioner.stage(&id, "s.db", 3, broken.boxed()).await;
    assert!(matches!(error, Err(ProvisionerError::Io { .. })));
    assert_eq!(fs::read_to_string(stage.join("s.db")).unwrap(), "new");

    let error = provisioner
        .stage(&id, "big", u64::MAX / 2, bytes(&["x"]))
        .await;
    match error.unwrap_err() {
        ProvisionerError::DiskFull { needed, free } => {
            assert_eq!(needed, u64::MAX / 2 + DISK_RESERVE_BYTES);
            assert!(free < needed);
        }
        error => panic!("{error}"),
    }
    let endless = stream::repeat_with(|| Ok(Bytes::from("x"))).then(async |chunk| {
        tokio::time::sleep(PROCESS_POLL).await;
        chunk
    });
    let staging = provisioner.stage(&id, "endless", 3, endless.boxed());
    assert!(
        tokio::time::timeout(Duration::from_millis(200), staging)
            .await
            .is_err()
    );
    assert_eq!(names(), ["s.db"]);

    for bad in ["../s.db", ".hidden", "", "a/b"] {
        let error = provisioner
            .stage(&id, bad, 1, bytes(&["x"]))
            .await
            .unwrap_err();
        assert!(matches!(error, ProvisionerError::BadName(_)));
    }
    provisioner.unstage(&id, "s.db").await.unwrap();
    provisioner.unstage(&id, "s.db").await.unwrap();
    assert!(names().is_empty());

    // What a killed broker leaves half written.
    std::mem::forget(UnfinishedFile::create(stage.clone(), "s.db", 1).unwrap());
    fs::write(stage.join(".unfinished-of-an-earlier-version"), "half").unwrap();
    assert_eq!(names().len(), 2);
    drop(provisioner);
    let _provisioner = world.open().await;
    assert!(names().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_log_is_turned_over_while_its_member_writes() {
    let world = World::with_sleeper();
    let provisioner = world.open().await;
    let id = new_id();
    let mut chatting = server(&id);
    chatting.args = vec!["chat".to_owned()];
    provisioner.start(&chatting).await.unwrap();
    let folder = world.member(&id);
    let mut log = File::options().append(true).open(folder.log()).unwrap();
    let much = vec![b'x'; usize::try_from(MEMBER_LOG_BYTES_MAX).unwrap()];
    log.write_all(&much).unwrap();
    log.write_all(b"x").unwrap();

    let size = |path: &Path| fs::metadata(path).map_or(0, |found| found.len());
    eventually("the log was turned over and goes on", async || {
        size(&folder.older_log()) > MEMBER_LOG_BYTES_MAX
            && (1..MEMBER_LOG_BYTES_MAX).contains(&size(&folder.log()))
    })
    .await;
    provisioner.stop(&id, MEMBER, STOP_GRACE).await.unwrap();
    // Written from its new beginning, and not from where the old one ended.
    let log = fs::read_to_string(folder.log()).unwrap();
    assert!(log.lines().all(|line| line == "chatter"), "{log:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_asks_the_binaries_and_skips_what_is_broken() {
    let mut world = World::with_sleeper();
    let engine = world.engines.join("sleeper");
    let says = |version: &str| format!("#!/bin/sh\necho 'sleeper Version: {version}'\n");
    install(&engine.join("9.9.9/sleeper"), &says("2.0.0"));
    install(&engine.join("twice/sleeper"), &says("2.0.0"));
    install(&engine.join("refused/sleeper"), &says("6.6.6"));
    install(&engine.join("incomplete/sleeper"), &says("3.0.0"));
    install(&engine.join("mumbling/sleeper"), "#!/bin/sh\necho hello\n");
    install(&engine.join("failing/sleeper"), "#!/bin/sh\nexit 1\n");
    install(&engine.join("broken/sleeper"), "not a program");
    fs::set_permissions(
        engine.join("broken/sleeper"),
        fs::Permissions::from_mode(0o644),
    )
    .unwrap();
    fs::create_dir(engine.join("empty")).unwrap();
    fs::write(engine.join(".lock"), "").unwrap();
    // It hangs the first time, as on a machine that is busy.
    let asked = engine.join("asked").display().to_string();
    let slow = format!("[ -e {asked} ] || {{ touch {asked}; exec sleep 60; }}\necho");
    let slow = says("4.0.0").replacen("echo", &slow, 1);
    install(&engine.join("slow/sleeper"), &slow);
    world.discover[0].offered = |version| version.major != 6;
    world.discover[0].required = |version| match version.major {
        3 => &["sleeper", "sleeperctl"],
        _ => &["sleeper"],
    };

    let provisioner = world.open().await;
    let versions = ["1.0.0", "2.0.0", "4.0.0"].map(|version| version.parse().unwrap());
    assert_eq!(provisioner.versions("sleeper"), versions);
    assert_eq!(provisioner.versions("redis"), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_lead_elsewhere_are_refused() {
    let world = World::with_sleeper();
    let provisioner = world.open().await;
    let id = new_id();
    for bad in ["", "..", "../m0", "m/0", "M0", "m.0"] {
        let error = provisioner.stop(&id, bad, STOP_GRACE).await.unwrap_err();
        assert!(matches!(error, ProvisionerError::BadName(_)), "{bad}");
    }
}

/// Below the ports that the machine gives to connections: of those, one that was free is taken by
/// another test's connection a moment later. No other tests have these.
const PORTS: std::ops::Range<u16> = 23_000..24_700;

fn free_port() -> u16 {
    free_ports(1).first
}

/// Ports one after another. No other test of this process gets any of them.
fn free_ports(count: u16) -> PortRange {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let width = u32::from(PORTS.end - PORTS.start);
    loop {
        let step = NEXT
            .fetch_add(u32::from(count), Ordering::Relaxed)
            .wrapping_add(std::process::id());
        let first = PORTS.start + u16::try_from(step % width).unwrap();
        let ports = first..first + count;
        if ports.end <= PORTS.end
            && ports
                .clone()
                .all(|port| TcpListener::bind((HOST, port)).is_ok())
        {
            return PortRange {
                first,
                last: ports.end - 1,
            };
        }
    }
}

fn etcd(version: Version, binary: &'static str) -> Program {
    Program {
        engine: "etcd",
        version,
        binary,
    }
}

fn etcd_server(id: &DeploymentId, version: Version, port: u16) -> Server {
    let client = format!("http://{HOST}:{port}");
    let peer = format!("http://{HOST}:{}", free_port());
    let args = format!(
        "--name m0 --data-dir {{home}}/data --listen-client-urls {client} \
         --advertise-client-urls {client} --listen-peer-urls {peer} \
         --initial-advertise-peer-urls {peer} --initial-cluster m0={peer}"
    );
    Server {
        program: etcd(version, "etcd"),
        args: args.split_whitespace().map(str::to_owned).collect(),
        env: vec![],
        files: vec![],
        resources: RESOURCES,
        addresses: BTreeMap::from([("p".to_owned(), Address::on_loopback(port))]),
        data: None,
        probe: None,
        ..server(id)
    }
}

fn etcdctl(version: Version, port: u16, args: &str) -> Task {
    let args = format!("--endpoints http://{HOST}:{port} {args}");
    Task {
        program: etcd(version, "etcdctl"),
        args: args.split_whitespace().map(str::to_owned).collect(),
        env: vec![("ETCDCTL_API", "3".to_owned())],
        resources: RESOURCES,
        timeout: PATIENCE,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn real_etcd_runs_is_adopted_killed_saved_restored_and_destroyed() {
    let world = World::with_etcd();
    let mut provisioner = world.open().await;
    let versions = provisioner.versions("etcd");
    assert!(
        !versions.is_empty(),
        "no etcd in {}",
        world.engines.display()
    );
    for version in versions {
        let id = new_id();
        let port = free_port();
        let server = etcd_server(&id, version, port);
        provisioner.start(&server).await.unwrap();
        let process = world.process(&id);
        let put = etcdctl(version, port, "put key value");
        eventually("it serves", async || {
            provisioner.run(&id, MEMBER, &put).await.is_ok()
        })
        .await;

        drop(provisioner);
        provisioner = world.open().await;
        provisioner.start(&server).await.unwrap();
        assert_eq!(world.process(&id), process);
        assert!(!ports::is_free(ports::on_loopback(port)));

        kill(&process);
        let get = etcdctl(version, port, "get key --print-value-only");
        eventually("its data survived", async || {
            let got = provisioner.run(&id, MEMBER, &get).await;
            got.is_ok_and(|value| value == "value\n")
        })
        .await;
        assert_eq!(observed(&provisioner, &id).await.restarts, 1);

        let files = async |folder: &str| provisioner.files(&id, MEMBER, folder).await;
        let seen = files("data/member/snap").await.unwrap();
        let database = seen.iter().find(|file| file.name == "db");
        assert!(database.is_some_and(|file| file.bytes > 0), "{seen:?}");
        assert_eq!(files("nothing/here").await.unwrap(), []);
        for foreign in ["", "..", "data/../..", "/etc", "data//member"] {
            let refused = files(foreign).await;
            let refused = matches!(refused, Err(ProvisionerError::BadName(_)));
            assert!(refused, "{foreign}");
        }

        provisioner
            .stage(&id, "any", 1, bytes(&["x"]))
            .await
            .unwrap();
        let save = etcdctl(version, port, "snapshot save {stage}/s.db");
        provisioner.run(&id, MEMBER, &save).await.unwrap();
        provisioner.stop(&id, MEMBER, STOP_GRACE).await.unwrap();
        provisioner.wipe(&id, MEMBER).await.unwrap();
        let mut restore = etcdctl(version, port, "snapshot restore {stage}/s.db");
        if version.minor >= 5 {
            restore.program.binary = "etcdutl";
            restore.args.drain(..2);
        }
        let like_server = [
            "--name",
            "--data-dir",
            "--initial-cluster",
            "--initial-advertise-peer-urls",
        ];
        for pair in server.args.chunks(2) {
            if like_server.contains(&pair[0].as_str()) {
                restore.args.extend_from_slice(pair);
            }
        }
        provisioner.run(&id, MEMBER, &restore).await.unwrap();
        let again = provisioner.run(&id, MEMBER, &restore).await.unwrap_err();
        assert!(
            matches!(again, ProvisionerError::TaskFailed { .. }),
            "{again}"
        );
        provisioner.start(&server).await.unwrap();
        eventually("its data was restored", async || {
            let got = provisioner.run(&id, MEMBER, &get).await;
            got.is_ok_and(|value| value == "value\n")
        })
        .await;

        provisioner.destroy(&id).await.unwrap();
        assert!(world.running().is_empty());
        assert!(ports::is_free(ports::on_loopback(port)));
    }
    assert_eq!(provisioner.deployments().await.unwrap(), []);
}
