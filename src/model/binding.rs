//! Service bindings.

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    deployment::Deployment,
    engine::Profile,
    ids::{BindingId, InstanceId},
    limits::{BINDING_LIFE_SECONDS_MAX, BINDING_LIFE_SECONDS_MIN, prefix::KEY_PREFIX_BYTES_MAX},
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
    /// Its time has come, and its user is being removed.
    Expiring,
    /// Its time was over: only the row is left, until it is unbound.
    Expired,
}

impl BindingState {
    /// All states.
    const ALL: [Self; 6] = [
        Self::Creating,
        Self::Ready,
        Self::Failed,
        Self::Deleting,
        Self::Expiring,
        Self::Expired,
    ];

    /// The name used in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Ready => "ready",
            Self::Failed => "failed",
            Self::Deleting => "deleting",
            Self::Expiring => "expiring",
            Self::Expired => "expired",
        }
    }

    /// The state of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
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
    /// When it ends by itself, if it does.
    pub expires_at: Option<DateTime<Utc>>,
}

impl Binding {
    /// Whether its time is over. A clock that is set back afterwards brings nothing back.
    pub fn is_expired(&self, now: DateTime<Utc>) -> bool {
        matches!(self.state, BindingState::Expiring | BindingState::Expired)
            || self.expires_at.is_some_and(|end| end <= now)
    }

    /// Whether it was made with the token of another binding of its instance, and ends with that one.
    pub fn ends_with(&self, other: &BindingId) -> bool {
        let with = self
            .request
            .on_page
            .as_ref()
            .and_then(|made| made.with.as_ref());
        let is_there = matches!(
            self.state,
            BindingState::Creating | BindingState::Ready | BindingState::Failed
        );
        is_there && with == Some(other)
    }

    /// How long it lives, if it ends by itself.
    pub fn life(&self) -> Option<Life> {
        self.expires_at.map(|expires_at| Life {
            renew_before: expires_at - (expires_at - self.created_at) / 4,
            expires_at,
        })
    }

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

/// When a binding should be renewed and when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// OSB `renew_before`: a quarter of its life is left then.
    pub renew_before: DateTime<Utc>,
    /// OSB `expires_at`.
    pub expires_at: DateTime<Utc>,
}

/// What a user of the database may do with keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Read and watch.
    Reader,
    /// Read, watch, write and delete.
    #[default]
    Writer,
}

/// What a user of the database may do, and with which keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rights {
    /// What it may do.
    pub role: Role,
    /// What its keys begin with; empty: every key.
    pub prefix: String,
}

impl Rights {
    /// Whether the user is held to less than reading and writing every key.
    pub fn are_limited(&self) -> bool {
        *self != Self::default()
    }
}

/// What a user may ask of a binding.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct BindParameters {
    /// What the binding's user may do.
    #[serde(default)]
    role: Role,
    /// What its keys begin with.
    prefix: Option<String>,
    /// The binding's life in seconds.
    expires_in: Option<u32>,
}

/// What cannot be asked of a binding.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BindParametersError {
    /// Not of the form.
    #[error("the parameters cannot be read: {0}")]
    Unreadable(String),
    /// No key prefix.
    #[error("prefix must have from 1 to {KEY_PREFIX_BYTES_MAX} bytes")]
    Prefix,
    /// Too short or too long a life.
    #[error(
        "expires_in must be from {BINDING_LIFE_SECONDS_MIN} to {BINDING_LIFE_SECONDS_MAX} seconds"
    )]
    Life,
}

impl BindParameters {
    /// Reads parameters in normal form. What a catalog's schema forbids is refused before; the
    /// limits hold whatever the schema says.
    pub fn read(parameters: &Value) -> Result<Self, BindParametersError> {
        let read = Self::deserialize(parameters);
        let read = read.map_err(|e| BindParametersError::Unreadable(e.to_string()))?;
        let lengths = 1..=KEY_PREFIX_BYTES_MAX;
        if read
            .prefix
            .as_ref()
            .is_some_and(|p| !lengths.contains(&p.len()))
        {
            return Err(BindParametersError::Prefix);
        }
        let lives = BINDING_LIFE_SECONDS_MIN..=BINDING_LIFE_SECONDS_MAX;
        if read.expires_in.is_some_and(|life| !lives.contains(&life)) {
            return Err(BindParametersError::Life);
        }
        Ok(read)
    }

    /// What the binding's user may do.
    pub fn rights(&self) -> Rights {
        Rights {
            role: self.role,
            prefix: self.prefix.clone().unwrap_or_default(),
        }
    }

    /// When a binding ends that is asked for now: a whole second, so that it is told as it is.
    pub fn expires_at(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let life = TimeDelta::seconds(i64::from(self.expires_in?));
        Some((now + life).trunc_subsecs(0))
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
    /// The parameters, in normal form; those of the predecessor where there is one.
    pub parameters: Value,
    /// OSB `predecessor_binding_id`: the binding that this one takes over from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predecessor: Option<BindingId>,
    /// How it was made on the dashboard; none where a platform asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_page: Option<OnPage>,
}

/// How a binding was made that no platform asked for: somebody made it on the dashboard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnPage {
    /// What it is called there.
    pub name: String,
    /// The binding of the same instance whose token let its maker in: it ends with that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub with: Option<BindingId>,
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

/// The field of credentials with the certificates of the authorities to trust.
pub const AUTHORITIES: &str = "ca_certificate_base64";

/// What a binding hands to its application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedCredentials {
    /// OSB `credentials`, as JSON text: it holds passwords.
    pub credentials: Secret,
    /// OSB `endpoints`.
    pub endpoints: Vec<Endpoint>,
}

/// Tells in credentials how the user `name` reaches a deployment.
pub fn add_addresses(
    credentials: &mut Value,
    profile: &Profile,
    deployment: &Deployment,
    name: &str,
    password: &Secret,
) {
    let strings = profile.connection_strings(deployment, name, password);
    credentials["uri_cli"] = strings.cli.expose().into();
    for (i, uri) in strings.uris.iter().enumerate() {
        let field = if i == 0 {
            "uri".to_owned()
        } else {
            format!("uri_direct_{i}")
        };
        credentials[field] = uri.expose().into();
    }
}

/// Where applications must be able to connect to, to use a deployment.
pub fn endpoints(profile: &Profile, deployment: &Deployment) -> Vec<Endpoint> {
    let members = deployment.members.iter();
    let endpoint = |member| {
        let entrance = profile.entrance(member);
        Endpoint {
            host: entrance.host.clone(),
            ports: vec![entrance.port.to_string()],
            protocol: "tcp".to_owned(),
        }
    };
    members.map(endpoint).collect()
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
