//! Whether the broker lives, and whether it can do its work: without credentials, and without
//! telling anything else.

use actix_web::{HttpResponse, http::StatusCode, web};
use serde_json::json;

use super::Api;
use crate::{model::failure::chain, model::limits::READINESS_TIMEOUT};

/// The process serves.
pub async fn alive() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "status": "ok" }))
}

/// The store answers too.
pub async fn ready(api: web::Data<Api>) -> HttpResponse {
    let (status, text) =
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
    HttpResponse::build(status).json(json!({ "status": text }))
}
