//! Why backups are taken, and what those of the schedule stand for.

use std::{cmp::Ordering, fmt, str::FromStr};

use chrono::{Datelike as _, Days, NaiveDate, Weekday};
use serde::{Deserialize, Serialize};

/// Why a backup was taken; decides how long it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupKind {
    /// A user asked for it.
    OnDemand,
    /// Taken by the broker before it upgrades the instance.
    Safety,
    /// Taken by the broker before it deletes the instance.
    Final,
    /// Taken elsewhere, and brought here by a user. It tells of another database than the instance.
    Imported,
    /// Taken by the schedule, kept as the day's.
    Daily,
    /// Taken by the schedule, kept as the week's.
    Weekly,
    /// Taken by the schedule, kept as the month's.
    Monthly,
}

impl BackupKind {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::OnDemand,
        Self::Safety,
        Self::Final,
        Self::Imported,
        Self::Daily,
        Self::Weekly,
        Self::Monthly,
    ];

    /// The name used in the store, in manifests and by the Compose API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OnDemand => "on_demand",
            Self::Safety => "safety",
            Self::Final => "final",
            Self::Imported => "imported",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
        }
    }

    /// Whether the schedule takes it.
    pub fn is_scheduled(self) -> bool {
        matches!(self, Self::Daily | Self::Weekly | Self::Monthly)
    }

    /// Whether it is of what the instance held at some time: one of these is taken where nobody names one.
    pub fn is_own(self) -> bool {
        self != Self::Imported
    }

    /// The kind of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

impl fmt::Display for BackupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What one scheduled backup stands for: a day, an ISO week or a calendar month. An instance has at
/// most one backup for each that is not failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Period {
    kind: BackupKind,
    first_day: NaiveDate,
}

impl Period {
    /// The periods that `day` belongs to, the one that comes first in front: month, week, day.
    pub fn all_of(day: NaiveDate) -> [Self; 3] {
        let into_week = Days::new(u64::from(day.weekday().num_days_from_monday()));
        let into_month = Days::new(u64::from(day.day0()));
        [
            (BackupKind::Monthly, day - into_month),
            (BackupKind::Weekly, day - into_week),
            (BackupKind::Daily, day),
        ]
        .map(|(kind, first_day)| Self { kind, first_day })
    }

    /// Those of [`Period::all_of`] that a backup of `day` may stand for, where the week's is taken from
    /// `weekday` on. On that very day the week comes before the month, which has the next day.
    pub fn due_on(day: NaiveDate, weekday: Option<Weekday>) -> Vec<Self> {
        let [month, week, own] = Self::all_of(day);
        let Some(weekday) = weekday else {
            return vec![month, week, own];
        };
        let (now, from) = (
            day.weekday().num_days_from_monday(),
            weekday.num_days_from_monday(),
        );
        match now.cmp(&from) {
            Ordering::Less => vec![month, own],
            Ordering::Equal => vec![week, month, own],
            Ordering::Greater => vec![month, week, own],
        }
    }

    /// The kind of backup that stands for it.
    pub fn kind(self) -> BackupKind {
        self.kind
    }
}

impl fmt::Display for Period {
    /// A day is `2026-11-22`, a week `2026-W47`, a month `2026-11`: the text tells the kind.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let form = match self.kind {
            BackupKind::Monthly => "%Y-%m",
            BackupKind::Weekly => "%G-W%V",
            BackupKind::Daily
            | BackupKind::OnDemand
            | BackupKind::Safety
            | BackupKind::Final
            | BackupKind::Imported => "%Y-%m-%d",
        };
        write!(f, "{}", self.first_day.format(form))
    }
}

/// A text is no period.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is no day, week or month")]
pub struct PeriodError;

impl FromStr for Period {
    type Err = PeriodError;

    fn from_str(text: &str) -> Result<Self, PeriodError> {
        let forms = [
            (BackupKind::Daily, text.to_owned(), "%Y-%m-%d"),
            (BackupKind::Weekly, format!("{text}-1"), "%G-W%V-%u"),
            (BackupKind::Monthly, format!("{text}-01"), "%Y-%m-%d"),
        ];
        let read = |(kind, text, form): (_, String, _)| {
            let first_day = NaiveDate::parse_from_str(&text, form).ok()?;
            Some(Self { kind, first_day })
        };
        let found = forms.into_iter().find_map(read).ok_or(PeriodError)?;
        // One text for each: chrono also takes signs, spaces and missing zeros.
        if found.to_string() == text {
            Ok(found)
        } else {
            Err(PeriodError)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn day(text: &str) -> NaiveDate {
        text.parse().expect("a day")
    }

    #[test]
    fn a_day_belongs_to_a_month_a_week_and_itself() {
        for (of, expected) in [
            ("2026-11-22", ["2026-11", "2026-W47", "2026-11-22"]),
            ("2026-11-23", ["2026-11", "2026-W48", "2026-11-23"]),
            ("2028-02-29", ["2028-02", "2028-W09", "2028-02-29"]),
            // Weeks that reach over a new year belong to the year that has more of their days.
            ("2026-12-31", ["2026-12", "2026-W53", "2026-12-31"]),
            ("2027-01-01", ["2027-01", "2026-W53", "2027-01-01"]),
            ("2024-12-30", ["2024-12", "2025-W01", "2024-12-30"]),
        ] {
            let periods = Period::all_of(day(of));
            assert_eq!(periods.map(|p| p.to_string()), expected);
            assert_eq!(
                periods.map(|p| p.to_string().parse::<Period>().expect("a period")),
                periods
            );
            use BackupKind::{Daily, Monthly, Weekly};
            assert_eq!(periods.map(Period::kind), [Monthly, Weekly, Daily]);
        }
        for text in [
            "",
            "2026",
            "2026-13",
            "2026-W54",
            "2027-W53",
            "2026-02-29",
            "2026-1",
            "+2026-11",
        ] {
            assert_eq!(text.parse::<Period>(), Err(PeriodError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn texts_of_periods_are_read_back(days in 0..20_000_u64) {
            let day = day("2000-01-01") + Days::new(days);
            for period in Period::all_of(day) {
                prop_assert_eq!(period.to_string().parse(), Ok(period));
                prop_assert!(Period::all_of(period.first_day).contains(&period));
            }
        }
    }
}
