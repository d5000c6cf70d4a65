//! For operators: what concerns the broker as a whole. The platform's own credentials let in, and to
//! read also those that read alone.

use std::collections::BTreeMap;

use actix_web::{
    Error, HttpRequest, HttpResponse, ResponseError as _,
    body::{EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    middleware::Next,
    web,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Api,
    advisory::AdvisoryBody,
    error::HttpError,
    openapi::{
        requests,
        scalars::{DatabaseVersion, OwnId, PlatformId, Time, time},
    },
    request::{Body, check_operator, query},
};
use crate::{
    broker::{AuditQuery, Finding, OwnerFinding, Repaired, Stray, Unknown, VersionInUse},
    model::{
        audit::AuditEntry,
        ids::{BackupId, BindingId, DeploymentId, InstanceId, OperationId},
        instance::Names,
        tenant::Tenant,
        version::Version,
    },
};

pub mod clock;
pub mod deleted;
pub mod document;
pub mod error;
pub mod instances;
pub mod members;
pub mod mirror;
pub mod operations;
pub mod volumes;
pub mod webhook;

use error::OperatorError;

/// Where store and backup store disagree.
#[derive(Serialize, ToSchema)]
struct Findings<T> {
    findings: Vec<T>,
}

/// Who had what done.
#[derive(Serialize, ToSchema)]
struct Audit {
    /// Newest first.
    entries: Vec<Entry>,
    /// What to ask for the ones before with, when there are any.
    #[schema(required)]
    next_before: Option<i64>,
}

/// One thing that was accepted to be done, or done at once, or that somebody got to see.
#[derive(Serialize, ToSchema)]
struct Entry {
    /// Its place: later ones have higher ones.
    id: i64,
    /// When.
    #[schema(value_type = Time)]
    at: String,
    /// What.
    action: String,
    /// The same in words.
    what: String,
    /// The door that it came through: `osb`, `compose`, `dashboard`, `operator`, or the broker itself.
    origin: String,
    /// The instance, where it is about one.
    #[schema(required, value_type = Option<PlatformId>)]
    instance_id: Option<InstanceId>,
    /// What people call it, where it is there and that is known.
    #[schema(required)]
    instance_name: Option<String>,
    /// The binding, where it is about one.
    #[schema(required, value_type = Option<PlatformId>)]
    binding_id: Option<BindingId>,
    /// The operation that does it; none for what was done at once.
    #[schema(required, value_type = Option<OwnId>)]
    operation: Option<OperationId>,
    /// Where `user` is known.
    #[schema(required)]
    platform: Option<String>,
    /// Who asked for it.
    #[schema(required)]
    user: Option<String>,
    /// The platform's name of the request.
    #[schema(required)]
    request_id: Option<String>,
    /// The backup, where it is about one.
    #[schema(required, value_type = Option<OwnId>)]
    backup_id: Option<BackupId>,
    /// The address that it was asked for from; none for what the broker does by itself.
    #[schema(required)]
    address: Option<String>,
    /// How many it stands for: what is alike within an hour is told twice, first and in sum.
    times: i64,
}

/// The versions of databases.
#[derive(Serialize, ToSchema)]
struct Versions {
    versions: Vec<VersionBody>,
}

/// A version of a database.
#[derive(Serialize, ToSchema)]
#[schema(as = Version)]
struct VersionBody {
    /// The kind of database.
    engine: String,
    /// The version.
    #[schema(value_type = DatabaseVersion)]
    version: Version,
    /// The clusters that have it; none where it is gone and instances run it still.
    clusters: Vec<String>,
    /// Usable instances that run it.
    instances: usize,
    /// Whether it is the one to take of its line.
    preferred: bool,
    /// Whether it holds users to the role and the keys that they are given.
    limits_users: bool,
    /// Its known faults, the gravest in front.
    advisories: Vec<AdvisoryBody>,
}

impl From<VersionInUse> for VersionBody {
    fn from(of: VersionInUse) -> Self {
        Self {
            engine: of.engine,
            version: of.version,
            clusters: of.clusters,
            instances: of.instances,
            preferred: of.preferred,
            limits_users: of.limits_users,
            advisories: of.faults.iter().map(AdvisoryBody::of).collect(),
        }
    }
}

/// Instances whose requests name other owners than they have.
#[derive(Serialize, ToSchema)]
struct Owners {
    instances: Vec<OwnerFindingBody>,
}

/// An instance whose request names another owner than it has.
#[derive(Serialize, ToSchema)]
#[schema(as = OwnerFinding)]
struct OwnerFindingBody {
    /// The instance.
    #[schema(value_type = PlatformId)]
    instance_id: InstanceId,
    /// The owner that it has, or had.
    owner: OwnerBody,
    /// The owner that its request names today; none: an id that must be there is not.
    #[schema(required)]
    named: Option<OwnerBody>,
    /// Whether it has that owner now.
    changed: bool,
}

impl From<OwnerFinding> for OwnerFindingBody {
    fn from(of: OwnerFinding) -> Self {
        Self {
            instance_id: of.instance,
            owner: of.owner.into(),
            named: of.named.map(OwnerBody::from),
            changed: of.changed,
        }
    }
}

/// The owner of an instance.
#[derive(Serialize, ToSchema)]
#[schema(as = Owner)]
struct OwnerBody {
    /// The kind of platform.
    platform: String,
    /// The organization, or the Kubernetes cluster.
    organization: String,
    /// The space, or the namespace.
    space: String,
    /// The ids of the context that tell tenants apart beside them.
    account: BTreeMap<String, String>,
}

impl From<Tenant> for OwnerBody {
    fn from(of: Tenant) -> Self {
        Self {
            platform: of.platform,
            organization: of.organization,
            space: of.space,
            account: of.account,
        }
    }
}

type Answer = Result<HttpResponse, OperatorError>;

/// Lets a request in that has the broker's credentials, or such as read where it reads.
pub async fn guard<B: MessageBody + 'static>(
    api: web::Data<Api>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    match check_operator(request.request(), &api) {
        Ok(()) => Ok(next.call(request).await?.map_into_left_body()),
        Err(error) => {
            let response = OperatorError(error).error_response();
            Ok(request.into_response(response).map_into_right_body())
        }
    }
}

