//! The broker's machine is gone, or is left for another one: docs/operating/disaster.md, word by word, with
//! real etcd.

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt as _, path::Path};

use diesel::{Connection as _, RunQueryDsl as _, SqliteConnection, sql_query};
use procfs::process::Process;
use reqwest::{Method, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    broker::{
        SERVICE, STANDARD, answer, eventually, instance_path, kill, nothing_after_delete,
        port_range, text, with_rules,
    },
    catalog::catalog_file,
    etcd, postgres,
    process::{BrokerProcess, assert_one_line, refused},
    stored,
};

/// Keys that are in a backup, and those that were written after it.
const KEYS: usize = 40;
const LATER: usize = 3;

/// A broker whose backups lie outside of what it keeps itself.
async fn broker() -> BrokerProcess {
    let mut broker = BrokerProcess::stopped_with(|settings| {
        let data = Path::new(&settings["DATA_DIR"]).to_path_buf();
        let beside = data.with_file_name("backups");
        let store = format!("file://{}", beside.display());
        settings.insert("BACKUP_STORE", store);
        // With the plans that are shipped an earlier backup on demand stays beside a later one.
        let catalog = with_rules(catalog_file(), |rules| {
            rules["after_delete"] = nothing_after_delete();
        });
        let file = data.with_file_name("catalog.json");
        fs::write(&file, catalog.to_string()).expect("a file");
        settings.insert("CATALOG", file.display().to_string());
    });
    broker.start_again().await;
    broker
}

/// A database with a user and with keys, and a backup of them.
async fn database(broker: &BrokerProcess, id: &str) -> Value {
    broker.provision(id, json!({})).await;
    let credentials = broker.bind(id, &format!("key-{id}")).await;
    etcd::fill(&mut etcd::connect(&credentials).await, KEYS, id).await;
    broker.back_up(&credentials).await;
    credentials
}

/// What the page has people save, while the broker runs.
fn save(data: &Path, to: &Path) {
    fs::create_dir(to).expect("a folder");
    let url = data.join("broker.db").display().to_string();
    let mut store = SqliteConnection::establish(&url).expect("a connection");
    let copy = to.join("broker.db").display().to_string();
    sql_query(format!("VACUUM INTO '{copy}'"))
        .execute(&mut store)
        .expect("a copy");
    fs::copy(data.join("encryption_keys"), to.join("encryption_keys")).expect("a copy");
}

async fn health(broker: &BrokerProcess, id: &str) -> Value {
    let shown = broker.osb(Method::GET, &format!("/operator/instances/{id}"));
    answer(shown).await.body["health"]["state"].clone()
}

async fn is_ready(broker: &BrokerProcess, id: &str) {
    eventually("a database that is well", || async {
        (health(broker, id).await == "ready").then_some(())
    })
    .await;
}

/// Asks for a recovery from the newest backup; returns the operation.
async fn recover(broker: &BrokerProcess, id: &str) -> String {
    let path = format!("/operator/instances/{id}/recover");
    let body = json!({ "from": "backup", "yes": true });
    let accepted = answer(broker.osb(Method::POST, &path).json(&body)).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    text(&accepted.body["operation"]).to_owned()
}

async fn operation(broker: &BrokerProcess, id: &str) -> Value {
    let path = format!("/operator/operations/{id}");
    answer(broker.osb(Method::GET, &path)).await.body
}

async fn findings(broker: &BrokerProcess) -> Vec<Value> {
    let found = answer(broker.osb(Method::GET, "/operator/reconciliation")).await;
    let found = found.body["findings"].as_array().expect("findings").clone();
    found.iter().map(|of| of["finding"].clone()).collect()
}

