//! The page of backups: what there is, taking one, downloading, restoring.

use std::{borrow::Cow, collections::BTreeSet};

use actix_web::{HttpRequest, http::StatusCode, web};
use askama::Template;
use chrono::{DateTime, TimeDelta};
use serde_json::json;

use super::{
    Answer, Api, backups_of,
    bar::Bar,
    calendar::{self, title, where_daily_ones_are},
    command::{create_service, restore_backup},
    door::see_other,
    error::PageError,
    form_of,
    id::Id,
    overview, path_of,
    plot::{Plot, Point, plot},
    restore::takes,
    shell::{Shell, answer},
    show::{Moment, counted, dates_whole, duration, number, range},
    state::{Label, label_of_backup},
};
use crate::{
    broker::{
        BACKUP_PRIVATE_KEY, BackUpNow, BackupChange, InstanceView, RestoreOptions, Restored,
        read_only,
    },
    http::{compose, request::query},
    model::{
        backup::{Backup, BackupState, Manifest},
        catalog::Placement,
        health::DownReason,
        holder::Holder,
        ids::{BackupId, InstanceId, OperationId},
        limits::{
            BACKUPS_ON_A_PAGE, BACKUPS_PLOTTED, DAILY_SHOWN, MONTHLY_SHOWN, ON_DEMAND_SHOWN,
            SAFETY_BACKUPS_MAX, SAFETY_KEPT, SAFETY_SHOWN, WEEKLY_SHOWN,
            upload::IMPORTED_BACKUPS_MAX,
        },
        name,
        operation::{Operation, OperationState},
        origin::Origin,
        period::BackupKind,
        proof::{Evidence, Standing},
        retention::{Rules, expires_at, goes_after, replaced_by_next},
        sentence::capitalized,
        session::Session,
        size::size,
        version::Version,
    },
};

/// A plot of less time than this tells hours, too.
const PLOT_OF_HOURS: TimeDelta = TimeDelta::days(3);

/// How many of a kind are shown at first: those that its retention keeps, and one that is on its
/// way. More would make a heavy page.
fn shown_at_first(kind: BackupKind) -> usize {
    match kind {
        BackupKind::OnDemand => ON_DEMAND_SHOWN,
        BackupKind::Safety | BackupKind::Final | BackupKind::Imported => SAFETY_SHOWN,
        BackupKind::Daily => DAILY_SHOWN,
        BackupKind::Weekly => WEEKLY_SHOWN,
        BackupKind::Monthly => MONTHLY_SHOWN,
    }
}

#[derive(Template)]
#[template(path = "backups.html", whitespace = "minimize")]
struct BackupsPage {
    shell: Shell,
    href: String,
    engine: String,
    /// What the figures of backups count.
    content_note: &'static str,
    message: Option<Message>,
    refusal: Option<&'static str>,
    /// Why the database is down: what is asked for may wait for that to end.
    down: Option<DownReason>,
    running: Option<Bar>,
    next: Option<Moment>,
    /// What the next on-demand backup takes the place of.
    replaces: Option<String>,
    retention: Vec<(&'static str, String)>,
    /// What becomes of them when the instance is deleted.
    after_delete: String,
    /// Where the schedule is chosen, where users may.
    settings: Option<String>,
    groups: Vec<Group>,
    plot: Option<Drawn>,
    calendar: Option<calendar::Shown>,
}

/// What is told of the work that a form began.
struct Message {
    text: String,
    is_bad: bool,
    /// Where to look on.
    href: Option<String>,
}

impl Message {
    fn good(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            is_bad: false,
            href: None,
        }
    }

    fn bad(what: &str, operation: &Operation) -> Self {
        let failure = operation
            .failure
            .as_deref()
            .unwrap_or("no reason was recorded");
        Self {
            is_bad: true,
            ..Self::good(format!("{what} failed: {failure}"))
        }
    }
}

struct Group {
    id: &'static str,
    title: &'static str,
    count: usize,
    /// Where those are that one may miss here.
    note: Option<String>,
    rows: Vec<Row>,
    /// A link to all of them.
    more: Option<String>,
    /// The page of the group that this is; 0 among the other groups.
    page: usize,
    has_next: bool,
}

