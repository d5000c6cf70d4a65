//! HTTP: shapes and status codes, no rules. Every route stands on this screen.
//!
//! Order of checks on `/v2`: credentials, version, path, body. Every answer is JSON (downloads
//! apart) and echoes the platform's request identity.

use actix_web::{middleware::from_fn, web};

use self::{
    compose::error::ComposeError,
    dashboard::{
        activity, backups, credentials, door, error::PageError, imports, instances, keys,
        operator as pages, overview, restore, room, settings, versions,
    },
    limit::limited,
    operator::{error::OperatorError, operations},
    osb::error::OsbError,
};
mod advisory;
mod api;
mod compose;
mod dashboard;
mod draining;
mod error;
mod fallback;
pub mod gate;
mod health;
mod health_body;
mod id;
mod limit;
pub mod listener_check;
mod metrics;
mod openapi;
mod operator;
pub mod origin;
mod osb;
mod path;
pub mod readiness;
mod request;
pub mod scrapes;
pub mod server;
pub mod tls;
mod trace;

pub use api::Api;

/// Every route.
pub fn routes(config: &mut web::ServiceConfig) {
    config
        .service(
            only("/")
                .route(web::get().to(door::root))
                .route(web::head().to(door::root)),
        )
        .service(
            only("/healthz")
                .route(web::get().to(health::alive))
                .route(web::head().to(health::alive)),
        )
        .service(
            only("/readyz")
                .route(web::get().to(health::ready))
                .route(web::head().to(health::ready)),
        )
        .service(
            only("/metrics")
                .wrap(from_fn(limited::<OperatorError, _>))
                .route(web::get().to(metrics::scrape)),
        )
        .configure(openapi_routes)
        .configure(osb_routes)
        .configure(operator_routes)
        .configure(compose_routes)
        .configure(dashboard_routes)
        .default_service(web::to(fallback::no_such_route));
}

/// The routes of the address that metrics have for themselves.
pub fn metrics_routes(config: &mut web::ServiceConfig) {
    config
        .service(only("/metrics").route(web::get().to(metrics::scrape_aside)))
        .default_service(web::to(fallback::no_such_route));
}

/// The documents of the APIs.
fn openapi_routes(config: &mut web::ServiceConfig) {
    config.service(
        web::scope("/openapi")
            .wrap(from_fn(limited::<OsbError, _>))
            .service(only("/osb.json").route(web::get().to(openapi::osb)))
            .service(only("/compose.json").route(web::get().to(openapi::compose)))
            .service(only("/operator.json").route(web::get().to(openapi::operator)))
            .default_service(web::to(fallback::no_such_route)),
    );
}

/// The Open Service Broker API.
fn osb_routes(config: &mut web::ServiceConfig) {
    config.service(
        web::scope("/v2")
            .wrap(from_fn(osb::guard))
            .wrap(from_fn(limited::<OsbError, _>))
            .service(only("/catalog").route(web::get().to(osb::catalog)))
            .service(
                only("/service_instances/{instance}")
                    .route(web::put().to(osb::provision))
                    .route(web::get().to(osb::fetch_instance))
                    .route(web::patch().to(osb::update))
                    .route(web::delete().to(osb::deprovision)),
            )
            .service(
                only("/service_instances/{instance}/last_operation")
                    .route(web::get().to(osb::instance_last_operation)),
            )
            .service(
                only("/service_instances/{instance}/service_bindings/{binding}")
                    .route(web::put().to(osb::bind))
                    .route(web::get().to(osb::fetch_binding))
                    .route(web::delete().to(osb::unbind)),
            )
            .service(
                only("/service_instances/{instance}/service_bindings/{binding}/last_operation")
                    .route(web::get().to(osb::binding_last_operation)),
            )
            .default_service(web::to(fallback::no_such_route)),
    );
}

