//! Sessions of the dashboard: what they reach, and what they stand on.
//!
//! A session never outlives what it was opened with, and never reaches further.

use chrono::{DateTime, Utc};

use super::{binding::Binding, ids::InstanceId, instance::Instance};

/// What the audit calls who signed in with the broker's own credentials.
pub const OPERATOR_NAME: &str = "operator";
/// What it calls who did with those that read alone.
pub const READER_NAME: &str = "read-only operator";

/// What a session reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// One instance.
    Instance(InstanceId),
    /// Every instance: an operator's.
    Operator,
}

/// What a session was opened with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenedWith {
    /// A token of the administration API, by its fingerprint.
    Token(String),
    /// A one-time link, by its nonce.
    Link(String),
    /// The operator's credentials, by the broker's own mark of them.
    Operator(String),
    /// Credentials that read what the operator reads, by the broker's own mark of them.
    Reader(String),
}

impl OpenedWith {
    /// The names used in the store: of the way, and of the very thing.
    pub fn as_strs(&self) -> (&'static str, &str) {
        match self {
            Self::Token(mark) => ("token", mark),
            Self::Link(mark) => ("link", mark),
            Self::Operator(mark) => ("operator", mark),
            Self::Reader(mark) => ("reader", mark),
        }
    }

    /// What has those names.
    pub fn parse(way: &str, mark: &str) -> Option<Self> {
        match way {
            "token" => Some(Self::Token(mark.to_owned())),
            "link" => Some(Self::Link(mark.to_owned())),
            "operator" => Some(Self::Operator(mark.to_owned())),
            "reader" => Some(Self::Reader(mark.to_owned())),
            _ => None,
        }
    }
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Fingerprint of the cookie's value.
    pub fingerprint: String,
    /// What it reaches.
    pub scope: Scope,
    /// What it stands on.
    pub opened_with: OpenedWith,
    /// When it was opened.
    pub created_at: DateTime<Utc>,
    /// When it ends at the latest.
    pub expires_at: DateTime<Utc>,
}

impl Session {
    /// Whether it reads what the operator reads, changes nothing, and has no user's data.
    pub fn is_read_only(&self) -> bool {
        matches!(self.opened_with, OpenedWith::Reader(_))
    }

    /// Whether its user may end a binding. What a platform asked for it ends itself, and would go on
    /// naming it when it is gone: only operators end it in the platform's place.
    pub fn may_end(&self, instance: &Instance, binding: &Binding) -> bool {
        let made_here = !self.is_read_only() && binding.request.on_page.is_some();
        made_here || self.may_stand_in_for_platform(instance)
    }

    /// Whether its user may do to an instance what is the platform's to do where one asked for it.
    /// What the broker itself restored has nobody else.
    pub fn may_stand_in_for_platform(&self, instance: &Instance) -> bool {
        let may = self.scope == Scope::Operator || instance.restored_from.is_some();
        may && !self.is_read_only()
    }

    /// Whether its time has not run out. A session from the future was opened under a clock that
    /// was set back since: it lasts no longer for that.
    pub fn is_in_time(&self, now: DateTime<Utc>) -> bool {
        let life = self.expires_at - self.created_at;
        now < self.expires_at && now + life >= self.created_at
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn what_opened_a_session_is_read_back() {
        for opened_with in [
            OpenedWith::Token("t".into()),
            OpenedWith::Link("l".into()),
            OpenedWith::Operator("o".into()),
            OpenedWith::Reader("r".into()),
        ] {
            let (way, mark) = opened_with.as_strs();
            assert_eq!(OpenedWith::parse(way, mark), Some(opened_with));
        }
        assert_eq!(OpenedWith::parse("oidc", "x"), None);
    }

    #[test]
    fn a_session_has_its_time_and_no_more() {
        let at = |s: i64| DateTime::from_timestamp(1_700_000_000 + s, 0).expect("a time");
        let session = Session {
            fingerprint: "f".into(),
            scope: Scope::Operator,
            opened_with: OpenedWith::Operator("o".into()),
            created_at: at(0),
            expires_at: at(0) + TimeDelta::hours(2),
        };
        assert!(session.is_in_time(at(0)));
        assert!(session.is_in_time(at(7199)));
        assert!(!session.is_in_time(at(7200)));
        assert!(session.is_in_time(at(-60)));
        assert!(!session.is_in_time(at(-7201)));
    }
}
