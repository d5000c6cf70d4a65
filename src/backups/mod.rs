//! The bytes of backups: the [`Vault`], and the stores that it keeps them in.
//!
//! The vault is the one door. It alone knows what a backup consists of (a snapshot and, beside it,
//! its manifest), how these are named, packed and checked, and in which order they go. A
//! [`store`](store::BackupStore) knows names and bytes alone.
//!
//! In: engine → length and hash → zstd → sealed frames → length and hash of the object → store. A
//! snapshot that the engine does not end well never gets its name in the store.
//!
//! Out: store → length and hash of the object → frames that open → zstd → length and hash of the
//! snapshot → reader. The stream ends well only when all were what was stored. A reader that acts on
//! the first bytes must undo it when the end is an error.
//!
//! Each object has a key of its own. It stands in the manifest, sealed under the key ring, and nowhere
//! else once the backup is complete: so the manifest goes first when a backup is deleted, and nobody
//! opens what is left. What the store of the broker knows of a backup is compared with its manifest
//! before anything is opened.
//!
//! A backup may be sealed for a key of its tenant instead (`tenant.rs`). Then the broker forgets the object's key as soon
//! as it has read the backup back, and opens it again with a key alone that its tenant gives.
//!
//! Beside the backups of a deployment stands their register, which says what should be there. A backup that goes is
//! taken out of it first, which the registrar sees to.
//!
//! Both ways hold a few chunks in memory, whatever the size. All errors of streams made here carry
//! a [`BackupStoreError`] ([`BackupStoreError::unpack`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use tokio::sync::RwLock;

use self::{
    cipher::ObjectKey,
    gauge::{Expecting, Measured, Measuring, gauged},
    signature::Unfit,
    store::BackupStore,
};
use crate::{
    model::{
        backup::{Manifest, StoredSnapshot},
        ids::{BackupId, DeploymentId, FolderMark, PartId},
        limits::register::MANIFEST_BYTES_MAX,
        upload::Part,
    },
    seal::{KeyRing, SealError},
    stream::ByteStream,
};

pub mod archive;
mod cipher;
mod copy;
mod error;
mod frame;
mod gauge;
mod manifest;
mod mirror;
mod name;
mod offline;
mod register;
mod signature;
pub mod store;
mod tenant;

pub use self::{
    cipher::Identity,
    copy::{CopiedBackup, CopyError, copy},
    error::BackupStoreError,
    mirror::{Healed, IsWanted},
    name::ObjectName,
    offline::{LookError, Looked, Suspect, Verdict, Wanted, verify},
    register::registered,
    signature::Signature,
    store::{SharedPlace, StoreSettings, forms, place, place_before, place_in, s3},
    tenant::{TakenFor, file_key},
};

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

/// Where backups are kept.
#[derive(Clone)]
pub struct Vault {
    store: Arc<dyn BackupStore>,
    keys: Arc<KeyRing>,
    /// Held while a manifest is deleted (by many), or sealed anew (by one): none that was read before its
    /// deletion is written back after it. A broker alone changes the backups of the clusters that it looks
    /// after, so a lock of its process is enough.
    resealing: Arc<RwLock<()>>,
    /// A second store that has a copy of each backup. It is never asked instead of the first one, but where
    /// [`mirror`] says so.
    mirror: Option<Arc<Vault>>,
}

/// What was stored of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenIn {
    /// Its bytes.
    pub stored: StoredSnapshot,
    /// The key that they are sealed under, sealed under the key ring.
    pub sealed_key: String,
}

/// What came of a look at whether a manifest is sealed under the first key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resealed {
    /// It was already.
    Unchanged,
    /// It is now.
    Renewed,
    /// It is of an earlier version, and what it has of the administrator's credentials is sealed under a key
    /// that is gone. The backup itself needs no key.
    CredentialsLost,
    /// There is none.
    Gone,
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
        let snapshots = ObjectName::snapshots(&self.deployment, &self.backup);
        if !snapshots.iter().any(|name| self.objects.contains(name)) {
            return Some(ObjectName::snapshot(&self.deployment, &self.backup));
        }
        let manifest = ObjectName::manifest(&self.deployment, &self.backup);
        (!self.objects.contains(&manifest)).then_some(manifest)
    }
}

