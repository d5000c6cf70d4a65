//! Deletes an instance with all it has, but for backups that its plan keeps for a while.
//!
//! It begins only when every other operation of the instance has ended: they are halted when it is accepted, but
//! for the last backup, which ends in its own time, well or not. Where backups go at once, restores that were
//! promised one of them may finish first.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Definition, Ending, Outcome, Step, StepError, Work, members, prune};
use crate::{
    model::{
        deleted::DeletedInstance,
        ids::BackupId,
        instance::InstanceState,
        limits::{RESTORE_WATCH, deleted::DELETED_KEPT_MAX},
        operation::Operation,
    },
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
            name: DECISION,
            title: "Deciding about the backups",
            run: |w| Box::pin(decide(w)),
        },
        Step {
            name: BACKUPS,
            title: "Keeping the backups for a while, or deleting them",
            run: |w| Box::pin(delete_backups(w)),
        },
    ],
    begun: |_, _| Ok(()),
    cleanup: &[],
    succeed,
    fail,
};

const DECISION: &str = "decide_backups";
const BACKUPS: &str = "delete_backups";

/// Whether backups are kept: what the step [`DECISION`] leaves behind. It is decided once, before the first one
/// goes.
#[derive(Serialize, Deserialize)]
struct Decision {
    keep: bool,
}

/// What the step [`BACKUPS`] leaves behind; nothing where an earlier version deleted them.
#[derive(Default, Serialize, Deserialize)]
struct SeenTo {
    /// Until when backups are kept; none where they are gone.
    kept_until: Option<DateTime<Utc>>,
}

async fn decide(work: Arc<Work>) -> Result<Outcome, StepError> {
    let instance = work.instance().await?;
    let rules = work.parts.plan_rules(&instance).after_delete;
    let complete = complete_backups(&work).await?;
    Outcome::with(&Decision {
        keep: rules.keeps_backups(&instance) && !complete.is_empty(),
    })
}

async fn complete_backups(work: &Work) -> Result<Vec<BackupId>, StepError> {
    let id = work.operation.instance.clone();
    let found = work.read(move |conn| store::backup::complete_of(conn, &id));
    Ok(found.await?.into_iter().map(|backup| backup.id).collect())
}

async fn delete_backups(work: Arc<Work>) -> Result<Outcome, StepError> {
    let instance = work.instance().await?;
    let Decision { keep } = work.result(DECISION).await?;
    if keep {
        remove_uploads(&work).await?;
        // What retention has given up and not removed yet goes now: nobody comes by later.
        prune::remove_given_up(&work).await?;
        let rules = work.parts.plan_rules(&instance).after_delete;
        let kept_until = Some(rules.kept_until(work.parts.clock.now()));
        return Outcome::with(&SeenTo { kept_until });
    }
    // A restore reads what is complete, which stays so until it has ended.
    let complete = complete_backups(&work).await?;
    let reading = work.read(move |conn| store::operation::restores_reading(conn, &complete));
    if !reading.await?.is_empty() {
        return Ok(Outcome::Later(RESTORE_WATCH));
    }
    work.parts
        .registrar
        .remove_all(&instance.deployment)
        .await?;
    Outcome::with(&SeenTo::default())
}

/// Deletes what has come of backups that users were bringing along.
async fn remove_uploads(work: &Work) -> Result<(), StepError> {
    let id = work.operation.instance.clone();
    let uploads = work.read(move |conn| store::upload::of_instance(conn, &id));
    for upload in uploads.await? {
        let vault = &work.parts.backups;
        vault.remove(&upload.deployment, &upload.backup).await?;
    }
    Ok(())
}

/// Nothing is left but backups that are kept: all other rows go with the last of it.
fn succeed(conn: &mut Conn<'_>, ending: &Ending<'_>) -> Result<(), StoreError> {
    let id = &ending.operation.instance;
    let results = store::step::results(conn, &ending.operation.id)?;
    let seen_to = results.get(BACKUPS).cloned().unwrap_or_default();
    let SeenTo { kept_until } = serde_json::from_value(seen_to).unwrap_or_default();
    if let Some(kept_until) = kept_until {
        keep_backups(conn, ending, kept_until)?;
    }
    store::binding::delete_of_instance(conn, id)?;
    store::upload::delete_of_instance(conn, id)?;
    store::backup::delete_of_instance(conn, id)?;
    if let Some((deployment, _)) = store::deployment::of_instance(conn, id)? {
        store::deployment::delete(conn, &deployment.id)?;
    }
    store::step::forget_work_of_instance(conn, id)?;
    store::oversight::nothing_is_left(conn, id, None)?;
    store::instance::delete(conn, id)
}

/// Writes down whose backups they were, and gives them away from the instance's id, which may be used again.
fn keep_backups(
    conn: &mut Conn<'_>,
    ending: &Ending<'_>,
    kept_until: DateTime<Utc>,
) -> Result<(), StoreError> {
    let Operation {
        instance, backup, ..
    } = ending.operation;
    let instance = store::instance::get(conn, instance)?;
    let (deployment, _) = store::deployment::of_instance(conn, &instance.id)?
        .ok_or_else(|| StoreError::Missing("the instance's deployment".to_owned()))?;
    let last = match backup {
        Some(id) => store::backup::find(conn, id)?,
        None => None,
    };
    let source = store::provenance::of(conn, &instance.id)?;
    let deleted = DeletedInstance {
        deployment: deployment.id,
        instance: instance.id,
        service_id: instance.service_id,
        plan_id: instance.plan_id,
        tenant: instance.tenant,
        name: instance.name,
        cluster: deployment.cluster,
        engine: deployment.engine,
        version: deployment.version,
        units: deployment.units,
        created_at: instance.created_at,
        deleted_at: ending.now,
        kept_until,
        final_backup_failure: last.and_then(|last| last.failure),
        restored_from: source.map(|source| source.deployment),
    };
    store::backup::keep_of_deleted(conn, &deleted.instance, &deleted.keeper())?;
    store::deleted::insert(conn, &deleted)?;
    store::deleted::end_oldest(conn, &deleted.tenant, DELETED_KEPT_MAX, ending.now)
}

fn fail(conn: &mut Conn<'_>, ending: &Ending<'_>, _failure: &str) -> Result<(), StoreError> {
    store::instance::set_state(conn, &ending.operation.instance, InstanceState::Failed)
}
