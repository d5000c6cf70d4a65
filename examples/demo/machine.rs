//! This machine: which processes, files and ports belong to the demo's databases.

use std::{
    fmt, fs, io,
    net::{Ipv4Addr, TcpListener},
    ops::Range,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    process::{Pid, Signal, kill_process},
};
use uuid::Uuid;

use crate::error::{Context, Result, ensure};

/// Below the ports that Linux hands out by itself, so that nobody gets ours by accident, and above those that tests
/// take, which may run meanwhile.
const PORTS: Range<u16> = 28_000..32_700;
const KILL_LIMIT: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What databases leave on a machine while they run.
#[derive(Debug)]
pub struct Traces {
    /// Their processes, with their programs' names.
    pub processes: Vec<(Pid, String)>,
    /// Their folders, and those of their backups.
    pub paths: Vec<PathBuf>,
    /// Their ports.
    pub ports: Vec<u16>,
}

impl Traces {
    /// How many processes, folders and ports.
    pub fn counts(&self) -> (usize, usize, usize) {
        (self.processes.len(), self.paths.len(), self.ports.len())
    }
}

/// Only counts; `{:?}` names them all.
impl fmt::Display for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (processes, folders, ports) = self.counts();
        write!(
            f,
            "{processes} processes, {folders} folders, {ports} ports in use"
        )
    }
}

/// The processes that work in a folder or have it in their command line, with their names.
pub fn processes_in(folder: &Path) -> Result<Vec<(Pid, String)>> {
    let text = folder.to_string_lossy();
    let mut found = Vec::new();
    for process in procfs::process::all_processes().context("listing the processes")? {
        // One that ended meanwhile, or is another user's, is none of ours.
        let Ok(process) = process else { continue };
        let command_line = process.cmdline().unwrap_or_default();
        let mentions_it = command_line.iter().any(|word| word.contains(&*text));
        let works_there = process.cwd().is_ok_and(|cwd| cwd.starts_with(folder));
        if (mentions_it || works_there)
            && let Some(pid) = Pid::from_raw(process.pid())
        {
            let program = command_line.first().map_or("?", String::as_str);
            let name = program.rsplit('/').next().unwrap_or(program);
            found.push((pid, name.to_owned()));
        }
    }
    Ok(found)
}

/// Kills what [`processes_in`] finds, until it finds nothing any more.
pub fn kill_processes_in(folder: &Path) -> Result<()> {
    let deadline = Instant::now() + KILL_LIMIT;
    loop {
        let found = processes_in(folder)?;
        if found.is_empty() {
            return Ok(());
        }
        for (pid, name) in &found {
            match kill_process(*pid, Signal::KILL) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => return Err(error).context(format!("killing {name}")),
            }
        }
        ensure(Instant::now() < deadline, || {
            format!("processes do not end: {found:?}")
        })?;
        thread::sleep(LOOK_AGAIN);
    }
}

/// Everything below a folder that has one of these texts in its own name.
pub fn paths_named(folder: &Path, texts: &[&str]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let reading = || format!("looking into {}", folder.display());
        // The broker takes away what it keeps no longer, also between two looks.
        let Some(entries) = unless_gone(fs::read_dir(&folder)).context(reading())? else {
            continue;
        };
        for entry in entries {
            let entry = entry.context(reading())?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if texts.iter().any(|text| name.contains(text)) {
                found.push(entry.path());
            }
            let kind = unless_gone(entry.file_type()).context(reading())?;
            if kind.is_some_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            }
        }
    }
    Ok(found)
}

fn unless_gone<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

/// So many free ports in a row, somewhere at random: other demos may run at the same time.
pub fn free_ports(count: u16) -> Result<Range<u16>> {
    let blocks = (PORTS.end - PORTS.start) / count;
    let [a, b, ..] = *Uuid::new_v4().as_bytes();
    let somewhere = u16::from_le_bytes([a, b]) % blocks;
    (0..blocks)
        .map(|i| PORTS.start + (somewhere + i) % blocks * count)
        .map(|first| first..first + count)
        .find(|block| ports_in_use(block.clone()).is_empty())
        .ok_or_else(|| format!("there are no {count} free ports in a row in {PORTS:?}").into())
}

/// Those of the ports that cannot be listened on.
pub fn ports_in_use(ports: Range<u16>) -> Vec<u16> {
    ports
        .filter(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_err())
        .collect()
}
