//! The OpenAPI document of OSB.

use serde_json::{Value, json};
use utoipa::{OpenApi, ToSchema};

use super::error::OsbErrorBody;
use crate::http::openapi::{
    rules::{self, Rules},
    scalars,
};

const RULES: Rules = Rules {
    always: &[
        (
            "400",
            "Something in the request is wrong; the text says what to do",
        ),
        ("401", "The credentials are missing or wrong"),
        ("403", rules::ONLY_READ),
        ("412", "The version of the API is missing or not 2.x"),
        ("429", "Too many requests"),
        (
            "500",
            "The broker's own fault, or that of work that the client waited for",
        ),
        ("503", rules::UNAVAILABLE),
    ],
    of_bodies: rules::OF_BODIES,
    request_headers: &[
        "X-Broker-API-Version",
        "X-Broker-API-Request-Identity",
        "X-Broker-API-Originating-Identity",
    ],
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Open Service Broker API",
        description = "Version 2.17, as this broker speaks it. Checked in this order: credentials, \
                       version of the API, path, body, rules. A method that a path does not have is \
                       a 405. Fields and query parameters that are not known are ignored, and \
                       `null` is absent.",
    ),
    paths(
        super::catalog,
        super::provision,
        super::fetch_instance,
        super::update,
        super::deprovision,
        super::instance_last_operation,
        super::bind,
        super::fetch_binding,
        super::unbind,
        super::binding_last_operation,
    ),
    components(schemas(OsbErrorBody, scalars::OwnId, scalars::PlatformId)),
    security(("credentials" = [])),
)]
struct Osb;

/// The document.
pub fn document() -> Value {
    let scheme = json!({ "type": "http", "scheme": "basic" });
    rules::document(Osb::openapi(), &scheme, &RULES)
}

/// What there is to be had.
#[derive(ToSchema)]
#[schema(as = Catalog)]
#[allow(dead_code, reason = "a type of documents alone")]
pub struct CatalogBody {
    /// The offerings.
    services: Vec<CatalogOffering>,
}

/// An offering.
#[derive(ToSchema)]
#[allow(dead_code, reason = "a type of documents alone")]
struct CatalogOffering {
    /// OSB's `service_id`.
    id: String,
    name: String,
    description: String,
    tags: Option<Vec<String>>,
    requires: Option<Vec<String>>,
    bindable: bool,
    instances_retrievable: bool,
    bindings_retrievable: bool,
    allow_context_updates: bool,
    plan_updateable: bool,
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
    plans: Vec<CatalogPlan>,
}

/// A plan.
#[derive(ToSchema)]
#[allow(dead_code, reason = "a type of documents alone")]
struct CatalogPlan {
    /// OSB's `plan_id`.
    id: String,
    name: String,
    description: String,
    free: bool,
    bindable: Option<bool>,
    plan_updateable: Option<bool>,
    binding_rotatable: Option<bool>,
    maximum_polling_duration: Option<u32>,
    #[schema(value_type = Option<Object>)]
    maintenance_info: Option<Value>,
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
    /// JSON Schemas of parameters.
    #[schema(value_type = Option<Object>)]
    schemas: Option<Value>,
}
