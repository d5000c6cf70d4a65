//! Proves a backup: restores it into a member that is thrown away, and compares all that is in it with its
//! manifest. Nothing but that member is touched.
//!
//! The member is a deployment of its own, whose id is that of the operation: so what a crash has left is found
//! and removed by the next try, or by the clean-up. It has no row, and holds its addresses while it is there.
//! A worker that has lost the operation to another one must not start it again: each change where members run
//! comes right after a look whether the claim holds.

use std::sync::Arc;

use super::{Definition, Ending, Outcome, Step, StepError, Work, members, prune};
use crate::{
    engine::{Issue, Seed},
    model::{
        backup::{Backup, BackupState, Manifest},
        deployment::{Access, Deployment, Site},
        ids::DeploymentId,
        proof::{Evidence, Finding, own_version},
        reach::Reach,
        renewal::Certificates,
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
    cleanup: &[Step {
        name: "cleanup_aside",
        title: "Removing what was restored aside",
        run: |w| Box::pin(clean_up(w)),
    }],
    succeed,
    fail,
};

const OWN: &str = "prove";
const NEWEST: &str = "prove_newest";

/// The only member of what is thrown away.
const MEMBER: &str = "m0";

/// The backup with its manifest; none when it is no more what it was: then there is nothing to prove.
async fn provable(work: &Work) -> Result<Option<(Backup, Manifest)>, StepError> {
    let Some(id) = work.operation.backup.clone() else {
        return Err(StepError::last("the operation names no backup"));
    };
    let found = work.read(move |conn| store::backup::find(conn, &id));
    let found = found.await?.filter(|b| b.state == BackupState::Complete);
    Ok(found.and_then(|backup| Some((backup.clone(), backup.manifest?))))
}

/// The versions of the backup's engine on the cluster, oldest first.
fn versions(work: &Work, deployment: &Deployment) -> Result<Vec<Version>, StepError> {
    let provisioner = &work.cluster(deployment)?.provisioner;
    Ok(provisioner.versions(&deployment.engine))
}

/// Restores it into its own version, or into the nearest that there is.
async fn prove_in_own(work: Arc<Work>) -> Result<Outcome, StepError> {
    let deployment = work.deployment().await?;
    remove(&work, &deployment).await?;
    let Some((_, manifest)) = provable(&work).await? else {
        return Outcome::with(&None::<Finding>);
    };
    let profile = work.engine(&deployment)?.profile();
    let reads = |version| profile.restores(manifest.version, version);
    let Some(version) = own_version(manifest.version, &versions(&work, &deployment)?, reads) else {
        let reason = format!(
            "no version on the cluster restores a backup of {} {}",
            manifest.engine, manifest.version
        );
        return Outcome::with(&Some(Finding::Untried { reason }));
    };
    let found = prove_in(&work, &deployment, &manifest, version).await?;
    Outcome::with(&found)
}

/// Restores it into the newest version that it may go to, if it is the newest of its kind.
async fn prove_in_newest(work: Arc<Work>) -> Result<Outcome, StepError> {
    let deployment = work.deployment().await?;
    remove(&work, &deployment).await?;
    let own: Option<Finding> = work.result(OWN).await?;
    let Some(Finding::Same { version: own, .. }) = own else {
        return Outcome::with(&None::<Finding>);
    };
    let Some((backup, manifest)) = provable(&work).await? else {
        return Outcome::with(&None::<Finding>);
    };
    let profile = work.engine(&deployment)?.profile();
    let reads = |version: &Version| *version > own && profile.restores(manifest.version, *version);
    let newest = versions(&work, &deployment)?.into_iter().rfind(reads);
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
    let aside = aside(work, source, manifest, version)?;
    let restored = restore_aside(work, aside, manifest).await;
    remove(work, source).await?;
    match restored {
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

/// What is thrown away, without its member.
fn aside(
    work: &Work,
    source: &Deployment,
    manifest: &Manifest,
    version: Version,
) -> Result<Deployment, StepError> {
    Ok(Deployment {
        id: aside_id(work)?,
        version,
        units: source.units.max(manifest.units_needed()),
        members: Vec::new(),
        closed_since: None,
        ..source.clone()
    })
}

fn aside_id(work: &Work) -> Result<DeploymentId, StepError> {
    let id = work.operation.id.as_str().parse();
    id.map_err(|_| StepError::last("the operation's id is none for what it restores aside"))
}

async fn restore_aside(
    work: &Work,
    aside: Deployment,
    manifest: &Manifest,
) -> Result<Evidence, StepError> {
    let engine = work.engine(&aside)?;
    let provisioner = &work.cluster(&aside)?.provisioner;
    let profile = engine.profile();
    let bytes = manifest.stored.snapshot_bytes;
    // The staged snapshot and the member's copy, which is never more than these at a time.
    provisioner
        .room_for(2 * bytes + profile.member_bytes_min)
        .await?;
    let aside = place(work, aside).await?;
    let snapshot = work.parts.backups.open(manifest).await?;
    let snapshot = work.meter.count(bytes, snapshot);
    let (id, staged) = (&aside.id, profile.snapshot_file);
    provisioner.stage(id, staged, bytes, snapshot).await?;
    let bench = provisioner.as_ref();
    has_claim(work).await?;
    engine
        .seed(&aside, 0, Seed::Snapshot(staged), bench)
        .await?;
    provisioner.unstage(id, staged).await?;

    let now = work.parts.clock.now();
    let certificates = Certificates::new(now, &work.parts.certificate_life);
    let secrets = engine.secrets(&aside, Issue::First, &certificates, now)?;
    let site = Site::with_access(&aside, &secrets, Access::Certificates);
    for server in engine.servers(site) {
        has_claim(work).await?;
        provisioner.start(&server).await?;
    }
    members::await_ready(work, &aside, &secrets, Access::Certificates).await?;
    Ok(engine.prove(site, &manifest.content).await?)
}

/// Gives it a member, whose addresses nobody else gets. Nobody from elsewhere reaches them.
async fn place(work: &Work, aside: Deployment) -> Result<Deployment, StepError> {
    let (reach, names) = (Reach::loopback(), [MEMBER.to_owned()]);
    let hold = |placed| work.write(move |conn| store::deployment::hold_aside(conn, &placed));
    members::place(work, &aside, &names, &reach, hold).await
}

/// Fails when another worker has the operation.
async fn has_claim(work: &Work) -> Result<(), StepError> {
    work.write(|_| Ok(())).await
}

/// Removes all that there is of what was restored of a backup of `source`, and gives its addresses back.
async fn remove(work: &Work, source: &Deployment) -> Result<(), StepError> {
    has_claim(work).await?;
    let (provisioner, id) = (&work.cluster(source)?.provisioner, aside_id(work)?);
    provisioner.destroy(&id).await?;
    work.write(move |conn| store::deployment::release_addresses(conn, &id))
        .await
}

async fn clean_up(work: Arc<Work>) -> Result<Outcome, StepError> {
    remove(&work, &work.deployment().await?).await?;
    Outcome::done()
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
    let next_at = proof.next_at(ending.now);
    store::proof::set(conn, id, &proof, next_at)
}
