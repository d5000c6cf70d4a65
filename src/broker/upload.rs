//! Takes in backups that users bring along: snapshots that were taken elsewhere.
//!
//! An upload is a backup that waits for its bytes. They come in their order, in as many requests as it takes, to
//! any of the brokers, and are kept in parts in the backup store. A request that breaks off loses what came of
//! its last part at the most; what has come is counted in the store, in one transaction with the part. With the
//! last byte the import is queued.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError},
};

use bytes::{Bytes, BytesMut};
use chrono::{DateTime, Utc};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::Mutex;

use super::{
    BrokerError, BrokerParts, DeploymentView, Downloads, Profiles, due::Outcome, ready::ready,
};
use crate::{
    backups::{Identity, TakenIn, Vault},
    caller::Caller,
    clock::Clock,
    model::{
        audit::AtOnce,
        backup::{Backup, BackupState, check_note},
        ids::{BackupId, InstanceId, OperationId, PartId},
        limits::upload::{
            UPLOAD_HEAD_BYTES, UPLOAD_KEPT, UPLOAD_PART_BYTES, UPLOADS_ENDED_AT_ONCE,
            UPLOADS_OPEN_MAX, UPLOADS_RECEIVED_AT_ONCE,
        },
        operation::{Operation, OperationKind},
        origin::Origin,
        period::BackupKind,
        upload::{self, Part, Upload, UploadError},
        version::Version,
    },
    store::{self, Conn, Store, StoreError},
    stream::ByteStream,
    timekeeper::Timekeeper,
};

/// Why an upload failed that nobody went on with.
const GIVEN_UP: &str = "the upload was not ended in time; begin another one";
/// The same of one that its user gave up.
const DROPPED: &str = "the upload was given up";

/// What an instance cannot do that is not ready.
const NO_BACKUPS: &str = "it takes no backups";

/// What somebody wants to bring along.
#[derive(Debug, Clone)]
pub struct UploadRequest {
    /// The length of the snapshot, in bytes.
    pub bytes: u64,
    /// Its SHA-256 (hex), if that is to be compared.
    pub sha256: Option<String>,
    /// The version of the database that it was taken of; none: that of the instance.
    pub version: Option<Version>,
    /// What is to be remembered of it.
    pub note: String,
}

/// Backups that users bring along.
pub struct Uploads {
    store: Arc<Store>,
    clock: Clock,
    time: Arc<Timekeeper>,
    vault: Vault,
    profiles: Profiles,
    downloads: Arc<Downloads>,
    /// The uploads of which a request is being received.
    receiving: StdMutex<HashSet<BackupId>>,
}

/// The place of a request; it is free again when this goes.
struct Place {
    uploads: Arc<Uploads>,
    upload: BackupId,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.uploads.receiving().remove(&self.upload);
    }
}

impl From<UploadError> for BrokerError {
    fn from(error: UploadError) -> Self {
        let reason = error.to_string();
        match error {
            UploadError::Offset(_) => Self::Conflict(reason),
            UploadError::Length | UploadError::Hash | UploadError::TooLong(_) => {
                Self::BadRequest(reason)
            }
        }
    }
}

impl Uploads {
    pub(super) fn new(parts: &BrokerParts) -> Self {
        Self {
            store: parts.store.clone(),
            clock: parts.clock.clone(),
            time: parts.time.clone(),
            vault: parts.backups.clone(),
            profiles: parts.profiles.clone(),
            downloads: parts.downloads.clone(),
            receiving: StdMutex::default(),
        }
    }

