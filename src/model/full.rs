//! What is done about a database whose storage runs out. Pure: the caller brings what was seen.
//!
//! A version that is not *safe full* checks no rights for deletes and for users while it takes no
//! more writes. Its members are given more storage than the quota, and the broker lets nobody else in
//! from the quota on: so it never gets there, unless somebody writes faster than the broker looks.

use super::{
    limits::{QUOTA_OPENED_PERCENT, QUOTA_RELIEF_PERCENT, UNUSED_PERCENT_MIN},
    observation::Observation,
};

/// How full a database is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fullness {
    /// Bytes that each member may have.
    pub quota_bytes: u64,
    /// Bytes of the largest member's file; absent while none tells.
    pub database_bytes: Option<u64>,
    /// Bytes of it that hold something; absent where the version does not tell.
    pub used_bytes: Option<u64>,
    /// It takes no more writes.
    pub is_full: bool,
    /// Its version goes on checking rights when it takes no more writes.
    pub is_safe_full: bool,
    /// Nobody but the broker is let in.
    pub is_closed: bool,
}

/// What a look at a full database leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nobody else may be let in any more: at once.
    Close,
    /// Storage may be given back, or must be looked for.
    MakeRoom,
    /// There is room again.
    Open,
}

impl Fullness {
    /// How full a database is, of which this was seen.
    pub fn of(seen: &Observation, quota_bytes: u64, is_safe_full: bool, is_closed: bool) -> Self {
        Self {
            quota_bytes,
            database_bytes: seen.database_bytes(),
            used_bytes: seen.used_bytes(),
            is_full: seen.is_full(),
            is_safe_full,
            is_closed,
        }
    }

    /// What must be done now, if anything.
    pub fn need(&self) -> Option<Need> {
        let Some(bytes) = self.database_bytes else {
            // A closed one that does not run is started again.
            return self.is_closed.then_some(Need::MakeRoom);
        };
        if !self.is_closed && !self.is_safe_full && (self.is_full || bytes >= self.quota_bytes) {
            return Some(Need::Close);
        }
        let may_be_open = self.is_safe_full || self.has_room();
        if self.is_closed && may_be_open || self.is_full && self.has_room() {
            return Some(Need::Open);
        }
        // Older versions may be damaged by it; those are left alone as long as they are open.
        let is_near = self.is_safe_full && self.percent(bytes) >= QUOTA_RELIEF_PERCENT;
        (self.is_short() || is_near && self.gives_back()).then_some(Need::MakeRoom)
    }

    /// Whether unused storage is given back without being asked for.
    pub fn wants_room(&self) -> bool {
        let is_near = |bytes| self.percent(bytes) >= QUOTA_RELIEF_PERCENT;
        let is_wanted = self.is_short() || self.database_bytes.is_some_and(is_near);
        is_wanted && self.gives_back()
    }

    /// Whether it is of no use as it is: then its history is given up for room.
    pub fn is_short(&self) -> bool {
        self.is_closed || self.is_full
    }

    /// Whether so much of the file holds nothing that it is worth to give it back.
    pub fn gives_back(&self) -> bool {
        match (self.database_bytes, self.used_bytes) {
            (Some(bytes), Some(used)) => {
                let unused = u128::from(bytes.saturating_sub(used)) * 100;
                unused >= u128::from(bytes.max(1)) * u128::from(UNUSED_PERCENT_MIN)
            }
            // It does not tell, so it is tried where something must be done.
            (Some(_), None) => self.is_short(),
            (None, _) => false,
        }
    }

    /// Whether it is known that there is something to give back.
    pub fn tells_unused(&self) -> bool {
        self.used_bytes.is_some() && self.gives_back()
    }

    /// Whether there is room enough for a full database to be used again.
    pub fn has_room(&self) -> bool {
        self.database_bytes
            .is_some_and(|bytes| self.percent(bytes) < QUOTA_OPENED_PERCENT)
    }

