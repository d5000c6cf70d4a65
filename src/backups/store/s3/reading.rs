//! How an object is read: from a place on, and from where it broke when it breaks.

use std::{io, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream, stream::BoxStream};
use object_store::{GetOptions, GetRange, GetResult, ObjectStore as _, path::Path};
use tokio::time::{Instant, sleep};

use super::{
    client::{Client, pauses},
    refusal::{WireError, at_bottom},
};
use crate::{backups::BackupStoreError, model::limits::CHUNK_BYTES, stream::ByteStream};

/// The bytes of the largest object of S3: behind them there is nothing.
const OBJECT_BYTES_MAX: u64 = 50 * 1024 * 1024 * 1024 * 1024;

/// Opens the object of a key from byte `from` on; none when there is none. `what` is its name, for people.
pub(super) async fn open(
    client: &Arc<Client>,
    key: &Path,
    what: &str,
    from: u64,
) -> Result<Option<ByteStream>, BackupStoreError> {
    let range = (from > 0).then(|| GetRange::Offset(from.min(OBJECT_BYTES_MAX)));
    let options = GetOptions {
        range,
        ..GetOptions::default()
    };
    let found = match client.library.get_opts(key, options).await {
        Ok(found) => found,
        Err(error) => {
            let error = at_bottom(&error);
            return match error.refusal() {
                Some(refusal) if refusal.is_absence() => Ok(None),
                Some(refusal) if refusal.status == 416 => Ok(Some(stream::empty().boxed())),
                _ => Err(error.told(
                    &client.address.to_string(),
                    &format!("cannot read {what}"),
                    0,
                )),
            };
        }
    };
    let reading = Reading {
        client: client.clone(),
        key: key.clone(),
        what: what.to_owned(),
        tag: found.meta.e_tag.clone(),
        at: found.range.start,
        end: found.range.end,
        content: found.into_stream(),
    };
    let chunks = stream::try_unfold(reading, |mut reading| async move {
        let chunk = reading.next().await.map_err(io::Error::from)?;
        Ok::<_, io::Error>(chunk.map(|chunk| (chunk, reading)))
    });
    Ok(Some(chunks.map_ok(small).try_flatten().boxed()))
}

/// The same bytes in chunks of the size that is promised.
fn small(chunk: Bytes) -> impl futures::Stream<Item = io::Result<Bytes>> {
    let mut rest = chunk;
    stream::iter(std::iter::from_fn(move || {
        let chunk = rest.split_to(rest.len().min(CHUNK_BYTES));
        (!chunk.is_empty()).then_some(Ok(chunk))
    }))
}

/// An object that is being read.
struct Reading {
    client: Arc<Client>,
    key: Path,
    what: String,
    /// Which bytes these are: those of an object that took its place are others.
    tag: Option<String>,
    at: u64,
    end: u64,
    content: BoxStream<'static, object_store::Result<Bytes>>,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Bytes>, BackupStoreError> {
        let mut until: Option<Instant> = None;
        let mut pauses = pauses();
        loop {
            let broken = match self.content.next().await {
                Some(Ok(chunk)) => {
                    self.at += chunk.len() as u64;
                    return Ok(Some(chunk));
                }
                None if self.at >= self.end => return Ok(None),
                None => Arc::new(WireError::Strange("an answer ended early".to_owned())),
                Some(Err(error)) => at_bottom(&error),
            };
            let until = *until.get_or_insert_with(|| Instant::now() + self.client.patience());
            if Instant::now() >= until {
                return Err(self.failed(&broken));
            }
            log::info!("{} is read on from byte {}: {broken}", self.what, self.at);
            if let Some(pause) = pauses.next() {
                sleep(pause).await;
            }
            self.content = self.rest().await?.into_stream();
        }
    }

    /// What is still to be read, of the same bytes.
    async fn rest(&mut self) -> Result<GetResult, BackupStoreError> {
        let options = GetOptions {
            range: Some(GetRange::Bounded(self.at..self.end)),
            if_match: self.tag.clone(),
            ..GetOptions::default()
        };
        let rest = self.client.library.get_opts(&self.key, options).await;
        rest.map_err(|error| self.failed(&at_bottom(&error)))
    }

    fn failed(&self, error: &WireError) -> BackupStoreError {
        let doing = format!("cannot read {} from byte {} on", self.what, self.at);
        error.told(&self.client.address.to_string(), &doing, 0)
    }
}
