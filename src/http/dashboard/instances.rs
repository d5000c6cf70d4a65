//! The operators' list of all instances, with a search.

use actix_web::{HttpRequest, http::StatusCode, web};
use askama::Template;

use super::{
    Answer, Api, path_of,
    shell::{Shell, answer},
    show::Moment,
    state::{Told, told_of_instance},
};
use crate::{http::request::query, model::session::Session};

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
    href: String,
    name: String,
    id: String,
    plan: String,
    organization: String,
    space: String,
    version: String,
    faults: usize,
    told: Told,
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
    let rows = found.into_iter().map(|(instance, deployment)| {
        let version = deployment
            .as_ref()
            .map(|of| format!("{} {}", of.engine, of.version));
        let is_closed = deployment
            .as_ref()
            .is_some_and(|of| of.closed_since.is_some());
        let faults = deployment.map(|of| api.broker.known_faults(&of.engine, of.version).len());
        let (offering, plan) = api.broker.offering_name(&instance);
        let tenant = &instance.tenant;
        Row {
            href: path_of(&instance.id),
            name: instance.name.clone().unwrap_or_default(),
            id: instance.id.to_string(),
            plan: format!("{offering} {plan}"),
            organization: tenant.organization.clone(),
            space: tenant.space.clone(),
            version: version.unwrap_or_default(),
            faults: faults.unwrap_or_default(),
            told: told_of_instance(instance.state, is_closed),
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
    let page = InstancesPage {
        shell,
        rows: rows.collect(),
        newer: (number > 1).then(|| link(number - 1)),
        older: more.then(|| link(number + 1)),
        text,
    };
    Ok(answer(StatusCode::OK, &page))
}
