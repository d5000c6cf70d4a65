//! What users choose of the schedule of their backups, within the bounds of their plan: the hour of the
//! day, the day of the week, how long each kind is kept. What they do not choose is as the schedule of
//! the original has it.

use chrono::{DateTime, Months, TimeDelta, Utc, Weekday};
use serde::{Deserialize, Serialize};

use super::{
    ids::InstanceId,
    limits::{DAILY_KEPT, MONTHLY_KEPT, WEEKLY_KEPT},
    parameters::UpdateParameters,
};

/// Minutes of an hour.
const HOUR: u32 = 60;
/// Hours of a day.
const HOURS: u32 = 24;

/// The minute of the day, from 0 to 1439, at which an instance is backed up: the 64-bit FNV-1a hash
/// of its id modulo 1440. It never changes, is the same in every process, and spreads instances over
/// the day however their ids are made.
pub fn minute_of_day(instance: &InstanceId) -> u32 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let hash = instance.as_str().bytes().fold(BASIS, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(PRIME)
    });
    u32::try_from(hash % u64::from(HOURS * HOUR)).unwrap_or_default()
}

/// The days of a week by the names that users write.
pub const WEEKDAYS: [(Weekday, &str); 7] = [
    (Weekday::Mon, "monday"),
    (Weekday::Tue, "tuesday"),
    (Weekday::Wed, "wednesday"),
    (Weekday::Thu, "thursday"),
    (Weekday::Fri, "friday"),
    (Weekday::Sat, "saturday"),
    (Weekday::Sun, "sunday"),
];

/// The name of a day of the week.
pub fn name_of(weekday: Weekday) -> &'static str {
    let found = WEEKDAYS.iter().find(|(day, _)| *day == weekday);
    found.map_or("", |(_, name)| name)
}

/// What a user chose; none of each: as the schedule of the original has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timetable {
    /// The hour of the day at which backups are taken, in UTC.
    pub hour: Option<u32>,
    /// The day of the week from which on a week's backup is taken.
    pub weekday: Option<Weekday>,
    /// How many days a daily backup is kept.
    pub days: Option<u32>,
    /// How many weeks a weekly backup is kept.
    pub weeks: Option<u32>,
    /// How many months a monthly backup is kept.
    pub months: Option<u32>,
}

/// How much of the schedule users of a plan may choose: the hour, the day of the week, and to keep
/// backups as long as this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TimetableBounds {
    /// The most days that a daily backup is kept.
    #[serde(default = "days_by_default")]
    pub daily_kept_max: u32,
    /// The most weeks that a weekly backup is kept.
    #[serde(default = "weeks_by_default")]
    pub weekly_kept_max: u32,
    /// The most months that a monthly backup is kept.
    #[serde(default = "months_by_default")]
    pub monthly_kept_max: u32,
}

fn whole(count: i64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn days_by_default() -> u32 {
    whole(DAILY_KEPT.num_days())
}

fn weeks_by_default() -> u32 {
    whole(WEEKLY_KEPT.num_weeks())
}

fn months_by_default() -> u32 {
    MONTHLY_KEPT.as_u32()
}

/// Why a schedule cannot be as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimetableError {
    /// The plan lets nobody choose.
    #[error("the schedule of backups is fixed in this plan")]
    Fixed,
    /// No hour.
    #[error("backup_hour is {0}; it is an hour of the day in UTC, from 0 to 23")]
    Hour(u32),
    /// No day.
    #[error("backup_weekday is {0:?}; it is the name of a day, such as sunday")]
    Weekday(String),
    /// Kept too short or too long.
    #[error("{name} is {asked}; in this plan it is from 1 to {most}")]
    Kept {
        /// The parameter.
        name: &'static str,
        /// What was asked for.
        asked: u32,
        /// The bound.
        most: u32,
    },
}

impl Timetable {
    /// The minute of the day at which an instance is backed up: its own, of the hour that was chosen.
    pub fn minute(&self, instance: &InstanceId) -> u32 {
        let own = minute_of_day(instance);
        self.hour.map_or(own, |hour| hour * HOUR + own % HOUR)
    }

    /// How many days a daily backup is kept.
    pub fn days_kept(&self) -> u32 {
        self.days.unwrap_or_else(days_by_default)
    }

    /// How many weeks a weekly backup is kept.
    pub fn weeks_kept(&self) -> u32 {
        self.weeks.unwrap_or_else(weeks_by_default)
    }

    /// How many months a monthly backup is kept.
    pub fn months_kept(&self) -> u32 {
        self.months.unwrap_or_else(months_by_default)
    }

    /// When a daily backup of that moment is old enough to go.
    pub fn end_of_daily(&self, taken_at: DateTime<Utc>) -> DateTime<Utc> {
        taken_at + TimeDelta::days(self.days_kept().into())
    }

    /// When a weekly backup of that moment is old enough to go.
    pub fn end_of_weekly(&self, taken_at: DateTime<Utc>) -> DateTime<Utc> {
        taken_at + TimeDelta::weeks(self.weeks_kept().into())
    }

    /// When a monthly backup of that moment is old enough to go.
    pub fn end_of_monthly(&self, taken_at: DateTime<Utc>) -> DateTime<Utc> {
        taken_at + Months::new(self.months_kept())
    }

