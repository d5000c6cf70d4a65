//! How many requests the broker answers for each second of processor time that its process uses.
//!
//! A broker over a SQLite store of as many instances as it says runs on one processor, and `wrk` loads
//! it from another one over 16 connections that are kept. What counts is the processor time of the
//! broker's process, with all that it does beside: so the figure is much the same on a busy machine.
//! Two yardsticks go through the same: a handler of actix that answers 20 bytes, and one that first
//! reads a row by its key, over a connection of its own thread with a statement prepared once.
//!
//! Members are programs that do nothing, one operation at a time: so operations wait and nothing but
//! the broker works. `make bench` runs it. It is no test: what it prints depends on the machine.
//!
//! `BENCH_POSTGRES=postgres://...` names a database of a server where the same stores are made, a database each,
//! which stay; the broker works over those then. What the server takes of a processor is not counted.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use actix_web::{App, HttpResponse, HttpServer, web};
use chrono::TimeDelta;
use compose_broker::{
    model::{
        operation::{OperationKind, OperationState},
        queue::Shares,
    },
    seal::KeyRing,
    store::{
        Store, claim, copy,
        queue::{self, Look},
    },
};
use diesel::{
    Connection as _, PgConnection, QueryDsl as _, RunQueryDsl as _, SqliteConnection,
    connection::SimpleConnection as _,
};

use crate::numbers::{INSTANCE_ID, connect, make_numbers};

mod numbers;

/// Measurements of each sort, of which the middle one counts.
const ROUNDS: usize = 3;
/// How long each takes.
const ROUND: Duration = Duration::from_secs(4);
/// Connections of the load.
const CONNECTIONS: &str = "16";
/// The processor of what is measured, and that of the load.
const PROCESSORS: [&str; 2] = ["0", "1"];
/// Stores: instances, of which the first are usable, and provisions of one tenant that wait.
const STORES: [(u32, u32); 3] = [(1_000, 0), (1_000_000, 0), (1_000, 100_000)];
const USABLE: u32 = 1_000;
/// Names a database of a server of PostgreSQL, as somebody who may make others there.
const POSTGRES: &str = "BENCH_POSTGRES";
/// Claims of each sort.
const CLAIMS: usize = 101;
/// When operations are claimed.
const NOW: &str = "2026-11-22T12:00:00Z";
/// Credentials of the broker under test, and the header that shows them.
const CREDENTIALS: [&str; 2] = ["bench", "bench-password"];
const AUTHORIZATION: &str = "Basic YmVuY2g6YmVuY2gtcGFzc3dvcmQ=";
/// Of the catalog.
const SERVICE: &str = "6f1c9f0e-52a4-4a39-8e0b-3c1f5b7a9d10";
const PLAN: &str = "b8a0d3f4-7c1e-4b5f-9a52-1de2c4f60a11";
/// A member that does nothing, until some time after the measurement.
const MEMBER: &str =
    "#!/bin/sh\n[ \"$1\" = --version ] && exec echo 'etcd Version: 3.6.16'\nexec sleep 60\n";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [of, port, rest @ ..] = &arguments[..]
        && of == "yardstick"
    {
        return yardstick(port.parse().expect("a port"), rest.first().cloned());
    }
    println!("{:<34}{:>16}{:>12}", "", "for each CPU-s", "a second");
    let folder = tempfile::tempdir().expect("a folder");
    for (instances, waiting) in STORES {
        println!("{instances} instances, {waiting} waiting");
        let data = folder.path().join(format!("{instances}-{waiting}"));
        fill(&data, instances, waiting);
        // Each time anew: a machine that is shared is not always as fast.
        let bare = Server::yardstick(None);
        bare.report("20 bytes of a bare handler", GET, "/");
        drop(bare);
        let row = Server::yardstick(Some(&data.join("broker.db")));
        row.report("a bare handler and one row", GET, "/{operation}");
        drop(row);
        let store = store_of(&data, &format!("bench_{instances}_{waiting}"));
        if waiting > 0 {
            claims(&store);
        }
        let broker = Server::broker(&data, &store);
        println!("  {:<32}{:>13} MiB", "memory, idle", broker.memory());
        broker.report("GET catalog", GET, "/v2/catalog");
        let path = "/v2/service_instances/{id}/last_operation?operation={operation}";
        broker.report("GET last_operation", GET, path);
        let path = "/v2/service_instances/{usable}";
        broker.report("GET an instance", GET, path);
        let body = format!(r#"{{"service_id":"{SERVICE}","plan_id":"{PLAN}"}}"#);
        let path = "/v2/service_instances/{usable}/service_bindings/{new}?accepts_incomplete=true";
        broker.report("PUT a binding, accepted", ("PUT", &body), path);
        let body = format!(
            r#"{{"service_id":"{SERVICE}","plan_id":"{PLAN}","organization_guid":"o","space_guid":"s"}}"#
        );
        let path = "/v2/service_instances/{new}?accepts_incomplete=true";
        broker.report("PUT an instance, accepted", ("PUT", &body), path);
        println!("  {:<32}{:>13} MiB", "memory", broker.memory());
    }
}

