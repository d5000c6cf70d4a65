//! Holds what the store says against what the backup store and the clusters have.
//!
//! The two may disagree after a disk was lost, a store was put back to an older state, or a
//! clean-up could not finish. Looking finds and changes nothing; repairing is done on command
//! alone, and deletes bytes only when told to: to a broker that was given another database by
//! mistake, every backup is a leftover.
//!
//! Invariants: a backup that is being taken, removed or read is no finding, since each suspicion is
//! looked at a second time by itself; a repair looks once more, in the transaction that changes the
//! row; bytes are believed only after they were read back against their manifest.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Broker, BrokerError};
use crate::{
    backups::{BackupStoreError, Found},
    model::{
        audit::AtOnce,
        backup::{Backup, BackupState, Manifest},
        ids::{BackupId, DeploymentId, InstanceId, OperationId},
        limits::{RECONCILE_PAGE, UNFINISHED_PUT_AGE},
    },
    store,
};

/// What a user is told of a backup whose bytes were lost.
const LOST: &str = "its bytes are missing from the backup store";

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
pub enum Repair {
    /// The backup counts as failed now.
    MarkedFailed,
    /// The backup is listed again.
    Adopted,
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
    pub repair: Repair,
}

impl Broker {
    /// Compares all rows of backups with all objects.
    pub async fn reconciliation(&self) -> Result<Vec<Finding>, BrokerError> {
        let mut findings = Vec::new();
        let (mut whole, mut foreign) = (BTreeSet::new(), Vec::new());
        let mut listed = self.backups.list();
        while let Some(found) = listed.try_next().await? {
            match found {
                Found::Backup(stored) => {
                    let (deployment, backup) = (&stored.deployment, &stored.backup);
                    findings.extend(self.leftover(deployment, backup).await?);
                    if stored.missing().is_none() {
                        whole.insert((stored.deployment, stored.backup));
                    }
                }
                Found::Foreign(name) => foreign.push(name.to_string()),
            }
        }
        let mut after = None;
        loop {
            let page = self
                .store
                .read(move |conn| {
                    store::backup::complete_after(conn, after.as_ref(), RECONCILE_PAGE)
                })
                .await?;
            for (id, deployment) in &page {
                if !whole.contains(&(deployment.clone(), id.clone())) {
                    findings.extend(self.bytes_missing(deployment, id).await?);
                }
            }
            match page.into_iter().next_back() {
                Some((last, _)) => after = Some(last),
                None => break,
            }
        }
        for (operation, left) in self.abandoned().await? {
            findings.push(Finding::Abandoned {
                operation: operation.id,
                kind: operation.kind.as_str().to_owned(),
                instance: operation.instance,
                left,
            });
        }
        findings.extend(self.unmatched_deployments().await?);
        findings.extend(
            foreign
                .into_iter()
                .map(|object| Finding::Foreign { object }),
        );
        Ok(findings)
    }

    /// Repairs what [`Broker::reconciliation`] finds: backups without bytes fail, whole backups
    /// without a row are listed again. If `delete` says so, other leftovers are deleted, and what
    /// was begun long ago and never finished. The backups of a deployment without a row stay: it
    /// can be adopted with them alone.
    pub async fn reconcile(&self, delete: bool) -> Result<Vec<Repaired>, BrokerError> {
        let mut repaired = Vec::new();
        let findings = self.reconciliation().await?;
        let stray = |finding: &Finding| match finding {
            Finding::DeploymentWithoutRow { deployment, .. } => Some(deployment.clone()),
            _ => None,
        };
        let strays: BTreeSet<DeploymentId> = findings.iter().filter_map(stray).collect();
        for finding in findings {
            let repair = match &finding {
                Finding::BytesMissing { backup, .. } => self.mark_failed(backup).await?,
                Finding::Leftover {
                    deployment,
                    backup,
                    adoptable,
                    ..
                } => {
                    if *adoptable && self.adopt(deployment, backup).await? {
                        Repair::Adopted
                    } else if delete && !strays.contains(deployment) {
                        self.delete_leftover(deployment, backup).await?
                    } else {
                        Repair::Left
                    }
                }
                Finding::DeploymentWithoutRow { .. }
                | Finding::RowWithoutDeployment { .. }
                | Finding::Abandoned { .. }
                | Finding::Foreign { .. } => Repair::Left,
            };
            log::warn!("what the store says is not what is there: {finding:?}: {repair:?}");
            repaired.push(Repaired { finding, repair });
        }
        if delete {
            // Beside a backup that is there they are no finding, and take room all the same.
            let swept = self.backups.sweep(UNFINISHED_PUT_AGE).await?;
            if swept > 0 {
                log::warn!(swept; "removed from the backup store what was never finished");
            }
        }
        if repaired
            .iter()
            .any(|repaired| repaired.repair != Repair::Left)
        {
            let now = self.clock.now();
            self.store
                .write(move |conn| {
                    store::audit::done(conn, AtOnce::Reconciliation, "operator", None, now)
                })
                .await?;
        }
        Ok(repaired)
    }

