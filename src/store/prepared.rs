//! Statements that SQLite prepares once for each connection.
//!
//! Diesel keeps prepared only what it can know by its type to be one and the same text. It takes each
//! UPDATE, many an INSERT and whatever has a list in it for something else, and so prepares it each time,
//! which takes longer than to run it. Here the text itself says what is the same. So it is for
//! statements of which there are few: no list in them has any number of entries.

use diesel::connection::SimpleConnection as _;
use diesel::{
    QueryResult, RunQueryDsl, SqliteConnection,
    backend::Backend,
    connection::Connection,
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    sqlite::Sqlite,
};

use super::Link;

/// A statement that stays prepared.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prepared<Q>(pub Q);

impl<Q> QueryId for Prepared<Q> {
    type QueryId = ();

    // The text is what tells it from others.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<Q: Query> Query for Prepared<Q> {
    type SqlType = Q::SqlType;
}

impl<Q, C: Connection> RunQueryDsl<C> for Prepared<Q> {}

impl<Q, DB> QueryFragment<DB> for Prepared<Q>
where
    Q: QueryFragment<DB>,
    DB: Backend,
{
    fn walk_ast<'b>(&'b self, pass: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        self.0.walk_ast(pass)
    }

    fn is_safe_to_cache_prepared(&self, _backend: &DB) -> QueryResult<bool> {
        Ok(true)
    }
}

/// A statement without values, of those in [`PLAIN`].
struct Plain<const N: usize>;

const PLAIN: [&str; 10] = [
    "BEGIN",
    "BEGIN IMMEDIATE",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT decision",
    "ROLLBACK TO SAVEPOINT decision",
    "RELEASE SAVEPOINT decision",
    "SAVEPOINT part",
    "ROLLBACK TO SAVEPOINT part",
    "RELEASE SAVEPOINT part",
];

impl<const N: usize> QueryId for Plain<N> {
    type QueryId = Self;

    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<const N: usize> QueryFragment<Sqlite> for Plain<N> {
    fn walk_ast<'b>(&'b self, mut pass: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        pass.push_sql(PLAIN[N]);
        Ok(())
    }
}

impl<const N: usize> RunQueryDsl<SqliteConnection> for Plain<N> {}

impl<const N: usize> Plain<N> {
    fn run(link: &mut Link<'_>) -> QueryResult<()> {
        match link {
            Link::Sqlite(connection) => Self.execute(connection).map(drop),
            // The server has nothing to prepare for these.
            Link::Postgres(connection) => connection.batch_execute(PLAIN[N]),
        }
    }
}

/// Begins a transaction that reads.
pub(super) fn begin_to_read(link: &mut Link<'_>) -> QueryResult<()> {
    Plain::<0>::run(link)
}

/// Begins a transaction that writes; nobody else does until it ends.
pub(super) fn begin_to_write(link: &mut Link<'_>) -> QueryResult<()> {
    match link {
        Link::Sqlite(_) => Plain::<1>::run(link),
        // The lock in front, and each statement with a look of its own: so all that is read is as the last
        // writer left it, whatever the server's settings say.
        Link::Postgres(connection) => connection.batch_execute(&format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SELECT pg_advisory_xact_lock{}",
            super::POSTGRES_LOCK,
        )),
    }
}

/// Ends a transaction for good.
pub(super) fn commit(link: &mut Link<'_>) -> QueryResult<()> {
    Plain::<2>::run(link)
}

/// Undoes a transaction.
pub(super) fn roll_back(link: &mut Link<'_>) -> QueryResult<()> {
    Plain::<3>::run(link)
}

/// Marks what can be undone by itself.
pub(super) fn set_savepoint(link: &mut Link<'_>) -> QueryResult<()> {
    Plain::<4>::run(link)
}

/// Undoes what was done since the savepoint, which stays.
pub(super) fn undo_to_savepoint(link: &mut Link<'_>) -> QueryResult<()> {
    Plain::<5>::run(link)
}

/// Takes the savepoint away.
pub(super) fn release_savepoint(link: &mut Link<'_>) -> QueryResult<()> {
    Plain::<6>::run(link)
}

/// The same for a part of a decision.
pub(super) fn set_inner_savepoint(link: &mut Link<'_>) -> QueryResult<()> {
    Plain::<7>::run(link)
}

/// Undoes what was done since that savepoint, which stays.
pub(super) fn undo_to_inner_savepoint(link: &mut Link<'_>) -> QueryResult<()> {
    Plain::<8>::run(link)
}

/// Takes that savepoint away.
pub(super) fn release_inner_savepoint(link: &mut Link<'_>) -> QueryResult<()> {
    Plain::<9>::run(link)
}
