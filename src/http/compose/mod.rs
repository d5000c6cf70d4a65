//! The Compose 2016-07 API, below an instance: one function for each endpoint.
//!
//! A token is good for one instance and what the broker itself restored from it. Every other
//! instance, known or not, is answered alike. The broker's own credentials are good for every
//! instance: a database that is down gives no new token, and its backups are wanted then. Credentials
//! that only read are good for what the pages show them of every instance (`readers.rs`).

use actix_web::{
    Error, HttpMessage as _, HttpRequest, HttpResponse, ResponseError as _,
    body::{EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{StatusCode, header},
    middleware::Next,
    web,
};

use serde_json::Value;

use super::{
    Api,
    error::HttpError,
    openapi::requests,
    origin::Client,
    request::{Body, Right, bearer, query, right_of, shown_credentials, shows_basic, wanted_range},
};
use crate::{
    broker::{BackupChange, Broker, BrokerError, DeploymentView, DownloadLink, KeptNow, read_only},
    caller::Caller,
    model::{
        backup::Backup,
        deployment::Deployment,
        holder::Holder,
        ids::{BackupId, BindingId, DeploymentId, InstanceId},
        origin::Origin,
    },
    seal::fingerprint,
};

mod accounts;
mod alerts;
mod change;
mod clusters;
mod databases;
mod deployments;
pub mod document;
pub mod error;
mod history;
mod id;
mod logfiles;
mod members;
mod prefix;
mod provenance;
mod readers;
mod restore;
mod schedule;
mod upload;
mod view;

pub use accounts::{accounts, user};
pub use alerts::alerts;
pub use change::{defragment, defragmentation, relieve, scale, scalings, upgrade, versions};
pub use clusters::{cluster, clusters, datacenters};
pub use databases::databases;
pub use deployments::{annotate, deployments};
use error::ComposeError;
pub use history::history;
use id::{Id, LinkIds, RecipeId, known};
pub use logfiles::{download_log, log_link, logfile, logfiles};
pub use members::members;
pub use prefix::restore_prefix;
pub use restore::restore;
pub use schedule::{backup_schedule, change_backup_schedule};
pub use upload::{begin_upload, give_up_upload, send_upload, upload, uploads};
use view::{BackupList, Backups, DownloadableBackupBody, Embedded, InstanceBody, Recipes};

type Answer = Result<HttpResponse, ComposeError>;

/// Who was let in.
#[derive(Debug, Clone)]
pub enum Admitted {
    /// The holder of the token of an instance's binding.
    Binding(InstanceId, BindingId),
    /// The platform, with the broker's own credentials.
    Platform,
    /// Somebody whose credentials only read, to what is for them.
    Reader,
}

/// Lets a request in when its token is good for the instance in its path, or when it has the broker's own
/// credentials; those that only read let in to what is for them.
pub async fn guard<B: MessageBody + 'static>(
    api: web::Data<Api>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    match check_token(&api, &request).await {
        Ok(admitted) => {
            let caller = match &admitted {
                Admitted::Binding(_, binding) => Caller {
                    platform: Some("compose".to_owned()),
                    user: Some(format!("binding {binding}")),
                    ..Caller::current()
                },
                Admitted::Platform => Caller::current().or_operator(),
                Admitted::Reader => Caller::current(),
            };
            if let Some(holder) = holder_of(&api, &request, &admitted) {
                request.extensions_mut().insert(holder);
            }
            request.extensions_mut().insert(admitted);
            let response = caller.during(next.call(request)).await?;
            Ok(response.map_into_left_body())
        }
        Err(error) => {
            let response = ComposeError(error).error_response();
            Ok(request.into_response(response).map_into_right_body())
        }
    }
}

async fn check_token(api: &Api, request: &ServiceRequest) -> Result<Admitted, HttpError> {
    let asked = known::<InstanceId>(request.request());
    let cluster = asked
        .as_ref()
        .ok()
        .and_then(|id| api.broker.inventory.cluster_of(id));
    if shows_basic(request.headers()) {
        let admitted = match right_of(request.request(), api)? {
            Right::Change => Admitted::Platform,
            Right::Read if readers::may_read(request.request()) => Admitted::Reader,
            Right::Read => return Err(read_only().into()),
        };
        let asked = asked?;
        if cluster.is_none() && !api.broker.deployments.has_instance(asked).await? {
            return Err(no_such_instance());
        }
        return Ok(admitted);
    }
    // A wrong token is counted nowhere: none can be guessed, and applications go on to show theirs
    // after its end.
    let token = bearer(request.headers())
        .ok_or(HttpError::Unauthorized)?
        .to_owned();
    let (granted, binding) = api
        .broker
        .tokens
        .holder(&token)
        .await?
        .ok_or(HttpError::Unauthorized)?;
    if let Some(rates) = &api.rates {
        rates.count(Client::Instance(granted.clone()))?;
    }
    let asked = asked?;
    let may = match cluster {
        Some(cluster) => {
            api.broker
                .clusters
                .runs_on(granted.clone(), cluster)
                .await?
        }
        None => api.broker.tokens.reaches(granted.clone(), asked).await?,
    };
    if may {
        Ok(Admitted::Binding(granted, binding))
    } else {
        Err(no_such_instance())
    }
}

