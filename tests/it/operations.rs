//! An operator's hand: operations are seen, tried again and given up, over HTTP and on the command
//! line, and every word of an operator is written down.

use std::{sync::Arc, time::Duration};

use compose_broker::{
    app::Surroundings,
    model::{
        operation::{OperationKind, OperationState},
        patience::{Patience, Tries},
    },
    operation::fault::Fault,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{
        Answer, SERVICE, STANDARD, TestBroker, answer, binding_path, eventually, instance_path,
        text,
    },
    control::{Script, little_patience, surroundings},
    database::Database,
    etcd,
    inside::{Inside, files_of_deployments},
    user::User,
};

/// Pauses that no test waits for.
const LONG: Tries = Tries {
    first_pause: Duration::from_secs(600),
    longest_pause: Duration::from_secs(600),
    budget: Duration::from_secs(6000),
};

async fn broker_with(database: Database, script: &Script, patience: Patience) -> TestBroker {
    let surroundings = Surroundings {
        faults: Arc::new(script.clone()),
        patience,
        ..surroundings()
    };
    database.broker(&[], surroundings).await
}

/// Long pauses forward, and in the clean-up.
fn waiting() -> Patience {
    Patience {
        forward: LONG,
        cleanup: LONG,
        ..little_patience()
    }
}

async fn operator(broker: &TestBroker, method: Method, path: &str) -> Answer {
    answer(broker.osb(method, &format!("/operator{path}"))).await
}

async fn list(broker: &TestBroker, query: &str) -> Vec<Value> {
    let listed = operator(broker, Method::GET, &format!("/operations{query}")).await;
    assert_eq!(listed.status, StatusCode::OK, "{listed:?}");
    listed.body["operations"]
        .as_array()
        .expect("a list")
        .clone()
}

async fn show(broker: &TestBroker, id: &str) -> Value {
    let shown = operator(broker, Method::GET, &format!("/operations/{id}")).await;
    assert_eq!(shown.status, StatusCode::OK, "{shown:?}");
    shown.body
}

/// Says a word to an operation.
async fn say(broker: &TestBroker, id: &str, word: &str) -> Answer {
    operator(broker, Method::POST, &format!("/operations/{id}/{word}")).await
}

async fn must(broker: &TestBroker, id: &str, word: &str) -> Value {
    let said = say(broker, id, word).await;
    assert_eq!(said.status, StatusCode::ACCEPTED, "{said:?}");
    said.body
}

async fn must_not(broker: &TestBroker, id: &str, word: &str, why: &str) {
    let said = say(broker, id, word).await;
    assert_eq!(said.status, StatusCode::CONFLICT, "{said:?}");
    assert!(text(&said.body["description"]).contains(why), "{said:?}");
}

/// Asks for an instance; returns the operation.
async fn begin(broker: &TestBroker, id: &str) -> String {
    let accepted = broker.put_instance(id, json!({})).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    text(&accepted.body["operation"]).to_owned()
}

/// Waits until an operation waits for its next try.
async fn waits(broker: &TestBroker, id: &str) -> Value {
    eventually("a pause", || async {
        let shown = show(broker, id).await;
        (!shown["next_try_at"].is_null() && !shown["trouble"].is_null()).then_some(shown)
    })
    .await
}

/// Waits until an operation is in a state.
async fn becomes(broker: &TestBroker, id: &str, state: &str) -> Value {
    eventually(state, || async {
        let shown = show(broker, id).await;
        (shown["state"] == state).then_some(shown)
    })
    .await
}

