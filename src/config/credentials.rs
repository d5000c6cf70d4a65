//! Who is let in, and the key ring: from the settings, from what an earlier start made, or made by this
//! one.

use std::{io, sync::Arc};

use super::{
    ConfigError, Places,
    kept::{KEY_RING, Kept, Made, PASSWORD, USERNAME},
    settings::{READ_ONLY_CREDENTIALS, SecretSettings},
    wrong,
};
use crate::{
    model::secret::{Credentials, Secret},
    seal::{KeyRing, random_secret},
};

/// The platform's user name where none is set.
const DEFAULT_USERNAME: &str = "broker";

/// Who is let in, and what seals secrets.
#[derive(Debug)]
pub struct Access {
    /// The platform's credentials.
    pub platform: Credentials,
    /// Further credentials that are let in.
    pub more: Vec<Credentials>,
    /// Credentials that read what the operator reads, and change nothing.
    pub read_only: Vec<Credentials>,
    /// What seals secrets.
    pub keys: Arc<KeyRing>,
    /// Secrets that were made because there were none.
    pub(super) made: Vec<Made>,
}

impl Access {
    pub(super) fn check(
        username: Option<&str>,
        secrets: SecretSettings,
        places: &Places,
    ) -> Result<Self, ConfigError> {
        let mut kept = Kept {
            folder: &places.data_dir,
            is_store_shared: places.is_store_shared(),
            made: Vec::new(),
        };
        let platform = platform(username, secrets.password, &mut kept)?;
        let more = pairs(
            "COMPOSE_BROKER_MORE_CREDENTIALS",
            secrets.more_credentials.as_ref(),
        )?;
        let read_only = pairs(
            READ_ONLY_CREDENTIALS,
            secrets.read_only_credentials.as_ref(),
        )?;
        check_apart(&read_only, std::iter::once(&platform).chain(&more))?;
        let ring = match secrets.encryption_keys {
            Some(ring) => ring,
            None => kept.find_or_make(
                "COMPOSE_BROKER_ENCRYPTION_KEYS",
                KEY_RING,
                KeyRing::generate,
            )?,
        };
        let keys = KeyRing::parse(ring.expose())
            .map(Arc::new)
            .map_err(|e| wrong("COMPOSE_BROKER_ENCRYPTION_KEYS", e))?;
        Ok(Self {
            platform,
            more,
            read_only,
            keys,
            made: kept.made,
        })
    }
}

fn platform(
    username: Option<&str>,
    password: Option<Secret>,
    kept: &mut Kept<'_>,
) -> Result<Credentials, ConfigError> {
    let username = match username {
        Some(name) => name.to_owned(),
        None => username_of_before(kept)?.expose().to_owned(),
    };
    let password = match password {
        Some(password) => password,
        None => kept.find_or_make("COMPOSE_BROKER_PASSWORD", PASSWORD, random_secret)?,
    };
    if username.is_empty() || username.contains(':') {
        return Err(wrong("COMPOSE_BROKER_USERNAME", "is empty or has a colon"));
    }
    if password.expose().is_empty() {
        return Err(wrong("COMPOSE_BROKER_PASSWORD", "is empty"));
    }
    Ok(Credentials { username, password })
}

/// The name that an earlier start has written down, or else the one that each broker takes.
fn username_of_before(kept: &mut Kept<'_>) -> Result<Secret, ConfigError> {
    const SETTING: &str = "COMPOSE_BROKER_USERNAME";
    let default = Secret::new(DEFAULT_USERNAME);
    match kept.is_store_shared {
        true => Ok(kept.find(SETTING, USERNAME)?.unwrap_or(default)),
        false => kept.find_or_make(SETTING, USERNAME, || Ok::<_, io::Error>(default)),
    }
}

/// A name that reads must not be one that changes: nobody could tell from it what it lets do.
fn check_apart<'a>(
    read_only: &[Credentials],
    mut full: impl Iterator<Item = &'a Credentials>,
) -> Result<(), ConfigError> {
    match full.find(|full| read_only.iter().any(|of| of.username == full.username)) {
        None => Ok(()),
        Some(full) => {
            let name = &full.username;
            let reason = format!("{name} is the name of credentials that may change everything");
            Err(wrong(READ_ONLY_CREDENTIALS, reason))
        }
    }
}

/// Reads pairs of user and password. What is wrong with one is told without it.
pub(super) fn pairs(
    setting: &'static str,
    value: Option<&Secret>,
) -> Result<Vec<Credentials>, ConfigError> {
    let text = value.map_or("", Secret::expose);
    let entries = text.split(',').map(str::trim);
    entries
        .filter(|entry| !entry.is_empty())
        .enumerate()
        .map(|(i, entry)| match entry.split_once(':') {
            Some((username, password)) if !username.is_empty() && !password.is_empty() => {
                Ok(Credentials {
                    username: username.to_owned(),
                    password: Secret::new(password),
                })
            }
            _ => {
                let reason = format!("entry {} is not user:password", i + 1);
                Err(wrong(setting, reason))
            }
        })
        .collect()
}
