//! Backups as objects in a bucket of S3, or of a server that speaks it.
//!
//! An upload in parts shows nothing under its name before it is ended, and an answer that is lost is made up
//! for by asking. An upload that broke off is ended at once where somebody is left to do it; else it is listed
//! under the object's name and goes when the same object is put again or deleted, or with a sweep.
//!
//! Where the bucket keeps versions, deleting means to delete every version that the broker may delete. What a
//! lock holds stays hidden until that lets go, and then for what the bucket's own rules do.
//!
//! Nothing holds more in memory than the parts of an upload that are under way, and one page of a list.

use std::{path::Path as FilePath, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{StreamExt as _, TryFutureExt as _, stream};
use hyper::Method;
use object_store::{ObjectStore as _, ObjectStoreExt as _, PutMode, PutOptions, PutPayload};

use super::{BackupStore, NameStream, SharedPlace, StoreKind, StorePlace, StoreSettings};
use crate::{
    backups::{BackupStoreError, ObjectName, name::is_part},
    folder::MARKER,
    model::{ids::FolderMark, marker::Marker},
    stream::ByteStream,
};

use self::{
    address::{Address, FORM},
    client::Client,
    refusal::{WireError, at_bottom},
};

mod address;
mod client;
mod credentials;
mod features;
mod listing;
mod pace;
mod reading;
mod refusal;
mod settings;
mod upload;
mod wire;

pub use self::settings::{
    Addressing, CredentialSource, DEFAULT_PART_MIB, DEFAULT_PARTS_AT_ONCE,
    DEFAULT_PATIENCE_SECONDS, DEFAULT_REGION, LockMode, MIB_PER_SECOND_MAX, PART_MIB_MAX,
    PART_MIB_MIN, PARTS_AT_ONCE_MAX, PATIENCE_SECONDS_MAX, S3Settings,
};

/// The kind of stores that are in a bucket.
pub(super) const KIND: StoreKind = StoreKind {
    scheme: "s3",
    form: FORM,
    read,
};

fn read(address: &str, settings: &StoreSettings) -> Result<SharedPlace, String> {
    Ok(Arc::new(S3Store::at(address, settings.s3.clone())?))
}

/// Names of the store that are looked at, to tell whose backups are there.
const NAMES_LOOKED_AT: usize = 1000;

/// A store in a bucket.
#[derive(Debug, Clone)]
pub struct S3Store {
    client: Arc<Client>,
    /// What the marker has to say; none: nothing is asked of it.
    mark: Option<FolderMark>,
}

impl S3Store {
    /// The store at `address` (what stands behind `s3://`), whether it is there or not.
    pub fn at(address: &str, settings: S3Settings) -> Result<Self, String> {
        let address = Address::read(address)?;
        Ok(Self {
            client: Arc::new(Client::new(address, settings)?),
            mark: None,
        })
    }

    /// The same store, which is only where this mark is, if there is one.
    pub fn marked(&self, mark: Option<FolderMark>) -> Self {
        Self {
            client: self.client.clone(),
            mark,
        }
    }

    /// Removes the versions of an object that a bucket has kept, as far as they may be removed.
    async fn forget_versions(&self, name: &ObjectName) -> Result<(), WireError> {
        let key = self.client.address.key(name);
        let mut kept = 0;
        let (marks, versions): (Vec<_>, Vec<_>) = listing::versions(&self.client, &key)
            .await?
            .into_iter()
            .partition(|version| version.is_mark);
        // The marks hide what stays: they go last, and only where nothing does.
        for version in versions.into_iter().chain(marks) {
            if version.is_mark && kept > 0 {
                break;
            }
            let query = [("versionId", version.version_id.as_str())];
            match self.client.ask(Method::DELETE, Some(&key), &query).await {
                Ok(_) => {}
                // Locked, or not ours to delete.
                Err(WireError::Refused(refusal)) if (400..500).contains(&refusal.status) => {
                    log::debug!("a version of {name} stays: {refusal}");
                    kept += 1;
                }
                Err(error) => return Err(error),
            }
        }
        if kept > 0 {
            log::info!(
                "{name} is deleted; {kept} of its versions stay in {} for as long as the bucket keeps them",
                self.client.address
            );
        }
        Ok(())
    }
}

#[async_trait]
impl StorePlace for S3Store {
    fn folder(&self) -> Option<&FilePath> {
        None
    }

    fn shown(&self) -> String {
        self.client.address.to_string()
    }

    fn address(&self) -> String {
        self.client.place()
    }

    async fn make(&self) -> Result<(), BackupStoreError> {
        features::look(&self.client).await
    }

    fn store(&self, mark: Option<FolderMark>) -> Arc<dyn BackupStore> {
        Arc::new(self.marked(mark))
    }

    fn keeps_marker(&self) -> bool {
        true
    }

    async fn marker(&self) -> Result<Option<Marker>, BackupStoreError> {
        features::marker(&self.client).await
    }

    async fn mark(&self, marker: &Marker) -> Result<(), BackupStoreError> {
        let failed = self.client.failed("cannot write the marker");
        let mut text = serde_json::to_vec_pretty(marker).unwrap_or_default();
        text.push(b'\n');
        let key = self.client.address.hidden(MARKER);
        if self.marker().await?.is_some() {
            let payload = PutPayload::from(text);
            return self
                .client
                .library
                .put(&key, payload)
                .await
                .map(drop)
                .map_err(failed);
        }
        let options = PutOptions::from(PutMode::Create);
        let written = self
            .client
            .library
            .put_opts(&key, text.clone().into(), options)
            .await;
        if let Err(error) = written {
            let refused = at_bottom(&error);
            let is_there = refused
                .refusal()
                .is_some_and(|refusal| matches!(refusal.status, 409 | 412));
            if !is_there {
                return Err(failed(error));
            }
            // It may be our own, written by a try whose answer was lost.
            if self.marker().await?.as_ref() != Some(marker) {
                return Err(BackupStoreError::Absent {
                    folder: self.shown(),
                    reason: "another broker has just begun to use it; start once more".to_owned(),
                });
            }
        }
        features::probe_conditions(&self.client, Bytes::from(text)).await
    }

    async fn deployments(&self) -> Result<usize, BackupStoreError> {
        let names = listing::first_names(&self.client, NAMES_LOOKED_AT).await?;
        let owners = names.iter().filter_map(|name| Some(name.owner()?.0));
        Ok(owners.collect::<std::collections::BTreeSet<_>>().len())
    }
}

#[async_trait]
impl BackupStore for S3Store {
    async fn check(&self) -> Result<(), BackupStoreError> {
        let Some(mark) = &self.mark else {
            return Ok(());
        };
        let reason = match features::marker(&self.client).await? {
            Some(found) if found.id == *mark => return Ok(()),
            Some(found) => format!("its marker is {}, not {mark}", found.id),
            None => format!("it has no {MARKER}; is it the right bucket and prefix?"),
        };
        Err(BackupStoreError::Absent {
            folder: self.shown(),
            reason,
        })
    }

    async fn put(&self, name: &ObjectName, content: ByteStream) -> Result<u64, BackupStoreError> {
        self.check().await?;
        let key = self.client.address.key(name);
        upload::put(&self.client, &key, name.as_str(), content).await
    }

    async fn get(&self, name: &ObjectName, from: u64) -> Result<ByteStream, BackupStoreError> {
        self.check().await?;
        let key = self.client.address.key(name);
        let content = reading::open(&self.client, &key, name.as_str(), from).await?;
        content.ok_or_else(|| BackupStoreError::NotFound(name.to_string()))
    }

    async fn delete(&self, name: &ObjectName) -> Result<(), BackupStoreError> {
        self.check().await?;
        let key = self.client.address.key(name);
        let failed = self.client.refused(&format!("cannot delete {name}"));
        match self.client.ask(Method::DELETE, Some(&key), &[]).await {
            Ok(answer) => {
                let says = |header| answer.headers.contains_key(header);
                if says("x-amz-delete-marker") || says("x-amz-version-id") {
                    self.forget_versions(name).await.map_err(&failed)?;
                }
            }
            Err(WireError::Refused(refusal)) if refusal.is_absence() => {}
            Err(error) => return Err(failed(error)),
        }
        listing::end_uploads_of(&self.client, &key)
            .await
            .map_err(failed)
    }

    fn locks(&self) -> bool {
        self.client.settings.lock.is_some()
    }

    async fn lock(&self, name: &ObjectName, until: DateTime<Utc>) -> Result<(), BackupStoreError> {
        let Some(mode) = self.client.settings.lock else {
            return Ok(());
        };
        self.check().await?;
        let key = self.client.address.key(name);
        match features::lock(&self.client, &key, mode, until).await {
            Ok(()) => Ok(()),
            Err(WireError::Refused(refusal)) if refusal.is_absence() => {
                Err(BackupStoreError::NotFound(name.to_string()))
            }
            Err(error) => Err(self.client.refused(&format!("cannot lock {name}"))(error)),
        }
    }

    fn list(&self, prefix: &str) -> NameStream {
        let store = self.clone();
        let prefix = prefix.to_owned();
        let begin = async move {
            store.check().await?;
            // No name begins with what is none.
            let (above, last) = prefix.rsplit_once('/').unwrap_or(("", &prefix));
            let is_above =
                above.is_empty() && !prefix.starts_with('/') || above.split('/').all(is_part);
            if !is_above || !(last.is_empty() || is_part(last)) {
                return Ok(stream::empty().boxed());
            }
            Ok(listing::names(store.client, prefix))
        };
        begin.try_flatten_stream().boxed()
    }

    async fn room_for(&self, _bytes: u64) -> Result<(), BackupStoreError> {
        // No server tells how much room is left.
        self.check().await
    }

    async fn sweep(&self, older_than: Duration) -> Result<u64, BackupStoreError> {
        self.check().await?;
        listing::end_old_uploads(&self.client, older_than).await
    }
}
