//! What a restore may take its bytes from: the instance and the backup that a request names.

use super::{
    provision::Asker,
    refusal::{Refusal, RuleError},
};
use crate::{
    model::{
        backup::{Backup, BackupState, Manifest},
        catalog::Offering,
        choice::BackupChoice,
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
) -> Result<Option<Manifest>, RuleError> {
    let choice = BackupChoice::read(asked.backup_id.as_deref(), asked.restore_time.as_deref());
    let (source_id, choice) = match (&asked.source_service_instance_id, choice.transpose()) {
        (None, None) => return Ok(None),
        (Some(source), Some(backup)) => (source, backup),
        (Some(_), None) => return Err(Refusal::NoChoice.into()),
        (None, Some(_)) => return Err(Refusal::NoSource.into()),
    };
    if matches!(asker, Asker::Platform) && !tenant.is_told_apart(scope) {
        return Err(Refusal::AnyTenant(tenant.platform.clone()).into());
    }
    let may_restore = |of: &Tenant, deployment: &DeploymentId| match asker {
        Asker::Platform => tenant.may_restore_from(of, scope),
        Asker::Neighbour { source: own, .. } => *deployment == own.deployment,
    };
    let sources = sources(conn, may_restore, offering, source_id)?;
    let choice = choice.map_err(Refusal::from)?;
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
        .ok_or_else(|| Refusal::UnknownSource(source_id.to_owned()))?;
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
) -> Result<Vec<Source>, RuleError> {
    let is_allowed = |instance: &Instance| may_restore(&instance.tenant, &instance.deployment);
    let id = id_of(source_id)?;
    let mut deleted = store::deleted::of_id(conn, &id)?;
    deleted.retain(|of| may_restore(&of.tenant, &of.deployment));
    let found = match restorable(conn, is_allowed, offering, source_id) {
        Ok(instance) => Some(Source::from(&instance)),
        Err(RuleError::Refused(_)) if !deleted.is_empty() => None,
        Err(error) => return Err(error),
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
) -> Result<Manifest, RuleError> {
    let (kind, until) = match choice {
        BackupChoice::Given(id) => return manifest_of(conn, source, id),
        BackupChoice::Latest { kind, until } => (*kind, *until),
    };
    let complete = store::backup::complete_of(conn, &source.keeper)?;
    let found = BackupChoice::newest(kind, until, &complete);
    let manifest = found.and_then(|backup| backup.manifest.clone());
    manifest.ok_or_else(|| {
        let kind = kind.map_or(String::new(), |kind| format!(" {kind}"));
        let until = until.map_or(String::new(), |until| {
            format!(" that was begun by {}", until.format("%Y-%m-%dT%H:%M:%SZ"))
        });
        let refusal = Refusal::NoBackup {
            instance: source.id.as_str().to_owned(),
            which: format!("{kind} backup{until}"),
        };
        refusal.into()
    })
}

/// The instance of that id, when the one who asks may restore from it.
pub(super) fn restorable(
    conn: &mut Conn<'_>,
    may_restore: impl Fn(&Instance) -> bool,
    offering: &Offering,
    source_id: &str,
) -> Result<Instance, RuleError> {
    let id = id_of(source_id)?;
    let source = store::instance::find(conn, &id)?
        .filter(|source| source.state == InstanceState::Ready)
        .filter(may_restore)
        .ok_or_else(|| Refusal::UnknownSource(source_id.to_owned()))?;
    check_service(offering, &source.service_id, source_id)?;
    Ok(source)
}

/// What can be no id is none of anybody's.
fn id_of(source_id: &str) -> Result<InstanceId, Refusal> {
    let id = source_id.parse();
    id.map_err(|_| Refusal::UnknownSource(source_id.to_owned()))
}

fn check_service(offering: &Offering, of: &str, source_id: &str) -> Result<(), Refusal> {
    if of == offering.id {
        return Ok(());
    }
    Err(Refusal::OtherService {
        instance: source_id.to_owned(),
        offering: offering.name.clone(),
    })
}

/// The manifest of a backup of an instance, when it can be restored.
pub(super) fn manifest_of(
    conn: &mut Conn<'_>,
    source: &Source,
    id: &BackupId,
) -> Result<Manifest, RuleError> {
    let backup = store::backup::find(conn, id)?
        .filter(|backup| backup.instance == source.keeper)
        .ok_or_else(|| Refusal::unknown_backup(&source.id, id))?;
    let refusal = match (backup.state, &backup.manifest) {
        (BackupState::Complete, Some(manifest)) => return Ok(manifest.clone()),
        (BackupState::Pending | BackupState::Running, _) => Refusal::Unfinished(id.clone()),
        (BackupState::Failed, _) => Refusal::Failed(id.clone()),
        (BackupState::Complete, None) => Refusal::Expired(id.clone()),
        (BackupState::Expired, _) => removed(conn, source, &backup)?,
    };
    Err(refusal.into())
}

/// Says why a backup is not there any more.
fn removed(conn: &mut Conn<'_>, source: &Source, backup: &Backup) -> Result<Refusal, StoreError> {
    let all = store::backup::complete_of(conn, &source.keeper)?;
    let (id, kind) = (backup.id.clone(), backup.kind);
    let Some(newer) = displaced_by(backup, &all) else {
        return Ok(Refusal::OutOfTime(id, kind));
    };
    let newer = match kind {
        BackupKind::Safety => format!("newer backups of before upgrades, such as {}", newer.id),
        BackupKind::Imported => format!("a newer imported backup, {}", newer.id),
        _ => format!("a newer on-demand backup, {}", newer.id),
    };
    Ok(Refusal::GaveWay { backup: id, newer })
}
