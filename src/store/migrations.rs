//! The schema: what a database has of it, and how it is brought to this version.
//!
//! Migrations go forward alone. A database that knows one which this version does not know is left as it
//! is: a newer broker works with it, or has.

use diesel::{
    backend::Backend,
    migration::{Migration, MigrationSource},
};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::{Link, StoreError};

const SQLITE: EmbeddedMigrations = embed_migrations!("migrations/sqlite");
const POSTGRES: EmbeddedMigrations = embed_migrations!("migrations/postgres");

/// The names of the migrations that the database lacks, in their order.
pub(super) fn pending(link: &mut Link<'_>) -> Result<Vec<String>, StoreError> {
    match link {
        Link::Sqlite(connection) => pending_of(*connection, SQLITE),
        Link::Postgres(connection) => pending_of(*connection, POSTGRES),
    }
}

/// Makes those steps that the database lacks. Nobody else writes to it meanwhile.
pub(super) fn run(link: &mut Link<'_>) -> Result<(), StoreError> {
    pending(link)?;
    match link {
        Link::Sqlite(connection) => connection.run_pending_migrations(SQLITE).map(drop),
        Link::Postgres(connection) => connection.run_pending_migrations(POSTGRES).map(drop),
    }
    .map_err(StoreError::Migration)
}

fn pending_of<DB: Backend>(
    connection: &mut impl MigrationHarness<DB>,
    source: EmbeddedMigrations,
) -> Result<Vec<String>, StoreError> {
    let known: Vec<Box<dyn Migration<DB>>> = source.migrations().map_err(StoreError::Migration)?;
    let applied = connection
        .applied_migrations()
        .map_err(StoreError::Migration)?;
    let is_unknown =
        |version: &&_| !(known.iter()).any(|migration| migration.name().version() == **version);
    if let Some(newest) = applied.iter().filter(is_unknown).max() {
        return Err(StoreError::Newer(newest.to_string()));
    }
    let mut pending: Vec<String> = (known.iter())
        .filter(|migration| !applied.contains(&migration.name().version()))
        .map(|migration| migration.name().to_string())
        .collect();
    pending.sort_unstable();
    Ok(pending)
}
