//! The overview of one instance: how it is, how large, how to reach it, what was done to it.

use std::collections::BTreeMap;

use actix_web::{HttpRequest, http::StatusCode, web};
use askama::Template;
use chrono::{DateTime, Utc};

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
    shell::{Shell, Subject, answer, deletion_asked, is_being_deleted},
    show::{Moment, counted, dates_whole, duration},
    state::{Label, label_of_alert, label_of_health, label_of_task},
};
use crate::{
    broker::{Broker, InstanceView, Restored, Source},
    http::compose,
    model::{
        alert::{Alert, Gravity},
        defragment::Storage,
        deleted::DeletedInstance,
        deployment::{Deployment, Member},
        engine::Profile,
        health::{DownReason, Health, HealthState},
        history::History,
        ids::{InstanceId, OperationId},
        instance::InstanceState,
        limits::{
            OBSERVATION_FRESH, QUOTA_NEAR_PERCENT, TASKS_SHOWN, prefix::KEY_PREFIX_BYTES_MAX,
        },
        observation::{Complaint, MemberHealth, MemberObservation, Observation},
        operation::{Operation, OperationKind, OperationState},
        origin::Origin,
        period::BackupKind,
        recovery,
        session::{Scope, Session},
        size::size,
        trouble::Moment as Exact,
    },
};

/// What stands for a user's name and password, which are the binding's alone.
const LOGIN: &str = "USER:PASSWORD";

/// What is told of a member that does not tell it.
const UNKNOWN: &str = "unknown";

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

struct Members {
    rows: Vec<MemberRow>,
    /// Why there are none.
    none: &'static str,
    observed: Option<Moment>,
}

