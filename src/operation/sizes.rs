//! How large and how full the database of a deployment is.

use super::{OpenDeployment, StepError, Work};
use crate::{
    model::{full::Fullness, observation::Observation},
    provisioner::files_of,
};

/// What the members say now, and how large the largest one's database is by that, in bytes.
pub async fn observe_size(
    work: &Work,
    opened: &OpenDeployment,
) -> Result<(Observation, u64), StepError> {
    let seen = work.observe(opened).await?;
    match seen.database_bytes() {
        Some(bytes) => Ok((seen, bytes)),
        None => Err(StepError::passing(
            "no member says how large the database is",
        )),
    }
}

/// How full a deployment's database is now.
pub async fn fullness(work: &Work, opened: &OpenDeployment) -> Result<Fullness, StepError> {
    let (seen, _) = observe_size(work, opened).await?;
    let deployment = &opened.deployment;
    let is_safe = opened.profile().full_is_safe(deployment.version);
    let is_closed = deployment.closed_since.is_some();
    let quota = deployment.quota_bytes();
    Ok(Fullness::of(&seen, quota, is_safe, is_closed))
}

/// How large the largest member's database is on its disk, in bytes. It is known at once, however
/// busy the members are.
pub async fn bytes_on_disk(opened: &OpenDeployment) -> Result<u64, StepError> {
    let (deployment, wanted) = (&opened.deployment, opened.profile().database_file);
    let mut largest = 0;
    for member in &deployment.members {
        let name = &member.name;
        let seen = files_of(opened.provisioner(), &deployment.id, name, &wanted).await?;
        let databases = seen.iter().map(|file| file.bytes_on_disk);
        largest = databases.fold(largest, u64::max);
    }
    Ok(largest)
}
