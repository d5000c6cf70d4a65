//! `logs`: what the members of an instance print.
//!
//! Invariant: of a log that is followed no line is told twice, and one that is being written is told when
//! it is whole.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use tokio::time::sleep;
use url::Url;

use super::{
    Session,
    command::Logs,
    compose::Compose,
    error::{Error, HttpError, Result},
    show::Output,
};
use crate::model::limits::{CLIENT_LOG_LINES, CLIENT_POLL};

/// What was read of one member's log.
#[derive(Default)]
struct Read {
    /// The file that it was read of.
    file: String,
    /// How long that was.
    bytes: u64,
    /// Lines of it that were told.
    told: usize,
}

impl Session {
    /// `logs`
    pub async fn logs(&self, of: &Logs) -> Result<()> {
        let wanted = of.lines.unwrap_or(CLIENT_LOG_LINES);
        self.with_api(&of.name, async |api| {
            let mut read: BTreeMap<String, Read> = BTreeMap::new();
            let mut last = Vec::new();
            for (member, file) in current_files(api, of).await? {
                let lines = self.lines_of(api, &file).await?;
                let told = lines.len();
                let tail = lines[told.saturating_sub(wanted)..].to_vec();
                last.push((member.clone(), tail));
                let of_member = Read {
                    file: id_of(&file),
                    bytes: file["size_bytes"].as_u64().unwrap_or_default(),
                    told,
                };
                read.insert(member, of_member);
            }
            if read.is_empty() {
                let text = match &of.member {
                    Some(member) => format!("{} has no member {member} with a log", of.name),
                    None => format!("{} has no logs", of.name),
                };
                return Err(Error::Failed(text));
            }
            if !of.follow {
                return self.show_at_once(&last);
            }
            self.show_lines(&last)?;
            self.follow_logs(api, of, read).await
        })
        .await
    }

    fn show_at_once(&self, logs: &[(String, Vec<String>)]) -> Result<()> {
        let lines: Vec<String> = logs
            .iter()
            .flat_map(|(member, lines)| lines.iter().map(move |line| format!("{member} {line}")))
            .collect();
        let logs: Vec<Value> = logs
            .iter()
            .map(|(member, lines)| json!({ "member": member, "lines": lines }))
            .collect();
        self.show
            .result(&lines.join("\n"), &json!({ "logs": logs }))
    }

    /// Tells lines of what goes on: to programs an object for each, on a line of its own.
    fn show_lines(&self, logs: &[(String, Vec<String>)]) -> Result<()> {
        for (member, lines) in logs {
            for line in lines {
                match self.show.output() {
                    Output::Text => self.show.line(&format!("{member} {line}"))?,
                    Output::Json => {
                        let value = json!({ "member": member, "line": line });
                        self.show.line(&value.to_string())?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Goes on until the user wants no more.
    async fn follow_logs(
        &self,
        api: &Compose<'_>,
        of: &Logs,
        mut read: BTreeMap<String, Read>,
    ) -> Result<()> {
        let pause = self
            .poll
            .unwrap_or(CLIENT_POLL)
            .max(Duration::from_millis(10));
        loop {
            tokio::select! {
                () = sleep(pause) => {}
                () = self.osb.http().interrupt().cancelled() => return Ok(()),
            }
            let files = match current_files(api, of).await {
                Ok(files) => files,
                Err(Error::Http(HttpError::Interrupted)) => return Ok(()),
                // It may pass.
                Err(Error::Http(error)) => {
                    self.show.note(&error.to_string());
                    continue;
                }
                Err(error) => return Err(error),
            };
            for (member, file) in files {
                let known = read.entry(member.clone()).or_default();
                let (id, bytes) = (
                    id_of(&file),
                    file["size_bytes"].as_u64().unwrap_or_default(),
                );
                if known.file == id && known.bytes == bytes {
                    continue;
                }
                // It was turned over.
                if known.file != id || bytes < known.bytes {
                    known.told = 0;
                }
                let lines = match self.lines_of(api, &file).await {
                    Ok(lines) => lines,
                    Err(Error::Http(HttpError::Interrupted)) => return Ok(()),
                    Err(Error::Http(error)) => {
                        self.show.note(&error.to_string());
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                let new = lines.get(known.told..).unwrap_or_default().to_vec();
                (known.file, known.bytes, known.told) = (id, bytes, lines.len());
                self.show_lines(&[(member, new)])?;
            }
        }
    }

    /// The whole lines of a file.
    async fn lines_of(&self, api: &Compose<'_>, file: &Value) -> Result<Vec<String>> {
        let told = api.logfile(&id_of(file)).await?;
        let link: Option<Url> = told["download_link"].as_str().and_then(|l| l.parse().ok());
        let link = link.ok_or_else(|| Error::Failed("the log's link is no address".into()))?;
        let mut download = self.osb.http().download(&link).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = download.next().await? {
            bytes.extend_from_slice(&chunk);
        }
        let text = String::from_utf8_lossy(&bytes);
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        Ok(whole.lines().map(str::to_owned).collect())
    }
}

/// The files that members write now, by member.
async fn current_files(api: &Compose<'_>, of: &Logs) -> Result<Vec<(String, Value)>> {
    let mut told = api.about("logfiles").await?;
    let Value::Array(files) = told["_embedded"]["logfiles"].take() else {
        return Err(Error::Failed(
            "the broker's answer lists no logfiles".into(),
        ));
    };
    let current = files.into_iter().filter(|file| file["status"] == "running");
    let named = current.map(|file| {
        let name = file["name"].as_str().unwrap_or_default();
        (name.trim_end_matches(".log").to_owned(), file)
    });
    let wanted = |member: &str| of.member.as_ref().is_none_or(|wanted| wanted == member);
    Ok(named.filter(|(member, _)| wanted(member)).collect())
}

fn id_of(file: &Value) -> String {
    file["id"].as_str().unwrap_or_default().to_owned()
}