    /// The same within the bounds of a plan; none: it lets nobody choose how long backups are kept.
    #[must_use]
    pub fn within(self, bounds: Option<TimetableBounds>) -> Self {
        let kept = |chosen: Option<u32>, most: fn(TimetableBounds) -> u32| {
            Some(chosen?.min(most(bounds?)))
        };
        Self {
            days: kept(self.days, |of| of.daily_kept_max),
            weeks: kept(self.weeks, |of| of.weekly_kept_max),
            months: kept(self.months, |of| of.monthly_kept_max),
            ..self
        }
    }

    /// What it becomes by an update: what that does not name stays, and what it names as `null` is as
    /// the schedule of the original has it.
    pub fn changed(
        self,
        asked: &UpdateParameters,
        bounds: Option<TimetableBounds>,
    ) -> Result<Self, TimetableError> {
        if !asked.asks_for_schedule() {
            return Ok(self);
        }
        let bounds = bounds.ok_or(TimetableError::Fixed)?;
        let hour = asked.backup_hour.unwrap_or(self.hour);
        if let Some(hour) = hour.filter(|hour| *hour >= HOURS) {
            return Err(TimetableError::Hour(hour));
        }
        let weekday = match &asked.backup_weekday {
            None => self.weekday,
            Some(None) => None,
            Some(Some(name)) => {
                let found = WEEKDAYS.iter().find(|(_, known)| known == name);
                let no_day = || TimetableError::Weekday(name.clone());
                Some(found.ok_or_else(no_day)?.0)
            }
        };
        let kept = |name, asked: Option<Option<u32>>, now: Option<u32>, most: u32| match asked {
            None => Ok(now),
            Some(Some(asked)) if !(1..=most).contains(&asked) => {
                Err(TimetableError::Kept { name, asked, most })
            }
            Some(asked) => Ok(asked),
        };
        Ok(Self {
            hour,
            weekday,
            days: kept(
                "daily_backups_kept",
                asked.daily_backups_kept,
                self.days,
                bounds.daily_kept_max,
            )?,
            weeks: kept(
                "weekly_backups_kept",
                asked.weekly_backups_kept,
                self.weeks,
                bounds.weekly_kept_max,
            )?,
            months: kept(
                "monthly_backups_kept",
                asked.monthly_backups_kept,
                self.months,
                bounds.monthly_kept_max,
            )?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const BOUNDS: TimetableBounds = TimetableBounds {
        daily_kept_max: 14,
        weekly_kept_max: 8,
        monthly_kept_max: 12,
    };

    fn asked(value: serde_json::Value) -> UpdateParameters {
        serde_json::from_value(value).expect("parameters")
    }

    #[test]
    fn what_is_not_named_stays_and_null_takes_back() {
        let first =
            json!({ "backup_hour": 3, "backup_weekday": "sunday", "daily_backups_kept": 14 });
        let first = Timetable::default().changed(&asked(first), Some(BOUNDS));
        let first = first.expect("within bounds");
        assert_eq!(first.hour, Some(3));
        assert_eq!(first.weekday, Some(Weekday::Sun));
        assert_eq!(
            (first.days_kept(), first.weeks_kept(), first.months_kept()),
            (14, 4, 3)
        );
        let second = json!({ "backup_hour": null, "weekly_backups_kept": 1, "units": 2 });
        let second = first
            .changed(&asked(second), Some(BOUNDS))
            .expect("within bounds");
        let expected = Timetable {
            hour: None,
            weeks: Some(1),
            ..first
        };
        assert_eq!(second, expected);
        // A plan that came to allow less bounds what was chosen before.
        let less = TimetableBounds {
            daily_kept_max: 10,
            ..BOUNDS
        };
        assert_eq!(first.within(Some(less)).days_kept(), 10);
        assert_eq!(first.within(None).days_kept(), 7);
    }

    #[test]
    fn what_is_out_of_bounds_is_refused_by_name() {
        let kept = |name, asked, most| TimetableError::Kept { name, asked, most };
        for (wanted, error) in [
            (json!({ "backup_hour": 24 }), TimetableError::Hour(24)),
            (
                json!({ "backup_weekday": "Sun" }),
                TimetableError::Weekday("Sun".to_owned()),
            ),
            (
                json!({ "daily_backups_kept": 15 }),
                kept("daily_backups_kept", 15, 14),
            ),
            (
                json!({ "weekly_backups_kept": 0 }),
                kept("weekly_backups_kept", 0, 8),
            ),
            (
                json!({ "monthly_backups_kept": 13 }),
                kept("monthly_backups_kept", 13, 12),
            ),
        ] {
            let refused = Timetable::default().changed(&asked(wanted), Some(BOUNDS));
            assert_eq!(refused, Err(error));
        }
        let wanted = asked(json!({ "backup_hour": null }));
        let refused = Timetable::default().changed(&wanted, None);
        assert_eq!(refused, Err(TimetableError::Fixed));
        let nothing = Timetable::default().changed(&asked(json!({ "units": 2 })), None);
        assert_eq!(nothing, Ok(Timetable::default()));
    }

    proptest! {
        #[test]
        fn the_hour_is_kept_and_each_instance_has_its_own_minute_of_it(
            id in "[a-z0-9-]{1,40}", hour in 0u32..24,
        ) {
            let id: InstanceId = id.parse().expect("an id");
            let chosen = Timetable { hour: Some(hour), ..Timetable::default() };
            let minute = chosen.minute(&id);
            prop_assert_eq!(minute / 60, hour);
            prop_assert_eq!(minute % 60, minute_of_day(&id) % 60);
            prop_assert_eq!(Timetable::default().minute(&id), minute_of_day(&id));
        }
    }
}
