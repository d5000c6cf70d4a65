//! Errors of the operator's API. They have OSB's form: both APIs have the same clients and the same
//! credentials.

use actix_web::{HttpResponse, ResponseError, http::StatusCode};

use crate::{
    broker::BrokerError,
    http::{error::HttpError, osb},
};

/// An error of the operator's API.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct OperatorError(#[from] pub HttpError);

impl From<BrokerError> for OperatorError {
    fn from(error: BrokerError) -> Self {
        Self(error.into())
    }
}

impl ResponseError for OperatorError {
    fn status_code(&self) -> StatusCode {
        self.0.status()
    }

    fn error_response(&self) -> HttpResponse {
        osb::error::response(&self.0)
    }
}
