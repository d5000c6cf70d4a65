//! Rules about lines, on a made-up engine and with generated lists of versions.

use proptest::prelude::*;

use super::*;

fn v(text: &str) -> Version {
    text.parse().expect("a version")
}

const fn line(minor: u32, entry: Option<Entry>) -> Line {
    Line {
        major: 3,
        minor,
        offered_from: 0,
        restores_from: (3, 1),
        entry,
        limits_users_from: None,
        full_is_safe_from: None,
        alarms_guarded_from: Some(3),
        flags: &[],
    }
}

const fn entry(leaves_from: u32) -> Option<Entry> {
    Some(Entry {
        leaves_from,
        checkpointed: leaves_from > 0,
        has_way_back: false,
    })
}

/// Four lines. The third is entered from the tenth patch of the second on, the fourth restores
/// nothing older than the second.
pub(crate) static ENGINE: Profile = Profile {
    name: "sample",
    members: 3,
    members_needed: 2,
    binaries: EngineBinaries {
        engine: "thing",
        probe: "thing",
        probe_args: &[],
        parse_version: |printed| printed.parse().ok(),
        required: |_| &[],
        offered: |_| true,
    },
    ports: &[Port {
        name: "sql",
        used_by: PortUser::Applications,
    }],
    lines: &[
        line(1, None),
        line(2, entry(0)),
        Line {
            offered_from: 4,
            limits_users_from: Some(6),
            full_is_safe_from: Some(5),
            ..line(3, entry(10))
        },
        Line {
            restores_from: (3, 2),
            ..line(4, entry(0))
        },
    ],
    default_line: (3, 3),
    advisories: &[
        Advisory {
            id: "grave",
            severity: Severity::Serious,
            summary: "It loses data.",
            affected: &[
                Affected {
                    major: 3,
                    minor: 1,
                    from: 0,
                    fixed: None,
                },
                Affected {
                    major: 3,
                    minor: 2,
                    from: 3,
                    fixed: Some(7),
                },
            ],
        },
        Advisory {
            id: "open",
            severity: Severity::LetsStrangersIn,
            summary: "It lets everybody in.",
            affected: &[Affected {
                major: 3,
                minor: 4,
                from: 2,
                fixed: None,
            }],
        },
    ],
    unsound_giving_back: None,
    units_max: 4,
    member_bytes_min: 0,
    log_bytes_max: 64 << 20,
    snapshot_file: "snapshot.thing",
    content: &[
        Figure {
            name: "steps",
            plural: "steps",
            counts_changes: true,
            words: |_, written| format!("step {written}"),
        },
        Figure {
            name: "things",
            plural: "things",
            counts_changes: false,
            words: |_, written| format!("{written} things"),
        },
    ],
    url: |address| format!("thing://{address}"),
    uri: |address, login| format!("thing://{login}@{address}"),
    command_line: |version, urls, login| format!("{version} {urls:?} {login}"),
    database_file: FilesOfMember {
        folder: "data",
        has: |name| name == "all",
    },
    checkpoints: FilesOfMember {
        folder: "data",
        has: |name| name.ends_with(".state"),
    },
    tells_clients: |_| true,
    check_head: |_| Ok(()),
    tells_damage: |printed| printed.contains("broken"),
    content_note: "Things are all that there is.",
    unobstructed: "Nothing is in the way.",
    without_secrets: str::to_owned,
};

fn installed() -> Vec<Version> {
    ["3.1.5", "3.2.3", "3.2.12", "3.3.6", "3.4.1"]
        .map(v)
        .to_vec()
}

#[test]
fn a_new_instance_gets_the_default_line_or_what_it_asks_for() {
    assert_eq!(ENGINE.for_new(None, &installed()), Ok(v("3.3.6")));
    assert_eq!(ENGINE.for_new(Some("3.1.5"), &installed()), Ok(v("3.1.5")));
    let others = [v("3.1.5"), v("3.4.1")];
    assert_eq!(ENGINE.for_new(None, &others), Ok(v("3.4.1")));
    assert_eq!(
        ENGINE.for_new(None, &[]),
        Err(VersionRefusal::NoneAvailable)
    );
    let refusal = ENGINE
        .for_new(Some("9.9.9"), &installed())
        .expect_err("unknown");
    assert_eq!(
        refusal.to_string(),
        "db_version \"9.9.9\" is not available; choose one of: 3.4.1, 3.3.6, 3.2.12, 3.2.3, 3.1.5"
    );
    for text in ["3.3", "03.3.+6"] {
        assert!(ENGINE.for_new(Some(text), &installed()).is_err());
    }
    let nothing = ENGINE.for_new(Some("9.9.9"), &[]).expect_err("none");
    assert_eq!(
        nothing.to_string(),
        "db_version \"9.9.9\" is not available; no version of the database is available at the moment"
    );
    let gone = ENGINE.for_restore(v("3.4.1"), None, &[]).expect_err("none");
    let gone = gone.to_string();
    assert!(gone.contains("any more; no version that it"), "{gone}");
}

