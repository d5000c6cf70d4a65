//! OSB v2.17: one function for each endpoint.

use std::time::SystemTime;

use actix_web::{
    Error, HttpMessage as _, HttpRequest, HttpResponse, ResponseError as _,
    body::{EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{
        StatusCode,
        header::{self, CacheDirective, ETag, EntityTag, LastModified},
    },
    middleware::Next,
    web,
};
use serde_json::{Value, json};

use super::{
    Api,
    error::HttpError,
    openapi::requests,
    request::{Body, accepts_incomplete, check_basic, is_known, query},
};
use crate::{
    broker::{
        self, BindRequest, Bound, DeprovisionRequest, OperationStatus, ProvisionRequest,
        StatusState, UnbindRequest, Unbound, UpdateRequest, Updated, without_private_key,
    },
    model::{
        ids::{BindingId, InstanceId},
        limits::RETRY_AFTER_SECONDS,
        origin::Origin,
        update::Change,
    },
};

pub mod document;
pub mod error;
pub mod id;
mod view;

use document::CatalogBody;
use error::OsbError;
use id::Id;
use view::{
    Accepted, Done, FetchedBindingBody, Instance, InstanceAccepted, InstanceDone, InstanceMetadata,
    MaintenanceVersion,
};

type Answer = Result<HttpResponse, OsbError>;

/// The version of the API that the platform speaks: the minor number of `2.x`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct ApiMinor(u32);

// Fields are told to platforms that know them; older platforms' schemas refuse them.

/// Bindings tell of `endpoints` since then.
const ENDPOINTS_SINCE: ApiMinor = ApiMinor(16);
/// Bindings tell of `metadata` since then; of instances, see [`knows_metadata`].
const METADATA_SINCE: ApiMinor = ApiMinor(16);
/// Plans tell of `binding_rotatable` since then.
const ROTATION_SINCE: ApiMinor = ApiMinor(17);

/// Instances tell of `maintenance_info` since 2.16.
const MAINTENANCE_INFO_SINCE: ApiMinor = ApiMinor(16);

/// Lets a request in when its credentials are right, then when its version is.
pub async fn guard<B: MessageBody + 'static>(
    api: web::Data<Api>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    let checked = check_basic(request.request(), &api).and_then(|()| api_minor(request.headers()));
    match checked {
        Ok(minor) => {
            request.extensions_mut().insert(minor);
            Ok(next.call(request).await?.map_into_left_body())
        }
        Err(error) => {
            let response = OsbError(error).error_response();
            Ok(request.into_response(response).map_into_right_body())
        }
    }
}

fn api_minor(headers: &header::HeaderMap) -> Result<ApiMinor, HttpError> {
    let wrong = |what: &str| {
        HttpError::ApiVersion(format!(
            "{what}; this broker needs the header X-Broker-API-Version: 2.x"
        ))
    };
    let value = headers
        .get("x-broker-api-version")
        .and_then(|v| v.to_str().ok())
        .map(str::trim)
        .filter(|v| !v.is_empty())
        .ok_or_else(|| wrong("the version of the API is missing"))?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match value.split_once('.') {
        Some(("2", minor)) if digits(minor) => minor
            .parse()
            .map(ApiMinor)
            .map_err(|_| wrong("the version of the API is unreadable")),
        _ => Err(wrong("this version of the API is not spoken here")),
    }
}

/// Tells what there is to be had.
#[utoipa::path(
    get, path = "/v2/catalog", operation_id = "catalog",
    params(
        ("If-None-Match" = Option<String>, Header, description = "Tags that the client has"),
        ("If-Modified-Since" = Option<String>, Header, description = "The time of what the client has"),
    ),
    responses(
        (status = 200, description = "The catalog", body = CatalogBody, headers(
            ("ETag" = String, description = "The same as long as the content is"),
            ("Last-Modified" = String, description = "When the catalog was changed"),
        )),
        (status = 304, description = "The client has it"),
    )
)]
pub async fn catalog(api: web::Data<Api>, request: HttpRequest) -> HttpResponse {
    let catalog = api.broker.inventory.catalog.get();
    let served = catalog.served(minor_of(&request) >= ROTATION_SINCE);
    let tag = EntityTag::new_strong(served.tag.clone());
    let modified = served.modified.map(SystemTime::from);
    let known = is_known(&request, &tag, modified);
    let mut response = HttpResponse::Ok();
    response.insert_header(ETag(tag));
    if let Some(modified) = modified {
        response.insert_header(LastModified(modified.into()));
    }
    // Who speaks another version may be told another one.
    response.insert_header((header::VARY, "x-broker-api-version"));
    response.insert_header(header::CacheControl(vec![CacheDirective::NoCache]));
    if known {
        return response.status(StatusCode::NOT_MODIFIED).finish();
    }
    response.content_type(mime()).body(served.body.clone())
}

