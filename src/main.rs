//! The command line.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{
    CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum,
    error::{ContextKind, ContextValue},
};
use clap_complete::env::{Bash, CompleteEnv, EnvCompleter, Fish, Zsh};
use compose_broker::{
    app::{
        self, App, Clock, Looked, Surroundings, THREADS_END_WAIT, Verdict, chain, check_catalog,
        copy_backups, copy_store, pending_migrations, start_members, verify_backups,
    },
    client::{self, Client},
    config::{Accepted, CatalogFile, Config, OfflineLook, SECRETS_HELP, Settings, program},
    logging,
};
use tokio::signal::unix::{SignalKind, signal};

/// An Open Service Broker that gives a marketplace real databases with backups that can be trusted
#[derive(Parser)]
#[command(version)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum CatalogCommand {
    /// Print everything that is wrong with a catalog file, with its place; fail if there is anything
    Check {
        /// The file (JSON)
        file: PathBuf,
    },
}

#[derive(Subcommand)]
enum StoreCommand {
    /// Copy a store of SQLite into an empty database of PostgreSQL, row by row, each compared; no broker uses
    /// either meanwhile. A copy that was broken off goes on when it is begun once more
    Copy {
        /// The file, sqlite:// and its path: broker.db in the broker's DATA_DIR
        #[arg(long, value_name = "URL")]
        from: String,
        /// The database, postgres://
        #[arg(
            long,
            value_name = "URL",
            env = "COMPOSE_BROKER_DATABASE_URL",
            hide_env_values = true
        )]
        to: String,
    },
}

#[derive(Subcommand)]
enum Command {
    /// Serve the OSB and Compose APIs and run the work behind them
    #[command(after_help = SECRETS_HELP, next_line_help = true)]
    Serve {
        #[command(flatten)]
        settings: Box<Settings>,
        /// For one start, after a look: go on although this is not what the broker knows
        /// (data, backups, mirror, cluster:ID: the folder as it is; database: a new one; keys: backups whose key is gone
        /// are given up) [default: nothing]
        // No variable: what is accepted once would be accepted at every later start.
        #[arg(long, value_name = "WHAT")]
        accept: Vec<Accepted>,
    },
    /// Bring the broker's database to this version, as the start of a broker does by itself
    #[command(after_help = SECRETS_HELP, next_line_help = true)]
    Migrate {
        #[command(flatten)]
        settings: Box<Settings>,
        /// Change nothing: print what there is to do, and fail if there is anything
        #[arg(long)]
        check: bool,
    },
    /// Move the broker's store
    #[command(subcommand)]
    Store(StoreCommand),
    /// Copy all backups from OLDER_BACKUP_STORES into BACKUP_STORE, each read back and compared; a copy that
    /// broke off goes on when it is begun once more. The broker may run meanwhile
    #[command(after_help = SECRETS_HELP, next_line_help = true)]
    CopyBackups {
        #[command(flatten)]
        settings: Box<Settings>,
        /// Delete each backup from the older store once it is in the new one
        #[arg(long)]
        delete: bool,
    },
    /// Look without a broker whether backups are what was stored, and print a line for each. Ends with 1 when one
    /// is damaged, 3 when one could not be opened for lack of its key, 4 when nobody can tell
    VerifyBackup(Box<OfflineLook>),
    /// Check catalog files
    #[command(subcommand)]
    Catalog(CatalogCommand),
    #[command(flatten)]
    Client(Box<Client>),
    /// Print a script that completes this program's command lines
    Completion {
        /// The shell that it is for
        shell: Shell,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Words that may have been meant, of which so many are told.
const SUGGESTIONS_MAX: usize = 3;
/// Set where a shell asks how a command line goes on.
const COMPLETE: &str = "COMPOSE_BROKER_COMPLETE";

fn main() -> ExitCode {
    CompleteEnv::with_factory(CommandLine::command)
        .var(COMPLETE)
        .complete();
    let command = match command_line() {
        Ok(line) => line.command,
        Err(error) => best_first(error).exit(),
    };
    // What the broker keeps is nobody else's business, whatever folder it is given.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    no_core_dumps();
    match &command {
        Command::Catalog(CatalogCommand::Check { file }) => return check(file),
        Command::Completion { shell } => return completion(*shell),
        Command::Migrate { settings, check } => return migrate(settings, *check),
        Command::Store(StoreCommand::Copy { from, to }) => return copy(from, to),
        Command::CopyBackups { settings, delete } => return move_backups(settings, *delete),
        Command::VerifyBackup(look) => return verify(look),
        _ => {}
    }
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return failure(&error),
    };
    let ended = runtime.block_on(async {
        let done = match command {
            Command::Serve { settings, accept } => serve(&settings, accept).await,
            Command::Client(client) => return client::run(*client, Clock::system()).await,
            // Done above: they need nothing that runs.
            Command::Catalog(_)
            | Command::Completion { .. }
            | Command::Migrate { .. }
            | Command::CopyBackups { .. }
            | Command::VerifyBackup(_)
            | Command::Store(_) => Ok(()),
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failure(error.as_ref()),
        }
    });
    runtime.shutdown_timeout(THREADS_END_WAIT);
    ended
}

/// What the program was asked for, or what is told instead.
fn command_line() -> Result<CommandLine, clap::Error> {
    let mut program = client::usages_in_lines(CommandLine::command());
    let mut matches = program.clone().try_get_matches()?;
    CommandLine::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut program))
}

