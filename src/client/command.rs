//! What the client can be asked for: its commands and their arguments.

use std::{fs, path::PathBuf};

use clap::{Subcommand, ValueHint};
use clap_complete::engine::ArgValueCompleter;
use serde_json::Value;

use super::{
    completion,
    error::{Error, Result},
    operations::Operations,
    recover::Recovery,
    show::Output,
};
use crate::model::bom::without_bom;

/// What the client can be asked for.
#[derive(Debug, Subcommand)]
pub enum Command {
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
    /// Change a service instance
    UpdateService(UpdateService),
    /// Bring a service instance to the version that its plan has now, or to another newer one
    UpgradeService(UpgradeService),
    /// List the versions that a service instance can be taken to, with their known faults
    Versions {
        /// The instance
        #[arg(add = names())]
        name: String,
    },
    /// Give unused storage of a service instance back, and let it take writes again if it was full
    MakeRoom {
        /// The instance
        #[arg(add = names())]
        name: String,
        /// Delete all keys that begin with this before
        #[arg(long, value_name = "PREFIX")]
        delete_prefix: Option<String>,
        #[command(flatten)]
        patience: Patience,
    },
    /// Give storage back that the files of a service instance do not use: each member in turn answers
    /// nobody meanwhile
    Defragment {
        /// The instance
        #[arg(add = names())]
        name: String,
        /// Tell what it would do and how long it takes, and do nothing
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
        /// What to call it from now on
        new_name: String,
    },
    /// Make a service key: credentials for an instance
    #[command(visible_alias = "csk")]
    CreateServiceKey {
        /// The instance
        #[arg(add = names())]
        name: String,
        /// What to call the key
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
    /// Delete a service key: its credentials are good for nothing afterwards
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
    /// List the backups of a service instance
    Backups {
        /// The instance
        #[arg(add = names())]
        name: String,
    },
    /// Take a backup of a service instance; older ones on demand give way to it
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
        /// The backup's id
        #[arg(value_hint = ValueHint::Other)]
        backup: String,
        /// What to remember of it, in one line; "" for nothing
        #[arg(value_hint = ValueHint::Other)]
        note: String,
    },
    /// Keep a backup until you unpin it: it goes neither by age nor by a newer one
    Pin {
        /// The instance
        #[arg(add = names())]
        name: String,
        /// The backup's id
        #[arg(value_hint = ValueHint::Other)]
        backup: String,
    },
    /// Keep a backup no longer than others of its kind
    Unpin {
        /// The instance
        #[arg(add = names())]
        name: String,
        /// The backup's id
        #[arg(value_hint = ValueHint::Other)]
        backup: String,
    },
    /// List what is the matter with a service instance, the worst first
    Alerts {
        /// The instance
        #[arg(add = names())]
        name: String,
    },
    /// List the members of a service instance: how each is, and where applications reach it
    Members {
        /// The instance
        #[arg(add = names())]
        name: String,
    },
    /// Print what the members of a service instance log
    Logs(Logs),
    /// List what was done to a service instance, and is being done, the newest first
    Tasks {
        /// The instance
        #[arg(add = names())]
        name: String,
    },
    /// For operators: list who had what done, and who got to see what, the newest first
    Audit(AuditOf),
    /// Print a link that opens the dashboard of a service instance once, within 15 minutes
    DashboardLink {
        /// The instance
        #[arg(add = names())]
        name: String,
    },
    /// Show which broker the client speaks to, as whom, and by which settings
    Settings,
    /// Make a new service instance from a backup of another one
    RestoreBackup(RestoreBackup),
    /// Download a backup, checked down to its hash
    DownloadBackup(DownloadBackup),
    /// For operators: look at what the broker works on, and at what does not get on
    #[command(subcommand)]
    Operations(Operations),
    /// For operators: have a database made anew whose majority is lost
    Recover(Recovery),
}

/// What an instance is made of.
#[derive(Debug, clap::Args)]
pub struct CreateService {
    /// The offering, as `marketplace` lists it
    pub offering: String,
    /// The plan
    pub plan: String,
    /// What to call the instance
    pub name: String,
    #[command(flatten)]
    pub parameters: Parameters,
    /// Tags for the instance, apart by commas: kept in the file of names, and shown
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
    /// Tags for the instance in the place of those that it has, apart by commas; "" for none
    #[arg(short, long, value_delimiter = ',')]
    pub tags: Option<Vec<String>>,
    /// Lift a protection against deletion without asking
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
    /// Tell what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub patience: Patience,
}

/// What a new instance is made of, beside the one of a backup.
#[derive(Debug, clap::Args)]
pub struct RestoreBackup {
    /// The instance that the backup was taken of
    #[arg(add = names())]
    pub name: String,
    /// The backup's id
    #[arg(value_hint = ValueHint::Other)]
    pub backup: String,
    /// What to call the new instance
    pub new_name: String,
    /// The version of the new instance's database
    #[arg(long, value_name = "VERSION")]
    pub db_version: Option<String>,
    /// The size of the new instance
    #[arg(long)]
    pub units: Option<u32>,
    /// The plan of the new instance [default: that of the other one]
    #[arg(short, long)]
    pub plan: Option<String>,
    #[command(flatten)]
    pub parameters: Parameters,
    #[command(flatten)]
    pub patience: Patience,
}

/// Which backup is downloaded, and where to.
#[derive(Debug, clap::Args)]
pub struct DownloadBackup {
    /// The instance
    #[arg(add = names())]
    pub name: String,
    /// The backup's id
    #[arg(value_hint = ValueHint::Other)]
    pub backup: String,
    /// The file to write [default: the backup's name and .tar.gz, in this folder]
    #[arg(long, value_name = "FILE")]
    pub to: Option<PathBuf>,
    /// Replace the file if it is there
    #[arg(long)]
    pub force: bool,
}

/// Which logs are printed.
#[derive(Debug, clap::Args)]
pub struct Logs {
    /// The instance
    #[arg(add = names())]
    pub name: String,
    /// Go on with what is logged from now on, until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,
    /// Only this member
    #[arg(short, long, value_name = "NAME")]
    pub member: Option<String>,
    /// So many lines of each member [default: 20]
    #[arg(short = 'n', long, value_name = "NUMBER")]
    pub lines: Option<usize>,
}

/// Which entries of the audit are listed.
#[derive(Debug, clap::Args)]
pub struct AuditOf {
    /// Only those of this instance
    #[arg(add = names())]
    pub name: Option<String>,
    /// Only those before this one: how a list ends that has more
    #[arg(long, value_name = "ID")]
    pub before: Option<i64>,
    /// At most so many
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
    /// Wait for the end, and show how it goes on
    #[arg(short, long)]
    pub wait: bool,
}

/// Whether the user is sure.
#[derive(Debug, clap::Args)]
pub struct Certainty {
    /// Do not ask whether that is meant
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
            .map_err(|e| Error::Usage(format!("-c: no JSON: {e}")))?;
        if !value.is_object() {
            return Err(Error::Usage("-c: no JSON object".into()));
        }
        Ok(Some(value))
    }
}
