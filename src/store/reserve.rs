//! Room that the store has for itself, so that it takes writes when somebody else has filled its
//! disk.
//!
//! It lies within SQLite's own files: pages of the database that hold nothing, and a log that is
//! longer than it has to be. Both are written over without any need of the disk. A file beside them
//! that is removed when the disk is full would be a present to the tenant that filled it: databases of
//! users take what is free faster than the broker does. It stays there while no broker runs, too: the
//! process ends with the store open, see [`App::end`](crate::app::App::end).

use std::{ffi::OsString, fs, path::Path, sync::Arc};

use diesel::{QueryableByName, RunQueryDsl, connection::SimpleConnection, sql_types::BigInt};

use super::{Reading, Store, StoreError, each};
use crate::model::limits::STORE_RESERVE_BYTES;

#[derive(QueryableByName)]
struct Unused {
    #[diesel(sql_type = BigInt)]
    bytes: i64,
}

impl Store {
    /// Makes the reserve where it is missing or half used up; returns whether it did. A server's
    /// database has its own disk, and its own ways.
    pub async fn keep_reserve(self: &Arc<Self>) -> Result<bool, StoreError> {
        let path = match &self.reading {
            Reading::Sqlite { path, .. } => path,
            Reading::Postgres(_) => return Ok(false),
        };
        let log = log_of(path);
        let log_bytes = fs::metadata(log).map(|file| file.len()).unwrap_or(0);
        if log_bytes >= STORE_RESERVE_BYTES && self.unused_bytes().await? >= STORE_RESERVE_BYTES / 2
        {
            return Ok(false);
        }
        // Written in one transaction, so that the log has all of it, and given up in another, so
        // that the database has.
        self.run(format!(
            "DROP TABLE IF EXISTS reserve; \
             CREATE TABLE reserve AS SELECT zeroblob({STORE_RESERVE_BYTES}) AS bytes;"
        ))
        .await?;
        self.run("DROP TABLE reserve;".to_owned()).await?;
        Ok(true)
    }

    /// What of the database's file holds nothing, in bytes.
    async fn unused_bytes(self: &Arc<Self>) -> Result<u64, StoreError> {
        let found = self
            .scan(|conn| {
                let query = diesel::sql_query(
                    "SELECT freelist_count * page_size AS bytes \
                     FROM pragma_freelist_count(), pragma_page_size()",
                );
                let found: Unused = each!(conn, |c| query.get_result(c))?;
                Ok(found.bytes)
            })
            .await?;
        Ok(u64::try_from(found).unwrap_or(0))
    }

    async fn run(self: &Arc<Self>, statements: String) -> Result<(), StoreError> {
        self.write(move |conn| Ok(each!(conn, |c| c.batch_execute(&statements))?))
            .await
    }
}

/// SQLite's log of a database file.
fn log_of(path: &Path) -> OsString {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_reserve_is_made_once_and_made_again_when_it_was_used() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("db");
        let url = format!("sqlite://{}", path.display());
        let store = Arc::new(Store::open(&url).expect("a store"));
        assert!(store.keep_reserve().await.expect("a reserve"));
        assert!(store.unused_bytes().await.expect("a number") >= STORE_RESERVE_BYTES);
        let log = fs::metadata(log_of(&path)).expect("a log").len();
        assert!(log >= STORE_RESERVE_BYTES, "{log}");
        assert!(!store.keep_reserve().await.expect("a reserve"));
        // What comes fits into what is there.
        let taken = STORE_RESERVE_BYTES * 3 / 4;
        let statement = format!("CREATE TABLE filler AS SELECT zeroblob({taken}) AS bytes;");
        store.run(statement).await.expect("room");
        assert_eq!(fs::metadata(log_of(&path)).expect("a log").len(), log);
        assert!(store.keep_reserve().await.expect("a reserve"));
        // A new start begins with a new log, where the last one was closed.
        drop(store);
        let store = Arc::new(Store::open(&url).expect("a store"));
        assert!(store.keep_reserve().await.expect("a reserve"));
        assert!(!store.keep_reserve().await.expect("a reserve"));
    }

    #[tokio::test]
    async fn who_looks_at_what_an_ended_process_left_leaves_the_reserve() {
        let folder = tempfile::tempdir().expect("a folder");
        let [path, left] = ["db", "left? #1 50%2f"].map(|name| folder.path().join(name));
        let url = |path: &Path| format!("sqlite://{}", path.display());
        let store = Arc::new(Store::open(&url(&path)).expect("a store"));
        store.ping().await.expect("a write");
        assert!(store.keep_reserve().await.expect("a reserve"));
        fs::copy(&path, &left).expect("a copy");
        fs::copy(log_of(&path), log_of(&left)).expect("a copy");
        let reader = Arc::new(Store::open_for_reading(&url(&left)).expect("a store"));
        reader.unused_bytes().await.expect("a number");
        drop(reader);
        let kept = |log| fs::metadata(log).expect("a log").len() >= STORE_RESERVE_BYTES;
        assert!(kept(log_of(&left)));
        let store = Arc::new(Store::open(&url(&left)).expect("a store"));
        assert!(!store.keep_reserve().await.expect("a reserve"));
        assert!(kept(log_of(&left)));
    }
}
