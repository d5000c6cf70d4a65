//! What members have printed, as files that somebody may read.

use chrono::{DateTime, Utc};

/// Which of a member's two files it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogPart {
    /// The one that the member writes.
    Current,
    /// What was in it before it was turned over.
    Older,
}

impl LogPart {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Current, Self::Older];

    /// Its name: a part of ids and file names.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Older => "older",
        }
    }
}

/// A file of what a member printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logfile {
    /// The member's name.
    pub member: String,
    /// Which of its files.
    pub part: LogPart,
    /// Its length now, in bytes.
    pub bytes: u64,
    /// When it was last written to, by the machine's clock.
    pub written_at: DateTime<Utc>,
}
