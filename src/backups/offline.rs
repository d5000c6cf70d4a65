//! Backups that are looked at without a broker: in their store, in a folder that somebody copied, in an archive
//! that somebody downloaded.
//!
//! What the broker's own store knows is not asked. In a backup store the register of each deployment says what should
//! be there; a backup that lies by itself is as good as any of the same signature. Nothing is changed.

use std::{
    fmt,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use flate2::read::MultiGzDecoder;
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::{fs::File, io::AsyncWriteExt as _, task::spawn_blocking};
use tokio_util::io::ReaderStream;

use self::register::{Attendance, RegisterSeen, Standing};
use super::{
    BackupStoreError, Found, ObjectName, StoredBackup, Vault,
    cipher::{Identity, ObjectKey},
    gauge::{Expecting, Tally, gauged},
    manifest,
    signature::{Signature, Unfit, check_signature},
    store::SharedPlace,
    unpacked,
};
use crate::{
    disk::{self, Unfinished},
    model::{
        backup::{MANIFEST_FILE, Manifest, SNAPSHOT_FILE, TENANT_SNAPSHOT_FILE},
        ids::BackupId,
        limits::{CHUNK_BYTES, register::MANIFEST_BYTES_MAX},
        sentence::counted,
    },
    seal::{KeyRing, SealError, age::PrivateKeys, key_of},
    stream::ByteStream,
};

mod register;
mod tenant;

/// What is looked at.
#[derive(Debug)]
pub enum Suspect {
    /// An archive that was downloaded.
    Archive(PathBuf),
    /// A folder with a manifest and, beside it, a snapshot or an object.
    Folder(PathBuf),
    /// A backup store.
    Store(SharedPlace),
}

/// What a look at a backup came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// All of it is as its manifest says. Whose manifest that is, [`Signature`] tells.
    Whole(Signature),
    /// The bytes are those that its manifest tells of. They were not opened, for lack of this key.
    NotOpened(String),
    /// The same, of one that is sealed for this key of its tenant.
    ForTenant(String),
    /// It is whole, and its deployment's register has it no more, and why that may be.
    GivenUp(String),
    /// It is not what was stored, and why.
    Damaged(String),
}

/// A backup that was looked at, or the register of a deployment's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    /// Its name in its store, or where it is.
    pub what: String,
    /// What it is a snapshot of, for people; empty where that cannot be told.
    pub content: String,
    /// What it came to.
    pub verdict: Verdict,
}

impl fmt::Display for Looked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, why) = match &self.verdict {
            Verdict::Whole(Signature::Good(key)) => {
                ("whole", format!("signed by a broker with key {key}"))
            }
            Verdict::Whole(Signature::Unchecked(key)) => (
                "whole",
                format!("not checked who signed it, without key {key}"),
            ),
            Verdict::Whole(Signature::None) => (
                "whole",
                "not signed, as those of earlier versions".to_owned(),
            ),
            Verdict::NotOpened(key) => (
                "not opened",
                format!("the stored bytes are those of its manifest; to open them, give key {key}"),
            ),
            Verdict::ForTenant(recipient) => (
                "not opened",
                format!(
                    "the stored bytes are those of its manifest; it is sealed for {recipient}: to open them, give \
                     the private key to that with --identity"
                ),
            ),
            Verdict::GivenUp(reason) => ("given up", reason.clone()),
            Verdict::Damaged(reason) => ("damaged", reason.clone()),
        };
        write!(f, "{word}: {}", self.what)?;
        if !self.content.is_empty() {
            write!(f, " ({})", self.content)?;
        }
        write!(f, ": {why}")
    }
}

/// What is asked of a look.
#[derive(Debug, Default)]
pub struct Wanted {
    /// The key ring; none: what is sealed is not opened, and no signature looked at.
    pub keys: Option<Arc<KeyRing>>,
    /// Private keys of a tenant; none: what is sealed for these is not opened.
    pub private: Option<Arc<PrivateKeys>>,
    /// This backup of a store alone.
    pub only: Option<BackupId>,
    /// Where the snapshot is written to when it is whole; there must be one backup then.
    pub to: Option<PathBuf>,
}

