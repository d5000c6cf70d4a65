//! Members that are moved to where applications reach them now: after a change of the configuration, or
//! of the version that they run.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use chrono::{DateTime, Utc};
use futures::{TryStreamExt as _, future};

use super::{
    BrokerError, BrokerParts,
    deployment::{usable_deployments, usable_page},
    inventory::exposure,
    profile::Profiles,
};
use crate::{
    clock::Clock,
    model::{
        deployment::Deployment,
        limits::{READDRESS_RETRY, READDRESSES_AT_ONCE},
        operation::{Operation, OperationKind, OperationState},
        origin::Origin,
        placement::Cluster,
    },
    store::{self, Conn, Store, StoreError},
    timekeeper::Timekeeper,
};

/// Has members moved to where applications should reach them.
pub struct Moves {
    store: Arc<Store>,
    clock: Clock,
    time: Arc<Timekeeper>,
    clusters: Arc<[Cluster]>,
    profiles: Profiles,
    /// Those after this one, by id, are looked at next.
    after: Mutex<String>,
}

impl Moves {
    pub(super) fn new(parts: &BrokerParts) -> Self {
        Self {
            store: parts.store.clone(),
            clock: parts.clock.clone(),
            time: parts.time.clone(),
            clusters: parts.clusters.clone(),
            profiles: parts.profiles.clone(),
            after: Mutex::default(),
        }
    }

    /// Begins to move the members of deployments that are reached elsewhere than they should be, among the
    /// next page of those in use; returns how many. One that failed after `since` is tried again after
    /// [`READDRESS_RETRY`]; what failed before failed with another configuration.
    pub async fn begin_due(&self, since: DateTime<Utc>) -> Result<usize, BrokerError> {
        // They get other certificates, and these go by the clock.
        if self.time.trusted().is_none() {
            return Ok(0);
        }
        let mut passed = self.next_after(String::new());
        let (page, next) = usable_page(&self.store, passed.clone()).await?;
        let mut next = next.unwrap_or_default();
        let now = self.clock.now();
        let mut begun = 0;
        for deployment in page {
            let id = deployment.id.to_string();
            if self.is_at_home(&deployment) {
                passed = id;
                continue;
            }
            let queued = self
                .store
                .write(move |conn| begin(conn, &deployment, since, now));
            match queued.await? {
                Begun::Queued => begun += 1,
                Begun::Waits => {}
                Begun::Full => {
                    next = passed;
                    break;
                }
            }
            passed = id;
        }
        self.next_after(next);
        Ok(begun)
    }

    /// Says where the next look begins; returns where this one does.
    fn next_after(&self, id: String) -> String {
        let mut after = self.after.lock().unwrap_or_else(PoisonError::into_inner);
        mem::replace(&mut after, id)
    }

    /// The deployments of usable instances that are kept on loopback because their version lets strangers
    /// in.
    pub async fn kept_on_loopback(&self) -> Result<Vec<Deployment>, BrokerError> {
        let all = usable_deployments(&self.store, &self.profiles);
        let kept = all.try_filter(|of| future::ready(self.is_kept_on_loopback(of)));
        kept.try_collect().await
    }

    /// Whether applications reach all members where they should.
    fn is_at_home(&self, deployment: &Deployment) -> bool {
        let Ok(profile) = self.profiles.get(&deployment.engine) else {
            return true;
        };
        let exposure = exposure(&self.clusters, &deployment.cluster);
        let reach = exposure.reach_of(profile, deployment);
        let mut members = deployment.members.iter();
        members.all(|member| profile.is_reached(member, &reach))
    }

    /// Whether a deployment is reached on the broker's machine alone because of its version.
    pub(super) fn is_kept_on_loopback(&self, deployment: &Deployment) -> bool {
        let exposure = exposure(&self.clusters, &deployment.cluster);
        let profile = self.profiles.get(&deployment.engine);
        profile.is_ok_and(|of| exposure.reach_of(of, deployment) != exposure.reach)
    }
}

enum Begun {
    Queued,
    /// Something else has its members in hand, or it failed not long ago.
    Waits,
    /// So many are moved at the moment that no other one is.
    Full,
}

fn begin(
    conn: &mut Conn<'_>,
    deployment: &Deployment,
    since: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<Begun, StoreError> {
    let kind = OperationKind::Readdress;
    if store::operation::active_of_kind(conn, kind)? >= READDRESSES_AT_ONCE {
        return Ok(Begun::Full);
    }
    let instance = &deployment.instance;
    let active = store::operation::active_on_instance(conn, instance)?;
    if active.iter().any(|o| o.kind.has_members_in_hand()) {
        return Ok(Begun::Waits);
    }
    let last = store::operation::newest(conn, instance, None, &[kind])?;
    let failed = last.filter(|o| o.state != OperationState::Succeeded);
    if failed.is_some_and(|o| o.updated_at > since && o.updated_at + READDRESS_RETRY > now) {
        return Ok(Begun::Waits);
    }
    let operation = Operation::queued(kind, instance, Origin::Configuration, now);
    let key = format!("readdress {instance}");
    store::operation::insert(conn, &operation, Some(&key))?;
    Ok(Begun::Queued)
}
