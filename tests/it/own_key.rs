//! Backups that are sealed for a key of their tenant: the broker writes them, says so, and opens none without the
//! private key, which it keeps nowhere.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use async_compression::tokio::bufread::ZstdDecoder;
use compose_broker::model::operation::{OperationKind, OperationState};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use crate::{
    bindings::files_with,
    broker::{Answer, SERVICE, TestBroker, answer, eventually, instance_path, text},
    control::{Script, surroundings},
    database::{Database, with},
    imports::{imported, snapshot_of},
    inside::Inside,
    process::{BrokerProcess, new_key_ring},
    proofs,
    restore_keys::restored,
    restores::from,
    sealed::look,
    skipped::skipped,
    transport::description,
};

/// A pair that the documentation of age has for an example.
const PUBLIC: &str = "age1cy0su9fwf3gf9mw868g5yut09p6nytfmmnktexz2ya5uqg9vl9sss4euqm";
const PRIVATE: &str = "AGE-SECRET-KEY-184JMZMVQH3E6U0PSL869004Y3U2NYV7R30EU99CSEDNPH02YUVFSZW44VU";
/// A private key of somebody else.
const OTHER: &str = "AGE-SECRET-KEY-1EGTZVFFV20835NWYV6270LXYVK2VKNX2MMDKWYKLMGR48UAWX40Q2P2LM0";
/// What every object begins with that is sealed so.
const BEGIN: &[u8] = b"age-encryption.org/v1\n-> X25519 ";

fn with_key() -> Value {
    json!({ "backup_public_key": PUBLIC })
}

/// The parameters of a restore with that private key.
fn opened_by(key: &str, backup: &Value) -> Value {
    let mut parameters = from("i", backup);
    parameters["backup_private_key"] = key.into();
    parameters
}

fn folder(broker: &TestBroker, backup: &Value) -> PathBuf {
    let folder = format!("{}/{}", text(&backup["deployment_id"]), text(&backup["id"]));
    broker.data_dir().join("backups").join(folder)
}

fn manifest(broker: &TestBroker, backup: &Value) -> Value {
    let text = fs::read(folder(broker, backup).join("manifest.json"));
    serde_json::from_slice(&text.expect("a manifest")).expect("JSON")
}

async fn update(broker: &TestBroker, parameters: Value) -> Answer {
    let path = format!("{}?accepts_incomplete=true", instance_path("i"));
    let body = json!({ "service_id": SERVICE, "parameters": parameters });
    answer(broker.osb(Method::PATCH, &path).json(&body)).await
}

async fn parameters(broker: &TestBroker) -> Value {
    let fetched = answer(broker.osb(Method::GET, &instance_path("i"))).await;
    fetched.body["parameters"].clone()
}

/// What a backup has that only its tenant opens.
fn assert_is_sealed_for(broker: &TestBroker, backup: &Value) {
    assert_eq!(backup["status"], "complete", "{backup}");
    assert_eq!(backup["sealed_for"], PUBLIC, "{backup}");
    let manifest = manifest(broker, backup);
    assert_eq!(manifest["format"], 3, "{manifest}");
    assert_eq!(manifest["sealed_key"], Value::Null);
    assert_eq!(manifest["sealed_for"]["recipient"], PUBLIC);
    let folder = folder(broker, backup);
    let object = fs::read(folder.join("snapshot.db.zst.age")).expect("an object");
    assert!(object.starts_with(BEGIN));
    let mut files: Vec<_> = fs::read_dir(&folder)
        .expect("a folder")
        .map(|file| file.expect("a file").file_name())
        .collect();
    files.sort();
    assert_eq!(files, ["manifest.json", "snapshot.db.zst.age"]);
}

/// An instance with a key of its tenant's, with 20 keys and a backup: its credentials and the backup.
async fn backed_up(of: &Database, broker: &TestBroker) -> (Value, Value) {
    broker.provision("i", with_key()).await;
    let credentials = broker.bind("i", "app").await;
    of.fill(&credentials, 20, "v").await;
    let backup = broker.back_up(&credentials).await;
    (credentials, backup)
}

/// Files with a private key of these tests in them, in whatever letters.
fn files_with_private_key(broker: &TestBroker) -> String {
    let lower = PRIVATE.to_lowercase();
    [PRIVATE, &lower, OTHER]
        .map(|key| files_with(broker, key))
        .concat()
}

