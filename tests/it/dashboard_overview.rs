//! The dashboard's Overview: what a database is, its state, how it is reached.

use std::{process::Command, time::Duration};

use compose_broker::{app::Surroundings, model::limits::READING_STRETCH};
use reqwest::Method;
use serde_json::json;

use crate::{
    broker::{TestBroker, answer, eventually, text},
    chromium::ARROW_RIGHT,
    control::TestClock,
    dashboard::Visit,
    etcd,
    user::User,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_overview_tells_what_a_database_is_and_how_to_reach_it() {
    let broker = TestBroker::start().await;
    broker
        .provision("db", json!({ "db_version": "3.4.23" }))
        .await;
    let credentials = broker.bind("db", "b").await;
    let mut database = etcd::connect(&credentials).await;
    etcd::fill(&mut database, 50, "v").await;
    let visit = Visit::to(broker).await;
    let page = &visit.page;
    visit.sign_in(&credentials).await;
    page.arrives_at("/instances/db").await;

    // Version, and the one that would be newer.
    let version = page.text_of("#version").await;
    assert!(version.contains("3.4.23"), "{version}");
    let newer = page.text_of("#newer-version").await;
    assert!(newer.contains("3.7.3"), "{newer}");

    // Members come a moment later, without anybody's doing; one of three leads.
    eventually("three members and a leader", || async {
        let rows = page
            .eval("[...document.querySelectorAll('#members tbody tr')].map(row => row.innerText)")
            .await;
        let rows: Vec<String> = serde_json::from_value(rows).expect("texts");
        let leads = |row: &&String| row.to_lowercase().contains("leader");
        (rows.len() == 3 && rows.iter().filter(leads).count() == 1).then_some(())
    })
    .await;
    let usage = page.find("#usage").await;
    let used: f64 = usage.property("value").await.as_f64().unwrap_or_default();
    let quota: f64 = usage.property("max").await.as_f64().unwrap_or_default();
    assert!(used > 0.0 && used < quota, "{used} of {quota}");
    page.look_over("overview").await;
    visit.check().await;

    // What was done.
    let tasks = page.text_of("#tasks").await;
    assert!(tasks.to_lowercase().contains("provision"), "{tasks}");

    // The API, by what stands on the page and a token alone.
    let api = &credentials["instance_administration_api"];
    let endpoint = page.text_of("#endpoint").await;
    let root = format!("{}/2016-07/instances/db", text(&api["root"]));
    assert!(
        endpoint.trim_end_matches('/').ends_with(&root),
        "{endpoint}"
    );
    let deployment = page.text_of("#deployment-id").await;
    assert_eq!(deployment, text(&credentials["deployment_id"]));
    let curl = page
        .eval("document.querySelector('#curl').textContent")
        .await;
    let curl = text(&curl).replace("TOKEN", text(&api["token"]));
    let ran = Command::new("bash")
        .args(["--norc", "-euc", &curl])
        .output();
    let ran = ran.expect("bash");
    let printed: serde_json::Value =
        serde_json::from_slice(&ran.stdout).unwrap_or_else(|e| panic!("{curl}: {ran:?}: {e}"));
    let path = format!("/deployments/{deployment}/backups");
    let expected = answer(visit.broker.compose(Method::GET, &credentials, &path)).await;
    assert_eq!(printed, expected.body);

    // One tab at a time, by mouse and by arrow.
    let tabs = page.all("#connect [role=tab]").await;
    assert_eq!(tabs.len(), 3);
    for tab in &tabs {
        tab.click().await;
        let panels = page
            .eval("[...document.querySelectorAll('#connect [role=tabpanel]')].filter(p => p.checkVisibility()).length")
            .await;
        assert_eq!(panels, 1);
        assert_eq!(
            tab.attribute("aria-selected").await.as_deref(),
            Some("true")
        );
    }
    tabs[0].click().await;
    page.press([ARROW_RIGHT]).await;
    assert_eq!(page.focused().await.id, tabs[1].id);

    page.click("button", "Defragment").await;
    page.says("#tasks", "Defragment the database").await;
    page.check(&visit.broker.url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_overview_tells_what_somebody_should_do_something_about() {
    let clock = TestClock::default();
    let surroundings = Surroundings {
        // Nobody takes the backup that is due.
        scheduled: false,
        ..clock.surroundings()
    };
    let broker = TestBroker::start_with(&[], surroundings).await;
    broker.provision("db", json!({})).await;
    let credentials = broker.bind("db", "b").await;
    let visit = Visit::to(broker).await;
    let page = &visit.page;
    visit.sign_in(&credentials).await;
    page.arrives_at("/instances/db").await;
    page.find("#members").await;
    assert_eq!(page.text_of("#alerts").await, "");
    clock.forward(Duration::from_secs(3 * 24 * 3600));
    visit.sign_in(&credentials).await;
    page.arrives_at("/instances/db").await;
    page.find("#alerts li").await;
    let alerts = page.text_of("#alerts").await;
    assert!(
        alerts.contains("Critical The scheduled backup is late"),
        "{alerts}"
    );
    page.look_over("alerts").await;
    visit.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_overview_draws_how_the_database_was() {
    let clock = TestClock::default();
    let broker = TestBroker::in_memory_with(&[], clock.surroundings()).await;
    let user = User::of_broker(&broker);
    broker.provision("db", json!({})).await;
    let credentials = broker.bind("db", "b").await;
    let path = format!(
        "/deployments/{}/history",
        text(&credentials["deployment_id"])
    );
    let readings = async || {
        let told = answer(broker.compose(Method::GET, &credentials, &path)).await;
        let readings = told.body["_embedded"]["readings"].as_array();
        readings.cloned().unwrap_or_default()
    };
    let stretch = READING_STRETCH.to_std().expect("a time");
    for count in 1..=3 {
        eventually("a reading", || async {
            (readings().await.len() >= count).then_some(())
        })
        .await;
        clock.forward(stretch);
    }
    let newest = &readings().await[0];
    assert_eq!(newest["usable"], true, "{newest}");
    assert_eq!(newest["members_serving"], newest["members"], "{newest}");
    let listed = user.does(&["history", "db"]).await.out;
    assert!(
        listed.starts_with("FROM ") && listed.contains(" of "),
        "{listed}"
    );

    let visit = Visit::to(broker).await;
    let page = &visit.page;
    visit.sign_in(&credentials).await;
    page.arrives_at("/instances/db").await;
    page.says("#history", "All members served whenever the broker looked.")
        .await;
    assert!(!page.all("#history svg .whole-time").await.is_empty());
    page.click_in("#history", "tab", "Last 30 days").await;
    page.find("#history svg").await;
    page.look_over("overview-history").await;
    visit.check().await;
}
