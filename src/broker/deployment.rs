//! Deployments and their recipes, as the administration API shows them.

use super::{Broker, BrokerError};
use crate::{
    model::{
        deployment::{Deployment, DeploymentSecrets},
        ids::{DeploymentId, InstanceId, OperationId},
        instance::Instance,
        limits::RECIPES_MAX,
        operation::{Operation, OperationKind},
        version::{Transition, transitions},
    },
    store,
};

/// A deployment with what belongs to it.
#[derive(Debug)]
pub struct DeploymentView {
    /// The instance in front of it.
    pub instance: Instance,
    /// The deployment.
    pub deployment: Deployment,
    /// Certificate of its authority (PEM), once it is made.
    pub ca_certificate: Option<String>,
    /// The operation that made it.
    pub provision: Option<OperationId>,
}

fn no_such(what: &str) -> BrokerError {
    BrokerError::NotFound(format!("there is no such {what}"))
}

impl Broker {
    /// The deployment behind an instance.
    pub async fn deployment_of(&self, id: InstanceId) -> Result<DeploymentView, BrokerError> {
        let (instance, found, provision) = self
            .store
            .read(move |conn| {
                let kinds = [OperationKind::Provision, OperationKind::Restore];
                Ok((
                    store::instance::find(conn, &id)?,
                    store::deployment::of_instance(conn, &id)?,
                    store::operation::newest(conn, &id, None, &kinds)?,
                ))
            })
            .await?;
        let (Some(instance), Some((deployment, sealed))) = (instance, found) else {
            return Err(no_such("instance"));
        };
        let ca_certificate = match sealed {
            Some(sealed) => {
                let plain = self.keys.open(&deployment.seal_context(), &sealed)?;
                let secrets: DeploymentSecrets = serde_json::from_slice(&plain)?;
                Some(secrets.ca_certificate)
            }
            None => None,
        };
        let provision = provision.map(|o| o.id);
        Ok(DeploymentView {
            instance,
            deployment,
            ca_certificate,
            provision,
        })
    }

    /// The deployment of that id behind an instance.
    pub async fn deployment(
        &self,
        instance: InstanceId,
        id: &DeploymentId,
    ) -> Result<DeploymentView, BrokerError> {
        let view = self.deployment_of(instance).await?;
        if view.deployment.id == *id {
            Ok(view)
        } else {
            Err(no_such("deployment"))
        }
    }

    /// The versions that a deployment can be migrated to, by a restore into a new instance.
    pub fn transitions(&self, deployment: &Deployment) -> Vec<Transition> {
        let available = self.versions_on(&deployment.cluster, &deployment.engine);
        transitions(deployment.version, available)
    }

    /// The operations of an instance, newest first; none of an earlier one that had the same id.
    pub async fn recipes(&self, of: &Instance) -> Result<Vec<Operation>, BrokerError> {
        let (instance, since) = (of.id.clone(), of.created_at);
        let all = self
            .store
            .read(move |conn| store::operation::of_instance(conn, &instance, RECIPES_MAX))
            .await?;
        Ok(all
            .into_iter()
            .filter(|operation| operation.created_at >= since)
            .collect())
    }

    /// One operation of an instance.
    pub async fn recipe(&self, of: &Instance, id: OperationId) -> Result<Operation, BrokerError> {
        let found = self
            .store
            .read(move |conn| store::operation::find(conn, &id))
            .await?;
        found
            .filter(|o| o.instance == of.id && o.created_at >= of.created_at)
            .ok_or_else(|| no_such("recipe"))
    }
}
