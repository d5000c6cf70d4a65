//! Unused storage of databases that is given back: asked for by users, or by the guard that watches over
//! their sizes at night.

use super::{BrokerError, DeploymentView, ready::ready_database, upkeep::Upkeep};
use crate::{
    model::{
        defragment::Storage,
        deployment::Deployment,
        operation::{Operation, OperationKind},
        origin::Origin,
    },
    store::{self, Conn},
};

impl Upkeep {
    /// Accepts to give unused storage of an instance's database back. While that is being done, tells
    /// of it; it waits for whatever else has the members in hand. Refused while too few members serve.
    pub async fn defragment(
        &self,
        of: &DeploymentView,
        origin: Origin,
    ) -> Result<Operation, BrokerError> {
        self.needs_members(of).await?;
        let (instance, now) = (&of.instance.id, self.clock.now());
        let operation = Operation::queued(OperationKind::Defragment, instance, origin, now);
        self.store
            .decide(move |conn| defragment_in(conn, &operation))
            .await
    }

    /// Has that done at night, unless something else is being done there; returns whether it was
    /// accepted.
    pub async fn defragment_by_night(&self, of: &Deployment) -> Result<bool, BrokerError> {
        let now = self.clock.now();
        let operation =
            Operation::queued(OperationKind::Defragment, &of.instance, Origin::Night, now);
        let decided = self.store.decide(move |conn| {
            let active = store::operation::active_on_instance(conn, &operation.instance)?;
            if !active.is_empty() {
                return Ok(false);
            }
            match defragment_in(conn, &operation) {
                Ok(_) => Ok(true),
                // It is being deleted, gone, or closed.
                Err(BrokerError::Concurrency(_) | BrokerError::NotFound(_)) => Ok(false),
                Err(other) => Err(other),
            }
        });
        decided.await
    }

    /// Whether that is done at night as it is now. Where a version is known to damage data when it gives
    /// storage back at a bad moment, its users decide.
    pub fn defragments_by_night(&self, of: &Deployment, storage: Option<Storage>) -> bool {
        let profile = self.profiles.get(&of.engine).ok();
        let is_sound = profile.is_some_and(|profile| profile.gives_back_soundly(of.version));
        is_sound && storage.is_some_and(Storage::is_fragmented)
    }
}

fn defragment_in(conn: &mut Conn<'_>, operation: &Operation) -> Result<Operation, BrokerError> {
    let so = "its members cannot give anything back";
    let (instance, deployment) = ready_database(conn, &operation.instance, so)?;
    let kind = OperationKind::Defragment;
    if let Some(running) = store::operation::under_way(conn, &instance.id, kind)? {
        return Ok(running);
    }
    if deployment.closed_since.is_some() {
        let reason =
            "the database is full and closed to its users; ask for room to be made instead";
        return Err(BrokerError::Concurrency(reason.to_owned()));
    }
    let key = format!("defragment {}", instance.id);
    store::operation::insert(conn, operation, Some(&key))?;
    Ok(operation.clone())
}