async fn keys(credentials: &Value) -> usize {
    etcd::dump(&mut etcd::connect(credentials).await)
        .await
        .len()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_saved_brings_databases_back_where_the_machine_is_gone() {
    // A copy of PostgreSQL is made, and put back, by its own tools.
    if postgres::is_store() {
        return;
    }
    let mut broker = broker().await;
    let one = database(&broker, "one").await;
    let two = database(&broker, "two").await;
    let data = broker.data_dir();
    let saved = data.with_file_name("saved");
    save(&data, &saved);
    // What the copy of the store does not know, the backups do.
    etcd::fill(&mut etcd::connect(&one).await, KEYS + LATER, "later").await;
    broker.back_up(&one).await;

    // The machine is gone, with all but what was saved and the backups.
    broker.kill();
    broker.members().into_iter().for_each(kill);
    fs::remove_dir_all(&data).expect("removed");
    fs::rename(&saved, &data).expect("moved");
    // On the new one other programs have other ports, and the range is another one.
    let taken = text(&two["uri"]).rsplit_once(':').expect("a port").1;
    let taken: u16 = taken.trim_end_matches('/').parse().expect("a port");
    let other = TcpListener::bind(("127.0.0.1", taken)).expect("a port that is free");
    broker.change_settings(|settings| {
        settings.insert("PORT_RANGE", port_range());
    });

    let refusal = refused(broker.settings()).await;
    assert_one_line(&refusal, "COMPOSE_BROKER_CLUSTERS");
    let said = String::from_utf8_lossy(&refusal.stderr).into_owned();
    assert!(said.contains("--accept cluster:local"), "{said}");
    broker.spawn_with(&["--accept", "cluster:local"]);
    broker.serving().await;
    let mut found = findings(&broker).await;
    found.sort_by_key(Value::to_string);
    let expected = [
        "leftover",
        "row_without_deployment",
        "row_without_deployment",
    ];
    assert_eq!(found, expected);
    let repaired = answer(broker.osb(Method::POST, "/operator/reconciliation")).await;
    let repairs = repaired.body["findings"].as_array().expect("findings");
    assert!(
        repairs.iter().any(|of| of["repair"] == "adopted"),
        "{repaired:?}"
    );
    eventually("members that are missed", || async {
        (health(&broker, "one").await == "down").then_some(())
    })
    .await;

    // In its place, with what applications have.
    let recovery = recover(&broker, "one").await;
    eventually("the end of the recovery", || async {
        (operation(&broker, &recovery).await["state"] == "succeeded").then_some(())
    })
    .await;
    is_ready(&broker, "one").await;
    assert_eq!(keys(&one).await, KEYS + LATER);

    // Where a port is taken, the members wait for it, and say so.
    let recovery = recover(&broker, "two").await;
    let reason = eventually("a port that is taken", || async {
        let shown = operation(&broker, &recovery).await;
        let reason = shown["trouble"]["reason"].as_str()?.to_owned();
        reason.contains(&format!("port {taken} ")).then_some(reason)
    })
    .await;
    assert!(reason.contains("taken by another process"), "{reason}");
    // Then its backup becomes an instance with other ports.
    let backups = answer(broker.compose(
        Method::GET,
        &two,
        &format!("/deployments/{}/backups", text(&two["deployment_id"])),
    ));
    let backups = backups.await.body["_embedded"]["backups"].clone();
    let parameters = json!({
        "source_service_instance_id": "two", "backup_id": backups[0]["id"],
    });
    let body = json!({
        "service_id": SERVICE, "plan_id": STANDARD, "organization_guid": "org",
        "space_guid": "space", "parameters": parameters,
    });
    let path = format!("{}?accepts_incomplete=true", instance_path("two-anew"));
    let accepted = answer(broker.osb(Method::PUT, &path).json(&body)).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let end = broker.instance_end("two-anew", &accepted.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    let anew = broker.bind("two-anew", "b").await;
    assert_eq!(keys(&anew).await, KEYS);
    broker.deprovision("two").await;
    drop(other);
    assert_eq!(findings(&broker).await, Vec::<Value>::new());

    // And it is a broker as before.
    broker.back_up(&one).await;
    broker.terminate()();
    broker.start_again().await;
    is_ready(&broker, "one").await;
    is_ready(&broker, "two-anew").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_copy_of_the_store_backups_come_back_as_those_of_deleted_databases() {
    let mut broker = broker().await;
    let one = database(&broker, "one").await;
    let data = broker.data_dir();
    broker.kill();
    broker.members().into_iter().for_each(kill);
    stored::lose(&broker).await;
    let keys_of_seals = fs::read(data.join("encryption_keys")).expect("a ring");
    fs::remove_dir_all(&data).expect("removed");
    fs::create_dir(&data).expect("a folder");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).expect("private");
    let ring = data.join("encryption_keys");
    fs::write(&ring, keys_of_seals).expect("a ring");
    fs::set_permissions(&ring, fs::Permissions::from_mode(0o600)).expect("private");
    broker.spawn_with(&["--accept", "database"]);
    broker.serving().await;

    let keep = "/operator/reconciliation?keep_unknown=true";
    let kept = answer(broker.osb(Method::POST, keep)).await;
    assert_eq!(kept.body["findings"][0]["repair"], "kept", "{kept:?}");
    assert_eq!(findings(&broker).await, Vec::<Value>::new());
    let deleted = answer(broker.osb(Method::GET, "/operator/deleted_instances")).await;
    let deleted = &deleted.body["deleted_instances"][0];
    assert_eq!(deleted["deployment_id"], one["deployment_id"]);
    // The id is free, and its owner has the same one again.
    let latest = json!({ "source_service_instance_id": "one", "backup_id": "latest" });
    broker.provision("one", latest).await;
    let again = broker.bind("one", "b").await;
    assert_eq!(keys(&again).await, KEYS);
    broker.back_up(&again).await;
    broker.deprovision("one").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_moves_to_another_machine_with_all_it_has() {
    let mut broker = broker().await;
    let credentials = database(&broker, "one").await;
    let data = broker.data_dir();

    // Stopped, and then its members: in this order, since it would start them again.
    assert!(broker.terminate()().success());
    let members = broker.members();
    assert_eq!(members.len(), 3);
    for pid in members {
        let pid = Pid::from_raw(pid).expect("a pid");
        kill_process(pid, Signal::TERM).expect("a signal");
    }
    eventually("the end of the members", || async {
        broker.members().is_empty().then_some(())
    })
    .await;
    let moved = data.with_file_name("moved");
    copy_all(&data, &moved);
    fs::remove_dir_all(&data).expect("removed");

    broker.change_settings(|settings| {
        settings.insert("DATA_DIR", moved.display().to_string());
    });
    broker.start_again().await;
    is_ready(&broker, "one").await;
    assert_eq!(keys(&credentials).await, KEYS);
    assert_eq!(findings(&broker).await, Vec::<Value>::new());
    for pid in broker.members() {
        let place = Process::new(pid).and_then(|process| process.cwd());
        assert!(place.expect("a folder").starts_with(&moved));
    }
    broker.deprovision("one").await;
}

/// Copies a folder as `rsync -a` does, hidden files too.
fn copy_all(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([from, to])
        .status();
    assert!(copied.expect("an end").success());
}
