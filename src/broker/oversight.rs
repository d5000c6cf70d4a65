//! What operators see of operations, and what they may do about one that does not get on: have it
//! tried again, or give it up.
//!
//! Invariant: what is tried again is the last that was asked for of its instance, binding or backup.
//! Else a clean-up would remove what somebody has made since.

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, Utc};

use super::{BrokerError, BrokerParts, StepTitles, page};
use crate::{
    backups::Vault,
    clock::Clock,
    model::{
        address::Address,
        audit::AtOnce,
        binding::BindingState,
        deployment::{Deployment, Member},
        ids::{InstanceId, OperationId},
        instance::{InstanceState, Names},
        limits::OPERATIONS_PAGE_MAX,
        operation::{Operation, OperationKind, OperationState},
        oversight::{Overseen, StepSeen},
        queue::Limits,
        sentence::{capitalized, counted},
    },
    store::{self, Conn, Store, StoreError, oversight::Filter},
};

/// What is written down of an operation that an operator ended.
const GIVEN_UP: &str = "an operator gave it up";

/// Which operations are asked for.
#[derive(Debug, Clone, Default)]
pub struct OperationsQuery {
    /// Only those in this state.
    pub state: Option<OperationState>,
    /// Only those that a deletion stopped, or only those that none did.
    pub halted: Option<bool>,
    /// Only those of this kind.
    pub kind: Option<OperationKind>,
    /// Only those of this instance.
    pub instance: Option<InstanceId>,
    /// Only those that were accepted longer ago than so many seconds.
    pub older_than: Option<u32>,
    /// Only those that were accepted before this one.
    pub before: Option<OperationId>,
    /// At most so many.
    pub limit: Option<i64>,
}

/// Operations, newest first.
#[derive(Debug)]
pub struct OperationsPage {
    /// The operations.
    pub operations: Vec<Overseen>,
    /// What people call their instances, where that is known.
    pub names: Names,
    /// What to ask for the ones before with ([`OperationsQuery::before`]), when there are any.
    pub next: Option<OperationId>,
}

/// All that is known of an operation.
#[derive(Debug)]
pub struct OperationDetail {
    /// The operation.
    pub seen: Overseen,
    /// What people call its instance, where that is known.
    pub name: Option<String>,
    /// The user who asked for it, where one is known.
    pub user: Option<String>,
    /// Its steps, in the order in which they were first tried.
    pub steps: Vec<StepTold>,
    /// What may be left of it, of one that nobody goes on with.
    pub left: Vec<String>,
}

/// A step of an operation, with what it does.
#[derive(Debug)]
pub struct StepTold {
    /// The step.
    pub seen: StepSeen,
    /// What it does, for people.
    pub title: String,
}

/// Shows operations, has them tried again, gives them up.
#[derive(Clone)]
pub struct Oversight {
    store: Arc<Store>,
    clock: Clock,
    backups: Vault,
    limits: Limits,
    step_titles: StepTitles,
}

/// A step of an operation of this kind, with what it does. One that another version of the broker knows is called by
/// its name.
fn told(seen: StepSeen, titles: StepTitles, kind: OperationKind) -> StepTold {
    let title = titles(kind, &seen.name);
    StepTold {
        title: title.map_or_else(|| capitalized(&seen.name.replace('_', " ")), str::to_owned),
        seen,
    }
}

impl Oversight {
    pub(super) fn new(parts: &BrokerParts) -> Self {
        Self {
            store: parts.store.clone(),
            clock: parts.clock.clone(),
            backups: parts.backups.clone(),
            limits: parts.limits.clone(),
            step_titles: parts.step_titles,
        }
    }

    /// The newest operations of all instances.
    pub async fn operations(&self, query: OperationsQuery) -> Result<OperationsPage, BrokerError> {
        let limit = query.limit.unwrap_or(OPERATIONS_PAGE_MAX);
        if !(1..=OPERATIONS_PAGE_MAX).contains(&limit) {
            return Err(BrokerError::BadRequest(format!(
                "limit must be from 1 to {OPERATIONS_PAGE_MAX}"
            )));
        }
        let (limits, now) = (self.limits.clone(), self.clock.now());
        let age = query
            .older_than
            .map(|seconds| std::time::Duration::from_secs(seconds.into()));
        let filter = Filter {
            state: query.state,
            halted: query.halted,
            kind: query.kind,
            instance: query.instance,
            before: age.map(|age| now - age),
            after: query.before,
        };
        let found = self
            .store
            .scan(move |conn| {
                let mut found = store::oversight::list(conn, &filter, limit + 1)?;
                let shown = found.iter_mut().map(|seen| &mut seen.operation);
                store::queue::find_waits(conn, shown, &limits, now)?;
                let ids = found.iter().map(|seen| &seen.operation.instance);
                Ok((store::instance::names(conn, ids)?, found))
            })
            .await;
        let (names, mut operations) = match found {
            Err(StoreError::Missing(_)) => {
                let text = "before names no operation that is known (any more)";
                return Err(BrokerError::NotFound(text.to_owned()));
            }
            other => other?,
        };
        let more = page::cut(&mut operations, limit);
        let last = operations.last().filter(|_| more);
        let next = last.map(|seen| seen.operation.id.clone());
        Ok(OperationsPage {
            operations,
            names,
            next,
        })
    }

