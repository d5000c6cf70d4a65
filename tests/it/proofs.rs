//! Backups are proved: restored into a member that is thrown away and compared with their manifests, while
//! nothing else is touched.

use std::{fs, time::Duration};

use compose_broker::model::operation::{OperationKind, OperationState};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    broker::{TestBroker, answer, eventually, text},
    control::{Script, TestClock, surroundings},
    database::{Database, with},
    inside::Inside,
};

/// A broker that proves its backups.
pub const ON: [&str; 2] = ["--backup-proofs", "on"];

/// A backup as it is told of, once what is known of it is this.
pub async fn once(broker: &TestBroker, of: &Value, backup: &Value, proof: &str) -> Value {
    let (deployment, id) = (text(&of["deployment_id"]), text(&backup["id"]));
    let path = format!("/deployments/{deployment}/backups/{id}");
    eventually(&format!("a backup that is {proof}"), || async {
        let told = answer(broker.compose(Method::GET, of, &path)).await.body;
        (told["proof"] == proof).then_some(told)
    })
    .await
}

/// What a broker has but backups: files, members that run, ports.
async fn at_hand(
    of: &Database,
    broker: &TestBroker,
    inside: &Inside,
) -> (Vec<String>, usize, usize) {
    let mut files = of.files(broker);
    files.retain(|file| !file.starts_with("backups/"));
    (
        files,
        of.running(broker).len(),
        inside.ports_reserved().await,
    )
}

async fn each_backup_is_restored_aside_and_compared(of: Database) {
    let broker = of.broker(&ON, surroundings()).await;
    let inside = Inside::of(&broker);
    let [old, new] = of.versions();
    broker.provision("i", json!({ "db_version": old })).await;
    let credentials = broker.bind("i", "app").await;
    of.fill(&credentials, 20, "v").await;
    let before = at_hand(&of, &broker, &inside).await;
    let backup = broker.back_up(&credentials).await;
    assert_eq!(backup["status"], "complete", "{backup}");

    let proved = once(&broker, &credentials, &backup, "proved").await;
    assert_eq!(proved["verified_by"], "whole", "{proved}");
    assert_eq!(proved["unverified_reason"], Value::Null, "{proved}");
    assert!(proved["verified_at"].is_string(), "{proved}");
    let versions = proved["verified_versions"].as_array().expect("versions");
    assert_eq!(versions.len(), 2, "{proved}");
    assert_eq!(versions[0], old);
    assert!(text(&versions[1]) >= new, "{proved}");
    inside.idle("i").await;
    assert_eq!(at_hand(&of, &broker, &inside).await, before);
    let proof = inside.newest("i", OperationKind::Proof).await;
    assert_eq!(proof.state, OperationState::Succeeded);
    assert_eq!(of.dump(&credentials).await.len(), 20);

    // Only the newest of its kind goes into the newest version, and nothing is proved twice.
    let newer = broker.back_up(&credentials).await;
    once(&broker, &credentials, &newer, "proved").await;
    inside.idle("i").await;
    let all = inside.operations("i").await;
    let proofs = all.iter().filter(|o| o.kind == OperationKind::Proof);
    assert_eq!(proofs.count(), 2);
}

