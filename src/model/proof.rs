//! Whether a backup can be restored, as proofs found it: what is kept of it, and when the next proof is due.
//! Pure.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::{
    backoff::backoff,
    limits::{PROOF_PAUSE_FIRST, PROOF_PAUSE_MAX, proof::BYTES_READ_EVERY},
    period::BackupKind,
    sentence::counted,
    version::Version,
};

/// What a backup was compared by when it was restored to be proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// All that is in it, by a hash over every key and value.
    Whole,
    /// The figures of what is in it: its manifest tells of no hash that can be compared.
    Figures,
}

impl Evidence {
    /// For programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Figures => "figures",
        }
    }
}

/// Whether a backup of a kind is restored aside soon after it was taken, where backups are proved at all. What is
/// taken since something is about to be changed or deleted is needed at once, and not waited for.
pub fn follows(kind: BackupKind, are_proved: bool) -> bool {
    are_proved && (kind.is_scheduled() || kind == BackupKind::OnDemand)
}

/// What came of restoring a backup into one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// It is what its manifest says.
    Same {
        /// The version that it was restored into.
        version: Version,
        /// What was compared.
        evidence: Evidence,
    },
    /// It is not, or its bytes are damaged.
    Differs {
        /// The version that it was restored into.
        version: Version,
        /// What is wrong, for people.
        reason: String,
    },
    /// Of one that was proved before: its stored bytes were read, and are those that were stored.
    Intact,
    /// Its stored bytes were read, and are not, or not there.
    Spoiled {
        /// What is wrong, for people.
        reason: String,
    },
    /// It could not be restored, which says nothing of the backup.
    Untried {
        /// Why, for people.
        reason: String,
    },
}

/// What was wrong with a backup when it was restored, or read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flaw {
    /// When that was found.
    pub at: DateTime<Utc>,
    /// The version that it was restored into; none: its stored bytes were read.
    pub version: Option<Version>,
    /// What is wrong, for people.
    pub reason: String,
}

/// What is known of whether a backup can be restored.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Proof {
    /// When it was restored last and was what its manifest says.
    pub verified_at: Option<DateTime<Utc>>,
    /// What was compared then.
    pub evidence: Option<Evidence>,
    /// When all of its stored bytes were read last, and were those that were stored.
    #[serde(default)]
    pub read_at: Option<DateTime<Utc>>,
    /// The versions that it was restored into since, oldest first.
    pub versions: Vec<Version>,
    /// What was wrong with it at the last proof.
    pub flaw: Option<Flaw>,
    /// Why the last proof came to nothing.
    pub hindrance: Option<String>,
    /// Proofs in a row that did not succeed.
    pub tries: u32,
}

/// What is due next to know that a backup can be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It is restored aside then.
    Proof(DateTime<Utc>),
    /// It is proved, and its stored bytes are read then.
    Reading(DateTime<Utc>),
}

/// A word for what is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It was restored, and was what its manifest says.
    Proved,
    /// It was restored and was something else, or its bytes are damaged.
    Flawed,
    /// Nobody knows yet.
    Unproved,
}

impl Standing {
    /// For programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Proved => "proved",
            Self::Flawed => "flawed",
            Self::Unproved => "unproved",
        }
    }
}

impl Proof {
    /// Why a complete backup is not proved, or not as a whole, for people. `are_on`: whether backups are proved
    /// at all.
    pub fn doubt(&self, are_on: bool) -> Option<String> {
        if let Some(flaw) = &self.flaw {
            let reason = &flaw.reason;
            return Some(match flaw.version {
                Some(version) => {
                    format!("restored into {version} it is not what its manifest says: {reason}")
                }
                None => format!("its stored bytes are not what was stored: {reason}"),
            });
        }
        if let Some(hindrance) = &self.hindrance {
            let tries = counted(self.tries, "try");
            return Some(format!(
                "it could not be restored to be proved, after {tries}: {hindrance}"
            ));
        }
        match (self.verified_at, are_on) {
            (Some(_), _) => None,
            (None, true) => Some("it waits for its turn to be proved".to_owned()),
            (None, false) => {
                Some("the operator of the broker has switched proofs of backups off".to_owned())
            }
        }
    }

