//! Tables of days, and generated years: what the schedule takes, and what is left of it.

use std::collections::HashSet;

use chrono::{Datelike as _, Months};
use proptest::prelude::*;

use super::*;
use crate::model::{
    backup::{Backup, BackupState},
    ids::BackupId,
    period::BackupKind,
    retention,
    timetable::WEEKDAYS,
};

fn at(text: &str) -> DateTime<Utc> {
    text.parse().expect("a time")
}

fn day(text: &str) -> NaiveDate {
    text.parse().expect("a day")
}

fn period(text: &str) -> Period {
    text.parse().expect("a period")
}

fn instance() -> InstanceId {
    "0269e284-dcac-4618-89a7-f79e3f1cea6a"
        .parse()
        .expect("an id")
}

/// An instance, its schedule and its backups, as the broker keeps them.
struct World {
    now: DateTime<Utc>,
    schedule: Schedule,
    backups: Vec<Backup>,
    /// Every backup that was ever good, with its kind.
    good: Vec<(BackupId, BackupKind)>,
}

impl World {
    /// The instance is ready at `now`.
    fn begin(now: DateTime<Utc>) -> Self {
        Self {
            now,
            schedule: Schedule::begin(instance(), now),
            backups: Vec::new(),
            good: Vec::new(),
        }
    }

    fn minute(&self) -> u32 {
        self.schedule.minute()
    }

    /// The scheduler looks. What it takes ends at once, well or badly.
    fn tick(&mut self, succeeds: bool) -> Option<Period> {
        if !self.schedule.is_due(self.now) {
            return None;
        }
        let taken = self.taken();
        let turn = self.schedule.turn(self.now, false, &taken);
        self.schedule = turn.then;
        let period = turn.take?;
        self.end(period.kind(), Some(period), succeeds);
        let schedule = self.schedule.clone();
        self.schedule = if succeeds {
            schedule.after_success()
        } else {
            schedule.after_failure(self.now)
        };
        Some(period)
    }

    fn taken(&self) -> Vec<Period> {
        self.backups
            .iter()
            .filter(|b| b.state != BackupState::Failed)
            .filter_map(|b| b.period)
            .collect()
    }

    fn end(&mut self, kind: BackupKind, period: Option<Period>, succeeds: bool) {
        let newest = self.backups.iter().map(|b| b.ordinal).max();
        let backup = Backup {
            instance: instance(),
            period,
            state: if succeeds {
                BackupState::Complete
            } else {
                BackupState::Failed
            },
            ordinal: newest.unwrap_or_default() + 1,
            finished_at: Some(self.now),
            ..Backup::taken(self.now, kind)
        };
        if succeeds {
            self.good.push((backup.id.clone(), kind));
        }
        self.backups.push(backup);
        self.prune();
    }

    /// As the broker prunes; what goes must be old enough, by a second reckoning.
    fn prune(&mut self) {
        let verdicts = retention::verdicts(
            &self.backups,
            retention::Rules {
                on_demand_kept: 1,
                timetable: self.schedule.timetable,
            },
            self.now,
        );
        let newest_on_demand = self
            .good
            .iter()
            .rfind(|(_, kind)| *kind == BackupKind::OnDemand);
        for (backup, verdict) in self.backups.iter_mut().zip(verdicts) {
            if verdict.keep {
                continue;
            }
            assert_eq!(backup.state, BackupState::Complete);
            assert_ne!(Some(&backup.id), self.good.last().map(|(id, _)| id));
            let age = self.now - backup.created_at.min(backup.finished_at.expect("an end"));
            match backup.kind {
                BackupKind::OnDemand => {
                    assert_ne!(Some(&backup.id), newest_on_demand.map(|(id, _)| id));
                }
                BackupKind::Daily | BackupKind::Safety => {
                    assert!(age >= TimeDelta::days(7), "{age}");
                }
                BackupKind::Weekly => assert!(age >= TimeDelta::weeks(4), "{age}"),
                BackupKind::Final | BackupKind::Imported => unreachable!("nobody takes them here"),
                BackupKind::Monthly => {
                    let three_months_ago = self.now - Months::new(3);
                    assert!(
                        self.now - age <= three_months_ago + TimeDelta::days(3),
                        "{age}"
                    );
                }
            }
            backup.state = BackupState::Expired;
            backup.finished_at = Some(self.now);
        }
        let now = self.now;
        self.backups.retain(|b| !retention::is_history(b, now));
    }

