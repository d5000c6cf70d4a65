//! What is written down about a member, so that the next broker can go on.

use std::{collections::BTreeMap, fmt::Write, fs, io, net::SocketAddr, path::Path};

use ring::digest;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    folders::{DeploymentFolder, MemberFolder},
    ports,
    process::ProcessId,
};
use crate::{
    disk,
    model::{
        address::Address,
        ids::DeploymentId,
        server::{DataOfServer, Server, ServerFile},
        version::Version,
    },
    provisioner::ProvisionerError,
};

/// What a member is kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Wanted {
    Running,
    Stopped,
}

/// The member that something belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owner {
    pub(super) deployment: DeploymentId,
    pub(super) member: String,
}

/// `server.json`: a [`Server`] without its secrets. It changes only while no process of the
/// member runs (all but `wanted` and `data`), so whatever process is found was started just so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ServerRecord {
    pub(super) wanted: Wanted,
    pub(super) engine: String,
    pub(super) version: Version,
    pub(super) binary: String,
    /// With `{home}` and `{stage}` still in place.
    pub(super) args: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) ports: Vec<u16>,
    /// Absent in those of earlier versions, which listen at 127.0.0.1.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) addresses: BTreeMap<String, Address>,
    /// Name and SHA-256 of each file, so that a change is noticed.
    pub(super) files: BTreeMap<String, String>,
    /// What must be in its home before it is started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<DataOfServer>,
    /// Whose it is, wherever its folder lies; absent in those of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) owner: Option<Owner>,
}

impl ServerRecord {
    /// The record of a server that is to run.
    pub(super) fn of(server: &Server) -> Self {
        let owned = |(name, value): &(&str, String)| (String::from(*name), value.clone());
        let hashed = |file: &ServerFile| (file.name.to_owned(), sha256(file.contents.expose()));
        Self {
            wanted: Wanted::Running,
            engine: server.program.engine.to_owned(),
            version: server.program.version,
            binary: server.program.binary.to_owned(),
            args: server.args.clone(),
            env: server.env.iter().map(owned).collect(),
            ports: server.addresses.values().map(|at| at.port).collect(),
            addresses: server.addresses.clone(),
            files: server.files.iter().map(hashed).collect(),
            data: server.data.clone(),
            owner: Some(Owner {
                deployment: server.deployment.clone(),
                member: server.member.clone(),
            }),
        }
    }

    /// What it listens at.
    pub(super) fn listens_at(&self) -> Vec<SocketAddr> {
        if self.addresses.is_empty() {
            let of_before = self.ports.iter();
            return of_before.map(|port| ports::on_loopback(*port)).collect();
        }
        self.addresses.values().map(Address::binds).collect()
    }

    /// Whether both describe the same process: what is asked before a start changes nothing of it.
    /// Where it listens, its arguments and files say.
    pub(super) fn runs_as(&self, other: &Self) -> bool {
        let other = Self {
            ports: self.ports.clone(),
            addresses: self.addresses.clone(),
            data: self.data.clone(),
            owner: self.owner.clone(),
            ..other.clone()
        };
        *self == other
    }
}

/// Fails when a folder of a deployment has what belongs to another one: folders were swapped, or a disk
/// was mounted in another's place. Whatever is done there then is done to somebody else's data.
pub(super) fn check_owner(folder: &DeploymentFolder) -> Result<(), ProvisionerError> {
    let deployment = &folder.deployment;
    let failed = ProvisionerError::while_doing(format!("looking at deployment {deployment}"));
    let members = folder.all_members().map_err(failed)?;
    members.iter().try_for_each(check_owner_of_member)
}

/// The same for the folder of one member.
pub(super) fn check_owner_of_member(folder: &MemberFolder) -> Result<(), ProvisionerError> {
    // A record that cannot be read is as good as none, here too.
    let Ok(Some(record)) = read::<ServerRecord>(&folder.server_record()) else {
        return Ok(());
    };
    let deployment = &folder.deployment;
    let is_its = match &record.owner {
        Some(owner) => owner.deployment == *deployment && owner.member == folder.name,
        // Earlier versions named the deployment in the arguments alone.
        None => (record.args.iter()).any(|arg| arg.contains(deployment.as_str())),
    };
    if is_its {
        return Ok(());
    }
    Err(ProvisionerError::NotItsFolder {
        deployment: deployment.to_string(),
        member: folder.name.clone(),
        owner: (record.owner)
            .map(|of| format!("member {} of deployment {}", of.member, of.deployment)),
    })
}

/// `process.json`: the process that was last started for a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProcessRecord {
    pub(super) process: ProcessId,
    /// How often the member was started again by itself.
    pub(super) restarts: u32,
    /// Where its output begins in the member's log, in bytes.
    #[serde(default)]
    pub(super) printed_from: u64,
}

/// Reads a record; `None` when there is none.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let text = disk::there(fs::read(path))?;
    Ok(text.map(|text| serde_json::from_slice(&text)).transpose()?)
}

/// Writes a record.
pub(super) fn write(path: &Path, record: &impl Serialize) -> io::Result<()> {
    disk::write(path, &serde_json::to_vec_pretty(record)?)
}

fn sha256(text: &str) -> String {
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    digest.as_ref().iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("writing to a string never fails");
        hex
    })
}
