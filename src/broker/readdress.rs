//! Members that are moved to where applications reach them now: after a change of the configuration, or
//! of the version that they run.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use chrono::{DateTime, Utc};
use futures::{TryStreamExt as _, future};

use super::{
    BrokerError, BrokerParts, Census, CensusError,
    deployment::{usable_deployments, usable_page},
    inventory::exposure,
    profile::Profiles,
};
use crate::{
    clock::Clock,
    model::{
        deployment::Deployment,
        exposure::Withheld,
        limits::{READDRESS_RETRY, READDRESSES_AT_ONCE, WITHDRAWAL_RETRY},
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
    census: Arc<dyn Census>,
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
            census: parts.census.clone(),
            after: Mutex::default(),
        }
    }

    /// Begins to move the members of deployments that are reached elsewhere than they should be, among the
    /// next page of those in use; returns how many. One that failed after `since` is tried again after
    /// [`READDRESS_RETRY`]; what failed before failed with another configuration.
    ///
    /// Where strangers reach a version that lets them in, nothing but other work on the instance is waited
    /// for.
    pub async fn begin_due(&self, since: DateTime<Utc>) -> Result<usize, BrokerError> {
        let after = self.next_after(String::new());
        let (page, next) = usable_page(&self.store, after).await?;
        let now = self.clock.now();
        // They get other certificates, and these go by the clock.
        let mut takes_all = self.time.trusted().is_some();
        let (mut begun, mut failure) = (0, None);
        for deployment in page {
            if !self.census.looks_after(&deployment.cluster) {
                continue;
            }
            let haste = match self.withheld(&deployment) {
                Some(Withheld::Exposed) => Haste::AtOnce,
                _ => Haste::InTurn,
            };
            if haste == Haste::InTurn {
                if !takes_all {
                    continue;
                }
                match self.is_at_home(&deployment).await {
                    Ok(false) => {}
                    Ok(true) => continue,
                    // The others are looked at all the same.
                    Err(error) => {
                        failure = Some(error);
                        continue;
                    }
                }
            }
            let queued = self
                .store
                .write(move |conn| begin(conn, &deployment, haste, since, now));
            match queued.await? {
                Begun::Queued => begun += 1,
                Begun::Waits => {}
                // The others are come to again, when all have been looked at.
                Begun::Full => takes_all = false,
            }
        }
        self.next_after(next.unwrap_or_default());
        match failure {
            None => Ok(begun),
            Some(error) => Err(error.into()),
        }
    }

    /// Says where the next look begins; returns where this one does.
    fn next_after(&self, id: String) -> String {
        let mut after = self.after.lock().unwrap_or_else(PoisonError::into_inner);
        mem::replace(&mut after, id)
    }

    /// The deployments of usable instances that must not be reached from elsewhere because their version
    /// lets strangers in, and who reaches them.
    pub async fn all_withheld(&self) -> Result<Vec<(Deployment, Withheld)>, BrokerError> {
        let all = usable_deployments(&self.store, &self.profiles);
        let withheld = all.try_filter_map(|of| {
            let found = self.withheld(&of).map(|withheld| (of, withheld));
            future::ready(Ok(found))
        });
        withheld.try_collect().await
    }

    /// Whether applications reach all members where they should, as what runs them says.
    async fn is_at_home(&self, deployment: &Deployment) -> Result<bool, CensusError> {
        let Ok(profile) = self.profiles.get(&deployment.engine) else {
            return Ok(true);
        };
        let exposure = exposure(&self.clusters, &deployment.cluster);
        let reach = exposure.reach_of(profile, deployment);
        let wanted = self.census.whereabouts(deployment, profile.ports, &reach);
        let wanted = wanted.await?;
        let mut members = deployment.members.iter().zip(&wanted);
        Ok(members.all(|(member, wanted)| wanted.are_of(member)))
    }

    /// Who reaches a deployment that must not be reached from elsewhere because of its version.
    pub(super) fn withheld(&self, deployment: &Deployment) -> Option<Withheld> {
        let exposure = exposure(&self.clusters, &deployment.cluster);
        let profile = self.profiles.get(&deployment.engine).ok()?;
        exposure.withheld(profile, deployment)
    }
}

/// How long members may stay where they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Haste {
    /// Until it is their turn.
    InTurn,
    /// Not a moment longer: strangers reach what lets them in.
    AtOnce,
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
    haste: Haste,
    since: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<Begun, StoreError> {
    let kind = OperationKind::Readdress;
    let (is_bounded, retry) = match haste {
        Haste::InTurn => (true, READDRESS_RETRY),
        Haste::AtOnce => (false, WITHDRAWAL_RETRY),
    };
    if is_bounded && store::operation::active_of_kind(conn, kind)? >= READDRESSES_AT_ONCE {
        return Ok(Begun::Full);
    }
    let instance = &deployment.instance;
    let active = store::operation::active_on_instance(conn, instance)?;
    if active.iter().any(|o| o.kind.has_members_in_hand()) {
        return Ok(Begun::Waits);
    }
    let last = store::operation::newest(conn, instance, None, &[kind])?;
    let failed = last.filter(|o| o.state != OperationState::Succeeded);
    if failed.is_some_and(|o| o.updated_at > since && o.updated_at + retry > now) {
        return Ok(Begun::Waits);
    }
    let operation = Operation::queued(kind, instance, Origin::Configuration, now);
    let key = format!("readdress {instance}");
    store::operation::insert(conn, &operation, Some(&key))?;
    Ok(Begun::Queued)
}
