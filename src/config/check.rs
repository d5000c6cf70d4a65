//! The settings group by group: what is read of each, and what is wrong with it. A group's type is what the
//! rest of the broker gets of it.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    CatalogFile, ConfigError,
    cloud_foundry::CloudFoundry,
    clusters::{self, ClusterSettings},
    number, one_of,
    settings::Settings,
    stores::StoreAddresses,
    wrong,
};
use crate::{
    backups::{self, SharedPlace},
    disk,
    logging::{self, LogFormat},
    model::{
        bom::without_bom,
        certificate::CertificateFiles,
        database_url::DatabaseUrl,
        exposure::Exposure,
        limits::{
            AUDIT_DAYS_MAX, BACKUP_GRACE_HOURS_MAX, DRAIN_SECONDS_MAX, FAILED_SIGN_INS_MAX,
            ON_DEMAND_PAUSE_SECONDS_MAX, REQUESTS_PER_SECOND_MAX,
        },
        name::DeploymentNames,
        operation::DeletedPoll,
        placement::PortRange,
        postgres::{DatabaseAddress, PostgresUse},
        proxy::TrustedProxies,
        secret::Secret,
        tenant::{RestoreScope, TenantKeys},
    },
    provisioner::Defaults,
};

/// Where the broker is reached.
#[derive(Debug)]
pub struct Listening {
    /// Address and port to serve HTTP on.
    pub address: SocketAddr,
    /// Where clients reach the broker, without a slash at the end; absent: where it listens.
    pub public_url: Option<String>,
    /// The listener's certificate; absent: plain HTTP.
    pub tls: Option<CertificateFiles>,
    /// Whose word counts about where a request comes from.
    pub trusted_proxies: TrustedProxies,
    /// For how long the broker serves on when it is told to end, and says that it is not ready.
    pub drain: Duration,
}

impl Listening {
    pub(super) fn check(settings: &Settings, cloud: &CloudFoundry) -> Result<Self, ConfigError> {
        let address = match (&settings.listen, cloud.port) {
            (Some(text), _) => text.parse().map_err(|_| {
                wrong(
                    "COMPOSE_BROKER_LISTEN",
                    format!("{text:?} is not of the form 127.0.0.1:8080"),
                )
            })?,
            (None, Some(port)) => SocketAddr::from(([0, 0, 0, 0], port)),
            (None, None) => SocketAddr::from(([127, 0, 0, 1], 8080)),
        };
        let public_url = settings.public_url.as_ref().or(cloud.url.as_ref());
        let public_url = public_url.map(|text| check_url(text)).transpose()?;
        if address.ip().is_unspecified() && public_url.is_none() {
            let reason = "is needed when the broker listens on all addresses";
            return Err(wrong("COMPOSE_BROKER_PUBLIC_URL", reason));
        }
        let drain = number(
            "COMPOSE_BROKER_DRAIN_SECONDS",
            &settings.drain_seconds,
            0..=DRAIN_SECONDS_MAX,
        )?;
        Ok(Self {
            address,
            public_url,
            drain: Duration::from_secs(drain.into()),
            tls: certificate_files(settings)?,
            trusted_proxies: parsed(
                "COMPOSE_BROKER_TRUSTED_PROXIES",
                settings.trusted_proxies.as_deref().unwrap_or_default(),
            )?,
        })
    }
}

/// What one client or tenant may have.
#[derive(Debug)]
pub struct Limits {
    /// Requests that are taken of each client and second; 0: any number.
    pub requests_per_second: u32,
    /// Wrong credentials that an address may show in a row before it has to wait; 0: any number.
    pub failed_sign_ins: u32,
    /// The most units of all instances of one tenant together; absent: no limit.
    pub tenant_units: Option<u32>,
    /// Heavy operations that one tenant may have running at once.
    pub tenant_operations: usize,
    /// Time between on-demand backups of an instance, after some in a row.
    pub on_demand_pause: Duration,
}

