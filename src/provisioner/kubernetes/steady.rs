//! How often members were started anew in a row. The cluster counts from the beginning of a pod on; here
//! one that has run well for a while begins anew.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::model::limits::RESTART_BACKOFF_RESET;

/// What was seen of the members' pods.
#[derive(Default)]
pub(super) struct Steady(Mutex<HashMap<String, Life>>);

#[derive(Clone, Copy)]
struct Life {
    /// Restarts in all, when it was seen last.
    count: u32,
    /// Since when it was seen to run so.
    since: Instant,
    /// Restarts that count no more.
    forgiven: u32,
    seen: Instant,
}

/// A pod that was not looked at for so long is forgotten.
const KEPT: Duration = Duration::from_hours(1);

impl Steady {
    /// The restarts in a row of a pod, of which `count` were counted in all, and that `runs` now or not.
    pub(super) fn in_a_row(&self, pod: &str, count: u32, runs: bool, now: Instant) -> u32 {
        // Every change of the map is one call, so it is whole even after a panic.
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, life| now.duration_since(life.seen) < KEPT);
        let life = all.entry(pod.to_owned()).or_insert(Life {
            count,
            since: now,
            forgiven: 0,
            seen: now,
        });
        life.seen = now;
        if life.count != count || !runs {
            (life.count, life.since) = (count, now);
        }
        if now.duration_since(life.since) >= RESTART_BACKOFF_RESET {
            life.forgiven = count;
        }
        count.saturating_sub(life.forgiven)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_runs_well_for_a_while_begins_anew() {
        let (steady, begin) = (Steady::default(), Instant::now());
        let seen = |count, runs, seconds| {
            let now = begin + Duration::from_secs(seconds);
            steady.in_a_row("pod", count, runs, now)
        };
        assert_eq!(seen(3, false, 0), 3);
        assert_eq!(seen(3, true, 1), 3);
        assert_eq!(seen(4, true, 30), 4);
        assert_eq!(seen(4, true, 89), 4);
        assert_eq!(seen(4, true, 90), 0);
        assert_eq!(seen(5, false, 91), 1);
        // Another pod is another member, or the same one made anew.
        assert_eq!(steady.in_a_row("other", 2, true, begin), 2);
    }
}
