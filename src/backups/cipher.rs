//! What lies around a compressed snapshot in its object: frames that are sealed, each under the object's own
//! key, with AES-256-GCM.
//!
//! The frames are those of the STREAM construction (Hoang, Reyhanitabar, Rogaway and Vizár, 2015, with the nonce
//! of RustCrypto's `aead::stream`): a frame's nonce is 7 zero bytes, its number from 0 on in 4 bytes, the
//! highest first, and a byte that is 1 in the last frame and 0 in all others. So a frame opens in its own place
//! alone, and what was cut opens nowhere as an end. The zeros do no harm: a key seals one object and no other.
//! All frames have [`SEALED_FRAME_BYTES`], but for the last one, which may be shorter; each is followed by the
//! 16 bytes of its tag, and there is nothing else in the object.
//!
//! Which backup it is, and which of its objects, is sealed with each frame. So no object stands in for another
//! one, not even where somebody has swapped their keys too.
//!
//! What is sealed for a tenant's key ([`super::tenant`]) has the same frames, as age defines them: under
//! ChaCha20-Poly1305, with nothing beside them.
//!
//! A reader gets the bytes of a frame once it has opened, and holds one frame in memory, as a writer does.

use std::io;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::{error::BackupStoreError, name::ObjectName};
use crate::{
    model::{
        backup::{Backup, Manifest},
        ids::{BackupId, DeploymentId, InstanceId},
        limits::SEALED_FRAME_BYTES,
        upload::Upload,
    },
    seal::{KeyRing, OneUseKey, SealError},
    stream::ByteStream,
};

#[cfg(test)]
mod tests;

/// How objects are sealed, as manifests say it.
pub(super) const SEALING: &str = "aes-256-gcm-stream-64k";
/// Bytes of a frame's tag.
const TAG_BYTES: usize = 16;
/// Bytes in front of a frame's number in its nonce.
const NONCE_PREFIX: [u8; 7] = [0; 7];

/// Whose an object is: it is sealed for this backup, and opens as no other one's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The instance that the backup was taken of.
    pub instance: InstanceId,
    /// That instance's deployment.
    pub deployment: DeploymentId,
    /// The backup.
    pub backup: BackupId,
}

impl From<&Backup> for Identity {
    fn from(backup: &Backup) -> Self {
        Self {
            instance: backup.instance.clone(),
            deployment: backup.deployment.clone(),
            backup: backup.id.clone(),
        }
    }
}

impl From<&Upload> for Identity {
    fn from(upload: &Upload) -> Self {
        Self {
            instance: upload.instance.clone(),
            deployment: upload.deployment.clone(),
            backup: upload.backup.clone(),
        }
    }
}

impl From<&Manifest> for Identity {
    fn from(manifest: &Manifest) -> Self {
        Self {
            instance: manifest.instance_id.clone(),
            deployment: manifest.deployment_id.clone(),
            backup: manifest.backup_id.clone(),
        }
    }
}

impl Identity {
    /// The place that the key of its object is sealed for. No id has the character between them.
    pub fn key_context(&self) -> String {
        format!("backup key {}", self.joined())
    }

    /// What is sealed with each frame of its snapshot, and where a file belongs that is sealed for a tenant.
    pub(super) fn snapshot_context(&self) -> String {
        format!("compose-broker backup\x1fsnapshot\x1f{}", self.joined())
    }

    fn joined(&self) -> String {
        format!(
            "{}\x1f{}\x1f{}",
            self.instance, self.deployment, self.backup
        )
    }
}

/// The key of one object.
pub(super) struct ObjectKey {
    aead: LessSafeKey,
    context: String,
}

impl ObjectKey {
    /// A new one for the snapshot of that backup, and the same sealed under the ring.
    pub(super) fn generate(keys: &KeyRing, of: &Identity) -> Result<(Self, String), SealError> {
        let key = OneUseKey::generate()?;
        let sealed = keys.seal(&of.key_context(), key.bytes())?;
        Ok((Self::of(&key, of)?, sealed))
    }

    /// The one that was sealed for that backup.
    pub(super) fn open(keys: &KeyRing, of: &Identity, sealed: &str) -> Result<Self, SealError> {
        let key = OneUseKey::from_bytes(keys.open(&of.key_context(), sealed)?)?;
        Self::of(&key, of)
    }

    /// One that seals nothing with its frames.
    pub(super) fn bare(key: UnboundKey) -> Self {
        Self {
            aead: LessSafeKey::new(key),
            context: String::new(),
        }
    }

