//! What somebody should know of an instance, see [`crate::model::alert`].

use std::sync::Arc;

use tokio::time::timeout;

use super::{Broker, BrokerError, DeploymentView};
use crate::{
    model::{
        alert::{Alert, BackupWatch, alerts},
        backup::{Backup, BackupState},
        deployment::Deployment,
        instance::{Instance, InstanceState},
        limits::ALERT_LOOK_TIMEOUT,
        observation::Observation,
        operation::OperationKind,
    },
    store::{self, Conn, StoreError},
};

impl Broker {
    /// What somebody should know of an instance now. While it is made or deleted there is nothing
    /// to tell that its state does not.
    pub async fn alerts(&self, of: &DeploymentView) -> Result<Vec<Alert>, BrokerError> {
        if of.instance.state != InstanceState::Ready {
            return Ok(Vec::new());
        }
        let instance = of.instance.clone();
        let watch = self
            .store
            .read(move |conn| {
                let backups = store::backup::of_instance(conn, &instance.id)?;
                backup_watch(conn, &instance, &backups)
            })
            .await?;
        let seen = self.seen_now(&of.deployment).await;
        let quota = of.deployment.quota_bytes();
        Ok(alerts(self.clock.now(), quota, seen.as_deref(), &watch))
    }

    /// What was seen a moment ago, or what is seen by a look that is waited for.
    async fn seen_now(&self, deployment: &Deployment) -> Option<Arc<Observation>> {
        if let Some(seen) = self.observation(deployment) {
            return Some(seen);
        }
        let look = self.observer.look(deployment);
        timeout(ALERT_LOOK_TIMEOUT, look).await.ok().flatten()
    }
}

/// What is known of an instance's scheduled backups; `backups` are all that it has.
pub(super) fn backup_watch(
    conn: &mut Conn<'_>,
    instance: &Instance,
    backups: &[Backup],
) -> Result<BackupWatch, StoreError> {
    let makers = [OperationKind::Provision, OperationKind::Restore];
    let made = store::operation::newest(conn, &instance.id, None, &makers)?;
    let good =
        |backup: &&Backup| backup.kind.is_scheduled() && backup.state == BackupState::Complete;
    Ok(BackupWatch {
        schedule: store::schedule::find(conn, &instance.id)?,
        ready_at: made.map_or(instance.created_at, |operation| operation.updated_at),
        newest_good: backups.iter().filter(good).map(Backup::taken_at).max(),
    })
}