    /// All that is known of an operation.
    pub async fn operation(&self, id: OperationId) -> Result<OperationDetail, BrokerError> {
        let (limits, now) = (self.limits.clone(), self.clock.now());
        let titles = self.step_titles;
        let mut detail = self
            .store
            .read(move |conn| {
                let Some(mut seen) = store::oversight::find(conn, &id)? else {
                    return Ok(None);
                };
                store::queue::find_waits(conn, [&mut seen.operation], &limits, now)?;
                let (instance, kind) = (&seen.operation.instance, seen.operation.kind);
                let steps = store::oversight::steps(conn, &id)?.into_iter();
                let asked = std::slice::from_ref(&id);
                Ok(Some(OperationDetail {
                    user: store::audit::askers(conn, instance, asked)?.remove(&id),
                    name: store::instance::names(conn, [instance])?.remove(instance),
                    steps: steps.map(|seen| told(seen, titles, kind)).collect(),
                    left: left_behind(conn, &seen.operation)?,
                    seen,
                }))
            })
            .await?
            .ok_or_else(unknown)?;
        let left = self.objects_left(&detail.seen.operation).await?;
        detail.left.extend(left);
        Ok(detail)
    }

    /// Who asked for these operations, where the audit still knows.
    pub async fn askers(
        &self,
        operations: impl Iterator<Item = &Operation>,
    ) -> Result<BTreeMap<OperationId, String>, BrokerError> {
        let mut of_instances: BTreeMap<InstanceId, Vec<OperationId>> = BTreeMap::new();
        for operation in operations {
            let of_instance = of_instances.entry(operation.instance.clone());
            of_instance.or_default().push(operation.id.clone());
        }
        let read = move |conn: &mut Conn<'_>| -> Result<_, StoreError> {
            let mut askers = BTreeMap::new();
            for (instance, operations) in &of_instances {
                askers.extend(store::audit::askers(conn, instance, operations)?);
            }
            Ok(askers)
        };
        Ok(self.store.read(read).await?)
    }

    /// Has an operation tried again at once: one that waits for its next try, or one that is stuck
    /// or was abandoned.
    pub async fn retry(&self, id: OperationId) -> Result<OperationDetail, BrokerError> {
        let now = self.clock.now();
        let wanted = id.clone();
        self.store
            .decide(move |conn| {
                let operation = found(conn, &wanted)?;
                match operation.state {
                    OperationState::Queued => {
                        store::oversight::retry(conn, &wanted, false, now)?;
                    }
                    OperationState::Running => {
                        let text = "it is being worked on at this moment";
                        return Err(BrokerError::Conflict(text.to_owned()));
                    }
                    OperationState::Succeeded | OperationState::Failed => {
                        let text = "it has ended, and nothing is left of it; ask anew for what it \
                                    was to do";
                        return Err(BrokerError::Conflict(text.to_owned()));
                    }
                    OperationState::Stuck | OperationState::Abandoned => {
                        check_last(conn, &operation)?;
                        take_up(conn, &operation, now)?;
                    }
                }
                audit(conn, AtOnce::Retry, &operation, now)
            })
            .await?;
        self.operation(id).await
    }

    /// Gives an operation up. One that does what it was asked for is cleaned up from now on; one that
    /// cleans up, or deletes, is ended as it is; nobody goes on with one that is stuck.
    pub async fn abandon(&self, id: OperationId) -> Result<OperationDetail, BrokerError> {
        let now = self.clock.now();
        let wanted = id.clone();
        self.store
            .decide(move |conn| {
                let operation = found(conn, &wanted)?;
                match operation.state {
                    OperationState::Queued | OperationState::Running => {
                        let ends = operation.failure.is_some() || operation.kind.deletes();
                        let failure = failure_of(&operation);
                        store::oversight::give_up(conn, &wanted, &failure, ends, now)?;
                    }
                    OperationState::Stuck => store::oversight::leave(conn, &wanted, now)?,
                    OperationState::Succeeded
                    | OperationState::Failed
                    | OperationState::Abandoned => {
                        let text = "it has ended; there is nothing to give up";
                        return Err(BrokerError::Conflict(text.to_owned()));
                    }
                }
                audit(conn, AtOnce::Abandon, &operation, now)
            })
            .await?;
        self.operation(id).await
    }

    /// The operations that were abandoned, each with what is left of it.
    pub(super) async fn abandoned(&self) -> Result<Vec<(Operation, Vec<String>)>, BrokerError> {
        let mut filter = Filter {
            state: Some(OperationState::Abandoned),
            ..Filter::default()
        };
        let mut found = Vec::new();
        loop {
            let asked = filter.clone();
            let page = self.store.scan(move |conn| {
                let seen = store::oversight::list(conn, &asked, OPERATIONS_PAGE_MAX)?;
                let operations = seen.into_iter().map(|seen| seen.operation);
                operations
                    .map(|operation| Ok((left_behind(conn, &operation)?, operation)))
                    .collect::<Result<Vec<_>, StoreError>>()
            });
            let page = page.await?;
            let Some((_, last)) = page.last() else {
                return Ok(found);
            };
            filter.after = Some(last.id.clone());
            for (mut left, operation) in page {
                left.extend(self.objects_left(&operation).await?);
                if !left.is_empty() {
                    found.push((operation, left));
                }
            }
        }
    }

    /// Objects in the backup store that an operation which nobody goes on with has left.
    async fn objects_left(&self, operation: &Operation) -> Result<Vec<String>, BrokerError> {
        let Some(id) = operation.backup.clone().filter(|_| is_left(operation)) else {
            return Ok(Vec::new());
        };
        if !operation.kind.takes_backup() {
            return Ok(Vec::new());
        }
        let found = self.store.read(move |conn| store::backup::find(conn, &id));
        let Some(backup) = found.await? else {
            return Ok(Vec::new());
        };
        let stored = self.backups.stored(&backup.deployment, &backup.id).await?;
        let told = stored.objects.iter().map(|name| format!("object {name}"));
        Ok(told.collect())
    }
}

