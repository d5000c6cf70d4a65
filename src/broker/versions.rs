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
        for (cluster, engines) in &self.inventory.versions {
            for (engine, versions) in engines {
                for version in versions {
                    let entry = found.entry((engine.clone(), *version)).or_default();
                    entry.0.push(cluster.clone());
                }
            }
        }
        let engines: Vec<String> = self
            .inventory
            .profiles
            .engines()
            .map(str::to_owned)
            .collect();
        let running = self.store.scan(move |conn| {
            let of = |engine: &String| store::deployment::usable(conn, engine);
            engines.iter().map(of).collect::<Result<Vec<_>, _>>()
        });
        for deployment in running.await?.into_iter().flatten() {
            let key = (deployment.engine, deployment.version);
            found.entry(key).or_default().1 += 1;
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
