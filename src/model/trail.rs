//! Who got to see what, and who tried in vain: folded, so that a client that asks again and again fills
//! no audit.
//!
//! The first access of its kind is told at once. What is like it within [`ACCESSES_FOLDED_FOR`] is
//! counted, and told as one entry when that is over. Only so many kinds are told apart; those above
//! are counted together.

use core::net::IpAddr;
use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::{
    ids::{BackupId, BindingId, InstanceId},
    limits::{ACCESSES_FOLDED_FOR, ACCESSES_TOLD_APART_MAX, REFUSALS_TOLD_APART_MAX},
    origin::Origin,
};

/// What somebody got, or tried to get; the store's and operators' names of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Accessed {
    /// A link to a backup's bytes.
    BackupLink,
    /// A backup's bytes.
    Backup,
    /// A link to what a member printed.
    LogLink,
    /// What a member printed.
    Log,
    /// A binding's credentials, beyond the bind itself.
    Credentials,
    /// A session of the dashboard, with a token or the operator's credentials.
    Session,
    /// A session of the dashboard, with a one-time link.
    OneTimeLink,
    /// Nothing: what was shown is not good.
    Refused,
}

impl Accessed {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::BackupLink,
        Self::Backup,
        Self::LogLink,
        Self::Log,
        Self::Credentials,
        Self::Session,
        Self::OneTimeLink,
        Self::Refused,
    ];

    /// The name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BackupLink => "download_link",
            Self::Backup => "download",
            Self::LogLink => "log_link",
            Self::Log => "log_download",
            Self::Credentials => "credentials",
            Self::Session => "sign_in",
            Self::OneTimeLink => "one_time_link",
            Self::Refused => "refused",
        }
    }

    /// The one of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|got| got.as_str() == text)
    }

    /// Kinds of it that are told apart at once. Strangers choose how many refusals there are.
    fn runs_max(self) -> usize {
        match self {
            Self::Refused => REFUSALS_TOLD_APART_MAX,
            _ => ACCESSES_TOLD_APART_MAX,
        }
    }
}

/// One access. Those that are equal are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AuditedAccess {
    /// What.
    pub what: Accessed,
    /// The door.
    pub origin: Origin,
    /// The instance, where it is about one.
    pub instance: Option<InstanceId>,
    /// The binding, where it is about one.
    pub binding: Option<BindingId>,
    /// The backup, where it is about one.
    pub backup: Option<BackupId>,
    /// Where `user` is known.
    pub platform: Option<String>,
    /// Who.
    pub user: Option<String>,
    /// From where; none where they are too many to be told apart.
    pub address: Option<IpAddr>,
}

/// Accesses that are told as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountedAccess {
    /// What they have in common.
    pub access: AuditedAccess,
    /// When the last of them was.
    pub at: DateTime<Utc>,
    /// How many they are.
    pub times: u32,
}

/// Accesses of one kind since the first was told.
#[derive(Debug)]
struct Run {
    since: DateTime<Utc>,
    last: DateTime<Utc>,
    /// Those that are not told yet.
    more: u32,
}

/// What was told lately, and what is counted since.
#[derive(Debug, Default)]
pub struct Trail {
    runs: HashMap<AuditedAccess, Run>,
    /// Runs of each kind of access.
    open: HashMap<Accessed, usize>,
}

impl Trail {
    /// Takes notice of an access; returns what is to be told now.
    pub fn notice(&mut self, access: AuditedAccess, now: DateTime<Utc>) -> Vec<CountedAccess> {
        let mut told = self.over(now);
        let open = self.open.get(&access.what).copied().unwrap_or_default();
        let access = if open < access.what.runs_max() || self.runs.contains_key(&access) {
            access
        } else {
            AuditedAccess {
                instance: None,
                binding: None,
                backup: None,
                platform: None,
                user: None,
                address: None,
                ..access
            }
        };
        match self.runs.get_mut(&access) {
            Some(run) => {
                run.more = run.more.saturating_add(1);
                run.last = now;
            }
            None => {
                *self.open.entry(access.what).or_default() += 1;
                let run = Run {
                    since: now,
                    last: now,
                    more: 0,
                };
                self.runs.insert(access.clone(), run);
                told.push(CountedAccess {
                    access,
                    at: now,
                    times: 1,
                });
            }
        }
        told
    }

    /// What was counted and whose time is over. A clock that was set back ends it, too.
    pub fn over(&mut self, now: DateTime<Utc>) -> Vec<CountedAccess> {
        self.take(|run| now < run.since || now - run.since >= ACCESSES_FOLDED_FOR)
    }

