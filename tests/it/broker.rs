//! A broker for one test, in this process: its own folder, its own ports, nothing left afterwards.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::Duration,
};

use clap::Parser as _;
use compose_broker::{
    app::{App, Surroundings},
    backups::SharedPlace,
    config::{Config, Settings},
    model::{
        message::Webhook,
        secret::{Credentials, Secret},
    },
};
use memchr::memmem;
use procfs::process::Process;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    catalog::catalog_file,
    control::{self, surroundings},
    database::Database,
    postgres,
    process::new_key_ring,
};

pub const SERVICE: &str = "6f1c9f0e-52a4-4a39-8e0b-3c1f5b7a9d10";
pub const STANDARD: &str = "b8a0d3f4-7c1e-4b5f-9a52-1de2c4f60a11";
pub const ENTERPRISE: &str = "c2f7e6a9-0d4b-4c83-b1f6-58a9e3d7b212";

/// Whatever a test waits for must have come by then, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often members are looked for that are left at the end.
const LOOKS_MAX: u32 = 250;
/// A broker that is no longer needed has this long to let go of its work.
const STOPPED_WITHIN: Duration = Duration::from_secs(20);
/// Pause after the first look; after each further one it doubles, up to [`LOOK_MAX`]: what takes long is not
/// asked about so often that the asking holds it up.
const LOOK: Duration = Duration::from_millis(10);
/// See [`LOOK`].
const LOOK_MAX: Duration = Duration::from_millis(300);
/// Units that a cluster takes in tests that are not about that.
pub const CAPACITY_UNITS: u32 = 10_000;
/// Ports of one test's broker; 6 for each instance.
const PORTS: u16 = 90;
/// The first port of the first broker, and how many brokers can have some: below the ports of the
/// library's own tests, which run beside them, and those that the system gives to clients.
const FIRST_PORT: u16 = 10_000;
const RANGES: u16 = 200;
/// The range that no new broker gets: the ports of data folders in `former/` are in it.
const FORMER_RANGE: u16 = 110;

/// Who reads what the operator reads, of every broker in this process.
pub const READER: (&str, &str) = ("watcher", "sees and does nothing");

fn read_only() -> Credentials {
    let (username, password) = READER;
    Credentials {
        username: username.to_owned(),
        password: Secret::new(password),
    }
}

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    settings: Settings,
}

/// A running broker.
pub struct TestBroker {
    pub url: String,
    /// Real ones, unless a test is about nothing that differs in memory.
    pub database: Database,
    http: reqwest::Client,
    username: String,
    password: String,
    folder: PathBuf,
    flags: Vec<String>,
    /// The address of its store, where that is no file below its folder.
    store: Option<String>,
    /// Whether it shares that with others, so that the store's clock counts, and not a test's.
    shares_store: bool,
    /// Where it keeps backups from its next start on, where that is not as its flags say.
    pub backups: Option<SharedPlace>,
    /// Who is told of alerts, from the next start on.
    pub webhook: Option<Webhook>,
    app: Option<App>,
    child: Option<Child>,
}

/// The folder of the engines' binaries.
pub fn engines_dir() -> PathBuf {
    let set = std::env::var_os("COMPOSE_BROKER_ENGINES_DIR").map(PathBuf::from);
    set.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("engines"))
}

/// A new folder for a broker.
pub fn new_folder() -> PathBuf {
    let folder = tempfile::Builder::new()
        .prefix("compose-broker-test-")
        .tempdir();
    folder.expect("a folder").keep()
}

/// A range of ports that no other broker of a test on this machine has. When all are taken, this
/// process gives again what it gave longest ago: that broker has ended, or has its members' ports. Two
/// that choose ports of one range at the same moment take them from each other.
pub fn port_range() -> String {
    let random = u16::try_from(uuid::Uuid::new_v4().as_u128() % u128::from(RANGES));
    let random = random.expect("a small number");
    let others = (0..RANGES).map(|i| (random + i) % RANGES);
    let mut others = others.filter(|range| *range != FORMER_RANGE);
    let any = if random == FORMER_RANGE { 0 } else { random };
    let range = others.find(|i| is_ours_now(*i)).or_else(longest_ours);
    let first = FIRST_PORT + range.unwrap_or(any) * PORTS;
    format!("{first}-{}", first + PORTS - 1)
}

/// Waits until no other run of the tests has the ports of `former/`.
pub async fn have_former_ports() {
    eventually("the former ports", || async {
        is_ours_now(FORMER_RANGE).then_some(())
    })
    .await;
}

