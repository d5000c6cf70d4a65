//! The clusters, opened so that their members run, and what they have.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::TcpListener,
    sync::Arc,
};

use super::{NAMED_MAX, StartError, folders};
use crate::{
    broker::Broker,
    config::LocalCluster,
    engine::{SharedEngine, etcd},
    model::{
        catalog::Catalog, deployment::Deployment, engine::Profile, failure::chain, version::Version,
    },
    operation::ClusterParts,
    provisioner::{
        SharedProvisioner,
        local::{EngineBinaries, LocalProvisioner, not_always_free},
    },
    store::{self, Store},
};

/// The versions that clusters have, by cluster and engine.
pub(super) type Versions = BTreeMap<String, BTreeMap<String, Vec<Version>>>;

/// What is behind the broker: the engines, and the clusters that run them.
pub(super) struct Backends {
    /// By name.
    pub(super) engines: BTreeMap<String, SharedEngine>,
    /// By id.
    pub(super) clusters: BTreeMap<String, ClusterParts>,
    pub(super) versions: Versions,
    /// How many members ran when their cluster was opened, by its id.
    pub(super) adopted: BTreeMap<String, usize>,
}

impl Backends {
    /// Fails when a cluster could not be opened, or has no version of any engine.
    pub(super) fn new(
        opened: Opened,
        engines: &[SharedEngine],
        locals: &[LocalCluster],
    ) -> Result<Self, StartError> {
        let named = engines.iter().map(|e| (e.name().to_owned(), e.clone()));
        let engines: BTreeMap<String, SharedEngine> = named.collect();
        let adopted = opened.adopted.clone();
        let clusters = opened.all()?;
        let versions = versions(&engines, &clusters);
        check_versions(&versions, locals)?;
        Ok(Self {
            engines,
            clusters,
            versions,
            adopted,
        })
    }

    /// What is known of each engine, by its name.
    pub(super) fn profiles(&self) -> BTreeMap<String, &'static Profile> {
        let engines = self.engines.iter();
        engines
            .map(|(name, engine)| (name.clone(), engine.profile()))
            .collect()
    }

    /// Members of an instance of the engine that has most.
    pub(super) fn members_at_most(&self) -> usize {
        let members = self.engines.values().map(|e| e.profile().members);
        members.max().unwrap_or_default()
    }

    /// What runs members, by the id of the cluster.
    pub(super) fn provisioners(&self) -> BTreeMap<String, SharedProvisioner> {
        let clusters = self.clusters.iter();
        clusters
            .map(|(id, parts)| (id.clone(), parts.provisioner.clone()))
            .collect()
    }
}

fn versions(
    engines: &BTreeMap<String, SharedEngine>,
    clusters: &BTreeMap<String, ClusterParts>,
) -> Versions {
    let of_cluster = |(id, cluster): (&String, &ClusterParts)| {
        let of = |engine: &String| (engine.clone(), cluster.provisioner.versions(engine));
        (id.clone(), engines.keys().map(of).collect())
    };
    clusters.iter().map(of_cluster).collect()
}

/// Every cluster has a version of some engine.
fn check_versions(versions: &Versions, locals: &[LocalCluster]) -> Result<(), StartError> {
    let has_none = |local: &&LocalCluster| {
        let engines = versions.get(&local.cluster.id);
        engines.is_none_or(|engines| engines.values().all(Vec::is_empty))
    };
    match locals.iter().find(has_none) {
        None => Ok(()),
        Some(local) => Err(StartError::NoEngine {
            cluster: local.cluster.id.clone(),
            folder: local.engines_dir.display().to_string(),
        }),
    }
}

/// Tells of versions that plans are to be upgraded to, and that no cluster has.
pub(super) fn warn_of_missing(catalog: &Catalog, versions: &Versions) {
    for (engine, plan, version) in catalog.maintained() {
        let has_it = |of: &BTreeMap<String, Vec<_>>| of[engine].contains(&version);
        if !versions.values().any(has_it) {
            log::warn!(
                "the plan {plan} is to be upgraded to {engine} {version}, which is not installed"
            );
        }
    }
}

