//! Pods for work beside members, and what all pods have in common. Pure.
//!
//! All of them keep to the strictest of the cluster's own standards: no root, no capabilities, a root file
//! system that cannot be written.

use serde_json::{Value, json};

use super::{
    labels::{self, Owned, Part},
    scripts,
    settings::{Settings, Spread},
};
use crate::model::{
    ids::DeploymentId,
    limits::kubernetes::{BENCH_POD_LIFE, POD_MEMORY_BYTES_MIN, STAGE_POD_LIFE},
    server::{FILES, HOME, STAGE, Task},
};

/// Who runs what is in pods.
const USER: u32 = 10_001;
/// Memory of a container of tools, in bytes.
const TOOLS_MEMORY_BYTES: u64 = 64 * 1024 * 1024;

/// The container that holds a volume or a file.
pub(super) const HOLD: &str = "hold";
/// The container before a program that brings what that needs.
pub(super) const PREPARE: &str = "prepare";
/// The container of a task.
pub(super) const TASK: &str = "task";

/// Where a pod may run, for the sake of volumes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pin {
    /// Whether its volume is still to be made, and comes to be where the pod does.
    pub(super) is_first: bool,
    /// The node that its volume is used on already.
    pub(super) node: Option<String>,
    /// Nodes that the volumes of the deployment's other members were made for; of no account to a volume
    /// that is there.
    pub(super) apart_from: Vec<String>,
}

/// Puts the places of a member's pod into an argument.
pub(super) fn fill_in(text: &str) -> String {
    text.replace(HOME, "/member/home")
        .replace(FILES, "/files")
        .replace(STAGE, "/stage")
}

/// Names and values of an environment, with the places of a pod. A program that gives memory back only when it
/// has to is told when that is, so that the kernel does not end it for what it no longer needs: one of Go's
/// runtime, by the variable that this has for it. Others take no notice.
pub(super) fn env(all: &[(&str, String)], memory_bytes: u64) -> Value {
    let variable =
        |(name, value): &(&str, String)| json!({ "name": name, "value": fill_in(value) });
    let most = memory_bytes.max(POD_MEMORY_BYTES_MIN) / 10 * 9;
    let most = json!({ "name": "GOMEMLIMIT", "value": most.to_string() });
    all.iter().map(variable).chain([most]).collect()
}

/// What all pods have. `grace`: seconds.
pub(super) fn spec(settings: &Settings, grace: u64, affinity: Value) -> Value {
    let mut spec = json!({
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": grace,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "affinity": affinity,
    });
    if !settings.node_selector.is_empty() {
        spec["nodeSelector"] = json!(settings.node_selector);
    }
    if !settings.tolerations.is_empty() {
        spec["tolerations"] = json!(settings.tolerations);
    }
    if let Some(class) = &settings.priority_class {
        spec["priorityClassName"] = json!(class);
    }
    spec
}

/// What keeps a container within its bounds.
pub(super) fn container_security() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": { "drop": ["ALL"] },
    })
}

/// What a container gets: memory in bytes, and as much of a processor as is free.
pub(super) fn resources(memory_bytes: u64, milli_cpu: u32) -> Value {
    let memory = memory_bytes.max(POD_MEMORY_BYTES_MIN).to_string();
    json!({
        "requests": { "cpu": format!("{milli_cpu}m"), "memory": memory },
        "limits": { "memory": memory },
    })
}

/// A container of tools.
pub(super) fn tools(settings: &Settings, name: &str, command: Vec<String>, mounts: Value) -> Value {
    json!({
        "name": name,
        "image": settings.tools_image,
        "command": command,
        "resources": resources(TOOLS_MEMORY_BYTES, 5),
        "securityContext": container_security(),
        "volumeMounts": mounts,
    })
}

/// The container before a program of which nothing is known but its image.
pub(super) fn prepare(settings: &Settings, args: &[&str], more: &[Value]) -> Value {
    let mut mounts = vec![
        json!({ "name": "member", "mountPath": "/member" }),
        json!({ "name": "tools", "mountPath": "/tools" }),
    ];
    mounts.extend_from_slice(more);
    let command = scripts::command(scripts::PREPARE, args);
    tools(settings, PREPARE, command, mounts.into())
}

/// Nodes that a pod may run on.
pub(super) fn node_affinity(settings: &Settings, pin: &Pin) -> Option<Value> {
    let by_name = |operator: &str, names: &[String]| {
        json!({ "matchFields": [{
            "key": "metadata.name", "operator": operator, "values": names,
        }] })
    };
    if let Some(node) = &pin.node {
        let there = by_name("In", std::slice::from_ref(node));
        return Some(json!({ "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [there],
        } }));
    }
    // Of names of nodes, an expression may have one value alone.
    let other =
        |node: &String| json!({ "key": "metadata.name", "operator": "NotIn", "values": [node] });
    let others: Vec<Value> = pin.apart_from.iter().map(other).collect();
    if others.is_empty() {
        return None;
    }
    let apart = json!({ "matchFields": others });
    Some(match settings.spread {
        Spread::Required => json!({ "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [apart],
        } }),
        Spread::Preferred => json!({ "preferredDuringSchedulingIgnoredDuringExecution": [
            { "weight": 100, "preference": apart },
        ] }),
    })
}

fn affinity(settings: &Settings, pin: &Pin) -> Value {
    match node_affinity(settings, pin) {
        Some(nodes) => json!({ "nodeAffinity": nodes }),
        None => json!({}),
    }
}

