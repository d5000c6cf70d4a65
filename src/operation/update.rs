//! Changes the size or the version of an instance in place.
//!
//! Members are changed one after the other, followers first, and the next one only when all serve
//! again: two of three always do, so clients that try again notice next to nothing. What a member
//! is to run as is written down before it is started so, and the deployment's own shape changes
//! when all of its members have: the worker that goes on after a crash reads there what is left to do.
//!
//! Some lines of versions cannot read what an older one has written into its log. Before such a line
//! every member runs *checkpointing*, until each has been seen to have written its whole state down.
//!
//! Nobody's users are changed and no snapshot is taken meanwhile: see
//! [`OperationKind::follows`](crate::model::operation::OperationKind::follows).

use std::sync::Arc;

use tokio::time::{Instant, sleep};

use super::{
    Definition, Ending, OpenDeployment, Outcome, Step, StepError, Work, members, relief, repair,
    safety, sizes,
};
use crate::{
    engine::{MemberChange, Passage, Relief},
    model::{
        deployment::{Deployment, Member, Shape},
        failure::chain,
        limits::{AGREEMENT_POLL, AGREEMENT_TIMEOUT, CHECKPOINT_TIMEOUT},
        observation::MemberObservation,
        turn::Turn,
        update::{Change, MemberProgress, Move, fits, next_move},
    },
    provisioner::files_of,
    store::{self, Conn, StoreError},
};

/// Update.
pub const DEFINITION: Definition = Definition {
    steps: &[
        Step {
            name: "check",
            title: "Checking that all members serve and nothing is in the way",
            run: |w| Box::pin(check(w)),
        },
        Step {
            name: "roll",
            title: "Changing the members, one after the other",
            run: |w| Box::pin(roll(w)),
        },
    ],
    begun: |_, _| Ok(()),
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
    let opened = work.opened().await?;
    let installed = opened.provisioner().versions(&opened.deployment.engine);
    let missing = change.path.iter().find(|s| !installed.contains(&s.version));
    if let Some(Shape { version, .. }) = missing {
        let engine = &opened.deployment.engine;
        return Err(StepError::last(format!(
            "{engine} {version} is not installed any more"
        )));
    }
    if change.upgrades() {
        // An upgrade cannot be taken back.
        safety::check(&work, work.operation.backup.clone(), "the upgrade").await?;
    }
    members::check_serving(&work, &opened).await?;
    if change.upgrades() {
        check_obstacles(&work, &opened, change.goal()).await?;
    }
    if change.goal().units < opened.deployment.units {
        check_size(&work, &opened, change.goal()).await?;
    }
    Outcome::done()
}

/// What stands against an upgrade is put right where the broker can, and told where it cannot.
async fn check_obstacles(
    work: &Work,
    opened: &OpenDeployment,
    goal: Shape,
) -> Result<(), StepError> {
    let engine = &opened.engine;
    let version = goal.version;
    let mut found = engine.obstacles(opened.site(), version).await?;
    if found.iter().any(|obstacle| obstacle.is_mended) {
        members::restore_users(work, opened).await?;
        found = engine.obstacles(opened.site(), version).await?;
    }
    if found.is_empty() {
        return Ok(());
    }
    let texts: Vec<String> = found.into_iter().map(|obstacle| obstacle.text).collect();
    let texts = texts.join("; ");
    Err(StepError::last(format!(
        "it cannot be upgraded now: {texts}"
    )))
}

async fn check_size(work: &Work, opened: &OpenDeployment, goal: Shape) -> Result<(), StepError> {
    let (seen, bytes) = sizes::observe_size(work, opened).await?;
    if seen.serving() < opened.deployment.members.len() {
        return Err(StepError::passing(
            "not all members say how large the database is",
        ));
    }
    if !fits(bytes, goal) {
        return Err(StepError::last(
            "the database has grown and does not fit the smaller size any more",
        ));
    }
    Ok(())
}

/// Changes one member, or finishes when all are changed.
async fn roll(work: Arc<Work>) -> Result<Outcome, StepError> {
    let opened = work.opened().await?;
    let change = change(&work)?;
    let to = change.next(opened.deployment.shape());
    let unchanged = |member: &Member| opened.deployment.shape_of(member) != to;
    let is_as_it_was = |member: &Member| unchanged(member) || member.checkpointing;
    // It does not come back by itself, and no other one is touched without it.
    if let Some(lost) = members::lost(&opened).await? {
        repair::replace(&work, &lost).await?;
        return Ok(Outcome::Again);
    }
    members::start_as_decided(&work, &opened).await?;
    // No relief comes in between.
    if relief::close_if_unsafe(&work, &opened).await? {
        return Ok(Outcome::Again);
    }
    if opened.deployment.shape() == to && !opened.deployment.members.iter().any(is_as_it_was) {
        return Outcome::done();
    }
    let profile = opened.profile();
    if profile.checkpoints(opened.deployment.version, to.version)
        && opened.deployment.members.iter().all(unchanged)
    {
        let here = opened.deployment.shape();
        let standings = standings(&opened, |member| member.checkpointing);
        let standings = led(standings.await?)?;
        if let Some(next) = next_move(&standings) {
            let what = format!("gets ready for version {}", to.version);
            take_turn(&work, &opened.deployment, &standings, next, what).await?;
            change_member(&work, opened, next, here, true).await?;
            return Ok(Outcome::Again);
        }
        await_checkpoints(&opened).await?;
    }
    // Then this start serves for the line after it as well.
    let goes_on = profile.checkpoints(to.version, change.next(to).version);
    let standings = standings(&opened, |member| {
        opened.deployment.shape_of(member) == to && member.checkpointing == goes_on
    });
    let standings = led(standings.await?)?;
    match next_move(&standings) {
        Some(next) => {
            let what = towards(&opened.deployment, to);
            take_turn(&work, &opened.deployment, &standings, next, what).await?;
            change_member(&work, opened, next, to, goes_on).await?;
        }
        None => settle(&work, opened, to).await?,
    }
    Ok(Outcome::Again)
}

