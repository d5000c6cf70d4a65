//! `service-key --env`: what etcdctl reads from its environment, as lines for a shell.
//!
//! Invariants: whatever stands in credentials, a shell takes it as text and does nothing else with it; the
//! password stands on no command line. The file of certificates is its owner's alone.

use std::{
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use url::Url;

use super::error::{Error, Result};
use crate::disk;

/// What etcdctl goes by.
#[derive(Debug, PartialEq, Eq)]
pub struct Environment {
    endpoints: Vec<String>,
    user: String,
    certificates: Vec<u8>,
    /// Whether the language has to be named, which later versions complain of.
    names_language: bool,
}

impl Environment {
    /// What the credentials of a key tell; none where they are of another kind of database.
    pub fn of(credentials: &Value) -> Option<Self> {
        let others = (1..).map_while(|i| credentials[format!("uri_direct_{i}")].as_str());
        let uris: Vec<Url> = credentials["uri"]
            .as_str()
            .into_iter()
            .chain(others)
            .map(|uri| uri.parse().ok())
            .collect::<Option<_>>()?;
        let first = uris.first().filter(|uri| uri.scheme() == "https")?;
        let user = format!("{}:{}", first.username(), first.password()?);
        let endpoint = |uri: &Url| {
            let port = uri.port_or_known_default()?;
            Some(format!("https://{}:{port}", uri.host_str()?))
        };
        let certificates = credentials["ca_certificate_base64"].as_str()?;
        Some(Self {
            endpoints: uris.iter().map(endpoint).collect::<Option<_>>()?,
            user,
            certificates: BASE64.decode(certificates).ok()?,
            names_language: credentials["uri_cli"]
                .as_str()
                .is_some_and(|line| line.starts_with("ETCDCTL_API=3")),
        })
    }

    /// The file for the certificates where nobody names one: the same content has the same file, so that
    /// no shell finds another one in the place of its own.
    pub fn default_file(&self, folder: &Path) -> PathBuf {
        let digest = digest(&SHA256, &self.certificates);
        let short = digest.as_ref().iter().take(8);
        let name: String = short.map(|byte| format!("{byte:02x}")).collect();
        folder.join(format!("ca-{name}.pem"))
    }

    /// Writes the certificates down and tells the variables, by name and value.
    pub fn write(&self, file: &Path) -> Result<Vec<(&'static str, String)>> {
        let file = std::path::absolute(file).map_err(Error::file(file))?;
        if let Some(folder) = file.parent() {
            disk::make_folder(folder).map_err(Error::file(folder))?;
        }
        // Another shell may read what is right already.
        if fs::read(&file).ok().as_ref() != Some(&self.certificates) {
            disk::write(&file, &self.certificates).map_err(Error::file(&file))?;
        }
        let mut variables = vec![
            ("ETCDCTL_ENDPOINTS", self.endpoints.join(",")),
            ("ETCDCTL_USER", self.user.clone()),
            ("ETCDCTL_CACERT", file.display().to_string()),
        ];
        if self.names_language {
            variables.push(("ETCDCTL_API", "3".to_owned()));
        }
        Ok(variables)
    }
}

/// Lines that give a shell these variables.
pub fn exports(variables: &[(&'static str, String)]) -> String {
    let lines = variables
        .iter()
        .map(|(name, value)| format!("export {name}={}", quoted(value)));
    lines.collect::<Vec<_>>().join("\n")
}

/// The variables for programs.
pub fn object(variables: &[(&'static str, String)]) -> Value {
    let fields = variables.iter();
    fields
        .map(|(name, value)| ((*name).to_owned(), json!(value)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// A text as a shell takes it for itself.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_is_an_endpoint_and_the_password_is_no_argument() {
        let credentials = json!({
            "uri": "https://ada:word@127.0.0.1:20000",
            "uri_direct_1": "https://ada:word@[::1]:20002",
            "uri_direct_2": "https://ada:word@db.example.org:20004",
            "ca_certificate_base64": BASE64.encode("pem"),
            "uri_cli": "ETCDCTL_API=3 etcdctl --cacert=ca.pem",
        });
        let folder = tempfile::tempdir().expect("a folder");
        let of = Environment::of(&credentials).expect("an environment");
        let file = of.default_file(&folder.path().join("deep"));
        let told = of.write(&file).expect("written");
        assert_eq!(std::fs::read(&file).expect("a file"), b"pem");
        let expected = [
            "export ETCDCTL_ENDPOINTS='https://127.0.0.1:20000,https://[::1]:20002,https://db.example.org:20004'",
            "export ETCDCTL_USER='ada:word'",
            &format!("export ETCDCTL_CACERT='{}'", file.display()),
            "export ETCDCTL_API='3'",
        ];
        assert_eq!(exports(&told), expected.join("\n"));
    }

    #[test]
    fn what_a_broker_sends_does_nothing_to_a_shell() {
        let told = exports(&[("A", "$(reboot)`x`'; reboot; '".to_owned())]);
        assert_eq!(told, r"export A='$(reboot)`x`'\''; reboot; '\'''");
    }

    #[test]
    fn other_databases_have_no_such_environment() {
        for credentials in [
            json!({}),
            json!({ "uri": "redis://x:y@h:1", "ca_certificate_base64": "" }),
            json!({ "uri": "https://h:1", "ca_certificate_base64": "" }),
            json!({ "uri": "https://x:y@h:1" }),
        ] {
            assert_eq!(Environment::of(&credentials), None, "{credentials}");
        }
    }
}
