//! Commands of engines that run once beside a member's data, each in a pod of its own.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::{
    cluster::{Cluster, Result, name_taken, until},
    ending::EndsWithIt,
    exec::{self, Container},
    labels,
    objects::{self, Described},
    pods::{self, PREPARE, Pin, TASK, TaskPod},
    scripts,
    seen::{self, Exit},
    stage::{self, Staged},
    volume,
};
use crate::{
    model::{
        ids::DeploymentId,
        limits::{
            TASK_ERROR_BYTES_MAX, TASK_OUTPUT_BYTES_MAX,
            kubernetes::{BENCH_COMMAND_TIMEOUT, POD_START_WAIT},
        },
        server::{STAGE, Task},
    },
    provisioner::ProvisionerError,
};

/// See [`crate::workbench::Workbench::run`].
pub(super) async fn run(
    cluster: &Arc<Cluster>,
    deployment: &DeploymentId,
    member: &str,
    task: &Task,
) -> Result<String> {
    let image = cluster.settings.image(&task.program);
    let image = image.ok_or_else(|| ProvisionerError::NotInstalled {
        engine: task.program.engine.to_owned(),
        version: task.program.version,
    })?;
    let staged = named_files(task, stage::list(cluster, deployment).await?);
    let make = {
        let (deployment, member) = (deployment.clone(), member.to_owned());
        let (task, image) = (task.clone(), image.to_owned());
        let bytes = staged.iter().map(|file| file.bytes).sum();
        let staged_bytes = (!staged.is_empty()).then_some(bytes);
        move |cluster: Arc<Cluster>| async move {
            make(&cluster, &deployment, &member, &task, &image, staged_bytes).await
        }
    };
    // It ends with this future, however that ends.
    let _ends = cluster.change(deployment, Some(member), make).await?;
    let name = labels::task_name(deployment, member);
    if !staged.is_empty() {
        bring(cluster, &name, &staged).await?;
    }
    let begun = |pod: &Pod| seen::runs(pod, TASK) || seen::exit(pod, TASK).is_some();
    cluster.started(&name, POD_START_WAIT, begun).await?;
    let ended = until(task.timeout, || async {
        let pod: Option<Pod> = cluster.client.find(&name).await?;
        let pod = pod.ok_or_else(|| gone(&name))?;
        Ok(seen::exit(&pod, TASK))
    });
    let binary = task.program.binary;
    let Some(exit) = ended.await? else {
        return Err(ProvisionerError::TaskTimeout {
            binary,
            timeout: task.timeout,
        });
    };
    let client = &cluster.client;
    let output = client.printed(&name, TASK, TASK_OUTPUT_BYTES_MAX).await?;
    match exit.code {
        0 => Ok(output),
        _ => Err(ProvisionerError::TaskFailed {
            binary,
            status: status(&exit),
            output: last_words(&output, &exit),
        }),
    }
}

/// Ends what is left of a member's task.
pub(super) async fn end(cluster: &Cluster, deployment: &DeploymentId, member: &str) -> Result<()> {
    cluster
        .end_pod_named(deployment, &labels::task_name(deployment, member))
        .await
}

fn gone(name: &str) -> ProvisionerError {
    ProvisionerError::NotStarted {
        what: format!("pod {name}"),
        told: "somebody has deleted it",
        why: String::new(),
    }
}

fn status(exit: &Exit) -> String {
    match exit.reason.as_str() {
        "" | "Error" => format!("exit status: {}", exit.code),
        reason => format!("exit status: {}, {reason}", exit.code),
    }
}

/// The end of everything that it printed, to explain a failure.
fn last_words(output: &str, exit: &Exit) -> String {
    let from = output.len().saturating_sub(TASK_ERROR_BYTES_MAX);
    let output = &output[output.floor_char_boundary(from)..];
    let words = [output.trim(), exit.message.trim()].join("\n");
    words.trim().to_owned()
}

/// Those of the staged files that a task names.
fn named_files(task: &Task, staged: Vec<Staged>) -> Vec<Staged> {
    let env = task.env.iter().map(|(_, value)| value);
    let texts: Vec<&String> = task.args.iter().chain(env).collect();
    let is_named = |file: &Staged| {
        let path = format!("{STAGE}/{}", file.file);
        texts.iter().any(|text| text.contains(&path))
    };
    staged.into_iter().filter(is_named).collect()
}

/// Makes the pod of a task in the place of an earlier one.
async fn make(
    cluster: &Arc<Cluster>,
    deployment: &DeploymentId,
    member: &str,
    task: &Task,
    image: &str,
    staged_bytes: Option<u64>,
) -> Result<EndsWithIt> {
    let name = labels::task_name(deployment, member);
    cluster.end_pod_named(deployment, &name).await?;
    // A member that is seeded has no volume yet. One that it has is as large as its server needs.
    if cluster.claim(deployment, member).await?.is_none() {
        let bytes = objects::volume_bytes(&task.resources);
        volume::claim(cluster, deployment, member, bytes).await?;
    }
    let set = cluster.set(deployment, member).await?;
    let described = set.as_ref().and_then(Described::in_set);
    let pod = TaskPod {
        deployment,
        member,
        task,
        image,
        files: described.as_ref().map(|of| of.secret.as_str()),
        staged_bytes,
    };
    let pod = |pin: &Pin| pods::task(&cluster.settings, &pod, pin);
    let made = volume::make_user(cluster, deployment, member, pod).await?;
    made.ok_or_else(|| name_taken::<Pod>(&name))
}

/// Brings a task what it waits for.
async fn bring(cluster: &Cluster, name: &str, staged: &[Staged]) -> Result<()> {
    let waits = |pod: &Pod| seen::runs(pod, PREPARE);
    cluster.started(name, POD_START_WAIT, waits).await?;
    let to = Container {
        pod: name.to_owned(),
        name: PREPARE,
    };
    for file in staged {
        stage::bring(cluster, file, &to).await?;
    }
    let whole = scripts::command(": >/stage/.whole", &[]);
    let limit = BENCH_COMMAND_TIMEOUT;
    let ended = exec::run(&cluster.client, &to, &whole, limit, 0).await?;
    ended.well("telling a task that its files are there")?;
    Ok(())
}
