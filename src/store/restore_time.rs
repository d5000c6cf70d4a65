//! Rows of how long restores took. They outlive what was restored, and name neither an instance nor a backup.

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use diesel::prelude::*;

use super::{Conn, StoreError, each, schema::restore_times};
use crate::model::{estimate::Past, ids::OperationId, limits::RESTORES_RECALLED};

/// Keeps how long a restore took that ended `at`, and forgets those of the engine that are beyond
/// [`RESTORES_RECALLED`].
pub fn keep(
    conn: &mut Conn<'_>,
    restore: &OperationId,
    engine: &str,
    of: Past,
    at: DateTime<Utc>,
) -> Result<(), StoreError> {
    let bytes = i64::try_from(of.bytes).unwrap_or(i64::MAX);
    each!(conn, |c| diesel::insert_into(restore_times::table)
        .values((
            restore_times::operation_id.eq(restore.as_str()),
            restore_times::engine.eq(engine),
            restore_times::bytes.eq(bytes),
            restore_times::took_ms.eq(of.took.num_milliseconds()),
            restore_times::ended_at.eq(at.naive_utc()),
        ))
        .execute(c))?;
    let beyond: Option<NaiveDateTime> = each!(conn, |c| restore_times::table
        .filter(restore_times::engine.eq(engine))
        .order(restore_times::ended_at.desc())
        .select(restore_times::ended_at)
        .offset(RESTORES_RECALLED)
        .first(c)
        .optional())?;
    if let Some(beyond) = beyond {
        each!(conn, |c| diesel::delete(
            restore_times::table
                .filter(restore_times::engine.eq(engine))
                .filter(restore_times::ended_at.le(beyond))
        )
        .execute(c))?;
    }
    Ok(())
}

/// How long the last restores of an engine took, at most [`RESTORES_RECALLED`].
pub fn last(conn: &mut Conn<'_>, engine: &str) -> Result<Vec<Past>, StoreError> {
    let rows: Vec<(i64, i64)> = each!(conn, |c| restore_times::table
        .filter(restore_times::engine.eq(engine))
        .order(restore_times::ended_at.desc())
        .select((restore_times::bytes, restore_times::took_ms))
        .limit(RESTORES_RECALLED)
        .load(c))?;
    let past = |(bytes, took): (i64, i64)| Past {
        bytes: bytes.unsigned_abs(),
        took: TimeDelta::try_milliseconds(took).unwrap_or(TimeDelta::MAX),
    };
    Ok(rows.into_iter().map(past).collect())
}
