//! Rows of service instances.

use std::collections::BTreeSet;

use chrono::NaiveDateTime;
use diesel::prelude::*;
use serde_json::Value;

use super::{
    Conn, StoreError, each, from_json, known, parse, prepared::Prepared, schema::instances,
    to_json, waiting::look_anew,
};
use crate::model::{
    ids::{DeploymentId, InstanceId},
    instance::{Instance, InstanceState, Names, ProvisionIdentity},
    tenant::Tenant,
};

diesel::define_sql_function! {
    /// Small letters; of ASCII alone in SQLite. So both sides of a comparison are made small by it.
    fn lower(text: diesel::sql_types::Text) -> diesel::sql_types::Text;
}

#[derive(Queryable, Insertable)]
#[diesel(table_name = instances)]
struct Row {
    id: String,
    service_id: String,
    plan_id: String,
    platform: String,
    organization: String,
    space: String,
    deployment_id: String,
    context: String,
    parameters: String,
    request: String,
    state: String,
    created_at: NaiveDateTime,
    name: Option<String>,
    restored_from: Option<String>,
    account: String,
    ordinal: i64,
}

impl Row {
    fn from_model(instance: &Instance) -> Result<Self, StoreError> {
        Ok(Self {
            id: instance.id.to_string(),
            service_id: instance.service_id.clone(),
            plan_id: instance.plan_id.clone(),
            platform: instance.tenant.platform.clone(),
            organization: instance.tenant.organization.clone(),
            space: instance.tenant.space.clone(),
            deployment_id: instance.deployment.to_string(),
            context: to_json(&instance.context)?,
            parameters: to_json(&instance.parameters)?,
            request: to_json(&instance.request)?,
            state: instance.state.as_str().to_owned(),
            created_at: instance.created_at.naive_utc(),
            name: instance.name.clone(),
            restored_from: instance.restored_from.as_ref().map(DeploymentId::to_string),
            account: to_json(&instance.tenant.account)?,
            ordinal: instance.ordinal,
        })
    }

    fn into_model(self) -> Result<Instance, StoreError> {
        Ok(Instance {
            id: parse("an instance's id", &self.id)?,
            service_id: self.service_id,
            plan_id: self.plan_id,
            tenant: Tenant {
                platform: self.platform,
                organization: self.organization,
                space: self.space,
                account: from_json("an instance's account", &self.account)?,
            },
            deployment: parse("a deployment's id", &self.deployment_id)?,
            context: from_json("an instance's context", &self.context)?,
            parameters: from_json("an instance's parameters", &self.parameters)?,
            request: from_json("an instance's request", &self.request)?,
            state: known("an instance's state", &self.state, InstanceState::parse)?,
            created_at: self.created_at.and_utc(),
            name: self.name,
            restored_from: self
                .restored_from
                .map(|id| parse("a deployment's id", &id))
                .transpose()?,
            ordinal: self.ordinal,
        })
    }
}

/// Adds an instance; `Duplicate` when its id is taken. What is asked for from now on comes after it.
pub fn insert(conn: &mut Conn<'_>, instance: &Instance) -> Result<(), StoreError> {
    let row = Row {
        ordinal: super::operation::next_ordinal(conn)?,
        ..Row::from_model(instance)?
    };
    let insert = diesel::insert_into(instances::table).values(row);
    each!(conn, |c| Prepared(insert).execute(c))?;
    Ok(())
}

/// The instance of that id.
pub fn find(conn: &mut Conn<'_>, id: &InstanceId) -> Result<Option<Instance>, StoreError> {
    let row: Option<Row> = each!(conn, |c| instances::table
        .find(id.as_str())
        .first(c)
        .optional())?;
    row.map(Row::into_model).transpose()
}

/// What people call these instances, where that is known.
pub fn names<'a>(
    conn: &mut Conn<'_>,
    ids: impl IntoIterator<Item = &'a InstanceId>,
) -> Result<Names, StoreError> {
    let ids: BTreeSet<&str> = ids.into_iter().map(InstanceId::as_str).collect();
    let rows: Vec<(String, Option<String>)> = each!(conn, |c| instances::table
        .filter(instances::id.eq_any(&ids))
        .select((instances::id, instances::name))
        .load(c))?;
    let named = rows.into_iter().filter_map(|(id, name)| Some((id, name?)));
    named
        .map(|(id, name)| Ok((parse("an instance's id", &id)?, name)))
        .collect()
}

