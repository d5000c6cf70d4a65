//! How often and how long the steps of operations are tried.

use std::time::Duration;

/// A step that fails in passing is tried at least so often before the operation gives up.
pub const STEP_TRIES_MIN: u32 = 3;
/// Pause before the second try of a step; doubled for each further one.
pub const STEP_BACKOFF_FIRST: Duration = Duration::from_millis(200);
/// Longest pause between two tries of a step.
pub const STEP_BACKOFF_MAX: Duration = Duration::from_secs(60);
/// What failed tries of one operation and their pauses may take before it gives up and cleans up.
pub const PATIENCE: Duration = Duration::from_secs(3600);
/// A backup or a restore has a second more for so many bytes that it moves.
pub const PATIENCE_BYTES_PER_SECOND: u64 = 1024 * 1024;
/// The same of making room: the guard asks again soon.
pub const RELIEF_PATIENCE: Duration = Duration::from_secs(60);
/// The same of clean-ups and deletions: three days. Then an operator must look at it.
pub const CLEANUP_PATIENCE: Duration = Duration::from_secs(3 * 24 * 3600);
/// Pause before the second try of a clean-up's step; doubled for each further one.
pub const CLEANUP_BACKOFF_FIRST: Duration = Duration::from_secs(5);
/// Longest pause between two tries of a clean-up or a deletion.
pub const DELETION_BACKOFF_MAX: Duration = Duration::from_secs(15 * 60);
/// What failed tries of a clean-up may take that a deletion waits for: it removes what is left.
pub const HALTED_CLEANUP_PATIENCE: Duration = Duration::from_secs(60);
/// Longest pause between two tries of such a clean-up.
pub const HALTED_CLEANUP_BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How long the last backup before a deletion is tried for, however it fails. Then the deletion goes on.
pub const FINAL_BACKUP_PATIENCE: Duration = Duration::from_secs(2 * 60);
/// How long is waited until the machine and the store have enough again of what they are short of.
pub const SHORTAGE_PATIENCE: Duration = Duration::from_secs(24 * 3600);