/// The operator's API.
fn operator_routes(config: &mut web::ServiceConfig) {
    config.service(
        web::scope("/operator")
            .wrap(from_fn(operator::guard))
            .wrap(from_fn(limited::<OperatorError, _>))
            .service(
                only("/reconciliation")
                    .route(web::get().to(operator::reconciliation))
                    .route(web::post().to(operator::reconcile)),
            )
            .service(only("/reconcile").route(web::post().to(operator::reconcile_deployment)))
            .service(only("/volumes").route(web::get().to(operator::volumes::list)))
            .service(only("/webhook/test").route(web::post().to(operator::webhook::test)))
            .service(only("/audit").route(web::get().to(operator::audit)))
            .service(
                only("/clock")
                    .route(web::get().to(operator::clock::show))
                    .route(web::post().to(operator::clock::trust)),
            )
            .service(
                only("/owners")
                    .route(web::get().to(operator::owners))
                    .route(web::post().to(operator::change_owners)),
            )
            .service(only("/versions").route(web::get().to(operator::versions)))
            .service(only("/mirror").route(web::get().to(operator::mirror::show)))
            .service(only("/deleted_instances").route(web::get().to(operator::deleted::list)))
            .service(
                only("/deleted_instances/{deployment}")
                    .route(web::delete().to(operator::deleted::purge)),
            )
            .service(only("/instances").route(web::get().to(operator::instances::list)))
            .service(only("/instances/{instance}").route(web::get().to(operator::instances::show)))
            .service(
                only("/instances/{instance}/dashboard-link")
                    .route(web::post().to(operator::instances::dashboard_link)),
            )
            .service(
                only("/instances/{instance}/recover")
                    .route(web::post().to(operator::members::recover)),
            )
            .service(
                only("/instances/{instance}/renew").route(web::post().to(operator::members::renew)),
            )
            .service(
                only("/instances/{instance}/repair")
                    .route(web::post().to(operator::members::repair)),
            )
            .service(only("/operations").route(web::get().to(operations::list)))
            .service(only("/operations/{operation}").route(web::get().to(operations::show)))
            .service(only("/operations/{operation}/retry").route(web::post().to(operations::retry)))
            .service(
                only("/operations/{operation}/abandon").route(web::post().to(operations::abandon)),
            )
            .default_service(web::to(fallback::no_such_route)),
    );
}

/// The Compose API. A link of a download carries its own permission.
fn compose_routes(config: &mut web::ServiceConfig) {
    config
        .service(
            either("/api/2016-07/instances/{instance}/deployments/{deployment}/backups/{backup}/download")
                .wrap(from_fn(limited::<ComposeError, _>))
                .route(web::get().to(compose::download)),
        )
        .service(
            either("/api/2016-07/instances/{instance}/deployments/{deployment}/logfiles/{logfile}/download")
                .wrap(from_fn(limited::<ComposeError, _>))
                .route(web::get().to(compose::download_log)),
        )
        .service(
            web::scope("/api/2016-07/instances/{instance}")
                .wrap(from_fn(compose::guard))
                .wrap(from_fn(limited::<ComposeError, _>))
                .service(either("").route(web::get().to(compose::instance)))
                .service(either("/deployments").route(web::get().to(compose::deployments)))
                .configure(deployment_routes)
                .service(either("/recipes/{recipe}").route(web::get().to(compose::recipe)))
                .service(either("/clusters").route(web::get().to(compose::clusters)))
                .service(either("/clusters/{cluster}").route(web::get().to(compose::cluster)))
                .service(either("/databases").route(web::get().to(compose::databases)))
                .service(either("/datacenters").route(web::get().to(compose::datacenters)))
                .service(either("/accounts").route(web::get().to(compose::accounts)))
                .service(either("/user").route(web::get().to(compose::user)))
                .default_service(web::to(fallback::no_such_route)),
        );
}

/// What the Compose API has of one deployment.
fn deployment_routes(config: &mut web::ServiceConfig) {
    config
        .service(
            either("/deployments/{deployment}")
                .route(web::get().to(compose::deployment))
                .route(web::patch().to(compose::annotate)),
        )
        .configure(backup_routes)
        .service(
            either("/deployments/{deployment}/recipes")
                .route(web::get().to(compose::deployment_recipes)),
        )
        .service(
            either("/deployments/{deployment}/versions")
                .route(web::get().to(compose::versions))
                .route(web::patch().to(compose::upgrade)),
        )
        .service(
            either("/deployments/{deployment}/scalings")
                .route(web::get().to(compose::scalings))
                .route(web::post().to(compose::scale)),
        )
        .service(
            either("/deployments/{deployment}/reliefs").route(web::post().to(compose::relieve)),
        )
        .service(
            either("/deployments/{deployment}/defragmentations")
                .route(web::get().to(compose::defragmentation))
                .route(web::post().to(compose::defragment)),
        )
        .service(
            either("/deployments/{deployment}/logfiles").route(web::get().to(compose::logfiles)),
        )
        .service(
            either("/deployments/{deployment}/logfiles/{logfile}")
                .route(web::get().to(compose::logfile)),
        )
        .service(either("/deployments/{deployment}/members").route(web::get().to(compose::members)))
        .service(either("/deployments/{deployment}/alerts").route(web::get().to(compose::alerts)))
        .service(
            either("/deployments/{deployment}/history").route(web::get().to(compose::history)),
        );
}

