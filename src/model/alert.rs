//! What somebody should know of an instance and do something about: members that are down, storage
//! that runs out, backups that do not come. Pure: the caller brings the moment and what was seen.

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    engine::{KnownFault, Severity},
    exposure::Withheld,
    limits::{
        BACKUP_FAILURES_TELLING, BACKUP_LATE_AFTER, CERTIFICATE_END_TOLD, FAULTS_TOLD_MAX,
        QUOTA_CRITICAL_PERCENT, QUOTA_NEAR_PERCENT, SCHEDULE_BEGINS_AFTER, UNIT_BYTES,
    },
    mirror::Unmirrored,
    observation::{Complaint, MemberHealth, MemberObservation, Observation},
    proof::{Flaw, Freshness},
    renewal::Outlook,
    repair::Repair,
    schedule::{Schedule, slot_after},
    sentence::counted,
    trouble::Moment,
    version::Version,
};

/// How bad it is; the worst in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Gravity {
    /// Something does not work, or what protects it does not.
    Critical,
    /// Something will not work if nobody does anything.
    Warning,
    /// It cannot be told.
    Unknown,
    /// Nothing has to be done; it is good to know.
    Notice,
}

impl Gravity {
    /// The Compose API's `status` of an alert.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Unknown => "unknown",
            Self::Notice => "notice",
        }
    }

    /// The gravity that is called so.
    pub fn parse(text: &str) -> Option<Self> {
        let all = [Self::Critical, Self::Warning, Self::Unknown, Self::Notice];
        all.into_iter().find(|gravity| gravity.as_str() == text)
    }
}

/// What an alert is about. It stays the same while the alert's words and gravity change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// Whether a member serves.
    Member(String),
    /// What a member complains of.
    Complaint(String),
    /// Storage that is used up or will be.
    Storage,
    /// Members that cannot be looked at.
    Look,
    /// A lost majority.
    Recovery,
    /// A database that lets nobody in.
    Closing,
    /// The replacement of a member.
    Repair,
    /// Rights that the version does not hold.
    Limits,
    /// Members that others do not reach.
    Loopback,
    /// Members that are not where applications are to reach them.
    Addresses,
    /// What befell the database at a moment.
    Incident(DateTime<Utc>),
    /// Known faults of the version.
    Faults,
    /// A certificate that ends.
    CertificateEnd,
    /// An authority that others have to know.
    NextAuthority,
    /// The scheduled backup.
    Backup,
    /// A backup that is not what its manifest says.
    Proof,
    /// Backups without a copy in the mirror.
    Mirror,
    /// Work that failed, or is stuck.
    Work,
}

impl Subject {
    /// For programs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Member(_) => "member",
            Self::Complaint(_) => "complaint",
            Self::Storage => "storage",
            Self::Look => "look",
            Self::Recovery => "recovery",
            Self::Closing => "closing",
            Self::Repair => "repair",
            Self::Limits => "limits",
            Self::Loopback => "loopback",
            Self::Addresses => "addresses",
            Self::Incident(_) => "incident",
            Self::Faults => "faults",
            Self::CertificateEnd => "certificate_end",
            Self::NextAuthority => "next_authority",
            Self::Backup => "backup",
            Self::Proof => "proof",
            Self::Mirror => "mirror",
            Self::Work => "work",
        }
    }
}

/// One thing that somebody should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// What it is about.
    pub subject: Subject,
    /// How bad it is.
    pub gravity: Gravity,
    /// The member that it is about; none when it is about the whole.
    pub member: Option<String>,
    /// Since when, as far as that is known.
    pub since: Option<DateTime<Utc>>,
    /// What it is and what can be done, for people.
    pub message: String,
}

/// What befell a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    /// When.
    pub at: DateTime<Utc>,
    /// What, in sentences for people.
    pub message: String,
}

