//! Folders that are not what they seem: copies, swaps, disks that are not mounted. They are
//! recognised before anything is written or deleted.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use compose_broker::backups::store::memory::MemoryStore;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{Answer, TestBroker, answer, eventually, instance_path, kill, text},
    control::surroundings,
    etcd,
    inside::Inside,
    process::{BrokerProcess, assert_one_line, refused, refused_with},
    stored,
};

const MARKER: &str = ".compose-broker.json";

/// Copies a folder as `cp -a` does.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().expect("a folder above")).expect("a folder");
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.expect("cp").success());
}

/// Takes a folder away, as when its disk is not mounted; returns where it is.
fn take_away(folder: &Path) -> PathBuf {
    let away = folder.with_extension("away");
    fs::rename(folder, &away).expect("moved");
    away
}

/// A broker in a process of its own with an instance `i`, which has a key.
async fn with_an_instance() -> (BrokerProcess, Value) {
    let broker = BrokerProcess::start().await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "app").await;
    etcd::fill(&mut etcd::connect(&credentials).await, 1, "v").await;
    (broker, credentials)
}

/// A broker as it is before its start, which has no data folder yet, and the same store where that is in none.
fn elsewhere(original: &BrokerProcess) -> BrokerProcess {
    let broker = BrokerProcess::stopped_with(|settings| {
        for name in ["DATABASE_URL", "ENCRYPTION_KEYS"] {
            if let Some(same) = original.settings().get(name) {
                settings.insert(name, same.clone());
            }
        }
    });
    let _ = fs::remove_dir_all(broker.data_dir());
    broker
}

async fn readiness(broker: &TestBroker) -> (StatusCode, String) {
    let answer = answer(broker.anonymous(Method::GET, "/readyz")).await;
    (answer.status, text(&answer.body["status"]).to_owned())
}

