//! What a test does to the store of a broker, whichever database it is in: it is kept and put back, lost, or written
//! to. A broker whose store is taken from it does not run.

use std::{fs, path::Path};

use diesel::{
    Connection as _, PgConnection, RunQueryDsl as _, SqliteConnection,
    connection::SimpleConnection as _, sql_query,
};

use crate::{
    broker::{TestBroker, eventually},
    postgres,
};

/// The files of SQLite.
const FILES: [&str; 3] = ["broker.db", "broker.db-wal", "broker.db-shm"];
/// Where they are kept, below the data folder.
const KEPT: &str = "kept";

/// Keeps the store as it is.
pub async fn keep(broker: &TestBroker) {
    if postgres::is_store() {
        let name = name_of(broker);
        anew(
            broker,
            &format!("{name}_{KEPT}"),
            &format!("TEMPLATE {name}"),
        );
        return;
    }
    is_closed(broker).await;
    let kept = broker.data_dir().join(KEPT);
    fs::create_dir(&kept).expect("a folder");
    move_files(&broker.data_dir(), &kept);
    copy_files(&kept, &broker.data_dir());
}

/// Puts the store back that was kept.
pub async fn put_back(broker: &TestBroker) {
    if postgres::is_store() {
        let name = name_of(broker);
        anew(broker, &name, &format!("TEMPLATE {name}_{KEPT}"));
        return;
    }
    lose(broker).await;
    move_files(&broker.data_dir().join(KEPT), &broker.data_dir());
}

/// Loses the store: the broker's next start finds none.
pub async fn lose(broker: &TestBroker) {
    if postgres::is_store() {
        anew(broker, &name_of(broker), "");
        return;
    }
    is_closed(broker).await;
    for file in there(&broker.data_dir()) {
        fs::remove_file(broker.data_dir().join(file)).expect("a file of the store");
    }
}

/// Writes into the store; returns how many rows it changes.
pub fn write(broker: &TestBroker, statement: &str) -> usize {
    let (url, statement) = (broker.store_url(), sql_query(statement));
    let changed = match url.strip_prefix("sqlite://") {
        Some(file) => {
            let store = SqliteConnection::establish(file);
            statement.execute(&mut store.expect("a connection"))
        }
        None => {
            let store = PgConnection::establish(&url);
            statement.execute(&mut store.expect("a connection"))
        }
    };
    changed.expect("a change")
}

fn name_of(broker: &TestBroker) -> String {
    postgres::name_of(&broker.store_url()).to_owned()
}

/// Makes a database anew. Who is connected to it, or to what it is made from, is cut off.
fn anew(broker: &TestBroker, name: &str, how: &str) {
    let url = broker.store_url();
    let admin = url.replace(postgres::name_of(&url), "postgres");
    let mut admin = PgConnection::establish(&admin).expect("a connection");
    let from = how.trim_start_matches("TEMPLATE ");
    for statement in [
        format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{from}'"),
        format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
        format!("CREATE DATABASE {name} {how}"),
    ] {
        admin.batch_execute(&statement).expect("a database");
    }
}

/// Waits until a stopped broker of this process has closed its store. With its last connection `SQLite` moves what
/// is in the log into the database and removes the log by its name, whatever has that name by then.
async fn is_closed(broker: &TestBroker) {
    let store = broker.data_dir().join(FILES[0]);
    eventually("a store that is closed", || async {
        let mut open = fs::read_dir("/proc/self/fd").expect("open files").flatten();
        let held = open.any(|file| fs::read_link(file.path()).is_ok_and(|to| to == store));
        (!held).then_some(())
    })
    .await;
}

fn there(folder: &Path) -> impl Iterator<Item = &'static str> {
    FILES.into_iter().filter(|name| folder.join(name).exists())
}

fn move_files(from: &Path, to: &Path) {
    for name in there(from) {
        fs::rename(from.join(name), to.join(name)).expect("a file of the store");
    }
}

fn copy_files(from: &Path, to: &Path) {
    for name in there(from) {
        fs::copy(from.join(name), to.join(name)).expect("a file of the store");
    }
}
