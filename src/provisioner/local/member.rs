//! One member: its server process, kept running or stopped.
//!
//! Invariants: at most one server runs on a home; a member's description changes only while
//! nothing runs there; what is wanted is written down before it is done, so a crash at any point
//! is made good by the next look.

use std::{
    fs::{self, File},
    io,
    process::{Child, ExitStatus},
    time::{Duration, Instant},
};

use super::{
    backoff::Backoff,
    discovery::Programs,
    folders::{self, MemberFolder},
    ports::{self, NotFree},
    printed,
    process::{self, OwnProcess, PlacedProcess},
    record::{self, ProcessRecord, ServerRecord, Wanted},
};
use crate::{
    disk,
    folder::FolderId,
    model::{
        failure::chain,
        ids::DeploymentId,
        limits::{MEMBER_LOG_BYTES_MAX, PORT_WAIT, RESTART_BACKOFF_RESET, STOP_GRACE},
        server::{DataOfServer, MemberSeen, Server},
    },
    provisioner::{ProcessState, ProvisionerError, names},
};

type Result<T> = std::result::Result<T, ProvisionerError>;

/// A member of a deployment, as the broker that looks after it knows it.
#[derive(Debug)]
pub(super) struct SupervisedMember {
    folder: MemberFolder,
    record: Option<ServerRecord>,
    process: Option<OwnProcess>,
    /// The same process, if this broker started it: a child has to be waited for.
    child: Option<Child>,
    exit_status: Option<ExitStatus>,
    running_since: Instant,
    restarts: u32,
    /// Where the output of its process begins in its log, in bytes.
    printed_from: u64,
    backoff: Backoff,
    /// The trouble that was logged last, so that trouble that stays is logged once.
    trouble: Option<String>,
}

impl SupervisedMember {
    pub(super) fn new(folder: MemberFolder) -> Self {
        let now = Instant::now();
        Self {
            folder,
            record: None,
            process: None,
            child: None,
            exit_status: None,
            running_since: now,
            restarts: 0,
            printed_from: 0,
            backoff: Backoff::new(now),
            trouble: None,
        }
    }

    /// Takes over a member that an earlier broker left, with its process if that lives.
    pub(super) fn adopt(folder: MemberFolder, running: &[PlacedProcess]) -> Result<Self> {
        let mut member = Self::new(folder);
        member.record = readable(&member.folder, record::read(&member.folder.server_record()));
        let known: Option<ProcessRecord> = readable(
            &member.folder,
            record::read(&member.folder.process_record()),
        );
        if let Some(known) = known {
            member.restarts = known.restarts;
            member.printed_from = known.printed_from;
            // A copied record names a process of the folder that it was copied from.
            let process = known.process.in_place(&member.folder.home());
            member.process = process.map_err(member.failed("looking at"))?;
        }
        if member.process.is_none() {
            member.adopt_stray(running)?;
        }
        member.call_back_from_where_it_was()?;
        Ok(member)
    }

    /// Whether it has a process that is known.
    pub(super) fn has_process(&self) -> bool {
        self.process.is_some()
    }

    /// A process whose folder was moved goes on writing where the folder was: it is ended, to be
    /// started anew by the first look.
    fn call_back_from_where_it_was(&mut self) -> Result<()> {
        let Some(process) = &self.process else {
            return Ok(());
        };
        if process.was_moved().map_err(self.failed("looking at"))? {
            self.log_event(
                log::Level::Warn,
                "runs in a folder that was moved; it is ended, and started anew where that is now",
            );
            process.end(STOP_GRACE).map_err(self.failed("stopping"))?;
            self.process = None;
        }
        Ok(())
    }

    /// A broker that crashed right after it had started a process has not written it down.
    fn adopt_stray(&mut self, running: &[PlacedProcess]) -> Result<()> {
        let home = self.folder.home();
        let mut servers = running.iter().filter(|p| p.is_leader && p.place == home);
        // More than one would be a riddle: then none is taken, and all are killed before the
        // next start.
        if let (Some(stray), None) = (servers.next(), servers.next()) {
            self.log_event(
                log::Level::Warn,
                "found its process, which was not written down",
            );
            self.process = Some(stray.process.clone());
            self.save_process()?;
        }
        Ok(())
    }

