//! The volume of a member: its claim, and commands that work on what is there.
//!
//! While the member's pod is there, commands run in the container beside its server. Else a pod is made for
//! them, which stays for a while: one command seldom comes alone.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Value, json};

use super::{
    client::CallError,
    cluster::{Cluster, Result, name_taken, until},
    ending::EndsWithIt,
    exec::{self, Container, Ended},
    labels, objects,
    objects::KEEPER,
    pods::{self, HOLD, Pin},
    quantity, scripts, seen,
};
use crate::{
    model::{
        ids::DeploymentId,
        limits::kubernetes::{
            BENCH_COMMAND_TIMEOUT, KEEPER_WAIT, POD_END_WAIT, POD_START_WAIT, POD_VOLUME_BYTES_MAX,
        },
    },
    provisioner::ProvisionerError,
};

/// What quotas call the sizes of volumes.
const STORAGE: &str = "requests.storage";
/// What one command may print, in bytes: as much as a member's last words.
const OUTPUT_BYTES_MAX: usize = 1024 * 1024;

/// Makes sure that there is a claim of a volume of `bytes` at least.
pub(super) async fn claim(
    cluster: &Cluster,
    deployment: &DeploymentId,
    member: &str,
    bytes: u64,
) -> Result<()> {
    let wanted = objects::claim(&cluster.settings, deployment, member, bytes);
    let Some(found) = cluster.claim(deployment, member).await? else {
        cluster.apply::<PersistentVolumeClaim>(&wanted).await?;
        return Ok(());
    };
    if !labels::are_ours(&found.metadata, &cluster.settings, deployment.as_str()) {
        let name = labels::member_name(deployment, member);
        return Err(name_taken::<PersistentVolumeClaim>(&name));
    }
    let has = requested(&found);
    if has >= bytes {
        return Ok(());
    }
    let grown =
        json!({ "spec": { "resources": { "requests": { "storage": bytes.to_string() } } } });
    let name = labels::member_name(deployment, member);
    let changed = cluster
        .client
        .change::<PersistentVolumeClaim>(&name, &grown)
        .await;
    match changed {
        Ok(_) => Ok(()),
        Err(error) if forbids_growth(&error) => Err(ProvisionerError::NoGrowth {
            member: member.to_owned(),
            from: has,
            to: bytes,
            why: error.message().to_owned(),
        }),
        Err(error) => Err(error.into()),
    }
}

/// Whether a volume of this kind does not grow. A quota that is used up and a right that is lacking have the same code as
/// a class that lets none grow, and may come.
fn forbids_growth(error: &CallError) -> bool {
    error.is(422) || error.is(403) && error.message().contains("resize")
}

/// The size that a claim asks for, in bytes.
fn requested(claim: &PersistentVolumeClaim) -> u64 {
    let spec = claim.spec.as_ref();
    let requests = spec.and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    let storage = requests.and_then(|all| all.get("storage"));
    storage.map_or(0, |Quantity(text)| quantity::bytes(text))
}

/// Fails when `bytes` more would not fit into the largest volume, or into what the namespace may have.
pub(super) async fn check_room(cluster: &Cluster, bytes: u64) -> Result<()> {
    fits(bytes, POD_VOLUME_BYTES_MAX)?;
    let quotas: Vec<ResourceQuota> = cluster.client.list("").await?;
    for quota in quotas {
        let Some(status) = quota.status else {
            continue;
        };
        let of = |all: Option<&BTreeMap<String, Quantity>>| {
            let storage = all.and_then(|all| all.get(STORAGE));
            storage.map(|Quantity(text)| quantity::bytes(text))
        };
        if let (Some(hard), Some(used)) = (of(status.hard.as_ref()), of(status.used.as_ref())) {
            fits(bytes, hard.saturating_sub(used))?;
        }
    }
    Ok(())
}

/// Fails when `bytes` would not fit into the largest volume, or into a namespace that is made with this quota.
pub(super) fn check_quota(hard: &BTreeMap<String, String>, bytes: u64) -> Result<()> {
    let hard = hard.get(STORAGE).map(|text| quantity::bytes(text));
    fits(bytes, hard.unwrap_or(u64::MAX).min(POD_VOLUME_BYTES_MAX))
}

fn fits(bytes: u64, free: u64) -> Result<()> {
    match bytes > free {
        true => Err(ProvisionerError::DiskFull {
            needed: bytes,
            free,
        }),
        false => Ok(()),
    }
}

/// Where commands can work on a member's volume; none where it has none. A member that is to run and whose
/// pod is not there is waited for, for a moment: another pod could keep the volume from it.
pub(super) async fn container(
    cluster: &Arc<Cluster>,
    deployment: &DeploymentId,
    member: &str,
) -> Result<Option<Container>> {
    if let Some(pod) = cluster.known_pod(deployment, member).await?
        && seen::keeps(&pod)
    {
        return Ok(Some(Container {
            pod: labels::pod_name(deployment, member),
            name: KEEPER,
        }));
    }
    if let Some(set) = cluster.set(deployment, member).await?
        && seen::is_wanted(&set)
    {
        let name = labels::pod_name(deployment, member);
        cluster.started(&name, KEEPER_WAIT, seen::keeps).await?;
        return Ok(Some(Container {
            pod: name,
            name: KEEPER,
        }));
    }
    let claim = cluster.claim(deployment, member).await?;
    let is_ours = |of: &PersistentVolumeClaim| {
        labels::are_ours(&of.metadata, &cluster.settings, deployment.as_str())
    };
    if !claim.as_ref().is_some_and(is_ours) {
        return Ok(None);
    }
    let name = labels::bench_name(deployment, member);
    match cluster.pod_named(deployment, &name).await? {
        Some(pod) if seen::is_over(&pod) || seen::is_ending(&pod) => {
            cluster.end_pod(&pod, Duration::ZERO).await?;
            make_bench(cluster, deployment, member).await?;
        }
        Some(_) => {}
        None => make_bench(cluster, deployment, member).await?,
    }
    let runs = |pod: &Pod| seen::runs(pod, HOLD);
    cluster.started(&name, POD_START_WAIT, runs).await?;
    Ok(Some(Container {
        pod: name,
        name: HOLD,
    }))
}