/// Warns of what clusters say of their reach and that leads to nothing: versions that are not on them,
/// and addresses that this machine does not have.
pub(super) fn warn_of_reach(locals: &[LocalCluster], versions: &Versions) {
    for cluster in locals.iter().map(|local| &local.cluster) {
        let exposure = &cluster.exposure;
        for named in &exposure.versions {
            let installed = versions
                .get(&cluster.id)
                .and_then(|of| of.get(&named.engine));
            if !installed.is_some_and(|versions| versions.contains(&named.version)) {
                log::warn!(cluster = cluster.id.as_str();
                    "exposed_versions names {named}, which is not installed there: the name has no effect");
            }
        }
        let listen = exposure.reach.listen;
        if let Err(error) = TcpListener::bind((listen, 0)) {
            log::warn!(cluster = cluster.id.as_str();
                "members are to listen on {listen}, where this machine cannot listen: {error}. None starts \
                 there until it can");
        }
    }
}

/// Tells of versions with known faults, once each.
pub(super) fn tell_of_faults(profiles: &BTreeMap<String, &'static Profile>, versions: &Versions) {
    let mut found: BTreeSet<(&str, Version)> = BTreeSet::new();
    for (engine, versions) in versions.values().flatten() {
        found.extend(versions.iter().map(|version| (engine.as_str(), *version)));
    }
    for (engine, version) in found {
        let faults = profiles.get(engine).map(|of| of.known_faults(version));
        let ids: Vec<&str> = faults.iter().flatten().map(|fault| fault.id).collect();
        if !ids.is_empty() {
            log::warn!("{engine} {version} has known faults: {}", ids.join(", "));
        }
    }
}

/// Tells of databases that are not reached where others of their cluster are.
pub(super) async fn tell_of_kept(broker: &Broker) {
    let kept = match broker.moves.kept_on_loopback().await {
        Ok(kept) => kept,
        Err(error) => return log::error!("cannot look who reaches members: {}", chain(&error)),
    };
    let named = usize::try_from(NAMED_MAX).unwrap_or_default();
    let told = |of: &Deployment| format!("{} ({} {})", of.instance.as_str(), of.engine, of.version);
    let mut told: Vec<String> = kept.iter().take(named).map(told).collect();
    if kept.len() > named {
        told.push(format!("and {} more", kept.len() - named));
    }
    if !told.is_empty() {
        log::warn!(
            "programs on this machine alone reach {} instance(s), whose version lets strangers in: {}; \
             upgrade them, or name the version in exposed_versions",
            kept.len(),
            told.join(", ")
        );
    }
}

/// Holds the clusters against the store: every instance has one to live on, and none is one.
pub(super) async fn check_clusters(
    store: &Arc<Store>,
    clusters: &[LocalCluster],
) -> Result<(), StartError> {
    let clusters = clusters.iter().map(|local| &local.cluster);
    for id in clusters
        .clone()
        .filter_map(|c| c.service_instance_id.clone())
    {
        let found = store.read(move |conn| store::instance::find(conn, &id));
        if let Some(instance) = found.await? {
            return Err(StartError::ClusterIsInstance(instance.id.to_string()));
        }
    }
    let ids: Vec<String> = clusters.map(|cluster| cluster.id.clone()).collect();
    let limit = NAMED_MAX + 1;
    let homeless = store
        .scan(move |conn| store::deployment::on_other_clusters(conn, &ids, limit))
        .await?;
    let mut named: Vec<String> = homeless
        .iter()
        .take(usize::try_from(NAMED_MAX).unwrap_or_default())
        .map(|(instance, cluster)| format!("{:?} on {cluster:?}", instance.as_str()))
        .collect();
    if named.is_empty() {
        return Ok(());
    }
    if homeless.len() > named.len() {
        named.push("and more".to_owned());
    }
    Err(StartError::ClusterGone(named.join(", ")))
}

