//! Processes of this machine, and which of them are ours.
//!
//! A process is known by its pid, its start time and the boot it belongs to, so that another
//! process that got the same pid later is never taken for it.
//!
//! Every process that we start has a *place*: a server its member's home, a task its member's
//! folder. The place is its working directory and stands in its environment as [`PLACE`], which
//! its children inherit; so all that runs for a member is found again even when nothing was
//! written down about it.
//!
//! Invariant: ours is what runs in a place of ours, and a place is known by device and inode, not
//! by its path. In a copy of a cluster's folder nothing runs, whatever the records in it say; in
//! one that was moved, everything still does. That is looked at again before each signal, on a
//! handle that leads to no other process.

use std::{
    ffi::OsStr,
    fs,
    io::{self, Read as _},
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use memchr::{memchr, memmem};
use procfs::{
    ProcError, ProcResult,
    process::{Process, Stat},
};
use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Resource, Rlimit, Signal},
};
use serde::{Deserialize, Serialize};

use crate::{
    folder::FolderId,
    model::limits::{EXEC_WAIT, KILL_WAIT, MEMBER_OOM_SCORE, MEMBER_OPEN_FILES_MAX, PROCESS_POLL},
};

/// The environment variable that holds the place of a process.
const PLACE: &str = "COMPOSE_BROKER_PLACE";
/// What stands before it in an environment.
const PLACE_IS: &[u8] = b"COMPOSE_BROKER_PLACE=";

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

    /// The process, if it still runs, and runs in `place`: in the very folder that this path leads
    /// to now, or in one that was there and is removed.
    pub(super) fn in_place(&self, place: &Path) -> io::Result<Option<OwnProcess>> {
        if !self.is_alive()? {
            return Ok(None);
        }
        let Some(process) = unless_foreign(Process::new(self.pid))? else {
            return Ok(None);
        };
        let Some(stands_in) = WorkingDirectory::of(&process)? else {
            return Ok(None);
        };
        let runs_here = FolderId::of(place)? == Some(stands_in.id)
            || (stands_in.is_removed && mark_of(&process)?.as_deref() == Some(place));
        Ok(runs_here.then(|| OwnProcess {
            id: self.clone(),
            stands_in: stands_in.id,
        }))
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

/// A process that runs in a folder of ours: one that may be sent signals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OwnProcess {
    pub(super) id: ProcessId,
    /// Its working directory.
    stands_in: FolderId,
}

impl OwnProcess {
    /// A child that was just started in the folder `stands_in`.
    pub(super) fn of_child(pid: u32, stands_in: FolderId) -> io::Result<Self> {
        Ok(Self {
            id: ProcessId::of_child(pid)?,
            stands_in,
        })
    }

    /// Asks the process to end, kills it when it has not ended after `grace`, and returns when it
    /// is gone.
    pub(super) fn end(&self, grace: Duration) -> io::Result<()> {
        self.signal(Signal::TERM)?;
        if !self.id.wait_gone(grace)? {
            kill_all(|| Ok(vec![self.clone()]))?;
        }
        Ok(())
    }

    /// Whether the folder that it stands in was moved since it was started. What it opens by the
    /// path that it was given is another file then, or none.
    pub(super) fn was_moved(&self) -> io::Result<bool> {
        let Some(process) = unless_foreign(Process::new(self.id.pid))? else {
            return Ok(false);
        };
        let (Some(mark), Some(stands_in)) = (mark_of(&process)?, WorkingDirectory::of(&process)?)
        else {
            return Ok(false);
        };
        Ok(!stands_in.is_removed && FolderId::of(&mark)? != Some(stands_in.id))
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = Pid::from_raw(self.id.pid).ok_or(io::ErrorKind::InvalidData)?;
        let handle = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => Some(handle),
            // Nobody has the pid, or a mere thread has it by now.
            Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => return Ok(()),
            // Linux before 5.3, or a container that does not let the call through.
            Err(Errno::NOSYS | Errno::PERM) => None,
            Err(error) => return Err(error.into()),
        };
        // Looked at after the handle was opened: it leads to this process or to none.
        if !self.id.is_alive()? {
            return Ok(());
        }
        let Some(process) = unless_foreign(Process::new(self.id.pid))? else {
            return Ok(());
        };
        match WorkingDirectory::of(&process)? {
            Some(folder) if folder.id == self.stands_in => {}
            _ => return Ok(()),
        }
        let sent = match &handle {
            Some(handle) => rustix::process::pidfd_send_signal(handle, signal),
            None => rustix::process::kill_process(pid, signal),
        };
        match sent {
            Err(Errno::SRCH) => Ok(()),
            sent => Ok(sent?),
        }
    }
}

