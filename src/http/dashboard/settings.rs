//! The page of settings: an instance's size, its name, its protection, its end.

use actix_web::{HttpRequest, ResponseError as _, http::StatusCode, web};
use askama::Template;
use chrono::{TimeDelta, Weekday};
use serde_json::json;

use super::{
    Answer, Api, INSTANCES,
    door::see_other,
    error::PageError,
    form_of,
    id::Id,
    overview, path_of,
    shell::{Shell, after_deletion_of, answer},
    show::{Moment, counted, duration},
    update,
};
use crate::{
    broker::{Broker, InstanceView, Settings, SizePreflight, Sizes},
    http::{error::HttpError, request::query},
    model::{
        backup::{Backup, BackupState},
        health::DownReason,
        ids::InstanceId,
        instance::{DELETE_PROTECTION, InstanceState},
        limits::{
            HISTORY_KEPT, INSTANCE_NAME_CHARS_MAX, UNIT_BYTES, patience::FINAL_BACKUP_PATIENCE,
        },
        schedule::minute_of_day,
        sentence::capitalized,
        session::{Scope, Session},
        size::size,
        timetable::WEEKDAYS,
    },
};

/// The fields of how long backups are kept.
const DAYS: &str = "days";
const WEEKS: &str = "weeks";
const MONTHS: &str = "months";

#[derive(Template)]
#[template(path = "settings.html", whitespace = "minimize")]
struct SettingsPage {
    shell: Shell,
    /// What became of a form.
    message: Option<Message>,
    href: String,
    name: String,
    name_max: usize,
    can_rename: bool,
    /// Whether it has its name from a platform.
    is_platform_s: bool,
    is_ready: bool,
    is_protected: bool,
    /// The public key that backups are sealed for.
    recipient: Option<String>,
    units_max: u32,
    /// What the field of the size says.
    wanted: u32,
    size: String,
    /// What fits; none while nobody can say.
    fits: Option<String>,
    rehearsal: Option<Rehearsal>,
    /// When backups are taken and how long they are kept.
    schedule: Schedule,
    deletion: Deletion,
}

struct Message {
    text: String,
    is_bad: bool,
}

/// What the page says of a form that was sent, by the name that its address has for it.
const SAVED: [(&str, &str); 4] = [
    ("name", "The name is changed."),
    ("schedule", "The schedule is saved."),
    (
        "protected",
        "The instance is protected against deletion now.",
    ),
    ("unprotected", "The protection is lifted."),
];

/// What the fields of the forms are called, by the names that the rules have for them.
const FIELDS: [(&str, &str); 6] = [
    ("/units", "Units"),
    ("/backup_hour", "Time of day"),
    ("/backup_weekday", "Weekly backups"),
    ("/daily_backups_kept", DAYS_LABEL),
    ("/weekly_backups_kept", WEEKS_LABEL),
    ("/monthly_backups_kept", MONTHS_LABEL),
];

/// What the fields of how long backups are kept are called.
const DAYS_LABEL: &str = "Days for daily ones";
const WEEKS_LABEL: &str = "Weeks for weekly ones";
const MONTHS_LABEL: &str = "Months for monthly ones";

/// When weekly backups are taken where nobody has chosen a day.
const FIRST_FREE_DAY: &str = "on the first free day";

/// What is chosen of the schedule of backups.
struct Schedule {
    next: Option<Moment>,
    /// Whether the plan lets users choose.
    is_chosen: bool,
    /// The time of day as it is, for those who may not change it.
    hour_now: String,
    /// The day of weekly backups as it is, for the same.
    weekday_now: String,
    /// When weekly backups are taken where no day is chosen.
    first_free_day: &'static str,
    /// The hour that the broker has for it.
    own: String,
    hours: Vec<Choice>,
    weekdays: Vec<Choice>,
    kept: [Kept; 3],
}

struct Choice {
    value: String,
    label: String,
    selected: bool,
}

/// How long backups of a kind are kept.
struct Kept {
    name: &'static str,
    label: &'static str,
    now: u32,
    most: u32,
}

/// What another size would do.
struct Rehearsal {
    units: u32,
    size: String,
    /// Why it would not be done.
    refusal: Option<String>,
    /// What it would wait for.
    waits: Option<String>,
    /// What it means for the data.
    data: &'static str,
}

