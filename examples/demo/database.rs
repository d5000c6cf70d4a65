//! The application: etcd, reached with nothing but a binding's credentials.

use std::{collections::BTreeMap, env, ffi::OsString, fmt, fs, path::Path, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use etcd_client::{Certificate, Client, ConnectOptions, GetOptions, TlsOptions};
use futures::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::process::Command;
use url::Url;

use crate::{
    engines::{Engines, output_of},
    error::{Context, Result, ensure},
    show::Step,
};

/// Writes that are under way at the same time.
const WRITES_AT_ONCE: usize = 50;
/// The authority's certificate has this name in the binding's command line.
const AUTHORITY: &str = "ca.pem";
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// What a binding hands to its application, taken apart.
#[derive(Clone)]
pub struct Credentials {
    user: String,
    password: String,
    /// The addresses of all members.
    members: Vec<String>,
    /// The authority that the members' certificates are from, as PEM.
    authority: Vec<u8>,
    /// A command line for people.
    cli: String,
    /// The way to backups.
    pub api: AdministrationApi,
}

/// Where users find the administration API of their instance.
#[derive(Clone, Deserialize)]
pub struct AdministrationApi {
    pub root: String,
    pub instance_id: String,
    pub deployment_id: String,
    pub token: String,
}

/// The form in which it comes.
#[derive(Deserialize)]
struct Fields {
    uri: String,
    ca_certificate_base64: String,
    uri_cli: String,
    instance_administration_api: AdministrationApi,
    /// Among them `uri_direct_1` and so on: the other members.
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl Credentials {
    /// Reads the `credentials` of a binding.
    pub fn read(value: &Value) -> Result<Self> {
        let fields = Fields::deserialize(value).context("reading the binding's credentials")?;
        let parse = |uri: &str| Url::parse(uri).context("reading the uri of a member");
        let uri = parse(&fields.uri)?;
        let address = |uri: &Url| uri.origin().ascii_serialization();
        let mut members = vec![address(&uri)];
        for i in 1.. {
            match fields.others.get(&format!("uri_direct_{i}")) {
                Some(Value::String(direct)) => members.push(address(&parse(direct)?)),
                _ => break,
            }
        }
        let authority = BASE64.decode(fields.ca_certificate_base64);
        Ok(Self {
            user: uri.username().to_owned(),
            password: uri.password().unwrap_or_default().to_owned(),
            members,
            authority: authority.context("reading ca_certificate_base64")?,
            cli: fields.uri_cli,
            api: fields.instance_administration_api,
        })
    }

    /// The way to this database with the user and password of another one.
    pub fn with_user_of(&self, other: &Credentials) -> Self {
        Self {
            user: other.user.clone(),
            password: other.password.clone(),
            ..self.clone()
        }
    }

    /// How to connect: encrypted, by the database's own authority, as the binding's user.
    fn options(&self) -> ConnectOptions {
        let authority = Certificate::from_pem(&self.authority);
        ConnectOptions::new()
            .with_tls(TlsOptions::new().ca_certificate(authority))
            .with_user(&self.user, &self.password)
            .with_connect_timeout(CALL_LIMIT)
            .with_timeout(CALL_LIMIT)
    }

    /// What every member says its version is: no login is needed for that.
    pub async fn versions(&self, home: &Path) -> Result<Vec<String>> {
        self.write_authority(home)?;
        let mut versions = Vec::new();
        for member in &self.members {
            let mut curl = Command::new("curl");
            curl.args(["--silent", "--show-error", "--fail", "--cacert", AUTHORITY]);
            curl.arg(format!("{member}/version")).current_dir(home);
            let answer: Value = serde_json::from_str(&output_of(&mut curl).await?)
                .context(format!("reading the version of {member}"))?;
            versions.push(answer["etcdserver"].as_str().unwrap_or("?").to_owned());
        }
        Ok(versions)
    }

    /// Runs `uri_cli`, the command line of the binding, as a user would: with the authority's
    /// certificate in its file and etcdctl in the path. Returns what it prints.
    pub async fn run_cli(&self, home: &Path, engines: &Engines, version: &str) -> Result<String> {
        self.write_authority(home)?;
        let mut path = OsString::from(engines.tools(version));
        if let Some(rest) = env::var_os("PATH") {
            path.push(":");
            path.push(rest);
        }
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(&self.cli);
        shell.current_dir(home).env("PATH", path);
        output_of(&mut shell).await
    }

    fn write_authority(&self, home: &Path) -> Result<()> {
        fs::write(home.join(AUTHORITY), &self.authority).context("writing the authority's file")
    }
}

impl fmt::Display for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {} at {}", self.user, self.members.join(", "))
    }
}

