//! Clusters that are service instances themselves: the platform knows each by an id of its own, and
//! so do the users of what runs on it.

use super::{Broker, BrokerError};
use crate::{
    model::{ids::InstanceId, placement::Cluster},
    store,
};

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
}
