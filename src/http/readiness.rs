//! Whether the broker is ready: what was found when somebody last asked, and whether it is about to end.

use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::http::StatusCode;
use tokio::{sync::Mutex, time::Instant};

use crate::model::limits::READINESS_FRESH;

/// What was found last. Anybody may ask, and each look takes the store's one place for writers.
#[derive(Default)]
pub struct Readiness {
    last: Mutex<Option<(Instant, Found)>>,
    is_draining: AtomicBool,
}

/// What a look found: the status, and why in a few words.
pub(super) type Found = (StatusCode, &'static str);

impl Readiness {
    /// From now on the broker is not ready: it answers, and is about to end.
    pub fn drain(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }

    /// Whether it is about to end.
    pub(super) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// What was found a moment ago, else what `look` finds. Who comes during a look is told what it
    /// finds.
    pub(super) async fn found(&self, look: impl Future<Output = Found>) -> Found {
        let mut last = self.last.lock().await;
        match *last {
            Some((at, found)) if at.elapsed() < READINESS_FRESH => found,
            _ => {
                let found = look.await;
                *last = Some((Instant::now(), found));
                found
            }
        }
    }
}