/// The ranges that this process has taken, with their locks, the one that was given longest ago in
/// front.
static OURS: Mutex<VecDeque<(u16, File)>> = Mutex::new(VecDeque::new());

/// Takes a range for as long as this process lives, unless somebody has it.
fn is_ours_now(range: u16) -> bool {
    let folder = std::env::temp_dir().join("compose-broker-test-ports");
    let _ = fs::create_dir(&folder);
    let lock = File::create(folder.join(range.to_string())).expect("a file to lock");
    let is_ours = lock.try_lock().is_ok();
    if is_ours {
        let mut ours = OURS.lock().expect("our locks");
        ours.push_back((range, lock));
    }
    is_ours
}

/// Gives the range again that this process gave longest ago.
fn longest_ours() -> Option<u16> {
    let mut ours = OURS.lock().expect("our locks");
    let place = ours.iter().position(|(range, _)| *range != FORMER_RANGE)?;
    let (range, lock) = ours.remove(place)?;
    ours.push_back((range, lock));
    Some(range)
}

/// Waits until `look` gives something.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, look: impl Fn() -> F) -> T {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = LOOK;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(pause).await;
        pause = LOOK_MAX.min(2 * pause);
    }
}

/// Whether a process of this one's is over that nobody has waited for.
fn has_ended(pid: u32) -> bool {
    let process = Process::new(pid.cast_signed());
    let stat = process.and_then(|process| process.stat());
    stat.is_ok_and(|stat| stat.state == 'Z')
}

impl TestBroker {
    /// A broker as it comes.
    pub async fn start() -> Self {
        Self::start_with(&[], surroundings()).await
    }

    /// A broker with further flags (`["--restore-scope", "organization"]`), another clock, faults.
    pub async fn start_with(flags: &[&str], surroundings: Surroundings) -> Self {
        Self::start_in(new_folder(), flags, surroundings).await
    }

    /// A broker whose databases are in memory.
    pub async fn in_memory() -> Self {
        Self::in_memory_with(&[], surroundings()).await
    }

    /// The same with further flags, another clock, faults.
    pub async fn in_memory_with(flags: &[&str], surroundings: Surroundings) -> Self {
        Database::in_memory().broker(flags, surroundings).await
    }

    /// A broker whose data folder is `data` below `folder`, which goes with it.
    pub async fn start_in(folder: PathBuf, flags: &[&str], surroundings: Surroundings) -> Self {
        Self::start_on(Database::Etcd, folder, flags, surroundings).await
    }

    /// The same with databases of this kind; the catalog must have plans of them.
    pub async fn start_on(
        database: Database,
        folder: PathBuf,
        flags: &[&str],
        surroundings: Surroundings,
    ) -> Self {
        let mut broker = Self::stopped(folder, flags);
        broker.database = database;
        broker.begin(surroundings).await;
        broker
    }

    /// The same over a store that it shares with other brokers.
    pub async fn start_beside_others(
        database: Database,
        folder: PathBuf,
        flags: &[&str],
        store: String,
        surroundings: Surroundings,
    ) -> Self {
        let mut broker = Self::stopped(folder, flags);
        broker.database = database;
        (broker.store, broker.shares_store) = (Some(store), true);
        broker.begin(surroundings).await;
        broker
    }

    /// A broker as it is before its start.
    fn stopped(folder: PathBuf, flags: &[&str]) -> Self {
        let defaults = [
            ("--listen", "127.0.0.1:0".to_owned()),
            ("--data-dir", folder.join("data").display().to_string()),
            ("--catalog", plain_catalog(&folder)),
            ("--engines-dir", engines_dir().display().to_string()),
            ("--port-range", port_range()),
            ("--clusters", wide_cluster(&folder)),
            // Tests look again and again, and many at once.
            ("--requests-per-second", "0".to_owned()),
            // What is old enough goes while a test looks.
            ("--backup-grace-hours", "0".to_owned()),
            ("--backup-pause", "0".to_owned()),
            // Each starts a database: the tests that are about them have them.
            ("--backup-proofs", "off".to_owned()),
        ];
        let mut line = vec!["serve".to_owned()];
        for (name, value) in defaults {
            if !flags.contains(&name) {
                line.extend([name.to_owned(), value]);
            }
        }
        line.extend(flags.iter().map(|&flag| flag.to_owned()));
        let mut broker = Self::beside(folder, String::new(), String::new(), String::new());
        broker.flags = line;
        broker.store = postgres::for_broker();
        broker
    }

