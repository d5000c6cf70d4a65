//! The vault over a store in memory, and over stores that fail.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use proptest::prelude::*;
use ring::digest::{SHA256, digest};

use super::{
    samples::{self, BACKUP, DEPLOYMENT, broken, collect, collect_ours, noise, whole},
    store::{NameStream, memory::MemoryStore},
    *,
};
use crate::seal::hex;

fn deployment() -> DeploymentId {
    DEPLOYMENT.parse().expect("an id")
}

fn backup() -> BackupId {
    BACKUP.parse().expect("an id")
}

/// The name of the snapshot that these tests store.
fn snapshot_name() -> ObjectName {
    ObjectName::snapshot(&deployment(), &backup())
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

/// A vault, and the store below it.
fn vault() -> (Vault, MemoryStore) {
    let store = MemoryStore::default();
    (Vault::over(store.clone(), samples::ring(&["k1"])), store)
}

fn identity() -> Identity {
    Identity {
        instance: "instance-1".parse().expect("an id"),
        deployment: deployment(),
        backup: backup(),
    }
}

/// A snapshot that was stored.
#[derive(Debug, Clone)]
struct Stored {
    stored: StoredSnapshot,
    /// None where it is clear.
    sealed_key: Option<String>,
}

impl Stored {
    fn name(&self) -> ObjectName {
        ObjectName::snapshot_of(&samples::manifest(self.stored.clone()))
    }

    /// The manifest that is written beside it.
    fn manifest(&self) -> Manifest {
        let manifest = samples::manifest(self.stored.clone());
        let context = manifest.seal_context();
        let credentials = samples::ring(&["k1"]).seal(&context, b"{}");
        Manifest {
            locked_until: None,
            register: None,
            sealed_credentials: Some(credentials.expect("sealed")),
            sealed_key: self.sealed_key.clone(),
            ..manifest
        }
    }
}

async fn take_in(vault: &Vault, content: ByteStream) -> Result<Stored, BackupStoreError> {
    let taken = vault.take_in(&identity(), content, |_| ()).await?;
    Ok(Stored {
        stored: taken.stored,
        sealed_key: Some(taken.sealed_key),
    })
}

/// Stores a snapshot as earlier versions did.
async fn take_in_clear(store: &MemoryStore, content: &Bytes) -> Stored {
    let object = collect(frame::compress(whole(content))).await;
    let object = object.expect("compressed");
    let stored = StoredSnapshot {
        snapshot_bytes: content.len() as u64,
        snapshot_sha256: sha256(content),
        object_bytes: object.len() as u64,
        object_sha256: sha256(&object),
        compression: "zstd".into(),
        sealing: None,
    };
    let stored = Stored {
        stored,
        sealed_key: None,
    };
    replace(store, &stored.name(), object).await;
    stored
}

async fn opened(vault: &Vault, expected: &Stored) -> Result<Bytes, BackupStoreError> {
    let key = expected.sealed_key.as_deref();
    let content = vault.open_taken(&identity(), &expected.stored, key).await?;
    collect_ours(content).await
}

/// A vault with one snapshot, and the bytes of its object.
async fn vault_with(content: &Bytes) -> (Vault, MemoryStore, Bytes, Stored) {
    let (vault, store) = vault();
    let expected = take_in(&vault, whole(content)).await.expect("stored");
    let object = object(&store, &snapshot_name()).await;
    (vault, store, object, expected)
}

/// The same as an earlier version left it.
async fn vault_with_clear(content: &Bytes) -> (Vault, MemoryStore, Bytes, Stored) {
    let (vault, store) = vault();
    let expected = take_in_clear(&store, content).await;
    let object = object(&store, &expected.name()).await;
    (vault, store, object, expected)
}

async fn object(store: &MemoryStore, name: &ObjectName) -> Bytes {
    let content = store.get(name, 0).await.expect("an object");
    collect(content).await.expect("readable")
}

/// Puts other bytes in the place of an object.
async fn replace(store: &MemoryStore, name: &ObjectName, bytes: impl Into<Bytes>) {
    store.put(name, whole(&bytes.into())).await.expect("stored");
}

async fn is_empty(store: &MemoryStore) -> bool {
    names(store).await.is_empty()
}

async fn names(store: &MemoryStore) -> Vec<String> {
    let names = store.list("").map_ok(|name| name.to_string());
    names.try_collect().await.expect("listed")
}

async fn assert_damaged(vault: &Vault, expected: &Stored, how: &str) {
    let (result, name) = (opened(vault, expected).await, expected.name());
    assert!(
        matches!(&result, Err(BackupStoreError::Damaged { object, .. }) if object == name.as_str()),
        "{how}: {result:?}"
    );
    let manifest = expected.manifest();
    vault.write_manifest(&manifest).await.expect("written");
    let result = vault.verify(&manifest).await;
    assert!(
        matches!(result, Err(BackupStoreError::Damaged { .. })),
        "{how}"
    );
}

/// Stores and reads back.
async fn round_trip(content: Bytes, sizes: Vec<usize>) {
    let (vault, store) = vault();
    let told = Arc::new(AtomicU64::new(0));
    let progress = {
        let told = told.clone();
        move |bytes| told.store(bytes, Ordering::Relaxed)
    };
    let source = samples::chunked(&content, &sizes);
    let taken = vault
        .take_in(&identity(), source, progress)
        .await
        .expect("stored");

    let object = object(&store, &snapshot_name()).await;
    let expected = StoredSnapshot {
        snapshot_bytes: content.len() as u64,
        snapshot_sha256: sha256(&content),
        object_bytes: object.len() as u64,
        object_sha256: sha256(&object),
        compression: "zstd".into(),
        sealing: Some("aes-256-gcm-stream-64k".into()),
    };
    assert_eq!(taken.stored, expected);
    assert_eq!(told.load(Ordering::Relaxed), content.len() as u64);

    let stored = Stored {
        stored: taken.stored,
        sealed_key: Some(taken.sealed_key),
    };
    assert_eq!(opened(&vault, &stored).await.expect("whole"), content);
    let manifest = stored.manifest();
    vault.write_manifest(&manifest).await.expect("written");
    vault.verify(&manifest).await.expect("whole");
    vault.verify_object(&manifest).await.expect("whole");
    let opened = vault.open(&manifest.bare()).await.expect("open");
    assert_eq!(collect_ours(opened).await.expect("whole"), content);
}

#[tokio::test]
async fn snapshots_of_every_length_come_back() {
    let odd = vec![1, 31, 32, 33, 4096, 65_537];
    for length in [0, 1, 31, 32, 33, 63, 64, 65, 512, 544, 20_512, 5_000_000] {
        round_trip(noise(length), odd.clone()).await;
    }
    round_trip(noise(3_000_000), vec![2_999_999]).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..Default::default() })]
    #[test]
    fn chunks_of_any_size_come_back(
        length in 0usize..20_000,
        sizes in proptest::collection::vec(1usize..3_000, 1..20),
    ) {
        tokio::runtime::Runtime::new()
            .expect("a runtime")
            .block_on(round_trip(noise(length), sizes));
    }
}

