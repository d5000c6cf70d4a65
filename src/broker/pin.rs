//! What users say of their backups: a note, and that one is kept beyond its time.

use std::sync::Arc;

use super::{
    BrokerError, BrokerParts,
    inventory::{Inventory, Kept},
};
use crate::{
    clock::Clock,
    model::{
        audit::AtOnce,
        backup::{Backup, BackupState, check_note},
        ids::{BackupId, InstanceId},
        origin::Origin,
        retention::replaced_by_next,
    },
    store::{self, Store},
};

/// What is written beside a backup; what is absent stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackupChange {
    /// The note.
    pub note: Option<String>,
    /// Whether it is kept beyond its time.
    pub pinned: Option<bool>,
}

/// What the next on-demand backup of an instance would do, and how many backups are pinned.
#[derive(Debug, Clone)]
pub struct KeptNow {
    /// The bounds.
    pub kept: Kept,
    /// How many are pinned.
    pub pinned: usize,
    /// Those that go when the next on-demand backup is complete, newest first.
    pub replaced_by_next: Vec<BackupId>,
}

impl KeptNow {
    /// Of the listed backups of an instance.
    pub fn of(backups: &[Backup], kept: Kept) -> Self {
        let replaced = replaced_by_next(backups, kept.on_demand);
        Self {
            kept,
            pinned: backups.iter().filter(|backup| backup.pinned).count(),
            replaced_by_next: replaced.into_iter().map(|b| b.id.clone()).collect(),
        }
    }
}

/// Notes and pins of backups.
pub struct Pins {
    store: Arc<Store>,
    clock: Clock,
    inventory: Arc<Inventory>,
}

impl Pins {
    pub(super) fn new(parts: &BrokerParts, inventory: Arc<Inventory>) -> Self {
        Self {
            store: parts.store.clone(),
            clock: parts.clock.clone(),
            inventory,
        }
    }

    /// Writes a note beside a backup of an instance, and whether it is kept beyond its time. Fails when
    /// as many are kept as the plan lets one keep.
    pub async fn change(
        &self,
        instance: InstanceId,
        id: BackupId,
        change: BackupChange,
        origin: Origin,
    ) -> Result<Backup, BrokerError> {
        let now = self.clock.now();
        let no_such = || BrokerError::NotFound("there is no such backup".to_owned());
        if let Some(note) = &change.note {
            check_note(note).map_err(BrokerError::BadRequest)?;
        }
        let of = instance.clone();
        let found = self
            .store
            .read(move |conn| store::instance::find(conn, &of));
        let found = found.await?.ok_or_else(no_such)?;
        let most = self.inventory.kept(&found).pinned;
        self.store
            .decide(move |conn| {
                let listed = store::backup::listed(conn, &instance)?;
                let pinned = listed.iter().filter(|backup| backup.pinned).count();
                let backup = listed.into_iter().find(|backup| backup.id == id);
                let mut backup = backup.ok_or_else(no_such)?;
                if let Some(note) = change.note.clone().filter(|note| *note != backup.note) {
                    store::backup::set_note(conn, &id, &note)?;
                    let what = AtOnce::BackupNote;
                    store::audit::done_to_backup(conn, what, origin, (&instance, &id), now)?;
                    backup.note = note;
                }
                match change.pinned {
                    Some(true) if !backup.pinned => {
                        may_be_pinned(&backup, pinned, most)?;
                        store::backup::set_pinned(conn, &id, true)?;
                        let what = AtOnce::Pin;
                        store::audit::done_to_backup(conn, what, origin, (&instance, &id), now)?;
                        backup.pinned = true;
                        backup.removal = None;
                    }
                    Some(false) if backup.pinned => {
                        store::backup::set_pinned(conn, &id, false)?;
                        let what = AtOnce::Unpin;
                        store::audit::done_to_backup(conn, what, origin, (&instance, &id), now)?;
                        backup.pinned = false;
                    }
                    _ => {}
                }
                Ok(backup)
            })
            .await
    }
}

fn may_be_pinned(backup: &Backup, pinned: usize, most: u32) -> Result<(), BrokerError> {
    if backup.state != BackupState::Complete {
        return Err(BrokerError::Concurrency(
            "only a complete backup can be kept".to_owned(),
        ));
    }
    if u32::try_from(pinned).is_ok_and(|pinned| pinned < most) {
        return Ok(());
    }
    Err(BrokerError::Concurrency(format!(
        "{pinned} backups of this instance are kept already, and its plan keeps {most} at most; let \
         go of one first"
    )))
}
