//! The page of backups: what there is, taking one, downloading, restoring.

use std::collections::BTreeSet;

use actix_web::{HttpRequest, http::StatusCode, web};
use askama::Template;
use chrono::{DateTime, TimeDelta};

use super::{
    Answer, Api,
    backup_rows::{Group, Known, Shown, groups, usable},
    backups_of,
    bar::Bar,
    calendar::{self, title},
    door::see_other,
    error::PageError,
    form_of,
    id::Id,
    overview, path_of,
    plot::{Plot, Point, plot},
    shell::{Shell, answer},
    show::{Moment, counted, dates_whole, duration, range},
};
use crate::{
    broker::{BackUpNow, BackupChange, InstanceView, Restored, read_only},
    http::{compose, request::query},
    model::{
        backup::{Backup, Manifest},
        health::DownReason,
        holder::Holder,
        ids::{BackupId, InstanceId, OperationId},
        limits::{BACKUPS_PLOTTED, SAFETY_BACKUPS_MAX, SAFETY_KEPT, upload::IMPORTED_BACKUPS_MAX},
        operation::{Operation, OperationState},
        origin::Origin,
        period::BackupKind,
        retention::replaced_by_next,
        session::Session,
        size::size,
    },
};

/// A plot of less time than this tells hours, too.
const PLOT_OF_HOURS: TimeDelta = TimeDelta::days(3);

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
        .filter_map(|backup| usable(backup))
        .map(|backup| backup.id.clone())
        .collect();
    let options = api
        .broker
        .restores
        .restore_options(view.of.instance.id.clone(), restorable.clone())
        .await?;
    let options: Vec<_> = restorable.into_iter().zip(options).collect();
    let told = on_page.iter().filter_map(|backup| view.work_on(backup));
    let known = Known {
        options: &options,
        askers: &api.broker.oversight.askers(told).await?,
    };
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
        groups: groups(&view, &shown, &known),
        plot: drawn(&view),
        calendar: calendar::shown(&view.backups, view.rules(), view.now, &rows),
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
