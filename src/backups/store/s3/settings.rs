//! What the settings say of S3, beside the address of the bucket.

use std::path::PathBuf;

use url::Url;

use crate::model::secret::Secret;

/// How a store in a bucket is reached.
#[derive(Debug, Clone)]
pub struct S3Settings {
    /// The server; absent: Amazon's of the region.
    pub endpoint: Option<Url>,
    /// The region that requests are signed for.
    pub region: String,
    /// Where the bucket stands in addresses; absent: in the path of a server that is named, in the
    /// host of Amazon's.
    pub addressing: Option<Addressing>,
    /// The authorities that the server's certificate may be of; absent: the machine's.
    pub ca: Option<PathBuf>,
    /// Whether each upload carries its SHA-256, for the server to compare.
    pub sends_checksums: bool,
    /// Bytes of each part of an upload but the last.
    pub part_bytes: usize,
    /// Parts of one upload that are under way at once.
    pub parts_at_once: usize,
    /// Bytes per second, sent and read together; absent: as many as go.
    pub bytes_per_second: Option<u64>,
    /// For how many seconds a request is made again that came to nothing.
    pub patience_seconds: u32,
    /// How objects are locked for as long as their backups are kept; absent: the broker locks none.
    pub lock: Option<LockMode>,
    /// Where credentials come from.
    pub credentials: CredentialSource,
}

impl Default for S3Settings {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: DEFAULT_REGION.to_owned(),
            addressing: None,
            ca: None,
            sends_checksums: true,
            part_bytes: DEFAULT_PART_MIB as usize * MIB,
            parts_at_once: DEFAULT_PARTS_AT_ONCE as usize,
            bytes_per_second: None,
            patience_seconds: DEFAULT_PATIENCE_SECONDS,
            lock: None,
            credentials: CredentialSource::Machine { endpoint: None },
        }
    }
}

/// How objects are locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Who has a right of its own may delete them all the same.
    Governance,
    /// Nobody deletes them.
    Compliance,
}

impl LockMode {
    /// S3's word for it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Governance => "GOVERNANCE",
            Self::Compliance => "COMPLIANCE",
        }
    }
}

/// Where the bucket stands in addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addressing {
    /// `https://server/bucket/key`.
    Path,
    /// `https://bucket.server/key`.
    Host,
}

/// Where credentials come from.
#[derive(Debug, Clone)]
pub enum CredentialSource {
    /// They are given.
    Keys {
        /// The access key's id.
        id: String,
        /// The secret key.
        secret: Secret,
        /// What goes with keys that expire.
        token: Option<Secret>,
    },
    /// A profile of a file, as the AWS command line keeps it; read anew when the file changes.
    File {
        /// The file.
        path: PathBuf,
        /// The profile.
        profile: String,
    },
    /// A role is taken on with a token that the platform puts into a file.
    WebIdentity {
        /// The file.
        token_file: PathBuf,
        /// The role.
        role: String,
        /// How the session is called; absent: as the library does.
        session: Option<String>,
    },
    /// The platform of the container hands them out.
    Container {
        /// Where, without its host.
        path: String,
    },
    /// The platform of the pod hands them out.
    Pod {
        /// Where.
        url: String,
        /// What to show for them.
        token_file: PathBuf,
    },
    /// The machine's own role.
    Machine {
        /// Where the machine asks for it; absent: where machines of Amazon do.
        endpoint: Option<String>,
    },
}

/// The region, where none is named.
pub const DEFAULT_REGION: &str = "us-east-1";
/// MiB of a part, where the settings say nothing.
pub const DEFAULT_PART_MIB: u32 = 8;
/// Parts under way at once, where the settings say nothing.
pub const DEFAULT_PARTS_AT_ONCE: u32 = 3;
/// Seconds for which a request is made again, where the settings say nothing.
pub const DEFAULT_PATIENCE_SECONDS: u32 = 60;
/// MiB of a part that S3 takes at least.
pub const PART_MIB_MIN: u32 = 5;
/// MiB of a part at most: several of them are in memory.
pub const PART_MIB_MAX: u32 = 256;
/// Parts under way at once, at most.
pub const PARTS_AT_ONCE_MAX: u32 = 16;
/// Seconds for which a request is made again, at most: what signs it is good for 15 minutes.
pub const PATIENCE_SECONDS_MAX: u32 = 600;
/// MiB per second that may be set at most.
pub const MIB_PER_SECOND_MAX: u32 = 100_000;

const MIB: usize = 1024 * 1024;
