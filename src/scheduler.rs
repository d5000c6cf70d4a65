//! Takes backups by schedule: a clockwork in front of the same door that users knock at.
//!
//! It decides nothing and remembers nothing: what is due and what was taken is in the store, so
//! that a restart, or a second one of its kind, takes nothing twice.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::{
    broker::Broker,
    model::{failure::chain, limits::SCHEDULE_INTERVAL},
};

/// Looks for what is due until `stop`: every second, and whenever a backup may have ended.
pub async fn run(broker: Arc<Broker>, stop: CancellationToken) {
    let mut changes = broker.changes();
    let mut fails = false;
    while !stop.is_cancelled() {
        changes.mark_unchanged();
        match broker.back_up_due().await {
            Ok(accepted) => {
                if accepted > 0 {
                    log::info!(accepted; "scheduled backups begin");
                }
                fails = false;
            }
            // Once for each time that it stops working.
            Err(error) if !fails => {
                log::error!("cannot look for scheduled backups: {}", chain(&error));
                fails = true;
            }
            Err(_) => {}
        }
        tokio::select! {
            () = stop.cancelled() => {}
            _ = changes.changed() => {}
            () = tokio::time::sleep(SCHEDULE_INTERVAL) => {}
        }
    }
}
