//! Makes a backup of a snapshot that a user has brought along.
//!
//! The parts of the upload are put together, looked at and stored as any snapshot is. That it can be restored
//! nobody knows but who restores it: so it is restored aside before it counts, and what it holds is told of what
//! came up. The parts go last. What is wrong with the file ends the import at once; the backup is listed as
//! failed, with the reason.

use std::sync::Arc;

use super::{
    Definition, Ending, OpenDeployment, Outcome, Step, StepError, Work, aside,
    backup::{self, Taken},
    prune,
};
use crate::{
    backups::{BackupStoreError, Identity, TakenIn},
    model::{
        backup::{Backup, Manifest, SnapshotContent},
        deployment::Deployment,
        upload::Upload,
        version::Version,
    },
    provisioner::ProvisionerError,
    seal::age::Recipient,
    store::{self, Conn, StoreError},
    stream::ByteStream,
};

/// Import.
pub const DEFINITION: Definition = Definition {
    steps: &[
        Step {
            name: STORE,
            title: "Checking and storing the snapshot",
            run: |w| Box::pin(put_together(w)),
        },
        Step {
            name: RESTORE,
            title: "Restoring the snapshot aside",
            run: |w| Box::pin(restore_aside(w)),
        },
        Step {
            name: "restore_into_own",
            title: "Restoring it aside into the instance's version",
            run: |w| Box::pin(restore_into_own(w)),
        },
        Step {
            name: backup::DESCRIBE,
            title: "Describing the backup",
            run: |w| Box::pin(describe(w)),
        },
        Step {
            name: "remove_parts",
            title: "Removing the upload",
            run: |w| Box::pin(remove_parts(w)),
        },
    ],
    begun: backup::mark_running,
    cleanup: &[
        aside::CLEANUP,
        Step {
            name: "cleanup_import",
            title: "Removing what was stored",
            run: |w| Box::pin(remove_bytes(w)),
        },
    ],
    succeed,
    fail,
};

const STORE: &str = "store";
const RESTORE: &str = "restore_aside";

async fn upload(work: &Work, backup: &Backup) -> Result<Upload, StepError> {
    let id = backup.id.clone();
    let found = work.read(move |conn| store::upload::find(conn, &id));
    found
        .await?
        .ok_or_else(|| StepError::last("the upload is gone"))
}

/// Stores what has come as the snapshot of the backup, if it is one.
async fn put_together(work: Arc<Work>) -> Result<Outcome, StepError> {
    let backup = backup::backup(&work).await?;
    let upload = upload(&work, &backup).await?;
    let id = backup.id.clone();
    let parts = work
        .read(move |conn| store::upload::parts(conn, &id))
        .await?;
    let deployment = work.deployment().await?;
    let engine = work.engine(&deployment)?;
    let vault = &work.parts.backups;
    vault.room_for(upload.bytes).await?;
    work.meter.begin(upload.bytes);
    let meter = work.meter.clone();
    let of = Identity::from(&backup);
    let snapshot = engine.whole(vault.open_parts(&of, parts));
    let progress = move |bytes| meter.set(bytes);
    let taken = match backup::recipient(&work).await? {
        Some(recipient) => store_for_tenant(&work, &backup, &recipient, snapshot, progress).await,
        None => {
            let stored = vault.take_in(&of, snapshot, progress).await;
            stored.map(|TakenIn { stored, sealed_key }| Taken {
                stored,
                sealed_key: Some(sealed_key),
                sealed_for: None,
                content: None,
                started_at: backup.created_at,
            })
        }
    };
    let taken = match taken {
        // What the parts themselves have is told by other errors: this is the engine's word.
        Err(BackupStoreError::BrokenSource(reason)) => {
            return Err(StepError::last(format!(
                "the file is no snapshot: {reason}"
            )));
        }
        taken => taken?,
    };
    let found = &taken.stored.snapshot_sha256;
    if upload.sha256.is_some_and(|told| told != *found) {
        return Err(StepError::last(format!(
            "the file has another SHA-256 than was told, {found}: upload it anew"
        )));
    }
    Outcome::with(&taken)
}

/// Stores the snapshot for the key of the tenant, and reads it back while the broker has the key to it. The steps that
/// follow read the same bytes out of the parts.
async fn store_for_tenant(
    work: &Work,
    backup: &Backup,
    recipient: &Recipient,
    snapshot: ByteStream,
    progress: impl Fn(u64) + Send + Sync + 'static,
) -> Result<Taken, BackupStoreError> {
    let (vault, of) = (&work.parts.backups, Identity::from(backup));
    let taken = vault
        .take_in_for(&of, recipient, snapshot, progress)
        .await?;
    vault.read_taken_for(&of, &taken, |_| ()).await?;
    Ok(Taken {
        stored: taken.stored,
        sealed_key: None,
        sealed_for: Some(taken.sealed_for),
        content: None,
        started_at: backup.created_at,
    })
}

