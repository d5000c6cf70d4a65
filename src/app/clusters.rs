//! The clusters, opened so that their members run, and what they have.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{NAMED_MAX, StartError, folders};
use crate::{
    broker::{Broker, Versions},
    config::ClusterSettings,
    engine::{self, SharedEngine},
    model::{
        capacity::Footprint, catalog::Catalog, deployment::Deployment, engine::Profile,
        exposure::Withheld, failure::chain, postgres::DatabaseAddress, sentence::counted,
        version::Version,
    },
    operation::ClusterParts,
    provisioner::{Duty, ProvisionerError, SharedProvisioner, handover::Handover},
    store::{self, Store},
};

/// What is behind the broker: the engines, and the clusters that run them.
pub(super) struct Backends {
    /// By name.
    pub(super) engines: BTreeMap<String, SharedEngine>,
    /// By id.
    pub(super) clusters: BTreeMap<String, ClusterParts>,
    pub(super) versions: Versions,
    /// How many members ran when their cluster was opened, by its id.
    pub(super) adopted: BTreeMap<String, usize>,
    /// Clusters that another broker looked after when this one began, or that did not answer.
    pub(super) handovers: Vec<Arc<Handover>>,
}

impl Backends {
    /// Fails when a cluster could not be opened, or has no version of any engine.
    pub(super) fn new(
        opened: Opened,
        engines: &[SharedEngine],
        settings: &[ClusterSettings],
    ) -> Result<Self, StartError> {
        let named = engines.iter().map(|e| (e.name().to_owned(), e.clone()));
        let engines: BTreeMap<String, SharedEngine> = named.collect();
        let (adopted, handovers) = (opened.adopted.clone(), opened.handovers.clone());
        let clusters = opened.all()?;
        let versions = versions(&engines, &clusters);
        let is_ours = |of: &&ClusterSettings| {
            let cluster = clusters.get(&of.cluster.id);
            cluster.is_some_and(|cluster| cluster.provisioner.duty() == Duty::LooksAfter)
        };
        check_versions(&versions, settings.iter().filter(is_ours))?;
        Ok(Self {
            engines,
            clusters,
            versions,
            adopted,
            handovers,
        })
    }

