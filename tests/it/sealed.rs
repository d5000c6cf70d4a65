//! Backups that are sealed: what lies in their store, how the keys to them change, and what is left without
//! one.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    bindings::files_with,
    broker::{TestBroker, answer, eventually, text},
    etcd,
    process::{BrokerProcess, assert_one_line, command, new_key_ring, refused},
};

/// The folder of a backup.
fn folder(broker: &TestBroker, backup: &Value) -> PathBuf {
    let folder = format!("{}/{}", text(&backup["deployment_id"]), text(&backup["id"]));
    broker.data_dir().join("backups").join(folder)
}

/// What stands beside a backup.
fn manifest(broker: &TestBroker, backup: &Value) -> Value {
    let text = fs::read(folder(broker, backup).join("manifest.json"));
    serde_json::from_slice(&text.expect("a manifest")).expect("JSON")
}

/// The names of the keys that what stands beside a backup is sealed and signed under.
fn keys_of(manifest: &Value) -> [&str; 3] {
    ["sealed_key", "sealed_credentials", "signature"].map(|field| {
        let (key, _) = text(&manifest[field])
            .split_once(':')
            .expect("a key's name");
        key
    })
}

async fn restores(broker: &TestBroker, backup: &Value) {
    let source = json!({ "source_service_instance_id": "i", "backup_id": backup["id"] });
    broker.provision("copy", source).await;
    broker.deprovision("copy").await;
}

async fn downloads(backup: &Value) -> bool {
    let answer = reqwest::get(text(&backup["download_link"])).await;
    let answer = answer.expect("an answer");
    answer.status() == StatusCode::OK && answer.bytes().await.is_ok()
}

