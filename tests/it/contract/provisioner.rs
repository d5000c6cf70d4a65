//! What every place that runs members must hold to.
//!
//! Each test is written once, against the trait, and run on each kind of provisioner. A new kind is a
//! [`Kind`] and a line at the end. The engine is one of its own, `teller`: its server says that it
//! begins, and serves nobody.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use compose_broker::{
    model::{
        address::Address,
        deployment::{Member, Membership},
        engine::{Port, PortUser},
        ids::DeploymentId,
        limits::STOP_GRACE,
        logfile::LogPart,
        reach::Reach,
        secret::Secret,
        server::{
            DataOfServer, EngineBinaries, FILES, HOME, Program, Resources, STAGE, Server,
            ServerFile, Task,
        },
        tenant::Tenant,
    },
    provisioner::{
        ProcessState, Provisioner, kubernetes::KubernetesProvisioner, local::LocalProvisioner,
    },
    stream::ByteStream,
    workbench::ProvisionerError,
};
use futures::{StreamExt, TryStreamExt, future::join_all, stream};

use crate::{
    broker::{eventually, kill, port_range},
    control::now,
    kubernetes as bed,
    memory::cluster::{Ended, Installed, MemoryCluster},
};

pub const ENGINE: &str = "teller";
/// The versions that are installed.
pub const VERSIONS: [&str; 2] = ["1.0.0", "2.0.0"];
/// What the teller may use.
const RESOURCES: Resources = Resources {
    disk_bytes: 1024,
    memory_bytes: 1024,
};
/// Two ports of which one is the broker's own, where applications come from elsewhere.
const PORTS: [Port; 2] = [
    Port {
        name: "door",
        used_by: PortUser::Applications,
    },
    Port {
        name: "own",
        used_by: PortUser::Broker,
    },
];

/// A kind of provisioner.
trait Kind: Sized {
    /// An empty cluster that has the teller.
    async fn new() -> Self;
    /// It.
    fn provisioner(&self) -> &dyn Provisioner;
}

struct Memory(Arc<MemoryCluster>);

impl Kind for Memory {
    async fn new() -> Self {
        let of = |version: &str| Installed {
            engine: ENGINE,
            version: version.parse().expect("a version"),
            serve: |place| match place.args[0].as_str() {
                "serve" => Ok(format!("begins {}\n", place.args[1])),
                _ => Err("begins\ncannot go on\n".to_owned()),
            },
            run: |_, place| match (place.args[0].as_str(), place.args.get(1)) {
                ("print", Some(text)) => Ended::Printed(format!("{text}\n")),
                ("read", Some(file)) => match place.read(file) {
                    Some(bytes) => Ended::Printed(String::from_utf8_lossy(bytes).into_owned()),
                    None => Ended::Failed("no such file".to_owned()),
                },
                ("write", Some(name)) => {
                    place.home.insert(format!("data/{name}"), b"kept".to_vec());
                    Ended::Printed(String::new())
                }
                ("hang", _) => Ended::Never,
                _ => Ended::Failed("the reason\n".to_owned()),
            },
        };
        Self(MemoryCluster::new(VERSIONS.map(of).into()))
    }
    fn provisioner(&self) -> &dyn Provisioner {
        &*self.0
    }
}

/// The teller as a program. Its place is a home for a server, and the folder above it for a task, so a
/// task is told where it is to write.
const TELLER: &str = r#"#!/bin/sh
case "$1" in
--version) echo "teller Version: VERSION" ;;
serve) echo "begins $2"; exec sleep 600 ;;
print) echo "$2" ;;
read) exec cat "$2" ;;
write) mkdir -p "$3/data"; printf kept >"$3/data/$2" ;;
hang) exec sleep 600 ;;
end) echo begins; echo "cannot go on"; exit 1 ;;
*) echo "the reason"; exit 1 ;;
esac
"#;

struct Local {
    provisioner: Arc<LocalProvisioner>,
    folder: tempfile::TempDir,
}