impl Wanted {
    fn wants(&self, backup: &BackupId) -> bool {
        self.only.as_ref().is_none_or(|only| only == backup)
    }
}

/// Why a look came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// There is nothing to look at.
    #[error("there is no backup in {0}")]
    Nothing(String),
    /// There is a snapshot to be written, and more than one.
    #[error("there is more than one backup in {0}: say which one with --backup")]
    Several(String),
    /// It cannot be opened without its key, so it cannot be written.
    #[error("the snapshot cannot be written: it is sealed under key {0}, which is not given")]
    KeyMissing(String),
    /// The same of one that is sealed for a key of its tenant.
    #[error(
        "the snapshot cannot be written: it is sealed for {0}, and the private key to that is not given (--identity)"
    )]
    PrivateKeyMissing(String),
    /// The store did not do its part.
    #[error(transparent)]
    Store(#[from] BackupStoreError),
    /// A file cannot be read or written.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Suspect {
    /// What is at a path of this machine: an archive, a folder with a backup, or a store.
    pub fn at(path: &Path) -> Result<Self, LookError> {
        let metadata = path.metadata().map_err(failed("cannot read", path))?;
        if !metadata.is_dir() {
            return Ok(Self::Archive(path.to_owned()));
        }
        if path.join(MANIFEST_FILE).exists() {
            return Ok(Self::Folder(path.to_owned()));
        }
        let full = disk::full_path(path).map_err(failed("cannot read", path))?;
        Ok(Self::Store(super::place_in(full)))
    }
}

/// Looks at all backups there are in `suspect`; `tell` is told of each.
pub async fn verify(
    suspect: &Suspect,
    wanted: &Wanted,
    mut tell: impl FnMut(Looked),
) -> Result<(), LookError> {
    match suspect {
        Suspect::Archive(file) => tell(archive(file, wanted).await?),
        Suspect::Folder(folder) => tell(lone(folder, wanted).await?),
        Suspect::Store(place) => store(place, wanted, &mut tell).await?,
    }
    Ok(())
}

async fn store(
    place: &SharedPlace,
    wanted: &Wanted,
    tell: &mut impl FnMut(Looked),
) -> Result<(), LookError> {
    let mark = place.marker().await?.map(|marker| marker.id);
    // Names and manifests need no key; what does is asked with the ring that was given.
    let none = KeyRing::generate().and_then(|ring| KeyRing::parse(ring.expose()));
    let none = none.map_err(BackupStoreError::NotSealed)?;
    let keys = wanted.keys.clone().unwrap_or_else(|| Arc::new(none));
    let vault = Vault::at(place, mark, keys);
    if wanted.to.is_some() {
        return tell_the_only_one(&vault, place, wanted, tell).await;
    }
    let mut told = 0;
    let mut tell = |looked| {
        told += 1;
        tell(looked);
    };
    let mut of: Option<Attendance<'_>> = None;
    let mut all = vault.list();
    while let Some(next) = all.try_next().await? {
        let (deployment, stored) = match next {
            Found::Backup(stored) => (stored.deployment.clone(), Some(stored)),
            Found::Register(deployment) => (deployment, None),
            Found::Foreign(_) => continue,
        };
        if stored.as_ref().is_some_and(|of| !wanted.wants(&of.backup)) {
            continue;
        }
        let mut now = match of.take() {
            Some(now) if *now.deployment() == deployment => now,
            before => {
                if let Some(before) = before {
                    end(before, &vault, wanted, &mut tell).await?;
                }
                Attendance::of(&vault, wanted.keys.as_deref(), deployment)
            }
        };
        if let Some(stored) = stored
            && let Some(looked) = in_store(&vault, &stored, wanted, &mut now).await?
        {
            tell(looked);
        }
        of = Some(now);
    }
    if let Some(last) = of {
        end(last, &vault, wanted, &mut tell).await?;
    }
    match told {
        0 => Err(LookError::Nothing(place.shown())),
        _ => Ok(()),
    }
}

