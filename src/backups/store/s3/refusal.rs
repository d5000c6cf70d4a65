//! What goes wrong between the broker and a server of S3, and what it means.

use std::{error::Error, sync::Arc};

use hyper::HeaderMap;
use object_store::client::HttpError;
use serde::Deserialize;

use crate::{
    backups::BackupStoreError,
    dial::DialError,
    model::failure::{chain, kept},
};

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    /// There is no connection.
    #[error("{host} cannot be reached")]
    Unreachable {
        host: String,
        #[source]
        source: DialError,
    },
    /// Nothing came for too long.
    #[error("{0} does not answer in time")]
    Late(String),
    /// The connection ended early.
    #[error("the connection broke")]
    Broken(#[source] hyper::Error),
    /// An answer ended early.
    #[error("the answer broke off")]
    Cut(#[source] HttpError),
    /// An answer is no such answer as S3 gives.
    #[error("the answer has more than {0} bytes")]
    TooLong(usize),
    /// An answer is no such answer as S3 gives.
    #[error("the answer is not one of S3: {0}")]
    Strange(String),
    /// The library made an address that is none.
    #[error("{0:?} is no address")]
    Unsound(String),
    /// There is nothing to sign with.
    #[error("there are no credentials: {0}")]
    NoCredentials(String),
    /// The library could not sign.
    #[error("the request cannot be signed: {0}")]
    Unsigned(String),
    /// The server says no.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// What a server says that does not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[error("the server answers {status} {}", self.said())]
pub(super) struct Refusal {
    pub(super) status: u16,
    /// S3's word for it.
    pub(super) code: String,
    message: String,
    /// Where the bucket is, when it is elsewhere.
    region: Option<String>,
}

/// The characters of a server's own words that are told.
const MESSAGE_CHARS_MAX: usize = 200;

impl Refusal {
    pub(super) fn of(status: u16, headers: &HeaderMap, text: &[u8]) -> Self {
        /// How S3 tells of errors. Other fields show what was sent.
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        struct Told {
            code: String,
            message: String,
            region: Option<String>,
        }
        let text = String::from_utf8_lossy(text);
        let told: Told = quick_xml::de::from_str(&text).unwrap_or_default();
        let header = |name| headers.get(name)?.to_str().ok().map(str::to_owned);
        let message: String = told.message.chars().take(MESSAGE_CHARS_MAX).collect();
        Self {
            status,
            code: kept(&told.code),
            message: kept(&message),
            region: header("x-amz-bucket-region").or(told.region),
        }
    }

    fn said(&self) -> String {
        match (self.code.as_str(), self.message.as_str()) {
            ("", _) => String::new(),
            (code, "") => code.to_owned(),
            (code, message) => format!("{code} ({message})"),
        }
    }

    /// Whether there is nothing where something was looked for.
    pub(super) fn is_absence(&self) -> bool {
        self.status == 404 && !self.is_of_bucket()
    }

    fn is_of_bucket(&self) -> bool {
        self.code == "NoSuchBucket"
    }

    fn is_full(&self) -> bool {
        self.status == 507
            || matches!(
                self.code.as_str(),
                "XMinioStorageFull"
                    | "QuotaExceeded"
                    | "XAmzQuotaExceeded"
                    | "InsufficientCapacity"
            )
    }

    fn may_pass(&self) -> bool {
        let by_code = matches!(
            self.code.as_str(),
            "RequestTimeout"
                | "SlowDown"
                | "InternalError"
                | "ServiceUnavailable"
                | "BadDigest"
                | "XAmzContentChecksumMismatch"
                | "XAmzContentSHA256Mismatch"
        );
        let by_status = self.status >= 500 && self.status != 501;
        // No two names of ours exclude each other, so a conflict is one with a request at the same moment.
        let busy = [408, 409, 429];
        (by_code || by_status || busy.contains(&self.status)) && !self.is_full()
    }

    /// What it means, and what to do about it.
    fn meaning(&self) -> (String, &'static str) {
        let because = |why: &str| match self.message.as_str() {
            "" => format!("{why} ({} {})", self.status, self.code),
            message => format!("{why} ({}: {message})", self.code),
        };
        match (self.code.as_str(), self.status) {
            ("SignatureDoesNotMatch", _) => (
                because("the server does not accept the signature"),
                "the secret key is not that of the access key: correct it",
            ),
            ("InvalidAccessKeyId" | "XAdminUserNotFound" | "NotSignedUp", _) => (
                because("the server does not know the access key"),
                "correct its id, or make it anew",
            ),
            ("ExpiredToken" | "TokenRefreshRequired" | "InvalidToken", _) => (
                because("the credentials have expired, or were withdrawn"),
                "give new ones; those of a file or of a role are read anew by themselves",
            ),
            ("RequestTimeTooSkewed" | "RequestExpired", _) => (
                because("the clocks of this machine and of the server differ too much"),
                "set this machine's clock, as by NTP",
            ),
            ("PermanentRedirect" | "TemporaryRedirect" | "AuthorizationHeaderMalformed", _)
            | ("IllegalLocationConstraintException", _)
            | (_, 301 | 307) => match &self.region {
                Some(region) => (
                    format!("the bucket is in the region {region}"),
                    "set COMPOSE_BROKER_S3_REGION to it",
                ),
                None => (
                    because("the bucket is in another region, or at another server"),
                    "look at COMPOSE_BROKER_S3_REGION and COMPOSE_BROKER_S3_ENDPOINT",
                ),
            },
            ("BadDigest" | "XAmzContentChecksumMismatch" | "XAmzContentSHA256Mismatch", _) => (
                because("other bytes came to the server than were sent"),
                "it is made again; where it stays so, look at what lies between the two",
            ),
            ("SlowDown" | "ServiceUnavailable", _) | (_, 429 | 503) => (
                because("the server is too busy"),
                "it is made again; where it stays so, lower COMPOSE_BROKER_S3_PARTS_AT_ONCE or \
                 COMPOSE_BROKER_S3_MIB_PER_SECOND",
            ),
            ("NotImplemented", _) | (_, 501) => (
                because("the server cannot do that"),
                "where it is about checksums, set COMPOSE_BROKER_S3_CHECKSUMS=none",
            ),
            ("EntityTooLarge", _) => (
                because("the server takes no object of that size"),
                "raise its limit, or COMPOSE_BROKER_S3_PART_MIB",
            ),
            (_, 401 | 403) => (
                because("the credentials may not do that"),
                "give them the permissions that docs/operating/backups.md lists",
            ),
            _ => (self.to_string(), "look at what the server's own log says"),
        }
    }
}

impl WireError {
    /// Whether the same request may come to something later.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { source, .. } => !is_distrust(source),
            Self::Late(_) | Self::Broken(_) | Self::Cut(_) => true,
            Self::Refused(refusal) => refusal.may_pass(),
            Self::TooLong(_)
            | Self::Strange(_)
            | Self::Unsound(_)
            | Self::NoCredentials(_)
            | Self::Unsigned(_) => false,
        }
    }

    /// The server's refusal, if that is what it is.
    pub(super) fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// What it means for a store at `place` that was `doing` something, which needed `needed` bytes.
    pub(super) fn told(&self, place: &str, doing: &str, needed: u64) -> BackupStoreError {
        let (why, advice) = match self {
            Self::Refused(refusal) if refusal.is_of_bucket() => {
                return BackupStoreError::Absent {
                    folder: place.to_owned(),
                    reason: "the server has no such bucket; make it, or correct \
                             COMPOSE_BROKER_BACKUP_STORE"
                        .to_owned(),
                };
            }
            Self::Refused(refusal) if refusal.is_full() => {
                return BackupStoreError::Full { needed, free: None };
            }
            Self::Refused(refusal) => refusal.meaning(),
            Self::Unreachable { source, .. } if is_no_tls(source) => (
                chain(self),
                "it does not speak TLS: look whether COMPOSE_BROKER_S3_ENDPOINT is http://, and its port",
            ),
            Self::Unreachable { source, .. } if is_distrust(source) => (
                chain(self),
                "name the authority of its certificate in COMPOSE_BROKER_S3_CA, and look whether \
                 COMPOSE_BROKER_S3_ENDPOINT has the name that is in the certificate",
            ),
            Self::Unreachable { .. } | Self::Late(_) => (
                chain(self),
                "look whether the server runs, and at COMPOSE_BROKER_S3_ENDPOINT",
            ),
            Self::Broken(_) | Self::Cut(_) => (chain(self), "look whether the server runs"),
            Self::NoCredentials(_) => (
                chain(self),
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a file in \
                 COMPOSE_BROKER_S3_CREDENTIALS_FILE, or give the machine a role",
            ),
            Self::TooLong(_) | Self::Strange(_) => (
                chain(self),
                "look whether a server of S3 is at COMPOSE_BROKER_S3_ENDPOINT",
            ),
            Self::Unsound(_) | Self::Unsigned(_) => (
                chain(self),
                "look at the credentials and COMPOSE_BROKER_S3_ENDPOINT",
            ),
        };
        BackupStoreError::Server {
            doing: format!("{doing} in {place}"),
            why,
            advice: advice.to_owned(),
            may_pass: self.may_pass(),
        }
    }
}

/// Whether who answers is not trusted: no later try changes that.
fn is_distrust(error: &DialError) -> bool {
    match error {
        DialError::Refused(error) => error
            .get_ref()
            .is_some_and(|inner| inner.is::<rustls::Error>()),
        DialError::NoHost | DialError::NoAuthorities | DialError::Authorities(_) => true,
    }
}

/// Whether who answers does not speak TLS.
fn is_no_tls(error: &DialError) -> bool {
    let DialError::Refused(error) = error else {
        return false;
    };
    let of_tls = error
        .get_ref()
        .and_then(|e| e.downcast_ref::<rustls::Error>());
    matches!(of_tls, Some(rustls::Error::InvalidMessage(_)))
}

/// What of ours is at the bottom of a library's error.
pub(super) fn at_bottom(error: &object_store::Error) -> Arc<WireError> {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(cause) = next {
        if let Some(ours) = cause.downcast_ref::<Arc<WireError>>() {
            return ours.clone();
        }
        next = cause.source();
    }
    Arc::new(WireError::Strange(chain(error)))
}
