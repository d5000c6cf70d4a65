//! The life of a service instance: asked for, made, looked at, deleted.

use std::sync::Arc;

use compose_broker::model::operation::OperationKind;
use futures::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{
        Answer, ENTERPRISE, SERVICE, STANDARD, TestBroker, answer, eventually, instance_path,
        port_range, text,
    },
    control::Script,
    transport::description,
};

/// A request with `change` laid over the usual one.
fn request(change: Value) -> Value {
    let mut body = json!({
        "service_id": SERVICE, "plan_id": STANDARD,
        "organization_guid": "org", "space_guid": "space",
    });
    for (field, value) in change.as_object().expect("an object") {
        body[field] = value.clone();
    }
    body
}

async fn put(broker: &TestBroker, id: &str, change: Value) -> Answer {
    let path = format!("{}?accepts_incomplete=true", instance_path(id));
    answer(broker.osb(Method::PUT, &path).json(&request(change))).await
}

async fn fetch(broker: &TestBroker, id: &str) -> Answer {
    answer(broker.osb(Method::GET, &instance_path(id))).await
}

/// How an operation fares now; none: without a token.
async fn poll(broker: &TestBroker, id: &str, token: Option<&str>) -> Answer {
    let query = token.map_or(String::new(), |token| format!("?operation={token}"));
    let path = format!("{}/last_operation{query}", instance_path(id));
    answer(broker.osb(Method::GET, &path)).await
}

/// An accepted answer's token, held to the specification's form.
fn token(answer: &Answer) -> &str {
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    let token = text(&answer.body["operation"]);
    let unreserved = |c: char| c.is_ascii_alphanumeric() || "._~-".contains(c);
    assert!(!token.is_empty() && token.len() <= 10_000 && token.chars().all(unreserved));
    token
}

