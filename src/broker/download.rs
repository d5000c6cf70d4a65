//! Downloads of backups, over links that carry their own permission ([`super::link`]).

use std::{
    collections::HashMap,
    io,
    ops::RangeInclusive,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{StreamExt as _, TryStreamExt as _, future::ready, stream};
use tokio::{
    runtime::Handle,
    sync::mpsc,
    time::{Instant, timeout},
};

use super::{
    BrokerError, BrokerParts,
    audit::Audit,
    backup::Backups,
    deployment::Deployments,
    link::{Links, as_bad_link, bad_link},
};
use crate::{
    backups::{BackupStoreError, Vault, archive},
    caller::Caller,
    clock::Clock,
    model::{
        backup::{Backup, BackupState, Manifest},
        deployment::Deployment,
        download::{Pace, Taker},
        failure::chain,
        holder::Holder,
        ids::{BackupId, DeploymentId, InstanceId},
        limits::{DOWNLOAD_CHUNKS_AHEAD, DOWNLOAD_LENGTHS_REMEMBERED_MAX, DOWNLOAD_STALL_MAX},
        trail::{Accessed, AuditedAccess},
    },
    store::{self, Store},
    stream::ByteStream,
};

/// What a link's signature is made for; no other signature serves.
const PURPOSE: &str = "download";

/// A link to a backup's bytes, as it was followed.
#[derive(Debug)]
pub struct DownloadLink {
    /// The instance in its path.
    pub instance: InstanceId,
    /// The deployment in its path.
    pub deployment: DeploymentId,
    /// The backup in its path.
    pub backup: BackupId,
    /// Until when it is good: seconds since 1970.
    pub expires: String,
    /// Who made it, and the broker's signature.
    pub signature: String,
}

/// A backup's archive that somebody may have.
pub struct BackupDownload {
    /// The file's name.
    pub file_name: String,
    /// The same as long as its bytes are.
    pub tag: String,
    backup: BackupId,
    manifest: Manifest,
    access: AuditedAccess,
    taker: Taker,
}

/// How long an archive is, as it is told before it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveLength {
    /// In bytes, where it was made before.
    pub exact: Option<u64>,
    /// About so many bytes.
    pub about: u64,
}

/// A download that has begun.
pub struct Download {
    /// The file's name.
    pub file_name: String,
    /// Its bytes.
    pub content: ByteStream,
}

/// A download's place; it is free again when this goes.
struct Slot {
    sent: Arc<Mutex<Vec<Taker>>>,
    taker: Taker,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(i) = sent.iter().position(|taker| *taker == self.taker) {
            sent.swap_remove(i);
        }
    }
}

/// Where downloads are made: unpacking and packing costs time that the threads which answer
/// requests do not have, and only so many are made at once.
pub struct Downloads {
    runtime: Handle,
    sent: Arc<Mutex<Vec<Taker>>>,
    /// How long archives are that were measured.
    lengths: Mutex<HashMap<BackupId, u64>>,
}

impl Downloads {
    /// Downloads that are made on `runtime`.
    pub fn on(runtime: Handle) -> Self {
        Self {
            runtime,
            sent: Arc::default(),
            lengths: Mutex::default(),
        }
    }

