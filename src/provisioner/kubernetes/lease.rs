//! Which of several brokers looks after a cluster: the one that holds its lease, an object of the API
//! server.
//!
//! Invariant: a broker does nothing there unless it renewed its lease a moment ago, by its own clock; and
//! takes another's only when that was not renewed for as long as it lasts, by its own clock too. So clocks that
//! differ do no harm, and a broker that was paused finds out before it does anything.

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::coordination::v1::Lease as LeaseObject;
use serde_json::{Value, json};
use tokio::{
    runtime::Handle,
    time::{Instant, sleep},
};
use uuid::Uuid;

use super::{client::Client, labels};
use crate::{
    model::{
        failure::chain,
        limits::kubernetes::{CLUSTER_LEASE, CLUSTER_LEASE_HELD, CLUSTER_LEASE_RENEWAL},
    },
    provisioner::ProvisionerError,
};

type Result<T> = std::result::Result<T, ProvisionerError>;

/// The annotation that is another one after each renewal.
const RENEWALS: &str = "compose-broker/renewals";

/// The name of a cluster's lease.
fn name_of(cluster: &str) -> String {
    let hash = &labels::sha256(cluster)[..12];
    format!("compose-broker-{hash}")
}

/// What was seen of a lease, over several tries to take it: its version, and since when it is that.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen(Arc<Mutex<Option<(String, Instant)>>>);

impl Seen {
    /// Takes the lease of a cluster, and keeps it from then on. Waits for as long as a broker that is gone
    /// may have had it; fails where another one renews it.
    pub(super) async fn take(&self, client: &Client, cluster: &str) -> Result<Arc<Lease>> {
        let lease = Arc::new(Lease {
            at: Arc::new(At {
                client: client.clone(),
                cluster: cluster.to_owned(),
                holder: Uuid::new_v4().to_string(),
                renewals: AtomicU64::new(0),
            }),
            seen: self.clone(),
            renewed: Mutex::new(None),
            times_taken: AtomicU64::new(0),
        });
        let deadline = Instant::now() + CLUSTER_LEASE + CLUSTER_LEASE_RENEWAL;
        while !lease.renew().await? {
            if Instant::now() >= deadline {
                return Err(ProvisionerError::InUse {
                    what: format!("the cluster {cluster}"),
                });
            }
            sleep(CLUSTER_LEASE_RENEWAL / 4).await;
        }
        tokio::spawn(keep(Arc::downgrade(&lease)));
        Ok(lease)
    }

    /// Whether a lease was seen to stay as it is for as long as it lasts.
    fn is_over(&self, version: &str, now: Instant) -> bool {
        // Every change is one assignment, so it is whole even after a panic.
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*seen {
            Some((known, since)) if known == version => now.duration_since(*since) >= CLUSTER_LEASE,
            _ => {
                *seen = Some((version.to_owned(), now));
                false
            }
        }
    }
}

/// The lease of a cluster, which this broker holds unless another one does. When it is dropped, it is given
/// back.
pub(super) struct Lease {
    at: Arc<At>,
    seen: Seen,
    /// When the renewal was begun that came about last; none: another broker has the lease.
    renewed: Mutex<Option<Instant>>,
    /// How often this broker took it that did not have it before.
    times_taken: AtomicU64,
}

/// Who has a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// This broker, a moment ago.
    Here,
    /// Another one.
    Elsewhere,
    /// This broker had it, and cannot tell whether it still has: the API server does not answer.
    Unknown,
}

/// The object of a lease, and who it is that asks for it.
struct At {
    client: Client,
    cluster: String,
    /// This broker, for as long as it runs.
    holder: String,
    renewals: AtomicU64,
}

