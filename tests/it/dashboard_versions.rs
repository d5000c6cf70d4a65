//! The page of versions, in a real browser.

use serde_json::json;

use crate::{broker::TestBroker, dashboard::Visit, etcd};

#[tokio::test(flavor = "multi_thread")]
async fn faults_are_told_and_an_upgrade_is_rehearsed_and_done() {
    let broker = TestBroker::start().await;
    broker
        .provision("db", json!({ "db_version": "3.6.16" }))
        .await;
    let credentials = broker.bind("db", "b").await;
    etcd::fill(&mut etcd::connect(&credentials).await, 50, "v").await;
    let visit = Visit::to(broker).await;
    let page = &visit.page;
    visit.sign_in(&credentials).await;
    page.arrives_at("/instances/db").await;
    page.click("link", "1 known fault").await;
    page.says("#h-running", "This instance runs etcd 3.6.16")
        .await;
    let faults = page.text_of("#faults").await;
    for what in ["etcd#18667", "Minor", "3.7.3"] {
        assert!(faults.contains(what), "{faults}");
    }
    page.look_over("versions").await;

    page.click("link", "What an upgrade to 3.7.3 does").await;
    page.shows("Nothing is in the way. The members become 3.7.3")
        .await;
    let notes = page.text_of("#notes").await;
    assert!(notes.contains("A backup is taken first"), "{notes}");
    page.look_over("versions-rehearsal").await;
    visit.check().await;

    page.click("button", "Upgrade to 3.7.3").await;
    page.arrives_at("/instances/db").await;
    page.says("#version", "etcd (3.7.3)").await;
    visit.open("db", "/versions").await;
    page.shows("It has no known faults.").await;
    page.shows("There is none that it can be upgraded to.")
        .await;
    page.look_over("versions-newest").await;
    let mut database = etcd::connect(&credentials).await;
    assert_eq!(etcd::dump(&mut database).await.len(), 50);

    // What would be refused is told with its reason, and there is nothing to press.
    visit.open("db", "/versions?version=3.4.23").await;
    page.shows("The broker would refuse it now").await;
    let reasons = page.text_of("#reasons").await;
    assert!(reasons.contains("older"), "{reasons}");
    assert_eq!(
        page.eval("document.querySelector('#upgrade')").await,
        json!(null)
    );
    page.look_over("versions-refused").await;
    visit.check().await;
}
