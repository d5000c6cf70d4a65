//! The bodies of the Compose API: plain objects, lists under `_embedded`.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use crate::{
    broker::{DeploymentView, backup_name, status_of},
    model::{
        backup::{Backup, BackupState},
        deployment::Deployment,
        limits::{UNIT_BYTES, UNITS_DEFAULT, UNITS_MAX},
        operation::{Operation, OperationKind, OperationState},
        retention,
        tenant::Tenant,
    },
    seal::fingerprint,
};

/// Compose names owners by 24 hexadecimal digits: these are made of the tenant's own names.
fn account_id(tenant: &Tenant) -> String {
    let names = format!(
        "{}\0{}\0{}",
        tenant.platform, tenant.organization, tenant.space
    );
    fingerprint(&names)[..24].to_owned()
}

fn deployment_url(public_url: &str, deployment: &Deployment) -> String {
    format!(
        "{public_url}/api/2016-07/instances/{}/deployments/{}",
        deployment.instance.in_path(),
        deployment.id
    )
}

/// Times as the original has them: RFC 3339 in UTC, to the millisecond.
fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Where a backup stands in the API.
pub fn backup_url(public_url: &str, deployment: &Deployment, backup: &Backup) -> String {
    format!(
        "{}/backups/{}",
        deployment_url(public_url, deployment),
        backup.id
    )
}

/// A deployment. Passwords belong to bindings and are not shown.
pub fn deployment(public_url: &str, view: &DeploymentView) -> Value {
    let deployment = &view.deployment;
    let url = deployment_url(public_url, deployment);
    let endpoints = deployment.client_urls();
    let asked = &view.instance.request.parameters;
    let chosen = ["cluster_id", "cluster_service_instance_id"]
        .iter()
        .any(|p| asked.get(p).is_some());
    let link = |name: &str| json!({ "href": format!("{url}/{name}{{?embed}}"), "templated": true });
    json!({
        "id": deployment.id,
        "account_id": account_id(&view.instance.tenant),
        "name": deployment.name(),
        "instance_id": view.instance.id,
        "instance_name": view.instance.name,
        "type": deployment.engine,
        "version": deployment.version,
        "created_at": time(view.instance.created_at),
        "notes": "",
        "customer_billing_code": "",
        // Empty on plans that do not let one choose, as the original has it.
        "cluster_id": if chosen { deployment.cluster.as_str() } else { "" },
        "units": deployment.units,
        "ca_certificate_base64": view.ca_certificate.as_ref().map(|pem| BASE64.encode(pem)),
        "connection_strings": {
            "direct": endpoints,
            // Command lines carry a password: they are in the credentials of bindings.
            "cli": [],
            "maps": [],
            "misc": {},
            "ssh": [],
            "health": [],
            "admin": [],
        },
        "provision_recipe_id": view.provision,
        "_links": {
            "backups": link("backups"),
            "recipes": link("recipes"),
            "scalings": link("scalings"),
            "versions": link("versions"),
        },
    })
}

/// The template and the name of a recipe.
pub fn recipe_words(operation: &Operation) -> (&'static str, Cow<'static, str>) {
    let (template, name) = match operation.kind {
        OperationKind::Update => return ("Recipes::Deployment::Run", name_of_update(operation)),
        OperationKind::Provision => ("Recipes::Deployment::Run", "Provision"),
        OperationKind::Restore => ("Recipes::Deployment::Run", "Restore"),
        OperationKind::Deprovision => ("Recipes::Deployment::Deprovision", "Deprovision"),
        OperationKind::Bind => ("Recipes::Deployment::Run", "Bind"),
        OperationKind::Unbind => ("Recipes::Deployment::Run", "Unbind"),
        OperationKind::Backup => ("Recipes::Deployment::Backup", "Backup"),
        OperationKind::Prune => ("Recipes::Deployment::Prune", "Remove expired backups"),
    };
    (template, name.into())
}

