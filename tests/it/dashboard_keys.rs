//! The page that puts keys back from a backup: compare, see what would be done, have it done.

use etcd_client::DeleteOptions;
use serde_json::json;

use crate::{
    broker::{TestBroker, text},
    dashboard::Visit,
    etcd,
};

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_compared_and_put_back() {
    let broker = TestBroker::start().await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    let mut database = etcd::connect(&credentials).await;
    etcd::fill(&mut database, 30, "v").await;
    let backup = broker.back_up(&credentials).await;
    let id = text(&backup["id"]);
    let before = etcd::dump(&mut database).await;
    let all = Some(DeleteOptions::new().with_prefix());
    database.delete("key-001", all).await.expect("a deletion");
    database
        .put("key-0003", "of later", None)
        .await
        .expect("a put");
    database.put("key-0099", "new", None).await.expect("a put");
    let visit = Visit::to(broker).await;
    let page = &visit.page;
    visit.sign_in(&credentials).await;

    page.click("link", "Backups").await;
    page.find(&format!("#details-{id} > summary"))
        .await
        .click()
        .await;
    page.find(&format!("#keys-{id}")).await.click().await;
    page.arrives_at(&format!("/backups/{id}/keys")).await;
    page.find("#prefix").await.fill("key-00").await;
    page.find("#mode").await.choose("Missing keys").await;
    page.look_over("keys").await;
    page.click("button", "Compare").await;
    page.says("#effect", "10 keys are written.").await;
    let facts = page.text_of("#facts").await;
    for fact in ["10 keys, ", "1 key", "19 keys"] {
        assert!(facts.contains(fact), "{fact}: {facts}");
    }
    page.says("#h-difference", "Keys that begin with “key-00”")
        .await;
    assert_eq!(
        etcd::dump(&mut database).await.len(),
        21,
        "nothing was changed"
    );
    page.look_over("keys-compared").await;

    // Another choice is another comparison; what was chosen is chosen still.
    page.find("#mode")
        .await
        .choose("All, as in the backup")
        .await;
    page.click("button", "Compare").await;
    page.says("#effect", "11 keys are written, and 1 deleted.")
        .await;
    page.click("button", "Restore keys").await;
    page.says("#message", "Done: 11 keys written, 1 deleted.")
        .await;
    page.look_over("keys-restored").await;
    assert_eq!(etcd::dump(&mut database).await, before);

    page.click("button", "Compare").await;
    page.says("#effect", "There is nothing to put back.").await;
    assert!(page.all("#restore-keys").await.is_empty());
    page.find("#back").await.click().await;
    page.find("#safety li.backup[data-state=complete]").await;
    visit.check().await;
}
