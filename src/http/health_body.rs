//! How an instance is, as every interface tells it.

use serde::Serialize;
use utoipa::{ToSchema, openapi::Object};

use super::openapi::scalars::{Time, time, words};
use crate::model::health::{DownReason, Health, HealthState};

/// How an instance is: the worst of what is done to it, of its alerts and of what was seen of its
/// members. That its last operation succeeded says nothing of it.
#[derive(Serialize, ToSchema)]
#[schema(as = InstanceHealth)]
pub struct HealthBody {
    /// In a word. `unknown`: the broker has not seen the members lately.
    #[schema(schema_with = states)]
    state: &'static str,
    /// Why it is down; left out unless the word is `down`. `members`: too few of them serve. `closed`:
    /// it is full, and nobody but the broker is let in. `recovery`: its operator has it made anew.
    #[schema(schema_with = reasons)]
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// What is the matter, since when, and what to do about it, for people.
    message: String,
    /// Since when, as far as that is known.
    #[schema(required, value_type = Option<Time>)]
    since: Option<String>,
}

impl From<Health> for HealthBody {
    fn from(of: Health) -> Self {
        Self {
            state: of.state.as_str(),
            reason: of.down.map(DownReason::as_str),
            message: of.message,
            since: of.since.map(time),
        }
    }
}

fn states() -> Object {
    words(HealthState::ALL.iter().map(|state| state.as_str()))
}

fn reasons() -> Object {
    words(DownReason::ALL.iter().map(|reason| reason.as_str()))
}