/// What is known of a database beside what its members tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseWatch {
    /// The engine's name.
    pub engine: String,
    /// The version that runs.
    pub version: Version,
    /// Bytes that each member may have.
    pub quota_bytes: u64,
    /// The known faults of the version, the gravest in front.
    pub faults: Vec<KnownFault>,
    /// The nearest newer version without known faults, where one is available.
    pub faultless: Option<Version>,
    /// Bindings whose role or prefix the version does not hold.
    pub limits_not_held: usize,
    /// The version to upgrade to that would hold them, where one is available.
    pub limits_held_by: Option<Version>,
    /// The version goes on checking rights when the database is full.
    pub is_safe_full: bool,
    /// The version to upgrade to that does, where one is available.
    pub safe_full_from: Option<Version>,
    /// Who reaches it, where the version lets strangers in and members of its cluster are reached from
    /// elsewhere.
    pub withheld: Option<Withheld>,
    /// The version to upgrade to that does not, where one is available.
    pub reachable_from: Option<Version>,
    /// Since when nobody but the broker is let in.
    pub closed_since: Option<DateTime<Utc>>,
    /// What befell it lately, newest first.
    pub incidents: Vec<Incident>,
    /// The replacement of a member, while it goes on or after it failed.
    pub repair: Option<RepairWatch>,
    /// It is being made anew of what is left, or of a backup.
    pub is_recovered: bool,
    /// Another broker looks after its members, and this one does not find them.
    pub is_elsewhere: bool,
    /// Why its members could not be moved to where applications are to reach them.
    pub move_failure: Option<String>,
    /// What lies ahead of its certificates; none where nobody has looked yet.
    pub certificates: Option<Outlook>,
    /// Whether its backups are proved.
    pub proves_backups: bool,
}

/// What is known of the replacement of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairWatch {
    /// The member, and what is wrong with it.
    pub repair: Repair,
    /// Why it failed; none while it goes on.
    pub failure: Option<String>,
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
    /// When the newest backup was taken that was restored aside, and was what its manifest says.
    pub newest_proved: Option<DateTime<Utc>>,
    /// When the newest backup was taken that cannot be proved, since it is sealed for the key of its tenant.
    pub newest_excused: Option<DateTime<Utc>>,
    /// The newest backup that was restored aside and was not.
    pub flawed: Option<FlawedBackup>,
    /// How old the newest proved backup may be; none: backups are not proved, or not those that are taken now.
    pub proved_within: Option<TimeDelta>,
    /// Why the newest complete backup is not proved.
    pub doubt: Option<String>,
    /// Those without a copy in the mirror, where there is one.
    pub unmirrored: Option<Unmirrored>,
}

/// A backup that is not what its manifest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlawedBackup {
    /// When it was taken.
    pub taken_at: DateTime<Utc>,
    /// What was wrong.
    pub flaw: Flaw,
    /// How many there are, with this one.
    pub count: usize,
}

/// What is said of members that this broker does not find.
pub(super) const ELSEWHERE: &str = "The members run on another machine, and the broker there looks after them: this one \
                         does not see how they are.";

/// Everything that somebody should know of a usable instance at `now`, the worst in front.
/// `observation`: what was seen of its members a moment ago, none if they cannot be looked at.
pub fn alerts(
    now: DateTime<Utc>,
    database: &DatabaseWatch,
    observation: Option<&Observation>,
    backups: &BackupWatch,
) -> Vec<Alert> {
    let mut found = match observation {
        Some(seen) => [of_members(seen), of_storage(seen, database)].concat(),
        None => vec![Alert {
            subject: Subject::Look,
            gravity: Gravity::Unknown,
            member: None,
            since: None,
            message: match database.is_elsewhere {
                true => ELSEWHERE,
                false => "The broker could not look at the members.",
            }
            .to_owned(),
        }],
    };
    found.extend(of_database(database));
    found.extend(of_certificates(now, database));
    found.extend(of_backups(now, backups));
    found.extend(of_flawed(backups));
    found.extend(of_mirror(now, backups));
    found.sort_by_key(|alert| alert.gravity);
    found
}