/// A recipe: an operation, in Compose's words.
pub fn recipe(of: &DeploymentView, operation: &Operation) -> Value {
    let status = match operation.state {
        _ if operation.halted => "failed",
        OperationState::Queued => "waiting",
        OperationState::Running => "running",
        OperationState::Succeeded => "complete",
        OperationState::Failed | OperationState::Stuck => "failed",
    };
    let (template, name) = recipe_words(operation);
    json!({
        "id": operation.id,
        "account_id": account_id(&of.instance.tenant),
        "deployment_id": of.deployment.id,
        "parent_id": null,
        "template": template,
        "name": name,
        "status": status,
        "status_detail": status_of(operation).description,
        "operations_complete": operation.progress.steps_done,
        "operations_total": operation.progress.steps_total,
        "bytes_complete": operation.progress.bytes_done,
        "bytes_total": operation.progress.bytes_total,
        "backup_id": operation.backup,
        "source": operation.origin,
        "created_at": time(operation.created_at),
        "updated_at": time(operation.updated_at),
        "_embedded": { "recipes": [] },
    })
}

/// What an update does, in the words of the original where these are known.
fn name_of_update(operation: &Operation) -> Cow<'static, str> {
    let Some(change) = &operation.change else {
        return "Update".into();
    };
    let goal = change.goal();
    let (version, units) = (goal.version, goal.units);
    let name = match (change.upgrades(), change.from.units == units) {
        (false, _) => format!("Scale deployment to {units} units"),
        (true, true) => format!("Upgrade deployment to version {version}"),
        (true, false) => {
            format!("Upgrade deployment to version {version} and scale it to {units} units")
        }
    };
    name.into()
}

/// The sizes of a deployment. `database_bytes`: what its database has on each member, if known.
pub fn scalings(deployment: &Deployment, database_bytes: Option<u64>) -> Value {
    const MEGABYTE: u64 = 1024 * 1024;
    let unit = UNIT_BYTES / MEGABYTE;
    // A database that fills its units does not fit them.
    let used = database_bytes.map_or(0, |bytes| bytes / UNIT_BYTES + 1);
    json!({
        "allocated_units": deployment.units,
        "used_units": used,
        "starting_units": UNITS_DEFAULT,
        "minimum_units": used.max(u64::from(UNITS_DEFAULT)),
        "maximum_units": UNITS_MAX,
        // Members have what memory they need: it is not measured out.
        "memory_per_unit_in_mb": 0,
        "storage_per_unit_in_mb": unit,
        "unit_size_in_mb": unit,
        "unit_type": "data",
    })
}

/// A backup. Beyond the original's fields: what is in it, and how large it is.
pub fn backup(public_url: &str, deployment: &Deployment, backup: &Backup) -> Value {
    let usable = backup.state == BackupState::Complete;
    let manifest = backup.manifest.as_ref();
    json!({
        "id": backup.id,
        "deployment_id": backup.deployment,
        "name": backup_name(deployment, backup),
        "type": backup.kind.as_str(),
        "status": backup.state.as_str(),
        "status_detail": backup.failure,
        "is_downloadable": usable,
        "is_restorable": usable,
        // Clients know this as the time at which the backup was complete.
        "created_at": time(backup.finished_at.unwrap_or(backup.created_at)),
        "requested_at": time(backup.created_at),
        "period": backup.period.map(|period| period.to_string()),
        "expires_at": retention::expires_at(backup).map(time),
        "recipe_id": backup.operation,
        "version": manifest.map(|m| m.version),
        "size_bytes": manifest.map(|m| m.stored.snapshot_bytes),
        "stored_bytes": manifest.map(|m| m.stored.object_bytes),
        "sha256": manifest.map(|m| &m.stored.snapshot_sha256),
        "revision": manifest.map(|m| m.content.revision),
        "keys": manifest.map(|m| m.content.keys),
        "_links": { "self": { "href": backup_url(public_url, deployment, backup) } },
    })
}
