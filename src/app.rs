//! The composition root: builds the parts from the configuration, starts server, runner and
//! scheduler, and stops them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
};

use actix_web::dev::ServerHandle;
use chrono::{DateTime, SubsecRound as _, Utc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    backup_store::{BackupStoreError, SharedBackupStore, folder::FolderStore},
    broker::{
        Accesses, Broker, BrokerError, CatalogRefusal, Doorkeeper, Downloads, LostPlans,
        keeps_all_plans,
    },
    census::ClusterCensus,
    config::{CatalogFile, Config, ConfigError, LocalCluster},
    engine::{SharedEngine, etcd},
    guard::Guard,
    http::{
        Api,
        gate::Room,
        origin::Rates,
        readiness::Readiness,
        server::{ServerError, server},
        tls::{ServerCertificate, TlsError},
    },
    logbook::Logbook,
    model::{
        catalog::{Catalog, CatalogError, CatalogErrors, CurrentCatalog},
        engine::Profile,
        limits::OPEN_FILES_ENOUGH,
        patience::Patience,
        renewal::CertificateLife,
        secret::Credentials,
        version::Version,
    },
    observer::EngineObserver,
    operation::{
        ClusterParts, Parts,
        fault::{Faults, NoFaults},
        runner::Runner,
    },
    provisioner::{
        ProvisionerError,
        local::{EngineBinaries, LocalProvisioner, not_always_free},
    },
    scheduler,
    seal::{KeyRing, SealError},
    store::{self, Conn, Store, StoreError},
    timekeeper::Timekeeper,
    volumes::Volumes,
    watchdog::Watchdog,
};

mod folders;
mod link;

pub use folders::FolderError;
pub use link::{LinkError, dashboard_link};

/// How [`StartError`] is told in one line, with all its causes.
pub use crate::model::failure::chain;

/// What [`dashboard_link`] asks for the time.
pub use crate::clock::Clock;

/// The engines that this broker has.
const ENGINES: [&str; 1] = [etcd::NAME];

/// Instances that a message names; of more it is said that there are more.
const NAMED_MAX: i64 = 10;

