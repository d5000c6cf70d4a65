//! Limits of the look for installed programs.

use std::time::Duration;

/// A binary that is asked for its version must have answered after this long.
pub const VERSION_PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// One that had not is asked once more, when no others are, and must have answered after this long.
pub const VERSION_PROBE_ALONE_TIMEOUT: Duration = Duration::from_secs(30);