async fn findings(broker: &TestBroker) -> Value {
    let found = operator(broker, Method::GET, "/reconciliation").await;
    assert_eq!(found.status, StatusCode::OK, "{found:?}");
    found.body["findings"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_are_listed_by_what_is_asked_for_and_shown_in_full() {
    let script = Script::default();
    let broker = broker_with(Database::in_memory(), &script, waiting()).await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    let fails = script.trip(OperationKind::Provision, "start", Fault::Fail);
    let id = begin(&broker, "j").await;
    let shown = waits(&broker, &id).await;
    assert_eq!(shown["state"], "queued", "{shown}");
    assert_eq!(shown["trouble"]["tries"], 1, "{shown}");
    assert_eq!(shown["trouble"]["reason"], "a deliberate fault", "{shown}");
    assert!(
        text(&shown["description"]).contains("; 2nd try, since "),
        "{shown}"
    );
    assert_eq!(shown["left_behind"], json!([]), "{shown}");
    let steps: Vec<Value> = shown["steps"].as_array().expect("steps").clone();
    let titles: Vec<&str> = steps.iter().map(|step| text(&step["title"])).collect();
    assert_eq!(
        titles,
        [
            "Reserving ports and making certificates",
            "Starting the members"
        ]
    );
    let told = steps.iter().map(|step| {
        json!([
            step["name"],
            step["done"],
            step["failures"],
            step["last_error"]
        ])
    });
    assert_eq!(
        told.collect::<Vec<_>>(),
        [
            json!(["allocate", true, 0, null]),
            json!(["start", false, 1, "a deliberate fault"])
        ]
    );
    let held = script.hold(OperationKind::Bind, "issue");
    let body = json!({ "service_id": SERVICE, "plan_id": STANDARD });
    let path = format!("{}?accepts_incomplete=true", binding_path("i", "c"));
    let bound = answer(broker.osb(Method::PUT, &path).json(&body)).await;
    let running = becomes(&broker, text(&bound.body["operation"]), "running").await;
    assert!(running["lease"]["owner"].is_string(), "{running}");
    drop(held);

    let kinds = |listed: Vec<Value>| -> Vec<String> {
        let kinds = listed.iter().map(|each| text(&each["kind"]).to_owned());
        kinds.collect()
    };
    Inside::of(&broker).idle("i").await;
    // What it came to is forgotten, and that it was done is not.
    let ended = becomes(&broker, text(&bound.body["operation"]), "succeeded").await;
    let steps = ended["steps"].as_array().expect("steps");
    let is_done = |step: &Value| step["done"] == true && step["took_seconds"].is_u64();
    assert!(!steps.is_empty() && steps.iter().all(is_done), "{ended}");
    assert_eq!(
        kinds(list(&broker, "").await),
        ["bind", "provision", "bind", "provision"]
    );
    for (query, expected) in [
        ("?state=queued", vec!["provision"]),
        ("?kind=bind", vec!["bind", "bind"]),
        ("?instance=j", vec!["provision"]),
        ("?state=succeeded&kind=provision", vec!["provision"]),
        ("?older_than=3600", vec![]),
        ("?older_than=0&limit=1", vec!["bind"]),
        ("?state=stuck", vec![]),
    ] {
        assert_eq!(kinds(list(&broker, query).await), expected, "{query}");
    }
    // Page by page.
    let mut seen = Vec::new();
    let mut query = "?limit=3".to_owned();
    loop {
        let page = operator(&broker, Method::GET, &format!("/operations{query}")).await;
        let listed = page.body["operations"].as_array().expect("a list").clone();
        seen.extend(listed.iter().map(|each| text(&each["id"]).to_owned()));
        match page.body["next_before"].as_str() {
            Some(next) => query = format!("?limit=3&before={next}"),
            None => break,
        }
    }
    let all = list(&broker, "").await;
    let all: Vec<&str> = all.iter().map(|each| text(&each["id"])).collect();
    assert_eq!(seen, all);

    for query in [
        "?state=lost",
        "?kind=lunch",
        "?older_than=-1",
        "?older_than=x",
        "?before=x",
        "?before=",
        "?older_than=2147483648",
        "?limit=0",
        "?limit=201",
    ] {
        let refused = operator(&broker, Method::GET, &format!("/operations{query}")).await;
        assert_eq!(
            refused.status,
            StatusCode::BAD_REQUEST,
            "{query}: {refused:?}"
        );
    }
    // It may have been known.
    let unknown = "/operations?before=000000000000000000000000";
    let unknown = operator(&broker, Method::GET, unknown).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND, "{unknown:?}");
    for word in ["", "/retry", "/abandon"] {
        let method = if word.is_empty() {
            Method::GET
        } else {
            Method::POST
        };
        let path = format!("/operations/000000000000000000000000{word}");
        let unknown = operator(&broker, method.clone(), &path).await;
        assert_eq!(unknown.status, StatusCode::NOT_FOUND, "{unknown:?}");
        let stranger = broker.anonymous(method, &format!("/operator{path}"));
        assert_eq!(answer(stranger).await.status, StatusCode::UNAUTHORIZED);
    }
    must_not(
        &broker,
        text(&bound.body["operation"]),
        "retry",
        "it has ended",
    )
    .await;
    must_not(
        &broker,
        text(&bound.body["operation"]),
        "abandon",
        "it has ended",
    )
    .await;

    // What operators see holds no secret.
    drop(fails);
    let mut told = format!("{all:?}");
    for id in &all {
        told += &show(&broker, id).await.to_string();
    }
    let inside = Inside::of(&broker);
    let (_, secrets) = inside.deployment("i").await.expect("a deployment");
    let root = secrets.expect("secrets").root_password;
    let token = text(&credentials["instance_administration_api"]["token"]);
    for secret in [
        etcd::password(&credentials).as_str(),
        token,
        root.expose(),
        "PRIVATE KEY",
    ] {
        assert!(!told.contains(secret));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_tried_again_at_an_operators_word() {
    let script = Script::default();
    let broker = broker_with(Database::in_memory(), &script, waiting()).await;
    let fails = script.trip(OperationKind::Provision, "start", Fault::Fail);
    let id = begin(&broker, "i").await;
    waits(&broker, &id).await;
    drop(fails);
    must(&broker, &id, "retry").await;
    becomes(&broker, &id, "succeeded").await;
    broker.bind("i", "b").await;

    let audit = operator(&broker, Method::GET, "/audit?instance=i").await;
    let entries = audit.body["entries"].as_array().expect("entries");
    let retried = entries.iter().find(|entry| entry["action"] == "retry");
    let retried = retried.expect("an entry");
    assert_eq!(retried["operation"], json!(id), "{retried}");
    assert_eq!(retried["origin"], "operator", "{retried}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stuck_tells_what_is_left_and_is_cleaned_up_at_an_operators_word() {
    let script = Script::default();
    let broker = broker_with(Database::Etcd, &script, little_patience()).await;
    let fails = script.fail(OperationKind::Provision, "secure");
    let cannot = script.fail(OperationKind::Provision, "cleanup_members");
    let id = begin(&broker, "i").await;
    let stuck = becomes(&broker, &id, "stuck").await;
    let left = stuck["left_behind"].as_array().expect("a list");
    assert_eq!(left.len(), 4, "a folder and three members: {stuck}");
    assert!(
        text(&left[1]).starts_with("member m0 of deployment "),
        "{stuck}"
    );
    assert!(!files_of_deployments(&broker).is_empty());
    drop((fails, cannot));
    must(&broker, &id, "retry").await;
    let ended = becomes(&broker, &id, "failed").await;
    assert_eq!(ended["left_behind"], json!([]), "{ended}");
    assert_eq!(files_of_deployments(&broker), Vec::<String>::new());
    assert_eq!(broker.members(), Vec::<i32>::new());
    must_not(&broker, &id, "retry", "it has ended").await;
    broker.deprovision("i").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_made_since_is_removed_by_what_is_tried_again() {
    let script = Script::default();
    let broker = broker_with(Database::in_memory(), &script, little_patience()).await;
    let fails = script.fail(OperationKind::Provision, "secure");
    let cannot = script.fail(OperationKind::Provision, "cleanup_members");
    let id = begin(&broker, "i").await;
    becomes(&broker, &id, "stuck").await;
    drop((fails, cannot));
    // A deletion removes what is left, so nothing is stuck any more.
    broker.deprovision("i").await;
    becomes(&broker, &id, "failed").await;
    broker.provision("i", json!({})).await;
    must_not(&broker, &id, "retry", "it has ended").await;

    // The same where the deletion has not come to its end.
    let fails = script.fail(OperationKind::Bind, "issue");
    let cannot = script.fail(OperationKind::Bind, "cleanup_user");
    let body = json!({ "service_id": SERVICE, "plan_id": STANDARD });
    let path = format!("{}?accepts_incomplete=true", binding_path("i", "b"));
    let bound = answer(broker.osb(Method::PUT, &path).json(&body)).await;
    let id = text(&bound.body["operation"]).to_owned();
    becomes(&broker, &id, "stuck").await;
    drop((fails, cannot));
    let held = script.hold(OperationKind::Unbind, "remove_user");
    let query = format!("accepts_incomplete=true&service_id={SERVICE}&plan_id={STANDARD}");
    let path = format!("{}?{query}", binding_path("i", "b"));
    let unbound = answer(broker.osb(Method::DELETE, &path)).await;
    assert_eq!(unbound.status, StatusCode::ACCEPTED, "{unbound:?}");
    must_not(&broker, &id, "retry", "was asked for since").await;
    drop(held);
    becomes(&broker, &id, "failed").await;
    broker.bind("i", "b").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_is_cleaned_up_and_given_up_again_it_is_left_and_told_of() {
    let script = Script::default();
    let broker = broker_with(Database::Etcd, &script, waiting()).await;
    let fails = script.trip(OperationKind::Provision, "secure", Fault::Fail);
    let cannot = script.trip(OperationKind::Provision, "cleanup_members", Fault::Fail);
    let id = begin(&broker, "i").await;
    waits(&broker, &id).await;
    let given_up = must(&broker, &id, "abandon").await;
    assert_eq!(given_up["cleaning_up"], true, "{given_up}");
    let failure = "an operator gave it up: 2nd try, since ";
    assert!(
        text(&given_up["failure"]).starts_with(failure),
        "{given_up}"
    );
    let cleaning = eventually("a clean-up that waits", || async {
        let shown = show(&broker, &id).await;
        let told = text(&shown["description"]);
        told.contains("; 2nd try, since ").then_some(shown)
    })
    .await;
    assert!(text(&cleaning["description"]).starts_with("Cleaning up after: an operator"));
    must(&broker, &id, "abandon").await;
    let left = becomes(&broker, &id, "abandoned").await;
    assert_eq!(
        left["left_behind"].as_array().expect("a list").len(),
        4,
        "{left}"
    );
    must_not(&broker, &id, "abandon", "it has ended").await;
    let inside = Inside::of(&broker);
    let newest = inside.newest("i", OperationKind::Provision).await;
    assert_eq!(newest.state, OperationState::Abandoned);
    let path = format!("{}/last_operation?operation={id}", instance_path("i"));
    let told = answer(broker.osb(Method::GET, &path)).await;
    assert_eq!(told.body["state"], "failed", "{told:?}");

    // It is listed until it is gone.
    let found = findings(&broker).await;
    assert_eq!(found[0]["finding"], "abandoned", "{found}");
    assert_eq!(found[0]["operation"], json!(id), "{found}");
    assert_eq!(found[0]["left"], left["left_behind"], "{found}");
    drop((fails, cannot));
    broker.deprovision("i").await;
    assert_eq!(findings(&broker).await, json!([]));
    assert_eq!(files_of_deployments(&broker), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_cannot_be_done_is_stuck_and_goes_on_at_an_operators_word() {
    let script = Script::default();
    let broker = broker_with(Database::Etcd, &script, little_patience()).await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    broker.back_up(&credentials).await;
    Inside::of(&broker).idle("i").await;
    let cannot = script.trip(OperationKind::Deprovision, "delete_backups", Fault::Fail);
    let accepted = broker.delete_instance("i").await;
    let id = text(&accepted.body["operation"]).to_owned();
    let stuck = becomes(&broker, &id, "stuck").await;
    let left = stuck["left_behind"].to_string();
    assert!(left.contains("backup "), "{stuck}");
    must(&broker, &id, "abandon").await;
    becomes(&broker, &id, "abandoned").await;
    assert_eq!(findings(&broker).await[0]["finding"], "abandoned");
    drop(cannot);
    must(&broker, &id, "retry").await;
    becomes(&broker, &id, "succeeded").await;
    assert_eq!(findings(&broker).await, json!([]));
    assert_eq!(files_of_deployments(&broker), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_being_worked_on_is_taken_from_its_worker() {
    let broker = TestBroker::start().await;
    broker.provision("i", json!({})).await;
    let members = broker.members();
    let signal = |signal| {
        for pid in &members {
            let pid = rustix::process::Pid::from_raw(*pid).expect("a pid");
            rustix::process::kill_process(pid, signal).expect("a signal");
        }
    };
    signal(rustix::process::Signal::STOP);
    let body = json!({ "service_id": SERVICE, "plan_id": STANDARD });
    let path = format!("{}?accepts_incomplete=true", binding_path("i", "b"));
    let bound = answer(broker.osb(Method::PUT, &path).json(&body)).await;
    let id = text(&bound.body["operation"]).to_owned();
    becomes(&broker, &id, "running").await;
    must_not(&broker, &id, "retry", "at this moment").await;
    must(&broker, &id, "abandon").await;
    signal(rustix::process::Signal::CONT);
    let ended = becomes(&broker, &id, "failed").await;
    assert_eq!(ended["failure"], "an operator gave it up", "{ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_at_a_terminal_has_the_same() {
    let script = Script::default();
    let broker = broker_with(Database::in_memory(), &script, waiting()).await;
    let operator = User::of_broker(&broker);
    let fails = script.trip(OperationKind::Provision, "start", Fault::Fail);
    let id = begin(&broker, "i").await;
    waits(&broker, &id).await;
    let listed = operator
        .does(&[
            "operations",
            "list",
            "--kind",
            "provision",
            "--in-state",
            "queued",
        ])
        .await
        .out;
    assert!(
        listed.contains(&id) && listed.contains("2nd try, since "),
        "{listed}"
    );
    let none = operator
        .asks(&["operations", "list", "--older-than", "3600"])
        .await;
    assert_eq!(none["operations"], json!([]));
    let shown = operator.does(&["operations", "show", &id]).await.out;
    for text in ["Starting the members", "a deliberate fault", "next try:"] {
        assert!(shown.contains(text), "{text}: {shown}");
    }
    // The settings stand wherever they are written.
    let url = broker.url.as_str();
    operator
        .does(&["operations", "show", &id, "--broker", url, "-o", "json"])
        .await;
    operator
        .does(&["operations", "--broker", url, "show", &id])
        .await;
    drop(fails);
    let retried = operator.does(&["operations", "retry", &id]).await;
    assert!(
        retried.err.contains("the broker tries it again now"),
        "{retried:?}"
    );
    becomes(&broker, &id, "succeeded").await;

    let fails = script.trip(OperationKind::Provision, "start", Fault::Fail);
    let other = begin(&broker, "j").await;
    waits(&broker, &other).await;
    operator.does(&["operations", "abandon", &other]).await;
    becomes(&broker, &other, "failed").await;
    drop(fails);
    operator
        .run(&["operations", "retry", &other])
        .await
        .must_say(1, "it has ended");
    operator
        .run(&["operations", "list", "--in-state", "lost"])
        .await
        .must_say(1, "state");
}
