//! The deployments below an instance.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    Answer, deployment_in_path,
    id::Id,
    view::{self, DeploymentBody, Embedded},
};
use crate::{
    http::{Api, error::HttpError, openapi::requests, request::Body},
    model::ids::InstanceId,
};

/// Deployments.
#[derive(Serialize, ToSchema)]
pub struct Deployments {
    deployments: Vec<DeploymentBody>,
}

/// Lists the deployments that the token leads to.
#[utoipa::path(
    get, path = "/api/2016-07/instances/{instance}/deployments", operation_id = "deployments",
    responses(
        (status = 200, description = "The deployments", body = Embedded<Deployments>),
        (status = 404, description = "There is no such instance, or none that the token leads to"),
    )
)]
pub async fn deployments(api: web::Data<Api>, Id(instance): Id<InstanceId>) -> Answer {
    let found = api.broker.deployments.deployments_from(instance).await?;
    let instances = found.iter().map(|of| of.instance.clone()).collect();
    let healths = api.broker.vitals.healths(instances).await?;
    let deployments = found
        .iter()
        .zip(healths)
        .map(|(of, (_, health))| view::listed_deployment(&api.broker, of, health))
        .collect();
    Ok(HttpResponse::Ok().json(Embedded::new(Deployments { deployments })))
}

/// Writes notes and a billing code beside a deployment.
#[utoipa::path(
    patch, path = "/api/2016-07/instances/{instance}/deployments/{deployment}", operation_id = "annotate",
    request_body = requests::AnnotateBody,
    responses(
        (status = 200, description = "The deployment", body = DeploymentBody),
        (status = 404, description = "There is no such deployment, or none that the token leads to"),
    )
)]
pub async fn annotate(api: web::Data<Api>, request: HttpRequest, payload: web::Payload) -> Answer {
    let of = deployment_in_path(&api, &request).await?;
    let wanted = Body::read(&request, payload).await?.object("deployment")?;
    let notes = text(wanted.as_ref(), "notes")?;
    let billing_code = text(wanted.as_ref(), "customer_billing_code")?;
    let written = api
        .broker
        .deployments
        .annotate(of, notes, billing_code)
        .await?;
    let health = api.broker.vitals.health(&written).await?;
    Ok(HttpResponse::Ok().json(view::deployment(&api.broker, &written, health)))
}

/// A text that may be empty; none when it is absent or `null`.
fn text(wanted: Option<&Value>, field: &str) -> Result<Option<String>, HttpError> {
    match wanted.and_then(|wanted| wanted.get(field)) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(HttpError::bad_request(format!(
            "deployment.{field} is not a string"
        ))),
    }
}