/// The backup as the broker tells of it now.
async fn now(broker: &TestBroker, credentials: &Value, backup: &Value) -> Value {
    let path = format!(
        "/deployments/{}/backups/{}",
        text(&credentials["deployment_id"]),
        text(&backup["id"])
    );
    answer(broker.compose(Method::GET, credentials, &path))
        .await
        .body
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_reads_a_backup_out_of_its_store() {
    let broker = TestBroker::start().await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    let mut client = etcd::connect(&credentials).await;
    client
        .put("of-a-tenant", "what-it-keeps", None)
        .await
        .expect("put");
    let backup = broker.back_up(&credentials).await;
    assert_eq!(backup["status"], "complete", "{backup}");

    let object = fs::read(folder(&broker, &backup).join("snapshot.db.zst.sealed"));
    let object = object.expect("an object");
    assert_ne!(object[..4], [0x28, 0xb5, 0x2f, 0xfd], "no zstd");
    assert!(zstd(&object).is_none());
    let manifest = manifest(&broker, &backup);
    assert_eq!(manifest["format"], 2);
    assert_eq!(manifest["stored"]["sealing"], "aes-256-gcm-stream-64k");
    assert_eq!(keys_of(&manifest), ["k1"; 3]);
    // The key stands in one place alone: what the broker's own store had of it is overwritten, and goes with
    // its log.
    let key = text(&manifest["sealed_key"]);
    let found = files_with(&broker, key);
    let elsewhere = found
        .lines()
        .filter(|file| !file.ends_with("/manifest.json"));
    let of_store = |file: &&str| file.contains("broker.db");
    assert_eq!(
        elsewhere.filter(|file| !of_store(file)).count(),
        0,
        "{found}"
    );
    assert!(downloads(&backup).await);
    restores(&broker, &backup).await;
}

/// What zstd makes of bytes; none when they are none of its own.
fn zstd(bytes: &[u8]) -> Option<Vec<u8>> {
    use std::io::Write as _;
    let mut child = Command::new("zstd")
        .args(["-d", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut input = child.stdin.take()?;
    let bytes = bytes.to_vec();
    std::thread::spawn(move || input.write_all(&bytes));
    let output = child.wait_with_output().ok()?;
    output.status.success().then_some(output.stdout)
}

/// A ring of one key of that name.
fn key_ring_of(name: &str) -> String {
    new_key_ring().replacen("k1", name, 1)
}

/// A broker with that ring and a backup of its instance `i`, whose credentials come second.
async fn backed_up_under(ring: &str) -> (BrokerProcess, Value, Value) {
    let mut broker =
        BrokerProcess::stopped_with(|of| _ = of.insert("ENCRYPTION_KEYS", ring.to_owned()));
    broker.start_again().await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    let backup = broker.back_up(&credentials).await;
    (broker, credentials, backup)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keys_to_backups_change_while_the_broker_works_and_no_byte_of_them_does() {
    let old = key_ring_of("old");
    let (mut broker, credentials, backup) = backed_up_under(&old).await;
    let new = key_ring_of("new");
    let object = folder(&broker, &backup).join("snapshot.db.zst.sealed");
    let before = fs::read(&object).expect("an object");
    assert_eq!(keys_of(&manifest(&broker, &backup)), ["old"; 3]);

    broker.kill();
    broker.change_settings(|of| _ = of.insert("ENCRYPTION_KEYS", format!("{new},{old}")));
    broker.start_again().await;
    eventually("a manifest under the new key", || async {
        (keys_of(&manifest(&broker, &backup)) == ["new"; 3]).then_some(())
    })
    .await;
    assert_eq!(fs::read(&object).expect("an object"), before);
    eventually("a register under the new key", || async {
        let register = broker.data_dir().join("backups");
        let register = register.join(text(&backup["deployment_id"]));
        let register = fs::read_to_string(register.join("register.json")).ok()?;
        register.contains("\"signature\": \"new:").then_some(())
    })
    .await;
    let ring = format!("{new},{old}");
    let store = broker.data_dir().join("backups").display().to_string();
    let (code, printed) = look(&[&store], Some(&ring));
    assert_eq!(code, 0, "{printed}");
    eventually("a line in the log", || async {
        let logged = broker.logged();
        logged
            .contains("manifests of backups are under the first key")
            .then_some(())
    })
    .await;

    // The old key can go: nothing needs it.
    broker.kill();
    broker.change_settings(|of| _ = of.insert("ENCRYPTION_KEYS", new.clone()));
    broker.start_again().await;
    assert!(downloads(&now(&broker, &credentials, &backup).await).await);
    restores(&broker, &backup).await;
    assert_eq!(fs::read(&object).expect("an object"), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_backups_need_is_missed_by_name_and_given_up_on_command_alone() {
    let old = key_ring_of("old");
    let (mut broker, credentials, backup) = backed_up_under(&old).await;
    let new = key_ring_of("new");
    // A newer one on demand would take its place.
    let path = format!(
        "/deployments/{}/backups/{}",
        text(&credentials["deployment_id"]),
        text(&backup["id"])
    );
    let pinned = json!({ "backup": { "pinned": true } });
    let pinned = answer(
        broker
            .compose(Method::PATCH, &credentials, &path)
            .json(&pinned),
    )
    .await;
    assert_eq!(pinned.status, StatusCode::OK, "{pinned:?}");
    // What cannot be read is not sealed anew.
    let file = folder(&broker, &backup).join("manifest.json");
    let good = fs::read(&file).expect("a manifest");
    fs::write(&file, &good[..good.len() / 2]).expect("written");
    broker.kill();
    broker.change_settings(|of| _ = of.insert("ENCRYPTION_KEYS", format!("{new},{old}")));
    broker.start_again().await;
    eventually("a line in the log", || async {
        let logged = broker.logged();
        logged
            .contains("manifests of backups stay under an older key")
            .then_some(())
    })
    .await;
    let newer = broker.back_up(&credentials).await;
    assert_eq!(keys_of(&manifest(&broker, &newer)), ["new"; 3]);

    broker.kill();
    fs::write(&file, &good).expect("written");
    broker.change_settings(|of| _ = of.insert("ENCRYPTION_KEYS", new.clone()));
    let told = refused(broker.settings()).await;
    assert_one_line(&told, "keys that the ring lacks: old (1 backup);");
    broker.spawn_with(&["--accept", "keys"]);
    broker.serving().await;
    let given_up = now(&broker, &credentials, &backup).await;
    assert_eq!(given_up["status"], "failed", "{given_up}");
    let listed = given_up.to_string();
    assert!(
        listed.contains("the key that it is sealed under is gone: old"),
        "{listed}"
    );
    // It is accepted once.
    broker.kill_and_start_again().await;
    restores(&broker, &newer).await;

    // Should the key turn up again, a reconciliation lists the backup again.
    broker.kill();
    broker.change_settings(|of| _ = of.insert("ENCRYPTION_KEYS", format!("{new},{old}")));
    broker.start_again().await;
    let path = format!("{}/operator/reconciliation", broker.url);
    let (user, password) = broker.platform();
    let repaired = reqwest::Client::new()
        .post(path)
        .basic_auth(user, Some(password))
        .send()
        .await;
    let repaired: Value = repaired.expect("an answer").json().await.expect("JSON");
    assert!(repaired.to_string().contains("adopted"), "{repaired}");
    restores(&broker, &backup).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_without_the_key_names_it_and_waits() {
    let broker = TestBroker::start().await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    let backup = broker.back_up(&credentials).await;
    let file = folder(&broker, &backup).join("manifest.json");
    let good = fs::read_to_string(&file).expect("a manifest");
    fs::write(&file, good.replace("\"k1:", "\"lost:")).expect("written");
    assert!(!downloads(&backup).await);
    let source = json!({ "source_service_instance_id": "i", "backup_id": backup["id"] });
    let accepted = broker.put_instance("copy", source).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    eventually("what it waits for", || async {
        let path = format!("{}/last_operation", crate::broker::instance_path("copy"));
        let told = answer(broker.osb(Method::GET, &path)).await;
        let told = text(&told.body["description"]);
        told.contains("sealed under a key that the broker lacks")
            .then_some(())
    })
    .await;
    fs::write(&file, &good).expect("written");
    let end = broker.instance_end("copy", &accepted.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
}

/// How a look without a broker ended, and what it printed.
pub fn look(arguments: &[&str], keys: Option<&str>) -> (i32, String) {
    let settings = keys.map(|keys| ("ENCRYPTION_KEYS", keys.to_owned()));
    let arguments = [&["verify-backup"], arguments].concat();
    let looked = command(&arguments, &settings.into_iter().collect()).output();
    let looked = looked.expect("a process");
    let printed = [looked.stdout, looked.stderr].concat();
    let printed = String::from_utf8_lossy(&printed).into_owned();
    (looked.status.code().expect("an end"), printed)
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_are_looked_at_without_a_broker() {
    let mut broker = BrokerProcess::start().await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    etcd::fill(&mut etcd::connect(&credentials).await, 50, "v").await;
    let backup = broker.back_up(&credentials).await;
    let download = reqwest::get(text(&backup["download_link"])).await;
    let download = download
        .expect("an answer")
        .bytes()
        .await
        .expect("all of it");
    let data = broker.data_dir();
    let ring = fs::read_to_string(data.join("encryption_keys")).expect("a ring");
    let ring = ring.trim();
    broker.kill();

    let folder = folder(&broker, &backup);
    let aside = tempfile::tempdir().expect("a folder");
    let archive = aside.path().join("backup.tar.gz");
    fs::write(&archive, &download).expect("a file");
    let unpacked = aside.path().join("unpacked");
    fs::create_dir(&unpacked).expect("a folder");
    let tar = Command::new("tar")
        .arg("xzf")
        .arg(&archive)
        .arg("-C")
        .arg(&unpacked)
        .status();
    assert!(tar.expect("tar").success());
    let copied = aside.path().join("copied");
    fs::create_dir(&copied).expect("a folder");
    for name in ["manifest.json", "snapshot.db.zst.sealed"] {
        fs::copy(folder.join(name), copied.join(name)).expect("a copy");
    }
    let store = data.join("backups").display().to_string();
    let places = [
        format!("file://{store}"),
        store.clone(),
        folder.display().to_string(),
        copied.display().to_string(),
        archive.display().to_string(),
        unpacked.display().to_string(),
    ];
    let id = text(&backup["id"]);
    let foreign = key_ring_of("other");
    for (i, place) in places.iter().enumerate() {
        let (code, printed) = look(&[place], Some(ring));
        assert_eq!(code, 0, "{place}: {printed}");
        assert!(printed.starts_with("whole: "), "{printed}");
        assert!(printed.contains("instance i, etcd 3."), "{printed}");
        assert!(
            printed.contains("signed by a broker with key k1"),
            "{printed}"
        );
        // Without the key, what is sealed stays so.
        let is_sealed = i < 4;
        for keys in [None, Some(foreign.as_str())] {
            let (code, printed) = look(&[place], keys);
            assert_eq!(code, if is_sealed { 3 } else { 0 }, "{place}: {printed}");
            let word = if is_sealed { "not opened: " } else { "whole: " };
            assert!(
                printed.starts_with(word) && printed.contains("key k1"),
                "{printed}"
            );
        }
        // Another key of that name.
        let (code, printed) = look(&[place], Some(&new_key_ring()));
        assert_eq!(code, 1, "{place}: {printed}");
        assert!(
            printed.starts_with("damaged: ") && printed.contains("signature"),
            "{printed}"
        );
        let to = aside.path().join(format!("snapshot-{i}.db"));
        let to_text = to.display().to_string();
        let (code, printed) = look(&[place, "--to", &to_text], Some(ring));
        assert_eq!(code, 0, "{place}: {printed}");
        let snapshot = fs::read(unpacked.join("snapshot.db")).expect("a snapshot");
        assert!(fs::read(&to).expect("a snapshot") == snapshot, "{place}");
        let (code, printed) = look(&[place, "--to", &to_text], Some(ring));
        assert_eq!(code, 4, "what is there is not replaced: {printed}");
    }
    let (code, printed) = look(&[&store, "--backup", id], Some(ring));
    assert_eq!(code, 0, "{printed}");
    let (code, printed) = look(&[&store, "--backup", &"0".repeat(24)], Some(ring));
    assert_eq!(code, 4, "{printed}");
    assert!(printed.contains("there is no backup in"), "{printed}");
    for nothing in [format!("{store}/nothing"), "gs://bucket".to_owned()] {
        assert_eq!(look(&[&nothing], Some(ring)).0, 4);
    }
    assert_eq!(look(&[], None).0, 2);
    assert_eq!(look(&[&store], Some("short")).0, 4);

    let damaged = |file: PathBuf, place: &str, why: &str| {
        let good = fs::read(&file).expect("a file");
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 1;
        for bad in [flipped, good[..good.len() - 1].to_vec(), Vec::new()] {
            fs::write(&file, bad).expect("written");
            let (code, printed) = look(&[place], Some(ring));
            assert_eq!(code, 1, "{why}: {printed}");
            assert!(printed.starts_with("damaged: "), "{why}: {printed}");
        }
        fs::remove_file(&file).expect("removed");
        let (code, printed) = look(&[place], Some(ring));
        assert_ne!(code, 0, "{why}: {printed}");
        fs::write(&file, good).expect("written");
    };
    damaged(folder.join("snapshot.db.zst.sealed"), &store, "the object");
    damaged(
        copied.join("snapshot.db.zst.sealed"),
        &places[3],
        "the object of a copy",
    );
    damaged(
        unpacked.join("snapshot.db"),
        &places[5],
        "an unpacked snapshot",
    );
    damaged(archive, &places[4], "an archive");
    for (file, place) in [
        (folder.join("manifest.json"), &store),
        (unpacked.join("manifest.json"), &places[5]),
    ] {
        let good = fs::read_to_string(&file).expect("a manifest");
        fs::write(&file, good.replace("\"units\": 1", "\"units\": 2")).expect("written");
        let (code, printed) = look(&[place], Some(ring));
        assert_eq!(code, 1, "{printed}");
        assert!(printed.contains("signature"), "{printed}");
        fs::write(&file, good).expect("written");
    }
    fs::remove_file(folder.join("snapshot.db.zst.sealed")).expect("removed");
    let (code, printed) = look(&[&store], Some(ring));
    assert_eq!(code, 1, "{printed}");
    assert!(printed.contains("is missing"), "{printed}");
}
