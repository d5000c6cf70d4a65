//! Commands in containers that run already, with bytes that go in or come out.
//!
//! What a command prints is read while it runs: what nobody reads would hold it up for ever.

use std::{io, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Status};
use kube::api::{AttachParams, AttachedProcess};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, SimplexStream},
    time::timeout,
};

use super::client::Client;
use crate::{
    model::limits::{CHUNK_BYTES, SNAPSHOT_IDLE_TIMEOUT, TASK_ERROR_BYTES_MAX},
    provisioner::ProvisionerError,
    stream::ByteStream,
};

type Result<T> = std::result::Result<T, ProvisionerError>;

/// A container that commands are run in.
#[derive(Debug, Clone)]
pub(super) struct Container {
    pub(super) pod: String,
    pub(super) name: &'static str,
}

/// How a command ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Its exit status; 0 is well.
    pub(super) code: i32,
    /// The beginning of what it printed to its standard output.
    pub(super) output: Vec<u8>,
    /// The beginning of what it printed to its standard error.
    pub(super) words: String,
}

impl Ended {
    /// What it printed, where it ended well.
    pub(super) fn well(self, doing: &str) -> Result<Vec<u8>> {
        match self.code {
            0 => Ok(self.output),
            code => Err(failed(
                doing,
                &format!("{} (exit status {code})", self.words),
            )),
        }
    }
}

fn failed(doing: &str, why: &str) -> ProvisionerError {
    ProvisionerError::Io {
        doing: doing.to_owned(),
        source: io::Error::other(why.trim().to_owned()),
    }
}

fn too_slow(doing: &str) -> ProvisionerError {
    ProvisionerError::Io {
        doing: doing.to_owned(),
        source: io::ErrorKind::TimedOut.into(),
    }
}

async fn begin(
    client: &Client,
    at: &Container,
    command: &[String],
    streams: AttachParams,
) -> Result<AttachedProcess> {
    let pods = client.objects::<Pod>();
    let streams = AttachParams {
        container: Some(at.name.to_owned()),
        max_stdin_buf_size: Some(CHUNK_BYTES),
        max_stdout_buf_size: Some(CHUNK_BYTES),
        max_stderr_buf_size: Some(CHUNK_BYTES),
        ..streams
    };
    let begun = pods.exec(&at.pod, command, &streams);
    let doing = format!("beginning a command in pod {}", at.pod);
    Ok(client.call(&doing, begun).await?)
}

/// Runs a command to its end. Of its output at most `bytes_max` are kept.
pub(super) async fn run(
    client: &Client,
    at: &Container,
    command: &[String],
    limit: Duration,
    bytes_max: usize,
) -> Result<Ended> {
    let doing = format!("running a command in pod {}", at.pod);
    let streams = AttachParams::default();
    let mut process = begin(client, at, command, streams).await?;
    let (output, words) = (process.stdout(), process.stderr());
    let status = process.take_status();
    let ended = timeout(limit, async {
        tokio::join!(
            beginning(output, bytes_max),
            beginning(words, TASK_ERROR_BYTES_MAX),
            told(status),
        )
    });
    let (output, words, status) = ended.await.map_err(|_| too_slow(&doing))?;
    Ok(Ended {
        code: code(status.as_ref()).ok_or_else(|| failed(&doing, "the connection broke off"))?,
        output,
        words: String::from_utf8_lossy(&words).into_owned(),
    })
}

