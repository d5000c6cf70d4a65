//! Removes the backups of an instance that retention gives up, unless the clock is in doubt: then all
//! stays until the next prune. None is queued that would find nothing.

use std::{collections::BTreeSet, sync::Arc};

use super::{Definition, Ending, Outcome, Parts, Step, StepError, Work};
use crate::{
    model::{
        backup::Backup,
        ids::{BackupId, DeploymentId, InstanceId},
        limits::{BACKUP_HISTORY_KEPT, BACKUPS_FORGOTTEN_AT_ONCE, RESTORE_WATCH},
        operation::{Operation, OperationKind},
        origin::Origin,
        period::BackupKind,
        retention::{self, Decision},
        trust::Trusted,
    },
    store::{self, Conn, StoreError},
};

/// Prune.
pub const DEFINITION: Definition = Definition {
    steps: &[
        Step {
            name: "expire",
            title: "Deciding about old backups",
            run: |w| Box::pin(expire(w)),
        },
        Step {
            name: "delete",
            title: "Deleting old backups",
            run: |w| Box::pin(delete(w)),
        },
        Step {
            name: "forget",
            title: "Forgetting backups of long ago",
            run: |w| Box::pin(forget(w)),
        },
    ],
    begun: |_, _| Ok(()),
    cleanup: &[],
    succeed: |_, _| Ok(()),
    fail: |_, _, _| Ok(()),
};

/// Queues a prune of the instance that a backup is of, if there is something for it to do.
pub(super) fn queue_if_any(conn: &mut Conn<'_>, ending: &Ending<'_>) -> Result<(), StoreError> {
    let instance = &ending.operation.instance;
    if !finds_any(conn, ending.parts, instance)? {
        return Ok(());
    }
    let (kind, origin) = (OperationKind::Prune, Origin::Retention);
    let prune = Operation::queued(kind, instance, origin, ending.now);
    store::operation::insert(conn, &prune, None)
}

/// Whether a prune would find something: bytes that an earlier one has left, a backup to decide about, or
/// a row of long ago. While the clock is in doubt only the first counts, as for the prune itself.
fn finds_any(
    conn: &mut Conn<'_>,
    parts: &Parts,
    instance: &InstanceId,
) -> Result<bool, StoreError> {
    if !store::backup::given_up(conn, instance)?.is_empty() {
        return Ok(true);
    }
    let Some(now) = parts.time.trusted() else {
        return Ok(false);
    };
    let history = now.time() - BACKUP_HISTORY_KEPT;
    Ok(!decisions(conn, parts, instance, now)?.is_empty()
        || !store::backup::history(conn, instance, history, 1)?.is_empty())
}

/// What is to be done about the backups of an instance.
fn decisions(
    conn: &mut Conn<'_>,
    parts: &Parts,
    id: &InstanceId,
    now: Trusted,
) -> Result<Vec<Decision>, StoreError> {
    let Some(instance) = store::instance::find(conn, id)? else {
        return Ok(Vec::new());
    };
    let backups = store::backup::complete_of(conn, id)?;
    let schedule = store::schedule::find(conn, id)?;
    let chosen = schedule.map(|of| of.timetable).unwrap_or_default();
    let rules = parts.retention(&instance, chosen);
    let grace = parts.backup_grace;
    Ok(retention::decisions(&backups, rules, now.time(), grace))
}

/// Decides, and lets nobody begin to read what goes. Decision and mark are one transaction, so
/// that no restore is promised a backup in between.
async fn expire(work: Arc<Work>) -> Result<Outcome, StepError> {
    let (instance, parts) = (work.operation.instance.clone(), work.parts.clone());
    let Some(trusted) = work.parts.time.trusted() else {
        return Outcome::done();
    };
    let in_use = work
        .write(move |conn| {
            let mut in_use = false;
            for decision in decisions(conn, &parts, &instance, trusted)? {
                match decision {
                    Decision::Mark(id, removal) => {
                        store::backup::set_removal(conn, &id, Some(&removal))?;
                    }
                    Decision::Unmark(id) => store::backup::set_removal(conn, &id, None)?,
                    Decision::Remove(id) if is_read(conn, &id)? => in_use = true,
                    Decision::Remove(id) => store::backup::expire(conn, &id, trusted)?,
                }
            }
            Ok(in_use)
        })
        .await?;
    if in_use {
        Ok(Outcome::Later(RESTORE_WATCH))
    } else {
        Outcome::done()
    }
}

fn is_read(conn: &mut Conn<'_>, backup: &BackupId) -> Result<bool, StoreError> {
    let readers = store::operation::restores_reading(conn, std::slice::from_ref(backup))?;
    Ok(!readers.is_empty())
}

async fn delete(work: Arc<Work>) -> Result<Outcome, StepError> {
    remove_given_up(&work).await?;
    Outcome::done()
}

/// Deletes the bytes of what retention has given up of an instance, then forgets what they were.
pub(super) async fn remove_given_up(work: &Work) -> Result<(), StepError> {
    let instance = work.operation.instance.clone();
    let backups = work
        .read(move |conn| store::backup::given_up(conn, &instance))
        .await?;
    let of: BTreeSet<&DeploymentId> = backups.iter().map(|backup| &backup.deployment).collect();
    for deployment in of {
        // What goes is missed no more before it does.
        work.parts.registrar.settle(deployment).await?;
    }
    for backup in backups {
        work.parts
            .backups
            .remove(&backup.deployment, &backup.id)
            .await?;
        work.write(move |conn| store::backup::forget_bytes(conn, &backup.id))
            .await?;
    }
    Ok(())
}

/// Whether there is no operation that makes a backup, since the upload of it was given up before its end.
fn was_never_queued(conn: &mut Conn<'_>, backup: &Backup) -> Result<bool, StoreError> {
    let is_imported = backup.kind == BackupKind::Imported;
    Ok(is_imported && store::operation::find(conn, &backup.operation)?.is_none())
}

/// Removes rows of backups that have held no bytes for long, and of the operations that took,
/// proved and removed them: with one of each a day they would grow for ever.
async fn forget(work: Arc<Work>) -> Result<Outcome, StepError> {
    let instance = work.operation.instance.clone();
    let Some(now) = work.parts.time.trusted().map(Trusted::time) else {
        return Outcome::done();
    };
    work.write(move |conn| {
        let before = now - BACKUP_HISTORY_KEPT;
        let mut operations = Vec::new();
        for kind in [OperationKind::Prune, OperationKind::Proof] {
            operations.extend(store::operation::ended_before(
                conn, &instance, kind, before,
            )?);
        }
        let mut ended = Vec::new();
        for kind in [OperationKind::Backup, OperationKind::Import] {
            ended.extend(store::operation::ended_before(
                conn, &instance, kind, before,
            )?);
        }
        let limit = BACKUPS_FORGOTTEN_AT_ONCE;
        for backup in store::backup::history(conn, &instance, before, limit)? {
            // The row of a backup whose operation is stuck tells an operator where to look.
            let is_over = ended.contains(&backup.operation) || was_never_queued(conn, &backup)?;
            if retention::is_history(&backup, now) && is_over {
                store::backup::forget(conn, &backup.id)?;
                operations.push(backup.operation);
            }
        }
        store::operation::forget(conn, &operations)
    })
    .await?;
    Outcome::done()
}
