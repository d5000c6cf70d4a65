//! Backups as operations read them. What is spoiled of one where it is stored is put back from the mirror, where
//! there is one, and read once more.

use zeroize::Zeroizing;

use super::{StepError, Work};
use crate::{
    healing::{self, HealingError},
    model::{backup::Manifest, deployment::Deployment, failure::chain},
    seal::{SealError, age::FileKey},
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
    let vault = &work.parts.backups;
    let snapshot = match key_of_source(work)? {
        Some(key) => vault.open_for(manifest, &key).await?,
        None => vault.open(manifest).await?,
    };
    let counted = work.meter.count(bytes, snapshot);
    let provisioner = &work.cluster(deployment)?.provisioner;
    Ok(provisioner
        .stage(&deployment.id, staged, bytes, counted)
        .await?)
}

/// The key to the operation's source, where its tenant gave one for it.
fn key_of_source(work: &Work) -> Result<Option<FileKey>, StepError> {
    let operation = &work.operation;
    let sealed = operation
        .source
        .as_ref()
        .and_then(|of| of.sealed_key.as_ref());
    let Some(sealed) = sealed else {
        return Ok(None);
    };
    let key = match work.parts.keys.open(&operation.key_context(), sealed) {
        Ok(bytes) => FileKey::from_bytes(&Zeroizing::new(bytes)),
        // The operation began under a key of the ring that was taken out since.
        Err(SealError::UnknownKey(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let lost = "the key to the backup is gone with a key of the ring: ask for it again, with the private key";
    key.map(Some).ok_or_else(|| StepError::last(lost))
}

/// Puts back from the mirror what is spoiled of a backup, `why` says in which way; false where that cannot be done,
/// or nothing is.
pub async fn heal(work: &Work, manifest: &Manifest, why: &str) -> Result<bool, StepError> {
    let told = (work.operation.origin, work.parts.clock.now());
    let (store, vault) = (&work.parts.store, &work.parts.backups);
    let id = &manifest.backup_id;
    match healing::heal(store, vault, id, why, told).await {
        Ok(None) => Ok(false),
        Ok(Some((backup, message))) => {
            log::warn!(backup:% = id, instance:% = backup.instance; "{message}");
            Ok(true)
        }
        Err(HealingError::Backups(error)) => {
            log::error!(backup:% = id;
                "what is spoiled of a backup cannot be put back from the mirror for now: {}", chain(&error));
            Ok(false)
        }
        Err(HealingError::Store(error)) => Err(error.into()),
    }
}
