//! What a deployment holds, and whether that is what its backup's manifest says.

use etcd_client::{Client, EventType, GetOptions, WatchOptions};

use crate::{engine::EngineError, model::backup::SnapshotContent};

use super::{
    client::{Dialer, Fault},
    figures::figures,
};

/// Live keys at `revision`.
pub(super) async fn keys_at(dialer: &Dialer<'_>, revision: i64) -> Result<i64, EngineError> {
    dialer
        .trying_as_root("counting keys", |client| count(client, revision))
        .await
}

pub(super) async fn count(mut client: Client, revision: i64) -> Result<i64, Fault> {
    let options = GetOptions::new()
        .with_all_keys()
        .with_count_only()
        .with_revision(revision);
    Ok(client.get("", Some(options)).await?.count())
}

/// The newest revision, through a member that is in touch with the majority.
pub(super) async fn current_revision(client: &mut Client) -> Result<i64, Fault> {
    let answer = client.get("\0", None).await?;
    Ok(answer.header().map_or(0, |header| header.revision()))
}

/// Compares a restored deployment with its backup's manifest.
pub(super) async fn content(
    dialer: &Dialer<'_>,
    expected: &SnapshotContent,
) -> Result<(), EngineError> {
    dialer
        .trying_as_root(
            "comparing a restored deployment with its backup",
            |client| compare(client, expected),
        )
        .await
}

async fn compare(mut client: Client, expected: &SnapshotContent) -> Result<(), Fault> {
    let (revision_expected, keys_expected) = figures(expected)?;
    let revision = current_revision(&mut client).await?;
    if revision < revision_expected {
        return Err(different("revision", revision, revision_expected));
    }
    let keys = count(client.clone(), revision_expected).await?;
    if keys != keys_expected {
        return Err(different("number of keys", keys, keys_expected));
    }
    if revision > revision_expected {
        check_only_deleted(&mut client, revision_expected, revision).await?;
    }
    Ok(())
}

/// Leases run again after a restore, so keys may go; none may have come or changed. Looks at the
/// changes themselves: a question for keys by revision makes etcd read every value.
async fn check_only_deleted(client: &mut Client, after: i64, until: i64) -> Result<(), Fault> {
    let options = WatchOptions::new()
        .with_all_keys()
        .with_start_revision(after + 1);
    let mut changes = client.watch("", Some(options)).await?;
    while let Some(answer) = changes.message().await? {
        if answer.canceled() {
            let text = format!("etcd does not send its changes: {}", answer.cancel_reason());
            return Err(EngineError::Unexpected(text).into());
        }
        for event in answer.events() {
            let revision = event.kv().map_or(0, |key| key.mod_revision());
            if event.event_type() == EventType::Put {
                return Err(different("revision", revision, after));
            }
            if revision >= until {
                return Ok(());
            }
        }
    }
    let text = "etcd broke off telling its changes".to_owned();
    Err(EngineError::NotReady(text).into())
}

fn different(what: &str, found: i64, expected: i64) -> Fault {
    EngineError::Unexpected(format!(
        "the restored deployment is not what its backup says: {what} is {found}, not {expected}"
    ))
    .into()
}
