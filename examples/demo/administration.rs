//! What the client does not do for its user, asked of the Compose API (2016-07) itself.

use reqwest::{Client, Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    database::{AdministrationApi, Credentials},
    error::{Context, Result, ensure},
};

/// A backup, as the API shows it.
#[derive(Deserialize)]
pub struct Backup {
    pub id: String,
    /// `on_demand`, `safety`, `daily`, `weekly` or `monthly`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `pending`, `running`, `complete` or `failed`.
    pub status: String,
    /// When it was asked for.
    pub requested_at: String,
    /// What it stands for, when the schedule took it: a day, a week or a month.
    pub period: Option<String>,
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

    /// The list of backups, newest first.
    pub async fn backups(&self) -> Result<Vec<Backup>> {
        let path = format!("{}/backups", self.deployment);
        let list = self.get(&path, StatusCode::OK).await?;
        let list = list["_embedded"]["backups"].clone();
        serde_json::from_value(list).context("reading an answer of the administration API")
    }

    /// The versions that the deployment can be migrated to by a restore.
    pub async fn versions(&self) -> Result<Vec<String>> {
        let path = format!("{}/versions", self.deployment);
        let answer = self.get(&path, StatusCode::OK).await?;
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
        self.get(&self.deployment, StatusCode::UNAUTHORIZED).await?;
        Ok(())
    }

    /// Asks the API; any other status than the expected one is an error.
    async fn get(&self, path: &str, expected: StatusCode) -> Result<Value> {
        let doing = format!("GET {path}");
        let request = self
            .http
            .request(Method::GET, format!("{}/{path}", self.endpoint))
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
