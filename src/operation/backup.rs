//! Takes a backup: snapshot, store, read back, inspect, count, and only then say that it is
//! complete.
//!
//! Of a backup that is sealed for the key of its tenant the broker keeps no key from one step to the next. So one step
//! stores, reads back and inspects it, with the key in memory alone, and is done again from its beginning where it
//! breaks off.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Definition, Ending, Outcome, Step, StepError, Work, prune};
use crate::{
    backups::{BackupStoreError, Identity, TakenIn},
    engine::{Description, Snapshot},
    model::{
        backup::{Backup, Manifest, SealedFor, SnapshotContent, StoredSnapshot},
        operation::Operation,
        period::BackupKind,
        proof, retention,
        version::Version,
    },
    seal::age::Recipient,
    store::{self, Conn, StoreError},
    stream::ByteStream,
};

/// Backup.
pub const DEFINITION: Definition = Definition {
    steps: &STEPS,
    begun: mark_running,
    cleanup: &CLEANUP,
    succeed,
    fail,
};

/// The last backup of an instance that is being deleted. Neither a schedule nor retention minds it.
pub const FINAL: Definition = Definition {
    steps: &STEPS,
    begun: mark_running,
    cleanup: &CLEANUP,
    succeed: |conn, ending| complete(conn, ending).map(|_| ()),
    fail: |conn, ending, failure| match &ending.operation.backup {
        Some(id) => store::backup::fail(conn, id, failure, ending.now),
        None => Ok(()),
    },
};

const STEPS: [Step; 3] = [
    Step {
        name: SNAPSHOT,
        title: "Taking the snapshot",
        run: |w| Box::pin(snapshot(w)),
    },
    Step {
        name: READ_BACK,
        title: "Reading the backup back",
        run: |w| Box::pin(read_back(w)),
    },
    Step {
        name: DESCRIBE,
        title: "Describing the backup",
        run: |w| Box::pin(describe(w)),
    },
];

const CLEANUP: [Step; 1] = [Step {
    name: "cleanup_bytes",
    title: "Removing what was stored",
    run: |w| Box::pin(remove_bytes(w)),
}];

const SNAPSHOT: &str = "snapshot";
const READ_BACK: &str = "read_back";
pub(super) const DESCRIBE: &str = "describe";

/// What the step [`SNAPSHOT`] leaves behind, and what stores an imported one.
#[derive(Serialize, Deserialize)]
pub(super) struct Taken {
    pub(super) stored: StoredSnapshot,
    /// The key to it, sealed; none where an earlier version stored it. It is forgotten with the operation's
    /// end.
    #[serde(default)]
    pub(super) sealed_key: Option<String>,
    /// Whose key opens it, where it is the tenant's. It was read back then.
    #[serde(default)]
    pub(super) sealed_for: Option<SealedFor>,
    /// What is in it, when that was certain at the time.
    pub(super) content: Option<SnapshotContent>,
    pub(super) started_at: DateTime<Utc>,
}

/// What the step [`DESCRIBE`] leaves behind.
#[derive(Serialize, Deserialize)]
struct Described {
    #[serde(flatten)]
    manifest: Manifest,
    /// The name of the key that all is sealed under which stands beside the object; empty where an earlier
    /// version wrote it.
    #[serde(default)]
    sealed_under: String,
}

pub(super) async fn backup(work: &Work) -> Result<Backup, StepError> {
    let Some(id) = work.operation.backup.clone() else {
        return Err(StepError::last("the operation names no backup"));
    };
    work.read(move |conn| store::backup::find(conn, &id))
        .await?
        .ok_or_else(|| StepError::last("the backup's row is gone"))
}

pub(super) fn mark_running(conn: &mut Conn<'_>, operation: &Operation) -> Result<(), StoreError> {
    match &operation.backup {
        Some(id) => store::backup::set_running(conn, id),
        None => Ok(()),
    }
}

async fn snapshot(work: Arc<Work>) -> Result<Outcome, StepError> {
    let backup = backup(&work).await?;
    let opened = work.opened().await?;
    let started_at = work.parts.clock.now();
    let snapshot = opened.engine.snapshot(opened.site()).await?;
    work.parts.backups.room_for(snapshot.bytes_expected).await?;
    work.meter.begin(snapshot.bytes_expected);
    if let Some(recipient) = recipient(&work).await? {
        return take_for_tenant(&work, &backup, &recipient, snapshot, started_at).await;
    }
    let (of, meter) = (Identity::from(&backup), work.meter.clone());
    let progress = move |bytes| meter.set(bytes);
    let TakenIn { stored, sealed_key } = work
        .parts
        .backups
        .take_in(&of, snapshot.content, progress)
        .await?;
    Outcome::with(&Taken {
        stored,
        sealed_key: Some(sealed_key),
        sealed_for: None,
        content: snapshot.known,
        started_at,
    })
}

/// The key of the tenant that backups are sealed for now; none where the broker opens them.
pub(super) async fn recipient(work: &Work) -> Result<Option<Recipient>, StepError> {
    let instance = work.instance().await?;
    let recipient = instance.recipient().map(str::parse).transpose();
    recipient.map_err(|error| StepError::last(format!("backup_public_key is of no use: {error}")))
}

