//! Tables of ages, and generated lists.

use chrono::TimeDelta;
use proptest::prelude::*;

use super::*;
use crate::model::{
    backup::Manifest,
    proof::{Evidence, Finding, Proof},
    version::Version,
};

const NOW: &str = "2026-06-15T12:00:00Z";

fn at(text: &str) -> DateTime<Utc> {
    text.parse().expect("a time")
}

fn backup(at: DateTime<Utc>, kind: BackupKind, state: BackupState) -> Backup {
    Backup {
        state,
        ..Backup::taken(at, kind)
    }
}

/// What nobody changed.
const USUAL: Timetable = Timetable {
    hour: None,
    weekday: None,
    days: None,
    weeks: None,
    months: None,
};

fn rules(on_demand_kept: u32) -> Rules {
    Rules {
        on_demand_kept,
        timetable: USUAL,
    }
}

fn kept(backups: &[Backup], on_demand: u32, now: DateTime<Utc>) -> Vec<bool> {
    let verdicts = verdicts(backups, rules(on_demand), now);
    verdicts.iter().map(|v| v.keep).collect()
}

#[test]
fn each_kind_has_its_age() {
    use BackupKind::{Daily, Monthly, Safety, Weekly};
    for (kind, taken, end) in [
        (Safety, "2026-06-01T10:00:00Z", "2026-06-08T10:00:00Z"),
        (Daily, "2026-06-01T10:00:00Z", "2026-06-08T10:00:00Z"),
        (Daily, "2028-02-25T10:00:00Z", "2028-03-03T10:00:00Z"),
        (Weekly, "2026-06-01T10:00:00Z", "2026-06-29T10:00:00Z"),
        (Monthly, "2026-06-01T10:00:00Z", "2026-09-01T10:00:00Z"),
        (Monthly, "2026-11-30T10:00:00Z", "2027-02-28T10:00:00Z"),
        (Monthly, "2027-11-30T10:00:00Z", "2028-02-29T10:00:00Z"),
        (Monthly, "2026-12-31T10:00:00Z", "2027-03-31T10:00:00Z"),
    ] {
        let old = backup(at(taken), kind, BackupState::Complete);
        assert_eq!(expires_at(&old, &USUAL), Some(at(end)), "{kind} of {taken}");
        let newer = backup(at(end), kind, BackupState::Complete);
        let both = [old, newer];
        let moment = TimeDelta::microseconds(1);
        assert_eq!(
            kept(&both, 1, at(end) - moment),
            [true, true],
            "{kind} of {taken}"
        );
        assert_eq!(kept(&both, 1, at(end)), [false, true], "{kind} of {taken}");
    }
}

#[test]
fn ages_are_those_that_users_chose() {
    use BackupKind::{Daily, Monthly, Safety, Weekly};
    let timetable = Timetable {
        days: Some(2),
        weeks: Some(6),
        months: Some(12),
        ..USUAL
    };
    for (kind, end) in [
        (Safety, "2026-06-22T12:00:00Z"),
        (Daily, "2026-06-17T12:00:00Z"),
        (Weekly, "2026-07-27T12:00:00Z"),
        (Monthly, "2027-06-15T12:00:00Z"),
    ] {
        let old = backup(at(NOW), kind, BackupState::Complete);
        assert_eq!(expires_at(&old, &timetable), Some(at(end)), "{kind}");
        let both = [old, backup(at(end), kind, BackupState::Complete)];
        let rules = Rules {
            timetable,
            ..rules(1)
        };
        let judged = verdicts(&both, rules, at(end));
        assert_eq!(
            judged.iter().map(|v| v.keep).collect::<Vec<_>>(),
            [false, true],
            "{kind}"
        );
    }
}

#[test]
fn the_last_backup_that_the_broker_can_read_goes_once_others_are_sealed_for_their_tenant() {
    let month = TimeDelta::days(30);
    let proved = Finding::Same {
        version: "3.6.16".parse::<Version>().expect("a version"),
        evidence: Evidence::Whole,
    };
    let taken = |at, of: &Backup| Backup {
        proof: of.proof.clone(),
        manifest: of.manifest.clone(),
        ..backup(at, BackupKind::Daily, BackupState::Complete)
    };
    let plain = taken(
        at(NOW),
        &backup(at(NOW), BackupKind::Daily, BackupState::Complete),
    );
    let open = Backup {
        proof: Proof::default().after(&[proved], at(NOW)),
        ..plain.clone()
    };
    let unproved = taken(at(NOW) + month, &plain);
    let now = at(NOW) + month + TimeDelta::days(1);
    assert_eq!(
        kept(&[open.clone(), unproved.clone()], 1, now),
        [true, true]
    );
    let sealed = Backup {
        manifest: Some(sealed_manifest()),
        ..unproved
    };
    assert_eq!(kept(&[open.clone(), sealed.clone()], 1, now), [false, true]);
    // Not for one whose bytes are gone.
    let reason = "it is not there".to_owned();
    let spoiled = Backup {
        proof: Proof::default().after(&[Finding::Spoiled { reason }], now),
        ..sealed
    };
    assert_eq!(kept(&[open, spoiled], 1, now), [true, true]);
}

