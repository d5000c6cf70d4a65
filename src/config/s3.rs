//! How backups in buckets are reached. Credentials are taken as the programs of AWS take them, under the names
//! that these have for them.

use std::path::{Path, PathBuf};

use clap::Args;
use url::Url;

use super::{ConfigError, number, one_of, paths::path, wrong};
use crate::{
    backups::{
        StoreSettings,
        s3::{
            Addressing, CredentialSource, DEFAULT_REGION, LockMode, MIB_PER_SECOND_MAX,
            PART_MIB_MAX, PART_MIB_MIN, PARTS_AT_ONCE_MAX, PATIENCE_SECONDS_MAX, S3Settings,
        },
    },
    model::secret::Secret,
};

const MIB: u32 = 1024 * 1024;

/// The settings of backups in a bucket, as they are written.
#[derive(Debug, Clone, Args)]
pub struct S3Flags {
    /// Server of a bucket that backups lie in, http(s):// and an address [default: Amazon's of the region]
    #[arg(long, env = "COMPOSE_BROKER_S3_ENDPOINT")]
    pub s3_endpoint: Option<String>,

    /// Region of that bucket [default: $AWS_REGION, $AWS_DEFAULT_REGION or us-east-1]
    #[arg(long, env = "COMPOSE_BROKER_S3_REGION")]
    pub s3_region: Option<String>,

    /// Where the bucket stands in addresses: path or host [default: path of S3_ENDPOINT, host of Amazon's]
    #[arg(long, env = "COMPOSE_BROKER_S3_ADDRESSING")]
    pub s3_addressing: Option<String>,

    /// The authorities that the server's certificate may be of (PEM file) [default: the machine's]
    #[arg(long, env = "COMPOSE_BROKER_S3_CA", value_parser = path())]
    pub s3_ca: Option<PathBuf>,

    /// File with the credentials, as the AWS command line keeps it; read anew when it changes
    /// [default: $AWS_SHARED_CREDENTIALS_FILE]
    #[arg(long, env = "COMPOSE_BROKER_S3_CREDENTIALS_FILE", value_parser = path())]
    pub s3_credentials_file: Option<PathBuf>,

    /// Profile in that file [default: $AWS_PROFILE or default]
    #[arg(long, env = "COMPOSE_BROKER_S3_PROFILE")]
    pub s3_profile: Option<String>,

    /// Checksum that goes with each upload, for the server to compare: sha256 or none
    #[arg(long, env = "COMPOSE_BROKER_S3_CHECKSUMS", default_value = "sha256")]
    pub s3_checksums: String,

    /// MiB of each part of an upload; 10000 parts are the largest backup
    #[arg(long, env = "COMPOSE_BROKER_S3_PART_MIB", default_value = "8")]
    pub s3_part_mib: String,

    /// Parts of one upload that are under way at once; they are in memory meanwhile
    #[arg(long, env = "COMPOSE_BROKER_S3_PARTS_AT_ONCE", default_value = "3")]
    pub s3_parts_at_once: String,

    /// MiB per second that all backups and restores have together; 0: as many as go
    #[arg(long, env = "COMPOSE_BROKER_S3_MIB_PER_SECOND", default_value = "0")]
    pub s3_mib_per_second: String,

    /// How each backup is locked in a bucket with object lock, for as long as its plan keeps it by age: governance,
    /// compliance or off
    #[arg(long, env = "COMPOSE_BROKER_S3_OBJECT_LOCK", default_value = "off")]
    pub s3_object_lock: String,

    /// Seconds for which a request is made again that came to nothing
    #[arg(long, env = "COMPOSE_BROKER_S3_PATIENCE", default_value = "60")]
    pub s3_patience: String,
}

/// What programs of AWS take from the environment.
#[derive(Debug, Default)]
pub(super) struct AwsSettings {
    region: Option<String>,
    profile: Option<String>,
    credentials_file: Option<PathBuf>,
    source: Option<Result<CredentialSource, ConfigError>>,
    metadata_endpoint: Option<String>,
}

impl AwsSettings {
    /// Takes them from the environment, or from what stands for it.
    pub(super) fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        let given = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        Self {
            region: given("AWS_REGION").or_else(|| given("AWS_DEFAULT_REGION")),
            profile: given("AWS_PROFILE"),
            credentials_file: given("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from),
            source: source(&given),
            metadata_endpoint: given("AWS_EC2_METADATA_SERVICE_ENDPOINT"),
        }
    }
}

