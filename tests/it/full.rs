//! Databases that a tenant fills up by nothing but puts: whatever the version, nobody gets at more
//! than before, and there is a way out.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use compose_broker::{
    app::Surroundings,
    model::{
        limits::{FULL_LOOK_INTERVAL, UNIT_BYTES},
        patience::Patience,
    },
};
use etcd_client::{AlarmAction, AlarmType, Client, DeleteOptions, PutOptions};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::{
    broker::{SERVICE, STANDARD, TestBroker, answer, binding_path, eventually, text},
    control, etcd,
    inside::Inside,
};

#[tokio::test(flavor = "multi_thread")]
async fn filling_a_database_of_any_line_opens_nothing() {
    // One after the other: each fills a disk with more than a gigabyte.
    for version in ["3.3.25", "3.4.23", "3.5.35", "3.6.16", "3.7.3"] {
        filling_it_opens_nothing(version).await;
    }
}

/// How long strangers and the tenant itself try, from the moment on when it is full: longer than from one
/// look of the broker to the next.
const TRIED_FOR: Duration = FULL_LOOK_INTERVAL.saturating_add(Duration::from_secs(5));
/// Longer than one call of theirs takes when it is answered.
const CALL: Duration = Duration::from_secs(2);
const SECRET: &str = "/secret";
const FILL: &str = "/fill/";

/// Tries again and again what nobody without rights may do, as a stranger and as a tenant.
struct Attack {
    stop: Arc<AtomicBool>,
    succeeded: Arc<Mutex<BTreeSet<String>>>,
    tried: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<()>>,
}

impl Attack {
    /// `is_limited`: the tenant may reach nothing but what it fills the database with.
    fn begin(credentials: &Value, is_limited: bool) -> Self {
        let attack = Self {
            stop: Arc::default(),
            succeeded: Arc::default(),
            tried: Arc::default(),
            tasks: Vec::new(),
        };
        let tasks = [true, false].map(|is_stranger| {
            let credentials = credentials.clone();
            let (stop, tried) = (attack.stop.clone(), attack.tried.clone());
            let succeeded = attack.succeeded.clone();
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let connecting = async {
                        if is_stranger {
                            etcd::connect_anonymously(&credentials).await
                        } else {
                            etcd::connect_to(&credentials, "uri").await
                        }
                    };
                    let Ok(Ok(client)) = timeout(CALL, connecting).await else {
                        sleep(Duration::from_millis(20)).await;
                        continue;
                    };
                    let user = etcd::user(&credentials);
                    let deletes = is_stranger || is_limited;
                    for what in tries(client, is_stranger, deletes, &user).await {
                        succeeded.lock().expect("a list").insert(what);
                    }
                    tried.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        Self {
            tasks: tasks.into(),
            ..attack
        }
    }

    /// What succeeded, and how often all of it was tried.
    async fn end(self) -> (BTreeSet<String>, u64) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("an end");
        }
        let succeeded = self.succeeded.lock().expect("a list").clone();
        (succeeded, self.tried.load(Ordering::Relaxed))
    }
}

/// One round of tries; returns those that were let through.
async fn tries(mut client: Client, is_stranger: bool, deletes: bool, user: &str) -> Vec<String> {
    let who = if is_stranger {
        "a stranger"
    } else {
        "the tenant"
    };
    let mut through = Vec::new();
    let mut note = |what: &str, done: bool| {
        if done {
            through.push(format!("{who}: {what}"));
        }
    };
    macro_rules! try_to {
        ($what:literal, $call:expr) => {
            note($what, matches!(timeout(CALL, $call).await, Ok(Ok(_))));
        };
    }
    if deletes {
        try_to!("delete a key", client.delete(SECRET, None));
    }
    try_to!("add a user", client.user_add("eve", "password", None));
    try_to!("add a role", client.role_add("eve"));
    try_to!("become root", client.user_grant_role(user, "root"));
    try_to!(
        "change the administrator's password",
        client.user_change_password("root", "eve")
    );
    try_to!("switch logins off", client.auth_disable());
    through
}

