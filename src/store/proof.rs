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
    limits::{PROOF_PAUSE_MAX, proof::BYTES_READ_EVERY},
    proof::{Next, Proof},
};

/// A backup whose proof is due.
#[derive(Debug)]
pub struct DueProof {
    /// The backup.
    pub backup: BackupId,
    /// The instance that it is of.
    pub instance: InstanceId,
    /// Since when.
    pub since: DateTime<Utc>,
}

/// What is due on a cluster by one of two dates.
macro_rules! on_cluster {
    ($c:ident, $cluster:ident, $due_at:ident, $limit:ident, $is_due:block) => {{
        let here = deployments::table
            .inner_join(instances::table.on(instances::id.eq(deployments::instance_id)))
            .filter(deployments::cluster_id.eq($cluster))
            .filter(instances::state.eq(InstanceState::Ready.as_str()));
        backups::table
            .filter(backups::$due_at.is_not_null())
            .filter($is_due)
            .filter(backups::state.eq(BackupState::Complete.as_str()))
            .filter(backups::deployment_id.eq_any(here.select(deployments::id)))
            .order((backups::$due_at, backups::id))
            .limit($limit)
            .select((backups::id, backups::instance_id, backups::$due_at))
            .load::<(String, String, Option<NaiveDateTime>)>($c)
    }};
}

/// Backups of usable instances on a cluster whose proof is due, the one that has waited longest in front, and
/// after them those whose stored bytes are to be read again; at most `limit`.
pub fn due(
    conn: &mut Conn<'_>,
    cluster: &str,
    now: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<DueProof>, StoreError> {
    let at = now.naive_utc();
    // The first proof goes by no clock. Nor does one that no pause is long enough for: the clock was set back.
    let late = (now + PROOF_PAUSE_MAX).naive_utc();
    let mut rows = each!(conn, |c| on_cluster!(c, cluster, proof_at, limit, {
        (backups::proof.is_null())
            .or(backups::proof_at.le(at))
            .or(backups::proof_at.gt(late))
    }))?;
    let late = (now + BYTES_READ_EVERY).naive_utc();
    let left = limit - i64::try_from(rows.len()).unwrap_or(limit);
    rows.extend(each!(conn, |c| on_cluster!(
        c,
        cluster,
        bytes_due_at,
        left,
        { (backups::bytes_due_at.le(at)).or(backups::bytes_due_at.gt(late)) }
    ))?);
    let due = rows.into_iter().map(|(backup, instance, since)| {
        Ok(DueProof {
            backup: parse("a backup's id", &backup)?,
            instance: parse("an instance's id", &instance)?,
            since: since.map_or(now, |since| since.and_utc()),
        })
    });
    due.collect()
}

/// Keeps what is known of a backup, and what is due next.
pub fn set(
    conn: &mut Conn<'_>,
    id: &BackupId,
    proof: &Proof,
    next: Next,
) -> Result<(), StoreError> {
    let proof = to_json(proof)?;
    let (proof_at, bytes_due_at) = match next {
        Next::Proof(at) => (Some(at), None),
        Next::Reading(at) => (None, Some(at)),
    };
    each!(conn, |c| diesel::update(backups::table.find(id.as_str()))
        .set((
            backups::proof.eq(&proof),
            backups::proof_at.eq(proof_at.map(|at| at.naive_utc())),
            backups::bytes_due_at.eq(bytes_due_at.map(|at| at.naive_utc())),
        ))
        .execute(c))?;
    Ok(())
}

/// Has a backup looked at anew, as soon as it is its turn: somebody who read it found it spoiled.
pub fn set_doubted(
    conn: &mut Conn<'_>,
    id: &BackupId,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let now = now.naive_utc();
    let of = backups::table.find(id.as_str());
    each!(conn, |c| diesel::update(
        of.filter(backups::proof_at.is_not_null())
    )
    .set(backups::proof_at.eq(now))
    .execute(c))?;
    each!(conn, |c| diesel::update(
        of.filter(backups::bytes_due_at.is_not_null())
    )
    .set(backups::bytes_due_at.eq(now))
    .execute(c))?;
    Ok(())
}
