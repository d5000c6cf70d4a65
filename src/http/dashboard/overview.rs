//! The overview of one instance: how it is, how large, how to reach it, what was done to it.

mod lineage;
mod members;
mod storage;

use std::collections::BTreeMap;

use actix_web::{HttpRequest, http::StatusCode, web};
use askama::Template;
use lineage::{
    DeletedRestore, From, Link, deleted_restore, from, links_to_restored, what_became_of,
};
use members::{Members, members};
use storage::{StorageCard, storage};

use super::{
    Answer, Api,
    bar::Bar,
    command::line,
    door::see_other,
    form_of,
    history::{Drawing, drawings},
    id::Id,
    path_of,
    remedy::{self, Remedy},
    shell::{Shell, Subject, answer, deletion_asked},
    show::{Moment, counted, dates_whole, duration},
    state::{Label, label_of_alert, label_of_health, label_of_task},
};
use crate::{
    broker::{Broker, InstanceView, Restored},
    http::compose,
    model::{
        alert::{Alert, Gravity},
        deployment::Deployment,
        engine::Profile,
        health::{DownReason, Health, HealthState},
        history::History,
        ids::{InstanceId, OperationId},
        instance::InstanceState,
        limits::{OBSERVATION_FRESH, TASKS_SHOWN},
        observation::Observation,
        operation::{Operation, OperationKind, OperationState},
        origin::Origin,
        period::BackupKind,
        recovery,
        session::{Scope, Session},
        size::size,
    },
};

/// What stands for a user's name and password, which are the binding's alone.
const LOGIN: &str = "USER:PASSWORD";

#[derive(Template)]
#[template(path = "overview.html", whitespace = "minimize")]
struct OverviewPage {
    shell: Shell,
    name: String,
    href: String,
    is_ready: bool,
    is_deleting: bool,
    is_down: bool,
    headline: Headline,
    members: Members,
    backup: Option<GoodBackup>,
    storage: StorageCard,
    about: About,
    from: Option<From>,
    tasks: Tasks,
    connection: Connection,
    administration: Administration,
    restores: Vec<Link>,
    deleted_restores: Vec<DeletedRestore>,
    /// How the database was over time.
    drawings: Vec<Drawing>,
    is_restored: bool,
}

/// How the instance is.
struct Headline {
    state: Label,
    /// What is the matter, since when, and what to do.
    message: String,
    /// What operators can do about it.
    for_operators: Option<String>,
    /// Where that is done.
    links: Vec<Remedy>,
    since: Option<Moment>,
    alerts: Vec<AlertLine>,
    change: Option<Bar>,
}

/// What the database is.
struct About {
    type_and_version: String,
    newer: Option<String>,
    faults: Option<String>,
    facts: Vec<Fact>,
}

struct Tasks {
    rows: Vec<Task>,
    /// Where the tasks before those are.
    older: Option<String>,
}

/// How applications reach it.
struct Connection {
    uris: String,
    cli: String,
    certificate: Option<String>,
}

/// How its API is reached.
struct Administration {
    endpoint: String,
    deployment: String,
    curl: String,
}

struct AlertLine {
    text: String,
    label: Label,
    /// Where something is done about it.
    links: Vec<Remedy>,
}

struct Fact {
    name: &'static str,
    value: String,
    id: &'static str,
}

struct GoodBackup {
    taken: Moment,
    size: String,
    kind: &'static str,
}

struct Task {
    id: String,
    name: String,
    label: Label,
    began: Moment,
    /// Through which door it was asked for.
    by: &'static str,
    /// Who stood there; empty where nobody knows.
    user: String,
    /// How long it took; none: it goes on.
    took: Option<String>,
    detail: String,
    bar: Option<Bar>,
}