async fn a_backup_that_is_damaged_is_told_of_until_it_is_mended(of: Database) {
    let (script, clock) = (Script::default(), TestClock::default());
    let broker = of.broker(&ON, script.surroundings_at(&clock)).await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "app").await;
    of.fill(&credentials, 20, "v").await;
    let held = script.hold(OperationKind::Proof, "prove");
    let backup = broker.back_up(&credentials).await;
    assert_eq!(backup["proof"], "unproved", "{backup}");
    let waits = text(&backup["unverified_reason"]);
    assert_eq!(waits, "it waits for its turn to be proved");
    let folder = format!("{}/{}", text(&backup["deployment_id"]), text(&backup["id"]));
    let folder = broker.data_dir().join("backups").join(folder);
    let object = folder.join("snapshot.db.zst.sealed");
    let good = fs::read(&object).expect("an object");
    let mut damaged = good.clone();
    damaged[good.len() / 2] ^= 1;
    fs::write(&object, damaged).expect("damaged");
    drop(held);

    let flawed = once(&broker, &credentials, &backup, "flawed").await;
    let reason = text(&flawed["unverified_reason"]);
    assert!(reason.contains("is not what its manifest says"), "{reason}");
    assert_eq!(flawed["verified_at"], Value::Null, "{flawed}");
    assert_eq!(flawed["verified_versions"], json!([]), "{flawed}");

    fs::write(&object, good).expect("mended");
    clock.forward(Duration::from_secs(11 * 60));
    let proved = once(&broker, &credentials, &backup, "proved").await;
    assert_eq!(proved["unverified_reason"], Value::Null, "{proved}");
}

async fn the_bytes_of_a_backup_that_was_proved_are_read_again(of: Database) {
    let clock = TestClock::default();
    let broker = of
        .broker(&ON, Script::default().surroundings_at(&clock))
        .await;
    let inside = Inside::of(&broker);
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "app").await;
    of.fill(&credentials, 20, "v").await;
    let backup = broker.back_up(&credentials).await;
    let proved = once(&broker, &credentials, &backup, "proved").await;
    assert_eq!(proved["bytes_read_at"], proved["verified_at"]);
    inside.idle("i").await;
    let ports = inside.ports_reserved().await;
    clock.forward(Duration::from_secs(29 * 24 * 3600 + 60));
    let read = once_read(&broker, &credentials, &proved).await;
    // It was not restored once more.
    for field in ["proof", "verified_at", "verified_versions"] {
        assert_eq!(read[field], proved[field], "{read}");
    }
    // Its bytes go bad where nobody looks.
    let folder = format!("{}/{}", text(&backup["deployment_id"]), text(&backup["id"]));
    let folder = broker.data_dir().join("backups").join(folder);
    let object = folder.join("snapshot.db.zst.sealed");
    let good = fs::read(&object).expect("an object");
    fs::write(&object, &good[..good.len() - 1]).expect("cut");
    clock.forward(Duration::from_secs(29 * 24 * 3600 + 60));
    let flawed = once(&broker, &credentials, &backup, "flawed").await;
    let reason = text(&flawed["unverified_reason"]);
    let begins = "its stored bytes are not what was stored: it is damaged: ";
    assert!(reason.starts_with(begins), "{reason}");
    assert_eq!(flawed["verified_versions"], json!([]), "{flawed}");
    assert_eq!(flawed["bytes_read_at"], read["bytes_read_at"]);
    // Its operator brings them back: now it is restored again.
    fs::write(&object, good).expect("mended");
    clock.forward(Duration::from_secs(11 * 60));
    once(&broker, &credentials, &backup, "proved").await;
    inside.idle("i").await;
    assert_eq!(inside.ports_reserved().await, ports);
}

/// A backup as it is told of, once its bytes were read again.
async fn once_read(broker: &TestBroker, of: &Value, backup: &Value) -> Value {
    let (deployment, id) = (text(&of["deployment_id"]), text(&backup["id"]));
    let path = format!("/deployments/{deployment}/backups/{id}");
    eventually("a backup that is read again", || async {
        let told = answer(broker.compose(Method::GET, of, &path)).await.body;
        (told["bytes_read_at"] != backup["bytes_read_at"]).then_some(told)
    })
    .await
}

