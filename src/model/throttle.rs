//! How often credentials may be wrong: so often in a row, then once in a while; per address and in
//! all, at all doors together. A failure at a page weighs more than one of a program.
//!
//! Times here are what has passed since the boot: a clock that is set forgives nothing, and keeps nobody
//! out.
//!
//! Only failures count, so nobody who knows their secret is held up by themselves; and what all have
//! done together holds up nobody who has not failed.

use std::{collections::HashMap, hash::Hash, time::Duration};

use chrono::TimeDelta;

use super::limits::{
    SIGN_IN_CLIENTS_MAX, SIGN_IN_FAILURES_OF_ALL, SIGN_IN_FAILURES_OF_PROGRAMS,
    SIGN_IN_REST_OF_ALL, SIGN_IN_REST_OF_CLIENT,
};

/// Where credentials are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// The dashboard's page, by people.
    Page,
    /// An API, by programs.
    Api,
}

impl Door {
    /// What a failure counts.
    fn weight(self) -> u32 {
        match self {
            Self::Page => SIGN_IN_FAILURES_OF_PROGRAMS,
            Self::Api => 1,
        }
    }
}

/// After this long an address is forgiven a failure of a program.
fn rest_of_client() -> Duration {
    SIGN_IN_REST_OF_CLIENT / SIGN_IN_FAILURES_OF_PROGRAMS
}

/// After this long all together are.
fn rest_of_all() -> Duration {
    SIGN_IN_REST_OF_ALL / SIGN_IN_FAILURES_OF_PROGRAMS
}

/// Failures that are not forgiven yet, counted as those of programs.
#[derive(Debug, Clone, Copy)]
struct Debt {
    failures: u32,
    /// When the oldest of them began to be forgiven.
    since: TimeDelta,
}

impl Debt {
    /// What is left of it.
    fn at(mut self, now: TimeDelta, rest: Duration) -> Self {
        let forgiven = (now - self.since).as_seconds_f64() / rest.as_secs_f64();
        if forgiven >= f64::from(self.failures) {
            (self.failures, self.since) = (0, now);
            return self;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "time does not go back, and it is smaller than a u32 by the guard"
        )]
        let whole = forgiven as u32;
        self.failures -= whole;
        self.since += TimeDelta::from_std(rest * whole).unwrap_or(TimeDelta::zero());
        self
    }

    /// How long to wait until there is room for one more failure of this weight; zero when there is.
    fn wait(&self, now: TimeDelta, weight: u32, most: u32, rest: Duration) -> Duration {
        let excess = self.failures.saturating_add(weight).saturating_sub(most);
        let passed = (now - self.since).to_std().unwrap_or_default();
        (rest * excess).saturating_sub(passed)
    }
}

/// The failures of everybody.
#[derive(Debug)]
pub struct Throttle<Client> {
    /// Failures in a row that a client may have, counted as those of programs; 0: any number.
    of_client: u32,
    clients: HashMap<Client, Debt>,
    all: Debt,
}

impl<Client: Hash + Eq + Clone> Throttle<Client> {
    /// Nobody has failed yet; each client may so often in a row at the page, 0: any number.
    pub fn new(of_client: u32) -> Self {
        Self {
            of_client: of_client.saturating_mul(SIGN_IN_FAILURES_OF_PROGRAMS),
            clients: HashMap::new(),
            all: Debt {
                failures: 0,
                since: TimeDelta::zero(),
            },
        }
    }

    /// Whether a client may try now; else how long it has to wait.
    pub fn check(&self, client: &Client, door: Door, now: TimeDelta) -> Result<(), Duration> {
        let debt = self.clients.get(client);
        let Some(debt) = debt.map(|debt| debt.at(now, rest_of_client())) else {
            return Ok(());
        };
        if debt.failures == 0 {
            return Ok(());
        }
        let weight = door.weight();
        let all = self.all.at(now, rest_of_all());
        let most = SIGN_IN_FAILURES_OF_ALL * SIGN_IN_FAILURES_OF_PROGRAMS;
        let of_all = all.wait(now, weight, most, rest_of_all());
        let wait = of_all.max(debt.wait(now, weight, self.of_client, rest_of_client()));
        if wait.is_zero() { Ok(()) } else { Err(wait) }
    }

