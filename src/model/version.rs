//! Versions of engines, and which may follow which.

use std::fmt;

use serde::{Deserialize, Serialize};

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
    /// Whether both are of the same line (3.5.16 and 3.5.30).
    pub fn same_line(&self, other: &Version) -> bool {
        (self.major, self.minor) == (other.major, other.minor)
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

/// Why a version cannot be had. Each says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionRefusal {
    /// Not offered.
    #[error("db_version {wanted:?} is not available; choose one of: {available}")]
    Unknown {
        /// What was asked for.
        wanted: String,
        /// What there is, newest first.
        available: String,
    },
    /// Older than the backup.
    #[error(
        "db_version {wanted} is older than the backup's version {backup}, and a backup is never \
         restored into an older version; choose {backup} or newer, of: {available}"
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
         more; name the version to migrate to with db_version, one of: {available}",
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
        "a backup of {backup} cannot be restored into {wanted}: the lines are too far apart; \
         migrate in steps, first to one of: {available}"
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
    #[error("no version of the database is available at the moment")]
    NoneAvailable,
}

/// Lines that a restore may cross at once. From 3.3 to 3.5 was tested cell by cell; wider jumps
/// were not.
const LINES_CROSSED_MAX: u32 = 2;

/// The lines of etcd 3 that are known well enough to be offered: each was restored into each.
const ETCD_MINORS: std::ops::RangeInclusive<u32> = 3..=5;

/// Whether etcd `version` may be offered at all.
///
/// 3.5.0 to 3.5.2 never: they lose data after a crash, and 3.5.0 and 3.5.1 fall over for good at
/// the first password change of a user that came from 3.3.
pub fn etcd_offered(version: &Version) -> bool {
    let poisonous = version.minor == 5 && version.patch <= 2;
    version.major == 3 && ETCD_MINORS.contains(&version.minor) && !poisonous
}

/// Whether an engine's version holds users to the role and the keys that they are given.
///
/// etcd before 3.4.44 and 3.5.30 does not: what stands in a transaction within a transaction is not
/// checked at all, and a put in a transaction takes anybody's lease. One way to read remains until
/// 3.5.33: a watch from a key on is taken for a watch of that key.
pub fn limits_users(engine: &str, version: &Version) -> bool {
    let since = |minor, patch| version.minor == minor && version.patch >= patch;
    engine == "etcd" && version.major == 3 && (since(4, 44) || since(5, 30))
}

/// The version of a new, empty instance: `wanted`, or the newest.
pub fn for_new(wanted: Option<&str>, available: &[Version]) -> Result<Version, VersionRefusal> {
    match wanted {
        Some(wanted) => find(wanted, available),
        None => available
            .iter()
            .max()
            .copied()
            .ok_or(VersionRefusal::NoneAvailable),
    }
}

/// Whether a version is the one to take of its line: the newest of those that are available.
pub fn is_preferred<'a>(
    version: &Version,
    available: impl IntoIterator<Item = &'a Version>,
) -> bool {
    let newer = |other: &Version| other.same_line(version) && other > version;
    !available.into_iter().any(newer)
}

/// The version of an instance that is made from a backup of `backup`: `wanted`, or the newest
/// patch of the backup's own line.
pub fn for_restore(
    backup: Version,
    wanted: Option<&str>,
    available: &[Version],
) -> Result<Version, VersionRefusal> {
    let Some(wanted) = wanted else {
        return available
            .iter()
            .filter(|v| v.same_line(&backup) && **v >= backup)
            .max()
            .copied()
            .ok_or_else(|| VersionRefusal::LineGone {
                backup,
                available: list(available),
            });
    };
    let wanted = find(wanted, available)?;
    if wanted < backup {
        return Err(VersionRefusal::OlderThanBackup {
            wanted,
            backup,
            available: list(available),
        });
    }
    if !within_reach(&backup, &wanted) {
        let on_the_way: Vec<Version> = available
            .iter()
            .filter(|v| within_reach(&backup, v))
            .copied()
            .collect();
        return Err(VersionRefusal::TooFar {
            wanted,
            backup,
            available: list(&on_the_way),
        });
    }
    Ok(wanted)
}

fn within_reach(from: &Version, to: &Version) -> bool {
    to >= from && to.major == from.major && to.minor - from.minor <= LINES_CROSSED_MAX
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
    /// Another major version.
    #[error("{current} cannot be upgraded to {wanted} in place; migrate by a restore")]
    OtherMajor {
        /// What was asked for.
        wanted: Version,
        /// What runs.
        current: Version,
    },
}

/// The version that an update asks for by name; it must be available.
pub fn for_upgrade(wanted: &str, available: &[Version]) -> Result<Version, VersionRefusal> {
    find(wanted, available)
}

