//! The settings: read once at start, by nobody else, and checked before anything is begun.
//!
//! Each setting is a flag and an environment variable `COMPOSE_BROKER_<NAME>`; the flag wins. What
//! Cloud Foundry gives an application (`PORT`, `VCAP_APPLICATION`, `VCAP_SERVICES`) fills in for
//! settings that are absent.

use std::{
    fs, io,
    net::SocketAddr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use clap::Args;

use crate::{
    logging::{self, LogFormat},
    model::{
        bom::without_bom,
        certificate::CertificateFiles,
        limits::{
            AUDIT_DAYS_MAX, BACKUP_GRACE_HOURS_MAX, FAILED_SIGN_INS_MAX,
            ON_DEMAND_PAUSE_SECONDS_MAX, REQUESTS_PER_SECOND_MAX,
        },
        name::DeploymentNames,
        operation::DeletedPoll,
        placement::PortRange,
        proxy::TrustedProxies,
        secret::{Credentials, Secret},
        tenant::{RestoreScope, TenantKeys},
    },
    seal::{KeyRing, random_secret},
};

mod client;
mod cloud_foundry;
mod clusters;
mod credentials;
mod kept;
mod paths;

pub use crate::model::marker::Accepted;
pub use client::{CLIENT_SECRETS_HELP, ClientConfig, ClientSettings};
use cloud_foundry::CloudFoundry;
pub use clusters::LocalCluster;
use credentials::more_credentials;
use kept::{KEY_RING, Kept, Made, PASSWORD, USERNAME, full_path};
use paths::path;

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {reason}")]
pub struct ConfigError {
    /// The environment variable's name.
    pub setting: &'static str,
    /// What is wrong with its value.
    pub reason: String,
}

fn wrong(setting: &'static str, reason: impl ToString) -> ConfigError {
    ConfigError {
        setting,
        reason: reason.to_string(),
    }
}

/// The settings as they are written.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// Address and port to serve HTTP on [default: 127.0.0.1:8080, or all addresses and $PORT]
    #[arg(long, env = "COMPOSE_BROKER_LISTEN")]
    pub listen: Option<String>,

    /// Where clients reach the broker; goes into links and credentials [default: http://LISTEN]
    #[arg(long, env = "COMPOSE_BROKER_PUBLIC_URL")]
    pub public_url: Option<String>,

    /// Certificate to serve HTTPS with, and those between it and its authority (PEM file); read
    /// anew on SIGHUP [default: plain HTTP]
    #[arg(long, env = "COMPOSE_BROKER_TLS_CERTIFICATE", value_parser = path())]
    pub tls_certificate: Option<PathBuf>,

    /// The certificate's private key (PEM file) [default: none]
    #[arg(long, env = "COMPOSE_BROKER_TLS_KEY", value_parser = path())]
    pub tls_key: Option<PathBuf>,

    /// Folder for everything that the broker keeps
    #[arg(long, env = "COMPOSE_BROKER_DATA_DIR", default_value = "./data")]
    #[arg(value_parser = path())]
    pub data_dir: PathBuf,

    /// Where backups lie, file:// and an absolute path [default: backups in DATA_DIR]
    #[arg(long, env = "COMPOSE_BROKER_BACKUP_STORE")]
    pub backup_store: Option<String>,

    /// The catalog file (JSON)
    #[arg(long, env = "COMPOSE_BROKER_CATALOG", default_value = "catalog.json")]
    #[arg(value_parser = path())]
    pub catalog: PathBuf,

    /// Folder of the engines' binaries: `<engine>/<any name>/<binary>`
    #[arg(long, env = "COMPOSE_BROKER_ENGINES_DIR", default_value = "engines")]
    #[arg(value_parser = path())]
    pub engines_dir: PathBuf,

    /// File that lists the placement targets (JSON) [default: one local cluster, "local"]
    #[arg(long, env = "COMPOSE_BROKER_CLUSTERS", value_parser = path())]
    pub clusters: Option<PathBuf>,

    /// User name of the platform [default: made at the first start, in DATA_DIR/username]
    #[arg(long, env = "COMPOSE_BROKER_USERNAME")]
    pub username: Option<String>,

    /// TCP ports for members on this machine, 6 for each instance
    #[arg(long, env = "COMPOSE_BROKER_PORT_RANGE", default_value = "20000-29999")]
    pub port_range: String,

    /// Proxies whose X-Forwarded-For counts: addresses and networks, separated by commas
    /// [default: none]
    #[arg(long, env = "COMPOSE_BROKER_TRUSTED_PROXIES")]
    pub trusted_proxies: Option<String>,

    /// Requests that are taken of each client and second, ten times as many at once; 0: any number
    #[arg(
        long,
        env = "COMPOSE_BROKER_REQUESTS_PER_SECOND",
        default_value = "100"
    )]
    pub requests_per_second: String,

    /// The most units of all instances of one space (or namespace) together; 0: any number
    #[arg(long, env = "COMPOSE_BROKER_TENANT_UNITS", default_value = "0")]
    pub tenant_units: String,

    /// Operations that start databases or move their bytes, and that run at once for one space (or
    /// namespace)
    #[arg(long, env = "COMPOSE_BROKER_TENANT_OPERATIONS", default_value = "4")]
    pub tenant_operations: String,

    /// Seconds between on-demand backups of an instance, after five in a row; 0: none
    #[arg(long, env = "COMPOSE_BROKER_BACKUP_PAUSE", default_value = "30")]
    pub backup_pause: String,

    /// Wrong credentials that an address may show in a row before it has to wait; 0: any number
    #[arg(long, env = "COMPOSE_BROKER_FAILED_SIGN_INS", default_value = "10")]
    pub failed_sign_ins: String,

    /// How many days the audit is kept; 0: for ever
    #[arg(long, env = "COMPOSE_BROKER_AUDIT_DAYS", default_value = "0")]
    pub audit_days: String,

    /// How many hours a backup that is old enough to go is kept on, marked; 0: it goes at once
    #[arg(long, env = "COMPOSE_BROKER_BACKUP_GRACE_HOURS", default_value = "24")]
    pub backup_grace_hours: String,

    /// How far a restore may reach for its source: space or organization
    #[arg(long, env = "COMPOSE_BROKER_RESTORE_SCOPE", default_value = "space")]
    pub restore_scope: String,

    /// The ids of contexts by which platforms tell tenants apart: platform:key+key, separated by
    /// commas [default: those of the platforms that are known]
    #[arg(long, env = "COMPOSE_BROKER_TENANT_KEYS")]
    pub tenant_keys: Option<String>,

    /// What a poll with the token of a deletion that is done is told: succeeded (200) or gone (410)
    #[arg(long, env = "COMPOSE_BROKER_DELETED_POLL", default_value = "succeeded")]
    pub deleted_poll: String,

    /// How deployments are called in the Compose API and in credentials, with {instance}, {engine} and
    /// {cluster} filled in; a deployment keeps the name that it was made with
    #[arg(
        long,
        env = "COMPOSE_BROKER_DEPLOYMENT_NAMES",
        default_value = "compose-broker-{engine}-{instance}"
    )]
    pub deployment_names: String,

    /// What is logged, in env_logger's language
    #[arg(long, env = "COMPOSE_BROKER_LOG", default_value = "info")]
    pub log: String,

    /// How records are written: text or json
    #[arg(long, env = "COMPOSE_BROKER_LOG_FORMAT", default_value = "text")]
    pub log_format: String,

    /// For demonstrations and tests: file that says by how many seconds the broker's clock is ahead
    /// [default: none, the clock is the machine's]
    #[arg(long, env = "COMPOSE_BROKER_CLOCK_OFFSET_FILE", value_parser = path())]
    pub clock_offset_file: Option<PathBuf>,
}

