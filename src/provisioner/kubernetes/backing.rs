//! Clusters of Kubernetes: what their settings say, and opening them.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    KubernetesProvisioner, checks,
    client::Client,
    lease::Seen,
    place::OWN_PORTS,
    settings::{Balancers, BrokerPlace, Exposure, Settings, Spread, TenantNamespaces},
    tenants,
};
use crate::{
    model::{
        engine::Profile,
        exposure::Exposure as ClusterExposure,
        placement::{Cluster, PortRange},
        reach::{Reach, check_host},
        version::Version,
    },
    provisioner::{
        Backing, ClusterKind, Defaults, MachinePorts, Opened, ProvisionerError, SharedBacking,
    },
};

/// Clusters of Kubernetes.
pub const KIND: ClusterKind = ClusterKind {
    name: "kubernetes",
    fields: &[
        "kubeconfig",
        "context",
        "namespace",
        "tenant_namespaces",
        "storage_class",
        "tools_image",
        "images",
        "node_host",
        "node_ports",
        "exposure",
        "load_balancer_class",
        "load_balancer_annotations",
        "spread",
        "node_selector",
        "tolerations",
        "priority_class",
    ],
    read,
};

/// Longest name of a namespace, and longest value of a label.
const LABEL_BYTES_MAX: usize = 63;
/// What members have no bounds of. A namespace with a quota of it takes no pod that says none.
const NO_QUOTAS: [&str; 4] = [
    "limits.cpu",
    "ephemeral-storage",
    "requests.ephemeral-storage",
    "limits.ephemeral-storage",
];
/// Ports that nodes have for services, where nobody says otherwise.
const NODE_PORTS: PortRange = PortRange {
    first: 30_000,
    last: 32_767,
};

/// The settings as they are written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    kubeconfig: Option<PathBuf>,
    context: Option<String>,
    namespace: String,
    tenant_namespaces: Option<TenantNamespaces>,
    storage_class: Option<String>,
    tools_image: String,
    images: BTreeMap<String, BTreeMap<Version, String>>,
    node_host: Option<String>,
    node_ports: Option<PortRange>,
    exposure: Option<Exposure>,
    load_balancer_class: Option<String>,
    load_balancer_annotations: Option<BTreeMap<String, String>>,
    spread: Option<Spread>,
    #[serde(default)]
    node_selector: BTreeMap<String, String>,
    #[serde(default)]
    tolerations: Vec<Value>,
    priority_class: Option<String>,
}

/// A cluster, with all that it takes to open it.
#[derive(Debug)]
struct KubernetesBacking {
    kubeconfig: Option<PathBuf>,
    context: Option<String>,
    settings: Settings,
    /// What was seen of the broker that looks after it.
    seen: Seen,
}

fn read(id: &str, fields: Map<String, Value>, _: &Defaults<'_>) -> Result<SharedBacking, String> {
    let told = |reason: &dyn std::fmt::Display| format!("cluster {id:?}: {reason}");
    let entry: Entry =
        serde_json::from_value(Value::Object(fields)).map_err(|error| told(&error))?;
    if !is_label(id) {
        return Err(told(
            &"an id that labels can have is at most 63 letters, digits, - and _, with a letter or a \
              digit at both ends",
        ));
    }
    if !is_label(&entry.namespace) || entry.namespace.contains('_') {
        let name = &entry.namespace;
        return Err(told(&format!("namespace {name:?} is no name of one")));
    }
    if let Some(tenants) = &entry.tenant_namespaces {
        check_tenants(&entry.namespace, tenants).map_err(|reason| told(&reason))?;
    }
    if entry.kubeconfig.is_none() && entry.context.is_some() {
        return Err(told(&"context is of a kubeconfig, and none is named"));
    }
    let images = entry.images.values().flat_map(BTreeMap::values);
    if images.chain([&entry.tools_image]).any(|of| !is_image(of)) {
        return Err(told(&"an image is empty or has blanks in it"));
    }
    let broker = match &entry.node_host {
        None => BrokerPlace::Inside,
        Some(host) => BrokerPlace::Outside {
            node_host: check_host(host).map_err(|error| told(&format!("node_host: {error}")))?,
        },
    };
    if entry.kubeconfig.is_none() && broker != BrokerPlace::Inside {
        return Err(told(
            &"node_host is for a broker that is not in the cluster, and that one needs a kubeconfig",
        ));
    }
    check_exposure(&entry).map_err(|reason| told(&reason))?;
    Ok(Arc::new(KubernetesBacking {
        kubeconfig: entry.kubeconfig,
        context: entry.context,
        settings: Settings {
            cluster: id.to_owned(),
            namespace: entry.namespace,
            tenants: entry.tenant_namespaces,
            tools_image: entry.tools_image,
            images: entry.images,
            withheld: Vec::new(),
            storage_class: entry.storage_class,
            broker,
            exposure: entry.exposure.unwrap_or(Exposure::Inside),
            balancers: Balancers {
                class: entry.load_balancer_class,
                annotations: entry.load_balancer_annotations.unwrap_or_default(),
            },
            node_ports: entry.node_ports.unwrap_or(NODE_PORTS),
            spread: entry.spread.unwrap_or(Spread::Required),
            node_selector: entry.node_selector,
            tolerations: entry.tolerations,
            priority_class: entry.priority_class,
        },
        seen: Seen::default(),
    }))
}

