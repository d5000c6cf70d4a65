//! Files for the tasks of a deployment. Each is held by a pod of its own, on the disk of that pod's node,
//! and is brought to each task that names it.
//!
//! Invariant: a file counts once its pod says how long it is, which is said when all of it is there.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::{
    cluster::{Cluster, Result},
    ending::EndsWithIt,
    exec::{self, Container},
    labels::{self, Owned, Part},
    pods::{self, HOLD, STAGED_BYTES, STAGED_FILE},
    scripts, seen, volume,
};
use crate::{
    model::{ids::DeploymentId, limits::kubernetes::POD_START_WAIT},
    provisioner::ProvisionerError,
    stream::ByteStream,
};

/// A file on the stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Staged {
    pub(super) file: String,
    /// Its length.
    pub(super) bytes: u64,
    pod: String,
}

/// See [`crate::workbench::Workbench::stage`].
pub(super) async fn put(
    cluster: &Arc<Cluster>,
    deployment: &DeploymentId,
    file: &str,
    bytes_expected: u64,
    content: ByteStream,
) -> Result<()> {
    volume::check_room(cluster, bytes_expected).await?;
    let name = labels::stage_name(deployment, file);
    let pod = pods::stage(&cluster.settings, deployment, file, bytes_expected);
    let make = {
        let (id, name) = (deployment.clone(), name.clone());
        |cluster: Arc<Cluster>| async move {
            cluster.end_pod_named(&id, &name).await?;
            Ok(cluster.client.create::<Pod>(&pod).await?)
        }
    };
    let made = cluster.change(deployment, None, make).await?;
    let unfinished = EndsWithIt::new(cluster, &made);
    let runs = |pod: &Pod| seen::runs(pod, HOLD);
    cluster.started(&name, POD_START_WAIT, runs).await?;
    let at = Container {
        pod: name.clone(),
        name: HOLD,
    };
    let bytes = receive(cluster, &at, file, content).await?;
    let whole = json!({ "metadata": { "annotations": { STAGED_BYTES: bytes.to_string() } } });
    cluster.client.change::<Pod>(&name, &whole).await?;
    unfinished.keep();
    Ok(())
}

/// Has a container write a file; returns its length.
async fn receive(
    cluster: &Cluster,
    at: &Container,
    file: &str,
    content: ByteStream,
) -> Result<u64> {
    let command = scripts::command(scripts::RECEIVE, &[file]);
    exec::pour(&cluster.client, at, &command, content).await
}

/// Removes a file from the stage; one that is not there is fine.
pub(super) async fn remove(
    cluster: &Arc<Cluster>,
    deployment: &DeploymentId,
    file: &str,
) -> Result<()> {
    let (id, name) = (deployment.clone(), labels::stage_name(deployment, file));
    let end = |cluster: Arc<Cluster>| async move { cluster.end_pod_named(&id, &name).await };
    cluster.change(deployment, None, end).await
}

/// The files that are whole.
pub(super) async fn list(cluster: &Cluster, deployment: &DeploymentId) -> Result<Vec<Staged>> {
    let of = Owned {
        deployment,
        member: None,
        part: Part::Stage,
    };
    let pods: Vec<Pod> = cluster.client.list(&of.selector(&cluster.settings)).await?;
    let staged = |pod: &Pod| {
        let annotations = pod.metadata.annotations.as_ref()?;
        if seen::is_ending(pod) || !seen::runs(pod, HOLD) {
            return None;
        }
        Some(Staged {
            file: annotations.get(STAGED_FILE)?.clone(),
            bytes: annotations.get(STAGED_BYTES)?.parse().ok()?,
            pod: pod.metadata.name.clone()?,
        })
    };
    Ok(pods.iter().filter_map(staged).collect())
}

/// Brings a file to a container that has the stage of a task.
pub(super) async fn bring(cluster: &Cluster, staged: &Staged, to: &Container) -> Result<()> {
    let from = Container {
        pod: staged.pod.clone(),
        name: HOLD,
    };
    let path = format!("/stage/{}", staged.file);
    let bytes = staged.bytes.to_string();
    let command = scripts::command(scripts::READ, &[&path, "0", &bytes]);
    let content = exec::read(&cluster.client, &from, &command).await?;
    let brought = receive(cluster, to, &staged.file, content).await?;
    if brought == staged.bytes {
        return Ok(());
    }
    Err(ProvisionerError::Io {
        doing: format!("bringing {} to a task", staged.file),
        source: std::io::ErrorKind::UnexpectedEof.into(),
    })
}
