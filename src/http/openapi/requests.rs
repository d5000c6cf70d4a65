//! What clients send, as documents show it. Requests themselves are read by hand, since OSB asks
//! for forgiveness that a type would not give: unknown fields, `null` for absent ones.

#![allow(dead_code, reason = "types of documents alone")]

use serde_json::Value;
use utoipa::{IntoParams, ToSchema, openapi::Object};

use super::scalars::{DatabaseVersion, OwnId, words};
use crate::model::operation::{OperationKind, OperationState};

/// Parameters of a plan, in the catalog's own schemas: the document takes their place.
#[derive(ToSchema)]
pub struct ProvisionParameters {}

/// Parameters of an update, likewise.
#[derive(ToSchema)]
pub struct UpdateParameters {}

/// Parameters of a binding, likewise.
#[derive(ToSchema)]
pub struct BindParameters {}

/// What a new instance shall be.
#[derive(ToSchema)]
pub struct ProvisionBody {
    /// The offering.
    #[schema(min_length = 1)]
    service_id: String,
    /// Its plan.
    #[schema(min_length = 1)]
    plan_id: String,
    /// The owner's organization.
    #[schema(min_length = 1)]
    organization_guid: String,
    /// The owner's space.
    #[schema(min_length = 1)]
    space_guid: String,
    /// The platform's context: `platform`, `instance_name` and others.
    #[schema(value_type = Option<Object>)]
    context: Option<Value>,
    /// What the plan's schema allows.
    parameters: Option<ProvisionParameters>,
    /// The catalog's version of the plan, as the platform knows it.
    maintenance_info: Option<MaintenanceInfo>,
}

/// What an instance becomes.
#[derive(ToSchema)]
pub struct UpdateBody {
    /// The instance's offering.
    #[schema(min_length = 1)]
    service_id: String,
    /// The instance's plan.
    #[schema(min_length = 1)]
    plan_id: Option<String>,
    /// The platform's context.
    #[schema(value_type = Option<Object>)]
    context: Option<Value>,
    /// What the plan's schema allows; what is not named stays as it is.
    parameters: Option<UpdateParameters>,
    /// The version to upgrade to: the catalog's.
    maintenance_info: Option<MaintenanceInfo>,
    /// Not looked at.
    previous_values: Option<Value>,
}

/// What a new binding shall be.
#[derive(ToSchema)]
pub struct BindBody {
    /// The instance's offering. With `predecessor_binding_id` it may be left out.
    service_id: Option<String>,
    /// The instance's plan. With `predecessor_binding_id` it may be left out.
    plan_id: Option<String>,
    /// The platform's context; not looked at.
    context: Option<Value>,
    /// Who shall be bound; no application is needed.
    #[schema(value_type = Option<Object>)]
    bind_resource: Option<Value>,
    /// What the plan's schema allows.
    parameters: Option<BindParameters>,
    /// The binding that this one takes over from.
    predecessor_binding_id: Option<String>,
}

/// The member that is to be replaced.
#[derive(ToSchema)]
pub struct RepairBody {
    /// Its name, such as `m0`.
    #[schema(min_length = 1)]
    member: String,
}

/// What a database is to be made of again.
#[derive(ToSchema)]
pub struct RecoverBody {
    /// `survivor`: what a member still has. `backup`: a backup.
    #[schema(pattern = "^(survivor|backup)$")]
    from: String,
    /// The survivor's name, such as `m0`. Left out: the one that knows most.
    #[schema(min_length = 1)]
    member: Option<String>,
    /// The backup. Left out: the newest complete one.
    #[schema(value_type = Option<OwnId>)]
    backup_id: Option<String>,
    /// Whether to do it. Without `true`, the answer tells what would be done and lost.
    yes: Option<bool>,
}

/// OSB's `maintenance_info`.
#[derive(ToSchema)]
pub struct MaintenanceInfo {
    /// A version.
    version: Option<String>,
}

/// Whether the client takes a 202.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AcceptsIncomplete {
    /// Whether the client takes a 202 and asks on: `true` says so, and any other text does not.
    accepts_incomplete: Option<String>,
}

/// What is to be deleted, once more.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Deletion {
    /// Its offering.
    #[param(min_length = 1)]
    service_id: String,
    /// Its plan.
    #[param(min_length = 1)]
    plan_id: String,
    /// Whether the client takes a 202 and asks on: `true` says so, and any other text does not.
    accepts_incomplete: Option<String>,
}

