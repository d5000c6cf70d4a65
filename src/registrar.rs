//! Keeps the register of each deployment, which stands beside its backups and says which should be there, as the store
//! has it; and looks whether what should be there is.
//!
//! Order is all that there is to it. A manifest names the number of a register that is there already. A backup that
//! goes is out of the register before its bytes are, and one that is new comes into it once it is complete. So at every
//! moment, also after a crash or in a copy of that moment, what a register has is there, or somebody else removed it.
//!
//! Who writes one does not record that: what the store does not know of is written again, and comes to the same. Many
//! are recorded at once, so that none costs a transaction of its own.
//!
//! Invariants: one register is written at a time, by the broker that looks after the deployment's cluster; what the
//! store does not know at all, as after it was put back to an earlier state, stays in the register until somebody has
//! decided about it; what differs from what was written last is told of, and never believed.

use std::{collections::BTreeSet, sync::Arc};

use chrono::{DateTime, Utc};
use tokio::sync::Mutex;

use crate::{
    backups::{BackupStoreError, Vault, registered},
    clock::Clock,
    model::{
        alert::Incident,
        backup::BackupState,
        failure::chain,
        ids::{BackupId, DeploymentId},
        register::{Register, RegisterState, Registered, gone, not_ours},
    },
    store::{
        self, Conn, Store, StoreError,
        register::{Kept, Written},
    },
};

/// Keeps registers.
#[derive(Clone)]
pub struct Registrar {
    store: Arc<Store>,
    backups: Vault,
    clock: Clock,
    /// Who reads or writes one has it meanwhile.
    turn: Arc<Mutex<()>>,
    /// The same in the mirror: nobody else waits for that.
    turn_in_mirror: Arc<Mutex<()>>,
}

