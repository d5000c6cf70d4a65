//! What real platforms and clients send, in their own bodies, and what they read of the answers.

use compose_broker::model::operation::OperationKind;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use super::{Bench, IDS, coded, ids, refused, state, token, with};
use crate::{
    broker::{Answer, answer, binding_path, eventually, instance_path, text},
    process::BrokerProcess,
    raw,
};

const ORG: &str = "0b7c4d1e-77a9-4a9f-9f0f-2f5b8f7d1c10";
const SPACE: &str = "5c1f0a3d-6f38-45b0-8a3e-1e0c9a8b7d20";

/// What every request for an instance needs, as Cloud Foundry's kind of platform fills it in.
fn owned(change: &Value) -> Value {
    let owner = json!({ "organization_guid": ORG, "space_guid": SPACE });
    with(with(ids(), &owner), change)
}

/// Cloud Controller's context of an instance.
fn cloud_controllers_context(name: &str) -> Value {
    json!({
        "platform": "cloudfoundry",
        "organization_guid": ORG, "organization_name": "acme", "organization_annotations": {},
        "space_guid": SPACE, "space_name": "dev", "space_annotations": {},
        "instance_name": name, "instance_annotations": {},
    })
}

/// Cloud Controller's request for an instance.
fn cloud_controller_creates(change: &Value) -> Value {
    let told = json!({
        "context": cloud_controllers_context("my-etcd"),
        "maintenance_info": { "version": "3.7.3" },
    });
    with(owned(&told), change)
}

/// Cloud Controller's request for a change of an instance.
fn cloud_controller_updates(change: &Value) -> Value {
    let before = json!({
        "plan_id": ids()["plan_id"], "service_id": ids()["service_id"],
        "organization_id": ORG, "space_id": SPACE,
        "maintenance_info": { "version": "3.7.3" },
    });
    let told = json!({
        "context": cloud_controllers_context("my-etcd"), "previous_values": before,
    });
    with(with(ids(), &told), change)
}

/// Korifi's request for an instance: no context, and parameters that may be `null`.
fn korifi_creates() -> Value {
    owned(&json!({ "parameters": null }))
}

/// Korifi's request for a key.
fn korifi_binds() -> Value {
    let told = json!({
        "app_guid": "", "bind_resource": { "app_guid": "" }, "parameters": null,
    });
    with(ids(), &told)
}

/// A request as Cloud Controller makes it.
fn by_cloud_controller(bench: &Bench, method: Method, path: &str) -> RequestBuilder {
    bench
        .as_minor(15, method, path)
        .header("X-Api-Info-Location", "api.example.org/v2/info")
        .header(
            "X-Broker-API-Request-Identity",
            "3e2b6a50-31d1-4d8e-9b1f-6d1d2a1c7f30",
        )
}

fn asynchronously(path: &str) -> String {
    format!("{path}?accepts_incomplete=true")
}