    /// See [`crate::provisioner::Provisioner::start`].
    pub(super) fn start(&mut self, server: &Server, programs: &Programs) -> Result<()> {
        let record = ServerRecord::of(server);
        // What cannot be started must not stop what runs.
        programs.binary(&record.engine, record.version, &record.binary)?;
        for file in &server.files {
            names::check_file_name(file.name)?;
        }
        let unchanged = self.record.as_ref() == Some(&record);
        let is_same = self.record.as_ref().is_some_and(|r| r.runs_as(&record));
        if is_same && self.is_running()? {
            return if unchanged {
                Ok(())
            } else {
                self.save_record(record)
            };
        }
        self.end_process(programs, STOP_GRACE)?;
        if let Some(data) = &record.data
            && !self.has_data(data)?
        {
            // From now on the next look finds it so, too.
            self.save_record(record)?;
            return Err(self.data_lost());
        }
        self.write_files(server)?;
        if !unchanged {
            self.restarts = 0;
            self.save_record(record)?;
        }
        self.backoff = Backoff::new(Instant::now());
        self.launch(programs, self.restarts, PORT_WAIT)
    }

    /// See [`crate::provisioner::Provisioner::restart`].
    pub(super) fn restart(&mut self, programs: &Programs) -> Result<()> {
        if !self.is_wanted_running() {
            return Ok(());
        }
        // One that hangs does not end when it is asked to.
        self.end_process(programs, Duration::ZERO)?;
        self.check_data()?;
        self.backoff = Backoff::new(Instant::now());
        self.launch(programs, self.restarts + 1, PORT_WAIT)
    }

    /// See [`crate::provisioner::Provisioner::stop`].
    pub(super) fn stop(&mut self, programs: &Programs, grace: Duration) -> Result<()> {
        if let Some(record) = self.record.clone().filter(|r| r.wanted == Wanted::Running) {
            self.save_record(ServerRecord {
                wanted: Wanted::Stopped,
                ..record
            })?;
        }
        self.end_process(programs, grace)
    }

    /// See [`crate::provisioner::Provisioner::wipe`].
    pub(super) fn wipe(&mut self, programs: &Programs) -> Result<()> {
        if self.is_wanted_running() {
            return Err(ProvisionerError::NotStopped {
                member: self.folder.name.clone(),
            });
        }
        self.kill_tasks(programs)?;
        self.end_process(programs, STOP_GRACE)?;
        let home = self.folder.home();
        folders::remove_folder(&home)
            .and_then(|()| disk::make_folder(&home))
            .map_err(self.failed("wiping"))
    }

    /// See [`crate::provisioner::Provisioner::set_aside`].
    pub(super) fn set_aside(&mut self, programs: &Programs, name: &str) -> Result<()> {
        if self.is_wanted_running() {
            return Err(ProvisionerError::NotStopped {
                member: self.folder.name.clone(),
            });
        }
        self.kill_tasks(programs)?;
        self.end_process(programs, STOP_GRACE)?;
        let (home, aside) = (self.folder.home(), self.folder.aside(name));
        let move_there = || {
            if aside.exists() {
                return Ok(());
            }
            disk::make_folder(aside.parent().expect("a home lies in a folder"))?;
            disk::there(disk::rename(&home, &aside)).map(|_| ())
        };
        move_there()
            .and_then(|()| disk::make_folder(&home))
            .map_err(self.failed("setting aside what was in the home of"))
    }

    /// See [`crate::provisioner::Provisioner::put_back`].
    pub(super) fn put_back(&mut self, programs: &Programs, name: &str) -> Result<()> {
        self.stop(programs, Duration::ZERO)?;
        self.kill_tasks(programs)?;
        let (home, aside) = (self.folder.home(), self.folder.aside(name));
        if !aside.exists() {
            return Ok(());
        }
        folders::remove_folder(&home)
            .and_then(|()| disk::rename(&aside, &home))
            .map_err(self.failed("putting back what was in the home of"))
    }

