//! New instances from backups, and what they would be.

use std::str::FromStr;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Answer, deployment_in_path,
    id::known,
    view::{self, RestoreEstimateBody},
};
use crate::{
    broker::{BACKUP_PRIVATE_KEY, PrivateKey, RestorePreflight, RestoreRequest},
    http::{
        Api,
        error::HttpError,
        id::{PathId, PathIds},
        openapi::{
            requests,
            scalars::{DatabaseVersion, OwnId, Time, time},
        },
        request::Body,
    },
    model::{
        choice::{BackupChoice, LATEST},
        ids::{BackupId, IdError, InstanceId},
        origin::Origin,
        secret::Secret,
        version::Version,
    },
};

/// What a restore would do.
#[derive(Serialize, ToSchema)]
#[schema(as = RestorePreflight)]
pub struct RestorePreflightBody {
    /// Whether it would be done now.
    possible: bool,
    /// The backup that would be taken.
    #[schema(required, value_type = Option<OwnId>)]
    backup_id: Option<BackupId>,
    /// When that was begun.
    #[schema(required, value_type = Option<Time>)]
    taken_at: Option<String>,
    /// Its kind.
    #[schema(required)]
    backup_type: Option<&'static str>,
    /// The bytes that would be restored.
    #[schema(required)]
    size_bytes: Option<u64>,
    /// The version that it was taken of.
    #[schema(required, value_type = Option<DatabaseVersion>)]
    from_version: Option<Version>,
    /// The version that the new database would have.
    #[schema(required, value_type = Option<DatabaseVersion>)]
    to_version: Option<Version>,
    /// The size that the new instance would have.
    #[schema(required)]
    units: Option<u32>,
    /// The smallest size that holds the backup.
    #[schema(required)]
    units_needed: Option<u32>,
    /// What it would be called.
    #[schema(required)]
    name: Option<String>,
    /// About how long it would take; `null` where no earlier restore tells.
    #[schema(required)]
    restore_estimate: Option<RestoreEstimateBody>,
    /// Why it would not be done now, in sentences; empty when it would.
    reasons: Vec<String>,
}

impl RestorePreflightBody {
    fn of(told: RestorePreflight) -> Self {
        let backup = told.backup.as_ref();
        let lacks_key = told.lacks_key_of.as_ref().map(|key| {
            format!("the backup is sealed for your own key {key}: give the private key to it as {BACKUP_PRIVATE_KEY}")
        });
        let reasons: Vec<String> = told.reasons.into_iter().chain(lacks_key).collect();
        Self {
            possible: reasons.is_empty(),
            backup_id: backup.map(|backup| backup.backup_id.clone()),
            taken_at: backup.map(|backup| time(backup.started_at)),
            backup_type: backup.map(|backup| backup.kind.as_str()),
            size_bytes: backup.map(|backup| backup.stored.snapshot_bytes),
            from_version: backup.map(|backup| backup.version),
            to_version: told.version,
            units: told.units,
            units_needed: backup.map(|backup| backup.units_needed()),
            name: told.name,
            restore_estimate: told.estimate.map(RestoreEstimateBody::from),
            reasons,
        }
    }
}

/// Makes a new instance from a backup: one by its id, or `latest`, the newest complete one, or `latest:daily` and
/// the like, the newest of a kind. Or only tells what that would do.
#[utoipa::path(
    post, path = "/api/2016-07/instances/{instance}/deployments/{deployment}/backups/{backup}/restore",
    operation_id = "restore",
    request_body = Option<requests::RestoreBody>,
    responses(
        (status = 200, description = "With `dry_run`: what would be done", body = RestorePreflightBody),
        (status = 202, description = "The new deployment", body = view::DeploymentBody),
        (status = 404, description = "There is no such backup, or none that the token leads to"),
        (status = 409, description = "Another instance has the name"),
    )
)]
pub async fn restore(api: web::Data<Api>, request: HttpRequest, payload: web::Payload) -> Answer {
    let of = deployment_in_path(&api, &request).await?;
    let backup = backup_in_path(&api, &of.instance.id, &request).await?;
    let body = Body::read_or_nothing(&request, payload).await?;
    let wanted = body.section("deployment")?;
    let restore = RestoreRequest {
        source: of.instance.id,
        backup,
        restore_time: wanted.text("restore_time")?,
        clients_notice: wanted.flag("revision_bump")?,
        name: wanted.text("name")?,
        version: wanted.text("version")?,
        cluster: wanted.text("cluster_id")?,
        units: wanted.count("units")?,
        private_key: private_key(&wanted)?,
        origin: Origin::Compose,
    };
    if wanted.flag("dry_run")? {
        let told = api.broker.restores.rehearse(restore).await?;
        return Ok(HttpResponse::Ok().json(RestorePreflightBody::of(told)));
    }
    let restored = api.broker.restores.restore_here(restore).await?;
    let made = api
        .broker
        .deployments
        .deployment_of(restored.instance.id)
        .await?;
    let health = api.broker.vitals.health(&made).await?;
    Ok(HttpResponse::Accepted().json(view::deployment(&api.broker, &made, health)))
}

/// The private key that a request brings along, for a backup that is sealed for it.
pub(super) fn private_key(wanted: &Body) -> Result<PrivateKey, HttpError> {
    let given = wanted.text(BACKUP_PRIVATE_KEY)?;
    Ok(given.map(Secret::new).into())
}

/// What stands in a path where a backup does, as it is.
struct Word(String);

impl FromStr for Word {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Ok(Self(text.to_owned()))
    }
}

impl PathId for Word {
    const PLACE: &'static str = "backup";

    fn in_path(ids: PathIds) -> Option<String> {
        ids.backup
    }
}

/// The backup in a path, as the parameter of a provision has it. One that is named must be there; what can be no
/// backup is as unknown as any other.
pub(super) async fn backup_in_path(
    api: &Api,
    of: &InstanceId,
    request: &HttpRequest,
) -> Result<String, HttpError> {
    let Word(text) = known(request)?;
    if text.starts_with(LATEST) && BackupChoice::read(Some(&text), None).is_ok() {
        return Ok(text);
    }
    let id = known::<BackupId>(request)?;
    let backup = api.broker.backups.backup(of.clone(), id).await?;
    Ok(backup.id.to_string())
}