struct Row {
    id: BackupId,
    state: &'static str,
    label: Label,
    taken: Moment,
    size: String,
    version: String,
    failure: Option<String>,
    /// Whether it was restored aside, in a few words.
    proof: &'static str,
    bar: Option<Bar>,
    content: String,
    facts: Vec<(&'static str, String)>,
    expires: Option<Moment>,
    expiry: Cow<'static, str>,
    /// Why it goes, once that is decided.
    removal: Option<String>,
    note: String,
    pinned: bool,
    options: Option<Options>,
}

struct Options {
    refusal: Option<String>,
    name: String,
    versions: Vec<Choice>,
    clusters: Vec<Choice>,
    units: Units,
    note: String,
    cf: String,
    ibmcloud: String,
    own: String,
}

/// The size without a choice, and those that can be chosen.
struct Units {
    usual: u32,
    least: u32,
    most: u32,
}

struct Choice {
    value: String,
    label: String,
    selected: bool,
}

struct Drawn {
    drawing: Plot,
    /// The upper ends of the axes.
    top_size: String,
    top_duration: String,
    /// The axis of time: its beginning, its middle, its end.
    days: [String; 3],
    sizes: String,
    durations: String,
    span: String,
}

/// `GET /dashboard/instances/:iid/backups`
pub async fn page(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    Id(id): Id<InstanceId>,
    request: HttpRequest,
) -> Answer {
    let view = api.broker.views.instance_view(&session, id).await?;
    let shown = Shown::asked_for(&request);
    let on_page: Vec<&Backup> = BackupKind::ALL
        .iter()
        .flat_map(|kind| shown.of(*kind, &view.backups).0)
        .collect();
    let rows: BTreeSet<&BackupId> = on_page.iter().map(|backup| &backup.id).collect();
    let restorable: Vec<BackupId> = on_page
        .iter()
        .filter(|backup| backup.state == BackupState::Complete)
        .map(|backup| backup.id.clone())
        .collect();
    let options = api
        .broker
        .restores
        .restore_options(view.of.instance.id.clone(), restorable.clone())
        .await?;
    let options: Vec<_> = restorable.into_iter().zip(options).collect();
    let running = view.running_backup();
    let under_way = running.is_some()
        || view.running_change().is_some()
        || view.restores.iter().any(|r| r.restore.state.is_active());
    let page = BackupsPage {
        shell: Shell {
            here: "backups",
            follows: true,
            under_way,
            ..Shell::of_instance("Backups", &view, &api.broker, &session)
        },
        href: backups_of(&view.of.instance.id),
        engine: view.of.deployment.engine.clone(),
        content_note: view.profile.map_or("", |of| of.content_note),
        message: message(&view, &request),
        refusal: view.refusal_of_backup(),
        down: overview::down(&api.broker, &view),
        running: running.map(|o| Bar::of(o, view.now)),
        next: view.next_backup.map(|at| Moment::new(at, view.now)),
        replaces: replaces(&view),
        after_delete: after_delete(view.kept.days_after_delete),
        retention: retention(&view),
        settings: view
            .timetable_bounds
            .map(|_| format!("{}/settings#schedule", path_of(&view.of.instance.id))),
        groups: groups(&view, &shown, &options),
        plot: drawn(&view),
        calendar: calendar::shown(&view.backups, rules_of(&view), view.now, &rows),
    };
    Ok(answer(StatusCode::OK, &page))
}

/// `POST /dashboard/instances/:iid/backups`
pub async fn back_up(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    Id(id): Id<InstanceId>,
    payload: web::Payload,
) -> Answer {
    form_of(&api, &session, payload).await?;
    let href = backups_of(&id);
    Ok(match api.broker.views.back_up_now(&session, id).await? {
        BackUpNow::Accepted(operation) => see_other(&format!("{href}?operation={operation}")),
        BackUpNow::Running(operation) => {
            see_other(&format!("{href}?operation={operation}&again=1"))
        }
    })
}

/// `POST /dashboard/instances/:iid/backups/:bid/keep`
pub async fn keep(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    Id(instance): Id<InstanceId>,
    Id(backup): Id<BackupId>,
    payload: web::Payload,
) -> Answer {
    let form = form_of(&api, &session, payload).await?;
    let (view, backup) = api
        .broker
        .views
        .backup_view(&session, instance, backup)
        .await?;
    let change = BackupChange {
        note: Some(form.text("note").trim().to_owned()),
        pinned: Some(form.text("pinned") == "yes"),
    };
    let of = view.of.instance.id.clone();
    let changed = api
        .broker
        .pins
        .change(of, backup.id, change, Origin::Dashboard)
        .await?;
    let href = backups_of(&view.of.instance.id);
    Ok(see_other(&format!(
        "{href}?saved={0}#backup-{0}",
        changed.id
    )))
}

/// `GET /dashboard/instances/:iid/backups/:bid/download`
pub async fn download(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    Id(instance): Id<InstanceId>,
    Id(backup): Id<BackupId>,
) -> Answer {
    if session.is_read_only() {
        return Err(read_only().into());
    }
    let (view, backup) = api
        .broker
        .views
        .backup_view(&session, instance, backup)
        .await?;
    let holder = Holder::Session(session.fingerprint.clone());
    let link = compose::download_link(&api.broker, &holder, &view.of.deployment, &backup).await?;
    let link = link.ok_or_else(|| {
        PageError::from(crate::broker::BrokerError::Conflict(
            "This backup has no bytes to download.".to_owned(),
        ))
    })?;
    Ok(see_other(&link))
}

/// What is told of the operation that a form began, as it is by now.
fn message(view: &InstanceView, request: &HttpRequest) -> Option<Message> {
    let running = || {
        view.running_backup()
            .map(|operation| message_of_backup(operation, false))
    };
    let saved = query(request, "saved").and_then(|id| id.parse::<BackupId>().ok());
    let saved = saved.and_then(|id| view.backups.iter().find(|backup| backup.id == id));
    if let Some(backup) = saved {
        return Some(Message::good(if backup.pinned {
            "Saved. The backup is kept until you untick “Keep it”."
        } else {
            "Saved."
        }));
    }
    let Some(id) = query(request, "operation").and_then(|id| id.parse::<OperationId>().ok()) else {
        return running();
    };
    if let Some(restored) = view.restores.iter().find(|r| r.restore.id == id) {
        return Some(message_of_restore(restored));
    }
    let Some(operation) = view.operations.iter().find(|o| o.id == id) else {
        return running();
    };
    Some(message_of_backup(
        operation,
        query(request, "again").is_some(),
    ))
}

fn message_of_backup(operation: &Operation, again: bool) -> Message {
    match operation.state {
        OperationState::Queued | OperationState::Running if again => {
            Message::good("A backup is running already. No second one was begun.")
        }
        OperationState::Queued | OperationState::Running => Message::good("A backup is running."),
        OperationState::Succeeded => Message::good("The backup is complete."),
        OperationState::Failed | OperationState::Stuck | OperationState::Abandoned => {
            Message::bad("The backup", operation)
        }
    }
}

fn message_of_restore(restored: &Restored) -> Message {
    let name = restored
        .instance
        .name
        .as_deref()
        .unwrap_or_else(|| restored.instance.id.as_str());
    let message = match restored.restore.state {
        OperationState::Queued | OperationState::Running => {
            Message::good(format!("{name} is being made from the backup."))
        }
        OperationState::Succeeded => {
            Message::good(format!("The restore succeeded: {name} is ready."))
        }
        OperationState::Failed | OperationState::Stuck | OperationState::Abandoned => {
            Message::bad(&format!("The restore into {name}"), &restored.restore)
        }
    };
    Message {
        href: Some(path_of(&restored.instance.id)),
        ..message
    }
}

/// What of the list is shown: the newest of every kind, or a page of one kind.
struct Shown {
    kind: Option<BackupKind>,
    page: usize,
}

impl Shown {
    fn asked_for(request: &HttpRequest) -> Self {
        let page = query(request, "page").and_then(|page| page.parse().ok());
        Self {
            kind: query(request, "kind").and_then(|kind| BackupKind::parse(&kind)),
            page: page.unwrap_or(1).clamp(1, 1_000_000),
        }
    }

