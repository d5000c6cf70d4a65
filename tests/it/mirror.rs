//! A second store has a copy of each backup: it is made by itself, is late in words, goes with its backup, and puts
//! back what is spoiled in the first one.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{TestBroker, answer, eventually, text},
    control::{Script, TestClock, surroundings},
    database::Database,
    etcd,
    inside::Inside,
    process::{BrokerProcess, assert_one_line, refused},
    proofs::{ON, once},
    s3::{Server, Wanted},
    tls::Authority,
};

/// When stored bytes are read again.
const READ_AGAIN: Duration = Duration::from_secs(29 * 24 * 3600 + 60);
/// When a backup without a copy is late.
const LATE: Duration = Duration::from_secs(6 * 3600 + 60);
const OBJECT: &str = "snapshot.db.zst.sealed";
const MANIFEST: &str = "manifest.json";

/// A mirror in a folder that goes with the test, and a broker that has it.
struct Mirrored {
    broker: TestBroker,
    folder: tempfile::TempDir,
    credentials: Value,
    clock: TestClock,
}

impl Mirrored {
    /// With an instance `i`, and further flags.
    async fn new(flags: &[&str]) -> Self {
        let (folder, clock) = (tempfile::tempdir().expect("a folder"), TestClock::default());
        let address = format!("file://{}", folder.path().join("mirror").display());
        let flags = [&["--backup-mirror", &address], flags].concat();
        let surroundings = Script::default().surroundings_at(&clock);
        let broker = Database::in_memory().broker(&flags, surroundings).await;
        broker.provision("i", json!({})).await;
        let credentials = broker.bind("i", "app").await;
        broker.database.fill(&credentials, 20, "v").await;
        Self {
            broker,
            folder,
            credentials,
            clock,
        }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("mirror")
    }

    async fn back_up(&self) -> Value {
        let backup = self.broker.back_up(&self.credentials).await;
        assert_eq!(backup["status"], "complete", "{backup}");
        backup
    }

    /// A backup as it is told of now.
    async fn now(&self, backup: &Value) -> Value {
        let of = answer(
            self.broker
                .compose(Method::GET, &self.credentials, &path_of(backup)),
        );
        of.await.body
    }

    /// A backup once it has a copy.
    async fn mirrored(&self, backup: &Value) -> Value {
        eventually("a copy in the mirror", || async {
            let told = self.now(backup).await;
            told["mirrored_at"].is_string().then_some(told)
        })
        .await
    }

    fn first(&self, backup: &Value) -> PathBuf {
        folder_of(&self.broker.data_dir().join("backups"), backup)
    }

    fn second(&self, backup: &Value) -> PathBuf {
        folder_of(&self.root(), backup)
    }

    async fn told(&self) -> Value {
        let told = answer(self.broker.osb(Method::GET, "/operator/mirror")).await;
        assert_eq!(told.status, StatusCode::OK, "{told:?}");
        told.body
    }

    async fn alerts(&self) -> String {
        let path = format!(
            "/deployments/{}/alerts",
            text(&self.credentials["deployment_id"])
        );
        let told = answer(self.broker.compose(Method::GET, &self.credentials, &path));
        told.await.body.to_string()
    }

    /// How often something stands in the audit.
    async fn audited(&self, action: &str) -> usize {
        let told = answer(self.broker.osb(Method::GET, "/operator/audit?limit=100")).await;
        let entries = told.body["entries"].as_array().expect("entries").clone();
        entries.iter().filter(|of| of["action"] == action).count()
    }

    /// Puts the mirror out of reach, as a disk that is not mounted, or back.
    fn take_away(&self, is_away: bool) {
        let (root, aside) = (self.root(), self.folder.path().join("aside"));
        if is_away {
            fs::rename(&root, &aside).expect("moved");
            fs::create_dir(&root).expect("made");
        } else {
            fs::remove_dir(&root).expect("still empty");
            fs::rename(&aside, &root).expect("moved back");
        }
    }
}

fn path_of(backup: &Value) -> String {
    let (deployment, id) = (text(&backup["deployment_id"]), text(&backup["id"]));
    format!("/deployments/{deployment}/backups/{id}")
}

fn folder_of(root: &Path, backup: &Value) -> PathBuf {
    let (deployment, id) = (text(&backup["deployment_id"]), text(&backup["id"]));
    root.join(deployment).join(id)
}

