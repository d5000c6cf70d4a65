//! What the operator's webhook is told of: which changes of alerts become messages, and which of these are
//! sent next.
//!
//! Invariants: that an alert is told and the message that tells it are one transaction, so no change is lost
//! or told twice, whatever ends the broker; messages of an instance leave in the order of its changes; of
//! several brokers on one store, one finds changes and sends.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::{BrokerError, BrokerParts, dashboard_url};
use crate::{
    clock::Clock,
    model::{
        alert::Gravity,
        figures::InstanceSeen,
        ids::{InstanceId, MessageId},
        limits::{
            COURIER_LEASE, MESSAGE_KEPT, MESSAGES_AT_ONCE, MESSAGES_MAX, MESSAGES_OF_INSTANCE_MAX,
            ROUND_PAGE,
        },
        message::{Change, InstanceData, Message, Settled, key},
    },
    store::{
        self, Conn, Store, StoreError,
        outbox::{NotifiedAlert, Waiting},
    },
};

/// How many messages wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// So many.
    pub waiting: u64,
    /// How long ago the first of them was made; nothing when none waits.
    pub oldest: TimeDelta,
}

/// What the operator's webhook is told.
pub struct Outbox {
    store: Arc<Store>,
    clock: Clock,
    public_url: String,
    /// Which broker this is, of several on one store.
    owner: String,
    /// Until when nobody else finds changes and sends.
    held_until: Mutex<Option<DateTime<Utc>>>,
}

impl Outbox {
    pub(super) fn new(parts: &BrokerParts) -> Self {
        Self {
            store: parts.store.clone(),
            clock: parts.clock.clone(),
            public_url: parts.public_url.clone(),
            owner: Uuid::new_v4().simple().to_string(),
            held_until: Mutex::new(None),
        }
    }

    /// Whether this broker is the one that finds changes and sends messages.
    pub async fn is_ours(&self) -> Result<bool, BrokerError> {
        if self.store.is_private() {
            return Ok(true);
        }
        let now = self.clock.now();
        let until = now + COURIER_LEASE;
        let held_until = *self.lock();
        // Half of the time is left for the last that asks.
        if held_until.is_some_and(|held| held > now + COURIER_LEASE / 2 && held <= until) {
            return Ok(true);
        }
        let owner = self.owner.clone();
        let held = self
            .store
            .write(move |conn| {
                let at = store::time::of_store(conn, now)?;
                store::outbox::hold(conn, &owner, at, at + COURIER_LEASE)
            })
            .await?;
        *self.lock() = held.then_some(until);
        Ok(held)
    }

    /// Lets another broker find changes and send at once.
    pub async fn let_go(&self) -> Result<(), BrokerError> {
        if self.lock().take().is_none() {
            return Ok(());
        }
        let owner = self.owner.clone();
        let gone = self
            .store
            .write(move |conn| store::outbox::let_go(conn, &owner));
        Ok(gone.await?)
    }