/// By the hand of another process: one that this one had open for writing while another test forks
/// could not be executed.
fn install(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    let mut shell = Command::new("sh")
        .args(["-c", r#"cat >"$0" && chmod 755 "$0""#])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("a shell");
    let mut input = shell.stdin.take().expect("its input");
    input.write_all(text.as_bytes()).expect("written");
    drop(input);
    assert!(shell.wait().expect("an end").success());
}

impl Kind for Local {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let engines = folder.path().join("engines");
        for version in VERSIONS {
            let program = engines.join(ENGINE).join(version).join(ENGINE);
            install(&program, &TELLER.replace("VERSION", version));
        }
        let binaries = EngineBinaries {
            engine: ENGINE,
            probe: ENGINE,
            probe_args: &["--version"],
            parse_version: |text| text.split_once("Version: ")?.1.trim().parse().ok(),
            required: |_| &[],
            offered: |_| true,
        };
        let ports = port_range().parse().expect("ports");
        let cluster = folder.path().join("cluster");
        let opened = LocalProvisioner::open(cluster, engines, &[binaries], ports).await;
        Self {
            provisioner: opened.expect("a cluster"),
            folder,
        }
    }
    fn provisioner(&self) -> &dyn Provisioner {
        &*self.provisioner
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // Without its folder no member is started again.
        let cluster = self.folder.path().join("cluster");
        let gone = self.folder.path().join("gone");
        let _ = fs::rename(&cluster, &gone);
        let all = procfs::process::all_processes().into_iter().flatten();
        let within = |place: PathBuf| place.starts_with(self.folder.path());
        let ours = all.flatten().filter(|p| p.cwd().is_ok_and(within));
        ours.for_each(|process| kill(process.pid));
    }
}

/// A real cluster. The teller is in images of its own there, made of the same script.
struct Kubernetes {
    provisioner: Arc<KubernetesProvisioner>,
    /// What its objects carry.
    cluster: String,
}

impl Kubernetes {
    const NAMESPACE: &str = "compose-broker-contract";
}

impl Kind for Kubernetes {
    async fn new() -> Self {
        bed::namespace(Self::NAMESPACE);
        let cluster = format!("contract-{}", new_id());
        let settings = bed::settings(&cluster, Self::NAMESPACE, &bed::tellers());
        let kubeconfig = bed::kubeconfig();
        let opened = KubernetesProvisioner::open(Some(&kubeconfig), None, settings).await;
        Self {
            provisioner: opened.expect("a cluster"),
            cluster,
        }
    }
    fn provisioner(&self) -> &dyn Provisioner {
        &*self.provisioner
    }
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        let of_it = format!("compose-broker/cluster={}", self.cluster);
        let kinds = "statefulset,pod,service,secret,persistentvolumeclaim,networkpolicy,pdb";
        let namespace = Self::NAMESPACE;
        bed::kubectl(&[
            "-n",
            namespace,
            "delete",
            kinds,
            "-l",
            &of_it,
            "--wait=false",
        ]);
    }
}

pub fn new_id() -> DeploymentId {
    DeploymentId::generate(now())
}

/// Whose deployments these are.
pub fn tenant() -> Tenant {
    Tenant {
        platform: "cloudfoundry".to_owned(),
        organization: "organization".to_owned(),
        space: "space".to_owned(),
        account: BTreeMap::new(),
    }
}

fn program(version: &str) -> Program {
    Program {
        engine: ENGINE,
        version: version.parse().expect("a version"),
        binary: ENGINE,
    }
}

/// The member `m0`, whose server says `word` when it begins.
pub fn server(deployment: &DeploymentId, word: &str) -> Server {
    Server {
        deployment: deployment.clone(),
        member: "m0".to_owned(),
        program: program("1.0.0"),
        args: vec!["serve".to_owned(), word.to_owned()],
        env: Vec::new(),
        files: vec![ServerFile {
            name: "key",
            contents: Secret::new("a key"),
        }],
        addresses: BTreeMap::new(),
        resources: RESOURCES,
        data: None,
        probe: None,
    }
}

