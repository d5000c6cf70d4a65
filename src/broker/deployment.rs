//! Deployments and their recipes, as the administration API shows them.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures::{Stream, TryStreamExt as _, future, stream};

use super::{BrokerError, BrokerParts, page, profile::Profiles, token::descends};
use crate::{
    clock::Clock,
    model::{
        audit::AtOnce,
        deployment::{Deployment, DeploymentSecrets, Notes},
        ids::{DeploymentId, InstanceId, OperationId},
        instance::Instance,
        limits::{DEPLOYMENTS_MAX, PAGE_OF_ALL, RECIPES_MAX},
        operation::{Operation, OperationKind},
        origin::Origin,
        provenance::Provenance,
        queue::Limits,
        schedule::Schedule,
    },
    seal::KeyRing,
    store::{self, Conn, Store, StoreError},
};

/// An operation, and who asked for it.
#[derive(Debug)]
pub struct Task {
    /// The operation.
    pub operation: Operation,
    /// The user who asked for it, where one is known.
    pub user: Option<String>,
}

/// A deployment with what belongs to it.
#[derive(Debug)]
pub struct DeploymentView {
    /// The instance in front of it.
    pub instance: Instance,
    /// The deployment.
    pub deployment: Deployment,
    /// What users wrote down beside it.
    pub notes: Notes,
    /// Certificate of its authority (PEM), once it is made.
    pub ca_certificate: Option<String>,
    /// The operation that made it.
    pub provision: Option<OperationId>,
    /// When it is backed up, while it is usable.
    pub schedule: Option<Schedule>,
    /// What it was restored from; none, where it was made empty.
    pub source: Option<Source>,
}

/// What an instance was restored from, as it can be told now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The instance and the backup, by the name that the instance has or had.
    pub of: Provenance,
    /// Whether that instance is still there.
    pub exists: bool,
}

/// Operations of an instance, with what they wait for and who asked for them.
pub(super) fn tasks(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
    mut operations: Vec<Operation>,
    limits: &Limits,
    now: DateTime<Utc>,
) -> Result<Vec<Task>, StoreError> {
    store::queue::find_waits(conn, &mut operations, limits, now)?;
    let ids: Vec<OperationId> = operations.iter().map(|o| o.id.clone()).collect();
    let mut askers = store::audit::askers(conn, instance, &ids)?;
    let task = |operation: Operation| Task {
        user: askers.remove(&operation.id),
        operation,
    };
    Ok(operations.into_iter().map(task).collect())
}

fn task(
    conn: &mut Conn<'_>,
    mut operation: Operation,
    limits: &Limits,
    now: DateTime<Utc>,
) -> Result<Task, StoreError> {
    store::queue::find_waits(conn, [&mut operation], limits, now)?;
    let id = std::slice::from_ref(&operation.id);
    let user = store::audit::askers(conn, &operation.instance, id)?.remove(&operation.id);
    Ok(Task { operation, user })
}

/// What an instance was restored from.
pub(super) fn source_of(
    conn: &mut Conn<'_>,
    id: &InstanceId,
) -> Result<Option<Source>, StoreError> {
    let Some(mut of) = store::provenance::of(conn, id)? else {
        return Ok(None);
    };
    let source = store::instance::of_deployment(conn, &of.deployment)?;
    let exists = source.is_some();
    if let Some(source) = source {
        of.name = source.name;
    }
    Ok(Some(Source { of, exists }))
}

fn no_such(what: &str) -> BrokerError {
    BrokerError::NotFound(format!("there is no such {what}"))
}

/// An instance and those that the broker itself restored from it, in one step or several: what
/// [`descends`] says yes to.
fn descendants(conn: &mut Conn<'_>, id: &InstanceId) -> Result<Vec<InstanceId>, StoreError> {
    let mut found: Vec<Instance> = store::instance::find(conn, id)?.into_iter().collect();
    let mut looked_at = 0;
    while looked_at < found.len() && found.len() < DEPLOYMENTS_MAX {
        let restored = store::instance::restored_from(conn, &found[looked_at].deployment)?;
        found.extend(restored);
        looked_at += 1;
    }
    found.truncate(DEPLOYMENTS_MAX);
    Ok(found.into_iter().map(|instance| instance.id).collect())
}

/// What is kept sealed of a deployment; none before it has any.
pub(super) fn secrets_of(
    keys: &KeyRing,
    deployment: &Deployment,
    sealed: Option<&str>,
) -> Result<Option<DeploymentSecrets>, BrokerError> {
    let Some(sealed) = sealed else {
        return Ok(None);
    };
    Ok(Some(keys.open_as(&deployment.seal_context(), sealed)?))
}

