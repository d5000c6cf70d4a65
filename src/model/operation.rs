//! Durable operations: what is known of a piece of multi-step work.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{
    backup::Manifest,
    ids::{BackupId, BindingId, InstanceId, OperationId},
    limits::{HEAVY_OPERATIONS_AT_ONCE, LIGHT_OPERATIONS_AT_ONCE, PLACES_KEPT},
    origin::Origin,
    period::BackupKind,
    prefix::PrefixRestore,
    repair::Repair,
    size::size,
    trouble::Trouble,
    turn::Turn,
    update::Change,
    wait::Wait,
};

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OperationKind {
    /// Makes a new, empty instance.
    Provision,
    /// Makes a new instance from a backup.
    Restore,
    /// Changes the size or the version of an instance in place.
    Update,
    /// Deletes an instance with all it has.
    Deprovision,
    /// Makes a binding.
    Bind,
    /// Deletes a binding.
    Unbind,
    /// Takes a backup.
    Backup,
    /// Takes the last backup of an instance that is being deleted.
    FinalBackup,
    /// Removes the backups of an instance that retention gives up.
    Prune,
    /// Makes room in a database that is full, or about to be; closes it to all but the broker while
    /// its version is not safe full, and opens it again.
    Relief,
    /// Gives the storage back that a database's files do not use.
    Defragment,
    /// Replaces a member that lost what it kept.
    Repair,
    /// Makes a database anew, in its place, whose majority is lost.
    Recover,
    /// Renews the certificates of a deployment, member by member.
    Renew,
    /// Moves the members of a deployment to where applications reach them now, one after the other.
    Readdress,
    /// Restores a backup into a member that is thrown away, to see that it can be restored.
    Proof,
    /// Makes a backup of a snapshot that a user has brought along.
    Import,
    /// Puts keys with a prefix back into a running database, from a backup of it.
    RestorePrefix,
}

impl OperationKind {
    /// All kinds.
    pub const ALL: [Self; 18] = [
        Self::Provision,
        Self::Restore,
        Self::Update,
        Self::Deprovision,
        Self::Bind,
        Self::Unbind,
        Self::Backup,
        Self::FinalBackup,
        Self::Prune,
        Self::Relief,
        Self::Defragment,
        Self::Repair,
        Self::Recover,
        Self::Renew,
        Self::Readdress,
        Self::Proof,
        Self::Import,
        Self::RestorePrefix,
    ];

    /// Whether it starts members of an instance in use anew, replaces them or lets them stand still.
    fn changes_members(self) -> bool {
        matches!(
            self,
            Self::Update
                | Self::Relief
                | Self::Defragment
                | Self::Repair
                | Self::Recover
                | Self::Renew
                | Self::Readdress
        )
    }

    /// Whether it has an instance's members in hand: nobody else may end one meanwhile.
    pub fn has_members_in_hand(self) -> bool {
        self.changes_members()
            || matches!(self, Self::Provision | Self::Restore | Self::Deprovision)
    }

    /// How much it holds a worker up.
    pub fn weight(self) -> Weight {
        match self {
            Self::Bind | Self::Unbind | Self::Deprovision | Self::Prune | Self::Relief => {
                Weight::Light
            }
            Self::Provision
            | Self::Restore
            | Self::Update
            | Self::Backup
            | Self::FinalBackup
            | Self::Defragment
            | Self::Repair
            | Self::Recover
            | Self::Renew
            | Self::Readdress
            | Self::Proof
            | Self::Import
            | Self::RestorePrefix => Weight::Heavy,
        }
    }

    /// Whether it deletes: then it is its own clean-up.
    pub fn deletes(self) -> bool {
        matches!(self, Self::Deprovision | Self::Unbind)
    }

    /// Whether it only asks members for something: of no use while they do not answer. What mends
    /// them, stops them or has other work to do is not of that kind; nor what has its time and no more, as the
    /// last backup before a deletion.
    pub fn asks_members(self) -> bool {
        matches!(self, Self::Bind | Self::Unbind | Self::Backup)
    }