pub fn task(args: &[&str]) -> Task {
    Task {
        program: program("1.0.0"),
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
        env: Vec::new(),
        resources: RESOURCES,
        timeout: Duration::from_secs(60),
    }
}

/// Has a task leave a file in a member's home.
async fn keep(at: &dyn Provisioner, id: &DeploymentId, name: &str) {
    let kept = at.run(id, "m0", &task(&["write", name, HOME])).await;
    kept.expect("written");
}

pub fn content(text: &'static str) -> ByteStream {
    stream::iter([Ok(Bytes::from(text))]).boxed()
}

async fn observed(at: &dyn Provisioner, id: &DeploymentId) -> Option<ProcessState> {
    let mut all = at.observe(id).await.expect("an observation");
    assert!(all.len() <= 1, "{all:?}");
    all.pop()
}

async fn runs(at: &dyn Provisioner, id: &DeploymentId) {
    eventually("a member that runs", || async {
        observed(at, id).await?.running.then_some(())
    })
    .await;
}

/// What the member has printed, once it is this.
async fn printed(at: &dyn Provisioner, id: &DeploymentId, expected: &str) {
    eventually(&format!("{expected:?} in a log"), || async {
        let log = at
            .read_log(id, "m0", LogPart::Current, None)
            .await
            .expect("a log");
        let lines: Vec<String> = log?.try_collect().await.expect("lines");
        (lines.concat() == expected).then_some(())
    })
    .await;
}

async fn names(at: &dyn Provisioner, id: &DeploymentId) -> Vec<String> {
    let files = at.files(id, "m0", "data").await.expect("files");
    files.into_iter().map(|file| file.name).collect()
}

async fn versions_are_told_the_oldest_first<K: Kind>() {
    let kind = K::new().await;
    let told = kind.provisioner().versions(ENGINE);
    assert_eq!(told, VERSIONS.map(|v| v.parse().expect("a version")));
    assert_eq!(kind.provisioner().versions("unheard"), []);
    let missing = Server {
        program: program("3.0.0"),
        ..server(&new_id(), "a")
    };
    let refused = kind.provisioner().start(&missing).await;
    assert!(matches!(
        refused,
        Err(ProvisionerError::NotInstalled { .. })
    ));
}

async fn members_are_placed_apart<K: Kind>() {
    let kind = K::new().await;
    let (at, id) = (kind.provisioner(), new_id());
    let names = ["m0", "m1"].map(str::to_owned);
    let mut taken = HashSet::new();
    let reach = Reach::loopback();
    let hosts = at.hosts(tenant().owning(&id), &names, &reach);
    for _ in 0..3 {
        let placed = at
            .place(tenant().owning(&id), &names, &PORTS, &reach, &taken)
            .await;
        let placed = placed.expect("places");
        assert_eq!(placed.len(), 2);
        for addresses in placed {
            assert!(addresses.contains_key("door"), "{addresses:?}");
            for address in addresses.values() {
                assert!(!address.is_reached_from_elsewhere(), "{address:?}");
                assert!(
                    hosts.contains(&address.held().host),
                    "{address} at {hosts:?}"
                );
                assert!(taken.insert(address.held()), "{address} twice");
            }
        }
    }
    let hosts = at.hosts(tenant().owning(&id), &names, &named());
    let placed = at
        .place(tenant().owning(&id), &names, &PORTS, &named(), &taken)
        .await;
    for addresses in placed.expect("places") {
        // Applications come from elsewhere, and the broker has a port that these cannot take.
        assert!(addresses["door"].is_reached_from_elsewhere());
        assert!(!addresses["own"].is_reached_from_elsewhere());
        for address in addresses.values() {
            assert!(hosts.contains(&address.held().host));
            assert!(taken.insert(address.held()), "{address} twice");
        }
    }
}

