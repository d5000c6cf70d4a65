//! The bodies of the Compose API: plain objects, lists under `_embedded`.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::provenance::RestoredFromBody;
use crate::{
    broker::{Broker, DeploymentView, Task, status_of},
    http::{
        advisory::AdvisoryBody,
        health_body::HealthBody,
        openapi::scalars::{DatabaseVersion, OwnId, PlatformId, Time, time},
    },
    model::{
        defragment::Storage,
        deployment::Deployment,
        engine::{KnownFault, Transition},
        health::Health,
        ids::{BackupId, DeploymentId, InstanceId, OperationId},
        limits::{UNIT_BYTES, UNITS_DEFAULT},
        observation::Observation,
        operation::{OperationKind, OperationState},
        tenant::Tenant,
        version::Version,
    },
    seal::fingerprint,
};

pub use backup::{
    BackupBody, BackupList, Backups, DownloadableBackupBody, RestoreEstimateBody, backup,
    backup_url,
};
use prefix::PrefixRestoreBody;

mod backup;
mod prefix;

/// A list, in the original's wrapping.
#[derive(Serialize, ToSchema)]
pub struct Embedded<T> {
    /// The list, under the name of what is in it.
    #[serde(rename = "_embedded")]
    embedded: T,
}

impl<T> Embedded<T> {
    /// Wraps a list.
    pub fn new(embedded: T) -> Self {
        Self { embedded }
    }
}

/// What an instance's id stands for.
#[derive(Serialize, ToSchema)]
#[schema(as = Instance)]
pub struct InstanceBody {
    /// The instance.
    #[schema(value_type = PlatformId)]
    pub id: InstanceId,
    /// `deployment`, or `cluster` for a cluster's own service instance.
    #[schema(pattern = "^(deployment|cluster)$")]
    pub resource_type: &'static str,
    /// The deployment's or the cluster's id.
    pub resource_id: String,
    /// The cluster, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub cluster_id: Option<String>,
}

/// A deployment: the database cluster behind one instance.
#[derive(Serialize, ToSchema)]
#[schema(as = Deployment)]
pub struct DeploymentBody {
    /// Its id.
    #[schema(value_type = OwnId)]
    id: DeploymentId,
    /// Its owner, made of the tenant's names.
    account_id: String,
    /// Its name, as in the credentials of its bindings.
    name: String,
    /// The instance in front of it.
    #[schema(value_type = PlatformId)]
    instance_id: InstanceId,
    /// What people call that instance, where somebody said.
    #[schema(required)]
    instance_name: Option<String>,
    /// The kind of database.
    r#type: String,
    /// Its version.
    #[schema(value_type = DatabaseVersion)]
    version: Version,
    /// The known faults of that version, the gravest in front.
    advisories: Vec<AdvisoryBody>,
    /// How it is.
    health: HealthBody,
    /// Since when nobody but the broker is let in, because the database is full; `null` while it is
    /// open.
    #[schema(required, value_type = Option<Time>)]
    closed_since: Option<String>,
    /// When the instance was asked for.
    #[schema(value_type = Time)]
    created_at: String,
    /// The backup that it was restored from; `null` where it was made empty.
    #[schema(required)]
    restored_from: Option<RestoredFromBody>,
    /// How many complete backups on demand are kept: older ones give way to the next.
    on_demand_backups_kept: u32,
    /// The public key of age that its backups are sealed for; `null`: the broker opens them.
    #[schema(required)]
    backup_public_key: Option<String>,
    /// What users wrote down beside it.
    notes: String,
    /// What they are to be billed under, in their own words.
    customer_billing_code: String,
    // Empty on plans that do not let one choose, as the original has it.
    /// The cluster, where it was chosen; otherwise empty.
    cluster_id: String,
    /// Its size.
    units: u32,
    /// The certificates of its own authorities to trust (PEM, in base64), once there are some.
    #[schema(required)]
    ca_certificate_base64: Option<String>,
    /// Where its members are; in lists it is not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    connection_strings: Option<ConnectionStrings>,
    /// The recipe that made it, as long as it is remembered.
    #[schema(required, value_type = Option<OwnId>)]
    provision_recipe_id: Option<OperationId>,
    /// What belongs to it.
    #[serde(rename = "_links")]
    links: DeploymentLinks,
}

/// Where the members of a deployment are, without users and passwords.
#[derive(Default, Serialize, ToSchema)]
struct ConnectionStrings {
    /// One for each member.
    direct: Vec<String>,
    // Command lines carry a password: they are in the credentials of bindings.
    /// Always empty.
    cli: Vec<String>,
    /// Always empty.
    maps: Vec<String>,
    /// Always empty.
    misc: Map<String, Value>,
    /// Always empty.
    ssh: Vec<String>,
    /// Always empty.
    health: Vec<String>,
    /// Always empty.
    admin: Vec<String>,
}

