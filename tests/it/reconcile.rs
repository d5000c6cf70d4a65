//! When the store and the backups' bytes disagree: it is found, nothing is changed unasked, and a
//! repair loses nothing that it was not told to.

use std::{
    fs,
    path::{Path, PathBuf},
};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{TestBroker, answer, eventually, text},
    control::surroundings,
    inside::Inside,
    registers::{REGISTER, often},
    stored,
};

const PATH: &str = "/operator/reconciliation";

async fn findings(broker: &TestBroker, method: Method, query: &str) -> Value {
    let answer = answer(broker.osb(method, &format!("{PATH}{query}"))).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.body["findings"].clone()
}

async fn look(broker: &TestBroker) -> Value {
    findings(broker, Method::GET, "").await
}

async fn listed(broker: &TestBroker, credentials: &Value) -> Value {
    let deployment = text(&credentials["deployment_id"]);
    let path = format!("/deployments/{deployment}/backups");
    let answer = answer(broker.compose(Method::GET, credentials, &path)).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.body["_embedded"]["backups"].clone()
}

/// Where a backup's objects lie.
fn folder(broker: &TestBroker, backup: &Value) -> PathBuf {
    let (deployment, id) = (text(&backup["deployment_id"]), text(&backup["id"]));
    broker.data_dir().join("backups").join(deployment).join(id)
}

/// Credentials after a restart, which gives the broker another port.
pub fn moved(broker: &TestBroker, mut credentials: Value) -> Value {
    credentials["instance_administration_api"]["root"] = json!(format!("{}/api", broker.url));
    credentials
}

/// A broker whose store was put back to a state from before a backup; with the credentials of its
/// instance, and the backup.
pub async fn with_an_older_store(
    damage: impl FnOnce(&TestBroker, &Value),
) -> (TestBroker, Value, Value) {
    let mut broker = TestBroker::start_with(&[], often(surroundings())).await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "app").await;
    broker.stop().await;
    stored::keep(&broker).await;
    broker.start_again(often(surroundings())).await;
    let credentials = moved(&broker, credentials);
    let backup = broker.back_up(&credentials).await;
    Inside::of(&broker).idle("i").await;
    let register = broker
        .data_dir()
        .join("backups")
        .join(text(&backup["deployment_id"]))
        .join(REGISTER);
    eventually("a register that has the backup", || async {
        let register = fs::read_to_string(&register).ok()?;
        register.contains(text(&backup["id"])).then_some(())
    })
    .await;
    broker.stop().await;
    stored::put_back(&broker).await;
    damage(&broker, &backup);
    broker.start_again(often(surroundings())).await;
    let credentials = moved(&broker, credentials);
    (broker, credentials, backup)
}

