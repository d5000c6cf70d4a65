//! What was found when somebody last asked whether the broker is ready.

use actix_web::http::StatusCode;
use tokio::{sync::Mutex, time::Instant};

use crate::model::limits::READINESS_FRESH;

/// What was found last. Anybody may ask, and each look takes the store's one place for writers.
#[derive(Default)]
pub struct Readiness(Mutex<Option<(Instant, Found)>>);

/// What a look found: the status, and why in a few words.
pub(super) type Found = (StatusCode, &'static str);

impl Readiness {
    /// What was found a moment ago, else what `look` finds. Who comes during a look is told what it
    /// finds.
    pub(super) async fn found(&self, look: impl Future<Output = Found>) -> Found {
        let mut last = self.0.lock().await;
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