    fn complete(&self) -> impl Iterator<Item = &Backup> {
        self.backups
            .iter()
            .filter(|b| b.state == BackupState::Complete)
    }

    /// Goes on to the next slot and takes what is due.
    fn next_day(&mut self) -> Period {
        self.now = slot_after(self.now, self.minute());
        self.tick(true).expect("a backup")
    }

    fn assert_sound(&self) {
        let mut periods = HashSet::new();
        for period in self.taken() {
            assert!(periods.insert(period), "{period} twice");
        }
        if let Some((newest, _)) = self.good.last() {
            assert!(
                self.complete().any(|b| b.id == *newest),
                "the newest good one is gone"
            );
        }
    }
}

#[test]
fn each_instance_has_a_minute_of_its_own_for_good() {
    let minute = |id: &str| minute_of_day(&id.parse().expect("an id"));
    // Promised: a minute that changed would take one day's backup twice or not at all.
    assert_eq!(minute("0269e284-dcac-4618-89a7-f79e3f1cea6a"), 955);
    assert_eq!(minute("a"), 556);
    assert_eq!(minute("🦀"), 1190);
}

#[test]
fn minutes_are_spread_over_the_day_however_ids_are_made() {
    let ids: [fn(u32) -> String; 3] = [
        |i| i.to_string(),
        |i| format!("instance-{i:08}"),
        |i| {
            format!(
                "{:08x}-dcac-4618-89a7-f79e3f1cea6a",
                i.wrapping_mul(2_654_435_761)
            )
        },
    ];
    for id in ids {
        let mut count = vec![0_u32; 24 * 60];
        for i in 0..144_000 {
            let minute = minute_of_day(&id(i).parse().expect("an id"));
            count[minute as usize] += 1;
        }
        // 100 on average; a fair die leaves 50 to 150 once in 100,000 throws.
        let (least, most) = (count.iter().min(), count.iter().max());
        assert!(
            least >= Some(&50) && most <= Some(&150),
            "{least:?} {most:?}"
        );
    }
}

#[test]
fn a_slot_is_the_newest_that_has_come() {
    for (now, minute, newest, next) in [
        (
            "2026-11-22T10:00:00Z",
            600,
            "2026-11-22T10:00:00Z",
            "2026-11-23T10:00:00Z",
        ),
        (
            "2026-11-22T09:59:59Z",
            600,
            "2026-11-21T10:00:00Z",
            "2026-11-22T10:00:00Z",
        ),
        (
            "2026-11-22T00:00:00Z",
            0,
            "2026-11-22T00:00:00Z",
            "2026-11-23T00:00:00Z",
        ),
        (
            "2026-11-22T00:00:00Z",
            1439,
            "2026-11-21T23:59:00Z",
            "2026-11-22T23:59:00Z",
        ),
        (
            "2027-01-01T00:00:00Z",
            1,
            "2026-12-31T00:01:00Z",
            "2027-01-01T00:01:00Z",
        ),
        (
            "2028-02-29T12:00:00Z",
            600,
            "2028-02-29T10:00:00Z",
            "2028-03-01T10:00:00Z",
        ),
    ] {
        assert_eq!(slot_at(at(now), minute), at(newest), "{now}");
        assert_eq!(slot_after(at(now), minute), at(next), "{now}");
    }
}

