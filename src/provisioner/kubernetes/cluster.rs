//! A cluster that is looked after: its API server, its settings, and what is changed there one at a time. Deployments
//! may be in several namespaces of it: a cluster is seen from one of them.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{Event, PersistentVolumeClaim, Pod},
};
use kube::api::ListParams;
use serde_json::Value;
use tokio::{
    sync::RwLock,
    time::{Instant, sleep},
};

use super::{
    client::{Client, Kept},
    labels::{self, Owned, Part},
    lease::{Held, Lease},
    pods::Pin,
    seen::{self, Wait},
    settings::Settings,
    view::{Members, View},
};
use crate::{
    model::{
        ids::DeploymentId,
        limits::kubernetes::{CLUSTER_POLL_FIRST, CLUSTER_POLL_MAX, POD_END_WAIT},
    },
    provisioner::ProvisionerError,
};

pub(super) type Result<T> = std::result::Result<T, ProvisionerError>;

/// What the scheduler writes down of a volume that is made where it is used first.
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// A cluster that is looked after, seen from one of its namespaces.
pub(super) struct Cluster {
    /// Its calls lead to this namespace.
    pub(super) client: Client,
    /// Its settings, with this namespace.
    pub(super) settings: Settings,
    all: Arc<Shared>,
}

/// What there is once of a cluster, wherever it is seen from.
struct Shared {
    view: View,
    /// What says that this broker looks after it; none: no other one may.
    lease: Option<Arc<Lease>>,
    locks: Mutex<HashMap<DeploymentId, Arc<Locks>>>,
}

/// One change at a time for each member; while a whole deployment is changed, none of a member.
#[derive(Default)]
struct Locks {
    all: Arc<RwLock<()>>,
    members: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    placing: Arc<tokio::sync::Mutex<()>>,
}

impl Locks {
    /// Keeps others from changing the same until it is dropped.
    async fn hold(&self, member: Option<&str>) -> Box<dyn Send> {
        let all = self.all.clone();
        let Some(member) = member else {
            return Box::new(all.write_owned().await);
        };
        let all = all.read_owned().await;
        let lock = {
            // Every change of the map is one call, so it is whole even after a panic.
            let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
            members.entry(member.to_owned()).or_default().clone()
        };
        Box::new((all, lock.lock_owned().await))
    }
}

impl Cluster {
    /// A cluster whose members are watched where the calls of `watched` lead.
    pub(super) fn new(
        client: Client,
        watched: &Client,
        settings: Settings,
        lease: Option<Arc<Lease>>,
    ) -> Arc<Self> {
        let view = View::new(watched, &labels::members_of_cluster(&settings));
        Arc::new(Self {
            client,
            settings,
            all: Arc::new(Shared {
                view,
                lease,
                locks: Mutex::default(),
            }),
        })
    }

    /// The same seen from another namespace.
    pub(super) fn within(&self, namespace: &str) -> Arc<Self> {
        Arc::new(Self {
            client: self.client.within(namespace),
            settings: Settings {
                namespace: namespace.to_owned(),
                ..self.settings.clone()
            },
            all: self.all.clone(),
        })
    }

    /// Whether this broker looks after the cluster.
    pub(super) fn is_held(&self) -> bool {
        self.held() == Held::Here
    }

    fn held(&self) -> Held {
        let lease = self.all.lease.as_ref();
        lease.map_or(Held::Here, |lease| lease.held())
    }

    /// How often this broker has taken the cluster over: others may have changed it before each time.
    pub(super) fn times_taken(&self) -> u64 {
        let lease = self.all.lease.as_ref();
        lease.map_or(0, |lease| lease.times_taken())
    }

    /// Fails while this broker does not look after the cluster, or does not know whether it does.
    pub(super) fn check_held(&self) -> Result<()> {
        match self.held() {
            Held::Here => Ok(()),
            Held::Elsewhere => Err(ProvisionerError::LookedAfterElsewhere {
                cluster: self.settings.cluster.clone(),
            }),
            Held::Unknown => Err(ProvisionerError::ClusterSilent {
                source: "the lease of the cluster could not be renewed".into(),
            }),
        }
    }

