//! Backups and the manifests that stand beside them.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{
    ids::{BackupId, DeploymentId, InstanceId, OperationId},
    limits::{BACKUP_NOTE_BYTES_MAX, UNIT_BYTES, UNITS_MAX},
    period::{BackupKind, Period},
    proof::Proof,
    tenant::Tenant,
    version::Version,
};

/// Where a backup is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupState {
    /// Accepted, not yet begun.
    Pending,
    /// Being taken.
    Running,
    /// Stored and verified.
    Complete,
    /// Could not be taken; no bytes are kept.
    Failed,
    /// Removed by retention; only its row is left, to tell so.
    Expired,
}

impl BackupState {
    /// All states.
    pub const ALL: [Self; 5] = [
        Self::Pending,
        Self::Running,
        Self::Complete,
        Self::Failed,
        Self::Expired,
    ];

    /// The name used in the store and by the Compose API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Expired => "expired",
        }
    }

    /// The state of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// A backup as the broker knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// Its id.
    pub id: BackupId,
    /// The instance it was taken of.
    pub instance: InstanceId,
    /// That instance's deployment.
    pub deployment: DeploymentId,
    /// The operation that takes or took it.
    pub operation: OperationId,
    /// Why it was taken.
    pub kind: BackupKind,
    /// What it stands for, when the schedule took it.
    pub period: Option<Period>,
    /// Where it is in its life.
    pub state: BackupState,
    /// Why it failed, for people.
    pub failure: Option<String>,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// Its place among all: what was asked for later has a higher one, whatever the clock showed.
    /// Given by the store, and never shown.
    pub ordinal: i64,
    /// How many backups of its instance have the same name without this. Given by the store.
    pub namesake: u32,
    /// When it was complete, failed or expired.
    pub finished_at: Option<DateTime<Utc>>,
    /// What is stored; there once the backup is complete.
    pub manifest: Option<Manifest>,
    /// Why and when it goes, once that is decided. Until then it is as good as any.
    pub removal: Option<Removal>,
    /// What its users want to remember of it; empty where they said nothing.
    pub note: String,
    /// Whether its users want it kept: it goes neither by age nor by a newer one.
    pub pinned: bool,
    /// What is known of whether it can be restored.
    pub proof: Proof,
    /// When it was copied into the mirror; none: it is not there, as far as is known.
    pub mirrored_at: Option<DateTime<Utc>>,
}

/// Fails with what is wrong when a note cannot be kept.
pub fn check_note(note: &str) -> Result<(), String> {
    if note.len() > BACKUP_NOTE_BYTES_MAX {
        return Err(format!("note has more than {BACKUP_NOTE_BYTES_MAX} bytes"));
    }
    if note.chars().any(char::is_control) {
        return Err("note has control characters".to_owned());
    }
    Ok(())
}

/// How users are told that a backup is sealed for a key that the broker has not.
pub const CANNOT_BE_PROVED: &str = "it cannot be proved: it is sealed for your own key, and the broker cannot open it. \
     It was read back and inspected before the broker forgot its key, and its stored bytes are compared since";
/// How a user is told of a backup that was given up since the key to it is gone.
pub const KEY_LOST: &str = "the key that it is sealed under is gone";

/// The removal of a backup that lies ahead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// Why, for people.
    pub reason: String,
    /// From when on its bytes go.
    pub at: DateTime<Utc>,
}

impl Backup {
    /// One that was just asked for, and holds nothing yet.
    pub fn asked_for(
        id: BackupId,
        (instance, deployment): (&InstanceId, &DeploymentId),
        operation: OperationId,
        kind: BackupKind,
        now: DateTime<Utc>,
    ) -> Self {
        Self {
            id,
            instance: instance.clone(),
            deployment: deployment.clone(),
            operation,
            kind,
            period: None,
            state: BackupState::Pending,
            failure: None,
            created_at: now,
            ordinal: 0,
            namesake: 0,
            finished_at: None,
            manifest: None,
            removal: None,
            note: String::new(),
            pinned: false,
            proof: Proof::default(),
            mirrored_at: None,
        }
    }