/// Renews a lease for as long as somebody has it. One that is lost is taken again when it can be.
async fn keep(lease: Weak<Lease>) {
    let mut fails = false;
    loop {
        sleep(CLUSTER_LEASE_RENEWAL).await;
        let Some(lease) = lease.upgrade() else {
            return;
        };
        let had = lease.held() == Held::Here;
        match lease.renew().await {
            Ok(has) => {
                if had && !has {
                    log::error!(cluster = lease.at.cluster.as_str();
                        "another broker has taken the cluster over");
                } else if !had && has {
                    log::info!(cluster = lease.at.cluster.as_str();
                        "this broker looks after the cluster again");
                }
                fails = false;
            }
            Err(error) => {
                if !fails {
                    log::error!(cluster = lease.at.cluster.as_str();
                        "cannot renew the lease of the cluster: {}", chain(&error));
                }
                fails = true;
            }
        }
    }
}

impl Lease {
    /// Who has it: this broker may do nothing in the cluster unless it has.
    pub(super) fn held(&self) -> Held {
        match *self.renewed.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(renewed) if renewed.elapsed() < CLUSTER_LEASE_HELD => Held::Here,
            Some(_) => Held::Unknown,
            None => Held::Elsewhere,
        }
    }

    /// How often this broker took it: others may have had it in between, and changed anything.
    pub(super) fn times_taken(&self) -> u64 {
        self.times_taken.load(Ordering::Relaxed)
    }

    fn note(&self, renewed: Option<Instant>) {
        *self.renewed.lock().unwrap_or_else(PoisonError::into_inner) = renewed;
    }

    /// Renews it, or takes it where it is free; whether this broker has it now.
    async fn renew(&self) -> Result<bool> {
        let asked = Instant::now();
        let at = &self.at;
        let (has, had) = match at.find().await? {
            None => (at.make().await?, false),
            Some(found) => {
                let holder = found.spec.unwrap_or_default().holder_identity;
                let holder = holder.unwrap_or_default();
                let version = found.metadata.resource_version.unwrap_or_default();
                let had = holder == at.holder;
                let is_free = holder.is_empty() || had || self.seen.is_over(&version, asked);
                (is_free && at.write(&at.holder, &version).await?, had)
            }
        };
        if has && !had {
            self.times_taken.fetch_add(1, Ordering::Relaxed);
        }
        self.note(has.then_some(asked));
        Ok(has)
    }
}

impl At {
    async fn find(&self) -> Result<Option<LeaseObject>> {
        Ok(self.client.find(&name_of(&self.cluster)).await?)
    }

    fn object(&self, holder: &str) -> Value {
        let renewals = self.renewals.fetch_add(1, Ordering::Relaxed);
        json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": name_of(&self.cluster),
                "namespace": self.client.namespace(),
                "annotations": { RENEWALS: renewals.to_string() },
            },
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": CLUSTER_LEASE.as_secs(),
            },
        })
    }

    async fn make(&self) -> Result<bool> {
        let object = self.object(&self.holder);
        match self.client.create::<LeaseObject>(&object).await {
            Ok(_) => Ok(true),
            Err(error) if error.is(409) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes who holds it, unless somebody has changed it since it was of that version.
    async fn write(&self, holder: &str, version: &str) -> Result<bool> {
        let mut fields = self.object(holder);
        fields["metadata"]["resourceVersion"] = json!(version);
        let name = name_of(&self.cluster);
        match self.client.change::<LeaseObject>(&name, &fields).await {
            Ok(changed) => Ok(changed.is_some()),
            Err(error) if error.is(409) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives it back, so that nobody has to wait for its end.
    async fn give_back(&self) -> Result<()> {
        let Some(found) = self.find().await? else {
            return Ok(());
        };
        let holder = found.spec.unwrap_or_default().holder_identity;
        if holder.as_deref() == Some(&self.holder) {
            let version = found.metadata.resource_version.unwrap_or_default();
            self.write("", &version).await?;
        }
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let at = self.at.clone();
        runtime.spawn(async move {
            let limit = Duration::from_secs(2);
            // Without it, the next broker waits a little longer.
            let _ = tokio::time::timeout(limit, at.give_back()).await;
        });
    }
}
