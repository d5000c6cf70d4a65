//! Members of databases, in an operator's hands.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::Answer;
use crate::{
    broker::status_of,
    http::{
        Api,
        openapi::{requests, scalars::OwnId},
        request::{Body, path_id},
    },
    model::{
        ids::{InstanceId, OperationId},
        operation::Operation,
    },
};

/// Where such work comes from.
pub const ORIGIN: &str = "operator";

/// Work that was accepted.
#[derive(Serialize, ToSchema)]
pub struct Accepted {
    /// Its id.
    #[schema(value_type = OwnId)]
    operation: OperationId,
    /// How it fares, for people.
    description: String,
}

impl Accepted {
    /// What is told of an operation.
    pub fn of(operation: &Operation) -> Self {
        Self {
            operation: operation.id.clone(),
            description: status_of(operation).description,
        }
    }
}

/// Replaces a member of a database: it leaves the cluster, its data is deleted, and a new one comes in
/// its place and catches up with the others. Refused when too few serve without it.
#[utoipa::path(
    post, path = "/operator/instances/{instance}/repair", operation_id = "repair",
    request_body = requests::RepairBody,
    responses(
        (status = 202, description = "The member is being replaced", body = Accepted),
        (status = 400, description = "Something in the body is wrong"),
        (status = 404, description = "There is no such instance"),
        (status = 408, description = "The body did not come in time"),
        (status = 413, description = "The body is larger than it may be"),
        (status = 422, description = "The instance is not ready, or another member is being replaced"),
    )
)]
pub async fn repair(api: web::Data<Api>, request: HttpRequest, payload: web::Payload) -> Answer {
    let instance: InstanceId = path_id(&request, "instance")?;
    let body = Body::read(payload).await?;
    let member = body.required_text("member")?;
    let operation = api.broker.repair(instance, member, ORIGIN).await?;
    Ok(HttpResponse::Accepted().json(Accepted::of(&operation)))
}
