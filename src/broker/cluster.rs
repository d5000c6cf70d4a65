//! Clusters as their users know them. Some are service instances themselves: the platform knows each
//! of these by an id of its own, and so do the users of what runs on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{BrokerError, BrokerParts, deployment::Deployments, inventory::Inventory};
use crate::{
    model::{catalog::Placement, ids::InstanceId, placement::Cluster, version::Version},
    store::{self, Store},
};

/// What clusters have, for those who may know of them.
pub struct Clusters {
    pub(super) store: Arc<Store>,
    pub(super) inventory: Arc<Inventory>,
    deployments: Arc<Deployments>,
}

impl Clusters {
    pub(super) fn new(
        parts: &BrokerParts,
        inventory: Arc<Inventory>,
        deployments: Arc<Deployments>,
    ) -> Self {
        Self {
            store: parts.store.clone(),
            inventory,
            deployments,
        }
    }

    /// Whether an instance runs on a cluster: then its users may know which one that is.
    pub async fn runs_on(
        &self,
        instance: InstanceId,
        cluster: &Cluster,
    ) -> Result<bool, BrokerError> {
        let deployment = self
            .store
            .read(move |conn| store::deployment::of_instance(conn, &instance))
            .await?;
        Ok(deployment.is_some_and(|(deployment, _)| deployment.cluster == cluster.id))
    }

    /// The clusters that the users of an instance may know of: the one that it runs on, and those
    /// that they may choose where the plan lets them. Of a cluster's own service instance: itself.
    pub async fn clusters_seen_from(&self, id: InstanceId) -> Result<Vec<&Cluster>, BrokerError> {
        if let Some(cluster) = self.inventory.cluster_of(&id) {
            return Ok(vec![cluster]);
        }
        let of = self.deployments.deployment_of(id).await?;
        let plan = self.inventory.plan_of(&of.instance);
        let choose = plan.is_some_and(|plan| plan.rules.placement == Placement::Chosen);
        let seen =
            |cluster: &&Cluster| cluster.id == of.deployment.cluster || (choose && cluster.enabled);
        Ok(self.inventory.clusters.iter().filter(seen).collect())
    }

    /// The versions of each engine on these clusters, oldest first.
    pub async fn versions_seen_from(
        &self,
        id: InstanceId,
    ) -> Result<BTreeMap<String, BTreeSet<Version>>, BrokerError> {
        let mut found: BTreeMap<String, BTreeSet<Version>> = BTreeMap::new();
        let installed = self.inventory.installed.all();
        for cluster in self.clusters_seen_from(id).await? {
            for (engine, versions) in installed.get(&cluster.id).into_iter().flatten() {
                found.entry(engine.clone()).or_default().extend(versions);
            }
        }
        found.retain(|_, versions| !versions.is_empty());
        Ok(found)
    }
}
