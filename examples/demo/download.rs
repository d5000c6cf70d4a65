//! A downloaded backup: a tar with etcd's snapshot and the broker's manifest of it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use tokio::process::Command;

use crate::{
    engines::{Engines, output_of},
    error::{Context, Result, ensure},
};

/// The parts of a manifest that are compared.
#[derive(Deserialize)]
struct Manifest {
    version: String,
    content: SnapshotContent,
    stored: StoredSnapshot,
}

#[derive(Deserialize)]
struct SnapshotContent {
    revision: i64,
    keys: usize,
}

#[derive(Deserialize)]
struct StoredSnapshot {
    snapshot_bytes: usize,
    snapshot_sha256: String,
}

/// What etcd's own tool says of a snapshot.
#[derive(Deserialize)]
struct SnapshotStatus {
    revision: i64,
}

/// An unpacked backup.
pub struct Unpacked {
    snapshot: PathBuf,
    manifest: Manifest,
}

/// Unpacks an archive with the machine's own tar.
pub async fn unpack(archive: &Path, folder: &Path) -> Result<Unpacked> {
    let mut tar = Command::new("tar");
    tar.arg("-xzf").arg(archive).arg("-C").arg(folder);
    output_of(&mut tar).await?;
    let manifest = folder.join("manifest.json");
    let manifest = fs::read(manifest).context("reading the backup's manifest")?;
    Ok(Unpacked {
        snapshot: folder.join("snapshot.db"),
        manifest: serde_json::from_slice(&manifest).context("reading the backup's manifest")?,
    })
}

impl Unpacked {
    /// Compares snapshot, manifest and what etcd's tool of that version says; tells the result.
    pub async fn check(&self, engines: &Engines, version: &str, keys: usize) -> Result<String> {
        let Manifest {
            version: told,
            content,
            stored,
        } = &self.manifest;
        ensure(told == version && content.keys == keys, || {
            let told_keys = content.keys;
            format!(
                "the manifest tells of etcd {told} with {told_keys} keys, not {version} with {keys}"
            )
        })?;

        let snapshot = fs::read(&self.snapshot).context("reading the snapshot")?;
        let digest = ring::digest::digest(&ring::digest::SHA256, &snapshot);
        let sha256: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
        let is_whole = snapshot.len() == stored.snapshot_bytes && sha256 == stored.snapshot_sha256;
        ensure(is_whole, || {
            "the snapshot has not the length and hash of its manifest".to_owned()
        })?;

        let mut tool = Command::new(engines.snapshot_tool(version));
        tool.args(["snapshot", "status"])
            .arg(&self.snapshot)
            .arg("--write-out=json")
            .env("ETCDCTL_API", "3");
        let status = output_of(&mut tool).await?;
        let status: SnapshotStatus =
            serde_json::from_str(&status).context("reading what etcd says of the snapshot")?;
        let revision = content.revision;
        ensure(status.revision == revision, || {
            let found = status.revision;
            format!("etcd finds revision {found} in the snapshot, the manifest says {revision}")
        })?;
        Ok(format!(
            "{keys} keys at revision {revision}, SHA-256 {}...",
            &sha256[..12]
        ))
    }
}
