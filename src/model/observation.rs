//! The state of a deployment at a moment, as its members tell it.

use std::fmt;

use chrono::{DateTime, Utc};

use super::limits::OBSERVATION_TIMEOUT;

/// One look at all members of a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// The members, in member order; empty until some are allocated.
    pub members: Vec<MemberObservation>,
    /// As many must serve so that the database can be used, as its
    /// [engine](super::engine::Profile::members_needed) says.
    pub needed: usize,
    /// When it was looked.
    pub observed_at: DateTime<Utc>,
    /// Nobody but the broker is let in.
    pub is_closed: bool,
    /// Since when looks in a row have shown the same of its members: whether they are enough, and whether all serve.
    pub since: DateTime<Utc>,
    /// Since when looks in a row have shown it full, as far as they saw it; none: it is not.
    pub full_since: Option<DateTime<Utc>>,
    /// Since when looks in a row have shown it open to its users and not full; none: it is not so.
    pub open_since: Option<DateTime<Utc>>,
}

/// What looks at a deployment have shown again and again, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lasting {
    /// Whether as many members serve as it takes.
    pub is_usable: bool,
    /// Whether all of them serve.
    pub is_whole: bool,
    /// Since when looks in a row have shown these two.
    pub since: DateTime<Utc>,
    /// Since when looks in a row have shown it full, as far as they saw it; none: it is not.
    pub full_since: Option<DateTime<Utc>>,
    /// Since when looks in a row have shown it open to its users and not full; none: it is not so.
    pub open_since: Option<DateTime<Utc>>,
}

/// The state of one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberObservation {
    /// The member's name.
    pub name: String,
    /// Where clients reach it.
    pub url: String,
    /// What it says of itself.
    pub health: MemberHealth,
}

/// What a member is to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberRole {
    /// The others follow it.
    Leads,
    /// It follows another one.
    Follows,
}

impl MemberRole {
    /// The role of a member that leads, or does not.
    pub fn of(leads: bool) -> Self {
        if leads { Self::Leads } else { Self::Follows }
    }

    /// What people call a member that has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leads => "leader",
            Self::Follows => "follower",
        }
    }
}

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberHealth {
    /// It follows a leader, or is it.
    Serving {
        /// What it is to the others.
        role: MemberRole,
        /// The version that runs.
        version: String,
        /// Size of its database file, in bytes: what its quota is compared with.
        database_bytes: u64,
        /// What of it holds something, in bytes; absent where the version does not tell. The rest
        /// comes back when unused storage is given back.
        used_bytes: Option<u64>,
        /// Counts the changes of what the database holds: while it is the same, so is the content.
        changes: i64,
        /// It takes no more writes, since its storage is full.
        is_full: bool,
        /// It does not hold what the others hold, as was found by comparing them.
        differs: bool,
        /// What it complains of; full storage, above all.
        complaints: Vec<Complaint>,
    },
    /// It answers, and cannot serve by itself.
    Degraded(Degradation),
    /// It does not answer.
    Silent(Silence),
}

/// Why a member that answers cannot serve by itself, in the words of its engine: "answers, but ..." goes on so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Degradation {
    /// It has no leader.
    Leaderless(&'static str),
    /// Something that only its engine knows.
    Other(&'static str),
}

impl Degradation {
    /// The words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leaderless(words) | Self::Other(words) => words,
        }
    }
}

/// What a member complains of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Complaint {
    /// It is full, and takes no more writes.
    Full,
    /// It does not hold what the others hold, and takes no writes.
    Differs,
    /// Something that only its engine knows, in the engine's words.
    Other(String),
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("it is full and takes no writes"),
            Self::Differs => {
                f.write_str("it does not hold what the others hold, and takes no writes")
            }
            Self::Other(words) => write!(f, "it complains: {words}"),
        }
    }
}

impl MemberHealth {
    /// What keeps a member from serving, as what one says of it: "answers, but ..." or "does not answer: ...".
    /// None where it serves.
    pub fn trouble(&self) -> Option<String> {
        match self {
            Self::Serving { .. } => None,
            Self::Degraded(why) => Some(format!("answers, but {}", why.as_str())),
            Self::Silent(why) => Some(format!("does not answer: {why}")),
        }
    }
}

/// A member that does not answer; its display is for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silence {
    /// Why.
    pub cause: SilenceCause,
    /// What libraries and the system say of it: for the log alone.
    pub detail: String,
}

/// Why a member does not answer, as far as one sees from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SilenceCause {
    /// Nothing listens there, or what listens does not talk.
    Unreachable,
    /// Its time was over.
    Slow,
    /// It answers with a refusal.
    Refusing,
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause {
            SilenceCause::Unreachable => f.write_str("nobody accepts a connection there"),
            SilenceCause::Slow => {
                write!(f, "nothing came within {} s", OBSERVATION_TIMEOUT.as_secs())
            }
            SilenceCause::Refusing => f.write_str("it refuses to say how it is"),
        }
    }
}

