//! Changes the size or the version of an instance in place.
//!
//! Members are changed one after the other, followers first, and the next one only when all serve
//! again: two of three always do, so clients that try again notice next to nothing. What a member
//! is to run as is written down before it is started so, and the deployment's own shape changes
//! when all of its members have: whoever goes on after a crash reads there what is left to do.
//!
//! Nobody's users are changed and no snapshot is taken meanwhile: see
//! [`OperationKind::follows`](crate::model::operation::OperationKind::follows).

use std::sync::Arc;

use tokio::time::{Instant, sleep};

use super::{Definition, Ending, Outcome, Step, StepError, Work, members};
use crate::{
    model::{
        backup::BackupState,
        deployment::{Access, Deployment, DeploymentSecrets, Shape},
        failure::chain,
        limits::{AGREEMENT_POLL, AGREEMENT_TIMEOUT},
        observation::{MemberHealth, MemberObservation, Observation},
        update::{Change, Move, Standing, fits, next_move},
    },
    store::{self, Conn, StoreError},
};

/// Update.
pub const DEFINITION: Definition = Definition {
    steps: &[
        Step {
            name: "check",
            title: "Checking that nothing is in the way",
            run: |w| Box::pin(check(w)),
        },
        Step {
            name: "roll",
            title: "Changing the members, one after the other",
            run: |w| Box::pin(roll(w)),
        },
    ],
    cleanup: &[Step {
        name: "cleanup_members",
        title: "Taking the members back",
        run: |w| Box::pin(roll_back(w)),
    }],
    succeed,
    // Parameters, version and size are those of before, and the instance is usable with them.
    fail: |_, _, _| Ok(()),
};

fn change(work: &Work) -> Result<&Change, StepError> {
    let change = work.operation.change.as_ref();
    change.ok_or_else(|| StepError::last("the update does not say what it changes"))
}

/// Everything that can be found out before a member is touched.
async fn check(work: Arc<Work>) -> Result<Outcome, StepError> {
    let change = change(&work)?;
    let (deployment, secrets) = work.allocated().await?;
    let installed = work
        .cluster(&deployment)?
        .provisioner
        .versions(&deployment.engine);
    let missing = change.path.iter().find(|s| !installed.contains(&s.version));
    if let Some(Shape { version, .. }) = missing {
        let engine = &deployment.engine;
        return Err(StepError::last(format!(
            "{engine} {version} is not installed any more"
        )));
    }
    if change.upgrades() {
        check_backup(&work).await?;
    }
    members::await_ready(&work, &deployment, &secrets, Access::Passwords).await?;
    if change.goal().units < deployment.units {
        check_size(&work, &deployment, &secrets, change.goal()).await?;
    }
    Outcome::done()
}

/// An upgrade cannot be taken back, so there must be a backup of just before.
async fn check_backup(work: &Work) -> Result<(), StepError> {
    let Some(id) = work.operation.backup.clone() else {
        return Err(StepError::last("the upgrade names no backup"));
    };
    let backup = work
        .read(move |conn| store::backup::find(conn, &id))
        .await?;
    match backup.map(|backup| (backup.state, backup.failure)) {
        Some((BackupState::Complete, _)) => Ok(()),
        Some((_, Some(failure))) => Err(StepError::last(format!(
            "the backup before the upgrade failed: {failure}"
        ))),
        _ => Err(StepError::last("there is no backup of before the upgrade")),
    }
}

async fn check_size(
    work: &Work,
    deployment: &Deployment,
    secrets: &DeploymentSecrets,
    goal: Shape,
) -> Result<(), StepError> {
    let members = work
        .engine(deployment)?
        .observe(deployment, secrets)
        .await?;
    let seen = Observation {
        members,
        observed_at: work.parts.clock.now(),
    };
    match seen.database_bytes() {
        Some(_) if seen.serving() < deployment.members.len() => Err(StepError::passing(
            "not all members tell how large the database is",
        )),
        Some(bytes) if fits(bytes, goal) => Ok(()),
        Some(_) => Err(StepError::last(
            "the database has grown and does not fit the smaller size any more",
        )),
        None => Err(StepError::passing(
            "no member tells how large the database is",
        )),
    }
}

/// Changes one member, or finishes when all are changed.
async fn roll(work: Arc<Work>) -> Result<Outcome, StepError> {
    let (deployment, secrets) = work.allocated().await?;
    let to = change(&work)?.next(deployment.shape());
    let unchanged = |member| deployment.shape_of(member) != to;
    if deployment.shape() == to && !deployment.members.iter().any(unchanged) {
        return Outcome::done();
    }
    await_decided(&work, &deployment, &secrets).await?;
    let standings = standings(&work, &deployment, &secrets, to).await?;
    if !standings.iter().any(|standing| standing.leads) {
        return Err(StepError::passing("no member says that it leads"));
    }
    match next_move(&standings) {
        Some(next) => change_member(&work, deployment, &secrets, next, Some(to)).await?,
        None => settle(&work, deployment, &secrets, to).await?,
    }
    Ok(Outcome::Again)
}