async fn a_backup_opens_with_the_private_key_alone(of: Database) {
    let broker = of.broker(&[], surroundings()).await;
    let inside = Inside::of(&broker);
    let (credentials, backup) = backed_up(&of, &broker).await;
    assert_is_sealed_for(&broker, &backup);
    assert_eq!(parameters(&broker).await, with_key());
    assert_eq!(backup["proof"], "unproved");
    let why = text(&backup["unverified_reason"]);
    assert!(
        why.starts_with("it cannot be proved: it is sealed for your own key"),
        "{why}"
    );

    let refusal = async |parameters| {
        let refused = broker.put_instance("copy", parameters).await;
        description(&refused, StatusCode::BAD_REQUEST).to_owned()
    };
    let missing = refusal(from("i", &backup)).await;
    assert!(
        missing.contains(PUBLIC) && missing.contains("backup_private_key"),
        "{missing}"
    );
    let wrong = refusal(opened_by(OTHER, &backup)).await;
    assert!(wrong.contains("does not open backup"), "{wrong}");
    let mistyped = refusal(opened_by(&PRIVATE.replace("184JM", "184JN"), &backup)).await;
    assert!(mistyped.contains("cannot be read"), "{mistyped}");
    let public = refusal(opened_by(PUBLIC, &backup)).await;
    assert!(public.contains("there is no private key"), "{public}");
    for told in [&missing, &wrong, &mistyped, &public] {
        assert!(
            !told.contains("AGE-SECRET-KEY-1E") && !told.contains("184J"),
            "{told}"
        );
    }

    broker.provision("copy", opened_by(PRIVATE, &backup)).await;
    let copy = broker.bind("copy", "app").await;
    assert_eq!(of.dump(&copy).await, of.dump(&credentials).await);
    // The same request, whatever private key comes with it: nothing is kept to compare it by.
    for again in [from("i", &backup), opened_by(OTHER, &backup)] {
        assert_eq!(
            broker.put_instance("copy", again).await.status,
            StatusCode::OK
        );
    }
    // What was asked for with it is told, without it.
    let fetched = answer(broker.osb(Method::GET, &instance_path("copy"))).await;
    assert_eq!(fetched.body["parameters"], from("i", &backup));
    inside.idle("copy").await;
    let restore = inside.newest("copy", OperationKind::Restore).await;
    assert_eq!(restore.source, None, "nothing of the key is left");
    assert_eq!(files_with_private_key(&broker), "");
}

async fn a_key_given_by_mistake_is_refused_and_kept_nowhere(of: Database) {
    let broker = of.broker(&[], surroundings()).await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "app").await;
    let backup = broker.back_up(&credentials).await;
    assert_eq!(backup["sealed_for"], Value::Null);
    for wrong in [
        json!({ "backup_public_key": PRIVATE }),
        json!({ "backup_public_key": PRIVATE.to_lowercase() }),
        json!({ "backup_public_key": [PRIVATE] }),
        json!({ "backup_public_key": PUBLIC.replace("cy0", "cy8") }),
        json!({ "backup_public_key": "ssh-ed25519 AAAA" }),
        json!({ "backup_public_key": 1 }),
        json!({ "units": PRIVATE }),
    ] {
        let made = broker.put_instance("other", wrong.clone()).await;
        let updated = update(&broker, wrong.clone()).await;
        for refused in [made, updated] {
            let told = description(&refused, StatusCode::BAD_REQUEST).to_uppercase();
            assert!(!told.contains("184JMZMV"), "{wrong}: {told}");
        }
    }
    // A private key has nothing to open.
    for unneeded in [
        opened_by(PRIVATE, &backup),
        json!({ "backup_private_key": PRIVATE }),
    ] {
        let refused = broker.put_instance("other", unneeded).await;
        let told = description(&refused, StatusCode::BAD_REQUEST);
        assert!(told.contains("keep it to yourself"), "{told}");
    }
    assert_eq!(parameters(&broker).await, json!({}));
    assert_eq!(files_with_private_key(&broker), "");
}