/// Where applications on other machines reach members.
fn named() -> Reach {
    Reach {
        host: "db.example.org".to_owned(),
        ..Reach::loopback()
    }
}

async fn a_member_stays_where_it_was_placed_and_where_it_was_moved_to<K: Kind>() {
    let kind = K::new().await;
    let (at, id) = (kind.provisioner(), new_id());
    let names = ["m0", "m1"].map(str::to_owned);
    let mut taken = HashSet::new();
    let placed = at
        .place(
            tenant().owning(&id),
            &names,
            &PORTS,
            &Reach::loopback(),
            &taken,
        )
        .await;
    let mut members: Vec<Member> = names
        .iter()
        .zip(placed.expect("places"))
        .map(|(name, addresses)| Member {
            name: name.clone(),
            addresses,
            shape: None,
            checkpointing: false,
            membership: Membership::Joined,
        })
        .collect();
    let mut moves = Vec::new();
    for reach in [Reach::loopback(), named(), named(), Reach::loopback()] {
        let mut moved = 0;
        for member in &mut members {
            let wanted = at.whereabouts(&id, member, &PORTS, &reach).await;
            let wanted = wanted.expect("whereabouts");
            if wanted.are_of(member) {
                continue;
            }
            moved += 1;
            let of = [member.name.clone()];
            taken.extend(member.addresses.values().map(Address::held));
            let lacking = at
                .place(tenant().owning(&id), &of, &wanted.lacking, &reach, &taken)
                .await;
            member.addresses.clone_from(&wanted.addresses);
            let lacking = lacking.expect("places").into_iter();
            member.addresses.extend(lacking.flatten());
            // Once is enough.
            let again = at.whereabouts(&id, member, &PORTS, &reach).await;
            assert!(again.expect("whereabouts").are_of(member), "{member:?}");
            let door = &member.addresses["door"];
            assert_eq!(door.is_reached_from_elsewhere(), reach == named());
        }
        moves.push(moved);
    }
    assert_eq!(moves, [0, 2, 0, 2]);
}

async fn a_range_has_an_end<K: Kind>() {
    let kind = K::new().await;
    let many: Vec<String> = (0..30_000).map(|i| format!("m{i}")).collect();
    let reach = Reach::loopback();
    let (id, owner, taken) = (new_id(), tenant(), HashSet::new());
    let placed = kind
        .provisioner()
        .place(owner.owning(&id), &many, &PORTS, &reach, &taken);
    assert!(matches!(placed.await, Err(ProvisionerError::NoFreePort)));
}

async fn a_member_runs_as_it_is_described<K: Kind>() {
    let kind = K::new().await;
    let (at, id) = (kind.provisioner(), new_id());
    assert_eq!(observed(at, &id).await, None);
    let first = server(&id, "first");
    for _ in 0..2 {
        at.start(&first).await.expect("started");
        runs(at, &id).await;
    }
    printed(at, &id, "begins first\n").await;
    assert!(at.runs_as(&first).await.expect("a look"));

    let second = server(&id, "second");
    assert!(!at.runs_as(&second).await.expect("a look"));
    at.start(&second).await.expect("started");
    printed(at, &id, "begins first\nbegins second\n").await;
    assert!(at.runs_as(&second).await.expect("a look"));

    let other_key = Server {
        files: vec![ServerFile {
            name: "key",
            contents: Secret::new("another key"),
        }],
        ..second.clone()
    };
    assert!(!at.runs_as(&other_key).await.expect("a look"));
    at.start(&other_key).await.expect("started");
    printed(at, &id, "begins first\nbegins second\nbegins second\n").await;

    let newer = Server {
        program: program("2.0.0"),
        ..other_key.clone()
    };
    at.start(&newer).await.expect("started");
    let seen = at.members(&id).await.expect("members");
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].name, "m0");
    assert_eq!(seen[0].version, newer.program.version);
    assert_eq!(seen[0].addresses, newer.addresses);
    // What it must have before the next start changes nothing of what runs.
    let with_data = Server {
        data: data(),
        ..newer.clone()
    };
    at.start(&with_data).await.expect("started");
    assert!(at.runs_as(&newer).await.expect("a look"));
}

