//! Versions and sizes of deployments: what there is, and the ways to ask for another one.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    Answer, deployment_in_path,
    view::{self, Embedded, Transitions},
};
use crate::{
    broker::{BrokerError, DeploymentView, Preflight, UpdateRequest, Updated},
    http::{
        Api,
        error::HttpError,
        openapi::{requests, scalars::DatabaseVersion},
        request::{Body, query},
    },
    model::{origin::Origin, version::Version},
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
    let found = api.broker.inventory.transitions(&of.deployment);
    let transitions = found
        .iter()
        .map(|t| {
            let faults = api
                .broker
                .inventory
                .known_faults(&of.deployment.engine, t.to);
            view::transition(&of.deployment, t, &faults)
        })
        .collect();
    Ok(HttpResponse::Ok().json(Embedded::new(Transitions { transitions })))
}

/// What an upgrade would do.
#[derive(Serialize, ToSchema)]
pub struct PreflightBody {
    /// Whether it would be done now.
    possible: bool,
    /// The version that runs.
    #[schema(value_type = DatabaseVersion)]
    from_version: Version,
    /// The version that was asked for.
    to_version: String,
    /// The versions that the members would run one after the other; empty when it is refused.
    #[schema(value_type = Vec<DatabaseVersion>)]
    path: Vec<Version>,
    /// Why it would not be done now, in sentences; empty when it would.
    reasons: Vec<String>,
    /// What would be done beside it, in sentences.
    notes: Vec<String>,
}

impl From<Preflight> for PreflightBody {
    fn from(preflight: Preflight) -> Self {
        Self {
            possible: preflight.reasons.is_empty(),
            from_version: preflight.from,
            to_version: preflight.wanted,
            path: preflight.path,
            reasons: preflight.reasons,
            notes: preflight.notes,
        }
    }
}

/// What is answered to an upgrade.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum UpgradeAnswer {
    /// It is being done.
    Recipe(Box<view::RecipeBody>),
    /// With `dry_run`: nothing is.
    Preflight(PreflightBody),
}

/// Takes a deployment to a newer version, in place; or only tells what that would do.
#[utoipa::path(
    patch, path = "/api/2016-07/instances/{instance}/deployments/{deployment}/versions",
    operation_id = "upgrade",
    request_body = requests::UpgradeBody,
    params(requests::DryRun),
    responses(
        (status = 200, description = "Accepted; or what would be done", body = UpgradeAnswer),
        (status = 400, description = "`dry_run` is neither `true` nor `false`, or something is wrong in the body"),
        (status = 404, description = "There is no such deployment, or none that the token leads to"),
        (status = 422, description = "The deployment is just so already, cannot become that, or is not ready"),
    )
)]
pub async fn upgrade(api: web::Data<Api>, request: HttpRequest, payload: web::Payload) -> Answer {
    let of = deployment_in_path(&api, &request).await?;
    let asked = query(&request, "dry_run");
    let body = Body::read(&request, payload).await?;
    let version = asked_for(&body, "version")?;
    let in_body = body.section("deployment")?.flag("dry_run")?;
    let dry_run = match asked.as_deref() {
        None | Some("") => in_body,
        Some("true") => true,
        Some("false") => false,
        Some(_) => return Err(HttpError::bad_request("dry_run must be true or false").into()),
    };
    if dry_run {
        let wanted = version.as_str();
        let wanted =
            wanted.ok_or_else(|| HttpError::bad_request("deployment.version must be a string"))?;
        let preflight = api.broker.upgrades.preflight(&of, wanted).await?;
        return Ok(HttpResponse::Ok().json(UpgradeAnswer::Preflight(preflight.into())));
    }
    let recipe = change(&api, &of, json!({ "db_version": version })).await?;
    Ok(HttpResponse::Ok().json(UpgradeAnswer::Recipe(Box::new(recipe))))
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
    let seen = api.broker.vitals.observation(&of.deployment);
    let most = api.broker.inventory.units_max(&of.deployment.engine);
    Ok(HttpResponse::Ok().json(view::scalings(&of.deployment, most, seen.as_deref())))
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
    let body = Body::read(&request, payload).await?;
    let units = asked_for(&body, "units")?;
    let recipe = change(&api, &of, json!({ "units": units })).await?;
    Ok(HttpResponse::Ok().json(recipe))
}

