//! What the client can be asked for: its commands and their arguments.

use std::{fs, path::PathBuf};

use clap::{Subcommand, ValueHint};
use clap_complete::engine::ArgValueCompleter;
use serde_json::Value;

use super::{
    completion,
    deleted::Deleted,
    error::{Error, Result},
    operations::Operations,
    recover::Recovery,
    show::Output,
};
use crate::model::{bom::without_bom, secret::Secret};

/// What the client can be asked for.
#[derive(Debug, Subcommand)]
pub enum Command {
    #[command(flatten)]
    Instances(InstanceCommand),
    #[command(flatten)]
    Keys(KeyCommand),
    #[command(flatten)]
    Backups(BackupCommand),
    #[command(flatten)]
    Looks(LookCommand),
    /// Show which broker the client speaks to, as which user, and where each setting comes from
    Settings,
    /// For operators: list operations; retry or abandon those that fail or are stuck
    #[command(subcommand)]
    Operations(Operations),
    /// For operators: list deleted service instances whose backups are kept; remove these backups
    #[command(subcommand)]
    Deleted(Deleted),
    /// For operators: rebuild a database that has lost most of its members
    Recover(Recovery),
    /// For operators: show how many backups have a copy in the mirror, and which are late
    Mirror,
}

/// What is done to instances, and what there is to make some of.
#[derive(Debug, Subcommand)]
pub enum InstanceCommand {
    /// List what the broker has on offer
    #[command(visible_alias = "m")]
    Marketplace {
        /// Only this offering
        #[arg(short = 'e', long)]
        offering: Option<String>,
    },
    /// Make a service instance
    #[command(visible_alias = "cs")]
    CreateService(CreateService),
    /// Show a service instance
    Service {
        /// The instance
        #[arg(add = names())]
        name: String,
        /// Adopt an existing instance by its id and store it under NAME
        #[arg(long)]
        id: Option<String>,
    },
    /// List the service instances that this machine knows
    #[command(visible_alias = "s")]
    Services,
    /// Change plan, size, tags or other parameters of a service instance
    UpdateService(UpdateService),
    /// Upgrade a service instance to the version of its plan, or to another newer one
    UpgradeService(UpgradeService),
    /// List the versions that a service instance can be upgraded to, with their known faults
    Versions {
        /// The instance
        #[arg(add = names())]
        name: String,
    },
    /// Give back unused storage of a service instance, and let it take writes again if it was full
    MakeRoom {
        /// The instance
        #[arg(add = names())]
        name: String,
        /// First delete all keys that begin with this
        #[arg(long, value_name = "PREFIX")]
        delete_prefix: Option<String>,
        #[command(flatten)]
        patience: Patience,
    },
    /// Give back storage that the files of a service instance do not use; meanwhile each member in
    /// turn does not answer for some seconds
    Defragment {
        /// The instance
        #[arg(add = names())]
        name: String,
        /// Only say what it would do and how long it would take
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        patience: Patience,
    },
    /// Delete a service instance with its keys
    #[command(visible_alias = "ds")]
    DeleteService {
        /// The instance
        #[arg(add = names())]
        name: String,
        #[command(flatten)]
        certainty: Certainty,
        #[command(flatten)]
        patience: Patience,
    },
    /// Give a service instance another name
    RenameService {
        /// The instance
        #[arg(add = names())]
        name: String,
        /// The new name
        new_name: String,
    },
}

