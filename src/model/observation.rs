//! How a deployment fares at a moment, as its members tell it.

use chrono::{DateTime, Utc};

/// One look at all members of a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// The members, in member order; empty until some are allocated.
    pub members: Vec<MemberObservation>,
    /// When it was looked.
    pub observed_at: DateTime<Utc>,
}

/// How one member fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberObservation {
    /// The member's name.
    pub name: String,
    /// Where clients reach it.
    pub url: String,
    /// What it says of itself.
    pub health: MemberHealth,
}

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberHealth {
    /// It follows a leader, or is it.
    Serving {
        /// Whether it is the leader.
        leads: bool,
        /// The version that runs.
        version: String,
        /// Size of its database file, in bytes: what its quota is held against.
        database_bytes: u64,
        /// What it complains of; full storage, above all.
        complaints: Vec<String>,
    },
    /// It answers, but there is no majority to follow.
    WithoutLeader,
    /// It does not answer; why, for people.
    Silent(String),
}

impl Observation {
    /// Members that serve.
    pub fn serving(&self) -> usize {
        let serves = |m: &&MemberObservation| matches!(m.health, MemberHealth::Serving { .. });
        self.members.iter().filter(serves).count()
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
