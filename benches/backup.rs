//! What a backup and a restore of a gigabyte take, and what the same takes by hand.
//!
//! A broker with real etcd, members of one machine, holds JSON values of 8 KiB. Its backups and etcd's own `snapshot
//! save`, alone and with `gzip -6`, take turns, so that a machine that becomes slower is slower for all of them.
//! The middle one of each counts. A restore is compared with etcd's own tool and three members that are started by
//! hand, until they serve. `make bench-backup` runs it. It is no test: what it prints depends on the machine.
//!
//! `BENCH_MIB` is the size of the database, 1000 unless given.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use etcd_client::{Certificate, Client, ConnectOptions, TlsOptions};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep};

/// Measurements of each sort.
const ROUNDS: usize = 4;
/// Bytes of a value.
const VALUE_BYTES: usize = 8 * 1024;
/// Clients that fill the database.
const WRITERS: usize = 8;
/// Between two looks whether something is done.
const LOOK: Duration = Duration::from_millis(50);
/// Credentials of the broker.
const CREDENTIALS: (&str, &str) = ("bench", "bench-password");
/// Of the catalog.
const SERVICE: &str = "6f1c9f0e-52a4-4a39-8e0b-3c1f5b7a9d10";
const PLAN: &str = "b8a0d3f4-7c1e-4b5f-9a52-1de2c4f60a11";
const VERSION: &str = "3.6.16";

#[tokio::main]
async fn main() {
    let mib: u32 = std::env::var("BENCH_MIB").map_or(1000, |mib| mib.parse().expect("a number"));
    let folder = tempfile::tempdir().expect("a folder");
    let broker = Broker::start(folder.path());
    broker.serves().await;
    let units = mib * 5 / 4 / 256 + 1;
    let parameters = json!({ "db_version": VERSION, "units": units });
    let (_, credentials) = broker.make("source", parameters).await;
    fill(&connect(&credentials).await, mib).await;
    let (by_hand, client) = ByHand::start(&folder.path().join("stays")).await;
    fill(&client, mib).await;
    println!(
        "{mib} MiB of JSON values of 8 KiB in etcd {VERSION}, {ROUNDS} times each, the middle one counts"
    );

    let saved = folder.path().join("saved.db");
    let backup = backups(&broker, &credentials, &by_hand, &saved).await;
    restores(&broker, &backup, units, &saved).await;
    row("proof", broker.proved(&credentials, &backup).await, "s");
    row("broker's memory at its highest", broker.memory(), "MiB");
}

/// Backups beside saves by hand; returns the last one.
async fn backups(broker: &Broker, credentials: &Value, by_hand: &ByHand, saved: &Path) -> Value {
    let (mut save, mut with_gzip, mut backup) = (Vec::new(), Vec::new(), Vec::new());
    let (mut cpu, mut taken) = (Vec::new(), Value::Null);
    for _ in 0..ROUNDS {
        save.push(timed(|| by_hand.save(saved)));
        with_gzip.push(timed(|| {
            by_hand.save(saved);
            run(Command::new("gzip").args(["-6", "-f", "-k"]).arg(saved));
        }));
        let (before, begun) = (broker.cpu(), Instant::now());
        taken = broker.back_up(credentials).await;
        backup.push(begun.elapsed().as_secs_f64());
        cpu.push(broker.cpu() - before);
    }
    let snapshot = taken["size_bytes"].as_f64().expect("a size");
    let stored = taken["stored_bytes"].as_f64().expect("a size");
    run(Command::new("zstd").args(["-3", "-f", "-q"]).arg(saved));
    let with_zstd = size(&saved.with_extension("db.zst"));
    let (save, with_gzip, backup) = (middle(save), middle(with_gzip), middle(backup));
    row("snapshot save by hand", save, "s");
    row("save and gzip -6 by hand", with_gzip, "s");
    row("backup", backup, "s");
    row("  of a save", backup / save, "times");
    row("  faster than save and gzip", with_gzip / backup, "times");
    let gigabytes = snapshot / 1e9;
    row(
        "  broker's processor time",
        middle(cpu) / gigabytes,
        "s for each GB",
    );
    row("  stored", stored / 1e6, "MB");
    row(
        "  stored, of what zstd -3 makes of it",
        stored / with_zstd,
        "times",
    );
    taken
}