    async fn begin(&mut self, surroundings: Surroundings) {
        // The program that parses ends where it cannot: all other tests would end with it.
        let settings = Line::try_parse_from(&self.flags).expect("flags").settings;
        let mut config = Config::load(&settings).expect("a configuration");
        config.access.read_only.push(read_only());
        config.monitoring.webhook.clone_from(&self.webhook);
        if let Some(url) = &self.store {
            // What a test's clock shows is what counts.
            config.places.postgres.own_time = !self.shares_store;
            config.places.postgres.behind_pooler = postgres::is_pooled();
            config.places.database_url = Secret::new(url.clone());
        }
        if let Some(backups) = &self.backups {
            config.places.backups = backups.clone();
        }
        self.username = config.access.platform.username.clone();
        self.password = config.access.platform.password.expose().to_owned();
        let surroundings = self.database.surroundings(surroundings);
        self.database.configure(&mut config);
        let app = App::start(config, surroundings).await.expect("a broker");
        self.url = app.public_url.clone();
        self.app = Some(app);
    }

    /// A broker in a process of its own, the very program that is shipped, with all that it prints
    /// in [`Self::printed`].
    pub async fn spawn(flags: &[&str]) -> Self {
        Self::spawn_in(new_folder(), flags).await
    }

    /// The same with everything below `folder`.
    pub async fn spawn_in(folder: PathBuf, flags: &[&str]) -> Self {
        let mut broker = Self::stopped(folder, flags);
        broker.begin_process(program()).await;
        broker
    }

    /// The same, where the system lets the broker have only so many files open: a soft limit and a
    /// hard one.
    pub async fn spawn_within(soft: u32, hard: u32, flags: &[&str]) -> Self {
        let mut limited = Command::new("prlimit");
        limited
            .arg(format!("--nofile={soft}:{hard}"))
            .arg(program().get_program());
        let mut broker = Self::stopped(new_folder(), flags);
        broker.begin_process(limited).await;
        broker
    }

    async fn begin_process(&mut self, mut command: Command) {
        let log = fs::File::create(self.folder.join("printed")).expect("a file");
        command
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a handle"))
            .stderr(log);
        if let Some(url) = &self.store {
            command.env("COMPOSE_BROKER_DATABASE_URL", url);
            if postgres::is_pooled() {
                command.env("COMPOSE_BROKER_DATABASE_POOLER", "transaction");
            }
            self.keep_secrets();
        }
        control::set_clock(&mut command, &self.folder);
        let child = command.spawn().expect("a process");
        let pid = child.id();
        self.child = Some(child);
        let serves = || async {
            let printed = self.printed();
            assert!(!has_ended(pid), "the broker has ended: {printed}");
            let url = printed.split_once("compose-broker serves ")?.1;
            url.split_once('\n').map(|(url, _)| url.to_owned())
        };
        self.url = eventually("the start of a broker", serves).await;
        let kept = |name| fs::read_to_string(self.data_dir().join(name)).expect("a file");
        let (username, password) = (kept("username"), kept("password"));
        username.trim().clone_into(&mut self.username);
        password.trim().clone_into(&mut self.password);
    }

    /// Writes down what a broker over PostgreSQL does not make by itself, as an earlier start of it would have.
    fn keep_secrets(&self) {
        let secrets = [
            ("username", "broker".to_owned()),
            ("password", "SECRET".to_owned()),
            ("encryption_keys", new_key_ring()),
        ];
        let data = self.data_dir();
        fs::create_dir_all(&data).expect("a folder");
        for (name, secret) in secrets {
            let file = data.join(name);
            if !file.exists() {
                fs::write(file, secret).expect("a file");
            }
        }
    }

    /// Tells a process of its own to end, as a service manager does, and waits for that.
    pub fn end_process(&mut self) {
        let mut child = self.child.take().expect("a process");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
        assert!(child.wait().expect("an end").success());
    }

    /// Starts it again in the same folder.
    pub async fn spawn_again(&mut self) {
        self.begin_process(program()).await;
    }

    /// All that a broker in a process of its own has printed.
    pub fn printed(&self) -> String {
        fs::read_to_string(self.folder.join("printed")).expect("a file")
    }

    /// The platform's user name and password.
    pub fn platform(&self) -> (&str, &str) {
        (&self.username, &self.password)
    }

