//! Watches over the sizes of databases, and tells the broker of those that are full or about to be.
//!
//! A version that checks no rights while it is full must be closed before somebody finds out, so each
//! database is looked at every second: at the sizes of its files first, which costs next to nothing
//! and waits for no member, and at its members only where these are near a limit or where strangers
//! may say that it is full. What is done about it is an operation like others.
//!
//! At night it looks once at each of them for storage that its files have and do not use.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::NaiveDate;
use futures::future::join_all;
use tokio::{
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    broker::{BrokerError, Observer, Upkeep},
    engine::SharedEngine,
    model::{
        defragment::{Storage, night_turn},
        deployment::Deployment,
        failure::chain,
        full::{Fullness, Need},
        ids::DeploymentId,
        limits::{
            FILE_AHEAD_BYTES, FULL_LOOK_INTERVAL, GUARD_INTERVAL, NIGHT_LOOK_PAUSE,
            QUOTA_RELIEF_PERCENT, RELIEF_PAUSE, RELIEF_PAUSE_FAILED, RELIEF_PAUSE_NEAR,
            RELIEF_PAUSE_UNCHANGED, UNSAFE_LOOK_INTERVAL,
        },
    },
    provisioner::{FileSeen, SharedProvisioner, files_of_all},
};

/// Watches over the sizes of databases.
pub struct Guard {
    upkeep: Arc<Upkeep>,
    /// With looks of its own: those of pages and of clients must not hold it up.
    observer: Box<dyn Observer>,
    engines: BTreeMap<String, SharedEngine>,
    provisioners: BTreeMap<String, SharedProvisioner>,
    known: Mutex<HashMap<DeploymentId, Known>>,
    nights: Mutex<HashMap<DeploymentId, Night>>,
    /// The looks at members that go on. They end with the guard: one that waits for a member keeps
    /// the cluster open.
    looks: Mutex<JoinSet<()>>,
}

/// What is remembered of a database's turn at night.
#[derive(Debug, Clone, Copy)]
struct Night {
    /// The night, as the day that it belongs to.
    of: NaiveDate,
    /// When it is looked at again; none: its turn is over.
    next_look: Option<Instant>,
}

/// What is remembered of one database.
#[derive(Debug)]
struct Known {
    /// Its members are not asked before.
    next_look: Instant,
    /// The last time that they were asked, which may go on.
    look: Option<AbortHandle>,
    /// When something was done last, and what the database held then, as its count of changes.
    last_relief: Option<(Instant, Option<i64>)>,
}

impl Guard {
    /// A guard of all databases of this broker.
    pub fn new(
        upkeep: Arc<Upkeep>,
        observer: Box<dyn Observer>,
        engines: BTreeMap<String, SharedEngine>,
        provisioners: BTreeMap<String, SharedProvisioner>,
    ) -> Self {
        Self {
            upkeep,
            observer,
            engines,
            provisioners,
            known: Mutex::default(),
            nights: Mutex::default(),
            looks: Mutex::default(),
        }
    }