/// Certificates that should have been renewed long ago, and the next authority, which clients have to
/// know before it issues.
fn of_certificates(now: DateTime<Utc>, database: &DatabaseWatch) -> Vec<Alert> {
    let Some(outlook) = database.certificates else {
        return Vec::new();
    };
    let told = |at: DateTime<Utc>| at - now <= CERTIFICATE_END_TOLD;
    let alert = |subject, gravity, since, message| Alert {
        subject,
        gravity,
        member: None,
        since,
        message,
    };
    let date = |at: DateTime<Utc>| at.format("%Y-%m-%d");
    let ends = outlook.ends_at;
    let end = told(ends).then(|| {
        let (gravity, says) = if ends > now {
            (Gravity::Warning, "ends")
        } else {
            (Gravity::Critical, "has ended")
        };
        let message = format!(
            "The certificate of its members {says} on {}, and could not be renewed so far; nobody can \
             connect after its end. The broker tries again each day, and needs all members to serve: \
             bring back those that do not. What else is in the way, the operator finds in the \
             operations of the kind renew.",
            date(ends)
        );
        let since = Some(ends).filter(|ends| *ends <= now);
        alert(Subject::CertificateEnd, gravity, since, message)
    });
    let change = outlook.changes_at.map(|at| {
        let gravity = if told(at) {
            Gravity::Warning
        } else {
            Gravity::Notice
        };
        let message = format!(
            "Its members get certificates of a new authority on {}. Credentials tell the new one beside \
             the old one: fetch them anew, or bind anew, before that day. Clients with older credentials \
             cannot connect from then on.",
            date(at)
        );
        alert(Subject::NextAuthority, gravity, None, message)
    });
    end.into_iter().chain(change).collect()
}

/// Members that do not serve. The others go on as long as they are enough.
fn of_members(seen: &Observation) -> Vec<Alert> {
    let gravity = if seen.is_usable() {
        Gravity::Warning
    } else {
        Gravity::Critical
    };
    let alert = |member: &MemberObservation| {
        let name = &member.name;
        let trouble = member.health.trouble()?;
        let message = format!("Member {name} {trouble}.");
        Some(Alert {
            subject: Subject::Member(name.clone()),
            gravity,
            member: Some(name.clone()),
            since: Some(seen.since),
            message,
        })
    };
    seen.members.iter().filter_map(alert).collect()
}

/// Storage that is used up or will be, and whatever else members complain of.
fn of_storage(seen: &Observation, database: &DatabaseWatch) -> Vec<Alert> {
    let mut found: Vec<Alert> = Vec::new();
    for member in &seen.members {
        let MemberHealth::Serving { complaints, .. } = &member.health else {
            continue;
        };
        for complaint in complaints {
            let Some((key, message)) = of_complaint(complaint, database) else {
                continue;
            };
            // All members tell what one of them complains of.
            if found.iter().all(|alert| alert.message != message) {
                found.push(Alert {
                    subject: Subject::Complaint(key.to_owned()),
                    gravity: Gravity::Critical,
                    member: Some(member.name.clone()),
                    since: seen.full_since.filter(|_| *complaint == Complaint::Full),
                    message,
                });
            }
        }
    }
    let says_full = seen.complains_of(&Complaint::Full);
    let used = u128::from(seen.database_bytes().unwrap_or(0));
    let quota = u128::from(database.quota_bytes.max(1));
    let percent = used * 100 / quota;
    // That it is full, or closed for that, says more.
    let is_said = says_full || database.closed_since.is_some();
    if percent >= u128::from(QUOTA_NEAR_PERCENT) && !is_said {
        let units = match database.quota_bytes / UNIT_BYTES {
            1 => "1 unit".to_owned(),
            units => format!("{units} units"),
        };
        let gravity = if percent >= u128::from(QUOTA_CRITICAL_PERCENT) {
            Gravity::Critical
        } else {
            Gravity::Warning
        };
        let consequence = match (used >= quota || seen.is_full(), database.is_safe_full) {
            (true, true) => "no more writes are taken",
            (true, false) => "nobody but the broker is let in",
            (false, true) => "when all of it is used, no more writes are taken",
            (false, false) => "when all of it is used, nobody but the broker is let in any more",
        };
        found.push(Alert {
            subject: Subject::Storage,
            gravity,
            member: None,
            since: seen.full_since,
            message: format!(
                "{percent} % of the storage quota of {units} is used; {consequence}. Ask for more \
                 units, or delete keys."
            ),
        });
    }
    found
}

