//! Whether the broker lives, and whether it can do its work: without credentials, and without
//! telling anything else.

use actix_web::{HttpResponse, http::StatusCode, web};
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::{Api, readiness::Found};
use crate::{
    broker::{Broker, BrokerError},
    model::{failure::chain, limits::READINESS_TIMEOUT, volume::Level},
};

/// What is told of a clock that is not trusted.
const CLOCK_IN_DOUBT: &str = "the clock is in doubt: nothing is removed by age";
/// What is told of a store that cannot be written.
const STORE_FULL: &str = "the store takes no writes: its disk is full";

/// What is told of a backup store that is out of reach.
const BACKUPS_WAIT: &str = "ready, but for backups: their store is out of reach";

/// What is told of a broker that is about to end.
const ENDING: &str = "the broker is about to end; another one serves";

/// The state of the broker.
#[derive(Serialize, ToSchema)]
pub struct Health {
    /// In a few words.
    status: &'static str,
    /// What its operator should look at, though it can do its work.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    detail: Option<String>,
}

/// Tells that the process serves.
#[utoipa::path(
    method(get, head), path = "/healthz", operation_id = "alive", security(()),
    responses((status = 200, description = "It does", body = Health))
)]
pub async fn alive() -> HttpResponse {
    HttpResponse::Ok().json(Health {
        status: "ok",
        detail: None,
    })
}

/// Tells whether the store takes writes too, and whether the backup store is there.
#[utoipa::path(
    method(get, head), path = "/readyz", operation_id = "ready", security(()),
    responses(
        (status = 200, description = "It does", body = Health),
        (status = 503, description = "It does not", body = Health),
    )
)]
pub async fn ready(api: web::Data<Api>) -> HttpResponse {
    let (code, status) = match api.readiness.is_draining() {
        true => (StatusCode::SERVICE_UNAVAILABLE, ENDING),
        false => api.readiness.found(look(&api.broker)).await,
    };
    let detail = detail(&api.broker);
    HttpResponse::build(code).json(Health { status, detail })
}

async fn look(broker: &Broker) -> Found {
    match timeout(READINESS_TIMEOUT, broker.check_store()).await {
        Ok(Ok(())) => look_at_backups(broker).await,
        Ok(Err(error)) => {
            log::warn!("not ready: {}", chain(&error));
            let status = match error {
                BrokerError::StoreFull(_) => STORE_FULL,
                _ => "the store does not answer",
            };
            (StatusCode::SERVICE_UNAVAILABLE, status)
        }
        Err(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the store does not answer in time",
        ),
    }
}

/// While the backup store is out of reach for now, all but backups can be done.
async fn look_at_backups(broker: &Broker) -> Found {
    match timeout(READINESS_TIMEOUT, broker.check_backups()).await {
        Ok(Ok(())) => (StatusCode::OK, "ready"),
        Ok(Err(BrokerError::BackupStore(error))) if error.may_pass() => {
            log::warn!("backups wait: {}", chain(&error));
            (StatusCode::OK, BACKUPS_WAIT)
        }
        Ok(Err(error)) => {
            log::warn!("not ready: {}", chain(&error));
            let status = "the backup store is not there";
            (StatusCode::SERVICE_UNAVAILABLE, status)
        }
        Err(_) => (StatusCode::OK, BACKUPS_WAIT),
    }
}

/// What its operator should look at.
fn detail(broker: &Broker) -> Option<String> {
    let in_doubt = broker.time.clock_state().doubt.is_some();
    let clock = in_doubt.then_some(CLOCK_IN_DOUBT);
    let found: Vec<&str> = clock.into_iter().chain(volume_detail(broker)).collect();
    (!found.is_empty()).then(|| found.join("; "))
}

/// What is told of volumes that run out. Which ones, operators are told elsewhere.
fn volume_detail(broker: &Broker) -> Option<&'static str> {
    match broker
        .estates
        .volumes()
        .iter()
        .map(|volume| volume.level)
        .max()?
    {
        Level::Ample => None,
        Level::Low => Some("a volume is nearly full"),
        Level::Full => Some("a volume is full"),
    }
}
