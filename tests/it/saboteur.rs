//! Deliberate faults, at the places that the broker names for them.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use compose_broker::{
    app::Surroundings,
    model::operation::{Operation, OperationKind},
    operation::{
        definition,
        fault::{Fault, Faults, Moment},
    },
};

use crate::control;

/// A step of a kind, by name.
pub type StepOf = (&'static str, String);

/// Breaks work as it is told.
#[derive(Default)]
pub struct Saboteur {
    /// What is done once at every step of every kind.
    everywhere: Vec<(Moment, Fault)>,
    /// Where that was done.
    struck: Mutex<BTreeSet<(StepOf, usize)>>,
    /// What is done whenever a step of a kind comes by.
    plans: Mutex<Vec<Plan>>,
}

struct Plan {
    kind: OperationKind,
    step: &'static str,
    moment: Moment,
    fault: Fault,
}

impl Saboteur {
    /// One that does each of `faults` once at every step of every kind.
    pub fn everywhere(faults: &[(Moment, Fault)]) -> Arc<Self> {
        Arc::new(Self {
            everywhere: faults.to_vec(),
            ..Self::default()
        })
    }

    /// The surroundings that a broker needs to be broken.
    pub fn surroundings(self: &Arc<Self>) -> Surroundings {
        Surroundings {
            faults: self.clone(),
            ..control::surroundings()
        }
    }

    /// From now on a step has its effect and fails for good nevertheless.
    pub fn break_for_good(&self, kind: OperationKind, step: &'static str) {
        self.plan(kind, step, Moment::Done, Fault::FailForGood);
    }

    /// From now on a step fails for good before it has any effect.
    pub fn forbid(&self, kind: OperationKind, step: &'static str) {
        self.plan(kind, step, Moment::Begun, Fault::FailForGood);
    }

    fn plan(&self, kind: OperationKind, step: &'static str, moment: Moment, fault: Fault) {
        let plan = Plan {
            kind,
            step,
            moment,
            fault,
        };
        self.plans.lock().expect("plans").push(plan);
    }

    /// Breaks nothing any more.
    pub fn rest(&self) {
        self.plans.lock().expect("plans").clear();
    }

    /// The steps at which not all was done that was to be done everywhere.
    pub fn spared(&self) -> Vec<StepOf> {
        let struck = self.struck.lock().expect("struck");
        let spared = |step: &StepOf| {
            (0..self.everywhere.len()).any(|i| !struck.contains(&(step.clone(), i)))
        };
        all_steps().into_iter().filter(spared).collect()
    }
}

impl Faults for Saboteur {
    fn at(&self, operation: &Operation, step: &str, moment: Moment) -> Option<Fault> {
        let plans = self.plans.lock().expect("plans");
        let planned = plans
            .iter()
            .find(|p| p.kind == operation.kind && p.step == step && p.moment == moment);
        if let Some(plan) = planned {
            return Some(plan.fault);
        }
        let mut struck = self.struck.lock().expect("struck");
        let (i, (_, fault)) = self.everywhere.iter().enumerate().find(|(i, (at, _))| {
            let here = ((operation.kind.as_str(), step.to_owned()), *i);
            *at == moment && !struck.contains(&here)
        })?;
        struck.insert(((operation.kind.as_str(), step.to_owned()), i));
        Some(*fault)
    }
}

/// Every step of every kind.
pub fn all_steps() -> Vec<StepOf> {
    OperationKind::ALL
        .into_iter()
        .flat_map(|kind| names(kind).map(move |step| (kind.as_str(), step.to_owned())))
        .collect()
}

/// The names of a kind's steps.
pub fn names(kind: OperationKind) -> impl Iterator<Item = &'static str> {
    definition(kind).steps.iter().map(|step| step.name)
}

/// The names of the steps that clean up after a kind.
pub fn cleanup_names(kind: OperationKind) -> impl Iterator<Item = &'static str> {
    definition(kind).cleanup.iter().map(|step| step.name)
}
