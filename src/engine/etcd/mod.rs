//! etcd, versions 3.3 to 3.7.
//!
//! A table of contents: each method is one line that leads to the file which does it.
//!
//! Invariants:
//! - Every call is idempotent, so a call that failed in passing is simply made anew, through
//!   another member (see `client.rs`).
//! - No secret stands in an argument, an error or a log.
//! - A database user's name never stands in a certificate that is lasting: etcd takes a
//!   certificate's common name for a login.

mod addresses;
mod certificates;
mod client;
mod damage;
mod full;
mod lines;
mod membership;
mod printed;
mod ready;
mod rolling;
mod security;
mod server;
mod snapshot;
mod snapshot_file;
mod status;
mod trailer;
mod upgrade;
mod users;
mod verify;

#[cfg(test)]
mod tests;

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use self::client::Cluster;
use super::{
    ConnectionStrings, DatabaseUser, Description, Engine, EngineError, FilesOfMember, Seed,
    Snapshot,
};
use crate::{
    model::{
        backup::SnapshotContent,
        deployment::{Access, Deployment, DeploymentSecrets, Member},
        engine::{Obstacle, Profile},
        observation::MemberObservation,
        renewal::{Certificates, Renewal},
        server::Server,
        version::Version,
    },
    workbench::Workbench,
};

pub use self::{
    lines::PROFILE,
    server::{binaries, parse_version_output},
};

/// The engine's name.
pub const NAME: &str = "etcd";

/// etcd.
#[derive(Debug, Clone, Copy, Default)]
pub struct Etcd;

/// The way into a deployment that is made: as its members let clients in.
fn open<'a>(
    deployment: &'a Deployment,
    secrets: &'a DeploymentSecrets,
) -> Result<Cluster<'a>, EngineError> {
    Cluster::new(deployment, secrets, deployment.access())
}

