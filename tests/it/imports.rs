//! Snapshots that were taken elsewhere are brought along, and are backups like others once they were restored
//! aside; files that are none cost nothing.

use std::{
    fs,
    io::Read as _,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use chrono::TimeDelta;
use compose_broker::model::{
    limits::{
        BACKUP_HISTORY_KEPT,
        upload::{UPLOAD_BYTES_MAX, UPLOAD_KEPT},
    },
    operation::OperationKind,
};
use flate2::read::GzDecoder;
use futures::{StreamExt as _, stream};
use reqwest::{Body, Method, StatusCode};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::{
    broker::{Answer, TestBroker, answer, engines_dir, eventually, text},
    control::{Script, TestClock, surroundings},
    database::{Database, with},
    inside::Inside,
    reconcile::moved,
};

fn uploads(of: &Value) -> String {
    format!("/deployments/{}/uploads", text(&of["deployment_id"]))
}

async fn begin(broker: &TestBroker, of: &Value, wanted: Value) -> Answer {
    let body = json!({ "upload": wanted });
    answer(broker.compose(Method::POST, of, &uploads(of)).json(&body)).await
}

/// Begins an upload of that length; returns its path.
pub async fn begun(broker: &TestBroker, of: &Value, bytes: usize) -> String {
    let upload = begin(broker, of, json!({ "bytes": bytes })).await;
    assert_eq!(upload.status, StatusCode::CREATED, "{upload:?}");
    format!("{}/{}", uploads(of), text(&upload.body["id"]))
}

pub async fn send(
    broker: &TestBroker,
    of: &Value,
    upload: &str,
    offset: usize,
    bytes: &[u8],
) -> Answer {
    let request = broker.compose(Method::PATCH, of, upload);
    let request = request.header("Upload-Offset", offset);
    answer(request.body(bytes.to_vec())).await
}

pub async fn fetch(broker: &TestBroker, of: &Value, path: &str) -> Answer {
    answer(broker.compose(Method::GET, of, path)).await
}

async fn backup(broker: &TestBroker, of: &Value, upload: &str) -> Value {
    let id = upload.rsplit('/').next().expect("an id");
    let path = format!("/deployments/{}/backups/{id}", text(&of["deployment_id"]));
    let found = fetch(broker, of, &path).await;
    assert_eq!(found.status, StatusCode::OK, "{found:?}");
    found.body
}

/// The snapshot in a backup, as its users download it.
pub async fn snapshot_of(broker: &TestBroker, of: &Value, backup: &Value) -> Vec<u8> {
    let deployment = text(&of["deployment_id"]);
    let path = format!("/deployments/{deployment}/backups/{}", text(&backup["id"]));
    let told = fetch(broker, of, &path).await;
    let archive = reqwest::get(text(&told.body["download_link"])).await;
    let archive = archive
        .expect("an answer")
        .bytes()
        .await
        .expect("all of it");
    let mut unpacked = tar::Archive::new(GzDecoder::new(&archive[..]));
    let mut files = unpacked.entries().expect("an archive");
    let mut file = files.next().expect("a file").expect("a file");
    let mut snapshot = Vec::new();
    file.read_to_end(&mut snapshot).expect("a snapshot");
    snapshot
}

/// Sends a snapshot to its end, and waits until the import has ended; returns its backup.
async fn sent(broker: &TestBroker, of: &Value, upload: &str, snapshot: &[u8]) -> Value {
    let accepted = send(broker, of, upload, 0, snapshot).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    broker
        .recipe_end(of, &json!({ "id": accepted.body["recipe_id"] }))
        .await;
    backup(broker, of, upload).await
}

/// Has a snapshot imported; returns the backup.
pub async fn imported(broker: &TestBroker, of: &Value, snapshot: &[u8]) -> Value {
    let upload = begun(broker, of, snapshot.len()).await;
    let backup = sent(broker, of, &upload, snapshot).await;
    assert_eq!(backup["status"], "complete", "{backup}");
    backup
}

fn sha256(bytes: &[u8]) -> String {
    let digest = digest(&SHA256, bytes);
    digest.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

/// The names of all that is stored of uploads.
fn parts(broker: &TestBroker) -> Vec<String> {
    let mut files = broker.files();
    files.retain(|file| file.contains("/part-"));
    files
}

async fn a_snapshot_from_elsewhere_is_a_backup_that_restores(of: Database) {
    let broker = of.broker(&[], surroundings()).await;
    let inside = Inside::of(&broker);
    broker.provision("elsewhere", json!({})).await;
    let elsewhere = broker.bind("elsewhere", "app").await;
    of.fill(&elsewhere, 40, "v").await;
    let taken = broker.back_up(&elsewhere).await;
    let snapshot = snapshot_of(&broker, &elsewhere, &taken).await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "app").await;
    of.fill(&credentials, 3, "own").await;
    let own = broker.back_up(&credentials).await;
    inside.idle("i").await;
    let ports = inside.ports_reserved().await;

    let wanted = json!({
        "bytes": snapshot.len(),
        "sha256": sha256(&snapshot).to_uppercase(),
        "note": "from the old cluster",
    });
    let upload = begin(&broker, &credentials, wanted).await;
    assert_eq!(upload.status, StatusCode::CREATED, "{upload:?}");
    let path = format!("{}/{}", uploads(&credentials), text(&upload.body["id"]));
    assert!(
        upload.headers["location"]
            .to_str()
            .expect("text")
            .ends_with(&path)
    );
    assert_eq!(upload.body["received_bytes"], 0);
    let waits = backup(&broker, &credentials, &path).await;
    assert_eq!(
        (&waits["status"], &waits["type"]),
        (&json!("pending"), &json!("imported"))
    );

    // It comes in three requests; one is sent twice, and one begins too late.
    let (first, second) = (snapshot.len() / 3, snapshot.len() / 2);
    let told = send(&broker, &credentials, &path, 0, &snapshot[..first]).await;
    assert_eq!(
        (told.status, &told.body["received_bytes"]),
        (StatusCode::OK, &json!(first))
    );
    for offset in [0, second] {
        let again = send(&broker, &credentials, &path, offset, &snapshot[offset..]).await;
        assert_eq!(again.status, StatusCode::CONFLICT, "{again:?}");
        let told = text(&again.body["errors"]["base"][0]);
        assert!(told.contains(&format!("Upload-Offset: {first}")), "{told}");
    }
    let told = send(
        &broker,
        &credentials,
        &path,
        first,
        &snapshot[first..second],
    )
    .await;
    assert_eq!(told.headers["upload-offset"], second.to_string().as_str());
    let open = fetch(&broker, &credentials, &uploads(&credentials)).await;
    let open = &open.body["_embedded"]["uploads"];
    assert_eq!(open[0]["received_bytes"], second, "{open}");
    assert_eq!(open[0]["recipe_id"], Value::Null, "{open}");
    let found = answer(broker.osb(Method::GET, "/operator/reconciliation")).await;
    assert_eq!(found.body["findings"], json!([]), "{found:?}");
    let short = send(&broker, &credentials, &path, second, b"").await;
    assert_eq!(short.body["received_bytes"], second, "{short:?}");
    let accepted = send(&broker, &credentials, &path, second, &snapshot[second..]).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let recipe = json!({ "id": accepted.body["recipe_id"] });
    let end = broker.recipe_end(&credentials, &recipe).await;
    assert_eq!(
        (&end["status"], &end["name"]),
        (&json!("complete"), &json!("Import a backup"))
    );

    let imported = backup(&broker, &credentials, &path).await;
    assert_eq!(imported["status"], "complete", "{imported}");
    for field in ["sha256", "size_bytes", "version", "revision", "keys"] {
        assert_eq!(imported[field], taken[field], "{field}");
    }
    assert_eq!(imported["note"], "from the old cluster");
    assert_eq!(parts(&broker), Vec::<String>::new());
    inside.idle("i").await;
    assert_eq!(inside.ports_reserved().await, ports);
    let over = fetch(&broker, &credentials, &path).await;
    assert_eq!(over.status, StatusCode::NOT_FOUND, "{over:?}");
    assert!(text(&over.body["errors"]["base"][0]).contains("the upload is over"));

    // What is newest of the instance itself is its own backup, and the other one is made an instance of by name.
    for (id, chosen, keys) in [
        ("own", json!("latest"), 3),
        ("other", imported["id"].clone(), 40),
        ("newest", json!("latest:imported"), 40),
    ] {
        let from = json!({ "source_service_instance_id": "i", "backup_id": chosen });
        broker.provision(id, from).await;
        let restored = broker.bind(id, "app").await;
        assert_eq!(of.dump(&restored).await.len(), keys, "{id}: {own}");
    }
}

async fn what_is_no_snapshot_is_refused_and_nothing_of_it_is_left(of: Database) {
    let broker = of.broker(&[], surroundings()).await;
    let inside = Inside::of(&broker);
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "app").await;
    of.fill(&credentials, 5, "v").await;
    let taken = broker.back_up(&credentials).await;
    let snapshot = snapshot_of(&broker, &credentials, &taken).await;
    inside.idle("i").await;
    let before = (broker.files(), inside.ports_reserved().await);

    for (wanted, reason) in [
        (json!({}), "bytes is missing"),
        (json!({ "bytes": 0 }), "needs its length"),
        (json!({ "bytes": -1 }), "not a whole number"),
        (json!({ "bytes": u64::MAX }), "needs its length"),
        (json!({ "bytes": 1, "sha256": "ab" }), "no SHA-256"),
        (json!({ "bytes": 1, "db_version": "newest" }), "no version"),
        (
            json!({ "bytes": 1, "db_version": "9.9.9" }),
            "cannot be restored into",
        ),
        (
            json!({ "bytes": 1, "note": "x".repeat(2000) }),
            "note has more than",
        ),
    ] {
        let refused = begin(&broker, &credentials, wanted).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{refused:?}");
        let told = text(&refused.body["errors"]["base"][0]);
        assert!(told.contains(reason), "{told}");
    }

    // What begins otherwise is refused with its first bytes.
    let upload = begun(&broker, &credentials, snapshot.len()).await;
    let mut foreign = snapshot.clone();
    foreign[..2].copy_from_slice(b"\x1f\x8b");
    let refused = send(&broker, &credentials, &upload, 0, &foreign).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{refused:?}");
    let failed = backup(&broker, &credentials, &upload).await;
    assert_eq!(failed["status_detail"], refused.body["errors"]["base"][0]);
    let upload = begun(&broker, &credentials, snapshot.len()).await;
    for begins in [&b""[..], b"{", &snapshot[..50]] {
        let refused = send(&broker, &credentials, &upload, 0, begins).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{refused:?}");
        let open = fetch(&broker, &credentials, &upload).await;
        assert_eq!(open.body["received_bytes"], 0, "{open:?}");
    }
    let without = answer(
        broker
            .compose(Method::PATCH, &credentials, &upload)
            .body("x"),
    )
    .await;
    assert_eq!(without.status, StatusCode::BAD_REQUEST, "{without:?}");
    let longer = [&snapshot[..], b"more"].concat();
    let refused = send(&broker, &credentials, &upload, 0, &longer).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{refused:?}");
    let upload = begun(&broker, &credentials, snapshot.len()).await;
    let gone = answer(broker.compose(Method::DELETE, &credentials, &upload)).await;
    assert_eq!(
        (gone.status, &gone.body["status"]),
        (StatusCode::OK, &json!("failed"))
    );
    let failed = backup(&broker, &credentials, &upload).await;
    assert_eq!(
        failed["status_detail"], "the upload was given up",
        "{failed}"
    );

    // The rest is found once all is there.
    let mut changed = snapshot.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    let cut = &snapshot[..snapshot.len() - 1];
    for (case, bytes, hash) in [
        ("changed", &changed[..], None),
        ("cut", cut, None),
        ("another one", &snapshot, Some(sha256(b"another"))),
    ] {
        let wanted = json!({ "bytes": bytes.len(), "sha256": hash });
        let upload = begin(&broker, &credentials, wanted).await;
        let upload = format!("{}/{}", uploads(&credentials), text(&upload.body["id"]));
        let failed = sent(&broker, &credentials, &upload, bytes).await;
        // A database in memory has no checksum at its end.
        if case != "changed" || matches!(of, Database::Etcd) {
            assert_eq!(failed["status"], "failed", "{case}: {failed}");
            let told = text(&failed["status_detail"]);
            assert!(told.contains("the file "), "{case}: {told}");
        }
    }
    inside.idle("i").await;
    if matches!(of, Database::Etcd) {
        assert_eq!((broker.files(), inside.ports_reserved().await), before);
    }
}

