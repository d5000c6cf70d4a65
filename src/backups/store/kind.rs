//! What is behind the address of a backup store: what the settings say of it, before it is opened.

use std::{fmt, path::Path, sync::Arc};

use async_trait::async_trait;

use super::{BackupStore, StoreSettings};
use crate::{
    backups::BackupStoreError,
    model::{ids::FolderMark, marker::Marker},
};

/// A kind of backup stores. Each reads its own addresses.
#[derive(Debug)]
pub struct StoreKind {
    /// What its addresses have before `://`.
    pub scheme: &'static str,
    /// How they are written, for people: `file:// and an absolute path`.
    pub form: &'static str,
    /// Reads what stands behind `://`. What is wrong with it is told in one line that goes on after the
    /// address.
    pub read: fn(&str, &StoreSettings) -> Result<SharedPlace, String>,
}

/// Where backups are kept. Nothing is begun before the store is made.
#[async_trait]
pub trait StorePlace: fmt::Debug + Send + Sync {
    /// The folder of this machine that is the store; none where it lies elsewhere. Only a folder has a
    /// volume, and is apart from those of clusters; its marker is a file.
    fn folder(&self) -> Option<&Path>;

    /// Where it is, for people.
    fn shown(&self) -> String;

    /// Where it is, in one form for all who look: two places are the same where their addresses are, and one is in
    /// another where its address begins with that of the other and `/`.
    fn address(&self) -> String {
        self.shown()
    }

    /// Makes the store where it is not there yet.
    async fn make(&self) -> Result<(), BackupStoreError>;

    /// The store, whether it is there or not. Where there is a `mark`, it is only the store while its
    /// folder has that.
    fn store(&self, mark: Option<FolderMark>) -> Arc<dyn BackupStore>;

    /// The place where new backups go, of one that has others behind it.
    fn front(&self) -> Option<SharedPlace> {
        None
    }

    /// Places where older backups may be, which are read from and deleted from and never stored into.
    fn behind(&self) -> &[SharedPlace] {
        &[]
    }

    /// Whether a place that is no folder keeps a marker, as folders do.
    fn keeps_marker(&self) -> bool {
        false
    }

    /// The marker; none where there is none.
    async fn marker(&self) -> Result<Option<Marker>, BackupStoreError> {
        Ok(None)
    }

    /// Writes the marker of a place that is no folder. Where there is none yet, it fails when somebody else
    /// writes one at the same moment, as far as the place can tell.
    async fn mark(&self, _marker: &Marker) -> Result<(), BackupStoreError> {
        Ok(())
    }

    /// How many deployments have something in a place that is no folder, as far as a first look tells.
    async fn deployments(&self) -> Result<usize, BackupStoreError> {
        Ok(0)
    }
}

/// Where backups are kept, shared.
pub type SharedPlace = Arc<dyn StorePlace>;
