//! How things stand, in figures: what metrics and alerts of the broker as a whole go by. Pure.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    health::HealthState,
    ids::InstanceId,
    operation::{OperationKind, OperationState},
    proof::Freshness,
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
pub struct Workload {
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
    /// Whether it has a proved backup that is new enough.
    pub freshness: Freshness,
    /// When its newest proved backup was taken.
    pub proved_at: Option<DateTime<Utc>>,
    /// Scheduled backups that failed in a row.
    pub backup_failures: u32,
    /// When the certificates of its members end.
    pub certificate_ends: Option<DateTime<Utc>>,
}

/// What instances come to that were looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Totals {
    /// How many there are.
    pub instances: usize,
    /// How many are so.
    pub health: BTreeMap<HealthState, usize>,
    /// Members of those whose members could be looked at.
    pub members: usize,
    /// How many of these serve.
    pub members_up: usize,
    /// Those whose scheduled backup is late.
    pub backups_late: usize,
    /// How many have no proved backup that is new enough, by how that is.
    pub unproved: BTreeMap<Freshness, usize>,
    /// Those whose last scheduled backup failed.
    pub backups_failing: usize,
    /// The newest good backup of all.
    pub backup: Option<BackupSeen>,
    /// When the first certificate of all ends.
    pub certificate_ends: Option<DateTime<Utc>>,
}

impl Totals {
    /// Counts one more.
    pub fn add(&mut self, seen: &InstanceSeen) {
        self.instances += 1;
        *self.health.entry(seen.health).or_default() += 1;
        if let Some(up) = seen.members_up {
            self.members += seen.members;
            self.members_up += up;
        }
        self.backups_late += usize::from(seen.is_backup_late);
        if seen.freshness != Freshness::Fresh {
            *self.unproved.entry(seen.freshness).or_default() += 1;
        }
        self.backups_failing += usize::from(seen.backup_failures > 0);
        let newest = self.backup.into_iter().chain(seen.backup);
        self.backup = newest.max_by_key(|backup| backup.at);
        let ends = self.certificate_ends.into_iter();
        self.certificate_ends = ends.chain(seen.certificate_ends).min();
    }
}

/// All instances, looked at one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// When the last of them was.
    pub ended_at: DateTime<Utc>,
    /// How long it took.
    pub took: Duration,
    /// What they come to.
    pub totals: Totals,
    /// Those that are told of one by one: the first ones by their ids.
    pub named: Vec<InstanceSeen>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_count_what_was_seen() {
        let seen = |health, members_up, day| {
            let at = DateTime::UNIX_EPOCH + TimeDelta::days(day);
            InstanceSeen {
                id: "i".parse().expect("an id"),
                engine: String::new(),
                version: String::new(),
                cluster: String::new(),
                plan: String::new(),
                health,
                members: 3,
                members_up,
                used_bytes: None,
                quota_bytes: 1,
                backup: Some(BackupSeen {
                    at,
                    bytes: 1,
                    took: TimeDelta::zero(),
                }),
                is_backup_late: day == 2,
                freshness: [
                    Freshness::Fresh,
                    Freshness::Fresh,
                    Freshness::Late,
                    Freshness::Never,
                ][usize::try_from(day).expect("small")],
                proved_at: None,
                backup_failures: u32::from(day > 1),
                certificate_ends: Some(at),
            }
        };
        let all = [
            seen(HealthState::Ready, Some(3), 2),
            seen(HealthState::Changing, None, 3),
            seen(HealthState::Ready, Some(1), 1),
        ];
        let mut totals = Totals::default();
        all.iter().for_each(|seen| totals.add(seen));
        let expected = Totals {
            instances: 3,
            health: [(HealthState::Ready, 2), (HealthState::Changing, 1)].into(),
            members: 6,
            members_up: 4,
            backups_late: 1,
            unproved: [(Freshness::Late, 1), (Freshness::Never, 1)].into(),
            backups_failing: 2,
            backup: all[1].backup,
            certificate_ends: all[2].certificate_ends,
        };
        assert_eq!(totals, expected);
    }
}
