//! Bursts of requests: what was acknowledged is kept, though the broker is killed in the midst of them;
//! all is done, and others do not wait for it.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use compose_broker::model::operation::OperationState;
use futures::{StreamExt as _, future::join_all, stream};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{
        Answer, SERVICE, STANDARD, TestBroker, answer, eventually, instance_path, kill, text,
    },
    control::surroundings,
    inside::Inside,
    process::BrokerProcess,
};

/// Requests of a burst that are under way at any moment.
const AT_ONCE: usize = 16;
/// The broker is killed when so many provisions of a burst were acknowledged: a burst for each.
const KILLED_AFTER: [usize; 5] = [1, 10, 40, 120, 250];

/// What came of a burst that the end of the broker ended.
#[derive(Default)]
struct Burst {
    /// The instances that got a 202, each with the operation that it names.
    acknowledged: Vec<(String, String)>,
    /// Those of which nothing, or not all, was heard.
    unanswered: Vec<String>,
}

fn provision(broker: &TestBroker, id: &str) -> reqwest::RequestBuilder {
    let path = format!("{}?accepts_incomplete=true", instance_path(id));
    let body = json!({
        "service_id": SERVICE, "plan_id": STANDARD, "organization_guid": "o", "space_guid": "s",
    });
    broker.osb(Method::PUT, &path).json(&body)
}

/// Asks for one instance after the other, [`AT_ONCE`] at a time, until nobody answers any more: the
/// process `pid` is killed with the 202 that makes `killed_after`.
async fn burst(broker: &TestBroker, pid: i32, killed_after: usize) -> Burst {
    let (burst, asked) = (Mutex::new(Burst::default()), AtomicUsize::new(0));
    let ask = async |id: &str| {
        let answer = provision(broker, id).send().await.ok()?;
        assert_eq!(answer.status(), StatusCode::ACCEPTED, "{id}");
        let body: Value = answer.json().await.ok()?;
        Some(text(&body["operation"]).to_owned())
    };
    let sender = async || {
        loop {
            let id = format!("{killed_after}-{}", asked.fetch_add(1, Ordering::Relaxed));
            let heard = ask(&id).await;
            let mut burst = burst.lock().expect("no panic");
            let Some(operation) = heard else {
                burst.unanswered.push(id);
                return;
            };
            burst.acknowledged.push((id, operation));
            if burst.acknowledged.len() == killed_after {
                kill(pid);
            }
        }
    };
    join_all((0..AT_ONCE).map(|_| sender())).await;
    burst.into_inner().expect("no panic")
}

/// The operation of an instance, which is there whole, or not at all.
async fn whole(inside: &Inside, id: &str) -> Option<String> {
    let (instance, deployment) = (inside.find(id).await, inside.deployment(id).await);
    let operations = inside.operations(id).await;
    let parts = [
        instance.is_some(),
        deployment.is_some(),
        operations.len() == 1,
    ];
    assert!(
        parts == [true; 3] || parts == [false; 3] && operations.is_empty(),
        "{id}: {parts:?}"
    );
    operations.first().map(|operation| operation.id.to_string())
}

