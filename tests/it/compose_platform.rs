//! The Compose API with the platform's own credentials: every instance, also one whose database is lost,
//! and nothing that the audit does not tell.

use std::fs;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{TestBroker, answer, text},
    control::surroundings,
};

/// The address of an instance's deployment, as the platform finds it.
async fn address(broker: &TestBroker, instance: &str) -> String {
    let root = format!("/api/2016-07/instances/{instance}");
    let told = answer(broker.osb(Method::GET, &root)).await;
    assert_eq!(told.status, StatusCode::OK, "{told:?}");
    assert_eq!(told.body["resource_type"], "deployment");
    format!("{root}/deployments/{}", text(&told.body["resource_id"]))
}

fn by_ada(request: RequestBuilder) -> RequestBuilder {
    let identity = BASE64.encode(json!({ "user_id": "ada" }).to_string());
    let identity = format!("cloudfoundry {identity}");
    request.header("X-Broker-API-Originating-Identity", identity)
}

/// What the audit says of an instance: what was done, and who is said to have done it.
async fn told(broker: &TestBroker, instance: &str) -> Vec<Value> {
    let path = format!("/operator/audit?instance={instance}");
    let page = answer(broker.osb(Method::GET, &path)).await;
    let entries = page.body["entries"].as_array().expect("entries").clone();
    let of_interest = ["backup", "download_link", "download"].map(Value::from);
    entries
        .into_iter()
        .filter(|entry| of_interest.contains(&entry["action"]))
        .map(|e| json!([e["action"], e["origin"], e["platform"], e["user"]]))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_platform_is_let_in_everywhere_and_named_in_the_audit() {
    let broker = TestBroker::in_memory().await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    let address = address(&broker, "i").await;
    let backups = format!("{address}/backups");
    let recipe = answer(by_ada(broker.osb(Method::POST, &backups))).await;
    assert_eq!(recipe.status, StatusCode::ACCEPTED, "{recipe:?}");
    broker.recipe_end(&credentials, &recipe.body).await;
    let one = format!("{backups}/{}", text(&recipe.body["backup_id"]));
    let backup = answer(by_ada(broker.osb(Method::GET, &one))).await;
    let link = text(&backup.body["download_link"]);
    let link = link
        .strip_prefix(&broker.url)
        .expect("a link of the broker's");
    let got = broker
        .anonymous(Method::GET, link)
        .send()
        .await
        .expect("an answer");
    assert_eq!(got.status(), StatusCode::OK);
    got.bytes().await.expect("a backup");
    // Nobody said who it was.
    answer(broker.osb(Method::GET, &one)).await;
    let expected = [
        json!(["download_link", "compose", "compose", "operator"]),
        json!(["download", "compose", "compose", "operator"]),
        json!(["download_link", "compose", "cloudfoundry", "ada"]),
        json!(["backup", "compose", "cloudfoundry", "ada"]),
    ];
    assert_eq!(told(&broker, "i").await, expected);

    let (username, password) = broker.platform();
    let user = answer(broker.osb(Method::GET, "/api/2016-07/instances/i/user")).await;
    assert_eq!(user.body["name"], "platform", "{user:?}");
    // What is not there is not there for it, too; wrong credentials are a no that counts.
    for path in ["", "/user", "/accounts", "/deployments", "/nothing"] {
        let path = format!("/api/2016-07/instances/nobody{path}");
        let missing = answer(broker.osb(Method::GET, &path)).await;
        assert_eq!(missing.status, StatusCode::NOT_FOUND, "{missing:?}");
        for (name, word) in [(username, "wrong"), ("wrong", password)] {
            let wrong = broker
                .anonymous(Method::GET, &path)
                .basic_auth(name, Some(word));
            let wrong = answer(wrong).await;
            assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
            assert_eq!(wrong.body, json!({ "errors": "invalid_token" }));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_of_the_platform_s_ends_with_its_credentials() {
    let mut broker = TestBroker::in_memory().await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    let backup = broker.back_up(&credentials).await;
    let address = address(&broker, "i").await;
    let one = format!("{address}/backups/{}", text(&backup["id"]));
    let told = answer(broker.osb(Method::GET, &one)).await;
    let link = text(&told.body["download_link"]);
    let link = link.strip_prefix(&broker.url).expect("a link of it");
    let follow = async |broker: &TestBroker| {
        let got = broker.anonymous(Method::GET, link).send().await;
        got.expect("an answer").status()
    };
    assert_eq!(follow(&broker).await, StatusCode::OK);
    broker.restart_with(surroundings()).await;
    assert_eq!(follow(&broker).await, StatusCode::OK, "the same password");
    broker.stop().await;
    fs::write(broker.data_dir().join("password"), "another").expect("a file");
    broker.start_again(surroundings()).await;
    assert_eq!(follow(&broker).await, StatusCode::NOT_FOUND);
}
