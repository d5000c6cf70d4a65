//! What members print: files that are turned over when they are large, and that are read while they
//! grow and are turned over.
//!
//! A member appends to its log and knows nothing of it; so a large log is copied away and emptied.
//! A reader gets what was there when the reading began, and no line of later: a reading that is
//! overtaken goes on in the copy. What tells is the copy's identity on disk, which changes before the
//! log is emptied.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::Path,
};

use super::folders::MemberFolder;
use crate::{
    disk,
    model::{
        limits::CHUNK_BYTES,
        logfile::{LogPart, Logfile},
        server::{FILES, HOME},
    },
    provisioner::lines::Lines,
};

/// In a log: the folder of all engines.
const ENGINES: &str = "{engines}";
/// In a log: the folder of all members.
const CLUSTER: &str = "{cluster}";
/// As much of a log as tells it from others, in bytes: its first lines, with their times.
const HEAD_BYTES: u64 = 4096;

/// Copies a log of more than `bytes_max` away and empties it. What is printed between the two is lost:
/// the price for a member that needs to know nothing of it.
pub(super) fn turn_over(folder: &MemberFolder, bytes_max: u64) -> io::Result<()> {
    let log = folder.log();
    let Some(found) = disk::there(fs::metadata(&log))? else {
        return Ok(());
    };
    if found.len() <= bytes_max {
        return Ok(());
    }
    let emptied = File::options().write(true).open(&log)?;
    // Nobody begins to read in between.
    emptied.lock()?;
    let unfinished = folder.unfinished_log();
    fs::copy(&log, &unfinished)?;
    // Not durably: what is printed while a disk takes its time would be lost, too.
    disk::replace(&unfinished, &folder.older_log())?;
    // The member appends, so its next line goes to the new beginning.
    emptied.set_len(0)
}

/// The logs of a member that are there.
pub(super) fn list(folder: &MemberFolder) -> io::Result<Vec<Logfile>> {
    let mut found = Vec::new();
    for part in LogPart::ALL {
        if let Some(file) = disk::there(fs::metadata(path(folder, part)))? {
            found.push(Logfile {
                member: folder.name.clone(),
                part,
                bytes: file.len(),
                written_at: file.modified()?.into(),
            });
        }
    }
    Ok(found)
}

/// How long a member's current log is, in bytes.
pub(super) fn length(folder: &MemberFolder) -> io::Result<u64> {
    let found = disk::there(fs::metadata(folder.log()))?;
    Ok(found.map_or(0, |log| log.len()))
}

/// The end of a member's current log from the byte `from` on, at most `bytes_max`. One that is
/// shorter than that was turned over meanwhile: all of it is of later.
pub(super) fn end(folder: &MemberFolder, from: u64, bytes_max: u64) -> io::Result<String> {
    let Some(log) = disk::there(File::open(folder.log()))? else {
        return Ok(String::new());
    };
    let length = log.metadata()?.len();
    let from = if from > length { 0 } else { from };
    let from = from.max(length.saturating_sub(bytes_max));
    let bytes = bytes_at(&log, from, length - from)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn path(folder: &MemberFolder, part: LogPart) -> std::path::PathBuf {
    match part {
        LogPart::Current => folder.log(),
        LogPart::Older => folder.older_log(),
    }
}

/// A log that is being read, in whole lines.
#[derive(Debug)]
pub(super) struct Reading {
    folder: MemberFolder,
    file: File,
    /// Of the current log: what stands beside it as long as it was not turned over. Held open, so
    /// that nothing else can get its identity.
    older: Option<Option<File>>,
    /// How the log begins: what tells its copy from a later log's.
    head: Vec<u8>,
    at: u64,
    end: u64,
    lines: Lines,
}

impl Reading {
    /// Begins to read a log; none when it is not there. `last`: at most so many bytes of its end, from
    /// the beginning of a line on; none: all of it. `cluster`, `engines`: folders that are not told.
    pub(super) fn begin(
        folder: MemberFolder,
        part: LogPart,
        last: Option<u64>,
        (cluster, engines): (&Path, &Path),
    ) -> io::Result<Option<Self>> {
        let Some(file) = disk::there(File::open(path(&folder, part)))? else {
            return Ok(None);
        };
        let older = match part {
            LogPart::Older => None,
            LogPart::Current => {
                file.lock_shared()?;
                Some(disk::there(File::open(folder.older_log()))?)
            }
        };
        let end = file.metadata()?.len();
        let head = bytes_at(&file, 0, end.min(HEAD_BYTES))?;
        if part == LogPart::Current {
            file.unlock()?;
        }
        // From one byte before on: where that ends a line, the next one is whole.
        let cut = last.map_or(0, |last| end.saturating_sub(last));
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let places = vec![
            (text(&folder.home()), HOME),
            (text(&folder.files()), FILES),
            (text(cluster), CLUSTER),
            (text(engines), ENGINES),
        ];
        Ok(Some(Self {
            folder,
            file,
            older,
            head,
            at: cut.saturating_sub(1),
            end,
            lines: Lines::new(cut > 0, places),
        }))
    }

    /// The next whole lines, as text without control characters and without places of this machine;
    /// empty at the end.
    pub(super) fn next(&mut self) -> io::Result<String> {
        let mut lines = String::new();
        while lines.is_empty() {
            let chunk = self.chunk()?;
            if chunk.is_empty() {
                self.lines.end(&mut lines);
                break;
            }
            self.lines.take(&chunk, &mut lines);
        }
        Ok(lines)
    }

    /// The next bytes of what was there at the beginning; empty at the end.
    fn chunk(&mut self) -> io::Result<Vec<u8>> {
        let wanted = (self.end - self.at).min(CHUNK_BYTES as u64);
        let mut chunk = bytes_at(&self.file, self.at, wanted)?;
        if self.was_turned_over()? {
            // What was just read may be of later. The copy has all of before, and is never changed.
            let copy = File::open(self.folder.older_log())?;
            if bytes_at(&copy, 0, self.head.len() as u64)? != self.head {
                return Err(io::Error::other("the log was turned over too often"));
            }
            chunk = bytes_at(&copy, self.at, wanted)?;
            self.file = copy;
            self.older = None;
        }
        self.at += chunk.len() as u64;
        Ok(chunk)
    }

    fn was_turned_over(&self) -> io::Result<bool> {
        let Some(before) = &self.older else {
            return Ok(false);
        };
        let identity = |file: fs::Metadata| (file.dev(), file.ino());
        let before = before.as_ref().map(File::metadata).transpose()?;
        let now = disk::there(fs::metadata(self.folder.older_log()))?;
        Ok(before.map(identity) != now.map(identity))
    }
}

/// The bytes of a file from a place on, fewer where it ends.
fn bytes_at(file: &File, at: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], at + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

#[cfg(test)]
mod tests;
