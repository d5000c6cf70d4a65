//! Operations, as operators see them, and what they may do about one that does not get on.

use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Answer, wrong};
use crate::{
    broker::{OperationDetail, OperationsQuery, StepTold, status_of},
    http::{
        Api,
        error::HttpError,
        openapi::{
            requests,
            scalars::{OwnId, PlatformId, Time, time},
        },
        osb::id::Id,
        request::query,
    },
    model::{
        ids::{BackupId, BindingId, InstanceId, OperationId},
        operation::{OperationKind, OperationState},
        oversight::Overseen,
        trouble::Trouble,
    },
};

/// Operations of all instances.
#[derive(Serialize, ToSchema)]
pub struct Operations {
    /// Newest first.
    operations: Vec<OperationBody>,
    /// What to ask for the ones before with, when there are any.
    #[schema(required, value_type = Option<OwnId>)]
    next_before: Option<OperationId>,
}

/// A piece of work.
#[derive(Serialize, ToSchema)]
#[schema(as = Operation)]
pub struct OperationBody {
    /// OSB's `operation`, and the recipe's id.
    #[schema(value_type = OwnId)]
    id: OperationId,
    /// What it does.
    kind: String,
    /// The same in words, with what it does it to where it knows more; also the name of its recipe.
    name: String,
    /// What it does it to.
    #[schema(value_type = PlatformId)]
    instance_id: InstanceId,
    /// What people call it, where that is known.
    #[schema(required)]
    instance_name: Option<String>,
    /// The binding, where it is about one.
    #[schema(required, value_type = Option<PlatformId>)]
    binding_id: Option<BindingId>,
    /// The backup, where it is about one.
    #[schema(required, value_type = Option<OwnId>)]
    backup_id: Option<BackupId>,
    /// The door that it came through: `osb`, `compose`, `dashboard`, or the broker itself.
    origin: String,
    /// `queued`, `running`, `succeeded`, `failed`, `stuck` (it failed, and so did its clean-up) or
    /// `abandoned` (an operator gave it up as it was).
    state: String,
    /// How it stands, as users are told.
    description: String,
    /// Whether it was told to stop, because its instance or binding is being deleted.
    halted: bool,
    /// Whether it failed and cleans up.
    cleaning_up: bool,
    /// Why it failed.
    #[schema(required)]
    failure: Option<String>,
    /// What keeps it from getting on.
    #[schema(required)]
    trouble: Option<TroubleBody>,
    /// When it is tried again, where it waits for that.
    #[schema(required, value_type = Option<Time>)]
    next_try_at: Option<String>,
    /// When it was accepted.
    #[schema(value_type = Time)]
    created_at: String,
    /// When it last got on.
    #[schema(value_type = Time)]
    updated_at: String,
}

/// What keeps an operation from getting on.
#[derive(Serialize, ToSchema)]
#[schema(as = Trouble)]
pub struct TroubleBody {
    /// Tries in a row that came to nothing.
    tries: u32,
    /// When the first of them did.
    #[schema(value_type = Time)]
    since: String,
    /// What the last of them came to.
    reason: String,
}

/// All that is known of an operation.
#[derive(Serialize, ToSchema)]
pub struct OperationInFull {
    #[serde(flatten)]
    operation: OperationBody,
    /// Who asked for it, where a platform named a user.
    #[schema(required)]
    user: Option<String>,
    /// How often somebody began to work on it.
    claims: i64,
    /// Who works on it now.
    #[schema(required)]
    lease: Option<LeaseBody>,
    /// Its steps, in the order in which they were first tried; those of its clean-up among them.
    steps: Vec<StepBody>,
    /// What may be left of it, where nobody goes on with it.
    left_behind: Vec<String>,
}

/// Who works on an operation.
#[derive(Serialize, ToSchema)]
#[schema(as = Lease)]
pub struct LeaseBody {
    /// The process, by a name that it has for its life.
    owner: String,
    /// Until when others leave the operation alone.
    #[schema(value_type = Time)]
    until: String,
}

/// A step of an operation.
#[derive(Serialize, ToSchema)]
#[schema(as = Step)]
pub struct StepBody {
    /// Its name.
    name: String,
    /// What it does, for people.
    title: String,
    /// Whether it is done.
    done: bool,
    /// Seconds from its first try to its end; `null`: it is not done.
    #[schema(required, minimum = 0)]
    took_seconds: Option<i64>,
    /// Tries that failed.
    failures: u32,
    /// Tries that came to nothing since the machine or the store was short of something.
    shortages: u32,
    /// Seconds that failed tries and their pauses took: what its patience is measured by.
    spent_seconds: u64,
    /// The same of those that came to nothing for a shortage.
    waited_seconds: u64,
    /// Why the last such try came to nothing, with all causes.
    #[schema(required)]
    last_error: Option<String>,
    /// When that was.
    #[schema(required, value_type = Option<Time>)]
    failed_at: Option<String>,
}

/// Lists operations, the newest first.
#[utoipa::path(
    get, path = "/operator/operations", operation_id = "operations",
    params(requests::OperationsQuery),
    responses(
        (status = 200, description = "Operations", body = Operations),
        (status = 400, description = "Something in the query is wrong"),
        (status = 404, description = "`before` names no operation that is known (any more)"),
    )
)]
pub async fn list(api: web::Data<Api>, request: HttpRequest) -> Answer {
    let found = api.broker.oversight.operations(asked(&request)?).await?;
    let now = api.broker.clock.now();
    Ok(HttpResponse::Ok().json(Operations {
        operations: (found.operations.iter())
            .map(|seen| body(seen, found.names.get(&seen.operation.instance), now))
            .collect(),
        next_before: found.next,
    }))
}