/// What is done with keys.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a service key: credentials for an instance
    #[command(visible_alias = "csk")]
    CreateServiceKey {
        /// The instance
        #[arg(add = names())]
        name: String,
        /// The name of the new key
        key: String,
        #[command(flatten)]
        parameters: Parameters,
        #[command(flatten)]
        patience: Patience,
    },
    /// Print the credentials of a service key
    ServiceKey {
        /// The instance
        #[arg(add = names())]
        name: String,
        /// The key
        #[arg(add = keys())]
        key: String,
        /// Adopt an existing binding by its id and store it under KEY
        #[arg(long)]
        id: Option<String>,
        /// Print what etcdctl reads from its environment, for a shell:
        /// eval "$(compose-broker service-key NAME KEY --env)"
        #[arg(long)]
        env: bool,
        /// File for the certificates of the database's authority [default: one beside the file of names]
        #[arg(long, value_name = "FILE", requires = "env")]
        cacert: Option<PathBuf>,
    },
    /// List the service keys of an instance
    #[command(visible_alias = "sk")]
    ServiceKeys {
        /// The instance
        #[arg(add = names())]
        name: String,
    },
    /// Delete a service key; its credentials stop working
    #[command(visible_alias = "dsk")]
    DeleteServiceKey {
        /// The instance
        #[arg(add = names())]
        name: String,
        /// The key
        #[arg(add = keys())]
        key: String,
        #[command(flatten)]
        certainty: Certainty,
        #[command(flatten)]
        patience: Patience,
    },
}

/// What is done with backups.
#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// List the backups of a service instance
    Backups {
        /// The instance
        #[arg(add = names())]
        name: String,
    },
    /// Take a backup of a service instance; it may replace an older on-demand backup, and says so first
    CreateBackup {
        /// The instance
        #[arg(add = names())]
        name: String,
        #[command(flatten)]
        patience: Patience,
    },
    /// Write a note beside a backup
    BackupNote {
        /// The instance
        #[arg(add = names())]
        name: String,
        /// The backup's id, or latest, latest:daily and the like
        #[arg(value_hint = ValueHint::Other)]
        backup: String,
        /// The note, in one line; "" removes it
        #[arg(value_hint = ValueHint::Other)]
        note: String,
    },
    /// Keep a backup until you unpin it: neither its age nor a newer backup removes it
    Pin {
        /// The instance
        #[arg(add = names())]
        name: String,
        /// The backup's id, or latest, latest:daily and the like
        #[arg(value_hint = ValueHint::Other)]
        backup: String,
    },
    /// Let a pinned backup go again, as others of its kind do
    Unpin {
        /// The instance
        #[arg(add = names())]
        name: String,
        /// The backup's id, or latest, latest:daily and the like
        #[arg(value_hint = ValueHint::Other)]
        backup: String,
    },
    /// Make a new service instance from a backup of another one
    RestoreBackup(RestoreBackup),
    /// Put keys of a service instance back from a backup of it, while it goes on
    RestoreKeys(RestoreKeys),
    /// Download a backup and check its hash
    DownloadBackup(DownloadBackup),
    /// Make a backup of a snapshot that was taken elsewhere, to restore it into a new service instance
    ImportBackup(ImportBackup),
}

/// What changes nothing, and tells of an instance or of the broker.
#[derive(Debug, Subcommand)]
pub enum LookCommand {
    /// List the alerts of a service instance, the worst first
    Alerts {
        /// The instance
        #[arg(add = names())]
        name: String,
    },
    /// List the members of a service instance, with their state and their addresses
    Members {
        /// The instance
        #[arg(add = names())]
        name: String,
    },
    /// Print the logs of the members of a service instance
    Logs(Logs),
    /// List the tasks of a service instance, running and done, the newest first
    Tasks {
        /// The instance
        #[arg(add = names())]
        name: String,
    },
    /// Tell how large a database was over time, and how many of its members served, the newest first
    History {
        /// The instance
        #[arg(add = names())]
        name: String,
    },
    /// For operators: list who changed what and who read what, the newest first
    Audit(AuditOf),
    /// Print a link to the dashboard of a service instance; it works once, within 15 minutes
    DashboardLink {
        /// The instance
        #[arg(add = names())]
        name: String,
    },
    /// For operators: send a test message to the webhook that alerts go to, and say whether it was taken
    TestWebhook,
}

/// What an instance is made of.
#[derive(Debug, clap::Args)]
pub struct CreateService {
    /// The offering, as `marketplace` lists it
    pub offering: String,
    /// The plan
    pub plan: String,
    /// The name of the new instance
    pub name: String,
    #[command(flatten)]
    pub parameters: Parameters,
    /// Tags for the instance, separated by commas; the client keeps and shows them
    #[arg(short, long, value_delimiter = ',')]
    pub tags: Vec<String>,
    /// The instance's id [default: a new one]
    #[arg(long)]
    pub id: Option<String>,
    #[command(flatten)]
    pub patience: Patience,
}