/// Starts the members that should run, where the broker itself cannot be started for its settings:
/// nobody looks after them until one is. What is wrong with a cluster, the next start tells.
pub async fn start_members(clusters: &[LocalCluster]) {
    Opened::beyond_doubt(clusters, None, BTreeMap::new()).await;
}

async fn open_cluster(local: &LocalCluster) -> Result<Arc<LocalProvisioner>, StartError> {
    if let Some(ports) = not_always_free(local.ports) {
        log::warn!(cluster = local.cluster.id.as_str();
            "members get ports of {}, and this machine opens connections of its own from {ports}: a \
             member's port may be taken by one when it starts. Give the cluster a range outside of \
             net.ipv4.ip_local_port_range", local.ports);
    }
    let opened = LocalProvisioner::open(
        local.folder.clone(),
        local.engines_dir.clone(),
        &[EngineBinaries {
            engine: "etcd",
            probe: "etcd",
            probe_args: &["--version"],
            parse_version: etcd::parse_version_output,
            required: |version| etcd::binaries(*version),
            offered: |version| etcd::PROFILE.offers(*version),
        }],
        local.ports,
    );
    opened.await.map_err(|source| StartError::Cluster {
        cluster: local.cluster.id.clone(),
        source,
    })
}

/// Clusters that were opened, so that their members run.
#[derive(Default)]
pub(super) struct Opened {
    clusters: BTreeMap<String, ClusterParts>,
    /// What runs the members of a cluster that this machine does not.
    given: BTreeMap<String, SharedProvisioner>,
    /// How many members ran already, by the id of the cluster.
    adopted: BTreeMap<String, usize>,
    /// Why some were not, by the id of the cluster.
    failures: BTreeMap<String, StartError>,
}

impl Opened {
    /// Opens those of the clusters that are beyond doubt the broker's own, `url` being its database.
    /// Clusters whose provisioner is `given`, by id, need none of their own.
    pub(super) async fn beyond_doubt(
        clusters: &[LocalCluster],
        url: Option<&str>,
        given: BTreeMap<String, SharedProvisioner>,
    ) -> Self {
        let mut opened = Self {
            given,
            ..Self::default()
        };
        opened
            .open_all(folders::beyond_doubt(clusters, url).await)
            .await;
        opened
    }

    /// Opens the clusters that are not opened yet.
    pub(super) async fn open_all(&mut self, clusters: impl IntoIterator<Item = &LocalCluster>) {
        for local in clusters {
            self.open(local).await;
        }
    }

    /// Opens a cluster once. Where it fails, the members of the others are started all the same.
    async fn open(&mut self, local: &LocalCluster) {
        let id = &local.cluster.id;
        if self.clusters.contains_key(id) || self.failures.contains_key(id) {
            return;
        }
        let provisioner = match self.provisioner(local).await {
            Ok(provisioner) => provisioner,
            Err(error) => {
                self.failures.insert(id.clone(), error);
                return;
            }
        };
        let limit = local.cluster.operations_at_once.map(usize::try_from);
        let parts = ClusterParts {
            provisioner,
            operations_at_once: limit.and_then(Result::ok),
            exposure: local.cluster.exposure.clone(),
        };
        self.clusters.insert(id.clone(), parts);
    }

    async fn provisioner(&mut self, local: &LocalCluster) -> Result<SharedProvisioner, StartError> {
        let id = &local.cluster.id;
        if let Some(given) = self.given.get(id) {
            return Ok(given.clone());
        }
        let opened = open_cluster(local).await?;
        self.adopted.insert(id.clone(), opened.adopted());
        Ok(opened)
    }

    /// All of them; fails when one could not be opened.
    fn all(self) -> Result<BTreeMap<String, ClusterParts>, StartError> {
        match self.failures.into_values().next() {
            None => Ok(self.clusters),
            Some(error) => Err(error),
        }
    }
}
