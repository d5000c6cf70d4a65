//! How the broker is watched.

use std::net::SocketAddr;

use super::{
    ConfigError,
    check::number,
    settings::{SecretSettings, Settings},
    wrong,
};
use crate::model::{
    limits::{METRICS_INSTANCES_MAX, METRICS_TOKEN_BYTES_MIN},
    secret::Secret,
};

/// How the broker is watched.
#[derive(Debug)]
pub struct Monitoring {
    /// The address that metrics have for themselves; absent: they are told where everything is.
    pub listen: Option<SocketAddr>,
    /// Instances that metrics tell of one by one.
    pub instances: usize,
    /// Lets scrapes in; absent: the platform's credentials alone do.
    pub token: Option<Secret>,
}

impl Monitoring {
    pub(super) fn check(
        settings: &Settings,
        secrets: &SecretSettings,
    ) -> Result<Self, ConfigError> {
        let listen = settings.metrics_listen.as_ref().map(|text| {
            text.parse().map_err(|_| {
                let reason = format!("{text:?} is not of the form 127.0.0.1:9100");
                wrong("COMPOSE_BROKER_METRICS_LISTEN", reason)
            })
        });
        let instances = number(
            "COMPOSE_BROKER_METRICS_INSTANCES",
            &settings.metrics_instances,
            0..=METRICS_INSTANCES_MAX,
        )?;
        Ok(Self {
            listen: listen.transpose()?,
            instances: usize::try_from(instances).unwrap_or(usize::MAX),
            token: secrets.metrics_token.as_ref().map(token).transpose()?,
        })
    }
}

fn token(text: &Secret) -> Result<Secret, ConfigError> {
    let is_plain = |c: char| c.is_ascii_graphic();
    if text.expose().len() < METRICS_TOKEN_BYTES_MIN || !text.expose().chars().all(is_plain) {
        let reason = format!(
            "is not at least {METRICS_TOKEN_BYTES_MIN} letters, digits and signs without blanks"
        );
        return Err(wrong("COMPOSE_BROKER_METRICS_TOKEN", reason));
    }
    Ok(text.clone())
}
