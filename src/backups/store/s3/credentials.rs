//! Where credentials come from.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use object_store::{
    BackoffConfig, ClientOptions, CredentialProvider, RetryConfig, StaticCredentialProvider,
    aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential, AwsCredentialProvider},
};
use tokio::task::spawn_blocking;

use super::{
    refusal::{WireError, at_bottom},
    settings::CredentialSource,
    wire::Wire,
};
use crate::model::{bom::without_bom, failure::chain};

/// How long who hands out credentials is asked again.
const ASKING_MAX: Duration = Duration::from_secs(10);
const ASKED_AGAIN_MAX: usize = 3;

/// Credentials of that source, asked for over `wire` where they are asked for.
pub(super) fn provider(
    source: &CredentialSource,
    region: &str,
    wire: &Wire,
) -> Result<AwsCredentialProvider, object_store::Error> {
    use AmazonS3ConfigKey as Key;
    let builder = AmazonS3Builder::new()
        .with_http_connector(wire.clone())
        .with_client_options(ClientOptions::new().with_allow_http(true))
        .with_bucket_name("none")
        .with_region(region)
        .with_retry(RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: ASKED_AGAIN_MAX,
            retry_timeout: ASKING_MAX,
        });
    let builder = match source {
        CredentialSource::Keys { id, secret, token } => {
            return Ok(Arc::new(StaticCredentialProvider::new(AwsCredential {
                key_id: id.clone(),
                secret_key: secret.expose().to_owned(),
                token: token.as_ref().map(|token| token.expose().to_owned()),
            })));
        }
        CredentialSource::File { path, profile } => {
            return Ok(Arc::new(FileProvider {
                path: path.clone(),
                profile: profile.clone(),
                read: Mutex::default(),
            }));
        }
        CredentialSource::WebIdentity {
            token_file,
            role,
            session,
        } => {
            let builder = builder
                .with_config(Key::WebIdentityTokenFile, token_file.to_string_lossy())
                .with_config(Key::RoleArn, role);
            match session {
                Some(session) => builder.with_config(Key::RoleSessionName, session),
                None => builder,
            }
        }
        CredentialSource::Container { path } => {
            builder.with_config(Key::ContainerCredentialsRelativeUri, path)
        }
        CredentialSource::Pod { url, token_file } => builder
            .with_config(Key::ContainerCredentialsFullUri, url)
            .with_config(
                Key::ContainerAuthorizationTokenFile,
                token_file.to_string_lossy(),
            ),
        CredentialSource::Machine { endpoint: None } => builder,
        CredentialSource::Machine {
            endpoint: Some(endpoint),
        } => builder.with_metadata_endpoint(endpoint),
    };
    Ok(Arc::new(Asked(builder.build()?.credentials().clone())))
}

/// Credentials that somebody hands out. That they are not handed out is told as what it is.
#[derive(Debug)]
struct Asked(AwsCredentialProvider);

#[async_trait]
impl CredentialProvider for Asked {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let asked = self.0.get_credential().await;
        asked.map_err(|error| none(chain(&*at_bottom(&error))))
    }
}

fn none(why: String) -> object_store::Error {
    object_store::Error::Generic {
        store: "credentials",
        source: Box::new(Arc::new(WireError::NoCredentials(why))),
    }
}

/// A profile of a file, read anew when the file changes.
#[derive(Debug)]
struct FileProvider {
    path: PathBuf,
    profile: String,
    /// What was read last, and of when it was.
    read: Mutex<Option<(SystemTime, Arc<AwsCredential>)>>,
}

#[async_trait]
impl CredentialProvider for FileProvider {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let (path, profile) = (self.path.clone(), self.profile.clone());
        let known = {
            let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
            read.clone()
        };
        let look = spawn_blocking(move || look(&path, &profile, known));
        let found = look.await.map_err(|error| none(error.to_string()))?;
        let found = found.map_err(|why| none(format!("{}: {why}", self.path.display())))?;
        let credential = found.1.clone();
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        Ok(credential)
    }
}

