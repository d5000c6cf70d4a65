//! Room in a database that fills up.

use std::time::Duration;

use etcd_client::{Client, CompactionOptions, DeleteOptions, GetOptions};
use tokio::time::timeout;

use crate::{
    engine::{EngineError, Relief},
    model::limits::{DEFRAGMENT_TIMEOUT, ENGINE_CALL_TIMEOUT},
};

use super::{
    client::{Dialer, Fault, says, unless_it_says},
    ready, security,
    status::observe,
    verify::current_revision,
};

/// Gives a database room; returns how many keys are deleted.
pub(super) async fn relieve(dialer: &Dialer<'_>, relief: Relief<'_>) -> Result<u64, EngineError> {
    match relief {
        Relief::DeleteKeys(prefix) => return delete_keys(dialer, prefix).await,
        Relief::ForgetHistory => forget_history(dialer).await?,
        Relief::GiveBack => give_back(dialer).await?,
        Relief::GiveBackOf(place) => {
            ready::all_serve(dialer).await?;
            defragment(dialer, place).await?;
        }
        Relief::ClearAlarms => security::clear_alarms(dialer).await?,
    }
    Ok(0)
}

/// Forgets the history: whatever was deleted or written anew becomes unused storage.
async fn forget_history(dialer: &Dialer<'_>) -> Result<(), EngineError> {
    dialer
        .trying_as_root("forgetting the history", compact)
        .await
}

/// Lets each member that serves give back what it does not use, the leader last: a member answers
/// nobody meanwhile.
async fn give_back(dialer: &Dialer<'_>) -> Result<(), EngineError> {
    for index in leader_last(dialer).await {
        defragment(dialer, index).await?;
    }
    Ok(())
}

async fn compact(mut client: Client) -> Result<(), Fault> {
    let revision = current_revision(&mut client).await?;
    let options = CompactionOptions::new().with_physical();
    unless_it_says(
        client.compact(revision, Some(options)).await,
        says::COMPACTED,
    )
}

/// The places of the members that serve, that of the leader last.
async fn leader_last(dialer: &Dialer<'_>) -> Vec<usize> {
    let seen = observe(dialer).await;
    let mut places: Vec<usize> = (0..seen.len())
        .filter(|place| seen[*place].serves())
        .collect();
    places.sort_by_key(|place| seen[*place].leads());
    places
}

/// Lets the member at place `index` give back what it does not use.
async fn defragment(dialer: &Dialer<'_>, index: usize) -> Result<(), EngineError> {
    const DOING: &str = "giving unused storage back";
    let once = async {
        let mut client = dialer.client(&dialer.deployment.members[index]).await?;
        timed(ENGINE_CALL_TIMEOUT, dialer.become_root(&mut client)).await?;
        timed(DEFRAGMENT_TIMEOUT, async {
            client.defragment().await?;
            Ok(())
        })
        .await
    };
    once.await
        .map_err(|fault: Fault| fault.into_engine_error(DOING))
}

async fn timed(
    limit: Duration,
    call: impl Future<Output = Result<(), Fault>>,
) -> Result<(), Fault> {
    timeout(limit, call)
        .await
        .unwrap_or(Err(Fault::Silent(limit)))
}

/// How many keys have a prefix: what [`delete_keys`] would delete now. etcd counts in its index, and reads
/// no value.
pub(super) async fn count_keys(dialer: &Dialer<'_>, prefix: &str) -> Result<u64, EngineError> {
    needs_prefix(prefix)?;
    dialer
        .trying_as_root("counting keys", |mut client| async move {
            let options = GetOptions::new().with_prefix().with_count_only();
            let counted = client.get(prefix, Some(options)).await?.count();
            Ok(u64::try_from(counted).unwrap_or_default())
        })
        .await
}

/// Without a prefix, etcd would take nothing or everything, as it is asked; nobody means that.
fn needs_prefix(prefix: &str) -> Result<(), EngineError> {
    if prefix.is_empty() {
        let text = "keys are deleted by a prefix, and there is none".to_owned();
        return Err(EngineError::Unexpected(text));
    }
    Ok(())
}

/// Deletes every key with a prefix.
async fn delete_keys(dialer: &Dialer<'_>, prefix: &str) -> Result<u64, EngineError> {
    needs_prefix(prefix)?;
    dialer
        .trying_as_root("deleting keys", |mut client| async move {
            let options = DeleteOptions::new().with_prefix();
            let deleted = client.delete(prefix, Some(options)).await?.deleted();
            Ok(u64::try_from(deleted).unwrap_or_default())
        })
        .await
}
