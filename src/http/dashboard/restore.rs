//! What a restore into a new instance would do, told before anything is made, and the restore itself.

use actix_web::{HttpRequest, http::StatusCode, web};
use askama::Template;

use super::{
    Answer, Api, backups_of,
    calendar::title,
    door::see_other,
    form_of,
    id::Id,
    shell::{Shell, answer},
    show::{Moment, counted, dates_whole},
};
use crate::{
    broker::{InstanceView, PrivateKey, RestorePreflight, RestoreRequest},
    http::{error::HttpError, request::query},
    model::{
        backup::Backup,
        estimate::{Estimate, restore_takes},
        ids::{BackupId, InstanceId},
        limits::UNIT_BYTES,
        origin::Origin,
        proof::Standing,
        secret::Secret,
        session::Session,
        size::size,
        version::Version,
    },
};

/// The field with the private key to a backup that is sealed for it. It comes with what has something done alone.
pub(super) const PRIVATE_KEY: &str = "private_key";
/// What a form asks for beside the backup; hidden in the form that has it done.
const FIELDS: [&str; 4] = ["name", "version", "cluster", "units"];

#[derive(Template)]
#[template(path = "restore.html", whitespace = "minimize")]
struct RestorePage {
    shell: Shell,
    href: String,
    /// Where something else can be chosen.
    back: String,
    /// The instance that the backup is of.
    source: String,
    /// What the new one would be called.
    name: String,
    taken: Moment,
    /// What is known of the backup beside its time.
    backup: String,
    facts: Vec<(&'static str, String)>,
    /// Why it would not be done; empty when it would.
    reasons: Vec<String>,
    /// The public key that the backup is sealed for, whose private one the restore needs.
    sealed_for: Option<String>,
    fields: Vec<(&'static str, String)>,
}

/// `GET /dashboard/instances/:iid/backups/:bid/restore`
pub async fn page(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    Id(instance): Id<InstanceId>,
    Id(backup): Id<BackupId>,
    request: HttpRequest,
) -> Answer {
    let views = &api.broker.views;
    let (view, backup) = views.backup_view(&session, instance, backup).await?;
    let asked = |name: &str| query(&request, name).unwrap_or_default().trim().to_owned();
    let wanted = wanted(&view, &backup, &asked)?;
    let told = api.broker.restores.rehearse(wanted).await?;
    let all = backups_of(&view.of.instance.id);
    let name = told.name.clone().unwrap_or_else(|| asked("name"));
    let page = RestorePage {
        shell: Shell {
            here: "backups",
            follows: true,
            ..Shell::of_instance("Restore", &view, &api.broker, &session)
        },
        href: format!("{all}/{}/restore", backup.id),
        back: format!("{all}#backup-{}", backup.id),
        source: view.name().to_owned(),
        name,
        taken: Moment::new(backup.created_at, view.now),
        backup: described(&backup),
        facts: facts(&api, &view, &told),
        sealed_for: told.lacks_key_of.clone(),
        reasons: told.reasons.iter().map(|why| dates_whole(why)).collect(),
        fields: (FIELDS.into_iter().map(|name| (name, asked(name))))
            .filter(|(_, value)| !value.is_empty())
            .collect(),
    };
    Ok(answer(StatusCode::OK, &page))
}

/// `POST /dashboard/instances/:iid/backups/:bid/restore`
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
    let asked = |name: &str| form.text(name).trim().to_owned();
    let wanted = RestoreRequest {
        private_key: Some(Secret::new(asked(PRIVATE_KEY))).into(),
        ..wanted(&view, &backup, &asked)?
    };
    let restored = api.broker.restores.restore_here(wanted).await?;
    let href = backups_of(&view.of.instance.id);
    Ok(see_other(&format!(
        "{href}?operation={}",
        restored.restore.id
    )))
}

/// The restore that a form asks for.
fn wanted(
    view: &InstanceView,
    backup: &Backup,
    asked: &impl Fn(&str) -> String,
) -> Result<RestoreRequest, HttpError> {
    let given = |name: &str| Some(asked(name)).filter(|text| !text.is_empty());
    let units = given("units").map(|units| units.parse());
    let units = units
        .transpose()
        .map_err(|_| HttpError::bad_request("A size is a whole number of units."))?;
    Ok(RestoreRequest {
        source: view.of.instance.id.clone(),
        backup: backup.id.to_string(),
        restore_time: None,
        clients_notice: false,
        name: given("name"),
        version: given("version"),
        cluster: given("cluster"),
        units,
        // Never in the address of a page.
        private_key: PrivateKey::Absent,
        origin: Origin::Dashboard,
    })
}

/// Of what kind a backup is, how large, and whether it is proved.
fn described(backup: &Backup) -> String {
    let bytes = (backup.manifest.as_ref()).map(|of| size(of.stored.snapshot_bytes));
    let proof = match backup.proof.standing() {
        Standing::Proved => "proved",
        Standing::Flawed => "not what it should be",
        Standing::Unproved if !backup.is_provable() => "sealed for your own key",
        Standing::Unproved => "not proved",
    };
    let parts = [Some(title(backup.kind).to_lowercase()), bytes];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    format!("{}, {proof}", parts.join(", "))
}

fn facts(api: &Api, view: &InstanceView, told: &RestorePreflight) -> Vec<(&'static str, String)> {
    let inventory = &api.broker.inventory;
    let deployment = &view.of.deployment;
    let version = |version: Version| {
        let faults = inventory.known_faults(&deployment.engine, version).len();
        match u64::try_from(faults) {
            Ok(0) | Err(_) => format!("{} {version}", deployment.engine),
            Ok(faults) => format!(
                "{} {version}, with {}",
                deployment.engine,
                counted(faults, "known fault")
            ),
        }
    };
    let from = told.backup.as_ref().map(|backup| backup.version);
    let becomes = told.version.map(|to| match from {
        Some(from) if from != to => format!("{}; the backup is of {from}", version(to)),
        _ => version(to),
    });
    let sized = told.units.map(|units| {
        format!(
            "{}: {} on each of {} members",
            counted(units, "unit"),
            size(UNIT_BYTES.saturating_mul(units.into())),
            inventory.members_of(deployment)
        )
    });
    let place = (told.cluster.as_ref()).map(|cluster| inventory.cluster_name(cluster));
    let facts = [
        ("Version", becomes),
        ("Size", sized),
        ("Cluster", place),
        ("Takes", Some(takes(told.estimate))),
    ];
    let known = facts.into_iter();
    known
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

/// How long a restore takes, as a sentence.
pub fn takes(estimate: Option<Estimate>) -> String {
    restore_takes(estimate.map(|of| (of.seconds(), of.cases as u64)))
}
