//! Keys that are put back from a backup into the instance that it is of. They are compared first: the page says
//! what would be changed before anything is.

use actix_web::{HttpRequest, http::StatusCode, web};
use askama::Template;

use super::{
    Answer, Api, backups_of,
    bar::Bar,
    door::see_other,
    form_of,
    id::Id,
    restore::PRIVATE_KEY,
    shell::{Shell, answer},
    show::{Moment, counted, dates_whole},
};
use crate::{
    broker::InstanceView,
    http::{error::HttpError, request::query},
    model::{
        backup::Backup,
        ids::{BackupId, InstanceId, OperationId},
        limits::prefix::KEY_PREFIX_BYTES_MAX,
        operation::{Operation, OperationKind, OperationState},
        origin::Origin,
        prefix::{PrefixChanges, PrefixDifference, PrefixMode, PrefixRestore},
        secret::Secret,
        session::Session,
        size::size,
    },
};

#[derive(Template)]
#[template(path = "keys.html", whitespace = "minimize")]
struct KeysPage {
    shell: Shell,
    href: String,
    /// The list of backups, at this one.
    back: String,
    /// The public key that the backup is sealed for, whose private one is needed.
    sealed_for: Option<String>,
    /// The instance.
    source: String,
    taken: Moment,
    prefix: String,
    prefix_max: usize,
    modes: [Mode; 3],
    /// What is being done.
    running: Option<Bar>,
    /// What came to nothing, and why.
    failure: Option<String>,
    found: Option<Found>,
    /// What was done, for people.
    done: Option<String>,
}

struct Mode {
    value: &'static str,
    label: &'static str,
    selected: bool,
}

