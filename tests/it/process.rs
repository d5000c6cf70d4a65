//! The real binary as a process of its own, which can be killed and started again.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::TcpListener,
    ops::Deref,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    broker::{
        CAPACITY_UNITS, TestBroker, engines_dir, eventually, kill, new_folder, plain_catalog,
        port_range, wide_cluster,
    },
    control::set_clock,
    postgres,
};

const USERNAME: &str = "ada";
const PASSWORD: &str = "word";
/// Ports for brokers: below those of members and of clients.
const LISTEN_PORTS: std::ops::Range<u16> = 5_000..9_990;
/// A broker that does not start must have said so by then, also on a busy machine.
const REFUSAL: Duration = Duration::from_secs(60);
/// What is shown of a broker's log when its test fails.
const LOG_LINES_SHOWN: usize = 60;

/// A broker as a process. Everything that [`TestBroker`] can ask, can be asked of it.
pub struct BrokerProcess {
    client: TestBroker,
    folder: PathBuf,
    settings: Settings,
    child: Option<Child>,
}

/// Environment variables of a broker, without their prefix.
pub type Settings = BTreeMap<&'static str, String>;

/// The settings of a broker that keeps everything below `folder`.
pub fn settings(folder: &Path) -> Settings {
    let path = |path: PathBuf| path.display().to_string();
    [
        ("LISTEN", format!("127.0.0.1:{}", free_port())),
        ("DATA_DIR", path(folder.join("data"))),
        ("CATALOG", plain_catalog(folder)),
        ("ENGINES_DIR", path(engines_dir())),
        ("PORT_RANGE", port_range()),
        // Tests back up again and again.
        ("BACKUP_PAUSE", "0".to_owned()),
        // A member that comes and goes by itself is no part of their stories.
        ("BACKUP_PROOFS", "off".to_owned()),
        ("USERNAME", USERNAME.to_owned()),
        ("PASSWORD", PASSWORD.to_owned()),
    ]
    .into()
}

/// A cluster in the file of several brokers, which have all they share below `folder`; of that machine.
pub fn shared_cluster(id: &str, folder: &Path, machine: Option<&str>) -> Value {
    let mut cluster = json!({
        "id": id,
        "name": id,
        "data_dir": shared_cluster_folder(id, folder),
        "port_range": port_range(),
        "capacity_units": CAPACITY_UNITS,
    });
    if let Some(machine) = machine {
        cluster["machine"] = json!(machine);
    }
    cluster
}

/// Where the members of such a cluster are.
pub fn shared_cluster_folder(id: &str, folder: &Path) -> PathBuf {
    folder.join("cluster").join(id)
}

/// What several brokers have in common below `folder`: these clusters, and backups.
pub fn shared_settings(folder: &Path, clusters: &[Value]) -> Settings {
    let file = folder.join("clusters-of-all.json");
    fs::write(&file, json!(clusters).to_string()).expect("a file");
    let backups = folder.join("backups");
    [
        ("CLUSTERS", file.display().to_string()),
        ("BACKUP_STORE", format!("file://{}", backups.display())),
    ]
    .into()
}

/// What brokers over a database of PostgreSQL are given, and do not make.
pub fn new_key_ring() -> String {
    let ring = compose_broker::seal::KeyRing::generate().expect("keys");
    ring.expose().to_owned()
}

