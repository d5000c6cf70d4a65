//! The volumes that the broker keeps things on.

use actix_web::{HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::Answer;
use crate::{
    http::Api,
    model::volume::{Content, Volume},
};

/// The volumes of store, members and backups.
#[derive(Serialize, ToSchema)]
pub struct VolumesBody {
    /// Each volume once.
    volumes: Vec<VolumeBody>,
}

/// A volume.
#[derive(Serialize, ToSchema)]
#[schema(as = Volume)]
struct VolumeBody {
    /// What lies on it.
    holds: Vec<String>,
    /// What it has in all, in bytes.
    bytes_total: u64,
    /// What is free, in bytes.
    bytes_free: u64,
    /// `ample`; `low`: make room, or give it more; `full`: nothing begins that needs room there.
    #[schema(pattern = "^(ample|low|full)$")]
    level: &'static str,
}

impl From<Volume> for VolumeBody {
    fn from(of: Volume) -> Self {
        Self {
            holds: of.holds.iter().map(Content::to_string).collect(),
            bytes_total: of.space.total,
            bytes_free: of.space.free,
            level: of.level.as_str(),
        }
    }
}

/// Tells how much room there is, as it was seen some seconds ago.
#[utoipa::path(
    get, path = "/operator/volumes", operation_id = "volumes",
    responses((status = 200, description = "The volumes", body = VolumesBody))
)]
pub async fn list(api: web::Data<Api>) -> Answer {
    let volumes = api
        .broker
        .estates
        .volumes()
        .into_iter()
        .map(VolumeBody::from);
    Ok(HttpResponse::Ok().json(VolumesBody {
        volumes: volumes.collect(),
    }))
}
