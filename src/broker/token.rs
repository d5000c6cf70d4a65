//! Tokens of the administration API: each is good for one instance, and for those that the broker
//! itself restored from it.

use std::sync::Arc;

use super::BrokerError;
use crate::{
    model::ids::{BindingId, InstanceId},
    seal::fingerprint,
    store::{self, Conn, Store, StoreError},
};

/// Looks tokens up.
#[derive(Clone)]
pub struct Tokens {
    store: Arc<Store>,
}

impl Tokens {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    /// The instance that a token is for, and the binding that it belongs to. Tokens are kept as
    /// fingerprints: the look-up by the hash of 256 random bits tells nothing by its time.
    pub async fn holder(
        &self,
        token: &str,
    ) -> Result<Option<(InstanceId, BindingId)>, BrokerError> {
        let fingerprint = fingerprint(token);
        let found = self
            .store
            .read(move |conn| store::binding::holder_of_token(conn, &fingerprint))
            .await?;
        Ok(found)
    }

    /// The instance that a token is for.
    pub async fn instance(&self, token: &str) -> Result<Option<InstanceId>, BrokerError> {
        let holder = self.holder(token).await?;
        Ok(holder.map(|(instance, _)| instance))
    }

    /// Whether a user who may administer `granted` may administer `asked`: it is the same, or it was
    /// restored from it by the broker itself, directly or over instances that are still there.
    /// Nobody else could: no platform made those, so none has bound them yet.
    pub async fn reaches(
        &self,
        granted: InstanceId,
        asked: InstanceId,
    ) -> Result<bool, BrokerError> {
        if granted == asked {
            return Ok(true);
        }
        let reached = self
            .store
            .read(move |conn| descends(conn, &asked, &granted))
            .await?;
        Ok(reached)
    }
}

/// Whether `instance` was restored from `ancestor` by the broker itself, in one step or several. The
/// steps lead over deployments, whose ids are used once: what a platform gives an old id to is
/// nobody's ancestor.
pub(super) fn descends(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
    ancestor: &InstanceId,
) -> Result<bool, StoreError> {
    let mut at = store::instance::find(conn, instance)?;
    while let Some(source) = at.and_then(|instance| instance.restored_from) {
        at = store::instance::of_deployment(conn, &source)?;
        if at.as_ref().is_some_and(|instance| instance.id == *ancestor) {
            return Ok(true);
        }
    }
    Ok(false)
}
