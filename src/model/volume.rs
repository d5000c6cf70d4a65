//! The volumes that the broker keeps things on, and when one runs out. Pure: the caller brings what
//! was seen.

use std::fmt;

use super::limits::{
    DISK_RESERVE_BYTES, VOLUME_LOW_BYTES_MAX, VOLUME_LOW_PERCENT, VOLUME_RECOVERY_PERCENT,
};

/// What lies on a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// The broker's own database.
    Store,
    /// What members of a cluster keep, by its id.
    Members(String),
    /// The backup store.
    Backups,
    /// The copies of backups.
    Mirror,
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store => f.write_str("the broker's store"),
            Self::Members(cluster) => write!(f, "members of cluster {cluster:?}"),
            Self::Backups => f.write_str("backups"),
            Self::Mirror => f.write_str("the mirror of backups"),
        }
    }
}

/// The room of a volume, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// What it has in all.
    pub total: u64,
    /// What the broker may still use.
    pub free: u64,
}

/// How much of a volume is left; the worst at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Enough.
    Ample,
    /// Its operator should make room, or give it more.
    Low,
    /// Nothing begins any more that needs room.
    Full,
}

impl Level {
    /// The name that operators read.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ample => "ample",
            Self::Low => "low",
            Self::Full => "full",
        }
    }

    /// The level of a volume that was at `before`. It gets worse at once, and better only when
    /// something more is free, so that one at a limit is not told of again and again.
    pub fn after(before: Self, space: Space) -> Self {
        let now = Self::at(space, space.free);
        let less = u128::from(space.free) * 100 / u128::from(VOLUME_RECOVERY_PERCENT);
        let cautious = Self::at(space, u64::try_from(less).unwrap_or(u64::MAX));
        if now >= before {
            now
        } else {
            cautious.min(before)
        }
    }

    fn at(space: Space, free: u64) -> Self {
        let part = u128::from(space.total) * u128::from(VOLUME_LOW_PERCENT) / 100;
        let low = u64::try_from(part).unwrap_or(u64::MAX);
        if free < DISK_RESERVE_BYTES {
            Self::Full
        } else if free < low.min(VOLUME_LOW_BYTES_MAX) {
            Self::Low
        } else {
            Self::Ample
        }
    }
}

/// A volume, as it was seen last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// What lies on it.
    pub holds: Vec<Content>,
    /// Its room.
    pub space: Space,
    /// How much of it is left.
    pub level: Level,
}

impl Volume {
    /// What lies on it, for people.
    pub fn content(&self) -> String {
        let all: Vec<String> = self.holds.iter().map(Content::to_string).collect();
        all.join(", ")
    }

    /// Why something else than what filled it suffers when it is full: members share it with the
    /// store or with backups.
    pub fn is_shared(&self) -> bool {
        let is_members = |content: &&Content| matches!(content, Content::Members(_));
        let members = self.holds.iter().filter(is_members).count();
        members > 0 && members < self.holds.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MB: u64 = 1024 * 1024;
    const GB: u64 = 1024 * MB;

    #[test]
    fn a_volume_is_low_by_its_size_and_full_when_nothing_may_begin() {
        let level = |total, free| Level::after(Level::Ample, Space { total, free });
        assert_eq!(level(10 * GB, GB), Level::Ample);
        assert_eq!(level(10 * GB, GB - 1), Level::Low);
        assert_eq!(level(10 * GB, DISK_RESERVE_BYTES), Level::Low);
        assert_eq!(level(10 * GB, DISK_RESERVE_BYTES - 1), Level::Full);
        // A large one is not low while much of it is left.
        assert_eq!(level(10_000 * GB, VOLUME_LOW_BYTES_MAX), Level::Ample);
        assert_eq!(level(10_000 * GB, VOLUME_LOW_BYTES_MAX - 1), Level::Low);
        assert_eq!(level(0, 0), Level::Full);
    }

    #[test]
    fn one_at_a_limit_stays_on_one_side() {
        let total = 10 * GB;
        let after = |before, free| Level::after(before, Space { total, free });
        assert_eq!(after(Level::Low, GB + MB), Level::Low);
        assert_eq!(after(Level::Low, 2 * GB), Level::Ample);
        assert_eq!(after(Level::Full, DISK_RESERVE_BYTES + MB), Level::Full);
        assert_eq!(after(Level::Full, 2 * DISK_RESERVE_BYTES), Level::Low);
        assert_eq!(after(Level::Full, total), Level::Ample);
    }

    #[test]
    fn what_is_shared_is_told() {
        let of = |holds: &[Content]| Volume {
            holds: holds.to_vec(),
            space: Space { total: 1, free: 1 },
            level: Level::Ample,
        };
        let members = || Content::Members("a".to_owned());
        assert!(of(&[Content::Store, members()]).is_shared());
        assert!(of(&[members(), Content::Backups]).is_shared());
        assert!(!of(&[members(), members()]).is_shared());
        assert!(!of(&[Content::Store, Content::Backups]).is_shared());
    }

    proptest! {
        #[test]
        fn a_level_is_never_better_than_what_is_free(
            total in 0u64..1 << 50, part in 0u64..1 << 50, before in 0usize..3,
        ) {
            let before = [Level::Ample, Level::Low, Level::Full][before];
            let space = Space { total, free: part.min(total) };
            let level = Level::after(before, space);
            prop_assert!(level >= Level::after(Level::Ample, space));
            // What was seen last does not change by itself.
            prop_assert_eq!(Level::after(level, space), level);
            if level == Level::Ample {
                prop_assert!(space.free >= DISK_RESERVE_BYTES);
            }
        }
    }
}