/// What becomes of a member, where the operation's name does not say it: there may be versions on the way.
fn towards(deployment: &Deployment, to: Shape) -> String {
    match deployment.version == to.version {
        true => String::new(),
        false => format!("to version {}", to.version),
    }
}

/// Tells that a member is changed now.
async fn take_turn(
    work: &Work,
    deployment: &Deployment,
    standings: &[MemberProgress],
    next: Move,
    what: String,
) -> Result<(), StepError> {
    let name = &deployment.members[next.member].name;
    let before = standings.iter().filter(|standing| standing.moved).count();
    work.take_turn(Turn::of(name, before, standings.len(), what))
        .await
}

/// The standings, when one of them leads.
fn led(standings: Vec<MemberProgress>) -> Result<Vec<MemberProgress>, StepError> {
    if standings.iter().any(|standing| standing.leads) {
        Ok(standings)
    } else {
        Err(StepError::passing("no member says that it leads"))
    }
}

/// Waits until every member has written its whole state down since it was told to. What is in its
/// log from before is then not read any more.
async fn await_checkpoints(opened: &OpenDeployment) -> Result<(), StepError> {
    let engine = &opened.engine;
    let before = newest_checkpoints(opened).await?;
    let deadline = Instant::now() + CHECKPOINT_TIMEOUT;
    loop {
        engine.pass(opened.site(), Passage::FillLogs).await?;
        let now = newest_checkpoints(opened).await?;
        if now.iter().zip(&before).all(|(now, before)| now > before) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(StepError::passing(
                "not every member writes its state down before the upgrade",
            ));
        }
        sleep(AGREEMENT_POLL).await;
    }
}

/// The name of each member's newest checkpoint; none where there is none yet.
async fn newest_checkpoints(opened: &OpenDeployment) -> Result<Vec<Option<String>>, StepError> {
    let (deployment, provisioner) = (&opened.deployment, opened.provisioner());
    let wanted = opened.profile().checkpoints;
    let mut newest = Vec::new();
    for member in &deployment.members {
        let seen = files_of(provisioner, &deployment.id, &member.name, &wanted).await?;
        newest.push(seen.into_iter().map(|file| file.name).max());
    }
    Ok(newest)
}

/// How the members stand; `moved` says of each whether it was changed already.
async fn standings(
    opened: &OpenDeployment,
    moved: impl Fn(&Member) -> bool,
) -> Result<Vec<MemberProgress>, StepError> {
    let seen = opened.engine.observe(opened.site()).await?;
    let standing = |(member, seen): (&Member, &MemberObservation)| MemberProgress {
        moved: moved(member),
        serves: seen.serves(),
        leads: seen.leads(),
    };
    let members = opened.deployment.members.iter();
    Ok(members.zip(&seen).map(standing).collect())
}

/// Starts one member in another shape.
async fn change_member(
    work: &Work,
    mut opened: OpenDeployment,
    next: Move,
    shape: Shape,
    checkpointing: bool,
) -> Result<(), StepError> {
    if let Some(heir) = next.heir {
        hand_over(work, &opened, heir).await?;
    }
    let deployment = &mut opened.deployment;
    let own = (shape != deployment.shape()).then_some(shape);
    let member = &mut deployment.members[next.member];
    (member.shape, member.checkpointing) = (own, checkpointing);
    let decided = deployment.clone();
    work.write(move |conn| store::deployment::reshape(conn, &decided))
        .await?;
    members::start_one(&opened, next.member).await
}

/// The place of the member that comes next, which does not lead any more where another one can; none
/// when all have come along. `moved` says of each whether it has.
pub(super) async fn next_one(
    work: &Work,
    opened: &OpenDeployment,
    moved: impl Fn(&Member) -> bool,
) -> Result<Option<usize>, StepError> {
    let standings = led(standings(opened, moved).await?)?;
    let Some(next) = next_move(&standings) else {
        return Ok(None);
    };
    take_turn(work, &opened.deployment, &standings, next, String::new()).await?;
    if let Some(heir) = next.heir {
        hand_over(work, opened, heir).await?;
    }
    Ok(Some(next.member))
}

