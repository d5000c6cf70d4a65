//! Bindings that are less than everything for ever: held to a role or a prefix, with an end, with
//! a successor.

use std::time::Instant;

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use compose_broker::{
    app::Surroundings,
    model::{
        operation::{OperationKind, OperationState},
        origin::Origin,
    },
    operation::fault::{Fault, Moment},
};
use etcd_client::{GetOptions, PutOptions, Txn, TxnOp, WatchOptions};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{
        Answer, ENTERPRISE, SERVICE, STANDARD, TestBroker, answer, binding_path, eventually, text,
    },
    control::{Script, TestClock},
    database::Database,
    etcd,
    inside::Inside,
    saboteur::Saboteur,
    transport::description,
};

/// Asks for a binding of instance `i` with this body, waiting, as a platform that speaks 2.`minor`.
async fn put_as(broker: &TestBroker, minor: u32, binding: &str, body: &Value) -> Answer {
    let (username, password) = broker.platform();
    let request = broker
        .anonymous(Method::PUT, &binding_path("i", binding))
        .basic_auth(username, Some(password))
        .header("X-Broker-API-Version", format!("2.{minor}"))
        .json(body);
    answer(request).await
}

/// Asks for a binding with these parameters, waiting.
async fn put(broker: &TestBroker, binding: &str, parameters: Value) -> Answer {
    let body = json!({ "service_id": SERVICE, "plan_id": STANDARD, "parameters": parameters });
    put_as(broker, 17, binding, &body).await
}

/// Asks for a binding that takes over from another one.
async fn rotate(broker: &TestBroker, binding: &str, predecessor: &str) -> Answer {
    let body = json!({ "predecessor_binding_id": predecessor });
    put_as(broker, 17, binding, &body).await
}

async fn fetch(broker: &TestBroker, binding: &str) -> Answer {
    answer(broker.osb(Method::GET, &binding_path("i", binding))).await
}

fn credentials(made: &Answer) -> &Value {
    let is_made = [StatusCode::OK, StatusCode::CREATED].contains(&made.status);
    assert!(is_made, "{made:?}");
    &made.body["credentials"]
}

/// Whether database and administration API let these credentials in.
async fn lets_in(broker: &TestBroker, credentials: &Value) -> [bool; 2] {
    let api = answer(broker.compose(Method::GET, credentials, "")).await;
    let database = broker.database.lets_in(credentials).await;
    [database, api.status == StatusCode::OK]
}

fn time(told: &Value) -> DateTime<Utc> {
    let told = text(told);
    assert!(told.len() == 22 && told.ends_with(".0Z"), "{told}");
    told.parse().expect("a time")
}

/// A broker with instance `i`, whose clock and steps are in the test's hand.
async fn with_an_instance(
    database: Database,
    parameters: Value,
) -> (TestBroker, TestClock, Script) {
    let (clock, script) = (TestClock::default(), Script::default());
    let broker = database.broker(&[], script.surroundings_at(&clock)).await;
    broker.provision("i", parameters).await;
    (broker, clock, script)
}

