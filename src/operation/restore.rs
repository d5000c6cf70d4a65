//! Makes a new instance from a backup, of the same or a newer version.
//!
//! Until the source's users are gone, members let in only clients with a certificate of the new
//! deployment's own authority: nobody can log in with a password of the source, not for a moment,
//! and the source's administrator password need not be known.

use std::sync::Arc;

use futures::future::try_join_all;

use super::{
    Definition, Ending, Outcome, Step, StepError, Work, healing, members,
    provision::{ALLOCATE, CLEANUP, OPEN, begin, fail},
};
use crate::{
    engine::{Holding, Seed},
    model::{
        backup::Manifest,
        deployment::{Access, Deployment, Site},
        limits::STOP_GRACE,
        operation::RestoreSource,
        schedule::Schedule,
    },
    store::{Conn, StoreError},
};

/// Restore.
pub const DEFINITION: Definition = Definition {
    steps: &[
        ALLOCATE,
        Step {
            name: "fetch",
            title: "Fetching and checking the backup",
            run: |w| Box::pin(fetch(w)),
        },
        Step {
            name: "seed",
            title: "Restoring the members' data",
            run: |w| Box::pin(seed(w)),
        },
        Step {
            name: "start",
            title: "Starting the members",
            run: |w| Box::pin(start(w)),
        },
        Step {
            name: "secure",
            title: "Removing the source's users",
            run: |w| Box::pin(secure(w)),
        },
        OPEN,
        Step {
            name: "verify",
            title: "Comparing with the backup",
            run: |w| Box::pin(verify(w)),
        },
    ],
    begun: |_, _| Ok(()),
    cleanup: &CLEANUP,
    succeed,
    fail,
};

fn source(work: &Work) -> Result<&RestoreSource, StepError> {
    let source = work.operation.source.as_ref();
    source.ok_or_else(|| StepError::last("the restore has no source"))
}

fn manifest(work: &Work) -> Result<&Manifest, StepError> {
    Ok(&source(work)?.manifest)
}

/// The snapshot's name on the stage.
fn staged_name(work: &Work, deployment: &Deployment) -> Result<&'static str, StepError> {
    Ok(work.engine(deployment)?.profile().snapshot_file)
}

/// Puts the snapshot on the stage. It is checked on the way: what is damaged is not staged.
async fn fetch(work: Arc<Work>) -> Result<Outcome, StepError> {
    let (deployment, _) = work.allocated().await?;
    let staged = staged_name(&work, &deployment)?;
    stage_backup(&work, &deployment, staged).await?;
    Outcome::done()
}

/// Puts the snapshot of the operation's backup on the stage, under the name `staged`.
pub async fn stage_backup(
    work: &Work,
    deployment: &Deployment,
    staged: &str,
) -> Result<(), StepError> {
    let manifest = manifest(work)?;
    let bytes = manifest.stored.snapshot_bytes;
    let provisioner = &work.cluster(deployment)?.provisioner;
    let members = work.engine(deployment)?.profile().members;
    // The staged snapshot and one copy for each member.
    provisioner.room_for(bytes * (members as u64 + 1)).await?;
    healing::stage(work, deployment, manifest, staged)
        .await
        .map_err(|error| error.about(format!("backup {} cannot be used", manifest.backup_id)))
}

async fn seed(work: Arc<Work>) -> Result<Outcome, StepError> {
    let (deployment, _) = work.allocated().await?;
    let staged = staged_name(&work, &deployment)?;
    let seed = match source(&work)?.clients_notice {
        true => Seed::Backup(staged),
        false => Seed::Snapshot(staged),
    };
    seed_members(&work, &deployment, seed).await?;
    Outcome::done()
}

/// Fills the homes of all members anew from `seed`.
pub async fn seed_members(
    work: &Work,
    deployment: &Deployment,
    seed: Seed<'_>,
) -> Result<(), StepError> {
    let engine = work.engine(deployment)?;
    let provisioner = work.cluster(deployment)?.provisioner.as_ref();
    let id = &deployment.id;
    let seeded = deployment.members.iter().enumerate();
    let seeded = seeded.map(|(place, member)| async move {
        provisioner.stop(id, &member.name, STOP_GRACE).await?;
        provisioner.wipe(id, &member.name).await?;
        engine.seed(deployment, place, seed, provisioner).await?;
        Ok::<_, StepError>(())
    });
    try_join_all(seeded).await?;
    Ok(())
}

async fn start(work: Arc<Work>) -> Result<Outcome, StepError> {
    let (deployment, _) = work.allocated().await?;
    members::start(&work, Access::Certificates).await?;
    let staged = staged_name(&work, &deployment)?;
    let provisioner = &work.cluster(&deployment)?.provisioner;
    provisioner.unstage(&deployment.id, staged).await?;
    Outcome::done()
}

async fn secure(work: Arc<Work>) -> Result<Outcome, StepError> {
    let (deployment, secrets) = work.allocated().await?;
    members::await_ready(&work, &deployment, &secrets, Access::Certificates).await?;
    work.engine(&deployment)?
        .secure(
            Site::with_access(&deployment, &secrets, Access::Certificates),
            Holding::Backup,
        )
        .await?;
    Outcome::done()
}

async fn verify(work: Arc<Work>) -> Result<Outcome, StepError> {
    let (deployment, secrets) = work.allocated().await?;
    let expected = &manifest(&work)?.content;
    work.engine(&deployment)?
        .verify(
            Site::with_access(&deployment, &secrets, Access::Passwords),
            expected,
        )
        .await?;
    Outcome::done()
}

/// The instance is usable. It holds something from the first moment on, so the schedule takes its first
/// backup at once.
fn succeed(conn: &mut Conn<'_>, ending: &Ending<'_>) -> Result<(), StoreError> {
    let schedule = Schedule::begin_at_once(ending.operation.instance.clone(), ending.now);
    begin(conn, &schedule)
}