/// What a backup has that is sealed for the key of its tenant.
fn sealed_manifest() -> Manifest {
    let id = "5ae85b45e5717f0001533192";
    serde_json::from_value(serde_json::json!({
        "format": 3, "backup_id": id, "kind": "daily", "instance_id": "i", "deployment_id": id, "service_id": "s",
        "tenant": { "platform": "p", "organization": "o", "space": "s" },
        "engine": "thing", "version": "3.6.16", "units": 1, "content": {},
        "stored": { "snapshot_bytes": 1, "snapshot_sha256": "", "object_bytes": 1, "object_sha256": "",
            "compression": "zstd", "sealing": "age-encryption.org/v1" },
        "sealed_for": { "recipient": "age1own", "header": "" },
        "requested_at": NOW, "started_at": NOW, "finished_at": NOW,
    }))
    .expect("a manifest")
}

#[test]
fn what_is_not_good_has_no_end() {
    use BackupState::{Complete, Expired, Failed, Pending, Running};
    let of = |kind, state| expires_at(&backup(at(NOW), kind, state), &USUAL);
    for state in [Expired, Failed, Pending, Running] {
        assert_eq!(of(BackupKind::Daily, state), None);
    }
    assert_eq!(of(BackupKind::OnDemand, Complete), None);
}

#[test]
fn the_newest_good_backup_never_goes_by_age() {
    use BackupKind::{Daily, Monthly, OnDemand};
    use BackupState::{Complete, Failed, Running};
    let days = |days| at(NOW) + TimeDelta::days(days);
    let backups = [
        backup(days(0), Monthly, Complete),
        backup(days(1), Daily, Complete),
        backup(days(2), Daily, Failed),
        backup(days(3), Daily, Running),
    ];
    let much_later = days(1000);
    assert_eq!(kept(&backups, 1, much_later), [false, true, true, true]);
    // It may be one that a user asked for.
    let backups = [backups[1].clone(), backup(days(4), OnDemand, Complete)];
    assert_eq!(kept(&backups, 1, much_later), [false, true]);
}

#[test]
fn a_failed_backup_never_displaces_a_good_one() {
    use BackupKind::OnDemand;
    let second = |s| at(NOW) + TimeDelta::seconds(s);
    let backups = [
        backup(second(1), OnDemand, BackupState::Complete),
        backup(second(2), OnDemand, BackupState::Complete),
        backup(second(3), OnDemand, BackupState::Failed),
    ];
    assert_eq!(kept(&backups, 1, at(NOW)), [false, true, true]);
}

#[test]
fn a_backup_of_before_an_upgrade_displaces_none_of_a_user_and_three_of_them_stay() {
    use BackupKind::{OnDemand, Safety};
    let second = |s| at(NOW) + TimeDelta::seconds(s);
    let good = |s, kind| backup(second(s), kind, BackupState::Complete);
    let mut backups = vec![good(0, OnDemand)];
    backups.extend((1..=4).map(|s| good(s, Safety)));
    assert_eq!(
        kept(&backups, 1, second(10)),
        [true, false, true, true, true]
    );
    backups.push(good(5, OnDemand));
    assert_eq!(
        kept(&backups, 1, second(10)),
        [false, false, true, true, true, true]
    );
    assert_eq!(displaced_by(&backups[0], &backups), Some(&backups[5]));
    assert_eq!(displaced_by(&backups[1], &backups), Some(&backups[4]));
    assert_eq!(displaced_by(&backups[5], &backups), None);
}

#[test]
fn imported_backups_stay_by_number_and_nothing_of_the_instance_goes_for_them() {
    let day = |day| at(NOW) + TimeDelta::days(day);
    let of = |at, kind| backup(at, kind, BackupState::Complete);
    let own = of(day(0), BackupKind::Daily);
    let imported = (1..=4).map(|at| of(day(at), BackupKind::Imported));
    let mut backups: Vec<Backup> = [own].into_iter().chain(imported).collect();
    let version: Version = "3.5.30".parse().expect("a version");
    let evidence = Evidence::Whole;
    for backup in &mut backups {
        let found = [Finding::Same { version, evidence }];
        backup.proof = Proof::default().after(&found, backup.created_at);
    }
    let expected = [true, false, true, true, true];
    assert_eq!(kept(&backups, 1, day(1000)), expected);
    let newest = &backups[2..];
    assert_eq!(displaced_by(&backups[1], newest), newest.last());
}

