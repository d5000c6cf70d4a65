//! The health of an instance: the same word at every interface, and a true one.

use compose_broker::model::operation::OperationKind;
use etcd_client::{AlarmAction, AlarmType};
use reqwest::{Method, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    broker::{TestBroker, answer, encoded, eventually, text},
    control::{Script, surroundings},
    dashboard::Visit,
    inside::Inside,
    pages::{Visitor, between},
    user::User,
};

/// What operators are told of an instance.
async fn told(broker: &TestBroker, instance: &str) -> Value {
    let path = format!("/operator/instances/{instance}");
    let told = answer(broker.osb(Method::GET, &path)).await;
    assert_eq!(told.status, StatusCode::OK, "{told:?}");
    told.body["health"].clone()
}

/// What the list of all instances tells of one.
async fn listed(broker: &TestBroker, instance: &str) -> Value {
    let list = answer(broker.osb(Method::GET, "/operator/instances")).await;
    assert_eq!(list.status, StatusCode::OK, "{list:?}");
    let all = list.body["instances"].as_array().expect("a list").clone();
    let found = all.into_iter().find(|of| of["instance_id"] == instance);
    found.expect("the instance")["health"].clone()
}

/// Waits until an instance is so.
pub async fn becomes(broker: &TestBroker, instance: &str, state: &str) -> Value {
    eventually(&format!("the health {state}"), || async {
        let health = told(broker, instance).await;
        (health["state"] == state).then_some(health)
    })
    .await
}

