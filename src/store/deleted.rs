//! Rows of deleted instances whose backups are there still.

use chrono::{DateTime, NaiveDateTime, Utc};
use diesel::{dsl::Desc, prelude::*};

use super::{Conn, StoreError, each, from_json, parse, schema::deleted_instances, to_json};
use crate::model::{
    deleted::DeletedInstance,
    ids::{DeploymentId, InstanceId},
    tenant::Tenant,
};

#[derive(Queryable, Insertable)]
#[diesel(table_name = deleted_instances)]
struct Row {
    deployment_id: String,
    instance_id: String,
    service_id: String,
    plan_id: String,
    platform: String,
    organization: String,
    space: String,
    account: String,
    name: Option<String>,
    cluster_id: String,
    engine: String,
    version: String,
    units: i32,
    created_at: NaiveDateTime,
    deleted_at: NaiveDateTime,
    kept_until: NaiveDateTime,
    final_backup_failure: Option<String>,
    restored_from: Option<String>,
}

impl Row {
    fn from_model(of: &DeletedInstance) -> Result<Self, StoreError> {
        Ok(Self {
            deployment_id: of.deployment.to_string(),
            instance_id: of.instance.to_string(),
            service_id: of.service_id.clone(),
            plan_id: of.plan_id.clone(),
            platform: of.tenant.platform.clone(),
            organization: of.tenant.organization.clone(),
            space: of.tenant.space.clone(),
            account: to_json(&of.tenant.account)?,
            name: of.name.clone(),
            cluster_id: of.cluster.clone(),
            engine: of.engine.clone(),
            version: of.version.to_string(),
            units: i32::try_from(of.units).unwrap_or(i32::MAX),
            created_at: of.created_at.naive_utc(),
            deleted_at: of.deleted_at.naive_utc(),
            kept_until: of.kept_until.naive_utc(),
            final_backup_failure: of.final_backup_failure.clone(),
            restored_from: of.restored_from.as_ref().map(ToString::to_string),
        })
    }

    fn into_model(self) -> Result<DeletedInstance, StoreError> {
        Ok(DeletedInstance {
            deployment: parse("a deployment's id", &self.deployment_id)?,
            instance: parse("an instance's id", &self.instance_id)?,
            service_id: self.service_id,
            plan_id: self.plan_id,
            tenant: Tenant {
                platform: self.platform,
                organization: self.organization,
                space: self.space,
                account: from_json("an instance's account", &self.account)?,
            },
            name: self.name,
            cluster: self.cluster_id,
            engine: self.engine,
            version: parse("a deployment's version", &self.version)?,
            units: u32::try_from(self.units)
                .map_err(|e| StoreError::unreadable("a deployment's units", e))?,
            created_at: self.created_at.and_utc(),
            deleted_at: self.deleted_at.and_utc(),
            kept_until: self.kept_until.and_utc(),
            final_backup_failure: self.final_backup_failure,
            restored_from: self
                .restored_from
                .map(|id| parse("a deployment's id", &id))
                .transpose()?,
        })
    }
}

type LastInFront = (
    Desc<deleted_instances::deleted_at>,
    Desc<deleted_instances::deployment_id>,
);

/// The one that was deleted last in front.
fn last_in_front() -> LastInFront {
    (
        deleted_instances::deleted_at.desc(),
        deleted_instances::deployment_id.desc(),
    )
}

fn models(rows: Vec<Row>) -> Result<Vec<DeletedInstance>, StoreError> {
    rows.into_iter().map(Row::into_model).collect()
}

/// Adds one.
pub fn insert(conn: &mut Conn<'_>, deleted: &DeletedInstance) -> Result<(), StoreError> {
    let row = Row::from_model(deleted)?;
    let insert = diesel::insert_into(deleted_instances::table).values(row);
    each!(conn, |c| insert.execute(c))?;
    Ok(())
}

