//! The composition root: builds the parts from the configuration, starts server, runner and
//! scheduler, and stops them.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use actix_web::dev::{Server, ServerHandle};
use futures::future::join_all;
use tokio::{
    sync::mpsc,
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use self::{
    assembly::Assembly,
    checks::{Kept, parse_catalog},
    clusters::{
        Backends, Opened, log_known_faults, log_withheld, warn_of_missing, warn_of_unused_names,
    },
    error::ReloadError,
    listen::Listener,
    service::Heart,
    tasks::Tasks,
};
use crate::{
    alerting,
    broker::Broker,
    config::{CatalogFile, Config},
    engine::{self, SharedEngine},
    http::{readiness::Readiness, tls::ServerCertificate},
    metrics::Metrics,
    model::{
        capacity::Footprint,
        limits::{ALERT_SETTLES_AFTER, DRAIN_TIMEOUT, HANG_AFTER, register::REGISTER_LOOK},
        patience::Patience,
        renewal::CertificateLife,
    },
    operation::{
        fault::{Faults, NoFaults},
        runner::Runner,
    },
    scheduler,
    volumes::Volumes,
};

mod assembly;
mod checks;
mod clusters;
mod error;
mod folders;
mod listen;
mod mirroring;
mod registers;
mod resealing;
mod seals;
mod service;
mod start_log;
mod takeover;
mod tasks;

pub use checks::{
    check_catalog, copy_backups, copy_store, migrate, pending_migrations, verify_backups,
};
pub use clusters::start_members;
pub use error::{FolderError, StartError};

/// How [`StartError`] is told in one line, with all its causes.
pub use crate::model::failure::chain;

/// How long a process that ends waits for its threads.
pub use crate::model::limits::THREADS_END_WAIT;

/// What a look at backups without a broker finds.
pub use crate::backups::{Looked, Verdict};

/// What the client asks for the time.
pub use crate::clock::Clock;

/// Instances that a message names; of more it is said that there are more.
const NAMED_MAX: i64 = 10;

/// What a broker gets from outside of its configuration.
pub struct Surroundings {
    /// The time of day.
    pub clock: Clock,
    /// Deliberate faults.
    pub faults: Arc<dyn Faults>,
    /// How long what fails in passing is tried again.
    pub patience: Patience,
    /// How long a member may give no sign of life while others do.
    pub hang_after: Duration,
    /// How long certificates of deployments live.
    pub certificate_life: CertificateLife,
    /// Changes of alerts that have been so for so long are told to the operator's webhook.
    pub alerts_settle_after: Duration,
    /// Time between two looks for registers of backups that are to be written.
    pub registers_every: Duration,
    /// Whether what is due is asked for: scheduled backups, ends of bindings, room in full
    /// databases, members that lost their data or hang. Tests that let days pass or databases fill
    /// for other reasons go without.
    pub scheduled: bool,
    /// The kinds of databases that there are.
    pub engines: Vec<SharedEngine>,
}

impl Surroundings {
    /// Those that a configuration asks for.
    pub fn of(config: &Config) -> Self {
        let moved = config.clock_offset_file.clone().inspect(|file| {
            log::warn!(file:% = file.display(); "the clock is moved: this is for demonstrations only");
        });
        Self {
            clock: moved.map_or_else(Clock::system, Clock::moved_by),
            ..Self::default()
        }
    }
}

impl Surroundings {
    fn engine_names(&self) -> Vec<&'static str> {
        self.engines.iter().map(|engine| engine.name()).collect()
    }
}

impl Default for Surroundings {
    fn default() -> Self {
        Self {
            clock: Clock::system(),
            faults: Arc::new(NoFaults),
            patience: Patience::default(),
            hang_after: HANG_AFTER,
            alerts_settle_after: ALERT_SETTLES_AFTER,
            registers_every: REGISTER_LOOK,
            certificate_life: CertificateLife::default(),
            scheduled: true,
            engines: engine::all(),
        }
    }
}