#[async_trait]
impl Engine for Etcd {
    fn profile(&self) -> &'static Profile {
        &lines::PROFILE
    }

    fn generate_secrets(
        &self,
        deployment: &Deployment,
        certificates: &Certificates,
        now: DateTime<Utc>,
    ) -> Result<DeploymentSecrets, EngineError> {
        certificates::generate_secrets(deployment, certificates, now)
    }

    fn renew_secrets(
        &self,
        deployment: &Deployment,
        secrets: &DeploymentSecrets,
        what: Renewal,
        certificates: &Certificates,
        now: DateTime<Utc>,
    ) -> Result<DeploymentSecrets, EngineError> {
        certificates::renew(deployment, secrets, what, certificates, now)
    }

    fn servers(
        &self,
        deployment: &Deployment,
        secrets: &DeploymentSecrets,
        access: Access,
    ) -> Vec<Server> {
        server::servers(deployment, secrets, access)
    }

    async fn seed(
        &self,
        deployment: &Deployment,
        place: usize,
        seed: Seed<'_>,
        bench: &dyn Workbench,
    ) -> Result<(), EngineError> {
        snapshot_file::seed(deployment, place, seed, bench).await
    }

    async fn salvage(
        &self,
        deployment: &Deployment,
        place: usize,
        staged: &str,
        bench: &dyn Workbench,
    ) -> Result<(), EngineError> {
        snapshot_file::salvage(deployment, place, staged, bench).await
    }

    async fn survey(
        &self,
        deployment: &Deployment,
        place: usize,
        bench: &dyn Workbench,
    ) -> Result<SnapshotContent, EngineError> {
        snapshot_file::survey(deployment, place, bench).await
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
        let cluster = open(deployment, secrets)?;
        rolling::hand_over(&cluster, heir).await
    }

    async fn agreed_version(
        &self,
        deployment: &Deployment,
        secrets: &DeploymentSecrets,
    ) -> Result<Version, EngineError> {
        rolling::agreed_version(&open(deployment, secrets)?).await
    }

    async fn obstacles(
        &self,
        deployment: &Deployment,
        secrets: &DeploymentSecrets,
        to: Version,
    ) -> Result<Vec<Obstacle>, EngineError> {
        upgrade::obstacles(&open(deployment, secrets)?, to).await
    }

    async fn remove_member(
        &self,
        deployment: &Deployment,
        secrets: &DeploymentSecrets,
        place: usize,
    ) -> Result<(), EngineError> {
        membership::remove(&open(deployment, secrets)?, place).await
    }

    async fn add_member(
        &self,
        deployment: &Deployment,
        secrets: &DeploymentSecrets,
        place: usize,
    ) -> Result<(), EngineError> {
        membership::add(&open(deployment, secrets)?, place).await
    }

    async fn join(
        &self,
        deployment: &Deployment,
        secrets: &DeploymentSecrets,
        place: usize,
        patience: Duration,
    ) -> Result<(), EngineError> {
        membership::join(&open(deployment, secrets)?, place, patience).await
    }

    async fn alive(
        &self,
        deployment: &Deployment,
        secrets: &DeploymentSecrets,
    ) -> Result<Vec<bool>, EngineError> {
        rolling::alive(&open(deployment, secrets)?).await
    }

    fn tells_damage(&self, printed: &str) -> bool {
        damage::is_told(printed)
    }

    fn checkpoints(&self) -> FilesOfMember {
        server::CHECKPOINTS
    }

    async fn fill_logs(
        &self,
        deployment: &Deployment,
        secrets: &DeploymentSecrets,
    ) -> Result<(), EngineError> {
        upgrade::fill_logs(&open(deployment, secrets)?).await
    }

    async fn begin_way_back(
        &self,
        deployment: &Deployment,
        secrets: &DeploymentSecrets,
        to: Version,
    ) -> Result<(), EngineError> {
        upgrade::begin_way_back(&open(deployment, secrets)?, to).await
    }

    async fn end_way_back(
        &self,
        deployment: &Deployment,
        secrets: &DeploymentSecrets,
    ) -> Result<(), EngineError> {
        upgrade::end_way_back(&open(deployment, secrets)?).await
    }

    fn database_file(&self) -> FilesOfMember {
        server::DATABASE
    }

    async fn forget_history(
        &self,
        deployment: &Deployment,
        secrets: &DeploymentSecrets,
    ) -> Result<(), EngineError> {
        full::forget_history(&open(deployment, secrets)?).await
    }

    async fn give_back(
        &self,
        deployment: &Deployment,
        secrets: &DeploymentSecrets,
    ) -> Result<(), EngineError> {
        full::give_back(&open(deployment, secrets)?).await
    }

    async fn give_back_of(
        &self,
        deployment: &Deployment,
        secrets: &DeploymentSecrets,
        place: usize,
    ) -> Result<(), EngineError> {
        let cluster = open(deployment, secrets)?;
        ready::all_serve(&cluster).await?;
        full::defragment(&cluster, place).await
    }

    async fn delete_keys(
        &self,
        deployment: &Deployment,
        secrets: &DeploymentSecrets,
        prefix: &str,
    ) -> Result<u64, EngineError> {
        full::delete_keys(&open(deployment, secrets)?, prefix).await
    }

    async fn restore_users(
        &self,
        deployment: &Deployment,
        secrets: &DeploymentSecrets,
        users: &[DatabaseUser],
        others: &[String],
    ) -> Result<Vec<String>, EngineError> {
        users::restore(&open(deployment, secrets)?, users, others).await
    }

    async fn clear_alarms(
        &self,
        deployment: &Deployment,
        secrets: &DeploymentSecrets,
    ) -> Result<(), EngineError> {
        security::clear_alarms(&open(deployment, secrets)?).await
    }

    async fn observe(
        &self,
        deployment: &Deployment,
        secrets: &DeploymentSecrets,
    ) -> Result<Vec<MemberObservation>, EngineError> {
        let cluster = open(deployment, secrets)?;
        Ok(status::observe(&cluster).await)
    }

    async fn snapshot(
        &self,
        deployment: &Deployment,
        secrets: &DeploymentSecrets,
    ) -> Result<Snapshot, EngineError> {
        snapshot::begin(&open(deployment, secrets)?).await
    }

    async fn describe(
        &self,
        deployment: &Deployment,
        secrets: &DeploymentSecrets,
        staged: &str,
        known: Option<&SnapshotContent>,
        bench: &dyn Workbench,
    ) -> Result<Description, EngineError> {
        let cluster = open(deployment, secrets)?;
        snapshot_file::describe(&cluster, staged, known, bench).await
    }

    async fn add_user(
        &self,
        deployment: &Deployment,
        secrets: &DeploymentSecrets,
        user: &DatabaseUser,
    ) -> Result<(), EngineError> {
        users::add(&open(deployment, secrets)?, user).await
    }

    async fn remove_user(
        &self,
        deployment: &Deployment,
        secrets: &DeploymentSecrets,
        name: &str,
    ) -> Result<(), EngineError> {
        users::remove(&open(deployment, secrets)?, name).await
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
}
