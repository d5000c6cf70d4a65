//! The dashboard's page that takes snapshots from elsewhere.

use std::fs;

use reqwest::StatusCode;
use serde_json::json;

use crate::{
    broker::TestBroker,
    control::surroundings,
    dashboard::Visit,
    etcd,
    imports::{begun, fetch, send, snapshot_of},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_file_becomes_a_backup_and_one_that_broke_off_goes_on() {
    let broker = TestBroker::start_with(&[], surroundings()).await;
    broker.provision("source", json!({})).await;
    let credentials = broker.bind("source", "b").await;
    let mut database = etcd::connect(&credentials).await;
    etcd::fill(&mut database, 50, "v").await;
    let backup = broker.back_up(&credentials).await;
    let snapshot = snapshot_of(&broker, &credentials, &backup).await;
    let visit = Visit::to(broker).await;
    let page = &visit.page;
    let file = page.downloads().with_file_name("snapshot.db");
    fs::write(&file, &snapshot).expect("a file");
    visit.sign_in(&credentials).await;
    page.click("link", "Backups").await;
    page.click("link", "Import a snapshot").await;
    page.arrives_at("/instances/source/import").await;
    page.look_over("import").await;

    // What is none is told of, and leaves nothing.
    let none = page.downloads().with_file_name("none.db");
    fs::write(&none, vec![b'x'; snapshot.len()]).expect("a file");
    page.find("#file").await.take_file(&none).await;
    page.click("button", "Import").await;
    page.says("#message", "the file is no snapshot").await;
    page.find("#import-button:enabled").await;
    let told = page.complaints().await;
    assert!(told.len() == 1 && told[0].contains("400"), "{told:?}");

    page.find("#file").await.take_file(&file).await;
    page.find("#note").await.fill("from elsewhere").await;
    page.click("button", "Import").await;
    page.arrives_at("/instances/source/backups#backup-").await;
    page.find("#imported li.backup[data-state=complete]").await;
    page.says("#imported", "from elsewhere").await;

    // Half of it came by another way; the page goes on with the rest.
    let broker = &visit.broker;
    let upload = begun(broker, &credentials, snapshot.len()).await;
    let half = snapshot.len() / 2;
    let sent = send(broker, &credentials, &upload, 0, &snapshot[..half]).await;
    assert_eq!(sent.status, StatusCode::OK, "{sent:?}");
    page.open(&visit.url_of("source", "/import")).await;
    let id = upload.rsplit('/').next().expect("an id");
    page.find(&format!("#upload-{id}")).await;
    page.look_over("import-open").await;
    page.find("#file").await.take_file(&file).await;
    page.find("#upload").await.choose(id).await;
    page.click("button", "Import").await;
    page.find(&format!("#backup-{id}[data-state=complete]"))
        .await;

    // Who gives one up has nothing left of it.
    let upload = begun(broker, &credentials, snapshot.len()).await;
    page.open(&visit.url_of("source", "/import")).await;
    let id = upload.rsplit('/').next().expect("an id");
    page.click("button", &format!("Give up the upload {id}"))
        .await;
    page.arrives_at("/instances/source/import").await;
    assert!(page.all("#uploads").await.is_empty());
    let gone = fetch(broker, &credentials, &upload).await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND, "{gone:?}");
    visit.check().await;

    // A piece without what the page's forms carry is another site's.
    let piece = format!(
        "fetch('import/{id}', {{ method: 'PATCH', body: 'a', headers: {{ 'Upload-Offset': 0 }} }})\
         .then(answer => answer.status)"
    );
    assert_eq!(page.eval(&piece).await, StatusCode::FORBIDDEN.as_u16());
}
