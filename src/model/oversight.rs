//! Operations as operators see them.

use chrono::{DateTime, TimeDelta, Utc};

use super::{operation::Operation, patience::Trial};

/// Who works on an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The worker's process.
    pub owner: String,
    /// Until when others leave it alone.
    pub until: DateTime<Utc>,
}

/// An operation, as operators see it.
#[derive(Debug, Clone, PartialEq)]
pub struct Overseen {
    /// The operation.
    pub operation: Operation,
    /// Before this it is not gone on with.
    pub not_before: DateTime<Utc>,
    /// Who works on it.
    pub lease: Option<Lease>,
}

/// What came of a step so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepSeen {
    /// Its name.
    pub name: String,
    /// Whether it is done.
    pub is_done: bool,
    /// When its first try began; none where an earlier version tried it.
    pub begun_at: Option<DateTime<Utc>>,
    /// How long it took from its first try to its end; none: it is not done.
    pub took: Option<TimeDelta>,
    /// What its tries have come to.
    pub trial: Trial,
    /// Why the last failed try did, with all causes.
    pub last_error: Option<String>,
    /// When that was.
    pub failed_at: Option<DateTime<Utc>>,
}
