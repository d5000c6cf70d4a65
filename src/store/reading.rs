//! Rows of how databases were over time: one for each deployment.

use diesel::prelude::*;

use super::{
    Conn, StoreError, each, from_json,
    schema::{deployments, readings},
    to_json,
};
use crate::model::{
    history::{History, Reading},
    ids::DeploymentId,
};

/// How a database was over time.
pub fn of(conn: &mut Conn<'_>, deployment: &DeploymentId) -> Result<History, StoreError> {
    let found: Option<String> = each!(conn, |c| readings::table
        .find(deployment.as_str())
        .select(readings::kept)
        .first(c)
        .optional())?;
    let history = found.map(|text| from_json("a database's history", &text));
    Ok(history.transpose()?.unwrap_or_default())
}

/// Adds a reading of a database that is there.
pub fn note(
    conn: &mut Conn<'_>,
    deployment: &DeploymentId,
    reading: Reading,
) -> Result<(), StoreError> {
    let there: Option<String> = each!(conn, |c| deployments::table
        .find(deployment.as_str())
        .select(deployments::id)
        .first(c)
        .optional())?;
    if there.is_none() {
        return Ok(());
    }
    let mut history = of(conn, deployment)?;
    history.note(reading);
    let text = to_json(&history)?;
    forget(conn, deployment)?;
    each!(conn, |c| diesel::insert_into(readings::table)
        .values((
            readings::deployment_id.eq(deployment.as_str()),
            readings::kept.eq(&text),
        ))
        .execute(c))?;
    Ok(())
}

/// Forgets how a database was.
pub fn forget(conn: &mut Conn<'_>, deployment: &DeploymentId) -> Result<(), StoreError> {
    each!(conn, |c| diesel::delete(
        readings::table.find(deployment.as_str())
    )
    .execute(c))?;
    Ok(())
}
