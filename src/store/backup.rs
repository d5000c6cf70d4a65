//! Rows of backups.

use std::collections::BTreeSet;

use chrono::{DateTime, NaiveDateTime, SubsecRound as _, TimeDelta, Utc};
use diesel::{
    dsl::{Desc, Eq, Filter, count_star, max, sql},
    prelude::*,
    sql_types::Bool,
};

use super::{
    Conn, StoreError, each, from_json, known, parse, register,
    schema::{backups, deleted_instances, deployments},
    to_json,
};
use crate::model::{
    backup::{Backup, BackupState, Manifest, Removal},
    ids::{BackupId, DeploymentId, InstanceId},
    limits::{FAILED_BACKUPS_LISTED_MAX, proof::BYTES_READ_EVERY},
    period::{BackupKind, Period},
    proof::Proof,
    trust::Trusted,
};

#[derive(Queryable, Insertable)]
#[diesel(table_name = backups)]
struct Row {
    id: String,
    instance_id: String,
    deployment_id: String,
    operation_id: String,
    kind: String,
    state: String,
    failure: Option<String>,
    manifest: Option<String>,
    created_at: NaiveDateTime,
    finished_at: Option<NaiveDateTime>,
    period: Option<String>,
    ordinal: i64,
    namesake: i32,
    removal: Option<String>,
    removal_at: Option<NaiveDateTime>,
    note: String,
    pinned: bool,
    sealed_under: String,
    proof: Option<String>,
    proof_at: Option<NaiveDateTime>,
    bytes_due_at: Option<NaiveDateTime>,
    mirrored_at: Option<NaiveDateTime>,
    mirror_due_at: Option<NaiveDateTime>,
}

impl Row {
    fn into_model(self) -> Result<Backup, StoreError> {
        Ok(Backup {
            id: parse("a backup's id", &self.id)?,
            instance: parse("an instance's id", &self.instance_id)?,
            deployment: parse("a deployment's id", &self.deployment_id)?,
            operation: parse("an operation's id", &self.operation_id)?,
            kind: known("a backup's kind", &self.kind, BackupKind::parse)?,
            period: self
                .period
                .map(|text| parse("a backup's period", &text))
                .transpose()?,
            state: known("a backup's state", &self.state, BackupState::parse)?,
            failure: self.failure,
            created_at: self.created_at.and_utc(),
            ordinal: self.ordinal,
            namesake: self.namesake.unsigned_abs(),
            finished_at: self.finished_at.map(|at| at.and_utc()),
            manifest: self
                .manifest
                .map(|text| from_json("a backup's manifest", &text))
                .transpose()?,
            removal: self
                .removal
                .zip(self.removal_at)
                .map(|(reason, at)| Removal {
                    reason,
                    at: at.and_utc(),
                }),
            note: self.note,
            pinned: self.pinned,
            proof: match self.proof {
                Some(text) => from_json("what is known of a backup", &text)?,
                None => Proof::default(),
            },
            mirrored_at: self.mirrored_at.map(|at| at.and_utc()),
        })
    }
}

/// Adds the backup whose row was lost, with the times that its manifest tells, and the place of the
/// one before it.
pub fn adopt(conn: &mut Conn<'_>, backup: &Backup) -> Result<(), StoreError> {
    let before: Option<i64> = each!(conn, |c| of(&backup.instance)
        .filter(backups::created_at.le(backup.created_at.naive_utc()))
        .select(max(backups::ordinal))
        .first(c))?;
    insert_at(conn, backup, before.unwrap_or_default())
}

/// Adds a backup; `Duplicate` when its period has one that is not failed.
pub fn insert(conn: &mut Conn<'_>, backup: &Backup) -> Result<(), StoreError> {
    let last: Option<i64> = each!(conn, |c| backups::table
        .select(max(backups::ordinal))
        .first(c))?;
    insert_at(conn, backup, last.unwrap_or_default() + 1)
}

/// The number that tells a backup from others of its instance, kind and second: the clock may come
/// by there again.
fn next_namesake(conn: &mut Conn<'_>, backup: &Backup) -> Result<i32, StoreError> {
    let second = backup.created_at.trunc_subsecs(0).naive_utc();
    let last: Option<i32> = each!(conn, |c| of(&backup.instance)
        .filter(backups::kind.eq(backup.kind.as_str()))
        .filter(backups::created_at.ge(second))
        .filter(backups::created_at.lt(second + TimeDelta::seconds(1)))
        .select(max(backups::namesake))
        .first(c))?;
    Ok(last.map_or(0, |last| last + 1))
}

