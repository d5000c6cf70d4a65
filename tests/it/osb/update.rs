//! Updates.

use compose_broker::model::operation::{OperationKind, OperationState};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Bench, coded, refused, token};
use crate::{
    broker::{Answer, ENTERPRISE, STANDARD, answer, instance_path},
    catalog::two_services,
    inside::Inside,
};

fn units(units: u32) -> Value {
    json!({ "parameters": { "units": units } })
}

fn done(bench: &Bench, answer: &Answer) {
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let engine = bench.database.engine();
    assert_eq!(answer.body["metadata"]["labels"]["engine"], engine);
    assert!(answer.body["dashboard_url"].is_string(), "{answer:?}");
    assert_eq!(answer.body.get("operation"), None, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_078_an_update_is_of_an_instance_that_is_there_and_of_its_service() {
    let bench = Bench::with_catalog(&two_services()).await;
    refused(&bench.patch(json!({})).await, StatusCode::NOT_FOUND);
    bench.provision("i", json!({})).await;
    done(&bench, &bench.patch(json!({})).await);
    for service in [
        json!(null),
        json!(""),
        json!(7),
        json!("unknown"),
        json!("second-service"),
    ] {
        for plan in [json!(null), json!(STANDARD), json!("second-plan")] {
            let change = json!({ "service_id": service, "plan_id": plan });
            refused(&bench.patch(change).await, StatusCode::BAD_REQUEST);
        }
    }
    let change = bench.patch(units(2)).await;
    assert!(!token(&change).is_empty());
    bench.deprovision("i").await;
    refused(&bench.patch(json!({})).await, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_079_what_cloud_foundry_always_sends_resets_nothing() {
    let bench = Bench::with_etcd(json!({ "units": 1, "db_version": "3.5.16" })).await;
    let before = (bench.fetch("i").await.body, bench.running());
    for change in [
        json!({ "plan_id": STANDARD, "parameters": {} }),
        json!({ "plan_id": null, "parameters": {} }),
        json!({ "plan_id": STANDARD, "parameters": {}, "context": { "instance_name": "new" } }),
        json!({ "previous_values": { "plan_id": STANDARD, "organization_id": "o" } }),
    ] {
        done(&bench, &bench.patch(change).await);
        assert_eq!((bench.fetch("i").await.body, bench.running()), before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_080_a_renamed_instance_is_known_at_once_by_its_new_name() {
    let bench = Bench::with_instance(json!({})).await;
    let inside = Inside::of(&bench);
    for name in ["first", "second"] {
        let context = json!({ "platform": "cloudfoundry", "instance_name": name });
        // Not even a platform that can wait is made to.
        let body = json!({ "service_id": super::ids()["service_id"], "context": context });
        let request = bench.osb(Method::PATCH, &instance_path("i"));
        done(&bench, &answer(request.json(&body)).await);
        assert_eq!(inside.instance("i").await.context, context);
    }
    assert_eq!(inside.outcomes("i").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_081_parameters_are_merged_and_held_to_the_plan_s_schema() {
    let bench = Bench::with_etcd(json!({ "db_version": "3.5.16" })).await;
    let parameters = async || bench.fetch("i").await.body["parameters"].clone();
    let mut body = super::ids();
    let path = instance_path("i");
    done(
        &bench,
        &answer(bench.osb(Method::PATCH, &path).json(&body)).await,
    );
    for none in [json!(null), json!({})] {
        body["parameters"] = none;
        done(
            &bench,
            &answer(bench.osb(Method::PATCH, &path).json(&body)).await,
        );
    }
    assert_eq!(parameters().await, json!({ "db_version": "3.5.16" }));
    done(&bench, &bench.patch(units(1)).await);
    let merged = json!({ "db_version": "3.5.16", "units": 1 });
    assert_eq!(parameters().await, merged);
    // What a provision takes is not what an update takes.
    for wrong in [
        json!({ "backup_id": "x" }),
        json!({ "units": "2" }),
        json!({ "unknown": 1 }),
    ] {
        let answer = bench.patch(json!({ "parameters": wrong })).await;
        assert!(refused(&answer, StatusCode::BAD_REQUEST).contains("schema"));
    }
    assert_eq!(parameters().await, merged);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_082_an_instance_keeps_its_plan() {
    let bench = Bench::with_instance(json!({})).await;
    let before = (bench.fetch("i").await.body, bench.running());
    for change in [
        json!({ "plan_id": ENTERPRISE }),
        json!({ "plan_id": ENTERPRISE, "parameters": { "units": 2 } }),
    ] {
        let answer = bench.patch(change).await;
        refused(&answer, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(answer.body["instance_usable"], true);
        assert_eq!(answer.body["update_repeatable"], false);
    }
    let unknown = bench.patch(json!({ "plan_id": "unknown" })).await;
    refused(&unknown, StatusCode::BAD_REQUEST);
    assert_eq!((bench.fetch("i").await.body, bench.running()), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_083_the_same_update_has_the_same_token_and_another_one_waits() {
    let bench = Bench::with_etcd(json!({ "db_version": "3.7.3" })).await;
    done(&bench, &bench.patch(units(1)).await);
    done(
        &bench,
        &bench
            .patch(json!({ "maintenance_info": { "version": "3.7.3" } }))
            .await,
    );
    let held = bench.script.hold(OperationKind::Update, "check");
    let first = bench.patch(units(2)).await;
    for same in [
        units(2),
        json!({ "parameters": { "units": 2.0 }, "plan_id": null, "previous_values": {} }),
    ] {
        assert_eq!(token(&bench.patch(same).await), token(&first));
    }
    for other in [
        units(3),
        units(1),
        json!({ "parameters": { "db_version": "3.7.3" } }),
    ] {
        coded(&bench.patch(other).await, "ConcurrencyError");
    }
    drop(held);
    assert_eq!(bench.end("i", &first).await["state"], "succeeded");
    done(&bench, &bench.patch(units(2)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_084_the_catalog_s_maintenance_version_is_an_upgrade_and_another_one_a_conflict() {
    let bench = Bench::with_etcd(json!({ "db_version": "3.5.16" })).await;
    let inside = Inside::of(&bench);
    for version in ["3.5.16", "3.7.2", "garbage", ""] {
        let change = json!({ "maintenance_info": { "version": version } });
        coded(&bench.patch(change).await, "MaintenanceInfoConflict");
    }
    let _held = bench.script.hold(OperationKind::Update, "check");
    let upgrade = json!({
        "maintenance_info": { "version": "3.7.3", "description": "any" },
        // Whatever is said of before is not believed.
        "previous_values": { "plan_id": null, "maintenance_info": { "version": "9.9.9" } },
    });
    let accepted = bench.patch(upgrade).await;
    let update = inside.newest("i", OperationKind::Update).await;
    assert_eq!(update.id.to_string(), token(&accepted));
    let change = update.change.expect("a change");
    assert_eq!(change.from.version.to_string(), "3.5.16");
    let goal = change.path.last().expect("a goal");
    assert_eq!(goal.version.to_string(), "3.7.3");
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_085_an_update_that_takes_time_needs_who_can_wait() {
    let bench = Bench::with_instance(json!({})).await;
    for query in ["", "?accepts_incomplete=false", "?accepts_incomplete=1"] {
        let path = format!("{}{query}", instance_path("i"));
        coded(&bench.patch_at(&path, units(2)).await, "AsyncRequired");
    }
    assert_eq!(Inside::of(&bench).outcomes("i").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_086_a_refused_or_failed_update_changes_nothing() {
    let bench = Bench::with_etcd(json!({ "db_version": "3.5.16" })).await;
    let before = (bench.fetch("i").await.body, bench.running());
    let context = Inside::of(&bench).instance("i").await.context;
    for change in [
        json!({ "service_id": "unknown", "context": { "x": 1 } }),
        json!({ "parameters": { "units": 33 }, "context": { "x": 1 } }),
        json!({ "parameters": { "db_version": "3.4.23" }, "context": { "x": 1 } }),
        json!({ "maintenance_info": { "version": "0.0.1" }, "context": { "x": 1 } }),
    ] {
        let refused = bench.patch(change.clone()).await;
        assert!(refused.status.is_client_error(), "{change}: {refused:?}");
    }
    let failing = bench.script.fail(OperationKind::Update, "roll");
    let update = bench.patch(units(2)).await;
    assert_eq!(bench.end("i", &update).await["state"], "failed");
    drop(failing);
    assert_eq!((bench.fetch("i").await.body, bench.running()), before);
    let inside = Inside::of(&bench);
    assert_eq!(inside.instance("i").await.context, context);
    let newest = inside.newest("i", OperationKind::Update).await;
    assert_eq!(newest.state, OperationState::Failed);
}
