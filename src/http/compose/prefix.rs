//! Parts of a running database that are put back from a backup.

use actix_web::{HttpMessage as _, HttpRequest, HttpResponse, web};

use super::{
    Admitted, Answer, deployment_in_path, no_such_instance,
    restore::{backup_in_path, private_key},
    view,
};
use crate::{
    broker::{BrokerError, DeploymentView},
    http::{Api, error::HttpError, openapi::requests, request::Body},
    model::{
        ids::InstanceId,
        origin::Origin,
        prefix::{PrefixMode, PrefixRestore},
    },
};

/// Puts keys with a prefix of a running database back from one of its backups, by its id or as `latest`,
/// `latest:daily` and the like, or into another running database of the same owner. A backup is taken before. Keys that clients change meanwhile stay as they are. Or
/// only compares them, and changes nothing.
#[utoipa::path(
    post,
    path = "/api/2016-07/instances/{instance}/deployments/{deployment}/backups/{backup}/restore_prefix",
    operation_id = "restore_prefix",
    request_body = requests::RestorePrefixBody,
    responses(
        (status = 202, description = "Accepted; the recipe's `prefix_restore` tells what comes of it", body = view::RecipeBody),
        (status = 400, description = "There is no such mode, or the prefix is too long or holds what no prefix may"),
        (status = 404, description = "There is no such backup, or none that the token leads to"),
        (status = 422, description = "The instance is not ready, too few members serve, or keys are being restored already"),
    )
)]
pub async fn restore_prefix(
    api: web::Data<Api>,
    request: HttpRequest,
    payload: web::Payload,
) -> Answer {
    let of = deployment_in_path(&api, &request).await?;
    let backup = backup_in_path(&api, &of.instance.id, &request).await?;
    let body = Body::read(&request, payload).await?;
    let asked = body.section("deployment")?;
    let prefix = asked.given_text("prefix")?;
    let mode = asked.text("mode")?;
    let mode = mode.as_deref().unwrap_or(PrefixMode::Missing.as_str());
    let wanted = PrefixRestore::wanted(&prefix, mode, asked.flag("dry_run")?);
    let wanted = wanted.map_err(BrokerError::BadRequest)?;
    let from = (backup, asked.text("restore_time")?, private_key(&asked)?);
    // An empty one is a mistake, and its maker means another database than the source.
    let target = asked.optional_text("target_service_instance_id")?;
    let target = target.map(|text| text.parse::<InstanceId>());
    let target = target
        .transpose()
        .map_err(|e| HttpError::bad_request(format!("target_service_instance_id {e}")))?;
    let source = of.instance.id.clone();
    let into = match target.filter(|target| *target != source) {
        Some(target) => other_instance(&api, &request, target).await?,
        None => of,
    };
    let operation = api
        .broker
        .upkeep
        .restore_prefix(&into, source, from, wanted, Origin::Compose)
        .await?;
    let task = api.broker.deployments.task(operation).await?;
    Ok(HttpResponse::Accepted().json(view::recipe(&into, &task, api.broker.clock.now())))
}

/// Another instance, when the one who asks administers it, too.
async fn other_instance(
    api: &Api,
    request: &HttpRequest,
    id: InstanceId,
) -> Result<DeploymentView, HttpError> {
    let admitted = request.extensions().get::<Admitted>().cloned();
    let may = match admitted {
        Some(Admitted::Binding(granted, _)) => {
            api.broker.tokens.reaches(granted, id.clone()).await?
        }
        Some(Admitted::Platform) => true,
        Some(Admitted::Reader) | None => false,
    };
    if !may {
        return Err(no_such_instance());
    }
    Ok(api.broker.deployments.deployment_of(id).await?)
}
