//! What it takes to look at backups without a broker.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use zeroize::Zeroizing;

use super::{
    ConfigError,
    paths::path,
    s3::{AwsSettings, S3Flags},
    stores::StoreAddresses,
    wrong,
};
use crate::{
    backups::{LookError, Suspect, Wanted, place_before},
    model::{ids::BackupId, limits::tenant_key::PRIVATE_KEY_BYTES_MAX},
    seal::{
        KeyRing,
        age::{PrivateKeyError, PrivateKeys},
    },
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

    /// File with the private key of a tenant, as age-keygen makes it, for backups that are sealed for that
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub identity: Option<PathBuf>,

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
        let private = self.identity.as_deref().map(private_keys).transpose()?;
        let wanted = Wanted {
            keys,
            private: private.map(Arc::new),
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

/// The private keys in a file.
fn private_keys(file: &Path) -> Result<PrivateKeys, ConfigError> {
    let refused = |reason: String| wrong("--identity", format!("{}: {reason}", file.display()));
    let metadata = fs::metadata(file).map_err(|error| refused(error.to_string()))?;
    if metadata.len() > PRIVATE_KEY_BYTES_MAX as u64 {
        return Err(refused(
            "it is too long for a file of private keys".to_owned(),
        ));
    }
    let text = fs::read_to_string(file).map(Zeroizing::new);
    let text = text.map_err(|error| refused(error.to_string()))?;
    text.parse()
        .map_err(|error: PrivateKeyError| refused(error.to_string()))
}
