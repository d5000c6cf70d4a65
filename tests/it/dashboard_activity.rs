//! The page of activity, in a real browser: alerts, logs that are followed, tasks, who did what, a member
//! that is replaced.

use reqwest::{Method, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::{
    broker::{TestBroker, answer, eventually, text},
    chromium::{ENTER, NARROW, SPACE},
    dashboard::Visit,
    pages::Visitor,
};

const PAGE: &str = "/dashboard/instances/db/activity";

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_followed_and_the_audit_tells_who_did_what() {
    let broker = TestBroker::start().await;
    broker.provision("db", json!({})).await;
    let credentials = broker.bind("db", "b").await;
    let visit = Visit::to(broker).await;
    let page = &visit.page;
    visit.sign_in(&credentials).await;
    page.click("link", "Activity").await;
    page.arrives_at("/instances/db/activity").await;
    page.says("#state-text", "Ready").await;
    page.says("#audit", "Provision").await;
    page.says("#audit", "the platform").await;
    page.says("#tasks", "Bind").await;
    let audit = page.text_of("#audit").await;
    assert!(!audit.contains("127.0.0.1"), "for operators alone: {audit}");
    assert!(page.all("#repair").await.is_empty());
    page.look_over("activity").await;
    visit.check().await;

    let name = page.text_of("#logs tbody th").await;
    page.click("link", &format!("See the end of {name}")).await;
    page.says("#h-log", &format!("The end of {name}")).await;
    let lines = page.text_of("#lines").await;
    assert!(lines.lines().count() > 3, "{lines}");
    let (_, password) = broker_login(&credentials);
    assert!(!page.text().await.contains(&password));
    page.says("#log-says", "It follows what is printed.").await;
    page.look_over("activity-log").await;

    // All members start anew with another size, and print so; nobody loads the page.
    page.eval("window.stayed = true").await;
    let path = format!(
        "/deployments/{}/scalings",
        text(&credentials["deployment_id"])
    );
    let scaled = visit.broker.compose(Method::POST, &credentials, &path);
    let scaled = answer(scaled.json(&json!({ "deployment": { "units": 2 } }))).await;
    assert_eq!(scaled.status, StatusCode::OK, "{scaled:?}");
    eventually("new lines", || async {
        (page.text_of("#lines").await != lines).then_some(())
    })
    .await;
    assert_eq!(page.eval("window.stayed").await, true);

    // It stands still when one wants it to, and goes on again.
    page.click("link", "Let the page stand still").await;
    page.says("#log-says", "This page stands still.").await;
    assert_eq!(page.eval("document.body.dataset.every ?? ''").await, "");
    page.click("link", "Follow what is printed").await;
    page.says("#log-says", "It follows what is printed.").await;
    page.click("link", "Close it").await;
    eventually("no log", || async {
        page.all("#log").await.is_empty().then_some(())
    })
    .await;
    page.says("#audit", "Look into a log").await;
    visit.check().await;

    // What is the matter comes by itself, with since when.
    page.says("#tasks tbody tr:first-child", "Succeeded").await;
    let members = visit.broker.members();
    let pid = Pid::from_raw(members[0]).expect("a process");
    page.says("#state-text", "Ready").await;
    kill_process(pid, Signal::STOP).expect("a signal");
    page.says("#alerts", "does not answer").await;
    page.says("#alerts", "Began").await;
    kill_process(pid, Signal::CONT).expect("a signal");
    page.says("#state-text", "Ready").await;
    page.check(&visit.broker.url).await;
}

/// The user and the password in credentials.
fn broker_login(credentials: &serde_json::Value) -> (String, String) {
    let uri = text(&credentials["uri"]);
    let uri: url::Url = uri
        .split(',')
        .next()
        .expect("a URI")
        .parse()
        .expect("a URI");
    let password = uri.password().expect("a password").to_owned();
    (uri.username().to_owned(), password)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_has_a_member_replaced_by_keyboard_alone() {
    let broker = TestBroker::start().await;
    broker.provision("db", json!({})).await;
    let visit = Visit::to(broker).await;
    let page = &visit.page;
    page.resize(NARROW).await;
    visit.sign_in_as_operator().await;
    visit.open("db", "").await;
    page.tab_to("link", "Activity").await;
    page.press([ENTER]).await;
    page.arrives_at("/activity").await;
    page.says("#audit", "127.0.0.1").await;
    page.tab_to(
        "choice",
        "I know that the files of this member are removed.",
    )
    .await;
    page.press([SPACE]).await;
    page.look_over("activity-repair").await;
    page.tab_to("button", "Replace the member").await;
    page.press([ENTER]).await;
    page.arrives_at("/activity#h-tasks").await;
    page.says("#tasks", "Replace member").await;
    eventually("a member that is replaced", || async {
        let tasks = page.text_of("#tasks").await;
        assert!(!tasks.contains("Failed"), "{tasks}");
        (!tasks.contains("it goes on")).then_some(())
    })
    .await;
    visit.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_tasks_are_told_page_by_page_and_none_of_another_instance() {
    let broker = TestBroker::in_memory().await;
    broker.provision("db", json!({})).await;
    broker.bind("db", "former").await;
    broker.deprovision("db").await;
    broker.provision("db", json!({})).await;
    for number in 0..12 {
        broker.bind("db", &format!("b{number}")).await;
        broker.unbind("db", &format!("b{number}")).await;
    }
    let credentials = broker.bind("db", "mine").await;
    let user = Visitor::with_token(&broker, &credentials).await;
    let tasks = |body: &str| -> Vec<String> {
        let rows = body.split("<tr id=\"task-").skip(1);
        rows.map(|row| row.split('"').next().expect("an id").to_owned())
            .collect()
    };
    // 26 of this instance, the oldest of which made it; nothing of the one before.
    let (mut all, mut path) = (Vec::new(), PAGE.to_owned());
    loop {
        let page = user.get(&path).await;
        assert_eq!(page.status, StatusCode::OK, "{path}");
        let of_page = tasks(&page.body);
        assert!((1..=20).contains(&of_page.len()), "{of_page:?}");
        all.extend(of_page);
        assert!(!page.body.contains("former"), "{path}");
        let Some((_, link)) = page.body.split_once("id=\"older-tasks\" href=\"") else {
            break;
        };
        path = link.split('#').next().expect("a path").to_owned();
    }
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!((count, all.len()), (26, 26));

    // The audit of the same, page by page: a sign-in, binds, unbinds, and one creation.
    let (mut makings, mut pages, mut path) = (0, 0, PAGE.to_owned());
    loop {
        let page = user.get(&path).await;
        pages += 1;
        let (_, audit) = page.body.split_once("id=\"audit\"").expect("entries");
        makings += audit.matches("Provision<").count();
        assert!(!audit.contains("Deprovision"), "{audit}");
        assert!(!audit.contains("former"), "{audit}");
        let Some((_, link)) = page.body.split_once("id=\"older-entries\" href=\"") else {
            break;
        };
        path = link
            .split('#')
            .next()
            .expect("a path")
            .replace("&amp;", "&");
    }
    assert_eq!((makings, pages), (1, 2));

    // What is the operator's alone is so for forms that were not shown, too.
    let csrf = user.csrf(PAGE).await;
    let fields = [("csrf", csrf.as_str()), ("member", "m0"), ("sure", "yes")];
    let refused = user.post(&format!("{PAGE}/repair"), &fields).await;
    assert_eq!(refused.status, StatusCode::NOT_FOUND, "{refused:?}");
    let operator = Visitor::operator(&broker).await;
    let csrf = operator.csrf(PAGE).await;
    let unsure = [("csrf", csrf.as_str()), ("member", "m0")];
    let refused = operator.post(&format!("{PAGE}/repair"), &unsure).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{refused:?}");
}