/// The address of the store in a folder; where a server is named, that of a copy in a new database there.
fn store_of(data: &Path, name: &str) -> String {
    let file = format!("sqlite://{}", data.join("broker.db").display());
    let Ok(server) = std::env::var(POSTGRES) else {
        return file;
    };
    let mut admin = PgConnection::establish(&server).expect("a server");
    for statement in ["DROP DATABASE IF EXISTS", "CREATE DATABASE"] {
        let made = admin.batch_execute(&format!("{statement} {name}"));
        made.expect("a database");
    }
    let mut own = connect(&data.join("broker.db"));
    own.batch_execute("DROP TABLE bench").expect("a change");
    let mut there = url::Url::parse(&server).expect("an address");
    there.set_path(name);
    copy::copy(&file, there.as_str()).expect("a copy");
    there.into()
}

/// Measures how long it takes to find and claim what is done next.
fn claims(url: &str) {
    let store = Arc::new(Store::open(url).expect("a store"));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let claim = || {
        let claimed = store.write(|conn| {
            let now = NOW.parse().expect("a time");
            let look = Look {
                owner: "bench",
                now,
                lease_until: now + TimeDelta::minutes(1),
                clusters: None,
                kinds: &OperationKind::ALL,
                places: 1,
                asked: 1,
                shares: &Shares {
                    tenant: usize::MAX - 1,
                    instance: usize::MAX,
                    clusters: BTreeMap::new(),
                },
                busy_with: &[],
            };
            let begun = Instant::now();
            let claimed = queue::claim(conn, &look)?;
            let time = begun.elapsed();
            for (_, claim) in &claimed {
                claim::finish(conn, claim, OperationState::Failed, now)?;
            }
            assert_eq!(claimed.len(), 1);
            Ok(time)
        });
        runtime.block_on(claimed).expect("a claim")
    };
    let mut times: Vec<Duration> = (0..CLAIMS).map(|_| claim()).collect();
    times.sort();
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let (median, worst) = (ms(times[CLAIMS / 2]), ms(times[CLAIMS - 1]));
    println!(
        "  {:<32}{median:>13.2} ms, at worst {worst:.2} ms",
        "a claim"
    );
}

/// A method and a body.
type Request<'a> = (&'a str, &'a str);
const GET: Request<'_> = ("GET", "");

/// Something that serves HTTP on its processor.
struct Server {
    process: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    fn yardstick(database: Option<&Path>) -> Self {
        let port = free_port();
        let own = std::env::current_exe().expect("this program");
        let mut command = pinned(PROCESSORS[0], &own);
        command
            .args(["yardstick", &port.to_string()])
            .args(database);
        Self::start(command, port)
    }

    fn broker(data: &Path, store: &str) -> Self {
        let port = free_port();
        let engine = data.join("engines/etcd/v3.6.16");
        fs::create_dir_all(&engine).expect("a folder");
        for name in ["etcd", "etcdctl", "etcdutl"] {
            let program = engine.join(name);
            fs::write(&program, MEMBER).expect("a program");
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a program");
        }
        let clusters = data.join("clusters.json");
        let one = r#"[{"id": "local", "name": "Local", "capacity_units": 4294967295, "operations_at_once": 1}]"#;
        fs::write(&clusters, one).expect("a file");
        let mut command = pinned(PROCESSORS[0], env!("CARGO_BIN_EXE_compose-broker").as_ref());
        for (name, value) in [
            ("LISTEN", format!("127.0.0.1:{port}").as_str()),
            ("USERNAME", CREDENTIALS[0]),
            ("PASSWORD", CREDENTIALS[1]),
            ("REQUESTS_PER_SECOND", "0"),
            ("LOG", "error"),
            ("DATABASE_URL", store),
            (
                "ENCRYPTION_KEYS",
                KeyRing::generate().expect("keys").expose(),
            ),
        ] {
            command.env(format!("COMPOSE_BROKER_{name}"), value);
        }
        command
            .env("COMPOSE_BROKER_DATA_DIR", data)
            .env("COMPOSE_BROKER_ENGINES_DIR", data.join("engines"))
            .env("COMPOSE_BROKER_CLUSTERS", clusters)
            .arg("serve");
        Self::start(command, port)
    }

