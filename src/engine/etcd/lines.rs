//! What is known of etcd's lines of versions: a new line is one entry here. docs/etcd.md tells
//! where each fact comes from.

use crate::model::{
    engine::{Advisory, Affected, Entry, Line, Profile, Severity},
    server::EngineBinaries,
};

use super::{NAME, addresses, damage, figures, files, header, printed, programs, users};

/// The advisory of versions whose data a defragmentation may damage.
const DAMAGED_BY_DEFRAGMENTATION: &str = "etcd#20271";

/// Most units of one instance: 8 GiB, the largest storage quota that etcd's makers advise.
const UNITS_MAX: u32 = 32;
/// Disk that a member needs before it holds anything, in bytes: etcd sets two files of 64 MiB aside for
/// its log.
const MEMBER_BYTES_MIN: u64 = 128 * 1024 * 1024;
/// What a member's log of changes has at most, in bytes: etcd keeps five files of 64 MiB, and sets the
/// next one aside.
const LOG_BYTES_MAX: u64 = 6 * 64 * 1024 * 1024;

/// etcd's lines, faults, and what follows what.
pub static PROFILE: Profile = Profile {
    name: NAME,
    members: 3,
    members_needed: 2,
    units_max: UNITS_MAX,
    member_bytes_min: MEMBER_BYTES_MIN,
    log_bytes_max: LOG_BYTES_MAX,
    ports: &addresses::PORTS,
    binaries: EngineBinaries {
        offered: |version| PROFILE.offers(*version),
        ..programs::BINARIES
    },
    lines: &[
        Line {
            major: 3,
            minor: 3,
            offered_from: 0,
            restores_from: (3, 3),
            entry: None,
            limits_users_from: None,
            full_is_safe_from: None,
            alarms_guarded_from: None,
            flags: &[
                "--log-output=stderr",
                // Its old interface knows none of the users: anybody could write there.
                "--enable-v2=false",
                FEWER_ENTRIES,
            ],
        },
        Line {
            major: 3,
            minor: 4,
            offered_from: 0,
            restores_from: (3, 3),
            entry: Some(PLAIN_ENTRY),
            limits_users_from: None,
            full_is_safe_from: None,
            alarms_guarded_from: Some(42),
            flags: &[LOGGER, LOG_OUTPUTS, BCRYPT_COST, FEWER_ENTRIES],
        },
        Line {
            major: 3,
            minor: 5,
            // 3.5.0 to 3.5.2 lose data after a crash; 3.5.0 and 3.5.1 fall over for good at the
            // first password change of a user that came from 3.3.
            offered_from: 3,
            restores_from: (3, 3),
            entry: Some(PLAIN_ENTRY),
            limits_users_from: None,
            full_is_safe_from: None,
            alarms_guarded_from: Some(28),
            flags: &[LOGGER, LOG_OUTPUTS, BCRYPT_COST, FEWER_ENTRIES],
        },
        Line {
            major: 3,
            minor: 6,
            offered_from: 14,
            restores_from: (3, 3),
            entry: Some(Entry {
                leaves_from: 26,
                checkpointed: true,
                has_way_back: true,
            }),
            limits_users_from: Some(14),
            full_is_safe_from: Some(14),
            alarms_guarded_from: Some(9),
            flags: &[LOGGER, LOG_OUTPUTS, BCRYPT_COST, COMPARED_HASHES],
        },
        Line {
            major: 3,
            minor: 7,
            offered_from: 1,
            restores_from: (3, 3),
            entry: Some(Entry {
                leaves_from: 11,
                checkpointed: true,
                has_way_back: true,
            }),
            limits_users_from: Some(1),
            full_is_safe_from: Some(1),
            alarms_guarded_from: Some(0),
            flags: &[LOGGER, LOG_OUTPUTS, BCRYPT_COST, COMPARED_HASHES],
        },
    ],
    default_line: (3, 6),
    advisories: &ADVISORIES,
    unsound_giving_back: Some(DAMAGED_BY_DEFRAGMENTATION),
    snapshot_file: "snapshot.db",
    content: &figures::CONTENT,
    content_note: "Keys are those that users stored; etcd’s own tool also counts its users and roles.",
    url: addresses::url,
    uri: addresses::uri,
    command_line: users::command_line,
    database_file: files::DATABASE,
    checkpoints: files::CHECKPOINTS,
    tells_clients: figures::tells_clients,
    check_head: header::check,
    tells_damage: damage::is_reported,
    unobstructed: "Checked: no member is a learner, and no user can log in without a password.",
    without_secrets: printed::without_secrets,
};