/// What the Compose API has of a deployment's backups.
fn backup_routes(config: &mut web::ServiceConfig) {
    config
        .service(
            either("/deployments/{deployment}/backups")
                .route(web::get().to(compose::backups))
                .route(web::post().to(compose::back_up)),
        )
        .service(
            either("/deployments/{deployment}/uploads")
                .route(web::get().to(compose::uploads))
                .route(web::post().to(compose::begin_upload)),
        )
        .service(
            either("/deployments/{deployment}/uploads/{backup}")
                .route(web::get().to(compose::upload))
                .route(web::patch().to(compose::send_upload))
                .route(web::delete().to(compose::give_up_upload)),
        )
        .service(
            either("/deployments/{deployment}/backup_schedule")
                .route(web::get().to(compose::backup_schedule))
                .route(web::patch().to(compose::change_backup_schedule)),
        )
        .service(
            either("/deployments/{deployment}/backups/{backup}")
                .route(web::get().to(compose::backup))
                .route(web::patch().to(compose::change_backup)),
        )
        .service(
            either("/deployments/{deployment}/backups/{backup}/restore")
                .route(web::post().to(compose::restore)),
        )
        .service(
            either("/deployments/{deployment}/backups/{backup}/restore_prefix")
                .route(web::post().to(compose::restore_prefix)),
        );
}

/// Pages for people.
fn dashboard_routes(config: &mut web::ServiceConfig) {
    config.service(
        web::scope("/dashboard")
            .wrap(from_fn(limited::<PageError, _>))
            .wrap(from_fn(dashboard::guarded_against_harm))
            .service(page("").route(web::get().to(door::home)))
            .service(
                page("/sign-in")
                    .route(web::get().to(door::sign_in_page))
                    .route(web::post().to(door::sign_in)),
            )
            .service(
                page("/link")
                    .route(web::get().to(door::link_page))
                    .route(web::post().to(door::redeem)),
            )
            .service(page("/assets/{asset}").route(web::get().to(dashboard::asset)))
            .service(
                page("/sign-out")
                    .wrap(from_fn(door::guard))
                    .route(web::post().to(door::sign_out)),
            )
            .configure(pages_of_operations)
            .service(for_operators("/late-backups").route(web::get().to(pages::backups::page)))
            .service(for_operators("/deleted").route(web::get().to(pages::deleted::page)))
            .service(for_operators("/clusters").route(web::get().to(pages::clusters::page)))
            .service(for_operators("/webhook/test").route(web::post().to(pages::webhook::test)))
            .service(for_operators("/audit").route(web::get().to(pages::audit::page)))
            .configure(pages_of_instances)
            .default_service(web::to(dashboard::error::no_such_page)),
    );
}

/// Pages of all operations, for operators.
fn pages_of_operations(config: &mut web::ServiceConfig) {
    config.service(
        web::scope("/operations")
            .wrap(from_fn(pages::guard))
            .wrap(from_fn(door::guard))
            .service(page("").route(web::get().to(pages::operations::page)))
            .service(page("/{operation}").route(web::get().to(pages::operations::show)))
            .service(page("/{operation}/retry").route(web::post().to(pages::operations::retry)))
            .service(page("/{operation}/abandon").route(web::post().to(pages::operations::abandon)))
            .default_service(web::to(dashboard::error::no_such_page)),
    );
}

