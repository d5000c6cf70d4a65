//! Backups that are copied from the stores behind into the one in front.

use std::sync::Arc;

use futures::TryStreamExt as _;

use super::{BackupStoreError, Found, ObjectName, Vault, store::SharedPlace};
use crate::{
    model::ids::{BackupId, DeploymentId},
    seal::KeyRing,
};

/// A backup that was copied, or that was there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopiedBackup {
    /// The deployment that it was taken of.
    pub deployment: DeploymentId,
    /// The backup.
    pub backup: BackupId,
    /// The bytes that were copied; 0 where all of it was there already.
    pub bytes: u64,
}

/// Why backups are not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// There is nothing to copy from.
    #[error(
        "COMPOSE_BROKER_OLDER_BACKUP_STORES is not set: it names the stores to copy from, and \
         COMPOSE_BROKER_BACKUP_STORE the one to copy into"
    )]
    NothingBehind,
    /// Nobody has said that the two are of one broker.
    #[error(
        "{front} has not the marker of {behind}: start the broker with both settings, once with --accept \
         backups, which marks it"
    )]
    NotMarked {
        /// Where it would be copied to.
        front: String,
        /// Where from.
        behind: String,
    },
    /// A store did not do its part.
    #[error(transparent)]
    Store(#[from] BackupStoreError),
}

/// Copies all whole backups from the places behind `place` into the one in front, each read back and compared.
/// What is there already is passed over, so a copy that broke off goes on. Where they are to be moved, each
/// goes from the place behind once it is there. `tell` is told of each.
///
/// A broker may use all of them meanwhile.
pub async fn copy(
    place: &SharedPlace,
    keys: &Arc<KeyRing>,
    moves: bool,
    mut tell: impl FnMut(&CopiedBackup),
) -> Result<(), CopyError> {
    let Some(front) = place.front() else {
        return Err(CopyError::NothingBehind);
    };
    let front_marker = front.marker().await?;
    for behind in place.behind() {
        let marker = behind.marker().await?;
        let is_one = |id| front_marker.as_ref().is_some_and(|front| front.id == id);
        let mark = marker.map(|marker| marker.id);
        let Some(mark) = mark.filter(|id| is_one(id.clone())) else {
            return Err(CopyError::NotMarked {
                front: front.shown(),
                behind: behind.shown(),
            });
        };
        let from_vault = Vault::at(behind, Some(mark.clone()), keys.clone());
        let into_vault = Vault::at(&front, Some(mark), keys.clone());
        let mut all = from_vault.list();
        while let Some(found) = all.try_next().await? {
            let stored = match found {
                Found::Backup(stored) => stored,
                Found::Register(deployment) => {
                    pass_register(&from_vault, &into_vault, &deployment).await?;
                    if moves {
                        from_vault.remove_register(&deployment).await?;
                    }
                    continue;
                }
                Found::Foreign(_) => continue,
            };
            if stored.missing().is_some() {
                continue;
            }
            let (deployment, backup) = (stored.deployment, stored.backup);
            let there = into_vault.stored(&deployment, &backup).await?;
            let mut bytes = 0;
            if there.missing().is_some() {
                bytes = pass_backup(&from_vault, &into_vault, &deployment, &backup).await?;
            }
            if moves {
                from_vault.remove(&deployment, &backup).await?;
            }
            tell(&CopiedBackup {
                deployment,
                backup,
                bytes,
            });
        }
    }
    Ok(())
}

/// Copies a backup; returns how many bytes. No key is needed: what arrives are the bytes that were stored, open or not.
async fn pass_backup(
    from: &Vault,
    into: &Vault,
    deployment: &DeploymentId,
    backup: &BackupId,
) -> Result<u64, BackupStoreError> {
    let read = || from.read_manifest_text(deployment, backup);
    let (_, mut manifest) = read().await?;
    let mut bytes = pass(from, into, &ObjectName::snapshot_of(&manifest)).await?;
    into.verify_object(&manifest).await?;
    let name = ObjectName::manifest(deployment, backup);
    loop {
        bytes += pass(from, into, &name).await?;
        // A broker may have sealed it anew meanwhile.
        let (_, now) = read().await?;
        if now == manifest {
            return Ok(bytes);
        }
        manifest = now;
    }
}

/// Copies the register of a deployment, unless the place in front has one: a broker has kept that up to date, too.
async fn pass_register(
    from: &Vault,
    into: &Vault,
    deployment: &DeploymentId,
) -> Result<(), BackupStoreError> {
    let name = ObjectName::register(deployment);
    match into.store.get(&name, 0).await {
        Err(BackupStoreError::NotFound(_)) => {}
        there => return there.map(drop),
    }
    let read = || from.read_register_text(deployment);
    let mut register = read().await?;
    while register.is_some() {
        pass(from, into, &name).await?;
        // A broker may have written it anew meanwhile.
        let now = read().await?;
        if now == register {
            break;
        }
        register = now;
    }
    Ok(())
}

async fn pass(from: &Vault, into: &Vault, name: &ObjectName) -> Result<u64, BackupStoreError> {
    into.store.put(name, from.store.get(name, 0).await?).await
}