/// What `--help` says of the settings that hold secrets. They are no flags: everybody on the
/// machine can read the flags of a process.
pub const SECRETS_HELP: &str = "\
Settings that hold secrets are taken from the environment only:
  COMPOSE_BROKER_DATABASE_URL     The broker's own store, sqlite:// and a path or postgres://
                                  [default: broker.db in DATA_DIR]
  COMPOSE_BROKER_PASSWORD         Password of the platform
                                  [default: made at the first start, in DATA_DIR/password]
  COMPOSE_BROKER_MORE_CREDENTIALS Further credentials that are let in, to change them without a
                                  gap: user:password, separated by commas
                                  [default: none]
  COMPOSE_BROKER_ENCRYPTION_KEYS  Key ring for secrets at rest: name:base64 of 32 bytes, newest
                                  first, separated by commas
                                  [default: made at the first start, in DATA_DIR/encryption_keys]

On Cloud Foundry, PORT, VCAP_APPLICATION and VCAP_SERVICES fill in for LISTEN, PUBLIC_URL and
DATABASE_URL.";

/// The settings that hold secrets, as they are written.
#[derive(Debug, Default)]
struct SecretSettings {
    database_url: Option<Secret>,
    password: Option<Secret>,
    more_credentials: Option<Secret>,
    encryption_keys: Option<Secret>,
}