#[test]
fn the_month_comes_before_the_week_and_the_week_before_the_day() {
    // 2026-05-30 is a Saturday, 2026-06-01 a Monday that begins a month.
    let mut world = World::begin(at("2026-05-29T20:00:00Z"));
    let taken: Vec<String> = (0..12).map(|_| world.next_day().to_string()).collect();
    assert_eq!(
        taken,
        [
            "2026-05",
            "2026-W22", // Saturday, Sunday: a new instance has none of either
            "2026-06",
            "2026-W23",
            "2026-06-03",
            "2026-06-04",
            "2026-06-05",
            "2026-06-06",
            "2026-06-07",
            "2026-W24",
            "2026-06-09",
            "2026-06-10",
        ]
    );
}

#[test]
fn a_month_that_begins_late_in_a_week_takes_no_other_weeks_day() {
    // 2026-10-31 is a Saturday, 2026-11-02 the next Monday.
    let mut world = World::begin(at("2026-10-01T00:00:00Z"));
    while world.now < at("2026-10-31T00:00:00Z") {
        world.next_day();
    }
    let taken: Vec<String> = (0..3).map(|_| world.next_day().to_string()).collect();
    assert_eq!(taken, ["2026-11", "2026-W45", "2026-11-03"]);
}

#[test]
fn february_has_29_days_in_a_leap_year() {
    for (begin, last) in [
        ("2028-02-01T00:00:00Z", "2028-02-29"),
        ("2027-02-01T00:00:00Z", "2027-02-28"),
    ] {
        let mut world = World::begin(at(begin));
        let mut taken = Vec::new();
        while !taken.contains(&"03".to_owned()) {
            let period = world.next_day();
            let first = period.to_string();
            taken.push(if period.kind() == BackupKind::Monthly {
                first[5..7].to_owned()
            } else {
                first
            });
        }
        assert!(taken.contains(&last.to_owned()), "{taken:?}");
    }
}

#[test]
fn missed_slots_are_made_up_for_once() {
    for (days, expected) in [
        (1, "2026-06-11"),
        (2, "2026-06-12"), // within the week
        (7, "2026-W25"),
        (31, "2026-07"),
        (122, "2026-10"),
        (366, "2027-06"),
    ] {
        let mut world = World::begin(at("2026-05-31T00:00:00Z"));
        while world.now < at("2026-06-10T00:00:00Z") {
            world.next_day();
        }
        world.now =
            slot_on(day("2026-06-10") + Days::new(days), world.minute()) + TimeDelta::hours(5);
        let made_up = world.tick(true).map(|p| p.to_string());
        assert_eq!(made_up.as_deref(), Some(expected), "down for {days} days");
        assert_eq!(world.tick(true), None, "down for {days} days");
        assert_eq!(
            world.schedule.next_at,
            slot_after(world.now, world.minute())
        );
    }
}

#[test]
fn a_slot_that_is_made_up_for_after_midnight_is_its_own_days() {
    let mut world = World::begin(at("2026-06-01T00:00:00Z"));
    while world.now < at("2026-06-10T00:00:00Z") {
        world.next_day();
    }
    world.now = at("2026-06-12T00:10:00Z");
    assert_eq!(world.tick(true), Some(period("2026-06-11")));
    assert_eq!(world.next_day(), period("2026-06-12"));
}

#[test]
fn a_new_instance_is_left_alone_at_first() {
    let slot = slot_on(day("2026-06-10"), minute_of_day(&instance()));
    for (before, expected) in [(59, 1), (60, 1), (61, 0)] {
        let schedule = Schedule::begin(instance(), slot - TimeDelta::minutes(before));
        assert_eq!(schedule.next_at, slot + Days::new(expected), "{before}");
    }
}