fn unknown() -> BrokerError {
    BrokerError::NotFound("there is no such operation (any more)".to_owned())
}

fn found(conn: &mut Conn<'_>, id: &OperationId) -> Result<Operation, BrokerError> {
    store::operation::find(conn, id)?.ok_or_else(unknown)
}

fn audit(
    conn: &mut Conn<'_>,
    what: AtOnce,
    operation: &Operation,
    now: DateTime<Utc>,
) -> Result<(), BrokerError> {
    Ok(store::audit::ordered(conn, what, operation, now)?)
}

/// Why an operation that an operator gives up has failed.
fn failure_of(operation: &Operation) -> String {
    match (&operation.failure, &operation.trouble) {
        (Some(failure), _) => failure.clone(),
        (None, Some(trouble)) => format!("{GIVEN_UP}: {trouble}"),
        (None, None) => GIVEN_UP.to_owned(),
    }
}

/// Whether nobody goes on with it, or will soon.
fn is_left(operation: &Operation) -> bool {
    operation.abandoned
        || matches!(
            operation.state,
            OperationState::Stuck | OperationState::Abandoned
        )
}

/// What was asked for since of the same thing.
fn later(conn: &mut Conn<'_>, operation: &Operation) -> Result<Option<Operation>, StoreError> {
    use OperationKind::{Bind, Deprovision, Provision, Recover, Repair, Restore, Unbind, Update};
    let mut kinds = vec![Provision, Restore, Deprovision];
    // Those that change the members; what they clean up would be of the later one.
    let of_members = [Update, Repair, Recover];
    if kinds.contains(&operation.kind) || of_members.contains(&operation.kind) {
        kinds.extend(of_members);
    }
    let mut newest = vec![store::operation::newest(
        conn,
        &operation.instance,
        None,
        &kinds,
    )?];
    if let Some(binding) = &operation.binding {
        let kinds = [Bind, Unbind];
        let of_binding =
            store::operation::newest(conn, &operation.instance, Some(binding), &kinds)?;
        newest.push(of_binding);
    }
    let is_later = |other: &Operation| {
        other.id != operation.id && (other.ordinal, &other.id) > (operation.ordinal, &operation.id)
    };
    Ok(newest.into_iter().flatten().find(is_later))
}

fn check_last(conn: &mut Conn<'_>, operation: &Operation) -> Result<(), BrokerError> {
    if let Some(later) = later(conn, operation)? {
        return Err(BrokerError::Conflict(format!(
            "a {} ({}) was asked for since: what is to be done is its affair",
            later.kind, later.id
        )));
    }
    if store::instance::find(conn, &operation.instance)?.is_none() {
        let text = "its instance is gone, and nothing is left of it";
        return Err(BrokerError::Conflict(text.to_owned()));
    }
    Ok(())
}

