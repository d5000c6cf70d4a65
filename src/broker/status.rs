//! The states of operations, as platforms and API clients ask for it. Reading changes nothing.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use tokio::time::{Instant, timeout};

use super::{BrokerError, BrokerParts, observation::Observer};
use crate::{
    clock::Clock,
    model::{
        ids::{BindingId, InstanceId, OperationId},
        limits::{ALERT_LOOK_TIMEOUT, SYNC_WAIT},
        operation::{DeletedPoll, HALTED, Operation, OperationKind, OperationState},
        queue::Limits,
    },
    store::{self, Conn, Store},
};

/// OSB's states of a last operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusState {
    /// Work is still to come.
    InProgress,
    /// Done.
    Succeeded,
    /// Given up.
    Failed,
}

/// The state of an operation, for clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationStatus {
    /// Its state.
    pub state: StatusState,
    /// For people, never empty.
    pub description: String,
    /// OSB `instance_usable`, where it means something: after a deletion or an update that failed.
    pub instance_usable: Option<bool>,
    /// OSB `update_repeatable`, where it means something: after an update that failed.
    pub update_repeatable: Option<bool>,
}

/// What an operation's row says to a client at `now`.
pub fn status_of(operation: &Operation, now: DateTime<Utc>) -> OperationStatus {
    let (state, description) = match operation.state {
        // Halted work has failed for the one who asked for it, whatever its clean-up still does.
        _ if operation.halted => (
            StatusState::Failed,
            operation
                .failure
                .clone()
                .unwrap_or_else(|| HALTED.to_owned()),
        ),
        OperationState::Queued | OperationState::Running => {
            let goes_on = match &operation.failure {
                Some(failure) => format!("Cleaning up after: {failure}"),
                None => operation.standing(),
            };
            let trouble = operation.trouble.as_ref();
            let trouble = trouble.map_or_else(String::new, |trouble| {
                format!("; {}", trouble.in_words(now))
            });
            (StatusState::InProgress, goes_on + &trouble)
        }
        OperationState::Succeeded => (
            StatusState::Succeeded,
            match &operation.prefix_restore {
                Some(done) => done.to_string(),
                None => "All operations have completed successfully".to_owned(),
            },
        ),
        OperationState::Failed | OperationState::Stuck | OperationState::Abandoned => (
            StatusState::Failed,
            operation
                .failure
                .clone()
                .unwrap_or_else(|| "failed".to_owned()),
        ),
    };
    let (instance_usable, update_repeatable) = match operation.kind {
        _ if state != StatusState::Failed => (None, None),
        OperationKind::Deprovision => (Some(false), None),
        // What was halted is being deleted. An update that failed has put its members back; of one
        // that is stuck only a look tells. The next update goes on from wherever the members are.
        OperationKind::Update => (
            Some(!operation.halted && operation.state == OperationState::Failed),
            Some(!operation.halted),
        ),
        _ => (None, None),
    };
    OperationStatus {
        state,
        description,
        instance_usable,
        update_repeatable,
    }
}

/// The operations that OSB tells of an instance.
pub(super) const OF_INSTANCE: [OperationKind; 4] = [
    OperationKind::Provision,
    OperationKind::Restore,
    OperationKind::Update,
    OperationKind::Deprovision,
];
/// The operations that OSB tells of a binding.
pub(super) const OF_BINDING: [OperationKind; 2] = [OperationKind::Bind, OperationKind::Unbind];

/// Tells what became of operations.
pub struct Statuses {
    store: Arc<Store>,
    clock: Clock,
    observer: Arc<dyn Observer>,
    limits: Limits,
    deleted_poll: DeletedPoll,
}

impl Statuses {
    pub(super) fn new(parts: &BrokerParts) -> Self {
        Self {
            store: parts.store.clone(),
            clock: parts.clock.clone(),
            observer: parts.observer.clone(),
            limits: parts.limits.clone(),
            deleted_poll: parts.deleted_poll,
        }
    }

