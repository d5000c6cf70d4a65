//! Members as pods of a Kubernetes cluster.
//!
//! Each member is a StatefulSet of one pod with a volume, a service and a policy of its own (see
//! `objects`). The cluster keeps pods running, whether a broker is there or not; the broker says what they
//! are, and changes one member at a time. All that is known of a deployment is written down in the cluster:
//! a broker that begins has nothing to adopt.
//!
//! What works on a member's volume runs in pods, too: commands in the container beside the server or, while
//! there is none, in a pod that holds the volume (see `volume`), and tasks of engines each in one of its
//! own (see `task`).
//!
//! All members are in one namespace, or those of each tenant in one of its own (see `residences`).
//!
//! Invariants:
//! - What the broker has not made stays as it is: its objects carry its labels, and one of the same name
//!   without them is refused.
//! - A pod is never deleted without a grace: the API server would forget it while its node still runs it, and
//!   the next one would have the same volume.
//! - Members of a deployment run apart. So while the node of a volume is chosen, none is for another member's.
//! - At most one thing at a time changes a member, or the whole deployment, and runs to its end even if nobody
//!   waits for it any more. Tasks and staging hold the lock only to begin; they end when dropped.

mod backing;
mod balancer;
mod checks;
mod client;
mod cluster;
mod ending;
mod exec;
mod files;
mod labels;
mod lease;
mod looks;
mod member;
mod objects;
mod place;
mod pods;
mod printed;
mod quantity;
mod remains;
mod residences;
mod scripts;
mod seen;
pub mod settings;
mod stage;
mod steady;
mod task;
mod tenants;
mod view;
mod volume;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;