/// The certificates of the authorities that users of a deployment trust (PEM); none before it has any.
pub(super) fn trusted_authorities(
    keys: &KeyRing,
    deployment: &Deployment,
    sealed: Option<&str>,
) -> Result<Option<String>, BrokerError> {
    let secrets = secrets_of(keys, deployment, sealed)?;
    Ok(secrets.map(|secrets| secrets.trusted()))
}

/// The deployments in use whose engine this broker has, in the order of their ids. They are read page by
/// page, so that nobody holds all of them.
pub(super) fn usable_deployments(
    store: &Arc<Store>,
    profiles: &Profiles,
) -> impl Stream<Item = Result<Deployment, BrokerError>> + Send {
    let pages = stream::try_unfold(Some(String::new()), move |after| async move {
        let Some(after) = after else {
            return Ok(None);
        };
        let (page, next) = usable_page(store, after).await?;
        Ok::<_, BrokerError>(Some((stream::iter(page.into_iter().map(Ok)), next)))
    });
    let is_ours = |of: &Deployment| future::ready(profiles.get(&of.engine).is_ok());
    pages.try_flatten().try_filter(is_ours)
}

/// Some deployments in use, those after `after` by id. Also returns after which the others come; none when
/// there are no more.
pub(super) async fn usable_page(
    store: &Arc<Store>,
    after: String,
) -> Result<(Vec<Deployment>, Option<String>), BrokerError> {
    let read =
        store.scan(move |conn| store::deployment::usable_after(conn, &after, PAGE_OF_ALL + 1));
    let mut found = read.await?;
    let more = page::cut(&mut found, PAGE_OF_ALL);
    let last = found.last().filter(|_| more).map(|of| of.id.to_string());
    Ok((found, last))
}

/// Deployments, for those who reach them through an instance.
pub struct Deployments {
    store: Arc<Store>,
    keys: Arc<KeyRing>,
    clock: Clock,
    limits: Limits,
}

impl Deployments {
    pub(super) fn new(parts: &BrokerParts) -> Self {
        Self {
            store: parts.store.clone(),
            keys: parts.keys.clone(),
            clock: parts.clock.clone(),
            limits: parts.limits.clone(),
        }
    }

    /// Whether there is an instance of that id, however it is.
    pub async fn has_instance(&self, id: InstanceId) -> Result<bool, BrokerError> {
        let found = self
            .store
            .read(move |conn| store::instance::find(conn, &id));
        Ok(found.await?.is_some())
    }

    /// The deployment behind an instance.
    pub async fn deployment_of(&self, id: InstanceId) -> Result<DeploymentView, BrokerError> {
        let (instance, found, notes, provision, schedule, source) = self
            .store
            .read(move |conn| {
                let kinds = [OperationKind::Provision, OperationKind::Restore];
                let found = store::deployment::of_instance(conn, &id)?;
                let notes = match &found {
                    Some((deployment, _)) => store::notes::of(conn, &deployment.id)?,
                    None => Notes::default(),
                };
                Ok((
                    store::instance::find(conn, &id)?,
                    found,
                    notes,
                    store::operation::newest(conn, &id, None, &kinds)?,
                    store::schedule::find(conn, &id)?,
                    source_of(conn, &id)?,
                ))
            })
            .await?;
        let (Some(instance), Some((deployment, sealed))) = (instance, found) else {
            return Err(no_such("instance"));
        };
        let ca_certificate = trusted_authorities(&self.keys, &deployment, sealed.as_deref())?;
        let provision = provision.map(|o| o.id);
        Ok(DeploymentView {
            instance,
            deployment,
            notes,
            ca_certificate,
            provision,
            schedule,
            source,
        })
    }

    /// The deployment behind an instance, as it is now, and its [`trusted_authorities`]; none before it
    /// has any.
    pub(super) async fn authorities_of(
        &self,
        instance: &InstanceId,
    ) -> Result<Option<(Deployment, String)>, BrokerError> {
        let instance = instance.clone();
        let found = self
            .store
            .read(move |conn| store::deployment::of_instance(conn, &instance))
            .await?;
        let Some((deployment, sealed)) = found else {
            return Ok(None);
        };
        let trusted = trusted_authorities(&self.keys, &deployment, sealed.as_deref())?;
        Ok(trusted.map(|trusted| (deployment, trusted)))
    }