/// What a member complains of, and what can be done: what its alert goes by, and its message. None where
/// another alert says it.
fn of_complaint<'a>(
    complaint: &'a Complaint,
    database: &DatabaseWatch,
) -> Option<(&'a str, String)> {
    match complaint {
        Complaint::Full if database.is_safe_full => {
            let message = "The database is full and takes no more writes. It can be read, and keys can be \
                           deleted. Ask for more units, or delete keys: the broker then makes room and \
                           lets it take writes again.";
            Some(("full", message.to_owned()))
        }
        Complaint::Full if database.closed_since.is_some() => None,
        Complaint::Full => {
            let message = "The database is full, and nobody but the broker is let in until there is room. \
                           Ask for more units, or make room by the deletion of keys with a prefix.";
            Some(("full", message.to_owned()))
        }
        Complaint::Differs => {
            let message = "The members hold different data and take no more writes. Restore the newest \
                           good backup into a new instance, and tell the operator.";
            Some(("differs", message.to_owned()))
        }
        Complaint::Other(words) => Some((words, format!("The database complains: {words}"))),
    }
}

/// What is known of the database whatever its members tell.
fn of_database(database: &DatabaseWatch) -> Vec<Alert> {
    let incidents = database.incidents.iter().map(|incident| {
        let (at, told) = (Moment(incident.at).to_string(), &incident.message);
        // Some say themselves when it was.
        let message = match told.contains(&at) {
            true => told.clone(),
            false => format!("{at}: {told}"),
        };
        Alert {
            since: Some(incident.at),
            ..of_all(Subject::Incident(incident.at), Gravity::Warning, message)
        }
    });
    [
        of_recovery(database),
        of_closing(database),
        of_repair(database),
        of_limits(database),
        of_loopback(database),
        of_addresses(database),
    ]
    .into_iter()
    .flatten()
    .chain(incidents)
    .chain(of_faults(database))
    .collect()
}

/// An alert about the database as a whole.
pub(super) fn of_all(subject: Subject, gravity: Gravity, message: String) -> Alert {
    Alert {
        subject,
        gravity,
        member: None,
        since: None,
        message,
    }
}

fn of_addresses(database: &DatabaseWatch) -> Option<Alert> {
    let failure = database.move_failure.as_ref()?;
    let message = format!(
        "Its members are not all where applications are to reach them by the broker's settings: {failure}. \
         Credentials name each member where it is. The broker tries again within an hour, and when it is \
         started anew."
    );
    Some(of_all(Subject::Addresses, Gravity::Warning, message))
}

pub(super) fn of_recovery(database: &DatabaseWatch) -> Option<Alert> {
    let message = "Most members were lost. The operator has the database made anew; until that is \
                   done, nobody is let in.";
    database
        .is_recovered
        .then(|| of_all(Subject::Recovery, Gravity::Critical, message.to_owned()))
}

pub(super) fn of_closing(database: &DatabaseWatch) -> Option<Alert> {
    // Nothing can be done about it while the database is recovered.
    let since = database.closed_since.filter(|_| !database.is_recovered)?;
    let (engine, version) = (&database.engine, database.version);
    let upgrade = match database.safe_full_from {
        Some(safe) => format!(", or upgrade to {safe}"),
        None => String::new(),
    };
    let message = format!(
        "Since {} nobody but the broker is let in: the database is full, and {engine} {version} \
         checks no rights while it is. Ask for more units, make room by the deletion of keys with a \
         prefix{upgrade}. The broker opens it when there is room.",
        Moment(since)
    );
    Some(Alert {
        since: Some(since),
        ..of_all(Subject::Closing, Gravity::Critical, message)
    })
}

pub(super) fn of_repair(database: &DatabaseWatch) -> Option<Alert> {
    let RepairWatch { repair, failure } = database.repair.as_ref()?;
    let (member, because) = (&repair.member, repair.because);
    Some(match failure {
        None => of_all(
            Subject::Repair,
            Gravity::Warning,
            format!(
                "Member {member} {because}. The broker is replacing it; the others serve meanwhile."
            ),
        ),
        Some(failure) => of_all(
            Subject::Repair,
            Gravity::Critical,
            format!(
                "Member {member} {because}, and replacing it failed: {failure}. The operator can \
                 have it replaced again."
            ),
        ),
    })
}

