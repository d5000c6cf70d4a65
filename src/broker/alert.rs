//! What is read of an instance so that somebody is told what they should know of it, see
//! [`crate::model::alert`].

use chrono::{DateTime, Utc};

use super::{inventory::Promises, repair};
use crate::{
    model::{
        alert::{BackupWatch, FlawedBackup, Incident, RepairWatch},
        backup::{Backup, BackupState},
        binding::{BindParameters, Binding, BindingState},
        deployment::Deployment,
        instance::Instance,
        limits::{INCIDENT_TOLD, READDRESS_RETRY},
        mirror::Unmirrored,
        operation::{OperationKind, OperationState},
        proof::Standing,
        renewal::Outlook,
    },
    store::{self, Conn, StoreError},
};

/// What is read of a database beside its deployment.
#[derive(Debug)]
pub(super) struct Beside {
    /// Bindings that are held to a role or a prefix.
    pub(super) limited: usize,
    pub(super) incidents: Vec<Incident>,
    pub(super) repair: Option<RepairWatch>,
    pub(super) is_recovered: bool,
    pub(super) move_failure: Option<String>,
    pub(super) certificates: Option<Outlook>,
}

/// Reads what alerts go by beside what members say.
pub(super) fn watched(
    conn: &mut Conn<'_>,
    instance: &Instance,
    deployment: &Deployment,
    promises: Promises,
    now: DateTime<Utc>,
) -> Result<(BackupWatch, Beside), StoreError> {
    let complete = store::backup::complete_of(conn, &instance.id)?;
    let backups = backup_watch(conn, instance, &complete, promises)?;
    Ok((backups, beside(conn, deployment, now)?))
}

/// Reads what is told of a database beside its deployment.
pub(super) fn beside(
    conn: &mut Conn<'_>,
    of: &Deployment,
    now: DateTime<Utc>,
) -> Result<Beside, StoreError> {
    let bindings = store::binding::of_instance(conn, &of.instance)?;
    let is_limited = |binding: &&Binding| {
        let asked = BindParameters::read(&binding.request.parameters);
        binding.state == BindingState::Ready && asked.is_ok_and(|p| p.rights().are_limited())
    };
    Ok(Beside {
        limited: bindings.iter().filter(is_limited).count(),
        incidents: store::incident::since(conn, &of.id, now - INCIDENT_TOLD)?,
        repair: repair::watch(conn, &of.instance, now)?,
        is_recovered: store::operation::is_active(conn, &of.instance, OperationKind::Recover)?,
        move_failure: move_failure(conn, of, now)?,
        certificates: store::renewal::find(conn, &of.id)?,
    })
}

/// Why the last move of members failed; none while the next one goes on, and after one that did not. Where
/// none has come for so long, they are wanted where they are by now.
fn move_failure(
    conn: &mut Conn<'_>,
    of: &Deployment,
    now: DateTime<Utc>,
) -> Result<Option<String>, StoreError> {
    let kinds = [OperationKind::Readdress];
    let newest = store::operation::newest(conn, &of.instance, None, &kinds)?;
    let failed = newest.filter(|operation| {
        let is_old = now - operation.updated_at > READDRESS_RETRY * 2;
        operation.state == OperationState::Failed && !is_old
    });
    Ok(failed.and_then(|operation| operation.failure))
}

/// What is known of an instance's scheduled backups; `backups` are at least all that are complete.
pub(super) fn backup_watch(
    conn: &mut Conn<'_>,
    instance: &Instance,
    backups: &[Backup],
    promises: Promises,
) -> Result<BackupWatch, StoreError> {
    let makers = [OperationKind::Provision, OperationKind::Restore];
    let made = store::operation::newest(conn, &instance.id, None, &makers)?;
    let good =
        |backup: &&Backup| backup.kind.is_scheduled() && backup.state == BackupState::Complete;
    Ok(BackupWatch {
        schedule: store::schedule::find(conn, &instance.id)?,
        ready_at: made.map_or(instance.created_at, |operation| operation.updated_at),
        newest_good: backups.iter().filter(good).map(Backup::taken_at).max(),
        newest_proved: newest_proved(backups),
        newest_excused: own(backups)
            .filter(|b| !b.is_provable())
            .map(Backup::taken_at)
            .max(),
        flawed: flawed(backups),
        doubt: doubt(backups, promises.proved_within.is_some()),
        proved_within: promises
            .proved_within
            .filter(|_| instance.recipient().is_none()),
        unmirrored: match promises.are_mirrored {
            true => store::mirror::state(conn)?.and_then(|of| Unmirrored::of(backups, &of)),
            false => None,
        },
    })
}

/// Those that tell of the instance itself.
fn own(backups: &[Backup]) -> impl Iterator<Item = &Backup> + Clone {
    let is_own = |b: &&Backup| b.state == BackupState::Complete && b.kind.is_own();
    backups.iter().filter(is_own)
}

fn newest_proved(backups: &[Backup]) -> Option<DateTime<Utc>> {
    let proved = own(backups).filter(|b| b.proof.standing() == Standing::Proved);
    proved.map(Backup::taken_at).max()
}

fn doubt(backups: &[Backup], are_proved: bool) -> Option<String> {
    own(backups).max_by_key(|b| b.order())?.doubt(are_proved)
}

fn flawed(backups: &[Backup]) -> Option<FlawedBackup> {
    let complete = backups.iter().filter(|b| b.state == BackupState::Complete);
    let flawed = complete.filter_map(|b| Some((b, b.proof.flaw.as_ref()?)));
    let newest = flawed.clone().max_by_key(|(backup, _)| backup.order());
    newest.map(|(backup, flaw)| FlawedBackup {
        taken_at: backup.taken_at(),
        flaw: flaw.clone(),
        count: flawed.count(),
    })
}
