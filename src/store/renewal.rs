//! Rows of when certificates are renewed.

use chrono::{DateTime, NaiveDateTime, Utc};
use diesel::prelude::*;

use super::{
    Conn, StoreError, each, parse,
    schema::{deployments, instances, renewals},
};
use crate::model::{
    ids::{DeploymentId, InstanceId},
    instance::InstanceState,
    renewal::Outlook,
};

/// Keeps what lies ahead of the certificates of a deployment.
pub fn set(
    conn: &mut Conn<'_>,
    deployment: &DeploymentId,
    outlook: &Outlook,
) -> Result<(), StoreError> {
    forget(conn, deployment)?;
    each!(conn, |c| diesel::insert_into(renewals::table)
        .values((
            renewals::deployment_id.eq(deployment.as_str()),
            renewals::due_at.eq(outlook.due_at.naive_utc()),
            renewals::ends_at.eq(outlook.ends_at.naive_utc()),
            renewals::changes_at.eq(outlook.changes_at.map(|at| at.naive_utc())),
        ))
        .execute(c))?;
    Ok(())
}

/// Puts the next renewal of a deployment off.
pub fn put_off(
    conn: &mut Conn<'_>,
    deployment: &DeploymentId,
    due_at: DateTime<Utc>,
) -> Result<(), StoreError> {
    each!(conn, |c| diesel::update(
        renewals::table.find(deployment.as_str())
    )
    .set(renewals::due_at.eq(due_at.naive_utc()))
    .execute(c))?;
    Ok(())
}

/// What lies ahead of the certificates of a deployment; none where nobody has looked yet.
pub fn find(conn: &mut Conn<'_>, deployment: &DeploymentId) -> Result<Option<Outlook>, StoreError> {
    let row: Option<(NaiveDateTime, NaiveDateTime, Option<NaiveDateTime>)> =
        each!(conn, |c| renewals::table
            .find(deployment.as_str())
            .select((renewals::due_at, renewals::ends_at, renewals::changes_at))
            .first(c)
            .optional())?;
    Ok(row.map(|(due_at, ends_at, changes_at)| Outlook {
        due_at: due_at.and_utc(),
        ends_at: ends_at.and_utc(),
        changes_at: changes_at.map(|at| at.and_utc()),
    }))
}

/// Deployments in use whose renewal is due, at most `limit`, the most urgent in front.
pub fn due(
    conn: &mut Conn<'_>,
    now: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<(InstanceId, DeploymentId)>, StoreError> {
    let rows: Vec<(String, String)> = each!(conn, |c| renewals::table
        .inner_join(deployments::table.on(deployments::id.eq(renewals::deployment_id)))
        .inner_join(instances::table.on(instances::id.eq(deployments::instance_id)))
        .filter(instances::state.eq(InstanceState::Ready.as_str()))
        .filter(renewals::due_at.le(now.naive_utc()))
        .order(renewals::due_at)
        .limit(limit)
        .select((instances::id, deployments::id))
        .load(c))?;
    with_ids(&rows)
}

/// Deployments that have secrets and no row here, since an earlier version of the broker made them: those
/// after `after` by id, at most `limit`, with their instances.
pub fn missing(
    conn: &mut Conn<'_>,
    after: Option<&DeploymentId>,
    limit: i64,
) -> Result<Vec<(InstanceId, DeploymentId)>, StoreError> {
    let rows: Vec<(String, String)> = each!(conn, |c| deployments::table
        .left_join(renewals::table.on(deployments::id.eq(renewals::deployment_id)))
        .filter(deployments::id.gt(after.map_or("", DeploymentId::as_str)))
        .filter(deployments::sealed_secrets.is_not_null())
        .filter(renewals::deployment_id.nullable().is_null())
        .order(deployments::id)
        .limit(limit)
        .select((deployments::instance_id, deployments::id))
        .load(c))?;
    with_ids(&rows)
}

fn with_ids(rows: &[(String, String)]) -> Result<Vec<(InstanceId, DeploymentId)>, StoreError> {
    let ids = rows.iter().map(|(instance, id)| {
        Ok((
            parse("an instance's id", instance)?,
            parse("a deployment's id", id)?,
        ))
    });
    ids.collect()
}

/// Forgets when the certificates of a deployment are renewed.
pub fn forget(conn: &mut Conn<'_>, deployment: &DeploymentId) -> Result<(), StoreError> {
    each!(conn, |c| diesel::delete(
        renewals::table.find(deployment.as_str())
    )
    .execute(c))?;
    Ok(())
}
