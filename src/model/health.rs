//! How an instance is, in one word and a sentence or two: the worst of what is done to it, of its
//! alerts, and of what was seen of its members. Pure: the caller brings what is known.
//!
//! Invariants: what nobody has seen is never called well. That an operation ended well says nothing of
//! the instance. Something worse that is known never makes the word better.

use chrono::{DateTime, Utc};

use super::{
    alert::{
        Alert, DatabaseWatch, ELSEWHERE, Gravity, Subject, of_all, of_closing, of_recovery,
        of_repair,
    },
    instance::InstanceState,
    observation::Observation,
    operation::{Operation, OperationKind, OperationState},
    sentence::{capitalized, is_or_are},
    trouble::Moment,
    wait::Wait,
};

/// How an instance is, in a word; the best in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HealthState {
    /// All of its members serve.
    Ready,
    /// Something is being done to it.
    Changing,
    /// Nobody has seen its members lately.
    Unknown,
    /// It can be used, and something of it does not work.
    Degraded,
    /// It is full: it can be read, and takes no writes.
    ReadOnly,
    /// It is being deleted.
    Deleting,
    /// It could not be made, or not be deleted.
    Failed,
    /// What was done to it failed, and so did the clean-up: its operator has to act.
    Stuck,
    /// It cannot be used.
    Down,
}

impl HealthState {
    /// All states.
    pub const ALL: [Self; 9] = [
        Self::Ready,
        Self::Changing,
        Self::Unknown,
        Self::Degraded,
        Self::ReadOnly,
        Self::Deleting,
        Self::Failed,
        Self::Stuck,
        Self::Down,
    ];

    /// For programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Changing => "changing",
            Self::Unknown => "unknown",
            Self::Degraded => "degraded",
            Self::ReadOnly => "read_only",
            Self::Deleting => "deleting",
            Self::Failed => "failed",
            Self::Stuck => "stuck",
            Self::Down => "down",
        }
    }

    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Changing => "Changing",
            Self::Unknown => "Unknown",
            Self::Degraded => "Degraded",
            Self::ReadOnly => "Read-only (full)",
            Self::Deleting => "Deleting",
            Self::Failed => "Failed",
            Self::Stuck => "Stuck",
            Self::Down => "Down",
        }
    }

    /// The state that programs call so.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// Why a database is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DownReason {
    /// Too few of its members serve.
    Members,
    /// It is full, and nobody but the broker is let in until there is room. Nothing is wrong with its
    /// members.
    Closed,
    /// Its operator has it made anew from what is left of it.
    Recovery,
}

impl DownReason {
    /// All reasons.
    pub const ALL: [Self; 3] = [Self::Members, Self::Closed, Self::Recovery];

    /// For programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Members => "members",
            Self::Closed => "closed",
            Self::Recovery => "recovery",
        }
    }

    /// The reason that programs call so.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }

    /// Until when something waits meanwhile that takes members; none where it does not wait.
    pub fn waits_until(self) -> Option<&'static str> {
        match self {
            Self::Members => Some("until enough members serve"),
            Self::Closed => None,
            Self::Recovery => Some("until it is recovered"),
        }
    }
}

/// How an instance is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// In a word.
    pub state: HealthState,
    /// Why it is down; none unless the word is [`HealthState::Down`].
    pub down: Option<DownReason>,
    /// What is the matter, since when, and what to do about it, for people.
    pub message: String,
    /// Since when, as far as that is known.
    pub since: Option<DateTime<Utc>>,
}

impl Health {
    /// Of an instance of which nothing is known.
    pub fn unknown() -> Self {
        Self {
            state: HealthState::Unknown,
            down: None,
            message:
                "The broker has not seen the members lately. It looks at them now: ask again in a \
                      few seconds."
                    .to_owned(),
            since: None,
        }
    }

    fn new(state: HealthState, since: DateTime<Utc>, message: String) -> Self {
        Self {
            state,
            down: None,
            message,
            since: Some(since),
        }
    }

