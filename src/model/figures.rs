//! How things stand, in figures: what metrics and alerts of the broker as a whole go by. Pure.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    health::HealthState,
    ids::InstanceId,
    operation::{OperationKind, OperationState},
};

/// How operations stand of one kind and state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationsSeen {
    /// What they do.
    pub kind: OperationKind,
    /// Where they are in their lives.
    pub state: OperationState,
    /// How many.
    pub count: u64,
    /// When the oldest of them was accepted.
    pub oldest: DateTime<Utc>,
}

/// Who pays for what waits, without telling who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayerClass {
    /// A tenant who asked for it.
    Tenant,
    /// A tenant, for what the broker does by itself.
    Broker,
    /// Nobody: the instance is gone.
    Nobody,
}

impl PayerClass {
    /// All classes.
    pub const ALL: [Self; 3] = [Self::Tenant, Self::Broker, Self::Nobody];

    /// For programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Broker => "broker",
            Self::Nobody => "nobody",
        }
    }
}

/// What could begin now and waits for a place: of each instance, the operation that comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSeen {
    /// What they do.
    pub kind: OperationKind,
    /// Who pays for them.
    pub class: PayerClass,
    /// How many.
    pub count: u64,
    /// Since when the first of them could begin.
    pub oldest: DateTime<Utc>,
}

/// The work as the store tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Work {
    /// What goes on, and what is left of what did not end well.
    pub operations: Vec<OperationsSeen>,
    /// What waits for a place.
    pub queue: Vec<QueueSeen>,
}

/// A backup that can be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupSeen {
    /// When it was complete.
    pub at: DateTime<Utc>,
    /// What it has in the backup store, in bytes.
    pub bytes: u64,
    /// How long it took.
    pub took: TimeDelta,
}

/// An instance at a round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceSeen {
    /// Which one.
    pub id: InstanceId,
    /// Its kind of database.
    pub engine: String,
    /// The version that runs.
    pub version: String,
    /// Where it is.
    pub cluster: String,
    /// Its plan's name.
    pub plan: String,
    /// How it is, in a word.
    pub health: HealthState,
    /// How many members it has.
    pub members: usize,
    /// How many of them serve; none where nobody could look.
    pub members_up: Option<usize>,
    /// What its database uses, in bytes; none where nobody could look.
    pub used_bytes: Option<u64>,
    /// What it may use, in bytes.
    pub quota_bytes: u64,
    /// The newest good backup.
    pub backup: Option<BackupSeen>,
    /// That its scheduled backup is late.
    pub is_backup_late: bool,
    /// Scheduled backups that failed in a row.
    pub backup_failures: u32,
    /// When the certificates of its members end.
    pub certificate_ends: Option<DateTime<Utc>>,
}

/// All instances, looked at one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// When the last of them was.
    pub ended_at: DateTime<Utc>,
    /// How long it took.
    pub took: Duration,
    /// By their ids.
    pub instances: Vec<InstanceSeen>,
}
