//! How databases are: their health in one word, what somebody should know of them, and what was seen of
//! their members.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio::time::timeout;

use super::{
    BrokerError, BrokerParts, Census, DeploymentView,
    alert::{Beside, watched},
    health::{Read, read, read_whole},
    inventory::Inventory,
    observation::Observer,
    readdress::Moves,
};
use crate::{
    clock::Clock,
    model::{
        alert::{Alert, DatabaseWatch, alerts},
        defragment::Storage,
        deployment::Deployment,
        health::{Health, alert_of_life, health},
        instance::{Instance, InstanceState},
        limits::ALERT_LOOK_TIMEOUT,
        observation::Observation,
        version::Version,
    },
    store::{Store, StoreError},
};

/// How databases are: their health, their alerts, and what was seen of them.
pub struct Vitals {
    store: Arc<Store>,
    clock: Clock,
    inventory: Arc<Inventory>,
    moves: Arc<Moves>,
    observer: Arc<dyn Observer>,
    census: Arc<dyn Census>,
}

impl Vitals {
    pub(super) fn new(parts: &BrokerParts, inventory: Arc<Inventory>, moves: Arc<Moves>) -> Self {
        Self {
            store: parts.store.clone(),
            clock: parts.clock.clone(),
            inventory,
            moves,
            observer: parts.observer.clone(),
            census: parts.census.clone(),
        }
    }

    /// How an instance is now: by a look at its members that is waited for.
    pub async fn health(&self, of: &DeploymentView) -> Result<Health, BrokerError> {
        let (instance, deployment) = (of.instance.clone(), of.deployment.clone());
        let (now, inventory) = (self.clock.now(), self.inventory.clone());
        let found = self
            .store
            .scan(move |conn| read(conn, &inventory, &instance, &deployment, now));
        let found = found.await?;
        let seen = match of.instance.state {
            InstanceState::Ready => self.seen_now(&of.deployment).await,
            _ => None,
        };
        Ok(self.health_of(&of.deployment, found, seen.as_deref(), now))
    }

    /// How instances are, as their members were seen last, with their deployments. Nobody waits for a
    /// look: those that were not seen lately are looked at behind the answer.
    pub async fn healths(
        &self,
        of: Vec<Instance>,
    ) -> Result<Vec<(Option<Deployment>, Health)>, BrokerError> {
        let (now, inventory) = (self.clock.now(), self.inventory.clone());
        let found = self.store.scan(move |conn| {
            let each = |instance| read_whole(conn, &inventory, instance, now);
            of.iter().map(each).collect::<Result<Vec<_>, StoreError>>()
        });
        let told = found.await?.into_iter().map(|found| {
            let Some((deployment, read)) = found else {
                return (None, Health::unknown());
            };
            let seen = match read.life.state {
                InstanceState::Ready => self.look_behind(&deployment),
                _ => None,
            };
            let health = self.health_of(&deployment, read, seen.as_deref(), now);
            (Some(deployment), health)
        });
        Ok(told.collect())
    }

    /// What was seen last of a deployment. Begins the next look.
    fn look_behind(&self, deployment: &Deployment) -> Option<Arc<Observation>> {
        let fresh = self.observation(deployment);
        fresh.or_else(|| self.last_seen(deployment))
    }

    pub(super) fn health_of(
        &self,
        deployment: &Deployment,
        read: Read,
        seen: Option<&Observation>,
        now: DateTime<Utc>,
    ) -> Health {
        self.health_and_alerts(deployment, read, seen, now).0
    }

    /// How an instance is, and what the operator should know of it.
    pub(super) fn health_and_alerts(
        &self,
        deployment: &Deployment,
        read: Read,
        seen: Option<&Observation>,
        now: DateTime<Utc>,
    ) -> (Health, Vec<Alert>) {
        let database = self.database_watch(deployment, read.beside);
        let mut found = match read.life.state {
            InstanceState::Ready => alerts(now, &database, seen, &read.backups),
            _ => Vec::new(),
        };
        let health = health(&read.life, &database, seen, &found);
        found.extend(alert_of_life(&read.life));
        (health, found)
    }