/// What stands against a deletion, or what it would take along and leave.
struct Deletion {
    refusal: Option<&'static str>,
    goes: Vec<String>,
    stays: Vec<String>,
    /// Whether the platform that asked for it goes on listing it.
    knows_platform: bool,
}

/// `GET /dashboard/instances/:iid/settings`
pub async fn page(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    Id(id): Id<InstanceId>,
    request: HttpRequest,
) -> Answer {
    let asked = query(&request, "units").and_then(|units| units.parse().ok());
    let saved = query(&request, "saved").unwrap_or_default();
    let saved = SAVED.iter().find(|(of, _)| *of == saved);
    let message = saved.map(|(_, text)| Message {
        text: (*text).to_owned(),
        is_bad: false,
    });
    let page = settings(&api, &session, id, asked, message).await?;
    Ok(answer(StatusCode::OK, &page))
}

/// The page, with the size that is asked for and with what became of a form.
async fn settings(
    api: &Api,
    session: &Session,
    id: InstanceId,
    asked: Option<u32>,
    message: Option<Message>,
) -> Result<SettingsPage, PageError> {
    let view = api.broker.views.instance_view(session, id).await?;
    let (instance, deployment) = (&view.of.instance, &view.of.deployment);
    let is_ready = instance.state == InstanceState::Ready;
    let rehearsal = match asked {
        Some(units) if is_ready => {
            let preflight = api.broker.settings.preflight_of_size(&view.of, units);
            Some(rehearsal(preflight.await?, &view))
        }
        _ => None,
    };
    let units_max = api.broker.inventory.units_max(&deployment.engine);
    let fits = match is_ready {
        true => {
            let sizes = api.broker.settings.sizes(&view.of).await?;
            Some(fits(&sizes, deployment.units))
        }
        false => None,
    };
    let deletion = deletion(&api.broker, session, &view).await?;
    // An answer to a form is no page that could be fetched again.
    let is_answer = message.as_ref().is_some_and(|message| message.is_bad);
    let may_rename = Settings::may_rename(session, instance);
    Ok(SettingsPage {
        shell: Shell {
            here: "settings",
            follows: !is_answer,
            under_way: !is_answer && view.running_change().is_some(),
            ..Shell::of_instance("Settings", &view, &api.broker, session)
        },
        href: settings_of(&instance.id),
        name: view.name().to_owned(),
        name_max: INSTANCE_NAME_CHARS_MAX,
        can_rename: may_rename && instance.state != InstanceState::Deleting,
        is_platform_s: !may_rename,
        is_ready,
        is_protected: instance.is_protected(),
        recipient: instance.recipient().map(str::to_owned),
        units_max,
        wanted: asked.unwrap_or(deployment.units),
        size: sized(deployment.units),
        fits,
        rehearsal,
        schedule: schedule_of(&view),
        deletion,
        message,
    })
}

/// The answer to a form: where it leads, or the page with the reason why nothing was changed.
async fn told(api: &Api, session: &Session, id: InstanceId, done: Answer) -> Answer {
    let error = match done {
        Err(error)
            if [StatusCode::BAD_REQUEST, StatusCode::CONFLICT].contains(&error.status_code()) =>
        {
            error
        }
        done => return done,
    };
    let message = Message {
        text: not_saved(&error.to_string()),
        is_bad: true,
    };
    // Who may not see the page hears the reason alone.
    let Ok(page) = settings(api, session, id, None, Some(message)).await else {
        return Err(error);
    };
    Ok(error.with_page(|status| answer(status, &page)))
}

/// Why nothing was changed, with the fields called as the form calls them.
fn not_saved(reason: &str) -> String {
    // What a schema is, who fills in a form need not know.
    let reason = reason.trim_start_matches("the parameters do not fit the plan's schema: ");
    let reason = FIELDS
        .iter()
        .fold(reason.to_owned(), |reason, (rule, label)| {
            reason.replace(rule, label)
        });
    let reason = reason
        .replace(" is greater than the maximum of ", " is more than ")
        .replace(" is less than the minimum of ", " is less than ");
    let reason = reason.trim_end_matches('.');
    if reason.starts_with("Nothing ") {
        return format!("{reason}.");
    }
    format!("Not saved: {reason}.")
}

