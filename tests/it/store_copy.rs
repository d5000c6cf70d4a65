//! The broker's store goes from a file into a database of PostgreSQL, whole or not at all.

use std::process::Output;

use diesel::{
    Connection as _, PgConnection, QueryableByName, RunQueryDsl as _, SqliteConnection,
    connection::SimpleConnection as _, sql_query, sql_types::BigInt,
};
use reqwest::Method;
use serde_json::json;

use crate::{
    broker::{answer, text},
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