    fn of(key: &OneUseKey, of: &Identity) -> Result<Self, SealError> {
        let unbound = UnboundKey::new(&AES_256_GCM, key.bytes());
        Ok(Self {
            aead: LessSafeKey::new(unbound.map_err(|_| SealError::Malformed)?),
            context: of.snapshot_context(),
        })
    }
}

/// Which frame it is.
#[derive(Debug, Clone, Copy)]
struct At {
    number: u32,
    is_last: bool,
}

impl At {
    fn nonce(self) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[..7].copy_from_slice(&NONCE_PREFIX);
        nonce[7..11].copy_from_slice(&self.number.to_be_bytes());
        nonce[11] = u8::from(self.is_last);
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Seals what passes. The key must have sealed nothing before.
pub(super) fn seal(content: ByteStream, key: ObjectKey) -> ByteStream {
    framed(content, SEALED_FRAME_BYTES, move |at, mut frame| {
        let aad = Aad::from(key.context.as_bytes());
        key.aead
            .seal_in_place_append_tag(at.nonce(), aad, &mut frame)
            .map_err(|_| io::Error::other("a frame of a backup cannot be sealed"))?;
        Ok(frame)
    })
}

/// Opens what passes, which is the object of that name. What does not open ends it with
/// [`BackupStoreError::Damaged`].
pub(super) fn unseal(object: ByteStream, key: ObjectKey, name: &ObjectName) -> ByteStream {
    let name = name.clone();
    let opened = framed(
        object,
        SEALED_FRAME_BYTES + TAG_BYTES,
        move |at, mut frame| {
            let aad = Aad::from(key.context.as_bytes());
            let Ok(plain) = key.aead.open_in_place(at.nonce(), aad, &mut frame) else {
                let reason = format!(
                    "frame {} of its sealed bytes does not open: it was changed, cut, or belongs elsewhere",
                    at.number
                );
                return Err(BackupStoreError::damaged(&name, reason).into());
            };
            let length = plain.len();
            if length == 0 && at.number > 0 {
                let reason = "its last sealed frame is empty";
                return Err(BackupStoreError::damaged(&name, reason).into());
            }
            frame.truncate(length);
            Ok(frame)
        },
    );
    opened
        .try_filter(|chunk| futures::future::ready(!chunk.is_empty()))
        .boxed()
}

/// `content` in frames of that length, but for the last one, each as `turn` makes it. There is a last one also
/// where there is nothing.
fn framed(
    content: ByteStream,
    frame_bytes: usize,
    turn: impl Fn(At, Vec<u8>) -> io::Result<Vec<u8>> + Send + 'static,
) -> ByteStream {
    let begin = Framing {
        content,
        rest: Bytes::new(),
        number: 0,
        frame_bytes,
        turn,
    };
    stream::try_unfold(Some(begin), |at| async move {
        match at {
            Some(framing) => framing.next().await,
            None => Ok(None),
        }
    })
    .boxed()
}

/// A stream on its way into frames, or out of them.
struct Framing<F> {
    content: ByteStream,
    /// What came and is in no frame yet.
    rest: Bytes,
    /// Of the frame that comes next.
    number: u32,
    frame_bytes: usize,
    turn: F,
}

impl<F: Fn(At, Vec<u8>) -> io::Result<Vec<u8>>> Framing<F> {
    /// The next frame, and how it goes on; nothing after the last one.
    async fn next(mut self) -> io::Result<Option<(Bytes, Option<Self>)>> {
        let mut frame = Vec::with_capacity(self.frame_bytes + TAG_BYTES);
        loop {
            if self.rest.is_empty() {
                match self.content.try_next().await? {
                    Some(chunk) => self.rest = chunk,
                    None => {
                        let frame = self.turned(true, frame)?;
                        return Ok(Some((frame, None)));
                    }
                }
                continue;
            }
            // Only now it is known not to be the last one.
            if frame.len() == self.frame_bytes {
                let frame = self.turned(false, frame)?;
                let next = self.number.checked_add(1);
                self.number =
                    next.ok_or_else(|| io::Error::other("too many frames for one key"))?;
                return Ok(Some((frame, Some(self))));
            }
            let taken = self.rest.len().min(self.frame_bytes - frame.len());
            frame.extend_from_slice(&self.rest.split_to(taken));
        }
    }

    fn turned(&self, is_last: bool, frame: Vec<u8>) -> io::Result<Bytes> {
        let at = At {
            number: self.number,
            is_last,
        };
        (self.turn)(at, frame).map(Bytes::from)
    }
}
