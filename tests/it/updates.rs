//! Updates: what is refused, what happens at once, and members that are changed while clients go
//! on working.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use compose_broker::{
    app::Surroundings,
    engine::etcd::{PROFILE, UNSAFE_QUOTA_FACTOR},
    model::{
        limits::{QUOTA_NEAR_PERCENT, UNIT_BYTES},
        operation::{Operation, OperationKind, OperationState},
    },
    operation::fault::{Fault, Faults, Moment},
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};

use crate::{
    alerts,
    broker::{
        Answer, ENTERPRISE, SERVICE, STANDARD, TestBroker, answer, binding_path, eventually,
        instance_path, new_folder, text,
    },
    control::{self, Script},
    etcd,
    inside::Inside,
    saboteur::{Saboteur, names},
    transport::description,
};

pub const NEWEST: &str = "3.7.3";
/// What an instance gets that asks for no version.
pub const DEFAULT: &str = "3.6.16";

/// Asks for an update of `i`, as Cloud Foundry does unless `change` says otherwise.
async fn patch(broker: &TestBroker, change: Value) -> Answer {
    let path = format!("{}?accepts_incomplete=true", instance_path("i"));
    send(broker, &path, change).await
}

async fn send(broker: &TestBroker, path: &str, change: Value) -> Answer {
    let mut body = json!({ "service_id": SERVICE, "plan_id": STANDARD, "parameters": {} });
    for (field, value) in change.as_object().expect("an object") {
        body[field] = value.clone();
    }
    answer(broker.osb(Method::PATCH, path).json(&body)).await
}

pub fn to(version: &str) -> Value {
    json!({ "parameters": { "db_version": version } })
}

fn units(units: u32) -> Value {
    json!({ "parameters": { "units": units } })
}

/// Asks for an update and waits for its end.
pub async fn updated(broker: &TestBroker, change: Value) -> Value {
    let accepted = patch(broker, change).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    broker.instance_end("i", &accepted.body).await
}

pub async fn fetched(broker: &TestBroker) -> Value {
    let fetched = answer(broker.osb(Method::GET, &instance_path("i"))).await;
    assert_eq!(fetched.status, StatusCode::OK, "{fetched:?}");
    fetched.body
}

async fn compose(broker: &TestBroker, method: Method, of: &Value, path: &str) -> Answer {
    let path = format!("/deployments/{}{path}", text(&of["deployment_id"]));
    answer(broker.compose(method, of, &path)).await
}

/// The version and the units of each member's process, as its command line says.
pub fn running(broker: &TestBroker) -> Vec<(String, u64)> {
    let mut members: Vec<_> = broker
        .members()
        .into_iter()
        .map(|pid| {
            let line = procfs::process::Process::new(pid).and_then(|p| p.cmdline());
            let line = line.expect("a command line");
            let version = line[0].rsplit('/').nth(1).expect("a folder").to_owned();
            let quota = line
                .iter()
                .find_map(|arg| arg.strip_prefix("--quota-backend-bytes="));
            let bytes: u64 = quota.expect("a quota").parse().expect("a number");
            let is_safe = PROFILE.full_is_safe(version.parse().expect("a version"));
            let factor = if is_safe { 1 } else { UNSAFE_QUOTA_FACTOR };
            (version, bytes / factor / UNIT_BYTES)
        })
        .collect();
    members.sort();
    members
}

