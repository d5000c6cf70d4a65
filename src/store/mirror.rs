//! Rows of the copies of backups in the mirror, and of the mirror itself.
//!
//! Invariant: the row of a copy is there before its first byte, and goes after its last one. A copy is to go when its
//! backup is not complete any more: nobody who ends a backup has to say so here, so none is forgotten.

use std::collections::BTreeSet;

use chrono::{DateTime, NaiveDateTime, Utc};
use diesel::{
    dsl::{count_star, min, sql},
    prelude::*,
    sql_types::Bool,
};

use super::{
    Conn, StoreError, audit, backup, deployment, each, from_json, incident, parse,
    schema::{backups, mirror_copies, mirrors},
};
use crate::model::{
    alert::Incident,
    audit::AtOnce,
    backoff::backoff,
    backup::{Backup, BackupState, Manifest},
    ids::{BackupId, DeploymentId, FolderMark},
    limits::{
        mirror::{MIRROR_DUE_LOOKED_AT, MIRROR_PAUSE_FIRST, MIRROR_PAUSE_MAX},
        proof::BYTES_READ_EVERY,
    },
    mirror::{LateCopy, MirrorSeen, MirrorState, late_since},
    origin::Origin,
};

/// A backup whose copy is to be made, or looked at again. Who gets it holds it.
#[derive(Debug, Clone)]
pub struct DueCopy {
    /// What the store knows of it.
    pub manifest: Manifest,
    /// The key that its manifest was sealed under by then.
    pub sealed_under: String,
    /// When all bytes of the copy were read last; none: nobody knows of a whole one.
    pub read_at: Option<DateTime<Utc>>,
}

/// A backup that has a copy, and the deployment that it was taken of.
pub type Copied = (BackupId, DeploymentId);

/// What holds a copy: a broker, from now on, until then.
#[derive(Debug, Clone)]
pub struct CopyHolder {
    /// The broker.
    pub broker: String,
    /// The moment, by the store's clock.
    pub now: DateTime<Utc>,
    /// Until when.
    pub until: DateTime<Utc>,
}

/// Begins with the mirror of that marker. One that is another, or `is_new`, has no copy yet.
pub fn begin(
    conn: &mut Conn<'_>,
    marker: &FolderMark,
    is_new: bool,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let known: Option<String> = each!(conn, |c| mirrors::table
        .filter(mirrors::marker.eq(marker.as_str()))
        .select(mirrors::marker)
        .first(c)
        .optional())?;
    if known.is_some() && !is_new {
        return Ok(());
    }
    each!(conn, |c| diesel::delete(mirrors::table).execute(c))?;
    each!(conn, |c| diesel::insert_into(mirrors::table)
        .values((
            mirrors::marker.eq(marker.as_str()),
            mirrors::since.eq(now.naive_utc()),
        ))
        .execute(c))?;
    each!(conn, |c| diesel::update(mirror_copies::table)
        .set((
            mirror_copies::read_at.eq(None::<NaiveDateTime>),
            mirror_copies::sealed_under.eq(""),
        ))
        .execute(c))?;
    each!(conn, |c| diesel::update(
        backups::table.filter(backups::state.eq(BackupState::Complete.as_str()))
    )
    .set((
        backups::mirrored_at.eq(None::<NaiveDateTime>),
        backups::mirror_due_at.eq(now.naive_utc()),
    ))
    .execute(c))?;
    Ok(())
}

/// The mirror; none where there never was one.
pub fn state(conn: &mut Conn<'_>) -> Result<Option<MirrorState>, StoreError> {
    type Row = (NaiveDateTime, Option<String>, Option<NaiveDateTime>);
    let row: Option<Row> = each!(conn, |c| mirrors::table
        .select((mirrors::since, mirrors::failure, mirrors::failed_at))
        .first(c)
        .optional())?;
    Ok(row.map(|(since, failure, failed_at)| MirrorState {
        since: since.and_utc(),
        failure: failure.zip(failed_at).map(|(why, at)| (why, at.and_utc())),
    }))
}

/// Whether the mirror has, or may have, anything.
pub fn has_copies(conn: &mut Conn<'_>) -> Result<bool, StoreError> {
    let any: Option<String> = each!(conn, |c| mirror_copies::table
        .select(mirror_copies::backup_id)
        .first(c)
        .optional())?;
    Ok(any.is_some())
}

