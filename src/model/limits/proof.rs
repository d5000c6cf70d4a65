//! Limits of what is done to know that backups can be restored.

use std::time::Duration;

/// The stored bytes of a backup that was proved are read again after this long, so that each byte is read within
/// 30 days.
pub const BYTES_READ_EVERY: Duration = Duration::from_secs(29 * 24 * 3600);
