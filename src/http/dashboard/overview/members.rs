//! The members of one instance, as they were seen last.

use crate::{
    broker::InstanceView,
    http::dashboard::show::Moment,
    model::{
        deployment::Member,
        instance::InstanceState,
        observation::{Complaint, MemberHealth, MemberObservation, Observation},
    },
};

/// What is told of a member that does not tell it.
const UNKNOWN: &str = "unknown";

pub(super) struct Members {
    pub(super) rows: Vec<MemberRow>,
    /// Why there are none.
    pub(super) none: &'static str,
    pub(super) observed: Option<Moment>,
    /// Why they were not seen.
    pub(super) unseen: &'static str,
}

pub(super) struct MemberRow {
    pub(super) name: String,
    pub(super) url: String,
    pub(super) health: String,
    pub(super) icon: &'static str,
    pub(super) tone: &'static str,
    pub(super) role: &'static str,
    pub(super) version: String,
}

/// The members as they were seen, or as the store knows them.
pub(super) fn members(view: &InstanceView, seen: Option<&Observation>, urls: &[String]) -> Members {
    let state = view.of.instance.state;
    Members {
        rows: match seen {
            Some(seen) => seen.members.iter().map(member).collect(),
            None if state == InstanceState::Ready => members_known(view, urls),
            None => Vec::new(),
        },
        none: no_members(state),
        observed: seen.map(|seen| Moment::new(seen.observed_at, view.now)),
        unseen: match view.database.is_elsewhere {
            true => "The broker on their machine sees how they are.",
            false => "The broker is asking them.",
        },
    }
}

/// Why no member is shown.
fn no_members(state: InstanceState) -> &'static str {
    match state {
        InstanceState::Ready | InstanceState::Provisioning => "None serves yet.",
        InstanceState::Failed => "None serves.",
        InstanceState::Deleting => "They are removed with the database.",
    }
}

/// The members as the store knows them, before anybody has looked at them.
fn members_known(view: &InstanceView, urls: &[String]) -> Vec<MemberRow> {
    let deployment = &view.of.deployment;
    let health = match view.database.is_elsewhere {
        true => UNKNOWN,
        false => "being looked at",
    };
    let members = deployment.members.iter().enumerate();
    let row = |(place, member): (usize, &Member)| MemberRow {
        name: member.name.clone(),
        url: urls.get(place).cloned().unwrap_or_default(),
        health: health.to_owned(),
        icon: "?",
        tone: "muted",
        role: "",
        version: deployment.shape_of(member).version.to_string(),
    };
    members.map(row).collect()
}

fn member(seen: &MemberObservation) -> MemberRow {
    let trouble = seen.health.trouble().unwrap_or_default();
    let (health, icon, tone, role, version) = match &seen.health {
        MemberHealth::Serving {
            role,
            version,
            complaints,
            ..
        } => {
            let role = role.as_str();
            if complaints.is_empty() {
                (
                    "serves".to_owned(),
                    "\u{2713}",
                    "good",
                    role,
                    version.clone(),
                )
            } else {
                let complaints: Vec<String> = complaints.iter().map(Complaint::to_string).collect();
                let text = format!("serves, but {}", complaints.join("; "));
                (text, "!", "warn", role, version.clone())
            }
        }
        MemberHealth::Degraded(_) => (trouble, "!", "warn", UNKNOWN, UNKNOWN.to_owned()),
        MemberHealth::Silent(_) => (trouble, "\u{2715}", "bad", UNKNOWN, UNKNOWN.to_owned()),
    };
    MemberRow {
        name: seen.name.clone(),
        url: seen.url.clone(),
        health,
        icon,
        tone,
        role,
        version,
    }
}
