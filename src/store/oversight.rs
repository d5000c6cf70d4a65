//! What operators see of operations, and what they say to them.
//!
//! Their word is written as intents are: the worker of an operation that is abandoned loses its
//! claim, and the one that claims it next ends it.

use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use diesel::{dsl::count_star, prelude::*};

use super::{
    Conn, StoreError, each,
    operation::{ACTIVE, Row, look_anew_at},
    schema::{operation_steps, operations},
    step,
    time::of_store,
};
use crate::model::{
    ids::{BindingId, InstanceId, OperationId},
    limits::LEASE_RENEWAL,
    operation::{OperationKind, OperationState},
    oversight::{Lease, Overseen, StepSeen},
};

/// Which operations are asked for.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only those in this state.
    pub state: Option<OperationState>,
    /// Only those that were halted, or only those that were not.
    pub halted: Option<bool>,
    /// Only those of this kind.
    pub kind: Option<OperationKind>,
    /// Only those of this instance.
    pub instance: Option<InstanceId>,
    /// Only those that were accepted before this moment.
    pub before: Option<DateTime<Utc>>,
    /// Only those that were accepted before this one.
    pub after: Option<OperationId>,
}

fn overseen(row: Row) -> Result<Overseen, StoreError> {
    let until = row.lease_until.map(|until| until.and_utc());
    let lease = row.owner.clone().zip(until);
    Ok(Overseen {
        not_before: row.not_before.and_utc(),
        lease: lease.map(|(owner, until)| Lease { owner, until }),
        operation: row.into_model()?,
    })
}

/// The operations that pass a filter, the newest first, at most `limit`.
pub fn list(conn: &mut Conn<'_>, filter: &Filter, limit: i64) -> Result<Vec<Overseen>, StoreError> {
    let after: Option<(i64, String)> = match &filter.after {
        None => None,
        Some(id) => {
            let found = each!(conn, |c| operations::table
                .find(id.as_str())
                .select((operations::ordinal, operations::id))
                .first(c)
                .optional())?;
            Some(found.ok_or_else(|| StoreError::Missing("the operation".to_owned()))?)
        }
    };
    let rows: Vec<Row> = each!(conn, |c| {
        let mut query = operations::table
            .order((operations::ordinal.desc(), operations::id.desc()))
            .limit(limit)
            .into_boxed();
        if let Some(state) = filter.state {
            query = query.filter(operations::state.eq(state.as_str()));
        }
        if let Some(halted) = filter.halted {
            query = query.filter(operations::halted.eq(halted));
        }
        if let Some(kind) = filter.kind {
            query = query.filter(operations::kind.eq(kind.as_str()));
        }
        if let Some(instance) = &filter.instance {
            query = query.filter(operations::instance_id.eq(instance.as_str()));
        }
        if let Some(before) = filter.before {
            query = query.filter(operations::created_at.lt(before.naive_utc()));
        }
        if let Some((at, id)) = after {
            query = query.filter(
                operations::ordinal
                    .lt(at)
                    .or(operations::ordinal.eq(at).and(operations::id.lt(id))),
            );
        }
        query.load(c)
    })?;
    rows.into_iter().map(overseen).collect()
}

/// How many operations are in each state, of those that are known still. One that was halted did not fail: a
/// deletion stopped it.
pub fn counts(conn: &mut Conn<'_>) -> Result<Vec<(OperationState, u64)>, StoreError> {
    let failed = OperationState::Failed.as_str();
    let rows: Vec<(String, i64)> = each!(conn, |c| operations::table
        .filter(
            operations::halted
                .eq(false)
                .or(operations::state.ne(failed))
        )
        .group_by(operations::state)
        .select((operations::state, count_star()))
        .load(c))?;
    let counted = rows.into_iter().filter_map(|(state, count)| {
        // States of older versions are read where the rows themselves are.
        Some((OperationState::parse(&state)?, count.unsigned_abs()))
    });
    Ok(counted.collect())
}

/// One operation.
pub fn find(conn: &mut Conn<'_>, id: &OperationId) -> Result<Option<Overseen>, StoreError> {
    let row: Option<Row> = each!(conn, |c| operations::table
        .find(id.as_str())
        .first(c)
        .optional())?;
    row.map(overseen).transpose()
}