async fn an_upload_goes_on_after_a_restart_and_ends_with_its_time_or_its_instance(of: Database) {
    let clock = TestClock::default();
    let mut broker = of.broker(&[], clock.surroundings()).await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "app").await;
    of.fill(&credentials, 5, "v").await;
    let taken = broker.back_up(&credentials).await;
    let snapshot = snapshot_of(&broker, &credentials, &taken).await;
    let upload = begun(&broker, &credentials, snapshot.len()).await;

    // A client goes away in its midst: what has come is kept. While it sends, no other request does.
    let begins = Bytes::copy_from_slice(&snapshot[..100]);
    let never = stream::pending::<Result<Bytes, std::io::Error>>();
    let half = Body::wrap_stream(stream::iter([Ok(begins)]).chain(never));
    let request = broker.compose(Method::PATCH, &credentials, &upload);
    let request = request.header("Upload-Offset", 0).body(half);
    let asked = tokio::spawn(request.timeout(Duration::from_secs(3)).send());
    eventually("another request of the same upload", || async {
        // Before the other one has come it is refused, too: it brings nothing.
        let other = send(&broker, &credentials, &upload, 0, b"").await;
        let told = text(&other.body["errors"]["base"][0]).to_owned();
        told.contains("another request").then_some(())
    })
    .await;
    let asked = asked.await.expect("a task");
    asked.expect_err("no answer");
    let at = eventually("the bytes of before", || async {
        let told = fetch(&broker, &credentials, &upload).await;
        let received = told.body["received_bytes"].as_u64().expect("a number");
        (received > 0).then_some(received)
    })
    .await;
    assert_eq!(at, 100);
    broker.stop().await;
    broker
        .start_again(of.surroundings(clock.surroundings()))
        .await;
    let credentials = moved(&broker, credentials);
    let rest = send(&broker, &credentials, &upload, 100, &snapshot[100..]).await;
    assert_eq!(rest.status, StatusCode::ACCEPTED, "{rest:?}");
    let recipe = json!({ "id": rest.body["recipe_id"] });
    let end = broker.recipe_end(&credentials, &recipe).await;
    assert_eq!(end["status"], "complete", "{end}");

    // Only so many are open, and what nobody goes on with is given up.
    let first = begun(&broker, &credentials, 1000).await;
    send(&broker, &credentials, &first, 0, &snapshot[..100]).await;
    let second = begun(&broker, &credentials, 1000).await;
    let third = begin(&broker, &credentials, json!({ "bytes": 1000 })).await;
    assert_eq!(third.status, StatusCode::UNPROCESSABLE_ENTITY, "{third:?}");
    assert_eq!(parts(&broker).len(), 1);
    broker.stop().await;
    clock.forward(UPLOAD_KEPT + Duration::from_secs(3600));
    broker
        .start_again(of.surroundings(clock.surroundings()))
        .await;
    let credentials = moved(&broker, credentials);
    for upload in [&first, &second] {
        let failed = eventually("the end of an upload", || async {
            let told = backup(&broker, &credentials, upload).await;
            (told["status"] == "failed").then_some(told)
        })
        .await;
        let told = text(&failed["status_detail"]);
        assert!(told.contains("not ended in time"), "{told}");
    }
    eventually("no parts", || async {
        parts(&broker).is_empty().then_some(())
    })
    .await;
    // In the end nothing tells of them any more.
    clock.forward(
        (BACKUP_HISTORY_KEPT + TimeDelta::days(1))
            .to_std()
            .expect("a time"),
    );
    broker.back_up(&credentials).await;
    let list = format!(
        "/deployments/{}/backups",
        text(&credentials["deployment_id"])
    );
    eventually("backups without those that failed", || async {
        let listed = fetch(&broker, &credentials, &list).await;
        let listed = listed.body["_embedded"]["backups"].as_array()?.clone();
        let is_failed = |backup: &Value| backup["status"] == "failed";
        (!listed.iter().any(is_failed)).then_some(())
    })
    .await;

    // The store of backups is away when one is given up: nothing takes its place, and nothing is left later.
    let away = begun(&broker, &credentials, snapshot.len()).await;
    send(&broker, &credentials, &away, 0, &snapshot[..100]).await;
    let folder = broker.data_dir().join("backups");
    let aside = folder.with_extension("away");
    fs::rename(&folder, &aside).expect("moved");
    let failed = answer(broker.compose(Method::DELETE, &credentials, &away)).await;
    assert!(failed.status.is_server_error(), "{failed:?}");
    fs::rename(&aside, &folder).expect("moved");
    let over = fetch(&broker, &credentials, &away).await;
    assert_eq!(over.status, StatusCode::NOT_FOUND, "{over:?}");
    let open = fetch(&broker, &credentials, &uploads(&credentials)).await;
    assert_eq!(open.body["_embedded"]["uploads"], json!([]));
    assert_eq!(parts(&broker).len(), 1);
    broker.stop().await;
    broker
        .start_again(of.surroundings(clock.surroundings()))
        .await;
    let credentials = moved(&broker, credentials);
    eventually("no parts", || async {
        parts(&broker).is_empty().then_some(())
    })
    .await;

    let last = begun(&broker, &credentials, snapshot.len()).await;
    send(&broker, &credentials, &last, 0, &snapshot[..100]).await;
    assert_eq!(parts(&broker).len(), 1);
    broker.deprovision("i").await;
    assert_eq!(parts(&broker), Vec::<String>::new());
}