    /// Since when its age counts: it was asked for then. Where the clock was set back, earlier versions
    /// let requests lie ahead, to keep them in their order; then the end tells better.
    pub fn taken_at(&self) -> DateTime<Utc> {
        self.finished_at
            .map_or(self.created_at, |end| end.min(self.created_at))
    }

    /// What tells the older of two backups of an instance. One whose row was lost has the place of
    /// the one before it.
    pub fn order(&self) -> (i64, DateTime<Utc>, &BackupId) {
        (self.ordinal, self.created_at, &self.id)
    }

    /// The place that the credentials in this backup's manifest are sealed for.
    pub fn seal_context(&self) -> String {
        seal_context(&self.id)
    }

    /// The key of its tenant that it is sealed for; none where the broker opens it.
    pub fn recipient(&self) -> Option<&str> {
        self.manifest.as_ref()?.recipient()
    }

    /// Why it is not proved, or not as a whole, for people, see [`Proof::doubt`].
    pub fn doubt(&self, are_proved: bool) -> Option<String> {
        match self.recipient() {
            Some(_) if self.proof.flaw.is_none() => Some(CANNOT_BE_PROVED.to_owned()),
            _ => self.proof.doubt(are_proved),
        }
    }

    /// Whether it can be restored to be proved.
    pub fn is_provable(&self) -> bool {
        self.recipient().is_none()
    }
}

#[cfg(test)]
impl Backup {
    /// One for tests: asked for at that time, and complete 5 s later.
    pub fn taken(at: DateTime<Utc>, kind: BackupKind) -> Self {
        let instance = "i".parse().expect("an id");
        let deployment = "5ae85b45e5717f0001533192".parse().expect("an id");
        let operation = "5ae85b45e5717f0001533193".parse().expect("an id");
        let (id, of) = (BackupId::generate(at), (&instance, &deployment));
        Self {
            state: BackupState::Complete,
            finished_at: Some(at + chrono::TimeDelta::seconds(5)),
            ..Self::asked_for(id, of, operation, kind, at)
        }
    }
}

fn seal_context(backup: &BackupId) -> String {
    format!("backup credentials {backup}")
}

/// The version of the manifest's own form, for backups whose object is sealed under a key that the broker has.
pub const MANIFEST_FORMAT: u32 = 2;
/// The version of manifests of backups that are sealed for a key of their tenant, which the broker has not.
pub const MANIFEST_FORMAT_TENANT: u32 = 3;
/// The version of manifests of earlier brokers: their objects are clear, and nothing is signed.
pub const MANIFEST_FORMAT_CLEAR: u32 = 1;

/// What stands beside each stored snapshot: enough to find, check and restore it without the
/// broker's database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this form, [`MANIFEST_FORMAT`], [`MANIFEST_FORMAT_TENANT`] or [`MANIFEST_FORMAT_CLEAR`].
    pub format: u32,
    /// The backup's id.
    pub backup_id: BackupId,
    /// Why it was taken.
    pub kind: BackupKind,
    /// The instance it was taken of.
    pub instance_id: InstanceId,
    /// That instance's deployment.
    pub deployment_id: DeploymentId,
    /// The service offering's id.
    pub service_id: String,
    /// The plan's id; backups of earlier versions do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_id: Option<String>,
    /// The owner.
    pub tenant: Tenant,
    /// The engine.
    pub engine: String,
    /// The version that made the snapshot.
    pub version: Version,
    /// The instance's size in units.
    pub units: u32,
    /// What is in the snapshot.
    pub content: SnapshotContent,
    /// What is stored.
    pub stored: StoredSnapshot,
    /// When the backup was asked for.
    pub requested_at: DateTime<Utc>,
    /// When the snapshot was begun.
    pub started_at: DateTime<Utc>,
    /// When it had been stored and verified.
    pub finished_at: DateTime<Utc>,
    /// Until when its objects are locked, where they are: for as long as its plan kept it by age when it was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locked_until: Option<DateTime<Utc>>,
    /// The number that the [register](super::register) of its deployment had by then; backups of earlier versions do
    /// not tell. So there is one, and it has this number or a higher one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub register: Option<i64>,
    /// Whose key opens the object, where it is the tenant's. It is no secret, and signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_for: Option<SealedFor>,
    /// The deployment's secrets, sealed under the key ring: what an operator needs to open the
    /// snapshot's database as its administrator. Never handed to a tenant. They open no object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sealed_credentials: Option<String>,
    /// The key that the object is sealed under, sealed under the key ring itself; none where it is sealed for the
    /// tenant's key. It stands beside the object alone: without it nobody opens the object any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_key: Option<String>,
    /// The name of a key of the ring, `:` and the HMAC-SHA-256 of all but this and what is sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

