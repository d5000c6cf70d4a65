//! Registers of backups that are to be written, and backups that are called over.
//!
//! What changes the set of a deployment's backups says in the store that its register is to be written, so this goes on
//! after a restart. Each broker does it for the clusters that it looks after, which no other one does. What was written
//! in one look is recorded at once, so that a backup costs no transaction more.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    backups::BackupStoreError,
    clock::Clock,
    model::{
        failure::chain,
        ids::DeploymentId,
        limits::register::{REGISTER_RETRY, REGISTERS_AT_ONCE},
    },
    provisioner::{SharedProvisioner, looked_after},
    registrar::{Registrar, RegistrarError},
    seal::KeyRing,
    store::{
        self, Store,
        register::{DueRegisters, Written},
    },
};

/// Writes registers, and calls backups over.
pub(super) struct Calling {
    pub(super) store: Arc<Store>,
    pub(super) registrar: Registrar,
    pub(super) keys: Arc<KeyRing>,
    pub(super) clock: Clock,
    /// Time between two looks.
    pub(super) every: Duration,
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
                    self.every
                }
                Err(error) => {
                    let why = chain(&error);
                    if told.as_ref() != Some(&why) {
                        log::error!("registers of backups are not kept for now: {why}");
                        told = Some(why);
                    }
                    REGISTER_RETRY.min(self.every)
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(pause) => {}
            }
        }
    }

    async fn look(&self) -> Result<(), RegistrarError> {
        loop {
            let unsettled = DueRegisters::Unsettled(self.keys.first().to_owned());
            let due = self.due(unsettled).await?;
            let mut written = Vec::new();
            let done = self.write_all(&due, &mut written).await;
            let count = written.len();
            // Also when the next one could not be written.
            self.registrar.record(written, Vec::new()).await?;
            done?;
            // Others wait behind them only where each came to something.
            if due.is_empty() || count < due.len() {
                break;
            }
        }
        let due = self.due(DueRegisters::Calling(self.clock.now())).await?;
        let (mut written, mut called) = (Vec::new(), Vec::new());
        let done = self.call_over(&due, &mut written, &mut called).await;
        self.registrar.record(written, called).await?;
        done
    }

    async fn write_all(
        &self,
        due: &[DeploymentId],
        written: &mut Vec<Written>,
    ) -> Result<(), RegistrarError> {
        for deployment in due {
            let one = self.registrar.write(deployment).await;
            written.extend(unless_of_one(one)?.flatten());
        }
        Ok(())
    }

    async fn call_over(
        &self,
        due: &[DeploymentId],
        written: &mut Vec<Written>,
        called: &mut Vec<DeploymentId>,
    ) -> Result<(), RegistrarError> {
        for deployment in due {
            let again = self.registrar.call_over(deployment).await;
            written.extend(unless_of_one(again)?.flatten());
            called.push(deployment.clone());
        }
        Ok(())
    }

    /// What is due on the clusters that this broker looks after; on all, where it is the only one.
    async fn due(&self, due: DueRegisters) -> Result<Vec<DeploymentId>, RegistrarError> {
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

/// Goes on where only one of them cannot be seen to; none then.
fn unless_of_one<T>(done: Result<T, RegistrarError>) -> Result<Option<T>, RegistrarError> {
    match done {
        Err(RegistrarError::Backups(
            error @ (BackupStoreError::Damaged { .. } | BackupStoreError::NotFound(_)),
        )) => {
            log::error!(
                "the register of a deployment's backups is not kept: {}",
                chain(&error)
            );
            Ok(None)
        }
        done => done.map(Some),
    }
}
