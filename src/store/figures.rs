//! The work in figures: a few numbers, whatever waits.

use chrono::{DateTime, NaiveDateTime, Utc};
use diesel::{
    dsl::{count_star, min},
    prelude::*,
};

use super::{
    Conn, StoreError, each,
    schema::{operations, waiting},
    waiting::Line,
};
use crate::model::{
    figures::{OperationsSeen, PayerClass, QueueSeen, Workload},
    operation::{OperationKind, OperationState},
};

/// The states that an index leads to the few rows of.
const TOLD: [OperationState; 4] = [
    OperationState::Queued,
    OperationState::Running,
    OperationState::Stuck,
    OperationState::Abandoned,
];

/// How the work stands. Rows of kinds and lines that this version does not know are left out.
pub fn work(conn: &mut Conn<'_>, now: DateTime<Utc>) -> Result<Workload, StoreError> {
    Ok(Workload {
        operations: operations_seen(conn)?,
        queue: queue_seen(conn, now)?,
    })
}

fn operations_seen(conn: &mut Conn<'_>) -> Result<Vec<OperationsSeen>, StoreError> {
    type Row = (String, String, i64, Option<NaiveDateTime>);
    let told = TOLD.map(OperationState::as_str);
    let rows: Vec<Row> = each!(conn, |c| operations::table
        .filter(operations::state.eq_any(told))
        .group_by((operations::kind, operations::state))
        .select((
            operations::kind,
            operations::state,
            count_star(),
            min(operations::created_at),
        ))
        .load(c))?;
    let seen = |(kind, state, count, oldest): Row| {
        Some(OperationsSeen {
            kind: OperationKind::parse(&kind)?,
            state: OperationState::parse(&state)?,
            count: count.unsigned_abs(),
            oldest: oldest?.and_utc(),
        })
    };
    Ok(rows.into_iter().filter_map(seen).collect())
}

fn queue_seen(conn: &mut Conn<'_>, now: DateTime<Utc>) -> Result<Vec<QueueSeen>, StoreError> {
    type Row = (String, i64, Option<NaiveDateTime>);
    let due = waiting::table.filter(waiting::due.le(now.naive_utc()));
    let figures = (waiting::line, count_star(), min(waiting::due));
    let paid: Vec<Row> = each!(conn, |c| due
        .filter(waiting::payer.ne(""))
        .group_by(waiting::line)
        .select(figures)
        .load(c))?;
    let unpaid: Vec<Row> = each!(conn, |c| due
        .filter(waiting::payer.eq(""))
        .group_by(waiting::line)
        .select(figures)
        .load(c))?;
    let paid = paid.into_iter().map(|row| (true, row));
    let unpaid = unpaid.into_iter().map(|row| (false, row));
    let mut found: Vec<QueueSeen> = Vec::new();
    for (is_paid, (line, count, oldest)) in paid.chain(unpaid) {
        let (Some(line), Some(oldest)) = (Line::parse(&line), oldest) else {
            continue;
        };
        let (kind, count, oldest) = (line.kind, count.unsigned_abs(), oldest.and_utc());
        let class = match (is_paid, line.unasked) {
            (false, _) => PayerClass::Nobody,
            (true, true) => PayerClass::Broker,
            (true, false) => PayerClass::Tenant,
        };
        // A line is of one cluster.
        let same = |seen: &&mut QueueSeen| seen.kind == kind && seen.class == class;
        match found.iter_mut().find(same) {
            Some(seen) => {
                seen.count += count;
                seen.oldest = seen.oldest.min(oldest);
            }
            None => found.push(QueueSeen {
                kind,
                class,
                count,
                oldest,
            }),
        }
    }
    Ok(found)
}
