//! Processes of this machine, and which of them are ours.
//!
//! A process is known by its pid, its start time and the boot it belongs to, so that another
//! process that got the same pid later is never taken for it.
//!
//! Every process that we start has a *place*: a server its member's home, a task its member's
//! folder. The place is its working directory and stands in its environment as [`PLACE`], which
//! its children inherit; so all that runs for a member is found again even when nothing was
//! written down about it.

use std::{
    ffi::OsStr,
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use procfs::{
    ProcError, ProcResult,
    process::{Process, Stat},
};
use rustix::process::{Pid, Resource, Rlimit, Signal};
use serde::{Deserialize, Serialize};

use crate::model::limits::{
    EXEC_WAIT, KILL_WAIT, MEMBER_OOM_SCORE, MEMBER_OPEN_FILES_MAX, PROCESS_POLL,
};

/// The environment variable that holds the place of a process.
const PLACE: &str = "COMPOSE_BROKER_PLACE";

/// One process, never mixed up with another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProcessId {
    pub(super) pid: i32,
    /// When it started, in clock ticks since the boot.
    started_ticks: u64,
    /// The boot that this is counted from.
    boot_id: String,
}

impl ProcessId {
    /// A child that was not waited for yet: its pid is its own even if it has ended already.
    pub(super) fn of_child(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).map_err(io::Error::other)?;
        let stat = Process::new(pid).and_then(|process| process.stat());
        Self::from_stat(&stat.map_err(into_io)?)
    }

    fn from_stat(stat: &Stat) -> io::Result<Self> {
        Ok(Self {
            pid: stat.pid,
            started_ticks: stat.starttime,
            boot_id: boot_id()?.to_owned(),
        })
    }

    /// Whether it still runs. A process that has ended and whose parent has not noticed yet does
    /// not run any more.
    pub(super) fn is_alive(&self) -> io::Result<bool> {
        Ok(self.boot_id == boot_id()?
            && living(self.pid)?.is_some_and(|stat| stat.starttime == self.started_ticks))
    }

    /// Asks the process to end, kills it when it has not ended after `grace`, and returns when it
    /// is gone.
    pub(super) fn end(&self, grace: Duration) -> io::Result<()> {
        self.signal(Signal::TERM)?;
        if !self.wait_gone(grace)? {
            kill_all(|| Ok(vec![self.clone()]))?;
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        if !self.is_alive()? {
            return Ok(());
        }
        let pid = Pid::from_raw(self.pid).ok_or(io::ErrorKind::InvalidData)?;
        match rustix::process::kill_process(pid, signal) {
            Err(rustix::io::Errno::SRCH) => Ok(()),
            sent => Ok(sent?),
        }
    }

    /// Waits until the process is gone, `limit` at the most; returns whether it is.
    fn wait_gone(&self, limit: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + limit;
        while self.is_alive()? {
            if Instant::now() >= deadline {
                return Ok(false);
            }
            thread::sleep(PROCESS_POLL);
        }
        Ok(true)
    }
}

/// Kills what `find` finds, and what that has started meanwhile, until nothing is left.
pub(super) fn kill_all(find: impl Fn() -> io::Result<Vec<ProcessId>>) -> io::Result<()> {
    let deadline = Instant::now() + KILL_WAIT;
    loop {
        let mut alive = find()?;
        alive.retain(|process| process.is_alive().unwrap_or(true));
        if alive.is_empty() {
            return Ok(());
        }
        for process in &alive {
            process.signal(Signal::KILL)?;
        }
        for process in &alive {
            let left = deadline.saturating_duration_since(Instant::now());
            if !process.wait_gone(left)? {
                let pid = process.pid;
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("process {pid} was killed but does not end"),
                ));
            }
        }
    }
}

/// A process of ours.
#[derive(Debug, Clone)]
pub(super) struct PlacedProcess {
    pub(super) id: ProcessId,
    pub(super) place: PathBuf,
    /// Whether we started it ourselves: then it leads a session. Its children do not.
    pub(super) is_leader: bool,
}

/// Every living process whose place is `folder` or lies below it.
///
/// A program that overwrites its environment (to show a title) is known by running in the place
/// with a binary from `engines`. Nothing else that stands there, such as an operator's shell, is
/// ours.
pub(super) fn processes_below(folder: &Path, engines: &Path) -> io::Result<Vec<PlacedProcess>> {
    let mut found = Vec::new();
    for process in procfs::process::all_processes().map_err(into_io)? {
        let Some(process) = unless_foreign(process)? else {
            continue;
        };
        let Some(place) = place_of(&process, folder, engines)? else {
            continue;
        };
        if let Some(stat) = living(process.pid())? {
            found.push(PlacedProcess {
                id: ProcessId::from_stat(&stat)?,
                place,
                is_leader: stat.session == stat.pid,
            });
        }
    }
    Ok(found)
}

