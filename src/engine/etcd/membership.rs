//! Who belongs to a cluster: a member that lost its data leaves, and a new one comes in its place.
//!
//! Members are known by the address at which the others reach them: a new one has no name before it
//! runs, and its id is not known before.

use std::time::Duration;

use etcd_client::MemberAddOptions;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    engine::EngineError,
    model::{
        deployment::Deployment,
        failure::chain,
        limits::{ENGINE_CALL_TIMEOUT, JOIN_POLL},
    },
};

use super::{
    addresses,
    client::{Dialer, Fault, says, unless_it_says},
    rolling::ask,
    security::end_alarms,
};

/// From this line on there are members without a vote.
const LEARNERS_FROM: (u32, u32) = (3, 4);

/// Takes the member at `place` out of the cluster, and ends the alarms of members that are no more:
/// nobody else would, and some of them keep everybody from writing.
pub(super) async fn remove(dialer: &Dialer<'_>, place: usize) -> Result<(), EngineError> {
    let url = &peer_url(dialer.deployment, place);
    dialer
        .trying_as_root("removing a member", |mut client| async move {
            let listed = client.member_list().await?;
            let mut left = Vec::new();
            for member in listed.members() {
                if member.peer_urls().contains(url) {
                    let removed = client.member_remove(member.id()).await;
                    unless_it_says(removed, says::NO_MEMBER)?;
                } else {
                    left.push(member.id());
                }
            }
            end_alarms(&mut client, |member| !left.contains(&member)).await
        })
        .await
}

/// Takes a new member into the cluster, at the address of the one at `place`; without a vote, where
/// all members know of that.
pub(super) async fn add(dialer: &Dialer<'_>, place: usize) -> Result<(), EngineError> {
    let deployment = dialer.deployment;
    let url = &peer_url(deployment, place);
    let lines = deployment
        .members
        .iter()
        .map(|member| deployment.shape_of(member).version.line());
    let as_learner = lines.min() >= Some(LEARNERS_FROM);
    dialer
        .trying_as_root("adding a member", |mut client| async move {
            let listed = client.member_list().await?;
            if listed.members().iter().any(|m| m.peer_urls().contains(url)) {
                return Ok(());
            }
            let options = as_learner.then(|| MemberAddOptions::new().with_is_learner());
            let added = client.member_add([url.as_str()], options).await;
            unless_it_says(added, says::MEMBER_EXISTS)
        })
        .await
}

fn peer_url(deployment: &Deployment, place: usize) -> String {
    addresses::peer_url(&deployment.members[place])
}

/// Waits, for `patience` at the most, until the member at `place` has a vote: one that has none gets
/// it when it has caught up.
pub(super) async fn join(
    dialer: &Dialer<'_>,
    place: usize,
    patience: Duration,
) -> Result<(), EngineError> {
    const DOING: &str = "giving a vote to a new member";
    let deadline = Instant::now() + patience;
    loop {
        let tried = timeout(ENGINE_CALL_TIMEOUT, promote(dialer, place)).await;
        let reason = match tried.unwrap_or(Err(Fault::Silent(ENGINE_CALL_TIMEOUT))) {
            Ok(()) => return Ok(()),
            Err(Fault::Final(error)) => return Err(error),
            // It has not caught up yet, or the leader has changed.
            Err(fault) => chain(&fault.into_engine_error(DOING)),
        };
        if Instant::now() >= deadline {
            return Err(EngineError::NotReady(reason));
        }
        sleep(JOIN_POLL).await;
    }
}

/// Asks the leader itself: with logins on, the others do not pass it on.
async fn promote(dialer: &Dialer<'_>, place: usize) -> Result<(), Fault> {
    let members = dialer.deployment.members.iter().enumerate();
    let mut last = Fault::Silent(ENGINE_CALL_TIMEOUT);
    for (_, member) in members.filter(|(i, _)| *i != place) {
        match ask(dialer, member).await {
            Ok((mut client, id, leader)) if id == leader => {
                let url = peer_url(dialer.deployment, place);
                let listed = client.member_list().await?;
                let of_place = |m: &&etcd_client::Member| m.peer_urls().contains(&url);
                return match listed.members().iter().find(of_place) {
                    Some(member) if member.is_learner() => {
                        client.member_promote(member.id()).await?;
                        Ok(())
                    }
                    Some(_) => Ok(()),
                    None => {
                        let text = "the new member is no part of its cluster".to_owned();
                        Err(EngineError::NotReady(text).into())
                    }
                };
            }
            Ok(_) => {}
            Err(fault) => last = fault,
        }
    }
    Err(last)
}
