//! The namespace of a tenant: what it is made of, making it, and removing it with all that is in it.
//!
//! Nobody gets to anything in it, and nothing in it gets anywhere but to its neighbours and to names, unless a policy
//! beside this one says otherwise; it takes no pod beyond the strictest standard, and no more than its quota. The
//! broker may do nothing there before it has given itself the role of databases.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    core::v1::{Namespace, ResourceQuota},
    networking::v1::NetworkPolicy,
    rbac::v1::RoleBinding,
};
use serde_json::{Value, json};

use super::{
    cluster::{Cluster, Result, until},
    labels,
    settings::Settings,
};
use crate::{
    model::{
        limits::kubernetes::{DESTROY_WAIT, RIGHTS_WAIT},
        tenant::Tenant,
    },
    provisioner::ProvisionerError,
};

/// The role that the broker gives itself in each.
pub(super) const ROLE: &str = "compose-broker-databases";
/// By how much the name of one is longer than that of the broker's own.
pub(super) const NAME_BYTES_MORE: usize = 1 + HASH_BYTES;
const HASH_BYTES: usize = 12;
/// What there is one of in each.
const NAME: &str = "compose-broker";
/// The annotation with the tenant, as the platform names it.
const TENANT: &str = "compose-broker/tenant";
/// Ports that names are asked for at: of services, and of pods that some clusters have behind these.
const NAME_PORTS: [u16; 2] = [53, 5353];

/// The tenant as one text.
fn text(tenant: &Tenant) -> String {
    serde_json::to_string(tenant).expect("texts alone")
}

/// The name of a tenant's namespace.
pub(super) fn name(settings: &Settings, tenant: &Tenant) -> String {
    let hash = &labels::sha256(&text(tenant))[..HASH_BYTES];
    format!("{}-{hash}", settings.namespace)
}

fn namespace(settings: &Settings, tenant: &Tenant) -> Value {
    let mut labels = labels::of_tenant(settings);
    labels["pod-security.kubernetes.io/enforce"] = json!("restricted");
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": settings.namespace,
            "labels": labels,
            "annotations": { TENANT: text(tenant) },
        },
    })
}

fn object(settings: &Settings, version: &str, kind: &str) -> Value {
    json!({
        "apiVersion": version,
        "kind": kind,
        "metadata": {
            "name": NAME,
            "namespace": settings.namespace,
            "labels": labels::of_tenant(settings),
        },
    })
}

/// What gives the broker its role there.
fn binding(settings: &Settings, user: &str) -> Value {
    const GROUP: &str = "rbac.authorization.k8s.io";
    let mut binding = object(settings, "rbac.authorization.k8s.io/v1", "RoleBinding");
    binding["roleRef"] = json!({ "apiGroup": GROUP, "kind": "ClusterRole", "name": ROLE });
    binding["subjects"] = json!([{ "apiGroup": GROUP, "kind": "User", "name": user }]);
    binding
}

/// Who gets to pods of which no other policy says it, and where these get. Members find each other by names.
fn policy(settings: &Settings) -> Value {
    let mut policy = object(settings, "networking.k8s.io/v1", "NetworkPolicy");
    let ports = NAME_PORTS.iter().flat_map(|port| {
        ["UDP", "TCP"].map(|protocol| json!({ "port": port, "protocol": protocol }))
    });
    policy["spec"] = json!({
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [],
        "egress": [
            { "to": [{ "podSelector": {} }] },
            { "ports": ports.collect::<Vec<Value>>() },
        ],
    });
    policy
}

/// What it may have at most.
fn quota(settings: &Settings, hard: &BTreeMap<String, String>) -> Value {
    let mut quota = object(settings, "v1", "ResourceQuota");
    quota["spec"] = json!({ "hard": hard });
    quota
}

/// The namespace that a cluster is seen from, if it is there and the broker's.
async fn find(cluster: &Cluster) -> Result<Option<Namespace>> {
    let name = &cluster.settings.namespace;
    let found: Option<Namespace> = cluster.client.find_in_cluster(name).await?;
    Ok(found.filter(|found| is_ours(found, &cluster.settings)))
}

fn is_ours(namespace: &Namespace, settings: &Settings) -> bool {
    labels::are_ours(&namespace.metadata, settings, "")
}

/// Whether a namespace is the broker's, and this tenant's as far as it says.
fn is_of(namespace: &Namespace, settings: &Settings, tenant: &Tenant) -> bool {
    let annotations = namespace.metadata.annotations.as_ref();
    let whose = annotations.and_then(|all| all.get(TENANT));
    is_ours(namespace, settings) && whose.is_none_or(|whose| *whose == text(tenant))
}