/// Kills what `find` finds, and what that has started meanwhile, until nothing is left.
pub(super) fn kill_all(find: impl Fn() -> io::Result<Vec<OwnProcess>>) -> io::Result<()> {
    let deadline = Instant::now() + KILL_WAIT;
    loop {
        let mut alive = find()?;
        alive.retain(|process| process.id.is_alive().unwrap_or(true));
        if alive.is_empty() {
            return Ok(());
        }
        for process in &alive {
            process.signal(Signal::KILL)?;
        }
        for process in &alive {
            let left = deadline.saturating_duration_since(Instant::now());
            if !process.id.wait_gone(left)? {
                let pid = process.id.pid;
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("process {pid} was killed but does not end"),
                ));
            }
        }
    }
}

/// Where a process stands.
struct WorkingDirectory {
    id: FolderId,
    /// As the kernel tells it. It leads there only if [`FolderId::of`] says so: the process may see
    /// other mounts.
    path: PathBuf,
    /// Whether it was removed from under the process.
    is_removed: bool,
}

impl WorkingDirectory {
    /// None for a process that is gone or another user's.
    fn of(process: &Process) -> io::Result<Option<Self>> {
        let Some(path) = unless_foreign(process.cwd())? else {
            return Ok(None);
        };
        let link = Path::new("/proc").join(process.pid().to_string());
        let seen = match fs::metadata(link.join("cwd")) {
            Ok(seen) => seen,
            Err(error) if is_of_nobody(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Some(Self {
            id: FolderId::from(&seen),
            path,
            is_removed: seen.nlink() == 0,
        }))
    }
}

/// A process that carries our mark, or runs a binary of the engines, in a certain place.
#[derive(Debug, Clone)]
pub(super) struct PlacedProcess {
    pub(super) process: OwnProcess,
    pub(super) place: PathBuf,
    /// Whether we started it ourselves: then it leads a process group. Its children do not.
    pub(super) is_leader: bool,
}

/// What runs on this machine for members, seen from one folder.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// What runs in the folder or below it.
    pub(super) ours: Vec<PlacedProcess>,
    /// What carries our mark and runs elsewhere.
    elsewhere: Vec<Elsewhere>,
}

/// A process of another cluster's folder. It is none of our business, unless that folder has a
/// deployment of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Elsewhere {
    pub(super) pid: i32,
    /// The place that it carries.
    pub(super) place: PathBuf,
}

impl Found {
    /// What runs for a deployment of that name in another folder: the one that ours is a copy of, or
    /// a copy of ours.
    pub(super) fn namesake(&self, deployment: &str) -> Option<&Elsewhere> {
        let names = |process: &&Elsewhere| process.place.iter().any(|part| part == deployment);
        self.elsewhere.iter().find(names)
    }
}

/// Looks at every living process: which of them run in `folder` or below it, and which run for
/// members elsewhere.
///
/// A program that overwrites its environment (to show a title) is known by running in the place
/// with a binary from `engines`. Nothing else that stands there, such as an operator's shell, is
/// ours.
pub(super) fn processes_below(folder: &Path, engines: &Path) -> io::Result<Found> {
    let mut found = Found::default();
    for process in procfs::process::all_processes().map_err(into_io)? {
        let Some(process) = unless_foreign(process)? else {
            continue;
        };
        let Some((place, stands_in)) = place_of(&process, folder, engines)? else {
            continue;
        };
        let Some(stat) = living(process.pid())? else {
            continue;
        };
        match place {
            Whereabouts::Ours(place) => found.ours.push(PlacedProcess {
                process: OwnProcess {
                    id: ProcessId::from_stat(&stat)?,
                    stands_in,
                },
                place,
                is_leader: stat.pgrp == stat.pid,
            }),
            Whereabouts::Elsewhere(place) => found.elsewhere.push(Elsewhere {
                pid: stat.pid,
                place,
            }),
        }
    }
    Ok(found)
}