    /// Begins an upload: the backup is listed from here on, and waits for its bytes.
    pub async fn begin(
        &self,
        of: &DeploymentView,
        wanted: UploadRequest,
        origin: Origin,
    ) -> Result<Upload, BrokerError> {
        check_note(&wanted.note).map_err(BrokerError::BadRequest)?;
        let sha256 = upload::check(wanted.bytes, wanted.sha256.as_deref())?;
        let version = wanted.version.unwrap_or(of.deployment.version);
        let profile = self.profiles.get(&of.deployment.engine)?;
        if !profile.restores(version, of.deployment.version) {
            return Err(BrokerError::BadRequest(format!(
                "a backup of version {version} cannot be restored into version {}, which the database \
                 has: import it into an instance of that version or a newer one",
                of.deployment.version
            )));
        }
        // The parts, and the snapshot that is put together of them, beside what others were promised.
        let promised = self.store.read(store::upload::promised_bytes).await?;
        let needed = promised.saturating_add(wanted.bytes.saturating_mul(2));
        self.vault.room_for(needed).await?;
        let now = self.clock.now();
        let upload = Upload {
            backup: BackupId::generate(now),
            instance: of.instance.id.clone(),
            deployment: of.deployment.id.clone(),
            bytes: wanted.bytes,
            sha256,
            version,
            received: 0,
            touched_at: now,
        };
        let begun = upload.clone();
        self.store
            .decide(move |conn| begin(conn, &upload, &wanted.note, origin))
            .await?;
        Ok(begun)
    }

    /// The uploads of an instance that are not over, the oldest in front, and the operations that make them backups.
    pub async fn open(
        &self,
        instance: InstanceId,
    ) -> Result<Vec<(Upload, Option<OperationId>)>, BrokerError> {
        let read = self.store.read(move |conn| {
            let open = open_of(conn, &instance)?.into_iter();
            Ok(open
                .map(|(upload, backup)| {
                    let import = upload.is_whole().then_some(backup.operation);
                    (upload, import)
                })
                .collect())
        });
        Ok(read.await?)
    }

    /// An upload of an instance that is not over, and the operation that makes it a backup.
    pub async fn find(
        &self,
        instance: InstanceId,
        id: BackupId,
    ) -> Result<(Upload, Option<OperationId>), BrokerError> {
        let read = self.store.read(move |conn| {
            Ok((
                store::upload::find(conn, &id)?,
                store::backup::find(conn, &id)?,
            ))
        });
        let (upload, backup) = read.await?;
        let backup = backup.filter(|backup| backup.instance == instance);
        match (upload, backup) {
            (Some(upload), Some(backup)) if waits(&backup) => {
                let import = upload.is_whole().then_some(backup.operation);
                Ok((upload, import))
            }
            (_, Some(backup)) if backup.kind == BackupKind::Imported => {
                Err(BrokerError::NotFound(format!(
                    "the upload is over; what came of it, the backup {} tells",
                    backup.id
                )))
            }
            _ => Err(no_such_upload()),
        }
    }

    /// Takes in the next bytes of an upload, from `offset` on; returns how far it is then. What came before an
    /// error counts, but for a part that was not whole. A file that is none, or is longer than it was told to be,
    /// ends the upload.
    pub async fn receive(
        self: &Arc<Self>,
        of: &DeploymentView,
        id: BackupId,
        (offset, content): (u64, ByteStream),
        origin: Origin,
    ) -> Result<(Upload, Option<OperationId>), BrokerError> {
        let instance = of.instance.id.clone();
        let (upload, import) = self.find(instance.clone(), id.clone()).await?;
        upload.goes_on_at(offset)?;
        let source = Source::of(content);
        if import.is_some() {
            return match source.is_over().await {
                true => Ok((upload, import)),
                false => Err(UploadError::TooLong(upload.bytes).into()),
            };
        }
        let place = self.place_for(&upload)?;
        if offset == 0 {
            let head = source.head().await;
            self.check_head(of, &upload, &head, origin).await?;
        }
        // Sealing takes time that the threads which answer requests do not have; and what has come is kept,
        // also where its sender is gone by then.
        let (uploads, caller) = (self.clone(), Caller::current());
        let received = self.downloads.run(async move {
            let _place = place;
            caller
                .during(uploads.store_parts(upload, source, origin))
                .await
        });
        received.await?;
        self.find(instance, id).await
    }

