//! Reads what members print, for users to see.
//!
//! Invariant: what leaves here has neither secrets of a database nor places of the machine in it:
//! the engine knows the ones, the provisioner the others.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{StreamExt as _, future::BoxFuture};

use crate::{
    broker::{LogError, Logs},
    engine::SharedEngine,
    model::{
        deployment::Deployment,
        logfile::{LogPart, Logfile},
    },
    provisioner::{ProvisionerError, SharedProvisioner},
    stream::ByteStream,
};

/// Reads what members print where they run.
pub struct Logbook {
    clusters: BTreeMap<String, SharedProvisioner>,
    engines: BTreeMap<String, SharedEngine>,
}

/// Why nothing is read.
#[derive(Debug, thiserror::Error)]
enum LogbookError {
    #[error(transparent)]
    Provisioner(#[from] ProvisionerError),
    #[error("this broker has no cluster {0}")]
    UnknownCluster(String),
    #[error("this broker has no engine {0}")]
    UnknownEngine(String),
}

impl Logbook {
    /// The logs of all members of these clusters.
    pub fn new(
        clusters: BTreeMap<String, SharedProvisioner>,
        engines: BTreeMap<String, SharedEngine>,
    ) -> Self {
        Self { clusters, engines }
    }

    fn cluster_of(&self, deployment: &Deployment) -> Result<SharedProvisioner, LogbookError> {
        let found = self.clusters.get(&deployment.cluster).cloned();
        found.ok_or_else(|| LogbookError::UnknownCluster(deployment.cluster.clone()))
    }

    fn engine_of(&self, deployment: &Deployment) -> Result<SharedEngine, LogbookError> {
        let found = self.engines.get(&deployment.engine).cloned();
        found.ok_or_else(|| LogbookError::UnknownEngine(deployment.engine.clone()))
    }
}

impl Logs for Logbook {
    fn list(&self, deployment: &Deployment) -> BoxFuture<'_, Result<Vec<Logfile>, LogError>> {
        let deployment = deployment.clone();
        Box::pin(async move {
            let listed = async {
                let cluster = self.cluster_of(&deployment)?;
                Ok::<_, LogbookError>(cluster.logs(&deployment.id).await?)
            };
            listed.await.map_err(LogError::new)
        })
    }

    fn read(
        &self,
        deployment: &Deployment,
        member: &str,
        part: LogPart,
        last: Option<u64>,
    ) -> BoxFuture<'_, Result<Option<ByteStream>, LogError>> {
        let (deployment, member) = (deployment.clone(), member.to_owned());
        Box::pin(async move {
            let begun = async {
                let engine = self.engine_of(&deployment)?;
                let cluster = self.cluster_of(&deployment)?;
                let printed = cluster
                    .read_log(&deployment.id, &member, part, last)
                    .await?;
                Ok::<_, LogbookError>(printed.map(|printed| (printed, engine)))
            };
            let begun = begun.await.map_err(LogError::new)?;
            Ok(begun.map(|(printed, engine)| {
                let clean = move |lines: std::io::Result<String>| {
                    lines.map(|lines| Bytes::from((engine.profile().without_secrets)(&lines)))
                };
                printed.map(clean).boxed()
            }))
        })
    }
}
