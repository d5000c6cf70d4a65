//! What the broker knows, durably: the only place with SQL.
//!
//! Invariants: a 202 is sent only after [`Store::write`] returned; every write of an operation's
//! worker passes [`claim::fence`]; nothing here decides, it keeps and finds. Of all transactions that
//! decide, one is open at a time, so what one has read stays true until it ends. Heartbeats may
//! be written meanwhile ([`Store::write_beside`]): no decision needs what they change to stand still.
//!
//! SQLite has one writer (`writer`; several would starve each other) and several readers (`readers`), in
//! WAL mode with `synchronous=FULL`: what was said to be written survives a power cut. A process has the
//! same of PostgreSQL, and the writers of several processes take turns by a lock.

use std::{
    fs::TryLockError,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use diesel::{
    Connection as _, RunQueryDsl as _, SqliteConnection,
    connection::{CacheSize, SimpleConnection as _},
    r2d2::{ConnectionManager, CustomizeConnection, Pool},
};
use tokio::{
    sync::{Semaphore, watch},
    time::timeout,
};

use crate::{
    caller::Caller,
    disk,
    model::{
        database_url::DatabaseUrl,
        limits::{
            STORE_READ_WAIT, STORE_SCAN_WAIT,
            postgres::{MIGRATION_LOCK_WAIT, MIGRATION_PAUSE, MIGRATION_TRIES_TIME},
        },
        postgres::{DatabaseAddress, complete},
    },
};

pub mod audit;
pub mod backup;
mod beside;
pub mod binding;
pub mod broker;
mod changes;
pub mod claim;
pub mod cluster;
pub mod copy;
pub mod deleted;
pub mod deployment;
mod error;
pub mod figures;
pub mod folder;
pub mod incident;
pub mod instance;
pub mod known_time;
mod migrations;
pub mod mirror;
pub mod notes;
pub mod observation;
pub mod operation;
pub mod outbox;
pub mod oversight;
mod postgres;
pub mod prefix;
mod prepared;
pub mod proof;
pub mod provenance;
pub mod queue;
mod readers;
pub mod reading;
pub mod register;
pub mod renewal;
mod reserve;
pub mod restore_time;
pub mod schedule;
mod schema;
pub mod session;
pub mod step;
pub mod time;
pub mod upload;
mod waiting;
mod writer;

use beside::Beside;
use changes::{Changed, Changes};
pub use error::StoreError;
pub use postgres::POSTGRES_LOCK;
use postgres::PostgresPool;
use readers::{OF_BLOCKING_THREADS, Readers};
use writer::{Database, Writer};

/// A statement waits this long for a lock before it fails.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// A request waits this long for a connection before it fails.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// The broker's store.
pub struct Store {
    /// None where the store is open for reading only.
    writer: Option<Writer>,
    /// None where the writer does that too.
    beside: Option<Beside>,
    reading: Reading,
    /// One for each connection that blocking threads read over.
    reading_places: Arc<Semaphore>,
    changes: Changes,
}

enum Reading {
    Sqlite {
        /// The database's file.
        path: PathBuf,
        readers: Readers,
    },
    Postgres(PostgresPool),
}

/// A connection inside a transaction; what the functions of this module's files work on.
pub struct Conn<'a> {
    link: Link<'a>,
    changed: Changed,
    /// The place of what is asked for next, once it was looked for: nobody else writes meanwhile.
    next_ordinal: Option<i64>,
    /// The one that the work is done for.
    caller: Caller,
    /// What is to be done outside of the database once the transaction is durable.
    once_committed: Vec<Box<dyn FnOnce()>>,
}

impl<'a> Conn<'a> {
    fn new(link: Link<'a>, caller: Caller) -> Self {
        Self {
            link,
            changed: Changed::default(),
            next_ordinal: None,
            caller,
            once_committed: Vec::new(),
        }
    }

    /// Has something done in memory once the transaction is durable, and not at all when it is
    /// undone. Nothing else is decided in this process before that.
    pub fn once_committed(&mut self, change: impl FnOnce() + 'static) {
        self.once_committed.push(Box::new(change));
    }

    /// Does a part of a decision so that its failure undoes it alone; `work` does no other part apart. Fails
    /// itself where the whole transaction is of no further use.
    pub fn apart<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<Result<T, StoreError>, StoreError> {
        let (changed, following) = (self.changed, self.once_committed.len());
        prepared::set_inner_savepoint(&mut self.link)?;
        let result = work(self);
        if result.is_err() {
            prepared::undo_to_inner_savepoint(&mut self.link)?;
            self.changed = changed;
            self.once_committed.truncate(following);
        }
        prepared::release_inner_savepoint(&mut self.link)?;
        Ok(result)
    }

