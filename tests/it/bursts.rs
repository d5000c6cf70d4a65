//! Bursts of requests: what was acknowledged is kept, though the broker is killed in the midst of them.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use futures::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{Answer, SERVICE, STANDARD, TestBroker, answer, instance_path, kill, text},
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
