//! The schema of the broker's store: brought to this version by a command of its own, and left alone where
//! a newer broker has been at it.

use std::{fs, path::Path, process::Output};

use diesel::{Connection, PgConnection, SqliteConnection};

use crate::{
    postgres,
    process::{BrokerProcess, Settings, assert_one_line, command, new_key_ring, refused, settings},
};

/// A migration of some later version.
const LATER: &str = "99991231235959";

/// Migrations of this version, in their order.
fn all(of: &str) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("migrations")
        .join(of);
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name())
        .map(|name| name.into_string().expect("UTF-8"))
        .collect();
    names.sort_unstable();
    names
}

fn migrate(more: &[&str], settings: &Settings) -> Output {
    let mut command = command(&[&["migrate"], more].concat(), settings);
    command.output().expect("a process")
}

/// The names that it printed, and whether it ended well.
fn told(of: &Output) -> (Vec<String>, bool) {
    let printed = String::from_utf8_lossy(&of.stdout);
    let names = printed.lines().map(str::to_owned).collect();
    (names, of.status.success())
}

fn execute<C: Connection>(database: &str, statement: &str) {
    let mut connection = C::establish(database).expect("a connection");
    connection.batch_execute(statement).expect("a change");
}

async fn is_made_once_and_left_alone_when_newer(
    settings: &Settings,
    all: Vec<String>,
    execute: impl Fn(&str),
) {
    assert_eq!(
        told(&migrate(&["--check"], settings)),
        (all.clone(), false),
        "before"
    );
    assert_eq!(
        told(&migrate(&["--check"], settings)),
        (all.clone(), false),
        "after a look"
    );
    assert_eq!(told(&migrate(&[], settings)), (all, true), "the work");
    let nothing = (Vec::new(), true);
    assert_eq!(
        told(&migrate(&["--check"], settings)),
        nothing,
        "after the work"
    );
    assert_eq!(told(&migrate(&[], settings)), nothing, "once more");

    execute(&format!(
        "INSERT INTO __diesel_schema_migrations (version) VALUES ('{LATER}')"
    ));
    for refused in [
        migrate(&["--check"], settings),
        migrate(&[], settings),
        refused(settings).await,
    ] {
        assert_one_line(&refused, LATER);
        assert_one_line(&refused, "the database is newer");
    }
    execute(&format!(
        "DELETE FROM __diesel_schema_migrations WHERE version = '{LATER}'"
    ));
    assert_eq!(
        told(&migrate(&["--check"], settings)),
        nothing,
        "in the end"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_brought_to_this_version_and_left_alone_when_newer() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = settings(folder.path());
    let file = format!("{}/broker.db", settings["DATA_DIR"]);
    let execute = |statement: &str| execute::<SqliteConnection>(&file, statement);
    is_made_once_and_left_alone_when_newer(&settings, all("sqlite"), execute).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_postgresql_is_brought_to_this_version_and_left_alone_when_newer() {
    let Some(url) = postgres::new_database() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let mut settings = settings(folder.path());
    settings.insert("DATABASE_URL", url.clone());
    let refused = migrate(&[], &settings);
    assert_one_line(&refused, "COMPOSE_BROKER_ENCRYPTION_KEYS");
    settings.insert("ENCRYPTION_KEYS", new_key_ring());
    let execute = |statement: &str| execute::<PgConnection>(&url, statement);
    is_made_once_and_left_alone_when_newer(&settings, all("postgres"), execute).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_runs_is_looked_at_alone() {
    let broker = BrokerProcess::start().await;
    let nothing = (Vec::new(), true);
    assert_eq!(told(&migrate(&["--check"], broker.settings())), nothing);
    if !postgres::is_store() {
        let refused = migrate(&[], broker.settings());
        assert_one_line(&refused, "another broker");
    }
}