impl Limits {
    pub(super) fn check(settings: &Settings) -> Result<Self, ConfigError> {
        let requests_per_second = number(
            "COMPOSE_BROKER_REQUESTS_PER_SECOND",
            &settings.requests_per_second,
            0..=REQUESTS_PER_SECOND_MAX,
        )?;
        let tenant_units = number(
            "COMPOSE_BROKER_TENANT_UNITS",
            &settings.tenant_units,
            0..=u32::MAX,
        )?;
        let tenant_operations = number(
            "COMPOSE_BROKER_TENANT_OPERATIONS",
            &settings.tenant_operations,
            1..=u32::MAX,
        )?;
        let backup_pause = number(
            "COMPOSE_BROKER_BACKUP_PAUSE",
            &settings.backup_pause,
            0..=ON_DEMAND_PAUSE_SECONDS_MAX,
        )?;
        let failed_sign_ins = number(
            "COMPOSE_BROKER_FAILED_SIGN_INS",
            &settings.failed_sign_ins,
            0..=FAILED_SIGN_INS_MAX,
        )?;
        Ok(Self {
            requests_per_second,
            failed_sign_ins,
            tenant_units: Some(tenant_units).filter(|units| *units > 0),
            tenant_operations: usize::try_from(tenant_operations).unwrap_or(usize::MAX),
            on_demand_pause: Duration::from_secs(backup_pause.into()),
        })
    }
}

/// How long things are kept, and whether what is kept is proved.
#[derive(Debug)]
pub struct Retention {
    /// How many days the audit is kept; absent: for ever.
    pub audit_days: Option<u32>,
    /// How many hours lie between the mark of a backup that is old enough to go and its end.
    pub backup_grace_hours: u32,
    /// Whether each backup is restored aside, to see that it can be.
    pub proves_backups: bool,
}

impl Retention {
    pub(super) fn check(settings: &Settings) -> Result<Self, ConfigError> {
        let audit_days = number(
            "COMPOSE_BROKER_AUDIT_DAYS",
            &settings.audit_days,
            0..=AUDIT_DAYS_MAX,
        )?;
        let backup_grace_hours = number(
            "COMPOSE_BROKER_BACKUP_GRACE_HOURS",
            &settings.backup_grace_hours,
            0..=BACKUP_GRACE_HOURS_MAX,
        )?;
        Ok(Self {
            audit_days: Some(audit_days).filter(|days| *days > 0),
            backup_grace_hours,
            proves_backups: one_of(
                "COMPOSE_BROKER_BACKUP_PROOFS",
                &settings.backup_proofs,
                &[("on", true), ("off", false)],
            )?,
        })
    }
}

/// How the broker answers platforms, where they differ.
#[derive(Debug)]
pub struct Conventions {
    /// How far a restore may reach for its source.
    pub restore_scope: RestoreScope,
    /// The ids of contexts that tell tenants apart, where the operator names them.
    pub tenant_keys: TenantKeys,
    /// What a poll with the token of a deletion that is done is told.
    pub deleted_poll: DeletedPoll,
    /// How deployments are called.
    pub deployment_names: DeploymentNames,
}

impl Conventions {
    pub(super) fn check(settings: &Settings) -> Result<Self, ConfigError> {
        Ok(Self {
            restore_scope: one_of(
                "COMPOSE_BROKER_RESTORE_SCOPE",
                &settings.restore_scope,
                &[
                    ("space", RestoreScope::Space),
                    ("organization", RestoreScope::Organization),
                ],
            )?,
            tenant_keys: parsed(
                "COMPOSE_BROKER_TENANT_KEYS",
                settings.tenant_keys.as_deref().unwrap_or_default(),
            )?,
            deleted_poll: one_of(
                "COMPOSE_BROKER_DELETED_POLL",
                &settings.deleted_poll,
                &[
                    ("gone", DeletedPoll::Gone),
                    ("succeeded", DeletedPoll::Succeeded),
                ],
            )?,
            deployment_names: parsed(
                "COMPOSE_BROKER_DEPLOYMENT_NAMES",
                &settings.deployment_names,
            )?,
        })
    }
}

/// What is logged, and how.
#[derive(Debug)]
pub struct Logging {
    /// What is logged, in env_logger's language.
    pub filter: String,
    /// How records are written.
    pub format: LogFormat,
}

impl Logging {
    pub(super) fn check(settings: &Settings) -> Result<Self, ConfigError> {
        logging::check_filter(&settings.log).map_err(|e| wrong("COMPOSE_BROKER_LOG", e))?;
        let format = one_of(
            "COMPOSE_BROKER_LOG_FORMAT",
            &settings.log_format,
            &[("text", LogFormat::Text), ("json", LogFormat::Json)],
        )?;
        Ok(Self {
            filter: settings.log.clone(),
            format,
        })
    }
}

