//! What the broker knows, durably: the only place with SQL.
//!
//! Invariants: a 202 is sent only after [`Store::write`] returned; every write of an operation's
//! worker passes [`operation::fence`]; nothing here decides, it keeps and finds. Of all
//! transactions that write, one is open at a time, so what one has read stays true until it ends.
//!
//! SQLite has one writer and several readers (several writers starve each other), in WAL mode with
//! `synchronous=FULL`: what was said to be written survives a power cut. A process has the same of
//! PostgreSQL, and the writers of several processes take turns by a lock.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use diesel::{
    Connection as _, RunQueryDsl, SqliteConnection,
    connection::SimpleConnection,
    r2d2::{ConnectionManager, CustomizeConnection, Pool},
};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use tokio::sync::watch;

use crate::caller::Caller;

pub mod audit;
pub mod backup;
pub mod binding;
pub mod deployment;
mod error;
pub mod folder;
pub mod incident;
pub mod instance;
pub mod known_time;
pub mod notes;
pub mod operation;
pub mod oversight;
pub mod queue;
pub mod renewal;
mod reserve;
pub mod schedule;
mod schema;
pub mod session;

pub use error::StoreError;

/// A statement waits this long for a lock before it fails.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// A request waits this long for a connection before it fails.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a starting broker waits for an ending one to let go of the database file.
const DATABASE_LOCK_WAIT: Duration = Duration::from_secs(2);
/// Connections that only read.
const READERS: u32 = 4;

const SQLITE_MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/sqlite");
#[cfg(feature = "postgres")]
const POSTGRES_MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/postgres");

/// The broker's store.
pub struct Store {
    pools: Pools,
    changes: watch::Sender<u64>,
}

enum Pools {
    Sqlite {
        /// The database's file.
        path: PathBuf,
        /// None where the store is open for reading only.
        writer: Option<SqliteWriter>,
        readers: Pool<ConnectionManager<SqliteConnection>>,
    },
    #[cfg(feature = "postgres")]
    Postgres {
        /// None where the store is open for reading only.
        writer: Option<PostgresPool>,
        readers: PostgresPool,
    },
}

#[cfg(feature = "postgres")]
type PostgresPool = Pool<ConnectionManager<diesel::PgConnection>>;

struct SqliteWriter {
    pool: Pool<ConnectionManager<SqliteConnection>>,
    /// Held while the store is open: nobody else may take this process's claims for dead.
    _lock: std::fs::File,
}

/// A connection inside a transaction; what the functions of this module's files work on.
pub struct Conn<'a> {
    link: Link<'a>,
    operations_changed: bool,
    /// Whoever the work is done for.
    caller: Caller,
    /// What is to be done outside of the database once the transaction is durable.
    once_committed: Vec<Box<dyn FnOnce()>>,
}

impl<'a> Conn<'a> {
    fn new(link: Link<'a>, caller: Caller) -> Self {
        Self {
            link,
            operations_changed: false,
            caller,
            once_committed: Vec::new(),
        }
    }

    /// Has something done in memory once the transaction is durable, and not at all when it is
    /// undone. No other transaction of this process writes to SQLite before that.
    pub fn once_committed(&mut self, change: impl FnOnce() + 'static) {
        self.once_committed.push(Box::new(change));
    }
}