    /// See [`Store::is_private`].
    pub fn is_private(&self) -> bool {
        matches!(self.link, Link::Sqlite(_))
    }
}

enum Link<'a> {
    Sqlite(&'a mut SqliteConnection),
    Postgres(&'a mut diesel::PgConnection),
}

impl Link<'_> {
    /// The same for a shorter time.
    fn again(&mut self) -> Link<'_> {
        match self {
            Link::Sqlite(connection) => Link::Sqlite(connection),
            Link::Postgres(connection) => Link::Postgres(connection),
        }
    }
}

/// Runs the same diesel code on whichever database the connection leads to.
macro_rules! each {
    ($conn:expr, |$c:ident| $body:expr) => {
        match &mut $conn.link {
            crate::store::Link::Sqlite(connection) => {
                let $c: &mut diesel::SqliteConnection = connection;
                $body
            }
            crate::store::Link::Postgres(connection) => {
                let $c: &mut diesel::PgConnection = connection;
                $body
            }
        }
    };
}
use each;

#[derive(Debug)]
struct Pragmas {
    read_only: bool,
}

impl CustomizeConnection<SqliteConnection, diesel::r2d2::Error> for Pragmas {
    fn on_acquire(&self, connection: &mut SqliteConnection) -> Result<(), diesel::r2d2::Error> {
        let busy = BUSY_TIMEOUT.as_millis();
        // Written down in the file: a reader leaves it as it is.
        let journal = if self.read_only {
            "PRAGMA query_only = 1;"
        } else {
            // What savepoints undo need not reach a disk.
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY;"
        };
        connection
            .batch_execute(&format!("PRAGMA busy_timeout = {busy}; {journal}"))
            .map_err(diesel::r2d2::Error::QueryError)
    }
}

/// The pattern of what is sealed under a key of that name, which has letters, digits, `-` and `_`.
fn sealed_under(key: &str) -> String {
    format!("{}:%", key.replace('_', "\\_"))
}

fn connection_error(error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Connection(Box::new(error))
}

fn database_of(url: &str) -> Result<DatabaseUrl<'_>, StoreError> {
    DatabaseUrl::parse(url).ok_or_else(|| {
        let reason = "the address must begin with sqlite:// or postgres://";
        StoreError::Address(reason.to_owned())
    })
}

