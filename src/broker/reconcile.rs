//! Compares what the store says with what the backup store and the clusters have.
//!
//! The two may disagree after a disk was lost, a store was put back to an older state, or a
//! clean-up could not finish. Looking finds and changes nothing; repairing is done on command
//! alone, and deletes bytes only when told to: to a broker that was given another database by
//! mistake, every backup is a leftover.

use std::{collections::BTreeSet, sync::Arc};

use futures::TryStreamExt;

use super::{
    BrokerError, BrokerParts,
    adopt::Strays,
    finding::{Finding, FindingRepair, Repaired},
    leftover::Leftovers,
    oversight::Oversight,
};
use crate::{
    backups::{Found, Vault},
    clock::Clock,
    model::{
        audit::AtOnce,
        ids::DeploymentId,
        limits::{RECONCILE_PAGE, UNFINISHED_PUT_AGE},
        origin::Origin,
    },
    registrar::Registrar,
    store::{self, Store},
};

/// What is done about backups of instances that the store does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// Nothing.
    Leave,
    /// They are kept for the former owner of the instance, as after a deletion.
    Keep,
    /// They are deleted, as all other leftovers.
    Delete,
}

/// Compares the store with the backup store and the clusters, and repairs.
pub struct Reconciler {
    store: Arc<Store>,
    backups: Vault,
    registrar: Registrar,
    clock: Clock,
    leftovers: Leftovers,
    oversight: Oversight,
    /// Deployments without a row.
    pub strays: Strays,
}

impl Reconciler {
    pub(super) fn new(parts: &BrokerParts, oversight: Oversight) -> Self {
        let leftovers = Leftovers::new(parts);
        Self {
            store: parts.store.clone(),
            backups: parts.backups.clone(),
            registrar: parts.registrar.clone(),
            clock: parts.clock.clone(),
            leftovers: leftovers.clone(),
            oversight,
            strays: Strays::new(parts, leftovers),
        }
    }

    /// Compares all rows of backups with all objects.
    pub async fn findings(&self) -> Result<Vec<Finding>, BrokerError> {
        let mut findings = Vec::new();
        let (mut whole, mut foreign) = (BTreeSet::new(), Vec::new());
        let mut listed = self.backups.list();
        while let Some(found) = listed.try_next().await? {
            match found {
                Found::Backup(stored) => {
                    let (deployment, backup) = (&stored.deployment, &stored.backup);
                    findings.extend(self.leftovers.find(deployment, backup).await?);
                    if stored.missing().is_none() {
                        whole.insert((stored.deployment, stored.backup));
                    }
                }
                // What is known of it says more.
                Found::Register(_) => {}
                Found::Foreign(name) => foreign.push(name.to_string()),
            }
        }
        let mut after = None;
        loop {
            let page = self
                .store
                .scan(move |conn| {
                    store::backup::complete_after(conn, after.as_ref(), RECONCILE_PAGE)
                })
                .await?;
            for (id, deployment) in &page {
                if !whole.contains(&(deployment.clone(), id.clone())) {
                    findings.extend(self.leftovers.bytes_missing(deployment, id).await?);
                }
            }
            match page.into_iter().next_back() {
                Some((last, _)) => after = Some(last),
                None => break,
            }
        }
        findings.extend(self.wrong_registers().await?);
        for (operation, left) in self.oversight.abandoned().await? {
            findings.push(Finding::Abandoned {
                operation: operation.id,
                kind: operation.kind.as_str().to_owned(),
                instance: operation.instance,
                left,
            });
        }
        findings.extend(self.strays.unmatched().await?);
        findings.extend(
            foreign
                .into_iter()
                .map(|object| Finding::Foreign { object }),
        );
        Ok(findings)
    }

