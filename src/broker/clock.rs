//! The clock, in an operator's hands.

use chrono::{DateTime, Utc};

use super::{Broker, BrokerError};
use crate::{
    model::{audit::AtOnce, limits::CLOCK_MARGIN, origin::Origin},
    store,
    timekeeper::Standing,
};

impl Broker {
    /// How the clock stands.
    pub fn clock_standing(&self) -> Standing {
        self.time.standing()
    }

    /// Believes the clock, when it shows the time that an operator says it is. A clock that is wrong
    /// is put right on the machine, not here.
    pub async fn believe_clock(&self, time: DateTime<Utc>) -> Result<Standing, BrokerError> {
        let (keeper, now) = (self.time.clone(), self.clock.now());
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
        Ok(self.time.standing())
    }
}