fn flip(file: &Path) {
    let mut bytes = fs::read(file).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).expect("flipped");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_backup_is_copied_and_its_copy_goes_with_it() {
    let of = Mirrored::new(&[]).await;
    let backup = of.back_up().await;
    of.mirrored(&backup).await;
    for name in [OBJECT, MANIFEST] {
        let [first, second] = [of.first(&backup), of.second(&backup)]
            .map(|folder| fs::read(folder.join(name)).expect("a file"));
        assert!(first == second, "{name}");
    }
    let told = of.told().await;
    assert_eq!(
        (&told["copied"], &told["waiting"], &told["late"]),
        (&json!(1), &json!(0), &json!(0)),
        "{told}"
    );
    assert_eq!(told["failure"], Value::Null, "{told}");
    let metrics = of.broker.osb(Method::GET, "/metrics").send().await;
    let metrics = metrics.expect("an answer").text().await.expect("a text");
    let counted = "\ncompose_broker_backups_mirrored 1.0\n";
    assert!(metrics.contains(counted), "{metrics}");
    // One of these is kept.
    let newer = of.back_up().await;
    of.mirrored(&newer).await;
    eventually("the end of the older copy", || async {
        (!of.second(&backup).join(MANIFEST).exists()).then_some(())
    })
    .await;
    of.broker.deprovision("i").await;
    eventually("the end of all copies", || async {
        let left = of.second(&newer);
        let is_gone = |name| !left.join(name).exists();
        (is_gone(OBJECT) && is_gone(MANIFEST)).then_some(())
    })
    .await;
    eventually("a mirror that has nothing", || async {
        (of.told().await["copied"] == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_mirror_is_away_backups_go_on_and_nothing_is_forgotten() {
    let mut of = Mirrored::new(&[]).await;
    let older = of.back_up().await;
    of.mirrored(&older).await;
    of.take_away(true);
    let backup = of.back_up().await;
    Inside::of(&of.broker).idle("i").await;
    assert!(
        !of.first(&older).join(MANIFEST).exists(),
        "it goes from the first store"
    );
    assert_eq!(of.now(&backup).await["mirrored_at"], Value::Null);
    eventually("what is wrong", || async {
        let told = of.told().await;
        let why = told["failure"].as_str().unwrap_or_default().to_owned();
        why.contains("the mirror is not there").then_some(())
    })
    .await;
    // A broker starts without it, too.
    assert!(!of.alerts().await.contains("not in the mirror"));
    let again = Script::default().surroundings_at(&of.clock);
    of.broker.restart_with(again).await;
    of.credentials = of.broker.bind("i", "another").await;
    of.clock.forward(LATE);
    let alerts = of.alerts().await;
    assert!(alerts.contains("1 backup is not in the mirror"), "{alerts}");
    assert!(alerts.contains("the mirror is not there"), "{alerts}");
    assert!(
        !alerts.contains(of.folder.path().to_str().expect("UTF-8")),
        "{alerts}"
    );
    let told = of.told().await;
    assert_eq!(told["late_backups"][0]["backup_id"], backup["id"], "{told}");
    assert!(
        fs::read_dir(of.root()).expect("a folder").next().is_none(),
        "nothing is written there"
    );

    of.take_away(false);
    of.mirrored(&backup).await;
    eventually("the end of the older copy", || async {
        (!of.second(&older).join(MANIFEST).exists()).then_some(())
    })
    .await;
    assert!(!of.alerts().await.contains("not in the mirror"));
    assert_eq!(of.told().await["failure"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_spoiled_is_put_back_wherever_it_is_found() {
    let of = Mirrored::new(&ON).await;
    let backup = of.back_up().await;
    of.mirrored(&backup).await;
    once(&of.broker, &of.credentials, &backup, "proved").await;
    let [first, object] = [MANIFEST, OBJECT].map(|name| of.first(&backup).join(name));
    let [manifest, good] = [&first, &object].map(|file| fs::read(file).expect("a file"));
    let inside = Inside::of(&of.broker);

    // Read again after 29 days.
    flip(&object);
    of.clock.forward(READ_AGAIN);
    eventually("a backup that is whole again", || async {
        (fs::read(&object).expect("a file") == good).then_some(())
    })
    .await;
    eventually("the word of it", || async {
        of.alerts()
            .await
            .contains("put back from the mirror")
            .then_some(())
    })
    .await;
    inside.idle("i").await;
    assert_eq!(of.now(&backup).await["proof"], "proved");
    assert_eq!(of.audited("healing").await, 1);

    // In a restore, where both are gone.
    fs::remove_dir_all(of.first(&backup)).expect("gone");
    let source = json!({ "source_service_instance_id": "i", "backup_id": backup["id"] });
    of.broker.provision("copy", source).await;
    assert_eq!(fs::read(&object).expect("a file"), good);
    assert_eq!(of.audited("healing").await, 2);
    assert!(!fs::read(&first).expect("a manifest").is_empty());
    of.broker.deprovision("copy").await;

    // In a reconciliation, whatever of it is missing.
    fs::remove_file(&object).expect("gone");
    let repaired = answer(of.broker.osb(Method::POST, "/operator/reconciliation")).await;
    assert_eq!(
        repaired.body["findings"][0]["repair"], "healed",
        "{repaired:?}"
    );
    assert_eq!(fs::read(&object).expect("a file"), good);
    let none = answer(of.broker.osb(Method::GET, "/operator/reconciliation")).await;
    assert_eq!(none.body["findings"], json!([]), "{none:?}");

    // In a download: that is made of the copy, and the backup is looked into.
    let link = text(&of.now(&backup).await["download_link"]).to_owned();
    let whole = reqwest::get(&link)
        .await
        .expect("an answer")
        .bytes()
        .await
        .expect("all of it");
    fs::remove_file(&object).expect("gone");
    let copied = reqwest::get(&link)
        .await
        .expect("an answer")
        .bytes()
        .await
        .expect("all of it");
    assert!(
        whole == copied,
        "{} and {} bytes",
        whole.len(),
        copied.len()
    );
    eventually("a backup that is whole again", || async {
        object.exists().then_some(())
    })
    .await;
    inside.idle("i").await;

    // Where the mirror has no good copy, it is as without one.
    flip(&of.second(&backup).join(OBJECT));
    flip(&object);
    of.clock.forward(READ_AGAIN);
    once(&of.broker, &of.credentials, &backup, "flawed").await;
    // The copy is looked at, too, and no spoiled one is made of what is spoiled.
    eventually("the end of the spoiled copy", || async {
        (!of.second(&backup).join(OBJECT).exists()).then_some(())
    })
    .await;
    fs::write(&object, &good).expect("mended");
    of.clock.forward(Duration::from_secs(16 * 60));
    of.mirrored(&backup).await;
    assert_eq!(
        fs::read(of.second(&backup).join(OBJECT)).expect("a copy"),
        good
    );
    assert_eq!(
        fs::read(of.second(&backup).join(MANIFEST)).expect("a copy"),
        fs::read(&first).expect("a manifest")
    );
    assert!(!manifest.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_without_any_good_copy_says_so() {
    let of = Mirrored::new(&[]).await;
    let backup = of.back_up().await;
    of.mirrored(&backup).await;
    for folder in [of.first(&backup), of.second(&backup)] {
        flip(&folder.join(OBJECT));
    }
    let source = json!({ "source_service_instance_id": "i", "backup_id": backup["id"] });
    let accepted = of.broker.put_instance("copy", source).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let end = of.broker.instance_end("copy", &accepted.body).await;
    assert_eq!(end["state"], "failed", "{end}");
    assert!(text(&end["description"]).contains("it is damaged"), "{end}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_is_set_later_gets_the_older_backups_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut broker = Database::in_memory().broker(&[], surroundings()).await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "app").await;
    let backup = broker.back_up(&credentials).await;
    assert_eq!(backup["mirrored_at"], Value::Null, "{backup}");
    let none = answer(broker.osb(Method::GET, "/operator/mirror")).await;
    assert_eq!(none.status, StatusCode::NOT_FOUND, "{none:?}");
    Inside::of(&broker).idle("i").await;
    broker.stop().await;
    let mirror = folder.path().join("mirror");
    let address = format!("file://{}", mirror.display());
    broker.also(&["--backup-mirror", &address]);
    broker.start_again(surroundings()).await;
    let copied = || async {
        let copy = folder_of(&mirror, &backup);
        (copy.join(OBJECT).exists() && copy.join(MANIFEST).exists()).then_some(())
    };
    eventually("a copy in the mirror", copied).await;
    // Another disk in its place is not taken for it, and gets them when that is said.
    let counted = || async {
        let told = answer(broker.osb(Method::GET, "/operator/mirror")).await;
        (told.body["copied"] == 1).then_some(())
    };
    eventually("one that is counted", counted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_copies_need_are_changed_there_too() {
    let of = Mirrored::new(&[]).await;
    let backup = of.back_up().await;
    of.mirrored(&backup).await;
    let Mirrored {
        mut broker,
        folder,
        clock,
        ..
    } = of;
    broker.stop().await;
    let ring = broker.data_dir().join("encryption_keys");
    let old = fs::read_to_string(&ring).expect("a ring");
    let key = crate::process::new_key_ring();
    let (_, key) = key.split_once(':').expect("a key");
    fs::write(&ring, format!("next:{},{}", key.trim(), old.trim())).expect("a ring");
    broker
        .start_again(Script::default().surroundings_at(&clock))
        .await;
    let copy = folder_of(&folder.path().join("mirror"), &backup).join(MANIFEST);
    eventually("a copy under the next key", || async {
        let manifest: Value = serde_json::from_slice(&fs::read(&copy).ok()?).ok()?;
        manifest["sealed_key"]
            .as_str()?
            .starts_with("next:")
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_apart_from_its_store_is_needed() {
    let broker = BrokerProcess::stopped_with(|settings| {
        let data = settings["DATA_DIR"].clone();
        settings.insert("BACKUP_MIRROR", format!("file://{data}/backups/mirror"));
    });
    let told = refused(broker.settings()).await;
    assert_one_line(&told, "COMPOSE_BROKER_BACKUP_MIRROR");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_mirrored_into_a_bucket_over_a_kill_in_the_midst_of_a_copy() {
    let Some(mut server) = Server::own(Wanted::default()) else {
        return;
    };
    let bucket = server.bucket_folder().expect("the test's own");
    let keys = tempfile::tempdir().expect("a folder");
    let file = keys.path().join("credentials");
    server.write_credentials(&file);
    let mut broker = BrokerProcess::stopped_with(|settings| {
        settings.extend([
            ("BACKUP_MIRROR", format!("s3://{}", server.address())),
            ("S3_ENDPOINT", server.endpoint().to_owned()),
            ("S3_CREDENTIALS_FILE", file.display().to_string()),
            ("S3_PATIENCE", "1".to_owned()),
            ("S3_PART_MIB", "5".to_owned()),
            ("S3_MIB_PER_SECOND", "1".to_owned()),
        ]);
    });
    broker.start_again().await;
    broker
        .provision("i", json!({ "db_version": "3.5.16" }))
        .await;
    let credentials = broker.bind("i", "app").await;
    let mut client = etcd::connect(&credentials).await;
    for number in 0..12 {
        client
            .put(format!("k{number}"), random(1_000_000), None)
            .await
            .expect("put");
    }
    let backup = broker.back_up(&credentials).await;
    assert_eq!(backup["status"], "complete", "{backup}");
    let copy = folder_of(&bucket.join("of/a-broker"), &backup);
    // It takes ten seconds and more at that pace.
    eventually("a copy that has begun", || async {
        has_uploads(&bucket).then_some(())
    })
    .await;
    broker.kill();
    assert!(!copy.join(OBJECT).exists(), "half a copy has no name");
    broker.change_settings(|settings| {
        settings.insert("S3_MIB_PER_SECOND", "0".to_owned());
    });
    // The server is away at first, which holds up no start.
    server.stop();
    broker.start_again().await;
    server.start_again();
    let credentials = broker.bind("i", "another").await;
    eventually("a copy in the bucket", || async {
        let told = answer(broker.compose(Method::GET, &credentials, &path_of(&backup))).await;
        told.body["mirrored_at"].is_string().then_some(())
    })
    .await;
    let first = folder_of(
        &Path::new(&broker.settings()["DATA_DIR"]).join("backups"),
        &backup,
    );
    for name in [OBJECT, MANIFEST] {
        let [first, second] = [&first, &copy].map(|of| fs::read(of.join(name)).expect("a file"));
        assert!(first == second, "{name}");
    }
    // What is gone from the disk comes back out of the bucket.
    fs::remove_file(first.join(OBJECT)).expect("gone");
    let source = json!({ "source_service_instance_id": "i", "backup_id": backup["id"] });
    broker.provision("copy", source).await;
    assert!(first.join(OBJECT).exists());
    broker.deprovision("copy").await;
    broker.deprovision("i").await;
    eventually("the end of the copy", || async {
        (!copy.join(MANIFEST).exists()).then_some(())
    })
    .await;
}

/// Bucket and prefix are called the same at both.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_mirrored_at_another_provider() {
    let authority = Authority::new();
    authority.give_out(1);
    let tls = Some((authority.file("server.crt"), authority.file("server.key")));
    let other = Wanted { tls, data: None };
    let (Some(here), Some(there)) = (Server::own(Wanted::default()), Server::own(other)) else {
        return;
    };
    let (keys, ca) = (authority.file("credentials"), authority.file("ca.crt"));
    here.write_credentials(&keys);
    let store = format!("s3://{}", here.address());
    let mirror = format!(
        "s3://{}?endpoint={}&ca={}&patience=1",
        there.address(),
        there.endpoint(),
        ca.display()
    );
    let keys = keys.display().to_string();
    let flags = [
        ["--backup-store", &store],
        ["--backup-mirror", &mirror],
        ["--s3-endpoint", here.endpoint()],
        ["--s3-credentials-file", &keys],
    ];
    let clock = TestClock::default();
    let surroundings = Script::default().surroundings_at(&clock);
    let database = Database::in_memory();
    let broker = database.broker(flags.as_flattened(), surroundings).await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "app").await;
    broker.database.fill(&credentials, 20, "v").await;
    let backup = broker.back_up(&credentials).await;
    assert_eq!(backup["status"], "complete", "{backup}");
    eventually("a copy at the other provider", || async {
        let told = answer(broker.compose(Method::GET, &credentials, &path_of(&backup))).await;
        told.body["mirrored_at"].is_string().then_some(())
    })
    .await;
    let [first, second] = [&here, &there].map(|server| {
        let store = server.bucket_folder().expect("the test's own");
        folder_of(&store.join("of/a-broker"), &backup)
    });
    for name in [OBJECT, MANIFEST] {
        let [first, second] = [&first, &second].map(|of| fs::read(of.join(name)).expect("a file"));
        assert!(first == second, "{name}");
    }
    // What is gone from the one comes back from the other.
    fs::remove_file(first.join(OBJECT)).expect("gone");
    let source = json!({ "source_service_instance_id": "i", "backup_id": backup["id"] });
    broker.provision("copy", source).await;
    assert!(first.join(OBJECT).exists());
}

/// So many bytes that no compression makes fewer.
fn random(bytes: usize) -> Vec<u8> {
    let ids = std::iter::repeat_with(|| *uuid::Uuid::new_v4().as_bytes());
    ids.flatten().take(bytes).collect()
}

/// Whether a part of an upload lies anywhere below a bucket.
fn has_uploads(bucket: &Path) -> bool {
    let uploads = bucket.join(".sgwtmp/multipart");
    let mut all = fs::read_dir(uploads).into_iter().flatten().flatten();
    all.next().is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_mirror_is_told_of_and_filled_when_there_is_room() {
    let disk = tempfile::tempdir().expect("a folder");
    let mount = |arguments: &[&str]| {
        let mut command = std::process::Command::new(arguments[0]);
        let done = command.args(&arguments[1..]).arg(disk.path()).status();
        done.is_ok_and(|status| status.success())
    };
    if !mount(&["mount", "-t", "tmpfs", "-o", "size=72m", "tmpfs"]) {
        crate::skipped::skipped(
            "a full mirror",
            "this machine lets nobody mount a small disk",
        );
        return;
    }
    let clock = TestClock::default();
    let address = format!("file://{}", disk.path().join("mirror").display());
    let flags = ["--backup-mirror", address.as_str()];
    let broker = Database::in_memory()
        .broker(&flags, Script::default().surroundings_at(&clock))
        .await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "app").await;
    broker.database.fill(&credentials, 20, "v").await;
    let filler = disk.path().join("filler");
    // The broker leaves so much free of any disk, and no less.
    fs::write(&filler, vec![7; 16_000_000]).expect("less room than it leaves free");
    let backup = broker.back_up(&credentials).await;
    assert_eq!(backup["status"], "complete", "{backup}");
    eventually("what is wrong", || async {
        let told = answer(broker.osb(Method::GET, "/operator/mirror")).await;
        let why = told.body["failure"].as_str().unwrap_or_default().to_owned();
        why.contains("the mirror is full").then_some(())
    })
    .await;
    fs::remove_file(&filler).expect("room");
    eventually("a copy in the mirror", || async {
        let told = answer(broker.compose(Method::GET, &credentials, &path_of(&backup))).await;
        told.body["mirrored_at"].is_string().then_some(())
    })
    .await;
    drop(broker);
    mount(&["umount", "-l"]);
}