    /// Stops the broker and starts it again in the same folder.
    pub async fn restart_with(&mut self, surroundings: Surroundings) {
        self.stop().await;
        self.start_again(surroundings).await;
    }

    /// Has a flag that the broker was given another value at its next start.
    pub fn change_flag(&mut self, name: &str, value: &str) {
        let at = self.flags.iter().position(|flag| flag == name);
        self.flags[at.expect("a flag that was given") + 1] = value.to_owned();
    }

    /// Stops the broker; its members go on.
    pub async fn stop(&mut self) {
        if let Some(app) = self.app.take() {
            app.stop().await;
        }
    }

    /// Gives a stopped broker further flags.
    pub fn also(&mut self, flags: &[&str]) {
        self.flags.extend(flags.iter().map(|&flag| flag.to_owned()));
    }

    /// Starts a stopped broker again in the same folder.
    pub async fn start_again(&mut self, surroundings: Surroundings) {
        self.begin(surroundings).await;
    }

    /// A client of a broker that runs elsewhere, at `url` with everything below `folder`.
    pub fn beside(folder: PathBuf, url: String, username: String, password: String) -> Self {
        // A connection of before the broker's death would be of no use after it.
        let http = reqwest::Client::builder().pool_max_idle_per_host(0).build();
        Self {
            url,
            database: Database::Etcd,
            http: http.expect("a client"),
            username,
            password,
            folder,
            flags: Vec::new(),
            store: None,
            shares_store: false,
            backups: None,
            webhook: None,
            app: None,
            child: None,
        }
    }

    /// A one-time link as an operator gets it: its path and query.
    pub async fn dashboard_link(&self, instance: &str) -> Result<String, Answer> {
        let path = format!("/operator/instances/{}/dashboard-link", encoded(instance));
        let made = answer(self.osb(Method::POST, &path)).await;
        if made.status != StatusCode::CREATED {
            return Err(made);
        }
        let link = text(&made.body["link"]);
        let path = link.find("/dashboard/").expect("a link to the dashboard");
        Ok(link[path..].to_owned())
    }

    /// Where it listens, whatever its public address is.
    pub fn address(&self) -> std::net::SocketAddr {
        self.app.as_ref().expect("a broker that runs").address
    }

    /// The address of its store.
    pub fn store_url(&self) -> String {
        let file = || format!("sqlite://{}", self.data_dir().join("broker.db").display());
        self.store.clone().unwrap_or_else(file)
    }

    /// Has it keep its store there.
    pub fn set_store(&mut self, url: Option<String>) {
        self.store = url;
    }

    /// What the broker keeps.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// A request with the platform's credentials and version.
    pub fn osb(&self, method: Method, path: &str) -> RequestBuilder {
        self.anonymous(method, path)
            .basic_auth(&self.username, Some(&self.password))
            .header("X-Broker-API-Version", "2.17")
    }

