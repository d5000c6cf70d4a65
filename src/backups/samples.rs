//! Bytes, streams and a manifest to test with.

use std::{io, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use chrono::DateTime;
use futures::{StreamExt, TryStreamExt, stream};

use super::BackupStoreError;
use crate::{
    model::{
        backup::{Manifest, StoredSnapshot},
        period::BackupKind,
        tenant::Tenant,
    },
    seal::KeyRing,
    stream::ByteStream,
};

pub const DEPLOYMENT: &str = "5ae85b45e5717f0001533192";
pub const BACKUP: &str = "5ae85b45e5717f00015331aa";

/// A ring with keys of these names, the first in front; each name has the same key everywhere.
pub fn ring(names: &[&str]) -> Arc<KeyRing> {
    let key = |name: &&str| {
        let key = ring::digest::digest(&ring::digest::SHA256, name.as_bytes());
        format!("{name}:{}", STANDARD.encode(key))
    };
    let keys: Vec<String> = names.iter().map(key).collect();
    Arc::new(KeyRing::parse(&keys.join(",")).expect("a ring"))
}

/// Bytes that compress a little, as a database does.
pub fn noise(length: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ length as u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state as u8) & 0x3f
    };
    (0..length).map(|_| next()).collect()
}

/// `content` in chunks of the given sizes, over and over.
pub fn chunked(content: &Bytes, sizes: &[usize]) -> ByteStream {
    let mut rest = content.clone();
    let mut sizes = sizes.iter().copied().cycle();
    let mut chunks = Vec::new();
    while !rest.is_empty() {
        let size = sizes.next().expect("a size");
        chunks.push(Ok(rest.split_to(size.min(rest.len()))));
    }
    stream::iter(chunks).boxed()
}

/// `content` in chunks as an engine sends them.
pub fn whole(content: &Bytes) -> ByteStream {
    chunked(content, &[32 * 1024])
}

/// `content`, and then the connection breaks.
pub fn broken(content: &Bytes) -> ByteStream {
    let end = io::Error::new(io::ErrorKind::ConnectionReset, "the member went away");
    whole(content)
        .chain(stream::once(async { Err(end) }))
        .boxed()
}

/// All bytes of a stream.
pub async fn collect(content: ByteStream) -> io::Result<Bytes> {
    let parts: Vec<Bytes> = content.try_collect().await?;
    Ok(parts.concat().into())
}

/// All bytes of a stream, or our error that it ended with.
pub async fn collect_ours(content: ByteStream) -> Result<Bytes, BackupStoreError> {
    let foreign = |error| panic!("none of ours: {error}");
    collect(content)
        .await
        .map_err(|error| BackupStoreError::unpack(error, foreign))
}

/// The manifest of a backup that is stored so.
pub fn manifest(stored: StoredSnapshot) -> Manifest {
    let at = |second: i64| DateTime::from_timestamp(1_700_000_000 + second, 0).expect("a time");
    Manifest {
        format: stored.manifest_format(),
        backup_id: BACKUP.parse().expect("an id"),
        kind: BackupKind::Daily,
        instance_id: "instance-1".parse().expect("an id"),
        deployment_id: DEPLOYMENT.parse().expect("an id"),
        service_id: "etcd-service".into(),
        plan_id: Some("standard-plan".into()),
        tenant: Tenant {
            platform: "cloudfoundry".into(),
            organization: "org-1".into(),
            space: "space-1".into(),
            account: Default::default(),
        },
        engine: "etcd".into(),
        version: "3.5.16".parse().expect("a version"),
        units: 1,
        content: [("revision", 1234), ("keys", 56)].into(),
        stored,
        requested_at: at(0),
        started_at: at(1),
        finished_at: at(2),
        locked_until: None,
        register: None,
        sealed_for: None,
        sealed_credentials: Some("k1:c2VhbGVk".into()),
        sealed_key: None,
        signature: None,
    }
}