fn no_such_instance() -> HttpError {
    BrokerError::NotFound("there is no such instance".to_owned()).into()
}

/// What the links stand on that this request asks for.
fn holder_of(api: &Api, request: &ServiceRequest, admitted: &Admitted) -> Option<Holder> {
    match admitted {
        Admitted::Binding(..) => {
            let token = bearer(request.headers())?;
            Some(Holder::Token(fingerprint(token)))
        }
        Admitted::Platform => {
            let shown = shown_credentials(request.headers())?;
            api.broker.sessions.operator(shown.expose())
        }
        // No link is for them.
        Admitted::Reader => None,
    }
}

/// Who asks, as the links carry it that are made for them.
fn holder(request: &HttpRequest) -> Result<Holder, HttpError> {
    let holder = request.extensions().get().cloned();
    holder.ok_or(HttpError::Unauthorized)
}

/// The path's deployment, when it is among those that the path's instance lists.
async fn deployment_in_path(api: &Api, request: &HttpRequest) -> Result<DeploymentView, HttpError> {
    let (instance, id) = (known(request)?, known::<DeploymentId>(request)?);
    Ok(api.broker.deployments.deployment(instance, &id).await?)
}

/// Tells what an instance's id stands for.
#[utoipa::path(
    get, path = "/api/2016-07/instances/{instance}",
    operation_id = "instance",
    responses(
        (status = 200, description = "The instance, or the cluster's own one", body = InstanceBody),
        (status = 404, description = "There is no such instance, or none that the token leads to"),
    )
)]
pub async fn instance(api: web::Data<Api>, Id(id): Id<InstanceId>) -> Answer {
    if let Some(cluster) = api.broker.inventory.cluster_of(&id) {
        return Ok(HttpResponse::Ok().json(InstanceBody {
            id,
            resource_type: "cluster",
            resource_id: cluster.id.clone(),
            cluster_id: Some(cluster.id.clone()),
        }));
    }
    let view = api.broker.deployments.deployment_of(id).await?;
    Ok(HttpResponse::Ok().json(InstanceBody {
        id: view.instance.id,
        resource_type: "deployment",
        resource_id: view.deployment.id.to_string(),
        cluster_id: None,
    }))
}

/// Fetches a deployment.
#[utoipa::path(
    get, path = "/api/2016-07/instances/{instance}/deployments/{deployment}",
    operation_id = "deployment",
    responses(
        (status = 200, description = "The deployment", body = view::DeploymentBody),
        (status = 404, description = "There is no such deployment, or none that the token leads to"),
    )
)]
pub async fn deployment(api: web::Data<Api>, request: HttpRequest) -> Answer {
    let view = deployment_in_path(&api, &request).await?;
    let health = api.broker.vitals.health(&view).await?;
    Ok(HttpResponse::Ok().json(view::deployment(&api.broker, &view, health)))
}

/// Lists backups, newest first.
#[utoipa::path(
    get, path = "/api/2016-07/instances/{instance}/deployments/{deployment}/backups",
    operation_id = "backups",
    responses(
        (status = 200, description = "The backups, and how many are kept", body = BackupList),
        (status = 404, description = "There is no such deployment, or none that the token leads to"),
    )
)]
pub async fn backups(api: web::Data<Api>, request: HttpRequest) -> Answer {
    let of = deployment_in_path(&api, &request).await?;
    let backups = api.broker.backups.backups(of.instance.id.clone()).await?;
    let now = KeptNow::of(&backups, api.broker.inventory.kept(&of.instance));
    let backups = backups
        .iter()
        .map(|b| view::backup(&api.broker, &of, b))
        .collect();
    Ok(HttpResponse::Ok().json(BackupList {
        embedded: Backups { backups },
        retention: now.into(),
    }))
}

