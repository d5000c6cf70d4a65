//! Names of objects.
//!
//! A name is made of parts with `/` between them and comes from our own ids alone, so that no
//! text of a platform or user ever becomes part of a path. Everything of one backup, and of one
//! deployment, has a common prefix that no other one shares.

use crate::model::ids::{BackupId, DeploymentId};

/// Longest part of a name, in bytes: what file systems allow, less what a temporary name adds.
const PART_BYTES_MAX: usize = 200;

/// How the names of manifests end.
const MANIFEST: &str = "/manifest.json";

/// The snapshot of a backup.
pub fn snapshot(deployment: &DeploymentId, backup: &BackupId) -> String {
    format!("{deployment}/{backup}/snapshot.db.zst")
}

/// The manifest of a backup.
pub fn manifest(deployment: &DeploymentId, backup: &BackupId) -> String {
    format!("{deployment}/{backup}{MANIFEST}")
}

/// The prefix of everything of one backup.
pub fn of_backup(deployment: &DeploymentId, backup: &BackupId) -> String {
    format!("{deployment}/{backup}/")
}

/// The prefix of everything of one deployment.
pub fn of_deployment(deployment: &DeploymentId) -> String {
    format!("{deployment}/")
}

/// Puts manifests behind everything else, as names are to be deleted: while anything is left of a
/// backup, its manifest says whose it was.
pub fn manifests_last(names: &mut [String]) {
    names.sort_by_key(|name| name.ends_with(MANIFEST));
}

/// Whether `text` can name an object.
pub fn is_name(text: &str) -> bool {
    text.split('/').all(is_part)
}

/// Whether `text` can be one part of a name. Parts never begin with a dot: that keeps out `..`
/// and leaves hidden names to the stores themselves.
pub fn is_part(text: &str) -> bool {
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
        let names = [
            snapshot(&deployment, &backup),
            manifest(&deployment, &backup),
        ];
        assert_eq!(
            names,
            [
                "5ae85b45e5717f0001533192/5ae85b45e5717f00015331aa/snapshot.db.zst",
                "5ae85b45e5717f0001533192/5ae85b45e5717f00015331aa/manifest.json",
            ]
        );
        for name in names {
            assert!(is_name(&name), "{name}");
            assert!(name.starts_with(&of_backup(&deployment, &backup)));
            assert!(name.starts_with(&of_deployment(&deployment)));
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
            assert!(!is_name(text), "{text:?}");
        }
    }
}
