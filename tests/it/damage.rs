//! Backups that are no longer what was stored: nobody gets them for good ones.

use std::{fs, path::PathBuf};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{TestBroker, answer, instance_path, text},
    etcd,
    transport::description,
};

/// Where the bytes of a backup lie.
fn object(broker: &TestBroker, backup: &Value) -> PathBuf {
    let folder = format!("{}/{}", text(&backup["deployment_id"]), text(&backup["id"]));
    broker
        .data_dir()
        .join("backups")
        .join(folder)
        .join("snapshot.db.zst.sealed")
}

/// Follows the link to the end: the bytes, if all of them came.
async fn download(backup: &Value) -> Option<Vec<u8>> {
    let answer = reqwest::get(text(&backup["download_link"])).await.ok()?;
    if answer.status() != StatusCode::OK {
        return None;
    }
    answer.bytes().await.ok().map(|bytes| bytes.to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_backup_is_neither_restored_nor_downloaded() {
    let broker = TestBroker::start().await;
    broker.provision("source", json!({})).await;
    let credentials = broker.bind("source", "b").await;
    let first = broker.back_up(&credentials).await;
    let of_first = fs::read(object(&broker, &first)).expect("an object");
    etcd::fill(&mut etcd::connect(&credentials).await, 50, "v").await;
    let backup = broker.back_up(&credentials).await;
    let file = object(&broker, &backup);
    let good = fs::read(&file).expect("an object");
    assert!(download(&backup).await.is_some());

    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        Some(bytes)
    };
    let damages = [
        ("a flipped bit in the middle", flipped(good.len() / 2)),
        ("a flipped bit at the beginning", flipped(0)),
        ("a flipped bit at the end", flipped(good.len() - 1)),
        ("cut off", Some(good[..good.len() / 2].to_vec())),
        ("one byte short", Some(good[..good.len() - 1].to_vec())),
        ("empty", Some(Vec::new())),
        ("longer", Some([good.as_slice(), b"x"].concat())),
        ("twice", Some([good.as_slice(), &good].concat())),
        ("another backup's", Some(of_first)),
        ("deleted", None),
    ];
    let members = broker.members();
    for (damage, bytes) in damages {
        match bytes {
            Some(bytes) => fs::write(&file, bytes).expect("a file"),
            None => fs::remove_file(&file).expect("no file"),
        }
        assert!(download(&backup).await.is_none(), "{damage}");
        assert_not_restored(&broker, &backup, damage).await;
        assert_eq!(broker.members(), members, "{damage}");
    }
    fs::write(&file, good).expect("a file");
    assert!(download(&backup).await.is_some());
    let parameters = json!({ "source_service_instance_id": "source", "backup_id": backup["id"] });
    broker.provision("copy", parameters).await;
}

async fn assert_not_restored(broker: &TestBroker, backup: &Value, damage: &str) {
    let parameters = json!({ "source_service_instance_id": "source", "backup_id": backup["id"] });
    let accepted = broker.put_instance("copy", parameters.clone()).await;
    assert_eq!(
        accepted.status,
        StatusCode::ACCEPTED,
        "{damage}: {accepted:?}"
    );
    let end = broker.instance_end("copy", &accepted.body).await;
    assert_eq!(end["state"], "failed", "{damage}: {end}");
    let reason = text(&end["description"]);
    assert!(reason.contains(text(&backup["id"])), "{damage}: {reason}");
    assert!(
        !reason.contains('/'),
        "{damage} tells of the machine: {reason}"
    );
    let fetched = answer(broker.osb(Method::GET, &instance_path("copy"))).await;
    assert_eq!(fetched.status, StatusCode::NOT_FOUND, "{damage}");
    // The same request leads to the reason; another one is refused.
    let again = broker.put_instance("copy", parameters).await;
    assert_eq!(again.body["operation"], accepted.body["operation"]);
    let other = broker.put_instance("copy", json!({})).await;
    description(&other, StatusCode::CONFLICT);
    broker.deprovision("copy").await;
    let staged = |file: &String| file.contains("snapshot.db") && !file.starts_with("backups/");
    assert!(
        !broker.files().iter().any(staged),
        "{damage}: {:?}",
        broker.files()
    );
}