    fn lock(&self) -> MutexGuard<'_, Option<DateTime<Utc>>> {
        // Every change is one assignment, so it is whole even after a panic.
        self.held_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes messages of what has changed of instances since they were told of last.
    pub async fn note(&self, seen: Vec<(InstanceSeen, Settled)>) -> Result<(), BrokerError> {
        let look = {
            let seen = seen.clone();
            move |conn: &mut Conn<'_>| {
                let mut changed = Vec::new();
                for (instance, settled) in seen {
                    if !changes(conn, &instance.id, &settled)?.is_empty() {
                        changed.push((instance, settled));
                    }
                }
                Ok::<_, StoreError>(changed)
            }
        };
        let changed = self.store.scan(look).await?;
        if changed.is_empty() {
            return Ok(());
        }
        let (now, url) = (self.clock.now(), self.public_url.clone());
        let written = self.store.write(move |conn| {
            for (instance, settled) in &changed {
                if has_room(conn, &instance.id)? {
                    notify(conn, &url, instance, settled, now)?;
                }
            }
            Ok(())
        });
        Ok(written.await?)
    }

    /// Ends the alerts of instances that are gone.
    pub async fn note_gone(&self) -> Result<(), BrokerError> {
        let mut after = String::new();
        loop {
            let from = after.clone();
            let look = move |conn: &mut Conn<'_>| {
                let told = store::outbox::instances_notified(conn, &from, ROUND_PAGE)?;
                let last = told.last().map(InstanceId::to_string);
                let mut gone = Vec::new();
                for id in told {
                    if store::instance::find(conn, &id)?.is_none() {
                        gone.push(id);
                    }
                }
                Ok::<_, StoreError>((gone, last))
            };
            let (gone, last) = self.store.scan(look).await?;
            if !gone.is_empty() {
                let now = self.clock.now();
                let written = self.store.write(move |conn| {
                    for id in &gone {
                        end_all(conn, id, now)?;
                    }
                    Ok(())
                });
                written.await?;
            }
            match last {
                Some(last) => after = last,
                None => return Ok(()),
            }
        }
    }

    /// The messages that are sent next.
    pub async fn due(&self) -> Result<Vec<Waiting>, BrokerError> {
        let now = self.clock.now();
        let due = self
            .store
            .read(move |conn| store::outbox::due(conn, now, MESSAGES_AT_ONCE));
        Ok(due.await?)
    }

    /// Keeps that a message was taken.
    pub async fn was_taken(&self, id: MessageId) -> Result<(), BrokerError> {
        let gone = self
            .store
            .write(move |conn| store::outbox::remove(conn, &id));
        Ok(gone.await?)
    }

    /// Keeps that a message was not taken, and is sent again after this time.
    pub async fn was_not_taken(&self, id: MessageId, pause: Duration) -> Result<(), BrokerError> {
        let due_at = self.clock.now() + pause;
        let put_off = self
            .store
            .write(move |conn| store::outbox::put_off(conn, &id, due_at));
        Ok(put_off.await?)
    }

    /// Has all that waits sent at once.
    pub async fn hurry(&self) -> Result<(), BrokerError> {
        let now = self.clock.now();
        let hurried = self
            .store
            .write(move |conn| store::outbox::hurry(conn, now));
        Ok(hurried.await?)
    }

    /// Removes messages that nobody has taken for too long; returns them.
    pub async fn give_up(&self) -> Result<Vec<Waiting>, BrokerError> {
        let before = self.clock.now() - MESSAGE_KEPT;
        let old = self
            .store
            .read(move |conn| store::outbox::made_before(conn, before, MESSAGES_AT_ONCE));
        let old = old.await?;
        if old.is_empty() {
            return Ok(old);
        }
        let ids: Vec<MessageId> = old.iter().map(|message| message.id.clone()).collect();
        let gone = self.store.write(move |conn| {
            ids.iter()
                .try_for_each(|id| store::outbox::remove(conn, id))
        });
        gone.await?;
        Ok(old)
    }

    /// How many messages wait.
    pub async fn backlog(&self) -> Result<Backlog, BrokerError> {
        let now = self.clock.now();
        let (count, oldest) = self.store.read(store::outbox::backlog).await?;
        let age = oldest.map_or(TimeDelta::zero(), |at| now - at);
        Ok(Backlog {
            waiting: count.unsigned_abs(),
            oldest: age.max(TimeDelta::zero()),
        })
    }
}

/// What has changed of an instance since it was told of last.
fn changes(
    conn: &mut Conn<'_>,
    id: &InstanceId,
    settled: &Settled,
) -> Result<Vec<Change>, StoreError> {
    let told = store::outbox::notified(conn, id)?;
    let told: Vec<(String, Gravity)> = told.into_iter().map(|of| (of.key, of.gravity)).collect();
    Ok(settled.changes(&told))
}

/// Where there is none, changes wait: what is told then is what has become of them.
fn has_room(conn: &mut Conn<'_>, id: &InstanceId) -> Result<bool, StoreError> {
    let (all, _) = store::outbox::backlog(conn)?;
    Ok(all < MESSAGES_MAX && store::outbox::count_of(conn, id)? < MESSAGES_OF_INSTANCE_MAX)
}

fn notify(
    conn: &mut Conn<'_>,
    public_url: &str,
    seen: &InstanceSeen,
    settled: &Settled,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let id = &seen.id;
    // It may have gone since it was seen: then its alerts are over, and none begins.
    if store::instance::find(conn, id)?.is_none() {
        return Ok(());
    }
    let told = store::outbox::notified(conn, id)?;
    let before = |key: &str| told.iter().find(|of| of.key == key);
    let instance = || InstanceData::of(seen, dashboard_url(public_url, id));
    for change in changes(conn, id, settled)? {
        let (key, message, gravity) = match change {
            Change::Opened(alert) => {
                let message = Message::opened(public_url, instance(), &alert, now);
                (key(&alert.subject), message, Some(alert.gravity))
            }
            Change::Changed(key, alert) => {
                let Some(before) = before(&key) else { continue };
                let message = Message::changed(&before.told, instance(), &alert, now);
                (key, message, Some(alert.gravity))
            }
            Change::Ended(key) => {
                let Some(before) = before(&key) else { continue };
                (key, Message::ended(before.told.clone(), now), None)
            }
        };
        store::outbox::add(conn, &message)?;
        match gravity {
            None => store::outbox::forget_notified(conn, id, &key)?,
            Some(gravity) => {
                let told = message.data;
                let alert = NotifiedAlert { key, gravity, told };
                store::outbox::set_notified(conn, id, &alert)?;
            }
        }
    }
    Ok(())
}

/// Ends all that was told of an instance that is gone.
fn end_all(conn: &mut Conn<'_>, id: &InstanceId, now: DateTime<Utc>) -> Result<(), StoreError> {
    if store::instance::find(conn, id)?.is_some() {
        return Ok(());
    }
    for alert in store::outbox::notified(conn, id)? {
        store::outbox::forget_notified(conn, id, &alert.key)?;
        store::outbox::add(conn, &Message::ended(alert.told, now))?;
    }
    Ok(())
}
