//! How instances are, see [`crate::model::health`]: of one, by a look that is waited for; of many, by
//! what was seen last.

use chrono::{DateTime, Utc};

use super::{
    Broker, BrokerError, DeploymentView,
    alert::{Beside, backup_watch, beside},
    status::OF_INSTANCE,
};
use crate::{
    model::{
        alert::{BackupWatch, alerts},
        backup::Backup,
        deployment::Deployment,
        health::{Health, Life, health},
        instance::{Instance, InstanceState},
        limits::STUCK_TOLD_MAX,
        observation::Observation,
        operation::{Operation, OperationState},
    },
    store::{self, Conn, StoreError, oversight::Filter},
};

/// What is read of an instance for its health.
pub(super) struct Read {
    pub(super) life: Life,
    pub(super) backups: BackupWatch,
    pub(super) beside: Beside,
    /// The newest good backup.
    pub(super) newest: Option<Backup>,
}

/// Reads what the health of an instance goes by beside what members say.
pub(super) fn read(
    conn: &mut Conn<'_>,
    instance: &Instance,
    deployment: &Deployment,
    now: DateTime<Utc>,
) -> Result<Read, StoreError> {
    let complete = store::backup::complete_of(conn, &instance.id)?;
    Ok(Read {
        life: life(conn, instance)?,
        backups: backup_watch(conn, instance, &complete)?,
        beside: beside(conn, deployment, now)?,
        newest: complete.into_iter().max_by_key(Backup::taken_at),
    })
}

/// Reads where an instance is in its life.
pub(super) fn life(conn: &mut Conn<'_>, of: &Instance) -> Result<Life, StoreError> {
    let ended = store::operation::newest(conn, &of.id, None, &OF_INSTANCE)?;
    let is_failed = of.state == InstanceState::Failed;
    Ok(Life {
        state: of.state,
        created_at: of.created_at,
        under_way: store::operation::active_on_instance(conn, &of.id)?,
        stuck: stuck(conn, of)?,
        failed: ended.filter(|operation| is_failed && operation.failure.is_some()),
    })
}

/// What is stuck and has an instance's members in hand, unless the same was done since.
fn stuck(conn: &mut Conn<'_>, of: &Instance) -> Result<Vec<Operation>, StoreError> {
    let filter = Filter {
        state: Some(OperationState::Stuck),
        instance: Some(of.id.clone()),
        ..Filter::default()
    };
    let mut stuck = Vec::new();
    for seen in store::oversight::list(conn, &filter, STUCK_TOLD_MAX)? {
        let operation = seen.operation;
        let is_its = operation.ordinal >= of.ordinal && operation.kind.has_members_in_hand();
        if !is_its {
            continue;
        }
        let newest = store::operation::newest(conn, &of.id, None, &[operation.kind])?;
        if newest.is_some_and(|newest| newest.id == operation.id) {
            stuck.push(operation);
        }
    }
    Ok(stuck)
}

impl Broker {
    /// How an instance is now: by a look at its members that is waited for.
    pub async fn health(&self, of: &DeploymentView) -> Result<Health, BrokerError> {
        let (instance, deployment) = (of.instance.clone(), of.deployment.clone());
        let now = self.clock.now();
        let found = self
            .store
            .scan(move |conn| read(conn, &instance, &deployment, now));
        let found = found.await?;
        let seen = match of.instance.state {
            InstanceState::Ready => self.seen_now(&of.deployment).await,
            _ => None,
        };
        Ok(self.health_of(&of.deployment, found, seen.as_deref(), now))
    }

    /// How instances are, as their members were seen last, with their deployments. Nobody waits for a
    /// look: those that were not seen lately are looked at behind the answer.
    pub async fn healths(
        &self,
        of: Vec<Instance>,
    ) -> Result<Vec<(Option<Deployment>, Health)>, BrokerError> {
        let now = self.clock.now();
        let found = self.store.scan(move |conn| {
            let each = |instance: &Instance| {
                let deployment = store::deployment::of_instance(conn, &instance.id)?;
                let Some((deployment, _)) = deployment else {
                    return Ok(None);
                };
                let read = read(conn, instance, &deployment, now)?;
                Ok(Some((deployment, read)))
            };
            of.iter().map(each).collect::<Result<Vec<_>, StoreError>>()
        });
        let told = found.await?.into_iter().map(|found| {
            let Some((deployment, read)) = found else {
                return (None, Health::unknown());
            };
            let seen = match read.life.state {
                InstanceState::Ready => self.look_behind(&deployment),
                _ => None,
            };
            let health = self.health_of(&deployment, read, seen.as_deref(), now);
            (Some(deployment), health)
        });
        Ok(told.collect())
    }

    /// What was seen last of a deployment. Begins the next look.
    fn look_behind(&self, deployment: &Deployment) -> Option<std::sync::Arc<Observation>> {
        let fresh = self.observation(deployment);
        fresh.or_else(|| self.last_seen(deployment))
    }

    pub(super) fn health_of(
        &self,
        deployment: &Deployment,
        read: Read,
        seen: Option<&Observation>,
        now: DateTime<Utc>,
    ) -> Health {
        let database = self.database_watch(deployment, read.beside);
        let alerts = match read.life.state {
            InstanceState::Ready => alerts(now, &database, seen, &read.backups),
            _ => Vec::new(),
        };
        health(&read.life, &database, seen, &alerts)
    }
}
