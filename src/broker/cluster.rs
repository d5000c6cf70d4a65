//! Clusters as their users know them. Some are service instances themselves: the platform knows each
//! of these by an id of its own, and so do the users of what runs on it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Broker, BrokerError};
use crate::{
    model::{
        catalog::Placement, exposure::Exposure, ids::InstanceId, placement::Cluster,
        version::Version,
    },
    store,
};

/// What a cluster shows of its members to applications; nothing of one that is not known.
pub(super) fn exposure(clusters: &[Cluster], id: &str) -> Exposure {
    let known = clusters.iter().find(|known| known.id == id);
    known.map_or_else(Exposure::default, |known| known.exposure.clone())
}

impl Broker {
    /// The cluster whose own service instance that is. No other service instance may have the id.
    pub fn cluster_of(&self, service_instance: &InstanceId) -> Option<&Cluster> {
        let own =
            |cluster: &&Cluster| cluster.service_instance_id.as_ref() == Some(service_instance);
        self.clusters.iter().find(own)
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
        if let Some(cluster) = self.cluster_of(&id) {
            return Ok(vec![cluster]);
        }
        let of = self.deployment_of(id).await?;
        let catalog = self.catalog.get();
        let offering = catalog.offering(&of.instance.service_id);
        let plan = offering.and_then(|offering| offering.plan(&of.instance.plan_id));
        let choose = plan.is_some_and(|plan| plan.rules.placement == Placement::Chosen);
        let seen =
            |cluster: &&Cluster| cluster.id == of.deployment.cluster || (choose && cluster.enabled);
        Ok(self.clusters.iter().filter(seen).collect())
    }

    /// The versions of each engine on these clusters, oldest first.
    pub async fn versions_seen_from(
        &self,
        id: InstanceId,
    ) -> Result<BTreeMap<String, BTreeSet<Version>>, BrokerError> {
        let mut found: BTreeMap<String, BTreeSet<Version>> = BTreeMap::new();
        for cluster in self.clusters_seen_from(id).await? {
            for (engine, versions) in self.versions.get(&cluster.id).into_iter().flatten() {
                found.entry(engine.clone()).or_default().extend(versions);
            }
        }
        found.retain(|_, versions| !versions.is_empty());
        Ok(found)
    }
}