    /// Changes a member, or the whole deployment, while nobody else does. Once begun, the change runs to its end
    /// even if nobody waits for it any more; until then the next one waits.
    pub(super) async fn change<T, F>(
        self: &Arc<Self>,
        deployment: &DeploymentId,
        member: Option<&str>,
        change: impl FnOnce(Arc<Self>) -> F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let locks = self.locks(deployment);
        let held = locks.hold(member).await;
        self.check_held()?;
        let changes = Changes::begin(self, deployment);
        let change = change(self.clone());
        let changed = tokio::spawn(async move {
            let changed = change.await;
            drop((changes, held, locks));
            changed
        });
        match changed.await {
            Ok(changed) => changed,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(error) => Err(ProvisionerError::Io {
                    doing: "the broker is ending".to_owned(),
                    source: std::io::Error::other(error),
                }),
            },
        }
    }

    /// Keeps others from having a node chosen for a volume of the deployment until it is dropped.
    pub(super) async fn placing(&self, deployment: &DeploymentId) -> impl Send + 'static {
        let locks = self.locks(deployment);
        (locks.placing.clone().lock_owned().await, locks)
    }

    fn locks(&self, deployment: &DeploymentId) -> Arc<Locks> {
        // Every change of the map is one call, so it is whole even after a panic.
        let mut locks = self
            .all
            .locks
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        locks.entry(deployment.clone()).or_default().clone()
    }

    /// Makes an object as described. One of its name that somebody else has made stays as it is.
    pub(super) async fn apply<K: Kept>(&self, object: &Value) -> Result<K> {
        let meta = &object["metadata"];
        let name = meta["name"].as_str().unwrap_or_default();
        let deployment = meta["labels"][labels::DEPLOYMENT]
            .as_str()
            .unwrap_or_default();
        if let Some(found) = self.client.find::<K>(name).await?
            && !labels::are_ours(found.meta(), &self.settings, deployment)
        {
            return Err(name_taken::<K>(name));
        }
        match self.client.apply(object).await {
            // Another member of the deployment has just made it.
            Err(error) if error.is(409) => Ok(self.client.apply(object).await?),
            applied => Ok(applied?),
        }
    }

    /// The sets, pods and services of a deployment's members.
    pub(super) async fn members(&self, deployment: &DeploymentId) -> Result<Members> {
        let (view, namespace) = (&self.all.view, &self.settings.namespace);
        if let Some(known) = view.members(namespace, deployment) {
            return Ok(known);
        }
        let asked_after = view.changes_so_far();
        let of = Owned {
            deployment,
            member: None,
            part: Part::Member,
        };
        let of = of.selector(&self.settings);
        let members = Members {
            sets: self.client.list(&of).await?,
            pods: self.client.list(&of).await?,
            services: self.client.list(&of).await?,
        };
        view.compare(namespace, deployment, asked_after, &members);
        Ok(members)
    }

    /// The set of a member.
    pub(super) async fn set(
        &self,
        deployment: &DeploymentId,
        member: &str,
    ) -> Result<Option<StatefulSet>> {
        let name = labels::member_name(deployment, member);
        let set: Option<StatefulSet> = self.client.find(&name).await?;
        let is_ours = |set: &StatefulSet| {
            labels::are_ours(&set.metadata, &self.settings, deployment.as_str())
        };
        Ok(set.filter(is_ours))
    }

    /// The pod of a member. Fails where somebody else's has its name.
    pub(super) async fn pod(&self, deployment: &DeploymentId, member: &str) -> Result<Option<Pod>> {
        let name = labels::pod_name(deployment, member);
        self.pod_named(deployment, &name).await
    }

    /// The pod of a member as it is known, or as the API server says.
    pub(super) async fn known_pod(
        &self,
        deployment: &DeploymentId,
        member: &str,
    ) -> Result<Option<Pod>> {
        let known = self.all.view.members(&self.settings.namespace, deployment);
        let Some(Members { pods, .. }) = known else {
            return self.pod(deployment, member).await;
        };
        let is_its = |pod: &Pod| labels::label(&pod.metadata, labels::MEMBER) == member;
        Ok(pods.into_iter().find(is_its))
    }

    /// A pod of a deployment by its name. Fails where somebody else's has that name.
    pub(super) async fn pod_named(
        &self,
        deployment: &DeploymentId,
        name: &str,
    ) -> Result<Option<Pod>> {
        let found: Option<Pod> = self.client.find(name).await?;
        match &found {
            Some(pod) if !labels::are_ours(&pod.metadata, &self.settings, deployment.as_str()) => {
                Err(name_taken::<Pod>(name))
            }
            _ => Ok(found),
        }
    }

    /// The claim of a member's volume.
    pub(super) async fn claim(
        &self,
        deployment: &DeploymentId,
        member: &str,
    ) -> Result<Option<PersistentVolumeClaim>> {
        let name = labels::member_name(deployment, member);
        Ok(self.client.find(&name).await?)
    }

    /// Where a pod may run that uses a member's volume.
    pub(super) async fn pin(&self, deployment: &DeploymentId, member: &str) -> Result<Pin> {
        let of = Owned {
            deployment,
            member: None,
            part: Part::Member,
        };
        let selector = of.selector(&self.settings);
        let claims: Vec<PersistentVolumeClaim> = self.client.list(&selector).await?;
        let (own, others): (Vec<_>, Vec<_>) = claims
            .iter()
            .partition(|claim| labels::label(&claim.metadata, labels::MEMBER) == member);
        let selected = |claim: &&PersistentVolumeClaim| {
            let annotations = claim.metadata.annotations.as_ref();
            annotations.and_then(|all| all.get(SELECTED_NODE)).cloned()
        };
        let mut pin = Pin {
            is_first: !own.iter().any(|claim| is_bound(claim)),
            ..Pin::default()
        };
        if own.iter().find_map(selected).is_none() {
            pin.apart_from = others.iter().filter_map(selected).collect();
            pin.apart_from.sort();
            pin.apart_from.dedup();
        }
        let users = labels::of_member(&self.settings, deployment, member);
        let users: Vec<Pod> = self.client.list(&users).await?;
        let users = users.iter().filter(|pod| !seen::is_over(pod));
        pin.node = users.filter_map(seen::node).next().map(str::to_owned);
        Ok(pin)
    }

    /// Ends a pod and waits until it is gone. It is told to end `grace` before it is killed.
    pub(super) async fn end_pod(&self, pod: &Pod, grace: Duration) -> Result<()> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let uid = seen::uid(pod);
        // With no grace at all the server would forget the pod while its node still runs it.
        let grace = grace.max(Duration::from_secs(1));
        self.client
            .delete::<Pod>(name, Some(uid), Some(grace))
            .await?;
        let limit = grace + POD_END_WAIT;
        let gone = until(limit, || async {
            let found: Option<Pod> = self.client.find(name).await?;
            Ok(found
                .is_none_or(|found| seen::uid(&found) != uid)
                .then_some(()))
        });
        gone.await?.ok_or_else(|| ProvisionerError::NotEnded {
            what: format!("pod {name}"),
            waited: limit,
        })
    }

    /// Ends a pod of a deployment by its name, if there is one, and waits until it is gone.
    pub(super) async fn end_pod_named(&self, deployment: &DeploymentId, name: &str) -> Result<()> {
        match self.pod_named(deployment, name).await? {
            Some(pod) => self.end_pod(&pod, Duration::ZERO).await,
            None => Ok(()),
        }
    }

    /// Waits until a pod is as `is_there` says; fails when it does not get there, with the reason that the
    /// cluster gives.
    pub(super) async fn started(
        &self,
        name: &str,
        limit: Duration,
        is_there: impl Fn(&Pod) -> bool,
    ) -> Result<Pod> {
        let not_started = |wait: Wait| wait.of(format!("pod {name}"));
        let waited = until(limit, || async {
            let Some(pod) = self.client.find::<Pod>(name).await? else {
                return Ok(None);
            };
            if is_there(&pod) {
                return Ok(Some(pod));
            }
            match seen::waits_for(&pod) {
                wait if wait.stays => Err(not_started(wait)),
                _ => Ok(None),
            }
        });
        match waited.await? {
            Some(pod) => Ok(pod),
            None => Err(not_started(self.why_not(name).await)),
        }
    }

    /// Why a pod is not there, or has not started.
    pub(super) async fn why_not(&self, name: &str) -> Wait {
        if let Ok(Some(pod)) = self.client.find::<Pod>(name).await {
            return seen::waits_for(&pod);
        }
        // A set that may not make its pod says so.
        let set = name.strip_suffix("-0").unwrap_or(name);
        let of_set = ListParams::default().fields(&format!("involvedObject.name={set}"));
        let events = self.client.objects::<Event>();
        let events = self
            .client
            .call("listing events", events.list(&of_set))
            .await;
        let events = events.map(|events| events.items).unwrap_or_default();
        let warnings = events
            .iter()
            .filter(|e| e.type_.as_deref() == Some("Warning"));
        let last = warnings
            .filter_map(|event| event.message.clone())
            .next_back();
        Wait {
            told: "the cluster has made no pod for it",
            why: last.unwrap_or_default(),
            stays: false,
        }
    }
}

