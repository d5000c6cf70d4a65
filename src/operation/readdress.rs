//! Moves the members of a deployment to where applications reach them now, one after the other, while it
//! serves.
//!
//! A certificate that names where they are reached before and after is written down first. Then each
//! member is started anew with it at its new addresses, which are written down just before; so a worker that
//! goes on after a crash reads there what is left to do. A member is touched only while all others
//! serve, the leader last.
//!
//! Where strangers reach a version that lets them in, its members are stopped first, all at once and
//! however they are, and started where nobody else reaches them.

use std::{collections::HashSet, mem, sync::Arc, time::Duration};

use futures::future::try_join_all;

use super::{
    Definition, Ending, OpenDeployment, Outcome, Step, StepError, Work, members, relief, renew,
    update,
};
use crate::{
    model::{
        deployment::{Deployment, Member},
        exposure::Withheld,
        failure::chain,
        limits::PLACE_TRIES_MAX,
        reach::{Reach, Whereabouts},
        renewal::Renewal,
    },
    provisioner::{self, ProvisionerError},
    store::{self, Conn},
};

/// Members that others reach have a port more each.
const NO_PORTS: &str = "the cluster has no free ports left, and members that other machines reach need one \
                        more each: the operator has to give the cluster a longer range";

/// Readdress.
pub const DEFINITION: Definition = Definition {
    steps: &[
        Step {
            name: "certify",
            title: "Making a certificate for the new addresses",
            run: |w| Box::pin(certify(w)),
        },
        Step {
            name: "withdraw",
            title: "Keeping strangers out of a version that lets them in",
            run: |w| Box::pin(withdraw(w)),
        },
        Step {
            name: "move",
            title: "Moving the members to their new addresses, one after the other",
            run: |w| Box::pin(move_next(w)),
        },
        Step {
            name: "note",
            title: "Writing down when the next certificates are due",
            run: |w| Box::pin(renew::note(w)),
        },
    ],
    begun: |_, _| Ok(()),
    // Members that were moved and those that were not get on with each other.
    cleanup: &[],
    succeed: |_: &mut Conn<'_>, _: &Ending<'_>| Ok(()),
    fail: |_: &mut Conn<'_>, _: &Ending<'_>, _| Ok(()),
};

/// Where applications are to reach a deployment.
fn reach(opened: &OpenDeployment) -> Reach {
    let exposure = &opened.cluster.exposure;
    exposure.reach_of(opened.profile(), &opened.deployment)
}

/// Where its members are to be reached, in their order.
async fn whereabouts(opened: &OpenDeployment) -> Result<Vec<Whereabouts>, StepError> {
    let (provisioner, ports) = (opened.provisioner(), opened.profile().ports);
    let reach = reach(opened);
    let wanted = provisioner::whereabouts_of_all(provisioner, &opened.deployment, ports, &reach);
    Ok(wanted.await?)
}

/// Makes the certificate, unless the one that there is names all of the addresses.
async fn certify(work: Arc<Work>) -> Result<Outcome, StepError> {
    let opened = work.opened().await?;
    let wanted = whereabouts(&opened).await?;
    make_certificate(&work, &opened, &wanted).await?;
    Outcome::done()
}

/// Makes a certificate that names where members are and where they are to be, unless the one that there is
/// does; returns whether it was made.
async fn make_certificate(
    work: &Work,
    opened: &OpenDeployment,
    wanted: &[Whereabouts],
) -> Result<bool, StepError> {
    let deployment = &opened.deployment;
    let moved = deployment
        .members
        .iter()
        .zip(wanted)
        .map(|(member, wanted)| Member {
            addresses: wanted.addresses.clone(),
            ..member.clone()
        });
    let both = Deployment {
        members: deployment.members.iter().cloned().chain(moved).collect(),
        ..deployment.clone()
    };
    if both.hosts().is_subset(&opened.secrets.hosts) {
        return Ok(false);
    }
    let now = renew::trusted_now(work)?;
    renew::write_renewed(work, opened, &both, Renewal::Members, now).await?;
    Ok(true)
}

/// Stops all members of a deployment that must not be reached from elsewhere and is, and starts them where
/// nobody else reaches them. They have no turns, and none of them has to serve: each moment longer is one
/// for strangers. What is written down tells who reaches them, so that is changed once none runs.
async fn withdraw(work: Arc<Work>) -> Result<Outcome, StepError> {
    let mut opened = work.opened().await?;
    let exposure = &opened.cluster.exposure;
    let Some(withheld) = exposure.withheld(opened.profile(), &opened.deployment) else {
        return Outcome::done();
    };
    if withheld == Withheld::Exposed {
        let id = &opened.deployment.id;
        log::warn!(deployment:% = id; "other machines reach it, and its version lets strangers in: all \
            members are restarted where these do not reach them");
        let (provisioner, members) = (opened.provisioner(), opened.deployment.members.iter());
        let stops = members.map(|member| provisioner.stop(id, &member.name, Duration::ZERO));
        try_join_all(stops).await?;
        for (place, wanted) in whereabouts(&opened).await?.iter().enumerate() {
            opened.deployment = decide(&work, &opened, place, wanted).await?;
        }
    }
    // Also those that a worker has stopped before it died.
    members::start_stopped(&opened).await?;
    members::await_usable(&work, &opened).await?;
    Outcome::done()
}

