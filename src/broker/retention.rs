//! Asks for the end of backups that were marked as old enough to go, when their time has come.
//!
//! What becomes of them is decided anew then, by the operation that removes them.

use std::sync::Arc;

use super::{BrokerError, BrokerParts, deleted::DeletedInstances, due::Outcome};
use crate::{
    model::{
        ids::InstanceId,
        instance::InstanceState,
        limits::REMOVALS_AT_ONCE,
        operation::{Operation, OperationKind},
        origin::Origin,
        trust::Trusted,
    },
    store::{self, Conn, Store},
    timekeeper::Timekeeper,
};

/// Has backups removed whose time has come.
pub struct Retention {
    store: Arc<Store>,
    time: Arc<Timekeeper>,
    /// Those of instances that were deleted.
    pub deleted: DeletedInstances,
}

impl Retention {
    pub(super) fn new(parts: &BrokerParts) -> Self {
        Self {
            store: parts.store.clone(),
            time: parts.time.clone(),
            deleted: DeletedInstances::new(parts),
        }
    }

    /// Queues a prune of each instance with a backup whose time has come, unless the clock is in
    /// doubt; returns how many.
    pub async fn prune_due(&self) -> Result<usize, BrokerError> {
        let Some(now) = self.time.trusted() else {
            return Ok(0);
        };
        let due = self
            .store
            .read(move |conn| store::backup::due_to_go(conn, now, REMOVALS_AT_ONCE))
            .await?;
        let mut queued = Outcome::default();
        for instance in due {
            let decided = self.store.decide(move |conn| prune(conn, &instance, now));
            if !queued.goes_on(decided.await) {
                break;
            }
        }
        queued.end()
    }
}

/// Returns whether a prune was queued: one that is under way already, or the end of the instance,
/// sees to it as well.
fn prune(conn: &mut Conn<'_>, instance: &InstanceId, now: Trusted) -> Result<bool, BrokerError> {
    let found = store::instance::find(conn, instance)?;
    let is_ending = found.is_none_or(|found| found.state == InstanceState::Deleting);
    if is_ending || store::operation::is_active(conn, instance, OperationKind::Prune)? {
        return Ok(false);
    }
    let prune = Operation::queued(
        OperationKind::Prune,
        instance,
        Origin::Retention,
        now.time(),
    );
    store::operation::insert(conn, &prune, None)?;
    Ok(true)
}
