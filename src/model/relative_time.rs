//! How far a moment is from now, as page and client say it. Pure.
//!
//! Times past are rounded down: what was 59 minutes ago is not an hour ago. Times ahead are rounded to the
//! nearest, and days stay days: what was set to 14 days is told as 14 days, not as 13 or as 2 weeks.
//! The page's script says it alike (`relative` in `assets/script.js`).

use chrono::{DateTime, TimeDelta, Utc};

use super::sentence::counted;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;
/// Below, in seconds, nobody counts.
const MOMENT: i64 = 10;

/// `21 hours ago`, `in 14 days`, `just now`, `in a moment`.
pub fn relative(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let seconds = (now - at).abs().num_seconds();
    match (at <= now, seconds < MOMENT) {
        (true, false) => format!("{} ago", past(seconds)),
        (false, false) => format!("in {}", ahead(seconds)),
        // Two clocks may be less than a second apart.
        (false, true) if at - now >= TimeDelta::seconds(1) => "in a moment".to_owned(),
        _ => "just now".to_owned(),
    }
}

/// How long something has lasted that began `at`: `for 21 hours`, `since a moment ago`.
pub fn lasting(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    match (now - at).num_seconds() {
        ..MOMENT => "since a moment ago".to_owned(),
        seconds => format!("for {}", past(seconds)),
    }
}

/// A time that has passed, in seconds: the largest unit that fits, rounded down.
fn past(seconds: i64) -> String {
    let (count, unit) = match seconds {
        ..MINUTE => (seconds, "second"),
        MINUTE..HOUR => (seconds / MINUTE, "minute"),
        HOUR..DAY => (seconds / HOUR, "hour"),
        // Days are said up to two weeks, weeks up to two months.
        _ if seconds < 14 * DAY => (seconds / DAY, "day"),
        _ if seconds < 61 * DAY => (seconds / (7 * DAY), "week"),
        _ if seconds < 2 * YEAR => (seconds / (30 * DAY), "month"),
        _ => (seconds / YEAR, "year"),
    };
    counted(count, unit)
}

/// A time to come, in seconds, to the nearest minute, hour, day or, from two on, year.
pub fn ahead(seconds: i64) -> String {
    let nearest = |unit: i64| seconds.saturating_add(unit / 2) / unit;
    let (count, unit) = match seconds {
        ..MINUTE => (seconds, "second"),
        _ if nearest(MINUTE) < HOUR / MINUTE => (nearest(MINUTE), "minute"),
        _ if nearest(HOUR) < DAY / HOUR => (nearest(HOUR), "hour"),
        _ if nearest(DAY) < 2 * YEAR / DAY => (nearest(DAY), "day"),
        _ => (nearest(YEAR), "year"),
    };
    counted(count, unit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seen(seconds_ago: i64) -> String {
        let now = DateTime::from_timestamp(1_700_000_000, 0).expect("a time");
        relative(now - TimeDelta::seconds(seconds_ago), now)
    }

    #[test]
    fn times_past_are_rounded_down() {
        for (seconds, text) in [
            (0, "just now"),
            (9, "just now"),
            (10, "10 seconds ago"),
            (60, "1 minute ago"),
            (3599, "59 minutes ago"),
            (3600, "1 hour ago"),
            (21 * 3600 + 5, "21 hours ago"),
            (DAY, "1 day ago"),
            (13 * DAY, "13 days ago"),
            (14 * DAY, "2 weeks ago"),
            (38 * DAY, "5 weeks ago"),
            (61 * DAY, "2 months ago"),
            (800 * DAY, "2 years ago"),
        ] {
            assert_eq!(seen(seconds), text);
        }
    }

    #[test]
    fn what_was_set_reads_as_set_until_it_is_nearer_to_less() {
        for (seconds, text) in [
            (1, "in a moment"),
            (9, "in a moment"),
            (10, "in 10 seconds"),
            (59, "in 59 seconds"),
            (89, "in 1 minute"),
            (90, "in 2 minutes"),
            (HOUR - 31, "in 59 minutes"),
            (HOUR - 1, "in 1 hour"),
            (DAY - 1, "in 1 day"),
            (DAY + HOUR, "in 1 day"),
            (3 * DAY + 5, "in 3 days"),
            (14 * DAY, "in 14 days"),
            (14 * DAY - 1, "in 14 days"),
            (14 * DAY - DAY / 2, "in 14 days"),
            (14 * DAY - DAY / 2 - 1, "in 13 days"),
            (30 * DAY - 1, "in 30 days"),
            (90 * DAY - 1, "in 90 days"),
            (365 * DAY - 1, "in 365 days"),
            (2 * YEAR - 1, "in 2 years"),
            (10 * YEAR - DAY, "in 10 years"),
        ] {
            assert_eq!(seen(-seconds), text);
        }
    }

    #[test]
    fn what_lasts_is_told_since_it_began() {
        let at = DateTime::from_timestamp(1_700_000_000, 0).expect("a time");
        let after = |seconds| lasting(at, at + TimeDelta::seconds(seconds));
        // By a clock that is behind, too.
        for seconds in [-60, 0, 9] {
            assert_eq!(after(seconds), "since a moment ago");
        }
        assert_eq!(after(10), "for 10 seconds");
        assert_eq!(after(3 * HOUR), "for 3 hours");
    }

    proptest! {
        #[test]
        fn every_time_can_be_told(seconds in -4_000_000_000i64..4_000_000_000) {
            prop_assert!(!seen(seconds).is_empty());
        }
    }
}
