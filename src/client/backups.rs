//! Commands about backups, by the Compose API: they work when the database does not.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    Session,
    command::DownloadBackup,
    compose::Compose,
    download,
    error::{Error, HttpError, Result},
    show::{moment, tied_size},
    waits::waits_until,
};
use crate::model::{
    choice::LATEST,
    limits::{CLIENT_FIRST_LOOK, CLIENT_POLL, upload::IMPORTED_BACKUPS_MAX},
    period::BackupKind,
    size::size,
};

impl Session {
    /// `backups`
    pub async fn backups(&self, name: &str) -> Result<()> {
        let listed = self.with_api(name, async |api| {
            let (backups, retention) = api.backups().await?;
            let mut details = Vec::new();
            for backup in &backups {
                details.extend(detail_of(api, backup).await);
                details.extend(flawed(backup));
                details.extend(noted(backup));
            }
            Ok((backups, retention, details))
        });
        let (backups, retention, details) = listed.await?;
        let kept = retention["on_demand_kept"].as_u64();
        let rows = backups.iter().enumerate().map(|(place, backup)| {
            [
                text(&backup["id"]),
                text(&backup["type"]),
                status(backup),
                self.time(&backup["requested_at"]),
                text(&backup["version"]),
                backup["keys"]
                    .as_u64()
                    .map_or(String::new(), |keys| keys.to_string()),
                backup["size_bytes"]
                    .as_u64()
                    .map_or(String::new(), tied_size),
                proved(backup).to_owned(),
                self.expires(backup, kept.map(|kept| (kept, &backups[..place]))),
            ]
        });
        let head = [
            "ID",
            "TYPE",
            "STATUS",
            "ASKED FOR",
            "VERSION",
            "KEYS",
            "SIZE",
            "PROVED",
            "EXPIRES",
        ];
        let mut shown = self.show.listed(head, rows, "No backups yet.");
        if !details.is_empty() {
            shown.push_str("\n\n");
            shown.push_str(&details.join("\n"));
        }
        self.show.result(&shown, &json!({ "backups": backups }))
    }

    /// Until when a backup is kept, and why no longer, as far as that is known. One on demand goes by no
    /// clock: newer ones take its place; `kept`: how many stay, and the newer ones that there are, where that is known.
    fn expires(&self, backup: &Value, kept: Option<(u64, &[Value])>) -> String {
        if backup["pinned"] == true {
            return "not while pinned".to_owned();
        }
        let removal = &backup["removal"];
        if removal.is_object() {
            return format!(
                "{}: {}",
                self.time(&removal["at"]),
                text(&removal["reason"])
            );
        }
        match (&backup["expires_at"], backup["type"].as_str()) {
            (Value::Null, Some(kind @ ("on_demand" | "imported")))
                if backup["status"] == "complete" =>
            {
                kept.map_or_else(
                    || "when newer ones replace it".to_owned(),
                    |(on_demand, newer)| {
                        let kept = match kind {
                            "on_demand" => on_demand,
                            _ => IMPORTED_BACKUPS_MAX as u64,
                        };
                        let is_counted = |of: &&Value| {
                            of["type"] == kind && of["status"] == "complete" && of["pinned"] != true
                        };
                        let newer = newer.iter().filter(is_counted).count() as u64;
                        format!("after {} more", kept.saturating_sub(newer).max(1))
                    },
                )
            }
            (Value::Null, _) => String::new(),
            (end, _) => self.time(end),
        }
    }

    /// When a backup was restored aside last and into which versions, or why not; nothing where the broker does
    /// not tell.
    fn proof(&self, backup: &Value) -> Option<String> {
        let reason = backup["unverified_reason"].as_str();
        let Some(at) = Some(&backup["verified_at"]).filter(|at| at.is_string()) else {
            return reason.map(|reason| format!("no: {reason}"));
        };
        let versions = backup["verified_versions"].as_array()?;
        let versions: Vec<String> = versions.iter().map(text).collect();
        let told = format!(
            "{}, restored into {}",
            self.time(at),
            versions.join(" and ")
        );
        Some(match reason {
            None => told,
            Some(reason) => format!("{told}; {reason}"),
        })
    }

    /// `create-backup`
    pub async fn create_backup(&self, name: &str, wait: bool) -> Result<()> {
        let done = self.with_api(name, async |api| {
            // Nobody goes without a backup because this cannot be told.
            if let Ok(told) = replaced(api, name).await {
                for replaced in told {
                    self.show.note(&replaced);
                }
            }
            if let Ok(deployment) = api.deployment().await
                && let Some(until) = waits_until(&deployment["health"])
            {
                self.show
                    .note(&format!("{name} is down: the backup waits {until}"));
            }
            let recipe = api.begin_backup().await?;
            let id = text(&recipe["backup_id"]);
            if !wait {
                self.show.note(&format!(
                    "The backup has started. Check: compose-broker backups {name}"
                ));
                return shown(api, &id).await;
            }
            let title = format!("back up {name}");
            let left =
                format!("The backup goes on without you. Check: compose-broker backups {name}");
            self.wait_for_recipe(api, &title, &left, &text(&recipe["id"]))
                .await?;
            shown(api, &id).await
        });
        self.show_backup(done.await?)
    }

