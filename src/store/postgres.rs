//! Connections to a server of PostgreSQL.

use diesel::{
    Connection as _, PgConnection, QueryableByName, RunQueryDsl as _,
    connection::{CacheSize, SimpleConnection as _},
    r2d2::{ConnectionManager, CustomizeConnection, ManageConnection, Pool},
    sql_query,
    sql_types::{Integer, Text},
};

use super::{CONNECTION_TIMEOUT, StoreError, connection_error, parse};
use crate::model::{
    limits::postgres::{POSTGRES_IDLE_IN_TRANSACTION, POSTGRES_VERSIONS},
    postgres::{DatabaseAddress, PostgresUse, complete},
};

/// Connections to one database.
pub(super) type PostgresPool = Pool<Connections>;

/// Makes connections, and asks them whether they still lead to the server: by one message, since two that are no
/// transaction may come to two of a pooler's own connections.
#[derive(Debug)]
pub(super) struct Connections(ConnectionManager<PgConnection>);

impl ManageConnection for Connections {
    type Connection = PgConnection;
    type Error = diesel::r2d2::Error;

    fn connect(&self) -> Result<PgConnection, Self::Error> {
        self.0.connect()
    }

    fn is_valid(&self, connection: &mut PgConnection) -> Result<(), Self::Error> {
        let asked = connection.batch_execute("SELECT 1");
        asked.map_err(diesel::r2d2::Error::QueryError)
    }

    fn has_broken(&self, connection: &mut PgConnection) -> bool {
        self.0.has_broken(connection)
    }
}

/// The lock of a writer: this number, which is ours, and one for the schema that the tables are
/// in, so that brokers with schemas of their own do not wait for each other.
pub const POSTGRES_LOCK: &str = "(1668246896, hashtext(current_schema()::text))";

/// How long a session of PostgreSQL may take. Behind a pooler that gives each transaction any of its connections
/// nothing is set and nothing is prepared: it would be another's.
#[derive(Debug)]
struct Session(PostgresUse);

impl CustomizeConnection<PgConnection, diesel::r2d2::Error> for Session {
    fn on_acquire(&self, connection: &mut PgConnection) -> Result<(), diesel::r2d2::Error> {
        let Self(usage) = self;
        if usage.behind_pooler {
            connection.set_prepared_statement_cache_size(CacheSize::Disabled);
            return Ok(());
        }
        let mut settings = format!(
            "SET statement_timeout = {}; SET lock_timeout = {}; \
             SET idle_in_transaction_session_timeout = {}",
            usage.statement_timeout.as_millis(),
            usage.lock_timeout.as_millis(),
            POSTGRES_IDLE_IN_TRANSACTION.as_millis(),
        );
        if usage.own_time {
            settings.push_str("; SET compose_broker.own_time = 'on'");
        }
        let set = connection.batch_execute(&settings);
        set.map_err(diesel::r2d2::Error::QueryError)
    }
}

/// So many connections, which are made anew when they are lost.
pub(super) fn pool(at: DatabaseAddress<'_>, size: u32) -> Result<PostgresPool, StoreError> {
    Pool::builder()
        .max_size(size)
        .connection_timeout(CONNECTION_TIMEOUT)
        .connection_customizer(Box::new(Session(at.postgres)))
        .build(Connections(ConnectionManager::new(complete(at.url))))
        .map_err(connection_error)
}

/// What a server says of its version.
#[derive(QueryableByName)]
struct ServerVersion {
    #[diesel(sql_type = Text)]
    number: String,
}

/// Refuses a server that is too old, and warns of one that no test has run with.
pub(super) fn check_version(connection: &mut PgConnection) -> Result<(), StoreError> {
    let asked = sql_query("SELECT current_setting('server_version_num') AS number");
    let told: ServerVersion = asked.get_result(connection)?;
    let number: u32 = parse("the version of the server", &told.number)?;
    let (found, known) = (number / 10_000, POSTGRES_VERSIONS);
    if found < *known.start() {
        let first = *known.start();
        return Err(StoreError::OldServer { found, first });
    }
    if found > *known.end() {
        log::warn!(
            "the server is PostgreSQL {found}, and no version after {} was tried with this broker",
            known.end()
        );
    }
    Ok(())
}

/// Connections that are looked at to find a pooler.
const PROBES: u32 = 4;

/// What serves a connection of ours.
#[derive(QueryableByName)]
struct Backend {
    #[diesel(sql_type = Integer)]
    pid: i32,
}

fn backend(connection: &mut PgConnection) -> Result<i32, StoreError> {
    let asked = sql_query("SELECT pg_backend_pid() AS pid").get_result::<Backend>(connection);
    Ok(asked?.pid)
}

/// Refuses a pooler that gives each transaction any of its connections, and of which nothing was said: a statement
/// that another broker has prepared under the same name would be run in place of ours, with our values.
///
/// One connection is asked which process of the server serves it, while others take what that pooler has. It is
/// another one then, or is theirs as well.
pub(super) fn refuse_hidden_pooler(at: DatabaseAddress<'_>) -> Result<(), StoreError> {
    if at.postgres.behind_pooler {
        return Ok(());
    }
    let probes = Pool::builder()
        .max_size(PROBES)
        .connection_timeout(CONNECTION_TIMEOUT)
        .build(Connections(ConnectionManager::new(complete(at.url))))
        .map_err(connection_error)?;
    let probe = || probes.get().map_err(connection_error);
    let mut first = probe()?;
    let serving = backend(&mut first)?;
    let mut others = Vec::new();
    for _ in 1..PROBES {
        let mut other = probe()?;
        other.batch_execute("BEGIN")?;
        let is_shared = backend(&mut other)? == serving || backend(&mut first)? != serving;
        if is_shared {
            return Err(StoreError::Pooler);
        }
        // It keeps what it has until all have looked.
        others.push(other);
    }
    Ok(())
}
