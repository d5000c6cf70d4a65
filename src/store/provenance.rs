//! Rows of what instances were restored from.

use chrono::NaiveDateTime;
use diesel::prelude::*;

use super::{Conn, StoreError, each, parse, schema::provenances};
use crate::model::{
    ids::{DeploymentId, InstanceId},
    provenance::Provenance,
};

#[derive(Queryable, Insertable)]
#[diesel(table_name = provenances)]
struct Row {
    instance_id: String,
    source_instance: String,
    source_deployment: String,
    source_name: Option<String>,
    backup_id: String,
    taken_at: NaiveDateTime,
}

/// Writes down what an instance is restored from.
pub fn insert(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
    of: &Provenance,
) -> Result<(), StoreError> {
    let row = Row {
        instance_id: instance.to_string(),
        source_instance: of.instance.to_string(),
        source_deployment: of.deployment.to_string(),
        source_name: of.name.clone(),
        backup_id: of.backup.to_string(),
        taken_at: of.taken_at.naive_utc(),
    };
    let insert = diesel::insert_into(provenances::table).values(row);
    each!(conn, |c| insert.execute(c))?;
    Ok(())
}

/// What an instance was restored from; none, where it was made empty.
pub fn of(conn: &mut Conn<'_>, instance: &InstanceId) -> Result<Option<Provenance>, StoreError> {
    let row: Option<Row> = each!(conn, |c| provenances::table
        .find(instance.as_str())
        .first(c)
        .optional())?;
    let read = |row: Row| {
        Ok(Provenance {
            instance: parse("an instance's id", &row.source_instance)?,
            deployment: parse("a deployment's id", &row.source_deployment)?,
            name: row.source_name,
            backup: parse("a backup's id", &row.backup_id)?,
            taken_at: row.taken_at.and_utc(),
        })
    };
    row.map(read).transpose()
}

/// The instances that were restored from a deployment's backups.
pub fn restored_from(
    conn: &mut Conn<'_>,
    deployment: &DeploymentId,
) -> Result<Vec<InstanceId>, StoreError> {
    let ids: Vec<String> = each!(conn, |c| provenances::table
        .filter(provenances::source_deployment.eq(deployment.as_str()))
        .select(provenances::instance_id)
        .load(c))?;
    ids.iter().map(|id| parse("an instance's id", id)).collect()
}

/// Writes down what the source of instances is called, as long as that is known.
pub fn rename_source(
    conn: &mut Conn<'_>,
    deployment: &DeploymentId,
    name: Option<&str>,
) -> Result<(), StoreError> {
    each!(conn, |c| diesel::update(provenances::table.filter(
        provenances::source_deployment.eq(deployment.as_str())
    ))
    .set(provenances::source_name.eq(name))
    .execute(c))?;
    Ok(())
}

/// Forgets what an instance was restored from.
pub fn forget(conn: &mut Conn<'_>, instance: &InstanceId) -> Result<(), StoreError> {
    each!(conn, |c| diesel::delete(
        provenances::table.find(instance.as_str())
    )
    .execute(c))?;
    Ok(())
}
