//! What databases in a cluster cost: figures that are printed, in docs/performance.md. No others run beside them.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read as _, Seek as _},
    path::Path,
    process::{Child, Command},
    time::Duration,
};

use procfs::process::Process;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    apply,
    databases::{Databases, is_ready, name, waited},
    kubeconfig, kubectl, namespace, try_fed,
};
use crate::{control::surroundings, process::BrokerProcess};

/// What a database is made of, beside the pods that the cluster makes of its sets.
const KINDS: [&str; 6] = [
    "secrets",
    "persistentvolumeclaims",
    "services",
    "networkpolicies",
    "poddisruptionbudgets",
    "statefulsets",
];
/// Members of a database.
const MEMBERS: usize = 3;
const READY_WITHIN: Duration = Duration::from_secs(120);
/// Databases of the crowd, and where it is.
const CROWD: usize = 1000;
const CROWDED: &str = "compose-broker-crowd";
/// Databases whose objects one kubectl makes.
const AT_ONCE: usize = 50;
/// The broker has heard of all when its memory has grown by less than a MiB for so long.
const SETTLED: Duration = Duration::from_secs(15);

/// Programs of kubectl that print each object of a kind when it comes and whenever it changes, each into a file.
struct Watches(Vec<(Child, File)>);

impl Watches {
    fn begin(cluster: &Databases) -> Self {
        let watch = |kind| {
            let mut command = Command::new("kubectl");
            command.arg("--kubeconfig").arg(kubeconfig());
            command.args(["get", kind, "--watch", "-o", "json"]);
            let file = tempfile::tempfile().expect("a file");
            let output = file.try_clone().expect("the same file");
            command.args(cluster.chosen()).stdout(output);
            (command.spawn().expect("kubectl"), file)
        };
        Self(KINDS.map(watch).into())
    }

    /// Each object as it was first, those of a kind after another.
    fn first(self) -> Vec<Value> {
        let mut all = Vec::new();
        for (mut watch, mut file) in self.0 {
            watch.kill().expect("it runs");
            watch.wait().expect("an end");
            file.rewind().expect("a file");
            let mut told = String::new();
            file.read_to_string(&mut told).expect("UTF-8");
            let mut first = BTreeMap::new();
            // The last one may be half an object.
            let objects = serde_json::Deserializer::from_str(&told).into_iter::<Value>();
            for object in objects.map_while(Result::ok) {
                first.entry(name(&object).to_owned()).or_insert(object);
            }
            all.extend(first.into_values());
        }
        all
    }
}

/// An object without what the API server and its controllers have added.
fn bare(mut object: Value) -> Value {
    for added in [
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "generation",
        "managedFields",
    ] {
        object["metadata"]
            .as_object_mut()
            .expect("fields")
            .remove(added);
    }
    object.as_object_mut().expect("fields").remove("status");
    // Where the first volumes happened to be: by hand they come to be elsewhere.
    let affinity = object.pointer_mut("/spec/template/spec/affinity");
    if let Some(affinity) = affinity.and_then(Value::as_object_mut) {
        affinity.remove("nodeAffinity");
    }
    if let Some(spec) = object["spec"].as_object_mut() {
        for given in ["volumeName", "clusterIP", "clusterIPs"] {
            if spec.get(given) != Some(&json!("None")) && spec.get(given) != Some(&json!(["None"]))
            {
                spec.remove(given);
            }
        }
    }
    object
}

