//! What members have printed: files on their volumes, which outlive pods.

use std::{io, sync::Arc};

use futures::{StreamExt as _, stream};

use super::{
    cluster::{Cluster, Result},
    exec, files, member,
    objects::SERVER,
    scripts, seen, volume,
};
use crate::{
    model::{
        ids::DeploymentId,
        limits::LAST_WORDS_BYTES_MAX,
        logfile::{LogPart, Logfile},
        server::{FILES, HOME},
    },
    provisioner::{FileSeen, ProvisionerError, lines::Lines},
    stream::{ByteStream, TextStream},
};

const FOLDER: &str = "/member/log";

async fn logs_of(
    cluster: &Arc<Cluster>,
    deployment: &DeploymentId,
    member: &str,
) -> Result<Vec<(LogPart, FileSeen)>> {
    let found = files::list(cluster, deployment, member, FOLDER).await?;
    let with_part = |file: FileSeen| {
        let mut parts = LogPart::ALL.into_iter();
        let part = parts.find(|part| part.as_str() == file.name)?;
        (file.bytes > 0).then_some((part, file))
    };
    Ok(found.into_iter().filter_map(with_part).collect())
}

/// See [`crate::provisioner::Provisioner::logs`].
pub(super) async fn logs(
    cluster: &Arc<Cluster>,
    deployment: &DeploymentId,
) -> Result<Vec<Logfile>> {
    let mut all = Vec::new();
    for member in member::look(cluster, deployment).await? {
        let found = match logs_of(cluster, deployment, &member.name).await {
            // What it printed is told of when its pod is there again.
            Err(ProvisionerError::NotStarted { .. }) => continue,
            found => found?,
        };
        for (part, file) in found {
            all.push(Logfile {
                member: member.name.clone(),
                part,
                bytes: file.bytes,
                written_at: file.written_at,
            });
        }
    }
    Ok(all)
}

/// See [`crate::provisioner::Provisioner::read_log`].
pub(super) async fn read(
    cluster: &Arc<Cluster>,
    deployment: &DeploymentId,
    member: &str,
    part: LogPart,
    last: Option<u64>,
) -> Result<Option<TextStream>> {
    let found = logs_of(cluster, deployment, member).await?;
    let Some((_, file)) = found.into_iter().find(|(of, _)| *of == part) else {
        return Ok(None);
    };
    let Some(at) = volume::container(cluster, deployment, member).await? else {
        return Ok(None);
    };
    // From one byte before on: where that ends a line, the next one is whole.
    let cut = last.map_or(0, |last| file.bytes.saturating_sub(last));
    let from = cut.saturating_sub(1);
    let wanted = file.bytes - from;
    let path = format!("{FOLDER}/{}", part.as_str());
    let args = [path.as_str(), &from.to_string(), &wanted.to_string()];
    let command = scripts::command(scripts::READ, &args);
    let bytes = exec::read(&cluster.client, &at, &command).await?;
    let places = vec![
        ("/member/home".to_owned(), HOME),
        ("/files".to_owned(), FILES),
    ];
    Ok(Some(lines(bytes, wanted, Lines::new(cut > 0, places))))
}

/// The lines of a log of which `wanted` bytes are to come.
fn lines(bytes: ByteStream, wanted: u64, lines: Lines) -> TextStream {
    let next = |state: Option<(ByteStream, u64, Lines)>| async {
        let Some((mut bytes, mut wanted, mut lines)) = state else {
            return Ok(None);
        };
        let mut text = String::new();
        while let Some(chunk) = bytes.next().await {
            let chunk = chunk?;
            wanted = wanted.saturating_sub(chunk.len() as u64);
            lines.take(&chunk, &mut text);
            if !text.is_empty() {
                return Ok(Some((text, Some((bytes, wanted, lines)))));
            }
        }
        if wanted > 0 {
            // It was emptied while it was read.
            return Err(io::Error::other("the log was turned over meanwhile"));
        }
        lines.end(&mut text);
        Ok((!text.is_empty()).then_some((text, None)))
    };
    stream::try_unfold(Some((bytes, wanted, lines)), next).boxed()
}

/// See [`crate::provisioner::Provisioner::last_words`].
pub(super) async fn last_words(
    cluster: &Arc<Cluster>,
    deployment: &DeploymentId,
    member: &str,
) -> Result<Option<String>> {
    if cluster.set(deployment, member).await?.is_none() {
        return Ok(None);
    }
    let pod = cluster.pod(deployment, member).await?;
    if pod.is_some_and(|pod| seen::runs(&pod, SERVER)) {
        return Ok(None);
    }
    let most = LAST_WORDS_BYTES_MAX.to_string();
    let args = [most.as_str()];
    let ended = volume::run(cluster, deployment, member, scripts::LAST_WORDS, &args).await;
    let ended = match ended {
        Err(ProvisionerError::NotStarted { .. }) => return Ok(None),
        ended => ended?,
    };
    let Some(ended) = ended.filter(|ended| ended.code != scripts::NOTHING_THERE) else {
        return Ok(None);
    };
    let words = ended.well("reading a member's last words")?;
    Ok(Some(String::from_utf8_lossy(&words).into_owned()))
}