    /// `backup-note`, `pin` and `unpin`
    pub async fn change_backup(&self, name: &str, id: &str, change: &Value) -> Result<()> {
        let changed = self.with_api(name, async |api| {
            let id = chosen(api, name, id).await?;
            let changed = api.change_backup(&id, change).await;
            let changed = changed.map_err(|error| unless_missing(error, name, &id))?;
            Ok((changed, api.backups().await.ok()))
        });
        self.show_backup(changed.await?)
    }

    fn show_backup(&self, (mut backup, listed): Shown) -> Result<()> {
        // It needs no credentials, and a result may be kept for longer than it is good for.
        if let Some(backup) = backup.as_object_mut() {
            backup.remove("download_link");
        }
        let shown = self.show.fields([
            ("backup", Some(text(&backup["id"]))),
            ("name", Some(text(&backup["name"]))),
            ("status", Some(status(&backup))),
            ("asked for", Some(self.time(&backup["requested_at"]))),
            ("version", backup["version"].as_str().map(str::to_owned)),
            ("keys", backup["keys"].as_u64().map(|keys| keys.to_string())),
            ("size", backup["size_bytes"].as_u64().map(size)),
            (
                "sealed for",
                backup["sealed_for"].as_str().map(str::to_owned),
            ),
            ("proved", self.proof(&backup)),
            (
                "expires",
                Some(self.expires(&backup, kept_by(&backup, listed.as_ref())))
                    .filter(|end| !end.is_empty()),
            ),
            (
                "note",
                Some(text(&backup["note"])).filter(|note| !note.is_empty()),
            ),
        ]);
        self.show.result(&shown, &backup)
    }

    /// Waits for the end of a recipe, under a title such as `back up orders`; `left` is what is
    /// shown to the user who waits no longer.
    pub(super) async fn wait_for_recipe(
        &self,
        api: &Compose<'_>,
        title: &str,
        left: &str,
        id: &str,
    ) -> Result<()> {
        let progress = self.show.progress(title);
        let interrupted = || Error::Interrupted(left.to_owned());
        let mut pause = CLIENT_FIRST_LOOK;
        loop {
            tokio::select! {
                () = sleep(self.poll.unwrap_or(pause)) => {}
                () = self.osb.http().interrupt().cancelled() => return Err(interrupted()),
            }
            pause = CLIENT_POLL;
            let recipe = match api.recipe(id).await {
                Ok(recipe) => recipe,
                Err(Error::Http(HttpError::Interrupted)) => return Err(interrupted()),
                // It may pass.
                Err(Error::Http(error)) => {
                    progress.say(&error.to_string());
                    continue;
                }
                Err(error) => return Err(error),
            };
            let detail = text(&recipe["status_detail"]);
            match recipe["status"].as_str() {
                Some("complete") => {
                    progress.done();
                    return Ok(());
                }
                Some("running" | "waiting") => progress.say(&detail),
                _ => return Err(Error::Failed(format!("{title} failed: {detail}"))),
            }
        }
    }

    /// `download-backup`
    pub async fn download(&self, asked: DownloadBackup) -> Result<()> {
        let DownloadBackup {
            name,
            backup,
            to,
            force,
        } = asked;
        if let Some(file) = &to {
            download::check_target(file, force)?;
        }
        let told = self
            .with_api(&name, async |api| {
                let id = chosen(api, &name, &backup).await?;
                let told = api.backup(&id).await;
                told.map_err(|error| unless_missing(error, &name, &id))
            })
            .await?;
        let Some(link) = told["download_link"].as_str() else {
            return Err(Error::Failed(format!(
                "the backup cannot be downloaded: it is {}",
                status(&told)
            )));
        };
        let link = link
            .parse()
            .map_err(|_| Error::Failed("the backup's link is no address".into()))?;
        let file = to.unwrap_or_else(|| download::file_name(&told));
        download::check_target(&file, force)?;
        let progress = self.show.progress(&format!("download {backup}"));
        let sha256 = told["sha256"].as_str();
        let http = self.osb.http();
        let bytes = |field: &str| told[field].as_u64();
        let length = download::Length {
            exact: bytes("archive_bytes"),
            about: bytes("archive_bytes_estimate").or(bytes("stored_bytes")),
        };
        let done = download::download(http, &link, &file, sha256, force, length, &progress).await?;
        progress.done();
        if sha256.is_none() {
            let text = "the broker has no hash of this backup: it was not compared with any";
            self.show.note(text);
        }
        let shown = self.show.fields([
            ("file", Some(file.display().to_string())),
            ("size", Some(size(done))),
            ("sha256 of the snapshot", sha256.map(str::to_owned)),
        ]);
        let value = json!({
            "file": file.display().to_string(),
            "bytes": done,
            "backup_id": told["id"],
            "sha256": sha256,
        });
        self.show.result(&shown, &value)
    }

