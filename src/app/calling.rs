//! Registers of backups that are to be written, and backups that are called over.
//!
//! What changes the set of a deployment's backups says in the store that its register is to be written, so this goes on
//! after a restart. Each broker does it for the clusters that it looks after, which no other one does.

use std::{collections::BTreeMap, sync::Arc};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    backups::BackupStoreError,
    clock::Clock,
    model::{
        failure::chain,
        ids::DeploymentId,
        limits::register::{REGISTER_LOOK, REGISTER_RETRY, REGISTERS_AT_ONCE},
    },
    provisioner::{SharedProvisioner, looked_after},
    registrar::{Registrar, RegistrarError},
    seal::KeyRing,
    store::{self, Store, register::Due},
};

/// Writes registers, and calls backups over.
pub(super) struct Calling {
    pub(super) store: Arc<Store>,
    pub(super) registrar: Registrar,
    pub(super) keys: Arc<KeyRing>,
    pub(super) clock: Clock,
    /// By cluster.
    pub(super) provisioners: BTreeMap<String, SharedProvisioner>,
}

impl Calling {
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
                Ok(()) => {
                    told = None;
                    REGISTER_LOOK
                }
                Err(error) => {
                    let why = chain(&error);
                    if told.as_ref() != Some(&why) {
                        log::error!("registers of backups are not kept for now: {why}");
                        told = Some(why);
                    }
                    REGISTER_RETRY
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(pause) => {}
            }
        }
    }

    async fn look(&self) -> Result<(), RegistrarError> {
        let unsettled = Due::Unsettled(self.keys.first().to_owned());
        for deployment in self.due(unsettled).await? {
            let written = self.registrar.write(&deployment).await.map(drop);
            skip_one(written)?;
        }
        for deployment in self.due(Due::Calling(self.clock.now())).await? {
            let called = self.registrar.call_over(&deployment).await;
            skip_one(called)?;
        }
        Ok(())
    }

    /// What is due on the clusters that this broker looks after; on all, where it is the only one.
    async fn due(&self, due: Due) -> Result<Vec<DeploymentId>, RegistrarError> {
        let own = (!self.store.is_private()).then(|| {
            let own = looked_after(&self.provisioners);
            own.map(|(id, _)| id.clone()).collect::<Vec<_>>()
        });
        let found = self
            .store
            .scan(move |conn| store::register::due(conn, &due, own.as_deref(), REGISTERS_AT_ONCE));
        Ok(found.await?)
    }
}

/// Goes on where only one of them cannot be seen to.
fn skip_one(done: Result<(), RegistrarError>) -> Result<(), RegistrarError> {
    match done {
        Err(RegistrarError::Backups(
            error @ (BackupStoreError::Damaged { .. } | BackupStoreError::NotFound(_)),
        )) => {
            log::error!(
                "the register of a deployment's backups is not kept: {}",
                chain(&error)
            );
            Ok(())
        }
        done => done,
    }
}
