//! Clusters: where the instance's user may have instances, and the one that it runs on.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Answer, id::Id, view};
use crate::{
    broker::BrokerError,
    http::Api,
    model::{ids::InstanceId, placement::Cluster, tenant::Tenant},
};

/// The clusters.
#[derive(Serialize, ToSchema)]
pub struct ClusterList {
    #[serde(rename = "_embedded")]
    embedded: EmbeddedClusters,
}

/// What is in the list.
#[derive(Serialize, ToSchema)]
pub struct EmbeddedClusters {
    clusters: Vec<ClusterBody>,
}

/// A cluster. What it has in use is other tenants' affair, and not told.
#[derive(Serialize, ToSchema)]
#[schema(as = Cluster)]
pub struct ClusterBody {
    id: String,
    /// The operator's account: clusters are not the tenant's.
    account_id: String,
    account_slug: String,
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    provider: &'static str,
    region: String,
    multitenant: bool,
    /// Nobody wrote it down.
    #[schema(required)]
    created_at: Option<String>,
    subdomain: String,
    tags: Vec<String>,
}

/// The operator's account.
pub fn operator() -> Tenant {
    Tenant {
        platform: "compose-broker".to_owned(),
        organization: String::new(),
        space: String::new(),
        account: Default::default(),
    }
}

const PROVIDER: &str = "local";

impl ClusterBody {
    fn of(cluster: &Cluster) -> Self {
        Self {
            id: cluster.id.clone(),
            account_id: view::account_id(&operator()),
            account_slug: String::new(),
            name: cluster.name.clone(),
            kind: "public",
            provider: PROVIDER,
            region: cluster.id.clone(),
            multitenant: true,
            created_at: None,
            subdomain: String::new(),
            tags: Vec::new(),
        }
    }
}

/// Lists the clusters where the instance's user may have instances, and the one that it runs on.
#[utoipa::path(
    get, path = "/api/2016-07/instances/{instance}/clusters", operation_id = "clusters",
    responses(
        (status = 200, description = "The clusters", body = ClusterList),
        (status = 404, description = "There is no such instance, or none that the token leads to"),
    )
)]
pub async fn clusters(api: web::Data<Api>, Id(instance): Id<InstanceId>) -> Answer {
    let found = api.broker.clusters.clusters_seen_from(instance).await?;
    Ok(HttpResponse::Ok().json(ClusterList {
        embedded: EmbeddedClusters {
            clusters: found.into_iter().map(ClusterBody::of).collect(),
        },
    }))
}

/// The places that databases can be in.
#[derive(Serialize, ToSchema)]
pub struct Datacenters {
    datacenters: Vec<Datacenter>,
}

/// A place that databases can be in: a cluster, in other words.
#[derive(Serialize, ToSchema)]
pub struct Datacenter {
    /// The cluster's id.
    region: String,
    provider: &'static str,
    /// Both, with a colon between them.
    slug: String,
}

/// Lists the datacenters: one for each of the clusters.
#[utoipa::path(
    get, path = "/api/2016-07/instances/{instance}/datacenters", operation_id = "datacenters",
    responses(
        (status = 200, description = "The datacenters", body = view::Embedded<Datacenters>),
        (status = 404, description = "There is no such instance, or none that the token leads to"),
    )
)]
pub async fn datacenters(api: web::Data<Api>, Id(instance): Id<InstanceId>) -> Answer {
    let found = api.broker.clusters.clusters_seen_from(instance).await?;
    let datacenter = |cluster: &Cluster| Datacenter {
        region: cluster.id.clone(),
        provider: PROVIDER,
        slug: format!("{PROVIDER}:{}", cluster.id),
    };
    let datacenters = found.into_iter().map(datacenter).collect();
    Ok(HttpResponse::Ok().json(view::Embedded::new(Datacenters { datacenters })))
}

/// Fetches a cluster.
#[utoipa::path(
    get, path = "/api/2016-07/instances/{instance}/clusters/{cluster}", operation_id = "cluster",
    responses(
        (status = 200, description = "The cluster", body = ClusterBody),
        (status = 404, description = "There is no such cluster, or none that the instance's user may know of"),
    )
)]
pub async fn cluster(
    api: web::Data<Api>,
    Id(instance): Id<InstanceId>,
    request: HttpRequest,
) -> Answer {
    let id = request.match_info().query("cluster");
    let seen = api.broker.clusters.clusters_seen_from(instance).await?;
    let found = seen.into_iter().find(|cluster| cluster.id == id);
    let found =
        found.ok_or_else(|| BrokerError::NotFound("there is no such cluster".to_owned()))?;
    Ok(HttpResponse::Ok().json(ClusterBody::of(found)))
}
