//! Deleted instances whose backups are there still: operators see them, and end them before their time; the
//! broker ends those whose time is over.
//!
//! An end is decided first, in one transaction with the look for restores that read: from then on no restore is
//! promised one of the backups. Their bytes go next, and the rows last, so whatever a crash leaves is found by
//! the next look.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{BrokerError, BrokerParts, due::Outcome};
use crate::{
    clock::Clock,
    model::{
        audit::AtOnce,
        deleted::DeletedInstance,
        ids::{BackupId, DeploymentId},
        limits::deleted::{DELETED_ENDS_AT_ONCE, DELETED_ON_A_PAGE},
        origin::Origin,
        trust::Trusted,
    },
    registrar::Registrar,
    store::{self, Conn, Store, StoreError},
    timekeeper::Timekeeper,
};

/// A deleted instance, as operators see it.
#[derive(Debug)]
pub struct DeletedListed {
    /// The instance.
    pub deleted: DeletedInstance,
    /// How many backups of it there are.
    pub backups: usize,
    /// The newest one, and when it was taken.
    pub newest: Option<(BackupId, DateTime<Utc>)>,
}

/// Deleted instances.
pub struct DeletedInstances {
    store: Arc<Store>,
    registrar: Registrar,
    clock: Clock,
    time: Arc<Timekeeper>,
}

impl DeletedInstances {
    pub(super) fn new(parts: &BrokerParts) -> Self {
        Self {
            store: parts.store.clone(),
            registrar: parts.registrar.clone(),
            clock: parts.clock.clone(),
            time: parts.time.clone(),
        }
    }

    /// A page of them, the one that was deleted last in front, and whether there are more; the first page is 1.
    pub async fn page(&self, page: usize) -> Result<(Vec<DeletedListed>, bool), BrokerError> {
        let skipped = page.saturating_sub(1).saturating_mul(DELETED_ON_A_PAGE);
        let read = self.store.scan(move |conn| -> Result<_, StoreError> {
            let mut found = store::deleted::newest(conn, skipped, DELETED_ON_A_PAGE + 1)?;
            let has_more = found.len() > DELETED_ON_A_PAGE;
            found.truncate(DELETED_ON_A_PAGE);
            let listed = found.into_iter().map(|deleted| listed(conn, deleted));
            Ok((listed.collect::<Result<_, _>>()?, has_more))
        });
        Ok(read.await?)
    }

    /// Ends one now, on the word of an operator; its bytes go with the next look.
    pub async fn end(&self, deployment: DeploymentId) -> Result<(), BrokerError> {
        let now = self.clock.now();
        self.store
            .decide(move |conn| {
                let Some(found) = store::deleted::find(conn, &deployment)? else {
                    let text = "there is no such deleted instance (any more)";
                    return Err(BrokerError::NotFound(text.to_owned()));
                };
                if found.kept_until > now {
                    store::deleted::end_at(conn, &deployment, now)?;
                    let what = AtOnce::DeletedPurge;
                    store::audit::done(conn, what, Origin::Operator, Some(&found.instance), now)?;
                }
                Ok(())
            })
            .await
    }

    /// Ends those whose time is over, some at a time, unless the clock is in doubt; returns how many.
    pub async fn end_due(&self) -> Result<usize, BrokerError> {
        let Some(now) = self.time.trusted() else {
            return Ok(0);
        };
        let due = self
            .store
            .read(move |conn| store::deleted::due_to_go(conn, now.time(), DELETED_ENDS_AT_ONCE))
            .await?;
        let mut ends = Outcome::default();
        for deleted in due {
            if !ends.goes_on(self.remove(deleted, now).await) {
                break;
            }
        }
        ends.end()
    }

    /// Returns whether it is gone: one that a restore reads from stays until that has ended.
    async fn remove(&self, deleted: DeletedInstance, now: Trusted) -> Result<bool, BrokerError> {
        let keeper = deleted.keeper();
        let decided = self.store.decide(move |conn| -> Result<bool, BrokerError> {
            let complete = store::backup::complete_of(conn, &keeper)?;
            let ids: Vec<BackupId> = complete.into_iter().map(|backup| backup.id).collect();
            if !store::operation::restores_reading(conn, &ids)?.is_empty() {
                return Ok(false);
            }
            for id in &ids {
                store::backup::expire(conn, id, now)?;
            }
            Ok(true)
        });
        if !decided.await? {
            return Ok(false);
        }
        self.registrar.remove_all(&deleted.deployment).await?;
        let forget = self.store.decide(move |conn| -> Result<(), BrokerError> {
            store::backup::delete_of_instance(conn, &deleted.keeper())?;
            // Another broker may have been here at the same time.
            if store::deleted::delete(conn, &deleted.deployment)? {
                let (what, at) = (AtOnce::DeletedEnd, now.time());
                store::audit::done(conn, what, Origin::Retention, Some(&deleted.instance), at)?;
            }
            Ok(())
        });
        forget.await?;
        Ok(true)
    }
}

fn listed(conn: &mut Conn<'_>, deleted: DeletedInstance) -> Result<DeletedListed, StoreError> {
    let complete = store::backup::complete_of(conn, &deleted.keeper())?;
    let newest = complete.iter().find(|backup| backup.kind.is_own());
    Ok(DeletedListed {
        backups: complete.len(),
        newest: newest.map(|backup| (backup.id.clone(), backup.taken_at())),
        deleted,
    })
}
