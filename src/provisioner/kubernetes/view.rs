//! What is known of members' sets, pods and services without asking: the API server tells of each change as it
//! comes, over one connection for each of the three kinds, however many members there are, in one namespace or in
//! all of them. Labels are anybody's to give: an object counts in the namespace alone that it lies in.
//!
//! Invariants:
//! - Nobody sees less than the broker has done: a deployment that it has changed is asked about until what is
//!   known of it is the same as the answer.
//! - What is known counts only while the API server is heard of; else it is asked, and says why it is not.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::StreamExt as _;
use k8s_openapi::api::{
    apps::v1::{StatefulSet, StatefulSetSpec},
    core::v1::{Pod, PodSpec, Service},
};
use kube::api::WatchEvent;
use tokio::{
    task::AbortHandle,
    time::{Instant, sleep},
};

use super::{
    client::{CallError, Client, Kept},
    labels,
};
use crate::model::{
    failure::chain,
    ids::DeploymentId,
    limits::kubernetes::{WATCH_PAUSE, WATCH_RESYNC},
};

/// Kinds of objects that are watched.
pub(super) trait Watched: Kept {
    /// Forgets what nobody asks for: most of it.
    fn lighten(&mut self);
}

impl Watched for StatefulSet {
    fn lighten(&mut self) {
        self.metadata.managed_fields = None;
        self.status = None;
        self.spec = self.spec.take().map(|spec| StatefulSetSpec {
            replicas: spec.replicas,
            ..StatefulSetSpec::default()
        });
    }
}

impl Watched for Pod {
    fn lighten(&mut self) {
        self.metadata.managed_fields = None;
        self.spec = self.spec.take().map(|spec| PodSpec {
            node_name: spec.node_name,
            ..PodSpec::default()
        });
    }
}

impl Watched for Service {
    fn lighten(&mut self) {
        self.metadata.managed_fields = None;
        self.spec = None;
    }
}

/// The sets, pods and services of members.
#[derive(Debug, Clone, Default)]
pub(super) struct Members {
    pub(super) sets: Vec<StatefulSet>,
    pub(super) pods: Vec<Pod>,
    pub(super) services: Vec<Service>,
}

impl Members {
    /// What tells these from what they were at another time.
    fn marks(&self) -> Vec<(&str, &str)> {
        let sets = self.sets.iter().map(mark);
        let pods = self.pods.iter().map(mark);
        let services = self.services.iter().map(mark);
        let mut marks: Vec<_> = sets.chain(pods).chain(services).collect();
        marks.sort_unstable();
        marks
    }
}

/// What tells an object from what it was at another time.
fn mark<K: Kept>(object: &K) -> (&str, &str) {
    let meta = object.meta();
    let [uid, version] = [&meta.uid, &meta.resource_version].map(|text| text.as_deref());
    (uid.unwrap_or_default(), version.unwrap_or_default())
}

fn version_of<K: Kept>(object: &K) -> String {
    mark(object).1.to_owned()
}

/// What the broker has changed.
#[derive(Default)]
struct Changed {
    /// How often, in all.
    count: u64,
    /// Deployments that were not found to be the same here as there since; the change of each that came last,
    /// by number and time.
    last: HashMap<DeploymentId, (u64, Instant)>,
}

/// What is known of the members of a cluster. Nothing is watched any more once this is dropped.
pub(super) struct View {
    /// The namespace that is watched; empty: all are.
    within: String,
    sets: Known<StatefulSet>,
    pods: Known<Pod>,
    services: Known<Service>,
    changed: Mutex<Changed>,
    watching: [AbortHandle; 3],
}

impl Drop for View {
    fn drop(&mut self) {
        self.watching.iter().for_each(AbortHandle::abort);
    }
}

impl View {
    /// Watches the objects that have these labels from now on, where the client's calls lead.
    pub(super) fn new(client: &Client, selector: &str) -> Self {
        let (sets, pods, services) = (Known::default(), Known::default(), Known::default());
        let watching = [
            sets.watch(client, selector),
            pods.watch(client, selector),
            services.watch(client, selector),
        ];
        Self {
            within: client.namespace().to_owned(),
            sets,
            pods,
            services,
            changed: Mutex::default(),
            watching,
        }
    }

    /// The broker changes something of a deployment.
    pub(super) fn changes(&self, deployment: &DeploymentId) {
        let mut changed = locked(&self.changed);
        changed.count += 1;
        let now = Instant::now();
        let last = (changed.count, now);
        changed.last.insert(deployment.clone(), last);
        // Everything was listed anew since, and one that is gone is not asked about.
        let recent = |at: Instant| now.duration_since(at) < 2 * WATCH_RESYNC;
        changed.last.retain(|_, (_, at)| recent(*at));
    }

    /// What is known of the members of a deployment that is in this namespace; none where the API server has to be
    /// asked.
    pub(super) fn members(&self, namespace: &str, deployment: &DeploymentId) -> Option<Members> {
        let is_changed = locked(&self.changed).last.contains_key(deployment);
        if is_changed {
            None
        } else {
            self.known(namespace, deployment)
        }
    }

