//! Manifests that are believed only as they were written.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::StreamExt as _;
use serde_json::Value;

use super::*;
use crate::{
    backups::{
        BackupStoreError, ObjectName, Resealed, Vault,
        samples::{self, BACKUP, DEPLOYMENT, collect, collect_ours, noise, whole},
        signature::to_json,
        store::{BackupStore as _, layers::Layers, memory::MemoryStore},
    },
    model::{
        backup::StoredSnapshot,
        ids::{BackupId, DeploymentId},
    },
};

/// Nothing here is locked, so it does not matter.
const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;

fn identity(backup: &str) -> Identity {
    Identity {
        instance: "instance-1".parse().expect("an id"),
        deployment: DEPLOYMENT.parse().expect("an id"),
        backup: backup.parse().expect("an id"),
    }
}

fn deployment() -> DeploymentId {
    DEPLOYMENT.parse().expect("an id")
}

fn backup() -> BackupId {
    BACKUP.parse().expect("an id")
}

fn vault(store: &MemoryStore, ring: &[&str]) -> Vault {
    Vault::over(store.clone(), samples::ring(ring))
}

/// Stores a whole backup under a ring; returns what the broker's own store knows of it then.
async fn stored(store: &MemoryStore, ring: &[&str], of: &Identity, content: &Bytes) -> Manifest {
    let vault = vault(store, ring);
    let taken = vault.take_in(of, whole(content), |_| ()).await;
    let taken = taken.expect("stored");
    let manifest = Manifest {
        backup_id: of.backup.clone(),
        ..samples::manifest(taken.stored)
    };
    let credentials = samples::ring(ring).seal(&manifest.seal_context(), b"{}");
    let manifest = Manifest {
        sealed_credentials: Some(credentials.expect("sealed")),
        sealed_key: Some(taken.sealed_key),
        ..manifest
    };
    let under = vault.write_manifest(&manifest).await.expect("written");
    assert_eq!(under, ring[0]);
    manifest.bare()
}

async fn text(store: &MemoryStore, name: &ObjectName) -> Bytes {
    let content = store.get(name, 0).await.expect("an object");
    collect(content).await.expect("readable")
}

async fn replace(store: &MemoryStore, name: &ObjectName, text: impl Into<Bytes>) {
    store.replace(name, text.into()).await.expect("stored");
}

fn name_of(of: &Identity) -> ObjectName {
    ObjectName::manifest(&of.deployment, &of.backup)
}

async fn opens(vault: &Vault, known: &Manifest) -> Result<Bytes, BackupStoreError> {
    collect_ours(vault.open(known).await?).await
}

async fn assert_refused(vault: &Vault, known: &Manifest, how: &str) {
    let result = opens(vault, known).await;
    assert!(
        matches!(
            result,
            Err(BackupStoreError::Damaged { .. } | BackupStoreError::KeyMissing { .. })
        ),
        "{how}: {result:?}"
    );
}

#[tokio::test]
async fn every_flipped_bit_of_a_manifest_and_every_cut_is_refused() {
    let (store, of) = (MemoryStore::default(), identity(BACKUP));
    let known = stored(&store, &["k1"], &of, &noise(100)).await;
    let (vault, name) = (vault(&store, &["k1"]), name_of(&of));
    let good = text(&store, &name).await;
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.to_vec();
            bad[at] ^= 1 << bit;
            replace(&store, &name, bad).await;
            let read = vault.read_manifest(&of.deployment, &of.backup).await;
            assert!(read.is_err(), "bit {bit} of byte {at}: {read:?}");
        }
        replace(&store, &name, good.slice(..at)).await;
        let read = vault.read_manifest(&of.deployment, &of.backup).await;
        // The last byte ends the line.
        assert!(read.is_err() || at + 1 == good.len(), "cut to {at} bytes");
    }
    assert_refused(
        &vault,
        &Manifest {
            units: 2,
            ..known.clone()
        },
        "another in the store",
    )
    .await;
    replace(&store, &name, good).await;
    opens(&vault, &known).await.expect("whole again");
}

