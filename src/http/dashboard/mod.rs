//! The dashboard: pages for people who have a database here, and for the operator.
//!
//! Pages are made here, whole, and work without their script. Nothing on them comes from another
//! host, and every text from outside is escaped by the templates.

use actix_web::{
    Error, HttpRequest, HttpResponse,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::header::{self, HeaderName, HeaderValue},
    middleware::Next,
    web::Payload,
};
use serde_json::{Value, json};

use super::{Api, request::Form};
use crate::{
    broker::{InstanceView, UpdateRequest, no_such_page},
    model::{ids::InstanceId, origin::Origin, session::Session},
};

pub mod activity;
mod assets;
mod backup_rows;
pub mod backups;
mod bar;
mod calendar;
mod command;
pub mod credentials;
pub mod door;
pub mod error;
mod history;
mod id;
pub mod imports;
pub mod instances;
pub mod keys;
pub mod operator;
pub mod overview;
mod plot;
mod remedy;
pub mod restore;
pub mod room;
pub mod settings;
mod shell;
mod show;
mod state;
pub mod versions;

use error::PageError;

/// What it is called on its pages.
pub const PRODUCT: &str = "compose-broker";

/// Where operators begin: the list of all instances. The pages of each are below.
const INSTANCES: &str = "/dashboard/instances";
/// Where the list of operations is.
const OPERATIONS: &str = "/dashboard/operations";
/// Where the list of late backups is.
const LATE_BACKUPS: &str = "/dashboard/late-backups";
/// Where the list of deleted instances is.
const DELETED: &str = "/dashboard/deleted";
/// Where the list of clusters is.
const CLUSTERS: &str = "/dashboard/clusters";
/// Where the audit is.
const AUDIT: &str = "/dashboard/audit";

type Answer = Result<HttpResponse, PageError>;

/// What a page may load and do: what is ours, and no more.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; \
     frame-ancestors 'none'";

/// Puts on every answer below `/dashboard`, good or bad, what keeps browsers from harm.
pub async fn guarded_against_harm(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let mut response = next.call(request).await?;
    let headers = response.headers_mut();
    let mut put = |name: HeaderName, value: &'static str| {
        headers.insert(name, HeaderValue::from_static(value));
    };
    put(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY);
    put(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    // Not "no-referrer": under it browsers say "Origin: null" also with our own forms, and
    // nothing would tell them from another site's.
    put(header::REFERRER_POLICY, "same-origin");
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    Ok(response)
}

/// `GET /dashboard/assets/:name`
pub async fn asset(request: HttpRequest) -> Answer {
    Ok(assets::answer(request.path()).ok_or_else(no_such_page)?)
}

/// What a form of a page says that was sent in a session. Nobody else knows what the page put into it.
async fn form_of(api: &Api, session: &Session, payload: Payload) -> Result<Form, PageError> {
    let form = Form::read(payload).await?;
    api.broker
        .sessions
        .check_form_token(session, form.text("csrf"))?;
    Ok(form)
}

/// Changes an instance, as an update of its platform does.
async fn update(api: &Api, view: &InstanceView, parameters: Value) -> Result<(), PageError> {
    let request = UpdateRequest::of(&view.of.instance, parameters, Origin::Dashboard);
    api.broker.updates.update(request).await?;
    Ok(())
}

/// The path of an instance's overview; its other pages are below.
fn path_of(instance: &InstanceId) -> String {
    format!("/dashboard/instances/{}", instance.in_path())
}

/// The parameters of a provision that makes a new instance of the newest backup of another.
fn parameters_of_latest(source: &InstanceId) -> String {
    json!({ "source_service_instance_id": source, "backup_id": "latest" }).to_string()
}

/// The path of an instance's backups; the pages of each are below.
fn backups_of(instance: &InstanceId) -> String {
    format!("{}/backups", path_of(instance))
}
