//! The schedule of a deployment's backups: what it is, what its users choose of it.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{Answer, change::update, deployment_in_path};
use crate::{
    broker::{Broker, DeploymentView},
    http::{
        Api,
        error::HttpError,
        openapi::{
            requests,
            scalars::{Time, time},
        },
        request::Body,
    },
    model::timetable::{TimetableBounds, name_of},
};

/// When backups are taken by themselves, and how long they are kept.
#[derive(Serialize, ToSchema)]
pub struct BackupScheduleBody {
    /// When the next backup is taken; absent while the instance is not usable.
    #[schema(required, value_type = Option<Time>)]
    next_at: Option<String>,
    /// The hour that was chosen, in UTC; none: the instance has a minute of the day of its own.
    #[schema(required)]
    hour: Option<u32>,
    /// The day that weekly backups are taken on; none: the first day of a week that has no other use.
    #[schema(required)]
    weekday: Option<&'static str>,
    /// How many days a daily backup is kept.
    daily_kept: u32,
    /// How many weeks a weekly backup is kept.
    weekly_kept: u32,
    /// How many months a monthly backup is kept.
    monthly_kept: u32,
    /// What may be chosen; none: the plan's schedule is fixed.
    #[schema(required)]
    bounds: Option<BoundsBody>,
}

/// What users of a plan may choose beside the hour and the day: to keep backups from 1 on to these.
#[derive(Serialize, ToSchema)]
struct BoundsBody {
    /// The most days that a daily backup is kept.
    daily_kept_max: u32,
    /// The most weeks that a weekly backup is kept.
    weekly_kept_max: u32,
    /// The most months that a monthly backup is kept.
    monthly_kept_max: u32,
}

impl From<TimetableBounds> for BoundsBody {
    fn from(of: TimetableBounds) -> Self {
        Self {
            daily_kept_max: of.daily_kept_max,
            weekly_kept_max: of.weekly_kept_max,
            monthly_kept_max: of.monthly_kept_max,
        }
    }
}

fn body(broker: &Broker, of: &DeploymentView) -> BackupScheduleBody {
    let timetable = (broker.inventory).timetable(&of.instance, of.schedule.as_ref());
    let bounds = broker.inventory.timetable_bounds(&of.instance);
    BackupScheduleBody {
        next_at: of.schedule.as_ref().map(|of| time(of.next_at)),
        hour: timetable.hour,
        weekday: timetable.weekday.map(name_of),
        daily_kept: timetable.days_kept(),
        weekly_kept: timetable.weeks_kept(),
        monthly_kept: timetable.months_kept(),
        bounds: bounds.map(BoundsBody::from),
    }
}

/// Tells when backups are taken by themselves, and how long they are kept.
#[utoipa::path(
    get, path = "/api/2016-07/instances/{instance}/deployments/{deployment}/backup_schedule",
    operation_id = "backup_schedule",
    responses(
        (status = 200, description = "The schedule", body = BackupScheduleBody),
        (status = 404, description = "There is no such deployment, or none that the token leads to"),
    )
)]
pub async fn backup_schedule(api: web::Data<Api>, request: HttpRequest) -> Answer {
    let of = deployment_in_path(&api, &request).await?;
    Ok(HttpResponse::Ok().json(body(&api.broker, &of)))
}

/// The parameters of an update, by the fields of the schedule.
const FIELDS: [(&str, &str); 5] = [
    ("hour", "backup_hour"),
    ("weekday", "backup_weekday"),
    ("daily_kept", "daily_backups_kept"),
    ("weekly_kept", "weekly_backups_kept"),
    ("monthly_kept", "monthly_backups_kept"),
];

/// Changes when backups are taken by themselves, and how long they are kept.
#[utoipa::path(
    patch, path = "/api/2016-07/instances/{instance}/deployments/{deployment}/backup_schedule",
    operation_id = "change_backup_schedule",
    request_body = requests::ChangeScheduleBody,
    responses(
        (status = 200, description = "The schedule", body = BackupScheduleBody),
        (status = 404, description = "There is no such deployment, or none that the token leads to"),
        (status = 422, description = "The instance is not ready, or is being updated"),
    )
)]
pub async fn change_backup_schedule(
    api: web::Data<Api>,
    request: HttpRequest,
    payload: web::Payload,
) -> Answer {
    let of = deployment_in_path(&api, &request).await?;
    let wanted = Body::read(&request, payload)
        .await?
        .object("backup_schedule")?;
    let given = |field: &str| wanted.as_ref().and_then(|wanted| wanted.get(field));
    let named = FIELDS
        .iter()
        .filter_map(|(field, parameter)| Some(((*parameter).to_owned(), given(field)?.clone())));
    let parameters: Map<String, Value> = named.collect();
    if parameters.is_empty() {
        let fields = FIELDS.map(|(field, _)| field).join(", ");
        let reason = format!("backup_schedule has nothing to change; give one of {fields}");
        return Err(HttpError::bad_request(reason).into());
    }
    update(&api, &of, Value::Object(parameters)).await?;
    let id = of.instance.id.clone();
    let changed = api.broker.deployments.deployment_of(id).await?;
    Ok(HttpResponse::Ok().json(body(&api.broker, &changed)))
}
