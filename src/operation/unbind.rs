//! Deletes a binding. Its token is refused from the moment the unbind is accepted; its database
//! user is removed here.

use super::{Definition, Ending, Step, bind};
use crate::{
    model::binding::BindingState,
    store::{self, Conn, StoreError},
};

/// Unbind.
pub const DEFINITION: Definition = Definition {
    steps: &[Step {
        name: "remove_user",
        title: "Removing the binding's user",
        run: |w| Box::pin(async move { bind::remove_user(&w).await }),
    }],
    cleanup: &[],
    succeed,
    fail,
};

fn succeed(conn: &mut Conn<'_>, ending: &Ending<'_>) -> Result<(), StoreError> {
    match &ending.operation.binding {
        Some(id) => store::binding::delete(conn, &ending.operation.instance, id),
        None => Ok(()),
    }
}

fn fail(conn: &mut Conn<'_>, ending: &Ending<'_>, _failure: &str) -> Result<(), StoreError> {
    match &ending.operation.binding {
        Some(id) => {
            let instance = &ending.operation.instance;
            store::binding::set_state(conn, instance, id, BindingState::Failed)
        }
        None => Ok(()),
    }
}
