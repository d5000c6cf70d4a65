//! Claims operations and runs their steps.
//!
//! Invariants: a step runs only under a claim, and each of its writes is fenced by the claim's
//! epoch; no transaction stays open while a step runs; a step's try is written down before it and
//! its result after it, together with the beginning of the next one; a worker that hears nothing from the store for a lease's time stops. A
//! crash loses nothing: the worker that claims the operation next goes on after the last recorded step.
//! What fails in passing is tried again for as long as [`Patience`] says; in all but short pauses
//! its place is somebody else's.

use std::{
    collections::{HashMap, HashSet},
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::FutureExt as _;
use tokio::{sync::mpsc::UnboundedReceiver, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Definition, Ending, Meter, Outcome, Parts, Step, StepError, Work, definition,
    fault::{Fault, Faults, Moment},
};
use crate::{
    metrics::{Page, label},
    model::{
        breaker::Breaker,
        failure::chain,
        ids::{InstanceId, OperationId},
        limits::{CLAIM_INTERVAL, HISTORY_FORGOTTEN_AT_ONCE, HISTORY_KEPT, LEASE},
        operation::{Claim, HALTED, Operation, OperationState, Weight},
        patience::Patience,
    },
    store::{self, StoreError, queue::Look},
};

mod leases;
mod tries;

use leases::Leases;
use tries::{Beginning, TryEnd, Turn};

/// How often old history is looked for.
const HISTORY_INTERVAL: Duration = Duration::from_secs(3600);

/// Runs operations.
pub struct Runner {
    parts: Arc<Parts>,
    faults: Arc<dyn Faults>,
    patience: Patience,
    /// This process among others.
    owner: String,
    running: Mutex<HashMap<OperationId, Taken>>,
    leases: Leases,
    /// Of instances whose members were silent.
    breakers: Arc<Breakers>,
    /// From when on [`Breaker`]s count the time.
    begun: Instant,
}

type Breakers = Mutex<HashMap<InstanceId, Breaker>>;

/// A place that an operation has.
#[derive(Debug, Clone, Copy)]
struct Taken {
    weight: Weight,
    unasked: bool,
}

impl Taken {
    fn by(operation: &Operation) -> Self {
        Self {
            weight: operation.kind.weight(),
            unasked: operation.origin.is_unasked(),
        }
    }
}

/// How a run through a list of steps ended.
enum RunEnd {
    /// All steps are done.
    Through,
    /// To be gone on later; the claim was given back.
    Postponed,
    /// Failed for good.
    Failed(String),
    /// Told to stop.
    Halted,
    /// The claim is lost, or the worker "died": nothing more may be written.
    Lost,
}

/// The two lists of steps that an operation has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    CleanUp,
}

impl Direction {
    fn steps(self, definition: &'static Definition) -> &'static [Step] {
        match self {
            Self::Forward => definition.steps,
            Self::CleanUp => definition.cleanup,
        }
    }
}

/// Why a running step was broken off.
enum Interruption {
    Halted,
    Lost,
}

impl From<Interruption> for RunEnd {
    fn from(interruption: Interruption) -> Self {
        match interruption {
            Interruption::Halted => Self::Halted,
            Interruption::Lost => Self::Lost,
        }
    }
}

impl Runner {
    /// A runner that is so patient; `faults` decides about deliberate faults.
    pub fn new(parts: Arc<Parts>, faults: Arc<dyn Faults>, patience: Patience) -> Arc<Self> {
        let owner = uuid::Uuid::new_v4().to_string();
        let (breakers, begun) = (Arc::<Breakers>::default(), Instant::now());
        let told = breakers.clone();
        parts
            .metrics
            .add_source(move |page| count_breakers(&lock(&told), begun.elapsed(), page));
        Arc::new(Self {
            parts,
            faults,
            patience,
            owner,
            running: Mutex::default(),
            leases: Leases::new(),
            breakers,
            begun,
        })
    }