    fn start(mut command: Command, port: u16) -> Self {
        command.stdout(Stdio::null());
        let server = Self {
            process: command.spawn().expect("a server"),
            port,
        };
        let deadline = Instant::now() + Duration::from_secs(120);
        // A broker listens some time before it serves.
        while !answers(port) {
            assert!(Instant::now() < deadline, "nobody answers on {port}");
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }

    /// Measures requests of a kind, and prints what is found.
    fn report(&self, what: &str, request: Request<'_>, path: &str) {
        let mut rounds: Vec<(f64, f64, u64)> =
            (0..ROUNDS).map(|_| self.round(request, path)).collect();
        rounds.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (of_processor, of_clock, _) = rounds[ROUNDS / 2];
        let refused: u64 = rounds.iter().map(|(.., refused)| refused).sum();
        let refused = match refused {
            0 => String::new(),
            refused => format!("  {refused} refused!"),
        };
        println!("  {what:<32}{of_processor:>16.0}{of_clock:>12.0}{refused}");
    }

    /// Requests for each second of the server's processor time and for each of the clock, and how many
    /// were refused.
    fn round(&self, (method, body): Request<'_>, path: &str) -> (f64, f64, u64) {
        let folder = tempfile::tempdir().expect("a folder");
        let script = folder.path().join("load.lua");
        fs::write(&script, load(method, path, body)).expect("a script");
        let mut wrk = pinned(PROCESSORS[1], "wrk".as_ref());
        wrk.args(["-t1", "-c", CONNECTIONS, "-d"])
            .arg(format!("{}s", ROUND.as_secs()))
            .arg("-s")
            .arg(script)
            .arg(format!("http://127.0.0.1:{}/", self.port));
        let (begun, used) = (Instant::now(), self.processor_time());
        let output = wrk
            .output()
            .expect("wrk, which scripts/setup.sh --bench installs");
        let (time, used) = (begun.elapsed(), self.processor_time() - used);
        let told = String::from_utf8_lossy(&output.stdout);
        let told = told.lines().find_map(|line| line.strip_prefix("counted "));
        let mut counts = told.expect("counts").split(' ').map(|n| n.parse::<u64>());
        let mut next = || counts.next().expect("a count").expect("a number");
        let (all, refused) = (next(), next());
        #[allow(clippy::cast_precision_loss)]
        let good = (all - refused) as f64;
        (good / used, good / time.as_secs_f64(), refused)
    }

    /// The processor time that the process has used, in seconds.
    fn processor_time(&self) -> f64 {
        let stat = procfs::process::Process::new(self.process.id().cast_signed())
            .and_then(|process| process.stat())
            .expect("figures of the process");
        let ticks = u32::try_from(stat.utime + stat.stime).expect("a short life");
        let per_second = u32::try_from(procfs::ticks_per_second()).expect("a small number");
        f64::from(ticks) / f64::from(per_second)
    }

    /// The memory that the process has, in MiB.
    fn memory(&self) -> u64 {
        let status = procfs::process::Process::new(self.process.id().cast_signed())
            .and_then(|process| process.status())
            .expect("figures of the process");
        status.vmrss.unwrap_or_default() / 1024
    }
}

/// A command on one processor alone.
fn pinned(processor: &str, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", processor]).arg(program);
    command
}

fn answers(port: u16) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n")?;
        stream.read_exact(&mut [0])
    };
    ask().is_ok()
}

fn free_port() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a socket");
    socket.local_addr().expect("an address").port()
}

