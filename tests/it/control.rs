//! What a test holds in its hand while a broker runs: the time of day, and the places where work
//! stops or fails.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use compose_broker::{
    app::Surroundings,
    clock::Clock,
    model::operation::{Operation, OperationKind},
    operation::fault::{Fault, Faults, Moment},
};

/// A clock that can be put forward and back.
#[derive(Clone, Default)]
pub struct TestClock(Arc<AtomicI64>);

impl TestClock {
    /// Lets time pass.
    pub fn forward(&self, time: Duration) {
        let seconds = time.as_secs().cast_signed();
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }

    /// Puts the clock forward, or back.
    pub fn shift(&self, by: TimeDelta) {
        self.0.fetch_add(by.num_seconds(), Ordering::SeqCst);
    }

    /// Sets the clock.
    pub fn set(&self, at: DateTime<Utc>) {
        let ahead = (at - Utc::now()).num_seconds();
        self.0.store(ahead, Ordering::SeqCst);
    }

    /// For a broker.
    pub fn surroundings(&self) -> Surroundings {
        Surroundings {
            clock: self.clock(),
            ..Surroundings::default()
        }
    }

    /// The clock for a broker.
    pub fn clock(&self) -> Clock {
        let ahead = self.0.clone();
        Clock::new(move || Utc::now() + TimeDelta::seconds(ahead.load(Ordering::SeqCst)))
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
            ..Surroundings::default()
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
