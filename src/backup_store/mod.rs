//! Where the bytes of backups live.
//!
//! An object appears whole under its name or not at all, and stays until it is deleted. Names are
//! made by the broker from its own ids alone (see [`object`]). What is stored is trusted only
//! after it was read back (see [`pipeline`]).

use std::{io, sync::Arc};

use async_trait::async_trait;

use crate::{model::failure::chain, stream::ByteStream};

pub mod archive;
pub mod folder;
mod gauge;
pub mod object;
pub mod pipeline;

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum BackupStoreError {
    /// There is no object of that name.
    #[error("the backup store has no object {0}")]
    NotFound(String),
    /// What is there is not the store that the broker knows.
    #[error(
        "{folder} is not the backup store that the broker knows ({reason}): is its disk mounted?"
    )]
    Absent {
        /// Where it was looked for.
        folder: String,
        /// What does not fit.
        reason: String,
    },
    /// The text does not name an object.
    #[error("{0:?} is not the name of an object")]
    BadName(String),
    /// The disk has not the room.
    #[error("the backup store is full: {needed} bytes needed, {free} bytes free")]
    Full {
        /// Bytes that were needed, as far as was known.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// The bytes are not those that were stored.
    #[error("object {object} is damaged: {reason}")]
    Damaged {
        /// The object's name.
        object: String,
        /// What does not fit.
        reason: String,
    },
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
    /// Takes back out what [`io::Error::from`] packed for the way through a [`ByteStream`]; an
    /// error that is none of ours becomes what `otherwise` makes of it.
    pub fn unpack(error: io::Error, otherwise: impl FnOnce(io::Error) -> Self) -> Self {
        error.downcast().unwrap_or_else(otherwise)
    }

    /// What the failure of a stream that was being stored means: the source's fault, never the
    /// store's.
    pub fn of_source(error: io::Error) -> Self {
        Self::unpack(error, |error| Self::BrokenSource(chain(&error)))
    }
}

/// Packed so that it may end a [`ByteStream`]; see [`BackupStoreError::unpack`].
impl From<BackupStoreError> for io::Error {
    fn from(error: BackupStoreError) -> Self {
        let kind = match &error {
            BackupStoreError::NotFound(_) | BackupStoreError::Absent { .. } => {
                io::ErrorKind::NotFound
            }
            BackupStoreError::BadName(_) => io::ErrorKind::InvalidInput,
            BackupStoreError::Full { .. } => io::ErrorKind::StorageFull,
            BackupStoreError::Damaged { .. } | BackupStoreError::BrokenSource(_) => {
                io::ErrorKind::InvalidData
            }
            BackupStoreError::Io { source, .. } => source.kind(),
        };
        io::Error::new(kind, error)
    }
}

/// A place for objects. Every method refuses what [`object::is_name`] refuses, and does nothing
/// where [`BackupStore::check`] fails.
#[async_trait]
pub trait BackupStore: Send + Sync {
    /// Fails when what is there is not the store that the broker knows, as when a disk is not
    /// mounted: nothing is missing then, and nothing may be written or deleted.
    async fn check(&self) -> Result<(), BackupStoreError>;

    /// Stores all of `content` under `name`, durably, replacing an object of that name; returns
    /// the number of bytes. When the stream or the store fails, or the call is dropped, nothing
    /// new is left under `name`. The stream's own failure comes out as
    /// [`BackupStoreError::of_source`] has it.
    async fn put(&self, name: &str, content: ByteStream) -> Result<u64, BackupStoreError>;

    /// Opens the object for reading.
    async fn get(&self, name: &str) -> Result<ByteStream, BackupStoreError>;

    /// Removes the object and what unfinished puts left of it; one that is not there is fine.
    async fn delete(&self, name: &str) -> Result<(), BackupStoreError>;

    /// The names that begin with `prefix`, sorted. A name of which there is nothing but what an
    /// unfinished put left is among them, so that deleting every listed name leaves nothing.
    async fn list(&self, prefix: &str) -> Result<Vec<String>, BackupStoreError>;

    /// Fails when `bytes` more would not fit, where the store can tell.
    async fn room_for(&self, bytes: u64) -> Result<(), BackupStoreError>;
}

/// A store, shared.
pub type SharedBackupStore = Arc<dyn BackupStore>;

#[cfg(test)]
mod samples;
