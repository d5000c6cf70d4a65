//! Ends a binding, because it is deleted or its time is over. Its token is refused from the moment
//! the end is queued; its database user is removed here. Of one whose time is over the row stays,
//! so that its id means nothing else until the platform gives it up.

use super::{Definition, Ending, Step, bind};
use crate::{
    model::{binding::BindingState, limits::EXPIRY_RETRY},
    store::{self, Conn, StoreError},
};

/// Unbind.
pub const DEFINITION: Definition = Definition {
    steps: &[Step {
        name: "remove_user",
        title: "Removing the binding's user",
        run: |w| Box::pin(async move { bind::remove_user(&w).await }),
    }],
    begun: |_, _| Ok(()),
    cleanup: &[],
    succeed,
    fail,
};

fn succeed(conn: &mut Conn<'_>, ending: &Ending<'_>) -> Result<(), StoreError> {
    let instance = &ending.operation.instance;
    let Some(id) = &ending.operation.binding else {
        return Ok(());
    };
    store::oversight::nothing_is_left(conn, instance, Some(id))?;
    match store::binding::find(conn, instance, id)? {
        Some(binding) if binding.state == BindingState::Expiring => {
            store::binding::retire(conn, instance, id)?;
        }
        _ => store::binding::delete(conn, instance, id)?,
    }
    store::binding::expire_next(conn, instance, ending.now)
}

fn fail(conn: &mut Conn<'_>, ending: &Ending<'_>, _failure: &str) -> Result<(), StoreError> {
    let instance = &ending.operation.instance;
    let Some(id) = &ending.operation.binding else {
        return Ok(());
    };
    let binding = store::binding::find(conn, instance, id)?;
    if binding.is_some_and(|b| b.state != BindingState::Expiring) {
        store::binding::set_state(conn, instance, id, BindingState::Failed)?;
    }
    store::binding::expire_next(conn, instance, ending.now)?;
    // Nobody may ask for the deletion again: the time of a binding is over all the same.
    let again = ending.now + EXPIRY_RETRY;
    store::binding::set_expiry_due(conn, instance, id, Some(again))
}