/// What a backup's snapshot is called, packed as an object of the backup store and as a file of a
/// download. It is the same for every engine: backups of earlier versions have it.
pub const SNAPSHOT_FILE: &str = "snapshot.db";
/// What a backup's snapshot is called that is sealed for the key of its tenant, as an object of the backup store and as
/// a file of a download: programs of age and zstd know it by its name.
pub const TENANT_SNAPSHOT_FILE: &str = "snapshot.db.zst.age";
/// What a backup's manifest is called, beside the snapshot.
pub const MANIFEST_FILE: &str = "manifest.json";

impl Manifest {
    /// What the broker itself keeps of it, and what anybody may see: without what is sealed, and without
    /// the signature of those who keep it elsewhere.
    pub fn bare(&self) -> Self {
        Self {
            sealed_credentials: None,
            sealed_key: None,
            signature: None,
            ..self.clone()
        }
    }

    /// The key of its tenant that it is sealed for; none where the broker opens it.
    pub fn recipient(&self) -> Option<&str> {
        self.sealed_for.as_ref().map(|of| of.recipient.as_str())
    }

    /// The place that [`Manifest::sealed_credentials`] are sealed for.
    pub fn seal_context(&self) -> String {
        seal_context(&self.backup_id)
    }

    /// The size that an instance must have to hold what is in this backup, in units.
    pub fn units_needed(&self) -> u32 {
        let units = self.stored.snapshot_bytes.div_ceil(UNIT_BYTES).max(1);
        // A database that was let grow a little past the largest quota still fits the largest.
        u32::try_from(units).unwrap_or(UNITS_MAX).min(UNITS_MAX)
    }
}

/// How objects are sealed that are sealed for a tenant's key, as manifests say it: the object is a file of age.
pub const SEALING_FOR_TENANT: &str = "age-encryption.org/v1";

/// The key that an object is sealed for, and what gets its own key out of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedFor {
    /// The public key of the tenant, `age1...`.
    pub recipient: String,
    /// What the object begins with, a header of age: the object's key, wrapped for the recipient.
    pub header: String,
}

/// What the engine says is in a snapshot: figures by name. Which there are, and what they mean, the
/// engine's [`Profile::content`](super::engine::Profile::content) says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SnapshotContent(pub BTreeMap<String, i64>);

impl SnapshotContent {
    /// One of the figures; none where it is not told.
    pub fn get(&self, figure: &str) -> Option<i64> {
        self.0.get(figure).copied()
    }
}

impl<const N: usize> From<[(&str, i64); N]> for SnapshotContent {
    fn from(figures: [(&str, i64); N]) -> Self {
        Self(figures.map(|(name, count)| (name.to_owned(), count)).into())
    }
}

/// The bytes of a stored snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredSnapshot {
    /// Length of the snapshot as the engine gave it, in bytes.
    pub snapshot_bytes: u64,
    /// Its SHA-256 (hex).
    pub snapshot_sha256: String,
    /// Length of the stored object, in bytes.
    pub object_bytes: u64,
    /// The object's SHA-256 (hex).
    pub object_sha256: String,
    /// How the object is compressed: `zstd`.
    pub compression: String,
    /// How the compressed bytes are sealed; none: they are the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealing: Option<String>,
}

impl StoredSnapshot {
    /// The version of the manifest that tells of it.
    pub fn manifest_format(&self) -> u32 {
        match self.sealing.as_deref() {
            Some(SEALING_FOR_TENANT) => MANIFEST_FORMAT_TENANT,
            Some(_) => MANIFEST_FORMAT,
            None => MANIFEST_FORMAT_CLEAR,
        }
    }
}