/// A line that is entered by nothing but a newer binary.
const PLAIN_ENTRY: Entry = Entry {
    leaves_from: 0,
    checkpointed: false,
    has_way_back: false,
};

const LOGGER: &str = "--logger=zap";
const LOG_OUTPUTS: &str = "--log-outputs=stderr";
/// A high cost protects passwords that can be guessed. Ours are 256 random bits, and every member
/// pays the cost again for each new user and login.
const BCRYPT_COST: &str = "--bcrypt-cost=4";
/// Entries of the log that a member keeps in memory. Before 3.6 the default is ten times as many,
/// which doubles the memory that a busy member has.
const FEWER_ENTRIES: &str = "--snapshot-count=10000";
/// Members compare what they hold at each compaction; one that differs is an alarm, and no more
/// writes are taken.
const COMPARED_HASHES: &str = "--feature-gates=CompactHashCheck=true";

/// Faults that touch users of a database of ours. What needs certificates lists, JWT or a debug
/// log is left out: members have none of these.
static ADVISORIES: [Advisory; 21] = [
    Advisory {
        id: "etcd#22386",
        severity: Severity::LetsStrangersIn,
        summary: "While the storage is full, anybody without a login may delete keys and change users.",
        affected: &[never_fixed(3), never_fixed(4), never_fixed(5)],
    },
    Advisory {
        id: "CVE-2026-33343",
        severity: Severity::LetsStrangersIn,
        summary: "A transaction within a transaction reads and writes every key, even without a login.",
        affected: &[never_fixed(3), until(4, 42), until(5, 28), until(6, 9)],
    },
    Advisory {
        id: "CVE-2026-33413",
        severity: Severity::LetsStrangersIn,
        summary: "Anybody without a login may list members, set alarms, forget the history and make leases.",
        affected: &[never_fixed(3), until(4, 42), until(5, 28), until(6, 9)],
    },
    Advisory {
        id: "CVE-2026-73499",
        severity: Severity::Serious,
        summary: "Who may read one key may watch every key after it.",
        affected: &[
            never_fixed(3),
            never_fixed(4),
            until(5, 33),
            until(6, 14),
            until(7, 1),
        ],
    },
    Advisory {
        id: "CVE-2026-44283",
        severity: Severity::Serious,
        summary: "A put within a transaction reads a value without the right to, or takes another user's lease.",
        affected: &[never_fixed(3), until(4, 44), until(5, 30), until(6, 11)],
    },
    Advisory {
        id: "CVE-2023-32082",
        severity: Severity::Serious,
        summary: "Anybody may see the names of the keys that hang on a lease.",
        affected: &[never_fixed(3), until(4, 26), until(5, 9)],
    },
    Advisory {
        id: "CVE-2026-73500",
        severity: Severity::Serious,
        summary: "Connections that never finish their TLS handshake use up a member's memory.",
        affected: &[
            never_fixed(3),
            never_fixed(4),
            until(5, 33),
            until(6, 14),
            until(7, 1),
        ],
    },
    Advisory {
        id: DAMAGED_BY_DEFRAGMENTATION,
        severity: Severity::Serious,
        summary: "A defragmentation while a member receives a snapshot may damage its data.",
        affected: &[until(4, 38), until(5, 23), until(6, 5)],
    },
    Advisory {
        id: "etcd#18799",
        severity: Severity::Serious,
        summary: "A member that fails in the midst of a transaction may apply a part of it.",
        affected: &[until(5, 17)],
    },
    Advisory {
        id: "etcd#17780",
        severity: Severity::Serious,
        summary: "A crash while the history is forgotten can set the revision back.",
        affected: &[until(4, 32), until(5, 14)],
    },
    Advisory {
        id: "etcd#14649",
        severity: Severity::Serious,
        summary: "After a member received a snapshot, its users may differ from those of the others.",
        affected: &[until(4, 22), until(5, 6)],
    },
    Advisory {
        id: "etcd#17612",
        severity: Severity::Serious,
        summary: "A watch may miss changes around the moment when the history is forgotten.",
        affected: &[until(4, 36), until(5, 18)],
    },
    Advisory {
        id: "etcd#17425",
        severity: Severity::Serious,
        summary: "Leases may end too early after a change of the leader.",
        affected: &[until(4, 31), until(5, 13)],
    },
    Advisory {
        id: "etcd#21417",
        severity: Severity::Serious,
        summary: "A member that was paused may answer with old values.",
        affected: &[until(4, 42), until(5, 28), until(6, 9)],
    },
    Advisory {
        id: "etcd#22340",
        severity: Severity::Serious,
        summary: "After a power failure a member that had received a snapshot may not start.",
        affected: &[never_fixed(4), until(5, 35), until(6, 16), until(7, 3)],
    },
    Advisory {
        id: "end of life",
        severity: Severity::Serious,
        summary: "The line is not maintained any more: what is found from now on stays.",
        affected: &[never_fixed(3), never_fixed(4)],
    },
    Advisory {
        id: "etcd#18667",
        severity: Severity::Minor,
        summary: "A transaction that writes, and reads at a revision that is forgotten, makes the members differ.",
        affected: &[
            never_fixed(3),
            never_fixed(4),
            never_fixed(5),
            never_fixed(6),
        ],
    },
    Advisory {
        id: "etcd#20615",
        severity: Severity::Minor,
        summary: "A lease may be said to be renewed although it has ended.",
        affected: &[until(4, 38), until(5, 23), until(6, 5)],
    },
    Advisory {
        id: "etcd#22167",
        severity: Severity::Minor,
        summary: "Puts within nested transactions are not counted against the storage quota.",
        affected: &[
            never_fixed(3),
            never_fixed(4),
            until(5, 33),
            until(6, 14),
            until(7, 1),
        ],
    },
    Advisory {
        id: "CVE-2023-44487",
        severity: Severity::Minor,
        summary: "Requests that are taken back at once use up a member's processor and memory.",
        affected: &[never_fixed(3), until(4, 28), until(5, 10)],
    },
    Advisory {
        id: "GHSA-hrxh-6v49-42gf",
        severity: Severity::Minor,
        summary: "Requests that are taken back at once use up a member's processor, past an earlier limit.",
        affected: &[never_fixed(4), until(5, 33), until(6, 14), until(7, 1)],
    },
];

