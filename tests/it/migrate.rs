//! The schema of the broker's store: brought to this version by a command of its own, and left alone where
//! a newer broker has been at it.

use std::{
    fs,
    path::Path,
    process::Output,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use compose_broker::store::{POSTGRES_LOCK, Store};
use diesel::{
    Connection, PgConnection, RunQueryDsl as _, SqliteConnection,
    connection::SimpleConnection as _, sql_query,
};
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::{
    broker::{SERVICE, answer, eventually, instance_path},
    etcd, postgres,
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

/// The last migration that was made before the rule: what a broker of before does not know of, it has to be able
/// to work with.
const BEFORE_THE_RULE: &str = "2026-11-29-000090_clusters";

/// What a migration does that a broker of before, which still runs, could not work with.
fn breaks(migration: &str) -> Vec<String> {
    let lines = migration
        .lines()
        .map(|line| line.split("--").next().unwrap_or_default());
    let text: String = lines.flat_map(|line| [line, "\n"]).collect();
    let statements = text
        .split(';')
        .map(|of| of.split_whitespace().collect::<Vec<_>>().join(" "));
    let is_wrong = |statement: &String| {
        let statement = statement.to_uppercase();
        let adds_column =
            statement.starts_with("ALTER TABLE") && statement.contains(" ADD COLUMN ");
        let may_be_left_out = !statement.contains("NOT NULL") || statement.contains(" DEFAULT ");
        let is_right = statement.is_empty()
            || statement.starts_with("CREATE TABLE ")
            || statement.starts_with("CREATE INDEX ")
            || statement.starts_with("INSERT INTO ")
            || statement.starts_with("UPDATE ")
            || adds_column && may_be_left_out && !statement.contains("UNIQUE");
        !is_right
    };
    statements.filter(is_wrong).collect()
}

#[test]
fn a_migration_only_adds_what_a_broker_of_before_can_leave_out() {
    for of in ["sqlite", "postgres"] {
        for name in all(of)
            .iter()
            .filter(|name| name.as_str() > BEFORE_THE_RULE)
        {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("migrations")
                .join(of);
            let text = fs::read_to_string(folder.join(name).join("up.sql")).expect("a migration");
            assert_eq!(breaks(&text), Vec::<String>::new(), "{of}/{name}");
        }
    }
    let good = "-- A table; and more.\nCREATE TABLE a (id TEXT NOT NULL PRIMARY KEY);\n
                ALTER TABLE b ADD COLUMN c TEXT; ALTER TABLE b ADD COLUMN d BIGINT NOT NULL DEFAULT 0;
                CREATE INDEX e ON a (id); UPDATE b SET c = 'x';";
    assert_eq!(breaks(good), Vec::<String>::new());
    for bad in [
        "DROP TABLE a",
        "ALTER TABLE a DROP COLUMN b",
        "ALTER TABLE a RENAME COLUMN b TO c",
        "ALTER TABLE a ADD COLUMN b TEXT NOT NULL",
        "ALTER TABLE a ADD COLUMN b TEXT UNIQUE",
        "CREATE UNIQUE INDEX a ON b (c)",
        "DELETE FROM a",
    ] {
        assert_eq!(breaks(bad), [bad]);
    }
}

/// What the rule lets a later version do to every table.
const NEXT_SCHEMA: &str = "
    DO $$ DECLARE t RECORD; BEGIN
        FOR t IN SELECT tablename AS name FROM pg_tables WHERE schemaname = current_schema()
            AND tablename NOT LIKE '\\_\\_%' LOOP
            EXECUTE format('ALTER TABLE %I ADD COLUMN later TEXT', t.name);
            EXECUTE format('ALTER TABLE %I ADD COLUMN later_count BIGINT NOT NULL DEFAULT 7', t.name);
        END LOOP;
    END $$;
    CREATE TABLE later (id TEXT NOT NULL PRIMARY KEY, instance_id TEXT NOT NULL);
    CREATE INDEX later_of_operations ON operations (later_count);";

/// Brings the schema forward as a later version does at its start: in one transaction, and giving way to readers.
pub fn bring_forward(url: &str) {
    let mut connection = PgConnection::establish(url).expect("a connection");
    let made = (0..BRINGS_MAX).any(|_| {
        let made = connection.batch_execute(&format!(
            "BEGIN; SELECT pg_advisory_xact_lock{POSTGRES_LOCK}; SET LOCAL lock_timeout = '500ms';
             {NEXT_SCHEMA} COMMIT"
        ));
        let _ = connection.batch_execute("ROLLBACK");
        made.is_ok()
    });
    assert!(made, "somebody always reads");
}

/// How often that is begun, at most.
const BRINGS_MAX: usize = 20;

/// What a later version writes again and again: into its own table, and into its columns of rows of others.
const NEXT_WRITES: &str = "
    INSERT INTO later SELECT id, instance_id FROM operations ON CONFLICT DO NOTHING;
    UPDATE instances SET later = 'kept', later_count = later_count + 1;
    UPDATE operations SET later = kind, later_count = later_count + 1;
    UPDATE bindings SET later = 'kept', later_count = later_count + 1;
    UPDATE backups SET later = 'kept', later_count = later_count + 1;
    UPDATE deployments SET later = 'kept', later_count = later_count + 1;";

/// A broker of a later version, as far as an older one can see it: it decides as all do, one at a time.
struct Newer {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<usize>,
}

impl Newer {
    fn begin(url: &str) -> Self {
        let is_over = Arc::<AtomicBool>::default();
        let (told, mut connection) = (is_over.clone(), PgConnection::establish(url).expect("one"));
        let thread = thread::spawn(move || {
            let mut decisions = 0;
            while !told.load(Ordering::Relaxed) {
                let decided = connection.batch_execute(&format!(
                    "BEGIN; SELECT pg_advisory_xact_lock{POSTGRES_LOCK}; {NEXT_WRITES}; COMMIT"
                ));
                decided.expect("a decision");
                decisions += 1;
                thread::sleep(NEXT_PAUSE);
            }
            decisions
        });
        Self { is_over, thread }
    }

    /// Ends it; returns how often it has decided.
    fn end(self) -> usize {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().expect("no panic")
    }
}

/// Between two decisions of that one.
const NEXT_PAUSE: Duration = Duration::from_millis(100);

/// Rows of `from` where `lost` is true.
fn rows_where(url: &str, from: &str, lost: &str) -> usize {
    let mut connection = PgConnection::establish(url).expect("a connection");
    let rows = sql_query(format!("SELECT 1 FROM {from} WHERE {lost}"));
    rows.execute(&mut connection).expect("rows")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_of_before_goes_on_beside_a_newer_one_that_has_brought_the_schema_forward() {
    let Some(url) = postgres::new_database() else {
        return;
    };
    let mut broker = BrokerProcess::stopped_with(|settings| {
        settings.insert("DATABASE_URL", url.clone());
        settings.insert("ENCRYPTION_KEYS", new_key_ring());
    });
    broker.start_again().await;
    broker.provision("i", json!({})).await;
    let before = broker.bind("i", "before").await;
    etcd::fill(&mut etcd::connect(&before).await, 5, "v").await;

    execute::<PgConnection>(&url, NEXT_SCHEMA);
    let later = format!("INSERT INTO __diesel_schema_migrations (version) VALUES ('{LATER}')");
    execute::<PgConnection>(&url, &later);
    let newer = Newer::begin(&url);
    let backup = broker.back_up(&before).await;
    assert_eq!(backup["status"], "complete", "{backup}");
    let from = json!({ "source_service_instance_id": "i", "backup_id": backup["id"] });
    broker.provision("copy", from).await;
    let copy = broker.bind("copy", "b").await;
    assert_eq!(etcd::dump(&mut etcd::connect(&copy).await).await.len(), 5);
    let body = json!({ "service_id": SERVICE, "parameters": { "units": 2 } });
    let path = format!("{}?accepts_incomplete=true", instance_path("i"));
    let accepted = answer(broker.osb(Method::PATCH, &path).json(&body)).await;
    let end = broker.instance_end("i", &accepted.body).await;
    assert_eq!(end["state"], "succeeded", "{accepted:?} {end}");
    let unbound = broker.unbind("i", "before").await;
    assert_eq!(unbound.status, StatusCode::OK, "{unbound:?}");
    for path in [
        "/operator/instances",
        "/operator/operations",
        "/operator/audit",
    ] {
        let told = answer(broker.osb(Method::GET, path)).await;
        assert_eq!(told.status, StatusCode::OK, "{told:?}");
    }
    // What one of the two has written the other one leaves as it is.
    let decisions = newer.end();
    assert!(decisions > 10, "{decisions}");
    execute::<PgConnection>(&url, NEXT_WRITES);
    let body = json!({ "service_id": SERVICE, "parameters": { "units": 1 } });
    let accepted = answer(broker.osb(Method::PATCH, &path).json(&body)).await;
    let end = broker.instance_end("i", &accepted.body).await;
    assert_eq!(end["state"], "succeeded", "{accepted:?} {end}");
    for table in ["instances", "deployments", "bindings", "backups"] {
        assert!(rows_where(&url, table, "true") > 0, "{table}");
        let lost = rows_where(&url, table, "later IS NULL OR later_count < 8");
        assert_eq!(lost, 0, "{table}");
    }
    // The last one came after it.
    let since = rows_where(&url, "operations", "later IS NULL");
    let known = rows_where(&url, "later JOIN operations USING (id)", "true");
    assert!(since > 0 && known > 5, "{since} {known}");
    assert_eq!(known + since, rows_where(&url, "operations", "true"));
    for instance in ["copy", "i"] {
        broker.deprovision(instance).await;
    }
    // It goes on, and is not begun anew.
    broker.kill();
    assert_one_line(&refused(broker.settings()).await, LATER);
}

/// Takes from a database what its last migrations have made.
const AS_BEFORE: &str = "
    DROP TABLE uploads, upload_parts, mirror_copies, mirrors;
    ALTER TABLE operation_steps DROP COLUMN done_at;
    ALTER TABLE backups DROP COLUMN mirrored_at, DROP COLUMN mirror_due_at;
    DELETE FROM __diesel_schema_migrations
        WHERE version IN ('20261130000105', '20261130000106', '20261130000107')";

/// A request of a broker of before, which has one of the tables that are changed and asks for another one: one of
/// the two has to give way, and nobody waits for a migration.
#[tokio::test(flavor = "multi_thread")]
async fn a_migration_gives_way_to_those_who_read() {
    let Some(url) = postgres::new_database() else {
        return;
    };
    Store::migrate(&url).expect("a store");
    execute::<PgConnection>(&url, AS_BEFORE);
    let mut reader = PgConnection::establish(&url).expect("a connection");
    let begun = reader.batch_execute("BEGIN; SELECT 1 FROM operation_steps");
    begun.expect("a look");
    let (of_it, (told, tells)) = (url.clone(), mpsc::channel());
    let migrating = thread::spawn(move || {
        let made = Store::migrate(&of_it).map_err(|error| format!("{error:?}"));
        told.send(()).expect("a listener");
        made
    });
    // It has the one table and waits for the other one.
    let waits = "pg_locks WHERE NOT granted AND locktype = 'relation'
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    eventually("a migration that waits", || async {
        (rows_where(
            &url,
            "(SELECT 1) one",
            &format!("EXISTS (SELECT 1 FROM {waits})"),
        ) == 1)
            .then_some(())
    })
    .await;
    assert!(tells.try_recv().is_err(), "it has waited for nobody");
    let read = reader.batch_execute("SELECT 1 FROM backups; COMMIT");
    read.expect("a reader is not in its way");
    let made = migrating.join().expect("no panic").expect("it was made");
    assert_eq!(made.len(), 3, "{made:?}");
}