/// Restores the stored snapshot into a member that is thrown away, and tells what is in it.
async fn restore_aside(work: Arc<Work>) -> Result<Outcome, StepError> {
    let (backup, deployment) = (backup::backup(&work).await?, work.deployment().await?);
    aside::remove(&work, &deployment).await?;
    let upload = upload(&work, &backup).await?;
    let taken: Taken = work.result(STORE).await?;
    let unknown = (upload.version, SnapshotContent::default());
    let manifest = backup::manifest(&work, &backup, &taken, unknown).await?;
    let version = aside::own_version(&work, &deployment, &manifest)?.map_err(StepError::last)?;
    let snapshot = match open(&work, &manifest, &taken).await? {
        Ok(snapshot) => snapshot,
        Err(start_over) => return Ok(start_over),
    };
    let restored = restore(&work, &deployment, &manifest, (version, snapshot)).await;
    let found = match restored {
        Ok(restored) => aside::take_stock(&restored).await,
        Err(error) => Err(error),
    };
    aside::remove(&work, &deployment).await?;
    Outcome::with(&found?)
}

/// The same into the version that the instance has. An older one may take what was written by a newer one than was
/// told, and not notice.
async fn restore_into_own(work: Arc<Work>) -> Result<Outcome, StepError> {
    let (backup, deployment) = (backup::backup(&work).await?, work.deployment().await?);
    aside::remove(&work, &deployment).await?;
    let upload = upload(&work, &backup).await?;
    let taken: Taken = work.result(STORE).await?;
    let content: SnapshotContent = work.result(RESTORE).await?;
    let manifest = backup::manifest(&work, &backup, &taken, (upload.version, content)).await?;
    let tried = aside::own_version(&work, &deployment, &manifest)?;
    if tried == Ok(deployment.version) {
        return Outcome::done();
    }
    let snapshot = match open(&work, &manifest, &taken).await? {
        Ok(snapshot) => snapshot,
        Err(start_over) => return Ok(start_over),
    };
    let own = deployment.version;
    let restored = restore(&work, &deployment, &manifest, (own, snapshot)).await;
    let proved = match restored {
        Ok(restored) => {
            let (engine, site) = (&restored.engine, restored.site());
            let proved = engine.prove(site, &manifest.content).await;
            proved.map_err(StepError::from)
        }
        Err(error) => Err(error),
    };
    aside::remove(&work, &deployment).await?;
    proved?;
    Outcome::done()
}

/// Opens the stored snapshot; or begins anew, where the key that it was sealed under is gone.
async fn open(
    work: &Work,
    manifest: &Manifest,
    taken: &Taken,
) -> Result<Result<ByteStream, Outcome>, StepError> {
    let (of, key) = (Identity::from(manifest), taken.sealed_key.as_deref());
    if taken.sealed_for.is_some() {
        let id = manifest.backup_id.clone();
        let parts = work.read(move |conn| store::upload::parts(conn, &id));
        let snapshot = (work.parts.backups).open_parts_as(&of, parts.await?, &taken.stored);
        return Ok(Ok(snapshot));
    }
    match work.parts.backups.open_taken(&of, &taken.stored, key).await {
        Err(BackupStoreError::KeyMissing { key, .. }) => Ok(Err(backup::without_key(&key))),
        snapshot => Ok(Ok(snapshot?)),
    }
}

/// Restores the stored snapshot aside. What a tool does not take today, or what ends the member, it never takes.
async fn restore(
    work: &Work,
    deployment: &Deployment,
    manifest: &Manifest,
    (version, snapshot): (Version, ByteStream),
) -> Result<OpenDeployment, StepError> {
    let snapshot = Some(snapshot);
    let restored = aside::restore_from(work, deployment, manifest, version, snapshot).await;
    let Err(StepError::Passing { message, source }) = restored else {
        return restored;
    };
    let tool = source
        .as_ref()
        .and_then(|source| source.downcast_ref::<ProvisionerError>());
    let is_refused = matches!(tool, Some(ProvisionerError::TaskFailed { .. }));
    if is_refused || aside::ends(work, deployment).await? {
        let (engine, told) = (&manifest.engine, manifest.version);
        return Err(StepError::Last {
            message: format!(
                "{engine} {version} does not come up with what is in the file: it is damaged, or was taken of \
                 a newer version than {told}; db_version tells of which ({message})"
            ),
            source,
        });
    }
    Err(StepError::Passing { message, source })
}

async fn describe(work: Arc<Work>) -> Result<Outcome, StepError> {
    let backup = backup::backup(&work).await?;
    let upload = upload(&work, &backup).await?;
    let taken: Taken = work.result(STORE).await?;
    let content: SnapshotContent = work.result(RESTORE).await?;
    let what = (upload.version, content);
    let manifest = backup::manifest(&work, &backup, &taken, what).await?;
    backup::write_manifest(&work, manifest, taken).await
}

async fn remove_parts(work: Arc<Work>) -> Result<Outcome, StepError> {
    let of = Identity::from(&backup::backup(&work).await?);
    work.parts.backups.remove_parts(&of).await?;
    Outcome::done()
}

async fn remove_bytes(work: Arc<Work>) -> Result<Outcome, StepError> {
    let backup = backup::backup(&work).await?;
    let vault = &work.parts.backups;
    vault.remove(&backup.deployment, &backup.id).await?;
    Outcome::done()
}

/// It is a backup from here on.
fn succeed(conn: &mut Conn<'_>, ending: &Ending<'_>) -> Result<(), StoreError> {
    let manifest = backup::complete(conn, ending)?;
    store::upload::delete(conn, &manifest.backup_id)?;
    prune::queue_if_any(conn, ending)
}

fn fail(conn: &mut Conn<'_>, ending: &Ending<'_>, failure: &str) -> Result<(), StoreError> {
    let Some(id) = &ending.operation.backup else {
        return Ok(());
    };
    store::backup::fail(conn, id, failure, ending.now)?;
    store::upload::delete(conn, id)
}
