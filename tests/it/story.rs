//! The main job, from end to end.

use serde_json::json;

use crate::{
    broker::{TestBroker, text},
    etcd,
};

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_is_backed_up_and_migrated_to_a_newer_version() {
    let broker = TestBroker::start().await;
    broker
        .provision("old", json!({ "db_version": "3.4.23" }))
        .await;
    let credentials = broker.bind("old", "b").await;
    let mut old = etcd::connect(&credentials).await;
    etcd::fill(&mut old, 50, "v").await;
    let backup = broker.back_up(&credentials).await;
    assert_eq!(backup["status"], "complete", "{backup}");
    old.put("after the backup", "x", None).await.expect("a put");

    let parameters = json!({
        "source_service_instance_id": "old",
        "backup_id": backup["id"],
        "db_version": "3.5.16",
    });
    broker.provision("new", parameters).await;
    let migrated = broker.bind("new", "b").await;
    let mut new = etcd::connect(&migrated).await;
    assert_eq!(new.status().await.expect("a status").version(), "3.5.16");
    let keys = etcd::dump(&mut new).await;
    assert_eq!(keys.len(), 50);
    assert_eq!(keys[7], ("key-0007".to_owned(), "v-7".to_owned()));
    let (user, password) = (etcd::user(&credentials), etcd::password(&credentials));
    assert!(
        etcd::connect_as(&migrated, "uri", &user, &password)
            .await
            .is_err()
    );

    for id in ["old", "new"] {
        broker.deprovision(id).await;
    }
    assert_eq!(broker.members(), Vec::<i32>::new());
    let left: Vec<String> = broker
        .files()
        .into_iter()
        .filter(|file| file.contains(text(&backup["deployment_id"])) || file.contains("/m0"))
        .collect();
    assert_eq!(left, Vec::<String>::new());
}