/// Where the environment says that credentials come from, but for a file of keys.
fn source(
    given: &impl Fn(&str) -> Option<String>,
) -> Option<Result<CredentialSource, ConfigError>> {
    const ID: &str = "AWS_ACCESS_KEY_ID";
    const SECRET: &str = "AWS_SECRET_ACCESS_KEY";
    match (given(ID), given(SECRET).map(Secret::new)) {
        (Some(id), Some(secret)) => {
            let token = given("AWS_SESSION_TOKEN").map(Secret::new);
            return Some(Ok(CredentialSource::Keys { id, secret, token }));
        }
        (Some(_), None) => return Some(Err(wrong(SECRET, format!("is needed beside {ID}")))),
        (None, Some(_)) => return Some(Err(wrong(ID, format!("is needed beside {SECRET}")))),
        (None, None) => {}
    }
    if let (Some(file), Some(role)) = (given("AWS_WEB_IDENTITY_TOKEN_FILE"), given("AWS_ROLE_ARN"))
    {
        return Some(Ok(CredentialSource::WebIdentity {
            token_file: file.into(),
            role,
            session: given("AWS_ROLE_SESSION_NAME"),
        }));
    }
    if let Some(path) = given("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
        return Some(Ok(CredentialSource::Container { path }));
    }
    let url = given("AWS_CONTAINER_CREDENTIALS_FULL_URI")?;
    let token_file = given("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")?.into();
    Some(Ok(CredentialSource::Pod { url, token_file }))
}

