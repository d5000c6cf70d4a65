//! How the broker is watched.

use std::net::SocketAddr;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use url::{Host, Url};
use zeroize::Zeroizing;

use super::{
    ConfigError, number,
    settings::{SecretSettings, Settings, WEBHOOK_SECRET, WEBHOOK_URL},
    wrong,
};
use crate::model::{
    limits::{
        METRICS_INSTANCES_MAX, METRICS_TOKEN_BYTES_MIN, WEBHOOK_SECRET_BYTES_MAX,
        WEBHOOK_SECRET_BYTES_MIN,
    },
    message::{Threshold, Webhook},
    secret::Secret,
};

/// In front of secrets, as tools for standard webhooks write them.
const WEBHOOK_SECRET_PREFIX: &str = "whsec_";

/// How the broker is watched.
#[derive(Debug)]
pub struct Monitoring {
    /// The address that metrics have for themselves; absent: they are told where everything is.
    pub listen: Option<SocketAddr>,
    /// Instances that metrics tell of one by one.
    pub instances: usize,
    /// Lets scrapes in; absent: the platform's credentials alone do.
    pub token: Option<Secret>,
    /// Who is told of alerts; absent: nobody.
    pub webhook: Option<Webhook>,
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
            webhook: webhook(settings, secrets)?,
        })
    }
}

fn webhook(settings: &Settings, secrets: &SecretSettings) -> Result<Option<Webhook>, ConfigError> {
    let threshold = Threshold::parse(&settings.webhook_severity).ok_or_else(|| {
        let reason = format!(
            "{:?} is none of critical, warning and notice",
            settings.webhook_severity
        );
        wrong("COMPOSE_BROKER_WEBHOOK_SEVERITY", reason)
    })?;
    let is_plain_everywhere = match settings.webhook_http.as_str() {
        "loopback" => false,
        "anywhere" => true,
        other => {
            let reason = format!("{other:?} is none of loopback and anywhere");
            return Err(wrong("COMPOSE_BROKER_WEBHOOK_HTTP", reason));
        }
    };
    let given = |secret: &'_ &Secret| !secret.expose().trim().is_empty();
    let url = secrets.webhook_url.as_ref().filter(given);
    let signing = secrets.webhook_secret.as_ref().filter(given);
    let Some(url) = url else {
        return match signing {
            None => Ok(None),
            Some(_) => Err(wrong(
                WEBHOOK_URL,
                "is missing, and there is a secret for it",
            )),
        };
    };
    let url = webhook_url(url, is_plain_everywhere)?;
    let Some(signing) = signing else {
        let reason = "is missing: messages would not be signed. Make one: openssl rand -base64 32";
        return Err(wrong(WEBHOOK_SECRET, reason));
    };
    let secrets = signing.expose().split(',').enumerate();
    Ok(Some(Webhook {
        url,
        secrets: secrets.map(signing_secret).collect::<Result<_, _>>()?,
        ca: settings.webhook_ca.clone(),
        threshold,
    }))
}

/// Nothing of the address is told of a wrong one: it may hold a secret.
fn webhook_url(text: &Secret, is_plain_everywhere: bool) -> Result<Url, ConfigError> {
    let refused = |reason: &str| Err(wrong(WEBHOOK_URL, reason));
    let Ok(url) = Url::parse(text.expose().trim()) else {
        return refused("is no address of the form https://host/path");
    };
    if url.host().is_none() || !matches!(url.scheme(), "https" | "http") {
        return refused("is no address of the form https://host/path");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refused("has a user or a password in it; messages are signed instead");
    }
    if url.scheme() == "http" && !is_plain_everywhere && !is_loopback(&url) {
        return refused(
            "is http:// to another machine, where others can read it; take https://, or set \
             COMPOSE_BROKER_WEBHOOK_HTTP=anywhere",
        );
    }
    Ok(url)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn signing_secret((i, text): (usize, &str)) -> Result<Secret, ConfigError> {
    let text = text.trim();
    let text = text.strip_prefix(WEBHOOK_SECRET_PREFIX).unwrap_or(text);
    let length = WEBHOOK_SECRET_BYTES_MIN..=WEBHOOK_SECRET_BYTES_MAX;
    let decoded = BASE64.decode(text).map(Zeroizing::new);
    match decoded {
        Ok(bytes) if length.contains(&bytes.len()) => Ok(Secret::new(text)),
        _ => {
            let reason = format!(
                "entry {} is not base64 of {WEBHOOK_SECRET_BYTES_MIN} to {WEBHOOK_SECRET_BYTES_MAX} \
                 bytes. Make one: openssl rand -base64 32",
                i + 1
            );
            Err(wrong(WEBHOOK_SECRET, reason))
        }
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