    /// Does something with the bytes of a backup there, to its end, also where nobody waits for it any more.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, BrokerError>> + Send + 'static,
    ) -> Result<T, BrokerError> {
        let ended = self.runtime.spawn(work).await;
        // It ends otherwise where the broker itself does.
        ended.unwrap_or(Err(BrokerError::Busy))
    }

    fn lengths(&self) -> MutexGuard<'_, HashMap<BackupId, u64>> {
        self.lengths.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, backup: BackupId, length: u64) {
        let mut lengths = self.lengths();
        if lengths.len() >= DOWNLOAD_LENGTHS_REMEMBERED_MAX {
            lengths.clear();
        }
        lengths.insert(backup, length);
    }

    /// The same content, whose length is remembered when all of it was sent.
    fn measured(self: &Arc<Self>, backup: BackupId, content: ByteStream) -> ByteStream {
        // None after an error: what came is not all of it.
        let (downloads, mut length) = (self.clone(), Some(0));
        let ended = stream::once(ready(None));
        let parts = content.map(Some).chain(ended).map(move |chunk| {
            length = match &chunk {
                Some(Ok(bytes)) => length.map(|length| length + bytes.len() as u64),
                Some(Err(_)) => None,
                None => {
                    if let Some(length) = length {
                        downloads.remember(backup.clone(), length);
                    }
                    length
                }
            };
            chunk
        });
        let is_there = |chunk: &Option<_>| ready(chunk.is_some());
        parts.take_while(is_there).filter_map(ready).boxed()
    }

    fn slot_for(&self, taker: Taker) -> Result<Slot, BrokerError> {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        if !taker.has_place(&sent) {
            return Err(BrokerError::Busy);
        }
        sent.push(taker.clone());
        let sent = self.sent.clone();
        Ok(Slot { sent, taker })
    }

    /// Lets `content` be made elsewhere, a few chunks ahead of its reader. A reader that stalls, or
    /// is too slow in all, loses it, and its place.
    pub(super) fn send(
        &self,
        taker: Taker,
        mut content: ByteStream,
    ) -> Result<ByteStream, BrokerError> {
        let place = self.slot_for(taker)?;
        let (chunks, mut reader) = mpsc::channel(DOWNLOAD_CHUNKS_AHEAD);
        self.runtime.spawn(async move {
            let mut pace = Pace::default();
            while let Some(chunk) = content.next().await {
                let (bytes, begun) = (chunk.as_ref().map_or(0, Bytes::len), Instant::now());
                match timeout(pace.patience(), chunks.send(Part::Chunk(chunk))).await {
                    Ok(Ok(())) => pace.took(bytes, begun.elapsed()),
                    // Nobody reads any more.
                    Ok(Err(_)) | Err(_) => return,
                }
            }
            // The client that reads the end may have the next one at once.
            drop(place);
            // Only who reads this far has all of it; that nobody does is no trouble.
            let _ = timeout(DOWNLOAD_STALL_MAX, chunks.send(Part::End)).await;
        });
        let mut ended = false;
        let next = move |context: &mut std::task::Context<'_>| match reader.poll_recv(context) {
            Poll::Pending => Poll::Pending,
            _ if ended => Poll::Ready(None),
            Poll::Ready(Some(Part::Chunk(chunk))) => Poll::Ready(Some(chunk)),
            Poll::Ready(Some(Part::End)) => {
                ended = true;
                Poll::Ready(None)
            }
            // Broken off: it must not look like a good end.
            Poll::Ready(None) => {
                ended = true;
                Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())))
            }
        };
        Ok(futures::stream::poll_fn(next).boxed())
    }
}

/// What comes of a download.
enum Part {
    /// Bytes, or why there are no more.
    Chunk(io::Result<Bytes>),
    /// That was all.
    End,
}

/// Sends the bytes of backups to those who have a link to them.
pub struct Archives {
    store: Arc<Store>,
    clock: Clock,
    vault: Vault,
    links: Arc<Links>,
    downloads: Arc<Downloads>,
    audit: Arc<Audit>,
    deployments: Arc<Deployments>,
    backups: Arc<Backups>,
}

impl Archives {
    pub(super) fn new(
        parts: &BrokerParts,
        links: Arc<Links>,
        audit: Arc<Audit>,
        deployments: Arc<Deployments>,
        backups: Arc<Backups>,
    ) -> Self {
        Self {
            store: parts.store.clone(),
            clock: parts.clock.clone(),
            vault: parts.backups.clone(),
            links,
            downloads: parts.downloads.clone(),
            audit,
            deployments,
            backups,
        }
    }

    /// The query of a link to a backup's bytes, good from now on for
    /// [`DOWNLOAD_LINK_TTL`](crate::model::limits::DOWNLOAD_LINK_TTL), and no longer than `holder`; none for a backup that has no bytes.
    pub async fn download_query(
        &self,
        holder: &Holder,
        backup: &Backup,
    ) -> Result<Option<String>, BrokerError> {
        if backup.state != BackupState::Complete {
            return Ok(None);
        }
        let held = self.links.held(holder, &backup.instance).await?;
        let held = held.ok_or_else(bad_link)?;
        self.audit
            .note(held.access(Accessed::BackupLink, &backup.instance, Some(&backup.id)))
            .await;
        Ok(Some(self.links.query(PURPOSE, backup.id.as_str(), holder)))
    }

    /// The backup of a link, for the client that has a good one. A bad link is answered like an unknown
    /// backup, an old one too.
    pub async fn backup_download(&self, link: DownloadLink) -> Result<BackupDownload, BrokerError> {
        let asked = (link.backup.as_str(), &link.instance);
        let held = self
            .links
            .check(PURPOSE, asked, &link.expires, &link.signature)
            .await?;
        let known = async {
            let of = self
                .deployments
                .deployment(link.instance.clone(), &link.deployment)
                .await?;
            Ok((of, self.backups.backup(link.instance, link.backup).await?))
        };
        let (of, backup) = known.await.map_err(as_bad_link)?;
        let complete = backup.state == BackupState::Complete;
        let manifest = backup.manifest.clone().filter(|_| complete);
        let manifest = manifest.ok_or_else(bad_link)?;
        Ok(BackupDownload {
            file_name: file_name(&of.deployment, &backup),
            taker: Taker::of(&of.instance, Caller::current().address),
            tag: self.vault.archive_tag(&manifest),
            access: held.access(Accessed::Backup, &backup.instance, Some(&backup.id)),
            backup: backup.id,
            manifest,
        })
    }