/// Looks at a backup whose snapshot is to be written: only once it is known to be the only one.
async fn tell_the_only_one(
    vault: &Vault,
    place: &SharedPlace,
    wanted: &Wanted,
    tell: &mut impl FnMut(Looked),
) -> Result<(), LookError> {
    let mut found: Option<StoredBackup> = None;
    let mut all = vault.list();
    while let Some(next) = all.try_next().await? {
        if let Found::Backup(stored) = next
            && wanted.wants(&stored.backup)
            && found.replace(stored).is_some()
        {
            return Err(LookError::Several(place.shown()));
        }
    }
    let only = found.ok_or_else(|| LookError::Nothing(place.shown()))?;
    let mut of = Attendance::of(vault, wanted.keys.as_deref(), only.deployment.clone());
    if let Some(looked) = in_store(vault, &only, wanted, &mut of).await? {
        tell(looked);
    }
    Ok(())
}

/// What the register of a deployment says when its backups have been looked at.
async fn end(
    mut of: Attendance<'_>,
    vault: &Vault,
    wanted: &Wanted,
    tell: &mut impl FnMut(Looked),
) -> Result<(), LookError> {
    if wanted.only.is_some() {
        return Ok(());
    }
    let what = ObjectName::register(of.deployment()).to_string();
    let of_register = |content, verdict| Looked {
        what: what.clone(),
        content,
        verdict,
    };
    let (register, signature, unseen, missing) = match of.end().await? {
        RegisterSeen::None => return Ok(()),
        RegisterSeen::Bad(reason) => {
            tell(of_register(String::new(), Verdict::Damaged(reason)));
            return Ok(());
        }
        RegisterSeen::Whole {
            register,
            signature,
            unseen,
            missing,
        } => (register, signature, unseen, missing),
    };
    for stored in unseen {
        if let Some(looked) = in_store(vault, &stored, wanted, &mut of).await? {
            tell(looked);
        }
    }
    for of in missing {
        let reason = "it is missing: its register has it, and nothing of it is there";
        tell(Looked {
            what: format!("{}/{}", register.deployment_id, of.backup_id),
            content: format!(
                "{}, taken {}",
                of.kind.as_str(),
                of.started_at.format("%Y-%m-%d %H:%M:%S UTC")
            ),
            verdict: Verdict::Damaged(reason.to_owned()),
        });
    }
    let backups = counted(register.backups.len() as u64, "backup");
    let content = format!(
        "register {} of {}, of {backups}",
        register.number,
        register.written_at.format("%Y-%m-%d %H:%M:%S UTC")
    );
    tell(of_register(content, Verdict::Whole(signature)));
    Ok(())
}

/// A backup in a store; none where its broker removed it meanwhile.
async fn in_store(
    vault: &Vault,
    stored: &StoredBackup,
    wanted: &Wanted,
    of: &mut Attendance<'_>,
) -> Result<Option<Looked>, LookError> {
    let (content, verdict) = stored_verdict(vault, stored, wanted, of).await?;
    if matches!(verdict, Verdict::Damaged(_) | Verdict::GivenUp(_))
        && of.was_removed(&stored.backup).await?
    {
        return Ok(None);
    }
    Ok(Some(Looked {
        what: format!("{}/{}", stored.deployment, stored.backup),
        content,
        verdict,
    }))
}

