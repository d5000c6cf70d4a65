//! Room in a database that is full, made from its page in a real browser.

use compose_broker::model::operation::OperationKind;
use etcd_client::{AlarmAction, AlarmType};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{TestBroker, answer, eventually, text},
    control::Script,
    dashboard::Visit,
    etcd,
    health::becomes,
    inside::Inside,
    pages::Visitor,
};

/// The states of all that made room or is to make it.
async fn reliefs(broker: &TestBroker) -> Vec<String> {
    let told = answer(broker.osb(Method::GET, "/operator/operations?kind=relief")).await;
    let all = told.body["operations"].as_array().expect("a list").clone();
    all.iter().map(|of| text(&of["state"]).to_owned()).collect()
}

/// Has room made, unless the broker does that by itself already.
async fn ask_for_room(broker: &TestBroker, credentials: &Value) {
    let deployment = text(&credentials["deployment_id"]);
    let path = format!("/deployments/{deployment}/reliefs");
    let asked = broker.compose(Method::POST, credentials, &path);
    let asked = answer(asked.json(&json!({ "deployment": {} }))).await;
    let is_made = asked.body.to_string().contains("room is being made");
    assert!(asked.status == StatusCode::ACCEPTED || is_made, "{asked:?}");
    assert_ne!(reliefs(broker).await, Vec::<String>::new());
}

