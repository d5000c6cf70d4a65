//! What an instance was restored from, for a platform or for its users.

use chrono::{DateTime, Utc};

use super::{
    backup::Manifest,
    ids::{BackupId, DeploymentId, InstanceId},
};

/// A backup, and the instance that it was taken of. It is remembered beyond both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// The instance. A platform may use its id again: [`Self::deployment`] tells.
    pub instance: InstanceId,
    /// The deployment that it had.
    pub deployment: DeploymentId,
    /// What people called it.
    pub name: Option<String>,
    /// The backup.
    pub backup: BackupId,
    /// When that was asked for.
    pub taken_at: DateTime<Utc>,
}

impl Provenance {
    /// That of an instance which is made of a backup; `name`: what people call the backup's instance.
    pub fn of(manifest: &Manifest, name: Option<String>) -> Self {
        Self {
            instance: manifest.instance_id.clone(),
            deployment: manifest.deployment_id.clone(),
            name,
            backup: manifest.backup_id.clone(),
            taken_at: manifest.requested_at,
        }
    }

    /// What people call the source: by its name where one is known, else by its id.
    pub fn source(&self) -> &str {
        self.name
            .as_deref()
            .unwrap_or_else(|| self.instance.as_str())
    }
}