/// What a look at what is stored of a backup comes to.
async fn stored_verdict(
    vault: &Vault,
    stored: &StoredBackup,
    wanted: &Wanted,
    of: &mut Attendance<'_>,
) -> Result<(String, Verdict), LookError> {
    let read = vault.read_manifest_text(&stored.deployment, &stored.backup);
    let (text, manifest) = match read.await {
        Ok(read) => read,
        Err(error) => {
            of.saw(&stored.backup, None).await?;
            let missing = stored
                .missing()
                .map(|object| format!("{object} is missing"));
            return match missing {
                Some(reason) => Ok((String::new(), Verdict::Damaged(reason))),
                None => Ok((String::new(), damage(error)?)),
            };
        }
    };
    let name = ObjectName::snapshot_of(&manifest);
    let verdict = match vault.read(&name).await {
        Ok(object) => of_object(&text, &manifest, object, wanted).await?,
        Err(error) => damage(error)?,
    };
    let standing = of.saw(&stored.backup, Some((&text, &manifest))).await?;
    let verdict = match (verdict, standing) {
        (Verdict::Damaged(reason), _) | (_, Standing::Replaced(reason)) => Verdict::Damaged(reason),
        (Verdict::Whole(_), Standing::GivenUp(reason)) => Verdict::GivenUp(reason),
        (verdict, _) => verdict,
    };
    Ok((content_of(&manifest), verdict))
}

/// A folder with a manifest and what it tells of.
async fn lone(folder: &Path, wanted: &Wanted) -> Result<Looked, LookError> {
    let what = folder.display().to_string();
    let file = folder.join(MANIFEST_FILE);
    let text = read_manifest(&file).await?;
    let manifest = match manifest::parse(&text) {
        Ok(manifest) => manifest,
        Err(reason) => {
            let verdict = Verdict::Damaged(format!("{MANIFEST_FILE}: {reason}"));
            return Ok(Looked {
                what,
                content: String::new(),
                verdict,
            });
        }
    };
    let content = content_of(&manifest);
    let object = ObjectName::snapshot_of(&manifest);
    let (_, object) = object.as_str().rsplit_once('/').unwrap_or_default();
    let (clear, packed) = (folder.join(SNAPSHOT_FILE), folder.join(object));
    let verdict = if packed.exists() {
        of_object(&text, &manifest, bytes_of(&packed).await?, wanted).await?
    } else if clear.exists() {
        of_snapshot(&text, &manifest, bytes_of(&clear).await?, wanted).await?
    } else {
        Verdict::Damaged(format!("there is neither {object} nor {SNAPSHOT_FILE}"))
    };
    Ok(Looked {
        what,
        content,
        verdict,
    })
}

/// A backup as it lies in its store.
async fn of_object(
    text: &[u8],
    manifest: &Manifest,
    object: ByteStream,
    wanted: &Wanted,
) -> Result<Verdict, LookError> {
    let name = ObjectName::snapshot_of(manifest);
    let signature = match signature(text, manifest, wanted) {
        Ok(signature) => signature,
        Err(reason) => return Ok(Verdict::Damaged(reason)),
    };
    if manifest.sealed_for.is_some() {
        return tenant::of_object(manifest, object, signature, wanted).await;
    }
    let key = match (&manifest.stored.sealing, &wanted.keys) {
        (None, _) => None,
        (Some(_), None) => {
            return of_closed_object(&name, manifest, object, wanted).await;
        }
        (Some(_), Some(keys)) => match manifest::object_key(manifest, keys) {
            Ok(key) => Some(key),
            Err(Unfit::Seal(_, SealError::UnknownKey(_))) => {
                return of_closed_object(&name, manifest, object, wanted).await;
            }
            Err(unfit) => return Ok(Verdict::Damaged(told(unfit))),
        },
    };
    open(&name, manifest, object, key, wanted)
        .await
        .map(|damage| damage.unwrap_or(Verdict::Whole(signature)))
}

async fn open(
    name: &ObjectName,
    manifest: &Manifest,
    object: ByteStream,
    key: Option<ObjectKey>,
    wanted: &Wanted,
) -> Result<Option<Verdict>, LookError> {
    match unpacked(object, name, &manifest.stored, key) {
        Ok(snapshot) => to_the_end(snapshot, name, wanted).await,
        Err(error) => damage(error).map(Some),
    }
}

