//! Versions and sizes of deployments: what there is, and the ways to ask for another one.

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Value, json};

use super::{
    Answer, deployment_in_path,
    view::{self, Embedded, Transitions},
};
use crate::{
    broker::{BrokerError, DeploymentView, UpdateRequest, Updated},
    http::{Api, error::HttpError, openapi::requests, request::Body},
};

/// Lists the versions that a deployment can be taken to.
#[utoipa::path(
    get, path = "/api/2016-07/instances/{instance}/deployments/{deployment}/versions",
    operation_id = "versions",
    responses(
        (status = 200, description = "The ways", body = Embedded<Transitions>),
        (status = 404, description = "There is no such deployment, or none that the token leads to"),
    )
)]
pub async fn versions(api: web::Data<Api>, request: HttpRequest) -> Answer {
    let of = deployment_in_path(&api, &request).await?;
    let found = api.broker.transitions(&of.deployment);
    let transitions = found
        .iter()
        .map(|t| view::transition(&of.deployment, t))
        .collect();
    Ok(HttpResponse::Ok().json(Embedded::new(Transitions { transitions })))
}

/// Takes a deployment to a newer version, in place.
#[utoipa::path(
    patch, path = "/api/2016-07/instances/{instance}/deployments/{deployment}/versions",
    operation_id = "upgrade",
    request_body = requests::UpgradeBody,
    responses(
        (status = 200, description = "Accepted", body = view::RecipeBody),
        (status = 404, description = "There is no such deployment, or none that the token leads to"),
        (status = 422, description = "The deployment is just so already, cannot become that, or is not ready"),
    )
)]
pub async fn upgrade(api: web::Data<Api>, request: HttpRequest, payload: web::Payload) -> Answer {
    let of = deployment_in_path(&api, &request).await?;
    let version = asked_for(payload, "version").await?;
    change(&api, &of, json!({ "db_version": version })).await
}

/// Tells a deployment's size.
#[utoipa::path(
    get, path = "/api/2016-07/instances/{instance}/deployments/{deployment}/scalings",
    operation_id = "scalings",
    responses(
        (status = 200, description = "The sizes", body = view::ScalingsBody),
        (status = 404, description = "There is no such deployment, or none that the token leads to"),
    )
)]
pub async fn scalings(api: web::Data<Api>, request: HttpRequest) -> Answer {
    let of = deployment_in_path(&api, &request).await?;
    let seen = api.broker.observation(&of.deployment);
    let database_bytes = seen.and_then(|seen| seen.database_bytes());
    Ok(HttpResponse::Ok().json(view::scalings(&of.deployment, database_bytes)))
}

/// Gives a deployment another size, in place.
#[utoipa::path(
    post, path = "/api/2016-07/instances/{instance}/deployments/{deployment}/scalings",
    operation_id = "scale",
    request_body = requests::ScaleBody,
    responses(
        (status = 200, description = "Accepted", body = view::RecipeBody),
        (status = 404, description = "There is no such deployment, or none that the token leads to"),
        (status = 422, description = "The deployment is just so already, cannot become that, or is not ready"),
    )
)]
pub async fn scale(api: web::Data<Api>, request: HttpRequest, payload: web::Payload) -> Answer {
    let of = deployment_in_path(&api, &request).await?;
    let units = asked_for(payload, "units").await?;
    change(&api, &of, json!({ "units": units })).await
}

/// A field of the body's `deployment`.
async fn asked_for(payload: web::Payload, field: &str) -> Result<Value, HttpError> {
    let body = Body::read(payload).await?;
    let deployment = body.object("deployment")?;
    let value = deployment.as_ref().and_then(|d| d.get(field));
    let value = value.filter(|value| !value.is_null()).cloned();
    value.ok_or_else(|| HttpError::bad_request(format!("deployment.{field} is missing")))
}

/// Asks for an update; the answer is its recipe.
async fn change(api: &Api, of: &DeploymentView, parameters: Value) -> Answer {
    let request = UpdateRequest::of(&of.instance, parameters, "compose");
    match api.broker.update(request).await? {
        Updated::Accepted(operation) => Ok(HttpResponse::Ok().json(view::recipe(of, &operation))),
        // The original answers with a recipe, and there is none for what need not be done.
        Updated::Done => Err(BrokerError::UpdateRefused {
            reason: "the deployment is just so already".to_owned(),
            repeatable: true,
        }
        .into()),
    }
}
