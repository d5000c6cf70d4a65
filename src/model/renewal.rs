//! When the certificates of a deployment are renewed. Pure: the caller brings the moment.
//!
//! The certificate that members show is renewed well before its end, under the same authority. The
//! authority is followed by another one, in steps far apart: first members and those who fetch
//! credentials trust both, long before the next one issues anything; then it issues, and the former one
//! stays trusted until its end.
//!
//! Invariant: an authority issues only after it was trusted for as long as there was time.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::{
    ids::OperationId,
    limits::{
        AUTHORITY_CHANGES_AT_LATEST, AUTHORITY_CHANGES_BEFORE, AUTHORITY_FOLLOWED_BEFORE,
        AUTHORITY_LIFE, CERTIFICATE_LIFE, CERTIFICATE_RENEWED_BEFORE,
    },
};

/// How long certificates live, and when before their end they are renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificateLife {
    /// Of an authority.
    pub authority: TimeDelta,
    /// The next authority is trusted so long before the end of the one that issues.
    pub followed_before: TimeDelta,
    /// It issues so long before that end.
    pub changes_before: TimeDelta,
    /// Where it was not trusted for long by then, it may take until so long before that end.
    pub changes_at_latest: TimeDelta,
    /// Of the certificate that members show.
    pub member: TimeDelta,
    /// It is renewed so long before its end.
    pub renewed_before: TimeDelta,
}

impl Default for CertificateLife {
    fn default() -> Self {
        Self {
            authority: AUTHORITY_LIFE,
            followed_before: AUTHORITY_FOLLOWED_BEFORE,
            changes_before: AUTHORITY_CHANGES_BEFORE,
            changes_at_latest: AUTHORITY_CHANGES_AT_LATEST,
            member: CERTIFICATE_LIFE,
            renewed_before: CERTIFICATE_RENEWED_BEFORE,
        }
    }
}

/// The certificates of a deployment, as far as their time goes: by the broker's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificates {
    /// When the authority ends that issues.
    pub authority_ends: DateTime<Utc>,
    /// When the authority ends that is trusted and does not issue yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_ends: Option<DateTime<Utc>>,
    /// When the authority ends that has issued before, and is trusted still.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former_ends: Option<DateTime<Utc>>,
    /// When the certificate ends that members show.
    pub member_ends: DateTime<Utc>,
    /// The operation that issued that; absent: it is as old as the deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_by: Option<OperationId>,
    /// When those ended, or end, that were in use before the last renewal: a member that has not come
    /// along shows them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_end: Option<DateTime<Utc>>,
}

/// What is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The next authority is made, and trusted from then on.
    Follow,
    /// The next authority issues from then on.
    Change,
    /// The former authority is trusted no more.
    Retire,
    /// The certificate that members show.
    Members,
}

/// What lies ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlook {
    /// When the next renewal is due.
    pub due_at: DateTime<Utc>,
    /// When the first of those ends that are in use.
    pub ends_at: DateTime<Utc>,
    /// When the next authority issues, once there is one.
    pub changes_at: Option<DateTime<Utc>>,
}

impl Certificates {
    /// Those of a deployment that is made at `now`.
    pub fn new(now: DateTime<Utc>, life: &CertificateLife) -> Self {
        let authority_ends = now + life.authority;
        Self {
            authority_ends,
            next_ends: None,
            former_ends: None,
            member_ends: (now + life.member).min(authority_ends),
            issued_by: None,
            replaced_end: None,
        }
    }

    /// Those of a deployment that an earlier version of the broker made at `made_at`: they all live
    /// as long as an authority.
    pub fn of_before(made_at: DateTime<Utc>) -> Self {
        let ends = made_at + AUTHORITY_LIFE;
        Self {
            authority_ends: ends,
            next_ends: None,
            former_ends: None,
            member_ends: ends,
            issued_by: None,
            replaced_end: None,
        }
    }

    /// What is due at `now`, if anything. `asked_by`: the operation that is to issue another certificate
    /// of the members, whether one is due or not.
    pub fn due(
        &self,
        now: DateTime<Utc>,
        asked_by: Option<&OperationId>,
        life: &CertificateLife,
    ) -> Option<Renewal> {
        let due = self.ahead(life).into_iter().flatten();
        let due = due.filter(|(_, at)| *at <= now).map(|(what, _)| what);
        let asked = asked_by.filter(|by| self.issued_by.as_ref() != Some(*by));
        due.chain(asked.map(|_| Renewal::Members)).next()
    }

    /// What lies ahead.
    pub fn outlook(&self, life: &CertificateLife) -> Outlook {
        let ahead = self.ahead(life).into_iter().flatten();
        let due_at = ahead.map(|(_, at)| at).min();
        Outlook {
            due_at: due_at.expect("the authority is always ahead"),
            ends_at: self.first_end(),
            changes_at: self.changes_at(life),
        }
    }

