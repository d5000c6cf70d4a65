//! Deletes an instance with all it has.
//!
//! It begins only when every other operation of the instance has ended (they are halted when it
//! is accepted). Restores that were promised one of its backups may finish first.

use std::sync::Arc;

use super::{Definition, Ending, Outcome, Step, StepError, Work, members};
use crate::{
    model::{ids::BackupId, instance::InstanceState, limits::RESTORE_WATCH},
    store::{self, Conn, StoreError},
};

/// Deprovision.
pub const DEFINITION: Definition = Definition {
    steps: &[
        Step {
            name: "destroy",
            title: "Removing the members",
            run: |w| Box::pin(async move { members::destroy(&w).await }),
        },
        Step {
            name: "release",
            title: "Giving the ports back",
            run: |w| Box::pin(async move { members::release(&w).await }),
        },
        Step {
            name: "delete_backups",
            title: "Deleting the backups",
            run: |w| Box::pin(delete_backups(w)),
        },
    ],
    begun: |_, _| Ok(()),
    cleanup: &[],
    succeed,
    fail,
};

async fn delete_backups(work: Arc<Work>) -> Result<Outcome, StepError> {
    let instance = work.operation.instance.clone();
    let reading = work
        .read(move |conn| {
            // A restore reads what is complete, which stays so until it has ended.
            let backups = store::backup::complete_of(conn, &instance)?;
            let ids: Vec<BackupId> = backups.into_iter().map(|b| b.id).collect();
            store::operation::restores_reading(conn, &ids)
        })
        .await?;
    if !reading.is_empty() {
        return Ok(Outcome::Later(RESTORE_WATCH));
    }
    let deployment = work.deployment().await?;
    work.parts.backups.remove_all(&deployment.id).await?;
    Outcome::done()
}

/// Nothing is left: the rows go with the last of it.
fn succeed(conn: &mut Conn<'_>, ending: &Ending<'_>) -> Result<(), StoreError> {
    let id = &ending.operation.instance;
    store::binding::delete_of_instance(conn, id)?;
    store::backup::delete_of_instance(conn, id)?;
    if let Some((deployment, _)) = store::deployment::of_instance(conn, id)? {
        store::deployment::delete(conn, &deployment.id)?;
    }
    store::step::forget_work_of_instance(conn, id)?;
    store::oversight::nothing_is_left(conn, id, None)?;
    store::instance::delete(conn, id)
}

fn fail(conn: &mut Conn<'_>, ending: &Ending<'_>, _failure: &str) -> Result<(), StoreError> {
    store::instance::set_state(conn, &ending.operation.instance, InstanceState::Failed)
}