fn of_limits(database: &DatabaseWatch) -> Option<Alert> {
    if database.limits_not_held == 0 {
        return None;
    }
    let (engine, version) = (&database.engine, database.version);
    let upgrade = match database.limits_held_by {
        Some(version) => format!("upgrade to {version}"),
        None => "no version here does".to_owned(),
    };
    let message = format!(
        "{} {} a role or a prefix, and {engine} {version} does not hold users to them: {upgrade}.",
        counted(database.limits_not_held, "binding"),
        if database.limits_not_held == 1 {
            "has"
        } else {
            "have"
        }
    );
    Some(of_all(Subject::Limits, Gravity::Critical, message))
}

fn of_loopback(database: &DatabaseWatch) -> Option<Alert> {
    let (engine, version) = (&database.engine, database.version);
    let upgrade = match database.reachable_from {
        Some(version) => format!("Upgrade to {version}: the broker then moves the members."),
        None => "No version here is without them.".to_owned(),
    };
    let (gravity, message) = match database.withheld? {
        Withheld::Kept => (
            Gravity::Warning,
            format!(
                "Only programs on the broker's own machine reach this database: {engine} {version} has \
                 faults that let strangers in without a login. {upgrade}"
            ),
        ),
        Withheld::Exposed => (
            Gravity::Critical,
            format!(
                "Other machines still reach this database, and {engine} {version} has faults that let \
                 strangers in without a login. The broker restarts all members at once, so that only \
                 programs on its own machine reach them; it waits for other work on the instance to \
                 end. Keep strangers out with a firewall while this alert stays. {upgrade}"
            ),
        ),
    };
    Some(of_all(Subject::Loopback, gravity, message))
}

fn of_faults(database: &DatabaseWatch) -> Option<Alert> {
    let worst = database.faults.first()?;
    let (engine, version) = (&database.engine, database.version);
    let gravity = match worst.severity {
        Severity::LetsStrangersIn | Severity::Serious => Gravity::Warning,
        Severity::Minor => Gravity::Notice,
    };
    let advice = match database.faultless {
        Some(version) => format!(" Upgrade to {version}, which has no known fault."),
        None => String::new(),
    };
    let shown: Vec<String> = database
        .faults
        .iter()
        .take(FAULTS_TOLD_MAX)
        .map(|fault| format!("{fault}."))
        .collect();
    let more = match database.faults.len().saturating_sub(FAULTS_TOLD_MAX) {
        0 => String::new(),
        more => format!(" And {more} more."),
    };
    let has = match database.faults.len() {
        1 => "a known fault",
        _ => "known faults",
    };
    let message = format!(
        "{engine} {version} has {has}. {}{more}{advice}",
        shown.join(" ")
    );
    Some(of_all(Subject::Faults, gravity, message))
}

/// When the next scheduled backup is late, if none comes before: an instance has a slot a day.
pub fn backup_late_at(watch: &BackupWatch) -> Option<DateTime<Utc>> {
    let schedule = watch.schedule.as_ref()?;
    let since = watch
        .newest_good
        .unwrap_or(watch.ready_at + SCHEDULE_BEGINS_AFTER);
    let slot = slot_after(since, schedule.minute());
    let slot = schedule.counts_from.map_or(slot, |from| from.max(slot));
    Some(slot + BACKUP_LATE_AFTER)
}

/// Whether a usable instance has a proved backup that is new enough. Without a schedule nobody promises one.
pub fn freshness(now: DateTime<Utc>, watch: &BackupWatch) -> Freshness {
    let (Some(within), Some(schedule)) = (watch.proved_within, &watch.schedule) else {
        return Freshness::Fresh;
    };
    // Users that chose another hour wait for it once.
    let moved = |at: DateTime<Utc>| now < at + BACKUP_LATE_AFTER;
    match schedule.counts_from.is_some_and(moved) {
        true => Freshness::Fresh,
        false => {
            let newest = watch.newest_proved.max(watch.newest_excused);
            Freshness::at(now, newest, watch.ready_at, within)
        }
    }
}

/// A scheduled backup that is late, or one that is proved.
fn of_backups(now: DateTime<Utc>, watch: &BackupWatch) -> Option<Alert> {
    of_schedule(now, watch).or_else(|| of_proofs(now, watch))
}

