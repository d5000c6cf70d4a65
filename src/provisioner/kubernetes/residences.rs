//! Where each deployment is: in the namespace of its tenant, where tenants have some, else in the broker's own.
//!
//! A deployment that is in a tenant's has a ConfigMap in the broker's own, whose labels say so. All of them are listed
//! when this broker begins to look after the cluster; from then on it alone writes them.
//!
//! Invariants:
//! - A deployment's ConfigMap is made before anything of it in a tenant's namespace, and removed after all of it. One
//!   that has none is in the broker's own: so it stays where it is, whatever settings say later.
//! - A tenant's namespace goes with the last deployment that has a ConfigMap for it, while none is placed there.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::{
    api::core::v1::{ConfigMap, Service},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::{Value, json};
use tokio::sync::{Mutex as AsyncMutex, OnceCell, OwnedMutexGuard};

use super::{
    client::Client,
    cluster::{Cluster, Result, name_taken},
    labels::{self, Owned, Part},
    remains,
    settings::{Settings, TenantNamespaces},
    tenants, volume,
};
use crate::model::{failure::chain, ids::DeploymentId, tenant::Resident};

/// The namespaces of deployments that are in a tenant's.
pub(super) type Listed = BTreeMap<DeploymentId, String>;

/// What is written down of all deployments that are in a tenant's namespace.
pub(super) async fn list(client: &Client, settings: &Settings) -> Result<Listed> {
    let of = labels::of_cluster(settings);
    match client.list_meta::<ConfigMap>(&of).await {
        // Who has no namespaces of tenants needs no right to look for them.
        Err(error) if error.is(403) && settings.tenants.is_none() => Ok(Listed::new()),
        all => Ok(in_namespaces(&all?)),
    }
}

fn in_namespaces(all: &[ObjectMeta]) -> Listed {
    let residence = |meta: &ObjectMeta| {
        let deployment = labels::label(meta, labels::DEPLOYMENT).parse().ok()?;
        let namespace = labels::label(meta, labels::NAMESPACE);
        (!namespace.is_empty()).then(|| (deployment, namespace.to_owned()))
    };
    all.iter().filter_map(residence).collect()
}

/// Where the deployments of a cluster are.
pub(super) struct Residences {
    /// The cluster, seen from the broker's own namespace.
    own: Arc<Cluster>,
    known: Mutex<Known>,
    /// Who lists what is written down, or changes it, has this.
    writing: AsyncMutex<()>,
    /// Who makes or removes a namespace has its lock.
    locks: Mutex<HashMap<String, Arc<AsyncMutex<()>>>>,
    /// The broker's name, for the API server.
    user: OnceCell<String>,
}

/// What is known of where deployments are.
struct Known {
    /// How often the cluster had been taken over when all were listed.
    times_taken: u64,
    /// The cluster as seen from where each is that is in a tenant's namespace.
    all: HashMap<DeploymentId, Arc<Cluster>>,
}

impl Known {
    fn new(own: &Cluster, times_taken: u64, listed: Listed) -> Self {
        let residences = listed.into_iter();
        let residences = residences.map(|(of, namespace)| (of, own.within(&namespace)));
        Self {
            times_taken,
            all: residences.collect(),
        }
    }
}

