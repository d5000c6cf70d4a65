//! Backups that are sealed for a key of their tenant: the broker writes them, and cannot open them.
//!
//! The object is a file of age ([`crate::seal::age`]): a header, a nonce, and frames as those of [`super::cipher`]. The
//! header stands in the manifest too, and is signed there, so that a private key is tried without reading the object.
//! Programs that know age and zstd get the snapshot out of the object without the broker.

use std::io;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    BackupStoreError, ObjectName, Vault,
    cipher::{self, Identity, ObjectKey},
    counted,
    gauge::{Expecting, gauged},
    read_to_end, snapshot_in,
};
use crate::{
    model::{
        backup::{Manifest, SEALING_FOR_TENANT, SealedFor, StoredSnapshot},
        upload::Part,
    },
    seal::{
        SealError,
        age::{self, FileKey, HeaderError, PAYLOAD_NONCE_BYTES, PrivateKeys, Recipient},
    },
    stream::ByteStream,
};

#[cfg(test)]
mod tests;

/// What was stored of a snapshot for a key of its tenant.
#[derive(Debug)]
pub struct TakenFor {
    /// Its bytes.
    pub stored: StoredSnapshot,
    /// Whose key opens them.
    pub sealed_for: SealedFor,
    /// The key that opens them until this is dropped: nothing else has it in clear.
    pub key: FileKey,
}

/// The key to the object of a backup, by a private key that it is sealed for; none where its manifest tells of no such
/// key.
pub fn file_key(manifest: &Manifest, keys: &PrivateKeys) -> Option<Result<FileKey, HeaderError>> {
    let of = manifest.sealed_for.as_ref()?;
    let place = Identity::from(manifest).snapshot_context();
    Some(age::unwrap(&of.header, keys, &place))
}

/// Fails where a backup is sealed for a key of its tenant.
pub(super) fn refuse(manifest: &Manifest) -> Result<(), BackupStoreError> {
    match manifest.recipient() {
        None => Ok(()),
        Some(recipient) => Err(BackupStoreError::ForTenant {
            object: ObjectName::snapshot_of(manifest).to_string(),
            recipient: recipient.to_owned(),
        }),
    }
}

impl Vault {
    /// Stores the snapshot of a backup as [`Vault::take_in`] does, sealed for the tenant's key.
    pub async fn take_in_for(
        &self,
        of: &Identity,
        recipient: &Recipient,
        snapshot: ByteStream,
        progress: impl Fn(u64) + Send + Sync + 'static,
    ) -> Result<TakenFor, BackupStoreError> {
        let not_sealed = |_| BackupStoreError::NotSealed(SealError::Random);
        let key = FileKey::generate().map_err(not_sealed)?;
        let header = age::wrap(&key, recipient, &of.snapshot_context()).map_err(not_sealed)?;
        let nonce = age::payload_nonce().map_err(not_sealed)?;
        let of_frames = ObjectKey::bare(key.of_payload(&nonce));
        let front = [Bytes::from(header.clone()), Bytes::copy_from_slice(&nonce)];
        let seal = |compressed| {
            let front = stream::iter(front.map(Ok));
            front.chain(cipher::seal(compressed, of_frames)).boxed()
        };
        let name = ObjectName::tenant_snapshot(&of.deployment, &of.backup);
        let snapshot = counted(snapshot, progress);
        let stored = self.put_packed(&name, snapshot, seal, SEALING_FOR_TENANT);
        let stored = stored.await?;
        self.remove_others(of, &name).await?;
        let sealed_for = SealedFor {
            recipient: recipient.to_string(),
            header,
        };
        Ok(TakenFor {
            stored,
            sealed_for,
            key,
        })
    }

    /// Opens the snapshot of a backup that is sealed for its tenant's key, as [`Vault::open`] does.
    pub async fn open_for(
        &self,
        manifest: &Manifest,
        key: &FileKey,
    ) -> Result<ByteStream, BackupStoreError> {
        self.fitting(manifest).await?;
        let name = ObjectName::snapshot_of(manifest);
        unpacked_for(self.read(&name).await?, manifest, key)
    }

    /// The same of one that was just stored, and has no manifest yet.
    pub async fn open_taken_for(
        &self,
        of: &Identity,
        taken: &TakenFor,
    ) -> Result<ByteStream, BackupStoreError> {
        let name = ObjectName::tenant_snapshot(&of.deployment, &of.backup);
        let opened = Opening {
            name: &name,
            of,
            sealed_for: &taken.sealed_for,
            key: &taken.key,
        };
        opened.snapshot(self.read(&name).await?, &taken.stored)
    }

