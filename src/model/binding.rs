//! Service bindings.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    ids::{BindingId, InstanceId},
    secret::Secret,
};

/// Where a binding is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindingState {
    /// Being made.
    Creating,
    /// Usable.
    Ready,
    /// Could not be made, or not be deleted.
    Failed,
    /// Being deleted.
    Deleting,
}

impl BindingState {
    /// The name used in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Ready => "ready",
            Self::Failed => "failed",
            Self::Deleting => "deleting",
        }
    }

    /// The state of that name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Creating, Self::Ready, Self::Failed, Self::Deleting]
            .into_iter()
            .find(|state| state.as_str() == text)
    }
}

/// A service binding.
#[derive(Debug, Clone, PartialEq)]
pub struct Binding {
    /// The instance it belongs to.
    pub instance: InstanceId,
    /// The platform's id of it.
    pub id: BindingId,
    /// The parameters, as they came.
    pub parameters: Value,
    /// What it was asked for with, to recognise a repeat.
    pub request: BindIdentity,
    /// Its own user in the database.
    pub database_user: String,
    /// Its secrets, sealed ([`BindingSecrets`] as JSON).
    pub sealed_secrets: String,
    /// What its application gets, sealed ([`IssuedCredentials`] as JSON); there once it is usable.
    pub sealed_credentials: Option<String>,
    /// Where it is in its life.
    pub state: BindingState,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
}

impl Binding {
    /// The place that this binding's secrets are sealed for.
    pub fn secrets_context(&self) -> String {
        format!("binding secrets {}", self.place())
    }

    /// The place that what this binding's application gets is sealed for.
    pub fn credentials_context(&self) -> String {
        format!("binding credentials {}", self.place())
    }

    /// Both ids; no id has the control character between them, so no two places are alike.
    fn place(&self) -> String {
        format!("{}\u{1f}{}", self.instance, self.id)
    }
}

/// What makes two bind requests the same (OSB "Binding", 200 and 409).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BindIdentity {
    /// OSB `service_id`.
    pub service_id: String,
    /// OSB `plan_id`.
    pub plan_id: String,
    /// OSB `bind_resource`, in normal form.
    pub bind_resource: Value,
    /// The parameters, in normal form.
    pub parameters: Value,
}

/// What only the binding's application may know; chosen before the work begins, so that the
/// work can be repeated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingSecrets {
    /// Password of the binding's own database user.
    pub password: Secret,
    /// Bearer token for the administration API of the binding's instance.
    pub token: Secret,
}

/// What a binding hands to its application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedCredentials {
    /// OSB `credentials`, as JSON text: it holds passwords.
    pub credentials: Secret,
    /// OSB `endpoints`.
    pub endpoints: Vec<Endpoint>,
}

/// OSB's endpoint: where an application must be able to connect to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Host name or address.
    pub host: String,
    /// Ports, as texts.
    pub ports: Vec<String>,
    /// `tcp`.
    pub protocol: String,
}
