//! What a start tells the log: what is served, from where, and by what.

use std::{collections::BTreeSet, sync::Arc};

use super::clusters::Backends;
use crate::{
    config::Config,
    model::failure::chain,
    provisioner::{Duty, Provisioner as _},
    store::{self, Store},
};

/// Tells what this broker is and what it works with.
pub(super) async fn log_start(config: &Config, store: &Arc<Store>, backends: &Backends) {
    log::info!(version = env!("CARGO_PKG_VERSION"); "compose-broker starts");
    let kind = match Store::file(config.places.database_url.expose()) {
        Some(file) => format!("SQLite in {}", file.display()),
        // Its address holds a password.
        None => "PostgreSQL".to_owned(),
    };
    log::info!("the store is {kind}");
    for (cluster, engines) in &backends.versions {
        if let Some(adopted) = backends.adopted.get(cluster) {
            log::info!(cluster = cluster.as_str(), adopted = adopted;
                "the cluster is open; the broker adopted the members that ran");
        }
        let mut others = backends.handovers.iter().filter(|of| !of.is_silent());
        let others = others.find(|of| of.cluster() == cluster);
        match others.map(|of| of.duty()) {
            Some(Duty::StandsBy) => log::info!(cluster = cluster.as_str();
                "another broker looks after the cluster; this one stands by, and takes over when that one \
                 is gone"),
            Some(_) => log::info!(cluster = cluster.as_str();
                "brokers on another machine look after the cluster"),
            None => {}
        }
        for (engine, versions) in engines.iter().filter(|(_, versions)| !versions.is_empty()) {
            let versions: BTreeSet<_> = versions.iter().collect();
            let versions: Vec<String> = versions.iter().map(ToString::to_string).collect();
            log::info!(cluster = cluster.as_str(); "the cluster has {engine} {}", versions.join(", "));
        }
    }
    match store.read(store::folder::known).await {
        Ok(known) => {
            for (folder, marker) in known {
                log::info!("the marker of {folder} is {marker}");
            }
        }
        Err(error) => log::error!("cannot read the ids of folders: {}", chain(&error)),
    }
}
