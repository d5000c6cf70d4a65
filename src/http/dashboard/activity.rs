//! The page of activity: what somebody should know, what members print, what was done to the instance, who
//! did what, and for operators the replacement of a member.

use actix_web::{HttpRequest, http::StatusCode, web};
use askama::Template;

use super::{
    Answer, Api, OPERATIONS,
    bar::Bar,
    door::see_other,
    form_of,
    id::Id,
    operator::address,
    path_of,
    shell::{Shell, answer},
    show::{Moment, dates_whole, duration},
    state::{Label, label_of_alert, label_of_health, label_of_task},
};
use crate::{
    broker::{
        AuditPage, BrokerError, InstanceView, Task, TasksPage, logfile_id, logfile_name,
        no_such_page, read_only,
    },
    http::{compose, error::HttpError, request::query},
    model::{
        alert::Alert,
        audit::AuditEntry,
        holder::Holder,
        ids::{InstanceId, LogfileId},
        instance::InstanceState,
        limits::LOG_END_BYTES,
        logfile::{LogPart, Logfile},
        observation::Observation,
        operation::{Operation, OperationKind, OperationState},
        origin::Origin,
        session::{Scope, Session},
        size::size,
    },
};

/// What the query asks for: which log's end, from where on tasks and audit, and whether the page stays as
/// it is.
struct Asked {
    log: String,
    tasks: String,
    before: String,
    still: bool,
}

impl Asked {
    fn of(request: &HttpRequest) -> Self {
        let given = |name: &str| query(request, name).unwrap_or_default();
        Self {
            log: given("log"),
            tasks: given("tasks"),
            before: given("before"),
            still: given("still") == "yes",
        }
    }

    /// The address of the page that differs in some of it from this one.
    fn but(&self, href: &str, other: &[(&str, &str)], place: &str) -> String {
        let still = if self.still { "yes" } else { "" };
        let now = [
            ("log", self.log.as_str()),
            ("tasks", &self.tasks),
            ("before", &self.before),
            ("still", still),
        ];
        let value = |(name, value)| {
            let found = other.iter().find(|(of, _)| *of == name);
            (name, found.map_or(value, |(_, other)| *other))
        };
        format!("{}#{place}", address(href, &now.map(value)))
    }
}

#[derive(Template)]
#[template(path = "activity.html", whitespace = "minimize")]
struct ActivityPage {
    shell: Shell,
    href: String,
    state: Label,
    /// What is the matter, since when, and what to do.
    message: String,
    /// Whether the broker looks at the members right now.
    is_looked_at: bool,
    alerts: Vec<AlertRow>,
    logs: Vec<LogRow>,
    shown: Option<Shown>,
    tasks: Vec<TaskRow>,
    older_tasks: Option<String>,
    newest_tasks: Option<String>,
    entries: Vec<EntryRow>,
    older_entries: Option<String>,
    newest_entries: Option<String>,
    /// Those that an operator may have replaced.
    members: Vec<String>,
    repair_took: Option<String>,
}

struct AlertRow {
    label: Label,
    text: String,
    since: Option<Moment>,
}

struct LogRow {
    href: String,
    download: String,
    name: String,
    member: String,
    what: &'static str,
    size: String,
    written: Moment,
    is_shown: bool,
}

