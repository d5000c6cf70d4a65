//! What keeps an operation from getting on, and how people are told of it.

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
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
    /// When the next one comes; none where earlier versions wrote it down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<DateTime<Utc>>,
    /// When the last try begins, where that is known: a deletion waits for no backup for longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
}

impl Trouble {
    /// The same for people, as of `now`: while the next try lies ahead, with how long that takes.
    pub fn in_words(&self, now: DateTime<Utc>) -> String {
        let ahead = self.next.map(|next| next - now);
        let ahead = ahead.filter(|ahead| *ahead > TimeDelta::zero());
        let next = ahead.map_or_else(String::new, |ahead| format!(", next in {}", Ahead(ahead)));
        self.text(&next)
    }

    fn text(&self, next: &str) -> String {
        let ordinal = Ordinal(self.tries.saturating_add(1));
        let since = Moment(self.since);
        format!("{ordinal} try, since {since}{next}: {}", self.reason)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(""))
    }
}

/// A time ahead, rounded up.
struct Ahead(TimeDelta);

impl fmt::Display for Ahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self
            .0
            .num_milliseconds()
            .max(0)
            .unsigned_abs()
            .div_ceil(1000);
        match seconds {
            ..120 => write!(f, "{seconds} s"),
            120..7200 => write!(f, "{} min", seconds.div_ceil(60)),
            _ => write!(f, "{} h", seconds.div_ceil(3600)),
        }
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

    fn of(tries: u32) -> Trouble {
        Trouble {
            tries,
            since: "2026-11-27T08:33:01.5Z".parse().expect("a moment"),
            reason: "the members are not ready: m0 does not answer".to_owned(),
            next: None,
            until: None,
        }
    }

    #[test]
    fn trouble_reads_like_a_sentence() {
        assert_eq!(
            of(2).to_string(),
            "3rd try, since 2026-11-27 08:33:01 UTC: the members are not ready: m0 does not answer"
        );
        for (tries, said) in [
            (1, "2nd"),
            (3, "4th"),
            (10, "11th"),
            (20, "21st"),
            (111, "112th"),
        ] {
            assert!(of(tries).to_string().starts_with(said), "{said}");
        }
    }

    #[test]
    fn the_next_try_is_told_of_while_it_lies_ahead() {
        let now = of(1).since;
        for (milliseconds, said) in [
            (-1, ""),
            (0, ""),
            (1, ", next in 1 s"),
            (7500, ", next in 8 s"),
            (119_000, ", next in 119 s"),
            (300_000, ", next in 5 min"),
            (14_400_000, ", next in 4 h"),
        ] {
            let trouble = Trouble {
                next: Some(now + TimeDelta::milliseconds(milliseconds)),
                ..of(1)
            };
            let told = trouble.in_words(now);
            let expected = format!("2nd try, since 2026-11-27 08:33:01 UTC{said}: ");
            assert!(told.starts_with(&expected), "{told}");
        }
        assert_eq!(of(1).in_words(now), of(1).to_string());
    }
}