impl SecretSettings {
    fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        let secret = |name| variable(name).map(Secret::new);
        Self {
            database_url: secret("COMPOSE_BROKER_DATABASE_URL"),
            password: secret("COMPOSE_BROKER_PASSWORD"),
            more_credentials: secret("COMPOSE_BROKER_MORE_CREDENTIALS"),
            encryption_keys: secret("COMPOSE_BROKER_ENCRYPTION_KEYS"),
        }
    }
}

/// The catalog file as it was found.
#[derive(Debug, Clone)]
pub struct CatalogFile {
    /// Where it is.
    pub path: PathBuf,
    /// What is in it.
    pub text: String,
    /// When it was changed, if the file system tells.
    pub modified: Option<DateTime<Utc>>,
}

impl CatalogFile {
    /// Reads the file.
    pub fn read(path: &Path) -> io::Result<Self> {
        let modified = fs::metadata(path)?.modified();
        Ok(Self {
            path: path.to_owned(),
            text: without_bom(&fs::read_to_string(path)?).to_owned(),
            modified: modified.ok().map(DateTime::from),
        })
    }
}

/// The settings, checked. Nothing is made or written before [`Config::keep`] is called.
#[derive(Debug)]
pub struct Config {
    /// Address and port to serve HTTP on.
    pub listen: SocketAddr,
    /// Where clients reach the broker, without a slash at the end; absent: where it listens.
    pub public_url: Option<String>,
    /// The listener's certificate; absent: plain HTTP.
    pub tls: Option<CertificateFiles>,
    /// The broker's own store.
    pub database_url: Secret,
    /// Folder for everything that the broker keeps.
    pub data_dir: PathBuf,
    /// Folder of backups.
    pub backup_folder: PathBuf,
    /// The catalog.
    pub catalog: CatalogFile,
    /// The placement targets; the first enabled one is the default.
    pub clusters: Vec<LocalCluster>,
    /// The platform's user name.
    pub username: String,
    /// The platform's password.
    pub password: Secret,
    /// Further credentials that are let in.
    pub more_credentials: Vec<Credentials>,
    /// What seals secrets.
    pub keys: Arc<KeyRing>,
    /// Whose word counts about where a request comes from.
    pub trusted_proxies: TrustedProxies,
    /// Requests that are taken of each client and second; 0: any number.
    pub requests_per_second: u32,
    /// The most units of all instances of one tenant together; absent: no limit.
    pub tenant_units: Option<u32>,
    /// Heavy operations that one tenant may have running at once.
    pub tenant_operations: usize,
    /// Time between on-demand backups of an instance, after some in a row.
    pub on_demand_pause: Duration,
    /// Wrong credentials that an address may show in a row before it has to wait; 0: any number.
    pub failed_sign_ins: u32,
    /// How many days the audit is kept; absent: for ever.
    pub audit_days: Option<u32>,
    /// How many hours lie between the mark of a backup that is old enough to go and its end.
    pub backup_grace_hours: u32,
    /// How far a restore may reach for its source.
    pub restore_scope: RestoreScope,
    /// The ids of contexts that tell tenants apart, where the operator names them.
    pub tenant_keys: TenantKeys,
    /// What a poll with the token of a deletion that is done is told.
    pub deleted_poll: DeletedPoll,
    /// How deployments are called.
    pub deployment_names: DeploymentNames,
    /// What is logged.
    pub log: String,
    /// How records are written.
    pub log_format: LogFormat,
    /// What moves the broker's clock; absent: nothing does, and it is the machine's.
    pub clock_offset_file: Option<PathBuf>,
    /// What an operator accepts for this start.
    pub accepted: Vec<Accepted>,
    /// Secrets that were made because there were none.
    made: Vec<Made>,
}

