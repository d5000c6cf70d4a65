//! One try of a step, and what comes after one that came to nothing: the next one, in a moment or later,
//! or the end of the run.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::{Direction, RunEnd, Runner, log_step, with_causes};
use crate::{
    metrics::Tried,
    model::{
        failure::kept,
        ids::InstanceId,
        limits::{PAUSE_AHEAD_MAX, PAUSE_IN_PLACE_MAX},
        operation::{Claim, Operation, OperationKind, Progress},
        patience::{Cause, Course, Patience, Trial, Verdict},
        trouble::{Moment, Trouble},
    },
    operation::{Meter, Outcome, Step, StepError, definition, fault},
    store::{self, Conn, StoreError, step::FailedTry},
};

/// What came of one try of a step.
pub(super) enum TryEnd {
    /// Done and recorded.
    Done,
    /// To be tried again.
    Again,
    /// All steps are to be done anew.
    StartOver,
    /// The run through the steps ends here.
    Ended(RunEnd),
}

/// The claim is somebody else's by now.
const LOST: TryEnd = TryEnd::Ended(RunEnd::Lost);

/// A try that came to nothing, and may do better the next time.
struct Failure {
    cause: Cause,
    /// The next try begins with the first step.
    starts_over: bool,
    /// For people.
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    /// The members gave no answer.
    is_silent: bool,
    took: Duration,
    /// For how long nobody asks the members of the instance for anything.
    rest: Option<Duration>,
}

impl Failure {
    /// Of a try that was none: the members did not answer others, and are left alone.
    fn unasked(rest: Duration) -> Self {
        Self {
            cause: Cause::Failure,
            starts_over: false,
            message: "the members did not answer; the broker waits before it asks them again"
                .to_owned(),
            source: None,
            is_silent: true,
            took: Duration::ZERO,
            rest: Some(rest),
        }
    }
}

/// A step that is to be tried.
pub(super) struct Turn {
    pub(super) step: &'static Step,
    pub(super) direction: Direction,
    /// Its place among all of its direction.
    pub(super) index: usize,
    /// That it begins was written down with the record of the step before it.
    pub(super) is_begun: bool,
    /// What begins with its record.
    pub(super) next: Option<Beginning>,
}

/// What is written down when a step begins.
pub(super) struct Beginning {
    step: &'static str,
    progress: Progress,
    /// Of the first step: what its operation writes down beside.
    begun: Option<Operation>,
}

impl Beginning {
    /// Of the step at this place.
    pub(super) fn of(
        step: &'static Step,
        direction: Direction,
        index: usize,
        operation: &Operation,
    ) -> Self {
        let steps = direction.steps(definition(operation.kind)).len();
        let is_first = direction == Direction::Forward && index == 0;
        Self {
            step: step.name,
            progress: Progress {
                step: step.title.to_owned(),
                steps_done: u32::try_from(index).unwrap_or(u32::MAX),
                steps_total: u32::try_from(steps).unwrap_or(u32::MAX),
                ..Progress::default()
            },
            begun: is_first.then(|| operation.clone()),
        }
    }

    /// Writes it down; returns whether the operation was told to halt.
    fn write(
        &self,
        conn: &mut Conn<'_>,
        claim: &Claim,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let halted = store::step::begin(conn, claim, self.step, &self.progress, now)?;
        if let Some(operation) = &self.begun {
            (definition(operation.kind).begun)(conn, operation)?;
        }
        Ok(halted)
    }
}