fn is_ending(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_some()
}

/// Makes the namespace that a cluster is seen from, or makes sure of it. One that is just ending is waited for, and
/// one that is not the broker's, or another tenant's, stays as it is.
pub(super) async fn make(cluster: &Cluster, tenant: &Tenant) -> Result<()> {
    let (settings, name) = (&cluster.settings, &cluster.settings.namespace);
    let found = until(DESTROY_WAIT, || async {
        let found: Option<Namespace> = cluster.client.find_in_cluster(name).await?;
        let ends = found.as_ref().is_some_and(is_ending);
        Ok((!ends).then_some(found))
    });
    let found = found.await?.ok_or_else(|| ProvisionerError::NotEnded {
        what: format!("namespace {name}, which is to be made anew,"),
        waited: DESTROY_WAIT,
    })?;
    if found.is_some_and(|found| !is_of(&found, settings, tenant)) {
        return Err(ProvisionerError::NameTaken {
            kind: "Namespace".to_owned(),
            name: name.clone(),
        });
    }
    let object = namespace(settings, tenant);
    Ok(cluster.client.apply_namespace(&object).await?)
}

/// Gives the broker its role in the namespace, and waits until the API server goes by it.
pub(super) async fn enter(cluster: &Cluster, user: &str) -> Result<()> {
    let binding = binding(&cluster.settings, user);
    cluster.apply::<RoleBinding>(&binding).await?;
    let look = || cluster.client.find::<NetworkPolicy>(NAME);
    let entered = until(RIGHTS_WAIT, || async {
        match look().await {
            Err(error) if error.is(403) => Ok(None),
            looked => Ok(Some(looked.map(drop)?)),
        }
    });
    match entered.await? {
        Some(()) => Ok(()),
        None => Ok(look().await.map(drop)?),
    }
}

/// Gives the namespace its bounds.
pub(super) async fn bound(cluster: &Cluster, hard: &BTreeMap<String, String>) -> Result<()> {
    let settings = &cluster.settings;
    cluster.apply::<NetworkPolicy>(&policy(settings)).await?;
    if hard.is_empty() {
        return remove_quota(cluster).await;
    }
    let quota = quota(settings, hard);
    cluster.apply::<ResourceQuota>(&quota).await?;
    // Until it is counted what is there, nothing is taken. Who comes sooner is refused, and comes again.
    until(RIGHTS_WAIT, || async {
        let found: Option<ResourceQuota> = cluster.client.find(NAME).await?;
        let counted = found.and_then(|found| found.status?.hard);
        Ok(counted.map(drop))
    })
    .await
    .map(drop)
}

async fn remove_quota(cluster: &Cluster) -> Result<()> {
    let client = &cluster.client;
    let found: Option<ResourceQuota> = client.find(NAME).await?;
    let is_ours = |of: ResourceQuota| labels::are_ours(&of.metadata, &cluster.settings, "");
    match found.is_some_and(is_ours) {
        true => Ok(client.delete::<ResourceQuota>(NAME, None, None).await?),
        false => Ok(()),
    }
}

/// Whether the namespace that a cluster is seen from is there, and not about to go.
pub(super) async fn is_there(cluster: &Cluster) -> Result<bool> {
    let found = find(cluster).await?;
    Ok(found.is_some_and(|found| !is_ending(&found)))
}

/// Removes the namespace with all that is in it, and waits until it is gone. One that is not the broker's stays.
pub(super) async fn remove(cluster: &Cluster) -> Result<()> {
    let name = &cluster.settings.namespace;
    let gone = until(DESTROY_WAIT, || async {
        let Some(found) = find(cluster).await? else {
            return Ok(Some(()));
        };
        if !is_ending(&found) {
            let uid = found.metadata.uid.as_deref();
            cluster.client.delete_namespace(name, uid).await?;
        }
        Ok(None)
    });
    if gone.await?.is_some() {
        return Ok(());
    }
    let keeps = find(cluster).await?.map(|found| what_keeps(&found));
    Err(ProvisionerError::Remains {
        left: format!("Namespace {name}{}", keeps.unwrap_or_default()),
        waited: DESTROY_WAIT,
    })
}

/// What the API server says of a namespace that does not go.
fn what_keeps(namespace: &Namespace) -> String {
    let status = namespace.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let so = conditions.into_iter().flatten();
    let so = so.filter(|condition| condition.status == "True");
    let words: Vec<&str> = so.filter_map(|of| of.message.as_deref()).collect();
    match words.is_empty() {
        true => String::new(),
        false => format!(" ({})", words.join("; ")),
    }
}

#[cfg(test)]
mod tests;
