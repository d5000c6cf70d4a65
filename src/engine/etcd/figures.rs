//! What is told of a snapshot: its newest revision, the live keys at it, and a hash over all that it holds.

use crate::{
    engine::EngineError,
    model::{backup::SnapshotContent, engine::Figure, version::Version},
};

/// The figure of the newest revision in a snapshot.
const REVISION: &str = "revision";
/// How far the revision goes on where a database is made anew in its place: further than anybody writes in a
/// lifetime. All history before it counts as compacted, so a watch or a cache that would go on from what is lost is
/// told so. The figure is that of etcd's own documentation of disaster recovery.
pub(super) const REVISION_BUMP: i64 = 1_000_000_000;
/// The figure of the live keys at that revision.
const KEYS: &str = "keys";

/// The figure of etcd's own hash over all keys and values up to that revision, CRC-32C. It goes without what
/// was forgotten of the history, up to the figure [`COMPACTED`].
const HASH: &str = "hash";
/// The figure of the newest revision whose history was forgotten when the hash was made.
const COMPACTED: &str = "compacted";

/// A hash over all keys and values up to a revision, their history included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hash {
    /// The hash.
    pub(super) of_all: u32,
    /// The newest revision whose history was forgotten then: without it, the hash says nothing.
    pub(super) compacted: i64,
}

/// Whether the tool of a version moves the revision of what it restores on, and marks what is before as compacted:
/// then a client that goes on from a revision of before is told so.
pub(super) fn tells_clients(version: Version) -> bool {
    (version.major, version.minor) >= (3, 5)
}

/// What people are told of a snapshot. A hash tells them nothing.
pub(super) const CONTENT: [Figure; 2] = [
    Figure {
        name: REVISION,
        plural: "revisions",
        counts_changes: true,
        words: |_, written| format!("revision {written}"),
    },
    Figure {
        name: KEYS,
        plural: "keys",
        counts_changes: false,
        words: |keys, written| format!("{written} key{}", if keys == 1 { "" } else { "s" }),
    },
];

/// What is in a snapshot of `revision`.
pub(super) fn content(revision: i64, keys: i64, hash: Option<Hash>) -> SnapshotContent {
    let mut content: SnapshotContent = [(REVISION, revision), (KEYS, keys)].into();
    if let Some(hash) = hash {
        let figures = [(HASH, i64::from(hash.of_all)), (COMPACTED, hash.compacted)];
        let figures = figures.map(|(name, value)| (name.to_owned(), value));
        content.0.extend(figures);
    }
    content
}

/// The hash that a manifest tells of; backups of earlier versions have none.
pub(super) fn hash(content: &SnapshotContent) -> Option<Hash> {
    Some(Hash {
        of_all: u32::try_from(content.get(HASH)?).ok()?,
        compacted: content.get(COMPACTED)?,
    })
}

/// What is known of a database whose keys were not counted.
pub(super) fn newest(revision: i64) -> SnapshotContent {
    [(REVISION, revision)].into()
}

/// The newest revision and the live keys that a manifest tells of.
pub(super) fn figures(content: &SnapshotContent) -> Result<(i64, i64), EngineError> {
    let figure = |name| {
        content.get(name).ok_or_else(|| {
            EngineError::Unexpected(format!("the backup's manifest tells of no {name}"))
        })
    };
    Ok((figure(REVISION)?, figure(KEYS)?))
}
