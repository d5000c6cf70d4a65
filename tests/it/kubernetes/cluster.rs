//! What a cluster of kind `kubernetes` is asked before it is used, what the broker may do there, who looks
//! after it, and whose objects stay as they are.

use std::path::Path;

use compose_broker::{
    model::{exposure::Exposure, limits::STOP_GRACE, placement::Cluster},
    provisioner::{
        Defaults, KINDS, Provisioner, ProvisionerError, SharedBacking,
        kubernetes::{KubernetesProvisioner, RIGHTS, Right},
    },
    workbench::Workbench,
};
use serde_json::{Value, json};

use super::{apply, kubeconfig, kubeconfig_of, kubectl, namespace, settings, tellers};
use crate::{contract::provisioner as teller, control::now};

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

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of make kubernetes"]
async fn the_rights_that_are_asked_for_are_enough() {
    namespace(NAMESPACE);
    let rule = |of: &Right| {
        let (group, resource, verbs) = of;
        json!({ "apiGroups": [group], "resources": [resource], "verbs": verbs })
    };
    let rules: Vec<Value> = RIGHTS.iter().map(rule).collect();
    let meta = json!({ "name": "able", "namespace": NAMESPACE });
    apply(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": meta, "rules": rules,
    }));
    apply(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": meta,
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "able",
        },
        "subjects": [{ "kind": "ServiceAccount", "name": "able", "namespace": NAMESPACE }],
    }));
    let folder = tempfile::tempdir().expect("a folder");
    let path = kubeconfig_of("able", NAMESPACE, folder.path());
    let cluster_id = new_id("able");
    // What the start asks for.
    let opened = backing(&cluster_id, json!({ "kubeconfig": path }));
    drop(
        opened
            .open(&cluster(&cluster_id), &[])
            .await
            .expect("a cluster"),
    );

    // And all that is done.
    let settings = settings(&cluster_id, NAMESPACE, &tellers());
    let opened = KubernetesProvisioner::open(Some(&path), None, settings).await;
    let (at, id) = (opened.expect("a cluster"), teller::new_id());
    at.room_for(1).await.expect("room");
    at.start(&teller::server(&id, "a")).await.expect("started");
    at.stage(&id, "file", 4, teller::content("file"))
        .await
        .expect("staged");
    let read = teller::task(&["read", "{stage}/file"]);
    assert_eq!(at.run(&id, "m0", &read).await.expect("read"), "file");
    at.unstage(&id, "file").await.expect("removed");
    at.start(&teller::server(&id, "b"))
        .await
        .expect("started anew");
    at.restart(&id, "m0").await.expect("started anew");
    assert_eq!(at.logs(&id).await.expect("logs").len(), 1);
    at.stop(&id, "m0", STOP_GRACE).await.expect("stopped");
    at.wipe(&id, "m0").await.expect("wiped");
    let all = at.deployments().await.expect("one");
    assert_eq!(all, std::slice::from_ref(&id));
    at.destroy(&id).await.expect("destroyed");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of make kubernetes"]
async fn what_others_have_made_stays_as_it_is() {
    namespace(NAMESPACE);
    let settings = settings(&new_id("foreign"), NAMESPACE, &tellers());
    let opened = KubernetesProvisioner::open(Some(&kubeconfig()), None, settings).await;
    let (at, id) = (opened.expect("a cluster"), teller::new_id());
    let name = format!("db-{id}-m0");
    let foreign = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name, "namespace": NAMESPACE },
        "spec": { "ports": [{ "name": "theirs", "port": 80 }] },
    });
    apply(&foreign);
    let refused = at.start(&teller::server(&id, "a")).await;
    assert!(
        matches!(refused, Err(ProvisionerError::NameTaken { .. })),
        "{refused:?}"
    );
    at.destroy(&id).await.expect("the rest goes");
    let port = "jsonpath={.spec.ports[*].name}";
    let left = kubectl(&["-n", NAMESPACE, "get", "service", &name, "-o", port]);
    assert_eq!(left, "theirs");
    kubectl(&["-n", NAMESPACE, "delete", "service", &name]);
}
