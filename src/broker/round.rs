//! All instances, looked at one after the other, for metrics and alerts of the broker as a whole; and the
//! work in figures.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures::{StreamExt as _, stream};

use super::{
    BrokerError, BrokerParts, Census,
    health::{Read, read_whole},
    inventory::Inventory,
    vitals::Vitals,
};
use crate::{
    clock::Clock,
    model::{
        alert::{Alert, freshness},
        backup::Backup,
        deployment::Deployment,
        figures::{BackupSeen, InstanceSeen, Workload},
        ids::DeploymentId,
        instance::{Instance, InstanceState},
        limits::{LOOKS_AT_ONCE, ROUND_PAGE},
        observation::Observation,
        proof::Freshness,
    },
    store::{self, Conn, Store, StoreError},
};

/// An instance that was looked at.
#[derive(Debug)]
pub struct LookedOver {
    /// Its deployment.
    pub deployment: DeploymentId,
    /// In figures.
    pub seen: InstanceSeen,
    /// What the operator should know of it.
    pub alerts: Vec<Alert>,
    /// Whether these are all: not where members are to be looked at and could not be.
    pub is_whole: bool,
    /// What its members told; none where nobody could look.
    pub observation: Option<Arc<Observation>>,
}

/// Looks over all instances, and at how the work stands.
pub struct Rounds {
    store: Arc<Store>,
    clock: Clock,
    inventory: Arc<Inventory>,
    vitals: Arc<Vitals>,
    census: Arc<dyn Census>,
}

impl Rounds {
    pub(super) fn new(parts: &BrokerParts, inventory: Arc<Inventory>, vitals: Arc<Vitals>) -> Self {
        Self {
            store: parts.store.clone(),
            clock: parts.clock.clone(),
            inventory,
            vitals,
            census: parts.census.clone(),
        }
    }

    /// Looks at some of the instances that this broker looks after, those after `after` by id. Also returns after which the others come; none
    /// when there are no more.
    pub async fn look_over(
        &self,
        after: &str,
    ) -> Result<(Vec<LookedOver>, Option<String>), BrokerError> {
        let (after, now) = (after.to_owned(), self.clock.now());
        let inventory = self.inventory.clone();
        let found = self.store.scan(move |conn: &mut Conn<'_>| {
            let mut found = Vec::new();
            let page = store::instance::after(conn, &after, ROUND_PAGE)?;
            let last = page.last().map(|instance| instance.id.to_string());
            for instance in page {
                if let Some((deployment, read)) = read_whole(conn, &inventory, &instance, now)? {
                    found.push((instance, deployment, read));
                }
            }
            Ok::<_, StoreError>((found, last))
        });
        let (mut found, last) = found.await?;
        // The brokers that look after the others look at them.
        found.retain(|(_, deployment, _)| self.census.looks_after(&deployment.cluster));
        let looks = found
            .into_iter()
            .map(|(instance, deployment, read)| async move {
                let seen = match read.life.state {
                    InstanceState::Ready => self.vitals.seen_now(&deployment).await,
                    _ => None,
                };
                self.looked_over(&instance, &deployment, read, seen, now)
            });
        let looked = stream::iter(looks).buffered(LOOKS_AT_ONCE).collect().await;
        Ok((looked, last))
    }

    fn looked_over(
        &self,
        instance: &Instance,
        deployment: &Deployment,
        read: Read,
        observation: Option<Arc<Observation>>,
        now: DateTime<Utc>,
    ) -> LookedOver {
        let seen = observation.as_deref();
        let is_whole = seen.is_some() || read.life.state != InstanceState::Ready;
        let backup = read.newest.as_ref().and_then(backup_seen);
        let is_backup_late = read.late_since(now).is_some();
        let freshness = freshness_of(&read, now);
        let proved_at = read.backups.newest_proved;
        let failures = read.backups.schedule.as_ref().map(|of| of.failures);
        let certificates = read.beside.certificates.as_ref();
        let certificate_ends = certificates.map(|outlook| outlook.ends_at);
        let (health, alerts) = self.vitals.health_and_alerts(deployment, read, seen, now);
        let (_, plan) = self.inventory.offering_name(instance);
        LookedOver {
            deployment: deployment.id.clone(),
            seen: InstanceSeen {
                id: instance.id.clone(),
                engine: deployment.engine.clone(),
                version: deployment.version.to_string(),
                cluster: deployment.cluster.clone(),
                plan,
                health: health.state,
                members: deployment.members.len(),
                members_up: seen.map(Observation::serving),
                used_bytes: seen.and_then(Observation::database_bytes),
                quota_bytes: deployment.quota_bytes(),
                backup,
                is_backup_late,
                freshness,
                proved_at,
                backup_failures: failures.unwrap_or_default(),
                certificate_ends,
            },
            alerts,
            is_whole,
            observation,
        }
    }

    /// How the work stands.
    pub async fn work(&self) -> Result<Workload, BrokerError> {
        let now = self.clock.now();
        Ok(self
            .store
            .scan(move |conn| store::figures::work(conn, now))
            .await?)
    }
}

/// Of a usable instance; whatever is made or deleted has no proved backup to wait for.
fn freshness_of(read: &Read, now: DateTime<Utc>) -> Freshness {
    match read.life.state {
        InstanceState::Ready => freshness(now, &read.backups),
        _ => Freshness::Fresh,
    }
}

fn backup_seen(backup: &Backup) -> Option<BackupSeen> {
    let manifest = backup.manifest.as_ref()?;
    Some(BackupSeen {
        at: manifest.finished_at,
        bytes: manifest.stored.object_bytes,
        took: manifest.finished_at - manifest.started_at,
    })
}
