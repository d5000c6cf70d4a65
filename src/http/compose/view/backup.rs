//! Bodies of backups.

use serde::Serialize;
use utoipa::{ToSchema, openapi::Object};

use super::{Link, deployment_url};
use crate::{
    broker::{Broker, DeploymentView, KeptNow, backup_name},
    http::openapi::scalars::{DatabaseVersion, OwnId, Time, time, words},
    model::{
        backup::{Backup, BackupState},
        deployment::Deployment,
        estimate::Estimate,
        ids::{BackupId, DeploymentId, OperationId},
        period::BackupKind,
        proof::Evidence,
        retention,
        version::Version,
    },
};

/// A backup.
#[derive(Serialize, ToSchema)]
#[schema(as = Backup)]
pub struct BackupBody {
    /// Its id.
    #[schema(value_type = OwnId)]
    id: BackupId,
    /// The deployment that it was taken of.
    #[schema(value_type = OwnId)]
    deployment_id: DeploymentId,
    /// Its name.
    name: String,
    /// Why it was taken.
    #[schema(schema_with = backup_types)]
    r#type: &'static str,
    /// Its state.
    #[schema(schema_with = backup_states)]
    status: &'static str,
    /// Why it failed.
    #[schema(required)]
    status_detail: Option<String>,
    /// Whether it is complete.
    is_downloadable: bool,
    /// Whether it is complete.
    is_restorable: bool,
    // Clients know this as the time at which the backup was complete.
    /// When it was complete; until then, when it was asked for.
    #[schema(value_type = Time)]
    created_at: String,
    /// When it was asked for.
    #[schema(value_type = Time)]
    requested_at: String,
    /// What a scheduled one stands for: a day, an ISO week or a month.
    #[schema(required)]
    period: Option<String>,
    /// When a complete scheduled one is old enough to go.
    #[schema(required, value_type = Option<Time>)]
    expires_at: Option<String>,
    /// Why and when its bytes go, once that is decided.
    #[schema(required)]
    removal: Option<RemovalBody>,
    /// What its users wrote down beside it; empty for nothing.
    note: String,
    /// Whether its users keep it: it goes neither by age nor by a newer one.
    pinned: bool,
    /// Whether it can be restored: `proved`, `flawed` or `unproved`.
    proof: &'static str,
    /// When it was last restored aside, and was what its manifest says.
    #[schema(required, value_type = Option<Time>)]
    verified_at: Option<String>,
    /// When all of its stored bytes were read last, and were those that were stored; `null` before that.
    #[schema(required, value_type = Option<Time>)]
    bytes_read_at: Option<String>,
    /// The versions that it was restored into, oldest first.
    #[schema(value_type = Vec<DatabaseVersion>)]
    verified_versions: Vec<Version>,
    /// What was compared: `whole`, every key and value, or `figures`, how many there are.
    #[schema(required)]
    verified_by: Option<&'static str>,
    /// Why it is not proved, or not yet.
    #[schema(required)]
    unverified_reason: Option<String>,
    /// The public key of age that it is sealed for, which makes it one that its tenant alone opens: a restore of it needs
    /// `backup_private_key`, a download has the sealed object, and it cannot be proved. `null`: the broker opens it.
    #[schema(required)]
    sealed_for: Option<String>,
    /// When it was copied into the mirror; `null`: it has no copy there, or there is no mirror.
    #[schema(required, value_type = Option<Time>)]
    mirrored_at: Option<String>,
    /// Until when its bytes are locked where they are stored, so that a deletion leaves them; `null`: they are not.
    #[schema(required, value_type = Option<Time>)]
    locked_until: Option<String>,
    /// The recipe that takes it.
    #[schema(value_type = OwnId)]
    recipe_id: OperationId,
    /// Version of the database that it was taken of.
    #[schema(required, value_type = Option<DatabaseVersion>)]
    version: Option<Version>,
    /// Size of the snapshot.
    #[schema(required)]
    size_bytes: Option<u64>,
    /// What it takes in the backup store.
    #[schema(required)]
    stored_bytes: Option<u64>,
    /// Hash of the snapshot.
    #[schema(required)]
    sha256: Option<String>,
    /// The revision that the snapshot has.
    #[schema(required)]
    revision: Option<i64>,
    /// Keys in the snapshot.
    #[schema(required)]
    keys: Option<i64>,
    /// Where it is.
    #[serde(rename = "_links")]
    links: BackupLinks,
}

/// The removal of a backup that lies ahead.
#[derive(Serialize, ToSchema)]
struct RemovalBody {
    /// Why.
    reason: String,
    /// From when on.
    #[schema(value_type = Time)]
    at: String,
}

/// Where a backup is.
#[derive(Serialize, ToSchema)]
struct BackupLinks {
    #[serde(rename = "self")]
    this: Link,
}

/// A backup that was asked for by its id.
#[derive(Serialize, ToSchema)]
#[schema(as = DownloadableBackup)]
pub struct DownloadableBackupBody {
    /// The backup.
    #[serde(flatten)]
    pub backup: BackupBody,
    /// Where its bytes are, without credentials and for 15 minutes; `null` until it is complete.
    #[schema(required)]
    pub download_link: Option<String>,
    /// How many bytes those are, which is known once somebody has downloaded them since the broker's start.
    #[schema(required)]
    pub archive_bytes: Option<u64>,
    /// About how many bytes those are: a guess, by what the backup takes in the backup store.
    #[schema(required)]
    pub archive_bytes_estimate: Option<u64>,
    /// About how long a restore takes; `null` where no earlier one is known, or nothing can be restored.
    #[schema(required)]
    pub restore_estimate: Option<RestoreEstimateBody>,
}

