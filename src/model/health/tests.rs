//! Every word, and that nothing worse makes it better.

use proptest::prelude::*;

use super::*;
use crate::model::{
    alert::{BackupWatch, RepairWatch, alerts, tests::database},
    observation::{
        Degradation, MemberHealth, MemberObservation, MemberRole, Silence, SilenceCause,
    },
    operation::{OperationState, Progress},
    origin::Origin,
    repair::{Damage, Repair},
    trouble::Trouble,
};

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000 + seconds, 0).expect("a time")
}

/// How a member was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Member {
    Serves,
    Full,
    Leaderless,
    Silent,
}

fn member((i, member): (usize, &Member)) -> MemberObservation {
    let health = match member {
        Member::Serves | Member::Full => MemberHealth::Serving {
            role: MemberRole::of(i == 0),
            version: "3.6.16".to_owned(),
            database_bytes: 1,
            used_bytes: Some(1),
            changes: 1,
            is_full: *member == Member::Full,
            differs: false,
            complaints: Vec::new(),
        },
        Member::Leaderless => {
            MemberHealth::Degraded(Degradation::Leaderless("has no majority behind it"))
        }
        Member::Silent => MemberHealth::Silent(Silence {
            cause: SilenceCause::Slow,
            detail: String::new(),
        }),
    };
    MemberObservation {
        name: format!("m{i}"),
        url: String::new(),
        health,
    }
}

fn seen(members: &[Member]) -> Observation {
    seen_at(60, members)
}

fn seen_at(seconds: i64, members: &[Member]) -> Observation {
    let members = members.iter().enumerate().map(member).collect();
    Observation::first(members, 2, at(seconds))
}

/// Since when members are as they are, and since when the database is full, after each of these looks, in seconds.
fn since(looks: &[(i64, [Member; 3])]) -> Vec<(i64, Option<i64>)> {
    let seconds = |time: DateTime<Utc>| (time - at(0)).num_seconds();
    let mut last: Option<Observation> = None;
    let each = looks.iter().map(|(at, members)| {
        let seen = seen_at(*at, members);
        let seen = match &last {
            Some(before) => seen.after(&before.lasting()),
            None => seen,
        };
        let told = (seconds(seen.since), seen.full_since.map(seconds));
        last = Some(seen);
        told
    });
    each.collect()
}

#[test]
fn a_full_database_is_full_since_the_same_moment_whatever_becomes_of_its_members() {
    let looks = [
        (1, [Serves, Serves, Serves]),
        (2, [Full, Serves, Serves]),
        (3, [Full, Serves, Silent]),
        (4, [Silent, Silent, Silent]),
        (5, [Full, Serves, Serves]),
        (6, [Full, Full, Full]),
        (7, [Serves, Serves, Serves]),
    ];
    assert_eq!(
        since(&looks),
        [
            (1, None),
            (1, Some(2)),
            (3, Some(2)),
            (4, Some(2)),
            (5, Some(2)),
            (5, Some(2)),
            (5, None)
        ]
    );
}

#[test]
fn a_database_is_ready_since_it_was_opened_or_had_room_again() {
    let first = seen_at(1, &WELL);
    let full = seen_at(2, &[Full, Serves, Serves]).after(&first.lasting());
    let closed = seen_at(3, &WELL).closed().after(&full.lasting());
    let open = seen_at(4, &WELL).after(&closed.lasting());
    let later = seen_at(5, &WELL).after(&open.lasting());
    assert_eq!(
        [&first, &full, &closed, &open, &later].map(|seen| seen.open_since),
        [Some(at(1)), None, None, Some(at(4)), Some(at(4))]
    );
    let told = of(&life(InstanceState::Ready), &database(), Some(&later));
    assert_eq!((told.state, told.since), (HealthState::Ready, Some(at(4))));
    assert_eq!(
        told.message,
        "All 3 members have served since 2023-11-14 22:13:21 UTC, and it has had room for writes since \
         2023-11-14 22:13:24 UTC. Nothing to do."
    );
}

fn operation(kind: OperationKind, state: OperationState, failure: Option<&str>) -> Operation {
    let instance = "i".parse().expect("an id");
    Operation {
        state,
        failure: failure.map(str::to_owned),
        progress: Progress {
            step: "Starting members".to_owned(),
            steps_total: 3,
            ..Progress::default()
        },
        updated_at: at(30),
        ..Operation::queued(kind, &instance, Origin::Osb, at(20))
    }
}

