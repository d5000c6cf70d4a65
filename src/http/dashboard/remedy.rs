//! Where something is done about what the page of an instance says of it: links beside health and alerts.

use super::path_of;
use crate::{
    broker::InstanceView,
    model::{
        alert::{Alert, Subject},
        instance::InstanceState,
        observation::Observation,
    },
};

/// A page where something is done about it.
pub struct Remedy {
    /// The page.
    pub href: String,
    /// What is done there.
    pub text: &'static str,
}

/// What is done about a database that is full. Nothing else of its health is in the hands of its users.
pub fn of_health(view: &InstanceView, seen: Option<&Observation>) -> Vec<Remedy> {
    let is_ready = view.of.instance.state == InstanceState::Ready;
    let is_closed = view.of.deployment.closed_since.is_some();
    match is_ready && (is_closed || seen.is_some_and(Observation::is_full)) {
        true => of_full(view),
        false => Vec::new(),
    }
}

/// What is done about what an alert says.
pub fn of_alert(view: &InstanceView, alert: &Alert) -> Vec<Remedy> {
    match &alert.subject {
        Subject::Closing => of_full(view),
        Subject::Complaint(key) if key == "full" => of_full(view),
        Subject::Storage => vec![units(view), room(view)],
        Subject::Limits | Subject::Loopback | Subject::Faults => vec![versions(view)],
        _ => Vec::new(),
    }
}

fn of_full(view: &InstanceView) -> Vec<Remedy> {
    let mut found = vec![units(view), room(view)];
    let database = &view.database;
    if !database.is_safe_full && database.safe_full_from.is_some() {
        found.push(versions(view));
    }
    found
}

fn remedy(view: &InstanceView, page: &str, text: &'static str) -> Remedy {
    Remedy {
        href: format!("{}/{page}", path_of(&view.of.instance.id)),
        text,
    }
}

fn units(view: &InstanceView) -> Remedy {
    remedy(view, "settings#h-size", "More units")
}

fn room(view: &InstanceView) -> Remedy {
    remedy(view, "room", "Make room")
}

fn versions(view: &InstanceView) -> Remedy {
    remedy(view, "versions", "Versions and upgrades")
}
