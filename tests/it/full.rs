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

use compose_broker::model::limits::UNIT_BYTES;
use etcd_client::{AlarmAction, AlarmType, Client, DeleteOptions, PutOptions};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::{
    broker::{TestBroker, answer, eventually, text},
    etcd,
    inside::Inside,
};

macro_rules! for_each_version {
    ($($test:ident: $version:literal),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                filling_it_opens_nothing($version).await;
            }
        )*
    };
}

for_each_version!(
    filling_etcd_3_3_25_opens_nothing: "3.3.25",
    filling_etcd_3_4_23_opens_nothing: "3.4.23",
    filling_etcd_3_5_35_opens_nothing: "3.5.35",
    filling_etcd_3_6_16_opens_nothing: "3.6.16",
    filling_etcd_3_7_3_opens_nothing: "3.7.3",
);

/// How long strangers and the tenant itself try, from the moment on when it is full.
const TRIED_FOR: Duration = Duration::from_secs(30);
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
    fn begin(credentials: &Value) -> Self {
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
                    for what in tries(client, is_stranger, &user).await {
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
async fn tries(mut client: Client, is_stranger: bool, user: &str) -> Vec<String> {
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
    if is_stranger {
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

/// Puts until nothing is taken any more; tells when the quota was passed and when it ended.
async fn fill_up(credentials: &Value) -> (Instant, Instant) {
    let written = Arc::new(AtomicU64::new(0));
    let passed = Arc::new(Mutex::new(None));
    let writers = (0..4).map(|writer| {
        let (credentials, written, passed) = (credentials.clone(), written.clone(), passed.clone());
        tokio::spawn(async move {
            let value = vec![7u8; 1_000_000];
            let mut client = etcd::connect(&credentials).await;
            let mut refused = 0;
            for index in 0.. {
                let put = client.put(format!("{FILL}{writer}/{index}"), value.clone(), None);
                if matches!(timeout(CALL * 5, put).await, Ok(Ok(_))) {
                    refused = 0;
                    let bytes = written.fetch_add(1_000_000, Ordering::Relaxed);
                    if bytes >= UNIT_BYTES {
                        passed
                            .lock()
                            .expect("a moment")
                            .get_or_insert(Instant::now());
                    }
                    continue;
                }
                refused += 1;
                if refused > 2 {
                    return;
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("an end");
    }
    let ended = Instant::now();
    let passed = passed.lock().expect("a moment").unwrap_or(ended);
    (passed, ended)
}

async fn filling_it_opens_nothing(version: &str) {
    let is_safe =
        compose_broker::engine::etcd::PROFILE.full_is_safe(version.parse().expect("a version"));
    let broker = TestBroker::start().await;
    broker
        .provision("i", json!({ "db_version": version }))
        .await;
    let credentials = broker.bind("i", "b").await;
    let inside = Inside::of(&broker);
    let before = inside.users_and_roles("i", &credentials).await;
    let mut client = etcd::connect(&credentials).await;
    client.put(SECRET, "secret", None).await.expect("put");

    let attack = Attack::begin(&credentials);
    let (passed, ended) = fill_up(&credentials).await;
    if !is_safe {
        eventually("the database is closed", || async {
            let (deployment, _) = inside.deployment("i").await?;
            deployment.closed_since.map(|_| ())
        })
        .await;
    }
    println!(
        "{version}: no more writes {:?} after the quota was passed",
        ended.saturating_duration_since(passed)
    );
    sleep(TRIED_FOR).await;
    let (succeeded, tried) = attack.end().await;
    assert_eq!(succeeded, BTreeSet::new(), "{version}");
    println!("{version}: tried {tried} times, in vain");

    if is_safe {
        stays_readable_and_is_emptied(&broker, &credentials).await;
    } else {
        is_closed_and_says_so(&broker, &credentials).await;
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
    assert_eq!(
        alerts_of_grave_things(&broker, &credentials).await,
        Vec::<String>::new()
    );
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

async fn is_closed_and_says_so(broker: &TestBroker, credentials: &Value) {
    let told = alerts_of_grave_things(broker, credentials).await;
    assert!(
        told.iter().any(
            |message| message.contains("nobody but the broker is let in: the database is full")
        ),
        "{told:?}"
    );
    let refused = timeout(CALL, async {
        let mut client = etcd::connect_to(credentials, "uri").await?;
        client.get(SECRET, None).await
    });
    assert!(!matches!(refused.await, Ok(Ok(_))), "it is closed");
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
    let recipe = api(broker, Method::POST, credentials, "/reliefs", body).await;
    let done = broker.recipe_end(credentials, &recipe).await;
    assert_eq!(done["status"], "complete", "{done}");
    assert_eq!(done["name"], "Make room in the database");
}

async fn stays_readable_and_is_emptied(broker: &TestBroker, credentials: &Value) {
    let told = alerts_of_grave_things(broker, credentials).await;
    assert!(
        told.iter().any(|message| message.contains("NOSPACE")),
        "{told:?}"
    );
    let mut client = etcd::connect(credentials).await;
    client.get(SECRET, None).await.expect("readable");
    let refused = client.put("/more", vec![7; 1_000_000], None).await;
    assert!(refused.is_err(), "it is full");
    let all = DeleteOptions::new().with_prefix();
    client.delete(FILL, Some(all)).await.expect("deleted");
    let recipe = api(broker, Method::POST, credentials, "/reliefs", json!({})).await;
    let done = broker.recipe_end(credentials, &recipe).await;
    assert_eq!(done["status"], "complete", "{done}");
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
                whoever_comes_in_is_found($version).await;
            }
        )*
    };
}

for_each_open_version!(
    whoever_comes_into_etcd_3_3_25_is_found: "3.3.25",
    whoever_comes_into_etcd_3_4_23_is_found: "3.4.23",
    whoever_comes_into_etcd_3_5_16_is_found: "3.5.16",
);

/// These versions let a stranger say that the database is full, and check nothing from then on.
async fn whoever_comes_in_is_found(version: &str) {
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
