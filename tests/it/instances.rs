//! The life of a service instance: asked for, made, looked at, deleted.

use std::{fs, sync::Arc};

use compose_broker::model::operation::OperationKind;
use futures::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{
        Answer, ENTERPRISE, SERVICE, STANDARD, TestBroker, answer, eventually, instance_path,
        new_folder, port_range, text,
    },
    catalog::{catalog_file, two_services_file},
    control::Script,
    transport::description,
};

/// A request with `change` laid over the usual one.
fn request(change: Value) -> Value {
    let mut body = json!({
        "service_id": SERVICE, "plan_id": STANDARD,
        "organization_guid": "org", "space_guid": "space",
    });
    for (field, value) in change.as_object().expect("an object") {
        body[field] = value.clone();
    }
    body
}

async fn put(broker: &TestBroker, id: &str, change: Value) -> Answer {
    let path = format!("{}?accepts_incomplete=true", instance_path(id));
    answer(broker.osb(Method::PUT, &path).json(&request(change))).await
}

async fn fetch(broker: &TestBroker, id: &str) -> Answer {
    answer(broker.osb(Method::GET, &instance_path(id))).await
}

/// How an operation fares now; none: without a token.
async fn poll(broker: &TestBroker, id: &str, token: Option<&str>) -> Answer {
    let query = token.map_or(String::new(), |token| format!("?operation={token}"));
    let path = format!("{}/last_operation{query}", instance_path(id));
    answer(broker.osb(Method::GET, &path)).await
}

/// An accepted answer's token, held to the specification's form.
fn token(answer: &Answer) -> &str {
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    let token = text(&answer.body["operation"]);
    let unreserved = |c: char| c.is_ascii_alphanumeric() || "._~-".contains(c);
    assert!(!token.is_empty() && token.len() <= 10_000 && token.chars().all(unreserved));
    token
}

