//! The page of credentials, in a real browser: made, shown once, rotated, revoked.

use compose_broker::model::operation::OperationKind;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{
    broker::{TestBroker, eventually, text},
    chromium::{Chromium, ENTER, NARROW, SPACE, TAB},
    control::Script,
    dashboard::Visit,
    etcd,
};

/// The credentials that the page shows, whole.
async fn shown(page: &Chromium) -> Value {
    // The form that leads to it may still be sent.
    let whole = eventually("the credentials", || async {
        let whole = page.eval("document.querySelector('#whole')?.textContent");
        whole.await.as_str().map(str::to_owned)
    });
    serde_json::from_str(&whole.await).expect("JSON")
}

/// The address of the only form whose button has that name.
async fn form_of(page: &Chromium, button: &str) -> String {
    let found = page
        .eval(&format!(
            "[...document.querySelectorAll('button')].find(b => \
             (b.getAttribute('aria-label') ?? b.textContent) === {button:?}).form.action"
        ))
        .await;
    text(&found).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_made_shown_once_rotated_and_revoked() {
    let script = Script::default();
    let broker = TestBroker::start_with(&[], script.surroundings()).await;
    broker.provision("db", json!({})).await;
    let credentials = broker.bind("db", "key").await;
    etcd::fill(&mut etcd::connect(&credentials).await, 5, "v").await;
    let visit = Visit::to(broker).await;
    let page = &visit.page;
    visit.sign_in(&credentials).await;
    page.click("link", "Credentials").await;
    page.arrives_at("/instances/db/credentials").await;
    // What a platform asked for is told of, and is the platform's to end.
    page.says("#credentials", "key").await;
    page.says("#credentials", "Replace and end them on the platform")
        .await;
    page.says("#ends-with", "(key)").await;
    page.look_over("credentials").await;
    visit.check().await;

    // Made while one looks on, and shown once.
    page.find("#name").await.fill("reports").await;
    page.find("#role").await.choose("Read only").await;
    page.find("#prefix").await.fill("k").await;
    page.find("#expires").await.choose("in 7 days").await;
    let held = script.hold(OperationKind::Bind, "issue");
    page.click("button", "Make credentials").await;
    page.says("#message", "reports is being made.").await;
    page.look_over("credentials-pending").await;
    drop(held);
    page.says("#message", "reports is ready.").await;
    let list = page.text_of("#credentials").await;
    assert!(list.contains("Reads keys that begin with k"), "{list}");
    assert!(list.contains("in 7 days"), "{list}");
    page.look_over("credentials-ready").await;
    let again = form_of(page, "Show once: reports").await;
    page.click("button", "Show once: reports").await;
    page.says("#once", "They are shown this once.").await;
    let reports = shown(page).await;
    assert_eq!(
        reports["instance_administration_api"],
        Value::Null,
        "no token for who may not read everything"
    );
    assert_eq!(page.text_of("#uris").await.lines().count(), 3);
    let password = page.text_of("#password").await;
    assert!(text(&reports["uri"]).contains(&format!(":{password}@")));
    page.look_over("credentials-shown").await;
    let mut reader = etcd::connect(&reports).await;
    assert!(reader.put("k", "no", None).await.is_err(), "it only reads");
    let csrf = page
        .eval("document.querySelector('[name=csrf]').value")
        .await;
    page.click("link", "Back to all credentials").await;
    page.find("#credentials").await;
    assert!(
        page.all_named("button", "Show once: reports")
            .await
            .is_empty()
    );
    page.check(&visit.broker.url).await;
    // Nor by somebody who kept the form.
    let answer = page
        .eval(&format!(
            "fetch({again:?}, {{ method: 'POST', body: new URLSearchParams({{ csrf: {csrf} }}) }})
                .then(async a => [a.status, await a.text()])"
        ))
        .await;
    assert_eq!(answer[0], 409, "{answer}");
    assert!(text(&answer[1]).contains("shown already"), "{answer}");
    let _ = page.complaints().await;

    // What takes over has the same rights; what it takes over from stays until it is revoked.
    page.click("disclosure", "Rotate reports").await;
    page.click("button", "Make new ones for reports").await;
    page.says("#message", "reports is ready.").await;
    page.click("button", "Show once: reports").await;
    let second = shown(page).await;
    assert_ne!(second["uri"], reports["uri"]);
    page.click("link", "Back to all credentials").await;
    let of_first = format!("#{}", etcd::user(&reports));
    page.find(&format!("#revoke-{} summary", etcd::user(&reports)))
        .await
        .click()
        .await;
    page.look_over("credentials-revoke").await;
    page.find(&format!("#sure-{}", etcd::user(&reports)))
        .await
        .click()
        .await;
    page.click_in(&of_first, "button", "Revoke reports").await;
    eventually("the first is gone", || async {
        page.all(&of_first).await.is_empty().then_some(())
    })
    .await;
    eventually("its user is refused", || async {
        let refused = etcd::connect_to(&reports, "uri").await.is_err();
        refused.then_some(())
    })
    .await;
    let mut second_reader = etcd::connect(&second).await;
    second_reader.get("k", None).await.expect("an answer");
    visit.check().await;

    // They end with the binding whose token let their maker in.
    let unbound = visit.broker.unbind("db", "key").await;
    assert_eq!(unbound.status, StatusCode::OK, "{unbound:?}");
    eventually("what was made with it is refused", || async {
        let refused = etcd::connect_to(&second, "uri").await.is_err();
        refused.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_go_by_keyboard_alone() {
    let broker = TestBroker::start().await;
    broker.provision("db", json!({})).await;
    let visit = Visit::to(broker).await;
    let page = &visit.page;
    page.resize(NARROW).await;
    visit.sign_in_as_operator().await;
    visit.open("db", "").await;
    page.tab_to("link", "Credentials").await;
    page.press([ENTER]).await;
    page.arrives_at("/credentials").await;
    page.says("#none", "None yet.").await;
    page.tab_to("field", "Name").await;
    page.type_text("by hand").await;
    page.press([ENTER]).await;
    page.says("#message", "by hand is ready.").await;
    page.tab_to("button", "Show once: by hand").await;
    page.press([SPACE]).await;
    page.find("#once").await;
    page.tab_to("button", "Copy the password").await;
    page.press([ENTER]).await;
    page.says("#said", "Copied").await;
    assert_eq!(page.clipboard().await, page.text_of("#password").await);
    let made = shown(page).await;
    // The token that they hold opens the pages.
    assert!(made["instance_administration_api"]["token"].is_string());
    page.tab_to("link", "Back to all credentials").await;
    page.press([ENTER]).await;
    let summary = format!("#revoke-{} summary", etcd::user(&made));
    page.find(&summary).await;
    eventually("the way to revoke by Tab", || async {
        page.press([TAB]).await;
        page.focused().await.is(&summary).await.then_some(())
    })
    .await;
    page.press([ENTER]).await;
    page.press([TAB]).await;
    page.press([SPACE]).await;
    page.tab_to("button", "Revoke by hand").await;
    page.press([ENTER]).await;
    page.says("#none", "None yet.").await;
    page.check(&visit.broker.url).await;
}