    fn of_alert(state: HealthState, alert: &Alert, since: Option<DateTime<Utc>>) -> Self {
        Self {
            state,
            down: None,
            message: alert.message.clone(),
            since,
        }
    }

    fn down(because: DownReason, message: String, since: Option<DateTime<Utc>>) -> Self {
        Self {
            state: HealthState::Down,
            down: Some(because),
            message,
            since,
        }
    }
}

/// Where an instance is in its life, and what is done to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Life {
    /// Where it is.
    pub state: InstanceState,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// What is queued or running, oldest first.
    pub under_way: Vec<Operation>,
    /// What is stuck, and was not done since.
    pub stuck: Vec<Operation>,
    /// The last making or deletion of it, where that failed.
    pub failed: Option<Operation>,
}

impl Life {
    /// When an operation of one of these kinds was accepted that goes on.
    fn since(&self, kinds: &[OperationKind]) -> Option<DateTime<Utc>> {
        let mut found = self.under_way.iter();
        found
            .find(|o| kinds.contains(&o.kind))
            .map(|o| o.created_at)
    }

    /// The operation that has the members in hand, or will.
    fn change(&self) -> Option<&Operation> {
        let mut found = self.under_way.iter();
        found.find(|o| o.kind.has_members_in_hand() && !o.halted)
    }

    /// The same, once it has begun: what waits for its turn changes nothing yet.
    fn begun_change(&self) -> Option<&Operation> {
        self.change()
            .filter(|o| o.state == OperationState::Running || !o.progress.step.is_empty())
    }
}

/// How an instance is. `seen`: what was seen last of its members, none where that is too long ago;
/// `alerts`: [all of it](super::alert::alerts), as of the same look.
pub fn health(
    life: &Life,
    database: &DatabaseWatch,
    seen: Option<&Observation>,
    alerts: &[Alert],
) -> Health {
    let mut found: Vec<Health> = of_life(life).into_iter().collect();
    found.extend(life.stuck.iter().map(of_stuck));
    if life.state == InstanceState::Ready {
        // Of what is as bad, the first is told: members that are missing keep the broker from making room.
        found.extend(of_rebuilding(life, database));
        found.push(of_members(seen, database));
        found.extend(of_closed(database));
        found.extend(of_storage(seen));
        found.extend(of_damage(life, database));
        found.extend(alerts.iter().filter_map(of_alert));
    }
    let worse = |a: Health, b: Health| if b.state > a.state { b } else { a };
    let mut worst = found.into_iter().reduce(worse);
    let meanwhile = life
        .begun_change()
        .filter(|_| life.state == InstanceState::Ready);
    if let (Some(worst), Some(change)) = (worst.as_mut(), meanwhile)
        && worst.state > HealthState::Changing
    {
        worst.message += &match change.kind {
            OperationKind::Relief => " The broker is making room now.".to_owned(),
            kind => format!(" Meanwhile {} is under way.", doing(kind)),
        };
    }
    worst.unwrap_or_else(Health::unknown)
}

/// What the operator has to do something about in an instance's life.
pub fn alert_of_life(life: &Life) -> Option<Alert> {
    let health = match life.stuck.first() {
        Some(operation) => of_stuck(operation),
        None if life.state == InstanceState::Failed => of_failure(life),
        None => return None,
    };
    Some(of_all(Subject::Work, Gravity::Critical, health.message))
}

/// What an operation does, as the subject of a sentence.
fn doing(kind: OperationKind) -> &'static str {
    match kind {
        OperationKind::Provision => "its creation",
        OperationKind::Restore => "its creation from a backup",
        OperationKind::Update => "its update",
        OperationKind::Deprovision => "its deletion",
        OperationKind::Bind => "the creation of credentials",
        OperationKind::Unbind => "the removal of credentials",
        OperationKind::Backup => "a backup",
        OperationKind::FinalBackup => "the last backup before its deletion",
        OperationKind::Prune => "the removal of old backups",
        OperationKind::Relief => "the making of room",
        OperationKind::Defragment => "its defragmentation",
        OperationKind::Repair => "the replacement of a member",
        OperationKind::Recover => "its recovery",
        OperationKind::Renew => "the renewal of its certificates",
        OperationKind::Readdress => "the move of its members to other addresses",
        OperationKind::Proof => "the proof of a backup",
        OperationKind::Import => "the import of a backup",
        OperationKind::RestorePrefix => "the restore of a part of its keys",
    }
}