use self::{
    client::Client, cluster::Cluster, lease::Lease, looks::Looks, objects::SERVER,
    residences::Residences, settings::Settings, steady::Steady,
};
use super::{Duty, FileSeen, ProcessState, Provisioner, ProvisionerError, names};
use crate::{
    model::{
        self,
        address::Address,
        engine::Port,
        failure::chain,
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

pub use self::{
    backing::KIND,
    checks::{DATABASES_RIGHTS, RESIDENCES_RIGHTS, RIGHTS, Right, TENANTS_RIGHTS},
};

type Result<T> = std::result::Result<T, ProvisionerError>;

/// Runs members as pods of a cluster.
pub struct KubernetesProvisioner {
    /// The cluster, seen from the broker's own namespace.
    cluster: Arc<Cluster>,
    residences: Arc<Residences>,
    /// Calls that lead to wherever members are.
    watched: Client,
    steady: Steady,
    looks: Looks,
}

impl KubernetesProvisioner {
    /// The cluster that a file of contexts leads to; without one, the cluster that the broker is in. Fails
    /// with a line that says what is wrong.
    pub async fn open(
        kubeconfig: Option<&std::path::Path>,
        context: Option<&str>,
        settings: Settings,
    ) -> std::result::Result<Arc<Self>, String> {
        let client = Client::open(kubeconfig, context, &settings.namespace).await?;
        let opened = Self::over(client, settings, None).await;
        opened.map_err(|error| chain(&error))
    }

    async fn over(
        client: Client,
        settings: Settings,
        lease: Option<Arc<Lease>>,
    ) -> Result<Arc<Self>> {
        let listed = residences::list(&client, &settings).await?;
        // Those of tenants outlive what settings say of them.
        let watched = match settings.tenants.is_none() && listed.is_empty() {
            true => client.clone(),
            false => client.within(""),
        };
        let cluster = Cluster::new(client, &watched, settings, lease);
        let residences = Residences::new(cluster.clone(), listed);
        tokio::spawn(residences.clone().see_to_all());
        Ok(Arc::new(Self {
            cluster,
            residences,
            watched,
            steady: Steady::default(),
            looks: Looks::default(),
        }))
    }

    /// How many members run.
    async fn running(&self) -> Result<usize> {
        let of = labels::members_of_cluster(self.settings());
        let is_member = |pod: &&Pod| {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            seen::runs(pod, SERVER) && self.residences.has(namespace)
        };
        let mut running = 0;
        let count = |some: Vec<Pod>| running += some.iter().filter(is_member).count();
        self.watched.list_some_at_a_time(&of, count).await?;
        Ok(running)
    }

    /// Has a deployment be where it is, or is to be, and returns the cluster as seen from there.
    async fn settled(&self, of: Resident<'_>) -> Result<Arc<Cluster>> {
        if self.settings().tenants.is_none() {
            return self.residences.of(of.deployment).await;
        }
        let (residences, deployment) = (self.residences.clone(), of.deployment.clone());
        let tenant = of.tenant.clone();
        let settle = |_| async move { residences.settle(tenant.owning(&deployment)).await };
        self.cluster.change(of.deployment, None, settle).await
    }

    /// Changes a member, or the whole deployment, while nobody else does.
    async fn change<T, F>(
        &self,
        deployment: &DeploymentId,
        member: Option<&str>,
        change: impl FnOnce(Arc<Cluster>) -> F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.looks.forget(deployment);
        let there = self.residences.of(deployment).await?;
        let changed = there.change(deployment, member, change).await;
        self.looks.forget(deployment);
        changed
    }

    fn settings(&self) -> &Settings {
        &self.cluster.settings
    }

    /// Runs a script that changes the home of a member that is not wanted running.
    async fn change_home(
        &self,
        deployment: &DeploymentId,
        member: &str,
        script: &'static str,
        arg: Option<&str>,
    ) -> Result<()> {
        let (id, name) = (deployment.clone(), member.to_owned());
        let arg = arg.map(str::to_owned);
        let change = |cluster: Arc<Cluster>| async move {
            member::must_be_stopped(&cluster, &id, &name).await?;
            task::end(&cluster, &id, &name).await?;
            let args: Vec<&str> = arg.as_deref().into_iter().collect();
            files::change(&cluster, &id, &name, script, &args).await
        };
        self.change(deployment, Some(member), change).await
    }
}

#[async_trait]
impl Workbench for KubernetesProvisioner {
    async fn run(&self, deployment: &DeploymentId, member: &str, task: &Task) -> Result<String> {
        names::check_member_name(member)?;
        let there = self.residences.of(deployment).await?;
        let ended = task::run(&there, deployment, member, task).await;
        self.looks.forget(deployment);
        ended
    }

    async fn stage(
        &self,
        deployment: &DeploymentId,
        name: &str,
        bytes_expected: u64,
        content: ByteStream,
    ) -> Result<()> {
        names::check_file_name(name)?;
        let there = self.residences.of(deployment).await?;
        stage::put(&there, deployment, name, bytes_expected, content).await
    }

    async fn stage_file(
        &self,
        deployment: &DeploymentId,
        member: &str,
        path: &str,
        name: &str,
    ) -> Result<()> {
        names::check_member_name(member)?;
        names::check_folder_name(path)?;
        names::check_file_name(name)?;
        let there = self.residences.of(deployment).await?;
        files::put_on_stage(&there, deployment, member, path, name).await
    }

    async fn unstage(&self, deployment: &DeploymentId, name: &str) -> Result<()> {
        names::check_file_name(name)?;
        let there = self.residences.of(deployment).await?;
        stage::remove(&there, deployment, name).await
    }
}

#[async_trait]
impl Provisioner for KubernetesProvisioner {
    fn duty(&self) -> Duty {
        match self.cluster.is_held() {
            true => Duty::LooksAfter,
            false => Duty::StandsBy,
        }
    }

    fn starts_in_turn(&self) -> bool {
        // A pod takes seconds to start.
        false
    }

    fn versions(&self, engine: &str) -> Vec<Version> {
        self.settings().versions(engine)
    }

    fn hosts(&self, of: Resident<'_>, members: &[String], reach: &Reach) -> Vec<String> {
        let residences = self.residences.possible(of).into_iter();
        let hosts =
            residences.map(|there| place::hosts(&there.settings, of.deployment, members, reach));
        let all: BTreeSet<String> = hosts.flatten().collect();
        all.into_iter().collect()
    }

    async fn place(
        &self,
        of: Resident<'_>,
        members: &[String],
        ports: &[Port],
        reach: &Reach,
        taken: &HashSet<Address>,
    ) -> Result<Vec<BTreeMap<String, Address>>> {
        let (there, deployment) = (self.settled(of).await?, of.deployment);
        let placed = place::place(&there.settings, deployment, members, ports, reach, taken);
        let placed = placed.ok_or(ProvisionerError::NoFreePort)?;
        let hosted = members
            .iter()
            .zip(placed)
            .map(|(member, addresses)| balancer::with_host(&there, deployment, member, addresses));
        try_join_all(hosted).await
    }

    async fn whereabouts(
        &self,
        deployment: &DeploymentId,
        member: &model::deployment::Member,
        ports: &[Port],
        reach: &Reach,
    ) -> Result<Whereabouts> {
        let there = self.residences.of(deployment).await?;
        let balancer = balancer::host(&there, deployment, &member.name).await?;
        Ok(place::whereabouts(
            &there.settings,
            deployment,
            member,
            ports,
            reach,
            balancer.as_deref(),
        ))
    }

    async fn room_for(&self, of: Resident<'_>, bytes: u64) -> Result<()> {
        self.residences.check_room(of, bytes).await
    }

    async fn start(&self, server: &Server) -> Result<()> {
        names::check_member_name(&server.member)?;
        for file in &server.files {
            names::check_file_name(file.name)?;
        }
        let changed = server.clone();
        let start = |cluster| member::start(cluster, changed);
        self.change(&server.deployment, Some(&server.member), start)
            .await
    }

    async fn runs_as(&self, server: &Server) -> Result<bool> {
        names::check_member_name(&server.member)?;
        let there = self.residences.of(&server.deployment).await?;
        member::is_run_as(&there, server).await
    }

    async fn restart(&self, deployment: &DeploymentId, member: &str) -> Result<()> {
        names::check_member_name(member)?;
        let (id, name) = (deployment.clone(), member.to_owned());
        let restart = |cluster| member::restart(cluster, id, name);
        self.change(deployment, Some(member), restart).await
    }

    async fn stop(&self, deployment: &DeploymentId, member: &str, grace: Duration) -> Result<()> {
        names::check_member_name(member)?;
        let (id, name) = (deployment.clone(), member.to_owned());
        let stop = |cluster| member::stop(cluster, id, name, grace);
        self.change(deployment, Some(member), stop).await
    }

    async fn wipe(&self, deployment: &DeploymentId, member: &str) -> Result<()> {
        names::check_member_name(member)?;
        let (id, name) = (deployment.clone(), member.to_owned());
        let wipe = |cluster: Arc<Cluster>| async move {
            member::must_be_stopped(&cluster, &id, &name).await?;
            task::end(&cluster, &id, &name).await?;
            if volume::remove_lost(&cluster, &id, &name).await? {
                return Ok(());
            }
            files::change(&cluster, &id, &name, scripts::WIPE, &[]).await
        };
        self.change(deployment, Some(member), wipe).await
    }

    async fn observe(&self, deployment: &DeploymentId) -> Result<Vec<ProcessState>> {
        let there = self.residences.of(deployment).await?;
        let seen = member::look(&there, deployment).await?;
        let now = Instant::now();
        let state = |member: member::Look| {
            let pod = member.pod.as_ref();
            // One that was told to end may be on a node that is lost, of which nobody hears.
            let running = pod.is_some_and(|pod| seen::runs(pod, SERVER) && !seen::is_ending(pod));
            let count = member.restarts + pod.map_or(0, seen::restarts);
            let in_a_row = |pod| {
                let uid = seen::uid(pod);
                let steady = &self.steady;
                steady.in_a_row(uid, count, running, now)
            };
            let restarts = pod.map_or(count, in_a_row);
            ProcessState {
                running,
                restarts,
                has_lost_data: member.has_lost_volume || pod.is_some_and(seen::lacks_data),
                member: member.name,
            }
        };
        Ok(seen.into_iter().map(state).collect())
    }

    async fn members(&self, deployment: &DeploymentId) -> Result<Vec<MemberSeen>> {
        let there = self.residences.of(deployment).await?;
        let seen = member::look(&there, deployment).await?;
        let described = |member: member::Look| MemberSeen {
            name: member.name,
            version: member.described.version,
            ports: Vec::new(),
            host: String::new(),
            addresses: member.described.addresses,
        };
        Ok(seen.into_iter().map(described).collect())
    }

    async fn files(
        &self,
        deployment: &DeploymentId,
        member: &str,
        folder: &str,
    ) -> Result<Vec<FileSeen>> {
        names::check_member_name(member)?;
        names::check_folder_name(folder)?;
        let place = (deployment.clone(), member.to_owned(), folder.to_owned());
        let at = Instant::now();
        let changes = match self.looks.lately(&place, at) {
            Ok(files) => return Ok(files),
            Err(changes) => changes,
        };
        let folder = format!("/member/home/{folder}");
        let there = self.residences.of(deployment).await?;
        let found = files::list(&there, deployment, member, &folder).await?;
        self.looks.keep(place, at, changes, &found);
        Ok(found)
    }

    async fn set_aside(&self, deployment: &DeploymentId, member: &str, aside: &str) -> Result<()> {
        names::check_member_name(member)?;
        names::check_file_name(aside)?;
        self.change_home(deployment, member, scripts::SET_ASIDE, Some(aside))
            .await
    }

    async fn put_back(&self, deployment: &DeploymentId, member: &str, aside: &str) -> Result<()> {
        names::check_member_name(member)?;
        names::check_file_name(aside)?;
        self.stop(deployment, member, Duration::ZERO).await?;
        self.change_home(deployment, member, scripts::PUT_BACK, Some(aside))
            .await
    }

    async fn destroy(&self, deployment: &DeploymentId) -> Result<()> {
        let (residences, id) = (self.residences.clone(), deployment.clone());
        // Where it is, is known for sure once nobody places it any more.
        let leave = |_| async move { residences.leave(&id).await };
        self.change(deployment, None, leave).await
    }

    async fn logs(&self, deployment: &DeploymentId) -> Result<Vec<Logfile>> {
        let there = self.residences.of(deployment).await?;
        printed::logs(&there, deployment).await
    }

    async fn read_log(
        &self,
        deployment: &DeploymentId,
        member: &str,
        part: LogPart,
        last: Option<u64>,
    ) -> Result<Option<TextStream>> {
        names::check_member_name(member)?;
        let there = self.residences.of(deployment).await?;
        printed::read(&there, deployment, member, part, last).await
    }

    async fn last_words(&self, deployment: &DeploymentId, member: &str) -> Result<Option<String>> {
        names::check_member_name(member)?;
        let there = self.residences.of(deployment).await?;
        printed::last_words(&there, deployment, member).await
    }

    async fn deployments(&self) -> Result<Vec<DeploymentId>> {
        self.residences.deployments().await
    }
}
