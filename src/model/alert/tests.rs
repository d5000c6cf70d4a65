//! Members in every state, schedules that are kept to and schedules that are not.

use chrono::{Days, TimeDelta};
use proptest::prelude::*;

use super::*;
use crate::model::{
    ids::InstanceId,
    observation::{Degradation, MemberRole, Silence, SilenceCause},
};

const QUOTA: u64 = UNIT_BYTES;

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000 + seconds, 0).expect("a time")
}

fn watch(instance: &str, failures: u32, newest_good: Option<DateTime<Utc>>) -> BackupWatch {
    let instance: InstanceId = instance.parse().expect("an id");
    BackupWatch {
        schedule: Some(Schedule {
            failures,
            ..Schedule::begin(instance, at(0))
        }),
        ready_at: at(0),
        newest_good,
        newest_excused: None,
        newest_proved: None,
        flawed: None,
        proved_within: None,
        doubt: None,
        unmirrored: None,
    }
}

fn serving(database_bytes: u64, complaints: &[Complaint]) -> MemberHealth {
    MemberHealth::Serving {
        role: MemberRole::Follows,
        version: "3.5.30".to_owned(),
        database_bytes,
        used_bytes: Some(database_bytes),
        is_full: false,
        differs: false,
        changes: 1,
        complaints: complaints.to_vec(),
    }
}

fn seen(members: Vec<MemberHealth>) -> Observation {
    let member = |(i, health)| MemberObservation {
        name: format!("m{i}"),
        url: format!("https://127.0.0.1:{i}"),
        health,
    };
    let members = members.into_iter().enumerate().map(member).collect();
    Observation::first(members, 2, at(0))
}

/// A database that nothing is said of.
pub(in crate::model) fn database() -> DatabaseWatch {
    DatabaseWatch {
        engine: "etcd".to_owned(),
        version: version("3.6.16"),
        quota_bytes: QUOTA,
        faults: Vec::new(),
        faultless: None,
        limits_not_held: 0,
        limits_held_by: None,
        is_safe_full: true,
        safe_full_from: None,
        withheld: None,
        reachable_from: None,
        closed_since: None,
        incidents: Vec::new(),
        repair: None,
        is_recovered: false,
        move_failure: None,
        is_elsewhere: false,
        certificates: None,
        proves_backups: true,
    }
}

fn version(text: &str) -> Version {
    text.parse().expect("a version")
}

/// What is told of members and storage alone.
fn told(observation: Option<&Observation>) -> Vec<(Gravity, Option<String>, String)> {
    let none_late = watch("i", 0, None);
    alerts(at(0), &database(), observation, &none_late)
        .into_iter()
        .map(|alert| (alert.gravity, alert.member, alert.message))
        .collect()
}

#[test]
fn who_reaches_what_lets_strangers_in_is_told_as_it_is() {
    let of = |withheld, reachable_from: Option<&str>| {
        let database = DatabaseWatch {
            withheld,
            reachable_from: reachable_from.map(version),
            ..database()
        };
        let well = seen(vec![serving(1, &[]), serving(2, &[]), serving(3, &[])]);
        let mut told = alerts(at(0), &database, Some(&well), &watch("i", 0, None));
        assert!(told.iter().all(|alert| alert.subject == Subject::Loopback));
        told.pop().map(|alert| (alert.gravity, alert.message))
    };
    assert_eq!(of(None, Some("3.6.17")), None);
    let (gravity, kept) = of(Some(Withheld::Kept), Some("3.6.17")).expect("an alert");
    assert_eq!(gravity, Gravity::Warning);
    assert!(kept.starts_with("Only programs on the broker's own machine reach"));
    assert!(kept.ends_with("Upgrade to 3.6.17: the broker then moves the members."));
    let (gravity, exposed) = of(Some(Withheld::Exposed), None).expect("an alert");
    assert_eq!(gravity, Gravity::Critical);
    assert!(exposed.starts_with("Other machines still reach this database, and etcd 3.6.16 has"));
    assert!(!exposed.contains("Only programs"), "{exposed}");
    assert!(exposed.contains("firewall"), "{exposed}");
    assert!(
        exposed.ends_with("No version here is without them."),
        "{exposed}"
    );
}

