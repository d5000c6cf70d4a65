//! A table of one calendar, and generated ones.

use chrono::TimeDelta;
use proptest::prelude::*;

use super::*;
use crate::model::{backup::Removal, ids::BackupId, timetable::Timetable};

const NOW: &str = "2026-11-21T12:00:00Z";

fn at(text: &str) -> DateTime<Utc> {
    text.parse().expect("a time")
}

fn rules(on_demand_kept: u32) -> Rules {
    Rules {
        on_demand_kept,
        timetable: Timetable::default(),
    }
}

fn backup(at: DateTime<Utc>, kind: BackupKind) -> Backup {
    Backup {
        ordinal: at.timestamp(),
        ..Backup::taken(at, kind)
    }
}

/// Each day with something, as text: what stands, then what goes.
fn told(calendar: &Calendar<'_>) -> Vec<String> {
    let days = calendar.months.iter().flat_map(|m| &m.weeks).flatten();
    let kinds = |of: &[&Backup]| {
        let kinds: Vec<&str> = of.iter().map(|b| b.kind.as_str()).collect();
        kinds.join("+")
    };
    days.flatten()
        .filter(|day| !day.stands.is_empty() || !day.goes.is_empty())
        .map(|day| {
            format!(
                "{}: {} / {}",
                day.date,
                kinds(&day.stands),
                kinds(&day.goes)
            )
        })
        .collect()
}

#[test]
fn what_stands_and_what_goes_is_told_by_days() {
    let mut kept = backup(at("2026-09-02T08:00:00Z"), BackupKind::OnDemand);
    kept.pinned = true;
    let mut marked = backup(at("2026-11-13T05:00:00Z"), BackupKind::Daily);
    marked.removal = Some(Removal {
        reason: "old enough to go".to_owned(),
        at: at("2026-11-21T05:00:00Z"),
    });
    let mut failed = backup(at("2026-11-20T06:00:00Z"), BackupKind::OnDemand);
    failed.state = BackupState::Failed;
    let backups = [
        backup(at("2026-11-20T05:00:00Z"), BackupKind::Daily),
        failed,
        backup(at("2026-11-20T04:00:00Z"), BackupKind::OnDemand),
        backup(at("2026-11-19T04:00:00Z"), BackupKind::OnDemand),
        backup(at("2026-11-16T05:00:00Z"), BackupKind::Weekly),
        backup(at("2026-11-14T05:00:00Z"), BackupKind::Daily),
        marked,
        backup(at("2026-11-01T05:00:00Z"), BackupKind::Monthly),
        kept,
    ];
    let calendar = calendar(&backups, rules(2), at(NOW));
    assert_eq!(
        told(&calendar),
        [
            "2026-09-02: on_demand / ",
            "2026-11-01: monthly / ",
            "2026-11-13: daily / ",
            "2026-11-14: daily / ",
            "2026-11-16: weekly / ",
            "2026-11-19: on_demand / ",
            "2026-11-20: daily+on_demand / ",
            // Its mark says 05:00, and it is noon: it goes today.
            "2026-11-21:  / daily",
            "2026-11-27:  / daily",
            "2026-12-14:  / weekly",
            "2027-02-01:  / monthly",
        ]
    );
    // October and January have neither.
    let months: Vec<String> = calendar
        .months
        .iter()
        .map(|m| m.first.to_string())
        .collect();
    assert_eq!(
        months,
        ["2026-09-01", "2026-11-01", "2026-12-01", "2027-02-01"]
    );
    let ids = |of: &[&Backup]| of.iter().map(|b| b.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&calendar.replaced), [backups[3].id.clone()]);
    assert_eq!(ids(&calendar.later), [backups[2].id.clone()]);
    assert_eq!(ids(&calendar.awaiting), [backups[5].id.clone()]);
    assert_eq!(ids(&calendar.pinned), [backups[8].id.clone()]);
    // The 1st of November 2026 is a Sunday.
    let november = &calendar.months[1];
    assert_eq!(november.weeks.len(), 6);
    let first: Vec<bool> = november.weeks[0].iter().map(Option::is_some).collect();
    assert_eq!(first, [false, false, false, false, false, false, true]);
}