/// The same request again is answered with the operation that is there, if there is one.
fn assert_repeated(repeated: &Answer, operation: Option<&str>) {
    match repeated.status {
        StatusCode::ACCEPTED => {
            let told = text(&repeated.body["operation"]);
            assert!(operation.is_none_or(|there| there == told), "{repeated:?}");
        }
        // It was done meanwhile.
        status => assert_eq!(
            (status, operation.is_some()),
            (StatusCode::OK, true),
            "{repeated:?}"
        ),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_intent_is_lost_that_was_acknowledged_before_a_kill_in_the_midst_of_a_burst() {
    // One is worked on at a time: all that counts here is what was accepted.
    let mut broker = BrokerProcess::stopped_with(|settings| {
        settings.insert("TENANT_OPERATIONS", "1".to_owned());
        settings.insert("REQUESTS_PER_SECOND", "0".to_owned());
    });
    broker.start_again().await;
    for killed_after in KILLED_AFTER {
        let pid = i32::try_from(broker.pid()).expect("a pid");
        let burst = burst(&broker, pid, killed_after).await;
        assert!(burst.acknowledged.len() >= killed_after);
        assert_eq!(burst.unanswered.len(), AT_ONCE);
        broker.kill_and_start_again().await;
        let inside = Inside::of(&broker);
        for (id, operation) in &burst.acknowledged {
            assert_eq!(whole(&inside, id).await.as_ref(), Some(operation), "{id}");
            let path = format!("{}/last_operation?operation={operation}", instance_path(id));
            let told = answer(broker.osb(Method::GET, &path)).await;
            assert_eq!(told.status, StatusCode::OK, "{told:?}");
            let state = text(&told.body["state"]);
            assert!(["in progress", "succeeded"].contains(&state), "{told:?}");
            assert_repeated(&answer(provision(&broker, id)).await, Some(operation));
        }
        for id in &burst.unanswered {
            let there = whole(&inside, id).await;
            assert_repeated(&answer(provision(&broker, id)).await, there.as_deref());
            assert!(whole(&inside, id).await.is_some(), "{id}");
        }
    }
}

/// Asks for so many instances of the tenant `loud`; returns how long each was waited for.
async fn ask_for_many(broker: &TestBroker, count: usize) -> Vec<Duration> {
    let ask = async |i| {
        let begun = Instant::now();
        let accepted = broker
            .put_instance_in("loud", &format!("loud-{i}"), json!({}))
            .await;
        assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
        begun.elapsed()
    };
    stream::iter(0..count)
        .map(ask)
        .buffered(AT_ONCE)
        .collect()
        .await
}

/// How long a binding of the instance `quiet` takes. It is gone afterwards.
async fn bind(broker: &TestBroker, name: &str) -> Duration {
    let begun = Instant::now();
    broker.bind("quiet", name).await;
    let took = begun.elapsed();
    assert_eq!(broker.unbind("quiet", name).await.status, StatusCode::OK);
    took
}

/// A burst of provisions of one tenant, and bindings of another one before and beside it.
struct Trial {
    /// How long each provision waited for its 202.
    accepted: Vec<Duration>,
    /// When each provision ended, the first in front.
    ended: Vec<DateTime<Utc>>,
    binds_before: Vec<Duration>,
    binds_beside: Vec<Duration>,
}

async fn trial(count: usize, binds: usize) -> Trial {
    let broker = TestBroker::in_memory_with(&[], surroundings()).await;
    let inside = Inside::of(&broker);
    let quiet = broker.put_instance_in("quiet", "quiet", json!({})).await;
    let end = broker.instance_end("quiet", &quiet.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    let mut binds_before = Vec::new();
    for i in 0..binds {
        binds_before.push(bind(&broker, &format!("before-{i}")).await);
    }
    let accepted = ask_for_many(&broker, count).await;
    let mut binds_beside = Vec::new();
    while !inside
        .provisions(OperationState::Queued, 1)
        .await
        .is_empty()
    {
        binds_beside.push(bind(&broker, &format!("beside-{}", binds_beside.len())).await);
    }
    eventually("the end of all", || async {
        let running = inside.provisions(OperationState::Running, 1).await;
        running.is_empty().then_some(())
    })
    .await;
    let mut ended: Vec<DateTime<Utc>> =
        inside.provisions(OperationState::Succeeded, i64::MAX).await;
    ended.sort();
    // Each of them, and the quiet one's.
    assert_eq!(ended.len(), count + 1);
    ended.remove(0);
    Trial {
        accepted,
        ended,
        binds_before,
        binds_beside,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_provisions_of_a_burst_end_well_and_others_bind_meanwhile() {
    let trial = trial(150, 1).await;
    // One that waits for all of the burst would be the only one.
    assert!(trial.binds_beside.len() >= 2, "{:?}", trial.binds_beside);
}

/// Provisions of the burst that is measured, in so many parts that are compared.
const MANY: usize = 4_000;
const PARTS: usize = 8;
/// What a busy machine may add to a binding.
const GRACE: Duration = Duration::from_millis(50);

/// It holds what takes how long to a bound.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the machine for itself: make bench"]
async fn a_burst_of_one_tenant_goes_at_an_even_pace_and_holds_up_no_other() {
    let trial = trial(MANY, 300).await;
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let each = MANY / PARTS;
    let paces: Vec<f64> = trial
        .ended
        .chunks(each)
        .map(|part| {
            let took = part[part.len() - 1] - part[0];
            took.as_seconds_f64() * 1000.0 / (part.len() - 1) as f64
        })
        .collect();
    let accepted: Vec<f64> = trial
        .accepted
        .chunks(each)
        .map(|part| ms(part.iter().sum::<Duration>()) / part.len() as f64)
        .collect();
    let p99 = |times: &[Duration]| {
        let mut times = times.to_vec();
        times.sort();
        times[times.len() * 99 / 100]
    };
    let (quiet, loud) = (p99(&trial.binds_before), p99(&trial.binds_beside));
    let row = |times: &[f64]| {
        times
            .iter()
            .map(|ms| format!("{ms:7.1}"))
            .collect::<String>()
    };
    let table = format!(
        "{MANY} provisions of one tenant, in {PARTS} parts\n\
         ms until accepted, {AT_ONCE} at once {}\n\
         ms between two that end       {}\n\
         bindings of another: p99 {:.0} ms of {} before, {:.0} ms of {} beside\n",
        row(&accepted),
        row(&paces),
        ms(quiet),
        trial.binds_before.len(),
        ms(loud),
        trial.binds_beside.len(),
    );
    println!("{table}");
    assert!(paces[PARTS - 1] <= 1.5 * paces[0], "{table}");
    assert!(loud <= 2 * quiet + GRACE, "{table}");
}
