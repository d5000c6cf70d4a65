//! All instances, as operators see them.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Answer, OwnerBody, page_in};
use crate::{
    broker::Broker,
    http::{
        Api,
        health_body::HealthBody,
        openapi::{
            requests,
            scalars::{DatabaseVersion, OwnId, PlatformId, Time, time},
        },
        osb::id::Id,
        request::query,
    },
    model::{
        deployment::Deployment,
        health::Health,
        ids::{DeploymentId, InstanceId},
        instance::Instance,
        version::Version,
    },
};

/// Instances of all tenants.
#[derive(Serialize, ToSchema)]
pub struct Instances {
    /// Newest first.
    instances: Vec<InstanceBody>,
    /// The page of those that follow, when there are any.
    #[schema(required)]
    next_page: Option<usize>,
}

/// An instance.
#[derive(Serialize, ToSchema)]
#[schema(as = Instance)]
pub struct InstanceBody {
    /// The platform's id of it.
    #[schema(value_type = PlatformId)]
    instance_id: InstanceId,
    /// What people call it, where somebody said.
    #[schema(required)]
    name: Option<String>,
    /// How it is.
    health: HealthBody,
    /// The deployment behind it.
    #[schema(value_type = OwnId)]
    deployment_id: DeploymentId,
    /// The name of its offering.
    offering: String,
    /// The name of its plan.
    plan: String,
    /// Whose it is.
    owner: OwnerBody,
    /// The cluster that it is on; none where it has just gone.
    #[schema(required)]
    cluster: Option<String>,
    /// The kind of database.
    #[schema(required)]
    engine: Option<String>,
    /// Its version.
    #[schema(required, value_type = Option<DatabaseVersion>)]
    version: Option<Version>,
    /// Its size.
    #[schema(required)]
    units: Option<u32>,
    /// When it was asked for.
    #[schema(value_type = Time)]
    created_at: String,
}

impl InstanceBody {
    fn of(
        broker: &Broker,
        instance: Instance,
        deployment: Option<Deployment>,
        health: Health,
    ) -> Self {
        let (offering, plan) = broker.inventory.offering_name(&instance);
        Self {
            health: health.into(),
            offering,
            plan,
            cluster: deployment.as_ref().map(|of| of.cluster.clone()),
            version: deployment.as_ref().map(|of| of.version),
            units: deployment.as_ref().map(|of| of.units),
            engine: deployment.map(|of| of.engine),
            instance_id: instance.id,
            name: instance.name,
            deployment_id: instance.deployment,
            owner: instance.tenant.into(),
            created_at: time(instance.created_at),
        }
    }
}

/// Lists instances with their health, the newest first. Health is as members were seen last: nobody waits
/// for a look at them.
#[utoipa::path(
    get, path = "/operator/instances", operation_id = "instances",
    params(requests::InstancesQuery),
    responses(
        (status = 200, description = "Instances", body = Instances),
        (status = 400, description = "Something in the query is wrong"),
    )
)]
pub async fn list(api: web::Data<Api>, request: HttpRequest) -> Answer {
    let text = query(&request, "q").unwrap_or_default();
    let page = page_in(&request)?;
    let (found, more) = api.broker.views.instances(text.trim(), page).await?;
    let bodies = found
        .into_iter()
        .map(|of| InstanceBody::of(&api.broker, of.instance, of.deployment, of.health));
    Ok(HttpResponse::Ok().json(Instances {
        instances: bodies.collect(),
        next_page: more.then(|| page + 1),
    }))
}

/// A link to the dashboard.
#[derive(Serialize, ToSchema)]
pub struct DashboardLink {
    /// It opens the dashboard of the instance once.
    link: String,
    /// Until when.
    #[schema(value_type = Time)]
    expires_at: String,
}

/// Makes a link that opens the dashboard of an instance once, within 15 minutes.
#[utoipa::path(
    post, path = "/operator/instances/{instance}/dashboard-link", operation_id = "dashboard_link",
    responses(
        (status = 201, description = "The link", body = DashboardLink),
        (status = 400, description = "That is no id"),
        (status = 404, description = "There is no such instance, or it is being deleted"),
    )
)]
pub async fn dashboard_link(api: web::Data<Api>, Id(id): Id<InstanceId>) -> Answer {
    let url = &api.broker.public_url;
    let (link, expires) = api.broker.sessions.link_to(url, id).await?;
    Ok(HttpResponse::Created().json(DashboardLink {
        link,
        expires_at: time(expires),
    }))
}

/// Tells of an instance, with its health by a look at its members that is waited for.
#[utoipa::path(
    get, path = "/operator/instances/{instance}", operation_id = "instance",
    responses(
        (status = 200, description = "The instance", body = InstanceBody),
        (status = 400, description = "That is no id"),
        (status = 404, description = "There is no such instance"),
    )
)]
pub async fn show(api: web::Data<Api>, Id(id): Id<InstanceId>) -> Answer {
    let view = api.broker.deployments.deployment_of(id).await?;
    let health = api.broker.vitals.health(&view).await?;
    let body = InstanceBody::of(&api.broker, view.instance, Some(view.deployment), health);
    Ok(HttpResponse::Ok().json(body))
}