    /// A gzip'd tar of a backup, or a part of it: bytes from the first to the last, counted from 0. It
    /// breaks off with an error when the backup turns out to be damaged.
    pub async fn download(
        &self,
        of: BackupDownload,
        part: Option<RangeInclusive<u64>>,
    ) -> Result<Download, BrokerError> {
        let all = self.archive(&of).await?;
        let wanted = match part {
            Some(part) => archive::part(all, part),
            None => self.downloads.measured(of.backup, all),
        };
        let content = self.downloads.send(of.taker, wanted)?;
        self.audit.note(of.access).await;
        Ok(Download {
            file_name: of.file_name,
            content,
        })
    }

    /// The archive of a backup, out of the mirror where it is gone from the backup store. That it is spoiled there is
    /// looked into soon, also where that shows only on the way.
    async fn archive(&self, of: &BackupDownload) -> Result<ByteStream, BrokerError> {
        let all = match self.vault.archive(&of.manifest).await {
            Err(error @ (BackupStoreError::NotFound(_) | BackupStoreError::Damaged { .. })) => {
                log::error!(backup:% = of.backup; "a backup that is downloaded is spoiled: {}", chain(&error));
                doubt(&self.store, of.backup.clone(), self.clock.now()).await;
                let copied = self.vault.archive_in_mirror(&of.manifest).await;
                copied.map_err(|_| error)?
            }
            archive => archive?,
        };
        let (store, now) = (self.store.clone(), self.clock.now());
        let (runtime, backup) = (self.downloads.runtime.clone(), of.backup.clone());
        let watched = all.inspect_err(move |_| {
            let (store, backup) = (store.clone(), backup.clone());
            runtime.spawn(async move { doubt(&store, backup, now).await });
        });
        Ok(watched.boxed())
    }

    /// How long the archive of a backup is, as far as that is known without making it; none for one that has
    /// no bytes.
    pub fn length_in_advance(&self, backup: &Backup) -> Option<ArchiveLength> {
        let complete = backup.state == BackupState::Complete;
        let manifest = backup.manifest.as_ref().filter(|_| complete)?;
        Some(ArchiveLength {
            exact: self.downloads.lengths().get(&backup.id).copied(),
            about: archive::about(manifest),
        })
    }

    /// How long a backup's archive is. Where that is not known, it is made once for it, which takes as
    /// long as a download over a fast line.
    pub async fn length_of(&self, of: &BackupDownload) -> Result<u64, BrokerError> {
        if let Some(length) = self.downloads.lengths().get(&of.backup) {
            return Ok(*length);
        }
        let archive = self.archive(of).await?;
        let mut content = self.downloads.send(of.taker.clone(), archive)?;
        let mut length = 0;
        while let Some(chunk) = content.next().await {
            let unpack = |e| BackupStoreError::unpack(e, BackupStoreError::of_source);
            length += chunk.map_err(unpack)?.len() as u64;
        }
        self.downloads.remember(of.backup.clone(), length);
        Ok(length)
    }
}

/// Has the stored bytes of a backup looked at soon.
async fn doubt(store: &Arc<Store>, backup: BackupId, now: DateTime<Utc>) {
    let noted = store.write(move |conn| store::proof::set_doubted(conn, &backup, now));
    if let Err(error) = noted.await {
        log::warn!(
            "a backup that is spoiled is not looked at soon: {}",
            chain(&error)
        );
    }
}

/// The name of a backup in the administration API; no two of an instance have the same.
pub fn backup_name(deployment: &Deployment, backup: &Backup) -> String {
    let time = backup.created_at.format("%Y-%m-%d_%H-%M-%S");
    let name = format!("{}_{time}_utc_{}", deployment.name, backup.kind);
    match backup.namesake {
        0 => name,
        others => format!("{name}_{}", others + 1),
    }
}

/// The same name as a file has it: a platform's instance id may hold anything.
fn file_name(deployment: &Deployment, backup: &Backup) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || "._-".contains(c) {
            c
        } else {
            '_'
        }
    };
    let name: String = backup_name(deployment, backup).chars().map(plain).collect();
    format!("{name}.tar.gz")
}
