//! The eye on all members.
//!
//! It holds the cluster weakly and ends when nobody else holds it. A deployment in whose members
//! an action is under way is left alone until the next round.

use std::sync::{Arc, Weak, atomic::Ordering};

use tokio::time::{MissedTickBehavior, interval};

use super::ClusterFolder;
use crate::model::{failure::chain, limits::SUPERVISION_INTERVAL};

/// Looks after all members of a cluster from now on.
pub(super) fn supervise(cluster: &Arc<ClusterFolder>) {
    tokio::spawn(rounds(Arc::downgrade(cluster)));
}

async fn rounds(cluster: Weak<ClusterFolder>) {
    let mut ticks = interval(SUPERVISION_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(cluster) = cluster.upgrade() else {
            return;
        };
        let round = tokio::task::spawn_blocking(move || one_round(&cluster));
        if let Err(error) = round.await {
            log::error!("a supervision round broke off: {error}");
        }
    }
}

/// One look at all members.
pub(super) fn one_round(cluster: &ClusterFolder) {
    let looked = cluster.check();
    let was_elsewhere = cluster
        .is_elsewhere
        .swap(looked.is_err(), Ordering::Relaxed);
    match looked {
        Ok(()) if was_elsewhere => log::info!("the cluster folder is there again"),
        Ok(()) => {}
        Err(error) => {
            if !was_elsewhere {
                log::error!("no member is started: {}", chain(&error));
            }
            return;
        }
    }
    for deployment in cluster.known_deployments() {
        if let Ok(mut deployment) = deployment.try_lock() {
            deployment.look_after(&cluster.programs);
        }
    }
    cluster.forget_gone();
}