    /// What is known in a word.
    pub fn standing(&self) -> Standing {
        match (&self.flaw, self.verified_at) {
            (Some(_), _) => Standing::Flawed,
            (None, Some(_)) => Standing::Proved,
            (None, None) => Standing::Unproved,
        }
    }

    /// What is known after a proof that found this, of one version after the other.
    pub fn after(&self, findings: &[Finding], now: DateTime<Utc>) -> Self {
        let mut after = Self {
            flaw: None,
            hindrance: None,
            ..self.clone()
        };
        for finding in findings {
            match finding {
                Finding::Same { version, evidence } => {
                    after.verified_at = Some(now);
                    after.read_at = Some(now);
                    after.evidence = Some(*evidence);
                    if let Err(place) = after.versions.binary_search(version) {
                        after.versions.insert(place, *version);
                    }
                }
                Finding::Differs { version, reason } => {
                    after.versions.retain(|proved| proved != version);
                    after.flaw = Some(Flaw {
                        at: now,
                        version: Some(*version),
                        reason: reason.clone(),
                    });
                }
                Finding::Intact => after.read_at = Some(now),
                Finding::Spoiled { reason } => {
                    after.versions.clear();
                    after.flaw = Some(Flaw {
                        at: now,
                        version: None,
                        reason: reason.clone(),
                    });
                }
                Finding::Untried { reason } => after.hindrance = Some(reason.clone()),
            }
        }
        if after.versions.is_empty() {
            (after.verified_at, after.evidence) = (None, None);
        }
        // What was wrong is so until a proof says otherwise.
        if after.hindrance.is_some() && after.flaw.is_none() {
            after.flaw.clone_from(&self.flaw);
        }
        let is_intact = findings.contains(&Finding::Intact) && after.flaw.is_none();
        after.tries = match after.is_over() || is_intact {
            true => 0,
            false => self.tries.saturating_add(1),
        };
        after
    }

    /// What is due next, of a backup that can be restored to be proved, or of one whose stored bytes alone can be
    /// read.
    pub fn next(&self, now: DateTime<Utc>, is_provable: bool) -> Next {
        let after = |pause| now + TimeDelta::from_std(pause).unwrap_or(TimeDelta::MAX);
        let is_read = !is_provable && self.flaw.is_none() && self.hindrance.is_none();
        if self.is_over() || is_read {
            return Next::Reading(after(BYTES_READ_EVERY));
        }
        let pause = backoff(self.tries, PROOF_PAUSE_FIRST, PROOF_PAUSE_MAX);
        Next::Proof(after(pause))
    }

    /// Whether it was restored and is as it should be: then reading its stored bytes tells whether it still is.
    pub fn is_over(&self) -> bool {
        self.standing() == Standing::Proved && self.hindrance.is_none()
    }
}

/// Whether there is a proved backup that is new enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Freshness {
    /// There is one, or it is too early for one.
    Fresh,
    /// The newest one is older than it should be.
    Late,
    /// It is twice as old as it may be: the next one was missed, too.
    Missed,
    /// There is none, and there should be one by now.
    Never,
}

impl Freshness {
    /// All of them that are told of.
    pub const TOLD: [Self; 3] = [Self::Late, Self::Missed, Self::Never];

    /// For programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Late => "late",
            Self::Missed => "missed",
            Self::Never => "never",
        }
    }

    /// Of an instance that is usable since `ready_at`, and whose newest proved backup was taken at `newest`: it may
    /// be as old as `within`.
    pub fn at(
        now: DateTime<Utc>,
        newest: Option<DateTime<Utc>>,
        ready_at: DateTime<Utc>,
        within: TimeDelta,
    ) -> Self {
        let age = now - newest.unwrap_or(ready_at);
        match newest {
            _ if age < within => Self::Fresh,
            None => Self::Never,
            Some(_) if age < within * 2 => Self::Late,
            Some(_) => Self::Missed,
        }
    }
}

