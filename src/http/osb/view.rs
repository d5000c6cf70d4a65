//! The bodies of OSB.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{ApiMinor, ENDPOINTS_SINCE, METADATA_SINCE};
use crate::{
    broker::{self, FetchedBinding, OperationStatus, StatusState},
    http::openapi::scalars::{DatabaseVersion, OwnId, PlatformId, Time},
    model::{
        binding::{self, Life},
        ids::OperationId,
        version::Version,
    },
};

/// An instance that is as it was asked for.
#[derive(Serialize, ToSchema)]
pub struct InstanceDone {
    /// The instance's page for people.
    pub dashboard_url: String,
    /// What platforms show of it; of a provision, not for suites of versions before 2.16.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub metadata: Option<InstanceMetadata>,
}

/// An instance that is being made or changed.
#[derive(Serialize, ToSchema)]
pub struct InstanceAccepted {
    /// What to ask `last_operation` with.
    #[schema(value_type = OwnId)]
    pub operation: OperationId,
    /// The instance's page for people.
    pub dashboard_url: String,
    /// What it will be; of a provision, not for suites of versions before 2.16.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub metadata: Option<InstanceMetadata>,
}

/// Work that goes on.
#[derive(Serialize, ToSchema)]
pub struct Accepted {
    /// What to ask `last_operation` with.
    #[schema(value_type = OwnId)]
    pub operation: OperationId,
}

/// Done, and there is nothing to say of it.
#[derive(Serialize, ToSchema)]
pub struct Done {}

/// An instance.
#[derive(Serialize, ToSchema)]
pub struct Instance {
    /// Its page for people.
    pub dashboard_url: String,
    /// Its offering.
    pub service_id: String,
    /// Its plan.
    pub plan_id: String,
    /// Its parameters, as they were sent; a `db_version` among them is the one that runs.
    #[schema(value_type = Object)]
    pub parameters: Value,
    /// For platforms of 2.16 and newer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub maintenance_info: Option<MaintenanceVersion>,
    /// What platforms show of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub metadata: Option<InstanceMetadata>,
}

/// What platforms show of an instance beside its name.
#[derive(Serialize, ToSchema)]
pub struct InstanceMetadata {
    labels: InstanceLabels,
    /// Always empty: these would ask the platform to do something.
    attributes: Map<String, Value>,
}

/// What an instance is, as texts.
#[derive(Serialize, ToSchema)]
struct InstanceLabels {
    /// The kind of database.
    engine: String,
    /// Its version.
    #[schema(value_type = DatabaseVersion)]
    version: Version,
    /// Its size.
    units: String,
}

impl InstanceMetadata {
    /// That of an instance.
    pub fn of(labels: broker::InstanceLabels) -> Self {
        Self {
            labels: InstanceLabels {
                engine: labels.engine,
                version: labels.version,
                units: labels.units.to_string(),
            },
            attributes: Map::new(),
        }
    }
}

/// OSB's `maintenance_info`.
#[derive(Serialize, ToSchema)]
pub struct MaintenanceVersion {
    /// The version of the database that the instance has.
    #[schema(value_type = DatabaseVersion)]
    pub version: Version,
}

/// A binding.
#[derive(Serialize, ToSchema)]
pub struct Binding {
    /// What an application connects with.
    #[schema(value_type = Credentials)]
    credentials: Value,
    /// Where an application must be able to connect to; for platforms of 2.16 and newer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    endpoints: Option<Vec<Endpoint>>,
    /// When the binding ends, if it ends by itself; for platforms of 2.16 and newer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    metadata: Option<BindingMetadata>,
}

/// A binding that was asked for.
#[derive(Serialize, ToSchema)]
pub struct FetchedBindingBody {
    /// The binding.
    #[serde(flatten)]
    pub binding: Binding,
    /// Its parameters, as they were sent; absent when there were none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<Object>)]
    pub parameters: Option<Value>,
}

/// Where an application must be able to connect to.
#[derive(Serialize, ToSchema)]
struct Endpoint {
    /// Host name or address.
    host: String,
    /// Ports, as texts.
    ports: Vec<String>,
    /// `tcp`.
    protocol: String,
}

