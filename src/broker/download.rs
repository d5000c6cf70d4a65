//! Downloads of backups: links that carry their own permission, for a while.

use chrono::DateTime;

use super::{Broker, BrokerError};
use crate::{
    backup_store::{archive, object, pipeline},
    model::{
        backup::{Backup, BackupState},
        deployment::Deployment,
        ids::{BackupId, InstanceId},
        limits::DOWNLOAD_LINK_TTL,
    },
    stream::ByteStream,
};

/// What a link's signature is made for; no other signature serves.
const PURPOSE: &str = "download";

/// A download that has begun.
pub struct Download {
    /// The file's name.
    pub file_name: String,
    /// A gzip'd tar; it breaks off with an error when the backup turns out to be damaged.
    pub content: ByteStream,
}

impl Broker {
    /// The query of a link to a backup's bytes, good from now on for [`DOWNLOAD_LINK_TTL`]; none
    /// for a backup that has no bytes.
    pub fn download_query(&self, backup: &Backup) -> Option<String> {
        if backup.state != BackupState::Complete {
            return None;
        }
        let expires = self.clock.now().timestamp() + DOWNLOAD_LINK_TTL.as_secs().cast_signed();
        let signature = self.keys.sign(PURPOSE, &message(&backup.id, expires));
        Some(format!("expires={expires}&signature={signature}"))
    }

    /// Opens a backup for whoever has a good link to it. A bad link is answered like an unknown
    /// backup, an old one too.
    pub async fn download(
        &self,
        instance: InstanceId,
        id: BackupId,
        expires: &str,
        signature: &str,
    ) -> Result<Download, BrokerError> {
        let bad_link = || {
            BrokerError::NotFound("this link is not good (any more); ask for a new one".to_owned())
        };
        let expires: i64 = expires.parse().map_err(|_| bad_link())?;
        let in_time = DateTime::from_timestamp(expires, 0).is_some_and(|at| at > self.clock.now());
        if !in_time || !self.keys.verify(PURPOSE, &message(&id, expires), signature) {
            return Err(bad_link());
        }
        let known = async {
            let deployment = self.deployment_of(instance.clone()).await?.deployment;
            Ok((deployment, self.backup(instance, id).await?))
        };
        let (deployment, backup) = known.await.map_err(|error| match error {
            BrokerError::NotFound(_) => bad_link(),
            other => other,
        })?;
        let Some(manifest) = backup
            .manifest
            .as_ref()
            .filter(|_| backup.state == BackupState::Complete)
        else {
            return Err(bad_link());
        };
        let name = object::snapshot(&backup.deployment, &backup.id);
        let snapshot =
            pipeline::open_snapshot(self.backups.as_ref(), &name, &manifest.stored).await?;
        Ok(Download {
            file_name: file_name(&deployment, &backup),
            content: archive::download(snapshot, manifest),
        })
    }
}

fn message(id: &BackupId, expires: i64) -> String {
    format!("{id} {expires}")
}

/// The name of a backup in the administration API.
pub fn backup_name(deployment: &Deployment, backup: &Backup) -> String {
    let time = backup.created_at.format("%Y-%m-%d_%H-%M-%S");
    format!("{}_{time}_utc_{}", deployment.name(), backup.kind)
}

/// The same name as a file has it: a platform's instance id may hold anything.
fn file_name(deployment: &Deployment, backup: &Backup) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || "._-".contains(c) {
            c
        } else {
            '_'
        }
    };
    format!(
        "{}.tar.gz",
        backup_name(deployment, backup)
            .chars()
            .map(plain)
            .collect::<String>()
    )
}
