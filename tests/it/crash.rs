//! Brokers and members that are killed: what was promised is kept nevertheless.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use compose_broker::model::operation::OperationKind;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    broker::{SERVICE, STANDARD, TestBroker, answer, eventually, kill, text},
    etcd,
    inside::{Inside, files_of_deployments},
    process::BrokerProcess,
    registers::REGISTER,
};

/// A broker is killed this long after it accepted a request, in milliseconds: one request for
/// each of these.
const DELAYS: [u64; 4] = [20, 60, 150, 400];
/// Pause between two looks at an operation that is to be met in a certain step.
const LOOK: Duration = Duration::from_millis(2);
/// Members of one deployment, and the ports that these have.
const MEMBERS: usize = 3;
const PORTS: usize = 6;

/// Work that was accepted, and where it is told of.
pub enum Work {
    /// Of an instance or binding: the path of its `last_operation`.
    Osb(String),
    /// Of the administration API: credentials and recipe.
    Recipe(Value, Value),
}

/// The state of work.
enum Look {
    /// It goes on, with this said of it.
    At(String),
    /// It has ended, with this state.
    Ended(String),
}

impl Work {
    async fn look(&self, broker: &TestBroker) -> Look {
        let (request, state, said) = match self {
            Self::Osb(path) => (broker.osb(Method::GET, path), "state", "description"),
            Self::Recipe(credentials, recipe) => {
                let path = format!("/recipes/{}", text(&recipe["id"]));
                let request = broker.compose(Method::GET, credentials, &path);
                (request, "status", "status_detail")
            }
        };
        let answer = answer(request).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        match text(&answer.body[state]) {
            "in progress" | "waiting" | "running" => Look::At(text(&answer.body[said]).to_owned()),
            ended => Look::Ended(format!("{ended}: {}", text(&answer.body[said]))),
        }
    }

    async fn end(&self, broker: &TestBroker) -> String {
        eventually("the end of some work", || async {
            match self.look(broker).await {
                Look::At(_) => None,
                Look::Ended(end) => Some(end),
            }
        })
        .await
    }

    /// Waits for the end with a broker that is killed when it has done this for `delay`.
    async fn end_with_a_kill(&self, broker: &mut BrokerProcess, delay: u64) -> String {
        sleep(Duration::from_millis(delay)).await;
        broker.kill_and_start_again().await;
        self.end(broker).await
    }

    /// Waits for the end with a broker that is killed in each step in which it is met; returns
    /// the end and these steps.
    pub async fn end_with_a_kill_in_each_step(
        &self,
        broker: &mut BrokerProcess,
    ) -> (String, BTreeSet<String>) {
        let mut met = BTreeSet::new();
        loop {
            match self.look(broker).await {
                Look::Ended(end) => return (end, met),
                Look::At(said) => {
                    let step = said.split_once(" (step ").map(|(step, _)| step.to_owned());
                    if step.is_some_and(|step| met.insert(step)) {
                        broker.kill_and_start_again().await;
                    }
                }
            }
            sleep(LOOK).await;
        }
    }
}

pub async fn provision(broker: &TestBroker, id: &str, parameters: Value) -> Work {
    let accepted = broker.put_instance(id, parameters).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    work_on_instance(id, &accepted.body)
}

pub async fn deprovision(broker: &TestBroker, id: &str) -> Work {
    let accepted = broker.delete_instance(id).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    work_on_instance(id, &accepted.body)
}

fn work_on_instance(id: &str, accepted: &Value) -> Work {
    let operation = text(&accepted["operation"]);
    Work::Osb(format!(
        "/v2/service_instances/{id}/last_operation?operation={operation}"
    ))
}

async fn change_binding(broker: &TestBroker, method: Method, binding: &str) -> Work {
    let path = format!("/v2/service_instances/i/service_bindings/{binding}");
    let query = format!("accepts_incomplete=true&service_id={SERVICE}&plan_id={STANDARD}");
    let request = broker.osb(method, &format!("{path}?{query}"));
    let body = json!({ "service_id": SERVICE, "plan_id": STANDARD });
    let accepted = answer(request.json(&body)).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let operation = text(&accepted.body["operation"]);
    Work::Osb(format!("{path}/last_operation?operation={operation}"))
}

async fn back_up(broker: &TestBroker, credentials: &Value) -> (Work, String) {
    let deployment = text(&credentials["deployment_id"]);
    let path = format!("/deployments/{deployment}/backups");
    let recipe = answer(broker.compose(Method::POST, credentials, &path)).await;
    assert_eq!(recipe.status, StatusCode::ACCEPTED, "{recipe:?}");
    let backup = text(&recipe.body["backup_id"]).to_owned();
    (Work::Recipe(credentials.clone(), recipe.body), backup)
}