fn insert_at(conn: &mut Conn<'_>, backup: &Backup, ordinal: i64) -> Result<(), StoreError> {
    let namesake = next_namesake(conn, backup)?;
    let complete_at = backup
        .finished_at
        .filter(|_| backup.state == BackupState::Complete);
    let due = complete_at.map(|at| due_after(backup.is_provable(), at));
    let (proof_at, bytes_due_at) = due.unwrap_or_default();
    let row = Row {
        id: backup.id.to_string(),
        instance_id: backup.instance.to_string(),
        deployment_id: backup.deployment.to_string(),
        operation_id: backup.operation.to_string(),
        kind: backup.kind.as_str().to_owned(),
        state: backup.state.as_str().to_owned(),
        failure: backup.failure.clone(),
        manifest: backup.manifest.as_ref().map(to_json).transpose()?,
        created_at: backup.created_at.naive_utc(),
        finished_at: backup.finished_at.map(|at| at.naive_utc()),
        period: backup.period.map(|period| period.to_string()),
        ordinal,
        namesake,
        removal: backup
            .removal
            .as_ref()
            .map(|removal| removal.reason.clone()),
        removal_at: backup
            .removal
            .as_ref()
            .map(|removal| removal.at.naive_utc()),
        note: backup.note.clone(),
        pinned: backup.pinned,
        sealed_under: String::new(),
        proof: None,
        proof_at,
        bytes_due_at,
        mirrored_at: backup.mirrored_at.map(|at| at.naive_utc()),
        mirror_due_at: complete_at.map(|at| at.naive_utc()),
    };
    each!(conn, |c| diesel::insert_into(backups::table)
        .values(row)
        .execute(c))?;
    match complete_at {
        Some(_) => register::changed(conn, backup.deployment.as_str()),
        None => Ok(()),
    }
}

/// Says of a backup that it is about to be no longer complete, if it is.
fn leaves_register(conn: &mut Conn<'_>, id: &BackupId) -> Result<(), StoreError> {
    let deployment: Option<String> = each!(conn, |c| backups::table
        .find(id.as_str())
        .filter(backups::state.eq(BackupState::Complete.as_str()))
        .select(backups::deployment_id)
        .first(c)
        .optional())?;
    match deployment {
        Some(deployment) => register::changed(conn, &deployment),
        None => Ok(()),
    }
}

/// The backup of that id.
pub fn find(conn: &mut Conn<'_>, id: &BackupId) -> Result<Option<Backup>, StoreError> {
    let row: Option<Row> = each!(conn, |c| backups::table
        .find(id.as_str())
        .first(c)
        .optional())?;
    row.map(Row::into_model).transpose()
}

fn of(instance: &InstanceId) -> Filter<backups::table, Eq<backups::instance_id, &str>> {
    backups::table.filter(backups::instance_id.eq(instance.as_str()))
}

type NewestFirst = (
    Desc<backups::ordinal>,
    Desc<backups::created_at>,
    Desc<backups::id>,
);

/// An adopted backup has the place of the one before it, so the place alone does not tell.
fn newest_first() -> NewestFirst {
    (
        backups::ordinal.desc(),
        backups::created_at.desc(),
        backups::id.desc(),
    )
}

fn models(rows: Vec<Row>) -> Result<Vec<Backup>, StoreError> {
    rows.into_iter().map(Row::into_model).collect()
}

/// Every backup of an instance, newest first: any number of them failed.
pub fn of_instance(conn: &mut Conn<'_>, instance: &InstanceId) -> Result<Vec<Backup>, StoreError> {
    models(each!(conn, |c| of(instance).order(newest_first()).load(c))?)
}