pub fn all(version: &str, units: u64) -> Vec<(String, u64)> {
    vec![(version.to_owned(), units); 3]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_member_is_told_of_while_it_has_its_turn() {
    let broker = TestBroker::start().await;
    broker.provision("i", json!({})).await;
    let accepted = patch(&broker, units(2)).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let path = format!("{}/last_operation", instance_path("i"));
    let told = Mutex::new(Vec::<String>::new());
    eventually("the end of the update", || async {
        let polled = answer(broker.osb(Method::GET, &path)).await.body;
        let mut told = told.lock().expect("a list");
        told.push(text(&polled["description"]).to_owned());
        (polled["state"] == "succeeded").then_some(())
    })
    .await;
    let told = told.into_inner().expect("a list");
    let turns = (told.iter()).filter_map(|told| told.split_once("(step 2 of 2), member "));
    let mut turns: Vec<&str> = turns.map(|(_, turn)| turn).collect();
    turns.dedup();
    let numbers: Vec<&str> = turns.iter().filter_map(|turn| turn.get(..6)).collect();
    assert_eq!(numbers, ["1 of 3", "2 of 3", "3 of 3"], "{told:?}");
    let names: HashSet<&str> = turns.iter().filter_map(|turn| turn.get(6..)).collect();
    assert_eq!(names, HashSet::from([" (m0)", " (m1)", " (m2)"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_and_changes_nothing() {
    let broker = TestBroker::start().await;
    let refusal = |answer: Answer, status| description(&answer, status).to_owned();
    let unknown = patch(&broker, json!({})).await;
    refusal(unknown, StatusCode::NOT_FOUND);
    broker
        .provision("i", json!({ "db_version": "3.5.16" }))
        .await;
    let before = (fetched(&broker).await, broker.members());
    for change in [
        json!({ "service_id": null }),
        json!({ "service_id": "" }),
        json!({ "service_id": "unknown" }),
        json!({ "plan_id": "" }),
        json!({ "plan_id": 1 }),
        json!({ "plan_id": "unknown" }),
        json!({ "parameters": [] }),
        json!({ "parameters": { "units": "2" } }),
        json!({ "parameters": { "units": 0 } }),
        json!({ "parameters": { "units": 33 } }),
        json!({ "parameters": { "backup_id": "x" } }),
        json!({ "parameters": { "db_version": "9.9.9" } }),
        json!({ "context": 1 }),
        json!({ "parameters": { "db_version": "3.5.16" }, "maintenance_info": { "version": NEWEST } }),
    ] {
        let refused = patch(&broker, change.clone()).await;
        assert_eq!(
            refused.status,
            StatusCode::BAD_REQUEST,
            "{change}: {refused:?}"
        );
        refusal(refused, StatusCode::BAD_REQUEST);
    }
    let conflict = json!({ "maintenance_info": { "version": "3.5.16" } });
    let conflict = patch(&broker, conflict).await;
    assert_eq!(conflict.body["error"], "MaintenanceInfoConflict");
    refusal(conflict, StatusCode::UNPROCESSABLE_ENTITY);
    for change in [
        json!({ "plan_id": ENTERPRISE }),
        json!({ "plan_id": ENTERPRISE, "parameters": { "units": 2 } }),
        to("3.4.23"),
    ] {
        let refused = patch(&broker, change.clone()).await;
        assert_eq!(refused.body.get("error"), None);
        assert_eq!(refused.body["instance_usable"], true);
        assert_eq!(refused.body["update_repeatable"], false, "{change}");
        refusal(refused, StatusCode::UNPROCESSABLE_ENTITY);
    }
    let query = ["", "?accepts_incomplete=false", "?accepts_incomplete=1"];
    for query in query {
        let path = format!("{}{query}", instance_path("i"));
        let refused = send(&broker, &path, units(2)).await;
        assert_eq!(refused.body["error"], "AsyncRequired", "{refused:?}");
        refusal(refused, StatusCode::UNPROCESSABLE_ENTITY);
    }
    assert_eq!((fetched(&broker).await, broker.members()), before);
    let operations = Inside::of(&broker).outcomes("i").await;
    assert_eq!(operations.len(), 1, "{operations:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_members_are_changed_everything_else_is_told_to_wait() {
    let script = Script::default();
    let broker = TestBroker::start_with(&[], script.surroundings()).await;
    broker.provision("i", json!({})).await;
    let inside = Inside::of(&broker);
    let credentials = broker.bind("i", "b").await;
    let before = fetched(&broker).await;
    let held = script.hold(OperationKind::Update, "check");
    let change = json!({ "parameters": { "units": 2 }, "context": { "instance_name": "new" } });
    let accepted = patch(&broker, change.clone()).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let same = [
        change,
        units(2),
        json!({ "parameters": { "units": 2.0 }, "plan_id": null, "previous_values": {} }),
    ];
    for change in same {
        let again = patch(&broker, change.clone()).await;
        assert_eq!(again.status, StatusCode::ACCEPTED, "{change}: {again:?}");
        assert_eq!(again.body, accepted.body);
    }
    let concurrency = |answer: Answer| {
        description(&answer, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(answer.body["error"], "ConcurrencyError", "{answer:?}");
    };
    for other in [units(3), units(1), to(NEWEST)] {
        concurrency(patch(&broker, other).await);
    }
    let renamed = json!({ "context": { "instance_name": "renamed" } });
    let done = patch(&broker, renamed.clone()).await;
    assert_eq!(done.status, StatusCode::OK, "{done:?}");
    assert_eq!(inside.instance("i").await.context, renamed["context"]);
    // Users are not changed meanwhile.
    let body = json!({ "service_id": SERVICE, "plan_id": STANDARD });
    let bind = broker.osb(Method::PUT, &binding_path("i", "late"));
    concurrency(answer(bind.json(&body)).await);
    concurrency(broker.unbind("i", "b").await);
    // A backup is taken afterwards.
    let backup = compose(&broker, Method::POST, &credentials, "/backups").await;
    assert_eq!(backup.status, StatusCode::ACCEPTED, "{backup:?}");
    assert_eq!(fetched(&broker).await, before);
    assert_eq!(inside.newest("i", OperationKind::Backup).await.epoch, 0);
    drop(held);
    let end = broker.instance_end("i", &accepted.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    assert_eq!(end.get("instance_usable"), None);
    assert_eq!(fetched(&broker).await["parameters"], json!({ "units": 2 }));
    let backup = broker.recipe_end(&credentials, &backup.body).await;
    assert_eq!(backup["status"], "complete", "{backup}");
    // Now that no tool of the backup runs among the members.
    assert_eq!(running(&broker), all(DEFAULT, 2));
    broker.bind("i", "late").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_ends_an_update() {
    let script = Script::default();
    let broker = TestBroker::start_with(&[], script.surroundings()).await;
    for step in names(OperationKind::Update) {
        broker.provision("i", json!({})).await;
        let held = script.hold(OperationKind::Update, step);
        let update = patch(&broker, units(2)).await;
        let inside = Inside::of(&broker);
        eventually("the update's beginning", || async {
            let update = inside.newest("i", OperationKind::Update).await;
            (update.state == OperationState::Running).then_some(())
        })
        .await;
        let deletion = broker.delete_instance("i").await;
        assert_eq!(deletion.status, StatusCode::ACCEPTED, "{deletion:?}");
        let end = broker.instance_end("i", &update.body).await;
        assert_eq!(end["state"], "failed", "{end}");
        assert_eq!(end["instance_usable"], false, "{end}");
        assert_eq!(end["update_repeatable"], false, "{end}");
        let refused = patch(&broker, units(3)).await;
        assert_eq!(refused.body["error"], "ConcurrencyError", "{refused:?}");
        drop(held);
        let end = broker.instance_end("i", &deletion.body).await;
        assert_eq!(end["state"], "succeeded", "{end}");
        assert_eq!(broker.members(), Vec::<i32>::new());
        assert!(!inside.work_is_remembered("i").await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_grows_no_further_than_its_cluster_and_takes_its_room_at_once() {
    let script = Script::default();
    let folder = new_folder();
    let file = folder.join("clusters.json");
    let clusters = json!([{ "id": "local", "name": "Local", "capacity_units": 3 }]);
    std::fs::write(&file, clusters.to_string()).expect("a file");
    let flags = ["--clusters", file.to_str().expect("UTF-8")];
    let broker = TestBroker::start_in(folder.clone(), &flags, script.surroundings()).await;
    broker.provision("i", json!({})).await;
    let refused = patch(&broker, units(4)).await;
    let reason = description(&refused, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(reason.contains("3 units more, 2 are free"), "{reason}");
    assert_eq!(refused.body["update_repeatable"], true);
    let held = script.hold(OperationKind::Update, "check");
    let accepted = patch(&broker, units(3)).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let late = broker.put_instance("late", json!({})).await;
    description(&late, StatusCode::BAD_REQUEST);
    drop(held);
    let end = broker.instance_end("i", &accepted.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    let late = broker.put_instance("late", json!({})).await;
    description(&late, StatusCode::BAD_REQUEST);
    let end = updated(&broker, units(2)).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    broker.provision("late", json!({})).await;
}

/// Writes one key after the other, as an application does that tries again through another member.
pub struct Writer {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Written>,
}

/// What came of writing.
#[derive(Debug)]
pub struct Written {
    pub keys: usize,
    pub errors: usize,
    pub longest_gap: Duration,
}

/// How long the writer waits for one answer.
const WRITE_TIMEOUT: Duration = Duration::from_millis(500);

impl Writer {
    pub fn start(credentials: &Value) -> Self {
        Self::with_pauses(credentials, Duration::ZERO)
    }

    /// The same of one that leaves the machine to others, for what takes minutes.
    pub fn start_slow(credentials: &Value) -> Self {
        Self::with_pauses(credentials, Duration::from_millis(50))
    }

    fn with_pauses(credentials: &Value, pause: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(write(credentials.clone(), stop.clone(), pause));
        Self { stop, task }
    }

    pub async fn end(self) -> Written {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("an end")
    }
}

/// Has a connection to each member, as clients do that are given all of them, and makes a lost one
/// anew while it goes on with another.
async fn write(credentials: Value, stop: Arc<AtomicBool>, pause: Duration) -> Written {
    let connect = |field: &'static str| {
        let credentials = credentials.clone();
        async move { etcd::connect_to(&credentials, field).await.ok() }
    };
    let mut links = Vec::new();
    for field in ["uri", "uri_direct_1", "uri_direct_2"] {
        links.push((field, connect(field).await, None));
    }
    let mut written = Written {
        keys: 0,
        errors: 0,
        longest_gap: Duration::ZERO,
    };
    let (mut last, mut current) = (Instant::now(), 0);
    while !stop.load(Ordering::Relaxed) {
        let (field, client, reconnecting) = &mut links[current];
        if let Some(connected) = client {
            let put = connected.put(format!("written-{:06}", written.keys), "x", None);
            if let Ok(Ok(_)) = timeout(WRITE_TIMEOUT, put).await {
                written.keys += 1;
                written.longest_gap = written.longest_gap.max(last.elapsed());
                last = Instant::now();
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
                continue;
            }
            written.errors += 1;
            *client = None;
        }
        if reconnecting.as_ref().is_some_and(JoinHandle::is_finished) {
            let done = reconnecting.take().expect("a task");
            *client = done.await.expect("an end");
        }
        if client.is_none() && reconnecting.is_none() {
            *reconnecting = Some(tokio::spawn(connect(field)));
        }
        current = (current + 1) % links.len();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    written
}

/// What nobody may see of an update, also on a busy machine: elections take about a second.
pub const GAP_MAX: Duration = Duration::from_secs(10);

/// Updates `i` while its application writes; returns what came of that.
async fn updated_while_written(
    broker: &TestBroker,
    credentials: &Value,
    change: Value,
) -> (Written, Duration) {
    let writer = Writer::start(credentials);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begun = Instant::now();
    let end = updated(broker, change).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    let took = begun.elapsed();
    let written = writer.end().await;
    assert!(written.longest_gap < GAP_MAX, "{written:?}");
    (written, took)
}

/// Every member serves the same keys to the binding's user, and to nobody with an empty password.
pub async fn assert_same_everywhere(credentials: &Value, keys: usize) {
    // A write that its client gave up may still be under way.
    eventually("the same keys everywhere", || async {
        let mut seen = Vec::new();
        for field in ["uri", "uri_direct_1", "uri_direct_2"] {
            // On a busy machine an election may be under way again.
            let mut member = etcd::connect_to(credentials, field).await.ok()?;
            let found = etcd::read(&mut member).await.ok()?;
            assert!(found.len() >= keys, "{} of {keys} keys", found.len());
            seen.push(found);
        }
        let same = seen.windows(2).all(|pair| pair[0] == pair[1]);
        same.then_some(())
    })
    .await;
    for field in ["uri", "uri_direct_1", "uri_direct_2"] {
        let empty = etcd::connect_as(credentials, field, &etcd::user(credentials), "").await;
        assert!(empty.is_err(), "an empty password on {field}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_goes_line_by_line_under_a_client_that_writes() {
    let broker = TestBroker::start().await;
    broker
        .provision("i", json!({ "db_version": "3.3.25" }))
        .await;
    let credentials = broker.bind("i", "b").await;
    etcd::fill(&mut etcd::connect(&credentials).await, 50, "v").await;
    assert_eq!(
        fetched(&broker).await["maintenance_info"]["version"],
        "3.3.25"
    );
    let mine = broker.back_up(&credentials).await;
    // What `cf upgrade-service` sends.
    let upgrade = json!({
        "maintenance_info": { "version": NEWEST, "description": "any" },
        "previous_values": { "plan_id": STANDARD, "maintenance_info": { "version": null } },
    });
    let (written, _) = updated_while_written(&broker, &credentials, upgrade.clone()).await;
    assert_eq!(running(&broker), all(NEWEST, 1));
    assert_same_everywhere(&credentials, 50 + written.keys).await;
    let after = fetched(&broker).await;
    assert_eq!(after["maintenance_info"]["version"], NEWEST);
    assert_eq!(after["parameters"], json!({ "db_version": NEWEST }));
    let deployment = compose(&broker, Method::GET, &credentials, "").await;
    assert_eq!(deployment.body["version"], NEWEST);
    // It is of before the upgrade, and users can be changed again.
    let backups = compose(&broker, Method::GET, &credentials, "/backups").await;
    let backup = &backups.body["_embedded"]["backups"][0];
    assert_eq!(backup["status"], "complete", "{backup}");
    assert_eq!(backup["version"], "3.3.25");
    // It is of its own kind, ends by itself, and the user's own one is still there.
    assert_eq!(backup["type"], "safety");
    assert!(backup["expires_at"].is_string(), "{backup}");
    let theirs = &backups.body["_embedded"]["backups"][1];
    assert_eq!(
        (&theirs["id"], &theirs["status"]),
        (&mine["id"], &json!("complete"))
    );
    let recipes = compose(&broker, Method::GET, &credentials, "/recipes").await;
    let recipes = recipes.body["_embedded"]["recipes"].as_array().cloned();
    let recipe = recipes
        .expect("recipes")
        .into_iter()
        .find(|r| r["name"] == "Upgrade deployment to version 3.7.3");
    let recipe = recipe.expect("the upgrade's recipe");
    assert_eq!(recipe["backup_id"], backup["id"]);
    assert_eq!(recipe["status"], "complete");
    let second = broker.bind("i", "second").await;
    assert_same_everywhere(&second, 50).await;
    let done = patch(&broker, upgrade).await;
    assert_eq!(done.status, StatusCode::OK, "{done:?}");
}

/// Clusters that newer lines have refused: one born on an early 3.5, one made of an older line's
/// backup.
#[tokio::test(flavor = "multi_thread")]
async fn clusters_with_a_past_get_to_the_newest_line() {
    let broker = TestBroker::start().await;
    broker
        .provision("i", json!({ "db_version": "3.5.16" }))
        .await;
    let credentials = broker.bind("i", "b").await;
    let (written, took) = updated_while_written(&broker, &credentials, to(NEWEST)).await;
    println!("3.5.16 to {NEWEST}: {took:.1?}, {written:?}");
    assert_eq!(running(&broker), all(NEWEST, 1));
    assert_same_everywhere(&credentials, written.keys).await;
    assert!(!members_are_checkpointing(&broker));
    broker.deprovision("i").await;

    broker
        .provision("old", json!({ "db_version": "3.4.23" }))
        .await;
    let old = broker.bind("old", "b").await;
    etcd::fill(&mut etcd::connect(&old).await, 50, "v").await;
    let backup = broker.back_up(&old).await;
    let restored = json!({
        "source_service_instance_id": "old", "backup_id": backup["id"], "db_version": "3.5.35",
    });
    broker.provision("i", restored).await;
    broker.deprovision("old").await;
    let credentials = broker.bind("i", "b").await;
    let (written, _) = updated_while_written(&broker, &credentials, to(NEWEST)).await;
    assert_eq!(running(&broker), all(NEWEST, 1));
    assert_same_everywhere(&credentials, 50 + written.keys).await;
}

/// Whether a member still writes its state down again and again, which slows it.
pub fn members_are_checkpointing(broker: &TestBroker) -> bool {
    broker.members().into_iter().any(|pid| {
        let line = procfs::process::Process::new(pid).and_then(|p| p.cmdline());
        let line = line.expect("a command line");
        line.iter().any(|arg| arg == "--snapshot-count=1")
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_is_rehearsed_and_nothing_is_touched() {
    let broker = TestBroker::start().await;
    broker
        .provision("i", json!({ "db_version": "3.5.16" }))
        .await;
    let of = broker.bind("i", "b").await;
    let inside = Inside::of(&broker);
    let before = (fetched(&broker).await, broker.members());
    let outcomes = inside.outcomes("i").await;
    let path = format!("/deployments/{}/versions", text(&of["deployment_id"]));
    let ask = |query: &str, deployment: Value| {
        let path = format!("{path}{query}");
        let body = json!({ "deployment": deployment });
        answer(broker.compose(Method::PATCH, &of, &path).json(&body))
    };
    let wanted = |version: &str| json!({ "version": version, "dry_run": true });
    let told = ask("", wanted(NEWEST)).await;
    assert_eq!(told.status, StatusCode::OK, "{told:?}");
    assert_eq!(told.body["possible"], true, "{told:?}");
    assert_eq!(told.body["from_version"], "3.5.16");
    assert_eq!(told.body["to_version"], NEWEST);
    assert_eq!(told.body["path"], json!(["3.5.35", DEFAULT, NEWEST]));
    assert_eq!(told.body["reasons"], json!([]));
    assert_eq!(
        told.body["notes"],
        json!([
            "Checked: no member is a learner, and no user can log in without a password.",
            "A backup is taken first; when it fails, nothing is changed.",
            "3.5.35 comes first: 3.5.16 may not leave the line 3.5.",
            "Before 3.6.16 each member saves its full state.",
            "Before 3.7.3 each member saves its full state.",
        ])
    );
    let same = ask("?dry_run=true", json!({ "version": NEWEST })).await;
    assert_eq!(same.body, told.body);
    for (version, reason) in [
        ("3.5.16", "It runs 3.5.16 already."),
        ("3.4.23", "older"),
        ("9.9.9", "not available"),
        ("garbage", "not available"),
    ] {
        let told = ask("", wanted(version)).await;
        assert_eq!(told.status, StatusCode::OK, "{told:?}");
        assert_eq!(told.body["possible"], false, "{told:?}");
        assert_eq!(told.body["path"], json!([]), "{told:?}");
        let said = text(&told.body["reasons"][0]);
        assert!(said.contains(reason), "{said}");
    }
    for (query, deployment) in [
        ("?dry_run=maybe", wanted(NEWEST)),
        ("", json!({ "version": NEWEST, "dry_run": "yes" })),
        ("?dry_run=true", json!({ "version": NEWEST, "dry_run": {} })),
        ("?dry_run=true", json!({})),
        ("?dry_run=true", json!({ "version": "" })),
        ("?dry_run=true", json!({ "version": 3.7 })),
        ("?dry_run=true", json!({ "version": "3".repeat(33) })),
    ] {
        let refused = ask(query, deployment).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{refused:?}");
    }
    // What stands in the way is told, each by its name.
    let mut root = inside.administrator("i", &of).await;
    root.user_add("open", "", None).await.expect("a user");
    let told = ask("", wanted(NEWEST)).await;
    assert_eq!(told.body["possible"], true, "{told:?}");
    let note = text(&told.body["notes"][0]);
    assert!(
        note.contains("open") && note.contains("puts it right"),
        "{note}"
    );
    assert_eq!((fetched(&broker).await, broker.members()), before);
    assert_eq!(inside.outcomes("i").await, outcomes);

    // The upgrade does as it said.
    let end = updated(&broker, to(NEWEST)).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    let told = alerts::told(&broker, &of, "warning").await;
    assert!(told.to_string().contains("\\\"open\\\""), "{told}");
    assert_same_everywhere(&of, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administration_client_scales_and_upgrades() {
    let broker = TestBroker::start().await;
    broker
        .provision("i", json!({ "db_version": "3.4.23" }))
        .await;
    let of = broker.bind("i", "b").await;
    let ways = compose(&broker, Method::GET, &of, "/versions").await;
    let ways = ways.body["_embedded"]["transitions"].as_array().cloned();
    let ways: Vec<String> = ways
        .expect("transitions")
        .iter()
        .map(|t| format!("{} {}", text(&t["method"]), text(&t["to_version"])))
        .collect();
    let expected = ["3.5.16", "3.5.30", "3.5.35", "3.6.16", "3.7.3"]
        .map(|version| [format!("in_place {version}"), format!("restore {version}")]);
    assert_eq!(ways, expected.concat());
    let sizes = || async {
        let sizes = compose(&broker, Method::GET, &of, "/scalings").await;
        assert_eq!(sizes.status, StatusCode::OK, "{sizes:?}");
        (sizes.body["used_units"] == 1).then_some(sizes.body)
    };
    let mut told = eventually("a look at the database", sizes).await;
    let fields = told.as_object_mut().expect("an object");
    let [used, allocated] =
        ["used_bytes", "allocated_bytes"].map(|field| fields.remove(field).expect(field));
    assert!(used.as_u64() > Some(0), "{used}");
    assert!(used.as_u64() <= allocated.as_u64(), "{used} of {allocated}");
    let observed = fields.remove("observed_at").expect("a moment");
    let observed: DateTime<Utc> = text(&observed).parse().expect("a time");
    let ago = control::now() - observed;
    assert!(ago.abs() < TimeDelta::minutes(1), "{observed}");
    insta::assert_json_snapshot!(told);
    let deployment = text(&of["deployment_id"]);
    let ask = |method, what: &str, body: Value| {
        let path = format!("/deployments/{deployment}/{what}");
        answer(broker.compose(method, &of, &path).json(&body))
    };
    for body in [
        json!({}),
        json!({ "deployment": {} }),
        json!({ "deployment": { "units": 99 } }),
    ] {
        let refused = ask(Method::POST, "scalings", body).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{refused:?}");
        assert!(refused.body["errors"]["base"][0].is_string(), "{refused:?}");
    }
    let scaled = ask(
        Method::POST,
        "scalings",
        json!({ "deployment": { "units": 3 } }),
    )
    .await;
    assert_eq!(scaled.status, StatusCode::OK, "{scaled:?}");
    assert_eq!(scaled.body["name"], "Scale deployment to 3 units");
    assert_eq!(scaled.body["source"], "compose");
    let end = broker.recipe_end(&of, &scaled.body).await;
    assert_eq!(end["status"], "complete", "{end}");
    let same = ask(
        Method::POST,
        "scalings",
        json!({ "deployment": { "units": 3 } }),
    )
    .await;
    assert_eq!(same.status, StatusCode::UNPROCESSABLE_ENTITY, "{same:?}");
    let body = json!({ "deployment": { "version": "3.5.16" } });
    let upgraded = ask(Method::PATCH, "versions", body).await;
    assert_eq!(upgraded.status, StatusCode::OK, "{upgraded:?}");
    let end = broker.recipe_end(&of, &upgraded.body).await;
    assert_eq!(end["status"], "complete", "{end}");
    assert_eq!(running(&broker), all("3.5.16", 3));
    let asked = json!({ "db_version": "3.5.16", "units": 3 });
    assert_eq!(fetched(&broker).await["parameters"], asked);
    let body = json!({ "deployment": { "version": "3.4.23" } });
    let back = ask(Method::PATCH, "versions", body).await;
    assert_eq!(back.status, StatusCode::UNPROCESSABLE_ENTITY, "{back:?}");
}

/// Faults of one step of updates, in the passes over it that are counted here.
pub struct Passes {
    pub fault: Fault,
    pub moments: &'static [Moment],
    pub from: usize,
    pub upto: usize,
    pub passed: Mutex<usize>,
}

impl Passes {
    pub fn surroundings(self) -> (Arc<Self>, Surroundings) {
        let passes = Arc::new(self);
        let surroundings = Surroundings {
            faults: passes.clone(),
            ..control::surroundings()
        };
        (passes, surroundings)
    }
}

impl Faults for Passes {
    fn at(&self, operation: &Operation, step: &str, moment: Moment) -> Option<Fault> {
        if operation.kind != OperationKind::Update
            || step != "roll"
            || !self.moments.contains(&moment)
        {
            return None;
        }
        let mut passed = self.passed.lock().expect("a count");
        *passed += 1;
        (self.from <= *passed && *passed <= self.upto).then_some(self.fault)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_at_every_member_is_made_up_for() {
    const DEATHS: usize = 16;
    let (passes, surroundings) = Passes {
        fault: Fault::Die,
        moments: &[Moment::Begun, Moment::Done],
        from: 1,
        upto: DEATHS,
        passed: Mutex::default(),
    }
    .surroundings();
    let broker = TestBroker::start_with(&[], surroundings).await;
    broker
        .provision("i", json!({ "db_version": "3.4.23" }))
        .await;
    let credentials = broker.bind("i", "b").await;
    let writer = Writer::start(&credentials);
    let change = json!({ "parameters": { "db_version": NEWEST, "units": 2 } });
    let end = updated(&broker, change).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    let written = writer.end().await;
    assert!(*passes.passed.lock().expect("a count") >= DEATHS);
    assert_eq!(running(&broker), all(NEWEST, 2));
    assert_same_everywhere(&credentials, written.keys).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_fails_for_good_changes_nothing() {
    let saboteur = Saboteur::everywhere(&[]);
    let broker = TestBroker::start_with(&[], saboteur.surroundings()).await;
    let inside = Inside::of(&broker);
    broker
        .provision("i", json!({ "db_version": "3.5.16" }))
        .await;
    broker.bind("i", "b").await;
    let before = fetched(&broker).await;
    let kind = OperationKind::Update;
    let failed = |end: Value, usable: bool| {
        assert_eq!(end["state"], "failed", "{end}");
        assert_eq!(end["instance_usable"], usable, "{end}");
        assert_eq!(end["update_repeatable"], true, "{end}");
    };
    for step in names(kind) {
        saboteur.break_for_good(kind, step);
        failed(updated(&broker, units(2)).await, true);
        assert_eq!(inside.newest("i", kind).await.state, OperationState::Failed);
        assert_eq!(running(&broker), all("3.5.16", 1), "{step}");
        saboteur.forbid(kind, "cleanup_members");
        // Its members serve, whatever they run as.
        failed(updated(&broker, units(2)).await, true);
        assert_eq!(inside.newest("i", kind).await.state, OperationState::Stuck);
        saboteur.rest();
        assert_eq!(fetched(&broker).await, before, "{step}");
    }
    // A member that could not be taken back is, as soon as it is asked for.
    assert_ne!(running(&broker), all("3.5.16", 1));
    let end = updated(&broker, units(1)).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    assert_eq!(running(&broker), all("3.5.16", 1));
    let before = (fetched(&broker).await, broker.members());
    // Without its backup there is no upgrade.
    saboteur.break_for_good(OperationKind::Backup, "snapshot");
    let end = updated(&broker, to(NEWEST)).await;
    assert!(
        text(&end["description"]).contains("backup before the upgrade"),
        "{end}"
    );
    failed(end, true);
    saboteur.rest();
    assert_eq!((fetched(&broker).await, broker.members()), before);
    let end = updated(&broker, to(NEWEST)).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    assert_eq!(running(&broker), all(NEWEST, 1));
}

/// So many puts are one MiB.
const PUTS_OF_A_MB: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn osb_087_a_full_database_takes_writes_again_when_it_gets_more_and_cannot_become_smaller() {
    // Nobody makes room meanwhile.
    let surroundings = Surroundings {
        scheduled: false,
        ..control::surroundings()
    };
    let broker = TestBroker::start_with(&[], surroundings).await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    let mut database = etcd::connect(&credentials).await;
    // Small beside the whole: of large values more is lost in between on a fast machine, where etcd
    // commits several at once, than on a slow one.
    let value = vec![b'x'; 1024 * 1024 / PUTS_OF_A_MB];
    let mut root = Inside::of(&broker).administrator("i", &credentials).await;
    let (mut puts, mut is_near) = (0, false);
    let full = loop {
        match database.put("large", value.clone(), None).await {
            Ok(_) => puts += 1,
            Err(error) if error.to_string().contains("space exceeded") => {
                break puts / PUTS_OF_A_MB;
            }
            Err(error) => panic!("{error}"),
        }
        assert!(puts < 400 * PUTS_OF_A_MB, "it never is full");
        // The file grows by 16 MiB at a time, so it is seen before it is nearly full.
        if !is_near && puts % PUTS_OF_A_MB == 0 {
            let bytes = root.status().await.expect("a status").db_size();
            is_near =
                u64::try_from(bytes).expect("a size") >= UNIT_BYTES / 100 * QUOTA_NEAR_PERCENT;
            if is_near {
                let near = "% of the storage quota of 1 unit";
                alerts::told_that(&broker, &credentials, "warning", near).await;
            }
        }
    };
    assert!(is_near, "it is full at once");
    // How much of the file is lost between large values hangs on how many of them etcd commits at once, and
    // with it on the machine: 199 to 243 MiB of 256 were values. The file itself has the size that a unit
    // gives, but for what the members differ by.
    let bytes = root.status().await.expect("a status").db_size();
    let bytes = u64::try_from(bytes).expect("a size");
    assert!(
        bytes >= UNIT_BYTES / 100 * 98,
        "full with {full} MiB in {bytes} bytes"
    );
    alerts::told_that(&broker, &credentials, "critical", "The database is full").await;
    let end = updated(&broker, units(2)).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    alerts::told(&broker, &credentials, "ok").await;
    let mut database = etcd::connect(&credentials).await;
    for _ in 0..20 * PUTS_OF_A_MB {
        let put = database.put("large", value.clone(), None).await;
        put.expect("a write");
    }
    let before = broker.members();
    let refused = patch(&broker, units(1)).await;
    let reason = description(&refused, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(reason.contains("does not fit 1 unit, 256 MiB"), "{reason}");
    assert_eq!(refused.body["update_repeatable"], false);
    assert_eq!(broker.members(), before);
    let end = updated(&broker, units(3)).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    // Two units are enough for it.
    let end = updated(&broker, units(2)).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    assert_eq!(running(&broker), all(DEFAULT, 2));
}

/// Prints how long a writer that tries again has to wait: `cargo test --test it -- --ignored
/// --nocapture the_longest_gap`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures, and takes its time"]
async fn the_longest_gap_that_a_writer_sees() {
    let hops = [
        ("3.3.25", to("3.4.23")),
        ("3.4.23", to("3.5.16")),
        ("3.4.23", to(NEWEST)),
        ("3.5.35", to(DEFAULT)),
        (DEFAULT, to(NEWEST)),
        (NEWEST, units(2)),
    ];
    for (from, change) in hops {
        for _ in 0..3 {
            let broker = TestBroker::start().await;
            broker.provision("i", json!({ "db_version": from })).await;
            let credentials = broker.bind("i", "b").await;
            let (written, took) =
                updated_while_written(&broker, &credentials, change.clone()).await;
            println!("{from} {}: {took:.1?}, {written:?}", change["parameters"]);
        }
    }
}

/// So that nobody forgets a step of an update in the faults above.
#[test]
fn updates_have_the_steps_that_are_broken_here() {
    let steps: HashSet<&str> = names(OperationKind::Update).collect();
    assert_eq!(steps, HashSet::from(["check", "roll"]));
}