/// The end of a log.
struct Shown {
    name: String,
    lines: String,
    /// How it goes on, in a sentence.
    says: String,
    /// A link that has it followed, or has it stand still.
    other: Option<(String, &'static str)>,
    close: String,
}

struct TaskRow {
    id: String,
    /// Where operators see more of it.
    href: Option<String>,
    name: String,
    label: Label,
    asked: Moment,
    took: Option<String>,
    by: &'static str,
    user: String,
    failure: Option<String>,
    bar: Option<Bar>,
}

struct EntryRow {
    id: i64,
    at: Moment,
    what: String,
    by: &'static str,
    user: String,
    about: String,
    address: String,
}

/// `GET /dashboard/instances/:iid/activity`
pub async fn page(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    Id(id): Id<InstanceId>,
    request: HttpRequest,
) -> Answer {
    let view = api.broker.views.instance_view(&session, id).await?;
    let instance = &view.of.instance;
    let asked = Asked::of(&request);
    let tasks = api.broker.views.tasks(instance, asked.tasks.parse().ok());
    let before = asked.before.parse().ok();
    let found = Found {
        tasks: tasks.await?,
        entries: api.broker.audit.of_instance(instance, before).await?,
        logs: logs(&api, &session, &view, &asked).await?,
    };
    let seen = match instance.state {
        InstanceState::Ready => api.broker.vitals.observation(&view.of.deployment),
        _ => None,
    };
    let shell = shell(
        &api,
        &session,
        &view,
        &asked,
        &found,
        view.is_looked_at(seen.as_deref()),
    );
    let page = activity(&session, &view, &asked, found, shell, seen.as_deref());
    Ok(answer(StatusCode::OK, &page))
}

/// What was read for a page.
struct Found {
    tasks: TasksPage,
    entries: AuditPage,
    /// The logs that the visitor may read, and the end of the one that is asked for.
    logs: (Vec<Logfile>, Option<(Logfile, String)>),
}

fn shell(
    api: &Api,
    session: &Session,
    view: &InstanceView,
    asked: &Asked,
    found: &Found,
    is_looked_at: bool,
) -> Shell {
    let follows = !asked.still;
    let is_active = |task: &Task| task.operation.state.is_active();
    let is_growing = (found.logs.1.as_ref()).is_some_and(|(log, _)| log.part == LogPart::Current);
    Shell {
        here: "activity",
        follows,
        under_way: follows && found.tasks.tasks.iter().any(is_active),
        awaits: follows && (is_growing || is_looked_at),
        ..Shell::of_instance("Activity", view, &api.broker, session)
    }
}

fn activity(
    session: &Session,
    view: &InstanceView,
    asked: &Asked,
    found: Found,
    shell: Shell,
    seen: Option<&Observation>,
) -> ActivityPage {
    let href = format!("{}/activity", path_of(&view.of.instance.id));
    let is_ready = view.of.instance.state == InstanceState::Ready;
    let is_operator = session.scope == Scope::Operator;
    let may_repair = is_operator && is_ready && shell.may_change();
    let health = view.health(seen);
    let link = |name, value: &str, place| asked.but(&href, &[(name, value)], place);
    let newest = |given: &str, name, place| (!given.is_empty()).then(|| link(name, "", place));
    let (logs, end) = found.logs;
    let older_tasks = found.tasks.next.as_ref();
    let older_entries = found.entries.next.map(|next| next.to_string());
    ActivityPage {
        shell,
        state: label_of_health(health.state),
        message: dates_whole(&health.message),
        is_looked_at: view.is_looked_at(seen),
        alerts: alerts(view, seen),
        logs: logs
            .iter()
            .map(|log| log_row(view, log, asked, &href))
            .collect(),
        shown: end.map(|(log, lines)| shown(&log, lines, asked, &href)),
        older_tasks: older_tasks.map(|next| link("tasks", next.as_str(), "h-tasks")),
        newest_tasks: newest(&asked.tasks, "tasks", "h-tasks"),
        tasks: task_rows(view, found.tasks, is_operator),
        older_entries: older_entries.map(|next| link("before", &next, "h-audit")),
        newest_entries: newest(&asked.before, "before", "h-audit"),
        entries: entry_rows(view, found.entries, is_operator),
        members: (view.of.deployment.members.iter())
            .filter(|_| may_repair)
            .map(|member| member.name.clone())
            .collect(),
        repair_took: repair_took(view),
        href,
    }
}

/// The logs that the visitor may read, and the end of the one that is asked for.
async fn logs(
    api: &Api,
    session: &Session,
    view: &InstanceView,
    asked: &Asked,
) -> Result<(Vec<Logfile>, Option<(Logfile, String)>), HttpError> {
    // What members print names keys of their users.
    if session.is_read_only() {
        return Ok((Vec::new(), None));
    }
    let all = match api.broker.logfiles.logfiles(&view.of).await {
        // The page says that another broker looks after the members.
        Err(BrokerError::Elsewhere(_)) => return Ok((Vec::new(), None)),
        all => all?,
    };
    let id_of = |log: &Logfile| logfile_id(&view.of.deployment.id, log).to_string();
    // One that is gone, as with its member, is no reason to show nothing.
    let Some(log) = all.iter().find(|log| id_of(log) == asked.log) else {
        return Ok((all, None));
    };
    let id = logfile_id(&view.of.deployment.id, log);
    let end = api
        .broker
        .logfiles
        .end_of_log(session, &view.of, &id)
        .await?;
    Ok((all, Some(end)))
}

/// `GET /dashboard/instances/:iid/activity/logs/:lid`
pub async fn download(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    Id(instance): Id<InstanceId>,
    Id(log): Id<LogfileId>,
) -> Answer {
    if session.is_read_only() {
        return Err(read_only().into());
    }
    let view = api.broker.views.instance_view(&session, instance).await?;
    let log = api.broker.logfiles.logfile(&view.of, &log).await?;
    let holder = Holder::Session(session.fingerprint.clone());
    let link = compose::log_link(&api.broker, &holder, &view.of.deployment, &log).await?;
    Ok(see_other(&link))
}

/// `POST /dashboard/instances/:iid/activity/repair`: has a member replaced.
pub async fn repair(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    Id(id): Id<InstanceId>,
    payload: web::Payload,
) -> Answer {
    let form = form_of(&api, &session, payload).await?;
    let view = api.broker.views.instance_view(&session, id).await?;
    // As at the operator's API.
    if session.scope != Scope::Operator {
        return Err(no_such_page().into());
    }
    if form.text("sure") != "yes" {
        let reason = "Nothing was replaced: say that you know what becomes of the member's files.";
        return Err(HttpError::bad_request(reason).into());
    }
    let instance = view.of.instance.id.clone();
    let member = form.text("member").to_owned();
    let repair = api
        .broker
        .upkeep
        .repair(instance, member, Origin::Dashboard);
    repair.await?;
    // There it is seen how it goes on.
    let page = path_of(&view.of.instance.id);
    Ok(see_other(&format!("{page}/activity#h-tasks")))
}

/// What somebody should know, as of a look at the members; before there was one: what is known without.
fn alerts(view: &InstanceView, seen: Option<&Observation>) -> Vec<AlertRow> {
    let row = |alert: Alert| AlertRow {
        label: label_of_alert(alert.gravity),
        text: dates_whole(&alert.message),
        since: alert.since.map(|since| Moment::new(since, view.now)),
    };
    view.alerts_beside(seen).into_iter().map(row).collect()
}

fn log_row(view: &InstanceView, log: &Logfile, asked: &Asked, href: &str) -> LogRow {
    let id = logfile_id(&view.of.deployment.id, log);
    LogRow {
        href: asked.but(href, &[("log", id.as_str()), ("still", "")], "h-log"),
        download: format!("{href}/logs/{id}"),
        name: logfile_name(log),
        member: log.member.clone(),
        what: match log.part {
            LogPart::Current => "what it prints now",
            LogPart::Older => "what it printed before",
        },
        size: size(log.bytes),
        written: Moment::new(log.written_at, view.now),
        is_shown: asked.log == id.as_str(),
    }
}

fn shown(log: &Logfile, lines: String, asked: &Asked, href: &str) -> Shown {
    let still = |still| asked.but(href, &[("still", still)], "h-log");
    let (goes_on, other) = match (log.part, asked.still) {
        (LogPart::Older, _) => ("Nothing is added to it any more.", None),
        (LogPart::Current, true) => (
            "This page stands still.",
            Some((still(""), "Follow what is printed")),
        ),
        (LogPart::Current, false) => (
            "It follows what is printed.",
            Some((still("yes"), "Let the page stand still")),
        ),
    };
    let cut = if log.bytes > LOG_END_BYTES {
        let shown = size(LOG_END_BYTES);
        format!(" Only the last {shown} are shown; the whole can be downloaded.")
    } else {
        String::new()
    };
    Shown {
        name: logfile_name(log),
        lines,
        says: format!("{goes_on}{cut}"),
        other,
        close: asked.but(href, &[("log", ""), ("still", "")], "h-logs"),
    }
}

/// How long the last replacement of a member took that went well.
fn repair_took(view: &InstanceView) -> Option<String> {
    let is_one =
        |o: &&Operation| o.kind == OperationKind::Repair && o.state == OperationState::Succeeded;
    let last = view.operations.iter().find(is_one)?;
    Some(duration(last.updated_at - last.created_at))
}

fn task_rows(view: &InstanceView, of: TasksPage, is_operator: bool) -> Vec<TaskRow> {
    let row = |Task {
                   operation: task,
                   user,
               }: Task| {
        let is_active = task.state.is_active();
        let took = task.updated_at - task.created_at;
        TaskRow {
            href: is_operator.then(|| format!("{OPERATIONS}/{}", task.id)),
            name: task.words().into_owned(),
            label: label_of_task(&task),
            asked: Moment::new(task.created_at, view.now),
            took: (!is_active).then(|| duration(took)),
            by: task.origin.words(),
            user: user.unwrap_or_default(),
            bar: (is_active && !task.halted).then(|| Bar::of(&task, view.now)),
            id: task.id.to_string(),
            failure: task.failure.as_deref().map(dates_whole),
        }
    };
    of.tasks.into_iter().map(row).collect()
}

/// Addresses are the operator's to see: users of one instance need not know each other's.
fn entry_rows(view: &InstanceView, of: AuditPage, is_operator: bool) -> Vec<EntryRow> {
    let row = |entry: AuditEntry| {
        let what = entry.words();
        let about = [
            entry.binding.map(|id| format!("binding {id}")),
            entry.backup.map(|id| format!("backup {id}")),
        ];
        let about: Vec<String> = about.into_iter().flatten().collect();
        EntryRow {
            id: entry.id,
            at: Moment::new(entry.at, view.now),
            what: match entry.times {
                1 => what,
                times => format!("{what}, {times} times"),
            },
            by: entry.origin.words(),
            user: entry.user.unwrap_or_default(),
            about: about.join(", "),
            address: entry.address.filter(|_| is_operator).unwrap_or_default(),
        }
    };
    of.entries.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_keep_what_else_was_asked_for() {
        let asked = Asked {
            log: "aa".to_owned(),
            tasks: String::new(),
            before: "7".to_owned(),
            still: true,
        };
        let link = |other: &[(&str, &str)]| asked.but("/a", other, "h");
        assert_eq!(link(&[]), "/a?log=aa&before=7&still=yes#h");
        assert_eq!(
            link(&[("tasks", "t"), ("still", "")]),
            "/a?log=aa&tasks=t&before=7#h"
        );
        assert_eq!(link(&[("log", ""), ("before", "")]), "/a?still=yes#h");
    }
}
