//! Snapshots that visitors bring along. The page's script sends a file in pieces, each from where the broker says that it
//! has come, so that it goes on where it broke off. Without the script the page tells the client's command.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use askama::Template;
use serde_json::json;

use super::{
    Answer, Api, assets, backups_of, command,
    door::see_other,
    form_of,
    id::Id,
    path_of,
    shell::{Shell, answer},
    show::Moment,
};
use crate::{
    broker::{InstanceView, UploadRequest},
    http::{
        error::HttpError,
        request::{content, upload_offset},
    },
    model::{
        backup::SNAPSHOT_FILE,
        ids::{BackupId, InstanceId, OperationId},
        limits::upload::CLIENT_PIECE_BYTES,
        origin::Origin,
        session::Session,
        size::size,
        upload::Upload,
        version::Version,
    },
};

/// The header with what the page's forms carry, of requests that are no forms.
const TOKEN: &str = "X-CSRF";

#[derive(Template)]
#[template(path = "import.html", whitespace = "minimize")]
struct ImportPage {
    shell: Shell,
    script: &'static str,
    href: String,
    backups: String,
    version: String,
    piece_bytes: u64,
    /// The file to choose in an archive.
    snapshot: &'static str,
    /// What the client does the same with.
    command: String,
    uploads: Vec<Row>,
}

/// An upload that waits for its bytes.
struct Row {
    id: BackupId,
    bytes: u64,
    progress: String,
    ends: Moment,
}

fn href(view: &InstanceView) -> String {
    format!("{}/import", path_of(&view.of.instance.id))
}

/// `GET /dashboard/instances/:iid/import`
pub async fn page(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    Id(id): Id<InstanceId>,
) -> Answer {
    let view = api.broker.views.instance_view(&session, id).await?;
    let open = api.broker.uploads.open(view.of.instance.id.clone()).await?;
    let waiting = open.into_iter().filter(|(upload, _)| !upload.is_whole());
    let row = |(upload, _): (Upload, _)| Row {
        progress: format!("{} of {}", size(upload.received), size(upload.bytes)),
        ends: Moment::new(upload.ends_at(), view.now),
        bytes: upload.bytes,
        id: upload.backup,
    };
    let page = ImportPage {
        shell: Shell {
            here: "backups",
            ..Shell::of_instance("Import into", &view, &api.broker, &session)
        },
        script: assets::paths().import,
        href: href(&view),
        backups: backups_of(&view.of.instance.id),
        version: view.of.deployment.version.to_string(),
        piece_bytes: CLIENT_PIECE_BYTES,
        snapshot: SNAPSHOT_FILE,
        command: command::line(&["compose-broker", "import-backup", view.name(), "FILE"]),
        uploads: waiting.map(row).collect(),
    };
    Ok(answer(StatusCode::OK, &page))
}

/// `POST /dashboard/instances/:iid/import`
pub async fn begin(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    Id(id): Id<InstanceId>,
    payload: web::Payload,
) -> Answer {
    let form = form_of(&api, &session, payload).await?;
    let view = api.broker.views.instance_view(&session, id).await?;
    let no_file = || HttpError::bad_request("choose a file");
    let version: Result<Version, _> = form.text("version").parse();
    let version = version.map_err(|error| {
        HttpError::bad_request(format!("{:?} is no version: {error}", form.text("version")))
    });
    let wanted = UploadRequest {
        bytes: form.text("bytes").parse().map_err(|_| no_file())?,
        sha256: None,
        version: Some(version?),
        note: form.text("note").to_owned(),
    };
    let uploads = &api.broker.uploads;
    let upload = uploads.begin(&view.of, wanted, Origin::Dashboard).await?;
    Ok(progress(&view, (upload, None)))
}

/// `GET /dashboard/instances/:iid/import/:bid`
pub async fn look(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    Id(instance): Id<InstanceId>,
    Id(upload): Id<BackupId>,
) -> Answer {
    let view = api.broker.views.instance_view(&session, instance).await?;
    let of = view.of.instance.id.clone();
    let found = api.broker.uploads.find(of, upload).await?;
    Ok(progress(&view, found))
}

/// `PATCH /dashboard/instances/:iid/import/:bid`
pub async fn send(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    Id(instance): Id<InstanceId>,
    Id(upload): Id<BackupId>,
    request: HttpRequest,
    payload: web::Payload,
) -> Answer {
    let token = request.headers().get(TOKEN);
    let token = token.and_then(|token| token.to_str().ok());
    let sessions = &api.broker.sessions;
    sessions.check_form_token(&session, token.unwrap_or_default())?;
    let view = api.broker.views.instance_view(&session, instance).await?;
    let (from, bytes) = (upload_offset(&request)?, content(&request, payload)?);
    let uploads = &api.broker.uploads;
    let origin = Origin::Dashboard;
    let received = uploads.receive(&view.of, upload, (from, bytes), origin);
    Ok(progress(&view, received.await?))
}

/// `POST /dashboard/instances/:iid/import/:bid/end`
pub async fn give_up(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    Id(instance): Id<InstanceId>,
    Id(upload): Id<BackupId>,
    payload: web::Payload,
) -> Answer {
    form_of(&api, &session, payload).await?;
    let view = api.broker.views.instance_view(&session, instance).await?;
    let uploads = &api.broker.uploads;
    uploads.give_up(&view.of, upload, Origin::Dashboard).await?;
    Ok(see_other(&href(&view)))
}

/// How far an upload is, for the page's script; `backup`: where it is told of, once all has come.
fn progress(view: &InstanceView, (upload, import): (Upload, Option<OperationId>)) -> HttpResponse {
    let backups = backups_of(&view.of.instance.id);
    let backup = import.map(|_| format!("{backups}#backup-{}", upload.backup));
    HttpResponse::Ok().json(json!({
        "id": upload.backup,
        "received": upload.received,
        "backup": backup,
    }))
}
