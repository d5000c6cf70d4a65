//! Storage that a database's files have and do not use, and when it is given back. Pure: the caller
//! brings the moment and what was seen.
//!
//! What is deleted or forgotten leaves its place in the file, to be written over; the file gets
//! smaller only when a member writes it anew, and that member answers nobody meanwhile. So it is done
//! where it is worth it, at night, one member after the other, and only while all of them serve.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};

use super::{
    ids::InstanceId,
    limits::{
        DEFRAGMENT_BYTES_PER_SECOND, FRAGMENTED_BYTES_MIN, FRAGMENTED_PERCENT, NIGHT_BEGINS_HOUR,
        NIGHT_HOURS, UNUSED_PERCENT_MIN,
    },
    observation::{MemberHealth, MemberObservation, Observation},
    schedule::minute_of_day,
};

/// What a member's file has, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Storage {
    /// In all: what the quota is compared with.
    pub allocated: u64,
    /// What of it holds something; absent where the version does not tell.
    pub used: Option<u64>,
}

impl Storage {
    /// Of the member of which most would come back, or whose file is the largest; none when no member
    /// tells.
    pub fn of(seen: &Observation) -> Option<Self> {
        let all = seen.members.iter().filter_map(Self::of_member);
        all.max_by_key(|storage| (storage.unused(), storage.allocated))
    }

    /// Of one member; none while it does not tell.
    pub fn of_member(member: &MemberObservation) -> Option<Self> {
        match member.health {
            MemberHealth::Serving {
                database_bytes,
                used_bytes,
                ..
            } => Some(Self {
                allocated: database_bytes,
                used: used_bytes,
            }),
            _ => None,
        }
    }

    /// What would come back; absent where the version does not tell.
    pub fn unused(self) -> Option<u64> {
        Some(self.allocated.saturating_sub(self.used?))
    }

    /// Whether so much would come back that the broker does it by itself.
    pub fn is_fragmented(self) -> bool {
        self.allocated >= FRAGMENTED_BYTES_MIN && self.wastes_more_than(FRAGMENTED_PERCENT)
    }

    /// Whether it is worth it that the member answers nobody meanwhile.
    fn gives_back(self) -> bool {
        self.wastes_more_than(UNUSED_PERCENT_MIN)
    }

    fn wastes_more_than(self, percent: u64) -> bool {
        let unused = u128::from(self.unused().unwrap_or(0)) * 100;
        unused > u128::from(self.allocated) * u128::from(percent)
    }

    /// What a member writes when it writes its file anew.
    pub fn written(self) -> u64 {
        self.used.unwrap_or(self.allocated)
    }

    /// About how long each member answers nobody while it writes its file anew: what is used is
    /// written.
    pub fn stall(self) -> Duration {
        Duration::from_secs(1 + self.written() / DEFRAGMENT_BYTES_PER_SECOND)
    }
}

/// The place of the member whose file is written anew next: of those that are not `done`, the leader
/// last. None: there is none any more. Where somebody asked for it, each of them is, whatever it tells:
/// some count what they forgot as unused only with their next write.
pub fn next(seen: &[MemberObservation], done: &[usize], is_asked_for: bool) -> Option<usize> {
    let is_next = |place: &usize| {
        let storage = Storage::of_member(&seen[*place]);
        let is_worth_it = is_asked_for || storage.is_some_and(Storage::gives_back);
        !done.contains(place) && is_worth_it
    };
    let places = (0..seen.len()).filter(is_next);
    places.min_by_key(|place| seen[*place].leads())
}

/// The night in which it is an instance's turn at `now`, as the day that it belongs to; none by day,
/// and before its minute of that night. Instances are spread over it, and one that has missed its
/// minute has its turn later in the same night.
pub fn night_turn(instance: &InstanceId, now: DateTime<Utc>) -> Option<NaiveDate> {
    let day = now.date_naive();
    let begin = day.and_time(NaiveTime::MIN).and_utc() + TimeDelta::hours(NIGHT_BEGINS_HOUR);
    let minutes = i64::from(minute_of_day(instance)) % (NIGHT_HOURS * 60);
    let turn = begin + TimeDelta::minutes(minutes);
    let end = begin + TimeDelta::hours(NIGHT_HOURS);
    (turn..end).contains(&now).then_some(day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::observation::MemberRole;

    const MB: u64 = 1024 * 1024;

    fn storage(allocated: u64, used: u64) -> Storage {
        Storage {
            allocated: allocated * MB,
            used: Some(used * MB),
        }
    }

    fn member(leads: bool, bytes: u64, used: Option<u64>) -> MemberObservation {
        MemberObservation {
            name: "m".to_owned(),
            url: String::new(),
            health: MemberHealth::Serving {
                role: MemberRole::of(leads),
                version: "3.6.16".to_owned(),
                database_bytes: bytes,
                used_bytes: used,
                changes: 1,
                is_full: false,
                differs: false,
                complaints: Vec::new(),
            },
        }
    }

    #[test]
    fn only_a_file_that_is_large_and_mostly_unused_is_fragmented() {
        assert!(storage(200, 99).is_fragmented());
        assert!(!storage(200, 100).is_fragmented(), "half of it is used");
        assert!(!storage(63, 1).is_fragmented(), "it is tiny");
        let silent = Storage {
            allocated: 200 * MB,
            used: None,
        };
        assert!(!silent.is_fragmented(), "it does not tell");
        assert!(!silent.gives_back());
        assert!(storage(200, 100).gives_back() && !storage(200, 190).gives_back());
    }

    #[test]
    fn the_leader_comes_last_and_nobody_twice() {
        let full = || member(false, 100, Some(95));
        let seen = [
            member(true, 100, Some(10)),
            member(false, 100, Some(10)),
            full(),
        ];
        let order = |is_asked_for| {
            let mut done = Vec::new();
            while let Some(place) = next(&seen, &done, is_asked_for) {
                done.push(place);
            }
            done
        };
        assert_eq!(order(false), [1, 0], "only who has something to give back");
        assert_eq!(order(true), [1, 2, 0], "who asks knows better");
    }

    #[test]
    fn what_is_told_is_of_the_member_that_wastes_most() {
        let seen =
            |members: Vec<MemberObservation>| Observation::first(members, 2, DateTime::UNIX_EPOCH);
        assert_eq!(Storage::of(&seen(Vec::new())), None);
        let wastes = member(false, 90, Some(10));
        let found = Storage::of(&seen(vec![member(true, 100, Some(99)), wastes]));
        let expected = Storage {
            allocated: 90,
            used: Some(10),
        };
        assert_eq!(found, Some(expected));
    }

    proptest! {
        #[test]
        fn each_instance_has_a_turn_every_night_and_none_by_day(id in "[a-z0-9-]{1,40}", day in 0i64..40_000) {
            let instance: InstanceId = id.parse().expect("an id");
            let midnight = DateTime::UNIX_EPOCH + TimeDelta::days(day);
            let turn = |minute: i64| night_turn(&instance, midnight + TimeDelta::minutes(minute));
            let end = (NIGHT_BEGINS_HOUR + NIGHT_HOURS) * 60;
            prop_assert_eq!(turn(end - 1), Some(midnight.date_naive()));
            for minute in [0, NIGHT_BEGINS_HOUR * 60 - 1, end, 24 * 60 - 1] {
                prop_assert_eq!(turn(minute), None);
            }
            // Once it has come it stays for the rest of the night.
            let turns: Vec<bool> = (NIGHT_BEGINS_HOUR * 60..end).map(|m| turn(m).is_some()).collect();
            prop_assert!(turns.is_sorted());
        }
    }
}