    /// A place for one request of an upload, which has no other one.
    fn place_for(self: &Arc<Self>, upload: &Upload) -> Result<Place, BrokerError> {
        let mut receiving = self.receiving();
        if receiving.len() >= UPLOADS_RECEIVED_AT_ONCE {
            return Err(BrokerError::Busy);
        }
        if !receiving.insert(upload.backup.clone()) {
            let reason = "another request sends bytes of this upload; ask for it, and go on when that has ended";
            return Err(BrokerError::Conflict(reason.to_owned()));
        }
        Ok(Place {
            uploads: self.clone(),
            upload: upload.backup.clone(),
        })
    }

    fn receiving(&self) -> MutexGuard<'_, HashSet<BackupId>> {
        self.receiving
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails when a file that begins so is no snapshot, and ends its upload.
    async fn check_head(
        &self,
        of: &DeploymentView,
        upload: &Upload,
        head: &[u8],
        origin: Origin,
    ) -> Result<(), BrokerError> {
        let least = upload.bytes.min(UPLOAD_HEAD_BYTES as u64);
        if (head.len() as u64) < least {
            // A client that broke off so early does not hear of it, and begins again.
            let reason = format!("the first request has to bring {least} bytes at least");
            return Err(BrokerError::BadRequest(reason));
        }
        let profile = self.profiles.get(&of.deployment.engine)?;
        if let Err(reason) = (profile.check_head)(head) {
            let reason = format!("the file is no snapshot: {reason}");
            self.end(upload, &reason, origin).await?;
            return Err(BrokerError::BadRequest(reason));
        }
        Ok(())
    }

