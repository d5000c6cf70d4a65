//! One member: its objects, and its server, kept running or stopped.
//!
//! Invariants: at most one server runs on a volume, since a pod is never forgotten before its node has said
//! that it ended; what is wanted is written down before it is done, so a crash at any point is made good by
//! doing it again.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{PersistentVolumeClaim, Pod, Secret, Service},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::{Value, json};

use super::{
    cluster::{Cluster, Result, until},
    labels::{self, Owned, Part},
    objects::{self, Described, RESTARTS, SERVER},
    seen,
    view::Members,
    volume,
};
use crate::{
    model::{
        ids::DeploymentId,
        limits::{
            STOP_GRACE,
            kubernetes::{POD_END_WAIT, POD_START_WAIT},
        },
        server::Server,
    },
    provisioner::ProvisionerError,
};

/// See [`crate::provisioner::Provisioner::start`].
pub(super) async fn start(cluster: Arc<Cluster>, server: Server) -> Result<()> {
    let (deployment, member) = (&server.deployment, server.member.as_str());
    let image = cluster.settings.image(&server.program);
    let image = image.ok_or_else(|| not_installed(&server))?;
    let wanted = Described::of(&server);
    let set = cluster.set(deployment, member).await?;
    let pod = cluster.pod(deployment, member).await?;
    let was = set.as_ref().and_then(Described::in_set);
    let is_same = was.is_some_and(|was| was.runs == wanted.runs);
    let runs_so = set.as_ref().is_some_and(seen::is_wanted)
        && pod.as_ref().is_some_and(|pod| runs_as(pod, &wanted.runs));
    if !runs_so {
        volume::end_bench(&cluster, deployment, member).await?;
    }
    let bytes = objects::volume_bytes(&server.resources);
    volume::claim(&cluster, deployment, member, bytes).await?;
    apply_beside(&cluster, &server, &wanted).await?;
    let pin = cluster.pin(deployment, member).await?;
    let restarts = match (&set, is_same) {
        (Some(set), true) => restarts_by_broker(set),
        _ => 0,
    };
    let set = objects::set(&cluster.settings, &server, &wanted, image, &pin, restarts);
    cluster.apply::<StatefulSet>(&set).await?;
    if runs_so {
        return Ok(());
    }
    // One that is just starting so is left to it.
    let is_starting = |pod: &Pod| {
        seen::runs_what(pod) == wanted.runs && !seen::has_begun(pod) && !seen::lacks_data(pod)
    };
    if let Some(pod) = pod.filter(|pod| !is_starting(pod) || seen::is_over(pod)) {
        cluster.end_pod(&pod, STOP_GRACE).await?;
    }
    begun(&cluster, deployment, member, &wanted.runs).await?;
    forget_former_files(&cluster, deployment, member, &wanted.secret).await
}

fn not_installed(server: &Server) -> ProvisionerError {
    ProvisionerError::NotInstalled {
        engine: server.program.engine.to_owned(),
        version: server.program.version,
    }
}