/// The credentials of a binding that is there.
async fn binding(broker: &TestBroker, binding: &str) -> Value {
    let path = format!("/v2/service_instances/i/service_bindings/{binding}");
    let fetched = answer(broker.osb(Method::GET, &path)).await;
    assert_eq!(fetched.status, StatusCode::OK, "{fetched:?}");
    fetched.body["credentials"].clone()
}

/// So many whole clusters and nothing more, once the first backup of what was restored has been looked at.
async fn assert_clusters(broker: &TestBroker, inside: &Inside, count: usize) {
    eventually(&format!("{count} whole clusters"), || async {
        let is_whole = broker.members().len() == count * MEMBERS
            && inside.ports_reserved().await == count * PORTS;
        is_whole.then_some(())
    })
    .await;
    let folders = std::fs::read_dir(broker.data_dir().join("clusters/local"));
    let folders = folders.expect("a folder").flatten();
    let deployments = folders.filter(|entry| entry.path().is_dir()).count();
    assert_eq!(deployments, count);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_116_instances_are_made_and_deleted_by_a_broker_that_is_killed() {
    let mut broker = BrokerProcess::start().await;
    let inside = Inside::of(&broker);
    for delay in DELAYS {
        let work = provision(&broker, "i", json!({})).await;
        let end = work.end_with_a_kill(&mut broker, delay).await;
        assert!(end.starts_with("succeeded"), "after {delay} ms: {end}");
        assert_clusters(&broker, &inside, 1).await;
        let work = deprovision(&broker, "i").await;
        let end = work.end_with_a_kill(&mut broker, delay).await;
        assert!(end.starts_with("succeeded"), "after {delay} ms: {end}");
        assert_clusters(&broker, &inside, 0).await;
        assert_eq!(files_of_deployments(&broker), Vec::<String>::new());
    }
    let work = provision(&broker, "i", json!({})).await;
    let (end, met) = work.end_with_a_kill_in_each_step(&mut broker).await;
    assert!(end.starts_with("succeeded"), "{end}");
    assert!(met.len() >= 2, "killed in {met:?} only");
    assert_clusters(&broker, &inside, 1).await;
    let work = deprovision(&broker, "i").await;
    let (end, met) = work.end_with_a_kill_in_each_step(&mut broker).await;
    assert!(end.starts_with("succeeded"), "killed in {met:?}: {end}");
    assert_clusters(&broker, &inside, 0).await;
}

/// An instance `i` with some keys.
async fn with_keys(broker: &TestBroker) -> Value {
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "app").await;
    let mut database = etcd::connect(&credentials).await;
    etcd::fill(&mut database, 50, "v").await;
    credentials
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_116_bindings_and_backups_are_made_by_a_broker_that_is_killed() {
    let mut broker = BrokerProcess::start().await;
    let inside = Inside::of(&broker);
    let credentials = with_keys(&broker).await;
    let only_own = vec![etcd::user(&credentials)];
    for delay in DELAYS {
        let work = change_binding(&broker, Method::PUT, "b").await;
        let end = work.end_with_a_kill(&mut broker, delay).await;
        assert!(end.starts_with("succeeded"), "after {delay} ms: {end}");
        let bound = binding(&broker, "b").await;
        let mut database = etcd::connect(&bound).await;
        assert_eq!(etcd::dump(&mut database).await.len(), 50);
        let (users, _) = inside.users_and_roles("i", &credentials).await;
        assert_eq!(users.len(), 2);
        let work = change_binding(&broker, Method::DELETE, "b").await;
        let end = work.end_with_a_kill(&mut broker, delay).await;
        assert!(end.starts_with("succeeded"), "after {delay} ms: {end}");
        let left = inside.users_and_roles("i", &credentials).await;
        assert_eq!(left, (only_own.clone(), only_own.clone()));
    }
    for delay in DELAYS {
        let (work, backup) = back_up(&broker, &credentials).await;
        let end = work.end_with_a_kill(&mut broker, delay).await;
        assert!(end.starts_with("complete"), "after {delay} ms: {end}");
        assert_only_backup(&broker, &inside, &backup).await;
    }
    let (work, backup) = back_up(&broker, &credentials).await;
    let (end, met) = work.end_with_a_kill_in_each_step(&mut broker).await;
    assert!(end.starts_with("complete"), "killed in {met:?}: {end}");
    assert_only_backup(&broker, &inside, &backup).await;
    assert_clusters(&broker, &inside, 1).await;
}

/// This backup, with its two objects, and no other one; and the register of its deployment's.
async fn assert_only_backup(broker: &TestBroker, inside: &Inside, id: &str) {
    inside.idle("i").await;
    let files = files_of_deployments(broker);
    let of_backups = files.iter().filter(|file| file.starts_with("backups/"));
    let objects: Vec<&String> = of_backups
        .filter(|file| !file.ends_with(REGISTER))
        .collect();
    let whole = objects.len() == 2 && objects.iter().all(|object| object.contains(id));
    assert!(whole, "{id}: {objects:?}");
}

/// A restore of the instance `i` into `copy`, accepted.
async fn restore(broker: &TestBroker, credentials: &Value) -> Work {
    let backup = broker.back_up(credentials).await;
    assert_eq!(backup["status"], "complete", "{backup}");
    let parameters = json!({ "source_service_instance_id": "i", "backup_id": backup["id"] });
    provision(broker, "copy", parameters).await
}

async fn assert_copied(broker: &TestBroker, inside: &Inside, source: &Value) {
    assert_clusters(broker, inside, 2).await;
    let copy = broker.bind("copy", "app").await;
    let (copy, source) = (
        &mut etcd::connect(&copy).await,
        &mut etcd::connect(source).await,
    );
    assert_eq!(etcd::dump(copy).await, etcd::dump(source).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_succeeds_with_a_broker_that_is_killed_in_each_step() {
    let mut broker = BrokerProcess::start().await;
    let inside = Inside::of(&broker);
    let credentials = with_keys(&broker).await;
    let work = restore(&broker, &credentials).await;
    let (end, met) = work.end_with_a_kill_in_each_step(&mut broker).await;
    assert!(end.starts_with("succeeded"), "killed in {met:?}: {end}");
    assert!(met.len() >= 3, "killed in {met:?} only");
    assert_copied(&broker, &inside, &credentials).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_gets_through_a_storm_of_kills() {
    let mut broker = BrokerProcess::start().await;
    let inside = Inside::of(&broker);
    broker
        .provision("i", json!({ "db_version": "3.4.23" }))
        .await;
    let credentials = broker.bind("i", "app").await;
    etcd::fill(&mut etcd::connect(&credentials).await, 50, "v").await;
    let body = json!({ "service_id": SERVICE, "parameters": { "db_version": "3.6.16" } });
    let path = "/v2/service_instances/i?accepts_incomplete=true";
    let accepted = answer(broker.osb(Method::PATCH, path).json(&body)).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let work = work_on_instance("i", &accepted.body);
    let mut kills: u64 = 0;
    while inside
        .newest("i", OperationKind::Update)
        .await
        .state
        .is_active()
    {
        // From start to kill: 200 to 600 ms in an uneven order, then longer and longer.
        sleep(Duration::from_millis(
            200 + (kills * 170) % 410 + kills * 60,
        ))
        .await;
        broker.kill();
        kills += 1;
        broker.spawn();
    }
    broker.serving().await;
    let end = work.end(&broker).await;
    assert!(end.starts_with("succeeded"), "after {kills} kills: {end}");
    assert!(kills >= 5, "only {kills} kills");
    assert_clusters(&broker, &inside, 1).await;
    let (deployment, _) = inside.deployment("i").await.expect("a deployment");
    assert_eq!(deployment.version.to_string(), "3.6.16");
    assert!(deployment.is_in_one_shape());
    let mut database = etcd::connect(&credentials).await;
    assert_eq!(etcd::dump(&mut database).await.len(), 50);
    broker.bind("i", "second").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_gets_through_a_storm_of_kills() {
    /// Kills that restores must live through at least.
    const KILLS_MIN: u64 = 8;
    let mut broker = BrokerProcess::start().await;
    let inside = Inside::of(&broker);
    let credentials = with_keys(&broker).await;
    let mut kills: u64 = 0;
    // On a fast machine one restore does not last as long as the storm does.
    while kills < KILLS_MIN {
        let work = restore(&broker, &credentials).await;
        while inside
            .newest("copy", OperationKind::Restore)
            .await
            .state
            .is_active()
        {
            // From start to kill: 150 to 400 ms in an uneven order, then longer and longer.
            let uneven = 150 + (kills * 110) % 260;
            let longer = kills.saturating_sub(KILLS_MIN) * 150;
            sleep(Duration::from_millis(uneven + longer)).await;
            broker.kill();
            kills += 1;
            broker.spawn();
        }
        broker.serving().await;
        let end = work.end(&broker).await;
        assert!(end.starts_with("succeeded"), "after {kills} kills: {end}");
        assert_copied(&broker, &inside, &credentials).await;
        broker.deprovision("copy").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_and_their_clients_do_not_notice_that_the_broker_dies() {
    let mut broker = BrokerProcess::start().await;
    let credentials = with_keys(&broker).await;
    let before = sorted(broker.members());
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(write_on(etcd::connect(&credentials).await, stop.clone()));
    broker.kill_and_start_again().await;
    assert_eq!(sorted(broker.members()), before);
    let ended = tokio::task::spawn_blocking(broker.terminate()).await;
    let status = ended.expect("an end");
    assert!(status.success(), "{status}");
    assert_eq!(sorted(broker.members()), before);
    broker.start_again().await;
    assert_eq!(sorted(broker.members()), before);
    stop.store(true, Ordering::Relaxed);
    let written = writer.await.expect("no write failed");
    assert!(written > 0);
    // The new broker can do with them all that the old one could.
    broker.bind("i", "second").await;
    assert_eq!(sorted(broker.members()), before);
    let keys = etcd::dump(&mut etcd::connect(&credentials).await).await;
    assert_eq!(keys.len(), 50 + written);
}

fn sorted(mut pids: Vec<i32>) -> Vec<i32> {
    pids.sort_unstable();
    pids
}

/// Writes one new key after the other; returns how many.
async fn write_on(mut client: etcd_client::Client, stop: Arc<AtomicBool>) -> usize {
    let mut written = 0;
    while !stop.load(Ordering::Relaxed) {
        let key = format!("later-{written:06}");
        client.put(key, "x", None).await.expect("a put");
        written += 1;
    }
    written
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_122_a_request_that_runs_is_answered_by_a_broker_that_is_told_to_end() {
    let mut broker = BrokerProcess::start().await;
    let inside = Inside::of(&broker);
    with_keys(&broker).await;
    let path = "/v2/service_instances/i/service_bindings/late";
    let body = json!({ "service_id": SERVICE, "plan_id": STANDARD });
    let binding = tokio::spawn(answer(broker.osb(Method::PUT, path).json(&body)));
    eventually("the second bind", || async {
        let outcomes = inside.outcomes("i").await;
        let binds = outcomes.iter().filter(|(kind, _)| *kind == "bind").count();
        (binds == 2).then_some(())
    })
    .await;
    let ended = tokio::task::spawn_blocking(broker.terminate());
    let answer = binding.await.expect("an answer");
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    let status = ended.await.expect("an end");
    assert!(status.success(), "{status}");
    let mut database = etcd::connect(&answer.body["credentials"]).await;
    assert_eq!(etcd::dump(&mut database).await.len(), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_die_come_back_with_their_data() {
    let mut broker = BrokerProcess::start().await;
    let credentials = with_keys(&broker).await;
    let all = sorted(broker.members());
    assert_eq!(all.len(), MEMBERS);
    // Later and later, so that a member that cannot live does not eat up the machine.
    let mut known = all;
    let mut victim = known[0];
    for at_least in [Duration::from_millis(500), Duration::from_millis(1000)] {
        let killed = Instant::now();
        kill(victim);
        victim = eventually("a new member", || async {
            let new = broker
                .members()
                .into_iter()
                .find(|pid| !known.contains(pid));
            new.filter(|_| broker.members().len() == MEMBERS)
        })
        .await;
        assert!(killed.elapsed() >= at_least, "{:?}", killed.elapsed());
        known.push(victim);
    }
    assert_every_member_serves(&credentials).await;

    broker.kill();
    let all = broker.members();
    all.iter().for_each(|pid| kill(*pid));
    eventually("the end of all members", || async {
        broker.members().is_empty().then_some(())
    })
    .await;
    broker.start_again().await;
    assert_every_member_serves(&credentials).await;
    let now = broker.members();
    assert_eq!(now.len(), MEMBERS);
    assert!(now.iter().all(|pid| !all.contains(pid)));
}

/// Each of the members has all keys.
async fn assert_every_member_serves(credentials: &Value) {
    for field in ["uri", "uri_direct_1", "uri_direct_2"] {
        eventually("a member that serves", || async {
            let mut client = etcd::connect_to(credentials, field).await.ok()?;
            let all = etcd_client::GetOptions::new()
                .with_all_keys()
                .with_count_only();
            let found = client.get("", Some(all)).await.ok()?;
            (found.count() == 50).then_some(())
        })
        .await;
    }
}
