//! Deletions that come between two steps, or after the last one: nothing that is being deleted
//! becomes usable once more.

use compose_broker::model::operation::{OperationKind, OperationState};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{
        SERVICE, STANDARD, TestBroker, answer, binding_path, eventually, instance_path, text,
    },
    control::Script,
    inside::Inside,
    saboteur::names,
};

/// Waits until the newest operation of a kind is held after its step `step`.
async fn held_after(inside: &Inside, instance: &str, kind: OperationKind, step: &'static str) {
    eventually("an operation that is held", || async {
        let operation = inside.newest(instance, kind).await;
        inside.is_recorded(&operation, step).await.then_some(())
    })
    .await;
}

/// Deletes the instance `i` while the operation of `kind` that makes it is held after each step.
async fn delete_after_each_step(
    broker: &TestBroker,
    inside: &Inside,
    script: &Script,
    (kind, parameters): (OperationKind, Value),
) {
    let before = (broker.running(), inside.ports_reserved().await);
    for step in names(kind) {
        let held = script.hold_after(kind, step);
        let made = broker.put_instance("i", parameters.clone()).await;
        assert_eq!(made.status, StatusCode::ACCEPTED, "{made:?}");
        held_after(inside, "i", kind, step).await;
        let deleted = broker.delete_instance("i").await;
        assert_eq!(deleted.status, StatusCode::ACCEPTED, "{deleted:?}");
        drop(held);
        let end = broker.instance_end("i", &deleted.body).await;
        assert_eq!(end["state"], "succeeded", "after {step}: {end}");
        let ended = inside.newest("i", kind).await.state;
        assert_eq!(ended, OperationState::Failed, "after {step}");
        let after = (broker.running(), inside.ports_reserved().await);
        assert_eq!(after, before, "after {step}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_112_an_instance_that_is_deleted_between_two_steps_never_becomes_usable() {
    let script = Script::default();
    let broker = TestBroker::in_memory_with(&[], script.surroundings()).await;
    let inside = Inside::of(&broker);
    let provision = (OperationKind::Provision, json!({}));
    delete_after_each_step(&broker, &inside, &script, provision).await;
    assert_eq!(broker.database.files(&broker), Vec::<String>::new());
    broker.provision("source", json!({})).await;
    let credentials = broker.bind("source", "b").await;
    let backup = broker.back_up(&credentials).await;
    let parameters = json!({ "source_service_instance_id": "source", "backup_id": backup["id"] });
    let restore = (OperationKind::Restore, parameters);
    delete_after_each_step(&broker, &inside, &script, restore).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binding_that_is_deleted_between_two_steps_never_becomes_usable() {
    let script = Script::default();
    let broker = TestBroker::start_with(&[], script.surroundings()).await;
    let inside = Inside::of(&broker);
    broker.provision("i", json!({})).await;
    let own = broker.bind("i", "own").await;
    let kind = OperationKind::Bind;
    for step in names(kind) {
        let held = script.hold_after(kind, step);
        let made = change_binding(&broker, Method::PUT).await;
        held_after(&inside, "i", kind, step).await;
        let deleted = change_binding(&broker, Method::DELETE).await;
        assert_ne!(made, deleted);
        drop(held);
        let path = binding_path("i", "b");
        let end = broker
            .end_of(&format!("{path}/last_operation?operation={deleted}"))
            .await;
        assert_eq!(end["state"], "succeeded", "after {step}: {end}");
        let ended = inside.newest("i", kind).await.state;
        assert_eq!(ended, OperationState::Failed, "after {step}");
        let (users, roles) = inside.users_and_roles("i", &own).await;
        assert_eq!((users.len(), roles.len()), (1, 1), "after {step}");
    }
}

/// Asks for the binding `b`, or its end; returns the operation.
async fn change_binding(broker: &TestBroker, method: Method) -> String {
    let query = format!("accepts_incomplete=true&service_id={SERVICE}&plan_id={STANDARD}");
    let request = broker.osb(method, &format!("{}?{query}", binding_path("i", "b")));
    let body = json!({ "service_id": SERVICE, "plan_id": STANDARD });
    let accepted = answer(request.json(&body)).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    text(&accepted.body["operation"]).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unbind_that_a_deletion_stops_is_not_stuck() {
    let script = Script::default();
    let broker = TestBroker::in_memory_with(&[], script.surroundings()).await;
    let inside = Inside::of(&broker);
    broker.provision("i", json!({})).await;
    broker.bind("i", "b").await;
    // Its worker took it before it was halted.
    let unbinding = script.hold(OperationKind::Unbind, "remove_user");
    change_binding(&broker, Method::DELETE).await;
    eventually("an unbind that runs", || async {
        let unbind = inside.newest("i", OperationKind::Unbind).await;
        (unbind.state == OperationState::Running).then_some(())
    })
    .await;
    let held = script.hold(OperationKind::Deprovision, "destroy");
    let deleted = broker.delete_instance("i").await;
    drop(unbinding);
    let unbind = eventually("the end of the unbind", || async {
        let unbind = inside.newest("i", OperationKind::Unbind).await;
        (!unbind.state.is_active()).then_some(unbind)
    })
    .await;
    assert_eq!(unbind.state, OperationState::Failed);
    assert!(unbind.halted);
    let metrics = broker.osb(Method::GET, "/metrics").send().await;
    let metrics = metrics.expect("an answer").text().await.expect("a text");
    let is_stuck = |line: &&str| line.contains(r#"kind="unbind",state="stuck""#);
    let stuck: Vec<&str> = metrics.lines().filter(is_stuck).collect();
    assert!(stuck.iter().all(|line| line.ends_with(" 0.0")), "{stuck:?}");
    drop(held);
    let end = broker.instance_end("i", &deleted.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    // Nor did it fail: the number of failed operations is for those that somebody should look at.
    let counts = inside.operation_counts().await;
    let failed = counts.iter().find(|(of, _)| *of == OperationState::Failed);
    assert_eq!(failed, None, "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_whose_instance_is_deleted_between_two_steps_goes_with_it() {
    let script = Script::default();
    let broker = TestBroker::in_memory_with(&[], script.surroundings()).await;
    let inside = Inside::of(&broker);
    let kind = OperationKind::Backup;
    for step in names(kind) {
        broker.provision("i", json!({})).await;
        let credentials = broker.bind("i", "b").await;
        let held = script.hold_after(kind, step);
        let path = format!(
            "/deployments/{}/backups",
            text(&credentials["deployment_id"])
        );
        let recipe = answer(broker.compose(Method::POST, &credentials, &path)).await;
        assert_eq!(recipe.status, StatusCode::ACCEPTED, "{recipe:?}");
        held_after(&inside, "i", kind, step).await;
        let deleted = broker.delete_instance("i").await;
        drop(held);
        let end = broker.instance_end("i", &deleted.body).await;
        assert_eq!(end["state"], "succeeded", "after {step}: {end}");
        assert_eq!(inside.newest("i", kind).await.state, OperationState::Failed);
        assert_eq!(broker.database.files(&broker), Vec::<String>::new());
        let gone = answer(broker.osb(Method::GET, &instance_path("i"))).await;
        assert_eq!(gone.status, StatusCode::NOT_FOUND, "{gone:?}");
    }
}
