//! What it takes to look at backups without a broker.

use std::{fs, path::PathBuf, sync::Arc};

use clap::Args;

use super::{
    ConfigError,
    paths::path,
    s3::{AwsSettings, S3Flags},
    stores::StoreAddresses,
    wrong,
};
use crate::{
    backups::{LookError, Suspect, Wanted, place_before},
    model::ids::BackupId,
    seal::KeyRing,
};

/// Names the setting of the key ring.
const KEYS: &str = "COMPOSE_BROKER_ENCRYPTION_KEYS";

/// Which backups are looked at, and how.
#[derive(Debug, Clone, Args)]
pub struct OfflineLook {
    /// What to look at: a downloaded archive, a folder with a backup, or a backup store (a folder, or an address
    /// as in BACKUP_STORE)
    #[arg(value_name = "FILE, FOLDER or ADDRESS")]
    pub what: String,

    /// Another store with older backups of the same broker, as in OLDER_BACKUP_STORES; may be given several times
    #[arg(long, value_name = "ADDRESS")]
    pub older: Vec<String>,

    /// File with the key ring, as a broker keeps it [default: $COMPOSE_BROKER_ENCRYPTION_KEYS]
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub keys: Option<PathBuf>,

    /// Only this backup of a store, by its id
    #[arg(long, value_name = "ID")]
    pub backup: Option<BackupId>,

    /// Also write the snapshot to this file, which must not be there yet
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub to: Option<PathBuf>,

    #[command(flatten)]
    pub s3: S3Flags,
}

/// Why nothing can be looked at.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// A setting is wrong.
    #[error(transparent)]
    Setting(#[from] ConfigError),
    /// It is not there.
    #[error(transparent)]
    Look(#[from] LookError),
}

impl OfflineLook {
    /// What is looked at, and what is asked of that.
    pub fn read(&self) -> Result<(Suspect, Wanted), OfflineError> {
        let variable = |name: &str| std::env::var(name).ok();
        let ring = match &self.keys {
            Some(file) => {
                let read = fs::read_to_string(file);
                Some(read.map_err(|e| wrong("--keys", format!("{}: {e}", file.display())))?)
            }
            None => variable(KEYS).filter(|ring| !ring.trim().is_empty()),
        };
        let setting = if self.keys.is_some() { "--keys" } else { KEYS };
        let ring = ring.map(|ring| KeyRing::parse(&ring)).transpose();
        let keys = ring.map_err(|error| wrong(setting, error))?.map(Arc::new);
        let wanted = Wanted {
            keys,
            only: self.backup.clone(),
            to: self.to.clone(),
        };
        let stores = StoreAddresses::check(&self.s3, AwsSettings::read(variable))?;
        let place_at = |address: &String, what: &'static str| {
            stores.place(address).map_err(|reason| wrong(what, reason))
        };
        let older = self
            .older
            .iter()
            .map(|address| place_at(address, "--older"));
        let older = older.collect::<Result<Vec<_>, _>>()?;
        let suspect = match self.what.contains("://") {
            true => Suspect::Store(place_at(&self.what, "the address")?),
            false => Suspect::at(self.what.as_ref())?,
        };
        match suspect {
            Suspect::Store(front) => Ok((Suspect::Store(place_before(front, older)), wanted)),
            lone if older.is_empty() => Ok((lone, wanted)),
            _ => Err(wrong("--older", "is for backup stores alone").into()),
        }
    }
}