/// Says what is wrong with the mirror, or that it took what it was given.
pub fn set_failure(
    conn: &mut Conn<'_>,
    failure: Option<&str>,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let at = failure.map(|_| now.naive_utc());
    each!(conn, |c| diesel::update(mirrors::table)
        .set((mirrors::failure.eq(failure), mirrors::failed_at.eq(at)))
        .execute(c))?;
    Ok(())
}

/// The backup whose copy is due and which was complete last, held from now on; none: none is due that no other
/// broker holds.
pub fn hold_next(conn: &mut Conn<'_>, holder: &CopyHolder) -> Result<Option<DueCopy>, StoreError> {
    type Row = (String, String, Option<String>, String);
    let at = holder.now.naive_utc();
    // No pause is longer: the clock was set back.
    let late = (holder.now + BYTES_READ_EVERY).naive_utc();
    let due: Vec<Row> = each!(conn, |c| backups::table
        .filter(backups::mirror_due_at.is_not_null())
        .filter((backups::mirror_due_at.le(at)).or(backups::mirror_due_at.gt(late)))
        .filter(backups::state.eq(BackupState::Complete.as_str()))
        .order((backups::mirror_due_at.desc(), backups::id.desc()))
        .limit(MIRROR_DUE_LOOKED_AT)
        .select((
            backups::id,
            backups::deployment_id,
            backups::manifest,
            backups::sealed_under
        ))
        .load(c))?;
    for (id, deployment, manifest, sealed_under) in due {
        let Some(manifest) = manifest else {
            continue;
        };
        let id: BackupId = parse("a backup's id", &id)?;
        insert(conn, &id, &deployment)?;
        if !hold(conn, &id, holder)? {
            continue;
        }
        let read_at: Option<NaiveDateTime> = each!(conn, |c| mirror_copies::table
            .find(id.as_str())
            .select(mirror_copies::read_at)
            .first(c))?;
        return Ok(Some(DueCopy {
            manifest: from_json("a backup's manifest", &manifest)?,
            sealed_under,
            read_at: read_at.map(|at| at.and_utc()),
        }));
    }
    Ok(None)
}

/// Adds the row of a copy, unless it is there.
fn insert(conn: &mut Conn<'_>, id: &BackupId, deployment: &str) -> Result<(), StoreError> {
    let row = (
        mirror_copies::backup_id.eq(id.as_str()),
        mirror_copies::deployment_id.eq(deployment),
        mirror_copies::sealed_under.eq(""),
        mirror_copies::tries.eq(0),
        mirror_copies::held_by.eq(""),
    );
    each!(conn, |c| diesel::insert_into(mirror_copies::table)
        .values(row)
        .on_conflict_do_nothing()
        .execute(c))?;
    Ok(())
}

/// Holds a copy, or goes on holding it; false where another broker holds it, or it is gone.
pub fn hold(conn: &mut Conn<'_>, id: &BackupId, holder: &CopyHolder) -> Result<bool, StoreError> {
    let is_free = mirror_copies::held_by
        .eq(&holder.broker)
        .or(mirror_copies::held_until.is_null())
        .or(mirror_copies::held_until.le(holder.now.naive_utc()));
    let held = each!(conn, |c| diesel::update(
        mirror_copies::table.find(id.as_str()).filter(is_free)
    )
    .set((
        mirror_copies::held_by.eq(&holder.broker),
        mirror_copies::held_until.eq(holder.until.naive_utc()),
    ))
    .execute(c))?;
    Ok(held == 1)
}

/// Lets go of a copy that a broker held.
pub fn let_go(conn: &mut Conn<'_>, id: &BackupId, broker: &str) -> Result<(), StoreError> {
    let held = mirror_copies::table.find(id.as_str());
    each!(conn, |c| diesel::update(
        held.filter(mirror_copies::held_by.eq(broker))
    )
    .set(mirror_copies::held_until.eq(None::<NaiveDateTime>))
    .execute(c))?;
    Ok(())
}

