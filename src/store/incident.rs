//! Rows of what befell databases.

use chrono::{DateTime, NaiveDateTime, Utc};
use diesel::prelude::*;

use super::{Conn, StoreError, each, schema::incidents};
use crate::model::{alert::Incident, ids::DeploymentId, limits::INCIDENTS_TOLD_MAX};

/// Writes down what befell a database. A tenant who brings it about may do so again and again: what was
/// told before is told anew, and only the newest are kept.
pub fn add(
    conn: &mut Conn<'_>,
    deployment: &DeploymentId,
    incident: &Incident,
) -> Result<(), StoreError> {
    each!(conn, |c| diesel::delete(
        incidents::table
            .filter(incidents::deployment_id.eq(deployment.as_str()))
            .filter(incidents::message.eq(&incident.message))
    )
    .execute(c))?;
    each!(conn, |c| diesel::insert_into(incidents::table)
        .values((
            incidents::deployment_id.eq(deployment.as_str()),
            incidents::at.eq(incident.at.naive_utc()),
            incidents::message.eq(&incident.message),
        ))
        .execute(c))?;
    let kept: Vec<i64> = each!(conn, |c| incidents::table
        .filter(incidents::deployment_id.eq(deployment.as_str()))
        .order(incidents::id.desc())
        .select(incidents::id)
        .limit(INCIDENTS_TOLD_MAX)
        .load(c))?;
    each!(conn, |c| diesel::delete(
        incidents::table
            .filter(incidents::deployment_id.eq(deployment.as_str()))
            .filter(incidents::id.ne_all(&kept))
    )
    .execute(c))?;
    Ok(())
}

/// What befell a database since a moment, newest first.
pub fn since(
    conn: &mut Conn<'_>,
    deployment: &DeploymentId,
    moment: DateTime<Utc>,
) -> Result<Vec<Incident>, StoreError> {
    let rows: Vec<(NaiveDateTime, String)> = each!(conn, |c| incidents::table
        .filter(incidents::deployment_id.eq(deployment.as_str()))
        .filter(incidents::at.ge(moment.naive_utc()))
        .order(incidents::id.desc())
        .select((incidents::at, incidents::message))
        .load(c))?;
    let incident = |(at, message): (NaiveDateTime, String)| Incident {
        at: at.and_utc(),
        message,
    };
    Ok(rows.into_iter().map(incident).collect())
}

/// Removes what befell a database.
pub fn forget(conn: &mut Conn<'_>, deployment: &DeploymentId) -> Result<(), StoreError> {
    each!(conn, |c| diesel::delete(
        incidents::table.filter(incidents::deployment_id.eq(deployment.as_str()))
    )
    .execute(c))?;
    Ok(())
}