fn silent() -> MemberHealth {
    MemberHealth::Silent(Silence {
        cause: SilenceCause::Unreachable,
        detail: "transport error: Connection refused (os error 111)".to_owned(),
    })
}

#[test]
fn nothing_is_told_of_what_is_well() {
    let well = seen(vec![serving(1, &[]), serving(2, &[]), serving(3, &[])]);
    assert_eq!(told(Some(&well)), []);
}

#[test]
fn certificates_are_told_of_from_60_days_before_their_end_until_they_are_renewed() {
    let gravities = |ends_in: i64, changes_in: Option<i64>| {
        let day = |days| at(0) + TimeDelta::days(days);
        let outlook = Outlook {
            due_at: day(-200),
            ends_at: day(ends_in),
            changes_at: changes_in.map(day),
        };
        let database = DatabaseWatch {
            certificates: Some(outlook),
            ..database()
        };
        let well = seen(vec![serving(1, &[]), serving(2, &[]), serving(3, &[])]);
        let none_late = watch("i", 0, None);
        let alerts = alerts(at(0), &database, Some(&well), &none_late);
        let told = alerts.into_iter().map(|a| (a.gravity, a.message));
        told.collect::<Vec<_>>()
    };
    assert_eq!(gravities(61, None), []);
    let near = gravities(60, None);
    assert_eq!(near[0].0, Gravity::Warning);
    assert!(near[0].1.contains("bring back"), "{near:?}");
    let over = gravities(0, None);
    assert_eq!(over[0].0, Gravity::Critical);
    assert!(over[0].1.contains("has ended"), "{over:?}");
    let early = gravities(700, Some(61));
    assert_eq!(early[0].0, Gravity::Notice);
    let soon = gravities(700, Some(60));
    assert_eq!(soon[0].0, Gravity::Warning);
    assert!(soon[0].1.contains("fetch them anew"), "{soon:?}");
}

#[test]
fn a_member_that_is_down_is_a_warning_and_a_lost_majority_is_critical() {
    let message = "Member m1 does not answer: nobody accepts a connection there.".to_owned();
    let one = seen(vec![serving(1, &[]), silent(), serving(1, &[])]);
    let expected = [(Gravity::Warning, Some("m1".to_owned()), message)];
    assert_eq!(told(Some(&one)), expected);
    let two = seen(vec![
        MemberHealth::Degraded(Degradation::Leaderless("has no majority behind it")),
        silent(),
        silent(),
    ]);
    let gravities: Vec<Gravity> = told(Some(&two)).iter().map(|alert| alert.0).collect();
    assert_eq!(gravities, [Gravity::Critical; 3]);
}

#[test]
fn what_cannot_be_looked_at_is_unknown() {
    let told = told(None);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].0, Gravity::Unknown);
}

#[test]
fn storage_is_told_of_from_its_threshold_on() {
    let gravity_at = |bytes: u64| {
        let seen = seen(vec![serving(1, &[]), serving(bytes, &[]), serving(1, &[])]);
        told(Some(&seen)).first().map(|alert| alert.0)
    };
    let threshold = QUOTA * QUOTA_NEAR_PERCENT / 100 + 1;
    assert_eq!(gravity_at(threshold - 2), None);
    assert_eq!(gravity_at(threshold), Some(Gravity::Warning));
    let critical = QUOTA * QUOTA_CRITICAL_PERCENT / 100 + 1;
    assert_eq!(gravity_at(critical - 2), Some(Gravity::Warning));
    assert_eq!(gravity_at(critical), Some(Gravity::Critical));
    assert_eq!(gravity_at(QUOTA), Some(Gravity::Critical));
    assert_eq!(gravity_at(u64::MAX), Some(Gravity::Critical));
}

