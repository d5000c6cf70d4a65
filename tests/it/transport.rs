//! Who is let in, in which order requests are looked at, and what every answer has in common.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{Answer, ENTERPRISE, SERVICE, STANDARD, TestBroker, answer, text},
    raw,
};

/// Every method and path below `/v2`, known and unknown ones.
const ROUTES: [(&str, &str); 16] = [
    ("GET", "/v2/catalog"),
    ("PUT", "/v2/service_instances/i?accepts_incomplete=true"),
    ("GET", "/v2/service_instances/i"),
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
async fn nobody_gets_further_than_401_without_the_right_credentials() {
    let broker = TestBroker::start().await;
    let (username, password) = broker.platform();
    let basic = |text: String| {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        format!("Authorization: Basic {}\r\n", STANDARD.encode(text))
    };
    let wrong = [
        String::new(),
        basic(format!("{username}:wrong")),
        basic(format!("wrong:{password}")),
        basic(format!("{username}:{password}x")),
        basic(format!("{username}{password}")),
        basic(":".to_owned()),
        basic(format!("{username}:{}", "x".repeat(60_000))),
        "Authorization: Basic\r\n".to_owned(),
        "Authorization: Basic !!!\r\n".to_owned(),
        format!("Authorization: Bearer {password}\r\n"),
        "Authorization: \r\n".to_owned(),
    ];
    for (method, target) in ROUTES {
        for headers in &wrong {
            // Neither a version nor a body that could be read.
            let answer = raw::send(&broker, method, target, headers, "{").await;
            let case = format!("{method} {target} with {headers:.60}");
            assert_eq!(answer.status, 401, "{case}: {answer:?}");
            assert!(answer.json()["description"].is_string(), "{case}");
            assert_eq!(
                answer.header("www-authenticate"),
                Some("basic realm=\"compose-broker\""),
                "{case}"
            );
            assert_eq!(answer.header("content-type"), Some("application/json"));
        }
    }
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
async fn every_2_x_is_spoken_and_nothing_else() {
    let broker = TestBroker::start().await;
    for version in [
        "2.0", "2.13", "2.14", "2.15", "2.16", "2.17", "2.18", "2.99",
    ] {
        let answer = answer_of(&broker, version).await;
        assert_eq!(answer.status, StatusCode::OK, "{version}: {answer:?}");
    }
    let wrong = [
        "",
        " ",
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
    ];
    for version in wrong {
        let answer = answer_of(&broker, version).await;
        let reason = description(&answer, StatusCode::PRECONDITION_FAILED);
        assert!(
            reason.contains("X-Broker-API-Version"),
            "{version}: {reason}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_is_asked_for_before_the_body_is_read() {
    let broker = TestBroker::start().await;
    let headers = raw::platform(&broker).replace("X-Broker-API-Version: 2.17\r\n", "");
    for (method, target) in ROUTES {
        for body in ["", "{", "[]"] {
            let answer = raw::send(&broker, method, target, &headers, body).await;
            assert_eq!(answer.status, 412, "{method} {target}: {answer:?}");
            assert!(answer.json()["description"].is_string());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_echoes_the_request_identity() {
    let broker = TestBroker::start().await;
    let good = raw::platform(&broker);
    let old = good.replace("2.17", "1.0");
    let instance = "/v2/service_instances/i";
    let query = format!("service_id={SERVICE}&plan_id={STANDARD}&accepts_incomplete=true");
    let cases = [
        (200, "GET", "/v2/catalog".to_owned(), good.as_str(), ""),
        (400, "PUT", instance.to_owned(), &good, "{"),
        (401, "GET", "/v2/catalog".to_owned(), "", ""),
        (401, "GET", "/v2/nothing".to_owned(), "", ""),
        (404, "GET", "/v2/nothing".to_owned(), &good, ""),
        (404, "GET", "/nothing".to_owned(), &good, ""),
        (404, "GET", instance.to_owned(), &good, ""),
        (405, "POST", "/v2/catalog".to_owned(), &good, ""),
        (410, "DELETE", format!("{instance}?{query}"), &good, ""),
        (412, "GET", "/v2/catalog".to_owned(), &old, ""),
        (413, "PUT", instance.to_owned(), &good, &"x".repeat(300_000)),
        (401, "GET", "/api/2016-07/instances/i".to_owned(), "", ""),
    ];
    for (status, method, target, headers, body) in cases {
        let headers = format!("{headers}X-Broker-API-Request-Identity: request-4711\r\n");
        let answer = raw::send(&broker, method, &target, &headers, body).await;
        assert_eq!(answer.status, status, "{method} {target}: {answer:?}");
        let echo = answer.header("x-broker-api-request-identity");
        assert_eq!(echo, Some("request-4711"), "{method} {target}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn identities_that_cannot_be_read_harm_nobody() {
    let broker = TestBroker::start().await;
    for identity in [
        "",
        "cloudfoundry",
        "cloudfoundry !!!",
        "x e30=",
        "kubernetes W10=",
        "x bnVsbA==",
    ] {
        let request = broker
            .osb(Method::GET, "/v2/catalog")
            .header("X-Broker-API-Originating-Identity", identity)
            .header("X-B3-TraceId", identity)
            .header("X-Vcap-Request-Id", identity);
        assert_eq!(answer(request).await.status, StatusCode::OK, "{identity}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_that_a_path_does_not_have_is_answered_in_json() {
    let broker = TestBroker::start().await;
    let headers = raw::platform(&broker);
    let instance = "/v2/service_instances/i";
    let binding = "/v2/service_instances/i/service_bindings/b";
    let paths = ["/v2/catalog", instance, binding];
    for path in paths {
        for target in [path.to_owned(), format!("{path}/last_operation")] {
            for method in ["POST", "OPTIONS", "FROBNICATE"] {
                let answer = raw::send(&broker, method, &target, &headers, "").await;
                if target == "/v2/catalog/last_operation" {
                    assert_eq!(answer.status, 404, "{method} {target}: {answer:?}");
                } else {
                    assert_eq!(answer.status, 405, "{method} {target}: {answer:?}");
                }
                assert!(answer.json()["description"].is_string(), "{answer:?}");
            }
            let head = raw::send(&broker, "HEAD", &target, &headers, "").await;
            assert!([404, 405].contains(&head.status), "{target}: {head:?}");
            assert_eq!(head.body, "");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_json_object_is_refused() {
    let broker = TestBroker::start().await;
    let headers = raw::platform(&broker);
    let targets = [
        "/v2/service_instances/i?accepts_incomplete=true",
        "/v2/service_instances/i/service_bindings/b?accepts_incomplete=true",
    ];
    let deep = "[".repeat(100_000);
    for target in targets {
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
            let answer = raw::send(&broker, "PUT", target, &headers, body).await;
            assert_eq!(answer.status, 400, "{body:.20}: {answer:?}");
            assert!(answer.json()["description"].is_string());
        }
    }
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
async fn what_a_body_is_called_does_not_matter() {
    let broker = TestBroker::start().await;
    let mut body = request_of_an_instance();
    body["plan_id"] = json!("unknown");
    let types = [
        "application/json",
        "application/json; charset=utf-8",
        "text/plain",
        "@",
    ];
    for content_type in types {
        let path = "/v2/service_instances/i?accepts_incomplete=true";
        let request = broker
            .osb(Method::PUT, path)
            .header("Content-Type", content_type)
            .body(body.to_string());
        let answer = answer(request).await;
        let reason = description(&answer, StatusCode::BAD_REQUEST);
        assert!(reason.contains("plan_id"), "{content_type}: {reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_true_means_that_the_platform_can_wait() {
    let broker = TestBroker::start().await;
    let body = request_of_an_instance();
    let queries = [
        "",
        "?accepts_incomplete=false",
        "?accepts_incomplete=True",
        "?accepts_incomplete=1",
        "?accepts_incomplete=",
        "?accepts_incomplete",
        "?accepts_incomplete=true&accepts_incomplete=false",
        "?other=true",
    ];
    for query in queries {
        let path = format!("/v2/service_instances/i{query}");
        let answer = answer(broker.osb(Method::PUT, &path).json(&body)).await;
        description(&answer, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(answer.body["error"], "AsyncRequired", "{query}");
    }
    let nothing = answer(broker.osb(Method::GET, "/v2/service_instances/i/last_operation")).await;
    assert_eq!(nothing.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_repeated_query_field_the_last_one_counts() {
    let broker = TestBroker::start().await;
    let path = format!(
        "/v2/service_instances/i?service_id=x&plan_id={ENTERPRISE}&service_id={SERVICE}\
         &accepts_incomplete=no&plan_id={STANDARD}&accepts_incomplete=true&unknown=1&unknown=2"
    );
    let answer = answer(broker.osb(Method::DELETE, &path)).await;
    assert_eq!(answer.status, StatusCode::GONE, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_beyond_the_limit_is_refused_however_it_is_sent() {
    let broker = TestBroker::start().await;
    let target = "/v2/service_instances/i?accepts_incomplete=true";
    let mut body = request_of_an_instance();
    body["context"] = json!({ "x": "x".repeat(1024 * 1024) });
    let body = body.to_string();
    let headers = raw::platform(&broker);
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
    let nothing = answer(broker.osb(Method::GET, "/v2/service_instances/i/last_operation")).await;
    assert_eq!(nothing.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_told_to_anybody_and_tells_nothing_else() {
    let broker = TestBroker::start().await;
    for (path, status) in [("/healthz", "ok"), ("/readyz", "ready")] {
        let answer = answer(broker.anonymous(Method::GET, path)).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert_eq!(answer.body, json!({ "status": status }), "{path}");
    }
}
