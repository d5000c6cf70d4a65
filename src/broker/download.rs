//! Downloads of backups: links that carry their own permission, for a while.

use std::{io, sync::Arc, task::Poll};

use bytes::Bytes;
use chrono::DateTime;
use futures::StreamExt as _;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc},
    time::timeout,
};

use super::{Broker, BrokerError};
use crate::{
    backup_store::{archive, object, pipeline},
    model::{
        backup::{Backup, BackupState},
        deployment::Deployment,
        ids::{BackupId, DeploymentId, InstanceId},
        limits::{DOWNLOAD_CHUNKS_AHEAD, DOWNLOAD_LINK_TTL, DOWNLOAD_STALL_MAX, DOWNLOADS_AT_ONCE},
    },
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
    /// The broker's signature.
    pub signature: String,
}

/// A download that has begun.
pub struct Download {
    /// The file's name.
    pub file_name: String,
    /// A gzip'd tar; it breaks off with an error when the backup turns out to be damaged.
    pub content: ByteStream,
}

/// Where downloads are made: unpacking and packing costs time that the threads which answer
/// requests do not have, and only so many are made at once.
pub struct Downloads {
    runtime: Handle,
    places: Arc<Semaphore>,
}

impl Downloads {
    /// Downloads that are made on `runtime`.
    pub fn on(runtime: Handle) -> Self {
        Self {
            runtime,
            places: Arc::new(Semaphore::new(DOWNLOADS_AT_ONCE)),
        }
    }

    /// Lets `content` be made elsewhere, a few chunks ahead of its reader. A reader that stalls
    /// loses it, and its place.
    pub(super) fn send(&self, mut content: ByteStream) -> Result<ByteStream, BrokerError> {
        let place = self
            .places
            .clone()
            .try_acquire_owned()
            .map_err(|_| BrokerError::Busy)?;
        let (chunks, mut reader) = mpsc::channel(DOWNLOAD_CHUNKS_AHEAD);
        self.runtime.spawn(async move {
            let _place = place;
            while let Some(chunk) = content.next().await {
                match timeout(DOWNLOAD_STALL_MAX, chunks.send(Part::Chunk(chunk))).await {
                    Ok(Ok(())) => {}
                    // Nobody reads any more.
                    Ok(Err(_)) | Err(_) => return,
                }
            }
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

impl Broker {
    /// The query of a link to a backup's bytes, good from now on for [`DOWNLOAD_LINK_TTL`]; none
    /// for a backup that has no bytes.
    pub fn download_query(&self, backup: &Backup) -> Option<String> {
        if backup.state != BackupState::Complete {
            return None;
        }
        Some(self.link_query(PURPOSE, backup.id.as_str()))
    }

    /// The query of a link to what has that id, good from now on for [`DOWNLOAD_LINK_TTL`].
    pub(super) fn link_query(&self, purpose: &str, id: &str) -> String {
        let expires = self.clock.now().timestamp() + DOWNLOAD_LINK_TTL.as_secs().cast_signed();
        let signature = self.keys.sign(purpose, &message(id, expires));
        format!("expires={expires}&signature={signature}")
    }

    /// Fails when the query of a link is not good (any more).
    pub(super) fn check_query(
        &self,
        purpose: &str,
        id: &str,
        expires: &str,
        signature: &str,
    ) -> Result<(), BrokerError> {
        let expires: i64 = expires.parse().map_err(|_| bad_link())?;
        let in_time = DateTime::from_timestamp(expires, 0).is_some_and(|at| at > self.clock.now());
        if in_time && self.keys.verify(purpose, &message(id, expires), signature) {
            Ok(())
        } else {
            Err(bad_link())
        }
    }

    /// Opens a backup for whoever has a good link to it. A bad link is answered like an unknown
    /// backup, an old one too.
    pub async fn download(&self, link: DownloadLink) -> Result<Download, BrokerError> {
        self.check_query(
            PURPOSE,
            link.backup.as_str(),
            &link.expires,
            &link.signature,
        )?;
        let known = async {
            let of = self
                .deployment(link.instance.clone(), &link.deployment)
                .await?
                .deployment;
            Ok((of, self.backup(link.instance, link.backup).await?))
        };
        let (deployment, backup) = known.await.map_err(as_bad_link)?;
        let complete = backup.state == BackupState::Complete;
        let manifest = backup
            .manifest
            .as_ref()
            .filter(|_| complete)
            .ok_or_else(bad_link)?;
        let name = object::snapshot(&backup.deployment, &backup.id);
        let snapshot =
            pipeline::open_snapshot(self.backups.as_ref(), &name, &manifest.stored).await?;
        Ok(Download {
            file_name: file_name(&deployment, &backup),
            content: self.downloads.send(archive::download(snapshot, manifest))?,
        })
    }
}

fn bad_link() -> BrokerError {
    let reason = "this link is not good (any more); ask for a new one";
    BrokerError::NotFound(reason.to_owned())
}

/// Who has a link learns nothing of what it does not lead to.
pub(super) fn as_bad_link(error: BrokerError) -> BrokerError {
    match error {
        BrokerError::NotFound(_) => bad_link(),
        other => other,
    }
}

fn message(id: &str, expires: i64) -> String {
    format!("{id} {expires}")
}

/// The name of a backup in the administration API.
pub fn backup_name(deployment: &Deployment, backup: &Backup) -> String {
    let time = backup.created_at.format("%Y-%m-%d_%H-%M-%S");
    format!("{}_{time}_utc_{}", deployment.name, backup.kind)
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