/// Writes a note beside a backup, and whether it is kept beyond its time.
#[utoipa::path(
    patch, path = "/api/2016-07/instances/{instance}/deployments/{deployment}/backups/{backup}",
    operation_id = "change_backup",
    request_body = requests::ChangeBackupBody,
    responses(
        (status = 200, description = "The backup", body = view::BackupBody),
        (status = 404, description = "There is no such backup, or none that the token leads to"),
        (status = 422, description = "It is not complete, or as many are kept as the plan lets one keep"),
    )
)]
pub async fn change_backup(
    api: web::Data<Api>,
    Id(id): Id<BackupId>,
    request: HttpRequest,
    payload: web::Payload,
) -> Answer {
    let of = deployment_in_path(&api, &request).await?;
    let wanted = Body::read(&request, payload).await?.object("backup")?;
    let field = |name| wanted.as_ref().and_then(|wanted| wanted.get(name));
    let change = BackupChange {
        note: match field("note") {
            None | Some(Value::Null) => None,
            Some(Value::String(note)) => Some(note.clone()),
            Some(_) => return Err(HttpError::bad_request("backup.note is not a string").into()),
        },
        pinned: match field("pinned") {
            None | Some(Value::Null) => None,
            Some(Value::Bool(pinned)) => Some(*pinned),
            Some(_) => {
                let reason = "backup.pinned is not true or false";
                return Err(HttpError::bad_request(reason).into());
            }
        },
    };
    let changed = api
        .broker
        .pins
        .change(of.instance.id.clone(), id, change, Origin::Compose)
        .await?;
    let body = view::backup(&api.broker, &of, &changed);
    Ok(HttpResponse::Ok().json(body))
}

/// Takes a backup. While one is being taken, the answer is its recipe.
#[utoipa::path(
    post, path = "/api/2016-07/instances/{instance}/deployments/{deployment}/backups",
    operation_id = "back_up",
    responses(
        (status = 202, description = "Accepted", body = view::RecipeBody),
        (status = 404, description = "There is no such deployment, or none that the token leads to"),
        (status = 422, description = "The instance is not ready"),
        (status = 429, description = "The last backup was asked for not long ago"),
    )
)]
pub async fn back_up(api: web::Data<Api>, request: HttpRequest) -> Answer {
    let of = deployment_in_path(&api, &request).await?;
    let operation = api
        .broker
        .backups
        .back_up(of.instance.id.clone(), Origin::Compose)
        .await?;
    let task = api.broker.deployments.task(operation).await?;
    Ok(HttpResponse::Accepted().json(view::recipe(&of, &task, api.broker.clock.now())))
}

/// Fetches a backup, with a link to its bytes.
#[utoipa::path(
    get, path = "/api/2016-07/instances/{instance}/deployments/{deployment}/backups/{backup}",
    operation_id = "backup",
    responses(
        (status = 200, description = "The backup", body = DownloadableBackupBody),
        (status = 404, description = "There is no such backup, or none that the token leads to"),
    )
)]
pub async fn backup(api: web::Data<Api>, Id(id): Id<BackupId>, request: HttpRequest) -> Answer {
    let of = deployment_in_path(&api, &request).await?;
    let backup = api
        .broker
        .backups
        .backup(of.instance.id.clone(), id)
        .await?;
    let length = api.broker.archives.length_in_advance(&backup);
    let estimate = api.broker.restores.estimate(&backup).await?;
    Ok(HttpResponse::Ok().json(DownloadableBackupBody {
        archive_bytes: length.and_then(|length| length.exact),
        archive_bytes_estimate: length.map(|length| length.about),
        restore_estimate: estimate.map(view::RestoreEstimateBody::from),
        backup: view::backup(&api.broker, &of, &backup),
        download_link: download_link(&api.broker, &holder(&request)?, &of.deployment, &backup)
            .await?,
    }))
}

/// The foundation endpoint of an instance: all of its API is below.
pub fn foundation_endpoint(broker: &Broker, instance: &InstanceId) -> String {
    let url = &broker.public_url;
    format!("{url}/api/2016-07/instances/{}", instance.in_path())
}

/// Where a backup's bytes are, for a while and for all who have the link, as long as its holder may
/// have them; none for a backup that has no bytes.
pub async fn download_link(
    broker: &Broker,
    holder: &Holder,
    of: &Deployment,
    backup: &Backup,
) -> Result<Option<String>, HttpError> {
    let query = broker.archives.download_query(holder, backup).await?;
    let url = view::backup_url(&broker.public_url, of, backup);
    Ok(query.map(|query| format!("{url}/download?{query}")))
}

