//! Versions of engines, and why one cannot be had. Which may follow which, an engine's
//! [`Profile`](super::engine::Profile) tells.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::sentence::choice;

/// A version of an engine, as its binary says it: `major.minor.patch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version {
    /// Major number.
    pub major: u32,
    /// Minor number; major and minor together are a *line*.
    pub minor: u32,
    /// Patch number.
    pub patch: u32,
}

/// A text is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a version of the form 3.5.16")]
pub struct VersionError(String);

impl Version {
    /// Its line: major and minor number.
    pub fn line(&self) -> (u32, u32) {
        (self.major, self.minor)
    }

    /// Whether both are of the same line (3.5.16 and 3.5.30).
    pub fn same_line(&self, other: &Version) -> bool {
        self.line() == other.line()
    }
}

impl std::str::FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let number = |part: Option<&str>| {
            part.filter(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))
                .and_then(|p| p.parse().ok())
        };
        let mut parts = text.split('.');
        match (
            number(parts.next()),
            number(parts.next()),
            number(parts.next()),
            parts.next(),
        ) {
            (Some(major), Some(minor), Some(patch), None) => Ok(Version {
                major,
                minor,
                patch,
            }),
            _ => Err(VersionError(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Version {
    type Error = VersionError;

    fn try_from(text: String) -> Result<Self, VersionError> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> String {
        version.to_string()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

const NONE_AVAILABLE: &str = "no version of the database is available at the moment";
const NEWER_MISSING: &str = "no version that it could be restored into is available at the moment: ask \
                             the operator to install one";

/// Why a version cannot be had. Each says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionRefusal {
    /// Not offered.
    #[error(
        "db_version {wanted:?} is not available; {}",
        choice("choose one of", available, NONE_AVAILABLE)
    )]
    Unknown {
        /// What was asked for.
        wanted: String,
        /// What there is, newest first.
        available: String,
    },
    /// Older than the backup.
    #[error(
        "db_version {wanted} is older than the backup's version {backup}, and a backup is never \
         restored into an older version; {}",
        choice("choose one of", available, NEWER_MISSING)
    )]
    OlderThanBackup {
        /// What was asked for.
        wanted: Version,
        /// The version that made the backup.
        backup: Version,
        /// What there is, newest first.
        available: String,
    },
    /// The backup's line has no version that is new enough.
    #[error(
        "no version of the backup's own line {major}.{minor} from {backup} on is available any \
         more; {}",
        choice("name the version to migrate to with db_version, one of", available, NEWER_MISSING),
        major = backup.major, minor = backup.minor
    )]
    LineGone {
        /// The version that made the backup.
        backup: Version,
        /// What there is, newest first.
        available: String,
    },
    /// A path that nobody has tried.
    #[error(
        "a backup of {backup} cannot be restored into {wanted}: the lines are too far apart; {}",
        choice("migrate in steps, first to one of", available, NEWER_MISSING)
    )]
    TooFar {
        /// What was asked for.
        wanted: Version,
        /// The version that made the backup.
        backup: Version,
        /// Versions on the way.
        available: String,
    },
    /// Nothing is installed.
    #[error("{NONE_AVAILABLE}")]
    NoneAvailable,
}

/// Why a deployment cannot be brought to a version in place. Each says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeRefusal {
    /// Older than what runs.
    #[error(
        "db_version {wanted} is older than the instance's version {current}, and nothing is ever \
         taken back to an older version"
    )]
    Older {
        /// What was asked for.
        wanted: Version,
        /// What runs.
        current: Version,
    },
    /// A line on the way has no version here, and none is skipped.
    #[error(
        "{current} cannot be upgraded to {wanted} in place: no version of the line \
         {major}.{minor} is available, and no line is skipped"
    )]
    LineMissing {
        /// What was asked for.
        wanted: Version,
        /// What runs.
        current: Version,
        /// Major number of the missing line.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// What runs may not leave its line, and nothing that may is here.
    #[error(
        "{current} cannot be upgraded to {wanted} in place: it must become {leaves_from} or newer \
         of its own line first, and no such version is available"
    )]
    TooOldToLeave {
        /// What was asked for.
        wanted: Version,
        /// What runs.
        current: Version,
        /// The first version of a line on the way that may leave it.
        leaves_from: Version,
    },
    /// A line on the way cannot be entered in place.
    #[error("{current} cannot be upgraded to {wanted} in place; migrate by a restore")]
    NoWay {
        /// What was asked for.
        wanted: Version,
        /// What runs.
        current: Version,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_version_is_refused() {
        for text in [
            "",
            "3",
            "3.5",
            "3.5.x",
            "3.5.+6",
            "3.5.1.1",
            "3..1",
            "99999999999.1.1",
        ] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(major in any::<u32>(), minor in any::<u32>(), patch in any::<u32>()) {
            let version = Version { major, minor, patch };
            prop_assert_eq!(version.to_string().parse::<Version>(), Ok(version));
        }
    }
}
