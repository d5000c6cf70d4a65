//! Files on a member's volume: what is there, and moving it.

use std::{io, sync::Arc};

use chrono::{DateTime, Utc};

use super::{
    cluster::{Cluster, Result},
    exec, scripts, stage, volume,
};
use crate::{
    model::ids::DeploymentId,
    provisioner::{FileSeen, ProvisionerError},
    stream::ByteStream,
};

/// The files in a folder of a member's pod, sorted by name.
pub(super) async fn list(
    cluster: &Arc<Cluster>,
    deployment: &DeploymentId,
    member: &str,
    folder: &str,
) -> Result<Vec<FileSeen>> {
    let ended = volume::run(cluster, deployment, member, scripts::LIST, &[folder]).await?;
    let Some(ended) = ended else {
        return Ok(Vec::new());
    };
    let listed = ended.well("listing files of a member")?;
    let listed = String::from_utf8_lossy(&listed);
    let mut files: Vec<FileSeen> = listed.lines().filter_map(file_seen).collect();
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

/// A line of a list: length, blocks, bytes of a block, seconds since 1970, name.
fn file_seen(line: &str) -> Option<FileSeen> {
    let mut parts = line.splitn(5, ' ');
    let mut number = || parts.next()?.parse::<u64>().ok();
    let (bytes, blocks, block, seconds) = (number()?, number()?, number()?, number()?);
    let written_at: DateTime<Utc> = DateTime::from_timestamp(i64::try_from(seconds).ok()?, 0)?;
    Some(FileSeen {
        name: parts.next()?.to_owned(),
        bytes,
        bytes_on_disk: blocks.saturating_mul(block),
        written_at,
    })
}

/// Runs a script that changes what is on a member's volume.
pub(super) async fn change(
    cluster: &Arc<Cluster>,
    deployment: &DeploymentId,
    member: &str,
    script: &str,
    args: &[&str],
) -> Result<()> {
    match volume::run(cluster, deployment, member, script, args).await? {
        None => Ok(()),
        Some(ended) => ended.well("changing a member's home").map(drop),
    }
}

/// See [`crate::workbench::Workbench::stage_file`].
pub(super) async fn put_on_stage(
    cluster: &Arc<Cluster>,
    deployment: &DeploymentId,
    member: &str,
    path: &str,
    name: &str,
) -> Result<()> {
    let (folder, file) = path.rsplit_once('/').unwrap_or((".", path));
    let folder = format!("/member/home/{folder}");
    let found = list(cluster, deployment, member, &folder).await?;
    let not_found = || ProvisionerError::Io {
        doing: format!("reading a file of member {member}"),
        source: io::ErrorKind::NotFound.into(),
    };
    let found = found.into_iter().find(|seen| seen.name == file);
    let found = found.ok_or_else(not_found)?;
    let at = volume::container(cluster, deployment, member).await?;
    let at = at.ok_or_else(not_found)?;
    let path = format!("{folder}/{file}");
    let bytes = found.bytes.to_string();
    let command = scripts::command(scripts::READ, &[&path, "0", &bytes]);
    let content: ByteStream = exec::read(&cluster.client, &at, &command).await?;
    stage::put(cluster, deployment, name, found.bytes, content).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_list_is_a_file() {
        let seen = file_seen("20480 16 512 1790000000 a b.db").expect("a file");
        assert_eq!(seen.name, "a b.db");
        assert_eq!((seen.bytes, seen.bytes_on_disk), (20_480, 8192));
        assert_eq!(seen.written_at.timestamp(), 1_790_000_000);
        for bad in ["", "1 2 3", "x 16 512 1790000000 a"] {
            assert_eq!(file_seen(bad), None, "{bad}");
        }
    }
}