/// How much it holds, and what can be done about it.
struct StorageCard {
    usage: Option<Usage>,
    quota: String,
    can_defragment: bool,
    /// Until when not, where that is so because the database is down.
    no_defragmentation: Option<&'static str>,
    /// Whether it is full or nearly so: the form that makes room stands open.
    wants_room: bool,
    prefix_max: usize,
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

struct Usage {
    used: u64,
    quota: u64,
    /// From here on somebody should do something.
    near: u64,
    /// Beyond this it takes no more writes.
    full: u64,
    text: String,
    tone: &'static str,
    /// What it means for who writes.
    means: String,
    /// What of it holds something, and what giving the rest back would do.
    held: String,
}

struct MemberRow {
    name: String,
    url: String,
    health: String,
    icon: &'static str,
    tone: &'static str,
    role: &'static str,
    version: String,
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

/// Another instance; without an address where its page is not reached from here.
struct Link {
    href: Option<String>,
    name: String,
    label: Option<Label>,
    bar: Option<Bar>,
    /// Through which door it was asked for.
    by: &'static str,
    /// Who stood there; empty where nobody knows, and where the page is not reached.
    user: String,
    at: Moment,
}

/// An instance that was restored from it and is gone.
struct DeletedRestore {
    /// The page that says what is left of it, for who may see that.
    href: Option<String>,
    name: String,
    deleted: Moment,
    /// When its backups go.
    kept_until: Moment,
}

/// The backup that an instance was restored from.
struct From {
    taken: Moment,
    backup: String,
    source: String,
    href: Option<String>,
    is_gone: bool,
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
        restores: links_to_restored(session, view, known),
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
        alerts: seen.map_or_else(Vec::new, |seen| alert_lines(view, seen)),
        change: change.map(|o| Bar::of(o, view.now)),
    }
}

fn members(view: &InstanceView, seen: Option<&Observation>, urls: &[String]) -> Members {
    let state = view.of.instance.state;
    Members {
        rows: match seen {
            Some(seen) => seen.members.iter().map(member).collect(),
            None if state == InstanceState::Ready => members_known(&view.of.deployment, urls),
            None => Vec::new(),
        },
        none: no_members(state),
        observed: seen.map(|seen| Moment::new(seen.observed_at, view.now)),
    }
}

fn storage(
    view: &InstanceView,
    seen: Option<&Observation>,
    down: Option<DownReason>,
) -> StorageCard {
    let deployment = &view.of.deployment;
    let is_ready = view.of.instance.state == InstanceState::Ready;
    let usage = seen.and_then(|seen| usage(view, seen));
    let is_closed = is_ready && deployment.closed_since.is_some();
    let is_short = usage.as_ref().is_some_and(|usage| !usage.tone.is_empty());
    StorageCard {
        wants_room: is_ready && (is_closed || is_short),
        prefix_max: KEY_PREFIX_BYTES_MAX,
        quota: size(deployment.quota_bytes()),
        can_defragment: is_ready && !is_closed && down.is_none(),
        no_defragmentation: down.and_then(DownReason::waits_until),
        usage,
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

/// Why no member is shown.
fn no_members(state: InstanceState) -> &'static str {
    match state {
        InstanceState::Ready | InstanceState::Provisioning => "None serves yet.",
        InstanceState::Failed => "None serves.",
        InstanceState::Deleting => "They are removed with the database.",
    }
}

/// The instances that were restored from it, and how each of them is.
fn links_to_restored(session: &Session, view: &InstanceView, known: &Known<'_>) -> Vec<Link> {
    let with_health = view.restores.iter().zip(known.restored);
    let link = |(of, health): (&Restored, &Health)| {
        let user = known.askers.get(&of.restore.id).cloned();
        link_to_restored(session, of, (health, user.unwrap_or_default()), view.now)
    };
    with_health.map(link).collect()
}

/// Whether work is under way that the page shows.
fn is_under_way(view: &InstanceView) -> bool {
    let is_active = |restored: &Restored| restored.restore.state.is_active();
    view.operations.iter().any(|o| o.state.is_active()) || view.restores.iter().any(is_active)
}

/// Whether more is about to be known of the members: a look at them is under way.
fn awaits(view: &InstanceView, seen: Option<&Observation>) -> bool {
    match seen {
        None => true,
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
fn alert_lines(view: &InstanceView, seen: &Observation) -> Vec<AlertLine> {
    let line = |alert: Alert| AlertLine {
        text: dates_whole(&alert.message),
        label: label_of_alert(alert.gravity),
        links: remedy::of_alert(view, &alert),
    };
    let found = view.alerts(Some(seen));
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

fn usage(view: &InstanceView, seen: &Observation) -> Option<Usage> {
    let quota = view.of.deployment.quota_bytes();
    let used = seen.database_bytes()?;
    let percent = match u128::from(used) * 100 / u128::from(quota.max(1)) {
        0 if used > 0 => "under 1".to_owned(),
        percent => percent.to_string(),
    };
    let near = quota / 100 * QUOTA_NEAR_PERCENT;
    let engine = &view.of.deployment.engine;
    let comes = match view.database.is_safe_full {
        true => format!("{engine} takes no more writes"),
        false => "nobody but the broker is let in any more".to_owned(),
    };
    let (tone, means) = match used {
        _ if view.of.deployment.closed_since.is_some() => (
            "bad",
            "It is full, and closed to its users until there is room. Ask for more units, or make room."
                .to_owned(),
        ),
        used if used >= quota || seen.is_full() => (
            "bad",
            format!("It is full: {comes}. Ask for more units, or delete keys."),
        ),
        used if used > near => (
            "warn",
            format!(
                "It is nearly full. At its quota {comes}. Ask for more units, or delete keys."
            ),
        ),
        _ => (
            "",
            format!("Storage of each member. At its quota {comes}."),
        ),
    };
    Some(Usage {
        used: used.min(quota),
        quota,
        near,
        full: quota.saturating_sub(1),
        tone,
        means,
        text: format!("{} of {} allocated ({percent} %)", size(used), size(quota)),
        held: Storage::of(seen).map_or_else(String::new, held),
    })
}

/// What of the files holds something, and what it would cost to have the rest back.
fn held(storage: Storage) -> String {
    let stall = storage.stall().as_secs();
    let cost = format!("each member in turn is unavailable for about {stall} s meanwhile");
    match (storage.used, storage.unused()) {
        (Some(used), Some(unused)) => format!(
            "{} of that hold data. Defragmenting would give {} back; {cost}.",
            size(used),
            size(unused)
        ),
        _ => format!(
            "This version does not say how much of that holds data. When it is defragmented, {cost}."
        ),
    }
}

/// The members as the store knows them, before anybody has looked at them.
fn members_known(deployment: &Deployment, urls: &[String]) -> Vec<MemberRow> {
    let members = deployment.members.iter().enumerate();
    let row = |(place, member): (usize, &Member)| MemberRow {
        name: member.name.clone(),
        url: urls.get(place).cloned().unwrap_or_default(),
        health: "being looked at".to_owned(),
        icon: "?",
        tone: "muted",
        role: "",
        version: deployment.shape_of(member).version.to_string(),
    };
    members.map(row).collect()
}

fn member(seen: &MemberObservation) -> MemberRow {
    let trouble = seen.health.trouble().unwrap_or_default();
    let (health, icon, tone, role, version) = match &seen.health {
        MemberHealth::Serving {
            role,
            version,
            complaints,
            ..
        } => {
            let role = role.as_str();
            if complaints.is_empty() {
                (
                    "serves".to_owned(),
                    "\u{2713}",
                    "good",
                    role,
                    version.clone(),
                )
            } else {
                let complaints: Vec<String> = complaints.iter().map(Complaint::to_string).collect();
                let text = format!("serves, but {}", complaints.join("; "));
                (text, "!", "warn", role, version.clone())
            }
        }
        MemberHealth::Degraded(_) => (trouble, "!", "warn", UNKNOWN, UNKNOWN.to_owned()),
        MemberHealth::Silent(_) => (trouble, "\u{2715}", "bad", UNKNOWN, UNKNOWN.to_owned()),
    };
    MemberRow {
        name: seen.name.clone(),
        url: seen.url.clone(),
        health,
        icon,
        tone,
        role,
        version,
    }
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

fn from(view: &InstanceView, source: &Source) -> From {
    let of = &source.of;
    From {
        taken: Moment::new(of.taken_at, view.now),
        backup: of.backup.to_string(),
        source: of.source().to_owned(),
        href: view.reaches_source.then(|| path_of(&of.instance)),
        is_gone: !source.exists,
    }
}

fn link_to_restored(
    session: &Session,
    restored: &Restored,
    (health, user): (&Health, String),
    now: DateTime<Utc>,
) -> Link {
    let instance = &restored.instance;
    let active = restored.restore.state.is_active();
    let is_reached = session.scope == Scope::Operator || !restored.is_platform_s();
    Link {
        href: is_reached.then(|| path_of(&instance.id)),
        name: instance
            .name
            .clone()
            .unwrap_or_else(|| instance.id.to_string()),
        label: is_reached.then(|| label_of_health(health.state)),
        bar: (is_reached && active).then(|| Bar::of(&restored.restore, now)),
        by: restored.restore.origin.words(),
        user: if is_reached { user } else { String::new() },
        at: Moment::new(restored.restore.created_at, now),
    }
}

fn deleted_restore(session: &Session, of: &DeletedInstance, now: DateTime<Utc>) -> DeletedRestore {
    DeletedRestore {
        name: of.name.clone().unwrap_or_else(|| of.instance.to_string()),
        // What is left of it is shown to operators alone.
        href: (session.scope == Scope::Operator).then(|| path_of(&of.instance)),
        deleted: Moment::new(of.deleted_at, now),
        kept_until: Moment::new(of.kept_until, now),
    }
}

/// What became of an instance that was restored from this one, and whose deletion was asked for.
fn what_became_of(view: &InstanceView, restored: &InstanceId) -> Option<String> {
    let goes = view.restores.iter().find(|of| of.instance.id == *restored);
    if let Some(of) = goes {
        let name = of.instance.name.as_deref();
        return Some(is_being_deleted(name.unwrap_or(restored.as_str())));
    }
    let gone = view
        .deleted_restores
        .iter()
        .find(|of| of.instance == *restored)?;
    let name = gone.name.as_deref().unwrap_or(restored.as_str());
    let until = Exact(gone.kept_until);
    Some(format!(
        "{name} was deleted. Its backups are kept until {until}."
    ))
}