#[test]
fn what_users_keep_goes_neither_by_age_nor_by_a_newer_one() {
    use BackupKind::{Daily, OnDemand};
    let days = |days| at(NOW) + TimeDelta::days(days);
    let good = |day, kind| backup(days(day), kind, BackupState::Complete);
    let mut backups = [
        good(0, OnDemand),
        good(1, Daily),
        good(2, OnDemand),
        good(3, OnDemand),
    ];
    backups[0].pinned = true;
    backups[1].pinned = true;
    let later = days(1000);
    assert_eq!(kept(&backups, 1, later), [true, true, false, true]);
    // It takes no place of the others.
    backups[3].pinned = true;
    assert_eq!(kept(&backups, 1, later), [true, true, true, true]);
    assert_eq!(replaced_by_next(&backups, 1), [&backups[2]]);
    assert_eq!(replaced_by_next(&backups, 2), Vec::<&Backup>::new());
    assert_eq!(displaced_by(&backups[2], &backups), None);
    // What was marked before it was kept is marked no more.
    let reason = removal_after("old enough to go", later);
    backups[1].removal = Some(reason);
    let unmarked = Decision::Unmark(backups[1].id.clone());
    assert_eq!(
        decisions(&backups, rules(1), later, TimeDelta::zero()),
        [unmarked]
    );
}

fn dailies(days: i64) -> Vec<Backup> {
    let of = |day| {
        backup(
            at(NOW) + TimeDelta::days(day),
            BackupKind::Daily,
            BackupState::Complete,
        )
    };
    (0..days).map(of).collect()
}

/// Does what is decided at `now`; returns the places of those that went.
fn decide(backups: &mut [Backup], now: DateTime<Utc>, grace: TimeDelta) -> Vec<usize> {
    let place = |id: &BackupId| backups.iter().position(|b| b.id == *id).expect("a backup");
    let decided: Vec<(usize, Decision)> = decisions(backups, rules(1), now, grace)
        .into_iter()
        .map(|decision| match &decision {
            Decision::Mark(id, _) | Decision::Unmark(id) | Decision::Remove(id) => {
                (place(id), decision)
            }
        })
        .collect();
    let mut gone = Vec::new();
    for (place, decision) in decided {
        match decision {
            Decision::Mark(_, removal) => backups[place].removal = Some(removal),
            Decision::Unmark(_) => backups[place].removal = None,
            Decision::Remove(_) => {
                backups[place].state = BackupState::Expired;
                gone.push(place);
            }
        }
    }
    gone
}

fn marked(backups: &[Backup]) -> Vec<usize> {
    let marked = (0..)
        .zip(backups)
        .filter(|(_, b)| b.removal.is_some() && b.state == BackupState::Complete);
    marked.map(|(place, _)| place).collect()
}

#[test]
fn a_mistake_about_ages_does_not_take_all_at_once() {
    let mut backups = dailies(8);
    let years_later = at(NOW) + TimeDelta::days(3650);
    for gone in [vec![0, 1, 2], vec![3, 4, 5], vec![6], vec![]] {
        assert_eq!(decide(&mut backups, years_later, TimeDelta::zero()), gone);
    }
    let mut backups = dailies(8);
    let grace = TimeDelta::days(1);
    let moment = TimeDelta::microseconds(1);
    for (days, gone, then) in [
        (0, vec![], vec![0, 1, 2]),
        (1, vec![0, 1, 2], vec![]),
        (1, vec![], vec![3, 4, 5]),
        (2, vec![3, 4, 5], vec![]),
        (2, vec![], vec![6]),
        (3, vec![6], vec![]),
        (3, vec![], vec![]),
    ] {
        let now = years_later + TimeDelta::days(days);
        assert_eq!(decide(&mut backups, now, grace), gone, "after {days} days");
        assert_eq!(marked(&backups), then, "after {days} days");
        assert_eq!(
            decide(&mut backups.clone(), now + grace - moment, grace),
            [0; 0]
        );
    }
}

