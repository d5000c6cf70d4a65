//! Backups that are sealed for the key of their tenant, looked at without a broker: with the private key they are
//! opened, and without it their bytes are compared.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use futures::{StreamExt as _, stream};
use tokio::{sync::mpsc, task::spawn_blocking};

use super::{LookError, Signature, Verdict, Wanted, damage, to_the_end};
use crate::{
    backups::{
        gauge::{Expecting, gauged},
        name::ObjectName,
        tenant::{file_key, unpacked_for},
    },
    model::{
        backup::{Manifest, TENANT_SNAPSHOT_FILE},
        limits::CHUNK_BYTES,
    },
    seal::age::HeaderError,
    stream::ByteStream,
};

/// Chunks of an archive that are read ahead.
const CHUNKS_AHEAD: usize = 4;

/// What a look at an object comes to that is sealed for the tenant's key.
pub(super) async fn of_object(
    manifest: &Manifest,
    object: ByteStream,
    signature: Signature,
    wanted: &Wanted,
) -> Result<Verdict, LookError> {
    let name = ObjectName::snapshot_of(manifest);
    let opened = wanted.private.as_ref();
    let opened = opened.and_then(|keys| file_key(manifest, keys));
    match opened {
        Some(Ok(key)) => {
            let looked = match unpacked_for(object, manifest, &key) {
                Ok(snapshot) => to_the_end(snapshot, &name, wanted).await?,
                Err(error) => Some(damage(error)?),
            };
            Ok(looked.unwrap_or(Verdict::Whole(signature)))
        }
        Some(Err(error @ HeaderError::Damaged)) => Ok(Verdict::Damaged(error.to_string())),
        Some(Err(HeaderError::OtherKey)) | None => {
            let recipient = manifest.recipient().unwrap_or_default().to_owned();
            if wanted.to.is_some() {
                return Err(LookError::PrivateKeyMissing(recipient));
            }
            let expected = Expecting::object(&name, &manifest.stored);
            let looked = to_the_end(gauged(object, expected), &name, wanted).await?;
            Ok(looked.unwrap_or(Verdict::ForTenant(recipient)))
        }
    }
}

/// The object in an archive that was downloaded.
pub(super) fn object_in(archive: &Path) -> ByteStream {
    let (chunks, reader) = mpsc::channel(CHUNKS_AHEAD);
    let archive = archive.to_owned();
    spawn_blocking(move || {
        let sent = send(&archive, &chunks);
        if let Err(error) = sent {
            // Where nobody reads any more, nobody needs to know.
            let _ = chunks.blocking_send(Err(error));
        }
    });
    let next = |mut reader: mpsc::Receiver<io::Result<Bytes>>| async move {
        let chunk = reader.recv().await?;
        Some((chunk, reader))
    };
    stream::unfold(reader, next).boxed()
}

fn send(archive: &Path, chunks: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
    let file = io::BufReader::with_capacity(CHUNK_BYTES, File::open(archive)?);
    let mut tar = tar::Archive::new(MultiGzDecoder::new(file));
    for entry in tar.entries()? {
        let mut entry = entry?;
        if entry.path_bytes() != TENANT_SNAPSHOT_FILE.as_bytes() {
            continue;
        }
        let mut piece = vec![0; CHUNK_BYTES];
        loop {
            let length = entry.read(&mut piece)?;
            let chunk = Bytes::copy_from_slice(&piece[..length]);
            if length == 0 || chunks.blocking_send(Ok(chunk)).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}
