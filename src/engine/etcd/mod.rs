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
mod figures;
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
        deployment::{Deployment, DeploymentSecrets, Member, Site},
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

    fn servers(&self, site: Site<'_>) -> Vec<Server> {
        server::servers(site)
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

    async fn wait_until_ready(&self, site: Site<'_>) -> Result<(), EngineError> {
        ready::wait(&Cluster::new(site)?).await
    }

    async fn secure_new(&self, site: Site<'_>) -> Result<(), EngineError> {
        security::secure_new(&Cluster::new(site)?).await
    }

    async fn secure_restored(&self, site: Site<'_>) -> Result<(), EngineError> {
        security::secure_restored(&Cluster::new(site)?).await
    }

    async fn verify_content(
        &self,
        site: Site<'_>,
        expected: &SnapshotContent,
    ) -> Result<(), EngineError> {
        verify::content(&Cluster::new(site)?, expected).await
    }

    async fn hand_over(&self, site: Site<'_>, heir: usize) -> Result<(), EngineError> {
        let cluster = Cluster::new(site)?;
        rolling::hand_over(&cluster, heir).await
    }

    async fn agreed_version(&self, site: Site<'_>) -> Result<Version, EngineError> {
        rolling::agreed_version(&Cluster::new(site)?).await
    }

    async fn obstacles(&self, site: Site<'_>, to: Version) -> Result<Vec<Obstacle>, EngineError> {
        upgrade::obstacles(&Cluster::new(site)?, to).await
    }

    async fn remove_member(&self, site: Site<'_>, place: usize) -> Result<(), EngineError> {
        membership::remove(&Cluster::new(site)?, place).await
    }

    async fn add_member(&self, site: Site<'_>, place: usize) -> Result<(), EngineError> {
        membership::add(&Cluster::new(site)?, place).await
    }

    async fn join(
        &self,
        site: Site<'_>,
        place: usize,
        patience: Duration,
    ) -> Result<(), EngineError> {
        membership::join(&Cluster::new(site)?, place, patience).await
    }

    async fn alive(&self, site: Site<'_>) -> Result<Vec<bool>, EngineError> {
        rolling::alive(&Cluster::new(site)?).await
    }

    fn tells_damage(&self, printed: &str) -> bool {
        damage::is_told(printed)
    }

    fn checkpoints(&self) -> FilesOfMember {
        server::CHECKPOINTS
    }

    async fn fill_logs(&self, site: Site<'_>) -> Result<(), EngineError> {
        upgrade::fill_logs(&Cluster::new(site)?).await
    }

    async fn begin_way_back(&self, site: Site<'_>, to: Version) -> Result<(), EngineError> {
        upgrade::begin_way_back(&Cluster::new(site)?, to).await
    }

    async fn end_way_back(&self, site: Site<'_>) -> Result<(), EngineError> {
        upgrade::end_way_back(&Cluster::new(site)?).await
    }

    fn database_file(&self) -> FilesOfMember {
        server::DATABASE
    }

    async fn forget_history(&self, site: Site<'_>) -> Result<(), EngineError> {
        full::forget_history(&Cluster::new(site)?).await
    }

    async fn give_back(&self, site: Site<'_>) -> Result<(), EngineError> {
        full::give_back(&Cluster::new(site)?).await
    }

    async fn give_back_of(&self, site: Site<'_>, place: usize) -> Result<(), EngineError> {
        let cluster = Cluster::new(site)?;
        ready::all_serve(&cluster).await?;
        full::defragment(&cluster, place).await
    }

    async fn delete_keys(&self, site: Site<'_>, prefix: &str) -> Result<u64, EngineError> {
        full::delete_keys(&Cluster::new(site)?, prefix).await
    }

    async fn restore_users(
        &self,
        site: Site<'_>,
        users: &[DatabaseUser],
        others: &[String],
    ) -> Result<Vec<String>, EngineError> {
        users::restore(&Cluster::new(site)?, users, others).await
    }

    async fn clear_alarms(&self, site: Site<'_>) -> Result<(), EngineError> {
        security::clear_alarms(&Cluster::new(site)?).await
    }

    async fn observe(&self, site: Site<'_>) -> Result<Vec<MemberObservation>, EngineError> {
        let cluster = Cluster::new(site)?;
        Ok(status::observe(&cluster).await)
    }

    async fn snapshot(&self, site: Site<'_>) -> Result<Snapshot, EngineError> {
        snapshot::begin(&Cluster::new(site)?).await
    }

    async fn describe(
        &self,
        site: Site<'_>,
        staged: &str,
        known: Option<&SnapshotContent>,
        bench: &dyn Workbench,
    ) -> Result<Description, EngineError> {
        let cluster = Cluster::new(site)?;
        snapshot_file::describe(&cluster, staged, known, bench).await
    }

    async fn add_user(&self, site: Site<'_>, user: &DatabaseUser) -> Result<(), EngineError> {
        users::add(&Cluster::new(site)?, user).await
    }

    async fn remove_user(&self, site: Site<'_>, name: &str) -> Result<(), EngineError> {
        users::remove(&Cluster::new(site)?, name).await
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
