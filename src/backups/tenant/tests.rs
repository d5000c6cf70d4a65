//! Backups that are sealed for a key of their tenant, over a store in memory.

use bytes::Bytes;
use ring::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce};

use super::*;
use crate::{
    backups::{
        Resealed,
        samples::{self, BACKUP, DEPLOYMENT, chunked, collect, collect_ours, noise, whole},
        signature::{signed, to_json},
        store::{BackupStore as _, memory::MemoryStore},
    },
    model::limits::SEALED_FRAME_BYTES,
    seal::OneUseKey,
};

/// A pair that the documentation of age has for an example.
const PUBLIC: &str = "age1cy0su9fwf3gf9mw868g5yut09p6nytfmmnktexz2ya5uqg9vl9sss4euqm";
const PRIVATE: &str = "AGE-SECRET-KEY-184JMZMVQH3E6U0PSL869004Y3U2NYV7R30EU99CSEDNPH02YUVFSZW44VU";
/// A private key of somebody else.
const OTHER: &str = "AGE-SECRET-KEY-1EGTZVFFV20835NWYV6270LXYVK2VKNX2MMDKWYKLMGR48UAWX40Q2P2LM0";

fn identity() -> Identity {
    Identity {
        instance: "instance-1".parse().expect("an id"),
        deployment: DEPLOYMENT.parse().expect("an id"),
        backup: BACKUP.parse().expect("an id"),
    }
}

fn recipient() -> Recipient {
    PUBLIC.parse().expect("a recipient")
}

fn keys(text: &str) -> PrivateKeys {
    text.parse().expect("a private key")
}

fn vault(ring: &[&str]) -> (Vault, MemoryStore) {
    let store = MemoryStore::default();
    (Vault::over(store.clone(), samples::ring(ring)), store)
}

fn name() -> ObjectName {
    ObjectName::tenant_snapshot(&identity().deployment, &identity().backup)
}

/// Stores a whole backup; returns what was stored, and its manifest.
async fn stored(vault: &Vault, content: &Bytes) -> (TakenFor, Manifest) {
    let (of, recipient) = (identity(), recipient());
    let taken = vault.take_in_for(&of, &recipient, whole(content), |_| ());
    let taken = taken.await.expect("stored");
    let manifest = Manifest {
        sealed_for: Some(taken.sealed_for.clone()),
        ..samples::manifest(taken.stored.clone())
    };
    let credentials = vault.keys.seal(&manifest.seal_context(), b"{}");
    let manifest = Manifest {
        sealed_credentials: Some(credentials.expect("sealed")),
        ..manifest
    };
    vault.write_manifest(&manifest).await.expect("written");
    (taken, manifest)
}

async fn object(store: &MemoryStore) -> Bytes {
    let content = store.get(&name(), 0).await.expect("an object");
    collect(content).await.expect("readable")
}

async fn opened(
    vault: &Vault,
    manifest: &Manifest,
    key: &FileKey,
) -> Result<Bytes, BackupStoreError> {
    collect_ours(vault.open_for(manifest, key).await?).await
}

/// What the frames after a header and a nonce hold, opened as the format of age says and not by our own code.
fn opened_by_hand(object: &[u8], header: &str, key: &FileKey) -> Vec<u8> {
    let rest = object.strip_prefix(header.as_bytes()).expect("the header");
    let (nonce, frames) = rest.split_at(16);
    let key = LessSafeKey::new(key.of_payload(nonce.try_into().expect("a nonce")));
    let mut plain = Vec::new();
    let frames: Vec<&[u8]> = frames.chunks(64 * 1024 + 16).collect();
    for (i, frame) in frames.iter().enumerate() {
        let mut nonce = [0; NONCE_LEN];
        nonce[3..11].copy_from_slice(&(i as u64).to_be_bytes());
        nonce[11] = u8::from(i + 1 == frames.len());
        let mut frame = frame.to_vec();
        let opened = key.open_in_place(
            Nonce::assume_unique_for_key(nonce),
            Aad::empty(),
            &mut frame,
        );
        plain.extend_from_slice(opened.expect("a frame"));
    }
    plain
}

#[tokio::test]
async fn what_is_stored_is_a_file_of_age_around_a_file_of_zstd() {
    for length in [0, 1, 100_000, 3 * SEALED_FRAME_BYTES] {
        let (vault, store) = vault(&["k1"]);
        let content = noise(length);
        let (taken, manifest) = stored(&vault, &content).await;
        let object = object(&store).await;
        assert_eq!(object.len() as u64, manifest.stored.object_bytes);
        let header = &taken.sealed_for.header;
        let key = age::unwrap(header, &keys(PRIVATE), &identity().snapshot_context());
        let zstd = opened_by_hand(&object, header, &key.expect("opens"));
        let unpacked = crate::backups::frame::decompress(whole(&zstd.into()), &name());
        assert!(
            collect(unpacked).await.expect("zstd") == content,
            "{length}"
        );
    }
}

