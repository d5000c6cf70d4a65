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
mod files;
mod full;
mod header;
mod lines;
mod membership;
mod prefix;
mod printed;
mod programs;
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

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use self::client::Dialer;
use super::{
    DatabaseUser, Description, Engine, EngineError, Holding, Issue, MemberChange, Passage, PutBack,
    Relief, Seed, Snapshot, UserChange,
};
use crate::{
    model::{
        backup::SnapshotContent,
        deployment::{Deployment, DeploymentSecrets, Member, Site},
        engine::{Obstacle, Profile},
        observation::MemberObservation,
        prefix::{PrefixDifference, PrefixRestore},
        proof::Evidence,
        renewal::Certificates,
        server::Server,
        version::Version,
    },
    stream::ByteStream,
    workbench::Workbench,
};

pub use self::{lines::PROFILE, server::UNSAFE_QUOTA_FACTOR};

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

    fn secrets(
        &self,
        deployment: &Deployment,
        issue: Issue<'_>,
        certificates: &Certificates,
        now: DateTime<Utc>,
    ) -> Result<DeploymentSecrets, EngineError> {
        match issue {
            Issue::First => certificates::first(deployment, certificates, now),
            Issue::Renewal { secrets, what } => {
                certificates::renew(deployment, secrets, what, certificates, now)
            }
        }
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

    async fn listening(&self, member: &Member) {
        ready::listening(member).await;
    }

    async fn ready(&self, site: Site<'_>) -> Result<(), EngineError> {
        ready::wait(&Dialer::new(site)?).await
    }

    async fn secure(&self, site: Site<'_>, holding: Holding) -> Result<(), EngineError> {
        let dialer = Dialer::new(site)?;
        match holding {
            Holding::Nothing => security::secure_new(&dialer).await,
            Holding::Backup => security::secure_restored(&dialer).await,
        }
    }

    async fn verify(&self, site: Site<'_>, expected: &SnapshotContent) -> Result<(), EngineError> {
        verify::content(&Dialer::new(site)?, expected).await
    }

    async fn prove(
        &self,
        site: Site<'_>,
        expected: &SnapshotContent,
    ) -> Result<Evidence, EngineError> {
        verify::whole(&Dialer::new(site)?, expected).await
    }

    async fn compare_prefix(
        &self,
        aside: Site<'_>,
        site: Site<'_>,
        prefix: &str,
    ) -> Result<PrefixDifference, EngineError> {
        prefix::compare(&Dialer::new(aside)?, &Dialer::new(site)?, prefix).await
    }

    async fn put_back(
        &self,
        aside: Site<'_>,
        site: Site<'_>,
        wanted: &PrefixRestore,
        point: &str,
        from: Option<Vec<u8>>,
    ) -> Result<PutBack, EngineError> {
        let (aside, site) = (Dialer::new(aside)?, Dialer::new(site)?);
        prefix::put_back(&aside, &site, wanted, point, from).await
    }

    async fn observe(&self, site: Site<'_>) -> Result<Vec<MemberObservation>, EngineError> {
        Ok(status::observe(&Dialer::new(site)?).await)
    }

    async fn alive(&self, site: Site<'_>) -> Result<Vec<bool>, EngineError> {
        rolling::alive(&Dialer::new(site)?).await
    }

    async fn snapshot(&self, site: Site<'_>) -> Result<Snapshot, EngineError> {
        snapshot::begin(&Dialer::new(site)?).await
    }

    async fn describe(
        &self,
        site: Site<'_>,
        staged: &str,
        known: Option<&SnapshotContent>,
        bench: &dyn Workbench,
    ) -> Result<Description, EngineError> {
        snapshot_file::describe(&Dialer::new(site)?, staged, known, bench).await
    }

    fn whole(&self, snapshot: ByteStream) -> ByteStream {
        trailer::checked(snapshot)
    }

    async fn take_stock(
        &self,
        site: Site<'_>,
        staged: &str,
        bench: &dyn Workbench,
    ) -> Result<SnapshotContent, EngineError> {
        snapshot_file::take_stock(&Dialer::new(site)?, staged, bench).await
    }

    async fn agreed_version(&self, site: Site<'_>) -> Result<Version, EngineError> {
        rolling::agreed_version(&Dialer::new(site)?).await
    }

    async fn obstacles(&self, site: Site<'_>, to: Version) -> Result<Vec<Obstacle>, EngineError> {
        upgrade::obstacles(&Dialer::new(site)?, to).await
    }

    async fn pass(&self, site: Site<'_>, passage: Passage) -> Result<(), EngineError> {
        let dialer = Dialer::new(site)?;
        match passage {
            Passage::FillLogs => upgrade::fill_logs(&dialer).await,
            Passage::BeginWayBack(to) => upgrade::begin_way_back(&dialer, to).await,
            Passage::EndWayBack => upgrade::end_way_back(&dialer).await,
        }
    }

    async fn change_member(
        &self,
        site: Site<'_>,
        place: usize,
        change: MemberChange,
    ) -> Result<(), EngineError> {
        let dialer = Dialer::new(site)?;
        match change {
            MemberChange::Lead => rolling::hand_over(&dialer, place).await,
            MemberChange::Leave => membership::remove(&dialer, place).await,
            MemberChange::Enter => membership::add(&dialer, place).await,
            MemberChange::Vote { patience } => membership::join(&dialer, place, patience).await,
        }
    }

    async fn count_keys(&self, site: Site<'_>, prefix: &str) -> Result<u64, EngineError> {
        full::count_keys(&Dialer::new(site)?, prefix).await
    }

    async fn relieve(&self, site: Site<'_>, relief: Relief<'_>) -> Result<u64, EngineError> {
        full::relieve(&Dialer::new(site)?, relief).await
    }

    async fn change_user(&self, site: Site<'_>, change: UserChange<'_>) -> Result<(), EngineError> {
        let dialer = Dialer::new(site)?;
        match change {
            UserChange::Add(user) => users::add(&dialer, user).await,
            UserChange::Remove(name) => users::remove(&dialer, name).await,
        }
    }

    async fn restore_users(
        &self,
        site: Site<'_>,
        users: &[DatabaseUser],
        others: &[String],
    ) -> Result<Vec<String>, EngineError> {
        users::restore(&Dialer::new(site)?, users, others).await
    }
}
