//! The operators' list of all instances, with a search.

use actix_web::{HttpRequest, http::StatusCode, web};
use askama::Template;

use super::{
    Answer, Api, path_of,
    shell::{Shell, answer},
    show::Moment,
    state::{Label, label_of_health},
};
use crate::{
    http::request::query,
    model::{health::HealthState, session::Session},
};

#[derive(Template)]
#[template(path = "instances.html", whitespace = "minimize")]
struct InstancesPage {
    shell: Shell,
    text: String,
    rows: Vec<Row>,
    newer: Option<String>,
    older: Option<String>,
}

struct Row {
    /// What tells its row from others.
    key: String,
    href: String,
    name: String,
    id: String,
    plan: String,
    organization: String,
    space: String,
    version: String,
    faults: usize,
    label: Label,
    /// What is the matter.
    message: String,
    created: Moment,
}

/// `GET /dashboard/instances`
pub async fn page(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    request: HttpRequest,
) -> Answer {
    let text = query(&request, "q").unwrap_or_default().trim().to_owned();
    let number = query(&request, "page").and_then(|page| page.parse().ok());
    let number: usize = number.unwrap_or(1).clamp(1, 1_000_000);
    let (found, more) = api.broker.instances_found(&session, &text, number).await?;
    let now = api.broker.clock.now();
    // What nobody has seen lately is being looked at.
    let waits = found
        .iter()
        .any(|of| of.health.state == HealthState::Unknown);
    let rows = found.into_iter().map(|of| {
        let (instance, health) = (of.instance, of.health);
        let version = of
            .deployment
            .as_ref()
            .map(|of| format!("{} {}", of.engine, of.version));
        let faults = of
            .deployment
            .map(|of| api.broker.known_faults(&of.engine, of.version).len());
        let (offering, plan) = api.broker.offering_name(&instance);
        let tenant = &instance.tenant;
        Row {
            key: instance.id.in_path(),
            href: path_of(&instance.id),
            name: instance.name.clone().unwrap_or_default(),
            id: instance.id.to_string(),
            plan: format!("{offering} {plan}"),
            organization: tenant.organization.clone(),
            space: tenant.space.clone(),
            version: version.unwrap_or_default(),
            faults: faults.unwrap_or_default(),
            label: label_of_health(health.state),
            message: health.message,
            created: Moment::new(instance.created_at, now),
        }
    });
    let link = |page: usize| {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("q", &text);
        query.append_pair("page", &page.to_string());
        format!("/dashboard/instances?{}", query.finish())
    };
    let mut shell = Shell::signed_in("All instances", &api.broker, &session);
    shell.here = "instances";
    shell.follows = true;
    shell.awaits = waits;
    let page = InstancesPage {
        shell,
        rows: rows.collect(),
        newer: (number > 1).then(|| link(number - 1)),
        older: more.then(|| link(number + 1)),
        text,
    };
    Ok(answer(StatusCode::OK, &page))
}
