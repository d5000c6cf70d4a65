//! Where what is done comes from: a door of the broker, or the broker itself.

use std::fmt;

/// The source of an operation, of what is done at once, and of an access.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The service broker's API.
    Osb,
    /// The Compose API.
    Compose,
    /// The dashboard.
    Dashboard,
    /// The operator's API.
    Operator,
    /// Backups whose time has come.
    Schedule,
    /// The removal of backups whose time is over.
    Retention,
    /// The ends of bindings whose time is over.
    Expiry,
    /// What the guard does about full databases.
    Guard,
    /// What the guard does by night about files that hold little.
    Night,
    /// The replacement of members that lost what they kept.
    Watchdog,
    /// Certificates whose end comes near.
    Renewal,
    /// Members that move because the configuration says where applications reach them.
    Configuration,
    /// Backups that nobody has restored yet.
    Proof,
}

impl Origin {
    /// All origins.
    pub const ALL: [Self; 13] = [
        Self::Osb,
        Self::Compose,
        Self::Dashboard,
        Self::Operator,
        Self::Schedule,
        Self::Retention,
        Self::Expiry,
        Self::Guard,
        Self::Night,
        Self::Watchdog,
        Self::Renewal,
        Self::Configuration,
        Self::Proof,
    ];

    /// The name used in the store, by the audit and as the `source` of recipes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Osb => "osb",
            Self::Compose => "compose",
            Self::Dashboard => "dashboard",
            Self::Operator => "operator",
            Self::Schedule => "schedule",
            Self::Retention => "retention",
            Self::Expiry => "expiry",
            Self::Guard => "guard",
            Self::Night => "night",
            Self::Watchdog => "watchdog",
            Self::Renewal => "renewal",
            Self::Configuration => "configuration",
            Self::Proof => "proof",
        }
    }

    /// The origin of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|origin| origin.as_str() == text)
    }

    /// Whether the broker does it by itself, and nobody came through a door to ask for it.
    pub fn is_own(self) -> bool {
        !matches!(
            self,
            Self::Osb | Self::Compose | Self::Dashboard | Self::Operator
        )
    }

    /// Whether the broker does it by itself because its time has come. What retention removes is not
    /// of that kind: it follows backups, and there is as much of it as users ask for; so do their proofs.
    /// Nor is what is done by night: it can wait.
    pub fn is_unasked(self) -> bool {
        self.is_own() && !matches!(self, Self::Retention | Self::Night | Self::Proof)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_origin_is_read_back() {
        for origin in Origin::ALL {
            assert_eq!(Origin::parse(origin.as_str()), Some(origin));
            let same = |other: &Origin| other.as_str() == origin.as_str();
            assert_eq!(Origin::ALL.iter().filter(|other| same(other)).count(), 1);
        }
        assert_eq!(Origin::parse("Osb"), None);
        assert_eq!(Origin::parse(""), None);
    }

    #[test]
    fn what_comes_through_a_door_is_asked_for_and_what_can_wait_is_not_unasked() {
        let named = |is: fn(Origin) -> bool| -> Vec<&str> {
            let all = Origin::ALL.into_iter();
            all.filter(|origin| is(*origin))
                .map(Origin::as_str)
                .collect()
        };
        assert_eq!(
            named(Origin::is_own),
            [
                "schedule",
                "retention",
                "expiry",
                "guard",
                "night",
                "watchdog",
                "renewal",
                "configuration",
                "proof"
            ]
        );
        assert_eq!(
            named(Origin::is_unasked),
            [
                "schedule",
                "expiry",
                "guard",
                "watchdog",
                "renewal",
                "configuration"
            ]
        );
    }
}