#[tokio::test]
async fn no_field_can_be_taken_out_or_put_in() {
    let (store, of) = (MemoryStore::default(), identity(BACKUP));
    stored(&store, &["k1"], &of, &noise(100)).await;
    let (vault, name) = (vault(&store, &["k1"]), name_of(&of));
    let good: Value = serde_json::from_slice(&text(&store, &name).await).expect("JSON");
    let fields: Vec<String> = good.as_object().expect("fields").keys().cloned().collect();
    assert!(fields.len() > 15, "{fields:?}");
    for field in fields {
        let mut bad = good.clone();
        bad.as_object_mut().expect("fields").remove(&field);
        replace(&store, &name, bad.to_string()).await;
        let read = vault.read_manifest(&of.deployment, &of.backup).await;
        assert!(read.is_err(), "without {field}");
    }
    let mut more = good.clone();
    more["of_a_later_version"] = true.into();
    replace(&store, &name, more.to_string()).await;
    let read = vault.read_manifest(&of.deployment, &of.backup).await;
    assert!(read.is_err(), "with one more field");
    // Order and spaces say nothing.
    replace(&store, &name, good.to_string()).await;
    let read = vault.read_manifest(&of.deployment, &of.backup).await;
    read.expect("the same manifest");
}

#[tokio::test]
async fn a_field_that_a_later_version_adds_is_signed_and_passed_over() {
    let keys = samples::ring(&["k1"]);
    let (store, of) = (MemoryStore::default(), identity(BACKUP));
    stored(&store, &["k1"], &of, &noise(100)).await;
    let (vault, name) = (vault(&store, &["k1"]), name_of(&of));
    let mut told: Value = serde_json::from_slice(&text(&store, &name).await).expect("JSON");
    told["of_a_later_version"] = serde_json::json!({ "b": [1, {}], "a": "\"é\n" });
    let signed = signed_text::<Manifest>(told.to_string().as_bytes()).expect("JSON");
    let signature = keys.sign_named(Manifest::PURPOSE, &signed);
    told["signature"] = signature.into();
    replace(&store, &name, told.to_string()).await;
    let read = vault.read_manifest(&of.deployment, &of.backup).await;
    read.expect("a manifest of a later version");
}

/// Signatures outlive the broker that made them: what is signed must stay the same text.
#[test]
fn the_signed_text_has_one_form() {
    let told = serde_json::json!({
        "signature": "s", "sealed_key": "k", "sealed_credentials": "c",
        "b": [1, null, true, { "y": -2, "x": "\"\\é\u{1}" }], "a": {},
    });
    assert_eq!(
        signed_text::<Manifest>(told.to_string().as_bytes()).expect("JSON"),
        r#"{"a":{},"b":[1,null,true,{"x":"\"\\é\u0001","y":-2}]}"#
    );
}

#[tokio::test]
async fn two_backups_that_were_swapped_are_refused() {
    let store = MemoryStore::default();
    let (one, two) = (identity(BACKUP), identity(&"0".repeat(24)));
    let mut known = Vec::new();
    for of in [&one, &two] {
        known.push(stored(&store, &["k1"], of, &noise(100)).await);
    }
    let vault = vault(&store, &["k1"]);
    let snapshot = |of: &Identity| ObjectName::snapshot(&of.deployment, &of.backup);
    let names = [
        [snapshot(&one), snapshot(&two)],
        [name_of(&one), name_of(&two)],
    ];
    // The objects, then the manifests too, then the manifests alone.
    for [first, second] in [&names[0], &names[1], &names[0]] {
        let (a, b) = (text(&store, first).await, text(&store, second).await);
        assert_ne!(a, b);
        replace(&store, first, b).await;
        replace(&store, second, a).await;
        for known in &known {
            assert_refused(&vault, known, "swapped").await;
        }
    }
    let [first, second] = &names[1];
    let (a, b) = (text(&store, first).await, text(&store, second).await);
    replace(&store, first, b).await;
    replace(&store, second, a).await;
    for known in &known {
        opens(&vault, known).await.expect("as it was");
    }
}

#[tokio::test]
async fn an_older_manifest_that_was_put_back_is_refused() {
    let (store, of) = (MemoryStore::default(), identity(BACKUP));
    let (name, snapshot) = (
        name_of(&of),
        ObjectName::snapshot(&of.deployment, &of.backup),
    );
    let before = stored(&store, &["k1"], &of, &noise(100)).await;
    let older = [text(&store, &name).await, text(&store, &snapshot).await];
    let known = stored(&store, &["k1"], &of, &noise(101)).await;
    assert_ne!(before, known);
    let vault = vault(&store, &["k1"]);
    let newer = text(&store, &snapshot).await;
    replace(&store, &name, older[0].clone()).await;
    assert_refused(&vault, &known, "the manifest alone").await;
    replace(&store, &snapshot, older[1].clone()).await;
    let told = opens(&vault, &known).await.expect_err("both").to_string();
    assert!(told.contains("not the one that the broker wrote"), "{told}");
    replace(&store, &snapshot, newer).await;
}

