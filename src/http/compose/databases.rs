//! The databases that can be had, with their versions.

use std::collections::BTreeSet;

use actix_web::{HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Answer, id::Id};
use crate::{
    broker::Broker,
    http::{Api, advisory::AdvisoryBody},
    model::{engine::is_preferred, ids::InstanceId, version::Version},
};

/// The databases.
#[derive(Serialize, ToSchema)]
pub struct DatabaseList {
    #[serde(rename = "_embedded")]
    embedded: EmbeddedApplications,
}

/// What is in the list.
#[derive(Serialize, ToSchema)]
pub struct EmbeddedApplications {
    applications: Vec<Application>,
}

/// A kind of database.
#[derive(Serialize, ToSchema)]
pub struct Application {
    #[serde(rename = "type")]
    kind: String,
    status: &'static str,
    display_name: String,
    #[serde(rename = "_embedded")]
    embedded: EmbeddedVersions,
}

/// Its versions.
#[derive(Serialize, ToSchema)]
pub struct EmbeddedVersions {
    versions: Vec<VersionBody>,
}

/// A version that a new instance can have.
#[derive(Serialize, ToSchema)]
#[schema(as = DatabaseOfVersion)]
pub struct VersionBody {
    application: String,
    status: &'static str,
    /// Whether it is the one to take of its line.
    preferred: bool,
    version: String,
    /// Its known faults, the gravest in front.
    advisories: Vec<AdvisoryBody>,
}

impl Application {
    fn of(broker: &Broker, engine: String, versions: &BTreeSet<Version>) -> Self {
        let version = |version: &Version| {
            let preferred = is_preferred(version, versions);
            VersionBody {
                application: engine.clone(),
                status: if preferred { STABLE } else { "deprecated" },
                preferred,
                version: version.to_string(),
                advisories: broker
                    .inventory
                    .known_faults(&engine, *version)
                    .iter()
                    .map(AdvisoryBody::of)
                    .collect(),
            }
        };
        let versions = versions.iter().map(version).collect();
        Self {
            kind: engine.clone(),
            status: STABLE,
            display_name: engine,
            embedded: EmbeddedVersions { versions },
        }
    }
}

const STABLE: &str = "stable";

/// Lists the databases that can be had, with their versions.
#[utoipa::path(
    get, path = "/api/2016-07/instances/{instance}/databases", operation_id = "databases",
    responses(
        (status = 200, description = "The databases", body = DatabaseList),
        (status = 404, description = "There is no such instance, or none that the token leads to"),
    )
)]
pub async fn databases(api: web::Data<Api>, Id(instance): Id<InstanceId>) -> Answer {
    let found = api.broker.clusters.versions_seen_from(instance).await?;
    let applications = found
        .into_iter()
        .map(|(engine, versions)| Application::of(&api.broker, engine, &versions))
        .collect();
    Ok(HttpResponse::Ok().json(DatabaseList {
        embedded: EmbeddedApplications { applications },
    }))
}
