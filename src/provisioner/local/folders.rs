//! Where everything lies on disk.
//!
//! ```text
//! <cluster>/.lock                            held by the broker that looks after the cluster
//! <cluster>/<deployment>/stage/              files for tasks
//! <cluster>/<deployment>/aside/<name>/<member>/home/   what a member had before a recovery
//! <cluster>/<deployment>/members/<member>/
//!     home/                                  the member's own
//!     files/                                 what it is given: certificates and keys
//!     server.json                            what is wanted of it
//!     process.json                           the process that was started for it
//!     member.log, member.log.1               what it printed (member.log.new: a copy in the making)
//! <cluster>/<deployment>.destroyed/          what is left of a deployment that is going away
//! ```
//!
//! Invariants: folders and files are the owner's alone; what is written here is there whole or not
//! at all, also after a power failure; no name leads out of its folder.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    disk::{self, names_in, there},
    model::{ids::DeploymentId, server},
    provisioner::{FileSeen, names},
};

/// The cluster's lock file.
pub(super) const LOCK: &str = ".lock";
const DESTROYED: &str = ".destroyed";

/// The folder of one deployment.
#[derive(Debug, Clone)]
pub(super) struct DeploymentFolder {
    pub(super) deployment: DeploymentId,
    path: PathBuf,
}

impl DeploymentFolder {
    pub(super) fn new(cluster: &Path, deployment: &DeploymentId) -> Self {
        Self {
            deployment: deployment.clone(),
            path: cluster.join(deployment.as_str()),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the folder goes when its deployment is destroyed: out of the way of everything that
    /// would start a member again.
    pub(super) fn destroyed(&self) -> PathBuf {
        self.path
            .with_file_name(format!("{}{DESTROYED}", self.deployment))
    }

    pub(super) fn stage(&self) -> PathBuf {
        self.path.join("stage")
    }

    fn members(&self) -> PathBuf {
        self.path.join("members")
    }

    pub(super) fn member(&self, name: &str) -> MemberFolder {
        MemberFolder {
            deployment: self.deployment.clone(),
            name: name.to_owned(),
            deployment_folder: self.path.clone(),
            path: self.members().join(name),
            stage: self.stage(),
            aside: self.path.join("aside"),
        }
    }

    /// The folders of all members, sorted by name.
    pub(super) fn all_members(&self) -> io::Result<Vec<MemberFolder>> {
        let names = names_in(&self.members())?;
        Ok(names
            .iter()
            .filter(|name| names::check_member_name(name).is_ok())
            .map(|name| self.member(name))
            .collect())
    }

    /// What a look finds at each member, sorted by the members' names.
    pub(super) fn look_at_members<T>(
        &self,
        look: impl Fn(&MemberFolder) -> io::Result<Option<T>>,
    ) -> io::Result<Vec<T>> {
        let members = self.all_members()?;
        members.iter().filter_map(|m| look(m).transpose()).collect()
    }
}

/// The folder of one member.
#[derive(Debug, Clone)]
pub(super) struct MemberFolder {
    pub(super) deployment: DeploymentId,
    pub(super) name: String,
    deployment_folder: PathBuf,
    path: PathBuf,
    stage: PathBuf,
    aside: PathBuf,
}

impl MemberFolder {
    /// The folder itself: the place of the member's tasks.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of its deployment, with those of all its members.
    pub(super) fn deployment_folder(&self) -> &Path {
        &self.deployment_folder
    }

    /// The member's own folder: the place of its server.
    pub(super) fn home(&self) -> PathBuf {
        self.path.join("home")
    }

    /// What the server is given.
    pub(super) fn files(&self) -> PathBuf {
        self.path.join("files")
    }

    /// Where what was in the home goes when it is set aside under a name.
    pub(super) fn aside(&self, name: &str) -> PathBuf {
        self.aside.join(name).join(&self.name).join("home")
    }

    pub(super) fn server_record(&self) -> PathBuf {
        self.path.join("server.json")
    }

    pub(super) fn process_record(&self) -> PathBuf {
        self.path.join("process.json")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.path.join("member.log")
    }

    pub(super) fn older_log(&self) -> PathBuf {
        self.path.join("member.log.1")
    }

    /// What will be the older log.
    pub(super) fn unfinished_log(&self) -> PathBuf {
        self.path.join("member.log.new")
    }

    /// Puts the places of this member into an argument.
    pub(super) fn fill_in(&self, text: &str) -> String {
        // Lossless: a cluster folder whose path is no UTF-8 is refused when it is opened.
        text.replace(server::HOME, &self.home().to_string_lossy())
            .replace(server::FILES, &self.files().to_string_lossy())
            .replace(server::STAGE, &self.stage.to_string_lossy())
    }
}

/// Whether a place in a cluster is a member's home: `<deployment>/members/<member>/home`. A task's
/// place is one above it. (Names do not tell the two apart: a member may be called `home`.)
pub(super) fn is_home(cluster: &Path, place: &Path) -> bool {
    let inside = place.strip_prefix(cluster);
    inside.is_ok_and(|inside| inside.components().count() == 4)
}

/// The deployments of which anything is left in `cluster`: sound ones, then half destroyed ones.
pub(super) fn deployments_in(cluster: &Path) -> io::Result<(Vec<DeploymentId>, Vec<DeploymentId>)> {
    let names = names_in(cluster)?;
    let ids = |suffix: &str| {
        names
            .iter()
            .filter_map(|name| name.strip_suffix(suffix)?.parse().ok())
            .collect()
    };
    Ok((ids(""), ids(DESTROYED)))
}

/// The files in a folder, sorted by name; what goes away meanwhile is left out.
pub(super) fn files_in(folder: &Path) -> io::Result<Vec<FileSeen>> {
    let mut files = Vec::new();
    for name in names_in(folder)? {
        let seen = there(fs::symlink_metadata(folder.join(&name)))?;
        if let Some(seen) = seen.filter(fs::Metadata::is_file) {
            files.push(FileSeen {
                name,
                bytes: seen.len(),
                bytes_on_disk: disk::bytes_on_disk(&seen),
                written_at: seen.modified()?.into(),
            });
        }
    }
    Ok(files)
}

/// Removes a file; one that is not there is fine.
pub(super) fn remove_file(path: &Path) -> io::Result<()> {
    there(fs::remove_file(path)).map(|_| ())
}

/// Removes a folder with all that is in it; one that is not there is fine.
pub(super) fn remove_folder(path: &Path) -> io::Result<()> {
    there(fs::remove_dir_all(path)).map(|_| ())
}
