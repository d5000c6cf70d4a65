//! Deleted instances whose backups are there still.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Answer, OwnerBody, page_in};
use crate::{
    broker::DeletedListed,
    http::{
        Api,
        openapi::{
            requests,
            scalars::{DatabaseVersion, OwnId, PlatformId, Time, time},
        },
        osb::id::Id,
    },
    model::{
        ids::{BackupId, DeploymentId, InstanceId},
        version::Version,
    },
};

/// Deleted instances of all tenants.
#[derive(Serialize, ToSchema)]
pub struct DeletedInstances {
    /// The one that was deleted last in front.
    deleted_instances: Vec<DeletedInstanceBody>,
    /// The page of those that follow, when there are any.
    #[schema(required)]
    next_page: Option<usize>,
}

/// A deleted instance.
#[derive(Serialize, ToSchema)]
#[schema(as = DeletedInstance)]
struct DeletedInstanceBody {
    /// The platform's id of it.
    #[schema(value_type = PlatformId)]
    instance_id: InstanceId,
    /// The deployment that was behind it; it tells apart what had the same id one after the other.
    #[schema(value_type = OwnId)]
    deployment_id: DeploymentId,
    /// What people called it, where somebody said.
    #[schema(required)]
    name: Option<String>,
    /// Whose it was.
    owner: OwnerBody,
    /// The cluster that it was on.
    cluster: String,
    /// The kind of database.
    engine: String,
    /// Its version.
    #[schema(value_type = DatabaseVersion)]
    version: Version,
    /// Its size.
    units: u32,
    /// When it was asked for.
    #[schema(value_type = Time)]
    created_at: String,
    /// When it was gone.
    #[schema(value_type = Time)]
    deleted_at: String,
    /// When its backups go.
    #[schema(value_type = Time)]
    kept_until: String,
    /// How many backups there are.
    backups: usize,
    /// The newest one.
    #[schema(required, value_type = Option<OwnId>)]
    newest_backup_id: Option<BackupId>,
    /// When that was taken.
    #[schema(required, value_type = Option<Time>)]
    newest_backup_at: Option<String>,
    /// Why the last backup before the deletion is not there; `null` where it is, or was not to be taken.
    #[schema(required)]
    final_backup_failure: Option<String>,
}

impl From<DeletedListed> for DeletedInstanceBody {
    fn from(listed: DeletedListed) -> Self {
        let of = listed.deleted;
        let (newest_backup_id, newest_at) = listed.newest.unzip();
        Self {
            instance_id: of.instance,
            deployment_id: of.deployment,
            name: of.name,
            owner: of.tenant.into(),
            cluster: of.cluster,
            engine: of.engine,
            version: of.version,
            units: of.units,
            created_at: time(of.created_at),
            deleted_at: time(of.deleted_at),
            kept_until: time(of.kept_until),
            backups: listed.backups,
            newest_backup_id,
            newest_backup_at: newest_at.map(time),
            final_backup_failure: of.final_backup_failure,
        }
    }
}

/// What goes.
#[derive(Serialize, ToSchema)]
struct Purged {
    /// The deployment whose backups go.
    #[schema(value_type = OwnId)]
    deployment_id: DeploymentId,
}

/// Lists deleted instances whose backups are there still.
#[utoipa::path(
    get, path = "/operator/deleted_instances", operation_id = "deleted_instances",
    params(requests::PageQuery),
    responses(
        (status = 200, description = "Deleted instances", body = DeletedInstances),
        (status = 400, description = "Something in the query is wrong"),
    )
)]
pub async fn list(api: web::Data<Api>, request: HttpRequest) -> Answer {
    let page = page_in(&request)?;
    let (found, has_more) = api.broker.retention.deleted.page(page).await?;
    Ok(HttpResponse::Ok().json(DeletedInstances {
        deleted_instances: found.into_iter().map(DeletedInstanceBody::from).collect(),
        next_page: has_more.then(|| page + 1),
    }))
}

/// Has the backups of a deleted instance removed before their time. They go within some seconds, or when a
/// restore of one of them has ended.
#[utoipa::path(
    delete, path = "/operator/deleted_instances/{deployment}", operation_id = "purge_deleted_instance",
    responses(
        (status = 202, description = "They go", body = Purged),
        (status = 400, description = "That is no id"),
        (status = 404, description = "There is no such deleted instance"),
    )
)]
pub async fn purge(api: web::Data<Api>, Id(id): Id<DeploymentId>) -> Answer {
    api.broker.retention.deleted.end(id.clone()).await?;
    Ok(HttpResponse::Accepted().json(Purged { deployment_id: id }))
}