/// Sends a signal to members.
pub fn signal(members: &[i32], signal: Signal) {
    for pid in members {
        let pid = Pid::from_raw(*pid).expect("a process");
        kill_process(pid, signal).expect("a signal");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_do_not_answer_are_told_of_in_the_same_word_everywhere() {
    let broker = TestBroker::start().await;
    let user = User::of_broker(&broker);
    let key = user.makes_database().await;
    let known = user.asks(&["service", "db"]).await;
    let instance = text(&known["id"]);
    let ready = becomes(&broker, instance, "ready").await;
    assert!(text(&ready["message"]).starts_with("All 3 members have served since "));

    let members = broker.members();
    signal(&members[..1], Signal::STOP);
    let degraded = becomes(&broker, instance, "degraded").await;
    assert!(text(&degraded["message"]).contains("only 2 of 3 members serve;"));
    signal(&members[..2], Signal::STOP);
    becomes(&broker, instance, "down").await;
    signal(&members, Signal::STOP);
    let down = becomes(&broker, instance, "down").await;
    assert!(!down["since"].is_null(), "{down}");
    assert_eq!(down["reason"], "members");
    assert_eq!(ready["reason"], Value::Null);

    // The same word at every interface, whatever the last operation came to.
    let path = format!("/deployments/{}", text(&key["deployment_id"]));
    let deployment = answer(broker.compose(Method::GET, &key, &path)).await;
    assert_eq!(deployment.body["health"]["state"], "down");
    assert_eq!(deployment.body["health"]["reason"], "members");
    let all = answer(broker.compose(Method::GET, &key, "/deployments")).await;
    let first = &all.body["_embedded"]["deployments"][0];
    assert_eq!(first["health"]["state"], "down");
    assert_eq!(listed(&broker, instance).await["state"], "down");
    let service = user.does(&["service", "db"]).await.out;
    assert!(service.contains("health:           Down: "), "{service}");
    let services = user.does(&["services"]).await.out;
    let row = services.lines().nth(1).expect("a row");
    assert!(
        row.contains("Down") && row.contains("create succeeded"),
        "{row}"
    );

    // Operators learn what they can do, and nobody else is told to.
    let operator = Visitor::operator(&broker).await;
    let place = format!("/dashboard/instances/{}", encoded(instance));
    let page = operator.get(&place).await.body;
    assert!(page.contains("id=\"for-operators\""), "{page}");
    let owner = Visitor::with_token(&broker, &key).await;
    let page = owner.get(&place).await.body;
    assert!(page.contains("id=\"health\"") && !page.contains("id=\"for-operators\""));

    // What takes a majority is refused, and not waited for.
    for command in [
        &["defragment", "db"][..],
        &["defragment", "db", "--wait"],
        &["make-room", "db"],
    ] {
        user.run(command).await.must_say(1, "no member answers");
    }
    let rehearsed = user.run(&["defragment", "db", "--dry-run"]).await;
    assert_eq!(rehearsed.code, 1, "{rehearsed:?}");
    assert!(rehearsed.out.contains("no member answers"), "{rehearsed:?}");
    assert!(
        rehearsed.err.contains("would not be defragmented"),
        "{rehearsed:?}"
    );

    // Another size waits for the members, and page and client say so before.
    let operator = Visitor::operator(&broker).await;
    let path = format!(
        "/dashboard/instances/{}/settings?units=2",
        encoded(instance)
    );
    let page = operator.get(&path).await.body;
    let waits = between(&page, "id=\"waits\"", "</p>");
    assert!(waits.contains("does not answer"), "{waits}");
    assert!(waits.contains("only while all of them serve"), "{waits}");
    assert!(page.contains("Change the size") && !page.contains("Nothing is in the way"));
    // A deletion does not: its plan has no last backup.
    let goes = between(&page, "id=\"goes\"", "</ul>");
    assert!(
        goes.contains("The database on 3 members, within a minute."),
        "{goes}"
    );
    let larger = user.does(&["update-service", "db", "-c", r#"{"units":2}"#]);
    let told = larger.await.err;
    assert!(told.contains("db is Down. Members are changed "), "{told}");
    assert!(told.contains("only while all of them serve"), "{told}");
    let service = user.does(&["service", "db"]).await.out;
    let service = service.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        service.contains("Checking that all members serve"),
        "{service}"
    );

    signal(&members, Signal::CONT);
    eventually("the end of the change", || async {
        let told = user.does(&["service", "db"]).await.out;
        told.contains("update succeeded").then_some(())
    })
    .await;
    becomes(&broker, instance, "ready").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_has_just_started_calls_nothing_well_that_it_has_not_seen() {
    let mut broker = TestBroker::start().await;
    broker.provision("db", json!({})).await;
    becomes(&broker, "db", "ready").await;
    broker.stop().await;
    let members = broker.members();
    signal(&members, Signal::STOP);
    broker.start_again(surroundings()).await;
    let first = listed(&broker, "db").await;
    assert!(
        ["unknown", "down"].contains(&text(&first["state"])),
        "{first}"
    );
    // By itself: nobody asks for a look.
    eventually("a look", || async {
        (listed(&broker, "db").await["state"] == "down").then_some(())
    })
    .await;
    let down = becomes(&broker, "db", "down").await;
    assert!(!down["since"].is_null(), "{down}");
    // The next broker counts on from there.
    broker.stop().await;
    broker.start_again(surroundings()).await;
    assert_eq!(becomes(&broker, "db", "down").await, down);
    signal(&members, Signal::CONT);
    becomes(&broker, "db", "ready").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_life_is_told_of_in_its_own_words() {
    let script = Script::default();
    let broker = TestBroker::start_with(&[], script.surroundings()).await;
    let held = script.hold(OperationKind::Provision, "allocate");
    let accepted = broker.put_instance("db", json!({})).await;
    let made = becomes(&broker, "db", "changing").await;
    assert!(text(&made["message"]).starts_with("It is being created, since "));
    drop(held);
    broker.instance_end("db", &accepted.body).await;
    becomes(&broker, "db", "ready").await;
    let held = script.hold(OperationKind::Deprovision, "destroy");
    broker.delete_instance("db").await;
    let deleted = becomes(&broker, "db", "deleting").await;
    assert!(
        text(&deleted["message"]).starts_with("It is being deleted, with its bindings, since ")
    );
    drop(held);

    let failing = script.fail(OperationKind::Provision, "start");
    let accepted = broker.put_instance("failed", json!({})).await;
    broker.instance_end("failed", &accepted.body).await;
    drop(failing);
    let failed = becomes(&broker, "failed", "failed").await;
    assert!(text(&failed["message"]).starts_with("Its creation failed at "));
    assert!(text(&failed["message"]).ends_with("Delete it, and make it anew."));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_database_can_be_read_and_says_so() {
    let broker = TestBroker::start().await;
    // A version that goes on checking rights while it is full.
    broker
        .provision("db", json!({ "db_version": "3.7.3" }))
        .await;
    let credentials = broker.bind("db", "b").await;
    let mut administrator = Inside::of(&broker).administrator("db", &credentials).await;
    let raised = administrator
        .alarm(AlarmAction::Activate, AlarmType::Nospace, None)
        .await;
    raised.expect("an alarm");
    let full = becomes(&broker, "db", "read_only").await;
    assert!(text(&full["message"]).starts_with("It has been full since "));
    let ended = administrator
        .alarm(AlarmAction::Deactivate, AlarmType::Nospace, None)
        .await;
    ended.expect("no alarm");
    becomes(&broker, "db", "ready").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_headline_follows_the_members() {
    let broker = TestBroker::start().await;
    broker.provision("db", json!({})).await;
    let credentials = broker.bind("db", "b").await;
    becomes(&broker, "db", "ready").await;
    broker.back_up(&credentials).await;
    let members = broker.members();
    signal(&members[..2], Signal::STOP);
    becomes(&broker, "db", "down").await;
    let visit = Visit::to(broker).await;
    visit.sign_in(&credentials).await;
    let page = &visit.page;
    page.arrives_at("/instances/db").await;
    page.says("#state-text", "Down").await;
    page.says("#health", "serves; 2 of 3 are needed").await;
    let title = page.eval("document.title").await;
    assert!(text(&title).starts_with("db: Down"), "{title}");
    // What can be done meanwhile, and what cannot.
    page.says(
        "#restore-meanwhile",
        "It can be restored into a new instance",
    )
    .await;
    page.says("#no-defragmentation", "until enough members serve")
        .await;
    assert!(page.all("#defragment").await.is_empty());
    let headline = page.text_of("#health").await;
    assert!(
        headline.to_lowercase().contains("since 20"),
        "a date to be whole: {headline}"
    );
    page.look_over("a headline of what is down").await;
    signal(&members[..2], Signal::CONT);
    // By itself.
    page.says("#state-text", "Ready").await;
    let title = page.eval("document.title").await;
    assert!(text(&title).starts_with("db: Ready"), "{title}");
    visit.check().await;
}