async fn a_proof_that_cannot_be_tried_says_nothing_of_the_backup(of: Database) {
    let (script, clock) = (Script::default(), TestClock::default());
    let broker = of.broker(&ON, script.surroundings_at(&clock)).await;
    let inside = Inside::of(&broker);
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "app").await;
    let failing = script.fail(OperationKind::Proof, "prove");
    let backup = broker.back_up(&credentials).await;
    let path = format!(
        "/deployments/{}/backups/{}",
        text(&credentials["deployment_id"]),
        text(&backup["id"])
    );
    let told = eventually("a proof that failed", || async {
        let told = answer(broker.compose(Method::GET, &credentials, &path))
            .await
            .body;
        let reason = text(&told["unverified_reason"]).to_owned();
        reason.contains("could not be restored").then_some(told)
    })
    .await;
    assert_eq!(told["proof"], "unproved", "{told}");
    assert!(
        text(&told["unverified_reason"]).contains("after 1 try"),
        "{told}"
    );
    let failed = inside.newest("i", OperationKind::Proof).await;
    assert_eq!(failed.state, OperationState::Failed);
    drop(failing);
    clock.forward(Duration::from_secs(11 * 60));
    once(&broker, &credentials, &backup, "proved").await;
}

async fn backups_that_are_not_proved_in_time_are_told_of(of: Database) {
    let (script, clock) = (Script::default(), TestClock::default());
    let broker = of.broker(&ON, script.surroundings_at(&clock)).await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "app").await;
    let failing = script.fail(OperationKind::Proof, "prove");
    clock.forward(Duration::from_secs(26 * 3600));
    let path = format!(
        "/deployments/{}/alerts",
        text(&credentials["deployment_id"])
    );
    let says = async |what: &str| {
        let told = answer(broker.compose(Method::GET, &credentials, &path))
            .await
            .body;
        told.to_string().contains(what)
    };
    // The schedule has one taken in the meantime.
    eventually("an alert of a backup that is not proved", || async {
        let told = says("no backup was proved since the instance was made").await;
        (told && says("could not be restored to be proved").await).then_some(())
    })
    .await;
    assert!(!says("The scheduled backup is late").await);
    drop(failing);
    clock.forward(Duration::from_secs(11 * 60));
    eventually("the end of the alert", || async {
        (!says("not proved in time").await).then_some(())
    })
    .await;
}

async fn what_retention_takes_meanwhile_is_proved_no_more(of: Database) {
    let script = Script::default();
    let broker = of.broker(&ON, script.surroundings()).await;
    let inside = Inside::of(&broker);
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "app").await;
    let held = script.hold(OperationKind::Proof, "prove");
    broker.back_up(&credentials).await;
    eventually("a proof that has begun", || async {
        let all = inside.operations("i").await;
        let proof = all.into_iter().find(|o| o.kind == OperationKind::Proof)?;
        (proof.state == OperationState::Running).then_some(())
    })
    .await;
    // One of these is kept.
    let newer = broker.back_up(&credentials).await;
    eventually("the end of the older one", || async {
        let all = inside.operations("i").await;
        let prune = all.into_iter().find(|o| o.kind == OperationKind::Prune)?;
        (!prune.state.is_active()).then_some(())
    })
    .await;
    drop(held);
    once(&broker, &credentials, &newer, "proved").await;
    inside.idle("i").await;
    let all = inside.operations("i").await;
    let proofs = all.iter().filter(|o| o.kind == OperationKind::Proof);
    assert!(proofs.clone().all(|o| o.state == OperationState::Succeeded));
    assert_eq!(proofs.count(), 2);
}

async fn a_proof_that_fails_for_good_leaves_nothing_behind(of: Database) {
    let script = Script::default();
    let broker = of.broker(&ON, script.surroundings()).await;
    let inside = Inside::of(&broker);
    broker
        .provision("i", json!({ "db_version": of.versions()[0] }))
        .await;
    let credentials = broker.bind("i", "app").await;
    let before = at_hand(&of, &broker, &inside).await;
    for step in ["prove", "prove_newest"] {
        let failing = script.fail(OperationKind::Proof, step);
        broker.back_up(&credentials).await;
        eventually("a proof that failed", || async {
            let all = inside.operations("i").await;
            let proof = all.into_iter().find(|o| o.kind == OperationKind::Proof)?;
            (proof.state == OperationState::Failed).then_some(())
        })
        .await;
        inside.idle("i").await;
        assert_eq!(at_hand(&of, &broker, &inside).await, before, "{step}");
        drop(failing);
    }
    broker.deprovision("i").await;
    assert!(!inside.work_is_remembered("i").await);
}

