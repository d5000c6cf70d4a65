//! Instances that refuse to be deleted, and limits on what one tenant may have and do.

use std::{fs, path::Path};

use compose_broker::model::operation::OperationKind;
use futures::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{
        Answer, ENTERPRISE, SERVICE, STANDARD, TestBroker, answer, eventually, instance_path,
        new_folder, text,
    },
    catalog::catalog_file,
    clusters::{self, described},
    control::{Script, surroundings},
    transport::description,
};

async fn update(broker: &TestBroker, id: &str, parameters: Value) -> Answer {
    let path = format!("{}?accepts_incomplete=true", instance_path(id));
    let body = json!({ "service_id": SERVICE, "plan_id": STANDARD, "parameters": parameters });
    answer(broker.osb(Method::PATCH, &path).json(&body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_is_as_large_as_its_engine_lets_it_be() {
    let broker = TestBroker::in_memory().await;
    let refused = broker.put_instance("i", json!({ "units": 17 })).await;
    let reason = description(&refused, StatusCode::BAD_REQUEST);
    assert!(reason.contains("from 1 to 16 units"), "{reason}");
    broker.provision("i", json!({ "units": 15 })).await;
    let refused = update(&broker, "i", json!({ "units": 17 })).await;
    let reason = description(&refused, StatusCode::BAD_REQUEST);
    assert!(reason.contains("from 1 to 16 units"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protected_instance_is_not_deleted_until_the_protection_is_taken_off() {
    let broker = TestBroker::start().await;
    // A creation that is in doubt must be taken back, so nothing is protected from its first
    // moment on.
    let from_the_start = broker
        .put_instance("i", json!({ "delete_protection": true }))
        .await;
    let reason = description(&from_the_start, StatusCode::BAD_REQUEST);
    assert!(reason.contains("delete_protection"), "{reason}");
    broker.provision("i", json!({ "units": 1 })).await;

    let wrong = update(&broker, "i", json!({ "delete_protection": "yes" })).await;
    description(&wrong, StatusCode::BAD_REQUEST);
    let protected = update(&broker, "i", json!({ "delete_protection": true })).await;
    assert_eq!(protected.status, StatusCode::OK, "{protected:?}");
    assert_eq!(protected.body.get("operation"), None, "{protected:?}");
    let refused = broker.delete_instance("i").await;
    let reason = description(&refused, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(reason.contains("delete_protection: false"), "{reason}");
    assert_eq!(refused.body.get("error"), None);
    // Nothing of it was begun: it can still be used, and tells of what protects it.
    let fetched = answer(broker.osb(Method::GET, &instance_path("i"))).await;
    assert_eq!(
        fetched.body["parameters"],
        json!({ "units": 1, "delete_protection": true })
    );
    broker.bind("i", "b").await;
    assert_eq!(broker.unbind("i", "b").await.status, StatusCode::OK);
    // Other updates leave it on.
    let other = update(&broker, "i", json!({ "units": 1 })).await;
    assert_eq!(other.status, StatusCode::OK, "{other:?}");
    let still = broker.delete_instance("i").await;
    description(&still, StatusCode::UNPROCESSABLE_ENTITY);

    let free = update(&broker, "i", json!({ "delete_protection": false })).await;
    assert_eq!(free.status, StatusCode::OK, "{free:?}");
    broker.deprovision("i").await;
}

/// A catalog like ours, with a limit of the instances of the plan Standard.
fn catalog_with_limit(folder: &Path, most: u32) -> String {
    let mut catalog = catalog_file();
    catalog["services"][0]["plans"][0]["broker"]["instances_per_tenant"] = json!(most);
    let file = folder.join("limited.json");
    fs::write(&file, catalog.to_string()).expect("a file");
    file.to_str().expect("UTF-8").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_061_a_tenant_has_no_more_than_it_may_however_it_asks() {
    let folder = new_folder();
    let script = Script::default();
    let catalog = catalog_with_limit(&folder, 3);
    let flags = ["--catalog", &catalog, "--tenant-units", "4"];
    let broker = TestBroker::start_in(folder, &flags, script.surroundings()).await;
    let _held = script.hold(OperationKind::Provision, "allocate");
    // All at once: what is counted is counted in the transaction that adds to it.
    let ids: Vec<String> = (0..8).map(|i| format!("i{i}")).collect();
    let asked = ids.iter().map(|id| broker.put_instance(id, json!({})));
    let (taken, refused): (Vec<Answer>, Vec<Answer>) = join_all(asked)
        .await
        .into_iter()
        .partition(|answer| answer.status == StatusCode::ACCEPTED);
    assert_eq!(taken.len(), 3, "{taken:?}");
    for answer in &refused {
        let reason = description(answer, StatusCode::BAD_REQUEST);
        assert!(
            reason.contains("3 of the 3 instances of plan Standard"),
            "{reason}"
        );
    }
    // Another space has its own, up to its units.
    let large = broker
        .put_instance_in("other", "large", json!({ "units": 4 }))
        .await;
    assert_eq!(large.status, StatusCode::ACCEPTED, "{large:?}");
    let small = broker.put_instance_in("other", "small", json!({})).await;
    let reason = description(&small, StatusCode::BAD_REQUEST);
    assert!(reason.contains("4 of the 4 units"), "{reason}");
    // A repeat is no second instance.
    let again = broker
        .put_instance_in("other", "large", json!({ "units": 4 }))
        .await;
    assert_eq!(again.body["operation"], large.body["operation"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_becomes_no_larger_than_its_tenant_may_have() {
    let flags = ["--tenant-units", "2"];
    let broker = TestBroker::in_memory_with(&flags, surroundings()).await;
    broker.provision("i", json!({})).await;
    let refused = update(&broker, "i", json!({ "units": 3 })).await;
    let reason = description(&refused, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(reason.contains("1 of the 2 units"), "{reason}");
    assert_eq!(refused.body["update_repeatable"], true);
    let taken = update(&broker, "i", json!({ "units": 2 })).await;
    assert_eq!(taken.status, StatusCode::ACCEPTED, "{taken:?}");
    // While it is becoming larger, the units that it becomes are gone for others.
    let other = broker.put_instance("j", json!({})).await;
    description(&other, StatusCode::BAD_REQUEST);
    let end = broker.instance_end("i", &taken.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
}

/// What the making of an instance waits for.
async fn wait_of(broker: &TestBroker, id: &str) -> String {
    let path = format!("{}/last_operation", instance_path(id));
    let polled = answer(broker.osb(Method::GET, &path)).await;
    text(&polled.body["description"]).to_owned()
}

/// Those of some instances whose making was begun.
async fn begun(broker: &TestBroker, ids: &[String]) -> Vec<String> {
    let mut begun = Vec::new();
    for id in ids {
        let path = format!("{}/last_operation", instance_path(id));
        let polled = answer(broker.osb(Method::GET, &path)).await;
        assert_eq!(polled.status, StatusCode::OK, "{polled:?}");
        if !text(&polled.body["description"]).starts_with("waiting to begin") {
            begun.push(id.clone());
        }
    }
    begun
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_one_tenant_does_not_hold_up_the_single_request_of_another() {
    let script = Script::default();
    let broker = TestBroker::in_memory_with(&[], script.surroundings()).await;
    let held = script.hold(OperationKind::Provision, "allocate");
    let burst: Vec<String> = (0..12).map(|i| format!("burst-{i}")).collect();
    for id in &burst {
        let accepted = broker.put_instance_in("greedy", id, json!({})).await;
        assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    }
    eventually("the tenant's share to be taken", || async {
        (begun(&broker, &burst).await.len() == 4).then_some(())
    })
    .await;
    let single = ["single".to_owned()];
    broker.put_instance_in("modest", "single", json!({})).await;
    eventually("the begin of another tenant's", || async {
        (begun(&broker, &single).await == single).then_some(())
    })
    .await;
    // The others of the burst wait, although there are places.
    assert_eq!(begun(&broker, &burst).await, &burst[..4]);
    assert_eq!(
        wait_of(&broker, &burst[4]).await,
        "waiting to begin; 4 tasks are done for the same owner, as many as may be at once"
    );
    // They are begun in turn as their own come to an end.
    let failing = script.fail(OperationKind::Provision, "allocate");
    drop(held);
    eventually("the end of all", || async {
        (begun(&broker, &burst).await.len() == 12).then_some(())
    })
    .await;
    drop(failing);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_does_no_more_at_once_than_it_may() {
    let folder = new_folder();
    let mut clusters = described(&folder);
    clusters[0]["operations_at_once"] = json!(1);
    let script = Script::default();
    let broker = clusters::start(&folder, &clusters, script.surroundings()).await;
    let held = script.hold(OperationKind::Provision, "allocate");
    let asked = [("a", "red"), ("b", "red"), ("c", "blue"), ("d", "blue")];
    for (id, cluster) in asked {
        let body = json!({
            "service_id": SERVICE, "plan_id": ENTERPRISE, "organization_guid": "org",
            "space_guid": id, "parameters": { "cluster_id": cluster },
        });
        let path = format!("{}?accepts_incomplete=true", instance_path(id));
        let accepted = answer(broker.osb(Method::PUT, &path).json(&body)).await;
        assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    }
    let ids = asked.map(|(id, _)| id.to_owned());
    eventually("all that may begin", || async {
        (begun(&broker, &ids).await == ["a", "c", "d"]).then_some(())
    })
    .await;
    assert_eq!(
        wait_of(&broker, "b").await,
        "waiting to begin; 1 task is done on the same cluster, as many as may be at once"
    );
    let failing = script.fail(OperationKind::Provision, "allocate");
    drop(held);
    eventually("the begin of the last", || async {
        (begun(&broker, &ids).await.len() == 4).then_some(())
    })
    .await;
    drop(failing);
}
