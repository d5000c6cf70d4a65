//! Makes a new, empty instance.
//!
//! Until it is secured, members let in only clients with a certificate of the deployment's own
//! authority: a watch that somebody opened before there were passwords would go on afterwards.

use std::sync::Arc;

use super::{Definition, Ending, Outcome, Step, StepError, Work, members};
use crate::{
    engine::Holding,
    model::{deployment::Access, instance::InstanceState, schedule::Schedule},
    store::{self, Conn, StoreError},
};

/// Provision.
pub const DEFINITION: Definition = Definition {
    steps: &[
        ALLOCATE,
        Step {
            name: "start",
            title: "Starting the members",
            run: |w| Box::pin(start(w)),
        },
        Step {
            name: "secure",
            title: "Securing the database",
            run: |w| Box::pin(secure(w)),
        },
        OPEN,
    ],
    begun: |_, _| Ok(()),
    cleanup: &CLEANUP,
    succeed,
    fail,
};

/// The first step of every way to make an instance.
pub const ALLOCATE: Step = Step {
    name: "allocate",
    title: "Reserving ports and making certificates",
    run: |w| Box::pin(async move { members::allocate(&w).await }),
};

/// The step with which every new instance is opened to its users.
pub const OPEN: Step = Step {
    name: "open",
    title: "Opening the database",
    run: |w| Box::pin(async move { members::open(&w).await }),
};

/// What undoes every way to make an instance.
pub const CLEANUP: [Step; 2] = [
    Step {
        name: "cleanup_members",
        title: "Removing the members",
        run: |w| Box::pin(async move { members::destroy(&w).await }),
    },
    Step {
        name: "cleanup_ports",
        title: "Giving the ports back",
        run: |w| Box::pin(async move { members::release(&w).await }),
    },
];

async fn start(work: Arc<Work>) -> Result<Outcome, StepError> {
    let opened = work.opened().await?.with_access(Access::Certificates);
    members::start(&opened).await?;
    Outcome::done()
}

async fn secure(work: Arc<Work>) -> Result<Outcome, StepError> {
    members::secure(&work, Holding::Nothing).await
}

/// The instance is usable, and is backed up from now on.
fn succeed(conn: &mut Conn<'_>, ending: &Ending<'_>) -> Result<(), StoreError> {
    let schedule = Schedule::begin(ending.operation.instance.clone(), ending.now);
    begin(conn, &schedule)
}

/// The instance is usable, and is backed up by this schedule.
pub fn begin(conn: &mut Conn<'_>, schedule: &Schedule) -> Result<(), StoreError> {
    let id = &schedule.instance;
    store::instance::set_state(conn, id, InstanceState::Ready)?;
    let (deployment, _) = store::deployment::of_instance(conn, id)?
        .ok_or_else(|| StoreError::Missing("the deployment".to_owned()))?;
    store::schedule::begin(conn, schedule, &deployment.cluster)
}

/// The instance is of no use; it can be deprovisioned. One that is being deleted stays so.
pub fn fail(conn: &mut Conn<'_>, ending: &Ending<'_>, _failure: &str) -> Result<(), StoreError> {
    let instance = store::instance::find(conn, &ending.operation.instance)?;
    if instance.is_some_and(|i| i.state == InstanceState::Provisioning) {
        store::instance::set_state(conn, &ending.operation.instance, InstanceState::Failed)?;
    }
    Ok(())
}