    /// The backups of a kind that are shown, and how many there are in all.
    fn of<'a>(&self, kind: BackupKind, backups: &'a [Backup]) -> (Vec<&'a Backup>, usize) {
        let of_kind = || backups.iter().filter(move |backup| backup.kind == kind);
        let (skipped, most) = match self.kind {
            None => (0, shown_at_first(kind)),
            Some(shown) if shown == kind => {
                ((self.page - 1) * BACKUPS_ON_A_PAGE, BACKUPS_ON_A_PAGE)
            }
            Some(_) => (0, 0),
        };
        let rows = of_kind().skip(skipped).take(most).collect();
        (rows, of_kind().count())
    }
}

fn groups(
    view: &InstanceView,
    shown: &Shown,
    options: &[(BackupId, RestoreOptions)],
) -> Vec<Group> {
    let kinds = BackupKind::ALL
        .into_iter()
        .filter(|kind| shown.kind.is_none_or(|shown| shown == *kind));
    kinds
        .filter_map(|kind| {
            let (backups, count) = shown.of(kind, &view.backups);
            let comes_seldom = [BackupKind::Safety, BackupKind::Final, BackupKind::Imported];
            let is_rare = comes_seldom.contains(&kind) && shown.kind.is_none();
            if is_rare && count == 0 {
                return None;
            }
            let page = shown.kind.map_or(0, |_| shown.page);
            let name = title(kind).to_lowercase();
            Some(Group {
                id: kind.as_str(),
                title: title(kind),
                count,
                note: (kind == BackupKind::Daily)
                    .then(|| where_daily_ones_are(&view.backups, rules_of(view), view.now))
                    .flatten(),
                more: (page == 0 && count > backups.len())
                    .then(|| format!("Show all {count} {name} backups")),
                page,
                has_next: page * BACKUPS_ON_A_PAGE < count,
                rows: backups
                    .into_iter()
                    .map(|backup| row(view, backup, options))
                    .collect(),
            })
        })
        .collect()
}

