//! The life of a service instance: asked for, made, looked at, deleted.

use compose_broker::model::operation::OperationKind;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{
        Answer, SERVICE, STANDARD, TestBroker, answer, eventually, instance_path, port_range, text,
    },
    control::{InForce, Script},
    inside::files_of_deployments,
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

/// The state of an operation now; none: without a token.
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
        for known in ["3.3.25", "3.4.23", "3.5.35", "3.6.16", "3.7.3"] {
            assert!(reason.contains(known), "{version}: {reason}");
        }
    }
    assert_unknown(&broker, "i").await;
}

fn assert_nothing_left(broker: &TestBroker) {
    assert_eq!(broker.members(), Vec::<i32>::new());
    let of_members = |file: &String| file.starts_with("clusters/") && file.contains("/m");
    let left: Vec<String> = broker.files().into_iter().filter(of_members).collect();
    assert_eq!(left, Vec::<String>::new());
    let backups: Vec<String> = files_of_deployments(broker)
        .into_iter()
        .filter(|file| file.starts_with("backups/"))
        .collect();
    assert_eq!(backups, Vec::<String>::new());
}

/// There is room for the ports of one instance only: a deletion that leaves some behind stops the next provision.
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
    let held = script.hold(OperationKind::Provision, "secure");
    let accepted = put(&broker, "i", json!({})).await;
    halt(&broker, &accepted, held).await;
    // With its ports reserved, without a process.
    let held = script.hold(OperationKind::Provision, "start");
    let accepted = put(&broker, "i", json!({})).await;
    reached(&broker, &accepted, "step 2").await;
    let deletion = broker.delete_instance("i").await;
    drop(held);
    broker.instance_end("i", &deletion.body).await;
    assert_nothing_left(&broker);
    // As soon as there is a process.
    let held = script.hold(OperationKind::Provision, "secure");
    let accepted = put(&broker, "i", json!({})).await;
    eventually("a process", || async {
        (!broker.members().is_empty()).then_some(())
    })
    .await;
    halt(&broker, &accepted, held).await;
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

/// Deletes `i` while it is being made. It does not get done before that, however slow the deletion
/// is to come: it is held before its last step.
async fn halt(broker: &TestBroker, accepted: &Answer, held: InForce) {
    let provision = token(accepted);
    let deletion = broker.delete_instance("i").await;
    assert_ne!(token(&deletion), provision);
    let halted = poll(broker, "i", Some(provision)).await;
    assert_eq!(halted.body["state"], "failed", "{halted:?}");
    let again = broker.delete_instance("i").await;
    if again.status != StatusCode::GONE {
        assert_eq!(token(&again), token(&deletion));
    }
    drop(held);
    let end = broker.instance_end("i", &deletion.body).await;
    assert_eq!(end["state"], "succeeded");
    let halted = poll(broker, "i", Some(provision)).await;
    assert_eq!(halted.body["state"], "failed", "{halted:?}");
    assert_nothing_left(broker);
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
