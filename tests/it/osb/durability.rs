//! Concurrency, durability and limits.

use std::{collections::BTreeSet, fs, sync::Mutex, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use chrono::TimeDelta;
use compose_broker::{
    app::Surroundings,
    model::{
        operation::{Operation, OperationKind, OperationState},
        origin::Origin,
    },
};
use diesel::{
    Connection as _, QueryableByName, RunQueryDsl as _, SqliteConnection,
    connection::{Instrumentation, InstrumentationEvent, set_default_instrumentation},
    sql_types::Text,
};
use futures::future::join_all;
use reqwest::{Method, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{Bench, catalog::lock, coded, state, surroundings, token};
use crate::{
    bindings::files_with,
    broker::{TestBroker, answer, binding_path, eventually, instance_path, text},
    etcd,
    inside::Inside,
    postgres,
    process::{BrokerProcess, refused as refused_start},
    registers::often,
};

#[tokio::test(flavor = "multi_thread")]
async fn osb_115_conflicts_are_told_and_what_does_not_conflict_goes_on_beside() {
    let bench = Bench::with_instance(json!({})).await;
    let credentials = bench.bind("i", "b").await;
    let deployment = text(&credentials["deployment_id"]);
    let held = bench.script.hold(OperationKind::Backup, "snapshot");
    let path = format!("/deployments/{deployment}/backups");
    let backup = answer(bench.compose(Method::POST, &credentials, &path)).await;
    assert_eq!(backup.status, StatusCode::ACCEPTED, "{backup:?}");
    // Binds wait neither for each other nor for the backup.
    let ids: Vec<String> = (0..5).map(|i| format!("b{i}")).collect();
    let bound = join_all(
        ids.iter()
            .map(|id| bench.put_binding_waiting(id, json!({}))),
    )
    .await;
    assert!(
        bound.iter().all(|a| a.status == StatusCode::CREATED),
        "{bound:?}"
    );
    let recipe = format!("/recipes/{}", text(&backup.body["id"]));
    let recipe = answer(bench.compose(Method::GET, &credentials, &recipe))
        .await
        .body;
    assert!(
        ["waiting", "running"].contains(&text(&recipe["status"])),
        "{recipe}"
    );
    drop(held);
    bench.recipe_end(&credentials, &backup.body).await;
    let held = bench.script.hold(OperationKind::Update, "check");
    let update = bench.patch(json!({ "parameters": { "units": 2 } })).await;
    token(&update);
    coded(
        &bench.patch(json!({ "parameters": { "units": 3 } })).await,
        "ConcurrencyError",
    );
    coded(
        &bench.put_binding("late", json!({})).await,
        "ConcurrencyError",
    );
    coded(&bench.delete_binding("b").await, "ConcurrencyError");
    let deletion_held = bench.script.hold(OperationKind::Deprovision, "destroy");
    let deletion = bench.delete_instance("i").await;
    drop(held);
    coded(&bench.put("i", json!({})).await, "ConcurrencyError");
    coded(&bench.patch(json!({})).await, "ConcurrencyError");
    coded(
        &bench.put_binding("late", json!({})).await,
        "ConcurrencyError",
    );
    drop(deletion_held);
    bench.end("i", &deletion).await;
}

/// SQLite is for one process. A second one is told so, and changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn osb_117_a_second_broker_on_the_same_store_is_refused() {
    if postgres::is_store() {
        return;
    }
    let broker = BrokerProcess::start().await;
    let accepted = broker.put_instance("i", json!({})).await;
    let store = broker.data_dir().join("broker.db");
    let mut second = broker.settings().clone();
    let folder = tempfile::tempdir().expect("a folder");
    second.insert("LISTEN", "127.0.0.1:0".to_owned());
    second.insert("DATA_DIR", folder.path().join("data").display().to_string());
    second.insert("DATABASE_URL", format!("sqlite://{}", store.display()));
    let refused = refused_start(&second).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success(), "{said}");
    assert!(said.contains("COMPOSE_BROKER_DATABASE_URL"), "{said}");
    assert!(
        said.contains("another broker uses this database file"),
        "{said}"
    );
    let end = broker.instance_end("i", &accepted.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    assert_eq!(broker.members().len(), 3);
    assert_eq!(Inside::of(&broker).operations("i").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_118_a_clock_that_jumps_ends_nothing_and_forgets_nothing() {
    let bench = Bench::on_etcd().await;
    let failed = bench.fail_to_provision("failed").await;
    let held = bench.script.hold(OperationKind::Provision, "allocate");
    let running = bench.put("i", json!({})).await;
    for by in [
        TimeDelta::days(20),
        TimeDelta::days(-40),
        TimeDelta::days(3650),
        TimeDelta::days(-3630),
    ] {
        bench.clock.shift(by);
        let polled = bench.poll("i", Some(token(&running))).await;
        assert_eq!(state(&polled), "in progress", "{by}");
        assert_eq!(token(&bench.put("i", json!({})).await), token(&running));
        let polled = bench.poll("failed", Some(token(&failed))).await;
        assert_eq!(state(&polled), "failed", "{by}");
        let again = bench.put("failed", json!({})).await;
        assert_eq!(token(&again), token(&failed), "{by}");
    }
    drop(held);
    assert_eq!(bench.end("i", &running).await["state"], "succeeded");
    let credentials = bench.bind("i", "b").await;
    bench.clock.shift(TimeDelta::days(-50));
    let api = answer(bench.compose(Method::GET, &credentials, "")).await;
    assert_eq!(api.status, StatusCode::OK, "{api:?}");
    // So far back, the day's backup is due at once; nothing else was done twice or in between.
    let inside = Inside::of(&bench);
    eventually("the schedule's backup", || async {
        let all = inside.operations("i").await;
        all.iter()
            .any(|o| o.origin == Origin::Schedule)
            .then_some(())
    })
    .await;
    inside.idle("i").await;
    let done = |kind| (kind, OperationState::Succeeded);
    assert_eq!(
        inside.outcomes("i").await,
        ["backup", "bind", "provision"].map(done)
    );
}

/// A new key for a ring.
fn key(name: &str, byte: u8) -> String {
    format!("{name}:{}", BASE64.encode([byte; 32]))
}

/// The names of the keys under which a broker's store holds secrets.
async fn keys_in_use(bench: &Bench) -> BTreeSet<String> {
    #[derive(QueryableByName)]
    struct Sealed {
        #[diesel(sql_type = Text)]
        sealed: String,
    }
    let file = bench.data_dir().join("broker.db");
    let mut store = SqliteConnection::establish(file.to_str().expect("UTF-8")).expect("the store");
    let all: Vec<Sealed> = diesel::sql_query(
        "SELECT sealed_secrets AS sealed FROM deployments UNION ALL \
         SELECT sealed_secrets FROM bindings UNION ALL SELECT sealed_credentials FROM bindings",
    )
    .load(&mut store)
    .expect("what is sealed");
    let name = |Sealed { sealed }: Sealed| sealed.split(':').next().expect("a name").to_owned();
    all.into_iter().map(name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_119_secrets_are_sealed_and_the_key_ring_is_rotated_without_losing_any() {
    // Others may write to PostgreSQL meanwhile, and may not know the new key: nothing is sealed anew there.
    if postgres::is_store() {
        return;
    }
    let mut bench = Bench::with_etcd(json!({})).await;
    let first = bench.bind("i", "first").await;
    let api_token = text(&first["instance_administration_api"]["token"]).to_owned();
    for secret in [etcd::password(&first), api_token] {
        assert_eq!(files_with(&bench, &secret), "");
    }
    let ring = bench.data_dir().join("encryption_keys");
    let old = fs::read_to_string(&ring).expect("a ring");
    assert_eq!(keys_in_use(&bench).await, BTreeSet::from(["k1".to_owned()]));
    // A new key in front seals what is new, and anew what there was.
    fs::write(&ring, format!("{},{}", key("k2", 7), old.trim())).expect("a ring");
    bench.restart().await;
    assert_eq!(keys_in_use(&bench).await, BTreeSet::from(["k2".to_owned()]));
    let again = bench.put_binding("first", json!({})).await;
    assert_eq!(
        (again.status, &again.body["credentials"]),
        (StatusCode::OK, &first)
    );
    bench.bind("i", "second").await;
    // The old one can go: nothing in the store needs it.
    fs::write(&ring, key("k2", 7)).expect("a ring");
    bench.restart().await;
    let again = bench.put_binding("first", json!({})).await;
    assert_eq!(
        (again.status, &again.body["credentials"]),
        (StatusCode::OK, &first)
    );
    // It listens elsewhere now.
    let mut moved = first.clone();
    moved["instance_administration_api"]["root"] = json!(format!("{}/api", bench.url));
    let api = answer(bench.compose(Method::GET, &moved, "")).await;
    assert_eq!(api.status, StatusCode::OK, "{api:?}");
    // The broker goes on to administrate the database, and its users to use it.
    let third = bench.bind("i", "third").await;
    for credentials in [&first, &third] {
        etcd::fill(&mut etcd::connect(credentials).await, 1, "v").await;
    }
    assert_eq!(keys_in_use(&bench).await, BTreeSet::from(["k2".to_owned()]));
}

/// A ring without the key is refused at the start, before anything that it cannot read is touched;
/// and no dump of a process tells what it knew.
#[tokio::test(flavor = "multi_thread")]
async fn osb_119_a_lost_key_stops_the_start_and_a_crash_dumps_no_secret() {
    let mut broker = BrokerProcess::start().await;
    let pid = broker.pid();
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits");
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let core: Vec<&str> = core.expect("a limit").split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"], "{limits}");
    broker.provision("i", json!({})).await;
    broker.kill();
    let mut settings = broker.settings().clone();
    settings.insert("ENCRYPTION_KEYS", key("k1", 9));
    let refused = refused_start(&settings).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success(), "{said}");
    assert!(said.contains("COMPOSE_BROKER_ENCRYPTION_KEYS"), "{said}");
    broker.start_again().await;
    broker.bind("i", "b").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_120_what_has_ended_is_forgotten_by_age_and_by_nothing_else() {
    let mut bench = Bench::new().await;
    bench.fail_to_provision("i").await;
    let deletion = bench.delete_instance("i").await;
    bench.end("i", &deletion).await;
    for _ in 0..3 {
        bench.restart().await;
        let done = bench.poll("i", Some(token(&deletion))).await;
        assert_eq!(state(&done), "succeeded");
    }
    bench.clock.forward(Duration::from_secs(29 * 24 * 3600));
    bench.restart().await;
    assert_eq!(state(&bench.poll("i", None).await), "succeeded");
    bench.clock.forward(Duration::from_secs(2 * 24 * 3600));
    bench.restart().await;
    eventually("that it is forgotten", || async {
        let polled = bench.poll("i", None).await;
        (polled.status == StatusCode::NOT_FOUND).then_some(())
    })
    .await;
    let gone = bench.delete_instance("i").await;
    assert_eq!(gone.status, StatusCode::GONE);
}

/// Every query of this process since it was looked at last.
static ASKED: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// Set in a process that has this one test to run, so that no other broker's queries are heard.
const ALONE: &str = "COMPOSE_BROKER_TEST_ALONE";

/// Writes down what the store is asked.
struct Listener;

impl Instrumentation for Listener {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        if let InstrumentationEvent::StartQuery { query, .. } = event {
            let text = query.to_string();
            let sql = text.split(" -- binds: ").next().unwrap_or_default();
            ASKED.lock().expect("queries").push(sql.to_owned());
        }
    }
}

/// What was asked since the last look, in the order of the alphabet; not where transactions begin and
/// end.
fn asked() -> Vec<String> {
    let mut asked = std::mem::take(&mut *ASKED.lock().expect("queries"));
    asked.retain(|sql| {
        !["BEGIN", "COMMIT", "ROLLBACK"]
            .iter()
            .any(|word| sql.starts_with(word))
    });
    asked.sort();
    asked
}

/// What the store is asked for each of the requests that only look at an instance or repeat what
/// was asked for. What the broker does now and then may come in between, but not each time in the same
/// place: what is asked each time is the request's own.
async fn queries(broker: &TestBroker, token: &str) -> Vec<Vec<String>> {
    let mut own = queries_once(broker, token).await;
    for _ in 0..7 {
        let again = queries_once(broker, token).await;
        for (own, mut again) in own.iter_mut().zip(again) {
            own.retain(|sql| {
                let place = again.iter().position(|other| other == sql);
                place.map(|place| again.swap_remove(place)).is_some()
            });
        }
    }
    own
}

async fn queries_once(broker: &TestBroker, token: &str) -> Vec<Vec<String>> {
    let (instance, binding) = (instance_path("i"), binding_path("i", "b"));
    let body = super::provision_body(&json!({}));
    let requests = [
        broker.osb(Method::GET, &instance),
        broker.osb(Method::GET, &format!("{instance}/last_operation")),
        broker.osb(
            Method::GET,
            &format!("{instance}/last_operation?operation={token}"),
        ),
        broker
            .osb(Method::PUT, &format!("{instance}?accepts_incomplete=true"))
            .json(&body),
        broker.osb(Method::PATCH, &instance).json(&super::ids()),
        broker.osb(Method::GET, &binding),
        broker.osb(Method::GET, &format!("{binding}/last_operation")),
        broker.osb(Method::PUT, &binding).json(&super::ids()),
        broker.osb(Method::DELETE, &format!("{binding}?{}", super::IDS)),
    ];
    let mut all = Vec::new();
    for request in requests {
        asked();
        answer(request).await;
        all.push(asked());
    }
    all
}

/// How SQLite would go about a query.
fn plan(store: &mut SqliteConnection, sql: &str) -> Vec<String> {
    #[derive(QueryableByName)]
    struct Line {
        #[diesel(sql_type = Text)]
        detail: String,
    }
    let lines: Vec<Line> = diesel::sql_query(format!("EXPLAIN QUERY PLAN {sql}"))
        .load(store)
        .unwrap_or_else(|e| panic!("{sql}: {e}"));
    lines.into_iter().map(|line| line.detail).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_121_the_store_is_asked_the_same_however_many_instances_there_are() {
    if std::env::var_os(ALONE).is_some() {
        return count_queries().await;
    }
    alone("osb_121_the_store_is_asked_the_same_however_many_instances_there_are").await;
}

/// What the broker looks for again and again by itself leads to rows by their keys and indexes: where it
/// finds nothing, it takes the same however many instances there are.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_without_requests_goes_over_no_table() {
    if std::env::var_os(ALONE).is_some() {
        return look_at_an_idle_broker().await;
    }
    alone("a_broker_without_requests_goes_over_no_table").await;
}

/// Runs one test of this file in a process of its own.
async fn alone(test: &str) {
    let myself = std::env::current_exe().expect("this program");
    let name = format!("osb::durability::{test}");
    let mut alone = tokio::process::Command::new(myself);
    let alone = alone
        .args(["--exact", &name])
        .env(ALONE, "1")
        // What is counted are SQLite's statements.
        .env_remove(postgres::STORE)
        .output()
        .await;
    let alone = alone.expect("a process");
    let said = String::from_utf8_lossy(&alone.stdout);
    assert!(alone.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
}

fn listen() {
    set_default_instrumentation(|| Some(Box::new(Listener) as Box<dyn Instrumentation>))
        .expect("a listener");
}

async fn look_at_an_idle_broker() {
    /// Looks for each of the things that are looked for.
    const LOOKS: usize = 3;
    /// Words of the looks of the scheduler, of those that watch over databases, of the runner, and of the keeper of
    /// registers.
    const LOOKED_FOR: [&str; 5] = [
        "`renewals`.`due_at` <=",
        "instances.state = 'ready'",
        "`lanes`",
        "written <> number",
        "`called_at` IS NULL",
    ];
    listen();
    let mut bench = Bench::new().await;
    let surroundings = often(surroundings(&bench.script, &bench.clock));
    bench.broker.restart_with(surroundings).await;
    bench.provision("i", json!({})).await;
    Inside::of(&bench).idle("i").await;
    asked();
    let all = Mutex::new(Vec::new());
    eventually("looks for all", || async {
        let mut all = all.lock().expect("queries");
        all.extend(asked());
        let looks = LOOKED_FOR.map(|what| all.iter().filter(|sql| sql.contains(what)).count());
        looks.iter().all(|looks| *looks >= LOOKS).then_some(())
    })
    .await;
    let asked: BTreeSet<String> = all.into_inner().expect("queries").into_iter().collect();
    let file = bench.data_dir().join("broker.db");
    let mut store = SqliteConnection::establish(file.to_str().expect("UTF-8")).expect("the store");
    let words = ["SELECT", "UPDATE", "DELETE"];
    let looks = |sql: &&String| words.iter().any(|word| sql.starts_with(word));
    let mut scans = Vec::new();
    for sql in asked.iter().filter(looks) {
        let lines = plan(&mut store, sql).into_iter();
        let scanned = lines.filter(|line| line.starts_with("SCAN") && !line.contains("CONSTANT"));
        scans.extend(scanned.map(|line| format!("{line}: {sql}")));
    }
    assert!(scans.is_empty(), "{scans:#?}");
}

/// Beside these a provision has its share in a transaction.
const STATEMENTS_OF_A_PROVISION: usize = 15;

#[tokio::test(flavor = "multi_thread")]
async fn a_provision_that_is_accepted_takes_few_statements() {
    if std::env::var_os(ALONE).is_some() {
        return count_statements().await;
    }
    alone("a_provision_that_is_accepted_takes_few_statements").await;
}

async fn count_statements() {
    listen();
    let bench = Bench::new().await;
    let _held = bench.script.hold(OperationKind::Provision, "allocate");
    let mut all: Vec<Vec<String>> = Vec::new();
    for i in 0..8 {
        ASKED.lock().expect("queries").clear();
        token(&bench.put(&format!("i{i}"), json!({})).await);
        let asked = ASKED.lock().expect("queries").clone();
        let is_provision = |sql: &String| sql.starts_with("INSERT INTO `instances`");
        let at = asked.iter().position(is_provision).expect("a provision");
        let (before, after) = asked.split_at(at);
        let begun = before.iter().rposition(|sql| sql == "SAVEPOINT decision");
        let ended = after
            .iter()
            .position(|sql| sql == "RELEASE SAVEPOINT decision");
        let (begun, ended) = (begun.expect("a beginning"), ended.expect("an end"));
        all.push([&before[begun + 1..], &after[..ended]].concat());
    }
    // What the broker reads beside may come in between, and not each time.
    let own = all
        .iter()
        .min_by_key(|sqls| sqls.len())
        .expect("provisions");
    assert_eq!(own.len(), STATEMENTS_OF_A_PROVISION, "{own:#?}");
}

/// What each of them is for, docs/performance.md tells.
const TRANSACTIONS_OF_A_BACKUP: usize = 7;

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_backup_takes_few_transactions() {
    if std::env::var_os(ALONE).is_some() {
        return count_transactions().await;
    }
    alone("a_scheduled_backup_takes_few_transactions").await;
}

async fn count_transactions() {
    listen();
    let mut bench = Bench::new().await;
    let surroundings = Surroundings {
        // What is recorded of all backups of half a minute at once is no part of one.
        registers_every: Duration::from_secs(3600),
        ..surroundings(&bench.script, &bench.clock)
    };
    bench.broker.restart_with(surroundings).await;
    bench.provision("i", json!({})).await;
    let inside = Inside::of(&bench);
    inside.idle("i").await;
    let next = inside.next_scheduled("i").await.expect("a schedule");
    ASKED.lock().expect("queries").clear();
    bench.clock.set(next + TimeDelta::seconds(1));
    eventually("a scheduled backup", || async {
        let all = inside.operations("i").await;
        let done =
            |o: &&Operation| o.origin == Origin::Schedule && o.state == OperationState::Succeeded;
        all.iter().find(done).map(|_| ())
    })
    .await;
    // One thread writes, so these stand in its order, whatever is read beside.
    let all = std::mem::take(&mut *ASKED.lock().expect("queries"));
    let mut written: Vec<Vec<String>> = Vec::new();
    for sql in all {
        if sql == "BEGIN IMMEDIATE" {
            written.push(Vec::new());
        }
        let verb = sql.split(' ').next().unwrap_or_default();
        if ["INSERT", "UPDATE", "DELETE"].contains(&verb) {
            written.last_mut().expect("a transaction").push(sql);
        }
    }
    // What is due by the clock is no part of it: leases, what is known of the time, and what looks at members tell.
    let is_lease = |sql: &str| sql.contains("`lease_until`") && !sql.contains("`epoch`");
    let beside = ["known_time", "seen_states"];
    let is_beside = |sql: &String| beside.iter().any(|of| sql.contains(of)) || is_lease(sql);
    written.retain(|sqls| !sqls.iter().all(is_beside));
    let count = written.len();
    assert!(
        count > 0 && count <= TRANSACTIONS_OF_A_BACKUP,
        "{count}: {written:#?}"
    );
}

async fn count_queries() {
    listen();
    let bench = Bench::new().await;
    let _held = bench.script.hold(OperationKind::Provision, "allocate");
    let accepted = bench.put("i", json!({})).await;
    let alone = queries(&bench, token(&accepted)).await;
    assert!(alone.iter().all(|own| !own.is_empty()), "{alone:#?}");
    join_all((0..150).map(|i| {
        let bench = &bench;
        async move { bench.put(&format!("other-{i}"), json!({})).await }
    }))
    .await;
    assert_eq!(queries(&bench, token(&accepted)).await, alone);
    // Each of them goes to its rows and to no other ones.
    let file = bench.data_dir().join("broker.db");
    let mut store = SqliteConnection::establish(file.to_str().expect("UTF-8")).expect("the store");
    let looks = |sql: &&String| sql.starts_with("SELECT") && sql.contains("FROM");
    for sql in alone.iter().flatten().filter(looks) {
        for line in plan(&mut store, sql) {
            assert!(!line.starts_with("SCAN"), "{line}: {sql}");
        }
    }
    let scanned = plan(&mut store, "SELECT * FROM instances WHERE context = ?");
    assert!(scanned[0].starts_with("SCAN"), "{scanned:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_121_members_that_hang_hang_nobody_else() {
    let bench = Bench::with_etcd(json!({})).await;
    bench.bind("i", "b").await;
    for member in bench.members() {
        kill_process(Pid::from_raw(member).expect("a pid"), Signal::STOP).expect("a signal");
    }
    let in_time = async |request: reqwest::RequestBuilder, status: StatusCode| -> Value {
        // Far less than platforms wait, far more than it takes.
        let answer = answer(request.timeout(Duration::from_secs(20))).await;
        assert_eq!(answer.status, status, "{answer:?}");
        answer.body
    };
    let (instance, binding) = (instance_path("i"), binding_path("i", "b"));
    let get = |path: &str| bench.osb(Method::GET, path);
    // Work that waits for them does not keep others waiting.
    let late = format!("{}?accepts_incomplete=true", binding_path("i", "late"));
    let late = bench.osb(Method::PUT, &late).json(&super::ids());
    in_time(late, StatusCode::ACCEPTED).await;
    for _ in 0..3 {
        in_time(get("/v2/catalog"), StatusCode::OK).await;
        in_time(get(&instance), StatusCode::OK).await;
        in_time(get(&binding), StatusCode::OK).await;
        in_time(get(&format!("{instance}/last_operation")), StatusCode::OK).await;
        let path = format!("{binding}/last_operation");
        in_time(get(&path), StatusCode::OK).await;
    }
    let renamed = json!({ "service_id": super::ids()["service_id"], "context": { "x": 1 } });
    let renamed = bench.osb(Method::PATCH, &instance).json(&renamed);
    in_time(renamed, StatusCode::OK).await;
    let path = format!("{}?accepts_incomplete=true", instance_path("j"));
    let other = bench
        .osb(Method::PUT, &path)
        .json(&super::provision_body(&json!({})));
    in_time(other, StatusCode::ACCEPTED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_122_a_broker_that_is_told_to_end_loses_nothing_that_it_accepted() {
    let mut broker = BrokerProcess::start().await;
    let accepted = broker.put_instance("i", json!({})).await;
    let ended = tokio::task::spawn_blocking(broker.terminate());
    let status = ended.await.expect("an end");
    assert!(status.success(), "{status}");
    broker.start_again().await;
    let end = broker.instance_end("i", &accepted.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_122_a_broker_whose_store_is_out_of_reach_says_so_and_shows_its_catalog() {
    let bench = Bench::on_etcd().await;
    let ready = async || answer(bench.anonymous(Method::GET, "/readyz")).await;
    assert_eq!(ready().await.status, StatusCode::OK);
    let failed = bench.fail_to_provision("i").await;
    let store = lock(&bench);
    // What was found before is told for a second.
    let not_ready = eventually("a broker that is not ready", || async {
        let told = ready().await;
        (told.status == StatusCode::SERVICE_UNAVAILABLE).then_some(told)
    })
    .await;
    assert!(
        text(&not_ready.body["status"]).contains("store"),
        "{not_ready:?}"
    );
    assert_eq!(bench.get("/v2/catalog").await.status, StatusCode::OK);
    // What can be told is told.
    assert_eq!(
        state(&bench.poll("i", Some(token(&failed))).await),
        "failed"
    );
    store.release();
    eventually("a broker that is ready", || async {
        (ready().await.status == StatusCode::OK).then_some(())
    })
    .await;
}
