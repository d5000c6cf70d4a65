//! Why a step failed, and whether trying again can help.
//!
//! The message is for the user: no path, no secret. The source is for the log and for operators.

use std::{error::Error, io};

use rustix::io::Errno;

use crate::{
    backups::BackupStoreError, engine::EngineError, model::size::size,
    provisioner::ProvisionerError, registrar::RegistrarError, seal::SealError, store::StoreError,
};

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// It may work the next time.
    #[error("{message}")]
    Passing {
        /// For people.
        message: String,
        /// For the log.
        #[source]
        source: Option<Source>,
    },
    /// The machine or the store is short of something. Nobody knows whether it would work, so this
    /// counts as no try.
    #[error("{message}")]
    Shortage {
        /// For people.
        message: String,
        /// For the log.
        #[source]
        source: Option<Source>,
    },
    /// It will not work however often it is tried.
    #[error("{message}")]
    Last {
        /// For people.
        message: String,
        /// For the log.
        #[source]
        source: Option<Source>,
    },
    /// Another worker has the operation now.
    #[error("another worker has the operation now")]
    Fenced,
}

impl StepError {
    /// A failure that may pass.
    pub fn passing(message: impl Into<String>) -> Self {
        Self::Passing {
            message: message.into(),
            source: None,
        }
    }

    /// Members that do not answer.
    pub(super) fn silence(meaning: &str) -> Self {
        let error = EngineError::Call {
            doing: "asking the members",
            meaning: meaning.to_owned(),
            is_final: false,
            is_silence: true,
            source: io::Error::from(io::ErrorKind::TimedOut).into(),
        };
        error.into()
    }

    /// The machine or the store is short of something.
    pub fn shortage(message: impl Into<String>) -> Self {
        Self::Shortage {
            message: message.into(),
            source: None,
        }
    }

    /// A failure that stays.
    pub fn last(message: impl Into<String>) -> Self {
        Self::Last {
            message: message.into(),
            source: None,
        }
    }

    /// A failure that may pass, or a shortage where one is at the bottom of it.
    fn from_below(message: String, source: impl Into<Source>) -> Self {
        let source = source.into();
        let shortage = shortage(source.as_ref()).map(words);
        let source = Some(source);
        match shortage {
            None => Self::Passing { message, source },
            Some(why) if message.ends_with(&why) => Self::Shortage { message, source },
            Some(why) => Self::Shortage {
                message: format!("{message}: {why}"),
                source,
            },
        }
    }

    /// Whether members gave no answer.
    pub fn is_silence(&self) -> bool {
        let source = match self {
            Self::Passing { source, .. } => source.as_ref(),
            _ => None,
        };
        let engine = source.and_then(|source| source.downcast_ref::<EngineError>());
        engine.is_some_and(EngineError::is_silence)
    }

    /// The same failure, if it stays, told of a certain thing.
    pub fn about(self, what: impl std::fmt::Display) -> Self {
        match self {
            Self::Last { message, source } => Self::Last {
                message: format!("{what}: {message}"),
                source,
            },
            other => other,
        }
    }

    /// Something recorded cannot be read by this version of the broker.
    pub fn unreadable(source: serde_json::Error) -> Self {
        Self::Last {
            message: "the broker cannot read what it recorded".to_owned(),
            source: Some(source.into()),
        }
    }
}

impl From<StoreError> for StepError {
    fn from(error: StoreError) -> Self {
        let is_short = error.is_shortage();
        match error {
            StoreError::Fenced => Self::Fenced,
            StoreError::Missing(_) | StoreError::Unreadable(_) => Self::Last {
                message: "the broker's own records are incomplete".to_owned(),
                source: Some(error.into()),
            },
            full if full.is_full() => Self::Shortage {
                message: "the disk of the broker's store is full".to_owned(),
                source: Some(full.into()),
            },
            _ if is_short => Self::Shortage {
                message: "the broker's store does not answer".to_owned(),
                source: Some(error.into()),
            },
            _ => Self::Passing {
                message: "the broker's store did not answer".to_owned(),
                source: Some(error.into()),
            },
        }
    }
}

impl From<EngineError> for StepError {
    fn from(error: EngineError) -> Self {
        let message = error.to_string();
        match error {
            EngineError::Workbench(error) => error.into(),
            EngineError::Unexpected(_) => Self::Last {
                message,
                source: None,
            },
            EngineError::Call { is_final: true, .. }
            | EngineError::Output { .. }
            | EngineError::Certificates(_) => Self::Last {
                message,
                source: Some(error.into()),
            },
            _ => Self::from_below(message, error),
        }
    }
}

