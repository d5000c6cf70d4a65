//! Members that lost what they kept: why one is replaced, and when that may be. Pure: the caller
//! brings what was seen.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::limits::{HANG_PATIENCES_WITHOUT_SERVICE, START_BYTES_PER_SECOND};

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
    Ordered,
}

impl fmt::Display for Damage {
    /// What a sentence about the member says of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "lost its data",
            Self::Damaged => "could not use its data any more",
            Self::Differs => "did not hold what the others hold",
            Self::Unfinished => "was replaced before, and that was not finished",
            Self::Ordered => "was to be replaced, as an operator said",
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

/// The place of the member that is replaced next, and why: the first that is damaged, if as many sound
/// members serve without it as are `needed`. To take a member away from fewer could lose what they know.
pub fn next_repair(members: &[Patient], needed: usize) -> Option<(usize, Damage)> {
    let sound = members.iter().filter(|m| m.serves && m.damage.is_none());
    if sound.count() < needed {
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
/// than `patience`, while as many as are `needed` do without it. At most one, so that the others are
/// seen to go on before the next one.
///
/// With fewer the patience is [`HANG_PATIENCES_WITHOUT_SERVICE`] times as long: nothing is lost by it,
/// and it may bring the service back. Where no member answers, none is touched: then it
/// is rather the machine, or the way to it, that hangs.
pub fn next_hung(members: &[Liveness], needed: usize, patience: Duration) -> Option<usize> {
    let patience = match members.iter().filter(|m| m.answers).count() {
        0 => return None,
        answering if answering >= needed => patience,
        _ => patience * HANG_PATIENCES_WITHOUT_SERVICE,
    };
    members.iter().position(|m| m.is_silent_beyond(patience))
}

/// Whether all members run and gave no sign of life for longer than `patience`.
pub fn all_hang(members: &[Liveness], patience: Duration) -> bool {
    members.iter().all(|m| m.is_silent_beyond(patience))
}

impl Liveness {
    fn is_silent_beyond(&self, patience: Duration) -> bool {
        !self.answers && self.silent_for.is_some_and(|silent| silent > patience)
    }
}

/// Since when the process of each member gives no sign of life, in member order.
#[derive(Debug, Default)]
pub struct Silences(Vec<Option<Silence>>);

#[derive(Debug, Clone, Copy)]
struct Silence {
    /// What had passed since the moment that all looks share.
    since: Duration,
    /// How often the process had been started again.
    restarts: u32,
}

/// A member at one look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sign {
    /// It gives a sign of life.
    pub answers: bool,
    /// How often its process was started again; none while none runs.
    pub restarts: Option<u32>,
}

impl Silences {
    /// Notes what each member does now; returns for how long each is silent. A process that was started
    /// anew begins anew. `now`: what has passed since the moment that all looks share.
    pub fn note(&mut self, now: Duration, members: &[Sign]) -> Vec<Liveness> {
        self.0.resize(members.len(), None);
        let noted = self.0.iter_mut().zip(members);
        noted
            .map(|(silence, sign)| {
                let before = silence.filter(|before| Some(before.restarts) == sign.restarts);
                let begins = |restarts| Silence {
                    since: now,
                    restarts,
                };
                *silence = match sign.restarts {
                    Some(restarts) if !sign.answers => Some(before.unwrap_or(begins(restarts))),
                    _ => None,
                };
                Liveness {
                    answers: sign.answers,
                    silent_for: silence.map(|silence| now.saturating_sub(silence.since)),
                }
            })
            .collect()
    }

    /// Whether any member is silent.
    pub fn is_any(&self) -> bool {
        self.0.iter().any(Option::is_some)
    }

    /// Begins anew: a member was started.
    pub fn forget(&mut self) {
        self.0.clear();
    }
}

/// How long a member with so many bytes on its disk may give no sign of life; a small one: `after`.
pub fn hang_patience(after: Duration, bytes: u64) -> Duration {
    after + time_to_start(bytes)
}

/// What a member that starts needs for its bytes, at the most.
pub fn time_to_start(bytes: u64) -> Duration {
    Duration::from_secs(bytes / START_BYTES_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::limits::HANG_AFTER, *};

    const SOUND: Patient = Patient {
        serves: true,
        damage: None,
    };
    /// Of three members.
    const NEEDED: usize = 2;
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
        assert_eq!(next_repair(&[SOUND, SOUND, SOUND], NEEDED), None);
        assert_eq!(next_repair(&[SOUND, SOUND, DOWN], NEEDED), None);
        assert_eq!(
            next_repair(&[SOUND, LOST, SOUND], NEEDED),
            Some((1, Damage::Lost))
        );
        assert_eq!(
            next_repair(&[DIFFERS, SOUND, SOUND], NEEDED),
            Some((0, Damage::Differs))
        );
        for few in [
            [SOUND, LOST, DOWN],
            [SOUND, LOST, LOST],
            [LOST, LOST, LOST],
            [SOUND, LOST, DIFFERS],
        ] {
            assert_eq!(next_repair(&few, NEEDED), None, "{few:?}");
        }
        assert_eq!(next_repair(&[LOST], NEEDED), None);
    }

    #[test]
    fn a_silence_lasts_until_a_member_answers_or_does_not_run() {
        let at = Duration::from_secs;
        let mut silences = Silences::default();
        let silent = |seen: Vec<Liveness>| seen.iter().map(|m| m.silent_for).collect::<Vec<_>>();
        let seconds = |of: u64| Some(Duration::from_secs(of));
        let sign = |answers, restarts| Sign { answers, restarts };
        let (answers, hangs, ended) =
            (sign(true, Some(0)), sign(false, Some(0)), sign(false, None));
        let seen = silences.note(at(0), &[answers, hangs, hangs]);
        assert_eq!(silent(seen), [None, seconds(0), seconds(0)]);
        let seen = silences.note(at(9), &[hangs, hangs, ended]);
        assert_eq!(silent(seen), [seconds(0), seconds(9), None]);
        let seen = silences.note(at(12), &[answers, sign(false, Some(1)), hangs]);
        assert_eq!(
            silent(seen),
            [None, seconds(0), seconds(0)],
            "another process"
        );
        silences.forget();
        let seen = silences.note(at(15), &[answers, hangs, hangs]);
        assert_eq!(silent(seen), [None, seconds(0), seconds(0)]);
    }

    #[test]
    fn members_that_hang_are_ended_sooner_where_a_majority_goes_on() {
        let answers = Liveness {
            answers: true,
            silent_for: None,
        };
        let silent = |seconds| Liveness {
            answers: false,
            silent_for: Some(Duration::from_secs(seconds)),
        };
        let next = |members: &[Liveness]| next_hung(members, NEEDED, Duration::from_secs(60));
        assert_eq!(next(&[answers, silent(61), answers]), Some(1));
        assert_eq!(next(&[silent(61), answers, silent(180)]), None);
        assert_eq!(next(&[silent(61), answers, silent(181)]), Some(2));
        let all = [silent(999); 3];
        assert_eq!(next(&all), None);
        assert!(all_hang(&all, Duration::from_secs(60)));
        assert!(!all_hang(
            &[silent(999), silent(9)],
            Duration::from_secs(60)
        ));
    }

    #[test]
    fn large_members_have_longer() {
        assert_eq!(hang_patience(HANG_AFTER, 0), HANG_AFTER);
        let large = 8 * 1024 * 1024 * 1024;
        let longer = HANG_AFTER + Duration::from_secs(1024);
        assert_eq!(hang_patience(HANG_AFTER, large), longer);
    }

    proptest! {
        #[test]
        fn never_is_a_member_ended_that_answers_or_while_none_does(
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
            let hung = next_hung(&members, NEEDED, patience);
            let answering = members.iter().filter(|m| m.answers).count();
            if let Some(place) = hung {
                prop_assert!(!members[place].answers);
                let silent = members[place].silent_for.expect("silent");
                prop_assert!(silent > patience && answering > 0);
                prop_assert!(answering >= NEEDED || silent > patience * 3);
            }
        }
    }
}
