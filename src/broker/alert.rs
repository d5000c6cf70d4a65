//! What somebody should know of an instance, see [`crate::model::alert`].

use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio::time::timeout;

use super::{Broker, BrokerError, DeploymentView, repair};
use crate::{
    model::{
        alert::{Alert, BackupWatch, DatabaseWatch, Incident, RepairWatch, alerts},
        backup::{Backup, BackupState},
        binding::{BindParameters, Binding, BindingState},
        deployment::Deployment,
        instance::{Instance, InstanceState},
        limits::{ALERT_LOOK_TIMEOUT, INCIDENT_TOLD},
        observation::Observation,
        operation::OperationKind,
        renewal::Outlook,
        version::Version,
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
        let (instance, deployment) = (of.instance.clone(), of.deployment.clone());
        let now = self.clock.now();
        let (backups, beside) = self
            .store
            .scan(move |conn| watched(conn, &instance, &deployment, now))
            .await?;
        let seen = self.seen_now(&of.deployment).await;
        let database = self.database_watch(&of.deployment, beside);
        Ok(alerts(now, &database, seen.as_deref(), &backups))
    }

    /// What is known of a deployment's database beside what its members tell.
    pub(super) fn database_watch(&self, of: &Deployment, beside: Beside) -> DatabaseWatch {
        let (engine, version) = (of.engine.clone(), of.version);
        let profile = self.profile(&engine).ok();
        let available = self.versions_on(&of.cluster, &engine);
        let nearest = |fits: &dyn Fn(Version) -> bool| {
            let newer = available.iter().copied().filter(|v| *v > version);
            newer.filter(|v| fits(*v)).min()
        };
        let limits = |v: Version| profile.is_some_and(|p| p.limits_users(v));
        let is_safe = |v: Version| profile.is_some_and(|p| p.full_is_safe(v));
        let keeps_out = |v: Version| profile.is_some_and(|p| !p.lets_strangers_in(v));
        DatabaseWatch {
            quota_bytes: of.quota_bytes(),
            faults: self.known_faults(&engine, version),
            faultless: nearest(&|v| self.known_faults(&engine, v).is_empty()),
            limits_not_held: if limits(version) { 0 } else { beside.limited },
            limits_held_by: nearest(&limits),
            is_safe_full: is_safe(version),
            safe_full_from: nearest(&is_safe),
            is_kept_on_loopback: self.moves.is_kept_on_loopback(of),
            reachable_from: nearest(&keeps_out),
            closed_since: of.closed_since,
            incidents: beside.incidents,
            repair: beside.repair,
            is_recovered: beside.is_recovered,
            certificates: beside.certificates,
            engine,
            version,
        }
    }

    /// What was seen a moment ago, or what is seen by a look that is waited for.
    pub async fn seen_now(&self, deployment: &Deployment) -> Option<Arc<Observation>> {
        let look = self.observer.recent(deployment);
        timeout(ALERT_LOOK_TIMEOUT, look).await.ok().flatten()
    }
}

/// What is read of a database beside its deployment.
#[derive(Debug)]
pub(super) struct Beside {
    /// Bindings that are held to a role or a prefix.
    limited: usize,
    incidents: Vec<Incident>,
    repair: Option<RepairWatch>,
    is_recovered: bool,
    certificates: Option<Outlook>,
}

/// Reads what alerts go by beside what members say.
pub(super) fn watched(
    conn: &mut Conn<'_>,
    instance: &Instance,
    deployment: &Deployment,
    now: DateTime<Utc>,
) -> Result<(BackupWatch, Beside), StoreError> {
    let complete = store::backup::complete_of(conn, &instance.id)?;
    let backups = backup_watch(conn, instance, &complete)?;
    Ok((backups, beside(conn, deployment, now)?))
}

/// Reads what is told of a database beside its deployment.
pub(super) fn beside(
    conn: &mut Conn<'_>,
    of: &Deployment,
    now: DateTime<Utc>,
) -> Result<Beside, StoreError> {
    let bindings = store::binding::of_instance(conn, &of.instance)?;
    let is_limited = |binding: &&Binding| {
        let asked = BindParameters::read(&binding.request.parameters);
        binding.state == BindingState::Ready && asked.is_ok_and(|p| p.rights().are_limited())
    };
    Ok(Beside {
        limited: bindings.iter().filter(is_limited).count(),
        incidents: store::incident::since(conn, &of.id, now - INCIDENT_TOLD)?,
        repair: repair::watch(conn, &of.instance, now)?,
        is_recovered: store::operation::is_active(conn, &of.instance, OperationKind::Recover)?,
        certificates: store::renewal::find(conn, &of.id)?,
    })
}

/// What is known of an instance's scheduled backups; `backups` are at least all that are complete.
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