/// What `wrk` does: requests whose path names one instance after the other, or new ones.
fn load(method: &str, path: &str, body: &str) -> String {
    format!(
        r#"
        math.randomseed(os.time())
        local headers = {{
            ["Authorization"] = "{AUTHORIZATION}",
            ["X-Broker-API-Version"] = "2.17",
        }}
        local parts = {{
            id = function(i) return string.format("%08x-dcac-4618-89a7-f79e3f1cea6a", (i * 2654435761) % 4294967296) end,
            operation = function(i) return string.format("6b02d81f%016x", i) end,
        }}
        local run, count = string.format("%08x", math.random(0, 2147483647)), 0
        request = function()
            local i = math.random(1, {instances})
            local path = string.gsub("{path}", "{{(%w+)}}", function(name)
                if name == "usable" then return parts.id(math.random(1, {USABLE})) end
                if name == "new" then
                    count = count + 1
                    return string.format("%08x-%s-new", (count * 2654435761) % 4294967296, run)
                end
                return parts[name](i)
            end)
            return wrk.format("{method}", path, headers, '{body}')
        end
        done = function(summary)
            print("counted " .. summary.requests .. " " .. summary.errors.status)
        end
        "#,
        instances = USABLE,
    )
}

/// Fills a store: most instances failed long ago, so that nothing but their number weighs; each has an
/// operation that ended. The provisions that wait came after them.
fn fill(data: &Path, instances: u32, waiting: u32) {
    fs::create_dir_all(data).expect("a folder");
    let path = data.join("broker.db");
    drop(Store::open(&format!("sqlite://{}", path.display())).expect("a new store"));
    let id = INSTANCE_ID;
    let request = format!(
        r#"{{"service_id":"{SERVICE}","plan_id":"{PLAN}","organization":"o","space":"s","parameters":{{}}}}"#
    );
    let all = instances + waiting;
    let then = "'2026-11-21 12:00:00.5'";
    let mut connection = connect(&path);
    make_numbers(&mut connection, all);
    connection
        .batch_execute(&format!(
            "BEGIN;
             INSERT INTO instances (id, service_id, plan_id, platform, organization, space, account,
                 deployment_id, context, parameters, request, state, created_at, ordinal)
                 SELECT {id}, '{SERVICE}', '{PLAN}', 'cloudfoundry', 'org',
                 CASE WHEN i <= {instances} THEN 'space-' || i % 10000 ELSE 'space' END,
                 '{{}}', printf('6b02d81d%016x', i), '{{}}', '{{}}', '{request}',
                 CASE WHEN i <= {USABLE} THEN 'ready' WHEN i <= {instances} THEN 'failed'
                 ELSE 'provisioning' END, {then}, i FROM bench;
             INSERT INTO deployments (id, instance_id, cluster_id, engine, version, units, members,
                 name) SELECT printf('6b02d81d%016x', i), {id}, 'local', 'etcd', '3.6.16', 1, '[]',
                 'd' || i FROM bench;
             INSERT INTO operations (id, kind, instance_id, waits_for, state, halted, step, steps_done,
                 steps_total, bytes_done, bytes_total, origin, not_before, epoch, created_at,
                 updated_at, ordinal) SELECT printf('6b02d81f%016x', i), 'provision', {id}, 'nothing',
                 CASE WHEN i <= {instances} THEN 'succeeded' ELSE 'queued' END, 0, 'Starting the members', 3, 3, 0, 0, 'osb', {then}, 1, {then}, {then}, i
                 FROM bench;
             COMMIT;"
        ))
        .expect("instances");
}

diesel::table! {
    operations (id) {
        id -> Text,
        state -> Text,
    }
}

thread_local! {
    static OWN: RefCell<Option<SqliteConnection>> = const { RefCell::new(None) };
}

/// Serves as plainly as can be.
fn yardstick(port: u16, database: Option<String>) {
    const ANSWER: &str = r#"{"state":"succeeded"}"#;
    let row = |id: web::Path<String>, database: web::Data<PathBuf>| async move {
        let state: String = OWN
            .with_borrow_mut(|own| {
                let connection = own.get_or_insert_with(|| connect(&database));
                let row = operations::table.find(id.as_str());
                row.select(operations::state).first(connection)
            })
            .expect("a row");
        assert_eq!(state, "succeeded");
        HttpResponse::Ok().body(ANSWER)
    };
    let database = web::Data::new(PathBuf::from(database.unwrap_or_default()));
    let server = HttpServer::new(move || {
        App::new()
            .app_data(database.clone())
            .route(
                "/",
                web::get().to(|| async { HttpResponse::Ok().body(ANSWER) }),
            )
            .route("/healthz", web::get().to(HttpResponse::Ok))
            .route("/{id}", web::get().to(row))
    });
    let serving = server
        .workers(1)
        .bind(("127.0.0.1", port))
        .expect("a port")
        .run();
    actix_web::rt::System::new()
        .block_on(serving)
        .expect("served");
}