fn data() -> Option<DataOfServer> {
    Some(DataOfServer {
        folder: "data".to_owned(),
        suffix: ".db".to_owned(),
    })
}

async fn a_member_that_ends_is_started_again<K: Kind>() {
    let kind = K::new().await;
    let (at, id) = (kind.provisioner(), new_id());
    let ending = Server {
        args: vec!["end".to_owned(), String::new()],
        ..server(&id, "")
    };
    at.start(&ending).await.expect("started");
    eventually("another start", || async {
        let seen = observed(at, &id).await?;
        (seen.restarts >= 2 && !seen.has_lost_data).then_some(())
    })
    .await;
    eventually("last words", || async {
        let words = at.last_words(&id, "m0").await.expect("a look");
        (words? == "begins\ncannot go on\n").then_some(())
    })
    .await;
    // What is described anew begins anew.
    at.start(&server(&id, "well")).await.expect("started");
    runs(at, &id).await;
    assert_eq!(observed(at, &id).await.expect("a member").restarts, 0);
    assert_eq!(at.last_words(&id, "m0").await.expect("a look"), None);
    at.restart(&id, "m0").await.expect("started anew");
    runs(at, &id).await;
    assert_eq!(observed(at, &id).await.expect("a member").restarts, 1);
}

async fn a_stopped_member_stays_stopped_and_keeps_its_data<K: Kind>() {
    let kind = K::new().await;
    let (at, id) = (kind.provisioner(), new_id());
    at.start(&server(&id, "a")).await.expect("started");
    keep(at, &id, "one.db").await;
    at.stop(&id, "m0", STOP_GRACE).await.expect("stopped");
    at.stop(&id, "m0", STOP_GRACE)
        .await
        .expect("stopped already");
    at.restart(&id, "m0").await.expect("left alone");
    assert!(!observed(at, &id).await.expect("a member").running);
    assert_eq!(names(at, &id).await, ["one.db"]);
    at.stop(&id, "m9", STOP_GRACE).await.expect("nobody");
    at.stop(&new_id(), "m0", STOP_GRACE).await.expect("nobody");
    at.start(&server(&id, "a")).await.expect("started again");
    runs(at, &id).await;
}

async fn a_home_is_emptied_only_when_its_member_is_stopped<K: Kind>() {
    let kind = K::new().await;
    let (at, id) = (kind.provisioner(), new_id());
    at.start(&server(&id, "a")).await.expect("started");
    keep(at, &id, "one.db").await;
    for refused in [at.wipe(&id, "m0").await, at.set_aside(&id, "m0", "x").await] {
        assert!(
            matches!(refused, Err(ProvisionerError::NotStopped { .. })),
            "{refused:?}"
        );
    }
    at.stop(&id, "m0", Duration::ZERO).await.expect("stopped");
    at.wipe(&id, "m0").await.expect("wiped");
    assert_eq!(names(at, &id).await, Vec::<String>::new());
    // What the member is given lies elsewhere.
    let key = at
        .run(&id, "m0", &task(&["read", &format!("{FILES}/key")]))
        .await;
    assert_eq!(key.expect("a key"), "a key");
}

async fn what_is_set_aside_comes_back<K: Kind>() {
    let kind = K::new().await;
    let (at, id) = (kind.provisioner(), new_id());
    at.start(&server(&id, "a")).await.expect("started");
    keep(at, &id, "old.db").await;
    at.stop(&id, "m0", Duration::ZERO).await.expect("stopped");
    at.set_aside(&id, "m0", "kept").await.expect("set aside");
    assert_eq!(names(at, &id).await, Vec::<String>::new());
    keep(at, &id, "new.db").await;
    // A second time, after a crash: what was set aside first stays.
    at.set_aside(&id, "m0", "kept").await.expect("set aside");
    at.put_back(&id, "m0", "other")
        .await
        .expect("nothing is there");
    at.start(&server(&id, "a")).await.expect("started");
    at.put_back(&id, "m0", "kept").await.expect("put back");
    assert_eq!(names(at, &id).await, ["old.db"]);
    assert!(!observed(at, &id).await.expect("a member").running);
    at.put_back(&id, "m0", "kept")
        .await
        .expect("put back already");
    assert_eq!(names(at, &id).await, ["old.db"]);
}

