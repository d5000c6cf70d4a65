//! The only map from errors to status codes and bodies, in the two dialects spoken here.

use std::time::Duration;

use actix_web::{
    HttpRequest, HttpResponse, ResponseError,
    http::{StatusCode, header},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{dashboard::error_page, openapi};
use crate::{broker::BrokerError, model::failure::chain};

/// An error, told as OSB wants it: `{"error": ..., "description": ...}`.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct OsbError(#[from] pub HttpError);

/// An error, told as the Compose API does: `{"errors": ...}`.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ComposeError(#[from] pub HttpError);

/// An error, told as a page of the dashboard.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct PageError(#[from] pub HttpError);

/// Why a request was refused, in the answer's own words; beside the answer, for the log.
#[derive(Debug, Clone)]
pub struct Refusal(pub String);

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
    fn new(description: String) -> Self {
        Self {
            description,
            error: None,
            instance_usable: None,
            update_repeatable: None,
        }
    }
}

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
    fn new(reason: String) -> Self {
        Self {
            errors: ComposeErrors::Fields { base: [reason] },
        }
    }
}

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

impl From<BrokerError> for OsbError {
    fn from(error: BrokerError) -> Self {
        Self(error.into())
    }
}

impl From<BrokerError> for ComposeError {
    fn from(error: BrokerError) -> Self {
        Self(error.into())
    }
}

impl From<BrokerError> for PageError {
    fn from(error: BrokerError) -> Self {
        Self(error.into())
    }
}

impl HttpError {
    /// A request that cannot be understood.
    pub fn bad_request(reason: impl Into<String>) -> Self {
        Self::Broker(BrokerError::BadRequest(reason.into()))
    }

    fn status(&self) -> StatusCode {
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
                BrokerError::StillRunning(_)
                | BrokerError::Failed(_)
                | BrokerError::Store(_)
                | BrokerError::StoreFull(_)
                | BrokerError::Seal(_)
                | BrokerError::BackupStore(_)
                | BrokerError::Clusters(_)
                | BrokerError::Logs(_)
                | BrokerError::Unreadable(_) => StatusCode::INTERNAL_SERVER_ERROR,
            },
        }
    }

    /// OSB's error code, where the specification has one.
    fn osb_code(&self) -> Option<&'static str> {
        match self {
            Self::Broker(BrokerError::AsyncRequired) => Some("AsyncRequired"),
            Self::Broker(BrokerError::Concurrency(_)) => Some("ConcurrencyError"),
            Self::Broker(BrokerError::MaintenanceInfoConflict(_)) => {
                Some("MaintenanceInfoConflict")
            }
            _ => None,
        }
    }

    /// Failures of ours are logged here, where they end, and nowhere else.
    fn respond(&self, body: &impl Serialize) -> HttpResponse {
        self.log();
        let mut response = HttpResponse::build(self.status()).json(body);
        self.annotate(&mut response);
        response
    }

    /// What stands beside every body: how to come again, and the reason for our log.
    fn annotate(&self, response: &mut HttpResponse) {
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

    fn log(&self) {
        let status = self.status();
        if status.is_server_error() {
            log::error!(status = status.as_u16(); "a request failed: {}", chain(self));
        }
    }
}

impl ResponseError for OsbError {
    fn status_code(&self) -> StatusCode {
        self.0.status()
    }

    fn error_response(&self) -> HttpResponse {
        let mut body = OsbErrorBody::new(self.0.to_string());
        body.error = self.0.osb_code();
        if let HttpError::Broker(BrokerError::UpdateRefused { repeatable, .. }) = &self.0 {
            body.instance_usable = Some(true);
            body.update_repeatable = Some(*repeatable);
        }
        let mut response = self.0.respond(&body);
        if matches!(self.0, HttpError::Unauthorized) {
            let challenge = header::HeaderValue::from_static("Basic realm=\"compose-broker\"");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
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
    Err(crate::broker::no_such_page().into())
}

/// A method that a page of the dashboard does not have.
pub async fn no_such_page_method() -> HttpResponse {
    error_page(
        StatusCode::METHOD_NOT_ALLOWED,
        "This page cannot be asked for in this way.",
    )
}

/// A path that leads nowhere.
pub async fn no_such_route(request: HttpRequest) -> HttpResponse {
    plain(
        &request,
        StatusCode::NOT_FOUND,
        "there is nothing at this path",
    )
}

/// A method that a path does not have.
pub async fn no_such_method(request: HttpRequest) -> HttpResponse {
    let mut response = plain(
        &request,
        StatusCode::METHOD_NOT_ALLOWED,
        "this path does not have this method",
    );
    let route = request.match_pattern();
    if let Some(methods) = route.and_then(|route| openapi::methods_of(&route)) {
        let methods = header::HeaderValue::from_static(methods);
        response.headers_mut().insert(header::ALLOW, methods);
    }
    response
}

fn plain(request: &HttpRequest, status: StatusCode, reason: &str) -> HttpResponse {
    let mut response = HttpResponse::build(status);
    let mut response = if request.path().starts_with("/api/") {
        response.json(ComposeErrorBody::new(reason.to_owned()))
    } else {
        response.json(OsbErrorBody::new(reason.to_owned()))
    };
    response.extensions_mut().insert(Refusal(reason.to_owned()));
    response
}
