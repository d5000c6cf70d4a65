//! Rows of the brokers that share the store.

use chrono::{DateTime, Utc};
use diesel::prelude::*;

use super::{Conn, StoreError, each, from_json, schema::brokers, to_json};
use crate::model::replicas::{PlanMark, Replica};

/// Says that a broker is alive at `now`.
pub fn set(conn: &mut Conn<'_>, of: &Replica, now: DateTime<Utc>) -> Result<(), StoreError> {
    let keys = to_json(&of.keys)?;
    let plans = of.plans.as_ref().map(to_json).transpose()?;
    remove(conn, &of.id)?;
    each!(conn, |c| diesel::insert_into(brokers::table)
        .values((
            brokers::id.eq(&of.id),
            brokers::machine.eq(&of.machine),
            brokers::version.eq(&of.version),
            brokers::keys.eq(&keys),
            brokers::seen_at.eq(now.naive_utc()),
            brokers::plans.eq(&plans),
        ))
        .execute(c))?;
    Ok(())
}

/// Says that a broker is still alive at `now`, where the store knows it; false: it does not.
pub fn touch(conn: &mut Conn<'_>, id: &str, now: DateTime<Utc>) -> Result<bool, StoreError> {
    let touched = each!(conn, |c| diesel::update(brokers::table.find(id))
        .set(brokers::seen_at.eq(now.naive_utc()))
        .execute(c))?;
    Ok(touched == 1)
}

/// Says which plans a broker has from now on, where it has said that it is alive.
pub fn set_plans(conn: &mut Conn<'_>, id: &str, plans: &[PlanMark]) -> Result<(), StoreError> {
    let plans = to_json(&plans)?;
    each!(conn, |c| diesel::update(brokers::table.find(id))
        .set(brokers::plans.eq(&plans))
        .execute(c))?;
    Ok(())
}

/// The brokers that have said since then that they are alive, by id.
pub fn alive_since(conn: &mut Conn<'_>, then: DateTime<Utc>) -> Result<Vec<Replica>, StoreError> {
    type Row = (String, String, String, String, Option<String>);
    let rows: Vec<Row> = each!(conn, |c| brokers::table
        .filter(brokers::seen_at.ge(then.naive_utc()))
        .order(brokers::id)
        .select((
            brokers::id,
            brokers::machine,
            brokers::version,
            brokers::keys,
            brokers::plans
        ))
        .load(c))?;
    let rows = rows.into_iter();
    rows.map(|(id, machine, version, keys, plans)| {
        let plans = plans.map(|plans| from_json("the plans of a broker", &plans));
        Ok(Replica {
            id,
            machine,
            version,
            keys: from_json("the keys of a broker", &keys)?,
            plans: plans.transpose()?,
        })
    })
    .collect()
}

/// Forgets a broker.
pub fn remove(conn: &mut Conn<'_>, id: &str) -> Result<(), StoreError> {
    each!(conn, |c| diesel::delete(brokers::table.find(id)).execute(c))?;
    Ok(())
}

/// Forgets those that have not said since then that they are alive.
pub fn forget(conn: &mut Conn<'_>, then: DateTime<Utc>) -> Result<(), StoreError> {
    let gone = brokers::table.filter(brokers::seen_at.lt(then.naive_utc()));
    each!(conn, |c| diesel::delete(gone).execute(c))?;
    Ok(())
}
