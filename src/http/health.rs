//! Whether the broker lives, and whether it can do its work: without credentials, and without
//! telling anything else.

use actix_web::{HttpResponse, http::StatusCode, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use crate::{model::failure::chain, model::limits::READINESS_TIMEOUT};

/// How the broker fares.
#[derive(Serialize, ToSchema)]
pub struct Health {
    /// In a few words.
    status: &'static str,
}

/// Tells that the process serves.
#[utoipa::path(
    method(get, head), path = "/healthz", operation_id = "alive", security(()),
    responses((status = 200, description = "It does", body = Health))
)]
pub async fn alive() -> HttpResponse {
    HttpResponse::Ok().json(Health { status: "ok" })
}

/// Tells whether the store answers too.
#[utoipa::path(
    method(get, head), path = "/readyz", operation_id = "ready", security(()),
    responses(
        (status = 200, description = "It does", body = Health),
        (status = 503, description = "It does not", body = Health),
    )
)]
pub async fn ready(api: web::Data<Api>) -> HttpResponse {
    let (code, status) =
        match tokio::time::timeout(READINESS_TIMEOUT, api.broker.check_ready()).await {
            Ok(Ok(())) => (StatusCode::OK, "ready"),
            Ok(Err(error)) => {
                log::warn!("not ready: {}", chain(&error));
                (StatusCode::SERVICE_UNAVAILABLE, "the store does not answer")
            }
            Err(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "the store does not answer in time",
            ),
        };
    HttpResponse::build(code).json(Health { status })
}
