//! The register of a deployment: what stands beside its backups, signed, and says which of them should be there. Pure.
//!
//! It is what a chain of manifests would be, without what breaks a chain: backups that go. Each state of the set of
//! backups has a number, and each manifest says which number the register had when it was written. So who has the
//! backups alone notices that one is missing, and that the register is an older one.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{
    backup::Manifest,
    ids::{BackupId, DeploymentId},
    limits::register::REGISTER_BEHIND,
    period::BackupKind,
    trouble::Moment,
};

/// The version of the register's own form.
pub const REGISTER_FORMAT: u32 = 1;
/// What the register is called, beside the folders of the backups.
pub const REGISTER_FILE: &str = "register.json";

/// The register of a deployment, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// Version of this form, [`REGISTER_FORMAT`].
    pub format: u32,
    /// The deployment.
    pub deployment_id: DeploymentId,
    /// Which state of the set of backups it tells of; counted from 1.
    pub number: i64,
    /// When it was written.
    pub written_at: DateTime<Utc>,
    /// Whether it is that of the mirror.
    #[serde(default, skip_serializing_if = "is_false")]
    pub of_mirror: bool,
    /// The backups, the oldest in front.
    pub backups: Vec<Registered>,
    /// The name of a key of the ring, `:` and the HMAC-SHA-256 of all but this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

/// A backup in a register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// The backup.
    pub backup_id: BackupId,
    /// Why it was taken.
    pub kind: BackupKind,
    /// When its snapshot was begun.
    pub started_at: DateTime<Utc>,
    /// The SHA-256 (hex) of what is signed of its manifest; none where nothing is, as in those of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_sha256: Option<String>,
    /// Whether it may not be there yet: its copy has not been made.
    #[serde(default, skip_serializing_if = "is_false")]
    pub awaited: bool,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

impl Register {
    /// One that was not written yet.
    pub fn new(
        deployment: &DeploymentId,
        number: i64,
        backups: Vec<Registered>,
        now: DateTime<Utc>,
    ) -> Self {
        Self {
            format: REGISTER_FORMAT,
            deployment_id: deployment.clone(),
            number,
            written_at: now,
            of_mirror: false,
            backups,
            signature: None,
        }
    }

    /// What it says of a backup; none: it should not be there.
    pub fn find(&self, backup: &BackupId) -> Option<&Registered> {
        self.backups.iter().find(|of| of.backup_id == *backup)
    }

    /// Whether it may have been written before the backup of `manifest` was complete, so that it cannot tell of that.
    pub fn is_before(&self, manifest: &Manifest) -> bool {
        let last = manifest.register.unwrap_or_default();
        self.number <= last || self.written_at < manifest.finished_at + REGISTER_BEHIND
    }

    /// Whether both tell the same, whenever they were written and by whom they are signed.
    pub fn says_as(&self, other: &Self) -> bool {
        self.deployment_id == other.deployment_id
            && self.number == other.number
            && self.of_mirror == other.of_mirror
            && self.backups == other.backups
    }
}

/// What the store knows of a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegisterState {
    /// The number of the set of backups as it is.
    pub number: i64,
    /// The number of the register that the store knows was written; 0: it knows of none.
    pub written: i64,
    /// When was looked last whether all backups are there; none: never.
    pub called_at: Option<DateTime<Utc>>,
}

impl RegisterState {
    /// That of a deployment of which no backup was ever complete: the store has no row of it. The first manifest names
    /// this number, of a register without backups.
    pub const BEFORE_ALL: Self = Self {
        number: 1,
        written: 0,
        called_at: None,
    };

    /// Whether what was written last says what is so.
    pub fn is_settled(self) -> bool {
        self.written == self.number
    }
}

/// How users and operators are told of a backup that is gone.
pub fn gone(backup: &BackupId, taken_at: DateTime<Utc>) -> String {
    format!(
        "The backup {backup} of {} is gone from the backup store, and the broker did not delete it: somebody else did, or \
         the broker's own store was put back to an earlier state. It cannot be restored. The operator looks at who may \
         write to the backup store, and has the broker compare both (/operator/reconciliation).",
        Moment(taken_at)
    )
}

/// How users and operators are told of a register that is not the one that was written last.
pub fn not_ours(reason: &str) -> String {
    format!(
        "The register of the backups of this database, which stands beside them, {reason}. It was written anew. Somebody \
         else than the broker writes to the backup store: the operator looks at who may."
    )
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn only_what_is_false_is_left_out() {
        let now = DateTime::UNIX_EPOCH;
        let deployment = "5ae85b45e5717f0001533192".parse().expect("an id");
        let mut of = Register::new(&deployment, 1, Vec::new(), now);
        of.backups.push(Registered {
            backup_id: "5ae85b45e5717f00015331aa".parse().expect("an id"),
            kind: BackupKind::Daily,
            started_at: now + TimeDelta::seconds(1),
            manifest_sha256: None,
            awaited: false,
        });
        let text = serde_json::to_string(&of).expect("JSON");
        assert_eq!(
            text,
            "{\"format\":1,\"deployment_id\":\"5ae85b45e5717f0001533192\",\"number\":1,\
             \"written_at\":\"1970-01-01T00:00:00Z\",\"backups\":[{\"backup_id\":\"5ae85b45e5717f00015331aa\",\
             \"kind\":\"daily\",\"started_at\":\"1970-01-01T00:00:01Z\"}]}"
        );
        assert_eq!(serde_json::from_str::<Register>(&text).expect("JSON"), of);
        (of.of_mirror, of.backups[0].awaited) = (true, true);
        let text = serde_json::to_string(&of).expect("JSON");
        assert_eq!(serde_json::from_str::<Register>(&text).expect("JSON"), of);
    }
}