/// Restores beside those by hand.
async fn restores(broker: &Broker, backup: &Value, units: u32, saved: &Path) {
    let (mut by_hand, mut restore) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        by_hand.push(timed(|| {
            restore_by_hand(saved, &saved.with_file_name("by-hand"))
        }));
        let parameters = json!({
            "source_service_instance_id": "source", "backup_id": backup["id"], "units": units,
        });
        let id = format!("copy-{round}");
        let (seconds, _) = broker.make(&id, parameters).await;
        restore.push(seconds);
        broker.end(&id).await;
    }
    let (by_hand, restore) = (middle(by_hand), middle(restore));
    row("restore by hand, until it serves", by_hand, "s");
    row("restore", restore, "s");
    row("  of by hand", restore / by_hand, "times");
}

fn row(what: &str, figure: f64, unit: &str) {
    println!("{what:<40}{figure:>10.2} {unit}");
}

fn timed(work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    begun.elapsed().as_secs_f64()
}

fn middle(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    f64::midpoint(all[(all.len() - 1) / 2], all[all.len() / 2])
}

fn size(file: &Path) -> f64 {
    let bytes = fs::metadata(file).expect("a file").len();
    f64::from(u32::try_from(bytes).expect("less than 4 GiB"))
}

fn run(command: &mut Command) {
    let done = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    let program = command.get_program();
    assert!(done.expect("a program").success(), "{program:?}");
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn program(name: &str) -> PathBuf {
    root().join("engines/etcd").join(VERSION).join(name)
}

fn text<'v>(of: &'v Value, field: &str) -> &'v str {
    of[field]
        .as_str()
        .unwrap_or_else(|| panic!("no {field}: {of}"))
}

