//! A backup that becomes a file of this machine.
//!
//! Invariants: under its name there is the whole, checked file or none; nothing of it is left after a
//! failure or Ctrl-C; no file is replaced unless that was asked for; a name that the broker chose
//! leads to no other folder.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use async_compression::tokio::bufread::GzipDecoder;
use ring::digest::{Context, SHA256};
use serde_json::Value;
use tokio::{
    io::{AsyncWriteExt as _, BufReader},
    task::spawn_blocking,
};
use tokio_util::io::SyncIoBridge;
use url::Url;

use super::{
    error::{Error, Result},
    http::Http,
    show::Progress,
};
use crate::{
    disk::{self, Unfinished},
    model::{
        backup::{MANIFEST_FILE, SNAPSHOT_FILE, TENANT_SNAPSHOT_FILE},
        limits::{CHUNK_BYTES, register::MANIFEST_BYTES_MAX},
    },
};

/// What a backup is called when its own name is no good as a file's.
const NAME: &str = "backup";

/// The file for a backup, by the name that the broker gives it.
pub fn file_name(backup: &Value) -> PathBuf {
    let is_good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let name = backup["name"].as_str().filter(|name| {
        name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(is_good)
    });
    format!("{}.tar.gz", name.unwrap_or(NAME)).into()
}

/// Says no when there is such a file and it must stay.
pub fn check_target(file: &Path, force: bool) -> Result<()> {
    if !force && file.symlink_metadata().is_ok() {
        return Err(there_already(file));
    }
    Ok(())
}

fn there_already(file: &Path) -> Error {
    let file = file.display();
    Error::Failed(format!("{file} is there already; --force replaces it"))
}

/// How long an archive is said to be, before it comes.
#[derive(Debug, Clone, Copy)]
pub struct Length {
    /// In bytes, where that is known.
    pub exact: Option<u64>,
    /// About so many bytes.
    pub about: Option<u64>,
}

/// Downloads an archive and compares the snapshot in it with `sha256`, if there is one, and with its
/// own manifest. What is sealed for the user's key is compared with its manifest, which has that hash. Returns its length.
pub async fn download(
    http: &Http,
    link: &Url,
    file: &Path,
    sha256: Option<&str>,
    force: bool,
    told: Length,
    progress: &Progress,
) -> Result<u64> {
    let (unfinished, out) = Unfinished::beside(file).map_err(Error::file(file))?;
    let path = unfinished.path();
    let wrong = |error| Error::file(path)(error);
    let mut out = tokio::fs::File::from_std(out);
    let mut download = http.download(link).await?;
    let mut bytes = 0;
    while let Some(chunk) = download.next().await? {
        out.write_all(&chunk).await.map_err(wrong)?;
        bytes += chunk.len() as u64;
        progress.bytes(bytes, download.length.or(told.exact), told.about);
    }
    disk::sync(&mut out).await.map_err(wrong)?;
    if let Some(expected) = sha256 {
        check(path, expected).await.map_err(|error| {
            Error::Failed(format!("what was downloaded is not the backup: {error}"))
        })?;
    }
    let published = match force {
        true => unfinished.publish(),
        false => unfinished.publish_new(),
    };
    match published {
        Ok(()) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(there_already(file)),
        Err(error) => Err(Error::file(file)(error)),
    }
}

/// Unpacks the archive without keeping anything, down to its last byte.
async fn check(archive: &Path, expected: &str) -> io::Result<()> {
    let file = tokio::fs::File::from_std(File::open(archive)?);
    let unpacked = GzipDecoder::new(BufReader::with_capacity(CHUNK_BYTES, file));
    let mut unpacked = SyncIoBridge::new(unpacked);
    let found = spawn_blocking(move || {
        let found = read(&mut unpacked)?;
        // The end of the archive is not the end of the stream, which has a checksum.
        io::copy(&mut unpacked, &mut io::sink())?;
        Ok(found)
    });
    let found: io::Result<Found> = found.await.map_err(io::Error::other)?;
    let found = found?;
    let stored = &found.manifest["stored"];
    let expected_of_file = match found.is_sealed {
        true => stored["object_sha256"].as_str().unwrap_or_default(),
        false => expected,
    };
    if found.file != expected_of_file {
        let text = format!("its SHA-256 is {}, not {expected_of_file}", found.file);
        return Err(io::Error::other(text));
    }
    if stored["snapshot_sha256"] != expected {
        return Err(io::Error::other("its manifest is that of another one"));
    }
    Ok(())
}

struct Found {
    /// The hash of the snapshot, or of what it is sealed in.
    file: String,
    /// Whether it is sealed for the user's key.
    is_sealed: bool,
    manifest: Value,
}

