//! Rows of an operation's steps: their tries and their results.
//!
//! What is written here for a claim passes [`fence`] first, in the same transaction.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, NaiveDateTime, Utc};
use diesel::prelude::*;
use serde_json::Value;

use super::{
    Conn, StoreError,
    claim::{fence, set_trouble},
    each, from_json,
    operation::get,
    schema::{operation_steps, operations},
    to_json,
};
use crate::model::{
    ids::{InstanceId, OperationId},
    operation::{Claim, Progress},
    patience::Trial,
    trouble::Trouble,
    turn::{Turn, TurnOfStep},
};

/// Writes down that a step is about to be tried, before it is; returns whether the operation was
/// told to halt.
pub fn begin(
    conn: &mut Conn<'_>,
    claim: &Claim,
    name: &str,
    progress: &Progress,
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    fence(conn, claim)?;
    let count = |steps: u32| i32::try_from(steps).unwrap_or(i32::MAX);
    each!(conn, |c| diesel::update(
        operations::table.find(claim.operation.as_str())
    )
    .set((
        operations::step.eq(&progress.step),
        operations::steps_done.eq(count(progress.steps_done)),
        operations::steps_total.eq(count(progress.steps_total)),
        operations::bytes_done.eq(0),
        operations::bytes_total.eq(0),
        operations::updated_at.eq(now.naive_utc()),
    ))
    .execute(c))?;
    let known: Option<i32> = each!(conn, |c| operation_steps::table
        .find((claim.operation.as_str(), name))
        .select(operation_steps::failures)
        .first(c)
        .optional())?;
    if known.is_none() {
        each!(conn, |c| diesel::insert_into(operation_steps::table)
            .values((
                operation_steps::operation_id.eq(claim.operation.as_str()),
                operation_steps::name.eq(name),
                operation_steps::failures.eq(0),
                operation_steps::begun_at.eq(now.naive_utc()),
            ))
            .execute(c))?;
    }
    Ok(get(conn, &claim.operation)?.halted)
}

/// Writes down which member has its turn in the step that is being tried.
pub fn take_turn(conn: &mut Conn<'_>, claim: &Claim, turn: &Turn) -> Result<(), StoreError> {
    fence(conn, claim)?;
    let row = || operations::table.find(claim.operation.as_str());
    let step: String = each!(conn, |c| row().select(operations::step).first(c))?;
    let turn = turn.clone();
    let text = to_json(&TurnOfStep { step, turn })?;
    each!(conn, |c| diesel::update(row())
        .set(operations::turn.eq(&text))
        .execute(c))?;
    Ok(())
}

/// What the tries of each step of an operation have come to, by name.
pub fn trials(conn: &mut Conn<'_>, id: &OperationId) -> Result<HashMap<String, Trial>, StoreError> {
    let rows: Vec<(String, i32, i32, i64, i64)> = each!(conn, |c| operation_steps::table
        .filter(operation_steps::operation_id.eq(id.as_str()))
        .select((
            operation_steps::name,
            operation_steps::failures,
            operation_steps::shortages,
            operation_steps::spent_ms,
            operation_steps::waited_ms,
        ))
        .load(c))?;
    let trial = |(name, failures, shortages, spent, waited): (String, i32, i32, i64, i64)| {
        let trial = Trial {
            failures: failures.unsigned_abs(),
            shortages: shortages.unsigned_abs(),
            spent: Duration::from_millis(spent.unsigned_abs()),
            waited: Duration::from_millis(waited.unsigned_abs()),
        };
        (name, trial)
    };
    Ok(rows.into_iter().map(trial).collect())
}

/// A try that failed.
pub struct FailedTry<'a> {
    /// The step, by name.
    pub step: &'a str,
    /// What the step's tries have come to with this one.
    pub trial: Trial,
    /// What users are told.
    pub trouble: &'a Trouble,
    /// What operators are told.
    pub error: &'a str,
    /// When it failed.
    pub at: DateTime<Utc>,
}

