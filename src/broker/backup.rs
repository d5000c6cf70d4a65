//! Take and list backups.

use super::{Broker, BrokerError, backup_key};
use crate::{
    model::{
        backup::{Backup, BackupKind, BackupState},
        ids::{BackupId, InstanceId},
        instance::InstanceState,
        operation::{Operation, OperationKind},
    },
    store::{self, Conn},
};

impl Broker {
    /// Accepts a backup of an instance. While one is being taken, tells of that one: clients
    /// repeat the request when they hear nothing.
    pub async fn back_up(
        &self,
        instance: InstanceId,
        kind: BackupKind,
        origin: &'static str,
    ) -> Result<Operation, BrokerError> {
        let now = self.clock.now();
        self.store
            .decide(move |conn| back_up_in(conn, &instance, kind, origin, now))
            .await
    }

    /// The backups of an instance that are listed, newest first: expired ones are not.
    pub async fn backups(&self, instance: InstanceId) -> Result<Vec<Backup>, BrokerError> {
        let backups = self
            .store
            .read(move |conn| store::backup::of_instance(conn, &instance))
            .await?;
        Ok(backups
            .into_iter()
            .filter(|b| b.state != BackupState::Expired)
            .collect())
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
    kind: BackupKind,
    origin: &'static str,
    now: chrono::DateTime<chrono::Utc>,
) -> Result<Operation, BrokerError> {
    let Some(instance) = store::instance::find(conn, instance)? else {
        return Err(BrokerError::NotFound(
            "there is no such instance".to_owned(),
        ));
    };
    if instance.state != InstanceState::Ready {
        return Err(BrokerError::Concurrency(
            "the instance is not ready, so there is nothing to back up".to_owned(),
        ));
    }
    let active = store::operation::active_on_instance(conn, &instance.id)?;
    if let Some(running) = active.into_iter().find(|o| o.kind == OperationKind::Backup) {
        return Ok(running);
    }
    let id = BackupId::generate(now);
    let operation = Operation {
        backup: Some(id.clone()),
        ..Operation::queued(OperationKind::Backup, &instance.id, origin, now)
    };
    let backup = Backup {
        id,
        instance: instance.id.clone(),
        deployment: instance.deployment,
        operation: operation.id.clone(),
        kind,
        state: BackupState::Pending,
        failure: None,
        created_at: now,
        finished_at: None,
        manifest: None,
    };
    store::backup::insert(conn, &backup)?;
    store::operation::insert(conn, &operation, Some(&backup_key(&instance.id)))?;
    Ok(operation)
}
