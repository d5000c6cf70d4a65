//! Room for what the broker keeps: volumes that run out, and what is promised of them.

use std::{fs, path::Path};

use compose_broker::model::{
    limits::STORE_RESERVE_BYTES, operation::OperationKind, sentence::counted,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{
        Answer, CAPACITY_UNITS, ENTERPRISE, SERVICE, TestBroker, answer, eventually, instance_path,
        new_folder, text,
    },
    control::{Script, surroundings},
    disk::Volume,
    postgres,
    transport::description,
};

/// Clusters that are at these places below `folder`.
fn clusters(folder: &Path, all: &Value) -> String {
    let file = folder.join("clusters.json");
    fs::write(&file, all.to_string()).expect("a file");
    file.display().to_string()
}

async fn volumes(broker: &TestBroker) -> Vec<Value> {
    let answer = answer(broker.osb(Method::GET, "/operator/volumes")).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.body["volumes"].as_array().expect("a list").clone()
}

/// Waits until the broker tells so of its readiness; returns what it says in words.
async fn ready(broker: &TestBroker, status: StatusCode, detail: Option<&str>) -> String {
    eventually("readiness is looked at anew", || async {
        let told = answer(broker.anonymous(Method::GET, "/readyz")).await;
        let is_so = told.status == status && told.body["detail"].as_str() == detail;
        is_so.then(|| text(&told.body["status"]).to_owned())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_the_store_has_something_in_reserve() {
    // PostgreSQL is on another disk.
    if postgres::is_store() {
        return;
    }
    let folder = new_folder();
    let Some(volume) = Volume::mount(&folder.join("data"), 160) else {
        return;
    };
    let local = json!([{
        "id": "local", "name": "x", "data_dir": folder.join("members"),
        "capacity_units": CAPACITY_UNITS,
    }]);
    let clusters = clusters(&folder, &local);
    let backups = format!("file://{}", folder.join("backups").display());
    let flags = ["--clusters", &clusters, "--backup-store", &backups];
    // Too little for the reserve at first.
    let before = volume.fill_up_to(30);
    let broker = TestBroker::start_in(folder.clone(), &flags, surroundings()).await;
    // Gone before the broker, which clears its folder away.
    let volume = volume;
    let full = Some("a volume is full");
    ready(&broker, StatusCode::OK, full).await;

    let rest = volume.fill();
    let told = ready(&broker, StatusCode::SERVICE_UNAVAILABLE, full).await;
    assert_eq!(told, "the store takes no writes: its disk is full");
    let refused = broker.put_instance("refused", json!({})).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers.contains_key("retry-after"), "{refused:?}");
    let reason = text(&refused.body["description"]);
    assert!(
        reason.contains("disk") && reason.contains("full"),
        "{reason}"
    );

    for filler in [before, rest] {
        fs::remove_file(filler).expect("room");
    }
    ready(&broker, StatusCode::OK, None).await;
    eventually(
        "the store has its reserve, in its log and in its file",
        || async {
            let is_there = |name| {
                let file = fs::metadata(broker.data_dir().join(name)).expect("a file");
                file.len() >= STORE_RESERVE_BYTES
            };
            (is_there("broker.db-wal") && is_there("broker.db")).then_some(())
        },
    )
    .await;
    volume.fill();
    ready(&broker, StatusCode::OK, full).await;
    broker.provision("i", json!({})).await;
    let seen = volumes(&broker).await;
    let store = seen
        .iter()
        .find(|volume| volume["holds"] == json!(["the broker's store"]))
        .expect("the store's volume");
    assert_eq!(store["level"], "full", "{store}");
    assert_eq!(store["bytes_total"], 160 * 1024 * 1024, "{store}");
    let other = json!(["members of cluster \"local\"", "backups"]);
    assert!(
        seen.iter().any(|volume| volume["holds"] == other),
        "{seen:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_starts_again_on_a_disk_that_is_full_by_then() {
    // PostgreSQL is on another disk.
    if postgres::is_store() {
        return;
    }
    let folder = new_folder();
    let Some(volume) = Volume::mount(&folder.join("data"), 160) else {
        return;
    };
    let mut broker = TestBroker::spawn_in(folder, &[]).await;
    // Gone before the broker, which clears its folder away.
    let volume = volume;
    let log = broker.data_dir().join("broker.db-wal");
    let has_reserve = || fs::metadata(&log).is_ok_and(|log| log.len() >= STORE_RESERVE_BYTES);
    eventually("the store has its reserve", || async {
        has_reserve().then_some(())
    })
    .await;
    broker.end_process();
    assert!(has_reserve(), "others could take it until the next start");
    volume.fill();
    broker.spawn_again().await;
    assert!(has_reserve(), "a look before that leaves it");
    ready(&broker, StatusCode::OK, Some("a volume is full")).await;
    let accepted = broker.put_instance("i", json!({})).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
}

/// Asks for an instance on a cluster; returns what the refusal says.
async fn refusal(broker: &TestBroker, cluster: &str, units: u32) -> String {
    let refused = put(broker, "refused", cluster, units).await;
    description(&refused, StatusCode::BAD_REQUEST).to_owned()
}

async fn put(broker: &TestBroker, id: &str, cluster: &str, units: u32) -> Answer {
    let body = json!({
        "service_id": SERVICE, "plan_id": ENTERPRISE,
        "organization_guid": "org", "space_guid": "space",
        "parameters": { "cluster_id": cluster, "units": units },
    });
    let path = format!("{}?accepts_incomplete=true", instance_path(id));
    answer(broker.osb(Method::PUT, &path).json(&body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_takes_no_more_than_its_volume_has_room_for() {
    let folder = new_folder();
    let named = |id: &str| folder.join(id);
    // Nothing is written there but markers: what they may become is what counts.
    let volumes = [("tiny", 900), ("small", 4096), ("bold", 900)]
        .map(|(id, megabytes)| Volume::mount(&named(id), megabytes));
    if volumes.iter().any(Option::is_none) {
        return;
    }
    let all = json!([
        { "id": "tiny", "name": "x", "data_dir": named("tiny") },
        { "id": "small", "name": "x", "data_dir": named("small") },
        { "id": "bold", "name": "x", "data_dir": named("bold"), "capacity_units": 32 },
    ]);
    let clusters = clusters(&folder, &all);
    let script = Script::default();
    let held = script.hold(OperationKind::Provision, "allocate");
    let flags = ["--clusters", clusters.as_str()];
    let broker = TestBroker::start_in(folder.clone(), &flags, script.surroundings()).await;
    let _mounted = volumes;

    for units in [1, 32] {
        let reason = refusal(&broker, "tiny", units).await;
        let asked = counted(units, "unit");
        let numbers = format!("has no room for {asked}, 0 of 0 are free");
        assert!(reason.contains(&numbers), "{reason}");
    }
    let reason = refusal(&broker, "small", 3).await;
    assert!(reason.contains("3 units, 2 of 2 are free"), "{reason}");
    let accepted = put(&broker, "one", "small", 1).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    // What it may become counts at once, with a log of its own.
    let reason = refusal(&broker, "small", 1).await;
    assert!(reason.contains("1 unit, 0 of 1 are free"), "{reason}");
    // The operator's word counts more than the volume.
    let accepted = put(&broker, "many", "bold", 32).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let reason = refusal(&broker, "bold", 1).await;
    assert!(reason.contains("1 unit, 0 of 32 are free"), "{reason}");
    // What is gone makes room again.
    let mut deletions = Vec::new();
    for id in ["one", "many"] {
        let query = format!("accepts_incomplete=true&service_id={SERVICE}&plan_id={ENTERPRISE}");
        let path = format!("{}?{query}", instance_path(id));
        let deleting = answer(broker.osb(Method::DELETE, &path)).await;
        assert_eq!(deleting.status, StatusCode::ACCEPTED, "{deleting:?}");
        deletions.push((id, deleting.body));
    }
    drop(held);
    for (id, accepted) in deletions {
        let end = broker.instance_end(id, &accepted).await;
        assert_eq!(end["state"], "succeeded", "{end}");
    }
    let reason = refusal(&broker, "small", 3).await;
    assert!(reason.contains("3 units, 2 of 2 are free"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_tells_what_shares_a_volume_and_what_is_promised_beyond_it() {
    let broker = TestBroker::spawn(&[]).await;
    let printed = broker.printed();
    let store = match postgres::is_store() {
        true => "",
        false => "the broker's store, ",
    };
    let shared = format!("one volume holds {store}members of cluster \"local\", backups");
    assert!(printed.contains(&shared), "{printed}");
    let promise = format!("capacity_units promises {CAPACITY_UNITS} units on the volume");
    assert!(printed.contains(&promise), "{printed}");
}