/// The one whose deployment that was.
pub fn find(
    conn: &mut Conn<'_>,
    deployment: &DeploymentId,
) -> Result<Option<DeletedInstance>, StoreError> {
    let row: Option<Row> = each!(conn, |c| deleted_instances::table
        .find(deployment.as_str())
        .first(c)
        .optional())?;
    row.map(Row::into_model).transpose()
}

/// Those that had an id, the one that was deleted last in front.
pub fn of_id(conn: &mut Conn<'_>, id: &InstanceId) -> Result<Vec<DeletedInstance>, StoreError> {
    models(each!(conn, |c| deleted_instances::table
        .filter(deleted_instances::instance_id.eq(id.as_str()))
        .order(last_in_front())
        .load(c))?)
}

/// Those that were made of a deployment's backups, the one that was deleted last in front, at most `limit`.
pub fn restored_from(
    conn: &mut Conn<'_>,
    source: &DeploymentId,
    limit: i64,
) -> Result<Vec<DeletedInstance>, StoreError> {
    models(each!(conn, |c| deleted_instances::table
        .filter(deleted_instances::restored_from.eq(source.as_str()))
        .order(last_in_front())
        .limit(limit)
        .load(c))?)
}

/// All of them, the one that was deleted last in front.
pub fn newest(
    conn: &mut Conn<'_>,
    skipped: usize,
    most: usize,
) -> Result<Vec<DeletedInstance>, StoreError> {
    let limit = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    models(each!(conn, |c| deleted_instances::table
        .order(last_in_front())
        .limit(limit(most))
        .offset(limit(skipped))
        .load(c))?)
}

/// Those whose time is over at `now`, the longest in front, at most `limit`.
pub fn due_to_go(
    conn: &mut Conn<'_>,
    now: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<DeletedInstance>, StoreError> {
    models(each!(conn, |c| deleted_instances::table
        .filter(deleted_instances::kept_until.le(now.naive_utc()))
        .order((
            deleted_instances::kept_until,
            deleted_instances::deployment_id
        ))
        .limit(limit)
        .load(c))?)
}

/// Has the time of one be over at `at`.
pub fn end_at(
    conn: &mut Conn<'_>,
    deployment: &DeploymentId,
    at: DateTime<Utc>,
) -> Result<(), StoreError> {
    each!(conn, |c| diesel::update(
        deleted_instances::table.find(deployment.as_str())
    )
    .set(deleted_instances::kept_until.eq(at.naive_utc()))
    .execute(c))?;
    Ok(())
}

/// Has the time of a tenant's be over at `at` but for the `most` that were deleted last.
pub fn end_oldest(
    conn: &mut Conn<'_>,
    tenant: &Tenant,
    most: usize,
    at: DateTime<Utc>,
) -> Result<(), StoreError> {
    let account = to_json(&tenant.account)?;
    let over: Vec<String> = each!(conn, |c| deleted_instances::table
        .filter(deleted_instances::platform.eq(&tenant.platform))
        .filter(deleted_instances::organization.eq(&tenant.organization))
        .filter(deleted_instances::space.eq(&tenant.space))
        .filter(deleted_instances::account.eq(&account))
        .filter(deleted_instances::kept_until.gt(at.naive_utc()))
        .order(last_in_front())
        .offset(i64::try_from(most).unwrap_or(i64::MAX))
        .limit(i64::MAX)
        .select(deleted_instances::deployment_id)
        .load(c))?;
    each!(conn, |c| diesel::update(
        deleted_instances::table.filter(deleted_instances::deployment_id.eq_any(&over))
    )
    .set(deleted_instances::kept_until.eq(at.naive_utc()))
    .execute(c))?;
    Ok(())
}

/// Removes one; tells whether it was there.
pub fn delete(conn: &mut Conn<'_>, deployment: &DeploymentId) -> Result<bool, StoreError> {
    let deleted = each!(conn, |c| diesel::delete(
        deleted_instances::table.find(deployment.as_str())
    )
    .execute(c))?;
    Ok(deleted == 1)
}