/// How long a restore will take.
#[derive(Serialize, ToSchema)]
#[schema(as = RestoreEstimate)]
pub struct RestoreEstimateBody {
    /// About so many seconds.
    pub seconds: u64,
    /// By how many restores of the past.
    pub restores: usize,
}

impl From<Estimate> for RestoreEstimateBody {
    fn from(of: Estimate) -> Self {
        Self {
            seconds: of.seconds(),
            restores: of.cases,
        }
    }
}

/// Backups, and how many of them are kept.
#[derive(Serialize, ToSchema)]
pub struct BackupList {
    /// The backups.
    #[serde(rename = "_embedded")]
    pub embedded: Backups,
    /// How many are kept, and what the next on-demand backup does.
    pub retention: RetentionBody,
}

/// How many backups are kept, and what the next on-demand backup does.
#[derive(Serialize, ToSchema)]
#[schema(as = Retention)]
pub struct RetentionBody {
    /// How many successful on-demand backups are kept, beside those that are pinned.
    on_demand_kept: u32,
    /// The backups that go when the next on-demand backup is complete, newest first.
    #[schema(value_type = Vec<OwnId>)]
    replaced_by_next: Vec<BackupId>,
    /// How many backups are pinned.
    pinned: usize,
    /// How many may be.
    pinned_max: u32,
    /// Days that the backups stay when the instance is deleted; 0: they go with it.
    kept_after_delete_days: u32,
}

impl From<KeptNow> for RetentionBody {
    fn from(now: KeptNow) -> Self {
        Self {
            on_demand_kept: now.kept.on_demand,
            replaced_by_next: now.replaced_by_next,
            pinned: now.pinned,
            pinned_max: now.kept.pinned,
            kept_after_delete_days: now.kept.days_after_delete,
        }
    }
}

/// Backups, newest first.
#[derive(Serialize, ToSchema)]
pub struct Backups {
    /// The backups.
    pub backups: Vec<BackupBody>,
}

fn backup_types() -> Object {
    words(BackupKind::ALL.iter().map(|kind| kind.as_str()))
}

/// One that has expired is not shown any more.
fn backup_states() -> Object {
    let shown = BackupState::ALL
        .iter()
        .filter(|s| **s != BackupState::Expired);
    words(shown.map(|state| state.as_str()))
}

/// Where a backup stands in the API.
pub fn backup_url(public_url: &str, deployment: &Deployment, backup: &Backup) -> String {
    format!(
        "{}/backups/{}",
        deployment_url(public_url, deployment),
        backup.id
    )
}

/// A backup. Beyond the original's fields: what is in it, and how large it is.
pub fn backup(broker: &Broker, of: &DeploymentView, backup: &Backup) -> BackupBody {
    let usable = backup.state == BackupState::Complete;
    let manifest = backup.manifest.as_ref();
    let timetable = (broker.inventory).timetable(&of.instance, of.schedule.as_ref());
    BackupBody {
        id: backup.id.clone(),
        deployment_id: backup.deployment.clone(),
        name: backup_name(&of.deployment, backup),
        r#type: backup.kind.as_str(),
        status: backup.state.as_str(),
        status_detail: backup.failure.clone(),
        is_downloadable: usable,
        is_restorable: usable,
        created_at: time(backup.finished_at.unwrap_or(backup.created_at)),
        requested_at: time(backup.created_at),
        period: backup.period.map(|period| period.to_string()),
        expires_at: retention::expires_at(backup, &timetable).map(time),
        removal: backup
            .removal
            .as_ref()
            .filter(|_| usable)
            .map(|removal| RemovalBody {
                reason: removal.reason.clone(),
                at: time(removal.at),
            }),
        note: backup.note.clone(),
        pinned: backup.pinned,
        proof: backup.proof.standing().as_str(),
        verified_at: backup.proof.verified_at.map(time),
        bytes_read_at: backup.proof.read_at.map(time),
        verified_versions: backup.proof.versions.clone(),
        verified_by: backup.proof.evidence.map(Evidence::as_str),
        unverified_reason: usable.then(|| backup.doubt(broker.proofs.are_on)).flatten(),
        sealed_for: backup.recipient().map(str::to_owned),
        mirrored_at: backup
            .mirrored_at
            .filter(|_| usable && broker.inventory.mirrors_backups)
            .map(time),
        locked_until: manifest.and_then(|m| m.locked_until).map(time),
        recipe_id: backup.operation.clone(),
        version: manifest.map(|m| m.version),
        size_bytes: manifest.map(|m| m.stored.snapshot_bytes),
        stored_bytes: manifest.map(|m| m.stored.object_bytes),
        sha256: manifest.map(|m| m.stored.snapshot_sha256.clone()),
        revision: manifest.and_then(|m| m.content.get("revision")),
        keys: manifest.and_then(|m| m.content.get("keys")),
        links: BackupLinks {
            this: Link {
                href: backup_url(&broker.public_url, &of.deployment, backup),
            },
        },
    }
}
