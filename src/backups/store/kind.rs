//! What is behind the address of a backup store: what the settings say of it, before it is opened.

use std::{fmt, path::Path, sync::Arc};

use async_trait::async_trait;

use super::BackupStore;
use crate::{backups::BackupStoreError, model::ids::FolderMark};

/// A kind of backup stores. Each reads its own addresses.
#[derive(Debug)]
pub struct StoreKind {
    /// What its addresses have before `://`.
    pub scheme: &'static str,
    /// How they are written, for people: `file:// and an absolute path`.
    pub form: &'static str,
    /// Reads what stands behind `://`. What is wrong with it is told in one line that goes on after the
    /// address.
    pub read: fn(&str) -> Result<SharedPlace, String>,
}

/// Where backups are kept. Nothing is begun before the store is made.
#[async_trait]
pub trait StorePlace: fmt::Debug + Send + Sync {
    /// The folder of this machine that is the store; none where it lies elsewhere. Only a folder has a
    /// marker and a volume, and is apart from those of clusters.
    fn folder(&self) -> Option<&Path>;

    /// Makes the store where it is not there yet.
    async fn make(&self) -> Result<(), BackupStoreError>;

    /// The store, whether it is there or not. Where there is a `mark`, it is only the store while its
    /// folder has that.
    fn store(&self, mark: Option<FolderMark>) -> Arc<dyn BackupStore>;
}

/// Where backups are kept, shared.
pub type SharedPlace = Arc<dyn StorePlace>;