#[tokio::test]
async fn a_source_that_breaks_off_is_told_and_leaves_nothing() {
    let (vault, store) = vault();
    let result = take_in(&vault, broken(&noise(3_000_000))).await;
    assert!(
        matches!(&result, Err(BackupStoreError::BrokenSource(reason))
            if reason == "the member went away"),
        "{result:?}"
    );
    assert!(is_empty(&store).await);
}

#[tokio::test]
async fn every_flipped_bit_and_every_cut_is_noticed() {
    let content = noise(600);
    for (vault, store, good, expected) in
        [vault_with(&content).await, vault_with_clear(&content).await]
    {
        for at in 0..good.len() {
            let mut bad = good.to_vec();
            bad[at] ^= 1 << (at % 8);
            replace(&store, &expected.name(), bad).await;
            assert_damaged(&vault, &expected, &format!("bit flipped in byte {at}")).await;
            replace(&store, &expected.name(), good.slice(..at)).await;
            assert_damaged(&vault, &expected, &format!("cut to {at} bytes")).await;
        }
        replace(&store, &expected.name(), good).await;
        opened(&vault, &expected).await.expect("whole again");
    }
}

#[tokio::test]
async fn damage_in_a_large_object_is_noticed() {
    let (vault, store, good, expected) = vault_with(&noise(3_000_000)).await;
    for at in [0, 5, 70_000, good.len() / 2, good.len() - 1] {
        let mut bad = good.to_vec();
        bad[at] ^= 1;
        replace(&store, &snapshot_name(), bad).await;
        assert_damaged(&vault, &expected, &format!("bit flipped in byte {at}")).await;
        replace(&store, &snapshot_name(), good.slice(..at)).await;
        assert_damaged(&vault, &expected, &format!("cut to {at} bytes")).await;
    }
}