/// Backups that come and are not proved.
fn of_proofs(now: DateTime<Utc>, watch: &BackupWatch) -> Option<Alert> {
    let within = watch.proved_within?;
    let hours = within.num_hours();
    let (gravity, since, what) = match (freshness(now, watch), watch.newest_proved) {
        (Freshness::Fresh, _) => return None,
        (Freshness::Late, Some(at)) => (
            Gravity::Warning,
            at,
            format!(
                "the newest proved backup is of {}, and may be {hours} hours old",
                Moment(at)
            ),
        ),
        (_, Some(at)) => (
            Gravity::Critical,
            at,
            format!(
                "the newest proved backup is of {}, more than twice as old as the {hours} hours that it may be",
                Moment(at)
            ),
        ),
        (_, None) => (
            Gravity::Critical,
            watch.ready_at,
            format!(
                "no backup was proved since the instance was made, {}, and one should be within {hours} hours",
                Moment(watch.ready_at)
            ),
        ),
    };
    let doubt = match &watch.doubt {
        Some(doubt) => format!(" Of the newest backup: {doubt}."),
        None => String::new(),
    };
    let message = format!(
        "Backups are not proved in time: {what}.{doubt} The broker goes on trying. Tell the operator, who finds the \
         reason in the operations of the kind proof."
    );
    Some(Alert {
        subject: Subject::Backup,
        gravity,
        member: None,
        since: Some(since + within),
        message,
    })
}

/// A scheduled backup that is late, or is about to be.
fn of_schedule(now: DateTime<Utc>, watch: &BackupWatch) -> Option<Alert> {
    let failures = watch.schedule.as_ref()?.failures;
    let failed = match failures {
        0 => String::new(),
        1 => " The last try failed.".to_owned(),
        more => format!(" The last {more} tries failed."),
    };
    let late_at = backup_late_at(watch)?;
    let (gravity, message) = if now >= late_at {
        let newest = match watch.newest_good {
            Some(at) => format!("the newest good one is of {}", Moment(at)),
            None => format!(
                "there is none since the instance was made, {}",
                Moment(watch.ready_at)
            ),
        };
        let advice = match failures {
            0 => "Back it up by hand, and tell the operator.",
            _ => "The failed backups say why. Back it up by hand when that is mended.",
        };
        let late = format!("The scheduled backup is late: {newest}.{failed} {advice}");
        (Gravity::Critical, late)
    } else if failures >= BACKUP_FAILURES_TELLING {
        let failing =
            format!("The scheduled backup does not succeed.{failed} The failed backups say why.");
        (Gravity::Warning, failing)
    } else {
        return None;
    };
    Some(Alert {
        subject: Subject::Backup,
        gravity,
        member: None,
        since: Some(late_at).filter(|at| *at <= now),
        message,
    })
}

/// A backup that was restored aside, and was not what its manifest says.
fn of_flawed(watch: &BackupWatch) -> Option<Alert> {
    let FlawedBackup {
        taken_at,
        flaw,
        count,
    } = watch.flawed.as_ref()?;
    let more = match count {
        0 | 1 => String::new(),
        count => format!(" Of its backups {count} are so."),
    };
    let proved = match watch.newest_proved {
        Some(at) => format!(
            "The newest one that was proved is of {}, and is kept.",
            Moment(at)
        ),
        None => "None was proved so far.".to_owned(),
    };
    let (taken, reason) = (Moment(*taken_at), &flaw.reason);
    let found = match flaw.version {
        Some(version) => {
            format!("was restored into {version} to be proved, and is not what its manifest says")
        }
        None => "was read again, and its bytes are not what was stored".to_owned(),
    };
    let message = format!(
        "The backup of {taken} {found}: {reason}.{more} Do not rely on it: back the database up by hand, and tell the operator. {proved}"
    );
    Some(Alert {
        subject: Subject::Proof,
        gravity: Gravity::Critical,
        member: None,
        since: Some(flaw.at),
        message,
    })
}

/// Backups that should have been copied into the mirror long ago.
fn of_mirror(now: DateTime<Utc>, watch: &BackupWatch) -> Option<Alert> {
    let unmirrored = watch.unmirrored.as_ref().filter(|of| of.is_late(now))?;
    Some(Alert {
        since: Some(unmirrored.since),
        ..of_all(Subject::Mirror, Gravity::Warning, unmirrored.message())
    })
}

#[cfg(test)]
pub(super) mod tests;