    /// What they are after a renewal at `now`, by an operation.
    #[must_use]
    pub fn renewed(
        &self,
        what: Renewal,
        now: DateTime<Utc>,
        by: &OperationId,
        life: &CertificateLife,
    ) -> Self {
        let mut renewed = self.clone();
        match what {
            Renewal::Follow => renewed.next_ends = Some(now + life.authority),
            Renewal::Change => {
                if let Some(ends) = renewed.next_ends.take() {
                    renewed.former_ends = Some(self.authority_ends);
                    renewed.authority_ends = ends;
                }
                renewed.issue(now, by, life);
            }
            Renewal::Retire => renewed.former_ends = None,
            Renewal::Members => renewed.issue(now, by, life),
        }
        renewed.replaced_end = Some(self.first_end());
        renewed
    }

    /// Whether members that have these, or have not come along since the last renewal, may have none
    /// that is good any more.
    pub fn have_ended(&self, now: DateTime<Utc>) -> bool {
        let ended = |end: DateTime<Utc>| end <= now;
        ended(self.first_end()) || self.replaced_end.is_some_and(ended)
    }

    /// What is to be done next, and when; in the order in which it is done.
    fn ahead(&self, life: &CertificateLife) -> [Option<(Renewal, DateTime<Utc>)>; 3] {
        let of_authority = match self.changes_at(life) {
            Some(at) => (Renewal::Change, at),
            None => (Renewal::Follow, self.authority_ends - life.followed_before),
        };
        // One that ends with its authority is renewed when that changes.
        let is_first = self.member_ends < self.authority_ends;
        let of_members = (Renewal::Members, self.member_ends - life.renewed_before);
        [
            Some(of_authority),
            self.former_ends.map(|ends| (Renewal::Retire, ends)),
            is_first.then_some(of_members),
        ]
    }

    /// When the next authority issues. One that was made late is trusted for as long as one that was
    /// made in time, if that is possible.
    fn changes_at(&self, life: &CertificateLife) -> Option<DateTime<Utc>> {
        let made_at = self.next_ends? - life.authority;
        let trusted_for_long = made_at + (life.followed_before - life.changes_before);
        let in_time = self.authority_ends - life.changes_before;
        let at_latest = self.authority_ends - life.changes_at_latest;
        Some(in_time.max(trusted_for_long).min(at_latest))
    }

    fn first_end(&self) -> DateTime<Utc> {
        self.member_ends.min(self.authority_ends)
    }

    fn issue(&mut self, now: DateTime<Utc>, by: &OperationId, life: &CertificateLife) {
        self.member_ends = (now + life.member).min(self.authority_ends);
        self.issued_by = Some(by.clone());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn day(days: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000, 0).expect("a time") + TimeDelta::days(days)
    }

    fn by() -> OperationId {
        OperationId::generate(day(0))
    }

    fn due_at(certificates: &Certificates) -> DateTime<Utc> {
        certificates.outlook(&CertificateLife::default()).due_at
    }

    #[test]
    fn nothing_is_due_for_a_long_time() {
        let life = CertificateLife::default();
        let certificates = Certificates::new(day(0), &life);
        assert_eq!(certificates.due(day(0), None, &life), None);
        let of_before = Certificates::of_before(day(0));
        assert_eq!(of_before.due(day(2000), None, &life), None);
        assert_eq!(of_before.due(day(3000), None, &life), Some(Renewal::Follow));
        assert_eq!(of_before.outlook(&life).changes_at, None);
    }

    #[test]
    fn the_members_certificate_is_renewed_under_the_same_authority() {
        let life = CertificateLife::default();
        let certificates = Certificates::new(day(0), &life);
        let due = due_at(&certificates);
        assert_eq!(due, certificates.member_ends - life.renewed_before);
        assert_eq!(certificates.due(due, None, &life), Some(Renewal::Members));
        let renewed = certificates.renewed(Renewal::Members, due, &by(), &life);
        assert_eq!(renewed.member_ends, due + life.member);
        assert_eq!(renewed.authority_ends, certificates.authority_ends);
        assert_eq!(renewed.due(due, None, &life), None);
    }

    #[test]
    fn it_is_renewed_once_whenever_somebody_asks() {
        let life = CertificateLife::default();
        let (one, another) = (OperationId::generate(day(1)), OperationId::generate(day(1)));
        for certificates in [
            Certificates::new(day(0), &life),
            Certificates::of_before(day(0)),
        ] {
            let due = certificates.due(day(1), Some(&one), &life);
            assert_eq!(due, Some(Renewal::Members));
            let renewed = certificates.renewed(Renewal::Members, day(1), &one, &life);
            assert_eq!(renewed.due(day(1), Some(&one), &life), None);
            assert!(renewed.member_ends < renewed.authority_ends);
            // Whatever the clock was put to meanwhile.
            let due = renewed.due(day(-1), Some(&another), &life);
            assert_eq!(due, Some(Renewal::Members));
        }
    }

