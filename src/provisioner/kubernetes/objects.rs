//! What a member is made of, as objects of the API server. Pure.
//!
//! Each member has a set of its own, of one pod: two members may differ in version, and which of them is
//! changed first is the broker's to say. So a change of the set restarts nothing by itself.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    labels::{self, Owned, Part},
    place::{self, By},
    pods::{self, Pin},
    scripts,
    settings::{BrokerPlace, Settings, Spread},
};
use crate::model::{
    address::{Address, Network},
    ids::DeploymentId,
    limits::{HANG_AFTER, MEMBER_LOG_BYTES_MAX, STOP_GRACE, kubernetes::POD_VOLUME_BYTES_MIN},
    repair::hang_patience,
    server::{Resources, Server},
    version::Version,
};

/// The container of a member's server.
pub(super) const SERVER: &str = "server";
/// The container beside it, which shows what it prints.
pub(super) const KEEPER: &str = "log";

/// The annotation of a set: its member in words of ours.
const DESCRIBED: &str = "compose-broker/described";
/// The annotation of a set: how often the broker itself started the member anew.
pub(super) const RESTARTS: &str = "compose-broker/restarts";
/// The annotation of a pod: what it runs, as a hash.
pub(super) const RUNS: &str = "compose-broker/runs";

/// What is written down about a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Described {
    pub(super) version: Version,
    pub(super) addresses: BTreeMap<String, Address>,
    /// Its server by all that a process is started with, as a hash.
    pub(super) runs: String,
    /// The secret with its files.
    pub(super) secret: String,
}

impl Described {
    pub(super) fn of(server: &Server) -> Self {
        let files = server.files.iter();
        let files: BTreeMap<&str, String> = files
            .map(|file| (file.name, labels::sha256(file.contents.expose())))
            .collect();
        let of_files = labels::sha256(&json!(files).to_string());
        // What is asked before a start changes nothing of what runs, and where it listens, its arguments say.
        let started = json!({
            "engine": server.program.engine,
            "version": server.program.version,
            "binary": server.program.binary,
            "args": server.args,
            "env": server.env,
            "files": of_files,
        });
        let name = labels::member_name(&server.deployment, &server.member);
        Self {
            version: server.program.version,
            addresses: server.addresses.clone(),
            runs: labels::sha256(&started.to_string()),
            secret: format!("{name}-{}", &of_files[..12]),
        }
    }

    /// What a set says of its member; none where it says nothing that can be read.
    pub(super) fn in_set(set: &StatefulSet) -> Option<Self> {
        let annotations = set.metadata.annotations.as_ref()?;
        serde_json::from_str(annotations.get(DESCRIBED)?).ok()
    }
}

fn object(settings: &Settings, (version, kind): (&str, &str), name: &str, of: &Owned<'_>) -> Value {
    json!({
        "apiVersion": version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": settings.namespace,
            "labels": of.labels(settings),
        },
    })
}

fn of_server(server: &Server) -> Owned<'_> {
    Owned::of(&server.deployment, &server.member, Part::Member)
}

/// The files that a member is given. It has a name of its own for each content, so that no pod is given
/// those of before.
pub(super) fn secret(settings: &Settings, server: &Server, described: &Described) -> Value {
    let kind = ("v1", "Secret");
    let mut secret = object(settings, kind, &described.secret, &of_server(server));
    let files = server.files.iter();
    let files: BTreeMap<&str, &str> = files
        .map(|file| (file.name, file.contents.expose()))
        .collect();
    secret["immutable"] = json!(true);
    secret["stringData"] = json!(files);
    secret
}

/// How large the volume of a member is, in bytes: its home, and its logs beside it.
pub(super) fn volume_bytes(resources: &Resources) -> u64 {
    let logs = 3 * MEMBER_LOG_BYTES_MAX;
    (resources.disk_bytes.saturating_add(logs)).max(POD_VOLUME_BYTES_MIN)
}

/// The volume of a member.
pub(super) fn claim(
    settings: &Settings,
    deployment: &DeploymentId,
    member: &str,
    bytes: u64,
) -> Value {
    let name = labels::member_name(deployment, member);
    let of = Owned::of(deployment, member, Part::Member);
    let mut claim = object(settings, ("v1", "PersistentVolumeClaim"), &name, &of);
    claim["spec"] = json!({
        "accessModes": ["ReadWriteOnce"],
        "resources": { "requests": { "storage": bytes.to_string() } },
    });
    if let Some(class) = &settings.storage_class {
        claim["spec"]["storageClassName"] = json!(class);
    }
    claim
}

