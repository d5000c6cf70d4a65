//! A cluster that this broker does not look after yet: another one does, or it has not answered since this one began.
//!
//! Invariant: nothing is done there before this broker has taken it over, and once it has, it keeps it for as
//! long as it runs.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use async_trait::async_trait;

use super::{Duty, FileSeen, ProcessState, Provisioner, ProvisionerError, SharedProvisioner};
use crate::{
    model::{
        address::Address,
        deployment::Member,
        engine::Port,
        ids::DeploymentId,
        logfile::{LogPart, Logfile},
        reach::{Reach, Whereabouts},
        server::{MemberSeen, Server, Task},
        tenant::Resident,
        version::Version,
    },
    stream::{ByteStream, TextStream},
    workbench::Workbench,
};

type Result<T> = std::result::Result<T, ProvisionerError>;

/// A cluster that another broker looks after, or that is silent, until this one takes it over.
pub struct Handover {
    cluster: String,
    /// No other broker is known to look after it: it did not answer.
    is_silent: bool,
    /// Whether this broker may take it over: its members run where this broker does.
    is_here: bool,
    /// What runs its members, from the moment on when this broker does.
    taken: OnceLock<SharedProvisioner>,
    /// What is installed there, as the broker that looks after it says: by engine.
    installed: Mutex<BTreeMap<String, Vec<Version>>>,
}

impl Handover {
    /// The cluster of that id, which this broker may take over where its members run `here`.
    pub fn of(cluster: &str, is_here: bool) -> Arc<Self> {
        Self::new(cluster, is_here, false)
    }

    /// The cluster of that id, which this broker takes over as soon as it answers.
    pub fn of_silent(cluster: &str) -> Arc<Self> {
        Self::new(cluster, true, true)
    }

    fn new(cluster: &str, is_here: bool, is_silent: bool) -> Arc<Self> {
        Arc::new(Self {
            cluster: cluster.to_owned(),
            is_silent,
            is_here,
            taken: OnceLock::new(),
            installed: Mutex::default(),
        })
    }

    /// Its id.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Whether it did not answer when this broker began.
    pub fn is_silent(&self) -> bool {
        self.is_silent
    }

    /// Whether this broker has taken it over.
    pub fn is_taken(&self) -> bool {
        self.taken.get().is_some()
    }

    /// From now on this broker looks after it.
    pub fn take(&self, provisioner: SharedProvisioner) {
        // There is one that takes over, and it does so once.
        let _ = self.taken.set(provisioner);
    }

    /// Keeps what is installed there, by engine.
    pub fn note_installed(&self, versions: BTreeMap<String, Vec<Version>>) {
        *self.installed() = versions;
    }

