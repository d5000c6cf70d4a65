//! Members that are replaced: as an operator asks for it, or as the watchdog finds it.

use super::{BrokerError, ready::ready_database, upkeep::Upkeep};
use crate::{
    model::{
        alert::RepairWatch,
        deployment::Deployment,
        ids::InstanceId,
        limits::{REPAIRS_COUNTED, REPAIRS_MAX},
        operation::{Operation, OperationKind, OperationState},
        origin::Origin,
        repair::{Damage, Repair},
    },
    store::{self, Conn, StoreError},
};

/// What came of asking for a repair that the watchdog found to be needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepairBegun {
    /// It is queued.
    Begun,
    /// One is under way, or the instance is not in use.
    Waits,
    /// So many were begun lately that somebody must look at it.
    TooOften,
}

impl Upkeep {
    /// Accepts to replace a member of an instance. While that goes on, tells of it.
    pub async fn repair(
        &self,
        instance: InstanceId,
        member: String,
        origin: Origin,
    ) -> Result<Operation, BrokerError> {
        let now = self.clock.now();
        self.store
            .decide(move |conn| {
                let deployment = usable(conn, &instance)?;
                if deployment.place_of(&member).is_none() {
                    let names = deployment.members.iter().map(|m| m.name.as_str());
                    let names: Vec<&str> = names.collect();
                    return Err(BrokerError::BadRequest(format!(
                        "there is no member {member:?}; there are {}",
                        names.join(", ")
                    )));
                }
                if let Some(running) =
                    store::operation::under_way(conn, &instance, OperationKind::Repair)?
                {
                    let same = running.repair.as_ref().is_some_and(|r| r.member == member);
                    if same {
                        return Ok(running);
                    }
                    let reason = "another member is being replaced; try again when that is done";
                    return Err(BrokerError::Concurrency(reason.to_owned()));
                }
                let because = Damage::Ordered;
                let operation = Operation {
                    repair: Some(Repair {
                        member: member.clone(),
                        because,
                    }),
                    ..Operation::queued(OperationKind::Repair, &instance, origin, now)
                };
                queue_repair(conn, operation)
            })
            .await
    }

    /// Has a member replaced that was found to be damaged, unless that was done too often lately.
    pub async fn repair_damaged(
        &self,
        of: &Deployment,
        repair: Repair,
    ) -> Result<RepairBegun, BrokerError> {
        let (of, now) = (of.clone(), self.clock.now());
        self.store
            .decide(move |conn| {
                match usable(conn, &of.instance) {
                    Ok(deployment) if deployment.id == of.id => {}
                    Ok(_) | Err(BrokerError::Concurrency(_) | BrokerError::NotFound(_)) => {
                        return Ok(RepairBegun::Waits);
                    }
                    Err(other) => return Err(other),
                }
                if store::operation::is_active(conn, &of.instance, OperationKind::Repair)? {
                    return Ok(RepairBegun::Waits);
                }
                let since = now - REPAIRS_COUNTED;
                let lately =
                    store::operation::repairs_since(conn, &of.instance, Origin::Watchdog, since)?;
                if lately >= REPAIRS_MAX {
                    return Ok(RepairBegun::TooOften);
                }
                let operation = Operation {
                    repair: Some(repair.clone()),
                    ..Operation::queued(OperationKind::Repair, &of.instance, Origin::Watchdog, now)
                };
                queue_repair(conn, operation)?;
                Ok(RepairBegun::Begun)
            })
            .await
    }
}

/// The deployment of an instance that is in use.
pub(super) fn usable(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
) -> Result<Deployment, BrokerError> {
    let found = ready_database(conn, instance, "nothing of it can be repaired");
    Ok(found?.1)
}

fn queue_repair(conn: &mut Conn<'_>, operation: Operation) -> Result<Operation, BrokerError> {
    let key = format!("repair {}", operation.instance);
    store::operation::insert(conn, &operation, Some(&key))?;
    Ok(operation)
}

/// The replacement of a member that users are told of: one that is under way, or the last one while it
/// failed not long ago.
pub(super) fn watch(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
    now: chrono::DateTime<chrono::Utc>,
) -> Result<Option<RepairWatch>, StoreError> {
    let kinds = [OperationKind::Repair];
    let newest = store::operation::newest(conn, instance, None, &kinds)?;
    Ok(newest.and_then(|operation| {
        let failure = match operation.state {
            OperationState::Queued | OperationState::Running => None,
            OperationState::Failed | OperationState::Stuck
                if now - operation.updated_at < REPAIRS_COUNTED =>
            {
                Some(operation.failure.unwrap_or_default())
            }
            _ => return None,
        };
        let repair = operation.repair?;
        Some(RepairWatch { repair, failure })
    }))
}
