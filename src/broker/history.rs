//! How databases were over time: readings come from the rounds over all instances, and are kept when the
//! stretch of time is over that they stand for.
//!
//! Invariant: within a stretch nothing is written, however many rounds there are. What was seen since its
//! beginning is lost when the broker ends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{BrokerError, BrokerParts, DeploymentView, LookedOver};
use crate::{
    clock::Clock,
    model::{
        history::{History, Reading},
        ids::DeploymentId,
        remembered::Roll,
    },
    store::{self, Conn, Store},
};

/// Keeps how databases were over time.
pub struct Histories {
    store: Arc<Store>,
    clock: Clock,
    /// Of each instance what was seen of it within the stretch that goes on.
    now: Mutex<Roll<(DeploymentId, Reading)>>,
}

impl Histories {
    pub(super) fn new(parts: &BrokerParts) -> Self {
        Self {
            store: parts.store.clone(),
            clock: parts.clock.clone(),
            now: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Roll<(DeploymentId, Reading)>> {
        // Every change is one assignment, so it is whole even after a panic.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes notice of instances that were looked at, and keeps what is over.
    pub async fn note(&self, page: &[LookedOver]) -> Result<(), BrokerError> {
        let over = self.over(page);
        if over.is_empty() {
            return Ok(());
        }
        let keep = move |conn: &mut Conn<'_>| {
            let mut over = over.iter();
            over.try_for_each(|(id, reading)| store::reading::note(conn, id, *reading))
        };
        Ok(self.store.write(keep).await?)
    }

    /// What is to be kept, since something of another stretch was seen.
    fn over(&self, page: &[LookedOver]) -> Vec<(DeploymentId, Reading)> {
        let time = self.clock.now();
        let mut now = self.lock();
        let mut over = Vec::new();
        // Those that are made or deleted are not looked at.
        let ready = page
            .iter()
            .filter(|of| of.observation.is_some() || !of.is_whole);
        for looked in ready {
            let of = &looked.seen;
            let observed = looked.observation.as_deref();
            let reading = Reading::of((of.members, of.quota_bytes), observed, time);
            let new = (looked.deployment.clone(), reading);
            let known = now.seen(&of.id, || new.clone());
            if known.0 == new.0 && known.1.at == new.1.at {
                known.1 = known.1.with(reading);
            } else {
                over.push(std::mem::replace(known, new));
            }
        }
        over
    }

    /// Forgets instances that were not looked at in the round that ends.
    pub fn end_round(&self) {
        self.lock().forget_gone();
    }

    /// How a database was, until now.
    pub async fn of(&self, view: &DeploymentView) -> Result<History, BrokerError> {
        let id = view.deployment.id.clone();
        let read = move |conn: &mut Conn<'_>| store::reading::of(conn, &id);
        let mut history = self.store.read(read).await?;
        let now = self.lock();
        let known = now.known(&view.instance.id);
        if let Some((_, reading)) = known.filter(|(id, _)| *id == view.deployment.id) {
            history.note(*reading);
        }
        Ok(history)
    }
}