fn mime() -> header::ContentType {
    header::ContentType::json()
}

/// Makes an instance, an empty one or from a backup.
#[utoipa::path(
    put, path = "/v2/service_instances/{instance}", operation_id = "provision",
    params(requests::AcceptsIncomplete), request_body = requests::ProvisionBody,
    responses(
        (status = 202, description = "Accepted, or accepted before; also when that failed: its `operation` says why", body = InstanceAccepted),
        (status = 200, description = "The same was asked for before, and is usable", body = InstanceDone),
        (status = 409, description = "The id is another one's, or its deletion failed"),
        (status = 422, description = "`AsyncRequired`, `ConcurrencyError` or `MaintenanceInfoConflict`"),
    )
)]
pub async fn provision(
    api: web::Data<Api>,
    Id(instance): Id<InstanceId>,
    request: HttpRequest,
    payload: web::Payload,
) -> Answer {
    let dashboard_url = api.broker.dashboard_url(&instance);
    let body = Body::read(&request, payload).await?;
    let (parameters, private_key) = without_private_key(body.object("parameters")?)?;
    let provision = ProvisionRequest {
        instance,
        service_id: body.required_text("service_id")?,
        plan_id: body.required_text("plan_id")?,
        organization: body.required_text("organization_guid")?,
        space: body.required_text("space_guid")?,
        context: body.object("context")?,
        parameters,
        private_key,
        maintenance_version: body.maintenance_version()?,
        accepts_incomplete: accepts_incomplete(&request),
    };
    let knows_metadata = knows_metadata(&request, provision.context.as_ref());
    let (provisioned, labels) = api.broker.instances.provision(provision).await?;
    let metadata = labels.filter(|_| knows_metadata).map(InstanceMetadata::of);
    Ok(match provisioned {
        broker::Provisioned::Exists => HttpResponse::Ok().json(InstanceDone {
            dashboard_url,
            metadata,
        }),
        broker::Provisioned::Accepted(operation) => {
            HttpResponse::Accepted().json(InstanceAccepted {
                operation,
                dashboard_url,
                metadata,
            })
        }
    })
}

/// Whether the platform that asks for an instance may be sent `metadata`. Cloud Controller keeps it and
/// announces 2.15, which has no such field: suites for that version refuse it. They send no context,
/// in which Cloud Controller says who it is.
fn knows_metadata(request: &HttpRequest, context: Option<&Value>) -> bool {
    let is_platform = context.is_some_and(|context| context.get("platform").is_some());
    is_platform || minor_of(request) >= METADATA_SINCE
}

/// Fetches an instance.
#[utoipa::path(
    get, path = "/v2/service_instances/{instance}", operation_id = "fetch_instance",
    params(requests::Ids),
    responses(
        (status = 200, description = "The instance", body = Instance),
        (status = 404, description = "There is none of this id, or none that is usable yet"),
    )
)]
pub async fn fetch_instance(
    api: web::Data<Api>,
    Id(instance): Id<InstanceId>,
    request: HttpRequest,
) -> Answer {
    let dashboard_url = api.broker.dashboard_url(&instance);
    let fetched = api.broker.instances.instance(instance).await?;
    let knows = minor_of(&request) >= MAINTENANCE_INFO_SINCE;
    let version = fetched.maintenance_version.filter(|_| knows);
    Ok(HttpResponse::Ok().json(Instance {
        dashboard_url,
        service_id: fetched.service_id,
        plan_id: fetched.plan_id,
        parameters: fetched.parameters,
        maintenance_info: version.map(|version| MaintenanceVersion { version }),
        metadata: Some(InstanceMetadata::of(fetched.labels)),
    }))
}

