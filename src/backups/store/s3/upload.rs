//! How an object comes into a bucket: at once when it is small, else in parts that are all there or none.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{
    StreamExt as _, TryStreamExt as _, stream,
    stream::{BoxStream, FuturesUnordered},
};
use object_store::{
    Attribute, Attributes, GetOptions, MultipartUpload, ObjectStore as _, ObjectStoreExt as _,
    PutMultipartOptions, PutPayload, path::Path,
};
use tokio::{runtime::Handle, time::sleep};
use uuid::Uuid;

use super::{client::Client, listing, refusal::at_bottom};
use crate::{backups::BackupStoreError, model::failure::chain, stream::ByteStream};

/// Parts that an object of S3 may have.
const PARTS_MAX: usize = 10_000;
/// Tells our own object from another one of the same key, when the answer to its end was lost.
const PUT_ID: &str = "compose-broker-put";

/// How long the store waits before each time that it ends an upload that was dropped. The server may still
/// have had one of its parts in hand, and keeps such a part, and with it the upload, for good.
const DROPPED_ENDED_AFTER: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
];

/// Bytes of an object, in a row.
struct Part {
    chunks: Vec<Bytes>,
    bytes: u64,
}

impl From<Part> for PutPayload {
    fn from(part: Part) -> Self {
        part.chunks.into_iter().collect()
    }
}

/// Stores all of `content` under `key`; returns the number of bytes. `what` is its name, for people.
pub(super) async fn put(
    client: &Arc<Client>,
    key: &Path,
    what: &str,
    content: ByteStream,
) -> Result<u64, BackupStoreError> {
    let doing = format!("cannot store {what}");
    let mut parts = parts(content, client.settings.part_bytes);
    let of_source = BackupStoreError::of_source;
    let first = parts.try_next().await.map_err(of_source)?;
    let first = first.unwrap_or(Part {
        chunks: Vec::new(),
        bytes: 0,
    });
    let bytes = first.bytes;
    if bytes < client.settings.part_bytes as u64 {
        let failed = |error| at_bottom(&error).told(&client.address.to_string(), &doing, bytes);
        client
            .library
            .put(key, first.into())
            .await
            .map_err(failed)?;
        return Ok(bytes);
    }
    // Of an earlier try that nobody could end.
    listing::end_uploads_of(client, key)
        .await
        .map_err(client.refused(&doing))?;
    let mut begun = Begun::of(client, key, what).await?;
    let all = stream::iter([Ok(first)]).chain(parts).boxed();
    match begun.send(all, &doing).await {
        Ok(bytes) => {
            begun.upload = None;
            Ok(bytes)
        }
        Err(error) => {
            if let Some(mut upload) = begun.upload.take() {
                abort(&mut *upload, what).await;
            }
            Err(error)
        }
    }
}

/// An upload in parts. One that is dropped is ended beside.
struct Begun {
    client: Arc<Client>,
    key: Path,
    what: String,
    id: String,
    upload: Option<Box<dyn MultipartUpload>>,
}

impl Begun {
    async fn of(client: &Arc<Client>, key: &Path, what: &str) -> Result<Self, BackupStoreError> {
        let id = Uuid::new_v4().to_string();
        let put_id = Attribute::Metadata(PUT_ID.into());
        let options = PutMultipartOptions {
            attributes: Attributes::from_iter([(put_id, id.clone())]),
            ..PutMultipartOptions::default()
        };
        let upload = client.library.put_multipart_opts(key, options).await;
        let upload = upload.map_err(client.failed(&format!("cannot store {what}")))?;
        Ok(Self {
            client: client.clone(),
            key: key.clone(),
            what: what.to_owned(),
            id,
            upload: Some(upload),
        })
    }

