//! Certificates of deployments that are renewed: before they end, or as an operator asks for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};

use super::{BrokerError, BrokerParts, deployment::secrets_of, due::Outcome, repair::usable};
use crate::{
    clock::Clock,
    model::{
        failure::chain,
        ids::{DeploymentId, InstanceId},
        limits::{CERTIFICATES_LOOKED_AT, RENEWAL_BUSY, RENEWAL_RETRY, RENEWALS_AT_ONCE},
        operation::{Operation, OperationKind},
        origin::Origin,
        renewal::{CertificateLife, Certificates},
        trust::Trusted,
    },
    seal::KeyRing,
    store::{self, Conn, Store, StoreError},
    timekeeper::Timekeeper,
};

/// Begins renewals.
pub struct Renewals {
    store: Arc<Store>,
    keys: Arc<KeyRing>,
    clock: Clock,
    time: Arc<Timekeeper>,
    life: CertificateLife,
    former: Mutex<Former>,
}

/// How far this process has looked for deployments of earlier versions, of whose certificates nothing is
/// written down. What makes or adopts a deployment now writes that down with its secrets, so one pass
/// finds all that there will ever be.
enum Former {
    /// Those after this one are to be looked at; none: all.
    After(Option<DeploymentId>),
    Done,
}

impl Renewals {
    pub(super) fn new(parts: &BrokerParts) -> Self {
        Self {
            store: parts.store.clone(),
            keys: parts.keys.clone(),
            clock: parts.clock.clone(),
            time: parts.time.clone(),
            life: parts.certificate_life,
            former: Mutex::new(Former::After(None)),
        }
    }

    fn former(&self) -> MutexGuard<'_, Former> {
        // Every change is one assignment, so it is whole even after a panic.
        self.former.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins the renewals that are due, unless the clock is in doubt; returns how many.
    pub async fn begin_due(&self) -> Result<usize, BrokerError> {
        let Some(now) = self.time.trusted().map(Trusted::time) else {
            return Ok(0);
        };
        // They have time: what cannot be read of one of them holds up no renewal.
        let looked = self.look_at_former().await;
        let due = self.store.read(move |conn| {
            let free =
                RENEWALS_AT_ONCE - store::operation::active_of_kind(conn, OperationKind::Renew)?;
            store::renewal::due(conn, now, free.max(0))
        });
        let mut begun = Outcome::default();
        for (instance, deployment) in due.await? {
            let decided = self
                .store
                .write(move |conn| begin(conn, &instance, &deployment, now));
            if !begun.goes_on(decided.await) {
                break;
            }
        }
        let begun = begun.end()?;
        looked.map(|()| begun)
    }

    /// Accepts to give the members of an instance another certificate, and to do what else is due. While
    /// that goes on, tells of it.
    pub async fn renew(
        &self,
        instance: InstanceId,
        origin: Origin,
    ) -> Result<Operation, BrokerError> {
        let now = self.clock.now();
        let is_trusted = self.time.trusted().is_some();
        self.store
            .decide(move |conn| {
                usable(conn, &instance)?;
                let kind = OperationKind::Renew;
                if let Some(running) = store::operation::under_way(conn, &instance, kind)? {
                    return Ok(running);
                }
                if !is_trusted {
                    return Err(BrokerError::Conflict(
                        "the broker's clock is in doubt, and certificates go by it; put it right, or \
                         say that it is right (POST /operator/clock)"
                            .to_owned(),
                    ));
                }
                Ok(queue(conn, &instance, origin, now)?)
            })
            .await
    }

    /// Writes down what lies ahead of the next deployments that an earlier version of the broker made.
    async fn look_at_former(&self) -> Result<(), BrokerError> {
        let after = match &*self.former() {
            Former::After(after) => after.clone(),
            Former::Done => return Ok(()),
        };
        let found = self.store.scan(move |conn| {
            store::renewal::missing(conn, after.as_ref(), CERTIFICATES_LOOKED_AT)
        });
        let found = found.await?;
        let last = found.last().map(|(_, deployment)| deployment.clone());
        let mut looks = Outcome::default();
        for (instance, _) in found {
            let looked = self.look_at_certificates(instance).await;
            if !looks.goes_on(looked.map(|()| true)) {
                break;
            }
        }
        looks.end()?;
        *self.former() = last.map_or(Former::Done, |last| Former::After(Some(last)));
        Ok(())
    }

    async fn look_at_certificates(&self, instance: InstanceId) -> Result<(), BrokerError> {
        let id = instance.clone();
        let found = self
            .store
            .read(move |conn| store::deployment::of_instance(conn, &id));
        let Some((deployment, sealed)) = found.await? else {
            return Ok(());
        };
        let certificates = match secrets_of(&self.keys, &deployment, sealed.as_deref()) {
            Ok(Some(secrets)) => secrets.certificates(&deployment.id),
            Ok(None) => return Ok(()),
            // The others are not held up by it.
            Err(error) => {
                log::error!(deployment:% = deployment.id;
                    "when its certificates end cannot be read: {}", chain(&error));
                Certificates::of_before(deployment.id.made_at())
            }
        };
        let outlook = certificates.outlook(&self.life);
        let write = move |conn: &mut Conn<'_>| {
            // Released meanwhile, or renewed, they are somebody else's affair.
            let now = store::deployment::of_instance(conn, &instance)?;
            let is_same = now.is_some_and(|(_, now)| now == sealed);
            if is_same && store::renewal::find(conn, &deployment.id)?.is_none() {
                store::renewal::set(conn, &deployment.id, &outlook)?;
            }
            Ok(())
        };
        Ok(self.store.write(write).await?)
    }
}

/// Returns whether a renewal was queued. One that fails is tried again after [`RENEWAL_RETRY`].
fn begin(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
    deployment: &DeploymentId,
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let active = store::operation::active_on_instance(conn, instance)?;
    let is_busy = active.iter().any(|o| o.kind.has_members_in_hand());
    if is_busy {
        store::renewal::put_off(conn, deployment, now + RENEWAL_BUSY)?;
        return Ok(false);
    }
    store::renewal::put_off(conn, deployment, now + RENEWAL_RETRY)?;
    queue(conn, instance, Origin::Renewal, now)?;
    Ok(true)
}

fn queue(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
    origin: Origin,
    now: DateTime<Utc>,
) -> Result<Operation, StoreError> {
    let operation = Operation::queued(OperationKind::Renew, instance, origin, now);
    let key = format!("renewal {instance}");
    store::operation::insert(conn, &operation, Some(&key))?;
    Ok(operation)
}