    /// All that was counted, since there will be no later moment to tell it.
    pub fn end(&mut self) -> Vec<CountedAccess> {
        self.take(|_| true)
    }

    fn take(&mut self, is_over: impl Fn(&Run) -> bool) -> Vec<CountedAccess> {
        if !self.runs.values().any(&is_over) {
            return Vec::new();
        }
        let mut told = Vec::new();
        let open = &mut self.open;
        self.runs.retain(|access, run| {
            if !is_over(run) {
                return true;
            }
            if let Some(open) = open.get_mut(&access.what) {
                *open = open.saturating_sub(1);
            }
            if run.more > 0 {
                told.push(CountedAccess {
                    access: access.clone(),
                    at: run.last,
                    times: run.more,
                });
            }
            false
        });
        told.sort_by_key(|told| told.at);
        told
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + seconds, 0).expect("a time")
    }

    fn access(what: Accessed, address: u32) -> AuditedAccess {
        AuditedAccess {
            what,
            origin: Origin::Dashboard,
            instance: None,
            binding: None,
            backup: None,
            platform: None,
            user: None,
            address: Some(core::net::Ipv4Addr::from(address).into()),
        }
    }

    fn counts(told: &[CountedAccess]) -> Vec<u32> {
        told.iter().map(|told| told.times).collect()
    }

    #[test]
    fn the_first_is_told_at_once_and_the_others_when_its_time_is_over() {
        let mut trail = Trail::default();
        let one = || access(Accessed::Backup, 1);
        assert_eq!(counts(&trail.notice(one(), at(0))), [1]);
        for second in 1..=5 {
            assert_eq!(trail.notice(one(), at(second)), []);
        }
        let hour = ACCESSES_FOLDED_FOR.num_seconds();
        assert_eq!(trail.over(at(hour - 1)), []);
        let told = trail.over(at(hour));
        assert_eq!((counts(&told), told[0].at), (vec![5], at(5)));
        assert_eq!(trail.over(at(2 * hour)), []);
        assert_eq!(counts(&trail.notice(one(), at(hour))), [1]);
        // One that was alone is told once.
        assert_eq!(trail.end(), []);
    }

    #[test]
    fn others_are_told_apart_as_long_as_they_are_not_too_many() {
        let mut trail = Trail::default();
        let many = u32::try_from(REFUSALS_TOLD_APART_MAX).expect("a small number");
        for address in 0..many {
            let told = trail.notice(access(Accessed::Refused, address), at(0));
            assert_eq!(
                told[0].access.address,
                access(Accessed::Refused, address).address
            );
        }
        let told = trail.notice(access(Accessed::Refused, many), at(0));
        assert_eq!((counts(&told), told[0].access.address), (vec![1], None));
        assert_eq!(trail.notice(access(Accessed::Refused, many + 1), at(1)), []);
        // Who is known already goes on being so, and so does all else.
        assert_eq!(trail.notice(access(Accessed::Refused, 0), at(1)), []);
        let told = trail.notice(access(Accessed::Session, many), at(1));
        assert!(told[0].access.address.is_some());
        assert_eq!(counts(&trail.end()), [1, 1]);
    }

    #[test]
    fn a_clock_that_is_set_back_ends_what_is_counted() {
        let mut trail = Trail::default();
        trail.notice(access(Accessed::Refused, 1), at(0));
        trail.notice(access(Accessed::Refused, 1), at(1));
        let before = at(0) - TimeDelta::days(1);
        assert_eq!(
            counts(&trail.notice(access(Accessed::Refused, 1), before)),
            [1, 1]
        );
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_little_is_told(steps in prop::collection::vec((0i64..600, 0u32..300), 1..400)) {
            let (mut trail, mut now, mut told) = (Trail::default(), 0, Vec::new());
            for (pause, address) in &steps {
                now += pause;
                told.extend(trail.notice(access(Accessed::Refused, *address), at(now)));
                prop_assert!(trail.runs.len() <= REFUSALS_TOLD_APART_MAX + 1);
            }
            told.extend(trail.end());
            let all: u32 = counts(&told).iter().sum();
            prop_assert_eq!(all as usize, steps.len());
            let windows = usize::try_from(now / ACCESSES_FOLDED_FOR.num_seconds()).expect("small") + 2;
            prop_assert!(told.len() <= windows * 2 * (REFUSALS_TOLD_APART_MAX + 1));
        }
    }
}
