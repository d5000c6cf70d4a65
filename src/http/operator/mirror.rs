//! The mirror of backups.

use actix_web::{HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::Answer;
use crate::{
    broker::{BrokerError, MirrorView},
    http::{
        Api,
        openapi::scalars::{OwnId, PlatformId, Time, time},
    },
    model::{
        ids::{BackupId, InstanceId},
        mirror::LateCopy,
    },
};

/// The mirror: how much of the backups it has, and what is wrong with it.
#[derive(Serialize, ToSchema)]
#[schema(as = Mirror)]
pub struct MirrorBody {
    /// Since when there is one.
    #[schema(value_type = Time)]
    since: String,
    /// Backups that have a copy there.
    copied: u64,
    /// Complete backups that have none yet.
    waiting: u64,
    /// Those of them that wait for more than 6 hours.
    late: u64,
    /// When the first of those that wait was complete.
    #[schema(required, value_type = Option<Time>)]
    oldest_waiting_at: Option<String>,
    /// What was wrong when it was used last; `null`: nothing.
    #[schema(required)]
    failure: Option<String>,
    /// When that was.
    #[schema(required, value_type = Option<Time>)]
    failed_at: Option<String>,
    /// The late ones, the first one in front, at most 50.
    late_backups: Vec<LateCopyBody>,
}

/// A backup that should have been copied long ago.
#[derive(Serialize, ToSchema)]
#[schema(as = LateCopy)]
struct LateCopyBody {
    /// The backup.
    #[schema(value_type = OwnId)]
    backup_id: BackupId,
    /// The instance that it was taken of.
    #[schema(value_type = PlatformId)]
    instance_id: InstanceId,
    /// When it was complete.
    #[schema(value_type = Time)]
    complete_at: String,
    /// Why it could not be copied the last time; `null`: it was not tried by itself.
    #[schema(required)]
    failure: Option<String>,
}

impl From<LateCopy> for LateCopyBody {
    fn from(of: LateCopy) -> Self {
        Self {
            backup_id: of.backup,
            instance_id: of.instance,
            complete_at: time(of.complete_at),
            failure: of.failure,
        }
    }
}

impl From<MirrorView> for MirrorBody {
    fn from(of: MirrorView) -> Self {
        let (failure, failed_at) = of.state.failure.unzip();
        Self {
            since: time(of.state.since),
            copied: of.seen.copied,
            waiting: of.seen.waiting,
            late: of.seen.late,
            oldest_waiting_at: of.seen.oldest.map(time),
            failure,
            failed_at: failed_at.map(time),
            late_backups: of.late.into_iter().map(LateCopyBody::from).collect(),
        }
    }
}

/// Tells how much of the backups the mirror has.
#[utoipa::path(
    get, path = "/operator/mirror", operation_id = "mirror",
    responses(
        (status = 200, description = "The mirror", body = MirrorBody),
        (status = 404, description = "The settings name no mirror"),
    )
)]
pub async fn show(api: web::Data<Api>) -> Answer {
    let view = api.broker.mirrors.view().await?;
    let view = view.ok_or_else(|| {
        BrokerError::NotFound(
            "there is no mirror: COMPOSE_BROKER_BACKUP_MIRROR is not set".to_owned(),
        )
    })?;
    Ok(HttpResponse::Ok().json(MirrorBody::from(view)))
}
