//! The calendar of backups, as a page shows it: what stands on which day, and what goes when.

use std::collections::BTreeSet;

use chrono::{DateTime, Datelike, Utc};

use super::show::counted;
use crate::model::{
    backup::Backup,
    calendar::{self, calendar, instead_of_daily},
    ids::BackupId,
    period::BackupKind,
    retention::Rules,
};

/// The days of a week as a table's head has them: short, and whole for those who hear them.
const WEEKDAYS: [(&str, &str); calendar::DAYS_OF_A_WEEK] = [
    ("Mon", "Monday"),
    ("Tue", "Tuesday"),
    ("Wed", "Wednesday"),
    ("Thu", "Thursday"),
    ("Fri", "Friday"),
    ("Sat", "Saturday"),
    ("Sun", "Sunday"),
];

/// What people call a kind of backup.
pub fn title(kind: BackupKind) -> &'static str {
    match kind {
        BackupKind::OnDemand => "On demand",
        BackupKind::Safety => "Safety",
        BackupKind::Final => "Final",
        BackupKind::Imported => "Imported",
        BackupKind::Daily => "Daily",
        BackupKind::Weekly => "Weekly",
        BackupKind::Monthly => "Monthly",
    }
}

/// The same where there is little room.
fn letter(kind: BackupKind) -> &'static str {
    match kind {
        BackupKind::OnDemand => "O",
        BackupKind::Safety => "S",
        BackupKind::Final => "F",
        BackupKind::Imported => "I",
        BackupKind::Daily => "D",
        BackupKind::Weekly => "W",
        BackupKind::Monthly => "M",
    }
}

/// A calendar for a page.
pub struct Shown {
    /// The head of each month.
    pub weekdays: [(&'static str, &'static str); calendar::DAYS_OF_A_WEEK],
    /// What the letters stand for.
    pub letters: String,
    pub months: Vec<Month>,
    /// What goes on no day of its own: when, and what.
    pub otherwise: Vec<(&'static str, String)>,
}

pub struct Month {
    /// As `2026-11`.
    pub id: String,
    /// As `November 2026`.
    pub name: String,
    pub weeks: Vec<Vec<Option<Day>>>,
}

pub struct Day {
    /// As `2026-11-21`.
    pub date: String,
    pub number: u32,
    pub is_today: bool,
    pub stands: Vec<Mark>,
    pub goes: Vec<Mark>,
}

/// A backup on a day.
pub struct Mark {
    pub word: &'static str,
    pub letter: &'static str,
    /// The time of day at which it was asked for, as `05:04`.
    pub time: String,
    /// The day on which it was asked for, as `21 Nov`.
    pub day: String,
    /// The row of it, where that is on the page.
    pub row: Option<BackupId>,
}

/// The calendar of an instance's backups; none where there is nothing to tell. `rows`: those that have a
/// row on the page.
pub fn shown(
    backups: &[Backup],
    rules: Rules,
    now: DateTime<Utc>,
    rows: &BTreeSet<&BackupId>,
) -> Option<Shown> {
    let of = calendar(backups, rules, now);
    if of.months.is_empty() {
        return None;
    }
    let today = now.date_naive();
    let marks = |of: &[&Backup]| of.iter().map(|backup| mark(backup, rows)).collect();
    let day = |day: &calendar::Day<'_>| Day {
        date: day.date.to_string(),
        number: day.date.day(),
        is_today: day.date == today,
        stands: marks(&day.stands),
        goes: marks(&day.goes),
    };
    let month = |month: &calendar::Month<'_>| Month {
        id: month.first.format("%Y-%m").to_string(),
        name: month.first.format("%B %Y").to_string(),
        weeks: month
            .weeks
            .iter()
            .map(|week| week.iter().map(|of| of.as_ref().map(day)).collect())
            .collect(),
    };
    let otherwise = of.otherwise().into_iter().filter(|(_, of)| !of.is_empty());
    Some(Shown {
        weekdays: WEEKDAYS,
        letters: letters(backups),
        months: of.months.iter().map(month).collect(),
        otherwise: otherwise.map(|(when, of)| (when, named(of))).collect(),
    })
}

fn mark(backup: &Backup, rows: &BTreeSet<&BackupId>) -> Mark {
    Mark {
        word: title(backup.kind),
        letter: letter(backup.kind),
        time: backup.created_at.format("%H:%M").to_string(),
        day: backup.created_at.format("%-d %b").to_string(),
        row: rows.contains(&backup.id).then(|| backup.id.clone()),
    }
}

/// The kinds that there are, each with its letter.
fn letters(backups: &[Backup]) -> String {
    let is_there = |kind: &BackupKind| backups.iter().any(|backup| backup.kind == *kind);
    let kinds = BackupKind::ALL.into_iter().filter(is_there);
    let told = kinds.map(|kind| format!("{} {}", letter(kind), title(kind).to_lowercase()));
    told.collect::<Vec<_>>().join(", ")
}

fn named(backups: &[&Backup]) -> String {
    let name = |b: &&Backup| {
        let kind = title(b.kind).to_lowercase();
        format!("{kind} of {}", b.created_at.format("%-d %b, %H:%M"))
    };
    backups.iter().map(name).collect::<Vec<_>>().join("; ")
}

/// Why there are fewer daily backups than days for which they are kept; none where there are not.
pub fn where_daily_ones_are(
    backups: &[Backup],
    rules: Rules,
    now: DateTime<Utc>,
) -> Option<String> {
    let days = counted(rules.timetable.days_kept(), "day");
    let parts: Vec<String> = match instead_of_daily(backups, rules, now) {
        (0, 0) => return None,
        (weekly, monthly) => [(weekly, "weekly"), (monthly, "monthly")]
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, kind)| {
                let verb = if count == 1 { "counts" } else { "count" };
                format!("{count} {verb} as {kind}")
            })
            .collect(),
    };
    Some(format!(
        "Each day has one scheduled backup. Of those of the last {days}, {}.",
        parts.join(" and ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_letter_of_its_own() {
        let letters: BTreeSet<&str> = BackupKind::ALL.into_iter().map(letter).collect();
        assert_eq!(letters.len(), BackupKind::ALL.len());
    }
}