#[test]
fn what_is_marked_stays_when_the_reason_is_gone() {
    let mut backups = dailies(8);
    let grace = TimeDelta::days(1);
    let ahead = at(NOW) + TimeDelta::days(3650);
    decide(&mut backups, ahead, grace);
    assert_eq!(marked(&backups), [0, 1, 2]);
    let removal = backups[0].removal.clone().expect("a mark");
    assert_eq!(removal.reason, "old enough to go");
    assert_eq!(removal.at, ahead + grace);
    // The clock is right again; the first one is old enough nonetheless, and goes when it should.
    let now = at(NOW) + TimeDelta::days(7);
    assert_eq!(decide(&mut backups, now, grace), [0; 0]);
    assert_eq!(marked(&backups), [0]);
    assert_eq!(backups[0].removal.clone().expect("a mark").at, now + grace);
    assert_eq!(decide(&mut backups, now + grace, grace), [0]);
}

#[test]
fn what_gives_way_to_a_newer_one_goes_at_once() {
    use BackupKind::{OnDemand, Safety};
    let second = |s| at(NOW) + TimeDelta::seconds(s);
    let good = |s, kind| backup(second(s), kind, BackupState::Complete);
    let mut backups = vec![good(0, OnDemand), good(1, OnDemand)];
    backups.extend((2..6).map(|s| good(s, Safety)));
    let gone = decide(&mut backups, second(10), TimeDelta::days(1));
    assert_eq!(gone, [0, 2]);
    assert_eq!(marked(&backups), [0; 0]);
}

#[test]
fn a_safety_backup_gives_way_to_so_many_newer_ones() {
    let of = |minutes, state| {
        backup(
            at(NOW) + TimeDelta::minutes(minutes),
            BackupKind::Safety,
            state,
        )
    };
    let complete = BackupState::Complete;
    let mut backups = vec![
        of(0, BackupState::Expired),
        of(1, complete),
        of(2, complete),
    ];
    assert_eq!(
        displaced_by(&backups[0], &backups),
        None,
        "it was old enough"
    );
    backups.push(of(3, complete));
    assert_eq!(displaced_by(&backups[0], &backups), Some(&backups[3]));
}

#[test]
fn the_newest_is_the_one_that_was_asked_for_last_whatever_the_clock_showed() {
    let of = |minutes, ordinal| Backup {
        ordinal,
        ..backup(
            at(NOW) + TimeDelta::minutes(minutes),
            BackupKind::OnDemand,
            BackupState::Complete,
        )
    };
    let backups = [of(10, 1), of(0, 2), of(0, 3)];
    assert_eq!(kept(&backups, 1, at(NOW)), [false, false, true]);
    assert_eq!(displaced_by(&backups[0], &backups), Some(&backups[2]));
    // One whose row was lost comes after the one before it.
    let lost = Backup {
        ordinal: 2,
        ..of(1, 2)
    };
    let backups = [of(10, 1), of(0, 2), lost, of(5, 3)];
    assert_eq!(kept(&backups, 2, at(NOW)), [false, false, true, true]);
}

#[test]
fn ages_count_from_the_request_unless_the_clock_was_set_back() {
    let mut taken = backup(at(NOW), BackupKind::Daily, BackupState::Complete);
    assert_eq!(
        expires_at(&taken, &USUAL),
        Some(at(NOW) + TimeDelta::days(7))
    );
    // Kept behind others of a clock that was a year ahead.
    taken.created_at += TimeDelta::days(365);
    taken.finished_at = Some(at(NOW));
    assert_eq!(
        expires_at(&taken, &USUAL),
        Some(at(NOW) + TimeDelta::days(7))
    );
}

#[test]
fn rows_without_bytes_are_forgotten_after_a_while() {
    use BackupState::{Complete, Expired, Failed, Pending, Running};
    let days = |days| at(NOW) + TimeDelta::days(days);
    for (state, forgotten) in [
        (Failed, true),
        (Expired, true),
        (Complete, false),
        (Pending, false),
        (Running, false),
    ] {
        let row = backup(at(NOW), BackupKind::Daily, state);
        assert!(!is_history(&row, days(30)), "{state:?}");
        assert_eq!(is_history(&row, days(31)), forgotten, "{state:?}");
    }
}

fn any_backup() -> impl Strategy<Value = Backup> {
    use BackupKind::{Daily, Monthly, OnDemand, Safety, Weekly};
    use BackupState::{Complete, Expired, Failed, Pending, Running};
    (
        0i64..200 * 24 * 3600,
        prop::sample::select(vec![OnDemand, Safety, Daily, Weekly, Monthly]),
        prop::sample::select(vec![Complete, Complete, Expired, Failed, Pending, Running]),
    )
        .prop_map(|(second, kind, state)| backup(at(NOW) + TimeDelta::seconds(second), kind, state))
}

