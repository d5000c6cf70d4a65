//! How numbers and times read on pages: short for the eye, exact beside it.

use chrono::{DateTime, SecondsFormat, Utc};

use crate::model::relative_time::{lasting, relative};
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
    use super::*;

    #[test]
    fn a_moment_is_told_in_three_forms() {
        let at = DateTime::from_timestamp(1_700_000_000, 0).expect("a time");
        let moment = Moment::new(at, at + chrono::TimeDelta::hours(3));
        assert_eq!(moment.iso, "2023-11-14T22:13:20Z");
        assert_eq!(moment.exact, "2023-11-14 22:13:20 UTC");
        assert_eq!(moment.relative, "3 hours ago");
        assert_eq!(moment.lasting, "for 3 hours");
    }

    #[test]
    fn long_numbers_have_gaps() {
        assert_eq!(number(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(number(-12), "-12");
    }
}
