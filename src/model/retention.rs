//! Which backups are kept: a verdict with its reason for each, by pure decision.
//!
//! A backup that its users keep stays. Of the others, scheduled backups go by age, on-demand and imported
//! ones by number, those of before upgrades by both. No kind displaces another. The newest good backup of an
//! instance never goes by age alone, its newest proved backup goes neither by age nor by number, and nothing
//! that is not good displaces anything: nor does what a proof found to be flawed. Imported ones are no
//! backups of the instance in this: what it held itself is never given up for them.
//!
//! What goes by age goes in two steps: it is marked with the reason and the date, and its bytes go when a
//! grace is over, unless the reason is gone by then. Only so many of an instance are marked at a time,
//! so that no mistake about ages takes them all. What gives way to a newer one goes at once: no clock
//! decides that.

use std::cmp::Reverse;

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    backup::{Backup, BackupState, Removal},
    ids::BackupId,
    limits::{
        BACKUP_HISTORY_KEPT, REMOVED_BY_AGE_AT_ONCE, SAFETY_BACKUPS_MAX, SAFETY_KEPT,
        upload::IMPORTED_BACKUPS_MAX,
    },
    period::BackupKind,
    proof::Standing,
    timetable::Timetable,
};

/// How many backups of an instance are kept, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Successful on-demand backups.
    pub on_demand_kept: u32,
    /// What its users chose, within the bounds of its plan.
    pub timetable: Timetable,
}

/// What becomes of one backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The backup.
    pub backup: BackupId,
    /// Whether it is kept.
    pub keep: bool,
    /// Why.
    pub reason: &'static str,
}

/// What is to be done about a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It is told why and when it goes.
    Mark(BackupId, Removal),
    /// What it was marked for is no more.
    Unmark(BackupId),
    /// It goes.
    Remove(BackupId),
}

/// When the age of a good backup is reached; none for what does not go by age. It may be
/// kept beyond that: as the newest good one, and until the next backup of its instance ends.
pub fn expires_at(backup: &Backup, timetable: &Timetable) -> Option<DateTime<Utc>> {
    if backup.state != BackupState::Complete {
        return None;
    }
    end_by_age(backup.kind, backup.taken_at(), timetable)
}

/// When a good backup of that kind that was taken then is old enough to go; none for what does not go by age.
pub fn end_by_age(
    kind: BackupKind,
    taken_at: DateTime<Utc>,
    timetable: &Timetable,
) -> Option<DateTime<Utc>> {
    match kind {
        BackupKind::OnDemand | BackupKind::Imported | BackupKind::Final => None,
        BackupKind::Safety => Some(taken_at + SAFETY_KEPT),
        BackupKind::Daily => Some(timetable.end_of_daily(taken_at)),
        BackupKind::Weekly => Some(timetable.end_of_weekly(taken_at)),
        BackupKind::Monthly => Some(timetable.end_of_monthly(taken_at)),
    }
}

/// Decides about the backups of one instance. Whatever is unfinished or failed has nothing to
/// remove and displaces nothing.
pub fn verdicts(backups: &[Backup], rules: Rules, now: DateTime<Utc>) -> Vec<Verdict> {
    let good = newest_first(backups.iter().filter(|b| b.state == BackupState::Complete));
    let is_sound = |b: &&&Backup| b.proof.standing() != Standing::Flawed;
    let own: Vec<&Backup> = good.iter().copied().filter(|b| b.kind.is_own()).collect();
    let newest_good = own.iter().find(is_sound).or(own.first()).map(|b| &b.id);
    // Where backups are sealed for a key of the tenant's by now, none that is newer will ever be proved: it would stay
    // for good, open to the broker.
    let proved =
        |b: &&&Backup| b.proof.standing() == Standing::Proved || !b.is_provable() && is_sound(b);
    let newest_proved = own.iter().find(proved).map(|b| &b.id);
    // What users keep takes no place of what is kept anyway, nor does what is flawed. That one stays among
    // those that it came with: a proof may be wrong about it.
    let newest_of = |kind: BackupKind, number: usize| -> Vec<&BackupId> {
        let of_kind = good.iter().filter(|b| b.kind == kind && !b.pinned);
        let recent = of_kind.clone().take(number);
        let sound = of_kind.filter(is_sound).take(number);
        recent.chain(sound).map(|b| &b.id).collect()
    };
    let newest_on_demand = newest_of(BackupKind::OnDemand, rules.on_demand_kept as usize);
    let newest_imported = newest_of(BackupKind::Imported, IMPORTED_BACKUPS_MAX);
    let newest_safety = newest_of(BackupKind::Safety, SAFETY_BACKUPS_MAX);
    let verdict = |backup: &Backup| match (backup.state, expires_at(backup, &rules.timetable)) {
        (BackupState::Complete, _) if backup.pinned => (true, "its users keep it"),
        (BackupState::Complete, _) if newest_proved == Some(&backup.id) => {
            match backup.is_provable() {
                true => (true, "the newest proved backup"),
                false => (true, "the newest good backup"),
            }
        }
        (BackupState::Complete, _) if backup.kind == BackupKind::Final => {
            (true, "the last one before its deletion")
        }
        (BackupState::Complete, _) if backup.kind == BackupKind::Imported => {
            match newest_imported.contains(&&backup.id) {
                true => (true, "among the most recent imported backups"),
                false => (false, "newer backups were imported"),
            }
        }
        (BackupState::Complete, None) if newest_on_demand.contains(&&backup.id) => {
            (true, "among the most recent successful on-demand backups")
        }
        (BackupState::Complete, None) => (false, "a newer on-demand backup succeeded"),
        (BackupState::Complete, _)
            if backup.kind == BackupKind::Safety && !newest_safety.contains(&&backup.id) =>
        {
            (false, "newer backups of before upgrades succeeded")
        }
        (BackupState::Complete, Some(end)) if now < end => (true, "not old enough to go"),
        (BackupState::Complete, Some(_)) if newest_good == Some(&backup.id) => {
            (true, "the newest good backup")
        }
        (BackupState::Complete, Some(_)) => (false, "old enough to go"),
        _ => (true, "holds no bytes"),
    };
    backups
        .iter()
        .map(|backup| {
            let (keep, reason) = verdict(backup);
            Verdict {
                backup: backup.id.clone(),
                keep,
                reason,
            }
        })
        .collect()
}

