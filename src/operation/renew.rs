//! Renews the certificates of a deployment, member by member, while it serves.
//!
//! What is new is written down before a member runs with it, and nothing further is made before all
//! members run with what was made last: so the next authority issues nothing before all trust it. A
//! member is started anew only while all others serve, the leader last.

use std::{collections::HashSet, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use tokio::time::{Instant, sleep};

use super::{
    Definition, Ending, OpenDeployment, Outcome, Step, StepError, Work, members, relief, update,
};
use crate::{
    engine::Issue,
    model::{
        deployment::{Deployment, Member},
        limits::{AGREEMENT_POLL, CHANGE_WAIT},
        renewal::Renewal,
        trust::Trusted,
    },
    store::{self, Conn},
};

/// Renewal.
pub const DEFINITION: Definition = Definition {
    steps: &[
        Step {
            name: "renew",
            title: "Renewing the certificates, member by member",
            run: |w| Box::pin(renew(w)),
        },
        Step {
            name: "note",
            title: "Writing down when the next ones are due",
            run: |w| Box::pin(note(w)),
        },
    ],
    begun: |_, _| Ok(()),
    // Members that have come along and those that have not get on with each other.
    cleanup: &[],
    succeed: |_: &mut Conn<'_>, _: &Ending<'_>| Ok(()),
    fail: |_: &mut Conn<'_>, _: &Ending<'_>, _| Ok(()),
};

/// Brings one member along, or makes what is due when all have come along; done when nothing is.
async fn renew(work: Arc<Work>) -> Result<Outcome, StepError> {
    // An application that has not heard of the next authority is shut out when it issues, and there is no way back.
    let now = trusted_now(&work)?;
    let life = work.parts.certificate_life;
    let opened = work.opened().await?;
    let certificates = opened.secrets.certificates(&opened.deployment.id);
    let behind = behind(&opened).await?;
    // Members whose certificates have ended do not find together one by one.
    let is_started = behind.is_empty() && certificates.outlook(&life).ends_at > now;
    let wait = if is_started {
        CHANGE_WAIT
    } else {
        Duration::ZERO
    };
    if certificates.have_ended(now) && !are_usable(&work, &opened, wait).await? {
        if behind.is_empty() && !make_due(&work, &opened, now).await? {
            return Err(StepError::passing("too few members serve"));
        }
        members::start_what_can(&work.opened().await?).await?;
        return Ok(Outcome::Again);
    }
    members::check_none_lost(&opened).await?;
    if behind.is_empty() || behind.len() == opened.deployment.members.len() {
        members::check_serving(&work, &opened).await?;
    } else {
        // The last one that was started may have much to read.
        members::await_ready(&work, &opened).await?;
    }
    if !behind.is_empty() {
        // No relief comes in between.
        if !relief::close_if_unsafe(&work, &opened).await? {
            bring_along(&work, &opened, &behind).await?;
        }
        return Ok(Outcome::Again);
    }
    if make_due(&work, &opened, now).await? {
        return Ok(Outcome::Again);
    }
    Outcome::done()
}

/// The time that certificates go by. It may stay in doubt for a day, and whatever else is to be done
/// waits behind them.
pub(super) fn trusted_now(work: &Work) -> Result<DateTime<Utc>, StepError> {
    let now = work.parts.time.trusted().map(Trusted::time);
    now.ok_or_else(|| StepError::last("the broker's clock is in doubt, and certificates go by it"))
}

/// The names of the members that do not run with what was made last.
pub(super) async fn behind(opened: &OpenDeployment) -> Result<HashSet<String>, StepError> {
    let mut behind = HashSet::new();
    for server in opened.servers() {
        if !opened.provisioner().runs_as(&server).await? {
            behind.insert(server.member);
        }
    }
    Ok(behind)
}

/// Whether enough members serve so that the database can be used, or do so within `wait`.
async fn are_usable(
    work: &Work,
    opened: &OpenDeployment,
    wait: Duration,
) -> Result<bool, StepError> {
    let deadline = Instant::now() + wait;
    loop {
        let seen = work.observe(opened).await?;
        if seen.is_usable() {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        sleep(AGREEMENT_POLL).await;
    }
}

/// Starts the member anew that comes next.
async fn bring_along(
    work: &Work,
    opened: &OpenDeployment,
    behind: &HashSet<String>,
) -> Result<(), StepError> {
    let has_come = |member: &Member| !behind.contains(&member.name);
    let next = update::next_one(work, opened, has_come).await?;
    let Some(place) = next else {
        return Ok(());
    };
    members::start_one(opened, place).await?;
    members::await_ready(work, opened).await
}

/// Makes what is due, and writes it down; returns whether anything was.
async fn make_due(
    work: &Work,
    opened: &OpenDeployment,
    now: DateTime<Utc>,
) -> Result<bool, StepError> {
    let life = work.parts.certificate_life;
    let operation = &work.operation;
    let asked_by = (!operation.origin.is_own()).then_some(&operation.id);
    let certificates = opened.secrets.certificates(&opened.deployment.id);
    let Some(what) = certificates.due(now, asked_by, &life) else {
        return Ok(false);
    };
    write_renewed(work, opened, &opened.deployment, what, now).await?;
    log::info!(deployment:% = opened.deployment.id; "{}", in_words(what));
    Ok(true)
}

/// Renews the secrets of a deployment for what `deployment` says of it, and writes them down: the members run with
/// them from their next start on.
pub(super) async fn write_renewed(
    work: &Work,
    opened: &OpenDeployment,
    deployment: &Deployment,
    what: Renewal,
    now: DateTime<Utc>,
) -> Result<(), StepError> {
    let secrets = &opened.secrets;
    let certificates = secrets.certificates(&deployment.id);
    let (life, by) = (work.parts.certificate_life, &work.operation.id);
    let renewed = certificates.renewed(what, now, by, &life);
    let issue = Issue::Renewal { secrets, what };
    let secrets = opened.engine.secrets(deployment, issue, &renewed, now)?;
    let sealed = work.seal(&deployment.seal_context(), &secrets)?;
    let id = deployment.id.clone();
    work.write(move |conn| store::deployment::set_sealed(conn, &id, &sealed))
        .await
}

/// What was done, for the log.
fn in_words(what: Renewal) -> &'static str {
    match what {
        Renewal::Follow => "its next authority is made, and trusted from now on",
        Renewal::Change => "its next authority issues from now on",
        Renewal::Retire => "its former authority has ended, and is trusted no more",
        Renewal::Members => "its members get another certificate",
    }
}

/// All members have come along.
pub(super) async fn note(work: Arc<Work>) -> Result<Outcome, StepError> {
    let opened = work.opened().await?;
    let certificates = opened.secrets.certificates(&opened.deployment.id);
    let outlook = certificates.outlook(&work.parts.certificate_life);
    work.write(move |conn| store::renewal::set(conn, &opened.deployment.id, &outlook))
        .await?;
    Outcome::done()
}