    /// The deployment of that id, when it is among [`Self::deployments_from`] an instance.
    pub async fn deployment(
        &self,
        instance: InstanceId,
        id: &DeploymentId,
    ) -> Result<DeploymentView, BrokerError> {
        let wanted = id.clone();
        let found = self.store.read(move |conn| {
            let of = store::instance::of_deployment(conn, &wanted)?.map(|of| of.id);
            match of {
                Some(of) if of == instance || descends(conn, &of, &instance)? => Ok(Some(of)),
                _ => Ok(None),
            }
        });
        let of = found.await?.ok_or_else(|| no_such("deployment"))?;
        let view = self.deployment_of(of).await?;
        if view.deployment.id == *id {
            Ok(view)
        } else {
            Err(no_such("deployment"))
        }
    }

    /// Writes down what users want beside their deployment; what is not given stays as it is.
    pub async fn annotate(
        &self,
        of: DeploymentView,
        text: Option<String>,
        billing_code: Option<String>,
    ) -> Result<DeploymentView, BrokerError> {
        let id = of.deployment.id.clone();
        let (of_instance, now) = (of.instance.id.clone(), self.clock.now());
        let written = self.store.decide(move |conn| {
            let found = store::deployment::of_instance(conn, &of_instance)?;
            // It may have gone meanwhile.
            if found.is_none_or(|(deployment, _)| deployment.id != id) {
                return Err(no_such("deployment"));
            }
            let before = store::notes::of(conn, &id)?;
            let notes = Notes {
                text: text.clone().unwrap_or(before.text),
                billing_code: billing_code.clone().unwrap_or(before.billing_code),
            };
            notes.check().map_err(BrokerError::BadRequest)?;
            store::notes::set(conn, &id, &notes)?;
            store::audit::done(
                conn,
                AtOnce::Notes,
                Origin::Compose,
                Some(&of_instance),
                now,
            )?;
            Ok(notes)
        });
        Ok(DeploymentView {
            notes: written.await?,
            ..of
        })
    }

    /// The deployments that a user who may administer an instance may administer: its own, then those
    /// that the broker itself restored from it, nearest and newest first. At most
    /// [`DEPLOYMENTS_MAX`].
    pub async fn deployments_from(
        &self,
        id: InstanceId,
    ) -> Result<Vec<DeploymentView>, BrokerError> {
        let instances = self.store.scan(move |conn| descendants(conn, &id)).await?;
        let mut found = Vec::new();
        for instance in instances {
            match self.deployment_of(instance).await {
                Ok(view) => found.push(view),
                // It went meanwhile.
                Err(BrokerError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        if found.is_empty() {
            return Err(no_such("instance"));
        }
        Ok(found)
    }

    /// The operations of an instance, newest first; none of an earlier one that had the same id.
    pub async fn recipes(&self, of: &Instance) -> Result<Vec<Task>, BrokerError> {
        let (instance, since) = (of.id.clone(), of.ordinal);
        let (limits, now) = (self.limits.clone(), self.clock.now());
        let read = move |conn: &mut Conn<'_>| {
            let mut found = store::operation::of_instance(conn, &instance, RECIPES_MAX)?;
            found.retain(|operation| operation.ordinal >= since);
            tasks(conn, &instance, found, &limits, now)
        };
        Ok(self.store.scan(read).await?)
    }

    /// The same of one operation that was just accepted, or asked for again.
    pub async fn task(&self, operation: Operation) -> Result<Task, BrokerError> {
        let (limits, now) = (self.limits.clone(), self.clock.now());
        let read = move |conn: &mut Conn<'_>| task(conn, operation, &limits, now);
        Ok(self.store.read(read).await?)
    }

    /// One operation of an instance with its deployment, or of one that the broker itself restored
    /// from it: a client that has one address for all polls there what was asked for there.
    pub async fn recipe(
        &self,
        of: InstanceId,
        id: OperationId,
    ) -> Result<(DeploymentView, Task), BrokerError> {
        let (limits, now) = (self.limits.clone(), self.clock.now());
        let found = self.store.read(move |conn| {
            let Some(operation) = store::operation::find(conn, &id)? else {
                return Ok(None);
            };
            let seen = operation.instance == of || descends(conn, &operation.instance, &of)?;
            let seen = seen.then(|| task(conn, operation, &limits, now));
            seen.transpose()
        });
        let task = found.await?.ok_or_else(|| no_such("recipe"))?;
        let view = self.deployment_of(task.operation.instance.clone()).await?;
        // An earlier instance may have had the same id.
        if task.operation.ordinal < view.instance.ordinal {
            return Err(no_such("recipe"));
        }
        Ok((view, task))
    }
}