fn row(view: &InstanceView, backup: &Backup, options: &[(BackupId, RestoreOptions)]) -> Row {
    let manifest = backup.manifest.as_ref();
    let mut facts = manifest.map_or_else(Vec::new, measured);
    let doubt = usable(backup).and_then(|of| of.doubt(view.database.proves_backups));
    facts.extend(proved(backup).map(|told| ("Proved", told)));
    if let Some(doubt) = &doubt
        && backup.proof.standing() != Standing::Flawed
    {
        facts.push(("Not proved yet", doubt.clone()));
    }
    if let Some(key) = backup.recipient() {
        facts.push(("Sealed for", key.to_owned()));
    }
    if view.mirrors_backups
        && let Some(of) = usable(backup)
    {
        facts.push(("Mirror", mirrored(of)));
    }
    let restore = options.iter().find(|(id, _)| *id == backup.id);
    let work = view.operations.iter().find(|o| o.id == backup.operation);
    if let Some(operation) = work {
        facts.push(("Asked for by", operation.origin.words().to_owned()));
    }
    let (expires, expiry) = expiry(view, backup);
    Row {
        id: backup.id.clone(),
        state: backup.state.as_str(),
        label: label_of_backup(backup.state),
        taken: Moment::new(backup.created_at, view.now),
        size: manifest.map_or_else(String::new, |m| size(m.stored.snapshot_bytes)),
        version: manifest.map_or_else(String::new, |m| m.version.to_string()),
        failure: backup
            .failure
            .clone()
            .or_else(|| doubt.filter(|_| backup.proof.standing() == Standing::Flawed))
            .map(|failure| dates_whole(&failure)),
        proof: match backup.proof.standing() {
            Standing::Proved => "Proved",
            Standing::Flawed => "Not what it should be",
            Standing::Unproved if !backup.is_provable() => "Sealed for your key",
            Standing::Unproved => "Not proved yet",
        },
        bar: work
            .filter(|o| o.state.is_active())
            .map(|o| Bar::of(o, view.now)),
        content: content(view, manifest),
        facts,
        expires,
        expiry,
        removal: backup
            .removal
            .as_ref()
            .map(|removal| removal.reason.clone()),
        note: backup.note.clone(),
        pinned: backup.pinned,
        options: restore.map(|(_, options)| restore_of(view, backup, options)),
    }
}

/// What was measured of a backup.
fn measured(manifest: &Manifest) -> Vec<(&'static str, String)> {
    let stored = &manifest.stored;
    let sizes = format!(
        "{} of data, {} stored",
        size(stored.snapshot_bytes),
        size(stored.object_bytes)
    );
    vec![
        ("Size", sizes),
        (
            "Taken in",
            duration(manifest.finished_at - manifest.started_at),
        ),
        ("SHA-256", stored.snapshot_sha256.clone()),
    ]
}

/// A backup that can be restored.
fn usable(backup: &Backup) -> Option<&Backup> {
    Some(backup).filter(|backup| backup.state == BackupState::Complete)
}

/// When a backup was restored aside last, into which versions, and what was compared.
fn proved(backup: &Backup) -> Option<String> {
    let proof = &backup.proof;
    let at = proof.verified_at?;
    let compared = match proof.evidence? {
        Evidence::Whole => "all that is in it",
        Evidence::Figures => "its figures",
    };
    let versions: Vec<String> = proof.versions.iter().map(Version::to_string).collect();
    Some(format!(
        "{}: restored into {}, and {compared} compared",
        at.format("%-d %b %Y, %H:%M UTC"),
        versions.join(" and ")
    ))
}