/// Changes an instance: its size, its version, its context.
///
/// `previous_values` are not looked at: what an instance is, is known here.
#[utoipa::path(
    patch, path = "/v2/service_instances/{instance}", operation_id = "update",
    params(requests::AcceptsIncomplete), request_body = requests::UpdateBody,
    responses(
        (status = 202, description = "Accepted, or accepted before", body = InstanceAccepted),
        (status = 200, description = "Nothing is (left) to be done", body = InstanceDone),
        (status = 404, description = "There is none of this id"),
        (status = 422, description = "`AsyncRequired`, `ConcurrencyError`, `MaintenanceInfoConflict`, or without a code: the instance cannot become that"),
    )
)]
pub async fn update(
    api: web::Data<Api>,
    Id(instance): Id<InstanceId>,
    request: HttpRequest,
    payload: web::Payload,
) -> Answer {
    let dashboard_url = api.broker.dashboard_url(&instance);
    let body = Body::read(&request, payload).await?;
    let update = UpdateRequest {
        instance: instance.clone(),
        service_id: body.required_text("service_id")?,
        plan_id: body.optional_text("plan_id")?,
        context: body.object("context")?,
        parameters: body.object("parameters")?,
        maintenance_version: body.maintenance_version()?,
        accepts_incomplete: accepts_incomplete(&request),
        origin: Origin::Osb,
    };
    let updated = api.broker.updates.update(update).await?;
    // Cloud Controller keeps what an update tells, and nothing where it tells nothing.
    let labels = api.broker.instances.labels(instance).await?;
    Ok(match updated {
        Updated::Done => HttpResponse::Ok().json(InstanceDone {
            dashboard_url,
            metadata: labels.map(InstanceMetadata::of),
        }),
        Updated::Accepted(operation) => {
            let goal = operation.change.as_ref().map(Change::goal);
            let labels = labels.map(|labels| labels.becoming(goal));
            HttpResponse::Accepted().json(InstanceAccepted {
                operation: operation.id,
                dashboard_url,
                metadata: labels.map(InstanceMetadata::of),
            })
        }
    })
}

/// Deletes an instance with its bindings and backups.
#[utoipa::path(
    delete, path = "/v2/service_instances/{instance}", operation_id = "deprovision",
    params(requests::Deletion),
    responses(
        (status = 202, description = "Accepted, or accepted before", body = Accepted),
        (status = 410, description = "There is none of this id (any more)"),
        (status = 422, description = "`AsyncRequired`, or without a code: the instance is protected"),
    )
)]
pub async fn deprovision(
    api: web::Data<Api>,
    Id(instance): Id<InstanceId>,
    request: HttpRequest,
) -> Answer {
    let required = |name: &str| {
        query(&request, name)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| HttpError::bad_request(format!("{name} is missing")))
    };
    let deprovision = DeprovisionRequest {
        instance,
        service_id: required("service_id")?,
        plan_id: required("plan_id")?,
        accepts_incomplete: accepts_incomplete(&request),
        origin: Origin::Osb,
    };
    let operation = api.broker.instances.deprovision(deprovision).await?;
    Ok(HttpResponse::Accepted().json(Accepted { operation }))
}

/// Tells the state of an operation on an instance.
#[utoipa::path(
    get, path = "/v2/service_instances/{instance}/last_operation",
    operation_id = "instance_last_operation",
    params(requests::OperationQuery),
    responses(
        (status = 200, description = "Its state", body = view::LastOperation, headers(
            ("Retry-After" = u32, description = "Seconds to wait, while the work goes on"),
        )),
        (status = 404, description = "Nothing was ever done under this id"),
        (status = 410, description = "The deletion that is asked for is done"),
    )
)]
pub async fn instance_last_operation(
    api: web::Data<Api>,
    Id(instance): Id<InstanceId>,
    request: HttpRequest,
) -> Answer {
    let status = api
        .broker
        .statuses
        .instance_status(instance, query(&request, "operation"))
        .await?;
    Ok(last_operation(&status))
}

