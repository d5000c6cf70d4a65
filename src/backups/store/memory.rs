//! Objects in memory, for tests: everything is gone with the last copy of the store.
//!
//! It holds to the same contract as the stores that last, so that what lies above them can be tested
//! without a disk. No setting leads here. Tests may fill it, take it away and leave behind what a
//! broker leaves that is killed.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};

use super::{BackupStore, NameStream, StorePlace};
use crate::{
    backups::{BackupStoreError, ObjectName},
    model::{ids::FolderMark, limits::CHUNK_BYTES},
    stream::ByteStream,
};

/// A store in memory. Copies are the same store.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<ObjectName, Bytes>,
    /// Of what there were puts that broke off, and how old that is; it grows no older.
    unfinished: Vec<(ObjectName, Duration)>,
    /// How many bytes have room; none: as many as come.
    bytes_max: Option<u64>,
    is_away: bool,
}

impl State {
    fn check(&self) -> Result<(), BackupStoreError> {
        if !self.is_away {
            return Ok(());
        }
        Err(BackupStoreError::Absent {
            folder: "memory".to_owned(),
            reason: "it was taken away".to_owned(),
        })
    }

    fn room_for(&self, needed: u64) -> Result<(), BackupStoreError> {
        let Some(bytes_max) = self.bytes_max else {
            return Ok(());
        };
        let used: u64 = self.objects.values().map(|bytes| bytes.len() as u64).sum();
        let free = bytes_max.saturating_sub(used);
        if needed > free {
            return Err(BackupStoreError::Full {
                needed,
                free: Some(free),
            });
        }
        Ok(())
    }

    fn forget_unfinished(&mut self, name: &ObjectName) {
        self.unfinished.retain(|(unfinished, _)| unfinished != name);
    }
}

impl MemoryStore {
    /// A store that has room for so many bytes.
    pub fn of_size(bytes_max: u64) -> Self {
        let store = Self::default();
        store.state().bytes_max = Some(bytes_max);
        store
    }

    /// Puts the store out of reach (`true`), as a disk that is not mounted, or back.
    pub fn take_away(&self, is_away: bool) {
        self.state().is_away = is_away;
    }

    /// Leaves behind what a put leaves whose broker was killed that long ago.
    pub fn leave_unfinished(&self, name: &ObjectName, age: Duration) {
        self.state().unfinished.push((name.clone(), age));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is there, where the store is.
    fn present(&self) -> Result<MutexGuard<'_, State>, BackupStoreError> {
        let state = self.state();
        state.check()?;
        Ok(state)
    }
}

/// A place with that one store, for a broker of a test.
#[async_trait]
impl StorePlace for MemoryStore {
    fn folder(&self) -> Option<&Path> {
        None
    }

    fn shown(&self) -> String {
        "memory".to_owned()
    }

    async fn make(&self) -> Result<(), BackupStoreError> {
        Ok(())
    }

    fn store(&self, _mark: Option<FolderMark>) -> Arc<dyn BackupStore> {
        Arc::new(self.clone())
    }
}

#[async_trait]
impl BackupStore for MemoryStore {
    async fn check(&self) -> Result<(), BackupStoreError> {
        self.state().check()
    }

    async fn put(
        &self,
        name: &ObjectName,
        mut content: ByteStream,
    ) -> Result<u64, BackupStoreError> {
        self.check().await?;
        let mut object = BytesMut::new();
        while let Some(chunk) = content.next().await {
            object.extend_from_slice(&chunk.map_err(BackupStoreError::of_source)?);
            self.present()?.room_for(object.len() as u64)?;
        }
        let mut state = self.present()?;
        let bytes = object.len() as u64;
        state.forget_unfinished(name);
        state.objects.insert(name.clone(), object.freeze());
        Ok(bytes)
    }

    async fn get(&self, name: &ObjectName, from: u64) -> Result<ByteStream, BackupStoreError> {
        let mut object = match self.present()?.objects.get(name) {
            Some(object) => object.clone(),
            None => return Err(BackupStoreError::NotFound(name.to_string())),
        };
        let before = usize::try_from(from).unwrap_or(usize::MAX);
        let mut rest = object.split_off(before.min(object.len()));
        let chunks = std::iter::from_fn(move || {
            let chunk = rest.split_to(rest.len().min(CHUNK_BYTES));
            (!chunk.is_empty()).then_some(Ok(chunk))
        });
        Ok(stream::iter(chunks).boxed())
    }

    async fn delete(&self, name: &ObjectName) -> Result<(), BackupStoreError> {
        let mut state = self.present()?;
        state.forget_unfinished(name);
        state.objects.remove(name);
        Ok(())
    }

    fn list(&self, prefix: &str) -> NameStream {
        let names = self.present().map(|state| {
            let unfinished = state.unfinished.iter().map(|(name, _)| name);
            let mut names: Vec<ObjectName> = (state.objects.keys().chain(unfinished))
                .filter(|name| name.as_str().starts_with(prefix))
                .cloned()
                .collect();
            names.sort_unstable();
            names.dedup();
            names
        });
        match names {
            Ok(names) => stream::iter(names.into_iter().map(Ok)).boxed(),
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    }

    async fn room_for(&self, bytes: u64) -> Result<(), BackupStoreError> {
        self.present()?.room_for(bytes)
    }

    async fn sweep(&self, older_than: Duration) -> Result<u64, BackupStoreError> {
        let mut state = self.present()?;
        let before = state.unfinished.len();
        state.unfinished.retain(|(_, age)| *age <= older_than);
        Ok((before - state.unfinished.len()) as u64)
    }
}