    /// Registers that are not those that were written last.
    async fn wrong_registers(&self) -> Result<Vec<Finding>, BrokerError> {
        let (mut findings, mut after) = (Vec::new(), None);
        loop {
            let page = self.store.scan(move |conn| {
                store::register::written_after(conn, after.as_ref(), RECONCILE_PAGE)
            });
            let page = page.await?;
            for deployment in &page {
                if let Some(what) = self.registrar.fault(deployment).await? {
                    findings.push(Finding::WrongRegister {
                        deployment: deployment.clone(),
                        what: format!("it {what}"),
                    });
                }
            }
            match page.into_iter().next_back() {
                Some(last) => after = Some(last),
                None => return Ok(findings),
            }
        }
    }

    /// Removes registers of deployments of which there is nothing else.
    async fn remove_left_registers(&self) -> Result<(), BrokerError> {
        let mut listed = self.backups.list();
        while let Some(found) = listed.try_next().await? {
            if let Found::Register(deployment) = found {
                self.registrar.remove_left(&deployment).await?;
            }
        }
        Ok(())
    }

    /// Repairs what [`Self::findings`] finds: backups without bytes get them back from the mirror, or fail;
    /// whole backups without a row are listed again, and registers written anew. If `delete` says so, other
    /// leftovers are deleted, and what was begun long ago and never finished. The backups of a deployment
    /// without a row stay: it can be adopted with them alone. Those of a deployment that is nowhere are kept
    /// as of a deleted instance, if `unknown` says so.
    pub async fn reconcile(&self, unknown: Unknown) -> Result<Vec<Repaired>, BrokerError> {
        let delete = unknown == Unknown::Delete;
        let mut repaired = Vec::new();
        let findings = self.findings().await?;
        let stray = |finding: &Finding| match finding {
            Finding::DeploymentWithoutRow { deployment, .. } => Some(deployment.clone()),
            _ => None,
        };
        let strays: BTreeSet<DeploymentId> = findings.iter().filter_map(stray).collect();
        for finding in findings {
            let repair = self.repair(&finding, unknown, &strays).await?;
            log::warn!("what the store says is not what is there: {finding:?}: {repair:?}");
            repaired.push(Repaired { finding, repair });
        }
        if delete {
            self.remove_left_registers().await?;
            // Beside a backup that is there they are no finding, and take room all the same.
            let swept = self.backups.sweep(UNFINISHED_PUT_AGE).await?;
            if swept > 0 {
                log::warn!(swept; "removed from the backup store what was never finished");
            }
        }
        if repaired
            .iter()
            .any(|repaired| repaired.repair != FindingRepair::Left)
        {
            let now = self.clock.now();
            self.store
                .write(move |conn| {
                    store::audit::done(conn, AtOnce::Reconciliation, Origin::Operator, None, now)
                })
                .await?;
        }
        Ok(repaired)
    }

    async fn repair(
        &self,
        finding: &Finding,
        unknown: Unknown,
        strays: &BTreeSet<DeploymentId>,
    ) -> Result<FindingRepair, BrokerError> {
        let delete = unknown == Unknown::Delete;
        Ok(match finding {
            Finding::BytesMissing { backup, object, .. } => {
                self.leftovers.heal_or_mark(backup, object).await?
            }
            Finding::Leftover {
                deployment,
                backup,
                adoptable,
                ..
            } => {
                if *adoptable && self.leftovers.adopt(deployment, backup).await? {
                    FindingRepair::Adopted
                } else if unknown == Unknown::Keep
                    && !strays.contains(deployment)
                    && self.strays.keep(deployment, backup).await?
                {
                    FindingRepair::Kept
                } else if delete && !strays.contains(deployment) {
                    self.leftovers.delete(deployment, backup).await?
                } else {
                    FindingRepair::Left
                }
            }
            Finding::WrongRegister { deployment, .. } => {
                let written = self.registrar.write(deployment).await?;
                let written = written.into_iter().collect();
                self.registrar.record(written, Vec::new()).await?;
                FindingRepair::Rewritten
            }
            Finding::DeploymentWithoutRow { .. }
            | Finding::RowWithoutDeployment { .. }
            | Finding::Abandoned { .. }
            | Finding::Foreign { .. } => FindingRepair::Left,
        })
    }
}