/// Writes down that a step failed. A crash of the broker is no failure of the step.
pub fn note_failure(
    conn: &mut Conn<'_>,
    claim: &Claim,
    failed: &FailedTry<'_>,
) -> Result<(), StoreError> {
    fence(conn, claim)?;
    let count = |tries: u32| i32::try_from(tries).unwrap_or(i32::MAX);
    let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let trial = failed.trial;
    each!(conn, |c| diesel::update(
        operation_steps::table.find((claim.operation.as_str(), failed.step))
    )
    .set((
        operation_steps::failures.eq(count(trial.failures)),
        operation_steps::shortages.eq(count(trial.shortages)),
        operation_steps::spent_ms.eq(millis(trial.spent)),
        operation_steps::waited_ms.eq(millis(trial.waited)),
        operation_steps::last_error.eq(failed.error),
        operation_steps::failed_at.eq(failed.at.naive_utc()),
    ))
    .execute(c))?;
    set_trouble(conn, claim, Some(failed.trouble))
}

/// Writes down that a step is done, with its result.
pub fn record(
    conn: &mut Conn<'_>,
    claim: &Claim,
    name: &str,
    result: &Value,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    fence(conn, claim)?;
    let text = to_json(result)?;
    each!(conn, |c| diesel::update(
        operation_steps::table.find((claim.operation.as_str(), name))
    )
    .set((
        operation_steps::result.eq(text),
        operation_steps::done_at.eq(now.naive_utc()),
    ))
    .execute(c))?;
    set_trouble(conn, claim, None)
}

/// The results of the steps that are done, by name.
pub fn results(
    conn: &mut Conn<'_>,
    id: &OperationId,
) -> Result<HashMap<String, Value>, StoreError> {
    let rows: Vec<(String, Option<String>)> = each!(conn, |c| operation_steps::table
        .filter(operation_steps::operation_id.eq(id.as_str()))
        .select((operation_steps::name, operation_steps::result))
        .load(c))?;
    rows.into_iter()
        .filter_map(|(name, result)| result.map(|text| (name, text)))
        .map(|(name, text)| Ok((name, from_json("a step's result", &text)?)))
        .collect()
}

/// Forgets the results of all steps, so that they are done again. Their failures are not
/// forgotten.
pub fn forget_results(conn: &mut Conn<'_>, claim: &Claim) -> Result<(), StoreError> {
    fence(conn, claim)?;
    each!(conn, |c| diesel::update(operation_steps::table.filter(
        operation_steps::operation_id.eq(claim.operation.as_str())
    ))
    .set((
        operation_steps::result.eq(None::<String>),
        operation_steps::done_at.eq(None::<NaiveDateTime>),
    ))
    .execute(c))?;
    Ok(())
}

/// Forgets what an operation worked with, once nobody goes on with it: secrets are among its
/// source and its results. That its steps are done is not forgotten.
pub fn forget_work(conn: &mut Conn<'_>, id: &OperationId) -> Result<(), StoreError> {
    forget_work_of(conn, vec![id.to_string()])
}

/// Forgets what every operation of an instance worked with.
pub fn forget_work_of_instance(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
) -> Result<(), StoreError> {
    each!(conn, |c| diesel::update(
        operations::table.filter(operations::instance_id.eq(instance.as_str()))
    )
    .set(operations::change.eq(None::<String>))
    .execute(c))?;
    let ids = each!(conn, |c| operations::table
        .filter(operations::instance_id.eq(instance.as_str()))
        .select(operations::id)
        .load(c))?;
    forget_work_of(conn, ids)
}

fn forget_work_of(conn: &mut Conn<'_>, ids: Vec<String>) -> Result<(), StoreError> {
    each!(conn, |c| diesel::update(
        operation_steps::table.filter(operation_steps::operation_id.eq_any(&ids))
    )
    .set(operation_steps::result.eq(None::<String>))
    .execute(c))?;
    each!(conn, |c| diesel::update(
        operations::table.filter(operations::id.eq_any(&ids))
    )
    .set(operations::source.eq(None::<String>))
    .execute(c))?;
    Ok(())
}