fn life(state: InstanceState) -> Life {
    Life {
        state,
        created_at: at(0),
        under_way: Vec::new(),
        stuck: Vec::new(),
        failed: None,
    }
}

fn under_way(state: InstanceState, kind: OperationKind) -> Life {
    Life {
        under_way: vec![operation(kind, OperationState::Running, None)],
        ..life(state)
    }
}

fn of(life: &Life, database: &DatabaseWatch, seen: Option<&Observation>) -> Health {
    let backups = BackupWatch {
        schedule: None,
        ready_at: at(0),
        newest_good: None,
        newest_excused: None,
        newest_proved: None,
        flawed: None,
        proved_within: None,
        doubt: None,
        unmirrored: None,
    };
    let alerts = match life.state {
        InstanceState::Ready => alerts(at(60), database, seen, &backups),
        _ => Vec::new(),
    };
    health(life, database, seen, &alerts)
}

use Member::{Full, Leaderless, Serves, Silent};

const WELL: [Member; 3] = [Serves, Serves, Serves];

#[test]
fn each_word_says_what_since_when_and_what_to_do() {
    let ready = life(InstanceState::Ready);
    let well = of(&ready, &database(), Some(&seen(&WELL)));
    assert_eq!(
        well,
        Health {
            state: HealthState::Ready,
            down: None,
            message: "All 3 members have served since 2023-11-14 22:14:20 UTC. Nothing to do."
                .to_owned(),
            since: Some(at(60)),
        }
    );
    let updated = under_way(InstanceState::Ready, OperationKind::Update);
    let told = of(&updated, &database(), Some(&seen(&WELL)));
    assert_eq!(
        (told.state, told.since),
        (HealthState::Changing, Some(at(20)))
    );
    assert_eq!(
        told.message,
        "Its update has been under way since 2023-11-14 22:13:40 UTC: Starting members (step 1 of 3). The \
         database serves meanwhile. Nothing to do."
    );
    let made = under_way(InstanceState::Provisioning, OperationKind::Provision);
    let told = of(&made, &database(), None);
    assert_eq!(told.state, HealthState::Changing);
    assert_eq!(
        told.message,
        "It is being created, since 2023-11-14 22:13:20 UTC: Starting members (step 1 of 3). It can be \
         used when that is done."
    );
    let told = of(&ready, &database(), Some(&seen(&[Serves, Silent, Serves])));
    assert_eq!(
        (told.state, told.since),
        (HealthState::Degraded, Some(at(60)))
    );
    assert_eq!(
        told.message,
        "Since 2023-11-14 22:14:20 UTC only 2 of 3 members serve; m1 does not. It can be used. The broker \
         starts a member again when its process ends. If this lasts, tell the broker's operator."
    );
    let told = of(&ready, &database(), Some(&seen(&[Full, Serves, Serves])));
    assert_eq!(told.state, HealthState::ReadOnly);
    assert!(
        told.message.starts_with("It has been full since 2023-"),
        "{told:?}"
    );
    let deleted = under_way(InstanceState::Deleting, OperationKind::Deprovision);
    let told = of(&deleted, &database(), None);
    assert_eq!(
        (told.state, told.since),
        (HealthState::Deleting, Some(at(20)))
    );
    for (members, says) in [
        (
            [Leaderless, Silent, Silent],
            "no member serves; 2 of 3 are needed. Reads and writes fail.",
        ),
        (
            [Serves, Silent, Silent],
            "only 1 of 3 members serves; 2 of 3 are needed.",
        ),
        (
            [Silent, Silent, Silent],
            "no member serves; 2 of 3 are needed. Reads and writes fail.",
        ),
    ] {
        let told = of(&ready, &database(), Some(&seen(&members)));
        assert_eq!(told.state, HealthState::Down);
        assert_eq!(told.down, Some(DownReason::Members));
        assert!(told.message.contains(says), "{told:?}");
        assert!(
            told.message
                .contains("2 of 3 are needed. Reads and writes fail."),
            "{told:?}"
        );
    }
}