/// What a comparison found.
struct Found {
    /// The keys that were compared, for people.
    keys: String,
    facts: [(&'static str, String); 5],
    /// What would be done about it, for people.
    effect: String,
    /// Whether anything would be changed.
    changes: bool,
}

/// `GET /dashboard/instances/:iid/backups/:bid/keys`
pub async fn page(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    Id(instance): Id<InstanceId>,
    Id(backup): Id<BackupId>,
    request: HttpRequest,
) -> Answer {
    let views = &api.broker.views;
    let (view, backup) = views.backup_view(&session, instance, backup).await?;
    let asked = query(&request, "operation").and_then(|id| id.parse::<OperationId>().ok());
    let operation = asked.and_then(|id| {
        let of_backup = |o: &&Operation| {
            o.kind == OperationKind::RestorePrefix && o.backup.as_ref() == Some(&backup.id)
        };
        view.operations
            .iter()
            .filter(of_backup)
            .find(|o| o.id == id)
    });
    let wanted = operation.and_then(|operation| operation.prefix_restore.as_ref());
    let chosen = wanted.map_or(PrefixMode::Missing, |wanted| wanted.mode);
    let state = operation.map(|operation| operation.state);
    let active = operation.filter(|operation| operation.state.is_active());
    let page = KeysPage {
        shell: Shell {
            here: "backups",
            follows: true,
            under_way: active.is_some(),
            ..Shell::of_instance("Restore keys", &view, &api.broker, &session)
        },
        href: href(&view, &backup),
        back: format!("{}#backup-{}", backups_of(&view.of.instance.id), backup.id),
        sealed_for: backup.recipient().map(str::to_owned),
        source: view.name().to_owned(),
        taken: Moment::new(backup.created_at, view.now),
        prefix: wanted.map_or_else(String::new, |wanted| wanted.prefix.clone()),
        prefix_max: KEY_PREFIX_BYTES_MAX,
        modes: modes(chosen),
        running: active.map(|operation| Bar::of(operation, view.now)),
        failure: operation.and_then(failure),
        found: wanted
            .filter(|wanted| wanted.dry_run && state == Some(OperationState::Succeeded))
            .and_then(found),
        done: wanted.and_then(done),
    };
    Ok(answer(StatusCode::OK, &page))
}

/// `POST /dashboard/instances/:iid/backups/:bid/keys`
pub async fn restore(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    Id(instance): Id<InstanceId>,
    Id(backup): Id<BackupId>,
    payload: web::Payload,
) -> Answer {
    let form = form_of(&api, &session, payload).await?;
    let views = &api.broker.views;
    let (view, backup) = views.backup_view(&session, instance, backup).await?;
    let dry_run = form.text("sure") != "yes";
    let wanted = PrefixRestore::wanted(form.text("prefix"), form.text("mode"), dry_run);
    let wanted = wanted.map_err(HttpError::bad_request)?;
    let key = Some(Secret::new(form.text(PRIVATE_KEY).trim())).into();
    let from = (backup.id.to_string(), None, key);
    let upkeep = &api.broker.upkeep;
    let source = view.of.instance.id.clone();
    let operation = upkeep.restore_prefix(&view.of, source, from, wanted, Origin::Dashboard);
    let href = href(&view, &backup);
    Ok(see_other(&format!(
        "{href}?operation={}",
        operation.await?.id
    )))
}

fn href(view: &InstanceView, backup: &Backup) -> String {
    format!("{}/{}/keys", backups_of(&view.of.instance.id), backup.id)
}

fn modes(chosen: PrefixMode) -> [Mode; 3] {
    PrefixMode::ALL.map(|mode| Mode {
        value: mode.as_str(),
        label: match mode {
            PrefixMode::Missing => "Missing keys",
            PrefixMode::Overwrite => "Missing and changed keys",
            PrefixMode::Mirror => "All, as in the backup",
        },
        selected: mode == chosen,
    })
}

fn failure(operation: &Operation) -> Option<String> {
    let over = [
        OperationState::Failed,
        OperationState::Stuck,
        OperationState::Abandoned,
    ];
    let reason = operation.failure.as_deref();
    let reason = reason.unwrap_or("no reason was recorded");
    over.contains(&operation.state).then(|| dates_whole(reason))
}

fn found(wanted: &PrefixRestore) -> Option<Found> {
    let found = wanted.difference.as_ref()?;
    let would = PrefixChanges::of(wanted.mode, found, 0, 0);
    let changes = would.written + would.deleted > 0;
    let effect = match (changes, would.deleted) {
        (false, _) => "There is nothing to put back.".to_owned(),
        (true, 0) => format!("{} written.", is_done(would.written)),
        (true, deleted) => format!("{} written, and {deleted} deleted.", is_done(would.written)),
    };
    Some(Found {
        keys: match wanted.prefix.as_str() {
            "" => "All keys".to_owned(),
            prefix => format!("Keys that begin with “{prefix}”"),
        },
        facts: facts(found, wanted.mode),
        effect,
        changes,
    })
}

fn is_done(keys: u64) -> String {
    let verb = if keys == 1 { "is" } else { "are" };
    format!("{} {verb}", counted(keys, "key"))
}

fn facts(found: &PrefixDifference, mode: PrefixMode) -> [(&'static str, String); 5] {
    let bytes = match found.bytes(mode) {
        0 => String::new(),
        bytes => format!(", {} to write", size(bytes)),
    };
    [
        (
            "Gone since the backup",
            counted(found.missing, "key") + &bytes,
        ),
        ("With another value now", counted(found.changed, "key")),
        ("Not in the backup", counted(found.extra, "key")),
        ("The same", counted(found.same, "key")),
        ("With a lease, left alone", counted(found.ephemeral, "key")),
    ]
}

fn done(wanted: &PrefixRestore) -> Option<String> {
    let done = wanted.changes?;
    let left = match done.left {
        0 => String::new(),
        left => format!(
            " {} left alone: somebody changed them meanwhile.",
            counted(left, "key")
        ),
    };
    Some(format!(
        "Done: {} written, {} deleted.{left}",
        counted(done.written, "key"),
        done.deleted
    ))
}
