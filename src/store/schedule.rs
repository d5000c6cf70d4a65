//! Rows of schedules: there is one for each instance that is usable.

use chrono::{DateTime, NaiveDateTime, Utc};
use diesel::prelude::*;

use super::{
    Conn, StoreError, each, parse,
    schema::{instances, schedules},
};
use crate::model::{
    ids::{DeploymentId, InstanceId},
    instance::InstanceState,
    limits::SCHEDULE_AHEAD_MAX,
    schedule::Schedule,
};

/// An instance that is due.
#[derive(Debug)]
pub struct Due {
    /// Its schedule.
    pub schedule: Schedule,
    /// Its deployment.
    pub deployment: DeploymentId,
}

/// Begins the schedule of an instance on a cluster.
pub fn begin(conn: &mut Conn<'_>, schedule: &Schedule, cluster: &str) -> Result<(), StoreError> {
    each!(conn, |c| diesel::insert_into(schedules::table)
        .values((
            schedules::instance_id.eq(schedule.instance.as_str()),
            schedules::cluster_id.eq(cluster),
            schedules::next_at.eq(schedule.next_at.naive_utc()),
            schedules::failures.eq(count(schedule)),
        ))
        .execute(c))?;
    Ok(())
}

/// Ends the schedule of an instance.
pub fn end(conn: &mut Conn<'_>, instance: &InstanceId) -> Result<(), StoreError> {
    each!(conn, |c| diesel::delete(
        schedules::table.find(instance.as_str())
    )
    .execute(c))?;
    Ok(())
}

/// Writes down when an instance is looked at next, unless its schedule has ended.
pub fn set(conn: &mut Conn<'_>, schedule: &Schedule) -> Result<(), StoreError> {
    each!(conn, |c| diesel::update(
        schedules::table.find(schedule.instance.as_str())
    )
    .set((
        schedules::next_at.eq(schedule.next_at.naive_utc()),
        schedules::failures.eq(count(schedule)),
    ))
    .execute(c))?;
    Ok(())
}

fn count(schedule: &Schedule) -> i32 {
    i32::try_from(schedule.failures).unwrap_or(i32::MAX)
}

/// The schedule of an instance.
pub fn find(conn: &mut Conn<'_>, instance: &InstanceId) -> Result<Option<Schedule>, StoreError> {
    let found: Option<(NaiveDateTime, i32)> = each!(conn, |c| schedules::table
        .find(instance.as_str())
        .select((schedules::next_at, schedules::failures))
        .first(c)
        .optional())?;
    Ok(found.map(|(next_at, failures)| Schedule {
        instance: instance.clone(),
        next_at: next_at.and_utc(),
        failures: failures.unsigned_abs(),
    }))
}

/// Instances of a cluster that are due (see [`Schedule::is_due`]), at most `limit`, the one that
/// has waited longest in front.
pub fn due(
    conn: &mut Conn<'_>,
    cluster: &str,
    now: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<Due>, StoreError> {
    type Row = (String, NaiveDateTime, i32, String);
    // Two reads, each of one stretch of the index: for "or" the whole of it might be gone through.
    let now = now.naive_utc();
    let of_cluster = schedules::table
        .inner_join(instances::table.on(instances::id.eq(schedules::instance_id)))
        .filter(schedules::cluster_id.eq(cluster))
        .filter(instances::state.eq(InstanceState::Ready.as_str()))
        .order(schedules::next_at)
        .limit(limit)
        .select((
            schedules::instance_id,
            schedules::next_at,
            schedules::failures,
            instances::deployment_id,
        ));
    let come: Vec<Row> = each!(conn, |c| of_cluster
        .filter(schedules::next_at.le(now))
        .load(c))?;
    let too_far_ahead: Vec<Row> = each!(conn, |c| of_cluster
        .filter(schedules::next_at.gt(now + SCHEDULE_AHEAD_MAX))
        .load(c))?;
    come.into_iter()
        .chain(too_far_ahead)
        .map(|(instance, next_at, failures, deployment)| {
            Ok(Due {
                schedule: Schedule {
                    instance: parse("an instance's id", &instance)?,
                    next_at: next_at.and_utc(),
                    failures: failures.unsigned_abs(),
                },
                deployment: parse("a deployment's id", &deployment)?,
            })
        })
        .collect()
}