    /// The same of its clean-up.
    pub fn clean_up_asks_members(self) -> bool {
        self == Self::Bind
    }

    /// The kind that takes backups of that kind.
    pub fn that_takes(kind: BackupKind) -> Self {
        match kind {
            BackupKind::Final => Self::FinalBackup,
            _ => Self::Backup,
        }
    }

    /// Whether it restores a backup into a member that is thrown away, whose deployment has its id.
    pub fn restores_aside(self) -> bool {
        matches!(self, Self::Proof | Self::Import | Self::RestorePrefix)
    }

    /// Whether it takes a backup.
    pub fn takes_backup(self) -> bool {
        matches!(self, Self::Backup | Self::FinalBackup)
    }

    /// Whether its success tells that members answer, or that there are none any more.
    pub fn touches_members(self) -> bool {
        !matches!(self, Self::Prune | Self::Proof | Self::Import)
    }

    /// Whether it begins only after the end of an operation of the kind `older` that was accepted
    /// before it on the same instance.
    ///
    /// While members of two versions run side by side, users must not be changed: versions before
    /// 3.5 would store an empty password. And a snapshot should not lose its member on the way. An
    /// update follows the backup that was taken for it; two backups of one instance would take
    /// each other's tool away. An update, a relief and a repair all start members anew,
    /// and a relief compares the users with the bindings that there are. While a member is
    /// replaced, the others are one short, and must not be asked for more than they have to; nor while
    /// one of them stands still to give storage back.
    pub fn follows(self, older: Self) -> bool {
        let in_hand = older.changes_members();
        let changes_users = matches!(older, Self::Bind | Self::Unbind);
        match self {
            Self::Repair | Self::Renew | Self::Readdress => {
                in_hand || changes_users || older == Self::Backup
            }
            Self::Update => (in_hand && older != self) || changes_users || older == Self::Backup,
            Self::Defragment => (in_hand && older != self) || older == Self::Backup,
            Self::Relief => in_hand && older != self,
            // The others would wait for members that do not come back: those that have members in
            // hand are halted, and end at once.
            Self::Recover => in_hand && older != self,
            Self::Bind | Self::Unbind => in_hand && older != Self::Defragment,
            Self::Backup | Self::FinalBackup => {
                (in_hand && older != Self::Relief) || older == Self::Backup
            }
            // The backup of before, too.
            Self::RestorePrefix => in_hand || older == Self::Backup,
            Self::Provision
            | Self::Restore
            | Self::Deprovision
            | Self::Prune
            | Self::Proof
            | Self::Import => false,
        }
    }

    /// The name used in the store and in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provision => "provision",
            Self::Restore => "restore",
            Self::Update => "update",
            Self::Deprovision => "deprovision",
            Self::Bind => "bind",
            Self::Unbind => "unbind",
            Self::Backup => "backup",
            Self::FinalBackup => "final_backup",
            Self::Prune => "prune",
            Self::Relief => "relief",
            Self::Defragment => "defragment",
            Self::Repair => "repair",
            Self::Recover => "recover",
            Self::Renew => "renew",
            Self::Readdress => "readdress",
            Self::Proof => "proof",
            Self::Import => "import",
            Self::RestorePrefix => "restore_prefix",
        }
    }

    /// The kind of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

impl fmt::Display for OperationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How much an operation holds a worker up. Each weight has places of its own, so that nobody
/// waits for a user behind other people's gigabytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Weight {
    /// A few calls.
    Light,
    /// Starts databases or moves their bytes.
    Heavy,
}

impl Weight {
    /// All weights.
    pub const ALL: [Self; 2] = [Self::Light, Self::Heavy];

    /// The operations of this weight that one broker process runs at once.
    pub fn at_once(self) -> usize {
        match self {
            Self::Light => LIGHT_OPERATIONS_AT_ONCE,
            Self::Heavy => HEAVY_OPERATIONS_AT_ONCE,
        }
    }