with!(
    on_etcd,
    Database::Etcd,
    a_snapshot_from_elsewhere_is_a_backup_that_restores
    what_is_no_snapshot_is_refused_and_nothing_of_it_is_left
);
with!(
    in_memory,
    Database::in_memory(),
    a_snapshot_from_elsewhere_is_a_backup_that_restores
    what_is_no_snapshot_is_refused_and_nothing_of_it_is_left
    an_upload_goes_on_after_a_restart_and_ends_with_its_time_or_its_instance
);

/// A database that no broker knows.
struct Lone {
    process: Child,
    url: String,
    version: &'static str,
    _folder: tempfile::TempDir,
}

impl Drop for Lone {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Lone {
    async fn start(version: &'static str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let free = || TcpListener::bind("127.0.0.1:0").expect("a port");
        let ports = [free(), free()].map(|of| of.local_addr().expect("an address").port());
        let [url, peers] = ports.map(|port| format!("http://127.0.0.1:{port}"));
        let mut etcd = Command::new(engines_dir().join("etcd").join(version).join("etcd"));
        etcd.arg("--data-dir").arg(folder.path().join("data"));
        for (flag, value) in [
            ("--listen-client-urls", &url),
            ("--advertise-client-urls", &url),
            ("--listen-peer-urls", &peers),
            ("--initial-advertise-peer-urls", &peers),
        ] {
            etcd.arg(flag).arg(value);
        }
        etcd.arg(format!("--initial-cluster=default={peers}"));
        let process = etcd.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let lone = Self {
            process: process.expect("etcd"),
            url,
            version,
            _folder: folder,
        };
        eventually("a database of its own", || async {
            lone.ctl(&["endpoint", "health"]).then_some(())
        })
        .await;
        lone
    }

