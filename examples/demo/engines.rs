//! The etcd binaries that the broker offers: their own tools are the ones to check with.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Output,
};

use tokio::process::Command;

use crate::error::{Context, Result, ensure};

/// Where the broker looks for its engines, too.
const FOLDER_VARIABLE: &str = "COMPOSE_BROKER_ENGINES_DIR";

/// The installed versions of etcd.
pub struct Engines {
    etcd: PathBuf,
}

impl Engines {
    /// Finds the folder that the broker uses.
    pub fn find() -> Result<Self> {
        let folder = env::var_os(FOLDER_VARIABLE).unwrap_or_else(|| "engines".into());
        let etcd = Path::new(&folder).join("etcd");
        let etcd = fs::canonicalize(&etcd).context(format!(
            "looking for etcd in {} (`make setup` fetches it; {FOLDER_VARIABLE} names another \
             folder)",
            etcd.display()
        ))?;
        Ok(Self { etcd })
    }

    /// The version of the story, else the oldest one.
    pub fn preferably(&self, version: &str) -> Result<String> {
        let folders = fs::read_dir(&self.etcd).context("listing the installed versions")?;
        let names = folders.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let installed: Vec<String> = names.filter(|name| numbers(name).is_some()).collect();
        choose(&installed, version)
            .ok_or_else(|| format!("no etcd is installed in {}", self.etcd.display()).into())
    }

    /// The folder with the tools of a version.
    pub fn tools(&self, version: &str) -> PathBuf {
        self.etcd.join(version)
    }

    /// The tool of a version that understands snapshot files.
    pub fn snapshot_tool(&self, version: &str) -> PathBuf {
        let tools = self.tools(version);
        let new = tools.join("etcdutl");
        if new.exists() {
            new
        } else {
            tools.join("etcdctl")
        }
    }
}

/// The preferred version if it is there, else the oldest one.
pub fn choose(versions: &[String], preferred: &str) -> Option<String> {
    let is_preferred = |version: &&String| *version == preferred;
    let oldest = || versions.iter().min_by_key(|version| numbers(version));
    versions.iter().find(is_preferred).or_else(oldest).cloned()
}

fn numbers(version: &str) -> Option<[u32; 3]> {
    let numbers = version.split('.').map(|part| part.parse().ok());
    numbers.collect::<Option<Vec<u32>>>()?.try_into().ok()
}

/// Runs a tool to its end and returns what it printed.
pub async fn output_of(command: &mut Command) -> Result<String> {
    let program = command.as_std().get_program().to_owned();
    let program = program.to_string_lossy().into_owned();
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .kill_on_drop(true)
        .output()
        .await
        .context(format!("running {program}"))?;
    ensure(status.success(), || {
        let complaint = String::from_utf8_lossy(&stderr);
        format!("{program} failed ({status}): {}", complaint.trim())
    })?;
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}
