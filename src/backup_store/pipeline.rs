//! The one way of snapshots into the store and out of it.
//!
//! In: engine → length and hash → zstd → length and hash of the object → store. A snapshot that the
//! engine does not end well never gets its name in the store.
//!
//! Out: store → length and hash of the object → zstd → length and hash of the snapshot → reader.
//! The stream ends well only when both were what was stored. A reader that acts on the first bytes
//! must undo it when the end is an error.
//!
//! Both ways hold a few chunks in memory, whatever the size. All errors of streams made here carry
//! a [`BackupStoreError`] ([`BackupStoreError::unpack`]).

use std::io;

use async_compression::{
    Level,
    tokio::bufread::{ZstdDecoder, ZstdEncoder},
    zstd::DParameter,
};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt};
use tokio_util::io::{ReaderStream, StreamReader};

use super::{
    BackupStore, BackupStoreError,
    gauge::{Expecting, Measured, Measuring, gauged},
    object,
};
use crate::{
    model::{
        backup::{MANIFEST_FORMAT, Manifest, StoredSnapshot},
        ids::{BackupId, DeploymentId},
        limits::{CHUNK_BYTES, MANIFEST_BYTES_MAX, ZSTD_WINDOW_LOG_MAX},
    },
    stream::ByteStream,
};

/// How objects are compressed, as manifests say it.
const COMPRESSION: &str = "zstd";
/// Backups share the machine with databases: the fastest level already takes most of what there
/// is to take.
const COMPRESSION_LEVEL: i32 = 1;

/// Stores a snapshot under `name`. `progress` is told the bytes of the snapshot so far.
///
/// A snapshot that ends with an error is a [`BackupStoreError::BrokenSource`], and nothing is left
/// of it.
pub async fn store_snapshot(
    store: &dyn BackupStore,
    name: &str,
    content: ByteStream,
    progress: impl Fn(u64) + Send + Sync + 'static,
) -> Result<StoredSnapshot, BackupStoreError> {
    let snapshot = Measured::default();
    let object = Measured::default();
    let mut passed = 0;
    let content = content.inspect_ok(move |chunk| {
        passed += chunk.len() as u64;
        progress(passed);
    });
    let content = gauged(content.boxed(), Measuring::new(snapshot.clone()));
    let compressed = gauged(compress(content), Measuring::new(object.clone()));
    let stored_bytes = store.put(name, compressed).await?;
    let (Some(snapshot), Some(object)) = (snapshot.get(), object.get()) else {
        return Err(damaged(name, "the store did not take all of it"));
    };
    if stored_bytes != object.bytes {
        let reason = format!("the store took {stored_bytes} of {} bytes", object.bytes);
        return Err(damaged(name, reason));
    }
    Ok(StoredSnapshot {
        snapshot_bytes: snapshot.bytes,
        snapshot_sha256: snapshot.sha256.clone(),
        object_bytes: object.bytes,
        object_sha256: object.sha256.clone(),
        compression: COMPRESSION.to_owned(),
    })
}

/// Opens the snapshot that was stored under `name`. The stream ends with
/// [`BackupStoreError::Damaged`] when the object or what is in it is not as `expected`.
pub async fn open_snapshot(
    store: &dyn BackupStore,
    name: &str,
    expected: &StoredSnapshot,
) -> Result<ByteStream, BackupStoreError> {
    if expected.compression != COMPRESSION {
        let reason = format!("unknown compression {:?}", expected.compression);
        return Err(damaged(name, reason));
    }
    let object = Expecting::new(
        "stored bytes",
        name,
        expected.object_bytes,
        &expected.object_sha256,
    );
    let snapshot = Expecting::new(
        "snapshot bytes",
        name,
        expected.snapshot_bytes,
        &expected.snapshot_sha256,
    );
    let stored = gauged(read(store, name).await?, object);
    Ok(gauged(decompress(stored, name.to_owned()), snapshot))
}

/// Reads the whole snapshot back and fails when it is not as `expected`. `progress` is told the
/// bytes of the snapshot so far.
pub async fn verify_snapshot(
    store: &dyn BackupStore,
    name: &str,
    expected: &StoredSnapshot,
    progress: impl Fn(u64) + Send + Sync,
) -> Result<(), BackupStoreError> {
    let mut content = open_snapshot(store, name, expected).await?;
    let mut bytes = 0;
    while let Some(chunk) = content.try_next().await.map_err(unreadable(name))? {
        bytes += chunk.len() as u64;
        progress(bytes);
    }
    Ok(())
}

