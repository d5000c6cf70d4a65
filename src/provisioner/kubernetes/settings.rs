//! What the settings of a cluster say, as values.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::model::{placement::PortRange, server::Program, version::Version};

/// A cluster, as its settings say.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its id: what the broker makes there carries it.
    pub cluster: String,
    /// The namespace of all members; with namespaces of tenants, the broker's own.
    pub namespace: String,
    /// What is said of the namespace that each tenant has; none: no tenant has one.
    pub tenants: Option<TenantNamespaces>,
    /// The image of containers beside members: it has a busybox that needs no libraries, `/bin/busybox`.
    pub tools_image: String,
    /// The images of each engine, by version.
    pub images: BTreeMap<String, BTreeMap<Version, String>>,
    /// Versions that no new member gets, whose images are for those that run them already.
    pub withheld: Vec<(String, Version)>,
    /// The class of members' volumes; none: the cluster's own.
    pub storage_class: Option<String>,
    /// Where the broker is.
    pub broker: BrokerPlace,
    /// How applications reach members, where they do.
    pub exposure: Exposure,
    /// Their load balancers, where they have some.
    pub balancers: Balancers,
    /// Ports of nodes that are the broker's to give away.
    pub node_ports: PortRange,
    /// How members of one deployment keep apart.
    pub spread: Spread,
    /// Labels of the nodes that members run on.
    pub node_selector: BTreeMap<String, String>,
    /// Taints that members tolerate, as the API server takes them.
    pub tolerations: Vec<Value>,
    /// The class of their priority.
    pub priority_class: Option<String>,
}

/// What the namespaces of tenants are to be like.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantNamespaces {
    /// What each may have at most, by the names that the API server has for it; empty: whatever it takes.
    #[serde(default)]
    pub quota: BTreeMap<String, String>,
}

/// Where the broker is, seen from the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerPlace {
    /// In the cluster: it reaches members by the names of their services.
    Inside,
    /// Elsewhere: it reaches members by ports of the nodes, which it finds by this name or address.
    Outside {
        /// The name or address.
        node_host: String,
    },
}

/// How applications reach members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exposure {
    /// By the names of services. The host of the cluster's settings is the zone that these are in.
    Inside,
    /// By ports of the nodes. The host of the cluster's settings is a name or an address of these.
    NodePort,
    /// By a load balancer for each member. Its host is what the cluster's provider gives it.
    LoadBalancer,
}

/// What the cluster's provider is told of each load balancer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Balancers {
    /// Who of several providers makes it; none: the cluster's own.
    pub class: Option<String>,
    /// What it reads as the service's annotations.
    pub annotations: BTreeMap<String, String>,
}

/// How members of one deployment keep apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spread {
    /// No two run on one node.
    Required,
    /// No two run on one node where there are nodes enough.
    Preferred,
}

impl Settings {
    /// The versions of an engine that new databases may have.
    pub(super) fn versions(&self, engine: &str) -> Vec<Version> {
        let images = self.images.get(engine);
        let all = images.into_iter().flat_map(BTreeMap::keys).copied();
        let is_withheld = |version: &Version| {
            let mut withheld = self.withheld.iter();
            withheld.any(|(of, withheld)| of == engine && withheld == version)
        };
        all.filter(|version| !is_withheld(version)).collect()
    }

    /// The image that has a program; none where it is not named.
    pub(super) fn image(&self, program: &Program) -> Option<&str> {
        let of_engine = self.images.get(program.engine)?;
        of_engine.get(&program.version).map(String::as_str)
    }
}