enum Whereabouts {
    /// It is the folder that was asked for, or lies below it.
    Ours(PathBuf),
    /// It carries our mark and stands elsewhere.
    Elsewhere(PathBuf),
}

/// The place of a process that is one of ours, or of a namesake of ours.
///
/// A program that is just being executed has no environment yet: it is looked at again, since it
/// may be a member's or anybody's. What stays without one is taken for ours, because a second
/// process on a member's files is worse than an early end of somebody's `env -i`.
fn place_of(
    process: &Process,
    folder: &Path,
    engines: &Path,
) -> io::Result<Option<(Whereabouts, FolderId)>> {
    let deadline = Instant::now() + EXEC_WAIT;
    loop {
        let Some(environment) = unless_foreign(environment(process))? else {
            return Ok(None);
        };
        let Some(stands_in) = WorkingDirectory::of(process)? else {
            return Ok(None);
        };
        if let Some(mark) = mark_in(&environment) {
            let place = match place_below(folder, &mark, &stands_in)? {
                Some(place) => Whereabouts::Ours(place),
                None => Whereabouts::Elsewhere(mark),
            };
            return Ok(Some((place, stands_in.id)));
        }
        if !is_below(folder, &stands_in)? {
            return Ok(None);
        }
        let ours = || {
            Ok(Some((
                Whereabouts::Ours(stands_in.path.clone()),
                stands_in.id,
            )))
        };
        if unless_foreign(process.exe())?.is_some_and(|exe| exe.starts_with(engines)) {
            return ours();
        }
        if !environment.is_empty() {
            return Ok(None);
        }
        if Instant::now() >= deadline {
            return ours();
        }
        thread::sleep(PROCESS_POLL);
    }
}

/// What a process that carries the mark `mark` stands in, as a path of ours: `folder` or below it.
fn place_below(
    folder: &Path,
    mark: &Path,
    stands_in: &WorkingDirectory,
) -> io::Result<Option<PathBuf>> {
    if mark.starts_with(folder) {
        let is_there = FolderId::of(mark)? == Some(stands_in.id) || stands_in.is_removed;
        // A child of a member may have gone deeper into its place.
        if is_there || (stands_in.path.starts_with(mark) && is_below(folder, stands_in)?) {
            return Ok(Some(mark.to_owned()));
        }
    }
    if is_below(folder, stands_in)? {
        return Ok(Some(stands_in.path.clone()));
    }
    // The same folder may have another path, as where it is mounted in two places.
    let parts: Vec<_> = mark.components().collect();
    for from in 1..=parts.len() {
        let place = folder.join(parts[from..].iter().collect::<PathBuf>());
        if FolderId::of(&place)? == Some(stands_in.id) {
            return Ok(Some(place));
        }
    }
    Ok(None)
}

fn is_below(folder: &Path, stands_in: &WorkingDirectory) -> io::Result<bool> {
    Ok(stands_in.path.starts_with(folder) && FolderId::of(&stands_in.path)? == Some(stands_in.id))
}

/// The place that a process carries.
fn mark_of(process: &Process) -> io::Result<Option<PathBuf>> {
    let environment = unless_foreign(environment(process))?;
    Ok(environment.and_then(|environment| mark_in(&environment)))
}

/// The environment of a process as the kernel tells it: `NAME=value` and a NUL after each. All processes of the
/// machine are looked through for one variable, so the others are not made into texts.
fn environment(process: &Process) -> ProcResult<Vec<u8>> {
    let mut environment = Vec::new();
    process
        .open_relative("environ")?
        .read_to_end(&mut environment)?;
    Ok(environment)
}

/// The place in an environment.
fn mark_in(environment: &[u8]) -> Option<PathBuf> {
    let mut found = memmem::find_iter(environment, PLACE_IS);
    let at = found.find(|&at| at == 0 || environment[at - 1] == 0)?;
    let value = &environment[at + PLACE_IS.len()..];
    let value = &value[..memchr(0, value).unwrap_or(value.len())];
    Some(PathBuf::from(OsStr::from_bytes(value)))
}