    /// Kills what is left of tasks of this member.
    pub(super) fn kill_tasks(&self, programs: &Programs) -> Result<()> {
        let tasks = || self.processes(programs, |p| p.place == self.folder.path());
        process::kill_all(tasks).map_err(self.failed("ending the tasks of"))
    }

    /// One look of the supervisor: starts the member again if it should run and does not.
    pub(super) fn look_after(&mut self, programs: &Programs) {
        match self.keep_as_wanted(programs) {
            // A pause between two tries does not end the trouble.
            Ok(()) if self.process.is_none() => {}
            Ok(()) => self.trouble = None,
            Err(error) => {
                let trouble = chain(&error);
                if self.trouble.as_ref() != Some(&trouble) {
                    log::error!(
                        deployment:% = self.folder.deployment, member = self.folder.name.as_str();
                        "{trouble}"
                    );
                    self.trouble = Some(trouble);
                }
            }
        }
    }

    fn keep_as_wanted(&mut self, programs: &Programs) -> Result<()> {
        let running = self.is_running()?;
        if !self.is_wanted_running() {
            return Ok(());
        }
        if running {
            return printed::turn_over(&self.folder, MEMBER_LOG_BYTES_MAX)
                .map_err(self.failed("turning over the log of"));
        }
        if self.process.take().is_some() {
            self.note_end();
        }
        if !self.backoff.is_due(Instant::now()) {
            return Ok(());
        }
        let started = record::check_owner_of_member(&self.folder)
            .and_then(|()| self.end_process(programs, STOP_GRACE))
            .and_then(|()| self.check_data())
            .and_then(|()| self.launch(programs, self.restarts + 1, Duration::ZERO));
        match started {
            Ok(()) => self.log_event(log::Level::Info, "was started again"),
            Err(_) => _ = self.backoff.ended(Duration::ZERO, Instant::now()),
        }
        started
    }

    fn note_end(&mut self) {
        let ran = self.running_since.elapsed();
        if ran >= RESTART_BACKOFF_RESET {
            self.restarts = 0;
        }
        let pause = self.backoff.ended(ran, Instant::now()).as_millis();
        let status = self.exit_status.take();
        let status = status.map_or_else(|| "status unknown".to_owned(), |s| s.to_string());
        let event = format!("ended by itself ({status}); will be started again in {pause} ms");
        self.log_event(log::Level::Warn, &event);
    }

    /// Fails when a member that must have data has none: it would start as another one.
    fn check_data(&self) -> Result<()> {
        let needed = self.record.as_ref().and_then(|r| r.data.as_ref());
        match needed.map(|data| self.has_data(data)).transpose()? {
            Some(false) => Err(self.data_lost()),
            Some(true) | None => Ok(()),
        }
    }

    fn has_data(&self, data: &DataOfServer) -> Result<bool> {
        has_data(&self.folder, data).map_err(self.failed("looking at the data of"))
    }

    fn data_lost(&self) -> ProvisionerError {
        ProvisionerError::DataLost {
            member: self.folder.name.clone(),
        }
    }

    fn is_wanted_running(&self) -> bool {
        let record = self.record.as_ref();
        record.is_some_and(|record| record.wanted == Wanted::Running)
    }

    fn is_running(&mut self) -> Result<bool> {
        self.wait_for_child().map_err(self.failed("waiting for"))?;
        let process = self.process.as_ref();
        process.map_or(Ok(false), |p| {
            p.id.is_alive().map_err(self.failed("looking at"))
        })
    }

    /// The process that runs for this member, as far as is known.
    pub(super) fn process(&self) -> Option<&OwnProcess> {
        self.process.as_ref()
    }

    /// Takes note of a child that has ended, so that it does not stay a zombie.
    pub(super) fn wait_for_child(&mut self) -> io::Result<()> {
        if let Some(child) = &mut self.child
            && let Some(status) = child.try_wait()?
        {
            self.exit_status = Some(status);
            self.child = None;
        }
        Ok(())
    }