impl Settings {
    fn check_paths(&self) -> Result<(), ConfigError> {
        paths::check(&[
            (
                "COMPOSE_BROKER_TLS_CERTIFICATE",
                self.tls_certificate.as_deref(),
            ),
            ("COMPOSE_BROKER_TLS_KEY", self.tls_key.as_deref()),
            ("COMPOSE_BROKER_DATA_DIR", Some(&self.data_dir)),
            ("COMPOSE_BROKER_CATALOG", Some(&self.catalog)),
            ("COMPOSE_BROKER_ENGINES_DIR", Some(&self.engines_dir)),
            ("COMPOSE_BROKER_CLUSTERS", self.clusters.as_deref()),
            (
                "COMPOSE_BROKER_CLOCK_OFFSET_FILE",
                self.clock_offset_file.as_deref(),
            ),
        ])
    }
}

impl Config {
    /// Checks the settings. Secrets that are not set and not there are made, and not yet kept.
    pub fn load(settings: &Settings) -> Result<Self, ConfigError> {
        let variable = |name: &str| std::env::var(name).ok();
        Self::check(
            settings,
            SecretSettings::read(variable),
            CloudFoundry::read(variable)?,
        )
    }

    /// The placement targets alone, whatever is wrong with other settings: their members are started
    /// also where the broker itself cannot be. Empty where not even these can be told, and where no
    /// broker has kept anything yet.
    pub fn clusters_alone(settings: &Settings) -> Vec<LocalCluster> {
        let Ok(data_dir) = settings.data_dir.canonicalize() else {
            return Vec::new();
        };
        // Members that are there have their ports already, and their backups lie elsewhere.
        let ports = settings.port_range.parse().unwrap_or(PortRange {
            first: 1,
            last: u16::MAX,
        });
        let backups =
            backup_folder(settings, &data_dir).unwrap_or_else(|_| data_dir.join("backups"));
        clusters(settings, &data_dir, &backups, ports).unwrap_or_default()
    }