impl From<ProvisionerError> for StepError {
    fn from(error: ProvisionerError) -> Self {
        let error = match error {
            // A stream out of the backup store broke off on its way to the cluster.
            ProvisionerError::Io { doing, source } => match source.downcast::<BackupStoreError>() {
                Ok(error) => return error.into(),
                Err(source) => ProvisionerError::Io { doing, source },
            },
            other => other,
        };
        let message = told(&error);
        match &error {
            ProvisionerError::NotInstalled { .. }
            | ProvisionerError::BadName(_)
            | ProvisionerError::NameTaken { .. }
            | ProvisionerError::NoGrowth { .. }
            | ProvisionerError::NotOurAddress { .. } => Self::Last {
                message,
                source: Some(error.into()),
            },
            // Its disk is not mounted, or it was copied or swapped: that is for the operator to mend.
            ProvisionerError::FolderGone { .. }
            | ProvisionerError::RunsElsewhere { .. }
            | ProvisionerError::NotItsFolder { .. }
            // It may be mended at any time, and nobody knows when: a server that is away, a right or a
            // quota that is lacking, a node that is full or lost. Or another broker goes on with it.
            | ProvisionerError::LookedAfterElsewhere { .. }
            | ProvisionerError::ClusterSilent { .. }
            | ProvisionerError::ClusterRefuses { .. }
            | ProvisionerError::NotStarted { .. }
            | ProvisionerError::NotEnded { .. }
            | ProvisionerError::Remains { .. } => Self::Shortage {
                message,
                source: Some(error.into()),
            },
            ProvisionerError::TaskFailed { output, .. } if tells_of_shortage(output) => {
                Self::Shortage {
                    message,
                    source: Some(error.into()),
                }
            }
            _ => Self::from_below(message, error),
        }
    }
}

/// What a provisioner said, for the user.
fn told(error: &ProvisionerError) -> String {
    match error {
        ProvisionerError::Io { source, .. } => {
            format!("the cluster's machine refused: {}", words(source))
        }
        ProvisionerError::DiskFull { needed, free } => {
            format!(
                "the cluster's disk is too full for it: {}",
                room(*needed, Some(*free))
            )
        }
        ProvisionerError::TaskFailed { binary, status, .. } => {
            format!("{binary} failed ({status})")
        }
        ProvisionerError::FolderGone { .. } => {
            "the cluster's folder is not there; its operator has to look".to_owned()
        }
        ProvisionerError::RunsElsewhere { .. } => {
            "its members run in another folder of the cluster's machine".to_owned()
        }
        ProvisionerError::NotItsFolder { .. } => {
            "its folder on the cluster's machine belongs to another deployment; the operator \
             has to look"
                .to_owned()
        }
        ProvisionerError::NotStarted { what, told, .. } => {
            format!("{what} does not start: {told}; the cluster's operator has to look")
        }
        ProvisionerError::Remains { .. } => {
            "the cluster keeps something of it that was told to go; its operator has to look"
                .to_owned()
        }
        ProvisionerError::NoGrowth {
            member, from, to, ..
        } => {
            format!(
                "the volume of member {member} has {} and cannot grow to {}: the cluster's storage does not allow \
                 it; its operator has to look, or restore a backup into a larger instance",
                size(*from),
                size(*to)
            )
        }
        // What an API server says names accounts and namespaces.
        ProvisionerError::ClusterRefuses { .. } | ProvisionerError::NameTaken { .. } => {
            "the cluster refuses; its operator has to look".to_owned()
        }
        other => other.to_string(),
    }
}

impl From<RegistrarError> for StepError {
    fn from(error: RegistrarError) -> Self {
        match error {
            RegistrarError::Store(error) => error.into(),
            RegistrarError::Backups(error) => error.into(),
        }
    }
}

impl From<BackupStoreError> for StepError {
    fn from(error: BackupStoreError) -> Self {
        let message = match &error {
            BackupStoreError::Io { source, .. } => {
                format!("the backup store refused: {}", words(source))
            }
            BackupStoreError::Full { needed, free } => {
                format!(
                    "the backup store is too full for it: {}",
                    room(*needed, *free)
                )
            }
            BackupStoreError::Absent { .. } => {
                "the backup store is not there; its operator has to look".to_owned()
            }
            BackupStoreError::Server { may_pass: true, .. } => {
                "the backup store cannot be reached, or is too busy".to_owned()
            }
            BackupStoreError::Server { .. } => {
                "the backup store refuses; its operator has to look".to_owned()
            }
            BackupStoreError::KeyMissing { .. } => {
                "it is sealed under a key that the broker lacks; its operator has to look"
                    .to_owned()
            }
            BackupStoreError::ForTenant { .. } => {
                "it is sealed for the key of its tenant, which the broker has not".to_owned()
            }
            BackupStoreError::NotSealed(_) => "the broker cannot seal it".to_owned(),
            BackupStoreError::NotFound(_) => "its bytes are missing".to_owned(),
            BackupStoreError::Damaged { reason, .. } => format!("it is damaged: {reason}"),
            other => other.to_string(),
        };
        match error {
            BackupStoreError::Damaged { .. }
            | BackupStoreError::NotFound(_)
            | BackupStoreError::ForTenant { .. } => Self::Last {
                message,
                source: Some(error.into()),
            },
            // Its disk is not mounted, its server not there, or refuses, or its key was taken out of the
            // ring: that is for the operator to mend.
            BackupStoreError::Absent { .. }
            | BackupStoreError::KeyMissing { .. }
            | BackupStoreError::Server { .. }
            | BackupStoreError::Full { free: None, .. } => Self::Shortage {
                message,
                source: Some(error.into()),
            },
            _ => Self::from_below(message, error),
        }
    }
}

