//! Bind, fetch a binding, rotation.

use compose_broker::model::operation::OperationKind;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Bench, coded, ids, refused, token, with};
use crate::{
    broker::{Answer, ENTERPRISE, answer, binding_path, eventually, instance_path, text},
    catalog::catalog_file,
    etcd,
};

fn credentials(answer: &Answer) -> &Value {
    let is_made = [StatusCode::OK, StatusCode::CREATED].contains(&answer.status);
    assert!(is_made, "{answer:?}");
    assert!(answer.body["credentials"].is_object(), "{answer:?}");
    &answer.body["credentials"]
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_088_a_binding_is_made_at_once_or_later_and_told_with_credentials_when_it_is_made() {
    let bench = Bench::with_etcd(json!({})).await;
    let made = bench.put_binding_waiting("now", json!({})).await;
    assert_eq!(made.status, StatusCode::CREATED);
    credentials(&made);
    let held = bench.script.hold(OperationKind::Bind, "add_user");
    let later = bench.put_binding("later", json!({})).await;
    let again = bench.put_binding("later", json!({})).await;
    assert_eq!(token(&later), token(&again));
    for accepted in [&later, &again] {
        assert_eq!(accepted.body.get("credentials"), None);
    }
    let running = bench.poll_binding("later", Some(token(&later))).await;
    assert_eq!(running.body["state"], "in progress");
    assert!(running.headers.contains_key("retry-after"), "{running:?}");
    drop(held);
    assert_eq!(
        bench.end_of_binding("later", &later).await["state"],
        "succeeded"
    );
    let done = bench.put_binding("later", json!({})).await;
    assert_eq!(done.status, StatusCode::OK);
    credentials(&done);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_089_service_and_plan_are_needed_and_those_of_the_instance() {
    let bench = Bench::with_instance(json!({})).await;
    for field in ["service_id", "plan_id"] {
        for value in [json!(null), json!(""), json!(7), json!("unknown")] {
            let answer = bench.put_binding("b", json!({ field: value })).await;
            let reason = refused(&answer, StatusCode::BAD_REQUEST);
            assert!(reason.contains(field), "{field} {value}: {reason}");
        }
    }
    let other = json!({ "plan_id": ENTERPRISE });
    refused(
        &bench.put_binding("b", other.clone()).await,
        StatusCode::BAD_REQUEST,
    );
    assert_eq!(bench.fetch_binding("b").await.status, StatusCode::NOT_FOUND);
    // Under an id that is taken, a conflict comes first.
    bench.put_binding_waiting("b", json!({})).await;
    refused(&bench.put_binding("b", other).await, StatusCode::CONFLICT);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_090_an_unknown_instance_is_a_404_and_one_that_is_not_ready_comes_later() {
    let bench = Bench::new().await;
    refused(
        &bench.put_binding("b", json!({})).await,
        StatusCode::NOT_FOUND,
    );
    let _held = bench.script.hold(OperationKind::Provision, "allocate");
    bench.put("i", json!({})).await;
    coded(&bench.put_binding("b", json!({})).await, "ConcurrencyError");
    refused(&bench.fetch_binding("b").await, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_091_no_application_is_needed() {
    let bench = Bench::with_instance(json!({})).await;
    let held = bench.script.hold(OperationKind::Bind, "add_user");
    for (i, change) in [
        json!({}),
        json!({ "bind_resource": {} }),
        json!({ "bind_resource": null }),
        json!({ "bind_resource": { "credential_client_id": "x" } }),
        json!({ "app_guid": "", "bind_resource": { "app_guid": "" } }),
        json!({ "app_guid": "a", "bind_resource": { "app_guid": "a", "space_guid": "s" } }),
    ]
    .into_iter()
    .enumerate()
    {
        token(&bench.put_binding(&format!("b{i}"), change).await);
    }
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_092_a_repeat_has_the_same_credentials_and_another_request_conflicts() {
    let mut bench = Bench::with_instance(json!({})).await;
    let first = bench.put_binding_waiting("b", json!({})).await;
    for _ in 0..2 {
        for change in [
            json!({}),
            json!({ "parameters": null, "bind_resource": {} }),
            json!({ "parameters": {}, "context": { "platform": "x" }, "unknown": 1 }),
        ] {
            let again = bench.put_binding("b", change).await;
            assert_eq!(again.status, StatusCode::OK);
            assert_eq!(credentials(&again), credentials(&first));
        }
        for change in [
            json!({ "bind_resource": { "app_guid": "other" } }),
            json!({ "parameters": { "expires_in": 60 } }),
        ] {
            refused(&bench.put_binding("b", change).await, StatusCode::CONFLICT);
        }
        bench.restart().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_094_who_cannot_poll_is_answered_and_who_polls_can_fetch_at_once() {
    let bench = Bench::with_instance(json!({})).await;
    // As old command line clients do.
    let body = with(ids(), &json!({ "app_guid": "x" }));
    let request = bench.as_minor(13, Method::PUT, &binding_path("i", "now"));
    let made = answer(request.json(&body)).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let accepted = bench.put_binding("later", json!({})).await;
    eventually("a binding", || async {
        let polled = bench.poll_binding("later", Some(token(&accepted))).await;
        let fetched = bench.fetch_binding("later").await;
        let told = polled.body["state"] == "succeeded";
        assert!(!told || fetched.status == StatusCode::OK, "{fetched:?}");
        told.then_some(())
    })
    .await;
    assert!(
        bench
            .database
            .lets_in(credentials(&bench.fetch_binding("later").await))
            .await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_095_endpoints_have_hosts_ports_and_a_protocol() {
    let bench = Bench::with_etcd(json!({})).await;
    let made = bench.put_binding_waiting("b", json!({})).await;
    let endpoints = made.body["endpoints"].as_array().expect("endpoints");
    assert_eq!(endpoints.len(), 3);
    for (endpoint, field) in endpoints
        .iter()
        .zip(["uri", "uri_direct_1", "uri_direct_2"])
    {
        let uri: url::Url = text(&credentials(&made)[field]).parse().expect("a URI");
        let expected = json!({
            "host": uri.host_str().expect("a host"),
            "ports": [uri.port().expect("a port").to_string()],
            "protocol": "tcp",
        });
        assert_eq!(endpoint, &expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_096_a_binding_is_fetched_when_it_is_made() {
    let bench = Bench::with_instance(json!({})).await;
    refused(&bench.fetch_binding("b").await, StatusCode::NOT_FOUND);
    let parameters = json!({ "expires_in": 3600, "role": "reader" });
    let held = bench.script.hold(OperationKind::Bind, "issue");
    let accepted = bench
        .put_binding("b", json!({ "parameters": parameters }))
        .await;
    refused(&bench.fetch_binding("b").await, StatusCode::NOT_FOUND);
    drop(held);
    bench.end_of_binding("b", &accepted).await;
    let fetched = bench.fetch_binding("b").await;
    assert!(bench.database.lets_in(credentials(&fetched)).await);
    assert_eq!(fetched.body["parameters"], parameters);
    assert!(fetched.body["metadata"]["expires_at"].is_string());
    assert!(fetched.body["endpoints"].is_array());
    bench.unbind("i", "b").await;
    refused(&bench.fetch_binding("b").await, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_099_a_rotation_may_be_repeated_and_has_one_predecessor() {
    let bench = Bench::with_instance(json!({})).await;
    for binding in ["old", "other"] {
        bench.put_binding_waiting(binding, json!({})).await;
    }
    let rotate = async |binding: &str, predecessor: &str| {
        let body = json!({ "predecessor_binding_id": predecessor });
        let request = bench.osb(Method::PUT, &binding_path("i", binding));
        answer(request.json(&body)).await
    };
    let first = rotate("new", "old").await;
    assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
    let again = rotate("new", "old").await;
    assert_eq!(again.status, StatusCode::OK, "{again:?}");
    assert_eq!(again.body, first.body);
    refused(&rotate("new", "other").await, StatusCode::CONFLICT);
    refused(
        &bench.put_binding("new", json!({})).await,
        StatusCode::CONFLICT,
    );
    for binding in ["itself", "new"] {
        refused(&rotate(binding, binding).await, StatusCode::BAD_REQUEST);
    }
    assert_eq!(
        bench.fetch_binding("itself").await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_100_an_application_may_have_several_bindings() {
    let bench = Bench::with_instance(json!({})).await;
    let app = json!({ "bind_resource": { "app_guid": "the-same" } });
    let one = bench.put_binding_waiting("one", app.clone()).await;
    let other = bench.put_binding_waiting("other", app).await;
    let (one, other) = (credentials(&one), credentials(&other));
    assert_ne!(etcd::user(one), etcd::user(other));
    assert!(bench.database.lets_in(one).await && bench.database.lets_in(other).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_101_an_instance_that_cannot_be_used_takes_no_binding_and_that_is_no_fault_of_ours() {
    let bench = Bench::new().await;
    bench.fail_to_provision("i").await;
    coded(&bench.put_binding("b", json!({})).await, "ConcurrencyError");
    let held = bench.script.hold(OperationKind::Deprovision, "destroy");
    let deletion = bench.delete_instance("i").await;
    coded(&bench.put_binding("b", json!({})).await, "ConcurrencyError");
    drop(held);
    bench.end("i", &deletion).await;
    refused(
        &bench.put_binding("b", json!({})).await,
        StatusCode::NOT_FOUND,
    );
}

/// Trap T5: older platforms' schemas refuse what they do not know.
#[tokio::test(flavor = "multi_thread")]
async fn osb_t5_fields_are_told_to_platforms_that_know_them() {
    let bench = Bench::with_instance(json!({})).await;
    let body = with(ids(), &json!({ "parameters": { "expires_in": 3600 } }));
    let first = bench.put_binding_waiting("b", body.clone()).await;
    assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
    for (minor, binding, instance, rotatable) in [
        (13, vec!["credentials"], vec!["dashboard_url"], false),
        (14, vec!["credentials"], vec!["dashboard_url"], false),
        (15, vec!["credentials"], vec!["dashboard_url"], false),
        (
            16,
            vec!["credentials", "endpoints", "metadata"],
            vec!["dashboard_url", "metadata"],
            false,
        ),
        (
            17,
            vec!["credentials", "endpoints", "metadata"],
            vec!["dashboard_url", "metadata"],
            true,
        ),
    ] {
        let fields = |answer: &Answer| -> Vec<String> {
            assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
            let mut fields: Vec<String> = answer
                .body
                .as_object()
                .expect("an object")
                .keys()
                .cloned()
                .collect();
            fields.sort();
            fields
        };
        let again = bench.as_minor(minor, Method::PUT, &binding_path("i", "b"));
        assert_eq!(
            fields(&answer(again.json(&body)).await),
            binding,
            "2.{minor}"
        );
        let again = bench.as_minor(minor, Method::PUT, &instance_path("i"));
        let provision = super::provision_body(&json!({}));
        assert_eq!(
            fields(&answer(again.json(&provision)).await),
            instance,
            "2.{minor}"
        );
        let catalog = answer(bench.as_minor(minor, Method::GET, "/v2/catalog"))
            .await
            .body;
        let plan = &catalog["services"][0]["plans"][0];
        assert_eq!(
            plan.get("binding_rotatable").is_some(),
            rotatable,
            "2.{minor}"
        );
    }
}

/// Trap T8: one suite uses the id of a binding again, and wants names in small letters.
#[tokio::test(flavor = "multi_thread")]
async fn osb_t8_a_binding_id_is_free_again_and_plans_may_have_small_names() {
    let mut catalog = catalog_file();
    catalog["services"][0]["plans"][0]["name"] = json!("standard");
    catalog["services"][0]["plans"][1]["name"] = json!("enterprise");
    let bench = Bench::with_catalog(&catalog).await;
    let served = bench.get("/v2/catalog").await.body;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let offering = &served["services"][0];
    let plans = offering["plans"].as_array().expect("plans");
    assert!(plans.len() >= 2);
    for thing in plans.iter().chain([offering]) {
        assert!(text(&thing["name"]).chars().all(plain), "{thing}");
    }
    bench.provision("i", json!({})).await;
    let first = bench.bind("i", "b").await;
    assert_eq!(bench.unbind("i", "b").await.status, StatusCode::OK);
    let second = bench.bind("i", "b").await;
    assert_ne!(etcd::password(&first), etcd::password(&second));
    assert!(bench.database.lets_in(&second).await && !bench.database.lets_in(&first).await);
}
