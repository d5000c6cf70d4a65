//! The operator's pages, in a real browser: all instances, operations, late backups, clusters, the audit.

use std::time::Duration;

use compose_broker::{app::Surroundings, model::operation::OperationKind, operation::fault::Fault};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    broker::{SERVICE, STANDARD, TestBroker, answer, eventually, instance_path, text},
    chromium::{Chromium, ENTER},
    control::{Script, TestClock},
    dashboard::Visit,
    inside::Inside,
    pages::Visitor,
};

/// A broker whose clock the test has, and that begins nothing by itself.
async fn broker_at(clock: &TestClock, script: &Script) -> TestBroker {
    let surroundings = Surroundings {
        scheduled: false,
        ..script.surroundings_at(clock)
    };
    TestBroker::in_memory_with(&[], surroundings).await
}

/// Where each of the numbers at the top stands.
async fn places(page: &Chromium) -> Vec<(f64, f64)> {
    let places = page
        .eval(
            "[...document.querySelectorAll('#counts a')]
                .map(a => a.getBoundingClientRect()).map(box => [box.left, box.top])",
        )
        .await;
    serde_json::from_value(places).expect("places")
}

/// The instances that the list shows, in its order.
async fn listed(page: &Chromium) -> Vec<String> {
    let names = page
        .eval("[...document.querySelectorAll('#instances tbody td:first-child a')].map(a => a.innerText)")
        .await;
    serde_json::from_value(names).expect("texts")
}

async fn operation(broker: &TestBroker, id: &str) -> Value {
    let path = format!("/operator/operations/{id}");
    answer(broker.osb(Method::GET, &path)).await.body
}

