//! What is spoiled of a backup where it is stored, put back from the mirror, audited and told of.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures::FutureExt as _;

use crate::{
    backups::{BackupStoreError, Vault},
    model::{
        backup::{Backup, BackupState},
        ids::BackupId,
        mirror::healed,
        origin::Origin,
    },
    store::{self, Store, StoreError},
};

/// Why nobody knows whether something could be put back.
#[derive(Debug, thiserror::Error)]
pub enum HealingError {
    /// A backup store did not do its part.
    #[error(transparent)]
    Backups(#[from] BackupStoreError),
    /// The broker's store did not.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Puts back what is spoiled of a complete backup; `why` says in which way. Returns the backup and what its users are
/// told; none where nothing is spoiled, or there is no good copy.
pub async fn heal(
    store: &Arc<Store>,
    vault: &Vault,
    id: &BackupId,
    why: &str,
    (origin, now): (Origin, DateTime<Utc>),
) -> Result<Option<(Backup, String)>, HealingError> {
    if !vault.has_mirror() {
        return Ok(None);
    }
    let of = id.clone();
    let found = store
        .read(move |conn| store::backup::find(conn, &of))
        .await?;
    let found = found.filter(|of| of.state == BackupState::Complete);
    let Some((backup, manifest)) = found.and_then(|of| Some((of.clone(), of.manifest?))) else {
        return Ok(None);
    };
    let is_wanted = || {
        let (store, id) = (store.clone(), id.clone());
        let asked = async move {
            store
                .read(move |conn| store::mirror::is_wanted(conn, &id))
                .await
        };
        asked.map(Result::ok).boxed()
    };
    let Some(put_back) = vault.put_back(&manifest, &is_wanted, now).await? else {
        return Ok(None);
    };
    let message = healed(id, backup.taken_at(), put_back.bytes, why);
    let (of, text) = (backup.clone(), message.clone());
    let write = store.write(move |conn| {
        let told = (text.clone(), origin, now);
        store::mirror::set_healed(conn, &of, put_back.sealed_under.as_deref(), told)
    });
    write.await?;
    Ok(Some((backup, message)))
}
