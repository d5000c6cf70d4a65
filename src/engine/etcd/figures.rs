//! What is told of a snapshot: its newest revision, and the live keys at it.

use crate::{
    engine::EngineError,
    model::{backup::SnapshotContent, engine::Figure},
};

/// The figure of the newest revision in a snapshot.
const REVISION: &str = "revision";
/// The figure of the live keys at that revision.
const KEYS: &str = "keys";

/// What is told of a snapshot.
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
pub(super) fn content(revision: i64, keys: i64) -> SnapshotContent {
    [(REVISION, revision), (KEYS, keys)].into()
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
