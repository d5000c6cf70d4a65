//! What became of an instance whose page is open, told to that page alone.
//!
//! A session ends with what it was opened with, and often its instance goes then, too. Each page has a
//! code, signed by the broker, by which its script learns which of the two it was; nobody else can ask.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};

use super::{BrokerError, BrokerParts};
use crate::{
    model::{
        ids::InstanceId,
        instance::{Instance, InstanceState},
    },
    seal::KeyRing,
    store::{self, Store},
};

/// What the signatures are made for.
const PAGE: &str = "dashboard page";

/// What became of the instance that a page is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is there.
    There,
    /// It is being deleted.
    Deleting,
    /// It is gone.
    Deleted,
}

/// What a page of that instance asks by. Instances of the same id one after the other have different ones.
pub(super) fn page_code(keys: &KeyRing, instance: &Instance) -> String {
    let deployment = instance.deployment.as_str();
    let signature = keys.sign(PAGE, &message(&instance.id, deployment));
    let id = BASE64.encode(instance.id.as_str());
    format!("{id}.{deployment}.{signature}")
}

fn message(instance: &InstanceId, deployment: &str) -> String {
    format!("{deployment} {instance}")
}

/// Tells pages what became of the instances that they are about.
pub struct Fates {
    store: Arc<Store>,
    keys: Arc<KeyRing>,
}

impl Fates {
    pub(super) fn new(parts: &BrokerParts) -> Self {
        Self {
            store: parts.store.clone(),
            keys: parts.keys.clone(),
        }
    }

    /// What became of the instance that a page with this code is about; none for a code that no page has.
    pub async fn of(&self, code: &str) -> Result<Option<Fate>, BrokerError> {
        let Some((id, deployment)) = read_code(&self.keys, code) else {
            return Ok(None);
        };
        let found = self
            .store
            .read(move |conn| store::instance::find(conn, &id))
            .await?;
        let found = found.filter(|instance| instance.deployment.as_str() == deployment);
        Ok(Some(match found.map(|instance| instance.state) {
            None => Fate::Deleted,
            Some(InstanceState::Deleting) => Fate::Deleting,
            Some(_) => Fate::There,
        }))
    }
}

fn read_code(keys: &KeyRing, code: &str) -> Option<(InstanceId, String)> {
    let mut parts = code.split('.');
    let (id, deployment, signature) = (parts.next()?, parts.next()?, parts.next()?);
    let id = String::from_utf8(BASE64.decode(id).ok()?).ok()?;
    let id: InstanceId = id.parse().ok()?;
    let is_ours = keys.verify(PAGE, &message(&id, deployment), signature);
    (parts.next().is_none() && is_ours).then(|| (id, deployment.to_owned()))
}