fn restarts_by_broker(set: &StatefulSet) -> u32 {
    let annotations = set.metadata.annotations.as_ref();
    let count = annotations.and_then(|all| all.get(RESTARTS));
    count.and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn runs_as(pod: &Pod, runs: &str) -> bool {
    !seen::is_ending(pod) && seen::runs_what(pod) == runs && seen::runs(pod, SERVER)
}

/// All objects of a member but its volume and its set.
async fn apply_beside(cluster: &Cluster, server: &Server, wanted: &Described) -> Result<()> {
    let settings = &cluster.settings;
    let secret = objects::secret(settings, server, wanted);
    cluster.apply::<Secret>(&secret).await?;
    cluster
        .apply::<Service>(&objects::service(settings, server))
        .await?;
    let budget = objects::budget(settings, &server.deployment);
    cluster.apply::<PodDisruptionBudget>(&budget).await?;
    let policy = objects::policy(settings, server);
    cluster.apply::<NetworkPolicy>(&policy).await?;
    let (deployment, member) = (&server.deployment, server.member.as_str());
    match objects::node_service(settings, server) {
        Some(service) => apply_node_service(cluster, server, &service).await?,
        None => {
            let name = objects::node_service_name(deployment, member);
            remove_service(cluster, deployment, &name).await?;
        }
    }
    match objects::balancer(settings, deployment, member, &server.addresses) {
        Some(service) => drop(cluster.apply::<Service>(&service).await?),
        None => {
            let name = objects::balancer_name(deployment, member);
            remove_service(cluster, deployment, &name).await?;
        }
    }
    Ok(())
}

async fn remove_service(cluster: &Cluster, deployment: &DeploymentId, name: &str) -> Result<()> {
    let found: Option<Service> = cluster.client.find(name).await?;
    let is_ours =
        |found: Service| labels::are_ours(&found.metadata, &cluster.settings, deployment.as_str());
    match found.is_some_and(is_ours) {
        true => Ok(cluster.client.delete::<Service>(name, None, None).await?),
        false => Ok(()),
    }
}

async fn apply_node_service(cluster: &Cluster, server: &Server, service: &Value) -> Result<()> {
    let Err(error) = cluster.apply::<Service>(service).await else {
        return Ok(());
    };
    let ports = server.addresses.values().map(|address| address.port);
    // The server names the port that another service has already.
    let taken = match &error {
        ProvisionerError::ClusterRefuses { why, .. } if why.contains("already allocated") => {
            ports.clone().find(|port| why.contains(&port.to_string()))
        }
        _ => None,
    };
    Err(match taken {
        Some(port) => ProvisionerError::PortTaken {
            member: server.member.clone(),
            port,
        },
        None => error,
    })
}

/// Waits until the server of a member was begun as described, whatever became of it.
async fn begun(
    cluster: &Cluster,
    deployment: &DeploymentId,
    member: &str,
    runs: &str,
) -> Result<()> {
    let name = labels::pod_name(deployment, member);
    let begun = until(POD_START_WAIT, || async {
        let Some(pod) = cluster.pod(deployment, member).await? else {
            return Ok(None);
        };
        if seen::is_ending(&pod) {
            return Ok(None);
        }
        if seen::runs_what(&pod) != runs || seen::is_over(&pod) {
            // Made of the set as it was before; or its node gave it up, and nobody makes it anew.
            let uid = Some(seen::uid(&pod));
            let grace = Some(STOP_GRACE);
            cluster.client.delete::<Pod>(&name, uid, grace).await?;
            return Ok(None);
        }
        if seen::lacks_data(&pod) {
            return Err(data_lost(member));
        }
        if seen::has_begun(&pod) {
            return Ok(Some(()));
        }
        if seen::node(&pod).is_none()
            && volume::is_lost(cluster.claim(deployment, member).await?.as_ref())
        {
            return Err(data_lost(member));
        }
        match seen::waits_for(&pod) {
            wait if wait.stays => Err(wait.of(format!("member {member}"))),
            _ => Ok(None),
        }
    });
    match begun.await? {
        Some(()) => Ok(()),
        None => {
            let wait = cluster.why_not(&name).await;
            Err(wait.of(format!("member {member}")))
        }
    }
}

fn data_lost(member: &str) -> ProvisionerError {
    ProvisionerError::DataLost {
        member: member.to_owned(),
    }
}

/// Removes files that the member was given before.
async fn forget_former_files(
    cluster: &Cluster,
    deployment: &DeploymentId,
    member: &str,
    kept: &str,
) -> Result<()> {
    let of = Owned::of(deployment, member, Part::Member).selector(&cluster.settings);
    for secret in cluster.client.list_meta::<Secret>(&of).await? {
        let name = secret.name.unwrap_or_default();
        if name != kept {
            cluster.client.delete::<Secret>(&name, None, None).await?;
        }
    }
    Ok(())
}

/// See [`crate::provisioner::Provisioner::runs_as`].
pub(super) async fn is_run_as(cluster: &Cluster, server: &Server) -> Result<bool> {
    let (deployment, member) = (&server.deployment, server.member.as_str());
    let wanted = Described::of(server);
    let set = cluster.set(deployment, member).await?;
    let described = set.as_ref().filter(|set| seen::is_wanted(set));
    let described = described.and_then(Described::in_set);
    if described.is_none_or(|of| of.runs != wanted.runs) {
        return Ok(false);
    }
    let pod = cluster.pod(deployment, member).await?;
    Ok(pod.is_some_and(|pod| runs_as(&pod, &wanted.runs)))
}

/// See [`crate::provisioner::Provisioner::restart`].
pub(super) async fn restart(
    cluster: Arc<Cluster>,
    deployment: DeploymentId,
    member: String,
) -> Result<()> {
    let set = cluster.set(&deployment, &member).await?;
    let Some(set) = set.filter(seen::is_wanted) else {
        return Ok(());
    };
    let Some(described) = Described::in_set(&set) else {
        return Ok(());
    };
    let pod = cluster.pod(&deployment, &member).await?;
    let by_cluster = pod.as_ref().map_or(0, seen::restarts);
    let count = restarts_by_broker(&set) + by_cluster + 1;
    let name = labels::member_name(&deployment, &member);
    let counted = json!({ "metadata": { "annotations": { RESTARTS: count.to_string() } } });
    cluster
        .client
        .change::<StatefulSet>(&name, &counted)
        .await?;
    if let Some(pod) = pod {
        // One that hangs does not end when it is asked to.
        cluster.end_pod(&pod, Duration::ZERO).await?;
    }
    begun(&cluster, &deployment, &member, &described.runs).await
}

/// See [`crate::provisioner::Provisioner::stop`].
pub(super) async fn stop(
    cluster: Arc<Cluster>,
    deployment: DeploymentId,
    member: String,
    grace: Duration,
) -> Result<()> {
    if cluster.set(&deployment, &member).await?.is_none() {
        return Ok(());
    }
    let grace = grace.max(Duration::from_secs(1));
    let tell_to_end = async |pod: &Pod| {
        if seen::is_ending(pod) {
            return Ok(());
        }
        let (client, uid) = (&cluster.client, Some(seen::uid(pod)));
        let name = labels::pod_name(&deployment, &member);
        client.delete::<Pod>(&name, uid, Some(grace)).await
    };
    // Before the set says so: its controller gives a pod all the time that one may have, and what is left of that
    // cannot be cut short any more.
    if let Some(pod) = cluster.pod(&deployment, &member).await? {
        tell_to_end(&pod).await?;
    }
    let name = labels::member_name(&deployment, &member);
    let stopped = json!({
        "metadata": { "annotations": { RESTARTS: "0" } },
        "spec": { "replicas": 0 },
    });
    cluster
        .client
        .change::<StatefulSet>(&name, &stopped)
        .await?;
    let limit = grace + POD_END_WAIT;
    let gone = until(limit, || async {
        let Some(pod) = cluster.pod(&deployment, &member).await? else {
            return Ok(Some(()));
        };
        tell_to_end(&pod).await?;
        Ok(None)
    });
    gone.await?.ok_or_else(|| ProvisionerError::NotEnded {
        what: format!("member {member}"),
        waited: limit,
    })
}

/// Fails while a member is wanted running.
pub(super) async fn must_be_stopped(
    cluster: &Cluster,
    deployment: &DeploymentId,
    member: &str,
) -> Result<()> {
    match cluster.set(deployment, member).await? {
        Some(set) if seen::is_wanted(&set) => Err(ProvisionerError::NotStopped {
            member: member.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// A member as a look found it.
pub(super) struct Look {
    pub(super) name: String,
    pub(super) described: Described,
    /// The pod that is there for it.
    pub(super) pod: Option<Pod>,
    /// How often the broker itself started it anew.
    pub(super) restarts: u32,
    /// It is to run, does not, and its volume is gone.
    pub(super) has_lost_volume: bool,
}

/// The members of a deployment, sorted by name.
pub(super) async fn look(cluster: &Cluster, deployment: &DeploymentId) -> Result<Vec<Look>> {
    let Members { sets, mut pods, .. } = cluster.members(deployment).await?;
    let lost = without_volume(cluster, deployment, &sets, &pods).await?;
    let mut found = Vec::new();
    for set in sets {
        let name = labels::label(&set.metadata, labels::MEMBER).to_owned();
        let Some(described) = Described::in_set(&set) else {
            continue;
        };
        let its = |pod: &Pod| labels::label(&pod.metadata, labels::MEMBER) == name;
        let pod = pods.iter().position(its).map(|at| pods.swap_remove(at));
        let restarts = restarts_by_broker(&set);
        found.push(Look {
            has_lost_volume: lost.contains(&name),
            name,
            described,
            pod,
            restarts,
        });
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// The members of these sets that are to run, have no node to run on, and whose volumes are gone.
async fn without_volume(
    cluster: &Cluster,
    deployment: &DeploymentId,
    sets: &[StatefulSet],
    pods: &[Pod],
) -> Result<Vec<String>> {
    fn member(meta: &ObjectMeta) -> &str {
        labels::label(meta, labels::MEMBER)
    }
    let is_placed = |name: &str| {
        let mut its = pods.iter().filter(|pod| member(&pod.metadata) == name);
        its.any(|pod| seen::node(pod).is_some())
    };
    let wanted = sets.iter().filter(|set| seen::is_wanted(set));
    let names = wanted.map(|set| member(&set.metadata));
    let unplaced: Vec<&str> = names.filter(|name| !is_placed(name)).collect();
    if unplaced.is_empty() {
        return Ok(Vec::new());
    }
    let of = labels::of_deployment(&cluster.settings, deployment);
    let claims: Vec<PersistentVolumeClaim> = cluster.client.list(&of).await?;
    let is_lost = |name: &&str| {
        let mut its = claims.iter();
        volume::is_lost(its.find(|claim| member(&claim.metadata) == *name))
    };
    let lost = unplaced.into_iter().filter(is_lost);
    Ok(lost.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests;