    /// Looks at all that is stored of a backup that the broker cannot open: whether its manifest says what is known,
    /// and whether the object has the length and the hash that stand there.
    pub async fn look_at_sealed(&self, manifest: &Manifest) -> Result<(), BackupStoreError> {
        self.fitting(manifest).await?;
        self.verify_object(manifest).await
    }

    /// What came of an upload, as [`Vault::open_parts`] has it. The stream ends with [`BackupStoreError::Damaged`] where
    /// that is not what was stored of it for the tenant's key.
    pub fn open_parts_as(
        &self,
        of: &Identity,
        parts: Vec<Part>,
        stored: &StoredSnapshot,
    ) -> ByteStream {
        let name = ObjectName::tenant_snapshot(&of.deployment, &of.backup);
        let expected = Expecting::snapshot(&name, stored);
        gauged(self.open_parts(of, parts), expected)
    }

    /// Reads all that was just stored of a backup, and fails where the stream of [`Vault::open_taken_for`] does.
    pub async fn read_taken_for(
        &self,
        of: &Identity,
        taken: &TakenFor,
        progress: impl Fn(u64) + Send,
    ) -> Result<(), BackupStoreError> {
        let name = ObjectName::tenant_snapshot(&of.deployment, &of.backup);
        read_to_end(self.open_taken_for(of, taken).await?, &name, progress).await
    }
}

/// The snapshot in the object that a manifest tells of, which is sealed for a tenant's key.
pub(super) fn unpacked_for(
    object: ByteStream,
    manifest: &Manifest,
    key: &FileKey,
) -> Result<ByteStream, BackupStoreError> {
    let name = ObjectName::snapshot_of(manifest);
    let Some(sealed_for) = &manifest.sealed_for else {
        let reason = "its manifest does not say whose key it is sealed for";
        return Err(BackupStoreError::damaged(&name, reason));
    };
    let opened = Opening {
        name: &name,
        of: &Identity::from(manifest),
        sealed_for,
        key,
    };
    opened.snapshot(object, &manifest.stored)
}

/// An object, with what opens it.
struct Opening<'a> {
    name: &'a ObjectName,
    of: &'a Identity,
    sealed_for: &'a SealedFor,
    key: &'a FileKey,
}

impl Opening<'_> {
    fn snapshot(
        &self,
        object: ByteStream,
        expected: &StoredSnapshot,
    ) -> Result<ByteStream, BackupStoreError> {
        let place = self.of.snapshot_context();
        if !age::is_of(&self.sealed_for.header, self.key, &place) {
            let reason = "its key is another one's, or the header in its manifest was changed";
            return Err(BackupStoreError::damaged(self.name, reason));
        }
        let header = Bytes::from(self.sealed_for.header.clone());
        let (key, name) = (self.key.clone(), self.name.clone());
        let unseal = |object| unsealed(object, header, key, name);
        snapshot_in(object, self.name, expected, unseal)
    }
}

/// What is sealed in an object that begins with that header.
fn unsealed(object: ByteStream, header: Bytes, key: FileKey, name: ObjectName) -> ByteStream {
    let opened = async move {
        let front_bytes = header.len() + PAYLOAD_NONCE_BYTES;
        let (front, frames) = split(object, front_bytes).await?;
        let nonce = front.strip_prefix(&header[..]);
        let nonce = nonce.and_then(|nonce| <[u8; PAYLOAD_NONCE_BYTES]>::try_from(nonce).ok());
        let Some(nonce) = nonce else {
            let reason = "it does not begin with the header that its manifest has";
            return Err(io::Error::from(BackupStoreError::damaged(&name, reason)));
        };
        let key = ObjectKey::bare(key.of_payload(&nonce));
        Ok(cipher::unseal(frames, key, &name))
    };
    stream::once(opened).try_flatten().boxed()
}

/// The first bytes of a stream, or all where there are fewer, and the rest.
async fn split(mut content: ByteStream, bytes: usize) -> io::Result<(Bytes, ByteStream)> {
    let mut front = BytesMut::with_capacity(bytes);
    let mut rest = Bytes::new();
    while front.len() < bytes {
        let Some(mut chunk) = content.try_next().await? else {
            break;
        };
        let taken = chunk.len().min(bytes - front.len());
        front.extend_from_slice(&chunk.split_to(taken));
        rest = chunk;
    }
    let rest = stream::once(async { Ok(rest) }).chain(content);
    Ok((front.freeze(), rest.boxed()))
}
