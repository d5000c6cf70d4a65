//! The client: what a platform's users have, for those who have no platform. In Cloud Foundry's
//! words, over HTTP alone, to any broker.
//!
//! Invariants: nothing of a broker's store is read; what is asked for is in the book of names
//! before a broker hears of it; no credentials are kept; results go to the standard output and
//! everything else to the error output.

use std::{process::ExitCode, time::Duration};

use clap::{ArgMatches, FromArgMatches, Subcommand};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    config::{CLIENT_SECRETS_HELP, ClientConfig, ClientSettings},
    model::failure::chain,
};

mod backups;
mod book;
mod catalog;
mod command;
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
use command::{Certainty, Command, Form, Patience};
use error::Result;
use http::Http;
use osb::Osb;
use show::{Show, note};

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
            Command::CreateService(asked) => self.create_service(asked).await,
            Command::Service { name, id: Some(id) } => self.take_up(&name, &id).await,
            Command::Service { name, id: None } => self.service(&name).await,
            Command::Services => self.services().await,
            Command::UpdateService(asked) => self.update_service(asked).await,
            Command::UpgradeService(asked) => self.upgrade_service(asked).await,
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
                certainty: Certainty { force },
                patience: Patience { wait },
            } => self.delete_service(&name, force, wait).await,
            Command::CreateServiceKey {
                name,
                key,
                parameters,
                patience: Patience { wait },
            } => self.create_key(&name, &key, parameters.read()?, wait).await,
            Command::ServiceKey { name, key, id } => self.key(&name, &key, id.as_deref()).await,
            Command::ServiceKeys { name } => self.keys(&name),
            Command::DeleteServiceKey {
                name,
                key,
                certainty: Certainty { force },
                patience: Patience { wait },
            } => self.delete_key(&name, &key, force, wait).await,
            Command::Backups { name } => self.backups(&name).await,
            Command::CreateBackup { name, patience } => {
                self.create_backup(&name, patience.wait).await
            }
            Command::RestoreBackup(asked) => self.restore(asked).await,
            Command::DownloadBackup(asked) => self.download(asked).await,
            Command::Operations(command) => self.operations(command).await,
            Command::Recover(recovery) => self.recover(&recovery).await,
        }
    }

    async fn catalog(&self) -> Result<Catalog> {
        self.osb.catalog().await.map(Catalog)
    }
}
