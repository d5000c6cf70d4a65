//! What a provision asks for, and who asks.

use serde_json::Value;

use super::tenant_key::PrivateKey;
use crate::model::{ids::InstanceId, instance::Instance, origin::Origin};

/// The field of the context in which platforms name an instance (OSB profile).
pub(super) const INSTANCE_NAME: &str = "instance_name";

/// OSB "Provisioning".
#[derive(Debug, Clone)]
pub struct ProvisionRequest {
    /// The id that the platform chose.
    pub instance: InstanceId,
    /// OSB `service_id`.
    pub service_id: String,
    /// OSB `plan_id`.
    pub plan_id: String,
    /// OSB `organization_guid`.
    pub organization: String,
    /// OSB `space_guid`.
    pub space: String,
    /// OSB `context`.
    pub context: Option<Value>,
    /// OSB `parameters`, without a private key.
    pub parameters: Option<Value>,
    /// What opens the backup that it is made of, where the broker cannot. Two requests with different ones are the
    /// same request: nothing is kept to compare them by.
    pub private_key: PrivateKey,
    /// OSB `maintenance_info.version`.
    pub maintenance_version: Option<String>,
    /// Whether the platform takes a 202.
    pub accepts_incomplete: bool,
}

/// Who asks for an instance.
#[derive(Debug, Clone, Copy)]
pub(super) enum Asker<'a> {
    /// The platform.
    Platform,
    /// A user of the instance in front of this deployment, by a restore of the broker's own.
    Neighbour {
        /// The source of the restore, whose owner gets the new instance.
        source: &'a Instance,
        /// Where the user came from, as operations name it.
        origin: Origin,
    },
}
