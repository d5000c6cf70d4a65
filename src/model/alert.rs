//! What somebody should know of an instance and do something about: members that are down, storage
//! that runs out, backups that do not come. Pure: whoever asks brings the moment and what was seen.

use chrono::{DateTime, SecondsFormat, Utc};

use super::{
    limits::{
        BACKUP_FAILURES_TELLING, BACKUP_LATE_AFTER, QUOTA_NEAR_PERCENT, SCHEDULE_BEGINS_AFTER,
        UNIT_BYTES,
    },
    observation::{MemberHealth, MemberObservation, Observation},
    schedule::{Schedule, minute_of_day, slot_after},
};

/// How bad it is; the worst in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gravity {
    /// Something does not work, or what protects it does not.
    Critical,
    /// Something will not work if nobody does anything.
    Warning,
    /// It cannot be told.
    Unknown,
}

impl Gravity {
    /// The Compose API's `status` of an alert.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Unknown => "unknown",
        }
    }
}

/// One thing that somebody should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// How bad it is.
    pub gravity: Gravity,
    /// The member that it is about; none when it is about the whole.
    pub member: Option<String>,
    /// What it is and what can be done, for people.
    pub message: String,
}

/// What is known of an instance's scheduled backups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupWatch {
    /// The schedule; none while there is none to keep to.
    pub schedule: Option<Schedule>,
    /// Since when the instance is usable.
    pub ready_at: DateTime<Utc>,
    /// When the newest scheduled backup was taken that is complete.
    pub newest_good: Option<DateTime<Utc>>,
}

/// Everything that somebody should know of a usable instance at `now`, the worst in front.
/// `observation`: what was seen of its members a moment ago, none if they cannot be looked at;
/// `quota_bytes`: the storage of each of them.
pub fn alerts(
    now: DateTime<Utc>,
    quota_bytes: u64,
    observation: Option<&Observation>,
    backups: &BackupWatch,
) -> Vec<Alert> {
    let mut found = match observation {
        Some(seen) => [of_members(seen), of_storage(seen, quota_bytes)].concat(),
        None => vec![Alert {
            gravity: Gravity::Unknown,
            member: None,
            message: "The broker could not look at the members.".to_owned(),
        }],
    };
    found.extend(of_backups(now, backups));
    found.sort_by_key(|alert| alert.gravity);
    found
}

/// Members that do not serve. The others go on as long as they are more.
fn of_members(seen: &Observation) -> Vec<Alert> {
    let majority = seen.serving() * 2 > seen.members.len();
    let gravity = if majority {
        Gravity::Warning
    } else {
        Gravity::Critical
    };
    let alert = |member: &MemberObservation| {
        let name = &member.name;
        let message = match &member.health {
            MemberHealth::Serving { .. } => return None,
            MemberHealth::WithoutLeader => format!("Member {name} answers, but has no leader."),
            MemberHealth::Silent(why) => format!("Member {name} does not answer: {why}"),
        };
        Some(Alert {
            gravity,
            member: Some(name.clone()),
            message,
        })
    };
    seen.members.iter().filter_map(alert).collect()
}

/// Storage that is used up or will be, and whatever else members complain of.
fn of_storage(seen: &Observation, quota_bytes: u64) -> Vec<Alert> {
    let mut found: Vec<Alert> = Vec::new();
    for member in &seen.members {
        let MemberHealth::Serving { complaints, .. } = &member.health else {
            continue;
        };
        for complaint in complaints {
            let message = format!("The database complains: {}", complaint.trim());
            // All members tell what one of them complains of.
            if found.iter().all(|alert| alert.message != message) {
                found.push(Alert {
                    gravity: Gravity::Critical,
                    member: Some(member.name.clone()),
                    message,
                });
            }
        }
    }
    let used = u128::from(seen.database_bytes().unwrap_or(0));
    let quota = u128::from(quota_bytes.max(1));
    let percent = used * 100 / quota;
    if percent >= u128::from(QUOTA_NEAR_PERCENT) {
        let units = quota_bytes / UNIT_BYTES;
        let (gravity, consequence) = if used >= quota {
            (Gravity::Critical, "no more writes are taken")
        } else {
            (
                Gravity::Warning,
                "when all of it is used, no more writes are taken",
            )
        };
        found.push(Alert {
            gravity,
            member: None,
            message: format!(
                "{percent} % of the storage quota of {units} unit(s) are used; {consequence}. Ask \
                 for more units."
            ),
        });
    }
    found
}

/// When the next scheduled backup is late, if none comes before: an instance has a slot a day.
pub fn backup_late_at(watch: &BackupWatch) -> Option<DateTime<Utc>> {
    let minute = minute_of_day(&watch.schedule.as_ref()?.instance);
    let since = watch
        .newest_good
        .unwrap_or(watch.ready_at + SCHEDULE_BEGINS_AFTER);
    Some(slot_after(since, minute) + BACKUP_LATE_AFTER)
}

/// A scheduled backup that is late, or is about to be.
fn of_backups(now: DateTime<Utc>, watch: &BackupWatch) -> Option<Alert> {
    let failures = watch.schedule.as_ref()?.failures;
    let failed = match failures {
        0 => String::new(),
        1 => " The last try failed.".to_owned(),
        more => format!(" The last {more} tries failed."),
    };
    let (gravity, message) = if now >= backup_late_at(watch)? {
        let newest = match watch.newest_good {
            Some(at) => format!("the newest good one is of {}", time(at)),
            None => format!(
                "there is none since the instance was made, {}",
                time(watch.ready_at)
            ),
        };
        let late = format!("The scheduled backup is late: {newest}.{failed}");
        (Gravity::Critical, late)
    } else if failures >= BACKUP_FAILURES_TELLING {
        let failing = format!("The scheduled backup does not succeed.{failed}");
        (Gravity::Warning, failing)
    } else {
        return None;
    };
    Some(Alert {
        gravity,
        member: None,
        message,
    })
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

#[cfg(test)]
mod tests;
