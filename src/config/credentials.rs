//! The setting of further credentials that are let in.

use super::{ConfigError, wrong};
use crate::model::secret::{Credentials, Secret};

/// Reads pairs of user and password. What is wrong with one is told without it.
pub(super) fn more_credentials(setting: Option<&Secret>) -> Result<Vec<Credentials>, ConfigError> {
    let text = setting.map_or("", Secret::expose);
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
                Err(wrong("COMPOSE_BROKER_MORE_CREDENTIALS", reason))
            }
        })
        .collect()
}