#[test]
fn a_failed_backup_is_tried_again_with_growing_pauses_until_the_next_slot() {
    let mut world = World::begin(at("2026-06-01T00:00:00Z"));
    world.next_day();
    world.now = slot_after(world.now, world.minute());
    let (slot, next_slot) = (world.now, slot_after(world.now, world.minute()));
    let mut tries = Vec::new();
    while world.now < next_slot {
        assert_eq!(world.tick(false), Some(period("2026-W23")));
        assert_eq!(world.tick(false), None, "at once");
        tries.push((world.now - slot).num_minutes());
        world.now = world.schedule.next_at;
    }
    assert_eq!(
        tries,
        [0, 1, 3, 7, 15, 31, 63, 127, 255, 495, 735, 975, 1215]
    );
    assert_eq!(world.now, next_slot);
    // The week is still without; and a new slot begins with short pauses.
    assert_eq!(world.tick(false), Some(period("2026-W23")));
    assert_eq!(world.schedule.next_at, next_slot + TimeDelta::minutes(1));
    world.now = world.schedule.next_at;
    assert_eq!(world.tick(true), Some(period("2026-W23")));
    assert_eq!(world.schedule.failures, 0);
    assert_eq!(world.next_day(), period("2026-06-04"));
}

#[test]
fn a_backup_that_is_being_taken_is_waited_for() {
    let schedule = Schedule::begin(instance(), at("2026-06-01T00:00:00Z"));
    let now = schedule.next_at;
    let waiting = schedule.turn(now, true, &[]);
    assert_eq!(waiting.take, None);
    assert_eq!(waiting.then.next_at, now + TimeDelta::minutes(1));
    let now = waiting.then.next_at;
    let turn = waiting.then.turn(now, false, &[]);
    assert_eq!(turn.take, Some(period("2026-06")));
    // Never past the next slot, which is looked at for its own sake.
    let late = slot_after(now, minute_of_day(&instance())) - TimeDelta::seconds(10);
    let turn = waiting.then.turn(late, true, &[]);
    assert_eq!(turn.then.next_at, late + TimeDelta::seconds(10));
}

#[test]
fn a_clock_that_is_set_back_a_little_is_waited_for() {
    let mut world = World::begin(at("2026-06-01T00:00:00Z"));
    for _ in 0..5 {
        world.next_day();
    }
    for hours in [1, 12, 23] {
        let back = world.now - TimeDelta::hours(hours);
        let (then, now) = (world.schedule.clone(), world.now);
        world.now = back;
        assert_eq!(world.tick(true), None, "{hours} h");
        assert_eq!(world.schedule, then);
        world.now = now;
    }
    world.assert_sound();
}

#[test]
fn a_clock_that_was_a_year_ahead_stops_nothing_for_a_year() {
    let mut world = World::begin(at("2026-06-01T00:00:00Z"));
    for _ in 0..5 {
        world.next_day();
    }
    let right = world.now;
    world.now += TimeDelta::days(365);
    assert!(world.tick(true).is_some());
    world.now = right + TimeDelta::hours(1);
    // Today was served, or is served anew when its day had gone to a week or a month; then all
    // goes on as ever.
    world.tick(true);
    for _ in 0..100 {
        world.next_day();
        world.assert_sound();
    }
    assert_held(&world, at("2026-06-01T00:00:00Z"));
}

/// After undisturbed days from `begin` on, exactly the fixed retention is there, by a reckoning
/// that goes over the calendar from the end.
fn assert_held(world: &World, begin: DateTime<Utc>) {
    let mut expected = Vec::new();
    let slot = slot_at(world.now, world.minute());
    let mut days: Vec<NaiveDate> = Vec::new();
    let mut next = slot_after(begin + TimeDelta::hours(1), world.minute());
    while next <= slot {
        days.push(next.date_naive());
        next = next + Days::new(1);
    }
    let (mut months, mut weeks) = (HashSet::new(), HashSet::new());
    let today = slot.date_naive();
    for day in days {
        let age = today - day;
        let week = day.iso_week();
        let (kind, kept) = if months.insert((day.year(), day.month())) {
            ("monthly", day + Months::new(3) > today)
        } else if weeks.insert((week.year(), week.week())) {
            ("weekly", age < TimeDelta::days(28))
        } else {
            ("daily", age < TimeDelta::days(7))
        };
        if kept {
            expected.push((kind, day));
        }
    }
    let held: Vec<(&str, NaiveDate)> = world
        .complete()
        .filter(|b| b.taken_at() <= world.now)
        .map(|b| {
            (
                b.kind.as_str(),
                slot_at(b.taken_at(), world.minute()).date_naive(),
            )
        })
        .collect();
    assert_eq!(held, expected);
}

