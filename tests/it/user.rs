//! A person at a terminal: the program that is shipped, as a client of a broker, with a book of
//! names of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use serde_json::Value;
use tokio::process::Command;

use crate::broker::{TestBroker, new_folder};

/// Somebody who has a folder and knows a broker.
pub struct User {
    folder: PathBuf,
    url: String,
    username: String,
    password: String,
}

/// What became of a command.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    /// Its results.
    pub out: String,
    /// Everything else that it said.
    pub err: String,
}

impl Ran {
    /// What a program ended with and printed.
    pub fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("a text");
        Self {
            code: output.status.code().expect("an exit code"),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }

    /// Its results, which must be JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{self:?} is not JSON: {e}"))
    }

    /// That it was refused, with this in the reason.
    pub fn must_say(&self, code: i32, reason: &str) {
        assert_eq!((self.code, self.out.as_str()), (code, ""), "{self:?}");
        assert!(self.err.contains(reason), "{reason}: {self:?}");
    }
}

impl User {
    /// A user of the broker at `url`.
    pub fn of(url: &str, username: &str, password: &str) -> Self {
        Self {
            folder: new_folder(),
            url: url.to_owned(),
            username: username.to_owned(),
            password: password.to_owned(),
        }
    }

    /// A user of a real broker.
    pub fn of_broker(broker: &TestBroker) -> Self {
        let (username, password) = broker.platform();
        Self::of(&broker.url, username, password)
    }

    /// Makes a database that is called `db` and a key of it, `app`. Returns what the key has.
    pub async fn makes_database(&self) -> Value {
        self.does(&["create-service", "compose-for-etcd", "Standard", "db", "-w"])
            .await;
        self.does(&["create-service-key", "db", "app", "--wait"])
            .await;
        self.does(&["service-key", "db", "app"]).await.json()
    }

    /// Where the user is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The address of the user's broker.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The file with the names.
    pub fn book(&self) -> PathBuf {
        self.folder.join("state/compose-broker/client.json")
    }

    /// A command that is not begun, with nothing of this machine's settings.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_compose-broker"));
        command
            .args(arguments)
            .current_dir(&self.folder)
            .env_clear()
            .env("USER", "ada")
            .env("XDG_STATE_HOME", self.folder.join("state"))
            .env("COMPOSE_BROKER_URL", &self.url)
            .env("COMPOSE_BROKER_USERNAME", &self.username)
            .env("COMPOSE_BROKER_PASSWORD", &self.password)
            .env("COMPOSE_BROKER_POLL", "0.05")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// What becomes of a command.
    pub async fn run(&self, arguments: &[&str]) -> Ran {
        let output = self.command(arguments).output().await;
        Ran::of(output.expect("a process"))
    }

    /// A command that must be done.
    pub async fn does(&self, arguments: &[&str]) -> Ran {
        let ran = self.run(arguments).await;
        assert_eq!(ran.code, 0, "{arguments:?}: {ran:?}");
        ran
    }

    /// What a command that must be done says to programs.
    pub async fn asks(&self, arguments: &[&str]) -> Value {
        self.does(&[arguments, &["-o", "json"]].concat())
            .await
            .json()
    }

    /// The names of the instances that the user knows.
    pub async fn services(&self) -> Vec<String> {
        let told = self.asks(&["services"]).await;
        let services = told["services"].as_array().expect("a list");
        let name = |service: &Value| crate::broker::text(&service["name"]).to_owned();
        services.iter().map(name).collect()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}