/// Makes room in a deployment's database: forgets its history and gives unused storage back. With
/// `delete_prefix`, deletes all keys with that prefix before.
#[utoipa::path(
    post, path = "/api/2016-07/instances/{instance}/deployments/{deployment}/reliefs",
    operation_id = "relieve",
    request_body = Option<requests::ReliefBody>,
    responses(
        (status = 202, description = "Accepted", body = view::RecipeBody),
        (status = 400, description = "`delete_prefix` is too long, or holds what no prefix may"),
        (status = 404, description = "There is no such deployment, or none that the token leads to"),
        (status = 422, description = "The instance is not ready, too few members serve, or room is being made already"),
    )
)]
pub async fn relieve(api: web::Data<Api>, request: HttpRequest, payload: web::Payload) -> Answer {
    let of = deployment_in_path(&api, &request).await?;
    let body = Body::read_or_nothing(&request, payload).await?;
    let prefix = body.section("deployment")?.text("delete_prefix")?;
    let operation = api
        .broker
        .upkeep
        .relieve(&of, prefix, Origin::Compose)
        .await?;
    let task = api.broker.deployments.task(operation).await?;
    Ok(HttpResponse::Accepted().json(view::recipe(&of, &task, api.broker.clock.now())))
}

/// Tells what giving unused storage back would do, and how long members would stand still.
#[utoipa::path(
    get, path = "/api/2016-07/instances/{instance}/deployments/{deployment}/defragmentations",
    operation_id = "defragmentation",
    responses(
        (status = 200, description = "What it would do", body = view::DefragmentationBody),
        (status = 404, description = "There is no such deployment, or none that the token leads to"),
    )
)]
pub async fn defragmentation(api: web::Data<Api>, request: HttpRequest) -> Answer {
    let of = deployment_in_path(&api, &request).await?;
    let storage = api.broker.vitals.storage(&of).await;
    let refusal = api.broker.upkeep.lacks_members(&of).await;
    let by_night = api
        .broker
        .upkeep
        .defragments_by_night(&of.deployment, storage);
    Ok(HttpResponse::Ok().json(view::defragmentation(storage, by_night, refusal)))
}

/// Gives unused storage back: one member after the other, the leader last, while all of them serve.
#[utoipa::path(
    post, path = "/api/2016-07/instances/{instance}/deployments/{deployment}/defragmentations",
    operation_id = "defragment",
    responses(
        (status = 202, description = "Accepted, or under way already", body = view::RecipeBody),
        (status = 404, description = "There is no such deployment, or none that the token leads to"),
        (status = 422, description = "The instance is not ready, too few members serve, or it is full and closed"),
    )
)]
pub async fn defragment(api: web::Data<Api>, request: HttpRequest) -> Answer {
    let of = deployment_in_path(&api, &request).await?;
    let operation = api.broker.upkeep.defragment(&of, Origin::Compose).await?;
    let task = api.broker.deployments.task(operation).await?;
    Ok(HttpResponse::Accepted().json(view::recipe(&of, &task, api.broker.clock.now())))
}

/// A field of the body's `deployment`.
fn asked_for(body: &Body, field: &str) -> Result<Value, HttpError> {
    let deployment = body.object("deployment")?;
    let value = deployment.as_ref().and_then(|d| d.get(field));
    let value = value.filter(|value| !value.is_null()).cloned();
    value.ok_or_else(|| HttpError::bad_request(format!("deployment.{field} is missing")))
}

/// Asks for an update.
pub(super) async fn update(
    api: &Api,
    of: &DeploymentView,
    parameters: Value,
) -> Result<Updated, HttpError> {
    let request = UpdateRequest::of(&of.instance, parameters, Origin::Compose);
    Ok(api.broker.updates.update(request).await?)
}

/// Asks for an update; the answer is its recipe.
async fn change(
    api: &Api,
    of: &DeploymentView,
    parameters: Value,
) -> Result<view::RecipeBody, HttpError> {
    match update(api, of, parameters).await? {
        Updated::Accepted(operation) => {
            let task = api.broker.deployments.task(*operation).await?;
            Ok(view::recipe(of, &task, api.broker.clock.now()))
        }
        // The original answers with a recipe, and there is none for what need not be done.
        Updated::Done => Err(BrokerError::UpdateRefused {
            reason: "the deployment is just so already".to_owned(),
            repeatable: true,
        }
        .into()),
    }
}
