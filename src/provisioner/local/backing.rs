//! Clusters on this machine: what their settings say, and opening them.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{LocalProvisioner, not_always_free};
use crate::{
    disk,
    model::{
        engine::Profile,
        placement::{Cluster, PortRange},
    },
    provisioner::{
        Backing, ClusterKind, Defaults, MachinePorts, Opened, ProvisionerError, SharedBacking,
    },
};

/// Clusters on this machine.
pub const KIND: ClusterKind = ClusterKind {
    name: "local",
    fields: &["port_range", "data_dir", "engines_dir"],
    read,
};

/// The settings as they are written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    port_range: Option<PortRange>,
    data_dir: Option<PathBuf>,
    engines_dir: Option<PathBuf>,
}

/// A cluster on this machine, with all that it takes to open it.
#[derive(Debug)]
struct LocalBacking {
    /// The folder of its deployments, by its one true path.
    folder: PathBuf,
    /// The folder of the engines' binaries on it.
    engines_dir: PathBuf,
    /// TCP ports for members on it.
    ports: MachinePorts,
}

fn read(
    id: &str,
    fields: Map<String, Value>,
    defaults: &Defaults<'_>,
) -> Result<SharedBacking, String> {
    let entry: Entry = serde_json::from_value(Value::Object(fields))
        .map_err(|error| format!("cluster {id:?}: {error}"))?;
    let folder = match entry.data_dir {
        Some(folder) => folder,
        None => defaults.data_dir.join("clusters").join(id),
    };
    let folder = disk::full_path(&folder)
        .map_err(|error| format!("data_dir {} of cluster {id:?}: {error}", folder.display()))?;
    let engines_dir = entry.engines_dir;
    Ok(Arc::new(LocalBacking {
        folder,
        engines_dir: engines_dir.unwrap_or_else(|| defaults.engines_dir.to_owned()),
        ports: MachinePorts {
            range: entry.port_range.unwrap_or(defaults.ports),
            is_shared: entry.port_range.is_none(),
        },
    }))
}

#[async_trait]
impl Backing for LocalBacking {
    fn folder(&self) -> Option<&Path> {
        Some(&self.folder)
    }

    fn ports(&self) -> Option<MachinePorts> {
        Some(self.ports)
    }

    fn engines_from(&self) -> String {
        self.engines_dir.display().to_string()
    }

    async fn open(
        &self,
        cluster: &Cluster,
        engines: &[&'static Profile],
    ) -> Result<Opened, ProvisionerError> {
        self.warn_of_ports(cluster);
        let binaries: Vec<_> = engines.iter().map(|engine| engine.binaries).collect();
        let (folder, engines_dir) = (self.folder.clone(), self.engines_dir.clone());
        let ports = self.ports.range;
        let opened = LocalProvisioner::open(folder, engines_dir, &binaries, ports).await?;
        warn_of_listen(cluster);
        Ok(Opened {
            adopted: opened.adopted(),
            provisioner: opened,
        })
    }
}

impl LocalBacking {
    /// Warns of ports that this machine may have given away when a member needs them.
    fn warn_of_ports(&self, cluster: &Cluster) {
        let range = self.ports.range;
        if let Some(ports) = not_always_free(range) {
            log::warn!(cluster = cluster.id.as_str();
                "members get ports of {range}, and this machine opens connections of its own from \
                 {ports}: a member's port may be taken by one when it starts. Give the cluster a range \
                 outside of net.ipv4.ip_local_port_range");
        }
    }
}

/// Warns of an address for members that this machine does not have.
fn warn_of_listen(cluster: &Cluster) {
    let listen = cluster.exposure.reach.listen;
    if let Err(error) = TcpListener::bind((listen, 0)) {
        log::warn!(cluster = cluster.id.as_str();
            "members are to listen on {listen}, where this machine cannot listen: {error}. None starts \
             there until it can");
    }
}
