//! Several stores as one: new objects go into the first, and what is only in another is read from there.
//!
//! It is how backups move to another place without a gap: the new place in front, the old one behind it. All have
//! the same marker, and all of them have to be in reach: what cannot be looked for is never taken for missing.

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{StreamExt as _, TryFutureExt as _, TryStreamExt as _, stream};

use super::{BackupStore, NameStream, SharedPlace, StorePlace};
use crate::{
    backups::{BackupStoreError, ObjectName},
    model::{ids::FolderMark, marker::Marker},
    stream::ByteStream,
};

/// A place in front of others.
#[derive(Debug)]
pub(super) struct LayeredPlace {
    pub(super) front: SharedPlace,
    pub(super) behind: Vec<SharedPlace>,
}

#[async_trait]
impl StorePlace for LayeredPlace {
    fn folder(&self) -> Option<&Path> {
        self.front.folder()
    }

    fn shown(&self) -> String {
        self.front.shown()
    }

    fn address(&self) -> String {
        self.front.address()
    }

    async fn make(&self) -> Result<(), BackupStoreError> {
        self.front.make().await
    }

    fn store(&self, mark: Option<FolderMark>) -> Arc<dyn BackupStore> {
        let behind = self.behind.iter().map(|place| place.store(mark.clone()));
        Arc::new(Layers::of(self.front.store(mark.clone()), behind.collect()))
    }

    fn front(&self) -> Option<SharedPlace> {
        Some(self.front.clone())
    }

    fn behind(&self) -> &[SharedPlace] {
        &self.behind
    }

    fn keeps_marker(&self) -> bool {
        self.front.keeps_marker()
    }

    async fn marker(&self) -> Result<Option<Marker>, BackupStoreError> {
        self.front.marker().await
    }

    async fn mark(&self, marker: &Marker) -> Result<(), BackupStoreError> {
        self.front.mark(marker).await
    }

    async fn deployments(&self) -> Result<usize, BackupStoreError> {
        self.front.deployments().await
    }
}

/// Several stores as one.
pub struct Layers {
    /// Where new objects go.
    front: Arc<dyn BackupStore>,
    /// Where older ones may be.
    behind: Vec<Arc<dyn BackupStore>>,
}

impl Layers {
    /// The store in front, and those behind it.
    pub fn of(front: Arc<dyn BackupStore>, behind: Vec<Arc<dyn BackupStore>>) -> Self {
        Self { front, behind }
    }

    fn all(&self) -> impl Iterator<Item = &Arc<dyn BackupStore>> {
        [&self.front].into_iter().chain(&self.behind)
    }
}

#[async_trait]
impl BackupStore for Layers {
    async fn check(&self) -> Result<(), BackupStoreError> {
        for store in self.all() {
            store.check().await?;
        }
        Ok(())
    }

    async fn put(&self, name: &ObjectName, content: ByteStream) -> Result<u64, BackupStoreError> {
        self.front.put(name, content).await
    }

    async fn replace(&self, name: &ObjectName, content: Bytes) -> Result<(), BackupStoreError> {
        // From the last on. What breaks off is seen as not done, by what is in front. And a copy from behind
        // that is made meanwhile has the new content, or is found in front, or is told by another look behind.
        let all: Vec<_> = self.all().collect();
        for store in all.into_iter().rev() {
            match store.get(name, 0).await {
                Ok(_) => store.replace(name, content.clone()).await?,
                Err(BackupStoreError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn get(&self, name: &ObjectName, from: u64) -> Result<ByteStream, BackupStoreError> {
        for store in self.all() {
            match store.get(name, from).await {
                Err(BackupStoreError::NotFound(_)) => {}
                found => return found,
            }
        }
        Err(BackupStoreError::NotFound(name.to_string()))
    }

    async fn delete(&self, name: &ObjectName) -> Result<(), BackupStoreError> {
        // From the last on: while it is in front, nothing older is seen.
        let all: Vec<_> = self.all().collect();
        for store in all.into_iter().rev() {
            store.delete(name).await?;
        }
        Ok(())
    }

    fn list(&self, prefix: &str) -> NameStream {
        let lists: Vec<NameStream> = self.all().map(|store| store.list(prefix)).collect();
        merged(lists)
    }

    fn locks(&self) -> bool {
        self.front.locks()
    }

    async fn lock(&self, name: &ObjectName, until: DateTime<Utc>) -> Result<(), BackupStoreError> {
        // What is behind alone was stored before there was anything to lock it.
        match self.front.lock(name, until).await {
            Err(BackupStoreError::NotFound(_)) => Ok(()),
            locked => locked,
        }
    }

    async fn room_for(&self, bytes: u64) -> Result<(), BackupStoreError> {
        self.front.room_for(bytes).await
    }

    async fn sweep(&self, older_than: Duration) -> Result<u64, BackupStoreError> {
        let mut swept = 0;
        for store in self.all() {
            swept += store.sweep(older_than).await?;
        }
        Ok(swept)
    }
}

/// Lists that are in order as one that is, with each name once.
fn merged(lists: Vec<NameStream>) -> NameStream {
    let begin = async move {
        let mut ahead = Vec::new();
        for mut list in lists {
            let first = list.try_next().await?;
            ahead.push((first, list));
        }
        Ok(stream::try_unfold(ahead, |mut ahead| async move {
            let names = ahead.iter().filter_map(|(name, _)| name.as_ref());
            let Some(next) = names.min().cloned() else {
                return Ok(None);
            };
            for (name, list) in &mut ahead {
                if name.as_ref() == Some(&next) {
                    *name = list.try_next().await?;
                }
            }
            Ok(Some((next, ahead)))
        }))
    };
    begin.try_flatten_stream().boxed()
}
