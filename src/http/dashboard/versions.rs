//! The page of versions: what runs and what is known to be wrong with it, what it can become, and
//! what an upgrade would do before it is asked for.

use actix_web::{HttpRequest, http::StatusCode, web};
use askama::Template;
use serde_json::json;

use super::{
    Answer, Api,
    door::see_other,
    form_of,
    id::Id,
    path_of,
    shell::{Shell, answer},
    update,
};
use crate::{
    broker::{Broker, InstanceView, Preflight},
    http::request::query,
    model::{
        engine::{KnownFault, Severity, TransitionMethod},
        ids::InstanceId,
        session::Session,
        version::Version,
    },
};

#[derive(Template)]
#[template(path = "versions.html", whitespace = "minimize")]
struct VersionsPage {
    shell: Shell,
    href: String,
    engine: String,
    running: String,
    faults: Vec<Fault>,
    ways: Vec<Way>,
    rehearsal: Option<Rehearsal>,
}

/// A known fault of a version.
struct Fault {
    id: &'static str,
    severity: &'static str,
    tone: &'static str,
    summary: &'static str,
    fixed_in: String,
}

/// A version that can be reached.
struct Way {
    version: String,
    in_place: bool,
    restore: bool,
    faults: String,
}

/// What an upgrade would do.
struct Rehearsal {
    version: String,
    possible: bool,
    path: String,
    reasons: Vec<String>,
    notes: Vec<String>,
}

/// `GET /dashboard/instances/:iid/versions`
pub async fn page(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    Id(id): Id<InstanceId>,
    request: HttpRequest,
) -> Answer {
    let view = api.broker.views.instance_view(&session, id).await?;
    let asked = query(&request, "version").filter(|version| !version.is_empty());
    let rehearsal = match asked {
        Some(version) => Some(
            api.broker
                .upgrades
                .preflight(&view.of, &version)
                .await?
                .into(),
        ),
        None => None,
    };
    let deployment = &view.of.deployment;
    let faults = &view.database.faults;
    let page = VersionsPage {
        shell: Shell {
            follows: true,
            ..Shell::of_instance("Versions", &view, &api.broker, &session)
        },
        href: format!("{}/versions", path_of(&view.of.instance.id)),
        engine: deployment.engine.clone(),
        running: deployment.version.to_string(),
        faults: faults.iter().map(Fault::from).collect(),
        ways: ways(&api.broker, &view),
        rehearsal,
    };
    Ok(answer(StatusCode::OK, &page))
}

/// `POST /dashboard/instances/:iid/versions`
pub async fn upgrade(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    Id(id): Id<InstanceId>,
    payload: web::Payload,
) -> Answer {
    let form = form_of(&api, &session, payload).await?;
    let view = api.broker.views.instance_view(&session, id).await?;
    let parameters = json!({ "db_version": form.text("version") });
    update(&api, &view, parameters).await?;
    // There it is seen how it goes on.
    Ok(see_other(&path_of(&view.of.instance.id)))
}

fn ways(broker: &Broker, view: &InstanceView) -> Vec<Way> {
    let deployment = &view.of.deployment;
    let transitions = broker.inventory.transitions(deployment);
    let mut versions: Vec<Version> = transitions.iter().map(|t| t.to).collect();
    versions.dedup();
    let leads = |version, method| {
        transitions
            .iter()
            .any(|t| t.to == version && t.method == method)
    };
    let way = |version: Version| {
        let faults = broker.inventory.known_faults(&deployment.engine, version);
        let ids: Vec<&str> = faults.iter().map(|fault| fault.id).collect();
        Way {
            version: version.to_string(),
            in_place: leads(version, TransitionMethod::InPlace),
            restore: leads(version, TransitionMethod::Restore),
            faults: ids.join(", "),
        }
    };
    versions.into_iter().rev().map(way).collect()
}

impl From<&KnownFault> for Fault {
    fn from(fault: &KnownFault) -> Self {
        let tone = match fault.severity {
            Severity::LetsStrangersIn => "bad",
            Severity::Serious => "warn",
            Severity::Minor => "muted",
        };
        let fixed_in = fault.fixed_in;
        Self {
            id: fault.id,
            severity: fault.severity.words(),
            tone,
            summary: fault.summary,
            fixed_in: fixed_in.map_or_else(|| "no version".to_owned(), |v| v.to_string()),
        }
    }
}

impl From<Preflight> for Rehearsal {
    fn from(preflight: Preflight) -> Self {
        let path: Vec<String> = preflight.path.iter().map(Version::to_string).collect();
        Self {
            version: preflight.wanted,
            possible: preflight.reasons.is_empty(),
            path: path.join(", then "),
            reasons: preflight.reasons,
            notes: preflight.notes,
        }
    }
}
