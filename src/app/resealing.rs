//! Manifests of backups under the first key of the ring.
//!
//! After a change of the ring, what is sealed beside a backup is sealed anew, one manifest after the other, while
//! the broker works. The store says which ones are left, so it goes on after a restart, and an older key is
//! needed as long as one is left that names it. Bytes of backups are not touched.
//!
//! Invariants: nothing is sealed anew before all brokers on the store seal under that key; a broker does so for
//! the clusters that it looks after, which no other one does, so that none writes a manifest back that another
//! one has deleted.

use std::{collections::BTreeMap, sync::Arc};

use tokio_util::sync::CancellationToken;

use crate::{
    backups::{BackupStoreError, Resealed, Vault},
    clock::Clock,
    model::{
        failure::chain,
        ids::{BackupId, DeploymentId},
        limits::{PAGE_OF_ALL, REPLICA_ALIVE, RESEAL_INTERVAL, RESEAL_RETRY},
        replicas::{Replica, seal_alike},
    },
    provisioner::{SharedProvisioner, looked_after},
    seal::KeyRing,
    store::{self, Store, StoreError},
};

/// Seals manifests anew.
pub(super) struct Resealing {
    pub(super) store: Arc<Store>,
    pub(super) backups: Vault,
    pub(super) keys: Arc<KeyRing>,
    /// This broker.
    pub(super) own: Replica,
    pub(super) clock: Clock,
    /// By cluster.
    pub(super) provisioners: BTreeMap<String, SharedProvisioner>,
}

/// Why a look came to nothing, or to less than all.
#[derive(Debug, thiserror::Error)]
enum ResealError {
    #[error("the broker's store")]
    Store(#[from] StoreError),
    #[error("the backup store")]
    Backups(#[from] BackupStoreError),
}

/// What a look came to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Look {
    renewed: u64,
    /// Those that could not be sealed anew, and why the first one could not.
    left: u64,
    why: Option<String>,
}

impl Resealing {
    /// Looks until `stop`.
    pub(super) async fn run(self, stop: CancellationToken) {
        // What was told last is not told again.
        let mut told = None;
        while !stop.is_cancelled() {
            let looked = tokio::select! {
                () = stop.cancelled() => return,
                looked = self.look() => looked,
            };
            let pause = match looked {
                Ok(Some(look)) => {
                    self.tell(&look, &mut told);
                    RESEAL_INTERVAL
                }
                Ok(None) => RESEAL_RETRY,
                Err(error) => {
                    let why = chain(&error);
                    if told.as_ref() != Some(&why) {
                        log::error!(
                            "manifests of backups cannot be looked at, and stay under their keys: {why}"
                        );
                        told = Some(why);
                    }
                    RESEAL_RETRY
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn tell(&self, look: &Look, told: &mut Option<String>) {
        let first = self.keys.first();
        if look.renewed > 0 {
            log::info!(
                backups = look.renewed, left = look.left, key = first;
                "manifests of backups are under the first key of the ring now"
            );
        }
        if look.why.is_some() && *told != look.why {
            let why = look.why.as_deref().unwrap_or_default();
            log::error!(
                left = look.left, key = first;
                "manifests of backups stay under an older key of the ring, which they need: {why}"
            );
        }
        told.clone_from(&look.why);
    }

    /// Seals anew what is to be; nothing while other brokers seal under another key.
    async fn look(&self) -> Result<Option<Look>, ResealError> {
        if !self.seal_alike().await? {
            return Ok(None);
        }
        let (mut look, mut after) = (Look::default(), None);
        loop {
            let page = self.page_after(after).await?;
            let Some((last, _)) = page.last() else {
                return Ok(Some(look));
            };
            after = Some(last.clone());
            for (backup, deployment) in page {
                match self.reseal(&deployment, &backup).await {
                    Ok(Resealed::Renewed) => look.renewed += 1,
                    Ok(_) => {}
                    // All others would be, too.
                    Err(ResealError::Backups(error)) if is_of_all(&error) => {
                        return Err(error.into());
                    }
                    Err(ResealError::Backups(error)) => {
                        look.left += 1;
                        look.why.get_or_insert_with(|| chain(&error));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// The next ones, of the clusters that this broker looks after; of all, where it is the only one.
    async fn page_after(
        &self,
        after: Option<BackupId>,
    ) -> Result<Vec<(BackupId, DeploymentId)>, StoreError> {
        let first = self.keys.first().to_owned();
        let own = (!self.store.is_private()).then(|| {
            let own = looked_after(&self.provisioners);
            own.map(|(id, _)| id.clone()).collect::<Vec<_>>()
        });
        let page = self.store.scan(move |conn| {
            let (own, after) = (own.as_deref(), after.as_ref());
            store::backup::sealed_otherwise(conn, &first, own, after, PAGE_OF_ALL)
        });
        page.await
    }

    async fn reseal(
        &self,
        deployment: &DeploymentId,
        backup: &BackupId,
    ) -> Result<Resealed, ResealError> {
        let now = self.clock.now();
        let resealed = self.backups.reseal(deployment, backup, now).await?;
        match resealed {
            // It was deleted, or a reconciliation tells of it.
            Resealed::Gone => return Ok(resealed),
            Resealed::CredentialsLost => {
                log::warn!(backup:% = backup; "its sealed credentials are under a key that is gone");
            }
            Resealed::Unchanged | Resealed::Renewed => {}
        }
        let (id, first) = (backup.clone(), self.keys.first().to_owned());
        self.store
            .write(move |conn| store::backup::set_sealed_under(conn, &id, &first, now))
            .await?;
        Ok(resealed)
    }

    /// Whether all brokers on the store seal under the same key.
    async fn seal_alike(&self) -> Result<bool, StoreError> {
        if self.store.is_private() {
            return Ok(true);
        }
        let now = self.clock.now();
        let others = self.store.read(move |conn| {
            let now = store::time::of_store(conn, now)?;
            store::broker::alive_since(conn, now - REPLICA_ALIVE)
        });
        Ok(seal_alike(&self.own, &others.await?))
    }
}

/// Whether it has nothing to do with the backup that was looked at.
fn is_of_all(error: &BackupStoreError) -> bool {
    match error {
        BackupStoreError::NotFound(_)
        | BackupStoreError::Damaged { .. }
        | BackupStoreError::KeyMissing { .. }
        | BackupStoreError::ForTenant { .. } => false,
        BackupStoreError::Absent { .. }
        | BackupStoreError::Full { .. }
        | BackupStoreError::Server { .. }
        | BackupStoreError::NotSealed(_)
        | BackupStoreError::BrokenSource(_)
        | BackupStoreError::Io { .. } => true,
    }
}