/// What belongs to a deployment.
#[derive(Serialize, ToSchema)]
struct DeploymentLinks {
    alerts: TemplatedLink,
    backups: TemplatedLink,
    cluster: TemplatedLink,
    /// Its page for people.
    compose_web_ui: TemplatedLink,
    logfiles: TemplatedLink,
    recipes: TemplatedLink,
    scalings: TemplatedLink,
    versions: TemplatedLink,
}

/// A place, as a URI template where it says so.
#[derive(Serialize, ToSchema)]
struct TemplatedLink {
    href: String,
    templated: bool,
}

/// A place in the API.
#[derive(Serialize, ToSchema)]
pub struct Link {
    /// Its address.
    pub href: String,
}

/// A recipe: a piece of work on a deployment.
#[derive(Serialize, ToSchema)]
#[schema(as = Recipe)]
pub struct RecipeBody {
    /// Its id, which is also OSB's `operation`.
    #[schema(value_type = OwnId)]
    id: OperationId,
    /// The deployment's owner.
    account_id: String,
    /// The deployment.
    #[schema(value_type = OwnId)]
    deployment_id: DeploymentId,
    /// Always `null`.
    #[schema(required)]
    parent_id: Option<String>,
    /// The kind of work.
    template: &'static str,
    /// The work, for people.
    name: String,
    /// Its state.
    status: RecipeStatus,
    /// The same, for people.
    status_detail: String,
    /// Steps that are done.
    operations_complete: u32,
    /// Steps in all; 0 before the work has begun.
    operations_total: u32,
    /// Bytes of the current step that are done.
    bytes_complete: u64,
    /// Bytes of the current step in all; 0 when it moves none.
    bytes_total: u64,
    /// The backup that it takes or restores.
    #[schema(required, value_type = Option<OwnId>)]
    backup_id: Option<BackupId>,
    /// Where it came from: `osb`, `compose`, `dashboard`, `schedule`, `retention`, `expiry`,
    /// `guard`, `night`, `watchdog`, `renewal`, `configuration`, `operator`.
    source: String,
    /// Who asked for it, where a platform named a user.
    #[schema(required)]
    user: Option<String>,
    /// When it was asked for.
    #[schema(value_type = Time)]
    created_at: String,
    /// When it last came further.
    #[schema(value_type = Time)]
    updated_at: String,
    /// Of a restore of keys: what is put back, and what came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix_restore: Option<PrefixRestoreBody>,
    /// Always empty.
    #[serde(rename = "_embedded")]
    #[schema(value_type = Object)]
    embedded: NoRecipes,
}

/// The state of a recipe.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum RecipeStatus {
    Waiting,
    Running,
    Complete,
    Failed,
}

/// Recipes have none below them.
#[derive(Serialize)]
struct NoRecipes {
    recipes: [(); 0],
}

/// Recipes, newest first.
#[derive(Serialize, ToSchema)]
pub struct Recipes {
    /// The recipes.
    pub recipes: Vec<RecipeBody>,
}

/// What giving unused storage back would do.
#[derive(Serialize, ToSchema)]
#[schema(as = Defragmentation)]
pub struct DefragmentationBody {
    /// What the file of the member has that most would come back of, in bytes; none when no member
    /// tells.
    #[schema(required)]
    allocated_bytes: Option<u64>,
    /// What of it holds something, in bytes; none where the version does not tell.
    #[schema(required)]
    used_bytes: Option<u64>,
    /// What would come back, in bytes, on that member.
    #[schema(required)]
    unused_bytes: Option<u64>,
    /// About how long each member would answer nobody, one after the other, in seconds.
    #[schema(required)]
    stall_seconds: Option<u64>,
    /// Whether the broker does it by itself in the coming night.
    by_night: bool,
    /// Why it would be refused now: too few members serve. None where it would be done.
    #[schema(required)]
    refusal: Option<String>,
}

/// The sizes of a deployment.
#[derive(Serialize, ToSchema)]
#[schema(as = Scalings)]
pub struct ScalingsBody {
    /// Its size.
    allocated_units: u32,
    /// What its database needs; 0 as long as that is not known.
    used_units: u64,
    /// What a deployment has unless more was asked for.
    starting_units: u32,
    /// What the database's file has on the member with the largest one, in bytes: what the quota is
    /// compared with. None as long as that is not known.
    #[schema(required)]
    allocated_bytes: Option<u64>,
    /// What of a file holds something, in bytes; none where the version does not tell.
    #[schema(required)]
    used_bytes: Option<u64>,
    /// When the members told these sizes; none as long as they have not.
    #[schema(required, value_type = Option<Time>)]
    observed_at: Option<String>,
    /// The smallest size that it can have now.
    minimum_units: u64,
    /// The largest.
    maximum_units: u32,
    // Members have what memory they need: it is not measured out.
    /// Always 0.
    memory_per_unit_in_mb: u64,
    /// Storage that a unit is, on each member.
    storage_per_unit_in_mb: u64,
    /// The same.
    unit_size_in_mb: u64,
    /// `data`.
    unit_type: &'static str,
}