/// Tells all that is known of an operation.
#[utoipa::path(
    get, path = "/operator/operations/{operation}", operation_id = "operation",
    responses(
        (status = 200, description = "The operation", body = OperationInFull),
        (status = 400, description = "The id is none"),
        (status = 404, description = "There is no such operation (any more)"),
    )
)]
pub async fn show(api: web::Data<Api>, Id(id): Id<OperationId>) -> Answer {
    let detail = api.broker.oversight.operation(id).await?;
    Ok(HttpResponse::Ok().json(in_full(&detail, api.broker.clock.now())))
}

/// Has an operation tried again at once: one that waits for that, is stuck or was abandoned.
#[utoipa::path(
    post, path = "/operator/operations/{operation}/retry", operation_id = "retry_operation",
    responses(
        (status = 202, description = "It is tried again", body = OperationInFull),
        (status = 400, description = "The id is none"),
        (status = 404, description = "There is no such operation (any more)"),
        (status = 409, description = "It has ended, is being tried, or something else came since"),
        (status = 422, description = "Something else is being done to the same"),
    )
)]
pub async fn retry(api: web::Data<Api>, Id(id): Id<OperationId>) -> Answer {
    let detail = api.broker.oversight.retry(id).await?;
    Ok(HttpResponse::Accepted().json(in_full(&detail, api.broker.clock.now())))
}

/// Gives an operation up: one that does what it was asked for is cleaned up; one that cleans up or
/// deletes ends as it is, and nobody goes on with one that is stuck.
#[utoipa::path(
    post, path = "/operator/operations/{operation}/abandon", operation_id = "abandon_operation",
    responses(
        (status = 202, description = "It is given up", body = OperationInFull),
        (status = 400, description = "The id is none"),
        (status = 404, description = "There is no such operation (any more)"),
        (status = 409, description = "It has ended"),
    )
)]
pub async fn abandon(api: web::Data<Api>, Id(id): Id<OperationId>) -> Answer {
    let detail = api.broker.oversight.abandon(id).await?;
    Ok(HttpResponse::Accepted().json(in_full(&detail, api.broker.clock.now())))
}

fn asked(request: &HttpRequest) -> Result<OperationsQuery, HttpError> {
    let given = |name: &str| query(request, name);
    fn read<T>(
        name: &str,
        text: Option<String>,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, HttpError> {
        let value = text.map(|text| read(&text).ok_or_else(|| wrong(name)));
        value.transpose()
    }
    Ok(OperationsQuery {
        state: read("state", given("state"), OperationState::parse)?,
        halted: None,
        kind: read("kind", given("kind"), OperationKind::parse)?,
        instance: read(
            "instance",
            given("instance").filter(|text| !text.is_empty()),
            |text| text.parse().ok(),
        )?,
        older_than: read("older_than", given("older_than"), |text| {
            // The document says int32.
            let seconds: i32 = text.parse().ok()?;
            u32::try_from(seconds).ok()
        })?,
        before: read("before", given("before"), |text| text.parse().ok())?,
        limit: read("limit", given("limit"), |text| text.parse().ok())?,
    })
}

fn body(seen: &Overseen, name: Option<&String>, now: DateTime<Utc>) -> OperationBody {
    let operation = &seen.operation;
    let waits = operation.state == OperationState::Queued && seen.not_before > now;
    let trouble = operation.trouble.as_ref().map(|trouble| {
        let Trouble {
            tries,
            since,
            reason,
            ..
        } = trouble;
        TroubleBody {
            tries: *tries,
            since: time(*since),
            reason: reason.clone(),
        }
    });
    OperationBody {
        id: operation.id.clone(),
        kind: operation.kind.as_str().to_owned(),
        name: operation.words().into_owned(),
        instance_id: operation.instance.clone(),
        instance_name: name.cloned(),
        binding_id: operation.binding.clone(),
        backup_id: operation.backup.clone(),
        origin: operation.origin.as_str().to_owned(),
        state: operation.state.as_str().to_owned(),
        description: status_of(operation, now).description,
        halted: operation.halted,
        cleaning_up: operation.state.is_active() && operation.failure.is_some(),
        failure: operation.failure.clone(),
        trouble,
        next_try_at: waits.then(|| time(seen.not_before)),
        created_at: time(operation.created_at),
        updated_at: time(operation.updated_at),
    }
}

fn in_full(detail: &OperationDetail, now: DateTime<Utc>) -> OperationInFull {
    let lease = detail.seen.lease.as_ref();
    OperationInFull {
        operation: body(&detail.seen, detail.name.as_ref(), now),
        user: detail.user.clone(),
        claims: detail.seen.operation.epoch,
        lease: lease.map(|lease| LeaseBody {
            owner: lease.owner.clone(),
            until: time(lease.until),
        }),
        steps: detail.steps.iter().map(step).collect(),
        left_behind: detail.left.clone(),
    }
}

fn step(StepTold { seen: step, title }: &StepTold) -> StepBody {
    StepBody {
        name: step.name.clone(),
        title: title.clone(),
        done: step.is_done,
        took_seconds: step.took.map(|took| took.num_seconds()),
        failures: step.trial.failures,
        shortages: step.trial.shortages,
        spent_seconds: step.trial.spent.as_secs(),
        waited_seconds: step.trial.waited.as_secs(),
        last_error: step.last_error.clone(),
        failed_at: step.failed_at.map(time),
    }
}
