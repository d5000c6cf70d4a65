//! Whether the clock can be believed: what cannot be undone asks here first.
//!
//! The clock of a machine may be set by hand, by a broken time server or by a battery that is empty,
//! to any moment. How much time has passed is another matter: the system counts it since the boot,
//! sleep included, and nobody sets that. So the time that is known is kept, moved on by what has
//! passed, and compared with what the clock shows. While the two differ by more than
//! [`CLOCK_MARGIN`], the clock is in doubt. The doubt ends when the clock shows what it should, when
//! it went on evenly for [`CLOCK_GRACE`], or at an operator's word.
//!
//! Over another boot nobody counted: there the clock may have gone on by up to
//! [`CLOCK_DOWNTIME_MAX`].
//!
//! Invariant: without a grace or an operator's word, the known time goes no faster than what has
//! passed, but for a small share of it ([`CLOCK_SLEW`]). So no number of small steps adds up to a large one.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::limits::{CLOCK_DOWNTIME_MAX, CLOCK_GRACE, CLOCK_MARGIN, CLOCK_SLEW};

/// What a clock shows, and how much time has passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockReading {
    /// The time of day that it shows.
    pub time: DateTime<Utc>,
    /// What has passed since a moment that only readings of the same boot share.
    pub elapsed: TimeDelta,
    /// What that moment belongs to.
    pub boot: String,
}

/// A moment that what cannot be undone may go by. Only a clock that is not in doubt gives one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trusted(DateTime<Utc>);

impl Trusted {
    /// The moment.
    pub fn time(self) -> DateTime<Utc> {
        self.0
    }

    /// The moment so long before.
    #[must_use]
    pub fn before(self, by: TimeDelta) -> Self {
        Self(shifted(self.0, -by))
    }

    /// For tests of what goes by it.
    #[cfg(test)]
    pub fn assumed(time: DateTime<Utc>) -> Self {
        Self(time)
    }
}

/// What is known of the time, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownTime {
    /// The time when it was last looked.
    pub time: DateTime<Utc>,
    /// What had passed by then, in milliseconds.
    elapsed_ms: i64,
    /// What that is counted from.
    boot: String,
    /// Why the clock is not believed; absent: it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubt: Option<Doubt>,
}

/// A clock that is not believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubt {
    /// When it began, in the time that is known.
    pub since: DateTime<Utc>,
    /// What the clock shows.
    pub shown: DateTime<Utc>,
    /// For how long it has gone on evenly, in milliseconds.
    evenly_ms: i64,
}

impl Doubt {
    /// How much longer the clock has to go on evenly to be believed.
    pub fn rest(&self) -> TimeDelta {
        (CLOCK_GRACE - TimeDelta::milliseconds(self.evenly_ms)).max(TimeDelta::zero())
    }
}

impl KnownTime {
    /// What is known when nothing was known before: what the clock shows.
    pub fn begin(reading: &ClockReading) -> Self {
        Self {
            time: reading.time,
            elapsed_ms: reading.elapsed.num_milliseconds(),
            boot: reading.boot.clone(),
            doubt: None,
        }
    }

    /// What is known after a look at the clock.
    #[must_use]
    pub fn after(&self, reading: &ClockReading) -> Self {
        let elapsed_ms = reading.elapsed.num_milliseconds();
        let same_boot = self.boot == reading.boot;
        let passed = same_boot.then(|| TimeDelta::milliseconds(elapsed_ms - self.elapsed_ms));
        let at = |time, doubt| Self {
            time,
            elapsed_ms,
            boot: reading.boot.clone(),
            doubt,
        };
        if let Some(time) = follow(self.time, passed, reading.time) {
            return at(time, None);
        }
        let counted = passed.unwrap_or_default();
        let time = shifted(self.time, counted);
        let doubt = self.doubt.as_ref().and_then(|doubt| {
            Some(Doubt {
                since: doubt.since,
                shown: follow(doubt.shown, passed, reading.time)?,
                evenly_ms: doubt.evenly_ms + counted.num_milliseconds().max(0),
            })
        });
        match doubt {
            Some(doubt) if doubt.rest().is_zero() => at(reading.time, None),
            Some(doubt) => at(time, Some(doubt)),
            None => at(
                time,
                Some(Doubt {
                    since: self.doubt.as_ref().map_or(time, |doubt| doubt.since),
                    shown: reading.time,
                    evenly_ms: 0,
                }),
            ),
        }
    }

    /// The moment of a reading that this came of, unless the clock is in doubt.
    pub fn trusted(&self, reading: &ClockReading) -> Option<Trusted> {
        self.doubt.is_none().then_some(Trusted(reading.time))
    }
}

/// The time after `known` when so much has passed (none: nobody counted) and a clock shows `shown`;
/// none when the clock cannot be right.
fn follow(
    known: DateTime<Utc>,
    passed: Option<TimeDelta>,
    shown: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    let earliest = shifted(known, passed.unwrap_or_default());
    let latest = match passed {
        Some(_) => earliest,
        None => shifted(earliest, CLOCK_DOWNTIME_MAX),
    };
    let nearest = shown.clamp(earliest, latest);
    let differs = shown - nearest;
    if differs.abs() > CLOCK_MARGIN {
        return None;
    }
    let slew = passed.unwrap_or_default().abs() / CLOCK_SLEW;
    Some(shifted(nearest, differs.clamp(-slew, slew)))
}