#[test]
fn what_all_members_complain_of_is_told_once() {
    let full = seen(vec![
        serving(QUOTA, &[Complaint::Full]),
        serving(QUOTA, &[Complaint::Full]),
        silent(),
    ]);
    let full = Observation {
        full_since: Some(at(7)),
        ..full
    };
    let alerts = of_storage(&full, &database());
    assert_eq!(alerts[0].since, Some(at(7)));
    let told = told(Some(&full));
    let gravities: Vec<Gravity> = told.iter().map(|alert| alert.0).collect();
    // That all of the quota is used is not said beside it.
    assert_eq!(gravities, [Gravity::Critical, Gravity::Warning]);
    assert_eq!(
        told[0].2,
        "The database is full and takes no more writes. It can be read, and keys can be \
         deleted. Ask for more units, or delete keys: the broker then makes room and lets it take \
         writes again."
    );
}

#[test]
fn what_is_known_of_the_database_is_told_whatever_its_members_say() {
    let told = |watch: &DatabaseWatch| -> Vec<(Gravity, String)> {
        of_database(watch)
            .into_iter()
            .map(|alert| (alert.gravity, alert.message))
            .collect()
    };
    assert_eq!(told(&database()), []);
    let closed = DatabaseWatch {
        version: version("3.5.35"),
        is_safe_full: false,
        safe_full_from: Some(version("3.6.16")),
        closed_since: Some(at(0)),
        ..database()
    };
    let [(gravity, message)] = &told(&closed)[..] else {
        panic!("one alert");
    };
    assert_eq!(*gravity, Gravity::Critical);
    assert!(message.starts_with("Since 2023-11-14 22:13:20 UTC nobody but the broker is let in"));
    assert!(message.contains("or upgrade to 3.6.16"), "{message}");
    let open = DatabaseWatch {
        limits_not_held: 2,
        limits_held_by: Some(version("3.6.16")),
        ..database()
    };
    assert_eq!(
        told(&open),
        [(
            Gravity::Critical,
            "2 bindings have a role or a prefix, and etcd 3.6.16 does not hold users to them: \
             upgrade to 3.6.16."
                .to_owned()
        )]
    );
    let incident = DatabaseWatch {
        incidents: vec![Incident {
            at: at(0),
            message: "There was a user.".to_owned(),
        }],
        ..database()
    };
    let expected = "2023-11-14 22:13:20 UTC: There was a user.".to_owned();
    assert_eq!(told(&incident), [(Gravity::Warning, expected)]);
    let says_when = "It was closed until 2023-11-14 22:13:20 UTC.".to_owned();
    let incident = DatabaseWatch {
        incidents: vec![Incident {
            at: at(0),
            message: says_when.clone(),
        }],
        ..database()
    };
    assert_eq!(told(&incident), [(Gravity::Warning, says_when)]);
}

#[test]
fn known_faults_are_told_with_what_mends_them() {
    let fault = |id, severity, fixed_in: Option<&str>| KnownFault {
        id,
        severity,
        summary: "It happens.",
        fixed_in: fixed_in.map(version),
    };
    let told = |faults: &[KnownFault]| {
        let watch = DatabaseWatch {
            faults: faults.to_vec(),
            faultless: Some(version("3.7.3")),
            ..database()
        };
        let alert = of_database(&watch).pop().expect("an alert");
        (alert.gravity, alert.message)
    };
    let minor = fault("minor", Severity::Minor, Some("3.7.1"));
    let serious = fault("CVE-1", Severity::Serious, Some("3.6.17"));
    let open = fault("CVE-2", Severity::LetsStrangersIn, None);
    assert_eq!(
        told(&[minor]),
        (
            Gravity::Notice,
            "etcd 3.6.16 has a known fault. minor: It happens (fixed in 3.7.1). Upgrade to 3.7.3, which has \
             no known fault."
                .to_owned()
        )
    );
    assert_eq!(told(&[serious]).0, Gravity::Warning);
    let (gravity, message) = told(&[open, serious, serious, minor, minor]);
    assert_eq!(gravity, Gravity::Warning);
    assert!(
        message.contains("(fixed in 3.6.17). And 2 more. Upgrade to 3.7.3"),
        "{message}"
    );
}