    /// What somebody should know of an instance now. While it is made or deleted there is nothing
    /// to tell that its state does not.
    pub async fn alerts(&self, of: &DeploymentView) -> Result<Vec<Alert>, BrokerError> {
        if of.instance.state != InstanceState::Ready {
            return Ok(Vec::new());
        }
        let (instance, deployment) = (of.instance.clone(), of.deployment.clone());
        let (now, promises) = (self.clock.now(), self.inventory.promises(&of.instance));
        let (backups, beside) = self
            .store
            .scan(move |conn| watched(conn, &instance, &deployment, promises, now))
            .await?;
        let seen = self.seen_now(&of.deployment).await;
        let database = self.database_watch(&of.deployment, beside);
        Ok(alerts(now, &database, seen.as_deref(), &backups))
    }

    /// What is known of a deployment's database beside what its members tell.
    pub(super) fn database_watch(&self, of: &Deployment, beside: Beside) -> DatabaseWatch {
        let (engine, version) = (of.engine.clone(), of.version);
        let profile = self.inventory.profile(&engine).ok();
        let available = self.inventory.versions_on(&of.cluster, &engine);
        let nearest = |fits: &dyn Fn(Version) -> bool| {
            let newer = available.iter().copied().filter(|v| *v > version);
            newer.filter(|v| fits(*v)).min()
        };
        // All advice names one version: the first without known faults, where it will do.
        let faultless = nearest(&|v| self.inventory.known_faults(&engine, v).is_empty());
        let advised = |fits: &dyn Fn(Version) -> bool| {
            faultless.filter(|v| fits(*v)).or_else(|| nearest(fits))
        };
        let limits = |v: Version| profile.is_some_and(|p| p.limits_users(v));
        let is_safe = |v: Version| profile.is_some_and(|p| p.full_is_safe(v));
        let keeps_out = |v: Version| profile.is_some_and(|p| !p.lets_strangers_in(v));
        DatabaseWatch {
            quota_bytes: of.quota_bytes(),
            faults: self.inventory.known_faults(&engine, version),
            faultless,
            limits_not_held: if limits(version) { 0 } else { beside.limited },
            limits_held_by: advised(&limits),
            is_safe_full: is_safe(version),
            safe_full_from: advised(&is_safe),
            withheld: self.moves.withheld(of),
            reachable_from: advised(&keeps_out),
            closed_since: of.closed_since,
            incidents: beside.incidents,
            repair: beside.repair,
            is_recovered: beside.is_recovered,
            move_failure: beside.move_failure,
            is_elsewhere: !self.census.finds(&of.cluster),
            certificates: beside.certificates,
            proves_backups: self.inventory.proves_backups,
            engine,
            version,
        }
    }

    /// What was seen a moment ago, or what is seen by a look that is waited for.
    pub async fn seen_now(&self, deployment: &Deployment) -> Option<Arc<Observation>> {
        let look = self.observer.recent(deployment);
        timeout(ALERT_LOOK_TIMEOUT, look).await.ok().flatten()
    }

    /// The state of a deployment, see [`Observer::observe`].
    pub fn observation(&self, deployment: &Deployment) -> Option<Arc<Observation>> {
        self.observer.observe(deployment)
    }

    /// What the files of a deployment's database have and use, as its members tell now; none when
    /// nobody does.
    pub async fn storage(&self, of: &DeploymentView) -> Option<Storage> {
        let seen = self.seen_now(&of.deployment).await?;
        Storage::of(&seen)
    }

    /// What was seen of it last, see [`Observer::seen`].
    pub fn last_seen(&self, deployment: &Deployment) -> Option<Arc<Observation>> {
        self.observer.seen(deployment)
    }
}
