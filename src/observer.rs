//! Looks at running deployments, for pages, alerts and the guard.
//!
//! Invariants: no page waits for a member, in whatever state it is: an answer is what was seen last, and a
//! question begins the next look. Only so many looks are under way, and only so many deployments
//! are remembered, however often somebody asks. What any observer of the broker sees, all of them remember.
//! What is seen is told; who decides by it, [`broker::Observer`](crate::broker::Observer) says.

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
use tokio_util::sync::CancellationToken;

use crate::{
    broker::Observer,
    clock::Clock,
    engine::{EngineError, SharedEngine},
    model::{
        backup::SnapshotContent,
        deployment::{Deployment, DeploymentSecrets, Member, Site},
        engine::Obstacle,
        failure::chain,
        ids::DeploymentId,
        limits::{
            LOOKS_AT_ONCE, OBSERVATION_FRESH, OBSERVATION_KEPT, OBSERVATION_USABLE,
            OBSERVATIONS_REMEMBERED_MAX, PREFLIGHT_TIMEOUT, PREFLIGHTS_AT_ONCE, SURVEY_TIMEOUT,
        },
        observation::{Lasting, Observation},
        recovery::{DataLeft, Remains},
        version::Version,
    },
    provisioner::{Duty, ProvisionerError, SharedProvisioner, duty_of, files_of},
    seal::{KeyRing, SealError},
    store::{self, Conn, Store, StoreError},
};

/// Looks at deployments through their engines, and remembers for a moment.
pub struct EngineObserver {
    looker: Arc<Looker>,
    runtime: Handle,
    /// Ends looks that nobody waits for: they would go on behind a broker that has stopped.
    stop: CancellationToken,
}

