//! Waiting for members that start.

use etcd_client::Client;
use futures::future::try_join_all;
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::{
    engine::EngineError,
    model::{
        address::Address,
        deployment::Member,
        limits::{LISTEN_TIMEOUT, READY_LOOK_TIMEOUT, READY_POLL, READY_TIMEOUT},
    },
};

use super::{
    addresses,
    client::{Dialer, Fault, says},
};

/// Why a look at the members did not find them ready.
enum NotYet {
    /// It may be otherwise in a moment.
    Waiting(String),
    /// Waiting is of no use.
    Failed(EngineError),
}

/// Waits until the member listens for the others, without asking more of it.
///
/// A new member asks the others whether it was in their cluster before, and waits a whole second
/// for each that listens already and does not serve yet. One that is started a moment later finds
/// the others either not listening or about to serve.
pub(super) async fn listening(member: &Member) {
    let listening = async {
        while connect(addresses::peer(member)).await.is_err() {
            sleep(READY_POLL).await;
        }
    };
    // The wait for all members says why, when it takes longer.
    let _ = timeout(LISTEN_TIMEOUT, listening).await;
}

async fn connect(to: &Address) -> std::io::Result<TcpStream> {
    TcpStream::connect((to.host.as_str(), to.port)).await
}

/// Waits until all members serve, agree on a leader, and read what the majority wrote.
pub(super) async fn wait(dialer: &Dialer<'_>) -> Result<(), EngineError> {
    let deadline = Instant::now() + READY_TIMEOUT;
    loop {
        match look(dialer).await {
            Ok(()) => return Ok(()),
            Err(NotYet::Failed(error)) => return Err(error),
            Err(NotYet::Waiting(reason)) if Instant::now() >= deadline => {
                return Err(EngineError::NotReady(reason));
            }
            Err(NotYet::Waiting(_)) => sleep(READY_POLL).await,
        }
    }
}

/// Fails unless all members serve at this moment. One that stands still tells its status all the same,
/// but neither lets anybody in nor reads.
pub(super) async fn all_serve(dialer: &Dialer<'_>) -> Result<(), EngineError> {
    look(dialer).await.map_err(|not_yet| match not_yet {
        NotYet::Waiting(reason) => EngineError::NotReady(reason),
        NotYet::Failed(error) => error,
    })
}

/// One look at all members. The cheap question comes first, so that a look at members which do
/// not listen yet costs next to nothing.
async fn look(dialer: &Dialer<'_>) -> Result<(), NotYet> {
    let members = &dialer.deployment.members;
    try_join_all(members.iter().map(listens)).await?;
    let leaders = try_join_all(members.iter().map(|member| serves(dialer, member))).await?;
    if leaders.windows(2).all(|pair| pair[0] == pair[1]) {
        Ok(())
    } else {
        Err(NotYet::Waiting(
            "the members follow different leaders".to_owned(),
        ))
    }
}

async fn listens(member: &Member) -> Result<(), NotYet> {
    let connecting = connect(addresses::own(member));
    match timeout(READY_LOOK_TIMEOUT, connecting).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(waiting(member, &error.kind().to_string())),
        Err(_) => Err(waiting(member, "does not accept connections")),
    }
}

/// Whether the member serves; returns the leader it follows.
async fn serves(dialer: &Dialer<'_>, member: &Member) -> Result<u64, NotYet> {
    match timeout(READY_LOOK_TIMEOUT, leader(dialer, member)).await {
        Ok(Ok(0)) => Err(waiting(member, "knows no leader")),
        Ok(Ok(leader)) => Ok(leader),
        // Logins are decided by the majority, so this does not pass.
        Ok(Err(fault)) if fault.says(says::WRONG_PASSWORD) => Err(NotYet::Failed(
            fault.into_engine_error("logging in to a member that starts"),
        )),
        Ok(Err(Fault::Final(error))) => Err(NotYet::Failed(error)),
        Ok(Err(fault)) => Err(waiting(member, &fault.meaning())),
        Err(_) => Err(waiting(member, "does not answer")),
    }
}

/// The leader that the member follows, 0 for none. Asks nothing that needs a leader before there
/// is one: old versions let such a question hang for seconds.
async fn leader(dialer: &Dialer<'_>, member: &Member) -> Result<u64, Fault> {
    let mut client = dialer.client(member).await?;
    let early = match client.status().await {
        Ok(status) if status.leader() == 0 => return Ok(0),
        Ok(status) => Some(status.leader()),
        // New versions tell their status to the administrator alone, once there is one.
        Err(etcd_client::Error::GRpcStatus(status)) if refused(status.message()) => None,
        Err(error) => return Err(error.into()),
    };
    match dialer.become_root(&mut client).await {
        // A new deployment has no users yet.
        Err(fault) if fault.says(says::AUTH_IS_OFF) => {}
        other => other?,
    }
    read(&mut client).await?;
    match early {
        Some(leader) => Ok(leader),
        None => Ok(client.status().await?.leader()),
    }
}

fn refused(message: &str) -> bool {
    [says::NO_USER_TOLD, "permission denied"]
        .iter()
        .any(|text| message.contains(text))
}

/// A read that only a member which is in touch with the majority can answer.
async fn read(client: &mut Client) -> Result<(), Fault> {
    client.get("\0", None).await?;
    Ok(())
}

fn waiting(member: &Member, reason: &str) -> NotYet {
    NotYet::Waiting(format!("{}: {reason}", member.name))
}
