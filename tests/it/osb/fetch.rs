//! Fetching an instance.

use compose_broker::model::operation::OperationKind;
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::{Bench, refused, state, token};
use crate::{
    broker::{SERVICE, STANDARD, answer, eventually, instance_path, text},
    etcd,
};

#[tokio::test(flavor = "multi_thread")]
async fn osb_073_an_instance_is_told_with_all_that_platforms_read() {
    let parameters = json!({ "units": 1, "db_version": "3.5.16" });
    let bench = Bench::with_etcd(parameters.clone()).await;
    let mut expected = json!({
        "service_id": SERVICE, "plan_id": STANDARD, "parameters": parameters,
        "dashboard_url": format!("{}/dashboard/instances/i", bench.url),
        "metadata": {
            "labels": { "engine": "etcd", "version": "3.5.16", "units": "1" }, "attributes": {},
        },
    });
    // Nothing is null, and nothing is told that the platform's version does not have.
    for minor in [13, 14, 15] {
        let fetched = answer(bench.as_minor(minor, Method::GET, &instance_path("i"))).await;
        assert_eq!(fetched.status, StatusCode::OK, "{fetched:?}");
        assert_eq!(fetched.body, expected, "2.{minor}");
    }
    expected["maintenance_info"] = json!({ "version": "3.5.16" });
    for minor in [16, 17, 18] {
        let fetched = answer(bench.as_minor(minor, Method::GET, &instance_path("i"))).await;
        assert_eq!(fetched.body, expected, "2.{minor}");
    }
    // The ids in the query are hints.
    let path = format!("{}?service_id=x&plan_id=y", instance_path("i"));
    assert_eq!(bench.get(&path).await.body, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_074_what_cannot_be_used_is_a_404() {
    let bench = Bench::new().await;
    let absent = async |id: &str| {
        refused(&bench.fetch(id).await, StatusCode::NOT_FOUND);
    };
    absent("i").await;
    let held = bench.script.hold(OperationKind::Provision, "allocate");
    bench.put("i", json!({})).await;
    absent("i").await;
    let held_deletion = bench.script.hold(OperationKind::Deprovision, "destroy");
    let deletion = bench.delete_instance("i").await;
    drop(held);
    absent("i").await;
    drop(held_deletion);
    bench.end("i", &deletion).await;
    absent("i").await;
    bench.fail_to_provision("failed").await;
    absent("failed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_075_while_it_is_updated_an_instance_is_what_it_was() {
    let bench = Bench::with_instance(json!({})).await;
    let before = bench.fetch("i").await.body;
    let held = bench.script.hold(OperationKind::Update, "check");
    let update = bench.patch(json!({ "parameters": { "units": 2 } })).await;
    for _ in 0..3 {
        assert_eq!(
            state(&bench.poll("i", Some(token(&update))).await),
            "in progress"
        );
        assert_eq!(bench.fetch("i").await.body, before);
    }
    drop(held);
    assert_eq!(bench.end("i", &update).await["state"], "succeeded");
    let after = bench.fetch("i").await.body;
    assert_eq!(after["parameters"], json!({ "units": 2 }));
    assert_eq!(after["metadata"]["labels"]["units"], "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_076_an_instance_can_be_fetched_the_moment_it_is_told() {
    let bench = Bench::new().await;
    let accepted = bench.put("i", json!({})).await;
    // Both at once, so that one is asked for in the middle of the other.
    eventually("an instance", || async {
        let polled = bench.poll("i", Some(token(&accepted))).await;
        let fetched = bench.fetch("i").await;
        let told = state(&polled) == "succeeded";
        assert!(!told || fetched.status == StatusCode::OK, "{fetched:?}");
        told.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_077_an_instance_tells_no_secrets() {
    let bench = Bench::with_instance(json!({})).await;
    let credentials = bench.bind("i", "b").await;
    let told = bench.fetch("i").await.body.to_string();
    let token = text(&credentials["instance_administration_api"]["token"]).to_owned();
    let authority = text(&credentials["ca_certificate_base64"]).to_owned();
    for secret in [
        etcd::password(&credentials),
        etcd::user(&credentials),
        token,
        authority,
    ] {
        assert!(!told.contains(&secret), "{told}");
    }
    assert!(!told.contains("credentials"), "{told}");
}
