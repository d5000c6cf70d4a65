//! When members that do not answer are left alone. Pure.
//!
//! Each look at silent members takes as long as the broker is willing to wait. After some of them in
//! a row there is none for a while, and longer after each further one; the first to come after that
//! while finds out whether they answer again.
//!
//! Moments are told by the time since any fixed one, so that no clock that is set changes a rest.

use std::time::Duration;

use super::{
    backoff::backoff,
    limits::{SILENT_LOOKS_MAX, SILENT_REST_FIRST, SILENT_REST_MAX},
};

/// How the members of a deployment answered last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Breaker {
    silent_looks: u32,
    rests_until: Option<Duration>,
}

impl Breaker {
    /// Counts a look that got no answer. A look that began before the rest says nothing new.
    pub fn silent(&mut self, now: Duration) {
        if self.rest(now).is_some() {
            return;
        }
        self.silent_looks = self.silent_looks.saturating_add(1);
        if let Some(over) = self.silent_looks.checked_sub(SILENT_LOOKS_MAX) {
            let rest = backoff(over + 1, SILENT_REST_FIRST, SILENT_REST_MAX);
            self.rests_until = Some(now + rest);
        }
    }

    /// For how long the members are left alone from now on; none when they may be asked.
    pub fn rest(&self, now: Duration) -> Option<Duration> {
        let rest = self.rests_until?.saturating_sub(now);
        (!rest.is_zero()).then_some(rest)
    }

    /// Whether nobody has looked for so long that nothing need be remembered.
    pub fn is_old(&self, now: Duration) -> bool {
        let since = self.rests_until.map(|until| until + SILENT_REST_MAX);
        since.is_some_and(|since| since <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silent_members_are_left_alone_for_longer_and_longer() {
        let mut now = Duration::from_secs(7);
        let mut breaker = Breaker::default();
        for _ in 1..SILENT_LOOKS_MAX {
            breaker.silent(now);
            assert_eq!(breaker.rest(now), None);
        }
        let mut expected = SILENT_REST_FIRST;
        for _ in 0..12 {
            breaker.silent(now);
            assert_eq!(breaker.rest(now), Some(expected));
            // Others that had begun to look.
            breaker.silent(now);
            assert_eq!(breaker.rest(now), Some(expected));
            now += expected;
            assert_eq!(breaker.rest(now), None);
            expected = (expected * 2).min(SILENT_REST_MAX);
        }
        assert_eq!(expected, SILENT_REST_MAX);
        assert!(!breaker.is_old(now));
        assert!(breaker.is_old(now + SILENT_REST_MAX));
    }
}
