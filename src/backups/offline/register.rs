//! What the register of a deployment says of the backups that are found in a store, for those who look without a
//! broker.
//!
//! A broker may take and remove backups meanwhile. It takes a backup out of the register before it goes, and puts it in
//! once it is complete. So the register is read after what it is compared with, and what it then has, and has not been
//! seen, is looked for once more.

use std::collections::BTreeSet;

use crate::{
    backups::{
        BackupStoreError, StoredBackup, Vault, manifest,
        signature::{Signature, Unfit, check_signature},
    },
    model::{
        backup::Manifest,
        ids::{BackupId, DeploymentId},
        register::{Register, Registered},
    },
    seal::{KeyRing, SealError, key_of},
};

/// The backups of a deployment that were seen.
pub(super) struct Attendance<'a> {
    vault: &'a Vault,
    /// None: nobody looks at signatures.
    keys: Option<&'a KeyRing>,
    deployment: DeploymentId,
    seen: BTreeSet<BackupId>,
    /// The highest number of the register that a manifest tells of.
    told: Option<i64>,
}

/// What the register says of a backup that is there.
pub(super) enum Standing {
    /// That it should be there, or nothing: there is no register, or it was written before.
    Good,
    /// That it should not, and why that is so.
    GivenUp(String),
    /// That its manifest is another one.
    Replaced(String),
}

/// What came of a register.
pub(super) enum RegisterSeen {
    /// There is none, and none is known of, as beside backups of earlier versions.
    None,
    /// It is not what a broker wrote last, and why.
    Bad(String),
    /// It is whole; these should be there and are not, or were not seen yet.
    Whole {
        register: Register,
        signature: Signature,
        unseen: Vec<StoredBackup>,
        missing: Vec<Registered>,
    },
}

impl<'a> Attendance<'a> {
    /// Of a deployment, none seen yet.
    pub fn of(vault: &'a Vault, keys: Option<&'a KeyRing>, deployment: DeploymentId) -> Self {
        Self {
            vault,
            keys,
            deployment,
            seen: BTreeSet::new(),
            told: None,
        }
    }

    /// The deployment.
    pub fn deployment(&self) -> &DeploymentId {
        &self.deployment
    }

    /// Says that a backup was seen, and its manifest, which is `text`, where there is one; returns what the register
    /// says of it.
    pub async fn saw(
        &mut self,
        backup: &BackupId,
        manifest: Option<(&[u8], &Manifest)>,
    ) -> Result<Standing, BackupStoreError> {
        self.seen.insert(backup.clone());
        let Some((text, manifest)) = manifest else {
            return Ok(Standing::Good);
        };
        self.told = self.told.max(manifest.register);
        let Ok(Some((register, _))) = self.read().await? else {
            return Ok(Standing::Good);
        };
        let written_at = register.written_at.format("%Y-%m-%d %H:%M:%S UTC");
        Ok(match register.find(backup) {
            Some(found) if found.manifest_sha256 == manifest::digest(text, manifest) => {
                Standing::Good
            }
            Some(_) => Standing::Replaced(format!(
                "its manifest is not the one that the register of {written_at} has: another one was put in its place"
            )),
            None if register.is_before(manifest) => Standing::Good,
            None => Standing::GivenUp(format!(
                "the register of {written_at} has it no more: it was given up, and is being removed or was put back; or \
                 its broker has not ended it"
            )),
        })
    }

    /// Whether a backup was removed by its broker since it was seen.
    pub async fn was_removed(&self, backup: &BackupId) -> Result<bool, BackupStoreError> {
        let stored = self.vault.stored(&self.deployment, backup).await?;
        let read = self.read().await?;
        let is_out = matches!(read, Ok(Some((register, _))) if register.find(backup).is_none());
        Ok(stored.objects.is_empty() && is_out)
    }

    /// What came of the register, when all backups have been seen.
    pub async fn end(&self) -> Result<RegisterSeen, BackupStoreError> {
        let (register, signature) = match self.read().await? {
            Ok(Some(read)) => read,
            Ok(None) => {
                return Ok(match self.told {
                    None => RegisterSeen::None,
                    Some(number) => RegisterSeen::Bad(format!(
                        "it is missing, and a manifest tells of number {number} of it: which backups are missing nobody \
                         can tell"
                    )),
                });
            }
            Err(reason) => return Ok(RegisterSeen::Bad(reason)),
        };
        if let Some(told) = self.told.filter(|told| *told > register.number) {
            return Ok(RegisterSeen::Bad(format!(
                "it is an older one that was put back: it has number {}, and a manifest tells of number {told}",
                register.number
            )));
        }
        let (mut unseen, mut missing) = (Vec::new(), Vec::new());
        for of in &register.backups {
            if self.seen.contains(&of.backup_id) || of.awaited {
                continue;
            }
            let stored = self.vault.stored(&self.deployment, &of.backup_id).await?;
            match stored.objects.is_empty() {
                true => missing.push(of.clone()),
                false => unseen.push(stored),
            }
        }
        // A broker may have given some up since.
        if !missing.is_empty()
            && let Ok(Some((now, _))) = self.read().await?
        {
            missing.retain(|of| now.find(&of.backup_id).is_some());
        }
        Ok(RegisterSeen::Whole {
            register,
            signature,
            unseen,
            missing,
        })
    }

    /// The register as it is now, with what is known of who wrote it; none: there is none. Else what is wrong with it.
    async fn read(
        &self,
    ) -> Result<Result<Option<(Register, Signature)>, String>, BackupStoreError> {
        let (text, register) = match self.vault.read_register_text(&self.deployment).await {
            Ok(Some(read)) => read,
            Ok(None) => return Ok(Ok(None)),
            Err(BackupStoreError::Damaged { reason, .. }) => return Ok(Err(reason)),
            Err(error) => return Err(error),
        };
        let signed = register.signature.as_deref().unwrap_or_default();
        let key = key_of(signed).unwrap_or(signed).to_owned();
        let signature = match self.keys {
            None => Signature::Unchecked(key),
            Some(keys) => match check_signature(&text, &register, keys) {
                Ok(()) => Signature::Good(key),
                Err(Unfit::Seal(_, SealError::UnknownKey(key))) => Signature::Unchecked(key),
                Err(Unfit::Seal(what, error)) => return Ok(Err(format!("{what} {error}"))),
                Err(Unfit::Form(reason)) => return Ok(Err(reason)),
            },
        };
        Ok(Ok(Some((register, signature))))
    }
}
