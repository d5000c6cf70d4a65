//! The clock, in an operator's hands.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{BrokerError, BrokerParts};
use crate::{
    clock::Clock,
    model::{audit::AtOnce, limits::CLOCK_MARGIN, origin::Origin},
    store::{self, Store},
    timekeeper::{ClockState, Timekeeper},
};

/// How far the clock is believed.
pub struct TrustedTime {
    store: Arc<Store>,
    clock: Clock,
    keeper: Arc<Timekeeper>,
}

impl TrustedTime {
    pub(super) fn new(parts: &BrokerParts) -> Self {
        Self {
            store: parts.store.clone(),
            clock: parts.clock.clone(),
            keeper: parts.time.clone(),
        }
    }

    /// How the clock stands.
    pub fn clock_state(&self) -> ClockState {
        self.keeper.state()
    }

    /// Believes the clock, when it shows the time that an operator says it is. A clock that is wrong
    /// is put right on the machine, not here.
    pub async fn believe_clock(&self, time: DateTime<Utc>) -> Result<ClockState, BrokerError> {
        let (keeper, now) = (self.keeper.clone(), self.clock.now());
        if (now - time).abs() > CLOCK_MARGIN {
            let shown = now.format("%Y-%m-%dT%H:%M:%SZ");
            return Err(BrokerError::Conflict(format!(
                "the clock of the broker's machine shows {shown}, not the time that you name; put the \
                 clock right, and the broker goes on by itself"
            )));
        }
        self.store
            .decide(move |conn| {
                keeper.believe(conn)?;
                store::audit::done(conn, AtOnce::Clock, Origin::Operator, None, now)?;
                Ok::<_, BrokerError>(())
            })
            .await?;
        Ok(self.keeper.state())
    }
}
