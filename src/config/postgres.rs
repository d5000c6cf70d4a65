//! The settings of a store in PostgreSQL, beside its address.

use std::time::Duration;

use clap::Args;

use super::{ConfigError, number, one_of};
use crate::model::{
    limits::postgres::{
        POSTGRES_LOCK_SECONDS_MAX, POSTGRES_READERS_MAX, POSTGRES_STATEMENT_SECONDS_MAX,
    },
    postgres::PostgresUse,
};

/// How a store in PostgreSQL is used, as it is written.
#[derive(Debug, Clone, Args)]
pub struct PostgresFlags {
    /// Connections to PostgreSQL that only read; one more writes
    #[arg(long, env = "COMPOSE_BROKER_DATABASE_READERS", default_value = "4")]
    database_readers: String,

    /// Seconds after which a statement of PostgreSQL is broken off
    #[arg(
        long,
        value_name = "SECONDS",
        env = "COMPOSE_BROKER_DATABASE_STATEMENT_SECONDS",
        default_value = "60"
    )]
    database_statement_seconds: String,

    /// Seconds that a change waits for the one of another broker over the same database of PostgreSQL
    #[arg(
        long,
        value_name = "SECONDS",
        env = "COMPOSE_BROKER_DATABASE_LOCK_SECONDS",
        default_value = "10"
    )]
    database_lock_seconds: String,

    /// What stands between the broker and PostgreSQL: none, or transaction, a pooler that gives each transaction
    /// any of its connections
    #[arg(long, env = "COMPOSE_BROKER_DATABASE_POOLER", default_value = "none")]
    database_pooler: String,
}

impl PostgresFlags {
    pub(super) fn check(&self) -> Result<PostgresUse, ConfigError> {
        let seconds = |name, text: &str, most| {
            let seconds = number(name, text, 1..=most)?;
            Ok(Duration::from_secs(seconds.into()))
        };
        Ok(PostgresUse {
            readers: number(
                "COMPOSE_BROKER_DATABASE_READERS",
                &self.database_readers,
                1..=POSTGRES_READERS_MAX,
            )?,
            statement_timeout: seconds(
                "COMPOSE_BROKER_DATABASE_STATEMENT_SECONDS",
                &self.database_statement_seconds,
                POSTGRES_STATEMENT_SECONDS_MAX,
            )?,
            lock_timeout: seconds(
                "COMPOSE_BROKER_DATABASE_LOCK_SECONDS",
                &self.database_lock_seconds,
                POSTGRES_LOCK_SECONDS_MAX,
            )?,
            behind_pooler: one_of(
                "COMPOSE_BROKER_DATABASE_POOLER",
                &self.database_pooler,
                &[("none", false), ("transaction", true)],
            )?,
            own_time: false,
        })
    }
}
