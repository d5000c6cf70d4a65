//! The bytes of backups: the [`Vault`], and the stores that it keeps them in.
//!
//! The vault is the one door. It alone knows what a backup consists of (a snapshot and, beside it,
//! its manifest), how these are named, packed and checked, and in which order they go. A
//! [`store`](store::BackupStore) knows names and bytes alone.
//!
//! In: engine → length and hash → zstd → length and hash of the object → store. A snapshot that the
//! engine does not end well never gets its name in the store.
//!
//! Out: store → length and hash of the object → zstd → length and hash of the snapshot → reader.
//! The stream ends well only when both were what was stored. A reader that acts on the first bytes
//! must undo it when the end is an error.
//!
//! Both ways hold a few chunks in memory, whatever the size. All errors of streams made here carry
//! a [`BackupStoreError`] ([`BackupStoreError::unpack`]).

use std::{collections::BTreeSet, io, sync::Arc, time::Duration};

use bytes::BytesMut;
use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};

use self::{
    gauge::{Expecting, Measured, Measuring, gauged},
    store::BackupStore,
};
use crate::{
    model::{
        backup::{Manifest, StoredSnapshot},
        ids::{BackupId, DeploymentId, FolderMark},
        limits::MANIFEST_BYTES_MAX,
    },
    stream::ByteStream,
};

pub mod archive;
mod copy;
mod error;
mod frame;
mod gauge;
mod manifest;
mod name;
pub mod store;

pub use self::{
    copy::{CopiedBackup, CopyError, copy},
    error::BackupStoreError,
    name::ObjectName,
    store::{SharedPlace, StoreSettings, forms, place, place_before, place_in, s3},
};

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

/// Where backups are kept.
#[derive(Clone)]
pub struct Vault {
    store: Arc<dyn BackupStore>,
}

/// What is stored of one backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBackup {
    /// The deployment that it was taken of.
    pub deployment: DeploymentId,
    /// The backup.
    pub backup: BackupId,
    /// Its objects, sorted; also one of which there is only what an unfinished put left.
    pub objects: Vec<ObjectName>,
}

impl StoredBackup {
    /// The first object that it should have and has not.
    pub fn missing(&self) -> Option<ObjectName> {
        let wanted = [
            ObjectName::snapshot(&self.deployment, &self.backup),
            ObjectName::manifest(&self.deployment, &self.backup),
        ];
        wanted.into_iter().find(|name| !self.objects.contains(name))
    }
}

/// What is found in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// All that is stored of one backup.
    Backup(StoredBackup),
    /// An object that is none of ours.
    Foreign(ObjectName),
}

impl Vault {
    /// The vault that keeps backups in `store`.
    pub fn over(store: impl BackupStore + 'static) -> Self {
        Self {
            store: Arc::new(store),
        }
    }

    /// The vault that keeps backups at `place`, in what is there. Where there is a `mark`, it is only used
    /// while its folder has that.
    pub fn at(place: &SharedPlace, mark: Option<FolderMark>) -> Self {
        Self {
            store: place.store(mark),
        }
    }

    /// Fails when what is there is not the store that the broker knows, as when a disk is not
    /// mounted. Nothing is written, deleted or found missing then.
    pub async fn check(&self) -> Result<(), BackupStoreError> {
        self.store.check().await
    }

    /// Fails when `bytes` more would not fit, where the store can tell.
    pub async fn room_for(&self, bytes: u64) -> Result<(), BackupStoreError> {
        self.store.room_for(bytes).await
    }