#[test]
fn a_flawed_backup_is_told_of_with_what_to_do() {
    let flawed = BackupWatch {
        flawed: Some(FlawedBackup {
            taken_at: at(0),
            flaw: Flaw {
                at: at(60),
                version: Some(version("3.6.16")),
                reason: "its number of keys is 1, not 2".to_owned(),
            },
            count: 2,
        }),
        newest_proved: Some(at(-86_400)),
        ..watch("i", 0, Some(at(0)))
    };
    let told = alerts(at(100), &database(), None, &flawed);
    let alert = told.iter().find(|of| of.subject == Subject::Proof);
    let alert = alert.expect("an alert");
    assert_eq!(
        (alert.gravity, alert.since),
        (Gravity::Critical, Some(at(60)))
    );
    assert_eq!(
        alert.message,
        "The backup of 2023-11-14 22:13:20 UTC was restored into 3.6.16 to be proved, and is not what \
         its manifest says: its number of keys is 1, not 2. Of its backups 2 are so. Do not rely on it: \
         back the database up by hand, and tell the operator. The newest one that was proved is of \
         2023-11-13 22:13:20 UTC, and is kept."
    );
    let mut spoiled = flawed;
    let found = spoiled.flawed.as_mut().expect("a flaw");
    found.flaw.version = None;
    let told = alerts(at(100), &database(), None, &spoiled);
    let alert = told.iter().find(|of| of.subject == Subject::Proof);
    let message = &alert.expect("an alert").message;
    let begins = "The backup of 2023-11-14 22:13:20 UTC was read again, and its bytes are not what was stored: its";
    assert!(message.starts_with(begins), "{message}");
}

#[test]
fn backups_that_are_not_proved_in_time_are_told_of_once() {
    let hours = |hours: i64| at(hours * 3600);
    let proved = |newest_proved, newest_good| BackupWatch {
        newest_proved,
        newest_good,
        proved_within: Some(TimeDelta::hours(26)),
        doubt: Some("there is no room".to_owned()),
        ..watch("i", 0, None)
    };
    let told = |now, watch: &BackupWatch| {
        let told = alerts(hours(now), &database(), None, watch).into_iter();
        let told = told.filter(|alert| alert.subject == Subject::Backup);
        told.map(|alert| (alert.gravity, alert.message))
            .collect::<Vec<_>>()
    };
    let good = proved(Some(hours(0)), Some(hours(25)));
    assert_eq!(told(25, &good), []);
    let late = told(26, &good);
    assert_eq!(late.len(), 1, "{late:?}");
    assert_eq!(late[0].0, Gravity::Warning);
    assert_eq!(
        late[0].1,
        "Backups are not proved in time: the newest proved backup is of 2023-11-14 22:13:20 UTC, and may \
         be 26 hours old. Of the newest backup: there is no room. The broker goes on trying. Tell the \
         operator, who finds the reason in the operations of the kind proof."
    );
    let missed = proved(Some(hours(0)), Some(hours(51)));
    assert_eq!(told(52, &missed)[0].0, Gravity::Critical);
    let never = told(26, &proved(None, Some(hours(25))));
    assert_eq!(never[0].0, Gravity::Critical);
    assert!(
        never[0].1.contains("no backup was proved since"),
        "{never:?}"
    );
    // A backup that does not come is told of as that.
    let none = told(999, &proved(None, None));
    assert_eq!(none.len(), 1, "{none:?}");
    assert!(
        none[0].1.starts_with("The scheduled backup is late"),
        "{none:?}"
    );
    // What cannot be proved is no fault; once the key of the tenant is gone, there is time for a proof again.
    let excused = BackupWatch {
        newest_excused: Some(hours(20)),
        ..good.clone()
    };
    assert_eq!(told(45, &excused), []);
    assert_eq!(told(46, &excused).len(), 1);
    // Who does not want proofs is not told of them.
    let off = BackupWatch {
        proved_within: None,
        ..good.clone()
    };
    assert_eq!(told(40, &off), []);
    let moved = Schedule {
        counts_from: Some(hours(40)),
        ..good.schedule.clone().expect("a schedule")
    };
    let moved = BackupWatch {
        schedule: Some(moved),
        ..good
    };
    assert_eq!(told(41, &moved), [], "another hour was chosen");
    assert_eq!(told(43, &moved).len(), 1);
}

