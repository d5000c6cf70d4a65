//! What is left of instances that were deleted: their backups, for a while.
//!
//! A delete by mistake is the disaster that backups are asked for most. So they stay, with one more that is
//! taken before anything goes, and the former owner makes a new instance of them.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::{
    backup::Manifest,
    ids::{DeploymentId, InstanceId},
    instance::Instance,
    limits::deleted::DELETED_KEPT_DAYS,
    tenant::Tenant,
    version::Version,
};

/// What a plan keeps of its instances when they are deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct AfterDelete {
    /// Whether one more backup is taken before anything goes.
    pub final_backup: bool,
    /// How many days backups are kept; 0: they go with the instance, and none is taken.
    pub backups_kept_days: u32,
}

impl Default for AfterDelete {
    fn default() -> Self {
        Self {
            final_backup: true,
            backups_kept_days: DELETED_KEPT_DAYS,
        }
    }
}

impl AfterDelete {
    /// Whether a last backup is taken of a usable instance before it is deleted.
    pub fn takes_final_backup(self, of: &Instance) -> bool {
        self.final_backup && self.keeps_backups(of)
    }

    /// Whether its backups stay for a while.
    pub fn keeps_backups(self, of: &Instance) -> bool {
        self.backups_kept_days > 0 && !of.deletes_backups()
    }

    /// Until when they stay.
    pub fn kept_until(self, deleted_at: DateTime<Utc>) -> DateTime<Utc> {
        deleted_at + TimeDelta::days(self.backups_kept_days.into())
    }
}

/// A deleted instance whose backups are there still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeletedInstance {
    /// The deployment that was behind it. It names this life of the instance: a platform may use the
    /// instance's id again.
    pub deployment: DeploymentId,
    /// The platform's id of it.
    pub instance: InstanceId,
    /// OSB `service_id`.
    pub service_id: String,
    /// OSB `plan_id`.
    pub plan_id: String,
    /// Whose it was.
    pub tenant: Tenant,
    /// What people called it.
    pub name: Option<String>,
    /// The cluster that it was on.
    pub cluster: String,
    /// The engine's name.
    pub engine: String,
    /// The version that it had.
    pub version: Version,
    /// Its size.
    pub units: u32,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When the last of its members was gone.
    pub deleted_at: DateTime<Utc>,
    /// When its backups go.
    pub kept_until: DateTime<Utc>,
    /// Why its last backup is not there, in words; none where it is, or none was to be taken.
    pub final_backup_failure: Option<String>,
    /// The deployment that its content came from; none where it was made empty, or nobody knows.
    pub restored_from: Option<DeploymentId>,
}

impl DeletedInstance {
    /// One that the store has lost, as its newest backup tells of it. It counts as deleted now, and its backups
    /// stay for as long as those of others, or as [`DELETED_KEPT_DAYS`] says.
    pub fn lost(newest: &Manifest, rules: AfterDelete, now: DateTime<Utc>) -> Self {
        let rules = match rules.backups_kept_days {
            0 => AfterDelete::default(),
            _ => rules,
        };
        Self {
            deployment: newest.deployment_id.clone(),
            instance: newest.instance_id.clone(),
            service_id: newest.service_id.clone(),
            plan_id: newest.plan_id.clone().unwrap_or_default(),
            tenant: newest.tenant.clone(),
            name: None,
            cluster: String::new(),
            engine: newest.engine.clone(),
            version: newest.version,
            units: newest.units,
            created_at: newest.deployment_id.made_at(),
            deleted_at: now,
            kept_until: rules.kept_until(now),
            final_backup_failure: None,
            restored_from: None,
        }
    }

    /// The instance that its backups are of, in the store: the id of its own may be another instance's by now.
    pub fn keeper(&self) -> InstanceId {
        InstanceId::of_deleted(&self.deployment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_that_says_nothing_keeps_backups_and_takes_one_more() {
        let read = |text: &str| serde_json::from_str::<AfterDelete>(text).expect("rules");
        let fourteen = AfterDelete {
            final_backup: true,
            backups_kept_days: 14,
        };
        assert_eq!(read("{}"), fourteen);
        assert_eq!(read("{}"), AfterDelete::default());
        assert!(!read(r#"{"final_backup": false}"#).final_backup);
        let at = DateTime::UNIX_EPOCH;
        assert_eq!(fourteen.kept_until(at), at + TimeDelta::days(14));
    }
}