/// A port that nobody listens on. It stays the same over restarts, so it must not be one that the
/// system gives to clients meanwhile.
pub fn free_port() -> u16 {
    let width = u128::from(LISTEN_PORTS.end - LISTEN_PORTS.start);
    loop {
        let random = u16::try_from(uuid::Uuid::new_v4().as_u128() % width).expect("a small number");
        let port = LISTEN_PORTS.start + random;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The binary with nothing but these settings in its environment, so that no folder of a test
/// stands in its command line.
pub fn command(arguments: &[&str], settings: &Settings) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_compose-broker"));
    command.args(arguments).stdin(Stdio::null()).env_clear();
    for (name, value) in settings {
        command.env(format!("COMPOSE_BROKER_{name}"), value);
    }
    command
}

/// Runs a broker that is expected to refuse its settings.
pub async fn refused(settings: &Settings) -> Output {
    refused_with(&[], settings).await
}

/// The same with further arguments.
pub async fn refused_with(arguments: &[&str], settings: &Settings) -> Output {
    let arguments = [&["serve"], arguments].concat();
    let mut command = tokio::process::Command::from(command(&arguments, settings));
    let ended = timeout(REFUSAL, command.kill_on_drop(true).output()).await;
    let ended = ended.unwrap_or_else(|_| panic!("the broker goes on with {settings:?}"));
    ended.expect("a process")
}

/// The one line that a broker said when it refused to start, naming `setting`.
pub fn assert_one_line(refused: &Output, setting: &str) {
    let said = String::from_utf8_lossy(&refused.stderr);
    let what = format!("{setting}: {}: {said}", refused.status);
    assert!(!refused.status.success(), "{what}");
    assert_eq!(said.lines().count(), 1, "{what}");
    assert!(said.starts_with("compose-broker: "), "{what}");
    assert!(said.contains(setting), "{what}");
    assert!(!said.contains("hidden"), "{what}");
    assert!(refused.stdout.is_empty(), "{what}");
}

impl BrokerProcess {
    /// Starts a broker and waits until it serves.
    pub async fn start() -> Self {
        let mut broker = Self::stopped_with(|_| ());
        broker.start_again().await;
        broker
    }

    /// A broker as it is before its start, with its settings changed.
    pub fn stopped_with(change: impl FnOnce(&mut Settings)) -> Self {
        let folder = new_folder();
        let mut settings = settings(&folder);
        settings.insert("CLUSTERS", wide_cluster(&folder));
        if let Some(url) = postgres::for_broker() {
            settings.insert("DATABASE_URL", url);
            if postgres::is_pooled() {
                settings.insert("DATABASE_POOLER", "transaction".to_owned());
            }
            let ring = new_key_ring();
            // Where those who look inside find the one that a broker makes for itself.
            let data = folder.join("data");
            fs::create_dir(&data).expect("a folder");
            fs::write(data.join("encryption_keys"), &ring).expect("a file");
            settings.insert("ENCRYPTION_KEYS", ring);
        }
        change(&mut settings);
        let url = format!("http://{}", settings["LISTEN"]);
        let (username, password) = (USERNAME.to_owned(), PASSWORD.to_owned());
        let mut client = TestBroker::beside(folder.clone(), url, username, password);
        client.set_store(settings.get("DATABASE_URL").cloned());
        Self {
            client,
            folder,
            settings,
            child: None,
        }
    }

    /// Starts the broker, which does not run, and waits until it serves.
    pub async fn start_again(&mut self) {
        self.spawn();
        self.serving().await;
    }

    /// Starts the broker, which does not run.
    pub fn spawn(&mut self) {
        self.spawn_with(&[]);
    }

    /// The same with further arguments.
    pub fn spawn_with(&mut self, arguments: &[&str]) {
        assert!(self.child.is_none(), "the broker runs already");
        let log = File::options().create(true).append(true).open(self.log());
        let mut command = command(&[&["serve"], arguments].concat(), &self.settings);
        if !self.settings.contains_key("CLOCK_OFFSET_FILE") {
            set_clock(&mut command, &self.folder);
        }
        let command = command
            .stdout(Stdio::null())
            .stderr(log.expect("a log file"));
        self.child = Some(command.spawn().expect("a process"));
    }

    /// The broker's process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a broker that runs").id()
    }

    /// The broker's process, as long as nobody has ended it.
    pub fn running(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// How the broker has ended by itself; it can be started again then.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        let child = self.child.as_mut()?;
        let status = child.try_wait().expect("a look")?;
        self.child = None;
        Some(status)
    }

    /// Ends the broker at once, if it runs.
    pub fn end_at_once(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Waits until the broker serves.
    pub async fn serving(&self) {
        eventually("a broker that serves", || async {
            let answer = self.client.anonymous(reqwest::Method::GET, "/readyz");
            let served = answer.send().await.is_ok_and(|a| a.status().is_success());
            served.then_some(())
        })
        .await;
    }

    /// Waits until the broker serves, or has ended by itself; true: it serves.
    pub async fn serving_or_ended(&mut self) -> bool {
        let begun = tokio::time::Instant::now();
        while self.ended().is_none() {
            let answer = self.client.anonymous(reqwest::Method::GET, "/readyz");
            if answer.send().await.is_ok_and(|a| a.status().is_success()) {
                return true;
            }
            assert!(begun.elapsed() < REFUSAL, "neither is so");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        false
    }

    /// Ends the broker at once, as `kill -9` does.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("a broker that runs");
        kill(i32::try_from(child.id()).expect("a pid"));
        let status = child.wait().expect("an end");
        // A broker that ended by itself was not killed.
        assert_eq!(status.code(), None, "the broker had ended: {status}");
    }

    /// Ends the broker at once and starts it again.
    pub async fn kill_and_start_again(&mut self) {
        self.kill();
        self.start_again().await;
    }

    /// Asks the broker to end; returns what waits for its end.
    pub fn terminate(&mut self) -> impl FnOnce() -> std::process::ExitStatus + Send + 'static {
        let mut child = self.child.take().expect("a broker that runs");
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        rustix::process::kill_process(pid.expect("a pid"), Signal::TERM).expect("a signal");
        move || child.wait().expect("an end")
    }

    /// Tells the broker to read anew what may change while it runs.
    pub fn hang_up(&self) {
        let child = self.child.as_ref().expect("a broker that runs");
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        rustix::process::kill_process(pid.expect("a pid"), Signal::HUP).expect("a signal");
    }

    /// What the broker has logged.
    pub fn logged(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Changes settings for the next start.
    pub fn change_settings(&mut self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.settings);
    }

    /// The broker's settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    fn log(&self) -> PathBuf {
        self.folder.join("broker.log")
    }
}

impl Deref for BrokerProcess {
    type Target = TestBroker;

    fn deref(&self) -> &TestBroker {
        &self.client
    }
}

impl Drop for BrokerProcess {
    fn drop(&mut self) {
        self.end_at_once();
        if std::thread::panicking() {
            let log = self.logged();
            let lines: Vec<&str> = log.lines().collect();
            let from = lines.len().saturating_sub(LOG_LINES_SHOWN);
            eprintln!("the broker's log ends:\n{}", lines[from..].join("\n"));
        }
    }
}