impl S3Flags {
    /// The paths among them, by the settings' names.
    pub(super) fn paths(&self) -> [(&'static str, Option<&Path>); 2] {
        [
            ("COMPOSE_BROKER_S3_CA", self.s3_ca.as_deref()),
            (
                "COMPOSE_BROKER_S3_CREDENTIALS_FILE",
                self.s3_credentials_file.as_deref(),
            ),
        ]
    }

    /// Sets what an address of a bucket says of itself, by the setting's name without `S3_`.
    pub(super) fn set(&mut self, name: &str, value: String) -> Result<(), String> {
        const NAMES: &str = "endpoint, region, addressing, ca, credentials_file, profile, checksums, part_mib, \
                             parts_at_once, mib_per_second, object_lock and patience";
        let given = (!value.is_empty()).then(|| value.clone());
        match name {
            "endpoint" => self.s3_endpoint = given,
            "region" => self.s3_region = given,
            "addressing" => self.s3_addressing = given,
            "ca" => self.s3_ca = given.map(PathBuf::from),
            "credentials_file" => self.s3_credentials_file = given.map(PathBuf::from),
            "profile" => self.s3_profile = given,
            "checksums" => self.s3_checksums = value,
            "part_mib" => self.s3_part_mib = value,
            "parts_at_once" => self.s3_parts_at_once = value,
            "mib_per_second" => self.s3_mib_per_second = value,
            "object_lock" => self.s3_object_lock = value,
            "patience" => self.s3_patience = value,
            _ => return Err(format!("has no setting {name:?}: there are {NAMES}")),
        }
        let relative = self.paths().into_iter().find_map(|(setting, path)| {
            let setting = setting.replace("COMPOSE_BROKER_S3_", "").to_lowercase();
            (setting == name && !path?.is_absolute()).then_some(setting)
        });
        match relative {
            Some(name) => Err(format!(
                "has a setting that is wrong: {name} is no absolute path"
            )),
            None => Ok(()),
        }
    }

    pub(super) fn check(&self, aws: &AwsSettings) -> Result<StoreSettings, ConfigError> {
        let part_mib = number(
            "COMPOSE_BROKER_S3_PART_MIB",
            &self.s3_part_mib,
            PART_MIB_MIN..=PART_MIB_MAX,
        )?;
        let parts_at_once = number(
            "COMPOSE_BROKER_S3_PARTS_AT_ONCE",
            &self.s3_parts_at_once,
            1..=PARTS_AT_ONCE_MAX,
        )?;
        let mib_per_second = number(
            "COMPOSE_BROKER_S3_MIB_PER_SECOND",
            &self.s3_mib_per_second,
            0..=MIB_PER_SECOND_MAX,
        )?;
        let addressing = self.s3_addressing.as_deref().map(|text| {
            one_of(
                "COMPOSE_BROKER_S3_ADDRESSING",
                text,
                &[("path", Addressing::Path), ("host", Addressing::Host)],
            )
        });
        let region = self.s3_region.clone().or(aws.region.clone());
        let s3 = S3Settings {
            endpoint: self.s3_endpoint.as_deref().map(endpoint).transpose()?,
            region: region.map_or_else(|| Ok(DEFAULT_REGION.to_owned()), checked_region)?,
            addressing: addressing.transpose()?,
            ca: self.s3_ca.clone(),
            sends_checksums: one_of(
                "COMPOSE_BROKER_S3_CHECKSUMS",
                &self.s3_checksums,
                &[("sha256", true), ("none", false)],
            )?,
            part_bytes: usize::try_from(part_mib * MIB).unwrap_or(usize::MAX),
            parts_at_once: usize::try_from(parts_at_once).unwrap_or(usize::MAX),
            bytes_per_second: Some(u64::from(mib_per_second) * u64::from(MIB))
                .filter(|bytes| *bytes > 0),
            patience_seconds: number(
                "COMPOSE_BROKER_S3_PATIENCE",
                &self.s3_patience,
                0..=PATIENCE_SECONDS_MAX,
            )?,
            lock: one_of(
                "COMPOSE_BROKER_S3_OBJECT_LOCK",
                &self.s3_object_lock,
                &[
                    ("off", None),
                    ("governance", Some(LockMode::Governance)),
                    ("compliance", Some(LockMode::Compliance)),
                ],
            )?,
            credentials: self.credentials(aws)?,
        };
        Ok(StoreSettings { s3 })
    }

    /// A file that our own setting names goes before everything that is in the environment for others too.
    fn credentials(&self, aws: &AwsSettings) -> Result<CredentialSource, ConfigError> {
        let profile = self.s3_profile.clone().or(aws.profile.clone());
        let of_file = |path: PathBuf| CredentialSource::File {
            path,
            profile: profile.clone().unwrap_or_else(|| "default".to_owned()),
        };
        if let Some(file) = &self.s3_credentials_file {
            return Ok(of_file(file.clone()));
        }
        if let Some(source) = &aws.source {
            return source.clone();
        }
        if let Some(file) = &aws.credentials_file {
            return Ok(of_file(file.clone()));
        }
        if self.s3_profile.is_some() {
            let reason = "names a profile of no file: set COMPOSE_BROKER_S3_CREDENTIALS_FILE";
            return Err(wrong("COMPOSE_BROKER_S3_PROFILE", reason));
        }
        Ok(CredentialSource::Machine {
            endpoint: aws.metadata_endpoint.clone(),
        })
    }
}

fn endpoint(text: &str) -> Result<Url, ConfigError> {
    const NAME: &str = "COMPOSE_BROKER_S3_ENDPOINT";
    let refused = |reason: &str| Err(wrong(NAME, reason));
    let form = "is no address of the form https://host or https://host:port";
    let Ok(url) = Url::parse(text.trim()) else {
        return refused(form);
    };
    if !url.username().is_empty() || url.password().is_some() {
        return refused("has a user or a password in it; credentials are given apart");
    }
    let is_plain = url.query().is_none() && url.fragment().is_none() && url.has_host();
    match url.scheme() {
        "http" | "https" if is_plain => Ok(url),
        _ => refused(form),
    }
}

fn checked_region(text: String) -> Result<String, ConfigError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if text.is_empty() || !text.chars().all(allowed) {
        let reason = format!("{text:?} is no region, as in: eu-central-1");
        return Err(wrong("COMPOSE_BROKER_S3_REGION", reason));
    }
    Ok(text)
}

