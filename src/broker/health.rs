//! What is read of an instance for its health, see [`crate::model::health`].

use chrono::{DateTime, Utc};

use super::{
    alert::{Beside, backup_watch, beside},
    inventory::Inventory,
    status::OF_INSTANCE,
};
use crate::{
    model::{
        alert::{BackupWatch, backup_late_at},
        backup::Backup,
        deployment::Deployment,
        health::Life,
        instance::{Instance, InstanceState},
        limits::STUCK_TOLD_MAX,
        operation::{Operation, OperationState},
    },
    store::{self, Conn, StoreError, oversight::Filter},
};

/// What is read of an instance for its health.
pub(super) struct Read {
    pub(super) life: Life,
    pub(super) backups: BackupWatch,
    pub(super) beside: Beside,
    /// The newest good backup.
    pub(super) newest: Option<Backup>,
}

/// Reads what the health of an instance goes by beside what members say.
pub(super) fn read(
    conn: &mut Conn<'_>,
    inventory: &Inventory,
    instance: &Instance,
    deployment: &Deployment,
    now: DateTime<Utc>,
) -> Result<Read, StoreError> {
    let complete = store::backup::complete_of(conn, &instance.id)?;
    Ok(Read {
        life: life(conn, instance)?,
        backups: backup_watch(conn, instance, &complete, inventory.promises(instance))?,
        beside: beside(conn, deployment, now)?,
        newest: (complete.into_iter())
            .filter(|backup| backup.kind.is_own())
            .max_by_key(Backup::taken_at),
    })
}

impl Read {
    /// Since when the scheduled backup of a usable instance is late; none where it is not.
    pub(super) fn late_since(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let is_ready = self.life.state == InstanceState::Ready;
        let late_at = is_ready.then(|| backup_late_at(&self.backups)).flatten();
        late_at.filter(|at| now >= *at)
    }
}

/// The same of an instance whose deployment is not read yet, with that; none where it has just gone.
pub(super) fn read_whole(
    conn: &mut Conn<'_>,
    inventory: &Inventory,
    instance: &Instance,
    now: DateTime<Utc>,
) -> Result<Option<(Deployment, Read)>, StoreError> {
    let Some((deployment, _)) = store::deployment::of_instance(conn, &instance.id)? else {
        return Ok(None);
    };
    let read = read(conn, inventory, instance, &deployment, now)?;
    Ok(Some((deployment, read)))
}

/// Reads where an instance is in its life.
pub(super) fn life(conn: &mut Conn<'_>, of: &Instance) -> Result<Life, StoreError> {
    let ended = store::operation::newest(conn, &of.id, None, &OF_INSTANCE)?;
    let is_failed = of.state == InstanceState::Failed;
    Ok(Life {
        state: of.state,
        created_at: of.created_at,
        under_way: store::operation::active_on_instance(conn, &of.id)?,
        stuck: stuck(conn, of)?,
        failed: ended.filter(|operation| is_failed && operation.failure.is_some()),
    })
}

/// What is stuck and has an instance's members in hand, unless the same was done since.
fn stuck(conn: &mut Conn<'_>, of: &Instance) -> Result<Vec<Operation>, StoreError> {
    let filter = Filter {
        state: Some(OperationState::Stuck),
        instance: Some(of.id.clone()),
        ..Filter::default()
    };
    let mut stuck = Vec::new();
    for seen in store::oversight::list(conn, &filter, STUCK_TOLD_MAX)? {
        let operation = seen.operation;
        let is_its = operation.ordinal >= of.ordinal && operation.kind.has_members_in_hand();
        if !is_its {
            continue;
        }
        let newest = store::operation::newest(conn, &of.id, None, &[operation.kind])?;
        if newest.is_some_and(|newest| newest.id == operation.id) {
            stuck.push(operation);
        }
    }
    Ok(stuck)
}
