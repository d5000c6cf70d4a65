//! Looks at the bytes of a stream while they pass, and ends the stream when they are not right.

use std::sync::{Arc, OnceLock};

use futures::{StreamExt, TryStreamExt, stream};
use ring::digest::{Context, SHA256};

use super::{error::BackupStoreError, name::ObjectName};
use crate::{model::backup::StoredSnapshot, seal::hex, stream::ByteStream};

/// Something that looks at passing bytes.
pub(super) trait Gauge: Send + 'static {
    /// Sees the next bytes before they are passed on. An error ends the stream instead.
    fn pass(&mut self, chunk: &[u8]) -> Result<(), BackupStoreError>;

    /// Sees that the stream ended well. An error ends it badly after all.
    fn end(self) -> Result<(), BackupStoreError>;
}

/// The same stream, looked at by `gauge`.
pub(super) fn gauged(content: ByteStream, gauge: impl Gauge) -> ByteStream {
    stream::try_unfold((content, gauge), |(mut content, mut gauge)| async move {
        match content.try_next().await? {
            Some(chunk) => {
                gauge.pass(&chunk)?;
                Ok(Some((chunk, (content, gauge))))
            }
            None => {
                gauge.end()?;
                Ok(None)
            }
        }
    })
    .boxed()
}

/// How long a stream was, and its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Measure {
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256 (hex).
    pub sha256: String,
}

/// Where a gauge leaves the measure of a stream that ended well.
pub(super) type Measured = Arc<OnceLock<Measure>>;

/// Counts and hashes.
#[derive(Clone)]
pub(super) struct Tally {
    digest: Context,
    bytes: u64,
}

impl Tally {
    pub fn new() -> Self {
        Self {
            digest: Context::new(&SHA256),
            bytes: 0,
        }
    }

    pub fn add(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// The measure of all bytes.
    pub fn measure(self) -> Measure {
        Measure {
            bytes: self.bytes,
            sha256: hex(self.digest.finish().as_ref()),
        }
    }
}

/// Measures what passes.
pub(super) struct Measuring {
    tally: Tally,
    measured: Measured,
}

impl Measuring {
    pub fn new(measured: Measured) -> Self {
        Self {
            tally: Tally::new(),
            measured,
        }
    }
}

impl Gauge for Measuring {
    fn pass(&mut self, chunk: &[u8]) -> Result<(), BackupStoreError> {
        self.tally.add(chunk);
        Ok(())
    }

    fn end(self) -> Result<(), BackupStoreError> {
        // A gauge ends once, so the place is free.
        let _ = self.measured.set(self.tally.measure());
        Ok(())
    }
}

/// Lets exactly the expected bytes pass, and not one more.
pub(super) struct Expecting {
    tally: Tally,
    expected: Measure,
    object: ObjectName,
    what: &'static str,
}

impl Expecting {
    /// The bytes of an object pass, as they are stored.
    pub fn object(name: &ObjectName, stored: &StoredSnapshot) -> Self {
        let (bytes, sha256) = (stored.object_bytes, &stored.object_sha256);
        Self::new("stored bytes", name, bytes, sha256)
    }

    /// The snapshot passes that is in an object.
    pub fn snapshot(name: &ObjectName, stored: &StoredSnapshot) -> Self {
        let (bytes, sha256) = (stored.snapshot_bytes, &stored.snapshot_sha256);
        Self::new("snapshot bytes", name, bytes, sha256)
    }

    fn new(what: &'static str, object: &ObjectName, bytes: u64, sha256: &str) -> Self {
        Self {
            tally: Tally::new(),
            expected: Measure {
                bytes,
                sha256: sha256.to_owned(),
            },
            object: object.clone(),
            what,
        }
    }

    fn damaged(&self, reason: &str) -> BackupStoreError {
        BackupStoreError::damaged(&self.object, format!("its {} {reason}", self.what))
    }
}

impl Gauge for Expecting {
    fn pass(&mut self, chunk: &[u8]) -> Result<(), BackupStoreError> {
        self.tally.add(chunk);
        if self.tally.bytes > self.expected.bytes {
            return Err(self.damaged(&format!("are more than {}", self.expected.bytes)));
        }
        Ok(())
    }

    fn end(self) -> Result<(), BackupStoreError> {
        let found = self.tally.clone().measure();
        if found.bytes != self.expected.bytes {
            let (found, expected) = (found.bytes, self.expected.bytes);
            return Err(self.damaged(&format!("are {found} instead of {expected}")));
        }
        if found.sha256 != self.expected.sha256 {
            return Err(self.damaged("have another SHA-256"));
        }
        Ok(())
    }
}
