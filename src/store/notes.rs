//! Rows of what users write down beside deployments.

use diesel::prelude::*;

use super::{Conn, StoreError, each, schema::notes};
use crate::model::{deployment::Notes, ids::DeploymentId};

/// What is written down beside a deployment.
pub fn of(conn: &mut Conn<'_>, deployment: &DeploymentId) -> Result<Notes, StoreError> {
    let found: Option<(String, String)> = each!(conn, |c| notes::table
        .find(deployment.as_str())
        .select((notes::text, notes::customer_billing_code))
        .first(c)
        .optional())?;
    let found = found.unwrap_or_default();
    Ok(Notes {
        text: found.0,
        billing_code: found.1,
    })
}

/// Keeps what is written down beside a deployment from now on.
pub fn set(
    conn: &mut Conn<'_>,
    deployment: &DeploymentId,
    wanted: &Notes,
) -> Result<(), StoreError> {
    forget(conn, deployment)?;
    each!(conn, |c| diesel::insert_into(notes::table)
        .values((
            notes::deployment_id.eq(deployment.as_str()),
            notes::text.eq(&wanted.text),
            notes::customer_billing_code.eq(&wanted.billing_code),
        ))
        .execute(c))?;
    Ok(())
}

/// Removes what is written down beside a deployment.
pub fn forget(conn: &mut Conn<'_>, deployment: &DeploymentId) -> Result<(), StoreError> {
    each!(conn, |c| diesel::delete(
        notes::table.find(deployment.as_str())
    )
    .execute(c))?;
    Ok(())
}
