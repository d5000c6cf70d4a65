//! The settings as they are written: flags, environment variables, and what `--help` says of them.

use std::path::PathBuf;

use clap::Args;

use super::{
    ConfigError,
    clusters::MemberSettings,
    paths::{self, path},
    postgres::PostgresFlags,
    s3::S3Flags,
};
use crate::{backups, model::secret::Secret};

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

    /// Where backups lie
    #[arg(long, env = "COMPOSE_BROKER_BACKUP_STORE")]
    #[arg(help = format!("Where backups lie, {} [default: backups in DATA_DIR]", backups::forms()))]
    pub backup_store: Option<String>,

    /// Where older backups may lie too, in the same words, separated by commas: they are read and deleted there
    /// [default: nowhere]
    #[arg(long, env = "COMPOSE_BROKER_OLDER_BACKUP_STORES")]
    pub older_backup_stores: Option<String>,

    /// Where a copy of each backup goes as soon as it is complete, as BACKUP_STORE is written [default: nowhere]
    #[arg(long, env = "COMPOSE_BROKER_BACKUP_MIRROR")]
    pub backup_mirror: Option<String>,

    #[command(flatten)]
    pub s3: S3Flags,

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

    /// TCP ports for members on this machine
    #[arg(long, env = "COMPOSE_BROKER_PORT_RANGE", default_value = "20000-29999")]
    pub port_range: String,

    #[command(flatten)]
    pub members: MemberSettings,

    #[command(flatten)]
    pub postgres: PostgresFlags,

    /// Proxies whose X-Forwarded-For counts: addresses and networks, separated by commas
    /// [default: none]
    #[arg(long, env = "COMPOSE_BROKER_TRUSTED_PROXIES")]
    pub trusted_proxies: Option<String>,

    /// Seconds for which the broker serves on when it is told to end, and says that it is not ready, so that a
    /// proxy turns to another one
    #[arg(long, env = "COMPOSE_BROKER_DRAIN_SECONDS", default_value = "0")]
    pub drain_seconds: String,

    /// Requests per second that each client may send; bursts of ten times as many; 0: any number
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

    /// Whether each backup is restored into a member that is thrown away, to see that it can be: on or off
    #[arg(long, env = "COMPOSE_BROKER_BACKUP_PROOFS", default_value = "on")]
    pub backup_proofs: String,

    /// How far a restore may reach for its source: space or organization
    #[arg(long, env = "COMPOSE_BROKER_RESTORE_SCOPE", default_value = "space")]
    pub restore_scope: String,

    /// The ids of contexts by which platforms tell tenants apart: platform:key+key, separated by
    /// commas [default: those of the platforms that are known]
    #[arg(long, env = "COMPOSE_BROKER_TENANT_KEYS")]
    pub tenant_keys: Option<String>,

    /// Answer to polling a finished deletion: succeeded (200) or gone (410)
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
    #[arg(
        long,
        env = "COMPOSE_BROKER_LOG",
        default_value = "warn,compose_broker=info"
    )]
    pub log: String,

    /// How records are written: text or json
    #[arg(long, env = "COMPOSE_BROKER_LOG_FORMAT", default_value = "text")]
    pub log_format: String,

    /// Address and port to serve the metrics on, and nothing else [default: none; /metrics of LISTEN]
    #[arg(long, env = "COMPOSE_BROKER_METRICS_LISTEN")]
    pub metrics_listen: Option<String>,

    /// Instances that metrics tell of one by one; 0: none
    #[arg(long, env = "COMPOSE_BROKER_METRICS_INSTANCES", default_value = "100")]
    pub metrics_instances: String,

    /// How grave an alert must be for the webhook to be told: critical, warning or notice
    #[arg(
        long,
        env = "COMPOSE_BROKER_WEBHOOK_SEVERITY",
        default_value = "warning"
    )]
    pub webhook_severity: String,

    /// Where the webhook may be without TLS: loopback (this machine alone) or anywhere
    #[arg(long, env = "COMPOSE_BROKER_WEBHOOK_HTTP", default_value = "loopback")]
    pub webhook_http: String,

    /// The authorities that the webhook's certificate may be of (PEM file) [default: the machine's]
    #[arg(long, env = "COMPOSE_BROKER_WEBHOOK_CA", value_parser = path())]
    pub webhook_ca: Option<PathBuf>,

    /// For demonstrations and tests: file that says by how many seconds the broker's clock is ahead
    /// [default: none, the clock is the machine's]
    #[arg(long, env = "COMPOSE_BROKER_CLOCK_OFFSET_FILE", value_parser = path())]
    pub clock_offset_file: Option<PathBuf>,
}

