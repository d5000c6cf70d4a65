//! Makes a new instance from a backup, of the same or a newer version.
//!
//! Until the source's users are gone, members let in only clients with a certificate of the new
//! deployment's own authority: nobody can log in with a password of the source, not for a moment,
//! and the source's administrator password need not be known.

use std::sync::Arc;

use futures::future::try_join_all;

use super::{
    Definition, Ending, OpenDeployment, Outcome, Step, StepError, Work, healing, members,
    provision::{ALLOCATE, CLEANUP, OPEN, begin, fail},
};
use crate::{
    engine::{Holding, Seed},
    model::{
        backup::Manifest, deployment::Access, estimate::Past, limits::STOP_GRACE,
        operation::RestoreSource, schedule::Schedule,
    },
    store::{self, Conn, StoreError},
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

/// Puts the snapshot on the stage. It is checked on the way: what is damaged is not staged.
async fn fetch(work: Arc<Work>) -> Result<Outcome, StepError> {
    let opened = work.opened().await?;
    stage_backup(&work, &opened, opened.profile().snapshot_file).await?;
    Outcome::done()
}

/// Puts the snapshot of the operation's backup on the stage, under the name `staged`.
pub async fn stage_backup(
    work: &Work,
    opened: &OpenDeployment,
    staged: &str,
) -> Result<(), StepError> {
    let manifest = manifest(work)?;
    let bytes = manifest.stored.snapshot_bytes;
    // The staged snapshot and one copy for each member.
    let copies = opened.profile().members as u64 + 1;
    let tenant = work.tenant().await?;
    let of = tenant.owning(&opened.deployment.id);
    opened.provisioner().room_for(of, bytes * copies).await?;
    healing::stage(work, &opened.deployment, manifest, staged)
        .await
        .map_err(|error| error.about(format!("backup {} cannot be used", manifest.backup_id)))
}

async fn seed(work: Arc<Work>) -> Result<Outcome, StepError> {
    let opened = work.opened().await?;
    let staged = opened.profile().snapshot_file;
    let seed = match source(&work)?.clients_notice {
        true => Seed::Backup(staged),
        false => Seed::Snapshot(staged),
    };
    seed_members(&opened, seed).await?;
    Outcome::done()
}

/// Fills the homes of all members anew from `seed`.
pub async fn seed_members(opened: &OpenDeployment, seed: Seed<'_>) -> Result<(), StepError> {
    let (deployment, provisioner) = (&opened.deployment, opened.provisioner().as_ref());
    let (id, engine) = (&deployment.id, &opened.engine);
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
    let opened = work.opened().await?.with_access(Access::Certificates);
    members::start(&opened).await?;
    let (id, staged) = (&opened.deployment.id, opened.profile().snapshot_file);
    opened.provisioner().unstage(id, staged).await?;
    Outcome::done()
}

async fn secure(work: Arc<Work>) -> Result<Outcome, StepError> {
    members::secure(&work, Holding::Backup).await
}

async fn verify(work: Arc<Work>) -> Result<Outcome, StepError> {
    let opened = work.opened().await?.with_access(Access::Passwords);
    let expected = &manifest(&work)?.content;
    opened.engine.verify(opened.site(), expected).await?;
    Outcome::done()
}

/// The instance is usable. It holds something from the first moment on, so the schedule takes its first
/// backup at once. How long it took is kept: whatever becomes of instance and backup, the next one is told by it.
fn succeed(conn: &mut Conn<'_>, ending: &Ending<'_>) -> Result<(), StoreError> {
    let (restore, now) = (ending.operation, ending.now);
    if let Some(RestoreSource { manifest, .. }) = &restore.source {
        let past = Past {
            bytes: manifest.stored.snapshot_bytes,
            took: now - restore.created_at,
        };
        store::restore_time::keep(conn, &restore.id, &manifest.engine, past, now)?;
    }
    let schedule = Schedule::begin_at_once(ending.operation.instance.clone(), ending.now);
    begin(conn, &schedule)
}