    fn ctl(&self, args: &[&str]) -> bool {
        let folder = engines_dir().join("etcd").join(self.version);
        let ran = Command::new(folder.join("etcdctl"))
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &self.url])
            .args(args)
            .output();
        ran.expect("etcdctl").status.success()
    }

    fn snapshot(&self, file: &Path) -> Vec<u8> {
        assert!(self.ctl(&["snapshot", "save", file.to_str().expect("UTF-8")]));
        fs::read(file).expect("a snapshot")
    }
}

/// A database that runs somewhere else, whose users have no passwords, becomes an instance.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_users_moves_in() {
    let lone = Lone::start("3.4.23").await;
    for i in 0..30 {
        assert!(lone.ctl(&["put", &format!("key-{i:02}"), "value"]));
    }
    // The newest entries are those of keys that are gone, and the history is forgotten.
    assert!(lone.ctl(&["del", "key-0", "--prefix"]));
    assert!(lone.ctl(&["compact", "32"]));
    let folder = tempfile::tempdir().expect("a folder");
    let snapshot = lone.snapshot(&folder.path().join("snapshot.db"));
    drop(lone);

    let broker = TestBroker::start().await;
    broker
        .provision("i", json!({ "db_version": "3.5.16" }))
        .await;
    let credentials = broker.bind("i", "app").await;
    let wanted = json!({ "bytes": snapshot.len(), "db_version": "3.4.23" });
    let upload = begin(&broker, &credentials, wanted).await;
    let upload = format!("{}/{}", uploads(&credentials), text(&upload.body["id"]));
    let imported = sent(&broker, &credentials, &upload, &snapshot).await;
    assert_eq!(imported["status"], "complete", "{imported}");
    assert_eq!(imported["keys"], 20, "{imported}");
    let from = json!({
        "source_service_instance_id": "i", "backup_id": imported["id"], "db_version": "3.5.16",
    });
    broker.provision("moved", from).await;
    let moved = broker.bind("moved", "app").await;
    assert_eq!(Database::Etcd.dump(&moved).await.len(), 20);
    let stranger = crate::etcd::connect_anonymously(&moved).await;
    let read = match stranger {
        Ok(mut client) => client.get("key-10", None).await.map(drop),
        Err(error) => Err(error),
    };
    read.expect_err("nobody reads without a password");
}