#[test]
fn what_nobody_saw_is_unknown() {
    let ready = life(InstanceState::Ready);
    for seen in [None, Some(seen(&[]))] {
        let told = of(&ready, &database(), seen.as_ref());
        assert_eq!(told.state, HealthState::Unknown);
        assert_eq!(told.since, None);
    }
    // What is known is told all the same.
    let closed = DatabaseWatch {
        closed_since: Some(at(5)),
        ..database()
    };
    let told = of(&ready, &closed, None);
    assert_eq!((told.state, told.since), (HealthState::Down, Some(at(5))));
    assert_eq!(told.down, Some(DownReason::Closed));
}

#[test]
fn a_closed_database_is_down_for_its_members_only_while_too_few_serve() {
    let ready = life(InstanceState::Ready);
    let closed = DatabaseWatch {
        closed_since: Some(at(5)),
        ..database()
    };
    let because = |members: &[Member]| of(&ready, &closed, Some(&seen(members))).down;
    assert_eq!(because(&WELL), Some(DownReason::Closed));
    assert_eq!(because(&[Serves, Silent, Serves]), Some(DownReason::Closed));
    assert_eq!(
        because(&[Serves, Silent, Silent]),
        Some(DownReason::Members)
    );
    let recovered = DatabaseWatch {
        is_recovered: true,
        ..closed.clone()
    };
    let told = of(&ready, &recovered, Some(&seen(&[Silent, Silent, Silent])));
    assert_eq!(told.down, Some(DownReason::Recovery));
}

#[test]
fn what_failed_or_is_stuck_says_why() {
    let failed = |kind| Life {
        failed: Some(operation(kind, OperationState::Failed, Some("no room."))),
        ..life(InstanceState::Failed)
    };
    let told = of(&failed(OperationKind::Provision), &database(), None);
    assert_eq!(
        (told.state, told.since),
        (HealthState::Failed, Some(at(30)))
    );
    assert_eq!(
        told.message,
        "Its creation failed at 2023-11-14 22:13:50 UTC: no room. Delete it, and make it anew."
    );
    let told = of(&failed(OperationKind::Deprovision), &database(), None);
    assert!(told.message.contains("Delete it again"), "{told:?}");
    let stuck = Life {
        stuck: vec![operation(
            OperationKind::Deprovision,
            OperationState::Stuck,
            Some("no answer"),
        )],
        ..failed(OperationKind::Deprovision)
    };
    let told = of(&stuck, &database(), None);
    assert_eq!(told.state, HealthState::Stuck);
    assert_eq!(
        told.message,
        "Its deletion failed, and so did the clean-up, at 2023-11-14 22:13:50 UTC: no answer. The broker's \
         operator has to retry it or give it up."
    );
}

#[test]
fn a_deletion_that_waits_for_its_last_backup_says_until_when() {
    let trouble = Trouble {
        tries: 2,
        since: at(20),
        reason: "no answer within 20 s".to_owned(),
        next: None,
        until: Some(at(140)),
    };
    let backup = Operation {
        trouble: Some(trouble),
        ..operation(OperationKind::FinalBackup, OperationState::Running, None)
    };
    let deletion = Operation {
        progress: Progress::default(),
        ..operation(OperationKind::Deprovision, OperationState::Queued, None)
    };
    let deleting = Life {
        under_way: vec![backup, deletion],
        ..life(InstanceState::Deleting)
    };
    let told = of(&deleting, &database(), None);
    assert_eq!(told.state, HealthState::Deleting);
    assert_eq!(
        told.message,
        "It is being deleted, with its bindings, since 2023-11-14 22:13:40 UTC: the deletion waits for its last \
         backup, which fails (no answer within 20 s); the broker tries it until 2023-11-14 22:15:40 UTC, and then \
         deletes the instance without it: older backups stay."
    );
}