    /// Counts a failure of a client.
    pub fn failed(&mut self, client: Client, door: Door, now: TimeDelta) {
        if self.of_client == 0 {
            return;
        }
        self.all = self.all.at(now, rest_of_all());
        self.all.failures = self.all.failures.saturating_add(door.weight());
        if self.clients.len() >= SIGN_IN_CLIENTS_MAX {
            self.clients
                .retain(|_, debt| debt.at(now, rest_of_client()).failures > 0);
        }
        if self.clients.len() >= SIGN_IN_CLIENTS_MAX && !self.clients.contains_key(&client) {
            // The client that has been good for longest is forgotten.
            let oldest = self.clients.iter().min_by_key(|(_, debt)| debt.since);
            if let Some(oldest) = oldest.map(|(client, _)| client.clone()) {
                self.clients.remove(&oldest);
            }
        }
        let debt = self.clients.entry(client).or_insert(Debt {
            failures: 0,
            since: now,
        });
        *debt = debt.at(now, rest_of_client());
        debt.failures = debt.failures.saturating_add(door.weight());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::limits::SIGN_IN_FAILURES_OF_CLIENT;

    fn at(second: i64) -> TimeDelta {
        TimeDelta::seconds(1_000_000 + second)
    }

    fn secs(duration: Duration) -> i64 {
        i64::try_from(duration.as_secs()).expect("short")
    }

    #[test]
    fn a_client_that_fails_too_often_waits_and_others_do_not() {
        let mut throttle = Throttle::new(SIGN_IN_FAILURES_OF_CLIENT);
        for _ in 0..SIGN_IN_FAILURES_OF_CLIENT {
            assert_eq!(throttle.check(&"a", Door::Page, at(0)), Ok(()));
            throttle.failed("a", Door::Page, at(0));
        }
        assert_eq!(
            throttle.check(&"a", Door::Page, at(0)),
            Err(SIGN_IN_REST_OF_CLIENT)
        );
        assert_eq!(throttle.check(&"b", Door::Page, at(0)), Ok(()));
        let rest = secs(SIGN_IN_REST_OF_CLIENT);
        assert_eq!(
            throttle.check(&"a", Door::Page, at(rest - 1)),
            Err(Duration::from_secs(1))
        );
        assert_eq!(throttle.check(&"a", Door::Page, at(rest)), Ok(()));
        throttle.failed("a", Door::Page, at(rest));
        assert_eq!(
            throttle.check(&"a", Door::Page, at(rest)),
            Err(SIGN_IN_REST_OF_CLIENT)
        );
    }

    #[test]
    fn programs_may_fail_more_often_and_count_at_the_page_too() {
        let mut throttle = Throttle::new(SIGN_IN_FAILURES_OF_CLIENT);
        let often = SIGN_IN_FAILURES_OF_CLIENT * SIGN_IN_FAILURES_OF_PROGRAMS;
        for tried in 0..often {
            assert_eq!(throttle.check(&"a", Door::Api, at(0)), Ok(()), "{tried}");
            throttle.failed("a", Door::Api, at(0));
        }
        let rest = SIGN_IN_REST_OF_CLIENT / SIGN_IN_FAILURES_OF_PROGRAMS;
        assert_eq!(throttle.check(&"a", Door::Api, at(0)), Err(rest));
        assert_eq!(
            throttle.check(&"a", Door::Page, at(0)),
            Err(SIGN_IN_REST_OF_CLIENT)
        );
        assert_eq!(throttle.check(&"a", Door::Api, at(2)), Ok(()));
        assert!(throttle.check(&"a", Door::Page, at(2)).is_err());
        assert_eq!(throttle.check(&"b", Door::Page, at(0)), Ok(()));
    }

    #[test]
    fn many_clients_together_wait_too_and_hold_up_nobody_else() {
        let mut throttle = Throttle::new(SIGN_IN_FAILURES_OF_CLIENT);
        for client in 0..SIGN_IN_FAILURES_OF_ALL {
            throttle.failed(client, Door::Page, at(0));
        }
        assert!(throttle.check(&0, Door::Page, at(0)).is_err());
        assert_eq!(
            throttle.check(&0, Door::Page, at(secs(SIGN_IN_REST_OF_ALL))),
            Ok(())
        );
        assert_eq!(throttle.check(&9999, Door::Page, at(0)), Ok(()));
    }

    #[test]
    fn where_there_is_no_limit_nobody_waits() {
        let mut throttle = Throttle::new(0);
        for _ in 0..2 * SIGN_IN_FAILURES_OF_ALL {
            throttle.failed("a", Door::Page, at(0));
        }
        assert_eq!(throttle.check(&"a", Door::Page, at(0)), Ok(()));
    }

    #[test]
    fn memory_has_an_end() {
        let mut throttle = Throttle::new(SIGN_IN_FAILURES_OF_CLIENT);
        for client in 0..SIGN_IN_CLIENTS_MAX * 2 {
            throttle.failed(
                client,
                Door::Page,
                at(i64::try_from(client).expect("small")),
            );
        }
        assert!(throttle.clients.len() <= SIGN_IN_CLIENTS_MAX);
    }

    proptest! {
        #[test]
        fn no_more_failures_get_through_than_allowed(pauses in prop::collection::vec(0i64..40, 1..200)) {
            let mut throttle = Throttle::new(SIGN_IN_FAILURES_OF_CLIENT);
            let (mut now, mut through) = (0, 0u32);
            for pause in pauses {
                now += pause;
                if throttle.check(&"a", Door::Page, at(now)).is_ok() {
                    throttle.failed("a", Door::Page, at(now));
                    through += 1;
                }
            }
            let earned = u32::try_from(now / secs(SIGN_IN_REST_OF_CLIENT)).expect("small");
            prop_assert!(through <= SIGN_IN_FAILURES_OF_CLIENT + earned);
        }

        #[test]
        fn a_clock_that_jumps_back_locks_nobody_out_for_long(back in 1i64..1_000_000) {
            let mut throttle = Throttle::new(SIGN_IN_FAILURES_OF_CLIENT);
            for _ in 0..SIGN_IN_FAILURES_OF_CLIENT {
                throttle.failed("a", Door::Page, at(0));
            }
            prop_assert_eq!(throttle.check(&"a", Door::Page, at(-back)), Err(SIGN_IN_REST_OF_CLIENT));
        }
    }
}
