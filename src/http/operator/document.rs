//! The OpenAPI document of what is for operators.

use serde_json::{Value, json};
use utoipa::OpenApi;

use crate::http::{
    health,
    openapi::{
        rules::{self, Rules},
        scalars,
    },
    osb::error::OsbErrorBody,
};

const RULES: Rules = Rules {
    always: &[
        ("401", "The credentials are missing or wrong"),
        ("403", rules::ONLY_READ),
        ("429", "Too many requests"),
        ("500", "The broker's own fault"),
        ("503", rules::UNAVAILABLE),
    ],
    of_bodies: rules::OF_BODIES,
    request_headers: &["X-Broker-API-Request-Identity"],
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "For operators",
        description = "What concerns the broker as a whole, and whether it lives.",
    ),
    paths(
        super::reconciliation,
        super::reconcile,
        super::reconcile_deployment,
        super::audit,
        super::versions,
        super::clock::show,
        super::clock::trust,
        super::deleted::list,
        super::deleted::purge,
        super::owners,
        super::change_owners,
        super::instances::list,
        super::instances::show,
        super::instances::dashboard_link,
        super::members::renew,
        super::members::repair,
        super::members::recover,
        super::mirror::show,
        super::operations::list,
        super::operations::show,
        super::operations::retry,
        super::operations::abandon,
        super::volumes::list,
        super::webhook::test,
        health::alive,
        health::ready,
    ),
    components(schemas(OsbErrorBody, scalars::OwnId, scalars::PlatformId)),
    security(("credentials" = [])),
)]
struct Operator;

/// The document.
pub fn document() -> Value {
    let scheme = json!({ "type": "http", "scheme": "basic" });
    rules::document(Operator::openapi(), &scheme, &RULES)
}