/// What a process knew when it crashed stays unwritten, of the broker and of the members that it
/// starts: it would hold keys and passwords.
fn no_core_dumps() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if let Err(error) = setrlimit(Resource::Core, none) {
        complain(&format!("core dumps stay as they are: {error}"));
    }
}

/// Each connection and each file takes one of the files that a process may have open, and the soft
/// limit is low on most systems: for programs that cannot tell larger numbers, of which this is none.
fn all_files_allowed() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        complain(&format!("the limit of open files stays as it is: {error}"));
    }
}

fn failure(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    complain(&chain(error));
    ExitCode::FAILURE
}

/// Says what is wrong. That nobody reads it is no reason to end otherwise than one would.
fn complain(what: &str) {
    let _ = writeln!(io::stderr(), "compose-broker: {what}");
}

/// Prints a result. A reader that has gone wants no more of it.
fn print(text: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(io::Error::new(
            error.kind(),
            format!("standard output: {error}"),
        )),
        _ => Ok(()),
    }
}

/// Prints a result, and tells how that ended.
fn printed(text: &[u8], good: ExitCode) -> ExitCode {
    print(text).map_or_else(|error| failure(&error), |()| good)
}

/// What is found goes to the standard output, what hinders the search to the error output.
fn check(file: &Path) -> ExitCode {
    let shown = file.display();
    let text = match CatalogFile::read(file) {
        Ok(catalog) => catalog.text,
        Err(error) => {
            complain(&format!("{shown}: {error}"));
            return ExitCode::FAILURE;
        }
    };
    match check_catalog(&text) {
        Ok(what) => {
            let sound = format!("{shown} is sound: {what}\n");
            printed(sound.as_bytes(), ExitCode::SUCCESS)
        }
        Err(violations) => {
            let lines = violations.iter().map(|violation| format!("{violation}\n"));
            let ended = printed(lines.collect::<String>().as_bytes(), ExitCode::FAILURE);
            complain(&format!("{shown} is not sound"));
            ended
        }
    }
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
}

/// The names of migrations go to the standard output, one on each line.
fn migrate(settings: &Settings, only_look: bool) -> ExitCode {
    let config = match Config::load(settings) {
        Ok(config) => config,
        Err(error) => return failure(&error),
    };
    let made = match (only_look, runtime()) {
        (true, _) => pending_migrations(&config),
        (false, Ok(runtime)) => runtime.block_on(app::migrate(&config)),
        (false, Err(error)) => return failure(&error),
    };
    let names = match made {
        Ok(names) => names,
        Err(error) => return failure(&error),
    };
    let good = match only_look && !names.is_empty() {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    };
    let lines: String = names.iter().map(|name| format!("{name}\n")).collect();
    let ended = printed(lines.as_bytes(), good);
    complain(match (names.is_empty(), only_look) {
        (true, _) => "the database has the schema of this version",
        (false, true) => {
            "the database lacks these; compose-broker migrate makes them, and so does the start of a broker"
        }
        (false, false) => "the database has the schema of this version now",
    });
    ended
}

/// Tables and their rows go to the standard output, one on each line.
fn copy(from: &str, to: &str) -> ExitCode {
    let copied = match copy_store(from, to) {
        Ok(copied) => copied,
        Err(error) => return failure(&error),
    };
    let lines: String = copied
        .iter()
        .map(|copied| format!("{} {}\n", copied.table, copied.rows))
        .collect();
    let ended = printed(lines.as_bytes(), ExitCode::SUCCESS);
    complain(
        "the store is copied, and the file is used by no broker any more; start the broker with \
         COMPOSE_BROKER_DATABASE_URL, and with its username, password and encryption keys as settings",
    );
    ended
}

/// How a look at backups ends that finds one damaged.
const DAMAGED: u8 = 1;
/// How it ends when a key is missing, and nothing is known to be damaged.
const NOT_OPENED: u8 = 3;
/// How it ends when it could not be done.
const UNKNOWN: u8 = 4;

