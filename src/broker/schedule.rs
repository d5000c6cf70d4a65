//! Accepts the backups that are due by themselves.

use std::{collections::HashSet, sync::Arc};

use super::{BrokerError, BrokerParts, backup::queue_backup};
use crate::{
    model::{
        ids::InstanceId,
        limits::{SCHEDULES_LOOKED_AT, SNAPSHOTS_AT_ONCE},
        origin::Origin,
        schedule::Places,
    },
    store::{self, Conn, Store, StoreError, schedule::Due},
    timekeeper::Timekeeper,
};
use chrono::{DateTime, Utc};

/// Accepts scheduled backups.
pub struct BackupSchedule {
    store: Arc<Store>,
    time: Arc<Timekeeper>,
    /// How many snapshots are taken at once.
    places: Places,
}

impl BackupSchedule {
    pub(super) fn new(parts: &BrokerParts) -> Self {
        let clusters = parts.clusters.iter();
        Self {
            store: parts.store.clone(),
            time: parts.time.clone(),
            places: Places::new(
                SNAPSHOTS_AT_ONCE,
                clusters.map(|c| (c.id.clone(), c.snapshots_at_once())),
            ),
        }
    }

    /// Accepts scheduled backups of instances that are due, see [`back_up_due`].
    pub async fn accept_due(&self) -> Result<usize, BrokerError> {
        let (places, now) = (self.places.clone(), self.time.plausible());
        Ok(back_up_due(&self.store, places, now).await?)
    }
}

/// Accepts scheduled backups of instances that are due, those that have waited longest first, as
/// many as `limits` has places for beside the backups that are being taken; returns how many. The
/// others stay due.
pub async fn back_up_due(
    store: &Arc<Store>,
    limits: Places,
    now: DateTime<Utc>,
) -> Result<usize, StoreError> {
    let places = limits.clone();
    // Most looks find nothing, and need not keep a writer waiting.
    let any = store
        .read(move |conn| Ok(!due(conn, places, now, 1)?.0.is_empty()))
        .await?;
    if !any {
        return Ok(0);
    }
    store
        .write(move |conn| accept_due(conn, limits.clone(), now))
        .await
}

/// An instance that is due, on its cluster.
type DueOn = (String, Due);

/// What is due on clusters with a free place, at most `limit` on each, the one that has waited
/// longest in front; with the places that are left beside the backups that are being taken.
fn due(
    conn: &mut Conn<'_>,
    mut places: Places,
    now: DateTime<Utc>,
    limit: i64,
) -> Result<(Vec<DueOn>, Places, HashSet<InstanceId>), StoreError> {
    let mut busy = HashSet::new();
    let at = store::time::of_store(conn, now)?;
    for backup in store::operation::backups_under_way(conn)? {
        // What users have only asked for takes no place yet, nor does what waits for members to
        // answer again.
        let is_next = backup.is_scheduled && backup.not_before <= at;
        if backup.is_running || is_next {
            places.take(&backup.cluster, backup.is_scheduled);
        }
        busy.insert(backup.instance);
    }
    let mut found = Vec::new();
    for cluster in places.free() {
        let due = store::schedule::due(conn, cluster, now, limit)?;
        found.extend(due.into_iter().map(|due| (cluster.to_owned(), due)));
    }
    found.sort_by_key(|(_, due)| due.schedule.next_at);
    Ok((found, places, busy))
}

fn accept_due(
    conn: &mut Conn<'_>,
    limits: Places,
    now: DateTime<Utc>,
) -> Result<usize, StoreError> {
    let (due, mut places, busy) = due(conn, limits, now, SCHEDULES_LOOKED_AT)?;
    let mut accepted = 0;
    for (
        cluster,
        Due {
            schedule,
            deployment,
        },
    ) in due
    {
        if !places.are_free(&cluster) {
            continue;
        }
        let instance = &schedule.instance;
        let taken = store::backup::taken(conn, instance, &schedule.periods(now))?;
        let turn = schedule.turn(now, busy.contains(instance), &taken);
        if let Some(period) = turn.take {
            queue_backup(
                conn,
                instance,
                &deployment,
                Some(period),
                Origin::Schedule,
                now,
            )?;
            places.take(&cluster, true);
            accepted += 1;
        }
        store::schedule::set(conn, &turn.then)?;
    }
    Ok(accepted)
}

#[cfg(test)]
mod tests;