/// `POST /dashboard/instances/:iid/settings/size`
pub async fn scale(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    Id(id): Id<InstanceId>,
    payload: web::Payload,
) -> Answer {
    let done = scale_by(&api, &session, id.clone(), payload).await;
    told(&api, &session, id, done).await
}

async fn scale_by(api: &Api, session: &Session, id: InstanceId, payload: web::Payload) -> Answer {
    let form = form_of(api, session, payload).await?;
    let view = api.broker.views.instance_view(session, id).await?;
    let units: u32 = form
        .text("units")
        .trim()
        .parse()
        .map_err(|_| HttpError::bad_request("A size is a whole number of units."))?;
    let parameters = json!({ "units": units });
    update(api, &view, parameters).await?;
    // There it is seen how it goes on.
    Ok(see_other(&path_of(&view.of.instance.id)))
}

/// `POST /dashboard/instances/:iid/settings/name`
pub async fn rename(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    Id(id): Id<InstanceId>,
    payload: web::Payload,
) -> Answer {
    let done = rename_by(&api, &session, id.clone(), payload).await;
    told(&api, &session, id, done).await
}

async fn rename_by(api: &Api, session: &Session, id: InstanceId, payload: web::Payload) -> Answer {
    let form = form_of(api, session, payload).await?;
    let name = form.text("name").trim().to_owned();
    let renamed = api.broker.settings.rename(session, id.clone(), name);
    renamed.await?;
    Ok(see_other(&saved(&id, "name")))
}

/// `POST /dashboard/instances/:iid/settings/schedule`
pub async fn schedule(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    Id(id): Id<InstanceId>,
    payload: web::Payload,
) -> Answer {
    let done = schedule_by(&api, &session, id.clone(), payload).await;
    told(&api, &session, id, done).await
}

async fn schedule_by(
    api: &Api,
    session: &Session,
    id: InstanceId,
    payload: web::Payload,
) -> Answer {
    let form = form_of(api, session, payload).await?;
    let view = api.broker.views.instance_view(session, id).await?;
    let mut parameters = json!({ "backup_weekday": chosen(form.text("weekday")) });
    for (field, parameter) in [
        ("hour", "backup_hour"),
        (DAYS, "daily_backups_kept"),
        (WEEKS, "weekly_backups_kept"),
        (MONTHS, "monthly_backups_kept"),
    ] {
        let number: Option<u32> = match form.text(field).trim() {
            "" => None,
            text => Some(text.parse().map_err(|_| {
                HttpError::bad_request("The hour and how long backups are kept are whole numbers.")
            })?),
        };
        parameters[parameter] = json!(number);
    }
    update(api, &view, parameters).await?;
    Ok(see_other(&saved(&view.of.instance.id, "schedule")))
}