/// What is found of each backup goes to the standard output, a line each.
fn verify(look: &OfflineLook) -> ExitCode {
    let (mut damaged, mut closed) = (false, false);
    let tell = |looked: Looked| {
        match &looked.verdict {
            Verdict::Whole(_) => {}
            Verdict::NotOpened(_) | Verdict::ForTenant(_) | Verdict::GivenUp(_) => closed = true,
            Verdict::Damaged(_) => damaged = true,
        }
        let _ = print(format!("{looked}\n").as_bytes());
    };
    let looked = match runtime() {
        Ok(runtime) => runtime.block_on(verify_backups(look, tell)),
        Err(error) => {
            complain(&chain(&error));
            return ExitCode::from(UNKNOWN);
        }
    };
    let looked = looked.inspect_err(|error| complain(&chain(error)));
    match looked {
        _ if damaged => ExitCode::from(DAMAGED),
        Err(_) => ExitCode::from(UNKNOWN),
        Ok(()) if closed => ExitCode::from(NOT_OPENED),
        Ok(()) => ExitCode::SUCCESS,
    }
}

/// Each backup goes to the standard output with its bytes, a line each, once it is there.
fn move_backups(settings: &Settings, delete: bool) -> ExitCode {
    let config = match Config::load(settings) {
        Ok(config) => config,
        Err(error) => return failure(&error),
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return failure(&error),
    };
    logging::start(&config.logging.filter, config.logging.format);
    let (mut copied, mut there) = (0_u64, 0_u64);
    let copying = copy_backups(&config, delete, |backup| {
        match backup.bytes {
            0 => there += 1,
            _ => copied += 1,
        }
        let _ =
            print(format!("{}/{} {}\n", backup.deployment, backup.backup, backup.bytes).as_bytes());
    });
    if let Err(error) = runtime.block_on(copying) {
        return failure(&error);
    }
    complain(&format!(
        "backups copied: {copied}, there already: {there}{}",
        if delete {
            "; none is left in the older stores"
        } else {
            ""
        }
    ));
    ExitCode::SUCCESS
}

/// What is wrong with a command line, with the word that is most like a wrong one in front.
fn best_first(mut error: clap::Error) -> clap::Error {
    if let Some(ContextValue::Strings(words)) = error.get(ContextKind::SuggestedSubcommand) {
        let best_first = words.iter().rev().take(SUGGESTIONS_MAX).cloned().collect();
        let words = ContextValue::Strings(best_first);
        error.insert(ContextKind::SuggestedSubcommand, words);
    }
    error
}

/// The shell asks this program for each word, so that names of this machine are among them.
fn completion(shell: Shell) -> ExitCode {
    let shell: &dyn EnvCompleter = match shell {
        Shell::Bash => &Bash,
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
    };
    let (name, mut script) = ("compose-broker", Vec::new());
    let program = program().map_or_else(|| name.to_owned(), |path| path.display().to_string());
    match shell.write_registration(COMPLETE, name, name, &program, &mut script) {
        Ok(()) => printed(&script, ExitCode::SUCCESS),
        Err(error) => failure(&error),
    }
}

async fn serve(
    settings: &Settings,
    accept: Vec<Accepted>,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut config = match Config::load(settings) {
        Ok(config) => config,
        Err(error) => {
            // After the machine was started anew, databases must not wait for somebody to mend it.
            start_members(&Config::clusters_alone(settings)).await;
            return Err(error.into());
        }
    };
    config.accepted = accept;
    logging::start(&config.logging.filter, config.logging.format);
    all_files_allowed();
    let data_dir = config.places.data_dir.display().to_string();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let surroundings = Surroundings::of(&config);
    let mut app = App::start(config, surroundings).await?;
    // The greeting is for people who look on; the broker serves without, too.
    if let Err(error) = print(format!("{}\n", welcome(&app, &data_dir)).as_bytes()) {
        log::warn!("nobody was greeted: {error}");
    }
    app.announce().await;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => app.reload().await,
            error = app.failed() => return Err(error.into()),
        }
    }
    log::info!("stopping; the databases go on");
    app.end().await;
    Ok(())
}

fn welcome(app: &App, data_dir: &str) -> String {
    let url = &app.public_url;
    let (service, plan) = &app.first_plan;
    format!(
        r#"compose-broker serves {url}
  user name and password, unless you set them: {data_dir}/username and {data_dir}/password

Register it:
  cf create-service-broker compose-broker "$(cat {data_dir}/username)" "$(cat {data_dir}/password)" {url}

Or try it, with the same program:
  export COMPOSE_BROKER_URL={url} COMPOSE_BROKER_DATA_DIR={data_dir}
  compose-broker marketplace
  compose-broker create-service {service} {plan} my-database --wait
  compose-broker create-service-key my-database my-key --wait
  compose-broker service-key my-database my-key
"#
    )
}
