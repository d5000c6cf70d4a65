//! Where one instance comes from, and what was restored from it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::{
    broker::{InstanceView, Restored, Source},
    http::dashboard::{
        bar::Bar,
        path_of,
        shell::is_being_deleted,
        show::Moment,
        state::{Label, label_of_health},
    },
    model::{
        deleted::DeletedInstance,
        health::Health,
        ids::{InstanceId, OperationId},
        session::{Scope, Session},
        trouble::Moment as Exact,
    },
};

/// Another instance; without an address where its page is not reached from here.
pub(super) struct Link {
    pub(super) href: Option<String>,
    pub(super) name: String,
    pub(super) label: Option<Label>,
    pub(super) bar: Option<Bar>,
    /// Through which door it was asked for.
    pub(super) by: &'static str,
    /// Who stood there; empty where nobody knows, and where the page is not reached.
    pub(super) user: String,
    pub(super) at: Moment,
}

/// An instance that was restored from it and is gone.
pub(super) struct DeletedRestore {
    /// The page that says what is left of it, for who may see that.
    pub(super) href: Option<String>,
    pub(super) name: String,
    pub(super) deleted: Moment,
    /// When its backups go.
    pub(super) kept_until: Moment,
}

/// The backup that an instance was restored from.
pub(super) struct From {
    pub(super) taken: Moment,
    pub(super) backup: String,
    pub(super) source: String,
    pub(super) href: Option<String>,
    pub(super) is_gone: bool,
}

/// The instances that were restored from it: how each of them is, and who asked for it.
pub(super) fn links_to_restored(
    session: &Session,
    view: &InstanceView,
    healths: &[Health],
    askers: &BTreeMap<OperationId, String>,
) -> Vec<Link> {
    let with_health = view.restores.iter().zip(healths);
    let link = |(of, health): (&Restored, &Health)| {
        let user = askers.get(&of.restore.id).cloned();
        link_to_restored(session, of, (health, user.unwrap_or_default()), view.now)
    };
    with_health.map(link).collect()
}

/// The backup that it was restored from.
pub(super) fn from(view: &InstanceView, source: &Source) -> From {
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

/// One that was restored from it and is gone.
pub(super) fn deleted_restore(
    session: &Session,
    of: &DeletedInstance,
    now: DateTime<Utc>,
) -> DeletedRestore {
    DeletedRestore {
        name: of.name.clone().unwrap_or_else(|| of.instance.to_string()),
        // What is left of it is shown to operators alone.
        href: (session.scope == Scope::Operator).then(|| path_of(&of.instance)),
        deleted: Moment::new(of.deleted_at, now),
        kept_until: Moment::new(of.kept_until, now),
    }
}

/// What became of an instance that was restored from this one, and whose deletion was asked for.
pub(super) fn what_became_of(view: &InstanceView, restored: &InstanceId) -> Option<String> {
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
