//! The broker in a cluster of Kubernetes, as `deploy/kubernetes/` puts it there. `make kubernetes` brings up
//! the cluster and its images; elsewhere these tests are ignored.

use std::{fs, path::Path};

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    broker::{TestBroker, eventually, new_folder},
    kubernetes::{kubectl, node_host, try_kubectl},
    tidy::root,
};

/// Where the overlays put the broker.
const BROKERS: &str = "compose-broker";
/// Where an application is.
const APPLICATIONS: &str = "compose-broker-test-applications";

/// What `kubectl get` tells of something in the broker's namespace.
fn seen(what: &str) -> Value {
    let told = kubectl(&["-n", BROKERS, "get", what, "-o", "json"]);
    serde_json::from_str(&told).expect("JSON")
}

/// Both namespaces, which go with this.
struct Namespaces;

impl Namespaces {
    fn delete() {
        let names = ["namespace", BROKERS, APPLICATIONS];
        kubectl(&[&["delete", "--ignore-not-found"], &names[..]].concat());
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        Self::delete();
    }
}

/// Applies an overlay with the cluster's own image, as an administrator would.
fn apply(overlay: &str, folder: &Path) {
    let up = "../".repeat(folder.components().count());
    let overlay = root().join("deploy/kubernetes").join(overlay);
    let overlay = overlay.strip_prefix("/").expect("an absolute path");
    let kustomization = json!({
        "resources": [format!("{up}{}", overlay.display())],
        "images": [{ "name": "compose-broker", "newName": "bed.local/compose-broker", "newTag": "test" }],
    });
    let file = folder.join("kustomization.yaml");
    fs::write(file, kustomization.to_string()).expect("written");
    kubectl(&["apply", "-k", folder.to_str().expect("a text")]);
    is_rolled_out();
}

fn is_rolled_out() {
    let deployment = format!("deployment/{BROKERS}");
    kubectl(&[
        "-n",
        BROKERS,
        "rollout",
        "status",
        &deployment,
        "--timeout=180s",
    ]);
}

/// A file in the broker's Pod.
fn of_broker(file: &str) -> String {
    let deployment = format!("deployment/{BROKERS}");
    kubectl(&["-n", BROKERS, "exec", &deployment, "--", "cat", file])
}

/// The broker, through a port of a node.
async fn broker(folder: &Path) -> TestBroker {
    kubectl(&[
        "-n",
        BROKERS,
        "patch",
        "service",
        BROKERS,
        "-p",
        r#"{"spec": {"type": "NodePort"}}"#,
    ]);
    let port = &seen("service/compose-broker")["spec"]["ports"][0]["nodePort"];
    let [username, password] = ["username", "password"]
        .map(|file| of_broker(&format!("/data/broker/{file}")).trim().to_owned());
    let url = format!("http://{}:{port}", node_host());
    let broker = TestBroker::beside(folder.to_owned(), url, username, password);
    // Nodes hear of a new port some time after the API server does.
    eventually("the broker behind its port", async || {
        let answer = broker.anonymous(Method::GET, "/healthz").send().await;
        answer
            .is_ok_and(|answer| answer.status().is_success())
            .then_some(())
    })
    .await;
    broker
}

/// Starts an application that holds the credentials of a binding, and has the client of etcd.
fn start_application(credentials: &Value) {
    let command = credentials["uri_cli"].as_str().expect("a command line");
    let of = |flag: &str| {
        let rest = command.split(flag).nth(1).expect(flag);
        rest.split(' ').next().expect("a value").to_owned()
    };
    kubectl(&["create", "namespace", APPLICATIONS]);
    let objects = json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "database" },
          "data": { "ca.pem": credentials["ca_certificate_base64"] },
          "stringData": {
            "ETCDCTL_ENDPOINTS": of("--endpoints="), "ETCDCTL_USER": of("--user="), "ETCDCTL_CACERT": "/database/ca.pem" } },
        { "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "application" }, "spec": {
            "containers": [{
                "name": "application", "image": "bed.local/etcd:3.6.16", "command": ["etcdctl", "watch", "nothing"],
                "envFrom": [{ "secretRef": { "name": "database" } }],
                "volumeMounts": [{ "name": "database", "mountPath": "/database" }] }],
            "volumes": [{ "name": "database", "secret": { "secretName": "database" } }] } },
    ] });
    let file = new_folder().join("application.json");
    fs::write(&file, objects.to_string()).expect("written");
    kubectl(&[
        "-n",
        APPLICATIONS,
        "apply",
        "-f",
        file.to_str().expect("a text"),
    ]);
    fs::remove_dir_all(file.parent().expect("a folder")).expect("removed");
    kubectl(&[
        "-n",
        APPLICATIONS,
        "wait",
        "--for=condition=Ready",
        "pod/application",
        "--timeout=60s",
    ]);
}

/// What the application's client of etcd says.
fn application(arguments: &[&str]) -> Result<String, String> {
    let exec = [
        "-n",
        APPLICATIONS,
        "exec",
        "application",
        "--",
        "etcdctl",
        "--command-timeout=5s",
    ];
    try_kubectl(&[&exec, arguments].concat())
}

/// What the documents promise of one broker with its store in a file, step by step.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make kubernetes"]
async fn one_broker_serves_databases_that_outlive_its_pod() {
    let folder = new_folder();
    Namespaces::delete();
    let _namespaces = Namespaces;
    apply("sqlite", &folder);
    let broker = broker(&folder).await;

    broker.provision("i", json!({})).await;
    start_application(&broker.bind("i", "b").await);
    application(&["put", "key", "value"]).expect("written");

    // The next Pod has the same volume, and starts what was there.
    let pod = || seen("pods")["items"][0]["metadata"]["uid"].clone();
    let before = pod();
    kubectl(&[
        "-n",
        BROKERS,
        "rollout",
        "restart",
        "deployment/compose-broker",
    ]);
    is_rolled_out();
    assert_ne!(pod(), before);
    let value = eventually("the database of before", async || {
        application(&["get", "key", "--print-value-only"]).ok()
    });
    assert_eq!(value.await, "value\n");

    broker.deprovision("i").await;
    application(&["get", "key"]).expect_err("no database");
    // What it leaves is the operator's: the next broker finds its store, its key ring and its backups.
    let left = kubectl(&[
        "-n",
        BROKERS,
        "exec",
        "deployment/compose-broker",
        "--",
        "ls",
        "/data/broker/clusters/local",
    ]);
    assert_eq!(left, "");
}