/// What `--help` says of the settings that hold secrets. They are no flags: everybody on the
/// machine can read the flags of a process.
pub const SECRETS_HELP: &str = "\
Settings that hold secrets are taken from the environment only:
  COMPOSE_BROKER_DATABASE_URL
          The broker's own store, sqlite:// and a path or postgres://
          [default: broker.db in DATA_DIR]
  COMPOSE_BROKER_PASSWORD
          Password of the platform
          [default: made at the first start, in DATA_DIR/password; needed over
          PostgreSQL]
  COMPOSE_BROKER_MORE_CREDENTIALS
          Further credentials that are let in, to change them without a gap:
          user:password, separated by commas [default: none]
  COMPOSE_BROKER_READ_ONLY_CREDENTIALS
          Credentials that read what the operator reads, and change nothing:
          user:password, separated by commas [default: none]
  COMPOSE_BROKER_ENCRYPTION_KEYS
          Key ring for secrets at rest: name:base64 of 32 bytes, newest first,
          separated by commas
          [default: made at the first start, in DATA_DIR/encryption_keys;
          needed over PostgreSQL]
  COMPOSE_BROKER_METRICS_TOKEN
          What scrapes of the metrics may show instead of the platform's
          credentials (Authorization: Bearer) [default: none]
  COMPOSE_BROKER_WEBHOOK_URL
          Who is told of alerts of all instances, https:// and an address
          [default: none]
  COMPOSE_BROKER_WEBHOOK_SECRET
          What these messages are signed with: base64 of 24 to 64 bytes, newest
          first, separated by commas [default: none; needed with WEBHOOK_URL]
  AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN
          Credentials for backups in a bucket [default: those of
          S3_CREDENTIALS_FILE, or of the role that pod or machine has]

On Cloud Foundry, PORT, VCAP_APPLICATION and VCAP_SERVICES fill in for LISTEN,
PUBLIC_URL and DATABASE_URL.";

/// Names the setting of who reads and changes nothing.
pub(super) const READ_ONLY_CREDENTIALS: &str = "COMPOSE_BROKER_READ_ONLY_CREDENTIALS";

/// Names the setting of who is told of alerts.
pub(super) const WEBHOOK_URL: &str = "COMPOSE_BROKER_WEBHOOK_URL";
/// Names the setting of what messages are signed with.
pub(super) const WEBHOOK_SECRET: &str = "COMPOSE_BROKER_WEBHOOK_SECRET";

/// The settings that hold secrets, as they are written.
#[derive(Debug, Default)]
pub(super) struct SecretSettings {
    pub(super) database_url: Option<Secret>,
    pub(super) password: Option<Secret>,
    pub(super) more_credentials: Option<Secret>,
    pub(super) read_only_credentials: Option<Secret>,
    pub(super) encryption_keys: Option<Secret>,
    pub(super) metrics_token: Option<Secret>,
    pub(super) webhook_url: Option<Secret>,
    pub(super) webhook_secret: Option<Secret>,
}

impl SecretSettings {
    /// Takes them from the environment, or from what stands for it.
    pub(super) fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        let secret = |name| variable(name).map(Secret::new);
        Self {
            database_url: secret("COMPOSE_BROKER_DATABASE_URL"),
            password: secret("COMPOSE_BROKER_PASSWORD"),
            more_credentials: secret("COMPOSE_BROKER_MORE_CREDENTIALS"),
            read_only_credentials: secret(READ_ONLY_CREDENTIALS),
            encryption_keys: secret("COMPOSE_BROKER_ENCRYPTION_KEYS"),
            metrics_token: secret("COMPOSE_BROKER_METRICS_TOKEN"),
            webhook_url: secret(WEBHOOK_URL),
            webhook_secret: secret(WEBHOOK_SECRET),
        }
    }
}

impl Settings {
    /// Fails with the first of the paths that is empty.
    pub(super) fn check_paths(&self) -> Result<(), ConfigError> {
        paths::check(&self.s3.paths())?;
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
            ("COMPOSE_BROKER_WEBHOOK_CA", self.webhook_ca.as_deref()),
            (
                "COMPOSE_BROKER_CLOCK_OFFSET_FILE",
                self.clock_offset_file.as_deref(),
            ),
        ])
    }
}
