//! Copies of backups in the mirror: made as soon as a backup is complete, looked at again so that each byte is read
//! within 30 days, and removed when the backup has gone.
//!
//! The store says what is left to do, so it goes on after a restart, and any broker that has the mirror may do it.
//! One copy is made at a time by each, and held meanwhile, so that no other one works on the same. While the mirror
//! is away nothing is forgotten, and nothing else waits for it.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    backups::{BackupStoreError, Vault},
    clock::Clock,
    model::{
        backoff::backoff,
        failure::chain,
        ids::{BackupId, DeploymentId},
        limits::{
            mirror::{
                MIRROR_HELD, MIRROR_HELD_AGAIN, MIRROR_LOOK, MIRROR_PAGE, MIRROR_PAUSE_FIRST,
                MIRROR_PAUSE_MAX,
            },
            proof::BYTES_READ_EVERY,
        },
    },
    registrar::{Registrar, RegistrarError},
    store::{
        self, Conn, Store, StoreError,
        mirror::{CopyHolder, DueCopy},
    },
};

/// Makes copies, and removes them.
pub(super) struct Mirroring {
    pub(super) store: Arc<Store>,
    pub(super) backups: Vault,
    pub(super) registrar: Registrar,
    /// This broker.
    pub(super) broker: String,
    pub(super) clock: Clock,
}

/// Why a look came to nothing, or to less than all.
#[derive(Debug, thiserror::Error)]
enum MirrorError {
    #[error("the broker's store")]
    Store(#[from] StoreError),
    #[error("a backup store")]
    Backups(#[from] BackupStoreError),
    #[error("another broker works on the same copy")]
    Taken,
}

impl From<RegistrarError> for MirrorError {
    fn from(error: RegistrarError) -> Self {
        match error {
            RegistrarError::Store(error) => error.into(),
            RegistrarError::Backups(error) => error.into(),
        }
    }
}

/// What goes on over many looks.
#[derive(Default)]
struct Memory {
    /// Copies up to this one were looked at for whether what they are of is gone.
    after: Option<BackupId>,
    /// How often in a row nothing could be done, and until when nothing is tried.
    failures: u32,
    rests_until: Option<Instant>,
    /// What was told last is not told again.
    told: Option<String>,
}

impl Mirroring {
    /// Looks until `stop`.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut memory = Memory::default();
        while !stop.is_cancelled() {
            let rests = memory
                .rests_until
                .is_some_and(|until| Instant::now() < until);
            let did_something = match rests {
                true => false,
                false => tokio::select! {
                    () = stop.cancelled() => return,
                    did = self.look(&mut memory) => did,
                },
            };
            if !did_something {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = sleep(MIRROR_LOOK) => {}
                }
            }
        }
    }

    /// Removes copies that are not wanted, and makes one; tells whether there may be more to do.
    async fn look(&self, memory: &mut Memory) -> bool {
        let looked = match self.remove_some(memory).await {
            Ok(has_removed) => self.copy_next().await.map(|is_done| (is_done, has_removed)),
            Err(error) => Err(error),
        };
        let failure = match looked {
            Ok((is_done, has_removed)) => {
                if memory.failures > 0 && (is_done || has_removed) {
                    log::info!("the mirror of backups takes copies again");
                    (memory.failures, memory.told) = (0, None);
                    self.tell(None).await;
                }
                return is_done;
            }
            Err(MirrorError::Taken) => return true,
            Err(error) => error,
        };
        memory.failures += 1;
        let pause = backoff(memory.failures, MIRROR_PAUSE_FIRST, MIRROR_PAUSE_MAX);
        memory.rests_until = Some(Instant::now() + pause);
        let why = chain(&failure);
        if memory.told.as_ref() != Some(&why) {
            log::error!("backups are not copied into the mirror for now: {why}");
            memory.told = Some(why);
        }
        if let MirrorError::Backups(error) = failure {
            self.tell(Some(self.words(&error).await)).await;
        }
        false
    }

    /// Keeps what is wrong with the mirror, or that nothing is, for those who ask.
    async fn tell(&self, why: Option<String>) {
        let now = self.clock.now();
        let told = self
            .store
            .write(move |conn| store::mirror::set_failure(conn, why.as_deref(), now));
        if let Err(error) = told.await {
            log::warn!(
                "what is wrong with the mirror is not kept: {}",
                chain(&error)
            );
        }
    }

