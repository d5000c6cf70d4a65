//! How the parts of a broker are put together.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::{
    Surroundings, checks::Kept, clusters::Backends, mirroring::Mirroring, registers::Calling,
    resealing::Resealing, takeover::Takeover,
};
use crate::{
    alerting::NotifierSettings,
    broker::{Broker, BrokerParts, Doorkeeper, Downloads},
    census::ClusterCensus,
    config::Config,
    courier::{Courier, Sender},
    guard::Guard,
    http::{Api, origin::Rates, readiness::Readiness, scrapes::Scrapes},
    logbook::Logbook,
    metrics::Metrics,
    model::{placement::Cluster, queue::Limits, secret::Credentials},
    observer::{EngineObserver, Memory},
    operation::{self, Parts},
    volumes::Volumes,
    watchdog::Watchdog,
};

/// What the parts are made of: the settings, what the broker keeps, and what it works on.
pub(super) struct Assembly<'a> {
    pub(super) config: &'a Config,
    pub(super) surroundings: &'a Surroundings,
    pub(super) public_url: &'a str,
    pub(super) kept: &'a Kept,
    pub(super) backends: &'a Backends,
    pub(super) volumes: &'a Arc<Volumes>,
    pub(super) metrics: &'a Arc<Metrics>,
    /// Whether the broker says that it is ready.
    pub(super) readiness: Arc<Readiness>,
    /// What was seen of deployments, by each part that looks at them.
    pub(super) seen: Arc<Memory>,
}