/// What was chosen; none: as the broker has it.
fn chosen(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

fn schedule_of(view: &InstanceView) -> Schedule {
    let bounds = view.timetable_bounds;
    let now = view.timetable;
    let own = minute_of_day(&view.of.instance.id);
    let minute = own % 60;
    let told = |hour: u32| format!("{hour:02}:{minute:02} UTC");
    let hour = |hour: u32| Choice {
        value: hour.to_string(),
        label: told(hour),
        selected: now.hour == Some(hour),
    };
    let weekday = |(day, name): &(Weekday, &str)| Choice {
        value: (*name).to_owned(),
        label: capitalized(name),
        selected: now.weekday == Some(*day),
    };
    let weekdays: Vec<Choice> = WEEKDAYS.iter().map(weekday).collect();
    let chosen = weekdays.iter().find(|day| day.selected);
    let kept = |name, label, now, most: Option<u32>| Kept {
        name,
        label,
        now,
        most: most.unwrap_or(now),
    };
    let days = bounds.map(|of| of.daily_kept_max);
    let weeks = bounds.map(|of| of.weekly_kept_max);
    let months = bounds.map(|of| of.monthly_kept_max);
    Schedule {
        next: view.next_backup.map(|at| Moment::new(at, view.now)),
        is_chosen: bounds.is_some(),
        hour_now: told(now.hour.unwrap_or(own / 60)),
        weekday_now: chosen.map_or_else(|| FIRST_FREE_DAY.to_owned(), |day| day.label.clone()),
        first_free_day: FIRST_FREE_DAY,
        own: told(own / 60),
        hours: (0..24).map(hour).collect(),
        weekdays,
        kept: [
            kept(DAYS, DAYS_LABEL, now.days_kept(), days),
            kept(WEEKS, WEEKS_LABEL, now.weeks_kept(), weeks),
            kept(MONTHS, MONTHS_LABEL, now.months_kept(), months),
        ],
    }
}

/// `POST /dashboard/instances/:iid/settings/protection`
pub async fn protect(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    Id(id): Id<InstanceId>,
    payload: web::Payload,
) -> Answer {
    let done = protect_by(&api, &session, id.clone(), payload).await;
    told(&api, &session, id, done).await
}

async fn protect_by(api: &Api, session: &Session, id: InstanceId, payload: web::Payload) -> Answer {
    let form = form_of(api, session, payload).await?;
    let view = api.broker.views.instance_view(session, id).await?;
    let protected = match (form.text("protect"), form.text("sure")) {
        ("yes", _) => true,
        ("no", "yes") => false,
        ("no", _) => {
            let reason = "Nothing was changed: say that you know of the deletion that may be \
                          waiting.";
            return Err(HttpError::bad_request(reason).into());
        }
        _ => {
            let reason = "It is either to be protected or not.";
            return Err(HttpError::bad_request(reason).into());
        }
    };
    let parameters = json!({ DELETE_PROTECTION: protected });
    update(api, &view, parameters).await?;
    let what = if protected {
        "protected"
    } else {
        "unprotected"
    };
    Ok(see_other(&saved(&view.of.instance.id, what)))
}

/// `POST /dashboard/instances/:iid/settings/deletion`
pub async fn delete(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    Id(id): Id<InstanceId>,
    payload: web::Payload,
) -> Answer {
    let done = delete_by(&api, &session, id.clone(), payload).await;
    told(&api, &session, id, done).await
}

async fn delete_by(api: &Api, session: &Session, id: InstanceId, payload: web::Payload) -> Answer {
    let form = form_of(api, session, payload).await?;
    let view = api.broker.views.instance_view(session, id.clone()).await?;
    if form.text("confirm").trim() != view.name().trim() {
        let reason = "Nothing was deleted: the name that was typed is not the instance's.";
        return Err(HttpError::bad_request(reason).into());
    }
    api.broker.settings.delete(session, id.clone()).await?;
    // Where the instance is listed until it is gone.
    let source = view.of.source.as_ref().filter(|_| view.reaches_source);
    Ok(see_other(&match source {
        Some(source) => after_deletion_of(&id, &path_of(&source.of.instance)),
        None if session.scope == Scope::Operator => after_deletion_of(&id, INSTANCES),
        None => "/dashboard".to_owned(),
    }))
}

fn settings_of(instance: &InstanceId) -> String {
    format!("{}/settings", path_of(instance))
}

/// The page that says what was saved.
fn saved(instance: &InstanceId, what: &str) -> String {
    format!("{}?saved={what}", settings_of(instance))
}

fn sized(units: u32) -> String {
    let bytes = UNIT_BYTES.saturating_mul(units.into());
    format!(
        "{} ({} on each member)",
        counted(units, "unit"),
        size(bytes)
    )
}

/// What fits into an instance that has so many units, as sentences.
fn fits(sizes: &Sizes, units: u32) -> String {
    let most = counted(sizes.most, "unit");
    let most = match &sizes.why {
        Some(why) => {
            let why = why.trim_end_matches('.');
            format!("It can have {most} at most now. One more is refused: {why}.")
        }
        None => format!("It can have {most} at most."),
    };
    let full = || format!("It is full at {}", counted(units, "unit"));
    match sizes.fewest {
        _ if sizes.is_full && sizes.most <= units => format!("{}. {most}", full()),
        fewest if sizes.is_full => {
            let wanted = fewest.unwrap_or_default().max(units + 1);
            format!("{}: ask for {wanted} or more. {most}", full())
        }
        Some(fewest) => format!("The data fits into {}. {most}", counted(fewest, "unit")),
        None => format!("No member says how much it holds. {most}"),
    }
}

fn rehearsal(preflight: SizePreflight, view: &InstanceView) -> Rehearsal {
    let refusal = preflight.refusal.map(|reason| {
        let reason = reason.trim_end_matches('.');
        format!("{}.", capitalized(reason))
    });
    Rehearsal {
        units: preflight.units,
        size: sized(preflight.units),
        refusal,
        waits: preflight.waits,
        data: match (
            preflight.units > view.of.deployment.units,
            view.database.is_safe_full,
        ) {
            (true, _) => "No data moves.",
            (false, true) => {
                "No data is lost: what it holds fits. Once the new size is full, it takes no more writes."
            }
            (false, false) => {
                "No data is lost: what it holds fits. Once the new size is full, nobody but the broker is let in."
            }
        },
    }
}

async fn deletion(
    broker: &Broker,
    session: &Session,
    view: &InstanceView,
) -> Result<Deletion, HttpError> {
    let instance = &view.of.instance;
    let refusal = refusal_of_deletion(session, view);
    if refusal.is_some() {
        return Ok(Deletion {
            refusal,
            goes: Vec::new(),
            stays: Vec::new(),
            knows_platform: false,
        });
    }
    let credentials = broker.credentials.of_instance(session, instance.id.clone());
    let users = credentials.await?.all.len();
    let mut goes = vec![database(broker, view)];
    if view.kept.days_after_delete == 0 {
        goes.push(backups(view));
    }
    goes.push(format!(
        "Credentials: {users}. Applications that use them are refused at once."
    ));
    Ok(Deletion {
        refusal,
        goes,
        stays: stays(broker, view),
        knows_platform: instance.restored_from.is_none(),
    })
}

fn refusal_of_deletion(session: &Session, view: &InstanceView) -> Option<&'static str> {
    let instance = &view.of.instance;
    if instance.state == InstanceState::Deleting {
        Some("The instance is being deleted.")
    } else if session.is_read_only() {
        Some("Read-only visitors cannot delete it.")
    } else if !session.may_stand_in_for_platform(instance) {
        Some(
            "A platform made this instance. Delete it there, for example with cf delete-service. Deleted \
             here, it would still be listed there.",
        )
    } else if instance.is_protected() {
        Some("It is protected against deletion. Lift the protection first.")
    } else {
        None
    }
}

