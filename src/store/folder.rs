//! Rows of the folders that the broker keeps things in, and whether the store is a new one.

use std::collections::BTreeMap;

use diesel::prelude::*;

use super::{
    Conn, StoreError, each, parse,
    schema::{audit, folders, instances, operations},
};
use crate::model::{ids::FolderMark, marker::FolderName};

/// The ids of the folders that are known, by the folders' names.
pub fn known(conn: &mut Conn<'_>) -> Result<BTreeMap<String, FolderMark>, StoreError> {
    let rows: Vec<(String, String)> = each!(conn, |c| folders::table.load(c))?;
    let ids = rows.into_iter();
    ids.map(|(name, id)| Ok((name, parse("a folder's id", &id)?)))
        .collect()
}

/// Keeps the id of a folder.
pub fn know(conn: &mut Conn<'_>, name: &FolderName, id: &FolderMark) -> Result<(), StoreError> {
    let name = name.to_string();
    each!(conn, |c| diesel::delete(folders::table.find(&name))
        .execute(c))?;
    each!(conn, |c| diesel::insert_into(folders::table)
        .values((folders::name.eq(&name), folders::marker.eq(id.as_str())))
        .execute(c))?;
    Ok(())
}

/// Keeps the id of a folder that none is known of. Returns the one that is known from now on: of several brokers
/// the first one's.
pub fn know_first(
    conn: &mut Conn<'_>,
    name: &FolderName,
    id: &FolderMark,
) -> Result<FolderMark, StoreError> {
    if let Some(first) = known(conn)?.remove(&name.to_string()) {
        return Ok(first);
    }
    know(conn, name, id)?;
    Ok(id.clone())
}

/// Whether no broker has ever kept anything here.
pub fn is_unused(conn: &mut Conn<'_>) -> Result<bool, StoreError> {
    let counts: [i64; 4] = [
        each!(conn, |c| folders::table.count().get_result(c))?,
        each!(conn, |c| instances::table.count().get_result(c))?,
        each!(conn, |c| operations::table.count().get_result(c))?,
        each!(conn, |c| audit::table.count().get_result(c))?,
    ];
    Ok(counts == [0; 4])
}
