//! Members that applications on another machine use: who gets in, what they hold up, and what changes of
//! the configuration do.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, BufRead as _, BufReader, Lines, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{ChildStdout, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use procfs::net::TcpState;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{
    broker::{TestBroker, engines_dir, eventually, text},
    inside::Inside,
    netns::{self, Machines, NAME, V4, V6, part, part_there, succeeds_there, there},
    readdress::{AT_FIRST, moved},
    repair::{alerts, lose, patch, repaired},
    restores,
    stranger::{Running, Stranger, tries},
    updates::GAP_MAX,
};

/// The test whose parts are played in processes of their own.
const PLAYED: &str = "reach::a_part_of_another_test";
/// Ports of the broker's members, for two databases and a few more: nobody else is on its machine.
const PORTS: std::ops::RangeInclusive<u16> = 20_000..=20_020;
/// Open files that the system grants the broker, and so each member: a flood takes all of them.
const OPEN_FILES: u32 = 1024;
/// Connections that a member grants on one port: etcd keeps 150 files for itself.
const CONNECTIONS: usize = 1024 - 150;
/// Connections to a port that somebody has who wants all of them: those that are granted, and as many in the line
/// behind them, which take the places of the first when etcd gives these up.
const FLOOD: usize = 2 * CONNECTIONS;
/// How long a flood of one port may take to begin.
const FLOOD_PATIENCE: Duration = Duration::from_secs(60);
/// Its pause between two looks at what was closed.
const FLOOD_PAUSE: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread")]
async fn an_application_on_another_machine_uses_its_database_and_strangers_do_not() {
    if let Some(machines) = Machines::new().await {
        machines.play(PLAYED, "broker");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_who_reaches_members_is_brought_to_all_of_them() {
    if let Some(machines) = Machines::new().await {
        machines.play(PLAYED, "change");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_connections_holds_up_no_call_of_the_broker() {
    if let Some(machines) = Machines::new().await {
        machines.play(PLAYED, "floods");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a part of the tests above, which begin it on another machine"]
async fn a_part_of_another_test() {
    match part().as_deref() {
        Some("broker") => a_database_is_used_from_another_machine().await,
        Some("change") => members_are_reached_elsewhere_after_a_change().await,
        Some("floods") => floods_hold_up_no_call_of_the_broker().await,
        Some("flood") => flood(),
        Some("stranger") => tries().await,
        _ => println!("nothing is played"),
    }
}

fn ports() -> String {
    format!("{}-{}", PORTS.start(), PORTS.end())
}

/// A broker whose members applications reach by a name, at all addresses of its machine.
async fn exposed(further: &[&str]) -> TestBroker {
    let ports = ports();
    let flags = [
        "--port-range",
        &ports,
        "--member-listen",
        "0.0.0.0",
        "--member-host",
        NAME,
    ];
    let flags = [&flags, further].concat();
    TestBroker::spawn_within(OPEN_FILES, OPEN_FILES, &flags).await
}

/// An application with what a platform gives it.
struct Application {
    folder: tempfile::TempDir,
    endpoints: String,
    login: String,
}

impl Application {
    fn new(credentials: &Value) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = BASE64.decode(text(&credentials["ca_certificate_base64"]));
        fs::write(folder.path().join("ca.pem"), authority.expect("base64")).expect("a file");
        let uris = ["uri", "uri_direct_1", "uri_direct_2"];
        let uris = uris.map(|field| url::Url::parse(text(&credentials[field])).expect("a URI"));
        let endpoint = |uri: &url::Url| {
            let (host, port) = (uri.host_str(), uri.port());
            format!(
                "https://{}:{}",
                host.expect("a host"),
                port.expect("a port")
            )
        };
        let (name, password) = (uris[0].username(), uris[0].password());
        Self {
            folder,
            endpoints: uris.each_ref().map(endpoint).join(","),
            login: format!("{name}:{}", password.expect("a password")),
        }
    }

    fn ports(&self) -> Vec<u16> {
        let ports = self.endpoints.split(',').map(|of| of.rsplit(':').next());
        ports
            .map(|port| port.and_then(|port| port.parse().ok()).expect("a port"))
            .collect()
    }

    /// etcdctl without a login.
    fn anonymous(&self, words: &[&str]) -> Command {
        let mut command = there(etcdctl());
        command
            .arg(format!(
                "--cacert={}",
                self.folder.path().join("ca.pem").display()
            ))
            .arg(format!("--endpoints={}", self.endpoints))
            .args(["--dial-timeout=3s", "--command-timeout=3s"])
            .args(words);
        command
    }

    fn command(&self, login: &str, words: &[&str]) -> Command {
        let mut command = self.anonymous(&[]);
        command.arg(format!("--user={login}")).args(words);
        command
    }

    fn own(&self, words: &[&str]) -> Command {
        self.command(&self.login, words)
    }

    /// Puts and reads a key; fails when it cannot.
    async fn uses_its_database(&self) {
        let put = succeeds_there("a put", || self.own(&["put", "k", "v"])).await;
        assert_eq!(put.trim(), "OK");
        let read = succeeds_there("a get", || self.own(&["get", "k"])).await;
        assert_eq!(read.trim(), "k\nv");
    }

    /// A client without a login, with a wrong one, or without the authority is refused.
    fn assert_keeps_others_out(&self) {
        let user = self.login.split(':').next().expect("a name");
        for login in [
            format!("{user}:wrong"),
            format!("{user}:"),
            "root:".to_owned(),
        ] {
            assert_refused(&mut self.command(&login, &["put", "k", "stranger"]));
        }
        for words in [
            &["put", "k", "stranger"][..],
            &["get", "", "--prefix"],
            &["auth", "disable"],
            &["user", "list"],
            &["snapshot", "save", "/dev/null"],
        ] {
            assert_refused(&mut self.anonymous(words));
        }
        let mut trusts_nobody = there(etcdctl());
        let first = self.endpoints.split(',').next().expect("a member");
        trusts_nobody.args([&format!("--endpoints={first}"), "--command-timeout=3s"]);
        assert_refused(trusts_nobody.args(["get", "k"]));
        for port in self.ports() {
            assert_is_told_over_tls_alone(port);
        }
    }
}

/// A member says what it is to everybody who asks by TLS, and to nobody who asks without.
fn assert_is_told_over_tls_alone(port: u16) {
    let asked = |scheme: &str, path: &str| {
        let mut command = there("curl");
        command.args(["--silent", "--insecure", "--max-time", "5"]);
        command.args(["--output", "/dev/null", "--write-out", "%{http_code}"]);
        let output = command
            .arg(format!("{scheme}://{V4}:{port}/{path}"))
            .output();
        String::from_utf8(output.expect("a process").stdout).expect("a code")
    };
    assert_eq!(asked("https", "version"), "200", "{port}");
    for path in ["version", "health", "v3/kv/put", ""] {
        let told = asked("http", path);
        // It closes the connection, or says that it wants TLS.
        assert!(
            ["000", "400"].contains(&told.as_str()),
            "{port}/{path}: {told}"
        );
    }
}

fn etcdctl() -> PathBuf {
    engines_dir()
        .canonicalize()
        .expect("a folder")
        .join("etcd/3.6.16/etcdctl")
}

fn assert_refused(command: &mut Command) {
    let output = command.output().expect("a process");
    assert!(!output.status.success(), "{command:?}: {output:?}");
}

/// The ports of the broker's machine that somebody listens at for more than programs on it. The kernel tells
/// all of them; this process is on that machine.
fn listening() -> Vec<u16> {
    let tables = [procfs::net::tcp(), procfs::net::tcp6()];
    let sockets = tables.into_iter().flat_map(|table| table.expect("a table"));
    let ports: BTreeSet<u16> = sockets
        .filter(|socket| socket.state == TcpState::Listen)
        .map(|socket| socket.local_address)
        .filter(|address| !address.ip().to_canonical().is_loopback())
        .map(|address| address.port())
        .collect();
    ports.into_iter().collect()
}

/// Those of its members' ports that somebody answers at, seen from the application's machine.
fn answering(host: &str) -> Vec<u16> {
    let connects = |port: &u16| {
        let mut command = there("curl");
        command.args([
            "--silent",
            "--insecure",
            "--max-time",
            "5",
            "--output",
            "/dev/null",
        ]);
        let status = command
            .arg(format!("https://{host}:{port}/health"))
            .status();
        // 7: nobody is there.
        status.expect("a process").code() != Some(7)
    };
    PORTS.filter(connects).collect()
}

/// An application that writes all the time; what it wrote when stands in a file.
struct Writer {
    process: Running,
    written: PathBuf,
}

impl Writer {
    fn begin(application: &Application, folder: &Path) -> Self {
        let written = folder.join("written");
        let put = application.own(&["put", "written"]);
        let words: Vec<String> = [put.get_program()]
            .into_iter()
            .chain(put.get_args())
            .map(|word| format!("'{}'", word.to_str().expect("a text")))
            .collect();
        let script = format!(
            "i=0; while :; do i=$((i + 1)); if {} $i >/dev/null 2>&1; then date +%s.%N >>{}; fi; done",
            words.join(" "),
            written.display()
        );
        Self {
            process: Running::begin(Command::new("sh").args(["-c", &script])),
            written,
        }
    }

    /// The longest time in which nothing was written.
    fn end(self) -> Duration {
        drop(self.process);
        let written = fs::read_to_string(&self.written).expect("a file");
        let times: Vec<f64> = written
            .lines()
            .filter_map(|line| line.parse().ok())
            .collect();
        assert!(times.len() > 20, "{written}");
        let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
        Duration::from_secs_f64(gaps.fold(0.0, f64::max))
    }
}

/// Somebody who takes every connection that members grant on some ports, as long as this is there.
struct Flood {
    _process: Running,
    /// A program ends when nobody reads what it prints.
    _printed: Lines<BufReader<ChildStdout>>,
}

impl Flood {
    fn begin(ports: &[u16]) -> Self {
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        let mut process = Running::begin(
            part_there(PLAYED, "flood")
                .env("FLOODED", ports.join(" "))
                .stdin(Stdio::null())
                .stdout(Stdio::piped()),
        );
        let mut printed = BufReader::new(process.0.stdout.take().expect("its output")).lines();
        let begun = |line: &String| line.starts_with("flooded ");
        let begun = printed.by_ref().map_while(Result::ok).find(begun);
        println!("{}", begun.expect("a flood"));
        Self {
            _process: process,
            _printed: printed,
        }
    }
}

/// Has all connections that members grant on some ports, until it is ended.
fn flood() {
    netns::raise_open_files();
    let ports = std::env::var("FLOODED").expect("ports");
    let (told, all) = mpsc::channel();
    for port in ports.split(' ') {
        let address = format!("{V4}:{port}").parse().expect("an address");
        let told = told.clone();
        thread::spawn(move || {
            let begun = || told.send(Ok(FLOOD)).expect("who waits for it");
            let why = flood_port(&address, begun);
            let _ = told.send(Err(why));
        });
    }
    let next = || -> usize { all.recv().expect("a port").expect("a flood") };
    let held: usize = ports.split(' ').map(|_| next()).sum();
    println!("flooded {held}");
    // It ends with the first of them that fails.
    next();
}

/// Has that many connections to a port, and says once that it has them. etcd gives up a handshake after 10
/// seconds: what it closes is opened anew, at the end of the line. Returns why there is no flood.
fn flood_port(address: &SocketAddr, begun: impl FnOnce()) -> String {
    let given_up = Instant::now() + FLOOD_PATIENCE;
    let mut begun = Some(begun);
    let mut held = Vec::new();
    loop {
        held.retain(is_open);
        while held.len() < FLOOD {
            match half_a_handshake(address) {
                Ok(connection) => held.push(connection),
                Err(error) if begun.is_some() && Instant::now() >= given_up => {
                    return format!("{} connections to {address}: {error}", held.len());
                }
                // A busy machine may take longer for one of them: that says nothing of the next.
                Err(_) => thread::sleep(FLOOD_PAUSE),
            }
        }
        if let Some(begun) = begun.take() {
            begun();
        }
        thread::sleep(FLOOD_PAUSE);
    }
}

/// A connection with the beginning of a handshake that never ends.
fn half_a_handshake(address: &SocketAddr) -> io::Result<TcpStream> {
    let mut connection = TcpStream::connect_timeout(address, Duration::from_secs(2))?;
    connection.write_all(&[0x16, 3, 1, 2, 0, 1])?;
    connection.set_nonblocking(true)?;
    Ok(connection)
}

/// Whether the other side has neither closed it nor said anything.
fn is_open(connection: &TcpStream) -> bool {
    let heard = connection.peek(&mut [0]);
    heard.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

async fn a_database_is_used_from_another_machine() {
    let broker = exposed(&[]).await;
    let folder = tempfile::tempdir().expect("a folder");
    assert_eq!(listening(), Vec::<u16>::new());

    let stranger = Stranger::begin(part_there(PLAYED, "stranger"), folder.path(), V4, PORTS);
    broker
        .provision("i", json!({ "db_version": "3.6.16" }))
        .await;
    let credentials = broker.bind("i", "b").await;
    let application = Application::new(&credentials);
    assert!(application.endpoints.contains(&format!("https://{NAME}:")));
    application.uses_its_database().await;

    // One port of each member is reached, and nothing else of it.
    let mut ports = application.ports();
    ports.sort_unstable();
    stranger.is_told_no_at(&ports).await;
    assert_eq!(answering(V4), ports);
    assert_eq!(listening(), ports);
    application.assert_keeps_others_out();
    refuses_what_lets_strangers_in(&broker).await;

    let writer = Writer::begin(&application, folder.path());
    let updated = patch(&broker, json!({ "db_version": "3.7.3" })).await;
    assert_eq!(updated.status, StatusCode::ACCEPTED, "{updated:?}");
    let end = broker.instance_end("i", &updated.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    let gap = writer.end();
    println!("the longest gap of an update: {gap:?}");
    assert!(gap < GAP_MAX, "{gap:?}");
    application.uses_its_database().await;
    application.assert_keeps_others_out();
    stranger.is_told_no_at(&ports).await;

    lose(&broker, "m1").await;
    repaired(&broker, 1).await;
    application.uses_its_database().await;
    stranger.is_told_no_at(&ports).await;
    assert_eq!(listening(), ports);

    let both = restores_while_strangers_try(&broker, &credentials, &stranger).await;
    assert_eq!(listening(), both);
    stranger.end();

    broker.deprovision("restored").await;
    broker.deprovision("i").await;
    assert_eq!(answering(V4), Vec::<u16>::new());
    assert_eq!(listening(), Vec::<u16>::new());
}

/// Restores a backup of `i` into a database of its own; returns the ports of both.
async fn restores_while_strangers_try(
    broker: &TestBroker,
    credentials: &Value,
    stranger: &Stranger,
) -> Vec<u16> {
    let backup = broker.back_up(credentials).await;
    assert_eq!(backup["status"], "complete", "{backup}");
    let from = restores::from("i", &backup);
    broker.provision("restored", from).await;
    let restored = Application::new(&broker.bind("restored", "b").await);
    let read = succeeds_there("a get", || restored.own(&["get", "k"])).await;
    assert_eq!(read.trim(), "k\nv");
    restored.assert_keeps_others_out();
    stranger.is_told_no_at(&restored.ports()).await;
    let mut ports = [Application::new(credentials).ports(), restored.ports()].concat();
    ports.sort_unstable();
    ports
}

/// Takes every connection of an instance of a version while the broker goes on with its work there.
async fn floods_an_instance(broker: &TestBroker, version: &str) {
    broker
        .provision("i", json!({ "db_version": version }))
        .await;
    let application = Application::new(&broker.bind("i", "b").await);
    application.uses_its_database().await;
    let flood = Flood::begin(&application.ports());
    assert_refused(&mut application.own(&["put", "k", "v"]));
    let begun = Instant::now();
    let other = broker.bind("i", "during-the-flood").await;
    let took = begun.elapsed();
    println!("{version}: a bind during a flood: {took:?}");
    let backup = broker.back_up(&other).await;
    assert_eq!(backup["status"], "complete", "{backup}");
    let told = alerts(broker, &other).await.to_string();
    assert!(!told.contains("does not answer"), "{told}");
    assert_refused(&mut application.own(&["put", "k", "v"]));
    drop(flood);
    Application::new(&other).uses_its_database().await;
    application.uses_its_database().await;
    broker.deprovision("i").await;
}

/// The operator names those versions that let strangers in, to see the same of them.
async fn floods_hold_up_no_call_of_the_broker() {
    let named = "etcd 3.3.25, etcd 3.4.23, etcd 3.5.35";
    let broker = exposed(&["--member-exposed-versions", named]).await;
    for version in ["3.3.25", "3.4.23", "3.5.35", "3.6.16", "3.7.3"] {
        floods_an_instance(&broker, version).await;
    }
}

async fn refuses_what_lets_strangers_in(broker: &TestBroker) {
    let refused = broker
        .put_instance("old", json!({ "db_version": "3.5.35" }))
        .await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{refused:?}");
    let reason = text(&refused.body["description"]);
    assert!(reason.contains("one of: 3.7.3, 3.6.16"), "{reason}");
}

async fn members_are_reached_elsewhere_after_a_change() {
    let ports = ports();
    let at_first = ["--listen", "127.0.0.1:8080", "--port-range", &ports];
    let flags = [&at_first[..], &AT_FIRST].concat();
    let mut broker = TestBroker::spawn(&flags).await;
    broker.provision("i", json!({})).await;
    broker
        .provision("old", json!({ "db_version": "3.5.35" }))
        .await;
    let near = broker.bind("i", "near").await;
    assert_eq!(answering(V4), Vec::<u16>::new());
    assert_eq!(answering(&format!("[{V6}]")), Vec::<u16>::new());

    let mut change = async |listen: &str, host: &str, times: usize| {
        broker.end_process();
        broker.change_flag("--member-listen", listen);
        broker.change_flag("--member-host", host);
        broker.spawn_again().await;
        moved(&broker, "i", times).await;
        broker.bind("i", &format!("b{times}")).await
    };
    // All addresses, of both versions: what was bound before is served still.
    let named = Application::new(&change("0.0.0.0", NAME, 1).await);
    named.uses_its_database().await;
    named.assert_keeps_others_out();
    let mut ports = named.ports();
    ports.sort_unstable();
    assert_eq!(answering(V4), ports, "and none of the old version's");
    assert_eq!(answering(&format!("[{V6}]")), ports);
    crate::etcd::fill(&mut crate::etcd::connect(&near).await, 1, "v").await;

    // One address, of version 6.
    let sixth = Application::new(&change(V6, V6, 2).await);
    assert!(sixth.endpoints.contains(&format!("https://[{V6}]:")));
    sixth.uses_its_database().await;
    assert_eq!(answering(V4), Vec::<u16>::new());
    assert_eq!(answering(&format!("[{V6}]")), ports);
    assert!(crate::etcd::connect_to(&near, "uri").await.is_err());

    // Nobody.
    change("127.0.0.1", "127.0.0.1", 3).await;
    assert_eq!(answering(V4), Vec::<u16>::new());
    assert_eq!(answering(&format!("[{V6}]")), Vec::<u16>::new());
    eventually("a client of before", || async {
        let mut client = crate::etcd::connect_to(&near, "uri").await.ok()?;
        crate::etcd::read(&mut client).await.ok()
    })
    .await;
    let inside = Inside::of(&broker);
    inside.idle("old").await;
    assert!(
        inside
            .outcomes("old")
            .await
            .iter()
            .all(|(kind, _)| *kind != "readdress")
    );
}