    pub(super) fn time(&self, at: &Value) -> String {
        let told = text(at);
        let at: Option<DateTime<Utc>> = told.parse().ok();
        at.map_or(told, |at| moment(at, self.clock.now()))
    }
}

/// A backup, and all that there are with how many are kept, where the broker tells.
type Shown = (Value, Option<(Vec<Value>, Value)>);

/// A backup as a result shows it.
async fn shown(api: &Compose<'_>, id: &str) -> Result<Shown> {
    Ok((api.backup(id).await?, api.backups().await.ok()))
}

/// How many backups on demand are kept, and those that are newer than this one.
fn kept_by<'a>(
    backup: &Value,
    listed: Option<&'a (Vec<Value>, Value)>,
) -> Option<(u64, &'a [Value])> {
    let (backups, retention) = listed?;
    let place = backups.iter().position(|of| of["id"] == backup["id"])?;
    Some((retention["on_demand_kept"].as_u64()?, &backups[..place]))
}

/// The id of the backup that a user means: its own, or that of the newest complete one, by `latest` and the like.
async fn chosen(api: &Compose<'_>, name: &str, backup: &str) -> Result<String> {
    let kind = match backup.split_once(':') {
        None if backup == LATEST => None,
        Some((LATEST, kind)) => Some(kind),
        _ => return Ok(backup.to_owned()),
    };
    // As a restore chooses.
    let is_meant = |listed: &&Value| {
        let of = listed["type"].as_str().unwrap_or_default();
        let is_own = BackupKind::parse(of).is_none_or(BackupKind::is_own);
        listed["status"] == "complete" && kind.map_or(is_own, |kind| of == kind)
    };
    let (backups, _) = api.backups().await?;
    let newest = backups.iter().find(is_meant);
    newest.map(|newest| text(&newest["id"])).ok_or_else(|| {
        Error::Failed(format!(
            "{name} has no complete backup for {backup}; see: compose-broker backups {name}"
        ))
    })
}

/// What a broker says that has no such backup, with what to do about it.
fn unless_missing(error: Error, name: &str, id: &str) -> Error {
    match error {
        Error::Refused(refusal) if refusal.status == 404 => Error::Failed(format!(
            "{name} has no backup {id}; see: compose-broker backups {name}"
        )),
        error => error,
    }
}

/// Where a backup is in its life, in the words of all other work.
pub(super) fn status(backup: &Value) -> String {
    match backup["status"].as_str() {
        Some("pending") => "waiting".to_owned(),
        other => other.unwrap_or_default().to_owned(),
    }
}

/// Which backups on demand go when another one is complete, a sentence for each; none where the broker
/// does not tell.
async fn replaced(api: &Compose<'_>, name: &str) -> Result<Vec<String>> {
    let (backups, retention) = api.backups().await?;
    let ids = retention["replaced_by_next"].as_array();
    let told = ids.into_iter().flatten().filter_map(|id| {
        let backup = backups.iter().find(|backup| backup["id"] == *id)?;
        let taken = text(&backup["requested_at"]);
        let taken = taken.parse::<DateTime<Utc>>();
        let taken = taken.map_or_else(
            |_| text(&backup["name"]),
            |at| at.format("%-d %b, %H:%M UTC").to_string(),
        );
        let id = text(id);
        Some(format!(
            "Replaces the on-demand backup of {taken}; to keep that one: compose-broker pin {name} {id}"
        ))
    });
    Ok(told.collect())
}

/// Whether a backup was restored aside, in a word; nothing where the broker does not tell.
fn proved(backup: &Value) -> &'static str {
    match (backup["status"].as_str(), backup["proof"].as_str()) {
        (Some("complete"), Some("proved")) => "yes",
        (Some("complete"), Some("flawed")) => "flawed",
        // The broker cannot open it.
        (Some("complete"), Some(_)) if backup["sealed_for"].is_string() => "never",
        (Some("complete"), Some(_)) => "not proved yet",
        _ => "",
    }
}

/// What is wrong with a backup that was restored aside.
fn flawed(backup: &Value) -> Option<String> {
    let reason = text(&backup["unverified_reason"]);
    (backup["proof"] == "flawed").then(|| format!("{}: {reason}", text(&backup["id"])))
}

/// What was written down beside a backup.
fn noted(backup: &Value) -> Option<String> {
    let note = text(&backup["note"]);
    (!note.is_empty()).then(|| format!("{}: {note}", text(&backup["id"])))
}

/// Why a backup failed, or how far one is that is being taken.
async fn detail_of(api: &Compose<'_>, backup: &Value) -> Option<String> {
    let id = text(&backup["id"]);
    match backup["status"].as_str()? {
        "failed" => Some(format!("{id} failed: {}", text(&backup["status_detail"]))),
        "pending" | "running" => {
            // It may have ended meanwhile, and be forgotten.
            let recipe = api.recipe(&text(&backup["recipe_id"])).await.ok()?;
            Some(format!("{id}: {}", text(&recipe["status_detail"])))
        }
        _ => None,
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