    /// Works until `stop`. Whatever runs then is let go of at once: it goes on after a restart, or
    /// on another replica.
    ///
    /// `serving` are instances whose members were seen to serve again: what waits for these is tried at once.
    pub async fn run(
        self: Arc<Self>,
        mut serving: UnboundedReceiver<InstanceId>,
        stop: CancellationToken,
    ) {
        let store = self.parts.store.clone();
        if let Err(error) = self.free_lost_claims().await {
            log_failure(&error, "cannot free the claims of an earlier process");
        }
        // How members answered an earlier process is not known any more.
        self.hasten(None).await;
        let mut workers = JoinSet::new();
        let mut keeping = JoinSet::new();
        let keeper = self.clone();
        keeping.spawn(async move { keeper.keep_leases().await });
        let mut changes = store.changes();
        let mut next_cleaning = Instant::now();
        while !stop.is_cancelled() {
            while workers.try_join_next().is_some() {}
            if Instant::now() >= next_cleaning {
                let is_more = self.forget_history().await;
                let pause = if is_more {
                    CLAIM_INTERVAL
                } else {
                    HISTORY_INTERVAL
                };
                next_cleaning = Instant::now() + pause;
            }
            changes.mark_unchanged();
            for (operation, claim) in self.claim().await {
                let runner = self.clone();
                workers.spawn(async move { runner.work(operation, claim).await });
            }
            tokio::select! {
                () = stop.cancelled() => {}
                _ = changes.changed() => {}
                Some(instance) = serving.recv() => {
                    self.breakers().remove(&instance);
                    self.hasten(Some(instance)).await;
                }
                _ = workers.join_next(), if !workers.is_empty() => {}
                () = tokio::time::sleep(CLAIM_INTERVAL) => {}
            }
        }
        workers.shutdown().await;
        let owner = self.owner.clone();
        let released = store
            .write(move |conn| store::claim::release(conn, Some(&owner)))
            .await;
        if let Err(error) = released {
            log_failure(&error, "cannot free this process's claims");
        }
    }

    /// Frees claims whose owner is gone: all of them where nobody else uses the store, else those on the
    /// clusters that this process looks after, since the broker before does nothing there any more.
    async fn free_lost_claims(&self) -> Result<(), StoreError> {
        let (store, clusters) = (&self.parts.store, self.parts.looked_after());
        let is_private = store.is_private();
        let free = store.write(move |conn| {
            if is_private {
                return store::claim::release(conn, None);
            }
            for cluster in &clusters {
                store::claim::release_on(conn, cluster)?;
            }
            Ok(())
        });
        free.await
    }

    /// Has what failed in passing tried at once: of one instance, or of all.
    async fn hasten(&self, instance: Option<InstanceId>) {
        let now = self.parts.clock.now();
        let hastened = self
            .parts
            .store
            .write(move |conn| store::operation::hasten(conn, instance.as_ref(), now))
            .await;
        if let Err(error) = hastened {
            log_failure(&error, "cannot have operations tried at once");
        }
    }

    /// Forgets some of what ended long ago; returns whether there may be more.
    async fn forget_history(&self) -> bool {
        match self.forget_some_history().await {
            Ok(is_more) => is_more,
            Err(error) => {
                log_failure(&error, "cannot remove old operations");
                false
            }
        }
    }

    async fn forget_some_history(&self) -> Result<bool, StoreError> {
        let Some(now) = self.parts.time.trusted() else {
            return Ok(false);
        };
        let (store, before) = (&self.parts.store, now.before(HISTORY_KEPT));
        // Looking takes longer than a writer should be kept waiting.
        let look = move |conn: &mut store::Conn<'_>| {
            store::operation::history(conn, before, HISTORY_FORGOTTEN_AT_ONCE)
        };
        let old = store.scan(look).await?;
        if old.is_empty() {
            return Ok(false);
        }
        store
            .write(move |conn| store::operation::forget(conn, &old))
            .await?;
        Ok(true)
    }

