//! The client: what a platform's users have, for those who have no platform. In Cloud Foundry's
//! words, over HTTP alone, to any broker.
//!
//! Invariants: nothing of a broker's store is read; what is asked for is in the book of names
//! before a broker hears of it; no credentials are kept; results go to the standard output and
//! everything else to the error output.

use std::{process::ExitCode, time::Duration};

use clap::{ArgMatches, FromArgMatches, Subcommand};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    config::{CLIENT_SECRETS_HELP, CLIENT_SETTINGS_HEADING, ClientConfig, ClientSettings},
    model::failure::chain,
};

mod backups;
mod book;
mod catalog;
mod clean;
mod command;
mod completion;
mod compose;
mod confirm;
mod deleted;
mod download;
mod environment;
mod error;
mod http;
mod import;
mod insight;
mod instances;
mod keys;
mod logs;
mod mirror;
mod operations;
mod osb;
mod past;
mod readers;
mod recover;
mod restore;
mod restore_keys;
mod show;
mod table;
mod target;
mod usage;
mod versions;
mod waits;
mod work;

use book::Book;
use catalog::Catalog;
use command::{
    BackupCommand, Certainty, Command, Form, InstanceCommand, KeyCommand, LookCommand, Patience,
};
use error::{Error, HttpError, Result};
use http::Http;
use osb::Osb;
use show::{Show, note};
use usage::usage;
pub use usage::usages_in_lines;

/// The command that tells of the settings that all others have too.
const SETTINGS: &str = "settings";
/// What the help of a command says of them.
const MORE_HELP: &str = "Which broker, and as whom: compose-broker settings --help";

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
            // With the settings that the environment gives, optional flags would look as if they were
            // needed.
            let usage = usage(&command);
            let is_about_settings = command.get_name() == SETTINGS;
            let command = <Form as clap::Args>::augment_args(command);
            let command = <ClientSettings as clap::Args>::augment_args(command);
            let of_broker =
                |arg: &clap::Arg| arg.get_help_heading() == Some(CLIENT_SETTINGS_HEADING);
            let command = command.mut_args(|arg| match of_broker(&arg) && !is_about_settings {
                true => arg.hide(true),
                false => arg,
            });
            // Where a command has commands of its own, these take the settings too.
            let command = if command.has_subcommands() {
                command.mut_args(|setting| setting.global(true))
            } else {
                command
            };
            let command = match usage {
                Some(usage) => command.override_usage(usage),
                None => command,
            };
            let more = if is_about_settings {
                CLIENT_SECRETS_HELP
            } else {
                MORE_HELP
            };
            command.about(about).after_help(more)
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
    let (done, hint) = match ClientConfig::load(&client.settings) {
        Ok(config) => {
            let hint = config.hint;
            (serve(client, config, clock).await, hint)
        }
        Err(error) => (Err(error.into()), None),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note(&format!("compose-broker: {}", chain(&error)));
            if let (Error::Http(HttpError::NotSent(_)), Some(hint)) = (&error, hint) {
                note(hint);
            }
            error.exit_code().into()
        }
    }
}