    #[test]
    fn an_authority_is_trusted_long_before_it_issues_and_after_the_next_one_does() {
        let life = CertificateLife::default();
        let first = Certificates::of_before(day(0));
        let follows = first.authority_ends - life.followed_before;
        assert_eq!(due_at(&first), follows);
        let both = first.renewed(Renewal::Follow, follows, &by(), &life);
        assert_eq!(both.authority_ends, first.authority_ends);
        assert_eq!(both.due(follows, None, &life), None);
        let changes = first.authority_ends - life.changes_before;
        assert_eq!(due_at(&both), changes);
        assert_eq!(both.outlook(&life).changes_at, Some(changes));
        assert_eq!(both.due(changes, None, &life), Some(Renewal::Change));
        let second = both.renewed(Renewal::Change, changes, &by(), &life);
        assert_eq!(second.authority_ends, follows + life.authority);
        assert_eq!(second.former_ends, Some(first.authority_ends));
        assert_eq!(second.member_ends, changes + life.member);
        let retires = first.authority_ends;
        assert_eq!(due_at(&second), retires);
        assert_eq!(second.due(retires, None, &life), Some(Renewal::Retire));
        let alone = second.renewed(Renewal::Retire, retires, &by(), &life);
        assert_eq!(alone.former_ends, None);
        assert_eq!(alone.due(retires, None, &life), None);
    }

    #[test]
    fn one_that_was_made_late_is_trusted_for_as_long_as_there_is_time() {
        let life = CertificateLife::default();
        let first = Certificates::of_before(day(0));
        let ends = first.authority_ends;
        let overlap = life.followed_before - life.changes_before;
        let changes = |followed_at: DateTime<Utc>| {
            let both = first.renewed(Renewal::Follow, followed_at, &by(), &life);
            both.outlook(&life).changes_at.expect("a change")
        };
        let late = ends - life.changes_before - TimeDelta::days(10);
        assert!(changes(late) > ends - life.changes_before);
        assert!(changes(late) <= late + overlap);
        let very_late = ends - TimeDelta::days(120);
        assert_eq!(changes(very_late), ends - life.changes_at_latest);
        assert!(
            changes(ends) < ends,
            "at once, where there is no time at all"
        );
    }

    #[test]
    fn members_that_have_not_come_along_may_have_none_that_is_good() {
        let life = CertificateLife::default();
        let first = Certificates::new(day(0), &life);
        assert!(!first.have_ended(first.member_ends - TimeDelta::days(1)));
        assert!(first.have_ended(first.member_ends));
        let renewed = first.renewed(Renewal::Members, day(10), &by(), &life);
        assert!(!renewed.have_ended(day(10)));
        assert!(renewed.have_ended(first.member_ends));
    }

    proptest! {
        #[test]
        fn who_looks_each_month_never_meets_one_that_has_ended(
            member in 100i64..4000, authority in 1000i64..4000, months in 1i64..800,
        ) {
            let life = CertificateLife {
                authority: TimeDelta::days(authority),
                followed_before: TimeDelta::days(authority / 3),
                changes_before: TimeDelta::days(authority / 6),
                changes_at_latest: TimeDelta::days(authority / 20),
                member: TimeDelta::days(member),
                renewed_before: TimeDelta::days(member / 3),
            };
            let overlap = life.followed_before - life.changes_before;
            let mut certificates = Certificates::new(day(0), &life);
            let mut trusted_since = None;
            for month in 0..months {
                let now = day(month * 30);
                for _ in 0..4 {
                    let Some(due) = certificates.due(now, None, &life) else { break };
                    prop_assert!(certificates.outlook(&life).due_at <= now);
                    match due {
                        Renewal::Follow => trusted_since = Some(now),
                        Renewal::Change => {
                            let since = trusted_since.take().expect("it was trusted before");
                            prop_assert!(now - since >= overlap - TimeDelta::days(30));
                        }
                        Renewal::Retire => prop_assert!(certificates.former_ends <= Some(now)),
                        Renewal::Members => {}
                    }
                    certificates = certificates.renewed(due, now, &by(), &life);
                }
                prop_assert_eq!(certificates.due(now, None, &life), None);
                prop_assert!(certificates.outlook(&life).due_at > now);
                prop_assert!(certificates.outlook(&life).ends_at > now);
                prop_assert!(!certificates.have_ended(now) || certificates.replaced_end <= Some(now));
            }
        }
    }
}