/// Stores the manifest beside its snapshot.
pub async fn write_manifest(
    store: &dyn BackupStore,
    manifest: &Manifest,
) -> Result<(), BackupStoreError> {
    let name = object::manifest(&manifest.deployment_id, &manifest.backup_id);
    let text = manifest_json(manifest);
    if text.len() > MANIFEST_BYTES_MAX {
        // Better no backup than one whose manifest we would refuse to read.
        return Err(too_long(&name));
    }
    let content = stream::once(async { Ok(text) }).boxed();
    store.put(&name, content).await.map(drop)
}

/// Reads the manifest of a backup.
pub async fn read_manifest(
    store: &dyn BackupStore,
    deployment: &DeploymentId,
    backup: &BackupId,
) -> Result<Manifest, BackupStoreError> {
    let name = object::manifest(deployment, backup);
    let text = read_text(store, &name).await?;
    let manifest = parse_manifest(&text).map_err(|reason| damaged(&name, reason))?;
    if (&manifest.deployment_id, &manifest.backup_id) != (deployment, backup) {
        return Err(damaged(&name, "it belongs to another backup"));
    }
    Ok(manifest)
}

/// A manifest in the form that is stored: JSON for people too.
pub(super) fn manifest_json(manifest: &Manifest) -> Bytes {
    let mut text = serde_json::to_vec_pretty(manifest)
        .expect("a manifest has only text keys and writing to memory does not fail");
    text.push(b'\n');
    text.into()
}

fn parse_manifest(text: &[u8]) -> Result<Manifest, String> {
    /// Looked at first, since another format need not have the rest.
    #[derive(Deserialize)]
    struct Form {
        format: u32,
    }
    let Form { format } = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if format != MANIFEST_FORMAT {
        return Err(format!(
            "it has format {format}, and only {MANIFEST_FORMAT} is known"
        ));
    }
    serde_json::from_slice(text).map_err(|error| error.to_string())
}

async fn read_text(store: &dyn BackupStore, name: &str) -> Result<BytesMut, BackupStoreError> {
    let mut content = read(store, name).await?;
    let mut text = BytesMut::new();
    while let Some(chunk) = content.try_next().await.map_err(unreadable(name))? {
        if text.len() + chunk.len() > MANIFEST_BYTES_MAX {
            return Err(too_long(name));
        }
        text.extend_from_slice(&chunk);
    }
    Ok(text)
}

/// The object's bytes. A failing store is told from a damaged object here, where it is known.
async fn read(store: &dyn BackupStore, name: &str) -> Result<ByteStream, BackupStoreError> {
    let content = store.get(name).await?;
    let name = name.to_owned();
    Ok(content
        .map_err(move |error| unreadable(&name)(error).into())
        .boxed())
}

fn compress(content: ByteStream) -> ByteStream {
    let encoder = ZstdEncoder::with_quality(
        StreamReader::new(content),
        Level::Precise(COMPRESSION_LEVEL),
    );
    ReaderStream::with_capacity(encoder, CHUNK_BYTES).boxed()
}

/// Unpacks an object, which is one zstd frame and nothing else.
fn decompress(object: ByteStream, name: String) -> ByteStream {
    let decoder = ZstdDecoder::with_params(
        StreamReader::new(object),
        &[DParameter::window_log_max(ZSTD_WINDOW_LOG_MAX)],
    );
    stream::try_unfold(decoder, |mut decoder| async move {
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
        if decoder.read_buf(&mut chunk).await? > 0 {
            return Ok(Some((chunk.freeze(), decoder)));
        }
        // The decoder looks no further than its frame. The object must be read to its end, for
        // only there its hash is compared.
        if !decoder.get_mut().fill_buf().await?.is_empty() {
            let more = "there is more after the compressed snapshot";
            return Err(io::Error::new(io::ErrorKind::InvalidData, more));
        }
        Ok(None)
    })
    // What is none of ours by now, zstd says of the bytes.
    .map_err(move |error| {
        BackupStoreError::unpack(error, |error| damaged(&name, error.to_string())).into()
    })
    .boxed()
}

fn damaged(object: &str, reason: impl Into<String>) -> BackupStoreError {
    BackupStoreError::Damaged {
        object: object.to_owned(),
        reason: reason.into(),
    }
}

fn too_long(object: &str) -> BackupStoreError {
    damaged(
        object,
        format!("it is longer than {MANIFEST_BYTES_MAX} bytes"),
    )
}

