//! The client: what a platform's users have, for those who have no platform. In Cloud Foundry's
//! words, over HTTP alone, to any broker.
//!
//! Invariants: nothing of a broker's store is read; what is asked for is in the book of names
//! before a broker hears of it; no credentials are kept; results go to the standard output and
//! everything else to the error output.

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use clap::{ArgMatches, FromArgMatches, Subcommand};
use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    config::{CLIENT_SECRETS_HELP, ClientConfig, ClientSettings},
    model::{bom::without_bom, failure::chain},
};

mod backups;
mod book;
mod catalog;
mod compose;
mod download;
mod error;
mod http;
mod instances;
mod keys;
mod operations;
mod osb;
mod recover;
mod show;
mod versions;
mod work;

use book::Book;
use catalog::Catalog;
use error::{Error, Result};
use http::Http;
use operations::Operations;
use osb::Osb;
use recover::Recovery;
use show::{Output, Show, note};

/// What the client can be asked for.
#[derive(Debug, Subcommand)]
enum Command {
    /// List what the broker has on offer
    Marketplace {
        /// Only this offering
        #[arg(short = 'e', long)]
        offering: Option<String>,
    },
    /// Make a service instance
    CreateService {
        /// The offering, as `marketplace` lists it
        offering: String,
        /// The plan
        plan: String,
        /// What to call the instance
        name: String,
        #[command(flatten)]
        parameters: Parameters,
        /// The instance's id [default: a new one]
        #[arg(long)]
        id: Option<String>,
        #[command(flatten)]
        patience: Patience,
    },
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
    UpdateService {
        /// The instance
        name: String,
        #[command(flatten)]
        parameters: Parameters,
        /// The plan to change to
        #[arg(short, long)]
        plan: Option<String>,
        /// Lift a protection against deletion without asking
        #[arg(short, long)]
        force: bool,
        #[command(flatten)]
        patience: Patience,
    },
    /// Bring a service instance to the version that its plan has now, or to another newer one
    UpgradeService {
        /// The instance
        name: String,
        /// The version [default: that of the plan]
        #[arg(long, value_name = "VERSION")]
        db_version: Option<String>,
        /// Tell what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        patience: Patience,
    },
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
    RestoreBackup {
        /// The instance that the backup was taken of
        name: String,
        /// The backup's id
        backup: String,
        /// What to call the new instance
        new_name: String,
        /// The version of the new instance's database
        #[arg(long, value_name = "VERSION")]
        db_version: Option<String>,
        /// The size of the new instance
        #[arg(long)]
        units: Option<u32>,
        /// The plan of the new instance [default: that of the other one]
        #[arg(short, long)]
        plan: Option<String>,
        #[command(flatten)]
        parameters: Parameters,
        #[command(flatten)]
        patience: Patience,
    },
    /// Download a backup, checked down to its hash
    DownloadBackup {
        /// The instance
        name: String,
        /// The backup's id
        backup: String,
        /// The file to write [default: the backup's name and .tar.gz, in this folder]
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
        /// Replace the file if it is there
        #[arg(long)]
        force: bool,
    },
    /// For operators: look at what the broker works on, and at what does not get on
    #[command(subcommand)]
    Operations(Operations),
    /// For operators: have a database made anew whose majority is lost
    Recover(Recovery),
}

#[derive(Debug, clap::Args)]
struct Parameters {
    /// Parameters: a JSON object, or a file with one
    #[arg(short = 'c', value_name = "JSON or FILE")]
    parameters: Option<String>,
}

#[derive(Debug, clap::Args)]
struct Patience {
    /// Wait for the end, and show how it goes on
    #[arg(short, long)]
    wait: bool,
}

#[derive(Debug, clap::Args)]
struct Certainty {
    /// Do not ask whether that is meant
    #[arg(short, long)]
    force: bool,
}

#[derive(Debug, clap::Args)]
struct Form {
    /// How to tell results
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORM")]
    output: Output,
}

/// A command of the client with its settings, as one of a program's subcommands.
#[derive(Debug)]
pub struct Client {
    settings: ClientSettings,
    form: Form,
    command: Command,
}

// By hand, since every command has the settings, and none should have to say so.
impl Subcommand for Client {
    fn augment_subcommands(program: clap::Command) -> clap::Command {
        let program = Command::augment_subcommands(program);
        program.mut_subcommands(|command| {
            if !Command::has_subcommand(command.get_name()) {
                return command;
            }
            // What the settings say of themselves must not stand for what the command does.
            let about = command.get_about().cloned().unwrap_or_default();
            let command = <Form as clap::Args>::augment_args(command);
            let command = <ClientSettings as clap::Args>::augment_args(command);
            // Where a command has commands of its own, these take the settings too.
            let command = if command.has_subcommands() {
                command.mut_args(|setting| setting.global(true))
            } else {
                command
            };
            command.about(about).after_help(CLIENT_SECRETS_HELP)
        })
    }

    fn augment_subcommands_for_update(program: clap::Command) -> clap::Command {
        Self::augment_subcommands(program)
    }

    fn has_subcommand(name: &str) -> bool {
        Command::has_subcommand(name)
    }
}

impl FromArgMatches for Client {
    fn from_arg_matches(matches: &ArgMatches) -> std::result::Result<Self, clap::Error> {
        let command = Command::from_arg_matches(matches)?;
        let missing = || clap::Error::new(clap::error::ErrorKind::MissingSubcommand);
        let (_, of_command) = matches.subcommand().ok_or_else(missing)?;
        Ok(Self {
            settings: ClientSettings::from_arg_matches(of_command)?,
            form: Form::from_arg_matches(of_command)?,
            command,
        })
    }

