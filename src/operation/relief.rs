//! Makes room in a database that is full or about to be.
//!
//! A version that checks no rights while it is full is closed first: from then on its members let in
//! only the broker. It is opened again when there is room, after the users were compared with those
//! that the broker made. When nothing can be given back it stays as it is, and its alerts say what
//! its users can do.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio::time::{Instant, sleep};

use super::{Definition, Ending, OpenDeployment, Outcome, Step, StepError, Work, members, sizes};
use crate::{
    engine::Relief,
    model::{
        deployment::{Access, Deployment},
        full::Need,
        limits::{FORGETTING_LOOK, FORGETTING_SPREADS},
        origin::Origin,
        trouble::Moment,
    },
    store::{self, Conn, StoreError},
};

/// What is written down of a database that was full before it was closed.
const WAS_FULL: &str = "The database was full, and its version checks no rights then: clients that reached it may \
                        have deleted keys, until it was closed a moment later.";

/// Relief.
pub const DEFINITION: Definition = Definition {
    steps: &[
        Step {
            name: "close",
            title: "Closing the database while room is made",
            run: |w| Box::pin(close(w)),
        },
        Step {
            name: "delete_keys",
            title: "Deleting keys",
            run: |w| Box::pin(delete_keys(w)),
        },
        Step {
            name: "forget_history",
            title: "Forgetting the history",
            run: |w| Box::pin(forget_history(w)),
        },
        Step {
            name: "give_back",
            title: "Giving unused storage back",
            run: |w| Box::pin(give_back(w)),
        },
        Step {
            name: "open",
            title: "Looking whether there is room again",
            run: |w| Box::pin(open(w)),
        },
    ],
    begun: |_, _| Ok(()),
    // Each step leaves the database whole; one that is closed stays closed.
    cleanup: &[],
    succeed: |_, _| Ok(()),
    fail: |_: &mut Conn<'_>, _: &Ending<'_>, _| Ok(()),
};

/// Closes a database that may not stay open, and makes its members run as they should: one that an
/// earlier broker started may have less room between its quota and its own limit.
async fn close(work: Arc<Work>) -> Result<Outcome, StepError> {
    let opened = work.opened().await?;
    if opened.deployment.closed_since.is_some() {
        // A worker that died may have decided so and not done it any more.
        members::start(&opened).await?;
        members::await_ready(&work, &opened).await?;
    } else if !close_if_unsafe(&work, &opened).await? {
        members::start_as_decided(&work, &opened).await?;
    }
    Outcome::done()
}

/// The deployment as it is now, closed if it must be: it may have filled up since the last step.
async fn guarded(work: &Work) -> Result<OpenDeployment, StepError> {
    let opened = work.opened().await?;
    if close_if_unsafe(work, &opened).await? {
        return work.opened().await;
    }
    Ok(opened)
}

/// Closes a deployment that is full and checks no rights while it is; returns whether it was so. The
/// members are killed: anybody may do anything to them. Also for operations that work on its members.
pub async fn close_if_unsafe(work: &Work, opened: &OpenDeployment) -> Result<bool, StepError> {
    let is_safe = opened.profile().full_is_safe(opened.deployment.version);
    if is_safe || opened.deployment.closed_since.is_some() {
        return Ok(false);
    }
    // Members may be too busy to answer, or stopped so that nobody can write any more.
    let must_close = sizes::bytes_on_disk(opened).await? >= opened.deployment.quota_bytes()
        || members::are_stopped(opened).await?
        || sizes::fullness(work, opened).await?.need() == Some(Need::Close);
    if !must_close {
        return Ok(false);
    }
    log::warn!(deployment:% = opened.deployment.id; "it is full, or none of its members runs: it is closed to its users");
    set_closed(work, &opened.deployment, true).await?;
    members::start_anew(work, Access::Certificates).await?;
    if sizes::fullness(work, &work.opened().await?).await?.is_full {
        members::record_incident(work, &opened.deployment, WAS_FULL.to_owned()).await?;
    }
    Ok(true)
}

async fn set_closed(work: &Work, deployment: &Deployment, closed: bool) -> Result<(), StepError> {
    let (id, now) = (deployment.id.clone(), work.parts.clock.now());
    let since = closed.then_some(now);
    work.write(move |conn| -> Result<(), StoreError> {
        store::deployment::set_closed(conn, &id, since)
    })
    .await
}