/// The version that a backup of `from` is restored into to be proved, of those that are there: its own, or
/// else the nearest one that reads it.
pub fn own_version(
    from: Version,
    there: &[Version],
    reads: impl Fn(Version) -> bool,
) -> Option<Version> {
    let mut reading = there.iter().copied().filter(|version| reads(*version));
    if there.contains(&from) {
        return Some(from);
    }
    reading.find(|version| *version > from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version(text: &str) -> Version {
        text.parse().expect("a version")
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    fn same(text: &str) -> Finding {
        Finding::Same {
            version: version(text),
            evidence: Evidence::Whole,
        }
    }

    /// Until the next proof.
    fn pause(of: &Proof, now: DateTime<Utc>) -> TimeDelta {
        match of.next(now, true) {
            Next::Proof(at) => at - now,
            other => panic!("{other:?}"),
        }
    }

    fn differs(text: &str) -> Finding {
        Finding::Differs {
            version: version(text),
            reason: "it differs".to_owned(),
        }
    }

    fn untried() -> Finding {
        Finding::Untried {
            reason: "there is no room".to_owned(),
        }
    }

    #[test]
    fn what_is_needed_at_once_waits_for_no_proof() {
        for kind in BackupKind::ALL {
            let waits = [BackupKind::Safety, BackupKind::Final, BackupKind::Imported];
            assert_eq!(follows(kind, true), !waits.contains(&kind), "{kind}");
            assert!(!follows(kind, false), "{kind}");
        }
    }

    #[test]
    fn what_was_restored_as_it_should_be_is_proved_and_read_again_within_a_month() {
        let proof = Proof::default().after(&[same("3.5.30"), same("3.7.3")], at(5));
        assert_eq!(proof.standing(), Standing::Proved);
        assert_eq!(proof.verified_at, Some(at(5)));
        assert_eq!(proof.versions, [version("3.5.30"), version("3.7.3")]);
        assert_eq!(proof.read_at, Some(at(5)));
        let month = at(5) + TimeDelta::days(30);
        let reading = |of: &Proof, now| match of.next(now, true) {
            Next::Reading(at) => at,
            other => panic!("{other:?}"),
        };
        let mut next = reading(&proof, at(5));
        assert!(next > month - TimeDelta::days(2) && next < month);
        let read = proof.after(&[Finding::Intact], next);
        assert_eq!((read.verified_at, read.read_at), (Some(at(5)), Some(next)));
        assert_eq!(read.versions, proof.versions);
        next = reading(&read, next);
        // Bytes that went bad: nothing that was known of it holds any more.
        let reason = "it is not there".to_owned();
        let spoiled = read.after(&[Finding::Spoiled { reason }], next);
        assert_eq!(spoiled.standing(), Standing::Flawed);
        assert!(spoiled.versions.is_empty());
        assert_eq!(
            spoiled.doubt(true).as_deref(),
            Some("its stored bytes are not what was stored: it is not there")
        );
        assert!(!spoiled.is_over());
        assert!(pause(&spoiled, next) < TimeDelta::hours(1));
        let mended = spoiled.after(&[same("3.5.30")], next);
        assert_eq!(mended.standing(), Standing::Proved);
    }

    #[test]
    fn what_cannot_be_proved_is_read_again_and_looked_at_sooner_where_it_is_spoiled() {
        let read = |of: &Proof| matches!(of.next(at(0), false), Next::Reading(due) if due > at(20 * 24 * 3600));
        let proof = Proof::default();
        assert!(read(&proof));
        let intact = proof.after(&[Finding::Intact], at(5));
        assert_eq!((intact.read_at, intact.tries), (Some(at(5)), 0));
        assert_eq!(intact.standing(), Standing::Unproved);
        assert!(read(&intact));
        let reason = "it is not there".to_owned();
        let spoiled = intact.after(&[Finding::Spoiled { reason }], at(6));
        assert_eq!(spoiled.standing(), Standing::Flawed);
        assert!(matches!(spoiled.next(at(6), false), Next::Proof(due) if due < at(3600)));
        let mended = spoiled.after(&[Finding::Intact], at(7));
        assert_eq!((mended.standing(), mended.tries), (Standing::Unproved, 0));
        assert!(read(&mended));
    }

    #[test]
    fn what_could_not_be_tried_is_tried_again_ever_more_seldom() {
        let mut proof = Proof::default();
        let mut last = TimeDelta::zero();
        for _ in 0..40 {
            proof = proof.after(&[untried()], at(0));
            assert_eq!(proof.standing(), Standing::Unproved);
            let pause = pause(&proof, at(0));
            assert!(pause >= last);
            last = pause;
        }
        assert_eq!(last.to_std().expect("a pause"), PROOF_PAUSE_MAX);
        let proved = proof.after(&[same("3.5.30")], at(9));
        assert_eq!((proved.tries, proved.is_over()), (0, true));
    }

    #[test]
    fn what_was_wrong_is_so_until_a_proof_says_otherwise() {
        let flawed = Proof::default().after(&[differs("3.5.30")], at(1));
        assert_eq!(flawed.standing(), Standing::Flawed);
        assert!(!flawed.is_over());
        let untried = flawed.after(&[untried()], at(2));
        assert_eq!(untried.standing(), Standing::Flawed);
        assert_eq!(untried.flaw.as_ref().map(|flaw| flaw.at), Some(at(1)));
        let mended = untried.after(&[same("3.5.30")], at(3));
        assert_eq!(mended.standing(), Standing::Proved);
    }

    #[test]
    fn a_backup_that_only_a_newer_version_does_not_restore_keeps_what_was_proved() {
        let proof = Proof::default().after(&[same("3.5.30"), differs("3.7.3")], at(1));
        assert_eq!(proof.standing(), Standing::Flawed);
        assert_eq!(proof.versions, [version("3.5.30")]);
        assert_eq!(proof.verified_at, Some(at(1)));
    }

    #[test]
    fn its_own_version_comes_before_the_nearest_that_reads_it() {
        let there = ["3.5.30", "3.6.16", "3.7.3"].map(version);
        let own = |text, reads: &dyn Fn(Version) -> bool| own_version(version(text), &there, reads);
        assert_eq!(own("3.5.30", &|_| true), Some(version("3.5.30")));
        assert_eq!(own("3.5.29", &|_| true), Some(version("3.5.30")));
        let newer = |of: Version| of >= version("3.6.0");
        assert_eq!(own("3.5.29", &newer), Some(version("3.6.16")));
        assert_eq!(own("3.5.29", &|_| false), None);
        assert_eq!(own("3.7.4", &|_| true), None);
    }

    #[test]
    fn a_proved_backup_is_late_then_missed_and_never_counts_from_the_beginning() {
        let within = TimeDelta::hours(26);
        let hours = |hours: i64| at(hours * 3600);
        let of = |now, newest| Freshness::at(hours(now), newest, hours(0), within);
        assert_eq!(of(25, None), Freshness::Fresh);
        assert_eq!(of(26, None), Freshness::Never);
        assert_eq!(of(99, None), Freshness::Never);
        let newest = Some(hours(100));
        assert_eq!(of(125, newest), Freshness::Fresh);
        assert_eq!(of(126, newest), Freshness::Late);
        assert_eq!(of(151, newest), Freshness::Late);
        assert_eq!(of(152, newest), Freshness::Missed);
        // A clock that was set back makes nothing late.
        assert_eq!(of(50, newest), Freshness::Fresh);
    }

    proptest! {
        #[test]
        fn nothing_is_proved_that_no_version_restored(
            findings in prop::collection::vec(
                prop::collection::vec(0usize..3, 1..3), 1..12
            ),
        ) {
            let mut proof = Proof::default();
            for (i, round) in findings.iter().enumerate() {
                let now = at(i64::try_from(i).expect("few"));
                let versions = ["3.5.30", "3.7.3"];
                let found: Vec<Finding> = round.iter().zip(versions).map(|(what, of)| match what {
                    0 => same(of),
                    1 => differs(of),
                    _ => untried(),
                }).collect();
                proof = proof.after(&found, now);
                prop_assert_eq!(proof.verified_at.is_some(), !proof.versions.is_empty());
                prop_assert!(proof.versions.is_sorted());
                if found.iter().any(|f| matches!(f, Finding::Differs { .. })) {
                    prop_assert_eq!(proof.standing(), Standing::Flawed);
                }
                // It is either proved for good, or looked at again.
                let over = proof.is_over();
                prop_assert_eq!(over, proof.standing() == Standing::Proved && proof.hindrance.is_none());
                let text = serde_json::to_string(&proof).expect("JSON");
                prop_assert_eq!(serde_json::from_str::<Proof>(&text).expect("read back"), proof.clone());
            }
        }
    }
}