async fn a_key_is_changed_for_what_comes_after(of: Database) {
    let script = Script::default();
    let broker = of.broker(&[], script.surroundings()).await;
    let [old, new] = of.versions();
    broker.provision("i", json!({ "db_version": old })).await;
    let credentials = broker.bind("i", "app").await;
    of.fill(&credentials, 5, "v").await;
    let open = broker.back_up(&credentials).await;
    // The backup that an upgrade begins with is sealed for it already.
    let upgrade = json!({ "db_version": new, "backup_public_key": PUBLIC });
    let accepted = update(&broker, upgrade).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let end = broker.instance_end("i", &accepted.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    let list = format!(
        "/deployments/{}/backups",
        text(&credentials["deployment_id"])
    );
    let list = answer(broker.compose(Method::GET, &credentials, &list))
        .await
        .body;
    let list = list["_embedded"]["backups"]
        .as_array()
        .expect("backups")
        .clone();
    let safety = list.iter().find(|backup| backup["type"] == "safety");
    assert_is_sealed_for(&broker, safety.expect("a backup of before"));
    assert_eq!(parameters(&broker).await["backup_public_key"], PUBLIC);
    let deployment = format!("/deployments/{}", text(&credentials["deployment_id"]));
    let told = answer(broker.compose(Method::GET, &credentials, &deployment))
        .await
        .body;
    assert_eq!(told["backup_public_key"], PUBLIC, "{told}");

    let sealed = broker.back_up(&credentials).await;
    assert_is_sealed_for(&broker, &sealed);
    let done = update(&broker, json!({ "backup_public_key": "" })).await;
    assert_eq!(done.status, StatusCode::OK, "{done:?}");
    assert_eq!(parameters(&broker).await.get("backup_public_key"), None);
    // What was sealed for it stays so.
    let refused = broker.put_instance("copy", from("i", &sealed)).await;
    description(&refused, StatusCode::BAD_REQUEST);
    broker.provision("copy", opened_by(PRIVATE, &sealed)).await;
    let again = broker.back_up(&credentials).await;
    assert_eq!(again["sealed_for"], Value::Null, "{again}");
    assert_eq!(open["sealed_for"], Value::Null, "{open}");
}

async fn a_restore_here_and_keys_need_the_private_key_too(of: Database) {
    let broker = of.broker(&[], surroundings()).await;
    let (credentials, backup) = backed_up(&of, &broker).await;
    let before = of.dump(&credentials).await;
    let path = format!(
        "/deployments/{}/backups/{}",
        text(&credentials["deployment_id"]),
        text(&backup["id"])
    );
    let ask = async |what: &str, wanted: Value| {
        let path = format!("{path}/{what}");
        let body = json!({ "deployment": wanted });
        answer(
            broker
                .compose(Method::POST, &credentials, &path)
                .json(&body),
        )
        .await
    };
    let told = ask("restore", json!({ "dry_run": true })).await;
    assert_eq!(told.status, StatusCode::OK, "{told:?}");
    assert_eq!(told.body["possible"], false);
    let reasons = told.body["reasons"].to_string();
    assert!(
        reasons.contains("give the private key") && reasons.contains(PUBLIC),
        "{reasons}"
    );
    assert!(
        told.body["to_version"].is_string(),
        "all else is told: {told:?}"
    );
    let told = ask(
        "restore",
        json!({ "dry_run": true, "backup_private_key": PRIVATE }),
    )
    .await;
    assert_eq!(told.body["possible"], true, "{told:?}");
    let refused = ask("restore", json!({})).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{refused:?}");
    let accepted = ask(
        "restore",
        json!({ "name": "copy", "backup_private_key": PRIVATE }),
    )
    .await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    // What is made of it is sealed for the same key from then on.
    assert_eq!(accepted.body["backup_public_key"], PUBLIC, "{accepted:?}");
    let made = text(&accepted.body["instance_id"]).to_owned();
    broker
        .end_of(&format!("{}/last_operation", instance_path(&made)))
        .await;
    let copy = broker.bind(&made, "app").await;
    assert_eq!(of.dump(&copy).await, before);

    of.fill(&credentials, 10, "w").await;
    for refused in [
        ask("restore_prefix", json!({ "prefix": "" })).await,
        ask(
            "restore_prefix",
            json!({ "prefix": "", "backup_private_key": OTHER }),
        )
        .await,
    ] {
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{refused:?}");
    }
    let wanted = json!({ "prefix": "", "mode": "mirror", "backup_private_key": PRIVATE });
    let recipe = restored(&broker, &credentials, &backup, &wanted).await;
    assert_eq!(
        recipe["prefix_restore"]["changes"]["written"], 10,
        "{recipe}"
    );
    assert_eq!(of.dump(&credentials).await, before);
    assert_eq!(files_with_private_key(&broker), "");
}

async fn what_is_brought_along_is_sealed_too(of: Database) {
    let broker = of.broker(&[], surroundings()).await;
    broker.provision("source", json!({})).await;
    let source = broker.bind("source", "app").await;
    of.fill(&source, 7, "v").await;
    let open = broker.back_up(&source).await;
    let snapshot = snapshot_of(&broker, &source, &open).await;
    broker.provision("i", with_key()).await;
    let credentials = broker.bind("i", "app").await;
    let backup = imported(&broker, &credentials, &snapshot).await;
    assert_is_sealed_for(&broker, &backup);
    broker.provision("copy", opened_by(PRIVATE, &backup)).await;
    let copy = broker.bind("copy", "app").await;
    assert_eq!(of.dump(&copy).await, of.dump(&source).await);
}

async fn what_cannot_be_proved_is_no_fault_and_its_bytes_are_looked_at(of: Database) {
    let broker = of.broker(&proofs::ON, surroundings()).await;
    let inside = Inside::of(&broker);
    let (credentials, backup) = backed_up(&of, &broker).await;
    assert_is_sealed_for(&broker, &backup);
    inside.idle("i").await;
    let all = inside.operations("i").await;
    assert!(
        all.iter().all(|o| o.kind != OperationKind::Proof),
        "none is tried"
    );
    // Somebody finds it spoiled: its bytes are compared at once, and told of.
    let object = folder(&broker, &backup).join("snapshot.db.zst.age");
    let good = fs::read(&object).expect("an object");
    fs::write(&object, &good[1..]).expect("damaged");
    let is_whole = match reqwest::get(text(&backup["download_link"])).await {
        Ok(download) => download.bytes().await.is_ok(),
        Err(_) => false,
    };
    assert!(!is_whole, "a download of it breaks off");
    let flawed = proofs::once(&broker, &credentials, &backup, "flawed").await;
    let why = text(&flawed["unverified_reason"]);
    assert!(
        why.contains("its stored bytes are not what was stored"),
        "{why}"
    );
    fs::write(&object, &good).expect("mended");
    let accepted = broker
        .put_instance("copy", opened_by(PRIVATE, &backup))
        .await;
    let end = broker.instance_end("copy", &accepted.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
}

async fn the_key_of_a_backup_waits_sealed_and_goes_with_the_restore(of: Database) {
    let script = Script::default();
    let broker = of.broker(&[], script.surroundings()).await;
    let (_, backup) = backed_up(&of, &broker).await;
    let held = script.hold(OperationKind::Restore, "fetch");
    let accepted = broker
        .put_instance("copy", opened_by(PRIVATE, &backup))
        .await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let inside = Inside::of(&broker);
    let source = inside.newest("copy", OperationKind::Restore).await.source;
    let sealed = source.and_then(|source| source.sealed_key);
    let sealed = sealed.expect("a key that waits");
    assert!(sealed.starts_with("k1:"), "{sealed}");
    assert_eq!(files_with_private_key(&broker), "");
    drop(held);
    let end = broker.instance_end("copy", &accepted.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    inside.idle("copy").await;
    let restore = inside.newest("copy", OperationKind::Restore).await;
    assert_eq!(
        (restore.state, restore.source),
        (OperationState::Succeeded, None)
    );
    // One that fails leaves nothing either.
    let failing = script.fail(OperationKind::Restore, "start");
    let accepted = broker
        .put_instance("other", opened_by(PRIVATE, &backup))
        .await;
    let end = broker.instance_end("other", &accepted.body).await;
    assert_eq!(end["state"], "failed", "{end}");
    drop(failing);
    let restore = inside.newest("other", OperationKind::Restore).await;
    assert_eq!(
        (restore.state, restore.source),
        (OperationState::Failed, None)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loses_no_restore_and_leaves_no_key_behind() {
    let mut broker = BrokerProcess::start().await;
    broker.provision("i", with_key()).await;
    let credentials = broker.bind("i", "b").await;
    let backup = broker.back_up(&credentials).await;
    let accepted = broker
        .put_instance("copy", opened_by(PRIVATE, &backup))
        .await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    broker.kill_and_start_again().await;
    let end = broker.instance_end("copy", &accepted.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    assert_eq!(files_with_private_key(&broker), "");
    assert!(!broker.logged().contains(PRIVATE), "not in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_opens_a_backup_without_the_broker() {
    let old = new_key_ring();
    let mut broker =
        BrokerProcess::stopped_with(|of| _ = of.insert("ENCRYPTION_KEYS", old.clone()));
    broker.start_again().await;
    broker.provision("i", with_key()).await;
    let credentials = broker.bind("i", "b").await;
    let backup = broker.back_up(&credentials).await;
    assert_is_sealed_for(&broker, &backup);
    let download = reqwest::get(text(&backup["download_link"])).await;
    let download = download
        .expect("an answer")
        .bytes()
        .await
        .expect("all of it");
    // Its ring changes; nobody needs the old one for this backup, and no byte of the object does.
    let object = folder(&broker, &backup).join("snapshot.db.zst.age");
    let before = fs::read(&object).expect("an object");
    let data = broker.data_dir();
    let new = new_key_ring().replacen("k1", "k2", 1);
    broker.kill();
    broker.change_settings(|of| _ = of.insert("ENCRYPTION_KEYS", format!("{new},{old}")));
    broker.start_again().await;
    eventually("a manifest under the new key", || async {
        let manifest = manifest(&broker, &backup);
        text(&manifest["signature"])
            .starts_with("k2:")
            .then_some(())
    })
    .await;
    assert_eq!(fs::read(&object).expect("an object"), before);
    broker.provision("copy", opened_by(PRIVATE, &backup)).await;
    let logged = broker.logged();
    assert!(!logged.contains(PRIVATE), "not in the log");
    assert_eq!(files_with_private_key(&broker), "");
    broker.kill();

    let aside = tempfile::tempdir().expect("a folder");
    let archive = aside.path().join("backup.tar.gz");
    fs::write(&archive, &download).expect("a file");
    let [identity, other] = [("own", PRIVATE), ("other", OTHER)].map(|(name, key)| {
        let file = aside.path().join(name);
        fs::write(&file, format!("# created: today\n{key}\n")).expect("a file");
        file.display().to_string()
    });
    let places = [data.join("backups"), folder(&broker, &backup), archive];
    let mut snapshots = Vec::new();
    let id = text(&backup["id"]);
    for (i, place) in places.iter().enumerate() {
        let place = place.display().to_string();
        // The copy has been backed up, too.
        let of: &[&str] = match i {
            0 => &[&place, "--backup", id],
            _ => &[&place],
        };
        let look = |more: &[&str], ring: Option<&str>| look(&[of, more].concat(), ring);
        for without in [&[][..], &["--identity", &other]] {
            let (code, printed) = look(without, Some(&new));
            assert_eq!(code, 3, "{place}: {printed}");
            assert!(
                printed.contains("not opened: ") && printed.contains(PUBLIC),
                "{printed}"
            );
        }
        let to = aside.path().join(format!("snapshot-{i}.db"));
        let to_text = to.display().to_string();
        let (code, printed) = look(&["--to", &to_text], Some(&new));
        assert_eq!(code, 4, "{place}: {printed}");
        let (code, printed) = look(&["--identity", &identity, "--to", &to_text], None);
        assert_eq!(code, 0, "{place}: {printed}");
        assert!(printed.starts_with("whole: "), "{printed}");
        snapshots.push(fs::read(&to).expect("a snapshot"));
    }
    let expected = manifest(&broker, &backup)["stored"]["snapshot_bytes"].as_u64();
    assert!(snapshots.iter().all(|of| *of == snapshots[0]));
    assert_eq!(Some(snapshots[0].len() as u64), expected);
    assert_opens_with_age(&object, &identity, &snapshots[0]).await;
    // What is damaged is told, with the private key and without.
    let mut damaged = before.clone();
    damaged[before.len() / 2] ^= 1;
    fs::write(&object, damaged).expect("damaged");
    let store = data.join("backups").display().to_string();
    for keys in [&[store.as_str()][..], &[&store, "--identity", &identity]] {
        let (code, printed) = look(keys, Some(&new));
        assert_eq!(code, 1, "{printed}");
    }
}

/// Opens an object as a tenant does who has age and zstd, and nothing of ours.
async fn assert_opens_with_age(object: &Path, identity: &str, snapshot: &[u8]) {
    let opened = Command::new("age")
        .args(["--decrypt", "--identity", identity])
        .arg(object)
        .output();
    let opened = match opened {
        Ok(opened) => opened,
        Err(error) => return skipped("age", &format!("{error} (scripts/setup.sh --age)")),
    };
    let told = String::from_utf8_lossy(&opened.stderr);
    assert!(opened.status.success(), "{told}");
    let (mut unpacked, mut packed) = (Vec::new(), ZstdDecoder::new(&opened.stdout[..]));
    let read = packed.read_to_end(&mut unpacked).await;
    read.expect("zstd");
    assert!(unpacked == snapshot, "{} bytes", unpacked.len());
}

with! {
    in_memory, Database::in_memory(),
    a_backup_opens_with_the_private_key_alone
    a_key_given_by_mistake_is_refused_and_kept_nowhere
    a_key_is_changed_for_what_comes_after
    a_restore_here_and_keys_need_the_private_key_too
    what_is_brought_along_is_sealed_too
    what_cannot_be_proved_is_no_fault_and_its_bytes_are_looked_at
    the_key_of_a_backup_waits_sealed_and_goes_with_the_restore
}

with! {
    on_etcd, Database::Etcd,
    a_backup_opens_with_the_private_key_alone
    a_key_is_changed_for_what_comes_after
    a_restore_here_and_keys_need_the_private_key_too
    what_is_brought_along_is_sealed_too
}