async fn expired(broker: &TestBroker, binding: &str) {
    let inside = Inside::of(broker);
    eventually("the end of an expired binding", || async {
        let gone = fetch(broker, binding).await;
        assert!(description(&gone, StatusCode::NOT_FOUND).contains("expired"));
        let all = inside.operations("i").await;
        let ends = |o: &compose_broker::model::operation::Operation| {
            o.origin == Origin::Expiry && o.binding.as_ref().is_some_and(|b| b.as_str() == binding)
        };
        let done = all.iter().find(|o| ends(o));
        done.filter(|o| o.state == OperationState::Succeeded)?;
        Some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_097_a_binding_ends_when_its_time_is_over() {
    let (broker, clock, _script) = with_an_instance(Database::Etcd, json!({})).await;
    let lasting = put(&broker, "lasting", json!({})).await;
    assert_eq!(lasting.body.get("metadata"), None);
    let before = clock.now().trunc_subsecs(0);
    let made = put(&broker, "b", json!({ "expires_in": 3600 })).await;
    let after = clock.now();
    let credentials = credentials(&made).clone();
    let (end, renew) = (
        time(&made.body["metadata"]["expires_at"]),
        time(&made.body["metadata"]["renew_before"]),
    );
    let life = TimeDelta::hours(1);
    assert!(before + life <= end && end <= after + life, "{end}");
    assert!(
        renew < end && end - renew <= TimeDelta::seconds(901),
        "{renew} {end}"
    );
    let again = put(&broker, "b", json!({ "expires_in": 3600.0 })).await;
    assert_eq!(again.status, StatusCode::OK);
    assert_eq!(again.body, made.body);
    let fetched = fetch(&broker, "b").await;
    assert_eq!(fetched.body["metadata"], made.body["metadata"]);
    assert_eq!(fetched.body["parameters"], json!({ "expires_in": 3600 }));
    // Older platforms' schemas refuse what is newer than they are.
    for (minor, told) in [(13, false), (15, false), (16, true), (17, true), (99, true)] {
        let body = json!({
            "service_id": SERVICE, "plan_id": STANDARD, "parameters": { "expires_in": 3600 },
        });
        let again = put_as(&broker, minor, "b", &body).await;
        assert_eq!(again.body.get("metadata").is_some(), told, "2.{minor}");
    }
    clock.shift(TimeDelta::minutes(50));
    assert_eq!(lets_in(&broker, &credentials).await, [true, true]);
    // A clock that is set back gives more time, as the told time says.
    clock.shift(TimeDelta::days(-2));
    clock.shift(TimeDelta::days(2));
    assert_eq!(lets_in(&broker, &credentials).await, [true, true]);

    clock.shift(TimeDelta::minutes(11));
    expired(&broker, "b").await;
    assert_eq!(lets_in(&broker, &credentials).await, [false, false]);
    assert_eq!(
        lets_in(&broker, &lasting.body["credentials"]).await,
        [true, true]
    );
    let (users, roles) = Inside::of(&broker)
        .users_and_roles("i", &lasting.body["credentials"])
        .await;
    assert_eq!((users.len(), roles.len()), (1, 1));
    // What has expired does not come back, whatever the clock says, and its id is taken.
    clock.shift(TimeDelta::days(-30));
    for parameters in [json!({ "expires_in": 3600 }), json!({ "expires_in": 60 })] {
        description(&put(&broker, "b", parameters).await, StatusCode::CONFLICT);
    }
    expired(&broker, "b").await;
    assert_eq!(lets_in(&broker, &credentials).await, [false, false]);
    assert_eq!(broker.unbind("i", "b").await.status, StatusCode::OK);
    assert_eq!(broker.unbind("i", "b").await.status, StatusCode::GONE);
    let anew = put(&broker, "b", json!({ "expires_in": 3600 })).await;
    assert_eq!(anew.status, StatusCode::CREATED, "{anew:?}");
    assert_ne!(anew.body["credentials"], made.body["credentials"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_097_no_end_is_forgotten_over_restarts_failures_and_deletions() {
    let (mut broker, clock, script) = with_an_instance(Database::in_memory(), json!({})).await;
    // Long enough to be used on a slow machine, too.
    let life = json!({ "expires_in": 600 });
    // Its time is over while no broker runs.
    let slept = put(&broker, "slept", life.clone()).await;
    clock.shift(TimeDelta::minutes(-20));
    let later = TestClock::default();
    let surroundings = Surroundings {
        clock: later.clock(),
        ..script.surroundings()
    };
    later.shift(TimeDelta::minutes(20));
    broker.restart_with(surroundings).await;
    let clock = later;
    expired(&broker, "slept").await;
    assert!(!broker.database.lets_in(credentials(&slept)).await);

    // Its user cannot be removed at first.
    let inside = Inside::of(&broker);
    let stubborn = put(&broker, "stubborn", life.clone()).await;
    let failing = script.fail(OperationKind::Unbind, "remove_user");
    clock.shift(TimeDelta::minutes(20));
    eventually("a failure", || async {
        let newest = inside.newest("i", OperationKind::Unbind).await;
        (newest.origin == Origin::Expiry && newest.state == OperationState::Stuck).then_some(())
    })
    .await;
    let gone = fetch(&broker, "stubborn").await;
    assert!(description(&gone, StatusCode::NOT_FOUND).contains("expired"));
    assert_eq!(
        lets_in(&broker, credentials(&stubborn)).await,
        [true, false]
    );
    drop(failing);
    clock.shift(TimeDelta::minutes(20));
    eventually("another try", || async {
        (lets_in(&broker, credentials(&stubborn)).await == [false, false]).then_some(())
    })
    .await;

    // The platform gives it up while its end is under way: it is gone, not expired.
    credentials(&put(&broker, "given up", life.clone()).await);
    let held = script.hold(OperationKind::Unbind, "remove_user");
    clock.shift(TimeDelta::minutes(20));
    eventually("its end", || async {
        let newest = inside.newest("i", OperationKind::Unbind).await;
        let wanted = newest
            .binding
            .as_ref()
            .is_some_and(|b| b.as_str() == "given up");
        (wanted && newest.state == OperationState::Running).then_some(())
    })
    .await;
    let path = format!(
        "{}?service_id={SERVICE}&plan_id={STANDARD}&accepts_incomplete=true",
        binding_path("i", "given up")
    );
    let accepted = answer(broker.osb(Method::DELETE, &path)).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    drop(held);
    inside.idle("i").await;
    assert_eq!(
        broker.unbind("i", "given up").await.status,
        StatusCode::GONE
    );

    // Its time is over before it is made.
    let held = script.hold(OperationKind::Bind, "issue");
    let body = json!({ "service_id": SERVICE, "plan_id": STANDARD, "parameters": life });
    let path = format!("{}?accepts_incomplete=true", binding_path("i", "late"));
    let late = answer(broker.osb(Method::PUT, &path).json(&body)).await;
    assert_eq!(late.status, StatusCode::ACCEPTED, "{late:?}");
    clock.shift(TimeDelta::minutes(20));
    eventually("its end", || async {
        let newest = inside.newest("i", OperationKind::Unbind).await;
        newest.binding.filter(|b| b.as_str() == "late").map(drop)
    })
    .await;
    drop(held);
    expired(&broker, "late").await;
    let poll = format!(
        "{}/last_operation?operation={}",
        binding_path("i", "late"),
        text(&late.body["operation"])
    );
    assert_eq!(broker.end_of(&poll).await["state"], "failed");

    // With its instance goes what has expired, too.
    broker.deprovision("i").await;
    assert_eq!(broker.unbind("i", "slept").await.status, StatusCode::GONE);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_098_a_binding_takes_over_from_another_one() {
    let (broker, clock, script) = with_an_instance(Database::Etcd, json!({})).await;
    let parameters = json!({ "role": "reader", "prefix": "/app/", "expires_in": 3600 });
    let begun = Instant::now();
    let old = put(&broker, "old", parameters.clone()).await;
    clock.shift(TimeDelta::minutes(30));
    // Nothing but the predecessor's id is needed, and what is said besides must be true.
    let new = rotate(&broker, "new", "old").await;
    assert_eq!(new.status, StatusCode::CREATED, "{new:?}");
    assert_ne!(
        new.body["credentials"]["uri"],
        old.body["credentials"]["uri"]
    );
    let later =
        time(&new.body["metadata"]["expires_at"]) - time(&old.body["metadata"]["expires_at"]);
    let meanwhile = 1 + i64::try_from(begun.elapsed().as_secs()).expect("a short while");
    assert!(
        (1799..=1800 + meanwhile).contains(&later.num_seconds()),
        "{later}"
    );
    assert_eq!(fetch(&broker, "new").await.body["parameters"], parameters);
    for made in [&old, &new] {
        let credentials = credentials(made);
        assert!(broker.database.lets_in(credentials).await);
        let mut client = etcd::connect(credentials).await;
        assert!(client.put("/app/k", "v", None).await.is_err());
        assert!(client.get("/other", None).await.is_err());
    }
    // 99: the same again is the same, anything else is another request.
    let full = json!({
        "predecessor_binding_id": "old", "service_id": SERVICE, "plan_id": STANDARD,
        "parameters": { "prefix": "/app/", "role": "reader", "expires_in": 3600 },
    });
    for body in [json!({ "predecessor_binding_id": "old" }), full.clone()] {
        let again = put_as(&broker, 17, "new", &body).await;
        assert_eq!((again.status, &again.body), (StatusCode::OK, &new.body));
    }
    let third = rotate(&broker, "third", "new").await;
    assert_eq!(third.status, StatusCode::CREATED, "{third:?}");
    let other = |change: Value| {
        let mut body = full.clone();
        for (field, value) in change.as_object().expect("an object") {
            body[field] = value.clone();
        }
        body
    };
    for body in [
        other(json!({ "predecessor_binding_id": "third" })),
        other(json!({ "predecessor_binding_id": "unknown" })),
        other(json!({ "predecessor_binding_id": null })),
        other(json!({ "parameters": { "role": "writer" } })),
        other(json!({ "plan_id": ENTERPRISE, "parameters": {} })),
    ] {
        let refused = put_as(&broker, 17, "new", &body).await;
        assert_eq!(refused.status, StatusCode::CONFLICT, "{body}: {refused:?}");
    }
    let refusals = [
        other(json!({ "predecessor_binding_id": "unknown" })),
        other(json!({ "predecessor_binding_id": "newest" })),
        other(json!({ "predecessor_binding_id": 5 })),
        other(json!({ "predecessor_binding_id": "x".repeat(300) })),
        other(json!({ "parameters": { "role": "writer" } })),
        other(json!({ "plan_id": ENTERPRISE })),
        other(json!({ "service_id": "unknown" })),
    ];
    for body in refusals {
        let refused = put_as(&broker, 17, "newest", &body).await;
        assert_eq!(
            refused.status,
            StatusCode::BAD_REQUEST,
            "{body}: {refused:?}"
        );
        assert_eq!(fetch(&broker, "newest").await.status, StatusCode::NOT_FOUND);
    }
    let itself = rotate(&broker, "old", "old").await;
    description(&itself, StatusCode::BAD_REQUEST);
    // Without a predecessor the ids are needed, also when an empty one is named.
    let empty = json!({ "predecessor_binding_id": "", "plan_id": STANDARD });
    description(
        &put_as(&broker, 17, "newest", &empty).await,
        StatusCode::BAD_REQUEST,
    );

    // The predecessor goes, and its successors stay; a repeat does not need it.
    assert_eq!(broker.unbind("i", "old").await.status, StatusCode::OK);
    assert_eq!(rotate(&broker, "new", "old").await.status, StatusCode::OK);
    assert!(broker.database.lets_in(credentials(&new)).await);
    clock.shift(TimeDelta::hours(2));
    expired(&broker, "new").await;
    let late = rotate(&broker, "newest", "new").await;
    description(&late, StatusCode::BAD_REQUEST);
    description(&rotate(&broker, "new", "old").await, StatusCode::CONFLICT);

    let held = script.hold(OperationKind::Bind, "add_user");
    let path = format!("{}?accepts_incomplete=true", binding_path("i", "slow"));
    let body = json!({ "service_id": SERVICE, "plan_id": STANDARD });
    answer(broker.osb(Method::PUT, &path).json(&body)).await;
    let early = rotate(&broker, "newest", "slow").await;
    description(&early, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(early.body["error"], "ConcurrencyError");
    drop(held);
    let elsewhere = binding_path("unknown", "b");
    let body = json!({ "predecessor_binding_id": "slow" });
    let elsewhere = answer(broker.osb(Method::PUT, &elsewhere).json(&body)).await;
    description(&elsewhere, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_changes_nothing_and_a_prefix_is_kept() {
    let (broker, _clock, _script) = with_an_instance(Database::Etcd, json!({})).await;
    let all = broker.bind("i", "all").await;
    let mut writer = etcd::connect(&all).await;
    for key in ["/app", "/app/k", "/app0", "zzz"] {
        writer.put(key, "v", None).await.expect("a put");
    }
    let reader = put(&broker, "reader", json!({ "role": "reader" })).await;
    let app = put(
        &broker,
        "app",
        json!({ "prefix": "/app/", "role": "writer" }),
    )
    .await;
    let both = json!({ "prefix": "/app/", "role": "reader" });
    let both = put(&broker, "both", both).await;
    // Backups hold every key, so bindings that may not read or write all keys get no way to them.
    let mut fields: Vec<_> = all.as_object().expect("an object").keys().collect();
    fields.retain(|field| *field != "instance_administration_api");
    fields.sort();
    for made in [&reader, &app, &both] {
        let mut same: Vec<_> = credentials(made)
            .as_object()
            .expect("an object")
            .keys()
            .collect();
        same.sort();
        assert_eq!(same, fields);
        assert!(broker.database.lets_in(credentials(made)).await);
    }
    let mut reader = etcd::connect(credentials(&reader)).await;
    let everything = GetOptions::new().with_all_keys();
    let got = reader
        .get("", Some(everything.clone()))
        .await
        .expect("a get");
    assert_eq!(got.count(), 4);
    let mut app = etcd::connect(credentials(&app)).await;
    app.put("/app/mine", "v", None).await.expect("a put");
    let inside = WatchOptions::new().with_prefix();
    app.watch("/app/", Some(inside)).await.expect("a watch");
    let mut both = etcd::connect(credentials(&both)).await;
    both.get("/app/mine", None).await.expect("a get");

    let past = |key: &str| {
        let inner = Txn::new().and_then([TxnOp::put(key, "x", None)]);
        Txn::new().and_then([TxnOp::txn(inner)])
    };
    for client in [&mut reader, &mut both] {
        assert!(client.put("/app/mine", "x", None).await.is_err());
        assert!(client.delete("/app/mine", None).await.is_err());
        assert!(client.txn(past("/app/mine")).await.is_err());
    }
    for client in [&mut app, &mut both] {
        for key in ["/app", "/app0", "zzz"] {
            assert!(client.get(key, None).await.is_err(), "{key}");
            assert!(client.put(key, "x", None).await.is_err(), "{key}");
            assert!(client.delete(key, None).await.is_err(), "{key}");
            assert!(client.txn(past(key)).await.is_err(), "{key}");
        }
        assert!(client.get("", Some(everything.clone())).await.is_err());
    }
    // To end somebody's lease is to delete keys.
    let lease = writer.lease_grant(600, None).await.expect("a lease").id();
    let leased = PutOptions::new().with_lease(lease);
    writer.put("zzz", "v", Some(leased)).await.expect("a put");
    for client in [&mut reader, &mut app, &mut both] {
        assert!(client.lease_revoke(lease).await.is_err());
    }
    for key in ["/app", "/app/k", "/app0", "zzz", "/app/mine"] {
        let got = writer.get(key, None).await.expect("a get");
        assert_eq!(got.kvs()[0].value(), b"v", "{key}");
    }
    // What is made for a binding goes with it.
    for binding in ["reader", "app", "both"] {
        assert_eq!(broker.unbind("i", binding).await.status, StatusCode::OK);
    }
    let (users, roles) = Inside::of(&broker).users_and_roles("i", &all).await;
    assert_eq!(users, [etcd::user(&all)]);
    assert_eq!(roles, users);

    // 37: the schema that is shown is the schema that is enforced.
    for (wrong, named) in [
        (json!({ "role": "admin" }), "role"),
        (json!({ "role": null }), "role"),
        (json!({ "prefix": "" }), "prefix"),
        (json!({ "prefix": "x".repeat(1025) }), "prefix"),
        // 400 characters, 1200 bytes: the schema counts the ones, the broker the others.
        (json!({ "prefix": "€".repeat(400) }), "prefix"),
        (json!({ "expires_in": 59 }), "expires_in"),
        (json!({ "expires_in": 31_622_401 }), "expires_in"),
        (json!({ "expires_in": "1h" }), "expires_in"),
        (json!({ "expires_in": 60.5 }), "expires_in"),
        (json!({ "rôle": "reader" }), "rôle"),
    ] {
        let refused = put(&broker, "wrong", wrong).await;
        let said = description(&refused, StatusCode::BAD_REQUEST);
        assert!(said.contains(named), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_that_a_version_does_not_keep_are_not_promised() {
    let (broker, _clock, _script) =
        with_an_instance(Database::Etcd, json!({ "db_version": "3.5.16" })).await;
    for limits in [json!({ "role": "reader" }), json!({ "prefix": "/app/" })] {
        let refused = put(&broker, "b", limits).await;
        assert!(description(&refused, StatusCode::BAD_REQUEST).contains("3.5.16"));
        assert_eq!(fetch(&broker, "b").await.status, StatusCode::NOT_FOUND);
    }
    let whole = put(&broker, "b", json!({ "role": "writer", "expires_in": 600 })).await;
    assert_eq!(lets_in(&broker, credentials(&whole)).await, [true, true]);
    assert_eq!(rotate(&broker, "c", "b").await.status, StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binding_s_rights_and_its_end_survive_every_fault() {
    for faults in [
        [(Moment::Done, Fault::Repeat), (Moment::Begun, Fault::Panic)],
        [(Moment::Done, Fault::Die), (Moment::Recorded, Fault::Die)],
    ] {
        let clock = TestClock::default();
        let surroundings = Surroundings {
            clock: clock.clock(),
            ..Saboteur::everywhere(&faults).surroundings()
        };
        let broker = TestBroker::start_with(&[], surroundings).await;
        broker.provision("i", json!({})).await;
        let limits = json!({ "role": "reader", "prefix": "/app/", "expires_in": 600 });
        let made = put(&broker, "b", limits).await;
        let all = broker.bind("i", "all").await;
        let mut root = Inside::of(&broker).administrator("i", &all).await;
        let role = root
            .role_get(etcd::user(credentials(&made)))
            .await
            .expect("a role");
        assert_eq!(role.permissions().len(), 1);
        let mut client = etcd::connect(credentials(&made)).await;
        client.get("/app/k", None).await.expect("a get");
        assert!(client.put("/app/k", "v", None).await.is_err());
        assert!(client.get("/other", None).await.is_err());
        clock.shift(TimeDelta::minutes(20));
        expired(&broker, "b").await;
        let (users, roles) = Inside::of(&broker).users_and_roles("i", &all).await;
        assert_eq!(users, [etcd::user(&all)]);
        assert_eq!(roles, users);
    }
}
