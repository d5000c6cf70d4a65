//! What keeps an operation from getting on, and how people are told of it.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// What keeps an operation from getting on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// Tries that came to nothing.
    pub tries: u32,
    /// When the first of them did.
    pub since: DateTime<Utc>,
    /// What the last of them came to, for people.
    pub reason: String,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let next = Ordinal(self.tries.saturating_add(1));
        let since = Moment(self.since);
        write!(f, "{next} try, since {since}: {}", self.reason)
    }
}

/// A moment, for people.
pub struct Moment(pub DateTime<Utc>);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.format("%Y-%m-%d %H:%M:%S UTC"))
    }
}

struct Ordinal(u32);

impl fmt::Display for Ordinal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ending = match (self.0 % 100, self.0 % 10) {
            (11..=13, _) => "th",
            (_, 1) => "st",
            (_, 2) => "nd",
            (_, 3) => "rd",
            _ => "th",
        };
        write!(f, "{}{ending}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_reads_like_a_sentence() {
        let since = "2026-11-27T08:33:01.5Z".parse().expect("a moment");
        let told = |tries| {
            let reason = "the members are not ready: m0 does not answer".to_owned();
            Trouble {
                tries,
                since,
                reason,
            }
            .to_string()
        };
        assert_eq!(
            told(2),
            "3rd try, since 2026-11-27 08:33:01 UTC: the members are not ready: m0 does not answer"
        );
        for (tries, said) in [
            (1, "2nd"),
            (3, "4th"),
            (10, "11th"),
            (20, "21st"),
            (111, "112th"),
        ] {
            assert!(told(tries).starts_with(said), "{said}");
        }
    }
}