/// All patches of etcd 3.`minor` before `patch`.
const fn until(minor: u32, patch: u32) -> Affected {
    Affected {
        major: 3,
        minor,
        from: 0,
        fixed: Some(patch),
    }
}

/// All patches of etcd 3.`minor` that there are.
const fn never_fixed(minor: u32) -> Affected {
    Affected {
        major: 3,
        minor,
        from: 0,
        fixed: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::version::Version;

    fn v(text: &str) -> Version {
        text.parse().expect("a version")
    }

    #[test]
    fn dangerous_versions_are_never_offered() {
        let offered = [
            "2.3.8", "3.2.9", "3.3.25", "3.4.23", "3.5.2", "3.5.3", "3.5.4", "3.6.13", "3.6.14",
            "3.7.0", "3.7.1", "3.8.0",
        ]
        .map(|text| PROFILE.offers(v(text)));
        let expected = [
            false, false, true, true, false, true, true, false, true, false, true, false,
        ];
        assert_eq!(offered, expected);
    }

    #[test]
    fn limits_are_promised_where_they_hold() {
        for old in ["3.3.25", "3.4.45", "3.5.35", "3.5.99", "2.3.8"] {
            assert!(!PROFILE.limits_users(v(old)), "{old}");
            assert!(!PROFILE.full_is_safe(v(old)), "{old}");
        }
        for new in ["3.6.14", "3.6.16", "3.7.1", "3.7.3"] {
            assert!(PROFILE.limits_users(v(new)), "{new}");
            assert!(PROFILE.full_is_safe(v(new)), "{new}");
        }
    }

    #[test]
    fn the_ladder_leads_through_the_newest_of_each_line() {
        let installed = [
            "3.3.25", "3.4.23", "3.5.16", "3.5.30", "3.5.35", "3.6.16", "3.7.3",
        ]
        .map(v);
        let path = |from: &str, to: &str| -> Vec<String> {
            let path = PROFILE.hops(v(from), v(to), &installed).expect("a way");
            path.iter().map(Version::to_string).collect()
        };
        assert_eq!(
            path("3.3.25", "3.7.3"),
            ["3.4.23", "3.5.35", "3.6.16", "3.7.3"]
        );
        assert_eq!(path("3.5.16", "3.6.16"), ["3.5.35", "3.6.16"]);
        assert_eq!(path("3.5.30", "3.6.16"), ["3.6.16"]);
        for (from, to) in [("3.5.35", "3.6.16"), ("3.6.16", "3.7.3")] {
            assert!(PROFILE.checkpoints(v(from), v(to)), "{from} to {to}");
        }
        assert!(!PROFILE.checkpoints(v("3.4.23"), v("3.5.35")));
        let lines = ["3.3.25", "3.4.23", "3.5.35", "3.6.16"];
        for backup in lines {
            for target in ["3.6.16", "3.7.3"] {
                let restored = PROFILE.for_restore(v(backup), Some(target), &installed);
                assert_eq!(restored.is_ok(), backup <= target, "{backup} into {target}");
            }
        }
    }

    #[test]
    fn each_version_knows_its_faults() {
        let ids = |text: &str| -> Vec<&str> {
            PROFILE
                .known_faults(v(text))
                .iter()
                .map(|fault| fault.id)
                .collect()
        };
        assert_eq!(ids("3.7.3"), Vec::<&str>::new());
        assert_eq!(ids("3.6.16"), ["etcd#18667"]);
        assert_eq!(ids("3.5.35"), ["etcd#22386", "etcd#18667"]);
        assert!(ids("3.3.25").contains(&"end of life"));
        for (version, id, fixed) in [
            ("3.5.30", "CVE-2026-73499", "3.5.33"),
            ("3.4.23", "CVE-2026-73499", "3.5.33"),
            ("3.5.35", "etcd#22386", "3.6.16"),
            ("3.6.16", "etcd#18667", "3.7.3"),
            ("3.4.23", "end of life", "3.6.16"),
        ] {
            let faults = PROFILE.known_faults(v(version));
            let fault = faults.iter().find(|fault| fault.id == id).expect(id);
            assert_eq!(fault.fixed_in, Some(v(fixed)), "{version} {id}");
        }
    }

    #[test]
    fn the_gravest_faults_come_first() {
        let severities: Vec<Severity> = ADVISORIES.iter().map(|a| a.severity).collect();
        assert!(severities.is_sorted());
    }

    #[test]
    fn no_flag_is_passed_that_its_line_does_not_know() {
        for line in PROFILE.lines {
            let old = line.minor < 4;
            for flag in line.flags {
                assert_eq!(
                    flag.starts_with("--enable-v2") || flag.starts_with("--log-output="),
                    old && !flag.starts_with("--snapshot")
                );
                assert!(!flag.contains("experimental"), "{flag}");
            }
        }
    }
}