    async fn store_parts(
        &self,
        mut upload: Upload,
        source: Source,
        origin: Origin,
    ) -> Result<(), BrokerError> {
        let of = Identity::from(&upload);
        while !source.is_over().await {
            let id = PartId::generate(self.clock.now());
            let left = upload.bytes.saturating_sub(upload.received);
            self.vault.room_for(left.min(UPLOAD_PART_BYTES)).await?;
            let content = source.part(UPLOAD_PART_BYTES);
            let stored = self.vault.take_in_part(&of, &id, content).await;
            let TakenIn { stored, sealed_key } = match stored {
                Ok(taken) => taken,
                // Where the upload was given up meanwhile, its folder went under this.
                Err(error) => {
                    self.find(of.instance, of.backup).await?;
                    return Err(error.into());
                }
            };
            let part = Part {
                id: id.clone(),
                at: upload.received,
                stored,
                sealed_key,
            };
            let (now, wanted) = (self.clock.now(), upload.backup.clone());
            let added = self
                .store
                .decide(move |conn| add(conn, &wanted, &part, (origin, now)));
            match added.await {
                Ok(more) => upload = more,
                Err(error) => {
                    self.vault.remove_part(&of, &id).await?;
                    if let BrokerError::BadRequest(reason) = &error {
                        self.end(&upload, reason, origin).await?;
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Gives up an upload that is not whole, with all that has come of it.
    pub async fn give_up(
        &self,
        of: &DeploymentView,
        id: BackupId,
        origin: Origin,
    ) -> Result<(), BrokerError> {
        loop {
            let found = self.find(of.instance.id.clone(), id.clone()).await?;
            let (upload, None) = found else {
                let reason = "all of the upload has come, and is being made a backup";
                return Err(BrokerError::Concurrency(reason.to_owned()));
            };
            // Otherwise bytes have come meanwhile.
            if self.end(&upload, DROPPED, origin).await? {
                return Ok(());
            }
        }
    }

    /// Gives up uploads that nobody has gone on with for long; returns how many. Not while the clock is in doubt.
    pub async fn end_due(&self) -> Result<usize, BrokerError> {
        let Some(now) = self.time.trusted() else {
            return Ok(0);
        };
        let before = now.time() - UPLOAD_KEPT;
        let due = self
            .store
            .read(move |conn| store::upload::silent_since(conn, before, UPLOADS_ENDED_AT_ONCE));
        let mut ends = Outcome::default();
        for upload in due.await? {
            let ended = self.end(&upload, GIVEN_UP, Origin::Retention).await;
            if !ends.goes_on(ended) {
                break;
            }
        }
        ends.end()
    }

    /// Ends an upload, unless bytes have come to it. It is closed first. As long as its row is there, a look comes
    /// by again: the store of backups may be away.
    async fn end(&self, upload: &Upload, why: &str, origin: Origin) -> Result<bool, BrokerError> {
        let now = self.clock.now();
        let (begun, why) = (upload.clone(), why.to_owned());
        let closed = self.store.decide(move |conn| {
            let Some(found) = store::upload::find(conn, &begun.backup)? else {
                return Ok(false);
            };
            let backup = store::backup::find(conn, &begun.backup)?;
            if !backup.as_ref().is_some_and(waits) {
                return Ok(true);
            }
            if found.received != begun.received {
                return Ok(false);
            }
            store::backup::fail(conn, &begun.backup, &why, now)?;
            store::upload::forsake(conn, &begun.backup)?;
            let of = (&begun.instance, &begun.backup);
            store::audit::done_to_backup(conn, AtOnce::UploadEnd, origin, of, now)?;
            Ok::<_, BrokerError>(true)
        });
        if !closed.await? {
            return Ok(false);
        }
        self.vault
            .remove(&upload.deployment, &upload.backup)
            .await?;
        let id = upload.backup.clone();
        let forget = self
            .store
            .write(move |conn| store::upload::delete(conn, &id));
        forget.await?;
        Ok(true)
    }
}

/// Whether the backup of an upload waits for its bytes, or is being made of them. Of one that is given up a part may
/// be there still.
fn waits(backup: &Backup) -> bool {
    matches!(backup.state, BackupState::Pending | BackupState::Running)
}

/// The uploads of an instance that are not over, each with its backup.
fn open_of(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
) -> Result<Vec<(Upload, Backup)>, StoreError> {
    let mut open = Vec::new();
    for upload in store::upload::of_instance(conn, instance)? {
        let backup = store::backup::find(conn, &upload.backup)?;
        open.extend(backup.filter(waits).map(|backup| (upload, backup)));
    }
    Ok(open)
}

fn no_such_upload() -> BrokerError {
    BrokerError::NotFound("there is no such upload".to_owned())
}

fn begin(
    conn: &mut Conn<'_>,
    upload: &Upload,
    note: &str,
    origin: Origin,
) -> Result<(), BrokerError> {
    ready(conn, &upload.instance, NO_BACKUPS)?;
    let open = open_of(conn, &upload.instance)?;
    if open.len() >= UPLOADS_OPEN_MAX {
        return Err(BrokerError::Concurrency(format!(
            "{} uploads of this instance are open; end or give up one of them first",
            open.len()
        )));
    }
    let now = upload.touched_at;
    let (of, operation) = (
        (&upload.instance, &upload.deployment),
        OperationId::generate(now),
    );
    let kind = BackupKind::Imported;
    let backup = Backup {
        note: note.to_owned(),
        ..Backup::asked_for(upload.backup.clone(), of, operation, kind, now)
    };
    store::backup::insert(conn, &backup)?;
    store::upload::insert(conn, upload)?;
    let of = (&upload.instance, &upload.backup);
    Ok(store::audit::done_to_backup(
        conn,
        AtOnce::Upload,
        origin,
        of,
        now,
    )?)
}

/// Counts a part that is stored; with the last one the import is queued.
fn add(
    conn: &mut Conn<'_>,
    id: &BackupId,
    part: &Part,
    (origin, now): (Origin, DateTime<Utc>),
) -> Result<Upload, BrokerError> {
    let upload = store::upload::find(conn, id)?.ok_or_else(no_such_upload)?;
    let backup = store::backup::find(conn, id)?;
    let backup = backup.filter(|backup| backup.state == BackupState::Pending);
    let backup = backup.ok_or_else(no_such_upload)?;
    ready(conn, &upload.instance, NO_BACKUPS)?;
    let upload = upload.with(part, now)?;
    store::upload::add(conn, &upload, part)?;
    if upload.is_whole() {
        queue(conn, &backup, origin, now)?;
    }
    Ok(upload)
}

fn queue(
    conn: &mut Conn<'_>,
    backup: &Backup,
    origin: Origin,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let kind = OperationKind::Import;
    let operation = Operation {
        id: backup.operation.clone(),
        backup: Some(backup.id.clone()),
        ..Operation::queued(kind, &backup.instance, origin, now)
    };
    let key = format!("import {}", backup.id);
    store::operation::insert(conn, &operation, Some(&key))
}

/// What a client sends, of which one part after the other is stored.
#[derive(Clone)]
struct Source(Arc<Mutex<Coming>>);

struct Coming {
    content: ByteStream,
    /// What has come and is in no part yet.
    kept: Bytes,
    is_over: bool,
}

impl Coming {
    /// The next bytes; none at the end. A client that breaks off ends it too: what has come until then is what it
    /// sent.
    async fn next(&mut self) -> Option<Bytes> {
        if !self.kept.is_empty() {
            return Some(std::mem::take(&mut self.kept));
        }
        while !self.is_over {
            match self.content.try_next().await {
                Ok(Some(bytes)) if bytes.is_empty() => {}
                Ok(Some(bytes)) => return Some(bytes),
                Ok(None) | Err(_) => self.is_over = true,
            }
        }
        None
    }
}

impl Source {
    fn of(content: ByteStream) -> Self {
        Self(Arc::new(Mutex::new(Coming {
            content,
            kept: Bytes::new(),
            is_over: false,
        })))
    }

    /// The first bytes, which stay.
    async fn head(&self) -> Bytes {
        let mut coming = self.0.lock().await;
        let mut head = BytesMut::new();
        while head.len() < UPLOAD_HEAD_BYTES {
            match coming.next().await {
                Some(bytes) => head.extend_from_slice(&bytes),
                None => break,
            }
        }
        coming.kept = head.freeze();
        coming.kept.clone()
    }

    /// Whether nothing more comes; waits for the next bytes.
    async fn is_over(&self) -> bool {
        let mut coming = self.0.lock().await;
        match coming.next().await {
            Some(bytes) => {
                coming.kept = bytes;
                false
            }
            None => true,
        }
    }

    /// The next bytes, at most so many.
    fn part(&self, bytes_max: u64) -> ByteStream {
        let source = self.0.clone();
        stream::unfold(bytes_max, move |left| {
            let source = source.clone();
            async move {
                if left == 0 {
                    return None;
                }
                let mut coming = source.lock().await;
                let mut bytes = coming.next().await?;
                let length = usize::try_from(left).unwrap_or(usize::MAX);
                coming.kept = bytes.split_off(length.min(bytes.len()));
                let left = left - bytes.len() as u64;
                Some((Ok(bytes), left))
            }
        })
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn source(chunks: &[&'static [u8]], end: Option<io::Error>) -> Source {
        let chunks: Vec<_> = chunks.iter().map(|c| Ok(Bytes::from_static(c))).collect();
        Source::of(stream::iter(chunks.into_iter().chain(end.map(Err))).boxed())
    }

    async fn parts(source: &Source, bytes_max: u64) -> Vec<Bytes> {
        let mut parts = Vec::new();
        while !source.is_over().await {
            let part: Vec<Bytes> = source.part(bytes_max).try_collect().await.expect("a part");
            parts.push(part.concat().into());
        }
        parts
    }

    #[tokio::test]
    async fn what_comes_is_cut_into_parts_and_nothing_is_lost_or_twice() {
        let chunks: [&[u8]; 4] = [b"abcd", b"", b"e", b"fghij"];
        for (most, expected) in [
            (1, "a b c d e f g h i j"),
            (3, "abc def ghi j"),
            (4, "abcd efgh ij"),
            (10, "abcdefghij"),
            (99, "abcdefghij"),
        ] {
            let source = source(&chunks, None);
            assert_eq!(source.head().await, "abcdefghij");
            assert_eq!(parts(&source, most).await.join(&b' '), expected.as_bytes());
        }
    }

    #[tokio::test]
    async fn what_came_before_a_client_broke_off_is_kept() {
        let lost = io::Error::from(io::ErrorKind::ConnectionReset);
        let source = source(&[b"abc", b"d"], Some(lost));
        assert_eq!(parts(&source, 3).await, ["abc", "d"]);
        assert!(source.is_over().await);
    }
}
