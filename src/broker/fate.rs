//! What became of an instance whose page is open, told to that page alone.
//!
//! A session ends with what it was opened with, and often its instance goes then, too. Each page has a
//! code, signed by the broker, by which its script learns which of the two it was; nobody else can ask.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use chrono::{DateTime, Utc};

use super::{BrokerError, BrokerParts};
use crate::{
    model::{
        ids::{DeploymentId, InstanceId},
        instance::{Instance, InstanceState},
    },
    seal::KeyRing,
    store::{self, Conn, Store, StoreError},
};

/// What the signatures are made for.
const PAGE: &str = "dashboard page";

/// What became of the instance that a page is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is there.
    There,
    /// It is being deleted.
    Deleting,
    /// It is gone.
    Deleted {
        /// What is left of it; none: nothing.
        left: Option<Left>,
    },
}

/// The backups that are left of an instance that was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The id that it had.
    pub instance: InstanceId,
    /// How many there are.
    pub backups: usize,
    /// Until when they are kept.
    pub until: DateTime<Utc>,
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
        let fate = self.store.read(move |conn| fate(conn, &id, &deployment));
        Ok(Some(fate.await?))
    }

    /// The instance that had this id last and was deleted, as long as backups of it are kept; for operators.
    pub async fn of_id(&self, id: InstanceId) -> Result<Option<Gone>, BrokerError> {
        let found = self.store.read(move |conn| {
            let Some(deleted) = store::deleted::of_id(conn, &id)?.into_iter().next() else {
                return Ok(None);
            };
            let name = deleted.name.clone().unwrap_or_else(|| id.to_string());
            let left = left(conn, &deleted.deployment)?;
            Ok::<_, StoreError>(left.map(|left| Gone { name, left }))
        });
        Ok(found.await?)
    }
}

/// An instance that was deleted, by the id that it had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// What people called it.
    pub name: String,
    /// What is left of it.
    pub left: Left,
}

fn fate(
    conn: &mut Conn<'_>,
    id: &InstanceId,
    deployment: &DeploymentId,
) -> Result<Fate, StoreError> {
    let found = store::instance::find(conn, id)?;
    let found = found.filter(|instance| instance.deployment == *deployment);
    Ok(match found.map(|instance| instance.state) {
        None => Fate::Deleted {
            left: left(conn, deployment)?,
        },
        Some(InstanceState::Deleting) => Fate::Deleting,
        Some(_) => Fate::There,
    })
}

fn left(conn: &mut Conn<'_>, deployment: &DeploymentId) -> Result<Option<Left>, StoreError> {
    let Some(deleted) = store::deleted::find(conn, deployment)? else {
        return Ok(None);
    };
    let backups = store::backup::complete_of(conn, &deleted.keeper())?.len();
    Ok((backups > 0).then_some(Left {
        instance: deleted.instance,
        backups,
        until: deleted.kept_until,
    }))
}

fn read_code(keys: &KeyRing, code: &str) -> Option<(InstanceId, DeploymentId)> {
    let mut parts = code.split('.');
    let (id, deployment, signature) = (parts.next()?, parts.next()?, parts.next()?);
    let id = String::from_utf8(BASE64.decode(id).ok()?).ok()?;
    let id: InstanceId = id.parse().ok()?;
    let is_ours = keys.verify(PAGE, &message(&id, deployment), signature);
    if parts.next().is_some() || !is_ours {
        return None;
    }
    Some((id, deployment.parse().ok()?))
}
