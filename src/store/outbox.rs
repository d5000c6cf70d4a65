//! Rows of what the operator's webhook was told, of the messages that it has not got yet, and of the broker
//! that sends them.

use chrono::{DateTime, NaiveDateTime, Utc};
use diesel::{
    dsl::{exists, min, not},
    prelude::*,
};

use super::{
    Conn, StoreError, each, from_json, known, parse,
    schema::{couriers, outbox, told_alerts},
    to_json,
};
use crate::model::{
    alert::Gravity,
    ids::{InstanceId, MessageId},
    message::{Message, MessageData},
};

// The same table, for what stands before a row.
diesel::alias!(const EARLIER: Alias<Earlier> = outbox as earlier);

/// An alert whose beginning was told, and not yet its end.
#[derive(Debug, Clone, PartialEq)]
pub struct NotifiedAlert {
    /// What it is called while it lasts.
    pub key: String,
    /// How bad it was when it was told last.
    pub gravity: Gravity,
    /// What was told last.
    pub told: MessageData,
}

/// A message that the webhook has not got yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Which one.
    pub id: MessageId,
    /// The instance that it is about.
    pub instance: InstanceId,
    /// What is sent.
    pub body: String,
    /// How often it was sent in vain.
    pub tries: u32,
}

type Row = (String, String, String, i32);

/// The alerts of an instance that were told.
pub fn notified(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
) -> Result<Vec<NotifiedAlert>, StoreError> {
    let rows: Vec<(String, String, String)> = each!(conn, |c| told_alerts::table
        .filter(told_alerts::instance_id.eq(instance.as_str()))
        .order(told_alerts::subject)
        .select((
            told_alerts::subject,
            told_alerts::gravity,
            told_alerts::told
        ))
        .load(c))?;
    let alert = |(key, gravity, told): (String, String, String)| {
        Ok(NotifiedAlert {
            key,
            gravity: known("an alert's gravity", &gravity, Gravity::parse)?,
            told: from_json("what was told of an alert", &told)?,
        })
    };
    rows.into_iter().map(alert).collect()
}

/// Instances of which alerts were told, after `after` by id.
pub fn instances_notified(
    conn: &mut Conn<'_>,
    after: &str,
    limit: i64,
) -> Result<Vec<InstanceId>, StoreError> {
    let rows: Vec<String> = each!(conn, |c| told_alerts::table
        .filter(told_alerts::instance_id.gt(after))
        .select(told_alerts::instance_id)
        .distinct()
        .order(told_alerts::instance_id)
        .limit(limit)
        .load(c))?;
    let ids = rows.iter();
    ids.map(|id| parse("an instance's id", id)).collect()
}

/// Keeps that an alert is told.
pub fn set_notified(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
    alert: &NotifiedAlert,
) -> Result<(), StoreError> {
    forget_notified(conn, instance, &alert.key)?;
    let told = to_json(&alert.told)?;
    each!(conn, |c| diesel::insert_into(told_alerts::table)
        .values((
            told_alerts::instance_id.eq(instance.as_str()),
            told_alerts::subject.eq(&alert.key),
            told_alerts::gravity.eq(alert.gravity.as_str()),
            told_alerts::told.eq(&told),
        ))
        .execute(c))?;
    Ok(())
}

/// Forgets an alert that is over.
pub fn forget_notified(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
    key: &str,
) -> Result<(), StoreError> {
    each!(conn, |c| diesel::delete(
        told_alerts::table.find((instance.as_str(), key))
    )
    .execute(c))?;
    Ok(())
}

/// Adds a message, behind all others.
pub fn add(conn: &mut Conn<'_>, message: &Message) -> Result<(), StoreError> {
    let body = to_json(message)?;
    let at = message.timestamp.naive_utc();
    each!(conn, |c| diesel::insert_into(outbox::table)
        .values((
            outbox::id.eq(message.id.as_str()),
            outbox::instance_id.eq(message.data.instance.id.as_str()),
            outbox::body.eq(&body),
            outbox::made_at.eq(at),
            outbox::tries.eq(0),
            outbox::due_at.eq(at),
        ))
        .execute(c))?;
    Ok(())
}

/// How many messages wait, and when the first of them was made.
pub fn backlog(conn: &mut Conn<'_>) -> Result<(i64, Option<DateTime<Utc>>), StoreError> {
    let count = each!(conn, |c| outbox::table.count().get_result(c))?;
    let oldest: Option<NaiveDateTime> = each!(conn, |c| outbox::table
        .select(min(outbox::made_at))
        .first(c))?;
    Ok((count, oldest.map(|at| at.and_utc())))
}

