//! The places where work can break off, as an interface.
//!
//! Recovery is this product's promise, so the places where a worker can fail or die are named
//! here and can be reached from outside: tests break every operation at every one of them.

use crate::model::operation::Operation;

/// A place between the lines of a step's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Moment {
    /// The try is written down, nothing has happened yet.
    Begun,
    /// The step had its effect; nothing of that is recorded.
    Done,
    /// The step's result is recorded.
    Recorded,
}

/// What happens at a [`Moment`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The step fails and may be tried again.
    Fail,
    /// The members do not answer (at [`Moment::Begun`]).
    Silence,
    /// The machine is short of something that the step needs.
    Shortage,
    /// The step fails for good.
    FailForGood,
    /// The step panics (at [`Moment::Begun`]).
    Panic,
    /// The step is done once more, as if its record had been lost.
    Repeat,
    /// The worker is gone, as after `kill -9`; the operation is free to be claimed.
    Die,
}

/// Decides about faults.
pub trait Faults: Send + Sync {
    /// The fault at this moment, if any.
    fn at(&self, operation: &Operation, step: &str, moment: Moment) -> Option<Fault>;
}

/// No faults but the world's own.
pub struct NoFaults;

impl Faults for NoFaults {
    fn at(&self, _operation: &Operation, _step: &str, _moment: Moment) -> Option<Fault> {
        None
    }
}
