//! What keeps databases in good state: room, unused storage, members that are replaced. Users ask for it,
//! and so do those that watch over databases. One file for each of these: [`super::relief`],
//! [`super::defragment`], [`super::repair`].

use std::{collections::HashSet, sync::Arc};

use chrono::{DateTime, Utc};
use futures::{FutureExt as _, TryStreamExt as _, future::ready};
use tokio::time::timeout;

use super::{
    BrokerError, BrokerParts, Census, DeploymentView, deployment::usable_deployments,
    observation::Observer, profile::Profiles,
};
use crate::{
    clock::Clock,
    model::{
        alert::Incident,
        deployment::Deployment,
        ids::DeploymentId,
        instance::InstanceState,
        limits::{ALERT_LOOK_TIMEOUT, LOOKS_AT_ONCE},
        tenant::RestoreScope,
    },
    seal::KeyRing,
    store::{self, Conn, Store},
};

/// Accepts work that keeps databases in good state.
pub struct Upkeep {
    pub(super) store: Arc<Store>,
    pub(super) clock: Clock,
    pub(super) profiles: Profiles,
    /// How far a restore may reach for its source.
    pub(super) restore_scope: RestoreScope,
    pub(super) keys: Arc<KeyRing>,
    /// The one whose looks pages show.
    pub(super) observer: Arc<dyn Observer>,
    census: Arc<dyn Census>,
}

impl Upkeep {
    pub(super) fn new(parts: &BrokerParts) -> Self {
        Self {
            store: parts.store.clone(),
            clock: parts.clock.clone(),
            profiles: parts.profiles.clone(),
            restore_scope: parts.restore_scope,
            keys: parts.keys.clone(),
            observer: parts.observer.clone(),
            census: parts.census.clone(),
        }
    }

    /// The time of day.
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// Looks at each deployment in use that this broker looks after, at some of them at once; returns which
    /// there are.
    pub async fn look_at_each<F: Future<Output = ()>>(
        &self,
        look: impl Fn(Deployment) -> F,
    ) -> Result<HashSet<DeploymentId>, BrokerError> {
        let mut there = HashSet::new();
        let is_ours = |of: &Deployment| self.census.looks_after(&of.cluster);
        usable_deployments(&self.store, &self.profiles)
            .try_filter(|of| ready(is_ours(of)))
            .inspect_ok(|deployment| _ = there.insert(deployment.id.clone()))
            .try_for_each_concurrent(LOOKS_AT_ONCE, |deployment| look(deployment).map(Ok))
            .await?;
        Ok(there)
    }

    /// Begins a look at a deployment that is not well, or that nobody has seen, by whether each of its
    /// members is alive: its health is shown as it was seen last.
    pub fn look_if_unwell(&self, deployment: &Deployment, alive: &[bool]) {
        let seen = self.observer.seen(deployment);
        let serves = seen.is_some_and(|seen| seen.serving() == seen.members.len());
        if !serves || !alive.iter().all(|alive| *alive) {
            self.observer.observe(deployment);
        }
    }

    /// Why members cannot be asked for work that takes a majority of them, by a look that is waited for;
    /// none where they can be, and where nobody knows.
    pub async fn lacks_members(&self, of: &DeploymentView) -> Option<String> {
        if of.instance.state != InstanceState::Ready {
            return None;
        }
        let look = self.observer.recent(&of.deployment);
        let seen = timeout(ALERT_LOOK_TIMEOUT, look).await.ok().flatten()?;
        if seen.is_usable() {
            return None;
        }
        let (serving, all) = (seen.serving(), seen.members.len());
        let what = match serving {
            0 if seen.members.iter().all(|m| m.silence().is_some()) => {
                "no member answers".to_owned()
            }
            0 => "no member serves".to_owned(),
            1 => format!("1 of {all} members serves"),
            _ => format!("{serving} of {all} members serve"),
        };
        Some(format!("{what}, and it takes {} that serve", seen.needed))
    }

    /// Refuses what takes a majority of the members while there is none: it would wait for as long as they
    /// are down.
    pub(super) async fn needs_members(&self, of: &DeploymentView) -> Result<(), BrokerError> {
        match self.lacks_members(of).await {
            Some(reason) => Err(BrokerError::UpdateRefused {
                reason,
                repeatable: true,
            }),
            None => Ok(()),
        }
    }

    /// Whether an operation has the members of a deployment in hand, or it is not in use.
    pub async fn is_in_hand(&self, of: &Deployment) -> Result<bool, BrokerError> {
        let of = of.clone();
        let read = move |conn: &mut Conn<'_>| {
            let instance = store::instance::find(conn, &of.instance)?;
            let is_ready = instance.is_some_and(|i| i.state == InstanceState::Ready);
            let active = store::operation::active_on_instance(conn, &of.instance)?;
            let in_hand = active.iter().any(|o| o.kind.has_members_in_hand());
            Ok(in_hand || !is_ready)
        };
        Ok(self.store.read(read).await?)
    }

    /// Writes down what befell a deployment, for its users to read.
    pub async fn report(&self, of: &Deployment, message: String) -> Result<(), BrokerError> {
        let (id, at) = (of.id.clone(), self.clock.now());
        let incident = Incident { at, message };
        let write = move |conn: &mut Conn<'_>| store::incident::add(conn, &id, &incident);
        Ok(self.store.write(write).await?)
    }
}
