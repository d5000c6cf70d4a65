//! What a member keeps, by where it lies in its home.

use crate::model::{engine::FilesOfMember, server::HOME};

const SNAPSHOTS: &str = "data/member/snap";

/// Where a member writes its whole state down: `<term>-<index>.snap`, both in hexadecimal digits, so
/// that later ones have later names.
pub(super) const CHECKPOINTS: FilesOfMember = FilesOfMember {
    folder: SNAPSHOTS,
    has: |name| name.ends_with(".snap"),
};

/// The name of the file that is the database.
pub(super) const DATABASE_NAME: &str = "db";

/// The database itself. It grows in steps, ahead of what is in it.
pub(super) const DATABASE: FilesOfMember = FilesOfMember {
    folder: SNAPSHOTS,
    has: |name| name == DATABASE_NAME,
};

/// Where a member keeps its data.
pub(super) fn data_dir() -> String {
    format!("{HOME}/data")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_names() {
        assert!((CHECKPOINTS.has)("0000000000000002-000000000000000d.snap"));
        assert!(!(CHECKPOINTS.has)("db"));
        assert!((DATABASE.has)("db"));
        assert!(!(DATABASE.has)("0000000000000002-000000000000000d.snap.db"));
    }
}