    fn check(
        settings: &Settings,
        secrets: SecretSettings,
        cloud: CloudFoundry,
    ) -> Result<Self, ConfigError> {
        settings.check_paths()?;
        let listen = match (&settings.listen, cloud.port) {
            (Some(text), _) => text.parse().map_err(|_| {
                wrong(
                    "COMPOSE_BROKER_LISTEN",
                    format!("{text:?} is not of the form 127.0.0.1:8080"),
                )
            })?,
            (None, Some(port)) => SocketAddr::from(([0, 0, 0, 0], port)),
            (None, None) => SocketAddr::from(([127, 0, 0, 1], 8080)),
        };
        let public_url = settings.public_url.clone().or(cloud.url);
        let public_url = public_url.map(|text| check_url(&text)).transpose()?;
        if listen.ip().is_unspecified() && public_url.is_none() {
            let reason = "is needed when the broker listens on all addresses";
            return Err(wrong("COMPOSE_BROKER_PUBLIC_URL", reason));
        }
        let tls = match (&settings.tls_certificate, &settings.tls_key) {
            (Some(certificate), Some(key)) => Some(CertificateFiles {
                certificate: certificate.clone(),
                key: key.clone(),
            }),
            (None, None) => None,
            (Some(_), None) => {
                return Err(wrong(
                    "COMPOSE_BROKER_TLS_KEY",
                    "is needed beside the certificate",
                ));
            }
            (None, Some(_)) => {
                let reason = "is needed beside the key";
                return Err(wrong("COMPOSE_BROKER_TLS_CERTIFICATE", reason));
            }
        };
        let trusted_proxies = settings.trusted_proxies.as_deref().unwrap_or_default();
        let trusted_proxies = trusted_proxies
            .parse()
            .map_err(|e| wrong("COMPOSE_BROKER_TRUSTED_PROXIES", e))?;
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
        let restore_scope = one_of(
            "COMPOSE_BROKER_RESTORE_SCOPE",
            &settings.restore_scope,
            &[
                ("space", RestoreScope::Space),
                ("organization", RestoreScope::Organization),
            ],
        )?;
        let tenant_keys = settings.tenant_keys.as_deref().unwrap_or_default();
        let tenant_keys = tenant_keys
            .parse()
            .map_err(|e| wrong("COMPOSE_BROKER_TENANT_KEYS", e))?;
        let deleted_poll = one_of(
            "COMPOSE_BROKER_DELETED_POLL",
            &settings.deleted_poll,
            &[
                ("gone", DeletedPoll::Gone),
                ("succeeded", DeletedPoll::Succeeded),
            ],
        )?;
        let deployment_names = settings
            .deployment_names
            .parse()
            .map_err(|e| wrong("COMPOSE_BROKER_DEPLOYMENT_NAMES", e))?;
        logging::check_filter(&settings.log).map_err(|e| wrong("COMPOSE_BROKER_LOG", e))?;
        let log_format = one_of(
            "COMPOSE_BROKER_LOG_FORMAT",
            &settings.log_format,
            &[("text", LogFormat::Text), ("json", LogFormat::Json)],
        )?;
        if let Some(file) = &settings.clock_offset_file {
            let said = fs::read_to_string(file).map_err(|e| e.to_string());
            said.and_then(|text| {
                without_bom(&text)
                    .trim()
                    .parse::<i64>()
                    .map_err(|e| e.to_string())
            })
            .map_err(|e| {
                let reason = format!("{} has no number of seconds: {e}", file.display());
                wrong("COMPOSE_BROKER_CLOCK_OFFSET_FILE", reason)
            })?;
        }
        let port_range = settings
            .port_range
            .parse()
            .map_err(|e| wrong("COMPOSE_BROKER_PORT_RANGE", e))?;
        let catalog = CatalogFile::read(&settings.catalog).map_err(|e| {
            wrong(
                "COMPOSE_BROKER_CATALOG",
                format!("{}: {e}", settings.catalog.display()),
            )
        })?;
        let data_dir = full_path(&settings.data_dir).map_err(|e| {
            let reason = format!("{}: {e}", settings.data_dir.display());
            wrong("COMPOSE_BROKER_DATA_DIR", reason)
        })?;
        let database_url = secrets
            .database_url
            .or(cloud.database_url)
            .unwrap_or_else(|| {
                Secret::new(format!("sqlite://{}", data_dir.join("broker.db").display()))
            });
        let backup_folder = backup_folder(settings, &data_dir)?;
        let clusters = clusters(settings, &data_dir, &backup_folder, port_range)?;
        let mut kept = Kept {
            folder: &data_dir,
            made: Vec::new(),
        };
        let username = match &settings.username {
            Some(name) => name.clone(),
            None => kept
                .find_or_make("COMPOSE_BROKER_USERNAME", USERNAME, || {
                    Ok::<_, io::Error>(Secret::new("broker"))
                })?
                .expose()
                .to_owned(),
        };
        let password = match secrets.password {
            Some(password) => password,
            None => kept.find_or_make("COMPOSE_BROKER_PASSWORD", PASSWORD, random_secret)?,
        };
        if username.is_empty() || username.contains(':') {
            return Err(wrong("COMPOSE_BROKER_USERNAME", "is empty or has a colon"));
        }
        if password.expose().is_empty() {
            return Err(wrong("COMPOSE_BROKER_PASSWORD", "is empty"));
        }
        let more_credentials = more_credentials(secrets.more_credentials.as_ref())?;
        let ring = match secrets.encryption_keys {
            Some(ring) => ring,
            None => kept.find_or_make(
                "COMPOSE_BROKER_ENCRYPTION_KEYS",
                KEY_RING,
                KeyRing::generate,
            )?,
        };
        let made = kept.made;
        let keys = KeyRing::parse(ring.expose())
            .map(Arc::new)
            .map_err(|e| wrong("COMPOSE_BROKER_ENCRYPTION_KEYS", e))?;
        Ok(Self {
            listen,
            public_url,
            tls,
            database_url,
            backup_folder,
            catalog,
            clusters,
            username,
            password,
            more_credentials,
            keys,
            trusted_proxies,
            requests_per_second,
            tenant_units: Some(tenant_units).filter(|units| *units > 0),
            tenant_operations: usize::try_from(tenant_operations).unwrap_or(usize::MAX),
            on_demand_pause: Duration::from_secs(backup_pause.into()),
            failed_sign_ins,
            audit_days: Some(audit_days).filter(|days| *days > 0),
            backup_grace_hours,
            restore_scope,
            tenant_keys,
            deleted_poll,
            deployment_names,
            log: settings.log.clone(),
            log_format,
            clock_offset_file: settings.clock_offset_file.clone(),
            data_dir,
            accepted: Vec::new(),
            made,
        })
    }
}