    /// Watches until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let this = Arc::new(self);
        let mut fails = false;
        while !stop.is_cancelled() {
            match this.look_at_all().await {
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
        let mut looks = std::mem::take(&mut *this.looks());
        looks.shutdown().await;
    }

    /// Looks at members beside the watch, which goes on.
    fn begin(&self, look: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let mut looks = self.looks();
        // Those that are over are forgotten.
        while looks.try_join_next().is_some() {}
        looks.spawn(look)
    }

    async fn look_at_all(self: &Arc<Self>) -> Result<(), BrokerError> {
        let looking = self.upkeep.look_at_each(|deployment| async move {
            self.take_turn(&deployment);
            if let Err(error) = self.look_at(&deployment).await {
                log::warn!(deployment:% = deployment.id; "{}", chain(&error));
            }
        });
        let there = looking.await?;
        self.known().retain(|id, _| there.contains(id));
        self.nights().retain(|id, _| there.contains(id));
        Ok(())
    }

    /// Looks at the files of one, and begins to look at its members if something is the matter.
    async fn look_at(self: &Arc<Self>, deployment: &Deployment) -> Result<(), BrokerError> {
        let Some(engine) = self.engines.get(&deployment.engine) else {
            return Ok(());
        };
        let is_safe = engine.profile().full_is_safe(deployment.version);
        let strangers = engine.profile().strangers_say_full(deployment.version);
        let is_closed = deployment.closed_since.is_some();
        let files = self.files(deployment, engine).await;
        let on_disk = files.iter().map(|file| file.bytes_on_disk).max();
        if !is_safe && !is_closed && on_disk.is_some_and(|b| b >= deployment.quota_bytes()) {
            return self.stop_and_close(deployment).await;
        }
        // One that was not seen before may be full from long ago, however small it is now.
        let is_new = !self.known().contains_key(&deployment.id);
        let near = is_new || is_closed || strangers || is_near(deployment, &files);
        let pause = if is_safe {
            FULL_LOOK_INTERVAL
        } else {
            UNSAFE_LOOK_INTERVAL
        };
        if near && self.begins_look(deployment, pause) {
            let (this, of) = (self.clone(), deployment.clone());
            let look = self.begin(async move {
                if let Err(error) = this.look_at_members(&of, is_safe).await {
                    log::warn!(deployment:% = of.id; "{}", chain(&error));
                }
            });
            if let Some(known) = self.known().get_mut(&deployment.id) {
                known.look = Some(look);
            }
        }
        Ok(())
    }

    /// Begins to look for unused storage when it is the deployment's turn to give it back.
    fn take_turn(self: &Arc<Self>, deployment: &Deployment) {
        let Some(night) = night_turn(&deployment.instance, self.upkeep.now()) else {
            return;
        };
        let now = Instant::now();
        let later = Night {
            of: night,
            next_look: Some(now + NIGHT_LOOK_PAUSE),
        };
        {
            let mut nights = self.nights();
            let known = nights.get(&deployment.id).filter(|known| known.of == night);
            if known.is_some_and(|known| known.next_look.is_none_or(|next| now < next)) {
                return;
            }
            nights.insert(deployment.id.clone(), later);
        }
        let (this, of) = (self.clone(), deployment.clone());
        self.begin(async move {
            match this.defragment(&of).await {
                Ok(false) => {}
                Ok(true) => {
                    let over = Night {
                        next_look: None,
                        ..later
                    };
                    this.nights().insert(of.id, over);
                }
                Err(error) => log::warn!(deployment:% = of.id; "{}", chain(&error)),
            }
        });
    }

    /// Has unused storage given back where that is worth it; returns whether the turn is over. While
    /// a member is down, or something else is being done, it is not.
    async fn defragment(&self, deployment: &Deployment) -> Result<bool, BrokerError> {
        let Some(seen) = self.observer.look(deployment).await else {
            return Ok(false);
        };
        if seen.serving() < seen.members.len() {
            return Ok(false);
        }
        if !self
            .upkeep
            .defragments_by_night(deployment, Storage::of(&seen))
        {
            return Ok(true);
        }
        self.upkeep.defragment_by_night(deployment).await
    }

    async fn look_at_members(
        &self,
        deployment: &Deployment,
        is_safe: bool,
    ) -> Result<(), BrokerError> {
        let Some(seen) = self.observer.look(deployment).await else {
            return Ok(());
        };
        let is_closed = deployment.closed_since.is_some();
        let fullness = Fullness::of(&seen, deployment.quota_bytes(), is_safe, is_closed);
        let Some(need) = fullness.need() else {
            return Ok(());
        };
        let failed = self.upkeep.last_relief_failed(deployment).await?;
        let pause = pause_before(need, &fullness, failed);
        let changes = seen.changes();
        if self.may_relieve(deployment, &pause, changes)
            && self.upkeep.relieve_full(deployment).await?
            && let Some(known) = self.known().get_mut(&deployment.id)
        {
            known.last_relief = Some((Instant::now(), changes));
        }
        Ok(())
    }

    /// Stops the members of a database that is beyond its quota, and has it closed. A tenant who fills it
    /// would slow down all that has to be written down before it is closed, and get through what is
    /// left.
    async fn stop_and_close(&self, deployment: &Deployment) -> Result<(), BrokerError> {
        // What was read before may be old: a relief that has closed it meanwhile has started its
        // members for itself.
        if !self.upkeep.is_open(deployment).await? {
            return Ok(());
        }
        if let Some(provisioner) = self.provisioners.get(&deployment.cluster) {
            let stop = |member| provisioner.stop(&deployment.id, member, Duration::ZERO);
            let members = deployment.members.iter();
            for stopped in join_all(members.map(|member| stop(&member.name))).await {
                if let Err(error) = stopped {
                    log::warn!(deployment:% = deployment.id; "{}", chain(&error));
                }
            }
        }
        self.upkeep.relieve_full(deployment).await?;
        Ok(())
    }

    /// The files of the members' databases.
    async fn files(&self, deployment: &Deployment, engine: &SharedEngine) -> Vec<FileSeen> {
        let Some(provisioner) = self.provisioners.get(&deployment.cluster) else {
            return Vec::new();
        };
        files_of_all(provisioner, deployment, &engine.profile().database_file).await
    }

    fn nights(&self) -> MutexGuard<'_, HashMap<DeploymentId, Night>> {
        self.nights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn looks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<DeploymentId, Known>> {
        // Every change of the map is one call, so it is whole even after a panic.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the members may be asked now; if so, not again before `pause` is over and that look
    /// has ended.
    fn begins_look(&self, deployment: &Deployment, pause: Duration) -> bool {
        let now = Instant::now();
        let mut all = self.known();
        let known = all.entry(deployment.id.clone()).or_insert(Known {
            next_look: now,
            look: None,
            last_relief: None,
        });
        let has_ended = known.look.as_ref().is_none_or(AbortHandle::is_finished);
        let begins = now >= known.next_look && has_ended;
        if begins {
            known.next_look = now + pause;
        }
        begins
    }

    /// Whether something may be done now: what was done last is long enough ago.
    fn may_relieve(&self, deployment: &Deployment, pause: &Pause, changes: Option<i64>) -> bool {
        let last = self.known().get(&deployment.id).and_then(|k| k.last_relief);
        last.is_none_or(|(last, before)| {
            let pause = if changes == before {
                pause.unchanged
            } else {
                pause.changed
            };
            last.elapsed() >= pause
        })
    }
}

/// How long nothing is done again.
struct Pause {
    /// While the content of the database is the same.
    unchanged: Duration,
    /// When it has changed: keys were deleted, or their time was over.
    changed: Duration,
}

/// To keep strangers out waits for nothing, and to let users in for nothing that was tried in vain
/// before. What `failed`, or has something to give back by now, is tried again soon.
fn pause_before(need: Need, fullness: &Fullness, failed: bool) -> Pause {
    let (unchanged, changed) = match need {
        Need::Close => (Duration::ZERO, Duration::ZERO),
        Need::Open => (RELIEF_PAUSE, RELIEF_PAUSE),
        Need::MakeRoom if !fullness.is_short() => (RELIEF_PAUSE_NEAR, RELIEF_PAUSE_NEAR),
        Need::MakeRoom if failed || fullness.tells_unused() => (RELIEF_PAUSE_FAILED, RELIEF_PAUSE),
        Need::MakeRoom => (RELIEF_PAUSE_UNCHANGED, RELIEF_PAUSE),
    };
    Pause { unchanged, changed }
}

/// Whether a member's file is so large that its database may be near a limit.
fn is_near(deployment: &Deployment, files: &[FileSeen]) -> bool {
    let limit = deployment.quota_bytes() / 100 * QUOTA_RELIEF_PERCENT;
    files
        .iter()
        .any(|file| file.bytes + FILE_AHEAD_BYTES >= limit)
}