/// Files that keep the form, and harm who opens them.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_damaged_on_purpose_costs_a_try_and_no_more() {
    let script = Script::default();
    let broker = TestBroker::start_with(&[], script.surroundings()).await;
    let inside = Inside::of(&broker);
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "app").await;
    let taken = broker.back_up(&credentials).await;
    let snapshot = snapshot_of(&broker, &credentials, &taken).await;
    inside.idle("i").await;
    let before = (broker.files(), inside.ports_reserved().await);
    // All pages but those that describe the database are noise, and the checksum fits.
    let mut noise = snapshot[..snapshot.len() - 32].to_vec();
    let mut state = 1_u32;
    for byte in &mut noise[8192..] {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8;
    }
    let trailer = digest(&SHA256, &noise);
    noise.extend_from_slice(trailer.as_ref());
    let upload = begun(&broker, &credentials, noise.len()).await;
    let failed = sent(&broker, &credentials, &upload, &noise).await;
    assert_eq!(failed["status"], "failed", "{failed}");
    let told = text(&failed["status_detail"]);
    assert!(
        told.contains("does not come up with what is in the file"),
        "{told}"
    );
    inside.idle("i").await;
    let kind = OperationKind::Import;
    assert_eq!(
        inside
            .operations("i")
            .await
            .iter()
            .filter(|o| o.kind == kind)
            .count(),
        1
    );
    assert_eq!((broker.files(), inside.ports_reserved().await), before);
    assert_eq!(broker.members().len(), 3);
}

