//! Rows of what looks at deployments have shown again and again: one for each deployment, written when that
//! changes.

use chrono::{DateTime, NaiveDateTime};
use diesel::prelude::*;

use super::{
    Conn, StoreError, each,
    schema::{deployments, seen_states},
};
use crate::model::{ids::DeploymentId, observation::Lasting};

type Row = (
    bool,
    bool,
    NaiveDateTime,
    Option<NaiveDateTime>,
    Option<NaiveDateTime>,
);

/// What the last looks at a deployment have shown; none before the first.
pub fn of(conn: &mut Conn<'_>, deployment: &DeploymentId) -> Result<Option<Lasting>, StoreError> {
    let found: Option<Row> = each!(conn, |c| seen_states::table
        .find(deployment.as_str())
        .select((
            seen_states::usable,
            seen_states::whole,
            seen_states::since,
            seen_states::full_since,
            seen_states::open_since,
        ))
        .first(c)
        .optional())?;
    Ok(found.map(
        |(is_usable, is_whole, since, full_since, open_since)| Lasting {
            is_usable,
            is_whole,
            since: since.and_utc(),
            full_since: full_since.as_ref().map(NaiveDateTime::and_utc),
            open_since: open_since.as_ref().map(NaiveDateTime::and_utc),
        },
    ))
}

/// Keeps what looks at a deployment that is there show from now on. Where another broker has seen the same
/// already, it was the first to see it.
pub fn note(
    conn: &mut Conn<'_>,
    deployment: &DeploymentId,
    seen: &Lasting,
) -> Result<(), StoreError> {
    let there: Option<String> = each!(conn, |c| deployments::table
        .find(deployment.as_str())
        .select(deployments::id)
        .first(c)
        .optional())?;
    let what = |of: &Lasting| {
        let (is_full, is_open) = (of.full_since.is_some(), of.open_since.is_some());
        (of.is_usable, of.is_whole, is_full, is_open)
    };
    let known = of(conn, deployment)?;
    if there.is_none() || known.is_some_and(|known| what(&known) == what(seen)) {
        return Ok(());
    }
    forget(conn, deployment)?;
    each!(conn, |c| diesel::insert_into(seen_states::table)
        .values((
            seen_states::deployment_id.eq(deployment.as_str()),
            seen_states::usable.eq(seen.is_usable),
            seen_states::whole.eq(seen.is_whole),
            seen_states::since.eq(seen.since.naive_utc()),
            seen_states::full_since.eq(seen.full_since.as_ref().map(DateTime::naive_utc)),
            seen_states::open_since.eq(seen.open_since.as_ref().map(DateTime::naive_utc)),
        ))
        .execute(c))?;
    Ok(())
}

/// Forgets what was seen of a deployment.
pub fn forget(conn: &mut Conn<'_>, deployment: &DeploymentId) -> Result<(), StoreError> {
    each!(conn, |c| diesel::delete(
        seen_states::table.find(deployment.as_str())
    )
    .execute(c))?;
    Ok(())
}
