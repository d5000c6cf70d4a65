//! Backups whose row and bytes do not belong together: bytes that no row accounts for, and rows whose
//! bytes are gone.
//!
//! Invariants: a backup that is being taken, removed or read is no finding, since each suspicion is
//! looked at a second time by itself; a repair looks once more, in the transaction that changes the
//! row; bytes are believed only after they were read back against their manifest.

use std::sync::Arc;

use super::{
    BrokerError, BrokerParts,
    finding::{Finding, FindingRepair},
};
use crate::{
    backups::{BackupStoreError, Vault},
    clock::Clock,
    healing::{self, HealingError},
    model::{
        backup::{Backup, BackupState, KEY_LOST, Manifest},
        failure::chain,
        ids::{BackupId, DeploymentId, InstanceId, OperationId},
        origin::Origin,
    },
    registrar::Registrar,
    store::{self, Conn, Store, StoreError},
};

/// What a user is told of a backup whose bytes were lost.
const LOST: &str = "its bytes are missing from the backup store";

/// Finds such backups and puts them right.
#[derive(Clone)]
pub(super) struct Leftovers {
    store: Arc<Store>,
    backups: Vault,
    registrar: Registrar,
    clock: Clock,
}

impl Leftovers {
    pub(super) fn new(parts: &BrokerParts) -> Self {
        Self {
            store: parts.store.clone(),
            backups: parts.backups.clone(),
            registrar: parts.registrar.clone(),
            clock: parts.clock.clone(),
        }
    }

    /// The objects of one backup, as they are now, when no row accounts for them.
    pub(super) async fn find(
        &self,
        deployment: &DeploymentId,
        backup: &BackupId,
    ) -> Result<Option<Finding>, BrokerError> {
        if self.accounts_for(backup).await? {
            return Ok(None);
        }
        let stored = self.backups.stored(deployment, backup).await?;
        // Once more: a backup may have failed and been cleaned up since the objects were listed.
        if stored.objects.is_empty() || self.accounts_for(backup).await? {
            return Ok(None);
        }
        let manifest = self.manifest_to_adopt(deployment, backup).await?;
        let whole = stored.missing().is_none();
        Ok(Some(Finding::Leftover {
            objects: stored.objects.iter().map(ToString::to_string).collect(),
            deployment: stored.deployment,
            backup: stored.backup,
            adoptable: whole && manifest.is_some(),
        }))
    }

    /// Whether a row says why a backup has bytes.
    async fn accounts_for(&self, backup: &BackupId) -> Result<bool, BrokerError> {
        Ok(self.row(backup).await?.is_some_and(|row| match row.state {
            BackupState::Pending | BackupState::Running | BackupState::Complete => true,
            BackupState::Failed => false,
            // They are about to go.
            BackupState::Expired => row.manifest.is_some(),
        }))
    }

    async fn row(&self, backup: &BackupId) -> Result<Option<Backup>, BrokerError> {
        let id = backup.clone();
        let found = self
            .store
            .read(move |conn| store::backup::find(conn, &id))
            .await?;
        Ok(found)
    }

    pub(super) async fn bytes_missing(
        &self,
        deployment: &DeploymentId,
        backup: &BackupId,
    ) -> Result<Option<Finding>, BrokerError> {
        let stored = self.backups.stored(deployment, backup).await?;
        let Some(object) = stored.missing() else {
            return Ok(None);
        };
        let row = self.row(backup).await?;
        // It may have expired and gone since the rows were read.
        let row = row.filter(|row| row.state == BackupState::Complete);
        Ok(row.map(|row| Finding::BytesMissing {
            backup: row.id,
            instance: row.instance,
            object: object.to_string(),
        }))
    }

    /// Puts back from the mirror what is gone of a backup; where there is no good copy, says that it failed.
    pub(super) async fn heal_or_mark(
        &self,
        backup: &BackupId,
        object: &str,
    ) -> Result<FindingRepair, BrokerError> {
        let (why, told) = (
            format!("{object} was gone"),
            (Origin::Operator, self.clock.now()),
        );
        match healing::heal(&self.store, &self.backups, backup, &why, told).await {
            Ok(Some(_)) => Ok(FindingRepair::Healed),
            Ok(None) => self.mark_failed(backup).await,
            // One that is marked loses its copy in the mirror, too.
            Err(HealingError::Backups(error)) => {
                log::error!(backup:% = backup;
                    "it is left as it is until its mirror can be asked: {}", chain(&error));
                Ok(FindingRepair::Left)
            }
            Err(HealingError::Store(error)) => Err(error.into()),
        }
    }

    async fn mark_failed(&self, backup: &BackupId) -> Result<FindingRepair, BrokerError> {
        let (id, now) = (backup.clone(), self.clock.now());
        let marked = self
            .store
            .write(move |conn| {
                let row = store::backup::find(conn, &id)?;
                if row.is_none_or(|row| row.state != BackupState::Complete) {
                    return Ok(false);
                }
                store::backup::fail(conn, &id, LOST, now)?;
                Ok(true)
            })
            .await?;
        Ok(if marked {
            FindingRepair::MarkedFailed
        } else {
            FindingRepair::Left
        })
    }

