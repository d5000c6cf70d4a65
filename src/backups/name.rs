//! Names of objects.
//!
//! A name is made of parts with `/` between them and comes from our own ids alone, so that no
//! text of a platform or user ever becomes part of a path. Everything of one backup, and of one
//! deployment, has a common prefix that no other one shares.

use std::fmt;

use crate::model::{
    backup::{
        MANIFEST_FILE, Manifest, SEALING_FOR_TENANT, SNAPSHOT_FILE, StoredSnapshot,
        TENANT_SNAPSHOT_FILE,
    },
    ids::{BackupId, DeploymentId, PartId},
    register::REGISTER_FILE,
};

/// What the names of an upload's parts begin with.
const PART_PREFIX: &str = "part-";

/// Longest part of a name, in bytes: what file systems allow, less what a temporary name adds.
const PART_BYTES_MAX: usize = 200;

/// The name of an object, in ASCII. Names are ordered by their bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectName(String);

impl ObjectName {
    /// The snapshot of a backup, sealed.
    pub fn snapshot(deployment: &DeploymentId, backup: &BackupId) -> Self {
        Self(format!("{deployment}/{backup}/{SNAPSHOT_FILE}.zst.sealed"))
    }

    /// The snapshot of a backup that an earlier version stored: it is not sealed.
    pub fn clear_snapshot(deployment: &DeploymentId, backup: &BackupId) -> Self {
        Self(format!("{deployment}/{backup}/{SNAPSHOT_FILE}.zst"))
    }

    /// The snapshot of a backup, sealed for the key of its tenant.
    pub fn tenant_snapshot(deployment: &DeploymentId, backup: &BackupId) -> Self {
        Self(format!("{deployment}/{backup}/{TENANT_SNAPSHOT_FILE}"))
    }

    /// The names that the snapshot of a backup can have; one of them is there.
    pub(super) fn snapshots(deployment: &DeploymentId, backup: &BackupId) -> [Self; 3] {
        [
            Self::snapshot(deployment, backup),
            Self::tenant_snapshot(deployment, backup),
            Self::clear_snapshot(deployment, backup),
        ]
    }

    /// The snapshot that is stored like that.
    pub(super) fn snapshot_as(
        stored: &StoredSnapshot,
        deployment: &DeploymentId,
        backup: &BackupId,
    ) -> Self {
        match stored.sealing.as_deref() {
            Some(SEALING_FOR_TENANT) => Self::tenant_snapshot(deployment, backup),
            Some(_) => Self::snapshot(deployment, backup),
            None => Self::clear_snapshot(deployment, backup),
        }
    }

    /// The snapshot that a manifest tells of.
    pub(super) fn snapshot_of(manifest: &Manifest) -> Self {
        let (deployment, backup) = (&manifest.deployment_id, &manifest.backup_id);
        Self::snapshot_as(&manifest.stored, deployment, backup)
    }

    /// The manifest of a backup.
    pub fn manifest(deployment: &DeploymentId, backup: &BackupId) -> Self {
        Self(format!("{deployment}/{backup}/{MANIFEST_FILE}"))
    }

    /// The register of a deployment.
    pub fn register(deployment: &DeploymentId) -> Self {
        Self(format!("{deployment}/{REGISTER_FILE}"))
    }

    /// A part of an upload that becomes a backup, sealed.
    pub fn part(deployment: &DeploymentId, backup: &BackupId, part: &PartId) -> Self {
        Self(format!(
            "{deployment}/{backup}/{PART_PREFIX}{part}.zst.sealed"
        ))
    }

