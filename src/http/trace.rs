//! One log record for each request, the platform's request identity on each answer, whether the
//! answer may be kept, and who is behind it for the audit.
//!
//! Neither bodies nor queries nor credentials are logged: parameters and links are secrets. Some
//! platforms throw a refusal's text away, so the log has it too. Texts of ours put what a request
//! holds in quotes, and of what is quoted nothing is logged.

use std::time::Instant;

use actix_web::{
    Error, HttpMessage as _, HttpResponse,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::{
        StatusCode,
        header::{AUTHORIZATION, CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue},
    },
    middleware::Next,
    web,
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::Value;

use super::{Api, error::Refusal, origin::ClientAddress};
use crate::{
    caller::Caller,
    model::{
        limits::{CALLER_NAME_CHARS_MAX, REFUSAL_CHARS_MAX},
        origin::Origin,
    },
};

/// Chosen by the platform for each request, and given back (OSB v2.15).
const REQUEST_IDENTITY: HeaderName = HeaderName::from_static("x-broker-api-request-identity");
/// Who is behind the request, as the platform says.
const ORIGINATING_IDENTITY: &str = "x-broker-api-originating-identity";
/// Cloud Foundry's router's name of the request.
const VCAP_REQUEST_ID: &str = "x-vcap-request-id";
/// Zipkin's name of the chain of requests that this one is part of.
const TRACE_ID: &str = "x-b3-traceid";
/// Where Cloud Foundry's API that the request came from tells of itself.
const API_INFO: &str = "x-api-info-location";

/// Handles a request, tells of it, and marks the answer.
pub async fn trace(
    shared: web::Data<Api>,
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let began = Instant::now();
    let method = request.method().clone();
    let path = request.path().to_owned();
    let client = ClientAddress::find(request.peer_addr(), request.headers(), &shared.proxies);
    let from = client.map_or_else(String::new, |ClientAddress(address)| address.to_string());
    if let Some(client) = client {
        request.extensions_mut().insert(client);
    }
    let identity = request.headers().get(&REQUEST_IDENTITY).cloned();
    let vcap = request.headers().get(VCAP_REQUEST_ID);
    let request_id = text(identity.as_ref().or(vcap));
    let vcap_id = text(vcap);
    let trace = text(request.headers().get(TRACE_ID));
    let api = text(request.headers().get(API_INFO));
    let caller = Caller {
        address: client.map(|ClientAddress(address)| address),
        ..caller(request.headers(), &request_id)
    };
    let user = match (&caller.platform, &caller.user) {
        (Some(platform), Some(user)) => format!("{platform} {user}"),
        _ => String::new(),
    };
    let shows_something = request.headers().contains_key(AUTHORIZATION);
    let mut response = caller.during(next.call(request)).await?;
    let (route, status) = (response.request().match_pattern(), response.status());
    shared
        .metrics
        .request(method.as_str(), route, status.as_u16(), began.elapsed());
    if shows_something && response.status() == StatusCode::UNAUTHORIZED {
        let origin = door_of(&path);
        shared
            .broker
            .audit
            .note_refusal(origin, client.map(|c| c.0))
            .await;
    }
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
        request = request_id, from, vcap = vcap_id, trace, api, user,
        reason = reason(response.response());
        "request"
    );
    let headers = response.headers_mut();
    if let Some(identity) = identity {
        headers.insert(REQUEST_IDENTITY, identity);
    }
    // Answers hold credentials, links and tenants' names. What may be kept says so itself.
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    Ok(response)
}

/// The door that a path is behind, as the audit names it.
fn door_of(path: &str) -> Origin {
    match path.split('/').nth(1) {
        Some("api") => Origin::Compose,
        Some("operator" | "metrics") => Origin::Operator,
        _ => Origin::Osb,
    }
}

/// Why a request was refused; empty where it was not.
fn reason<B>(response: &HttpResponse<B>) -> String {
    let extensions = response.extensions();
    let refusal = extensions.get::<Refusal>();
    refusal.map_or_else(String::new, |Refusal(text)| unquoted(text))
}