/// Until so many pods of the cluster are ready.
async fn all_ready(cluster: &Databases, count: usize) {
    let deadline = Instant::now() + READY_WITHIN;
    while cluster.pods().iter().filter(|pod| is_ready(pod)).count() < count {
        assert!(Instant::now() < deadline, "not ready: {:?}", cluster.pods());
        sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of make kubernetes"]
async fn a_provision_beside_its_objects_by_hand() {
    let cluster = Databases::new("figures", "32200-32249");
    let mut broker = cluster.broker(&[], surroundings()).await;
    let watches = Watches::begin(&cluster);
    let begun = Instant::now();
    broker
        .provision("i", json!({ "db_version": "3.6.16" }))
        .await;
    let provision = begun.elapsed();
    broker.stop().await;
    let objects: Vec<Value> = watches.first().into_iter().map(bare).collect();
    assert!(objects.len() >= 4 * MEMBERS, "{objects:?}");
    cluster.remove();
    waited("the end of all", || async {
        cluster.left().is_empty().then_some(())
    })
    .await;

    let begun = Instant::now();
    apply(&json!({ "apiVersion": "v1", "kind": "List", "items": objects }));
    all_ready(&cluster, MEMBERS).await;
    let by_hand = begun.elapsed();
    let times = provision.as_secs_f64() / by_hand.as_secs_f64();
    println!(
        "a provision until it is usable {provision:.1?}, its {} objects by kubectl apply until all members are ready \
         {by_hand:.1?}: {times:.2} times",
        objects.len()
    );
}

/// What is a member's in a crowd, made from what one member of a real database has: all but what it is looked for by.
fn in_crowd(object: &Value, number: usize) -> Value {
    let new_name = format!("{}-{number}", name(object));
    let mut object = bare(object.clone());
    let meta = &mut object["metadata"];
    meta["name"] = new_name.into();
    meta["namespace"] = CROWDED.into();
    // No id of one: nobody takes it for a deployment that is left over.
    meta["labels"]["compose-broker/deployment"] = format!("crowd-{number}").into();
    let fields = meta.as_object_mut().expect("fields");
    fields.remove("ownerReferences");
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    let spec = &mut object["spec"];
    match kind.as_str() {
        // Nothing runs.
        "StatefulSet" => spec["replicas"] = 0.into(),
        "Pod" => {
            spec["schedulerName"] = "nobody".into();
            spec.as_object_mut().expect("fields").remove("nodeName");
        }
        // Ports of nodes are each somebody's.
        _ => {
            let ports = spec["ports"].as_array_mut().into_iter().flatten();
            for port in ports {
                port.as_object_mut().expect("fields").remove("nodePort");
            }
            // Nor does the cluster have addresses for all.
            if spec["type"] == "NodePort" {
                spec["type"] = "ClusterIP".into();
                spec["clusterIP"] = "None".into();
                spec.as_object_mut()
                    .expect("fields")
                    .remove("externalTrafficPolicy");
            }
        }
    }
    object
}

/// Memory of its own that a process has, in MiB.
fn memory(pid: u32) -> f64 {
    let status = Process::new(pid.cast_signed()).and_then(|process| process.status());
    let kib = status
        .expect("figures of the process")
        .rssanon
        .expect("memory");
    f64::from(u32::try_from(kib).expect("a small number")) / 1024.0
}

/// The memory of a broker that looks after the cluster, once it grows no more.
async fn settled(broker: &mut BrokerProcess) -> f64 {
    broker.start_again().await;
    let (mut highest, mut since) = (0.0, Instant::now());
    while since.elapsed() < SETTLED {
        let now = memory(broker.pid());
        if now > highest + 1.0 {
            (highest, since) = (now, Instant::now());
        }
        sleep(Duration::from_millis(500)).await;
    }
    let settled = memory(broker.pid());
    broker.kill();
    settled
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of make kubernetes"]
async fn what_is_known_of_a_thousand_databases_takes_little_memory() {
    let template = Databases::new("template", "32250-32299");
    let broker = template.broker(&[], surroundings()).await;
    broker
        .provision("i", json!({ "db_version": "3.6.16" }))
        .await;
    let mut members = Vec::new();
    for kind in ["statefulsets", "services", "pods"] {
        members.extend(template.all(kind));
    }
    broker.deprovision("i").await;
    drop(broker);
    namespace(CROWDED);
    let crowd = template.of(CROWDED, &kubeconfig());
    let mut process = BrokerProcess::stopped_with(|settings| {
        let folder = settings["DATA_DIR"].clone();
        let folder = Path::new(&folder).parent().expect("a folder");
        settings.insert("CLUSTERS", crowd.file(folder));
    });
    let alone = settled(&mut process).await;
    let begun = Instant::now();
    let numbers: Vec<usize> = (0..CROWD).collect();
    std::thread::scope(|scope| {
        for some in numbers.chunks(AT_ONCE) {
            let of = |number: &usize| {
                members
                    .iter()
                    .map(|of| in_crowd(of, *number))
                    .collect::<Vec<_>>()
            };
            let items: Vec<Value> = some.iter().flat_map(of).collect();
            let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
            scope.spawn(move || try_fed(&["create"], &list).expect("objects"));
        }
    });
    println!(
        "{} objects made in {:.0?}",
        CROWD * members.len(),
        begun.elapsed()
    );
    let in_crowd = settled(&mut process).await;
    println!(
        "the broker's own memory: {alone:.0} MiB without databases, {in_crowd:.0} MiB with {CROWD} of {MEMBERS} members"
    );
    kubectl(&["delete", "namespace", CROWDED, "--wait=false"]);
}