/// A newer snapshot than its user says comes up in the older version, which does not notice.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_a_newer_version_than_was_told_is_no_backup() {
    let lone = Lone::start("3.7.3").await;
    assert!(lone.ctl(&["put", "a", "b"]));
    let folder = tempfile::tempdir().expect("a folder");
    let snapshot = lone.snapshot(&folder.path().join("snapshot.db"));
    drop(lone);
    let broker = TestBroker::start().await;
    broker
        .provision("i", json!({ "db_version": "3.6.16" }))
        .await;
    let credentials = broker.bind("i", "app").await;
    let wanted = json!({ "bytes": snapshot.len(), "db_version": "3.5.16" });
    let upload = begin(&broker, &credentials, wanted).await;
    let upload = format!("{}/{}", uploads(&credentials), text(&upload.body["id"]));
    let failed = sent(&broker, &credentials, &upload, &snapshot).await;
    assert_eq!(failed["status"], "failed", "{failed}");
    let told = text(&failed["status_detail"]);
    assert!(
        told.contains("was taken of a newer version than 3.5.16"),
        "{told}"
    );
}

/// Room is looked for where the bytes go, for all that was promised.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_promised_room_that_there_is_not() {
    let broker = TestBroker::in_memory().await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "app").await;
    let stat = rustix::fs::statvfs(broker.data_dir()).expect("a disk");
    let free = stat.f_bavail * stat.f_frsize;
    if free / 2 < UPLOAD_BYTES_MAX {
        let refused = begin(&broker, &credentials, json!({ "bytes": UPLOAD_BYTES_MAX })).await;
        assert_eq!(
            refused.status,
            StatusCode::SERVICE_UNAVAILABLE,
            "{refused:?}"
        );
    }
    // So many of the largest as there is room for, and no more.
    let mut begun = 0;
    for instance in 0..=free / 2 / UPLOAD_BYTES_MAX / 2 {
        let id = format!("more-{instance}");
        broker.provision(&id, json!({})).await;
        let key = broker.bind(&id, "app").await;
        for _ in 0..2 {
            let answer = begin(&broker, &key, json!({ "bytes": UPLOAD_BYTES_MAX })).await;
            begun += u64::from(answer.status == StatusCode::CREATED);
        }
    }
    assert!(begun * 2 * UPLOAD_BYTES_MAX <= free, "{begun} of {free}");
}
