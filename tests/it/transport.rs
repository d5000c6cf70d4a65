//! Who is let in, in which order requests are looked at, and what every answer has in common.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{Answer, SERVICE, STANDARD, TestBroker, answer, text},
    raw,
};

fn request_of_an_instance() -> Value {
    json!({
        "service_id": SERVICE, "plan_id": STANDARD,
        "organization_guid": "org", "space_guid": "space",
    })
}

async fn put_body(broker: &TestBroker, body: &Value) -> Answer {
    let path = "/v2/service_instances/i?accepts_incomplete=true";
    answer(broker.osb(Method::PUT, path).json(body)).await
}

/// An OSB error, held to the specification's form; returns its description.
pub fn description(answer: &Answer, status: StatusCode) -> &str {
    assert_eq!(answer.status, status, "{answer:?}");
    let description = text(&answer.body["description"]);
    assert!(!description.is_empty(), "{answer:?}");
    description
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_beyond_any_size_are_refused_without_harm() {
    let broker = TestBroker::start().await;
    let huge = format!("Authorization: Basic {}\r\n", "QUFB".repeat(500_000));
    let answer = raw::send(&broker, "GET", "/v2/catalog", &huge, "").await;
    assert!((400..500).contains(&answer.status), "{answer:?}");
    let after = answer_of(&broker, "2.17").await;
    assert_eq!(after.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scheme_of_the_credentials_is_read_in_any_case() {
    let broker = TestBroker::start().await;
    for scheme in ["basic", "BASIC"] {
        let headers = raw::platform(&broker).replace("Basic", scheme);
        let answer = raw::send(&broker, "GET", "/v2/catalog", &headers, "").await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

async fn answer_of(broker: &TestBroker, version: &str) -> Answer {
    let (username, password) = broker.platform();
    let request = broker
        .anonymous(Method::GET, "/v2/catalog")
        .basic_auth(username, Some(password))
        .header("X-Broker-API-Version", version);
    answer(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_of_the_wrong_type_is_named() {
    let broker = TestBroker::start().await;
    let required = ["service_id", "plan_id", "organization_guid", "space_guid"];
    for field in required {
        for value in [
            json!(1),
            json!(["x"]),
            json!({}),
            json!(true),
            json!(""),
            json!(null),
        ] {
            let mut body = request_of_an_instance();
            body[field] = value.clone();
            let answer = put_body(&broker, &body).await;
            let reason = description(&answer, StatusCode::BAD_REQUEST);
            assert!(reason.contains(field), "{field} {value}: {reason}");
        }
        let mut body = request_of_an_instance();
        body.as_object_mut().expect("an object").remove(field);
        let answer = put_body(&broker, &body).await;
        let reason = description(&answer, StatusCode::BAD_REQUEST);
        assert!(reason.contains(field), "{field} absent: {reason}");
    }
    for field in ["parameters", "context", "maintenance_info"] {
        for value in [json!(1), json!(["x"]), json!("x"), json!(false)] {
            let mut body = request_of_an_instance();
            body[field] = value.clone();
            let answer = put_body(&broker, &body).await;
            let reason = description(&answer, StatusCode::BAD_REQUEST);
            assert!(reason.contains(field), "{field} {value}: {reason}");
        }
    }
    let nothing = answer(broker.osb(Method::GET, "/v2/service_instances/i/last_operation")).await;
    assert_eq!(nothing.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_of_a_binding_request_that_is_wrong_is_named() {
    let broker = TestBroker::start().await;
    let put = async |body: Value| {
        let path = "/v2/service_instances/i/service_bindings/b";
        answer(broker.osb(Method::PUT, path).json(&body)).await
    };
    let good = json!({ "service_id": SERVICE, "plan_id": STANDARD });
    for field in ["service_id", "plan_id"] {
        for value in [json!(null), json!(""), json!(7), json!("unknown")] {
            let mut body = good.clone();
            body[field] = value.clone();
            let answer = put(body).await;
            let reason = description(&answer, StatusCode::BAD_REQUEST);
            assert!(reason.contains(field), "{field} {value}: {reason}");
        }
    }
    for field in ["bind_resource", "parameters"] {
        let mut body = good.clone();
        body[field] = json!("x");
        let answer = put(body).await;
        let reason = description(&answer, StatusCode::BAD_REQUEST);
        assert!(reason.contains(field), "{field}: {reason}");
    }
    let mut unknown = good.clone();
    unknown["parameters"] = json!({ "surprise": 1 });
    let refused = put(unknown).await;
    assert!(description(&refused, StatusCode::BAD_REQUEST).contains("surprise"));
    let nowhere = put(good).await;
    description(&nowhere, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_told_to_anybody_and_tells_nothing_else() {
    let broker = TestBroker::start().await;
    for (path, status) in [("/healthz", "ok"), ("/readyz", "ready")] {
        let answer = answer(broker.anonymous(Method::GET, path)).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        let mut told = answer.body;
        // There on machines with little room.
        told.as_object_mut().expect("an object").remove("detail");
        assert_eq!(told, json!({ "status": status }), "{path}");
    }
}
