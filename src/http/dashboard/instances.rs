//! The operators' list of all instances: searched, held to a state, a cluster or a version, in the order
//! that one asks for.

use std::collections::BTreeSet;

use actix_web::{HttpRequest, http::StatusCode, web};
use askama::Template;

use super::{
    Answer, Api, INSTANCES,
    operator::{Choice, Count, address, counts, page_number},
    path_of,
    shell::{Shell, answer, deletion_asked, is_being_deleted},
    show::{Moment, counted, dates_whole},
    state::{Label, label_of_health},
};
use crate::{
    broker::{EstateQuery, Listed, Order},
    http::request::query,
    model::{health::HealthState, instance::InstanceState, session::Session, size::size},
};

#[derive(Template)]
#[template(path = "instances.html", whitespace = "minimize")]
struct InstancesPage {
    shell: Shell,
    counts: Vec<Count>,
    text: String,
    healths: Vec<Choice>,
    clusters: Vec<Choice>,
    versions: Vec<Choice>,
    /// What the forms keep of the address.
    order: &'static str,
    reverse: bool,
    is_narrowed: bool,
    columns: Vec<Column>,
    rows: Vec<Row>,
    found: String,
    is_cut: bool,
    newer: Option<String>,
    older: Option<String>,
}

/// A column that the list can be ordered by.
struct Column {
    title: &'static str,
    href: String,
    /// How it is ordered now, for those who do not see it; none: it is not.
    sorted: Option<&'static str>,
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
    size: String,
    units: String,
    label: Label,
    /// What is the matter.
    message: String,
    last_backup: Option<Moment>,
    is_late: bool,
    created: Moment,
}

/// What the list is ordered by where its address does not say: what is not well comes first.
const FIRST: Order = Order::Health;

/// What the address asks for.
struct Asked {
    of: EstateQuery,
    health: String,
    cluster: String,
    version: String,
}

impl Asked {
    fn read(request: &HttpRequest) -> Self {
        let given = |name: &str| query(request, name).unwrap_or_default().trim().to_owned();
        let (health, cluster, version) = (given("health"), given("cluster"), given("version"));
        Self {
            of: EstateQuery {
                text: given("q"),
                health: HealthState::parse(&health),
                cluster: Some(cluster.clone()).filter(|cluster| !cluster.is_empty()),
                version: version.parse().ok(),
                order: Order::parse(&given("sort")).unwrap_or(FIRST),
                reverse: given("reverse") == "1",
                page: page_number(request),
            },
            health,
            cluster,
            version,
        }
    }

    /// The address of the same list on another page, or in another order.
    fn address(&self, page: usize, order: Order, reverse: bool) -> String {
        let page = if page > 1 {
            page.to_string()
        } else {
            String::new()
        };
        let order = if order == FIRST { "" } else { order.as_str() };
        let query = [
            ("q", self.of.text.as_str()),
            ("health", &self.health),
            ("cluster", &self.cluster),
            ("version", &self.version),
            ("sort", order),
            ("reverse", if reverse { "1" } else { "" }),
            ("page", &page),
        ];
        address(INSTANCES, &query)
    }

    fn column(&self, title: &'static str, order: Order) -> Column {
        let is_it = self.of.order == order;
        let goes_up = matches!(
            order,
            Order::Name | Order::Version | Order::Backup | Order::Tenant
        );
        let sorted = if goes_up == self.of.reverse {
            "descending"
        } else {
            "ascending"
        };
        Column {
            title,
            href: self.address(1, order, is_it && !self.of.reverse),
            sorted: is_it.then_some(sorted),
        }
    }
}

/// The columns of the list, and what each orders it by.
const COLUMNS: [(&str, Order); 7] = [
    ("Instance", Order::Name),
    ("Health", Order::Health),
    ("Version", Order::Version),
    ("Size", Order::Size),
    ("Last backup", Order::Backup),
    ("Organization / space", Order::Tenant),
    ("Created", Order::Created),
];