/// Says that a backup has a whole copy, which was read at `read_at`. It is looked at again when its bytes were not
/// read for long, or at once when the manifest was sealed anew meanwhile.
pub fn set_copied(
    conn: &mut Conn<'_>,
    of: &DueCopy,
    read_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let id = of.manifest.backup_id.as_str();
    each!(conn, |c| diesel::update(mirror_copies::table.find(id))
        .set((
            mirror_copies::sealed_under.eq(&of.sealed_under),
            mirror_copies::read_at.eq(read_at.naive_utc()),
            mirror_copies::tries.eq(0),
            mirror_copies::failure.eq(None::<String>),
            mirror_copies::held_until.eq(None::<NaiveDateTime>),
        ))
        .execute(c))?;
    let again = (read_at + BYTES_READ_EVERY).naive_utc();
    let complete = backups::table
        .find(id)
        .filter(backups::state.eq(BackupState::Complete.as_str()));
    each!(conn, |c| diesel::update(
        complete.filter(backups::sealed_under.eq(&of.sealed_under))
    )
    .set(backups::mirror_due_at.eq(again))
    .execute(c))?;
    each!(conn, |c| diesel::update(
        complete.filter(backups::mirrored_at.is_null())
    )
    .set(backups::mirrored_at.eq(now.naive_utc()))
    .execute(c))?;
    set_failure(conn, None, now)
}

/// Says that a copy is not what it was: it is made anew.
pub fn set_spoiled(conn: &mut Conn<'_>, id: &BackupId) -> Result<(), StoreError> {
    each!(conn, |c| diesel::update(
        mirror_copies::table.find(id.as_str())
    )
    .set(mirror_copies::read_at.eq(None::<NaiveDateTime>))
    .execute(c))?;
    each!(conn, |c| diesel::update(backups::table.find(id.as_str()))
        .set(backups::mirrored_at.eq(None::<NaiveDateTime>))
        .execute(c))?;
    Ok(())
}

/// Says that a backup could not be copied, and why. It is tried again after a pause that grows.
pub fn set_failed(
    conn: &mut Conn<'_>,
    id: &BackupId,
    why: &str,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let tries: Option<i32> = each!(conn, |c| mirror_copies::table
        .find(id.as_str())
        .select(mirror_copies::tries)
        .first(c)
        .optional())?;
    let tries = tries.unwrap_or_default().saturating_add(1);
    each!(conn, |c| diesel::update(
        mirror_copies::table.find(id.as_str())
    )
    .set((
        mirror_copies::tries.eq(tries),
        mirror_copies::failure.eq(why),
        mirror_copies::held_until.eq(None::<NaiveDateTime>),
    ))
    .execute(c))?;
    let pause = backoff(tries.unsigned_abs(), MIRROR_PAUSE_FIRST, MIRROR_PAUSE_MAX);
    each!(conn, |c| diesel::update(
        backups::table
            .find(id.as_str())
            .filter(backups::state.eq(BackupState::Complete.as_str()))
    )
    .set(backups::mirror_due_at.eq((now + pause).naive_utc()))
    .execute(c))?;
    Ok(())
}

/// The copies of backups that are not complete any more, among the `limit` copies after `after` by id; and the last
/// of these copies, none where there are no more.
pub fn superfluous(
    conn: &mut Conn<'_>,
    after: Option<&BackupId>,
    limit: i64,
) -> Result<(Vec<Copied>, Option<BackupId>), StoreError> {
    let page: Vec<(String, String)> = each!(conn, |c| mirror_copies::table
        .filter(mirror_copies::backup_id.gt(after.map_or("", BackupId::as_str)))
        .order(mirror_copies::backup_id)
        .limit(limit)
        .select((mirror_copies::backup_id, mirror_copies::deployment_id))
        .load(c))?;
    let ids: Vec<&String> = page.iter().map(|(id, _)| id).collect();
    let kept: Vec<String> = each!(conn, |c| backups::table
        .filter(backups::id.eq_any(&ids))
        .filter(backups::state.eq(BackupState::Complete.as_str()))
        .select(backups::id)
        .load(c))?;
    let kept: BTreeSet<String> = kept.into_iter().collect();
    let last = page.last().map(|(id, _)| parse("a backup's id", id));
    let gone = page.iter().filter(|(id, _)| !kept.contains(id));
    let gone = gone.map(|(id, deployment)| {
        Ok((
            parse("a backup's id", id)?,
            parse("a deployment's id", deployment)?,
        ))
    });
    Ok((gone.collect::<Result<_, StoreError>>()?, last.transpose()?))
}