impl Runner {
    /// One try of one step, up to its record.
    pub(super) async fn try_step(
        &self,
        turn: Turn,
        operation: &Operation,
        claim: &Claim,
    ) -> Result<TryEnd, StoreError> {
        let (step, direction) = (turn.step, turn.direction);
        let heed_halt = direction == Direction::Forward;
        let now = self.parts.clock.now();
        let Some(halted) = self.begin_step(&turn, operation, claim, now).await? else {
            return Ok(LOST);
        };
        // Told between two steps, when nobody listened.
        if halted && heed_halt {
            return Ok(TryEnd::Ended(RunEnd::Halted));
        }
        let asks = match direction {
            Direction::Forward => operation.kind.asks_members(),
            // A deletion waits for the end of what it halted.
            Direction::CleanUp => operation.kind.clean_up_asks_members() && !halted,
        };
        if asks && let Some(rest) = self.rest(&operation.instance) {
            return self
                .after_failure(step, direction, operation, claim, Failure::unasked(rest))
                .await;
        }
        let tried = Instant::now();
        let outcome = match self.run_step(step, operation, claim, heed_halt).await {
            Ok(outcome) => outcome,
            Err(interruption) => return Ok(TryEnd::Ended(interruption.into())),
        };
        self.heed_silence(operation, &outcome);
        let is_silent = matches!(&outcome, Err(error) if error.is_silence());
        if let Some(tried) = tried_so(&outcome) {
            self.parts.metrics.tried(operation.kind, tried);
        }
        let (cause, starts_over, message, source) = match outcome {
            Ok(Outcome::Done(result)) => return self.record(turn, operation, claim, result).await,
            Ok(Outcome::Again) => return self.gets_on(claim).await,
            Ok(Outcome::Later(pause)) => {
                return self.postpone(claim, pause.min(PAUSE_AHEAD_MAX)).await;
            }
            Err(StepError::Fenced) => return Ok(LOST),
            Err(StepError::Last { message, source }) => {
                log_step(step, operation, &message, source.as_deref());
                let failed = format!("{} failed: {message}", step.title);
                return Ok(TryEnd::Ended(RunEnd::Failed(failed)));
            }
            Ok(Outcome::StartOver(message)) => (Cause::Failure, true, message, None),
            Err(StepError::Passing { message, source }) => (Cause::Failure, false, message, source),
            Err(StepError::Shortage { message, source }) => {
                (Cause::Shortage, false, message, source)
            }
        };
        let failure = Failure {
            cause,
            starts_over,
            message,
            source,
            is_silent,
            took: tried.elapsed(),
            rest: self.rest(&operation.instance).filter(|_| asks),
        };
        self.after_failure(step, direction, operation, claim, failure)
            .await
    }

    /// Writes down that a step begins, unless that is written down already; tells whether the operation was
    /// halted. None: the claim is lost.
    async fn begin_step(
        &self,
        turn: &Turn,
        operation: &Operation,
        claim: &Claim,
        now: DateTime<Utc>,
    ) -> Result<Option<bool>, StoreError> {
        if turn.is_begun {
            return Ok(Some(self.was_halted(&claim.operation).await));
        }
        let beginning = Beginning::of(turn.step, turn.direction, turn.index, operation);
        let claim = claim.clone();
        unless_lost(
            self.parts
                .store
                .write(move |conn| beginning.write(conn, &claim, now))
                .await,
        )
    }

    /// Writes down that a step is done, what came of it, and that the next one begins: nothing happens
    /// between these two that a crash could tell apart.
    async fn record(
        &self,
        Turn { step, next, .. }: Turn,
        operation: &Operation,
        claim: &Claim,
        result: serde_json::Value,
    ) -> Result<TryEnd, StoreError> {
        let (claim, now) = (claim.clone(), self.parts.clock.now());
        let store = &self.parts.store;
        let recorded = store
            .write(move |conn| {
                store::step::record(conn, &claim, step.name, &result, now)?;
                if let Some(next) = &next {
                    next.write(conn, &claim, now)?;
                }
                Ok(())
            })
            .await;
        if unless_lost(recorded)?.is_none() {
            return Ok(LOST);
        }
        match self
            .faults
            .at(operation, step.name, fault::Moment::Recorded)
        {
            Some(fault::Fault::Die) => Ok(TryEnd::Ended(self.die(operation).await?)),
            _ => Ok(TryEnd::Done),
        }
    }

    /// Forgets the trouble of a step that gets on, and is to be tried again.
    async fn gets_on(&self, claim: &Claim) -> Result<TryEnd, StoreError> {
        let claim = claim.clone();
        let store = &self.parts.store;
        let forgotten = store.write(move |conn| store::claim::set_trouble(conn, &claim, None));
        Ok(unless_lost(forgotten.await)?.map_or(LOST, |()| TryEnd::Again))
    }

