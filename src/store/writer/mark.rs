//! What a server made of a commit whose answer was lost.
//!
//! Each transaction writes a number of its own in the row of its writer. After a lost answer the writer waits
//! for its lock, which the former connection has until it is gone, and reads the row: the number is there, or
//! the transaction is not. That holds as well where another server has taken over meanwhile, with or without
//! the transaction.

use diesel::{
    PgConnection, QueryResult, RunQueryDsl as _,
    connection::SimpleConnection as _,
    sql_query,
    sql_types::{BigInt, Text},
};
use uuid::Uuid;

use crate::store::{Link, prepared};

/// The row of a writer that has written nothing for so long is taken away.
const KEPT_DAYS: u32 = 7;

/// The marks of one writer.
#[derive(Debug)]
pub(in crate::store) struct Marks {
    writer: Uuid,
    last: i64,
}

#[derive(diesel::QueryableByName)]
struct Found {
    #[diesel(sql_type = BigInt)]
    mark: i64,
}

impl Marks {
    /// Those of a new writer.
    pub(super) fn new() -> Self {
        let (writer, last) = (Uuid::new_v4(), 0);
        Self { writer, last }
    }

    /// Writes the next one within the transaction that is open.
    pub(super) fn set(&mut self, connection: &mut PgConnection) -> QueryResult<()> {
        self.last += 1;
        connection.batch_execute(&format!(
            "INSERT INTO writers (id, mark, written_at) \
             VALUES ('{}', {}, timezone('utc', clock_timestamp())) \
             ON CONFLICT (id) DO UPDATE SET mark = excluded.mark, written_at = excluded.written_at",
            self.writer, self.last
        ))
    }

    /// Whether the transaction that wrote the last one was kept.
    pub(super) fn was_kept(&self, connection: &mut PgConnection) -> QueryResult<bool> {
        prepared::begin_to_write(&mut Link::Postgres(connection))?;
        let query = sql_query("SELECT mark FROM writers WHERE id = $1");
        let found = query
            .bind::<Text, _>(self.writer.to_string())
            .load::<Found>(connection);
        let ended = prepared::roll_back(&mut Link::Postgres(connection));
        let is_kept = found?.iter().any(|found| found.mark == self.last);
        ended.map(|()| is_kept)
    }

    /// Takes the rows of writers away that are long gone.
    pub(super) fn forget_old(connection: &mut PgConnection) -> QueryResult<()> {
        connection.batch_execute(&format!(
            "DELETE FROM writers WHERE written_at < timezone('utc', now()) - interval '{KEPT_DAYS} days'"
        ))
    }
}
