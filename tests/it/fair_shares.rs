//! One tenant takes all it can get, and another does not notice: places for work, downloads,
//! credentials that are shown and refused.

use std::{
    fmt::Write as _,
    net::Ipv6Addr,
    time::{Duration, Instant},
};

use chrono::TimeDelta;
use compose_broker::{
    app::Surroundings,
    model::{
        ids::InstanceId,
        limits::{
            ON_DEMAND_IN_A_ROW, SIGN_IN_FAILURES_OF_ALL, SIGN_IN_FAILURES_OF_CLIENT,
            SIGN_IN_FAILURES_OF_PROGRAMS,
        },
        operation::{Operation, OperationKind, OperationState},
        origin::Origin,
        patience::Patience,
        schedule::{minute_of_day, slot_after},
    },
    operation::fault::Fault,
};
use futures::future::join_all;
use reqwest::{Method, RequestBuilder, StatusCode};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

use crate::{
    broker::{
        SERVICE, STANDARD, TestBroker, answer, binding_path, eventually, processes_below, text,
    },
    control::{Script, TestClock},
    etcd,
    inside::Inside,
    transport::description,
};

/// Has the broker take the client's word about its address.
const PROXY: [&str; 2] = ["--trusted-proxies", "127.0.0.1"];
const LOUD: &str = "203.0.113.9";
const QUIET: &str = "198.51.100.1";
/// Wrong credentials that programs at one address may show in a row.
const OF_PROGRAM: u32 = SIGN_IN_FAILURES_OF_CLIENT * SIGN_IN_FAILURES_OF_PROGRAMS;