/// Goes on with an operation that nobody went on with.
fn take_up(
    conn: &mut Conn<'_>,
    operation: &Operation,
    now: DateTime<Utc>,
) -> Result<(), BrokerError> {
    let (instance, deletes) = (&operation.instance, operation.kind.deletes());
    store::oversight::retry(conn, &operation.id, deletes, now)?;
    match (operation.kind, &operation.binding) {
        (OperationKind::Deprovision, _) => {
            store::instance::set_state(conn, instance, InstanceState::Deleting)?;
        }
        (OperationKind::Unbind, Some(id)) => {
            let binding = store::binding::find(conn, instance, id)?;
            if binding.is_some_and(|binding| binding.state == BindingState::Failed) {
                store::binding::set_state(conn, instance, id, BindingState::Deleting)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// What may be left of an operation that nobody goes on with, as far as rows tell.
fn left_behind(conn: &mut Conn<'_>, operation: &Operation) -> Result<Vec<String>, StoreError> {
    if !is_left(operation) || later(conn, operation)?.is_some_and(|later| is_done(&later)) {
        return Ok(Vec::new());
    }
    let Some((deployment, _)) = store::deployment::of_instance(conn, &operation.instance)? else {
        return Ok(Vec::new());
    };
    Ok(match operation.kind {
        OperationKind::Provision | OperationKind::Restore => members_left(&deployment),
        OperationKind::Deprovision => {
            let mut left = members_left(&deployment);
            let backups = store::backup::of_instance(conn, &operation.instance)?;
            let with_bytes = backups.iter().filter(|backup| backup.manifest.is_some());
            left.extend(with_bytes.map(|backup| format!("backup {}", backup.id)));
            left
        }
        OperationKind::Bind | OperationKind::Unbind => {
            let binding = match &operation.binding {
                Some(id) => store::binding::find(conn, &operation.instance, id)?,
                None => None,
            };
            let left = binding.filter(|binding| {
                !matches!(binding.state, BindingState::Ready | BindingState::Expired)
            });
            let told = |user: String| format!("user {user} of deployment {}", deployment.id);
            left.map(|binding| told(binding.database_user))
                .into_iter()
                .collect()
        }
        OperationKind::Update => members_ahead(&deployment),
        OperationKind::Repair => members_outside(&deployment),
        OperationKind::Recover => vec![format!(
            "what the members of deployment {} had, kept aside as {}",
            deployment.id, operation.id
        )],
        // Objects are looked for in the backup store itself; the others lose nothing.
        OperationKind::Backup
        | OperationKind::FinalBackup
        | OperationKind::Prune
        | OperationKind::Relief
        | OperationKind::Defragment
        | OperationKind::Renew
        | OperationKind::Readdress => Vec::new(),
        OperationKind::Proof | OperationKind::Import | OperationKind::RestorePrefix => {
            vec![format!(
                "folder of deployment {}, in which a backup was restored aside, on cluster {}",
                operation.id, deployment.cluster
            )]
        }
    })
}

/// The members that an update has changed, and the others not.
fn members_ahead(deployment: &Deployment) -> Vec<String> {
    let whole = deployment.shape();
    let members = deployment.members.iter();
    let ahead =
        members.filter(|member| deployment.shape_of(member) != whole || member.checkpointing);
    let told = |member: &Member| {
        let own = deployment.shape_of(member);
        format!(
            "member {} of deployment {} as {} with {}, the others as {} with {}",
            member.name,
            deployment.id,
            own.version,
            counted(own.units, "unit"),
            whole.version,
            counted(whole.units, "unit")
        )
    };
    ahead.map(told).collect()
}

/// The members that a repair has replaced, and that are not among the others yet.
fn members_outside(deployment: &Deployment) -> Vec<String> {
    let members = deployment.members.iter();
    let outside = members.filter(|member| !member.membership.is_joined());
    let told = |member: &Member| {
        let (name, id) = (&member.name, &deployment.id);
        format!("member {name} of deployment {id}, which has not joined the others")
    };
    outside.map(told).collect()
}

fn is_done(operation: &Operation) -> bool {
    operation.state == OperationState::Succeeded
}

fn members_left(deployment: &Deployment) -> Vec<String> {
    if deployment.members.is_empty() {
        return Vec::new();
    }
    let (id, cluster) = (&deployment.id, &deployment.cluster);
    let mut left = vec![format!("folder of deployment {id} on cluster {cluster}")];
    left.extend(deployment.members.iter().map(|member| {
        let at: Vec<String> = member.addresses.values().map(Address::to_string).collect();
        let (name, at) = (&member.name, at.join(" and "));
        format!("member {name} of deployment {id} at {at}")
    }));
    left
}