/// The same, of which proofs found something.
fn any_proof() -> impl Strategy<Value = Backup> {
    let version: Version = "3.5.30".parse().expect("a version");
    let found = prop::sample::select(vec![
        Vec::new(),
        vec![Finding::Same {
            version,
            evidence: Evidence::Whole,
        }],
        vec![Finding::Differs {
            version,
            reason: "it differs".to_owned(),
        }],
    ]);
    (any_backup(), found).prop_map(|(backup, found)| Backup {
        proof: Proof::default().after(&found, backup.created_at),
        ..backup
    })
}

proptest! {
    #[test]
    fn what_was_proved_last_goes_neither_by_age_nor_by_number(
        backups in prop::collection::vec(any_proof(), 0..30),
        number in 1u32..4,
        days in 0i64..3000,
    ) {
        let now = at(NOW) + TimeDelta::days(days);
        let verdicts = verdicts(&backups, rules(number), now);
        let is_proved = |b: &Backup| {
            b.state == BackupState::Complete && b.proof.standing() == Standing::Proved
        };
        let proved = backups.iter().zip(&verdicts).filter(|(b, _)| is_proved(b));
        if let Some((_, verdict)) = proved.max_by_key(|(b, _)| b.order()) {
            prop_assert!(verdict.keep, "{verdict:?}");
        }
    }

    #[test]
    fn a_flawed_backup_takes_no_other_ones_place(
        backups in prop::collection::vec(any_proof(), 0..30),
        number in 1u32..4,
        days in 0i64..300,
    ) {
        let now = at(NOW) + TimeDelta::days(days);
        let is_sound = |b: &&Backup| b.proof.standing() != Standing::Flawed;
        let sound: Vec<Backup> = backups.iter().filter(is_sound).cloned().collect();
        let alone = verdicts(&sound, rules(number), now);
        let together = verdicts(&backups, rules(number), now);
        for verdict in alone.iter().filter(|verdict| verdict.keep) {
            let same = together.iter().find(|of| of.backup == verdict.backup);
            prop_assert!(same.is_some_and(|of| of.keep), "{verdict:?} {same:?}");
        }
        // No more are kept for it than would be without a proof.
        let kept = |of: &[Verdict]| of.iter().filter(|v| v.keep).count();
        let flawed = backups.len() - sound.len();
        prop_assert!(kept(&together) <= kept(&alone) + flawed);
    }

    #[test]
    fn good_backups_stay_by_number_or_by_age(
        backups in prop::collection::vec(any_backup(), 0..30),
        number in 1u32..4,
        days in 0i64..300,
    ) {
        let now = at(NOW) + TimeDelta::days(days);
        let verdicts = verdicts(&backups, rules(number), now);
        let is_good = |b: &&Backup| b.state == BackupState::Complete;
        let (staying, going): (Vec<_>, Vec<_>) = backups.iter().zip(&verdicts).partition(|(_, v)| v.keep);
        let going: Vec<&Backup> = going.into_iter().map(|(b, _)| b).collect();
        let staying: Vec<&Backup> = staying.into_iter().map(|(b, _)| b).collect();
        prop_assert!(going.iter().all(is_good));
        let on_demand = |b: &&&Backup| b.kind == BackupKind::OnDemand && is_good(b);
        let total = backups.iter().filter(|b| on_demand(&b)).count();
        prop_assert_eq!(staying.iter().filter(on_demand).count(), total.min(number as usize));
        for stays in staying.iter().filter(on_demand) {
            prop_assert!(going.iter().filter(on_demand).all(|goes| stays.created_at >= goes.created_at));
        }
        let safety = |b: &&&Backup| b.kind == BackupKind::Safety && is_good(b);
        prop_assert!(staying.iter().filter(safety).count() <= SAFETY_BACKUPS_MAX);
        let in_time = |b: &&&Backup| expires_at(b, &USUAL).is_some_and(|end| now < end);
        // What goes before its time is one of too many of before upgrades.
        for goes in going.iter().filter(in_time) {
            prop_assert!(safety(&goes));
            let newer = staying.iter().filter(safety).filter(|b| b.created_at >= goes.created_at);
            prop_assert_eq!(newer.count(), SAFETY_BACKUPS_MAX);
        }
        let old = |b: &&Backup| expires_at(b, &USUAL).is_some_and(|end| end <= now);
        prop_assert!(staying.iter().filter(|b| old(b)).count() <= 1);
        if let Some(newest) = backups.iter().filter(is_good).max_by_key(|b| (b.created_at, b.id.clone())) {
            prop_assert!(staying.contains(&newest));
        }
    }
}
