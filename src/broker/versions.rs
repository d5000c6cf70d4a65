//! The versions that this broker has, for its operator.

use std::collections::BTreeMap;

use super::{BrokerError, cluster::Clusters};
use crate::{
    model::{
        engine::{KnownFault, is_preferred},
        version::Version,
    },
    store,
};

/// What is known of one version of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionInUse {
    /// The engine's name.
    pub engine: String,
    /// The version.
    pub version: Version,
    /// The clusters that have it.
    pub clusters: Vec<String>,
    /// Usable instances that run it.
    pub instances: usize,
    /// Whether it is the one to take of its line.
    pub preferred: bool,
    /// Whether it holds users to the role and the keys that they are given.
    pub limits_users: bool,
    /// Its known faults, the gravest in front.
    pub faults: Vec<KnownFault>,
}

impl Clusters {
    /// Every version that a cluster has or an instance runs, by engine, newest first.
    pub async fn versions_in_use(&self) -> Result<Vec<VersionInUse>, BrokerError> {
        let mut found: BTreeMap<(String, Version), (Vec<String>, usize)> = BTreeMap::new();
        for (cluster, engines) in &*self.inventory.installed.all() {
            for (engine, versions) in engines {
                for version in versions {
                    let entry = found.entry((engine.clone(), *version)).or_default();
                    entry.0.push(cluster.clone());
                }
            }
        }
        let running = self.store.scan(store::deployment::versions_in_use);
        for (engine, version, instances) in running.await? {
            if self.inventory.profile(&engine).is_ok() {
                found.entry((engine, version)).or_default().1 += instances;
            }
        }
        let known: Vec<(String, Version)> = found.keys().cloned().collect();
        let of = |engine: &str| {
            let versions = known.iter().filter(move |(name, _)| name == engine);
            versions.map(|(_, version)| version).collect::<Vec<_>>()
        };
        let mut all: Vec<VersionInUse> = found
            .into_iter()
            .map(|((engine, version), (clusters, instances))| VersionInUse {
                preferred: is_preferred(&version, of(&engine)),
                limits_users: self
                    .inventory
                    .profile(&engine)
                    .is_ok_and(|profile| profile.limits_users(version)),
                faults: self.inventory.known_faults(&engine, version),
                engine,
                version,
                clusters,
                instances,
            })
            .collect();
        all.sort_by(|a, b| a.engine.cmp(&b.engine).then(b.version.cmp(&a.version)));
        Ok(all)
    }
}