/// What of the database goes.
fn database(broker: &Broker, view: &InstanceView) -> String {
    let deployment = &view.of.deployment;
    let seen = broker.vitals.last_seen(deployment);
    let members = counted(broker.inventory.members_of(deployment), "member");
    let what = match seen.and_then(|seen| seen.database_bytes()) {
        Some(bytes) => format!("The database: {} on each of {members}", size(bytes)),
        None => format!("The database on {members}"),
    };
    let waits = takes_last_backup(broker, view) && waits_for_members(broker, view);
    format!("{what}, {}.", gone_by(waits))
}

/// By when it is gone; `waits`: for a last backup that needs more members than serve.
fn gone_by(waits: bool) -> &'static str {
    match waits {
        true => "once the last backup is taken or given up",
        false => "within a minute",
    }
}

/// Whether a deletion begins with a last backup.
fn takes_last_backup(broker: &Broker, view: &InstanceView) -> bool {
    let instance = &view.of.instance;
    let rules = broker.inventory.after_delete(instance);
    instance.state == InstanceState::Ready && rules.takes_final_backup(instance)
}

/// Whether a backup waits for members, as far as they were seen.
fn waits_for_members(broker: &Broker, view: &InstanceView) -> bool {
    let down = overview::down(broker, view);
    down.and_then(DownReason::waits_until).is_some()
}

/// The backups: all of them go, or all of them stay for a while.
fn backups(view: &InstanceView) -> String {
    let stored = |b: &&Backup| b.state == BackupState::Complete;
    let complete: Vec<&Backup> = view.backups.iter().filter(stored).collect();
    let bytes = complete.iter().filter_map(|b| b.manifest.as_ref());
    let bytes: u64 = bytes.map(|m| m.stored.object_bytes).sum();
    let kept = complete.iter().filter(|b| b.pinned).count();
    let count = counted(complete.len(), "backup");
    match (complete.len(), kept) {
        (0, _) => "No backups: there are none.".to_owned(),
        (_, 0) => format!("{count}, {} stored.", size(bytes)),
        _ => format!(
            "{count}, {} stored, with the {kept} that you keep.",
            size(bytes)
        ),
    }
}

