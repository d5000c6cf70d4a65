//! What goes wrong with the bytes of backups.

use std::io;

use super::name::ObjectName;
use crate::{model::failure::chain, seal::SealError};

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum BackupStoreError {
    /// There is no object of that name.
    #[error("the backup store has no object {0}")]
    NotFound(String),
    /// What is there is not the store that the broker knows.
    #[error("{folder} is not the backup store that the broker knows: {reason}")]
    Absent {
        /// Where it was looked for.
        folder: String,
        /// What does not fit, and what to look at.
        reason: String,
    },
    /// There is not the room.
    #[error("the backup store is full: {needed} bytes needed, {} free", bytes_or_unknown(*.free))]
    Full {
        /// Bytes that were needed, as far as was known.
        needed: u64,
        /// Bytes that are free; none where the store does not tell.
        free: Option<u64>,
    },
    /// The server that keeps the store cannot be reached, or refuses.
    #[error("{doing}: {why}; {advice}")]
    Server {
        /// What was being done, and where.
        doing: String,
        /// What happened, and why.
        why: String,
        /// What to do about it.
        advice: String,
        /// Whether the same may come to something later, without anybody doing anything.
        may_pass: bool,
    },
    /// The bytes are not those that were stored.
    #[error("object {object} is damaged: {reason}")]
    Damaged {
        /// The object's name.
        object: String,
        /// What does not fit.
        reason: String,
    },
    /// It is sealed under a key that the ring lacks.
    #[error(
        "object {object} is sealed under key {key}, which is not in the key ring: put it back, behind the \
         first one"
    )]
    KeyMissing {
        /// The object's name.
        object: String,
        /// The key's name.
        key: String,
    },
    /// It is sealed for a key of its tenant, and no key was given.
    #[error(
        "object {object} is sealed for the key {recipient} of its tenant, which the broker has not: it opens with the \
         private key alone"
    )]
    ForTenant {
        /// The object's name.
        object: String,
        /// The public key.
        recipient: String,
    },
    /// Nothing can be sealed.
    #[error("a backup cannot be sealed")]
    NotSealed(#[source] SealError),
    /// What was being stored broke off or was not whole.
    #[error("the snapshot is not whole: {0}")]
    BrokenSource(String),
    /// The system refused.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl BackupStoreError {
    /// Whether the store is out of reach for now, and nothing is known to be wrong with it.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Server { may_pass: true, .. })
    }

    /// The object of that name is damaged.
    pub(super) fn damaged(object: &ObjectName, reason: impl Into<String>) -> Self {
        Self::Damaged {
            object: object.to_string(),
            reason: reason.into(),
        }
    }

    /// What it means that something in the object of that name does not open: the object is damaged, unless
    /// only the key is missing.
    pub(super) fn of_seal(object: &ObjectName, what: &str, error: SealError) -> Self {
        match error {
            SealError::UnknownKey(key) => Self::KeyMissing {
                object: object.to_string(),
                key,
            },
            error => Self::damaged(object, format!("{what} {error}")),
        }
    }

    /// What the failure of a stream means that reads an object: the store's fault, where the error
    /// does not say more.
    pub(super) fn of_reading(object: &ObjectName, error: io::Error) -> Self {
        Self::unpack(error, |source| Self::Io {
            doing: format!("cannot read {object}"),
            source,
        })
    }

    /// Takes back out what [`io::Error::from`] packed for the way through a
    /// [`ByteStream`](crate::stream::ByteStream); an error that is none of ours becomes what `otherwise` makes of it.
    pub fn unpack(error: io::Error, otherwise: impl FnOnce(io::Error) -> Self) -> Self {
        error.downcast().unwrap_or_else(otherwise)
    }

    /// What the failure of a stream that was being stored means: the source's fault, never the
    /// store's.
    pub fn of_source(error: io::Error) -> Self {
        Self::unpack(error, |error| Self::BrokenSource(chain(&error)))
    }
}

/// Packed so that it may end a [`ByteStream`](crate::stream::ByteStream); see
/// [`BackupStoreError::unpack`].
impl From<BackupStoreError> for io::Error {
    fn from(error: BackupStoreError) -> Self {
        let kind = match &error {
            BackupStoreError::NotFound(_) | BackupStoreError::Absent { .. } => {
                io::ErrorKind::NotFound
            }
            BackupStoreError::Full { .. } => io::ErrorKind::StorageFull,
            BackupStoreError::Damaged { .. } | BackupStoreError::BrokenSource(_) => {
                io::ErrorKind::InvalidData
            }
            BackupStoreError::Server { .. }
            | BackupStoreError::KeyMissing { .. }
            | BackupStoreError::ForTenant { .. }
            | BackupStoreError::NotSealed(_) => io::ErrorKind::Other,
            BackupStoreError::Io { source, .. } => source.kind(),
        };
        io::Error::new(kind, error)
    }
}

fn bytes_or_unknown(bytes: Option<u64>) -> String {
    bytes.map_or_else(
        || "it does not tell how many".to_owned(),
        |bytes| format!("{bytes} bytes"),
    )
}