/// Makes a binding, a new one or one that takes over from another.
#[utoipa::path(
    put, path = "/v2/service_instances/{instance}/service_bindings/{binding}",
    operation_id = "bind",
    params(requests::AcceptsIncomplete), request_body = requests::BindBody,
    responses(
        (status = 201, description = "Made, for a client that waited", body = view::Binding),
        (status = 202, description = "Accepted, or accepted before; also when that failed: its `operation` says why", body = Accepted),
        (status = 200, description = "The same was asked for before, and is usable", body = view::Binding),
        (status = 404, description = "There is no such instance"),
        (status = 409, description = "The id is another one's, or that of a binding that has expired; or it failed and the client does not poll"),
        (status = 422, description = "`ConcurrencyError`"),
    )
)]
pub async fn bind(
    api: web::Data<Api>,
    Id(instance): Id<InstanceId>,
    Id(binding): Id<BindingId>,
    request: HttpRequest,
    payload: web::Payload,
) -> Answer {
    let minor = minor_of(&request);
    let body = Body::read(&request, payload).await?;
    let predecessor = body.id("predecessor_binding_id")?;
    // A rotation need not repeat what its predecessor tells.
    let told = |name| match predecessor {
        None => body.required_text(name).map(Some),
        Some(_) => body.text(name),
    };
    let bind = BindRequest {
        instance,
        binding,
        service_id: told("service_id")?,
        plan_id: told("plan_id")?,
        bind_resource: body.object("bind_resource")?,
        parameters: body.object("parameters")?,
        predecessor,
        accepts_incomplete: accepts_incomplete(&request),
        on_page: None,
    };
    Ok(match api.broker.bindings.bind(bind).await? {
        Bound::Created(binding) => HttpResponse::Created().json(view::binding(&binding, minor)),
        Bound::Exists(binding) => HttpResponse::Ok().json(view::binding(&binding, minor)),
        Bound::Accepted(operation) => HttpResponse::Accepted().json(Accepted { operation }),
    })
}

/// Fetches a binding.
#[utoipa::path(
    get, path = "/v2/service_instances/{instance}/service_bindings/{binding}",
    operation_id = "fetch_binding",
    params(requests::Ids),
    responses(
        (status = 200, description = "The binding", body = FetchedBindingBody),
        (status = 404, description = "There is none of this id, or none that is usable"),
    )
)]
pub async fn fetch_binding(
    api: web::Data<Api>,
    Id(instance): Id<InstanceId>,
    Id(binding): Id<BindingId>,
    request: HttpRequest,
) -> Answer {
    let fetched = api.broker.bindings.binding(instance, binding).await?;
    Ok(HttpResponse::Ok().json(FetchedBindingBody {
        binding: view::binding(&fetched, minor_of(&request)),
        parameters: Some(fetched.parameters).filter(|sent| *sent != json!({})),
    }))
}

/// Deletes a binding.
#[utoipa::path(
    delete, path = "/v2/service_instances/{instance}/service_bindings/{binding}",
    operation_id = "unbind",
    params(requests::Deletion),
    responses(
        (status = 200, description = "Done, for a client that waited", body = Done),
        (status = 202, description = "Accepted, or accepted before", body = Accepted),
        (status = 410, description = "There is none of this id (any more)"),
        (status = 422, description = "`ConcurrencyError`"),
    )
)]
pub async fn unbind(
    api: web::Data<Api>,
    Id(instance): Id<InstanceId>,
    Id(binding): Id<BindingId>,
    request: HttpRequest,
) -> Answer {
    // An unknown binding is gone, whatever else is missing: the ids are checked against the known.
    let unbind = UnbindRequest {
        instance,
        binding,
        service_id: query(&request, "service_id").unwrap_or_default(),
        plan_id: query(&request, "plan_id").unwrap_or_default(),
        accepts_incomplete: accepts_incomplete(&request),
        origin: Origin::Osb,
    };
    Ok(match api.broker.bindings.unbind(unbind).await? {
        Unbound::Deleted => HttpResponse::Ok().json(Done {}),
        Unbound::Accepted(operation) => HttpResponse::Accepted().json(Accepted { operation }),
    })
}

/// Tells the state of an operation on a binding.
#[utoipa::path(
    get, path = "/v2/service_instances/{instance}/service_bindings/{binding}/last_operation",
    operation_id = "binding_last_operation",
    params(requests::OperationQuery),
    responses(
        (status = 200, description = "Its state", body = view::LastOperation, headers(
            ("Retry-After" = u32, description = "Seconds to wait, while the work goes on"),
        )),
        (status = 404, description = "Nothing was ever done under this id"),
        (status = 410, description = "The deletion that is asked for is done"),
    )
)]
pub async fn binding_last_operation(
    api: web::Data<Api>,
    Id(instance): Id<InstanceId>,
    Id(binding): Id<BindingId>,
    request: HttpRequest,
) -> Answer {
    let token = query(&request, "operation");
    let status = api
        .broker
        .statuses
        .binding_status(instance, binding, token)
        .await?;
    Ok(last_operation(&status))
}

fn minor_of(request: &HttpRequest) -> ApiMinor {
    request.extensions().get().copied().unwrap_or(ApiMinor(0))
}

fn last_operation(status: &OperationStatus) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    if status.state == StatusState::InProgress {
        response.insert_header((header::RETRY_AFTER, RETRY_AFTER_SECONDS.to_string()));
    }
    response.json(view::last_operation(status))
}