/// The steps of an operation that were tried, in that order.
pub fn steps(conn: &mut Conn<'_>, id: &OperationId) -> Result<Vec<StepSeen>, StoreError> {
    type StepRow = (
        String,
        Option<String>,
        Option<String>,
        Option<NaiveDateTime>,
        Option<NaiveDateTime>,
        Option<NaiveDateTime>,
    );
    let rows: Vec<StepRow> = each!(conn, |c| operation_steps::table
        .filter(operation_steps::operation_id.eq(id.as_str()))
        .order((operation_steps::begun_at, operation_steps::name))
        .select((
            operation_steps::name,
            operation_steps::result,
            operation_steps::last_error,
            operation_steps::failed_at,
            operation_steps::begun_at,
            operation_steps::done_at,
        ))
        .load(c))?;
    let trials = step::trials(conn, id)?;
    let step = |(name, result, last_error, failed_at, begun_at, done_at): StepRow| StepSeen {
        trial: trials.get(&name).copied().unwrap_or_default(),
        name,
        // Earlier versions kept no more than the result, as long as the operation went on.
        is_done: done_at.is_some() || result.is_some(),
        took: begun_at
            .zip(done_at)
            .map(|(begun, done)| (done - begun).max(TimeDelta::zero())),
        last_error,
        begun_at: begun_at.map(|at| at.and_utc()),
        failed_at: failed_at.map(|at| at.and_utc()),
    };
    Ok(rows.into_iter().map(step).collect())
}

/// Has the next try made at once, with all patience there is. What has ended begins anew: with its
/// clean-up, or, where `anew`, from its first step.
pub fn retry(
    conn: &mut Conn<'_>,
    id: &OperationId,
    anew: bool,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let due = of_store(conn, now)?;
    each!(conn, |c| diesel::update(
        operation_steps::table.filter(operation_steps::operation_id.eq(id.as_str()))
    )
    .set((
        operation_steps::failures.eq(0),
        operation_steps::shortages.eq(0),
        operation_steps::spent_ms.eq(0),
        operation_steps::waited_ms.eq(0),
    ))
    .execute(c))?;
    // What came of them is forgotten where it had ended: they are done anew.
    each!(conn, |c| diesel::update(
        operation_steps::table
            .filter(operation_steps::operation_id.eq(id.as_str()))
            .filter(operation_steps::result.is_null())
    )
    .set(operation_steps::done_at.eq(None::<NaiveDateTime>))
    .execute(c))?;
    each!(conn, |c| diesel::update(
        operations::table.find(id.as_str())
    )
    .set((
        operations::state.eq(OperationState::Queued.as_str()),
        operations::abandoned.eq(false),
        operations::not_before.eq(due.naive_utc()),
        operations::updated_at.eq(now.naive_utc()),
    ))
    .execute(c))?;
    if anew {
        each!(conn, |c| diesel::update(
            operations::table.find(id.as_str())
        )
        .set(operations::failure.eq(None::<String>))
        .execute(c))?;
    }
    conn.changed.queued = true;
    look_anew_at(conn, id)
}

/// Takes an active operation from its worker. It has failed for this reason, and is cleaned
/// up; or, where `ends`, nothing more is done for it.
pub fn give_up(
    conn: &mut Conn<'_>,
    id: &OperationId,
    failure: &str,
    ends: bool,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    // By then its worker has noticed, however busy.
    let not_before = of_store(conn, now)? + LEASE_RENEWAL + Duration::from_secs(1);
    each!(conn, |c| diesel::update(
        operations::table
            .find(id.as_str())
            .filter(operations::state.eq_any(ACTIVE))
    )
    .set((
        operations::state.eq(OperationState::Queued.as_str()),
        operations::owner.eq(None::<String>),
        operations::lease_until.eq(None::<NaiveDateTime>),
        operations::epoch.eq(operations::epoch + 1),
        operations::not_before.eq(not_before.naive_utc()),
        operations::failure.eq(failure),
        operations::trouble.eq(None::<String>),
        operations::abandoned.eq(ends),
        operations::updated_at.eq(now.naive_utc()),
    ))
    .execute(c))?;
    conn.changed.queued = true;
    look_anew_at(conn, id)
}

/// Says that nobody goes on with an operation that is stuck.
pub fn leave(conn: &mut Conn<'_>, id: &OperationId, now: DateTime<Utc>) -> Result<(), StoreError> {
    each!(conn, |c| diesel::update(
        operations::table.find(id.as_str())
    )
    .set((
        operations::state.eq(OperationState::Abandoned.as_str()),
        operations::updated_at.eq(now.naive_utc()),
    ))
    .execute(c))?;
    step::forget_work(conn, id)
}

/// Nothing is left any more of what operations of an instance, or of one of its bindings, could not
/// clean up: nobody need look at them.
pub fn nothing_is_left(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
    binding: Option<&BindingId>,
) -> Result<(), StoreError> {
    let left = [OperationState::Stuck, OperationState::Abandoned].map(OperationState::as_str);
    each!(conn, |c| {
        let mut query = diesel::update(operations::table)
            .filter(operations::instance_id.eq(instance.as_str()))
            .filter(operations::state.eq_any(left))
            .into_boxed();
        if let Some(binding) = binding {
            query = query.filter(operations::binding_id.eq(binding.as_str()));
        }
        query
            .set(operations::state.eq(OperationState::Failed.as_str()))
            .execute(c)
    })?;
    Ok(())
}