/// Pages of instances, for who may see each.
fn pages_of_instances(config: &mut web::ServiceConfig) {
    config.service(
        web::scope("/instances")
            .wrap(from_fn(door::guard))
            .service(
                page("")
                    .wrap(from_fn(pages::guard))
                    .route(web::get().to(instances::page)),
            )
            .service(page("/{instance}").route(web::get().to(overview::page)))
            .service(
                page("/{instance}/defragmentation").route(web::post().to(overview::defragment)),
            )
            .configure(backups_of_instances)
            .service(
                page("/{instance}/credentials")
                    .route(web::get().to(credentials::page))
                    .route(web::post().to(credentials::make)),
            )
            .service(
                page("/{instance}/credentials/{binding}/show")
                    .route(web::post().to(credentials::show)),
            )
            .service(
                page("/{instance}/credentials/{binding}/rotate")
                    .route(web::post().to(credentials::rotate)),
            )
            .service(
                page("/{instance}/credentials/{binding}/revoke")
                    .route(web::post().to(credentials::revoke)),
            )
            .service(
                page("/{instance}/room")
                    .route(web::get().to(room::page))
                    .route(web::post().to(room::make)),
            )
            .configure(settings_of_instances)
            .service(page("/{instance}/activity").route(web::get().to(activity::page)))
            .service(page("/{instance}/activity/repair").route(web::post().to(activity::repair)))
            .service(
                page("/{instance}/activity/logs/{logfile}")
                    .route(web::get().to(activity::download)),
            )
            .service(
                page("/{instance}/versions")
                    .route(web::get().to(versions::page))
                    .route(web::post().to(versions::upgrade)),
            )
            .default_service(web::to(dashboard::error::no_such_page)),
    );
}

/// The backups of an instance, and what is done with one.
fn backups_of_instances(config: &mut web::ServiceConfig) {
    config
        .service(
            page("/{instance}/backups")
                .route(web::get().to(backups::page))
                .route(web::post().to(backups::back_up)),
        )
        .service(
            page("/{instance}/backups/{backup}/restore")
                .route(web::get().to(restore::page))
                .route(web::post().to(restore::restore)),
        )
        .service(
            page("/{instance}/backups/{backup}/keys")
                .route(web::get().to(keys::page))
                .route(web::post().to(keys::restore)),
        )
        .service(
            page("/{instance}/import")
                .route(web::get().to(imports::page))
                .route(web::post().to(imports::begin)),
        )
        .service(
            page("/{instance}/import/{backup}")
                .route(web::get().to(imports::look))
                .route(web::patch().to(imports::send)),
        )
        .service(page("/{instance}/import/{backup}/end").route(web::post().to(imports::give_up)))
        .service(page("/{instance}/backups/{backup}/keep").route(web::post().to(backups::keep)))
        .service(
            page("/{instance}/backups/{backup}/download").route(web::get().to(backups::download)),
        );
}

/// The page where an instance is changed.
fn settings_of_instances(config: &mut web::ServiceConfig) {
    config
        .service(page("/{instance}/settings").route(web::get().to(settings::page)))
        .service(page("/{instance}/settings/size").route(web::post().to(settings::scale)))
        .service(page("/{instance}/settings/name").route(web::post().to(settings::rename)))
        .service(page("/{instance}/settings/protection").route(web::post().to(settings::protect)))
        .service(page("/{instance}/settings/schedule").route(web::post().to(settings::schedule)))
        .service(page("/{instance}/settings/deletion").route(web::post().to(settings::delete)));
}

/// A resource whose other methods are answered in JSON too.
fn only(path: &str) -> actix_web::Resource {
    web::resource(path).default_service(web::to(fallback::no_such_method))
}

/// The same for pages of the dashboard.
fn page(path: &str) -> actix_web::Resource {
    web::resource([path.to_owned(), format!("{path}/")])
        .default_service(web::to(dashboard::error::no_such_page_method))
}

/// The same for pages of operators.
fn for_operators(
    path: &str,
) -> actix_web::Resource<
    impl actix_web::dev::ServiceFactory<
        actix_web::dev::ServiceRequest,
        Config = (),
        Response = actix_web::dev::ServiceResponse<impl actix_web::body::MessageBody>,
        Error = actix_web::Error,
        InitError = (),
    >,
> {
    page(path)
        .wrap(from_fn(pages::guard))
        .wrap(from_fn(door::guard))
}

/// The same for paths that clients of the Compose API write with and without a slash at the end.
fn either(path: &str) -> actix_web::Resource {
    web::resource([path.to_owned(), format!("{path}/")])
        .default_service(web::to(fallback::no_such_method))
}
