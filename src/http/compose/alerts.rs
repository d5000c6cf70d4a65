//! Alerts of a deployment.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Answer, deployment_in_path, view};
use crate::{
    http::{
        Api,
        openapi::scalars::{OwnId, Time, time},
    },
    model::{
        alert::{Alert, Gravity},
        deployment::Deployment,
        ids::DeploymentId,
    },
};

/// What somebody should do something about.
#[derive(Serialize, ToSchema)]
pub struct Alerts {
    /// The status of the worst alert; `ok` where there is none but notices.
    #[schema(pattern = "^(ok|critical|warning|unknown)$")]
    summary: &'static str,
    /// The alerts, the worst in front.
    #[serde(rename = "_embedded")]
    embedded: EmbeddedAlerts,
}

/// What is in the list.
#[derive(Serialize, ToSchema)]
pub struct EmbeddedAlerts {
    alerts: Vec<AlertBody>,
}

/// One thing that somebody should do something about.
#[derive(Serialize, ToSchema)]
#[schema(as = Alert)]
pub struct AlertBody {
    /// The member that it is about; `null` when it is about the whole.
    #[schema(required, value_type = Option<OwnId>)]
    capsule_id: Option<String>,
    /// The deployment.
    #[schema(value_type = OwnId)]
    deployment_id: DeploymentId,
    /// What it is and what can be done, for people.
    message: String,
    /// Since when, as far as that is known.
    #[schema(required, value_type = Option<Time>)]
    since: Option<String>,
    /// How bad it is.
    #[schema(pattern = "^(critical|warning|unknown|notice)$")]
    status: &'static str,
}

impl Alerts {
    fn of(deployment: &Deployment, alerts: Vec<Alert>) -> Self {
        let worst = alerts.iter().map(|alert| alert.gravity).min();
        let worst = worst.filter(|worst| *worst != Gravity::Notice);
        let body = |alert: Alert| AlertBody {
            capsule_id: alert.member.map(|name| view::capsule_id(deployment, &name)),
            deployment_id: deployment.id.clone(),
            message: alert.message,
            since: alert.since.map(time),
            status: alert.gravity.as_str(),
        };
        Self {
            summary: worst.map_or("ok", Gravity::as_str),
            embedded: EmbeddedAlerts {
                alerts: alerts.into_iter().map(body).collect(),
            },
        }
    }
}

/// Lists what somebody should do something about.
#[utoipa::path(
    get, path = "/api/2016-07/instances/{instance}/deployments/{deployment}/alerts", operation_id = "alerts",
    responses(
        (status = 200, description = "The alerts", body = Alerts),
        (status = 404, description = "There is no such deployment, or none that the token leads to"),
    )
)]
pub async fn alerts(api: web::Data<Api>, request: HttpRequest) -> Answer {
    let of = deployment_in_path(&api, &request).await?;
    let found = api.broker.vitals.alerts(&of).await?;
    Ok(HttpResponse::Ok().json(Alerts::of(&of.deployment, found)))
}