enum Link<'a> {
    Sqlite(&'a mut SqliteConnection),
    #[cfg(feature = "postgres")]
    Postgres(&'a mut diesel::PgConnection),
}

/// Runs the same diesel code on whichever database the connection leads to.
macro_rules! each {
    ($conn:expr, |$c:ident| $body:expr) => {
        match &mut $conn.link {
            crate::store::Link::Sqlite(connection) => {
                let $c: &mut diesel::SqliteConnection = connection;
                $body
            }
            #[cfg(feature = "postgres")]
            crate::store::Link::Postgres(connection) => {
                let $c: &mut diesel::PgConnection = connection;
                $body
            }
        }
    };
}
use each;

/// The lock of whoever writes: this number, which is ours, and one for the schema that the tables are
/// in, so that brokers with schemas of their own do not wait for each other.
#[cfg(feature = "postgres")]
const POSTGRES_LOCK: &str = "(1668246896, hashtext(current_schema()::text))";

#[derive(Debug)]
struct Pragmas {
    read_only: bool,
}

impl CustomizeConnection<SqliteConnection, diesel::r2d2::Error> for Pragmas {
    fn on_acquire(&self, connection: &mut SqliteConnection) -> Result<(), diesel::r2d2::Error> {
        let busy = BUSY_TIMEOUT.as_millis();
        // Written down in the file: whoever only looks leaves it as it is.
        let journal = if self.read_only {
            "PRAGMA query_only = 1;"
        } else {
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
        };
        connection
            .batch_execute(&format!("PRAGMA busy_timeout = {busy}; {journal}"))
            .map_err(diesel::r2d2::Error::QueryError)
    }
}

fn connection_error(error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Connection(Box::new(error))
}

impl Store {
    /// Opens the database at `url` (`sqlite:///path` or `postgres://...`) and brings it to this
    /// version.
    pub fn open(url: &str) -> Result<Self, StoreError> {
        let pools = if let Some(path) = url.strip_prefix("sqlite://") {
            Self::open_sqlite(path)?
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            Self::open_postgres(url)?
        } else {
            return Err(StoreError::Address(
                "the address must begin with sqlite:// or postgres://".to_owned(),
            ));
        };
        Ok(Self {
            pools,
            changes: watch::Sender::new(0),
        })
    }

    /// Opens the database at `url` beside the broker that works with it, to look at it. A SQLite
    /// database that is not there is not made.
    pub fn open_for_reading(url: &str) -> Result<Self, StoreError> {
        let Some(path) = url.strip_prefix("sqlite://") else {
            return Ok(Self {
                pools: Self::look_at_postgres(url)?,
                changes: watch::Sender::new(0),
            });
        };
        if !Path::new(path).exists() {
            return Err(StoreError::Address(
                "no broker has kept anything there yet".to_owned(),
            ));
        }
        let pools = Pools::Sqlite {
            path: path.into(),
            writer: None,
            readers: sqlite_pool(&looked_at_only(path), READERS, true)?,
        };
        Ok(Self {
            pools,
            changes: watch::Sender::new(0),
        })
    }

    fn open_sqlite(path: &str) -> Result<Pools, StoreError> {
        let lock = lock_beside(path)?;
        let pool = sqlite_pool(path, 1, false)?;
        let mut connection = pool.get().map_err(connection_error)?;
        connection
            .run_pending_migrations(SQLITE_MIGRATIONS)
            .map_err(StoreError::Migration)?;
        drop(connection);
        let writer = Some(SqliteWriter { pool, _lock: lock });
        Ok(Pools::Sqlite {
            path: path.into(),
            writer,
            readers: sqlite_pool(path, READERS, true)?,
        })
    }

    #[cfg(feature = "postgres")]
    fn open_postgres(url: &str) -> Result<Pools, StoreError> {
        let writer = postgres_pool(url, 1)?;
        let mut connection = writer.get().map_err(connection_error)?;
        // Replicas begin at the same time, and each step is made once.
        connection.batch_execute(&format!("SELECT pg_advisory_lock{POSTGRES_LOCK}"))?;
        connection
            .run_pending_migrations(POSTGRES_MIGRATIONS)
            .map_err(StoreError::Migration)?;
        connection.batch_execute(&format!("SELECT pg_advisory_unlock{POSTGRES_LOCK}"))?;
        drop(connection);
        Ok(Pools::Postgres {
            writer: Some(writer),
            readers: postgres_pool(url, READERS)?,
        })
    }

    #[cfg(feature = "postgres")]
    fn look_at_postgres(url: &str) -> Result<Pools, StoreError> {
        Ok(Pools::Postgres {
            writer: None,
            readers: postgres_pool(url, READERS)?,
        })
    }

    #[cfg(not(feature = "postgres"))]
    fn open_postgres(url: &str) -> Result<Pools, StoreError> {
        Self::look_at_postgres(url)
    }

    #[cfg(not(feature = "postgres"))]
    fn look_at_postgres(_url: &str) -> Result<Pools, StoreError> {
        Err(StoreError::Address(
            "this binary was built without PostgreSQL (cargo feature \"postgres\")".to_owned(),
        ))
    }

    /// The file of the database at `url`; none for one that is reached in another way.
    pub fn file(url: &str) -> Option<&Path> {
        url.strip_prefix("sqlite://").map(Path::new)
    }

    /// Whether this process is the only one that can use the database, so that whatever another
    /// worker had claimed is free again.
    pub fn is_private(&self) -> bool {
        match &self.pools {
            Pools::Sqlite { .. } => true,
            #[cfg(feature = "postgres")]
            Pools::Postgres { .. } => false,
        }
    }

    /// Reads. All of `work` sees one state of the database.
    pub async fn read<T, F>(self: &Arc<Self>, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Conn<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let store = self.clone();
        on_a_blocking_thread(move || store.read_blocking(work)).await
    }

    /// Writes, in one transaction: all of `work` or nothing. It is durable when this returns. The
    /// transaction ends also when the caller no longer waits for it.
    pub async fn write<T, F>(self: &Arc<Self>, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Conn<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.decide(work).await
    }

    /// Like [`Store::write`], for work that looks, decides and may refuse with an error of its
    /// own, which undoes all of it. Nobody else writes meanwhile, here or on another replica. So
    /// `work` changes nothing but the database: what follows in memory waits for the commit, see
    /// [`Conn::once_committed`].
    pub async fn decide<T, E, F>(self: &Arc<Self>, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: FnOnce(&mut Conn<'_>) -> Result<T, E> + Send + 'static,
    {
        let (store, caller) = (self.clone(), Caller::current());
        on_a_blocking_thread(move || store.decide_blocking(caller, work)).await
    }

    fn read_blocking<T>(
        &self,
        work: impl FnOnce(&mut Conn<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match &self.pools {
            Pools::Sqlite { readers, .. } => {
                let mut connection = readers.get().map_err(connection_error)?;
                connection.transaction(|c| work(&mut Conn::new(Link::Sqlite(c), Caller::default())))
            }
            #[cfg(feature = "postgres")]
            Pools::Postgres { readers, .. } => {
                let mut connection = readers.get().map_err(connection_error)?;
                connection
                    .build_transaction()
                    .read_only()
                    .repeatable_read()
                    .run(|c| work(&mut Conn::new(Link::Postgres(c), Caller::default())))
            }
        }
    }

    fn decide_blocking<T, E: From<StoreError>>(
        &self,
        caller: Caller,
        work: impl FnOnce(&mut Conn<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let (mut changed, mut once_committed) = (false, Vec::<Box<dyn FnOnce()>>::new());
        let result = match &self.pools {
            Pools::Sqlite { writer, .. } => {
                let writer = writer.as_ref().ok_or_else(reads_only)?;
                let mut connection = writer.pool.get().map_err(connection_error)?;
                let result = connection.immediate_transaction(|c| {
                    let mut conn = Conn::new(Link::Sqlite(c), caller);
                    let result = work(&mut conn);
                    changed = conn.operations_changed;
                    once_committed = conn.once_committed;
                    result.map_err(Abort::Refused)
                });
                // While the connection is held.
                if result.is_ok() {
                    once_committed.into_iter().for_each(|change| change());
                }
                result
            }
            #[cfg(feature = "postgres")]
            Pools::Postgres { writer, .. } => {
                let writer = writer.as_ref().ok_or_else(reads_only)?;
                let mut connection = writer.get().map_err(connection_error)?;
                let result = connection.transaction(|c| {
                    // In front, so that all that is read is as the last writer left it.
                    c.batch_execute(&format!(
                        "SET LOCAL lock_timeout = {}; SELECT pg_advisory_xact_lock{POSTGRES_LOCK}",
                        BUSY_TIMEOUT.as_millis()
                    ))?;
                    let mut conn = Conn::new(Link::Postgres(c), caller);
                    let result = work(&mut conn);
                    changed = conn.operations_changed;
                    once_committed = conn.once_committed;
                    result.map_err(Abort::Refused)
                });
                // While the connection is held.
                if result.is_ok() {
                    once_committed.into_iter().for_each(|change| change());
                }
                result
            }
        };
        let value = result.map_err(|abort| match abort {
            Abort::Refused(error) => error,
            Abort::Broken(error) => StoreError::from(error).into(),
        })?;
        if changed {
            self.changes
                .send_modify(|count| *count = count.wrapping_add(1));
        }
        Ok(value)
    }

    /// Tells of every operation that this process accepted, halted or ended. Other replicas'
    /// changes are not among these: whoever waits must also look now and then.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
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

fn reads_only() -> StoreError {
    StoreError::Address("the store is open for reading only".to_owned())
}

#[cfg(feature = "postgres")]
fn postgres_pool(url: &str, size: u32) -> Result<PostgresPool, StoreError> {
    Pool::builder()
        .max_size(size)
        .connection_timeout(CONNECTION_TIMEOUT)
        .build(ConnectionManager::new(url))
        .map_err(connection_error)
}

/// SQLite's address of a file that is not written to. Whoever opens it so does not remove the
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

fn sqlite_pool(
    path: &str,
    size: u32,
    read_only: bool,
) -> Result<Pool<ConnectionManager<SqliteConnection>>, StoreError> {
    Pool::builder()
        .max_size(size)
        // With the last connection its log goes, and what is in reserve there.
        .max_lifetime(None)
        .idle_timeout(None)
        .connection_timeout(CONNECTION_TIMEOUT)
        .connection_customizer(Box::new(Pragmas { read_only }))
        .build(ConnectionManager::<SqliteConnection>::new(path))
        .map_err(connection_error)
}

/// Takes the lock beside a database file; waits a moment for a broker that is just ending.
fn lock_beside(path: &str) -> Result<std::fs::File, StoreError> {
    let lock = std::fs::File::create(format!("{path}.lock")).map_err(connection_error)?;
    let deadline = Instant::now() + DATABASE_LOCK_WAIT;
    while let Err(error) = lock.try_lock() {
        if Instant::now() >= deadline {
            log::debug!("{path}.lock: {error}");
            return Err(StoreError::Address(
                "another broker uses this database file".to_owned(),
            ));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(lock)
}

/// Why a transaction is undone.
enum Abort<E> {
    /// Its work says so.
    Refused(E),
    /// The database says so.
    Broken(diesel::result::Error),
}

impl<E> From<diesel::result::Error> for Abort<E> {
    fn from(error: diesel::result::Error) -> Self {
        Self::Broken(error)
    }
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