/// Fails where tenants cannot have namespaces as is said.
fn check_tenants(namespace: &str, tenants: &TenantNamespaces) -> Result<(), String> {
    let longest = LABEL_BYTES_MAX - tenants::NAME_BYTES_MORE;
    if namespace.len() > longest {
        return Err(format!(
            "namespace {namespace:?} has more than {longest} characters, and those of tenants have longer \
             names"
        ));
    }
    let mut quota = tenants.quota.iter();
    if quota
        .clone()
        .any(|(name, amount)| name.is_empty() || amount.is_empty())
    {
        return Err("the quota of tenant_namespaces has an empty name or amount".to_owned());
    }
    match quota.find(|(name, _)| NO_QUOTAS.contains(&name.as_str())) {
        Some((name, _)) => Err(format!(
            "members say no {name}, and a namespace with a quota of it would take none of them"
        )),
        None => Ok(()),
    }
}

/// Fails where members cannot be shown as is said.
fn check_exposure(entry: &Entry) -> Result<(), String> {
    let (first, last) = (*OWN_PORTS.start(), *OWN_PORTS.end());
    let ports = entry.node_ports.unwrap_or(NODE_PORTS);
    if ports.first <= last && ports.last >= first {
        return Err(format!(
            "node_ports has some of {first}-{last}, which members have in networks of their own"
        ));
    }
    let tells = entry.load_balancer_class.is_some() || entry.load_balancer_annotations.is_some();
    match entry.exposure {
        Some(Exposure::LoadBalancer) => Ok(()),
        _ if tells => Err(
            "load_balancer_class and load_balancer_annotations are for the exposure load_balancer"
                .to_owned(),
        ),
        _ => Ok(()),
    }
}

/// Whether a label can have it as its value.
fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let ends = [text.as_bytes().first(), text.as_bytes().last()];
    text.len() <= LABEL_BYTES_MAX
        && text.bytes().all(inner)
        && ends
            .iter()
            .all(|end| end.is_some_and(u8::is_ascii_alphanumeric))
}

fn is_image(text: &str) -> bool {
    !text.is_empty() && !text.contains(char::is_whitespace)
}

#[async_trait]
impl Backing for KubernetesBacking {
    fn folder(&self) -> Option<&Path> {
        None
    }

    fn ports(&self) -> Option<MachinePorts> {
        None
    }

    fn engines_from(&self) -> String {
        format!("images of the cluster {}", self.settings.cluster)
    }

