//! Stores of objects: a place for bytes under names, which knows nothing of backups.
//!
//! An object appears whole under its name or not at all, and stays until it is deleted.
//! `tests/it/contract/backup_store.rs` has what every store must hold to, and is run on each.

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{
    StreamExt as _,
    future::ready,
    stream::{self, BoxStream},
};

use super::{error::BackupStoreError, name::ObjectName};
use crate::stream::ByteStream;

pub use self::kind::{SharedPlace, StoreKind, StorePlace};

pub mod folder;
mod kind;
pub mod layers;
pub mod memory;
pub mod s3;

/// The kinds of backup stores that an address can name. Another one is a line here.
pub const KINDS: [StoreKind; 2] = [folder::KIND, s3::KIND];

/// What the settings say of stores, beside the address of one.
#[derive(Debug, Clone, Default)]
pub struct StoreSettings {
    /// How buckets are reached.
    pub s3: s3::S3Settings,
}

/// The place that an address leads to, such as `file:///mnt/backups`. What is wrong is told in one line.
pub fn place(address: &str, settings: &StoreSettings) -> Result<SharedPlace, String> {
    let read = KINDS.iter().find_map(|kind| {
        let rest = address.strip_prefix(kind.scheme)?.strip_prefix("://")?;
        Some((kind.read)(rest, settings))
    });
    let read = read.unwrap_or_else(|| Err(format!("is not {}", forms())));
    read.map_err(|reason| format!("{address:?} {reason}"))
}

/// How addresses of all kinds are written, for people.
pub fn forms() -> String {
    KINDS.map(|kind| kind.form).join(", or ")
}

/// The place that is a folder of this machine.
pub fn place_in(folder: PathBuf) -> SharedPlace {
    Arc::new(folder::FolderStore::at(folder))
}

/// A place with others behind it, where older backups may be.
pub fn place_before(front: SharedPlace, behind: Vec<SharedPlace>) -> SharedPlace {
    match behind.is_empty() {
        true => front,
        false => Arc::new(layers::LayeredPlace { front, behind }),
    }
}

/// Names, sorted by their bytes; the first error ends the stream.
pub type NameStream = BoxStream<'static, Result<ObjectName, BackupStoreError>>;

/// A place for objects. A method does nothing where [`BackupStore::check`] fails.
#[async_trait]
pub trait BackupStore: Send + Sync {
    /// Fails when what is there is not the store that the broker knows, as when a disk is not
    /// mounted: nothing is missing then, and nothing may be written or deleted.
    async fn check(&self) -> Result<(), BackupStoreError>;

    /// Stores all of `content` under `name`, durably, replacing an object of that name; returns
    /// the number of bytes. When the stream or the store fails, or the call is dropped, nothing
    /// new is left under `name`. The stream's own failure comes out as
    /// [`BackupStoreError::of_source`] has it. Of two puts of one name at once, one may fail.
    async fn put(&self, name: &ObjectName, content: ByteStream) -> Result<u64, BackupStoreError>;

    /// Stores `content` in place of the object of that name, wherever there is one, as [`BackupStore::put`]
    /// does.
    async fn replace(&self, name: &ObjectName, content: Bytes) -> Result<(), BackupStoreError> {
        let content = stream::once(ready(Ok(content))).boxed();
        self.put(name, content).await.map(drop)
    }

    /// Opens the object for reading, from its byte number `from` on, counted from 0; behind its end
    /// there is nothing.
    async fn get(&self, name: &ObjectName, from: u64) -> Result<ByteStream, BackupStoreError>;

    /// Removes the object and what unfinished puts left of it; one that is not there is fine.
    async fn delete(&self, name: &ObjectName) -> Result<(), BackupStoreError>;

    /// The names that begin with `prefix`, each once. A name of which there is nothing but what an
    /// unfinished put left is among them, so that deleting every listed name leaves nothing. There
    /// may be millions: a store holds only a part of them at a time.
    fn list(&self, prefix: &str) -> NameStream;

    /// Whether objects are locked here, as the settings say.
    fn locks(&self) -> bool {
        false
    }

    /// Has the object of that name, as it is now, kept until then, also when it is deleted or replaced,
    /// where [`BackupStore::locks`] says so.
    async fn lock(
        &self,
        _name: &ObjectName,
        _until: DateTime<Utc>,
    ) -> Result<(), BackupStoreError> {
        Ok(())
    }

    /// Fails when `bytes` more would not fit, where the store can tell.
    async fn room_for(&self, bytes: u64) -> Result<(), BackupStoreError>;

    /// Removes what unfinished puts left that is older than that, and no object; returns how many
    /// puts it was of. A put that is under way is younger.
    async fn sweep(&self, older_than: Duration) -> Result<u64, BackupStoreError>;
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn an_address_is_read_by_the_kind_that_it_names() {
        let place = |address| super::place(address, &StoreSettings::default());
        let read = place("file:///mnt/backups").expect("a place");
        assert_eq!(read.folder(), Some(Path::new("/mnt/backups")));
        let read = place("s3://backups/broker/").expect("a place");
        assert_eq!(
            (read.folder(), read.shown()),
            (None, "s3://backups/broker".to_owned())
        );
        let refused = |address| place(address).expect_err("refused");
        for wrong in ["", "/mnt/backups", "file:", "gs://bucket"] {
            assert_eq!(refused(wrong), format!("{wrong:?} is not {}", forms()));
        }
        assert_eq!(
            refused("file://backups"),
            "\"file://backups\" is not file:// and an absolute path"
        );
        assert_eq!(
            refused("s3://Bucket"),
            "\"s3://Bucket\" is not s3:// and a bucket, or a bucket, / and a prefix"
        );
    }

    #[test]
    fn every_kind_says_how_its_addresses_are_written() {
        for (at, kind) in KINDS.iter().enumerate() {
            let begins = format!("{}://", kind.scheme);
            assert!(kind.form.starts_with(&begins), "{}", kind.form);
            let mut others = KINDS[..at].iter();
            assert!(others.all(|other| other.scheme != kind.scheme));
        }
    }
}