type Read = (SystemTime, Arc<AwsCredential>);

/// What the file says, which is what it said while it is not changed.
fn look(path: &Path, profile: &str, known: Option<Read>) -> Result<Read, String> {
    let told = |error: io::Error| error.to_string();
    let changed = fs::metadata(path).and_then(|seen| seen.modified());
    let changed = changed.map_err(told)?;
    if let Some(known) = known.filter(|(as_of, _)| *as_of == changed) {
        return Ok(known);
    }
    let text = fs::read_to_string(path).map_err(told)?;
    Ok((changed, Arc::new(of_profile(&text, profile)?)))
}

/// The credentials of a profile: lines `name = value` behind `[profile]`.
fn of_profile(text: &str, profile: &str) -> Result<AwsCredential, String> {
    let (mut is_there, mut is_inside) = (false, false);
    let (mut id, mut secret, mut token) = (None, None, None);
    for line in without_bom(text).lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            let section = section.trim();
            // In the file of the settings, all but the default have this in front.
            let section = section.strip_prefix("profile ").unwrap_or(section).trim();
            is_inside = section == profile;
            is_there |= is_inside;
            continue;
        }
        let Some((name, value)) = line.split_once('=').filter(|_| is_inside) else {
            continue;
        };
        let value = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
        match name.trim() {
            "aws_access_key_id" => id = value,
            "aws_secret_access_key" => secret = value,
            "aws_session_token" => token = value,
            _ => {}
        }
    }
    let lacks = |what| format!("profile {profile:?} has no {what}");
    if !is_there {
        return Err(format!("there is no profile {profile:?}"));
    }
    Ok(AwsCredential {
        key_id: id.ok_or_else(|| lacks("aws_access_key_id"))?,
        secret_key: secret.ok_or_else(|| lacks("aws_secret_access_key"))?,
        token,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
# of two
[default]
aws_access_key_id = one
aws_secret_access_key=s/=ecret

[profile other]
aws_access_key_id=two
aws_secret_access_key = hidden
aws_session_token = token
[half]
aws_access_key_id = three
aws_secret_access_key =
";

    #[test]
    fn a_profile_is_read_as_the_aws_command_line_writes_it() {
        let of = |profile| of_profile(FILE, profile);
        let first = of("default").expect("there");
        assert_eq!(
            (first.key_id.as_str(), first.secret_key.as_str()),
            ("one", "s/=ecret")
        );
        assert_eq!(first.token, None);
        let other = of("other").expect("there");
        assert_eq!(other.token.as_deref(), Some("token"));
        assert_eq!(
            of("half").expect_err("refused"),
            "profile \"half\" has no aws_secret_access_key"
        );
        assert_eq!(
            of("none").expect_err("refused"),
            "there is no profile \"none\""
        );
    }

    #[tokio::test]
    async fn a_file_that_changes_is_read_anew_and_no_secret_is_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("credentials");
        let provider = FileProvider {
            path: path.clone(),
            profile: "default".to_owned(),
            read: Mutex::default(),
        };
        let missing = provider.get_credential().await.expect_err("no file");
        assert!(matches!(*at_bottom(&missing), WireError::NoCredentials(_)));
        fs::write(&path, FILE).expect("written");
        let first = provider.get_credential().await.expect("there");
        assert_eq!(first.key_id, "one");
        let file = fs::File::options().write(true).open(&path).expect("opened");
        let text = FILE.replace("= one", "= new");
        fs::write(&path, text).expect("written");
        let later = SystemTime::now() + Duration::from_secs(5);
        file.set_modified(later).expect("set");
        let second = provider.get_credential().await.expect("there");
        assert_eq!(second.key_id, "new");
        assert!(!format!("{provider:?}").contains("/=ecret"), "{provider:?}");
    }
}
