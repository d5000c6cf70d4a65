//! The Compose API (2016-07) of one instance: by the credentials of a platform, which this broker takes for
//! every instance, else by the token of a key that the instance has. No key is made for a command: that
//! would need a database that lives.

use bytes::Bytes;
use hyper::Method;
use serde_json::{Value, json};
use url::Url;

use super::{
    Session,
    book::Instance,
    error::{Error, Result},
    http::{Header, Http, below},
    osb::{Resource, request_identity},
};

/// The API of one instance.
pub struct Compose<'a> {
    http: &'a Http,
    base: Url,
    deployment: String,
    /// What says who asks.
    who: Vec<Header>,
}

impl Session {
    /// Does something with the API of an instance.
    pub(super) async fn with_api<T>(
        &self,
        name: &str,
        work: impl AsyncFnOnce(&Compose<'_>) -> Result<T>,
    ) -> Result<T> {
        let instance = self.any_instance(name).await?;
        let api = self.api_of(&instance).await?;
        work(&api).await
    }

    /// The API of an instance, opened by the credentials of a platform; none, where the broker has none or
    /// opens it to tokens alone.
    ///
    /// # Errors
    ///
    /// There is no such instance, or no answer.
    pub(super) async fn api_of_platform(&self, instance: &str) -> Result<Option<Compose<'_>>> {
        let root = below(self.osb.base(), &["api"], &[]);
        Compose::opened(self.osb.http(), &root, instance, self.osb.who()).await
    }

    async fn api_of(&self, instance: &Instance) -> Result<Compose<'_>> {
        if let Some(api) = self.api_of_platform(&instance.id).await? {
            return Ok(api);
        }
        for key in &instance.keys {
            // One that has expired or is not done yet is of no use.
            let found = self.osb.fetch(Resource::binding(instance, &key.id)).await?;
            let found = found.unwrap_or_default();
            if let Some(api) = Compose::of(self.osb.http(), &found["credentials"]) {
                return Ok(api);
            }
        }
        let name = &instance.name;
        Err(Error::Failed(format!(
            "{name} has no administration API that these credentials or one of its keys open, and so no \
             backups to ask for; a new key may lead to one: compose-broker create-service-key {name} KEY"
        )))
    }
}

impl<'a> Compose<'a> {
    /// The API of an instance below `root`, for `who`; none, where nothing of the kind answers.
    ///
    /// # Errors
    ///
    /// There is no such instance, it is not for them, or there is no answer.
    pub async fn opened(
        http: &'a Http,
        root: &Url,
        instance: &str,
        who: Vec<Header>,
    ) -> Result<Option<Self>> {
        let mut api = Self {
            http,
            base: below(root, &["2016-07", "instances", instance], &[]),
            deployment: String::new(),
            who,
        };
        let headers = api.headers();
        let answer = http.call(Method::GET, &api.base, &headers, None).await?;
        let told = answer.body.as_ref();
        match (answer.status, told.map(|told| &told["resource_id"])) {
            (200, Some(Value::String(deployment))) => {
                deployment.clone_into(&mut api.deployment);
                Ok(Some(api))
            }
            // This API's own way to say so; what is another's says nothing of instances.
            (403 | 404, _) if told.is_some_and(|told| told["errors"]["base"].is_array()) => {
                Err(answer.refusal().into())
            }
            (429, _) => Err(answer.refusal().into()),
            _ => Ok(None),
        }
    }

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
            who: vec![("authorization", format!("Bearer {}", text("token")?))],
        })
    }

    fn headers(&self) -> Vec<Header> {
        let mut headers = self.who.clone();
        headers.push(request_identity());
        headers
    }

    /// Every backup, newest first, and what the broker says of how many are kept.
    pub async fn backups(&self) -> Result<(Vec<Value>, Value)> {
        let path = ["deployments", &self.deployment, "backups"];
        let mut list = self.call(Method::GET, &path, 200).await?;
        match list["_embedded"]["backups"].take() {
            Value::Array(backups) => Ok((backups, list["retention"].take())),
            _ => Err(Error::Failed("the broker's answer lists no backups".into())),
        }
    }

    /// Writes something beside a backup; what is absent stays as it is.
    pub async fn change_backup(&self, id: &str, change: &Value) -> Result<Value> {
        let path = ["deployments", &self.deployment, "backups", id];
        let body = json!({ "backup": change });
        self.send(Method::PATCH, &path, Some(&body), 200).await
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

    /// What the API tells of a deployment under a name, such as its `alerts`.
    pub async fn about(&self, what: &str) -> Result<Value> {
        let path = ["deployments", &self.deployment, what];
        self.call(Method::GET, &path, 200).await
    }

    /// One log, with a link to its text.
    pub async fn logfile(&self, id: &str) -> Result<Value> {
        let path = ["deployments", &self.deployment, "logfiles", id];
        self.call(Method::GET, &path, 200).await
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

    /// What a restore of a backup, or of `latest` and the like, would do.
    pub async fn restore_preflight(&self, backup: &str, wanted: &Value) -> Result<Value> {
        let path = [
            "deployments",
            &self.deployment,
            "backups",
            backup,
            "restore",
        ];
        let body = json!({ "deployment": wanted });
        self.send(Method::POST, &path, Some(&body), 200).await
    }

    /// Asks for keys to be put back from a backup, or to be compared with it; what goes on then is a recipe.
    pub async fn begin_prefix_restore(&self, backup: &str, wanted: &Value) -> Result<Value> {
        let path = [
            "deployments",
            &self.deployment,
            "backups",
            backup,
            "restore_prefix",
        ];
        let body = json!({ "deployment": wanted });
        self.send(Method::POST, &path, Some(&body), 202).await
    }

    /// The uploads that are not over.
    pub async fn uploads(&self) -> Result<Vec<Value>> {
        let path = ["deployments", &self.deployment, "uploads"];
        let mut list = self.call(Method::GET, &path, 200).await?;
        match list["_embedded"]["uploads"].take() {
            Value::Array(uploads) => Ok(uploads),
            _ => Err(Error::Failed("the broker's answer lists no uploads".into())),
        }
    }

    /// Begins to bring a snapshot along.
    pub async fn begin_upload(&self, wanted: &Value) -> Result<Value> {
        let path = ["deployments", &self.deployment, "uploads"];
        let body = json!({ "upload": wanted });
        self.send(Method::POST, &path, Some(&body), 201).await
    }

    /// How far an upload is.
    pub async fn upload(&self, id: &str) -> Result<Value> {
        let path = ["deployments", &self.deployment, "uploads", id];
        self.call(Method::GET, &path, 200).await
    }

    /// Sends bytes of an upload from `at` on; returns how far it is.
    pub async fn send_piece(&self, id: &str, at: u64, bytes: Bytes) -> Result<Value> {
        let path = ["deployments", &self.deployment, "uploads", id];
        let url = below(&self.base, &path, &[]);
        let mut headers = self.headers();
        headers.push(("upload-offset", at.to_string()));
        let answer = self.http.send_bytes(&url, &headers, bytes).await?;
        let status = if answer.status == 202 { 202 } else { 200 };
        answer.expect(status)
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

    /// The state of a recipe.
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
        let answer = self.http.call(method, &url, &self.headers(), body).await?;
        answer.expect(expected)
    }
}