#[tokio::test]
async fn what_another_ring_sealed_is_refused_and_the_key_is_named() {
    let (store, of) = (MemoryStore::default(), identity(BACKUP));
    let known = stored(&store, &["old"], &of, &noise(100)).await;
    let told = opens(&vault(&store, &["new"]), &known)
        .await
        .expect_err("lacks it");
    assert!(
        matches!(&told, BackupStoreError::KeyMissing { key, .. } if key == "old"),
        "{told:?}"
    );
    assert!(
        told.to_string()
            .contains("under key old, which is not in the key ring"),
        "{told}"
    );
    // Another key of the same name.
    let foreign = format!("old:{}", "A".repeat(43) + "=");
    let foreign = KeyRing::parse(&foreign).expect("a ring");
    let foreign = Vault::over(store.clone(), foreign.into());
    assert_refused(&foreign, &known, "a foreign key").await;
    opens(&vault(&store, &["new", "old"]), &known)
        .await
        .expect("both");
}

#[tokio::test]
async fn a_manifest_is_sealed_anew_and_its_object_stays() {
    let (store, of) = (MemoryStore::default(), identity(BACKUP));
    let content = noise(100_000);
    let known = stored(&store, &["old"], &of, &content).await;
    let snapshot = ObjectName::snapshot(&of.deployment, &of.backup);
    let object = text(&store, &snapshot).await;
    let both = vault(&store, &["new", "old"]);
    let reseal = || both.reseal(&of.deployment, &of.backup, NOW);
    assert_eq!(reseal().await.expect("sealed"), Resealed::Renewed);
    let told = text(&store, &name_of(&of)).await;
    assert!(
        !String::from_utf8_lossy(&told).contains("\"old:"),
        "nothing needs the old key"
    );
    assert_eq!(reseal().await.expect("looked"), Resealed::Unchanged);
    assert_eq!(text(&store, &name_of(&of)).await, told);
    assert_eq!(text(&store, &snapshot).await, object);
    let new = vault(&store, &["new"]);
    assert_eq!(opens(&new, &known).await.expect("opens"), content);
    // Without the old key nothing is made anew that it alone opens.
    stored(&store, &["old"], &of, &content).await;
    let refused = new.reseal(&of.deployment, &of.backup, NOW).await;
    assert!(matches!(refused, Err(BackupStoreError::KeyMissing { key, .. }) if key == "old"));
    new.remove(&of.deployment, &of.backup)
        .await
        .expect("deleted without a key");
    assert_eq!(reseal().await.expect("looked"), Resealed::Gone);
}

#[tokio::test]
async fn a_manifest_is_sealed_anew_wherever_it_lies_and_nowhere_else() {
    let (front, behind) = (MemoryStore::default(), MemoryStore::default());
    let (of, name) = (identity(BACKUP), name_of(&identity(BACKUP)));
    let known = stored(&behind, &["old"], &of, &noise(100)).await;
    let layers = |ring: &[&str]| {
        let layers = Layers::of(
            std::sync::Arc::new(front.clone()),
            vec![std::sync::Arc::new(behind.clone())],
        );
        Vault::over(layers, samples::ring(ring))
    };
    let both = layers(&["new", "old"]);
    both.reseal(&of.deployment, &of.backup, NOW)
        .await
        .expect("sealed");
    assert!(matches!(
        front.get(&name, 0).await,
        Err(BackupStoreError::NotFound(_))
    ));
    opens(&layers(&["new"]), &known)
        .await
        .expect("opens behind");
    // Copied, it lies in both.
    let stale = stored(&behind, &["old"], &of, &noise(100)).await;
    for name in [&name, &ObjectName::snapshot(&of.deployment, &of.backup)] {
        replace(&front, name, text(&behind, name).await).await;
    }
    both.reseal(&of.deployment, &of.backup, NOW)
        .await
        .expect("sealed");
    for store in [&front, &behind] {
        opens(&vault(store, &["new"]), &stale).await.expect("opens");
    }
}

