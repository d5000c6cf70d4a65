//! Work that does not get on: it is told why, is tried again for as long as that may help, keeps
//! nobody else from working, and gives way to a deletion at once.

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
    broker::{TestBroker, answer, binding_path, eventually, instance_path, text},
    control::{Script, little_patience, surroundings},
    inside::Inside,
};

/// Pauses that no test waits for.
const LONG: Tries = Tries {
    first_pause: Duration::from_secs(600),
    longest_pause: Duration::from_secs(600),
    budget: Duration::from_secs(6000),
};

async fn broker_with(script: &Script, patience: Patience, flags: &[&str]) -> TestBroker {
    let surroundings = Surroundings {
        faults: Arc::new(script.clone()),
        patience,
        ..surroundings()
    };
    TestBroker::in_memory_with(flags, surroundings).await
}

/// Asks for an instance; returns where to ask how that goes.
async fn begin(broker: &TestBroker, id: &str) -> String {
    let accepted = broker.put_instance(id, json!({})).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let operation = text(&accepted.body["operation"]);
    format!("{}/last_operation?operation={operation}", instance_path(id))
}

/// Waits until a platform is told `what` of work that goes on.
async fn told(broker: &TestBroker, path: &str, what: &str) -> String {
    eventually(what, || async {
        let answer = answer(broker.osb(Method::GET, path)).await;
        assert_eq!(answer.body["state"], "in progress", "{answer:?}");
        let description = text(&answer.body["description"]);
        description.contains(what).then(|| description.to_owned())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_in_passing_tells_the_try_and_the_reason_and_succeeds_in_the_end() {
    let script = Script::default();
    let broker = broker_with(&script, Patience::default(), &[]).await;
    let fails = script.trip(OperationKind::Provision, "start", Fault::Fail);
    let path = begin(&broker, "i").await;
    // More than the tries of a few seconds.
    let said = told(&broker, &path, "6th try, since ").await;
    assert!(
        said.starts_with("Starting the members (step 2 of 4); "),
        "{said}"
    );
    assert!(said.ends_with(": a deliberate fault"), "{said}");
    let waits = Inside::of(&broker)
        .newest("i", OperationKind::Provision)
        .await;
    assert_eq!(waits.failure, None);
    drop(fails);
    let end = broker.end_of(&path).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    let done = Inside::of(&broker)
        .newest("i", OperationKind::Provision)
        .await;
    assert_eq!(done.trouble, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_an_answer_is_told_why_there_is_none() {
    let script = Script::default();
    let broker = broker_with(&script, Patience::default(), &[]).await;
    broker.provision("i", json!({})).await;
    let fails = script.trip(OperationKind::Bind, "add_user", Fault::Fail);
    let body = json!({ "service_id": crate::broker::SERVICE, "plan_id": crate::broker::STANDARD });
    let bound = answer(broker.osb(Method::PUT, &binding_path("i", "b")).json(&body)).await;
    assert_eq!(bound.status, StatusCode::INTERNAL_SERVER_ERROR, "{bound:?}");
    let said = text(&bound.body["description"]);
    assert!(said.contains("Making the binding's user"), "{said}");
    assert!(said.contains(" try, since "), "{said}");
    assert!(said.ends_with("a deliberate fault"), "{said}");
    drop(fails);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_for_good_says_how_often_and_since_when_and_why() {
    let script = Script::default();
    let broker = broker_with(&script, little_patience(), &[]).await;
    let _fails = script.trip(OperationKind::Provision, "start", Fault::Fail);
    let path = begin(&broker, "i").await;
    let end = broker.end_of(&path).await;
    assert_eq!(end["state"], "failed", "{end}");
    let said = text(&end["description"]);
    assert!(
        said.starts_with("Starting the members failed 5 times since 2"),
        "{said}"
    );
    assert!(said.ends_with(" UTC: a deliberate fault"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shortage_uses_up_no_try() {
    let script = Script::default();
    // Five tries.
    let broker = broker_with(&script, little_patience(), &[]).await;
    let short = script.trip(OperationKind::Provision, "start", Fault::Shortage);
    let path = begin(&broker, "i").await;
    let said = told(&broker, &path, "8th try, since ").await;
    assert!(said.ends_with("a deliberate shortage"), "{said}");
    drop(short);
    let end = broker.end_of(&path).await;
    assert_eq!(end["state"], "succeeded", "{end}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_its_next_try_keeps_nobody_from_working() {
    let script = Script::default();
    let patience = Patience {
        forward: LONG,
        ..little_patience()
    };
    let flags = ["--tenant-operations", "1"];
    let broker = broker_with(&script, patience, &flags).await;
    let fails = script.trip(OperationKind::Provision, "start", Fault::Fail);
    let path = begin(&broker, "waits").await;
    told(&broker, &path, "2nd try, since ").await;
    drop(fails);
    broker.provision("other", json!({})).await;
    told(&broker, &path, "2nd try, since ").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_interrupts_what_waits_for_its_next_try() {
    let script = Script::default();
    let patience = Patience {
        forward: LONG,
        ..little_patience()
    };
    let broker = broker_with(&script, patience, &[]).await;
    let _fails = script.trip(OperationKind::Provision, "secure", Fault::Fail);
    let path = begin(&broker, "i").await;
    told(&broker, &path, "2nd try, since ").await;
    broker.deprovision("i").await;
    assert_eq!(broker.database.files(&broker), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_up_goes_on_until_it_works() {
    let script = Script::default();
    let patience = Patience {
        cleanup: Tries {
            budget: Duration::from_secs(6000),
            ..little_patience().cleanup
        },
        ..little_patience()
    };
    let broker = broker_with(&script, patience, &[]).await;
    let _fails = script.fail(OperationKind::Provision, "secure");
    let cannot = script.trip(OperationKind::Provision, "cleanup_members", Fault::Fail);
    let path = begin(&broker, "i").await;
    let said = told(&broker, &path, "7th try, since ").await;
    let begins = "Cleaning up after: Securing the database failed: a deliberate fault; ";
    assert!(said.starts_with(begins), "{said}");
    drop(cannot);
    let end = broker.end_of(&path).await;
    assert_eq!(end["state"], "failed", "{end}");
    let inside = Inside::of(&broker);
    let ended = inside.newest("i", OperationKind::Provision).await.state;
    assert_eq!(ended, OperationState::Failed);
    assert_eq!(broker.database.files(&broker), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_waits_for_no_clean_up_that_does_not_get_on() {
    let script = Script::default();
    let patience = Patience {
        cleanup: LONG,
        ..little_patience()
    };
    let broker = broker_with(&script, patience, &[]).await;
    let _fails = script.fail(OperationKind::Provision, "secure");
    let _cannot = script.trip(OperationKind::Provision, "cleanup_members", Fault::Fail);
    let path = begin(&broker, "i").await;
    told(&broker, &path, "2nd try, since ").await;
    broker.deprovision("i").await;
    assert_eq!(broker.database.files(&broker), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_database_that_does_not_answer_says_so() {
    let surroundings = Surroundings {
        patience: Patience::default(),
        ..surroundings()
    };
    let broker = TestBroker::start_with(&[], surroundings).await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    let members = broker.members();
    let signal = |signal| {
        for pid in &members {
            let pid = rustix::process::Pid::from_raw(*pid).expect("a pid");
            rustix::process::kill_process(pid, signal).expect("a signal");
        }
    };
    signal(rustix::process::Signal::STOP);
    let path = format!(
        "/deployments/{}/backups",
        text(&credentials["deployment_id"])
    );
    let begun = answer(broker.compose(Method::POST, &credentials, &path)).await;
    assert_eq!(begun.status, StatusCode::ACCEPTED, "{begun:?}");
    let recipe = format!("/recipes/{}", text(&begun.body["id"]));
    let said: Value = eventually("a reason", || async {
        let answer = answer(broker.compose(Method::GET, &credentials, &recipe)).await;
        let said = answer.body["status_detail"].clone();
        text(&said).contains("2nd try").then_some(said)
    })
    .await;
    signal(rustix::process::Signal::CONT);
    let said = text(&said);
    assert!(
        said.starts_with("Taking the snapshot (step 1 of 3); 2nd try, since "),
        "{said}"
    );
    assert!(
        said.contains("asking a member for its data: no answer within "),
        "{said}"
    );
    let end = broker.recipe_end(&credentials, &begun.body).await;
    assert_eq!(end["status"], "complete", "{end}");
}
