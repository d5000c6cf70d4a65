//! What work waits for where a database is down, and what is said of it before.

use hyper::Method;
use serde_json::Value;

use super::{Session, book::Instance};
use crate::model::{
    health::{DownReason, HealthState},
    recovery::for_operators,
    sentence::capitalized,
    update::waits_for_members,
};

/// How an instance is, in the broker's word; none where we know none of that name.
pub(super) fn state_of(health: &Value) -> Option<HealthState> {
    health["state"].as_str().and_then(HealthState::parse)
}

/// The word for the health that a broker tells, as it stands on its pages; its own where we know none.
pub(super) fn health_word(health: &Value) -> &str {
    let told = health["state"].as_str().unwrap_or_default();
    state_of(health).map_or(told, |state| state.word())
}

/// The health that a broker tells: the word, and what is the matter.
pub(super) fn health_in_full(health: &Value) -> String {
    let message = health["message"].as_str().unwrap_or_default();
    format!("{}: {message}", health_word(health))
}

/// Why a database is down; none where it is not, or for a reason that we do not know. A broker of before says no
/// reason: it had one alone.
fn down(health: &Value) -> Option<DownReason> {
    let is_down = state_of(health) == Some(HealthState::Down);
    let reason = || match health["reason"].as_str() {
        Some(reason) => DownReason::parse(reason),
        None => Some(DownReason::Members),
    };
    is_down.then(reason).flatten()
}

/// Whether members are what a database lacks that is down.
pub(super) fn lacks_members(health: &Value) -> bool {
    down(health) == Some(DownReason::Members)
}

/// Until when work waits that a database has to serve for; none where it does not wait.
pub(super) fn waits_until(health: &Value) -> Option<&'static str> {
    down(health).and_then(DownReason::waits_until)
}

impl Session {
    /// How an instance is, as a broker of this kind tells its operators; none where it does not.
    pub(super) async fn health(&self, instance: &Instance) -> Option<Value> {
        let path = ["instances", &instance.id];
        let told = self.osb.operator(Method::GET, &path, &[], None, 200).await;
        let health = told.ok()?["health"].take();
        health["state"].is_string().then_some(health)
    }

    /// Tells operators what they can do about an instance that lacks members.
    pub(super) fn advise_operators(&self, instance: &Instance, health: Option<&Value>) {
        if health.is_some_and(lacks_members) {
            self.show.note(&for_operators(&instance.id));
        }
    }

    /// Says what a change of members waits for where these do not all serve, as far as the broker tells.
    pub(super) async fn warn_of_a_wait(&self, instance: &Instance, change: &Value) {
        let named = |parameter: &str| change["parameters"].get(parameter).is_some();
        let changes_members =
            change["maintenance_info"].is_object() || named("units") || named("db_version");
        if !changes_members {
            return;
        }
        let health = self.health(instance).await.unwrap_or_default();
        if waits_until(&health).is_some() || state_of(&health) == Some(HealthState::Degraded) {
            let (name, word) = (&instance.name, health_word(&health));
            let waits = capitalized(&waits_for_members());
            self.show.note(&format!("{name} is {word}. {waits}."));
        }
    }

    /// Says until when a new key waits where its database is down, as far as the broker tells.
    pub(super) async fn warn_of_a_late_key(&self, instance: &Instance) {
        let health = self.health(instance).await.unwrap_or_default();
        if let Some(until) = waits_until(&health) {
            let name = &instance.name;
            self.show
                .note(&format!("{name} is down: the key waits {until}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn work_waits_for_members_and_a_recovery_and_not_for_room() {
        let members = Some("until enough members serve");
        for (health, expected) in [
            (json!({ "state": "down" }), members),
            (json!({ "state": "down", "reason": "members" }), members),
            (json!({ "state": "down", "reason": "closed" }), None),
            (
                json!({ "state": "down", "reason": "recovery" }),
                Some("until it is recovered"),
            ),
            (json!({ "state": "degraded" }), None),
            (json!({ "state": "ready" }), None),
            (json!({ "state": "new" }), None),
            (Value::Null, None),
        ] {
            assert_eq!(waits_until(&health), expected, "{health}");
        }
    }
}