    fn named(
        &self,
        cluster: &Cluster,
        engines: &[&'static Profile],
    ) -> BTreeMap<String, Vec<Version>> {
        let mut settings = self.settings.clone();
        // What is wrong with them, opening it says.
        if withhold(&mut settings, engines, &cluster.exposure).is_err() {
            return BTreeMap::new();
        }
        let of = |engine: &String| (engine.clone(), settings.versions(engine));
        settings.images.keys().map(of).collect()
    }

    async fn open(
        &self,
        cluster: &Cluster,
        engines: &[&'static Profile],
    ) -> Result<Opened, ProvisionerError> {
        let unfit = |why| ProvisionerError::Unfit { why };
        check_reach(&cluster.exposure.reach, &self.settings).map_err(unfit)?;
        let mut settings = self.settings.clone();
        let kubeconfig = self.kubeconfig.as_deref();
        let context = self.context.as_deref();
        let client = Client::open(kubeconfig, context, &settings.namespace).await;
        let client = client.map_err(unfit)?;
        checks::check(&client, &settings).await?;
        withhold(&mut settings, engines, &cluster.exposure).map_err(unfit)?;
        let lease = self.seen.take(&client, &settings.cluster).await?;
        let provisioner = KubernetesProvisioner::over(client, settings, Some(lease)).await?;
        Ok(Opened {
            adopted: provisioner.running().await?,
            provisioner,
        })
    }
}

/// Fails where applications cannot be given what the settings say.
fn check_reach(reach: &Reach, settings: &Settings) -> Result<(), String> {
    let is_address = reach.host.parse::<IpAddr>().is_ok();
    if settings.exposure == Exposure::Inside && !reach.is_loopback() && is_address {
        return Err(format!(
            "host {} is an address; where exposure is inside, it is the zone in which services have \
             their names, as in: svc.cluster.local",
            reach.host
        ));
    }
    Ok(())
}

/// Withholds versions that are not offered, and those that let strangers in, unless the operator names them:
/// whether a cluster enforces who gets to its pods, and who else gets to its nodes, nobody tells the broker.
fn withhold(
    settings: &mut Settings,
    engines: &[&'static Profile],
    exposure: &ClusterExposure,
) -> Result<(), String> {
    for (name, versions) in &settings.images {
        let engine = engines.iter().find(|engine| engine.name == name);
        let engine = engine.ok_or_else(|| format!("there is no engine {name:?}"))?;
        for version in versions.keys() {
            let mut named = exposure.versions.iter();
            let is_named = named.any(|of| of.engine == *name && of.version == *version);
            let why = if !(engine.binaries.offered)(version) {
                "is not offered"
            } else if engine.lets_strangers_in(*version) && !is_named {
                "lets strangers in and is not named in exposed_versions"
            } else {
                continue;
            };
            log::warn!(cluster = settings.cluster.as_str();
                "{name} {version} {why}: no new database gets it here");
            settings.withheld.push((name.clone(), *version));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn understood(id: &str, entry: Value) -> Result<SharedBacking, String> {
        let Value::Object(fields) = entry else {
            panic!("no object");
        };
        let defaults = Defaults {
            data_dir: Path::new("/data"),
            engines_dir: Path::new("/engines"),
            ports: "20000-29999".parse().expect("ports"),
        };
        read(id, fields, &defaults)
    }

    fn entry() -> Value {
        json!({
            "namespace": "databases",
            "tools_image": "registry.example/tools:1",
            "images": { "sample": { "3.4.1": "registry.example/sample:3.4.1" } },
        })
    }

    fn with(name: &str, value: Value) -> Value {
        let mut entry = entry();
        entry[name] = value;
        entry
    }

    fn with_tenants(namespace: &str, tenants: Value) -> Value {
        let mut entry = with("namespace", json!(namespace));
        entry["tenant_namespaces"] = tenants;
        entry
    }

    #[test]
    fn what_is_said_is_understood() {
        let backing = understood("blue", entry()).expect("a cluster");
        assert!(backing.folder().is_none() && backing.ports().is_none());
        let longest = with_tenants(&"d".repeat(50), json!({}));
        understood("blue", longest).expect("a name that is short enough");
        assert_eq!(backing.engines_from(), "images of the cluster blue");
        let outside = json!({
            "namespace": "databases", "tools_image": "t", "images": {},
            "kubeconfig": "/k", "context": "c", "node_host": "NODE.example",
            "node_ports": "30000-30099", "exposure": "node_port", "spread": "preferred",
            "storage_class": "fast", "node_selector": { "disk": "ssd" },
            "tolerations": [{ "key": "databases", "operator": "Exists" }],
            "priority_class": "important", "tenant_namespaces": { "quota": { "pods": "20" } },
        });
        let text = format!("{:?}", understood("blue", outside).expect("a cluster"));
        let balanced = json!({
            "namespace": "databases", "tools_image": "t", "images": {}, "exposure": "load_balancer",
            "load_balancer_class": "example.org/inner",
            "load_balancer_annotations": { "example.org/visible": "no" },
        });
        let balanced = format!("{:?}", understood("blue", balanced).expect("a cluster"));
        for word in [
            "LoadBalancer",
            "example.org/inner",
            "\"example.org/visible\": \"no\"",
        ] {
            assert!(balanced.contains(word), "{word}: {balanced}");
        }
        for word in [
            "node.example",
            "NodePort",
            "Preferred",
            "\"fast\"",
            "30099",
            "\"pods\": \"20\"",
        ] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_in_one_line() {
        let mut without_namespace = entry();
        without_namespace
            .as_object_mut()
            .expect("an object")
            .remove("namespace");
        for (id, entry, words) in [
            ("blue", without_namespace, "namespace"),
            ("blue", with("namespace", json!("a_b")), "\"a_b\""),
            ("blue", with("namespace", json!("-a")), "\"-a\""),
            ("-blue", entry(), "labels"),
            ("blue", with("tools_image", json!("")), "image"),
            (
                "blue",
                with("images", json!({ "sample": { "3": "x" } })),
                "3",
            ),
            ("blue", with("context", json!("c")), "kubeconfig"),
            ("blue", with("node_host", json!("n")), "kubeconfig"),
            ("blue", with("exposure", json!("everywhere")), "everywhere"),
            ("blue", with("node_ports", json!("1-2")), "1-2"),
            (
                "blue",
                with("node_ports", json!("9000-10000")),
                "10000-10999",
            ),
            (
                "blue",
                with("load_balancer_class", json!("c")),
                "load_balancer",
            ),
            ("blue", with_tenants("d", json!({ "quotas": {} })), "quotas"),
            (
                "blue",
                with_tenants("d", json!({ "quota": { "limits.cpu": "2" } })),
                "limits.cpu",
            ),
            (
                "blue",
                with_tenants("d", json!({ "quota": { "pods": "" } })),
                "empty",
            ),
            (
                "blue",
                with_tenants(&"d".repeat(51), json!({})),
                "more than 50",
            ),
        ] {
            let reason = understood(id, entry).expect_err(words);
            assert!(reason.contains(words), "{words}: {reason}");
            assert!(reason.contains(id) && !reason.contains('\n'), "{reason}");
        }
    }

    #[test]
    fn versions_that_let_strangers_in_need_the_operator_s_word() {
        use crate::model::engine::tests::ENGINE;

        let all = ["3.4.1", "3.4.2", "3.4.9"].map(|text| text.parse().expect("a version"));
        let image = |version: &Version| (*version, "image".to_owned());
        let images = BTreeMap::from([(ENGINE.name.to_owned(), all.iter().map(image).collect())]);
        let withheld = |named: &[&str]| {
            let mut settings = Settings {
                images: images.clone(),
                ..settings(Exposure::Inside)
            };
            let named = named.iter().map(|text| text.parse().expect("a version"));
            let exposure = ClusterExposure {
                versions: named.collect(),
                ..ClusterExposure::default()
            };
            withhold(&mut settings, &[&ENGINE], &exposure).expect("engines that there are");
            let withheld = settings.withheld.into_iter();
            withheld
                .map(|(_, version)| version.to_string())
                .collect::<Vec<_>>()
        };
        // Applications that get nowhere change nothing of it.
        assert_eq!(withheld(&[]), ["3.4.2", "3.4.9"]);
        assert_eq!(withheld(&["sample 3.4.2"]), ["3.4.9"]);
        let mut unheard = Settings {
            images,
            ..settings(Exposure::Inside)
        };
        let refused = withhold(&mut unheard, &[], &ClusterExposure::default());
        assert!(refused.expect_err("no engine").contains("sample"));
    }

    #[test]
    fn services_have_no_addresses_for_names() {
        let reach = |host: &str| Reach {
            listen: "0.0.0.0".parse().expect("an address"),
            host: host.to_owned(),
        };
        let (inside, by_node) = (settings(Exposure::Inside), settings(Exposure::NodePort));
        assert!(check_reach(&Reach::loopback(), &inside).is_ok());
        assert!(check_reach(&reach("svc.cluster.local"), &inside).is_ok());
        assert!(check_reach(&reach("192.0.2.7"), &by_node).is_ok());
        let reason = check_reach(&reach("192.0.2.7"), &inside).expect_err("an address");
        assert!(reason.contains("svc.cluster.local"), "{reason}");
    }

    fn settings(exposure: Exposure) -> Settings {
        Settings {
            cluster: "blue".to_owned(),
            namespace: "databases".to_owned(),
            tenants: None,
            tools_image: "t".to_owned(),
            images: BTreeMap::new(),
            withheld: Vec::new(),
            storage_class: None,
            broker: BrokerPlace::Inside,
            exposure,
            balancers: Balancers::default(),
            node_ports: NODE_PORTS,
            spread: Spread::Required,
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            priority_class: None,
        }
    }
}