    /// The objects of one backup, as they are now, when no row accounts for them.
    async fn leftover(
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

    async fn bytes_missing(
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

    async fn mark_failed(&self, backup: &BackupId) -> Result<Repair, BrokerError> {
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
            Repair::MarkedFailed
        } else {
            Repair::Left
        })
    }

    /// The manifest of a backup that has no row at all, or one that was given up only because its bytes
    /// were missing, when it belongs to a deployment that is there.
    async fn manifest_to_adopt(
        &self,
        deployment: &DeploymentId,
        backup: &BackupId,
    ) -> Result<Option<Manifest>, BrokerError> {
        let manifest = match self.backups.read_manifest(deployment, backup).await {
            Ok(manifest) => manifest,
            Err(BackupStoreError::NotFound(_) | BackupStoreError::Damaged { .. }) => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
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

    /// Lists a backup again whose row is lost, if its bytes are those that its manifest tells of.
    pub(super) async fn adopt(
        &self,
        deployment: &DeploymentId,
        backup: &BackupId,
    ) -> Result<bool, BrokerError> {
        let Some(manifest) = self.manifest_to_adopt(deployment, backup).await? else {
            return Ok(false);
        };
        match self.backups.verify(&manifest).await {
            Ok(()) => {}
            Err(BackupStoreError::Damaged { .. } | BackupStoreError::NotFound(_)) => {
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        }
        let now = self.clock.now();
        let row = adopted(manifest.clone(), OperationId::generate(now));
        let adopted = self.store.write(move |conn| {
            let gone = store::deployment::of_instance(conn, &row.instance)?
                .is_none_or(|(found, _)| found.id != row.deployment);
            match store::backup::find(conn, &row.id)? {
                _ if gone => return Ok(false),
                None => store::backup::adopt(conn, &row)?,
                Some(before) if is_lost(&before) => {
                    store::backup::complete(conn, &manifest, manifest.finished_at)?;
                }
                Some(_) => return Ok(false),
            }
            Ok(true)
        });
        Ok(adopted.await?)
    }

    async fn delete_leftover(
        &self,
        deployment: &DeploymentId,
        backup: &BackupId,
    ) -> Result<Repair, BrokerError> {
        if self.leftover(deployment, backup).await?.is_none() {
            return Ok(Repair::Left);
        }
        self.backups.remove(deployment, backup).await?;
        Ok(Repair::Deleted)
    }
}

/// Whether a backup was given up only because its bytes were missing.
fn is_lost(backup: &Backup) -> bool {
    backup.state == BackupState::Failed && backup.failure.as_deref() == Some(LOST)
}

/// The row of a backup as its manifest tells of it.
fn adopted(manifest: Manifest, operation: OperationId) -> Backup {
    Backup {
        id: manifest.backup_id.clone(),
        instance: manifest.instance_id.clone(),
        deployment: manifest.deployment_id.clone(),
        operation,
        kind: manifest.kind,
        // The schedule may have taken another one for it meanwhile; this one goes by its age.
        period: None,
        state: BackupState::Complete,
        failure: None,
        created_at: manifest.requested_at,
        ordinal: 0,
        namesake: 0,
        finished_at: Some(manifest.finished_at),
        manifest: Some(Manifest {
            sealed_credentials: None,
            ..manifest
        }),
        removal: None,
    }
}
