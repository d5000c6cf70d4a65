//! Rows of service bindings and of the API tokens that belong to them.

use chrono::{DateTime, NaiveDateTime, Utc};
use diesel::prelude::*;

use super::{
    Conn, StoreError, each, from_json, known, parse,
    prepared::Prepared,
    schema::{bindings, tokens},
    sealed_under, to_json,
};
use crate::model::{
    binding::{Binding, BindingState},
    ids::{BindingId, InstanceId},
};

#[derive(Queryable, Insertable)]
#[diesel(table_name = bindings)]
struct Row {
    instance_id: String,
    id: String,
    parameters: String,
    request: String,
    database_user: String,
    sealed_secrets: String,
    sealed_credentials: Option<String>,
    state: String,
    created_at: NaiveDateTime,
    expires_at: Option<NaiveDateTime>,
    /// When its end is looked at next.
    expiry_due: Option<NaiveDateTime>,
}

impl Row {
    fn into_model(self) -> Result<Binding, StoreError> {
        Ok(Binding {
            instance: parse("an instance's id", &self.instance_id)?,
            id: parse("a binding's id", &self.id)?,
            parameters: from_json("a binding's parameters", &self.parameters)?,
            request: from_json("a binding's request", &self.request)?,
            database_user: self.database_user,
            sealed_secrets: self.sealed_secrets,
            sealed_credentials: self.sealed_credentials,
            state: known("a binding's state", &self.state, BindingState::parse)?,
            created_at: self.created_at.and_utc(),
            expires_at: self.expires_at.map(|at| at.and_utc()),
        })
    }
}

/// Adds a binding; `Duplicate` when its id is taken.
pub fn insert(conn: &mut Conn<'_>, binding: &Binding) -> Result<(), StoreError> {
    let row = Row {
        instance_id: binding.instance.to_string(),
        id: binding.id.to_string(),
        parameters: to_json(&binding.parameters)?,
        request: to_json(&binding.request)?,
        database_user: binding.database_user.clone(),
        sealed_secrets: binding.sealed_secrets.clone(),
        sealed_credentials: binding.sealed_credentials.clone(),
        state: binding.state.as_str().to_owned(),
        created_at: binding.created_at.naive_utc(),
        expires_at: binding.expires_at.map(|at| at.naive_utc()),
        expiry_due: binding.expires_at.map(|at| at.naive_utc()),
    };
    let insert = diesel::insert_into(bindings::table).values(row);
    each!(conn, |c| Prepared(insert).execute(c))?;
    Ok(())
}

/// The binding of that id.
pub fn find(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
    id: &BindingId,
) -> Result<Option<Binding>, StoreError> {
    let row: Option<Row> = each!(conn, |c| bindings::table
        .find((instance.as_str(), id.as_str()))
        .first(c)
        .optional())?;
    row.map(Row::into_model).transpose()
}

/// The binding of that id, which some other row names.
pub fn get(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
    id: &BindingId,
) -> Result<Binding, StoreError> {
    find(conn, instance, id)?.ok_or_else(|| StoreError::Missing("the binding".to_owned()))
}

/// Moves a binding on in its life.
pub fn set_state(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
    id: &BindingId,
    state: BindingState,
) -> Result<(), StoreError> {
    each!(conn, |c| diesel::update(
        bindings::table.find((instance.as_str(), id.as_str()))
    )
    .set(bindings::state.eq(state.as_str()))
    .execute(c))?;
    Ok(())
}

/// Keeps what a binding's application gets.
pub fn set_credentials(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
    id: &BindingId,
    sealed_credentials: &str,
) -> Result<(), StoreError> {
    each!(conn, |c| diesel::update(
        bindings::table.find((instance.as_str(), id.as_str()))
    )
    .set(bindings::sealed_credentials.eq(sealed_credentials))
    .execute(c))?;
    Ok(())
}

/// Keeps no more of what a binding's application gets: its maker has seen it.
pub fn forget_credentials(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
    id: &BindingId,
) -> Result<(), StoreError> {
    each!(conn, |c| diesel::update(
        bindings::table.find((instance.as_str(), id.as_str()))
    )
    .set(bindings::sealed_credentials.eq(None::<String>))
    .execute(c))?;
    Ok(())
}