    fn installed(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Version>>> {
        // Every change is one assignment, so it is whole even after a panic.
        self.installed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn taken(&self) -> Result<&SharedProvisioner> {
        let taken = self.taken.get();
        taken.ok_or_else(|| match self.is_silent {
            true => ProvisionerError::ClusterSilent {
                source: "the cluster has not answered since the broker began".into(),
            },
            false => ProvisionerError::LookedAfterElsewhere {
                cluster: self.cluster.clone(),
            },
        })
    }
}

#[async_trait]
impl Workbench for Handover {
    async fn run(&self, deployment: &DeploymentId, member: &str, task: &Task) -> Result<String> {
        self.taken()?.run(deployment, member, task).await
    }

    async fn stage(
        &self,
        deployment: &DeploymentId,
        name: &str,
        bytes_expected: u64,
        content: ByteStream,
    ) -> Result<()> {
        let taken = self.taken()?;
        taken.stage(deployment, name, bytes_expected, content).await
    }

    async fn stage_file(
        &self,
        deployment: &DeploymentId,
        member: &str,
        path: &str,
        name: &str,
    ) -> Result<()> {
        let taken = self.taken()?;
        taken.stage_file(deployment, member, path, name).await
    }

    async fn unstage(&self, deployment: &DeploymentId, name: &str) -> Result<()> {
        self.taken()?.unstage(deployment, name).await
    }
}

#[async_trait]
impl Provisioner for Handover {
    fn duty(&self) -> Duty {
        match self.taken.get() {
            Some(taken) => taken.duty(),
            None if self.is_here => Duty::StandsBy,
            None => Duty::None,
        }
    }

    fn starts_in_turn(&self) -> bool {
        let taken = self.taken.get();
        taken.is_none_or(|taken| taken.starts_in_turn())
    }

    fn versions(&self, engine: &str) -> Vec<Version> {
        match self.taken.get() {
            Some(taken) => taken.versions(engine),
            None => self.installed().get(engine).cloned().unwrap_or_default(),
        }
    }

    fn hosts(&self, of: Resident<'_>, members: &[String], reach: &Reach) -> Vec<String> {
        match self.taken.get() {
            Some(taken) => taken.hosts(of, members, reach),
            None => Vec::new(),
        }
    }

    async fn place(
        &self,
        of: Resident<'_>,
        members: &[String],
        ports: &[Port],
        reach: &Reach,
        taken: &HashSet<Address>,
    ) -> Result<Vec<BTreeMap<String, Address>>> {
        let own = self.taken()?;
        own.place(of, members, ports, reach, taken).await
    }

    async fn whereabouts(
        &self,
        deployment: &DeploymentId,
        member: &Member,
        ports: &[Port],
        reach: &Reach,
    ) -> Result<Whereabouts> {
        let taken = self.taken()?;
        taken.whereabouts(deployment, member, ports, reach).await
    }

    async fn room_for(&self, of: Resident<'_>, bytes: u64) -> Result<()> {
        self.taken()?.room_for(of, bytes).await
    }

    async fn start(&self, server: &Server) -> Result<()> {
        self.taken()?.start(server).await
    }

    async fn runs_as(&self, server: &Server) -> Result<bool> {
        self.taken()?.runs_as(server).await
    }

    async fn restart(&self, deployment: &DeploymentId, member: &str) -> Result<()> {
        self.taken()?.restart(deployment, member).await
    }

    async fn stop(&self, deployment: &DeploymentId, member: &str, grace: Duration) -> Result<()> {
        self.taken()?.stop(deployment, member, grace).await
    }

    async fn wipe(&self, deployment: &DeploymentId, member: &str) -> Result<()> {
        self.taken()?.wipe(deployment, member).await
    }

    async fn observe(&self, deployment: &DeploymentId) -> Result<Vec<ProcessState>> {
        self.taken()?.observe(deployment).await
    }

    async fn members(&self, deployment: &DeploymentId) -> Result<Vec<MemberSeen>> {
        self.taken()?.members(deployment).await
    }

    async fn files(
        &self,
        deployment: &DeploymentId,
        member: &str,
        folder: &str,
    ) -> Result<Vec<FileSeen>> {
        self.taken()?.files(deployment, member, folder).await
    }

    async fn set_aside(&self, deployment: &DeploymentId, member: &str, aside: &str) -> Result<()> {
        self.taken()?.set_aside(deployment, member, aside).await
    }

    async fn put_back(&self, deployment: &DeploymentId, member: &str, aside: &str) -> Result<()> {
        self.taken()?.put_back(deployment, member, aside).await
    }

    async fn destroy(&self, deployment: &DeploymentId) -> Result<()> {
        self.taken()?.destroy(deployment).await
    }

    async fn logs(&self, deployment: &DeploymentId) -> Result<Vec<Logfile>> {
        self.taken()?.logs(deployment).await
    }

    async fn read_log(
        &self,
        deployment: &DeploymentId,
        member: &str,
        part: LogPart,
        last: Option<u64>,
    ) -> Result<Option<TextStream>> {
        let taken = self.taken()?;
        taken.read_log(deployment, member, part, last).await
    }

    async fn last_words(&self, deployment: &DeploymentId, member: &str) -> Result<Option<String>> {
        self.taken()?.last_words(deployment, member).await
    }

    async fn deployments(&self) -> Result<Vec<DeploymentId>> {
        self.taken()?.deployments().await
    }
}