/// A way to another version.
#[derive(Serialize, ToSchema)]
#[schema(as = Transition)]
pub struct TransitionBody {
    /// The kind of database.
    application: String,
    // A restore is a new service instance with db_version.
    /// How: by an update, or by a restore into a new instance.
    #[schema(pattern = "^(in_place|restore)$")]
    method: &'static str,
    /// The version now.
    #[schema(value_type = DatabaseVersion)]
    from_version: Version,
    /// The version that can be reached.
    #[schema(value_type = DatabaseVersion)]
    to_version: Version,
    /// The known faults of the version that can be reached, the gravest in front.
    advisories: Vec<AdvisoryBody>,
}

/// Ways to other versions.
#[derive(Serialize, ToSchema)]
pub struct Transitions {
    /// The ways, by version, oldest first.
    pub transitions: Vec<TransitionBody>,
}

/// Compose names owners by 24 hexadecimal digits: these are made of the tenant's own names.
pub fn account_id(tenant: &Tenant) -> String {
    let mut names = format!(
        "{}\0{}\0{}",
        tenant.platform, tenant.organization, tenant.space
    );
    for (key, id) in &tenant.account {
        names += &format!("\0{key}\0{id}");
    }
    fingerprint(&names)[..24].to_owned()
}

/// Users are bindings here, with ids like all others.
pub fn user_id(instance: &InstanceId, user: &str) -> String {
    fingerprint(&format!("{instance}\0{user}"))[..24].to_owned()
}

/// The Compose API knows members as capsules, with ids like all others.
pub fn capsule_id(deployment: &Deployment, member: &str) -> String {
    fingerprint(&format!("{}\0{member}", deployment.id))[..24].to_owned()
}

/// Where a deployment stands in the API.
pub fn deployment_url(public_url: &str, deployment: &Deployment) -> String {
    format!(
        "{public_url}/api/2016-07/instances/{}/deployments/{}",
        deployment.instance.in_path(),
        deployment.id
    )
}

fn cluster_url(public_url: &str, deployment: &Deployment) -> String {
    format!(
        "{public_url}/api/2016-07/instances/{}/clusters/{}",
        deployment.instance.in_path(),
        deployment.cluster
    )
}

/// A deployment. Passwords belong to bindings and are not shown.
pub fn deployment(broker: &Broker, view: &DeploymentView, health: Health) -> DeploymentBody {
    let deployment = &view.deployment;
    let url = deployment_url(&broker.public_url, deployment);
    let faults = broker
        .inventory
        .known_faults(&deployment.engine, deployment.version);
    let asked = &view.instance.request.parameters;
    let chosen = ["cluster_id", "cluster_service_instance_id"]
        .iter()
        .any(|p| asked.get(p).is_some());
    let templated = |url: &str| TemplatedLink {
        href: format!("{url}{{?embed}}"),
        templated: true,
    };
    let link = |name: &str| templated(&format!("{url}/{name}"));
    DeploymentBody {
        id: deployment.id.clone(),
        account_id: account_id(&view.instance.tenant),
        name: deployment.name.clone(),
        instance_id: view.instance.id.clone(),
        instance_name: view.instance.name.clone(),
        r#type: deployment.engine.clone(),
        version: deployment.version,
        advisories: faults.iter().map(AdvisoryBody::of).collect(),
        health: health.into(),
        closed_since: deployment.closed_since.map(time),
        created_at: time(view.instance.created_at),
        restored_from: view.source.as_ref().map(RestoredFromBody::from),
        on_demand_backups_kept: broker.inventory.kept(&view.instance).on_demand,
        backup_public_key: view.instance.recipient().map(str::to_owned),
        notes: view.notes.text.clone(),
        customer_billing_code: view.notes.billing_code.clone(),
        cluster_id: if chosen {
            deployment.cluster.clone()
        } else {
            String::new()
        },
        units: deployment.units,
        ca_certificate_base64: view.ca_certificate.as_ref().map(|pem| BASE64.encode(pem)),
        connection_strings: Some(ConnectionStrings {
            direct: broker.inventory.urls(deployment),
            ..ConnectionStrings::default()
        }),
        provision_recipe_id: view.provision.clone(),
        links: DeploymentLinks {
            alerts: link("alerts"),
            backups: link("backups"),
            cluster: templated(&cluster_url(&broker.public_url, deployment)),
            compose_web_ui: TemplatedLink {
                href: broker.dashboard_url(&view.instance.id),
                templated: false,
            },
            logfiles: link("logfiles"),
            recipes: link("recipes"),
            scalings: link("scalings"),
            versions: link("versions"),
        },
    }
}

