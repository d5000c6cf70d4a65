//! Errors as pages of the dashboard.

use actix_web::{HttpResponse, ResponseError, http::StatusCode};

use super::shell::error_page;
use crate::{
    broker::{self, BrokerError},
    http::error::HttpError,
};

/// An error, told as a page of the dashboard.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct PageError(#[from] pub HttpError);

impl From<BrokerError> for PageError {
    fn from(error: BrokerError) -> Self {
        Self(error.into())
    }
}

impl ResponseError for PageError {
    fn status_code(&self) -> StatusCode {
        match self.0.status() {
            // What OSB calls unprocessable is, to people, something that is in the way.
            StatusCode::UNPROCESSABLE_ENTITY => StatusCode::CONFLICT,
            status => status,
        }
    }

    fn error_response(&self) -> HttpResponse {
        self.0.log();
        self.with_page(|status| error_page(status, &self.0.to_string()))
    }
}

impl PageError {
    /// The answer with a page that knows more than the error.
    pub fn with_page(&self, page: impl FnOnce(StatusCode) -> HttpResponse) -> HttpResponse {
        let mut response = page(self.status_code());
        self.0.annotate(&mut response);
        response
    }
}

/// A page of the dashboard that is not there.
pub async fn no_such_page() -> Result<HttpResponse, PageError> {
    Err(broker::no_such_page().into())
}

/// A method that a page of the dashboard does not have.
pub async fn no_such_page_method() -> HttpResponse {
    error_page(
        StatusCode::METHOD_NOT_ALLOWED,
        "This page cannot be asked for in this way.",
    )
}