/// Copies bytes; returns how many, and their SHA-256 in hexadecimal digits.
pub(super) fn copy(from: &mut impl Read, to: &mut impl io::Write) -> io::Result<(u64, String)> {
    let (mut digest, mut bytes) = (Context::new(&SHA256), 0);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match from.read(&mut chunk)? {
            0 => break,
            length => {
                digest.update(&chunk[..length]);
                to.write_all(&chunk[..length])?;
                bytes += length as u64;
            }
        }
    }
    to.flush()?;
    let digest = digest.finish();
    let digits = digest.as_ref().iter().map(|byte| format!("{byte:02x}"));
    Ok((bytes, digits.collect()))
}

fn read(archive: &mut impl Read) -> io::Result<Found> {
    let (mut file, mut is_sealed, mut manifest) = (None, false, None);
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        match &*entry.path_bytes() {
            name if [SNAPSHOT_FILE, TENANT_SNAPSHOT_FILE]
                .map(str::as_bytes)
                .contains(&name) =>
            {
                is_sealed = name == TENANT_SNAPSHOT_FILE.as_bytes();
                file = Some(copy(&mut entry, &mut io::sink())?.1);
            }
            name if name == MANIFEST_FILE.as_bytes() => {
                let mut text = Vec::new();
                entry
                    .by_ref()
                    .take(MANIFEST_BYTES_MAX as u64)
                    .read_to_end(&mut text)?;
                manifest = Some(serde_json::from_slice(&text)?);
            }
            _ => {}
        }
    }
    match (file, manifest) {
        (Some(file), Some(manifest)) => Ok(Found {
            file,
            is_sealed,
            manifest,
        }),
        _ => Err(io::Error::other("it lacks the snapshot or its manifest")),
    }
}

#[cfg(test)]
mod tests {
    use async_compression::tokio::write::GzipEncoder;
    use serde_json::json;

    use super::*;

    fn hash(bytes: &[u8]) -> String {
        let digest = ring::digest::digest(&SHA256, bytes);
        digest.as_ref().iter().map(|b| format!("{b:02x}")).collect()
    }

    async fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, name, *bytes).expect("a file");
        }
        let mut gzip = GzipEncoder::new(Vec::new());
        let tar = tar.into_inner().expect("an archive");
        gzip.write_all(&tar).await.expect("written");
        gzip.shutdown().await.expect("ended");
        gzip.into_inner()
    }

    #[tokio::test]
    async fn only_the_backup_itself_is_taken_for_it() {
        let snapshot: &[u8] = &[7; 100_000];
        let sha256 = hash(snapshot);
        let manifest = |sha256: &str| {
            let manifest = json!({ "stored": { "snapshot_sha256": sha256 } });
            manifest.to_string().into_bytes()
        };
        let (right, wrong) = (manifest(&sha256), manifest(&hash(b"another")));
        let whole = archive(&[("snapshot.db", snapshot), ("manifest.json", &right)]).await;
        let mut altered = whole.clone();
        // The checksum of the stream stands in its last eight bytes.
        let checksum = altered.len() - 8;
        altered[checksum] ^= 1;
        let short = whole[..whole.len() - 1].to_vec();
        let other = [("snapshot.db", &snapshot[1..]), ("manifest.json", &right)];
        let foreign = [("snapshot.db", snapshot), ("manifest.json", &wrong)];
        let object: &[u8] = &[8; 1000];
        let of_sealed = json!({
            "stored": { "snapshot_sha256": sha256, "object_sha256": hash(object) }
        });
        let of_sealed = of_sealed.to_string().into_bytes();
        let name = "snapshot.db.zst.age";
        let sealed = [(name, object), ("manifest.json", &of_sealed)];
        let resealed = [(name, &object[1..]), ("manifest.json", &of_sealed)];
        for (case, bytes, good) in [
            ("whole", whole, true),
            ("altered", altered, false),
            ("cut off", short, false),
            ("another snapshot", archive(&other).await, false),
            ("another manifest", archive(&foreign).await, false),
            ("no manifest", archive(&foreign[..1]).await, false),
            ("sealed for the user", archive(&sealed).await, true),
            ("sealed, and altered", archive(&resealed).await, false),
            ("no archive", b"what?".to_vec(), false),
            ("nothing", Vec::new(), false),
        ] {
            let folder = tempfile::tempdir().expect("a folder");
            let file = folder.path().join("archive");
            std::fs::write(&file, bytes).expect("a file");
            let found = check(&file, &sha256).await;
            assert_eq!(found.is_ok(), good, "{case}: {found:?}");
        }
    }

    #[test]
    fn a_broker_s_name_leads_to_no_other_folder() {
        for (name, expected) in [
            (
                json!("etcd_2026-11-22T13.57_x"),
                "etcd_2026-11-22T13.57_x.tar.gz",
            ),
            (json!("../../.ssh/authorized_keys"), "backup.tar.gz"),
            (json!("/etc/passwd"), "backup.tar.gz"),
            (json!(".hidden"), "backup.tar.gz"),
            (json!("a\u{1b}b"), "backup.tar.gz"),
            (json!(""), "backup.tar.gz"),
            (json!(7), "backup.tar.gz"),
        ] {
            let found = file_name(&json!({ "name": name }));
            assert_eq!(found.as_os_str(), expected, "{name}");
        }
    }
}
