//! One log record for each request, and the platform's request identity on each answer.
//!
//! Neither bodies nor queries nor credentials are logged: parameters and links are secrets.

use std::time::Instant;

use actix_web::{
    Error,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::header::{HeaderMap, HeaderName, HeaderValue},
    middleware::Next,
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::Value;

/// Chosen by the platform for each request, and given back (OSB v2.15).
const REQUEST_IDENTITY: HeaderName = HeaderName::from_static("x-broker-api-request-identity");
/// Who is behind the request, as the platform says.
const ORIGINATING_IDENTITY: &str = "x-broker-api-originating-identity";
/// Cloud Foundry's router's name of the request.
const VCAP_REQUEST_ID: &str = "x-vcap-request-id";

/// Handles a request, tells of it, and marks the answer.
pub async fn trace(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let began = Instant::now();
    let method = request.method().clone();
    let path = request.path().to_owned();
    let identity = request.headers().get(&REQUEST_IDENTITY).cloned();
    let vcap = text(request.headers().get(VCAP_REQUEST_ID));
    let user = originating_user(request.headers());
    let mut response = next.call(request).await?;
    let request_id = identity
        .as_ref()
        .map_or(vcap, |identity| text(Some(identity)));
    // Platforms poll: what changes nothing is told only on demand.
    let level = if method.is_safe() {
        log::Level::Debug
    } else {
        log::Level::Info
    };
    log::log!(
        level,
        method:% = method, path, status = response.status().as_u16(),
        micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
        request = request_id, user;
        "request"
    );
    if let Some(identity) = identity {
        response.headers_mut().insert(REQUEST_IDENTITY, identity);
    }
    Ok(response)
}

fn text(value: Option<&HeaderValue>) -> String {
    value
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default()
        .to_owned()
}

/// The platform and user behind a request: `cloudfoundry 683ea748-...`. A header that cannot be
/// read is taken for absent; nothing depends on it.
fn originating_user(headers: &HeaderMap) -> String {
    let parse = || {
        let (platform, value) = headers
            .get(ORIGINATING_IDENTITY)?
            .to_str()
            .ok()?
            .split_once(' ')?;
        let value: Value = serde_json::from_slice(&BASE64.decode(value.trim()).ok()?).ok()?;
        let user = ["user_id", "username", "user"]
            .iter()
            .find_map(|k| value.get(k)?.as_str())?;
        Some(format!("{platform} {}", user.escape_debug()))
    };
    parse().unwrap_or_default()
}