#[tokio::test]
async fn another_object_in_its_place_is_noticed() {
    let (vault, store, _, expected) = vault_with(&noise(100_000)).await;
    for (how, bad) in [
        ("nothing", Bytes::new()),
        ("garbage", noise(100_000)),
        (
            "garbage of the same length",
            noise(expected.stored.object_bytes as usize),
        ),
        ("zeros", Bytes::from(vec![0; 100_000])),
    ] {
        replace(&store, &snapshot_name(), bad).await;
        assert_damaged(&vault, &expected, how).await;
    }
    for length in [100_000 - 1, 100_000 + 1] {
        let other = take_in(&vault, whole(&noise(length))).await;
        other.expect("stored");
        assert_damaged(&vault, &expected, "another snapshot").await;
    }
}

#[tokio::test]
async fn a_snapshot_that_differs_in_a_whole_object_is_noticed() {
    let (vault, _, _, whole) = vault_with(&noise(100_000)).await;
    let with = |stored| Stored {
        stored,
        ..whole.clone()
    };
    let shorter = StoredSnapshot {
        snapshot_bytes: 100_001,
        ..whole.stored.clone()
    };
    assert_damaged(&vault, &with(shorter), "shorter than expected").await;
    let other = StoredSnapshot {
        snapshot_sha256: sha256(b"other"),
        ..whole.stored.clone()
    };
    assert_damaged(&vault, &with(other), "other bytes than expected").await;
}

/// zstd itself passes over or unpacks more than one frame, or ignores what follows the first.
#[tokio::test]
async fn anything_after_the_frame_is_noticed() {
    let (vault, store, good, expected) = vault_with_clear(&noise(100_000)).await;
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 7];
    let empty_frame = [0x28, 0xb5, 0x2f, 0xfd, 0x20, 0, 1, 0, 0];
    for (how, more) in [
        ("a byte", &[0][..]),
        ("garbage", &noise(1_000_000)),
        ("the same again", &good),
        ("a frame to skip", &skippable),
        ("an empty frame", &empty_frame),
    ] {
        let bad = Bytes::from([&good, more].concat());
        replace(&store, &expected.name(), bad.clone()).await;
        assert_damaged(&vault, &expected, how).await;
        // Even when a manifest says that the object is so: it is not what we make.
        let forged = StoredSnapshot {
            object_bytes: bad.len() as u64,
            object_sha256: sha256(&bad),
            ..expected.stored.clone()
        };
        let forged = Stored {
            stored: forged,
            sealed_key: None,
        };
        assert_damaged(&vault, &forged, how).await;
    }
}