/// What is listed of an instance's backups, newest first: all but those that retention gave up, and of
/// those that failed the newest [`FAILED_BACKUPS_LISTED_MAX`].
pub fn listed(conn: &mut Conn<'_>, instance: &InstanceId) -> Result<Vec<Backup>, StoreError> {
    let failed: Vec<String> = each!(conn, |c| of(instance)
        .filter(backups::state.eq(BackupState::Failed.as_str()))
        .order((backups::ordinal.desc(), backups::id.desc()))
        .limit(FAILED_BACKUPS_LISTED_MAX)
        .select(backups::id)
        .load(c))?;
    let others = [BackupState::Failed, BackupState::Expired].map(BackupState::as_str);
    models(each!(conn, |c| of(instance)
        .filter(
            backups::state
                .ne_all(others)
                .or(backups::id.eq_any(&failed))
        )
        .order(newest_first())
        .load(c))?)
}

/// The complete backups of an instance, newest first: as many as retention keeps.
pub fn complete_of(conn: &mut Conn<'_>, instance: &InstanceId) -> Result<Vec<Backup>, StoreError> {
    models(each!(conn, |c| of(instance)
        .filter(backups::state.eq(BackupState::Complete.as_str()))
        .order(newest_first())
        .load(c))?)
}

/// The newest complete backup of an instance and a kind.
pub fn newest_complete(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
    kind: BackupKind,
) -> Result<Option<BackupId>, StoreError> {
    let found: Option<String> = each!(conn, |c| of(instance)
        .filter(backups::state.eq(BackupState::Complete.as_str()))
        .filter(backups::kind.eq(kind.as_str()))
        .order(newest_first())
        .select(backups::id)
        .first(c)
        .optional())?;
    found.map(|id| parse("a backup's id", &id)).transpose()
}

/// The backups of an instance that retention gave up and whose bytes are there still.
pub fn given_up(conn: &mut Conn<'_>, instance: &InstanceId) -> Result<Vec<Backup>, StoreError> {
    models(each!(conn, |c| of(instance)
        .filter(backups::state.eq(BackupState::Expired.as_str()))
        .filter(backups::manifest.is_not_null())
        .load(c))?)
}

