//! Snapshots of a running deployment.
//!
//! A snapshot shows one member at the moment it is begun, however long it takes to send. When
//! that member is at the same revision before and after this moment, the snapshot is of that
//! revision; so what is in it is known without reading it, and while others write.

use std::{cmp::Reverse, io};

use bytes::Bytes;
use etcd_client::{Client, SnapshotResponse, SnapshotStreaming};
use futures::{
    StreamExt,
    future::{join_all, ready},
    stream,
};
use tokio::time::timeout;

use crate::{
    engine::{EngineError, Snapshot},
    model::{
        backup::SnapshotContent,
        deployment::Member,
        limits::{ENGINE_CALL_TIMEOUT, HASH_TIMEOUT, SNAPSHOT_BEGINS_MAX, SNAPSHOT_IDLE_TIMEOUT},
    },
    stream::ByteStream,
};

use super::{
    client::{Dialer, Fault},
    trailer::{TRAILER_BYTES, checked},
    verify::{current_revision, read_content},
};

const DOING: &str = "asking a member for its data";

/// A member that a snapshot can be taken of.
struct Source {
    client: Client,
    leads: bool,
    revision: i64,
    database_bytes: u64,
}

/// Begins a snapshot of the best member that answers.
pub(super) async fn begin(dialer: &Dialer<'_>) -> Result<Snapshot, EngineError> {
    let mut failure = EngineError::NotReady("it has no members".to_owned());
    for source in sources(dialer).await {
        match source {
            Ok(source) => match begin_on(source).await {
                Ok(snapshot) => return Ok(snapshot),
                Err(fault) => failure = fault.into_engine_error(DOING),
            },
            Err(fault) => failure = fault.into_engine_error(DOING),
        }
    }
    Err(failure)
}

/// The members, best first: followers before the leader, whose work should not be slowed, and the
/// one that is furthest before those behind; last those that do not answer.
async fn sources(dialer: &Dialer<'_>) -> Vec<Result<Source, Fault>> {
    let members = &dialer.deployment.members;
    let asked = members.iter().map(|member| async move {
        let asking = ask(dialer, member);
        timeout(ENGINE_CALL_TIMEOUT, asking)
            .await
            .unwrap_or(Err(Fault::Silent(ENGINE_CALL_TIMEOUT)))
    });
    let mut sources = join_all(asked).await;
    sources.sort_by_key(|source| match source {
        Ok(source) => (0, source.leads, Reverse(source.revision)),
        Err(_) => (1, true, Reverse(0)),
    });
    sources
}

async fn ask(dialer: &Dialer<'_>, member: &Member) -> Result<Source, Fault> {
    let mut client = dialer.client(member).await?;
    dialer.become_root(&mut client).await?;
    let status = client.status().await?;
    let (id, revision) = status
        .header()
        .map_or((0, 0), |header| (header.member_id(), header.revision()));
    Ok(Source {
        client,
        leads: status.leader() == id,
        revision,
        database_bytes: u64::try_from(status.db_size()).unwrap_or_default(),
    })
}

async fn begin_on(mut source: Source) -> Result<Snapshot, Fault> {
    let mut tries_left = SNAPSHOT_BEGINS_MAX;
    loop {
        tries_left -= 1;
        let (stream, first, revision) = open(&mut source.client).await?;
        if revision.is_none() && tries_left > 0 {
            continue;
        }
        let known = match revision {
            Some(revision) => content(&source.client, revision).await,
            None => None,
        };
        return Ok(Snapshot {
            bytes_expected: source.database_bytes + TRAILER_BYTES as u64,
            known,
            content: checked(bytes(first, stream, source.client)),
        });
    }
}

/// Opens a snapshot; with its revision, if nobody wrote in that moment. The read before it goes
/// by the majority, so that a member which is behind catches up first.
async fn open(
    client: &mut Client,
) -> Result<(SnapshotStreaming, SnapshotResponse, Option<i64>), Fault> {
    let opening = async {
        let before = current_revision(client).await?;
        let mut stream = client.snapshot().await?;
        // The member holds the snapshot fast before it sends the first of it.
        let first = stream.message().await?.ok_or_else(empty)?;
        let status = client.status().await?;
        let after = status.header().map_or(0, |header| header.revision());
        Ok((stream, first, (before == after).then_some(after)))
    };
    timeout(SNAPSHOT_IDLE_TIMEOUT, opening)
        .await
        .unwrap_or(Err(Fault::Silent(SNAPSHOT_IDLE_TIMEOUT)))
}

fn empty() -> Fault {
    EngineError::NotReady("the snapshot is empty".to_owned()).into()
}

/// What is in the deployment at `revision`. When that can no longer be told, the stored snapshot
/// will have to tell.
async fn content(client: &Client, revision: i64) -> Option<SnapshotContent> {
    let reading = read_content(client.clone(), revision);
    let content = timeout(ENGINE_CALL_TIMEOUT + HASH_TIMEOUT, reading).await;
    content.ok()?.ok()
}

/// The snapshot's bytes. Read to the real end of the stream: the count of remaining bytes that
/// etcd sends along leaves out the trailer.
fn bytes(first: SnapshotResponse, stream: SnapshotStreaming, client: Client) -> ByteStream {
    // The client is kept beside the stream, since its connection carries the stream.
    let rest = stream::try_unfold((stream, client), |(mut stream, client)| async move {
        let message = match timeout(SNAPSHOT_IDLE_TIMEOUT, stream.message()).await {
            Ok(message) => message.map_err(Fault::from),
            Err(_) => Err(Fault::Silent(SNAPSHOT_IDLE_TIMEOUT)),
        };
        let message = message.map_err(|fault| io::Error::other(fault.into_engine_error(DOING)))?;
        Ok(message.map(|message| (chunk(&message), (stream, client))))
    });
    stream::once(ready(Ok(chunk(&first)))).chain(rest).boxed()
}

fn chunk(message: &SnapshotResponse) -> Bytes {
    Bytes::copy_from_slice(message.blob())
}