/// Why a register could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum RegistrarError {
    /// The broker's store did not do its part.
    #[error("the broker's store")]
    Store(#[from] StoreError),
    /// The backup store, or the mirror, did not.
    #[error("the backup store")]
    Backups(#[from] BackupStoreError),
}

impl RegistrarError {
    fn lacks_room(&self) -> bool {
        matches!(self, Self::Backups(BackupStoreError::Full { .. }))
    }
}

impl Registrar {
    /// One that keeps those beside `backups`.
    pub fn new(store: Arc<Store>, backups: Vault, clock: Clock) -> Self {
        Self {
            store,
            backups,
            clock,
            turn: Arc::default(),
            turn_in_mirror: Arc::default(),
        }
    }

    /// Sees to it that a deployment has a register, for a manifest to name; returns its number.
    pub async fn begin(&self, deployment: &DeploymentId) -> Result<i64, RegistrarError> {
        let known = self.state(deployment).await?;
        if let Some(known) = known.filter(|of| of.written > 0) {
            return Ok(known.written);
        }
        let _turn = self.turn.lock().await;
        let written = self.write_in_turn(deployment, true).await?;
        Ok(written.map_or(RegisterState::BEFORE_ALL.number, |of| of.number))
    }

    /// Sees to it that the register of a deployment has nothing that the store gave up, whose bytes go next. Where there
    /// is no room for it, these make some, and it is written then.
    pub async fn settle(&self, deployment: &DeploymentId) -> Result<(), RegistrarError> {
        let state = self.state(deployment).await?;
        if state.is_some_and(|state| !state.is_settled()) {
            unless_full(self.write(deployment).await)?;
        }
        Ok(())
    }

    /// Writes the register of a deployment; none: it has none. The caller has it recorded, or it is written again.
    pub async fn write(
        &self,
        deployment: &DeploymentId,
    ) -> Result<Option<Written>, RegistrarError> {
        let _turn = self.turn.lock().await;
        self.write_in_turn(deployment, false).await
    }

    /// The same for who has the turn; where there is none, it begins if that is asked for.
    async fn write_in_turn(
        &self,
        deployment: &DeploymentId,
        begins: bool,
    ) -> Result<Option<Written>, RegistrarError> {
        loop {
            let (known, kept) = self.known(deployment).await?;
            if known.is_none() && !begins {
                return Ok(None);
            }
            let state = known.unwrap_or(RegisterState::BEFORE_ALL);
            let written = self.write_of(deployment, state, &kept).await?;
            let number = |of: RegisterState| of.number;
            // Another broker may have written a newer one in between, and removed what this one still had.
            if self.state(deployment).await?.map(number) == known.map(number) {
                return Ok(Some(written));
            }
        }
    }

    /// Writes what was read of a deployment into its register.
    async fn write_of(
        &self,
        deployment: &DeploymentId,
        state: RegisterState,
        kept: &[Kept],
    ) -> Result<Written, RegistrarError> {
        let (present, fault) = self.compare(deployment, state).await?;
        if let Some(fault) = fault {
            self.tell_of_fault(deployment, &fault).await?;
        }
        let mut number = state.number.max(named_in(kept));
        let mut backups: Vec<Registered> = kept.iter().map(|of| registered(&of.manifest)).collect();
        if let Some(present) = &present {
            backups.extend(self.unknown_in(present).await?);
            backups.sort_by(|one, other| one.backup_id.cmp(&other.backup_id));
            if present.number > number {
                log::warn!(deployment:% = deployment;
                    "the register of backups is newer than the broker's store, which was put back to an earlier state: \
                     what it has besides stays in it until a reconciliation");
            }
            // No two that say different things have the same number.
            let differs = i64::from(present.backups != backups);
            number = number.max(present.number + differs);
        }
        let register = Register::new(deployment, number, backups, self.clock.now());
        let written = self.backups.write_register(register, present.as_ref());
        Ok(Written {
            deployment: deployment.clone(),
            of: state,
            number,
            key: written.await?,
        })
    }

    /// Records registers that were written, and deployments whose backups were called over, in one transaction.
    pub async fn record(
        &self,
        written: Vec<Written>,
        called: Vec<DeploymentId>,
    ) -> Result<(), RegistrarError> {
        if written.is_empty() && called.is_empty() {
            return Ok(());
        }
        let now = self.clock.now();
        let recorded = self.store.write(move |conn| {
            for of in &written {
                store::register::set_written(conn, of)?;
            }
            for deployment in &called {
                store::register::set_called(conn, deployment, now)?;
            }
            Ok(())
        });
        Ok(recorded.await?)
    }

    /// The register that is there, if it is what was written last or newer; and what is wrong where it is not.
    async fn compare(
        &self,
        deployment: &DeploymentId,
        state: RegisterState,
    ) -> Result<(Option<Register>, Option<String>), RegistrarError> {
        let was_written = state.written > 0;
        Ok(match self.backups.read_register(deployment).await {
            Ok(Some(present)) if present.number < state.written => {
                let (is, was) = (present.number, state.written);
                let fault =
                    format!("is an older one: it has number {is}, and the last one had {was}");
                (None, Some(fault))
            }
            Ok(Some(present)) if present.of_mirror && was_written => {
                (None, Some("is that of the mirror".to_owned()))
            }
            Ok(Some(present)) => (Some(present), None),
            Ok(None) => (None, was_written.then(|| "is gone".to_owned())),
            Err(BackupStoreError::Damaged { reason, .. }) => {
                let fault = format!("is not as the broker wrote it: {reason}");
                (None, Some(fault))
            }
            // The ring was changed: it cannot be told.
            Err(BackupStoreError::KeyMissing { .. }) => (None, None),
            Err(error) => return Err(error.into()),
        })
    }

    /// What a register has of which the store knows nothing at all.
    async fn unknown_in(&self, register: &Register) -> Result<Vec<Registered>, StoreError> {
        let listed = register.backups.iter().filter(|of| !of.awaited);
        let ids: Vec<BackupId> = listed.clone().map(id_of).collect();
        let known = self
            .store
            .read(move |conn| store::register::known(conn, &ids));
        let known = known.await?;
        let unknown = listed.filter(|of| !known.contains(&of.backup_id));
        Ok(unknown.cloned().collect())
    }

    /// Looks whether all backups of a deployment are there, and its register, and tells of what is not. What is missing
    /// is looked at by a proof as soon as it is its turn, which puts it back from the mirror where there is one. A
    /// register that is not right is written anew, and returned.
    pub async fn call_over(
        &self,
        deployment: &DeploymentId,
    ) -> Result<Option<Written>, RegistrarError> {
        let _turn = self.turn.lock().await;
        // Where there is none any more, all of it was removed meanwhile.
        let (Some(state), kept) = self.known(deployment).await? else {
            return Ok(None);
        };
        let ids = kept.iter().map(|of| of.manifest.backup_id.clone());
        for id in self.backups.missing_of(deployment, ids).await? {
            self.tell_if_missing(deployment, &id).await?;
        }
        if state.written == 0 || self.is_right(deployment, state, &kept).await? {
            return Ok(None);
        }
        self.write_in_turn(deployment, false).await
    }

    /// Whether the register of a deployment is the one that was written last, and says what is so.
    async fn is_right(
        &self,
        deployment: &DeploymentId,
        state: RegisterState,
        kept: &[Kept],
    ) -> Result<bool, RegistrarError> {
        let (Some(present), None) = self.compare(deployment, state).await? else {
            return Ok(false);
        };
        // A broker of an earlier version may have looked after the cluster meanwhile.
        let listed: BTreeSet<BackupId> = present.backups.iter().map(id_of).collect();
        let mut wanted: BTreeSet<BackupId> = kept
            .iter()
            .map(|of| of.manifest.backup_id.clone())
            .collect();
        wanted.extend(self.unknown_in(&present).await?.iter().map(id_of));
        Ok(listed == wanted)
    }

    /// What is wrong with the register of a deployment; none: nothing is, or there is none yet.
    pub async fn fault(&self, deployment: &DeploymentId) -> Result<Option<String>, RegistrarError> {
        let _turn = self.turn.lock().await;
        let Some(state) = self.state(deployment).await?.filter(|of| of.written > 0) else {
            return Ok(None);
        };
        let (_, fault) = self.compare(deployment, state).await?;
        // Another broker may have ended the deployment meanwhile.
        Ok(match self.state(deployment).await? {
            Some(_) => fault,
            None => None,
        })
    }

    /// What the store knows of a register, and what that should have.
    async fn known(
        &self,
        deployment: &DeploymentId,
    ) -> Result<(Option<RegisterState>, Vec<Kept>), StoreError> {
        let of = deployment.clone();
        let read = self.store.read(move |conn| {
            let state = store::register::state(conn, &of)?;
            Ok((state, store::register::kept(conn, &of)?))
        });
        read.await
    }

    async fn state(&self, deployment: &DeploymentId) -> Result<Option<RegisterState>, StoreError> {
        let of = deployment.clone();
        let read = self
            .store
            .read(move |conn| store::register::state(conn, &of));
        read.await
    }

    /// Says that a backup is gone, unless it was given up meanwhile, or is there after all.
    async fn tell_if_missing(
        &self,
        deployment: &DeploymentId,
        backup: &BackupId,
    ) -> Result<(), RegistrarError> {
        if self
            .backups
            .stored(deployment, backup)
            .await?
            .missing()
            .is_none()
        {
            return Ok(());
        }
        let (id, of, now) = (backup.clone(), deployment.clone(), self.clock.now());
        let told = self.store.write(move |conn| {
            let row = store::backup::find(conn, &id)?;
            let Some(row) = row.filter(|row| row.state == BackupState::Complete) else {
                return Ok(None);
            };
            let message = gone(&id, row.taken_at());
            store::proof::set_doubted(conn, &id, now)?;
            tell(conn, &of, &message, now)?;
            Ok(Some(message))
        });
        if let Some(message) = told.await? {
            log::error!(deployment:% = deployment; "{message}");
        }
        Ok(())
    }

    async fn tell_of_fault(
        &self,
        deployment: &DeploymentId,
        fault: &str,
    ) -> Result<(), RegistrarError> {
        let message = not_ours(fault);
        log::error!(deployment:% = deployment; "{message}");
        let (of, now) = (deployment.clone(), self.clock.now());
        let told = self.store.write(move |conn| tell(conn, &of, &message, now));
        Ok(told.await?)
    }

    /// Deletes all that is stored of a deployment's backups, which nobody may be promised any more.
    pub async fn remove_all(&self, deployment: &DeploymentId) -> Result<(), RegistrarError> {
        let turn = self.turn.lock().await;
        let of = deployment.clone();
        // From now on nobody else writes it, or looks at what it has.
        let state = self.store.write(move |conn| {
            let state = store::register::state(conn, &of)?;
            store::register::forget(conn, &of)?;
            Ok(state)
        });
        let state = state.await?;
        unless_full(self.write_without(deployment, state, None).await)?;
        drop(turn);
        Ok(self.backups.remove_all(deployment).await?)
    }

    /// Deletes what is stored of a backup of which the store knows nothing.
    pub async fn remove_unknown(
        &self,
        deployment: &DeploymentId,
        backup: &BackupId,
    ) -> Result<(), RegistrarError> {
        let _turn = self.turn.lock().await;
        let state = self.state(deployment).await?;
        let write = || self.write_without(deployment, state, Some(backup));
        let before = unless_full(write().await)?;
        self.backups.remove(deployment, backup).await?;
        let written = match before {
            Some(written) => written,
            None => write().await?,
        };
        self.record(written.into_iter().collect(), Vec::new())
            .await?;
        if state.is_none() && self.backups.backups_of(deployment).await?.is_empty() {
            self.backups.remove_register(deployment).await?;
        }
        Ok(())
    }

    /// Deletes the register of a deployment of which the store knows nothing, and of which nothing else is stored.
    pub async fn remove_left(&self, deployment: &DeploymentId) -> Result<(), RegistrarError> {
        let _turn = self.turn.lock().await;
        if self.state(deployment).await?.is_none()
            && self.backups.backups_of(deployment).await?.is_empty()
        {
            self.backups.remove_register(deployment).await?;
        }
        Ok(())
    }

    /// Takes a backup out of the register that is there, or all; none: it had none of them.
    async fn write_without(
        &self,
        deployment: &DeploymentId,
        state: Option<RegisterState>,
        backup: Option<&BackupId>,
    ) -> Result<Option<Written>, RegistrarError> {
        let present = match self.backups.read_register(deployment).await {
            Ok(present) => present,
            Err(BackupStoreError::Damaged { .. } | BackupStoreError::KeyMissing { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let Some(mut present) = present else {
            return Ok(None);
        };
        let before = present.backups.len();
        present
            .backups
            .retain(|of| backup.is_some_and(|gone| of.backup_id != *gone));
        if present.backups.len() == before {
            return Ok(None);
        }
        let of = state.unwrap_or(RegisterState::BEFORE_ALL);
        let number = of.number.max(present.number) + 1;
        let register = Register::new(deployment, number, present.backups, self.clock.now());
        let key = self.backups.write_register(register, None).await?;
        Ok(Some(Written {
            deployment: deployment.clone(),
            of,
            number,
            key,
        }))
    }

    /// Writes the register of what the mirror has of a deployment. What it has not got yet it says so of.
    pub async fn write_in_mirror(&self, deployment: &DeploymentId) -> Result<(), RegistrarError> {
        let _turn = self.turn_in_mirror.lock().await;
        let (state, kept) = self.known(deployment).await?;
        let state = state.unwrap_or(RegisterState::BEFORE_ALL);
        let present = match self.backups.read_register_in_mirror(deployment).await {
            Ok(present) => present,
            Err(error @ BackupStoreError::Damaged { .. }) => {
                log::error!(
                    "the register of backups in the mirror is written anew: {}",
                    chain(&error)
                );
                None
            }
            Err(BackupStoreError::KeyMissing { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let before = present.as_ref().map_or(0, |present| present.number);
        let number = state.number.max(before).max(named_in(&kept));
        let backups = kept.iter().map(|of: &Kept| Registered {
            awaited: !of.is_mirrored,
            ..registered(&of.manifest)
        });
        let register = Register::new(deployment, number, backups.collect(), self.clock.now());
        let written = self
            .backups
            .write_register_in_mirror(register, present.as_ref());
        Ok(written.await?)
    }

    /// Sees to it that the mirror's register has nothing that goes next; no: there is no room for it, so it is to be
    /// written when that has gone.
    pub async fn settle_in_mirror(
        &self,
        deployment: &DeploymentId,
    ) -> Result<bool, RegistrarError> {
        let settled = unless_full(self.write_in_mirror(deployment).await)?;
        Ok(settled.is_some())
    }

    /// Removes the register of a deployment from the mirror, if that has nothing of it but what is left of this copy.
    pub async fn remove_last_from_mirror(
        &self,
        deployment: &DeploymentId,
        last: &BackupId,
    ) -> Result<(), RegistrarError> {
        let _turn = self.turn_in_mirror.lock().await;
        let (of, but) = (deployment.clone(), last.clone());
        let others = self
            .store
            .read(move |conn| store::register::has_other_copies(conn, &of, &but));
        if !others.await? {
            self.backups.remove_register_from_mirror(deployment).await?;
        }
        Ok(())
    }
}

/// Lets it pass that there is no room for a register, before something goes that makes some.
fn unless_full<T>(done: Result<T, RegistrarError>) -> Result<Option<T>, RegistrarError> {
    match done {
        Err(error) if error.lacks_room() => {
            log::warn!(
                "a register of backups is written only after some of them have gone: {}",
                chain(&error)
            );
            Ok(None)
        }
        done => done.map(Some),
    }
}

/// The highest number of a register that one of these manifests names.
fn named_in(kept: &[Kept]) -> i64 {
    let named = kept.iter().filter_map(|of| of.manifest.register);
    named.max().unwrap_or_default()
}

fn id_of(registered: &Registered) -> BackupId {
    registered.backup_id.clone()
}

/// Tells of something, where the deployment is still an instance's: nobody asks how a deleted one is.
fn tell(
    conn: &mut Conn<'_>,
    deployment: &DeploymentId,
    message: &str,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    if !store::deployment::is_known(conn, deployment)? {
        return Ok(());
    }
    let message = message.to_owned();
    store::incident::add(conn, deployment, &Incident { at: now, message })
}