    /// Gives the claim back, not to be taken again before so much time has passed.
    async fn postpone(&self, claim: &Claim, pause: Duration) -> Result<TryEnd, StoreError> {
        let (claim, now) = (claim.clone(), self.parts.clock.now());
        let store = &self.parts.store;
        let postponed = store.write(move |conn| store::claim::postpone(conn, &claim, now, pause));
        Ok(unless_lost(postponed.await)?.map_or(LOST, |()| TryEnd::Ended(RunEnd::Postponed)))
    }

    /// Counts a failure, and pauses before the next try, goes on later, or ends the run.
    async fn after_failure(
        &self,
        step: &'static Step,
        direction: Direction,
        operation: &Operation,
        claim: &Claim,
        failure: Failure,
    ) -> Result<TryEnd, StoreError> {
        log_step(step, operation, &failure.message, failure.source.as_deref());
        let heed_halt = direction == Direction::Forward;
        let starts_over = failure.starts_over;
        let names = direction.steps(definition(operation.kind)).iter();
        let count = Count {
            claim: claim.clone(),
            step: step.name,
            steps: names.map(|step| step.name).collect(),
            direction,
            patience: self.patience,
            now: self.parts.clock.now(),
            failure,
        };
        let counted = self.parts.store.write(move |conn| count.write(conn));
        let (verdict, trouble) = match unless_lost(counted.await)? {
            None => return Ok(LOST),
            Some(None) => return Ok(TryEnd::Ended(RunEnd::Halted)),
            Some(Some(counted)) => counted,
        };
        let pause = match verdict {
            Verdict::GiveUp => {
                let failed = failed_for_good(step, &trouble);
                return Ok(TryEnd::Ended(RunEnd::Failed(failed)));
            }
            Verdict::Again(pause) if pause > PAUSE_IN_PLACE_MAX => {
                return Ok(TryEnd::Ended(RunEnd::Postponed));
            }
            Verdict::Again(pause) => pause,
        };
        let idle = Meter::default();
        tokio::select! {
            () = tokio::time::sleep(pause) => Ok(if starts_over {
                TryEnd::StartOver
            } else {
                TryEnd::Again
            }),
            interruption = self.heartbeat(claim, &idle, heed_halt) => {
                Ok(TryEnd::Ended(interruption.into()))
            }
        }
    }
}

/// What came of a try; nothing of one whose claim is lost.
fn tried_so(outcome: &Result<Outcome, StepError>) -> Option<Tried> {
    Some(match outcome {
        Ok(Outcome::Done(_)) => Tried::Done,
        Ok(Outcome::Again | Outcome::Later(_)) => Tried::Again,
        Ok(Outcome::StartOver(_)) => Tried::Failed,
        Err(StepError::Fenced) => return None,
        Err(StepError::Last { .. }) => Tried::Refused,
        Err(StepError::Shortage { .. }) => Tried::Short,
        Err(error) if error.is_silence() => Tried::Silent,
        Err(StepError::Passing { .. }) => Tried::Failed,
    })
}

