//! Backups as operations read them. What is spoiled of one where it is stored is put back from the mirror, where
//! there is one, and read once more.

use futures::FutureExt as _;

use super::{StepError, Work};
use crate::{
    model::{
        backup::{BackupState, Manifest},
        deployment::Deployment,
        failure::chain,
        mirror::healed,
    },
    store,
};

/// Puts the snapshot of a backup on the stage of a deployment, under the name `staged`. It is checked on the way:
/// what is damaged, and cannot be put back, is not staged.
pub async fn stage(
    work: &Work,
    deployment: &Deployment,
    manifest: &Manifest,
    staged: &str,
) -> Result<(), StepError> {
    match stage_once(work, deployment, manifest, staged).await {
        Err(StepError::Last { message, source }) => match heal(work, manifest, &message).await? {
            true => stage_once(work, deployment, manifest, staged).await,
            false => Err(StepError::Last { message, source }),
        },
        other => other,
    }
}

async fn stage_once(
    work: &Work,
    deployment: &Deployment,
    manifest: &Manifest,
    staged: &str,
) -> Result<(), StepError> {
    let bytes = manifest.stored.snapshot_bytes;
    let snapshot = work.parts.backups.open(manifest).await?;
    let counted = work.meter.count(bytes, snapshot);
    let provisioner = &work.cluster(deployment)?.provisioner;
    Ok(provisioner
        .stage(&deployment.id, staged, bytes, counted)
        .await?)
}

/// Puts back from the mirror what is spoiled of a backup, `why` says in which way; false where that cannot be done,
/// or nothing is. It is told of and audited.
pub async fn heal(work: &Work, manifest: &Manifest, why: &str) -> Result<bool, StepError> {
    let vault = &work.parts.backups;
    let id = manifest.backup_id.clone();
    let found = work
        .read(move |conn| store::backup::find(conn, &id))
        .await?;
    let Some(backup) = found.filter(|of| of.state == BackupState::Complete && vault.has_mirror())
    else {
        return Ok(false);
    };
    let is_wanted = || {
        let (store, id) = (work.parts.store.clone(), manifest.backup_id.clone());
        let asked = async move {
            store
                .read(move |conn| store::mirror::is_wanted(conn, &id))
                .await
        };
        asked.map(Result::ok).boxed()
    };
    let now = work.parts.clock.now();
    let put_back = match vault.put_back(manifest, &is_wanted, now).await {
        Ok(Some(put_back)) => put_back,
        Ok(None) => return Ok(false),
        Err(error) => {
            log::error!(backup:% = manifest.backup_id;
                "what is spoiled of a backup cannot be put back from the mirror for now: {}", chain(&error));
            return Ok(false);
        }
    };
    let message = healed(&backup.id, backup.taken_at(), put_back.bytes, why);
    log::warn!(backup:% = backup.id, instance:% = backup.instance; "{message}");
    let origin = work.operation.origin;
    work.write(move |conn| {
        let told = (message.clone(), origin, now);
        store::mirror::set_healed(conn, &backup, put_back.sealed_under.as_deref(), told)
    })
    .await?;
    Ok(true)
}