/// Tells where store and backup store disagree.
#[utoipa::path(
    get, path = "/operator/reconciliation", operation_id = "reconciliation",
    responses((status = 200, description = "What was found", body = Findings<Finding>))
)]
pub async fn reconciliation(api: web::Data<Api>) -> Answer {
    let findings = api.broker.reconciler.findings().await?;
    Ok(HttpResponse::Ok().json(Findings { findings }))
}

/// Repairs; leftover bytes are deleted, or kept as of deleted instances, only when the query says so.
#[utoipa::path(
    post, path = "/operator/reconciliation", operation_id = "reconcile",
    params(
        ("delete_leftovers" = Option<bool>, Query, description = "Whether to delete leftover bytes"),
        ("keep_unknown" = Option<bool>, Query, description = "Whether to keep backups of instances that the store does not know, as those of deleted ones"),
    ),
    responses(
        (status = 200, description = "What was found, and done about it", body = Findings<Repaired>),
        (status = 400, description = "Something in the query is wrong"),
    )
)]
pub async fn reconcile(api: web::Data<Api>, request: HttpRequest) -> Answer {
    let flag = |name: &str| match query(&request, name).as_deref() {
        None | Some("" | "false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(wrong(name)),
    };
    let unknown = match (flag("delete_leftovers")?, flag("keep_unknown")?) {
        (false, false) => Unknown::Leave,
        (false, true) => Unknown::Keep,
        (true, false) => Unknown::Delete,
        (true, true) => {
            let text = "keep_unknown and delete_leftovers do not go together";
            return Err(HttpError::bad_request(text).into());
        }
    };
    let findings = api.broker.reconciler.reconcile(unknown).await?;
    Ok(HttpResponse::Ok().json(Findings { findings }))
}

/// What came of a choice.
#[derive(Serialize, ToSchema)]
#[serde(tag = "choice", rename_all = "snake_case")]
enum Reconciled {
    /// The deployment is the instance's again.
    Adopt {
        /// The deployment.
        #[schema(value_type = OwnId)]
        deployment_id: DeploymentId,
        /// The instance.
        #[schema(value_type = PlatformId)]
        instance_id: InstanceId,
        /// Its backups that are listed again.
        backups_adopted: usize,
    },
    /// The deployment is gone; its backups are not.
    Remove {
        /// The deployment.
        #[schema(value_type = OwnId)]
        deployment_id: DeploymentId,
    },
}

/// Adopts a deployment that has no row, with what its backups tell of it, or removes it.
#[utoipa::path(
    post, path = "/operator/reconcile", operation_id = "reconcile_deployment",
    request_body = requests::ReconcileBody,
    responses(
        (status = 200, description = "It is done", body = Reconciled),
        (status = 400, description = "Something in the body is wrong, or no backup says enough"),
        (status = 404, description = "There is no such deployment without a row"),
        (status = 409, description = "Its instance or a port of its members is taken"),
    )
)]
pub async fn reconcile_deployment(
    api: web::Data<Api>,
    request: HttpRequest,
    payload: web::Payload,
) -> Answer {
    let body = Body::read(&request, payload).await?;
    let id: Option<DeploymentId> = body.id("deployment_id")?;
    let stray = Stray {
        cluster: body.required_text("cluster_id")?,
        deployment: id.ok_or_else(|| HttpError::bad_request("deployment_id is missing"))?,
    };
    let choice = body.required_text("choice")?;
    let plan = body.text("plan_id")?;
    let deployment_id = stray.deployment.clone();
    let done = match choice.as_str() {
        "adopt" => {
            let adopted = api
                .broker
                .reconciler
                .strays
                .adopt(&stray, plan.as_deref())
                .await?;
            Reconciled::Adopt {
                deployment_id,
                instance_id: adopted.instance,
                backups_adopted: adopted.backups,
            }
        }
        "remove" => {
            api.broker.reconciler.strays.remove(&stray).await?;
            Reconciled::Remove { deployment_id }
        }
        _ => return Err(HttpError::bad_request("choice must be adopt or remove").into()),
    };
    Ok(HttpResponse::Ok().json(done))
}