/// What platforms show of an instance.
fn labels(version: &str, units: &str) -> Value {
    json!({
        "labels": { "engine": "etcd", "version": version, "units": units }, "attributes": {},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn cloud_controller_keeps_what_an_instance_is_and_no_update_wipes_it() {
    let bench = Bench::on_etcd().await;
    let path = asynchronously(&instance_path("i"));
    let dashboard = json!(format!("{}/dashboard/instances/i", bench.url));
    let create = cloud_controller_creates(&json!({ "parameters": { "db_version": "3.5.16" } }));
    let put = async || {
        let request = by_cloud_controller(&bench, Method::PUT, &path);
        answer(request.json(&create)).await
    };
    let made = put().await;
    token(&made);
    assert_eq!(made.body["metadata"], labels("3.5.16", "1"), "{made:?}");
    assert_eq!(made.body["dashboard_url"], dashboard);
    bench.end("i", &made).await;
    let again = put().await;
    assert_eq!(again.status, StatusCode::OK, "{again:?}");
    assert_eq!(again.body["metadata"], labels("3.5.16", "1"));

    let patch = async |change: Value| {
        let request = by_cloud_controller(&bench, Method::PATCH, &path);
        answer(request.json(&cloud_controller_updates(&change))).await
    };
    // A new name alone, as `cf rename-service` sends it: done at once.
    let renamed = patch(json!({ "context": cloud_controllers_context("renamed") })).await;
    assert_eq!(
        (renamed.status, &renamed.body),
        (
            StatusCode::OK,
            &json!({ "dashboard_url": dashboard, "metadata": labels("3.5.16", "1") })
        )
    );
    // What takes time is told as what it will be.
    let held = bench.script.hold(OperationKind::Update, "check");
    let grown = json!({ "parameters": { "units": 2 } });
    for _ in 0..2 {
        let grows = patch(grown.clone()).await;
        token(&grows);
        assert_eq!(grows.body["metadata"], labels("3.5.16", "2"), "{grows:?}");
        assert_eq!(grows.body["dashboard_url"], dashboard);
    }
    let asked = answer(by_cloud_controller(
        &bench,
        Method::GET,
        &instance_path("i"),
    ));
    assert_eq!(asked.await.body["metadata"], labels("3.5.16", "1"));
    let grows = patch(grown.clone()).await;
    drop(held);
    assert_eq!(bench.end("i", &grows).await["state"], "succeeded");
    let done = patch(grown).await;
    assert_eq!(done.status, StatusCode::OK, "{done:?}");
    assert_eq!(done.body["metadata"], labels("3.5.16", "2"));
}

/// Suites for versions before 2.16 refuse what these do not have, and say nothing of themselves.
#[tokio::test(flavor = "multi_thread")]
async fn who_names_no_platform_is_told_what_its_version_has() {
    let bench = Bench::new().await;
    let _held = bench.script.hold(OperationKind::Provision, "allocate");
    let path = asynchronously(&instance_path("i"));
    for minor in [13, 14, 15] {
        let request = bench.as_minor(minor, Method::PUT, &path);
        let made = answer(request.json(&owned(&json!({})))).await;
        token(&made);
        let mut fields: Vec<&String> = made.body.as_object().expect("an object").keys().collect();
        fields.sort();
        assert_eq!(fields, ["dashboard_url", "operation"], "2.{minor}");
    }
}

/// The client library of service-catalog and Service Manager compares word by word.
#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_wait_is_told_so_in_the_words_that_clients_compare() {
    let bench = Bench::new().await;
    let create = owned(&json!({
        "organization_guid": "-", "space_guid": "-",
        "context": { "platform": "service-manager", "tenant": "a", "instance_name": "my-etcd" },
    }));
    let put = bench.as_minor(14, Method::PUT, &instance_path("i"));
    let put = answer(put.json(&create)).await;
    let path = format!("{}?{IDS}", instance_path("i"));
    let delete = answer(bench.as_minor(14, Method::DELETE, &path)).await;
    for refused in [put, delete] {
        coded(&refused, "AsyncRequired");
        assert_eq!(
            refused.body["description"],
            "This service plan requires client support for asynchronous service operations."
        );
    }
}

/// Service Manager's orphan mitigation goes on polling until it hears that the deletion succeeded.
#[tokio::test(flavor = "multi_thread")]
async fn service_manager_hears_the_end_of_a_deletion() {
    let bench = Bench::new().await;
    bench.fail_to_provision("i").await;
    let delete = format!("{}?accepts_incomplete=true&{IDS}", instance_path("i"));
    let deleted = answer(bench.as_minor(14, Method::DELETE, &delete)).await;
    let token = token(&deleted);
    let poll = format!(
        "{}/last_operation?operation={token}&{IDS}",
        instance_path("i")
    );
    eventually("the end of the deletion", || async {
        let polled = answer(bench.as_minor(14, Method::GET, &poll)).await;
        (state(&polled) == "succeeded").then_some(())
    })
    .await;
}

/// The description that a token leads to.
async fn told(bench: &Bench, place: &str, accepted: &Answer) -> String {
    let token = token(accepted);
    let path = format!("{place}/last_operation?operation={token}&{IDS}");
    let polled = bench.get(&path).await;
    assert_eq!(state(&polled), "failed", "{polled:?}");
    text(&polled.body["description"]).to_owned()
}

/// Korifi sends its request again before each poll, and shows what the poll of that answer says.
#[tokio::test(flavor = "multi_thread")]
async fn korifi_learns_why_an_instance_failed() {
    let bench = Bench::new().await;
    let path = asynchronously(&instance_path("i"));
    let put = async |body: &Value| answer(bench.osb(Method::PUT, &path).json(body)).await;
    let failing = bench.script.fail(OperationKind::Provision, "allocate");
    let first = put(&korifi_creates()).await;
    assert_eq!(bench.end("i", &first).await["state"], "failed");
    drop(failing);
    let reason = told(&bench, &instance_path("i"), &first).await;
    for _ in 0..2 {
        let again = put(&korifi_creates()).await;
        assert_eq!(token(&again), token(&first));
        assert_eq!(told(&bench, &instance_path("i"), &again).await, reason);
    }
    // Who asks for something else, or cannot poll, reads it at once.
    let other = put(&with(
        korifi_creates(),
        &json!({ "parameters": { "units": 2 } }),
    ))
    .await;
    let waits = bench.osb(Method::PUT, &instance_path("i"));
    let waits = answer(waits.json(&korifi_creates())).await;
    for conflict in [other, waits] {
        let said = refused(&conflict, StatusCode::CONFLICT);
        let reason = reason.trim_end_matches('.');
        assert!(
            said.contains(reason) && said.contains("deprovision it"),
            "{said}"
        );
    }
    // It is nobody else's business.
    let foreign = put(&with(korifi_creates(), &json!({ "space_guid": "other" }))).await;
    let said = refused(&foreign, StatusCode::CONFLICT);
    assert_eq!(said, "another service instance has this id");

    // What could not be deleted was not asked for by this request.
    let failing = bench.script.fail(OperationKind::Deprovision, "release");
    let deletion = bench.delete_instance("i").await;
    assert_eq!(bench.end("i", &deletion).await["state"], "failed");
    let again = put(&korifi_creates()).await;
    let said = refused(&again, StatusCode::CONFLICT);
    assert!(said.contains("could not be deleted: "), "{said}");
    drop(failing);
    bench.deprovision("i").await;
    let _held = bench.script.hold(OperationKind::Provision, "allocate");
    assert_ne!(token(&put(&korifi_creates()).await), token(&first));
}

#[tokio::test(flavor = "multi_thread")]
async fn korifi_learns_why_a_key_failed() {
    let bench = Bench::with_instance(json!({})).await;
    let path = asynchronously(&binding_path("i", "b"));
    let put = async |body: &Value| answer(bench.osb(Method::PUT, &path).json(body)).await;
    let failing = bench.script.fail(OperationKind::Bind, "add_user");
    let first = put(&korifi_binds()).await;
    assert_eq!(bench.end_of_binding("b", &first).await["state"], "failed");
    drop(failing);
    let reason = told(&bench, &binding_path("i", "b"), &first).await;
    let again = put(&korifi_binds()).await;
    assert_eq!(token(&again), token(&first));
    assert_eq!(told(&bench, &binding_path("i", "b"), &again).await, reason);
    let waits = bench.osb(Method::PUT, &binding_path("i", "b"));
    let waits = answer(waits.json(&korifi_binds())).await;
    let role = with(
        korifi_binds(),
        &json!({ "parameters": { "role": "reader" } }),
    );
    for conflict in [put(&role).await, waits] {
        let said = refused(&conflict, StatusCode::CONFLICT);
        let reason = reason.trim_end_matches('.');
        assert!(
            said.contains(reason) && said.contains("unbind it"),
            "{said}"
        );
    }
    let unbound = bench.delete_binding("b").await;
    assert_eq!(
        bench.end_of_binding("b", &unbound).await["state"],
        "succeeded"
    );
    let made = put(&korifi_binds()).await;
    let end = bench.end_of_binding("b", &made).await;
    assert_eq!(end["state"], "succeeded", "{end}");
}

/// Korifi takes a plan that does not say so for one that cannot be bound.
#[tokio::test(flavor = "multi_thread")]
async fn each_plan_says_whether_it_can_be_bound() {
    let ours = crate::catalog::catalog_file();
    let mut silent = ours.clone();
    for plan in silent["services"][0]["plans"]
        .as_array_mut()
        .expect("plans")
    {
        plan.as_object_mut().expect("a plan").remove("bindable");
    }
    let mut unbound = silent.clone();
    unbound["services"][0]["bindable"] = json!(false);
    for (catalog, bindable) in [(ours, true), (silent, true), (unbound, false)] {
        let bench = Bench::with_catalog(&catalog).await;
        let served = bench.get("/v2/catalog").await.body;
        for plan in served["services"][0]["plans"].as_array().expect("plans") {
            assert_eq!(plan["bindable"], bindable, "{}", plan["name"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parameter_that_is_not_known_is_told_with_those_that_are() {
    let bench = Bench::with_instance(json!({})).await;
    let unknown = json!({ "parameters": { "unit": 4 } });
    let create = bench.put("j", unknown.clone()).await;
    let update = bench.patch(unknown.clone()).await;
    let bind = bench.put_binding("b", unknown).await;
    for (answer, known) in [
        (create, ["units", "db_version", "backup_id"]),
        (update, ["units", "db_version", "delete_protection"]),
        (bind, ["role", "prefix", "expires_in"]),
    ] {
        let said = refused(&answer, StatusCode::BAD_REQUEST);
        assert!(
            said.contains("\"unit\" is none of its parameters"),
            "{said}"
        );
        for name in known {
            assert!(said.contains(name), "{name}: {said}");
        }
    }
}

/// Korifi throws a refusal's text away: the operator finds it in our log.
#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_of_a_change_is_logged_with_its_reason_and_nothing_that_was_sent() {
    let broker = BrokerProcess::start().await;
    let headers = raw::platform(&broker);
    let secret = "nobodys-business";
    let body = |change: Value| owned(&change).to_string();
    let instance = "/v2/service_instances/i?accepts_incomplete=true";
    let binding = "/v2/service_instances/i/service_bindings/b?accepts_incomplete=true";
    let compose = "/api/2016-07/instances/i/deployments/d/backups";
    let cases = [
        (
            (
                "PUT",
                instance,
                body(json!({ "parameters": { secret: secret } })),
            ),
            ["status=400", "none of its parameters; these are:"],
        ),
        (
            (
                "PUT",
                instance,
                body(json!({ "parameters": { "units": secret } })),
            ),
            ["status=400", "/units: "],
        ),
        (
            (
                "PUT",
                instance,
                body(json!({ "parameters": { "db_version": secret } })),
            ),
            ["status=400", "is not available; choose one of:"],
        ),
        (
            ("PUT", instance, body(json!({ "space_guid": "" }))),
            ["status=400", "space_guid is empty"],
        ),
        (
            ("PUT", binding, body(json!({}))),
            ["status=404", "there is no such service instance"],
        ),
        (
            ("DELETE", "/v2/service_instances/i", String::new()),
            ["status=400", "service_id is missing"],
        ),
        (
            ("POST", "/v2/catalog", String::new()),
            ["status=405", "this path does not have this method"],
        ),
        (
            ("POST", compose, String::new()),
            ["status=404", "there is no such instance"],
        ),
        (
            ("POST", "/dashboard/sign-in", format!("token={secret}")),
            ["status=400", "There is no such way to sign in"],
        ),
    ];
    for ((method, path, body), words) in cases {
        let sent = raw::send(&broker, method, path, &headers, &body).await;
        assert!((400..500).contains(&sent.status), "{sent:?}");
        eventually(&format!("a line with {words:?}"), || async {
            let log = broker.logged();
            let is_told = |line: &&str| {
                let place = path.split('?').next().unwrap_or_default();
                line.contains(place) && words.iter().all(|word| line.contains(word))
            };
            log.lines().find(is_told).map(|_| ())
        })
        .await;
    }
    assert!(!broker.logged().contains(secret), "{}", broker.logged());
}

/// Published schemas of 2.15 have no `endpoints`, and no `parameters` where none were given.
#[tokio::test(flavor = "multi_thread")]
async fn a_binding_is_told_with_what_there_is_of_it() {
    let bench = Bench::with_instance(json!({})).await;
    let sent = korifi_binds();
    let made = bench.osb(Method::PUT, &binding_path("i", "none"));
    let made = answer(made.json(&sent)).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let some = json!({ "parameters": { "expires_in": 3600 } });
    bench.put_binding_waiting("some", some.clone()).await;
    for (minor, has_endpoints) in [(13, false), (15, false), (16, true), (17, true)] {
        for (binding, parameters) in [("none", None), ("some", some.get("parameters"))] {
            let path = binding_path("i", binding);
            let fetched = answer(bench.as_minor(minor, Method::GET, &path)).await;
            assert_eq!(fetched.status, StatusCode::OK, "{fetched:?}");
            let body = &fetched.body;
            assert_eq!(body.get("parameters"), parameters, "2.{minor}: {body}");
            assert_eq!(body.get("endpoints").is_some(), has_endpoints, "2.{minor}");
        }
    }
}
