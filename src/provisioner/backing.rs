//! What is behind a cluster: what its settings say of where its members run, before it is opened.

use std::{collections::BTreeMap, fmt, path::Path, sync::Arc};

use async_trait::async_trait;
use serde_json::{Map, Value};

use super::{ProvisionerError, SharedProvisioner};
use crate::model::{
    engine::Profile,
    placement::{Cluster, PortRange},
    version::Version,
};

/// A kind of clusters. Each reads what is its own in the settings of one.
#[derive(Debug)]
pub struct ClusterKind {
    /// Its name, the value of the field `kind` in the file of clusters.
    pub name: &'static str,
    /// The fields that clusters of this kind may have beside those that all have.
    pub fields: &'static [&'static str],
    /// Reads them. What is wrong is told in one line.
    pub read: ReadFields,
}

/// Reads the fields that are a kind's own, of the cluster with that id.
pub type ReadFields = fn(&str, Map<String, Value>, &Defaults<'_>) -> Result<SharedBacking, String>;

/// What clusters have that say nothing else.
#[derive(Debug, Clone, Copy)]
pub struct Defaults<'a> {
    /// The folder for everything that the broker keeps.
    pub data_dir: &'a Path,
    /// The folder of the engines' binaries.
    pub engines_dir: &'a Path,
    /// TCP ports of this machine for members.
    pub ports: PortRange,
}

/// Ports of this machine that members of a cluster get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachinePorts {
    /// The ports.
    pub range: PortRange,
    /// Whether the cluster shares them with all others that name none of their own.
    pub is_shared: bool,
}

/// What is behind a cluster. Nothing is begun before it is opened.
#[async_trait]
pub trait Backing: fmt::Debug + Send + Sync {
    /// The folder of this machine that is the cluster's alone; none where it has none.
    fn folder(&self) -> Option<&Path>;

    /// The ports of this machine that its members get; none where they get none.
    fn ports(&self) -> Option<MachinePorts>;

    /// Where the programs of its engines are looked for, for people.
    fn engines_from(&self) -> String;

    /// What `cluster`, which this is behind, has by its settings alone, by engine; nothing where that is looked for on a
    /// machine.
    fn named(
        &self,
        _cluster: &Cluster,
        _engines: &[&'static Profile],
    ) -> BTreeMap<String, Vec<Version>> {
        BTreeMap::new()
    }

    /// Opens `cluster`, which this is behind: members that should run do from now on.
    async fn open(
        &self,
        cluster: &Cluster,
        engines: &[&'static Profile],
    ) -> Result<Opened, ProvisionerError>;
}

/// What is behind a cluster, shared.
pub type SharedBacking = Arc<dyn Backing>;

/// A cluster that was opened.
pub struct Opened {
    /// What runs its members.
    pub provisioner: SharedProvisioner,
    /// How many of them ran already.
    pub adopted: usize,
}