fn from(address: &str, request: RequestBuilder) -> RequestBuilder {
    request.header("X-Forwarded-For", address)
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_slowed_at_all_doors_together() {
    let clock = TestClock::default();
    clock.stop();
    let broker = TestBroker::in_memory_with(&PROXY, clock.surroundings()).await;
    let wrong = |address: &str, path: &str| {
        let request = broker
            .anonymous(Method::GET, path)
            .basic_auth("platform", Some("guess"))
            .header("X-Broker-API-Version", "2.17");
        from(address, request)
    };
    let mut refused = 0;
    for _ in 0..300 {
        let answer = answer(wrong(LOUD, "/v2/catalog")).await;
        if answer.status == StatusCode::UNAUTHORIZED {
            refused += 1;
            continue;
        }
        let reason = description(&answer, StatusCode::TOO_MANY_REQUESTS);
        assert!(reason.contains("Too many sign-ins failed"), "{reason}");
        let wait: u64 = answer.headers["retry-after"]
            .to_str()
            .expect("a text")
            .parse()
            .expect("seconds");
        assert!((1..=30).contains(&wait), "{wait}");
    }
    assert_eq!(refused, OF_PROGRAM);
    // No door is another one's way around.
    for path in ["/operator/audit", "/v2/catalog"] {
        let held = answer(wrong(LOUD, path)).await;
        assert_eq!(held.status, StatusCode::TOO_MANY_REQUESTS, "{path}");
    }
    let right = || broker.osb(Method::GET, "/v2/catalog");
    let held = answer(from(LOUD, right())).await;
    assert_eq!(held.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer(from(QUIET, right())).await.status, StatusCode::OK);
    // Who shows nothing guesses nothing.
    let nothing = answer(from(LOUD, broker.anonymous(Method::GET, "/v2/catalog"))).await;
    assert_eq!(nothing.status, StatusCode::UNAUTHORIZED);

    // Many in one network are one, and all that have failed wait for each other, but nobody else.
    let network: u128 = "2001:db8::".parse::<Ipv6Addr>().expect("one").to_bits();
    let mut counted = 0;
    for host in 0..OF_PROGRAM + 10 {
        let address = Ipv6Addr::from_bits(network | u128::from(host + 1)).to_string();
        let answer = answer(wrong(&address, "/v2/catalog")).await;
        counted += u32::from(answer.status == StatusCode::UNAUTHORIZED);
    }
    assert_eq!(counted, OF_PROGRAM);
    for place in 2..SIGN_IN_FAILURES_OF_ALL / SIGN_IN_FAILURES_OF_CLIENT {
        let address = format!("192.0.2.{place}");
        for _ in 0..OF_PROGRAM {
            let answer = answer(wrong(&address, "/v2/catalog")).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{address}");
        }
    }
    let first = answer(wrong("192.0.2.200", "/v2/catalog")).await;
    assert_eq!(first.status, StatusCode::UNAUTHORIZED);
    let held = answer(wrong("192.0.2.200", "/v2/catalog")).await;
    assert_eq!(held.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer(from(QUIET, right())).await.status, StatusCode::OK);
    clock.forward(Duration::from_secs(600));
    assert_eq!(answer(from(LOUD, right())).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_forgiven_by_the_time_that_passes_whatever_the_clock_shows() {
    let clock = TestClock::default();
    clock.stop();
    let broker = TestBroker::in_memory_with(&PROXY, clock.surroundings()).await;
    for _ in 0..=OF_PROGRAM {
        let guess = broker.anonymous(Method::GET, "/operator/audit");
        answer(from(LOUD, guess).basic_auth("x", Some("y"))).await;
    }
    let asks = async || {
        let asked = from(LOUD, broker.osb(Method::GET, "/v2/catalog"));
        answer(asked).await.status
    };
    for by in [0, -86_400, 2 * 86_400] {
        clock.jump(TimeDelta::seconds(by));
        assert_eq!(asks().await, StatusCode::TOO_MANY_REQUESTS, "{by}");
    }
    clock.jump(TimeDelta::seconds(-3 * 86_400));
    clock.shift(TimeDelta::seconds(3));
    assert_eq!(asks().await, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_are_over_hold_up_nobody_and_nobody_those_that_are_good() {
    let clock = TestClock::default();
    clock.stop();
    let broker = TestBroker::in_memory_with(&PROXY, clock.surroundings()).await;
    broker.put_instance("i", json!({})).await;
    Inside::of(&broker).idle("i").await;
    let credentials = broker.bind("i", "b").await;
    // An application that was told nothing goes on as ever, at its platform's address.
    let path = "/api/2016-07/instances/i";
    for _ in 0..OF_PROGRAM + 10 {
        let over = broker.anonymous(Method::GET, path).bearer_auth("over");
        let refused = answer(from(LOUD, over)).await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    }
    let platform = || from(LOUD, broker.osb(Method::GET, "/v2/catalog"));
    assert_eq!(answer(platform()).await.status, StatusCode::OK);
    for _ in 0..OF_PROGRAM {
        let guess = broker.anonymous(Method::GET, "/operator/audit");
        let refused = answer(from(LOUD, guess).basic_auth("x", Some("y"))).await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    }
    let held = answer(platform()).await;
    assert_eq!(held.status, StatusCode::TOO_MANY_REQUESTS);
    let good = broker.compose(Method::GET, &credentials, "");
    assert_eq!(answer(from(LOUD, good)).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_are_not_taken_one_after_the_other_without_end() {
    let clock = TestClock::default();
    clock.stop();
    let flags = ["--backup-pause", "30"];
    let broker = TestBroker::in_memory_with(&flags, clock.surroundings()).await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    for _ in 0..ON_DEMAND_IN_A_ROW {
        broker.back_up(&credentials).await;
    }
    clock.forward(Duration::from_secs(130));
    let path = format!(
        "/deployments/{}/backups",
        text(&credentials["deployment_id"])
    );
    let refused = answer(broker.compose(Method::POST, &credentials, &path)).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS, "{refused:?}");
    let wait = refused.headers["retry-after"].to_str().expect("a text");
    let wait: u64 = wait.parse().expect("seconds");
    assert!((20..=21).contains(&wait), "{wait}");
    let said = text(&refused.body["errors"]["base"][0]);
    assert!(said.contains("not long ago"), "{said}");
    clock.forward(Duration::from_secs(wait));
    broker.back_up(&credentials).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_do_not_answer_are_left_alone_for_a_while() {
    let script = Script::default();
    let surroundings = Surroundings {
        patience: Patience::default(),
        ..script.surroundings()
    };
    let broker = TestBroker::start_with(&[], surroundings).await;
    broker.provision("i", json!({})).await;
    let silent = script.trip(OperationKind::Bind, "add_user", Fault::Silence);
    let ask = async |binding: &str| {
        let body = json!({ "service_id": SERVICE, "plan_id": STANDARD });
        let path = binding_path("i", binding);
        let waiting = format!("{path}?accepts_incomplete=true");
        let accepted = answer(broker.osb(Method::PUT, &waiting).json(&body)).await;
        assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
        let operation = text(&accepted.body["operation"]);
        format!("{path}/last_operation?operation={operation}")
    };
    let told = async |path: &str, what: &str| {
        eventually(what, || async {
            let answer = answer(broker.osb(Method::GET, path)).await;
            assert_eq!(answer.body["state"], "in progress", "{answer:?}");
            let said = text(&answer.body["description"]);
            said.contains(what).then_some(())
        })
        .await;
    };
    let first = ask("first").await;
    // Three looks have been silent by then.
    told(&first, "4th try").await;
    let second = ask("second").await;
    told(&second, "the broker waits before it asks them again").await;
    drop(silent);
    for path in [first, second] {
        let end = broker.end_of(&path).await;
        assert_eq!(end["state"], "succeeded", "{end}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_of_bindings_of_an_instance_follow_each_other_and_let_nobody_in_meanwhile() {
    let (clock, script) = (TestClock::default(), Script::default());
    let broker = TestBroker::in_memory_with(&[], script.surroundings_at(&clock)).await;
    broker.provision("i", json!({})).await;
    let inside = Inside::of(&broker);
    let body = json!({
        "service_id": SERVICE, "plan_id": STANDARD, "parameters": { "expires_in": 600 },
    });
    let path = |name: &str| binding_path("i", name);
    let mut made = Vec::new();
    for name in ["a", "b", "c"] {
        let bound = answer(broker.osb(Method::PUT, &path(name)).json(&body)).await;
        assert_eq!(bound.status, StatusCode::CREATED, "{bound:?}");
        made.push(bound.body["credentials"].clone());
    }
    // One that is not made yet.
    let issuing = script.hold(OperationKind::Bind, "issue");
    let waiting = format!("{}?accepts_incomplete=true", path("late"));
    let late = answer(broker.osb(Method::PUT, &waiting).json(&body)).await;
    assert_eq!(late.status, StatusCode::ACCEPTED, "{late:?}");
    let held = script.hold(OperationKind::Unbind, "remove_user");
    clock.forward(Duration::from_secs(20 * 60));
    for credentials in &made {
        eventually("that nobody is let in", || async {
            let refused = answer(broker.compose(Method::GET, credentials, "")).await;
            (refused.status == StatusCode::UNAUTHORIZED).then_some(())
        })
        .await;
    }
    drop(issuing);
    let poll = format!(
        "{}/last_operation?operation={}",
        path("late"),
        text(&late.body["operation"])
    );
    assert_eq!(broker.end_of(&poll).await["state"], "failed");
    let ends = async || {
        let all = inside.operations("i").await;
        let is_end = |o: &Operation| o.kind == OperationKind::Unbind;
        all.into_iter().filter(is_end).collect::<Vec<_>>()
    };
    assert_eq!(ends().await.len(), 1);
    for name in ["a", "b", "c", "late"] {
        let gone = answer(broker.osb(Method::GET, &path(name))).await;
        let reason = description(&gone, StatusCode::NOT_FOUND);
        assert!(reason.contains("expired"), "{reason}");
    }
    drop(held);
    eventually("the ends of all", || async {
        let ends = ends().await;
        let done = |o: &Operation| o.state == OperationState::Succeeded;
        (ends.len() == 4 && ends.iter().all(done)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_instance_had_done_long_ago_is_forgotten_but_for_the_newest() {
    let clock = TestClock::default();
    let surroundings = || Surroundings {
        scheduled: false,
        ..clock.surroundings()
    };
    let mut broker = TestBroker::in_memory_with(&[], surroundings()).await;
    broker.provision("i", json!({})).await;
    let kept = broker.bind("i", "kept").await;
    for _ in 0..2 {
        broker.bind("i", "gone").await;
        assert_eq!(broker.unbind("i", "gone").await.status, StatusCode::OK);
    }
    let backup = broker.back_up(&kept).await;
    Inside::of(&broker).idle("i").await;
    let of = async |broker: &TestBroker| Inside::of(broker).outcomes("i").await;
    let before = of(&broker).await;
    clock.forward(Duration::from_secs(29 * 24 * 3600));
    broker.restart_with(surroundings()).await;
    assert_eq!(of(&broker).await, before);
    clock.forward(Duration::from_secs(2 * 24 * 3600));
    broker.restart_with(surroundings()).await;
    let good = |kind| (kind, OperationState::Succeeded);
    eventually("that old operations are forgotten", || async {
        let left = of(&broker).await;
        let left: Vec<_> = left.into_iter().filter(|(k, _)| *k != "prune").collect();
        (left == ["backup", "bind", "provision"].map(good)).then_some(())
    })
    .await;
    // The answers are the same as before.
    let instance = "/v2/service_instances/i/last_operation".to_owned();
    for path in [
        instance,
        format!("{}/last_operation", binding_path("i", "kept")),
    ] {
        let polled = answer(broker.osb(Method::GET, &path)).await;
        assert_eq!(polled.body["state"], "succeeded", "{polled:?}");
    }
    // The broker has another address by now.
    let anew = broker.bind("i", "anew").await;
    let path = format!("/deployments/{}/backups", text(&anew["deployment_id"]));
    let listed = answer(broker.compose(Method::GET, &anew, &path)).await;
    let listed = &listed.body["_embedded"]["backups"];
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!(listed[0]["id"], backup["id"]);
}

/// Lets two of the three members of an instance answer nothing.
async fn silence(broker: &TestBroker, inside: &Inside, instance: &str) {
    let (deployment, _) = inside.deployment(instance).await.expect("a deployment");
    let folder = broker
        .data_dir()
        .join("clusters/local")
        .join(deployment.id.as_str());
    let members = processes_below(&folder);
    assert_eq!(members.len(), 3);
    for pid in &members[..2] {
        let pid = rustix::process::Pid::from_raw(*pid).expect("a process");
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("a signal");
    }
}

/// What one tenant does, and how long it takes.
struct Tenant<'a> {
    broker: &'a TestBroker,
    credentials: Value,
    clock: &'a TestClock,
}

/// What was measured, by name.
type Times = Vec<(&'static str, Duration)>;

impl Tenant<'_> {
    fn compose(&self, method: Method, path: &str) -> RequestBuilder {
        let deployment = text(&self.credentials["deployment_id"]);
        let path = format!("/deployments/{deployment}{path}");
        from(QUIET, self.broker.compose(method, &self.credentials, &path))
    }

    /// Binds, backs up, downloads; the operator looks at something.
    async fn works(&self, round: &str, times: &mut Times) {
        let begun = Instant::now();
        self.broker.bind("quiet", round).await;
        times.push(("bind", begun.elapsed()));
        let begun = Instant::now();
        let recipe = answer(self.compose(Method::POST, "/backups")).await;
        assert_eq!(recipe.status, StatusCode::ACCEPTED, "{recipe:?}");
        let end = self
            .broker
            .recipe_end(&self.credentials, &recipe.body)
            .await;
        assert_eq!(end["status"], "complete", "{end}");
        times.push(("backup", begun.elapsed()));
        let path = format!("/backups/{}", text(&recipe.body["backup_id"]));
        let backup = answer(self.compose(Method::GET, &path)).await.body;
        let begun = Instant::now();
        let link = text(&backup["download_link"]);
        let path = link.strip_prefix(&self.broker.url).expect("a link");
        let got = from(QUIET, self.broker.anonymous(Method::GET, path))
            .send()
            .await;
        let got = got.expect("an answer");
        assert_eq!(got.status(), StatusCode::OK);
        let bytes = got.bytes().await.expect("all of it");
        assert!(!bytes.is_empty());
        times.push(("download", begun.elapsed()));
        let begun = Instant::now();
        let (name, password) = self.broker.platform();
        let request = self
            .broker
            .anonymous(Method::GET, "/operator/audit?limit=1");
        let looked = answer(from(QUIET, request).basic_auth(name, Some(password))).await;
        assert_eq!(looked.status, StatusCode::OK, "{looked:?}");
        times.push(("operator", begun.elapsed()));
    }

    /// Lets its backup become due, and waits for it.
    async fn is_due(&self, times: &mut Times) {
        let scheduled = async || {
            let list = answer(self.compose(Method::GET, "/backups")).await.body;
            let backups = list["_embedded"]["backups"].as_array().cloned();
            let complete = |b: &&Value| b["status"] == "complete" && b["type"] != "on_demand";
            backups.expect("a list").iter().filter(complete).count()
        };
        let before = scheduled().await;
        let id: InstanceId = "quiet".parse().expect("an id");
        let after = self.clock.now() + TimeDelta::hours(2);
        let begun = Instant::now();
        self.clock.set(slot_after(after, minute_of_day(&id)));
        eventually("the backup that is due", || async {
            (scheduled().await > before).then_some(())
        })
        .await;
        times.push(("backup that is due", begun.elapsed()));
    }
}

/// A request that is sent, and whose answer nobody reads.
async fn unread(broker: &TestBroker, path: &str) -> TcpStream {
    let address = broker.address();
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nX-Forwarded-For: {LOUD}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("a request");
    stream
}

/// How an answer begins, of which no more is read.
async fn status(stream: &mut TcpStream) -> String {
    let mut line = [0; 16];
    let read = timeout(Duration::from_secs(30), stream.read_exact(&mut line)).await;
    read.expect("an answer").expect("its beginning");
    String::from_utf8_lossy(&line).into_owned()
}

/// Asks for the same again and again, whatever is answered.
async fn without_end(request: RequestBuilder) {
    loop {
        let request = request.try_clone().expect("a request that can be repeated");
        let _ = request.send().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Connections to the members of an instance over which nothing is ever said.
async fn idle_connections(inside: &Inside, instance: &str) -> Vec<TcpStream> {
    let (deployment, _) = inside.deployment(instance).await.expect("a deployment");
    let members = deployment.members.iter().cycle().take(IDLE_CONNECTIONS);
    let entrances = members.map(|member| member.address("client"));
    let opened = entrances.map(|to| TcpStream::connect((to.host.as_str(), to.port)));
    let opened = join_all(opened).await;
    opened
        .into_iter()
        .map(|c| c.expect("a connection"))
        .collect()
}

/// The value below which so many percent of the measured ones are.
fn percentile(times: &Times, name: &str, percent: usize) -> Duration {
    let mut of_name: Vec<Duration> = times
        .iter()
        .filter(|(measured, _)| *measured == name)
        .map(|(_, time)| *time)
        .collect();
    of_name.sort();
    of_name[(of_name.len() * percent).div_ceil(100).max(1) - 1]
}

/// What is measured of the quiet tenant.
const MEASURED: [&str; 5] = [
    "bind",
    "backup",
    "download",
    "operator",
    "backup that is due",
];
/// Rounds of each measurement.
const ROUNDS: usize = 8;
/// Bindings of the loud tenant whose time is over.
const ENDS: usize = 20;
/// Connections that the loud tenant opens to its own members.
const IDLE_CONNECTIONS: usize = 560;

/// What a tenant measures at rest, and while another one takes all it can get. All that it asks for is
/// done, however long it takes.
async fn trial(rounds: usize) -> (Times, Times) {
    let clock = TestClock::default();
    let limits = ["--tenant-operations", "1", "--requests-per-second", "500"];
    let flags = [&PROXY[..], &limits].concat();
    let broker = TestBroker::start_with(&flags, clock.surroundings()).await;
    for (space, id) in [("loud", "silent"), ("loud", "busy"), ("quiet", "quiet")] {
        let accepted = broker.put_instance_in(space, id, json!({})).await;
        let end = broker.instance_end(id, &accepted.body).await;
        assert_eq!(end["state"], "succeeded", "{end}");
    }
    let inside = Inside::of(&broker);
    let quiet = Tenant {
        broker: &broker,
        credentials: broker.bind("quiet", "b").await,
        clock: &clock,
    };
    let mut at_rest = Times::new();
    for round in 0..rounds {
        quiet.works(&format!("quiet {round}"), &mut at_rest).await;
    }
    quiet.is_due(&mut at_rest).await;

    // Much that no compression makes smaller, so that the system's buffers do not hold it.
    let busy = broker.bind("busy", "b").await;
    let silent = broker.bind("silent", "b").await;
    let mut client = etcd::connect(&busy).await;
    let mut value = vec![0; 1024 * 1024];
    for i in 0..20 {
        SystemRandom::new().fill(&mut value).expect("random bytes");
        let put = client.put(format!("k{i}"), value.clone(), None).await;
        put.expect("a put");
    }
    let ends = (0..ENDS).map(|i| {
        let body = json!({
            "service_id": SERVICE, "plan_id": STANDARD, "parameters": { "expires_in": 90 },
        });
        let path = binding_path("silent", &format!("b{i}"));
        answer(broker.osb(Method::PUT, &path).json(&body))
    });
    for bound in join_all(ends).await {
        assert_eq!(bound.status, StatusCode::CREATED, "{bound:?}");
    }
    let idle = idle_connections(&inside, "silent").await;
    silence(&broker, &inside, "silent").await;
    let mut attacked = Times::new();
    // The bindings' time is over, too.
    quiet.is_due(&mut attacked).await;
    let link = text(&broker.back_up(&busy).await["download_link"]).to_owned();
    let link = link.strip_prefix(&broker.url).expect("a link");
    let mut held = join_all((0..8).map(|_| unread(&broker, link))).await;
    let answered = join_all(held.iter_mut().map(status)).await;
    let count = |status: &str| answered.iter().filter(|said| said.contains(status)).count();
    assert_eq!((count(" 200 "), count(" 429 ")), (2, 6), "{answered:?}");
    let mut attack = JoinSet::new();
    for credentials in [&busy, &silent] {
        let path = format!(
            "/deployments/{}/backups",
            text(&credentials["deployment_id"])
        );
        let request = broker.compose(Method::POST, credentials, &path);
        attack.spawn(without_end(from(LOUD, request)));
    }
    let logs = "/api/2016-07/instances/busy/deployments/d/logfiles/l/download";
    attack.spawn(without_end(from(LOUD, broker.anonymous(Method::GET, logs))));
    let catalog = broker.anonymous(Method::GET, "/v2/catalog");
    attack.spawn(without_end(from(LOUD, catalog).basic_auth("x", Some("y"))));
    let network: u128 = "2001:db8::".parse::<Ipv6Addr>().expect("one").to_bits();
    for host in 1..=10u128 {
        let address = Ipv6Addr::from_bits(network | host).to_string();
        let guess = broker.anonymous(Method::GET, "/operator/audit");
        attack.spawn(without_end(
            from(&address, guess).basic_auth("x", Some("y")),
        ));
    }
    for round in 0..rounds {
        quiet
            .works(&format!("attacked {round}"), &mut attacked)
            .await;
        let active = inside.operations("silent").await;
        let ends = active.iter().filter(|o| {
            o.kind == OperationKind::Unbind && o.origin == Origin::Expiry && o.state.is_active()
        });
        assert!(ends.count() <= 1, "one end of a deployment at a time");
    }
    quiet.is_due(&mut attacked).await;
    attack.shutdown().await;
    drop((held, idle));
    let ended = inside.operations("quiet").await;
    let good = |o: &Operation| o.state.is_active() || o.state == OperationState::Succeeded;
    assert!(ended.iter().all(good), "{ended:?}");

    (at_rest, attacked)
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_a_tenant_asks_for_is_done_while_another_takes_all_it_can() {
    trial(1).await;
}

/// It holds what takes how long to a bound.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the machine for itself: make bench"]
async fn one_tenant_that_takes_all_it_can_holds_up_no_other() {
    let (at_rest, attacked) = trial(ROUNDS).await;
    let mut table = format!(
        "{:20} {:>9} {:>9} {:>9} {:>9}\n",
        "seconds", "p50 quiet", "p50 loud", "p99 quiet", "p99 loud"
    );
    for name in MEASURED {
        let of = |times, percent| percentile(times, name, percent).as_secs_f64();
        let row = [
            of(&at_rest, 50),
            of(&attacked, 50),
            of(&at_rest, 99),
            of(&attacked, 99),
        ];
        let cells = row.map(|seconds| format!("{seconds:9.2}")).join(" ");
        writeln!(table, "{name:20} {cells}").expect("a line");
    }
    println!("{table}");
    for name in MEASURED {
        let quiet = percentile(&at_rest, name, 99);
        let loud = percentile(&attacked, name, 99);
        let most = 2 * quiet + Duration::from_secs(1);
        assert!(loud <= most, "{name}: {loud:?}\n{table}");
    }
}