/// Why the broker does not start. Each is one line and names the setting behind it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The catalog is broken.
    #[error("COMPOSE_BROKER_CATALOG")]
    Catalog(#[from] CatalogErrors),
    /// The catalog lacks what instances use.
    #[error("COMPOSE_BROKER_CATALOG: {0}")]
    CatalogLost(LostPlans),
    /// Whether it lacks anything cannot be told.
    #[error("COMPOSE_BROKER_CATALOG")]
    CatalogCheck(#[source] BrokerError),
    /// The store does not open.
    #[error("COMPOSE_BROKER_DATABASE_URL")]
    Store(#[from] StoreError),
    /// The key ring is not the one that this store's secrets were sealed under.
    #[error("COMPOSE_BROKER_ENCRYPTION_KEYS: the key ring does not open what the store holds")]
    Keys(#[source] SealError),
    /// A cluster cannot be used.
    #[error(
        "cluster {cluster:?} (COMPOSE_BROKER_DATA_DIR, COMPOSE_BROKER_ENGINES_DIR, \
         COMPOSE_BROKER_CLUSTERS)"
    )]
    Cluster {
        /// The cluster's id.
        cluster: String,
        /// What is wrong with it.
        #[source]
        source: ProvisionerError,
    },
    /// No engine is installed.
    #[error(
        "COMPOSE_BROKER_ENGINES_DIR: {folder} holds no usable engine for cluster {cluster:?}; \
         scripts/engines.sh installs some"
    )]
    NoEngine {
        /// The cluster's id.
        cluster: String,
        /// Where its engines were looked for.
        folder: String,
    },
    /// An instance of ours would be taken for a cluster.
    #[error(
        "COMPOSE_BROKER_CLUSTERS: service_instance_id {0:?} is that of a service instance of this \
         broker, not of a cluster"
    )]
    ClusterIsInstance(String),
    /// Instances would be left alone.
    #[error(
        "COMPOSE_BROKER_CLUSTERS: instances live on clusters that are not listed (any more): \
         {0}; list them, with \"enabled\": false if they shall take nothing new"
    )]
    ClusterGone(String),
    /// A setting that shows to be wrong only when something is made.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The database is new, and other things are not.
    #[error(
        "COMPOSE_BROKER_DATABASE_URL: the database is a new one, but there are {0}. If it was lost, \
         put its copy back; to begin with an empty one beside them, start once with --accept \
         database"
    )]
    NewDatabase(String),
    /// The folder of what the broker keeps is not what it seems.
    #[error("COMPOSE_BROKER_DATA_DIR")]
    DataFolder(#[source] FolderError),
    /// The folder of backups is not what it seems.
    #[error("COMPOSE_BROKER_BACKUP_STORE")]
    BackupFolder(#[source] FolderError),
    /// The folder of a cluster is not what it seems.
    #[error("cluster {cluster:?} (COMPOSE_BROKER_DATA_DIR, COMPOSE_BROKER_CLUSTERS)")]
    ClusterFolder {
        /// The cluster's id.
        cluster: String,
        /// What is wrong with the folder.
        #[source]
        source: FolderError,
    },
    /// The folder of backups cannot be used.
    #[error("COMPOSE_BROKER_BACKUP_STORE")]
    BackupStore(#[from] BackupStoreError),
    /// The listener's certificate cannot be used.
    #[error("COMPOSE_BROKER_TLS_CERTIFICATE, COMPOSE_BROKER_TLS_KEY")]
    Tls(#[from] TlsError),
    /// The address is taken, or not ours.
    #[error("COMPOSE_BROKER_LISTEN: cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// What a broker gets from outside of its configuration.
pub struct Surroundings {
    /// The time of day.
    pub clock: Clock,
    /// Deliberate faults.
    pub faults: Arc<dyn Faults>,
    /// How long what fails in passing is tried again.
    pub patience: Patience,
    /// How long certificates of deployments live.
    pub certificate_life: CertificateLife,
    /// Whether what is due is asked for: scheduled backups, ends of bindings, room in full
    /// databases, members that lost their data or hang. Tests that let days pass or databases fill
    /// for other reasons go without.
    pub scheduled: bool,
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

impl Default for Surroundings {
    fn default() -> Self {
        Self {
            clock: Clock::system(),
            faults: Arc::new(NoFaults),
            patience: Patience::default(),
            certificate_life: CertificateLife::default(),
            scheduled: true,
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
    server: ServerHandle,
    serving: JoinHandle<io::Result<()>>,
    running: JoinHandle<()>,
    scheduling: JoinHandle<()>,
    guarding: JoinHandle<()>,
    watching: JoinHandle<()>,
    timekeeping: JoinHandle<()>,
    measuring: JoinHandle<()>,
    stop: CancellationToken,
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
        let mut opened = Opened::default();
        let url = Some(config.database_url.expose());
        for local in folders::beyond_doubt(&config.clusters, url).await {
            opened.open(local).await;
        }
        let engines: BTreeMap<String, SharedEngine> = [Arc::new(etcd::Etcd) as SharedEngine]
            .map(|e| (e.name().to_owned(), e))
            .into();
        let names: Vec<&str> = engines.keys().map(String::as_str).collect();
        let catalog = parse_catalog(&config.catalog, surroundings.clock.now())?;
        let first_plan = catalog.first_plan();
        let listen = |source| StartError::Listen {
            address: config.listen,
            source,
        };
        let listener = TcpListener::bind(config.listen).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let public_url = public_url(&config, address);
        let certificate = config
            .tls
            .clone()
            .map(ServerCertificate::load)
            .transpose()?;
        folders::check_before_store(&config)?;
        let store = Arc::new(Store::open(config.database_url.expose())?);
        let checked = folders::check(&store, &config, surroundings.clock.now()).await?;
        check_keys(&store, &config.keys).await?;
        let time = Arc::new(Timekeeper::start(&store, surroundings.clock.clone()).await?);
        renew_seals(&store, &config.keys).await?;
        check_clusters(&store, &config.clusters).await?;
        let catalog = Arc::new(CurrentCatalog::new(check_plans(&store, catalog).await?));
        config.keep()?;
        let backups = FolderStore::open(config.backup_folder.clone())?;
        let backups: SharedBackupStore = Arc::new(backups.marked(checked.mark(&store).await?));
        for local in &config.clusters {
            opened.open(local).await;
        }
        let clusters = opened.all()?;
        let versions: BTreeMap<String, BTreeMap<String, Vec<_>>> = clusters
            .iter()
            .map(|(id, cluster)| {
                let of =
                    |engine: &&str| ((*engine).to_owned(), cluster.provisioner.versions(engine));
                (id.clone(), names.iter().map(of).collect())
            })
            .collect();
        for LocalCluster {
            cluster,
            engines_dir,
            ..
        } in &config.clusters
        {
            let engines = versions.get(&cluster.id);
            if engines.is_none_or(|engines| engines.values().all(Vec::is_empty)) {
                return Err(StartError::NoEngine {
                    cluster: cluster.id.clone(),
                    folder: engines_dir.display().to_string(),
                });
            }
        }
        warn_of_missing(&catalog.get(), &versions);
        let profiles: BTreeMap<String, _> = engines
            .iter()
            .map(|(name, engine)| (name.clone(), engine.profile()))
            .collect();
        tell_of_faults(&profiles, &versions);
        let volumes = Arc::new(Volumes::of(store.clone(), folders::places(&config)));
        let rules: Vec<_> = config.clusters.iter().map(|c| c.cluster.clone()).collect();
        volumes.begin(&rules).await;
        let keys = config.keys.clone();
        let runtime = tokio::runtime::Handle::current();
        let provisioners: BTreeMap<String, _> = clusters
            .iter()
            .map(|(id, parts)| (id.clone(), parts.provisioner.clone()))
            .collect();
        let census = ClusterCensus::new(provisioners.clone());
        let [observer, guards, watchdogs] = [(); 3].map(|()| {
            EngineObserver::new(
                store.clone(),
                keys.clone(),
                engines.clone(),
                provisioners.clone(),
                surroundings.clock.clone(),
                runtime.clone(),
            )
        });
        let logbook = Logbook::new(provisioners.clone(), engines.clone());
        let mut credentials = vec![Credentials {
            username: config.username,
            password: config.password,
        }];
        credentials.extend(config.more_credentials);
        let doorkeeper = Doorkeeper::new(&keys, &credentials, config.failed_sign_ins);
        let broker = Arc::new(Broker {
            store: store.clone(),
            catalog: catalog.clone(),
            keys: keys.clone(),
            clock: surroundings.clock.clone(),
            time: time.clone(),
            backups: backups.clone(),
            clusters: rules,
            versions,
            profiles,
            units_per_tenant: config.tenant_units,
            restore_scope: config.restore_scope,
            tenant_keys: config.tenant_keys,
            deleted_poll: config.deleted_poll,
            deployment_names: config.deployment_names.clone(),
            public_url: public_url.clone(),
            audit_days: config.audit_days,
            certificate_life: surroundings.certificate_life,
            on_demand_pause: config.on_demand_pause,
            accesses: Accesses::default(),
            doorkeeper,
            downloads: Downloads::on(runtime),
            volumes: volumes.clone(),
            observer: Box::new(observer),
            census: Box::new(census),
            logs: Box::new(logbook),
        });
        let guard = Guard::new(
            broker.clone(),
            Box::new(guards),
            engines.clone(),
            provisioners.clone(),
        );
        let watchdog = Watchdog::new(
            broker.clone(),
            Box::new(watchdogs),
            engines.clone(),
            provisioners,
        );
        let parts = Arc::new(Parts {
            store,
            engines,
            clusters,
            tenant_operations: config.tenant_operations,
            backups,
            keys,
            catalog,
            clock: surroundings.clock,
            time: time.clone(),
            backup_grace: chrono::TimeDelta::hours(config.backup_grace_hours.into()),
            certificate_life: surroundings.certificate_life,
            public_url: public_url.clone(),
        });
        let api = Api {
            broker: broker.clone(),
            credentials,
            proxies: config.trusted_proxies,
            readiness: Readiness::default(),
            rates: Rates::new(config.requests_per_second),
        };
        let room = Room::within(open_files());
        let server =
            server(listener, api, certificate.as_ref(), room).map_err(|error| match error {
                ServerError::Listen(source) => listen(source),
                ServerError::Tls(error) => error.into(),
            })?;
        let served = broker.clone();
        let stop = CancellationToken::new();
        let [scheduling, guarding, watching] = if surroundings.scheduled {
            [
                tokio::spawn(scheduler::run(broker, stop.clone())),
                tokio::spawn(guard.run(stop.clone())),
                tokio::spawn(watchdog.run(stop.clone())),
            ]
        } else {
            [(); 3].map(|()| tokio::spawn(stop.clone().cancelled_owned()))
        };
        let timekeeping = tokio::spawn(time.run(stop.clone()));
        let measuring = tokio::spawn(volumes.run(stop.clone()));
        let runner = Runner::new(parts, surroundings.faults, surroundings.patience);
        Ok(Self {
            address,
            public_url,
            first_plan,
            server: server.handle(),
            serving: tokio::spawn(server),
            running: tokio::spawn(runner.run(stop.clone())),
            scheduling,
            guarding,
            watching,
            timekeeping,
            measuring,
            stop,
            certificate,
            broker: served,
            catalog_path: config.catalog.path,
        })
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
        let catalog = parse_catalog(&file, self.broker.clock.now())?;
        self.broker.replace_catalog(catalog).await?;
        warn_of_missing(&self.broker.catalog.get(), &self.broker.versions);
        Ok(())
    }

    /// Waits until server, runner or scheduler ends by itself, which only happens when something is
    /// badly wrong: then nothing may be promised any more.
    pub async fn failed(&mut self) -> io::Error {
        tokio::select! {
            served = &mut self.serving => match served {
                Ok(Err(error)) => error,
                _ => io::Error::other("the server ended"),
            },
            _ = &mut self.running => io::Error::other("the runner ended"),
            _ = &mut self.scheduling => io::Error::other("the scheduler ended"),
            _ = &mut self.guarding => io::Error::other("the guard ended"),
            _ = &mut self.watching => io::Error::other("the watchdog ended"),
            _ = &mut self.timekeeping => io::Error::other("the timekeeper ended"),
            _ = &mut self.measuring => io::Error::other("the look at the volumes ended"),
        }
    }

    /// Stops for good: the process ends then. The store stays open until it does: with its last
    /// connection SQLite would remove the log of the database, and with it the room that the next start
    /// needs where the disk is full.
    pub async fn end(self) {
        std::mem::forget(self.broker.clone());
        self.stop().await;
    }

    /// Stops: requests that run are answered, operations are left for the next start, members go
    /// on.
    pub async fn stop(self) {
        self.server.stop(true).await;
        self.stop.cancel();
        let tasks = [
            ("scheduler", self.scheduling),
            ("guard", self.guarding),
            ("watchdog", self.watching),
            ("timekeeper", self.timekeeping),
            ("look at the volumes", self.measuring),
            ("runner", self.running),
        ];
        for (what, task) in tasks {
            if let Err(error) = task.await {
                log::error!("the {what} ended badly: {error}");
            }
        }
        self.broker.note_all_counted().await;
    }
}

/// How many files this process may have open. Members have limits of their own.
fn open_files() -> u64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.unwrap_or(u64::MAX);
    if limit < OPEN_FILES_ENOUGH {
        log::warn!(
            "the system lets this process have {limit} files open: few connections are taken, and \
             work may have to wait; raise the hard limit (LimitNOFILE, ulimit -Hn)"
        );
    }
    limit
}

/// Why the catalog is not replaced.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    #[error("the file cannot be read")]
    File(#[from] io::Error),
    #[error(transparent)]
    Broken(#[from] CatalogErrors),
    #[error(transparent)]
    Refused(#[from] CatalogRefusal),
}

/// How many services and plans a catalog has, or everything that is wrong with it.
pub fn check_catalog(text: &str) -> Result<(usize, usize), Vec<CatalogError>> {
    match Catalog::parse(text, &ENGINES) {
        Ok(catalog) => Ok(catalog.counts()),
        Err(CatalogErrors(violations)) => Err(violations),
    }
}

fn parse_catalog(file: &CatalogFile, now: DateTime<Utc>) -> Result<Catalog, CatalogErrors> {
    let catalog = Catalog::parse(&file.text, &ENGINES)?;
    Ok(match file.modified {
        // HTTP knows whole seconds, and nothing was changed in the future.
        Some(modified) => catalog.modified_at(modified.min(now).trunc_subsecs(0)),
        None => catalog,
    })
}

/// Tells of versions that plans are to be upgraded to, and that no cluster has.
fn warn_of_missing(catalog: &Catalog, versions: &BTreeMap<String, BTreeMap<String, Vec<Version>>>) {
    for (engine, plan, version) in catalog.maintained() {
        let has_it = |of: &BTreeMap<String, Vec<_>>| of[engine].contains(&version);
        if !versions.values().any(has_it) {
            log::warn!(
                "the plan {plan} is to be upgraded to {engine} {version}, which is not installed"
            );
        }
    }
}

/// Tells of versions with known faults, once each.
fn tell_of_faults(
    profiles: &BTreeMap<String, &'static Profile>,
    versions: &BTreeMap<String, BTreeMap<String, Vec<Version>>>,
) {
    let mut found: BTreeSet<(&str, Version)> = BTreeSet::new();
    for (engine, versions) in versions.values().flatten() {
        found.extend(versions.iter().map(|version| (engine.as_str(), *version)));
    }
    for (engine, version) in found {
        let faults = profiles.get(engine).map(|of| of.known_faults(version));
        let ids: Vec<&str> = faults.iter().flatten().map(|fault| fault.id).collect();
        if !ids.is_empty() {
            log::warn!("{engine} {version} has known faults: {}", ids.join(", "));
        }
    }
}

/// Refuses a catalog under which an instance would have no plan.
async fn check_plans(store: &Arc<Store>, catalog: Catalog) -> Result<Catalog, StartError> {
    let checked = store.decide(move |conn| keeps_all_plans(conn, &catalog).map(|()| catalog));
    checked.await.map_err(|refusal| match refusal {
        CatalogRefusal::Lost(lost) => StartError::CatalogLost(lost),
        CatalogRefusal::Broker(BrokerError::Store(error) | BrokerError::StoreFull(error)) => {
            error.into()
        }
        CatalogRefusal::Broker(error) => StartError::CatalogCheck(error),
    })
}

/// Opens one secret, so that a wrong key ring stops the start and not the first user.
async fn check_keys(store: &Arc<Store>, keys: &KeyRing) -> Result<(), StartError> {
    if let Some((context, sealed)) = store.read(store::deployment::newest_sealed).await? {
        keys.open(&context, &sealed).map_err(StartError::Keys)?;
    }
    Ok(())
}

/// Seals anew, under the ring's first key, what an older one sealed: all of it or nothing. After
/// that the store needs no older key. It is left alone where others may write to it meanwhile.
async fn renew_seals(store: &Arc<Store>, keys: &Arc<KeyRing>) -> Result<(), StartError> {
    if !store.is_private() {
        return Ok(());
    }
    let keys = keys.clone();
    let renewed = store
        .decide(move |conn| renew_seals_in(conn, &keys))
        .await?;
    if renewed > 0 {
        log::info!(renewed; "secrets were sealed anew under the first key of the ring");
    }
    Ok(())
}

fn renew_seals_in(conn: &mut Conn<'_>, keys: &KeyRing) -> Result<usize, StartError> {
    let renewed = |context: &str, sealed: &str| {
        let renewed = keys.renewed(context, sealed);
        renewed.map_err(StartError::Keys)
    };
    let mut count = 0;
    for (deployment, sealed) in store::deployment::all_sealed(conn)? {
        if let Some(sealed) = renewed(&deployment.seal_context(), &sealed)? {
            store::deployment::set_sealed(conn, &deployment.id, &sealed)?;
            count += 1;
        }
    }
    for binding in store::binding::all_sealed(conn)? {
        let (instance, id) = (&binding.instance, &binding.id);
        if let Some(sealed) = renewed(&binding.secrets_context(), &binding.sealed_secrets)? {
            store::binding::set_secrets(conn, instance, id, &sealed)?;
            count += 1;
        }
        let Some(credentials) = &binding.sealed_credentials else {
            continue;
        };
        if let Some(sealed) = renewed(&binding.credentials_context(), credentials)? {
            store::binding::set_credentials(conn, instance, id, &sealed)?;
            count += 1;
        }
    }
    Ok(count)
}

fn public_url(config: &Config, address: SocketAddr) -> String {
    let scheme = if config.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let url = config.public_url.clone();
    url.unwrap_or_else(|| format!("{scheme}://{address}"))
}

/// Holds the clusters against the store: every instance has one to live on, and none is one.
async fn check_clusters(store: &Arc<Store>, clusters: &[LocalCluster]) -> Result<(), StartError> {
    let clusters = clusters.iter().map(|local| &local.cluster);
    for id in clusters
        .clone()
        .filter_map(|c| c.service_instance_id.clone())
    {
        let found = store.read(move |conn| store::instance::find(conn, &id));
        if let Some(instance) = found.await? {
            return Err(StartError::ClusterIsInstance(instance.id.to_string()));
        }
    }
    let ids: Vec<String> = clusters.map(|cluster| cluster.id.clone()).collect();
    let limit = NAMED_MAX + 1;
    let homeless = store
        .read(move |conn| store::deployment::on_other_clusters(conn, &ids, limit))
        .await?;
    let mut named: Vec<String> = homeless
        .iter()
        .take(usize::try_from(NAMED_MAX).unwrap_or_default())
        .map(|(instance, cluster)| format!("{:?} on {cluster:?}", instance.as_str()))
        .collect();
    if named.is_empty() {
        return Ok(());
    }
    if homeless.len() > named.len() {
        named.push("and more".to_owned());
    }
    Err(StartError::ClusterGone(named.join(", ")))
}

/// Starts the members that should run, where the broker itself cannot be started for its settings:
/// nobody looks after them until one is. What is wrong with a cluster, the next start tells.
pub async fn start_members(clusters: &[LocalCluster]) {
    let mut opened = Opened::default();
    for local in folders::beyond_doubt(clusters, None).await {
        opened.open(local).await;
    }
}

async fn open_cluster(local: &LocalCluster) -> Result<Arc<LocalProvisioner>, StartError> {
    if let Some(ports) = not_always_free(local.ports) {
        log::warn!(cluster = local.cluster.id.as_str();
            "members get ports of {}, and this machine opens connections of its own from {ports}: a \
             member's port may be taken by one when it starts. Give the cluster a range outside of \
             net.ipv4.ip_local_port_range", local.ports);
    }
    let opened = LocalProvisioner::open(
        local.folder.clone(),
        local.engines_dir.clone(),
        &[EngineBinaries {
            engine: "etcd",
            probe: "etcd",
            probe_args: &["--version"],
            parse_version: etcd::parse_version_output,
            required: |version| etcd::binaries(*version),
            offered: |version| etcd::PROFILE.offers(*version),
        }],
        local.ports,
    );
    opened.await.map_err(|source| StartError::Cluster {
        cluster: local.cluster.id.clone(),
        source,
    })
}

/// Clusters that were opened, so that their members run.
#[derive(Default)]
struct Opened {
    clusters: BTreeMap<String, ClusterParts>,
    /// Why some were not, by the id of the cluster.
    failures: BTreeMap<String, StartError>,
}

impl Opened {
    /// Opens a cluster once. Where it fails, the members of the others are started all the same.
    async fn open(&mut self, local: &LocalCluster) {
        let id = &local.cluster.id;
        if self.clusters.contains_key(id) || self.failures.contains_key(id) {
            return;
        }
        let provisioner = match open_cluster(local).await {
            Ok(provisioner) => provisioner,
            Err(error) => {
                self.failures.insert(id.clone(), error);
                return;
            }
        };
        let limit = local.cluster.operations_at_once.map(usize::try_from);
        let parts = ClusterParts {
            provisioner,
            operations_at_once: limit.and_then(Result::ok),
        };
        self.clusters.insert(id.clone(), parts);
    }

    /// All of them; fails when one could not be opened.
    fn all(self) -> Result<BTreeMap<String, ClusterParts>, StartError> {
        match self.failures.into_values().next() {
            None => Ok(self.clusters),
            Some(error) => Err(error),
        }
    }
}