#[tokio::test]
async fn a_bomb_is_stopped_at_the_expected_length() {
    let zeros = Bytes::from(vec![0; 20_000_000]);
    for (vault, _, _, bomb) in [vault_with(&zeros).await, vault_with_clear(&zeros).await] {
        let expected = Stored {
            stored: StoredSnapshot {
                snapshot_bytes: 100_000,
                ..bomb.stored
            },
            sealed_key: bomb.sealed_key,
        };
        assert_damaged(&vault, &expected, "a bomb").await;
        let content = vault.open(&expected.manifest()).await.expect("open");
        let handed_out: usize = content
            .map(|chunk| chunk.map_or(0, |chunk| chunk.len()))
            .collect::<Vec<_>>()
            .await
            .iter()
            .sum();
        assert!(handed_out <= 100_000, "{handed_out}");
    }
}

#[tokio::test]
async fn an_object_that_claims_much_memory_is_refused() {
    let (vault, store, _, empty) = vault_with_clear(&Bytes::new()).await;
    let claims_2_gib = [0x28, 0xb5, 0x2f, 0xfd, 0, 0xa8, 1, 0, 0];
    replace(&store, &empty.name(), claims_2_gib.to_vec()).await;
    let expected = Stored {
        stored: StoredSnapshot {
            object_bytes: claims_2_gib.len() as u64,
            object_sha256: sha256(&claims_2_gib),
            ..empty.stored
        },
        sealed_key: None,
    };
    assert_damaged(&vault, &expected, "a window of 2 GiB").await;
}

#[tokio::test]
async fn what_is_packed_or_sealed_in_an_unknown_way_is_refused() {
    let (vault, _, _, whole) = vault_with(&noise(10)).await;
    let packed = StoredSnapshot {
        compression: "lzma".into(),
        ..whole.stored.clone()
    };
    let sealed = StoredSnapshot {
        sealing: Some("rot13".into()),
        ..whole.stored.clone()
    };
    for stored in [packed, sealed] {
        let expected = Stored {
            stored,
            ..whole.clone()
        };
        assert_damaged(&vault, &expected, "unknown").await;
    }
    let keyless = Stored {
        sealed_key: None,
        ..whole
    };
    let result = opened(&vault, &keyless).await;
    assert!(matches!(result, Err(BackupStoreError::Damaged { .. })));
}

#[tokio::test]
async fn an_object_that_is_gone_is_not_found() {
    let (vault, store, _, stored) = vault_with(&noise(10)).await;
    let manifest = stored.manifest();
    vault.write_manifest(&manifest).await.expect("written");
    store.delete(&snapshot_name()).await.expect("deleted");
    let result = vault.verify(&manifest).await;
    let name = snapshot_name().to_string();
    assert!(matches!(result, Err(BackupStoreError::NotFound(missing)) if missing == name));
}

/// A store whose disk fails while it is read, and which forgets what it is given.
struct FailingStore;

#[async_trait]
impl BackupStore for FailingStore {
    async fn check(&self) -> Result<(), BackupStoreError> {
        Ok(())
    }
    async fn put(&self, _: &ObjectName, _: ByteStream) -> Result<u64, BackupStoreError> {
        Ok(0)
    }
    async fn get(&self, _: &ObjectName, _: u64) -> Result<ByteStream, BackupStoreError> {
        Ok(broken(&Bytes::new()))
    }
    async fn delete(&self, _: &ObjectName) -> Result<(), BackupStoreError> {
        Ok(())
    }
    fn list(&self, _: &str) -> NameStream {
        stream::empty().boxed()
    }
    async fn room_for(&self, _: u64) -> Result<(), BackupStoreError> {
        Ok(())
    }
    async fn sweep(&self, _: Duration) -> Result<u64, BackupStoreError> {
        Ok(0)
    }
}

#[tokio::test]
async fn a_failing_store_is_not_taken_for_damage() {
    let (_, _, _, stored) = vault_with(&noise(10)).await;
    let failing = Vault::over(FailingStore, samples::ring(&["k1"]));
    let result = opened(&failing, &stored).await;
    assert!(
        matches!(result, Err(BackupStoreError::Io { .. })),
        "{result:?}"
    );
}

