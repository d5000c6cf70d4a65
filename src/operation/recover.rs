//! Makes a database anew, in its place, whose majority is lost: of what a member still has, or of a
//! backup. Only an operator asks for it.
//!
//! Nothing is deleted: what the members have is kept aside first, and comes back when a step fails for
//! good. Until the users are those of the bindings, members let in only the broker: the deployment is
//! *closed*, so that work that starts a member meanwhile goes by that. Addresses, certificates and
//! passwords stay, so what applications were given goes on working.

use std::{sync::Arc, time::Duration};

use futures::future::try_join_all;
use tokio::time::{Instant, sleep};

use super::{Definition, Ending, Outcome, Step, StepError, Work, members, restore, sizes};
use crate::{
    engine::{Relief, Seed},
    model::{
        alert::Incident,
        deployment::{Access, Deployment, Membership, Shape},
        limits::{STOP_GRACE, SURVIVOR_SETTLES},
        repair::time_to_start,
    },
    provisioner::ProvisionerError,
    store::{self, Conn, StoreError},
};

/// Recovery.
pub const DEFINITION: Definition = Definition {
    steps: &[
        Step {
            name: "look",
            title: "Looking whether there is something to recover",
            run: |w| Box::pin(look(w)),
        },
        Step {
            name: "settle",
            title: "Letting the survivor write down what it knows",
            run: |w| Box::pin(settle(w)),
        },
        Step {
            name: "stop",
            title: "Stopping the members",
            run: |w| Box::pin(stop(w)),
        },
        Step {
            name: "fetch",
            title: "Fetching what the database is made of",
            run: |w| Box::pin(fetch(w)),
        },
        Step {
            name: "keep",
            title: "Keeping aside what the members have",
            run: |w| Box::pin(keep(w)),
        },
        Step {
            name: "seed",
            title: "Making the members' data",
            run: |w| Box::pin(seed(w)),
        },
        Step {
            name: "start",
            title: "Starting the members",
            run: |w| Box::pin(start(w)),
        },
        Step {
            name: "secure",
            title: "Letting in those that have a binding",
            run: |w| Box::pin(secure(w)),
        },
        Step {
            name: "open",
            title: "Opening the database",
            run: |w| Box::pin(open(w)),
        },
    ],
    begun: |_, _| Ok(()),
    cleanup: &[Step {
        name: "cleanup_members",
        title: "Putting back what the members had",
        run: |w| Box::pin(put_back(w)),
    }],
    succeed,
    fail: |_: &mut Conn<'_>, _: &Ending<'_>, _| Ok(()),
};

/// The snapshot's name on the stage.
const SNAPSHOT: &str = "recovered.db";

/// The place of the member that is recovered from; none: it is a backup.
fn survivor(work: &Work, deployment: &Deployment) -> Result<Option<usize>, StepError> {
    let Some(name) = &work.operation.survivor else {
        return Ok(None);
    };
    let place = deployment.place_of(name);
    let place = place.ok_or_else(|| StepError::last(format!("there is no member {name}")))?;
    Ok(Some(place))
}

/// What the members run as afterwards. What a survivor has may be of a newer version than the
/// deployment as a whole, in the midst of an update; the other way round is fine.
fn shape(work: &Work, deployment: &Deployment) -> Result<Shape, StepError> {
    let place = survivor(work, deployment)?;
    let of_member = |place: usize| deployment.shape_of(&deployment.members[place]);
    Ok(place.map_or(deployment.shape(), of_member))
}

async fn look(work: Arc<Work>) -> Result<Outcome, StepError> {
    let opened = work.opened().await?;
    let seen = work.observe(&opened).await?;
    if seen.is_usable() {
        return Err(StepError::last(
            "enough members serve by now; there is nothing to recover",
        ));
    }
    let bytes = match &work.operation.source {
        Some(source) => source.manifest.stored.snapshot_bytes,
        None => sizes::bytes_on_disk(&opened).await?,
    };
    // The staged snapshot and one copy for each member, beside what is kept aside.
    let tenant = work.tenant().await?;
    let of = tenant.owning(&opened.deployment.id);
    let copies = opened.deployment.members.len() as u64 + 1;
    opened.provisioner().room_for(of, bytes * copies).await?;
    Outcome::with(&opened.deployment.closed_since)
}

/// A member that runs has in its database what it knows. One that ended may have some of it in its log
/// alone, which it reads when it starts, with or without the others.
async fn settle(work: Arc<Work>) -> Result<Outcome, StepError> {
    let opened = work.opened().await?;
    let Some(place) = survivor(&work, &opened.deployment)? else {
        return Outcome::done();
    };
    let (provisioner, servers) = (opened.provisioner(), opened.servers());
    let name = &opened.deployment.members[place].name;
    let is_running = async || -> Result<bool, StepError> {
        let observed = provisioner.observe(&opened.deployment.id).await?;
        Ok(observed.iter().any(|m| m.member == *name && m.running))
    };
    if is_running().await? {
        return Outcome::done();
    }
    match provisioner.start(&servers[place]).await {
        Err(ProvisionerError::DataLost { member }) => {
            return Err(StepError::last(format!(
                "member {member} has lost its data"
            )));
        }
        other => other?,
    }
    let bytes = sizes::bytes_on_disk(&opened).await?;
    let until = Instant::now() + SURVIVOR_SETTLES + time_to_start(bytes);
    while Instant::now() < until {
        if !is_running().await? {
            return Err(StepError::last(format!(
                "member {name} does not run: what it has cannot be used"
            )));
        }
        sleep(Duration::from_millis(200)).await;
    }
    Outcome::done()
}