/// Has another member lead. Where that fails, the others find a new leader by themselves, only later.
async fn hand_over(work: &Work, opened: &OpenDeployment, heir: usize) -> Result<(), StepError> {
    let (engine, site) = (&opened.engine, opened.site());
    if let Err(error) = engine.change_member(site, heir, MemberChange::Lead).await {
        log::warn!(operation:% = work.operation.id; "{}", chain(&error));
    }
    Ok(())
}

/// All members have their new shape: now the deployment has it.
async fn settle(work: &Work, opened: OpenDeployment, to: Shape) -> Result<(), StepError> {
    let engine = &opened.engine;
    if enters_with_way_back(&opened, to) {
        // Of an earlier try that was taken back: the members would stay at the older line.
        engine.pass(opened.site(), Passage::EndWayBack).await?;
    }
    let deadline = Instant::now() + AGREEMENT_TIMEOUT;
    // Before, a member of the line after the next would skip one.
    while !engine
        .agreed_version(opened.site())
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
    let fullness = sizes::fullness(work, &opened).await?;
    let is_larger = to.units > opened.deployment.units;
    if is_larger || fullness.is_full && fullness.has_room() {
        engine.relieve(opened.site(), Relief::ClearAlarms).await?;
    }
    let deployment = opened.deployment.reshaped(to);
    work.write(move |conn| store::deployment::reshape(conn, &deployment))
        .await
}

/// Whether the way from the deployment's version to that of `to` can be gone back.
fn enters_with_way_back(opened: &OpenDeployment, to: Shape) -> bool {
    let entry = opened
        .profile()
        .entry(opened.deployment.version, to.version);
    entry.is_some_and(|entry| entry.has_way_back)
}

/// Takes the members that were changed back to what the deployment is as a whole, also when they
/// have agreed on the new line already; goes on to it where that leaves no way back.
async fn roll_back(work: Arc<Work>) -> Result<Outcome, StepError> {
    let opened = work.opened().await?;
    // They go with the instance.
    if work.was_halted().await? {
        return Outcome::done();
    }
    let back = opened.deployment.shape();
    let ahead = change(&work)?.next(back);
    let standings = standings(&opened, |member| {
        opened.deployment.shape_of(member) == back && !member.checkpointing
    });
    let standings = standings.await?;
    let has_way_back = enters_with_way_back(&opened, ahead);
    let Some(next) = next_move(&standings) else {
        // One that was down before is not waited for: it is as it was.
        members::start_what_can(&opened).await?;
        members::await_usable(&work, &opened).await?;
        if has_way_back {
            let passage = Passage::EndWayBack;
            opened.engine.pass(opened.site(), passage).await?;
        }
        return Outcome::done();
    };
    // No other one is touched while it is away, and by itself it does not come back.
    if let Some(lost) = members::lost(&opened).await? {
        repair::replace(&work, &lost).await?;
        return Ok(Outcome::Again);
    }
    let is_behind = |member: &Member| opened.deployment.shape_of(member) != ahead;
    let places = (0..).zip(&opened.deployment.members);
    let behind = places.filter(|(_, member)| is_behind(member));
    let behind: Vec<usize> = behind.map(|(place, _)| place).collect();
    if behind.len() <= 1 && is_final(&opened, ahead).await? {
        if let Some(&member) = behind.first() {
            // They agreed while this one was taken back: they do not let it in any more.
            let forth = Move { member, heir: None };
            let what = towards(&opened.deployment, ahead);
            take_turn(&work, &opened.deployment, &standings, forth, what).await?;
            change_member(&work, opened, forth, ahead, false).await?;
            return Ok(Outcome::Again);
        }
        members::start_as_decided(&work, &opened).await?;
        if !has_way_back {
            settle(&work, opened, ahead).await?;
            return Outcome::done();
        }
        let passage = Passage::BeginWayBack(back.version);
        opened.engine.pass(opened.site(), passage).await?;
    } else if standings[next.member].serves {
        members::start_as_decided(&work, &opened).await?;
    }
    let what = "back to what it was".to_owned();
    take_turn(&work, &opened.deployment, &standings, next, what).await?;
    // One that is down anyhow comes first, without waiting for it.
    change_member(&work, opened, next, back, false).await?;
    Ok(Outcome::Again)
}

/// Whether the members have agreed on the line of `ahead` already.
async fn is_final(opened: &OpenDeployment, ahead: Shape) -> Result<bool, StepError> {
    if ahead.version.same_line(&opened.deployment.version) {
        return Ok(false);
    }
    let agreed = opened.engine.agreed_version(opened.site()).await?;
    Ok(agreed.same_line(&ahead.version))
}

/// The instance has the parameters that the update asked for.
fn succeed(conn: &mut Conn<'_>, ending: &Ending<'_>) -> Result<(), StoreError> {
    let change = ending.operation.change.as_ref();
    let change = change.ok_or_else(|| StoreError::Missing("the operation's change".to_owned()))?;
    store::instance::set_parameters(conn, &ending.operation.instance, &change.parameters)
}