async fn assert_unknown(broker: &TestBroker, id: &str) {
    assert_eq!(fetch(broker, id).await.status, StatusCode::NOT_FOUND);
    assert_eq!(poll(broker, id, None).await.status, StatusCode::NOT_FOUND);
    assert_eq!(broker.delete_instance(id).await.status, StatusCode::GONE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_is_recognised_while_it_runs_and_when_it_is_done() {
    let script = Script::default();
    let broker = TestBroker::start_with(&[], script.surroundings()).await;
    let held = script.hold(OperationKind::Provision, "allocate");
    let parameters = json!({ "units": 1, "db_version": "3.5.16" });
    let context = json!({ "platform": "cloudfoundry", "instance_name": "first", "x": [1] });
    let asked = json!({ "parameters": parameters, "context": context });
    let first = put(&broker, "i", asked.clone()).await;
    let same = [
        asked.clone(),
        json!({ "parameters": { "db_version": "3.5.16", "units": 1.0 } }),
        json!({ "parameters": parameters, "context": { "instance_name": "renamed" } }),
        json!({ "parameters": parameters, "maintenance_info": {}, "previous_values": {} }),
        json!({ "parameters": parameters, "unknown": { "deep": [null] } }),
    ];
    for change in &same {
        let again = put(&broker, "i", change.clone()).await;
        assert_eq!(token(&again), token(&first), "{change}");
    }
    let others = [
        json!({ "parameters": { "units": 2, "db_version": "3.5.16" } }),
        json!({ "parameters": { "units": 1 } }),
        json!({}),
        json!({ "parameters": parameters, "plan_id": ENTERPRISE }),
        json!({ "parameters": parameters, "organization_guid": "other" }),
        json!({ "parameters": parameters, "space_guid": "other" }),
    ];
    for change in &others {
        let other = put(&broker, "i", change.clone()).await;
        description(&other, StatusCode::CONFLICT);
    }
    assert_eq!(fetch(&broker, "i").await.status, StatusCode::NOT_FOUND);
    drop(held);
    let end = broker.instance_end("i", &first.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    for change in &same {
        let again = put(&broker, "i", change.clone()).await;
        assert_eq!(again.status, StatusCode::OK, "{change}: {again:?}");
    }
    for change in &others {
        let other = put(&broker, "i", change.clone()).await;
        description(&other, StatusCode::CONFLICT);
    }
    let fetched = fetch(&broker, "i").await;
    assert_eq!(fetched.status, StatusCode::OK, "{fetched:?}");
    let expected = json!({
        "service_id": SERVICE, "plan_id": STANDARD, "parameters": parameters,
        "dashboard_url": format!("{}/dashboard/instances/i", broker.url),
        "maintenance_info": { "version": "3.5.16" },
    });
    assert_eq!(fetched.body, expected);
    // Platforms of before 2.16 do not know of it.
    let (username, password) = broker.platform();
    let older = broker
        .anonymous(Method::GET, &instance_path("i"))
        .basic_auth(username, Some(password))
        .header("X-Broker-API-Version", "2.15");
    let older = answer(older).await;
    assert_eq!(older.status, StatusCode::OK, "{older:?}");
    assert_eq!(older.body.get("maintenance_info"), None);
    // Without a wish to wait there is nothing to wait for.
    let path = instance_path("i");
    let done = answer(broker.osb(Method::PUT, &path).json(&request(asked))).await;
    assert_eq!(done.status, StatusCode::OK, "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_parameters_are_written_in_three_ways() {
    let script = Script::default();
    let broker = TestBroker::start_with(&[], script.surroundings()).await;
    let _held = script.hold(OperationKind::Provision, "allocate");
    let first = put(&broker, "i", json!({})).await;
    for parameters in [json!(null), json!({})] {
        let again = put(&broker, "i", json!({ "parameters": parameters })).await;
        assert_eq!(token(&again), token(&first));
    }
    let without_waiting = broker
        .osb(Method::PUT, &instance_path("i"))
        .json(&request(json!({})));
    let refused = answer(without_waiting).await;
    description(&refused, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(refused.body["error"], "AsyncRequired");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_makes_nothing() {
    let broker = TestBroker::start().await;
    let wrong = [
        ("service_id", json!({ "service_id": "unknown" })),
        ("plan_id", json!({ "plan_id": "unknown" })),
        ("units", json!({ "parameters": { "units": 0 } })),
        ("units", json!({ "parameters": { "units": 33 } })),
        ("units", json!({ "parameters": { "units": "2" } })),
        ("units", json!({ "parameters": { "units": 1.5 } })),
        ("units", json!({ "parameters": { "units": null } })),
        ("db_version", json!({ "parameters": { "db_version": 3 } })),
        (
            "db_version",
            json!({ "parameters": { "db_version": "x".repeat(33) } }),
        ),
        ("unit", json!({ "parameters": { "unit": 2 } })),
        ("backup_id", json!({ "parameters": { "backup_id": ["x"] } })),
    ];
    for (field, change) in wrong {
        let refused = put(&broker, "i", change.clone()).await;
        let reason = description(&refused, StatusCode::BAD_REQUEST);
        assert!(reason.contains(field), "{change}: {reason}");
        assert_eq!(refused.body.get("error"), None, "{refused:?}");
    }
    assert_unknown(&broker, "i").await;
    assert_eq!(broker.members(), Vec::<i32>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_version_is_refused_with_a_list_of_what_there_is() {
    let broker = TestBroker::start().await;
    for version in ["9.9.9", "3.5", "latest", "", "3.5.0", "v3.5.16", " 3.5.16"] {
        let refused = put(
            &broker,
            "i",
            json!({ "parameters": { "db_version": version } }),
        )
        .await;
        let reason = description(&refused, StatusCode::BAD_REQUEST);
        for known in ["3.3.25", "3.4.23", "3.5.16", "3.5.30"] {
            assert!(reason.contains(known), "{version}: {reason}");
        }
    }
    assert_unknown(&broker, "i").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_belongs_to_its_own_service() {
    let folder = new_folder();
    let file = two_services_file(&folder);
    let script = Script::default();
    let flags = ["--catalog", file.to_str().expect("UTF-8")];
    let broker = TestBroker::start_in(folder.clone(), &flags, script.surroundings()).await;
    let _held = script.hold(OperationKind::Provision, "allocate");
    for (service, plan) in [(SERVICE, "second-plan"), ("second-service", STANDARD)] {
        let refused = put(
            &broker,
            "i",
            json!({ "service_id": service, "plan_id": plan }),
        )
        .await;
        let reason = description(&refused, StatusCode::BAD_REQUEST);
        assert!(reason.contains("plan_id"), "{reason}");
    }
    assert_unknown(&broker, "i").await;
    let own = json!({ "service_id": "second-service", "plan_id": "second-plan" });
    token(&put(&broker, "i", own).await);
    // The same plan by name, but another service: not the same request.
    description(&put(&broker, "i", json!({})).await, StatusCode::CONFLICT);
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance_information_is_compared_when_it_says_something() {
    let folder = new_folder();
    let mut catalog = catalog_file();
    let plan = &mut catalog["services"][0]["plans"][1];
    plan["maintenance_info"] = json!({ "version": "2.1.0", "description": "newer" });
    let file = folder.join("maintained.json");
    fs::write(&file, catalog.to_string()).expect("a file");
    let script = Script::default();
    let flags = ["--catalog", file.to_str().expect("UTF-8")];
    let broker = TestBroker::start_in(folder.clone(), &flags, script.surroundings()).await;
    let _held = script.hold(OperationKind::Provision, "allocate");
    let refused = async |change: Value| {
        let refused = put(&broker, "refused", change.clone()).await;
        description(&refused, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(refused.body["error"], "MaintenanceInfoConflict", "{change}");
    };
    refused(json!({ "maintenance_info": { "version": "2.1.0" } })).await;
    let enterprise = json!({ "plan_id": ENTERPRISE, "parameters": { "cluster_id": "local" } });
    for version in ["2.0.0", "2.1.0-rc.1", "", "garbage"] {
        let mut change = enterprise.clone();
        change["maintenance_info"] = json!({ "version": version });
        refused(change).await;
    }
    assert_unknown(&broker, "refused").await;
    // What the conformance suite, Cloud Controller and others send.
    let mut change = json!({
        "maintenance_info": {}, "previous_values": { "maintenance_info": {} }, "bind_resource": {},
    });
    token(&put(&broker, "standard", change.clone()).await);
    change["maintenance_info"] = json!({ "version": null, "description": "x" });
    token(&put(&broker, "standard", change).await);
    let mut change = enterprise.clone();
    change["maintenance_info"] = json!({ "version": "2.1.0", "description": "other", "x": 1 });
    let first = put(&broker, "enterprise", change).await;
    let again = put(&broker, "enterprise", enterprise).await;
    assert_eq!(token(&again), token(&first));
    // A parameter that is wrong comes first, a conflict last.
    let schema_first = json!({
        "parameters": { "units": "x" }, "maintenance_info": { "version": "9.0.0" },
    });
    description(
        &put(&broker, "standard", schema_first).await,
        StatusCode::BAD_REQUEST,
    );
    let before_conflict =
        json!({ "space_guid": "other", "maintenance_info": { "version": "9.0.0" } });
    refused(before_conflict).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_equal_requests_at_once_one_makes_the_instance() {
    let script = Script::default();
    let broker = TestBroker::start_with(&[], script.surroundings()).await;
    let _held = script.hold(OperationKind::Provision, "allocate");
    let answers = join_all((0..20).map(|_| put(&broker, "i", json!({})))).await;
    let tokens: Vec<&str> = answers.iter().map(token).collect();
    assert!(tokens.iter().all(|other| *other == tokens[0]), "{tokens:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_different_requests_at_once_one_makes_the_instance() {
    let script = Script::default();
    let broker = TestBroker::start_with(&[], script.surroundings()).await;
    let held = script.hold(OperationKind::Provision, "allocate");
    let answers =
        join_all((0..20).map(|i| put(&broker, "i", json!({ "space_guid": format!("space-{i}") }))))
            .await;
    let (won, lost): (Vec<_>, Vec<_>) = answers
        .iter()
        .partition(|a| a.status == StatusCode::ACCEPTED);
    assert_eq!(won.len(), 1, "{answers:?}");
    assert!(
        lost.iter().all(|a| a.status == StatusCode::CONFLICT),
        "{answers:?}"
    );
    let deleted = broker.delete_instance("i").await;
    drop(held);
    broker.instance_end("i", &deleted.body).await;
    assert_eq!(broker.members(), Vec::<i32>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_instance_tells_its_progress_and_when_to_ask_again() {
    let script = Script::default();
    let broker = TestBroker::start_with(&[], script.surroundings()).await;
    let held = script.hold(OperationKind::Provision, "start");
    let accepted = put(&broker, "i", json!({})).await;
    let running = eventually("the second step", || async {
        let polled = poll(&broker, "i", Some(token(&accepted))).await;
        text(&polled.body["description"])
            .contains("step 2")
            .then_some(polled)
    })
    .await;
    assert_eq!(running.body["state"], "in progress");
    let pause = running.headers["retry-after"].to_str().expect("ASCII");
    assert!(
        pause.parse::<u32>().is_ok_and(|seconds| seconds > 0),
        "{pause}"
    );
    for name in ["instance_usable", "update_repeatable"] {
        assert_eq!(running.body.get(name), None);
    }
    // The ids in the query are hints.
    let path = format!(
        "{}/last_operation?service_id=other&plan_id=other&operation={}",
        instance_path("i"),
        token(&accepted)
    );
    assert_eq!(
        answer(broker.osb(Method::GET, &path)).await.body["state"],
        "in progress"
    );
    for foreign in [
        "provision",
        "deprovision",
        "0123456789abcdef01234567",
        "",
        "%00",
        "x y",
    ] {
        let polled = poll(&broker, "i", Some(foreign)).await;
        assert_eq!(polled.body["state"], "in progress", "{foreign}");
    }
    drop(held);
    broker.instance_end("i", &accepted.body).await;
    let done = poll(&broker, "i", None).await;
    assert_eq!(done.body["state"], "succeeded");
    assert!(!text(&done.body["description"]).is_empty());
    assert_eq!(done.headers.get("retry-after"), None);
    assert_eq!(fetch(&broker, "i").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_failed_says_why_and_can_only_be_deleted() {
    let script = Script::default();
    let mut broker = TestBroker::start_with(&[], script.surroundings()).await;
    let failing = script.fail(OperationKind::Provision, "start");
    let accepted = put(&broker, "i", json!({})).await;
    let end = broker.instance_end("i", &accepted.body).await;
    assert_eq!(end["state"], "failed", "{end}");
    assert!(
        text(&end["description"]).contains("Starting the members"),
        "{end}"
    );
    assert_eq!(end.get("instance_usable"), None);
    drop(failing);
    assert_eq!(fetch(&broker, "i").await.status, StatusCode::NOT_FOUND);
    description(&put(&broker, "i", json!({})).await, StatusCode::CONFLICT);
    let bind = format!("{}/service_bindings/b", instance_path("i"));
    let body = json!({ "service_id": SERVICE, "plan_id": STANDARD });
    let refused = answer(broker.osb(Method::PUT, &bind).json(&body)).await;
    description(&refused, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(refused.body["error"], "ConcurrencyError");
    broker.restart_with(script.surroundings()).await;
    let remembered = poll(&broker, "i", Some(token(&accepted))).await;
    assert_eq!(remembered.body, end);
    broker.deprovision("i").await;
    assert_nothing_left(&broker);
    broker.provision("i", json!({})).await;
}

fn assert_nothing_left(broker: &TestBroker) {
    assert_eq!(broker.members(), Vec::<i32>::new());
    let of_members = |file: &String| file.starts_with("clusters/") && file.contains("/m");
    let left: Vec<String> = broker.files().into_iter().filter(of_members).collect();
    assert_eq!(left, Vec::<String>::new());
    let backups: Vec<String> = broker
        .files()
        .into_iter()
        .filter(|file| file.starts_with("backups/"))
        .collect();
    assert_eq!(backups, Vec::<String>::new());
}

/// There is room for the ports of one instance only: whoever leaves some behind stops the next.
#[tokio::test(flavor = "multi_thread")]
async fn deleting_an_instance_at_any_moment_leaves_nothing_behind() {
    let range = port_range();
    let first: u16 = range
        .split_once('-')
        .expect("a range")
        .0
        .parse()
        .expect("a port");
    let narrow = format!("{first}-{}", first + 9);
    let script = Script::default();
    let broker = TestBroker::start_with(&["--port-range", &narrow], script.surroundings()).await;

    // Right away.
    let accepted = put(&broker, "i", json!({})).await;
    halt(&broker, &accepted).await;
    // With its ports reserved, without a process.
    let held = script.hold(OperationKind::Provision, "start");
    let accepted = put(&broker, "i", json!({})).await;
    reached(&broker, &accepted, "step 2").await;
    let deletion = broker.delete_instance("i").await;
    drop(held);
    broker.instance_end("i", &deletion.body).await;
    assert_nothing_left(&broker);
    // As soon as there is a process.
    let accepted = put(&broker, "i", json!({})).await;
    eventually("a process", || async {
        (!broker.members().is_empty()).then_some(())
    })
    .await;
    halt(&broker, &accepted).await;
    // Before the last step.
    let held = script.hold(OperationKind::Provision, "secure");
    let accepted = put(&broker, "i", json!({})).await;
    reached(&broker, &accepted, "step 3").await;
    let deletion = broker.delete_instance("i").await;
    let halted = poll(&broker, "i", Some(token(&accepted))).await;
    assert_eq!(halted.body["state"], "failed", "{halted:?}");
    drop(held);
    broker.instance_end("i", &deletion.body).await;
    assert_nothing_left(&broker);
    // When it is done.
    broker.provision("i", json!({})).await;
    broker.deprovision("i").await;
    assert_nothing_left(&broker);
    broker.provision("i", json!({})).await;
}

/// Waits until the making of `i` has come to a step.
async fn reached(broker: &TestBroker, accepted: &Answer, step: &str) {
    eventually(step, || async {
        let polled = poll(broker, "i", Some(token(accepted))).await;
        text(&polled.body["description"])
            .contains(step)
            .then_some(())
    })
    .await;
}

async fn halt(broker: &TestBroker, accepted: &Answer) {
    let provision = token(accepted);
    let deletion = broker.delete_instance("i").await;
    assert_ne!(token(&deletion), provision);
    let halted = poll(broker, "i", Some(provision)).await;
    assert_eq!(halted.body["state"], "failed", "{halted:?}");
    let again = broker.delete_instance("i").await;
    if again.status != StatusCode::GONE {
        assert_eq!(token(&again), token(&deletion));
    }
    let end = broker.instance_end("i", &deletion.body).await;
    assert_eq!(end["state"], "gone");
    let halted = poll(broker, "i", Some(provision)).await;
    assert_eq!(halted.body["state"], "failed", "{halted:?}");
    assert_nothing_left(broker);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_is_asked_for_in_the_right_way_or_refused() {
    let script = Script::default();
    let broker = TestBroker::start_with(&[], script.surroundings()).await;
    let _held = script.hold(OperationKind::Provision, "allocate");
    put(&broker, "known", json!({})).await;
    let both = format!("service_id={SERVICE}&plan_id={STANDARD}");
    for id in ["known", "unknown"] {
        let path = instance_path(id);
        for query in [
            String::new(),
            "accepts_incomplete=true".to_owned(),
            format!("plan_id={STANDARD}&accepts_incomplete=true"),
            format!("service_id={SERVICE}&accepts_incomplete=true"),
            format!("service_id=&plan_id={STANDARD}&accepts_incomplete=true"),
        ] {
            let refused = answer(broker.osb(Method::DELETE, &format!("{path}?{query}"))).await;
            description(&refused, StatusCode::BAD_REQUEST);
        }
        for query in [both.clone(), format!("{both}&accepts_incomplete=false")] {
            let refused = answer(broker.osb(Method::DELETE, &format!("{path}?{query}"))).await;
            description(&refused, StatusCode::UNPROCESSABLE_ENTITY);
            assert_eq!(refused.body["error"], "AsyncRequired");
        }
    }
    let unknown = broker.delete_instance("unknown").await;
    assert_eq!(unknown.status, StatusCode::GONE);
    assert!(unknown.body.is_object());
    for wrong in [
        format!("service_id=other&plan_id={STANDARD}"),
        format!("service_id={SERVICE}&plan_id={ENTERPRISE}"),
    ] {
        let path = format!("{}?{wrong}&accepts_incomplete=true", instance_path("known"));
        let refused = answer(broker.osb(Method::DELETE, &path)).await;
        description(&refused, StatusCode::BAD_REQUEST);
    }
    assert_eq!(
        poll(&broker, "known", None).await.body["state"],
        "in progress"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_is_deleted_an_id_takes_nothing_new_and_then_it_is_free() {
    let script = Script::default();
    let mut broker = TestBroker::start_with(&[], script.surroundings()).await;
    broker.provision("i", json!({ "units": 2 })).await;
    let made = put(&broker, "i", json!({ "parameters": { "units": 2 } })).await;
    assert_eq!(made.status, StatusCode::OK);
    let held = script.hold(OperationKind::Deprovision, "destroy");
    let deletion = broker.delete_instance("i").await;
    let deleting = token(&deletion).to_owned();
    for change in [json!({ "parameters": { "units": 2 } }), json!({})] {
        let refused = put(&broker, "i", change).await;
        description(&refused, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(refused.body["error"], "ConcurrencyError");
    }
    assert_eq!(token(&broker.delete_instance("i").await), deleting);
    assert_eq!(fetch(&broker, "i").await.status, StatusCode::NOT_FOUND);
    assert_eq!(
        poll(&broker, "i", Some(&deleting)).await.body["state"],
        "in progress"
    );
    assert_eq!(poll(&broker, "i", None).await.body["state"], "in progress");
    drop(held);
    assert_eq!(
        broker.instance_end("i", &deletion.body).await["state"],
        "gone"
    );
    for _ in 0..2 {
        assert_eq!(broker.delete_instance("i").await.status, StatusCode::GONE);
        assert_eq!(
            poll(&broker, "i", Some(&deleting)).await.status,
            StatusCode::GONE
        );
        for foreign in [None, Some("deprovision"), Some("0123456789abcdef01234567")] {
            let polled = poll(&broker, "i", foreign).await;
            assert_eq!(polled.status, StatusCode::OK, "{foreign:?}");
            assert_eq!(polled.body["state"], "succeeded", "{foreign:?}");
        }
        broker.restart_with(script.surroundings()).await;
    }
    let _held = script.hold(OperationKind::Provision, "allocate");
    let anew = put(&broker, "i", json!({})).await;
    assert_ne!(token(&anew), deleting);
    assert_eq!(
        poll(&broker, "i", Some(token(&anew))).await.body["state"],
        "in progress"
    );
    assert_eq!(poll(&broker, "i", None).await.body["state"], "in progress");
    // The old tokens go on to tell of what they were given out for.
    assert_eq!(
        poll(&broker, "i", Some(&deleting)).await.status,
        StatusCode::GONE
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_loses_against_nothing_is_harmless() {
    let broker = Arc::new(TestBroker::start().await);
    // Orphan mitigation repeats its deletions, before, while and after the instance is made.
    let deletions = join_all((0..10).map(|_| broker.delete_instance("i"))).await;
    assert!(deletions.iter().all(|a| a.status == StatusCode::GONE));
    let accepted = put(&broker, "i", json!({})).await;
    let deletions = join_all((0..10).map(|_| broker.delete_instance("i"))).await;
    let tokens: Vec<&Answer> = deletions
        .iter()
        .filter(|a| a.status == StatusCode::ACCEPTED)
        .collect();
    assert!(!tokens.is_empty());
    assert!(
        tokens.iter().all(|a| token(a) == token(tokens[0])),
        "{tokens:?}"
    );
    broker.instance_end("i", &tokens[0].body).await;
    assert_eq!(
        poll(&broker, "i", Some(token(&accepted))).await.body["state"],
        "failed"
    );
    assert_unknown_but_remembered(&broker).await;
    assert_nothing_left(&broker);
}

async fn assert_unknown_but_remembered(broker: &TestBroker) {
    assert_eq!(fetch(broker, "i").await.status, StatusCode::NOT_FOUND);
    assert_eq!(broker.delete_instance("i").await.status, StatusCode::GONE);
    assert_eq!(poll(broker, "i", None).await.body["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_is_finished_by_the_next_broker() {
    let script = Script::default();
    let mut broker = TestBroker::start_with(&[], script.surroundings()).await;
    let held = script.hold(OperationKind::Provision, "secure");
    let accepted = put(&broker, "i", json!({})).await;
    reached(&broker, &accepted, "step 3").await;
    drop(held);
    broker.restart_with(script.surroundings()).await;
    let end = broker.instance_end("i", &accepted.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    let members = broker.members();
    assert_eq!(members.len(), 3);
    broker.restart_with(script.surroundings()).await;
    assert_eq!(broker.members(), members, "members outlive the broker");
    let again = put(&broker, "i", json!({})).await;
    assert_eq!(again.status, StatusCode::OK);
}