    /// A request with nothing.
    pub fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url))
    }

    /// Waits until the broker says that it is ready. Its own look at its folders may take longer than it waits for it
    /// while the disk is busy, and a connection may be given up before it has spoken.
    pub async fn becomes_ready(&self) {
        eventually("a broker that is ready", || async {
            let asked = self.anonymous(Method::GET, "/readyz").send().await;
            asked
                .is_ok_and(|a| a.status() == StatusCode::OK)
                .then_some(())
        })
        .await;
    }

    /// A request to the administration API of the instance that `credentials` are of; `path` is
    /// what stands below the instance.
    pub fn compose(&self, method: Method, credentials: &Value, path: &str) -> RequestBuilder {
        let api = &credentials["instance_administration_api"];
        let (root, id) = (text(&api["root"]), text(&api["instance_id"]));
        let token = text(&api["token"]);
        self.http
            .request(
                method,
                format!("{root}/2016-07/instances/{}{path}", encoded(id)),
            )
            .bearer_auth(token)
    }

    /// Asks for an instance in space `space`.
    pub async fn put_instance_in(&self, space: &str, id: &str, parameters: Value) -> Answer {
        let body = json!({
            "service_id": SERVICE, "plan_id": STANDARD,
            "organization_guid": "org", "space_guid": space, "parameters": parameters,
        });
        let path = format!("{}?accepts_incomplete=true", instance_path(id));
        answer(self.osb(Method::PUT, &path).json(&body)).await
    }

    /// Asks for an instance.
    pub async fn put_instance(&self, id: &str, parameters: Value) -> Answer {
        self.put_instance_in("space", id, parameters).await
    }

    /// Makes an instance and waits until it is usable.
    pub async fn provision(&self, id: &str, parameters: Value) {
        let accepted = self.put_instance(id, parameters).await;
        assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
        let end = self.instance_end(id, &accepted.body).await;
        assert_eq!(end["state"], "succeeded", "{end}");
    }

    /// How the operation of an accepted answer ends: its last answer's body, `gone` for a 410.
    pub async fn instance_end(&self, id: &str, accepted: &Value) -> Value {
        let operation = text(&accepted["operation"]);
        let path = format!("{}/last_operation?operation={operation}", instance_path(id));
        self.end_of(&path).await
    }

    /// Polls until an operation has ended. A broker whose store does not answer in time says when to ask again, and
    /// is asked again, as platforms do.
    pub async fn end_of(&self, path: &str) -> Value {
        eventually(&format!("the end of {path}"), || async {
            let answer = answer(self.osb(Method::GET, path)).await;
            match answer.status {
                StatusCode::GONE => Some(json!({ "state": "gone" })),
                StatusCode::OK if answer.body["state"] == "in progress" => None,
                StatusCode::OK => Some(answer.body),
                StatusCode::SERVICE_UNAVAILABLE if answer.headers.contains_key("retry-after") => {
                    None
                }
                _ => panic!("{path}: {answer:?}"),
            }
        })
        .await
    }

    /// Binds, waiting for the answer; returns the credentials.
    pub async fn bind(&self, instance: &str, binding: &str) -> Value {
        let path = binding_path(instance, binding);
        let body = json!({ "service_id": SERVICE, "plan_id": STANDARD });
        let answer = answer(self.osb(Method::PUT, &path).json(&body)).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        answer.body["credentials"].clone()
    }

    /// Unbinds, waiting for the answer.
    pub async fn unbind(&self, instance: &str, binding: &str) -> Answer {
        let path = format!(
            "{}?service_id={SERVICE}&plan_id={STANDARD}",
            binding_path(instance, binding)
        );
        answer(self.osb(Method::DELETE, &path)).await
    }

    /// Asks for the deletion of an instance.
    pub async fn delete_instance(&self, id: &str) -> Answer {
        let path = format!(
            "{}?service_id={SERVICE}&plan_id={STANDARD}&accepts_incomplete=true",
            instance_path(id)
        );
        answer(self.osb(Method::DELETE, &path)).await
    }

    /// Deletes an instance and waits until it is gone.
    pub async fn deprovision(&self, id: &str) {
        let accepted = self.delete_instance(id).await;
        assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
        let end = self.instance_end(id, &accepted.body).await;
        assert_eq!(end["state"], "succeeded", "{end}");
    }

    /// Takes a backup and waits for its end; returns the backup as it is listed.
    pub async fn back_up(&self, credentials: &Value) -> Value {
        let path = format!(
            "/deployments/{}/backups",
            text(&credentials["deployment_id"])
        );
        let recipe = answer(self.compose(Method::POST, credentials, &path)).await;
        assert_eq!(recipe.status, StatusCode::ACCEPTED, "{recipe:?}");
        self.recipe_end(credentials, &recipe.body).await;
        let backup = format!("{path}/{}", text(&recipe.body["backup_id"]));
        answer(self.compose(Method::GET, credentials, &backup))
            .await
            .body
    }

    /// How a recipe ends.
    pub async fn recipe_end(&self, credentials: &Value, recipe: &Value) -> Value {
        let path = format!("/recipes/{}", text(&recipe["id"]));
        eventually("the end of a recipe", || async {
            let answer = answer(self.compose(Method::GET, credentials, &path)).await;
            assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
            let ended = ["complete", "failed"].contains(&text(&answer.body["status"]));
            ended.then_some(answer.body)
        })
        .await
    }

    /// The members that run, also in memory.
    pub fn running(&self) -> Vec<String> {
        self.database.running(self)
    }

    /// Every process that this broker's members are, by pid.
    pub fn members(&self) -> Vec<i32> {
        processes_below(&self.folder)
    }

    /// Every file below the data folder, relative to it.
    pub fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        collect(&self.data_dir(), &self.data_dir(), &mut files);
        files.sort();
        files
    }
}

