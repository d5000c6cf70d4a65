//! Backups that users bring along, as far as they have come.

use chrono::{DateTime, NaiveDateTime, Utc};
use diesel::prelude::*;

use super::{
    Conn, StoreError, each, from_json, parse,
    schema::{upload_parts, uploads},
    to_json,
};
use crate::model::{
    ids::{BackupId, InstanceId, PartId},
    upload::{Part, Upload},
};

#[derive(Queryable, Insertable)]
#[diesel(table_name = uploads)]
struct Row {
    backup_id: String,
    instance_id: String,
    deployment_id: String,
    bytes: i64,
    sha256: Option<String>,
    version: String,
    received: i64,
    touched_at: NaiveDateTime,
}

#[derive(Queryable, Insertable)]
#[diesel(table_name = upload_parts)]
struct PartRow {
    id: String,
    backup_id: String,
    at: i64,
    stored: String,
    sealed_key: String,
}

/// Lengths are far below what a column holds.
fn column(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn length(bytes: i64) -> Result<u64, StoreError> {
    u64::try_from(bytes).map_err(|e| StoreError::unreadable("the length of an upload", e))
}

impl Row {
    fn into_model(self) -> Result<Upload, StoreError> {
        Ok(Upload {
            backup: parse("a backup's id", &self.backup_id)?,
            instance: parse("an instance's id", &self.instance_id)?,
            deployment: parse("a deployment's id", &self.deployment_id)?,
            bytes: length(self.bytes)?,
            sha256: self.sha256,
            version: parse("an upload's version", &self.version)?,
            received: length(self.received)?,
            touched_at: self.touched_at.and_utc(),
        })
    }
}

fn models(rows: Vec<Row>) -> Result<Vec<Upload>, StoreError> {
    rows.into_iter().map(Row::into_model).collect()
}

/// Adds an upload.
pub fn insert(conn: &mut Conn<'_>, upload: &Upload) -> Result<(), StoreError> {
    let row = Row {
        backup_id: upload.backup.to_string(),
        instance_id: upload.instance.to_string(),
        deployment_id: upload.deployment.to_string(),
        bytes: column(upload.bytes),
        sha256: upload.sha256.clone(),
        version: upload.version.to_string(),
        received: column(upload.received),
        touched_at: upload.touched_at.naive_utc(),
    };
    each!(conn, |c| diesel::insert_into(uploads::table)
        .values(row)
        .execute(c))?;
    Ok(())
}

/// The upload that becomes that backup.
pub fn find(conn: &mut Conn<'_>, backup: &BackupId) -> Result<Option<Upload>, StoreError> {
    let row: Option<Row> = each!(conn, |c| uploads::table
        .find(backup.as_str())
        .first(c)
        .optional())?;
    row.map(Row::into_model).transpose()
}

/// The uploads of an instance, the oldest in front.
pub fn of_instance(conn: &mut Conn<'_>, instance: &InstanceId) -> Result<Vec<Upload>, StoreError> {
    models(each!(conn, |c| uploads::table
        .filter(uploads::instance_id.eq(instance.as_str()))
        .order(uploads::backup_id)
        .load(c))?)
}

/// All uploads.
pub fn all(conn: &mut Conn<'_>) -> Result<Vec<Upload>, StoreError> {
    models(each!(conn, |c| uploads::table
        .order(uploads::backup_id)
        .load(c))?)
}

/// The bytes that uploads take yet: what has not come, and all of it once more when it is put together.
pub fn promised_bytes(conn: &mut Conn<'_>) -> Result<u64, StoreError> {
    let all = all(conn)?;
    let promised = all
        .iter()
        .map(|of| of.bytes.saturating_mul(2).saturating_sub(of.received));
    Ok(promised.fold(0, u64::saturating_add))
}

/// Has the next look end an upload, whenever the last of it came.
pub fn forsake(conn: &mut Conn<'_>, backup: &BackupId) -> Result<(), StoreError> {
    each!(conn, |c| diesel::update(
        uploads::table.find(backup.as_str())
    )
    .set(uploads::touched_at.eq(DateTime::UNIX_EPOCH.naive_utc()))
    .execute(c))?;
    Ok(())
}

/// Keeps the key to a part, sealed anew.
pub fn set_sealed_key(conn: &mut Conn<'_>, part: &PartId, sealed: &str) -> Result<(), StoreError> {
    each!(conn, |c| diesel::update(
        upload_parts::table.find(part.as_str())
    )
    .set(upload_parts::sealed_key.eq(sealed))
    .execute(c))?;
    Ok(())
}

/// The uploads that are not whole and to which nothing has come since `before`, at most `limit`.
pub fn silent_since(
    conn: &mut Conn<'_>,
    before: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<Upload>, StoreError> {
    models(each!(conn, |c| uploads::table
        .filter(uploads::touched_at.le(before.naive_utc()))
        .filter(uploads::received.lt(uploads::bytes))
        .order((uploads::touched_at, uploads::backup_id))
        .limit(limit)
        .load(c))?)
}

/// Adds a part, with which the upload is as `upload` tells.
pub fn add(conn: &mut Conn<'_>, upload: &Upload, part: &Part) -> Result<(), StoreError> {
    let row = PartRow {
        id: part.id.to_string(),
        backup_id: upload.backup.to_string(),
        at: column(part.at),
        stored: to_json(&part.stored)?,
        sealed_key: part.sealed_key.clone(),
    };
    each!(conn, |c| diesel::insert_into(upload_parts::table)
        .values(row)
        .execute(c))?;
    each!(conn, |c| diesel::update(
        uploads::table.find(upload.backup.as_str())
    )
    .set((
        uploads::received.eq(column(upload.received)),
        uploads::touched_at.eq(upload.touched_at.naive_utc()),
    ))
    .execute(c))?;
    Ok(())
}

/// The parts of an upload, in their order.
pub fn parts(conn: &mut Conn<'_>, backup: &BackupId) -> Result<Vec<Part>, StoreError> {
    let rows: Vec<PartRow> = each!(conn, |c| upload_parts::table
        .filter(upload_parts::backup_id.eq(backup.as_str()))
        .order(upload_parts::at)
        .load(c))?;
    let parts = rows.into_iter().map(|row| {
        Ok(Part {
            id: parse("a part's id", &row.id)?,
            at: length(row.at)?,
            stored: from_json("a part of an upload", &row.stored)?,
            sealed_key: row.sealed_key,
        })
    });
    parts.collect()
}

/// Forgets an upload.
pub fn delete(conn: &mut Conn<'_>, backup: &BackupId) -> Result<(), StoreError> {
    each!(conn, |c| diesel::delete(
        upload_parts::table.filter(upload_parts::backup_id.eq(backup.as_str()))
    )
    .execute(c))?;
    each!(conn, |c| diesel::delete(
        uploads::table.find(backup.as_str())
    )
    .execute(c))?;
    Ok(())
}

/// Forgets the uploads of an instance.
pub fn delete_of_instance(conn: &mut Conn<'_>, instance: &InstanceId) -> Result<(), StoreError> {
    for upload in of_instance(conn, instance)? {
        delete(conn, &upload.backup)?;
    }
    Ok(())
}