/// What is asked for, once more.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Ids {
    /// Not looked at.
    service_id: Option<String>,
    /// Not looked at.
    plan_id: Option<String>,
}

/// Which operation is asked for.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct OperationQuery {
    /// The `operation` of a 202; absent, the newest one.
    operation: Option<String>,
    /// Not looked at.
    service_id: Option<String>,
    /// Not looked at.
    plan_id: Option<String>,
}

/// What a link to a backup's bytes or a logfile's text carries.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct LinkQuery {
    /// When it ends, in seconds of Unix time.
    expires: String,
    /// The broker's word for it.
    signature: String,
}

/// Which entries of the audit are asked for.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// Only those of this instance.
    #[param(pattern = r"^[^\x00-\x1f\x7f-\x9f]*$", max_length = 255)]
    instance: Option<String>,
    /// Only those before this one.
    before: Option<i64>,
    /// At most so many.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
}

/// Which operations are asked for.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct OperationsQuery {
    /// Only those in this state.
    #[param(schema_with = states)]
    state: Option<String>,
    /// Only those of this kind.
    #[param(schema_with = kinds)]
    kind: Option<String>,
    /// Only those of this instance.
    #[param(pattern = r"^[^\x00-\x1f\x7f-\x9f]*$", max_length = 255)]
    instance: Option<String>,
    /// Only those that were accepted longer ago than so many seconds.
    #[param(minimum = 0)]
    older_than: Option<u32>,
    /// Only those that were accepted before this one.
    #[param(pattern = "^[0-9a-f]{24}$")]
    before: Option<String>,
    /// At most so many.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
}

/// Which instances are asked for.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct InstancesQuery {
    /// Only those in whose id, name, organization or space this stands.
    q: Option<String>,
    /// The page, from 1 on.
    #[param(minimum = 1, maximum = 65535)]
    page: Option<u16>,
}

/// Which page is asked for.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// The page, from 1 on.
    #[param(minimum = 1, maximum = 65535)]
    page: Option<u16>,
}

fn states() -> Object {
    words(OperationState::ALL.iter().map(|state| state.as_str()))
}

fn kinds() -> Object {
    words(OperationKind::ALL.iter().map(|kind| kind.as_str()))
}

/// What is written beside a deployment.
#[derive(ToSchema)]
pub struct AnnotateBody {
    deployment: Option<Annotations>,
}

/// What is written beside a deployment; what is absent or `null` stays as it is.
#[derive(ToSchema)]
struct Annotations {
    /// Notes: up to 4096 bytes.
    notes: Option<String>,
    /// A code for billing: up to 255 bytes.
    customer_billing_code: Option<String>,
}

/// What is written beside a backup.
#[derive(ToSchema)]
pub struct ChangeBackupBody {
    backup: Option<BackupChanges>,
}

/// What is written beside a backup; what is absent or `null` stays as it is.
#[derive(ToSchema)]
struct BackupChanges {
    /// A note: up to 255 bytes, without control characters; empty for none.
    note: Option<String>,
    /// Whether it is kept: it goes neither by age nor by a newer one then.
    pinned: Option<bool>,
}

/// Another schedule of backups.
#[derive(ToSchema)]
pub struct ChangeScheduleBody {
    backup_schedule: WantedSchedule,
}

/// What is chosen of the schedule of backups: what is absent stays as it is, and what is `null` is as the
/// broker has it for everybody.
#[derive(ToSchema)]
struct WantedSchedule {
    /// The hour of the day, in UTC.
    #[schema(minimum = 0, maximum = 23)]
    hour: Option<u32>,
    /// The day that weekly backups are taken on: `monday` to `sunday`.
    weekday: Option<String>,
    /// How many days daily backups are kept.
    #[schema(minimum = 1)]
    daily_kept: Option<u32>,
    /// How many weeks weekly backups are kept.
    #[schema(minimum = 1)]
    weekly_kept: Option<u32>,
    /// How many months monthly backups are kept.
    #[schema(minimum = 1)]
    monthly_kept: Option<u32>,
}

/// Whether anything shall be done.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DryRun {
    /// Whether to tell what would be done and to do nothing. Goes before that of the body.
    dry_run: Option<bool>,
}