async fn a_member_that_lost_its_data_is_not_started<K: Kind>() {
    let kind = K::new().await;
    let (at, id) = (kind.provisioner(), new_id());
    let used = Server {
        data: data(),
        ..server(&id, "a")
    };
    let lost = at.start(&used).await;
    assert!(
        matches!(lost, Err(ProvisionerError::DataLost { .. })),
        "{lost:?}"
    );
    eventually("a loss that is seen", || async {
        let seen = observed(at, &id).await?;
        assert!(!seen.running);
        seen.has_lost_data.then_some(())
    })
    .await;
    keep(at, &id, "one.db").await;
    at.start(&used).await.expect("started");
    runs(at, &id).await;
    assert!(!observed(at, &id).await.expect("a member").has_lost_data);
}

async fn a_task_tells_what_it_printed_or_why_it_failed<K: Kind>() {
    let kind = K::new().await;
    let (at, id) = (kind.provisioner(), new_id());
    let said = at.run(&id, "m0", &task(&["print", "a word"])).await;
    assert_eq!(said.expect("a word"), "a word\n");
    let failed = at.run(&id, "m0", &task(&["fail"])).await;
    match failed {
        Err(ProvisionerError::TaskFailed { output, .. }) => {
            assert_eq!(output.trim_end(), "the reason")
        }
        other => panic!("{other:?}"),
    }
    let hanging = Task {
        timeout: Duration::from_millis(300),
        ..task(&["hang"])
    };
    let ended = at.run(&id, "m0", &hanging).await;
    assert!(
        matches!(ended, Err(ProvisionerError::TaskTimeout { .. })),
        "{ended:?}"
    );
    let missing = Task {
        program: program("3.0.0"),
        ..task(&["print", "a word"])
    };
    let refused = at.run(&id, "m0", &missing).await;
    assert!(
        matches!(refused, Err(ProvisionerError::NotInstalled { .. })),
        "{refused:?}"
    );
}

/// The first that uses a member's volume says where that is.
async fn members_that_are_seeded_at_once_run_beside_each_other<K: Kind>() {
    let kind = K::new().await;
    let (at, id) = (kind.provisioner(), new_id());
    let members = ["m0", "m1", "m2"];
    let seed = task(&["write", "data", HOME]);
    let seeded = join_all(members.map(|member| at.run(&id, member, &seed))).await;
    for seeded in seeded {
        seeded.expect("seeded");
    }
    let server = |member: &str| Server {
        member: member.to_owned(),
        ..server(&id, "a")
    };
    let started = members.map(|member| {
        let server = server(member);
        async move { at.start(&server).await }
    });
    for started in join_all(started).await {
        started.expect("started");
    }
    eventually("members that run", || async {
        let all = at.observe(&id).await.expect("an observation");
        (all.len() == members.len() && all.iter().all(|member| member.running)).then_some(())
    })
    .await;
}