    async fn claim(&self) -> Vec<(Operation, Claim)> {
        let (busy_with, taken): (Vec<OperationId>, Vec<Taken>) = {
            let running = self.running();
            running
                .iter()
                .map(|(id, taken)| (id.clone(), *taken))
                .unzip()
        };
        let free = Weight::ALL.map(|weight| {
            let of_weight = || taken.iter().filter(|taken| taken.weight == weight);
            let asked = of_weight().filter(|taken| !taken.unasked).count();
            let places = weight.at_once().saturating_sub(of_weight().count());
            let for_asked = (weight.at_once() - weight.kept()).saturating_sub(asked);
            let shares = self.parts.limits.shares(weight);
            (weight.kinds(), places, for_asked, shares)
        });
        if free.iter().all(|(_, places, ..)| *places == 0) {
            return Vec::new();
        }
        let (owner, now) = (self.owner.clone(), self.parts.clock.now());
        let clusters = self.parts.looked_after();
        let claimed = self
            .parts
            .store
            .write(move |conn| {
                let now = store::time::of_store(conn, now)?;
                let mut claims = Vec::new();
                for (kinds, places, asked, shares) in &free {
                    let look = Look {
                        owner: &owner,
                        now,
                        lease_until: now + LEASE,
                        clusters: Some(&clusters),
                        kinds,
                        places: *places,
                        asked: *asked,
                        shares,
                        busy_with: &busy_with,
                    };
                    claims.extend(store::queue::claim(conn, &look)?);
                }
                Ok(claims)
            })
            .await;
        match claimed {
            Ok(claims) => {
                let begun = claims
                    .iter()
                    .map(|(operation, _)| (operation.id.clone(), Taken::by(operation)));
                self.running().extend(begun);
                claims
            }
            Err(error) => {
                log_failure(&error, "cannot look for work");
                Vec::new()
            }
        }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<OperationId, Taken>> {
        lock(&self.running)
    }

    async fn work(self: Arc<Self>, operation: Operation, claim: Claim) {
        let id = operation.id.clone();
        // Whatever happens in there, also a panic, the operation must become claimable again.
        let _done = Running { runner: &self, id };
        if let Err(error) = self.see_through(operation, &claim).await {
            if matches!(error, StoreError::Fenced) {
                self.parts.metrics.lease_lost();
            }
            log::error!(operation:% = claim.operation; "an operation was interrupted: {}", chain(&error));
        }
    }

    /// Takes an operation as far as it goes.
    async fn see_through(&self, operation: Operation, claim: &Claim) -> Result<(), StoreError> {
        let definition = definition(operation.kind);
        log::info!(
            operation:% = operation.id, kind:% = operation.kind, instance:% = operation.instance,
            epoch = operation.epoch;
            "working on it"
        );
        let failure = match &operation.failure {
            Some(failure) => failure.clone(),
            None => match self.go_forward(definition, &operation, claim).await? {
                Some(failure) => failure,
                None => return Ok(()),
            },
        };
        if operation.abandoned {
            let state = OperationState::Abandoned;
            self.fail(definition, &operation, claim, state, failure)
                .await?;
            return Ok(());
        }
        let (state, also) = match self
            .go(definition, Direction::CleanUp, &operation, claim)
            .await?
        {
            // What was to be deleted is there still, and there is no other way to clean it up.
            RunEnd::Through if operation.kind.deletes() => (OperationState::Stuck, None),
            RunEnd::Through => (OperationState::Failed, None),
            RunEnd::Failed(also) => (OperationState::Stuck, Some(also)),
            RunEnd::Postponed | RunEnd::Lost | RunEnd::Halted => return Ok(()),
        };
        let ended = self.fail(definition, &operation, claim, state, failure.clone());
        if ended.await? == OperationState::Stuck {
            let also = also.map_or_else(String::new, |also| {
                format!(", and cleaning up failed too ({also})")
            });
            log::error!(
                operation:% = operation.id, kind:% = operation.kind,
                instance:% = operation.instance;
                "stuck: it failed ({failure}){also}; an operator must look at it"
            );
        }
        Ok(())
    }

    /// Does what was asked for, as far as it goes now. Returns why it failed, which is written down;
    /// none: nothing failed.
    async fn go_forward(
        &self,
        definition: &'static Definition,
        operation: &Operation,
        claim: &Claim,
    ) -> Result<Option<String>, StoreError> {
        let end = if operation.halted {
            RunEnd::Halted
        } else {
            self.go(definition, Direction::Forward, operation, claim)
                .await?
        };
        let end = match end {
            // The deletion that halted it counts on that: what is being deleted must not become
            // usable once more.
            RunEnd::Through if !self.succeed(definition, operation, claim).await? => RunEnd::Halted,
            other => other,
        };
        let failure = match end {
            RunEnd::Through | RunEnd::Postponed | RunEnd::Lost => return Ok(None),
            RunEnd::Failed(failure) => failure,
            RunEnd::Halted => HALTED.to_owned(),
        };
        self.give_up(claim, &failure).await?;
        Ok(Some(failure))
    }

    async fn give_up(&self, claim: &Claim, failure: &str) -> Result<(), StoreError> {
        let (claim, failure) = (claim.clone(), failure.to_owned());
        self.parts
            .store
            .write(move |conn| store::claim::give_up(conn, &claim, &failure))
            .await
    }

    /// Ends an operation well, unless it was told to halt meanwhile; returns whether it did.
    async fn succeed(
        &self,
        definition: &'static Definition,
        operation: &Operation,
        claim: &Claim,
    ) -> Result<bool, StoreError> {
        let (claim, now, ended) = (claim.clone(), self.parts.clock.now(), operation.clone());
        let parts = self.parts.clone();
        let succeeded = self
            .parts
            .store
            .write(move |conn| {
                store::claim::fence(conn, &claim)?;
                if store::operation::get(conn, &claim.operation)?.halted {
                    return Ok(false);
                }
                store::claim::finish(conn, &claim, OperationState::Succeeded, now)?;
                let ending = Ending {
                    operation: &ended,
                    now,
                    parts: &parts,
                };
                (definition.succeed)(conn, &ending)?;
                store::step::forget_work(conn, &ended.id)?;
                Ok(true)
            })
            .await?;
        if succeeded {
            self.count_end(operation, OperationState::Succeeded);
            if operation.kind.touches_members() {
                self.breakers().remove(&operation.instance);
            }
            log::info!(operation:% = operation.id, kind:% = operation.kind; "succeeded");
        }
        Ok(succeeded)
    }

    /// Ends an operation that failed; returns the state in which it ended.
    async fn fail(
        &self,
        definition: &'static Definition,
        operation: &Operation,
        claim: &Claim,
        state: OperationState,
        failure: String,
    ) -> Result<OperationState, StoreError> {
        log::warn!(operation:% = operation.id, kind:% = operation.kind; "failed: {failure}");
        let (claim, now, ended) = (claim.clone(), self.parts.clock.now(), operation.clone());
        let parts = self.parts.clone();
        let written = self.parts.store.write(move |conn| {
            store::claim::fence(conn, &claim)?;
            let state = match state {
                // It may have been halted after it was claimed. The deletion that halted it removes what
                // it was to delete.
                OperationState::Stuck
                    if ended.kind.deletes()
                        && store::operation::get(conn, &claim.operation)?.halted =>
                {
                    OperationState::Failed
                }
                other => other,
            };
            store::claim::finish(conn, &claim, state, now)?;
            let ending = Ending {
                operation: &ended,
                now,
                parts: &parts,
            };
            (definition.fail)(conn, &ending, &failure)?;
            // The worker that goes on with what is stuck needs what was done.
            if state != OperationState::Stuck {
                store::step::forget_work(conn, &ended.id)?;
            }
            Ok::<_, StoreError>(state)
        });
        let state = written.await?;
        self.count_end(operation, state);
        Ok(state)
    }

    fn count_end(&self, operation: &Operation, state: OperationState) {
        let took = self.parts.clock.now() - operation.created_at;
        let took = took.to_std().unwrap_or_default();
        self.parts
            .metrics
            .operation_ended(operation.kind, state, took);
    }

    /// Goes through the steps of one direction, from the first that is not recorded.
    async fn go(
        &self,
        definition: &'static Definition,
        direction: Direction,
        operation: &Operation,
        claim: &Claim,
    ) -> Result<RunEnd, StoreError> {
        let steps = direction.steps(definition);
        let id = claim.operation.clone();
        let done = self
            .parts
            .store
            .read(move |conn| store::step::results(conn, &id))
            .await?;
        let (mut index, mut is_begun) = (0, false);
        let mut recorded: HashSet<&str> = steps
            .iter()
            .map(|s| s.name)
            .filter(|name| done.contains_key(*name))
            .collect();
        while let Some(step) = steps.get(index) {
            if recorded.contains(step.name) {
                index += 1;
                continue;
            }
            let mut later = steps.iter().enumerate().skip(index + 1);
            let next = later.find(|(_, step)| !recorded.contains(step.name));
            let turn = Turn {
                step,
                direction,
                index,
                is_begun: std::mem::take(&mut is_begun),
                next: next.map(|(index, step)| Beginning::of(step, direction, index, operation)),
            };
            match self.try_step(turn, operation, claim).await? {
                TryEnd::Done => {
                    recorded.insert(step.name);
                    is_begun = next.is_some();
                }
                TryEnd::Again => {}
                TryEnd::StartOver => {
                    recorded.clear();
                    index = 0;
                }
                TryEnd::Ended(run) => {
                    if matches!(run, RunEnd::Lost) {
                        self.parts.metrics.lease_lost();
                    }
                    return Ok(run);
                }
            }
        }
        Ok(RunEnd::Through)
    }

    /// Learns from a try of a step that members did not answer.
    fn heed_silence(&self, operation: &Operation, outcome: &Result<Outcome, StepError>) {
        let silent = matches!(outcome, Err(error) if error.is_silence());
        if !silent || !operation.kind.asks_members() {
            return;
        }
        let (instance, now) = (&operation.instance, self.begun.elapsed());
        let mut breakers = self.breakers();
        breakers.retain(|_, breaker| !breaker.is_old(now));
        let breaker = breakers.entry(instance.clone()).or_default();
        breaker.silent(now);
        if let Some(rest) = breaker.rest(now) {
            let seconds = rest.as_secs();
            log::warn!(instance:% = instance; "its members do not answer: left alone for {seconds} s");
        }
    }

    /// For how long the members of an instance are left alone.
    fn rest(&self, instance: &InstanceId) -> Option<Duration> {
        self.breakers().get(instance)?.rest(self.begun.elapsed())
    }

    fn breakers(&self) -> MutexGuard<'_, HashMap<InstanceId, Breaker>> {
        lock(&self.breakers)
    }