/// Stores a snapshot for the key of the tenant, reads it back, and has the engine's own tool open it.
async fn take_for_tenant(
    work: &Work,
    backup: &Backup,
    recipient: &Recipient,
    snapshot: Snapshot,
    started_at: DateTime<Utc>,
) -> Result<Outcome, StepError> {
    let (of, meter) = (Identity::from(backup), work.meter.clone());
    let progress = move |bytes| meter.set(bytes);
    let vault = &work.parts.backups;
    let taken = vault
        .take_in_for(&of, recipient, snapshot.content, progress)
        .await?;
    let stored = vault.open_taken_for(&of, &taken).await?;
    let known = snapshot.known.as_ref();
    let content = match described(work, backup, &taken.stored, stored, known).await? {
        Description::Content(content) => content,
        Description::Unknown(reason) => return Ok(Outcome::StartOver(reason)),
    };
    Outcome::with(&Taken {
        stored: taken.stored,
        sealed_key: None,
        sealed_for: Some(taken.sealed_for),
        content: Some(content),
        started_at,
    })
}

/// Reads the stored bytes back, and checks them. Where it is not certain what is in them, or nothing restores them
/// soon, the engine's own tool opens them, too.
async fn read_back(work: Arc<Work>) -> Result<Outcome, StepError> {
    let backup = backup(&work).await?;
    let taken: Taken = work.result(SNAPSHOT).await?;
    match &taken.content {
        Some(found) if taken.sealed_for.is_some() => Outcome::with(found),
        Some(known) if proof::follows(backup.kind, work.parts.proves_backups) => {
            work.meter.begin(taken.stored.snapshot_bytes);
            let (of, key) = (Identity::from(&backup), taken.sealed_key.as_deref());
            let progress = |bytes| work.meter.set(bytes);
            let vault = &work.parts.backups;
            match vault.read_taken(&of, &taken.stored, key, progress).await {
                Err(BackupStoreError::KeyMissing { key, .. }) => Ok(without_key(&key)),
                read => read.map(|()| Outcome::with(known))?,
            }
        }
        _ => open_and_describe(&work, &backup, &taken).await,
    }
}

/// Puts the stored bytes on the stage, and lets the engine's own tool open them and tell what is in them.
async fn open_and_describe(
    work: &Work,
    backup: &Backup,
    taken: &Taken,
) -> Result<Outcome, StepError> {
    let (of, key) = (Identity::from(backup), taken.sealed_key.as_deref());
    let stored = work.parts.backups.open_taken(&of, &taken.stored, key);
    let stored = match stored.await {
        Err(BackupStoreError::KeyMissing { key, .. }) => return Ok(without_key(&key)),
        stored => stored?,
    };
    let known = taken.content.as_ref();
    match described(work, backup, &taken.stored, stored, known).await? {
        Description::Content(content) => Outcome::with(&content),
        Description::Unknown(reason) => Ok(Outcome::StartOver(reason)),
    }
}

/// What the engine's own tool says of a stored snapshot, which comes as `snapshot`.
async fn described(
    work: &Work,
    backup: &Backup,
    stored: &StoredSnapshot,
    snapshot: ByteStream,
    known: Option<&SnapshotContent>,
) -> Result<Description, StepError> {
    let opened = work.opened().await?;
    let (id, provisioner) = (&opened.deployment.id, opened.provisioner());
    let bytes = stored.snapshot_bytes;
    let content = work.meter.count(bytes, snapshot);
    let file = staged_name(backup);
    provisioner.stage(id, &file, bytes, content).await?;
    let found = opened
        .engine
        .describe(opened.site(), &file, known, provisioner.as_ref())
        .await?;
    provisioner.unstage(id, &file).await?;
    Ok(found)
}

/// Puts the manifest beside the snapshot.
async fn describe(work: Arc<Work>) -> Result<Outcome, StepError> {
    let backup = backup(&work).await?;
    let taken: Taken = work.result(SNAPSHOT).await?;
    let found: serde_json::Value = work.result(READ_BACK).await?;
    let Ok(content) = serde_json::from_value::<SnapshotContent>(found) else {
        // Earlier versions put down a number there.
        let reason = "an earlier version of the broker read it back";
        return Ok(Outcome::StartOver(reason.to_owned()));
    };
    let version = work.deployment().await?.version;
    let manifest = manifest(&work, &backup, &taken, (version, content)).await?;
    write_manifest(&work, manifest, taken).await
}

/// What is told of a stored snapshot of `version` with that content.
pub(super) async fn manifest(
    work: &Work,
    backup: &Backup,
    taken: &Taken,
    (version, content): (Version, SnapshotContent),
) -> Result<Manifest, StepError> {
    let instance = work.instance().await?;
    let deployment = work.deployment().await?;
    Ok(Manifest {
        format: taken.stored.manifest_format(),
        backup_id: backup.id.clone(),
        kind: backup.kind,
        instance_id: backup.instance.clone(),
        deployment_id: backup.deployment.clone(),
        service_id: instance.service_id,
        plan_id: Some(instance.plan_id),
        tenant: instance.tenant,
        engine: deployment.engine,
        version,
        units: deployment.units,
        content,
        stored: taken.stored.clone(),
        requested_at: backup.created_at,
        started_at: taken.started_at,
        finished_at: work.parts.clock.now(),
        locked_until: locked_until(work, backup).await?,
        // It has to be there before anything tells of it.
        register: Some(work.parts.registrar.begin(&backup.deployment).await?),
        sealed_for: taken.sealed_for.clone(),
        sealed_credentials: None,
        sealed_key: None,
        signature: None,
    })
}

