//! Looks at running deployments for whoever shows them.
//!
//! Invariants: no page waits for a member, however it fares: an answer is what was seen last, and a
//! question begins the next look. Only so many looks are under way, and only so many deployments
//! are remembered, whoever asks how often. What is seen is told; who decides by it,
//! [`broker::Observer`](crate::broker::Observer) says.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::future::BoxFuture;
use tokio::{
    runtime::Handle,
    sync::Semaphore,
    time::{Instant, timeout},
};

use crate::{
    broker::Observer,
    clock::Clock,
    engine::{EngineError, SharedEngine},
    model::{
        deployment::{Deployment, DeploymentSecrets},
        engine::Obstacle,
        failure::chain,
        ids::DeploymentId,
        limits::{
            LOOKS_AT_ONCE, OBSERVATION_FRESH, OBSERVATION_USABLE, OBSERVATIONS_REMEMBERED_MAX,
            PREFLIGHT_TIMEOUT, PREFLIGHTS_AT_ONCE,
        },
        observation::Observation,
        version::Version,
    },
    seal::{KeyRing, SealError},
    store::{self, Store, StoreError},
};

/// Looks at deployments through their engines, and remembers for a moment.
pub struct EngineObserver {
    looker: Arc<Looker>,
    runtime: Handle,
}

/// Why a look came to nothing.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error("the broker's store did not answer")]
    Store(#[from] StoreError),
    #[error("the broker cannot open its secrets")]
    Seal(#[from] SealError),
    #[error("the broker cannot read its secrets")]
    Unreadable(#[from] serde_json::Error),
    #[error("the members cannot be asked")]
    Engine(#[from] EngineError),
    #[error("this broker has no engine {0}")]
    UnknownEngine(String),
}

struct Looker {
    store: Arc<Store>,
    keys: Arc<KeyRing>,
    engines: BTreeMap<String, SharedEngine>,
    clock: Clock,
    places: Semaphore,
    /// Of those who ask for obstacles: they ask more, and must not hold up looks.
    preflights: Semaphore,
    seen: Mutex<HashMap<DeploymentId, Seen>>,
}

/// What is remembered of one deployment.
struct Seen {
    /// When the last look began or ended.
    at: Instant,
    looking: bool,
    observation: Option<Arc<Observation>>,
}

impl EngineObserver {
    /// An observer whose looks run on `runtime`.
    pub fn new(
        store: Arc<Store>,
        keys: Arc<KeyRing>,
        engines: BTreeMap<String, SharedEngine>,
        clock: Clock,
        runtime: Handle,
    ) -> Self {
        let looker = Arc::new(Looker {
            store,
            keys,
            engines,
            clock,
            places: Semaphore::new(LOOKS_AT_ONCE),
            preflights: Semaphore::new(PREFLIGHTS_AT_ONCE),
            seen: Mutex::default(),
        });
        Self { looker, runtime }
    }
}

impl Observer for EngineObserver {
    fn observe(&self, deployment: &Deployment) -> Option<Arc<Observation>> {
        let (last, look_again) = self.looker.recall(&deployment.id);
        if look_again {
            let (looker, deployment) = (self.looker.clone(), deployment.clone());
            self.runtime
                .spawn(async move { looker.look(deployment).await });
        }
        last
    }

    fn look(&self, deployment: &Deployment) -> BoxFuture<'static, Option<Arc<Observation>>> {
        let (looker, deployment) = (self.looker.clone(), deployment.clone());
        let looking = self
            .runtime
            .spawn(async move { looker.look_now(&deployment).await });
        Box::pin(async move { looking.await.ok()? })
    }

    fn alive(&self, deployment: &Deployment) -> BoxFuture<'static, Option<Vec<bool>>> {
        let (looker, deployment) = (self.looker.clone(), deployment.clone());
        let asking = self
            .runtime
            .spawn(async move { looker.alive_now(&deployment).await });
        Box::pin(async move { asking.await.ok()? })
    }

    fn obstacles(
        &self,
        deployment: &Deployment,
        to: Version,
    ) -> BoxFuture<'static, Option<Vec<Obstacle>>> {
        let (looker, deployment) = (self.looker.clone(), deployment.clone());
        let asking = self
            .runtime
            .spawn(async move { looker.obstacles_now(&deployment, to).await });
        Box::pin(async move { asking.await.ok()? })
    }
}

