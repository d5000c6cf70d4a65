//! Databases whose majority is lost, in an operator's hands: what they can be made of again is told
//! first, and nothing is done without a yes.

use std::sync::Arc;

use super::{
    BrokerError, BrokerParts, inventory::Inventory, observation::Observer, repair::usable,
};
use crate::{
    clock::Clock,
    model::{
        backup::Manifest,
        deployment::Deployment,
        ids::InstanceId,
        operation::{Operation, OperationKind, RestoreSource},
        origin::Origin,
        recovery::{RecoverFrom, Recovery, RecoverySource, Remains},
    },
    store::{self, Conn, Store},
};

const KIND: OperationKind = OperationKind::Recover;
/// Why an operation was told to halt that had the members in hand.
const GIVES_WAY: &str = "stopped, because the database is being recovered";

/// Recovers databases that have lost too many members.
pub struct Recoveries {
    store: Arc<Store>,
    clock: Clock,
    observer: Arc<dyn Observer>,
    inventory: Arc<Inventory>,
}

impl Recoveries {
    pub(super) fn new(parts: &BrokerParts, inventory: Arc<Inventory>) -> Self {
        Self {
            store: parts.store.clone(),
            clock: parts.clock.clone(),
            observer: parts.observer.clone(),
            inventory,
        }
    }

    /// What a recovery would do now. Changes nothing.
    pub async fn plan_recovery(
        &self,
        instance: InstanceId,
        wanted: RecoverFrom,
    ) -> Result<Recovery, BrokerError> {
        let read = move |conn: &mut Conn<'_>| Ok(recoverable(conn, &instance));
        let (deployment, backups) = self.store.scan(read).await??;
        let members = self.survey(&deployment).await?;
        let now = self.clock.now();
        let profile = self.inventory.profile(&deployment.engine)?;
        Ok(Recovery::plan(profile, &wanted, members, &backups, now))
    }

    /// Accepts a recovery. While one goes on, tells of that. What has the members in hand gives way: it
    /// waits for members that do not come back.
    pub async fn recover(
        &self,
        instance: InstanceId,
        wanted: RecoverFrom,
        origin: Origin,
    ) -> Result<Operation, BrokerError> {
        let find = {
            let instance = instance.clone();
            move |conn: &mut Conn<'_>| store::operation::under_way(conn, &instance, KIND)
        };
        if let Some(running) = self.store.read(find).await? {
            return Ok(running);
        }
        let plan = self.plan_recovery(instance.clone(), wanted).await?;
        let source = plan.source.map_err(BrokerError::Conflict)?;
        let now = self.clock.now();
        self.store
            .decide(move |conn| {
                usable(conn, &instance)?;
                if let Some(running) = store::operation::under_way(conn, &instance, KIND)? {
                    return Ok(running);
                }
                let queued = Operation::queued(KIND, &instance, origin, now);
                let operation = match &source {
                    RecoverySource::Survivor(member) => Operation {
                        survivor: Some(member.clone()),
                        ..queued
                    },
                    RecoverySource::Backup(manifest) => Operation {
                        backup: Some(manifest.backup_id.clone()),
                        source: Some(RestoreSource::of(Manifest::clone(manifest))),
                        ..queued
                    },
                };
                for other in store::operation::active_on_instance(conn, &instance)? {
                    if KIND.follows(other.kind) {
                        store::operation::halt_because(conn, &other.id, GIVES_WAY, now)?;
                    }
                }
                let key = format!("recover {instance}");
                store::operation::insert(conn, &operation, Some(&key))?;
                Ok(operation)
            })
            .await
    }

    /// What the members of a deployment still have. Whatever serves is not looked at more closely.
    async fn survey(&self, deployment: &Deployment) -> Result<Vec<Remains>, BrokerError> {
        let surveyed = self.observer.survey(deployment).await;
        surveyed.ok_or_else(|| {
            let reason = "the broker could not look at the members; its log says why";
            BrokerError::Conflict(reason.to_owned())
        })
    }
}

/// The deployment of an instance that may be recovered, and its complete backups, newest first.
fn recoverable(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
) -> Result<(Deployment, Vec<Manifest>), BrokerError> {
    let deployment = usable(conn, instance)?;
    let complete = store::backup::complete_of(conn, instance)?.into_iter();
    let complete = complete.filter(|backup| backup.kind.is_own());
    let mut manifests: Vec<Manifest> = complete.filter_map(|backup| backup.manifest).collect();
    manifests.sort_by_key(|manifest| std::cmp::Reverse(manifest.started_at));
    Ok((deployment, manifests))
}
