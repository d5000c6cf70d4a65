//! Accepts the backups that are due by themselves.

use std::{collections::HashSet, sync::Arc};

use super::{BrokerError, BrokerParts, backup::queue_backup};
use crate::{
    model::{
        failure::chain,
        ids::InstanceId,
        limits::{SCHEDULE_RETRY_MAX, SCHEDULES_LOOKED_AT, SNAPSHOTS_AT_ONCE},
        origin::Origin,
        schedule::Places,
    },
    store::{
        self, Conn, Store, StoreError,
        schedule::{DueSchedule, Spoiled},
    },
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
/// others stay due. One that cannot be accepted holds up no other: it is left alone for
/// [`SCHEDULE_RETRY_MAX`].
pub async fn back_up_due(
    store: &Arc<Store>,
    limits: Places,
    now: DateTime<Utc>,
) -> Result<usize, StoreError> {
    let places = limits.clone();
    // Most looks find nothing, and need not keep a writer waiting.
    let any = store
        .read(move |conn| {
            let found = due(conn, places, now, 1)?;
            Ok(!found.due.is_empty() || !found.spoiled.is_empty())
        })
        .await?;
    if !any {
        return Ok(0);
    }
    store
        .write(move |conn| accept_due(conn, limits.clone(), now))
        .await
}

/// What is due.
struct Found {
    /// On clusters with a free place, which stand beside them, the one that has waited longest in front.
    due: Vec<(String, DueSchedule)>,
    /// Those that cannot be read.
    spoiled: Vec<Spoiled>,
    /// What is left beside the backups that are being taken.
    places: Places,
    /// Instances that a backup is being taken of.
    busy: HashSet<InstanceId>,
}

/// Looks for what is due, at most `limit` on each cluster.
fn due(
    conn: &mut Conn<'_>,
    mut places: Places,
    now: DateTime<Utc>,
    limit: i64,
) -> Result<Found, StoreError> {
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
    let (mut found, mut all_spoiled) = (Vec::new(), Vec::new());
    for cluster in places.free() {
        let (due, spoiled) = store::schedule::due(conn, cluster, now, limit)?;
        found.extend(due.into_iter().map(|due| (cluster.to_owned(), due)));
        all_spoiled.extend(spoiled);
    }
    found.sort_by_key(|(_, due)| due.schedule.next_at);
    Ok(Found {
        due: found,
        spoiled: all_spoiled,
        places,
        busy,
    })
}

fn accept_due(
    conn: &mut Conn<'_>,
    limits: Places,
    now: DateTime<Utc>,
) -> Result<usize, StoreError> {
    let Found {
        due,
        spoiled,
        mut places,
        busy,
    } = due(conn, limits, now, SCHEDULES_LOOKED_AT)?;
    for Spoiled { instance, reason } in spoiled {
        pass_over(conn, &instance, &reason, now)?;
    }
    let mut accepted = 0;
    for (cluster, due) in due {
        if !places.are_free(&cluster) {
            continue;
        }
        let is_busy = busy.contains(&due.schedule.instance);
        match conn.apart(|conn| accept(conn, &due, is_busy, now))? {
            Ok(false) => {}
            Ok(true) => {
                places.take(&cluster, true);
                accepted += 1;
            }
            Err(error) if error.is_shortage() || error.is_full() => return Err(error),
            Err(error) => pass_over(conn, due.schedule.instance.as_str(), &error, now)?,
        }
    }
    Ok(accepted)
}

/// Returns whether a backup was accepted.
fn accept(
    conn: &mut Conn<'_>,
    due: &DueSchedule,
    is_busy: bool,
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let (schedule, instance) = (&due.schedule, &due.schedule.instance);
    let taken = store::backup::taken(conn, instance, &schedule.periods(now))?;
    let turn = schedule.turn(now, is_busy, &taken);
    if let Some(period) = turn.take {
        let origin = Origin::Schedule;
        queue_backup(conn, instance, &due.deployment, Some(period), origin, now)?;
    }
    store::schedule::set(conn, &turn.then)?;
    Ok(turn.take.is_some())
}

/// Leaves an instance alone for a while whose backup cannot be accepted, so that the others have theirs.
fn pass_over(
    conn: &mut Conn<'_>,
    instance: &str,
    reason: &StoreError,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    log::error!(instance = instance; "its backup is due and cannot be begun: {}", chain(reason));
    store::schedule::put_off(conn, instance, now + SCHEDULE_RETRY_MAX)
}

#[cfg(test)]
mod tests;
