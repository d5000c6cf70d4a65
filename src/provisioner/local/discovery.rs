//! Which engines are installed, in which versions.
//!
//! `<engines>/<engine>/<any name>/` holds the binaries of one version. The name of that folder
//! proves nothing: the main binary is asked. What does not answer, is not complete or is not
//! offered is left out with a warning, since one broken folder must not take the rest along.
//! Members of a version that is left out cannot be started, so on a machine that is busy each has
//! a second chance.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use futures::future::join_all;
use rustix::fs::Access;

use super::{
    process,
    task::{EndedTask, RunningTask},
};
use crate::{
    disk,
    model::{
        limits::discovery::{VERSION_PROBE_ALONE_TIMEOUT, VERSION_PROBE_TIMEOUT},
        server::EngineBinaries,
        version::Version,
    },
    provisioner::ProvisionerError,
};

/// Why a folder is left out.
#[derive(Debug, thiserror::Error)]
enum Skipped {
    /// Its binary did not answer in time.
    #[error("{0} does not answer")]
    Silent(String),
    /// It has nothing that can be used.
    #[error("{0}")]
    Unusable(String),
}

/// The programs that are installed.
#[derive(Debug)]
pub(super) struct Programs {
    root: PathBuf,
    folders: BTreeMap<(String, Version), PathBuf>,
}

impl Programs {
    /// Asks all binaries below `root`, an absolute path.
    pub(super) async fn discover(root: PathBuf, engines: &[EngineBinaries]) -> io::Result<Self> {
        let mut candidates = Vec::new();
        for engine in engines {
            let folder = root.join(engine.engine);
            for name in disk::names_in(&folder)? {
                let folder = folder.join(name);
                // Beside the versions there may be files, such as a lock.
                if folder.is_dir() {
                    candidates.push((engine, folder));
                }
            }
        }
        let answers = join_all(
            candidates
                .iter()
                .map(|(engine, folder)| examine(engine, folder, VERSION_PROBE_TIMEOUT)),
        );
        let mut answers = answers.await;
        for ((engine, folder), answer) in candidates.iter().zip(&mut answers) {
            // The others no longer take the processors from it.
            if let Err(Skipped::Silent(_)) = answer {
                *answer = examine(engine, folder, VERSION_PROBE_ALONE_TIMEOUT).await;
            }
        }
        let mut programs = Self {
            root,
            folders: BTreeMap::new(),
        };
        for ((engine, folder), answer) in candidates.into_iter().zip(answers) {
            let place = folder.display().to_string();
            let added = answer.and_then(|version| {
                let added = programs.add(engine.engine, version, folder);
                added.map_err(Skipped::Unusable)
            });
            if let Err(reason) = added {
                log::warn!(engine = engine.engine, folder = place.as_str(); "skipped: {reason}");
            }
        }
        Ok(programs)
    }

    fn add(&mut self, engine: &str, version: Version, folder: PathBuf) -> Result<(), String> {
        match self.folders.entry((engine.to_owned(), version)) {
            Entry::Vacant(free) => {
                free.insert(folder);
                Ok(())
            }
            Entry::Occupied(_) => Err(format!("version {version} was found already")),
        }
    }

    /// The folder that holds all programs.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The versions of an engine, oldest first.
    pub(super) fn versions(&self, engine: &str) -> Vec<Version> {
        let of_engine = self.folders.keys().filter(|(name, _)| name == engine);
        of_engine.map(|(_, version)| *version).collect()
    }

    /// Where a binary is.
    pub(super) fn binary(
        &self,
        engine: &str,
        version: Version,
        binary: &str,
    ) -> Result<PathBuf, ProvisionerError> {
        self.folders
            .get(&(engine.to_owned(), version))
            .map(|folder| folder.join(binary))
            .filter(|path| is_executable(path))
            .ok_or_else(|| ProvisionerError::NotInstalled {
                engine: engine.to_owned(),
                version,
            })
    }
}

/// The version in a folder, or why there is none to be used.
async fn examine(
    engine: &EngineBinaries,
    folder: &Path,
    limit: Duration,
) -> Result<Version, Skipped> {
    let answer = ask(&folder.join(engine.probe), engine.probe_args, limit).await?;
    let unusable = |why: String| Err(Skipped::Unusable(why));
    let Some(version) = (engine.parse_version)(&answer) else {
        return unusable(format!("{} does not say its version", engine.probe));
    };
    if !(engine.offered)(&version) {
        return unusable(format!("version {version} is not offered"));
    }
    for binary in (engine.required)(&version) {
        if !is_executable(&folder.join(binary)) {
            return unusable(format!("version {version} has no executable {binary}"));
        }
    }
    Ok(version)
}

async fn ask(binary: &Path, args: &[&str], limit: Duration) -> Result<String, Skipped> {
    let place = binary.parent().expect("a binary lies in a folder");
    let mut command = process::command(binary, place);
    command.args(args);
    let name = binary.display();
    let ended = match RunningTask::spawn(command) {
        Ok(task) => task.end(limit).await,
        Err(error) => Err(error),
    };
    match ended {
        Ok(Some(ended)) if ended.status.success() => Ok(ended.output()),
        Ok(Some(EndedTask { status, .. })) => {
            Err(Skipped::Unusable(format!("{name} failed ({status})")))
        }
        Ok(None) => Err(Skipped::Silent(name.to_string())),
        Err(error) => Err(Skipped::Unusable(format!("{name} cannot be run: {error}"))),
    }
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file())
        && rustix::fs::access(path, Access::EXEC_OK).is_ok()
}
