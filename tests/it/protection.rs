//! Instances that refuse to be deleted, and limits on what one tenant may have and do.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{Answer, SERVICE, STANDARD, TestBroker, answer, instance_path},
    transport::description,
};

async fn update(broker: &TestBroker, id: &str, parameters: Value) -> Answer {
    let path = format!("{}?accepts_incomplete=true", instance_path(id));
    let body = json!({ "service_id": SERVICE, "plan_id": STANDARD, "parameters": parameters });
    answer(broker.osb(Method::PATCH, &path).json(&body)).await
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
    assert_eq!(protected.body, json!({}));
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
