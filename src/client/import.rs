//! A snapshot that becomes a backup of an instance: a file of this machine, as an engine's tool saves it, or as
//! a backup was downloaded.
//!
//! It goes in pieces, each from where the broker says that it has come; so a command that broke off is given
//! again, and goes on with what is there.

use std::{
    fs::File,
    io::{self, Read, Seek as _, SeekFrom},
    path::Path,
};

use bytes::Bytes;
use flate2::read::GzDecoder;
use serde_json::{Value, json};
use tokio::{task::spawn_blocking, time::sleep};

use super::{
    Session,
    backups::status,
    command::ImportBackup,
    compose::Compose,
    download::copy,
    error::{Error, HttpError, Result},
    show::Progress,
};
use crate::{
    disk::Unfinished,
    model::{
        backup::{MANIFEST_FILE, SNAPSHOT_FILE},
        gzip::GZIP_MAGIC,
        limits::{
            CLIENT_POLL,
            register::MANIFEST_BYTES_MAX,
            upload::{CLIENT_PIECE_BYTES, CLIENT_PIECE_TRIES},
        },
        size::size,
    },
};

/// A snapshot that can be read from any place on.
struct Snapshot {
    file: File,
    /// What was unpacked for it, which goes with it.
    _unpacked: Option<Unfinished>,
    bytes: u64,
    sha256: String,
    /// The version that a manifest beside it tells of.
    version: Option<String>,
}

impl Session {
    /// `import-backup`
    pub async fn import(&self, asked: ImportBackup) -> Result<()> {
        let path = asked.file.clone();
        let opened = spawn_blocking(move || open(&path)).await;
        let opened = opened.map_err(io::Error::other).flatten();
        let mut snapshot = opened.map_err(Error::file(&asked.file))?;
        let name = asked.name.as_str();
        let version = asked.db_version.clone().or(snapshot.version.clone());
        let wanted = json!({
            "bytes": snapshot.bytes,
            "sha256": snapshot.sha256,
            "db_version": version,
            "note": asked.note,
        });
        let backup = self
            .with_api(name, async |api| {
                let upload = begun(api, &wanted).await?;
                let progress = self
                    .show
                    .progress(&format!("send {}", asked.file.display()));
                let recipe = self.send(api, &upload, &mut snapshot, &progress).await?;
                progress.done();
                let id = text(&upload["id"]);
                if asked.patience.wait {
                    let title = format!("import backup {id}");
                    let left = "the backup is being imported; that goes on without you";
                    self.wait_for_recipe(api, &title, left, &recipe).await?;
                } else {
                    let text =
                        "the backup is being checked and restored aside; that goes on by itself";
                    self.show.note(text);
                }
                api.backup(&id).await
            })
            .await?;
        let shown = self.show.fields([
            ("service instance", Some(name.to_owned())),
            ("backup", Some(text(&backup["id"]))),
            ("status", Some(status(&backup))),
            ("size", Some(size(snapshot.bytes))),
            ("sha256 of the snapshot", Some(snapshot.sha256.clone())),
        ]);
        self.show.result(&shown, &backup)
    }

