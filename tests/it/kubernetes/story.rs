//! What tenants have of a database in a real cluster, and what is left there afterwards.

use etcd_client::DeleteOptions;
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::{NODE_PORTS_OF_STORIES, kubeconfig, kubectl, namespace, node_host};
use crate::{
    broker::{SERVICE, TestBroker, answer, instance_path, new_folder, text},
    control::{now, surroundings},
    etcd, proofs, restore_keys,
};

const NAMESPACE: &str = "compose-broker-story";

/// A broker outside of the cluster, whose databases are in it.
async fn broker(cluster: &str) -> TestBroker {
    namespace(NAMESPACE);
    let folder = new_folder();
    let file = folder.join("clusters.json");
    let clusters = json!([{
        "id": cluster, "name": "A real cluster", "kind": "kubernetes",
        "listen": "0.0.0.0", "host": node_host(),
        "kubeconfig": kubeconfig(), "namespace": NAMESPACE,
        "tools_image": "bed.local/busybox:1",
        "images": { "etcd": {
            "3.5.35": "bed.local/etcd:3.5.35",
            "3.6.16": "bed.local/etcd:3.6.16",
        } },
        "exposed_versions": ["etcd 3.5.35"],
        "node_host": node_host(), "exposure": "node_port", "node_ports": NODE_PORTS_OF_STORIES,
    }]);
    std::fs::write(&file, clusters.to_string()).expect("a file");
    let clusters = ["--clusters", file.to_str().expect("UTF-8")];
    let flags = [&clusters[..], &proofs::ON].concat();
    TestBroker::start_in(folder.clone(), &flags, surroundings()).await
}

/// All that the broker has made in a cluster, but for its lease.
fn left(cluster: &str) -> String {
    let of_it = format!("compose-broker/cluster={cluster}");
    let kinds = "statefulset,pod,service,secret,persistentvolumeclaim,networkpolicy,pdb";
    kubectl(&["-n", NAMESPACE, "get", kinds, "-l", &of_it, "-o", "name"])
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of make kubernetes"]
async fn a_database_is_made_used_backed_up_restored_and_upgraded_and_leaves_nothing() {
    let cluster = format!("story-{}", now().timestamp_millis());
    let broker = broker(&cluster).await;
    broker
        .provision("old", json!({ "db_version": "3.5.35" }))
        .await;
    let credentials = broker.bind("old", "b").await;
    let mut old = etcd::connect(&credentials).await;
    etcd::fill(&mut old, 50, "v").await;
    let backup = broker.back_up(&credentials).await;
    assert_eq!(backup["status"], "complete", "{backup}");
    let proved = proofs::once(&broker, &credentials, &backup, "proved").await;
    assert_eq!(proved["verified_by"], "whole", "{proved}");
    assert_eq!(proved["verified_versions"], json!(["3.5.35", "3.6.16"]));

    // Some of the keys are lost, and come back.
    let all = Some(DeleteOptions::new().with_prefix());
    old.delete("key-001", all).await.expect("a deletion");
    let wanted = json!({ "prefix": "key-" });
    let told = restore_keys::restored(&broker, &credentials, &backup, &wanted).await;
    let changes = json!({ "written": 10, "deleted": 0, "left": 0 });
    assert_eq!(told["prefix_restore"]["changes"], changes, "{told}");
    assert_eq!(etcd::dump(&mut old).await.len(), 50);

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

    let path = format!("{}?accepts_incomplete=true", instance_path("new"));
    let body = json!({ "service_id": SERVICE, "parameters": { "db_version": "3.6.16" } });
    let accepted = answer(broker.osb(Method::PATCH, &path).json(&body)).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let end = broker.instance_end("new", &accepted.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    let mut new = etcd::connect(&restored).await;
    assert_eq!(new.status().await.expect("a status").version(), "3.6.16");
    assert_eq!(etcd::dump(&mut new).await.len(), 50);
    assert!(left(&cluster).contains("statefulset"), "{}", left(&cluster));

    for id in ["old", "new"] {
        broker.deprovision(id).await;
    }
    assert_eq!(left(&cluster), "");
    let deployment = text(&backup["deployment_id"]);
    let files = broker.files().into_iter();
    let kept: Vec<String> = files.filter(|file| file.contains(deployment)).collect();
    assert_eq!(kept, Vec::<String>::new());
}
