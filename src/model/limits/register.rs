//! Limits of what stands beside backups, and of looks whether what should be there is.

use std::time::Duration;

use chrono::TimeDelta;

/// Largest manifest of a backup, in bytes; ours have about 2 KiB and the sealed credentials.
pub const MANIFEST_BYTES_MAX: usize = 64 * 1024;
/// Largest register of a deployment's backups that is read, in bytes: a backup has 250 or so.
pub const REGISTER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Time between two looks for registers that are to be written, and for backups that are to be called over. What was
/// written in one look is recorded in one transaction.
pub const REGISTER_LOOK: Duration = Duration::from_secs(30);
/// The same after a look that came to nothing.
pub const REGISTER_RETRY: Duration = Duration::from_secs(10);
/// How long after a backup was described its register may not have it, and nobody wonders: the broker has ended it by
/// then, if it was not killed in between, and written the register.
pub const REGISTER_BEHIND: TimeDelta = TimeDelta::minutes(5);
/// How often all backups of a deployment are called over: whether each is there, and their register.
pub const CALLED_OVER_EVERY: Duration = Duration::from_secs(24 * 3600);
/// Registers that are written before that is recorded, and deployments whose backups are called over in one look.
pub const REGISTERS_AT_ONCE: i64 = 50;