impl Store {
    /// Opens the database at an address (`sqlite:///path` or `postgres://...`) and brings it to this
    /// version.
    pub fn open<'a>(at: impl Into<DatabaseAddress<'a>>) -> Result<Self, StoreError> {
        let at = at.into();
        let (mut database, reading) = match database_of(at.url)? {
            DatabaseUrl::Sqlite(path) => Self::open_sqlite(path)?,
            DatabaseUrl::Postgres => Self::open_postgres(at)?,
        };
        database.refuse_unfit()?;
        let changes = Changes::default();
        let beside = match &reading {
            Reading::Sqlite { .. } => None,
            Reading::Postgres(_) => Some(Beside::over(postgres::pool(at, 1)?)),
        };
        Ok(Self {
            writer: Some(Writer::begin(database, changes.clone())?),
            beside,
            changes,
            ..Self::over(reading)
        })
    }

    /// Opens the database at an address beside the broker that works with it, to look at it. A SQLite
    /// database that is not there is not made.
    pub fn open_for_reading<'a>(at: impl Into<DatabaseAddress<'a>>) -> Result<Self, StoreError> {
        let at = at.into();
        let reading = match database_of(at.url)? {
            DatabaseUrl::Postgres => {
                postgres::refuse_hidden_pooler(at)?;
                Self::look_at_postgres(at)?
            }
            DatabaseUrl::Sqlite(path) if Path::new(path).exists() => Reading::Sqlite {
                path: path.into(),
                readers: Readers::of(&looked_at_only(path))?,
            },
            DatabaseUrl::Sqlite(_) => {
                return Err(StoreError::Address(
                    "no broker has kept anything there yet".to_owned(),
                ));
            }
        };
        Ok(Self::over(reading))
    }

    /// What only reads.
    fn over(reading: Reading) -> Self {
        let connections = match &reading {
            Reading::Sqlite { .. } => OF_BLOCKING_THREADS,
            Reading::Postgres(pool) => pool.max_size(),
        };
        Self {
            writer: None,
            beside: None,
            reading,
            reading_places: Arc::new(Semaphore::new(connections as usize)),
            changes: Changes::default(),
        }
    }

    /// The names of the migrations that [`Store::open`] would make in the database at `url`. Nothing is
    /// changed.
    ///
    /// # Errors
    ///
    /// [`StoreError::Newer`] where a newer version of the broker has made some of its own.
    pub fn pending_migrations(url: &str) -> Result<Vec<String>, StoreError> {
        match database_of(url)? {
            DatabaseUrl::Sqlite(path) => {
                let mut connection = match Path::new(path).exists() {
                    true => connect(&looked_at_only(path), true)?,
                    false => connect(":memory:", false)?,
                };
                migrations::pending(&mut Link::Sqlite(&mut connection))
            }
            DatabaseUrl::Postgres => {
                let mut connection =
                    diesel::PgConnection::establish(&complete(url)).map_err(connection_error)?;
                // Whatever pooler there is, the session is not ours alone.
                connection.set_prepared_statement_cache_size(CacheSize::Disabled);
                postgres::check_version(&mut connection)?;
                // Undone when the connection ends: a look makes the table of migrations where it is missing.
                connection.begin_test_transaction()?;
                migrations::pending(&mut Link::Postgres(&mut connection))
            }
        }
    }

    /// Brings the database at an address to this version, as [`Store::open`] does; returns the names of the
    /// migrations that were made, in their order.
    pub fn migrate<'a>(at: impl Into<DatabaseAddress<'a>>) -> Result<Vec<String>, StoreError> {
        let at = at.into();
        let (_, made) = match database_of(at.url)? {
            DatabaseUrl::Sqlite(path) => migrated_sqlite(path)?,
            DatabaseUrl::Postgres => migrated_postgres(at)?,
        };
        Ok(made)
    }

    fn open_sqlite(path: &str) -> Result<(Database, Reading), StoreError> {
        let (database, _) = migrated_sqlite(path)?;
        let reading = Reading::Sqlite {
            path: path.into(),
            readers: Readers::of(path)?,
        };
        Ok((database, reading))
    }

    fn open_postgres(at: DatabaseAddress<'_>) -> Result<(Database, Reading), StoreError> {
        let (database, _) = migrated_postgres(at)?;
        Ok((database, Self::look_at_postgres(at)?))
    }

    fn look_at_postgres(at: DatabaseAddress<'_>) -> Result<Reading, StoreError> {
        Ok(Reading::Postgres(postgres::pool(at, at.postgres.readers)?))
    }

    /// The file of the database at `url`; none for one that is reached in another way.
    pub fn file(url: &str) -> Option<&Path> {
        match DatabaseUrl::parse(url) {
            Some(DatabaseUrl::Sqlite(path)) => Some(Path::new(path)),
            Some(DatabaseUrl::Postgres) | None => None,
        }
    }

    /// Whether this process is the only one that can use the database, so that whatever another
    /// worker had claimed is free again.
    pub fn is_private(&self) -> bool {
        match &self.reading {
            Reading::Sqlite { .. } => true,
            Reading::Postgres(_) => false,
        }
    }

    /// Reads a few rows that an index leads to; of more, see [`Store::scan`]. All of `work` sees one
    /// state of the database. Fails with [`StoreError::Busy`] where a server gives no answer for
    /// [`STORE_READ_WAIT`].
    pub async fn read<T, F>(self: &Arc<Self>, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Conn<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        match &self.reading {
            Reading::Sqlite { readers, .. } if !readers.are_slow() => {
                // Nothing here waits, so a task that reads and reads would let no other one in.
                tokio::task::consume_budget().await;
                readers.read_here(work)
            }
            _ => self.read_elsewhere(true, work).await,
        }
    }

    /// Reads what may be much, without keeping the thread that asks from anything else. All of `work`
    /// sees one state of the database. Fails with [`StoreError::Busy`] where it takes longer than
    /// [`STORE_SCAN_WAIT`].
    pub async fn scan<T, F>(self: &Arc<Self>, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Conn<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.read_elsewhere(false, work).await
    }

    async fn read_elsewhere<T, F>(
        self: &Arc<Self>,
        is_short: bool,
        work: F,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Conn<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let (store, places) = (self.clone(), self.reading_places.clone());
        let reading = async move {
            // What waits here takes no thread, and goes with its caller.
            let place = places.acquire_owned().await.map_err(connection_error)?;
            on_a_blocking_thread(move || {
                let _place = place;
                store.read_blocking(is_short, work)
            })
            .await
        };
        let wait = match is_short {
            true => STORE_READ_WAIT,
            false => STORE_SCAN_WAIT,
        };
        timeout(wait, reading)
            .await
            .unwrap_or(Err(StoreError::Busy))
    }

    /// Writes: all of `work` or nothing. It is durable when this returns. It is done also when the
    /// caller no longer waits for it; not when this returns [`StoreError::Busy`]. See
    /// [`Store::decide`].
    pub async fn write<T, F>(self: &Arc<Self>, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&mut Conn<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.decide(work).await
    }

    /// Like [`Store::write`], for heartbeats and facts of single rows that no decision needs to stand still: it waits
    /// for no decision where the database lets several write. Each statement of `work` says by itself which rows it
    /// changes.
    pub async fn write_beside<T, F>(self: &Arc<Self>, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&mut Conn<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        match &self.beside {
            Some(beside) => beside.write(work).await,
            None => self.decide(work).await,
        }
    }

    /// Like [`Store::write`], for work that looks, decides and may refuse with an error of its
    /// own, which undoes all of it. Nobody else writes meanwhile, here or on another replica.
    ///
    /// Several decisions share a transaction, so `work` may be run once more when all of it was undone:
    /// it changes nothing but the database, and what follows in memory waits for the commit, see
    /// [`Conn::once_committed`].
    pub async fn decide<T, E, F>(self: &Arc<Self>, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: Fn(&mut Conn<'_>) -> Result<T, E> + Send + 'static,
    {
        let writer = self.writer.as_ref().ok_or_else(reads_only)?;
        writer.decide(Caller::current(), work).await
    }

    fn read_blocking<T>(
        &self,
        is_short: bool,
        work: impl FnOnce(&mut Conn<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match &self.reading {
            Reading::Sqlite { readers, .. } => readers.read_there(is_short, work),
            Reading::Postgres(readers) => {
                let mut connection = readers.get().map_err(connection_error)?;
                connection
                    .build_transaction()
                    .read_only()
                    .repeatable_read()
                    .run(|c| work(&mut Conn::new(Link::Postgres(c), Caller::default())))
            }
        }
    }

    /// Tells of every operation that this process accepted, halted or ended. Other replicas'
    /// changes are not among these: a waiter must also look now and then.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.all.subscribe()
    }

    /// The same of those that were told to halt.
    pub fn halts(&self) -> watch::Receiver<u64> {
        self.changes.halts.subscribe()
    }

    /// The same of those that have ended.
    pub fn ends(&self) -> watch::Receiver<u64> {
        self.changes.ends.subscribe()
    }

    /// Finds out whether the database takes writes: one row is written.
    pub async fn ping(self: &Arc<Self>) -> Result<(), StoreError> {
        const LOOK: &str = "INSERT INTO readiness (id, looks) VALUES (1, 1) \
                            ON CONFLICT (id) DO UPDATE SET looks = readiness.looks + 1";
        self.write(|conn| {
            each!(conn, |c| diesel::sql_query(LOOK).execute(c))?;
            Ok(())
        })
        .await
    }
}

/// What writes to a database file of this version, and the migrations that were made for it.
fn migrated_sqlite(path: &str) -> Result<(Database, Vec<String>), StoreError> {
    let lock = lock_beside(path)?;
    let mut connection = connect(path, false)?;
    // All of them or none: a start that is cut off leaves the schema of before.
    let made = connection.immediate_transaction(|c| bring_up(Link::Sqlite(c)))?;
    let database = Database::Sqlite {
        connection,
        _lock: lock,
    };
    Ok((database, made))
}

/// The same of a database of PostgreSQL.
fn migrated_postgres(at: DatabaseAddress<'_>) -> Result<(Database, Vec<String>), StoreError> {
    postgres::refuse_hidden_pooler(at)?;
    let writer = postgres::pool(at, 1)?;
    let mut connection = writer.get().map_err(connection_error)?;
    postgres::check_version(&mut connection)?;
    let begun = Instant::now();
    let made = loop {
        let mut alone_since = None::<Instant>;
        let made = connection.transaction(|c| {
            // Replicas begin at the same time, and each step is made once.
            c.batch_execute(&format!(
                "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0; \
                 SELECT pg_advisory_xact_lock{POSTGRES_LOCK}; SET LOCAL lock_timeout = {}",
                MIGRATION_LOCK_WAIT.as_millis()
            ))?;
            alone_since = Some(Instant::now());
            bring_up(Link::Postgres(c))
        });
        // Somebody who reads a table may wait for one that was changed already: one of the two has to give way.
        let has_waited = alone_since.is_some_and(|since| since.elapsed() >= MIGRATION_LOCK_WAIT);
        if made.is_ok() || !has_waited || begun.elapsed() >= MIGRATION_TRIES_TIME {
            break made?;
        }
        std::thread::sleep(MIGRATION_PAUSE);
    };
    drop(connection);
    Ok((Database::postgres(writer)?, made))
}

fn bring_up(mut link: Link<'_>) -> Result<Vec<String>, StoreError> {
    let made = migrations::run(&mut link)?;
    waiting::fill(&mut Conn::new(link, Caller::default()))?;
    Ok(made)
}

fn reads_only() -> StoreError {
    StoreError::Address("the store is open for reading only".to_owned())
}

/// SQLite's address of a file that is not written to. A connection that opens it so does not remove the
/// database's log either, which has the store's reserve.
fn looked_at_only(path: &str) -> String {
    // What has a meaning of its own in an address.
    let path = path
        .replace('%', "%25")
        .replace('?', "%3f")
        .replace('#', "%23");
    let root = if path.starts_with('/') { "//" } else { "" };
    format!("file:{root}{path}?mode=ro")
}

/// A connection to a database file that no pool has.
fn connect(file: &str, read_only: bool) -> Result<SqliteConnection, StoreError> {
    let mut connection = SqliteConnection::establish(file).map_err(connection_error)?;
    Pragmas { read_only }
        .on_acquire(&mut connection)
        .map_err(connection_error)?;
    Ok(connection)
}

/// Connections to a database file that only read.
fn sqlite_pool(
    file: &str,
    size: u32,
) -> Result<Pool<ConnectionManager<SqliteConnection>>, StoreError> {
    Pool::builder()
        .max_size(size)
        // With the last connection its log goes, and what is in reserve there.
        .max_lifetime(None)
        .idle_timeout(None)
        .connection_timeout(CONNECTION_TIMEOUT)
        .connection_customizer(Box::new(Pragmas { read_only: true }))
        .build(ConnectionManager::<SqliteConnection>::new(file))
        .map_err(connection_error)
}

/// Takes the lock beside a database file.
fn lock_beside(path: &str) -> Result<std::fs::File, StoreError> {
    let path = format!("{path}.lock");
    disk::lock_soon(Path::new(&path)).map_err(|error| match error {
        TryLockError::WouldBlock => {
            StoreError::Address("another broker uses this database file".to_owned())
        }
        TryLockError::Error(error) => connection_error(io::Error::new(
            error.kind(),
            format!("cannot lock {path}: {error}"),
        )),
    })
}

async fn on_a_blocking_thread<T: Send + 'static, E: From<StoreError> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => Err(connection_error(error).into()),
    }
}