    /// Stores the snapshot of a backup, in place of one that it may have. `progress` is told the
    /// bytes of the snapshot so far.
    ///
    /// A snapshot that ends with an error is a [`BackupStoreError::BrokenSource`], and nothing is
    /// left of it.
    pub async fn take_in(
        &self,
        deployment: &DeploymentId,
        backup: &BackupId,
        snapshot: ByteStream,
        progress: impl Fn(u64) + Send + Sync + 'static,
    ) -> Result<StoredSnapshot, BackupStoreError> {
        let name = ObjectName::snapshot(deployment, backup);
        let (of_snapshot, of_object) = (Measured::default(), Measured::default());
        let mut passed = 0;
        let snapshot = snapshot.inspect_ok(move |chunk| {
            passed += chunk.len() as u64;
            progress(passed);
        });
        let snapshot = gauged(snapshot.boxed(), Measuring::new(of_snapshot.clone()));
        let object = gauged(frame::compress(snapshot), Measuring::new(of_object.clone()));
        let stored_bytes = self.store.put(&name, object).await?;
        let (Some(snapshot), Some(object)) = (of_snapshot.get(), of_object.get()) else {
            let reason = "the store did not take all of it";
            return Err(BackupStoreError::damaged(&name, reason));
        };
        if stored_bytes != object.bytes {
            let reason = format!("the store took {stored_bytes} of {} bytes", object.bytes);
            return Err(BackupStoreError::damaged(&name, reason));
        }
        Ok(StoredSnapshot {
            snapshot_bytes: snapshot.bytes,
            snapshot_sha256: snapshot.sha256.clone(),
            object_bytes: object.bytes,
            object_sha256: object.sha256.clone(),
            compression: frame::COMPRESSION.to_owned(),
        })
    }

    /// Opens the snapshot of a backup. The stream ends with [`BackupStoreError::Damaged`] when the
    /// object or what is in it is not as its manifest says.
    pub async fn open(&self, manifest: &Manifest) -> Result<ByteStream, BackupStoreError> {
        let (deployment, backup) = (&manifest.deployment_id, &manifest.backup_id);
        self.open_stored(deployment, backup, &manifest.stored).await
    }

    /// Opens the snapshot of a backup that has no manifest yet, as [`Vault::open`] does.
    pub async fn open_stored(
        &self,
        deployment: &DeploymentId,
        backup: &BackupId,
        expected: &StoredSnapshot,
    ) -> Result<ByteStream, BackupStoreError> {
        let name = ObjectName::snapshot(deployment, backup);
        if expected.compression != frame::COMPRESSION {
            let reason = format!("unknown compression {:?}", expected.compression);
            return Err(BackupStoreError::damaged(&name, reason));
        }
        let object = Expecting::new(
            "stored bytes",
            &name,
            expected.object_bytes,
            &expected.object_sha256,
        );
        let snapshot = Expecting::new(
            "snapshot bytes",
            &name,
            expected.snapshot_bytes,
            &expected.snapshot_sha256,
        );
        let stored = gauged(self.read(&name).await?, object);
        Ok(gauged(frame::decompress(stored, &name), snapshot))
    }

    /// Reads the whole snapshot of a backup and fails when it is not as its manifest says.
    pub async fn verify(&self, manifest: &Manifest) -> Result<(), BackupStoreError> {
        let name = ObjectName::snapshot(&manifest.deployment_id, &manifest.backup_id);
        let mut content = self.open(manifest).await?;
        while content
            .try_next()
            .await
            .map_err(unreadable(&name))?
            .is_some()
        {}
        Ok(())
    }

    /// What a user downloads: the [`archive`] of a backup. It ends with an error when the backup
    /// turns out to be damaged.
    pub async fn archive(&self, manifest: &Manifest) -> Result<ByteStream, BackupStoreError> {
        Ok(archive::download(self.open(manifest).await?, manifest))
    }

    /// Stores the manifest beside its snapshot.
    pub async fn write_manifest(&self, manifest: &Manifest) -> Result<(), BackupStoreError> {
        let name = ObjectName::manifest(&manifest.deployment_id, &manifest.backup_id);
        let text = manifest::to_json(manifest);
        if text.len() > MANIFEST_BYTES_MAX {
            // Better no backup than one whose manifest we would refuse to read.
            return Err(too_long(&name));
        }
        let content = stream::once(async { Ok(text) }).boxed();
        self.store.put(&name, content).await.map(drop)
    }

    /// Reads the manifest of a backup.
    pub async fn read_manifest(
        &self,
        deployment: &DeploymentId,
        backup: &BackupId,
    ) -> Result<Manifest, BackupStoreError> {
        let name = ObjectName::manifest(deployment, backup);
        let mut content = self.read(&name).await?;
        let mut text = BytesMut::new();
        while let Some(chunk) = content.try_next().await.map_err(unreadable(&name))? {
            if text.len() + chunk.len() > MANIFEST_BYTES_MAX {
                return Err(too_long(&name));
            }
            text.extend_from_slice(&chunk);
        }
        let damaged = |reason| BackupStoreError::damaged(&name, reason);
        let manifest = manifest::parse(&text).map_err(damaged)?;
        if (&manifest.deployment_id, &manifest.backup_id) != (deployment, backup) {
            return Err(damaged("it belongs to another backup".to_owned()));
        }
        Ok(manifest)
    }

