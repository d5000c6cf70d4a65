//! What comes after a try that came to nothing: the next one, in a moment or later, or the end of
//! the way.

use std::time::Duration;

use super::{Direction, Interruption, Runner, Tried, Way, log_step, with_causes};
use crate::{
    model::{
        failure::kept,
        limits::{PAUSE_AHEAD_MAX, PAUSE_IN_PLACE_MAX},
        operation::{Claim, Operation, OperationKind},
        patience::{Cause, Course, Trial, Verdict},
        trouble::{Moment, Trouble},
    },
    operation::{Meter, Step, definition},
    store::{self, Conn, StoreError, operation::FailedTry},
};

/// A try that came to nothing, and may do better the next time.
pub(super) struct Failure {
    pub(super) cause: Cause,
    /// The next try begins with the first step.
    pub(super) starts_over: bool,
    /// For people.
    pub(super) message: String,
    pub(super) source: Option<Box<dyn std::error::Error + Send + Sync>>,
    pub(super) took: Duration,
    /// For how long nobody asks the members of the instance for anything.
    pub(super) rest: Option<Duration>,
}

impl Failure {
    /// Of a try that was none: the members did not answer others, and are left alone.
    pub(super) fn unasked(rest: Duration) -> Self {
        Self {
            cause: Cause::Failure,
            starts_over: false,
            message: "the members do not answer; they are left alone for a while".to_owned(),
            source: None,
            took: Duration::ZERO,
            rest: Some(rest),
        }
    }
}

impl Runner {
    /// Counts a failure, and pauses before the next try, goes on later, or ends the way.
    pub(super) async fn after_failure(
        &self,
        step: &'static Step,
        direction: Direction,
        operation: &Operation,
        claim: &Claim,
        failure: Failure,
    ) -> Result<Tried, StoreError> {
        let (message, source) = (failure.message, failure.source.as_deref());
        log_step(step, operation, &message, source);
        let error = with_causes(&message, source);
        let heed_halt = direction == Direction::Forward;
        let names = direction.steps(definition(operation.kind)).iter();
        let names: Vec<&str> = names.map(|step| step.name).collect();
        let (patience, now) = (self.patience, self.parts.clock.now());
        let (cause, starts_over, took) = (failure.cause, failure.starts_over, failure.took);
        let rest = failure.rest.unwrap_or_default();
        let counted = claim.clone();
        let decided = self.parts.store.write(move |conn| {
            store::operation::fence(conn, &counted)?;
            let operation = store::operation::get(conn, &counted.operation)?;
            // Whoever halted it waits for no pause.
            if heed_halt && operation.halted {
                return Ok(None);
            }
            let course = course(conn, direction, &operation)?;
            let mut trials = store::operation::trials(conn, &counted.operation)?;
            let own = trials.entry(step.name.to_owned()).or_default();
            own.count(cause, took);
            let mut own = *own;
            let of_way = names.iter().filter_map(|name| trials.get(*name));
            let all = of_way.fold(Trial::default(), |all, trial| Trial {
                spent: all.spent + trial.spent,
                waited: all.waited + trial.waited,
                ..all
            });
            let verdict = match patience.verdict(course, cause, own, all) {
                // A deletion waits for its end.
                Verdict::Again(pause) if operation.halted => Verdict::Again(pause),
                Verdict::Again(pause) => Verdict::Again(pause.max(rest).min(PAUSE_AHEAD_MAX)),
                Verdict::GiveUp => Verdict::GiveUp,
            };
            if let Verdict::Again(pause) = verdict {
                own.took(cause, pause);
            }
            let before = operation.trouble;
            let trouble = Trouble {
                tries: before.as_ref().map_or(0, |trouble| trouble.tries) + 1,
                since: before.map_or(now, |trouble| trouble.since),
                reason: kept(&message),
            };
            let failed = FailedTry {
                step: step.name,
                trial: own,
                trouble: &trouble,
                error: &kept(&error),
                at: now,
            };
            store::operation::note_failure(conn, &counted, &failed)?;
            if starts_over && verdict != Verdict::GiveUp {
                store::operation::forget_results(conn, &counted)?;
            }
            if let Verdict::Again(pause) = verdict
                && pause > PAUSE_IN_PLACE_MAX
            {
                store::operation::postpone(conn, &counted, now + pause)?;
            }
            Ok(Some((verdict, trouble)))
        });
        let (verdict, trouble) = match decided.await {
            Err(StoreError::Fenced) => return Ok(Tried::Ended(Way::Lost)),
            Err(error) => return Err(error),
            Ok(None) => return Ok(Tried::Ended(Way::Halted)),
            Ok(Some(decided)) => decided,
        };
        let pause = match verdict {
            Verdict::GiveUp => {
                let failed = failed_for_good(step, &trouble);
                return Ok(Tried::Ended(Way::Failed(failed)));
            }
            Verdict::Again(pause) if pause > PAUSE_IN_PLACE_MAX => {
                return Ok(Tried::Ended(Way::Postponed));
            }
            Verdict::Again(pause) => pause,
        };
        let idle = Meter::default();
        tokio::select! {
            () = tokio::time::sleep(pause) => Ok(if starts_over {
                Tried::StartOver
            } else {
                Tried::Again
            }),
            interruption = self.heartbeat(claim, &idle, heed_halt) => {
                Ok(Tried::Ended(match interruption {
                    Interruption::Halted => Way::Halted,
                    Interruption::Lost => Way::Lost,
                }))
            }
        }
    }
}

/// What users are told of a step that is not tried any more.
fn failed_for_good(step: &Step, trouble: &Trouble) -> String {
    let Trouble {
        tries,
        since,
        reason,
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

/// How patient the way of an operation is to be.
fn course(
    conn: &mut Conn<'_>,
    direction: Direction,
    operation: &Operation,
) -> Result<Course, StoreError> {
    let (kind, halted) = (operation.kind, operation.halted);
    Ok(match direction {
        Direction::CleanUp => Course::CleanUp { halted },
        Direction::Forward => Course::Forward {
            kind,
            bytes: match (&operation.source, kind) {
                (Some(source), _) => source.manifest.stored.snapshot_bytes,
                (None, OperationKind::Backup) => {
                    store::deployment::of_instance(conn, &operation.instance)?
                        .map_or(0, |(deployment, _)| deployment.quota_bytes())
                }
                _ => 0,
            },
        },
    })
}