fn to_json(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|e| StoreError::unreadable("a value to be stored", e))
}

fn from_json<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|e| StoreError::unreadable(what, e))
}

fn parse<T>(what: &str, text: &str) -> Result<T, StoreError>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text.parse()
        .map_err(|e| StoreError::unreadable(what, format!("{text:?} {e}")))
}

fn known<T>(what: &str, text: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, StoreError> {
    parse(text).ok_or_else(|| StoreError::unreadable(what, format!("{text:?} is unknown")))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn store_in(folder: &tempfile::TempDir) -> Arc<Store> {
        let url = format!("sqlite://{}", folder.path().join("db").display());
        Arc::new(Store::open(&url).expect("a store"))
    }

    #[tokio::test]
    async fn what_only_reads_cannot_write() {
        fn forget_all(conn: &mut Conn<'_>) -> Result<(), StoreError> {
            each!(conn, |c| diesel::sql_query("DELETE FROM operations")
                .execute(c))?;
            Ok(())
        }
        let folder = tempfile::tempdir().expect("a folder");
        let store = store_in(&folder);
        assert!(store.read(forget_all).await.is_err());
        store.write(forget_all).await.expect("written");
    }

    #[tokio::test]
    async fn what_follows_in_memory_follows_a_commit_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = store_in(&folder);
        let done = Arc::new(AtomicU32::new(0));
        for refused in [true, false] {
            let counted = done.clone();
            let result = store.write(move |conn| {
                let inner = counted.clone();
                conn.once_committed(move || {
                    inner.fetch_add(1, Ordering::SeqCst);
                });
                assert_eq!(counted.load(Ordering::SeqCst), 0, "not before the commit");
                match refused {
                    true => Err(StoreError::Missing("a reason".to_owned())),
                    false => Ok(()),
                }
            });
            assert_eq!(result.await.is_err(), refused);
            assert_eq!(done.load(Ordering::SeqCst), u32::from(!refused));
        }
    }
}