/// A command that will run in `place`, in a process group of its own, with an empty environment and
/// no input: it outlives us and takes nothing of ours with it. What has started, [`confine`] bounds.
///
/// It asks for nothing that the system could do only in a copy of ourselves (`fork`): to copy the map
/// of a broker's memory takes longer than the rest of a start.
pub(super) fn command(binary: &Path, place: &Path) -> Command {
    let mut command = Command::new(binary);
    command
        .env_clear()
        .env(PLACE, place)
        .current_dir(place)
        .stdin(std::process::Stdio::null())
        .process_group(0);
    command
}

/// Bounds the resources of a child that was just started and was not waited for.
pub(super) fn confine(pid: u32) -> io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
    // The hard limits too, since Go raises its soft limits to them.
    let limit = |resource, most: u64| {
        let hard = rustix::process::getrlimit(resource).maximum;
        let limit = Some(hard.map_or(most, |hard| hard.min(most)));
        let limit = Rlimit {
            current: limit,
            maximum: limit,
        };
        rustix::process::prlimit(Some(pid), resource, limit)
    };
    limit(Resource::Nofile, MEMBER_OPEN_FILES_MAX)?;
    // A core dump would hold the tenant's data.
    limit(Resource::Core, 0)?;
    Ok(())
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
    Ok(stat.filter(|stat| !has_ended(stat)))
}

/// Whether all threads of a process have ended. The kernel tells of the first one: when a process is
/// killed on a busy machine, others may write and have its ports and locks a while longer.
fn has_ended(stat: &Stat) -> bool {
    match stat.state {
        'Z' => stat.num_threads <= 1,
        state => state == 'X',
    }
}

/// `None` for a process that is gone or another user's. Any other trouble, such as no file handle
/// left, must not pass for a process that is gone: a second one would be started beside it.
fn unless_foreign<T>(result: ProcResult<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(ProcError::NotFound(_) | ProcError::PermissionDenied(_)) => Ok(None),
        Err(ProcError::Io(error, _)) if is_of_nobody(&error) => Ok(None),
        Err(error) => Err(into_io(error)),
    }
}