    /// Everything in the store, by backup. Nothing is read but names.
    pub fn list(&self) -> BoxStream<'static, Result<Found, BackupStoreError>> {
        let names = Box::pin(self.store.list("").peekable());
        // What is of one backup stands together, since names come sorted.
        stream::try_unfold(names, |mut names| async move {
            let Some(name) = names.try_next().await? else {
                return Ok(None);
            };
            let Some((deployment, backup)) = name.owner() else {
                return Ok(Some((Found::Foreign(name), names)));
            };
            let prefix = name::of_backup(&deployment, &backup);
            let mut objects = vec![name];
            let is_of_it = |next: &Result<ObjectName, _>| {
                next.as_ref()
                    .is_ok_and(|name| name.as_str().starts_with(&prefix))
            };
            while let Some(next) = names.as_mut().next_if(is_of_it).await {
                objects.push(next?);
            }
            let found = Found::Backup(StoredBackup {
                deployment,
                backup,
                objects,
            });
            Ok(Some((found, names)))
        })
        .boxed()
    }

    /// What is stored of one backup; no objects when it is nothing.
    pub async fn stored(
        &self,
        deployment: &DeploymentId,
        backup: &BackupId,
    ) -> Result<StoredBackup, BackupStoreError> {
        let names = self.store.list(&name::of_backup(deployment, backup));
        Ok(StoredBackup {
            deployment: deployment.clone(),
            backup: backup.clone(),
            objects: names.try_collect().await?,
        })
    }

    /// The backups of a deployment of which anything is stored, newest first: ids sort by age.
    pub async fn backups_of(
        &self,
        deployment: &DeploymentId,
    ) -> Result<Vec<BackupId>, BackupStoreError> {
        let mut ids = BTreeSet::new();
        let mut names = self.store.list(&name::of_deployment(deployment));
        while let Some(name) = names.try_next().await? {
            ids.extend(name.owner().map(|(_, backup)| backup));
        }
        Ok(ids.into_iter().rev().collect())
    }

    /// Deletes what is stored of one backup.
    pub async fn remove(
        &self,
        deployment: &DeploymentId,
        backup: &BackupId,
    ) -> Result<(), BackupStoreError> {
        self.remove_below(&name::of_backup(deployment, backup))
            .await
    }

    /// Deletes what is stored of all backups of a deployment.
    pub async fn remove_all(&self, deployment: &DeploymentId) -> Result<(), BackupStoreError> {
        self.remove_below(&name::of_deployment(deployment)).await
    }

    /// Removes what puts left that broke off, when it is older than that; returns how many.
    pub async fn sweep(&self, older_than: Duration) -> Result<u64, BackupStoreError> {
        self.store.sweep(older_than).await
    }

    /// Manifests go last: while anything is left of a backup, its manifest says whose it was.
    async fn remove_below(&self, prefix: &str) -> Result<(), BackupStoreError> {
        let mut names: Vec<ObjectName> = self.store.list(prefix).try_collect().await?;
        names.sort_by_key(ObjectName::is_manifest);
        for name in names {
            self.store.delete(&name).await?;
        }
        Ok(())
    }

    /// The object's bytes. A failing store is told from a damaged object here, where it is known.
    async fn read(&self, name: &ObjectName) -> Result<ByteStream, BackupStoreError> {
        let content = self.store.get(name, 0).await?;
        let unreadable = unreadable(name);
        Ok(content.map_err(move |e| unreadable(e).into()).boxed())
    }
}

fn unreadable(object: &ObjectName) -> impl Fn(io::Error) -> BackupStoreError + use<> {
    let object = object.clone();
    move |error| BackupStoreError::of_reading(&object, error)
}

fn too_long(object: &ObjectName) -> BackupStoreError {
    BackupStoreError::damaged(
        object,
        format!("it is longer than {MANIFEST_BYTES_MAX} bytes"),
    )
}