    /// Sends what the broker has not yet; returns the recipe that goes on with it.
    async fn send(
        &self,
        api: &Compose<'_>,
        upload: &Value,
        snapshot: &mut Snapshot,
        progress: &Progress,
    ) -> Result<String> {
        let id = text(&upload["id"]);
        let mut failures = 0;
        loop {
            let sent = next_piece(api, &id, snapshot).await;
            let told = match sent {
                Ok(told) => told,
                Err(Error::Http(HttpError::Interrupted)) => {
                    let left = "what was sent is kept for a day: give the same command again, and it goes on";
                    return Err(Error::Interrupted(left.to_owned()));
                }
                // What has come is asked for again.
                Err(error) if may_pass(&error) && failures < CLIENT_PIECE_TRIES => {
                    failures += 1;
                    progress.say(&error.to_string());
                    sleep(self.poll.unwrap_or(CLIENT_POLL)).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            failures = 0;
            let received = told["received_bytes"].as_u64().unwrap_or_default();
            progress.bytes(received, Some(snapshot.bytes), None);
            if let Some(recipe) = told["recipe_id"].as_str() {
                return Ok(recipe.to_owned());
            }
        }
    }
}

/// Whether a piece may come the next time. Another request of the same upload ends by itself, and bytes of it may have
/// come meanwhile.
fn may_pass(error: &Error) -> bool {
    match error {
        Error::Refused(refusal) => refusal.status == 409,
        Error::Http(_) => true,
        _ => false,
    }
}

/// The upload of the same snapshot that was begun before, or a new one.
async fn begun(api: &Compose<'_>, wanted: &Value) -> Result<Value> {
    let open = api.uploads().await?;
    let is_same = |upload: &&Value| {
        upload["sha256"] == wanted["sha256"]
            && upload["bytes"] == wanted["bytes"]
            && (wanted["db_version"].is_null() || upload["version"] == wanted["db_version"])
    };
    match open.iter().find(is_same) {
        Some(upload) => Ok(upload.clone()),
        None => api.begin_upload(wanted).await,
    }
}

/// Sends the piece that the broker has not yet.
async fn next_piece(api: &Compose<'_>, id: &str, snapshot: &mut Snapshot) -> Result<Value> {
    let upload = api.upload(id).await?;
    if upload["recipe_id"].is_string() {
        return Ok(upload);
    }
    let at = upload["received_bytes"].as_u64().unwrap_or_default();
    let piece = read(&mut snapshot.file, at);
    let piece =
        piece.map_err(|error| Error::Failed(format!("the file cannot be read: {error}")))?;
    api.send_piece(id, at, piece).await
}

fn read(file: &mut File, at: u64) -> io::Result<Bytes> {
    file.seek(SeekFrom::Start(at))?;
    let mut piece = Vec::new();
    Read::take(file, CLIENT_PIECE_BYTES).read_to_end(&mut piece)?;
    Ok(piece.into())
}

/// Opens a snapshot, and reads it once; that of an archive is unpacked beside it.
fn open(path: &Path) -> io::Result<Snapshot> {
    let mut file = File::open(path)?;
    let mut head = Vec::new();
    Read::take(&file, GZIP_MAGIC.len() as u64).read_to_end(&mut head)?;
    file.rewind()?;
    if head == GZIP_MAGIC {
        return unpack(path, file).map_err(no_backup);
    }
    let (bytes, sha256) = copy(&mut file, &mut io::sink())?;
    Ok(Snapshot {
        file,
        _unpacked: None,
        bytes,
        sha256,
        version: None,
    })
}

/// What is wrong with an archive.
fn no_backup(error: io::Error) -> io::Error {
    let why = "it is packed with gzip, and is no backup as download-backup writes it";
    io::Error::new(
        error.kind(),
        format!("{why} ({error}); if it is a snapshot, unpack it first"),
    )
}

fn unpack(path: &Path, archive: File) -> io::Result<Snapshot> {
    let mut archive = tar::Archive::new(GzDecoder::new(archive));
    let mut snapshot = None;
    let mut version = None;
    for entry in archive.entries()? {
        let mut entry = entry?;
        match &*entry.path_bytes() {
            name if name == SNAPSHOT_FILE.as_bytes() => {
                let (unpacked, mut out) = Unfinished::beside(path)?;
                let (bytes, sha256) = copy(&mut entry, &mut out)?;
                snapshot = Some((File::open(unpacked.path())?, unpacked, bytes, sha256));
            }
            name if name == MANIFEST_FILE.as_bytes() => {
                let manifest = entry.by_ref().take(MANIFEST_BYTES_MAX as u64);
                let manifest: Value = serde_json::from_reader(manifest)?;
                version = manifest["version"].as_str().map(str::to_owned);
            }
            _ => {}
        }
    }
    let (file, unpacked, bytes, sha256) =
        snapshot.ok_or_else(|| io::Error::other(format!("it has no {SNAPSHOT_FILE}")))?;
    Ok(Snapshot {
        file,
        _unpacked: Some(unpacked),
        bytes,
        sha256,
        version,
    })
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