/// `GET /dashboard/instances`
pub async fn page(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    request: HttpRequest,
) -> Answer {
    let asked = Asked::read(&request);
    let estate = api.broker.estates.estate().await?;
    let found = estate.page(&asked.of);
    // Each instance that is shown is looked at, for the next time.
    let usable = (found.shown.iter()).filter(|of| of.instance.state == InstanceState::Ready);
    for deployment in usable.filter_map(|of| of.deployment.as_ref()) {
        api.broker.vitals.observation(deployment);
    }
    let waits = (found.shown.iter()).any(|of| of.health.state == HealthState::Unknown);
    let deployments = || {
        estate
            .instances
            .iter()
            .filter_map(|of| of.deployment.as_ref())
    };
    let versions: BTreeSet<_> = deployments().map(|of| of.version).collect();
    let clusters: BTreeSet<&str> = deployments().map(|of| of.cluster.as_str()).collect();
    let name = |id: &&str| ((*id).to_owned(), api.broker.inventory.cluster_name(id));
    let healths = HealthState::ALL.iter().rev();
    let link = |page: usize| asked.address(page, asked.of.order, asked.of.reverse);
    let mut shell = Shell::signed_in("All instances", &api.broker, &session);
    shell.here = "instances";
    shell.follows = true;
    shell.said = deletion_asked(&request).and_then(|id| {
        let of = estate.instances.iter().find(|of| of.instance.id == id)?;
        Some(is_being_deleted(of.name()))
    });
    shell.awaits = waits;
    let page = InstancesPage {
        shell,
        counts: counts(&api, &estate).await?,
        healths: Choice::among(
            "Any health",
            healths.map(|of| (of.as_str().to_owned(), of.word().to_owned())),
            &asked.health,
        ),
        clusters: Choice::among("Any cluster", clusters.iter().map(name), &asked.cluster),
        versions: Choice::among(
            "Any version",
            versions.iter().map(|of| (of.to_string(), of.to_string())),
            &asked.version,
        ),
        order: asked.of.order.as_str(),
        reverse: asked.of.reverse,
        is_narrowed: found.found < estate.instances.len(),
        columns: COLUMNS
            .map(|(title, order)| asked.column(title, order))
            .into(),
        rows: found.shown.iter().map(|of| row(&api, of)).collect(),
        found: counted(found.found, "instance"),
        is_cut: estate.is_cut,
        newer: (found.page > 1).then(|| link(found.page - 1)),
        older: (found.page < found.pages).then(|| link(found.page + 1)),
        text: asked.of.text.clone(),
    };
    Ok(answer(StatusCode::OK, &page))
}

fn row(api: &Api, of: &Listed) -> Row {
    let now = api.broker.clock.now();
    let (instance, health, deployment) = (&of.instance, &of.health, of.deployment.as_ref());
    let version = deployment.map(|of| format!("{} {}", of.engine, of.version));
    let faults = deployment.map(|of| {
        api.broker
            .inventory
            .known_faults(&of.engine, of.version)
            .len()
    });
    let (offering, plan) = api.broker.inventory.offering_name(instance);
    Row {
        key: instance.id.in_path(),
        href: path_of(&instance.id),
        name: instance.name.clone().unwrap_or_default(),
        id: instance.id.to_string(),
        plan: format!("{offering} {plan}"),
        organization: instance.tenant.organization.clone(),
        space: instance.tenant.space.clone(),
        version: version.unwrap_or_default(),
        faults: faults.unwrap_or_default(),
        size: of.database_bytes.map_or_else(String::new, size),
        units: deployment.map_or_else(String::new, |of| {
            format!("{}, {}", counted(of.units, "unit"), size(of.quota_bytes()))
        }),
        label: label_of_health(health.state),
        message: dates_whole(&health.message),
        last_backup: of.last_backup.map(|at| Moment::new(at, now)),
        is_late: of.late.is_some(),
        created: Moment::new(instance.created_at, now),
    }
}
