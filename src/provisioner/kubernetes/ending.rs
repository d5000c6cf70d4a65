//! Pods that end with what they were made for.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use tokio::runtime::Handle;

use super::{cluster::Cluster, seen};
use crate::model::failure::chain;

/// Ends a pod when it is dropped, unless that is to be kept.
pub(super) struct EndsWithIt {
    cluster: Arc<Cluster>,
    /// Its name and its uid.
    pod: Option<(String, String)>,
}

impl EndsWithIt {
    pub(super) fn new(cluster: &Arc<Cluster>, pod: &Pod) -> Self {
        let name = pod.metadata.name.clone().unwrap_or_default();
        Self {
            cluster: cluster.clone(),
            pod: Some((name, seen::uid(pod).to_owned())),
        }
    }

    /// The pod stays.
    pub(super) fn keep(mut self) {
        self.pod = None;
    }
}

impl Drop for EndsWithIt {
    fn drop(&mut self) {
        let (Some((name, uid)), Ok(runtime)) = (self.pod.take(), Handle::try_current()) else {
            return;
        };
        let cluster = self.cluster.clone();
        runtime.spawn(async move {
            let now = Some(Duration::from_secs(1));
            let ended = cluster.client.delete::<Pod>(&name, Some(&uid), now).await;
            if let Err(error) = ended {
                log::warn!("pod {name} is left over: {}", chain(&error));
            }
        });
    }
}
