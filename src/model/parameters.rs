//! What the platform's users may ask of instances, as the schemas of the catalog describe it.

use serde::Deserialize;

/// The parameters of a provision request.
#[derive(Debug, Default, Deserialize)]
pub struct ProvisionParameters {
    /// The instance whose backup the new one is made from.
    pub source_service_instance_id: Option<String>,
    /// The backup that the new one is made from.
    pub backup_id: Option<String>,
    /// The cluster that it goes to.
    pub cluster_id: Option<String>,
    /// The cluster that it goes to, by the instance that stands for it.
    pub cluster_service_instance_id: Option<String>,
    /// The engine's version.
    pub db_version: Option<String>,
    /// The size.
    pub units: Option<u32>,
}

/// The parameters of an update.
#[derive(Debug, Default, Deserialize)]
pub struct UpdateParameters {
    /// The engine's version from then on.
    pub db_version: Option<String>,
    /// The size from then on.
    pub units: Option<u32>,
}