#[test]
fn what_befell_the_database_is_told_whatever_its_members_say() {
    let ready = life(InstanceState::Ready);
    let well = seen(&WELL);
    let recovered = DatabaseWatch {
        is_recovered: true,
        ..database()
    };
    let told = of(&ready, &recovered, Some(&well));
    assert_eq!(told.state, HealthState::Down);
    assert!(
        told.message.starts_with("Most members were lost"),
        "{told:?}"
    );
    let repaired = DatabaseWatch {
        repair: Some(RepairWatch {
            repair: Repair {
                member: "m1".to_owned(),
                because: Damage::Lost,
            },
            failure: None,
        }),
        ..database()
    };
    let repairing = under_way(InstanceState::Ready, OperationKind::Repair);
    let told = of(&repairing, &repaired, Some(&well));
    assert_eq!(
        (told.state, told.since),
        (HealthState::Degraded, Some(at(20)))
    );
    let ends = "Meanwhile the replacement of a member is under way.";
    assert!(told.message.ends_with(ends), "{told:?}");
    let limited = DatabaseWatch {
        limits_not_held: 1,
        ..database()
    };
    assert_eq!(
        of(&ready, &limited, Some(&well)).state,
        HealthState::Degraded
    );
}

#[test]
fn words_are_read_back() {
    for state in HealthState::ALL {
        assert_eq!(HealthState::parse(state.as_str()), Some(state));
    }
    assert_eq!(HealthState::parse("fine"), None);
}

fn any_member() -> impl Strategy<Value = Member> {
    prop::sample::select(vec![Serves, Full, Leaderless, Silent])
}

fn any_operations(state: OperationState) -> impl Strategy<Value = Vec<Operation>> {
    let kind = prop::sample::select(OperationKind::ALL.to_vec());
    let made = kind.prop_map(move |kind| operation(kind, state, None));
    prop::collection::vec(made, 0..3)
}

fn any_life() -> impl Strategy<Value = Life> {
    use InstanceState::{Deleting, Failed, Provisioning, Ready};
    let state = prop::sample::select(vec![Ready, Provisioning, Failed, Deleting]);
    let running = any_operations(OperationState::Running);
    let stuck = any_operations(OperationState::Stuck);
    (state, running, stuck).prop_map(|(state, under_way, stuck)| Life {
        under_way,
        stuck,
        ..life(state)
    })
}

fn any_database() -> impl Strategy<Value = DatabaseWatch> {
    (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(closed, recovered, limited)| {
        DatabaseWatch {
            closed_since: closed.then(|| at(1)),
            is_recovered: recovered,
            limits_not_held: usize::from(limited),
            ..database()
        }
    })
}

proptest! {
    #[test]
    fn what_cannot_be_used_is_never_called_well(
        life in any_life(), database in any_database(), others in any_member(),
    ) {
        let down = seen(&[others, Silent, Leaderless]);
        let told = of(&life, &database, Some(&down));
        prop_assert_ne!(told.state, HealthState::Ready);
        if life.state == InstanceState::Ready {
            prop_assert_eq!(told.state, HealthState::Down);
        }
        prop_assert_eq!(told.down.is_some(), told.state == HealthState::Down);
        let told = of(&life, &database, None);
        prop_assert_eq!(told.down.is_some(), told.state == HealthState::Down);
        prop_assert_ne!(told.state, HealthState::Ready, "nobody looked");
        prop_assert!(!told.message.is_empty());
    }

    #[test]
    fn nothing_worse_makes_it_better(
        life in any_life(),
        database in any_database(),
        members in prop::collection::vec(any_member(), 3),
        place in 0..3_usize,
        more in any_operations(OperationState::Stuck),
        doing in any_operations(OperationState::Running),
    ) {
        let before = of(&life, &database, Some(&seen(&members)));
        let mut fewer = members.clone();
        fewer[place] = Silent;
        // That it is full, somebody has to say.
        if fewer.contains(&Full) == members.contains(&Full) {
            let told = of(&life, &database, Some(&seen(&fewer)));
            prop_assert!(told.state >= before.state, "{:?} after {:?}", told, before);
        }
        let busier = Life {
            stuck: [life.stuck.clone(), more].concat(),
            under_way: [life.under_way.clone(), doing].concat(),
            ..life.clone()
        };
        let told = of(&busier, &database, Some(&seen(&members)));
        prop_assert!(told.state >= before.state, "{:?} after {:?}", told, before);
        let closed = DatabaseWatch { closed_since: Some(at(2)), ..database };
        let told = of(&life, &closed, Some(&seen(&members)));
        prop_assert!(told.state >= before.state, "{:?} after {:?}", told, before);
    }
}
