//! What a user downloads: a gzip'd tar of the snapshot and its manifest.
//!
//! The manifest comes last, as it does in the store: when `manifest.json` is there, the
//! `snapshot.db` before it is whole. A snapshot that is not what the manifest says ends the
//! archive with an error, so that the download breaks off instead of ending well.
//!
//! The archive is made while it is sent and holds a few chunks in memory.

use async_compression::{Level, tokio::bufread::GzipEncoder};
use bytes::Bytes;
use futures::{StreamExt, stream};
use tar::{EntryType, Header};
use tokio_util::io::{ReaderStream, StreamReader};

use super::{
    gauge::{Expecting, gauged},
    object, pipeline,
};
use crate::{
    model::{backup::Manifest, limits::CHUNK_BYTES},
    stream::ByteStream,
};

/// Files in a tar begin at multiples of this.
const BLOCK_BYTES: usize = 512;
/// A tar ends with two blocks of zeros.
const END: [u8; 2 * BLOCK_BYTES] = [0; 2 * BLOCK_BYTES];
/// The files are for the one who unpacks them alone.
const FILE_MODE: u32 = 0o600;

/// The archive of `snapshot`. The sealed credentials stay here: they are the operator's.
pub fn download(snapshot: ByteStream, manifest: &Manifest) -> ByteStream {
    let stored = &manifest.stored;
    let name = object::snapshot(&manifest.deployment_id, &manifest.backup_id);
    let snapshot = gauged(
        snapshot,
        Expecting::new(
            "snapshot bytes",
            &name,
            stored.snapshot_bytes,
            &stored.snapshot_sha256,
        ),
    );
    let told = pipeline::manifest_json(&Manifest {
        sealed_credentials: None,
        ..manifest.clone()
    });
    let rest = [
        padding(stored.snapshot_bytes),
        header("manifest.json", told.len() as u64, manifest),
        told.clone(),
        padding(told.len() as u64),
        Bytes::from_static(&END),
    ];
    let archive = bytes([header("snapshot.db", stored.snapshot_bytes, manifest)])
        .chain(snapshot)
        .chain(bytes(rest));
    // An error ends the reader below, which then never asks for what would come after it.
    let encoder = GzipEncoder::with_quality(StreamReader::new(archive.boxed()), Level::Fastest);
    ReaderStream::with_capacity(encoder, CHUNK_BYTES).boxed()
}

fn header(name: &str, bytes: u64, manifest: &Manifest) -> Bytes {
    // The GNU form has room for sizes over 8 GiB.
    let mut header = Header::new_gnu();
    header
        .set_path(name)
        .expect("the names of our two files fit a header");
    header.set_entry_type(EntryType::Regular);
    header.set_mode(FILE_MODE);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(manifest.finished_at.timestamp().try_into().unwrap_or(0));
    header.set_size(bytes);
    header.set_cksum();
    Bytes::copy_from_slice(header.as_bytes())
}

/// Zeros up to the next block after a file of that length.
fn padding(file_bytes: u64) -> Bytes {
    let last_block = (file_bytes % BLOCK_BYTES as u64) as usize;
    Bytes::from_static(&END[..(BLOCK_BYTES - last_block) % BLOCK_BYTES])
}

fn bytes<const N: usize>(parts: [Bytes; N]) -> ByteStream {
    stream::iter(parts.map(Ok)).boxed()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt, path::Path, process::Command};

    use futures::TryStreamExt;

    use super::*;
    use crate::{
        backup_store::{
            BackupStoreError,
            samples::{self, broken, collect, collect_ours, noise, whole},
        },
        model::backup::StoredSnapshot,
        seal::hex,
    };

    fn manifest_of(content: &Bytes) -> Manifest {
        let sha256 = ring::digest::digest(&ring::digest::SHA256, content);
        samples::manifest(StoredSnapshot {
            snapshot_bytes: content.len() as u64,
            snapshot_sha256: hex(sha256.as_ref()),
            object_bytes: 1,
            object_sha256: "cd".repeat(32),
            compression: "zstd".into(),
        })
    }

    fn untar(archive: &[u8], into: &Path) -> bool {
        let file = into.join("archive.tar.gz");
        fs::write(&file, archive).expect("written");
        let unpacked = Command::new("tar")
            .arg("xzf")
            .arg(&file)
            .arg("-C")
            .arg(into)
            .output()
            .expect("tar runs");
        unpacked.status.success() && unpacked.stderr.is_empty()
    }

    #[tokio::test]
    async fn tar_unpacks_the_snapshot_and_its_manifest() {
        for length in [0, 1, 511, 512, 513, 20_512, 3_000_000] {
            let content = noise(length);
            let manifest = manifest_of(&content);
            let archive = collect(download(whole(&content), &manifest))
                .await
                .expect("an archive");
            let folder = tempfile::tempdir().expect("a folder");
            assert!(untar(&archive, folder.path()), "{length}");

            let snapshot = folder.path().join("snapshot.db");
            assert_eq!(fs::read(&snapshot).expect("there"), content);
            let told = fs::read(folder.path().join("manifest.json")).expect("there");
            let told: Manifest = serde_json::from_slice(&told).expect("a manifest");
            let public = Manifest {
                sealed_credentials: None,
                ..manifest
            };
            assert_eq!(told, public);
            for file in ["snapshot.db", "manifest.json"] {
                let metadata = fs::metadata(folder.path().join(file)).expect("there");
                assert_eq!(metadata.mode() & 0o777, FILE_MODE);
                assert_eq!(metadata.mtime(), public.finished_at.timestamp());
            }
        }
    }

    #[tokio::test]
    async fn the_archive_breaks_off_when_the_snapshot_is_not_whole() {
        let content = noise(1_000_000);
        let manifest = manifest_of(&content);
        let (shorter, longer) = (noise(999_999), noise(1_000_001));
        let mut altered = content.to_vec();
        altered[500_000] ^= 1;
        for (how, snapshot) in [
            ("broken off", broken(&content.slice(..500_000))),
            ("broken at the end", broken(&content)),
            ("shorter", whole(&shorter)),
            ("longer", whole(&longer)),
            ("altered", whole(&altered.into())),
        ] {
            let mut archive = Vec::new();
            let mut stream = download(snapshot, &manifest);
            let result = loop {
                match stream.try_next().await {
                    Ok(Some(chunk)) => archive.extend_from_slice(&chunk),
                    end => break end,
                }
            };
            assert!(result.is_err(), "{how}");
            assert!(stream.next().await.is_none(), "{how}: an error is the end");
            let folder = tempfile::tempdir().expect("a folder");
            assert!(!untar(&archive, folder.path()), "{how}");
            assert!(!folder.path().join("manifest.json").exists(), "{how}");
        }
    }

    #[tokio::test]
    async fn the_archive_tells_what_is_damaged() {
        let manifest = manifest_of(&noise(100));
        let result = collect_ours(download(whole(&noise(101)), &manifest)).await;
        let name = object::snapshot(&manifest.deployment_id, &manifest.backup_id);
        assert!(
            matches!(&result, Err(BackupStoreError::Damaged { object, .. }) if *object == name),
            "{result:?}"
        );
    }

    #[test]
    fn a_file_over_8_gib_fits_its_header() {
        let size = 9 * 1024 * 1024 * 1024;
        let block = header("snapshot.db", size, &manifest_of(&Bytes::new()));
        let header = Header::from_byte_slice(&block);
        assert_eq!(header.entry_size().expect("a size"), size);
    }
}