/// What the failure of a stream that was being read means.
fn unreadable(object: &str) -> impl Fn(io::Error) -> BackupStoreError {
    move |error| {
        BackupStoreError::unpack(error, |source| BackupStoreError::Io {
            doing: format!("cannot read {object}"),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::PathBuf,
        sync::{
            Arc,
            atomic::{AtomicU64, Ordering},
        },
    };

    use async_trait::async_trait;
    use proptest::prelude::*;
    use ring::digest::{SHA256, digest};

    use super::*;
    use crate::{
        backup_store::{
            folder::FolderStore,
            samples::{self, BACKUP, DEPLOYMENT, broken, collect_ours, noise, whole},
        },
        seal::hex,
    };

    const NAME: &str = "deployment/backup/snapshot.db.zst";

    fn sha256(bytes: &[u8]) -> String {
        hex(digest(&SHA256, bytes).as_ref())
    }

    async fn stored(store: &FolderStore, name: &str, content: &Bytes) -> StoredSnapshot {
        store_snapshot(store, name, whole(content), |_| ())
            .await
            .expect("stored")
    }

    async fn opened(
        store: &dyn BackupStore,
        expected: &StoredSnapshot,
    ) -> Result<Bytes, BackupStoreError> {
        collect_ours(open_snapshot(store, NAME, expected).await?).await
    }

    /// A store with one object, whose file is the third.
    async fn store_with(
        content: &Bytes,
    ) -> (tempfile::TempDir, FolderStore, PathBuf, StoredSnapshot) {
        let (folder, store) = samples::store();
        let expected = stored(&store, NAME, content).await;
        let file = folder.path().join("backups").join(NAME);
        (folder, store, file, expected)
    }

    async fn assert_damaged(store: &FolderStore, expected: &StoredSnapshot, how: &str) {
        let result = opened(store, expected).await;
        assert!(
            matches!(&result, Err(BackupStoreError::Damaged { object, .. }) if object == NAME),
            "{how}: {result:?}"
        );
        let result = verify_snapshot(store, NAME, expected, |_| ()).await;
        assert!(
            matches!(result, Err(BackupStoreError::Damaged { .. })),
            "{how}"
        );
    }

    /// Stores and reads back.
    async fn round_trip(content: Bytes, sizes: Vec<usize>) {
        let (folder, store) = samples::store();
        let told = Arc::new(AtomicU64::new(0));
        let progress = {
            let told = told.clone();
            move |bytes| told.store(bytes, Ordering::Relaxed)
        };
        let source = samples::chunked(&content, &sizes);
        let stored = store_snapshot(&store, NAME, source, progress)
            .await
            .expect("stored");

        let object = fs::read(folder.path().join("backups").join(NAME)).expect("a file");
        let expected = StoredSnapshot {
            snapshot_bytes: content.len() as u64,
            snapshot_sha256: sha256(&content),
            object_bytes: object.len() as u64,
            object_sha256: sha256(&object),
            compression: "zstd".into(),
        };
        assert_eq!(stored, expected);
        assert_eq!(told.swap(0, Ordering::Relaxed), content.len() as u64);

        assert_eq!(opened(&store, &stored).await.expect("whole"), content);
        verify_snapshot(&store, NAME, &stored, |bytes| {
            told.store(bytes, Ordering::Relaxed);
        })
        .await
        .expect("whole");
        assert_eq!(told.load(Ordering::Relaxed), content.len() as u64);
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
        let (folder, store) = samples::store();
        let source = broken(&noise(3_000_000));
        let result = store_snapshot(&store, NAME, source, |_| ()).await;
        assert!(
            matches!(&result, Err(BackupStoreError::BrokenSource(reason))
                if reason == "the member went away"),
            "{result:?}"
        );
        assert!(is_empty(folder.path()));
    }

    fn is_empty(folder: &std::path::Path) -> bool {
        let mut entries = fs::read_dir(folder.join("backups")).expect("a folder");
        entries.next().is_none()
    }

    #[tokio::test]
    async fn every_flipped_bit_and_every_cut_is_noticed() {
        let (_folder, store, file, expected) = store_with(&noise(600)).await;
        let good = fs::read(&file).expect("a file");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            fs::write(&file, &bad).expect("written");
            assert_damaged(&store, &expected, &format!("bit flipped in byte {at}")).await;
            fs::write(&file, &good[..at]).expect("written");
            assert_damaged(&store, &expected, &format!("cut to {at} bytes")).await;
        }
        fs::write(&file, &good).expect("written");
        opened(&store, &expected).await.expect("whole again");
    }

    #[tokio::test]
    async fn damage_in_a_large_object_is_noticed() {
        let (_folder, store, file, expected) = store_with(&noise(3_000_000)).await;
        let good = fs::read(&file).expect("a file");
        for at in [0, 5, 70_000, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&file, &bad).expect("written");
            assert_damaged(&store, &expected, &format!("bit flipped in byte {at}")).await;
            fs::write(&file, &good[..at]).expect("written");
            assert_damaged(&store, &expected, &format!("cut to {at} bytes")).await;
        }
    }

    #[tokio::test]
    async fn another_object_in_its_place_is_noticed() {
        let (_folder, store, file, expected) = store_with(&noise(100_000)).await;
        for (how, bad) in [
            ("nothing", Bytes::new()),
            ("garbage", noise(100_000)),
            (
                "garbage of the same length",
                noise(expected.object_bytes as usize),
            ),
            ("zeros", Bytes::from(vec![0; 100_000])),
        ] {
            fs::write(&file, bad).expect("written");
            assert_damaged(&store, &expected, how).await;
        }
        for length in [100_000 - 1, 100_000 + 1] {
            stored(&store, NAME, &noise(length)).await;
            assert_damaged(&store, &expected, "another snapshot").await;
        }
    }

    #[tokio::test]
    async fn a_snapshot_that_differs_in_a_whole_object_is_noticed() {
        let (_folder, store, _file, stored) = store_with(&noise(100_000)).await;
        let shorter = StoredSnapshot {
            snapshot_bytes: 100_001,
            ..stored.clone()
        };
        assert_damaged(&store, &shorter, "shorter than expected").await;
        let other = StoredSnapshot {
            snapshot_sha256: sha256(b"other"),
            ..stored
        };
        assert_damaged(&store, &other, "other bytes than expected").await;
    }

    /// zstd itself passes over or unpacks more than one frame, or ignores what follows the first.
    #[tokio::test]
    async fn anything_after_the_frame_is_noticed() {
        let (_folder, store, file, expected) = store_with(&noise(100_000)).await;
        let good = fs::read(&file).expect("a file");
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 7];
        let empty_frame = [0x28, 0xb5, 0x2f, 0xfd, 0x20, 0, 1, 0, 0];
        for (how, more) in [
            ("a byte", &[0][..]),
            ("garbage", &noise(1_000_000)),
            ("the same again", &good),
            ("a frame to skip", &skippable),
            ("an empty frame", &empty_frame),
        ] {
            let bad = [&good, more].concat();
            fs::write(&file, &bad).expect("written");
            assert_damaged(&store, &expected, how).await;
            // Even when a manifest says that the object is so: it is not what we make.
            let forged = StoredSnapshot {
                object_bytes: bad.len() as u64,
                object_sha256: sha256(&bad),
                ..expected.clone()
            };
            assert_damaged(&store, &forged, how).await;
        }
    }

    #[tokio::test]
    async fn a_bomb_is_stopped_at_the_expected_length() {
        let (_folder, store, _file, bomb) = store_with(&Bytes::from(vec![0; 20_000_000])).await;
        let expected = StoredSnapshot {
            snapshot_bytes: 100_000,
            ..bomb
        };
        assert_damaged(&store, &expected, "a bomb").await;
        let content = open_snapshot(&store, NAME, &expected).await.expect("open");
        let handed_out: usize = content
            .map(|chunk| chunk.map_or(0, |chunk| chunk.len()))
            .collect::<Vec<_>>()
            .await
            .iter()
            .sum();
        assert!(handed_out <= 100_000, "{handed_out}");
    }

    #[tokio::test]
    async fn an_object_that_claims_much_memory_is_refused() {
        let (_folder, store, file, _) = store_with(&Bytes::new()).await;
        let claims_2_gib = [0x28, 0xb5, 0x2f, 0xfd, 0, 0xa8, 1, 0, 0];
        fs::write(&file, claims_2_gib).expect("written");
        let expected = StoredSnapshot {
            snapshot_bytes: 0,
            snapshot_sha256: sha256(b""),
            object_bytes: claims_2_gib.len() as u64,
            object_sha256: sha256(&claims_2_gib),
            compression: "zstd".into(),
        };
        assert_damaged(&store, &expected, "a window of 2 GiB").await;
    }

    #[tokio::test]
    async fn an_unknown_compression_is_refused() {
        let (_folder, store, _file, stored) = store_with(&noise(10)).await;
        let expected = StoredSnapshot {
            compression: "lzma".into(),
            ..stored
        };
        assert_damaged(&store, &expected, "lzma").await;
    }

    #[tokio::test]
    async fn an_object_that_is_gone_is_not_found() {
        let (_folder, store, file, stored) = store_with(&noise(10)).await;
        fs::remove_file(file).expect("removed");
        let result = verify_snapshot(&store, NAME, &stored, |_| ()).await;
        assert!(matches!(result, Err(BackupStoreError::NotFound(name)) if name == NAME));
    }

    /// A store whose disk fails while it is read, and which forgets what it is given.
    struct FailingStore;

    #[async_trait]
    impl BackupStore for FailingStore {
        async fn check(&self) -> Result<(), BackupStoreError> {
            Ok(())
        }
        async fn put(&self, _: &str, _: ByteStream) -> Result<u64, BackupStoreError> {
            Ok(0)
        }
        async fn get(&self, _: &str) -> Result<ByteStream, BackupStoreError> {
            Ok(broken(&Bytes::new()))
        }
        async fn delete(&self, _: &str) -> Result<(), BackupStoreError> {
            Ok(())
        }
        async fn list(&self, _: &str) -> Result<Vec<String>, BackupStoreError> {
            Ok(Vec::new())
        }
        async fn room_for(&self, _: u64) -> Result<(), BackupStoreError> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_failing_store_is_not_taken_for_damage() {
        let (_folder, _store, _file, stored) = store_with(&noise(10)).await;
        let result = opened(&FailingStore, &stored).await;
        assert!(
            matches!(result, Err(BackupStoreError::Io { .. })),
            "{result:?}"
        );
    }

    #[tokio::test]
    async fn a_store_that_did_not_take_all_is_noticed() {
        let content = whole(&noise(10));
        let result = store_snapshot(&FailingStore, NAME, content, |_| ()).await;
        assert!(matches!(result, Err(BackupStoreError::Damaged { .. })));
    }

    fn manifest() -> Manifest {
        samples::manifest(StoredSnapshot {
            snapshot_bytes: 20_512,
            snapshot_sha256: "ab".repeat(32),
            object_bytes: 9_000,
            object_sha256: "cd".repeat(32),
            compression: COMPRESSION.into(),
        })
    }

    async fn manifest_read(store: &FolderStore) -> Result<Manifest, BackupStoreError> {
        let deployment = DEPLOYMENT.parse().expect("an id");
        read_manifest(store, &deployment, &BACKUP.parse().expect("an id")).await
    }

    #[tokio::test]
    async fn a_manifest_comes_back() {
        let (_folder, store) = samples::store();
        assert!(matches!(
            manifest_read(&store).await,
            Err(BackupStoreError::NotFound(_))
        ));
        write_manifest(&store, &manifest()).await.expect("written");
        assert_eq!(manifest_read(&store).await.expect("read"), manifest());
    }

    #[tokio::test]
    async fn a_manifest_that_is_not_ours_is_damaged() {
        let (_folder, store) = samples::store();
        let name = format!("{DEPLOYMENT}/{BACKUP}/manifest.json");
        let good = String::from_utf8(manifest_json(&manifest()).to_vec()).expect("text");
        for (how, bad) in [
            ("empty", String::new()),
            ("cut", good[..good.len() / 2].to_owned()),
            ("not JSON", "hello".to_owned()),
            (
                "other format",
                good.replace("\"format\": 1", "\"format\": 2"),
            ),
            ("other backup", good.replace(BACKUP, &"0".repeat(24))),
            (
                "other deployment",
                good.replace(DEPLOYMENT, &"0".repeat(24)),
            ),
            ("bad id", good.replace(BACKUP, "../../x")),
            ("too long", good + &" ".repeat(MANIFEST_BYTES_MAX)),
        ] {
            store.put(&name, whole(&bad.into())).await.expect("stored");
            let result = manifest_read(&store).await;
            assert!(
                matches!(&result, Err(BackupStoreError::Damaged { object, .. }) if *object == name),
                "{how}: {result:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_manifest_too_long_to_be_read_is_not_written() {
        let (folder, store) = samples::store();
        let manifest = Manifest {
            sealed_credentials: Some("x".repeat(MANIFEST_BYTES_MAX)),
            ..manifest()
        };
        assert!(write_manifest(&store, &manifest).await.is_err());
        assert!(is_empty(folder.path()));
    }

    /// Stored manifests outlive the broker that wrote them: a change here needs a new format.
    #[test]
    fn the_form_of_a_manifest() {
        insta::assert_json_snapshot!(manifest(), @r#"
        {
          "format": 1,
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
            "revision": 1234,
            "keys": 56
          },
          "stored": {
            "snapshot_bytes": 20512,
            "snapshot_sha256": "abababababababababababababababababababababababababababababababab",
            "object_bytes": 9000,
            "object_sha256": "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd",
            "compression": "zstd"
          },
          "requested_at": "2023-11-14T22:13:20Z",
          "started_at": "2023-11-14T22:13:21Z",
          "finished_at": "2023-11-14T22:13:22Z",
          "sealed_credentials": "k1:c2VhbGVk"
        }
        "#);
    }
}
