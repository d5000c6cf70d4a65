//! What members print, for their instance's users: lists, and links that carry their own
//! permission for a while.

use std::sync::Arc;

use futures::{TryStreamExt as _, future::BoxFuture};

use super::{
    BrokerError, BrokerParts, Census, DeploymentView, Download,
    audit::Audit,
    deployment::Deployments,
    download::Downloads,
    link::{Links, as_bad_link},
};
use crate::{
    caller::Caller,
    model::{
        deployment::Deployment,
        download::Taker,
        holder::Holder,
        ids::{DeploymentId, InstanceId, LogfileId},
        limits::LOG_END_BYTES,
        logfile::{LogPart, Logfile},
        session::Session,
        trail::Accessed,
    },
    seal::fingerprint,
    stream::ByteStream,
};

/// What a link's signature is made for; no other signature serves.
const PURPOSE: &str = "logfile";

/// Why logs could not be read.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct LogError(Box<dyn std::error::Error + Send + Sync>);

impl LogError {
    /// Because of `source`.
    pub fn new(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self(Box::new(source))
    }
}

/// Reads what members print. What comes of it has no secrets in it.
pub trait Logs: Send + Sync {
    /// The logs that there are of a deployment, by member.
    fn list(&self, deployment: &Deployment) -> BoxFuture<'_, Result<Vec<Logfile>, LogError>>;

    /// One of them, as text and as it is now; none when it is not there. `last`: at most so many bytes of
    /// its end, from the beginning of a line on; none: all of it.
    fn read(
        &self,
        deployment: &Deployment,
        member: &str,
        part: LogPart,
        last: Option<u64>,
    ) -> BoxFuture<'_, Result<Option<ByteStream>, LogError>>;
}

/// A link to a log, as it was followed.
#[derive(Debug)]
pub struct LogLink {
    /// The instance in its path.
    pub instance: InstanceId,
    /// The deployment in its path.
    pub deployment: DeploymentId,
    /// The log in its path.
    pub logfile: LogfileId,
    /// Until when it is good: seconds since 1970.
    pub expires: String,
    /// The broker's signature.
    pub signature: String,
}

/// The id of a log: the same as long as its deployment is there.
pub fn logfile_id(deployment: &DeploymentId, of: &Logfile) -> LogfileId {
    let what = format!("{deployment}\0{}\0{}", of.member, of.part.as_str());
    let digits = fingerprint(&what)[..24].to_owned();
    LogfileId::try_from(digits).expect("a fingerprint is of hexadecimal digits")
}

/// What a log is called.
pub fn logfile_name(of: &Logfile) -> String {
    match of.part {
        LogPart::Current => format!("{}.log", of.member),
        LogPart::Older => format!("{}.older.log", of.member),
    }
}

fn no_such_log() -> BrokerError {
    BrokerError::NotFound("there is no such logfile".to_owned())
}

/// What members print, for those who reach them.
pub struct Logfiles {
    logs: Arc<dyn Logs>,
    links: Arc<Links>,
    downloads: Arc<Downloads>,
    audit: Arc<Audit>,
    deployments: Arc<Deployments>,
    census: Arc<dyn Census>,
}

impl Logfiles {
    pub(super) fn new(
        parts: &BrokerParts,
        links: Arc<Links>,
        audit: Arc<Audit>,
        deployments: Arc<Deployments>,
    ) -> Self {
        Self {
            logs: parts.logs.clone(),
            links,
            downloads: parts.downloads.clone(),
            audit,
            deployments,
            census: parts.census.clone(),
        }
    }

    /// Fails where another broker looks after the members.
    fn check_here(&self, of: &DeploymentView) -> Result<(), BrokerError> {
        let cluster = &of.deployment.cluster;
        match self.census.looks_after(cluster) {
            true => Ok(()),
            false => Err(BrokerError::Elsewhere(cluster.clone())),
        }
    }

    /// The logs of a deployment's members, by member.
    pub async fn logfiles(&self, of: &DeploymentView) -> Result<Vec<Logfile>, BrokerError> {
        self.check_here(of)?;
        Ok(self.logs.list(&of.deployment).await?)
    }

    /// One of them. No id becomes a path: it is looked for among those that there are.
    pub async fn logfile(
        &self,
        of: &DeploymentView,
        id: &LogfileId,
    ) -> Result<Logfile, BrokerError> {
        let all = self.logfiles(of).await?;
        let is_it = |log: &Logfile| logfile_id(&of.deployment.id, log) == *id;
        all.into_iter().find(is_it).ok_or_else(no_such_log)
    }

    /// The query of a link to a log, good from now on for as long as one to a backup.
    pub async fn log_query(
        &self,
        holder: &Holder,
        of: &Deployment,
        log: &Logfile,
    ) -> Result<String, BrokerError> {
        let held = self.links.held(holder, &of.instance).await?;
        let held = held.ok_or_else(no_such_log)?;
        self.audit
            .note(held.access(Accessed::LogLink, &of.instance, None))
            .await;
        Ok(self
            .links
            .query(PURPOSE, logfile_id(&of.id, log).as_str(), holder))
    }

    /// The last whole lines of a log, for a visitor of the dashboard.
    pub async fn end_of_log(
        &self,
        session: &Session,
        of: &DeploymentView,
        id: &LogfileId,
    ) -> Result<(Logfile, String), BrokerError> {
        let log = self.logfile(of, id).await?;
        let holder = Holder::Session(session.fingerprint.clone());
        let held = self.links.held(&holder, &of.instance.id).await?;
        let held = held.ok_or_else(no_such_log)?;
        self.audit
            .note(held.access(Accessed::Log, &of.instance.id, None))
            .await;
        let last = Some(LOG_END_BYTES);
        let content = self
            .logs
            .read(&of.deployment, &log.member, log.part, last)
            .await?
            .ok_or_else(no_such_log)?;
        let parts: Vec<_> = content.try_collect().await.map_err(LogError::new)?;
        let lines = String::from_utf8_lossy(&parts.concat()).into_owned();
        Ok((log, lines))
    }

    /// Opens a log for the client that has a good link to it. A bad link is answered like an old one.
    pub async fn read_log(&self, link: LogLink) -> Result<Download, BrokerError> {
        let asked = (link.logfile.as_str(), &link.instance);
        let held = self
            .links
            .check(PURPOSE, asked, &link.expires, &link.signature)
            .await?;
        let known = async {
            let of = self
                .deployments
                .deployment(link.instance, &link.deployment)
                .await?;
            let log = self.logfile(&of, &link.logfile).await?;
            Ok((of, log))
        };
        let (of, log) = known.await.map_err(as_bad_link)?;
        let content = self.logs.read(&of.deployment, &log.member, log.part, None);
        let content = content.await?.ok_or_else(no_such_log)?;
        let taker = Taker::of(&of.instance, Caller::current().address);
        let content = self.downloads.send(taker, content)?;
        self.audit
            .note(held.access(Accessed::Log, &of.instance.id, None))
            .await;
        Ok(Download {
            file_name: format!("{}_{}", of.deployment.id, logfile_name(&log)),
            content,
        })
    }
}