/// Puts a manifest beside the snapshot that it tells of.
pub(super) async fn write_manifest(
    work: &Work,
    manifest: Manifest,
    taken: Taken,
) -> Result<Outcome, StepError> {
    let secrets = work.opened().await?.secrets;
    // Beside the object only: the broker itself needs no credentials of the past, and a key that stands in
    // one place alone is gone with it.
    let sealed = work.seal(&manifest.seal_context(), &secrets)?;
    let beside = Manifest {
        sealed_credentials: Some(sealed),
        sealed_key: taken.sealed_key,
        ..manifest.clone()
    };
    let sealed_under = match work.parts.backups.write_manifest(&beside).await {
        Err(BackupStoreError::KeyMissing { key, .. }) => return Ok(without_key(&key)),
        written => written?,
    };
    let now = work.parts.clock.now();
    work.parts.backups.lock(&manifest, now).await?;
    Outcome::with(&Described {
        manifest,
        sealed_under,
    })
}

/// Until when a backup is locked, where backups are: for as long as its plan keeps it by age, or after a deletion.
/// What goes by number is not: it may have to give way tomorrow.
async fn locked_until(work: &Work, backup: &Backup) -> Result<Option<DateTime<Utc>>, StepError> {
    if !work.parts.backups.locks() {
        return Ok(None);
    }
    let instance = work.instance().await?;
    let id = instance.id.clone();
    let schedule = work
        .read(move |conn| store::schedule::find(conn, &id))
        .await?;
    let chosen = schedule.map(|of| of.timetable).unwrap_or_default();
    let timetable = work.parts.retention(&instance, chosen).timetable;
    Ok(match backup.kind {
        BackupKind::Final => {
            let rules = work.parts.plan_rules(&instance).after_delete;
            Some(rules.kept_until(work.parts.clock.now()))
        }
        kind => retention::end_by_age(kind, backup.created_at, &timetable),
    })
}

/// The key that the snapshot was sealed under was taken out of the ring since: another one is taken.
pub(super) fn without_key(key: &str) -> Outcome {
    Outcome::StartOver(format!("the key {key} that it was sealed under is gone"))
}

/// The name under which a backup is staged while it is read back.
fn staged_name(backup: &Backup) -> String {
    format!("{}.db", backup.id)
}

async fn remove_bytes(work: Arc<Work>) -> Result<Outcome, StepError> {
    let backup = backup(&work).await?;
    work.parts
        .backups
        .remove(&backup.deployment, &backup.id)
        .await?;
    let deployment = work.deployment().await?;
    let provisioner = &work.cluster(&deployment)?.provisioner;
    provisioner
        .unstage(&deployment.id, &staged_name(&backup))
        .await?;
    Outcome::done()
}

/// The backup counts from here on.
pub(super) fn complete(conn: &mut Conn<'_>, ending: &Ending<'_>) -> Result<Manifest, StoreError> {
    let results = store::step::results(conn, &ending.operation.id)?;
    let described: Described = results
        .get(DESCRIBE)
        .and_then(|value| serde_json::from_value(value.clone()).ok())
        .ok_or_else(|| StoreError::Missing("the manifest".to_owned()))?;
    let manifest = described.manifest;
    store::backup::complete(conn, &manifest, &described.sealed_under, ending.now)?;
    Ok(manifest)
}

/// A prune is queued with it where it finds something.
fn succeed(conn: &mut Conn<'_>, ending: &Ending<'_>) -> Result<(), StoreError> {
    let manifest = complete(conn, ending)?;
    if manifest.kind.is_scheduled() {
        let schedule = store::schedule::find(conn, &manifest.instance_id)?;
        if let Some(schedule) = schedule {
            store::schedule::set(conn, &schedule.after_success())?;
        }
    }
    prune::queue_if_any(conn, ending)
}

/// The failed backup stays listed. One of the schedule is tried again, and ages are honoured also
/// while backups fail; of an instance that is being deleted there is no schedule any more.
fn fail(conn: &mut Conn<'_>, ending: &Ending<'_>, failure: &str) -> Result<(), StoreError> {
    let Some(id) = &ending.operation.backup else {
        return Ok(());
    };
    store::backup::fail(conn, id, failure, ending.now)?;
    let backup = store::backup::find(conn, id)?;
    if backup.is_some_and(|backup| backup.kind.is_scheduled())
        && let Some(schedule) = store::schedule::find(conn, &ending.operation.instance)?
    {
        store::schedule::set(conn, &schedule.after_failure(ending.now))?;
        prune::queue_if_any(conn, ending)?;
    }
    Ok(())
}