#[tokio::test]
async fn a_store_that_did_not_take_all_is_noticed() {
    let failing = Vault::over(FailingStore, samples::ring(&["k1"]));
    let result = take_in(&failing, whole(&noise(10))).await;
    assert!(matches!(result, Err(BackupStoreError::Damaged { .. })));
}

/// A manifest of a sealed object that is not there.
fn manifest() -> Manifest {
    let sealed_key = ObjectKey::generate(&samples::ring(&["k1"]), &identity());
    let stored = Stored {
        stored: StoredSnapshot {
            snapshot_bytes: 20_512,
            snapshot_sha256: "ab".repeat(32),
            object_bytes: 9_000,
            object_sha256: "cd".repeat(32),
            compression: frame::COMPRESSION.into(),
            sealing: Some(cipher::SEALING.into()),
        },
        sealed_key: Some(sealed_key.expect("a key").1),
    };
    stored.manifest()
}

async fn manifest_read(vault: &Vault) -> Result<Manifest, BackupStoreError> {
    vault.read_manifest(&deployment(), &backup()).await
}

#[tokio::test]
async fn a_manifest_comes_back() {
    let (vault, _) = vault();
    assert!(matches!(
        manifest_read(&vault).await,
        Err(BackupStoreError::NotFound(_))
    ));
    let written = manifest();
    vault.write_manifest(&written).await.expect("written");
    let read = manifest_read(&vault).await.expect("read");
    let signature = read.signature.clone().expect("a signature");
    assert!(signature.starts_with("k1:"), "{signature}");
    let unsigned = Manifest {
        signature: None,
        ..read
    };
    assert_eq!(unsigned, written);
}

#[tokio::test]
async fn a_manifest_that_is_not_ours_is_damaged() {
    let (vault, store) = vault();
    let name = ObjectName::manifest(&deployment(), &backup());
    vault.write_manifest(&manifest()).await.expect("written");
    let good = object(&store, &name).await.to_vec();
    let good = String::from_utf8(good).expect("text");
    for (how, bad) in [
        ("empty", String::new()),
        ("cut", good[..good.len() / 2].to_owned()),
        ("not JSON", "hello".to_owned()),
        (
            "other format",
            good.replace("\"format\": 2", "\"format\": 3"),
        ),
        (
            "format of clear ones",
            good.replace("\"format\": 2", "\"format\": 1"),
        ),
        ("other backup", good.replace(BACKUP, &"0".repeat(24))),
        (
            "other deployment",
            good.replace(DEPLOYMENT, &"0".repeat(24)),
        ),
        ("bad id", good.replace(BACKUP, "../../x")),
        ("too long", good + &" ".repeat(MANIFEST_BYTES_MAX)),
    ] {
        replace(&store, &name, bad).await;
        let result = manifest_read(&vault).await;
        assert!(
            matches!(&result, Err(BackupStoreError::Damaged { object, .. }) if object == name.as_str()),
            "{how}: {result:?}"
        );
    }
}

#[tokio::test]
async fn a_manifest_too_long_to_be_read_is_not_written() {
    let (vault, store) = vault();
    let manifest = Manifest {
        sealed_credentials: Some(format!("k1:{}", "x".repeat(MANIFEST_BYTES_MAX))),
        ..manifest()
    };
    let refused = vault.write_manifest(&manifest).await;
    let refused = refused.expect_err("refused").to_string();
    assert!(refused.contains("longer than"), "{refused}");
    assert!(is_empty(&store).await);
}