async fn assert_unknown(broker: &TestBroker, id: &str) {
    assert_eq!(fetch(broker, id).await.status, StatusCode::NOT_FOUND);
    assert_eq!(poll(broker, id, None).await.status, StatusCode::NOT_FOUND);
    assert_eq!(broker.delete_instance(id).await.status, StatusCode::GONE);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_version_is_refused_with_a_list_of_what_there_is() {
    let broker = TestBroker::start().await;
    for version in ["9.9.9", "3.5", "latest", "", "3.5.0", "v3.5.16", " 3.5.16"] {
        let refused = put(
            &broker,
            "i",
            json!({ "parameters": { "db_version": version } }),
        )
        .await;
        let reason = description(&refused, StatusCode::BAD_REQUEST);
        for known in ["3.3.25", "3.4.23", "3.5.16", "3.5.30"] {
            assert!(reason.contains(known), "{version}: {reason}");
        }
    }
    assert_unknown(&broker, "i").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_different_requests_at_once_one_makes_the_instance() {
    let script = Script::default();
    let broker = TestBroker::start_with(&[], script.surroundings()).await;
    let held = script.hold(OperationKind::Provision, "allocate");
    let answers =
        join_all((0..20).map(|i| put(&broker, "i", json!({ "space_guid": format!("space-{i}") }))))
            .await;
    let (won, lost): (Vec<_>, Vec<_>) = answers
        .iter()
        .partition(|a| a.status == StatusCode::ACCEPTED);
    assert_eq!(won.len(), 1, "{answers:?}");
    assert!(
        lost.iter().all(|a| a.status == StatusCode::CONFLICT),
        "{answers:?}"
    );
    let deleted = broker.delete_instance("i").await;
    drop(held);
    broker.instance_end("i", &deleted.body).await;
    assert_eq!(broker.members(), Vec::<i32>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_instance_tells_its_progress_and_when_to_ask_again() {
    let script = Script::default();
    let broker = TestBroker::start_with(&[], script.surroundings()).await;
    let held = script.hold(OperationKind::Provision, "start");
    let accepted = put(&broker, "i", json!({})).await;
    let running = eventually("the second step", || async {
        let polled = poll(&broker, "i", Some(token(&accepted))).await;
        text(&polled.body["description"])
            .contains("step 2")
            .then_some(polled)
    })
    .await;
    assert_eq!(running.body["state"], "in progress");
    let pause = running.headers["retry-after"].to_str().expect("ASCII");
    assert!(
        pause.parse::<u32>().is_ok_and(|seconds| seconds > 0),
        "{pause}"
    );
    for name in ["instance_usable", "update_repeatable"] {
        assert_eq!(running.body.get(name), None);
    }
    // The ids in the query are hints.
    let path = format!(
        "{}/last_operation?service_id=other&plan_id=other&operation={}",
        instance_path("i"),
        token(&accepted)
    );
    assert_eq!(
        answer(broker.osb(Method::GET, &path)).await.body["state"],
        "in progress"
    );
    for foreign in [
        "provision",
        "deprovision",
        "0123456789abcdef01234567",
        "",
        "%00",
        "x y",
    ] {
        let polled = poll(&broker, "i", Some(foreign)).await;
        assert_eq!(polled.body["state"], "in progress", "{foreign}");
    }
    drop(held);
    broker.instance_end("i", &accepted.body).await;
    let done = poll(&broker, "i", None).await;
    assert_eq!(done.body["state"], "succeeded");
    assert!(!text(&done.body["description"]).is_empty());
    assert_eq!(done.headers.get("retry-after"), None);
    assert_eq!(fetch(&broker, "i").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_failed_says_why_and_can_only_be_deleted() {
    let script = Script::default();
    let mut broker = TestBroker::start_with(&[], script.surroundings()).await;
    let failing = script.fail(OperationKind::Provision, "start");
    let accepted = put(&broker, "i", json!({})).await;
    let end = broker.instance_end("i", &accepted.body).await;
    assert_eq!(end["state"], "failed", "{end}");
    assert!(
        text(&end["description"]).contains("Starting the members"),
        "{end}"
    );
    assert_eq!(end.get("instance_usable"), None);
    drop(failing);
    assert_eq!(fetch(&broker, "i").await.status, StatusCode::NOT_FOUND);
    description(&put(&broker, "i", json!({})).await, StatusCode::CONFLICT);
    let bind = format!("{}/service_bindings/b", instance_path("i"));
    let body = json!({ "service_id": SERVICE, "plan_id": STANDARD });
    let refused = answer(broker.osb(Method::PUT, &bind).json(&body)).await;
    description(&refused, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(refused.body["error"], "ConcurrencyError");
    broker.restart_with(script.surroundings()).await;
    let remembered = poll(&broker, "i", Some(token(&accepted))).await;
    assert_eq!(remembered.body, end);
    broker.deprovision("i").await;
    assert_nothing_left(&broker);
    broker.provision("i", json!({})).await;
}

fn assert_nothing_left(broker: &TestBroker) {
    assert_eq!(broker.members(), Vec::<i32>::new());
    let of_members = |file: &String| file.starts_with("clusters/") && file.contains("/m");
    let left: Vec<String> = broker.files().into_iter().filter(of_members).collect();
    assert_eq!(left, Vec::<String>::new());
    let backups: Vec<String> = broker
        .files()
        .into_iter()
        .filter(|file| file.starts_with("backups/"))
        .collect();
    assert_eq!(backups, Vec::<String>::new());
}

/// There is room for the ports of one instance only: whoever leaves some behind stops the next.
#[tokio::test(flavor = "multi_thread")]
async fn deleting_an_instance_at_any_moment_leaves_nothing_behind() {
    let range = port_range();
    let first: u16 = range
        .split_once('-')
        .expect("a range")
        .0
        .parse()
        .expect("a port");
    let narrow = format!("{first}-{}", first + 9);
    let script = Script::default();
    let broker = TestBroker::start_with(&["--port-range", &narrow], script.surroundings()).await;

    // Right away.
    let accepted = put(&broker, "i", json!({})).await;
    halt(&broker, &accepted).await;
    // With its ports reserved, without a process.
    let held = script.hold(OperationKind::Provision, "start");
    let accepted = put(&broker, "i", json!({})).await;
    reached(&broker, &accepted, "step 2").await;
    let deletion = broker.delete_instance("i").await;
    drop(held);
    broker.instance_end("i", &deletion.body).await;
    assert_nothing_left(&broker);
    // As soon as there is a process.
    let accepted = put(&broker, "i", json!({})).await;
    eventually("a process", || async {
        (!broker.members().is_empty()).then_some(())
    })
    .await;
    halt(&broker, &accepted).await;
    // Before the last step.
    let held = script.hold(OperationKind::Provision, "secure");
    let accepted = put(&broker, "i", json!({})).await;
    reached(&broker, &accepted, "step 3").await;
    let deletion = broker.delete_instance("i").await;
    let halted = poll(&broker, "i", Some(token(&accepted))).await;
    assert_eq!(halted.body["state"], "failed", "{halted:?}");
    drop(held);
    broker.instance_end("i", &deletion.body).await;
    assert_nothing_left(&broker);
    // When it is done.
    broker.provision("i", json!({})).await;
    broker.deprovision("i").await;
    assert_nothing_left(&broker);
    broker.provision("i", json!({})).await;
}

/// Waits until the making of `i` has come to a step.
async fn reached(broker: &TestBroker, accepted: &Answer, step: &str) {
    eventually(step, || async {
        let polled = poll(broker, "i", Some(token(accepted))).await;
        text(&polled.body["description"])
            .contains(step)
            .then_some(())
    })
    .await;
}

async fn halt(broker: &TestBroker, accepted: &Answer) {
    let provision = token(accepted);
    let deletion = broker.delete_instance("i").await;
    assert_ne!(token(&deletion), provision);
    let halted = poll(broker, "i", Some(provision)).await;
    assert_eq!(halted.body["state"], "failed", "{halted:?}");
    let again = broker.delete_instance("i").await;
    if again.status != StatusCode::GONE {
        assert_eq!(token(&again), token(&deletion));
    }
    let end = broker.instance_end("i", &deletion.body).await;
    assert_eq!(end["state"], "gone");
    let halted = poll(broker, "i", Some(provision)).await;
    assert_eq!(halted.body["state"], "failed", "{halted:?}");
    assert_nothing_left(broker);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_is_asked_for_in_the_right_way_or_refused() {
    let script = Script::default();
    let broker = TestBroker::start_with(&[], script.surroundings()).await;
    let _held = script.hold(OperationKind::Provision, "allocate");
    put(&broker, "known", json!({})).await;
    let both = format!("service_id={SERVICE}&plan_id={STANDARD}");
    for id in ["known", "unknown"] {
        let path = instance_path(id);
        for query in [
            String::new(),
            "accepts_incomplete=true".to_owned(),
            format!("plan_id={STANDARD}&accepts_incomplete=true"),
            format!("service_id={SERVICE}&accepts_incomplete=true"),
            format!("service_id=&plan_id={STANDARD}&accepts_incomplete=true"),
        ] {
            let refused = answer(broker.osb(Method::DELETE, &format!("{path}?{query}"))).await;
            description(&refused, StatusCode::BAD_REQUEST);
        }
        for query in [both.clone(), format!("{both}&accepts_incomplete=false")] {
            let refused = answer(broker.osb(Method::DELETE, &format!("{path}?{query}"))).await;
            description(&refused, StatusCode::UNPROCESSABLE_ENTITY);
            assert_eq!(refused.body["error"], "AsyncRequired");
        }
    }
    let unknown = broker.delete_instance("unknown").await;
    assert_eq!(unknown.status, StatusCode::GONE);
    assert!(unknown.body.is_object());
    for wrong in [
        format!("service_id=other&plan_id={STANDARD}"),
        format!("service_id={SERVICE}&plan_id={ENTERPRISE}"),
    ] {
        let path = format!("{}?{wrong}&accepts_incomplete=true", instance_path("known"));
        let refused = answer(broker.osb(Method::DELETE, &path)).await;
        description(&refused, StatusCode::BAD_REQUEST);
    }
    assert_eq!(
        poll(&broker, "known", None).await.body["state"],
        "in progress"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_is_deleted_an_id_takes_nothing_new_and_then_it_is_free() {
    let script = Script::default();
    let mut broker = TestBroker::start_with(&[], script.surroundings()).await;
    broker.provision("i", json!({ "units": 2 })).await;
    let made = put(&broker, "i", json!({ "parameters": { "units": 2 } })).await;
    assert_eq!(made.status, StatusCode::OK);
    let held = script.hold(OperationKind::Deprovision, "destroy");
    let deletion = broker.delete_instance("i").await;
    let deleting = token(&deletion).to_owned();
    for change in [json!({ "parameters": { "units": 2 } }), json!({})] {
        let refused = put(&broker, "i", change).await;
        description(&refused, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(refused.body["error"], "ConcurrencyError");
    }
    assert_eq!(token(&broker.delete_instance("i").await), deleting);
    assert_eq!(fetch(&broker, "i").await.status, StatusCode::NOT_FOUND);
    assert_eq!(
        poll(&broker, "i", Some(&deleting)).await.body["state"],
        "in progress"
    );
    assert_eq!(poll(&broker, "i", None).await.body["state"], "in progress");
    drop(held);
    assert_eq!(
        broker.instance_end("i", &deletion.body).await["state"],
        "gone"
    );
    for _ in 0..2 {
        assert_eq!(broker.delete_instance("i").await.status, StatusCode::GONE);
        assert_eq!(
            poll(&broker, "i", Some(&deleting)).await.status,
            StatusCode::GONE
        );
        for foreign in [None, Some("deprovision"), Some("0123456789abcdef01234567")] {
            let polled = poll(&broker, "i", foreign).await;
            assert_eq!(polled.status, StatusCode::OK, "{foreign:?}");
            assert_eq!(polled.body["state"], "succeeded", "{foreign:?}");
        }
        broker.restart_with(script.surroundings()).await;
    }
    let _held = script.hold(OperationKind::Provision, "allocate");
    let anew = put(&broker, "i", json!({})).await;
    assert_ne!(token(&anew), deleting);
    assert_eq!(
        poll(&broker, "i", Some(token(&anew))).await.body["state"],
        "in progress"
    );
    assert_eq!(poll(&broker, "i", None).await.body["state"], "in progress");
    // The old tokens go on to tell of what they were given out for.
    assert_eq!(
        poll(&broker, "i", Some(&deleting)).await.status,
        StatusCode::GONE
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_loses_against_nothing_is_harmless() {
    let broker = Arc::new(TestBroker::start().await);
    // Orphan mitigation repeats its deletions, before, while and after the instance is made.
    let deletions = join_all((0..10).map(|_| broker.delete_instance("i"))).await;
    assert!(deletions.iter().all(|a| a.status == StatusCode::GONE));
    let accepted = put(&broker, "i", json!({})).await;
    let deletions = join_all((0..10).map(|_| broker.delete_instance("i"))).await;
    let tokens: Vec<&Answer> = deletions
        .iter()
        .filter(|a| a.status == StatusCode::ACCEPTED)
        .collect();
    assert!(!tokens.is_empty());
    assert!(
        tokens.iter().all(|a| token(a) == token(tokens[0])),
        "{tokens:?}"
    );
    broker.instance_end("i", &tokens[0].body).await;
    assert_eq!(
        poll(&broker, "i", Some(token(&accepted))).await.body["state"],
        "failed"
    );
    assert_unknown_but_remembered(&broker).await;
    assert_nothing_left(&broker);
}

async fn assert_unknown_but_remembered(broker: &TestBroker) {
    assert_eq!(fetch(broker, "i").await.status, StatusCode::NOT_FOUND);
    assert_eq!(broker.delete_instance("i").await.status, StatusCode::GONE);
    assert_eq!(poll(broker, "i", None).await.body["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_is_finished_by_the_next_broker() {
    let script = Script::default();
    let mut broker = TestBroker::start_with(&[], script.surroundings()).await;
    let held = script.hold(OperationKind::Provision, "secure");
    let accepted = put(&broker, "i", json!({})).await;
    reached(&broker, &accepted, "step 3").await;
    drop(held);
    broker.restart_with(script.surroundings()).await;
    let end = broker.instance_end("i", &accepted.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    let members = broker.members();
    assert_eq!(members.len(), 3);
    broker.restart_with(script.surroundings()).await;
    assert_eq!(broker.members(), members, "members outlive the broker");
    let again = put(&broker, "i", json!({})).await;
    assert_eq!(again.status, StatusCode::OK);
}