/// Its bytes alone: nobody gave the key.
async fn of_closed_object(
    name: &ObjectName,
    manifest: &Manifest,
    object: ByteStream,
    wanted: &Wanted,
) -> Result<Verdict, LookError> {
    let sealed = manifest.sealed_key.as_deref().unwrap_or_default();
    let key = key_of(sealed).unwrap_or(sealed).to_owned();
    if wanted.to.is_some() {
        return Err(LookError::KeyMissing(key));
    }
    let expected = Expecting::object(name, &manifest.stored);
    let looked = to_the_end(gauged(object, expected), name, wanted).await?;
    Ok(looked.unwrap_or(Verdict::NotOpened(key)))
}

/// A backup as it was downloaded, and unpacked.
async fn of_snapshot(
    text: &[u8],
    manifest: &Manifest,
    snapshot: ByteStream,
    wanted: &Wanted,
) -> Result<Verdict, LookError> {
    let signature = match signature(text, manifest, wanted) {
        Ok(signature) => signature,
        Err(reason) => return Ok(Verdict::Damaged(reason)),
    };
    let name = ObjectName::snapshot_of(manifest);
    let expected = Expecting::snapshot(&name, &manifest.stored);
    let looked = to_the_end(gauged(snapshot, expected), &name, wanted).await?;
    Ok(looked.unwrap_or(Verdict::Whole(signature)))
}

/// What the signature of a manifest says; else why it cannot be believed.
fn signature(text: &[u8], manifest: &Manifest, wanted: &Wanted) -> Result<Signature, String> {
    let Some(signed) = &manifest.signature else {
        return match manifest.stored.sealing {
            Some(_) => Err("its manifest is not signed".to_owned()),
            None => Ok(Signature::None),
        };
    };
    let key = key_of(signed).unwrap_or(signed).to_owned();
    let Some(keys) = &wanted.keys else {
        return Ok(Signature::Unchecked(key));
    };
    match check_signature(text, manifest, keys) {
        Ok(()) => Ok(Signature::Good(key)),
        Err(Unfit::Seal(_, SealError::UnknownKey(key))) => Ok(Signature::Unchecked(key)),
        Err(unfit) => Err(told(unfit)),
    }
}

fn told(unfit: Unfit) -> String {
    match unfit {
        Unfit::Form(reason) => reason,
        Unfit::Seal(what, error) => format!("{what} {error}"),
    }
}

/// Reads all of a stream, into a file where one is wanted; returns what is wrong with it.
async fn to_the_end(
    mut content: ByteStream,
    name: &ObjectName,
    wanted: &Wanted,
) -> Result<Option<Verdict>, LookError> {
    let mut out = match &wanted.to {
        Some(target) => {
            let (unfinished, file) =
                Unfinished::beside(target).map_err(failed("cannot write", target))?;
            Some((unfinished, File::from_std(file), target))
        }
        None => None,
    };
    loop {
        match content.try_next().await {
            Ok(None) => break,
            Ok(Some(chunk)) => {
                if let Some((_, file, target)) = &mut out {
                    let written = file.write_all(&chunk).await;
                    written.map_err(failed("cannot write", target))?;
                }
            }
            Err(error) => {
                return damage(BackupStoreError::of_reading(name, error)).map(Some);
            }
        }
    }
    if let Some((unfinished, mut file, target)) = out {
        let cannot = || failed("cannot write", target);
        disk::sync(&mut file).await.map_err(cannot())?;
        unfinished.publish_new().map_err(cannot())?;
    }
    Ok(None)
}

/// What an error says of the backup; else why nobody can tell.
fn damage(error: BackupStoreError) -> Result<Verdict, LookError> {
    match error {
        BackupStoreError::Damaged { reason, .. } => Ok(Verdict::Damaged(reason)),
        BackupStoreError::NotFound(object) => Ok(Verdict::Damaged(format!("{object} is missing"))),
        BackupStoreError::KeyMissing { key, .. } => Ok(Verdict::NotOpened(key)),
        error => Err(error.into()),
    }
}