/// Keys and values.
pub struct Content(BTreeMap<String, Vec<u8>>);

impl Content {
    /// Values of all lengths up to 2 KiB, also empty ones and such that are no text.
    pub fn sample(keys: usize) -> Self {
        let value = |key: usize| {
            let bytes = (0..key * 37 % 2048).map(|i| (key * 131 + i * 31 + i / 251) % 256);
            bytes.map(|byte| byte as u8).collect()
        };
        Self(
            (0..keys)
                .map(|key| (format!("demo/{key:04}"), value(key)))
                .collect(),
        )
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Fails unless exactly the same keys and values were found.
    pub fn compare(&self, found: &Content) -> Result<()> {
        let (expected, found) = (&self.0, &found.0);
        let lost = expected.keys().filter(|key| !found.contains_key(*key));
        let added = found.keys().filter(|key| !expected.contains_key(*key));
        let changed = expected.iter().filter_map(|(key, value)| {
            let differs = found.get(key).is_some_and(|other| other != value);
            differs.then_some(key)
        });
        let differences: Vec<String> = lost
            .map(|key| format!("{key} is missing"))
            .chain(added.map(|key| format!("{key} should not be there")))
            .chain(changed.map(|key| format!("{key} has another value")))
            .collect();
        ensure(differences.is_empty(), || {
            let first: Vec<&str> = differences.iter().take(5).map(String::as_str).collect();
            let count = differences.len();
            format!(
                "{count} keys are not as they should be: {}",
                first.join(", ")
            )
        })
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: usize = self.0.values().map(Vec::len).sum();
        write!(f, "{} keys with {} KiB", self.len(), bytes / 1024)
    }
}

/// A connection to one member, logged in.
pub struct Database {
    client: Client,
}

impl Database {
    /// Connects and logs in.
    pub async fn connect(credentials: &Credentials) -> Result<Self> {
        let member = &credentials.members[0];
        let client = Client::connect([member], Some(credentials.options())).await;
        Ok(Self {
            client: client.context("logging in")?,
        })
    }

    /// Writes every key.
    pub async fn write(&self, content: &Content, step: &Step) -> Result<()> {
        let mut written = stream::iter(&content.0)
            .map(|(key, value)| self.put(key, value))
            .buffer_unordered(WRITES_AT_ONCE);
        let mut count = 0;
        while written.try_next().await?.is_some() {
            count += 1;
            step.at(count, content.len() as u64);
        }
        Ok(())
    }

    async fn put(&self, key: &str, value: &[u8]) -> Result<()> {
        let put = self.client.kv_client().put(key, value, None).await;
        put.context(format!("writing {key}"))?;
        Ok(())
    }

    /// Changes a little of everything.
    pub async fn write_on(&self) -> Result<()> {
        self.put("demo/0001", b"changed").await?;
        self.put("demo/added", b"new").await?;
        let deleted = self.client.kv_client().delete("demo/0002", None).await;
        deleted.context("deleting demo/0002")?;
        Ok(())
    }

    /// Reads every key there is, not only those of the demo.
    pub async fn read_all(&self) -> Result<Content> {
        let everything = GetOptions::new().with_all_keys();
        let found = self.client.kv_client().get("", Some(everything)).await;
        let found = found.context("reading all keys")?;
        let pairs = found.kvs().iter().map(|pair| {
            let key = String::from_utf8_lossy(pair.key()).into_owned();
            (key, pair.value().to_vec())
        });
        Ok(Content(pairs.collect()))
    }

    /// Makes sure that every member refuses a login; tells how.
    pub async fn must_refuse(credentials: &Credentials) -> Result<String> {
        let mut answer = String::new();
        for member in &credentials.members {
            let login = Client::connect([member], Some(credentials.options())).await;
            answer = refusal(login, "authentication failed")?;
        }
        Ok(answer)
    }

    /// Makes sure that a connection from before can do nothing any more; tells how.
    pub async fn must_be_cut_off(&self) -> Result<String> {
        let read = self.client.kv_client().get("demo/0003", None).await;
        refusal(read, "invalid auth token")
    }
}

/// The answer of an etcd that refused with this text; anything else is an error.
fn refusal<T>(result: std::result::Result<T, etcd_client::Error>, text: &str) -> Result<String> {
    match result {
        Err(etcd_client::Error::GRpcStatus(status)) if status.message().contains(text) => {
            Ok(status.message().to_owned())
        }
        Err(other) => Err(other).context("this should be refused, but it failed otherwise"),
        Ok(_) => Err("this should be refused, but it was let through".into()),
    }
}