#[tokio::test]
async fn it_opens_with_the_key_of_its_header_alone_and_the_ring_opens_nothing() {
    let (vault, store) = vault(&["k1"]);
    let content = noise(300_000);
    let (taken, manifest) = stored(&vault, &content).await;
    let of = identity();
    let before = vault.open_taken_for(&of, &taken).await.expect("opens");
    assert!(collect_ours(before).await.expect("whole") == content);
    vault
        .read_taken_for(&of, &taken, |_| ())
        .await
        .expect("whole");
    let key = file_key(&manifest, &keys(PRIVATE)).expect("sealed for a tenant");
    let key = key.expect("opens");
    assert!(opened(&vault, &manifest, &key).await.expect("whole") == content);
    let other = file_key(&manifest, &keys(OTHER)).expect("sealed for a tenant");
    assert_eq!(other.expect_err("refused"), HeaderError::OtherKey);

    let told = vault.open(&manifest).await.err().expect("refused");
    assert!(matches!(&told, BackupStoreError::ForTenant { recipient, .. } if recipient == PUBLIC));
    assert!(told.to_string().contains(PUBLIC), "{told}");
    // No text beside it opens under the ring, but for the credentials, which are no key to it.
    let text = store
        .get(&ObjectName::manifest(&of.deployment, &of.backup), 0)
        .await;
    let text = collect(text.expect("a manifest")).await.expect("readable");
    let text = String::from_utf8(text.to_vec()).expect("UTF-8");
    assert!(!text.contains("sealed_key"), "{text}");
    assert_eq!(
        text.matches("k1:").count(),
        2,
        "the signature and the credentials: {text}"
    );
    vault
        .look_at_sealed(&manifest)
        .await
        .expect("its bytes need no key");
}

#[tokio::test]
async fn what_was_changed_is_refused_with_the_key_too() {
    let (vault, store) = vault(&["k1"]);
    let content = noise(200_000);
    let (taken, manifest) = stored(&vault, &content).await;
    let good = object(&store).await;
    for at in [
        0,
        30,
        200,
        taken.sealed_for.header.len() + 3,
        good.len() / 2,
        good.len() - 1,
    ] {
        let mut bad = good.to_vec();
        bad[at] ^= 1;
        store
            .put(&name(), whole(&bad.into()))
            .await
            .expect("stored");
        let refused = opened(&vault, &manifest, &taken.key).await;
        assert!(
            matches!(refused, Err(BackupStoreError::Damaged { .. })),
            "{at}"
        );
        let seen = vault.look_at_sealed(&manifest).await;
        assert!(
            matches!(seen, Err(BackupStoreError::Damaged { .. })),
            "{at}"
        );
    }
    for cut in [
        0,
        10,
        taken.sealed_for.header.len(),
        good.len() - 20,
        good.len() - 1,
    ] {
        store
            .put(&name(), whole(&good.slice(..cut)))
            .await
            .expect("stored");
        assert!(
            opened(&vault, &manifest, &taken.key).await.is_err(),
            "cut to {cut}"
        );
    }
    store.put(&name(), whole(&good)).await.expect("stored");
    let other = FileKey::generate().expect("random");
    assert!(opened(&vault, &manifest, &other).await.is_err());
    // The header of another backup does not serve, though its key would open that.
    let elsewhere = Identity {
        backup: "5ae85b45e5717f00015331ab".parse().expect("an id"),
        ..identity()
    };
    let header =
        age::wrap(&taken.key, &recipient(), &elsewhere.snapshot_context()).expect("wrapped");
    let swapped = Manifest {
        sealed_for: Some(SealedFor {
            header,
            ..taken.sealed_for.clone()
        }),
        ..manifest.clone()
    };
    vault.write_manifest(&swapped).await.expect("written");
    assert!(matches!(
        opened(&vault, &swapped, &taken.key).await,
        Err(BackupStoreError::Damaged { .. })
    ));
    assert_eq!(
        file_key(&swapped, &keys(PRIVATE))
            .expect("sealed")
            .expect_err("refused"),
        HeaderError::Damaged
    );
}

