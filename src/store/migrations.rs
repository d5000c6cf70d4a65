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
        Link::Sqlite(connection) => lacking(*connection, SQLITE).map(|lacks| names(&lacks)),
        Link::Postgres(connection) => lacking(*connection, POSTGRES).map(|lacks| names(&lacks)),
    }
}

/// Makes the migrations that the database lacks; returns their names. Nobody else writes to it meanwhile.
pub(super) fn run(link: &mut Link<'_>) -> Result<Vec<String>, StoreError> {
    match link {
        Link::Sqlite(connection) => run_on(*connection, SQLITE),
        Link::Postgres(connection) => run_on(*connection, POSTGRES),
    }
}

fn run_on<DB: Backend>(
    connection: &mut impl MigrationHarness<DB>,
    source: EmbeddedMigrations,
) -> Result<Vec<String>, StoreError> {
    let lacks = lacking(connection, source)?;
    let ran = connection.run_migrations(&lacks);
    ran.map_err(StoreError::Migration)?;
    Ok(names(&lacks))
}

fn names<DB: Backend>(migrations: &[Box<dyn Migration<DB>>]) -> Vec<String> {
    let names = migrations.iter();
    names
        .map(|migration| migration.name().to_string())
        .collect()
}

/// The migrations that the database lacks, in their order.
fn lacking<DB: Backend>(
    connection: &mut impl MigrationHarness<DB>,
    source: EmbeddedMigrations,
) -> Result<Vec<Box<dyn Migration<DB>>>, StoreError> {
    let mut known: Vec<Box<dyn Migration<DB>>> =
        source.migrations().map_err(StoreError::Migration)?;
    let applied = connection
        .applied_migrations()
        .map_err(StoreError::Migration)?;
    let is_unknown =
        |version: &&_| !(known.iter()).any(|migration| migration.name().version() == **version);
    if let Some(newest) = applied.iter().filter(is_unknown).max() {
        return Err(StoreError::Newer(newest.to_string()));
    }
    known.retain(|migration| !applied.contains(&migration.name().version()));
    known.sort_unstable_by_key(|migration| migration.name().version().as_owned());
    Ok(known)
}
