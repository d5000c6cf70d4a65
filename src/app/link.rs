//! One-time links to the dashboard, made beside the broker that runs.

use std::sync::Arc;

use super::{NAMED_MAX, StartError, listen::public_url, seals::check_keys};
use crate::{
    broker,
    clock::Clock,
    config::Config,
    model::ids::InstanceId,
    seal::SealError,
    store::{self, Store},
};

/// Why no link is made. Each is one line.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The store does not open, or the key ring is not the broker's.
    #[error(transparent)]
    Start(#[from] StartError),
    /// No broker ever ran with these settings.
    #[error(
        "COMPOSE_BROKER_DATA_DIR: {0} has no key ring, so no broker keeps its things there; give the \
         settings of the one that runs"
    )]
    NoBroker(String),
    /// There is nothing that it could lead to.
    #[error("there is no service instance {0:?}; give its id, as the platform has it")]
    NoInstance(String),
    /// It is a name, and a link leads to an id.
    #[error("{name:?} is the name of a service instance; give its id: {ids}")]
    Name {
        /// The name.
        name: String,
        /// The ids of instances that have it.
        ids: String,
    },
    /// No random bytes.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// Makes a one-time link to the dashboard of an instance, beside the broker that runs with the
/// same configuration. Nothing is written: the link is signed, and the broker will know it.
pub async fn dashboard_link(
    config: &Config,
    instance: &str,
    clock: &Clock,
) -> Result<String, LinkError> {
    let none = || LinkError::NoInstance(instance.to_owned());
    let id: InstanceId = instance.parse().map_err(|_| none())?;
    if config.has_new_keys() {
        return Err(LinkError::NoBroker(
            config.places.data_dir.display().to_string(),
        ));
    }
    let store =
        Store::open_for_reading(config.places.database_url.expose()).map_err(StartError::from)?;
    let store = Arc::new(store);
    check_keys(&store, &config.access.keys).await?;
    let wanted = id.clone();
    let found = store
        .read(move |conn| {
            let named = store::instance::of_name(conn, wanted.as_str(), NAMED_MAX)?;
            Ok((broker::linkable(conn, &wanted)?, named))
        })
        .await;
    let instance = match found.map_err(StartError::from)? {
        (Some(instance), _) => instance,
        (None, named) if named.is_empty() => return Err(none()),
        (None, named) => {
            let ids: Vec<&str> = named.iter().map(InstanceId::as_str).collect();
            return Err(LinkError::Name {
                name: id.to_string(),
                ids: ids.join(", "),
            });
        }
    };
    let public_url = public_url(config, config.listening.address);
    Ok(broker::dashboard_link(
        &config.access.keys,
        &public_url,
        &instance,
        clock.now(),
    )?)
}
