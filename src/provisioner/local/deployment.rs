//! One deployment: its members and its folder. Its holder has its lock.

use std::{collections::BTreeMap, io, path::Path};

use super::{
    discovery::Programs,
    folders::{self, DeploymentFolder},
    member::SupervisedMember,
    process::{self, PlacedProcess},
    record, staging,
};
use crate::{disk, model::ids::DeploymentId, provisioner::ProvisionerError};

/// A deployment of which something may be here.
#[derive(Debug)]
pub(super) struct Deployment {
    pub(super) folder: DeploymentFolder,
    members: BTreeMap<String, SupervisedMember>,
}

impl Deployment {
    /// One of which nothing is known.
    pub(super) fn new(cluster: &Path, id: &DeploymentId) -> Self {
        Self {
            folder: DeploymentFolder::new(cluster, id),
            members: BTreeMap::new(),
        }
    }

    /// Takes over what an earlier broker left on disk; `running` are the processes of the cluster.
    pub(super) fn adopt(
        cluster: &Path,
        id: &DeploymentId,
        running: &[PlacedProcess],
    ) -> Result<Self, ProvisionerError> {
        let mut deployment = Self::new(cluster, id);
        record::check_owner(&deployment.folder)?;
        let failed = || ProvisionerError::while_doing(format!("taking over deployment {id}"));
        staging::remove_unfinished(&deployment.folder.stage()).map_err(failed())?;
        for folder in deployment.folder.all_members().map_err(failed())? {
            let name = folder.name.clone();
            let member = SupervisedMember::adopt(folder, running)?;
            deployment.members.insert(name, member);
        }
        Ok(deployment)
    }

    /// Members that have a process.
    pub(super) fn running(&self) -> usize {
        let members = self.members.values();
        members.filter(|member| member.has_process()).count()
    }

    /// The member of that name, to be made or changed.
    pub(super) fn member(&mut self, name: &str) -> &mut SupervisedMember {
        let folder = &self.folder;
        self.members
            .entry(name.to_owned())
            .or_insert_with(|| SupervisedMember::new(folder.member(name)))
    }

    /// The member of that name if there is one.
    pub(super) fn known_member(&mut self, name: &str) -> Option<&mut SupervisedMember> {
        self.members.get_mut(name)
    }

    /// One look of the supervisor at all members.
    pub(super) fn look_after(&mut self, programs: &Programs) {
        for member in self.members.values_mut() {
            member.look_after(programs);
        }
    }

    /// Whether nothing is here any more.
    pub(super) fn is_gone(&self) -> bool {
        self.members.is_empty() && !self.folder.path().exists()
    }

    /// See [`crate::provisioner::Provisioner::destroy`].
    pub(super) fn destroy(&mut self, programs: &Programs) -> Result<(), ProvisionerError> {
        let id = &self.folder.deployment;
        let failed = ProvisionerError::while_doing(format!("destroying deployment {id}"));
        self.try_destroy(programs).map_err(failed)
    }

    fn try_destroy(&mut self, programs: &Programs) -> io::Result<()> {
        let path = self.folder.path().to_owned();
        let destroyed = self.folder.destroyed();
        let nothing_here = !path.exists() && !destroyed.exists();
        if nothing_here && self.members.is_empty() {
            return Ok(());
        }
        // Under its new name nothing of it is started again, however this goes on.
        folders::remove_folder(&destroyed)?;
        disk::there(disk::rename(&path, &destroyed))?;
        // The data goes away, so there is nothing to be gained from a gentle end. Processes may
        // be known by the old path or by the new one.
        process::kill_all(|| {
            let mut all = process::processes_below(&path, programs.root())?.ours;
            all.extend(process::processes_below(&destroyed, programs.root())?.ours);
            let known = self
                .members
                .values()
                .filter_map(SupervisedMember::process)
                .cloned();
            Ok(all
                .into_iter()
                .map(|found| found.process)
                .chain(known)
                .collect())
        })?;
        for member in self.members.values_mut() {
            member.wait_for_child()?;
        }
        self.members.clear();
        // A member that was just beginning may have made its folder once more, under the old name.
        folders::remove_folder(&path)?;
        folders::remove_folder(&destroyed)
    }
}
