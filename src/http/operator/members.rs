//! Members of databases, in an operator's hands.

use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::Answer;
use crate::{
    broker::status_of,
    http::{
        Api,
        error::HttpError,
        openapi::{
            requests,
            scalars::{OwnId, Time, time},
        },
        osb::id::Id,
        request::Body,
    },
    model::{
        ids::{BackupId, InstanceId, OperationId},
        operation::Operation,
        origin::Origin,
        recovery::{RecoverFrom, Recovery, RecoverySource, Remains},
    },
};

/// Work that was accepted.
#[derive(Serialize, ToSchema)]
pub struct Accepted {
    /// Its id.
    #[schema(value_type = OwnId)]
    operation: OperationId,
    /// Its state, for people.
    description: String,
}

impl Accepted {
    /// What is told of an operation.
    pub fn of(operation: &Operation, now: DateTime<Utc>) -> Self {
        Self {
            operation: operation.id.clone(),
            description: status_of(operation, now).description,
        }
    }
}

/// Replaces a member of a database: it leaves the cluster, its data is deleted, and a new one comes in
/// its place and catches up with the others. Refused when too few serve without it.
#[utoipa::path(
    post, path = "/operator/instances/{instance}/repair", operation_id = "repair",
    request_body = requests::RepairBody,
    responses(
        (status = 202, description = "The member is being replaced", body = Accepted),
        (status = 400, description = "Something in the body is wrong"),
        (status = 404, description = "There is no such instance"),
        (status = 408, description = "The body did not come in time"),
        (status = 413, description = "The body is larger than it may be"),
        (status = 422, description = "The instance is not ready, or another member is being replaced"),
    )
)]
pub async fn repair(
    api: web::Data<Api>,
    Id(instance): Id<InstanceId>,
    request: HttpRequest,
    payload: web::Payload,
) -> Answer {
    let body = Body::read(&request, payload).await?;
    let member = body.required_text("member")?;
    let operation = api
        .broker
        .upkeep
        .repair(instance, member, Origin::Operator)
        .await?;
    Ok(HttpResponse::Accepted().json(Accepted::of(&operation, api.broker.clock.now())))
}

/// Gives the members of a database another certificate, one member after the other, and does what else is
/// due about its certificates. The broker does so by itself long before they end.
#[utoipa::path(
    post, path = "/operator/instances/{instance}/renew", operation_id = "renew",
    responses(
        (status = 202, description = "The certificates are being renewed", body = Accepted),
        (status = 400, description = "That is no id"),
        (status = 404, description = "There is no such instance"),
        (status = 409, description = "The broker's clock is in doubt"),
        (status = 422, description = "The instance is not ready"),
    )
)]
pub async fn renew(api: web::Data<Api>, Id(instance): Id<InstanceId>) -> Answer {
    let operation = api
        .broker
        .renewals
        .renew(instance, Origin::Operator)
        .await?;
    Ok(HttpResponse::Accepted().json(Accepted::of(&operation, api.broker.clock.now())))
}

/// What a recovery would do.
#[derive(Serialize, ToSchema)]
pub struct RecoveryPlan {
    /// Whether it would be done.
    possible: bool,
    /// Why not, in a sentence.
    #[schema(required)]
    reason: Option<String>,
    /// The member that the database would be made of.
    #[schema(required)]
    member: Option<String>,
    /// The backup that the database would be made of.
    #[schema(required, value_type = Option<OwnId>)]
    backup_id: Option<BackupId>,
    /// The revision that it would have; null where that could not be told.
    #[schema(required)]
    revision: Option<i64>,
    /// The moment that it would be of.
    #[schema(required, value_type = Option<Time>)]
    of: Option<String>,
    /// What is lost, and what else to think of, in sentences.
    lost: Vec<String>,
    /// The members as they are.
    members: Vec<MemberLeft>,
}

/// What a member still has.
#[derive(Serialize, ToSchema)]
pub struct MemberLeft {
    /// Its name.
    name: String,
    /// Whether it follows a leader.
    serves: bool,
    /// Whether it still has its data.
    has_data: bool,
    /// The newest revision in it; null where that was not looked at, or could not be told.
    #[schema(required)]
    revision: Option<i64>,
    /// When it was written to last.
    #[schema(required, value_type = Option<Time>)]
    written_at: Option<String>,
}

impl From<Remains> for MemberLeft {
    fn from(of: Remains) -> Self {
        Self {
            name: of.member,
            serves: of.serves,
            has_data: of.data.is_some(),
            revision: of
                .data
                .as_ref()
                .and_then(|data| data.content.get("revision")),
            written_at: of.data.as_ref().map(|data| time(data.written_at)),
        }
    }
}

impl From<Recovery> for RecoveryPlan {
    fn from(of: Recovery) -> Self {
        let (mut member, mut backup_id, mut reason) = (None, None, None);
        match of.source {
            Ok(RecoverySource::Survivor(name)) => member = Some(name),
            Ok(RecoverySource::Backup(manifest)) => backup_id = Some(manifest.backup_id),
            Err(why) => reason = Some(why),
        }
        Self {
            possible: reason.is_none(),
            reason,
            member,
            backup_id,
            revision: of.content.get("revision"),
            of: of.of.map(time),
            lost: of.lost,
            members: of.members.into_iter().map(MemberLeft::from).collect(),
        }
    }
}

/// Makes a database anew, in its place, whose majority is lost: of what a member still has, or of a
/// backup. Without a yes, tells what that would do and lose. Addresses and credentials stay.
#[utoipa::path(
    post, path = "/operator/instances/{instance}/recover", operation_id = "recover",
    request_body = requests::RecoverBody,
    responses(
        (status = 200, description = "What it would do", body = RecoveryPlan),
        (status = 202, description = "It is being done", body = Accepted),
        (status = 400, description = "Something in the body is wrong"),
        (status = 404, description = "There is no such instance"),
        (status = 408, description = "The body did not come in time"),
        (status = 409, description = "It is not possible; without a yes, the answer says why"),
        (status = 413, description = "The body is larger than it may be"),
        (status = 422, description = "The instance is not ready"),
    )
)]
pub async fn recover(
    api: web::Data<Api>,
    Id(instance): Id<InstanceId>,
    request: HttpRequest,
    payload: web::Payload,
) -> Answer {
    let body = Body::read(&request, payload).await?;
    // One that is empty is no id.
    body.optional_text("backup_id")?;
    let (member, backup) = (body.optional_text("member")?, body.id("backup_id")?);
    let wanted = match body.required_text("from")?.as_str() {
        "survivor" => RecoverFrom::Survivor(member),
        "backup" => RecoverFrom::Backup(backup),
        _ => {
            let reason = "from is neither survivor nor backup";
            return Err(HttpError::bad_request(reason).into());
        }
    };
    if !body.flag("yes")? {
        let plan = api
            .broker
            .recoveries
            .plan_recovery(instance, wanted)
            .await?;
        return Ok(HttpResponse::Ok().json(RecoveryPlan::from(plan)));
    }
    let operation = api
        .broker
        .recoveries
        .recover(instance, wanted, Origin::Operator)
        .await?;
    Ok(HttpResponse::Accepted().json(Accepted::of(&operation, api.broker.clock.now())))
}