/// An archive that was downloaded.
async fn archive(file: &Path, wanted: &Wanted) -> Result<Looked, LookError> {
    let what = file.display().to_string();
    let (path, to) = (file.to_owned(), wanted.to.clone());
    let read = spawn_blocking(move || unpack(&path, to.as_deref())).await;
    let read = read.map_err(|error| LookError::Io {
        doing: format!("cannot read {}", file.display()),
        source: io::Error::other(error),
    })??;
    let (content, verdict) = match read {
        Ok(unpacked) => {
            let manifest = manifest::parse(&unpacked.manifest).ok();
            let verdict = verdict_of_archive(&unpacked, wanted);
            let verdict = match (verdict, &manifest) {
                (Verdict::Whole(signature), Some(manifest)) if manifest.sealed_for.is_some() => {
                    let object = tenant::object_in(file);
                    tenant::of_object(manifest, object, signature, wanted).await?
                }
                (verdict, _) => verdict,
            };
            let is_sealed = manifest.as_ref().is_some_and(|of| of.sealed_for.is_some());
            if matches!(verdict, Verdict::Whole(_))
                && !is_sealed
                && let (Some(unfinished), Some(target)) = (unpacked.out, &wanted.to)
            {
                unfinished
                    .publish_new()
                    .map_err(failed("cannot write", target))?;
            }
            (
                manifest.as_ref().map(content_of).unwrap_or_default(),
                verdict,
            )
        }
        Err(reason) => (String::new(), Verdict::Damaged(reason)),
    };
    Ok(Looked {
        what,
        content,
        verdict,
    })
}

/// What was found in an archive.
struct Unpacked {
    bytes: u64,
    sha256: String,
    manifest: Vec<u8>,
    /// The snapshot, where it is wanted.
    out: Option<Unfinished>,
}

fn verdict_of_archive(unpacked: &Unpacked, wanted: &Wanted) -> Verdict {
    let manifest = match manifest::parse(&unpacked.manifest) {
        Ok(manifest) => manifest,
        Err(reason) => return Verdict::Damaged(format!("{MANIFEST_FILE}: {reason}")),
    };
    let stored = &manifest.stored;
    let (bytes, sha256) = match manifest.sealed_for {
        Some(_) => (stored.object_bytes, &stored.object_sha256),
        None => (stored.snapshot_bytes, &stored.snapshot_sha256),
    };
    if (unpacked.bytes, &unpacked.sha256) != (bytes, sha256) {
        let reason = format!(
            "its snapshot has {} bytes and the SHA-256 {}, and not {bytes} and {sha256}",
            unpacked.bytes, unpacked.sha256
        );
        return Verdict::Damaged(reason);
    }
    match signature(&unpacked.manifest, &manifest, wanted) {
        Ok(signature) => Verdict::Whole(signature),
        Err(reason) => Verdict::Damaged(reason),
    }
}

/// Reads an archive to its last byte. What is wrong with it is the inner error.
fn unpack(path: &Path, to: Option<&Path>) -> Result<Result<Unpacked, String>, LookError> {
    let file = std::fs::File::open(path).map_err(failed("cannot read", path))?;
    let mut out = match to {
        Some(target) => Some(Unfinished::beside(target).map_err(failed("cannot write", target))?),
        None => None,
    };
    let mut plain = MultiGzDecoder::new(io::BufReader::with_capacity(CHUNK_BYTES, file));
    let mut into = |chunk: &[u8]| match (&mut out, to) {
        (Some((_, file)), Some(target)) => {
            io::Write::write_all(file, chunk).map_err(failed("cannot write", target))
        }
        _ => Ok(()),
    };
    let read = match entries(&mut plain, &mut into)? {
        Ok((tally, text)) => {
            // The end of the tar is not the end of the stream, which has a checksum.
            let rest = io::copy(&mut plain, &mut io::sink());
            rest.map(|_| (tally.measure(), text))
                .map_err(|e| e.to_string())
        }
        Err(reason) => Err(reason),
    };
    Ok(read.map(|(measure, manifest)| Unpacked {
        bytes: measure.bytes,
        sha256: measure.sha256,
        manifest,
        out: out.map(|(unfinished, _)| unfinished),
    }))
}

