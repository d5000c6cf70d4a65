//! All that is there of a deployment, and removing it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{PersistentVolumeClaim, Pod, Secret, Service},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{
    client::Kept,
    cluster::{Cluster, Result, until},
    labels,
};
use crate::{
    model::{ids::DeploymentId, limits::kubernetes::DESTROY_WAIT},
    provisioner::ProvisionerError,
};

/// A kind of objects that deployments are made of.
trait Kind {
    async fn list(cluster: &Cluster, of: &str) -> Result<Vec<ObjectMeta>>;
    async fn delete(cluster: &Cluster, object: &ObjectMeta) -> Result<()>;
}

impl<K: Kept> Kind for K {
    async fn list(cluster: &Cluster, of: &str) -> Result<Vec<ObjectMeta>> {
        Ok(cluster.client.list_meta::<K>(of).await?)
    }

    async fn delete(cluster: &Cluster, object: &ObjectMeta) -> Result<()> {
        let name = object.name.as_deref().unwrap_or_default();
        let now = Some(Duration::from_secs(1));
        let uid = object.uid.as_deref();
        Ok(cluster.client.delete::<K>(name, uid, now).await?)
    }
}

/// Tells all objects of a kind to go; returns how many are still there.
async fn remove<K: Kind>(cluster: &Cluster, of: &str) -> Result<usize> {
    let found = K::list(cluster, of).await?;
    for object in &found {
        if object.deletion_timestamp.is_none() {
            K::delete(cluster, object).await?;
        }
    }
    Ok(found.len())
}

/// What makes others goes first, and volumes when nothing uses them.
async fn remove_all(cluster: &Cluster, of: &str) -> Result<usize> {
    let mut left = remove::<StatefulSet>(cluster, of).await?;
    left += remove::<Pod>(cluster, of).await?;
    left += remove::<Service>(cluster, of).await?;
    left += remove::<NetworkPolicy>(cluster, of).await?;
    left += remove::<PodDisruptionBudget>(cluster, of).await?;
    left += remove::<Secret>(cluster, of).await?;
    left += remove::<PersistentVolumeClaim>(cluster, of).await?;
    Ok(left)
}

/// See [`crate::provisioner::Provisioner::destroy`].
pub(super) async fn destroy(cluster: Arc<Cluster>, deployment: DeploymentId) -> Result<()> {
    let of = labels::of_deployment(&cluster.settings, &deployment);
    let gone = until(DESTROY_WAIT, || async {
        Ok((remove_all(&cluster, &of).await? == 0).then_some(()))
    });
    gone.await?.ok_or_else(|| ProvisionerError::NotEnded {
        what: format!("deployment {deployment}"),
        waited: DESTROY_WAIT,
    })
}

/// See [`crate::provisioner::Provisioner::deployments`].
pub(super) async fn deployments(cluster: &Cluster) -> Result<Vec<DeploymentId>> {
    let of = labels::of_cluster(&cluster.settings);
    let mut all = <StatefulSet as Kind>::list(cluster, &of).await?;
    all.extend(<Pod as Kind>::list(cluster, &of).await?);
    all.extend(<Service as Kind>::list(cluster, &of).await?);
    all.extend(<NetworkPolicy as Kind>::list(cluster, &of).await?);
    all.extend(<PodDisruptionBudget as Kind>::list(cluster, &of).await?);
    all.extend(<Secret as Kind>::list(cluster, &of).await?);
    all.extend(<PersistentVolumeClaim as Kind>::list(cluster, &of).await?);
    let id = |object: &ObjectMeta| labels::label(object, labels::DEPLOYMENT).parse().ok();
    let ids: BTreeSet<DeploymentId> = all.iter().filter_map(id).collect();
    Ok(ids.into_iter().collect())
}