impl Drop for TestBroker {
    fn drop(&mut self) {
        // Work that went on would start members behind our back.
        if let Some(app) = self.app.take() {
            let stopping = tokio::time::timeout(STOPPED_WITHIN, app.stop());
            let stop = || tokio::runtime::Handle::current().block_on(stopping);
            let _ = tokio::task::block_in_place(stop);
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        // Without its folder no member is started again; then the members that still run are ended.
        let gone = self.folder.with_extension("gone");
        let _ = fs::rename(&self.folder, &gone);
        let (mut quiet, mut looks) = (0, 0);
        while quiet < 2 && looks < LOOKS_MAX {
            let left = processes_below(&self.folder);
            quiet = if left.is_empty() { quiet + 1 } else { 0 };
            looks += 1;
            left.iter().copied().for_each(kill);
            left.into_iter().for_each(bury);
            std::thread::sleep(2 * LOOK);
        }
        for folder in [&gone, &self.folder] {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

/// The catalog that is shipped, but for one on-demand backup of an instance, and none of a deleted one: tests see
/// backups go.
pub fn with_one_backup(catalog: Value) -> Value {
    with_rules(catalog, |rules| {
        rules["on_demand_backups_kept"] = json!(1);
        rules["after_delete"] = nothing_after_delete();
    })
}

/// What a plan says that keeps nothing of deleted instances.
pub fn nothing_after_delete() -> Value {
    json!({ "final_backup": false, "backups_kept_days": 0 })
}

/// A catalog with other rules of its plans.
pub fn with_rules(mut catalog: Value, change: impl Fn(&mut Value)) -> Value {
    let services = catalog["services"].as_array_mut().expect("services");
    let plans = services.iter_mut().flat_map(|service| {
        let plans = service["plans"].as_array_mut();
        plans.expect("plans")
    });
    for plan in plans {
        change(&mut plan["broker"]);
    }
    catalog
}

/// The file of that catalog, below `folder`.
pub fn plain_catalog(folder: &Path) -> String {
    fs::create_dir_all(folder).expect("a folder");
    let file = folder.join("plain-catalog.json");
    let catalog = with_one_backup(catalog_file());
    fs::write(&file, catalog.to_string()).expect("a file");
    file.display().to_string()
}

/// The file of a cluster that takes whatever a test puts on it: that must not depend on the disk of
/// the machine that tests run on.
pub fn wide_cluster(folder: &Path) -> String {
    let file = folder.join("cluster.json");
    let local = json!([
        { "id": "local", "name": "This machine", "capacity_units": CAPACITY_UNITS },
    ]);
    fs::write(&file, local.to_string()).expect("a file");
    file.display().to_string()
}

/// The very program that is shipped.
fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_compose-broker"))
}

/// Ends one process at once.
pub fn kill(pid: i32) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// Waits for the end of a process that was killed, if it is a child of this one: a broker of this process that
/// is gone waits for none. Who looks through all processes would meet it until the last test.
fn bury(pid: i32) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
    }
}

/// Processes whose command line names something below `folder`. Tests look often, and at all of the machine: words
/// are not told apart.
pub fn processes_below(folder: &Path) -> Vec<i32> {
    let folder = format!("{}/", folder.display());
    let named = memmem::Finder::new(&folder);
    let names_it = |process: &Process| {
        let mut line = Vec::new();
        let read = process
            .open_relative("cmdline")
            .is_ok_and(|mut file| file.read_to_end(&mut line).is_ok());
        read && named.find(&line).is_some()
    };
    let Ok(all) = procfs::process::all_processes() else {
        return Vec::new();
    };
    all.flatten().filter(names_it).map(|p| p.pid).collect()
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(root, &path, files);
        } else if let Ok(relative) = path.strip_prefix(root) {
            files.push(relative.display().to_string());
        }
    }
}

/// Where an instance stands.
pub fn instance_path(id: &str) -> String {
    format!("/v2/service_instances/{}", encoded(id))
}

/// Where a binding stands.
pub fn binding_path(instance: &str, binding: &str) -> String {
    let instance = instance_path(instance);
    format!("{instance}/service_bindings/{}", encoded(binding))
}

/// An id as one part of a path.
pub fn encoded(id: &str) -> String {
    let hex = |byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(*byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    id.as_bytes().iter().map(hex).collect()
}

/// A text in a body.
pub fn text(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is not a text"))
}

/// An answer: its status and its body.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

/// Sends a request; every answer of ours is JSON.
pub async fn answer(request: RequestBuilder) -> Answer {
    let response: Response = request.send().await.expect("an answer");
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.text().await.expect("a body");
    let body = serde_json::from_str(&body).unwrap_or_else(|e| panic!("{status} {body:?}: {e}"));
    Answer {
        status,
        headers,
        body,
    }
}