/// A moment that is moved, as far as moments go.
fn shifted(time: DateTime<Utc>, by: TimeDelta) -> DateTime<Utc> {
    time.checked_add_signed(by).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn start() -> DateTime<Utc> {
        "2026-06-01T12:00:00Z".parse().expect("a time")
    }

    fn reading(elapsed: TimeDelta, wrong_by: TimeDelta) -> ClockReading {
        ClockReading {
            time: start() + elapsed + wrong_by,
            elapsed,
            boot: "one".to_owned(),
        }
    }

    fn begun() -> KnownTime {
        KnownTime::begin(&reading(TimeDelta::zero(), TimeDelta::zero()))
    }

    #[test]
    fn a_clock_that_jumps_is_in_doubt_until_it_is_right_again() {
        for jump in [
            TimeDelta::days(3650),
            TimeDelta::days(-3650),
            TimeDelta::minutes(6),
            TimeDelta::minutes(-6),
        ] {
            let second = TimeDelta::seconds(1);
            let jumped = begun().after(&reading(second, jump));
            assert!(jumped.doubt.is_some(), "{jump}");
            assert_eq!(jumped.time, start() + second);
            assert_eq!(jumped.trusted(&reading(second, jump)), None);
            let right = reading(second * 5, TimeDelta::zero());
            let back = jumped.after(&right);
            assert_eq!(back.trusted(&right), Some(Trusted(right.time)));
        }
    }

    #[test]
    fn days_that_passed_are_believed_however_many_there_are() {
        let month = reading(TimeDelta::days(31), TimeDelta::minutes(2));
        assert!(begun().after(&month).trusted(&month).is_some());
    }

    #[test]
    fn a_new_time_proves_itself_by_going_on_evenly() {
        let jump = TimeDelta::days(30);
        let minute = TimeDelta::minutes(1);
        let mut known = begun().after(&reading(minute, jump));
        let hours = |n| reading(minute + TimeDelta::hours(n), jump);
        for hour in 1..24 {
            known = known.after(&hours(hour));
            assert!(known.doubt.is_some(), "{hour}");
        }
        // It jumps once more: all begins anew.
        known = known.after(&reading(TimeDelta::hours(24), jump * 2));
        assert!(known.doubt.is_some());
        let again = |n: i64| reading(TimeDelta::hours(24 + n), jump * 2);
        known = known.after(&again(23));
        assert!(known.doubt.is_some());
        known = known.after(&again(24));
        assert_eq!(known.doubt, None);
        assert_eq!(known.time, again(24).time);
    }

    #[test]
    fn over_another_boot_two_days_are_believed_at_once_and_more_after_the_grace() {
        let other = |days, passed| ClockReading {
            time: start() + TimeDelta::days(days) + passed,
            elapsed: TimeDelta::minutes(1) + passed,
            boot: "two".to_owned(),
        };
        for (days, believed) in [(0, true), (1, true), (2, true), (3, false), (-1, false)] {
            let known = begun().after(&other(days, TimeDelta::zero()));
            assert_eq!(known.doubt.is_none(), believed, "{days}");
            let later = known.after(&other(days, CLOCK_GRACE));
            assert_eq!(later.doubt, None, "{days}");
        }
    }

    #[test]
    fn a_grace_goes_on_over_boots() {
        let long = TimeDelta::days(30);
        let known = begun().after(&reading(TimeDelta::zero(), long));
        let known = known.after(&reading(TimeDelta::hours(23), long));
        let at = |hours| ClockReading {
            time: start() + long + TimeDelta::hours(hours),
            elapsed: TimeDelta::hours(hours),
            boot: "two".to_owned(),
        };
        let known = known.after(&at(25));
        assert!(known.doubt.is_some());
        assert_eq!(known.after(&at(26)).doubt, None);
    }

    #[test]
    fn what_is_kept_can_be_read() {
        let known = begun().after(&reading(TimeDelta::hours(1), TimeDelta::days(9)));
        let text = serde_json::to_string(&known).expect("a text");
        assert_eq!(
            serde_json::from_str::<KnownTime>(&text).expect("the same"),
            known
        );
    }

    proptest! {
        /// No number of jumps, large or small, moves the known time faster than time passes.
        #[test]
        fn nothing_but_time_moves_the_known_time(
            looks in prop::collection::vec((0..3600_i64, -400_000..400_000_i64), 1..100),
        ) {
            let (mut known, mut elapsed) = (begun(), TimeDelta::zero());
            for (passed, wrong_by) in looks {
                elapsed += TimeDelta::seconds(passed);
                if elapsed >= CLOCK_GRACE {
                    break;
                }
                known = known.after(&reading(elapsed, TimeDelta::seconds(wrong_by)));
                let off = (known.time - (start() + elapsed)).abs();
                prop_assert!(off <= elapsed / CLOCK_SLEW + TimeDelta::milliseconds(100), "{off}");
            }
        }

        /// What is trusted was never further from what has passed than the margin allows.
        #[test]
        fn nothing_is_trusted_that_differs(
            passed in 0..86_000_i64, wrong_by in -1_000_000..1_000_000_i64,
        ) {
            let seen = reading(TimeDelta::seconds(passed), TimeDelta::seconds(wrong_by));
            let trusted = begun().after(&seen).trusted(&seen).is_some();
            prop_assert_eq!(trusted, wrong_by.abs() <= CLOCK_MARGIN.num_seconds());
        }
    }
}
