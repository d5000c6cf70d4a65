//! The whole story of a database of `compose-broker`, told by its clients.
//!
//! Starts a broker of its own and does what a user with a terminal and an application do with it:
//! make an etcd, get a key to it, fill it, take a backup, download and check that, let a hundred
//! days pass with a scheduled backup each, restore the first backup into a new instance of a newer
//! version, compare every key, and take all of it down again. Everything goes through the public
//! interfaces, so this is also a tutorial of them:
//!
//! - [`story`]: what happens, in order: begin to read there;
//! - [`client`]: the commands that a user types, who has no platform;
//! - [`administration`]: the Compose API (2016-07), for what has no command;
//! - [`calendar`]: days that pass, and what is left of their backups;
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
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::ExitCode,
};

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

mod administration;
mod broker;
mod calendar;
mod client;
mod database;
mod download;
mod engines;
mod error;
mod machine;
mod show;
mod story;

use broker::Broker;
use engines::Engines;
use error::{Context, Result};
use show::{Show, complain, line};
use story::Story;

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
            line(format_args!("\nAll is well, after {}.", show.elapsed()));
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(format_args!(
                "\nThe demo FAILED after {}: {error}",
                show.elapsed()
            ));
            ExitCode::FAILURE
        }
    }
}

/// Makes a place for the story, tells it there, and cleans the place up however it ended.
async fn run(options: &Options, show: &Show) -> Result<()> {
    let engines = Engines::find()?;
    let folder = tempfile::Builder::new()
        .prefix("compose-broker-demo-")
        .permissions(fs::Permissions::from_mode(0o700))
        .disable_cleanup(options.keep)
        .tempdir()
        .context("making a temporary folder")?;
    // Processes are looked for by this path later, so it has to be the real one.
    let place = fs::canonicalize(&folder).context("finding the temporary folder")?;
    if options.keep {
        line(format_args!(
            "The files of this run stay in {}\n",
            place.display()
        ));
    }

    let mut broker = Broker::spawn(&options.broker, &place)?;
    let story = Story {
        show,
        engines: &engines,
        place: &place,
    };
    let ended = tokio::select! {
        ended = story.tell(&mut broker) => ended,
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