fn pod(settings: &Settings, name: &str, of: &Owned<'_>, spec: Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": settings.namespace,
            "labels": of.labels(settings),
        },
        "spec": spec,
    })
}

/// The volume of a member, in a pod.
pub(super) fn member_volume(deployment: &DeploymentId, member: &str) -> Value {
    let claim = labels::member_name(deployment, member);
    json!({ "name": "member", "persistentVolumeClaim": { "claimName": claim } })
}

/// A pod that holds a member's volume, for commands that work on it.
pub(super) fn bench(
    settings: &Settings,
    deployment: &DeploymentId,
    member: &str,
    pin: &Pin,
) -> Value {
    let life = BENCH_POD_LIFE.as_secs().to_string();
    let command = scripts::command(scripts::HOLD, &[&life, "/member/home"]);
    let mounts = json!([{ "name": "member", "mountPath": "/member" }]);
    let mut spec = spec(settings, 1, affinity(settings, pin));
    spec["restartPolicy"] = json!("Never");
    spec["volumes"] = json!([member_volume(deployment, member)]);
    spec["containers"] = json!([tools(settings, HOLD, command, mounts)]);
    let name = labels::bench_name(deployment, member);
    let of = Owned::of(deployment, member, Part::Bench);
    pod(settings, &name, &of, spec)
}

/// A pod that holds a file of `bytes` for tasks of a deployment.
pub(super) fn stage(
    settings: &Settings,
    deployment: &DeploymentId,
    file: &str,
    bytes: u64,
) -> Value {
    let life = STAGE_POD_LIFE.as_secs().to_string();
    let command = scripts::command(scripts::HOLD, &[&life, "/stage"]);
    let mounts = json!([{ "name": "stage", "mountPath": "/stage" }]);
    let mut holder = tools(settings, HOLD, command, mounts);
    holder["resources"]["requests"]["ephemeral-storage"] = json!(bytes.to_string());
    let mut spec = spec(settings, 1, json!({}));
    spec["restartPolicy"] = json!("Never");
    spec["volumes"] = json!([{ "name": "stage", "emptyDir": {} }]);
    spec["containers"] = json!([holder]);
    let name = labels::stage_name(deployment, file);
    let of = Owned {
        deployment,
        member: None,
        part: Part::Stage,
    };
    let mut pod = pod(settings, &name, &of, spec);
    pod["metadata"]["annotations"] = json!({ STAGED_FILE: file });
    pod
}

/// The annotation with the name of the file that a pod holds.
pub(super) const STAGED_FILE: &str = "compose-broker/file";
/// The annotation with the length of that file, once it is whole.
pub(super) const STAGED_BYTES: &str = "compose-broker/bytes";

/// What a task's pod is made of.
pub(super) struct TaskPod<'a> {
    pub(super) deployment: &'a DeploymentId,
    pub(super) member: &'a str,
    pub(super) task: &'a Task,
    pub(super) image: &'a str,
    /// The secret with the member's files; none where it has none.
    pub(super) files: Option<&'a str>,
    /// The staged files that it is brought, in bytes; none where it is brought none.
    pub(super) staged_bytes: Option<u64>,
}

/// The pod of a task beside a member's data.
pub(super) fn task(settings: &Settings, of: &TaskPod<'_>, pin: &Pin) -> Value {
    let stage = json!({ "name": "stage", "mountPath": "/stage" });
    let waits = if of.staged_bytes.is_some() {
        "staged"
    } else {
        ""
    };
    let mut volumes = vec![
        member_volume(of.deployment, of.member),
        json!({ "name": "tools", "emptyDir": {} }),
        json!({ "name": "stage", "emptyDir": {} }),
        json!({ "name": "scratch", "emptyDir": {} }),
    ];
    let mut mounts = vec![
        json!({ "name": "member", "mountPath": "/member" }),
        json!({ "name": "tools", "mountPath": "/tools", "readOnly": true }),
        stage.clone(),
        json!({ "name": "scratch", "mountPath": "/tmp" }),
    ];
    if let Some(secret) = of.files {
        volumes.push(files_volume(secret));
        mounts.push(json!({ "name": "files", "mountPath": "/files", "readOnly": true }));
    }
    let mut args = vec![of.task.program.binary.to_owned()];
    args.extend(of.task.args.iter().map(|arg| fill_in(arg)));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut container = json!({
        "name": TASK,
        "image": of.image,
        "command": scripts::beside(scripts::TASK, &args),
        "env": env(&of.task.env, of.task.resources.memory_bytes),
        "resources": resources(of.task.resources.memory_bytes, 50),
        "securityContext": container_security(),
        "volumeMounts": mounts,
    });
    if let Some(bytes) = of.staged_bytes {
        container["resources"]["requests"]["ephemeral-storage"] = json!(bytes.to_string());
    }
    let mut spec = spec(settings, 1, affinity(settings, pin));
    spec["restartPolicy"] = json!("Never");
    spec["volumes"] = json!(volumes);
    spec["initContainers"] = json!([prepare(settings, &["", "", waits], &[stage])]);
    spec["containers"] = json!([container]);
    let name = labels::task_name(of.deployment, of.member);
    pod(
        settings,
        &name,
        &Owned::of(of.deployment, of.member, Part::Task),
        spec,
    )
}

/// The volume with the files that a member is given.
pub(super) fn files_volume(secret: &str) -> Value {
    // Octal 440: who is not the owner reads it by the group that the pod has.
    json!({ "name": "files", "secret": { "secretName": secret, "defaultMode": 288 } })
}
