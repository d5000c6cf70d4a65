//! What keeps databases in good state: room, unused storage, members that are replaced. Users ask for it,
//! and so do those that watch over databases. One file for each of these: [`super::relief`],
//! [`super::defragment`], [`super::repair`].

use std::{collections::HashSet, sync::Arc};

use chrono::{DateTime, Utc};
use futures::{FutureExt as _, TryStreamExt as _};

use super::{
    BrokerError, BrokerParts, deployment::usable_deployments, observation::Observer,
    profile::Profiles,
};
use crate::{
    clock::Clock,
    model::{
        alert::Incident, deployment::Deployment, ids::DeploymentId, instance::InstanceState,
        limits::LOOKS_AT_ONCE,
    },
    store::{self, Conn, Store},
};

/// Accepts work that keeps databases in good state.
pub struct Upkeep {
    pub(super) store: Arc<Store>,
    pub(super) clock: Clock,
    pub(super) profiles: Profiles,
    /// The one whose looks pages show.
    observer: Arc<dyn Observer>,
}

impl Upkeep {
    pub(super) fn new(parts: &BrokerParts) -> Self {
        Self {
            store: parts.store.clone(),
            clock: parts.clock.clone(),
            profiles: parts.profiles.clone(),
            observer: parts.observer.clone(),
        }
    }

    /// The time of day.
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// Looks at each deployment in use, at some of them at once; returns which there are.
    pub async fn look_at_each<F: Future<Output = ()>>(
        &self,
        look: impl Fn(Deployment) -> F,
    ) -> Result<HashSet<DeploymentId>, BrokerError> {
        let mut there = HashSet::new();
        usable_deployments(&self.store, &self.profiles)
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