    /// What an error means, for people: without places of the machine.
    async fn words(&self, error: &BackupStoreError) -> String {
        let first_is_there = self.backups.check().await.is_ok();
        let of = match error {
            BackupStoreError::Full { .. } => "the mirror",
            _ if first_is_there => "the mirror",
            _ => "the backup store",
        };
        format!("{of} {}", meaning_of(error))
    }

    /// Removes copies whose backups have gone, of the next ones in line; tells whether any was.
    async fn remove_some(&self, memory: &mut Memory) -> Result<bool, MirrorError> {
        let after = memory.after.take();
        let page = self
            .store
            .scan(move |conn| store::mirror::superfluous(conn, after.as_ref(), MIRROR_PAGE));
        let (gone, last) = page.await?;
        let mut has_removed = false;
        for (backup, deployment) in gone {
            match self.remove(&backup, &deployment).await {
                Ok(()) => has_removed = true,
                Err(MirrorError::Taken) => {}
                Err(error) => {
                    self.let_go(&backup).await;
                    return Err(error);
                }
            }
        }
        memory.after = last;
        Ok(has_removed)
    }

    async fn remove(
        &self,
        backup: &BackupId,
        deployment: &DeploymentId,
    ) -> Result<(), MirrorError> {
        if !self.hold(backup).await? {
            return Err(MirrorError::Taken);
        }
        // It is missed no more before it goes.
        let is_settled = self.registrar.settle_in_mirror(deployment).await?;
        self.while_held(backup, self.backups.remove_from_mirror(deployment, backup))
            .await?;
        if !is_settled {
            self.registrar.write_in_mirror(deployment).await?;
        }
        self.registrar
            .remove_last_from_mirror(deployment, backup)
            .await?;
        let id = backup.clone();
        let forget = move |conn: &mut Conn<'_>| match store::mirror::is_wanted(conn, &id)? {
            // It was listed again meanwhile, and is copied anew.
            true => store::mirror::set_spoiled(conn, &id),
            false => store::mirror::forget(conn, &id),
        };
        self.store.write(forget).await?;
        log::info!(backup:% = backup; "the copy of a backup that has gone is removed from the mirror");
        Ok(())
    }

    /// Makes the next copy, or looks at it again; false where none is due.
    async fn copy_next(&self) -> Result<bool, MirrorError> {
        let (broker, own) = (self.broker.clone(), self.clock.now());
        let held = self.store.decide(move |conn| {
            let holder = holder(conn, &broker, own)?;
            store::mirror::hold_next(conn, &holder)
        });
        let Some(due) = held.await? else {
            return Ok(false);
        };
        let id = due.manifest.backup_id.clone();
        match self.while_held(&id, self.copy(&due)).await {
            Ok(()) => Ok(true),
            Err(MirrorError::Backups(error)) if is_of_one(&error) => {
                log::error!(backup:% = id; "a backup cannot be copied into the mirror: {}", chain(&error));
                let (why, now) = (
                    format!("the backup {}", meaning_of(&error)),
                    self.clock.now(),
                );
                let failed = self.store.write(move |conn| {
                    store::mirror::set_failed(conn, &id, &why, now)?;
                    // What is spoiled is looked into, and healed or told of.
                    store::proof::set_doubted(conn, &id, now)
                });
                failed.await?;
                Ok(true)
            }
            Err(error) => {
                self.let_go(&id).await;
                Err(error)
            }
        }
    }

    async fn copy(&self, due: &DueCopy) -> Result<(), MirrorError> {
        let (manifest, begun) = (&due.manifest, self.clock.now());
        let id = &manifest.backup_id;
        let mut read_at = due.read_at;
        if read_at.is_none_or(|at| is_long_ago(at, begun)) {
            let is_whole = self.backups.is_copy_whole(manifest).await?;
            if !is_whole {
                if due.read_at.is_some() {
                    log::error!(backup:% = id; "the copy of a backup in the mirror is spoiled, and is made anew");
                }
                let spoiled = id.clone();
                self.store
                    .write(move |conn| store::mirror::set_spoiled(conn, &spoiled))
                    .await?;
                self.backups.remove_copied_object(manifest).await?;
            }
            read_at = Some(begun);
        }
        // Manifests name a register that is there.
        self.registrar
            .write_in_mirror(&manifest.deployment_id)
            .await?;
        let bytes = self.backups.copy_to_mirror(manifest, begun).await?;
        let (due, now) = (due.clone(), self.clock.now());
        let read_at = if bytes > 0 {
            now
        } else {
            read_at.unwrap_or(begun)
        };
        self.store
            .write(move |conn| store::mirror::set_copied(conn, &due, read_at, now))
            .await?;
        self.registrar
            .write_in_mirror(&manifest.deployment_id)
            .await?;
        log::info!(backup:% = id, bytes; "the mirror has a backup");
        Ok(())
    }

    /// Does something with a copy that is held, and goes on holding it; broken off where another one has it.
    async fn while_held<T, E: Into<MirrorError>>(
        &self,
        id: &BackupId,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, MirrorError> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done.map_err(Into::into),
                () = sleep(MIRROR_HELD_AGAIN) => {
                    if !self.hold(id).await? {
                        return Err(MirrorError::Taken);
                    }
                }
            }
        }
    }

    async fn hold(&self, id: &BackupId) -> Result<bool, StoreError> {
        let (broker, own, id) = (self.broker.clone(), self.clock.now(), id.clone());
        let held = self.store.write(move |conn| {
            let holder = holder(conn, &broker, own)?;
            store::mirror::hold(conn, &id, &holder)
        });
        held.await
    }

    /// Others need not wait until it is held no more.
    async fn let_go(&self, id: &BackupId) {
        let (broker, id) = (self.broker.clone(), id.clone());
        let let_go = self
            .store
            .write(move |conn| store::mirror::let_go(conn, &id, &broker));
        if let Err(error) = let_go.await {
            log::warn!(
                "a copy of a backup is held on for a while: {}",
                chain(&error)
            );
        }
    }
}