#[test]
fn an_instance_without_a_schedule_has_no_late_backup() {
    let watch = BackupWatch {
        schedule: None,
        ..watch("i", 9, None)
    };
    assert_eq!(of_backups(at(0) + Days::new(99), &watch), None);
}

#[test]
fn backups_that_keep_failing_are_told_of_before_they_are_late() {
    let gravity = |failures| of_backups(at(0), &watch("i", failures, None)).map(|a| a.gravity);
    assert_eq!(gravity(BACKUP_FAILURES_TELLING - 1), None);
    assert_eq!(gravity(BACKUP_FAILURES_TELLING), Some(Gravity::Warning));
    let late = watch("i", 2, Some(at(0)));
    let alert = of_backups(at(0) + Days::new(2), &late).expect("an alert");
    assert_eq!(alert.gravity, Gravity::Critical);
    assert_eq!(
        alert.message,
        "The scheduled backup is late: the newest good one is of 2023-11-14 22:13:20 UTC. The last 2 \
         tries failed. The failed backups say why. Back it up by hand when that is mended."
    );
}

proptest! {
    #[test]
    fn a_backup_is_late_a_day_and_the_allowance_after_its_forerunner_at_the_latest(
        instance in "[a-z0-9-]{1,36}", after in 0i64..10_000_000, later in 0i64..1_000_000,
    ) {
        let taken = at(after);
        let watch = watch(&instance, 0, Some(taken));
        let allowance = TimeDelta::from_std(BACKUP_LATE_AFTER).expect("a duration");
        let is_late = |at| of_backups(at, &watch).is_some();
        prop_assert!(!is_late(taken + allowance));
        prop_assert!(is_late(taken + Days::new(1) + allowance));
        // What is late stays late until a good one comes, whatever time it is; and a clock that is
        // set back makes nothing late.
        prop_assert!(is_late(taken + Days::new(1) + allowance + TimeDelta::seconds(later)));
        prop_assert!(!is_late(taken - TimeDelta::seconds(later)));
    }

    #[test]
    fn a_schedule_that_is_kept_to_is_never_late(
        instance in "[a-z0-9-]{1,36}", made in 0i64..10_000_000,
        delays in prop::collection::vec(0i64..7000, 1..20),
    ) {
        let id: InstanceId = instance.parse().expect("an id");
        let mut watch = BackupWatch { ready_at: at(made), ..watch(&instance, 0, None) };
        let mut slot = Schedule::begin(id, at(made)).next_at;
        for delay in delays {
            // The moment before the backup is complete is the latest.
            let taken = slot + TimeDelta::seconds(delay);
            prop_assert_eq!(of_backups(taken, &watch), None);
            watch.newest_good = Some(taken);
            prop_assert_eq!(of_backups(taken, &watch), None);
            slot += TimeDelta::days(1);
        }
    }

    #[test]
    fn the_worst_comes_first(healths in prop::collection::vec(0u8..4, 3), failures in 0u32..9) {
        let health = |kind: u8| match kind {
            0 => serving(1, &[]),
            1 => serving(QUOTA - 1, &[Complaint::Differs]),
            2 => MemberHealth::Degraded(Degradation::Leaderless("has no majority behind it")),
            _ => silent(),
        };
        let seen = seen(healths.into_iter().map(health).collect());
        let all = alerts(at(0), &database(), Some(&seen), &watch("i", failures, None));
        prop_assert!(all.is_sorted_by_key(|alert| alert.gravity));
        prop_assert!(all.iter().all(|alert| !alert.message.is_empty()));
    }
}
