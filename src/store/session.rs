//! Rows of the dashboard's sessions, and of one-time links that were used.

use chrono::{DateTime, NaiveDateTime, Utc};
use diesel::prelude::*;

use super::{
    Conn, StoreError, each, parse,
    schema::{sessions, used_links},
};
use crate::model::{
    ids::InstanceId,
    session::{OpenedWith, Scope, Session},
    trust::Trusted,
};

#[derive(Queryable, Insertable)]
#[diesel(table_name = sessions)]
struct Row {
    fingerprint: String,
    instance_id: Option<String>,
    origin: String,
    origin_mark: String,
    created_at: NaiveDateTime,
    expires_at: NaiveDateTime,
}

/// Adds a session.
pub fn insert(conn: &mut Conn<'_>, session: &Session) -> Result<(), StoreError> {
    let (way, mark) = session.opened_with.as_strs();
    let row = Row {
        fingerprint: session.fingerprint.clone(),
        instance_id: match &session.scope {
            Scope::Instance(id) => Some(id.to_string()),
            Scope::Operator => None,
        },
        origin: way.to_owned(),
        origin_mark: mark.to_owned(),
        created_at: session.created_at.naive_utc(),
        expires_at: session.expires_at.naive_utc(),
    };
    each!(conn, |c| diesel::insert_into(sessions::table)
        .values(row)
        .execute(c))?;
    Ok(())
}

/// The session of that cookie's fingerprint, whatever has become of what it stands on.
pub fn find(conn: &mut Conn<'_>, fingerprint: &str) -> Result<Option<Session>, StoreError> {
    let row: Option<Row> = each!(conn, |c| sessions::table
        .find(fingerprint)
        .first(c)
        .optional())?;
    row.map(|row| {
        let opened_with = OpenedWith::parse(&row.origin, &row.origin_mark).ok_or_else(|| {
            StoreError::unreadable(
                "what a session was opened with",
                format!("{:?} is unknown", row.origin),
            )
        })?;
        let scope = match row.instance_id {
            Some(id) => Scope::Instance(parse("an instance's id", &id)?),
            None => Scope::Operator,
        };
        Ok(Session {
            fingerprint: row.fingerprint,
            scope,
            opened_with,
            created_at: row.created_at.and_utc(),
            expires_at: row.expires_at.and_utc(),
        })
    })
    .transpose()
}

/// Ends a session.
pub fn delete(conn: &mut Conn<'_>, fingerprint: &str) -> Result<(), StoreError> {
    each!(conn, |c| diesel::delete(sessions::table.find(fingerprint))
        .execute(c))?;
    Ok(())
}

/// Ends every session of an instance.
pub fn delete_of_instance(conn: &mut Conn<'_>, instance: &InstanceId) -> Result<(), StoreError> {
    each!(conn, |c| diesel::delete(
        sessions::table.filter(sessions::instance_id.eq(instance.as_str()))
    )
    .execute(c))?;
    Ok(())
}

/// Whether a one-time link was used.
pub fn link_is_used(conn: &mut Conn<'_>, nonce: &str) -> Result<bool, StoreError> {
    let found: Option<String> = each!(conn, |c| used_links::table
        .find(nonce)
        .select(used_links::nonce)
        .first(c)
        .optional())?;
    Ok(found.is_some())
}

/// Forgets sessions whose time has run out, and one-time links that are good for nothing any more,
/// used or not.
pub fn forget_expired(conn: &mut Conn<'_>, now: Trusted) -> Result<(), StoreError> {
    let now = now.time().naive_utc();
    each!(conn, |c| diesel::delete(
        sessions::table.filter(sessions::expires_at.le(now))
    )
    .execute(c))?;
    each!(conn, |c| diesel::delete(
        used_links::table.filter(used_links::expires_at.le(now))
    )
    .execute(c))?;
    Ok(())
}

/// Writes down that a one-time link is used; `Duplicate` when it was before.
pub fn use_link(
    conn: &mut Conn<'_>,
    nonce: &str,
    expires_at: DateTime<Utc>,
) -> Result<(), StoreError> {
    each!(conn, |c| diesel::insert_into(used_links::table)
        .values((
            used_links::nonce.eq(nonce),
            used_links::expires_at.eq(expires_at.naive_utc()),
        ))
        .execute(c))?;
    Ok(())
}
