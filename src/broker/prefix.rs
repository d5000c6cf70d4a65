//! Accepts to put a part of a running database back from one of its backups.

use super::{
    BrokerError, DeploymentView, Upkeep,
    backup::queue_safety_backup,
    ready::ready_database,
    source::{Source, chosen},
    tenant_key::{self, PrivateKey},
};
use crate::{
    model::{
        choice::BackupChoice,
        deployment::Deployment,
        ids::InstanceId,
        instance::Instance,
        operation::{Operation, OperationKind},
        origin::Origin,
        prefix::PrefixRestore,
        tenant::RestoreScope,
    },
    seal::KeyRing,
    store::{self, Conn},
};

const KIND: OperationKind = OperationKind::RestorePrefix;

impl Upkeep {
    /// Accepts to put back what keys with a prefix were in a backup of the instance `source`, or only to compare;
    /// `backup`, `restore_time` and the private key are as in the parameters of a provision. A backup is taken before anything is
    /// changed. While the same is being done, tells of that. Refused while too few members serve, and where the
    /// source is none that the owner of `of` may restore from.
    pub async fn restore_prefix(
        &self,
        of: &DeploymentView,
        source: InstanceId,
        (backup, restore_time, key): (String, Option<String>, PrivateKey),
        wanted: PrefixRestore,
        origin: Origin,
    ) -> Result<Operation, BrokerError> {
        let choice = BackupChoice::read(Some(&backup), restore_time.as_deref())?;
        let choice = choice.ok_or_else(|| {
            BrokerError::BadRequest("a restore needs the id of a backup, or latest".to_owned())
        })?;
        self.needs_members(of).await?;
        let (instance, now) = (of.instance.id.clone(), self.clock.now());
        let (scope, ring) = (self.restore_scope, self.keys.clone());
        let decide = move |conn: &mut Conn<'_>| {
            let operation = Operation {
                prefix_restore: Some(wanted.clone()),
                ..Operation::queued(KIND, &instance, origin, now)
            };
            accept(conn, operation, (&source, scope), &choice, (&key, &ring))
        };
        self.store.decide(decide).await
    }
}

fn accept(
    conn: &mut Conn<'_>,
    mut operation: Operation,
    (source, scope): (&InstanceId, RestoreScope),
    choice: &BackupChoice,
    (key, ring): (&PrivateKey, &KeyRing),
) -> Result<Operation, BrokerError> {
    let (instance, deployment) = open(conn, &operation)?;
    let found = store::instance::find(conn, source)?;
    let found = found.filter(|of| may_take(&instance, of, scope));
    let source = found.ok_or_else(|| {
        BrokerError::BadRequest(format!(
            "keys of {:?} cannot be put into {:?}: they are not of one owner and one service",
            source.as_str(),
            instance.id.as_str()
        ))
    })?;
    let manifest = chosen(conn, &Source::from(&source), choice)?;
    operation.backup = Some(manifest.backup_id.clone());
    if let Some(running) = store::operation::under_way(conn, &instance.id, KIND)? {
        let asks = |of: &Operation| of.prefix_restore.clone();
        let same = asks(&running).zip(asks(&operation));
        if running.backup == operation.backup && same.is_some_and(|(a, b)| a.asks_as(&b)) {
            return Ok(running);
        }
        let reason =
            "keys of this database are being restored or compared; try again when that is done";
        return Err(BrokerError::Concurrency(reason.to_owned()));
    }
    let key = tenant_key::opened(Some(&manifest), key)?;
    operation.source = Some(tenant_key::source_of(&operation, manifest, key, ring)?);
    if let Some(wanted) = operation.prefix_restore.as_mut().filter(|w| !w.dry_run) {
        let of = (&instance.id, &deployment.id);
        let (id, origin, now) = (&operation.id, operation.origin, operation.created_at);
        wanted.safety_backup = queue_safety_backup(conn, of, id, origin, now)?.backup;
    }
    let key = format!("restore of keys {}", instance.id);
    store::operation::insert(conn, &operation, Some(&key))?;
    Ok(operation)
}

/// Whether an instance may take what is in the backups of another one, or of its own.
fn may_take(into: &Instance, of: &Instance, scope: RestoreScope) -> bool {
    let is_same_service = into.service_id == of.service_id;
    into.id == of.id || (is_same_service && into.tenant.may_restore_from(&of.tenant, scope))
}

/// The instance, when its users can use it.
fn open(conn: &mut Conn<'_>, operation: &Operation) -> Result<(Instance, Deployment), BrokerError> {
    let so = "there is nothing to put keys back into";
    let (instance, deployment) = ready_database(conn, &operation.instance, so)?;
    let changes = operation
        .prefix_restore
        .as_ref()
        .is_some_and(|w| !w.dry_run);
    if changes && deployment.closed_since.is_some() {
        let reason =
            "the database is full and closed to its users; make room before keys are put back";
        return Err(BrokerError::Concurrency(reason.to_owned()));
    }
    Ok((instance, deployment))
}