    /// How many of those places are for what nobody asked for.
    pub fn kept(self) -> usize {
        PLACES_KEPT
    }

    /// The kinds of this weight.
    pub fn kinds(self) -> Vec<OperationKind> {
        OperationKind::ALL
            .into_iter()
            .filter(|kind| kind.weight() == self)
            .collect()
    }
}

/// Where an operation is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationState {
    /// Accepted; nobody works on it.
    Queued,
    /// A worker has claimed it.
    Running,
    /// Done.
    Succeeded,
    /// Given up and cleaned up.
    Failed,
    /// Given up, and the clean-up failed too: an operator must look at it.
    Stuck,
    /// Given up by an operator, as it was.
    Abandoned,
}

impl OperationState {
    /// All states.
    pub const ALL: [Self; 6] = [
        Self::Queued,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Stuck,
        Self::Abandoned,
    ];

    /// The name used in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Stuck => "stuck",
            Self::Abandoned => "abandoned",
        }
    }

    /// The state of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Whether work is still to come.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Queued | Self::Running)
    }
}

/// What an operation must have for itself before it is claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitsFor {
    /// Nothing.
    Nothing,
    /// The end of every other operation on its binding.
    Binding,
    /// The end of every other operation on its instance.
    Instance,
}

impl WaitsFor {
    /// The name used in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Binding => "binding",
            Self::Instance => "instance",
        }
    }

    /// The value of that name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Nothing, Self::Binding, Self::Instance]
            .into_iter()
            .find(|w| w.as_str() == text)
    }
}

/// What users are told of an operation that gave way to a deletion.
pub const HALTED: &str = "stopped, because it is being deleted";

/// What a poll with the token of a deletion that is done is told. The specification and its suites
/// do not agree, so the operator may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeletedPoll {
    /// That what was deleted is gone.
    Gone,
    /// That the operation succeeded.
    #[default]
    Succeeded,
}

/// How far an operation has come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// What is being done, for people; empty before the first step.
    pub step: String,
    /// Steps done.
    pub steps_done: u32,
    /// Steps in all; 0 before the first claim.
    pub steps_total: u32,
    /// Bytes of the current step done.
    pub bytes_done: u64,
    /// Bytes of the current step in all; 0 when the step moves no bytes.
    pub bytes_total: u64,
    /// Which member has its turn in the current step; none where it takes none by itself.
    pub turn: Option<Turn>,
}

impl fmt::Display for Progress {
    /// The one text for people, shown by `last_operation` and by recipes alike.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.step.is_empty() {
            return f.write_str("waiting to begin");
        }
        let step = (self.steps_done + 1).min(self.steps_total);
        write!(f, "{} (step {step} of {})", self.step, self.steps_total)?;
        if let Some(turn) = &self.turn {
            write!(f, ", {turn}")?;
        }
        if self.bytes_total > 0 {
            write!(
                f,
                ", {} of {}",
                size(self.bytes_done),
                size(self.bytes_total)
            )?;
        }
        Ok(())
    }
}

/// What a restore was accepted with. It stands on its own, so that the source may go away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreSource {
    /// The backup's manifest at the time of the request.
    pub manifest: Manifest,
    /// Whether clients that go on from what they saw in the source are told that this is another database.
    #[serde(default)]
    pub clients_notice: bool,
    /// The key to the backup's object, where that is sealed for the key of its tenant: sealed under the key ring for
    /// this operation ([`Operation::key_context`]), and forgotten with its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_key: Option<String>,
}

impl RestoreSource {
    /// What has nothing to do with clients of the source.
    pub fn of(manifest: Manifest) -> Self {
        Self {
            manifest,
            clients_notice: false,
            sealed_key: None,
        }
    }
}

