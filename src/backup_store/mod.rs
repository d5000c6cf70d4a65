//! Where the bytes of backups live.
//!
//! An object appears whole under its name or not at all, and stays until it is deleted. Names are
//! made by the broker from its own ids alone (see [`object`]).

use std::{io, sync::Arc};

use async_trait::async_trait;

use crate::stream::ByteStream;

pub mod archive;
pub mod folder;
pub mod object;
pub mod pipeline;

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum BackupStoreError {
    /// There is no object of that name.
    #[error("the backup store has no object {0}")]
    NotFound(String),
    /// The disk has not the room.
    #[error("the backup store is full: {needed} bytes needed, {free} bytes free")]
    Full {
        /// Bytes that were asked for.
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

/// A place for objects.
#[async_trait]
pub trait BackupStore: Send + Sync {
    /// Stores all of `content` under `name`, durably, replacing an object of that name; returns
    /// the number of bytes. When the stream or the store fails, nothing is left under `name`.
    async fn put(&self, name: &str, content: ByteStream) -> Result<u64, BackupStoreError>;

    /// Opens the object for reading.
    async fn get(&self, name: &str) -> Result<ByteStream, BackupStoreError>;

    /// Removes the object; one that is not there is fine.
    async fn delete(&self, name: &str) -> Result<(), BackupStoreError>;

    /// The names of all objects that begin with `prefix`, sorted, also of unfinished ones.
    async fn list(&self, prefix: &str) -> Result<Vec<String>, BackupStoreError>;

    /// Fails when `bytes` more would not fit, where the store can tell.
    async fn room_for(&self, bytes: u64) -> Result<(), BackupStoreError>;
}

/// A store, shared.
pub type SharedBackupStore = Arc<dyn BackupStore>;
