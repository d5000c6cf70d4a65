//! Backups that users bring along.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Answer, deployment_in_path, id::Id, view};
use crate::{
    broker::{DeploymentView, UploadRequest},
    http::{
        Api,
        error::HttpError,
        openapi::{
            requests,
            scalars::{DatabaseVersion, OwnId, Time, time},
        },
        request::{Body, UPLOAD_OFFSET, content, upload_offset},
    },
    model::{
        ids::{BackupId, OperationId},
        origin::Origin,
        upload::Upload,
        version::Version,
    },
};

/// A snapshot that is being brought along.
#[derive(Serialize, ToSchema)]
#[schema(as = Upload)]
pub struct UploadBody {
    /// The backup that it becomes: its own id, too.
    #[schema(value_type = OwnId)]
    id: BackupId,
    /// The length of the whole snapshot, in bytes.
    bytes: u64,
    /// The bytes that have come: go on from there.
    received_bytes: u64,
    /// The SHA-256 that the whole is compared with.
    #[schema(required)]
    sha256: Option<String>,
    /// The version of the database that it was taken of.
    #[schema(value_type = DatabaseVersion)]
    version: Version,
    /// When it is given up, if nothing more comes; `null` once all has come.
    #[schema(required, value_type = Option<Time>)]
    expires_at: Option<String>,
    /// The recipe that makes it a backup; `null` until all has come.
    #[schema(required, value_type = Option<OwnId>)]
    recipe_id: Option<OperationId>,
    /// Where it is.
    #[serde(rename = "_links")]
    links: UploadLinks,
}

/// Where an upload is.
#[derive(Serialize, ToSchema)]
struct UploadLinks {
    /// The upload itself.
    #[serde(rename = "self")]
    this: view::Link,
}

/// What is in the list.
#[derive(Serialize, ToSchema)]
pub struct UploadsBody {
    uploads: Vec<UploadBody>,
}

fn url(api: &Api, of: &DeploymentView, upload: &Upload) -> String {
    let deployment = view::deployment_url(&api.broker.public_url, &of.deployment);
    format!("{deployment}/uploads/{}", upload.backup)
}

fn body(
    api: &Api,
    of: &DeploymentView,
    upload: &Upload,
    recipe: Option<OperationId>,
) -> UploadBody {
    UploadBody {
        id: upload.backup.clone(),
        bytes: upload.bytes,
        received_bytes: upload.received,
        sha256: upload.sha256.clone(),
        version: upload.version,
        expires_at: (!upload.is_whole()).then(|| time(upload.ends_at())),
        recipe_id: recipe,
        links: UploadLinks {
            this: view::Link {
                href: url(api, of, upload),
            },
        },
    }
}

/// Lists the uploads that are not over, the oldest first.
#[utoipa::path(
    get, path = "/api/2016-07/instances/{instance}/deployments/{deployment}/uploads",
    operation_id = "uploads",
    responses(
        (status = 200, description = "The uploads", body = view::Embedded<UploadsBody>),
        (status = 404, description = "There is no such deployment, or none that the token leads to"),
    )
)]
pub async fn uploads(api: web::Data<Api>, request: HttpRequest) -> Answer {
    let of = deployment_in_path(&api, &request).await?;
    let open = api.broker.uploads.open(of.instance.id.clone()).await?;
    let uploads = open
        .into_iter()
        .map(|(upload, recipe)| body(&api, &of, &upload, recipe));
    let uploads = uploads.collect();
    Ok(HttpResponse::Ok().json(view::Embedded::new(UploadsBody { uploads })))
}

/// Begins to bring a snapshot along that was taken elsewhere. The backup that it becomes is listed from here on,
/// as `pending`.
#[utoipa::path(
    post, path = "/api/2016-07/instances/{instance}/deployments/{deployment}/uploads",
    operation_id = "begin_upload",
    request_body = requests::UploadBody,
    responses(
        (status = 201, description = "The upload, which waits for its bytes", body = UploadBody),
        (status = 400, description = "The length or the hash can be none, or the database cannot read backups of that version"),
        (status = 404, description = "There is no such deployment, or none that the token leads to"),
        (status = 422, description = "The instance is not ready, or has as many open uploads as it may"),
    )
)]
pub async fn begin_upload(
    api: web::Data<Api>,
    request: HttpRequest,
    payload: web::Payload,
) -> Answer {
    let of = deployment_in_path(&api, &request).await?;
    let asked = Body::read(&request, payload).await?.section("upload")?;
    let version = asked.optional_text("db_version")?;
    let version = version.map(|text| text.parse::<Version>().map_err(|_| no_version(&text)));
    let wanted = UploadRequest {
        bytes: asked.bytes("bytes")?,
        sha256: asked.optional_text("sha256")?,
        version: version.transpose()?,
        note: asked.text("note")?.unwrap_or_default(),
    };
    let upload = api
        .broker
        .uploads
        .begin(&of, wanted, Origin::Compose)
        .await?;
    Ok(HttpResponse::Created()
        .insert_header((header::LOCATION, url(&api, &of, &upload)))
        .json(body(&api, &of, &upload, None)))
}

