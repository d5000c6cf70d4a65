//! The deployments below an instance.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Answer,
    view::{self, DeploymentBody, Embedded},
};
use crate::http::{Api, request::path_id};

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
pub async fn deployments(api: web::Data<Api>, request: HttpRequest) -> Answer {
    let instance = path_id(&request, "instance")?;
    let found = api.broker.deployments_from(instance).await?;
    let url = &api.broker.public_url;
    let deployments = found
        .iter()
        .map(|of| view::listed_deployment(url, of))
        .collect();
    Ok(HttpResponse::Ok().json(Embedded::new(Deployments { deployments })))
}