/// Whether the kernel says so of a process that is gone or another user's.
fn is_of_nobody(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    let gone = [Errno::SRCH, Errno::NOENT, Errno::ACCESS, Errno::PERM];
    gone.iter()
        .any(|errno| number == Some(errno.raw_os_error()))
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
    fn the_place_of_a_process_is_the_value_of_one_variable() {
        let place = |environment: &[u8]| mark_in(environment);
        let is = |path: &str| Some(PathBuf::from(path));
        assert_eq!(place(b""), None);
        assert_eq!(place(b"PATH=/bin\0HOME=/\0"), None);
        assert_eq!(place(b"COMPOSE_BROKER_PLACE=/a b\0"), is("/a b"));
        assert_eq!(place(b"A=1\0COMPOSE_BROKER_PLACE=/a\0B=2\0"), is("/a"));
        assert_eq!(place(b"A=1\0COMPOSE_BROKER_PLACE=/cut"), is("/cut"));
        assert_eq!(place(b"A=1\0COMPOSE_BROKER_PLACE=\0"), is(""));
        let others =
            b"NO_COMPOSE_BROKER_PLACE=/a\0A=COMPOSE_BROKER_PLACE=/b\0COMPOSE_BROKER_PLACES=/c\0";
        assert_eq!(place(others), None);
        let last = [&others[..], b"COMPOSE_BROKER_PLACE=/d\0"].concat();
        assert_eq!(place(&last), is("/d"));
        assert_eq!(PLACE_IS, format!("{PLACE}=").as_bytes());
    }

    #[test]
    fn who_does_not_end_when_asked_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = command(Path::new("/bin/sh"), folder.path());
        command.args([
            "-c",
            "trap '' TERM; echo >ready; while :; do sleep 600; done",
        ]);
        let mut child = command.spawn().unwrap();
        let stands_in = FolderId::of(folder.path()).unwrap().unwrap();
        let process = OwnProcess::of_child(child.id(), stands_in).unwrap();
        while !folder.path().join("ready").exists() {
            thread::sleep(PROCESS_POLL);
        }
        let below = || {
            let found = processes_below(folder.path(), Path::new("/nowhere"));
            found.unwrap().ours
        };
        assert!(
            below()
                .iter()
                .any(|found| found.process == process && found.is_leader)
        );

        let grace = Duration::from_millis(200);
        let asked = Instant::now();
        process.end(grace).unwrap();
        assert!(asked.elapsed() >= grace);
        assert!(!process.id.is_alive().unwrap());
        child.wait().unwrap();
        kill_all(|| Ok(below().into_iter().map(|found| found.process).collect())).unwrap();
    }

    #[test]
    fn a_process_has_ended_with_its_last_thread() {
        let mut stat = Process::myself().unwrap().stat().unwrap();
        assert!(!has_ended(&stat));
        stat.state = 'Z';
        for (threads, ended) in [(2, false), (1, true), (0, true)] {
            stat.num_threads = threads;
            assert_eq!(has_ended(&stat), ended, "{threads}");
        }
    }

    #[test]
    fn a_program_without_a_mark_is_known_by_its_binary_and_nothing_else_is_ours() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().canonicalize().unwrap();
        let mut unmarked = Command::new("sleep");
        let mut child = unmarked.arg("600").current_dir(&place).spawn().unwrap();
        let stands_in = FolderId::of(&place).unwrap().unwrap();
        let process = OwnProcess::of_child(child.id(), stands_in).unwrap();
        let binary = std::fs::read_link(format!("/proc/{}/exe", child.id())).unwrap();
        let engines = binary.parent().unwrap();

        let below = |folder: &Path, engines: &Path| processes_below(folder, engines).unwrap().ours;
        let found = below(&place, engines);
        assert_eq!(found.len(), 1);
        assert_eq!((&found[0].process, &found[0].place), (&process, &place));
        assert!(!found[0].is_leader);
        assert!(below(&place, &place).is_empty());
        assert!(below(&place.join("m0"), engines).is_empty());
        process.end(KILL_WAIT).unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_copy_of_a_place_is_another_place_and_a_moved_one_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let [place, copy, moved] = ["a", "b", "c"].map(|cluster| {
            let folder = folder.path().canonicalize().unwrap().join(cluster);
            folder.join("deployment/members/m0/home")
        });
        for there in [&place, &copy] {
            fs::create_dir_all(there).unwrap();
        }
        let mut child = command(Path::new("/bin/sleep"), &place)
            .arg("600")
            .spawn()
            .unwrap();
        let id = ProcessId::of_child(child.id()).unwrap();
        let nowhere = Path::new("/nowhere");
        let cluster = |place: &Path| place.ancestors().nth(4).unwrap().to_owned();
        let seen = |place: &Path| processes_below(&cluster(place), nowhere).unwrap();

        let ours = id.in_place(&place).unwrap().unwrap();
        assert!(!ours.was_moved().unwrap());
        assert!(seen(&place).namesake("deployment").is_none());
        assert_eq!(id.in_place(&copy).unwrap(), None);
        let found = seen(&copy);
        assert!(found.ours.is_empty());
        let namesake = found.namesake("deployment").unwrap();
        assert_eq!((namesake.pid, &namesake.place), (id.pid, &place));
        assert!(found.namesake("another").is_none());
        // A record of the copy names the original's process.
        let not_ours = OwnProcess {
            id: id.clone(),
            stands_in: FolderId::of(&copy).unwrap().unwrap(),
        };
        not_ours.signal(Signal::KILL).unwrap();
        assert!(!id.wait_gone(Duration::from_millis(100)).unwrap());

        fs::rename(cluster(&place), cluster(&moved)).unwrap();
        assert_eq!(id.in_place(&moved).unwrap(), Some(ours.clone()));
        assert!(ours.was_moved().unwrap());
        let found = seen(&moved).ours;
        assert_eq!((&found[0].process, &found[0].place), (&ours, &moved));
        assert!(seen(&copy).ours.is_empty());

        fs::create_dir_all(&place).unwrap();
        assert_eq!(id.in_place(&place).unwrap(), None);
        fs::remove_dir_all(cluster(&moved)).unwrap();
        let here = seen(&place).ours;
        assert_eq!((&here[0].process, &here[0].place), (&ours, &place));
        ours.end(KILL_WAIT).unwrap();
        child.wait().unwrap();
    }
}