/// The versions that a deployment of `current` runs one after the other on its way to `wanted`,
/// which is the last of them: one line at a time, each through the newest version that is
/// available of it. None when it is there already.
pub fn hops(
    current: Version,
    wanted: Version,
    available: &[Version],
) -> Result<Vec<Version>, UpgradeRefusal> {
    if wanted < current {
        return Err(UpgradeRefusal::Older { wanted, current });
    }
    if wanted.major != current.major {
        return Err(UpgradeRefusal::OtherMajor { wanted, current });
    }
    if wanted == current {
        return Ok(Vec::new());
    }
    let on_the_way = (current.minor + 1..wanted.minor).map(|minor| {
        let of_line = |v: &&Version| (v.major, v.minor) == (wanted.major, minor);
        let newest = available.iter().filter(of_line).max().copied();
        newest.ok_or(UpgradeRefusal::LineMissing {
            wanted,
            current,
            major: wanted.major,
            minor,
        })
    });
    on_the_way.chain([Ok(wanted)]).collect()
}

/// How an instance gets to another version (Compose `versions`, field `method`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TransitionMethod {
    /// By an update.
    InPlace,
    /// By a restore into a new instance.
    Restore,
}

impl TransitionMethod {
    /// Compose's name of it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InPlace => "in_place",
            Self::Restore => "restore",
        }
    }
}

/// A way from one version to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// The version now.
    pub from: Version,
    /// The version that can be reached.
    pub to: Version,
    /// How.
    pub method: TransitionMethod,
}

/// The ways to newer versions that an instance of `from` has, by version, oldest first.
pub fn transitions(from: Version, available: &[Version]) -> Vec<Transition> {
    let mut newer: Vec<Version> = available.iter().filter(|v| **v > from).copied().collect();
    newer.sort();
    newer.dedup();
    let ways = |to: Version| {
        let in_place = hops(from, to, available).is_ok();
        let restore = within_reach(&from, &to);
        [
            in_place.then_some(TransitionMethod::InPlace),
            restore.then_some(TransitionMethod::Restore),
        ]
        .into_iter()
        .flatten()
        .map(move |method| Transition { from, to, method })
    };
    newer.into_iter().flat_map(ways).collect()
}

fn find(wanted: &str, available: &[Version]) -> Result<Version, VersionRefusal> {
    let unknown = || VersionRefusal::Unknown {
        wanted: wanted.to_owned(),
        available: list(available),
    };
    let version: Version = wanted.parse().map_err(|_| unknown())?;
    if available.contains(&version) {
        Ok(version)
    } else {
        Err(unknown())
    }
}