async fn a_staged_file_is_whole_or_not_there<K: Kind>() {
    let kind = K::new().await;
    let (at, id) = (kind.provisioner(), new_id());
    let read = async || {
        let task = task(&["read", &format!("{STAGE}/file")]);
        at.run(&id, "m0", &task).await.ok()
    };
    at.unstage(&id, "file").await.expect("nothing is there");
    assert_eq!(read().await, None);
    for text in ["first", "second"] {
        at.stage(&id, "file", 6, content(text))
            .await
            .expect("staged");
        assert_eq!(read().await.as_deref(), Some(text));
    }
    let broken = stream::iter([Ok(Bytes::from("half")), Err(std::io::Error::other("cut"))]);
    let failed = at.stage(&id, "file", 6, broken.boxed()).await;
    assert!(
        matches!(failed, Err(ProvisionerError::Io { .. })),
        "{failed:?}"
    );
    assert_ne!(read().await.as_deref(), Some("half"));
    at.stage(&id, "file", 6, content("third"))
        .await
        .expect("staged");
    at.unstage(&id, "file").await.expect("removed");
    assert_eq!(read().await, None);

    keep(at, &id, "one.db").await;
    at.stage_file(&id, "m0", "data/one.db", "file")
        .await
        .expect("staged");
    assert_eq!(read().await.as_deref(), Some("kept"));
    let missing = at.stage_file(&id, "m0", "data/two.db", "file").await;
    match missing {
        Err(ProvisionerError::Io { source, .. }) => {
            assert_eq!(source.kind(), std::io::ErrorKind::NotFound);
        }
        other => panic!("{other:?}"),
    }
}

async fn what_does_not_fit_is_refused_before_it_comes<K: Kind>() {
    const TOO_MUCH: u64 = 1 << 60;
    let kind = K::new().await;
    let (at, id) = (kind.provisioner(), new_id());
    at.room_for(tenant().owning(&id), 1).await.expect("room");
    let full = at.room_for(tenant().owning(&id), TOO_MUCH).await;
    assert!(
        matches!(full, Err(ProvisionerError::DiskFull { .. })),
        "{full:?}"
    );
    let full = at.stage(&id, "file", TOO_MUCH, content("a")).await;
    assert!(
        matches!(full, Err(ProvisionerError::DiskFull { .. })),
        "{full:?}"
    );
}

async fn files_are_told_by_name_and_length<K: Kind>() {
    let kind = K::new().await;
    let (at, id) = (kind.provisioner(), new_id());
    assert_eq!(at.files(&id, "m0", "data").await.expect("none"), []);
    keep(at, &id, "b.db").await;
    keep(at, &id, "a.db").await;
    let files = at.files(&id, "m0", "data").await.expect("files");
    let told: Vec<_> = files.iter().map(|f| (f.name.as_str(), f.bytes)).collect();
    assert_eq!(told, [("a.db", 4), ("b.db", 4)]);
    assert_eq!(at.files(&id, "m0", "elsewhere").await.expect("none"), []);
}

async fn logs_are_told_of_and_read<K: Kind>() {
    let kind = K::new().await;
    let (at, id) = (kind.provisioner(), new_id());
    assert_eq!(at.logs(&id).await.expect("none"), []);
    let none = at
        .read_log(&id, "m0", LogPart::Current, None)
        .await
        .expect("none");
    assert!(none.is_none());
    at.start(&server(&id, "a")).await.expect("started");
    printed(at, &id, "begins a\n").await;
    let logs = at.logs(&id).await.expect("a log");
    assert_eq!(logs.len(), 1);
    assert_eq!(
        (logs[0].member.as_str(), logs[0].part),
        ("m0", LogPart::Current)
    );
    assert_eq!(logs[0].bytes, "begins a\n".len() as u64);
    let older = at
        .read_log(&id, "m0", LogPart::Older, None)
        .await
        .expect("none");
    assert!(older.is_none());
    for (last, expected) in [(9, "begins a\n"), (8, ""), (100, "begins a\n")] {
        let end = at
            .read_log(&id, "m0", LogPart::Current, Some(last))
            .await
            .expect("a log");
        let lines: Vec<String> = end.expect("lines").try_collect().await.expect("lines");
        assert_eq!(lines.concat(), expected, "{last}");
    }
}