impl Looker {
    fn seen(&self) -> MutexGuard<'_, HashMap<DeploymentId, Seen>> {
        // Every change of the map is one call, so it is whole even after a panic.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was seen last, unless that is too long ago; and whether the caller must look now.
    fn recall(&self, id: &DeploymentId) -> (Option<Arc<Observation>>, bool) {
        let now = Instant::now();
        let mut seen = self.seen();
        if !seen.contains_key(id) {
            if seen.len() >= OBSERVATIONS_REMEMBERED_MAX {
                seen.retain(|_, s| s.looking || now - s.at < OBSERVATION_USABLE);
            }
            if seen.len() >= OBSERVATIONS_REMEMBERED_MAX {
                return (None, false);
            }
        }
        let first = !seen.contains_key(id);
        let entry = seen.entry(id.clone()).or_insert(Seen {
            at: now,
            looking: false,
            observation: None,
        });
        let age = now - entry.at;
        let look_again = !entry.looking && (first || age >= OBSERVATION_FRESH);
        let last = entry
            .observation
            .clone()
            .filter(|_| age < OBSERVATION_USABLE);
        if look_again {
            entry.looking = true;
        }
        (last, look_again)
    }

    async fn look(self: Arc<Self>, deployment: Deployment) {
        let looking = Looking {
            looker: &self,
            id: deployment.id.clone(),
        };
        if let Some(observation) = self.look_now(&deployment).await {
            looking.end(observation);
        }
    }

    async fn look_now(&self, deployment: &Deployment) -> Option<Arc<Observation>> {
        let _place = self.places.acquire().await.ok()?;
        match self.ask(deployment).await {
            Ok(observation) => Some(Arc::new(observation)),
            Err(error) => {
                log::warn!(deployment:% = deployment.id; "cannot look at it: {}", chain(&error));
                None
            }
        }
    }

    async fn alive_now(&self, deployment: &Deployment) -> Option<Vec<bool>> {
        let _place = self.places.acquire().await.ok()?;
        let asking = async {
            let Some((deployment, secrets)) = self.find(deployment).await? else {
                return Ok(Vec::new());
            };
            let engine = self.engine(&deployment)?;
            Ok::<_, LookError>(engine.alive(&deployment, &secrets).await?)
        };
        match asking.await {
            Ok(alive) => Some(alive),
            Err(error) => {
                log::warn!(deployment:% = deployment.id; "cannot look at it: {}", chain(&error));
                None
            }
        }
    }

    async fn obstacles_now(&self, deployment: &Deployment, to: Version) -> Option<Vec<Obstacle>> {
        let asking = async {
            let _place = self.preflights.acquire().await.ok()?;
            Some(self.ask_for_obstacles(deployment, to).await)
        };
        let Ok(asked) = timeout(PREFLIGHT_TIMEOUT, asking).await else {
            log::warn!(deployment:% = deployment.id; "its members were not asked in time");
            return None;
        };
        match asked? {
            Ok(obstacles) => Some(obstacles),
            Err(error) => {
                log::warn!(deployment:% = deployment.id; "cannot ask its members: {}", chain(&error));
                None
            }
        }
    }

    async fn ask_for_obstacles(
        &self,
        deployment: &Deployment,
        to: Version,
    ) -> Result<Vec<Obstacle>, LookError> {
        match self.find(deployment).await? {
            Some((deployment, secrets)) => {
                let engine = self.engine(&deployment)?;
                Ok(engine.obstacles(&deployment, &secrets, to).await?)
            }
            None => Ok(Vec::new()),
        }
    }

    /// A deployment as it is now, once its members are allocated.
    async fn find(
        &self,
        deployment: &Deployment,
    ) -> Result<Option<(Deployment, DeploymentSecrets)>, LookError> {
        let instance = deployment.instance.clone();
        let found = self
            .store
            .read(move |conn| store::deployment::of_instance(conn, &instance))
            .await?;
        let Some((deployment, Some(sealed))) = found else {
            return Ok(None);
        };
        let plain = self.keys.open(&deployment.seal_context(), &sealed)?;
        let secrets: DeploymentSecrets = serde_json::from_slice(&plain)?;
        Ok(Some((deployment, secrets)))
    }

    fn engine(&self, deployment: &Deployment) -> Result<&SharedEngine, LookError> {
        let engine = self.engines.get(&deployment.engine);
        engine.ok_or_else(|| LookError::UnknownEngine(deployment.engine.clone()))
    }

    async fn ask(&self, deployment: &Deployment) -> Result<Observation, LookError> {
        // As it is now: its members may have been allocated since it was asked for.
        let members = match self.find(deployment).await? {
            Some((deployment, secrets)) => {
                let engine = self.engine(&deployment)?;
                engine.observe(&deployment, &secrets).await?
            }
            None => Vec::new(),
        };
        Ok(Observation {
            members,
            observed_at: self.clock.now(),
        })
    }
}

/// A look that is under way; however it ends, the next one may begin.
struct Looking<'a> {
    looker: &'a Looker,
    id: DeploymentId,
}

impl Looking<'_> {
    fn end(self, observation: Arc<Observation>) {
        if let Some(seen) = self.looker.seen().get_mut(&self.id) {
            seen.observation = Some(observation);
            seen.at = Instant::now();
        }
    }
}

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        if let Some(seen) = self.looker.seen().get_mut(&self.id) {
            seen.looking = false;
        }
    }
}