async fn stop(work: Arc<Work>) -> Result<Outcome, StepError> {
    let opened = work.opened().await?;
    let (deployment, provisioner) = (&opened.deployment, opened.provisioner());
    let stop = |member| provisioner.stop(&deployment.id, member, STOP_GRACE);
    try_join_all(deployment.members.iter().map(|member| stop(&member.name))).await?;
    Outcome::done()
}

async fn fetch(work: Arc<Work>) -> Result<Outcome, StepError> {
    let opened = work.opened().await?;
    let Some(place) = survivor(&work, &opened.deployment)? else {
        restore::stage_backup(&work, &opened, SNAPSHOT).await?;
        return Outcome::done();
    };
    let (deployment, bench) = (&opened.deployment, opened.provisioner().as_ref());
    let salvage = opened.engine.salvage(deployment, place, SNAPSHOT, bench);
    salvage.await?;
    Outcome::done()
}

async fn keep(work: Arc<Work>) -> Result<Outcome, StepError> {
    let opened = work.opened().await?;
    let deployment = &opened.deployment;
    if deployment.closed_since.is_none() {
        let (id, now) = (deployment.id.clone(), work.parts.clock.now());
        work.write(move |conn| store::deployment::set_closed(conn, &id, Some(now)))
            .await?;
    }
    let provisioner = opened.provisioner();
    let aside = work.operation.id.as_str();
    for member in &deployment.members {
        provisioner
            .set_aside(&deployment.id, &member.name, aside)
            .await?;
    }
    log::warn!(operation:% = work.operation.id, deployment:% = deployment.id;
        "what its members had is kept aside");
    Outcome::done()
}

async fn seed(work: Arc<Work>) -> Result<Outcome, StepError> {
    let mut opened = work.opened().await?;
    let shape = shape(&work, &opened.deployment)?;
    let mut decided = opened.deployment.reshaped(shape);
    for member in &mut decided.members {
        (member.checkpointing, member.membership) = (false, Membership::Joined);
    }
    opened.deployment = decided.clone();
    work.write(move |conn| store::deployment::reshape(conn, &decided))
        .await?;
    let seed = match work.operation.survivor {
        None => Seed::Backup(SNAPSHOT),
        Some(_) => Seed::Salvage(SNAPSHOT),
    };
    restore::seed_members(&opened, seed).await?;
    Outcome::done()
}

async fn start(work: Arc<Work>) -> Result<Outcome, StepError> {
    let opened = work.opened().await?.with_access(Access::Certificates);
    members::start(&opened).await?;
    let id = &opened.deployment.id;
    opened.provisioner().unstage(id, SNAPSHOT).await?;
    Outcome::done()
}

/// A user who was let in when the data was written may not be by now, and the other way round.
async fn secure(work: Arc<Work>) -> Result<Outcome, StepError> {
    let opened = work.opened().await?.with_access(Access::Certificates);
    members::await_ready(&work, &opened).await?;
    let (users, others) = members::users(&work, &opened.deployment).await?;
    let engine = &opened.engine;
    engine.restore_users(opened.site(), &users, &others).await?;
    // Of members that are no more, or of a database that was full: it says so anew if it is.
    engine.relieve(opened.site(), Relief::ClearAlarms).await?;
    if let Some(source) = &work.operation.source {
        let expected = &source.manifest.content;
        engine.verify(opened.site(), expected).await?;
    }
    Outcome::done()
}

/// Opens it, unless it is too full for that: then it stays closed, as any other one.
async fn open(work: Arc<Work>) -> Result<Outcome, StepError> {
    let opened = work.opened().await?;
    if opened.deployment.closed_since.is_some() {
        let fullness = sizes::fullness(&work, &opened).await?;
        if !(fullness.is_safe_full || fullness.has_room()) {
            return Outcome::done();
        }
        let id = opened.deployment.id.clone();
        work.write(move |conn| store::deployment::set_closed(conn, &id, None))
            .await?;
    }
    members::open(&work).await
}

/// The members have again what they had, and run as far as they can.
async fn put_back(work: Arc<Work>) -> Result<Outcome, StepError> {
    // They go with the instance.
    if work.was_halted().await? {
        return Outcome::done();
    }
    let opened = work.opened().await?;
    let (deployment, provisioner) = (&opened.deployment, opened.provisioner());
    provisioner.unstage(&deployment.id, SNAPSHOT).await?;
    let aside = work.operation.id.as_str();
    for member in &deployment.members {
        provisioner
            .put_back(&deployment.id, &member.name, aside)
            .await?;
    }
    let closed = work.result::<Option<chrono::DateTime<chrono::Utc>>>("look");
    if let Ok(closed_since) = closed.await
        && closed_since != deployment.closed_since
    {
        let id = deployment.id.clone();
        work.write(move |conn| store::deployment::set_closed(conn, &id, closed_since))
            .await?;
    }
    members::start_what_can(&work.opened().await?).await?;
    Outcome::done()
}

/// Users are told of it for a while.
fn succeed(conn: &mut Conn<'_>, ending: &Ending<'_>) -> Result<(), StoreError> {
    let (operation, at) = (ending.operation, ending.now);
    let Some((deployment, _)) = store::deployment::of_instance(conn, &operation.instance)? else {
        return Ok(());
    };
    let of = match (&operation.survivor, &operation.source) {
        (Some(member), _) => format!("what member {member} still had"),
        (None, Some(source)) => format!(
            "the backup of {}",
            source.manifest.started_at.format("%Y-%m-%dT%H:%M:%SZ")
        ),
        (None, None) => "what was left".to_owned(),
    };
    let message = format!(
        "Most members were lost. The operator had the database made anew of {of}; what was written \
         later is lost."
    );
    store::incident::add(conn, &deployment.id, &Incident { at, message })
}