impl Drop for EngineObserver {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Why a look came to nothing.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error("the broker's store did not answer")]
    Store(#[from] StoreError),
    #[error("the broker cannot open its secrets")]
    Seal(#[from] SealError),
    #[error("the members cannot be asked")]
    Engine(#[from] EngineError),
    #[error("this broker has no engine {0}")]
    UnknownEngine(String),
    #[error("this broker has no cluster {0}")]
    UnknownCluster(String),
    #[error("the cluster gave no answer")]
    Provisioner(#[from] ProvisionerError),
}

struct Looker {
    store: Arc<Store>,
    keys: Arc<KeyRing>,
    engines: BTreeMap<String, SharedEngine>,
    provisioners: BTreeMap<String, SharedProvisioner>,
    clock: Clock,
    places: Semaphore,
    /// Of those who ask for obstacles: they ask more, and must not hold up looks.
    preflights: Semaphore,
    memory: Arc<Memory>,
}

/// What all observers of a broker have seen.
#[derive(Debug, Default)]
pub struct Memory(Mutex<HashMap<DeploymentId, Seen>>);

/// What is remembered of one deployment.
#[derive(Debug)]
struct Seen {
    /// When the last look ended, or the first began.
    at: Instant,
    looking: bool,
    observation: Option<Arc<Observation>>,
    /// When the look began that told it: it is no younger than that.
    since: Instant,
}

impl EngineObserver {
    /// An observer whose looks run on `runtime`, and which remembers what others see that have the same
    /// memory.
    pub fn new(
        store: Arc<Store>,
        keys: Arc<KeyRing>,
        engines: BTreeMap<String, SharedEngine>,
        provisioners: BTreeMap<String, SharedProvisioner>,
        clock: Clock,
        memory: Arc<Memory>,
        runtime: Handle,
    ) -> Self {
        let looker = Arc::new(Looker {
            store,
            keys,
            engines,
            provisioners,
            clock,
            places: Semaphore::new(LOOKS_AT_ONCE),
            preflights: Semaphore::new(PREFLIGHTS_AT_ONCE),
            memory,
        });
        Self {
            looker,
            runtime,
            stop: CancellationToken::new(),
        }
    }
}

impl Observer for EngineObserver {
    fn observe(&self, deployment: &Deployment) -> Option<Arc<Observation>> {
        let (last, look_again) = self.looker.recall(&deployment.id);
        if look_again {
            let look = self.looker.clone().look(deployment.clone());
            let stop = self.stop.clone();
            self.runtime
                .spawn(async move { stop.run_until_cancelled(look).await });
        }
        last
    }

    fn seen(&self, deployment: &Deployment) -> Option<Arc<Observation>> {
        let seen = self.looker.memory.lock();
        let last = seen.get(&deployment.id)?;
        let observation = last.observation.clone()?;
        (last.at.elapsed() < OBSERVATION_KEPT).then_some(observation)
    }

    fn recent(&self, deployment: &Deployment) -> BoxFuture<'static, Option<Arc<Observation>>> {
        let (looker, deployment) = (self.looker.clone(), deployment.clone());
        let looking = self
            .runtime
            .spawn(async move { looker.recent(&deployment).await });
        Box::pin(async move { looking.await.ok()? })
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

    fn survey(&self, deployment: &Deployment) -> BoxFuture<'static, Option<Vec<Remains>>> {
        let (looker, deployment) = (self.looker.clone(), deployment.clone());
        let looking = self
            .runtime
            .spawn(async move { looker.survey_now(&deployment).await });
        Box::pin(async move { looking.await.ok()? })
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

    fn count_keys(&self, deployment: &Deployment, prefix: &str) -> BoxFuture<'static, Option<u64>> {
        let (looker, deployment) = (self.looker.clone(), deployment.clone());
        let prefix = prefix.to_owned();
        let asking = self.runtime.spawn(async move {
            let question = looker.ask_for_count(&deployment, &prefix);
            looker.ask_in_time(&deployment, question).await.flatten()
        });
        Box::pin(async move { asking.await.ok()? })
    }
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, HashMap<DeploymentId, Seen>> {
        // Every change of the map is one call, so it is whole even after a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for a deployment; returns whether it has a place.
    fn has_place(seen: &mut HashMap<DeploymentId, Seen>, id: &DeploymentId) -> bool {
        if !seen.contains_key(id) && seen.len() >= OBSERVATIONS_REMEMBERED_MAX {
            seen.retain(|_, s| s.looking || s.at.elapsed() < OBSERVATION_KEPT);
        }
        seen.contains_key(id) || seen.len() < OBSERVATIONS_REMEMBERED_MAX
    }
}

impl Looker {
    /// What was seen last, unless that is too long ago; and whether the caller must look now.
    fn recall(&self, id: &DeploymentId) -> (Option<Arc<Observation>>, bool) {
        let now = Instant::now();
        let mut seen = self.memory.lock();
        if !Memory::has_place(&mut seen, id) {
            return (None, false);
        }
        let first = !seen.contains_key(id);
        let entry = seen.entry(id.clone()).or_insert(Seen {
            at: now,
            looking: false,
            observation: None,
            since: now,
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

    /// What was seen by a look that began a moment ago, or by one that begins now. Others' looks
    /// that are under way may have asked before something happened.
    async fn recent(&self, deployment: &Deployment) -> Option<Arc<Observation>> {
        let since = Instant::now();
        let known = self.memory.lock().get(&deployment.id).and_then(|seen| {
            let is_fresh = since - seen.since < OBSERVATION_FRESH;
            seen.observation.clone().filter(|_| is_fresh)
        });
        if known.is_some() {
            return known;
        }
        self.look_now(deployment).await
    }

    /// Keeps what a look told that began at `since`, and logs what members that have fallen silent
    /// say of it. `lasting`: what the looks before it have shown. Returns it with what these tell.
    fn remember(
        &self,
        id: &DeploymentId,
        observation: Observation,
        lasting: Option<Lasting>,
        since: Instant,
    ) -> Arc<Observation> {
        let observation = Arc::new(match &lasting {
            Some(before) => observation.after(before),
            None => observation,
        });
        let mut all = self.memory.lock();
        if !Memory::has_place(&mut all, id) {
            return observation;
        }
        let seen = all.entry(id.clone()).or_insert(Seen {
            at: since,
            looking: false,
            observation: None,
            since,
        });
        // One that was overtaken is not what is so by now.
        if let Some(newer) = seen.observation.as_ref().filter(|_| seen.since > since) {
            return newer.clone();
        }
        let before = seen.observation.replace(observation.clone());
        (seen.at, seen.since) = (Instant::now(), since);
        drop(all);
        let was_silent = |name: &str| {
            let members = before.iter().flat_map(|before| &before.members);
            members
                .into_iter()
                .any(|m| m.name == name && m.silence().is_some())
        };
        for member in &observation.members {
            if let Some(silence) = member.silence().filter(|_| !was_silent(&member.name)) {
                log::warn!(
                    deployment:% = id, member = member.name.as_str();
                    "member {} does not answer: {}", member.name, silence.detail
                );
            }
        }
        observation
    }

    async fn look(self: Arc<Self>, deployment: Deployment) {
        let _looking = Looking {
            looker: &self,
            id: deployment.id.clone(),
        };
        self.look_now(&deployment).await;
    }

    async fn look_now(&self, deployment: &Deployment) -> Option<Arc<Observation>> {
        // Its members cannot be found from here.
        if duty_of(&self.provisioners, &deployment.cluster) == Duty::None {
            return None;
        }
        let _place = self.places.acquire().await.ok()?;
        let began = Instant::now();
        match self.look_from(deployment, began).await {
            Ok(observation) => Some(observation),
            Err(error) => {
                log::warn!(deployment:% = deployment.id; "cannot look at it: {}", chain(&error));
                None
            }
        }
    }

    async fn look_from(
        &self,
        deployment: &Deployment,
        began: Instant,
    ) -> Result<Arc<Observation>, LookError> {
        let observation = self.ask_until_sure(deployment).await?;
        let before = self.lasting(&deployment.id).await?;
        let seen = self.remember(&deployment.id, observation, before, began);
        let now = seen.lasting();
        if before != Some(now) {
            self.keep(&deployment.id, now).await;
        }
        Ok(seen)
    }

    /// Keeps what looks show from now on. What is seen is told all the same where the store takes no writes.
    async fn keep(&self, id: &DeploymentId, now: Lasting) {
        let of = id.clone();
        let note = move |conn: &mut Conn<'_>| store::observation::note(conn, &of, &now);
        if let Err(error) = self.store.write(note).await {
            log::warn!(deployment:% = id; "cannot keep since when it is as it is: {}", chain(&error));
        }
    }

    /// What the looks before have shown, of another broker or of one that has ended, too.
    async fn lasting(&self, id: &DeploymentId) -> Result<Option<Lasting>, StoreError> {
        let known = self.memory.lock().get(id).and_then(|seen| {
            let last = seen.observation.as_ref()?;
            Some(last.lasting())
        });
        if known.is_some() {
            return Ok(known);
        }
        let id = id.clone();
        let read = move |conn: &mut Conn<'_>| store::observation::of(conn, &id);
        self.store.read(read).await
    }

    async fn alive_now(&self, deployment: &Deployment) -> Option<Vec<bool>> {
        let _place = self.places.acquire().await.ok()?;
        let asking = async {
            let Some((deployment, secrets)) = self.find(deployment).await? else {
                return Ok(Vec::new());
            };
            let engine = self.engine(&deployment)?;
            Ok::<_, LookError>(engine.alive(Site::new(&deployment, &secrets)).await?)
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
        let question = self.ask_for_obstacles(deployment, to);
        self.ask_in_time(deployment, question).await
    }

    /// What members answer to a question that is asked before something is done to them; none when that
    /// comes to nothing.
    async fn ask_in_time<T>(
        &self,
        deployment: &Deployment,
        question: impl Future<Output = Result<T, LookError>>,
    ) -> Option<T> {
        let asking = async {
            let _place = self.preflights.acquire().await.ok()?;
            Some(question.await)
        };
        let Ok(asked) = timeout(PREFLIGHT_TIMEOUT, asking).await else {
            log::warn!(deployment:% = deployment.id; "its members were not asked in time");
            return None;
        };
        match asked? {
            Ok(answer) => Some(answer),
            Err(error) => {
                log::warn!(deployment:% = deployment.id; "cannot ask its members: {}", chain(&error));
                None
            }
        }
    }

    async fn survey_now(&self, deployment: &Deployment) -> Option<Vec<Remains>> {
        let _place = self.preflights.acquire().await.ok()?;
        match self.remains(deployment).await {
            Ok(remains) => Some(remains),
            Err(error) => {
                log::warn!(deployment:% = deployment.id; "cannot look at it: {}", chain(&error));
                None
            }
        }
    }

    async fn remains(&self, deployment: &Deployment) -> Result<Vec<Remains>, LookError> {
        let seen = self.ask(deployment).await?;
        let serving = seen.is_usable();
        let engine = self.engine(deployment)?;
        let provisioner = self
            .provisioners
            .get(&deployment.cluster)
            .ok_or_else(|| LookError::UnknownCluster(deployment.cluster.clone()))?;
        let mut remains = Vec::new();
        let members = deployment.members.iter().zip(&seen.members);
        for (place, (member, seen)) in members.enumerate() {
            let mut data = data_left(deployment, member, engine, provisioner).await?;
            if let Some(data) = data.as_mut().filter(|_| !serving) {
                let reading = engine.survey(deployment, place, provisioner.as_ref());
                match timeout(SURVEY_TIMEOUT, reading).await {
                    Ok(Ok(content)) => data.content = content,
                    Ok(Err(error)) => {
                        log::warn!(deployment:% = deployment.id, member = member.name.as_str();
                        "{}", chain(&error))
                    }
                    Err(_) => {
                        log::warn!(deployment:% = deployment.id, member = member.name.as_str();
                        "its data was not read in time")
                    }
                }
            }
            remains.push(Remains {
                member: member.name.clone(),
                serves: seen.serves(),
                data,
            });
        }
        Ok(remains)
    }

    async fn ask_for_obstacles(
        &self,
        deployment: &Deployment,
        to: Version,
    ) -> Result<Vec<Obstacle>, LookError> {
        match self.find(deployment).await? {
            Some((deployment, secrets)) => {
                let engine = self.engine(&deployment)?;
                Ok(engine
                    .obstacles(Site::new(&deployment, &secrets), to)
                    .await?)
            }
            None => Ok(Vec::new()),
        }
    }

    /// None where there are no members yet.
    async fn ask_for_count(
        &self,
        deployment: &Deployment,
        prefix: &str,
    ) -> Result<Option<u64>, LookError> {
        let Some((deployment, secrets)) = self.find(deployment).await? else {
            return Ok(None);
        };
        let engine = self.engine(&deployment)?;
        let count = engine.count_keys(Site::new(&deployment, &secrets), prefix);
        Ok(Some(count.await?))
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
        let secrets = self.keys.open_as(&deployment.seal_context(), &sealed)?;
        Ok(Some((deployment, secrets)))
    }

    fn engine(&self, deployment: &Deployment) -> Result<&SharedEngine, LookError> {
        let engine = self.engines.get(&deployment.engine);
        engine.ok_or_else(|| LookError::UnknownEngine(deployment.engine.clone()))
    }

    /// Asks once more where members do not serve that did at the look before: one answer that was lost, or late on a
    /// busy machine, makes no database Down.
    async fn ask_until_sure(&self, deployment: &Deployment) -> Result<Observation, LookError> {
        let first = self.ask(deployment).await?;
        let before = self.memory.lock().get(&deployment.id).and_then(|seen| {
            let is_recent = seen.at.elapsed() < OBSERVATION_KEPT;
            seen.observation.clone().filter(|_| is_recent)
        });
        match before {
            Some(before) if first.serving() < before.serving() => self.ask(deployment).await,
            _ => Ok(first),
        }
    }

    async fn ask(&self, deployment: &Deployment) -> Result<Observation, LookError> {
        // As it is now: its members may have been allocated since it was asked for.
        let engine = self.engine(deployment)?;
        let (members, is_closed) = match self.find(deployment).await? {
            Some((deployment, secrets)) => {
                let members = engine.observe(Site::new(&deployment, &secrets)).await?;
                (members, deployment.closed_since.is_some())
            }
            None => (Vec::new(), false),
        };
        let needed = engine.profile().members_needed;
        let seen = Observation::first(members, needed, self.clock.now());
        Ok(if is_closed { seen.closed() } else { seen })
    }
}

/// What a member still has on its disk; none when its database or the log of it is gone.
async fn data_left(
    deployment: &Deployment,
    member: &Member,
    engine: &SharedEngine,
    provisioner: &SharedProvisioner,
) -> Result<Option<DataLeft>, ProvisionerError> {
    let observed = provisioner.observe(&deployment.id).await?;
    let lost = observed
        .iter()
        .any(|m| m.member == member.name && m.has_lost_data);
    let wanted = engine.profile().database_file;
    let files = files_of(provisioner, &deployment.id, &member.name, &wanted).await?;
    let database = files.first();
    Ok(database.filter(|_| !lost).map(|file| DataLeft {
        content: SnapshotContent::default(),
        written_at: file.written_at,
    }))
}

/// A look that is under way; however it ends, the next one may begin.
struct Looking<'a> {
    looker: &'a Looker,
    id: DeploymentId,
}

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        if let Some(seen) = self.looker.memory.lock().get_mut(&self.id) {
            seen.looking = false;
        }
    }
}
