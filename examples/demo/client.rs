//! The user without a platform: `compose-broker` itself as a client, run as a user would type it.

use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::Command,
};

use crate::{
    broker::Broker,
    error::{Context, Result},
    show::Step,
};

/// Pause between two looks at what goes on, in seconds. Without it, the broker's word is followed.
const POLL: &str = "0.2";

/// Somebody at a terminal.
pub struct Client {
    program: PathBuf,
    settings: Vec<(&'static str, String)>,
}

impl Client {
    /// A user of that broker, who keeps the names of things in `place`.
    pub fn of(broker: &Broker, place: &Path) -> Self {
        let book = place.join("client.json").display().to_string();
        Self {
            program: broker.program.clone(),
            settings: vec![
                ("COMPOSE_BROKER_URL", broker.url.clone()),
                ("COMPOSE_BROKER_USERNAME", broker.username.clone()),
                ("COMPOSE_BROKER_PASSWORD", broker.password.clone()),
                ("COMPOSE_BROKER_STATE", book),
                ("COMPOSE_BROKER_POLL", POLL.to_owned()),
            ],
        }
    }

    /// Runs a command, shows it and how it goes on, and returns its result.
    pub async fn run(&self, arguments: &[&str], step: &Step) -> Result<Value> {
        step.runs(&typed(arguments));
        let doing = format!("compose-broker {}", arguments[0]);
        let mut command = Command::new(&self.program);
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("COMPOSE_BROKER_") {
                command.env_remove(name);
            }
        }
        let mut child = command
            .args(arguments)
            .args(["-o", "json"])
            .envs(self.settings.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context(&doing)?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let mut out = out.ok_or("the client has no output")?;
        let mut err = BufReader::new(err.ok_or("the client has no error output")?).lines();
        let tell = async {
            let mut last = String::new();
            while let Some(line) = err.next_line().await? {
                // What it begins with stands above already.
                if !line.ends_with("...") {
                    step.say(line.trim());
                }
                last = line;
            }
            Ok(last)
        };
        let mut result = String::new();
        let (read, told) = tokio::join!(out.read_to_string(&mut result), tell);
        read.context(&doing)?;
        let told: std::io::Result<String> = told;
        let status = child.wait().await.context(&doing)?;
        if !status.success() {
            let why = told.context(&doing)?;
            return Err(format!("{doing} ended by {status}: {why}").into());
        }
        serde_json::from_str(&result).context(doing)
    }
}

/// The command line as it is typed, but for the form of its result.
fn typed(arguments: &[&str]) -> String {
    let mut line = "compose-broker".to_owned();
    for argument in arguments {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:".contains(c);
        match argument.chars().all(plain) {
            true => line = format!("{line} {argument}"),
            false => line = format!("{line} '{argument}'"),
        }
    }
    line
}

/// A text in a result.
pub fn text(object: &Value, field: &str) -> Result<String> {
    let text = object[field].as_str().map(str::to_owned);
    text.ok_or_else(|| format!("there is no {field} in {object}").into())
}
