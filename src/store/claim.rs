//! Claims on operations: what a worker writes under one, how it is kept, and how it ends.
//!
//! A claim begins a new epoch (`queue.rs` gives it). Whatever a worker writes for its operation passes
//! [`fence`] in the same transaction, so a worker that lost its claim changes nothing any more.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, NaiveDateTime, Utc};
use diesel::prelude::*;

use super::{
    Conn, StoreError, each,
    operation::{ACTIVE, look_anew_at},
    parse,
    prepared::Prepared,
    schema::{deployments, operations},
    time::of_store,
    to_json,
};
use crate::model::{
    ids::OperationId,
    operation::{Claim, OperationState},
    trouble::Trouble,
};

/// Fails with `Fenced` unless the claim still holds.
pub fn fence(conn: &mut Conn<'_>, claim: &Claim) -> Result<(), StoreError> {
    let held = operations::table
        .find(claim.operation.as_str())
        .filter(operations::epoch.eq(claim.epoch))
        .filter(operations::state.eq(OperationState::Running.as_str()));
    // A write, so that the row stays ours until the transaction ends.
    let hold = diesel::update(held).set(operations::epoch.eq(claim.epoch));
    let holds = each!(conn, |c| Prepared(hold).execute(c))?;
    if holds == 1 {
        Ok(())
    } else {
        Err(StoreError::Fenced)
    }
}

/// Writes how far the work under a claim has come.
pub fn set_bytes(
    conn: &mut Conn<'_>,
    claim: &Claim,
    now: DateTime<Utc>,
    bytes: (u64, u64),
) -> Result<(), StoreError> {
    fence(conn, claim)?;
    each!(conn, |c| diesel::update(
        operations::table.find(claim.operation.as_str())
    )
    .set((
        operations::bytes_done.eq(saturating(bytes.0)),
        operations::bytes_total.eq(saturating(bytes.1)),
        operations::updated_at.eq(now.naive_utc()),
    ))
    .execute(c))?;
    Ok(())
}

/// A claim that its owner still has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// See [`Claim::epoch`].
    pub epoch: i64,
    /// Whether the operation was told to halt.
    pub halted: bool,
}

/// Renews the leases of what `owner` works on, with one statement however much that is; returns what
/// it still has. What it has claimed and does not work on any more is not renewed, so that it becomes
/// free.
pub fn renew_all(
    conn: &mut Conn<'_>,
    owner: &str,
    works_on: &[OperationId],
    now: DateTime<Utc>,
    lease_until: DateTime<Utc>,
) -> Result<HashMap<OperationId, Held>, StoreError> {
    let ids: Vec<&str> = works_on.iter().map(OperationId::as_str).collect();
    let held = || {
        operations::table
            .filter(operations::id.eq_any(&ids))
            .filter(operations::state.eq(OperationState::Running.as_str()))
            .filter(operations::owner.eq(owner))
    };
    let renewed = each!(conn, |c| diesel::update(held())
        .set((
            operations::lease_until.eq(lease_until.naive_utc()),
            operations::updated_at.eq(now.naive_utc()),
        ))
        .execute(c))?;
    if renewed == 0 {
        return Ok(HashMap::new());
    }
    let rows: Vec<(String, i64, bool)> = each!(conn, |c| held()
        .select((operations::id, operations::epoch, operations::halted))
        .load(c))?;
    let rows = rows.into_iter();
    rows.map(|(id, epoch, halted)| {
        let id = parse("an operation's id", &id)?;
        Ok((id, Held { epoch, halted }))
    })
    .collect()
}

fn saturating(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Writes down what keeps an operation from getting on, or that it gets on.
pub fn set_trouble(
    conn: &mut Conn<'_>,
    claim: &Claim,
    trouble: Option<&Trouble>,
) -> Result<(), StoreError> {
    fence(conn, claim)?;
    let text = trouble.map(to_json).transpose()?;
    each!(conn, |c| diesel::update(
        operations::table.find(claim.operation.as_str())
    )
    .set(operations::trouble.eq(text))
    .execute(c))?;
    Ok(())
}

/// Writes down that the operation has failed for good and cleans up from now on. What it was told to
/// halt for stays.
pub fn give_up(conn: &mut Conn<'_>, claim: &Claim, failure: &str) -> Result<(), StoreError> {
    fence(conn, claim)?;
    each!(conn, |c| diesel::update(
        operations::table
            .find(claim.operation.as_str())
            .filter(operations::failure.is_null())
    )
    .set(operations::failure.eq(failure))
    .execute(c))?;
    set_trouble(conn, claim, None)
}

/// Lets go of an operation until so much time has passed since `now`.
pub fn postpone(
    conn: &mut Conn<'_>,
    claim: &Claim,
    now: DateTime<Utc>,
    pause: Duration,
) -> Result<(), StoreError> {
    fence(conn, claim)?;
    let not_before = of_store(conn, now)? + pause;
    each!(conn, |c| diesel::update(
        operations::table.find(claim.operation.as_str())
    )
    .set((
        operations::state.eq(OperationState::Queued.as_str()),
        operations::owner.eq(None::<String>),
        operations::lease_until.eq(None::<NaiveDateTime>),
        operations::not_before.eq(not_before.naive_utc()),
    ))
    .execute(c))?;
    look_anew_at(conn, &claim.operation)
}

/// Ends an operation.
pub fn finish(
    conn: &mut Conn<'_>,
    claim: &Claim,
    state: OperationState,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    fence(conn, claim)?;
    each!(conn, |c| diesel::update(
        operations::table.find(claim.operation.as_str())
    )
    .set((
        operations::state.eq(state.as_str()),
        operations::owner.eq(None::<String>),
        operations::lease_until.eq(None::<NaiveDateTime>),
        operations::trouble.eq(None::<String>),
        operations::updated_at.eq(now.naive_utc()),
    ))
    .execute(c))?;
    if state == OperationState::Succeeded {
        each!(conn, |c| diesel::update(
            operations::table.find(claim.operation.as_str())
        )
        .set(operations::steps_done.eq(operations::steps_total))
        .execute(c))?;
    }
    conn.changed.ended = true;
    look_anew_at(conn, &claim.operation)
}

/// Frees the claims of `owner`, or every claim: for a process that knows that it is alone with
/// the database.
pub fn release(conn: &mut Conn<'_>, owner: Option<&str>) -> Result<(), StoreError> {
    each!(conn, |c| {
        let mut query = diesel::update(operations::table)
            .filter(operations::state.eq_any(ACTIVE))
            .into_boxed();
        if let Some(owner) = owner {
            query = query.filter(operations::owner.eq(owner));
        }
        query
            .set((
                operations::owner.eq(None::<String>),
                operations::lease_until.eq(None::<NaiveDateTime>),
            ))
            .execute(c)
    })?;
    Ok(())
}

/// Frees the claims on operations on a cluster, for the broker that looks after it from now on: the one
/// before is gone.
pub fn release_on(conn: &mut Conn<'_>, cluster: &str) -> Result<usize, StoreError> {
    let there = deployments::table
        .filter(deployments::cluster_id.eq(cluster))
        .select(deployments::instance_id);
    let lost = operations::table
        .filter(operations::state.eq(OperationState::Running.as_str()))
        .filter(operations::instance_id.eq_any(there));
    Ok(each!(conn, |c| diesel::update(lost)
        .set((
            operations::owner.eq(None::<String>),
            operations::lease_until.eq(None::<NaiveDateTime>),
        ))
        .execute(c))?)
}
