//! Rows of registers: which deployments have one to be written, and whose backups are to be called over.
//!
//! Invariant: whatever makes a backup complete, or ends one that was, counts the number of its deployment's set up in
//! the same transaction, where rows of backups are changed. So nobody else has to think of the register.

use std::collections::BTreeSet;

use chrono::{DateTime, NaiveDateTime, Utc};
use diesel::{
    dsl::{exists, sql},
    prelude::*,
    sql_types::Bool,
};

use super::{
    Conn, StoreError, each, from_json, parse,
    schema::{backup_registers, backups, deleted_instances, deployments, mirror_copies},
};
use crate::model::{
    backup::{BackupState, Manifest},
    ids::{BackupId, DeploymentId},
    limits::register::CALLED_OVER_EVERY,
    register::RegisterState,
};

/// A complete backup, as registers tell of it.
#[derive(Debug, Clone)]
pub struct Kept {
    /// What is stored.
    pub manifest: Manifest,
    /// Whether the mirror has a copy.
    pub is_mirrored: bool,
}

/// Says that the set of a deployment's backups is another one.
pub(super) fn changed(conn: &mut Conn<'_>, deployment: &str) -> Result<(), StoreError> {
    each!(conn, |c| diesel::insert_into(backup_registers::table)
        .values((
            backup_registers::deployment_id.eq(deployment),
            backup_registers::number.eq(RegisterState::BEFORE_ALL.number + 1),
            backup_registers::written.eq(0),
            backup_registers::signed_under.eq(""),
        ))
        .on_conflict(backup_registers::deployment_id)
        .do_update()
        .set(backup_registers::number.eq(backup_registers::number + 1))
        .execute(c))?;
    Ok(())
}

/// What is known of the register of a deployment; nothing where no backup of it was ever complete.
pub fn state(
    conn: &mut Conn<'_>,
    deployment: &DeploymentId,
) -> Result<Option<RegisterState>, StoreError> {
    let row: Option<(i64, i64, Option<NaiveDateTime>)> = each!(conn, |c| backup_registers::table
        .find(deployment.as_str())
        .select((
            backup_registers::number,
            backup_registers::written,
            backup_registers::called_at
        ))
        .first(c)
        .optional())?;
    Ok(row.map(|(number, written, called_at)| RegisterState {
        number,
        written,
        called_at: called_at.map(|at| at.and_utc()),
    }))
}

/// The complete backups of a deployment, the oldest in front: ids sort by age.
pub fn kept(conn: &mut Conn<'_>, deployment: &DeploymentId) -> Result<Vec<Kept>, StoreError> {
    type Row = (Option<String>, Option<NaiveDateTime>);
    let rows: Vec<Row> = each!(conn, |c| backups::table
        .filter(backups::deployment_id.eq(deployment.as_str()))
        .filter(backups::state.eq(BackupState::Complete.as_str()))
        .order(backups::id)
        .select((backups::manifest, backups::mirrored_at))
        .load(c))?;
    let kept = rows.into_iter().filter_map(|(manifest, mirrored_at)| {
        let manifest = from_json("a backup's manifest", &manifest?);
        Some(manifest.map(|manifest| Kept {
            manifest,
            is_mirrored: mirrored_at.is_some(),
        }))
    });
    kept.collect()
}

/// Those of these backups that have a row, whatever it says.
pub fn known(conn: &mut Conn<'_>, of: &[BackupId]) -> Result<BTreeSet<BackupId>, StoreError> {
    let ids: Vec<&str> = of.iter().map(BackupId::as_str).collect();
    let found: Vec<String> = each!(conn, |c| backups::table
        .filter(backups::id.eq_any(&ids))
        .select(backups::id)
        .load(c))?;
    let found = found.iter().map(|id| parse("a backup's id", id));
    found.collect()
}

/// A register that was stored.
#[derive(Debug, Clone)]
pub struct Written {
    /// Whose it is.
    pub deployment: DeploymentId,
    /// What was known of it when what it says was read.
    pub of: RegisterState,
    /// Its number.
    pub number: i64,
    /// The key of the ring that it is signed under.
    pub key: String,
}

/// Says that a register was stored. Where the set of backups is another one by now, it is to be written again.
pub fn set_written(conn: &mut Conn<'_>, written: &Written) -> Result<(), StoreError> {
    let Some(now) = state(conn, &written.deployment)? else {
        // The deployment is gone.
        return Ok(());
    };
    let next = match now.number == written.of.number {
        true => written.number,
        false => now.number.max(written.number + 1),
    };
    each!(conn, |c| diesel::update(
        backup_registers::table.find(written.deployment.as_str())
    )
    .set((
        backup_registers::number.eq(next),
        backup_registers::written.eq(written.number),
        backup_registers::signed_under.eq(&written.key),
    ))
    .execute(c))?;
    Ok(())
}