/// `GET /dashboard/instances/:iid`
pub async fn page(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    request: HttpRequest,
    Id(id): Id<InstanceId>,
) -> Answer {
    let view = api.broker.views.instance_view(&session, id).await?;
    let restored = view.restores.iter().map(|of| of.instance.clone());
    let healths = api.broker.vitals.healths(restored.collect()).await?;
    let healths: Vec<Health> = healths.into_iter().map(|(_, health)| health).collect();
    let history = api.broker.histories.of(&view.of).await?;
    let told = listed(&view).chain(view.restores.iter().map(|of| &of.restore));
    let askers = api.broker.oversight.askers(told).await?;
    let known = Known {
        restored: &healths,
        history: &history,
        askers: &askers,
    };
    let mut page = overview(&api.broker, &session, &view, &known);
    page.shell.said = deletion_asked(&request).and_then(|id| what_became_of(&view, &id));
    Ok(answer(StatusCode::OK, &page))
}

/// `POST /dashboard/instances/:iid/defragmentation`
pub async fn defragment(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    Id(id): Id<InstanceId>,
    payload: web::Payload,
) -> Answer {
    form_of(&api, &session, payload).await?;
    let view = api.broker.views.instance_view(&session, id).await?;
    api.broker
        .upkeep
        .defragment(&view.of, Origin::Dashboard)
        .await?;
    Ok(see_other(&path_of(&view.of.instance.id)))
}

/// What is known beside the instance itself.
struct Known<'a> {
    /// How the instances are that were restored from it.
    restored: &'a [Health],
    history: &'a History,
    /// Who asked for operations.
    askers: &'a BTreeMap<OperationId, String>,
}

fn overview(
    broker: &Broker,
    session: &Session,
    view: &InstanceView,
    known: &Known<'_>,
) -> OverviewPage {
    let (instance, deployment) = (&view.of.instance, &view.of.deployment);
    let is_ready = instance.state == InstanceState::Ready;
    let seen = if is_ready {
        broker.vitals.observation(deployment)
    } else {
        None
    };
    let last_seen = seen.clone().or_else(|| broker.vitals.last_seen(deployment));
    let seen = seen.as_deref();
    let health = view.health(last_seen.as_deref());
    let down = health.down.filter(|_| is_ready);
    let urls = broker.inventory.urls(deployment);
    let looks = |health: &Health| health.state == HealthState::Unknown;
    OverviewPage {
        shell: Shell {
            here: "overview",
            follows: true,
            under_way: is_under_way(view),
            awaits: is_ready && awaits(view, seen) || known.restored.iter().any(looks),
            subject: Some(Subject::of(view)),
            ..Shell::signed_in(
                format!("{}: {}", view.name(), health.state.word()),
                broker,
                session,
            )
        },
        name: view.name().to_owned(),
        href: path_of(&instance.id),
        is_ready,
        is_deleting: instance.state == InstanceState::Deleting,
        is_down: down.is_some(),
        headline: Headline {
            for_operators: (down == Some(DownReason::Members) && session.scope == Scope::Operator)
                .then(|| recovery::for_operators(instance.id.as_str())),
            ..headline(view, seen, health)
        },
        members: members(view, seen, &urls),
        backup: good_backup(view),
        storage: storage(view, seen, down),
        about: about(broker, view),
        from: view.of.source.as_ref().map(|source| from(view, source)),
        tasks: tasks(view, known.askers),
        connection: connection(view, &urls),
        administration: administration(broker, deployment, &instance.id),
        restores: links_to_restored(session, view, known.restored, known.askers),
        deleted_restores: (view.deleted_restores.iter())
            .map(|of| deleted_restore(session, of, view.now))
            .collect(),
        drawings: drawings(known.history, view.of.instance.created_at, view.now),
        is_restored: instance.restored_from.is_some(),
    }
}