fn list(available: &[Version]) -> String {
    let mut sorted = available.to_vec();
    sorted.sort_by(|a, b| b.cmp(a));
    let texts: Vec<String> = sorted.iter().map(Version::to_string).collect();
    if texts.is_empty() {
        "none".to_owned()
    } else {
        texts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v(text: &str) -> Version {
        text.parse().expect("a version")
    }

    fn installed() -> Vec<Version> {
        ["3.3.25", "3.4.23", "3.5.16", "3.5.30"].map(v).to_vec()
    }

    #[test]
    fn limits_are_promised_where_they_hold() {
        let limits = |text: &str| limits_users("etcd", &text.parse().expect("a version"));
        for old in ["3.2.32", "3.3.25", "3.3.99", "3.4.43", "3.5.29", "2.3.8"] {
            assert!(!limits(old), "{old}");
        }
        for new in ["3.4.44", "3.5.30", "3.5.33"] {
            assert!(limits(new), "{new}");
        }
        assert!(!limits_users(
            "other",
            &"3.5.30".parse().expect("a version")
        ));
    }

    #[test]
    fn a_new_instance_gets_the_newest_or_what_it_asks_for() {
        assert_eq!(for_new(None, &installed()), Ok(v("3.5.30")));
        assert_eq!(for_new(Some("3.4.23"), &installed()), Ok(v("3.4.23")));
        assert_eq!(for_new(None, &[]), Err(VersionRefusal::NoneAvailable));
        let refusal = for_new(Some("9.9.9"), &installed()).expect_err("unknown");
        assert_eq!(
            refusal.to_string(),
            "db_version \"9.9.9\" is not available; choose one of: 3.5.30, 3.5.16, 3.4.23, 3.3.25"
        );
        assert!(for_new(Some("3.5"), &installed()).is_err());
        assert!(for_new(Some("03.5.+6"), &installed()).is_err());
    }

    #[test]
    fn a_restore_stays_in_its_line_unless_told_otherwise() {
        assert_eq!(
            for_restore(v("3.5.16"), None, &installed()),
            Ok(v("3.5.30"))
        );
        assert_eq!(
            for_restore(v("3.3.25"), None, &installed()),
            Ok(v("3.3.25"))
        );
        assert_eq!(
            for_restore(v("3.3.25"), Some("3.5.30"), &installed()),
            Ok(v("3.5.30"))
        );
        assert!(matches!(
            for_restore(v("3.5.30"), Some("3.5.16"), &installed()),
            Err(VersionRefusal::OlderThanBackup { .. })
        ));
        assert!(matches!(
            for_restore(v("3.2.32"), None, &installed()),
            Err(VersionRefusal::LineGone { .. })
        ));
        assert!(matches!(
            for_restore(v("3.2.32"), Some("3.5.30"), &installed()),
            Err(VersionRefusal::TooFar { .. })
        ));
    }

    #[test]
    fn poisonous_versions_are_never_offered() {
        let offered: Vec<bool> = [
            "3.5.0", "3.5.1", "3.5.2", "3.5.3", "3.4.23", "2.3.8", "3.6.0", "3.2.9",
        ]
        .map(|t| etcd_offered(&v(t)))
        .to_vec();
        assert_eq!(
            offered,
            [false, false, false, true, true, false, false, false]
        );
    }

    #[test]
    fn transitions_lead_only_forward() {
        let ways = |from: &str| -> Vec<String> {
            transitions(v(from), &installed())
                .iter()
                .map(|t| format!("{} {}", t.method.as_str(), t.to))
                .collect()
        };
        let both = |to: &str| [format!("in_place {to}"), format!("restore {to}")];
        assert_eq!(ways("3.4.23"), [both("3.5.16"), both("3.5.30")].concat());
        let further = ["3.5.16", "3.5.30"].map(|to| format!("in_place {to}"));
        let near = [both("3.3.25"), both("3.4.23")].concat();
        assert_eq!(ways("3.2.32"), [near, further.to_vec()].concat());
        assert!(transitions(v("3.5.30"), &installed()).is_empty());
    }

    #[test]
    fn an_upgrade_goes_through_every_line() {
        let path = |from: &str, to: &str| hops(v(from), v(to), &installed());
        assert_eq!(path("3.3.25", "3.5.16"), Ok(vec![v("3.4.23"), v("3.5.16")]));
        assert_eq!(path("3.4.23", "3.5.30"), Ok(vec![v("3.5.30")]));
        assert_eq!(path("3.5.16", "3.5.30"), Ok(vec![v("3.5.30")]));
        assert_eq!(path("3.5.16", "3.5.16"), Ok(vec![]));
        let refused = |from: &str, to: &str| path(from, to).expect_err("refused").to_string();
        assert!(refused("3.5.30", "3.5.16").contains("older"));
        assert!(refused("3.5.30", "4.0.0").contains("restore"));
        let without = [v("3.3.25"), v("3.5.30")];
        let refusal = hops(v("3.3.25"), v("3.5.30"), &without).expect_err("a gap");
        assert!(
            refusal.to_string().contains("line 3.4 is available"),
            "{refusal}"
        );
    }

    prop_compose! {
        fn any_version()(minor in 0u32..8, patch in 0u32..40) -> Version {
            Version { major: 3, minor, patch }
        }
    }

    proptest! {
        #[test]
        fn a_restore_never_goes_back(backup in any_version(), available in prop::collection::vec(any_version(), 0..8), pick in any::<prop::sample::Index>()) {
            let wanted = (!available.is_empty()).then(|| pick.get(&available).to_string());
            for wanted in [None, wanted.as_deref()] {
                if let Ok(chosen) = for_restore(backup, wanted, &available) {
                    prop_assert!(chosen >= backup);
                    prop_assert!(available.contains(&chosen));
                    prop_assert!(chosen.minor - backup.minor <= LINES_CROSSED_MAX);
                }
            }
        }

        #[test]
        fn an_upgrade_skips_no_line_and_never_goes_back(from in any_version(), available in prop::collection::vec(any_version(), 1..12), pick in any::<prop::sample::Index>()) {
            let to = *pick.get(&available);
            match hops(from, to, &available) {
                Ok(path) => {
                    let mut at = from;
                    for hop in &path {
                        prop_assert!(*hop > at && hop.minor - at.minor <= 1);
                        prop_assert!(available.contains(hop));
                        // On the way only: where it ends is for the user to say.
                        let newest = available.iter().filter(|v| v.same_line(hop)).max();
                        prop_assert!(*hop == to || newest == Some(hop));
                        at = *hop;
                    }
                    prop_assert_eq!(at, to);
                }
                Err(UpgradeRefusal::Older { .. }) => prop_assert!(to < from),
                Err(UpgradeRefusal::LineMissing { minor, .. }) => {
                    prop_assert!(from.minor < minor && minor < to.minor);
                    prop_assert!(available.iter().all(|v| v.minor != minor));
                }
                Err(UpgradeRefusal::OtherMajor { .. }) => prop_assert!(false, "one major version"),
            }
        }

        #[test]
        fn of_each_line_one_version_is_preferred_and_the_highest_is_the_default(available in prop::collection::btree_set(any_version(), 1..10)) {
            let all: Vec<Version> = available.iter().copied().collect();
            let preferred: Vec<Version> = all.iter().filter(|v| is_preferred(v, &all)).copied().collect();
            for version in &all {
                prop_assert_eq!(preferred.iter().filter(|p| p.same_line(version)).count(), 1);
            }
            prop_assert_eq!(for_new(None, &all), Ok(*preferred.iter().max().expect("one")));
        }

        #[test]
        fn what_is_printed_is_read_back(version in any_version()) {
            prop_assert_eq!(version.to_string().parse::<Version>(), Ok(version));
        }
    }
}