#[tokio::test]
async fn a_manifest_says_one_thing_of_its_key() {
    let (vault, store) = vault(&["k1"]);
    let (_, manifest) = stored(&vault, &noise(100)).await;
    let of = identity();
    let key = OneUseKey::generate().expect("random");
    let sealed_key = vault
        .keys
        .seal(&of.key_context(), key.bytes())
        .expect("sealed");
    for (how, wrong) in [
        (
            "no key",
            Manifest {
                sealed_for: None,
                ..manifest.clone()
            },
        ),
        (
            "two keys",
            Manifest {
                sealed_key: Some(sealed_key),
                ..manifest.clone()
            },
        ),
        (
            "another format",
            Manifest {
                format: 2,
                ..manifest.clone()
            },
        ),
    ] {
        let text = to_json(&signed(wrong, &vault.keys));
        let name = ObjectName::manifest(&of.deployment, &of.backup);
        store.replace(&name, text).await.expect("stored");
        let read = vault.read_manifest(&of.deployment, &of.backup).await;
        assert!(
            matches!(read, Err(BackupStoreError::Damaged { .. })),
            "{how}: {read:?}"
        );
    }
}

#[tokio::test]
async fn a_change_of_the_ring_touches_neither_object_nor_header() {
    let (vault, store) = vault(&["old"]);
    let content = noise(1000);
    let (taken, manifest) = stored(&vault, &content).await;
    let before = object(&store).await;
    let of = identity();
    let rotated = Vault::over(store.clone(), samples::ring(&["new", "old"]));
    let now = chrono::DateTime::UNIX_EPOCH;
    let resealed = rotated.reseal(&of.deployment, &of.backup, now).await;
    assert_eq!(resealed.expect("resealed"), Resealed::Renewed);
    let alone = Vault::over(store.clone(), samples::ring(&["new"]));
    assert!(opened(&alone, &manifest, &taken.key).await.expect("opens") == content);
    assert_eq!(object(&store).await, before);
}

#[tokio::test]
async fn a_backup_that_is_begun_anew_for_another_key_has_one_object() {
    let (vault, _) = vault(&["k1"]);
    let (of, content) = (identity(), noise(1000));
    let objects = async || {
        let stored = vault
            .stored(&of.deployment, &of.backup)
            .await
            .expect("listed");
        stored.objects
    };
    vault
        .take_in(&of, whole(&content), |_| ())
        .await
        .expect("stored");
    let recipient = recipient();
    let taken = vault.take_in_for(&of, &recipient, whole(&content), |_| ());
    taken.await.expect("stored");
    assert_eq!(objects().await, [name()]);
    vault
        .take_in(&of, whole(&content), |_| ())
        .await
        .expect("stored");
    assert_eq!(
        objects().await,
        [ObjectName::snapshot(&of.deployment, &of.backup)]
    );
}

#[tokio::test]
async fn a_download_has_the_object_as_it_is_stored() {
    let (vault, store) = vault(&["k1"]);
    let (_, manifest) = stored(&vault, &noise(100_000)).await;
    let archive = vault.archive(&manifest).await.expect("an archive");
    let archive = collect(archive).await.expect("whole");
    let mut unpacked = tar::Archive::new(flate2::read::GzDecoder::new(&archive[..]));
    let mut files = Vec::new();
    for file in unpacked.entries().expect("an archive") {
        let mut file = file.expect("a file");
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut file, &mut bytes).expect("readable");
        files.push((file.path().expect("a path").display().to_string(), bytes));
    }
    let [(sealed, bytes), (told, text)] = &files[..] else {
        panic!("{} files", files.len());
    };
    assert_eq!(
        (sealed.as_str(), told.as_str()),
        ("snapshot.db.zst.age", "manifest.json")
    );
    assert_eq!(*bytes, object(&store).await);
    let told: Manifest = serde_json::from_slice(text).expect("a manifest");
    assert_eq!(
        (told.sealed_for, told.sealed_credentials),
        (manifest.sealed_for, None)
    );
}

#[tokio::test]
async fn pieces_of_any_length_come_to_the_same() {
    let content = noise(200_000);
    for sizes in [[1, 7, 1000], [16, 22, 64 * 1024], [200_000, 1, 1]] {
        let (front, rest) = split(chunked(&content, &sizes), 33).await.expect("split");
        assert_eq!(front, content.slice(..33));
        assert_eq!(collect(rest).await.expect("the rest"), content.slice(33..));
    }
    let (front, rest) = split(whole(&content.slice(..10)), 33).await.expect("split");
    assert_eq!(front.len(), 10);
    assert!(collect(rest).await.expect("nothing").is_empty());
}
