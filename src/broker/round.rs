//! All instances, looked at one after the other, for metrics and alerts of the broker as a whole; and the
//! work in figures.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures::{StreamExt as _, stream};

use super::{
    BrokerError, BrokerParts,
    health::{Read, read},
    inventory::Inventory,
    vitals::Vitals,
};
use crate::{
    clock::Clock,
    model::{
        alert::{alerts, backup_late_at},
        backup::Backup,
        deployment::Deployment,
        figures::{BackupSeen, InstanceSeen, Work},
        health::health,
        instance::{Instance, InstanceState},
        limits::{LOOKS_AT_ONCE, ROUND_PAGE},
        observation::Observation,
    },
    store::{self, Conn, Store, StoreError},
};

/// An instance that was looked at.
#[derive(Debug)]
pub struct LookedOver {
    /// In figures.
    pub seen: InstanceSeen,
    /// What its members told; none where nobody could look.
    pub observation: Option<Arc<Observation>>,
}

/// Looks over all instances, and at how the work stands.
pub struct Rounds {
    store: Arc<Store>,
    clock: Clock,
    inventory: Arc<Inventory>,
    vitals: Arc<Vitals>,
}

impl Rounds {
    pub(super) fn new(parts: &BrokerParts, inventory: Arc<Inventory>, vitals: Arc<Vitals>) -> Self {
        Self {
            store: parts.store.clone(),
            clock: parts.clock.clone(),
            inventory,
            vitals,
        }
    }

    /// Looks at some instances, those after `after` by id. Also returns after which the others come; none
    /// when there are no more.
    pub async fn look_over(
        &self,
        after: &str,
    ) -> Result<(Vec<LookedOver>, Option<String>), BrokerError> {
        let (after, now) = (after.to_owned(), self.clock.now());
        let found = self.store.scan(move |conn: &mut Conn<'_>| {
            let mut found = Vec::new();
            let page = store::instance::after(conn, &after, ROUND_PAGE)?;
            let last = page.last().map(|instance| instance.id.to_string());
            for instance in page {
                let Some((deployment, _)) = store::deployment::of_instance(conn, &instance.id)?
                else {
                    continue;
                };
                let read = read(conn, &instance, &deployment, now)?;
                found.push((instance, deployment, read));
            }
            Ok::<_, StoreError>((found, last))
        });
        let (found, last) = found.await?;
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
        let Read {
            life,
            backups,
            beside,
            newest,
        } = read;
        let database = self.vitals.database_watch(deployment, beside);
        let seen = observation.as_deref();
        let told = match life.state {
            InstanceState::Ready => alerts(now, &database, seen, &backups),
            _ => Vec::new(),
        };
        let health = health(&life, &database, seen, &told);
        let (_, plan) = self.inventory.offering_name(instance);
        let is_backup_late = life.state == InstanceState::Ready
            && backup_late_at(&backups).is_some_and(|late_at| now >= late_at);
        LookedOver {
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
                backup: newest.as_ref().and_then(backup_seen),
                is_backup_late,
                backup_failures: backups.schedule.map_or(0, |schedule| schedule.failures),
                certificate_ends: database.certificates.map(|outlook| outlook.ends_at),
            },
            observation,
        }
    }

    /// How the work stands.
    pub async fn work(&self) -> Result<Work, BrokerError> {
        let now = self.clock.now();
        Ok(self
            .store
            .scan(move |conn| store::figures::work(conn, now))
            .await?)
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