/// What the system is short of, or where it cannot write for now, at the bottom of an error.
fn shortage<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    const SHORT: [Errno; 7] = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOSPC,
        Errno::DQUOT,
        Errno::IO,
        Errno::ROFS,
        Errno::NOMEM,
    ];
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            let code = error.raw_os_error();
            if SHORT.iter().any(|errno| Some(errno.raw_os_error()) == code) {
                return Some(error);
            }
            // What an error of the system's kind was made of is not its source.
            if let Some(inner) = error.get_ref()
                && let Some(found) = shortage(inner)
            {
                return Some(found);
            }
        }
        next = error.source();
    }
    None
}

/// Whether a program says that the system is short of something.
fn tells_of_shortage(printed: &str) -> bool {
    let printed = printed.to_lowercase();
    [
        "too many open files",
        "no space left on device",
        "disk quota exceeded",
        "input/output error",
        "read-only file system",
        "cannot allocate memory",
    ]
    .iter()
    .any(|text| printed.contains(text))
}

/// What the system said, without names of files.
fn words(error: &io::Error) -> String {
    let said = match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code).to_string(),
        None => error.kind().to_string(),
    };
    let end = said.find(" (os error").unwrap_or(said.len());
    said[..end].to_lowercase()
}

fn room(needed: u64, free: Option<u64>) -> String {
    let mebibytes = |bytes: u64| bytes.div_ceil(1024 * 1024);
    let Some(free) = free else {
        return format!("{} MiB and more are needed", mebibytes(needed));
    };
    // A write that found no room knows no number.
    if needed <= free {
        return format!("{} MiB are free", mebibytes(free));
    }
    format!(
        "{} MiB are needed, {} MiB are free",
        mebibytes(needed),
        free / (1024 * 1024)
    )
}

impl From<SealError> for StepError {
    fn from(error: SealError) -> Self {
        Self::Last {
            message: "the broker cannot open or seal its secrets".to_owned(),
            source: Some(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn io(errno: Errno) -> io::Error {
        io::Error::from_raw_os_error(errno.raw_os_error())
    }

    #[test]
    fn what_an_api_server_says_is_not_for_users() {
        let error = StepError::from(ProvisionerError::NoGrowth {
            member: "m0".to_owned(),
            from: 1 << 30,
            to: 2 << 30,
            why: "User system:serviceaccount:broker may not".to_owned(),
        });
        let StepError::Last { message, .. } = &error else {
            panic!("{error:?}");
        };
        assert!(
            message.contains("has 1.0 GiB and cannot grow to 2.0 GiB"),
            "{message}"
        );
        assert!(!message.contains("serviceaccount"), "{message}");
    }

    #[test]
    fn what_the_system_is_short_of_is_a_shortage_however_deep_it_lies() {
        for errno in [
            Errno::MFILE,
            Errno::NFILE,
            Errno::NOSPC,
            Errno::IO,
            Errno::ROFS,
        ] {
            let inner = BackupStoreError::Io {
                doing: "writing /data/backups/x".to_owned(),
                source: io(errno),
            };
            let outer = ProvisionerError::Io {
                doing: "staging".to_owned(),
                source: io::Error::from(inner),
            };
            let error = StepError::from(outer);
            let StepError::Shortage { message, .. } = &error else {
                panic!("{error:?}");
            };
            assert!(!message.contains("/data"), "{message}");
            let engine = EngineError::Call {
                doing: "taking a snapshot",
                meaning: "a member cannot be reached".to_owned(),
                is_final: false,
                is_silence: false,
                source: Box::new(io::Error::other(io(errno))),
            };
            let error = StepError::from(engine);
            assert!(matches!(error, StepError::Shortage { .. }), "{error:?}");
        }
        let refused = ProvisionerError::Io {
            doing: "starting /data/engines/etcd".to_owned(),
            source: io(Errno::CONNREFUSED),
        };
        let error = StepError::from(refused);
        assert!(matches!(error, StepError::Passing { .. }), "{error:?}");
        assert_eq!(
            error.to_string(),
            "the cluster's machine refused: connection refused"
        );
    }

    #[test]
    fn a_program_that_finds_no_room_has_not_failed() {
        for (output, is_short) in [
            ("open /x: too many open files", true),
            ("write /x: No space left on device", true),
            ("snapshot file integrity check failed", false),
        ] {
            let failed = ProvisionerError::TaskFailed {
                binary: "etcdutl",
                status: "exit status: 1".to_owned(),
                output: output.to_owned(),
            };
            let error = StepError::from(failed);
            assert_eq!(matches!(error, StepError::Shortage { .. }), is_short);
            assert_eq!(error.to_string(), "etcdutl failed (exit status: 1)");
        }
    }
}
