//! What Cloud Foundry tells an application about itself.

use serde_json::Value;

use super::{ConfigError, wrong};
use crate::model::{database_url::DatabaseUrl, secret::Secret};

/// What Cloud Foundry tells an application about itself.
#[derive(Debug, Default)]
pub(super) struct CloudFoundry {
    pub(super) port: Option<u16>,
    pub(super) url: Option<String>,
    pub(super) database_url: Option<Secret>,
}

impl CloudFoundry {
    pub(super) fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let json = |name: &'static str| -> Result<Option<Value>, ConfigError> {
            let text = variable(name);
            text.map(|t| serde_json::from_str(&t).map_err(|e| wrong(name, e)))
                .transpose()
        };
        let application = json("VCAP_APPLICATION")?;
        let port = match variable("PORT") {
            // A variable of this name outside of Cloud Foundry is somebody else's.
            Some(text) if application.is_some() => Some(
                text.parse()
                    .map_err(|_| wrong("PORT", "is not a TCP port"))?,
            ),
            _ => None,
        };
        let uri = application
            .as_ref()
            .and_then(|a| a["application_uris"][0].as_str());
        let services = json("VCAP_SERVICES")?;
        let database_url = services
            .as_ref()
            .and_then(Value::as_object)
            .into_iter()
            .flat_map(|labels| labels.values())
            .filter_map(Value::as_array)
            .flatten()
            .filter_map(|service| service["credentials"]["uri"].as_str())
            .find(|uri| DatabaseUrl::parse(uri) == Some(DatabaseUrl::Postgres));
        Ok(Self {
            port,
            url: uri.map(|uri| format!("https://{uri}")),
            database_url: database_url.map(Secret::new),
        })
    }
}