#[test]
fn a_restore_stays_in_its_line_unless_told_otherwise() {
    let restored = |backup: &str, wanted| ENGINE.for_restore(v(backup), wanted, &installed());
    assert_eq!(restored("3.2.3", None), Ok(v("3.2.12")));
    assert_eq!(restored("3.1.5", None), Ok(v("3.1.5")));
    assert_eq!(restored("3.1.5", Some("3.3.6")), Ok(v("3.3.6")));
    assert_eq!(restored("3.2.3", Some("3.4.1")), Ok(v("3.4.1")));
    assert!(matches!(
        restored("3.3.6", Some("3.2.12")),
        Err(VersionRefusal::OlderThanBackup { .. })
    ));
    assert!(matches!(
        restored("3.0.9", None),
        Err(VersionRefusal::LineGone { .. })
    ));
    let too_far = restored("3.1.5", Some("3.4.1")).expect_err("too far");
    assert!(
        too_far
            .to_string()
            .ends_with("one of: 3.3.6, 3.2.12, 3.2.3, 3.1.5"),
        "{too_far}"
    );
}

#[test]
fn only_known_lines_are_offered_from_their_first_safe_patch_on() {
    let offered =
        ["3.0.9", "3.1.0", "3.3.3", "3.3.4", "3.5.0", "4.1.0"].map(|text| ENGINE.offers(v(text)));
    assert_eq!(offered, [false, true, false, true, false, false]);
}

#[test]
fn promises_are_made_from_the_patch_on_that_keeps_them() {
    assert_eq!(
        ["3.2.99", "3.3.5", "3.3.6", "3.4.1"].map(|text| ENGINE.limits_users(v(text))),
        [false, false, true, false]
    );
    assert_eq!(ENGINE.limiting(&installed()), [v("3.3.6")]);
    assert_eq!(
        ["3.3.4", "3.3.5", "3.4.1"].map(|text| ENGINE.full_is_safe(v(text))),
        [false, true, false]
    );
    assert_eq!(
        ["3.3.2", "3.3.3", "3.9.0"].map(|text| ENGINE.strangers_say_full(v(text))),
        [true, false, true]
    );
}

#[test]
fn a_fault_tells_the_nearest_version_without_it() {
    let faults = |text: &str| -> Vec<(&str, Option<String>)> {
        ENGINE
            .known_faults(v(text))
            .iter()
            .map(|fault| (fault.id, fault.fixed_in.map(|version| version.to_string())))
            .collect()
    };
    assert_eq!(faults("3.1.9"), [("grave", Some("3.2.7".to_owned()))]);
    assert_eq!(faults("3.2.2"), []);
    assert_eq!(faults("3.2.3"), [("grave", Some("3.2.7".to_owned()))]);
    assert_eq!(faults("3.2.7"), []);
    assert_eq!(faults("3.4.2"), [("open", None)]);
}

#[test]
fn an_upgrade_goes_through_every_line() {
    let path = |from: &str, to: &str| ENGINE.hops(v(from), v(to), &installed());
    assert_eq!(
        path("3.1.5", "3.3.6"),
        Ok(vec![v("3.2.12"), v("3.3.6")]),
        "the newest of the line between"
    );
    assert_eq!(
        path("3.2.3", "3.3.6"),
        Ok(vec![v("3.2.12"), v("3.3.6")]),
        "its own line first, where what runs may not leave it"
    );
    assert_eq!(path("3.2.12", "3.3.6"), Ok(vec![v("3.3.6")]));
    assert_eq!(path("3.2.3", "3.2.12"), Ok(vec![v("3.2.12")]));
    assert_eq!(path("3.2.3", "3.2.3"), Ok(vec![]));
    let refused = |from: &str, to: &str| path(from, to).expect_err("refused").to_string();
    assert!(refused("3.3.6", "3.2.12").contains("older"));
    assert!(refused("3.3.6", "4.0.0").contains("restore"));
    assert!(refused("3.4.1", "3.5.0").contains("restore"));
    let gap = [v("3.1.5"), v("3.3.6")];
    let refusal = ENGINE
        .hops(v("3.1.5"), v("3.3.6"), &gap)
        .expect_err("a gap");
    assert!(
        refusal.to_string().contains("line 3.2 is available"),
        "{refusal}"
    );
    let too_old = [v("3.2.3"), v("3.3.6")];
    let refusal = ENGINE
        .hops(v("3.2.3"), v("3.3.6"), &too_old)
        .expect_err("too old to leave");
    assert!(
        refusal.to_string().contains("must become 3.2.10 or newer"),
        "{refusal}"
    );
}

