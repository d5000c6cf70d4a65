//! Watches over the sizes of databases, and tells the broker of those that are full or about to be.
//!
//! A version that checks no rights while it is full must be closed before somebody finds out, so each
//! database is looked at every second: at the sizes of its files first, which costs next to nothing,
//! and at its members only where these are near a limit or where strangers may say that it is full.
//! What is done about it is an operation like others.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt as _, stream};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    broker::{Broker, BrokerError},
    engine::SharedEngine,
    model::{
        deployment::Deployment,
        failure::chain,
        full::{Fullness, Need},
        ids::DeploymentId,
        limits::{
            FILE_AHEAD_BYTES, FULL_LOOK_INTERVAL, GUARD_INTERVAL, LOOKS_AT_ONCE,
            QUOTA_RELIEF_PERCENT, RELIEF_RETRY_FIRST, RELIEF_RETRY_MAX, UNSAFE_LOOK_INTERVAL,
        },
        operation::backoff,
    },
    provisioner::SharedProvisioner,
};

/// Watches over the sizes of databases.
pub struct Guard {
    broker: Arc<Broker>,
    engines: BTreeMap<String, SharedEngine>,
    provisioners: BTreeMap<String, SharedProvisioner>,
    known: Mutex<HashMap<DeploymentId, Known>>,
}

/// What is remembered of one database.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// Its members are not asked before.
    next_look: Instant,
    /// How often something had to be done in a row, and when it was done last.
    reliefs: u32,
    last_relief: Option<Instant>,
}

impl Guard {
    /// A guard of all databases of this broker.
    pub fn new(
        broker: Arc<Broker>,
        engines: BTreeMap<String, SharedEngine>,
        provisioners: BTreeMap<String, SharedProvisioner>,
    ) -> Self {
        Self {
            broker,
            engines,
            provisioners,
            known: Mutex::default(),
        }
    }

    /// Watches until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut fails = false;
        while !stop.is_cancelled() {
            match self.look_at_all().await {
                Ok(()) => fails = false,
                Err(error) => {
                    if !fails {
                        log::error!(
                            "cannot watch over the sizes of databases: {}",
                            chain(&error)
                        );
                    }
                    fails = true;
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(GUARD_INTERVAL) => {}
            }
        }
    }

    async fn look_at_all(&self) -> Result<(), BrokerError> {
        let mut all = Vec::new();
        for engine in self.engines.keys() {
            all.extend(self.broker.usable_deployments(engine.clone()).await?);
        }
        let there: HashSet<&DeploymentId> = all.iter().map(|deployment| &deployment.id).collect();
        self.known().retain(|id, _| there.contains(id));
        stream::iter(&all)
            .for_each_concurrent(LOOKS_AT_ONCE, |deployment| async move {
                if let Err(error) = self.look_at(deployment).await {
                    log::warn!(deployment:% = deployment.id; "{}", chain(&error));
                }
            })
            .await;
        Ok(())
    }

    async fn look_at(&self, deployment: &Deployment) -> Result<(), BrokerError> {
        let Some(engine) = self.engines.get(&deployment.engine) else {
            return Ok(());
        };
        let is_safe = engine.profile().full_is_safe(deployment.version);
        let strangers = engine.profile().strangers_say_full(deployment.version);
        let is_closed = deployment.closed_since.is_some();
        // One that was not seen before may be full from long ago, however small it is now.
        let is_new = !self.known().contains_key(&deployment.id);
        let near = is_new || is_closed || strangers || self.is_near(deployment, engine).await;
        let pause = if is_safe {
            FULL_LOOK_INTERVAL
        } else {
            UNSAFE_LOOK_INTERVAL
        };
        if !near || !self.begins_look(deployment, pause) {
            return Ok(());
        }
        let Some(seen) = self.broker.look(deployment).await else {
            return Ok(());
        };
        let fullness = Fullness::of(&seen, deployment.quota_bytes(), is_safe, is_closed);
        match fullness.need() {
            None => self.relieved(deployment),
            Some(need) => {
                if self.begins_relief(deployment, need) {
                    self.broker.relieve_full(deployment).await?;
                }
            }
        }
        Ok(())
    }

    /// Whether a member's file is so large that its database may be near a limit. What cannot be
    /// looked at is no reason: its members are down, or it is being deleted.
    async fn is_near(&self, deployment: &Deployment, engine: &SharedEngine) -> bool {
        let Some(provisioner) = self.provisioners.get(&deployment.cluster) else {
            return false;
        };
        let files = engine.database_file();
        let limit = deployment.quota_bytes() / 100 * QUOTA_RELIEF_PERCENT;
        for member in &deployment.members {
            let seen = provisioner
                .files(&deployment.id, &member.name, files.folder)
                .await;
            let is_large = seen.is_ok_and(|seen| {
                seen.iter()
                    .any(|file| (files.has)(&file.name) && file.bytes + FILE_AHEAD_BYTES >= limit)
            });
            if is_large {
                return true;
            }
        }
        false
    }

    fn known(&self) -> MutexGuard<'_, HashMap<DeploymentId, Known>> {
        // Every change of the map is one call, so it is whole even after a panic.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the members may be asked now; if so, not again before `pause` is over.
    fn begins_look(&self, deployment: &Deployment, pause: Duration) -> bool {
        let now = Instant::now();
        let mut all = self.known();
        let known = all.entry(deployment.id.clone()).or_insert(Known {
            next_look: now,
            reliefs: 0,
            last_relief: None,
        });
        let begins = now >= known.next_look;
        if begins {
            known.next_look = now + pause;
        }
        begins
    }

    /// Whether something may be done now. To keep strangers out waits for nothing, and to let users
    /// in for nothing that was tried in vain before.
    fn begins_relief(&self, deployment: &Deployment, need: Need) -> bool {
        let now = Instant::now();
        let mut all = self.known();
        let Some(known) = all.get_mut(&deployment.id) else {
            return false;
        };
        let pause = match need {
            Need::Close => Duration::ZERO,
            Need::Open => RELIEF_RETRY_FIRST,
            Need::MakeRoom => backoff(known.reliefs, RELIEF_RETRY_FIRST, RELIEF_RETRY_MAX),
        };
        if known.last_relief.is_some_and(|last| now < last + pause) {
            return false;
        }
        known.reliefs += 1;
        known.last_relief = Some(now);
        true
    }

    fn relieved(&self, deployment: &Deployment) {
        if let Some(known) = self.known().get_mut(&deployment.id) {
            known.reliefs = 0;
        }
    }
}