/// The place of a process, when it is `folder` or lies below it.
///
/// A program that is just being executed has no environment yet: it is looked at again, since it
/// may be a member's or anybody's. What stays without one is taken for ours, because a second
/// process on a member's files is worse than an early end of somebody's `env -i`.
fn place_of(process: &Process, folder: &Path, engines: &Path) -> io::Result<Option<PathBuf>> {
    let deadline = Instant::now() + EXEC_WAIT;
    loop {
        let Some(environment) = unless_foreign(process.environ())? else {
            return Ok(None);
        };
        if let Some(place) = environment.get(OsStr::new(PLACE)) {
            let place = PathBuf::from(place);
            return Ok(place.starts_with(folder).then_some(place));
        }
        let Some(stands_in) = unless_foreign(process.cwd())?.filter(|cwd| cwd.starts_with(folder))
        else {
            return Ok(None);
        };
        if unless_foreign(process.exe())?.is_some_and(|exe| exe.starts_with(engines)) {
            return Ok(Some(stands_in));
        }
        if !environment.is_empty() {
            return Ok(None);
        }
        if Instant::now() >= deadline {
            return Ok(Some(stands_in));
        }
        thread::sleep(PROCESS_POLL);
    }
}

/// A command that will run in `place`, in a session of its own, with an empty environment, no
/// input and bounded resources: it outlives us and takes nothing of ours with it.
pub(super) fn command(binary: &Path, place: &Path) -> Command {
    let open_files_max = rustix::process::getrlimit(Resource::Nofile)
        .maximum
        .map_or(MEMBER_OPEN_FILES_MAX, |hard| {
            hard.min(MEMBER_OPEN_FILES_MAX)
        });
    let mut command = Command::new(binary);
    command
        .env_clear()
        .env(PLACE, place)
        .current_dir(place)
        .stdin(std::process::Stdio::null());
    // SAFETY: between fork and exec only async-signal-safe functions may be called: these are
    // three plain system calls that neither allocate nor lock.
    unsafe {
        command.pre_exec(move || {
            rustix::process::setsid()?;
            // The hard limit too, since Go raises its soft limit to the hard one.
            set_limit(Resource::Nofile, open_files_max)?;
            // A core dump would hold the tenant's data.
            set_limit(Resource::Core, 0)
        });
    }
    command
}

/// When memory runs out, a member goes before the broker that looks after all of them. Where the
/// system does not let us say so, nothing is lost but that.
pub(super) fn prefer_to_broker(pid: u32) {
    let score = std::path::Path::new("/proc")
        .join(pid.to_string())
        .join("oom_score_adj");
    if let Err(error) = std::fs::write(score, MEMBER_OOM_SCORE.to_string()) {
        log::debug!("the kernel's choice of a victim stays as it is: {error}");
    }
}

fn set_limit(resource: Resource, limit: u64) -> io::Result<()> {
    let limit = Rlimit {
        current: Some(limit),
        maximum: Some(limit),
    };
    Ok(rustix::process::setrlimit(resource, limit)?)
}

fn boot_id() -> io::Result<&'static str> {
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    if let Some(id) = BOOT_ID.get() {
        return Ok(id);
    }
    let id = procfs::sys::kernel::random::boot_id().map_err(into_io)?;
    Ok(BOOT_ID.get_or_init(|| id))
}

/// What the kernel says of a process that has not ended.
fn living(pid: i32) -> io::Result<Option<Stat>> {
    let stat = unless_foreign(Process::new(pid).and_then(|process| process.stat()))?;
    Ok(stat.filter(|stat| !matches!(stat.state, 'Z' | 'X')))
}

/// `None` for a process that is gone or another user's. Any other trouble, such as no file handle
/// left, must not pass for a process that is gone: a second one would be started beside it.
fn unless_foreign<T>(result: ProcResult<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(ProcError::NotFound(_) | ProcError::PermissionDenied(_)) => Ok(None),
        Err(ProcError::Io(error, _))
            if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) =>
        {
            Ok(None)
        }
        Err(error) => Err(into_io(error)),
    }
}

fn into_io(error: ProcError) -> io::Error {
    match error {
        ProcError::Io(error, _) => error,
        error => io::Error::other(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_end_when_asked_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = command(Path::new("/bin/sh"), folder.path());
        command.args([
            "-c",
            "trap '' TERM; echo >ready; while :; do sleep 600; done",
        ]);
        let mut child = command.spawn().unwrap();
        let process = ProcessId::of_child(child.id()).unwrap();
        while !folder.path().join("ready").exists() {
            thread::sleep(PROCESS_POLL);
        }
        let below = || processes_below(folder.path(), Path::new("/nowhere")).unwrap();
        assert!(
            below()
                .iter()
                .any(|found| found.id == process && found.is_leader)
        );

        let grace = Duration::from_millis(200);
        let asked = Instant::now();
        process.end(grace).unwrap();
        assert!(asked.elapsed() >= grace);
        assert!(!process.is_alive().unwrap());
        child.wait().unwrap();
        kill_all(|| Ok(below().into_iter().map(|found| found.id).collect())).unwrap();
    }

    #[test]
    fn a_program_without_a_mark_is_known_by_its_binary_and_nothing_else_is_ours() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().canonicalize().unwrap();
        let mut unmarked = Command::new("sleep");
        let mut child = unmarked.arg("600").current_dir(&place).spawn().unwrap();
        let process = ProcessId::of_child(child.id()).unwrap();
        let binary = std::fs::read_link(format!("/proc/{}/exe", child.id())).unwrap();
        let engines = binary.parent().unwrap();

        let found = processes_below(&place, engines).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((&found[0].id, &found[0].place), (&process, &place));
        assert!(!found[0].is_leader);
        assert!(processes_below(&place, &place).unwrap().is_empty());
        assert!(
            processes_below(&place.join("m0"), engines)
                .unwrap()
                .is_empty()
        );
        process.end(KILL_WAIT).unwrap();
        child.wait().unwrap();
    }
}
