//! A real Kubernetes cluster for tests: `make kubernetes` brings one up. Tests that need it are ignored
//! elsewhere.

mod balancers;
mod cluster;
mod databases;
mod faults;
mod figures;
mod outages;
mod requests;
mod role;
mod story;
mod tenants;

use std::{
    collections::BTreeMap,
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use compose_broker::provisioner::kubernetes::settings::{
    Balancers, BrokerPlace, Exposure, Settings, Spread,
};
use serde_json::{Value, json};

use crate::contract::provisioner::{ENGINE, VERSIONS};

/// Names the file of contexts that leads to the cluster.
const KUBECONFIG: &str = "COMPOSE_BROKER_TEST_KUBECONFIG";
/// An address of one of its nodes, where the first one's own will not do.
const NODE_HOST: &str = "COMPOSE_BROKER_TEST_NODE_HOST";

/// The file of contexts that leads to the cluster.
pub fn kubeconfig() -> PathBuf {
    let named = env::var_os(KUBECONFIG);
    let named = named.unwrap_or_else(|| panic!("{KUBECONFIG} names none: see make kubernetes"));
    named.into()
}

/// An address of one of the cluster's nodes.
pub fn node_host() -> String {
    if let Ok(named) = env::var(NODE_HOST) {
        return named;
    }
    let address = "jsonpath={.items[0].status.addresses[?(@.type==\"InternalIP\")].address}";
    kubectl(&["get", "nodes", "-o", address])
}

/// Runs kubectl: what it told when all went well, else why not.
pub fn try_kubectl(args: &[&str]) -> Result<String, String> {
    let mut command = Command::new("kubectl");
    command.arg("--kubeconfig").arg(kubeconfig()).args(args);
    let ended = command.output().expect("kubectl");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    if ended.status.success() {
        Ok(text(ended.stdout))
    } else {
        Err(text(ended.stderr))
    }
}

/// Runs kubectl, which has to go well.
pub fn kubectl(args: &[&str]) -> String {
    try_kubectl(args).unwrap_or_else(|words| panic!("kubectl {args:?}: {words}"))
}

/// Runs kubectl with an object as its input: why it did not go well, if so.
pub fn try_fed(args: &[&str], object: &Value) -> Result<(), String> {
    let mut command = Command::new("kubectl");
    command.arg("--kubeconfig").arg(kubeconfig());
    let mut fed = command
        .args(args)
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl");
    let mut input = fed.stdin.take().expect("its input");
    input
        .write_all(object.to_string().as_bytes())
        .expect("written");
    drop(input);
    let ended = fed.wait_with_output().expect("an end");
    match ended.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&ended.stderr).into_owned()),
    }
}

/// Applies an object by kubectl.
pub fn apply(object: &Value) {
    try_fed(&["apply"], object).unwrap_or_else(|words| panic!("{object}: {words}"));
}

/// Asks for a pod to be moved away, as a drain of its node does: why it may not be, if so.
pub fn evict(namespace: &str, pod: &str) -> Result<(), String> {
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": { "name": pod, "namespace": namespace },
    });
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/eviction");
    try_fed(&["create", "--raw", &path], &eviction)
}

/// A namespace that takes no pod beyond what is safe, made once.
pub fn namespace(name: &str) {
    // It may be there.
    let _ = try_kubectl(&["create", "namespace", name]);
    kubectl(&[
        "label",
        "--overwrite",
        "namespace",
        name,
        "pod-security.kubernetes.io/enforce=restricted",
    ]);
}

/// A file of contexts for a service account of a namespace, which is made if need be.
pub fn kubeconfig_of(account: &str, namespace: &str, folder: &Path) -> PathBuf {
    let mut command = Command::new("kubectl");
    command.arg("--kubeconfig").arg(kubeconfig());
    // It may be there.
    let _ = command
        .args(["-n", namespace, "create", "serviceaccount", account])
        .output();
    let token = kubectl(&["-n", namespace, "create", "token", account]);
    let file = kubectl(&["config", "view", "--raw", "--minify", "-o", "json"]);
    let mut file: Value = serde_json::from_str(&file).expect("JSON");
    file["users"][0]["user"] = json!({ "token": token.trim() });
    let path = folder.join("kubeconfig");
    fs::write(&path, file.to_string()).expect("a file");
    path
}

/// The teller's images in the cluster.
pub fn tellers() -> [(&'static str, &'static str, &'static str); 2] {
    [
        (ENGINE, VERSIONS[0], "bed.local/teller:1.0.0"),
        (ENGINE, VERSIONS[1], "bed.local/teller:2.0.0"),
    ]
}

/// Settings of a cluster whose broker is the test, outside of it.
pub fn settings(cluster: &str, namespace: &str, images: &[(&str, &str, &str)]) -> Settings {
    let mut all: BTreeMap<String, BTreeMap<_, String>> = BTreeMap::new();
    for (engine, version, image) in images {
        let of_engine = all.entry((*engine).to_owned()).or_default();
        of_engine.insert(version.parse().expect("a version"), (*image).to_owned());
    }
    Settings {
        cluster: cluster.to_owned(),
        namespace: namespace.to_owned(),
        tenants: None,
        tools_image: "bed.local/busybox:1".to_owned(),
        images: all,
        withheld: Vec::new(),
        storage_class: None,
        broker: BrokerPlace::Outside {
            node_host: node_host(),
        },
        exposure: Exposure::NodePort,
        balancers: Balancers::default(),
        node_ports: "30000-31499".parse().expect("ports"),
        spread: Spread::Required,
        node_selector: BTreeMap::new(),
        tolerations: Vec::new(),
        priority_class: None,
    }
}
