//! Where the store, the backup store and the clusters disagree, and what was done about it.

use serde::Serialize;
use utoipa::ToSchema;

use crate::model::ids::{BackupId, DeploymentId, InstanceId, OperationId};

/// Where store and backup store disagree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(tag = "finding", rename_all = "snake_case")]
pub enum Finding {
    /// A backup counts as complete, and an object of it is not there.
    BytesMissing {
        /// The backup.
        #[schema(value_type = String)]
        backup: BackupId,
        /// The instance it was taken of.
        #[schema(value_type = String)]
        instance: InstanceId,
        /// The object that is missing.
        object: String,
    },
    /// The register of a deployment's backups is not the one that the broker wrote last.
    WrongRegister {
        /// The deployment.
        #[schema(value_type = String)]
        deployment: DeploymentId,
        /// What is wrong with it.
        what: String,
    },
    /// Objects that no row accounts for.
    Leftover {
        /// The deployment that they are of.
        #[schema(value_type = String)]
        deployment: DeploymentId,
        /// The backup that they are of.
        #[schema(value_type = String)]
        backup: BackupId,
        /// The objects.
        objects: Vec<String>,
        /// Whether they are a whole backup of a deployment that is there.
        adoptable: bool,
    },
    /// An operator gave an operation up, and this is left of it: deleting the instance or the binding
    /// removes it, or the operation's retry.
    Abandoned {
        /// The operation.
        #[schema(value_type = String)]
        operation: OperationId,
        /// What it did.
        kind: String,
        /// The instance.
        #[schema(value_type = String)]
        instance: InstanceId,
        /// What is left.
        left: Vec<String>,
    },
    /// A deployment on a cluster that no row accounts for.
    DeploymentWithoutRow {
        /// The deployment.
        #[schema(value_type = String)]
        deployment: DeploymentId,
        /// The cluster.
        cluster: String,
        /// The instance that it is of, where a backup tells.
        #[schema(required, value_type = Option<String>)]
        instance: Option<InstanceId>,
        /// The newest backup that tells so.
        #[schema(required, value_type = Option<String>)]
        backup: Option<BackupId>,
        /// Whether the deployment can be adopted.
        adoptable: bool,
    },
    /// A usable instance of whose deployment nothing is on its cluster.
    RowWithoutDeployment {
        /// The instance.
        #[schema(value_type = String)]
        instance: InstanceId,
        /// The deployment.
        #[schema(value_type = String)]
        deployment: DeploymentId,
        /// The cluster.
        cluster: String,
    },
    /// An object that is none of ours; it is left alone.
    Foreign {
        /// Its name.
        object: String,
    },
}

/// What was done about a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FindingRepair {
    /// What was missing was put back from the mirror.
    Healed,
    /// The backup counts as failed now.
    MarkedFailed,
    /// The backup is listed again.
    Adopted,
    /// The backup is listed as one of a deleted instance.
    Kept,
    /// The register was written anew.
    Rewritten,
    /// The objects are gone.
    Deleted,
    /// Nothing.
    Left,
}

/// A finding and what was done about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Repaired {
    /// The finding.
    #[serde(flatten)]
    pub finding: Finding,
    /// What was done.
    pub repair: FindingRepair,
}
