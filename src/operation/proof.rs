//! Proves a backup: restores it into a member that is thrown away, and compares all that is in it with its
//! manifest. Nothing but that member is touched. Of a backup that was proved before, the stored bytes are read, and so
//! they are of one that is sealed for the key of its tenant.

use std::sync::Arc;

use super::{Definition, Ending, Outcome, Step, StepError, Work, aside, healing, prune};
use crate::{
    model::{
        backup::{Backup, BackupState, Manifest},
        deployment::Deployment,
        proof::{Evidence, Finding},
        version::Version,
    },
    store::{self, Conn, StoreError},
};

/// Proof.
pub const DEFINITION: Definition = Definition {
    steps: &[
        Step {
            name: OWN,
            title: "Restoring the backup aside",
            run: |w| Box::pin(prove_in_own(w)),
        },
        Step {
            name: NEWEST,
            title: "Restoring it aside into the newest version",
            run: |w| Box::pin(prove_in_newest(w)),
        },
    ],
    begun: |_, _| Ok(()),
    cleanup: &[aside::CLEANUP],
    succeed,
    fail,
};

const OWN: &str = "prove";
const NEWEST: &str = "prove_newest";

/// The backup with its manifest; none when it is no more what it was: then there is nothing to prove.
async fn provable(work: &Work) -> Result<Option<(Backup, Manifest)>, StepError> {
    let Some(id) = work.operation.backup.clone() else {
        return Err(StepError::last("the operation names no backup"));
    };
    let found = work.read(move |conn| store::backup::find(conn, &id));
    let found = found.await?.filter(|b| b.state == BackupState::Complete);
    Ok(found.and_then(|backup| Some((backup.clone(), backup.manifest?))))
}

/// Restores it into its own version, or into the nearest that there is.
async fn prove_in_own(work: Arc<Work>) -> Result<Outcome, StepError> {
    let deployment = work.deployment().await?;
    aside::remove(&work, &deployment).await?;
    let Some((backup, manifest)) = provable(&work).await? else {
        return Outcome::with(&None::<Finding>);
    };
    if backup.proof.is_over() || !backup.is_provable() {
        return Outcome::with(&read_again(&work, &manifest).await?);
    }
    let version = match aside::own_version(&work, &deployment, &manifest)? {
        Ok(version) => version,
        Err(reason) => return Outcome::with(&Some(Finding::Untried { reason })),
    };
    let found = prove_in(&work, &deployment, &manifest, version).await?;
    Outcome::with(&found)
}

/// Reads all of the stored bytes of a backup that is not restored now, once more where they were spoiled and are put back. None:
/// the backup went meanwhile.
async fn read_again(work: &Work, manifest: &Manifest) -> Result<Option<Finding>, StepError> {
    let mut read = read_whole(work, manifest).await;
    if let Err(StepError::Last { message, .. }) = &read
        && healing::heal(work, manifest, message).await?
    {
        read = read_whole(work, manifest).await;
    }
    match read {
        Ok(()) => Ok(Some(Finding::Intact)),
        Err(_) if provable(work).await?.is_none() => Ok(None),
        Err(error) => spoiled(manifest, error).map(Some),
    }
}

async fn read_whole(work: &Work, manifest: &Manifest) -> Result<(), StepError> {
    let vault = &work.parts.backups;
    if manifest.sealed_for.is_some() {
        // All that a broker can tell that cannot open it.
        return Ok(vault.look_at_sealed(manifest).await?);
    }
    work.meter.begin(manifest.stored.snapshot_bytes);
    let progress = |bytes| work.meter.set(bytes);
    Ok(vault.read_whole(manifest, progress).await?)
}

/// What an error says of a backup, where it does.
fn spoiled(manifest: &Manifest, error: StepError) -> Result<Finding, StepError> {
    let StepError::Last { message, .. } = error else {
        return Err(error);
    };
    log::error!(backup:% = manifest.backup_id; "the stored bytes of a backup are not what was stored: {message}");
    Ok(Finding::Spoiled { reason: message })
}

