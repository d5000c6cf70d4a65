//! Unbind, deprovision, and what orphan mitigation does.

use compose_broker::model::operation::{OperationKind, OperationState};
use futures::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::{Bench, IDS, assert_never_made, coded, refused, state, token};
use crate::{
    broker::{
        Answer, ENTERPRISE, SERVICE, STANDARD, answer, binding_path, eventually, instance_path,
        text,
    },
    etcd,
    inside::{Inside, files_of_deployments},
};

/// Waits until the making of `i` has come to a step.
async fn reached(bench: &Bench, accepted: &Answer, step: &str) {
    eventually(step, || async {
        let polled = bench.poll("i", Some(token(accepted))).await;
        text(&polled.body["description"])
            .contains(step)
            .then_some(())
    })
    .await;
}

/// Checks that nothing is left of any instance but the memory of it.
async fn assert_nothing_left(bench: &Bench) {
    assert_eq!(bench.running(), Vec::<String>::new());
    assert_eq!(files_of_deployments(bench), Vec::<String>::new());
    assert_eq!(Inside::of(bench).ports_reserved().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_102_a_deletion_is_done_accepted_or_of_something_that_is_gone() {
    let bench = Bench::with_instance(json!({})).await;
    for binding in ["one", "other"] {
        bench.bind("i", binding).await;
    }
    let done = bench.unbind("i", "one").await;
    assert_eq!((done.status, done.body), (StatusCode::OK, json!({})));
    assert!(!token(&bench.delete_binding("other").await).is_empty());
    assert!(!token(&bench.delete_instance("i").await).is_empty());
    for gone in [
        bench.unbind("i", "unknown").await,
        bench.delete_instance("unknown").await,
    ] {
        refused(&gone, StatusCode::GONE);
        assert!(gone.body.is_object());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_103_ids_are_needed_and_those_of_what_is_deleted() {
    let bench = Bench::with_instance(json!({})).await;
    bench.bind("i", "b").await;
    for path in [instance_path("i"), binding_path("i", "b")] {
        for query in [
            String::new(),
            format!("service_id={SERVICE}"),
            format!("plan_id={STANDARD}"),
            format!("service_id=&plan_id={STANDARD}"),
            format!("service_id={SERVICE}&plan_id="),
            format!("service_id=other&plan_id={STANDARD}"),
            format!("service_id={SERVICE}&plan_id={ENTERPRISE}"),
        ] {
            let query = format!("{query}&accepts_incomplete=true");
            let answer = bench.delete_at(&path, &query).await;
            refused(&answer, StatusCode::BAD_REQUEST);
        }
    }
    assert_eq!(bench.fetch("i").await.status, StatusCode::OK);
    assert_eq!(bench.fetch_binding("b").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_104_the_same_deletion_has_the_same_token_and_then_all_is_gone() {
    let bench = Bench::with_instance(json!({})).await;
    bench.bind("i", "b").await;
    let held = bench.script.hold(OperationKind::Unbind, "remove_user");
    let unbind = bench.delete_binding("b").await;
    assert_eq!(token(&bench.delete_binding("b").await), token(&unbind));
    coded(&bench.put_binding("b", json!({})).await, "ConcurrencyError");
    assert_eq!(bench.fetch_binding("b").await.status, StatusCode::NOT_FOUND);
    drop(held);
    assert_eq!(
        bench.end_of_binding("b", &unbind).await["state"],
        "succeeded"
    );
    assert_eq!(bench.delete_binding("b").await.status, StatusCode::GONE);
    let held = bench.script.hold(OperationKind::Deprovision, "destroy");
    let deletion = bench.delete_instance("i").await;
    assert_eq!(token(&bench.delete_instance("i").await), token(&deletion));
    drop(held);
    assert_eq!(bench.end("i", &deletion).await["state"], "succeeded");
    assert_eq!(bench.delete_instance("i").await.status, StatusCode::GONE);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_105_a_deletion_halts_a_provision_and_deletes_what_there_is_of_it() {
    let bench = Bench::on_etcd().await;
    // Members run by then.
    let held = bench.script.hold(OperationKind::Provision, "secure");
    let provision = bench.put("i", json!({})).await;
    reached(&bench, &provision, "step 3").await;
    assert_eq!(bench.running().len(), 3);
    let deletion = bench.delete_instance("i").await;
    assert!(!token(&deletion).is_empty());
    drop(held);
    assert_eq!(bench.end("i", &deletion).await["state"], "succeeded");
    assert_nothing_left(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_106_a_halted_provision_has_failed_and_the_deletion_has_a_token_of_its_own() {
    let bench = Bench::new().await;
    let held = bench.script.hold(OperationKind::Provision, "allocate");
    let provision = bench.put("i", json!({})).await;
    let deletion = bench.delete_instance("i").await;
    assert_ne!(token(&deletion), token(&provision));
    let poll = async |accepted| bench.poll("i", Some(token(accepted))).await;
    assert_eq!(state(&poll(&provision).await), "failed");
    assert_eq!(state(&poll(&deletion).await), "in progress");
    drop(held);
    assert_eq!(bench.end("i", &deletion).await["state"], "succeeded");
    assert_eq!(state(&poll(&provision).await), "failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_107_a_failed_provision_is_deleted_with_all_that_it_had() {
    let bench = Bench::new().await;
    let failing = bench.script.fail(OperationKind::Provision, "secure");
    let provision = bench.put("i", json!({})).await;
    assert_eq!(bench.end("i", &provision).await["state"], "failed");
    drop(failing);
    bench.deprovision("i").await;
    assert_nothing_left(&bench).await;
    assert_eq!(bench.fetch("i").await.status, StatusCode::NOT_FOUND);
}

/// The list would have a 422. Cloud Foundry never sends this, and Korifi takes a refusal for final:
/// the instance would stay for ever. So we do here what item 105 asks for during a provision.
#[tokio::test(flavor = "multi_thread")]
async fn osb_108_a_deletion_halts_an_update_too() {
    let bench = Bench::with_instance(json!({})).await;
    let held = bench.script.hold(OperationKind::Update, "check");
    let update = bench.patch(json!({ "parameters": { "units": 2 } })).await;
    let deletion = bench.delete_instance("i").await;
    assert_ne!(token(&deletion), token(&update));
    let halted = bench.poll("i", Some(token(&update))).await;
    assert_eq!(state(&halted), "failed");
    assert_eq!(halted.body["instance_usable"], false);
    assert_eq!(halted.body["update_repeatable"], false);
    drop(held);
    assert_eq!(bench.end("i", &deletion).await["state"], "succeeded");
    assert_nothing_left(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_109_a_deletion_halts_a_bind() {
    let bench = Bench::with_instance(json!({})).await;
    let own = bench.bind("i", "own").await;
    let held = bench.script.hold_after(OperationKind::Bind, "add_user");
    let bind = bench.put_binding("b", json!({})).await;
    let inside = Inside::of(&bench);
    eventually("a user", || async {
        let operation = inside.newest("i", OperationKind::Bind).await;
        inside
            .is_recorded(&operation, "add_user")
            .await
            .then_some(())
    })
    .await;
    let unbind = bench.delete_binding("b").await;
    assert_ne!(token(&unbind), token(&bind));
    let halted = bench.poll_binding("b", Some(token(&bind))).await;
    assert_eq!(state(&halted), "failed");
    drop(held);
    assert_eq!(
        bench.end_of_binding("b", &unbind).await["state"],
        "succeeded"
    );
    let users = bench.database.users(&inside, "i", &own).await;
    assert_eq!(users, [etcd::user(&own)]);
    assert_eq!(bench.fetch_binding("b").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_110_an_instance_is_deleted_with_its_bindings() {
    let bench = Bench::with_instance(json!({})).await;
    let credentials = bench.bind("i", "b").await;
    let api = async || {
        answer(bench.compose(Method::GET, &credentials, ""))
            .await
            .status
    };
    assert_eq!(api().await, StatusCode::OK);
    let held_bind = bench.script.hold(OperationKind::Bind, "issue");
    let late = bench.put_binding("late", json!({})).await;
    let held = bench.script.hold(OperationKind::Deprovision, "destroy");
    let deletion = bench.delete_instance("i").await;
    assert_eq!(api().await, StatusCode::UNAUTHORIZED);
    let halted = bench.poll_binding("late", Some(token(&late))).await;
    assert_eq!(state(&halted), "failed");
    drop((held, held_bind));
    assert_eq!(bench.end("i", &deletion).await["state"], "succeeded");
    assert!(!bench.database.lets_in(&credentials).await);
    for binding in ["b", "late"] {
        let fetched = bench.fetch_binding(binding).await;
        assert_eq!(fetched.status, StatusCode::NOT_FOUND);
        assert_eq!(bench.unbind("i", binding).await.status, StatusCode::GONE);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_111_an_orphan_is_deleted_before_while_and_after_it_is_made_and_never_asked_about() {
    let bench = Bench::new().await;
    let all = async || join_all((0..11).map(|_| bench.delete_instance("i"))).await;
    let is = |status| move |answer: &Answer| answer.status == status;
    assert!(all().await.iter().all(is(StatusCode::GONE)));
    assert_never_made(&bench, "i").await;
    let held = bench.script.hold(OperationKind::Provision, "allocate");
    let provision = bench.put("i", json!({})).await;
    let deletions = all().await;
    assert!(
        deletions.iter().all(|a| token(a) == token(&deletions[0])),
        "{deletions:?}"
    );
    drop(held);
    // Nobody polls.
    Inside::of(&bench).idle("i").await;
    assert!(all().await.iter().all(is(StatusCode::GONE)));
    let halted = bench.poll("i", Some(token(&provision))).await;
    assert_eq!(state(&halted), "failed");
    assert_nothing_left(&bench).await;
    // Of bindings as well.
    for _ in 0..11 {
        assert_eq!(bench.delete_binding("b").await.status, StatusCode::GONE);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_112_what_lost_to_a_deletion_does_not_come_back() {
    let bench = Bench::new().await;
    let inside = Inside::of(&bench);
    // All is done but the end of it.
    let held = bench.script.hold_after(OperationKind::Provision, "open");
    let provision = bench.put("i", json!({})).await;
    eventually("the last step", || async {
        let operation = inside.newest("i", OperationKind::Provision).await;
        inside.is_recorded(&operation, "open").await.then_some(())
    })
    .await;
    let deletion = bench.delete_instance("i").await;
    drop(held);
    assert_eq!(bench.end("i", &deletion).await["state"], "succeeded");
    let provision = bench.poll("i", Some(token(&provision))).await;
    assert_eq!(state(&provision), "failed");
    let ended = inside.newest("i", OperationKind::Provision).await.state;
    assert_eq!(ended, OperationState::Failed);
    assert_eq!(bench.fetch("i").await.status, StatusCode::NOT_FOUND);
    assert_nothing_left(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_113_a_deletion_needs_who_can_wait_also_of_what_is_unknown() {
    let bench = Bench::new().await;
    let _held = bench.script.hold(OperationKind::Provision, "allocate");
    let accepted = bench.put("known", json!({})).await;
    for id in ["known", "unknown"] {
        for query in [IDS.to_owned(), format!("{IDS}&accepts_incomplete=false")] {
            coded(
                &bench.delete_at(&instance_path(id), &query).await,
                "AsyncRequired",
            );
        }
    }
    let polled = bench.poll("known", Some(token(&accepted))).await;
    assert_eq!(state(&polled), "in progress");
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_114_a_deletion_that_failed_is_told_and_may_be_asked_for_again() {
    let bench = Bench::with_instance(json!({})).await;
    let failing = bench.script.fail(OperationKind::Deprovision, "release");
    let first = bench.delete_instance("i").await;
    let end = bench.end("i", &first).await;
    assert_eq!(end["state"], "failed", "{end}");
    assert_eq!(end["instance_usable"], false, "{end}");
    drop(failing);
    assert_eq!(bench.fetch("i").await.status, StatusCode::NOT_FOUND);
    let again = bench.delete_instance("i").await;
    assert_ne!(token(&again), token(&first));
    assert_eq!(bench.end("i", &again).await["state"], "succeeded");
    assert_nothing_left(&bench).await;
}

/// Trap T6: one suite says the service twice.
#[tokio::test(flavor = "multi_thread")]
async fn osb_t6_an_unbind_may_say_the_service_twice() {
    let bench = Bench::with_instance(json!({})).await;
    bench.bind("i", "b").await;
    let path = binding_path("i", "b");
    let query = format!("service_id=x&{IDS}&service_id={SERVICE}");
    let done = bench.delete_at(&path, &query).await;
    assert_eq!(done.status, StatusCode::OK, "{done:?}");
    let gone = bench.delete_at(&path, &query).await;
    assert_eq!(gone.status, StatusCode::GONE, "{gone:?}");
}

/// Trap T7: what is looked at first, where a request is wrong in two ways.
#[tokio::test(flavor = "multi_thread")]
async fn osb_t7_of_two_things_that_are_wrong_the_expected_one_is_told() {
    let bench = Bench::with_instance(json!({})).await;
    bench.bind("i", "b").await;
    // Instances: ids, then whether it may take time, then whether it is there.
    for id in ["i", "unknown"] {
        let path = instance_path(id);
        refused(&bench.delete_at(&path, "").await, StatusCode::BAD_REQUEST);
        coded(&bench.delete_at(&path, IDS).await, "AsyncRequired");
    }
    refused(&bench.delete_instance("unknown").await, StatusCode::GONE);
    // Bindings: whether it is there, then ids.
    for path in [binding_path("i", "unknown"), binding_path("unknown", "b")] {
        refused(&bench.delete_at(&path, "").await, StatusCode::GONE);
        let empty = bench.delete_at(&path, "service_id=&plan_id=").await;
        refused(&empty, StatusCode::GONE);
    }
    let known = binding_path("i", "b");
    refused(
        &bench.delete_at(&known, "service_id=&plan_id=").await,
        StatusCode::BAD_REQUEST,
    );
    // Provision: schema and ids, then maintenance, then the conflict.
    let maintenance = json!({ "version": "9.0.0" });
    let mut change = json!({
        "space_guid": "other", "maintenance_info": maintenance, "parameters": { "units": "x" },
    });
    refused(
        &bench.put("i", change.clone()).await,
        StatusCode::BAD_REQUEST,
    );
    change["parameters"] = json!({});
    coded(
        &bench.put("i", change.clone()).await,
        "MaintenanceInfoConflict",
    );
    change["maintenance_info"] = json!({});
    refused(&bench.put("i", change).await, StatusCode::CONFLICT);
    // Bind: the conflict, then whether the plan is the instance's.
    let other = json!({ "plan_id": ENTERPRISE });
    refused(
        &bench.put_binding("b", other.clone()).await,
        StatusCode::CONFLICT,
    );
    refused(
        &bench.put_binding("new", other).await,
        StatusCode::BAD_REQUEST,
    );
}