    /// Ends the member's process, and whatever else runs on its home.
    fn end_process(&mut self, programs: &Programs, grace: Duration) -> Result<()> {
        if let Some(process) = &self.process {
            process.end(grace).map_err(self.failed("stopping"))?;
        }
        let home = self.folder.home();
        let strays = || self.processes(programs, |p| p.place == home);
        process::kill_all(strays).map_err(self.failed("ending strays of"))?;
        self.wait_for_child().map_err(self.failed("waiting for"))?;
        self.process = None;
        Ok(())
    }

    fn processes(
        &self,
        programs: &Programs,
        wanted: impl Fn(&PlacedProcess) -> bool,
    ) -> io::Result<Vec<OwnProcess>> {
        let all = process::processes_below(self.folder.path(), programs.root())?.ours;
        Ok(all.into_iter().filter(wanted).map(|p| p.process).collect())
    }

    fn write_files(&self, server: &Server) -> Result<()> {
        let (home, files) = (self.folder.home(), self.folder.files());
        disk::make_folder(&home).map_err(self.failed("making the home of"))?;
        disk::make_folder(&files).map_err(self.failed("making the files of"))?;
        for file in &server.files {
            disk::write(&files.join(file.name), file.contents.expose().as_bytes())
                .and_then(|()| {
                    // Earlier versions put it there.
                    disk::there(fs::remove_file(home.join(file.name))).map(|_| ())
                })
                .map_err(self.failed("writing the files of"))?;
        }
        Ok(())
    }

    fn save_record(&mut self, record: ServerRecord) -> Result<()> {
        // A disk that was replaced has nothing of the member.
        disk::make_folder(self.folder.path()).map_err(self.failed("making the folder of"))?;
        record::write(&self.folder.server_record(), &record)
            .map_err(self.failed("writing server.json of"))?;
        self.record = Some(record);
        Ok(())
    }

    fn save_process(&self) -> Result<()> {
        let Some(process) = &self.process else {
            return Ok(());
        };
        let record = ProcessRecord {
            process: process.id.clone(),
            restarts: self.restarts,
            printed_from: self.printed_from,
        };
        record::write(&self.folder.process_record(), &record)
            .map_err(self.failed("writing process.json of"))
    }

    /// Starts the process as the record says, when its ports are free within `patience`. Nothing
    /// may run on the home.
    fn launch(&mut self, programs: &Programs, restarts: u32, patience: Duration) -> Result<()> {
        let record = self
            .record
            .as_ref()
            .expect("a member that is started has a record");
        let binary = programs.binary(&record.engine, record.version, &record.binary)?;
        let folder = &self.folder;
        let home = folder.home();
        // What the broker found when it started may have changed since.
        let found = process::processes_below(folder.deployment_folder(), programs.root())
            .map_err(self.failed("looking at"))?;
        if let Some(namesake) = found.namesake(folder.deployment.as_str()) {
            return Err(runs_elsewhere(&folder.deployment, namesake));
        }
        ports::all_free(&record.listens_at(), patience).map_err(|error| match error {
            NotFree::Taken(port) => ProvisionerError::PortTaken {
                member: folder.name.clone(),
                port,
            },
            NotFree::Elsewhere(address) => ProvisionerError::NotOurAddress { address },
        })?;
        let stands_in = FolderId::of(&home)
            .and_then(|id| id.ok_or(io::ErrorKind::NotFound.into()))
            .map_err(self.failed("looking at the home of"))?;
        let mut command = process::command(&binary, &home);
        command.args(record.args.iter().map(|arg| folder.fill_in(arg)));
        command.envs(
            record
                .env
                .iter()
                .map(|(name, value)| (name, folder.fill_in(value))),
        );

        let printed_from = printed::length(folder).map_err(self.failed("starting"))?;
        let child = open_log(folder)
            .and_then(|log| Ok(command.stderr(log.try_clone()?).stdout(log)))
            .and_then(|command| command.spawn())
            .map_err(self.failed("starting"))?;
        let pid = child.id();
        self.child = Some(child);
        process::confine(pid).map_err(self.failed("confining"))?;
        process::prefer_to_broker(pid);
        self.exit_status = None;
        self.running_since = Instant::now();
        self.restarts = restarts;
        self.printed_from = printed_from;
        let process = OwnProcess::of_child(pid, stands_in);
        self.process = Some(process.map_err(self.failed("looking at"))?);
        self.save_process()
    }

