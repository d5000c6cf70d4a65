//! How a database was over time: readings of its size and of its members, close together for the last day
//! and farther apart before. Pure.
//!
//! Invariants: a history has no more than [`READINGS_MAX`](super::limits::READINGS_MAX) readings, the oldest in front, one for each stretch
//! of time; of what was seen within a stretch it keeps the largest size and the fewest members that served.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::{
    limits::{READING_STRETCH, READING_STRETCH_COARSE, READINGS_FINE_KEPT, READINGS_KEPT},
    observation::Observation,
};

/// What was seen of a database within a stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Row", into = "Row")]
pub struct Reading {
    /// When the stretch began.
    pub at: DateTime<Utc>,
    /// The largest size of its file, in bytes; none where no member told.
    pub allocated: Option<u64>,
    /// The most of it that held something, in bytes; none where no member told.
    pub used: Option<u64>,
    /// What the file may have, in bytes.
    pub quota: u64,
    /// How many members it has.
    pub members: usize,
    /// How many of them served, when the fewest did; none where nobody could look.
    pub serving: Option<usize>,
    /// Whether enough members served and its users were let in all the time; none where nobody could look.
    pub usable: Option<bool>,
}

/// A reading as it is kept: short, since there are many.
type Row = (
    i64,
    Option<u64>,
    Option<u64>,
    u64,
    usize,
    Option<usize>,
    Option<bool>,
);

impl From<Row> for Reading {
    fn from((at, allocated, used, quota, members, serving, usable): Row) -> Self {
        Self {
            at: DateTime::from_timestamp(at, 0).unwrap_or_default(),
            allocated,
            used,
            quota,
            members,
            serving,
            usable,
        }
    }
}

impl From<Reading> for Row {
    fn from(of: Reading) -> Self {
        (
            of.at.timestamp(),
            of.allocated,
            of.used,
            of.quota,
            of.members,
            of.serving,
            of.usable,
        )
    }
}

/// The beginning of the stretch that a moment lies in.
fn stretch(at: DateTime<Utc>, length: TimeDelta) -> DateTime<Utc> {
    let seconds = at.timestamp();
    let begin = seconds - seconds.rem_euclid(length.num_seconds());
    DateTime::from_timestamp(begin, 0).unwrap_or(at)
}

impl Reading {
    /// Of a database with so many members and such a quota, as it was seen at `now`. `seen`: none where nobody
    /// could look.
    pub fn of(
        (members, quota): (usize, u64),
        seen: Option<&Observation>,
        now: DateTime<Utc>,
    ) -> Self {
        Self {
            at: stretch(now, READING_STRETCH),
            allocated: seen.and_then(Observation::database_bytes),
            used: seen.and_then(Observation::used_bytes),
            quota,
            members,
            serving: seen.map(Observation::serving),
            usable: seen.map(|seen| seen.is_usable() && !seen.is_closed),
        }
    }

    /// Both, as one reading of a stretch that begins with this one's. Quota and members are the other's, which
    /// is the later one.
    pub fn with(self, later: Self) -> Self {
        let all = [self.usable, later.usable].into_iter().flatten();
        Self {
            at: self.at,
            allocated: self.allocated.max(later.allocated),
            used: self.used.max(later.used),
            quota: later.quota,
            members: later.members,
            serving: [self.serving, later.serving].into_iter().flatten().min(),
            usable: all.reduce(|one, other| one && other),
        }
    }

    /// Whether all members served; none where nobody could look.
    pub fn is_whole(&self) -> Option<bool> {
        self.serving.map(|serving| serving >= self.members)
    }
}

/// What was seen of a database over time, the oldest in front.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct History {
    readings: Vec<Reading>,
}

impl History {
    /// The readings.
    pub fn readings(&self) -> &[Reading] {
        &self.readings
    }

    /// The readings since a moment.
    pub fn since(&self, moment: DateTime<Utc>) -> &[Reading] {
        let first = self.readings.partition_point(|reading| reading.at < moment);
        &self.readings[first..]
    }

