//! How large and how full the database of a deployment is.

use super::{StepError, Work};
use crate::{
    model::{
        deployment::{Deployment, DeploymentSecrets, Site},
        full::Fullness,
        observation::Observation,
    },
    provisioner::files_of,
};

/// What the members say now, and how large the largest one's database is by that, in bytes.
pub async fn observe_size(
    work: &Work,
    deployment: &Deployment,
    secrets: &DeploymentSecrets,
) -> Result<(Observation, u64), StepError> {
    let seen = work.observe(Site::new(deployment, secrets)).await?;
    match seen.database_bytes() {
        Some(bytes) => Ok((seen, bytes)),
        None => Err(StepError::passing(
            "no member says how large the database is",
        )),
    }
}

/// How full a deployment's database is now.
pub async fn fullness(
    work: &Work,
    deployment: &Deployment,
    secrets: &DeploymentSecrets,
) -> Result<Fullness, StepError> {
    let (seen, _) = observe_size(work, deployment, secrets).await?;
    let profile = work.engine(deployment)?.profile();
    let is_safe = profile.full_is_safe(deployment.version);
    let is_closed = deployment.closed_since.is_some();
    Ok(Fullness::of(
        &seen,
        deployment.quota_bytes(),
        is_safe,
        is_closed,
    ))
}

/// How large the largest member's database is on its disk, in bytes. It is known at once, however
/// busy the members are.
pub async fn bytes_on_disk(work: &Work, deployment: &Deployment) -> Result<u64, StepError> {
    let wanted = work.engine(deployment)?.profile().database_file;
    let provisioner = &work.cluster(deployment)?.provisioner;
    let mut largest = 0;
    for member in &deployment.members {
        let seen = files_of(provisioner, &deployment.id, &member.name, &wanted).await?;
        let databases = seen.iter().map(|file| file.bytes_on_disk);
        largest = databases.fold(largest, u64::max);
    }
    Ok(largest)
}
