//! Commands about backups, by the Compose API. It wants the token of a binding: that of a key which
//! the instance has, else of one that is made for the command alone.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tokio::time::sleep;
use uuid::Uuid;

use super::{
    Session,
    book::{Instance, Key, Kind, Last},
    command::DownloadBackup,
    compose::Compose,
    download,
    error::{Error, HttpError, Result},
    osb::Resource,
    show::{fields, moment, table},
};
use crate::model::{
    limits::{CLIENT_FIRST_LOOK, CLIENT_POLL},
    size::size,
};

impl Session {
    /// `backups`
    pub async fn backups(&self, name: &str) -> Result<()> {
        let listed = self.with_api(name, async |api| {
            let backups = api.backups().await?;
            let mut stand = Vec::new();
            for backup in &backups {
                stand.extend(stands(api, backup).await);
            }
            Ok((backups, stand))
        });
        let (backups, stand) = listed.await?;
        let rows = backups.iter().map(|backup| {
            [
                text(&backup["id"]),
                text(&backup["type"]),
                text(&backup["status"]),
                self.time(&backup["requested_at"]),
                text(&backup["version"]),
                backup["keys"]
                    .as_u64()
                    .map_or(String::new(), |keys| keys.to_string()),
                backup["size_bytes"].as_u64().map_or(String::new(), size),
                self.kept_until(backup),
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
            "KEPT UNTIL",
        ];
        let mut shown = table(head, rows);
        if !stand.is_empty() {
            shown.push_str("\n\n");
            shown.push_str(&stand.join("\n"));
        }
        self.show.result(&shown, &json!({ "backups": backups }))
    }

    /// Until when a backup is kept, and why no longer, as far as that is known. Which newer ones take
    /// the place of one on demand, the plan says; the broker does not tell how many it keeps.
    fn kept_until(&self, backup: &Value) -> String {
        let removal = &backup["removal"];
        if removal.is_object() {
            return format!(
                "{}: {}",
                self.time(&removal["at"]),
                text(&removal["reason"])
            );
        }
        match (&backup["expires_at"], backup["type"].as_str()) {
            (Value::Null, Some("on_demand")) if backup["status"] == "complete" => {
                "newer on-demand".to_owned()
            }
            (Value::Null, _) => String::new(),
            (end, _) => self.time(end),
        }
    }

    /// `create-backup`
    pub async fn create_backup(&self, name: &str, wait: bool) -> Result<()> {
        let done = self.with_api(name, async |api| {
            let recipe = api.begin_backup().await?;
            let id = text(&recipe["backup_id"]);
            if !wait {
                self.show.note(&format!(
                    "the backup goes on; look at it with: compose-broker backups {name}"
                ));
                return api.backup(&id).await;
            }
            let title = format!("back up {name}");
            let left = format!(
                "the backup goes on without you; look at it with: compose-broker backups {name}"
            );
            self.wait_for_recipe(api, &title, &left, &text(&recipe["id"]))
                .await?;
            api.backup(&id).await
        });
        let mut backup = done.await?;
        // It needs no credentials, and a result may be kept for longer than it is good for.
        if let Some(backup) = backup.as_object_mut() {
            backup.remove("download_link");
        }
        let shown = fields([
            ("backup", Some(text(&backup["id"]))),
            ("name", Some(text(&backup["name"]))),
            ("status", Some(text(&backup["status"]))),
            ("asked for", Some(self.time(&backup["requested_at"]))),
            ("version", backup["version"].as_str().map(str::to_owned)),
            ("keys", backup["keys"].as_u64().map(|keys| keys.to_string())),
            ("size", backup["size_bytes"].as_u64().map(size)),
            (
                "kept until",
                Some(self.kept_until(&backup)).filter(|until| !until.is_empty()),
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
                Some("complete") => return Ok(()),
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
            .with_api(&name, async |api| api.backup(&backup).await)
            .await?;
        let Some(link) = told["download_link"].as_str() else {
            return Err(Error::Failed(format!(
                "the backup cannot be downloaded: it is {}",
                text(&told["status"])
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
        let done = download::download(http, &link, &file, sha256, force, &progress).await?;
        drop(progress);
        if sha256.is_none() {
            let text = "the broker tells no hash of this backup: it was not compared with any";
            self.show.note(text);
        }
        let shown = fields([
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

    /// Does something with the API of an instance.
    pub(super) async fn with_api<T>(
        &self,
        name: &str,
        work: impl AsyncFnOnce(&Compose<'_>) -> Result<T>,
    ) -> Result<T> {
        let instance = self.book.instance(name)?;
        for key in instance.keys.iter().filter(|key| !key.temporary) {
            // One that has expired or is not done yet is of no use.
            let found = self
                .osb
                .fetch(Resource::binding(&instance, &key.id))
                .await?;
            let found = found.unwrap_or_default();
            if let Some(api) = Compose::of(self.osb.http(), &found["credentials"]) {
                return work(&api).await;
            }
        }
        let key = Key {
            name: format!("temporary-{}", Uuid::new_v4().simple()),
            id: Uuid::new_v4().to_string(),
            last: Last::asked(Kind::Create),
            temporary: true,
        };
        let done = self.with_key(&instance, &key, work).await;
        // One that was refused is forgotten already.
        let now = self.book.instance(name);
        if now.is_ok_and(|now| now.keys.iter().any(|k| k.id == key.id)) {
            self.forget_key(&instance, &key).await;
        }
        done
    }

    async fn with_key<T>(
        &self,
        instance: &Instance,
        key: &Key,
        work: impl AsyncFnOnce(&Compose<'_>) -> Result<T>,
    ) -> Result<T> {
        let catalog = self.catalog().await?;
        let offer = catalog.of(instance);
        let (_, told) = self.bind(instance, offer, key, None, true).await?;
        let credentials = match told {
            Some(credentials) => credentials,
            None => {
                let found = self.osb.fetch(Resource::binding(instance, &key.id)).await?;
                found.unwrap_or_default()["credentials"].take()
            }
        };
        let api = Compose::of(self.osb.http(), &credentials).ok_or_else(|| {
            let text = "the instance has no administration API, and so no backups to ask for";
            Error::Failed(text.into())
        })?;
        work(&api).await
    }

    /// Takes away a key that was made for one command. A failure is told, and is none of the command.
    async fn forget_key(&self, instance: &Instance, key: &Key) {
        let resource = Resource::binding(instance, &key.id);
        let gone = match self.osb.delete(resource).await {
            Ok(_) => self.book.forget(&instance.id, Some(&key.id)),
            Err(error) => Err(error),
        };
        if let Err(error) = gone {
            let (name, key) = (&instance.name, &key.name);
            self.show
                .note(&format!("service key {key} of {name} is left: {error}"));
        }
    }

    fn time(&self, at: &Value) -> String {
        let told = text(at);
        let at: Option<DateTime<Utc>> = told.parse().ok();
        at.map_or(told, |at| moment(at, self.clock.now()))
    }
}

/// Why a backup failed, or how one stands that is being taken.
async fn stands(api: &Compose<'_>, backup: &Value) -> Option<String> {
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
