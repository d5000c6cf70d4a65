//! What several operations do with the members of a deployment.

use std::time::Duration;

use futures::future::try_join_all;

use super::{Outcome, StepError, Work};
use crate::{
    model::{
        deployment::{Access, Deployment, DeploymentSecrets, Member},
        limits::MEMBERS,
    },
    provisioner::Provisioner,
    store::{self, StoreError},
};

/// A starting member that ended by itself this often will not come up.
const CRASHES_MAX: u32 = 4;
/// How often starting members are looked at.
const CRASH_WATCH: Duration = Duration::from_millis(500);
/// Ports that are looked at in one go when some are in use by others.
const PORTS_TRIED_MAX: usize = 2000;

/// Chooses the members, reserves their ports and makes the deployment's secrets.
pub async fn allocate(work: &Work) -> Result<Outcome, StepError> {
    let Some((mut deployment, secrets)) = work.deployment().await? else {
        return Err(StepError::last("the deployment is gone"));
    };
    if secrets.is_some() {
        return Outcome::done();
    }
    let cluster = work.cluster(&deployment)?;
    let (name, range) = (deployment.cluster.clone(), cluster.ports);
    let reserved = work
        .read(move |conn| store::deployment::free_ports(conn, &name, range))
        .await?;
    let provisioner = cluster.provisioner.clone();
    let free: Vec<u16> = tokio::task::spawn_blocking(move || {
        let usable = |port: &u16| provisioner.port_is_free(*port);
        reserved
            .into_iter()
            .take(PORTS_TRIED_MAX)
            .filter(usable)
            .take(2 * MEMBERS)
            .collect()
    })
    .await
    .map_err(|_| StepError::passing("ports could not be looked at"))?;
    if free.len() < 2 * MEMBERS {
        return Err(StepError::passing("the cluster has no free ports left"));
    }
    deployment.members = free
        .chunks_exact(2)
        .enumerate()
        .map(|(i, ports)| Member {
            name: format!("m{i}"),
            host: cluster.provisioner.host().to_owned(),
            client_port: ports[0],
            peer_port: ports[1],
        })
        .collect();
    let secrets = work
        .engine(&deployment)?
        .generate_secrets(&deployment.id, cluster.provisioner.host())?;
    let sealed = work.seal(deployment.id.as_str(), &secrets)?;
    let allocated =
        work.write(
            move |conn| match store::deployment::allocate(conn, &deployment, &sealed) {
                // Somebody else reserved one of these ports a moment ago.
                Err(StoreError::Duplicate) => Ok(false),
                other => other.map(|()| true),
            },
        );
    if allocated.await? {
        Outcome::done()
    } else {
        Ok(Outcome::StartOver("ports were taken".to_owned()))
    }
}

/// Makes all members run with `access`, one after the other: a new member asks the others whether
/// it was there before, and waits a whole second for each that listens but does not serve yet.
pub async fn start(work: &Work, access: Access) -> Result<(), StepError> {
    let (deployment, secrets) = work.allocated().await?;
    let provisioner = &work.cluster(&deployment)?.provisioner;
    let engine = work.engine(&deployment)?;
    let servers = engine.servers(&deployment, &secrets, access);
    for (server, member) in servers.iter().zip(&deployment.members) {
        provisioner.start(server).await?;
        engine.wait_until_listening(member).await;
    }
    Ok(())
}

/// Opens a deployment that nobody but the broker could enter so far to its users.
///
/// The members are started anew: a connection from before could go on with the rights that it
/// had. They are killed, since an orderly end takes seconds and nobody is using them; what they
/// have acknowledged is on their disks.
pub async fn open(work: &Work) -> Result<Outcome, StepError> {
    let (deployment, secrets) = work.allocated().await?;
    let provisioner = &work.cluster(&deployment)?.provisioner;
    let stop = |member| provisioner.stop(&deployment.id, member, Duration::ZERO);
    try_join_all(deployment.members.iter().map(|member| stop(&member.name))).await?;
    start(work, Access::Passwords).await?;
    await_ready(work, &deployment, &secrets, Access::Passwords).await?;
    Outcome::done()
}

/// Waits until all members serve; breaks off when one of them keeps crashing.
pub async fn await_ready(
    work: &Work,
    deployment: &Deployment,
    secrets: &DeploymentSecrets,
    access: Access,
) -> Result<(), StepError> {
    let engine = work.engine(deployment)?;
    let provisioner = &work.cluster(deployment)?.provisioner;
    tokio::select! {
        ready = engine.wait_until_ready(deployment, secrets, access) => Ok(ready?),
        crashed = a_member_keeps_crashing(provisioner.as_ref(), deployment) => Err(crashed),
    }
}

async fn a_member_keeps_crashing(
    provisioner: &dyn Provisioner,
    deployment: &Deployment,
) -> StepError {
    loop {
        tokio::time::sleep(CRASH_WATCH).await;
        match provisioner.observe(&deployment.id).await {
            Ok(members) => {
                if let Some(member) = members.iter().find(|m| m.restarts >= CRASHES_MAX) {
                    return StepError::passing(format!("member {} keeps crashing", member.member));
                }
            }
            Err(error) => return error.into(),
        }
    }
}

/// Ends and removes all that a deployment has on its cluster.
pub async fn destroy(work: &Work) -> Result<Outcome, StepError> {
    if let Some((deployment, _)) = work.deployment().await? {
        work.cluster(&deployment)?
            .provisioner
            .destroy(&deployment.id)
            .await?;
    }
    Outcome::done()
}

/// Gives the deployment's ports back; nothing listens on them any more.
pub async fn release(work: &Work) -> Result<Outcome, StepError> {
    if let Some((deployment, _)) = work.deployment().await? {
        work.write(move |conn| store::deployment::release(conn, &deployment.id))
            .await?;
    }
    Outcome::done()
}
