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

use super::folders;
use crate::{
    disk::{self, Unfinished},
    model::limits::DISK_RESERVE_BYTES,
    provisioner::ProvisionerError,
    stream::ByteStream,
};

/// A file that is being written; removed when dropped before it is finished.
pub(super) struct UnfinishedFile {
    stage: PathBuf,
    unfinished: Unfinished,
    file: Option<File>,
    bytes_needed: u64,
}

impl UnfinishedFile {
    /// Begins a file of about `bytes_expected` in the folder `stage`.
    pub(super) fn create(
        stage: PathBuf,
        name: &str,
        bytes_expected: u64,
    ) -> Result<Self, ProvisionerError> {
        let failed = || ProvisionerError::while_doing("creating a staged file");
        disk::make_folder(&stage).map_err(failed())?;
        let bytes_needed = check_room(&stage, bytes_expected)?;
        let (unfinished, file) = Unfinished::beside(&stage.join(name)).map_err(failed())?;
        Ok(Self {
            stage,
            unfinished,
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
        disk::sync(&mut file)
            .await
            .map_err(|error| self.write_failed(error))
    }

    /// Gives the file its name.
    pub(super) fn finish(self) -> Result<(), ProvisionerError> {
        self.unfinished
            .publish()
            .map_err(ProvisionerError::while_doing("finishing a staged file"))
    }

    /// Others may have used up the disk after it was looked at.
    fn write_failed(&self, error: io::Error) -> ProvisionerError {
        if disk::is_full(&error) {
            let space = disk::space(&self.stage);
            ProvisionerError::DiskFull {
                needed: self.bytes_needed,
                free: space.map_or(0, |space| space.free),
            }
        } else {
            ProvisionerError::while_doing("writing a staged file")(error)
        }
    }
}

/// Removes what a broker that ended left unfinished: no staged file begins with a dot (see
/// [`crate::provisioner::names::check_file_name`]).
pub(super) fn remove_unfinished(stage: &Path) -> io::Result<()> {
    for name in disk::names_in(stage)? {
        if name.starts_with('.') {
            folders::remove_file(&stage.join(name))?;
        }
    }
    Ok(())
}

/// Fails when `bytes` do not fit into what is free, less a reserve; returns both together.
pub(super) fn check_room(folder: &Path, bytes: u64) -> Result<u64, ProvisionerError> {
    let needed = bytes.saturating_add(DISK_RESERVE_BYTES);
    let failed = ProvisionerError::while_doing("looking at the free disk");
    let free = disk::space(folder).map_err(failed)?.free;
    if free < needed {
        return Err(ProvisionerError::DiskFull { needed, free });
    }
    Ok(needed)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::stream;

    use super::*;

    #[tokio::test]
    async fn a_disk_that_fills_up_meanwhile_is_told_as_such() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = UnfinishedFile::create(folder.path().to_owned(), "s.db", 1).unwrap();
        file.file = Some(File::options().write(true).open("/dev/full").unwrap());
        let content = stream::iter([Ok(Bytes::from("data")), Ok(Bytes::from("more"))]);
        let error = file.fill(content.boxed()).await.unwrap_err();
        assert!(
            matches!(error, ProvisionerError::DiskFull { .. }),
            "{error}"
        );
        drop(file);
        assert!(disk::names_in(folder.path()).unwrap().is_empty());
    }
}