/// How many messages of an instance wait.
pub fn count_of(conn: &mut Conn<'_>, instance: &InstanceId) -> Result<i64, StoreError> {
    Ok(each!(conn, |c| outbox::table
        .filter(outbox::instance_id.eq(instance.as_str()))
        .count()
        .get_result(c))?)
}

/// The messages that come next, the oldest in front: of each instance the first, unless that is sent later.
pub fn due(
    conn: &mut Conn<'_>,
    now: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<Waiting>, StoreError> {
    let rows: Vec<Row> = each!(conn, |c| outbox::table
        .filter(outbox::due_at.le(now.naive_utc()))
        .filter(not(exists(
            EARLIER
                .filter(EARLIER.field(outbox::instance_id).eq(outbox::instance_id))
                .filter(EARLIER.field(outbox::ordinal).lt(outbox::ordinal))
        )))
        .order(outbox::ordinal)
        .limit(limit)
        .select((outbox::id, outbox::instance_id, outbox::body, outbox::tries))
        .load(c))?;
    rows.into_iter().map(waiting).collect()
}

fn waiting((id, instance, body, tries): Row) -> Result<Waiting, StoreError> {
    Ok(Waiting {
        id: parse("a message's id", &id)?,
        instance: parse("an instance's id", &instance)?,
        body,
        tries: tries.unsigned_abs(),
    })
}

/// Messages that were made before a moment, the oldest in front.
pub fn made_before(
    conn: &mut Conn<'_>,
    moment: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<Waiting>, StoreError> {
    let rows: Vec<Row> = each!(conn, |c| outbox::table
        .filter(outbox::made_at.lt(moment.naive_utc()))
        .order(outbox::ordinal)
        .limit(limit)
        .select((outbox::id, outbox::instance_id, outbox::body, outbox::tries))
        .load(c))?;
    rows.into_iter().map(waiting).collect()
}

/// Removes a message that was taken, or is given up.
pub fn remove(conn: &mut Conn<'_>, id: &MessageId) -> Result<(), StoreError> {
    each!(conn, |c| diesel::delete(
        outbox::table.filter(outbox::id.eq(id.as_str()))
    )
    .execute(c))?;
    Ok(())
}

/// Keeps that a message was not taken, and when it is sent again.
pub fn put_off(
    conn: &mut Conn<'_>,
    id: &MessageId,
    due_at: DateTime<Utc>,
) -> Result<(), StoreError> {
    each!(conn, |c| diesel::update(
        outbox::table.filter(outbox::id.eq(id.as_str()))
    )
    .set((
        outbox::tries.eq(outbox::tries + 1),
        outbox::due_at.eq(due_at.naive_utc()),
    ))
    .execute(c))?;
    Ok(())
}

/// Has all that waits sent `now`.
pub fn hurry(conn: &mut Conn<'_>, now: DateTime<Utc>) -> Result<(), StoreError> {
    each!(conn, |c| diesel::update(
        outbox::table.filter(outbox::due_at.gt(now.naive_utc()))
    )
    .set(outbox::due_at.eq(now.naive_utc()))
    .execute(c))?;
    Ok(())
}

/// Whether `owner` is the one that sends from `now` until `until`: nobody else is then. A right that
/// reaches beyond `until` was taken by a clock that ran ahead.
pub fn hold(
    conn: &mut Conn<'_>,
    owner: &str,
    now: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let held: Option<(String, NaiveDateTime)> = each!(conn, |c| couriers::table
        .find(1)
        .select((couriers::owner, couriers::held_until))
        .first(c)
        .optional())?;
    let is_anothers = held.is_some_and(|(holder, held_until)| {
        holder != owner && held_until > now.naive_utc() && held_until <= until.naive_utc()
    });
    if is_anothers {
        return Ok(false);
    }
    each!(conn, |c| diesel::delete(couriers::table).execute(c))?;
    each!(conn, |c| diesel::insert_into(couriers::table)
        .values((
            couriers::id.eq(1),
            couriers::owner.eq(owner),
            couriers::held_until.eq(until.naive_utc()),
        ))
        .execute(c))?;
    Ok(true)
}

/// Lets another one send at once.
pub fn let_go(conn: &mut Conn<'_>, owner: &str) -> Result<(), StoreError> {
    each!(conn, |c| diesel::delete(
        couriers::table.filter(couriers::owner.eq(owner))
    )
    .execute(c))?;
    Ok(())
}