/// The name by which a member is found, also before it serves: the others wait for it then.
pub(super) fn service(settings: &Settings, server: &Server) -> Value {
    let name = labels::member_name(&server.deployment, &server.member);
    let mut service = object(settings, ("v1", "Service"), &name, &of_server(server));
    let is_inside = |address: &Address| {
        place::by(address, settings, &server.deployment, &server.member) == By::Service
    };
    service["spec"] = json!({
        "clusterIP": "None",
        "publishNotReadyAddresses": true,
        "selector": of_server(server).labels(settings),
    });
    let ports = service_ports(&server.addresses, is_inside);
    if !ports.is_empty() {
        service["spec"]["ports"] = json!(ports);
    }
    service
}

/// The name of a member's ports of the nodes.
pub(super) fn node_service_name(deployment: &DeploymentId, member: &str) -> String {
    format!("{}-nodes", labels::member_name(deployment, member))
}

/// A member's ports of the nodes; none where it has none.
pub(super) fn node_service(settings: &Settings, server: &Server) -> Option<Value> {
    let is_of_nodes = |address: &Address| {
        place::by(address, settings, &server.deployment, &server.member) == By::Node
    };
    let mut ports = service_ports(&server.addresses, is_of_nodes);
    for port in &mut ports {
        port["nodePort"] = port["port"].clone();
    }
    let name = node_service_name(&server.deployment, &server.member);
    let mut service = object(settings, ("v1", "Service"), &name, &of_server(server));
    service["spec"] = json!({
        "type": "NodePort",
        "publishNotReadyAddresses": true,
        "selector": of_server(server).labels(settings),
        "ports": ports,
    });
    (!ports.is_empty()).then_some(service)
}

/// The name of a member's load balancer.
pub(super) fn balancer_name(deployment: &DeploymentId, member: &str) -> String {
    format!("{}-balancer", labels::member_name(deployment, member))
}

/// The load balancer of a member that has these addresses; none where it has none.
pub(super) fn balancer(
    settings: &Settings,
    deployment: &DeploymentId,
    member: &str,
    addresses: &BTreeMap<String, Address>,
) -> Option<Value> {
    let is_balanced =
        |address: &Address| place::by(address, settings, deployment, member) == By::Balancer;
    let ports = service_ports(addresses, is_balanced);
    let name = balancer_name(deployment, member);
    let of = Owned::of(deployment, member, Part::Member);
    let mut service = object(settings, ("v1", "Service"), &name, &of);
    let told = &settings.balancers;
    if !told.annotations.is_empty() {
        service["metadata"]["annotations"] = json!(told.annotations);
    }
    service["spec"] = json!({
        "type": "LoadBalancer",
        "publishNotReadyAddresses": true,
        "selector": of.labels(settings),
        "ports": ports,
    });
    if let Some(class) = &told.class {
        service["spec"]["loadBalancerClass"] = json!(class);
    }
    (!ports.is_empty()).then_some(service)
}

fn service_ports(
    addresses: &BTreeMap<String, Address>,
    is_its: impl Fn(&Address) -> bool,
) -> Vec<Value> {
    addresses
        .iter()
        .filter(|(_, address)| is_its(address))
        .map(|(name, address)| {
            json!({
                "name": name,
                "port": address.port,
                "targetPort": address.port,
                "protocol": "TCP",
            })
        })
        .collect()
}