/// What time it is.
#[derive(ToSchema)]
pub struct ClockBody {
    /// The time, by another clock than the broker's.
    #[schema(format = DateTime)]
    time: String,
}

/// What becomes of a deployment without a row.
#[derive(ToSchema)]
pub struct ReconcileBody {
    /// The deployment.
    #[schema(pattern = "^[0-9a-f]{24}$")]
    deployment_id: String,
    /// The cluster that it is on.
    #[schema(min_length = 1)]
    cluster_id: String,
    /// `adopt` or `remove`.
    #[schema(pattern = "^(adopt|remove)$")]
    choice: String,
    /// The plan of its instance, where no backup tells.
    plan_id: Option<String>,
}

/// Which keys shall be put back.
#[derive(ToSchema)]
pub struct RestorePrefixBody {
    deployment: RestoredKeys,
}

/// Which keys shall be put back.
#[derive(ToSchema)]
struct RestoredKeys {
    /// What the keys begin with, up to 1024 bytes; empty: all keys.
    prefix: String,
    /// `missing`: keys that the database has no more; `overwrite`: also the values of keys that have others now;
    /// `mirror`: also, keys that the backup has not are deleted. Absent or `null`: `missing`.
    mode: Option<String>,
    /// With `latest`: the newest backup that was begun by then.
    restore_time: Option<String>,
    /// Only compare, and change nothing. Absent or `null`: `false`.
    dry_run: Option<bool>,
    /// The private key of age to a backup that is sealed for a key of yours; for no other one. It is never kept.
    backup_private_key: Option<String>,
    /// The instance that they are put into. Absent or `null`: the one that the backup is of.
    target_service_instance_id: Option<String>,
}

/// What shall be brought along.
#[derive(ToSchema)]
pub struct UploadBody {
    upload: WantedUpload,
}

/// A snapshot that was taken elsewhere.
#[derive(ToSchema)]
struct WantedUpload {
    /// Its length in bytes.
    bytes: u64,
    /// Its SHA-256 in hexadecimal digits, if the whole shall be compared with it.
    sha256: Option<String>,
    /// The version of the database that it was taken of. Absent or `null`: that of the instance.
    db_version: Option<DatabaseVersion>,
    /// What to remember of it.
    note: Option<String>,
}

/// How room shall be made.
#[derive(ToSchema)]
pub struct ReliefBody {
    deployment: Option<Relief>,
}

/// How room shall be made.
#[derive(ToSchema)]
struct Relief {
    /// Delete all keys that begin with this, up to 1024 bytes; absent, `null` or empty: delete none.
    delete_prefix: Option<String>,
}

/// A version to upgrade to.
#[derive(ToSchema)]
pub struct UpgradeBody {
    deployment: WantedVersion,
}

/// A version to upgrade to.
#[derive(ToSchema)]
struct WantedVersion {
    /// The version.
    #[schema(value_type = DatabaseVersion)]
    version: String,
    /// Whether to tell what would be done and to do nothing.
    dry_run: Option<bool>,
}

/// A size.
#[derive(ToSchema)]
pub struct ScaleBody {
    deployment: WantedSize,
}

/// A size.
#[derive(ToSchema)]
struct WantedSize {
    /// How many units.
    #[schema(minimum = 1)]
    units: u32,
}

/// What a restored deployment shall be.
#[derive(ToSchema)]
pub struct RestoreBody {
    deployment: Option<Restored>,
}

/// What a restored deployment shall be; what is absent, `null`, empty or 0 is the broker's choice.
#[derive(ToSchema)]
struct Restored {
    /// Its name: letters, digits, `-`, `_` and `.`, up to 50.
    name: Option<String>,
    /// Its version.
    version: Option<String>,
    /// The cluster to place it on.
    cluster_id: Option<String>,
    /// Its size.
    units: Option<u32>,
    /// With `latest` and the like in the path: the newest backup that was begun by then.
    #[schema(format = DateTime)]
    restore_time: Option<String>,
    /// Whether clients that go on from a revision of the source are told that this is another database. Absent or
    /// `null`: `false`.
    revision_bump: Option<bool>,
    /// The private key of age to a backup that is sealed for a key of yours; for no other one. It is never kept.
    backup_private_key: Option<String>,
    /// Whether to tell what would be done and to do nothing.
    dry_run: Option<bool>,
}