/// Tells who had what done, newest first.
#[utoipa::path(
    get, path = "/operator/audit", operation_id = "audit",
    params(requests::AuditQuery),
    responses(
        (status = 200, description = "Entries of the audit", body = Audit),
        (status = 400, description = "Something in the query is wrong"),
    )
)]
pub async fn audit(api: web::Data<Api>, request: HttpRequest) -> Answer {
    let number = |name: &str| -> Result<Option<i64>, HttpError> {
        let text = query(&request, name).filter(|text| !text.is_empty());
        let number = text.map(|text| text.parse()).transpose();
        number.map_err(|_| wrong(name))
    };
    let instance = query(&request, "instance").filter(|id| !id.is_empty());
    let asked = AuditQuery {
        instance: instance
            .map(|id| id.parse())
            .transpose()
            .map_err(|_| wrong("instance"))?,
        before: number("before")?,
        limit: number("limit")?,
    };
    let found = api.broker.audit.newest(asked).await?;
    let of = |of: AuditEntry| entry(of, &found.names);
    Ok(HttpResponse::Ok().json(Audit {
        entries: found.entries.into_iter().map(of).collect(),
        next_before: found.next,
    }))
}

/// Tells which versions of databases there are, who runs them, and what is wrong with them.
#[utoipa::path(
    get, path = "/operator/versions", operation_id = "versions",
    responses((status = 200, description = "The versions, by engine, newest first", body = Versions))
)]
pub async fn versions(api: web::Data<Api>) -> Answer {
    let found = api.broker.clusters.versions_in_use().await?;
    let versions = found.into_iter().map(VersionBody::from).collect();
    Ok(HttpResponse::Ok().json(Versions { versions }))
}

/// Tells whose requests name another owner than the one that their instance has.
#[utoipa::path(
    get, path = "/operator/owners", operation_id = "owners",
    responses((status = 200, description = "The instances, by id", body = Owners))
)]
pub async fn owners(api: web::Data<Api>) -> Answer {
    owners_found(&api, false).await
}

/// Gives these instances the owners that their requests name.
#[utoipa::path(
    post, path = "/operator/owners", operation_id = "change_owners",
    responses((status = 200, description = "What was found, and done about it", body = Owners))
)]
pub async fn change_owners(api: web::Data<Api>) -> Answer {
    owners_found(&api, true).await
}

async fn owners_found(api: &Api, change: bool) -> Answer {
    let found = api.broker.owners.owners(change).await?;
    let instances = found.into_iter().map(OwnerFindingBody::from).collect();
    Ok(HttpResponse::Ok().json(Owners { instances }))
}

/// The page that the query asks for; the first is 1.
fn page_in(request: &HttpRequest) -> Result<usize, HttpError> {
    let Some(page) = query(request, "page") else {
        return Ok(1);
    };
    let page = page.parse::<u16>().ok().filter(|page| *page > 0);
    Ok(page.ok_or_else(|| wrong("page"))?.into())
}

fn wrong(name: &str) -> HttpError {
    HttpError::bad_request(format!("{name} is not what it should be"))
}

fn entry(entry: AuditEntry, names: &Names) -> Entry {
    let name = entry.instance.as_ref().and_then(|id| names.get(id));
    Entry {
        id: entry.id,
        at: time(entry.at),
        what: entry.words(),
        action: entry.action,
        origin: entry.origin.as_str().to_owned(),
        instance_name: name.cloned(),
        instance_id: entry.instance,
        binding_id: entry.binding,
        operation: entry.operation,
        platform: entry.platform,
        user: entry.user,
        request_id: entry.request_id,
        backup_id: entry.backup,
        address: entry.address,
        times: entry.times,
    }
}
