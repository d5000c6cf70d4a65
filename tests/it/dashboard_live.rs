//! Open pages of the dashboard stay true, whatever happens meanwhile, in a real browser.

use std::time::Duration;

use chrono::{DateTime, TimeDelta};
use compose_broker::model::{
    limits::PAGE_REFRESHED_EVERY, operation::OperationKind, relative_time::relative,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::{
    broker::{TestBroker, eventually, text},
    chromium::Chromium,
    control::{Script, surroundings},
    dashboard::Visit,
};

/// How often the page was asked for by itself or by its visitor.
async fn visits(page: &Chromium, path: &str) -> usize {
    let requests = page.requests().await;
    requests.iter().filter(|r| r.url.ends_with(path)).count()
}

/// Waits until the page was asked for once more.
async fn is_asked_for_again(page: &Chromium, path: &str) {
    let before = visits(page, path).await;
    eventually("a page that is asked for again", || async {
        (visits(page, path).await > before).then_some(())
    })
    .await;
}

/// Whether a visitor looks at the page; browsers without a screen never hide one.
async fn set_hidden(page: &Chromium, hidden: bool) {
    page.eval(&format!(
        "Object.defineProperty(document, 'hidden', {{ value: {hidden}, configurable: true }});
         document.dispatchEvent(new Event('visibilitychange'))"
    ))
    .await;
}

fn signal(pid: i32, signal: Signal) {
    let pid = Pid::from_raw(pid).expect("a process");
    kill_process(pid, signal).expect("a signal");
}

async fn is_the_same_page(page: &Chromium) {
    let stayed = page.eval("window.stayed").await;
    assert_eq!(stayed, true, "the page was loaded anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_page_follows_its_instance() {
    let script = Script::default();
    let broker = TestBroker::start_with(&[], script.surroundings()).await;
    let held = script.hold(OperationKind::Provision, "allocate");
    let accepted = broker.put_instance("db", json!({})).await;
    let visit = Visit::to(broker).await;
    let page = &visit.page;
    visit.sign_in_as_operator().await;
    visit.open("db", "").await;
    page.eval("window.stayed = true").await;
    page.says("#state-text", "Changing").await;
    assert!(page.all("#connect").await.is_empty());

    // Cards come with what they are about.
    drop(held);
    page.says("#state-text", "Ready").await;
    page.find("#connect [role=tab]").await;
    page.find("#defragment").await;
    visit.broker.instance_end("db", &accepted.body).await;
    page.says("#members", "leader").await;
    page.says("#usage-now", "allocated").await;

    // What a visitor did stays.
    page.click("tab", "Command line").await;
    is_asked_for_again(page, "/instances/db").await;
    let tab = page.focused().await;
    assert_eq!(tab.name().await.as_deref(), Ok("Command line"));
    assert_eq!(
        tab.attribute("aria-selected").await.as_deref(),
        Some("true")
    );
    assert_eq!(page.all("[role=tab]").await.len(), 3);

    // Nothing is under way, and the page sees it all the same.
    let members = visit.broker.members();
    signal(members[0], Signal::STOP);
    page.says("#state-text", "Degraded").await;
    page.says("#members", "does not answer").await;
    page.find("#defragment").await;
    // Without a majority the living one is not said to be silent: it answers.
    signal(members[1], Signal::STOP);
    page.says("#state-text", "Down").await;
    page.says("#members", "answers, but has no majority behind it")
        .await;
    page.says("#no-defragmentation", "until enough members serve")
        .await;
    page.says("#usage-unknown", "no member says how much it holds")
        .await;
    assert!(page.all("#defragment").await.is_empty());
    page.look_over("down").await;
    for member in &members[..2] {
        signal(*member, Signal::CONT);
    }
    page.says("#state-text", "Ready").await;
    page.find("#defragment").await;

    // Nobody looks: nothing is asked for. Somebody looks again: at once.
    set_hidden(page, true).await;
    page.eval("fetch('/healthz')").await;
    let before = visits(page, "/instances/db").await;
    let twice = 2 * PAGE_REFRESHED_EVERY + Duration::from_secs(1);
    page.eval(&format!(
        "new Promise(done => setTimeout(done, {}))",
        twice.as_millis()
    ))
    .await;
    // One may have been on its way.
    assert!(visits(page, "/instances/db").await <= before + 1);
    visit.broker.bind("db", "b").await;
    set_hidden(page, false).await;
    page.says("#tasks", "Bind").await;
    is_the_same_page(page).await;
    visit.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_page_says_when_the_broker_is_gone() {
    let broker = TestBroker::start().await;
    broker.provision("db", json!({})).await;
    let mut visit = Visit::to(broker).await;
    visit.sign_in_as_operator().await;
    visit.open("db", "").await;
    visit.page.eval("window.stayed = true").await;
    visit.page.says("#members", "leader").await;
    visit.page.check(&visit.broker.url).await;

    visit.broker.stop().await;
    visit
        .page
        .says("#contact", "No contact with the broker since ")
        .await;
    visit.page.says("#contact", " UTC, ").await;
    visit
        .page
        .says("#contact", "if its machine is gone, those on it are too")
        .await;
    visit.page.says("#contact", "since 20").await;
    let ago = visit.page.find("#contact [data-ago]").await;
    eventually("how long ago that is", || async {
        let told = ago.property("textContent").await;
        told.as_str()
            .is_some_and(|told| told.ends_with("seconds ago"))
            .then_some(())
    })
    .await;
    visit.page.says("#members", "leader").await;
    // It is told to those who do not see it, and times count on.
    let contact = visit.page.find("#contact").await;
    assert_eq!(contact.attribute("role").await.as_deref(), Some("status"));
    let seen = visit.page.text_of(".seen [data-ago]").await;
    eventually("a time that counts on", || async {
        (visit.page.text_of(".seen [data-ago]").await != seen).then_some(())
    })
    .await;
    // Nothing is green that nobody has seen.
    visit.page.says("#state", "? Unknown, was Ready").await;
    assert_eq!(visit.page.eval("document.title").await, "No contact: db");
    let filter = "getComputedStyle(document.querySelector('main')).filter";
    assert_eq!(visit.page.eval(filter).await, "grayscale(1)");
    visit.page.look_over("no-contact").await;

    let address = visit.broker.url.trim_start_matches("http://").to_owned();
    visit.broker.change_flag("--listen", &address);
    visit.broker.start_again(surroundings()).await;
    eventually("contact again", || async {
        visit
            .page
            .text_of("#contact")
            .await
            .is_empty()
            .then_some(())
    })
    .await;
    visit.page.says("#state-text", "Ready").await;
    let title = visit.page.eval("document.title").await;
    assert!(text(&title).starts_with("db: Ready"), "{title}");
    is_the_same_page(&visit.page).await;
    for complaint in visit.page.complaints().await {
        assert!(complaint.contains("ERR_CONNECTION"), "{complaint}");
    }
    visit.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_page_says_when_its_instance_was_deleted() {
    let script = Script::default();
    let broker = TestBroker::start_with(&[], script.surroundings()).await;
    broker.provision("mine", json!({})).await;
    let credentials = broker.bind("mine", "b").await;
    let visit = Visit::to(broker).await;
    let page = &visit.page;

    // The session ends with its instance, and the page knows which of the two it was.
    visit.sign_in(&credentials).await;
    page.arrives_at("/instances/mine").await;
    page.eval("window.stayed = true").await;
    let held = script.hold(OperationKind::Deprovision, "destroy");
    visit.broker.delete_instance("mine").await;
    page.says("h1", "mine is being deleted").await;
    drop(held);
    page.says("h1", "mine was deleted").await;
    page.says("#said", "mine was deleted").await;
    page.says("#content", "No backup of it is kept.").await;
    let title = page.eval("document.title").await;
    assert_eq!(text(&title), "mine was deleted");
    is_the_same_page(page).await;
    page.look_over("deleted").await;
    page.check(&visit.broker.url).await;

    // An operator's session goes on.
    visit.broker.provision("other", json!({})).await;
    visit.sign_in_as_operator().await;
    visit.open("other", "/backups").await;
    page.eval("window.stayed = true").await;
    visit.broker.deprovision("other").await;
    page.says("h1", "other was deleted").await;
    // Whose session goes on goes on.
    page.says("#nav-of-broker", "Deleted").await;
    is_the_same_page(page).await;
    page.check(&visit.broker.url).await;

    // A session that ends while its instance goes on is one to sign in again for.
    visit.broker.provision("third", json!({})).await;
    let credentials = visit.broker.bind("third", "b").await;
    visit.sign_in(&credentials).await;
    page.arrives_at("/instances/third").await;
    visit.broker.unbind("third", "b").await;
    page.arrives_at("/dashboard/sign-in?next=").await;
    page.check(&visit.broker.url).await;
}

/// The part of the pages' script that says how far a moment is from now.
fn telling() -> &'static str {
    let script = include_str!("../../assets/script.js");
    let part = script.split_once("// ---- times ----");
    let (part, _) = part
        .and_then(|(_, after)| after.split_once("const countOn"))
        .expect("the part of the script");
    part
}

#[tokio::test(flavor = "multi_thread")]
async fn the_script_tells_times_as_the_broker_does() {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    let edges = [
        0,
        1,
        10,
        MINUTE,
        3 * MINUTE / 2,
        HOUR - MINUTE / 2,
        HOUR,
        3 * HOUR / 2,
        DAY - HOUR / 2,
        DAY,
        3 * DAY / 2,
        14 * DAY - DAY / 2,
        14 * DAY,
        61 * DAY,
        365 * DAY,
        730 * DAY - DAY / 2,
        730 * DAY,
        3650 * DAY,
    ];
    let seconds: Vec<i64> = (edges.into_iter())
        .flat_map(|edge| [edge - 1, edge, edge + 1])
        .flat_map(|seconds| [seconds, -seconds])
        .collect();
    let now = DateTime::from_timestamp(1_700_000_000, 0).expect("a time");
    let expected: Vec<String> = (seconds.iter())
        .map(|ahead| relative(now + TimeDelta::seconds(*ahead), now))
        .collect();
    let page = Chromium::start().await;
    let told = page
        .eval(&format!(
            "(() => {{
                const Date = {{ now: () => {} }};
                {}
                return {seconds:?}.map((ahead) => relative(Date.now() + ahead * 1000));
            }})()",
            now.timestamp_millis(),
            telling()
        ))
        .await;
    let told: Vec<&str> = told.as_array().expect("a list").iter().map(text).collect();
    let both: Vec<(i64, &str)> = seconds.iter().copied().zip(told).collect();
    let expected = expected.iter().map(String::as_str);
    let expected: Vec<(i64, &str)> = seconds.iter().copied().zip(expected).collect();
    assert_eq!(both, expected);
}