/// Backups of an instance that have held no bytes since `before`, the oldest ones, at most `limit`.
pub fn history(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
    before: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<Backup>, StoreError> {
    let over = [BackupState::Failed, BackupState::Expired].map(BackupState::as_str);
    models(each!(conn, |c| of(instance)
        .filter(backups::state.eq_any(over))
        .filter(backups::manifest.is_null())
        .filter(backups::finished_at.le(before.naive_utc()))
        .order((backups::ordinal, backups::id))
        .limit(limit)
        .load(c))?)
}

/// When the `nth` newest on-demand backup of an instance was asked for, whatever came of it; 1 is the newest.
pub fn nth_on_demand(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
    nth: u32,
) -> Result<Option<DateTime<Utc>>, StoreError> {
    let found: Option<NaiveDateTime> = each!(conn, |c| of(instance)
        .filter(backups::kind.eq(BackupKind::OnDemand.as_str()))
        .order((backups::ordinal.desc(), backups::created_at.desc()))
        .select(backups::created_at)
        .offset(i64::from(nth) - 1)
        .first(c)
        .optional())?;
    Ok(found.map(|at| at.and_utc()))
}

/// The complete backups with their deployments, by id, at most `limit` of those after `after`.
pub fn complete_after(
    conn: &mut Conn<'_>,
    after: Option<&BackupId>,
    limit: i64,
) -> Result<Vec<(BackupId, DeploymentId)>, StoreError> {
    let rows: Vec<(String, String)> = each!(conn, |c| backups::table
        .filter(backups::state.eq(BackupState::Complete.as_str()))
        .filter(backups::id.gt(after.map_or("", BackupId::as_str)))
        .order(backups::id)
        .limit(limit)
        .select((backups::id, backups::deployment_id))
        .load(c))?;
    ids(rows)
}

fn ids(rows: Vec<(String, String)>) -> Result<Vec<(BackupId, DeploymentId)>, StoreError> {
    let ids = rows.into_iter().map(|(backup, deployment)| {
        Ok((
            parse("a backup's id", &backup)?,
            parse("a deployment's id", &deployment)?,
        ))
    });
    ids.collect()
}

/// Those of `periods` for which an instance has a backup that is not failed.
pub fn taken(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
    periods: &[Period],
) -> Result<Vec<Period>, StoreError> {
    let texts: Vec<String> = periods.iter().map(Period::to_string).collect();
    let taken: Vec<Option<String>> = each!(conn, |c| of(instance)
        .filter(backups::period.eq_any(&texts))
        // In the words of the partial index: with a variable in it, the index would not be used.
        .filter(sql::<Bool>("state <> 'failed'"))
        .select(backups::period)
        .load(c))?;
    taken
        .into_iter()
        .flatten()
        .map(|text| parse("a backup's period", &text))
        .collect()
}

/// Says that a backup is being taken.
pub fn set_running(conn: &mut Conn<'_>, id: &BackupId) -> Result<(), StoreError> {
    each!(conn, |c| diesel::update(backups::table.find(id.as_str()))
        .set(backups::state.eq(BackupState::Running.as_str()))
        .execute(c))?;
    Ok(())
}

/// Says that a backup is stored, and due to be proved and copied into the mirror. What is sealed in the manifest beside it is so under the key of
/// that name; empty where that is not known.
pub fn complete(
    conn: &mut Conn<'_>,
    manifest: &Manifest,
    sealed_under: &str,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let text = to_json(manifest)?;
    let (proof_at, bytes_due_at) = due_after(manifest.sealed_for.is_none(), now);
    each!(conn, |c| diesel::update(
        backups::table.find(manifest.backup_id.as_str())
    )
    .set((
        backups::state.eq(BackupState::Complete.as_str()),
        backups::manifest.eq(text),
        backups::failure.eq(None::<String>),
        backups::finished_at.eq(now.naive_utc()),
        backups::sealed_under.eq(sealed_under),
        backups::proof_at.eq(proof_at),
        backups::bytes_due_at.eq(bytes_due_at),
        backups::mirrored_at.eq(None::<NaiveDateTime>),
        backups::mirror_due_at.eq(now.naive_utc()),
    ))
    .execute(c))?;
    register::changed(conn, manifest.deployment_id.as_str())
}

/// When a backup that was just stored is to be proved, or its stored bytes to be read again where it cannot be.
fn due_after(
    is_provable: bool,
    now: DateTime<Utc>,
) -> (Option<NaiveDateTime>, Option<NaiveDateTime>) {
    match is_provable {
        true => (Some(now.naive_utc()), None),
        false => (None, Some((now + BYTES_READ_EVERY).naive_utc())),
    }
}

/// Says under which key all is sealed now in the manifest that stands beside a complete backup. The mirror is to get
/// that one too.
pub fn set_sealed_under(
    conn: &mut Conn<'_>,
    id: &BackupId,
    key: &str,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    each!(conn, |c| diesel::update(
        backups::table
            .find(id.as_str())
            .filter(backups::state.eq(BackupState::Complete.as_str()))
    )
    .set((
        backups::sealed_under.eq(key),
        backups::mirror_due_at.eq(now.naive_utc()),
    ))
    .execute(c))?;
    Ok(())
}

/// The complete backups whose manifests are sealed under another key than `first`, or nobody knows, by id,
/// at most `limit` of those after `after`; of deployments that are or were on one of `clusters`, where these are given.
pub fn sealed_otherwise(
    conn: &mut Conn<'_>,
    first: &str,
    clusters: Option<&[String]>,
    after: Option<&BackupId>,
    limit: i64,
) -> Result<Vec<(BackupId, DeploymentId)>, StoreError> {
    let rows: Vec<(String, String)> = each!(conn, |c| {
        let mut found = backups::table
            // In the words of the partial index: with a variable in it, the index would not be used.
            .filter(sql::<Bool>("state = 'complete'"))
            .filter(
                backups::sealed_under
                    .lt(first)
                    .or(backups::sealed_under.gt(first)),
            )
            .filter(backups::id.gt(after.map_or("", BackupId::as_str)))
            .order(backups::id)
            .limit(limit)
            .select((backups::id, backups::deployment_id))
            .into_boxed();
        if let Some(clusters) = clusters {
            let on = deployments::table.filter(deployments::cluster_id.eq_any(clusters));
            let was_on =
                deleted_instances::table.filter(deleted_instances::cluster_id.eq_any(clusters));
            found = found.filter(
                (backups::deployment_id.eq_any(on.select(deployments::id)))
                    .or(backups::deployment_id
                        .eq_any(was_on.select(deleted_instances::deployment_id))),
            );
        }
        found.load(c)
    })?;
    ids(rows)
}

/// How many complete backups need which key of the ring, by its name.
pub fn keys_needed(conn: &mut Conn<'_>) -> Result<Vec<(String, i64)>, StoreError> {
    Ok(each!(conn, |c| backups::table
        .filter(sql::<Bool>("state = 'complete'"))
        .filter(backups::sealed_under.ne(""))
        .group_by(backups::sealed_under)
        .select((backups::sealed_under, count_star()))
        .order(backups::sealed_under)
        .load(c))?)
}

/// Says of the complete backups that need the key of that name that they failed, and why.
pub fn give_up_sealed_under(
    conn: &mut Conn<'_>,
    key: &str,
    failure: &str,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let those = || {
        backups::table
            .filter(sql::<Bool>("state = 'complete'"))
            .filter(backups::sealed_under.eq(key))
    };
    let of: Vec<String> = each!(conn, |c| those()
        .select(backups::deployment_id)
        .distinct()
        .load(c))?;
    for deployment in of {
        register::changed(conn, &deployment)?;
    }
    each!(conn, |c| diesel::update(those())
        .set(failed(failure, now))
        .execute(c))?;
    Ok(())
}

/// That a backup could not be taken, or is lost, and why.
#[derive(AsChangeset)]
#[diesel(table_name = backups)]
struct Failed<'a> {
    state: &'static str,
    failure: &'a str,
    finished_at: NaiveDateTime,
}