/// Writes keys until their values are that large together.
async fn fill(client: &Client, mib: u32) {
    let mut writers = JoinSet::new();
    let keys = mib as usize * 1024 * 1024 / VALUE_BYTES;
    for writer in 0..WRITERS {
        let mut client = client.clone();
        writers.spawn(async move {
            for key in (writer..keys).step_by(WRITERS) {
                let put = client.put(format!("/bench/{key:08}"), value(key), None);
                put.await.expect("a put");
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.expect("a writer");
    }
}

/// JSON as applications keep it: names that repeat, and values that do not.
fn value(key: usize) -> String {
    let mut seed = u64::try_from(key).expect("a key") + 1;
    let mut members = Vec::new();
    while members.len() * 128 < VALUE_BYTES {
        // Xorshift: the same values in each run.
        for shift in [13_u32, 7, 17] {
            seed ^= match shift {
                7 => seed >> shift,
                _ => seed << shift,
            };
        }
        members.push(json!({
            "id": format!("{seed:016x}"), "name": format!("member {}", members.len()),
            "enabled": seed % 2 == 0, "weight": seed % 1000, "zone": "zone-a", "labels": ["one", "two"],
        }));
    }
    let mut text = json!({ "key": key, "members": members }).to_string();
    text.truncate(VALUE_BYTES);
    text
}

async fn connect(credentials: &Value) -> Client {
    let uri: url::Url = text(credentials, "uri").parse().expect("a URI");
    let ca = BASE64
        .decode(text(credentials, "ca_certificate_base64"))
        .expect("a certificate");
    let options = ConnectOptions::new()
        .with_user(uri.username(), uri.password().expect("a password"))
        .with_tls(TlsOptions::new().ca_certificate(Certificate::from_pem(ca)));
    let address = format!(
        "https://{}:{}",
        uri.host_str().expect("a host"),
        uri.port().expect("a port")
    );
    Client::connect([address], Some(options))
        .await
        .expect("a client")
}

/// Members that end with the value.
struct Members(Vec<Child>);

impl Drop for Members {
    fn drop(&mut self) {
        for member in &mut self.0 {
            let _ = member.kill();
            let _ = member.wait();
        }
    }
}

/// The first client port of a database that is there all the time, and of those that are restored.
const STAYS: usize = 29_479;
const RESTORED: usize = 29_379;

/// Where a member by hand is reached by clients, of a database whose first one has the port; peers use the next.
fn url(member: usize, port: usize) -> String {
    format!("http://127.0.0.1:{}", port + 10 * member)
}

fn cluster(port: usize) -> String {
    let all: Vec<String> = (0..3)
        .map(|m| format!("m{m}={}", url(m, port + 1)))
        .collect();
    all.join(",")
}

/// A database without passwords and TLS, as an administrator starts one. Who saves it needs no more.
struct ByHand {
    _members: Members,
}

impl ByHand {
    async fn start(folder: &Path) -> (Self, Client) {
        let members = start_by_hand(STAYS, folder);
        let client = Client::connect([url(0, STAYS)], None)
            .await
            .expect("a client");
        (Self { _members: members }, client)
    }

    fn save(&self, to: &Path) {
        let mut command = Command::new(program("etcdctl"));
        command.args(["--endpoints", &url(1, STAYS), "snapshot", "save"]);
        run(command.arg(to));
    }
}

/// What an administrator does: the tool for each of three members, then all are started and waited for.
fn restore_by_hand(saved: &Path, folder: &Path) {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).expect("a folder");
    for member in 0..3 {
        let mut tool = Command::new(program("etcdutl"));
        tool.args(["snapshot", "restore"]).arg(saved);
        tool.arg("--data-dir")
            .arg(folder.join(format!("m{member}")));
        tool.args([
            "--name",
            &format!("m{member}"),
            "--initial-cluster",
            &cluster(RESTORED),
        ]);
        run(tool.args(["--initial-advertise-peer-urls", &url(member, RESTORED + 1)]));
    }
    drop(start_by_hand(RESTORED, folder));
}

/// Starts three members, and waits until they serve.
fn start_by_hand(port: usize, folder: &Path) -> Members {
    let start = |member| {
        let (clients, peers) = (url(member, port), url(member, port + 1));
        let name = format!("m{member}");
        let mut etcd = Command::new(program("etcd"));
        etcd.args(["--name", &name, "--initial-cluster", &cluster(port)]);
        etcd.arg("--data-dir").arg(folder.join(&name));
        etcd.args([
            "--listen-client-urls",
            &clients,
            "--advertise-client-urls",
            &clients,
        ]);
        etcd.args([
            "--listen-peer-urls",
            &peers,
            "--initial-advertise-peer-urls",
            &peers,
        ]);
        etcd.args(["--quota-backend-bytes", "8589934592"]);
        let started = etcd.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        started.expect("a member")
    };
    let members = Members((0..3).map(start).collect());
    let endpoints = [0, 1, 2].map(|m| url(m, port)).join(",");
    let serve = || {
        let mut ask = Command::new(program("etcdctl"));
        ask.args(["--endpoints", &endpoints, "endpoint", "health"]);
        let asked = ask.stdout(Stdio::null()).stderr(Stdio::null()).status();
        asked.expect("a program").success()
    };
    while !serve() {
        std::thread::sleep(LOOK);
    }
    members
}

/// A broker of its own folder, which ends with its members.
struct Broker {
    process: Child,
    url: String,
    client: reqwest::Client,
    data: PathBuf,
}

impl Broker {
    fn start(folder: &Path) -> Self {
        let (data, url) = (folder.join("data"), "http://127.0.0.1:29080".to_owned());
        let log = File::create(folder.join("log")).expect("a file");
        let process = Command::new(env!("CARGO_BIN_EXE_compose-broker"))
            .arg("serve")
            .args(["--listen", "127.0.0.1:29080", "--port-range", "29100-29299"])
            .arg("--data-dir")
            .arg(&data)
            .arg("--catalog")
            .arg(root().join("catalog.json"))
            .arg("--engines-dir")
            .arg(root().join("engines"))
            .env("COMPOSE_BROKER_USERNAME", CREDENTIALS.0)
            .env("COMPOSE_BROKER_PASSWORD", CREDENTIALS.1)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("a broker");
        let client = reqwest::Client::new();
        Self {
            process,
            url,
            client,
            data,
        }
    }

    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let mut request = self
            .client
            .request(method, format!("{}{path}", self.url))
            .basic_auth(CREDENTIALS.0, Some(CREDENTIALS.1))
            .header("X-Broker-API-Version", "2.17");
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.expect("an answer");
        let status = answer.status();
        let body: Value = answer.json().await.expect("JSON");
        assert!(status.is_success(), "{path}: {status} {body}");
        body
    }

    async fn serves(&self) {
        let ask = || self.client.get(format!("{}/readyz", self.url)).send();
        while !ask().await.is_ok_and(|answer| answer.status().is_success()) {
            sleep(LOOK).await;
        }
    }

    /// Makes an instance with a binding; returns the seconds until it was there, and the credentials.
    async fn make(&self, id: &str, parameters: Value) -> (f64, Value) {
        let begun = Instant::now();
        let path = format!("/v2/service_instances/{id}");
        let of = json!({
            "service_id": SERVICE, "plan_id": PLAN, "organization_guid": "o", "space_guid": "s",
            "parameters": parameters,
        });
        self.send(
            Method::PUT,
            &format!("{path}?accepts_incomplete=true"),
            Some(of.clone()),
        )
        .await;
        self.ends(&path).await;
        let seconds = begun.elapsed().as_secs_f64();
        let mut of = of;
        of["parameters"] = json!({});
        let bound = self
            .send(
                Method::PUT,
                &format!("{path}/service_bindings/{id}-b"),
                Some(of),
            )
            .await;
        (seconds, bound["credentials"].clone())
    }

    async fn ends(&self, path: &str) {
        loop {
            let last = self
                .send(Method::GET, &format!("{path}/last_operation"), None)
                .await;
            match text(&last, "state") {
                "succeeded" => return,
                "in progress" => sleep(LOOK).await,
                _ => panic!("{path}: {last}"),
            }
        }
    }

    async fn end(&self, id: &str) {
        let body = json!({ "parameters": { "delete_backups": true } });
        let path = format!("/v2/service_instances/{id}");
        let of = json!({ "service_id": SERVICE, "parameters": body["parameters"] });
        self.send(
            Method::PATCH,
            &format!("{path}?accepts_incomplete=true"),
            Some(of),
        )
        .await;
        let query = format!("accepts_incomplete=true&service_id={SERVICE}&plan_id={PLAN}");
        self.send(Method::DELETE, &format!("{path}?{query}"), None)
            .await;
        let gone = format!("{}{path}", self.url);
        loop {
            let request = self
                .client
                .get(&gone)
                .basic_auth(CREDENTIALS.0, Some(CREDENTIALS.1))
                .header("X-Broker-API-Version", "2.17");
            if request.send().await.expect("an answer").status() == 404 {
                return;
            }
            sleep(LOOK).await;
        }
    }

    /// Takes a backup; returns it once it is complete.
    async fn back_up(&self, credentials: &Value) -> Value {
        let deployment = text(credentials, "deployment_id");
        let path = format!("/api/2016-07/instances/source/deployments/{deployment}/backups");
        let recipe = self.send(Method::POST, &path, None).await;
        let id = format!("{path}/{}", text(&recipe, "backup_id"));
        loop {
            let backup = self.send(Method::GET, &id, None).await;
            match text(&backup, "status") {
                "complete" => return backup,
                "failed" => panic!("{backup}"),
                _ => sleep(LOOK).await,
            }
        }
    }

    /// The seconds that the proof of a backup takes, with nothing else to do.
    async fn proved(&self, credentials: &Value, backup: &Value) -> f64 {
        let deployment = text(credentials, "deployment_id");
        let of = format!("/api/2016-07/instances/source/deployments/{deployment}");
        let path = format!("{of}/backups/{}", text(backup, "id"));
        while self.send(Method::GET, &path, None).await["proof"] == "unproved" {
            sleep(LOOK).await;
        }
        let told = self.send(Method::GET, &path, None).await;
        assert_eq!(told["proof"], "proved", "{told}");
        let recipes = self.send(Method::GET, &format!("{of}/recipes"), None).await;
        let recipes = recipes["_embedded"]["recipes"].as_array().expect("recipes");
        let proof = recipes.iter().find(|recipe| {
            recipe["backup_id"] == backup["id"] && recipe["name"] == "Prove a backup"
        });
        let proof = proof.expect("a proof");
        let at = |field: &str| text(proof, field).parse::<chrono::DateTime<chrono::Utc>>();
        let took = at("updated_at").expect("a time") - at("created_at").expect("a time");
        took.as_seconds_f64()
    }

    /// Seconds of processor time by now.
    fn cpu(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id()));
        let stat = stat.expect("a process");
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .expect("fields")
            .split(' ')
            .collect();
        // User and system time, in hundredths on Linux.
        let ticks = |at: usize| fields[at].parse::<f64>().expect("a number");
        (ticks(12) + ticks(13)) / 100.0
    }

    /// The most memory that it has used, in MiB.
    fn memory(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()));
        let status = status.expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        kib.expect("a figure").parse::<f64>().expect("a number") / 1024.0
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        // Its members go on without it.
        let below = self.data.display().to_string();
        for process in procfs::process::all_processes()
            .expect("processes")
            .flatten()
        {
            let of_ours = |line: Vec<String>| line.iter().any(|word| word.contains(&below));
            if process.cmdline().is_ok_and(of_ours)
                && let Some(pid) = rustix::process::Pid::from_raw(process.pid)
            {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}
