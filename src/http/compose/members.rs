//! The members of a deployment, as they are seen now.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Answer, deployment_in_path,
    view::{self, Embedded},
};
use crate::{
    http::{
        Api,
        openapi::scalars::{OwnId, Time, time},
    },
    model::{
        deployment::Deployment,
        observation::{Complaint, Degradation, MemberHealth, MemberObservation},
    },
};

/// Members, in their order.
#[derive(Serialize, ToSchema)]
pub struct Members {
    members: Vec<MemberBody>,
}

/// One member, as it was seen a moment ago.
#[derive(Serialize, ToSchema)]
#[schema(as = Member)]
pub struct MemberBody {
    /// Its id: the same as long as the deployment is there.
    #[schema(value_type = OwnId)]
    capsule_id: String,
    /// Its name.
    name: String,
    /// Where applications reach it.
    url: String,
    /// `serving`; `without_leader` or `degraded` where it answers and cannot serve by itself, for lack of a leader
    /// or for another reason; `silent` where it does not answer.
    #[schema(pattern = "^(serving|without_leader|degraded|silent)$")]
    status: &'static str,
    /// What else there is to say of it, for people; none where all is well.
    #[schema(required)]
    detail: Option<String>,
    /// `leader` or `follower`; none while it follows nobody.
    #[schema(required, pattern = "^(leader|follower)$")]
    role: Option<&'static str>,
    /// The version that it runs; none where it does not say so.
    #[schema(required)]
    version: Option<String>,
    /// Size of its database file, in bytes: what its quota is compared with.
    #[schema(required)]
    allocated_bytes: Option<u64>,
    /// What of it holds something, in bytes; none where the version does not tell.
    #[schema(required)]
    used_bytes: Option<u64>,
    /// When it was seen so.
    #[schema(value_type = Time)]
    observed_at: String,
}

impl MemberBody {
    fn of(deployment: &Deployment, seen: &MemberObservation, observed_at: &str) -> Self {
        let blank = Self {
            capsule_id: view::capsule_id(deployment, &seen.name),
            name: seen.name.clone(),
            url: seen.url.clone(),
            status: "silent",
            detail: seen.health.trouble().map(|trouble| format!("it {trouble}")),
            role: None,
            version: None,
            allocated_bytes: None,
            used_bytes: None,
            observed_at: observed_at.to_owned(),
        };
        match &seen.health {
            MemberHealth::Serving {
                role,
                version,
                database_bytes,
                used_bytes,
                complaints,
                ..
            } => {
                let complaints: Vec<String> = complaints.iter().map(Complaint::to_string).collect();
                Self {
                    status: "serving",
                    detail: Some(complaints.join("; ")).filter(|text| !text.is_empty()),
                    role: Some(role.as_str()),
                    version: Some(version.clone()),
                    allocated_bytes: Some(*database_bytes),
                    used_bytes: *used_bytes,
                    ..blank
                }
            }
            MemberHealth::Degraded(why) => Self {
                status: match why {
                    Degradation::Leaderless(_) => "without_leader",
                    Degradation::Other(_) => "degraded",
                },
                ..blank
            },
            MemberHealth::Silent(_) => blank,
        }
    }
}

/// Lists the members, as a look at them shows that is waited for.
#[utoipa::path(
    get, path = "/api/2016-07/instances/{instance}/deployments/{deployment}/members", operation_id = "members",
    responses(
        (status = 200, description = "The members; none where nobody can ask them", body = Embedded<Members>),
        (status = 404, description = "There is no such deployment, or none that the token leads to"),
    )
)]
pub async fn members(api: web::Data<Api>, request: HttpRequest) -> Answer {
    let of = deployment_in_path(&api, &request).await?;
    let seen = api.broker.vitals.seen_now(&of.deployment).await;
    let members = seen.map_or_else(Vec::new, |seen| {
        let at = time(seen.observed_at);
        let body = |member: &MemberObservation| MemberBody::of(&of.deployment, member, &at);
        seen.members.iter().map(body).collect()
    });
    Ok(HttpResponse::Ok().json(Embedded::new(Members { members })))
}
