//! Take and list backups.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};

use super::{BrokerError, BrokerParts, backup_key, ready::ready};
use crate::{
    clock::Clock,
    model::{
        backup::{Backup, BackupState},
        ids::{BackupId, DeploymentId, InstanceId, OperationId},
        limits::ON_DEMAND_IN_A_ROW,
        operation::{Operation, OperationKind},
        origin::Origin,
        period::{BackupKind, Period},
    },
    store::{self, Conn, Store, StoreError},
};

/// Backups of instances, as users ask for them.
pub struct Backups {
    store: Arc<Store>,
    clock: Clock,
    pause: Duration,
}

impl Backups {
    pub(super) fn new(parts: &BrokerParts) -> Self {
        Self {
            store: parts.store.clone(),
            clock: parts.clock.clone(),
            pause: parts.on_demand_pause,
        }
    }

    /// Accepts a backup of an instance. While one is being taken, tells of that one: clients
    /// repeat the request when they hear nothing. Fails when the last one was asked for not long ago.
    pub async fn back_up(
        &self,
        instance: InstanceId,
        origin: Origin,
    ) -> Result<Operation, BrokerError> {
        let (pause, now) = (self.pause, self.clock.now());
        self.store
            .decide(move |conn| back_up_in(conn, &instance, origin, pause, now))
            .await
    }

    /// The backups of an instance that are listed, newest first: expired ones are not.
    pub async fn backups(&self, instance: InstanceId) -> Result<Vec<Backup>, BrokerError> {
        Ok(self
            .store
            .scan(move |conn| store::backup::listed(conn, &instance))
            .await?)
    }

    /// One backup of an instance that is listed.
    pub async fn backup(&self, instance: InstanceId, id: BackupId) -> Result<Backup, BrokerError> {
        let found = self
            .store
            .read(move |conn| store::backup::find(conn, &id))
            .await?;
        found
            .filter(|b| b.instance == instance && b.state != BackupState::Expired)
            .ok_or_else(|| BrokerError::NotFound("there is no such backup".to_owned()))
    }
}

pub(super) fn back_up_in(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
    origin: Origin,
    pause: Duration,
    now: DateTime<Utc>,
) -> Result<Operation, BrokerError> {
    let instance = ready(conn, instance, "there is nothing to back up")?;
    let active = store::operation::active_on_instance(conn, &instance.id)?;
    for running in active
        .into_iter()
        .filter(|o| o.kind == OperationKind::Backup)
    {
        if !is_for_an_upgrade(conn, &running)? {
            return Ok(running);
        }
    }
    let first = store::backup::nth_on_demand(conn, &instance.id, ON_DEMAND_IN_A_ROW)?;
    if let Some(wait) = first.and_then(|first| wait_after(first, pause, now)) {
        return Err(BrokerError::TooSoon(wait));
    }
    let operation = queue_backup(conn, &instance.id, &instance.deployment, None, origin, now)?;
    Ok(operation)
}

/// How long the next on-demand backup has to wait, in whole seconds, when so many were asked for
/// since `first`. A clock that was set back holds nobody up.
fn wait_after(first: DateTime<Utc>, pause: Duration, now: DateTime<Utc>) -> Option<Duration> {
    let passed = (now - first).to_std().ok()?;
    let wait = (pause * ON_DEMAND_IN_A_ROW)
        .checked_sub(passed)
        .filter(|wait| !wait.is_zero())?;
    Some(Duration::from_secs(wait.as_secs() + 1))
}

/// Whether a backup is taken for an upgrade: it goes by itself, and is nobody's answer.
fn is_for_an_upgrade(conn: &mut Conn<'_>, operation: &Operation) -> Result<bool, StoreError> {
    let backup = match &operation.backup {
        Some(id) => store::backup::find(conn, id)?,
        None => None,
    };
    Ok(backup.is_some_and(|backup| backup.kind == BackupKind::Safety))
}

/// Queues a backup that is to be taken now: the one door for users and for the schedule.
pub(super) fn queue_backup(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
    deployment: &DeploymentId,
    period: Option<Period>,
    origin: Origin,
    now: DateTime<Utc>,
) -> Result<Operation, StoreError> {
    let key = backup_key(instance);
    let what = (period.map_or(BackupKind::OnDemand, Period::kind), period);
    insert_backup(conn, (instance, deployment), what, &key, origin, now)
}

/// The same for the backup before an upgrade, or another change that cannot be taken back. It is taken for
/// itself: one that is being taken already may be of long before the change begins. It waits for that one.
pub(super) fn queue_safety_backup(
    conn: &mut Conn<'_>,
    of: (&InstanceId, &DeploymentId),
    change: &OperationId,
    origin: Origin,
    now: DateTime<Utc>,
) -> Result<Operation, StoreError> {
    let key = format!("backup before {change}");
    insert_backup(conn, of, (BackupKind::Safety, None), &key, origin, now)
}

/// The same for the last backup of an instance, before it is deleted.
pub(super) fn queue_final_backup(
    conn: &mut Conn<'_>,
    (instance, deployment): (&InstanceId, &DeploymentId),
    origin: Origin,
    now: DateTime<Utc>,
) -> Result<Operation, StoreError> {
    let key = backup_key(instance);
    let what = (BackupKind::Final, None);
    insert_backup(conn, (instance, deployment), what, &key, origin, now)
}

/// `exclusive`: what nobody else may work on meanwhile.
fn insert_backup(
    conn: &mut Conn<'_>,
    (instance, deployment): (&InstanceId, &DeploymentId),
    (kind, period): (BackupKind, Option<Period>),
    exclusive: &str,
    origin: Origin,
    now: DateTime<Utc>,
) -> Result<Operation, StoreError> {
    let id = BackupId::generate(now);
    let operation = Operation {
        backup: Some(id.clone()),
        ..Operation::queued(OperationKind::that_takes(kind), instance, origin, now)
    };
    let of = (instance, deployment);
    let backup = Backup {
        period,
        ..Backup::asked_for(id, of, operation.id.clone(), kind, now)
    };
    store::backup::insert(conn, &backup)?;
    store::operation::insert(conn, &operation, Some(exclusive))?;
    Ok(operation)
}
