//! What is known of whether backups can be restored, and which proof is due.

use chrono::{DateTime, NaiveDateTime, Utc};
use diesel::prelude::*;

use super::{
    Conn, StoreError, each, parse,
    schema::{backups, deployments, instances},
    to_json,
};
use crate::model::{
    backup::BackupState,
    ids::{BackupId, InstanceId},
    instance::InstanceState,
    limits::PROOF_PAUSE_MAX,
    proof::Proof,
};

/// A backup whose proof is due.
#[derive(Debug)]
pub struct Due {
    /// The backup.
    pub backup: BackupId,
    /// The instance that it is of.
    pub instance: InstanceId,
    /// Since when.
    pub since: DateTime<Utc>,
}

/// Backups of usable instances on a cluster whose proof is due, the one that has waited longest in front, at
/// most `limit`.
pub fn due(
    conn: &mut Conn<'_>,
    cluster: &str,
    now: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<Due>, StoreError> {
    let rows: Vec<(String, String, Option<NaiveDateTime>)> = each!(conn, |c| {
        let here = deployments::table
            .inner_join(instances::table.on(instances::id.eq(deployments::instance_id)))
            .filter(deployments::cluster_id.eq(cluster))
            .filter(instances::state.eq(InstanceState::Ready.as_str()));
        backups::table
            .filter(backups::proof_at.is_not_null())
            // The first proof goes by no clock. Nor does one that no pause is long enough for: the clock was
            // set back.
            .filter(
                (backups::proof.is_null())
                    .or(backups::proof_at.le(now.naive_utc()))
                    .or(backups::proof_at.gt((now + PROOF_PAUSE_MAX).naive_utc())),
            )
            .filter(backups::state.eq(BackupState::Complete.as_str()))
            .filter(backups::deployment_id.eq_any(here.select(deployments::id)))
            .order((backups::proof_at, backups::id))
            .limit(limit)
            .select((backups::id, backups::instance_id, backups::proof_at))
            .load(c)
    })?;
    let due = rows.into_iter().map(|(backup, instance, since)| {
        Ok(Due {
            backup: parse("a backup's id", &backup)?,
            instance: parse("an instance's id", &instance)?,
            since: since.map_or(now, |since| since.and_utc()),
        })
    });
    due.collect()
}

/// Keeps what is known of a backup, and when its next proof is due.
pub fn set(
    conn: &mut Conn<'_>,
    id: &BackupId,
    proof: &Proof,
    next_at: Option<DateTime<Utc>>,
) -> Result<(), StoreError> {
    let proof = to_json(proof)?;
    each!(conn, |c| diesel::update(backups::table.find(id.as_str()))
        .set((
            backups::proof.eq(&proof),
            backups::proof_at.eq(next_at.map(|at| at.naive_utc())),
        ))
        .execute(c))?;
    Ok(())
}