async fn delete_keys(work: Arc<Work>) -> Result<Outcome, StepError> {
    let Some(prefix) = &work.operation.delete_prefix else {
        return Outcome::done();
    };
    let opened = guarded(&work).await?;
    let relief = Relief::DeleteKeys(prefix);
    Outcome::with(&opened.engine.relieve(opened.site(), relief).await?)
}

async fn forget_history(work: Arc<Work>) -> Result<Outcome, StepError> {
    let opened = guarded(&work).await?;
    // Watches count on it; the user who asks for room knows.
    let is_asked_for = work.operation.origin != Origin::Guard;
    let fullness = sizes::fullness(&work, &opened).await?;
    if is_asked_for || fullness.is_short() {
        let relief = Relief::ForgetHistory;
        opened.engine.relieve(opened.site(), relief).await?;
    }
    Outcome::done()
}

async fn give_back(work: Arc<Work>) -> Result<Outcome, StepError> {
    let opened = guarded(&work).await?;
    let is_asked_for = work.operation.origin != Origin::Guard;
    // The member that was asked has forgotten its history; the others still do. Some never tell: they
    // count what they forgot as unused with their next write, and a full database takes none. So one that
    // is of no use as it is gives back what it may have.
    let until = Instant::now() + FORGETTING_SPREADS;
    let mut fullness = sizes::fullness(&work, &opened).await?;
    while !is_asked_for && fullness.is_short() && !fullness.wants_room() && Instant::now() < until {
        sleep(FORGETTING_LOOK).await;
        fullness = sizes::fullness(&work, &opened).await?;
    }
    if is_asked_for || fullness.wants_room() || fullness.is_short() {
        let relief = Relief::GiveBack;
        opened.engine.relieve(opened.site(), relief).await?;
    }
    Outcome::done()
}

async fn open(work: Arc<Work>) -> Result<Outcome, StepError> {
    // A worker that died may have decided to open it and not got to it any more.
    let opened = work.opened().await?;
    members::start(&opened).await?;
    members::await_ready(&work, &opened).await?;
    let opened = guarded(&work).await?;
    let fullness = sizes::fullness(&work, &opened).await?;
    let closed_since = opened.deployment.closed_since;
    if closed_since.is_some() {
        // Nobody can undo it, and a client that was in before it was closed may have left something.
        members::restore_users(&work, &opened).await?;
    }
    if fullness.need() != Some(Need::Open) {
        return Outcome::done();
    }
    if fullness.has_room() {
        let relief = Relief::ClearAlarms;
        opened.engine.relieve(opened.site(), relief).await?;
    }
    if let Some(since) = closed_since {
        log::info!(deployment:% = opened.deployment.id; "there is room again, and it is opened to its users");
        let text = was_closed(&work, &opened.deployment, since).await?;
        members::record_incident(&work, &opened.deployment, text).await?;
        set_closed(&work, &opened.deployment, false).await?;
        members::start_anew(&work, Access::Passwords).await?;
    }
    Outcome::done()
}

/// What is told of a database that is opened now and was closed since `since`.
async fn was_closed(
    work: &Work,
    deployment: &Deployment,
    since: DateTime<Utc>,
) -> Result<String, StepError> {
    let (id, now) = (deployment.id.clone(), work.parts.clock.now());
    let befell = work.read(move |conn| store::incident::since(conn, &id, since));
    let was_full = befell.await?.iter().any(|of| of.message == WAS_FULL);
    Ok(told_of_closing(since, now, was_full))
}

fn told_of_closing(since: DateTime<Utc>, until: DateTime<Utc>, was_full: bool) -> String {
    let why = if was_full {
        "it was full"
    } else {
        "it was full or none of its members ran"
    };
    let (since, until) = (Moment(since), Moment(until));
    format!("It was closed to its users from {since} to {until}, because {why}.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closing_is_told_with_both_times_and_its_reason() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().expect("a moment");
        let (since, until) = (at("2026-11-30T18:22:14Z"), at("2026-11-30T18:32:19Z"));
        let times = "It was closed to its users from 2026-11-30 18:22:14 UTC to 2026-11-30 18:32:19 UTC, because ";
        for (was_full, why) in [
            (true, "it was full."),
            (false, "it was full or none of its members ran."),
        ] {
            let told = told_of_closing(since, until, was_full);
            assert_eq!(told, format!("{times}{why}"));
        }
    }
}