    /// Adds a reading, and lets go of what is too old by it. What a clock that was set back has left in its
    /// future is let go of, too.
    pub fn note(&mut self, reading: Reading) {
        self.readings.retain(|before| before.at <= reading.at);
        match self.readings.last_mut() {
            Some(last) if last.at == reading.at => *last = last.with(reading),
            _ => self.readings.push(reading),
        }
        let fine_from = stretch(reading.at - READINGS_FINE_KEPT, READING_STRETCH_COARSE);
        let oldest = reading.at - READINGS_KEPT;
        let mut kept: Vec<Reading> = Vec::with_capacity(self.readings.len());
        for mut reading in self.readings.drain(..).filter(|of| of.at >= oldest) {
            if reading.at < fine_from {
                reading.at = stretch(reading.at, READING_STRETCH_COARSE);
            }
            match kept.last_mut() {
                Some(last) if last.at == reading.at => *last = last.with(reading),
                _ => kept.push(reading),
            }
        }
        self.readings = kept;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{
        limits::READINGS_MAX,
        observation::{MemberHealth, MemberObservation, MemberRole},
    };

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + seconds, 0).expect("a time")
    }

    fn reading(seconds: i64, allocated: u64, serving: Option<usize>) -> Reading {
        Reading {
            at: stretch(at(seconds), READING_STRETCH),
            allocated: Some(allocated),
            used: None,
            quota: 1000,
            members: 3,
            serving,
            usable: serving.map(|serving| serving >= 2),
        }
    }

    #[test]
    fn a_stretch_keeps_the_worst_of_what_was_seen() {
        let mut history = History::default();
        history.note(reading(0, 5, Some(3)));
        history.note(reading(1, 9, Some(1)));
        history.note(reading(2, 4, None));
        let [one] = history.readings() else {
            panic!("{history:?}");
        };
        assert_eq!((one.allocated, one.serving), (Some(9), Some(1)));
        assert_eq!((one.usable, one.is_whole()), (Some(false), Some(false)));
        let kept = serde_json::to_string(&history).expect("a text");
        assert_eq!(kept, "[[1699999200,9,null,1000,3,1,false]]");
        assert_eq!(serde_json::from_str::<History>(&kept).ok(), Some(history));
    }

    #[test]
    fn a_database_that_is_closed_to_its_users_is_not_usable() {
        let member = MemberObservation {
            name: "m0".to_owned(),
            url: String::new(),
            health: MemberHealth::Serving {
                role: MemberRole::Leads,
                version: "3.5.30".to_owned(),
                database_bytes: 1000,
                used_bytes: None,
                changes: 1,
                is_full: false,
                differs: false,
                complaints: Vec::new(),
            },
        };
        let open = Observation::first(vec![member], 1, at(0));
        let usable = |seen: &Observation| Reading::of((1, 1000), Some(seen), at(0)).usable;
        assert_eq!(usable(&open), Some(true));
        assert_eq!(usable(&open.closed()), Some(false));
    }

    #[test]
    fn what_is_old_is_told_in_longer_stretches_and_then_no_more() {
        let mut history = History::default();
        let (stretch, day) = (READING_STRETCH.num_seconds(), 86_400);
        let mut seconds = 0;
        while seconds < 40 * day {
            // A short outage, long ago.
            let serving = if seconds == 20 * day { 1 } else { 3 };
            history.note(reading(seconds, 7, Some(serving)));
            seconds += stretch;
        }
        let count = history.readings().len();
        assert!((330..=READINGS_MAX).contains(&count), "{count}");
        let worst = history
            .readings()
            .iter()
            .filter(|of| of.usable == Some(false));
        assert_eq!(worst.count(), 1);
        let last = history.readings()[count - 1].at;
        assert!(last - history.readings()[0].at <= READINGS_KEPT);
        assert_eq!(history.since(last).len(), 1);
        // A clock that was set back goes on from there.
        history.note(reading(10 * day, 7, Some(3)));
        assert!(history.readings().iter().all(|of| of.at <= at(10 * day)));
    }

    proptest! {
        #[test]
        fn no_history_grows_beyond_its_bound(steps in prop::collection::vec((0i64..20_000, any::<u64>(), 0usize..4), 1..800)) {
            let (mut history, mut now) = (History::default(), 0);
            for (pause, bytes, serving) in steps {
                now += pause;
                history.note(reading(now, bytes, Some(serving)));
                let of = history.readings();
                prop_assert!(of.len() <= READINGS_MAX);
                prop_assert!(of.windows(2).all(|pair| pair[0].at < pair[1].at));
            }
        }
    }
}
