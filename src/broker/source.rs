//! What a restore may take its bytes from: the instance and the backup that a request names.

use super::{BrokerError, provision::Asker};
use crate::{
    model::{
        backup::{Backup, BackupState, Manifest},
        catalog::Offering,
        choice::{BackupChoice, ChoiceError},
        deleted::DeletedInstance,
        ids::{BackupId, DeploymentId, InstanceId},
        instance::{Instance, InstanceState},
        parameters::ProvisionParameters,
        period::BackupKind,
        retention::displaced_by,
        tenant::{RestoreScope, Tenant},
    },
    store::{self, Conn, StoreError},
};

/// The manifest of the backup that a provision request names; none when it names none.
pub(super) fn restore_source(
    conn: &mut Conn<'_>,
    asker: Asker<'_>,
    (tenant, scope): (&Tenant, RestoreScope),
    offering: &Offering,
    asked: &ProvisionParameters,
) -> Result<Option<Manifest>, BrokerError> {
    let refuse = |reason: String| Err(BrokerError::BadRequest(reason));
    let choice = BackupChoice::read(asked.backup_id.as_deref(), asked.restore_time.as_deref());
    let (source_id, choice) = match (&asked.source_service_instance_id, choice.transpose()) {
        (None, None) => return Ok(None),
        (Some(source), Some(backup)) => (source, backup),
        (Some(_), None) => {
            return refuse(
                "a restore needs backup_id beside source_service_instance_id: list the source's \
                 backups to find it, or give latest; or give restore_time, for the newest one from before"
                    .to_owned(),
            );
        }
        (None, Some(_)) => {
            return refuse(
                "a restore needs source_service_instance_id beside backup_id or restore_time: the id \
                 of the service instance that the backup was taken of"
                    .to_owned(),
            );
        }
    };
    if matches!(asker, Asker::Platform) && !tenant.is_told_apart(scope) {
        return refuse(format!(
            "nothing in the request tells you from others: organization_guid and space_guid \
             are placeholders, or words that the platform {:?} may send for everybody, and the \
             context has no id of a tenant. So the broker restores nothing for it; the operator \
             can name what tells tenants apart with COMPOSE_BROKER_TENANT_KEYS",
            tenant.platform
        ));
    }
    let may_restore = |of: &Tenant, deployment: &DeploymentId| match asker {
        Asker::Platform => tenant.may_restore_from(of, scope),
        Asker::Neighbour { source: own, .. } => *deployment == own.deployment,
    };
    let sources = sources(conn, may_restore, offering, source_id)?;
    let choice = choice?;
    let source = match &choice {
        BackupChoice::Given(id) => {
            let found = store::backup::find(conn, id)?;
            let is_of =
                |source: &&Source| found.as_ref().is_some_and(|b| b.instance == source.keeper);
            sources.iter().find(is_of)
        }
        BackupChoice::Latest { .. } => None,
    };
    let source = source
        .or(sources.first())
        .ok_or_else(|| unknown_source(source_id))?;
    chosen(conn, source, &choice).map(Some)
}

/// What bytes may be taken from: an instance that is there, or what is left of one that was deleted.
pub(super) struct Source {
    /// The platform's id of it.
    id: InstanceId,
    /// The instance that its backups are of, in the store.
    keeper: InstanceId,
}

impl From<&Instance> for Source {
    fn from(instance: &Instance) -> Self {
        Self {
            id: instance.id.clone(),
            keeper: instance.id.clone(),
        }
    }
}

impl From<DeletedInstance> for Source {
    fn from(deleted: DeletedInstance) -> Self {
        Self {
            keeper: deleted.keeper(),
            id: deleted.instance,
        }
    }
}

/// Everything of that id that the one who asks may restore from: the instance that is there, and before it those
/// that were deleted, the last one in front.
fn sources(
    conn: &mut Conn<'_>,
    may_restore: impl Fn(&Tenant, &DeploymentId) -> bool,
    offering: &Offering,
    source_id: &str,
) -> Result<Vec<Source>, BrokerError> {
    let is_allowed = |instance: &Instance| may_restore(&instance.tenant, &instance.deployment);
    let id: InstanceId = source_id.parse().map_err(|_| unknown_source(source_id))?;
    let mut deleted = store::deleted::of_id(conn, &id)?;
    deleted.retain(|of| may_restore(&of.tenant, &of.deployment));
    let found = match restorable(conn, is_allowed, offering, source_id) {
        Ok(instance) => Some(Source::from(&instance)),
        Err(BrokerError::BadRequest(_)) if !deleted.is_empty() => None,
        Err(refusal) => return Err(refusal),
    };
    for of in &deleted {
        check_service(offering, &of.service_id, source_id)?;
    }
    Ok(found
        .into_iter()
        .chain(deleted.into_iter().map(Source::from))
        .collect())
}

