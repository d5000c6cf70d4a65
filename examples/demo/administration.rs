//! The user with a terminal: the Compose API (2016-07) of one instance.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use reqwest::{Client, Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use tokio::{fs::File, io::AsyncWriteExt, time::sleep};

use crate::{
    database::{AdministrationApi, Credentials},
    error::{Context, Result, ensure},
    show::Step,
};

/// Pause between two looks at a recipe.
const POLL: Duration = Duration::from_millis(200);
/// Longest time that a recipe may take here.
const RECIPE_LIMIT: Duration = Duration::from_secs(60);

/// A piece of work, as the API shows it.
#[derive(Deserialize)]
struct Recipe {
    id: String,
    /// `running`, `waiting`, `complete` or `failed`.
    status: String,
    status_detail: String,
    operations_complete: u64,
    operations_total: u64,
}

/// A backup, as the API shows it.
#[derive(Deserialize)]
pub struct Backup {
    pub id: String,
    /// Its name, with the time at which it was asked for.
    pub name: String,
    /// `on_demand`, `daily`, `weekly` or `monthly`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `pending`, `running`, `complete` or `failed`.
    pub status: String,
    /// When it was asked for.
    pub requested_at: String,
    /// What it stands for, when the schedule took it: a day, a week or a month.
    pub period: Option<String>,
    is_downloadable: bool,
    is_restorable: bool,
    /// Only told of a single backup, not in lists.
    #[serde(default, rename = "download_link")]
    pub link: Option<String>,
}

/// The API of one instance, by the token of one of its bindings.
pub struct Administration {
    http: Client,
    /// The "foundation endpoint".
    endpoint: String,
    deployment: String,
    token: String,
}

impl Administration {
    /// The API that a binding's credentials lead to.
    pub fn of(credentials: &Credentials) -> Self {
        let AdministrationApi {
            root,
            instance_id,
            deployment_id,
            token,
        } = credentials.api.clone();
        Self {
            http: Client::new(),
            endpoint: format!("{root}/2016-07/instances/{instance_id}"),
            deployment: format!("deployments/{deployment_id}"),
            token,
        }
    }

    /// Takes a backup, waits until it is complete and returns its id.
    pub async fn back_up(&self, step: &Step) -> Result<String> {
        let path = format!("{}/backups", self.deployment);
        let answer = self.call(Method::POST, &path, StatusCode::ACCEPTED).await?;
        let recipe: Recipe = read(answer)?;
        let path = format!("recipes/{}", recipe.id);
        let deadline = Instant::now() + RECIPE_LIMIT;
        loop {
            let answer = self.call(Method::GET, &path, StatusCode::OK).await?;
            let backup_id = answer["backup_id"].as_str().map(str::to_owned);
            let recipe: Recipe = read(answer)?;
            step.say(&recipe.status_detail);
            step.at(recipe.operations_complete, recipe.operations_total);
            match recipe.status.as_str() {
                "complete" => {
                    return backup_id.ok_or_else(|| "the recipe names no backup".into());
                }
                "running" | "waiting" => {}
                status => {
                    return Err(format!("the recipe {status}: {}", recipe.status_detail).into());
                }
            }
            ensure(Instant::now() < deadline, || {
                format!("the recipe did not end within {} s", RECIPE_LIMIT.as_secs())
            })?;
            sleep(POLL).await;
        }
    }

    /// Finds a backup in the list, then asks for it alone: only that tells its download link.
    pub async fn backup(&self, id: &str) -> Result<Backup> {
        let list = self.backups().await?;
        ensure(list.first().is_some_and(|newest| newest.id == id), || {
            format!("the backup {id} is not the first in the list")
        })?;
        let path = format!("{}/backups/{id}", self.deployment);
        let backup: Backup = read(self.call(Method::GET, &path, StatusCode::OK).await?)?;
        let usable = backup.is_downloadable && backup.is_restorable;
        ensure(backup.status == "complete" && usable, || {
            format!("the backup {id} cannot be used: it is {}", backup.status)
        })?;
        Ok(backup)
    }

    /// The list of backups, newest first.
    pub async fn backups(&self) -> Result<Vec<Backup>> {
        let path = format!("{}/backups", self.deployment);
        let list = self.call(Method::GET, &path, StatusCode::OK).await?;
        read(list["_embedded"]["backups"].clone())
    }

    /// Downloads a backup into a file and returns its length. The link is its own permission.
    pub async fn download(&self, backup: &Backup, file: &Path) -> Result<u64> {
        let link = backup.link.as_deref().ok_or("the backup has no link")?;
        let doing = "downloading the backup";
        let answer = self.http.get(link).send().await.context(doing)?;
        let mut answer = answer.error_for_status().context(doing)?;
        let mut written = 0;
        let mut file = File::create(file).await.context(doing)?;
        while let Some(chunk) = answer.chunk().await.context(doing)? {
            file.write_all(&chunk).await.context(doing)?;
            written += chunk.len() as u64;
        }
        file.flush().await.context(doing)?;
        Ok(written)
    }

    /// The versions that the deployment can be migrated to by a restore.
    pub async fn versions(&self) -> Result<Vec<String>> {
        let path = format!("{}/versions", self.deployment);
        let answer = self.call(Method::GET, &path, StatusCode::OK).await?;
        let transitions = answer["_embedded"]["transitions"].as_array();
        let versions = transitions
            .into_iter()
            .flatten()
            .filter(|transition| transition["method"] == "restore")
            .filter_map(|transition| transition["to_version"].as_str());
        Ok(versions.map(str::to_owned).collect())
    }

    /// Makes sure that the token is good for nothing.
    pub async fn must_refuse(&self) -> Result<()> {
        self.call(Method::GET, &self.deployment, StatusCode::UNAUTHORIZED)
            .await?;
        Ok(())
    }

    /// Calls the API; any other status than the expected one is an error.
    async fn call(&self, method: Method, path: &str, expected: StatusCode) -> Result<Value> {
        let doing = format!("{method} {path}");
        let request = self
            .http
            .request(method, format!("{}/{path}", self.endpoint))
            .bearer_auth(&self.token);
        let answer = request.send().await.context(&doing)?;
        let status = answer.status();
        let body: Value = answer.json().await.context(&doing)?;
        ensure(status == expected, || {
            format!("{doing} says {status}, not {expected}: {body}")
        })?;
        Ok(body)
    }
}

fn read<T: for<'de> Deserialize<'de>>(value: Value) -> Result<T> {
    serde_json::from_value(value).context("reading an answer of the administration API")
}
