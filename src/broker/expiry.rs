//! The end of bindings whose time is over: their tokens are refused at once, and an operation
//! removes their users.
//!
//! Nothing is kept in memory: what is due stands in the store, so a restart forgets no end, and
//! several replicas may look at the same time. The time of day decides, as applications are told
//! it, while the clock is believed ([`crate::timekeeper`]); one that is set back brings none back.

use chrono::{DateTime, Utc};

use super::{Broker, BrokerError, binding::end_binding, update::check_not_updating};
use crate::{
    model::{
        binding::BindingState,
        ids::{BindingId, InstanceId},
        instance::InstanceState,
        limits::{EXPIRIES_AT_ONCE, EXPIRY_RETRY},
        operation::EXPIRY,
        trust::Trusted,
    },
    store::{self, Conn},
};

impl Broker {
    /// Queues the end of each binding whose time is over, unless the clock is in doubt; returns how
    /// many.
    pub async fn expire_bindings(&self) -> Result<usize, BrokerError> {
        let Some(now) = self.time.trusted().map(Trusted::time) else {
            return Ok(0);
        };
        let due = self
            .store
            .read(move |conn| store::binding::due_to_expire(conn, now, EXPIRIES_AT_ONCE))
            .await?;
        let mut ended = 0;
        for (instance, id) in due {
            let decided = self
                .store
                .decide(move |conn| expire(conn, &instance, &id, now));
            ended += usize::from(decided.await?);
        }
        Ok(ended)
    }
}

/// Returns whether the end was queued.
fn expire(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
    id: &BindingId,
    now: DateTime<Utc>,
) -> Result<bool, BrokerError> {
    let Some(binding) = store::binding::find(conn, instance, id)? else {
        return Ok(false);
    };
    let later = match binding.state {
        // It ends as it is.
        BindingState::Deleting | BindingState::Expired => None,
        // It goes with its instance; should that fail, its time is over all the same.
        _ if store::instance::get(conn, instance)?.state == InstanceState::Deleting => {
            Some(now + EXPIRY_RETRY)
        }
        // No user is removed while members change: it goes when they are done.
        _ if is_updating(conn, instance)? => {
            store::binding::revoke_tokens(conn, instance, id)?;
            Some(now + EXPIRY_RETRY)
        }
        _ => {
            end_binding(conn, &binding, BindingState::Expiring, EXPIRY, now)?;
            return Ok(true);
        }
    };
    store::binding::set_expiry_due(conn, instance, id, later)?;
    Ok(false)
}

fn is_updating(conn: &mut Conn<'_>, instance: &InstanceId) -> Result<bool, BrokerError> {
    match check_not_updating(conn, instance) {
        Ok(()) => Ok(false),
        Err(BrokerError::Concurrency(_)) => Ok(true),
        Err(other) => Err(other),
    }
}