/// Whether a backup has a copy in the mirror.
fn mirrored(backup: &Backup) -> String {
    match backup.mirrored_at {
        Some(at) => format!("copied {}", at.format("%-d %b %Y, %H:%M UTC")),
        None => "not copied yet".to_owned(),
    }
}

/// What is in a backup, as the beginning of a sentence.
fn content(view: &InstanceView, manifest: Option<&Manifest>) -> String {
    let told = view.profile.zip(manifest);
    let words = told.map(|(profile, m)| profile.content_in_words(&m.content, number));
    capitalized(&words.unwrap_or_default())
}

fn restore_of(view: &InstanceView, backup: &Backup, options: &RestoreOptions) -> Options {
    let mut parameters = json!({
        "source_service_instance_id": view.of.instance.id,
        "backup_id": backup.id,
    });
    let mut chosen = json!({});
    if view.placement == Placement::Chosen {
        parameters["cluster_id"] = json!(view.of.deployment.cluster);
        chosen["cluster_id"] = json!(view.of.deployment.cluster);
    }
    // A name of the backup's own time: a command stays the same from look to look.
    let mut names = name::of_restore(&view.of.deployment.engine, backup.created_at);
    let name = names.next().unwrap_or_default();
    if !backup.is_provable() {
        parameters[BACKUP_PRIVATE_KEY] = json!("AGE-SECRET-KEY-1...");
    }
    let [cf, ibmcloud] = create_service(&view.offering, &view.plan, &name, &parameters);
    let mut own = restore_backup(view.name(), backup.id.as_str(), &name, &chosen);
    if !backup.is_provable() {
        own += " --identity backup.key";
    }
    let first = options.places.first();
    let clusters = options.places.iter().filter(|_| options.chooses_cluster);
    Options {
        refusal: options.refusal.clone(),
        name: options.name.clone(),
        versions: versions(options),
        clusters: clusters
            .map(|place| Choice {
                value: place.cluster.clone(),
                label: place.name.clone(),
                selected: first.is_some_and(|first| first.cluster == place.cluster),
            })
            .collect(),
        units: Units {
            usual: options.units,
            least: options.units_needed,
            most: view.profile.map_or(options.units, |of| of.units_max),
        },
        note: format!(
            "Makes a new instance with {} and {} of data. {} It gets users of its own; this \
             instance is not touched.",
            counted(options.units, "unit"),
            backup
                .manifest
                .as_ref()
                .map_or_else(String::new, |m| size(m.stored.snapshot_bytes)),
            takes(options.estimate),
        ),
        cf,
        ibmcloud,
        own,
    }
}

/// The versions that the backup can be restored into somewhere, newest first.
fn versions(options: &RestoreOptions) -> Vec<Choice> {
    let mut all: Vec<_> = options
        .places
        .iter()
        .flat_map(|p| p.versions.clone())
        .collect();
    all.sort_by(|a, b| b.cmp(a));
    all.dedup();
    let default = options.places.first().and_then(|place| place.version);
    all.into_iter()
        .map(|version| Choice {
            value: version.to_string(),
            label: match options.faulty.get(&version) {
                None => version.to_string(),
                Some(1) => format!("{version} (1 known fault)"),
                Some(count) => format!("{version} ({count} known faults)"),
            },
            selected: default == Some(version),
        })
        .collect()
}

/// When a backup goes: a time, or what it depends on.
fn expiry(view: &InstanceView, backup: &Backup) -> (Option<Moment>, Cow<'static, str>) {
    if let Some(removal) = &backup.removal {
        return (Some(Moment::new(removal.at, view.now)), "".into());
    }
    if let Some(end) = expires_at(backup, &view.timetable).filter(|_| !backup.pinned) {
        return (Some(Moment::new(end, view.now)), "".into());
    }
    if backup.state != BackupState::Complete {
        return (None, "It holds no bytes".into());
    }
    if backup.pinned {
        return (None, "Kept while “Keep it” is ticked".into());
    }
    let (kept, kind) = match backup.kind {
        BackupKind::Imported => (IMPORTED_BACKUPS_MAX, "imported"),
        _ => (view.kept.on_demand as usize, "on-demand"),
    };
    let text = match goes_after(backup, &view.backups, kept) {
        1 => format!("Expires with the next complete {kind} backup"),
        more => format!("Expires when {more} more {kind} backups are complete"),
    };
    (None, text.into())
}

