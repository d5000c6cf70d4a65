//! Load balancers of members. Each is a service: the cluster's provider makes a load balancer of it, and writes down
//! what it is reached by.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::Service;

use super::{
    cluster::{Cluster, Result, until},
    objects,
    settings::Exposure,
};
use crate::{
    model::{address::Address, ids::DeploymentId, limits::kubernetes::LOAD_BALANCER_WAIT},
    provisioner::ProvisionerError,
};

/// Has a load balancer made for a member, where its addresses need one, and adds its host to them.
pub(super) async fn with_host(
    cluster: &Arc<Cluster>,
    deployment: &DeploymentId,
    member: &str,
    mut addresses: BTreeMap<String, Address>,
) -> Result<BTreeMap<String, Address>> {
    let service = objects::balancer(&cluster.settings, deployment, member, &addresses);
    let Some(service) = service else {
        return Ok(addresses);
    };
    let make = |cluster: Arc<Cluster>| async move { cluster.apply::<Service>(&service).await };
    cluster.change(deployment, Some(member), make).await?;
    let name = objects::balancer_name(deployment, member);
    let found = until(LOAD_BALANCER_WAIT, || async {
        let found: Option<Service> = cluster.client.find(&name).await?;
        Ok(found.as_ref().and_then(host_of))
    });
    let host = found.await?.ok_or_else(|| ProvisionerError::NotStarted {
        what: format!("the load balancer of member {member}"),
        told: "the cluster's provider has given it no address",
        why: format!("service {name}"),
    })?;
    let unnamed = addresses.values_mut().filter(|of| of.host.is_empty());
    unnamed.for_each(|of| host.clone_into(&mut of.host));
    Ok(addresses)
}

/// What a member's load balancer is reached by; none where it has none, or it has no address yet.
pub(super) async fn host(
    cluster: &Cluster,
    deployment: &DeploymentId,
    member: &str,
) -> Result<Option<String>> {
    if cluster.settings.exposure != Exposure::LoadBalancer {
        return Ok(None);
    }
    let name = objects::balancer_name(deployment, member);
    let services = cluster.members(deployment).await?.services;
    let mut its = services
        .iter()
        .filter(|of| of.metadata.name.as_ref() == Some(&name));
    Ok(its.find_map(host_of))
}

/// An address, or a name where the provider gives names.
fn host_of(service: &Service) -> Option<String> {
    let balancer = service.status.as_ref()?.load_balancer.as_ref()?;
    let mut all = balancer.ingress.iter().flatten();
    all.find_map(|ingress| ingress.ip.clone().or_else(|| ingress.hostname.clone()))
}
