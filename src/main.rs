//! The command line.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use compose_broker::{
    app::{App, Surroundings},
    config::{Config, Settings},
    logging::{self, chain},
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
enum Command {
    /// Serve the OSB and Compose APIs and run the work behind them
    Serve(Box<Settings>),
}

fn main() -> ExitCode {
    let Command::Serve(settings) = CommandLine::parse().command;
    logging::start(&settings.log, settings.log_format);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return failure(&error),
    };
    match runtime.block_on(serve(&settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure(error.as_ref()),
    }
}

fn failure(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    eprintln!("compose-broker: {}", chain(error));
    ExitCode::FAILURE
}

async fn serve(settings: &Settings) -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::load(settings)?;
    let hint = config.credentials_hint();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut app = App::start(config, Surroundings::default()).await?;
    println!("{}", welcome(&app.public_url, &hint));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        error = app.failed() => return Err(error.into()),
    }
    log::info!("stopping; the databases go on");
    app.stop().await;
    Ok(())
}

fn welcome(url: &str, hint: &str) -> String {
    format!(
        "compose-broker serves {url}
  {hint}

Register it:
  cf create-service-broker compose-broker \"$(cat data/username)\" \"$(cat data/password)\" {url}

Or try it with curl:
  auth=\"$(cat data/username):$(cat data/password)\"; v='X-Broker-API-Version: 2.17'
  curl -su \"$auth\" -H \"$v\" {url}/v2/catalog
  curl -su \"$auth\" -H \"$v\" -X PUT '{url}/v2/service_instances/my-etcd?accepts_incomplete=true' -d '{{
    \"service_id\": \"6f1c9f0e-52a4-4a39-8e0b-3c1f5b7a9d10\", \"plan_id\": \"b8a0d3f4-7c1e-4b5f-9a52-1de2c4f60a11\",
    \"organization_guid\": \"my-org\", \"space_guid\": \"my-space\"}}'
  curl -su \"$auth\" -H \"$v\" {url}/v2/service_instances/my-etcd/last_operation
  curl -su \"$auth\" -H \"$v\" -X PUT {url}/v2/service_instances/my-etcd/service_bindings/my-key -d '{{
    \"service_id\": \"6f1c9f0e-52a4-4a39-8e0b-3c1f5b7a9d10\", \"plan_id\": \"b8a0d3f4-7c1e-4b5f-9a52-1de2c4f60a11\"}}'"
    )
}
