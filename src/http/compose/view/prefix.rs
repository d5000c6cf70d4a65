//! What a restore of keys has found and changed.

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    http::openapi::scalars::OwnId,
    model::{
        ids::BackupId,
        prefix::{PrefixChanges, PrefixDifference, PrefixMode, PrefixRestore},
    },
};

/// Keys with a prefix that are put back from a backup, or compared with it.
#[derive(Serialize, ToSchema)]
#[schema(as = PrefixRestore)]
pub struct PrefixRestoreBody {
    /// What the keys begin with; empty: all keys.
    prefix: String,
    /// `missing`, `overwrite` or `mirror`.
    mode: &'static str,
    /// Whether they are only compared.
    dry_run: bool,
    /// The backup that is taken before anything is changed.
    #[schema(required, value_type = Option<OwnId>)]
    safety_backup_id: Option<BackupId>,
    /// What the comparison found; `null` before there is one.
    #[schema(required)]
    difference: Option<DifferenceBody>,
    /// What was changed; `null` until all is, and where nothing was to be.
    #[schema(required)]
    changes: Option<ChangesBody>,
}

/// In what the keys differ from the backup.
#[derive(Serialize, ToSchema)]
#[schema(as = PrefixDifference)]
pub struct DifferenceBody {
    /// Keys with the same value.
    same: u64,
    /// Keys of the backup that the database has no more.
    missing: u64,
    /// Keys that have another value now.
    changed: u64,
    /// Keys that the backup has not.
    extra: u64,
    /// Keys with a lease, in the backup or now: they are left alone.
    ephemeral: u64,
    /// Bytes of keys and values that the mode writes.
    bytes: u64,
}

impl DifferenceBody {
    fn of(found: &PrefixDifference, mode: PrefixMode) -> Self {
        Self {
            same: found.same,
            missing: found.missing,
            changed: found.changed,
            extra: found.extra,
            ephemeral: found.ephemeral,
            bytes: found.bytes(mode),
        }
    }
}

/// What was changed.
#[derive(Serialize, ToSchema)]
#[schema(as = PrefixChanges)]
pub struct ChangesBody {
    /// Keys that got the value of the backup.
    written: u64,
    /// Keys that were deleted.
    deleted: u64,
    /// Keys that clients changed after the comparison: they were left as they are.
    left: u64,
}

impl From<PrefixChanges> for ChangesBody {
    fn from(done: PrefixChanges) -> Self {
        Self {
            written: done.written,
            deleted: done.deleted,
            left: done.left,
        }
    }
}

impl From<&PrefixRestore> for PrefixRestoreBody {
    fn from(of: &PrefixRestore) -> Self {
        let found = of.difference.as_ref();
        Self {
            prefix: of.prefix.clone(),
            mode: of.mode.as_str(),
            dry_run: of.dry_run,
            safety_backup_id: of.safety_backup.clone(),
            difference: found.map(|found| DifferenceBody::of(found, of.mode)),
            changes: of.changes.map(ChangesBody::from),
        }
    }
}
