//! What tenants have of a database in a real cluster, and what is left there afterwards.

use compose_broker::operation::fault::{Fault, Moment};
use etcd_client::DeleteOptions;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::time::Instant;

use super::databases::Databases;
use crate::{
    broker::{SERVICE, TestBroker, answer, instance_path, text},
    control::surroundings,
    etcd, proofs, restore_keys,
    saboteur::Saboteur,
};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of make kubernetes"]
async fn a_database_is_made_used_backed_up_restored_and_upgraded_and_leaves_nothing() {
    let cluster = Databases::new("story", "31500-31549");
    let broker = cluster.broker(&proofs::ON, surroundings()).await;
    told(&cluster, &broker).await;
}

/// A broker that ends when a step has had its effect, and before that is written down, leaves the next one
/// what it would have met had it ended at any moment of the step.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of make kubernetes"]
async fn the_same_comes_about_when_the_worker_dies_in_each_step() {
    let cluster = Databases::new("dying", "31550-31599");
    let saboteur = Saboteur::everywhere(&[(Moment::Done, Fault::Die)]);
    let broker = cluster.broker(&proofs::ON, saboteur.surroundings()).await;
    told(&cluster, &broker).await;
}

/// Tells it all, and how long what took.
pub async fn told(cluster: &Databases, broker: &TestBroker) {
    let begun = Instant::now();
    let passed = |what: &str| println!("{what} by {:.0?}", begun.elapsed());
    broker
        .provision("old", json!({ "db_version": "3.5.35" }))
        .await;
    let credentials = broker.bind("old", "b").await;
    passed("made and bound");
    let mut old = etcd::connect(&credentials).await;
    etcd::fill(&mut old, 50, "v").await;
    let backup = broker.back_up(&credentials).await;
    assert_eq!(backup["status"], "complete", "{backup}");
    passed("backed up");
    let proved = proofs::once(broker, &credentials, &backup, "proved").await;
    assert_eq!(proved["verified_by"], "whole", "{proved}");
    assert_eq!(proved["verified_versions"], json!(["3.5.35", "3.6.16"]));
    passed("the backup proved");

    // Some of the keys are lost, and come back.
    let all = Some(DeleteOptions::new().with_prefix());
    old.delete("key-001", all).await.expect("a deletion");
    let wanted = json!({ "prefix": "key-" });
    let told = restore_keys::restored(broker, &credentials, &backup, &wanted).await;
    let changes = json!({ "written": 10, "deleted": 0, "left": 0 });
    assert_eq!(told["prefix_restore"]["changes"], changes, "{told}");
    assert_eq!(etcd::dump(&mut old).await.len(), 50);
    passed("some keys restored");

    let parameters = json!({
        "source_service_instance_id": "old",
        "backup_id": backup["id"],
        "db_version": "3.5.35",
    });
    broker.provision("new", parameters).await;
    let restored = broker.bind("new", "b").await;
    let mut new = etcd::connect(&restored).await;
    let keys = etcd::dump(&mut new).await;
    assert_eq!(keys.len(), 50);
    assert_eq!(keys[7], ("key-0007".to_owned(), "v-7".to_owned()));
    passed("restored elsewhere");

    let path = format!("{}?accepts_incomplete=true", instance_path("new"));
    let body = json!({ "service_id": SERVICE, "parameters": { "db_version": "3.6.16" } });
    let accepted = answer(broker.osb(Method::PATCH, &path).json(&body)).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let end = broker.instance_end("new", &accepted.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    let mut new = etcd::connect(&restored).await;
    assert_eq!(new.status().await.expect("a status").version(), "3.6.16");
    assert_eq!(etcd::dump(&mut new).await.len(), 50);
    passed("upgraded");
    assert!(cluster.left().contains("statefulset"), "{}", cluster.left());

    for id in ["old", "new"] {
        broker.deprovision(id).await;
    }
    assert_eq!(cluster.left(), "");
    passed("gone");
    let deployment = text(&backup["deployment_id"]);
    let files = broker.files().into_iter();
    let kept: Vec<String> = files.filter(|file| file.contains(deployment)).collect();
    assert_eq!(kept, Vec::<String>::new());
}
