//! Connections to a server of PostgreSQL.

use diesel::{
    Connection as _, PgConnection,
    connection::{CacheSize, SimpleConnection as _},
    r2d2::{ConnectionManager, CustomizeConnection, ManageConnection, Pool},
};

use super::{CONNECTION_TIMEOUT, StoreError, connection_error};
use crate::model::{
    limits::POSTGRES_IDLE_IN_TRANSACTION,
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
