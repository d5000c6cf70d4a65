//! The settings: read once at start, by nobody else, and checked before anything is begun.
//!
//! Each setting is a flag and an environment variable `COMPOSE_BROKER_<NAME>`; the flag wins. What
//! Cloud Foundry gives an application (`PORT`, `VCAP_APPLICATION`, `VCAP_SERVICES`) fills in for
//! settings that are absent.

use std::{
    fs, io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use chrono::{DateTime, Utc};

use crate::model::bom::without_bom;

mod check;
mod client;
mod cloud_foundry;
mod clusters;
mod credentials;
mod kept;
mod monitoring;
mod offline;
mod paths;
mod postgres;
mod s3;
mod settings;
mod stores;

pub use crate::model::marker::Accepted;
pub use check::{Conventions, Limits, Listening, Logging, Places, Retention};
pub use client::{
    CLIENT_SECRETS_HELP, CLIENT_SETTINGS_HEADING, ClientConfig, ClientSettings, columns_named,
    names_of_environment, program, words,
};
use cloud_foundry::CloudFoundry;
pub use clusters::{ClusterSettings, MemberSettings};
pub use credentials::Access;
pub use monitoring::Monitoring;
pub use offline::{OfflineError, OfflineLook};
pub use postgres::PostgresFlags;
use s3::AwsSettings;
pub use s3::S3Flags;
use settings::SecretSettings;
pub use settings::{SECRETS_HELP, Settings};
use stores::StoreAddresses;

/// A setting that cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
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
    /// Where the broker is reached.
    pub listening: Listening,
    /// Who is let in, and what seals secrets.
    pub access: Access,
    /// What one client or tenant may have.
    pub limits: Limits,
    /// How long things are kept.
    pub retention: Retention,
    /// How the broker answers platforms, where they differ.
    pub conventions: Conventions,
    /// What is logged, and how.
    pub logging: Logging,
    /// How the broker is watched.
    pub monitoring: Monitoring,
    /// Where the broker's things lie, and its members run.
    pub places: Places,
    /// The catalog.
    pub catalog: CatalogFile,
    /// What moves the broker's clock; absent: nothing does, and it is the machine's.
    pub clock_offset_file: Option<PathBuf>,
    /// What an operator accepts for this start.
    pub accepted: Vec<Accepted>,
}

impl Config {
    /// Checks the settings. Secrets that are not set and not there are made, and not yet kept.
    pub fn load(settings: &Settings) -> Result<Self, ConfigError> {
        let variable = |name: &str| std::env::var(name).ok();
        Self::check(
            settings,
            SecretSettings::read(variable),
            CloudFoundry::read(variable)?,
            AwsSettings::read(variable),
        )
    }

    /// The placement targets alone, whatever is wrong with other settings: their members are started
    /// also where the broker itself cannot be. Empty where not even these can be told, and where no
    /// broker has kept anything yet.
    pub fn clusters_alone(settings: &Settings) -> Vec<ClusterSettings> {
        check::clusters_alone(settings)
    }

    fn check(
        settings: &Settings,
        secrets: SecretSettings,
        cloud: CloudFoundry,
        aws: AwsSettings,
    ) -> Result<Self, ConfigError> {
        settings.check_paths()?;
        let listening = Listening::check(settings, &cloud)?;
        let limits = Limits::check(settings)?;
        let retention = Retention::check(settings)?;
        let conventions = Conventions::check(settings)?;
        let logging = Logging::check(settings)?;
        let monitoring = Monitoring::check(settings, &secrets)?;
        let clock_offset_file = check::clock_offset_file(settings)?;
        let catalog = check::catalog(settings)?;
        let database_url = secrets.database_url.clone().or(cloud.database_url);
        let stores = StoreAddresses::check(&settings.s3, aws)?;
        let places = Places::check(settings, database_url, &stores)?;
        let access = Access::check(settings.username.as_deref(), secrets, &places)?;
        Ok(Self {
            listening,
            access,
            limits,
            retention,
            conventions,
            logging,
            monitoring,
            places,
            catalog,
            clock_offset_file,
            accepted: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests;
