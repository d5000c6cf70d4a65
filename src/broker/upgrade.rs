//! What an upgrade would do, told before anything is touched.

use std::sync::Arc;

use super::{
    BrokerError, BrokerParts, DeploymentView, UpdateRequest, Updated, inventory::Inventory,
    observation::Observer, update::Updates,
};
use crate::{
    model::{
        deployment::{Deployment, Shape},
        engine::{Obstacle, Profile},
        limits::VERSION_BYTES_MAX,
        observation::MemberObservation,
        operation::Operation,
        origin::Origin,
        sentence::capitalized,
        version::Version,
    },
    store::{Store, StoreError},
};

/// What an upgrade would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preflight {
    /// The version that runs.
    pub from: Version,
    /// The version that was asked for, as it was written.
    pub wanted: String,
    /// The versions that the members would run one after the other; empty when it is refused.
    pub path: Vec<Version>,
    /// Why it would not be done now, in sentences for people; empty when it would.
    pub reasons: Vec<String>,
    /// What would be done beside it, in sentences for people.
    pub notes: Vec<String>,
}

/// How a rehearsal ends: always by taking back what was decided.
enum Rehearsed {
    Accepted(Box<Operation>),
    NothingToDo,
    Refused(BrokerError),
}

impl From<StoreError> for Rehearsed {
    fn from(error: StoreError) -> Self {
        Self::Refused(error.into())
    }
}

/// Tells what an upgrade would do.
pub struct Upgrades {
    store: Arc<Store>,
    observer: Arc<dyn Observer>,
    inventory: Arc<Inventory>,
    updates: Arc<Updates>,
}

impl Upgrades {
    pub(super) fn new(
        parts: &BrokerParts,
        inventory: Arc<Inventory>,
        updates: Arc<Updates>,
    ) -> Self {
        Self {
            store: parts.store.clone(),
            observer: parts.observer.clone(),
            inventory,
            updates,
        }
    }

    /// What an upgrade of a deployment to `wanted` would do. Nothing is changed: the rules are
    /// those of the upgrade itself, whose decision is taken back.
    pub async fn preflight(
        &self,
        of: &DeploymentView,
        wanted: &str,
    ) -> Result<Preflight, BrokerError> {
        if !(1..=VERSION_BYTES_MAX).contains(&wanted.len()) {
            let reason = format!("a version has from 1 to {VERSION_BYTES_MAX} bytes");
            return Err(BrokerError::BadRequest(reason));
        }
        let mut preflight = Preflight {
            from: of.deployment.version,
            wanted: wanted.to_owned(),
            path: Vec::new(),
            reasons: Vec::new(),
            notes: Vec::new(),
        };
        match self.rehearse(of, wanted).await {
            Rehearsed::NothingToDo => {
                let text = format!("It runs {wanted} already.");
                preflight.reasons.push(text);
            }
            Rehearsed::Refused(
                error @ (BrokerError::Store(_) | BrokerError::StoreFull(_) | BrokerError::Seal(_)),
            ) => {
                return Err(error);
            }
            Rehearsed::Refused(refusal) => preflight.reasons.push(sentence(&refusal.to_string())),
            Rehearsed::Accepted(operation) => {
                let path = operation.change.map(|change| change.path);
                let version = |shape: &Shape| shape.version;
                preflight.path = path.unwrap_or_default().iter().map(version).collect();
                self.look_ahead(&of.deployment, &mut preflight).await?;
            }
        }
        Ok(preflight)
    }

    async fn rehearse(&self, of: &DeploymentView, wanted: &str) -> Rehearsed {
        let parameters = serde_json::json!({ "db_version": wanted });
        let request = UpdateRequest::of(&of.instance, parameters, Origin::Compose);
        let updates = self.updates.clone();
        let rehearsed = self.store.decide(move |conn| -> Result<(), Rehearsed> {
            Err(match updates.update_in(conn, &request, None) {
                Ok(Updated::Accepted(operation)) => Rehearsed::Accepted(operation),
                Ok(Updated::Done) => Rehearsed::NothingToDo,
                Err(refusal) => Rehearsed::Refused(refusal),
            })
        });
        match rehearsed.await {
            Err(rehearsed) => rehearsed,
            Ok(()) => Rehearsed::NothingToDo,
        }
    }

    /// What the members say, and what would be done on the way.
    async fn look_ahead(
        &self,
        deployment: &Deployment,
        preflight: &mut Preflight,
    ) -> Result<(), BrokerError> {
        let profile = self.inventory.profile(&deployment.engine)?;
        match self.observer.look(deployment).await {
            Some(seen) => {
                let reasons = seen.members.iter().filter_map(not_serving);
                preflight.reasons.extend(reasons);
            }
            None => preflight
                .reasons
                .push("The broker could not look at the members.".to_owned()),
        }
        if preflight.reasons.is_empty() {
            let goal = preflight.path.last().copied().unwrap_or(preflight.from);
            match self.observer.obstacles(deployment, goal).await {
                Some(obstacles) => add_obstacles(profile, preflight, obstacles),
                None => preflight
                    .reasons
                    .push("The broker could not ask the members.".to_owned()),
            }
        }
        preflight
            .notes
            .push("A backup is taken first; when it fails, nothing is changed.".to_owned());
        preflight.notes.extend(stages(profile, preflight));
        Ok(())
    }
}

/// Why a member stands in the way, unless it serves.
fn not_serving(member: &MemberObservation) -> Option<String> {
    let trouble = member.health.trouble()?;
    Some(format!("The member {} {trouble}.", member.name))
}

/// What the members tell of obstacles: what the upgrade puts right is a note, all else a reason.
fn add_obstacles(profile: &Profile, preflight: &mut Preflight, obstacles: Vec<Obstacle>) {
    if obstacles.is_empty() {
        preflight.notes.push(profile.unobstructed.to_owned());
    }
    for obstacle in obstacles {
        if obstacle.is_mended {
            let text = format!("{}; the upgrade puts it right first", obstacle.text);
            preflight.notes.push(sentence(&text));
        } else {
            preflight.reasons.push(sentence(&obstacle.text));
        }
    }
}

/// What is special about the versions on the way.
fn stages(profile: &Profile, preflight: &Preflight) -> Vec<String> {
    let mut notes = Vec::new();
    let mut at = preflight.from;
    for to in preflight.path.iter().copied() {
        if to.same_line(&at) && Some(&to) != preflight.path.last() {
            let (major, minor) = (at.major, at.minor);
            notes.push(format!(
                "{to} comes first: {at} may not leave the line {major}.{minor}."
            ));
        }
        if profile.checkpoints(at, to) {
            let restarted = if at == preflight.from {
                "is restarted once more and "
            } else {
                ""
            };
            notes.push(format!(
                "Before {to} each member {restarted}saves its full state."
            ));
        }
        at = to;
    }
    notes
}

/// With a capital letter and a full stop.
fn sentence(text: &str) -> String {
    let text = text.trim_end_matches('.');
    let word = text.split(' ').next().unwrap_or_default();
    // A parameter's name stays as it is.
    if !word.chars().all(char::is_alphabetic) {
        return format!("{text}.");
    }
    format!("{}.", capitalized(text))
}
