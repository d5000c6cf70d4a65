//! What is looked at and done around a change of versions.

use etcd_client::{Client, DowngradeOptions};
use tokio::time::{Instant, sleep};

use crate::{
    engine::EngineError,
    model::{
        engine::Obstacle,
        limits::{AGREEMENT_POLL, AGREEMENT_TIMEOUT},
        version::Version,
    },
};

use super::{
    client::{Dialer, says, unless_it_says},
    rolling::agreed_version,
    users,
};

/// Leases that are made and given up again so that members have something to write: two entries of
/// the log for each, and no revision.
const LEASES: usize = 4;
/// Seconds that such a lease lives, should nobody get to give it up.
const LEASE_SECONDS: i64 = 30;

/// From this line on, members of two lines side by side store passwords as they are given.
const SOUND_PASSWORDS_FROM: (u32, u32) = (3, 6);

/// What is in the way of taking the members to `to`.
pub(super) async fn obstacles(
    dialer: &Dialer<'_>,
    to: Version,
) -> Result<Vec<Obstacle>, EngineError> {
    let mut found = learners(dialer).await?;
    let enters = !dialer.deployment.version.same_line(&to);
    if enters && dialer.deployment.version.line() < SOUND_PASSWORDS_FROM {
        let open = users::without_password(dialer).await?;
        found.extend(open.into_iter().map(|user| Obstacle {
            text: format!("the user {user} can log in without a password"),
            is_mended: true,
        }));
    }
    Ok(found)
}

async fn learners(dialer: &Dialer<'_>) -> Result<Vec<Obstacle>, EngineError> {
    let listed = dialer.trying_as_root("asking for the members", |mut client| async move {
        Ok(client.member_list().await?)
    });
    let listed = listed.await?;
    let learners = listed
        .members()
        .iter()
        .filter(|member| member.is_learner())
        .map(|member| Obstacle {
            text: format!(
                "the member {} is a learner; promote or remove it first",
                member.name()
            ),
            is_mended: false,
        });
    Ok(learners.collect())
}

/// Writes entries into the log that change nothing of what the database holds.
pub(super) async fn fill_logs(dialer: &Dialer<'_>) -> Result<(), EngineError> {
    dialer
        .trying_as_root("filling the members' logs", |client| async move {
            for _ in 0..LEASES {
                let mut client: Client = client.clone();
                let lease = client.lease_grant(LEASE_SECONDS, None).await?.id();
                client.lease_revoke(lease).await?;
            }
            Ok(())
        })
        .await
}

/// Lets the members agree on the line of `to`, which is older than what they run.
pub(super) async fn begin_way_back(dialer: &Dialer<'_>, to: Version) -> Result<(), EngineError> {
    if agreed_version(dialer).await?.same_line(&to) {
        return Ok(());
    }
    dialer
        .trying_as_root("beginning the way back", |client| async move {
            let target = format!("{}.{}", to.major, to.minor);
            let mut maintenance = client.maintenance_client();
            let begun = maintenance
                .downgrade(DowngradeOptions::Enable(target))
                .await;
            unless_it_says(begun, says::WAY_BACK_BEGUN)
        })
        .await?;
    let deadline = Instant::now() + AGREEMENT_TIMEOUT;
    while !agreed_version(dialer).await?.same_line(&to) {
        if Instant::now() >= deadline {
            let text = "the members do not agree on the older version".to_owned();
            return Err(EngineError::NotReady(text));
        }
        sleep(AGREEMENT_POLL).await;
    }
    Ok(())
}

/// Until this, members that were taken back stay at the older line even when all run a newer one.
pub(super) async fn end_way_back(dialer: &Dialer<'_>) -> Result<(), EngineError> {
    dialer
        .trying_as_root("ending the way back", |client| async move {
            let mut maintenance = client.maintenance_client();
            match maintenance.downgrade(DowngradeOptions::Cancel).await {
                Err(error) if says::is_unknown_call(&error) => Ok(()),
                ended => unless_it_says(ended, says::NO_WAY_BACK),
            }
        })
        .await
}
