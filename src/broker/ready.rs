//! Instances that their users can use.

use super::BrokerError;
use crate::{
    model::{
        deployment::Deployment,
        ids::InstanceId,
        instance::{Instance, InstanceState},
    },
    store::{self, Conn, StoreError},
};

/// The instance, when it can be used; else `so` says what it is that cannot be done.
pub(super) fn ready(
    conn: &mut Conn<'_>,
    id: &InstanceId,
    so: &str,
) -> Result<Instance, BrokerError> {
    let found = store::instance::find(conn, id)?;
    let instance =
        found.ok_or_else(|| BrokerError::NotFound("there is no such instance".to_owned()))?;
    if instance.state != InstanceState::Ready {
        let reason = format!("the instance is not ready, so {so}");
        return Err(BrokerError::Concurrency(reason));
    }
    Ok(instance)
}

/// The same with its database.
pub(super) fn ready_database(
    conn: &mut Conn<'_>,
    id: &InstanceId,
    so: &str,
) -> Result<(Instance, Deployment), BrokerError> {
    let instance = ready(conn, id, so)?;
    let found = store::deployment::of_instance(conn, id)?;
    let (deployment, _) =
        found.ok_or_else(|| StoreError::Missing("the instance's deployment".to_owned()))?;
    Ok((instance, deployment))
}