/// Downloads a backup, with the link's own permission.
#[utoipa::path(
    get, path = "/api/2016-07/instances/{instance}/deployments/{deployment}/backups/{backup}/download",
    operation_id = "download",
    params(
        requests::LinkQuery,
        ("Range" = Option<String>, Header, description = "The bytes to send, one range; others are ignored"),
        ("If-Range" = Option<String>, Header, description = "The tag of what the client has a part of"),
    ),
    security(()),
    responses(
        (status = 200, description = "A gzip'd tar with `snapshot.db` and `manifest.json`", body = Vec<u8>, content_type = "application/gzip", headers(
            ("ETag" = String, description = "The same as long as the bytes are"),
            ("Accept-Ranges" = String, description = "`bytes`"),
        )),
        (status = 206, description = "The part of it that was asked for", body = Vec<u8>, content_type = "application/gzip", headers(
            ("ETag" = String, description = "The same as long as the bytes are"),
            ("Content-Range" = String, description = "Which bytes they are, of how many"),
        )),
        (status = 416, description = "The range begins behind the end"),
        (status = 404, description = "The link is not good (any more)"),
    )
)]
pub async fn download(api: web::Data<Api>, ids: LinkIds<BackupId>, request: HttpRequest) -> Answer {
    let link = DownloadLink {
        instance: ids.instance,
        deployment: ids.deployment,
        backup: ids.leads_to,
        expires: query(&request, "expires").unwrap_or_default(),
        signature: query(&request, "signature").unwrap_or_default(),
    };
    let of = api.broker.archives.backup_download(link).await?;
    let tag = header::EntityTag::new_strong(of.tag.clone());
    let part = match wanted_range(&request, &tag) {
        Some(wanted) => {
            let length = api.broker.archives.length_of(&of).await?;
            let part = wanted.to_satisfiable_range(length);
            let (first, last) = part.ok_or(HttpError::NoSuchRange(length))?;
            Some((first, last, length))
        }
        None => None,
    };
    let range = part.map(|(first, last, _)| first..=last);
    let download = api.broker.archives.download(of, range).await?;
    let disposition = format!("attachment; filename=\"{}\"", download.file_name);
    let mut response = HttpResponse::Ok();
    response
        .insert_header((header::CONTENT_TYPE, "application/gzip"))
        .insert_header((header::CONTENT_DISPOSITION, disposition))
        .insert_header((header::CACHE_CONTROL, "private, no-store"))
        .insert_header((header::ACCEPT_RANGES, "bytes"))
        .insert_header(header::ETag(tag));
    if let Some((first, last, length)) = part {
        let range = format!("bytes {first}-{last}/{length}");
        response
            .status(StatusCode::PARTIAL_CONTENT)
            .insert_header((header::CONTENT_RANGE, range))
            .no_chunking(last - first + 1);
    }
    Ok(response.streaming(download.content))
}

/// Lists recipes, newest first.
#[utoipa::path(
    get, path = "/api/2016-07/instances/{instance}/deployments/{deployment}/recipes",
    operation_id = "deployment_recipes",
    responses(
        (status = 200, description = "The recipes, 200 at most", body = Embedded<Recipes>),
        (status = 404, description = "There is no such deployment, or none that the token leads to"),
    )
)]
pub async fn deployment_recipes(api: web::Data<Api>, request: HttpRequest) -> Answer {
    let of = deployment_in_path(&api, &request).await?;
    let tasks = api.broker.deployments.recipes(&of.instance).await?;
    let now = api.broker.clock.now();
    let recipes = tasks.iter().map(|task| view::recipe(&of, task, now));
    let recipes = recipes.collect();
    Ok(HttpResponse::Ok().json(Embedded::new(Recipes { recipes })))
}

/// Fetches a recipe.
#[utoipa::path(
    get, path = "/api/2016-07/instances/{instance}/recipes/{recipe}",
    operation_id = "recipe",
    responses(
        (status = 200, description = "The recipe", body = view::RecipeBody),
        (status = 404, description = "There is no such recipe, or none that the token leads to"),
    )
)]
pub async fn recipe(
    api: web::Data<Api>,
    Id(instance): Id<InstanceId>,
    Id(RecipeId(id)): Id<RecipeId>,
) -> Answer {
    let (of, task) = api.broker.deployments.recipe(instance, id).await?;
    Ok(HttpResponse::Ok().json(view::recipe(&of, &task, api.broker.clock.now())))
}