    /// Runs a step beside its heartbeat, with the faults that are asked for.
    async fn run_step(
        &self,
        step: &'static Step,
        operation: &Operation,
        claim: &Claim,
        heed_halt: bool,
    ) -> Result<Result<Outcome, StepError>, Interruption> {
        let lost = |died: Result<RunEnd, StoreError>| {
            if let Err(error) = died {
                log_failure(&error, "cannot free a claim");
            }
            Interruption::Lost
        };
        let mut panics = false;
        match self.faults.at(operation, step.name, Moment::Begun) {
            Some(Fault::Fail) => return Ok(Err(StepError::passing("a deliberate fault"))),
            Some(Fault::Silence) => return Ok(Err(StepError::silence("a deliberate silence"))),
            Some(Fault::FailForGood) => return Ok(Err(StepError::last("a deliberate fault"))),
            Some(Fault::Shortage) => return Ok(Err(StepError::shortage("a deliberate shortage"))),
            Some(Fault::Die) => return Err(lost(self.die(operation).await)),
            Some(Fault::Panic) => panics = true,
            Some(Fault::Repeat) | None => {}
        }
        loop {
            let meter = Arc::new(Meter::default());
            let work = Arc::new(Work {
                parts: self.parts.clone(),
                operation: operation.clone(),
                claim: claim.clone(),
                meter: meter.clone(),
            });
            let outcome = tokio::select! {
                outcome = run_safely(step, work, panics) => outcome,
                interruption = self.heartbeat(claim, &meter, heed_halt) => return Err(interruption),
            };
            match self.faults.at(operation, step.name, Moment::Done) {
                Some(Fault::Repeat) => {}
                Some(Fault::Die) => return Err(lost(self.die(operation).await)),
                Some(Fault::Fail) => return Ok(Err(StepError::passing("a deliberate fault"))),
                Some(Fault::FailForGood) => return Ok(Err(StepError::last("a deliberate fault"))),
                Some(Fault::Shortage) => {
                    return Ok(Err(StepError::shortage("a deliberate shortage")));
                }
                Some(Fault::Panic | Fault::Silence) | None => return Ok(outcome),
            }
        }
    }

