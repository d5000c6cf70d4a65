//! Provision: what makes an instance, what is the same request, and what is refused.

use std::collections::HashSet;

use compose_broker::model::operation::OperationKind;
use futures::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Bench, assert_never_made, coded, provision_body, refused, state, token};
use crate::{
    broker::{Answer, ENTERPRISE, STANDARD, answer, instance_path, text},
    catalog::{catalog_file, two_services},
    database::Database,
    inside::Inside,
    process::BrokerProcess,
};

/// What one request asks for, and others that are the same or not.
const PARAMETERS: &str = r#"{ "units": 1, "db_version": "3.5.16" }"#;

fn parameters() -> Value {
    serde_json::from_str(PARAMETERS).expect("JSON")
}

/// Requests under the same id that ask for something else.
fn others() -> [Value; 6] {
    let parameters = parameters();
    [
        json!({ "parameters": { "units": 2, "db_version": "3.5.16" } }),
        json!({ "parameters": { "units": 1 } }),
        json!({}),
        json!({ "parameters": parameters, "plan_id": ENTERPRISE }),
        json!({ "parameters": parameters, "organization_guid": "other" }),
        json!({ "parameters": parameters, "space_guid": "other" }),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_041_a_new_instance_is_202_and_200_is_for_one_that_is_there() {
    let bench = Bench::with_instance(json!({})).await;
    let _held = bench.script.hold(OperationKind::Provision, "allocate");
    let new = bench.put("j", json!({})).await;
    assert!(!token(&new).is_empty());
    let same = bench.put("i", json!({})).await;
    assert_eq!(same.status, StatusCode::OK, "{same:?}");
    assert_eq!(same.body.get("operation"), None);
    // Who cannot poll hears of one that is there all the same.
    let same = bench.put_waiting("i", json!({})).await;
    assert_eq!(same.status, StatusCode::OK, "{same:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_042_a_field_that_is_missing_or_empty_is_a_400_that_names_it() {
    let bench = Bench::new().await;
    for field in ["service_id", "plan_id", "organization_guid", "space_guid"] {
        for value in [
            json!(""),
            json!(null),
            json!(1),
            json!(["x"]),
            json!({}),
            json!(true),
        ] {
            let answer = bench.put("i", json!({ field: value })).await;
            let reason = refused(&answer, StatusCode::BAD_REQUEST);
            assert!(reason.contains(field), "{field} {value}: {reason}");
        }
        let mut body = provision_body(&json!({}));
        body.as_object_mut().expect("an object").remove(field);
        let path = format!("{}?accepts_incomplete=true", instance_path("i"));
        let answer = answer(bench.osb(Method::PUT, &path).json(&body)).await;
        let reason = refused(&answer, StatusCode::BAD_REQUEST);
        assert!(reason.contains(field), "{field} absent: {reason}");
    }
    assert_never_made(&bench, "i").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_043_a_plan_is_one_of_its_own_service() {
    let bench = Bench::with_catalog(&two_services()).await;
    let _held = bench.script.hold(OperationKind::Provision, "allocate");
    for (field, change) in [
        ("service_id", json!({ "service_id": "unknown" })),
        ("plan_id", json!({ "plan_id": "unknown" })),
        ("plan_id", json!({ "plan_id": "second-plan" })),
        ("plan_id", json!({ "service_id": "second-service" })),
    ] {
        let answer = bench.put("i", change.clone()).await;
        let reason = refused(&answer, StatusCode::BAD_REQUEST);
        assert!(reason.contains(field), "{change}: {reason}");
    }
    assert_never_made(&bench, "i").await;
    let own = json!({ "service_id": "second-service", "plan_id": "second-plan" });
    token(&bench.put("i", own).await);
    // The same plan by name, but another service: not the same request.
    refused(&bench.put("i", json!({})).await, StatusCode::CONFLICT);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_044_who_cannot_wait_is_told_so_and_nothing_is_made() {
    let bench = Bench::new().await;
    coded(&bench.put_waiting("i", json!({})).await, "AsyncRequired");
    assert_never_made(&bench, "i").await;
    let _held = bench.script.hold(OperationKind::Provision, "allocate");
    token(&bench.put("i", json!({})).await);
    coded(&bench.put_waiting("i", json!({})).await, "AsyncRequired");
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_045_the_same_request_while_it_is_worked_on_has_the_same_token() {
    let bench = Bench::new().await;
    let _held = bench.script.hold(OperationKind::Provision, "allocate");
    let first = bench.put("i", json!({})).await;
    for _ in 0..3 {
        let again = bench.put("i", json!({})).await;
        assert_eq!(token(&again), token(&first));
        assert_eq!(again.body, first.body);
        assert_eq!(
            state(&bench.poll("i", Some(token(&again))).await),
            "in progress"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_046_the_same_request_when_it_is_done_is_a_200_with_the_same_dashboard() {
    let bench = Bench::new().await;
    let first = bench.put("i", json!({})).await;
    let end = bench.end("i", &first).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    for minor in [13, 15, 17] {
        let path = format!("{}?accepts_incomplete=true", instance_path("i"));
        let request = bench.as_minor(minor, Method::PUT, &path);
        let again = answer(request.json(&provision_body(&json!({})))).await;
        assert_eq!(again.status, StatusCode::OK, "{again:?}");
        assert_eq!(again.body["dashboard_url"], first.body["dashboard_url"]);
    }
    assert_eq!(Inside::of(&bench).outcomes("i").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_047_a_different_request_under_the_same_id_conflicts() {
    let bench = Bench::on_etcd().await;
    let held = bench.script.hold(OperationKind::Provision, "allocate");
    let first = bench.put("i", json!({ "parameters": parameters() })).await;
    for change in others() {
        refused(&bench.put("i", change).await, StatusCode::CONFLICT);
    }
    drop(held);
    assert_eq!(bench.end("i", &first).await["state"], "succeeded");
    for change in others() {
        refused(&bench.put("i", change).await, StatusCode::CONFLICT);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_048_parameters_are_compared_as_json_values_and_context_not_at_all() {
    let bench = Bench::on_etcd().await;
    let _held = bench.script.hold(OperationKind::Provision, "allocate");
    let first = bench.put("i", json!({ "parameters": parameters() })).await;
    let parameters = parameters();
    for change in [
        json!({ "parameters": { "db_version": "3.5.16", "units": 1.0 } }),
        json!({ "parameters": parameters, "context": { "instance_name": "renamed" } }),
        json!({ "parameters": parameters, "maintenance_info": { "version": "3.7.3" } }),
        json!({ "parameters": parameters, "maintenance_info": {}, "previous_values": {} }),
    ] {
        let again = bench.put("i", change.clone()).await;
        assert_eq!(token(&again), token(&first), "{change}");
    }
    let none = bench.put("none", json!({})).await;
    for parameters in [json!(null), json!({})] {
        let again = bench.put("none", json!({ "parameters": parameters })).await;
        assert_eq!(token(&again), token(&none));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_049_a_repeat_is_compared_with_what_was_asked_for_first() {
    let mut catalog = catalog_file();
    catalog["services"][0]["plans"][0]["maintenance_info"]["version"] = json!("3.5.16");
    let mut bench = Bench::of(Database::Etcd, &catalog, &[]).await;
    let first = json!({ "maintenance_info": { "version": "3.5.16" } });
    let accepted = bench.put("i", first.clone()).await;
    assert_eq!(bench.end("i", &accepted).await["state"], "succeeded");
    // After an update, here to what it is already.
    let update = json!({ "parameters": { "units": 1 } });
    assert_eq!(bench.patch(update.clone()).await.status, StatusCode::OK);
    assert_eq!(
        bench.fetch("i").await.body["parameters"],
        update["parameters"]
    );
    assert_eq!(bench.put("i", first.clone()).await.status, StatusCode::OK);
    refused(&bench.put("i", update).await, StatusCode::CONFLICT);
    // Under a later catalog.
    let file = bench.data_dir().with_file_name("catalog.json");
    std::fs::write(file, catalog_file().to_string()).expect("a file");
    bench.restart().await;
    let later = json!({ "maintenance_info": { "version": "3.7.3" } });
    for same in [json!({}), later] {
        assert_eq!(bench.put("i", same).await.status, StatusCode::OK);
    }
    coded(&bench.put("i", first).await, "MaintenanceInfoConflict");
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_050_the_id_of_a_failed_instance_tells_why_until_it_is_deleted() {
    let bench = Bench::new().await;
    let failed = bench.fail_to_provision("i").await;
    let again = bench.put("i", json!({})).await;
    assert_eq!(token(&again), token(&failed));
    let other = bench
        .put("i", json!({ "parameters": { "units": 2 } }))
        .await;
    assert!(refused(&other, StatusCode::CONFLICT).contains("deprovision"));
    bench.deprovision("i").await;
    let _held = bench.script.hold(OperationKind::Provision, "allocate");
    token(&bench.put("i", json!({})).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_051_an_id_that_is_being_deleted_takes_nothing_and_is_free_afterwards() {
    let bench = Bench::new().await;
    let made = bench.fail_to_provision("i").await;
    let held = bench.script.hold(OperationKind::Deprovision, "destroy");
    let deletion = bench.delete_instance("i").await;
    for change in [json!({}), json!({ "space_guid": "other" })] {
        coded(&bench.put("i", change).await, "ConcurrencyError");
    }
    drop(held);
    assert_eq!(bench.end("i", &deletion).await["state"], "succeeded");
    let _held = bench.script.hold(OperationKind::Provision, "allocate");
    let anew = bench.put("i", json!({ "space_guid": "other" })).await;
    assert!(![token(&made), token(&deletion)].contains(&token(&anew)));
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_052_a_maintenance_version_that_is_not_the_catalog_s_conflicts() {
    let mut catalog = catalog_file();
    let plan = catalog["services"][0]["plans"][0].as_object_mut();
    plan.expect("a plan").remove("maintenance_info");
    let bench = Bench::of(Database::Etcd, &catalog, &[]).await;
    let _held = bench.script.hold(OperationKind::Provision, "allocate");
    let version = |version: Value| json!({ "maintenance_info": { "version": version } });
    coded(
        &bench.put("i", version(json!("3.7.3"))).await,
        "MaintenanceInfoConflict",
    );
    for other in ["3.7.2", "3.7.3-rc.1", "", "garbage"] {
        let mut change = version(json!(other));
        change["plan_id"] = json!(ENTERPRISE);
        change["parameters"] = json!({ "cluster_id": "local" });
        coded(&bench.put("i", change).await, "MaintenanceInfoConflict");
    }
    assert_never_made(&bench, "i").await;
    // One without a version says nothing.
    let first = bench.put("i", json!({ "maintenance_info": {} })).await;
    for same in [
        version(json!(null)),
        json!({ "maintenance_info": { "description": "x", "other": 1 } }),
        json!({ "maintenance_info": null }),
    ] {
        assert_eq!(token(&bench.put("i", same).await), token(&first));
    }
    refused(
        &bench.put("j", version(json!(3))).await,
        StatusCode::BAD_REQUEST,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_053_the_plan_s_whole_maintenance_info_may_come_back() {
    let bench = Bench::new().await;
    let _held = bench.script.hold(OperationKind::Provision, "allocate");
    let catalog = bench.get("/v2/catalog").await.body;
    let info = &catalog["services"][0]["plans"][0]["maintenance_info"];
    assert!(info["description"].is_string());
    token(&bench.put("i", json!({ "maintenance_info": info })).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_054_parameters_that_do_not_fit_are_a_400_that_names_them() {
    let bench = Bench::on_etcd().await;
    for (field, parameters) in [
        ("units", json!({ "units": 0 })),
        ("units", json!({ "units": 33 })),
        ("units", json!({ "units": "2" })),
        ("units", json!({ "units": 1.5 })),
        ("units", json!({ "units": null })),
        ("db_version", json!({ "db_version": 3 })),
        ("db_version", json!({ "db_version": "x".repeat(33) })),
        ("unit", json!({ "unit": 2 })),
        ("backup_id", json!({ "backup_id": ["x"] })),
        // Refusals for other reasons: orphan mitigation follows a foreign 422.
        ("3.6.16", json!({ "db_version": "9.9.9" })),
        ("backup_id", json!({ "source_service_instance_id": "x" })),
        (
            "x",
            json!({ "source_service_instance_id": "x", "backup_id": "y" }),
        ),
        ("cluster", json!({ "cluster_id": "local" })),
    ] {
        let answer = bench.put("i", json!({ "parameters": parameters })).await;
        let reason = refused(&answer, StatusCode::BAD_REQUEST);
        assert!(reason.contains(field), "{parameters}: {reason}");
    }
    assert_never_made(&bench, "i").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_055_tokens_are_short_texts_that_need_no_escaping() {
    let bench = Bench::new().await;
    let _held = bench.script.hold(OperationKind::Provision, "allocate");
    let accepted = [
        bench.put("i", json!({})).await,
        bench.delete_instance("i").await,
    ];
    for answer in &accepted {
        let token = token(answer);
        let unreserved = |c: char| c.is_ascii_alphanumeric() || "._~-".contains(c);
        assert!(!token.is_empty() && token.len() <= 10_000, "{token}");
        assert!(token.chars().all(unreserved), "{token}");
    }
    assert_ne!(token(&accepted[0]), token(&accepted[1]));
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_056_the_dashboard_s_address_is_told_from_the_first_answer_on() {
    let bench = Bench::new().await;
    let _held = bench.script.hold(OperationKind::Provision, "allocate");
    for _ in 0..2 {
        let accepted = bench.put("i", json!({})).await;
        token(&accepted);
        let url = text(&accepted.body["dashboard_url"]);
        assert_eq!(url, format!("{}/dashboard/instances/i", bench.url));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_057_labels_are_texts_and_told_to_platforms() {
    let bench = Bench::on_etcd().await;
    let held = bench.script.hold(OperationKind::Provision, "allocate");
    let body = provision_body(&json!({ "parameters": { "units": 2, "db_version": "3.5.16" } }));
    let path = format!("{}?accepts_incomplete=true", instance_path("i"));
    let expected = json!({
        "labels": { "engine": "etcd", "version": "3.5.16", "units": "2" }, "attributes": {},
    });
    for (minor, told) in [(13, false), (15, false), (16, true), (17, true)] {
        let request = bench.as_minor(minor, Method::PUT, &path);
        let accepted = answer(request.json(&body)).await;
        token(&accepted);
        let metadata = accepted.body.get("metadata");
        assert_eq!(metadata, told.then_some(&expected), "2.{minor}");
        // Who says who it is, is told in any case.
        let named = super::with(body.clone(), &json!({ "context": { "platform": "x" } }));
        let of_named = format!("{}?accepts_incomplete=true", instance_path("named"));
        let request = bench.as_minor(minor, Method::PUT, &of_named);
        let accepted = answer(request.json(&named)).await;
        token(&accepted);
        assert_eq!(accepted.body["metadata"], expected, "2.{minor}");
    }
    drop(held);
    let accepted = answer(bench.osb(Method::PUT, &path).json(&body)).await;
    bench.end("i", &accepted).await;
    let done = answer(bench.osb(Method::PUT, &path).json(&body)).await;
    assert_eq!(
        (done.status, &done.body["metadata"]),
        (StatusCode::OK, &expected)
    );
    for minor in [13, 15, 16] {
        let fetched = answer(bench.as_minor(minor, Method::GET, &instance_path("i"))).await;
        assert_eq!(fetched.body["metadata"], expected, "2.{minor}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_058_what_was_accepted_is_done_though_the_broker_is_killed_at_once() {
    let mut broker = BrokerProcess::start().await;
    let accepted = broker.put_instance("i", json!({})).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    broker.kill_and_start_again().await;
    let end = broker.instance_end("i", &accepted.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    assert_eq!(broker.members().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_059_of_many_equal_requests_at_once_one_makes_the_instance() {
    let bench = Bench::new().await;
    let _held = bench.script.hold(OperationKind::Provision, "allocate");
    let answers = join_all((0..20).map(|_| bench.put("i", json!({})))).await;
    let tokens: HashSet<&str> = answers.iter().map(token).collect();
    assert_eq!(tokens.len(), 1);
    assert_eq!(Inside::of(&bench).operations("i").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_059_of_many_different_requests_at_once_one_makes_the_instance() {
    let bench = Bench::new().await;
    let _held = bench.script.hold(OperationKind::Provision, "allocate");
    let request = |i: u32| bench.put("i", json!({ "space_guid": format!("space-{i}") }));
    let answers = join_all((0..20).map(request)).await;
    let won = |a: &&Answer| a.status == StatusCode::ACCEPTED;
    let (won, lost): (Vec<&Answer>, Vec<&Answer>) = answers.iter().partition(won);
    assert_eq!(won.len(), 1, "{answers:?}");
    for answer in lost {
        refused(answer, StatusCode::CONFLICT);
    }
    assert_eq!(Inside::of(&bench).operations("i").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_060_the_context_is_kept_and_says_whose_the_instance_is() {
    let bench = Bench::new().await;
    let inside = Inside::of(&bench);
    let _held = bench.script.hold(OperationKind::Provision, "allocate");
    let foundry = json!({
        "platform": "cloudfoundry", "organization_guid": "org", "space_guid": "space",
        "organization_name": "o", "space_name": "s", "instance_name": "mine",
        "instance_annotations": { "a/b": "c" }, "organization_annotations": {},
    });
    let kubernetes = json!({ "platform": "kubernetes", "namespace": "ns", "clusterid": "cl" });
    for (id, context, tenant) in [
        ("cf", &foundry, ["cloudfoundry", "org", "space"]),
        ("k8s", &kubernetes, ["kubernetes", "cl", "ns"]),
        ("none", &json!({}), ["cloudfoundry", "org", "space"]),
    ] {
        token(&bench.put(id, json!({ "context": context })).await);
        let kept = inside.instance(id).await;
        assert_eq!(&kept.context, context);
        let owner = [
            kept.tenant.platform,
            kept.tenant.organization,
            kept.tenant.space,
        ];
        assert_eq!(owner, tenant);
    }
    assert_eq!(inside.instance("cf").await.name.as_deref(), Some("mine"));
    for absent in [json!({ "context": null }), json!({})] {
        token(&bench.put("none", absent).await);
    }
}

/// Trap T4: one suite sends these empty objects with everything.
#[tokio::test(flavor = "multi_thread")]
async fn osb_t4_objects_without_a_version_are_absent() {
    let bench = Bench::with_instance(json!({})).await;
    let empty = json!({
        "maintenance_info": {}, "previous_values": { "maintenance_info": {} }, "bind_resource": {},
    });
    assert_eq!(bench.put("i", empty.clone()).await.status, StatusCode::OK);
    assert_eq!(bench.patch(empty.clone()).await.status, StatusCode::OK);
    let bound = bench.put_binding_waiting("b", empty.clone()).await;
    assert_eq!(bound.status, StatusCode::CREATED, "{bound:?}");
    let again = bench.put_binding_waiting("b", json!({})).await;
    assert_eq!(again.status, StatusCode::OK, "{again:?}");
    let _held = bench.script.hold(OperationKind::Provision, "allocate");
    token(&bench.put("j", empty).await);
}

/// Trap T9: what the command line client eden sends.
#[tokio::test(flavor = "multi_thread")]
async fn osb_t9_a_client_that_knows_little_is_served() {
    let bench = Bench::new().await;
    let body = provision_body(&json!({
        "organization_guid": "eden-unknown-guid", "space_guid": "eden-unknown-space",
    }));
    let path = format!("{}?accepts_incomplete=true", instance_path("eden"));
    let accepted = answer(bench.as_minor(13, Method::PUT, &path).json(&body)).await;
    // The token goes into a query as it is.
    let poll = format!(
        "{}/last_operation?operation={}",
        instance_path("eden"),
        token(&accepted)
    );
    assert_eq!(bench.end_of(&poll).await["state"], "succeeded");
    let body = json!({
        "service_id": body["service_id"], "plan_id": STANDARD, "app_guid": "eden-unknown",
        "bind_resource": { "app_guid": "eden-unknown" },
    });
    let path = format!("{}/service_bindings/key", instance_path("eden"));
    let bound = answer(bench.as_minor(13, Method::PUT, &path).json(&body)).await;
    assert_eq!(bound.status, StatusCode::CREATED, "{bound:?}");
    let fields: Vec<&String> = bound.body.as_object().expect("an object").keys().collect();
    assert_eq!(fields, ["credentials"]);
}
