//! Limits of what is done so that a second store has a copy of each backup.

use std::time::Duration;

/// A backup that has not been copied into the mirror for so long is late.
pub const MIRROR_LATE_AFTER: Duration = Duration::from_secs(6 * 3600);
/// Time between two looks for what is to be copied, or removed from the mirror.
pub const MIRROR_LOOK: Duration = Duration::from_secs(2);
/// Pause after the mirror, or the store that is copied from, failed; doubled for each further time.
pub const MIRROR_PAUSE_FIRST: Duration = Duration::from_secs(5);
/// The longest such pause. One of a single backup that cannot be copied is as long at most, too.
pub const MIRROR_PAUSE_MAX: Duration = Duration::from_secs(15 * 60);
/// A broker that copies a backup has it for so long, unless it says again that it does.
pub const MIRROR_HELD: Duration = Duration::from_secs(60);
/// How often it says so.
pub const MIRROR_HELD_AGAIN: Duration = Duration::from_secs(15);
/// Copies that are looked at in one step for whether what they are of is gone.
pub const MIRROR_PAGE: i64 = 500;
/// Backups that are looked at for one that no other broker copies.
pub const MIRROR_DUE_LOOKED_AT: i64 = 20;
/// Late backups that are told of one by one.
pub const MIRROR_LATE_TOLD_MAX: i64 = 50;