#[test]
fn a_line_is_entered_as_its_table_says() {
    assert!(ENGINE.checkpoints(v("3.2.12"), v("3.3.6")));
    assert!(!ENGINE.checkpoints(v("3.3.4"), v("3.3.6")));
    assert!(!ENGINE.checkpoints(v("3.1.5"), v("3.2.12")));
}

#[test]
fn transitions_lead_only_forward() {
    let ways = |from: &str| -> Vec<String> {
        ENGINE
            .transitions(v(from), &installed())
            .iter()
            .map(|t| format!("{} {}", t.method.as_str(), t.to))
            .collect()
    };
    assert_eq!(
        ways("3.2.12"),
        [
            "in_place 3.3.6",
            "restore 3.3.6",
            "in_place 3.4.1",
            "restore 3.4.1"
        ]
    );
    assert!(ways("3.4.1").is_empty());
}

prop_compose! {
    fn any_version()(minor in 0u32..6, patch in 0u32..20) -> Version {
        Version { major: 3, minor, patch }
    }
}

proptest! {
    #[test]
    fn a_restore_never_goes_back(backup in any_version(), available in prop::collection::vec(any_version(), 0..8), pick in any::<prop::sample::Index>()) {
        let wanted = (!available.is_empty()).then(|| pick.get(&available).to_string());
        for wanted in [None, wanted.as_deref()] {
            if let Ok(chosen) = ENGINE.for_restore(backup, wanted, &available) {
                prop_assert!(chosen >= backup);
                prop_assert!(available.contains(&chosen));
            }
        }
    }

    #[test]
    fn an_upgrade_skips_no_line_and_never_goes_back(from in any_version(), available in prop::collection::vec(any_version(), 1..12), pick in any::<prop::sample::Index>()) {
        let to = *pick.get(&available);
        match ENGINE.hops(from, to, &available) {
            Ok(path) => {
                let mut at = from;
                for hop in &path {
                    prop_assert!(*hop > at && hop.minor - at.minor <= 1);
                    prop_assert!(available.contains(hop));
                    // On the way only: where it ends is for the user to say.
                    let newest = available.iter().filter(|v| v.same_line(hop)).max();
                    prop_assert!(*hop == to || newest == Some(hop));
                    if let Some(entry) = ENGINE.entry(at, *hop) {
                        prop_assert!(at.patch >= entry.leaves_from);
                    }
                    at = *hop;
                }
                prop_assert_eq!(at, to);
            }
            Err(UpgradeRefusal::Older { .. }) => prop_assert!(to < from),
            Err(UpgradeRefusal::LineMissing { minor, .. }) => {
                prop_assert!(from.minor < minor && minor < to.minor);
                prop_assert!(available.iter().all(|v| v.minor != minor));
            }
            Err(UpgradeRefusal::TooOldToLeave { leaves_from, .. }) => {
                prop_assert!(available.iter().all(|v| !v.same_line(&leaves_from) || *v < leaves_from));
            }
            Err(UpgradeRefusal::NoWay { .. }) => {
                prop_assert!(from.minor == 0 || to.minor == 5);
            }
        }
    }

    #[test]
    fn of_each_line_one_version_is_preferred(available in prop::collection::btree_set(any_version(), 1..10)) {
        let all: Vec<Version> = available.iter().copied().collect();
        let preferred: Vec<Version> = all.iter().filter(|v| is_preferred(v, &all)).copied().collect();
        for version in &all {
            prop_assert_eq!(preferred.iter().filter(|p| p.same_line(version)).count(), 1);
        }
        prop_assert!(preferred.contains(&ENGINE.for_new(None, &all).expect("one")));
    }
}

#[test]
fn a_severity_is_read_back_and_has_words_for_people() {
    for severity in [
        Severity::LetsStrangersIn,
        Severity::Serious,
        Severity::Minor,
    ] {
        assert_eq!(Severity::parse(severity.as_str()), Some(severity));
        assert!(!severity.words().contains('_'), "{severity:?}");
    }
    assert_eq!(Severity::parse("grave"), None);
}
