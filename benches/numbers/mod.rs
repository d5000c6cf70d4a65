//! How benchmarks fill a SQLite store with as many rows as they want.

use std::path::Path;

use diesel::{Connection as _, SqliteConnection, connection::SimpleConnection as _};

/// The id of the instance with the number `i`, in SQL.
pub const INSTANCE_ID: &str =
    "printf('%08x-dcac-4618-89a7-f79e3f1cea6a', (i * 2654435761) % 4294967296)";

/// A connection beside the broker's own.
pub fn connect(path: &Path) -> SqliteConnection {
    let mut connection =
        SqliteConnection::establish(&path.display().to_string()).expect("a connection");
    connection
        .batch_execute("PRAGMA busy_timeout = 10000; PRAGMA synchronous = OFF;")
        .expect("settings");
    connection
}

/// Makes the table `bench`, which has the numbers `i` from 1 to `last`.
pub fn make_numbers(connection: &mut SqliteConnection, last: u32) {
    connection
        .batch_execute(&format!(
            "CREATE TABLE bench (i INTEGER PRIMARY KEY);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {last})
                 INSERT INTO bench SELECT i FROM n;"
        ))
        .expect("numbers");
}
