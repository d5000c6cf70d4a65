//! Ids that platforms choose: any text, or a clear refusal.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{
        Answer, SERVICE, STANDARD, TestBroker, answer, encoded, eventually, instance_path, text,
    },
    etcd, raw,
};

/// An id that hides every trap: slashes, dots, a percent sign that must be decoded once, a space,
/// a plus sign, a quote and something beyond ASCII.
const STRANGE: &str = "../a/..//%41%2541 +\"'?#&🦀";

fn query() -> String {
    format!("service_id={SERVICE}&plan_id={STANDARD}&accepts_incomplete=true")
}

fn request() -> String {
    json!({
        "service_id": SERVICE, "plan_id": STANDARD,
        "organization_guid": "org", "space_guid": "space",
    })
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_018_ids_that_cannot_be_kept_are_refused_and_nothing_is_made() {
    let broker = TestBroker::start().await;
    let headers = raw::platform(&broker);
    let long = "x".repeat(5_000);
    let just_too_long = "x".repeat(256);
    for id in [
        "%00",
        "a%00b",
        "%0A",
        "%7F",
        "%ff",
        "%C3%28",
        "%ED%A0%80",
        &long,
        &just_too_long,
    ] {
        let instance = format!("/v2/service_instances/{id}");
        let binding = format!("/v2/service_instances/i/service_bindings/{id}");
        for path in [instance, binding] {
            let cases = [
                ("PUT", format!("{path}?accepts_incomplete=true"), request()),
                ("GET", path.clone(), String::new()),
                ("DELETE", format!("{path}?{}", query()), String::new()),
                ("GET", format!("{path}/last_operation"), String::new()),
            ];
            for (method, target, body) in cases {
                let answer = raw::send(&broker, method, &target, &headers, &body).await;
                assert_eq!(answer.status, 400, "{method} {target:.80}: {answer:?}");
                assert!(answer.json()["description"].is_string());
            }
        }
    }
    assert_eq!(broker.members(), Vec::<i32>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_018_ids_that_look_dangerous_are_ids_like_any_other() {
    let broker = TestBroker::start().await;
    let headers = raw::platform(&broker);
    let longest = "x".repeat(255);
    let ids = [
        "..",
        "%2e",
        "a%2Fb",
        "..%2F..%2Fetc",
        "%2541",
        "A",
        "%20",
        "%F0%9F%A6%80",
        "a%27b%22c",
        "last_operation",
        "*",
        longest.as_str(),
    ];
    let mut ends = Vec::new();
    for id in ids {
        let path = format!("/v2/service_instances/{id}");
        let unknown = raw::send(&broker, "GET", &path, &headers, "").await;
        assert_eq!(unknown.status, 404, "{id}: {unknown:?}");
        let put = format!("{path}?accepts_incomplete=true");
        let made = raw::send(&broker, "PUT", &put, &headers, &request()).await;
        assert_eq!(made.status, 202, "{id}: {made:?}");
        let provision = text(&made.json()["operation"]).to_owned();
        let delete = format!("{path}?{}", query());
        let deleted = raw::send(&broker, "DELETE", &delete, &headers, "").await;
        assert_eq!(deleted.status, 202, "{id}: {deleted:?}");
        let poll = format!("{path}/last_operation?operation={provision}");
        let polled = raw::send(&broker, "GET", &poll, &headers, "").await;
        assert_eq!(polled.status, 200, "{id}: {polled:?}");
        let token = text(&deleted.json()["operation"]).to_owned();
        ends.push(format!("{path}/last_operation?operation={token}"));
    }
    for end in ends {
        let gone = || async {
            let polled = raw::send(&broker, "GET", &end, &headers, "").await;
            assert_eq!(polled.status, 200, "{polled:?}");
            (polled.json()["state"] == "succeeded").then_some(())
        };
        eventually("the end of a deletion", gone).await;
    }
    assert_eq!(broker.members(), Vec::<i32>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_of_a_strange_id_works_from_end_to_end() {
    let broker = TestBroker::start().await;
    broker.provision(STRANGE, json!({})).await;
    let credentials = broker.bind(STRANGE, STRANGE).await;
    assert_eq!(
        credentials["instance_administration_api"]["instance_id"],
        STRANGE
    );
    let mut client = etcd::connect(&credentials).await;
    etcd::fill(&mut client, 3, "v").await;
    let backup = broker.back_up(&credentials).await;
    assert_eq!(backup["status"], "complete", "{backup}");
    let link = text(&backup["download_link"]);
    let download = reqwest::get(link).await.expect("an answer");
    assert_eq!(download.status(), StatusCode::OK);
    let disposition = download.headers()["content-disposition"]
        .to_str()
        .expect("ASCII");
    assert!(!disposition.contains(['/', '\\']), "{disposition}");
    let parameters = json!({ "source_service_instance_id": STRANGE, "backup_id": backup["id"] });
    broker.provision("copy", parameters).await;
    // The id was decoded once: these are others.
    for other in ["../a/..//AA", "../a/..//A%41 +\"'?#&🦀"] {
        let fetched = answer(broker.osb(Method::GET, &instance_path(other))).await;
        assert_eq!(fetched.status, StatusCode::NOT_FOUND);
    }
    assert_eq!(broker.unbind(STRANGE, STRANGE).await.status, StatusCode::OK);
    for id in [STRANGE, "copy"] {
        broker.deprovision(id).await;
    }
    assert_eq!(broker.members(), Vec::<i32>::new());
}

/// Ids with spaces, so that the one's end is the other's beginning.
#[tokio::test(flavor = "multi_thread")]
async fn ids_that_read_alike_side_by_side_do_not_meet() {
    let broker = TestBroker::start().await;
    let provision = |id| broker.provision(id, json!({}));
    tokio::join!(provision("a"), provision("a b"));
    let bind = async |instance: &str, binding: &str| -> Answer {
        let path = format!(
            "{}/service_bindings/{}?accepts_incomplete=true",
            instance_path(instance),
            encoded(binding)
        );
        let body: Value = json!({ "service_id": SERVICE, "plan_id": STANDARD });
        answer(broker.osb(Method::PUT, &path).json(&body)).await
    };
    let (one, other) = tokio::join!(bind("a", "b c"), bind("a b", "c"));
    assert_eq!(one.status, StatusCode::ACCEPTED, "{one:?}");
    assert_eq!(other.status, StatusCode::ACCEPTED, "{other:?}");
}