/// Who gets to a member: the others and the broker, and all who find it where it is open. What comes by
/// ports of nodes or a load balancer has the address of a node, not of who sent it.
pub(super) fn policy(settings: &Settings, server: &Server) -> Value {
    let name = labels::member_name(&server.deployment, &server.member);
    let kind = ("networking.k8s.io/v1", "NetworkPolicy");
    let mut policy = object(settings, kind, &name, &of_server(server));
    let is_for_all = |address: &&Address| {
        let by = place::by(address, settings, &server.deployment, &server.member);
        address.network == Some(Network::Open) || by != By::Service
    };
    let (open, closed): (Vec<&Address>, Vec<&Address>) =
        server.addresses.values().partition(is_for_all);
    let ports = |of: &[&Address]| -> Vec<Value> {
        let port = |address: &&Address| json!({ "port": address.port, "protocol": "TCP" });
        of.iter().map(port).collect()
    };
    let deployment = server.deployment.as_str();
    let mut within = vec![json!({
        "podSelector": { "matchLabels": { labels::DEPLOYMENT: deployment } },
    })];
    if settings.broker == BrokerPlace::Inside {
        within.push(json!({
            "namespaceSelector": {},
            "podSelector": { "matchLabels": { "app.kubernetes.io/name": "compose-broker" } },
        }));
    }
    let mut ingress = Vec::new();
    if !closed.is_empty() {
        ingress.push(json!({ "from": within, "ports": ports(&closed) }));
    }
    if !open.is_empty() {
        ingress.push(json!({ "ports": ports(&open) }));
    }
    policy["spec"] = json!({
        "podSelector": { "matchLabels": of_server(server).labels(settings) },
        "policyTypes": ["Ingress"],
        "ingress": ingress,
    });
    policy
}

/// How many members of a deployment have to serve for one to be taken away for the sake of its node: most of
/// those that are to run, of three two. A member that the broker has stopped is none of these, so that none
/// is taken beside it; a fixed number that may be away would be counted from the two that are left. One that
/// is sick keeps no node from being emptied.
pub(super) fn budget(settings: &Settings, deployment: &DeploymentId) -> Value {
    let of = Owned {
        deployment,
        member: None,
        part: Part::Deployment,
    };
    let name = labels::deployment_name(deployment);
    let mut budget = object(settings, ("policy/v1", "PodDisruptionBudget"), &name, &of);
    let members = Owned {
        part: Part::Member,
        ..of
    };
    budget["spec"] = json!({
        "minAvailable": "51%",
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": { "matchLabels": members.labels(settings) },
    });
    budget
}

/// The set of a member, which keeps its pod running. `restarts`: how often the broker started it anew.
pub(super) fn set(
    settings: &Settings,
    server: &Server,
    described: &Described,
    image: &str,
    pin: &Pin,
    restarts: u32,
) -> Value {
    let of = of_server(server);
    let name = labels::member_name(&server.deployment, &server.member);
    let mut set = object(settings, ("apps/v1", "StatefulSet"), &name, &of);
    set["metadata"]["annotations"] = json!({
        DESCRIBED: json!(described).to_string(),
        RESTARTS: restarts.to_string(),
    });
    set["spec"] = json!({
        "replicas": 1,
        "serviceName": name,
        "revisionHistoryLimit": 1,
        "updateStrategy": { "type": "OnDelete" },
        "selector": { "matchLabels": of.labels(settings) },
        "template": {
            "metadata": {
                "labels": of.labels(settings),
                "annotations": { RUNS: described.runs },
            },
            "spec": pod_spec(settings, server, described, image, pin),
        },
    });
    set
}