#[test]
fn another_hour_leaves_out_no_day() {
    // The instance's own minute is 15:55.
    let own = || Schedule {
        next_at: at("2026-06-10T15:55:00Z"),
        ..Schedule::begin(instance(), at("2026-06-01T00:00:00Z"))
    };
    let served = || Schedule {
        next_at: at("2026-06-11T15:55:00Z"),
        ..own()
    };
    let hour = |hour| Timetable {
        hour: Some(hour),
        ..Timetable::default()
    };
    for (schedule, now, chosen, next) in [
        // Today's is still to come.
        (own(), "2026-06-10T10:00:00Z", 12, "2026-06-10T12:55:00Z"),
        (own(), "2026-06-10T10:00:00Z", 20, "2026-06-10T20:55:00Z"),
        // Today's new slot is over: today it is taken once more at the old one.
        (own(), "2026-06-10T10:00:00Z", 3, "2026-06-10T15:55:00Z"),
        // Today was served.
        (served(), "2026-06-10T16:00:00Z", 20, "2026-06-11T20:55:00Z"),
        (served(), "2026-06-10T16:00:00Z", 3, "2026-06-11T03:55:00Z"),
        // The same minute.
        (own(), "2026-06-10T10:00:00Z", 15, "2026-06-10T15:55:00Z"),
    ] {
        let then = schedule.with(hour(chosen), at(now));
        assert_eq!(then.next_at, at(next), "{now} {chosen}");
        assert_eq!(then.minute(), chosen * 60 + 55);
    }
    // What is being tried again goes on.
    let tried = Schedule {
        failures: 2,
        next_at: at("2026-06-10T16:10:00Z"),
        ..own()
    };
    let then = tried.clone().with(hour(3), at("2026-06-10T16:00:00Z"));
    assert_eq!(then.next_at, tried.next_at);
}

#[test]
fn the_week_s_backup_is_taken_on_the_day_that_was_chosen() {
    use chrono::Weekday::{Sun, Wed};
    for (weekday, begin, days, expected) in [
        // 1 June 2026 is a Monday.
        (
            Wed,
            "2026-06-01T00:00:00Z",
            4,
            ["monthly", "daily", "weekly", "daily"],
        ),
        // On the day itself the week comes before the month.
        (
            Sun,
            "2026-11-01T00:00:00Z",
            4,
            ["weekly", "monthly", "daily", "daily"],
        ),
        // What was missed is made up for on the next day.
        (
            Wed,
            "2026-06-04T00:00:00Z",
            4,
            ["monthly", "weekly", "daily", "daily"],
        ),
    ] {
        let mut world = World::begin(at(begin));
        world.schedule.timetable.weekday = Some(weekday);
        let kinds: Vec<&str> = (0..days)
            .map(|_| world.next_day().kind().as_str())
            .collect();
        assert_eq!(kinds, expected, "{weekday} from {begin}");
    }
}