/// What is to be done about the backups of one instance, the oldest in front. `grace` lies between
/// mark and end.
pub fn decisions(
    backups: &[Backup],
    rules: Rules,
    now: DateTime<Utc>,
    grace: TimeDelta,
) -> Vec<Decision> {
    let verdicts = verdicts(backups, rules, now);
    let mut judged: Vec<(&Backup, Verdict)> = backups.iter().zip(verdicts).collect();
    judged.sort_by_key(|(backup, _)| backup.order());
    let is_marked = |(backup, verdict): &&(&Backup, Verdict)| {
        !verdict.keep && backup.removal.is_some() && backup.state == BackupState::Complete
    };
    let mut places = REMOVED_BY_AGE_AT_ONCE.saturating_sub(judged.iter().filter(is_marked).count());
    let mut decisions = Vec::new();
    for (backup, verdict) in judged {
        let id = backup.id.clone();
        let goes_by_age = expires_at(backup, &rules.timetable).is_some_and(|end| end <= now);
        match &backup.removal {
            _ if backup.state != BackupState::Complete => {}
            Some(_) if verdict.keep => decisions.push(Decision::Unmark(id)),
            None if verdict.keep => {}
            _ if !goes_by_age => decisions.push(Decision::Remove(id)),
            Some(removal) if removal.at <= now => decisions.push(Decision::Remove(id)),
            // The grace has become shorter, or the clock was ahead.
            Some(removal) if removal.at > now + grace => {
                decisions.push(Decision::Mark(
                    id,
                    removal_after(verdict.reason, now + grace),
                ));
            }
            Some(_) => {}
            None if places == 0 => {}
            None => {
                places -= 1;
                decisions.push(if grace.is_zero() {
                    Decision::Remove(id)
                } else {
                    Decision::Mark(id, removal_after(verdict.reason, now + grace))
                });
            }
        }
    }
    decisions
}

fn removal_after(reason: &str, at: DateTime<Utc>) -> Removal {
    Removal {
        reason: reason.to_owned(),
        at,
    }
}

fn newest_first<'a>(backups: impl Iterator<Item = &'a Backup>) -> Vec<&'a Backup> {
    let mut backups: Vec<&Backup> = backups.collect();
    backups.sort_by_key(|b| Reverse(b.order()));
    backups
}

/// What took the place of a backup that was removed, of those of which only so many are kept: the newest
/// of its kind that is there.
pub fn displaced_by<'a>(removed: &Backup, backups: &'a [Backup]) -> Option<&'a Backup> {
    let fewest = match removed.kind {
        BackupKind::OnDemand => 1,
        BackupKind::Safety => SAFETY_BACKUPS_MAX,
        BackupKind::Imported => IMPORTED_BACKUPS_MAX,
        BackupKind::Final | BackupKind::Daily | BackupKind::Weekly | BackupKind::Monthly => {
            return None;
        }
    };
    let good = newest_first(backups.iter().filter(|b| b.state == BackupState::Complete));
    let newer = |b: &&Backup| b.kind == removed.kind && !b.pinned && b.order() > removed.order();
    let newer: Vec<&Backup> = good.into_iter().filter(newer).collect();
    newer.first().copied().filter(|_| newer.len() >= fewest)
}

/// Those that go when one more on-demand backup is complete, newest first: usually one, more where the
/// plan has come to keep fewer.
pub fn replaced_by_next(backups: &[Backup], on_demand_kept: u32) -> Vec<&Backup> {
    let is_counted = |b: &&Backup| {
        b.state == BackupState::Complete && b.kind == BackupKind::OnDemand && !b.pinned
    };
    let counted = newest_first(backups.iter().filter(is_counted));
    let stay = (on_demand_kept as usize).saturating_sub(1);
    counted.into_iter().skip(stay).collect()
}

/// How many more of a kind of which only so many are `kept` must be complete until this one of it goes. Those that are
/// pinned do not count.
pub fn goes_after(backup: &Backup, backups: &[Backup], kept: usize) -> usize {
    let is_newer = |b: &&Backup| {
        b.kind == backup.kind
            && b.state == BackupState::Complete
            && !b.pinned
            && b.order() > backup.order()
    };
    let newer = backups.iter().filter(is_newer).count();
    kept.saturating_sub(newer).max(1)
}

/// Whether the row of a backup that holds no bytes is forgotten: it failed, or was removed, long
/// enough ago.
pub fn is_history(backup: &Backup, now: DateTime<Utc>) -> bool {
    let over = matches!(backup.state, BackupState::Failed | BackupState::Expired);
    let ended = backup.finished_at.unwrap_or(backup.created_at);
    over && backup.manifest.is_none() && ended + BACKUP_HISTORY_KEPT <= now
}

#[cfg(test)]
mod tests;