fn headline(view: &InstanceView, seen: Option<&Observation>, health: Health) -> Headline {
    let change = view.running_change();
    Headline {
        state: label_of_health(health.state),
        message: dates_whole(&health.message),
        for_operators: None,
        links: remedy::of_health(view, seen),
        since: health.since.map(|since| Moment::new(since, view.now)),
        alerts: alert_lines(view, seen),
        change: change.map(|o| Bar::of(o, view.now)),
    }
}

fn about(broker: &Broker, view: &InstanceView) -> About {
    let deployment = &view.of.deployment;
    let is_ready = view.of.instance.state == InstanceState::Ready;
    let newest = broker.inventory.transitions(deployment).pop();
    let newest = newest.filter(|_| is_ready);
    About {
        type_and_version: format!("{} ({})", deployment.engine, deployment.version),
        newer: newest.map(|transition| transition.to.to_string()),
        faults: faults(view.database.faults.len()),
        facts: facts(broker, view),
    }
}

/// The operations that stand among the recent tasks, and one more where there are more.
fn listed(view: &InstanceView) -> impl Iterator<Item = &Operation> {
    view.operations
        .iter()
        .filter(is_listed)
        .take(TASKS_SHOWN + 1)
}

fn tasks(view: &InstanceView, askers: &BTreeMap<OperationId, String>) -> Tasks {
    let told: Vec<&Operation> = listed(view).collect();
    let shown = &told[..told.len().min(TASKS_SHOWN)];
    let older = shown.last().filter(|_| told.len() > TASKS_SHOWN);
    let href = path_of(&view.of.instance.id);
    Tasks {
        rows: shown.iter().map(|o| task(view, o, askers)).collect(),
        older: older.map(|last| format!("{href}/activity?tasks={}#h-tasks", last.id)),
    }
}

fn connection(view: &InstanceView, urls: &[String]) -> Connection {
    Connection {
        uris: uris(view),
        cli: view.profile.map_or_else(String::new, |of| {
            (of.command_line)(view.of.deployment.version, urls, LOGIN)
        }),
        certificate: view.of.ca_certificate.clone(),
    }
}

fn administration(
    broker: &Broker,
    deployment: &Deployment,
    instance: &InstanceId,
) -> Administration {
    let endpoint = compose::foundation_endpoint(broker, instance);
    let backups = format!("{endpoint}/deployments/{}/backups", deployment.id);
    Administration {
        curl: line(&["curl", "-sS", "-H", "Authorization: Bearer TOKEN", &backups]),
        endpoint,
        deployment: deployment.id.to_string(),
    }
}

/// Why the database is down, as its members were seen last; none where it is not.
pub(super) fn down(broker: &Broker, view: &InstanceView) -> Option<DownReason> {
    let deployment = &view.of.deployment;
    let is_ready = view.of.instance.state == InstanceState::Ready;
    let seen = is_ready.then(|| broker.vitals.observation(deployment));
    let seen = seen
        .flatten()
        .or_else(|| broker.vitals.last_seen(deployment));
    let down = view.health(seen.as_deref()).down;
    down.filter(|_| is_ready)
}

/// How to reach the members, one line for each.
fn uris(view: &InstanceView) -> String {
    let of_engine = |of: &Profile| of.uris(&view.of.deployment, LOGIN).join("\n");
    view.profile.map_or_else(String::new, of_engine)
}

/// Whether work is under way that the page shows.
fn is_under_way(view: &InstanceView) -> bool {
    let is_active = |restored: &Restored| restored.restore.state.is_active();
    view.operations.iter().any(|o| o.state.is_active()) || view.restores.iter().any(is_active)
}

/// Whether more is about to be known of the members: a look at them is under way.
fn awaits(view: &InstanceView, seen: Option<&Observation>) -> bool {
    match seen {
        None => view.is_looked_at(seen),
        // A reader who sees that a member is down wants to see it come back.
        Some(seen) => {
            let age = (view.now - seen.observed_at).to_std().unwrap_or_default();
            age > OBSERVATION_FRESH || seen.serving() < seen.members.len()
        }
    }
}

