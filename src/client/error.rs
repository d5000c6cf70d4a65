//! Why a command of the client did not do what it was asked for.

use std::{io, path::PathBuf};

use crate::config::ConfigError;

/// What the client's functions return.
pub type Result<T> = std::result::Result<T, Error>;

/// Why something was not done. The texts are for people, and may quote a broker.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line asks for what makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A setting cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The broker said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It was not done, and this is why.
    #[error("{0}")]
    Failed(String),
    /// The user wants to wait no longer; what goes on and how to look at it.
    #[error("{0}")]
    Interrupted(String),
    /// A request did not get its answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// A file of this machine cannot be used.
    #[error("{}", file.display())]
    File {
        /// Which one.
        file: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// An answer of a broker that is a no.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.text())]
pub struct Refusal {
    /// The status of the answer.
    pub status: u16,
    /// OSB's word for it, if there is one.
    pub code: Option<String>,
    /// What the broker says.
    pub description: Option<String>,
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The broker has not heard of it.
    #[error("{0}")]
    NotSent(String),
    /// Nobody can know whether the broker did it.
    #[error("{0}")]
    Lost(String),
    /// The user wants it no longer.
    #[error("interrupted")]
    Interrupted,
}

impl Refusal {
    fn text(&self) -> String {
        let what = match self.status {
            401 => "the broker does not know these credentials",
            400..=499 => "the broker refuses",
            500..=599 => "the broker failed",
            _ => "the broker says what was not asked for",
        };
        let code = self
            .code
            .as_ref()
            .map_or(String::new(), |c| format!(" {c}"));
        let because = self.description.as_deref().unwrap_or("it does not say why");
        format!("{what} ({}{code}): {because}", self.status)
    }
}

impl Error {
    /// Whether the broker knows the credentials, and does not let them do this.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.status == 403)
    }

    /// Whether something else is being done to the same (OSB's `ConcurrencyError`).
    pub fn is_concurrency(&self) -> bool {
        matches!(self, Self::Refused(refusal)
            if refusal.code.as_deref() == Some("ConcurrencyError"))
    }

    /// What the client ends with: 2 when it was used wrongly, 130 as every program that Ctrl-C ends.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Config(_) => 2,
            Self::Interrupted(_) | Self::Http(HttpError::Interrupted) => 130,
            _ => 1,
        }
    }

    /// What says that `file` cannot be used.
    pub fn file(file: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let file = file.into();
        |source| Self::File { file, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_known_and_may_not_is_not_called_unknown() {
        for (status, expected) in [
            (401, "the broker does not know these credentials (401): why"),
            (403, "the broker refuses (403): why"),
            (422, "the broker refuses (422): why"),
        ] {
            let refusal = Refusal {
                status,
                code: None,
                description: Some("why".to_owned()),
            };
            assert_eq!(refusal.to_string(), expected);
            assert_eq!(Error::from(refusal).is_denied(), status == 403);
        }
    }
}