fn failed(failure: &str, now: DateTime<Utc>) -> Failed<'_> {
    Failed {
        state: BackupState::Failed.as_str(),
        failure,
        finished_at: now.naive_utc(),
    }
}

/// Says that a backup could not be taken, or is lost, and why.
pub fn fail(
    conn: &mut Conn<'_>,
    id: &BackupId,
    failure: &str,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    leaves_register(conn, id)?;
    each!(conn, |c| diesel::update(backups::table.find(id.as_str()))
        .set(failed(failure, now))
        .execute(c))?;
    Ok(())
}

/// Says why and when a backup goes, or that it stays.
pub fn set_removal(
    conn: &mut Conn<'_>,
    id: &BackupId,
    removal: Option<&Removal>,
) -> Result<(), StoreError> {
    each!(conn, |c| diesel::update(backups::table.find(id.as_str()))
        .set((
            backups::removal.eq(removal.map(|removal| removal.reason.clone())),
            backups::removal_at.eq(removal.map(|removal| removal.at.naive_utc())),
        ))
        .execute(c))?;
    Ok(())
}

/// Writes down what users want to remember of a backup.
pub fn set_note(conn: &mut Conn<'_>, id: &BackupId, note: &str) -> Result<(), StoreError> {
    each!(conn, |c| diesel::update(backups::table.find(id.as_str()))
        .set(backups::note.eq(note))
        .execute(c))?;
    Ok(())
}

/// Says whether users want a backup kept; what was decided of its end is no more then.
pub fn set_pinned(conn: &mut Conn<'_>, id: &BackupId, pinned: bool) -> Result<(), StoreError> {
    each!(conn, |c| diesel::update(backups::table.find(id.as_str()))
        .set(backups::pinned.eq(pinned))
        .execute(c))?;
    if pinned {
        set_removal(conn, id, None)?;
    }
    Ok(())
}

/// The instances with a backup whose bytes are to go by now, of the first `limit` of these backups.
pub fn due_to_go(
    conn: &mut Conn<'_>,
    now: Trusted,
    limit: i64,
) -> Result<Vec<InstanceId>, StoreError> {
    let found: Vec<String> = each!(conn, |c| backups::table
        .filter(backups::removal_at.le(now.time().naive_utc()))
        .filter(backups::state.eq(BackupState::Complete.as_str()))
        // Asked for each instance once, SQLite would go over all backups, by another index.
        .order(backups::removal_at)
        .select(backups::instance_id)
        .limit(limit)
        .load(c))?;
    let each: BTreeSet<&String> = found.iter().collect();
    let parsed = each.into_iter().map(|id| parse("an instance's id", id));
    parsed.collect()
}

