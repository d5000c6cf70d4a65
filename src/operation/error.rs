//! Why a step failed, and whether trying again can help.
//!
//! The message is for the user: no path, no secret. The source is for the log.

use crate::{
    backup_store::BackupStoreError, engine::EngineError, provisioner::ProvisionerError,
    seal::SealError, store::StoreError,
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

    /// A failure that stays.
    pub fn last(message: impl Into<String>) -> Self {
        Self::Last {
            message: message.into(),
            source: None,
        }
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
        match error {
            StoreError::Fenced => Self::Fenced,
            StoreError::Missing(_) | StoreError::Unreadable(_) => Self::Last {
                message: "the broker's own records are incomplete".to_owned(),
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
        let message = match &error {
            EngineError::NotReady(_) => "the members are not ready".to_owned(),
            other => other.to_string(),
        };
        match error {
            EngineError::Unexpected(_) => Self::Last {
                message,
                source: None,
            },
            _ => Self::Passing {
                message,
                source: Some(error.into()),
            },
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
        let message = match &error {
            ProvisionerError::Io { .. } => "the cluster's machine refused".to_owned(),
            ProvisionerError::DiskFull { .. } => "the cluster's disk is too full for it".to_owned(),
            ProvisionerError::TaskFailed { binary, .. } => format!("{binary} failed"),
            ProvisionerError::FolderGone { .. } => {
                "the cluster's folder is not there; its operator has to look".to_owned()
            }
            ProvisionerError::RunsElsewhere { .. } => {
                "its members run in another folder of the cluster's machine".to_owned()
            }
            other => other.to_string(),
        };
        match error {
            ProvisionerError::NotInstalled { .. } => Self::Last {
                message,
                source: Some(error.into()),
            },
            _ => Self::Passing {
                message,
                source: Some(error.into()),
            },
        }
    }
}

impl From<BackupStoreError> for StepError {
    fn from(error: BackupStoreError) -> Self {
        let message = match &error {
            BackupStoreError::Io { .. } => "the backup store refused".to_owned(),
            BackupStoreError::Absent { .. } => {
                "the backup store is not there; its operator has to look".to_owned()
            }
            BackupStoreError::Full { .. } => "the backup store is too full for it".to_owned(),
            BackupStoreError::NotFound(_) => "its bytes are missing".to_owned(),
            BackupStoreError::Damaged { reason, .. } => format!("it is damaged: {reason}"),
            other => other.to_string(),
        };
        match error {
            BackupStoreError::Damaged { .. } | BackupStoreError::NotFound(_) => Self::Last {
                message,
                source: Some(error.into()),
            },
            _ => Self::Passing {
                message,
                source: Some(error.into()),
            },
        }
    }
}

impl From<SealError> for StepError {
    fn from(error: SealError) -> Self {
        Self::Last {
            message: "the broker cannot open or seal its secrets".to_owned(),
            source: Some(error.into()),
        }
    }
}
