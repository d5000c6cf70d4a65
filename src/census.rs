//! Tells what runs on the clusters, whatever the store knows of it, and removes what an operator
//! gives up.

use std::collections::BTreeMap;

use futures::future::BoxFuture;

use crate::{
    broker::{Census, CensusError},
    model::{ids::DeploymentId, server::MemberSeen},
    provisioner::{ProvisionerError, SharedProvisioner},
};

/// Counts the deployments of all clusters.
pub struct ClusterCensus {
    clusters: BTreeMap<String, SharedProvisioner>,
}

/// Why a cluster is not looked at.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Provisioner(#[from] ProvisionerError),
    #[error("this broker has no cluster {0}")]
    UnknownCluster(String),
}

impl ClusterCensus {
    /// The census of these clusters.
    pub fn new(clusters: BTreeMap<String, SharedProvisioner>) -> Self {
        Self { clusters }
    }

    fn cluster(&self, id: &str) -> Result<&SharedProvisioner, LookError> {
        let found = self.clusters.get(id);
        found.ok_or_else(|| LookError::UnknownCluster(id.to_owned()))
    }
}

impl Census for ClusterCensus {
    fn deployments<'a>(
        &'a self,
        cluster: &'a str,
    ) -> BoxFuture<'a, Result<Vec<DeploymentId>, CensusError>> {
        Box::pin(async {
            let listed = async { Ok::<_, LookError>(self.cluster(cluster)?.deployments().await?) };
            listed.await.map_err(CensusError::new)
        })
    }

    fn members<'a>(
        &'a self,
        cluster: &'a str,
        deployment: &'a DeploymentId,
    ) -> BoxFuture<'a, Result<Vec<MemberSeen>, CensusError>> {
        Box::pin(async {
            let seen = async {
                let cluster = self.cluster(cluster)?;
                Ok::<_, LookError>(cluster.members(deployment).await?)
            };
            seen.await.map_err(CensusError::new)
        })
    }

    fn remove<'a>(
        &'a self,
        cluster: &'a str,
        deployment: &'a DeploymentId,
    ) -> BoxFuture<'a, Result<(), CensusError>> {
        Box::pin(async {
            let removed = async {
                let cluster = self.cluster(cluster)?;
                Ok::<_, LookError>(cluster.destroy(deployment).await?)
            };
            removed.await.map_err(CensusError::new)
        })
    }
}