/// Says that retention gave a backup up: from now on nobody is sent to its bytes.
pub fn expire(conn: &mut Conn<'_>, id: &BackupId, now: Trusted) -> Result<(), StoreError> {
    leaves_register(conn, id)?;
    each!(conn, |c| diesel::update(backups::table.find(id.as_str()))
        .set((
            backups::state.eq(BackupState::Expired.as_str()),
            backups::finished_at.eq(now.time().naive_utc()),
            backups::removal_at.eq(None::<NaiveDateTime>),
            backups::proof_at.eq(None::<NaiveDateTime>),
            backups::bytes_due_at.eq(None::<NaiveDateTime>),
            backups::mirror_due_at.eq(None::<NaiveDateTime>),
        ))
        .execute(c))?;
    Ok(())
}

/// Forgets what an expired backup's bytes were, once they are gone.
pub fn forget_bytes(conn: &mut Conn<'_>, id: &BackupId) -> Result<(), StoreError> {
    each!(conn, |c| diesel::update(backups::table.find(id.as_str()))
        .set(backups::manifest.eq(None::<String>))
        .execute(c))?;
    Ok(())
}

/// Removes the row of a backup that holds no bytes.
pub fn forget(conn: &mut Conn<'_>, id: &BackupId) -> Result<(), StoreError> {
    each!(conn, |c| diesel::delete(backups::table.find(id.as_str()))
        .execute(c))?;
    Ok(())
}

/// Gives the complete backups of an instance to the one that stands for it from now on, and forgets the others.
/// They go together, when its time is over: what was said of the end of each counts no more.
pub fn keep_of_deleted(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
    keeper: &InstanceId,
) -> Result<(), StoreError> {
    each!(conn, |c| diesel::update(
        of(instance).filter(backups::state.eq(BackupState::Complete.as_str()))
    )
    .set((
        backups::instance_id.eq(keeper.as_str()),
        backups::removal.eq(None::<String>),
        backups::removal_at.eq(None::<NaiveDateTime>),
    ))
    .execute(c))?;
    delete_of_instance(conn, instance)
}

/// Removes every row of an instance's backups; their bytes are gone before.
pub fn delete_of_instance(conn: &mut Conn<'_>, instance: &InstanceId) -> Result<(), StoreError> {
    each!(conn, |c| diesel::delete(
        backups::table.filter(backups::instance_id.eq(instance.as_str()))
    )
    .execute(c))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{model::ids::OperationId, store::Store};

    #[tokio::test]
    async fn failed_backups_without_end_make_no_list_without_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite://{}", folder.path().join("db").display());
        let store = Arc::new(Store::open(&url).expect("a store"));
        let instance: InstanceId = "i".parse().expect("an id");
        let now = Utc::now();
        let backup = |state| Backup {
            id: BackupId::generate(now),
            instance: instance.clone(),
            deployment: DeploymentId::generate(now),
            operation: OperationId::generate(now),
            kind: BackupKind::OnDemand,
            period: None,
            state,
            failure: None,
            created_at: now,
            ordinal: 0,
            namesake: 0,
            finished_at: Some(now),
            manifest: None,
            removal: None,
            note: String::new(),
            pinned: false,
            proof: Proof::default(),
            mirrored_at: None,
        };
        let failed = usize::try_from(FAILED_BACKUPS_LISTED_MAX).expect("small") + 10;
        let mut all = vec![backup(BackupState::Complete), backup(BackupState::Expired)];
        all.extend((0..failed).map(|_| backup(BackupState::Failed)));
        all.push(backup(BackupState::Pending));
        let expected: Vec<BackupId> = all
            .iter()
            .enumerate()
            .filter(|(i, b)| b.state != BackupState::Expired && (*i == 0 || *i >= 12))
            .map(|(_, b)| b.id.clone())
            .rev()
            .collect();
        let long_ago = now - TimeDelta::days(1);
        let (shown, history) = store
            .write(move |conn| {
                all.iter().try_for_each(|backup| insert(conn, backup))?;
                let before = super::history(conn, &instance, long_ago, 1000)?;
                assert!(before.is_empty());
                let history = super::history(conn, &instance, now, 3)?;
                Ok((listed(conn, &instance)?, history))
            })
            .await
            .expect("rows");
        let shown: Vec<BackupId> = shown.into_iter().map(|b| b.id).collect();
        assert_eq!(shown, expected);
        assert_eq!(history.len(), 3, "no more than asked for");
    }
}