/// Instances in whose ids, names, owners or context a text stands, newest first; all of them for
/// an empty text.
pub fn search(
    conn: &mut Conn<'_>,
    text: &str,
    skipped: usize,
    most: usize,
) -> Result<Vec<Instance>, StoreError> {
    let escaped = text
        .replace('\\', "\\\\")
        .replace('%', "\\%")
        .replace('_', "\\_");
    let pattern = format!("%{escaped}%");
    let limit = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let rows: Vec<Row> = each!(conn, |c| instances::table
        .filter(
            lower(instances::id)
                .like(lower(&pattern))
                .escape('\\')
                .or(instances::deployment_id.like(lower(&pattern)).escape('\\'))
                .or(lower(instances::organization)
                    .like(lower(&pattern))
                    .escape('\\'))
                .or(lower(instances::space).like(lower(&pattern)).escape('\\'))
                .or(lower(instances::account).like(lower(&pattern)).escape('\\'))
                .or(lower(instances::context).like(lower(&pattern)).escape('\\'))
        )
        .order((instances::created_at.desc(), instances::id.desc()))
        .limit(limit(most))
        .offset(limit(skipped))
        .load(c))?;
    rows.into_iter().map(Row::into_model).collect()
}

/// The instance of that id, which some other row names.
pub fn get(conn: &mut Conn<'_>, id: &InstanceId) -> Result<Instance, StoreError> {
    find(conn, id)?.ok_or_else(|| StoreError::Missing("the instance".to_owned()))
}

/// That an instance is a tenant's, whose account is `account` as it is stored.
#[diesel::dsl::auto_type]
pub(super) fn owned_by<'a>(tenant: &'a Tenant, account: &'a str) -> _ {
    let platform: &'a str = &tenant.platform;
    let organization: &'a str = &tenant.organization;
    let space: &'a str = &tenant.space;
    instances::platform
        .eq(platform)
        .and(instances::organization.eq(organization))
        .and(instances::space.eq(space))
        .and(instances::account.eq(account))
}

/// The instances of a plan that a tenant has, whatever state they are in.
pub fn count_of(conn: &mut Conn<'_>, tenant: &Tenant, plan_id: &str) -> Result<u64, StoreError> {
    let account = to_json(&tenant.account)?;
    let count: i64 = each!(conn, |c| instances::table
        .filter(owned_by(tenant, &account))
        .filter(instances::plan_id.eq(plan_id))
        .count()
        .get_result(c))?;
    Ok(count.unsigned_abs())
}

/// Whether an instance of a tenant has that name.
pub fn is_named(conn: &mut Conn<'_>, tenant: &Tenant, name: &str) -> Result<bool, StoreError> {
    let account = to_json(&tenant.account)?;
    let id: Option<String> = each!(conn, |c| instances::table
        .filter(owned_by(tenant, &account))
        .filter(instances::name.eq(name))
        .select(instances::id)
        .first(c)
        .optional())?;
    Ok(id.is_some())
}

/// The instance in front of a deployment.
pub fn of_deployment(
    conn: &mut Conn<'_>,
    deployment: &DeploymentId,
) -> Result<Option<Instance>, StoreError> {
    let row: Option<Row> = each!(conn, |c| instances::table
        .filter(instances::deployment_id.eq(deployment.as_str()))
        .first(c)
        .optional())?;
    row.map(Row::into_model).transpose()
}

/// The instances that the broker itself made of a deployment's backups, newest first.
pub fn restored_from(
    conn: &mut Conn<'_>,
    deployment: &DeploymentId,
) -> Result<Vec<Instance>, StoreError> {
    let rows: Vec<Row> = each!(conn, |c| instances::table
        .filter(instances::restored_from.eq(deployment.as_str()))
        .order((instances::created_at.desc(), instances::id.desc()))
        .load(c))?;
    rows.into_iter().map(Row::into_model).collect()
}

/// The plans that instances have: service and plan.
pub fn plans(conn: &mut Conn<'_>) -> Result<Vec<(String, String)>, StoreError> {
    // Counted or put in order by SQLite, all instances would be sorted first, in memory.
    let mut plans: Vec<(String, String)> = each!(conn, |c| instances::table
        .select((instances::service_id, instances::plan_id))
        .distinct()
        .load(c))?;
    plans.sort();
    Ok(plans)
}