/// Whether the backup of a copy is complete.
pub fn is_wanted(conn: &mut Conn<'_>, id: &BackupId) -> Result<bool, StoreError> {
    let found = backup::find(conn, id)?;
    Ok(found.is_some_and(|found| found.state == BackupState::Complete))
}

/// Forgets a copy whose bytes are gone.
pub fn forget(conn: &mut Conn<'_>, id: &BackupId) -> Result<(), StoreError> {
    each!(conn, |c| diesel::delete(
        mirror_copies::table.find(id.as_str())
    )
    .execute(c))?;
    Ok(())
}

/// The mirror in figures: a few rows of an index, but for the count of copies.
pub fn seen(
    conn: &mut Conn<'_>,
    mirror: &MirrorState,
    now: DateTime<Utc>,
) -> Result<MirrorSeen, StoreError> {
    let copied: i64 = each!(conn, |c| mirror_copies::table
        .filter(mirror_copies::read_at.is_not_null())
        .count()
        .get_result(c))?;
    // In the words of the partial index: with variables in them, the index would not be used.
    let waiting =
        || backups::table.filter(sql::<Bool>("state = 'complete' AND mirrored_at IS NULL"));
    let (count, oldest): (i64, Option<NaiveDateTime>) = each!(conn, |c| waiting()
        .select((count_star(), min(backups::finished_at)))
        .first(c))?;
    let late = late_since(now);
    let late: i64 = match mirror.since <= late {
        false => 0,
        true => each!(conn, |c| waiting()
            .filter(backups::finished_at.le(late.naive_utc()))
            .count()
            .get_result(c))?,
    };
    Ok(MirrorSeen {
        copied: copied.unsigned_abs(),
        waiting: count.unsigned_abs(),
        late: late.unsigned_abs(),
        oldest: oldest.map(|at| at.and_utc()),
    })
}

/// The backups that were complete before `before` and have no copy, the first one in front, at most `limit`.
pub fn late(
    conn: &mut Conn<'_>,
    before: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<LateCopy>, StoreError> {
    type Row = (String, String, Option<NaiveDateTime>, Option<String>);
    let rows: Vec<Row> = each!(conn, |c| backups::table
        .left_join(mirror_copies::table.on(mirror_copies::backup_id.eq(backups::id)))
        .filter(sql::<Bool>(
            "backups.state = 'complete' AND backups.mirrored_at IS NULL"
        ))
        .filter(backups::finished_at.le(before.naive_utc()))
        .order((backups::finished_at, backups::id))
        .limit(limit)
        .select((
            backups::id,
            backups::instance_id,
            backups::finished_at,
            mirror_copies::failure.nullable()
        ))
        .load(c))?;
    let late = rows.into_iter().map(|(id, instance, at, failure)| {
        Ok(LateCopy {
            backup: parse("a backup's id", &id)?,
            instance: parse("an instance's id", &instance)?,
            complete_at: at.map_or(before, |at| at.and_utc()),
            failure,
        })
    });
    late.collect()
}

/// How many copies need which key of the ring, by its name.
pub fn keys_needed(conn: &mut Conn<'_>) -> Result<Vec<(String, i64)>, StoreError> {
    Ok(each!(conn, |c| mirror_copies::table
        .filter(mirror_copies::sealed_under.ne(""))
        .group_by(mirror_copies::sealed_under)
        .select((mirror_copies::sealed_under, count_star()))
        .order(mirror_copies::sealed_under)
        .load(c))?)
}

/// Writes down that what was stored of a backup was put back from the mirror, and tells of it. `sealed_under`: the
/// key that its manifest is sealed under now, where that was put back too.
pub fn set_healed(
    conn: &mut Conn<'_>,
    of: &Backup,
    sealed_under: Option<&str>,
    (message, origin, now): (String, Origin, DateTime<Utc>),
) -> Result<(), StoreError> {
    if let Some(key) = sealed_under {
        backup::set_sealed_under(conn, &of.id, key, now)?;
    }
    let about = (&of.instance, &of.id);
    audit::done_to_backup(conn, AtOnce::Healing, origin, about, now)?;
    match deployment::of_instance(conn, &of.instance)? {
        Some((deployment, _)) => {
            incident::add(conn, &deployment.id, &Incident { at: now, message })
        }
        // It was deleted: nobody asks how it is.
        None => Ok(()),
    }
}
