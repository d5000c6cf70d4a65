//! Polling an instance: what is told of the operations of a life, and for how long.

use std::time::Duration;

use compose_broker::{
    model::operation::OperationKind,
    operation::fault::{Fault, Moment},
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Bench, IDS, refused, state, token};
use crate::{
    broker::{ENTERPRISE, TestBroker, answer, binding_path, eventually, instance_path, text},
    etcd,
    saboteur::Saboteur,
};

/// Tokens that are none of ours; some suites have constant ones.
const FOREIGN: [&str; 8] = [
    "provision",
    "update",
    "deprovision",
    "0123456789abcdef01234567",
    "",
    "%00",
    "x+y%20z",
    "%ff%fe",
];

/// For those who want a deletion that is done to be a 410.
const GONE: &[&str] = &["--deleted-poll", "gone"];

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test(flavor = "multi_thread")]
async fn osb_062_an_operation_is_in_progress_succeeded_or_failed() {
    let bench = Bench::new().await;
    let held = bench.script.hold(OperationKind::Provision, "allocate");
    let accepted = bench.put("i", json!({})).await;
    let running = bench.poll("i", Some(token(&accepted))).await;
    assert_eq!(state(&running), "in progress");
    assert!(!text(&running.body["description"]).is_empty());
    drop(held);
    let end = bench.end("i", &accepted).await;
    assert_eq!(end["state"], "succeeded");
    assert!(!text(&end["description"]).is_empty());
    let failed = bench.fail_to_provision("j").await;
    let failed = bench.poll("j", Some(token(&failed))).await;
    assert_eq!(state(&failed), "failed");
    assert!(!text(&failed.body["description"]).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_063_only_what_never_was_is_a_404() {
    let bench = Bench::new().await;
    for token in [None, Some("deprovision"), Some("0123456789abcdef01234567")] {
        let unknown = bench.poll("i", token).await;
        refused(&unknown, StatusCode::NOT_FOUND);
    }
    bench.fail_to_provision("i").await;
    bench.deprovision("i").await;
    for token in [None, Some("deprovision")] {
        assert_eq!(state(&bench.poll("i", token).await), "succeeded");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_064_gone_is_said_of_deletions_alone() {
    let bench = Bench::with_flags(GONE).await;
    let made = bench.put("i", json!({})).await;
    assert_eq!(bench.end("i", &made).await["state"], "succeeded");
    let held = bench.script.hold(OperationKind::Deprovision, "destroy");
    let deletion = bench.delete_instance("i").await;
    let poll = async || bench.poll("i", Some(token(&made))).await;
    assert_eq!(state(&poll().await), "succeeded");
    drop(held);
    assert_eq!(bench.end("i", &deletion).await["state"], "gone");
    assert_eq!(state(&poll().await), "succeeded");
    let gone = bench.poll("i", Some(token(&deletion))).await;
    assert_eq!(gone.status, StatusCode::GONE);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_065_trouble_that_passes_is_in_progress_and_never_a_400() {
    // Each step fails once before it is done, as if nothing answered.
    let saboteur = Saboteur::everywhere(&[(Moment::Begun, Fault::Fail)]);
    let broker = TestBroker::start_with(&[], saboteur.surroundings()).await;
    let accepted = broker.put_instance("i", json!({})).await;
    let path = format!(
        "{}/last_operation?operation={}",
        instance_path("i"),
        token(&accepted)
    );
    eventually("the end", || async {
        let polled = answer(broker.osb(Method::GET, &path)).await;
        let state = state(&polled);
        assert_ne!(state, "failed", "{polled:?}");
        (state == "succeeded").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_066_how_it_ended_is_remembered_over_restarts_and_for_weeks() {
    let mut bench = Bench::new().await;
    let failed = bench.fail_to_provision("failed").await;
    let made = bench.fail_to_provision("gone").await;
    let deletion = bench.delete_instance("gone").await;
    bench.end("gone", &deletion).await;
    for _ in 0..3 {
        assert_eq!(
            state(&bench.poll("failed", Some(token(&failed))).await),
            "failed"
        );
        assert_eq!(
            state(&bench.poll("gone", Some(token(&made))).await),
            "failed"
        );
        let done = bench.poll("gone", Some(token(&deletion))).await;
        assert_eq!(state(&done), "succeeded");
        assert_eq!(state(&bench.poll("gone", None).await), "succeeded");
        // Four days at a time.
        bench.clock.forward(4 * DAY);
        bench.restart().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_067_a_token_tells_of_its_own_operation() {
    let bench = Bench::new().await;
    bench.fail_to_provision("gone").await;
    bench.deprovision("gone").await;
    let failed = bench.fail_to_provision("i").await;
    let deletion = bench.delete_instance("i").await;
    bench.end("i", &deletion).await;
    let _held = bench.script.hold(OperationKind::Provision, "allocate");
    let newest = bench.put("i", json!({})).await;
    assert_eq!(
        state(&bench.poll("i", Some(token(&failed))).await),
        "failed"
    );
    let done = bench.poll("i", Some(token(&deletion))).await;
    assert_eq!(state(&done), "succeeded");
    for token in [Some(token(&newest)), None] {
        assert_eq!(state(&bench.poll("i", token).await), "in progress");
    }
    // Another instance's token is a foreign one.
    let other = bench.put("j", json!({})).await;
    assert_eq!(state(&bench.poll("gone", None).await), "succeeded");
    assert_eq!(
        state(&bench.poll("gone", Some(token(&other))).await),
        "succeeded"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_068_ids_in_a_poll_are_hints() {
    let bench = Bench::new().await;
    let _held = bench.script.hold(OperationKind::Provision, "allocate");
    let accepted = bench.put("i", json!({})).await;
    let other = format!("plan_id={ENTERPRISE}");
    for query in [
        IDS,
        "service_id=other&plan_id=other",
        "service_id=&plan_id=",
        &other,
    ] {
        let path = format!(
            "{}/last_operation?{query}&operation={}",
            instance_path("i"),
            token(&accepted)
        );
        assert_eq!(state(&bench.get(&path).await), "in progress", "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_069_when_to_ask_again_is_told_in_seconds_while_work_goes_on() {
    let bench = Bench::new().await;
    let held = bench.script.hold(OperationKind::Provision, "allocate");
    let accepted = bench.put("i", json!({})).await;
    let running = bench.poll("i", Some(token(&accepted))).await;
    let pause = running.headers["retry-after"].to_str().expect("ASCII");
    assert!(
        pause.parse::<u32>().is_ok_and(|s| (1..=60).contains(&s)),
        "{pause}"
    );
    let deletion = bench.delete_instance("i").await;
    drop(held);
    bench.end("i", &deletion).await;
    for token in [Some(token(&accepted)), Some(token(&deletion)), None] {
        let done = bench.poll("i", token).await;
        assert_eq!(done.headers.get("retry-after"), None);
    }
}

/// The fields beside state and description.
fn extras(polled: &Value) -> Vec<&str> {
    let fields = polled.as_object().expect("an object").keys();
    fields
        .map(String::as_str)
        .filter(|field| !["state", "description"].contains(field))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_070_usable_and_repeatable_are_said_where_they_mean_something() {
    let bench = Bench::with_instance(json!({})).await;
    let provision = bench.fail_to_provision("j").await;
    let polled = bench.poll("j", Some(token(&provision))).await;
    assert_eq!(extras(&polled.body), Vec::<&str>::new());
    let failing = bench.script.fail(OperationKind::Bind, "issue");
    let bind = bench.put_binding("b", json!({})).await;
    assert_eq!(
        extras(&bench.end_of_binding("b", &bind).await),
        Vec::<&str>::new()
    );
    drop(failing);
    let failing = bench.script.fail(OperationKind::Update, "check");
    let update = bench.patch(json!({ "parameters": { "units": 2 } })).await;
    let end = bench.end("i", &update).await;
    assert_eq!(extras(&end), ["instance_usable", "update_repeatable"]);
    drop(failing);
    let held = bench.script.hold(OperationKind::Deprovision, "destroy");
    let deletion = bench.delete_instance("i").await;
    let polled = bench.poll("i", Some(token(&deletion))).await;
    assert_eq!(extras(&polled.body), Vec::<&str>::new());
    let failing = bench.script.fail(OperationKind::Deprovision, "release");
    drop(held);
    let end = bench.end("i", &deletion).await;
    assert_eq!(end["state"], "failed", "{end}");
    assert_eq!(extras(&end), ["instance_usable"]);
    drop(failing);
    bench.deprovision("i").await;
    let done = bench.poll("i", None).await;
    assert_eq!(state(&done), "succeeded");
    assert_eq!(extras(&done.body), Vec::<&str>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_071_an_instance_whose_update_failed_is_called_usable_and_is() {
    let bench = Bench::with_etcd(json!({ "db_version": "3.5.16" })).await;
    let members = bench.members();
    let failing = bench.script.fail(OperationKind::Update, "check");
    let upgrade = json!({ "parameters": { "db_version": "3.5.30" } });
    let update = bench.patch(upgrade).await;
    let end = bench.end("i", &update).await;
    assert_eq!(end["state"], "failed", "{end}");
    assert_eq!(end["instance_usable"], true, "{end}");
    assert_eq!(end["update_repeatable"], true, "{end}");
    drop(failing);
    // It is there, with its members, and lets people in.
    assert_eq!(bench.fetch("i").await.status, StatusCode::OK);
    assert_eq!(bench.members(), members);
    let credentials = bench.bind("i", "b").await;
    etcd::fill(&mut etcd::connect(&credentials).await, 1, "v").await;
    // A restore that fails leaves the source as it is.
    let backup = bench.back_up(&credentials).await;
    let failing = bench.script.fail(OperationKind::Restore, "fetch");
    let parameters = json!({ "source_service_instance_id": "i", "backup_id": backup["id"] });
    let restore = bench.put("copy", json!({ "parameters": parameters })).await;
    let end = bench.end("copy", &restore).await;
    assert_eq!(
        (&end["state"], end.get("instance_usable")),
        (&json!("failed"), None)
    );
    drop(failing);
    assert_eq!(bench.fetch("i").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_072_a_description_tells_progress_and_nothing_secret() {
    let bench = Bench::new().await;
    let held = bench.script.hold(OperationKind::Provision, "start");
    let accepted = bench.put("i", json!({})).await;
    let poll = async || {
        let polled = bench.poll("i", Some(token(&accepted))).await;
        text(&polled.body["description"]).to_owned()
    };
    let second = eventually("the second step", || async {
        let said = poll().await;
        said.contains("step 2 of 4").then_some(said)
    })
    .await;
    let data = bench.data_dir().display().to_string();
    for secret in ["127.0.0.1", "localhost", &data] {
        assert!(!second.contains(secret), "{second}");
    }
    let failing = bench.script.fail(OperationKind::Provision, "secure");
    drop(held);
    let end = bench.end("i", &accepted).await;
    let said = text(&end["description"]);
    assert_eq!(end["state"], "failed");
    assert!(said.contains("Securing the database"), "{said}");
    for secret in ["127.0.0.1", "localhost", &data] {
        assert!(!said.contains(secret), "{said}");
    }
    drop(failing);
}

/// Trap T1: one suite wants a 410 for the token of a deletion that is done, and a 200 for whatever
/// else is asked with.
#[tokio::test(flavor = "multi_thread")]
async fn osb_t1_a_finished_deletion_is_gone_for_its_token_where_the_operator_wants_it() {
    let bench = Bench::with_flags(GONE).await;
    bench.provision("i", json!({})).await;
    bench.bind("i", "b").await;
    let unbound = bench.delete_binding("b").await;
    bench.end_of_binding("b", &unbound).await;
    let deletion = bench.delete_instance("i").await;
    bench.end("i", &deletion).await;
    let gone = bench.poll("i", Some(token(&deletion))).await;
    assert_eq!(gone.status, StatusCode::GONE);
    assert!(gone.body.is_object());
    let gone = bench.poll_binding("b", Some(token(&unbound))).await;
    assert_eq!(gone.status, StatusCode::GONE);
    for foreign in FOREIGN.map(Some).into_iter().chain([None]) {
        assert_eq!(state(&bench.poll("i", foreign).await), "succeeded");
        assert_eq!(state(&bench.poll_binding("b", foreign).await), "succeeded");
    }
}

/// Service Manager and eden take a 410 for a failure: the one polls on for hours, the other gives up.
#[tokio::test(flavor = "multi_thread")]
async fn osb_t1_a_finished_deletion_has_succeeded() {
    let bench = Bench::with_instance(json!({})).await;
    bench.bind("i", "b").await;
    let unbound = bench.delete_binding("b").await;
    let end = bench.end_of_binding("b", &unbound).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    let deletion = bench.delete_instance("i").await;
    let end = bench.end("i", &deletion).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    let own = (Some(token(&deletion)), Some(token(&unbound)));
    for (instance, binding) in [own, (None, None)] {
        assert_eq!(state(&bench.poll("i", instance).await), "succeeded");
        assert_eq!(state(&bench.poll_binding("b", binding).await), "succeeded");
    }
    assert_eq!(bench.delete_binding("b").await.status, StatusCode::GONE);
    assert_eq!(bench.delete_instance("i").await.status, StatusCode::GONE);
}

/// Trap T2: a poll that is a 400 is a failure for ever to Cloud Foundry.
#[tokio::test(flavor = "multi_thread")]
async fn osb_t2_a_foreign_token_is_as_good_as_none() {
    let bench = Bench::new().await;
    let _held = bench.script.hold(OperationKind::Provision, "allocate");
    bench.put("i", json!({})).await;
    let long = "x".repeat(5_000);
    for foreign in FOREIGN.into_iter().chain([long.as_str()]) {
        let polled = bench.poll("i", Some(foreign)).await;
        assert_eq!(state(&polled), "in progress", "{foreign:.30}");
    }
    // The last one counts, also when it is a foreign one.
    let path = format!(
        "{}/last_operation?operation=x&operation=",
        instance_path("i")
    );
    assert_eq!(state(&bench.get(&path).await), "in progress");
    let nothing = bench
        .get(&format!("{}/last_operation", binding_path("i", "b")))
        .await;
    refused(&nothing, StatusCode::NOT_FOUND);
}
