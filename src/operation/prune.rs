//! Removes the backups of an instance that retention gives up.

use std::sync::Arc;

use super::{Definition, Outcome, Step, StepError, Work, backup::remove_objects};
use crate::{
    model::{
        backup::{Backup, BackupState},
        limits::RESTORE_WATCH,
        retention,
    },
    store,
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
    ],
    cleanup: &[],
    succeed: |_, _| Ok(()),
    fail: |_, _, _| Ok(()),
};

/// Decides, and lets nobody begin to read what goes. Decision and mark are one transaction, so
/// that no restore is promised a backup in between.
async fn expire(work: Arc<Work>) -> Result<Outcome, StepError> {
    let instance = work.operation.instance.clone();
    let kept = work.parts.on_demand_kept(&work.instance().await?);
    let now = work.parts.clock.now();
    let in_use = work
        .write(move |conn| {
            let backups = store::backup::of_instance(conn, &instance)?;
            let mut in_use = false;
            for verdict in retention::verdicts(&backups, kept) {
                if verdict.keep {
                    continue;
                }
                let read_by = store::operation::restores_reading(
                    conn,
                    std::slice::from_ref(&verdict.backup),
                )?;
                if read_by.is_empty() {
                    store::backup::expire(conn, &verdict.backup, now)?;
                } else {
                    in_use = true;
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

/// Deletes the bytes first, then forgets what they were.
async fn delete(work: Arc<Work>) -> Result<Outcome, StepError> {
    let instance = work.operation.instance.clone();
    let backups = work
        .read(move |conn| store::backup::of_instance(conn, &instance))
        .await?;
    let has_bytes =
        |backup: &&Backup| backup.state == BackupState::Expired && backup.manifest.is_some();
    for backup in backups.iter().filter(has_bytes) {
        remove_objects(&work, backup).await?;
        let id = backup.id.clone();
        work.write(move |conn| store::backup::forget_bytes(conn, &id))
            .await?;
    }
    Outcome::done()
}