/// Has all registers written anew: an operator says that another backup store is to be used.
pub fn set_all_unwritten(conn: &mut Conn<'_>) -> Result<(), StoreError> {
    each!(conn, |c| diesel::update(backup_registers::table)
        .set(backup_registers::written.eq(0))
        .execute(c))?;
    Ok(())
}

/// Says when was looked whether all backups of a deployment are there.
pub fn set_called(
    conn: &mut Conn<'_>,
    deployment: &DeploymentId,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    each!(conn, |c| diesel::update(
        backup_registers::table.find(deployment.as_str())
    )
    .set(backup_registers::called_at.eq(now.naive_utc()))
    .execute(c))?;
    Ok(())
}

/// What of the registers is looked for.
#[derive(Debug, Clone)]
pub enum DueRegisters {
    /// Those that do not say what is so, or are signed under another key than that of this name.
    Unsettled(String),
    /// Those of deployments whose backups were called over long ago, by this time.
    Calling(DateTime<Utc>),
}

/// Deployments of which something is due, at most `limit` for each reason why it may be; of those that are or were on
/// one of `clusters`, where these are given. Each reason is looked for by itself, where an index leads to it.
pub fn due(
    conn: &mut Conn<'_>,
    due: &DueRegisters,
    clusters: Option<&[String]>,
    limit: i64,
) -> Result<Vec<DeploymentId>, StoreError> {
    let ids: BTreeSet<String> = each!(conn, |c| {
        let all = || {
            let all = backup_registers::table
                .select(backup_registers::deployment_id)
                .limit(limit)
                .into_boxed();
            let Some(clusters) = clusters else {
                return all;
            };
            let of = backup_registers::deployment_id;
            let on = deployments::table
                .filter(deployments::id.eq(of))
                .filter(deployments::cluster_id.eq_any(clusters));
            let was_on = deleted_instances::table
                .filter(deleted_instances::deployment_id.eq(of))
                .filter(deleted_instances::cluster_id.eq_any(clusters));
            all.filter(exists(on).or(exists(was_on)))
        };
        let reasons = match due {
            DueRegisters::Unsettled(key) => [
                // In the words of the partial index, and in its order: PostgreSQL takes these words for true of most
                // rows, and SQLite else goes through all of the index.
                all()
                    .filter(sql::<Bool>("written <> number"))
                    .filter(backup_registers::deployment_id.gt(""))
                    .order(backup_registers::deployment_id),
                all().filter(backup_registers::signed_under.lt(key)),
                all().filter(backup_registers::signed_under.gt(key)),
            ],
            DueRegisters::Calling(now) => {
                let before = (*now - CALLED_OVER_EVERY).naive_utc();
                [
                    all().filter(backup_registers::called_at.is_null()),
                    all().filter(backup_registers::called_at.le(before)),
                    // Where it lies ahead, the clock was set back.
                    all().filter(backup_registers::called_at.gt(now.naive_utc())),
                ]
            }
        };
        let mut found = BTreeSet::new();
        for reason in reasons {
            found.extend(reason.load::<String>(c)?);
        }
        found
    });
    let ids = ids.iter().map(|id| parse("a deployment's id", id));
    ids.collect()
}

/// Deployments whose register was written, by id, at most `limit` of those after `after`.
pub fn written_after(
    conn: &mut Conn<'_>,
    after: Option<&DeploymentId>,
    limit: i64,
) -> Result<Vec<DeploymentId>, StoreError> {
    let ids: Vec<String> = each!(conn, |c| backup_registers::table
        .filter(backup_registers::written.gt(0))
        .filter(backup_registers::deployment_id.gt(after.map_or("", DeploymentId::as_str)))
        .order(backup_registers::deployment_id)
        .limit(limit)
        .select(backup_registers::deployment_id)
        .load(c))?;
    let ids = ids.iter().map(|id| parse("a deployment's id", id));
    ids.collect()
}

/// Whether the mirror has, or may have, a copy of a deployment's backups, other than of this one.
pub fn has_other_copies(
    conn: &mut Conn<'_>,
    deployment: &DeploymentId,
    but: &BackupId,
) -> Result<bool, StoreError> {
    let other: Option<String> = each!(conn, |c| mirror_copies::table
        .filter(mirror_copies::deployment_id.eq(deployment.as_str()))
        .filter(mirror_copies::backup_id.ne(but.as_str()))
        .select(mirror_copies::backup_id)
        .first(c)
        .optional())?;
    Ok(other.is_some())
}

/// Forgets the register of a deployment, whose backups all go.
pub fn forget(conn: &mut Conn<'_>, deployment: &DeploymentId) -> Result<(), StoreError> {
    each!(conn, |c| diesel::delete(
        backup_registers::table.find(deployment.as_str())
    )
    .execute(c))?;
    Ok(())
}