/// Where the broker's things lie, and its members run.
#[derive(Debug)]
pub struct Places {
    /// Folder for everything that the broker keeps.
    pub data_dir: PathBuf,
    /// The broker's own store.
    pub database_url: Secret,
    /// Where backups are kept.
    pub backups: SharedPlace,
    /// Where a copy of each of them goes.
    pub mirror: Option<SharedPlace>,
    /// How that store is used, where it is in PostgreSQL.
    pub postgres: PostgresUse,
    /// The placement targets; the first enabled one is the default.
    pub clusters: Vec<ClusterSettings>,
    /// The name of the machine that the broker is on.
    pub machine: String,
}

impl Places {
    /// The broker's own store.
    pub fn database(&self) -> DatabaseAddress<'_> {
        DatabaseAddress {
            url: self.database_url.expose(),
            postgres: self.postgres,
        }
    }

    /// Whether other brokers may use the same store.
    pub(super) fn is_store_shared(&self) -> bool {
        DatabaseUrl::parse(self.database_url.expose()) == Some(DatabaseUrl::Postgres)
    }

    pub(super) fn check(
        settings: &Settings,
        database_url: Option<Secret>,
        stores: &StoreAddresses<'_>,
    ) -> Result<Self, ConfigError> {
        let ports = parsed("COMPOSE_BROKER_PORT_RANGE", &settings.port_range)?;
        let data_dir = disk::full_path(&settings.data_dir).map_err(|e| {
            let reason = format!("{}: {e}", settings.data_dir.display());
            wrong("COMPOSE_BROKER_DATA_DIR", reason)
        })?;
        let database_url = database_url.unwrap_or_else(|| {
            Secret::new(format!("sqlite://{}", data_dir.join("broker.db").display()))
        });
        let backups = backups_of(settings, &data_dir, stores)?;
        let mirror = mirror_of(settings, &backups, stores)?;
        let exposure = settings.members.exposure()?;
        let clusters = clusters(settings, &data_dir, &backups, ports, &exposure)?;
        Ok(Self {
            data_dir,
            database_url,
            postgres: settings.postgres.check()?,
            backups,
            mirror,
            clusters,
            machine: settings.members.machine(),
        })
    }
}

/// See [`super::Config::clusters_alone`].
pub(super) fn clusters_alone(settings: &Settings) -> Vec<ClusterSettings> {
    let Ok(data_dir) = settings.data_dir.canonicalize() else {
        return Vec::new();
    };
    // Members that are there have their ports already, and their backups lie elsewhere.
    let ports = settings.port_range.parse().unwrap_or(PortRange {
        first: 1,
        last: u16::MAX,
    });
    let stores = StoreAddresses::unchecked(&settings.s3);
    let backups =
        backups_of(settings, &data_dir, &stores).unwrap_or_else(|_| own_backups(&data_dir));
    // They go on as they were started, whatever is wrong with who reaches them.
    let exposure = settings.members.exposure().unwrap_or_default();
    clusters(settings, &data_dir, &backups, ports, &exposure).unwrap_or_default()
}

fn backups_of(
    settings: &Settings,
    data_dir: &Path,
    stores: &StoreAddresses<'_>,
) -> Result<SharedPlace, ConfigError> {
    let front = match &settings.backup_store {
        None => own_backups(data_dir),
        Some(address) => stores
            .place(address)
            .map_err(|reason| wrong("COMPOSE_BROKER_BACKUP_STORE", reason))?,
    };
    const OLDER: &str = "COMPOSE_BROKER_OLDER_BACKUP_STORES";
    let older = settings.older_backup_stores.as_deref().unwrap_or_default();
    let older = older.split(',').map(str::trim).filter(|t| !t.is_empty());
    let mut behind = Vec::new();
    for address in older {
        let place = stores
            .place(address)
            .map_err(|reason| wrong(OLDER, reason))?;
        if place.address() == front.address() {
            let reason =
                format!("{address:?} is where new backups go (COMPOSE_BROKER_BACKUP_STORE)");
            return Err(wrong(OLDER, reason));
        }
        behind.push(place);
    }
    Ok(backups::place_before(front, behind))
}

