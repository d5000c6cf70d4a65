//! Headers, credentials, and what every request and answer has in common.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use compose_broker::model::{limits::SYNC_WAIT, operation::OperationKind};
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::{Bench, IDS, assert_never_made, coded, provision_body, refused, state, token};
use crate::{
    broker::{
        Answer, ENTERPRISE, SERVICE, STANDARD, TestBroker, answer, binding_path, eventually,
        instance_path, text,
    },
    inside::Inside,
    process::BrokerProcess,
    raw,
    transport::description,
};

/// Every method and path below `/v2`, known and unknown ones.
const ROUTES: [(&str, &str); 17] = [
    ("GET", "/v2/catalog"),
    ("PUT", "/v2/service_instances/i?accepts_incomplete=true"),
    ("GET", "/v2/service_instances/i"),
    ("PATCH", "/v2/service_instances/i"),
    ("DELETE", "/v2/service_instances/i?accepts_incomplete=true"),
    ("GET", "/v2/service_instances/i/last_operation"),
    ("PUT", "/v2/service_instances/i/service_bindings/b"),
    ("GET", "/v2/service_instances/i/service_bindings/b"),
    ("DELETE", "/v2/service_instances/i/service_bindings/b"),
    (
        "GET",
        "/v2/service_instances/i/service_bindings/b/last_operation",
    ),
    ("GET", "/v2"),
    ("GET", "/v2/"),
    ("GET", "/v2//catalog/"),
    ("GET", "/v2/nothing/here"),
    ("POST", "/v2/catalog"),
    ("FROBNICATE", "/v2/service_instances/i"),
    ("GET", "/v2/service_instances/%00%ff"),
];