#[tokio::test]
async fn what_breaks_off_in_front_is_sealed_anew_behind_and_not_taken_for_done() {
    let behind = MemoryStore::default();
    let (of, name) = (identity(BACKUP), name_of(&identity(BACKUP)));
    let snapshot = ObjectName::snapshot(&of.deployment, &of.backup);
    let known = stored(&behind, &["old"], &of, &noise(100)).await;
    let copies = [text(&behind, &name).await, text(&behind, &snapshot).await];
    // It has room for the copy, and for nothing more.
    let front = MemoryStore::of_size(copies.iter().map(|copy| copy.len() as u64).sum());
    for (name, copy) in [&name, &snapshot].into_iter().zip(copies) {
        replace(&front, name, copy).await;
    }
    let layers = Layers::of(
        std::sync::Arc::new(front.clone()),
        vec![std::sync::Arc::new(behind.clone())],
    );
    let both = Vault::over(layers, samples::ring(&["new", "old"]));
    for _ in 0..2 {
        let resealed = both.reseal(&of.deployment, &of.backup, NOW).await;
        assert!(matches!(resealed, Err(BackupStoreError::Full { .. })));
        opens(&both, &known).await.expect("under the old key");
        opens(&vault(&behind, &["new"]), &known)
            .await
            .expect("under the new key");
    }
}

#[tokio::test]
async fn manifests_of_earlier_versions_are_believed_and_their_credentials_sealed_anew() {
    let (store, of) = (MemoryStore::default(), identity(BACKUP));
    let clear = StoredSnapshot {
        snapshot_bytes: 1,
        snapshot_sha256: "ab".repeat(32),
        object_bytes: 1,
        object_sha256: "cd".repeat(32),
        compression: "zstd".into(),
        sealing: None,
    };
    let manifest = samples::manifest(clear);
    let credentials = samples::ring(&["old"]).seal(&manifest.seal_context(), b"{}");
    let manifest = Manifest {
        sealed_credentials: Some(credentials.expect("sealed")),
        ..manifest
    };
    replace(&store, &name_of(&of), to_json(&manifest)).await;
    let gone = vault(&store, &["new"]);
    let read = gone.read_manifest(&deployment(), &backup()).await;
    assert_eq!(read.expect("needs no key"), manifest);
    let looked = gone.reseal(&deployment(), &backup(), NOW).await;
    assert_eq!(looked.expect("looked"), Resealed::CredentialsLost);
    let looked = vault(&store, &["new", "old"])
        .reseal(&deployment(), &backup(), NOW)
        .await;
    assert_eq!(looked.expect("sealed"), Resealed::Renewed);
    let read = gone
        .read_manifest(&deployment(), &backup())
        .await
        .expect("read");
    assert_eq!(read.bare(), manifest.bare());
    let sealed = read.sealed_credentials.expect("credentials");
    assert!(sealed.starts_with("new:"), "{sealed}");
}

#[tokio::test]
async fn what_is_shown_of_a_manifest_is_signed_and_has_nothing_sealed() {
    let keys = samples::ring(&["k1"]);
    let (store, of) = (MemoryStore::default(), identity(BACKUP));
    let known = stored(&store, &["k1"], &of, &noise(100)).await;
    let told = shown(&known, &keys);
    assert_eq!(told.bare(), known);
    assert_eq!(
        (told.sealed_key.clone(), told.sealed_credentials.clone()),
        (None, None)
    );
    let text = to_json(&told);
    check_signature(&text, &told, &keys).expect("signed");
    let foreign = samples::ring(&["k2"]);
    assert!(check_signature(&text, &told, &foreign).is_err());
}

#[tokio::test]
async fn a_manifest_that_is_deleted_meanwhile_is_not_written_back() {
    let (store, of) = (MemoryStore::default(), identity(BACKUP));
    for _ in 0..50 {
        stored(&store, &["old"], &of, &noise(10)).await;
        let both = vault(&store, &["new", "old"]);
        let (resealing, deleting) = (both.clone(), both.clone());
        let (one, two) = (of.clone(), of.clone());
        let resealed =
            tokio::spawn(async move { resealing.reseal(&one.deployment, &one.backup, NOW).await });
        let deleted =
            tokio::spawn(async move { deleting.remove(&two.deployment, &two.backup).await });
        resealed.await.expect("an end").expect("looked");
        deleted.await.expect("an end").expect("deleted");
        let left: Vec<_> = store.list("").collect().await;
        assert!(left.is_empty(), "{left:?}");
    }
}