impl Assembly<'_> {
    /// The use cases.
    pub(super) fn broker(&self) -> Arc<Broker> {
        let config = self.config;
        let provisioners = self.backends.provisioners();
        let doorkeeper = Doorkeeper::new(
            &config.access.keys,
            &self.credentials(),
            &config.access.read_only,
            config.limits.failed_sign_ins,
        );
        Arc::new(Broker::new(&BrokerParts {
            store: self.kept.store.clone(),
            replica: self.kept.replica.id.clone(),
            catalog: self.kept.catalog.clone(),
            keys: config.access.keys.clone(),
            clock: self.surroundings.clock.clone(),
            time: self.kept.time.clone(),
            backups: self.kept.backups.clone(),
            registrar: self.kept.registrar.clone(),
            clusters: config
                .places
                .clusters
                .iter()
                .map(|c| c.cluster.clone())
                .collect(),
            versions: self.backends.versions.clone(),
            profiles: self.backends.profiles().into(),
            units_per_tenant: config.limits.tenant_units,
            limits: self.limits(),
            restore_scope: config.conventions.restore_scope,
            tenant_keys: config.conventions.tenant_keys.clone(),
            deleted_poll: config.conventions.deleted_poll,
            deployment_names: config.conventions.deployment_names.clone(),
            public_url: self.public_url.to_owned(),
            audit_days: config.retention.audit_days,
            proves_backups: config.retention.proves_backups,
            step_titles: operation::title_of,
            certificate_life: self.surroundings.certificate_life,
            on_demand_pause: config.limits.on_demand_pause,
            doorkeeper: Arc::new(doorkeeper),
            downloads: Arc::new(Downloads::on(Handle::current())),
            volumes: self.volumes.clone(),
            observer: Arc::new(self.observer()),
            census: Arc::new(ClusterCensus::new(provisioners.clone())),
            logs: Arc::new(Logbook::new(provisioners, self.backends.engines.clone())),
            messenger: self.sender().map(|sender| Arc::new(sender) as _),
        }))
    }

    /// How much may be done at once.
    fn limits(&self) -> Limits {
        let clusters = self.config.places.clusters.iter().map(|of| &of.cluster);
        let limit = |cluster: &Cluster| {
            let most = usize::try_from(cluster.operations_at_once?).ok()?;
            Some((cluster.id.clone(), most))
        };
        Limits {
            tenant: self.config.limits.tenant_operations,
            clusters: clusters.filter_map(limit).collect(),
        }
    }

    fn observer(&self) -> EngineObserver {
        EngineObserver::new(
            self.kept.store.clone(),
            self.config.access.keys.clone(),
            self.backends.engines.clone(),
            self.backends.provisioners(),
            self.surroundings.clock.clone(),
            self.seen.clone(),
            Handle::current(),
        )
    }

    /// What watches over the sizes of databases.
    pub(super) fn guard(&self, broker: &Arc<Broker>) -> Guard {
        Guard::new(
            broker.upkeep.clone(),
            Box::new(self.observer()),
            self.backends.engines.clone(),
            self.backends.provisioners(),
        )
    }

    /// What watches over members.
    pub(super) fn watchdog(&self, broker: &Arc<Broker>) -> Watchdog {
        Watchdog::new(
            broker.upkeep.clone(),
            Box::new(self.observer()),
            self.backends.engines.clone(),
            self.backends.provisioners(),
            self.surroundings.hang_after,
        )
    }

    /// What takes over clusters of other brokers, where some may share the store, and those that do not answer yet.
    pub(super) fn takeover(&self, broker: &Arc<Broker>) -> Option<Takeover> {
        let is_alone = self.kept.store.is_private() && self.backends.handovers.is_empty();
        (!is_alone).then(|| Takeover {
            store: self.kept.store.clone(),
            broker: broker.clone(),
            own: self.kept.replica.clone(),
            keys: self.config.access.keys.clone(),
            clusters: self.config.places.clusters.clone(),
            profiles: self.backends.profiles().into_values().collect(),
            provisioners: self.backends.provisioners(),
            handovers: self.backends.handovers.clone(),
        })
    }

    /// What seals manifests of backups anew.
    pub(super) fn resealing(&self) -> Resealing {
        Resealing {
            store: self.kept.store.clone(),
            backups: self.kept.backups.clone(),
            keys: self.config.access.keys.clone(),
            own: self.kept.replica.clone(),
            clock: self.surroundings.clock.clone(),
            provisioners: self.backends.provisioners(),
        }
    }

    /// What writes registers of backups, and looks whether these are there.
    pub(super) fn calling(&self) -> Calling {
        Calling {
            store: self.kept.store.clone(),
            registrar: self.kept.registrar.clone(),
            keys: self.config.access.keys.clone(),
            clock: self.surroundings.clock.clone(),
            every: self.surroundings.registers_every,
            provisioners: self.backends.provisioners(),
        }
    }

    /// What copies backups into the mirror, where there is one.
    pub(super) fn mirroring(&self) -> Option<Mirroring> {
        let backups = self.kept.backups.clone();
        backups.has_mirror().then(|| Mirroring {
            store: self.kept.store.clone(),
            backups,
            registrar: self.kept.registrar.clone(),
            broker: self.kept.replica.id.clone(),
            clock: self.surroundings.clock.clone(),
        })
    }

    /// What the webhook is told, where there is one.
    pub(super) fn notifier(&self) -> Option<NotifierSettings> {
        let webhook = self.config.monitoring.webhook.as_ref()?;
        Some(NotifierSettings {
            threshold: webhook.threshold,
            settles_after: self.surroundings.alerts_settle_after,
        })
    }

    /// What sends messages to the webhook, where there is one.
    pub(super) fn courier(&self, broker: &Arc<Broker>) -> Option<Courier> {
        let (outbox, metrics) = (broker.outbox.clone(), self.metrics.clone());
        Some(Courier::new(self.sender()?, outbox, metrics))
    }

    fn sender(&self) -> Option<Sender> {
        let webhook = self.config.monitoring.webhook.clone()?;
        Some(Sender::new(webhook, self.surroundings.clock.clone()))
    }

    /// What operations work with.
    pub(super) fn parts(&self) -> Arc<Parts> {
        let config = self.config;
        Arc::new(Parts {
            store: self.kept.store.clone(),
            engines: self.backends.engines.clone(),
            clusters: self.backends.clusters.clone(),
            limits: self.limits(),
            backups: self.kept.backups.clone(),
            registrar: self.kept.registrar.clone(),
            keys: config.access.keys.clone(),
            catalog: self.kept.catalog.clone(),
            clock: self.surroundings.clock.clone(),
            time: self.kept.time.clone(),
            backup_grace: chrono::TimeDelta::hours(config.retention.backup_grace_hours.into()),
            hang_after: self.surroundings.hang_after,
            proves_backups: config.retention.proves_backups,
            certificate_life: self.surroundings.certificate_life,
            public_url: self.public_url.to_owned(),
            metrics: self.metrics.clone(),
        })
    }

    /// What the handlers of requests work with.
    pub(super) fn api(&self, broker: &Arc<Broker>) -> Api {
        Api {
            broker: broker.clone(),
            credentials: self.credentials(),
            read_only: self.config.access.read_only.clone(),
            proxies: self.config.listening.trusted_proxies.clone(),
            readiness: self.readiness.clone(),
            rates: Rates::new(self.config.limits.requests_per_second),
            metrics: self.metrics.clone(),
            scrapes: Scrapes::guarded_by(self.config.monitoring.token.clone()),
        }
    }

    /// Each of them lets the platform in.
    fn credentials(&self) -> Vec<Credentials> {
        let access = &self.config.access;
        let platform = std::iter::once(&access.platform);
        platform.chain(&access.more).cloned().collect()
    }
}
