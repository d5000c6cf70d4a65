//! When backups are taken by themselves, and of which kind.
//!
//! Each instance has one *slot* a day, at a minute of its own. What is taken in a slot belongs to
//! the slot's day, however late it is taken: a slot that was missed is made up for until the next
//! one comes, and of several missed ones only the last. A slot's backup is the month's if the month
//! has none yet, else the week's, else the day's; so a week that loses its day to a month has the
//! next one. Users may choose the hour and the day of the week (see [`super::timetable`]); the minute stays
//! the instance's own. All of it is in UTC, and nothing here knows what time it is.

use std::collections::BTreeMap;

use chrono::{DateTime, Days, NaiveDate, TimeDelta, Utc};

use super::{
    backoff::backoff,
    ids::InstanceId,
    limits::{
        SCHEDULE_AHEAD_MAX, SCHEDULE_BEGINS_AFTER, SCHEDULE_RETRY_FIRST, SCHEDULE_RETRY_MAX,
        SCHEDULE_WAITS,
    },
    period::Period,
    timetable::Timetable,
};

pub use super::timetable::minute_of_day;

/// When an instance of that minute is backed up on a day.
pub fn slot_on(day: NaiveDate, minute: u32) -> DateTime<Utc> {
    let midnight = day.and_time(chrono::NaiveTime::MIN).and_utc();
    midnight + TimeDelta::minutes(i64::from(minute))
}

/// The newest slot that has come by `now`.
pub fn slot_at(now: DateTime<Utc>, minute: u32) -> DateTime<Utc> {
    let today = slot_on(now.date_naive(), minute);
    if today <= now {
        today
    } else {
        today - Days::new(1)
    }
}

/// The first slot after `now`.
pub fn slot_after(now: DateTime<Utc>, minute: u32) -> DateTime<Utc> {
    slot_at(now, minute) + Days::new(1)
}

/// When an instance is looked at next. What was taken is not kept here: the backups themselves tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// The instance.
    pub instance: InstanceId,
    /// When it is due: a slot, or the next try in one.
    pub next_at: DateTime<Utc>,
    /// How often the current slot's backup has failed.
    pub failures: u32,
    /// What its users chose.
    pub timetable: Timetable,
    /// The first slot under another hour, before which no backup is late; none: it was always so.
    pub counts_from: Option<DateTime<Utc>>,
}

/// What comes of a look at an instance that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotDecision {
    /// What a backup is taken for now.
    pub take: Option<Period>,
    /// The schedule from then on.
    pub then: Schedule,
}

impl Schedule {
    /// The schedule of an instance that is ready since `now`. It begins a little later: until then
    /// there is hardly anything to back up.
    pub fn begin(instance: InstanceId, now: DateTime<Utc>) -> Self {
        let next_at = slot_after(now + SCHEDULE_BEGINS_AFTER, minute_of_day(&instance));
        Self {
            instance,
            next_at,
            failures: 0,
            timetable: Timetable::default(),
            counts_from: None,
        }
    }

    /// The minute of the day at which the instance is backed up.
    pub fn minute(&self) -> u32 {
        self.timetable.minute(&self.instance)
    }

    /// The same by what users choose now. No day is left out and none comes twice: where today's slot is
    /// still to come and the new one of today is over, today has the old one; where today was served, the
    /// next is tomorrow's.
    #[must_use]
    pub fn with(self, timetable: Timetable, now: DateTime<Utc>) -> Self {
        let (old, new) = (self.minute(), timetable.minute(&self.instance));
        if old == new {
            return Self { timetable, ..self };
        }
        let today = now.date_naive();
        let new = slot_on(today, new);
        let next_at = if self.next_at <= now || self.failures > 0 {
            // It is under way, or waits for its turn.
            self.next_at
        } else if self.next_at.date_naive() > today {
            new + Days::new(1)
        } else if new > now {
            new
        } else {
            self.next_at
        };
        Self {
            next_at,
            timetable,
            counts_from: Some(next_at),
            ..self
        }
    }

