//! Room in databases that are full or about to be: asked for by users, or by the guard that watches over
//! their sizes.

use super::{BrokerError, DeploymentView, ready::ready, upkeep::Upkeep};
use crate::{
    model::{
        deployment::Deployment,
        instance::InstanceState,
        limits::prefix::KEY_PREFIX_BYTES_MAX,
        operation::{Operation, OperationKind, OperationState},
        origin::Origin,
    },
    store::{self, Conn},
};

impl Upkeep {
    /// Accepts to make room in an instance's database, and to delete the keys with a prefix before.
    /// While room is being made, tells of that: clients repeat the request when they hear nothing.
    /// Refused while too few members serve.
    pub async fn relieve(
        &self,
        of: &DeploymentView,
        delete_prefix: Option<String>,
        origin: Origin,
    ) -> Result<Operation, BrokerError> {
        if let Some(prefix) = &delete_prefix {
            check(prefix)?;
        }
        self.needs_members(of).await?;
        let (instance, now) = (of.instance.id.clone(), self.clock.now());
        let wanted = move |conn: &mut Conn<'_>| {
            let operation = Operation {
                delete_prefix: delete_prefix.clone(),
                ..Operation::queued(OperationKind::Relief, &instance, origin, now)
            };
            relieve_in(conn, operation)
        };
        self.store.decide(wanted).await
    }

    /// How many keys [`Upkeep::relieve`] would delete now; none where the members do not tell.
    pub async fn count_to_delete(
        &self,
        of: &DeploymentView,
        delete_prefix: &str,
    ) -> Result<Option<u64>, BrokerError> {
        check(delete_prefix)?;
        let counting = self.observer.count_keys(&of.deployment, delete_prefix);
        Ok(counting.await)
    }

    /// Has something done about a database that was seen to need it, unless that is under way;
    /// returns whether it was accepted.
    pub async fn relieve_full(&self, deployment: &Deployment) -> Result<bool, BrokerError> {
        let (instance, now) = (deployment.instance.clone(), self.clock.now());
        let decided = self.store.decide(move |conn| {
            let active = store::operation::active_on_instance(conn, &instance)?;
            // A recovery closes and opens it by itself.
            let busy = [OperationKind::Relief, OperationKind::Recover];
            if active
                .iter()
                .any(|operation| busy.contains(&operation.kind))
            {
                return Ok(false);
            }
            let operation = Operation::queued(OperationKind::Relief, &instance, Origin::Guard, now);
            match relieve_in(conn, operation) {
                Ok(_) => Ok(true),
                // It is being deleted, or gone.
                Err(BrokerError::Concurrency(_) | BrokerError::NotFound(_)) => Ok(false),
                Err(other) => Err(other),
            }
        });
        decided.await
    }

    /// Whether a deployment is in use and open by now.
    pub async fn is_open(&self, deployment: &Deployment) -> Result<bool, BrokerError> {
        let of = deployment.clone();
        let read = move |conn: &mut Conn<'_>| {
            let instance = store::instance::find(conn, &of.instance)?;
            let deployment = store::deployment::of_instance(conn, &of.instance)?;
            let is_ready = instance.is_some_and(|i| i.state == InstanceState::Ready);
            let is_open = |now: Deployment| now.id == of.id && now.closed_since.is_none();
            Ok(is_ready && deployment.is_some_and(|(now, _)| is_open(now)))
        };
        Ok(self.store.read(read).await?)
    }

    /// Whether the last relief of a deployment came to nothing.
    pub async fn last_relief_failed(&self, deployment: &Deployment) -> Result<bool, BrokerError> {
        let instance = deployment.instance.clone();
        let kinds = [OperationKind::Relief];
        let read =
            move |conn: &mut Conn<'_>| store::operation::newest(conn, &instance, None, &kinds);
        let last = self.store.read(read).await?;
        Ok(last.is_some_and(|last| {
            matches!(
                last.state,
                OperationState::Failed | OperationState::Stuck | OperationState::Abandoned
            )
        }))
    }
}

fn check(delete_prefix: &str) -> Result<(), BrokerError> {
    let lengths = 1..=KEY_PREFIX_BYTES_MAX;
    if !lengths.contains(&delete_prefix.len()) {
        return Err(BrokerError::BadRequest(format!(
            "delete_prefix must have from 1 to {KEY_PREFIX_BYTES_MAX} bytes"
        )));
    }
    if delete_prefix.contains('\0') {
        let reason = "delete_prefix must not contain a NUL character";
        return Err(BrokerError::BadRequest(reason.to_owned()));
    }
    Ok(())
}

fn relieve_in(conn: &mut Conn<'_>, operation: Operation) -> Result<Operation, BrokerError> {
    let instance = ready(conn, &operation.instance, "there is no room to make")?;
    if let Some(running) = store::operation::under_way(conn, &instance.id, OperationKind::Relief)? {
        // What the guard began does less than what users ask for.
        if running.delete_prefix == operation.delete_prefix && running.origin != Origin::Guard {
            return Ok(running);
        }
        let reason = "room is being made in this database; try again when that is done";
        return Err(BrokerError::Concurrency(reason.to_owned()));
    }
    let key = format!("relief {}", instance.id);
    store::operation::insert(conn, &operation, Some(&key))?;
    Ok(operation)
}