#[cfg(test)]
pub(super) mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        flags: S3Flags,
    }

    /// The flags of a command line.
    pub(in crate::config) fn flags_of(line: &[&str]) -> S3Flags {
        let line = ["test"].into_iter().chain(line.iter().copied());
        Command::parse_from(line).flags
    }

    fn check(flags: &[&str], variables: &[(&str, &str)]) -> Result<S3Settings, ConfigError> {
        let flags = flags_of(flags);
        let variable = |name: &str| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        flags
            .check(&AwsSettings::read(variable))
            .map(|read| read.s3)
    }

    #[test]
    fn credentials_come_from_the_first_place_that_has_them() {
        let keys: [(&str, &str); 2] = [
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", "hidden"),
        ];
        let file = [("AWS_SHARED_CREDENTIALS_FILE", "/c"), ("AWS_PROFILE", "p")];
        let role = [
            ("AWS_WEB_IDENTITY_TOKEN_FILE", "/t"),
            ("AWS_ROLE_ARN", "arn:aws:iam::1:role/r"),
        ];
        let of = |flags: &[&str], variables: &[&[(&str, &str)]]| {
            let read = check(flags, &variables.concat()).expect("settings");
            let shown = format!("{:?}", read.credentials);
            assert!(!shown.contains("hidden"), "{shown}");
            shown
        };
        let own = ["--s3-credentials-file", "/own"];
        assert_eq!(
            of(&own, &[&keys, &file]),
            "File { path: \"/own\", profile: \"p\" }"
        );
        assert!(of(&[], &[&keys, &role, &file]).starts_with("Keys"));
        assert!(of(&[], &[&role, &file]).starts_with("WebIdentity"));
        assert_eq!(of(&[], &[&file]), "File { path: \"/c\", profile: \"p\" }");
        let container = [("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/x")];
        assert!(of(&[], &[&container]).starts_with("Container"));
        assert_eq!(of(&[], &[]), "Machine { endpoint: None }");
    }

    #[test]
    fn a_wrong_value_names_its_setting_and_no_secret() {
        for (flags, variables, setting) in [
            (
                ["--s3-endpoint", "minio:9000"],
                ("", ""),
                "COMPOSE_BROKER_S3_ENDPOINT",
            ),
            (
                ["--s3-endpoint", "https://me:hidden@x"],
                ("", ""),
                "COMPOSE_BROKER_S3_ENDPOINT",
            ),
            (
                ["--s3-region", "eu central"],
                ("", ""),
                "COMPOSE_BROKER_S3_REGION",
            ),
            (
                ["--s3-addressing", "dns"],
                ("", ""),
                "COMPOSE_BROKER_S3_ADDRESSING",
            ),
            (
                ["--s3-checksums", "md5"],
                ("", ""),
                "COMPOSE_BROKER_S3_CHECKSUMS",
            ),
            (
                ["--s3-part-mib", "4"],
                ("", ""),
                "COMPOSE_BROKER_S3_PART_MIB",
            ),
            (
                ["--s3-parts-at-once", "0"],
                ("", ""),
                "COMPOSE_BROKER_S3_PARTS_AT_ONCE",
            ),
            (
                ["--s3-mib-per-second", "-1"],
                ("", ""),
                "COMPOSE_BROKER_S3_MIB_PER_SECOND",
            ),
            (
                ["--s3-patience", "3600"],
                ("", ""),
                "COMPOSE_BROKER_S3_PATIENCE",
            ),
            (["--s3-profile", "p"], ("", ""), "COMPOSE_BROKER_S3_PROFILE"),
            (
                ["--s3-region", "x"],
                ("AWS_SECRET_ACCESS_KEY", "hidden"),
                "AWS_ACCESS_KEY_ID",
            ),
            (
                ["--s3-region", "x"],
                ("AWS_ACCESS_KEY_ID", "id"),
                "AWS_SECRET_ACCESS_KEY",
            ),
        ] {
            let (option, value) = (flags[0], flags[1]);
            let joined = format!("{option}={value}");
            let told = check(&[&joined], &[variables])
                .expect_err("refused")
                .to_string();
            assert!(told.starts_with(&format!("{setting}: ")), "{told}");
            assert!(!told.contains("hidden"), "{told}");
        }
    }

    #[test]
    fn a_region_is_ours_or_that_of_the_environment() {
        let region = |flags: &[&str], variables: &[(&str, &str)]| {
            check(flags, variables).expect("settings").region
        };
        let of_aws = [
            ("AWS_REGION", "eu-west-1"),
            ("AWS_DEFAULT_REGION", "eu-west-2"),
        ];
        assert_eq!(region(&["--s3-region", "x"], &of_aws), "x");
        assert_eq!(region(&[], &of_aws), "eu-west-1");
        assert_eq!(region(&[], &of_aws[1..]), "eu-west-2");
        assert_eq!(region(&[], &[]), DEFAULT_REGION);
    }
}
