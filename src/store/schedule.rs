//! Rows of schedules: there is one for each instance that is usable.

use chrono::{DateTime, NaiveDateTime, Utc, Weekday};
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
    timetable::{Timetable, WEEKDAYS},
};

/// An instance that is due.
#[derive(Debug)]
pub struct DueSchedule {
    /// Its schedule.
    pub schedule: Schedule,
    /// Its deployment.
    pub deployment: DeploymentId,
}

/// An instance that is due, whose rows cannot be read.
#[derive(Debug)]
pub struct Spoiled {
    /// What stands there as its id.
    pub instance: String,
    /// Why they cannot be read.
    pub reason: StoreError,
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

/// Has an instance looked at no sooner than `until`, whatever its id is.
pub fn put_off(
    conn: &mut Conn<'_>,
    instance: &str,
    until: DateTime<Utc>,
) -> Result<(), StoreError> {
    each!(conn, |c| diesel::update(schedules::table.find(instance))
        .set(schedules::next_at.eq(until.naive_utc()))
        .execute(c))?;
    Ok(())
}

/// Keeps what users choose of the schedule of an instance, and when it is looked at next, unless it has
/// ended.
pub fn set_timetable(conn: &mut Conn<'_>, schedule: &Schedule) -> Result<(), StoreError> {
    let Timetable {
        hour,
        weekday,
        days,
        weeks,
        months,
    } = schedule.timetable;
    let weekday = weekday.map(|day| day.number_from_monday());
    each!(conn, |c| diesel::update(
        schedules::table.find(schedule.instance.as_str())
    )
    .set((
        schedules::next_at.eq(schedule.next_at.naive_utc()),
        schedules::hour.eq(hour.map(whole)),
        schedules::weekday.eq(weekday.map(whole)),
        schedules::days_kept.eq(days.map(whole)),
        schedules::weeks_kept.eq(weeks.map(whole)),
        schedules::months_kept.eq(months.map(whole)),
        schedules::counts_from.eq(schedule.counts_from.map(|from| from.naive_utc())),
    ))
    .execute(c))?;
    Ok(())
}

fn count(schedule: &Schedule) -> i32 {
    whole(schedule.failures)
}

fn whole(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

#[derive(Queryable)]
struct Row {
    instance_id: String,
    _cluster_id: String,
    next_at: NaiveDateTime,
    failures: i32,
    hour: Option<i32>,
    weekday: Option<i32>,
    days_kept: Option<i32>,
    weeks_kept: Option<i32>,
    months_kept: Option<i32>,
    counts_from: Option<NaiveDateTime>,
}

impl Row {
    fn into_model(self) -> Result<Schedule, StoreError> {
        let number = self.weekday.map(i32::unsigned_abs);
        let is_it = |day: &Weekday| Some(day.number_from_monday()) == number;
        let weekday = WEEKDAYS.iter().map(|(day, _)| *day).find(is_it);
        Ok(Schedule {
            instance: parse("an instance's id", &self.instance_id)?,
            next_at: self.next_at.and_utc(),
            failures: self.failures.unsigned_abs(),
            timetable: Timetable {
                hour: self.hour.map(i32::unsigned_abs),
                weekday,
                days: self.days_kept.map(i32::unsigned_abs),
                weeks: self.weeks_kept.map(i32::unsigned_abs),
                months: self.months_kept.map(i32::unsigned_abs),
            },
            counts_from: self.counts_from.map(|from| from.and_utc()),
        })
    }
}

/// The schedule of an instance.
pub fn find(conn: &mut Conn<'_>, instance: &InstanceId) -> Result<Option<Schedule>, StoreError> {
    let found: Option<Row> = each!(conn, |c| schedules::table
        .find(instance.as_str())
        .select(schedules::all_columns)
        .first(c)
        .optional())?;
    found.map(Row::into_model).transpose()
}

/// Instances of a cluster that are due (see [`Schedule::is_due`]), at most `limit`, the one that
/// has waited longest in front; and those among them that cannot be read.
pub fn due(
    conn: &mut Conn<'_>,
    cluster: &str,
    now: DateTime<Utc>,
    limit: i64,
) -> Result<(Vec<DueSchedule>, Vec<Spoiled>), StoreError> {
    // Two reads, each of one stretch of the index: for "or" the whole of it might be gone through.
    let now = now.naive_utc();
    let of_cluster = schedules::table
        .inner_join(instances::table.on(instances::id.eq(schedules::instance_id)))
        .filter(schedules::cluster_id.eq(cluster))
        .filter(instances::state.eq(InstanceState::Ready.as_str()))
        .order(schedules::next_at)
        .limit(limit)
        .select((schedules::all_columns, instances::deployment_id));
    let come: Vec<(Row, String)> = each!(conn, |c| of_cluster
        .filter(schedules::next_at.le(now))
        .load(c))?;
    let too_far_ahead: Vec<(Row, String)> = each!(conn, |c| of_cluster
        .filter(schedules::next_at.gt(now + SCHEDULE_AHEAD_MAX))
        .load(c))?;
    let (mut due, mut spoiled) = (Vec::new(), Vec::new());
    for (row, deployment) in come.into_iter().chain(too_far_ahead) {
        let instance = row.instance_id.clone();
        let read = row.into_model().and_then(|schedule| {
            let deployment = parse("a deployment's id", &deployment)?;
            Ok(DueSchedule {
                schedule,
                deployment,
            })
        });
        match read {
            Ok(one) => due.push(one),
            Err(reason) => spoiled.push(Spoiled { instance, reason }),
        }
    }
    Ok((due, spoiled))
}
