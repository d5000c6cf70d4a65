//! A backup restored beside the database that it is of, into a member that is thrown away.
//!
//! The member is a deployment of its own, whose id is that of the operation: so what a crash has left is found
//! and removed by the next try, or by the clean-up. It has no row, and holds its addresses while it is there.
//! A worker that has lost the operation to another one must not start it again: each change where members run
//! comes right after a look whether the claim holds.

use std::sync::Arc;

use tokio::time::{Instant, sleep};

use super::{OpenDeployment, Outcome, Step, StepError, Work, healing, members};
use crate::{
    engine::{Issue, Seed},
    model::{
        backup::{Manifest, SnapshotContent},
        deployment::{Access, Deployment},
        ids::DeploymentId,
        limits::{AGREEMENT_POLL, DAMAGED_ENDS_MIN, upload::ENDS_AGAIN_WITHIN},
        proof,
        reach::Reach,
        renewal::Certificates,
        version::Version,
    },
    store,
    stream::ByteStream,
};

/// The only member of what is thrown away.
const MEMBER: &str = "m0";

/// What operations that restore aside clean up with.
pub const CLEANUP: Step = Step {
    name: "cleanup_aside",
    title: "Removing what was restored aside",
    run: |w| Box::pin(clean_up(w)),
};

async fn clean_up(work: Arc<Work>) -> Result<Outcome, StepError> {
    remove(&work, &work.deployment().await?).await?;
    Outcome::done()
}

/// What the snapshot holds that is on the stage, and that `aside` was made of.
pub async fn take_stock(aside: &OpenDeployment) -> Result<SnapshotContent, StepError> {
    let (staged, bench) = (aside.profile().snapshot_file, aside.provisioner().as_ref());
    let found = aside.engine.take_stock(aside.site(), staged, bench);
    Ok(found.await?)
}

/// The versions of a deployment's engine on its cluster, oldest first.
pub fn versions(work: &Work, deployment: &Deployment) -> Result<Vec<Version>, StepError> {
    let provisioner = &work.cluster(deployment)?.provisioner;
    Ok(provisioner.versions(&deployment.engine))
}

/// The version that a backup is restored into where no newer one is asked for: its own, or the nearest that there
/// is; or why there is none, for people.
pub fn own_version(
    work: &Work,
    beside: &Deployment,
    manifest: &Manifest,
) -> Result<Result<Version, String>, StepError> {
    let profile = work.engine(beside)?.profile();
    let reads = |version| profile.restores(manifest.version, version);
    let found = proof::own_version(manifest.version, &versions(work, beside)?, reads);
    Ok(found.ok_or_else(|| {
        format!(
            "no version on the cluster restores a backup of {} {}",
            manifest.engine, manifest.version
        )
    }))
}

/// Restores a backup into a member of `version` on the cluster of `beside`, and waits until it serves. Nobody but the
/// broker enters it.
pub async fn restore(
    work: &Work,
    beside: &Deployment,
    manifest: &Manifest,
    version: Version,
) -> Result<OpenDeployment, StepError> {
    let restored = restore_from(work, beside, manifest, version, None).await?;
    let (id, staged) = (&restored.deployment.id, restored.profile().snapshot_file);
    restored.provisioner().unstage(id, staged).await?;
    Ok(restored)
}

/// The same of the snapshot that a manifest tells of, where it is not the stored one; it stays on the stage.
pub async fn restore_from(
    work: &Work,
    beside: &Deployment,
    manifest: &Manifest,
    version: Version,
    snapshot: Option<ByteStream>,
) -> Result<OpenDeployment, StepError> {
    let aside = without_member(work, beside, manifest, version)?;
    let engine = work.engine(&aside)?;
    let provisioner = &work.cluster(&aside)?.provisioner;
    let profile = engine.profile();
    let bytes = manifest.stored.snapshot_bytes;
    // The staged snapshot and the member's copy, which is never more than these at a time.
    let tenant = work.tenant().await?;
    let of = tenant.owning(&aside.id);
    provisioner
        .room_for(of, 2 * bytes + profile.member_bytes_min)
        .await?;
    let aside = place(work, aside).await?;
    let (id, staged) = (&aside.id, profile.snapshot_file);
    match snapshot {
        None => healing::stage(work, &aside, manifest, staged).await?,
        Some(snapshot) => {
            let snapshot = work.meter.count(bytes, snapshot);
            provisioner.stage(id, staged, bytes, snapshot).await?;
        }
    }
    let bench = provisioner.as_ref();
    has_claim(work).await?;
    engine
        .seed(&aside, 0, Seed::Snapshot(staged), bench)
        .await?;

    let now = work.parts.clock.now();
    let certificates = Certificates::new(now, &work.parts.certificate_life);
    let secrets = engine.secrets(&aside, Issue::First, &certificates, now)?;
    let restored = work.with_secrets(aside, secrets)?;
    let restored = restored.with_access(Access::Certificates);
    for server in restored.servers() {
        has_claim(work).await?;
        provisioner.start(&server).await?;
    }
    members::await_ready(work, &restored).await?;
    Ok(restored)
}

/// What is thrown away, without its member.
fn without_member(
    work: &Work,
    beside: &Deployment,
    manifest: &Manifest,
    version: Version,
) -> Result<Deployment, StepError> {
    Ok(Deployment {
        id: id(work)?,
        version,
        units: beside.units.max(manifest.units_needed()),
        members: Vec::new(),
        closed_since: None,
        ..beside.clone()
    })
}

fn id(work: &Work) -> Result<DeploymentId, StepError> {
    let id = work.operation.id.as_str().parse();
    id.map_err(|_| StepError::last("the operation's id is none for what it restores aside"))
}

/// Gives it a member, whose addresses nobody else gets. Nobody from elsewhere reaches them.
async fn place(work: &Work, aside: Deployment) -> Result<Deployment, StepError> {
    let (reach, names) = (Reach::loopback(), [MEMBER.to_owned()]);
    let hold = |placed| work.write(move |conn| store::deployment::hold_aside(conn, &placed));
    members::place(work, &aside, &names, &reach, hold).await
}

/// Whether the member that was restored aside, and does not serve, ends again and again when it is started.
pub async fn ends(work: &Work, beside: &Deployment) -> Result<bool, StepError> {
    let provisioner = &work.cluster(beside)?.provisioner;
    let (id, until) = (id(work)?, Instant::now() + ENDS_AGAIN_WITHIN);
    loop {
        let seen = provisioner.observe(&id).await?;
        if seen
            .iter()
            .any(|member| member.restarts >= DAMAGED_ENDS_MIN)
        {
            return Ok(true);
        }
        if seen.is_empty() || Instant::now() >= until {
            return Ok(false);
        }
        sleep(AGREEMENT_POLL).await;
    }
}

/// Fails when another worker has the operation.
pub async fn has_claim(work: &Work) -> Result<(), StepError> {
    work.write(|_| Ok(())).await
}

/// Removes all that there is of what was restored beside a deployment, and gives its addresses back.
pub async fn remove(work: &Work, beside: &Deployment) -> Result<(), StepError> {
    has_claim(work).await?;
    let (provisioner, id) = (&work.cluster(beside)?.provisioner, id(work)?);
    provisioner.destroy(&id).await?;
    work.write(move |conn| store::deployment::release_addresses(conn, &id))
        .await
}