/// Whether something of a binding is sealed under a key with none of these names.
pub fn is_sealed_otherwise(conn: &mut Conn<'_>, names: &[String]) -> Result<bool, StoreError> {
    let secrets: Option<String> = each!(conn, |c| {
        let sealed = bindings::table.filter(bindings::sealed_secrets.ne(""));
        let mut otherwise = sealed.select(bindings::id).into_boxed();
        for name in names {
            let under = bindings::sealed_secrets.not_like(sealed_under(name));
            otherwise = otherwise.filter(under.escape('\\'));
        }
        otherwise.first(c).optional()
    })?;
    let credentials: Option<String> = each!(conn, |c| {
        let sealed = bindings::table.filter(bindings::sealed_credentials.is_not_null());
        let mut otherwise = sealed.select(bindings::id).into_boxed();
        for name in names {
            let under = bindings::sealed_credentials.not_like(sealed_under(name));
            otherwise = otherwise.filter(under.escape('\\'));
        }
        otherwise.first(c).optional()
    })?;
    Ok(secrets.or(credentials).is_some())
}

/// Bindings that have secrets, those after the binding `after` of an instance, by the ids of both, at most
/// `limit`.
pub fn sealed_after(
    conn: &mut Conn<'_>,
    (instance, after): (&str, &str),
    limit: i64,
) -> Result<Vec<Binding>, StoreError> {
    let later = bindings::instance_id.gt(instance);
    let rows: Vec<Row> = each!(conn, |c| bindings::table
        .filter(bindings::instance_id.ge(instance))
        .filter(later.or(bindings::id.gt(after)))
        .filter(bindings::sealed_secrets.ne(""))
        .order((bindings::instance_id, bindings::id))
        .limit(limit)
        .load(c))?;
    rows.into_iter().map(Row::into_model).collect()
}

/// Every binding of an instance.
pub fn of_instance(conn: &mut Conn<'_>, instance: &InstanceId) -> Result<Vec<Binding>, StoreError> {
    let rows: Vec<Row> = each!(conn, |c| bindings::table
        .filter(bindings::instance_id.eq(instance.as_str()))
        .order(bindings::id)
        .load(c))?;
    rows.into_iter().map(Row::into_model).collect()
}

/// Keeps a binding's secrets as they are sealed now.
pub fn set_secrets(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
    id: &BindingId,
    sealed_secrets: &str,
) -> Result<(), StoreError> {
    each!(conn, |c| diesel::update(
        bindings::table.find((instance.as_str(), id.as_str()))
    )
    .set(bindings::sealed_secrets.eq(sealed_secrets))
    .execute(c))?;
    Ok(())
}