/// Moves one member, or finishes when all are moved.
async fn move_next(work: Arc<Work>) -> Result<Outcome, StepError> {
    let opened = work.opened().await?;
    let wanted = whereabouts(&opened).await?;
    // They may be wanted elsewhere by now than when the move began.
    if make_certificate(&work, &opened, &wanted).await? {
        return Ok(Outcome::Again);
    }
    members::check_none_lost(&opened).await?;
    let behind = renew::behind(&opened).await?;
    let members = &opened.deployment.members;
    let moved: HashSet<&str> = members
        .iter()
        .zip(&wanted)
        .filter(|(member, wanted)| wanted.are_of(member))
        .map(|(member, _)| member.name.as_str())
        .collect();
    let is_moved = |member: &Member| moved.contains(member.name.as_str());
    let mut places = (0..).zip(members);
    let decided =
        |(_, member): &(usize, &Member)| is_moved(member) && behind.contains(&member.name);
    if let Some((place, _)) = places.find(decided) {
        check_others_serve(&opened, place).await?;
        start(&work, &opened, place).await?;
        return Ok(Outcome::Again);
    }
    if let Some(place) = not_where_written_down(&opened).await? {
        check_others_serve(&opened, place).await?;
        move_member(&work, opened, place, &wanted[place]).await?;
        return Ok(Outcome::Again);
    }
    let waiting = members.iter().filter(|m| !is_moved(m)).count();
    if waiting == members.len() {
        members::check_serving(&work, &opened).await?;
    } else {
        // The last one that was started may have much to read.
        members::await_ready(&work, &opened).await?;
    }
    if waiting == 0 {
        return Outcome::done();
    }
    // No relief comes in between.
    if !relief::close_if_unsafe(&work, &opened).await? {
        let next = update::next_one(&work, &opened, is_moved).await?;
        if let Some(place) = next {
            move_member(&work, opened, place, &wanted[place]).await?;
        }
    }
    Ok(Outcome::Again)
}

/// A member that listens elsewhere than is written down: it was to be moved, a crash came in between, and it
/// is wanted at a third place by now.
async fn not_where_written_down(opened: &OpenDeployment) -> Result<Option<usize>, StepError> {
    let deployment = &opened.deployment;
    let seen = opened.provisioner().members(&deployment.id).await?;
    let differs = |member: &Member| {
        let of_it = seen.iter().find(|seen| seen.name == member.name);
        of_it.is_some_and(|seen| !seen.addresses.is_empty() && seen.addresses != member.addresses)
    };
    Ok(deployment.members.iter().position(differs))
}

/// Fails unless all members but one serve. That one was to be moved, and a crash came in between: it does not
/// answer where it is asked, though it may serve.
async fn check_others_serve(opened: &OpenDeployment, place: usize) -> Result<(), StepError> {
    let seen = opened.engine.observe(opened.site()).await?;
    let mut others = (0..).zip(&seen).filter(|(of, _)| *of != place);
    if let Some((_, down)) = others.find(|(_, seen)| !seen.serves()) {
        let name = &down.name;
        return Err(StepError::passing(format!(
            "member {name} does not serve, and no other one is moved meanwhile"
        )));
    }
    Ok(())
}

async fn start(work: &Work, opened: &OpenDeployment, place: usize) -> Result<(), StepError> {
    members::start_one(opened, place).await?;
    members::await_ready(work, opened).await
}

/// Writes the new addresses of a member down, and starts it there. Where it cannot be started there, it
/// goes back to where it was.
async fn move_member(
    work: &Work,
    mut opened: OpenDeployment,
    place: usize,
    wanted: &Whereabouts,
) -> Result<(), StepError> {
    let moved = decide(work, &opened, place, wanted).await?;
    let before = mem::replace(&mut opened.deployment, moved);
    let servers = opened.servers();
    if let Err(error) = opened.provisioner().start(&servers[place]).await {
        let name = &before.members[place].name;
        log::warn!(operation:% = work.operation.id, member = name.as_str();
            "it cannot be started at its new addresses, and goes back: {}", chain(&error));
        let (id, members) = (before.id.clone(), before.members.clone());
        work.write(move |conn| store::deployment::set_members(conn, &id, &members))
            .await?;
        opened.deployment = before.clone();
        start(work, &opened, place).await?;
        return Err(StepError::last(format!(
            "member {name} cannot be started at its new addresses, and goes on at the old ones: {}",
            StepError::from(error)
        )));
    }
    members::await_ready(work, &opened).await
}

/// Writes down where a member is reached from its next start on, with the ports that it lacks.
async fn decide(
    work: &Work,
    opened: &OpenDeployment,
    place: usize,
    wanted: &Whereabouts,
) -> Result<Deployment, StepError> {
    let (deployment, provisioner) = (&opened.deployment, opened.provisioner());
    let reach = reach(opened);
    let tenant = work.tenant().await?;
    let of = tenant.owning(&deployment.id);
    let mut moved = deployment.clone();
    let names = [moved.members[place].name.clone()];
    for _ in 0..PLACE_TRIES_MAX {
        let hosts = provisioner.hosts(of, &names, &reach);
        let taken = work.scan(move |conn| store::deployment::addresses(conn, &hosts));
        let taken = taken.await?;
        // Also where no port is lacking: the machine may not have the address to listen at.
        let placed = provisioner
            .place(of, &names, &wanted.lacking, &reach, &taken)
            .await;
        let placed = match placed {
            // Nothing else on the instance waits until there are more.
            Err(ProvisionerError::NoFreePort) => return Err(StepError::last(NO_PORTS)),
            placed => placed?,
        };
        let addresses = &mut moved.members[place].addresses;
        addresses.clone_from(&wanted.addresses);
        addresses.extend(placed.into_iter().flatten());
        let (id, members) = (deployment.id.clone(), moved.members.clone());
        let write = work.write(move |conn| store::deployment::readdress(conn, &id, &members));
        if write.await? {
            return Ok(moved);
        }
    }
    Err(StepError::passing(
        "others reserve the cluster's ports at the same time",
    ))
}
