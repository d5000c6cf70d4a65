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
    fn name() -> String;
    async fn list(cluster: &Cluster, of: &str) -> Result<Vec<ObjectMeta>>;
    async fn delete(cluster: &Cluster, object: &ObjectMeta) -> Result<()>;
}

impl<K: Kept> Kind for K {
    fn name() -> String {
        K::kind(&()).into_owned()
    }

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

/// Tells all objects of a kind to go; adds to `left` those that are still there.
async fn remove<K: Kind>(cluster: &Cluster, of: &str, left: &mut Vec<String>) -> Result<()> {
    for object in K::list(cluster, of).await? {
        if object.deletion_timestamp.is_none() {
            K::delete(cluster, &object).await?;
        }
        let name = object.name.unwrap_or_default();
        let kind = <K as Kind>::name();
        left.push(match object.finalizers.unwrap_or_default() {
            kept if kept.is_empty() => format!("{kind} {name}"),
            kept => format!("{kind} {name} (kept for {})", kept.join(", ")),
        });
    }
    Ok(())
}

/// What makes others goes first, and volumes when nothing uses them.
async fn remove_all(cluster: &Cluster, of: &str) -> Result<Vec<String>> {
    let mut left = Vec::new();
    remove::<StatefulSet>(cluster, of, &mut left).await?;
    remove::<Pod>(cluster, of, &mut left).await?;
    remove::<Service>(cluster, of, &mut left).await?;
    remove::<NetworkPolicy>(cluster, of, &mut left).await?;
    remove::<PodDisruptionBudget>(cluster, of, &mut left).await?;
    remove::<Secret>(cluster, of, &mut left).await?;
    remove::<PersistentVolumeClaim>(cluster, of, &mut left).await?;
    Ok(left)
}

/// See [`crate::provisioner::Provisioner::destroy`].
pub(super) async fn destroy(cluster: Arc<Cluster>, deployment: DeploymentId) -> Result<()> {
    let of = labels::of_deployment(&cluster.settings, &deployment);
    let gone = until(DESTROY_WAIT, || async {
        Ok(remove_all(&cluster, &of).await?.is_empty().then_some(()))
    });
    if gone.await?.is_some() {
        return Ok(());
    }
    match remove_all(&cluster, &of).await? {
        left if left.is_empty() => Ok(()),
        left => Err(ProvisionerError::Remains {
            left: left.join(", "),
            waited: DESTROY_WAIT,
        }),
    }
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
