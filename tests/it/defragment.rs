//! Storage that the files of a database have and do not use.

use chrono::{TimeDelta, TimeZone as _, Utc};
use compose_broker::model::{
    ids::InstanceId,
    limits::{FRAGMENTED_BYTES_MIN, NIGHT_BEGINS_HOUR, NIGHT_HOURS},
    operation::OperationKind,
    origin::Origin,
    schedule::minute_of_day,
};
use etcd_client::{CompactionOptions, DeleteOptions};
use reqwest::{Method, StatusCode};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    broker::{TestBroker, answer, eventually, text},
    control::TestClock,
    etcd,
    inside::Inside,
    pages::Visitor,
    repair::signal,
};

const MEGABYTE: u64 = 1024 * 1024;

/// Fills a database and deletes nearly all of it again; the history is forgotten too, so that most of
/// the files holds nothing.
async fn waste(inside: &Inside, instance: &str, credentials: &Value) {
    let mut database = etcd::connect(credentials).await;
    let value = "v".repeat(usize::try_from(MEGABYTE).expect("a size"));
    for i in 0..FRAGMENTED_BYTES_MIN / MEGABYTE + 8 {
        let put = database.put(format!("/fill/{i}"), value.as_str(), None);
        put.await.expect("a put");
    }
    database.put("kept", "v", None).await.expect("a put");
    let options = DeleteOptions::new().with_prefix();
    let deleted = database.delete("/fill/", Some(options)).await;
    let revision = deleted.expect("a delete").header().map(|h| h.revision());
    let mut administrator = inside.administrator(instance, credentials).await;
    let options = CompactionOptions::new().with_physical();
    administrator
        .compact(revision.expect("a revision"), Some(options))
        .await
        .expect("a compaction");
    // What was forgotten counts as unused with the next write.
    database.put("kept", "w", None).await.expect("a put");
}

/// What the Compose API tells of it.
async fn storage(broker: &TestBroker, of: &Value) -> Value {
    let told = answer(broker.compose(Method::GET, of, &path(of, "defragmentations"))).await;
    assert_eq!(told.status, StatusCode::OK, "{told:?}");
    told.body
}

fn path(of: &Value, what: &str) -> String {
    format!("/deployments/{}/{what}", text(&of["deployment_id"]))
}

async fn is_wasted(broker: &TestBroker, of: &Value) -> Value {
    eventually("members that tell of unused storage", || async {
        let told = storage(broker, of).await;
        (told["by_night"] == true).then_some(told)
    })
    .await
}

async fn shrinks(broker: &TestBroker, of: &Value, before: &Value) {
    let told = eventually("members that tell of less", || async {
        let told = storage(broker, of).await;
        (told["by_night"] == false).then_some(told)
    })
    .await;
    let bytes = |of: &Value| of["allocated_bytes"].as_u64().expect("a size");
    assert!(bytes(&told) < bytes(before) / 2, "{told} after {before}");
    let sizes = answer(broker.compose(Method::GET, of, &path(of, "scalings"))).await;
    assert!(sizes.body["used_bytes"].as_u64() <= sizes.body["allocated_bytes"].as_u64());
    let kept = etcd::dump(&mut etcd::connect(of).await).await;
    assert_eq!(kept, [("kept".to_owned(), "w".to_owned())]);
}

/// An instance whose turn is the first of the night.
fn first_of_the_night() -> String {
    let minutes = u32::try_from(NIGHT_HOURS * 60).expect("minutes");
    let ids = (0..).map(|i| format!("i{i}"));
    let is_first = |id: &String| {
        let id: InstanceId = id.parse().expect("an id");
        minute_of_day(&id).is_multiple_of(minutes)
    };
    ids.into_iter().find(is_first).expect("an id")
}

#[tokio::test(flavor = "multi_thread")]
async fn unused_storage_is_given_back_by_night_and_when_somebody_asks() {
    let clock = TestClock::default();
    let night = Utc.with_ymd_and_hms(2026, 11, 28, 0, 0, 0).unwrap();
    let night = night + TimeDelta::hours(NIGHT_BEGINS_HOUR);
    clock.set(night - TimeDelta::minutes(40));
    let broker = TestBroker::start_with(&[], clock.surroundings()).await;
    let id = first_of_the_night();
    broker.provision(&id, json!({})).await;
    let of = broker.bind(&id, "app").await;
    let inside = Inside::of(&broker);
    waste(&inside, &id, &of).await;
    let wasted = is_wasted(&broker, &of).await;
    let number = |field: &str| wasted[field].as_u64().expect("a number");
    let (allocated, used) = (number("allocated_bytes"), number("used_bytes"));
    assert!(allocated >= FRAGMENTED_BYTES_MIN, "{wasted}");
    assert_eq!(number("unused_bytes"), allocated - used, "{wasted}");
    assert!(number("stall_seconds") >= 1, "{wasted}");

    // By a button of the page, at any time; but not while a member does not answer: no other one may
    // stand still then.
    let still = broker.members()[0];
    signal(still, Signal::STOP);
    let visitor = Visitor::with_token(&broker, &of).await;
    let overview = format!("/dashboard/instances/{id}");
    let csrf = visitor.csrf(&overview).await;
    let button = format!("{overview}/defragmentation");
    for (token, status) in [("x", StatusCode::FORBIDDEN), (&csrf, StatusCode::SEE_OTHER)] {
        let pressed = visitor.post(&button, &[("csrf", token)]).await;
        assert_eq!(pressed.status, status, "{pressed:?}");
    }
    eventually("a look that finds a member silent", || async {
        let newest = inside.newest(&id, OperationKind::Defragment).await;
        let trouble = newest.trouble.map(|trouble| trouble.reason);
        trouble.filter(|reason| reason.contains("does not serve"))
    })
    .await;
    is_wasted(&broker, &of).await;
    signal(still, Signal::CONT);
    inside.idle(&id).await;
    let newest = inside.newest(&id, OperationKind::Defragment).await;
    assert_eq!((newest.origin, newest.failure), (Origin::Dashboard, None));
    shrinks(&broker, &of, &wasted).await;
    let page = visitor.get(&overview).await;
    assert!(page.body.contains("Defragmenting would give"), "{page:?}");

    waste(&inside, &id, &of).await;
    let wasted = is_wasted(&broker, &of).await;
    // By itself, in its own minute of the night.
    clock.set(night + TimeDelta::seconds(10));
    let operation = eventually("the defragmentation of the night", || async {
        let newest = inside.newest(&id, OperationKind::Defragment).await;
        (newest.origin == Origin::Night && !newest.state.is_active()).then_some(newest)
    })
    .await;
    assert_eq!(operation.failure, None);
    shrinks(&broker, &of, &wasted).await;
}