/// None: the claim is lost.
fn unless_lost<T>(written: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match written {
        Ok(value) => Ok(Some(value)),
        Err(StoreError::Fenced) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A failure that is to be counted.
struct Count {
    claim: Claim,
    step: &'static str,
    /// The names of all steps in the same direction.
    steps: Vec<&'static str>,
    direction: Direction,
    patience: Patience,
    now: DateTime<Utc>,
    failure: Failure,
}

impl Count {
    /// Writes the failure down, and what follows of it; tells that, and the trouble so far. None: the
    /// operation was halted, which waits for no pause.
    fn write(&self, conn: &mut Conn<'_>) -> Result<Option<(Verdict, Trouble)>, StoreError> {
        store::claim::fence(conn, &self.claim)?;
        let operation = store::operation::get(conn, &self.claim.operation)?;
        if self.direction == Direction::Forward && operation.halted {
            return Ok(None);
        }
        let (verdict, trial, left) = self.verdict(conn, &operation)?;
        let message = kept(&self.failure.message);
        let before = operation.trouble;
        let trouble = Trouble {
            tries: before.as_ref().map_or(0, |trouble| trouble.tries) + 1,
            since: before.map_or(self.now, |trouble| trouble.since),
            reason: message,
            next: match verdict {
                Verdict::Again(pause) => Some(self.now + pause),
                Verdict::GiveUp => None,
            },
            until: match verdict {
                Verdict::Again(pause)
                    if operation.kind == OperationKind::FinalBackup
                        && self.direction == Direction::Forward =>
                {
                    Some(self.now + pause.max(left))
                }
                _ => None,
            },
        };
        let error = with_causes(&self.failure.message, self.failure.source.as_deref());
        let failed = FailedTry {
            step: self.step,
            trial,
            trouble: &trouble,
            error: &kept(&error),
            at: self.now,
        };
        store::step::note_failure(conn, &self.claim, &failed)?;
        if self.failure.starts_over && verdict != Verdict::GiveUp {
            store::step::forget_results(conn, &self.claim)?;
        }
        if let Verdict::Again(pause) = verdict
            && pause > PAUSE_IN_PLACE_MAX
        {
            store::claim::postpone(conn, &self.claim, self.now, pause)?;
        }
        Ok(Some((verdict, trouble)))
    }

    /// What follows, the trials of the step with this one, and what time is left for more.
    fn verdict(
        &self,
        conn: &mut Conn<'_>,
        operation: &Operation,
    ) -> Result<(Verdict, Trial, Duration), StoreError> {
        let (cause, rest) = (self.failure.cause, self.failure.rest.unwrap_or_default());
        let course = course(conn, self.direction, operation, self.failure.is_silent)?;
        let mut trials = store::step::trials(conn, &self.claim.operation)?;
        let own = trials.entry(self.step.to_owned()).or_default();
        own.count(cause, self.failure.took);
        let mut own = *own;
        let of_steps = self.steps.iter().filter_map(|name| trials.get(*name));
        let all = of_steps.fold(Trial::default(), |all, trial| Trial {
            spent: all.spent + trial.spent,
            waited: all.waited + trial.waited,
            ..all
        });
        let verdict = match self.patience.verdict(course, cause, own, all) {
            // A deletion waits for its end.
            Verdict::Again(pause) if operation.halted => Verdict::Again(pause),
            Verdict::Again(pause) => Verdict::Again(pause.max(rest).min(PAUSE_AHEAD_MAX)),
            Verdict::GiveUp => Verdict::GiveUp,
        };
        if let Verdict::Again(pause) = verdict {
            own.took(cause, pause);
        }
        Ok((verdict, own, self.patience.left(course, all)))
    }
}

/// What users are told of a step that is not tried any more.
fn failed_for_good(step: &Step, trouble: &Trouble) -> String {
    let Trouble {
        tries,
        since,
        reason,
        ..
    } = trouble;
    if *tries == 1 {
        return format!("{} failed: {reason}", step.title);
    }
    let since = Moment(*since);
    format!(
        "{} failed {tries} times since {since}: {reason}",
        step.title
    )
}

/// How patient a run through the steps of an operation is to be. Members that give no answer send no bytes, so
/// the size of what they hold asks for no patience.
fn course(
    conn: &mut Conn<'_>,
    direction: Direction,
    operation: &Operation,
    is_silent: bool,
) -> Result<Course, StoreError> {
    let (kind, halted) = (operation.kind, operation.halted);
    Ok(match direction {
        Direction::CleanUp => Course::CleanUp { halted },
        Direction::Forward => Course::Forward {
            kind,
            bytes: match (&operation.source, kind) {
                (Some(source), _) => source.manifest.stored.snapshot_bytes,
                (None, kind) if kind.takes_backup() && !is_silent => {
                    size_seen(conn, &operation.instance)?
                }
                _ => 0,
            },
        },
    })
}

/// How large a database was when it was seen last, in bytes; what it may have, where nobody has seen it.
fn size_seen(conn: &mut Conn<'_>, instance: &InstanceId) -> Result<u64, StoreError> {
    let Some((deployment, _)) = store::deployment::of_instance(conn, instance)? else {
        return Ok(0);
    };
    let history = store::reading::of(conn, &deployment.id)?;
    let seen = history.readings().iter().rev().find_map(|of| of.allocated);
    Ok(seen.unwrap_or_else(|| deployment.quota_bytes()))
}