/// Puts without an end, by several clients, whatever is refused.
struct Filling {
    stop: Arc<AtomicBool>,
    /// When the first put was refused.
    refused: Arc<Mutex<Option<Instant>>>,
    /// When more than the quota had been put.
    passed: Arc<Mutex<Option<Instant>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Filling {
    fn begin(credentials: &Value) -> Self {
        let mut filling = Self {
            stop: Arc::default(),
            refused: Arc::default(),
            passed: Arc::default(),
            tasks: Vec::new(),
        };
        let written = Arc::new(AtomicU64::new(0));
        for writer in 0..4 {
            let (credentials, written) = (credentials.clone(), written.clone());
            let (stop, refused) = (filling.stop.clone(), filling.refused.clone());
            let passed = filling.passed.clone();
            filling.tasks.push(tokio::spawn(async move {
                let value = vec![7u8; 1_000_000];
                let mut index = 0;
                while !stop.load(Ordering::Relaxed) {
                    let Ok(Ok(mut client)) =
                        timeout(CALL, etcd::connect_to(&credentials, "uri")).await
                    else {
                        sleep(Duration::from_millis(50)).await;
                        continue;
                    };
                    while !stop.load(Ordering::Relaxed) {
                        index += 1;
                        let key = format!("{FILL}{writer}/{index}");
                        let put = client.put(key, value.clone(), None);
                        if !matches!(timeout(CALL * 5, put).await, Ok(Ok(_))) {
                            let mut refused = refused.lock().expect("a moment");
                            refused.get_or_insert(Instant::now());
                            break;
                        }
                        if written.fetch_add(1_000_000, Ordering::Relaxed) >= UNIT_BYTES {
                            let mut passed = passed.lock().expect("a moment");
                            passed.get_or_insert(Instant::now());
                        }
                    }
                    sleep(Duration::from_millis(50)).await;
                }
            }));
        }
        filling
    }

    /// Waits until it is full, and tells how long puts were taken beyond the quota.
    async fn is_full(&self) -> Duration {
        let moment = |of: &Mutex<Option<Instant>>| *of.lock().expect("a moment");
        let refused = eventually("the end of its room", || async { moment(&self.refused) }).await;
        let passed = moment(&self.passed).unwrap_or(refused);
        refused.saturating_duration_since(passed)
    }

    /// How long ago the quota was passed, or else the first put was refused.
    fn since_passed(&self) -> Duration {
        let moment = |of: &Mutex<Option<Instant>>| *of.lock().expect("a moment");
        let passed = moment(&self.passed).or(moment(&self.refused));
        passed.map_or(Duration::ZERO, |at| at.elapsed())
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("an end");
        }
    }
}

/// A binding of `i` that reaches only the keys with a prefix.
async fn bind_to(broker: &TestBroker, prefix: &str) -> Value {
    let body = json!({
        "service_id": SERVICE, "plan_id": STANDARD, "parameters": { "prefix": prefix },
    });
    let bound = answer(
        broker
            .osb(Method::PUT, &binding_path("i", "tenant"))
            .json(&body),
    );
    let bound = bound.await;
    assert_eq!(bound.status, StatusCode::CREATED, "{bound:?}");
    bound.body["credentials"].clone()
}

/// As patient as a broker of users: members start anew when a database is closed, and what is asked of them
/// meanwhile waits.
fn of_a_user() -> Surroundings {
    Surroundings {
        patience: Patience::default(),
        ..control::surroundings()
    }
}