    /// The schedule of an instance that was restored by `now`: there is something to back up already. What
    /// is taken belongs to the slot that came last.
    pub fn begin_at_once(instance: InstanceId, now: DateTime<Utc>) -> Self {
        Self {
            next_at: now,
            ..Self::begin(instance, now)
        }
    }

    /// Whether the instance is to be looked at. What is further ahead than any slot was written
    /// under a clock that was set back since.
    pub fn is_due(&self, now: DateTime<Utc>) -> bool {
        self.next_at <= now || self.next_at > now + SCHEDULE_AHEAD_MAX
    }

    /// What the slot that has come by `now` can be taken for, the one that comes first in front.
    pub fn periods(&self, now: DateTime<Utc>) -> Vec<Period> {
        let day = slot_at(now, self.minute()).date_naive();
        Period::due_on(day, self.timetable.weekday)
    }

    /// Decides about an instance that is due. `busy`: a backup of it is being taken already;
    /// `taken`: those of [`Schedule::periods`] that have a backup which is not failed.
    pub fn turn(&self, now: DateTime<Utc>, busy: bool, taken: &[Period]) -> SlotDecision {
        let minute = self.minute();
        let next_slot = slot_after(now, minute);
        let mut then = self.clone();
        if self.next_at <= slot_at(now, minute) {
            // A new slot: what failed before was another one's.
            then.failures = 0;
        }
        if busy {
            then.next_at = (now + SCHEDULE_WAITS).min(next_slot);
            return SlotDecision { take: None, then };
        }
        then.next_at = next_slot;
        let take = self.periods(now).into_iter().find(|p| !taken.contains(p));
        SlotDecision { take, then }
    }

    /// The schedule after a scheduled backup failed: the same is tried again after a pause that
    /// grows, unless the next slot comes first.
    #[must_use]
    pub fn after_failure(mut self, now: DateTime<Utc>) -> Self {
        self.failures = self.failures.saturating_add(1);
        let pause = backoff(self.failures, SCHEDULE_RETRY_FIRST, SCHEDULE_RETRY_MAX);
        let next_slot = slot_after(now, self.minute());
        self.next_at = (now + pause).min(next_slot);
        self
    }

    /// The schedule after a scheduled backup succeeded.
    #[must_use]
    pub fn after_success(self) -> Self {
        Self {
            failures: 0,
            ..self
        }
    }
}

/// Where scheduled backups can begin: so many in all, and so many on each cluster.
#[derive(Debug, Clone)]
pub struct Places {
    in_all: Taken,
    on: BTreeMap<String, Taken>,
}

/// How many places there are, and how many are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Taken {
    most: usize,
    by_all: usize,
    by_schedule: usize,
}

impl Taken {
    fn none_of(most: usize) -> Self {
        Self {
            most,
            by_all: 0,
            by_schedule: 0,
        }
    }

    /// One place is the schedule's own, however many users have taken.
    fn has_more(self) -> bool {
        self.most > 0 && (self.by_all < self.most || self.by_schedule == 0)
    }

    fn take(&mut self, by_schedule: bool) {
        self.by_all += 1;
        self.by_schedule += usize::from(by_schedule);
    }
}

impl Places {
    /// So many in all, and so many on each cluster.
    pub fn new(in_all: usize, on: impl IntoIterator<Item = (String, usize)>) -> Self {
        Self {
            in_all: Taken::none_of(in_all),
            on: on
                .into_iter()
                .map(|(cluster, most)| (cluster, Taken::none_of(most)))
                .collect(),
        }
    }

    /// Whether there is a place on a cluster.
    pub fn are_free(&self, cluster: &str) -> bool {
        self.in_all.has_more() && self.on.get(cluster).is_some_and(|taken| taken.has_more())
    }

    /// The clusters with a place.
    pub fn free(&self) -> impl Iterator<Item = &str> {
        let clusters = self.on.keys().map(String::as_str);
        clusters.filter(|cluster| self.are_free(cluster))
    }

    /// Fills a place; what users begin may take more than there are.
    pub fn take(&mut self, cluster: &str, by_schedule: bool) {
        self.in_all.take(by_schedule);
        if let Some(taken) = self.on.get_mut(cluster) {
            taken.take(by_schedule);
        }
    }
}

#[cfg(test)]
mod tests;
