//! Errors as OSB wants them: `{"error": ..., "description": ...}`.

use actix_web::{
    HttpResponse, ResponseError,
    http::{StatusCode, header},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{broker::BrokerError, http::error::HttpError};

/// An error of OSB.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct OsbError(#[from] pub HttpError);

/// The body of an error of OSB.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Error)]
pub struct OsbErrorBody {
    /// What is wrong, for people.
    description: String,
    /// One of OSB's own codes, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(
        nullable = false,
        pattern = "^(AsyncRequired|ConcurrencyError|MaintenanceInfoConflict)$"
    )]
    error: Option<&'static str>,
    /// Whether the instance can be used; of an update that was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    instance_usable: Option<bool>,
    /// Whether the same may be accepted later; of an update that was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    update_repeatable: Option<bool>,
}

impl OsbErrorBody {
    /// A body that has nothing but a text for people.
    pub(in crate::http) fn new(description: String) -> Self {
        Self {
            description,
            error: None,
            instance_usable: None,
            update_repeatable: None,
        }
    }
}

impl From<BrokerError> for OsbError {
    fn from(error: BrokerError) -> Self {
        Self(error.into())
    }
}

/// The answer that tells of an error in OSB's form.
pub fn response(error: &HttpError) -> HttpResponse {
    let mut body = OsbErrorBody::new(error.to_string());
    body.error = code(error);
    if let HttpError::Broker(BrokerError::UpdateRefused { repeatable, .. }) = error {
        body.instance_usable = Some(true);
        body.update_repeatable = Some(*repeatable);
    }
    let mut response = error.respond(&body);
    if matches!(error, HttpError::Unauthorized) {
        let challenge = header::HeaderValue::from_static("Basic realm=\"compose-broker\"");
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

/// OSB's error code, where the specification has one.
fn code(error: &HttpError) -> Option<&'static str> {
    match error {
        HttpError::Broker(BrokerError::AsyncRequired) => Some("AsyncRequired"),
        HttpError::Broker(BrokerError::Concurrency(_)) => Some("ConcurrencyError"),
        HttpError::Broker(BrokerError::MaintenanceInfoConflict(_)) => {
            Some("MaintenanceInfoConflict")
        }
        _ => None,
    }
}

impl ResponseError for OsbError {
    fn status_code(&self) -> StatusCode {
        self.0.status()
    }

    fn error_response(&self) -> HttpResponse {
        response(&self.0)
    }
}
