//! The broker's store goes from a file into a database of PostgreSQL, whole or not at all.

use std::process::{Output, Stdio};

use diesel::{
    Connection as _, PgConnection, QueryableByName, RunQueryDsl as _, SqliteConnection,
    connection::SimpleConnection as _, sql_query, sql_types::BigInt,
};
use reqwest::Method;
use serde_json::json;

use crate::{
    broker::{answer, eventually, text},
    etcd, postgres,
    process::{BrokerProcess, Settings, assert_one_line, command, refused},
};

#[derive(QueryableByName)]
struct Counted {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

fn copy(from: &str, to: &str) -> Output {
    let mut command = command(
        &["store", "copy", "--from", from, "--to", to],
        &Settings::new(),
    );
    command.output().expect("a process")
}

fn file_of(settings: &Settings) -> String {
    format!("{}/broker.db", settings["DATA_DIR"])
}

fn count(url: &str, table: &str) -> i64 {
    let mut there = PgConnection::establish(url).expect("a connection");
    let counted: Counted = sql_query(format!("SELECT count(*) AS count FROM {table}"))
        .get_result(&mut there)
        .expect("a count");
    counted.count
}

/// The settings of a broker that goes on over PostgreSQL: what its first start made is given.
fn over_postgres(settings: &Settings, url: &str) -> Settings {
    let ring = std::fs::read_to_string(format!("{}/encryption_keys", settings["DATA_DIR"]));
    let mut settings = settings.clone();
    settings.insert(
        "ENCRYPTION_KEYS",
        ring.expect("it was made").trim().to_owned(),
    );
    settings.insert("DATABASE_URL", url.to_owned());
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_goes_on_over_postgresql_with_all_that_it_had() {
    if postgres::is_store() {
        return;
    }
    let Some(url) = postgres::new_database() else {
        return;
    };
    let mut there = PgConnection::establish(&url).expect("a connection");
    let elsewhere = format!(
        "ALTER DATABASE {} SET timezone = 'Asia/Tokyo'",
        postgres::name_of(&url)
    );
    there.batch_execute(&elsewhere).expect("a setting");
    let mut broker = BrokerProcess::start().await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    let backup = broker.back_up(&credentials).await;
    let file = file_of(broker.settings());
    let from = format!("sqlite://{file}");
    assert_one_line(&copy(&from, &url), "another broker uses this database file");
    broker.kill();

    // A copy that is broken off: its last rows are not there, and no broker starts with it.
    assert_success(&copy(&from, &url));
    let mut there = PgConnection::establish(&url).expect("a connection");
    there
        .batch_execute(
            "UPDATE copies SET ended_at = NULL; DELETE FROM operations; DELETE FROM deployments",
        )
        .expect("a change");
    let mut here = SqliteConnection::establish(&file).expect("a connection");
    here.batch_execute("DELETE FROM copies").expect("a change");
    let settings = over_postgres(broker.settings(), &url);
    assert_one_line(&refused(&settings).await, "has not ended");

    let copied = copy(&from, &url);
    assert_success(&copied);
    let ago = |column: &str| format!("abs(extract(epoch FROM {column} - timezone('utc', now())))");
    let now = format!(
        "copies WHERE {} < 900 AND {} < 900",
        ago("begun_at"),
        ago("ended_at")
    );
    assert_eq!(count(&url, &now), 1, "the zone of a session is nobody's");
    let printed = String::from_utf8_lossy(&copied.stdout);
    for table in ["instances 1", "deployments 1", "placed 1", "bindings 1"] {
        assert!(
            printed.lines().any(|line| line == table),
            "{table}: {printed}"
        );
    }
    assert_one_line(
        &refused(broker.settings()).await,
        "copied into another database",
    );

    broker.change_settings(|of| *of = settings);
    broker.start_again().await;
    let path = format!(
        "/deployments/{}/backups",
        text(&credentials["deployment_id"])
    );
    let known = answer(broker.compose(Method::GET, &credentials, &path)).await;
    let known = known.body.to_string();
    assert!(known.contains(text(&backup["id"])), "{known}");
    let mut database = etcd::connect(&credentials).await;
    etcd::fill(&mut database, 1, "v").await;
    broker.bind("i", "later").await;
    assert_one_line(&copy(&from, &url), "not the same in both databases");
    broker.deprovision("i").await;
}

fn assert_success(of: &Output) {
    let told = String::from_utf8_lossy(&of.stderr);
    assert!(of.status.success(), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_empty_database_and_no_file_is_refused() {
    let Some(url) = postgres::new_database() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let from = format!("sqlite://{}/broker.db", folder.path().display());
    assert_one_line(&copy(&from, &url), "no broker has kept anything");
    assert_one_line(&copy(&url, &from), "from sqlite:// to postgres://");

    let of = |url: &str| {
        let mut settings = Settings::new();
        settings.insert("DATA_DIR", folder.path().display().to_string());
        settings.insert("DATABASE_URL", url.to_owned());
        settings.insert("PASSWORD", "word".to_owned());
        settings.insert("ENCRYPTION_KEYS", crate::process::new_key_ring());
        let mut migrate = command(&["migrate"], &settings);
        assert_success(&migrate.output().expect("a process"));
    };
    of(&from);
    of(&url);
    let mut there = PgConnection::establish(&url).expect("a connection");
    there
        .batch_execute("INSERT INTO folders SELECT (json_populate_record(NULL::folders, '{\"name\": \"data\", \"marker\": \"m\"}')).*")
        .expect("a row");
    assert_one_line(&copy(&from, &url), "its table folders is not empty");
    assert_eq!(count(&url, "copies"), 0);
    let older = "DELETE FROM __diesel_schema_migrations WHERE version LIKE '20261129000087%'";
    there.batch_execute(older).expect("a change");
    assert_one_line(
        &copy(&from, &url),
        "has a store of an older version already",
    );
}

/// Rows of a table, in more pages than one.
const MANY: i64 = 1200;
/// What stands on a page that is not the first one.
const LATE: i64 = 700;
/// A lock of the test's own.
const LOCK: i64 = 4711;

/// Makes a store of this version in both databases, with many rows in the file.
fn fill(folder: &std::path::Path, from: &str, to: &str) {
    for url in [from, to] {
        let mut settings = Settings::new();
        settings.insert("DATA_DIR", folder.display().to_string());
        settings.insert("DATABASE_URL", url.to_owned());
        settings.insert("PASSWORD", "word".to_owned());
        settings.insert("ENCRYPTION_KEYS", crate::process::new_key_ring());
        let mut migrate = command(&["migrate"], &settings);
        assert_success(&migrate.output().expect("a process"));
    }
    let file = from.trim_start_matches("sqlite://");
    let mut here = SqliteConnection::establish(file).expect("a connection");
    let then = "'2026-11-21 12:00:00.5'";
    let filled = here.batch_execute(&format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MANY})
             INSERT INTO deployments (id, instance_id, cluster_id, engine, version, units, members, name)
             SELECT printf('6b02d81d%016x', i), 'i' || i, 'local', 'etcd', '3.6.16', 1, '[]', 'd' || i FROM n;
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MANY})
             INSERT INTO operations (id, kind, instance_id, waits_for, state, halted, step, steps_done,
                 steps_total, bytes_done, bytes_total, origin, not_before, epoch, created_at, updated_at, ordinal)
             SELECT printf('6b02d81f%016x', i), 'provision', 'i' || i, 'nothing', 'succeeded', 0, 'a step', 3, 3,
                 0, 0, 'osb', {then}, 1, {then}, {then}, i FROM n;"
    ));
    filled.expect("rows");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_killed_between_two_pages_goes_on_where_it_was() {
    let Some(url) = postgres::new_database() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let from = format!("sqlite://{}/broker.db", folder.path().display());
    fill(folder.path(), &from, &url);
    // It stops where a row of the second page comes.
    let mut holds = PgConnection::establish(&url).expect("a connection");
    let held = holds.batch_execute(&format!(
        "CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN PERFORM pg_advisory_lock({LOCK}); RETURN NEW; END $$;
         CREATE TRIGGER stops BEFORE INSERT ON operations FOR EACH ROW
             WHEN (NEW.instance_id = 'i{LATE}') EXECUTE FUNCTION stop();
         SELECT pg_advisory_lock({LOCK})"
    ));
    held.expect("a lock");
    let mut copying = command(
        &["store", "copy", "--from", &from, "--to", &url],
        &Settings::new(),
    );
    let copying = copying.stdout(Stdio::null()).stderr(Stdio::null());
    let mut copying = copying.spawn().expect("a process");
    eventually("a copy that waits", || async {
        let waiting = "pg_locks WHERE locktype = 'advisory' AND NOT granted
                       AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        (count(&url, waiting) == 1).then_some(())
    })
    .await;
    copying.kill().expect("a signal");
    copying.wait().expect("an end");
    let gone = holds.batch_execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid();
         DROP TRIGGER stops ON operations; DROP FUNCTION stop()",
    );
    gone.expect("a change");
    let there = count(&url, "operations");
    assert!(there > 0 && there < MANY, "{there}");
    assert_eq!(count(&url, "copies WHERE ended_at IS NULL"), 1);

    let copied = copy(&from, &url);
    assert_success(&copied);
    let printed = String::from_utf8_lossy(&copied.stdout);
    for table in ["deployments", "operations"] {
        let line = format!("{table} {MANY}");
        assert!(printed.lines().any(|told| told == line), "{printed}");
        assert_eq!(count(&url, table), MANY, "{table}");
    }
    assert_eq!(count(&url, "copies WHERE ended_at IS NULL"), 0);
}