type Entries = Result<(Tally, Vec<u8>), String>;

/// The snapshot of a tar, measured, and its manifest.
fn entries(
    plain: &mut impl Read,
    into: &mut impl FnMut(&[u8]) -> Result<(), LookError>,
) -> Result<Entries, LookError> {
    let (mut snapshot, mut text) = (None, None);
    let mut tar = tar::Archive::new(plain);
    let entries = match tar.entries() {
        Ok(entries) => entries,
        Err(error) => return Ok(Err(error.to_string())),
    };
    for entry in entries {
        let mut entry = match entry {
            Ok(entry) => entry,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let path = entry.path_bytes().into_owned();
        let names = [SNAPSHOT_FILE, TENANT_SNAPSHOT_FILE];
        if names.iter().any(|name| path == name.as_bytes()) && snapshot.is_none() {
            let (mut tally, mut piece) = (Tally::new(), vec![0; CHUNK_BYTES]);
            loop {
                match entry.read(&mut piece) {
                    Ok(0) => break,
                    Ok(length) => {
                        tally.add(&piece[..length]);
                        into(&piece[..length])?;
                    }
                    Err(error) => return Ok(Err(error.to_string())),
                }
            }
            snapshot = Some(tally);
        } else if path == MANIFEST_FILE.as_bytes() && text.is_none() {
            let mut read = Vec::new();
            let most = MANIFEST_BYTES_MAX as u64 + 1;
            match (&mut entry).take(most).read_to_end(&mut read) {
                Ok(length) if length > MANIFEST_BYTES_MAX => {
                    let reason =
                        format!("{MANIFEST_FILE} is longer than {MANIFEST_BYTES_MAX} bytes");
                    return Ok(Err(reason));
                }
                Ok(_) => text = Some(read),
                Err(error) => return Ok(Err(error.to_string())),
            }
        }
    }
    Ok(match (snapshot, text) {
        (Some(tally), Some(text)) => Ok((tally, text)),
        _ => Err(format!(
            "there is no {SNAPSHOT_FILE} with a {MANIFEST_FILE} in it"
        )),
    })
}

async fn read_manifest(file: &Path) -> Result<Vec<u8>, LookError> {
    let read = tokio::fs::metadata(file).await;
    let length = read.map_err(failed("cannot read", file))?.len();
    if length > MANIFEST_BYTES_MAX as u64 {
        return Ok(Vec::new());
    }
    tokio::fs::read(file)
        .await
        .map_err(failed("cannot read", file))
}

async fn bytes_of(file: &Path) -> Result<ByteStream, LookError> {
    let opened = File::open(file)
        .await
        .map_err(failed("cannot read", file))?;
    Ok(ReaderStream::with_capacity(opened, CHUNK_BYTES).boxed())
}

/// What a backup is a snapshot of, for people.
fn content_of(manifest: &Manifest) -> String {
    let (of, stored) = (Identity::from(manifest), &manifest.stored);
    format!(
        "instance {}, {} {}, {} bytes, taken {}",
        of.instance,
        manifest.engine,
        manifest.version,
        stored.snapshot_bytes,
        manifest.started_at.format("%Y-%m-%d %H:%M:%S UTC")
    )
}

fn failed(doing: &str, file: &Path) -> impl FnOnce(io::Error) -> LookError + use<> {
    let doing = format!("{doing} {}", file.display());
    move |source| LookError::Io { doing, source }
}