/// A text of ours on one line, without what stands in its quotes.
fn unquoted(text: &str) -> String {
    let mut kept = String::new();
    let (mut quoted, mut escaped) = (false, false);
    for c in text.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => {
                kept.push_str(if quoted { "\u{2026}\"" } else { "\"" });
                quoted = !quoted;
            }
            _ if quoted => {}
            c if c.is_control() => kept.extend(c.escape_debug()),
            c => kept.push(c),
        }
    }
    kept.chars().take(REFUSAL_CHARS_MAX).collect()
}

fn text(value: Option<&HeaderValue>) -> String {
    value
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default()
        .to_owned()
}

/// The caller behind a request. A header that cannot be read is taken for absent; nothing depends
/// on it.
fn caller(headers: &HeaderMap, request_id: &str) -> Caller {
    let originating = || {
        let (platform, value) = headers
            .get(ORIGINATING_IDENTITY)?
            .to_str()
            .ok()?
            .split_once(' ')?;
        let value: Value = serde_json::from_slice(&BASE64.decode(value.trim()).ok()?).ok()?;
        let user = ["user_id", "username", "user"]
            .iter()
            .find_map(|k| value.get(k)?.as_str())?;
        Some((name(platform)?, name(user)?))
    };
    let (platform, user) = originating().unzip();
    Caller {
        platform,
        user,
        request_id: name(request_id),
        address: None,
    }
}

/// A name that others chose, fit to be kept and shown.
fn name(text: &str) -> Option<String> {
    let kept: String = text.chars().take(CALLER_NAME_CHARS_MAX).collect();
    Some(kept.escape_debug().to_string()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(identity: &str) -> Caller {
        let mut headers = HeaderMap::new();
        let header = HeaderName::from_static(ORIGINATING_IDENTITY);
        headers.insert(header, HeaderValue::from_str(identity).expect("a header"));
        caller(&headers, "")
    }

    fn encoded(json: &str) -> String {
        BASE64.encode(json)
    }

    #[test]
    fn the_user_is_known_by_each_platform_s_own_word() {
        for (platform, json) in [
            ("cloudfoundry", r#"{"user_id": "ada"}"#),
            (
                "kubernetes",
                r#"{"username": "ada", "uid": "1", "groups": []}"#,
            ),
            ("other", r#"{"user": "ada", "user_id": 5}"#),
        ] {
            let caller = told(&format!("{platform} {}", encoded(json)));
            assert_eq!(caller.platform.as_deref(), Some(platform));
            assert_eq!(caller.user.as_deref(), Some("ada"));
        }
    }

    #[test]
    fn of_a_refusal_nothing_is_kept_that_the_request_held() {
        for (told, kept) in [
            (
                "db_version \"9.9\" is not available",
                "db_version \"\u{2026}\" is not available",
            ),
            ("a \"\\\"b\\\\\" c \"d", "a \"\u{2026}\" c \""),
            ("one\ntwo\u{1b}", "one\\ntwo\\u{1b}"),
            ("plain: 1, 2", "plain: 1, 2"),
        ] {
            assert_eq!(unquoted(told), kept);
        }
        assert_eq!(unquoted(&"x".repeat(2_000)).len(), REFUSAL_CHARS_MAX);
    }

    #[test]
    fn what_cannot_be_read_is_absent_and_what_is_kept_is_short_and_plain() {
        let nobody = encoded(r#"{"email": "a@b"}"#);
        for identity in [
            "",
            "cloudfoundry",
            "cf !!!",
            "cf bm8=",
            &format!("cf {nobody}"),
        ] {
            assert_eq!(told(identity), Caller::default(), "{identity:?}");
        }
        let long = format!(r#"{{"user_id": "\n{}"}}"#, "x".repeat(1000));
        let caller = told(&format!("cf {}", encoded(&long)));
        let user = caller.user.expect("a user");
        assert!(user.starts_with("\\nx") && user.len() < 300, "{user}");
    }
}
