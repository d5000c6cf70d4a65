//! What a store in PostgreSQL has, and how long it waits for its server.

use std::time::Duration;

/// The first version of PostgreSQL's server that the broker works with, and the last that its tests run with.
pub const POSTGRES_VERSIONS: std::ops::RangeInclusive<u32> = 13..=18;
/// Connections to PostgreSQL that only read, unless the operator says otherwise, and at most.
pub const POSTGRES_READERS: u32 = 4;
/// See [`POSTGRES_READERS`].
pub const POSTGRES_READERS_MAX: u32 = 100;
/// A statement of PostgreSQL takes no longer, in seconds, unless the operator says otherwise; none of ours needs it.
pub const POSTGRES_STATEMENT_SECONDS: u32 = 60;
/// The most that the operator may say of it, in seconds.
pub const POSTGRES_STATEMENT_SECONDS_MAX: u32 = 3600;
/// A writer waits this long for another broker's transaction, in seconds, unless the operator says otherwise.
pub const POSTGRES_LOCK_SECONDS: u32 = 10;
/// The most that the operator may say of it, in seconds.
pub const POSTGRES_LOCK_SECONDS_MAX: u32 = 60;
/// A connection to PostgreSQL that leads nowhere is given up after so long, in seconds.
pub const POSTGRES_TIMEOUT_SECONDS: u32 = 10;
/// A transaction of ours never waits as long for its next statement: its broker stands still, and others need the
/// writers' lock.
pub const POSTGRES_IDLE_IN_TRANSACTION: Duration = Duration::from_secs(10);
/// For so long a migration waits for a table that somebody reads or writes; then it gives back all that it has, and is
/// begun anew. It is less than the second after which a server of PostgreSQL looks for a deadlock, and ends one of
/// those in it.
pub const MIGRATION_LOCK_WAIT: Duration = Duration::from_millis(500);
/// Before it is begun anew, so that those who waited for it come to their turn.
pub const MIGRATION_PAUSE: Duration = Duration::from_millis(500);
/// It is begun anew for so long.
pub const MIGRATION_TRIES_TIME: Duration = Duration::from_secs(60);