/// A broker that runs.
pub struct App {
    /// Where it listens.
    pub address: SocketAddr,
    /// Where clients reach it.
    pub public_url: String,
    /// Names of an offering and a plan to begin with.
    pub first_plan: (String, String),
    /// Where it serves metrics alone, if anywhere.
    pub metrics_address: Option<SocketAddr>,
    servers: Vec<ServerHandle>,
    serving: JoinSet<io::Result<()>>,
    tasks: Tasks,
    /// What says to the service manager that the broker is well.
    heart: Option<JoinHandle<()>>,
    readiness: Arc<Readiness>,
    /// For how long it says that it is about to end, before it takes no connections any more.
    drain: Duration,
    certificate: Option<Arc<ServerCertificate>>,
    broker: Arc<Broker>,
    catalog_path: PathBuf,
}

impl App {
    /// Builds and starts a broker. When this returns, requests are served.
    ///
    /// Members come first: whatever else stops the start, databases that should run do, unless it is
    /// in doubt whose they are. What is wrong with a cluster is told in its turn.
    pub async fn start(config: Config, surroundings: Surroundings) -> Result<Self, StartError> {
        let url = Some(config.places.database());
        let clusters = &config.places.clusters;
        let mut opened = Opened::beyond_doubt(clusters, url, &surroundings.engines).await;
        let engines = surroundings.engine_names();
        let catalog = parse_catalog(&config.catalog, &engines, surroundings.clock.now())?;
        let first_plan = catalog.first_plan();
        let listener = Listener::bind(&config)?;
        let kept = Kept::open(&config, &surroundings.clock, catalog).await?;
        opened.open_all(clusters).await;
        opened.hear(&kept.store).await?;
        let backends = Backends::new(opened, &surroundings.engines, clusters)?;
        start_log::log_start(&config, &kept.store, &backends).await;
        warn_of_missing(&kept.catalog.get(), &backends.versions);
        log_known_faults(&backends.profiles(), &backends.versions);
        warn_of_unused_names(clusters, &backends.versions);
        let assembly = Assembly {
            config: &config,
            surroundings: &surroundings,
            public_url: &listener.public_url.clone(),
            volumes: &volumes(&config, &kept, backends.footprint()).await,
            kept: &kept,
            backends: &backends,
            metrics: &Arc::new(Metrics::new(config.monitoring.instances)),
            readiness: Arc::default(),
            seen: Arc::default(),
        };
        let broker = assembly.broker();
        log_withheld(&broker).await;
        let (address, public_url) = (listener.address, listener.public_url.clone());
        let (certificate, metrics_address) =
            (listener.certificate.clone(), listener.metrics_address());
        let servers = listener.servers(assembly.api(&broker))?;
        Ok(Self {
            address,
            public_url,
            first_plan,
            metrics_address,
            servers: servers.iter().map(Server::handle).collect(),
            tasks: tasks(&assembly, &broker),
            serving: servers.into_iter().collect(),
            heart: None,
            readiness: assembly.readiness.clone(),
            drain: config.listening.drain,
            certificate,
            broker,
            catalog_path: config.catalog.path,
        })
    }

    /// Tells the service manager, where there is one, that the broker serves, and from now on that it is
    /// well.
    pub async fn announce(&mut self) {
        let heart = Heart {
            listener: self.address,
            broker: self.broker.clone(),
            tasks: self.tasks.pulses(),
        };
        heart.say_ready(&self.public_url).await;
        self.heart = Some(tokio::spawn(heart.beat()));
    }

    /// Reads anew what may change while the broker runs. What cannot be used is told, and the old
    /// stays in use.
    pub async fn reload(&self) {
        match self.reload_catalog().await {
            Ok(()) => log::info!("the catalog was read anew"),
            Err(error) => log::error!("the catalog stays what it was: {}", chain(&error)),
        }
        if let Some(certificate) = &self.certificate {
            match certificate.reload() {
                Ok(()) => log::info!("the listener's certificate was read anew"),
                Err(error) => log::error!(
                    "the listener's certificate stays what it was: {}",
                    chain(&error)
                ),
            }
        }
    }

    async fn reload_catalog(&self) -> Result<(), ReloadError> {
        let file = CatalogFile::read(&self.catalog_path)?;
        let engines: Vec<&str> = self.broker.inventory.profiles.engines().collect();
        let catalog = parse_catalog(&file, &engines, self.broker.clock.now())?;
        self.broker.catalogs.replace_catalog(catalog).await?;
        let installed = self.broker.inventory.installed.all();
        warn_of_missing(&self.broker.inventory.catalog.get(), &installed);
        Ok(())
    }

