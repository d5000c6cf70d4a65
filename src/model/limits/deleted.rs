//! What is left of deleted instances, for how long, and how much at once.

use std::time::Duration;

/// Days that the backups of a deleted instance are kept, where its plan says nothing else.
pub const DELETED_KEPT_DAYS: u32 = 14;
/// Deleted instances of one tenant whose backups are kept at most; beyond that the oldest go before their time.
pub const DELETED_KEPT_MAX: usize = 100;
/// Deleted instances whose backups are removed in one look.
pub const DELETED_ENDS_AT_ONCE: i64 = 20;
/// Time between two looks for deleted instances whose backups have had their time.
pub const DELETED_LOOK: Duration = Duration::from_secs(1);
/// Deleted instances on one page of operators' lists.
pub const DELETED_ON_A_PAGE: usize = 100;
/// Deleted instances that the page of the one lists of whose backups they were made.
pub const DELETED_RESTORES_SHOWN: i64 = 10;
