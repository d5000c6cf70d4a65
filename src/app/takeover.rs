//! Of brokers that share a store: which one looks after which clusters.
//!
//! A cluster is looked after by the broker that has opened it, until that one ends; those on the same machine
//! that stand by take it over then. Each says in the store what it looks after, for those that do not find the
//! members of that cluster.

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

use super::seals::renew_seals;
use crate::{
    broker::Broker,
    config::ClusterSettings,
    model::{
        engine::Profile,
        failure::chain,
        limits::{REPLICA_ALIVE, REPLICA_INTERVAL, REPLICA_KEPT},
        replicas::{Replica, seal_alike},
        version::Version,
    },
    provisioner::{
        Duty, ProvisionerError, SharedProvisioner, duty_of, handover::Handover, looked_after,
    },
    seal::KeyRing,
    store::{self, Store, StoreError, cluster::LookedAfter},
};

/// A cluster, and what is installed there, by engine.
type Installed = (String, BTreeMap<String, Vec<Version>>);

fn looks_after(
    broker: &Replica,
    (id, versions): &Installed,
    seen_at: DateTime<Utc>,
) -> LookedAfter {
    LookedAfter {
        id: id.clone(),
        machine: broker.machine.clone(),
        versions: versions.clone(),
        seen_at,
    }
}

/// Takes over what has lost its broker, and lets the others know.
pub(super) struct Takeover {
    pub(super) store: Arc<Store>,
    pub(super) broker: Arc<Broker>,
    /// This broker.
    pub(super) own: Replica,
    pub(super) keys: Arc<KeyRing>,
    pub(super) clusters: Vec<ClusterSettings>,
    pub(super) profiles: Vec<&'static Profile>,
    /// By cluster.
    pub(super) provisioners: BTreeMap<String, SharedProvisioner>,
    /// Those that another broker looked after when this one began, or that did not answer.
    pub(super) handovers: Vec<Arc<Handover>>,
}

impl Takeover {
    /// Looks until `stop`; where no other broker shares the store, until it looks after all clusters.
    pub(super) async fn run(self, stop: CancellationToken) {
        if self.store.is_private() {
            return self.run_alone(stop).await;
        }
        let (mut fails, mut renewed) = (false, false);
        while !stop.is_cancelled() {
            self.take_over().await;
            let looked = match self.exchange().await {
                // Once is enough: a broker that seals under another key is not let in from now on.
                Ok(true) if !renewed => {
                    let renewing = renew_seals(&self.store, &self.keys).await;
                    renewed = renewing.is_ok();
                    renewing
                }
                Ok(_) => Ok(()),
                Err(error) => Err(error.into()),
            };
            match looked {
                Ok(()) => fails = false,
                Err(error) => {
                    if !fails {
                        log::error!("cannot work with the other brokers: {}", chain(&error));
                    }
                    fails = true;
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(REPLICA_INTERVAL) => {}
            }
        }
        let id = self.own.id.clone();
        let left = self
            .store
            .write(move |conn| store::broker::remove(conn, &id));
        if let Err(error) = left.await {
            log::warn!("cannot take leave of the other brokers: {}", chain(&error));
        }
    }

    async fn run_alone(&self, stop: CancellationToken) {
        let all_taken = || self.handovers.iter().all(|of| of.is_taken());
        while !stop.is_cancelled() && !all_taken() {
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(REPLICA_INTERVAL) => self.take_over().await,
            }
        }
    }

    /// Opens the clusters whose broker is gone, and those that answer by now.
    async fn take_over(&self) {
        for handover in &self.handovers {
            let id = handover.cluster();
            let of = self.clusters.iter().find(|of| of.cluster.id == id);
            let (Duty::StandsBy, Some(of)) = (duty_of(&self.provisioners, id), of) else {
                continue;
            };
            match of.backing.open(&of.cluster, &self.profiles).await {
                Ok(opened) => {
                    self.free_claims_on(id).await;
                    self.note(id, &self.versions_of(&opened.provisioner));
                    handover.take(opened.provisioner);
                    let why = match handover.is_silent() {
                        true => "the cluster answers",
                        false => "the broker that looked after the cluster is gone",
                    };
                    log::info!(cluster = id, adopted = opened.adopted; "{why}; this broker took it over");
                }
                Err(ProvisionerError::InUse { .. }) => {}
                // It was told of when this broker began.
                Err(ProvisionerError::ClusterSilent { .. }) if handover.is_silent() => {}
                Err(error) => {
                    log::error!(cluster = id; "cannot take the cluster over: {}", chain(&error));
                }
            }
        }
    }