proptest! {
    #[test]
    fn whatever_is_chosen_each_day_has_one_backup_and_each_week_and_month_its_own(
        mut changes in prop::collection::vec((0i64..60 * 24 * 60, 0u32..25, 0usize..8), 0..8),
    ) {
        let begin = at("2026-05-29T00:00:00Z");
        let end = begin + TimeDelta::days(70);
        changes.sort_unstable();
        let mut changes = changes.into_iter().peekable();
        let mut schedule = Schedule::begin(instance(), begin);
        let mut taken: Vec<(NaiveDate, Period)> = Vec::new();
        loop {
            let change = changes.next_if(|(minute, ..)| {
                begin + TimeDelta::minutes(*minute) < schedule.next_at
            });
            if let Some((minute, hour, weekday)) = change {
                let timetable = Timetable {
                    hour: Some(hour).filter(|hour| *hour < 24),
                    weekday: WEEKDAYS.get(weekday).map(|(day, _)| *day),
                    ..Timetable::default()
                };
                schedule = schedule.with(timetable, begin + TimeDelta::minutes(minute));
                continue;
            }
            let now = schedule.next_at;
            if now > end {
                break;
            }
            let day = slot_at(now, schedule.minute()).date_naive();
            let periods: Vec<Period> = taken.iter().map(|(_, period)| *period).collect();
            let turn = schedule.turn(now, false, &periods);
            prop_assert!(turn.then.next_at > now);
            schedule = turn.then;
            if let Some(period) = turn.take {
                prop_assert!(!periods.contains(&period), "{period} twice");
                taken.push((day, period));
            }
        }
        let (first, last) = (taken[0].0, taken[taken.len() - 1].0);
        let mut expected = first;
        for (day, _) in &taken {
            prop_assert_eq!(*day, expected, "one a day, without a gap");
            expected = expected + Days::new(1);
        }
        for back in 0..60 {
            let day = first + Days::new(7 + back);
            if day + Days::new(7) > last {
                break;
            }
            let [month, week, _] = Period::all_of(day);
            let has = |wanted: Period| taken.iter().any(|(_, period)| *period == wanted);
            prop_assert!(has(week), "no backup of {week}");
            prop_assert!(has(month), "no backup of {month}");
        }
    }
}

#[derive(Debug, Clone)]
enum Event {
    /// Time passes, in minutes.
    Pass(i64),
    /// The clock is set, by days and minutes.
    Set(i64, i64),
    /// A user asks for a backup.
    OnDemand,
}

fn event() -> impl Strategy<Value = (Event, bool)> {
    let event = prop_oneof![
        12 => (1..3000_i64).prop_map(Event::Pass),
        1 => (-70..140_i64, -1440..1440_i64).prop_map(|(days, minutes)| Event::Set(days, minutes)),
        2 => Just(Event::OnDemand),
    ];
    (event, prop::bool::weighted(0.7))
}

fn beginning() -> impl Strategy<Value = DateTime<Utc>> {
    // Five years of minutes, a leap year among them.
    (0..5 * 366 * 1440_i64)
        .prop_map(|minutes| at("2026-01-01T00:00:00Z") + TimeDelta::minutes(minutes))
}

proptest! {
    #[test]
    fn whatever_happens_no_period_is_taken_twice_and_nothing_goes_too_early(
        begin in beginning(),
        events in prop::collection::vec(event(), 1..150),
    ) {
        let mut world = World::begin(begin);
        for (event, succeeds) in events {
            match event {
                Event::Pass(minutes) => world.now += TimeDelta::minutes(minutes),
                Event::Set(days, minutes) => {
                    world.now += TimeDelta::days(days) + TimeDelta::minutes(minutes);
                }
                Event::OnDemand => world.end(BackupKind::OnDemand, None, succeeds),
            }
            world.tick(succeeds);
            prop_assert_eq!(world.tick(succeeds), None);
            world.assert_sound();
        }
    }

    #[test]
    fn undisturbed_days_hold_exactly_the_fixed_retention(begin in beginning(), days in 93..150_u32) {
        let mut world = World::begin(begin);
        world.now += SCHEDULE_BEGINS_AFTER;
        for _ in 0..days {
            world.next_day();
        }
        world.assert_sound();
        prop_assert_eq!(world.good.len(), days as usize);
        assert_held(&world, begin);
    }

    #[test]
    fn after_any_disturbance_all_is_well_again_in_time(
        begin in beginning(),
        events in prop::collection::vec(event(), 1..40),
    ) {
        let mut world = World::begin(begin);
        for (event, succeeds) in events {
            if let Event::Pass(minutes) = event {
                world.now += TimeDelta::minutes(minutes);
            }
            world.tick(succeeds);
        }
        // A day later at most there is one for the slot, and one a day from then on. Not with the
        // very next slot: a schedule begins an hour after its instance.
        world.now += TimeDelta::days(1);
        world.tick(true);
        for _ in 0..30 {
            world.next_day();
        }
        world.assert_sound();
    }
}