/// Whether a member runs that is part of no cluster yet: one of an instance is, from its first backup on.
fn runs_aside(broker: &TestBroker) -> bool {
    broker.members().into_iter().any(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains("--initial-cluster-state=new")
    })
}

/// Waits until a member runs beside the three of the instance.
async fn until_a_member_runs_aside(broker: &TestBroker) {
    let begun = tokio::time::Instant::now();
    while !runs_aside(broker) {
        assert!(begun.elapsed() < Duration::from_secs(60), "none ran");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_broker_left_aside_goes_when_it_starts_again() {
    let database = Database::Etcd;
    let mut broker = database.broker(&ON, surroundings()).await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "app").await;
    database.fill(&credentials, 20, "v").await;
    let inside = Inside::of(&broker);
    let before = at_hand(&database, &broker, &inside).await;
    let backup = broker.back_up(&credentials).await;
    until_a_member_runs_aside(&broker).await;
    broker.stop().await;
    assert!(runs_aside(&broker), "members outlive their broker");
    broker.start_again(surroundings()).await;
    // It listens elsewhere now.
    let credentials = broker.bind("i", "another").await;
    once(&broker, &credentials, &backup, "proved").await;
    inside.idle("i").await;
    assert_eq!(at_hand(&database, &broker, &inside).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_that_stood_still_left_aside_goes_at_a_start() {
    let database = Database::Etcd;
    let mut broker = database.broker(&ON, surroundings()).await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "app").await;
    let backup = broker.back_up(&credentials).await;
    once(&broker, &credentials, &backup, "proved").await;
    let inside = Inside::of(&broker);
    inside.idle("i").await;
    let before = at_hand(&database, &broker, &inside).await;
    let proof = inside.newest("i", OperationKind::Proof).await;
    let of_instance = text(&credentials["deployment_id"]);
    let is_of_it = |file: &&String| file.contains(of_instance) && !file.starts_with("backups/");
    let files = broker.files();
    let file = files.iter().find(is_of_it).expect("a file");
    let left = file.replace(of_instance, proof.id.as_str());
    broker.stop().await;
    let left = broker.data_dir().join(left);
    fs::create_dir_all(left.parent().expect("a folder")).expect("a folder");
    fs::write(&left, "left").expect("a file");
    broker.start_again(surroundings()).await;
    eventually("that it is removed", || async {
        (at_hand(&database, &broker, &inside).await == before).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_is_deleted_while_its_backup_is_proved() {
    let database = Database::Etcd;
    let broker = database.broker(&ON, surroundings()).await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "app").await;
    database.fill(&credentials, 20, "v").await;
    broker.back_up(&credentials).await;
    until_a_member_runs_aside(&broker).await;
    let listed = answer(broker.osb(Method::GET, "/operator/reconciliation")).await;
    assert!(
        !listed.body.to_string().contains("deployment_without_row"),
        "{listed:?}"
    );
    broker.deprovision("i").await;
    let inside = Inside::of(&broker);
    let nothing = (Vec::new(), 0, 0);
    assert_eq!(at_hand(&database, &broker, &inside).await, nothing);
    assert!(!inside.work_is_remembered("i").await);
}

with! {
    in_memory, Database::in_memory(),
    each_backup_is_restored_aside_and_compared
    a_backup_that_is_damaged_is_told_of_until_it_is_mended
    the_bytes_of_a_backup_that_was_proved_are_read_again
    a_proof_that_cannot_be_tried_says_nothing_of_the_backup
    backups_that_are_not_proved_in_time_are_told_of
    what_retention_takes_meanwhile_is_proved_no_more
    a_proof_that_fails_for_good_leaves_nothing_behind
}

with! {
    on_etcd, Database::Etcd,
    each_backup_is_restored_aside_and_compared
}