    /// Frees what the broker was at work on that looked after a cluster. Where that fails, its claims end by
    /// themselves.
    async fn free_claims_on(&self, cluster: &str) {
        let of = cluster.to_owned();
        let free = self
            .store
            .write(move |conn| store::claim::release_on(conn, &of));
        if let Err(error) = free.await {
            log::warn!(cluster = cluster; "its claims are waited out: {}", chain(&error));
        }
    }

    /// Says that this broker is alive and what it looks after, and hears the same of others. Returns whether
    /// all of them seal alike.
    async fn exchange(&self) -> Result<bool, StoreError> {
        let now = self.broker.clock.now();
        let own: Vec<Installed> = looked_after(&self.provisioners)
            .map(|(id, provisioner)| (id.clone(), self.versions_of(provisioner)))
            .collect();
        for (id, versions) in &own {
            self.note(id, versions);
        }
        if !self.is_known(now, own.clone()).await? {
            self.introduce(now, own).await?;
        }
        let this = self.own.clone();
        let heard = self.store.read(move |conn| {
            let seen_at = store::time::of_store(conn, now)?;
            let alive = store::broker::alive_since(conn, seen_at - REPLICA_ALIVE)?;
            Ok((store::cluster::all(conn)?, seal_alike(&this, &alive)))
        });
        let (all, seal_alike) = heard.await?;
        for of in all {
            let handover = self.handovers.iter().find(|one| one.cluster() == of.id);
            if let Some(handover) = handover
                && duty_of(&self.provisioners, &of.id) != Duty::LooksAfter
            {
                handover.note_installed(of.versions.clone());
                self.note(&of.id, &of.versions);
            }
        }
        Ok(seal_alike)
    }

    /// Says that this broker is still alive and looks after these clusters. Returns whether the store knows all of
    /// that; no decision waits for it, nor does it for one.
    async fn is_known(&self, now: DateTime<Utc>, own: Vec<Installed>) -> Result<bool, StoreError> {
        let this = self.own.clone();
        let told = self.store.write_beside(move |conn| {
            let seen_at = store::time::of_store(conn, now)?;
            store::broker::forget(conn, seen_at - REPLICA_KEPT)?;
            let mut is_known = store::broker::touch(conn, &this.id, seen_at)?;
            for of in &own {
                is_known &= store::cluster::touch(conn, &looks_after(&this, of, seen_at))?;
            }
            Ok(is_known)
        });
        told.await
    }

    /// Says all of this broker.
    async fn introduce(&self, now: DateTime<Utc>, own: Vec<Installed>) -> Result<(), StoreError> {
        let (own_replica, catalog) = (self.own.clone(), self.broker.inventory.catalog.clone());
        let told = self.store.write(move |conn| {
            // The catalog of this moment: another one comes into force between two decisions.
            let this = Replica {
                plans: Some(catalog.get().plan_ids()),
                ..own_replica.clone()
            };
            let seen_at = store::time::of_store(conn, now)?;
            store::broker::set(conn, &this, seen_at)?;
            let mut own = own.iter();
            own.try_for_each(|of| store::cluster::set(conn, &looks_after(&this, of, seen_at)))
        });
        told.await
    }

    fn versions_of(&self, provisioner: &SharedProvisioner) -> BTreeMap<String, Vec<Version>> {
        let engines = self.broker.inventory.profiles.engines();
        engines
            .map(|engine| (engine.to_owned(), provisioner.versions(engine)))
            .collect()
    }

    fn note(&self, cluster: &str, versions: &BTreeMap<String, Vec<Version>>) {
        let installed = &self.broker.inventory.installed;
        if installed.all().get(cluster) != Some(versions) {
            installed.set(cluster, versions.clone());
        }
    }
}
