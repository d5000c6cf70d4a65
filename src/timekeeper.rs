//! The one gate in front of what cannot be undone: retention, ends of bindings, forgetting.
//!
//! It hands out a [`Trusted`] moment while the clock is believed, and none while it is in doubt;
//! what cannot be undone takes such a moment instead of a time. Whether the clock is believed,
//! [`crate::model::trust`] decides; here is what it is decided from: the clock, and what was known
//! last, which outlives the broker in the store.
//!
//! Nothing is held up but that. Times are shown by the clock as it is: it may be the right one. What
//! has an end, or a date that its age counts from, goes by the time that is known while the clock is
//! ahead: else a backup would never get too old, and a binding would outlive its hour by years.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use chrono::{DateTime, TimeDelta, Utc};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    model::{
        failure::chain,
        limits::{CLOCK_GRACE, CLOCK_KEPT_EVERY, CLOCK_LOOK, CLOCK_MARGIN},
        trust::{ClockReading, Doubt, KnownTime, Trusted},
    },
    store::{self, Conn, Store, StoreError},
};

/// Watches the clock.
pub struct Timekeeper {
    store: Arc<Store>,
    clock: Clock,
    known: Mutex<KnownTime>,
}

/// How the clock stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockState {
    /// What the clock shows.
    pub shown: DateTime<Utc>,
    /// What it should show, by what is known.
    pub expected: DateTime<Utc>,
    /// Why it is not believed; absent: it is.
    pub doubt: Option<Doubt>,
}

impl Timekeeper {
    /// Begins with what was known last, or with what the clock shows.
    pub async fn start(store: &Arc<Store>, clock: Clock) -> Result<Self, StoreError> {
        let before = store.read(store::known_time::find).await?;
        let reading = clock.read();
        let is_new = before.is_none();
        let known = before.unwrap_or_else(|| KnownTime::begin(&reading));
        let keeper = Self::knowing(store.clone(), clock, known.clone());
        match &known.doubt {
            // It was told to a process that is gone.
            Some(doubt) => log_doubt(doubt, known.time),
            None if is_new => keeper.keep().await?,
            None => {}
        }
        keeper.look();
        Ok(keeper)
    }

    /// Begins with what is known.
    pub fn knowing(store: Arc<Store>, clock: Clock, known: KnownTime) -> Self {
        Self {
            store,
            clock,
            known: Mutex::new(known),
        }
    }

    /// The time now, for what cannot be undone; none while the clock is in doubt.
    pub fn trusted(&self) -> Option<Trusted> {
        let (known, reading) = self.look();
        known.trusted(&reading)
    }

    /// The time that ends and ages count from: the clock's, but not that of one that is ahead and in
    /// doubt.
    pub fn plausible(&self) -> DateTime<Utc> {
        let (known, reading) = self.look();
        match known.doubt {
            Some(_) => reading.time.min(known.time),
            None => reading.time,
        }
    }

    /// How the clock stands.
    pub fn state(&self) -> ClockState {
        let (known, reading) = self.look();
        ClockState {
            shown: reading.time,
            expected: known.time,
            doubt: known.doubt,
        }
    }

    /// Believes the clock from now on, in a transaction that an operator asks for. What is in memory
    /// follows its commit.
    pub fn believe(self: &Arc<Self>, conn: &mut Conn<'_>) -> Result<(), StoreError> {
        let keeper = self.clone();
        let known = KnownTime::begin(&self.clock.read());
        store::known_time::keep(conn, &known)?;
        conn.once_committed(move || {
            *keeper.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
            log::info!("the clock is believed, at an operator's word");
        });
        Ok(())
    }

    /// Looks until `stop`, and writes down what is known.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut kept: Option<(Instant, bool)> = None;
        let mut fails = false;
        while !stop.is_cancelled() {
            let doubts = self.look().0.doubt.is_some();
            let is_due = kept
                .is_none_or(|(at, doubted)| at.elapsed() >= CLOCK_KEPT_EVERY || doubted != doubts);
            if is_due {
                match self.keep().await {
                    Ok(()) => (kept, fails) = (Some((Instant::now(), doubts)), false),
                    Err(error) => {
                        if !fails {
                            log::error!("cannot keep what is known of the time: {}", chain(&error));
                        }
                        fails = true;
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(CLOCK_LOOK) => {}
            }
        }
        // Whatever the clock did until now is known to the next broker.
        if let Err(error) = self.keep().await {
            log::error!("cannot keep what is known of the time: {}", chain(&error));
        }
    }

    async fn keep(&self) -> Result<(), StoreError> {
        let known = self.look().0;
        self.store
            .write(move |conn| store::known_time::keep(conn, &known))
            .await
    }

    fn look(&self) -> (KnownTime, ClockReading) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let reading = self.clock.read();
        let after = known.after(&reading);
        match (&known.doubt, &after.doubt) {
            (None, Some(doubt)) => log_doubt(doubt, after.time),
            (Some(_), None) => log::info!("the clock is believed again"),
            _ => {}
        }
        *known = after.clone();
        (after, reading)
    }
}

fn log_doubt(doubt: &Doubt, expected: DateTime<Utc>) {
    log::error!(
        shown:% = doubt.shown, expected:% = expected;
        "the clock shows {}: it is {} by {}, more than {} s. No backup, binding or history ends by it \
         until it is right, has gone on evenly for {} h, or an operator says that it is right \
         (POST /operator/clock)",
        doubt.shown.format("%Y-%m-%d %H:%M:%S UTC"),
        if doubt.shown > expected { "ahead" } else { "behind" },
        amount((doubt.shown - expected).abs()),
        CLOCK_MARGIN.num_seconds(), CLOCK_GRACE.num_hours(),
    );
}

/// A time as people say it, in its largest unit.
fn amount(of: TimeDelta) -> String {
    match of {
        _ if of.num_days() > 1 => format!("{} days", of.num_days()),
        _ if of.num_hours() > 1 => format!("{} hours", of.num_hours()),
        _ => format!("{} minutes", of.num_minutes()),
    }
}