/// The bindings whose end is due, at most `limit`.
pub fn due_to_expire(
    conn: &mut Conn<'_>,
    now: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<(InstanceId, BindingId)>, StoreError> {
    let rows: Vec<(String, String)> = each!(conn, |c| bindings::table
        .filter(bindings::expiry_due.le(now.naive_utc()))
        .order(bindings::expiry_due)
        .select((bindings::instance_id, bindings::id))
        .limit(limit)
        .load(c))?;
    rows.into_iter()
        .map(|(instance, id)| {
            Ok((
                parse("an instance's id", &instance)?,
                parse("a binding's id", &id)?,
            ))
        })
        .collect()
}

/// Looks at the end of a binding at `due` and not before, or not any more. Without effect on a
/// binding that has no end.
pub fn set_expiry_due(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
    id: &BindingId,
    due: Option<DateTime<Utc>>,
) -> Result<(), StoreError> {
    each!(conn, |c| diesel::update(
        bindings::table
            .find((instance.as_str(), id.as_str()))
            .filter(bindings::expires_at.is_not_null())
    )
    .set(bindings::expiry_due.eq(due.map(|at| at.naive_utc())))
    .execute(c))?;
    Ok(())
}

/// Brings the turn of the binding of an instance that has waited longest for its end, behind others'.
pub fn expire_next(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let now = now.naive_utc();
    let next: Option<String> = each!(conn, |c| bindings::table
        .filter(bindings::instance_id.eq(instance.as_str()))
        .filter(bindings::state.eq(BindingState::Expiring.as_str()))
        .filter(bindings::expiry_due.gt(now))
        .order((bindings::expires_at, bindings::id))
        .select(bindings::id)
        .first(c)
        .optional())?;
    let Some(next) = next else { return Ok(()) };
    each!(conn, |c| diesel::update(
        bindings::table.find((instance.as_str(), next.as_str()))
    )
    .set(bindings::expiry_due.eq(now))
    .execute(c))?;
    Ok(())
}

/// Leaves nothing of a binding whose time is over but that it was there.
pub fn retire(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
    id: &BindingId,
) -> Result<(), StoreError> {
    revoke_tokens(conn, instance, id)?;
    each!(conn, |c| diesel::update(
        bindings::table.find((instance.as_str(), id.as_str()))
    )
    .set((
        bindings::state.eq(BindingState::Expired.as_str()),
        bindings::sealed_secrets.eq(""),
        bindings::sealed_credentials.eq(None::<String>),
        bindings::expiry_due.eq(None::<NaiveDateTime>),
    ))
    .execute(c))?;
    Ok(())
}

/// Removes a binding with its tokens.
pub fn delete(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
    id: &BindingId,
) -> Result<(), StoreError> {
    revoke_tokens(conn, instance, id)?;
    each!(conn, |c| diesel::delete(
        bindings::table.find((instance.as_str(), id.as_str()))
    )
    .execute(c))?;
    Ok(())
}

/// Lets no token of an instance in any more.
pub fn revoke_tokens_of_instance(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
) -> Result<(), StoreError> {
    each!(conn, |c| diesel::delete(
        tokens::table.filter(tokens::instance_id.eq(instance.as_str()))
    )
    .execute(c))?;
    Ok(())
}

/// Removes every binding and token of an instance.
pub fn delete_of_instance(conn: &mut Conn<'_>, instance: &InstanceId) -> Result<(), StoreError> {
    revoke_tokens_of_instance(conn, instance)?;
    each!(conn, |c| diesel::delete(
        bindings::table.filter(bindings::instance_id.eq(instance.as_str()))
    )
    .execute(c))?;
    Ok(())
}

/// Lets the token of that fingerprint in, for the binding's instance.
pub fn grant_token(
    conn: &mut Conn<'_>,
    fingerprint: &str,
    binding: &Binding,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    each!(conn, |c| diesel::insert_into(tokens::table)
        .values((
            tokens::fingerprint.eq(fingerprint),
            tokens::instance_id.eq(binding.instance.as_str()),
            tokens::binding_id.eq(binding.id.as_str()),
            tokens::created_at.eq(now.naive_utc()),
        ))
        .execute(c))?;
    Ok(())
}

/// Lets no token of a binding in any more.
pub fn revoke_tokens(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
    id: &BindingId,
) -> Result<(), StoreError> {
    each!(conn, |c| diesel::delete(
        tokens::table
            .filter(tokens::instance_id.eq(instance.as_str()))
            .filter(tokens::binding_id.eq(id.as_str()))
    )
    .execute(c))?;
    Ok(())
}

/// The instance that the token of that fingerprint is for.
pub fn instance_of_token(
    conn: &mut Conn<'_>,
    fingerprint: &str,
) -> Result<Option<InstanceId>, StoreError> {
    let holder = holder_of_token(conn, fingerprint)?;
    Ok(holder.map(|(instance, _)| instance))
}

/// The instance that the token of that fingerprint is for, and the binding that it belongs to.
pub fn holder_of_token(
    conn: &mut Conn<'_>,
    fingerprint: &str,
) -> Result<Option<(InstanceId, BindingId)>, StoreError> {
    let row: Option<(String, String)> = each!(conn, |c| tokens::table
        .find(fingerprint)
        .select((tokens::instance_id, tokens::binding_id))
        .first(c)
        .optional())?;
    row.map(|(instance, binding)| {
        Ok((
            parse("an instance's id", &instance)?,
            parse("a binding's id", &binding)?,
        ))
    })
    .transpose()
}