async fn becomes(broker: &TestBroker, id: &str, state: &str) {
    eventually(state, || async {
        (operation(broker, id).await["state"] == state).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_finds_instances_by_what_is_the_matter_with_them() {
    let (clock, script) = (TestClock::default(), Script::default());
    let broker = broker_at(&clock, &script).await;
    for id in ["alpha", "beta", "gamma"] {
        broker.provision(id, json!({})).await;
    }
    broker
        .provision("newer", json!({ "db_version": "3.1.0" }))
        .await;
    let credentials = broker.bind("beta", "b").await;
    broker.back_up(&credentials).await;
    let fails = script.fail(OperationKind::Provision, "allocate");
    let accepted = broker.put_instance("wreck", json!({})).await;
    broker.instance_end("wreck", &accepted.body).await;
    drop(fails);

    let visit = Visit::to(broker).await;
    let page = &visit.page;
    visit.sign_in_as_operator().await;
    page.arrives_at("/dashboard/instances").await;
    // What is not well comes first, and then what is newer. The first look at each may be under way.
    eventually("the worst in front", || async {
        (listed(page).await == ["wreck", "newer", "gamma", "beta", "alpha"]).then_some(())
    })
    .await;
    page.look_over("operator-instances").await;
    visit.check().await;

    // In another order, by a link at the head of each column.
    page.click_in("#instances thead", "link", "Instance").await;
    page.arrives_at("sort=name").await;
    assert_eq!(
        listed(page).await,
        ["alpha", "beta", "gamma", "newer", "wreck"]
    );
    let sorted = page.find("th[aria-sort=ascending]").await;
    let sorted = sorted.name().await;
    assert_eq!(sorted.as_deref().map(str::trim), Ok("Instance"));
    page.click_in("#instances thead", "link", "Instance").await;
    page.arrives_at("reverse=1").await;
    assert_eq!(listed(page).await[0], "wreck");
    page.click_in("#instances thead", "link", "Last backup")
        .await;
    page.arrives_at("sort=backup").await;
    assert_eq!(listed(page).await.last().map(String::as_str), Some("beta"));

    // Held to a version, and to a word beside it.
    page.find("#version").await.choose("3.1.0").await;
    page.click_in("#search", "button", "Search").await;
    page.arrives_at("version=3.1.0").await;
    assert_eq!(listed(page).await, ["newer"]);
    page.says("#how-many", "1 instance").await;
    page.find("#q").await.fill("alpha").await;
    page.press([ENTER]).await;
    page.arrives_at("q=alpha").await;
    page.says("#nothing", "No instance is like that").await;
    page.click("link", "Show all").await;
    page.says("#how-many", "5 instances").await;

    // No number moves when another changes, and no other comes between.
    let before = places(page).await;
    let fails = script.fail(OperationKind::Provision, "allocate");
    let accepted = visit.broker.put_instance("second", json!({})).await;
    visit.broker.instance_end("second", &accepted.body).await;
    drop(fails);
    page.says("#counts", "2 failed").await;
    assert_eq!(places(page).await, before);
    page.says("#counts", "0 down").await;
    visit.broker.deprovision("second").await;
    page.says("#counts", "1 failed").await;

    // The number of what is bad leads to it.
    page.click_in("#counts", "link", "1 failed").await;
    page.arrives_at("health=failed").await;
    assert_eq!(listed(page).await, ["wreck"]);
    page.look_over("operator-instances-failed").await;
    visit.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_finds_what_was_done_by_the_name_of_an_instance() {
    let broker = TestBroker::in_memory().await;
    for (id, name) in [("one", "orders"), ("two", "carts"), ("three", "carts")] {
        let body = json!({
            "service_id": SERVICE, "plan_id": STANDARD,
            "organization_guid": "org", "space_guid": id,
            "context": { "platform": "cloudfoundry", "instance_name": name },
        });
        let path = format!("{}?accepts_incomplete=true", instance_path(id));
        let accepted = answer(broker.osb(Method::PUT, &path).json(&body)).await;
        broker.instance_end(id, &accepted.body).await;
    }
    let visitor = Visitor::operator(&broker).await;
    for (page, row) in [("operations", "operation-"), ("audit", "entry-")] {
        let look = async |instance: &str| {
            let path = format!("/dashboard/{page}?instance={instance}");
            visitor.get(&path).await.body
        };
        let rows = |body: &str| body.matches(&format!("<tr id=\"{row}")).count();
        // By name and by id it is the same list.
        let (by_name, by_id) = (look("orders").await, look("one").await);
        assert!(
            rows(&by_name) > 0 && rows(&by_name) == rows(&by_id),
            "{by_name}"
        );
        assert!(!by_name.contains("carts"), "{by_name}");
        let several = look("carts").await;
        assert_eq!(rows(&several), 0, "{several}");
        for id in ["two", "three"] {
            let link = format!("href=\"/dashboard/{page}?instance={id}\"");
            assert!(several.contains(&link), "{several}");
            assert!(rows(&look(id).await) > 0);
        }
        assert!(look("nobody's").await.contains("id=\"nothing\""));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_has_what_is_stuck_tried_again_and_gives_up_what_waits() {
    let (clock, script) = (TestClock::default(), Script::default());
    let broker = broker_at(&clock, &script).await;
    broker.provision("db", json!({})).await;
    let credentials = broker.bind("db", "b").await;
    broker.back_up(&credentials).await;
    Inside::of(&broker).idle("db").await;
    let cannot = script.trip(OperationKind::Deprovision, "delete_backups", Fault::Fail);
    let accepted = broker.delete_instance("db").await;
    let stuck = text(&accepted.body["operation"]).to_owned();
    becomes(&broker, &stuck, "stuck").await;

    let visit = Visit::to(broker).await;
    let page = &visit.page;
    visit.sign_in_as_operator().await;
    page.click_in("#counts", "link", "1 stuck operation").await;
    page.arrives_at("/dashboard/operations?state=stuck").await;
    page.says("#operations", "Deprovision").await;
    page.look_over("operator-operations").await;
    page.click_in("#operations", "link", "Deprovision").await;
    page.arrives_at(&format!("/dashboard/operations/{stuck}"))
        .await;
    page.says("#h-state", "Stuck").await;
    page.says("#steps", "a deliberate fault").await;
    page.says("#left", "backup ").await;
    page.look_over("operator-operation").await;
    visit.check().await;

    // Given up, which nobody does by mistake, and taken up again, all by the keyboard.
    page.tab_to("choice", "Are you sure?").await;
    page.type_text("y").await;
    page.tab_to("button", "Give up").await;
    page.press([ENTER]).await;
    page.says("#h-state", "Given up").await;
    assert_eq!(operation(&visit.broker, &stuck).await["state"], "abandoned");
    drop(cannot);
    page.reload().await;
    page.tab_to("button", "Try again").await;
    page.press([ENTER]).await;
    // The page follows by itself.
    page.says("#h-state", "Succeeded").await;
    page.click("link", "Operations").await;
    page.says("#operations", "Succeeded").await;
    visit.check().await;

    // Who said what is in the audit.
    page.click("link", "Audit").await;
    page.says("#audit", "Operation given up").await;
    page.says("#audit", "Operation tried again").await;
    page.says("#audit", "operator (dashboard)").await;
    page.look_over("operator-audit").await;
    page.find("#instance").await.fill("nobody's").await;
    page.press([ENTER]).await;
    page.says("#nothing", "There is no entry").await;
    visit.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn late_backups_and_clusters_are_told_of() {
    let (clock, script) = (TestClock::default(), Script::default());
    let broker = broker_at(&clock, &script).await;
    for id in ["one", "two"] {
        broker.provision(id, json!({})).await;
    }
    let visit = Visit::to(broker).await;
    let page = &visit.page;
    visit.sign_in_as_operator().await;
    page.click_in("#counts", "link", "0 late backups").await;
    page.says("#nothing", "No scheduled backup is late.").await;
    clock.forward(Duration::from_secs(3 * 24 * 60 * 60));
    page.forget_cookies().await;
    visit.sign_in_as_reader().await;
    page.click_in("#counts", "link", "2 late backups").await;
    page.arrives_at("/dashboard/late-backups").await;
    page.says("#how-many", "2 instances").await;
    page.look_over("operator-late-backups").await;
    // Times count on by the broker's clock, which is days ahead of this machine's.
    page.eval("new Promise(done => setTimeout(done, 2100))")
        .await;
    let late = page.text_of("#late tbody tr [data-label=Late]").await;
    assert!(late.contains(" ago"), "{late}");
    page.click_in("#late", "link", "one").await;
    page.arrives_at("/instances/one/backups").await;

    page.click("link", "Clusters").await;
    page.says("#clusters", "of 4 serve").await;
    page.says("#clusters [data-label=Kind]", "local").await;
    page.says("#volumes", "backups").await;
    page.look_over("operator-clusters").await;
    page.click("link", "2 instances on This machine").await;
    page.arrives_at("cluster=local").await;
    assert_eq!(listed(page).await.len(), 2);
    // Who only reads has nothing to press but what leads on.
    page.says("#read-only", "Read only").await;
    page.click("link", "Operations").await;
    page.click_in("#operations", "link", "Provision").await;
    page.says("#h-state", "Succeeded").await;
    assert!(page.all("#retry, #abandon").await.is_empty());
    visit.check().await;
}

/// To a user who has a token, the operator's pages are like those that nobody has.
#[tokio::test(flavor = "multi_thread")]
async fn the_operator_s_pages_are_nobody_else_s() {
    let broker = TestBroker::in_memory().await;
    broker.provision("mine", json!({})).await;
    let credentials = broker.bind("mine", "b").await;
    let visitor = Visitor::with_token(&broker, &credentials).await;
    let unknown = visitor.get("/dashboard/instances/nobody's").await;
    let accepted = Inside::of(&broker).operations("mine").await;
    let id = accepted[0].id.to_string();
    for path in [
        "instances",
        "operations",
        &format!("operations/{id}"),
        "late-backups",
        "deleted",
        "clusters",
        "audit",
    ] {
        let page = visitor.get(&format!("/dashboard/{path}")).await;
        assert_eq!(page.status, unknown.status, "{path}");
        assert_eq!(page.body, unknown.body, "{path}");
    }
    let csrf = visitor.csrf("/dashboard/instances/mine").await;
    for word in ["retry", "abandon"] {
        let path = format!("/dashboard/operations/{id}/{word}");
        let page = visitor
            .post(&path, &[("csrf", &csrf), ("sure", "yes")])
            .await;
        assert_eq!(page.status, unknown.status, "{path}");
    }
    // And to who has nothing, a way to the door, and from there back.
    let stranger = Visitor::of(&broker);
    let page = stranger.get("/dashboard/operations?state=stuck").await;
    assert_eq!(page.status, reqwest::StatusCode::SEE_OTHER, "{page:?}");
}