/// The mirror, which is none of the places of backups, nor in one of them or around it: what the one has would be
/// foreign to the other.
fn mirror_of(
    settings: &Settings,
    backups: &SharedPlace,
    stores: &StoreAddresses<'_>,
) -> Result<Option<SharedPlace>, ConfigError> {
    const MIRROR: &str = "COMPOSE_BROKER_BACKUP_MIRROR";
    let given = settings.backup_mirror.as_deref().map(str::trim);
    let Some(address) = given.filter(|address| !address.is_empty()) else {
        return Ok(None);
    };
    let mirror = stores
        .place(address)
        .map_err(|reason| wrong(MIRROR, reason))?;
    let place = |of: &SharedPlace| format!("{}/", of.address().trim_end_matches('/'));
    let own = place(&mirror);
    for other in backups.behind().iter().chain([backups]) {
        let other = place(other);
        if own.starts_with(&other) || other.starts_with(&own) {
            let reason = format!(
                "{address:?} is where backups are kept already, or in there: a copy has to lie apart from what it \
                 is a copy of"
            );
            return Err(wrong(MIRROR, reason));
        }
    }
    Ok(Some(mirror))
}

/// Where backups are kept that the settings say nothing of.
fn own_backups(data_dir: &Path) -> SharedPlace {
    backups::place_in(data_dir.join("backups"))
}

fn clusters(
    settings: &Settings,
    data_dir: &Path,
    backups: &SharedPlace,
    ports: PortRange,
    exposure: &Exposure,
) -> Result<Vec<ClusterSettings>, ConfigError> {
    let of_all = clusters::OfAll {
        defaults: Defaults {
            data_dir,
            engines_dir: &settings.engines_dir,
            ports,
        },
        backup_folder: backups.folder(),
        exposure,
        machine: &settings.members.machine(),
    };
    clusters::read(settings.clusters.as_deref(), &of_all)
        .map_err(|reason| wrong("COMPOSE_BROKER_CLUSTERS", reason))
}

/// The catalog, which is read and not yet understood.
pub(super) fn catalog(settings: &Settings) -> Result<CatalogFile, ConfigError> {
    CatalogFile::read(&settings.catalog).map_err(|e| {
        let reason = format!("{}: {e}", settings.catalog.display());
        wrong("COMPOSE_BROKER_CATALOG", reason)
    })
}

/// The file that moves the broker's clock; it has a number of seconds already.
pub(super) fn clock_offset_file(settings: &Settings) -> Result<Option<PathBuf>, ConfigError> {
    let Some(file) = &settings.clock_offset_file else {
        return Ok(None);
    };
    let refused = |error: &dyn std::fmt::Display| {
        let reason = format!("{} has no number of seconds: {error}", file.display());
        wrong("COMPOSE_BROKER_CLOCK_OFFSET_FILE", reason)
    };
    let text = fs::read_to_string(file).map_err(|e| refused(&e))?;
    let seconds = without_bom(&text).trim().parse::<i64>();
    seconds.map_err(|e| refused(&e))?;
    Ok(Some(file.clone()))
}

fn certificate_files(settings: &Settings) -> Result<Option<CertificateFiles>, ConfigError> {
    match (&settings.tls_certificate, &settings.tls_key) {
        (Some(certificate), Some(key)) => Ok(Some(CertificateFiles {
            certificate: certificate.clone(),
            key: key.clone(),
        })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(wrong(
            "COMPOSE_BROKER_TLS_KEY",
            "is needed beside the certificate",
        )),
        (None, Some(_)) => Err(wrong(
            "COMPOSE_BROKER_TLS_CERTIFICATE",
            "is needed beside the key",
        )),
    }
}

fn parsed<T>(setting: &'static str, text: &str) -> Result<T, ConfigError>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    text.parse().map_err(|e| wrong(setting, e))
}

fn check_url(text: &str) -> Result<String, ConfigError> {
    let reason = || {
        // What is no URL may hold a password all the same.
        let shown = if text.contains('@') { "it" } else { text };
        wrong(
            "COMPOSE_BROKER_PUBLIC_URL",
            format!("{shown:?} is not an http(s) URL"),
        )
    };
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        let reason = "has blanks or control characters";
        return Err(wrong("COMPOSE_BROKER_PUBLIC_URL", reason));
    }
    let url = url::Url::parse(text).map_err(|_| reason())?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong(
            "COMPOSE_BROKER_PUBLIC_URL",
            "holds a user name or a password; it goes into links that everybody sees",
        ));
    }
    let plain = url.query().is_none() && url.fragment().is_none() && url.has_host();
    if matches!(url.scheme(), "http" | "https") && plain {
        // As it was understood, so that nothing in it needs an escape elsewhere.
        Ok(url.as_str().trim_end_matches('/').to_owned())
    } else {
        Err(reason())
    }
}