/// A durable operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// Its id: OSB's `operation` and Compose's recipe id.
    pub id: OperationId,
    /// What it does.
    pub kind: OperationKind,
    /// The instance it works on.
    pub instance: InstanceId,
    /// The binding it works on.
    pub binding: Option<BindingId>,
    /// The backup it takes, restores, also in part, proves or recovers from; an upgrade's: the one that is taken before it.
    pub backup: Option<BackupId>,
    /// The source of a restore, or of a recovery from a backup ([`RestoreSource`]).
    pub source: Option<RestoreSource>,
    /// What an update changes.
    pub change: Option<Change>,
    /// What the keys begin with that a relief deletes; absent: it deletes none.
    pub delete_prefix: Option<String>,
    /// What a repair repairs.
    pub repair: Option<Repair>,
    /// The member that a recovery is made of; absent: it is made of [`Operation::source`].
    pub survivor: Option<String>,
    /// What a restore of a part puts back, and what came of it.
    pub prefix_restore: Option<PrefixRestore>,
    /// Where it is in its life.
    pub state: OperationState,
    /// What must end before it begins.
    pub waits_for: WaitsFor,
    /// It was told to stop, because its instance or binding is being deleted.
    pub halted: bool,
    /// How far it has come.
    pub progress: Progress,
    /// What keeps it from getting on; none while it gets on.
    pub trouble: Option<Trouble>,
    /// What it waits for before somebody works on it. Not kept: it is found out where operations are shown.
    pub wait: Option<Wait>,
    /// Why it failed, for people. On an active operation: it is cleaning up.
    pub failure: Option<String>,
    /// An operator wants nothing more done for it.
    pub abandoned: bool,
    /// Where it came from.
    pub origin: Origin,
    /// Counts claims; a worker of an older epoch can no longer write.
    pub epoch: i64,
    /// When it was accepted.
    pub created_at: DateTime<Utc>,
    /// Its place among all: what was asked for later has a higher one, whatever the clock showed.
    /// Given by the store, and never shown.
    pub ordinal: i64,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

impl Operation {
    /// An operation that is accepted now and that nobody works on yet.
    pub fn queued(
        kind: OperationKind,
        instance: &InstanceId,
        origin: Origin,
        now: DateTime<Utc>,
    ) -> Self {
        Self {
            id: OperationId::generate(now),
            kind,
            instance: instance.clone(),
            binding: None,
            backup: None,
            source: None,
            change: None,
            delete_prefix: None,
            repair: None,
            survivor: None,
            prefix_restore: None,
            state: OperationState::Queued,
            waits_for: WaitsFor::Nothing,
            halted: false,
            progress: Progress::default(),
            trouble: None,
            wait: None,
            failure: None,
            abandoned: false,
            origin,
            epoch: 0,
            created_at: now,
            ordinal: 0,
            updated_at: now,
        }
    }

    /// The place that [`RestoreSource::sealed_key`] is sealed for.
    pub fn key_context(&self) -> String {
        format!("key to the source of operation {}", self.id)
    }
}

/// A worker's right to write for an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The operation.
    pub operation: OperationId,
    /// The epoch that the claim began.
    pub epoch: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_reads_like_a_sentence() {
        let mut progress = Progress::default();
        assert_eq!(progress.to_string(), "waiting to begin");
        progress = Progress {
            step: "Taking the snapshot".into(),
            steps_done: 1,
            steps_total: 4,
            bytes_done: 1_310_720,
            bytes_total: 2_097_152,
            turn: None,
        };
        assert_eq!(
            progress.to_string(),
            "Taking the snapshot (step 2 of 4), 1.2 MiB of 2.0 MiB"
        );
        progress.steps_done = 4;
        progress.bytes_total = 0;
        assert_eq!(progress.to_string(), "Taking the snapshot (step 4 of 4)");
        progress.turn = Some(Turn::of("m1", 1, 3, ""));
        assert_eq!(
            progress.to_string(),
            "Taking the snapshot (step 4 of 4), member 2 of 3 (m1)"
        );
    }

    #[test]
    fn names_are_read_back() {
        for kind in OperationKind::ALL {
            assert_eq!(OperationKind::parse(kind.as_str()), Some(kind));
        }
    }
}
