//! Asks for what is due: scheduled backups and proofs of backups; the ends of bindings, of backups whose time is over
//! (also those of deleted instances), of uploads that nobody goes on with, and of old entries of the audit where the
//! operator wants one; renewals of certificates; and moves of members that applications should reach elsewhere. A
//! clockwork in front of the same door that users knock at.
//!
//! It decides nothing and remembers nothing: what is due and what was done is in the store, so
//! that a restart, or a second one of its kind, does nothing twice.

use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    broker::{Broker, BrokerError},
    model::{
        failure::chain,
        limits::{
            ADDRESSES_LOOK, PROOFS_LOOK, PROOFS_SWEEP, SCHEDULE_INTERVAL, deleted::DELETED_LOOK,
            upload::UPLOADS_LOOK,
        },
    },
};

/// Looks for what is due until `stop`: every second, and for backups whenever one may have ended.
pub async fn run(broker: Arc<Broker>, stop: CancellationToken) {
    let mut ended = broker.ends();
    let mut backups = Watch::over("scheduled backups", "begin");
    let mut ends = Watch::over("ends of bindings", "begin");
    let mut old = Watch::over("backups that are old enough to go", "are removed");
    let mut renewals = Watch::over("renewals of certificates", "begin");
    let mut audit = Watch::over("old entries of the audit", "are forgotten");
    let mut next_look = Instant::now();
    while !stop.is_cancelled() {
        ended.mark_unchanged();
        backups.log_look(broker.schedule.accept_due().await);
        // A burst of operations is no reason to look for these more often.
        if Instant::now() >= next_look {
            ends.log_look(broker.expiry.end_due().await);
            old.log_look(broker.retention.prune_due().await);
            renewals.log_look(broker.renewals.begin_due().await);
            broker.audit.note_counted().await;
            audit.log_look(broker.audit.forget().await);
            next_look = Instant::now() + SCHEDULE_INTERVAL;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            _ = ended.changed() => {}
            () = tokio::time::sleep_until(next_look) => {}
        }
    }
}

/// Has members moved to where applications should reach them, until `stop`. That goes by the settings,
/// not by the time.
pub async fn move_members(broker: Arc<Broker>, stop: CancellationToken) {
    let mut moves = Watch::over(
        "members that applications should reach elsewhere",
        "are moved",
    );
    let begun_at = broker.clock.now();
    while !stop.is_cancelled() {
        moves.log_look(broker.moves.begin_due(begun_at).await);
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(ADDRESSES_LOOK) => {}
        }
    }
}

/// Has backups proved, one after the other, until `stop`.
pub async fn prove_backups(broker: Arc<Broker>, stop: CancellationToken) {
    let mut ended = broker.ends();
    let mut proofs = Watch::over("backups that nobody has restored yet", "are proved");
    let mut left = Watch::over("what proofs have left", "is removed");
    let mut next_sweep = Instant::now();
    while !stop.is_cancelled() {
        ended.mark_unchanged();
        if Instant::now() >= next_sweep {
            left.log_look(broker.proofs.sweep().await);
            next_sweep = Instant::now() + PROOFS_SWEEP;
        }
        proofs.log_look(broker.proofs.begin_due().await);
        tokio::select! {
            () = stop.cancelled() => {}
            _ = ended.changed() => {}
            () = tokio::time::sleep(PROOFS_LOOK) => {}
        }
    }
}

/// Has the backups of deleted instances removed whose time is over, and uploads given up that nobody goes on with, until
/// `stop`. It waits for the backup store, and holds nothing else up.
pub async fn end_deleted(broker: Arc<Broker>, stop: CancellationToken) {
    let mut ends = Watch::over("backups of deleted instances", "are removed");
    let mut uploads = Watch::over("uploads that nobody goes on with", "are given up");
    let mut next_look = Instant::now();
    while !stop.is_cancelled() {
        ends.log_look(broker.retention.deleted.end_due().await);
        if Instant::now() >= next_look {
            uploads.log_look(broker.uploads.end_due().await);
            next_look = Instant::now() + UPLOADS_LOOK;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(DELETED_LOOK) => {}
        }
    }
}

/// Tells of one thing that is looked for.
struct Watch {
    what: &'static str,
    /// What becomes of those that are found.
    done: &'static str,
    fails: bool,
}

impl Watch {
    fn over(what: &'static str, done: &'static str) -> Self {
        Self {
            what,
            done,
            fails: false,
        }
    }

    /// A failure is told once for each time that it stops working.
    fn log_look(&mut self, looked: Result<usize, BrokerError>) {
        let (what, done) = (self.what, self.done);
        match looked {
            Ok(found) => {
                if found > 0 {
                    log::info!(found; "{what} {done}");
                }
                self.fails = false;
            }
            Err(error) => {
                if !self.fails {
                    log::error!("cannot look for {what}: {}", chain(&error));
                }
                self.fails = true;
            }
        }
    }
}