    fn update_from_arg_matches(
        &mut self,
        matches: &ArgMatches,
    ) -> std::result::Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Does what a command asks for. The exit code says how that went: 0 done, 1 failed or refused,
/// 2 used wrongly, 130 interrupted.
pub async fn run(client: Client, clock: Clock) -> ExitCode {
    match serve(client, clock).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note(&format!("compose-broker: {}", chain(&error)));
            error.exit_code().into()
        }
    }
}

async fn serve(client: Client, clock: Clock) -> Result<()> {
    let config = ClientConfig::load(&client.settings)?;
    if config.is_in_the_open() {
        note("warning: the password goes to the broker without encryption");
    }
    let interrupt = CancellationToken::new();
    // From now on, and not from when the task below comes to it.
    if let Ok(ctrl_c) = signal(SignalKind::interrupt()) {
        tokio::spawn(listen_to_the_user(ctrl_c, interrupt.clone()));
    }
    let http = Http::new(config.ca, config.timeout, interrupt);
    let broker = config.broker.as_str().trim_end_matches('/').to_owned();
    let session = Session {
        osb: Osb::new(
            http,
            config.broker,
            &config.credentials,
            &config.user,
            config.poll,
        ),
        book: Book::new(config.state, broker),
        show: Show::new(client.form.output),
        poll: config.poll,
        organization: config.organization,
        space: config.space,
        clock,
    };
    session.serve(client.command).await
}

/// The first Ctrl-C ends what waits, in good order. A second one ends everything.
async fn listen_to_the_user(mut ctrl_c: Signal, interrupt: CancellationToken) {
    ctrl_c.recv().await;
    interrupt.cancel();
    ctrl_c.recv().await;
    std::process::exit(130);
}

/// One command at work.
struct Session {
    osb: Osb,
    book: Book,
    show: Show,
    /// The pause between two looks, where the user chose one.
    poll: Option<Duration>,
    organization: String,
    space: String,
    clock: Clock,
}

impl Session {
    async fn serve(&self, command: Command) -> Result<()> {
        match command {
            Command::Marketplace { offering } => {
                let (text, value) = self.catalog().await?.told(offering.as_deref())?;
                self.show.result(&text, &value)
            }
            Command::CreateService {
                offering,
                plan,
                name,
                parameters,
                id,
                patience,
            } => {
                let parameters = parameters.read()?;
                let asked = instances::New {
                    name,
                    id,
                    parameters,
                };
                self.create_service(&offering, &plan, asked, patience.wait)
                    .await
            }
            Command::Service { name, id: Some(id) } => self.take_up(&name, &id).await,
            Command::Service { name, id: None } => self.service(&name).await,
            Command::Services => self.services().await,
            Command::UpdateService {
                name,
                parameters,
                plan,
                force,
                patience,
            } => {
                let (parameters, plan) = (parameters.read()?, plan.as_deref());
                self.update_service(&name, parameters, plan, force, patience.wait)
                    .await
            }
            Command::UpgradeService {
                name,
                db_version,
                dry_run: true,
                ..
            } => self.rehearse_upgrade(&name, db_version).await,
            Command::UpgradeService {
                name,
                db_version: Some(version),
                patience,
                ..
            } => {
                let parameters = serde_json::json!({ "db_version": version });
                self.update_service(&name, Some(parameters), None, false, patience.wait)
                    .await
            }
            Command::UpgradeService { name, patience, .. } => {
                self.upgrade_service(&name, patience.wait).await
            }
            Command::Versions { name } => self.versions(&name).await,
            Command::MakeRoom {
                name,
                delete_prefix,
                patience,
            } => self.make_room(&name, delete_prefix, patience.wait).await,
            Command::Defragment {
                name,
                dry_run,
                patience,
            } => self.defragment(&name, dry_run, patience.wait).await,
            Command::DeleteService {
                name,
                certainty,
                patience,
            } => {
                self.delete_service(&name, certainty.force, patience.wait)
                    .await
            }
            Command::CreateServiceKey {
                name,
                key,
                parameters,
                patience,
            } => {
                let parameters = parameters.read()?;
                self.create_key(&name, &key, parameters, patience.wait)
                    .await
            }
            Command::ServiceKey { name, key, id } => self.key(&name, &key, id.as_deref()).await,
            Command::ServiceKeys { name } => self.keys(&name),
            Command::DeleteServiceKey {
                name,
                key,
                certainty,
                patience,
            } => {
                self.delete_key(&name, &key, certainty.force, patience.wait)
                    .await
            }
            Command::Backups { name } => self.backups(&name).await,
            Command::CreateBackup { name, patience } => {
                self.create_backup(&name, patience.wait).await
            }
            Command::RestoreBackup {
                name,
                backup,
                new_name,
                db_version,
                units,
                plan,
                parameters,
                patience,
            } => {
                let mut parameters = parameters
                    .read()?
                    .unwrap_or_else(|| Value::Object(Default::default()));
                if let Some(version) = db_version {
                    parameters["db_version"] = version.into();
                }
                if let Some(units) = units {
                    parameters["units"] = units.into();
                }
                parameters["backup_id"] = backup.into();
                let new = instances::New {
                    name: new_name,
                    id: None,
                    parameters: Some(parameters),
                };
                self.restore(&name, new, plan.as_deref(), patience.wait)
                    .await
            }
            Command::DownloadBackup {
                name,
                backup,
                to,
                force,
            } => self.download(&name, &backup, to, force).await,
            Command::Operations(command) => self.operations(command).await,
            Command::Recover(recovery) => self.recover(&recovery).await,
        }
    }

    async fn catalog(&self) -> Result<Catalog> {
        self.osb.catalog().await.map(Catalog)
    }
}

impl Parameters {
    /// The object that is meant: written out, or in a file.
    fn read(&self) -> Result<Option<Value>> {
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
