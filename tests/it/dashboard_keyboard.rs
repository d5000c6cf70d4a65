//! The dashboard without a mouse: every flow by Tab, Enter, Space and arrows alone, with a focus
//! that can be seen.

use compose_broker::model::operation::OperationKind;
use serde_json::json;

use crate::{
    broker::{TestBroker, eventually, text},
    chromium::{ARROW_DOWN, ARROW_RIGHT, CONTROL, ENTER, NARROW, SHIFT, SPACE, TAB},
    control::Script,
    dashboard::Visit,
};

#[tokio::test(flavor = "multi_thread")]
async fn every_flow_goes_by_keyboard_alone() {
    let script = Script::default();
    let broker = TestBroker::start_with(&[], script.surroundings()).await;
    broker
        .provision("source", json!({ "db_version": "3.5.16" }))
        .await;
    let credentials = broker.bind("source", "b").await;
    let token = text(&credentials["instance_administration_api"]["token"]).to_owned();
    let visit = Visit::to(broker).await;
    let page = &visit.page;

    visit.open("source", "").await;
    page.resize(NARROW).await;
    page.tab_to("field", "Token").await;
    page.type_text(&token).await;
    page.press([ENTER]).await;
    page.arrives_at("/instances/source").await;

    // Past what stands on every page.
    page.tab_to("link", "Skip to content").await;
    page.press([ENTER]).await;
    assert!(page.focused().await.is("#content, #content *").await);

    page.reload().await;
    page.tab_to("link", "Backups").await;
    page.press([ENTER]).await;
    page.arrives_at("/backups").await;
    page.tab_to("button", "Back up now").await;
    page.press([SPACE]).await;
    page.find("li.backup[data-state=complete]").await;
    page.shows("The backup is complete.").await;
    let backup = visit.backups(&credentials).await.remove(0);
    let id = text(&backup["id"]);

    // Into the row, and through it.
    let summary = format!("#summary-{id}");
    eventually("the row's summary by Tab", || async {
        page.press([TAB]).await;
        page.focused().await.is(&summary).await.then_some(())
    })
    .await;
    page.press([ENTER]).await;
    page.tab_to("button", "Copy the backup ID").await;
    page.press([SPACE]).await;
    page.says("#said", "Copied").await;
    assert_eq!(page.clipboard().await, id);
    page.tab_to("link", "Download").await;
    page.press([ENTER]).await;
    page.downloaded(&format!("{}.tar.gz", text(&backup["name"])))
        .await;

    // While a page changes by itself, the place where one is stays.
    let held = script.hold(OperationKind::Restore, "verify");
    page.tab_to("field", "Name").await;
    page.press([CONTROL, 'a']).await;
    page.type_text("by-keyboard").await;
    page.tab_to("choice", "Version").await;
    page.press([ARROW_DOWN]).await;
    page.tab_to("button", "Preview").await;
    page.press([SPACE]).await;
    page.arrives_at("/restore?").await;
    page.says("#possible", "Nothing is in the way.").await;
    page.tab_to("button", "Restore").await;
    page.press([SPACE]).await;
    page.shows("by-keyboard is being made").await;
    eventually("the row's summary by Tab", || async {
        page.press([TAB]).await;
        page.focused().await.is(&summary).await.then_some(())
    })
    .await;
    page.press([SPACE]).await;
    page.tab_to("button", "Copy the cf command").await;
    drop(held);
    page.shows("by-keyboard is ready").await;
    let focused = page.focused().await;
    assert_eq!(focused.name().await.as_deref(), Ok("Copy the cf command"));

    // Back, and along the tabs.
    page.reload().await;
    page.tab_to("link", "Overview").await;
    page.press([ENTER]).await;
    page.arrives_at("/instances/source").await;
    page.tab_to("tab", "URI").await;
    page.press([ARROW_RIGHT]).await;
    page.press([ARROW_RIGHT]).await;
    let tab = page.focused().await;
    assert_eq!(tab.name().await.as_deref(), Ok("Certificate"));
    page.tab_to("button", "Copy the certificate").await;
    page.press([ENTER]).await;
    eventually("a certificate", || async {
        let copied = page.clipboard().await;
        copied
            .starts_with("-----BEGIN CERTIFICATE-----")
            .then_some(())
    })
    .await;
    page.tab_to("link", "by-keyboard").await;
    page.press([ENTER]).await;
    page.says("h1", "by-keyboard").await;
    page.press([SHIFT, TAB]).await;
    page.reload().await;
    page.tab_to("button", "Sign out").await;
    page.press([ENTER]).await;
    page.arrives_at("/dashboard/sign-in").await;
    page.check(&visit.broker.url).await;

    // And the operator, who looks for one of many.
    let (username, password) = visit.broker.platform();
    page.tab_to("field", "User name").await;
    page.type_text(username).await;
    page.tab_to("field", "Password").await;
    page.type_text(password).await;
    page.press([ENTER]).await;
    page.arrives_at("/dashboard/instances").await;
    page.tab_to("field", "Id, name, organization or space")
        .await;
    page.type_text("keyb").await;
    page.press([ENTER]).await;
    page.arrives_at("q=keyb").await;
    page.tab_to("link", "by-keyboard").await;
    page.press([ENTER]).await;
    page.says("h1", "by-keyboard").await;
    page.check(&visit.broker.url).await;
}