    async fn die(&self, operation: &Operation) -> Result<RunEnd, StoreError> {
        let owner = self.owner.clone();
        log::warn!(operation:% = operation.id; "a deliberate death");
        self.parts
            .store
            .write(move |conn| store::claim::release(conn, Some(&owner)))
            .await?;
        Ok(RunEnd::Lost)
    }
}

/// Runs a step; a mistake of ours in it is a failure like any other, so it is counted and has an
/// end.
async fn run_safely(
    step: &'static Step,
    work: Arc<Work>,
    panics: bool,
) -> Result<Outcome, StepError> {
    let running = async {
        assert!(!panics, "a deliberate panic");
        (step.run)(work).await
    };
    // Nothing that the step shares with others is left half changed: the store and the
    // provisioner do their changes in threads of their own.
    AssertUnwindSafe(running)
        .catch_unwind()
        .await
        .unwrap_or_else(|_| Err(StepError::passing("the broker made a mistake")))
}

struct Running<'a> {
    runner: &'a Runner,
    id: OperationId,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.runner.running().remove(&self.id);
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change of what is in there is one call, so it is whole even after a panic.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells a scrape of breakers: open ones leave members alone, the others count their silences.
fn count_breakers(breakers: &HashMap<InstanceId, Breaker>, now: Duration, page: &mut Page) {
    let open = breakers
        .values()
        .filter(|breaker| breaker.rest(now).is_some());
    let open = open.count();
    let states = [("open", open), ("counting", breakers.len() - open)];
    page.gauges(
        "breakers",
        "Instances whose members did not answer: those left alone, and those that may be asked",
        states.map(|(state, count)| {
            let count = f64::from(u32::try_from(count).unwrap_or(u32::MAX));
            (vec![label("state", state)], count)
        }),
    );
}

fn log_step(
    step: &Step,
    operation: &Operation,
    message: &str,
    source: Option<&(dyn std::error::Error + Send + Sync + 'static)>,
) {
    let error = with_causes(message, source);
    log::warn!(
        operation:% = operation.id, kind:% = operation.kind, instance:% = operation.instance,
        step = step.name;
        "a step failed: {error}"
    );
}

/// Why a step failed, with all causes: the first of them may be what users are told already.
fn with_causes(
    message: &str,
    source: Option<&(dyn std::error::Error + Send + Sync + 'static)>,
) -> String {
    match source.map(|source| chain(source)) {
        None => message.to_owned(),
        Some(causes) if causes.starts_with(message) => causes,
        Some(causes) => format!("{message}: {causes}"),
    }
}

fn log_failure(error: &StoreError, what: &str) {
    log::error!("{what}: {}", chain(error));
}
