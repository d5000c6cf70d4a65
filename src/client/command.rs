//! What the client can be asked for: its commands and their arguments.

use std::{fs, path::PathBuf};

use clap::Subcommand;
use serde_json::Value;

use super::{
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
    Marketplace {
        /// Only this offering
        #[arg(short = 'e', long)]
        offering: Option<String>,
    },
    /// Make a service instance
    CreateService(CreateService),
    /// Show a service instance
    Service {
        /// The instance
        name: String,
        /// Take up the instance with this id under the name: one that this machine does not know
        #[arg(long)]
        id: Option<String>,
    },
    /// List the service instances that this machine knows
    Services,
    /// Change a service instance
    UpdateService(UpdateService),
    /// Bring a service instance to the version that its plan has now, or to another newer one
    UpgradeService(UpgradeService),
    /// List the versions that a service instance can be taken to, with their known faults
    Versions {
        /// The instance
        name: String,
    },
    /// Give unused storage of a service instance back, and let it take writes again if it was full
    MakeRoom {
        /// The instance
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
        name: String,
        /// Tell what it would do and how long it takes, and do nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        patience: Patience,
    },
    /// Delete a service instance with its keys
    DeleteService {
        /// The instance
        name: String,
        #[command(flatten)]
        certainty: Certainty,
        #[command(flatten)]
        patience: Patience,
    },
    /// Make a service key: credentials for an instance
    CreateServiceKey {
        /// The instance
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
        name: String,
        /// The key
        key: String,
        /// Take up the binding with this id under the key's name: one that this machine does not
        /// know
        #[arg(long)]
        id: Option<String>,
    },
    /// List the service keys of an instance
    ServiceKeys {
        /// The instance
        name: String,
    },
    /// Delete a service key: its credentials are good for nothing afterwards
    DeleteServiceKey {
        /// The instance
        name: String,
        /// The key
        key: String,
        #[command(flatten)]
        certainty: Certainty,
        #[command(flatten)]
        patience: Patience,
    },
    /// List the backups of a service instance
    Backups {
        /// The instance
        name: String,
    },
    /// Take a backup of a service instance; older ones on demand give way to it
    CreateBackup {
        /// The instance
        name: String,
        #[command(flatten)]
        patience: Patience,
    },
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
    pub name: String,
    #[command(flatten)]
    pub parameters: Parameters,
    /// The plan to change to
    #[arg(short, long)]
    pub plan: Option<String>,
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
    pub name: String,
    /// The backup's id
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
    pub name: String,
    /// The backup's id
    pub backup: String,
    /// The file to write [default: the backup's name and .tar.gz, in this folder]
    #[arg(long, value_name = "FILE")]
    pub to: Option<PathBuf>,
    /// Replace the file if it is there
    #[arg(long)]
    pub force: bool,
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

/// How results are told.
#[derive(Debug, clap::Args)]
pub struct Form {
    /// How to tell results
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
