//! The OpenAPI document of the Compose API.

use serde_json::{Value, json};
use utoipa::OpenApi;

use super::error::ComposeErrorBody;
use crate::http::openapi::{
    rules::{self, Rules},
    scalars,
};

const RULES: Rules = Rules {
    always: &[
        (
            "401",
            "Token and credentials are missing or wrong, or the token's binding has ended",
        ),
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
        title = "Compose API 2016-07",
        description = "What a binding's token opens: the deployment behind one instance. The \
                       platform's own credentials open every instance. Those of operators who only \
                       read open what the pages show them of each: the instance, deployments, one recipe, \
                       and of a deployment alerts, backups, backup_schedule, defragmentations, history, \
                       members, recipes, scalings and versions, all by GET. Lists are not paged. Where a \
                       token does not lead to, there is a 404, whether that instance exists or not; a \
                       method that a path does not have is a 405.",
    ),
    paths(
        super::instance,
        super::accounts::accounts,
        super::accounts::user,
        super::alerts::alerts,
        super::history::history,
        super::logfiles::logfiles,
        super::logfiles::logfile,
        super::logfiles::download_log,
        super::members::members,
        super::clusters::clusters,
        super::clusters::cluster,
        super::clusters::datacenters,
        super::databases::databases,
        super::deployments::deployments,
        super::deployments::annotate,
        super::deployment,
        super::backups,
        super::back_up,
        super::backup,
        super::change_backup,
        super::schedule::backup_schedule,
        super::schedule::change_backup_schedule,
        super::restore::restore,
        super::prefix::restore_prefix,
        super::upload::uploads,
        super::upload::begin_upload,
        super::upload::upload,
        super::upload::send_upload,
        super::upload::give_up_upload,
        super::download,
        super::deployment_recipes,
        super::recipe,
        super::change::versions,
        super::change::upgrade,
        super::change::defragmentation,
        super::change::defragment,
        super::change::scalings,
        super::change::scale,
        super::change::relieve,
    ),
    components(schemas(ComposeErrorBody, scalars::OwnId, scalars::PlatformId)),
    security(("credentials" = []), ("platform" = [])),
)]
struct Compose;

/// The document.
pub fn document() -> Value {
    let scheme = json!({ "type": "http", "scheme": "bearer" });
    let mut document = rules::document(Compose::openapi(), &scheme, &RULES);
    let platform = json!({ "type": "http", "scheme": "basic" });
    document["components"]["securitySchemes"]["platform"] = platform;
    document
}
