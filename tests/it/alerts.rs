//! Alerts: what goes wrong is told, and is told no more when it is well again.

use compose_broker::model::{
    limits::{
        BACKUP_FAILURES_TELLING, BACKUP_LATE_AFTER, SCHEDULE_RETRY_FIRST, SCHEDULE_RETRY_MAX,
    },
    operation::{Operation, OperationKind, OperationState},
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{TestBroker, answer, eventually, kill, text},
    control::{Script, TestClock},
    inside::Inside,
};

async fn alerts(broker: &TestBroker, credentials: &Value) -> Value {
    let path = format!(
        "/deployments/{}/alerts",
        text(&credentials["deployment_id"])
    );
    let told = answer(broker.compose(Method::GET, credentials, &path)).await;
    assert_eq!(told.status, StatusCode::OK, "{told:?}");
    told.body
}

/// Waits until the whole is told in this word; returns what is told.
pub async fn told(broker: &TestBroker, credentials: &Value, summary: &str) -> Value {
    eventually(&format!("alerts: {summary}"), || async {
        let told = alerts(broker, credentials).await;
        (told["summary"] == summary).then_some(told)
    })
    .await
}

/// Waits until the whole is told in this word, and this is told among it. There may be more: on a
/// busy machine, of members that do not answer in time.
pub async fn told_that(broker: &TestBroker, credentials: &Value, summary: &str, words: &str) {
    eventually(&format!("alerts: {words}"), || async {
        let told = alerts(broker, credentials).await;
        let all = told["_embedded"]["alerts"].as_array()?;
        let said = all
            .iter()
            .any(|alert| text(&alert["message"]).contains(words));
        (told["summary"] == summary && said).then_some(())
    })
    .await;
}

fn is_member(pid: i32, name: &str) -> bool {
    let line = procfs::process::Process::new(pid).and_then(|process| process.cmdline());
    line.is_ok_and(|line| line.contains(&format!("--name={name}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_down_is_told_of_until_it_is_back() {
    let broker = TestBroker::start().await;
    // A version without known faults: there is nothing else to tell.
    for id in ["i", "other"] {
        broker.provision(id, json!({ "db_version": "3.7.3" })).await;
    }
    let credentials = broker.bind("i", "b").await;
    let other = broker.bind("other", "b").await;
    assert_eq!(
        told(&broker, &credentials, "ok").await,
        json!({ "summary": "ok", "_embedded": { "alerts": [] } })
    );
    let deployment = text(&credentials["deployment_id"]).to_owned();
    let of_m1 = |pid: &&i32| {
        let line = procfs::process::Process::new(**pid).and_then(|process| process.cmdline());
        let here = |line: Vec<String>| line.iter().any(|arg| arg.contains(&deployment));
        is_member(**pid, "m1") && line.is_ok_and(here)
    };
    // Started again and again, with pauses that grow.
    let down = eventually("a member that is down", || async {
        broker
            .members()
            .iter()
            .filter(of_m1)
            .for_each(|pid| kill(*pid));
        let told = alerts(&broker, &credentials).await;
        // On a busy machine a look at another member may take too long: that one is told of, too.
        let alerts = told["_embedded"]["alerts"].as_array()?;
        let of_m1 = |alert: &Value| text(&alert["message"]).starts_with("Member m1 ");
        let only_m1 = alerts.len() == 1 && of_m1(&alerts[0]);
        (told["summary"] == "warning" && only_m1).then_some(told)
    })
    .await;
    let alert = &down["_embedded"]["alerts"][0];
    assert_eq!(alert["status"], "warning");
    assert_eq!(alert["deployment_id"], deployment);
    assert_eq!(text(&alert["capsule_id"]).len(), 24, "{alert}");
    told(&broker, &other, "ok").await;
    told(&broker, &credentials, "ok").await;

    // The alerts of others are nobody's affair.
    let path = format!("/deployments/{deployment}/alerts");
    let foreign = answer(broker.compose(Method::GET, &other, &path)).await;
    assert_eq!(foreign.status, StatusCode::NOT_FOUND, "{foreign:?}");
    let posted = answer(broker.compose(Method::POST, &credentials, &path)).await;
    assert_eq!(posted.status, StatusCode::METHOD_NOT_ALLOWED, "{posted:?}");
    let slash = answer(broker.compose(Method::GET, &credentials, &format!("{path}/"))).await;
    assert_eq!(slash.status, StatusCode::OK, "{slash:?}");
}

/// Waits until so many backups of `i` have failed to their end: the next try is on the schedule.
pub async fn failed_backups(inside: &Inside, times: u32) {
    eventually("a failed backup", || async {
        let all = inside.operations("i").await;
        let failed =
            |o: &&Operation| o.kind == OperationKind::Backup && o.state == OperationState::Failed;
        (all.iter().filter(failed).count() == times as usize).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scheduled_backups_that_fail_are_told_of_and_late_ones_more_so() {
    let (clock, script) = (TestClock::default(), Script::default());
    let broker = TestBroker::in_memory_with(&[], script.surroundings_at(&clock)).await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    let failing = script.fail(OperationKind::Backup, "snapshot");
    let inside = Inside::of(&broker);
    let slot = inside.next_scheduled("i").await.expect("a schedule");
    clock.set(slot);
    for times in 1..=BACKUP_FAILURES_TELLING {
        let told = alerts(&broker, &credentials).await;
        assert!(!told.to_string().contains("backup"), "{told}");
        if times > 1 {
            clock.forward(SCHEDULE_RETRY_FIRST * 2u32.pow(times));
        }
        failed_backups(&inside, times).await;
    }
    let told_of = told(&broker, &credentials, "warning").await;
    let alert = &told_of["_embedded"]["alerts"][0];
    assert_eq!(alert["capsule_id"], Value::Null);
    assert_eq!(
        alert["message"],
        "The scheduled backup does not succeed. The last 3 tries failed. The failed backups say why."
    );
    clock.forward(BACKUP_LATE_AFTER);
    // Until then the schedule tries once more. A try that came later would succeed.
    failed_backups(&inside, BACKUP_FAILURES_TELLING + 1).await;
    let told_of = told(&broker, &credentials, "critical").await;
    let message = text(&told_of["_embedded"]["alerts"][0]["message"]);
    assert!(
        message.starts_with("The scheduled backup is late: there is none since"),
        "{message}"
    );
    // A good one puts an end to it; one that a user took does not.
    drop(failing);
    broker.back_up(&credentials).await;
    let still = alerts(&broker, &credentials).await;
    assert_eq!(still["summary"], "critical", "{still}");
    clock.forward(SCHEDULE_RETRY_MAX);
    told(&broker, &credentials, "ok").await;
}
