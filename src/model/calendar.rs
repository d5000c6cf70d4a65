//! A calendar of backups: which ones stand on which day, and which ones go when, by pure arrangement of
//! what [`retention`](super::retention) decides.

use std::collections::BTreeMap;

use chrono::{DateTime, Datelike, Days, NaiveDate, Utc};

use super::{
    backup::{Backup, BackupState},
    period::BackupKind,
    retention::{Rules, expires_at, replaced_by_next},
};

/// The days of a week, Monday in front.
pub const DAYS_OF_A_WEEK: usize = 7;

/// What is kept and what goes when. Each complete backup stands on one day, and goes on one day or
/// otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calendar<'a> {
    /// The months in which anything stands or goes, oldest first.
    pub months: Vec<Month<'a>>,
    /// Those that the next complete on-demand backup takes the place of, newest first.
    pub replaced: Vec<&'a Backup>,
    /// On-demand ones that later on-demand backups take the place of.
    pub later: Vec<&'a Backup>,
    /// Imported ones, which later imported backups take the place of.
    pub imported: Vec<&'a Backup>,
    /// Those that their users keep.
    pub pinned: Vec<&'a Backup>,
    /// Those that are old enough to go and wait for a later backup: above all the newest good one.
    pub awaiting: Vec<&'a Backup>,
}

/// A month of a calendar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Month<'a> {
    /// Its first day.
    pub first: NaiveDate,
    /// Its weeks, Monday in front; none: that day is of the month before or after.
    pub weeks: Vec<[Option<Day<'a>>; DAYS_OF_A_WEEK]>,
}

/// A day of a calendar, in UTC.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Day<'a> {
    /// Its date.
    pub date: NaiveDate,
    /// The backups that were asked for on it and are there.
    pub stands: Vec<&'a Backup>,
    /// The backups that go on it, at the earliest.
    pub goes: Vec<&'a Backup>,
}

/// Arranges the complete ones of an instance's backups, as they would go if no other one came.
pub fn calendar<'a>(backups: &'a [Backup], rules: Rules, now: DateTime<Utc>) -> Calendar<'a> {
    let today = now.date_naive();
    let mut days: BTreeMap<NaiveDate, Day<'a>> = BTreeMap::new();
    // What is marked goes on its day, whatever comes.
    let mut replaced = replaced_by_next(backups, rules.on_demand_kept);
    replaced.retain(|backup| backup.removal.is_none());
    let mut of = Calendar {
        months: Vec::new(),
        replaced,
        later: Vec::new(),
        imported: Vec::new(),
        pinned: Vec::new(),
        awaiting: Vec::new(),
    };
    let complete = |backup: &&Backup| backup.state == BackupState::Complete;
    for backup in backups.iter().filter(complete) {
        let taken = backup.created_at.date_naive();
        day(&mut days, taken).stands.push(backup);
        let marked = backup.removal.as_ref().map(|removal| removal.at);
        let aged = expires_at(backup, &rules.timetable);
        match (marked, aged) {
            _ if backup.pinned => of.pinned.push(backup),
            (Some(end), _) => day(&mut days, end.date_naive().max(today))
                .goes
                .push(backup),
            (None, Some(end)) if end > now => day(&mut days, end.date_naive()).goes.push(backup),
            (None, Some(_)) => of.awaiting.push(backup),
            (None, None) if of.replaced.iter().any(|gone| gone.id == backup.id) => {}
            (None, None) if backup.kind == BackupKind::Imported => of.imported.push(backup),
            (None, None) => of.later.push(backup),
        }
    }
    of.months = months(days);
    of
}

fn day<'a, 'b>(days: &'b mut BTreeMap<NaiveDate, Day<'a>>, date: NaiveDate) -> &'b mut Day<'a> {
    days.entry(date).or_insert_with(|| Day {
        date,
        ..Day::default()
    })
}

fn months(mut days: BTreeMap<NaiveDate, Day<'_>>) -> Vec<Month<'_>> {
    let mut months = Vec::new();
    while let Some((date, _)) = days.first_key_value() {
        let first = date.with_day(1).unwrap_or(*date);
        months.push(month(first, &mut days));
    }
    months
}

/// The month that begins with `first`; takes its days out of `days`.
fn month<'a>(first: NaiveDate, days: &mut BTreeMap<NaiveDate, Day<'a>>) -> Month<'a> {
    let mut weeks: Vec<[Option<Day<'a>>; DAYS_OF_A_WEEK]> = Vec::new();
    let of_month = |date: &NaiveDate| date.month() == first.month();
    let next = |date: &NaiveDate| date.checked_add_days(Days::new(1));
    for date in std::iter::successors(Some(first), next).take_while(of_month) {
        let place = date.weekday().num_days_from_monday() as usize;
        if weeks.is_empty() || place == 0 {
            weeks.push(std::array::from_fn(|_| None));
        }
        let day = days.remove(&date).unwrap_or(Day {
            date,
            ..Day::default()
        });
        if let Some(week) = weeks.last_mut() {
            week[place] = Some(day);
        }
    }
    Month { first, weeks }
}

impl Calendar<'_> {
    /// What goes on no day of its own, in the words that tell when.
    pub fn otherwise(&self) -> [(&'static str, &[&Backup]); 5] {
        [
            ("With the next on-demand backup", &self.replaced),
            ("With later on-demand backups", &self.later),
            ("With later imported backups", &self.imported),
            ("After a newer backup", &self.awaiting),
            ("Kept until you untick “Keep it”", &self.pinned),
        ]
    }
}

/// How many weekly and how many monthly backups the schedule took in the days for which daily ones are
/// kept: each stands in the place of a daily one.
pub fn instead_of_daily(backups: &[Backup], rules: Rules, now: DateTime<Utc>) -> (usize, usize) {
    let count = |kind: BackupKind| {
        let in_place = |b: &&Backup| {
            let taken = b.taken_at();
            b.kind == kind
                && b.state == BackupState::Complete
                && taken <= now
                && rules.timetable.end_of_daily(taken) > now
        };
        backups.iter().filter(in_place).count()
    };
    (count(BackupKind::Weekly), count(BackupKind::Monthly))
}

#[cfg(test)]
mod tests;