    /// The name that a store found; none when `text` is the name of no object.
    pub fn found(text: &str) -> Option<Self> {
        text.split('/').all(is_part).then(|| Self(text.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is that of a manifest.
    pub(super) fn is_manifest(&self) -> bool {
        self.0
            .rsplit_once('/')
            .is_some_and(|(_, name)| name == MANIFEST_FILE)
    }

    /// Whether it is that of an upload's part.
    pub(super) fn is_part(&self) -> bool {
        self.0
            .rsplit_once('/')
            .is_some_and(|(_, name)| name.starts_with(PART_PREFIX))
    }

    /// The deployment whose register has this name; none where it is no register.
    pub(super) fn register_of(&self) -> Option<DeploymentId> {
        let (deployment, name) = self.0.split_once('/')?;
        (name == REGISTER_FILE).then(|| deployment.parse().ok())?
    }

    /// The backup whose object has this name; none for what is of no backup, or of somebody else.
    pub(super) fn owner(&self) -> Option<(DeploymentId, BackupId)> {
        let (deployment, rest) = self.0.split_once('/')?;
        let (backup, _) = rest.split_once('/')?;
        Some((deployment.parse().ok()?, backup.parse().ok()?))
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The prefix of everything of one backup.
pub(super) fn of_backup(deployment: &DeploymentId, backup: &BackupId) -> String {
    format!("{deployment}/{backup}/")
}

/// The prefix of everything of one deployment.
pub(super) fn of_deployment(deployment: &DeploymentId) -> String {
    format!("{deployment}/")
}

/// Whether `text` can be one part of a name. Parts never begin with a dot: that keeps out `..`
/// and leaves hidden names to the stores themselves.
pub(super) fn is_part(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !text.is_empty()
        && text.len() <= PART_BYTES_MAX
        && !text.starts_with('.')
        && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_of_our_own_ids() {
        let deployment = "5ae85b45e5717f0001533192".parse().expect("an id");
        let backup = "5ae85b45e5717f00015331aa".parse().expect("an id");
        let part = "5ae85b45e5717f00015331ab".parse().expect("an id");
        let names = [
            ObjectName::snapshot(&deployment, &backup),
            ObjectName::clear_snapshot(&deployment, &backup),
            ObjectName::tenant_snapshot(&deployment, &backup),
            ObjectName::manifest(&deployment, &backup),
            ObjectName::part(&deployment, &backup, &part),
        ];
        assert_eq!(
            names.each_ref().map(ObjectName::is_part),
            [false, false, false, false, true]
        );
        assert_eq!(
            names.each_ref().map(ObjectName::as_str),
            [
                "5ae85b45e5717f0001533192/5ae85b45e5717f00015331aa/snapshot.db.zst.sealed",
                "5ae85b45e5717f0001533192/5ae85b45e5717f00015331aa/snapshot.db.zst",
                "5ae85b45e5717f0001533192/5ae85b45e5717f00015331aa/snapshot.db.zst.age",
                "5ae85b45e5717f0001533192/5ae85b45e5717f00015331aa/manifest.json",
                "5ae85b45e5717f0001533192/5ae85b45e5717f00015331aa/part-5ae85b45e5717f00015331ab.zst.sealed",
            ]
        );
        for name in names {
            assert_eq!(ObjectName::found(name.as_str()), Some(name.clone()));
            assert_eq!(name.owner(), Some((deployment.clone(), backup.clone())));
            assert!(name.as_str().starts_with(&of_backup(&deployment, &backup)));
            assert!(name.as_str().starts_with(&of_deployment(&deployment)));
        }
    }

    #[test]
    fn what_the_broker_did_not_store_has_no_owner() {
        let deployment = "5ae85b45e5717f0001533192".parse().expect("an id");
        let register = ObjectName::register(&deployment);
        assert_eq!(register.as_str(), "5ae85b45e5717f0001533192/register.json");
        assert_eq!(register.register_of(), Some(deployment));
        assert_eq!(register.owner(), None);
        for text in [
            "readme.txt",
            "register.json",
            "a/register.json",
            "5ae85b45e5717f0001533192/readme.txt",
            "a/b/manifest.json",
        ] {
            let name = ObjectName::found(text).expect("a name");
            assert_eq!((name.owner(), name.register_of()), (None, None), "{text}");
        }
    }

    #[test]
    fn hostile_names_are_none() {
        let long = "x".repeat(PART_BYTES_MAX + 1);
        for text in [
            "",
            "/",
            "/etc/passwd",
            "a/",
            "a//b",
            ".",
            "..",
            "a/../b",
            "../a",
            "a/.",
            ".a",
            "a\0b",
            "a\\b",
            "a b",
            "é",
            "a\n",
            &long,
        ] {
            assert_eq!(ObjectName::found(text), None, "{text:?}");
        }
    }
}
