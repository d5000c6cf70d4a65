//! What a cluster of kind `kubernetes` is asked before it is used, what the broker may do there, and who
//! looks after it.

use std::path::Path;

use compose_broker::{
    model::{exposure::Exposure, placement::Cluster},
    provisioner::{Defaults, KINDS, ProvisionerError, SharedBacking},
};
use serde_json::{Value, json};

use super::{kubeconfig, kubeconfig_of, namespace};
use crate::control::now;

const NAMESPACE: &str = "compose-broker-clusters";

/// A cluster by its settings, those that are given before those that all have.
fn backing(id: &str, own: Value) -> SharedBacking {
    let mut fields = json!({
        "kubeconfig": kubeconfig(), "namespace": NAMESPACE,
        "tools_image": "bed.local/busybox:1",
        "images": {}, "node_host": super::node_host(),
    });
    let (all, own) = (fields.as_object_mut(), own.as_object().cloned());
    all.expect("an object").extend(own.expect("an object"));
    let Value::Object(fields) = fields else {
        unreachable!("it was made one");
    };
    let kind = KINDS.iter().find(|kind| kind.name == "kubernetes");
    let defaults = Defaults {
        data_dir: Path::new("/nowhere"),
        engines_dir: Path::new("/nowhere"),
        ports: "20000-29999".parse().expect("ports"),
    };
    (kind.expect("a kind").read)(id, fields, &defaults).expect("a cluster")
}

fn cluster(id: &str) -> Cluster {
    Cluster {
        id: id.to_owned(),
        name: id.to_owned(),
        kind: "kubernetes",
        service_instance_id: None,
        enabled: true,
        capacity_units: None,
        snapshots_at_once: None,
        operations_at_once: None,
        exposure: Exposure::default(),
    }
}

fn new_id(prefix: &str) -> String {
    format!("{prefix}-{}", now().timestamp_millis())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of make kubernetes"]
async fn one_broker_at_a_time_looks_after_a_cluster() {
    namespace(NAMESPACE);
    let id = new_id("lease");
    let cluster = cluster(&id);
    let first = backing(&id, json!({})).open(&cluster, &[]).await;
    let first = first.expect("a cluster").provisioner;
    let second = backing(&id, json!({})).open(&cluster, &[]).await;
    assert!(matches!(second, Err(ProvisionerError::InUse { .. })));
    // One that ends gives it back.
    drop(first);
    let second = backing(&id, json!({})).open(&cluster, &[]).await;
    second.expect("a cluster");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of make kubernetes"]
async fn what_a_cluster_lacks_is_told_when_it_is_opened() {
    namespace(NAMESPACE);
    let id = new_id("unfit");
    let opened = |own: Value| {
        let (backing, cluster) = (backing(&id, own), cluster(&id));
        async move {
            match backing.open(&cluster, &[]).await {
                Ok(_) => panic!("it was opened"),
                Err(error) => error.to_string(),
            }
        }
    };
    let reason = opened(json!({ "storage_class": "unheard" })).await;
    assert!(reason.contains("no storage class \"unheard\""), "{reason}");
    let reason = opened(json!({ "context": "unheard" })).await;
    assert!(reason.contains("unheard"), "{reason}");
    let reason = opened(json!({ "images": { "unheard": {} } })).await;
    assert!(reason.contains("no engine \"unheard\""), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of make kubernetes"]
async fn rights_that_are_missing_are_named() {
    namespace(NAMESPACE);
    let folder = tempfile::tempdir().expect("a folder");
    let path = kubeconfig_of("weak", NAMESPACE, folder.path());
    let id = new_id("weak");
    let backing = backing(&id, json!({ "kubeconfig": path }));
    let Err(refused) = backing.open(&cluster(&id), &[]).await else {
        panic!("it was opened");
    };
    let reason = refused.to_string();
    for right in [
        "create pods",
        "get pods/log",
        "patch statefulsets",
        "create leases",
    ] {
        assert!(reason.contains(right), "{right}: {reason}");
    }
    assert!(reason.contains(NAMESPACE), "{reason}");
}