/// Restores it into the newest version that it may go to, if it is the newest of its kind.
async fn prove_in_newest(work: Arc<Work>) -> Result<Outcome, StepError> {
    let deployment = work.deployment().await?;
    aside::remove(&work, &deployment).await?;
    let own: Option<Finding> = work.result(OWN).await?;
    let Some(Finding::Same { version: own, .. }) = own else {
        return Outcome::with(&None::<Finding>);
    };
    let Some((backup, manifest)) = provable(&work).await? else {
        return Outcome::with(&None::<Finding>);
    };
    let profile = work.engine(&deployment)?.profile();
    let reads = |version: &Version| *version > own && profile.restores(manifest.version, *version);
    let newest = aside::versions(&work, &deployment)?
        .into_iter()
        .rfind(reads);
    let (instance, kind) = (backup.instance.clone(), backup.kind);
    let last = work.read(move |conn| store::backup::newest_complete(conn, &instance, kind));
    let is_last = last.await?.is_some_and(|id| id == backup.id);
    let Some(version) = newest.filter(|_| is_last) else {
        return Outcome::with(&None::<Finding>);
    };
    let found = prove_in(&work, &deployment, &manifest, version).await?;
    Outcome::with(&found)
}

/// Restores a backup into `version`, looks at it, and removes it. What is wrong with the backup is a finding;
/// none: the backup went meanwhile.
async fn prove_in(
    work: &Work,
    source: &Deployment,
    manifest: &Manifest,
    version: Version,
) -> Result<Option<Finding>, StepError> {
    let proved = restore_and_prove(work, source, manifest, version).await;
    aside::remove(work, source).await?;
    match proved {
        Ok(evidence) => Ok(Some(Finding::Same { version, evidence })),
        // Retention does not wait for a proof.
        Err(_) if provable(work).await?.is_none() => Ok(None),
        Err(StepError::Last {
            message: reason,
            source,
        }) => {
            let why = source.map_or_else(String::new, |source| format!(": {source}"));
            log::error!(backup:% = manifest.backup_id, version:%;
                "a backup is not what its manifest says: {reason}{why}");
            Ok(Some(Finding::Differs { version, reason }))
        }
        Err(error) => Err(error),
    }
}

async fn restore_and_prove(
    work: &Work,
    source: &Deployment,
    manifest: &Manifest,
    version: Version,
) -> Result<Evidence, StepError> {
    let aside = aside::restore(work, source, manifest, version).await?;
    let proved = aside.engine.prove(aside.site(), &manifest.content);
    Ok(proved.await?)
}

/// Writes down what was found.
fn succeed(conn: &mut Conn<'_>, ending: &Ending<'_>) -> Result<(), StoreError> {
    let mut results = store::step::results(conn, &ending.operation.id)?;
    let mut findings = Vec::new();
    for step in [OWN, NEWEST] {
        let found = results.remove(step).unwrap_or_default();
        let found: Option<Finding> = serde_json::from_value(found)
            .map_err(|_| StoreError::Missing("what a proof found".to_owned()))?;
        findings.extend(found);
    }
    note(conn, ending, &findings)?;
    // What was kept until another backup was proved may go.
    prune::queue_if_any(conn, ending)
}

/// It came to nothing, and is tried again later.
fn fail(conn: &mut Conn<'_>, ending: &Ending<'_>, failure: &str) -> Result<(), StoreError> {
    let reason = failure.to_owned();
    note(conn, ending, &[Finding::Untried { reason }])
}

fn note(conn: &mut Conn<'_>, ending: &Ending<'_>, findings: &[Finding]) -> Result<(), StoreError> {
    let Some(id) = &ending.operation.backup else {
        return Ok(());
    };
    let backup = store::backup::find(conn, id)?;
    let Some(backup) = backup.filter(|b| b.state == BackupState::Complete) else {
        return Ok(());
    };
    // A proof that found nothing was of a backup that went, and came back since.
    let proof = backup.proof.after(findings, ending.now);
    let next = proof.next(ending.now, backup.is_provable());
    store::proof::set(conn, id, &proof, next)
}