/// Stored manifests outlive the broker that wrote them: a change here needs a new format.
#[test]
fn the_form_of_a_manifest() {
    let manifest = Manifest {
        sealed_credentials: Some("k1:c2VhbGVk".into()),
        sealed_key: Some("k1:a2V5".into()),
        signature: Some("k1:00ff".into()),
        ..manifest()
    };
    insta::assert_json_snapshot!(manifest, @r#"
    {
      "format": 2,
      "backup_id": "5ae85b45e5717f00015331aa",
      "kind": "daily",
      "instance_id": "instance-1",
      "deployment_id": "5ae85b45e5717f0001533192",
      "service_id": "etcd-service",
      "plan_id": "standard-plan",
      "tenant": {
        "platform": "cloudfoundry",
        "organization": "org-1",
        "space": "space-1"
      },
      "engine": "etcd",
      "version": "3.5.16",
      "units": 1,
      "content": {
        "keys": 56,
        "revision": 1234
      },
      "stored": {
        "snapshot_bytes": 20512,
        "snapshot_sha256": "abababababababababababababababababababababababababababababababab",
        "object_bytes": 9000,
        "object_sha256": "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd",
        "compression": "zstd",
        "sealing": "aes-256-gcm-stream-64k"
      },
      "requested_at": "2023-11-14T22:13:20Z",
      "started_at": "2023-11-14T22:13:21Z",
      "finished_at": "2023-11-14T22:13:22Z",
      "sealed_credentials": "k1:c2VhbGVk",
      "sealed_key": "k1:a2V5",
      "signature": "k1:00ff"
    }
    "#);
}

/// A backup with so many seconds as its age.
fn backup_of(second: u32) -> BackupId {
    format!("{second:08x}00000000000000aa")
        .parse()
        .expect("an id")
}

/// A vault with two whole backups of a deployment, half a one, one of another deployment, and what
/// the broker did not store.
async fn furnished() -> (Vault, MemoryStore, DeploymentId) {
    let (vault, store) = vault();
    let other: DeploymentId = "0".repeat(24).parse().expect("an id");
    for (deployment, second) in [(deployment(), 1), (deployment(), 3), (other.clone(), 2)] {
        let backup = backup_of(second);
        for name in [
            ObjectName::snapshot(&deployment, &backup),
            ObjectName::manifest(&deployment, &backup),
        ] {
            replace(&store, &name, noise(10)).await;
        }
    }
    let half = ObjectName::snapshot(&deployment(), &backup_of(2));
    store.leave_unfinished(&half, Duration::from_secs(60));
    let foreign = ObjectName::found("readme.txt").expect("a name");
    replace(&store, &foreign, noise(10)).await;
    (vault, store, other)
}

#[tokio::test]
async fn what_is_stored_is_listed_by_backup() {
    let (vault, _, other) = furnished().await;
    let found: Vec<Found> = vault.list().try_collect().await.expect("listed");
    let told = found.iter().map(|found| match found {
        Found::Backup(stored) => (
            Some((stored.deployment.clone(), stored.backup.clone())),
            stored.objects.len(),
            stored.missing().map(|name| name.to_string()),
        ),
        Found::Register(deployment) => panic!("a register of {deployment}"),
        Found::Foreign(name) => (None, 0, Some(name.to_string())),
    });
    let manifest_of_half = ObjectName::manifest(&deployment(), &backup_of(2));
    assert_eq!(
        told.collect::<Vec<_>>(),
        [
            (Some((other, backup_of(2))), 2, None),
            (Some((deployment(), backup_of(1))), 2, None),
            (
                Some((deployment(), backup_of(2))),
                1,
                Some(manifest_of_half.to_string())
            ),
            (Some((deployment(), backup_of(3))), 2, None),
            (None, 0, Some("readme.txt".to_owned())),
        ]
    );
    let newest_first = vault.backups_of(&deployment()).await.expect("listed");
    assert_eq!(newest_first, [3, 2, 1].map(backup_of));
    let nothing = vault.stored(&deployment(), &backup_of(9)).await;
    assert!(nothing.expect("looked").objects.is_empty());
}

#[tokio::test]
async fn a_backup_goes_alone_and_a_deployment_with_all_of_its_own() {
    let (vault, store, other) = furnished().await;
    vault
        .remove(&deployment(), &backup_of(1))
        .await
        .expect("removed");
    let left = vault.backups_of(&deployment()).await.expect("listed");
    assert_eq!(left, [3, 2].map(backup_of));
    vault.remove_all(&deployment()).await.expect("removed");
    assert_eq!(
        names(&store).await,
        [
            ObjectName::manifest(&other, &backup_of(2)).to_string(),
            ObjectName::snapshot(&other, &backup_of(2)).to_string(),
            "readme.txt".to_owned(),
        ]
    );
}

/// A store that writes down what is deleted, in that order.
#[derive(Clone, Default)]
struct Deletions {
    store: MemoryStore,
    deleted: Arc<Mutex<Vec<ObjectName>>>,
}

#[async_trait]
impl BackupStore for Deletions {
    async fn check(&self) -> Result<(), BackupStoreError> {
        self.store.check().await
    }
    async fn put(&self, name: &ObjectName, content: ByteStream) -> Result<u64, BackupStoreError> {
        self.store.put(name, content).await
    }
    async fn get(&self, name: &ObjectName, from: u64) -> Result<ByteStream, BackupStoreError> {
        self.store.get(name, from).await
    }
    async fn delete(&self, name: &ObjectName) -> Result<(), BackupStoreError> {
        self.deleted.lock().expect("sound").push(name.clone());
        self.store.delete(name).await
    }
    fn list(&self, prefix: &str) -> NameStream {
        self.store.list(prefix)
    }
    async fn room_for(&self, bytes: u64) -> Result<(), BackupStoreError> {
        self.store.room_for(bytes).await
    }
    async fn sweep(&self, older_than: Duration) -> Result<u64, BackupStoreError> {
        self.store.sweep(older_than).await
    }
}

#[tokio::test]
async fn manifests_go_first() {
    let (_, furnished, _) = furnished().await;
    let store = Deletions {
        store: furnished,
        ..Deletions::default()
    };
    let vault = Vault::over(store.clone(), samples::ring(&["k1"]));
    vault.remove_all(&deployment()).await.expect("removed");
    let deleted = store.deleted.lock().expect("sound").clone();
    let (manifests, snapshots) = deleted.split_at(2);
    assert!(
        !snapshots.iter().any(ObjectName::is_manifest),
        "{deleted:?}"
    );
    assert_eq!(snapshots.len(), 3);
    assert!(manifests.iter().all(ObjectName::is_manifest), "{deleted:?}");
}

#[tokio::test]
async fn what_is_swept_is_unfinished_and_old() {
    let (vault, store, _) = furnished().await;
    let before = names(&store).await;
    let age = Duration::from_secs(60);
    assert_eq!(vault.sweep(age).await.ok(), Some(0));
    assert_eq!(names(&store).await, before);
    assert_eq!(vault.sweep(age / 2).await.ok(), Some(1));
    assert_eq!(names(&store).await.len(), before.len() - 1);
}

#[tokio::test]
async fn a_store_that_is_away_is_not_taken_for_one_without_backups() {
    let (vault, store, _, stored) = vault_with(&noise(10)).await;
    let manifest = stored.manifest();
    vault.write_manifest(&manifest).await.expect("written");
    store.take_away(true);
    let results = [
        vault.check().await,
        vault.verify(&manifest).await,
        vault
            .read_manifest(&deployment(), &backup())
            .await
            .map(drop),
        vault.stored(&deployment(), &backup()).await.map(drop),
        vault.list().try_collect::<Vec<_>>().await.map(drop),
        vault.remove_all(&deployment()).await,
    ];
    for result in results {
        assert!(
            matches!(result, Err(BackupStoreError::Absent { .. })),
            "{result:?}"
        );
    }
    store.take_away(false);
    vault.verify(&manifest).await.expect("still there");
}
