//! Connections to SQLite that only read, and which thread reads.
//!
//! There are two ways, and a use case chooses by what it reads:
//!
//! - [`Store::read`](super::Store::read): a few rows that an index leads to. The thread that asks reads
//!   them, over a connection of its own with its statements prepared: some microseconds, less than any
//!   other thread could be asked in.
//! - [`Store::scan`](super::Store::scan): what grows with the number of instances, or with the history of
//!   one: lists, pages, what is compared with folders. A blocking thread reads it, since a thread that
//!   serves would keep all its other requests waiting.
//!
//! Pages of the database come from memory, as a rule. Where the disk has to be asked and is slow, short
//! reads take the second way too, until one of them was quick again: so a disk that hangs holds up one
//! request of each serving thread, and not those that need no disk.

use std::{
    cell::RefCell,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use diesel::{
    SqliteConnection,
    r2d2::{ConnectionManager, Pool},
};

use super::{Conn, Link, StoreError, connect, connection_error, prepared, sqlite_pool};
use crate::{caller::Caller, model::limits::STORE_READ_SLOW};

/// Connections of blocking threads.
pub(super) const OF_BLOCKING_THREADS: u32 = 4;

/// The slot of a connection; empty while it is used, and after a read that went wrong.
type Slot = Arc<Mutex<Option<SqliteConnection>>>;
/// A thread's slot, with the id of its store.
type OwnSlot = (u64, Weak<Mutex<Option<SqliteConnection>>>);

thread_local! {
    /// This thread's connections, by the store that has them.
    static OWN: RefCell<Vec<OwnSlot>> =
        const { RefCell::new(Vec::new()) };
}

/// What reads a SQLite database.
pub(super) struct Readers {
    /// The database as SQLite is told of it.
    file: String,
    /// Tells this store from others of the process.
    id: u64,
    /// Those of threads that serve. They end with the store.
    own: Mutex<Vec<Slot>>,
    pool: Pool<ConnectionManager<SqliteConnection>>,
    is_slow: AtomicBool,
}

impl Readers {
    pub(super) fn of(file: &str) -> Result<Self, StoreError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Ok(Self {
            file: file.to_owned(),
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            own: Mutex::default(),
            pool: sqlite_pool(file, OF_BLOCKING_THREADS)?,
            is_slow: AtomicBool::new(false),
        })
    }

    /// Whether the last short read took long.
    pub(super) fn are_slow(&self) -> bool {
        self.is_slow.load(Ordering::Relaxed)
    }

    /// Reads over the connection of this thread.
    pub(super) fn read_here<T>(
        &self,
        work: impl FnOnce(&mut Conn<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let slot = self.slot();
        let taken = lock(&slot).take();
        let mut connection = match taken {
            Some(connection) => connection,
            None => connect(&self.file, true)?,
        };
        let (result, is_sound) = self.timed(|| in_transaction(&mut connection, work));
        // After a panic it is gone with all that was open.
        if is_sound {
            *lock(&slot) = Some(connection);
        }
        result
    }

    /// Reads over a connection of blocking threads; `is_short`: what would have been read on the
    /// thread that asked.
    pub(super) fn read_there<T>(
        &self,
        is_short: bool,
        work: impl FnOnce(&mut Conn<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut connection = self.pool.get().map_err(connection_error)?;
        let read = || in_transaction(&mut connection, work).0;
        if is_short { self.timed(read) } else { read() }
    }

    fn timed<T>(&self, read: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let result = read();
        let is_slow = begun.elapsed() > STORE_READ_SLOW;
        if is_slow != self.are_slow() {
            self.is_slow.store(is_slow, Ordering::Relaxed);
        }
        result
    }

    fn slot(&self) -> Slot {
        OWN.with_borrow_mut(|own| {
            let found = own.iter().find(|(id, _)| *id == self.id);
            if let Some(slot) = found.and_then(|(_, slot)| slot.upgrade()) {
                return slot;
            }
            own.retain(|(_, slot)| slot.strong_count() > 0);
            let slot = Slot::default();
            own.push((self.id, Arc::downgrade(&slot)));
            self.own
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(slot.clone());
            slot
        })
    }
}

fn lock(slot: &Slot) -> std::sync::MutexGuard<'_, Option<SqliteConnection>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One state of the database for all of `work`; also returns whether the connection is fit for more.
fn in_transaction<T>(
    connection: &mut SqliteConnection,
    work: impl FnOnce(&mut Conn<'_>) -> Result<T, StoreError>,
) -> (Result<T, StoreError>, bool) {
    let mut link = Link::Sqlite(connection);
    if let Err(error) = prepared::begin_to_read(&mut link) {
        return (Err(error.into()), false);
    }
    let result = work(&mut Conn::new(link.again(), Caller::default()));
    let ended = prepared::commit(&mut link);
    (result, ended.is_ok())
}
