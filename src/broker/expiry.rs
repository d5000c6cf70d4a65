//! The end of bindings whose time is over: their tokens are refused at once, and an operation
//! removes their users, of one binding of an instance after the other.
//!
//! Nothing is kept in memory: what is due stands in the store, so a restart forgets no end, and
//! several replicas may look at the same time. The time of day decides, as applications are told
//! it, while the clock is believed ([`crate::timekeeper`]); one that is set back brings none back.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{
    BrokerError, BrokerParts,
    binding::{close_binding, end_binding},
    due::Outcome,
    update::check_not_updating,
};
use crate::{
    model::{
        binding::BindingState,
        ids::{BindingId, InstanceId},
        instance::InstanceState,
        limits::{EXPIRIES_AT_ONCE, EXPIRY_RETRY, EXPIRY_TURN_MAX},
        operation::{Operation, OperationKind},
        origin::Origin,
        trust::Trusted,
    },
    store::{self, Conn, Store},
    timekeeper::Timekeeper,
};

/// Ends bindings whose time is over.
pub struct Expiry {
    store: Arc<Store>,
    time: Arc<Timekeeper>,
}

impl Expiry {
    pub(super) fn new(parts: &BrokerParts) -> Self {
        Self {
            store: parts.store.clone(),
            time: parts.time.clone(),
        }
    }

    /// Queues the end of each binding whose time is over, unless the clock is in doubt; returns how
    /// many.
    pub async fn end_due(&self) -> Result<usize, BrokerError> {
        let Some(now) = self.time.trusted().map(Trusted::time) else {
            return Ok(0);
        };
        let due = self
            .store
            .read(move |conn| store::binding::due_to_expire(conn, now, EXPIRIES_AT_ONCE))
            .await?;
        let mut ends = Outcome::default();
        for (instance, id) in due {
            let decided = self
                .store
                .decide(move |conn| expire(conn, &instance, &id, now));
            if !ends.goes_on(decided.await) {
                break;
            }
        }
        ends.end()
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
        // One at a time: members that do not answer hold no more of the broker's work up than that.
        // The end of the one before brings this one's turn.
        _ if is_ending_another(conn, instance, id)? => {
            close_binding(conn, &binding, BindingState::Expiring, now)?;
            Some(now + EXPIRY_TURN_MAX)
        }
        _ => {
            end_binding(conn, &binding, BindingState::Expiring, Origin::Expiry, now)?;
            return Ok(true);
        }
    };
    store::binding::set_expiry_due(conn, instance, id, later)?;
    Ok(false)
}

/// Whether the broker is about to end another binding of the instance whose time is over.
fn is_ending_another(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
    id: &BindingId,
) -> Result<bool, BrokerError> {
    let active = store::operation::active_on_instance(conn, instance)?;
    let is_end = |o: &Operation| o.kind == OperationKind::Unbind && o.origin == Origin::Expiry;
    Ok(active
        .iter()
        .any(|o| is_end(o) && o.binding.as_ref() != Some(id)))
}

fn is_updating(conn: &mut Conn<'_>, instance: &InstanceId) -> Result<bool, BrokerError> {
    match check_not_updating(conn, instance) {
        Ok(()) => Ok(false),
        Err(BrokerError::Concurrency(_)) => Ok(true),
        Err(other) => Err(other),
    }
}