    fn failed(&self, doing: &str) -> impl FnOnce(io::Error) -> ProvisionerError + use<> {
        let MemberFolder {
            deployment, name, ..
        } = &self.folder;
        ProvisionerError::while_doing(format!("{doing} member {name} of deployment {deployment}"))
    }

    fn log_event(&self, level: log::Level, event: &str) {
        log::log!(
            level,
            deployment:% = self.folder.deployment, member = self.folder.name.as_str();
            "member {event}"
        );
    }
}

/// The state of a member, by what is on disk alone: so nobody has to wait for an action to finish.
pub(super) fn observe(folder: &MemberFolder) -> io::Result<Option<ProcessState>> {
    let Some(server) = record::read::<ServerRecord>(&folder.server_record())? else {
        return Ok(None);
    };
    let process = record::read::<ProcessRecord>(&folder.process_record())?;
    let running = is_alive(folder, process.as_ref())?;
    let needed = server.data.filter(|_| !running);
    let has_data = needed.map(|data| has_data(folder, &data)).transpose()?;
    Ok(Some(ProcessState {
        member: folder.name.clone(),
        running,
        restarts: process.map_or(0, |known| known.restarts),
        has_lost_data: has_data == Some(false),
    }))
}

/// Whether a member runs and was started as `wanted` says, by what is on disk alone.
pub(super) fn runs_as(folder: &MemberFolder, wanted: &ServerRecord) -> io::Result<bool> {
    let server = record::read::<ServerRecord>(&folder.server_record())?;
    let process = record::read::<ProcessRecord>(&folder.process_record())?;
    Ok(server.is_some_and(|server| server.runs_as(wanted)) && is_alive(folder, process.as_ref())?)
}

/// The end of what a member's last process printed, at most `bytes_max`, by what is on disk alone;
/// none while it runs.
pub(super) fn last_words(folder: &MemberFolder, bytes_max: u64) -> io::Result<Option<String>> {
    match record::read::<ProcessRecord>(&folder.process_record())? {
        Some(known) if !is_alive(folder, Some(&known))? => {
            Ok(Some(printed::end(folder, known.printed_from, bytes_max)?))
        }
        _ => Ok(None),
    }
}

fn is_alive(folder: &MemberFolder, process: Option<&ProcessRecord>) -> io::Result<bool> {
    let home = folder.home();
    process.map_or(Ok(false), |known| {
        Ok(known.process.in_place(&home)?.is_some())
    })
}

fn has_data(folder: &MemberFolder, data: &DataOfServer) -> io::Result<bool> {
    let names = disk::names_in(&folder.home().join(&data.folder))?;
    Ok(names.iter().any(|name| name.ends_with(&data.suffix)))
}

/// What is written down about a member.
pub(super) fn described(folder: &MemberFolder, host: &str) -> io::Result<Option<MemberSeen>> {
    let record: Option<ServerRecord> = record::read(&folder.server_record())?;
    Ok(record.map(|record| MemberSeen {
        name: folder.name.clone(),
        version: record.version,
        addresses: record.addresses,
        host: host.to_owned(),
        ports: record.ports,
    }))
}

/// Why nothing is started here of a deployment that runs in another folder.
pub(super) fn runs_elsewhere(
    deployment: &DeploymentId,
    namesake: &process::Elsewhere,
) -> ProvisionerError {
    ProvisionerError::RunsElsewhere {
        deployment: deployment.to_string(),
        pid: namesake.pid,
        place: namesake.place.display().to_string(),
    }
}

fn open_log(folder: &MemberFolder) -> io::Result<File> {
    disk::private_file()
        .create(true)
        .append(true)
        .open(folder.log())
}

/// A record that cannot be read is as good as none: the member's next start writes it anew.
fn readable<T>(folder: &MemberFolder, read: io::Result<Option<T>>) -> Option<T> {
    read.unwrap_or_else(|error| {
        log::error!(
            deployment:% = folder.deployment, member = folder.name.as_str();
            "a record of the member cannot be read: {error}"
        );
        None
    })
}