async fn filling_it_opens_nothing(version: &str) {
    let is_safe =
        compose_broker::engine::etcd::PROFILE.full_is_safe(version.parse().expect("a version"));
    let broker = TestBroker::start_with(&[], of_a_user()).await;
    broker
        .provision("i", json!({ "db_version": version }))
        .await;
    let credentials = broker.bind("i", "b").await;
    let tenant = if is_safe {
        // What other versions would not hold it to.
        bind_to(&broker, FILL).await
    } else {
        broker.bind("i", "tenant").await
    };
    let inside = Inside::of(&broker);
    let before = inside.users_and_roles("i", &credentials).await;
    let mut client = etcd::connect(&credentials).await;
    client.put(SECRET, "secret", None).await.expect("put");

    let attack = Attack::begin(&tenant, is_safe);
    let filling = Filling::begin(&tenant);
    let beyond = filling.is_full().await;
    if !is_safe {
        let closed = eventually("its closing", || async {
            let (deployment, _) = inside.deployment("i").await?;
            deployment.closed_since.map(|_| filling.since_passed())
        });
        println!(
            "{version}: closed {:?} after the quota was passed",
            closed.await
        );
    }
    println!("{version}: puts were taken for {beyond:?} beyond the quota");
    sleep(TRIED_FOR).await;
    let (succeeded, tried) = attack.end().await;
    assert_eq!(succeeded, BTreeSet::new(), "{version}");
    println!("{version}: tried {tried} times, in vain");

    if is_safe {
        is_full_and_says_so(&broker, &credentials).await;
        filling.end().await;
        stays_readable_and_is_emptied(&credentials).await;
    } else {
        is_closed_and_says_so(&broker, &credentials).await;
        filling.end().await;
        is_relieved(&broker, &credentials).await;
    }
    let mut client = eventually("a connection", || async {
        let mut client = etcd::connect_to(&credentials, "uri").await.ok()?;
        let got = timeout(CALL, client.get(SECRET, None)).await.ok()?.ok()?;
        assert_eq!(got.kvs()[0].value(), b"secret");
        Some(client)
    })
    .await;
    client.put("/after", "it", None).await.expect("put");
    assert_eq!(inside.users_and_roles("i", &credentials).await, before);
    eventually("the end of the alerts", || async {
        let told = alerts_of_grave_things(&broker, &credentials).await;
        told.is_empty().then_some(())
    })
    .await;
}

async fn api(broker: &TestBroker, method: Method, of: &Value, path: &str, body: Value) -> Value {
    let path = format!("/deployments/{}{path}", text(&of["deployment_id"]));
    let got = answer(broker.compose(method, of, &path).json(&body)).await;
    assert!(got.status.is_success(), "{got:?}");
    got.body
}

async fn alerts_of_grave_things(broker: &TestBroker, of: &Value) -> Vec<String> {
    let told = api(broker, Method::GET, of, "/alerts", json!({})).await;
    let all = told["_embedded"]["alerts"].as_array().expect("a list");
    all.iter()
        .filter(|alert| alert["status"] == "critical")
        .map(|alert| text(&alert["message"]).to_owned())
        .collect()
}

/// Whether an alert says so.
async fn is_told(broker: &TestBroker, of: &Value, what: &str) -> bool {
    let told = alerts_of_grave_things(broker, of).await;
    told.iter().any(|message| message.contains(what))
}

async fn is_closed_and_says_so(broker: &TestBroker, credentials: &Value) {
    // While it is filled on: where a lot of what was written is history, there may be room again once
    // more, and the next write closes it again.
    eventually("a database that is closed and says so", || async {
        let closed = "nobody but the broker is let in: the database is full";
        if !is_told(broker, credentials, closed).await {
            return None;
        }
        let refused = timeout(CALL, async {
            let mut client = etcd::connect_to(credentials, "uri").await?;
            client.get(SECRET, None).await
        });
        (!matches!(refused.await, Ok(Ok(_)))).then_some(())
    })
    .await;
    // The broker itself gets in, and a backup is taken.
    let backup = broker.back_up(credentials).await;
    assert_eq!(backup["status"], "complete", "{backup}");
}

