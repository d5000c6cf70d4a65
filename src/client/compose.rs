//! The Compose API (2016-07) of one instance, by the token of one of its keys.

use hyper::Method;
use serde_json::{Value, json};
use url::Url;

use super::{
    error::{Error, Result},
    http::{Http, below},
};

/// The backups of one instance.
pub struct Compose<'a> {
    http: &'a Http,
    base: Url,
    deployment: String,
    authorization: (&'static str, String),
}

impl<'a> Compose<'a> {
    /// The API that a key's credentials lead to; none, when they lead to none.
    pub fn of(http: &'a Http, credentials: &Value) -> Option<Self> {
        let api = &credentials["instance_administration_api"];
        let text = |name: &str| api[name].as_str();
        let root: Url = text("root")?.parse().ok()?;
        // Another scheme would be no address to send a token to.
        if !["http", "https"].contains(&root.scheme()) {
            return None;
        }
        let path = ["2016-07", "instances", text("instance_id")?];
        Some(Self {
            http,
            base: below(&root, &path, &[]),
            deployment: text("deployment_id")?.to_owned(),
            authorization: ("authorization", format!("Bearer {}", text("token")?)),
        })
    }

    /// Every backup, newest first.
    pub async fn backups(&self) -> Result<Vec<Value>> {
        let path = ["deployments", &self.deployment, "backups"];
        let mut list = self.call(Method::GET, &path, 200).await?;
        match list["_embedded"]["backups"].take() {
            Value::Array(backups) => Ok(backups),
            _ => Err(Error::Failed("the broker's answer lists no backups".into())),
        }
    }

    /// One backup, with a link to download it.
    pub async fn backup(&self, id: &str) -> Result<Value> {
        let path = ["deployments", &self.deployment, "backups", id];
        self.call(Method::GET, &path, 200).await
    }

    /// Asks for a backup; what goes on then is a recipe.
    pub async fn begin_backup(&self) -> Result<Value> {
        let path = ["deployments", &self.deployment, "backups"];
        self.call(Method::POST, &path, 202).await
    }

    /// The deployment: what runs, and what is known of it.
    pub async fn deployment(&self) -> Result<Value> {
        self.call(Method::GET, &["deployments", &self.deployment], 200)
            .await
    }

    /// The ways to newer versions.
    pub async fn transitions(&self) -> Result<Vec<Value>> {
        let path = ["deployments", &self.deployment, "versions"];
        let mut list = self.call(Method::GET, &path, 200).await?;
        match list["_embedded"]["transitions"].take() {
            Value::Array(transitions) => Ok(transitions),
            _ => Err(Error::Failed(
                "the broker's answer lists no versions".into(),
            )),
        }
    }

    /// What an upgrade to a version would do.
    pub async fn preflight(&self, version: &str) -> Result<Value> {
        let path = ["deployments", &self.deployment, "versions"];
        let body = json!({ "deployment": { "version": version, "dry_run": true } });
        self.send(Method::PATCH, &path, Some(&body), 200).await
    }

    /// Asks for room to be made; what goes on then is a recipe.
    pub async fn begin_relief(&self, delete_prefix: Option<&str>) -> Result<Value> {
        let path = ["deployments", &self.deployment, "reliefs"];
        let body = json!({ "deployment": { "delete_prefix": delete_prefix } });
        self.send(Method::POST, &path, Some(&body), 202).await
    }

    /// What giving unused storage back would do.
    pub async fn defragmentation(&self) -> Result<Value> {
        let path = ["deployments", &self.deployment, "defragmentations"];
        self.call(Method::GET, &path, 200).await
    }

    /// Asks for unused storage to be given back; what goes on then is a recipe.
    pub async fn begin_defragmentation(&self) -> Result<Value> {
        let path = ["deployments", &self.deployment, "defragmentations"];
        self.call(Method::POST, &path, 202).await
    }

    /// How a recipe fares.
    pub async fn recipe(&self, id: &str) -> Result<Value> {
        self.call(Method::GET, &["recipes", id], 200).await
    }

    async fn call(&self, method: Method, path: &[&str], expected: u16) -> Result<Value> {
        self.send(method, path, None, expected).await
    }

    async fn send(
        &self,
        method: Method,
        path: &[&str],
        body: Option<&Value>,
        expected: u16,
    ) -> Result<Value> {
        let url = below(&self.base, path, &[]);
        let headers = [self.authorization.clone()];
        let answer = self.http.call(method, &url, &headers, body).await?;
        answer.expect(expected)
    }
}
