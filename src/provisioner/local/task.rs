//! Programs that run once and end.
//!
//! Invariants: what they print is read to its end but kept only up to a limit; they end in time or
//! are killed; dropping a [`RunningTask`] kills it and its children.

use std::{
    io,
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Child,
    time::timeout,
};

use super::process;
use crate::model::limits::{KILL_WAIT, TASK_ERROR_BYTES_MAX, TASK_OUTPUT_BYTES_MAX};

const READ_BYTES: usize = 8 * 1024;

/// A program that runs.
pub(super) struct RunningTask(Child);

/// How a program ended.
pub(super) struct EndedTask {
    pub(super) status: ExitStatus,
    /// The beginning of its standard output.
    stdout: Vec<u8>,
    /// The end of its standard error.
    stderr: Vec<u8>,
}

impl RunningTask {
    /// Starts a command made by [`process::command`].
    pub(super) fn spawn(mut command: Command) -> io::Result<Self> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut command = tokio::process::Command::from(command);
        let task = Self(command.kill_on_drop(true).spawn()?);
        task.0.id().map_or(Ok(()), process::confine)?;
        Ok(task)
    }

    /// Waits for the program to end; `None` when it did not within `limit` and was killed.
    pub(super) async fn end(mut self, limit: Duration) -> io::Result<Option<EndedTask>> {
        let stdout = self.0.stdout.take().expect("spawned with a pipe");
        let stderr = self.0.stderr.take().expect("spawned with a pipe");
        let ended = timeout(limit, async {
            tokio::try_join!(
                self.0.wait(),
                read_beginning(stdout, TASK_OUTPUT_BYTES_MAX),
                read_end(stderr, TASK_ERROR_BYTES_MAX),
            )
        })
        .await;
        match ended {
            Ok(ended) => ended.map(|(status, stdout, stderr)| {
                Some(EndedTask {
                    status,
                    stdout,
                    stderr,
                })
            }),
            Err(_) => {
                self.kill();
                // The next try must not meet it. If even this takes too long, the next
                // task of the member kills it once more.
                let _ = timeout(KILL_WAIT, self.0.wait()).await;
                Ok(None)
            }
        }
    }

    /// Kills the program with its children: it leads a process group. Once it was waited for, the
    /// group's number may be another's.
    fn kill(&self) {
        let group = self.0.id().and_then(|id| i32::try_from(id).ok());
        if let Some(group) = group.and_then(Pid::from_raw) {
            // The only failure is that nobody is left.
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for RunningTask {
    fn drop(&mut self) {
        self.kill();
    }
}

impl EndedTask {
    /// What it printed to its standard output.
    pub(super) fn output(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The end of everything it printed, to explain a failure.
    pub(super) fn last_words(&self) -> String {
        let from = self.stdout.len().saturating_sub(TASK_ERROR_BYTES_MAX);
        let words = [&self.stdout[from..], &self.stderr].map(String::from_utf8_lossy);
        let words = words.each_ref().map(|text| text.trim());
        words.join("\n").trim().to_owned()
    }
}

async fn read_beginning(mut from: impl AsyncRead + Unpin, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    let mut chunk = [0; READ_BYTES];
    loop {
        let read = from.read(&mut chunk).await?;
        if read == 0 {
            return Ok(kept);
        }
        let room = bytes_max - kept.len();
        kept.extend_from_slice(&chunk[..read.min(room)]);
    }
}

async fn read_end(mut from: impl AsyncRead + Unpin, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    let mut chunk = [0; READ_BYTES];
    loop {
        let read = from.read(&mut chunk).await?;
        if read == 0 {
            return Ok(kept);
        }
        kept.extend_from_slice(&chunk[..read]);
        kept.drain(..kept.len().saturating_sub(bytes_max));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reading_goes_on_but_keeping_stops_at_the_limit() {
        let printed: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
        let beginning = read_beginning(printed.as_slice(), 1000).await.unwrap();
        assert_eq!(beginning, &printed[..1000]);
        let end = read_end(printed.as_slice(), 1000).await.unwrap();
        assert_eq!(end, &printed[99_000..]);
    }
}