    /// What is known of each engine, by its name.
    pub(super) fn profiles(&self) -> BTreeMap<String, &'static Profile> {
        let engines = self.engines.iter();
        engines
            .map(|(name, engine)| (name.clone(), engine.profile()))
            .collect()
    }

    /// What an instance of any engine takes of a volume beside its units.
    pub(super) fn footprint(&self) -> Footprint {
        Footprint::of(self.engines.values().map(|engine| engine.profile()))
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
fn check_versions<'a>(
    versions: &Versions,
    mut settings: impl Iterator<Item = &'a ClusterSettings>,
) -> Result<(), StartError> {
    let has_none = |of: &&ClusterSettings| {
        let engines = versions.get(&of.cluster.id);
        engines.is_none_or(|engines| engines.values().all(Vec::is_empty))
    };
    match settings.find(has_none) {
        None => Ok(()),
        Some(of) => Err(StartError::NoEngine {
            cluster: of.cluster.id.clone(),
            folder: of.backing.engines_from(),
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

/// Warns of versions that clusters name to have them served to strangers, and that are not on them.
pub(super) fn warn_of_unused_names(settings: &[ClusterSettings], versions: &Versions) {
    for cluster in settings.iter().map(|of| &of.cluster) {
        for named in &cluster.exposure.versions {
            let installed = versions
                .get(&cluster.id)
                .and_then(|of| of.get(&named.engine));
            if !installed.is_some_and(|versions| versions.contains(&named.version)) {
                log::warn!(cluster = cluster.id.as_str();
                    "exposed_versions names {named}, which is not installed there: the name has no effect");
            }
        }
    }
}

/// Tells of versions with known faults, once each.
pub(super) fn log_known_faults(profiles: &BTreeMap<String, &'static Profile>, versions: &Versions) {
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

/// Tells of databases that must not be reached where others of their cluster are, and who reaches them.
pub(super) async fn log_withheld(broker: &Broker) {
    let all = match broker.moves.all_withheld().await {
        Ok(all) => all,
        Err(error) => return log::error!("cannot look who reaches members: {}", chain(&error)),
    };
    let (kept, exposed): (Vec<_>, Vec<_>) = all
        .into_iter()
        .partition(|(_, withheld)| *withheld == Withheld::Kept);
    let told = |of: Vec<(Deployment, Withheld)>| {
        let all: Vec<Deployment> = of.into_iter().map(|(deployment, _)| deployment).collect();
        (!all.is_empty()).then(|| (counted(all.len(), "instance"), named(&all)))
    };
    if let Some((count, names)) = told(exposed) {
        log::error!(
            "other machines still reach {count}, whose version lets strangers in: {names}; all their \
             members are restarted as soon as they have no other work, so that programs on this machine \
             alone reach them: keep strangers out with a firewall until then"
        );
    }
    if let Some((count, names)) = told(kept) {
        log::warn!(
            "programs on this machine alone reach {count}, whose version lets strangers in: {names}; \
             upgrade them, or name the version in exposed_versions"
        );
    }
}

/// The first of these, with their versions, and how many more there are.
fn named(all: &[Deployment]) -> String {
    let most = usize::try_from(NAMED_MAX).unwrap_or_default();
    let name = |of: &Deployment| format!("{} ({} {})", of.instance.as_str(), of.engine, of.version);
    let mut names: Vec<String> = all.iter().take(most).map(name).collect();
    if all.len() > most {
        names.push(format!("and {} more", all.len() - most));
    }
    names.join(", ")
}

/// Compares the clusters with the store: every instance has one to live on, and none is one.
pub(super) async fn check_clusters(
    store: &Arc<Store>,
    clusters: &[ClusterSettings],
) -> Result<(), StartError> {
    let clusters = clusters.iter().map(|of| &of.cluster);
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
pub async fn start_members(clusters: &[ClusterSettings]) {
    Opened::beyond_doubt(clusters, None, &engine::all()).await;
}

/// Clusters that were opened, so that their members run.
pub(super) struct Opened {
    /// What their engines are known by.
    profiles: Vec<&'static Profile>,
    clusters: BTreeMap<String, ClusterParts>,
    /// How many members ran already, by the id of the cluster.
    adopted: BTreeMap<String, usize>,
    /// Why some were not, by the id of the cluster.
    failures: BTreeMap<String, StartError>,
    /// Those that another broker looks after, or that do not answer.
    handovers: Vec<Arc<Handover>>,
    /// Whether other brokers may share the store.
    is_shared: bool,
}

impl Opened {
    /// Opens those of the clusters that are beyond doubt the broker's own, `url` being its database.
    pub(super) async fn beyond_doubt(
        clusters: &[ClusterSettings],
        url: Option<DatabaseAddress<'_>>,
        engines: &[SharedEngine],
    ) -> Self {
        let mut opened = Self {
            profiles: engines.iter().map(|engine| engine.profile()).collect(),
            clusters: BTreeMap::new(),
            adopted: BTreeMap::new(),
            failures: BTreeMap::new(),
            handovers: Vec::new(),
            is_shared: url.is_some_and(|at| Store::file(at.url).is_none()),
        };
        opened
            .open_all(folders::beyond_doubt(clusters, url).await)
            .await;
        opened
    }

    /// Opens the clusters that are not opened yet.
    pub(super) async fn open_all(&mut self, clusters: impl IntoIterator<Item = &ClusterSettings>) {
        for of in clusters {
            self.open(of).await;
        }
    }

    /// Opens a cluster once. Where it fails, the members of the others are started all the same.
    async fn open(&mut self, of: &ClusterSettings) {
        let id = &of.cluster.id;
        if self.clusters.contains_key(id) || self.failures.contains_key(id) {
            return;
        }
        if !of.is_here {
            return self.stand_by(of);
        }
        let opened = match of.backing.open(&of.cluster, &self.profiles).await {
            Ok(opened) => opened,
            Err(ProvisionerError::InUse { .. }) if self.is_shared => return self.stand_by(of),
            // The others are served meanwhile.
            Err(error @ ProvisionerError::ClusterSilent { .. }) => {
                log::error!(cluster = id.as_str();
                    "the cluster is left alone until it answers: {}", chain(&error));
                let handover = Handover::of_silent(id);
                handover.note_installed(of.backing.named(&of.cluster, &self.profiles));
                return self.hand_over(of, handover);
            }
            Err(source) => {
                let cluster = id.clone();
                let error = StartError::Cluster { cluster, source };
                self.failures.insert(id.clone(), error);
                return;
            }
        };
        self.adopted.insert(id.clone(), opened.adopted);
        self.add(of, opened.provisioner);
    }

    /// Leaves a cluster to another broker for now.
    fn stand_by(&mut self, of: &ClusterSettings) {
        self.hand_over(of, Handover::of(&of.cluster.id, of.is_here));
    }

    fn hand_over(&mut self, of: &ClusterSettings, handover: Arc<Handover>) {
        self.handovers.push(handover.clone());
        self.add(of, handover);
    }

    fn add(&mut self, of: &ClusterSettings, provisioner: SharedProvisioner) {
        let parts = ClusterParts {
            provisioner,
            exposure: of.cluster.exposure.clone(),
        };
        self.clusters.insert(of.cluster.id.clone(), parts);
    }

    /// Hears what is installed on clusters that other brokers look after.
    pub(super) async fn hear(&self, store: &Arc<Store>) -> Result<(), StartError> {
        if self.handovers.is_empty() {
            return Ok(());
        }
        for of in store.read(store::cluster::all).await? {
            let handover = self.handovers.iter().find(|one| one.cluster() == of.id);
            if let Some(handover) = handover {
                handover.note_installed(of.versions);
            }
        }
        Ok(())
    }

    /// All of them; fails when one could not be opened.
    fn all(self) -> Result<BTreeMap<String, ClusterParts>, StartError> {
        match self.failures.into_values().next() {
            None => Ok(self.clusters),
            Some(error) => Err(error),
        }
    }
}