async fn keys(credentials: &Value) -> Vec<String> {
    let mut database = etcd::connect(credentials).await;
    let all = etcd::dump(&mut database).await;
    all.into_iter().map(|(key, _)| key).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn room_is_made_on_the_page_of_a_full_database_once_it_is_told_what_goes() {
    let script = Script::default();
    let broker = TestBroker::start_with(&[], script.surroundings()).await;
    // A version that goes on checking rights while it is full.
    broker
        .provision("db", json!({ "db_version": "3.7.3" }))
        .await;
    let credentials = broker.bind("db", "b").await;
    let mut database = etcd::connect(&credentials).await;
    for key in ["/old/1", "/old/2", "/old/3", "/new/1"] {
        database.put(key, "v", None).await.expect("put");
    }
    // Room is made, which is held up here.
    let held = script.hold(OperationKind::Relief, "close");
    let mut administrator = Inside::of(&broker).administrator("db", &credentials).await;
    let raised = administrator.alarm(AlarmAction::Activate, AlarmType::Nospace, None);
    raised.await.expect("an alarm");
    becomes(&broker, "db", "read_only").await;
    ask_for_room(&broker, &credentials).await;

    let visit = Visit::to(broker).await;
    let page = &visit.page;
    visit.sign_in(&credentials).await;
    page.arrives_at("/instances/db").await;
    page.says("#state-text", "Read-only (full)").await;
    page.says("#usage-means", "It is full").await;
    for (link, leads_to) in [("More units", "/settings#h-size"), ("Make room", "/room")] {
        let found = page.named_in("#ways", "link", link).await;
        let href = found.attribute("href").await.expect("an address");
        assert!(href.ends_with(leads_to), "{href}");
    }
    page.look_over("full").await;
    page.find("#prefix").await.fill("/old/").await;
    page.click_in("#look-at-room", "button", "Preview").await;
    page.arrives_at("/instances/db/room?prefix=").await;
    page.says("#effect", "3 keys begin with “/old/” now.").await;
    page.look_over("room").await;

    // Settings and deletion say what is so, too.
    visit.open("db", "/settings").await;
    page.says("#fits", "It is full at 1 unit: ask for 2 or more.")
        .await;
    visit.open("db", "/room?prefix=%2Fold%2F").await;

    // Only one at a time, and the page says so.
    page.find("#sure").await.click().await;
    page.click_in("#make-room", "button", "Make room").await;
    page.says("#message", "Room is being made").await;
    for complaint in page.complaints().await {
        assert!(complaint.contains("status of 409"), "{complaint}");
    }
    assert_eq!(keys(&credentials).await.len(), 4);
    drop(held);
    eventually("room by the broker itself", || async {
        let told = reliefs(&visit.broker).await;
        told.iter().all(|state| state == "succeeded").then_some(())
    })
    .await;
    becomes(&visit.broker, "db", "ready").await;

    visit.open("db", "").await;
    page.click("link", "Make room").await;
    page.arrives_at("/instances/db/room").await;
    page.find("#prefix").await.fill("/old/").await;
    page.click("button", "Preview").await;
    page.says("#effect", "They are deleted for good.").await;
    page.find("#sure").await.click().await;
    page.click_in("#make-room", "button", "Make room").await;
    page.arrives_at("/instances/db").await;
    page.says("#tasks", "Make room in the database").await;
    eventually("the keys are gone", || async {
        (keys(&credentials).await == ["/new/1"]).then_some(())
    })
    .await;
    visit.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_deleted_that_was_not_confirmed_by_who_may() {
    let broker = TestBroker::in_memory().await;
    broker.provision("db", json!({})).await;
    let credentials = broker.bind("db", "b").await;
    let visitor = Visitor::with_token(&broker, &credentials).await;
    let path = "/dashboard/instances/db/room";
    let csrf = visitor.csrf(&format!("{path}?prefix=")).await;
    let page = visitor.get(&format!("{path}?prefix=k")).await;
    assert!(
        page.body.contains("No key begins with “k”."),
        "{}",
        page.body
    );
    let page = visitor.get(&format!("{path}?prefix=")).await;
    assert!(page.body.contains("No key is deleted."), "{}", page.body);
    for (form, status) in [
        (
            &[("csrf", csrf.as_str()), ("prefix", "k")][..],
            StatusCode::BAD_REQUEST,
        ),
        (
            &[("prefix", "k"), ("sure", "yes")][..],
            StatusCode::FORBIDDEN,
        ),
    ] {
        let refused = visitor.post(path, form).await;
        assert_eq!(refused.status, status, "{}", refused.body);
    }
    let long = "k".repeat(2000);
    let refused = visitor.get(&format!("{path}?prefix={long}")).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert!(refused.body.contains("1024 bytes"), "{}", refused.body);
    assert_eq!(reliefs(&broker).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_page_says_what_is_so_while_a_database_is_closed() {
    let script = Script::default();
    let broker = TestBroker::start_with(&[], script.surroundings()).await;
    // A version that checks no rights while it is full.
    broker
        .provision("db", json!({ "db_version": "3.5.35" }))
        .await;
    let credentials = broker.bind("db", "b").await;
    // The broker closes it, and would open it again: there is room.
    let held = script.hold(OperationKind::Relief, "open");
    let mut administrator = Inside::of(&broker).administrator("db", &credentials).await;
    let raised = administrator.alarm(AlarmAction::Activate, AlarmType::Nospace, None);
    raised.await.expect("an alarm");
    ask_for_room(&broker, &credentials).await;
    // Members that start anew are missing for a moment.
    let down = eventually("a database that is closed", || async {
        let health = becomes(&broker, "db", "down").await;
        (health["reason"] == "closed").then_some(health)
    })
    .await;
    let message = text(&down["message"]);
    assert!(message.contains("make room"), "{message}");

    let visitor = Visitor::with_token(&broker, &credentials).await;
    for (path, says) in [
        ("", "closed to its users until there is room"),
        ("", "id=\"look-at-room\""),
        ("", "/instances/db/settings#h-size\">More units</a>"),
        ("/backups", "A backup is taken all the same."),
        ("/credentials", "let nobody in until there is room"),
        ("/credentials", "Usable once there is room"),
        ("/settings", "It is full at 1 unit"),
    ] {
        let path = &format!("/dashboard/instances/db{path}");
        eventually(says, || async {
            let page = visitor.get(path).await;
            page.body.contains(says).then_some(())
        })
        .await;
    }
    let backups = visitor.get("/dashboard/instances/db/backups").await;
    assert!(!backups.body.contains("waits until"), "{}", backups.body);
    drop(held);
    becomes(&broker, "db", "ready").await;
}