/// How an operation stands that goes on: how far, and what keeps it.
fn standing(operation: &Operation) -> String {
    let trouble = operation.trouble.as_ref();
    let trouble = trouble.map_or_else(String::new, |trouble| format!("; {trouble}"));
    match &operation.failure {
        Some(failure) => format!("cleaning up after: {failure}{trouble}"),
        None => format!("{}{trouble}", operation.progress),
    }
}

fn of_life(life: &Life) -> Option<Health> {
    let changing = |since, message| Health::new(HealthState::Changing, since, message);
    Some(match life.state {
        InstanceState::Ready => {
            let change = life.begun_change()?;
            let since = change.created_at;
            let (doing, progress) = (capitalized(doing(change.kind)), standing(change));
            let message = format!(
                "{doing} has been under way since {}: {progress}. The database serves meanwhile. Nothing to do.",
                Moment(since)
            );
            changing(since, message)
        }
        InstanceState::Provisioning => {
            let since = life.created_at;
            let progress = life.change().map_or_else(String::new, |change| {
                let progress = standing(change);
                format!(": {progress}")
            });
            let message = format!(
                "It is being created, since {}{progress}. It can be used when that is done.",
                Moment(since)
            );
            changing(since, message)
        }
        InstanceState::Deleting => {
            let since = life.since(&[OperationKind::Deprovision]);
            let when = since.map_or_else(String::new, |at| format!(", since {}", Moment(at)));
            let how = deletion(life).map_or_else(String::new, |how| format!(": {how}"));
            Health {
                state: HealthState::Deleting,
                down: None,
                message: format!("It is being deleted, with its bindings{when}{how}."),
                since,
            }
        }
        InstanceState::Failed => of_failure(life),
    })
}

/// How far a deletion is, or what it waits for.
fn deletion(life: &Life) -> Option<String> {
    let of = |kind| life.under_way.iter().find(|o| o.kind == kind);
    let begun = of(OperationKind::Deprovision).filter(|o| !o.progress.step.is_empty());
    // One that has failed is only cleaned up.
    let last = of(OperationKind::FinalBackup).filter(|o| o.failure.is_none());
    let waits = || last.map(|o| Wait::LastBackup(o.trouble.clone()).to_string());
    begun.map(standing).or_else(waits)
}

fn of_failure(life: &Life) -> Health {
    let Some(failed) = &life.failed else {
        let message = "It could not be made. Delete it, and make it anew.".to_owned();
        return Health::new(HealthState::Failed, life.created_at, message);
    };
    let advice = if failed.kind == OperationKind::Deprovision {
        "Delete it again; if that fails too, ask the broker's operator."
    } else {
        "Delete it, and make it anew."
    };
    let message = format!(
        "{} failed at {}{}. {advice}",
        capitalized(doing(failed.kind)),
        Moment(failed.updated_at),
        because(failed)
    );
    Health::new(HealthState::Failed, failed.updated_at, message)
}

/// Why an operation failed, behind a colon.
fn because(operation: &Operation) -> String {
    let failure = operation.failure.as_deref().unwrap_or_default();
    let failure = failure.trim_end_matches('.');
    if failure.is_empty() {
        String::new()
    } else {
        format!(": {failure}")
    }
}

fn of_stuck(operation: &Operation) -> Health {
    let message = format!(
        "{} failed, and so did the clean-up, at {}{}. The broker's operator has to retry it or give \
         it up.",
        capitalized(doing(operation.kind)),
        Moment(operation.updated_at),
        because(operation)
    );
    Health::new(HealthState::Stuck, operation.updated_at, message)
}

