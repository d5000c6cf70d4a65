//! Which backup a deployment was restored from, in the body of the Compose API.

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    broker::Source,
    http::openapi::scalars::{OwnId, PlatformId, Time, time},
    model::ids::{BackupId, DeploymentId, InstanceId},
};

/// The backup that a deployment was restored from, and the instance that it was taken of. Both may be gone.
#[derive(Serialize, ToSchema)]
#[schema(as = RestoredFrom)]
pub struct RestoredFromBody {
    /// The instance.
    #[schema(value_type = PlatformId)]
    instance_id: InstanceId,
    /// What people call it, or called it in the end; `null` where nobody said.
    #[schema(required)]
    instance_name: Option<String>,
    /// Whether it is still there.
    instance_exists: bool,
    /// Its deployment.
    #[schema(value_type = OwnId)]
    deployment_id: DeploymentId,
    /// The backup.
    #[schema(value_type = OwnId)]
    backup_id: BackupId,
    /// When the backup was asked for.
    #[schema(value_type = Time)]
    backup_requested_at: String,
}

impl From<&Source> for RestoredFromBody {
    fn from(source: &Source) -> Self {
        let of = &source.of;
        Self {
            instance_id: of.instance.clone(),
            instance_name: of.name.clone(),
            instance_exists: source.exists,
            deployment_id: of.deployment.clone(),
            backup_id: of.backup.clone(),
            backup_requested_at: time(of.taken_at),
        }
    }
}
