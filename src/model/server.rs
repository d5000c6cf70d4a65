//! What a member needs to run: the shared language of engines and provisioners.
//!
//! An engine describes a [`Server`] or a [`Task`]; a provisioner runs it. Neither knows the other.
//! Arguments may contain [`HOME`], [`FILES`] and [`STAGE`], which the provisioner replaces by the
//! places it gives to the member and to the deployment.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{address::Address, ids::DeploymentId, secret::Secret, version::Version};

/// In an argument or a file name: the member's own lasting folder.
pub const HOME: &str = "{home}";
/// In an argument: the folder of the [files](Server::files) that a member is given. It lies apart from
/// the home, which may be emptied or put aside while the files stay.
pub const FILES: &str = "{files}";
/// In an argument: the deployment's folder for files that are handed to tasks
/// (see [`crate::workbench::Workbench::stage`]).
pub const STAGE: &str = "{stage}";

/// A program of an engine, in one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The engine's name.
    pub engine: &'static str,
    /// Which of the installed versions.
    pub version: Version,
    /// The binary's name.
    pub binary: &'static str,
}

/// How the installed programs of an engine are recognised.
#[derive(Debug, Clone, Copy)]
pub struct EngineBinaries {
    /// The engine's name, which is its folder's name too.
    pub engine: &'static str,
    /// The binary that is asked for its version.
    pub probe: &'static str,
    /// The arguments that make it say its version.
    pub probe_args: &'static [&'static str],
    /// Finds the version in what it printed.
    pub parse_version: fn(&str) -> Option<Version>,
    /// The binaries that a version cannot do without.
    pub required: fn(&Version) -> &'static [&'static str],
    /// Whether a version may be used at all.
    pub offered: fn(&Version) -> bool,
}

/// A file that is there before the member starts; readable by the owner alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFile {
    /// Name inside [`FILES`], without folders.
    pub name: &'static str,
    /// Its text; private keys are among these.
    pub contents: Secret,
}

/// One member process, wanted to run until it is stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// The deployment that the member belongs to.
    pub deployment: DeploymentId,
    /// The member's name, unique in its deployment, of the form `m0`.
    pub member: String,
    /// What to run.
    pub program: Program,
    /// Its arguments; no secret may be among them, since other users of the machine can read them.
    pub args: Vec<String>,
    /// Environment variables besides the empty environment that a member gets.
    pub env: Vec<(&'static str, String)>,
    /// Files that must be there first.
    pub files: Vec<ServerFile>,
    /// What the member listens at, by the names of its ports.
    pub addresses: BTreeMap<String, Address>,
    /// What it may use at most.
    pub resources: Resources,
    /// What must be in its home for it to be started; absent: nothing has to be.
    pub data: Option<DataOfServer>,
    /// Where it says whether it serves; absent: it does not, or asks for a login.
    pub probe: Option<Probe>,
}

/// Where a member says to everybody whether it serves, by HTTPS: with a status of 2xx it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The port, by its name among the member's addresses.
    pub port: &'static str,
    /// The path there.
    pub path: &'static str,
    /// The path there by which it says that it is alive, whatever the others do, once it has served.
    pub alive: &'static str,
}

/// What a member may use. A provisioner that divides machines among members reserves it; one whose
/// members share a machine has no use for it, and is given only what its volume was found to have room
/// for ([`Placed`](super::capacity::Placed)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resources {
    /// Bytes in its home: its database, what it writes beside that, and what it needs to copy it.
    pub disk_bytes: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
}

/// Files in a member's home that it cannot do without: a server that has served once, and finds none
/// of them, has lost its data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataOfServer {
    /// Their folder, seen from the home.
    pub folder: String,
    /// How their names end.
    pub suffix: String,
}

/// A member by what is written down about it where it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberSeen {
    /// Its name.
    pub name: String,
    /// The version that it runs, or would.
    pub version: Version,
    /// What it listens at ([`Server::addresses`]); empty where an earlier version wrote it down.
    pub addresses: BTreeMap<String, Address>,
    /// The host that one of an earlier version is reached at.
    pub host: String,
    /// TCP ports it listens on; those of an earlier version are in the order in which its engine has
    /// them.
    pub ports: Vec<u16>,
}

/// A command that runs once beside a member's data and ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// What to run.
    pub program: Program,
    /// Its arguments.
    pub args: Vec<String>,
    /// Environment variables besides the empty environment that a task gets.
    pub env: Vec<(&'static str, String)>,
    /// What the member's server may use: the home of a member that has none yet is made so large.
    pub resources: Resources,
    /// After this long the task is killed and counts as failed.
    pub timeout: Duration,
}
