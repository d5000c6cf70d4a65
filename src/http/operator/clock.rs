//! The clock, in an operator's hands.

use actix_web::{HttpRequest, HttpResponse, web};
use chrono::DateTime;
use serde::Serialize;
use utoipa::ToSchema;

use super::Answer;
use crate::{
    broker::ClockState,
    http::{
        Api,
        error::HttpError,
        openapi::{
            requests,
            scalars::{Time, time},
        },
        request::Body,
    },
};

/// How the broker's clock stands.
#[derive(Serialize, ToSchema)]
pub struct Clock {
    /// Whether what cannot be undone goes by it.
    trusted: bool,
    /// What it shows.
    #[schema(value_type = Time)]
    shown: String,
    /// What it should show, by the time that has passed.
    #[schema(value_type = Time)]
    expected: String,
    /// How far it is ahead of that, in seconds; behind, when the number is negative.
    ahead_seconds: i64,
    /// Since when it is not trusted, by the time that has passed.
    #[schema(required, value_type = Option<Time>)]
    doubted_since: Option<String>,
    /// In how many seconds it is trusted if it goes on evenly.
    #[schema(required)]
    trusted_in_seconds: Option<i64>,
}

impl From<ClockState> for Clock {
    fn from(of: ClockState) -> Self {
        let doubt = of.doubt.as_ref();
        Self {
            trusted: doubt.is_none(),
            shown: time(of.shown),
            expected: time(of.expected),
            ahead_seconds: (of.shown - of.expected).num_seconds(),
            doubted_since: doubt.map(|doubt| time(doubt.since)),
            trusted_in_seconds: doubt.map(|doubt| doubt.rest().num_seconds()),
        }
    }
}

/// Tells whether the clock is trusted. While it is not, nothing that depends on time is removed.
#[utoipa::path(
    get, path = "/operator/clock", operation_id = "clock",
    responses((status = 200, description = "How the clock stands", body = Clock))
)]
pub async fn show(api: web::Data<Api>) -> Answer {
    Ok(HttpResponse::Ok().json(Clock::from(api.broker.time.clock_state())))
}

/// Has the clock trusted from now on, if it shows the time that the body names.
#[utoipa::path(
    post, path = "/operator/clock", operation_id = "trust_clock",
    request_body = requests::ClockBody,
    responses(
        (status = 200, description = "The clock is trusted", body = Clock),
        (status = 400, description = "Something in the body is wrong"),
        (status = 408, description = "The body did not come in time"),
        (status = 409, description = "The clock shows another time"),
        (status = 413, description = "The body is larger than it may be"),
    )
)]
pub async fn trust(api: web::Data<Api>, request: HttpRequest, payload: web::Payload) -> Answer {
    let body = Body::read(&request, payload).await?;
    let time = body.required_text("time")?;
    let time = DateTime::parse_from_rfc3339(&time).map_err(|_| {
        HttpError::bad_request("time must be a moment such as 2026-11-27T14:00:00Z")
    })?;
    let standing = api.broker.time.believe_clock(time.to_utc()).await?;
    Ok(HttpResponse::Ok().json(Clock::from(standing)))
}
