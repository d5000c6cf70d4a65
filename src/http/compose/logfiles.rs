//! What the members of a deployment print.

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Answer, deployment_in_path, holder,
    id::{Id, LinkIds},
    view,
};
use crate::{
    broker::{Broker, BrokerError, LogLink, logfile_id, logfile_name},
    http::{
        Api,
        openapi::{
            requests,
            scalars::{OwnId, Time, time},
        },
        request::query,
    },
    model::{
        deployment::Deployment,
        holder::Holder,
        ids::{DeploymentId, LogfileId},
        logfile::{LogPart, Logfile},
    },
};

/// Logfiles, by member.
#[derive(Serialize, ToSchema)]
pub struct Logfiles {
    logfiles: Vec<LogfileBody>,
}

/// A file of what a member printed.
#[derive(Serialize, ToSchema)]
#[schema(as = Logfile)]
pub struct LogfileBody {
    /// Its id: the same as long as the deployment is there.
    #[schema(value_type = OwnId)]
    id: LogfileId,
    /// The deployment.
    #[schema(value_type = OwnId)]
    deployment_id: DeploymentId,
    /// The member.
    #[schema(value_type = OwnId)]
    capsule_id: String,
    /// Its name.
    name: String,
    /// The cluster.
    region: String,
    /// `running` while the member writes it, `complete` when it was turned over.
    #[schema(pattern = "^(running|complete)$")]
    status: &'static str,
    /// When it was last written to.
    #[schema(value_type = Time)]
    created_at: String,
    /// Its length now.
    size_bytes: u64,
}

/// A file of what a member printed, with a link to it.
#[derive(Serialize, ToSchema)]
pub struct DownloadableLogfile {
    #[serde(flatten)]
    logfile: LogfileBody,
    /// Where its text is, for 15 minutes and without credentials.
    download_link: String,
}

impl LogfileBody {
    fn of(deployment: &Deployment, log: &Logfile) -> Self {
        Self {
            id: logfile_id(&deployment.id, log),
            deployment_id: deployment.id.clone(),
            capsule_id: view::capsule_id(deployment, &log.member),
            name: logfile_name(log),
            region: deployment.cluster.clone(),
            status: match log.part {
                LogPart::Current => "running",
                LogPart::Older => "complete",
            },
            created_at: time(log.written_at),
            size_bytes: log.bytes,
        }
    }
}

/// Lists what the members print.
#[utoipa::path(
    get, path = "/api/2016-07/instances/{instance}/deployments/{deployment}/logfiles", operation_id = "logfiles",
    responses(
        (status = 200, description = "The logfiles", body = view::Embedded<Logfiles>),
        (status = 404, description = "There is no such deployment, or none that the token leads to"),
    )
)]
pub async fn logfiles(api: web::Data<Api>, request: HttpRequest) -> Answer {
    let of = deployment_in_path(&api, &request).await?;
    let found = api.broker.logfiles.logfiles(&of).await?;
    let body = |log: &Logfile| LogfileBody::of(&of.deployment, log);
    let logfiles = found.iter().map(body).collect();
    Ok(HttpResponse::Ok().json(view::Embedded::new(Logfiles { logfiles })))
}

/// Fetches a logfile, with a link to its text.
#[utoipa::path(
    get, path = "/api/2016-07/instances/{instance}/deployments/{deployment}/logfiles/{logfile}", operation_id = "logfile",
    responses(
        (status = 200, description = "The logfile", body = DownloadableLogfile),
        (status = 404, description = "There is no such logfile, or none that the token leads to"),
    )
)]
pub async fn logfile(api: web::Data<Api>, Id(id): Id<LogfileId>, request: HttpRequest) -> Answer {
    let of = deployment_in_path(&api, &request).await?;
    let log = api.broker.logfiles.logfile(&of, &id).await?;
    let holder = holder(&request)?;
    let download_link = log_link(&api.broker, &holder, &of.deployment, &log).await?;
    Ok(HttpResponse::Ok().json(DownloadableLogfile {
        logfile: LogfileBody::of(&of.deployment, &log),
        download_link,
    }))
}

/// A link to a log's text, for its holder.
pub async fn log_link(
    broker: &Broker,
    holder: &Holder,
    of: &Deployment,
    log: &Logfile,
) -> Result<String, BrokerError> {
    let url = view::deployment_url(&broker.public_url, of);
    let id = logfile_id(&of.id, log);
    let query = broker.logfiles.log_query(holder, of, log).await?;
    Ok(format!("{url}/logfiles/{id}/download?{query}"))
}

/// Downloads a logfile, with the link's own permission.
#[utoipa::path(
    get, path = "/api/2016-07/instances/{instance}/deployments/{deployment}/logfiles/{logfile}/download", operation_id = "download_log",
    params(requests::LinkQuery), security(()),
    responses(
        (status = 200, description = "What the member printed", body = String, content_type = "text/plain; charset=utf-8"),
        (status = 404, description = "The link is not good (any more)"),
    )
)]
pub async fn download_log(
    api: web::Data<Api>,
    ids: LinkIds<LogfileId>,
    request: HttpRequest,
) -> Answer {
    let link = LogLink {
        instance: ids.instance,
        deployment: ids.deployment,
        logfile: ids.leads_to,
        expires: query(&request, "expires").unwrap_or_default(),
        signature: query(&request, "signature").unwrap_or_default(),
    };
    let download = api.broker.logfiles.read_log(link).await?;
    let disposition = format!("attachment; filename=\"{}\"", download.file_name);
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/plain; charset=utf-8"))
        .insert_header((header::CONTENT_DISPOSITION, disposition))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::CACHE_CONTROL, "private, no-store"))
        // It is written on while it is read.
        .insert_header((header::ACCEPT_RANGES, "none"))
        .streaming(download.content))
}