async fn is_relieved(broker: &TestBroker, credentials: &Value) {
    let path = format!(
        "/deployments/{}/reliefs",
        text(&credentials["deployment_id"])
    );
    for body in [json!({ "deployment": { "delete_prefix": 1 } }), json!([])] {
        let refused = answer(broker.compose(Method::POST, credentials, &path).json(&body)).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{refused:?}");
    }
    let body = json!({ "deployment": { "delete_prefix": FILL } });
    // The broker tries to make room by itself, now and then, and starts the members anew for it.
    let recipe = eventually("a turn to make room", || async {
        let asked = answer(broker.compose(Method::POST, credentials, &path).json(&body)).await;
        if asked.status == StatusCode::UNPROCESSABLE_ENTITY {
            let reason = asked.body.to_string();
            let passes = ["room is being made", "and it takes 2 that serve"];
            assert!(passes.iter().any(|of| reason.contains(of)), "{reason}");
            return None;
        }
        assert_eq!(asked.status, StatusCode::ACCEPTED, "{asked:?}");
        Some(asked.body)
    })
    .await;
    let done = broker.recipe_end(credentials, &recipe).await;
    assert_eq!(done["status"], "complete", "{done}");
    assert_eq!(done["name"], "Make room in the database");
}

/// While it is filled on, as above.
async fn is_full_and_says_so(broker: &TestBroker, credentials: &Value) {
    eventually("a database that is full and says so", || async {
        if !is_told(
            broker,
            credentials,
            "The database is full and takes no more writes",
        )
        .await
        {
            return None;
        }
        let mut client = etcd::connect_to(credentials, "uri").await.ok()?;
        client.get(SECRET, None).await.expect("readable");
        let refused = client.put("/more", vec![7; 1_000_000], None).await;
        refused.is_err().then_some(())
    })
    .await;
}

async fn stays_readable_and_is_emptied(credentials: &Value) {
    let mut client = etcd::connect(credentials).await;
    client.get(SECRET, None).await.expect("readable");
    let all = DeleteOptions::new().with_prefix();
    client.delete(FILL, Some(all)).await.expect("deleted");
    // The broker finds out by itself.
    eventually("room", || async {
        let mut client = etcd::connect_to(credentials, "uri").await.ok()?;
        let put = client.put("/more", "", Some(PutOptions::new()));
        timeout(CALL, put).await.ok()?.ok().map(|_| ())
    })
    .await;
}

macro_rules! for_each_open_version {
    ($($test:ident: $version:literal),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                who_comes_in_is_found($version).await;
            }
        )*
    };
}

for_each_open_version!(
    who_comes_into_etcd_3_3_25_is_found: "3.3.25",
    who_comes_into_etcd_3_4_23_is_found: "3.4.23",
    who_comes_into_etcd_3_5_16_is_found: "3.5.16",
);

/// These versions let a stranger say that the database is full, and check nothing from then on.
async fn who_comes_in_is_found(version: &str) {
    let broker = TestBroker::start().await;
    broker
        .provision("i", json!({ "db_version": version }))
        .await;
    let credentials = broker.bind("i", "b").await;
    let inside = Inside::of(&broker);
    let before = inside.users_and_roles("i", &credentials).await;
    let begun = Instant::now();
    eventually("a stranger gets in", || async {
        let mut stranger = etcd::connect_anonymously(&credentials).await.ok()?;
        let alarm = stranger.alarm(AlarmAction::Activate, AlarmType::Nospace, None);
        alarm.await.ok()?;
        stranger.user_add("eve", "password", None).await.ok()
    })
    .await;
    let incident = eventually("what is told of it", || async {
        let told = api(&broker, Method::GET, &credentials, "/alerts", json!({})).await;
        let all = told["_embedded"]["alerts"].as_array()?.clone();
        let of_eve = |alert: &&Value| text(&alert["message"]).contains("\"eve\"");
        all.iter().find(of_eve).cloned()
    })
    .await;
    assert_eq!(incident["status"], "warning", "{incident}");
    eventually("the end of the alarm", || async {
        let (deployment, _) = inside.deployment("i").await?;
        let mut client = etcd::connect_to(&credentials, "uri").await.ok()?;
        let put = timeout(CALL, client.put("after", "it", None)).await.ok()?;
        (put.is_ok() && deployment.closed_since.is_none()).then_some(())
    })
    .await;
    println!(
        "{version}: open again {:?} after a stranger said it was full",
        begun.elapsed()
    );
    assert_eq!(inside.users_and_roles("i", &credentials).await, before);
    assert!(
        etcd::connect_as(&credentials, "uri", "eve", "password")
            .await
            .is_err(),
        "eve is gone"
    );
}
