//! What a first start makes: folders, and the secrets that no setting gives. Nothing is written
//! before the settings and folders were looked at.

use std::{fs, io, path::Path};

use super::{Config, ConfigError, wrong};
use crate::{
    disk,
    model::{bom::without_bom, secret::Secret},
};

/// The files of secrets that are made at a first start.
pub(super) const USERNAME: &str = "username";
pub(super) const PASSWORD: &str = "password";
pub(super) const KEY_RING: &str = "encryption_keys";

/// A secret that was made, and is not written down yet.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) setting: &'static str,
    pub(super) file: &'static str,
    pub(super) secret: Secret,
}

impl Config {
    /// Makes the folder for everything that the broker keeps, unless it is there.
    pub fn make_data_dir(&self) -> Result<(), ConfigError> {
        disk::make_folder(&self.places.data_dir).map_err(|e| {
            let reason = format!("{}: {e}", self.places.data_dir.display());
            wrong("COMPOSE_BROKER_DATA_DIR", reason)
        })
    }

    /// Makes the folders that are not there, and writes down the secrets that were made.
    pub fn keep(&self) -> Result<(), ConfigError> {
        self.make_data_dir()?;
        for of in self.places.clusters.iter().filter(|of| of.is_here) {
            let Some(folder) = of.backing.folder() else {
                continue;
            };
            disk::make_folder(folder).map_err(|e| {
                let (place, id) = (folder.display(), &of.cluster.id);
                let reason = format!("data_dir {place} of cluster {id:?}: {e}");
                wrong("COMPOSE_BROKER_CLUSTERS", reason)
            })?;
        }
        for made in &self.access.made {
            write(&self.places.data_dir, made.file, &made.secret)
                .map_err(|e| wrong(made.setting, e))?;
        }
        Ok(())
    }

    /// Whether the key ring was made just now, so that it opens nothing that a broker ever sealed.
    pub fn has_new_keys(&self) -> bool {
        self.access.made.iter().any(|made| made.file == KEY_RING)
    }
}

/// The secrets in a folder.
pub(super) struct Kept<'a> {
    pub(super) folder: &'a Path,
    /// Whether brokers on other machines, which do not see the folder, may use the same store.
    pub(super) is_store_shared: bool,
    pub(super) made: Vec<Made>,
}

impl Kept<'_> {
    /// Reads a secret that was made at the first start.
    pub(super) fn find(
        &self,
        setting: &'static str,
        file: &'static str,
    ) -> Result<Option<Secret>, ConfigError> {
        let found = disk::there(fs::read_to_string(self.folder.join(file)));
        let found = found.map_err(|error| wrong(setting, error))?;
        Ok(found.map(|text| Secret::new(without_bom(&text).trim())))
    }

    /// The same; makes it at this start when it is not there, unless other brokers need the same one.
    pub(super) fn find_or_make<E: std::fmt::Display>(
        &mut self,
        setting: &'static str,
        file: &'static str,
        make: impl FnOnce() -> Result<Secret, E>,
    ) -> Result<Secret, ConfigError> {
        if let Some(found) = self.find(setting, file)? {
            return Ok(found);
        }
        if self.is_store_shared {
            let reason = format!(
                "is not set, and {} is not there: the store is one that several brokers may use, and each \
                 would make its own",
                self.folder.join(file).display()
            );
            return Err(wrong(setting, reason));
        }
        let secret = make().map_err(|error| wrong(setting, error))?;
        self.made.push(Made {
            setting,
            file,
            secret: secret.clone(),
        });
        Ok(secret)
    }
}

/// Writes a secret down, whole or not at all: a half-written key would be taken for the key at the
/// next start. One that is there by now is another start's.
fn write(folder: &Path, name: &str, secret: &Secret) -> io::Result<()> {
    let contents = format!("{}\n", secret.expose());
    disk::write_new(&folder.join(name), contents.as_bytes()).map_err(|error| {
        if error.kind() != io::ErrorKind::AlreadyExists {
            return error;
        }
        let reason = "another start has made it meanwhile; start again";
        io::Error::new(io::ErrorKind::AlreadyExists, reason)
    })
}