/// What is found in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// All that is stored of one backup.
    Backup(StoredBackup),
    /// The register of a deployment; its backups come before it.
    Register(DeploymentId),
    /// An object that is none of ours.
    Foreign(ObjectName),
}

impl Vault {
    /// The vault that keeps backups in `store`, sealed under `keys`.
    pub fn over(store: impl BackupStore + 'static, keys: Arc<KeyRing>) -> Self {
        Self::of(Arc::new(store), keys)
    }

    /// The vault that keeps backups at `place`, in what is there. Where there is a `mark`, it is only used
    /// while its folder has that.
    pub fn at(place: &SharedPlace, mark: Option<FolderMark>, keys: Arc<KeyRing>) -> Self {
        Self::of(place.store(mark), keys)
    }

    fn of(store: Arc<dyn BackupStore>, keys: Arc<KeyRing>) -> Self {
        Self {
            store,
            keys,
            resealing: Arc::default(),
            mirror: None,
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
        of: &Identity,
        snapshot: ByteStream,
        progress: impl Fn(u64) + Send + Sync + 'static,
    ) -> Result<TakenIn, BackupStoreError> {
        let name = ObjectName::snapshot(&of.deployment, &of.backup);
        let taken = self
            .put_sealed(of, &name, counted(snapshot, progress))
            .await?;
        self.remove_others(of, &name).await?;
        Ok(taken)
    }

    /// Stores some bytes of an upload that becomes a backup.
    pub async fn take_in_part(
        &self,
        of: &Identity,
        part: &PartId,
        content: ByteStream,
    ) -> Result<TakenIn, BackupStoreError> {
        let name = ObjectName::part(&of.deployment, &of.backup, part);
        self.put_sealed(of, &name, content).await
    }

    /// Stores bytes under a name, sealed under a key of their own.
    async fn put_sealed(
        &self,
        of: &Identity,
        name: &ObjectName,
        content: ByteStream,
    ) -> Result<TakenIn, BackupStoreError> {
        let (key, sealed_key) =
            ObjectKey::generate(&self.keys, of).map_err(BackupStoreError::NotSealed)?;
        let seal = |compressed| cipher::seal(compressed, key);
        let stored = self.put_packed(name, content, seal, cipher::SEALING);
        Ok(TakenIn {
            stored: stored.await?,
            sealed_key,
        })
    }

    /// Stores bytes under a name, compressed, and then as `seal` makes them, which is called `sealing`.
    async fn put_packed(
        &self,
        name: &ObjectName,
        content: ByteStream,
        seal: impl FnOnce(ByteStream) -> ByteStream,
        sealing: &str,
    ) -> Result<StoredSnapshot, BackupStoreError> {
        let (of_snapshot, of_object) = (Measured::default(), Measured::default());
        let snapshot = gauged(content, Measuring::new(of_snapshot.clone()));
        let sealed = seal(frame::compress(snapshot));
        let object = gauged(sealed, Measuring::new(of_object.clone()));
        let stored_bytes = self.store.put(name, object).await?;
        let (Some(snapshot), Some(object)) = (of_snapshot.get(), of_object.get()) else {
            let reason = "the store did not take all of it";
            return Err(BackupStoreError::damaged(name, reason));
        };
        if stored_bytes != object.bytes {
            let reason = format!("the store took {stored_bytes} of {} bytes", object.bytes);
            return Err(BackupStoreError::damaged(name, reason));
        }
        Ok(StoredSnapshot {
            snapshot_bytes: snapshot.bytes,
            snapshot_sha256: snapshot.sha256.clone(),
            object_bytes: object.bytes,
            object_sha256: object.sha256.clone(),
            compression: frame::COMPRESSION.to_owned(),
            sealing: Some(sealing.to_owned()),
        })
    }

    /// Deletes what was stored otherwise of a backup that was begun anew since: by an earlier version, or for another
    /// key.
    async fn remove_others(
        &self,
        of: &Identity,
        kept: &ObjectName,
    ) -> Result<(), BackupStoreError> {
        let stored = self.stored(&of.deployment, &of.backup).await?;
        let others = ObjectName::snapshots(&of.deployment, &of.backup);
        for name in others.iter().filter(|name| *name != kept) {
            if stored.objects.contains(name) {
                self.store.delete(name).await?;
            }
        }
        Ok(())
    }

    /// Opens the snapshot of a backup. The stream ends with [`BackupStoreError::Damaged`] when the
    /// object or what is in it is not as `manifest` says, which is what the broker's store knows, or what
    /// was read from here. What stands beside the object has to say the same. One that is sealed for its tenant's key
    /// is not opened.
    pub async fn open(&self, manifest: &Manifest) -> Result<ByteStream, BackupStoreError> {
        tenant::refuse(manifest)?;
        let of = Identity::from(manifest);
        if manifest.stored.sealing.is_none() {
            return self.open_taken(&of, &manifest.stored, None).await;
        }
        let (_, beside) = self.fitting(manifest).await?;
        let key = beside.sealed_key.as_deref();
        self.open_taken(&of, &beside.stored, key).await
    }

    /// Reads all that is stored of a backup, and fails where [`Vault::open`] does, or its stream. `progress` is
    /// told the bytes of the snapshot so far.
    pub async fn read_whole(
        &self,
        manifest: &Manifest,
        progress: impl Fn(u64) + Send,
    ) -> Result<(), BackupStoreError> {
        let name = ObjectName::snapshot_of(manifest);
        read_to_end(self.open(manifest).await?, &name, progress).await
    }

    /// The same of a backup that has no manifest yet.
    pub async fn read_taken(
        &self,
        of: &Identity,
        expected: &StoredSnapshot,
        sealed_key: Option<&str>,
        progress: impl Fn(u64) + Send,
    ) -> Result<(), BackupStoreError> {
        let name = ObjectName::snapshot(&of.deployment, &of.backup);
        let snapshot = self.open_taken(of, expected, sealed_key).await?;
        read_to_end(snapshot, &name, progress).await
    }

    /// Opens the snapshot of a backup that has no manifest yet, as [`Vault::open`] does. One that an earlier
    /// version has stored has no key.
    pub async fn open_taken(
        &self,
        of: &Identity,
        expected: &StoredSnapshot,
        sealed_key: Option<&str>,
    ) -> Result<ByteStream, BackupStoreError> {
        let name = match expected.sealing {
            Some(_) => ObjectName::snapshot(&of.deployment, &of.backup),
            None => ObjectName::clear_snapshot(&of.deployment, &of.backup),
        };
        let key = match (&expected.sealing, sealed_key) {
            (None, _) => None,
            (Some(_), None) => {
                let reason = "there is no key to it";
                return Err(BackupStoreError::damaged(&name, reason));
            }
            (Some(_), Some(sealed)) => {
                let key = ObjectKey::open(&self.keys, of, sealed);
                Some(key.map_err(|e| BackupStoreError::of_seal(&name, "its key", e))?)
            }
        };
        unpacked(self.read(&name).await?, &name, expected, key)
    }

    /// Opens what came of an upload, from the first of `parts` to the last. The stream ends with
    /// [`BackupStoreError::Damaged`] where one is not what was stored.
    pub fn open_parts(&self, of: &Identity, parts: Vec<Part>) -> ByteStream {
        let (vault, of) = (self.clone(), of.clone());
        let opened = stream::iter(parts).then(move |part| {
            let (vault, of) = (vault.clone(), of.clone());
            async move { vault.open_part(&of, &part).await.map_err(io::Error::from) }
        });
        opened.try_flatten().boxed()
    }

    async fn open_part(&self, of: &Identity, part: &Part) -> Result<ByteStream, BackupStoreError> {
        let name = ObjectName::part(&of.deployment, &of.backup, &part.id);
        let key = ObjectKey::open(&self.keys, of, &part.sealed_key)
            .map_err(|e| BackupStoreError::of_seal(&name, "its key", e))?;
        unpacked(self.read(&name).await?, &name, &part.stored, Some(key))
    }

    /// Deletes one part of an upload.
    pub async fn remove_part(&self, of: &Identity, part: &PartId) -> Result<(), BackupStoreError> {
        let name = ObjectName::part(&of.deployment, &of.backup, part);
        self.store.delete(&name).await
    }

    /// Deletes all parts of an upload. What was made of them stays.
    pub async fn remove_parts(&self, of: &Identity) -> Result<(), BackupStoreError> {
        let stored = self.stored(&of.deployment, &of.backup).await?;
        for name in stored.objects.iter().filter(|name| name.is_part()) {
            self.store.delete(name).await?;
        }
        Ok(())
    }

    /// Reads the whole snapshot of a backup and fails when it is not as its manifest says.
    pub async fn verify(&self, manifest: &Manifest) -> Result<(), BackupStoreError> {
        let name = ObjectName::snapshot_of(manifest);
        read_to_end(self.open(manifest).await?, &name, |_| ()).await
    }

    /// Reads the whole object of a backup and fails when its bytes are not those that its manifest tells of.
    /// It needs no key, and does not open it.
    pub async fn verify_object(&self, manifest: &Manifest) -> Result<(), BackupStoreError> {
        let name = ObjectName::snapshot_of(manifest);
        let expected = Expecting::object(&name, &manifest.stored);
        read_to_end(gauged(self.read(&name).await?, expected), &name, |_| ()).await
    }

    /// What a user downloads: the [`archive`] of a backup, with the sealed object where that is for the tenant's key. It
    /// ends with an error when the backup turns out to be damaged.
    pub async fn archive(&self, manifest: &Manifest) -> Result<ByteStream, BackupStoreError> {
        let shown = manifest::shown(manifest, &self.keys);
        let content = match manifest.sealed_for {
            Some(_) => self.read(&ObjectName::snapshot_of(manifest)).await?,
            None => self.open(manifest).await?,
        };
        Ok(archive::download(content, &shown))
    }

    /// What is the same as long as the bytes of the archive of a backup are.
    pub fn archive_tag(&self, manifest: &Manifest) -> String {
        archive::tag(&manifest::shown(manifest, &self.keys))
    }

    /// Stores the manifest beside its snapshot: signed, with all that is sealed in it under the ring's first
    /// key. Returns that key's name.
    pub async fn write_manifest(&self, manifest: &Manifest) -> Result<String, BackupStoreError> {
        let name = ObjectName::manifest(&manifest.deployment_id, &manifest.backup_id);
        let opens = |error| BackupStoreError::of_seal(&name, "what is sealed in it", error);
        let renewed = manifest::renewed(manifest, &self.keys).map_err(opens)?;
        let manifest = renewed.unwrap_or_else(|| manifest.clone());
        let manifest = match manifest.stored.sealing {
            Some(_) => signature::signed(manifest, &self.keys),
            None => manifest,
        };
        let text = signature::to_json(&manifest);
        if text.len() > MANIFEST_BYTES_MAX {
            // Better no backup than one whose manifest we would refuse to read.
            return Err(too_long(&name, MANIFEST_BYTES_MAX));
        }
        let content = stream::once(async { Ok(text) }).boxed();
        self.store.put(&name, content).await?;
        Ok(self.keys.first().to_owned())
    }

    /// Whether backups are locked where they are stored, or in the mirror.
    pub fn locks(&self) -> bool {
        self.store.locks() || self.mirror.as_ref().is_some_and(|of| of.locks())
    }

    /// Has what is stored of a backup kept for as long as its manifest says, where the store locks.
    pub async fn lock(
        &self,
        manifest: &Manifest,
        now: DateTime<Utc>,
    ) -> Result<(), BackupStoreError> {
        let Some(until) = manifest.locked_until.filter(|until| *until > now) else {
            return Ok(());
        };
        let (deployment, backup) = (&manifest.deployment_id, &manifest.backup_id);
        for name in [
            ObjectName::snapshot_of(manifest),
            ObjectName::manifest(deployment, backup),
        ] {
            self.store.lock(&name, until).await?;
        }
        Ok(())
    }

    /// Reads the manifest of a backup, which has to be one that a broker with this ring wrote, as it wrote it.
    pub async fn read_manifest(
        &self,
        deployment: &DeploymentId,
        backup: &BackupId,
    ) -> Result<Manifest, BackupStoreError> {
        Ok(self.read_own(deployment, backup).await?.1)
    }

    /// The same, with its text.
    async fn read_own(
        &self,
        deployment: &DeploymentId,
        backup: &BackupId,
    ) -> Result<(Bytes, Manifest), BackupStoreError> {
        let (text, manifest) = self.read_manifest_text(deployment, backup).await?;
        let name = ObjectName::manifest(deployment, backup);
        manifest::check_own(&text, &manifest, &self.keys).map_err(|unfit| match unfit {
            Unfit::Form(reason) => BackupStoreError::damaged(&name, reason),
            Unfit::Seal(what, error) => BackupStoreError::of_seal(&name, what, error),
        })?;
        Ok((text, manifest))
    }

    /// The same of a backup that the broker knows: it has to say what is known.
    async fn fitting(&self, known: &Manifest) -> Result<(Bytes, Manifest), BackupStoreError> {
        let (deployment, backup) = (&known.deployment_id, &known.backup_id);
        let (text, found) = self.read_own(deployment, backup).await?;
        if found.bare() != known.bare() {
            let name = ObjectName::manifest(deployment, backup);
            let reason = "it is not the one that the broker wrote for this backup last";
            return Err(BackupStoreError::damaged(&name, reason));
        }
        Ok((text, found))
    }

    /// Reads the manifest of a backup with its text, and looks neither at its signature nor at what is sealed:
    /// it may be anybody's.
    async fn read_manifest_text(
        &self,
        deployment: &DeploymentId,
        backup: &BackupId,
    ) -> Result<(Bytes, Manifest), BackupStoreError> {
        let name = ObjectName::manifest(deployment, backup);
        let text = self.read_text(&name, MANIFEST_BYTES_MAX).await?;
        let damaged = |reason| BackupStoreError::damaged(&name, reason);
        let manifest = manifest::parse(&text).map_err(damaged)?;
        if (&manifest.deployment_id, &manifest.backup_id) != (deployment, backup) {
            return Err(damaged("it belongs to another backup".to_owned()));
        }
        Ok((text, manifest))
    }

    /// Reads an object that has no more than that many bytes.
    async fn read_text(
        &self,
        name: &ObjectName,
        bytes_max: usize,
    ) -> Result<Bytes, BackupStoreError> {
        let mut content = self.read(name).await?;
        let mut text = BytesMut::new();
        while let Some(chunk) = content.try_next().await.map_err(unreadable(name))? {
            if text.len() + chunk.len() > bytes_max {
                return Err(too_long(name, bytes_max));
            }
            text.extend_from_slice(&chunk);
        }
        Ok(text.freeze())
    }

    /// Sees to it that all that is sealed in the manifest of a backup is so under the ring's first key. The
    /// object stays what it is. It may be done again, and broken off at any place.
    pub async fn reseal(
        &self,
        deployment: &DeploymentId,
        backup: &BackupId,
        now: DateTime<Utc>,
    ) -> Result<Resealed, BackupStoreError> {
        let _alone = self.resealing.write().await;
        let manifest = match self.read_manifest(deployment, backup).await {
            Err(BackupStoreError::NotFound(_)) => return Ok(Resealed::Gone),
            manifest => manifest?,
        };
        let name = ObjectName::manifest(deployment, backup);
        let renewed = match manifest::renewed(&manifest, &self.keys) {
            Ok(Some(renewed)) => renewed,
            Ok(None) => {
                // It may have broken off before this.
                self.lock(&manifest, now).await?;
                return Ok(Resealed::Unchanged);
            }
            Err(SealError::UnknownKey(_)) if manifest.stored.sealing.is_none() => {
                return Ok(Resealed::CredentialsLost);
            }
            Err(error) => {
                let what = "what is sealed in it";
                return Err(BackupStoreError::of_seal(&name, what, error));
            }
        };
        let text: Bytes = signature::to_json(&renewed);
        self.store.replace(&name, text).await?;
        // The older one is locked still, and this one is another version.
        self.lock(&renewed, now).await?;
        Ok(Resealed::Renewed)
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
                let found = match name.register_of() {
                    Some(deployment) => Found::Register(deployment),
                    None => Found::Foreign(name),
                };
                return Ok(Some((found, names)));
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

    /// The backups of a deployment of which a part is missing, or all, out of `expected`. Nothing is read but names.
    pub async fn missing_of(
        &self,
        deployment: &DeploymentId,
        expected: impl IntoIterator<Item = BackupId>,
    ) -> Result<Vec<BackupId>, BackupStoreError> {
        let mut objects: BTreeMap<BackupId, Vec<ObjectName>> = BTreeMap::new();
        let mut names = self.store.list(&name::of_deployment(deployment));
        while let Some(name) = names.try_next().await? {
            if let Some((_, backup)) = name.owner() {
                objects.entry(backup).or_default().push(name);
            }
        }
        let is_missing = |backup: &BackupId| {
            let stored = StoredBackup {
                deployment: deployment.clone(),
                backup: backup.clone(),
                objects: objects.remove(backup).unwrap_or_default(),
            };
            stored.missing().is_some()
        };
        Ok(expected.into_iter().filter(is_missing).collect())
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
        let swept = self.store.sweep(older_than).await?;
        match &self.mirror {
            Some(mirror) => Ok(swept + mirror.store.sweep(older_than).await?),
            None => Ok(swept),
        }
    }

    /// Manifests go first: nobody opens an object whose key is gone.
    async fn remove_below(&self, prefix: &str) -> Result<(), BackupStoreError> {
        let names: Vec<ObjectName> = self.store.list(prefix).try_collect().await?;
        let (manifests, objects): (Vec<_>, Vec<_>) =
            names.into_iter().partition(ObjectName::is_manifest);
        for name in manifests {
            let _with_others = self.resealing.read().await;
            self.store.delete(&name).await?;
        }
        for name in objects {
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

/// The snapshot in an object of that name, for which there is a key where it is sealed. The stream ends with
/// [`BackupStoreError::Damaged`] when one of them is not as `expected` says.
fn unpacked(
    object: ByteStream,
    name: &ObjectName,
    expected: &StoredSnapshot,
    key: Option<ObjectKey>,
) -> Result<ByteStream, BackupStoreError> {
    if let Some(sealing) = &expected.sealing
        && sealing != cipher::SEALING
    {
        return Err(unknown(name, "sealing", sealing));
    }
    snapshot_in(object, name, expected, |stored| match key {
        Some(key) => cipher::unseal(stored, key, name),
        None => stored,
    })
}

/// The same of an object that `unseal` opens.
fn snapshot_in(
    object: ByteStream,
    name: &ObjectName,
    expected: &StoredSnapshot,
    unseal: impl FnOnce(ByteStream) -> ByteStream,
) -> Result<ByteStream, BackupStoreError> {
    if expected.compression != frame::COMPRESSION {
        return Err(unknown(name, "compression", &expected.compression));
    }
    let stored = gauged(object, Expecting::object(name, expected));
    let snapshot = Expecting::snapshot(name, expected);
    Ok(gauged(frame::decompress(unseal(stored), name), snapshot))
}

fn unknown(object: &ObjectName, what: &str, of: &str) -> BackupStoreError {
    BackupStoreError::damaged(object, format!("unknown {what} {of:?}"))
}

/// The same content; `progress` is told its bytes so far.
fn counted(content: ByteStream, progress: impl Fn(u64) + Send + Sync + 'static) -> ByteStream {
    let mut passed = 0;
    let counted = content.inspect_ok(move |chunk| {
        passed += chunk.len() as u64;
        progress(passed);
    });
    counted.boxed()
}

/// Reads what is of the object `of`, and tells `progress` how many bytes have passed.
async fn read_to_end(
    mut content: ByteStream,
    of: &ObjectName,
    progress: impl Fn(u64) + Send,
) -> Result<(), BackupStoreError> {
    let mut passed = 0;
    while let Some(chunk) = content.try_next().await.map_err(unreadable(of))? {
        passed += chunk.len() as u64;
        progress(passed);
    }
    Ok(())
}

fn unreadable(object: &ObjectName) -> impl Fn(io::Error) -> BackupStoreError + use<> {
    let object = object.clone();
    move |error| BackupStoreError::of_reading(&object, error)
}

fn too_long(object: &ObjectName, bytes_max: usize) -> BackupStoreError {
    BackupStoreError::damaged(object, format!("it is longer than {bytes_max} bytes"))
}