    fn percent(&self, bytes: u64) -> u64 {
        let percent = u128::from(bytes) * 100 / u128::from(self.quota_bytes.max(1));
        u64::try_from(percent).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OLD: Fullness = Fullness {
        quota_bytes: 1000,
        database_bytes: Some(100),
        used_bytes: Some(100),
        is_full: false,
        is_safe_full: false,
        is_closed: false,
    };
    const NEW: Fullness = Fullness {
        is_safe_full: true,
        ..OLD
    };

    #[test]
    fn a_database_with_room_needs_nothing() {
        for fullness in [OLD, NEW] {
            assert_eq!(fullness.need(), None);
            let unknown = Fullness {
                database_bytes: None,
                ..fullness
            };
            assert_eq!(unknown.need(), None);
            let closed = Fullness {
                is_closed: true,
                ..unknown
            };
            assert_eq!(closed.need(), Some(Need::MakeRoom));
        }
    }

    #[test]
    fn one_that_is_unsafe_when_full_is_closed_at_its_quota() {
        let at_quota = Fullness {
            database_bytes: Some(1000),
            ..OLD
        };
        assert_eq!(at_quota.need(), Some(Need::Close));
        let alarmed = Fullness {
            is_full: true,
            ..OLD
        };
        assert_eq!(alarmed.need(), Some(Need::Close));
        let below = Fullness {
            database_bytes: Some(999),
            used_bytes: Some(990),
            ..OLD
        };
        assert_eq!(below.need(), None);
    }

    #[test]
    fn room_is_made_where_there_is_some_and_before_it_is_too_late() {
        let wasteful = |fullness: Fullness| Fullness {
            database_bytes: Some(920),
            used_bytes: Some(300),
            ..fullness
        };
        assert_eq!(wasteful(OLD).need(), None);
        assert_eq!(wasteful(NEW).need(), Some(Need::MakeRoom));
        let far_from_full = Fullness {
            database_bytes: Some(800),
            ..wasteful(NEW)
        };
        assert_eq!(far_from_full.need(), None);
        assert!(wasteful(NEW).wants_room() && !far_from_full.wants_room());
        let full = Fullness {
            database_bytes: Some(1000),
            used_bytes: Some(999),
            is_full: true,
            ..NEW
        };
        assert_eq!(full.need(), Some(Need::MakeRoom), "its history may go");
        assert!(full.is_short() && !full.gives_back());
    }

    #[test]
    fn it_is_opened_when_there_is_room() {
        let closed = Fullness {
            is_closed: true,
            ..OLD
        };
        assert_eq!(closed.need(), Some(Need::Open));
        let upgraded = Fullness {
            is_safe_full: true,
            is_full: true,
            database_bytes: Some(1000),
            ..closed
        };
        assert_eq!(upgraded.need(), Some(Need::Open));
        let disarmed = Fullness {
            is_full: true,
            ..NEW
        };
        assert_eq!(disarmed.need(), Some(Need::Open));
        let no_room = Fullness {
            database_bytes: Some(900),
            used_bytes: Some(890),
            ..closed
        };
        assert_eq!(no_room.need(), Some(Need::MakeRoom));
        assert!(!no_room.gives_back());
        let silent_about_use = Fullness {
            used_bytes: None,
            ..no_room
        };
        assert!(silent_about_use.gives_back());
    }

    proptest! {
        #[test]
        fn nobody_is_let_into_a_full_database_that_checks_no_rights(
            bytes in 0u64..2000, used in 0u64..2000, is_full in any::<bool>(), is_closed in any::<bool>(),
        ) {
            let fullness = Fullness {
                database_bytes: Some(bytes),
                used_bytes: Some(used),
                is_full,
                is_closed,
                ..OLD
            };
            let need = fullness.need();
            if !is_closed && (is_full || bytes >= 1000) {
                prop_assert_eq!(need, Some(Need::Close));
            }
            if need == Some(Need::Open) {
                prop_assert!(is_closed && bytes < 900);
            }
            prop_assert!(need != Some(Need::Close) || !is_closed);
        }
    }
}
