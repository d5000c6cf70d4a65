//! What a test holds in its hand while a broker runs: the time of day, and the places where work
//! stops or fails.
//!
//! No test asks the machine for the time of day, and no broker of a test does: [`now`] tells it.
//! [`BEGINS`] moves it for a whole run, so that the suite can be seen at midnight, at the end of a
//! year and on any other day. Certificates are the exception: the members judge them by the machine's
//! clock, and the broker makes them by it.

use std::{
    env, fs,
    path::Path,
    process::Command,
    sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use compose_broker::{
    app::Surroundings,
    clock::Clock,
    model::{
        operation::{Operation, OperationKind},
        patience::{Patience, Tries},
        trust::ClockReading,
    },
    operation::fault::{Fault, Faults, Moment},
};

/// Names the variable with the moment at which a run begins, `2027-02-28T23:58:30Z`; absent: the
/// machine's now.
const BEGINS: &str = "COMPOSE_BROKER_TEST_NOW";

/// The time of day for all tests and their brokers.
pub fn now() -> DateTime<Utc> {
    Utc::now() + ahead()
}

/// How far [`now`] is ahead of the machine's clock, in whole seconds.
pub fn ahead() -> TimeDelta {
    static AHEAD: LazyLock<TimeDelta> = LazyLock::new(|| {
        let Ok(begins) = env::var(BEGINS) else {
            return TimeDelta::zero();
        };
        let begins: DateTime<Utc> = begins
            .parse()
            .unwrap_or_else(|e| panic!("{BEGINS}={begins}: {e}"));
        TimeDelta::seconds((begins - Utc::now()).num_seconds())
    });
    *AHEAD
}

/// A patience that is soon at its end: five tries within some seconds, whatever is tried. What
/// fails for good would else be seen to do so after an hour, and what is stuck after days.
pub fn little_patience() -> Patience {
    let tries = Tries {
        first_pause: Duration::from_millis(200),
        longest_pause: Duration::from_secs(5),
        budget: Duration::ZERO,
    };
    Patience {
        tries_min: 5,
        forward: tries,
        bytes_per_second: u64::MAX,
        deletion: tries,
        relief: tries,
        cleanup: tries,
        halted_cleanup: tries,
        final_backup: tries,
        import: tries,
        ..Patience::default()
    }
}

/// The surroundings of a broker that nothing happens to.
pub fn surroundings() -> Surroundings {
    Surroundings {
        clock: Clock::new(now),
        patience: little_patience(),
        alerts_settle_after: Duration::ZERO,
        ..Surroundings::default()
    }
}

/// Has the program that is shipped, in a process of its own, tell the time as [`now`] does; `folder`
/// goes with the test.
pub fn set_clock(command: &mut Command, folder: &Path) {
    if ahead().is_zero() {
        return;
    }
    let file = folder.join("clock");
    move_clock(&file, 0);
    command.env("COMPOSE_BROKER_CLOCK_OFFSET_FILE", file);
}

/// Has the broker whose file of the clock this is be so many seconds ahead of [`now`].
pub fn move_clock(file: &Path, seconds: i64) {
    let ahead = ahead().num_seconds() + seconds;
    // In its place at once, so that nobody reads half of it.
    let new = file.with_extension("new");
    fs::write(&new, ahead.to_string()).expect("a file");
    fs::rename(&new, file).expect("a file");
}

/// A clock that can be put forward and back, and stopped.
#[derive(Clone, Default)]
pub struct TestClock(Arc<Mutex<Hands>>);

#[derive(Default)]
struct Hands {
    /// How far it is ahead of [`now`].
    ahead: TimeDelta,
    /// How far it shows another time than it should.
    wrong_by: TimeDelta,
    /// What it shows while it stands still.
    stopped_at: Option<DateTime<Utc>>,
}

impl Hands {
    fn show(&self) -> DateTime<Utc> {
        self.stopped_at.unwrap_or_else(|| now() + self.ahead)
    }

    fn set(&mut self, at: DateTime<Utc>) {
        match &mut self.stopped_at {
            Some(shown) => *shown = at,
            None => self.ahead = at - now(),
        }
    }
}

impl TestClock {
    /// What the clock shows.
    pub fn now(&self) -> DateTime<Utc> {
        self.hands().show()
    }

    /// Lets time pass.
    pub fn forward(&self, time: Duration) {
        self.shift(TimeDelta::from_std(time).expect("a time"));
    }

    /// Lets the clock show another time without any having passed.
    pub fn jump(&self, by: TimeDelta) {
        self.shift(by);
        self.hands().wrong_by += by;
    }

    /// Puts the clock forward, or back, as time that passes.
    pub fn shift(&self, by: TimeDelta) {
        let mut hands = self.hands();
        let shown = hands.show();
        hands.set(shown + by);
    }

    /// Sets the clock.
    pub fn set(&self, at: DateTime<Utc>) {
        self.hands().set(at);
    }

    /// Lets it stand still, so that what has so many seconds has them on a slow machine, too. It can
    /// be put forward and back all the same. Work goes on, but what waits for a later time of day.
    pub fn stop(&self) {
        let mut hands = self.hands();
        hands.stopped_at = Some(hands.show());
    }

    /// Lets it go on from where it stands.
    pub fn go_on(&self) {
        let mut hands = self.hands();
        if let Some(shown) = hands.stopped_at.take() {
            hands.set(shown);
        }
    }

    /// For a broker.
    pub fn surroundings(&self) -> Surroundings {
        Surroundings {
            clock: self.clock(),
            ..surroundings()
        }
    }

    /// The clock for a broker.
    pub fn clock(&self) -> Clock {
        let clock = self.clone();
        Clock::read_by(move || {
            let hands = clock.hands();
            let time = hands.show();
            ClockReading {
                time,
                elapsed: time - hands.wrong_by - DateTime::UNIX_EPOCH,
                boot: "a test's".to_owned(),
            }
        })
    }

    fn hands(&self) -> MutexGuard<'_, Hands> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Steps that are held or fail, while the broker runs.
#[derive(Clone, Default)]
pub struct Script(Arc<Stage>);

#[derive(Default)]
struct Stage {
    rules: Mutex<Vec<Rule>>,
    changed: Condvar,
}

#[derive(Clone, Copy, PartialEq)]
struct Rule {
    kind: OperationKind,
    step: &'static str,
    moment: Moment,
    fault: Option<Fault>,
}

/// A rule of a script; it ends with this.
pub struct InForce {
    script: Script,
    rule: Rule,
}

impl Script {
    /// Holds every operation of a kind before its step `step`, until the result is dropped.
    pub fn hold(&self, kind: OperationKind, step: &'static str) -> InForce {
        self.rule(kind, step, Moment::Begun, None)
    }

    /// Holds every operation of a kind when its step `step` is done and recorded, until the result
    /// is dropped.
    pub fn hold_after(&self, kind: OperationKind, step: &'static str) -> InForce {
        self.rule(kind, step, Moment::Recorded, None)
    }

    /// Lets every operation of a kind fail for good at its step `step`, until the result is
    /// dropped.
    pub fn fail(&self, kind: OperationKind, step: &'static str) -> InForce {
        self.rule(kind, step, Moment::Begun, Some(Fault::FailForGood))
    }

    /// Lets every operation of a kind fail in this way at its step `step`, until the result is
    /// dropped.
    pub fn trip(&self, kind: OperationKind, step: &'static str, fault: Fault) -> InForce {
        self.rule(kind, step, Moment::Begun, Some(fault))
    }

    fn rule(
        &self,
        kind: OperationKind,
        step: &'static str,
        moment: Moment,
        fault: Option<Fault>,
    ) -> InForce {
        let rule = Rule {
            kind,
            step,
            moment,
            fault,
        };
        self.rules().push(rule);
        InForce {
            script: self.clone(),
            rule,
        }
    }

    /// For a broker.
    pub fn surroundings(&self) -> Surroundings {
        Surroundings {
            faults: Arc::new(self.clone()),
            ..surroundings()
        }
    }

    /// The same with a clock in the test's hand.
    pub fn surroundings_at(&self, clock: &TestClock) -> Surroundings {
        Surroundings {
            clock: clock.clock(),
            ..self.surroundings()
        }
    }

    fn rules(&self) -> MutexGuard<'_, Vec<Rule>> {
        self.0.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InForce {
    fn drop(&mut self) {
        let mut rules = self.script.rules();
        if let Some(index) = rules.iter().position(|rule| *rule == self.rule) {
            rules.remove(index);
        }
        self.script.0.changed.notify_all();
    }
}

impl Faults for Script {
    fn at(&self, operation: &Operation, step: &str, moment: Moment) -> Option<Fault> {
        let applies = |rule: &&Rule| {
            rule.moment == moment && rule.kind == operation.kind && rule.step == step
        };
        // Others of the runtime's tasks go on meanwhile.
        tokio::task::block_in_place(|| {
            let mut rules = self.rules();
            loop {
                match rules.iter().find(applies) {
                    None => return None,
                    Some(Rule { fault: Some(f), .. }) => return Some(*f),
                    Some(_) => {
                        let woken = self.0.changed.wait(rules);
                        rules = woken.unwrap_or_else(PoisonError::into_inner);
                    }
                }
            }
        })
    }
}
