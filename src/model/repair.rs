//! Members that lost what they kept: why one is replaced, and when that may be. Pure: whoever asks
//! brings what was seen.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::limits::{HANG_AFTER, START_BYTES_PER_SECOND};

/// What is wrong with a member that is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Damage {
    /// What it kept is gone.
    Lost,
    /// It ends because it cannot use what it kept.
    Damaged,
    /// It does not hold what the others hold.
    Differs,
    /// An earlier replacement was not finished.
    Unfinished,
    /// An operator says so.
    Told,
}

impl fmt::Display for Damage {
    /// What a sentence about the member says of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "lost its data",
            Self::Damaged => "could not use its data any more",
            Self::Differs => "did not hold what the others hold",
            Self::Unfinished => "was replaced before, and that was not finished",
            Self::Told => "was to be replaced, as an operator said",
        })
    }
}

/// What a repair was accepted with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repair {
    /// The member that is replaced.
    pub member: String,
    /// What is wrong with it.
    pub because: Damage,
}

/// A member at one look, as far as its replacement goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patient {
    /// It follows a leader, or is it.
    pub serves: bool,
    /// What is wrong with it, if anything.
    pub damage: Option<Damage>,
}

/// The place of the member that is replaced next, and why: the first that is damaged, if a majority
/// of sound members serves without it. To take a member away from fewer could lose what they know.
pub fn next_repair(members: &[Patient]) -> Option<(usize, Damage)> {
    let sound = members.iter().filter(|m| m.serves && m.damage.is_none());
    if sound.count() * 2 <= members.len() {
        return None;
    }
    let damaged = members.iter().enumerate();
    damaged.filter_map(|(i, m)| Some((i, m.damage?))).next()
}

/// A member at one look, as far as its liveness goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Liveness {
    /// It gives signs of life.
    pub answers: bool,
    /// For how long its process runs, and gave none; none while none runs.
    pub silent_for: Option<Duration>,
}

/// The place of the member that is ended and started anew: it runs and gave no sign of life for longer
/// than `patience`, while a majority does without it. At most one, so that the others are seen to
/// go on before the next one.
pub fn next_hung(members: &[Liveness], patience: Duration) -> Option<usize> {
    let answering = members.iter().filter(|m| m.answers).count();
    if answering * 2 <= members.len() {
        return None;
    }
    members
        .iter()
        .position(|m| !m.answers && m.silent_for.is_some_and(|silent| silent > patience))
}

/// How long a member with so many bytes on its disk may give no sign of life.
pub fn hang_patience(bytes: u64) -> Duration {
    HANG_AFTER + time_to_start(bytes)
}

/// What a member that starts needs for its bytes, at the most.
pub fn time_to_start(bytes: u64) -> Duration {
    Duration::from_secs(bytes / START_BYTES_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SOUND: Patient = Patient {
        serves: true,
        damage: None,
    };
    const LOST: Patient = Patient {
        serves: false,
        damage: Some(Damage::Lost),
    };
    const DOWN: Patient = Patient {
        serves: false,
        damage: None,
    };
    const DIFFERS: Patient = Patient {
        serves: true,
        damage: Some(Damage::Differs),
    };

    #[test]
    fn a_damaged_member_is_replaced_only_while_a_majority_serves_without_it() {
        assert_eq!(next_repair(&[SOUND, SOUND, SOUND]), None);
        assert_eq!(next_repair(&[SOUND, SOUND, DOWN]), None);
        assert_eq!(next_repair(&[SOUND, LOST, SOUND]), Some((1, Damage::Lost)));
        assert_eq!(
            next_repair(&[DIFFERS, SOUND, SOUND]),
            Some((0, Damage::Differs))
        );
        for few in [
            [SOUND, LOST, DOWN],
            [SOUND, LOST, LOST],
            [LOST, LOST, LOST],
            [SOUND, LOST, DIFFERS],
        ] {
            assert_eq!(next_repair(&few), None, "{few:?}");
        }
        assert_eq!(next_repair(&[LOST]), None);
    }

    #[test]
    fn large_members_have_longer() {
        assert_eq!(hang_patience(0), HANG_AFTER);
        let large = 8 * 1024 * 1024 * 1024;
        assert_eq!(hang_patience(large), HANG_AFTER + Duration::from_secs(1024));
    }

    proptest! {
        #[test]
        fn never_is_a_member_ended_that_answers_or_without_a_majority(
            seen in prop::collection::vec((any::<bool>(), prop::option::of(0u64..200)), 1..6),
        ) {
            let members: Vec<Liveness> = seen
                .iter()
                .map(|(answers, silent)| Liveness {
                    answers: *answers,
                    silent_for: silent.map(Duration::from_secs),
                })
                .collect();
            let patience = Duration::from_secs(60);
            let hung = next_hung(&members, patience);
            let answering = members.iter().filter(|m| m.answers).count();
            if let Some(place) = hung {
                prop_assert!(!members[place].answers);
                prop_assert!(members[place].silent_for.is_some_and(|s| s > patience));
                prop_assert!(answering * 2 > members.len());
            }
        }
    }
}