    /// OSB "Polling Last Operation for Service Instances".
    ///
    /// `token` is OSB's `operation`. Our own token tells of its own operation, also of an older
    /// one; an unknown or absent one tells of the newest. A finished deletion has succeeded; a platform that
    /// has its token is told `Gone` where the operator chose that: conformance suites ask for
    /// either.
    pub async fn instance_status(
        &self,
        instance: InstanceId,
        token: Option<String>,
    ) -> Result<OperationStatus, BrokerError> {
        let status = self.last_operation(instance.clone(), None, &OF_INSTANCE, token);
        let status = status.await?;
        // Of an update that failed: whatever became of it, what counts is whether it serves now.
        let instance_usable = match (status.instance_usable, status.update_repeatable) {
            (Some(guess), Some(true)) => Some(self.serves(instance).await?.unwrap_or(guess)),
            (other, _) => other,
        };
        Ok(OperationStatus {
            instance_usable,
            ..status
        })
    }

    /// Whether most members of an instance serve now. None when they cannot be looked at in time.
    async fn serves(&self, instance: InstanceId) -> Result<Option<bool>, BrokerError> {
        let find = move |conn: &mut Conn<'_>| store::deployment::of_instance(conn, &instance);
        let Some((deployment, _)) = self.store.read(find).await? else {
            return Ok(None);
        };
        let seen = timeout(ALERT_LOOK_TIMEOUT, self.observer.look(&deployment)).await;
        let is_open = deployment.closed_since.is_none();
        Ok(seen.ok().flatten().map(|seen| is_open && seen.is_usable()))
    }

    /// OSB "Polling Last Operation for Service Bindings".
    pub async fn binding_status(
        &self,
        instance: InstanceId,
        binding: BindingId,
        token: Option<String>,
    ) -> Result<OperationStatus, BrokerError> {
        self.last_operation(instance, Some(binding), &OF_BINDING, token)
            .await
    }

    async fn last_operation(
        &self,
        instance: InstanceId,
        binding: Option<BindingId>,
        kinds: &'static [OperationKind],
        token: Option<String>,
    ) -> Result<OperationStatus, BrokerError> {
        let (limits, now) = (self.limits.clone(), self.clock.now());
        let token: Option<OperationId> = token.and_then(|token| token.parse().ok());
        let (by_token, newest) = self
            .store
            .read(move |conn| {
                let mut by_token = match &token {
                    Some(id) => store::operation::find(conn, id)?.filter(|o| {
                        o.instance == instance && o.binding == binding && kinds.contains(&o.kind)
                    }),
                    None => None,
                };
                let mut newest = match by_token {
                    Some(_) => None,
                    None => store::operation::newest(conn, &instance, binding.as_ref(), kinds)?,
                };
                let shown = by_token.iter_mut().chain(&mut newest);
                store::queue::find_waits(conn, shown, &limits, now)?;
                Ok((by_token, newest))
            })
            .await?;
        if let Some(operation) = by_token {
            let is_gone = operation.kind.deletes() && operation.state == OperationState::Succeeded;
            if is_gone && self.deleted_poll == DeletedPoll::Gone {
                return Err(BrokerError::Gone);
            }
            return Ok(status_of(&operation, now));
        }
        newest
            .as_ref()
            .map(|operation| status_of(operation, now))
            .ok_or_else(|| BrokerError::NotFound("nothing was ever done under this id".to_owned()))
    }

    /// Waits for the end of an operation, for clients that cannot ask again.
    pub(super) async fn wait_for(&self, id: &OperationId) -> Result<Operation, BrokerError> {
        let deadline = Instant::now() + SYNC_WAIT;
        let mut ends = self.store.ends();
        loop {
            ends.mark_unchanged();
            let wanted = id.clone();
            let operation = self
                .store
                .read(move |conn| store::operation::get(conn, &wanted))
                .await?;
            match operation.state {
                OperationState::Succeeded => return Ok(operation),
                OperationState::Failed | OperationState::Stuck | OperationState::Abandoned => {
                    let failure = operation.failure.unwrap_or_default();
                    return Err(BrokerError::Failed(failure));
                }
                OperationState::Queued | OperationState::Running => {}
            }
            // Another replica's changes are not told of: look now and then.
            let look_again = (Instant::now() + Duration::from_millis(500)).min(deadline);
            tokio::select! {
                _ = ends.changed() => {}
                () = tokio::time::sleep_until(look_again) => {}
            }
            if Instant::now() >= deadline {
                let told = status_of(&operation, self.clock.now()).description;
                return Err(BrokerError::StillRunning(told));
            }
        }
    }
}
