//! A hundred days in less than a minute: backups that nobody asks for.
//!
//! The broker's clock begins that far behind and is put forward day by day. What is listed at the
//! end is compared with the retention, which is written down here once more.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use chrono::{DateTime, Datelike as _, Days, Months, NaiveDate, TimeDelta, Utc};
use tokio::time::sleep;

use crate::{
    administration::{Administration, Backup},
    broker::Broker,
    error::{Context, Result, ensure},
    show::Step,
};

/// Days that pass, with a backup each.
pub const DAYS: u32 = 100;
/// How far behind the clock begins, in days: a new instance is left alone for its first hour, so the
/// first backup may come a day later.
pub const BEGINS_BEHIND: u32 = DAYS + 1;
/// Pause between two looks at the list. A look soon after a backup's end finds the broker awake: it
/// removes old ones then.
const POLL: Duration = Duration::from_millis(15);
/// Longest time that one day may take here.
const DAY_LIMIT: Duration = Duration::from_secs(60);

/// A scheduled backup as it was listed.
#[derive(Clone, PartialEq)]
struct Seen {
    id: String,
    kind: String,
    period: String,
    requested_at: DateTime<Utc>,
}

impl Seen {
    /// A backup as it is listed; none for what a user asked for.
    fn of(backup: &Backup) -> Result<Option<Self>> {
        let Some(period) = backup.period.clone() else {
            return Ok(None);
        };
        let requested_at = backup.requested_at.parse().context("reading a time")?;
        Ok(Some(Self {
            id: backup.id.clone(),
            kind: backup.kind.clone(),
            period,
            requested_at,
        }))
    }

    /// Whether it is kept when the clock says `now`.
    fn is_kept(&self, now: DateTime<Utc>) -> bool {
        let taken = self.requested_at;
        match self.kind.as_str() {
            "daily" => now < taken + TimeDelta::days(7),
            "weekly" => now < taken + TimeDelta::weeks(4),
            _ => now < taken + Months::new(3),
        }
    }
}

/// Lets the days pass; tells what is left.
pub async fn pass(broker: &Broker, api: &Administration, step: &Step) -> Result<String> {
    let mut all: Vec<Seen> = Vec::new();
    for day in 1..=DAYS {
        broker.set_clock_behind(DAYS - day)?;
        wait_for_a_backup(api, &mut all).await?;
        step.at(day.into(), DAYS.into());
        if day % 25 == 0 {
            step.say(&format!("{day} days"));
        }
    }
    check_periods(&all)?;
    let now = all.last().map(|last| last.requested_at);
    let now = now.ok_or("there was no backup")?;
    let expected: Vec<Seen> = all.iter().filter(|b| b.is_kept(now)).cloned().collect();
    compare(api, &expected).await?;
    let count = |kind| expected.iter().filter(|b| b.kind == kind).count();
    Ok(format!(
        "{} taken by themselves; kept: {} daily, {} weekly, {} monthly, and the one on demand",
        all.len(),
        count("daily"),
        count("weekly"),
        count("monthly"),
    ))
}

/// Waits for a further complete backup, and writes down what was not seen before.
async fn wait_for_a_backup(api: &Administration, all: &mut Vec<Seen>) -> Result<()> {
    let deadline = Instant::now() + DAY_LIMIT;
    let before = all.len();
    while all.len() == before {
        ensure(Instant::now() < deadline, || {
            "there was no backup of that day".to_owned()
        })?;
        // Oldest first.
        for backup in api.backups().await?.iter().rev() {
            let complete = backup.status == "complete";
            if let Some(seen) = Seen::of(backup)?.filter(|_| complete)
                && !all.contains(&seen)
            {
                all.push(seen);
            }
        }
        if all.len() == before {
            sleep(POLL).await;
        }
    }
    Ok(())
}

/// Each day's backup is the month's if the month has none yet, else the week's, else the day's.
fn check_periods(all: &[Seen]) -> Result<()> {
    let mut daily = (0_u64..).zip(all).filter(|(_, b)| b.kind == "daily");
    let (index, backup) = daily.next().ok_or("there is no daily backup")?;
    let day: NaiveDate = backup.period.parse().context("reading a day")?;
    let first_day = day - Days::new(index);
    let (mut months, mut weeks) = (HashSet::new(), HashSet::new());
    for (index, backup) in (0_u64..).zip(all) {
        let day = first_day + Days::new(index);
        let expected = if months.insert((day.year(), day.month())) {
            ("monthly", day.format("%Y-%m"))
        } else if weeks.insert(day.iso_week()) {
            ("weekly", day.format("%G-W%V"))
        } else {
            ("daily", day.format("%Y-%m-%d"))
        };
        let expected = (expected.0, expected.1.to_string());
        let found = (backup.kind.as_str(), backup.period.clone());
        ensure(found == expected, || {
            format!("the backup of {day} is {found:?}, not {expected:?}")
        })?;
    }
    Ok(())
}

/// Fails unless exactly this is listed beside one on-demand backup. The last old ones may just be
/// going.
async fn compare(api: &Administration, expected: &[Seen]) -> Result<()> {
    let deadline = Instant::now() + DAY_LIMIT;
    loop {
        let listed = api.backups().await?;
        let on_demand = listed.iter().filter(|b| b.kind == "on_demand").count();
        let mut scheduled = Vec::new();
        for backup in listed.iter().rev() {
            scheduled.extend(Seen::of(backup)?);
        }
        if scheduled == expected && on_demand == 1 {
            return Ok(());
        }
        ensure(Instant::now() < deadline, || {
            let periods = |all: &[Seen]| {
                let periods: Vec<&str> = all.iter().map(|b| b.period.as_str()).collect();
                periods.join(", ")
            };
            format!(
                "there are {on_demand} on demand and {}; there should be 1 and {}",
                periods(&scheduled),
                periods(expected)
            )
        })?;
        sleep(POLL).await;
    }
}
