//! The mirror: a second store that has a copy of each complete backup, and from which what is spoiled in the first
//! is put back.
//!
//! What is copied are the bytes that were stored, sealed as they are. Nothing counts as a copy, and nothing is put
//! back, that is not what the backup's manifest tells of: a manifest of our own signature, which says what the
//! broker's store knows, and an object of the length and hash that stand in it.

use chrono::{DateTime, Utc};
use futures::{StreamExt as _, future::BoxFuture, future::ready, stream};

use super::{
    BackupStoreError, Identity, ObjectName, SharedPlace, Vault,
    gauge::{Expecting, gauged},
};
use crate::{
    model::{
        backup::Manifest,
        ids::{BackupId, DeploymentId, FolderMark},
        register::Register,
    },
    stream::ByteStream,
};

/// What was put back of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Healed {
    /// Bytes of its object; 0: that was whole.
    pub bytes: u64,
    /// The key that its manifest is sealed under now; none: that was whole.
    pub sealed_under: Option<String>,
}

/// Whether a backup is wanted still: nothing is put back of one that was given up meanwhile. None: nobody can tell.
pub type IsWanted<'a> = dyn Fn() -> BoxFuture<'a, Option<bool>> + Send + Sync + 'a;

impl Vault {
    /// The same, with the mirror at `place`, which is only used while it has that mark.
    pub fn with_mirror(self, place: &SharedPlace, mark: Option<FolderMark>) -> Self {
        let mirror = Self::at(place, mark, self.keys.clone());
        Self {
            mirror: Some(mirror.into()),
            ..self
        }
    }

    /// Whether there is a mirror.
    pub fn has_mirror(&self) -> bool {
        self.mirror.is_some()
    }

    /// The mirror, as a vault of its own.
    fn mirror(&self) -> Result<&Self, BackupStoreError> {
        let none = || BackupStoreError::NotFound("of a mirror: there is none".to_owned());
        self.mirror.as_deref().ok_or_else(none)
    }

    /// Whether all bytes of a backup's copy in the mirror are what was stored.
    pub async fn is_copy_whole(&self, manifest: &Manifest) -> Result<bool, BackupStoreError> {
        is_whole(self.mirror()?.verify_object(manifest).await)
    }

    /// Copies into the mirror what it has not got of a backup; returns how many bytes of its object. An object that
    /// is there already is taken for what it should be: [`Vault::is_copy_whole`] tells. It may be broken off at any
    /// place, and done again.
    pub async fn copy_to_mirror(
        &self,
        known: &Manifest,
        now: DateTime<Utc>,
    ) -> Result<u64, BackupStoreError> {
        let mirror = self.mirror()?;
        let (deployment, backup) = (&known.deployment_id, &known.backup_id);
        self.fitting(known).await?;
        let object = ObjectName::snapshot_of(known);
        let stored = mirror.stored(deployment, backup).await?;
        let mut bytes = 0;
        if !stored.objects.contains(&object) {
            mirror.room_for(known.stored.object_bytes).await?;
            bytes = pass_object(self, mirror, known).await?;
        }
        // The newest one: it may have been sealed anew meanwhile.
        let (text, _) = self.fitting(known).await?;
        let name = ObjectName::manifest(deployment, backup);
        let content = stream::once(ready(Ok(text))).boxed();
        mirror.store.put(&name, content).await?;
        mirror.lock(known, now).await?;
        Ok(bytes)
    }

    /// Deletes the object of a copy in the mirror, so that the next one is made anew.
    pub async fn remove_copied_object(&self, known: &Manifest) -> Result<(), BackupStoreError> {
        let mirror = self.mirror()?;
        mirror.store.delete(&ObjectName::snapshot_of(known)).await
    }

    /// What a user downloads, as [`Vault::archive`] has it, out of the mirror.
    pub async fn archive_in_mirror(
        &self,
        manifest: &Manifest,
    ) -> Result<ByteStream, BackupStoreError> {
        self.mirror()?.archive(manifest).await
    }