/// Makes all members run as was decided for them, and waits until they serve. A worker that died
/// may have decided about one and not started it any more.
async fn await_decided(
    work: &Work,
    deployment: &Deployment,
    secrets: &DeploymentSecrets,
) -> Result<(), StepError> {
    members::start(work, Access::Passwords).await?;
    members::await_ready(work, deployment, secrets, Access::Passwords).await
}

async fn standings(
    work: &Work,
    deployment: &Deployment,
    secrets: &DeploymentSecrets,
    to: Shape,
) -> Result<Vec<Standing>, StepError> {
    let seen = work
        .engine(deployment)?
        .observe(deployment, secrets)
        .await?;
    let standing = |(member, seen): (_, &MemberObservation)| Standing {
        moved: deployment.shape_of(member) == to,
        serves: matches!(seen.health, MemberHealth::Serving { .. }),
        leads: matches!(seen.health, MemberHealth::Serving { leads: true, .. }),
    };
    Ok(deployment.members.iter().zip(&seen).map(standing).collect())
}

/// Starts one member in another shape: that of the deployment, if none is given.
async fn change_member(
    work: &Work,
    mut deployment: Deployment,
    secrets: &DeploymentSecrets,
    next: Move,
    shape: Option<Shape>,
) -> Result<(), StepError> {
    let engine = work.engine(&deployment)?;
    let provisioner = &work.cluster(&deployment)?.provisioner;
    if let Some(heir) = next.heir
        // The others would find a new leader by themselves, only later.
        && let Err(error) = engine.hand_over(&deployment, secrets, heir).await
    {
        log::warn!(operation:% = work.operation.id; "{}", chain(&error));
    }
    deployment.members[next.member].shape = shape.filter(|shape| *shape != deployment.shape());
    let decided = deployment.clone();
    work.write(move |conn| store::deployment::reshape(conn, &decided))
        .await?;
    let servers = engine.servers(&deployment, secrets, Access::Passwords);
    provisioner.start(&servers[next.member]).await?;
    Ok(())
}

/// All members have their new shape: now the deployment has it.
async fn settle(
    work: &Work,
    deployment: Deployment,
    secrets: &DeploymentSecrets,
    to: Shape,
) -> Result<(), StepError> {
    let engine = work.engine(&deployment)?;
    let deadline = Instant::now() + AGREEMENT_TIMEOUT;
    // Before, a member of the line after the next would skip one.
    while !engine
        .agreed_version(&deployment, secrets)
        .await?
        .same_line(&to.version)
    {
        if Instant::now() >= deadline {
            return Err(StepError::passing(
                "the members do not agree on their new version",
            ));
        }
        sleep(AGREEMENT_POLL).await;
    }
    if to.units > deployment.units {
        engine.clear_alarms(&deployment, secrets).await?;
    }
    let deployment = deployment.reshaped(to);
    work.write(move |conn| store::deployment::reshape(conn, &deployment))
        .await
}

/// Takes the members that were changed back to what the deployment is as a whole; goes on when
/// there is no way back.
async fn roll_back(work: Arc<Work>) -> Result<Outcome, StepError> {
    let (deployment, secrets) = work.allocated().await?;
    // They go with the instance.
    if work.was_halted().await? {
        return Outcome::done();
    }
    let back = deployment.shape();
    let standings = standings(&work, &deployment, &secrets, back).await?;
    let Some(next) = next_move(&standings) else {
        await_decided(&work, &deployment, &secrets).await?;
        return Outcome::done();
    };
    let ahead = change(&work)?.next(back);
    let all_ahead = deployment
        .members
        .iter()
        .all(|member| deployment.shape_of(member) == ahead);
    if all_ahead && is_final(&work, &deployment, &secrets, ahead).await? {
        await_decided(&work, &deployment, &secrets).await?;
        settle(&work, deployment, &secrets, ahead).await?;
        return Outcome::done();
    }
    // One that is down anyhow comes first, without waiting for it.
    if standings[next.member].serves {
        await_decided(&work, &deployment, &secrets).await?;
    }
    change_member(&work, deployment, &secrets, next, None).await?;
    Ok(Outcome::Again)
}

/// Whether the members have agreed on the line of `ahead` already.
async fn is_final(
    work: &Work,
    deployment: &Deployment,
    secrets: &DeploymentSecrets,
    ahead: Shape,
) -> Result<bool, StepError> {
    if ahead.version.same_line(&deployment.version) {
        return Ok(false);
    }
    let engine = work.engine(deployment)?;
    let agreed = engine.agreed_version(deployment, secrets).await?;
    Ok(agreed.same_line(&ahead.version))
}

/// The instance has the parameters that the update asked for.
fn succeed(conn: &mut Conn<'_>, ending: &Ending<'_>) -> Result<(), StoreError> {
    let change = ending.operation.change.as_ref();
    let change = change.ok_or_else(|| StoreError::Missing("the operation's change".to_owned()))?;
    store::instance::set_parameters(conn, &ending.operation.instance, &change.parameters)
}