async fn make_bench(cluster: &Arc<Cluster>, deployment: &DeploymentId, member: &str) -> Result<()> {
    let bench = |pin: &Pin| pods::bench(&cluster.settings, deployment, member, pin);
    // Else somebody has just made it, for the same.
    if let Some(made) = make_user(cluster, deployment, member, bench).await? {
        made.keep();
    }
    Ok(())
}

/// Makes a pod that uses a member's volume; none where one of its name is there. Members run apart when their volumes
/// are, and a volume is made where the first pod is that uses it. So while the node of one is not chosen, no pod
/// is made that would choose another's: both could be the same.
pub(super) async fn make_user(
    cluster: &Arc<Cluster>,
    deployment: &DeploymentId,
    member: &str,
    pod: impl FnOnce(&Pin) -> Value,
) -> Result<Option<EndsWithIt>> {
    let placing = cluster.placing(deployment).await;
    let pin = cluster.pin(deployment, member).await?;
    let made = match cluster.client.create::<Pod>(&pod(&pin)).await {
        Err(error) if error.is(409) => return Ok(None),
        made => made?,
    };
    let ends = EndsWithIt::new(cluster, &made);
    if pin.is_first {
        let name = made.metadata.name.unwrap_or_default();
        let is_placed = |pod: &Pod| seen::node(pod).is_some();
        cluster.started(&name, POD_START_WAIT, is_placed).await?;
    }
    drop(placing);
    Ok(Some(ends))
}

/// Ends the pod that was made for commands, if there is one.
pub(super) async fn end_bench(
    cluster: &Cluster,
    deployment: &DeploymentId,
    member: &str,
) -> Result<()> {
    let name = labels::bench_name(deployment, member);
    cluster.end_pod_named(deployment, &name).await
}

/// Whether what a member kept is gone with its volume: somebody has removed the claim, or has told it to
/// go, or the cluster says that the volume is lost. Said of a claim that no pod uses.
pub(super) fn is_lost(claim: Option<&PersistentVolumeClaim>) -> bool {
    claim.is_none_or(|claim| {
        let status = claim.status.as_ref();
        let phase = status.and_then(|status| status.phase.as_deref());
        phase == Some("Lost") || claim.metadata.deletion_timestamp.is_some()
    })
}

/// Removes the claim of a stopped member whose volume is lost, so that it gets another one; whether that
/// is so.
pub(super) async fn remove_lost(
    cluster: &Cluster,
    deployment: &DeploymentId,
    member: &str,
) -> Result<bool> {
    let Some(claim) = cluster.claim(deployment, member).await? else {
        return Ok(true);
    };
    let is_ours = labels::are_ours(&claim.metadata, &cluster.settings, deployment.as_str());
    if !is_ours || !is_lost(Some(&claim)) {
        return Ok(false);
    }
    end_bench(cluster, deployment, member).await?;
    let (name, uid) = (labels::member_name(deployment, member), claim.metadata.uid);
    let client = &cluster.client;
    client
        .delete::<PersistentVolumeClaim>(&name, uid.as_deref(), None)
        .await?;
    let gone = until(POD_END_WAIT, || async {
        let found = cluster.claim(deployment, member).await?;
        Ok(found
            .is_none_or(|found| found.metadata.uid != uid)
            .then_some(()))
    });
    gone.await?.ok_or_else(|| ProvisionerError::NotEnded {
        what: format!("the volume of member {member}"),
        waited: POD_END_WAIT,
    })?;
    Ok(true)
}

/// Runs a script on a member's volume; none where it has none.
pub(super) async fn run(
    cluster: &Arc<Cluster>,
    deployment: &DeploymentId,
    member: &str,
    script: &str,
    args: &[&str],
) -> Result<Option<Ended>> {
    let Some(at) = container(cluster, deployment, member).await? else {
        return Ok(None);
    };
    let command = scripts::command(script, args);
    let limit = BENCH_COMMAND_TIMEOUT;
    let ended = exec::run(&cluster.client, &at, &command, limit, OUTPUT_BYTES_MAX);
    Ok(Some(ended.await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_for_now_is_no_volume_that_never_grows() {
        let says = |code, message: &str| {
            forbids_growth(&CallError::Refused {
                doing: "changing PersistentVolumeClaim db-m0".to_owned(),
                code,
                reason: "Forbidden".to_owned(),
                message: message.to_owned(),
            })
        };
        let of_class = "persistentvolumeclaims \"db-m0\" is forbidden: only dynamically provisioned pvc can be \
                        resized and the storageclass that provisions the pvc must support resize";
        assert!(says(403, of_class));
        assert!(says(422, "spec is immutable after creation"));
        for passing in [
            "persistentvolumeclaims \"db-m0\" is forbidden: exceeded quota: storage, requested: \
             requests.storage=4Gi, used: requests.storage=8Gi, limited: requests.storage=10Gi",
            "persistentvolumeclaims \"db-m0\" is forbidden: User \"broker\" cannot patch resource",
        ] {
            assert!(!says(403, passing), "{passing}");
        }
    }
}