/// The header lines of a login.
fn basic(login: &str) -> String {
    format!("Authorization: Basic {}\r\n", BASE64.encode(login))
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_001_nobody_gets_further_than_401_without_the_right_credentials() {
    let broker = TestBroker::start().await;
    let (username, password) = broker.platform();
    let wrong = [
        String::new(),
        basic(&format!("{username}:wrong")),
        basic(&format!("wrong:{password}")),
        basic(&format!("{username}:{password}x")),
        basic(&format!("{username}{password}")),
        basic(":"),
        basic(&format!("{username}:{}", "x".repeat(60_000))),
        "Authorization: Basic\r\n".to_owned(),
        "Authorization: Basic !!!\r\n".to_owned(),
        format!("Authorization: Bearer {password}\r\n"),
        "Authorization: \r\n".to_owned(),
    ];
    for (method, target) in ROUTES {
        for headers in &wrong {
            // Neither a version nor a body that could be read.
            let answer = raw::send(&broker, method, target, headers, "{").await;
            assert_eq!(answer.status, 401, "{method} {target} with {headers:.60}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_002_a_401_is_a_json_error_with_a_challenge() {
    let broker = TestBroker::start().await;
    for (method, target) in ROUTES {
        for headers in ["", "Authorization: Basic !!!\r\n", &basic("a:b")] {
            let answer = raw::send(&broker, method, target, headers, "").await;
            let case = format!("{method} {target}: {answer:?}");
            assert_eq!(answer.status, 401, "{case}");
            assert!(answer.json()["description"].is_string(), "{case}");
            assert_eq!(answer.header("content-type"), Some("application/json"));
            let challenge = answer.header("www-authenticate");
            assert_eq!(challenge, Some("basic realm=\"compose-broker\""), "{case}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_003_several_credentials_let_in_side_by_side() {
    let mut broker = BrokerProcess::stopped_with(|settings| {
        let more = "ada:second,new:third:with colon".to_owned();
        settings.insert("MORE_CREDENTIALS", more);
    });
    broker.start_again().await;
    let (username, first) = broker.platform();
    let status = |username: &str, password: &str| {
        let request = broker
            .anonymous(Method::GET, "/v2/catalog")
            .basic_auth(username, Some(password))
            .header("X-Broker-API-Version", "2.17");
        async { answer(request).await.status }
    };
    for (username, password) in [
        (username, first),
        ("ada", "second"),
        ("new", "third:with colon"),
    ] {
        assert_eq!(
            status(username, password).await,
            StatusCode::OK,
            "{username}"
        );
    }
    for (username, password) in [
        ("new", first),
        ("new", "second"),
        ("ada", "third:with colon"),
        ("ada", ""),
        ("", ""),
        ("ada", "second,new:third:with colon"),
    ] {
        let refused = status(username, password).await;
        assert_eq!(refused, StatusCode::UNAUTHORIZED, "{username} {password}");
    }
    let operator = broker
        .anonymous(Method::GET, "/operator/audit")
        .basic_auth("ada", Some("second"));
    assert_eq!(answer(operator).await.status, StatusCode::OK);
    assert!(!broker.logged().contains("second"));
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_004_a_version_that_is_absent_or_empty_is_a_412() {
    let broker = TestBroker::start().await;
    let version = "X-Broker-API-Version: 2.17\r\n";
    let all = raw::platform(&broker);
    for instead in [
        "",
        "X-Broker-API-Version:\r\n",
        "X-Broker-API-Version:  \r\n",
    ] {
        let headers = all.replace(version, instead);
        for (method, target) in ROUTES {
            let answer = raw::send(&broker, method, target, &headers, "").await;
            assert_eq!(answer.status, 412, "{method} {target}: {answer:?}");
            let told = answer.json();
            assert!(
                text(&told["description"]).contains("X-Broker-API-Version"),
                "{told}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_005_every_2_x_is_spoken_and_nothing_else() {
    let bench = Bench::new().await;
    let ask = async |version: &str| {
        let (username, password) = bench.platform();
        let request = bench
            .anonymous(Method::GET, "/v2/catalog")
            .basic_auth(username, Some(password))
            .header("X-Broker-API-Version", version);
        answer(request).await
    };
    for version in [
        "2.0", "2.13", "2.14", "2.15", "2.16", "2.17", "2.18", "2.99",
    ] {
        let answer = ask(version).await;
        assert_eq!(answer.status, StatusCode::OK, "{version}: {answer:?}");
    }
    for version in [
        "1.9",
        "3.0",
        "2",
        "2.",
        "2.x",
        "2.-1",
        "2.17.1",
        "v2.17",
        ".17",
        "garbage",
        "2.99999999999999999999",
        "20.17",
    ] {
        let answer = ask(version).await;
        let reason = refused(&answer, StatusCode::PRECONDITION_FAILED);
        assert!(
            reason.contains("X-Broker-API-Version"),
            "{version}: {reason}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_006_the_version_is_asked_for_before_the_body_is_read() {
    let broker = TestBroker::start().await;
    let headers = raw::platform(&broker).replace("X-Broker-API-Version: 2.17\r\n", "");
    for (method, target) in ROUTES {
        for body in ["", "{", "[]"] {
            for content in ["", "Content-Type: text/plain\r\n", "Content-Type: @\r\n"] {
                let headers = format!("{headers}{content}");
                let answer = raw::send(&broker, method, target, &headers, body).await;
                assert_eq!(answer.status, 412, "{method} {target}: {answer:?}");
            }
        }
    }
}

/// Trap T3: suites ask without a version, or with an empty one, and with bodies that cannot be read.
#[tokio::test(flavor = "multi_thread")]
async fn osb_t3_credentials_come_first_then_the_version_then_the_body() {
    let broker = TestBroker::start().await;
    let good = raw::platform(&broker);
    let login = good.replace("X-Broker-API-Version: 2.17\r\n", "");
    let empty = format!("{login}X-Broker-API-Version:\r\nContent-Type: text/plain\r\n");
    let nobody = "X-Broker-API-Version: 1.0\r\n";
    let instance = "/v2/service_instances/i?accepts_incomplete=true";
    let binding = "/v2/service_instances/i/service_bindings/b";
    for (method, target) in [("PUT", instance), ("PATCH", instance), ("PUT", binding)] {
        for body in ["", "{", "{}"] {
            for (headers, status) in [(nobody, 401), (&login, 412), (&empty, 412), (&good, 400)] {
                let answer = raw::send(&broker, method, target, headers, body).await;
                assert_eq!(
                    answer.status, status,
                    "{method} {target} {body}: {answer:?}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_007_every_answer_echoes_the_request_identity_which_is_logged() {
    let broker = BrokerProcess::start().await;
    let good = raw::platform(&broker);
    let old = good.replace("2.17", "1.0");
    let instance = "/v2/service_instances/i";
    let cases = [
        (200, "GET", "/v2/catalog".to_owned(), good.as_str(), ""),
        (400, "PUT", instance.to_owned(), &good, "{"),
        (401, "GET", "/v2/catalog".to_owned(), "", ""),
        (401, "GET", "/v2/nothing".to_owned(), "", ""),
        (404, "GET", "/v2/nothing".to_owned(), &good, ""),
        (404, "GET", "/nothing".to_owned(), &good, ""),
        (404, "GET", instance.to_owned(), &good, ""),
        (405, "POST", "/v2/catalog".to_owned(), &good, ""),
        (
            410,
            "DELETE",
            format!("{instance}?{IDS}&accepts_incomplete=true"),
            &good,
            "",
        ),
        (412, "GET", "/v2/catalog".to_owned(), &old, ""),
        (413, "PUT", instance.to_owned(), &good, &"x".repeat(300_000)),
        (422, "DELETE", format!("{instance}?{IDS}"), &good, ""),
        (401, "GET", "/api/2016-07/instances/i".to_owned(), "", ""),
    ];
    for (status, method, target, headers, body) in cases {
        let headers = format!("{headers}X-Broker-API-Request-Identity: request-4711\r\n");
        let answer = raw::send(&broker, method, &target, &headers, body).await;
        assert_eq!(answer.status, status, "{method} {target}: {answer:?}");
        let echo = answer.header("x-broker-api-request-identity");
        assert_eq!(echo, Some("request-4711"), "{method} {target}: {answer:?}");
    }
    logged(&broker, &["status=422", "request=request-4711"]).await;
}

/// Waits for a line of the log with all these words.
async fn logged(broker: &BrokerProcess, words: &[&str]) {
    eventually(&format!("a line with {words:?}"), || async {
        let log = broker.logged();
        log.lines()
            .any(|line| words.iter().all(|word| line.contains(word)))
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_008_an_identity_that_cannot_be_read_is_taken_for_absent() {
    let bench = Bench::new().await;
    let _held = bench.script.hold(OperationKind::Provision, "allocate");
    let identities = [
        "",
        "cloudfoundry",
        "cloudfoundry !!!",
        "x e30=",
        "kubernetes W10=",
        "x bnVsbA==",
        " ",
        "cloudfoundry eyJ1c2VyX2lkIjo1fQ==",
    ];
    for (i, identity) in identities.into_iter().enumerate() {
        let path = format!("/v2/service_instances/i{i}?accepts_incomplete=true");
        let request = bench
            .osb(Method::PUT, &path)
            .header("X-Broker-API-Originating-Identity", identity)
            .json(&provision_body(&json!({})));
        token(&answer(request).await);
    }
    let audit = bench.get("/operator/audit").await;
    let entries = audit.body["entries"].as_array().expect("entries");
    assert_eq!(entries.len(), identities.len());
    assert!(entries.iter().all(|entry| entry["user"].is_null()));
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_009_an_identity_of_another_platform_than_the_context_is_kept_as_it_is() {
    let broker = BrokerProcess::start().await;
    let identity = BASE64.encode(json!({ "username": "ada", "uid": "1" }).to_string());
    let body = provision_body(&json!({ "context": { "platform": "cloudfoundry" } }));
    let path = format!("{}?accepts_incomplete=true", instance_path("i"));
    let request = broker
        .osb(Method::PUT, &path)
        .header(
            "X-Broker-API-Originating-Identity",
            format!("kubernetes {identity}"),
        )
        .json(&body);
    token(&answer(request).await);
    logged(&broker, &["method=PUT", "kubernetes ada"]).await;
    let tenant = Inside::of(&broker).instance("i").await.tenant;
    assert_eq!(tenant.platform, "cloudfoundry");
    broker.deprovision("i").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_010_what_is_unknown_is_ignored_everywhere_but_in_parameters() {
    let bench = Bench::on_etcd().await;
    let _held = bench.script.hold(OperationKind::Provision, "allocate");
    let unknown = json!({ "deep": [null, { "x": 1 }] });
    let change = json!({
        "unknown": unknown, "previous_values": unknown, "bind_resource": 7, "app_guid": [],
        "context": { "platform": "cloudfoundry", "unknown": unknown },
        "maintenance_info": { "version": "3.7.3", "unknown": unknown },
    });
    let path = format!("{}?accepts_incomplete=true&x=1&x&=&%", instance_path("i"));
    let request = bench.osb(Method::PUT, &path).json(&provision_body(&change));
    let first = answer(request).await;
    assert_eq!(token(&bench.put("i", json!({})).await), token(&first));
    for path in [
        "/v2/catalog?unknown=1".to_owned(),
        format!("{}/last_operation?unknown=1&%zz", instance_path("i")),
    ] {
        assert_eq!(bench.get(&path).await.status, StatusCode::OK, "{path}");
    }
    let gone = bench
        .delete_at(
            &instance_path("j"),
            &format!("{IDS}&x=1&accepts_incomplete=true"),
        )
        .await;
    assert_eq!(gone.status, StatusCode::GONE);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_011_what_a_body_is_called_does_not_matter() {
    let broker = TestBroker::start().await;
    let body = provision_body(&json!({ "plan_id": "unknown" })).to_string();
    let headers = raw::platform(&broker);
    for content_type in [
        "",
        "Content-Type: application/json\r\n",
        "Content-Type: application/json; charset=utf-8\r\n",
        "Content-Type: text/plain\r\n",
        "Content-Type: @\r\n",
    ] {
        let target = "/v2/service_instances/i?accepts_incomplete=true";
        let headers = format!("{headers}{content_type}");
        let answer = raw::send(&broker, "PUT", target, &headers, &body).await;
        assert_eq!(answer.status, 400, "{content_type}: {answer:?}");
        // It was read.
        assert!(text(&answer.json()["description"]).contains("plan_id"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_012_a_body_that_is_no_json_object_is_a_400() {
    let broker = TestBroker::start().await;
    let headers = raw::platform(&broker);
    let deep = "[".repeat(100_000);
    for (method, target) in [
        ("PUT", "/v2/service_instances/i?accepts_incomplete=true"),
        ("PATCH", "/v2/service_instances/i?accepts_incomplete=true"),
        ("PUT", "/v2/service_instances/i/service_bindings/b"),
    ] {
        for body in [
            "",
            " ",
            "{",
            "{}}",
            "[]",
            "\"x\"",
            "null",
            "1",
            "{\"a\":}",
            deep.as_str(),
        ] {
            let answer = raw::send(&broker, method, target, &headers, body).await;
            assert_eq!(answer.status, 400, "{body:.20}: {answer:?}");
            let told = answer.json();
            let reason = text(&told["description"]);
            assert!(reason.contains("JSON"), "{body:.20}: {reason}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_013_every_body_is_a_json_object_and_says_so() {
    let bench = Bench::with_instance(json!({})).await;
    let is_json = |answer: &Answer, status: StatusCode| {
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(answer.body.is_object(), "{answer:?}");
        assert_eq!(answer.headers["content-type"], "application/json");
    };
    let bound = bench.put_binding_waiting("b", json!({})).await;
    is_json(&bound, StatusCode::CREATED);
    for path in [
        "/v2/catalog".to_owned(),
        instance_path("i"),
        binding_path("i", "b"),
        format!("{}/last_operation", instance_path("i")),
        format!("{}/last_operation", binding_path("i", "b")),
    ] {
        is_json(&bench.get(&path).await, StatusCode::OK);
    }
    is_json(&bench.patch(json!({})).await, StatusCode::OK);
    is_json(&bench.put("i", json!({})).await, StatusCode::OK);
    is_json(
        &bench.put("i", json!({ "space_guid": "x" })).await,
        StatusCode::CONFLICT,
    );
    is_json(
        &bench.patch(json!({ "service_id": "" })).await,
        StatusCode::BAD_REQUEST,
    );
    let asynchronous = bench.put_waiting("j", json!({})).await;
    is_json(&asynchronous, StatusCode::UNPROCESSABLE_ENTITY);
    is_json(&bench.fetch("unknown").await, StatusCode::NOT_FOUND);
    is_json(&bench.unbind("i", "b").await, StatusCode::OK);
    is_json(&bench.unbind("i", "b").await, StatusCode::GONE);
    let head = "/v2/service_instances/i/service_bindings/late";
    let accepted = bench.put_binding("late", json!({})).await;
    is_json(&accepted, StatusCode::ACCEPTED);
    is_json(&bench.delete_instance("i").await, StatusCode::ACCEPTED);
    let method = answer(bench.osb(Method::POST, head)).await;
    is_json(&method, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_014_error_codes_are_those_of_the_specification_and_nothing_else() {
    let bench = Bench::new().await;
    coded(&bench.put_waiting("i", json!({})).await, "AsyncRequired");
    let old = json!({ "maintenance_info": { "version": "0.0.1" } });
    coded(&bench.put("i", old).await, "MaintenanceInfoConflict");
    let held = bench.script.hold(OperationKind::Provision, "allocate");
    bench.put("i", json!({})).await;
    coded(&bench.put_binding("b", json!({})).await, "ConcurrencyError");
    // Whatever has no code of its own has none.
    let other = bench.put("i", json!({ "space_guid": "x" })).await;
    refused(&other, StatusCode::CONFLICT);
    let missing = bench.put("j", json!({ "plan_id": "" })).await;
    refused(&missing, StatusCode::BAD_REQUEST);
    refused(&bench.fetch("i").await, StatusCode::NOT_FOUND);
    refused(&bench.delete_instance("j").await, StatusCode::GONE);
    let nobody = answer(bench.anonymous(Method::GET, "/v2/catalog")).await;
    refused(&nobody, StatusCode::UNAUTHORIZED);
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_015_a_refusal_leaves_everything_as_it_was() {
    let bench = Bench::new().await;
    for change in [
        json!({ "service_id": "unknown" }),
        json!({ "plan_id": "unknown" }),
        json!({ "organization_guid": "" }),
        json!({ "parameters": { "units": 0 } }),
        json!({ "parameters": { "backup_id": "x" } }),
        json!({ "maintenance_info": { "version": "0.0.1" } }),
    ] {
        let answer = bench.put("i", change.clone()).await;
        assert!(answer.status.is_client_error(), "{change}: {answer:?}");
    }
    assert_never_made(&bench, "i").await;
    assert_eq!(bench.running(), Vec::<String>::new());
    let _held = bench.script.hold(OperationKind::Provision, "allocate");
    let accepted = bench.put("i", json!({})).await;
    let inside = Inside::of(&bench);
    let before = inside.instance("i").await;
    bench
        .put("i", json!({ "space_guid": "other", "context": { "x": 1 } }))
        .await;
    bench.patch(json!({ "context": { "x": 1 } })).await;
    bench.put_binding("b", json!({})).await;
    bench
        .delete_at(
            &instance_path("i"),
            "service_id=x&plan_id=x&accepts_incomplete=true",
        )
        .await;
    bench.delete_at(&instance_path("i"), IDS).await;
    assert_eq!(inside.instance("i").await, before);
    assert_eq!(inside.outcomes("i").await.len(), 1);
    assert_eq!(
        state(&bench.poll("i", Some(token(&accepted))).await),
        "in progress"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_016_who_gives_up_waiting_can_still_delete_what_comes_of_it() {
    // Platforms wait for 60 s.
    assert!(SYNC_WAIT <= Duration::from_secs(50));
    let bench = Bench::with_instance(json!({})).await;
    let held = bench.script.hold(OperationKind::Bind, "issue");
    let impatient = bench
        .osb(Method::PUT, &binding_path("i", "b"))
        .json(&super::ids());
    let impatient = tokio::spawn(impatient.send());
    let inside = Inside::of(&bench);
    eventually("the bind's beginning", || async {
        let all = inside.operations("i").await;
        all.iter()
            .any(|o| o.kind == OperationKind::Bind)
            .then_some(())
    })
    .await;
    assert!(!impatient.is_finished());
    impatient.abort();
    // What answers at once does so whatever else is waited for.
    let orphan = bench.delete_binding("b").await;
    drop(held);
    let end = bench.end_of_binding("b", &orphan).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    assert_eq!(bench.fetch_binding("b").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_017_bodies_and_methods_beyond_what_is_known_are_refused_in_json() {
    let broker = TestBroker::start().await;
    let headers = raw::platform(&broker);
    let target = "/v2/service_instances/i?accepts_incomplete=true";
    // One that never comes, while the others are tried.
    let slow = format!(
        "PUT {target} HTTP/1.1\r\nHost: broker\r\nConnection: close\r\n{headers}\
         Content-Length: 100\r\n\r\n{{"
    );
    let slow = raw::send_bytes(&broker, slow.as_bytes());
    let others = async {
        let body = provision_body(&json!({ "context": { "x": "x".repeat(1024 * 1024) } }));
        let body = body.to_string();
        let whole = raw::send(&broker, "PUT", target, &headers, &body).await;
        assert_eq!(whole.status, 413, "{whole:?}");
        assert!(whole.json()["description"].is_string());
        let chunks = format!(
            "PUT {target} HTTP/1.1\r\nHost: broker\r\nConnection: close\r\n{headers}\
             Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        );
        let chunked = raw::send_bytes(&broker, chunks.as_bytes()).await;
        assert_eq!(chunked.status, 413, "{chunked:?}");
        for (path, others) in [
            ("/v2/catalog", "PUT"),
            ("/v2/service_instances/i", "POST"),
            ("/v2/service_instances/i/last_operation", "PUT"),
            ("/v2/service_instances/i/service_bindings/b", "PATCH"),
            (
                "/v2/service_instances/i/service_bindings/b/last_operation",
                "DELETE",
            ),
        ] {
            for method in [others, "OPTIONS", "FROBNICATE", "HEAD"] {
                let answer = raw::send(&broker, method, path, &headers, "").await;
                assert_eq!(answer.status, 405, "{method} {path}: {answer:?}");
                assert_eq!(answer.header("content-type"), Some("application/json"));
                if method == "HEAD" {
                    assert_eq!(answer.body, "");
                } else {
                    assert!(answer.json()["description"].is_string(), "{answer:?}");
                }
            }
        }
    };
    let (slow, ()) = tokio::join!(slow, others);
    assert_eq!(slow.status, 408, "{slow:?}");
    assert!(slow.json()["description"].is_string());
    let nothing = answer(broker.osb(Method::GET, "/v2/service_instances/i/last_operation")).await;
    assert_eq!(nothing.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_019_only_true_means_that_the_platform_can_wait() {
    let bench = Bench::new().await;
    for query in [
        "",
        "?accepts_incomplete=false",
        "?accepts_incomplete=True",
        "?accepts_incomplete=1",
        "?accepts_incomplete=",
        "?accepts_incomplete",
        "?accepts_incomplete=true&accepts_incomplete=false",
        "?other=true",
    ] {
        let path = format!("{}{query}", instance_path("i"));
        for method in [Method::PUT, Method::DELETE] {
            let separator = if query.is_empty() { "?" } else { "&" };
            let request = bench.osb(method, &format!("{path}{separator}{IDS}"));
            let answer = answer(request.json(&provision_body(&json!({})))).await;
            coded(&answer, "AsyncRequired");
        }
    }
    assert_never_made(&bench, "i").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_020_of_a_repeated_query_field_the_last_one_counts() {
    let broker = TestBroker::start().await;
    let path = format!(
        "/v2/service_instances/i?service_id=x&plan_id={ENTERPRISE}&service_id={SERVICE}\
         &accepts_incomplete=no&plan_id={STANDARD}&accepts_incomplete=true&unknown=1&unknown=2"
    );
    let answer = answer(broker.osb(Method::DELETE, &path)).await;
    assert_eq!(answer.status, StatusCode::GONE, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_021_parameters_credentials_and_bodies_are_not_logged() {
    let mut broker = BrokerProcess::stopped_with(|settings| {
        settings.insert("LOG", "trace".to_owned());
        settings.insert("PASSWORD", "the-platforms-secret".to_owned());
    });
    broker.start_again().await;
    let hidden = "nobodys-business";
    let login = BASE64.encode("ada:the-platforms-secret");
    let bodies = [
        provision_body(&json!({ "parameters": { "x": hidden } })).to_string(),
        provision_body(&json!({ "parameters": { "db_version": hidden } })).to_string(),
        provision_body(&json!({ "context": { "x": hidden } })).to_string(),
        format!("{{\"parameters\": \"{hidden}\""),
    ];
    for (i, body) in bodies.into_iter().enumerate() {
        let target = format!("/v2/service_instances/i{i}?accepts_incomplete=true&x={hidden}");
        let headers = format!("Authorization: Basic {login}\r\nX-Broker-API-Version: 2.17\r\n");
        let answer = raw::send(&broker, "PUT", &target, &headers, &body).await;
        assert!([202, 400].contains(&answer.status), "{answer:?}");
    }
    logged(&broker, &["service_instances/i3", "status=400"]).await;
    for secret in [hidden, &login, "the-platforms-secret"] {
        let log = broker.logged();
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_022_headers_that_trace_a_request_are_accepted_and_logged() {
    let broker = BrokerProcess::start().await;
    let request = broker
        .osb(Method::DELETE, &format!("{}?{IDS}", instance_path("i")))
        .header("X-B3-TraceId", "trace-1")
        .header("X-B3-SpanId", "span-1")
        .header("X-Vcap-Request-Id", "vcap-1::x")
        .header("X-Api-Info-Location", "api.example.org/v2/info");
    description(&answer(request).await, StatusCode::UNPROCESSABLE_ENTITY);
    logged(
        &broker,
        &["trace-1", "vcap-1::x", "api.example.org/v2/info"],
    )
    .await;
}