fn holder(conn: &mut Conn<'_>, broker: &str, own: DateTime<Utc>) -> Result<CopyHolder, StoreError> {
    let now = store::time::of_store(conn, own)?;
    Ok(CopyHolder {
        broker: broker.to_owned(),
        now,
        until: now + MIRROR_HELD,
    })
}

/// Whether bytes that were read then are to be read again; also where then lies ahead.
fn is_long_ago(then: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    let passed = (now - then).to_std().unwrap_or(Duration::MAX);
    passed >= BYTES_READ_EVERY
}

/// Whether it has to do with the backup that was copied, and not with all.
fn is_of_one(error: &BackupStoreError) -> bool {
    matches!(
        error,
        BackupStoreError::NotFound(_)
            | BackupStoreError::Damaged { .. }
            | BackupStoreError::KeyMissing { .. }
            | BackupStoreError::ForTenant { .. }
    )
}

/// What a failure means, as the end of a sentence.
fn meaning_of(error: &BackupStoreError) -> &'static str {
    match error {
        BackupStoreError::NotFound(_) | BackupStoreError::Damaged { .. } => {
            "cannot be copied whole: what is stored of it is spoiled"
        }
        BackupStoreError::KeyMissing { .. } => "is sealed under a key that the broker lacks",
        BackupStoreError::ForTenant { .. } => "is sealed for the key of its tenant",
        BackupStoreError::Absent { .. } => {
            "is not there (is its disk mounted, or its bucket there?)"
        }
        BackupStoreError::Full { .. } => "is full",
        BackupStoreError::Server { may_pass: true, .. } => "cannot be reached, or is too busy",
        BackupStoreError::Server { .. } => "refuses",
        BackupStoreError::NotSealed(_)
        | BackupStoreError::BrokenSource(_)
        | BackupStoreError::Io { .. } => "did not do its part",
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn bytes_are_read_again_after_29_days_and_when_the_clock_was_set_back() {
        let now = DateTime::UNIX_EPOCH + TimeDelta::days(100);
        assert!(!is_long_ago(now, now));
        assert!(!is_long_ago(now - TimeDelta::days(28), now));
        assert!(is_long_ago(now - TimeDelta::days(29), now));
        assert!(is_long_ago(now + TimeDelta::seconds(1), now));
    }
}
