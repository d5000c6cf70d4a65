//! Errors as the Compose API tells them: `{"errors": ...}`.

use actix_web::{
    HttpResponse, ResponseError,
    http::{StatusCode, header},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{broker::BrokerError, http::error::HttpError};

/// An error of the Compose API.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ComposeError(#[from] pub HttpError);

/// The body of an error of the Compose API.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Error)]
pub struct ComposeErrorBody {
    /// What is wrong.
    errors: ComposeErrors,
}

/// Most clients read only the form with fields; a token is the one known exception.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum ComposeErrors {
    /// `invalid_token`.
    Code(&'static str),
    /// What is wrong with the request as a whole.
    Fields {
        /// For people.
        base: [String; 1],
    },
}

impl ComposeErrorBody {
    /// A body with one text for people.
    pub(in crate::http) fn new(reason: String) -> Self {
        Self {
            errors: ComposeErrors::Fields { base: [reason] },
        }
    }
}

impl From<BrokerError> for ComposeError {
    fn from(error: BrokerError) -> Self {
        Self(error.into())
    }
}

impl ResponseError for ComposeError {
    fn status_code(&self) -> StatusCode {
        self.0.status()
    }

    fn error_response(&self) -> HttpResponse {
        let body = match &self.0 {
            HttpError::Unauthorized => ComposeErrorBody {
                errors: ComposeErrors::Code("invalid_token"),
            },
            other => ComposeErrorBody::new(other.to_string()),
        };
        let mut response = self.0.respond(&body);
        if matches!(self.0, HttpError::Unauthorized) {
            let challenge = header::HeaderValue::from_static("Bearer realm=\"compose-broker\"");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