/// A broker with an instance `i` and a backup of it, and nothing under way.
async fn with_a_backup() -> (TestBroker, Value, Value) {
    let broker = TestBroker::start().await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "app").await;
    let backup = broker.back_up(&credentials).await;
    Inside::of(&broker).idle("i").await;
    (broker, credentials, backup)
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for file in fs::read_dir(from).expect("a folder") {
        let file = file.expect("a file");
        fs::copy(file.path(), to.join(file.file_name())).expect("a copy");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_whose_bytes_are_lost_fails_on_command() {
    let (broker, credentials, backup) = with_a_backup().await;
    assert_eq!(look(&broker).await, json!([]));

    let folder = folder(&broker, &backup);
    fs::remove_file(folder.join("snapshot.db.zst.sealed")).expect("a snapshot");
    let found = look(&broker).await;
    assert_eq!(found[0]["finding"], "bytes_missing", "{found}");
    assert_eq!(found[0]["backup"], backup["id"], "{found}");
    assert_eq!(found[0]["instance"], "i", "{found}");
    assert_eq!(look(&broker).await, found);
    assert_eq!(listed(&broker, &credentials).await[0]["status"], "complete");

    let repaired = findings(&broker, Method::POST, "").await;
    assert_eq!(repaired[0]["repair"], "marked_failed", "{repaired}");
    let failed = listed(&broker, &credentials).await[0].clone();
    assert_eq!(failed["status"], "failed", "{failed}");
    assert_eq!(failed["is_restorable"], false, "{failed}");
    let told = text(&failed["status_detail"]);
    assert!(told.contains("missing from the backup store"), "{told}");

    let rest = look(&broker).await;
    assert_eq!(rest[0]["finding"], "leftover", "{rest}");
    assert_eq!(rest[0]["adoptable"], false, "{rest}");
    let left = findings(&broker, Method::POST, "").await;
    assert_eq!(left[0]["repair"], "left", "{left}");
    assert!(folder.exists());
    let deleted = findings(&broker, Method::POST, "?delete_leftovers=true").await;
    assert_eq!(deleted[0]["repair"], "deleted", "{deleted}");
    assert!(!folder.join("manifest.json").exists());
    assert_eq!(look(&broker).await, json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_whose_bytes_were_only_away_is_as_good_as_before() {
    let (broker, credentials, backup) = with_a_backup().await;
    let folder = folder(&broker, &backup);
    let away = folder.with_extension("away");
    fs::rename(&folder, &away).expect("moved");
    let path = |link: &str| {
        let (deployment, id) = (text(&backup["deployment_id"]), text(&backup["id"]));
        format!("/deployments/{deployment}/backups/{id}{link}")
    };
    let told = answer(broker.compose(Method::GET, &credentials, &path(""))).await;
    let link = text(&told.body["download_link"]).to_owned();
    let missing = reqwest::get(link).await.expect("an answer");
    let why = missing.text().await.expect("a body");
    assert!(why.contains("bytes are missing"), "{why}");
    let repaired = findings(&broker, Method::POST, "").await;
    assert_eq!(repaired[0]["repair"], "marked_failed", "{repaired}");

    fs::rename(&away, &folder).expect("moved");
    let found = look(&broker).await;
    assert_eq!(found[0]["adoptable"], true, "{found}");
    let repaired = findings(&broker, Method::POST, "?delete_leftovers=true").await;
    assert_eq!(repaired[0]["repair"], "adopted", "{repaired}");
    let listed = listed(&broker, &credentials).await[0].clone();
    assert_eq!(listed["status"], "complete", "{listed}");
    assert_eq!(listed["is_restorable"], true, "{listed}");
    assert_eq!(listed["status_detail"], backup["status_detail"], "{listed}");
    assert_eq!(look(&broker).await, json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_that_an_older_state_of_the_store_does_not_know_are_listed_again() {
    let (broker, credentials, backup) = with_an_older_store(|_, _| ()).await;
    assert_eq!(listed(&broker, &credentials).await, json!([]));

    // The same bytes under a deployment that nobody knows, and a file that is none of ours.
    let ours = folder(&broker, &backup);
    let backups = broker.data_dir().join("backups");
    let unknown = backups
        .join("0123456789abcdef01234567")
        .join(text(&backup["id"]));
    copy_folder(&ours, &unknown);
    fs::write(backups.join("README"), "not ours").expect("a file");

    let repaired = findings(&broker, Method::POST, "?delete_leftovers=true").await;
    let mut told: Vec<(&str, &str)> = repaired
        .as_array()
        .expect("findings")
        .iter()
        .map(|f| (text(&f["finding"]), text(&f["repair"])))
        .collect();
    told.sort_unstable();
    assert_eq!(
        told,
        [
            ("foreign", "left"),
            ("leftover", "adopted"),
            ("leftover", "deleted")
        ]
    );
    assert!(backups.join("README").exists());
    assert!(!unknown.join("manifest.json").exists());
    let again = listed(&broker, &credentials).await[0].clone();
    for field in ["id", "type", "requested_at", "sha256", "keys"] {
        assert_eq!(again[field], backup[field], "{field}");
    }
    let parameters = json!({ "source_service_instance_id": "i", "backup_id": backup["id"] });
    broker.provision("copy", parameters).await;
    assert_eq!(look(&broker).await[0]["finding"], "foreign");
}

#[tokio::test(flavor = "multi_thread")]
async fn leftovers_that_are_damaged_are_not_listed_again() {
    let damage = |broker: &TestBroker, backup: &Value| {
        let snapshot = folder(broker, backup).join("snapshot.db.zst.sealed");
        let mut bytes = fs::read(&snapshot).expect("a snapshot");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&snapshot, bytes).expect("a damaged snapshot");
    };
    let (broker, credentials, _) = with_an_older_store(damage).await;
    let left = findings(&broker, Method::POST, "").await;
    assert_eq!(left[0]["repair"], "left", "{left}");
    assert_eq!(listed(&broker, &credentials).await, json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_operators_look_at_the_broker_as_a_whole() {
    let broker = TestBroker::start().await;
    for method in [Method::GET, Method::POST] {
        let refused = answer(broker.anonymous(method, PATH)).await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{refused:?}");
    }
    let unknown = answer(broker.osb(Method::GET, "/operator/nothing")).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND, "{unknown:?}");
}