/// A database that is made anew after most of its members were lost.
fn of_rebuilding(life: &Life, database: &DatabaseWatch) -> Option<Health> {
    let alert = of_recovery(database)?;
    let since = life.since(&[OperationKind::Recover]);
    Some(Health::down(DownReason::Recovery, alert.message, since))
}

/// A database that is full, and lets in nobody but the broker for that.
fn of_closed(database: &DatabaseWatch) -> Option<Health> {
    let alert = of_closing(database)?;
    let since = database.closed_since;
    Some(Health::down(DownReason::Closed, alert.message, since))
}

fn of_members(seen: Option<&Observation>, database: &DatabaseWatch) -> Health {
    let Some(seen) = seen.filter(|seen| !seen.members.is_empty()) else {
        let unknown = Health::unknown();
        return match database.is_elsewhere {
            true => Health {
                message: ELSEWHERE.to_owned(),
                ..unknown
            },
            false => unknown,
        };
    };
    let (serving, all) = (seen.serving(), seen.members.len());
    let at = Moment(seen.since);
    let serve = match serving {
        0 if all == 1 => "its member does not serve".to_owned(),
        0 => "no member serves".to_owned(),
        1 => format!("only 1 of {all} members serves"),
        _ => format!("only {serving} of {all} members serve"),
    };
    let silent = seen.members.iter().filter(|member| !member.serves());
    let silent: Vec<&str> = silent.map(|member| member.name.as_str()).collect();
    let not = if silent.len() == 1 {
        "does not"
    } else {
        "do not"
    };
    let (state, message) = if !seen.is_usable() {
        let (needed, are) = (seen.needed, is_or_are(seen.needed));
        let message = format!(
            "Since {at} {serve}; {needed} of {all} {are} needed. Reads and writes fail. The broker starts a member \
             again when its process ends. If this lasts for minutes, the broker's operator must check the \
             machine or recover the database."
        );
        return Health::down(DownReason::Members, message, Some(seen.since));
    } else if serving < all {
        let message = format!(
            "Since {at} {serve}; {} {not}. It can be used. The broker starts a member again when its \
             process ends. If this lasts, tell the broker's operator.",
            silent.join(", ")
        );
        (HealthState::Degraded, message)
    } else {
        let members = if all == 1 {
            "Its member has served".to_owned()
        } else {
            format!("All {all} members have served")
        };
        // It may have been closed or full while all of them served.
        if let Some(open) = seen.open_since.filter(|open| *open > seen.since) {
            let message = format!(
                "{members} since {at}, and it has had room for writes since {}. Nothing to do.",
                Moment(open)
            );
            return Health::new(HealthState::Ready, open, message);
        }
        let message = format!("{members} since {at}. Nothing to do.");
        (HealthState::Ready, message)
    };
    Health::new(state, seen.since, message)
}

fn of_storage(seen: Option<&Observation>) -> Option<Health> {
    let seen = seen.filter(|seen| seen.is_full())?;
    let since = seen.full_since.unwrap_or(seen.since);
    let message = format!(
        "It has been full since {}: it can be read and takes no writes. Ask for more units, or delete keys: \
         the broker then makes room and lets it take writes again.",
        Moment(since)
    );
    Some(Health::new(HealthState::ReadOnly, since, message))
}

/// A member that lost what it kept.
fn of_damage(life: &Life, database: &DatabaseWatch) -> Option<Health> {
    let alert = of_repair(database)?;
    let since = life.since(&[OperationKind::Repair]);
    Some(Health::of_alert(HealthState::Degraded, &alert, since))
}

fn of_alert(alert: &Alert) -> Option<Health> {
    let state = match alert.gravity {
        Gravity::Critical => HealthState::Degraded,
        Gravity::Unknown => HealthState::Unknown,
        Gravity::Warning | Gravity::Notice => return None,
    };
    Some(Health::of_alert(state, alert, alert.since))
}

#[cfg(test)]
mod tests;
