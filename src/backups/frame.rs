//! How a snapshot is compressed: one zstd frame. [`super::cipher`] seals it.
//!
//! Both ways hold a few chunks in memory, whatever the size.

use std::io;

use async_compression::{
    Level,
    tokio::bufread::{ZstdDecoder, ZstdEncoder},
    zstd::DParameter,
};
use bytes::BytesMut;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::io::{AsyncBufReadExt, AsyncReadExt};
use tokio_util::io::{ReaderStream, StreamReader};

use super::{error::BackupStoreError, name::ObjectName};
use crate::{
    model::limits::{CHUNK_BYTES, ZSTD_WINDOW_LOG_MAX},
    stream::ByteStream,
};

/// How objects are compressed, as manifests say it.
pub(super) const COMPRESSION: &str = "zstd";
/// Backups share the machine with databases: the fastest level already takes most of what there
/// is to take.
const COMPRESSION_LEVEL: i32 = 1;

/// Packs a snapshot into a frame.
pub(super) fn compress(snapshot: ByteStream) -> ByteStream {
    let encoder = ZstdEncoder::with_quality(
        StreamReader::new(snapshot),
        Level::Precise(COMPRESSION_LEVEL),
    );
    ReaderStream::with_capacity(encoder, CHUNK_BYTES).boxed()
}

/// Unpacks the frame in `object`, which has this name.
pub(super) fn decompress(object: ByteStream, name: &ObjectName) -> ByteStream {
    let decoder = ZstdDecoder::with_params(
        StreamReader::new(object),
        &[DParameter::window_log_max(ZSTD_WINDOW_LOG_MAX)],
    );
    let name = name.clone();
    stream::try_unfold(decoder, |mut decoder| async move {
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
        if decoder.read_buf(&mut chunk).await? > 0 {
            return Ok(Some((chunk.freeze(), decoder)));
        }
        // The decoder looks no further than its frame. The object must be read to its end, for
        // only there its hash is compared.
        if !decoder.get_mut().fill_buf().await?.is_empty() {
            let more = "there is more after the compressed snapshot";
            return Err(io::Error::new(io::ErrorKind::InvalidData, more));
        }
        Ok(None)
    })
    // What is none of ours by now, zstd says of the bytes.
    .map_err(move |error| {
        BackupStoreError::unpack(error, |error| {
            BackupStoreError::damaged(&name, error.to_string())
        })
        .into()
    })
    .boxed()
}