/// A change of a deployment, from its beginning to its end, whatever becomes of it.
struct Changes(Arc<Cluster>, DeploymentId);

impl Changes {
    fn begin(cluster: &Arc<Cluster>, deployment: &DeploymentId) -> Self {
        cluster.all.view.changes(deployment);
        Self(cluster.clone(), deployment.clone())
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.0.all.view.changes(&self.1);
    }
}

/// Whether a claim has its volume.
fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    let status = claim.status.as_ref();
    status.and_then(|status| status.phase.as_deref()) == Some("Bound")
}

/// An object that is not the broker's has the name of one of a kind that the broker makes.
pub(super) fn name_taken<K: Kept>(name: &str) -> ProvisionerError {
    ProvisionerError::NameTaken {
        kind: K::kind(&()).into_owned(),
        name: name.to_owned(),
    }
}

/// Looks until there is something, for `limit` at the most.
pub(super) async fn until<T, F: Future<Output = Result<Option<T>>>>(
    limit: Duration,
    look: impl Fn() -> F,
) -> Result<Option<T>> {
    let deadline = Instant::now() + limit;
    let mut pause = CLUSTER_POLL_FIRST;
    loop {
        if let Some(found) = look().await? {
            return Ok(Some(found));
        }
        if Instant::now() + pause >= deadline {
            return Ok(None);
        }
        sleep(pause).await;
        pause = CLUSTER_POLL_MAX.min(pause * 3 / 2);
    }
}