#[test]
fn weekly_and_monthly_ones_stand_in_the_place_of_daily_ones() {
    let mut failed = backup(at("2026-11-18T05:00:00Z"), BackupKind::Weekly);
    failed.state = BackupState::Failed;
    let backups = [
        backup(at("2026-11-20T05:00:00Z"), BackupKind::Daily),
        failed,
        backup(at("2026-11-16T05:00:00Z"), BackupKind::Weekly),
        backup(at("2026-11-09T05:00:00Z"), BackupKind::Weekly),
        backup(at("2026-11-15T05:00:00Z"), BackupKind::Monthly),
    ];
    assert_eq!(instead_of_daily(&backups, rules(1), at(NOW)), (1, 1));
    assert_eq!(instead_of_daily(&backups[..1], rules(1), at(NOW)), (0, 0));
}

fn kinds() -> impl Strategy<Value = BackupKind> {
    prop::sample::select(vec![
        BackupKind::OnDemand,
        BackupKind::Safety,
        BackupKind::Daily,
        BackupKind::Weekly,
        BackupKind::Monthly,
    ])
}

prop_compose! {
    fn backups()(of in prop::collection::vec(
        (kinds(), 0i64..500 * 86_400, 0u8..4, any::<bool>(), prop::option::of(-90_000i64..90_000)),
        0..40,
    )) -> Vec<Backup> {
        of.into_iter().enumerate().map(|(i, (kind, age, state, pinned, removal))| {
            let mut made = backup(at(NOW) - TimeDelta::seconds(age), kind);
            made.ordinal = i64::try_from(i).expect("small");
            made.pinned = pinned && state == 1;
            made.removal = removal.map(|of| Removal {
                reason: String::new(),
                at: at(NOW) + TimeDelta::seconds(of),
            });
            if state == 0 {
                made.state = BackupState::Failed;
            }
            made
        }).collect()
    }
}

proptest! {
    #[test]
    fn each_complete_backup_stands_once_and_goes_once(backups in backups(), kept in 0u32..5) {
        let calendar = calendar(&backups, rules(kept), at(NOW));
        let days: Vec<&Day<'_>> =
            calendar.months.iter().flat_map(|m| &m.weeks).flatten().flatten().collect();
        let ids = |of: Vec<&Backup>| {
            let mut ids: Vec<BackupId> = of.iter().map(|b| b.id.clone()).collect();
            ids.sort();
            ids
        };
        let complete = || backups.iter().filter(|b| b.state == BackupState::Complete).collect();
        prop_assert_eq!(ids(days.iter().flat_map(|d| d.stands.clone()).collect()), ids(complete()));
        let mut going: Vec<&Backup> = days.iter().flat_map(|d| d.goes.clone()).collect();
        for (_, of) in calendar.otherwise() {
            going.extend(of);
        }
        prop_assert_eq!(ids(going), ids(complete()));
        for day in days {
            prop_assert!(day.stands.iter().all(|b| b.created_at.date_naive() == day.date));
            prop_assert!(day.goes.is_empty() || day.date >= at(NOW).date_naive());
        }
    }

    #[test]
    fn months_are_whole_in_order_and_never_empty(backups in backups()) {
        let calendar = calendar(&backups, rules(1), at(NOW));
        prop_assert!(calendar.months.is_sorted_by(|a, b| a.first < b.first));
        for month in &calendar.months {
            let mut expected = month.first;
            let mut has_any = false;
            for week in &month.weeks {
                prop_assert!(week.iter().any(Option::is_some));
                for (place, day) in week.iter().enumerate() {
                    let Some(day) = day else { continue };
                    prop_assert_eq!(day.date, expected);
                    prop_assert_eq!(day.date.weekday().num_days_from_monday() as usize, place);
                    has_any |= !day.stands.is_empty() || !day.goes.is_empty();
                    expected = expected.succ_opt().expect("a day");
                }
            }
            // The day after its last one begins the next month.
            prop_assert!(expected.day() == 1 && expected > month.first);
            prop_assert!(has_any);
        }
    }
}
