//! The broker as a process of the demo.

use std::{
    env,
    fs::{self, File},
    ops::Range,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use reqwest::StatusCode;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;
use uuid::Uuid;

use crate::{
    calendar,
    error::{Context, Result, ensure},
    machine::{self, Traces},
    show::{Step, complain},
};

/// Ports that the demo uses: the first one for HTTP, the others for the databases.
const PORTS: u16 = 100;
const START_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(20);
pub const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Lines of the broker's log that are shown after a failure.
const LOG_LINES: usize = 30;

/// A running broker. Whatever it started dies with it when it is dropped.
pub struct Broker {
    /// Where it listens.
    pub url: String,
    /// What runs, which is a client as well.
    pub program: PathBuf,
    /// The platform's name and password.
    pub username: String,
    pub password: String,
    child: Child,
    data: PathBuf,
    log: PathBuf,
    /// Says how far the broker's clock is ahead, in seconds.
    clock: PathBuf,
    database_ports: Range<u16>,
}

impl Broker {
    /// Starts `binary` with its data and log in `place`.
    pub fn spawn(binary: &Path, place: &Path) -> Result<Self> {
        let binary = fs::canonicalize(binary)
            .context(format!("looking for the broker {}", binary.display()))?;
        let data = place.join("data");
        let log = place.join("broker.log");
        let log_file = File::create(&log).context("making the broker's log")?;
        let log_too = log_file.try_clone().context("making the broker's log")?;

        let ports = machine::free_ports(PORTS)?;
        let listen = format!("127.0.0.1:{}", ports.start);
        let database_ports = ports.start + 1..ports.end;
        let (username, password) = ("demo".to_owned(), Uuid::new_v4().to_string());

        let clock = place.join("clock");
        set_behind(&clock, calendar::BEGINS_BEHIND)?;

        // Its databases are tiny: what they may become need not fit on this disk.
        let clusters = place.join("clusters.json");
        let local = r#"[{ "id": "local", "name": "This machine", "capacity_units": 1000 }]"#;
        fs::write(&clusters, local).context("writing down the cluster")?;

        let mut command = Command::new(&binary);
        // Settings of another broker must not get into the story; only the engines are shared.
        for (name, _) in env::vars_os() {
            let is_setting = name.to_string_lossy().starts_with("COMPOSE_BROKER_");
            if is_setting && name != "COMPOSE_BROKER_ENGINES_DIR" {
                command.env_remove(name);
            }
        }
        let port_range = format!("{}-{}", database_ports.start, database_ports.end - 1);
        let child = command
            .arg("serve")
            .env("COMPOSE_BROKER_LISTEN", &listen)
            .env("COMPOSE_BROKER_DATA_DIR", &data)
            .env("COMPOSE_BROKER_CLUSTERS", &clusters)
            .env("COMPOSE_BROKER_PORT_RANGE", port_range)
            .env("COMPOSE_BROKER_USERNAME", &username)
            .env("COMPOSE_BROKER_PASSWORD", &password)
            .env("COMPOSE_BROKER_CLOCK_OFFSET_FILE", &clock)
            // The calendar goes by the days of the retention alone.
            .env("COMPOSE_BROKER_BACKUP_GRACE_HOURS", "0")
            .stdin(Stdio::null())
            .stdout(log_file)
            .stderr(log_too)
            // Ctrl-C is for the demo, which then ends the broker in its own way.
            .process_group(0)
            .spawn()
            .context("starting the broker")?;
        Ok(Self {
            url: format!("http://{listen}"),
            program: binary,
            username,
            password,
            child,
            data,
            log,
            clock,
            database_ports,
        })
    }

    /// Waits until `GET /readyz` says 200.
    pub async fn wait_until_ready(&mut self, step: &Step) -> Result<()> {
        let ready = format!("{}/readyz", self.url);
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().context("looking at the broker")? {
                return Err(format!("the broker ended at once ({status})").into());
            }
            match reqwest::get(&ready).await {
                Ok(answer) if answer.status() == StatusCode::OK => return Ok(()),
                Ok(answer) => step.say(&format!("/readyz says {}", answer.status())),
                // Nobody listens yet.
                Err(_) => {}
            }
            ensure(Instant::now() < deadline, || {
                let limit = START_LIMIT.as_secs();
                format!("the broker was not ready after {limit} s")
            })?;
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Sets the broker's clock, so many days behind the machine's.
    pub fn set_clock_behind(&self, days: u32) -> Result<()> {
        set_behind(&self.clock, days)
    }

    /// What there is on this machine of deployments.
    pub fn traces(&self, deployments: &[&str]) -> Result<Traces> {
        Ok(Traces {
            processes: machine::processes_in(&self.data)?,
            paths: machine::paths_named(&self.data, deployments)?,
            ports: machine::ports_in_use(self.database_ports.clone()),
        })
    }

    /// Asks the broker to end and waits for that.
    pub async fn stop(&mut self) -> Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).context("asking the broker to end")?;
        let deadline = Instant::now() + STOP_LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().context("looking at the broker")? {
                return ensure(status.success(), || format!("the broker ended by {status}"));
            }
            ensure(Instant::now() < deadline, || {
                let limit = STOP_LIMIT.as_secs();
                format!("the broker did not end within {limit} s")
            })?;
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Shows the end of the broker's log.
    pub fn show_log(&self) {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        // A poll more or less tells nothing.
        let is_poll = |line: &&str| line.contains("/last_operation") || line.contains("/recipes/");
        let lines: Vec<&str> = log.lines().filter(|line| !is_poll(line)).collect();
        let first = lines.len().saturating_sub(LOG_LINES);
        complain("\nThe broker's last lines:");
        for line in &lines[first..] {
            complain(format_args!("  {line}"));
        }
    }

    /// Kills the broker, if it runs, and then every database that it started. Databases outlive
    /// their broker on purpose; those of a demo must not outlive the demo.
    pub fn kill_everything(&mut self) -> Result<()> {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.child.kill().context("killing the broker")?;
            self.child.wait().context("waiting for the broker's end")?;
        }
        machine::kill_processes_in(&self.data)
    }
}

fn set_behind(clock: &Path, days: u32) -> Result<()> {
    const DAY: i64 = 24 * 60 * 60;
    // Whole at any moment.
    let new = clock.with_extension("new");
    let doing = "setting the broker's clock";
    fs::write(&new, (-DAY * i64::from(days)).to_string()).context(doing)?;
    fs::rename(&new, clock).context(doing)
}

/// For a panic; every other way out has done it before.
impl Drop for Broker {
    fn drop(&mut self) {
        if let Err(error) = self.kill_everything() {
            complain(error);
        }
    }
}
