//! Makes a new instance from a backup, of the same or a newer version.
//!
//! Until the source's users are gone, members let in only clients with a certificate of the new
//! deployment's own authority: nobody can log in with a password of the source, not for a moment,
//! and the source's administrator password need not be known.

use std::sync::Arc;

use futures::{StreamExt as _, future::try_join_all};

use super::{
    Definition, Outcome, Step, StepError, Work, members,
    provision::{ALLOCATE, CLEANUP, fail, succeed},
};
use crate::{
    backup_store::{BackupStoreError, object, pipeline},
    model::{backup::Manifest, deployment::Access},
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
        Step {
            name: "open",
            title: "Opening the database",
            run: |w| Box::pin(open(w)),
        },
        Step {
            name: "verify",
            title: "Comparing with the backup",
            run: |w| Box::pin(verify(w)),
        },
    ],
    cleanup: &CLEANUP,
    succeed,
    fail,
};

/// The snapshot's name on the stage.
const SNAPSHOT: &str = "snapshot.db";

fn manifest(work: &Work) -> Result<&Manifest, StepError> {
    let source = work.operation.source.as_ref();
    Ok(&source
        .ok_or_else(|| StepError::last("the restore has no source"))?
        .manifest)
}

async fn fetch(work: Arc<Work>) -> Result<Outcome, StepError> {
    let (deployment, _) = work.allocated().await?;
    let manifest = manifest(&work)?;
    let name = object::snapshot(&manifest.deployment_id, &manifest.backup_id);
    let bytes = manifest.stored.snapshot_bytes;
    let damaged = |error: BackupStoreError| match error {
        BackupStoreError::Damaged { .. } | BackupStoreError::NotFound(_) => StepError::last(
            format!("backup {} cannot be used: {error}", manifest.backup_id),
        ),
        other => other.into(),
    };
    // Read once to check it, before a byte of it reaches a member: the second reading cannot be
    // cut short by damage unnoticed either, but then the stage was filled for nothing.
    work.meter.begin(bytes);
    let snapshot = pipeline::open_snapshot(work.parts.backups.as_ref(), &name, &manifest.stored)
        .await
        .map_err(damaged)?;
    let meter = work.meter.clone();
    let mut passed = 0;
    let counted = snapshot.inspect(move |chunk| {
        if let Ok(chunk) = chunk {
            passed += chunk.len() as u64;
            meter.set(passed);
        }
    });
    let provisioner = &work.cluster(&deployment)?.provisioner;
    provisioner
        .stage(&deployment.id, SNAPSHOT, bytes, counted.boxed())
        .await
        .map_err(|error| match damage_in(&error) {
            Some(reason) => StepError::last(format!(
                "backup {} cannot be used: {reason}",
                manifest.backup_id
            )),
            None => error.into(),
        })?;
    Outcome::done()
}

/// The damage that broke a stream of backup bytes off, if that is what an error is about.
fn damage_in(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(BackupStoreError::Damaged { .. }) = error.downcast_ref() {
            return Some(error.to_string());
        }
        let inner = error
            .downcast_ref::<std::io::Error>()
            .and_then(|io| io.get_ref());
        next = inner
            .map(|e| e as &(dyn std::error::Error + 'static))
            .or_else(|| error.source());
    }
    None
}

async fn seed(work: Arc<Work>) -> Result<Outcome, StepError> {
    let (deployment, _) = work.allocated().await?;
    let engine = work.engine(&deployment)?;
    let provisioner = &work.cluster(&deployment)?.provisioner;
    try_join_all(
        deployment
            .members
            .iter()
            .enumerate()
            .map(|(index, member)| {
                let task = engine.restore_task(&deployment, index, SNAPSHOT);
                let id = deployment.id.clone();
                async move {
                    provisioner.stop(&id, &member.name).await?;
                    provisioner.wipe(&id, &member.name).await?;
                    provisioner.run(&id, &member.name, &task).await
                }
            }),
    )
    .await?;
    Outcome::done()
}

async fn start(work: Arc<Work>) -> Result<Outcome, StepError> {
    let (deployment, _) = work.allocated().await?;
    members::start(&work, Access::Certificates).await?;
    work.cluster(&deployment)?
        .provisioner
        .unstage(&deployment.id, SNAPSHOT)
        .await?;
    Outcome::done()
}

async fn secure(work: Arc<Work>) -> Result<Outcome, StepError> {
    let (deployment, secrets) = work.allocated().await?;
    members::await_ready(&work, &deployment, &secrets, Access::Certificates).await?;
    work.engine(&deployment)?
        .secure_restored(&deployment, &secrets)
        .await?;
    Outcome::done()
}

async fn open(work: Arc<Work>) -> Result<Outcome, StepError> {
    members::start(&work, Access::Passwords).await?;
    Outcome::done()
}

async fn verify(work: Arc<Work>) -> Result<Outcome, StepError> {
    let (deployment, secrets) = work.allocated().await?;
    members::await_ready(&work, &deployment, &secrets, Access::Passwords).await?;
    let expected = &manifest(&work)?.content;
    work.engine(&deployment)?
        .verify_content(&deployment, &secrets, Access::Passwords, expected)
        .await?;
    Outcome::done()
}