/// How an instance is changed.
#[derive(Debug, clap::Args)]
pub struct UpdateService {
    /// The instance
    #[arg(add = names())]
    pub name: String,
    #[command(flatten)]
    pub parameters: Parameters,
    /// The plan to change to
    #[arg(short, long)]
    pub plan: Option<String>,
    /// New tags for the instance, separated by commas, instead of the old ones; "" for none
    #[arg(short, long, value_delimiter = ',')]
    pub tags: Option<Vec<String>>,
    /// Remove the protection against deletion without asking
    #[arg(short, long)]
    pub force: bool,
    #[command(flatten)]
    pub patience: Patience,
}

/// Which version an instance is brought to.
#[derive(Debug, clap::Args)]
pub struct UpgradeService {
    /// The instance
    #[arg(add = names())]
    pub name: String,
    /// The version [default: that of the plan]
    #[arg(long, value_name = "VERSION")]
    pub db_version: Option<String>,
    /// Only say what it would do
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub patience: Patience,
}

/// What a new instance is made of, beside the one of a backup.
#[derive(Debug, clap::Args)]
pub struct RestoreBackup {
    /// The source: the instance that the backup was taken of
    #[arg(add = names())]
    pub name: String,
    /// The backup's id, or latest, latest:daily, latest:weekly, latest:monthly, latest:on_demand, latest:safety
    #[arg(value_hint = ValueHint::Other)]
    pub backup: String,
    /// The name of the new instance
    pub new_name: String,
    /// With latest and the like: the newest backup that was begun by then, as 2026-11-29T04:00:00Z
    #[arg(long, value_name = "TIME")]
    pub before: Option<String>,
    /// Only say what it would do
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub identity: Identity,
    /// The version of the new instance's database
    #[arg(long, value_name = "VERSION")]
    pub db_version: Option<String>,
    /// The size of the new instance
    #[arg(long)]
    pub units: Option<u32>,
    /// The plan of the new instance [default: the plan of the source]
    #[arg(short, long)]
    pub plan: Option<String>,
    #[command(flatten)]
    pub parameters: Parameters,
    #[command(flatten)]
    pub patience: Patience,
}

/// What opens a backup that is sealed for a key of the user's.
#[derive(Debug, clap::Args)]
pub struct Identity {
    /// File with the private key, as age-keygen makes it, for a backup that is sealed for it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    identity: Option<PathBuf>,
}

impl Identity {
    /// The private key as a restore takes it; none where none is given.
    pub fn read(&self) -> Result<Option<Secret>> {
        let Some(file) = &self.identity else {
            return Ok(None);
        };
        let text = std::fs::read_to_string(file).map_err(Error::file(file))?;
        Ok(Some(Secret::new(text)))
    }
}

/// Which keys are put back, and from what.
#[derive(Debug, clap::Args)]
pub struct RestoreKeys {
    /// The instance
    #[arg(add = names())]
    pub name: String,
    /// The backup's id, or latest, latest:daily and the like
    #[arg(value_hint = ValueHint::Other)]
    pub backup: String,
    /// What the keys begin with; "" stands for all keys
    #[arg(value_hint = ValueHint::Other)]
    pub prefix: String,
    /// What is put back: keys that are gone; also the values of keys that have others now; or also, keys that the
    /// backup has not are deleted
    #[arg(long, default_value = "missing", value_parser = ["missing", "overwrite", "mirror"])]
    pub mode: String,
    /// With latest and the like: the newest backup that was begun by then, as 2026-11-29T04:00:00Z
    #[arg(long, value_name = "TIME")]
    pub before: Option<String>,
    /// Put them into this instance, instead of the one that the backup is of
    #[arg(long, value_name = "INSTANCE", add = names())]
    pub into: Option<String>,
    /// Only compare them, and say what would be done
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub identity: Identity,
    #[command(flatten)]
    pub certainty: Certainty,
    #[command(flatten)]
    pub patience: Patience,
}

