//! Databases in the real cluster, of a broker that is outside of it: what tests of them share.

use std::{fs, path::Path, time::Duration};

use compose_broker::app::Surroundings;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{kubeconfig, kubectl, namespace, node_host};
use crate::{
    broker::{TestBroker, answer, new_folder, text},
    control::now,
};

/// Where they are.
pub const NAMESPACE: &str = "compose-broker-tenants";
/// What databases are made of, but for events and the lease of their cluster.
const KINDS: &str = "statefulset,pod,service,secret,persistentvolumeclaim,networkpolicy,pdb";

/// A cluster of one test's broker in the real one. All that is in it goes with this.
pub struct Databases {
    /// Its id, which all its objects carry.
    id: String,
    /// The namespace of its databases.
    namespace: &'static str,
    /// Whether tenants have namespaces of their own.
    has_tenants: bool,
    entry: Value,
}

impl Databases {
    /// A cluster of that name, whose databases get these ports of the nodes: apart from those of other tests.
    pub fn new(name: &str, node_ports: &str) -> Self {
        namespace(NAMESPACE);
        let id = format!("{name}-{}", now().timestamp_millis());
        let entry = json!({
            "id": id, "name": "A real cluster", "kind": "kubernetes",
            "listen": "0.0.0.0", "host": node_host(),
            "kubeconfig": kubeconfig(), "namespace": NAMESPACE,
            "tools_image": "bed.local/busybox:1",
            "images": { "etcd": {
                "3.5.35": "bed.local/etcd:3.5.35",
                "3.6.16": "bed.local/etcd:3.6.16",
            } },
            "exposed_versions": ["etcd 3.5.35"],
            "node_host": node_host(), "exposure": "node_port", "node_ports": node_ports,
        });
        Self {
            id,
            namespace: NAMESPACE,
            has_tenants: false,
            entry,
        }
    }

    /// The same in another namespace, which its broker reaches by another file of contexts.
    pub fn of(mut self, namespace: &'static str, kubeconfig: &Path) -> Self {
        self.namespace = namespace;
        self.entry["namespace"] = json!(namespace);
        self.entry["kubeconfig"] = json!(kubeconfig);
        self
    }

    /// The same with a namespace of each tenant, that has this quota.
    pub fn for_tenants(mut self, quota: &Value) -> Self {
        self.has_tenants = true;
        self.set_quota(quota);
        self
    }

    /// Has namespaces of tenants have another quota from the next file on.
    pub fn set_quota(&mut self, quota: &Value) {
        self.entry["tenant_namespaces"] = json!({ "quota": quota });
    }

    /// The same with another image for a version.
    pub fn with_image(mut self, version: &str, image: &str) -> Self {
        self.entry["images"]["etcd"][version] = json!(image);
        self
    }

    /// The same with a load balancer for each member.
    pub fn balanced(mut self) -> Self {
        self.entry["exposure"] = json!("load_balancer");
        self.entry["load_balancer_annotations"] = json!({ "example.org/visible": "no" });
        self.entry["host"] = json!("load-balancer");
        self
    }

    /// Writes the file of clusters into a folder; where it is.
    pub fn file(&self, folder: &Path) -> String {
        let file = folder.join("clusters.json");
        fs::write(&file, json!([self.entry]).to_string()).expect("a file");
        file.to_str().expect("UTF-8").to_owned()
    }

    /// A broker that has this cluster alone.
    pub async fn broker(&self, flags: &[&str], surroundings: Surroundings) -> TestBroker {
        let folder = new_folder();
        let file = self.file(&folder);
        let flags = [&["--clusters", &file][..], flags].concat();
        TestBroker::start_in(folder, &flags, surroundings).await
    }

    /// All that the broker has made there, but for its lease.
    pub fn left(&self) -> String {
        self.asked(&["get", &self.kinds(), "-o", "name"])
    }

    fn kinds(&self) -> String {
        match self.has_tenants {
            true => format!("{KINDS},configmap,resourcequota,rolebinding,namespace"),
            false => KINDS.to_owned(),
        }
    }

    /// How kubectl is told of the broker's objects there.
    pub fn chosen(&self) -> Vec<String> {
        let of_it = format!("compose-broker/cluster={}", self.id);
        let within = match self.has_tenants {
            true => vec!["--all-namespaces".to_owned()],
            false => vec!["-n".to_owned(), self.namespace.to_owned()],
        };
        [within, vec!["-l".to_owned(), of_it]].concat()
    }

    fn asked(&self, args: &[&str]) -> String {
        let chosen = self.chosen();
        let chosen: Vec<&str> = chosen.iter().map(String::as_str).collect();
        kubectl(&[args, &chosen].concat())
    }

    /// Tells all that the broker has made there to go.
    pub fn remove(&self) {
        self.asked(&["delete", &self.kinds(), "--wait=false"]);
    }

    /// The pods of members, as the API server has them, sorted by name.
    pub fn pods(&self) -> Vec<Value> {
        self.all("pods")
            .into_iter()
            .filter(|pod| pod["metadata"]["labels"]["app.kubernetes.io/component"] == "member")
            .collect()
    }

    /// All objects of a kind.
    pub fn all(&self, kind: &str) -> Vec<Value> {
        let told = self.asked(&["get", kind, "-o", "json"]);
        let told: Value = serde_json::from_str(&told).expect("JSON");
        told["items"].as_array().expect("objects").clone()
    }

    /// The pod of a member of the only database, if it is there.
    pub fn pod(&self, member: &str) -> Option<Value> {
        let is_its = |pod: &Value| pod["metadata"]["labels"]["compose-broker/member"] == member;
        self.pods().into_iter().find(is_its)
    }

    /// Waits until so many members are ready, and none is about to end.
    pub async fn ready(&self, count: usize) {
        waited(&format!("{count} members that are ready"), || async {
            let pods = self.pods();
            let ready = pods.iter().filter(|pod| is_ready(pod)).count();
            (ready == count && pods.len() == count).then_some(())
        })
        .await;
    }

    /// Waits until a member's pod is as it should be; returns it.
    pub async fn pod_that(&self, member: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let what = format!("a pod of {member} that {what}");
        waited(&what, || async { self.pod(member).filter(|pod| is(pod)) }).await
    }
}

impl Drop for Databases {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Waits until `look` gives something. Each look is a process of kubectl, so they are few.
pub async fn waited<T, F: Future<Output = Option<T>>>(what: &str, look: impl Fn() -> F) -> T {
    let deadline = Instant::now() + Duration::from_secs(300);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        sleep(Duration::from_secs(1)).await;
    }
}

/// Waits until the platform is told this of an instance's operation.
pub async fn told(broker: &TestBroker, instance: &str, accepted: &Value, words: &str) {
    let path = format!(
        "/v2/service_instances/{instance}/last_operation?operation={}",
        text(&accepted["operation"])
    );
    waited(&format!("{words:?}"), || async {
        let told = answer(broker.osb(Method::GET, &path)).await.body;
        assert_eq!(told["state"], "in progress", "{told}");
        text(&told["description"]).contains(words).then_some(())
    })
    .await;
}

/// The name of an object.
pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().expect("a name")
}

/// What tells an object from a later one of the same name.
pub fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().expect("a uid")
}

/// Whether a pod serves, and was not told to end.
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    pod["metadata"]["deletionTimestamp"].is_null()
        && conditions.any(|of| of["type"] == "Ready" && of["status"] == "True")
}
