//! What a broker prints: everything that helps, and no secret.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{ENTERPRISE, SERVICE, TestBroker, answer, binding_path, text},
    etcd,
};

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_printed_whatever_is_logged() {
    let broker = TestBroker::spawn(&["--log", "trace"]).await;
    broker
        .provision("i", json!({ "db_version": "3.5.16" }))
        .await;
    let credentials = broker.bind("i", "b").await;
    etcd::fill(
        &mut etcd::connect(&credentials).await,
        3,
        "a value of the tenant",
    )
    .await;
    let backup = broker.back_up(&credentials).await;
    let link = text(&backup["download_link"]);
    assert!(
        reqwest::get(link)
            .await
            .expect("an answer")
            .status()
            .is_success()
    );
    let (_, signature) = link.split_once("signature=").expect("a signature");
    let hidden = "a parameter that is nobody's business";
    refused_requests(&broker, &credentials, hidden).await;
    let parameters = json!({ "source_service_instance_id": "i", "backup_id": backup["id"] });
    broker.provision("copy", parameters).await;
    assert_eq!(broker.unbind("i", "b").await.status, StatusCode::OK);
    for id in ["i", "copy"] {
        broker.deprovision(id).await;
    }

    let printed = broker.printed();
    assert!(printed.contains("request"), "it logs at all");
    let (username, password) = broker.platform();
    let token = text(&credentials["instance_administration_api"]["token"]);
    let binding = etcd::password(&credentials);
    let user_and_password = format!("{}:{binding}", etcd::user(&credentials));
    let secrets = [
        ("the platform's password", password.to_owned()),
        (
            "the platform's login",
            BASE64.encode(format!("{username}:{password}")),
        ),
        ("the binding's password", binding.clone()),
        ("the binding's login", BASE64.encode(user_and_password)),
        ("the API token", token.to_owned()),
        ("the link's signature", signature.to_owned()),
        ("a wrong password", "a-wrong-password".to_owned()),
        ("a parameter", hidden.to_owned()),
        ("a value", "a value of the tenant".to_owned()),
        ("a private key", "PRIVATE KEY".to_owned()),
    ];
    for (what, secret) in secrets {
        let line = printed.lines().find(|line| line.contains(&secret));
        assert!(line.is_none(), "{what} in: {line:?}");
        let bytes = format!("{:?}", secret.as_bytes());
        let bytes = bytes.trim_matches(['[', ']']);
        let line = printed.lines().find(|line| line.contains(bytes));
        assert!(line.is_none(), "{what}, as bytes, in: {line:?}");
    }
}

/// Requests that fail, with secrets in them.
async fn refused_requests(broker: &TestBroker, credentials: &Value, hidden: &str) {
    let path = binding_path("i", "c");
    let foreign = json!({ "service_id": SERVICE, "plan_id": ENTERPRISE });
    let refused = answer(broker.osb(Method::PUT, &path).json(&foreign)).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    let surprising = json!({
        "service_id": SERVICE, "plan_id": ENTERPRISE, "parameters": { "x": hidden },
    });
    let refused = answer(broker.osb(Method::PUT, &path).json(&surprising)).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    let broken = format!("{{\"parameters\": \"{hidden}\"");
    let refused = answer(broker.osb(Method::PUT, &path).body(broken)).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    let stranger = broker
        .anonymous(Method::GET, "/v2/catalog")
        .basic_auth("broker", Some("a-wrong-password"));
    assert_eq!(answer(stranger).await.status, StatusCode::UNAUTHORIZED);
    let mut wrong = credentials.clone();
    wrong["instance_administration_api"]["token"] = json!("a-wrong-password");
    let refused = answer(broker.compose(Method::GET, &wrong, "")).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
}
