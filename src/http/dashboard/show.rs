//! How numbers and times read on pages: short for the eye, exact beside it.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

pub use crate::model::{duration::duration, sentence::counted};

/// A point in time, in three forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// For programs: RFC 3339.
    pub iso: String,
    /// To the second, in UTC.
    pub exact: String,
    /// Seen from now.
    pub relative: String,
    /// How long it has lasted, of something that began then.
    pub lasting: String,
}

impl Moment {
    /// `at`, seen from `now`.
    pub fn new(at: DateTime<Utc>, now: DateTime<Utc>) -> Self {
        Self {
            iso: at.to_rfc3339_opts(SecondsFormat::Secs, true),
            exact: at.format("%Y-%m-%d %H:%M:%S UTC").to_string(),
            relative: relative(at, now),
            lasting: lasting(at, now),
        }
    }
}

/// `21 hours ago`, `in 3 days`: the largest unit that fits, rounded down.
fn relative(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let distance = (now - at).abs();
    let Some(distance_text) = distance_text(distance) else {
        // Two clocks may be less than a second apart.
        let is_ahead = at - now >= TimeDelta::seconds(1);
        return if is_ahead { "in a moment" } else { "just now" }.to_owned();
    };
    if at <= now {
        format!("{distance_text} ago")
    } else {
        format!("in {distance_text}")
    }
}

/// `for 21 hours`; `since just now`.
fn lasting(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    match distance_text((now - at).max(TimeDelta::zero())) {
        Some(distance) => format!("for {distance}"),
        None => "since just now".to_owned(),
    }
}

fn distance_text(distance: TimeDelta) -> Option<String> {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    let seconds = distance.num_seconds();
    let (count, unit) = match seconds {
        ..10 => return None,
        10..MINUTE => (seconds, "second"),
        MINUTE..HOUR => (seconds / MINUTE, "minute"),
        HOUR..DAY => (seconds / HOUR, "hour"),
        // Days are said up to two weeks, weeks up to two months.
        _ if seconds < 14 * DAY => (seconds / DAY, "day"),
        _ if seconds < 61 * DAY => (seconds / (7 * DAY), "week"),
        _ if seconds < 730 * DAY => (seconds / (30 * DAY), "month"),
        _ => (seconds / (365 * DAY), "year"),
    };
    Some(counted(count, unit))
}

/// A text whose dates stay in one line: a browser may break a line at each hyphen.
pub fn dates_whole(text: &str) -> String {
    let bytes = text.as_bytes();
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let whole = |(at, c): (usize, char)| match c {
        '-' if at > 0 && is_digit(at - 1) && is_digit(at + 1) => '\u{2011}',
        other => other,
    };
    text.char_indices().map(whole).collect()
}

/// `1.0 MiB to 2.0 MiB`; one of them where both are the same.
pub fn range(from: String, to: String) -> String {
    if from == to {
        from
    } else {
        format!("{from} to {to}")
    }
}

/// A whole number with thin gaps, as people read long ones.
pub fn number(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    if number < 0 {
        text.insert(0, '-');
    }
    text
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
    fn times_are_told_from_now() {
        const DAY: i64 = 86_400;
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
            (-1, "in a moment"),
            (-9, "in a moment"),
            (-10, "in 10 seconds"),
            (-3 * DAY - 5, "in 3 days"),
        ] {
            assert_eq!(seen(seconds), text);
        }
        let at = DateTime::from_timestamp(1_700_000_000, 0).expect("a time");
        let moment = Moment::new(at, at);
        assert_eq!(moment.iso, "2023-11-14T22:13:20Z");
        assert_eq!(moment.exact, "2023-11-14 22:13:20 UTC");
        assert_eq!(moment.lasting, "since just now");
        let later = at + TimeDelta::hours(3);
        assert_eq!(Moment::new(at, later).lasting, "for 3 hours");
    }

    #[test]
    fn long_numbers_have_gaps() {
        assert_eq!(number(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(number(-12), "-12");
    }

    proptest! {
        #[test]
        fn every_time_can_be_told(seconds in -4_000_000_000i64..4_000_000_000) {
            prop_assert!(!seen(seconds).is_empty());
        }
    }
}
