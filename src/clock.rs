//! The time of day, as something that is handed in.

use std::sync::Arc;

use chrono::{DateTime, Utc};

/// Tells the time. Everything that stores or compares a time of day asks the clock it was given;
/// pauses and time-outs run on the machine's monotonic clock instead.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>);

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Arc::new(Utc::now))
    }

    /// A clock that tells what `tell` returns.
    pub fn new(tell: impl Fn() -> DateTime<Utc> + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    /// The time now.
    pub fn now(&self) -> DateTime<Utc> {
        (self.0)()
    }
}