/// The manifest of the backup of an instance that is meant, when it can be restored.
pub(super) fn chosen(
    conn: &mut Conn<'_>,
    source: &Source,
    choice: &BackupChoice,
) -> Result<Manifest, BrokerError> {
    let (kind, until) = match choice {
        BackupChoice::Given(id) => return manifest_of(conn, source, id),
        BackupChoice::Latest { kind, until } => (*kind, *until),
    };
    let complete = store::backup::complete_of(conn, &source.keeper)?;
    let found = BackupChoice::newest(kind, until, &complete);
    found
        .and_then(|backup| backup.manifest.clone())
        .ok_or_else(|| {
            let kind = kind.map_or(String::new(), |kind| format!(" {kind}"));
            let until = until.map_or(String::new(), |until| {
                format!(" that was begun by {}", until.format("%Y-%m-%dT%H:%M:%SZ"))
            });
            BrokerError::BadRequest(format!(
                "the service instance {:?} has no complete{kind} backup{until}; list its backups and \
                 choose one of them, or take one",
                source.id.as_str()
            ))
        })
}

/// The instance of that id, when the one who asks may restore from it.
pub(super) fn restorable(
    conn: &mut Conn<'_>,
    may_restore: impl Fn(&Instance) -> bool,
    offering: &Offering,
    source_id: &str,
) -> Result<Instance, BrokerError> {
    let id: InstanceId = source_id.parse().map_err(|_| unknown_source(source_id))?;
    let source = store::instance::find(conn, &id)?
        .filter(|source| source.state == InstanceState::Ready)
        .filter(may_restore)
        .ok_or_else(|| unknown_source(source_id))?;
    check_service(offering, &source.service_id, source_id)?;
    Ok(source)
}

/// A foreign instance is answered exactly like an unknown one.
fn unknown_source(source_id: &str) -> BrokerError {
    BrokerError::BadRequest(format!(
        "source_service_instance_id {source_id:?} is no service instance that you can restore from; give the \
         id, not the name, of one of your own"
    ))
}

fn check_service(offering: &Offering, of: &str, source_id: &str) -> Result<(), BrokerError> {
    if of == offering.id {
        return Ok(());
    }
    Err(BrokerError::BadRequest(format!(
        "source_service_instance_id {source_id:?} is of another service than {}; restore it with the service \
         that it is of",
        offering.name
    )))
}

/// The manifest of a backup of an instance, when it can be restored.
pub(super) fn manifest_of(
    conn: &mut Conn<'_>,
    source: &Source,
    id: &BackupId,
) -> Result<Manifest, BrokerError> {
    let refuse = |reason: String| Err(BrokerError::BadRequest(reason));
    let unknown_backup = || {
        let (source_id, id) = (source.id.as_str(), id.as_str());
        BrokerError::BadRequest(format!(
            "the service instance {source_id:?} has no backup {id:?}; list its backups \
             and choose one of them"
        ))
    };
    let backup = store::backup::find(conn, id)?
        .filter(|backup| backup.instance == source.keeper)
        .ok_or_else(unknown_backup)?;
    if backup.state == BackupState::Expired {
        return refuse(removed(conn, source, &backup)?);
    }
    match (backup.state, backup.manifest) {
        (BackupState::Complete, Some(manifest)) => Ok(manifest),
        (BackupState::Pending | BackupState::Running, _) => refuse(format!(
            "backup {id} is not finished; wait until its status is complete"
        )),
        (BackupState::Failed, _) => refuse(format!(
            "backup {id} failed and holds nothing; take a new one or choose another"
        )),
        (BackupState::Expired | BackupState::Complete, _) => refuse(format!(
            "backup {id} has expired; choose one that is still listed"
        )),
    }
}

impl From<ChoiceError> for BrokerError {
    fn from(error: ChoiceError) -> Self {
        Self::BadRequest(error.to_string())
    }
}

/// Says why a backup is not there any more.
fn removed(conn: &mut Conn<'_>, source: &Source, backup: &Backup) -> Result<String, StoreError> {
    let all = store::backup::complete_of(conn, &source.keeper)?;
    let (id, kind) = (&backup.id, backup.kind);
    Ok(match displaced_by(backup, &all) {
        Some(newer) if kind == BackupKind::Safety => format!(
            "backup {id} gave way to newer backups of before upgrades, such as {}; choose one that is \
             still listed",
            newer.id
        ),
        Some(newer) => format!(
            "backup {id} gave way to a newer {} backup, {}; choose one that is still listed",
            if kind == BackupKind::Imported {
                "imported"
            } else {
                "on-demand"
            },
            newer.id
        ),
        None => format!(
            "backup {id} has expired, as {kind} backups do; choose one that is still listed"
        ),
    })
}