async fn is_ready(broker: &TestBroker, wanted: StatusCode) -> String {
    eventually("readiness is looked at anew", || async {
        let (status, told) = readiness(broker).await;
        (status == wanted).then_some(told)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_on_a_copy_leaves_the_original_s_members_alone() {
    let (original, _) = with_an_instance().await;
    let members = original.members();
    assert_eq!(members.len(), 3);

    let other = elsewhere(&original);
    copy(&original.data_dir(), &other.data_dir());
    let told = refused(other.settings()).await;
    assert_one_line(&told, "COMPOSE_BROKER_DATA_DIR");
    assert_one_line(&told, "is a copy of");
    // Whatever its operator says, the same databases do not run a second time.
    let accepted = ["--accept", "data", "--accept", "cluster:local"];
    let told = refused_with(&accepted, other.settings()).await;
    let told = String::from_utf8_lossy(&told.stderr);
    let last = told.lines().last().unwrap_or_default();
    assert!(last.contains("runs in another folder already"), "{told}");
    assert_eq!(original.members(), members);
    assert_eq!(other.members(), [0; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_was_moved_goes_on_at_its_new_place() {
    let (mut original, credentials) = with_an_instance().await;
    let before = etcd::dump(&mut etcd::connect(&credentials).await).await;
    original.kill();
    let mut moved = elsewhere(&original);
    fs::create_dir_all(moved.data_dir().parent().expect("a folder")).expect("a folder");
    fs::rename(original.data_dir(), moved.data_dir()).expect("moved");

    moved.start_again().await;
    eventually("all members run at the new place", || async {
        (moved.members().len() == 3 && original.members().is_empty()).then_some(())
    })
    .await;
    eventually("they serve", || async {
        let mut client = etcd::connect_to(&credentials, "uri").await.ok()?;
        client.get("k", None).await.ok()
    })
    .await;
    let after = etcd::dump(&mut etcd::connect(&credentials).await).await;
    assert_eq!(after, before);
}

/// As when disks are put back in the wrong order: nothing that is asked for one tenant's database is done
/// to another's.
#[tokio::test(flavor = "multi_thread")]
async fn deployments_whose_folders_were_swapped_are_left_alone() {
    let mut broker = BrokerProcess::start().await;
    let mut owners = Vec::new();
    for instance in ["one", "other"] {
        broker.provision(instance, json!({})).await;
        let credentials = broker.bind(instance, "app").await;
        let mut client = etcd::connect(&credentials).await;
        client.put("whose", instance, None).await.expect("put");
        let id = text(&credentials["deployment_id"]).to_owned();
        owners.push((instance, credentials, id));
    }
    let cluster = broker.data_dir().join("clusters/local");
    let swap = || {
        let [one, other] = [&owners[0].2, &owners[1].2].map(|id| cluster.join(id));
        let aside = cluster.join("aside");
        for (from, to) in [(&one, &aside), (&other, &one), (&aside, &other)] {
            fs::rename(from, to).expect("moved");
        }
    };
    let end_all = |broker: &mut BrokerProcess| {
        broker.kill();
        broker.members().into_iter().for_each(kill);
    };
    end_all(&mut broker);
    swap();
    broker.start_again().await;
    let logged = broker.logged();
    let errors = logged
        .lines()
        .filter(|line| line.contains("ERROR") && line.contains("were folders or disks swapped?"));
    assert_eq!(errors.count(), 2, "{logged}");
    assert_eq!(broker.members(), [0; 0]);
    let recovery = broker.osb(Method::POST, "/operator/instances/other/recover");
    let recovery = answer(recovery.json(&json!({ "from": "survivor" }))).await;
    assert_ne!(recovery.body["possible"], true, "{recovery:?}");
    let deleted = broker.delete_instance("one").await;
    assert_eq!(deleted.status, StatusCode::ACCEPTED, "{deleted:?}");
    let path = format!("{}/last_operation", instance_path("one"));
    eventually("the deletion says why it waits", || async {
        let told = answer(broker.osb(Method::GET, &path)).await;
        assert_eq!(told.body["state"], "in progress", "{told:?}");
        let why = text(&told.body["description"]);
        why.contains("belongs to another deployment").then_some(())
    })
    .await;

    // Put right, what was asked for is done, and nothing was lost.
    end_all(&mut broker);
    swap();
    broker.start_again().await;
    broker.instance_end("one", &deleted.body).await;
    let (_, credentials, _) = &owners[1];
    let all = eventually("the other one serves", || async {
        let mut client = etcd::connect_to(credentials, "uri").await.ok()?;
        client.get("whose", None).await.ok()
    })
    .await;
    assert_eq!(all.kvs()[0].value(), b"other");
}

/// What the broker's metrics say of the volume that something lies on.
async fn volume_of(broker: &TestBroker, content: &str) -> Option<String> {
    let told = broker.osb(Method::GET, "/metrics").send().await;
    let told = told.expect("an answer").text().await.expect("a text");
    let label = format!("content=\"{content}\"");
    let mut lines = told.lines();
    let line = lines.find(|line| line.contains("volume_size_bytes{") && line.contains(&label));
    line.map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_store_that_is_no_folder_has_neither_marker_nor_volume() {
    let mut broker = TestBroker::in_memory().await;
    assert!(volume_of(&broker, "backups").await.is_some());
    broker.stop().await;
    let folder = broker.data_dir().join("backups");
    fs::remove_dir_all(&folder).expect("nothing but its marker");
    broker.backups = Some(Arc::new(MemoryStore::default()));
    broker.start_again(surroundings()).await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "app").await;
    broker.database.fill(&credentials, 3, "v").await;
    let backup = broker.back_up(&credentials).await;
    assert_eq!(backup["status"], "complete", "{backup}");
    broker.restart_with(surroundings()).await;
    let source = json!({ "source_service_instance_id": "i", "backup_id": backup["id"] });
    broker.provision("copy", source).await;
    assert_eq!(volume_of(&broker, "backups").await, None);
    assert!(!folder.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_disk_the_backup_store_is_neither_used_nor_made_anew() {
    let (mut broker, credentials) = with_an_instance().await;
    let good = broker.back_up(&credentials).await;
    assert_eq!(good["status"], "complete", "{good}");
    Inside::of(&broker).idle("i").await;
    let backups = broker.data_dir().join("backups");
    let manifest = |root: &Path| {
        let folder = root.join(text(&good["deployment_id"]));
        folder.join(text(&good["id"])).join("manifest.json")
    };

    // While the broker runs.
    let away = take_away(&backups);
    let told = is_ready(&broker, StatusCode::SERVICE_UNAVAILABLE).await;
    assert_eq!(told, "the backup store is not there");
    let path = format!(
        "/deployments/{}/backups",
        text(&credentials["deployment_id"])
    );
    let waiting = answer(broker.compose(Method::POST, &credentials, &path)).await;
    assert_eq!(waiting.status, StatusCode::ACCEPTED, "{waiting:?}");
    let waiting = waiting.body;
    let path = format!("/recipes/{}", text(&waiting["id"]));
    eventually("it waits for the disk", || async {
        let told = answer(broker.compose(Method::GET, &credentials, &path)).await;
        let reason = text(&told.body["status_detail"]);
        let waits = reason.contains("the backup store is not there");
        (waits && told.body["status"] == "running").then_some(())
    })
    .await;
    for method in [Method::GET, Method::POST] {
        let request = broker.osb(method, "/operator/reconciliation");
        let looked = answer(request).await;
        assert_eq!(
            looked.status,
            StatusCode::INTERNAL_SERVER_ERROR,
            "{looked:?}"
        );
    }
    assert!(!backups.exists());

    // At a start, whether or not there is a folder.
    broker.kill();
    assert_one_line(
        &refused(broker.settings()).await,
        "COMPOSE_BROKER_BACKUP_STORE",
    );
    assert!(!backups.exists());
    fs::create_dir(&backups).expect("where a disk would be mounted");
    let told = refused(broker.settings()).await;
    assert_one_line(&told, "COMPOSE_BROKER_BACKUP_STORE");
    assert_one_line(&told, "--accept backups");
    assert_eq!(fs::read_dir(&backups).expect("a folder").count(), 0);

    fs::remove_dir(&backups).expect("an empty folder");
    fs::rename(&away, &backups).expect("mounted");
    broker.start_again().await;
    assert!(manifest(&backups).exists());
    let done = broker.recipe_end(&credentials, &waiting).await;
    assert_eq!(done["status"], "complete", "it went on: {done}");
    Inside::of(&broker).idle("i").await;
    assert!(!manifest(&backups).exists(), "retention goes on");

    // A copy that lacks the marker; its operator knows better.
    broker.kill();
    fs::remove_file(backups.join(MARKER)).expect("a marker");
    assert_one_line(
        &refused(broker.settings()).await,
        "COMPOSE_BROKER_BACKUP_STORE",
    );
    broker.spawn_with(&["--accept", "backups"]);
    broker.serving().await;
    assert!(backups.join(MARKER).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_disk_no_member_of_a_cluster_is_started() {
    let (mut broker, _) = with_an_instance().await;
    let cluster = broker.data_dir().join("clusters/local");
    let away = take_away(&cluster);
    let killed = broker.members()[0];
    kill(killed);
    eventually("the broker tells", || async {
        broker
            .logged()
            .contains("no member is started")
            .then_some(())
    })
    .await;
    assert!(!cluster.exists());
    broker.kill();
    let told = refused(broker.settings()).await;
    assert_one_line(&told, "\"local\"");
    assert_one_line(&told, "--accept cluster:local");
    assert!(!cluster.exists());

    fs::rename(&away, &cluster).expect("mounted");
    broker.start_again().await;
    eventually("three members again", || async {
        (broker.members().len() == 3).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_that_changed_places_are_told_apart() {
    let (mut one, mut other) = (BrokerProcess::start().await, BrokerProcess::start().await);
    one.kill();
    other.kill();
    let backups = [&one, &other].map(|broker| broker.data_dir().join("backups"));
    let away = take_away(&backups[0]);
    fs::rename(&backups[1], &backups[0]).expect("moved");
    fs::rename(&away, &backups[1]).expect("moved");
    for broker in [&one, &other] {
        let told = refused(broker.settings()).await;
        assert_one_line(&told, "COMPOSE_BROKER_BACKUP_STORE");
        assert_one_line(&told, "is not the folder that the broker knows");
    }
}

/// Makes of a folder what a broker that knew no markers left there.
fn forget_markers(broker: &TestBroker) {
    for folder in ["", "backups", "clusters/local"] {
        fs::remove_file(broker.data_dir().join(folder).join(MARKER)).expect("a marker");
    }
    assert_eq!(stored::write(broker, "DELETE FROM folders"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_of_before_there_were_markers_are_known_by_what_is_in_them() {
    let (mut broker, credentials) = with_an_instance().await;
    broker.back_up(&credentials).await;
    Inside::of(&broker).idle("i").await;
    broker.kill();
    let data = broker.data_dir();
    forget_markers(&broker);

    for (folder, setting) in [
        ("backups", "COMPOSE_BROKER_BACKUP_STORE"),
        ("clusters/local", "COMPOSE_BROKER_CLUSTERS"),
    ] {
        let folder = data.join(folder);
        let away = take_away(&folder);
        fs::create_dir(&folder).expect("an empty folder");
        assert_one_line(&refused(broker.settings()).await, setting);
        assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 0);
        fs::remove_dir(&folder).expect("an empty folder");
        fs::rename(&away, &folder).expect("moved");
        assert!(!data.join(MARKER).exists(), "nothing is marked by halves");
    }
    broker.start_again().await;
    for folder in ["", "backups", "clusters/local"] {
        assert!(data.join(folder).join(MARKER).exists(), "{folder}");
    }
    broker.kill_and_start_again().await;
    assert_eq!(broker.members().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_database_does_not_begin_beside_clusters_that_are_not_empty() {
    let (mut broker, _) = with_an_instance().await;
    broker.kill();
    stored::lose(&broker).await;
    let told = refused(broker.settings()).await;
    assert_one_line(&told, "COMPOSE_BROKER_DATABASE_URL");
    assert_one_line(&told, "1 deployment in");
    assert!(!broker.data_dir().join("broker.db").exists());
    assert_eq!(broker.members().len(), 3);

    broker.spawn_with(&["--accept", "database"]);
    broker.serving().await;
    assert_eq!(broker.members().len(), 3);
    broker.kill_and_start_again().await;
}

async fn findings(broker: &TestBroker) -> Vec<Value> {
    let found = answer(broker.osb(Method::GET, "/operator/reconciliation")).await;
    assert_eq!(found.status, StatusCode::OK, "{found:?}");
    found.body["findings"].as_array().expect("a list").clone()
}

async fn decide(broker: &TestBroker, deployment: &str, choice: &str) -> Answer {
    let body = json!({
        "deployment_id": deployment, "cluster_id": "local", "choice": choice,
    });
    answer(broker.osb(Method::POST, "/operator/reconcile").json(&body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn deployments_that_a_new_database_does_not_know_are_adopted_or_removed() {
    let (mut broker, credentials) = with_an_instance().await;
    let before = etcd::dump(&mut etcd::connect(&credentials).await).await;
    let backup = broker.back_up(&credentials).await;
    Inside::of(&broker).idle("i").await;
    broker.provision("gone", json!({})).await;
    let (gone, _) = Inside::of(&broker)
        .deployment("gone")
        .await
        .expect("a deployment");
    let members = broker.members();
    broker.kill();
    stored::lose(&broker).await;
    broker.spawn_with(&["--accept", "database"]);
    broker.serving().await;

    let deployment = text(&credentials["deployment_id"]).to_owned();
    let found = findings(&broker).await;
    let strays: Vec<&Value> = found
        .iter()
        .filter(|of| of["finding"] == "deployment_without_row")
        .collect();
    assert_eq!(strays.len(), 2, "{found:?}");
    let ours = strays
        .iter()
        .find(|of| of["deployment"] == deployment.as_str());
    let expected = json!({
        "finding": "deployment_without_row", "deployment": deployment, "cluster": "local",
        "instance": "i", "backup": backup["id"], "adoptable": true,
    });
    assert_eq!(**ours.expect("a finding"), expected);

    // Its backups are what it is adopted from.
    let path = "/operator/reconciliation?delete_leftovers=true";
    let repaired = answer(broker.osb(Method::POST, path)).await;
    let left = |of: &Value| of["repair"] == "left";
    let repaired = repaired.body["findings"].as_array().expect("a list");
    assert!(repaired.iter().all(left), "{repaired:?}");

    let unknown = decide(&broker, &"0".repeat(24), "adopt").await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND, "{unknown:?}");
    let hopeless = decide(&broker, gone.id.as_str(), "adopt").await;
    assert_eq!(hopeless.status, StatusCode::BAD_REQUEST, "{hopeless:?}");
    let wrong = decide(&broker, &deployment, "both").await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST, "{wrong:?}");
    let adopted = decide(&broker, &deployment, "adopt").await;
    assert_eq!(adopted.status, StatusCode::OK, "{adopted:?}");
    let expected = json!({
        "choice": "adopt", "deployment_id": deployment, "instance_id": "i", "backups_adopted": 1,
    });
    assert_eq!(adopted.body, expected);
    assert_eq!(broker.members(), members, "nobody notices");

    // All that can be done with an instance.
    let bound = broker.bind("i", "new").await;
    assert_eq!(etcd::dump(&mut etcd::connect(&bound).await).await, before);
    let next = broker.back_up(&bound).await;
    assert_eq!(next["status"], "complete", "{next}");
    let restored = json!({ "source_service_instance_id": "i", "backup_id": next["id"] });
    broker.provision("copy", restored).await;

    let removed = decide(&broker, gone.id.as_str(), "remove").await;
    assert_eq!(removed.status, StatusCode::OK, "{removed:?}");
    for id in [&deployment, gone.id.as_str()] {
        let again = decide(&broker, id, "remove").await;
        assert_eq!(again.status, StatusCode::NOT_FOUND, "{again:?}");
    }
    // Besides them runs what looks at the copy's first backup, for a while.
    eventually("members of two", || async {
        (broker.members().len() == 6).then_some(())
    })
    .await;
    assert_eq!(findings(&broker).await, [json!(null); 0]);
    let audit = answer(broker.osb(Method::GET, "/operator/audit")).await;
    let entries = audit.body["entries"].as_array().expect("a list").clone();
    for action in ["adoption", "removal"] {
        assert!(
            entries.iter().any(|entry| entry["action"] == action),
            "{action}"
        );
    }
    for id in ["i", "copy"] {
        broker.deprovision(id).await;
    }
    assert_eq!(broker.members(), [0; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_usable_instance_whose_deployment_is_nowhere_is_found() {
    let (mut broker, credentials) = with_an_instance().await;
    broker.kill();
    broker.members().into_iter().for_each(kill);
    let deployment = text(&credentials["deployment_id"]).to_owned();
    fs::remove_dir_all(broker.data_dir().join("clusters/local").join(&deployment))
        .expect("a lost disk");
    broker.start_again().await;
    let expected = json!({
        "finding": "row_without_deployment", "instance": "i", "deployment": deployment,
        "cluster": "local",
    });
    assert_eq!(findings(&broker).await, [expected]);
    broker.deprovision("i").await;
    assert_eq!(findings(&broker).await, [json!(null); 0]);
}
