//! Asks for proofs of backups whose turn it is. They can wait: as long as databases are made, changed or saved
//! on a cluster, none is begun there, up to a limit.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{BrokerError, BrokerParts, Census};
use crate::{
    clock::Clock,
    model::{
        ids::{DeploymentId, OperationId},
        limits::{PROOF_WAIT_MAX, PROOFS_AT_ONCE, PROOFS_LOOKED_AT},
        operation::{Operation, OperationKind, Weight},
        origin::Origin,
        placement::Cluster,
    },
    store::{self, Conn, Store, StoreError},
};

/// Has backups proved.
pub struct Proofs {
    store: Arc<Store>,
    clock: Clock,
    clusters: Arc<[Cluster]>,
    census: Arc<dyn Census>,
    /// Whether the operator wants it.
    pub are_on: bool,
}

impl Proofs {
    pub(super) fn new(parts: &BrokerParts) -> Self {
        Self {
            store: parts.store.clone(),
            clock: parts.clock.clone(),
            clusters: parts.clusters.clone(),
            census: parts.census.clone(),
            are_on: parts.proves_backups,
        }
    }

    /// Removes what proofs and the like that are over have left on clusters; returns how much. There is something only where a
    /// worker stood still while another one ended its operation.
    pub async fn sweep(&self) -> Result<usize, BrokerError> {
        let mut removed = 0;
        let ours = |cluster: &&Cluster| self.census.looks_after(&cluster.id);
        for cluster in self.clusters.iter().filter(ours) {
            for aside in self.census.deployments(&cluster.id).await? {
                let of = aside.clone();
                if self.store.read(move |conn| is_left(conn, &of)).await? {
                    self.census.remove(&cluster.id, &aside).await?;
                    let release = move |conn: &mut Conn<'_>| {
                        store::deployment::release_addresses(conn, &aside)
                    };
                    self.store.write(release).await?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    /// Queues the next proof on each cluster that has a place for one; returns how many.
    pub async fn begin_due(&self) -> Result<usize, BrokerError> {
        if !self.are_on {
            return Ok(0);
        }
        let now = self.clock.now();
        let mut begun = 0;
        for cluster in self.clusters.iter() {
            let id = cluster.id.clone();
            let due =
                move |conn: &mut Conn<'_>| Ok(!store::proof::due(conn, &id, now, 1)?.is_empty());
            // Most looks find nothing, and need not keep a writer waiting.
            if self.store.read(due).await? {
                let id = cluster.id.clone();
                let begin = move |conn: &mut Conn<'_>| Ok(begin_on(conn, &id, now)?);
                begun += self.store.decide::<_, BrokerError, _>(begin).await?;
            }
        }
        Ok(begun)
    }
}

/// Whether a deployment is what an operation that is over has restored aside: it has the id of the operation.
fn is_left(conn: &mut Conn<'_>, deployment: &DeploymentId) -> Result<bool, StoreError> {
    let Ok(id) = deployment.as_str().parse::<OperationId>() else {
        return Ok(false);
    };
    let of = store::operation::find(conn, &id)?;
    Ok(of.is_some_and(|of| of.kind.restores_aside() && !of.state.is_active()))
}

/// Queues the proofs that there is a place for on a cluster.
fn begin_on(conn: &mut Conn<'_>, cluster: &str, now: DateTime<Utc>) -> Result<usize, StoreError> {
    let proof = OperationKind::Proof;
    let under_way = store::operation::active_on(conn, cluster, &[proof])?;
    let mut others = Weight::Heavy.kinds();
    others.retain(|kind| *kind != proof);
    let is_busy = store::operation::active_on(conn, cluster, &others)? > 0;
    let mut begun = 0;
    for due in store::proof::due(conn, cluster, now, PROOFS_LOOKED_AT)? {
        if under_way + begun >= PROOFS_AT_ONCE {
            break;
        }
        let waits = is_busy && now - due.since < PROOF_WAIT_MAX;
        if waits || store::operation::is_active(conn, &due.instance, proof)? {
            continue;
        }
        let operation = Operation {
            backup: Some(due.backup),
            ..Operation::queued(proof, &due.instance, Origin::Proof, now)
        };
        store::operation::insert(conn, &operation, None)?;
        begun += 1;
    }
    Ok(begun)
}