/// What goes when one more on-demand backup is complete, as a sentence.
fn replaces(view: &InstanceView) -> Option<String> {
    let gone = replaced_by_next(&view.backups, view.kept.on_demand);
    let moments: Vec<String> = gone
        .iter()
        .map(|backup| backup.created_at.format("%-d %b, %H:%M UTC").to_string())
        .collect();
    match moments.as_slice() {
        [] => None,
        [one] => Some(format!("Replaces the on-demand backup of {one}.")),
        all => Some(format!(
            "Replaces the on-demand backups of {}.",
            all.join("; ")
        )),
    }
}

fn rules_of(view: &InstanceView) -> Rules {
    Rules {
        on_demand_kept: view.kept.on_demand,
        timetable: view.timetable,
    }
}

/// How long each kind is kept.
fn retention(view: &InstanceView) -> Vec<(&'static str, String)> {
    let on_demand = match view.kept.on_demand {
        1 => "the most recent one".to_owned(),
        kept => format!("the {kept} most recent ones"),
    };
    let days = counted(view.timetable.days_kept(), "day");
    let weeks = counted(view.timetable.weeks_kept(), "week");
    let months = counted(view.timetable.months_kept(), "month");
    let pinned = view.backups.iter().filter(|backup| backup.pinned).count();
    vec![
        (
            "Kept by you",
            format!(
                "until you untick it: {pinned} of {} at most",
                view.kept.pinned
            ),
        ),
        (title(BackupKind::Daily), format!("for {days}")),
        (title(BackupKind::Weekly), format!("for {weeks}")),
        (title(BackupKind::Monthly), format!("for {months}")),
        (title(BackupKind::OnDemand), on_demand),
        (
            title(BackupKind::Safety),
            format!(
                "for {}, {SAFETY_BACKUPS_MAX} at most",
                counted(SAFETY_KEPT.num_days(), "day")
            ),
        ),
        (
            title(BackupKind::Imported),
            format!("the {IMPORTED_BACKUPS_MAX} most recent ones"),
        ),
    ]
}

fn after_delete(days: u32) -> String {
    match days {
        0 => "When the instance is deleted, all its backups are deleted too.".to_owned(),
        days => format!(
            "When the instance is deleted, its backups stay for {}: a new instance can be made of them.",
            counted(days, "day")
        ),
    }
}

/// Size and duration of the newest complete backups.
fn drawn(view: &InstanceView) -> Option<Drawn> {
    let own = view.backups.iter().filter(|b| b.kind.is_own());
    let complete = own.filter_map(|b| b.manifest.as_ref());
    let mut newest: Vec<_> = complete.take(BACKUPS_PLOTTED).collect();
    newest.reverse();
    let took = |m: &Manifest| m.finished_at - m.started_at;
    let points: Vec<Point> = newest
        .iter()
        .map(|m| Point {
            at: (m.requested_at - DateTime::UNIX_EPOCH).as_seconds_f64(),
            bytes: m.stored.snapshot_bytes,
            seconds: took(m).as_seconds_f64(),
            label: format!(
                "{}: {}, {}",
                m.requested_at.format("%Y-%m-%d %H:%M"),
                size(m.stored.snapshot_bytes),
                duration(took(m))
            ),
        })
        .collect();
    let drawing = plot(&points)?;
    let bytes = || newest.iter().map(|m| m.stored.snapshot_bytes);
    let times = || newest.iter().map(|m| took(m));
    let (first, last) = (newest.first()?, newest.last()?);
    let day = |m: &Manifest| m.requested_at.format("%Y-%m-%d").to_string();
    let middle = first.requested_at + (last.requested_at - first.requested_at) / 2;
    let form = if last.requested_at - first.requested_at < PLOT_OF_HOURS {
        "%-d %b, %H:%M"
    } else {
        "%-d %b"
    };
    Some(Drawn {
        drawing,
        top_size: size(bytes().max()?),
        top_duration: duration(times().max()?),
        days: [first.requested_at, middle, last.requested_at].map(|at| at.format(form).to_string()),
        sizes: format!(
            "Size: {}.",
            range(size(bytes().min()?), size(bytes().max()?))
        ),
        durations: format!(
            "Duration: {}.",
            range(duration(times().min()?), duration(times().max()?))
        ),
        span: dates_whole(&format!(
            "{} backups, of {}.",
            newest.len(),
            range(day(first), day(last))
        )),
    })
}
