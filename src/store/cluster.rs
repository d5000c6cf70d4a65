//! Rows of clusters, by which brokers that share the store know of each other's.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDateTime, Utc};
use diesel::prelude::*;

use super::{Conn, StoreError, each, from_json, schema::clusters, to_json};
use crate::model::version::Version;

/// A cluster, as the broker said that looked after it last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookedAfter {
    /// Its id.
    pub id: String,
    /// The machine of that broker.
    pub machine: String,
    /// What is installed there, by engine, oldest first.
    pub versions: BTreeMap<String, Vec<Version>>,
    /// When it said so, by [`super::time::of_store`].
    pub seen_at: DateTime<Utc>,
}

/// Says that a broker looks after a cluster.
pub fn set(conn: &mut Conn<'_>, of: &LookedAfter) -> Result<(), StoreError> {
    let versions = to_json(&of.versions)?;
    each!(conn, |c| diesel::delete(clusters::table.find(&of.id))
        .execute(c))?;
    each!(conn, |c| diesel::insert_into(clusters::table)
        .values((
            clusters::id.eq(&of.id),
            clusters::machine.eq(&of.machine),
            clusters::versions.eq(&versions),
            clusters::seen_at.eq(of.seen_at.naive_utc()),
        ))
        .execute(c))?;
    Ok(())
}

/// Says that a broker still looks after a cluster, where the store says the same of it; false: it does not.
pub fn touch(conn: &mut Conn<'_>, of: &LookedAfter) -> Result<bool, StoreError> {
    let versions = to_json(&of.versions)?;
    let same = clusters::table
        .find(&of.id)
        .filter(clusters::machine.eq(&of.machine))
        .filter(clusters::versions.eq(&versions));
    let touched = each!(conn, |c| diesel::update(same)
        .set(clusters::seen_at.eq(of.seen_at.naive_utc()))
        .execute(c))?;
    Ok(touched == 1)
}

/// Whether the broker that looked after a cluster has not said since then that it does.
pub fn is_left_alone(
    conn: &mut Conn<'_>,
    cluster: &str,
    then: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let seen_at: Option<NaiveDateTime> = each!(conn, |c| clusters::table
        .find(cluster)
        .select(clusters::seen_at)
        .first(c)
        .optional())?;
    Ok(seen_at.is_some_and(|seen_at| seen_at < then.naive_utc()))
}

/// All that a broker has ever looked after, by id.
pub fn all(conn: &mut Conn<'_>) -> Result<Vec<LookedAfter>, StoreError> {
    let rows: Vec<(String, String, String, NaiveDateTime)> =
        each!(conn, |c| clusters::table.order(clusters::id).load(c))?;
    let rows = rows.into_iter();
    rows.map(|(id, machine, versions, seen_at)| {
        Ok(LookedAfter {
            id,
            machine,
            versions: from_json("the versions of a cluster", &versions)?,
            seen_at: seen_at.and_utc(),
        })
    })
    .collect()
}