fn backup_folder(settings: &Settings, data_dir: &Path) -> Result<PathBuf, ConfigError> {
    match &settings.backup_store {
        None => Ok(data_dir.join("backups")),
        Some(text) => match text.strip_prefix("file://").map(Path::new) {
            Some(path) if path.is_absolute() => Ok(path.to_owned()),
            _ => {
                let reason = format!("{text:?} is not file:// and an absolute path");
                Err(wrong("COMPOSE_BROKER_BACKUP_STORE", reason))
            }
        },
    }
}

fn clusters(
    settings: &Settings,
    data_dir: &Path,
    backup_folder: &Path,
    ports: PortRange,
) -> Result<Vec<LocalCluster>, ConfigError> {
    let defaults = clusters::Defaults {
        data_dir,
        backup_folder,
        engines_dir: &settings.engines_dir,
        ports,
    };
    clusters::read(settings.clusters.as_deref(), &defaults)
        .map_err(|reason| wrong("COMPOSE_BROKER_CLUSTERS", reason))
}

fn one_of<T: Copy>(
    setting: &'static str,
    text: &str,
    values: &[(&str, T)],
) -> Result<T, ConfigError> {
    let found = values.iter().find(|(name, _)| *name == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = values.iter().map(|(name, _)| *name).collect();
        wrong(
            setting,
            format!("{text:?} is not one of: {}", names.join(", ")),
        )
    })
}

fn number(
    setting: &'static str,
    text: &str,
    range: RangeInclusive<u32>,
) -> Result<u32, ConfigError> {
    let number = text.trim().parse().ok().filter(|n| range.contains(n));
    number.ok_or_else(|| {
        let (first, last) = (range.start(), range.end());
        wrong(
            setting,
            format!("{text:?} is not a whole number from {first} to {last}"),
        )
    })
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

#[cfg(test)]
mod tests;