fn good_backup(view: &InstanceView) -> Option<GoodBackup> {
    let backup = view.newest_good_backup()?;
    let manifest = backup.manifest.as_ref();
    Some(GoodBackup {
        taken: Moment::new(backup.created_at, view.now),
        size: manifest.map_or_else(String::new, |m| size(m.stored.snapshot_bytes)),
        kind: kind_text(backup.kind),
    })
}

fn faults(count: usize) -> Option<String> {
    match count {
        0 => None,
        1 => Some("1 known fault".to_owned()),
        count => Some(format!("{count} known faults")),
    }
}

/// What somebody should know, as of a look at the members: while there was none, a page says so.
fn alert_lines(view: &InstanceView, seen: Option<&Observation>) -> Vec<AlertLine> {
    let line = |alert: Alert| AlertLine {
        text: dates_whole(&alert.message),
        label: label_of_alert(alert.gravity),
        links: remedy::of_alert(view, &alert),
    };
    let found = view.alerts_beside(seen);
    // What is good to know of a version stands beside it.
    let shown = |alert: &Alert| alert.gravity != Gravity::Notice;
    found.into_iter().filter(shown).map(line).collect()
}

fn kind_text(kind: BackupKind) -> &'static str {
    match kind {
        BackupKind::OnDemand => "on demand",
        BackupKind::Safety => "before an upgrade",
        BackupKind::Final => "before its deletion",
        BackupKind::Imported => "imported",
        BackupKind::Daily => "daily",
        BackupKind::Weekly => "weekly",
        BackupKind::Monthly => "monthly",
    }
}

fn facts(broker: &Broker, view: &InstanceView) -> Vec<Fact> {
    let (instance, deployment) = (&view.of.instance, &view.of.deployment);
    let fact = |name, value: String| Fact {
        name,
        value,
        id: "",
    };
    let quota = size(deployment.quota_bytes());
    let mut facts = vec![
        Fact {
            name: "Instance ID",
            value: instance.id.to_string(),
            id: "instance-id",
        },
        fact("Service", format!("{} {}", view.offering, view.plan)),
        fact(
            "Cluster",
            broker.inventory.cluster_name(&deployment.cluster),
        ),
        fact(
            "Size",
            format!(
                "{}: {quota} on each of {} members",
                counted(deployment.units, "unit"),
                broker.inventory.members_of(deployment)
            ),
        ),
        fact("Created", Moment::new(instance.created_at, view.now).exact),
        fact("Organization", instance.tenant.organization.clone()),
        fact("Space", instance.tenant.space.clone()),
    ];
    let account = instance.tenant.account.iter();
    let account: Vec<String> = account.map(|(key, id)| format!("{key} {id}")).collect();
    if !account.is_empty() {
        facts.push(fact("Account", account.join(", ")));
    }
    facts
}

/// Whether a task stands among the others. Each backup is followed by one that removes what is old and by one
/// that proves it: they would push the others out, and nothing came of them unless they failed.
fn is_listed(operation: &&Operation) -> bool {
    let follows = matches!(operation.kind, OperationKind::Prune | OperationKind::Proof);
    !follows || operation.state != OperationState::Succeeded
}

fn task(
    view: &InstanceView,
    operation: &Operation,
    askers: &BTreeMap<OperationId, String>,
) -> Task {
    let active = operation.state.is_active() && !operation.halted;
    let took = operation.updated_at - operation.created_at;
    Task {
        by: operation.origin.words(),
        user: askers.get(&operation.id).cloned().unwrap_or_default(),
        took: (!operation.state.is_active()).then(|| duration(took)),
        id: operation.id.to_string(),
        name: operation.words().into_owned(),
        label: label_of_task(operation),
        began: Moment::new(operation.created_at, view.now),
        detail: (operation.failure.as_deref()).map_or_else(String::new, dates_whole),
        bar: active.then(|| Bar::of(operation, view.now)),
    }
}