/// A deployment as it stands in a list.
pub fn listed_deployment(broker: &Broker, view: &DeploymentView, health: Health) -> DeploymentBody {
    DeploymentBody {
        connection_strings: None,
        ..deployment(broker, view, health)
    }
}

/// The template of a recipe.
fn template_of(kind: OperationKind) -> &'static str {
    match kind {
        OperationKind::Deprovision => "Recipes::Deployment::Deprovision",
        OperationKind::Backup | OperationKind::FinalBackup => "Recipes::Deployment::Backup",
        OperationKind::Prune => "Recipes::Deployment::Prune",
        _ => "Recipes::Deployment::Run",
    }
}

/// A recipe: an operation, in Compose's words.
pub fn recipe(of: &DeploymentView, task: &Task, now: DateTime<Utc>) -> RecipeBody {
    let operation = &task.operation;
    let status = match operation.state {
        _ if operation.halted => RecipeStatus::Failed,
        OperationState::Queued => RecipeStatus::Waiting,
        OperationState::Running => RecipeStatus::Running,
        OperationState::Succeeded => RecipeStatus::Complete,
        OperationState::Failed | OperationState::Stuck | OperationState::Abandoned => {
            RecipeStatus::Failed
        }
    };
    RecipeBody {
        id: operation.id.clone(),
        account_id: account_id(&of.instance.tenant),
        deployment_id: of.deployment.id.clone(),
        parent_id: None,
        template: template_of(operation.kind),
        name: operation.words().into_owned(),
        status,
        status_detail: status_of(operation, now).description,
        operations_complete: operation.progress.steps_done,
        operations_total: operation.progress.steps_total,
        bytes_complete: operation.progress.bytes_done,
        bytes_total: operation.progress.bytes_total,
        backup_id: operation.backup.clone(),
        source: operation.origin.as_str().to_owned(),
        user: task.user.clone(),
        created_at: time(operation.created_at),
        updated_at: time(operation.updated_at),
        prefix_restore: operation
            .prefix_restore
            .as_ref()
            .map(PrefixRestoreBody::from),
        embedded: NoRecipes { recipes: [] },
    }
}

/// The sizes of a deployment, which may have so many units, and of whose members this was seen.
pub fn scalings(
    deployment: &Deployment,
    units_max: u32,
    seen: Option<&Observation>,
) -> ScalingsBody {
    const MEGABYTE: u64 = 1024 * 1024;
    let unit = UNIT_BYTES / MEGABYTE;
    // A database that fills its units does not fit them.
    let database_bytes = seen.and_then(Observation::database_bytes);
    let used = database_bytes.map_or(0, |bytes| bytes / UNIT_BYTES + 1);
    ScalingsBody {
        allocated_units: deployment.units,
        used_units: used,
        starting_units: UNITS_DEFAULT,
        allocated_bytes: database_bytes,
        used_bytes: seen.and_then(Observation::used_bytes),
        observed_at: seen.map(|seen| time(seen.observed_at)),
        minimum_units: used.max(u64::from(UNITS_DEFAULT)),
        maximum_units: units_max,
        memory_per_unit_in_mb: 0,
        storage_per_unit_in_mb: unit,
        unit_size_in_mb: unit,
        unit_type: "data",
    }
}

/// What giving unused storage back would do.
pub fn defragmentation(
    storage: Option<Storage>,
    by_night: bool,
    refusal: Option<String>,
) -> DefragmentationBody {
    DefragmentationBody {
        allocated_bytes: storage.map(|storage| storage.allocated),
        used_bytes: storage.and_then(|storage| storage.used),
        unused_bytes: storage.and_then(Storage::unused),
        stall_seconds: storage.map(|storage| storage.stall().as_secs()),
        by_night,
        refusal,
    }
}

/// A way to another version.
pub fn transition(
    deployment: &Deployment,
    transition: &Transition,
    faults: &[KnownFault],
) -> TransitionBody {
    TransitionBody {
        advisories: faults.iter().map(AdvisoryBody::of).collect(),
        application: deployment.engine.clone(),
        method: transition.method.as_str(),
        from_version: transition.from,
        to_version: transition.to,
    }
}