fn no_version(text: &str) -> HttpError {
    HttpError::bad_request(format!(
        "db_version {text:?} is no version, such as 3.5.16, with its three numbers"
    ))
}

/// Tells how far an upload is.
#[utoipa::path(
    get, path = "/api/2016-07/instances/{instance}/deployments/{deployment}/uploads/{backup}",
    operation_id = "upload",
    responses(
        (status = 200, description = "The upload", body = UploadBody),
        (status = 404, description = "There is no such upload, or it is over: then the backup tells what came of it"),
    )
)]
pub async fn upload(api: web::Data<Api>, Id(id): Id<BackupId>, request: HttpRequest) -> Answer {
    let of = deployment_in_path(&api, &request).await?;
    let (upload, recipe) = api.broker.uploads.find(of.instance.id.clone(), id).await?;
    Ok(answer(StatusCode::OK, &api, &of, &upload, recipe))
}

fn answer(
    status: StatusCode,
    api: &Api,
    of: &DeploymentView,
    upload: &Upload,
    recipe: Option<OperationId>,
) -> HttpResponse {
    HttpResponse::build(status)
        .insert_header((UPLOAD_OFFSET, upload.received))
        .json(body(api, of, upload, recipe))
}

/// Takes in the next bytes of an upload. What has come before a request breaks off is kept, and asked for by the
/// upload itself: go on from there.
#[utoipa::path(
    patch, path = "/api/2016-07/instances/{instance}/deployments/{deployment}/uploads/{backup}",
    operation_id = "send_upload",
    params(("Upload-Offset" = u64, Header, description = "Where the bytes begin in the snapshot: as many as have come")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "The bytes are stored, and more are waited for", body = UploadBody),
        (status = 202, description = "All has come, and is made a backup by the recipe", body = UploadBody),
        (status = 400, description = "The file is no snapshot, or longer than was told"),
        (status = 404, description = "There is no such upload, or it is over"),
        (status = 409, description = "The bytes are not the next ones: the text says from where to go on"),
    )
)]
pub async fn send_upload(
    api: web::Data<Api>,
    Id(id): Id<BackupId>,
    request: HttpRequest,
    payload: web::Payload,
) -> Answer {
    let of = deployment_in_path(&api, &request).await?;
    let sent = (upload_offset(&request)?, content(&request, payload)?);
    let received = api.broker.uploads.receive(&of, id, sent, Origin::Compose);
    let (upload, recipe) = received.await?;
    let status = match recipe {
        Some(_) => StatusCode::ACCEPTED,
        None => StatusCode::OK,
    };
    Ok(answer(status, &api, &of, &upload, recipe))
}

/// Gives up an upload of which not all has come. Its backup is listed as failed.
#[utoipa::path(
    delete, path = "/api/2016-07/instances/{instance}/deployments/{deployment}/uploads/{backup}",
    operation_id = "give_up_upload",
    responses(
        (status = 200, description = "The backup, which failed: nothing of it is left", body = view::BackupBody),
        (status = 404, description = "There is no such upload, or it is over"),
        (status = 422, description = "All of it has come, and is being made a backup"),
    )
)]
pub async fn give_up_upload(
    api: web::Data<Api>,
    Id(id): Id<BackupId>,
    request: HttpRequest,
) -> Answer {
    let of = deployment_in_path(&api, &request).await?;
    let backup = id.clone();
    api.broker.uploads.give_up(&of, id, Origin::Compose).await?;
    let instance = of.instance.id.clone();
    let backup = api.broker.backups.backup(instance, backup).await?;
    Ok(HttpResponse::Ok().json(view::backup(&api.broker, &of, &backup)))
}