    /// Sends all parts, some at once, and has the server put them together.
    async fn send(
        &mut self,
        mut parts: BoxStream<'static, io::Result<Part>>,
        doing: &str,
    ) -> Result<u64, BackupStoreError> {
        let Some(upload) = &mut self.upload else {
            return Ok(0);
        };
        let place = self.client.address.to_string();
        let (mut bytes, mut count) = (0, 0);
        let (mut is_over, mut failure) = (false, None);
        let mut sending = FuturesUnordered::new();
        loop {
            let has_place = sending.len() < self.client.settings.parts_at_once;
            let goes_on = !is_over && failure.is_none() && has_place;
            tokio::select! {
                part = parts.next(), if goes_on => match part {
                    None => is_over = true,
                    Some(Err(error)) => failure = Some(BackupStoreError::of_source(error)),
                    Some(Ok(_)) if count == PARTS_MAX => failure = Some(too_large(doing)),
                    Some(Ok(part)) => {
                        bytes += part.bytes;
                        count += 1;
                        sending.push(upload.put_part(part.into()));
                    }
                },
                // Also after a failure: a part that comes after the end of its upload would stay.
                Some(sent) = sending.next(), if !sending.is_empty() => {
                    if let Err(error) = sent {
                        failure.get_or_insert(at_bottom(&error).told(&place, doing, bytes));
                    }
                }
                else => break,
            }
        }
        if let Some(failure) = failure {
            return Err(failure);
        }
        if let Err(error) = upload.complete().await {
            let error = at_bottom(&error).told(&place, doing, bytes);
            // The server may have done it all the same, and its answer was lost.
            if !self.is_there(bytes).await {
                return Err(error);
            }
            log::info!(
                "{} is stored, though the server's answer was lost",
                self.what
            );
        }
        Ok(bytes)
    }

    /// Whether the object is the one of this very upload.
    async fn is_there(&mut self, bytes: u64) -> bool {
        let options = GetOptions {
            head: true,
            ..GetOptions::default()
        };
        let seen = self.client.library.get_opts(&self.key, options).await;
        let put_id = Attribute::Metadata(PUT_ID.into());
        seen.is_ok_and(|seen| {
            let found = seen.attributes.get(&put_id);
            seen.meta.size == bytes && found.is_some_and(|found| found.as_ref() == self.id)
        })
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let Some(mut upload) = self.upload.take() else {
            return;
        };
        let what = std::mem::take(&mut self.what);
        // Where nobody is left to do it, a later sweep does.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                for pause in DROPPED_ENDED_AFTER {
                    sleep(pause).await;
                    abort(&mut *upload, &what).await;
                }
            });
        }
    }
}

fn too_large(doing: &str) -> BackupStoreError {
    BackupStoreError::Server {
        doing: doing.to_owned(),
        why: format!("it has more than {PARTS_MAX} parts"),
        advice: "raise COMPOSE_BROKER_S3_PART_MIB".to_owned(),
        may_pass: false,
    }
}

async fn abort(upload: &mut dyn MultipartUpload, what: &str) {
    let ended = upload.abort().await;
    if let Err(error) = ended {
        let error = at_bottom(&error);
        if !error.refusal().is_some_and(|refusal| refusal.is_absence()) {
            log::warn!(
                "an upload of {what} is left for a later sweep: {}",
                chain(&*error)
            );
        }
    }
}

/// The same bytes in parts of that size, but for the last, which is not empty.
fn parts(content: ByteStream, part_bytes: usize) -> BoxStream<'static, io::Result<Part>> {
    let begin = (content, Bytes::new());
    stream::try_unfold(begin, move |(mut content, mut left)| async move {
        let mut part = Part {
            chunks: Vec::new(),
            bytes: 0,
        };
        let mut lacking = part_bytes;
        while lacking > 0 {
            if left.is_empty() {
                match content.try_next().await? {
                    Some(chunk) => left = chunk,
                    None => break,
                }
            }
            let chunk = left.split_to(left.len().min(lacking));
            if !chunk.is_empty() {
                lacking -= chunk.len();
                part.bytes += chunk.len() as u64;
                part.chunks.push(chunk);
            }
        }
        Ok((part.bytes > 0).then_some((part, (content, left))))
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn parts_are_of_one_size_and_hold_all_bytes() {
        for (chunks, sizes) in [
            (vec![], vec![]),
            (vec![0], vec![]),
            (vec![9], vec![9]),
            (vec![10], vec![10]),
            (vec![3, 0, 25, 1], vec![10, 10, 9]),
            (vec![40], vec![10; 4]),
        ] {
            let chunks: Vec<Bytes> = chunks.iter().map(|n| Bytes::from(vec![7; *n])).collect();
            let content = stream::iter(chunks.into_iter().map(Ok)).boxed();
            let found: Vec<Part> = parts(content, 10).try_collect().await.expect("parts");
            let found: Vec<u64> = found.iter().map(|part| part.bytes).collect();
            assert_eq!(found, sizes);
        }
    }
}