    fn known(&self, namespace: &str, deployment: &DeploymentId) -> Option<Members> {
        if !self.within.is_empty() && self.within != namespace {
            return None;
        }
        Some(Members {
            sets: self.sets.of(namespace, deployment)?,
            pods: self.pods.of(namespace, deployment)?,
            services: self.services.of(namespace, deployment)?,
        })
    }

    /// How many changes there were so far, for [`View::compare`].
    pub(super) fn changes_so_far(&self) -> u64 {
        locked(&self.changed).count
    }

    /// The API server has answered, asked after so many changes: where the same is known, it is not asked again.
    pub(super) fn compare(
        &self,
        namespace: &str,
        deployment: &DeploymentId,
        asked_after: u64,
        answer: &Members,
    ) {
        let known = self.known(namespace, deployment);
        let is_same = known.is_some_and(|known| known.marks() == answer.marks());
        let mut changed = locked(&self.changed);
        let last = changed.last.get(deployment);
        if is_same && last.is_some_and(|(last, _)| *last <= asked_after) {
            changed.last.remove(deployment);
        }
    }
}

/// What is known of one kind.
struct Known<K>(Arc<Mutex<Objects<K>>>);

impl<K> Clone for Known<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K> Default for Known<K> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Objects {
            counts: false,
            all: BTreeMap::new(),
        })))
    }
}

/// An object's namespace, deployment and name.
type Place = [String; 3];

struct Objects<K> {
    /// Whether the API server is heard of.
    counts: bool,
    all: BTreeMap<Place, K>,
}

impl<K: Watched> Known<K> {
    /// Begins to keep it up.
    fn watch(&self, client: &Client, selector: &str) -> AbortHandle {
        let keeping = keep(client.clone(), selector.to_owned(), self.clone());
        tokio::spawn(keeping).abort_handle()
    }

    fn of(&self, namespace: &str, deployment: &DeploymentId) -> Option<Vec<K>> {
        let objects = locked(&self.0);
        let first = [namespace, deployment.as_str(), ""].map(str::to_owned);
        let its = objects.all.range(first..);
        let its =
            its.take_while(|([within, of, _], _)| within == namespace && of == deployment.as_str());
        objects
            .counts
            .then(|| its.map(|(_, object)| object.clone()).collect())
    }

    /// These are all that there are.
    fn begin(&self, all: BTreeMap<Place, K>) {
        *locked(&self.0) = Objects { counts: true, all };
    }

    /// It is so from now on; the version that it has.
    fn put(&self, object: K) -> String {
        let version = version_of(&object);
        let (place, object) = placed(object);
        locked(&self.0).all.insert(place, object);
        version
    }

    /// It is there no more; the version at which it went.
    fn remove(&self, object: &K) -> String {
        locked(&self.0).all.remove(&place(object));
        version_of(object)
    }

    /// The API server is not heard of any more.
    fn end(&self) {
        let mut objects = locked(&self.0);
        objects.counts = false;
        objects.all.clear();
    }
}

/// What is kept of an object, and where.
fn placed<K: Watched>(mut object: K) -> (Place, K) {
    object.lighten();
    (place(&object), object)
}

fn place<K: Watched>(object: &K) -> Place {
    let meta = object.meta();
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let deployment = labels::label(meta, labels::DEPLOYMENT).to_owned();
    [text(&meta.namespace), deployment, text(&meta.name)]
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is whole before anything can panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps up what is known of a kind, again and again from the beginning.
async fn keep<K: Watched>(client: Client, selector: String, known: Known<K>) {
    loop {
        if let Err(error) = follow(&client, &selector, &known).await {
            known.end();
            // Who looks meanwhile asks, and tells what is wrong.
            log::debug!("no news of members: {}", chain(&error));
            sleep(WATCH_PAUSE).await;
        }
    }
}

/// Has all objects, and then each change of theirs, until it is time to begin anew.
async fn follow<K: Watched>(
    client: &Client,
    selector: &str,
    known: &Known<K>,
) -> Result<(), CallError> {
    let mut all = BTreeMap::new();
    let begin = |some: Vec<K>| all.extend(some.into_iter().map(placed));
    let mut version = client.list_some_at_a_time(selector, begin).await?;
    known.begin(all);
    let anew = Instant::now() + WATCH_RESYNC;
    while Instant::now() < anew {
        let mut changes = client.watch::<K>(selector, &version).await?;
        // The server ends each watch after a while; the next one goes on from there.
        while let Some(change) = changes.next().await {
            version = match change? {
                WatchEvent::Bookmark(mark) => mark.metadata.resource_version,
                WatchEvent::Deleted(object) => known.remove(&object),
                WatchEvent::Added(object) | WatchEvent::Modified(object) => known.put(object),
                // The client has made an error of it.
                WatchEvent::Error(_) => return Ok(()),
            }
        }
        sleep(WATCH_PAUSE).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