impl Residences {
    /// The residences in a cluster that is seen from the broker's own namespace, those that are `listed` among them.
    pub(super) fn new(own: Arc<Cluster>, listed: Listed) -> Arc<Self> {
        let known = Known::new(&own, own.times_taken(), listed);
        Arc::new(Self {
            own,
            known: Mutex::new(known),
            writing: AsyncMutex::default(),
            locks: Mutex::default(),
            user: OnceCell::new(),
        })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Every change is whole before anything can panic.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists all residences anew where another broker may have made some.
    async fn keep_up(&self) -> Result<()> {
        let is_listed = || self.known().times_taken == self.own.times_taken();
        if is_listed() {
            return Ok(());
        }
        let _alone = self.writing.lock().await;
        if is_listed() {
            return Ok(());
        }
        let (own, times_taken) = (&self.own, self.own.times_taken());
        let listed = list(&own.client, &own.settings).await?;
        *self.known() = Known::new(own, times_taken, listed);
        Ok(())
    }

    /// The cluster as seen from where a deployment is; from the broker's own namespace, if it is nowhere.
    pub(super) async fn of(&self, deployment: &DeploymentId) -> Result<Arc<Cluster>> {
        self.keep_up().await?;
        Ok(self.in_tenants(deployment).unwrap_or(self.own.clone()))
    }

    fn in_tenants(&self, deployment: &DeploymentId) -> Option<Arc<Cluster>> {
        self.known().all.get(deployment).cloned()
    }

    /// The cluster as seen from each namespace that a deployment is in, or can be placed in.
    pub(super) fn possible(&self, of: Resident<'_>) -> Vec<Arc<Cluster>> {
        if let Some(there) = self.in_tenants(of.deployment) {
            return vec![there];
        }
        let mut all = vec![self.own.clone()];
        if self.own.settings.tenants.is_some() {
            all.push(self.of_tenant(of));
        }
        all
    }

    fn of_tenant(&self, of: Resident<'_>) -> Arc<Cluster> {
        let name = tenants::name(&self.own.settings, of.tenant);
        self.own.within(&name)
    }

    /// Whether a deployment is in this namespace.
    pub(super) fn has(&self, namespace: &str) -> bool {
        let is_its = |there: &Arc<Cluster>| there.settings.namespace == namespace;
        is_its(&self.own) || self.known().all.values().any(is_its)
    }

    /// The cluster as seen from where a deployment is, or is to be placed.
    async fn wanted(&self, of: Resident<'_>) -> Result<Arc<Cluster>> {
        let there = self.of(of.deployment).await?;
        let is_own = Arc::ptr_eq(&there, &self.own);
        if !is_own || self.own.settings.tenants.is_none() {
            return Ok(there);
        }
        // It was placed when tenants had no namespaces.
        let its = labels::of_deployment(&self.own.settings, of.deployment);
        let services = self.own.client.list_meta::<Service>(&its).await?;
        match services.is_empty() {
            true => Ok(self.of_tenant(of)),
            false => Ok(there),
        }
    }

    /// Has a deployment be where it is, or is to be, and returns the cluster as seen from there. Nobody else may change
    /// it meanwhile.
    pub(super) async fn settle(&self, of: Resident<'_>) -> Result<Arc<Cluster>> {
        let there = self.wanted(of).await?;
        let namespace = &there.settings.namespace;
        let Some(bounds) = self.own.settings.tenants.as_ref() else {
            return Ok(there);
        };
        if *namespace == self.own.settings.namespace {
            return Ok(there);
        }
        let _alone = self.lock(namespace).await;
        self.write_down(of.deployment, &there).await?;
        // One whose tenant is called otherwise by now stays where it is.
        if *namespace == tenants::name(&self.own.settings, of.tenant) {
            tenants::make(&there, of.tenant).await?;
        }
        self.see_to(&there, bounds).await?;
        Ok(there)
    }

    /// Has the broker in a namespace, and this within its bounds.
    async fn see_to(&self, there: &Cluster, bounds: &TenantNamespaces) -> Result<()> {
        tenants::enter(there, self.user().await?).await?;
        tenants::bound(there, &bounds.quota).await
    }

    async fn user(&self) -> Result<&str> {
        let ask = || async { self.own.client.user().await };
        Ok(self.user.get_or_try_init(ask).await?)
    }

    /// Writes down where a deployment is, unless that is done.
    async fn write_down(&self, deployment: &DeploymentId, there: &Arc<Cluster>) -> Result<()> {
        if self.in_tenants(deployment).is_some() {
            return Ok(());
        }
        let (settings, namespace) = (&self.own.settings, &there.settings.namespace);
        let object = object(settings, deployment, namespace);
        let _alone = self.writing.lock().await;
        match self.own.client.create::<ConfigMap>(&object).await {
            Ok(_) => {}
            // A broker that has lost the cluster since may have made it.
            Err(error) if error.is(409) => {
                let listed = list(&self.own.client, settings).await?;
                if listed.get(deployment) != Some(namespace) {
                    return Err(name_taken::<ConfigMap>(&labels::deployment_name(
                        deployment,
                    )));
                }
            }
            Err(error) => return Err(error.into()),
        }
        self.known().all.insert(deployment.clone(), there.clone());
        Ok(())
    }

    /// Removes all of a deployment, and the namespace of its tenant with the last one. Nobody else may change it
    /// meanwhile.
    pub(super) async fn leave(&self, deployment: &DeploymentId) -> Result<()> {
        let there = self.of(deployment).await?;
        if Arc::ptr_eq(&there, &self.own) {
            return remains::destroy(there, deployment.clone()).await;
        }
        // Else all of it goes, or has gone.
        if tenants::is_there(&there).await? {
            tenants::enter(&there, self.user().await?).await?;
            remains::destroy(there.clone(), deployment.clone()).await?;
        }
        let (client, namespace) = (&self.own.client, &there.settings.namespace);
        let _alone = self.lock(namespace).await;
        let its = labels::in_namespace(&self.own.settings, namespace);
        let its = in_namespaces(&client.list_meta::<ConfigMap>(&its).await?);
        if !its.keys().any(|of| of != deployment) {
            tenants::remove(&there).await?;
        }
        let _alone = self.writing.lock().await;
        let name = labels::deployment_name(deployment);
        client.delete::<ConfigMap>(&name, None, None).await?;
        self.known().all.remove(deployment);
        Ok(())
    }

    /// Keeps others from making or removing a namespace until it is dropped.
    async fn lock(&self, namespace: &str) -> OwnedMutexGuard<()> {
        let lock = {
            // Every change of the map is one call, so it is whole even after a panic.
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            locks.entry(namespace.to_owned()).or_default().clone()
        };
        lock.lock_owned().await
    }

    /// See [`crate::provisioner::Provisioner::room_for`].
    pub(super) async fn check_room(&self, of: Resident<'_>, bytes: u64) -> Result<()> {
        let there = self.wanted(of).await?;
        if !Arc::ptr_eq(&there, &self.own) {
            if !tenants::is_there(&there).await? {
                // It is made when something is placed there.
                let bounds = self.own.settings.tenants.clone().unwrap_or_default();
                return volume::check_quota(&bounds.quota, bytes);
            }
            tenants::enter(&there, self.user().await?).await?;
        }
        volume::check_room(&there, bytes).await
    }

    /// See [`crate::provisioner::Provisioner::deployments`].
    pub(super) async fn deployments(&self) -> Result<Vec<DeploymentId>> {
        self.keep_up().await?;
        let mut all: BTreeSet<DeploymentId> = self.known().all.keys().cloned().collect();
        all.extend(remains::deployments(&self.own).await?);
        Ok(all.into_iter().collect())
    }

    /// Has all namespaces of tenants be as the settings say, which may have changed.
    pub(super) async fn see_to_all(self: Arc<Self>) {
        let Some(bounds) = self.own.settings.tenants.as_ref() else {
            return;
        };
        let all: HashMap<String, Arc<Cluster>> = {
            let known = self.known();
            let residences = known.all.values();
            residences
                .map(|there| (there.settings.namespace.clone(), there.clone()))
                .collect()
        };
        for (namespace, there) in all {
            let _alone = self.lock(&namespace).await;
            let seen_to = async {
                self.own.check_held()?;
                match self.has(&namespace) && tenants::is_there(&there).await? {
                    true => self.see_to(&there, bounds).await,
                    false => Ok(()),
                }
            };
            if let Err(error) = seen_to.await {
                log::warn!(cluster = self.own.settings.cluster.as_str();
                    "namespace {namespace} is not as the settings say yet: {}", chain(&error));
            }
        }
    }
}

/// What says that a deployment is in a tenant's namespace.
fn object(settings: &Settings, deployment: &DeploymentId, namespace: &str) -> Value {
    let of = Owned {
        deployment,
        member: None,
        part: Part::Deployment,
    };
    let mut labels = of.labels(settings);
    labels[labels::NAMESPACE] = json!(namespace);
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": labels::deployment_name(deployment),
            "namespace": settings.namespace,
            "labels": labels,
        },
    })
}

#[cfg(test)]
mod tests;
