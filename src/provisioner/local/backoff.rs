//! When a member that keeps ending is started again.

use std::time::{Duration, Instant};

use crate::model::{
    backoff::backoff,
    limits::{RESTART_BACKOFF_FIRST, RESTART_BACKOFF_MAX, RESTART_BACKOFF_RESET},
};

/// Longer and longer pauses, until the member has run well for a while.
#[derive(Debug)]
pub(super) struct Backoff {
    /// Ends in a row.
    ends: u32,
    due: Instant,
}

impl Backoff {
    /// No pause yet.
    pub(super) fn new(now: Instant) -> Self {
        Self { ends: 0, due: now }
    }

    /// Whether the pause is over.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        now >= self.due
    }

    /// The member ended after it had run for `ran`; returns the pause.
    pub(super) fn ended(&mut self, ran: Duration, now: Instant) -> Duration {
        if ran >= RESTART_BACKOFF_RESET {
            self.ends = 0;
        }
        self.ends = self.ends.saturating_add(1);
        let pause = backoff(self.ends, RESTART_BACKOFF_FIRST, RESTART_BACKOFF_MAX);
        self.due = now + pause;
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_after_a_healthy_run() {
        let now = Instant::now();
        let mut backoff = Backoff::new(now);
        assert!(backoff.is_due(now));
        assert_eq!(backoff.ended(Duration::ZERO, now), RESTART_BACKOFF_FIRST);
        assert!(!backoff.is_due(now));
        assert!(backoff.is_due(now + RESTART_BACKOFF_FIRST));
        assert_eq!(
            backoff.ended(Duration::ZERO, now),
            RESTART_BACKOFF_FIRST * 2
        );
        for _ in 0..100 {
            backoff.ended(Duration::ZERO, now);
        }
        assert_eq!(backoff.ended(Duration::ZERO, now), RESTART_BACKOFF_MAX);
        assert_eq!(
            backoff.ended(RESTART_BACKOFF_RESET, now),
            RESTART_BACKOFF_FIRST
        );
    }
}
