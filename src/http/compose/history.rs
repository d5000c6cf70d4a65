//! How a database was over time, for clients.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Answer, deployment_in_path, view::Embedded};
use crate::{
    http::{
        Api,
        openapi::scalars::{Time, time},
    },
    model::history::Reading,
};

/// What was seen of a database over time.
#[derive(Serialize, ToSchema)]
pub struct Readings {
    /// The readings, the newest in front: each stands for a quarter of an hour, those of more than a day ago
    /// for three hours.
    readings: Vec<ReadingBody>,
}

/// What was seen of a database within a stretch of time.
#[derive(Serialize, ToSchema)]
#[schema(as = Reading)]
struct ReadingBody {
    /// When the stretch began.
    #[schema(value_type = Time)]
    at: String,
    /// The largest size of the database file; `null` where no member told.
    #[schema(required)]
    allocated_bytes: Option<u64>,
    /// The most of it that held something; `null` where no member told.
    #[schema(required)]
    used_bytes: Option<u64>,
    /// What the file may have.
    quota_bytes: u64,
    /// How many members it has.
    members: usize,
    /// How many served, when the fewest did; `null` where nobody could look.
    #[schema(required)]
    members_serving: Option<usize>,
    /// Whether it could be used whenever it was looked at; `null` where nobody could look.
    #[schema(required)]
    usable: Option<bool>,
}

impl From<&Reading> for ReadingBody {
    fn from(of: &Reading) -> Self {
        Self {
            at: time(of.at),
            allocated_bytes: of.allocated,
            used_bytes: of.used,
            quota_bytes: of.quota,
            members: of.members,
            members_serving: of.serving,
            usable: of.usable,
        }
    }
}

/// Tells how large a database was over the last 30 days, and how many of its members served.
#[utoipa::path(
    get, path = "/api/2016-07/instances/{instance}/deployments/{deployment}/history", operation_id = "history",
    responses(
        (status = 200, description = "The readings", body = Embedded<Readings>),
        (status = 404, description = "There is no such deployment, or none that the token leads to"),
    )
)]
pub async fn history(api: web::Data<Api>, request: HttpRequest) -> Answer {
    let of = deployment_in_path(&api, &request).await?;
    let history = api.broker.histories.of(&of).await?;
    let readings = history.readings().iter().rev().map(ReadingBody::from);
    let readings = readings.collect();
    Ok(HttpResponse::Ok().json(Embedded::new(Readings { readings })))
}
