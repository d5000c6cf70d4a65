//! Files on their way to the tasks of a deployment.
//!
//! Invariants: a staged file is there whole or not at all; one that is still being written has a
//! name of its own and is removed when its writing breaks off.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use futures::StreamExt;
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

use super::folders;
use crate::{model::limits::DISK_RESERVE_BYTES, provisioner::ProvisionerError, stream::ByteStream};

/// No staged file begins with this (see [`folders::check_file_name`]).
const UNFINISHED: &str = ".unfinished-";

/// A file that is being written; removed when dropped before it is finished.
pub(super) struct UnfinishedFile {
    /// Of its own for each try, since an earlier one that broke off may still be going away.
    path: PathBuf,
    file: Option<File>,
    bytes_needed: u64,
}

impl UnfinishedFile {
    /// Begins a file of about `bytes_expected` in the folder `stage`.
    pub(super) fn create(stage: &Path, bytes_expected: u64) -> Result<Self, ProvisionerError> {
        let failed = || ProvisionerError::while_doing("creating a staged file");
        folders::create_folder(stage).map_err(failed())?;
        let bytes_needed = check_room(stage, bytes_expected)?;
        let path = stage.join(format!("{UNFINISHED}{}", Uuid::new_v4()));
        let file = folders::private_file()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(failed())?;
        Ok(Self {
            path,
            file: Some(file),
            bytes_needed,
        })
    }

    /// Writes all of `content`, durably, a chunk at a time.
    pub(super) async fn fill(&mut self, mut content: ByteStream) -> Result<(), ProvisionerError> {
        let file = self.file.take().expect("a file is filled once");
        let mut file = tokio::fs::File::from_std(file);
        while let Some(chunk) = content.next().await {
            let chunk = chunk.map_err(ProvisionerError::while_doing(
                "reading what is to be staged",
            ))?;
            file.write_all(&chunk)
                .await
                .map_err(|error| self.write_failed(error))?;
        }
        // Without this, the last write's failure would be lost: `sync_all` does not tell of it.
        file.flush()
            .await
            .map_err(|error| self.write_failed(error))?;
        file.sync_all()
            .await
            .map_err(|error| self.write_failed(error))
    }

    /// Gives the file its name.
    pub(super) fn finish(self, path: &Path) -> Result<(), ProvisionerError> {
        folders::publish(&self.path, path)
            .map_err(ProvisionerError::while_doing("finishing a staged file"))
    }

    /// Others may have used up the disk after it was looked at.
    fn write_failed(&self, error: io::Error) -> ProvisionerError {
        if error.kind() == io::ErrorKind::StorageFull {
            let stage = self.path.parent().expect("a file lies in a folder");
            ProvisionerError::DiskFull {
                needed: self.bytes_needed,
                free: bytes_free(stage).unwrap_or(0),
            }
        } else {
            ProvisionerError::while_doing("writing a staged file")(error)
        }
    }
}

impl Drop for UnfinishedFile {
    fn drop(&mut self) {
        // A finished file has its own name by now. What cannot be removed here goes with the
        // next start of the broker, or with the deployment.
        let _ = folders::remove_file(&self.path);
    }
}

/// Removes what a broker that ended left unfinished.
pub(super) fn remove_unfinished(stage: &Path) -> io::Result<()> {
    for name in folders::names_in(stage)? {
        if name.starts_with(UNFINISHED) {
            folders::remove_file(&stage.join(name))?;
        }
    }
    Ok(())
}

/// Fails when `bytes` do not fit into what is free, less a reserve; returns both together.
pub(super) fn check_room(folder: &Path, bytes: u64) -> Result<u64, ProvisionerError> {
    let needed = bytes.saturating_add(DISK_RESERVE_BYTES);
    let free =
        bytes_free(folder).map_err(ProvisionerError::while_doing("looking at the free disk"))?;
    if free < needed {
        return Err(ProvisionerError::DiskFull { needed, free });
    }
    Ok(needed)
}

fn bytes_free(folder: &Path) -> io::Result<u64> {
    let volume = rustix::fs::statvfs(folder)?;
    Ok(volume.f_bavail.saturating_mul(volume.f_frsize))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::stream;

    use super::*;

    #[tokio::test]
    async fn a_disk_that_fills_up_meanwhile_is_told_as_such() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = UnfinishedFile::create(folder.path(), 1).unwrap();
        file.file = Some(File::options().write(true).open("/dev/full").unwrap());
        let content = stream::iter([Ok(Bytes::from("data")), Ok(Bytes::from("more"))]);
        let error = file.fill(content.boxed()).await.unwrap_err();
        assert!(
            matches!(error, ProvisionerError::DiskFull { .. }),
            "{error}"
        );
        drop(file);
        assert!(folders::names_in(folder.path()).unwrap().is_empty());
    }
}