async fn nothing_is_left_of_what_is_destroyed<K: Kind>() {
    let kind = K::new().await;
    let (at, id, other) = (kind.provisioner(), new_id(), new_id());
    at.destroy(&id).await.expect("nothing is there");
    at.start(&server(&id, "a")).await.expect("started");
    at.start(&server(&other, "a")).await.expect("started");
    at.stage(&id, "file", 1, content("a"))
        .await
        .expect("staged");
    let mut all = at.deployments().await.expect("both");
    all.sort();
    let mut both = [id.clone(), other.clone()];
    both.sort();
    assert_eq!(all, both);
    for _ in 0..2 {
        at.destroy(&id).await.expect("destroyed");
        assert_eq!(
            at.deployments().await.expect("one"),
            std::slice::from_ref(&other)
        );
        assert_eq!(observed(at, &id).await, None);
        assert_eq!(at.members(&id).await.expect("none"), []);
        assert_eq!(at.logs(&id).await.expect("none"), []);
    }
    runs(at, &other).await;
    // The same one can be made again.
    at.start(&server(&id, "b")).await.expect("started");
    printed(at, &id, "begins b\n").await;
}

async fn names_that_lead_elsewhere_are_refused<K: Kind>() {
    let kind = K::new().await;
    let (at, id) = (kind.provisioner(), new_id());
    at.start(&server(&id, "a")).await.expect("started");
    for name in ["", ".", "..", "a/b", "../m0", "/etc"] {
        let renamed = Server {
            member: name.to_owned(),
            ..server(&id, "a")
        };
        let refused = [
            at.start(&renamed).await,
            at.run(&id, name, &task(&["print", "a"])).await.map(drop),
            at.stage(&id, name, 1, content("a")).await,
            at.unstage(&id, name).await,
            at.stage_file(&id, "m0", "data/one.db", name).await,
        ];
        for (i, refused) in refused.into_iter().enumerate() {
            let is_it = matches!(refused, Err(ProvisionerError::BadName(_)));
            assert!(is_it, "{name:?} {i}: {refused:?}");
        }
    }
    for folder in ["", "..", "data/../..", "/etc"] {
        let refused = at.files(&id, "m0", folder).await;
        let is_it = matches!(refused, Err(ProvisionerError::BadName(_)));
        assert!(is_it, "{folder:?}: {refused:?}");
    }
}

/// Runs every test on a kind of provisioner.
macro_rules! contract {
    ($room:ident, $kind:ty $(, $ignored:meta)?) => {
        mod $room {
            use super::*;

            contract!(@tests [$($ignored)?] $kind:
                versions_are_told_the_oldest_first,
                members_are_placed_apart,
                a_member_stays_where_it_was_placed_and_where_it_was_moved_to,
                a_range_has_an_end,
                a_member_runs_as_it_is_described,
                a_member_that_ends_is_started_again,
                a_stopped_member_stays_stopped_and_keeps_its_data,
                a_home_is_emptied_only_when_its_member_is_stopped,
                what_is_set_aside_comes_back,
                a_member_that_lost_its_data_is_not_started,
                a_task_tells_what_it_printed_or_why_it_failed,
                members_that_are_seeded_at_once_run_beside_each_other,
                a_staged_file_is_whole_or_not_there,
                what_does_not_fit_is_refused_before_it_comes,
                files_are_told_by_name_and_length,
                logs_are_told_of_and_read,
                nothing_is_left_of_what_is_destroyed,
                names_that_lead_elsewhere_are_refused,
            );
        }
    };
    (@tests [$($ignored:meta)?] $kind:ty: $($test:ident),* $(,)?) => {
        contract!(@each [$(#[$ignored])?] $kind: $($test),*);
    };
    (@each $ignored:tt $kind:ty: $($test:ident),*) => {
        $(contract!(@one $ignored $kind: $test);)*
    };
    (@one [$($ignored:tt)*] $kind:ty: $test:ident) => {
            #[tokio::test(flavor = "multi_thread")]
            $($ignored)*
            async fn $test() {
                super::$test::<$kind>().await;
            }
    };
}

contract!(on_this_machine, Local);
contract!(in_memory, Memory);
contract!(
    kubernetes,
    Kubernetes,
    ignore = "needs the cluster of make kubernetes"
);