/// Which backup is downloaded, and where to.
#[derive(Debug, clap::Args)]
pub struct DownloadBackup {
    /// The instance
    #[arg(add = names())]
    pub name: String,
    /// The backup's id, or latest, latest:daily and the like
    #[arg(value_hint = ValueHint::Other)]
    pub backup: String,
    /// The file to write [default: the backup's name and .tar.gz, in this folder]
    #[arg(long, value_name = "FILE")]
    pub to: Option<PathBuf>,
    /// Replace the file if it is there
    #[arg(long)]
    pub force: bool,
}

/// What is imported, and where to.
#[derive(Debug, clap::Args)]
pub struct ImportBackup {
    /// The instance whose backup it becomes
    #[arg(add = names())]
    pub name: String,
    /// The snapshot, as the database's own tool saved it, or a backup as download-backup wrote it
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// The version of the database that it was taken of [default: what the backup tells, or the instance's]
    #[arg(long, value_name = "VERSION")]
    pub db_version: Option<String>,
    /// What to remember of it
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
    #[command(flatten)]
    pub patience: Patience,
}

/// Which logs are printed.
#[derive(Debug, clap::Args)]
pub struct Logs {
    /// The instance
    #[arg(add = names())]
    pub name: String,
    /// Print new lines as they are logged, until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,
    /// Only this member
    #[arg(short, long, value_name = "NAME")]
    pub member: Option<String>,
    /// How many of the last lines of each member to print [default: 20]
    #[arg(short = 'n', long, value_name = "NUMBER")]
    pub lines: Option<usize>,
}

/// Which entries of the audit are listed.
#[derive(Debug, clap::Args)]
pub struct AuditOf {
    /// Only entries of this instance
    #[arg(add = names())]
    pub name: Option<String>,
    /// Only entries before this one; the end of a longer list names it
    #[arg(long, value_name = "ID")]
    pub before: Option<i64>,
    /// The most entries to list
    #[arg(long, value_name = "NUMBER")]
    pub limit: Option<u32>,
}

/// Parameters of a request.
#[derive(Debug, clap::Args)]
pub struct Parameters {
    /// Parameters: a JSON object, or a file with one
    #[arg(short = 'c', value_name = "JSON or FILE")]
    pub parameters: Option<String>,
}

/// Whether the end is waited for.
#[derive(Debug, clap::Args)]
pub struct Patience {
    /// Wait until it is done, and show its progress
    #[arg(short, long)]
    pub wait: bool,
}

/// Whether the user is sure.
#[derive(Debug, clap::Args)]
pub struct Certainty {
    /// Do not ask for confirmation
    #[arg(short, long)]
    pub force: bool,
}

/// What completes the name of an instance.
fn names() -> ArgValueCompleter {
    ArgValueCompleter::new(completion::instances)
}

/// What completes the name of a key.
fn keys() -> ArgValueCompleter {
    ArgValueCompleter::new(completion::keys)
}

/// How results are told.
#[derive(Debug, clap::Args)]
pub struct Form {
    /// Output format
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORM")]
    pub output: Output,
}

impl Parameters {
    /// The object that is meant: written out, or in a file.
    pub fn read(&self) -> Result<Option<Value>> {
        let Some(text) = &self.parameters else {
            return Ok(None);
        };
        let text = if text.trim_start().starts_with('{') {
            text.clone()
        } else {
            let file = text.strip_prefix('@').unwrap_or(text);
            fs::read_to_string(file)
                .map_err(|e| Error::Usage(format!("-c: {file} cannot be read: {e}")))?
        };
        let value: Value = serde_json::from_str(without_bom(&text))
            .map_err(|e| Error::Usage(format!("-c is not JSON: {e}")))?;
        if !value.is_object() {
            return Err(Error::Usage("-c is not a JSON object".into()));
        }
        Ok(Some(value))
    }
}
