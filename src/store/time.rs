//! Whose clock it is that leases go by.

use chrono::{DateTime, NaiveDateTime, Utc};
use diesel::{prelude::*, sql_query, sql_types::Timestamp};

use super::{Conn, Link, StoreError};

#[derive(QueryableByName)]
struct Now {
    #[diesel(sql_type = Timestamp)]
    now: NaiveDateTime,
}

/// The time that leases are compared with: that of the database where brokers of several machines share it,
/// since their clocks differ by more than a lease; else `own`, the broker's.
pub fn of_leases(conn: &mut Conn<'_>, own: DateTime<Utc>) -> Result<DateTime<Utc>, StoreError> {
    match &mut conn.link {
        Link::Sqlite(_) => Ok(own),
        Link::Postgres(connection) => {
            // The moment, and not that of the transaction's beginning: it may have waited for its turn.
            let now: Now = sql_query("SELECT timezone('utc', clock_timestamp()) AS now")
                .get_result(*connection)?;
            Ok(now.now.and_utc())
        }
    }
}