    /// The manifest of a backup that has no row at all, or one that was given up only because its bytes
    /// were missing, when it belongs to a deployment that is there.
    async fn manifest_to_adopt(
        &self,
        deployment: &DeploymentId,
        backup: &BackupId,
    ) -> Result<Option<Manifest>, BrokerError> {
        let Some(manifest) = self.manifest(deployment, backup).await? else {
            return Ok(None);
        };
        let (id, instance) = (backup.clone(), manifest.instance_id.clone());
        let (row, found) = self
            .store
            .read(move |conn| {
                Ok((
                    store::backup::find(conn, &id)?,
                    store::deployment::of_instance(conn, &instance)?,
                ))
            })
            .await?;
        let is_its_own = found.is_some_and(|(found, _)| found.id == *deployment);
        let is_wanted = row.is_none_or(|row| is_lost(&row));
        Ok((is_wanted && is_its_own).then_some(manifest))
    }

    /// What stands beside the bytes of a backup; none where it is not to be read.
    async fn manifest(
        &self,
        deployment: &DeploymentId,
        backup: &BackupId,
    ) -> Result<Option<Manifest>, BrokerError> {
        match self.backups.read_manifest(deployment, backup).await {
            Ok(manifest) => Ok(Some(manifest)),
            Err(
                error @ (BackupStoreError::NotFound(_)
                | BackupStoreError::Damaged { .. }
                | BackupStoreError::KeyMissing { .. }),
            ) => {
                log::warn!(backup:% = backup; "no row tells of it, nor does its manifest: {error}");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Lists a backup again whose row is lost, if its bytes are those that its manifest tells of.
    pub(super) async fn adopt(
        &self,
        deployment: &DeploymentId,
        backup: &BackupId,
    ) -> Result<bool, BrokerError> {
        let Some(manifest) = self.manifest_to_adopt(deployment, backup).await? else {
            return Ok(false);
        };
        let of = manifest.instance_id.clone();
        self.list(manifest, of, |conn, row| {
            let found = store::deployment::of_instance(conn, &row.instance)?;
            Ok(found.is_some_and(|(found, _)| found.id == row.deployment))
        })
        .await
    }

    /// The same of a backup of an instance that counts as deleted.
    pub(super) async fn keep(
        &self,
        deployment: &DeploymentId,
        backup: &BackupId,
    ) -> Result<bool, BrokerError> {
        let Some(manifest) = self.manifest(deployment, backup).await? else {
            return Ok(false);
        };
        self.list(manifest, InstanceId::of_deleted(deployment), |conn, row| {
            Ok(store::deleted::find(conn, &row.deployment)?.is_some())
        })
        .await
    }

    /// Lists a backup as one of the instance `of`, as long as that `is_there`.
    async fn list(
        &self,
        manifest: Manifest,
        of: InstanceId,
        is_there: fn(&mut Conn<'_>, &Backup) -> Result<bool, StoreError>,
    ) -> Result<bool, BrokerError> {
        match self.backups.verify(&manifest).await {
            Ok(()) => {}
            Err(BackupStoreError::Damaged { .. } | BackupStoreError::NotFound(_)) => {
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        }
        let now = self.clock.now();
        let row = adopted(manifest.clone(), of, OperationId::generate(now));
        let adopted = self.store.write(move |conn| {
            let is_there = is_there(conn, &row)?;
            match store::backup::find(conn, &row.id)? {
                _ if !is_there => return Ok(false),
                None => store::backup::adopt(conn, &row)?,
                Some(before) if is_lost(&before) => {
                    store::backup::complete(conn, &manifest.bare(), "", manifest.finished_at)?;
                }
                Some(_) => return Ok(false),
            }
            Ok(true)
        });
        Ok(adopted.await?)
    }

    pub(super) async fn delete(
        &self,
        deployment: &DeploymentId,
        backup: &BackupId,
    ) -> Result<FindingRepair, BrokerError> {
        if self.find(deployment, backup).await?.is_none() {
            return Ok(FindingRepair::Left);
        }
        self.registrar.remove_unknown(deployment, backup).await?;
        Ok(FindingRepair::Deleted)
    }
}

/// Whether a backup was given up only because its bytes were missing, or the key to them.
fn is_lost(backup: &Backup) -> bool {
    let failure = backup.failure.as_deref().unwrap_or_default();
    backup.state == BackupState::Failed && (failure == LOST || failure.starts_with(KEY_LOST))
}

/// The row of a backup as its manifest tells of it. The schedule may have taken another one in its period meanwhile;
/// this one goes by its age.
fn adopted(manifest: Manifest, instance: InstanceId, operation: OperationId) -> Backup {
    let of = (&instance, &manifest.deployment_id);
    let (id, kind, at) = (
        manifest.backup_id.clone(),
        manifest.kind,
        manifest.requested_at,
    );
    Backup {
        state: BackupState::Complete,
        finished_at: Some(manifest.finished_at),
        manifest: Some(manifest.bare()),
        ..Backup::asked_for(id, of, operation, kind, at)
    }
}