/// The last backup of an instance, as a sentence.
fn one_more(waits: bool) -> String {
    if waits {
        let time = TimeDelta::from_std(FINAL_BACKUP_PATIENCE).unwrap_or_default();
        return format!(
            "A last backup, if enough members answer: the broker tries it for {} before it deletes anything.",
            duration(time)
        );
    }
    "A last backup, which is taken before anything is deleted.".to_owned()
}

/// What stays, and for how long.
fn stays(broker: &Broker, view: &InstanceView) -> Vec<String> {
    let mut stays = vec!["Backups that were downloaded.".to_owned()];
    if view.kept.days_after_delete > 0 {
        let instance = &view.of.instance;
        let days = counted(view.kept.days_after_delete, "day");
        let takes_one = takes_last_backup(broker, view);
        let one_more = one_more(waits_for_members(broker, view));
        let is_complete = |backup: &Backup| backup.state == BackupState::Complete;
        let kept = match (view.backups.iter().any(is_complete), takes_one) {
            (true, true) => Some(format!("{} {one_more}", backups(view))),
            (true, false) => Some(backups(view)),
            (false, true) => Some(one_more),
            (false, false) => None,
        };
        if let Some(kept) = kept {
            let id = &instance.id;
            let owner =
                format!("Its owner can make a new instance of what is kept, by its id: {id}.");
            stays.push(format!("For {days}: {kept} {owner}"));
        }
    }
    if !view.restores.is_empty() {
        let restored = counted(view.restores.len(), "restored instance");
        stays.push(format!("{restored}, with data apart from this one's."));
    }
    let days = counted(HISTORY_KEPT.num_days(), "day");
    let audit = match broker.settings.audit_days {
        Some(days) => format!("for {}", counted(days, "day")),
        None => "for ever".to_owned(),
    };
    stays.push(format!(
        "The record of what was done to it, for {days}, and in the audit of who asked for it, {audit}. \
         Neither holds data."
    ));
    stays
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deletion_that_waits_for_its_last_backup_says_how_long() {
        assert_eq!(gone_by(false), "within a minute");
        assert_eq!(gone_by(true), "once the last backup is taken or given up");
        assert_eq!(
            one_more(true),
            "A last backup, if enough members answer: the broker tries it for 2 min before it deletes anything."
        );
        assert!(one_more(false).contains("taken before anything is deleted"));
    }

    #[test]
    fn a_refused_form_is_told_of_in_its_own_words() {
        assert_eq!(
            not_saved(
                "the parameters do not fit the plan's schema: /daily_backups_kept: 99 is greater than the maximum of \
                 14"
            ),
            "Not saved: Days for daily ones: 99 is more than 14."
        );
        assert_eq!(not_saved("it has no room."), "Not saved: it has no room.");
    }

    #[test]
    fn what_fits_names_the_limit_that_holds() {
        let sizes = |fewest, most, why: Option<&str>| Sizes {
            fewest,
            is_full: false,
            most,
            why: why.map(str::to_owned),
        };
        assert_eq!(
            fits(&sizes(Some(2), 32, None), 2),
            "The data fits into 2 units. It can have 32 units at most."
        );
        assert_eq!(
            fits(&sizes(Some(1), 5, Some("its space may have no more")), 1),
            "The data fits into 1 unit. It can have 5 units at most now. One more is refused: its space may have no \
             more."
        );
        assert_eq!(
            fits(&sizes(None, 1, None), 1),
            "No member says how much it holds. It can have 1 unit at most."
        );
        let full = |most| Sizes {
            is_full: true,
            ..sizes(Some(1), most, None)
        };
        assert_eq!(
            fits(&full(32), 1),
            "It is full at 1 unit: ask for 2 or more. It can have 32 units at most."
        );
        assert_eq!(
            fits(&full(1), 1),
            "It is full at 1 unit. It can have 1 unit at most."
        );
    }
}
