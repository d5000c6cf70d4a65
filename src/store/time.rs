//! Whose clock it is that leases and the queue go by.

use chrono::{DateTime, NaiveDateTime, Utc};
use diesel::{
    prelude::*,
    sql_query,
    sql_types::{Nullable, Timestamp},
};

use super::{Conn, Link, StoreError, prepared::Prepared};

#[derive(QueryableByName)]
struct Now {
    #[diesel(sql_type = Nullable<Timestamp>)]
    now: Option<NaiveDateTime>,
}

/// The moment, and not that of the transaction's beginning: it may have waited for its turn. Nothing where a test
/// has said that its own clock counts ([`crate::model::postgres::PostgresUse::own_time`]).
const NOW: &str = "SELECT CASE WHEN current_setting('compose_broker.own_time', true) = 'on' THEN NULL \
                   ELSE timezone('utc', clock_timestamp()) END AS now";

/// The time that leases, and the moments from which on work is due, are set and compared by: that of the
/// database where brokers of several machines share it, since their clocks may differ by more than a lease;
/// else `own`, the broker's.
pub fn of_store(conn: &mut Conn<'_>, own: DateTime<Utc>) -> Result<DateTime<Utc>, StoreError> {
    match &mut conn.link {
        Link::Sqlite(_) => Ok(own),
        Link::Postgres(connection) => {
            let found: Now = Prepared(sql_query(NOW)).get_result(*connection)?;
            Ok(found.now.map_or(own, |now| now.and_utc()))
        }
    }
}
