//! Who had what done: written down with the work, told to operators.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use chrono::{DateTime, Utc};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::{
    bindings::files_with,
    broker::{Answer, SERVICE, STANDARD, TestBroker, answer, binding_path, instance_path, text},
    control::now,
    inside::Inside,
    transport::description,
    updates::updated,
};

/// The request of a user of a platform.
fn by(request: RequestBuilder, user: &str, id: &str) -> RequestBuilder {
    let identity = BASE64.encode(json!({ "user_id": user, "email": "secret@example" }).to_string());
    request
        .header(
            "X-Broker-API-Originating-Identity",
            format!("cloudfoundry {identity}"),
        )
        .header("X-Broker-API-Request-Identity", id)
}

async fn audit(broker: &TestBroker, query: &str) -> Answer {
    answer(broker.osb(Method::GET, &format!("/operator/audit{query}"))).await
}

async fn entries(broker: &TestBroker, query: &str) -> Vec<Value> {
    let page = audit(broker, query).await;
    assert_eq!(page.status, StatusCode::OK, "{page:?}");
    page.body["entries"].as_array().expect("entries").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_008_who_had_what_done_is_written_down_with_the_work() {
    let broker = TestBroker::start().await;
    let before = now();
    let path = format!("{}?accepts_incomplete=true", instance_path("i"));
    let body = json!({
        "service_id": SERVICE, "plan_id": STANDARD,
        "organization_guid": "org", "space_guid": "space",
    });
    let provision = || broker.osb(Method::PUT, &path).json(&body);
    let accepted = answer(by(provision(), "ada", "r-1")).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    // The same again is nothing new, and a refusal is nothing at all.
    answer(by(provision(), "eve", "r-2")).await;
    let refused = provision().json(&json!({ "service_id": SERVICE }));
    let refused = answer(by(refused, "eve", "r-3")).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    broker.instance_end("i", &accepted.body).await;

    let ids = json!({ "service_id": SERVICE, "plan_id": STANDARD });
    let bind = broker.osb(Method::PUT, &binding_path("i", "b")).json(&ids);
    let bound = answer(by(bind, "bob", "r-4")).await;
    let credentials = bound.body["credentials"].clone();
    broker.back_up(&credentials).await;
    // Nobody in particular, which orphan mitigation is.
    broker.unbind("i", "b").await;
    let inside = Inside::of(&broker);
    inside.idle("i").await;
    let told: Vec<Value> = entries(&broker, "?instance=i")
        .await
        .into_iter()
        // Who got to see what is told among it, too.
        .filter(|entry| entry["origin"] != "retention" && entry["operation"] != Value::Null)
        .collect();
    let seen: Vec<Value> = told
        .iter()
        .map(|e| {
            json!([
                e["action"],
                e["origin"],
                e["platform"],
                e["user"],
                e["request_id"],
                e["binding_id"]
            ])
        })
        .collect();
    let expected = json!([
        ["unbind", "osb", null, null, null, "b"],
        ["backup", "compose", "compose", "binding b", null, null],
        ["bind", "osb", "cloudfoundry", "bob", "r-4", "b"],
        ["provision", "osb", "cloudfoundry", "ada", "r-1", null],
    ]);
    assert_eq!(json!(seen), expected);
    let first = told.last().expect("an entry");
    assert_eq!(first["operation"], accepted.body["operation"]);
    assert_eq!(first["instance_id"], "i");
    let at: DateTime<Utc> = text(&first["at"]).parse().expect("a time");
    assert!(before <= at + chrono::TimeDelta::seconds(1) && at <= now());
    for secret in ["secret@example", text(&credentials["uri"])] {
        assert!(!json!(told).to_string().contains(secret));
    }
    assert_eq!(files_with(&broker, "secret@example"), "");

    // It outlives what it tells of.
    broker.deprovision("i").await;
    let left = entries(&broker, "?instance=i").await;
    assert_eq!(left[0]["action"], "deprovision");
    assert!(left.len() > told.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_is_told_in_pages_to_those_with_the_credentials() {
    let broker = TestBroker::in_memory().await;
    assert_eq!(
        audit(&broker, "").await.body,
        json!({ "entries": [], "next_before": null })
    );
    for i in 0..5 {
        // Too large for the broker's folder or not: the intent is what counts.
        let id = format!("i{}", i % 2);
        broker.put_instance(&id, json!({})).await;
        broker.delete_instance(&id).await;
        Inside::of(&broker).idle(&id).await;
    }
    let all = entries(&broker, "").await;
    assert_eq!(all.len(), 10);
    let ids: Vec<i64> = all
        .iter()
        .map(|e| e["id"].as_i64().expect("a number"))
        .collect();
    assert!(ids.is_sorted_by(|a, b| a > b), "{ids:?}");
    let mut paged = Vec::new();
    let mut query = "?limit=3".to_owned();
    loop {
        let page = audit(&broker, &query).await.body;
        paged.extend(page["entries"].as_array().expect("entries").clone());
        let Some(next) = page["next_before"].as_i64() else {
            break;
        };
        query = format!("?limit=3&before={next}");
    }
    assert_eq!(paged, all);
    let exactly = audit(&broker, "?limit=10").await.body;
    assert_eq!(exactly["next_before"], Value::Null);
    let of_one = entries(&broker, "?instance=i1&limit=200").await;
    assert_eq!(of_one.len(), 4);
    assert_eq!(
        entries(&broker, "?instance=unknown").await,
        Vec::<Value>::new()
    );
    for wrong in [
        "?limit=0",
        "?limit=201",
        "?limit=x",
        "?before=x",
        "?limit=-1",
    ] {
        description(&audit(&broker, wrong).await, StatusCode::BAD_REQUEST);
    }
    let nobody = answer(broker.anonymous(Method::GET, "/operator/audit")).await;
    description(&nobody, StatusCode::UNAUTHORIZED);
    let other = answer(broker.osb(Method::DELETE, "/operator/audit")).await;
    description(&other, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_at_once_is_written_down_too() {
    let broker = TestBroker::in_memory().await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    let path = format!("{}?accepts_incomplete=true", instance_path("i"));
    let renamed = json!({ "platform": "cloudfoundry", "instance_name": "renamed" });
    for (user, change) in [
        ("ada", json!({ "context": renamed })),
        // Nothing of it is new.
        ("eve", json!({ "context": renamed, "parameters": {} })),
        (
            "bob",
            json!({ "parameters": { "delete_protection": true } }),
        ),
        (
            "eve",
            json!({ "parameters": { "delete_protection": true } }),
        ),
    ] {
        let mut body = json!({ "service_id": SERVICE });
        for (field, value) in change.as_object().expect("an object") {
            body[field] = value.clone();
        }
        let done = answer(by(broker.osb(Method::PATCH, &path).json(&body), user, "r")).await;
        assert_eq!(done.status, StatusCode::OK, "{done:?}");
    }
    let deployment = format!("/deployments/{}", text(&credentials["deployment_id"]));
    let notes = json!({ "deployment": { "notes": "ours" } });
    let noted = broker.compose(Method::PATCH, &credentials, &deployment);
    let noted = answer(noted.json(&notes)).await;
    assert_eq!(noted.status, StatusCode::OK, "{noted:?}");
    let seen: Vec<Value> = entries(&broker, "?instance=i&limit=3")
        .await
        .iter()
        .map(|e| json!([e["action"], e["origin"], e["user"], e["operation"]]))
        .collect();
    let expected = json!([
        ["notes", "compose", "binding b", null],
        ["delete_protection_on", "osb", "bob", null],
        ["context", "osb", "ada", null],
    ]);
    assert_eq!(json!(seen), expected);
    // A parameter is named, whatever is changed beside it.
    let change = json!({ "delete_protection": false, "backup_hour": 3 });
    let body = json!({ "service_id": SERVICE, "parameters": change });
    let done = answer(by(broker.osb(Method::PATCH, &path).json(&body), "eve", "r")).await;
    assert_eq!(done.status, StatusCode::OK, "{done:?}");
    let seen: Vec<String> = entries(&broker, "?instance=i&limit=2")
        .await
        .iter()
        .map(|e| text(&e["what"]).to_owned())
        .collect();
    assert_eq!(
        seen,
        [
            "Delete protection turned off",
            "Another schedule of backups"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_is_told_by_what_it_did() {
    let broker = TestBroker::in_memory().await;
    broker.provision("i", json!({})).await;
    updated(&broker, json!({ "parameters": { "units": 2 } })).await;
    let told = entries(&broker, "?instance=i").await;
    let told = told.iter().find(|entry| entry["action"] == "update");
    let told = told.expect("an entry of the update");
    assert_eq!(told["what"], "Scale deployment to 2 units");
}