fn pod_spec(
    settings: &Settings,
    server: &Server,
    described: &Described,
    image: &str,
    pin: &Pin,
) -> Value {
    // Time to hand over what it leads, before it is killed.
    let grace = 3 * STOP_GRACE.as_secs();
    let mut spec = pods::spec(settings, grace, affinity(settings, server, pin));
    let (folder, suffix) = server.data.as_ref().map_or(("", ""), |data| {
        (data.folder.as_str(), data.suffix.as_str())
    });
    let mut args = vec![folder.to_owned(), suffix.to_owned()];
    args.push(server.program.binary.to_owned());
    args.extend(server.args.iter().map(|arg| pods::fill_in(arg)));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let ports = server.addresses.iter();
    let ports: Vec<Value> = ports
        .map(|(name, address)| json!({ "name": name, "containerPort": address.port }))
        .collect();
    let log_bytes = MEMBER_LOG_BYTES_MAX.to_string();
    let keep = scripts::command(scripts::KEEP, &[&log_bytes]);
    let mounts = json!([{ "name": "member", "mountPath": "/member" }]);
    let mut keeper = pods::tools(settings, KEEPER, keep, mounts);
    // It begins before the server, and goes on beside it.
    keeper["restartPolicy"] = json!("Always");
    spec["initContainers"] = json!([keeper, pods::prepare(settings, &[folder, suffix, ""], &[])]);
    let mut container = json!({
        "name": SERVER,
        "image": image,
        "command": scripts::beside(scripts::SERVE, &args),
        "env": pods::env(&server.env, server.resources.memory_bytes),
        "ports": ports,
        "resources": pods::resources(server.resources.memory_bytes, 50),
        "securityContext": pods::container_security(),
        "volumeMounts": [
            { "name": "member", "mountPath": "/member" },
            { "name": "files", "mountPath": "/files", "readOnly": true },
            { "name": "tools", "mountPath": "/tools", "readOnly": true },
            { "name": "scratch", "mountPath": "/tmp" },
        ],
    });
    if let Some(probes) = probes(server) {
        container["readinessProbe"] = probes.ready;
        container["startupProbe"] = probes.begun;
        container["livenessProbe"] = probes.alive;
    }
    spec["containers"] = json!([container]);
    spec["topologySpreadConstraints"] = json!([over_zones(settings, server)]);
    spec["volumes"] = json!([
        pods::member_volume(&server.deployment, &server.member),
        pods::files_volume(&described.secret),
        { "name": "tools", "emptyDir": {} },
        { "name": "scratch", "emptyDir": {} },
    ]);
    spec
}

/// What a node asks a member's server.
struct Probes {
    /// Whether it counts among those that serve, for the budget of its deployment; one that does not say so
    /// counts when it runs. Who finds it does not depend on it.
    ready: Value,
    /// Whether it has served once; it may take any time for that. One that begins serves nobody before it has
    /// found a majority, and to end it would bring none.
    begun: Value,
    /// Whether it hangs: from then on it is ended and started anew. The broker does so, too, and is less patient
    /// and knows more; this is for when it is away.
    alive: Value,
}

fn probes(server: &Server) -> Option<Probes> {
    const PERIOD_SECONDS: u64 = 15;
    let probe = server.probe.as_ref()?;
    let port = server.addresses.get(probe.port)?.port;
    let at = |path: &str| json!({ "scheme": "HTTPS", "port": port, "path": path });
    // The broker reckons with what a member has, and this with all that it may have.
    let patience = hang_patience(HANG_AFTER, server.resources.disk_bytes);
    Some(Probes {
        ready: json!({
            "httpGet": at(probe.path),
            "periodSeconds": 5,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        }),
        begun: json!({
            "httpGet": at(probe.alive),
            "periodSeconds": 1,
            "timeoutSeconds": 5,
            "failureThreshold": i32::MAX,
        }),
        alive: json!({
            "httpGet": at(probe.alive),
            "periodSeconds": PERIOD_SECONDS,
            "timeoutSeconds": PERIOD_SECONDS,
            "failureThreshold": patience.as_secs().div_ceil(PERIOD_SECONDS),
        }),
    })
}

/// Members are in different zones, where nodes are in some and there are enough of them.
fn over_zones(settings: &Settings, server: &Server) -> Value {
    json!({
        "maxSkew": 1,
        "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": { "matchLabels": members(server).labels(settings) },
    })
}

/// All members of a server's deployment.
fn members(server: &Server) -> Owned<'_> {
    Owned {
        deployment: &server.deployment,
        member: None,
        part: Part::Member,
    }
}

/// Members keep apart, and a volume that is still to be made goes where no other member's is.
fn affinity(settings: &Settings, server: &Server, pin: &Pin) -> Value {
    let others = json!({
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": { "matchLabels": members(server).labels(settings) },
    });
    let mut affinity = json!({ "podAntiAffinity": match settings.spread {
        Spread::Required => json!({ "requiredDuringSchedulingIgnoredDuringExecution": [others] }),
        Spread::Preferred => json!({ "preferredDuringSchedulingIgnoredDuringExecution": [
            { "weight": 100, "podAffinityTerm": others },
        ] }),
    } });
    let apart = Pin {
        node: None,
        ..pin.clone()
    };
    if let Some(nodes) = pods::node_affinity(settings, &apart) {
        affinity["nodeAffinity"] = nodes;
    }
    affinity
}

#[cfg(test)]
mod tests;