    /// Waits until server, runner or scheduler ends by itself, which only happens when something is
    /// badly wrong: then nothing may be promised any more.
    pub async fn failed(&mut self) -> io::Error {
        tokio::select! {
            served = self.serving.join_next() => match served {
                Some(Ok(Err(error))) => error,
                _ => io::Error::other("the server ended"),
            },
            what = self.tasks.ended() => io::Error::other(format!("the {what} ended")),
        }
    }

    /// Stops for good: the process ends then. A proxy that asks meanwhile whether the broker is ready hears that it
    /// is not, and it serves on for a while, so that a proxy has turned to another one before the listener is
    /// closed.
    ///
    /// The store stays open until the process ends: with its last
    /// connection SQLite would remove the log of the database, and with it the room that the next start
    /// needs where the disk is full.
    pub async fn end(self) {
        service::say_stopping();
        self.readiness.drain();
        tokio::time::sleep(self.drain).await;
        std::mem::forget(self.broker.clone());
        self.stop().await;
    }

    /// Stops: requests that run are answered, operations are left for the next start, members go
    /// on.
    pub async fn stop(self) {
        if let Some(heart) = self.heart {
            heart.abort();
        }
        join_all(self.servers.iter().map(|server| server.stop(true))).await;
        self.tasks.stop().await;
        let noted = timeout(DRAIN_TIMEOUT, self.broker.audit.note_all_counted());
        if noted.await.is_err() {
            log::error!(
                "the audit does not say how often the last things were done: the store does not answer"
            );
        }
    }
}

/// The volumes, looked at once.
async fn volumes(config: &Config, kept: &Kept, each: Footprint) -> Arc<Volumes> {
    let places = folders::places(config);
    let volumes = Arc::new(Volumes::of(kept.store.clone(), places, each));
    let clusters: Vec<_> = config
        .places
        .clusters
        .iter()
        .map(|c| c.cluster.clone())
        .collect();
    volumes.begin(&clusters).await;
    volumes
}

/// Begins what works beside the server.
fn tasks(of: &Assembly<'_>, broker: &Arc<Broker>) -> Tasks {
    let mut tasks = Tasks::new();
    let (seen_serving, serving) = mpsc::unbounded_channel();
    if of.surroundings.scheduled {
        tasks.begin("scheduler", |stop| scheduler::run(broker.clone(), stop));
        tasks.begin("guard", |stop| of.guard(broker).run(stop));
        tasks.begin("watchdog", |stop| of.watchdog(broker).run(stop));
        tasks.begin("round over all instances", |stop| {
            let (metrics, notifier) = (of.metrics.clone(), of.notifier());
            alerting::run(broker.clone(), metrics, notifier, seen_serving, stop)
        });
        if let Some(courier) = of.courier(broker) {
            tasks.begin("courier to the webhook", |stop| courier.run(stop));
        }
    }
    tasks.begin("mover of members", |stop| {
        scheduler::move_members(broker.clone(), stop)
    });
    tasks.begin("prover of backups", |stop| {
        scheduler::prove_backups(broker.clone(), stop)
    });
    tasks.begin("end of deleted instances", |stop| {
        scheduler::end_deleted(broker.clone(), stop)
    });
    tasks.begin("timekeeper", |stop| of.kept.time.clone().run(stop));
    tasks.begin("look at the volumes", |stop| of.volumes.clone().run(stop));
    tasks.begin("sealer of backups", |stop| of.resealing().run(stop));
    tasks.begin("keeper of registers", |stop| of.calling().run(stop));
    if let Some(mirroring) = of.mirroring() {
        tasks.begin("copier of backups", |stop| mirroring.run(stop));
    }
    if let Some(takeover) = of.takeover(broker) {
        tasks.begin("look at others' clusters", |stop| takeover.run(stop));
    }
    let (faults, patience) = (of.surroundings.faults.clone(), of.surroundings.patience);
    let runner = Runner::new(of.parts(), faults, patience);
    tasks.begin("runner", |stop| runner.run(serving, stop));
    tasks
}
