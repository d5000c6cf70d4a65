//! What the service manager hears, where one started the broker and wants to: that it serves, that it is
//! well, and that it stops.
//!
//! Invariant: it hears that the broker is well only after all was asked that a new start can mend: the
//! listener, the tasks beside it, and the store. A store that refuses is no reason for a new start, one
//! that says nothing is.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use sd_notify::{NotifyState, notify, watchdog_enabled};
use tokio::time::{sleep, timeout};

use super::tasks::Pulses;
use crate::{
    broker::Broker,
    http::listener_check::answers,
    model::limits::{BEATS_WITHIN, LISTENER_LOOK, STORE_SILENCE_MAX, TASK_SILENCE_MAX},
};

/// What is asked before the service manager hears that the broker is well.
pub(super) struct Heart {
    pub(super) listener: SocketAddr,
    pub(super) broker: Arc<Broker>,
    pub(super) tasks: Pulses,
}

impl Heart {
    /// Says that the broker serves, once it does.
    pub(super) async fn say_ready(&self, url: &str) {
        while !answers(self.listener).await {
            sleep(LISTENER_LOOK).await;
        }
        say(&[
            NotifyState::Ready,
            NotifyState::Status(&format!("serves {url}")),
        ]);
    }

    /// Says again and again that the broker is well, as long as it is, where the service manager waits
    /// for that.
    pub(super) async fn beat(self) {
        let Some(within) = watchdog_enabled() else {
            return;
        };
        self.beat_within(within, || say(&[NotifyState::Watchdog]))
            .await;
    }

    async fn beat_within(&self, within: Duration, mut beat: impl FnMut()) {
        loop {
            match self.trouble().await {
                None => beat(),
                Some(trouble) => log::error!(
                    "{trouble}: the service manager does not hear that the broker is well, and starts \
                     it anew when that lasts"
                ),
            }
            sleep(within / BEATS_WITHIN).await;
        }
    }

    /// What is wrong with the broker that a new start may mend.
    async fn trouble(&self) -> Option<String> {
        if let Some(task) = self.tasks.silent_for(TASK_SILENCE_MAX) {
            return Some(format!("the {task} has not moved for a long time"));
        }
        if !answers(self.listener).await {
            return Some("the listener does not answer".to_owned());
        }
        let asked = timeout(STORE_SILENCE_MAX, self.broker.check_store()).await;
        asked.is_err().then(|| "the store says nothing".to_owned())
    }
}

/// Says that the broker stops.
pub(super) fn say_stopping() {
    say(&[NotifyState::Stopping]);
}

fn say(what: &[NotifyState<'_>]) {
    if let Err(error) = notify(what) {
        log::warn!("the service manager was not told {what:?}: {error}");
    }
}