/// How many instances have a plan.
pub fn count_of_plan(
    conn: &mut Conn<'_>,
    service_id: &str,
    plan_id: &str,
) -> Result<i64, StoreError> {
    Ok(each!(conn, |c| instances::table
        .filter(instances::service_id.eq(service_id))
        .filter(instances::plan_id.eq(plan_id))
        .count()
        .get_result(c))?)
}

/// The instances of a plan, at most `limit`.
pub fn of_plan(
    conn: &mut Conn<'_>,
    service_id: &str,
    plan_id: &str,
    limit: i64,
) -> Result<Vec<InstanceId>, StoreError> {
    let ids: Vec<String> = each!(conn, |c| instances::table
        .filter(instances::service_id.eq(service_id))
        .filter(instances::plan_id.eq(plan_id))
        .select(instances::id)
        .order(instances::id)
        .limit(limit)
        .load(c))?;
    ids.iter().map(|id| parse("an instance's id", id)).collect()
}

/// Moves an instance on in its life.
pub fn set_state(
    conn: &mut Conn<'_>,
    id: &InstanceId,
    state: InstanceState,
) -> Result<(), StoreError> {
    each!(conn, |c| diesel::update(instances::table.find(id.as_str()))
        .set(instances::state.eq(state.as_str()))
        .execute(c))?;
    Ok(())
}

/// Some instances by id, those after `after`, whatever state they are in.
pub fn after(conn: &mut Conn<'_>, after: &str, limit: i64) -> Result<Vec<Instance>, StoreError> {
    let rows: Vec<Row> = each!(conn, |c| instances::table
        .filter(instances::id.gt(after))
        .order(instances::id)
        .limit(limit)
        .load(c))?;
    rows.into_iter().map(Row::into_model).collect()
}

/// Gives an instance another owner.
pub fn set_tenant(conn: &mut Conn<'_>, id: &InstanceId, tenant: &Tenant) -> Result<(), StoreError> {
    let account = to_json(&tenant.account)?;
    each!(conn, |c| diesel::update(instances::table.find(id.as_str()))
        .set((
            instances::platform.eq(&tenant.platform),
            instances::organization.eq(&tenant.organization),
            instances::space.eq(&tenant.space),
            instances::account.eq(&account),
        ))
        .execute(c))?;
    look_anew(conn, id.as_str())
}

/// Keeps what the platform says of an instance now, and what it calls it.
pub fn set_context(
    conn: &mut Conn<'_>,
    id: &InstanceId,
    context: &Value,
    name: Option<&str>,
) -> Result<(), StoreError> {
    let context = to_json(context)?;
    each!(conn, |c| diesel::update(instances::table.find(id.as_str()))
        .set((instances::context.eq(&context), instances::name.eq(name)))
        .execute(c))?;
    Ok(())
}

/// Keeps the parameters that an instance has now.
pub fn set_parameters(
    conn: &mut Conn<'_>,
    id: &InstanceId,
    parameters: &Value,
) -> Result<(), StoreError> {
    let parameters = to_json(parameters)?;
    each!(conn, |c| diesel::update(instances::table.find(id.as_str()))
        .set(instances::parameters.eq(&parameters))
        .execute(c))?;
    Ok(())
}

/// Makes an instance of the broker's own one of its platform, which asked for it like this.
pub fn adopt(
    conn: &mut Conn<'_>,
    id: &InstanceId,
    request: &ProvisionIdentity,
) -> Result<(), StoreError> {
    let request = to_json(request)?;
    each!(conn, |c| diesel::update(instances::table.find(id.as_str()))
        .set((
            instances::restored_from.eq(None::<String>),
            instances::request.eq(&request),
        ))
        .execute(c))?;
    Ok(())
}

/// Removes the instance's row, with what it was restored from.
pub fn delete(conn: &mut Conn<'_>, id: &InstanceId) -> Result<(), StoreError> {
    super::provenance::forget(conn, id)?;
    each!(conn, |c| diesel::delete(instances::table.find(id.as_str()))
        .execute(c))?;
    look_anew(conn, id.as_str())
}
