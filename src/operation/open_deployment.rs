//! A deployment that has its members, and all that it takes to work on them: read once in a step, so that the step
//! goes by one state of it.

use super::ClusterParts;
use crate::{
    engine::SharedEngine,
    model::{
        deployment::{Access, Deployment, DeploymentSecrets, Site},
        engine::Profile,
        server::Server,
    },
    provisioner::SharedProvisioner,
};

/// A deployment with members.
pub struct OpenDeployment {
    /// The deployment.
    pub deployment: Deployment,
    /// Its secrets.
    pub secrets: DeploymentSecrets,
    /// How its members let clients in.
    pub access: Access,
    /// What its members are.
    pub engine: SharedEngine,
    /// Where they run.
    pub cluster: ClusterParts,
}

impl OpenDeployment {
    /// The same with members that let clients in so.
    pub fn with_access(self, access: Access) -> Self {
        Self { access, ..self }
    }

    /// It, for the engine.
    pub fn site(&self) -> Site<'_> {
        Site::with_access(&self.deployment, &self.secrets, self.access)
    }

    /// What its members are to run as, in their order.
    pub fn servers(&self) -> Vec<Server> {
        self.engine.servers(self.site())
    }

    /// What is particular to its engine.
    pub fn profile(&self) -> &'static Profile {
        self.engine.profile()
    }

    /// What runs its members.
    pub fn provisioner(&self) -> &SharedProvisioner {
        &self.cluster.provisioner
    }
}