impl MemberObservation {
    /// Whether it follows a leader, or is it.
    pub fn serves(&self) -> bool {
        matches!(self.health, MemberHealth::Serving { .. })
    }

    /// Why it does not answer; none when it does.
    pub fn silence(&self) -> Option<&Silence> {
        match &self.health {
            MemberHealth::Silent(silence) => Some(silence),
            _ => None,
        }
    }

    /// Whether it does not hold what the others hold.
    pub fn differs(&self) -> bool {
        matches!(self.health, MemberHealth::Serving { differs: true, .. })
    }

    /// Whether it is the leader.
    pub fn leads(&self) -> bool {
        matches!(
            &self.health,
            MemberHealth::Serving {
                role: MemberRole::Leads,
                ..
            }
        )
    }
}

impl Observation {
    /// A look at `at` that nothing is known of before.
    pub fn first(members: Vec<MemberObservation>, needed: usize, at: DateTime<Utc>) -> Self {
        let mut first = Self {
            members,
            needed,
            observed_at: at,
            is_closed: false,
            since: at,
            full_since: None,
            open_since: None,
        };
        match first.is_full() {
            true => first.full_since = Some(at),
            false => first.open_since = Some(at),
        }
        first
    }

    /// The same look at a database that lets in nobody but the broker.
    #[must_use]
    pub fn closed(self) -> Self {
        Self {
            is_closed: true,
            open_since: None,
            ..self
        }
    }

    /// What it shows that lasts.
    pub fn lasting(&self) -> Lasting {
        Lasting {
            is_usable: self.is_usable(),
            is_whole: self.serving() == self.members.len(),
            since: self.since,
            full_since: self.full_since,
            open_since: self.open_since,
        }
    }

    /// The same look, with what the one before it tells.
    #[must_use]
    pub fn after(mut self, before: &Lasting) -> Self {
        let now = self.lasting();
        if (now.is_usable, now.is_whole) == (before.is_usable, before.is_whole) {
            self.since = before.since;
        }
        // A database that nobody sees stays as full as it is.
        if self.is_full() {
            self.full_since = before.full_since.or(self.full_since);
        } else if self.serving() == 0 {
            self.full_since = before.full_since;
        }
        let is_open = !self.is_closed && self.full_since.is_none();
        self.open_since = is_open.then(|| before.open_since.unwrap_or(self.observed_at));
        self
    }

    /// Whether a member says that it takes no more writes, since its storage is full.
    pub fn is_full(&self) -> bool {
        let full =
            |m: &MemberObservation| matches!(m.health, MemberHealth::Serving { is_full: true, .. });
        self.members.iter().any(full)
    }

    /// Whether a member complains of that.
    pub fn complains_of(&self, what: &Complaint) -> bool {
        self.members.iter().any(|member| match &member.health {
            MemberHealth::Serving { complaints, .. } => complaints.contains(what),
            MemberHealth::Degraded(_) | MemberHealth::Silent(_) => false,
        })
    }

    /// The most that a member's database file really holds, in bytes; none when no member tells.
    pub fn used_bytes(&self) -> Option<u64> {
        let bytes = self
            .members
            .iter()
            .filter_map(|member| match member.health {
                MemberHealth::Serving { used_bytes, .. } => used_bytes,
                _ => None,
            });
        bytes.max()
    }

    /// Members that serve.
    pub fn serving(&self) -> usize {
        self.members.iter().filter(|member| member.serves()).count()
    }

    /// Whether enough members serve so that the database can be used, whatever becomes of the one at
    /// `place`.
    pub fn is_usable_without(&self, place: usize) -> bool {
        let others = self.members.iter().enumerate();
        let serving = others.filter(|(i, member)| *i != place && member.serves());
        serving.count() >= self.needed
    }

    /// Whether enough members serve so that the database can be used.
    pub fn is_usable(&self) -> bool {
        !self.members.is_empty() && self.serving() >= self.needed
    }

    /// How many changes the member knows of that knows of most; none when no member tells.
    pub fn changes(&self) -> Option<i64> {
        let changes = self
            .members
            .iter()
            .filter_map(|member| match member.health {
                MemberHealth::Serving { changes, .. } => Some(changes),
                _ => None,
            });
        changes.max()
    }

    /// The largest database file among the members, in bytes; none when no member tells.
    pub fn database_bytes(&self) -> Option<u64> {
        let bytes = self
            .members
            .iter()
            .filter_map(|member| match member.health {
                MemberHealth::Serving { database_bytes, .. } => Some(database_bytes),
                _ => None,
            });
        bytes.max()
    }
}