/// Runs a command that reads all of `content`, and returns how many bytes it was given.
pub(super) async fn pour(
    client: &Client,
    at: &Container,
    command: &[String],
    mut content: ByteStream,
) -> Result<u64> {
    let doing = format!("writing to pod {}", at.pod);
    let streams = AttachParams {
        stdin: true,
        stdout: false,
        ..AttachParams::default()
    };
    let mut process = begin(client, at, command, streams).await?;
    let (words, status) = (process.stderr(), process.take_status());
    let mut input = process.stdin().expect("asked for");
    let fill = async {
        let mut bytes = 0;
        while let Some(chunk) = content.next().await {
            let chunk = chunk.map_err(ProvisionerError::while_doing(
                "reading what is to be staged",
            ))?;
            let written = timeout(SNAPSHOT_IDLE_TIMEOUT, input.write_all(&chunk)).await;
            written
                .map_err(|_| too_slow(&doing))?
                .map_err(ProvisionerError::while_doing(doing.clone()))?;
            bytes += chunk.len() as u64;
        }
        let shut = timeout(SNAPSHOT_IDLE_TIMEOUT, input.shutdown()).await;
        shut.map_err(|_| too_slow(&doing))?
            .map_err(ProvisionerError::while_doing(doing.clone()))?;
        Ok(bytes)
    };
    let ended = async {
        let ended = tokio::join!(beginning(words, TASK_ERROR_BYTES_MAX), told(status));
        Ok::<_, ProvisionerError>(ended)
    };
    // A command that ends too soon takes nothing more.
    let (bytes, (words, status)) = tokio::try_join!(fill, ended)?;
    match code(status.as_ref()) {
        Some(0) => Ok(bytes),
        Some(_) => Err(failed(&doing, &String::from_utf8_lossy(&words))),
        None => Err(failed(&doing, "the connection broke off")),
    }
}

/// Runs a command and gives what it prints to its standard output. One that fails ends in an error.
pub(super) async fn read(
    client: &Client,
    at: &Container,
    command: &[String],
) -> Result<ByteStream> {
    let doing = format!("reading from pod {}", at.pod);
    let streams = AttachParams {
        stderr: false,
        ..AttachParams::default()
    };
    let mut process = begin(client, at, command, streams).await?;
    let status = process.take_status();
    let output = process.stdout().expect("asked for");
    let next = move |state: Option<(ReadHalf<SimplexStream>, _, AttachedProcess)>| {
        let doing = doing.clone();
        async move {
            let Some((mut output, status, process)) = state else {
                return Ok(None);
            };
            let mut chunk = vec![0; CHUNK_BYTES];
            let reading = output.read(&mut chunk);
            let bytes = timeout(SNAPSHOT_IDLE_TIMEOUT, reading).await??;
            if bytes > 0 {
                chunk.truncate(bytes);
                return Ok(Some((Bytes::from(chunk), Some((output, status, process)))));
            }
            let status = timeout(SNAPSHOT_IDLE_TIMEOUT, told(status)).await?;
            drop::<AttachedProcess>(process);
            match code(status.as_ref()) {
                Some(0) => Ok(None),
                _ => Err(io::Error::other(format!("{doing}: it broke off"))),
            }
        }
    };
    Ok(stream::try_unfold(Some((output, status, process)), next).boxed())
}

async fn told(status: Option<impl Future<Output = Option<Status>>>) -> Option<Status> {
    status?.await
}

/// The exit status that a status tells of; none where it tells of none.
fn code(status: Option<&Status>) -> Option<i32> {
    let status = status?;
    if status.status.as_deref() == Some("Success") {
        return Some(0);
    }
    let causes = status.details.as_ref()?.causes.as_ref()?;
    let exit = causes
        .iter()
        .find(|cause| cause.reason.as_deref() == Some("ExitCode"));
    exit?.message.as_deref()?.parse().ok()
}

/// The beginning of what is printed. The rest is read too, and dropped.
async fn beginning(from: Option<impl AsyncRead + Unpin>, bytes_max: usize) -> Vec<u8> {
    let (mut kept, mut chunk) = (Vec::new(), vec![0; CHUNK_BYTES]);
    let Some(mut from) = from else {
        return kept;
    };
    // What breaks off has no status either.
    while let Ok(bytes @ 1..) = from.read(&mut chunk).await {
        let room = bytes_max.saturating_sub(kept.len());
        kept.extend_from_slice(&chunk[..bytes.min(room)]);
    }
    kept
}
