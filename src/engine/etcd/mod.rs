//! etcd, versions 3.3 to 3.5.
//!
//! A table of contents: each method is one line that leads to the file which does it.
//!
//! Invariants:
//! - Every call is idempotent, so a call that failed in passing is simply made anew, through
//!   another member (see `client.rs`).
//! - No secret stands in an argument, an error or a log.
//! - A database user's name never stands in a certificate that is lasting: etcd takes a
//!   certificate's common name for a login.

mod certificates;
mod client;
mod printed;
mod ready;
mod rolling;
mod security;
mod server;
mod snapshot;
mod status;
mod users;
mod verify;

#[cfg(test)]
mod tests;

use async_trait::async_trait;

use self::client::Cluster;
use super::{ConnectionStrings, DatabaseUser, Engine, EngineError, Inspection, Snapshot};
use crate::model::{
    backup::SnapshotContent,
    deployment::{Access, Deployment, DeploymentSecrets, Member},
    ids::DeploymentId,
    observation::MemberObservation,
    server::{Server, Task},
    version::Version,
};

pub use self::server::{binaries, parse_version_output};

/// The engine's name.
pub const NAME: &str = "etcd";

/// etcd.
#[derive(Debug, Clone, Copy, Default)]
pub struct Etcd;

#[async_trait]
impl Engine for Etcd {
    fn name(&self) -> &'static str {
        NAME
    }

    fn generate_secrets(
        &self,
        id: &DeploymentId,
        host: &str,
    ) -> Result<DeploymentSecrets, EngineError> {
        certificates::generate_secrets(id, host)
    }

    fn servers(
        &self,
        deployment: &Deployment,
        secrets: &DeploymentSecrets,
        access: Access,
    ) -> Vec<Server> {
        server::servers(deployment, secrets, access)
    }

    fn restore_task(&self, deployment: &Deployment, index: usize, file: &str) -> Task {
        server::restore_task(deployment, index, file)
    }

    fn inspect_task(&self, version: Version, file: &str) -> Task {
        server::inspect_task(version, file)
    }

    fn parse_inspection(&self, output: &str) -> Result<Inspection, EngineError> {
        server::parse_inspection(output)
    }

    async fn wait_until_listening(&self, member: &Member) {
        ready::wait_until_listening(member).await;
    }

    async fn wait_until_ready(
        &self,
        deployment: &Deployment,
        secrets: &DeploymentSecrets,
        access: Access,
    ) -> Result<(), EngineError> {
        ready::wait(&Cluster::new(deployment, secrets, access)?).await
    }

    async fn secure_new(
        &self,
        deployment: &Deployment,
        secrets: &DeploymentSecrets,
        access: Access,
    ) -> Result<(), EngineError> {
        security::secure_new(&Cluster::new(deployment, secrets, access)?).await
    }

    async fn secure_restored(
        &self,
        deployment: &Deployment,
        secrets: &DeploymentSecrets,
    ) -> Result<(), EngineError> {
        security::secure_restored(&Cluster::new(deployment, secrets, Access::Certificates)?).await
    }

    async fn verify_content(
        &self,
        deployment: &Deployment,
        secrets: &DeploymentSecrets,
        access: Access,
        expected: &SnapshotContent,
    ) -> Result<(), EngineError> {
        verify::content(&Cluster::new(deployment, secrets, access)?, expected).await
    }

    async fn hand_over(
        &self,
        deployment: &Deployment,
        secrets: &DeploymentSecrets,
        heir: usize,
    ) -> Result<(), EngineError> {
        let cluster = Cluster::new(deployment, secrets, Access::Passwords)?;
        rolling::hand_over(&cluster, heir).await
    }

    async fn agreed_version(
        &self,
        deployment: &Deployment,
        secrets: &DeploymentSecrets,
    ) -> Result<Version, EngineError> {
        rolling::agreed_version(deployment, secrets).await
    }

    async fn clear_alarms(
        &self,
        deployment: &Deployment,
        secrets: &DeploymentSecrets,
    ) -> Result<(), EngineError> {
        security::clear_alarms(&Cluster::new(deployment, secrets, Access::Passwords)?).await
    }

    async fn observe(
        &self,
        deployment: &Deployment,
        secrets: &DeploymentSecrets,
    ) -> Result<Vec<MemberObservation>, EngineError> {
        let cluster = Cluster::new(deployment, secrets, Access::Passwords)?;
        Ok(status::observe(&cluster).await)
    }

    async fn snapshot(
        &self,
        deployment: &Deployment,
        secrets: &DeploymentSecrets,
    ) -> Result<Snapshot, EngineError> {
        snapshot::begin(&Cluster::new(deployment, secrets, Access::Passwords)?).await
    }

    async fn keys_at(
        &self,
        deployment: &Deployment,
        secrets: &DeploymentSecrets,
        revision: i64,
    ) -> Result<i64, EngineError> {
        verify::keys_at(
            &Cluster::new(deployment, secrets, Access::Passwords)?,
            revision,
        )
        .await
    }

    async fn add_user(
        &self,
        deployment: &Deployment,
        secrets: &DeploymentSecrets,
        user: &DatabaseUser,
    ) -> Result<(), EngineError> {
        users::add(&Cluster::new(deployment, secrets, Access::Passwords)?, user).await
    }

    async fn remove_user(
        &self,
        deployment: &Deployment,
        secrets: &DeploymentSecrets,
        name: &str,
    ) -> Result<(), EngineError> {
        users::remove(&Cluster::new(deployment, secrets, Access::Passwords)?, name).await
    }

    fn connection_strings(
        &self,
        deployment: &Deployment,
        user: &DatabaseUser,
    ) -> ConnectionStrings {
        users::connection_strings(deployment, user)
    }

    fn without_secrets(&self, printed: &str) -> String {
        printed::without_secrets(printed)
    }

    fn check_trailer(
        &self,
        length: u64,
        digest_before: &[u8],
        trailer: &[u8],
    ) -> Result<(), String> {
        snapshot::check_trailer(length, digest_before, trailer)
    }
}
