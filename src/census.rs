//! Tells what runs on the clusters, whatever the store knows of it, and where members are to be reached
//! there; removes what an operator gives up.

use std::collections::BTreeMap;

use futures::future::BoxFuture;

use crate::{
    broker::{Census, CensusError},
    model::{
        deployment::Deployment,
        engine::Port,
        ids::DeploymentId,
        reach::{Reach, Whereabouts},
        server::MemberSeen,
    },
    provisioner::{Duty, ProvisionerError, SharedProvisioner, duty_of, whereabouts_of_all},
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
    fn looks_after(&self, cluster: &str) -> bool {
        duty_of(&self.clusters, cluster) == Duty::LooksAfter
    }

    fn finds(&self, cluster: &str) -> bool {
        duty_of(&self.clusters, cluster) != Duty::None
    }

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

    fn whereabouts<'a>(
        &'a self,
        deployment: &'a Deployment,
        ports: &'a [Port],
        reach: &'a Reach,
    ) -> BoxFuture<'a, Result<Vec<Whereabouts>, CensusError>> {
        Box::pin(async {
            let wanted = async {
                let cluster = self.cluster(&deployment.cluster)?;
                let all = whereabouts_of_all(cluster, deployment, ports, reach);
                Ok::<_, LookError>(all.await?)
            };
            wanted.await.map_err(CensusError::new)
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
