//! The whole story of a database of `compose-broker`, told by its clients.
//!
//! Starts a broker of its own and does what a marketplace, an application and a user with a
//! terminal do with it: provision an etcd, bind it, fill it, take a backup, download and check
//! that, restore it into a new instance of a newer version, compare every key, and take all of it
//! down again. Everything goes through the public interfaces, so this is also a tutorial of them:
//!
//! - [`platform`]: the Open Service Broker API, which a marketplace speaks;
//! - [`administration`]: the Compose API (2016-07), by which users take and fetch backups;
//! - [`database`]: etcd itself, with what a binding's credentials hold;
//! - [`broker`], [`engines`], [`machine`]: the process, the binaries, and what is left behind;
//! - [`show`]: what you see.
//!
//! ```text
//! cargo build --bin compose-broker --example demo
//! target/debug/examples/demo --broker target/debug/compose-broker
//! ```
//!
//! Ends with 0 only when every comparison held. Processes and files of the demo are gone then,
//! and also after a failure or Ctrl-C.

use std::{
    fs,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

mod administration;
mod broker;
mod database;
mod download;
mod engines;
mod error;
mod machine;
mod platform;
mod show;

use administration::Administration;
use broker::Broker;
use database::{Content, Database};
use engines::Engines;
use error::{Context, Result, ensure};
use platform::Platform;
use show::Show;

/// The versions of the story, if they are installed.
const SOURCE_VERSION: &str = "3.4.23";
const TARGET_VERSION: &str = "3.5.16";

/// Each deployment has so many members.
const MEMBERS: usize = 3;

/// Walks through the life of a database with backups, against a broker of its own.
#[derive(Parser)]
struct Options {
    /// The compose-broker binary to start
    #[arg(long, value_name = "PATH")]
    broker: PathBuf,
    /// Print plain lines, also on a terminal
    #[arg(long)]
    plain: bool,
    /// Keep the folder with the broker's log, its data and the downloaded backup
    #[arg(long)]
    keep: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let show = Show::new(io::stdout().is_terminal() && !options.plain);
    match run(&options, &show).await {
        Ok(()) => {
            println!("\nAll is well, after {}.", show.elapsed());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("\nThe demo FAILED after {}: {error}", show.elapsed());
            ExitCode::FAILURE
        }
    }
}

/// Makes a place for the story, tells it there, and cleans the place up however it ended.
async fn run(options: &Options, show: &Show) -> Result<()> {
    let engines = Engines::find()?;
    let folder = tempfile::Builder::new()
        .prefix("compose-broker-demo-")
        .disable_cleanup(options.keep)
        .tempdir()
        .context("making a temporary folder")?;
    // Processes are looked for by this path later, so it has to be the real one.
    let place = fs::canonicalize(&folder).context("finding the temporary folder")?;
    if options.keep {
        println!("The files of this run stay in {}\n", place.display());
    }

    let mut broker = Broker::spawn(&options.broker, &place)?;
    let ended = tokio::select! {
        ended = tell(show, &mut broker, &engines, &place) => ended,
        signal = stop_signal() => Err(format!("stopped by {signal}").into()),
    };
    if ended.is_err() {
        broker.show_log();
    }
    // The broker's end is no end of the databases, which is why they are looked for as well.
    let cleaned = broker.kill_everything();
    if !options.keep {
        folder.close().context("removing the temporary folder")?;
    }
    ended.and(cleaned)
}

/// The story.
async fn tell(show: &Show, broker: &mut Broker, engines: &Engines, place: &Path) -> Result<()> {
    let step = show.step("Start the broker");
    broker.wait_until_ready(&step).await?;
    step.done(format!("it listens on {}", broker.url));

    let step = show.step("Read its catalog");
    let platform = Platform::connect(broker).await?;
    step.done(&platform.offer);

    let version = engines.preferably(SOURCE_VERSION)?;
    let source = Uuid::new_v4();
    let step = show.step(format!("Provision a database of etcd {version}"));
    let parameters = json!({ "db_version": version });
    platform.provision(&source, &parameters, &step).await?;
    step.done(format!("service instance {source}"));

    let source_binding = Uuid::new_v4();
    let step = show.step("Bind it");
    let of_source = platform.bind(&source, &source_binding, &step).await?;
    step.done(format!("{of_source}"));

    let step = show.step("Run the etcdctl line that the binding brought");
    let home = place.join("source");
    let table = of_source.run_cli(&home, engines, &version).await?;
    let started = table.matches("started").count();
    ensure(started == MEMBERS, || {
        format!("etcdctl lists {started} started members:\n{table}")
    })?;
    step.done(format!("{started} members, all started"));

    let step = show.step("Write 1,000 keys as the binding's user");
    let content = Content::sample(1000);
    let database = Database::connect(&of_source).await?;
    database.write(&content, &step).await?;
    step.done(format!("{content}"));

    let step = show.step("Back up now");
    let api = Administration::of(&of_source);
    let backup_id = api.back_up(&step).await?;
    step.done(format!("backup {backup_id}"));

    let step = show.step("Find it in the list, then ask for it alone");
    let backup = api.backup(&backup_id).await?;
    step.done(format!("{} ({})", backup.name, backup.kind));

    let step = show.step("Download it, by its link alone");
    let archive = home.join(format!("{}.tar.gz", backup.name));
    let bytes = api.download(&backup, &archive, &step).await?;
    step.done(format!("{} KB", bytes / 1024));

    let step = show.step("Unpack it and let etcd's own tool check it");
    let unpacked = download::unpack(&archive, &home).await?;
    let checked = unpacked.check(engines, &version, content.len()).await?;
    step.done(checked);

    let step = show.step("Go on writing in the source, after the backup");
    database.write_after_the_backup().await?;
    step.done("one key changed, one deleted, one added");

    let step = show.step("Ask which versions a restore can reach");
    let reachable = api.versions().await?;
    let newer = engines::choose(&reachable, TARGET_VERSION).unwrap_or_else(|| version.clone());
    step.done(format!("{}; taking {newer}", reachable.join(", ")));

    let restored = Uuid::new_v4();
    let step = show.step(format!("Restore into a new database of etcd {newer}"));
    let parameters = json!({
        "source_service_instance_id": source,
        "backup_id": backup_id,
        "db_version": newer,
    });
    platform.provision(&restored, &parameters, &step).await?;
    step.done(format!("service instance {restored}"));

    let restored_binding = Uuid::new_v4();
    let step = show.step("Bind that one");
    let of_restored = platform.bind(&restored, &restored_binding, &step).await?;
    step.done(format!("{of_restored}"));

    let step = show.step("Compare every key and value");
    let restored_database = Database::connect(&of_restored).await?;
    let found = restored_database.read_all().await?;
    content.compare(&found)?;
    step.done(format!("{found}, all as they were backed up"));

    let step = show.step("Ask the servers for their versions");
    for (credentials, expected) in [(&of_source, &version), (&of_restored, &newer)] {
        let versions = Database::versions(credentials).await?;
        ensure(versions == vec![expected.clone(); MEMBERS], || {
            format!("the servers say {versions:?}, not {expected} three times")
        })?;
    }
    step.done(format!("the source {version}, the restored one {newer}"));

    let step = show.step("Log in at the restored one as the source's user");
    let foreign = of_restored.with_user_of(&of_source);
    let answer = Database::must_refuse(&foreign).await?;
    step.done(format!("refused: {answer}"));

    let step = show.step("Unbind both");
    platform.unbind(&source, &source_binding, &step).await?;
    platform.unbind(&restored, &restored_binding, &step).await?;
    step.done("the users and API tokens are revoked");

    let step = show.step("Try what was revoked");
    for credentials in [&of_source, &of_restored] {
        Database::must_refuse(credentials).await?;
        Administration::of(credentials).must_refuse().await?;
    }
    let answer = database.must_be_cut_off().await?;
    step.done(format!("no login, no API, no open connection ({answer})"));

    // What is looked for afterwards has to be there before, or else it is looked for wrongly.
    let traces = broker.traces([&of_source.api.deployment_id, &of_restored.api.deployment_id])?;
    ensure(traces.processes.len() == 2 * MEMBERS, || {
        format!("there should be {} processes: {traces}", 2 * MEMBERS)
    })?;
    ensure(traces.paths.len() > 2 && !traces.ports.is_empty(), || {
        format!("there should be folders, a backup and open ports: {traces}")
    })?;

    let step = show.step("Deprovision both");
    platform.deprovision(&source, &step).await?;
    platform.deprovision(&restored, &step).await?;
    step.done("410 Gone, as it should be");

    let step = show.step("Look for what they left on this machine");
    let left = broker.traces([&of_source.api.deployment_id, &of_restored.api.deployment_id])?;
    ensure(left.is_empty(), || format!("this was left: {left}"))?;
    step.done(format!("nothing; before, there were {traces}"));

    let step = show.step("Stop the broker");
    broker.stop().await?;
    step.done("it ended by itself");
    Ok(())
}

/// Waits for Ctrl-C or a polite request to end; returns its name.
async fn stop_signal() -> &'static str {
    let mut terminate = match signal(SignalKind::terminate()) {
        Ok(terminate) => terminate,
        Err(_) => return std::future::pending().await,
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => "Ctrl-C",
        _ = terminate.recv() => "a request to terminate",
    }
}
