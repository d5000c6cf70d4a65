//! The client at work with a real broker.

use std::{fs, os::unix::fs::MetadataExt as _, process::Command};

use chrono::TimeDelta;
use reqwest::Method;
use rustix::process::Signal;
use serde_json::json;

use crate::{
    broker::{TestBroker, answer, text},
    control::ahead,
    etcd, health,
    user::User,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_a_platform_has_the_whole_story() {
    let broker = TestBroker::start().await;
    let user = User::of_broker(&broker);

    let offered = user.does(&["marketplace"]).await.out;
    assert!(
        offered.contains("compose-for-etcd   Standard     paid    3.7.3"),
        "{offered}"
    );

    // An instance and a key to it.
    let create = [
        "create-service",
        "compose-for-etcd",
        "Standard",
        "old",
        "--wait",
    ];
    let made = user
        .asks(&[&create, &["-c", r#"{"db_version": "3.4.23"}"#][..]].concat())
        .await;
    let old = text(&made["id"]).to_owned();
    let dashboard = format!("{}/dashboard/instances/{old}", broker.url);
    let expected = json!({
        "name": "old", "id": old, "offering": "compose-for-etcd", "plan": "Standard", "keys": [],
        "tags": [],
        "dashboard_url": dashboard,
        "last_operation": {
            "type": "create", "state": "succeeded",
            "description": "All operations have completed successfully",
        },
    });
    assert_eq!(made, expected);
    user.does(&["create-service-key", "old", "app", "--wait"])
        .await;
    let key = user.asks(&["service-key", "old", "app"]).await;
    let credentials = &key["credentials"];
    // To people, the credentials alone.
    assert_eq!(
        user.does(&["service-key", "old", "app"]).await.json(),
        *credentials
    );
    let mut source = etcd::connect(credentials).await;
    etcd::fill(&mut source, 20, "v").await;

    // A backup, which becomes a file once.
    assert_eq!(
        user.asks(&["backups", "old"]).await,
        json!({ "backups": [] })
    );
    let none = user.does(&["backups", "old"]).await.out;
    assert_eq!(none, "No backups yet.\n");
    let latest = user.run(&["download-backup", "old", "latest"]).await;
    latest.must_say(1, "old has no complete backup for latest");
    let backup = user.asks(&["create-backup", "old", "--wait"]).await;
    assert_eq!(
        (&backup["status"], &backup["keys"]),
        (&json!("complete"), &json!(20))
    );
    let id = text(&backup["id"]);
    let listed = user.does(&["backups", "old"]).await.out;
    // By the clock of the client's machine, which the broker's may be far ahead of.
    let when = if ahead() > TimeDelta::zero() {
        "from now)"
    } else {
        "ago)"
    };
    assert!(listed.contains(id) && listed.contains(when), "{listed}");
    // It goes by no clock.
    assert!(listed.trim_end().ends_with("after 1 more"), "{listed}");
    source
        .put("after the backup", "x", None)
        .await
        .expect("a put");
    let file = user.folder().join("backup.tar.gz");
    let download = ["download-backup", "old", id, "--to", "backup.tar.gz"];
    let done = user.asks(&download).await;
    assert_eq!(done["bytes"], fs::metadata(&file).expect("a file").len());
    assert_eq!(done["sha256"], backup["sha256"]);
    for latest in ["latest", "latest:on_demand"] {
        let again = [
            "download-backup",
            "old",
            latest,
            "--to",
            "latest.tar.gz",
            "--force",
        ];
        assert_eq!(user.asks(&again).await["backup_id"], backup["id"]);
    }
    let other = user
        .run(&["download-backup", "old", "latest:monthly"])
        .await;
    other.must_say(1, "old has no complete backup for latest:monthly");
    let tar = Command::new("tar")
        .arg("tzf")
        .arg(&file)
        .output()
        .expect("tar");
    assert_eq!(tar.stdout, b"snapshot.db\nmanifest.json\n");
    fs::write(&file, "mine").expect("a file");
    user.run(&download).await.must_say(1, "is there already");
    assert_eq!(fs::read(&file).expect("a file"), b"mine");
    user.does(&[&download[..], &["--force"]].concat()).await;
    assert_ne!(fs::read(&file).expect("a file"), b"mine");

    // Restored into a newer version, upgraded, and larger.
    let restore = [
        "restore-backup",
        "old",
        id,
        "new",
        "--db-version",
        "3.6.16",
        "--wait",
    ];
    user.does(&restore).await;
    let shown = user.does(&["service", "new"]).await.out;
    assert!(
        shown.contains("upgrade to:       3.7.3 (upgrade-service)"),
        "{shown}"
    );
    // The file is as good a backup of another instance; its manifest tells of which version it is.
    let import = ["import-backup", "new", "backup.tar.gz"];
    let import = [&import[..], &["--note", "moved", "--wait"]].concat();
    let imported = user.asks(&import).await;
    for (field, expected) in [
        ("type", json!("imported")),
        ("status", json!("complete")),
        ("version", json!("3.4.23")),
        ("sha256", backup["sha256"].clone()),
        ("note", json!("moved")),
    ] {
        assert_eq!(imported[field], expected, "{field}");
    }
    let packed = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0];
    fs::write(&file, packed).expect("a file");
    user.run(&import).await.must_say(1, "unpack it first");
    fs::write(&file, "no snapshot").expect("a file");
    let refused = user.run(&import).await;
    refused.must_say(1, "it does not begin as a database of etcd does");
    let versions = user.does(&["versions", "old"]).await.out;
    assert!(
        versions.starts_with("old runs 3.4.23\n\nKNOWN FAULT"),
        "{versions}"
    );
    for row in [
        &["CVE-2026-33343", "Lets", "strangers", "in", "3.4.42"][..],
        &["3.5.35", "upgrade-service", "etcd#22386,"],
        &["3.7.3", "restore-backup", "none"],
    ] {
        let mut rows = versions.lines().map(|line| line.split_whitespace());
        assert!(
            rows.any(|told| told.take(row.len()).eq(row.iter().copied())),
            "{row:?} of {versions}"
        );
    }
    let rehearse = ["upgrade-service", "new", "--dry-run"];
    let told = user.does(&rehearse).await.out;
    assert!(told.contains("steps:     3.7.3"), "{told}");
    let refused = user
        .run(&[&rehearse[..], &["--db-version", "3.4.23"]].concat())
        .await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused
            .out
            .contains("refused:   db_version 3.4.23 is older"),
        "{refused:?}"
    );
    assert!(
        refused.err.contains("would not be upgraded to 3.4.23 now"),
        "{refused:?}"
    );
    let shown = user.asks(&["service", "new"]).await;
    assert_eq!(shown["version"], "3.6.16", "nothing was changed");
    user.does(&["upgrade-service", "new", "--wait"]).await;
    let upgraded = user.asks(&["service", "new"]).await;
    assert_eq!(
        (&upgraded["version"], &upgraded["upgrade"]),
        (&json!("3.7.3"), &json!(null))
    );
    let again = user.does(&["upgrade-service", "new", "--wait"]).await;
    assert!(again.err.contains("has version 3.7.3 already"), "{again:?}");
    user.does(&["create-service-key", "new", "app", "--wait"])
        .await;
    let key = user.asks(&["service-key", "new", "app"]).await;
    let mut restored = etcd::connect(&key["credentials"]).await;
    let keys = etcd::dump(&mut restored).await;
    assert_eq!(keys.len(), 20);
    let room = ["make-room", "new", "--delete-prefix", "key-001", "--wait"];
    assert_eq!(user.asks(&room).await["status"], "complete");
    assert_eq!(
        etcd::dump(&mut etcd::connect(&key["credentials"]).await)
            .await
            .len(),
        10
    );
    assert_eq!(keys[7], ("key-0007".to_owned(), "v-7".to_owned()));

    // Refusals are the broker's own, and leave nothing.
    let refused = user
        .run(&["update-service", "new", "-c", r#"{"units": 99}"#])
        .await;
    refused.must_say(1, "the broker refuses (400)");
    let refused = user.run(&["restore-backup", "old", "nope", "other"]).await;
    refused.must_say(1, "has no backup \"nope\"");
    assert_eq!(user.services().await, ["new", "old"]);

    // What is kept is the owner's, and no secret.
    let book = fs::read_to_string(user.book()).expect("a book");
    for secret in [
        etcd::password(credentials),
        text(&credentials["instance_administration_api"]["token"]).to_owned(),
    ] {
        assert!(!book.contains(&secret), "{book}");
    }
    assert!(!book.contains(broker.platform().1), "{book}");
    assert_eq!(
        fs::metadata(user.book()).expect("a book").mode() & 0o777,
        0o600
    );

    // Without the book, an id is enough to go on.
    let other = User::of_broker(&broker);
    other
        .run(&["service", "found"])
        .await
        .must_say(1, "No service instance 'found' for ");
    other.does(&["service", "found", "--id", &old]).await;
    assert_eq!(
        other.asks(&["backups", "found"]).await["backups"][0]["id"],
        id
    );
    // No key was needed for the question.
    assert_eq!(
        other.asks(&["service-keys", "found"]).await,
        json!({ "keys": [] })
    );
    let foreign = ["service-key", "found", "x", "--id", text(&key["id"])];
    other
        .run(&foreign)
        .await
        .must_say(1, "knows no service key x");

    user.does(&["delete-service-key", "new", "app", "--force", "--wait"])
        .await;
    assert!(etcd::connect_to(&key["credentials"], "uri").await.is_err());
    user.run(&["delete-service", "old"])
        .await
        .must_say(2, "--force");
    for name in ["old", "new"] {
        user.does(&["delete-service", name, "--force", "--wait"])
            .await;
    }
    assert_eq!(user.services().await, Vec::<String>::new());
    // To others it is gone as well, and they may forget it.
    let gone = other.does(&["service", "found"]).await.out;
    assert!(gone.contains("knows no such instance"), "{gone}");
    other.does(&["delete-service", "found", "--force"]).await;
    assert_eq!(other.services().await, Vec::<String>::new());
    assert_eq!(broker.members(), Vec::<i32>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protected_instance_keeps_its_keys_when_it_is_to_be_deleted() {
    let broker = TestBroker::start().await;
    let user = User::of_broker(&broker);
    let key = user.makes_database().await;
    let protect = |on: bool| format!(r#"{{"delete_protection": {on}}}"#);
    user.does(&["update-service", "db", "-c", &protect(true)])
        .await;
    let delete = ["delete-service", "db", "--force", "--wait"];
    user.run(&delete)
        .await
        .must_say(1, "nothing was deleted. To lift that: compose-broker update-service db -c '{\"delete_protection\": false}'");
    assert_eq!(user.does(&["service-key", "db", "app"]).await.json(), key);
    etcd::connect(&key)
        .await
        .put("k", "v", None)
        .await
        .expect("a put");
    // Where nobody can be asked, it takes a word: a platform's deletion may be waiting for this.
    let lift = protect(false);
    let lift = ["update-service", "db", "-c", lift.as_str()];
    user.run(&lift).await.must_say(2, "goes on asking for");
    user.run(&delete).await.must_say(1, "nothing was deleted");
    user.does(&[&lift[..], &["--force"]].concat()).await;
    user.does(&delete).await;
    assert!(user.services().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_down_is_had_again_from_its_backups() {
    let broker = TestBroker::start().await;
    let user = User::of_broker(&broker);
    let key = user.makes_database().await;
    etcd::fill(&mut etcd::connect(&key).await, 7, "v").await;
    user.does(&["delete-service-key", "db", "app", "--force", "--wait"])
        .await;
    let backup = user.asks(&["create-backup", "db", "--wait"]).await;
    let id = text(&backup["id"]);
    let members = broker.members();
    health::signal(&members, Signal::STOP);

    let listed = user.asks(&["backups", "db"]).await;
    assert_eq!(listed["backups"][0]["id"], id);
    let got = user.asks(&["download-backup", "db", id]).await;
    assert_eq!(got["sha256"], backup["sha256"]);
    // Nobody waits for what cannot be had now.
    let instance = user.asks(&["service", "db"]).await;
    health::becomes(&broker, text(&instance["id"]), "down").await;
    let begun = user.does(&["create-backup", "db", "-o", "json"]).await;
    assert!(
        begun
            .err
            .contains("db is down: the backup waits until enough members serve"),
        "{begun:?}"
    );
    assert_ne!(begun.json()["id"], id);
    let shown = user.does(&["service", "db"]).await;
    let restore = format!("compose-broker restore-backup db {id} NEW_NAME");
    assert!(shown.out.contains(&restore), "{shown:?}");
    let recover = format!(
        "compose-broker recover {} --from survivor",
        text(&instance["id"])
    );
    assert!(shown.err.contains(&recover), "{shown:?}");
    let late = user.does(&["create-service-key", "db", "late"]).await;
    let waits = "db is down: the key waits until enough members serve";
    assert!(late.err.contains(waits), "{late:?}");
    (user.run(&["service-key", "db", "late"]).await).must_say(
        1,
        "the service key late of db is not made yet (create in progress",
    );
    let restored = user
        .does(&["restore-backup", "db", id, "again", "--wait"])
        .await;
    assert!(restored.err.contains(" of data. "), "{restored:?}");
    user.does(&["create-service-key", "again", "app", "-w"])
        .await;
    let key = user.does(&["service-key", "again", "app"]).await.json();
    let keys = etcd::dump(&mut etcd::connect(&key).await).await;
    assert_eq!(keys.len(), 7);
    // No key was made but those that its user made.
    let path = "/operator/audit?limit=200";
    let audit = answer(broker.osb(Method::GET, path)).await.body;
    let entries = audit["entries"].as_array().expect("entries");
    let binds = entries.iter().filter(|entry| entry["action"] == "bind");
    assert_eq!(binds.count(), 3, "{audit:#}");
    health::signal(&members, Signal::CONT);
}
