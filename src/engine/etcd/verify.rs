//! What a deployment holds, and whether that is what its backup's manifest says.

use etcd_client::{Client, CompactionOptions, EventType, GetOptions, WatchOptions};
use tokio::time::timeout;

use crate::{
    engine::EngineError,
    model::{backup::SnapshotContent, limits::HASH_TIMEOUT, proof::Evidence},
};

use super::{
    client::{Dialer, Fault, says, unless_it_says},
    figures::{self, Hash, REVISION_BUMP, figures},
};

/// What a deployment held at `revision`.
pub(super) async fn content_at(
    dialer: &Dialer<'_>,
    revision: i64,
) -> Result<SnapshotContent, EngineError> {
    dialer
        .trying_as_root("counting keys", |client| read_content(client, revision))
        .await
}

/// What a deployment holds that nobody writes to.
pub(super) async fn content_now(dialer: &Dialer<'_>) -> Result<SnapshotContent, EngineError> {
    dialer
        .trying_as_root("counting keys", |mut client| async move {
            let revision = current_revision(&mut client).await?;
            read_content(client, revision).await
        })
        .await
}

/// What the member behind `client` held at `revision`.
pub(super) async fn read_content(client: Client, revision: i64) -> Result<SnapshotContent, Fault> {
    let keys = count(client.clone(), revision).await?;
    // Without a key, versions differ in what of the history the hash goes over.
    let hash = match keys {
        0 => None,
        _ => hash(client, revision).await,
    };
    Ok(figures::content(revision, keys, hash))
}

/// The hash that a member makes of all that it holds up to `revision`; none where it does not tell it in
/// time. The member reads all of its database for that.
async fn hash(mut client: Client, revision: i64) -> Option<Hash> {
    let told = timeout(HASH_TIMEOUT, client.hash_kv(revision)).await;
    let told = told.ok()?.ok()?;
    Some(Hash {
        of_all: told.hash(),
        compacted: told.compact_version(),
    })
}

async fn count(mut client: Client, revision: i64) -> Result<i64, Fault> {
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
    // Where it was made anew in its place, the same content has a later revision.
    let revision_expected = match revision_expected + REVISION_BUMP {
        bumped if revision >= bumped => bumped,
        _ => revision_expected,
    };
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

/// Compares all that a restored deployment holds with its backup's manifest: as [`content`] does, and by the
/// hash where the manifest has one. The deployment forgets as much of its history as the hash goes without, so
/// it is one that nobody needs.
pub(super) async fn whole(
    dialer: &Dialer<'_>,
    expected: &SnapshotContent,
) -> Result<Evidence, EngineError> {
    content(dialer, expected).await?;
    let (revision, _) = figures(expected)?;
    let Some(hash) = figures::hash(expected) else {
        return Ok(Evidence::Figures);
    };
    let compare = |client| compare_hash(client, revision, hash);
    dialer
        .trying_for(
            HASH_TIMEOUT,
            "reading all of a restored deployment",
            compare,
        )
        .await
}

async fn compare_hash(
    mut client: Client,
    revision: i64,
    expected: Hash,
) -> Result<Evidence, Fault> {
    if expected.compacted > 0 {
        let options = CompactionOptions::new().with_physical();
        let forgotten = client.compact(expected.compacted, Some(options)).await;
        unless_it_says(forgotten, says::COMPACTED)?;
    }
    let told = client.hash_kv(revision).await?;
    if told.compact_version() != expected.compacted {
        // The hash was made by a member that was behind the snapshot in what it had forgotten.
        return Ok(Evidence::Figures);
    }
    if told.hash() == expected.of_all {
        Ok(Evidence::Whole)
    } else {
        let (found, expected) = (i64::from(told.hash()), i64::from(expected.of_all));
        Err(different("hash over all keys and values", found, expected))
    }
}

fn different(what: &str, found: i64, expected: i64) -> Fault {
    EngineError::Unexpected(format!(
        "the restored deployment is not what its backup says: {what} is {found}, not {expected}"
    ))
    .into()
}