    /// Deletes what the mirror has of a backup.
    pub async fn remove_from_mirror(
        &self,
        deployment: &DeploymentId,
        backup: &BackupId,
    ) -> Result<(), BackupStoreError> {
        self.mirror()?.remove(deployment, backup).await
    }

    /// What [`Vault::read_register`] reads, in the mirror.
    pub async fn read_register_in_mirror(
        &self,
        deployment: &DeploymentId,
    ) -> Result<Option<Register>, BackupStoreError> {
        self.mirror()?.read_register(deployment).await
    }

    /// What [`Vault::write_register`] does, in the mirror, of what that has of a deployment.
    pub async fn write_register_in_mirror(
        &self,
        register: Register,
        present: Option<&Register>,
    ) -> Result<(), BackupStoreError> {
        let register = Register {
            of_mirror: true,
            ..register
        };
        let written = self.mirror()?.write_register(register, present).await;
        written.map(drop)
    }

    /// Deletes the register of a deployment of which the mirror has nothing any more.
    pub async fn remove_register_from_mirror(
        &self,
        deployment: &DeploymentId,
    ) -> Result<(), BackupStoreError> {
        self.mirror()?.remove_register(deployment).await
    }

    /// Puts back from the mirror what is spoiled of a backup, or gone; none: it is whole, it is no longer wanted, or
    /// there is no good copy. Fails where a store does not do its part.
    pub async fn put_back(
        &self,
        known: &Manifest,
        is_wanted: &IsWanted<'_>,
        now: DateTime<Utc>,
    ) -> Result<Option<Healed>, BackupStoreError> {
        let Some(mirror) = self.mirror.as_deref() else {
            return Ok(None);
        };
        let of = Identity::from(known);
        let object_is_whole = is_whole(self.verify_object(known).await)?;
        let beside = match self.fitting(known).await {
            Err(BackupStoreError::NotFound(_) | BackupStoreError::Damaged { .. }) => None,
            found => Some(found?.1),
        };
        if object_is_whole && beside.is_some() {
            return Ok(None);
        }
        let copy = match mirror.fitting(known).await {
            Err(BackupStoreError::NotFound(_) | BackupStoreError::Damaged { .. }) => {
                return Ok(None);
            }
            copy => copy?.1,
        };
        let mut put_back = Healed {
            bytes: 0,
            sealed_under: None,
        };
        if !object_is_whole {
            match pass_object(mirror, self, known).await {
                Err(BackupStoreError::NotFound(_) | BackupStoreError::Damaged { .. }) => {
                    return Ok(None);
                }
                bytes => put_back.bytes = bytes?,
            }
        }
        let alone = self.resealing.write().await;
        match is_wanted().await {
            Some(true) => {}
            // The object without its key, which is there or not, is told of as spoiled again.
            None => return Ok(None),
            Some(false) => {
                drop(alone);
                self.remove(&of.deployment, &of.backup).await?;
                return Ok(None);
            }
        }
        if beside.is_none() {
            put_back.sealed_under = Some(self.write_manifest(&copy).await?);
        }
        self.lock(known, now).await?;
        Ok(Some(put_back))
    }
}

/// Stores the object of a backup that is in `from` in `into`, where it is read back. What is not what the manifest
/// tells of gets no name there.
async fn pass_object(
    from: &Vault,
    into: &Vault,
    known: &Manifest,
) -> Result<u64, BackupStoreError> {
    let name = ObjectName::snapshot_of(known);
    let expected = Expecting::object(&name, &known.stored);
    let content = gauged(from.read(&name).await?, expected);
    let bytes = into.store.put(&name, content).await?;
    into.verify_object(known).await?;
    Ok(bytes)
}

fn is_whole(looked: Result<(), BackupStoreError>) -> Result<bool, BackupStoreError> {
    match looked {
        Ok(()) => Ok(true),
        Err(BackupStoreError::NotFound(_) | BackupStoreError::Damaged { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