async fn serve(client: Client, config: ClientConfig, clock: Clock) -> Result<()> {
    if config.is_in_the_open() {
        note("warning: the password goes to the broker without encryption");
    }
    let interrupt = CancellationToken::new();
    // From now on, and not from when the task below comes to it.
    if let Ok(ctrl_c) = signal(SignalKind::interrupt()) {
        tokio::spawn(listen_to_the_user(ctrl_c, interrupt.clone()));
    }
    let broker = config.broker.as_str().trim_end_matches('/').to_owned();
    let facts = Facts {
        broker: broker.clone(),
        username: config.credentials.username.clone(),
        password_from: config.password_from,
        hint: config.hint,
        authorities: config.ca.as_ref().map_or_else(
            || "those of this machine".to_owned(),
            |file| file.display().to_string(),
        ),
    };
    let http = Http::new(config.ca, config.timeout, interrupt);
    let session = Session {
        osb: Osb::new(
            http,
            config.broker,
            &config.credentials,
            &config.user,
            config.poll,
        ),
        book: Book::new(config.state, broker),
        show: Show::new(client.form.output, config.columns),
        poll: config.poll,
        organization: config.organization,
        space: config.space,
        clock,
        facts,
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
    facts: Facts,
}

/// What `settings` tells.
struct Facts {
    broker: String,
    username: String,
    password_from: String,
    /// What to say where nothing is known of the broker at that address.
    hint: Option<&'static str>,
    authorities: String,
}

impl Session {
    async fn serve(&self, command: Command) -> Result<()> {
        match command {
            Command::Instances(command) => self.serve_instances(command).await,
            Command::Keys(command) => self.serve_keys(command).await,
            Command::Backups(command) => self.serve_backups(command).await,
            Command::Looks(command) => self.look(command).await,
            Command::Settings => self.settings(),
            Command::Operations(command) => self.operations(command).await,
            Command::Deleted(command) => self.deleted(command).await,
            Command::Recover(recovery) => self.recover(&recovery).await,
            Command::Mirror => self.mirror().await,
        }
    }

    async fn serve_instances(&self, command: InstanceCommand) -> Result<()> {
        match command {
            InstanceCommand::Marketplace { offering } => {
                let catalog = self.catalog().await?;
                let (text, value) = catalog.listing(&self.show, offering.as_deref())?;
                self.show.result(&text, &value)
            }
            InstanceCommand::CreateService(asked) => self.create_service(asked).await,
            InstanceCommand::Service { name, id: Some(id) } => self.take_up(&name, &id).await,
            InstanceCommand::Service { name, id: None } => self.service(&name).await,
            InstanceCommand::Services => self.services().await,
            InstanceCommand::UpdateService(asked) => self.update_service(asked).await,
            InstanceCommand::UpgradeService(asked) => self.upgrade_service(asked).await,
            InstanceCommand::Versions { name } => self.versions(&name).await,
            InstanceCommand::MakeRoom {
                name,
                delete_prefix,
                patience,
            } => self.make_room(&name, delete_prefix, patience.wait).await,
            InstanceCommand::Defragment {
                name,
                dry_run,
                patience,
            } => self.defragment(&name, dry_run, patience.wait).await,
            InstanceCommand::DeleteService {
                name,
                certainty: Certainty { force },
                patience: Patience { wait },
            } => self.delete_service(&name, force, wait).await,
            InstanceCommand::RenameService { name, new_name } => {
                self.rename(&name, &new_name).await
            }
        }
    }

    async fn serve_keys(&self, command: KeyCommand) -> Result<()> {
        match command {
            KeyCommand::CreateServiceKey {
                name,
                key,
                parameters,
                patience: Patience { wait },
            } => self.create_key(&name, &key, parameters.read()?, wait).await,
            KeyCommand::ServiceKey {
                name,
                key,
                id,
                env: true,
                cacert,
            } => self.key_for_shell(&name, &key, id.as_deref(), cacert).await,
            KeyCommand::ServiceKey { name, key, id, .. } => {
                self.key(&name, &key, id.as_deref()).await
            }
            KeyCommand::ServiceKeys { name } => self.keys(&name),
            KeyCommand::DeleteServiceKey {
                name,
                key,
                certainty: Certainty { force },
                patience: Patience { wait },
            } => self.delete_key(&name, &key, force, wait).await,
        }
    }

    async fn serve_backups(&self, command: BackupCommand) -> Result<()> {
        match command {
            BackupCommand::Backups { name } => self.backups(&name).await,
            BackupCommand::CreateBackup { name, patience } => {
                self.create_backup(&name, patience.wait).await
            }
            BackupCommand::BackupNote { name, backup, note } => {
                let change = json!({ "note": note });
                self.change_backup(&name, &backup, &change).await
            }
            BackupCommand::Pin { name, backup } => {
                let change = json!({ "pinned": true });
                self.change_backup(&name, &backup, &change).await
            }
            BackupCommand::Unpin { name, backup } => {
                let change = json!({ "pinned": false });
                self.change_backup(&name, &backup, &change).await
            }
            BackupCommand::RestoreBackup(asked) => self.restore(asked).await,
            BackupCommand::RestoreKeys(asked) => self.restore_keys(asked).await,
            BackupCommand::DownloadBackup(asked) => self.download(asked).await,
            BackupCommand::ImportBackup(asked) => self.import(asked).await,
        }
    }

    async fn look(&self, command: LookCommand) -> Result<()> {
        match command {
            LookCommand::Alerts { name } => self.alerts(&name).await,
            LookCommand::Members { name } => self.members(&name).await,
            LookCommand::Logs(of) => self.logs(&of).await,
            LookCommand::Tasks { name } => self.tasks(&name).await,
            LookCommand::History { name } => self.history(&name).await,
            LookCommand::Audit(of) => self.audit(&of).await,
            LookCommand::DashboardLink { name } => self.dashboard_link(&name).await,
            LookCommand::TestWebhook => self.test_webhook().await,
        }
    }

    async fn catalog(&self) -> Result<Catalog> {
        self.osb.catalog().await.map(Catalog)
    }
}
