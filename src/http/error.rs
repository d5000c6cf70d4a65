//! Why requests are not fulfilled, and the only map from errors to status codes. How each API tells of
//! them stands in the `error.rs` beside its handlers.

use std::time::Duration;

use actix_web::{
    HttpResponse,
    http::{StatusCode, header},
};
use serde::Serialize;

use crate::{
    broker::BrokerError,
    model::{failure::chain, limits::RETRY_AFTER_SECONDS},
};

/// Why a request was refused, in the answer's own words; beside the answer, for the log.
#[derive(Debug, Clone)]
pub struct Refusal(pub String);

/// Why a request was not fulfilled.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The use case refused or failed.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// No or wrong credentials.
    #[error("the credentials are missing or wrong")]
    Unauthorized,
    /// No or a wrong version of the API.
    #[error("{0}")]
    ApiVersion(String),
    /// Too many requests came from there; after so long there is room for the next.
    #[error("too many requests; try again in {} s", .0.as_secs())]
    TooMany(Duration),
    /// The body is larger than we read.
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    /// The body is compressed, which nothing here unpacks.
    #[error("the body is compressed; send it as it is, without Content-Encoding")]
    Compressed,
    /// What is asked for of a download lies behind its end; so long is it, in bytes.
    #[error("the download has {0} bytes, and none of those that are asked for")]
    NoSuchRange(u64),
    /// The body did not come in time.
    #[error("the body did not come in time")]
    TooSlow,
}

impl HttpError {
    /// A request that cannot be understood.
    pub fn bad_request(reason: impl Into<String>) -> Self {
        Self::Broker(BrokerError::BadRequest(reason.into()))
    }

    /// The status that tells of it: the one place where errors become status codes.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::ApiVersion(_) => StatusCode::PRECONDITION_FAILED,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NoSuchRange(_) => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::Compressed => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Broker(error) => match error {
                BrokerError::BadRequest(_) => StatusCode::BAD_REQUEST,
                BrokerError::NotFound(_) => StatusCode::NOT_FOUND,
                BrokerError::Gone => StatusCode::GONE,
                BrokerError::Conflict(_) => StatusCode::CONFLICT,
                BrokerError::AsyncRequired
                | BrokerError::Concurrency(_)
                | BrokerError::MaintenanceInfoConflict(_)
                | BrokerError::UpdateRefused { .. }
                | BrokerError::Protected => StatusCode::UNPROCESSABLE_ENTITY,
                BrokerError::Denied(_) => StatusCode::FORBIDDEN,
                BrokerError::Busy | BrokerError::TooSoon(_) | BrokerError::Throttled(_) => {
                    StatusCode::TOO_MANY_REQUESTS
                }
                // Room may be made, and a catalog may come to all.
                BrokerError::Elsewhere(_)
                | BrokerError::NotOfferedByAll(_)
                | BrokerError::StoreFull(_) => StatusCode::SERVICE_UNAVAILABLE,
                BrokerError::BackupStore(_) if error.lacks_room() => {
                    StatusCode::SERVICE_UNAVAILABLE
                }
                // It was too slow, or out of reach: a moment later it may do the same.
                BrokerError::Store(error) if error.is_shortage() => StatusCode::SERVICE_UNAVAILABLE,
                BrokerError::StillRunning(_)
                | BrokerError::Failed(_)
                | BrokerError::Store(_)
                | BrokerError::Seal(_)
                | BrokerError::BackupStore(_)
                | BrokerError::Clusters(_)
                | BrokerError::Logs(_)
                | BrokerError::Unreadable(_) => StatusCode::INTERNAL_SERVER_ERROR,
            },
        }
    }

    /// Failures of ours are logged here, where they end, and nowhere else.
    pub(super) fn respond(&self, body: &impl Serialize) -> HttpResponse {
        self.log();
        let mut response = HttpResponse::build(self.status()).json(body);
        self.annotate(&mut response);
        response
    }

    /// What stands beside every body: how to come again, and the reason for our log.
    pub(super) fn annotate(&self, response: &mut HttpResponse) {
        self.say_how(response);
        if self.status().is_client_error() {
            let refusal = Refusal(self.to_string());
            response.extensions_mut().insert(refusal);
        }
    }

    /// Tells when to come again, or in what form, where that is known.
    fn say_how(&self, response: &mut HttpResponse) {
        if let Self::TooMany(wait)
        | Self::Broker(BrokerError::TooSoon(wait) | BrokerError::Throttled(wait)) = self
        {
            let wait = header::HeaderValue::from(wait.as_secs());
            response.headers_mut().insert(header::RETRY_AFTER, wait);
        }
        if self.status() == StatusCode::SERVICE_UNAVAILABLE {
            let wait = header::HeaderValue::from(RETRY_AFTER_SECONDS);
            response.headers_mut().insert(header::RETRY_AFTER, wait);
        }
        if let Self::NoSuchRange(length) = self
            && let Ok(length) = format!("bytes */{length}").parse()
        {
            response.headers_mut().insert(header::CONTENT_RANGE, length);
        }
        if let Self::Compressed = self {
            // What would be read (RFC 7694).
            let plain = header::HeaderValue::from_static("identity");
            response
                .headers_mut()
                .insert(header::ACCEPT_ENCODING, plain);
        }
    }

    /// Logs a failure of ours, where it ends.
    pub(super) fn log(&self) {
        let status = self.status();
        if status.is_server_error() {
            log::error!(status = status.as_u16(); "a request failed: {}", chain(self));
        }
    }
}