/// When a binding ends.
#[derive(Serialize, ToSchema)]
struct BindingMetadata {
    /// When it ends.
    #[schema(value_type = Time)]
    expires_at: String,
    /// When a quarter of its life is left.
    #[schema(value_type = Time)]
    renew_before: String,
}

/// What an application connects with. It is kept sealed, as the bind made it.
#[derive(ToSchema)]
#[allow(dead_code, reason = "a type of documents alone")]
struct Credentials {
    /// The kind of database.
    db_type: String,
    /// The deployment's name.
    name: String,
    /// The deployment.
    #[schema(value_type = OwnId)]
    deployment_id: String,
    /// The first member, with user and password.
    uri: String,
    /// The second member, where the database has one.
    #[schema(nullable = false)]
    uri_direct_1: Option<String>,
    /// The third member, where the database has one.
    #[schema(nullable = false)]
    uri_direct_2: Option<String>,
    /// A command line; it expects the authorities' certificates in `ca.pem`.
    uri_cli: String,
    /// The certificates of the deployment's own authorities to trust (PEM, in base64).
    ca_certificate_base64: String,
    /// Always empty.
    maps: Vec<String>,
    /// The Compose API of this instance; not for bindings with a role or a prefix.
    #[schema(nullable = false)]
    instance_administration_api: Option<AdministrationApi>,
}

/// The Compose API of an instance.
#[derive(ToSchema)]
#[allow(dead_code, reason = "a type of documents alone")]
struct AdministrationApi {
    /// Where it is: `<root>/2016-07/instances/<instance_id>`.
    root: String,
    /// The instance.
    #[schema(value_type = PlatformId)]
    instance_id: String,
    /// The deployment.
    #[schema(value_type = OwnId)]
    deployment_id: String,
    /// The bearer token; it signs in at the dashboard too.
    token: String,
    /// The instance's page for people.
    dashboard_url: String,
}

/// The state of an operation.
#[derive(Serialize, ToSchema)]
pub struct LastOperation {
    /// Its state.
    state: LastOperationState,
    /// The same, for people.
    description: String,
    /// Whether the instance can be used; after a deletion or an update that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    instance_usable: Option<bool>,
    /// Whether the same may be asked for again; after an update that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    update_repeatable: Option<bool>,
}

/// OSB's states of an operation.
#[derive(Serialize, ToSchema)]
enum LastOperationState {
    #[serde(rename = "in progress")]
    InProgress,
    #[serde(rename = "succeeded")]
    Succeeded,
    #[serde(rename = "failed")]
    Failed,
}

/// A binding, in the words of the platform's version.
pub fn binding(fetched: &FetchedBinding, minor: ApiMinor) -> Binding {
    let life = fetched.life.filter(|_| minor >= METADATA_SINCE);
    let endpoint = |e: &binding::Endpoint| Endpoint {
        host: e.host.clone(),
        ports: e.ports.clone(),
        protocol: e.protocol.clone(),
    };
    Binding {
        credentials: fetched.credentials.clone(),
        endpoints: (minor >= ENDPOINTS_SINCE)
            .then(|| fetched.endpoints.iter().map(endpoint).collect()),
        metadata: life.map(metadata),
    }
}

fn metadata(life: Life) -> BindingMetadata {
    BindingMetadata {
        expires_at: time(life.expires_at),
        renew_before: time(life.renew_before),
    }
}

/// Times as OSB wants them: `2026-11-22T16:20:00.0Z`.
fn time(at: DateTime<Utc>) -> String {
    format!("{}.0Z", at.format("%Y-%m-%dT%H:%M:%S"))
}

/// The state of an operation, in OSB's words.
pub fn last_operation(status: &OperationStatus) -> LastOperation {
    LastOperation {
        state: match status.state {
            StatusState::InProgress => LastOperationState::InProgress,
            StatusState::Succeeded => LastOperationState::Succeeded,
            StatusState::Failed => LastOperationState::Failed,
        },
        description: status.description.clone(),
        instance_usable: status.instance_usable,
        update_repeatable: status.update_repeatable,
    }
}
