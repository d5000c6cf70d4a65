//! The rows of the page of backups: those of each kind that are shown, and what is told of each.

use std::{borrow::Cow, collections::BTreeMap};

use actix_web::HttpRequest;
use serde_json::json;

use super::{
    bar::Bar,
    calendar::{title, where_daily_ones_are},
    command::{create_service, restore_backup},
    restore::takes,
    show::{Moment, counted, dates_whole, duration, number},
    state::{Label, label_of_backup},
};
use crate::{
    broker::{BACKUP_PRIVATE_KEY, InstanceView, RestoreOptions},
    http::request::query,
    model::{
        backup::{Backup, BackupState, Manifest},
        catalog::Placement,
        ids::{BackupId, OperationId},
        limits::{
            BACKUPS_ON_A_PAGE, DAILY_SHOWN, MONTHLY_SHOWN, ON_DEMAND_SHOWN, SAFETY_SHOWN,
            WEEKLY_SHOWN, upload::IMPORTED_BACKUPS_MAX,
        },
        name,
        period::BackupKind,
        proof::{Evidence, Standing},
        retention::{expires_at, goes_after},
        sentence::capitalized,
        size::size,
        version::Version,
    },
};

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

pub struct Group {
    pub id: &'static str,
    pub title: &'static str,
    pub count: usize,
    /// Where those are that one may miss here.
    pub note: Option<String>,
    pub rows: Vec<Row>,
    /// A link to all of them.
    pub more: Option<String>,
    /// The page of the group that this is; 0 among the other groups.
    pub page: usize,
    pub has_next: bool,
}

pub struct Row {
    pub id: BackupId,
    pub state: &'static str,
    pub label: Label,
    pub taken: Moment,
    pub size: String,
    pub version: String,
    pub failure: Option<String>,
    /// Whether it was restored aside, in a few words.
    pub proof: &'static str,
    pub bar: Option<Bar>,
    pub content: String,
    pub facts: Vec<(&'static str, String)>,
    pub expires: Option<Moment>,
    pub expiry: Cow<'static, str>,
    /// Why it goes, once that is decided.
    pub removal: Option<String>,
    pub note: String,
    pub pinned: bool,
    pub options: Option<Options>,
}

pub struct Options {
    pub refusal: Option<String>,
    pub name: String,
    pub versions: Vec<Choice>,
    pub clusters: Vec<Choice>,
    pub units: Units,
    pub note: String,
    pub cf: String,
    pub ibmcloud: String,
    pub own: String,
}

/// The size without a choice, and those that can be chosen.
pub struct Units {
    pub usual: u32,
    pub least: u32,
    pub most: u32,
}

pub struct Choice {
    pub value: String,
    pub label: String,
    pub selected: bool,
}

/// What is known beside the instance and its backups.
pub struct Known<'a> {
    /// How each complete backup that is shown can be restored.
    pub options: &'a [(BackupId, RestoreOptions)],
    /// Who asked for operations.
    pub askers: &'a BTreeMap<OperationId, String>,
}

/// What of the list is shown: the newest of every kind, or a page of one kind.
pub struct Shown {
    kind: Option<BackupKind>,
    page: usize,
}

impl Shown {
    pub fn asked_for(request: &HttpRequest) -> Self {
        let page = query(request, "page").and_then(|page| page.parse().ok());
        Self {
            kind: query(request, "kind").and_then(|kind| BackupKind::parse(&kind)),
            page: page.unwrap_or(1).clamp(1, 1_000_000),
        }
    }

    /// The backups of a kind that are shown, and how many there are in all.
    pub fn of<'a>(&self, kind: BackupKind, backups: &'a [Backup]) -> (Vec<&'a Backup>, usize) {
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

pub fn groups(view: &InstanceView, shown: &Shown, known: &Known<'_>) -> Vec<Group> {
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
                    .then(|| where_daily_ones_are(&view.backups, view.rules(), view.now))
                    .flatten(),
                more: (page == 0 && count > backups.len())
                    .then(|| format!("Show all {count} {name} backups")),
                page,
                has_next: page * BACKUPS_ON_A_PAGE < count,
                rows: backups
                    .into_iter()
                    .map(|backup| row(view, backup, known))
                    .collect(),
            })
        })
        .collect()
}

fn row(view: &InstanceView, backup: &Backup, known: &Known<'_>) -> Row {
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
    let restore = known.options.iter().find(|(id, _)| *id == backup.id);
    let work = view.work_on(backup);
    if let Some(operation) = work {
        let asker = known.askers.get(&operation.id).map(String::as_str);
        facts.push(("Asked for by", operation.origin.words_with(asker)));
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
pub fn usable(backup: &Backup) -> Option<&Backup> {
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
