//! Settings as they are given, and what is wrong with them.

use clap::Parser;
use std::os::unix::fs::PermissionsExt as _;

use super::{credentials::pairs, *};
use crate::{model::secret::Secret, seal::KeyRing};

#[derive(Parser)]
#[command(args_override_self = true)]
struct Command {
    #[command(flatten)]
    settings: Settings,
}

fn settings(folder: &Path, flags: &[&str]) -> Settings {
    let data = folder.join("data").display().to_string();
    let catalog = concat!(env!("CARGO_MANIFEST_DIR"), "/catalog.json");
    let mut line = vec!["test", "--data-dir", &data, "--catalog", catalog];
    line.extend(flags);
    Command::parse_from(line).settings
}

fn check(flags: &[&str], cloud: CloudFoundry) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().expect("a folder");
    // A store that is shared wants these.
    let secrets = SecretSettings {
        password: Some(Secret::new("word")),
        encryption_keys: Some(KeyRing::generate().expect("keys")),
        ..SecretSettings::default()
    };
    Config::check(
        &settings(folder.path(), flags),
        secrets,
        cloud,
        AwsSettings::default(),
    )
}

#[test]
fn a_first_start_makes_secrets_that_a_second_one_finds() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = settings(folder.path(), &[]);
    let first = Config::check(
        &settings,
        SecretSettings::default(),
        CloudFoundry::default(),
        AwsSettings::default(),
    )
    .expect("a configuration");
    assert!(!first.places.data_dir.exists() && first.has_new_keys());
    first.keep().expect("kept");
    let second = Config::check(
        &settings,
        SecretSettings::default(),
        CloudFoundry::default(),
        AwsSettings::default(),
    )
    .expect("a configuration");
    assert!(!second.has_new_keys());
    second.keep().expect("kept");
    assert!(first.keep().is_err(), "a start that came late");
    assert_eq!(
        first.access.platform.password,
        second.access.platform.password
    );
    let sealed = first.access.keys.seal("c", b"x").expect("sealed");
    assert_eq!(second.access.keys.open("c", &sealed).expect("opens"), b"x");
    for name in ["username", "password", "encryption_keys"] {
        let file = fs::metadata(first.places.data_dir.join(name)).expect("a file");
        assert_eq!(file.permissions().mode() & 0o777, 0o600, "{name}");
    }
    let shown = format!("{first:?}");
    assert!(
        !shown.contains(first.access.platform.password.expose()),
        "{shown}"
    );
}

#[test]
fn further_credentials_are_pairs_and_no_secret_is_told_of_a_wrong_one() {
    let setting = "COMPOSE_BROKER_MORE_CREDENTIALS";
    let read = |text: &str| pairs(setting, Some(&Secret::new(text)));
    let read_pairs = read("new:a:b, old:c,\n").expect("pairs");
    let read_pairs: Vec<_> = read_pairs
        .iter()
        .map(|c| (c.username.as_str(), c.password.expose()))
        .collect();
    assert_eq!(read_pairs, [("new", "a:b"), ("old", "c")]);
    assert!(pairs(setting, None).expect("none").is_empty());
    for wrong in ["hidden", "a:b,hidden:", ":hidden"] {
        let told = read(wrong).expect_err("refused").to_string();
        assert!(
            told.contains("MORE_CREDENTIALS") && !told.contains("hidden"),
            "{told}"
        );
    }
}

#[test]
fn who_reads_alone_has_no_name_of_those_who_change() {
    let load = |read_only: &str| {
        let folder = tempfile::tempdir().expect("a folder");
        let secrets = SecretSettings {
            password: Some(Secret::new("word")),
            more_credentials: Some(Secret::new("ada:second")),
            read_only_credentials: Some(Secret::new(read_only)),
            ..SecretSettings::default()
        };
        let settings = settings(folder.path(), &["--username", "platform"]);
        Config::check(
            &settings,
            secrets,
            CloudFoundry::default(),
            AwsSettings::default(),
        )
    };
    let read_only = load("watch:hidden").expect("good").access.read_only;
    assert_eq!(read_only[0].password.expose(), "hidden");
    for wrong in ["platform:hidden", "x:y,ada:hidden", "hidden"] {
        let told = load(wrong).expect_err("refused").to_string();
        assert!(
            told.starts_with("COMPOSE_BROKER_READ_ONLY_CREDENTIALS: "),
            "{told}"
        );
        assert!(!told.contains("hidden"), "{told}");
    }
}

#[test]
fn a_wrong_value_names_its_setting_in_one_line() {
    let cases: [(&[&str], &str); 16] = [
        (&["--listen", "nowhere"], "COMPOSE_BROKER_LISTEN"),
        (&["--public-url", "ftp://x"], "COMPOSE_BROKER_PUBLIC_URL"),
        (&["--port-range", "9-1"], "COMPOSE_BROKER_PORT_RANGE"),
        (&["--catalog", "/nonexistent"], "COMPOSE_BROKER_CATALOG"),
        (&["--clusters", "/nonexistent"], "COMPOSE_BROKER_CLUSTERS"),
        (
            &["--backup-store", "file://backups"],
            "COMPOSE_BROKER_BACKUP_STORE: \"file://backups\" is not file:// and an absolute path",
        ),
        (&["--username", "a:b"], "COMPOSE_BROKER_USERNAME"),
        (
            &["--restore-scope", "world"],
            "COMPOSE_BROKER_RESTORE_SCOPE",
        ),
        (&["--log-format", "xml"], "COMPOSE_BROKER_LOG_FORMAT"),
        (&["--log", "loud"], "COMPOSE_BROKER_LOG"),
        (&["--listen", "0.0.0.0:1"], "COMPOSE_BROKER_PUBLIC_URL"),
        (&["--member-listen", "all"], "COMPOSE_BROKER_MEMBER_LISTEN"),
        (
            &["--member-listen", "0.0.0.0"],
            "COMPOSE_BROKER_MEMBER_HOST: is needed",
        ),
        (&["--member-listen", "::"], "COMPOSE_BROKER_MEMBER_HOST"),
        (&["--member-host", "db:2379"], "COMPOSE_BROKER_MEMBER_HOST"),
        (
            &["--member-exposed-versions", "3.5.35"],
            "COMPOSE_BROKER_MEMBER_EXPOSED_VERSIONS",
        ),
    ];
    for (flags, setting) in cases {
        let text = match check(flags, CloudFoundry::default()) {
            Ok(_) => panic!("{flags:?} was accepted"),
            Err(error) => error.to_string(),
        };
        assert!(text.starts_with(setting) && !text.contains('\n'), "{text}");
    }
}

#[test]
fn cloud_foundry_fills_in_what_is_not_set() {
    let vcap = |name: &str| {
        let text = match name {
            "PORT" => "8123",
            "VCAP_APPLICATION" => r#"{"application_uris":["broker.example.org"]}"#,
            "VCAP_SERVICES" => r#"{"pg":[{"credentials":{"uri":"postgres://u:p@h/d"}}]}"#,
            _ => return None,
        };
        Some(text.to_owned())
    };
    let cloud = || CloudFoundry::read(vcap).expect("readable");
    let config = check(&[], cloud()).expect("a configuration");
    assert_eq!(config.listening.address.to_string(), "0.0.0.0:8123");
    assert_eq!(
        config.listening.public_url.as_deref(),
        Some("https://broker.example.org")
    );
    assert_eq!(config.places.database_url.expose(), "postgres://u:p@h/d");
    let flags = ["--listen", "127.0.0.1:1", "--public-url", "http://x/"];
    let config = check(&flags, cloud()).expect("a configuration");
    assert_eq!(config.listening.address.to_string(), "127.0.0.1:1");
    assert_eq!(config.listening.public_url.as_deref(), Some("http://x"));
    let stray = CloudFoundry::read(|name| (name == "PORT").then(|| "x".to_owned()));
    assert_eq!(stray.expect("not ours").port, None);
    let secrets = SecretSettings {
        encryption_keys: Some(Secret::new("short")),
        ..SecretSettings::default()
    };
    let folder = tempfile::tempdir().expect("a folder");
    let error = Config::check(
        &settings(folder.path(), &[]),
        secrets,
        CloudFoundry::default(),
        AwsSettings::default(),
    );
    let error = error.err().map(|e| e.setting);
    assert_eq!(error, Some("COMPOSE_BROKER_ENCRYPTION_KEYS"));
}

#[test]
fn secrets_of_a_shared_store_are_set_or_there_and_never_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let load = |password: Option<&str>, keys: Option<Secret>, url: &str| {
        let secrets = SecretSettings {
            database_url: Some(Secret::new(url)),
            password: password.map(Secret::new),
            encryption_keys: keys,
            ..SecretSettings::default()
        };
        let settings = settings(folder.path(), &[]);
        Config::check(
            &settings,
            secrets,
            CloudFoundry::default(),
            AwsSettings::default(),
        )
    };
    let refused = |result: Result<Config, ConfigError>| result.expect_err("refused").setting;
    const SHARED: &str = "postgres://u:p@h/d";
    let keys = KeyRing::generate().expect("keys");
    let lacks_password = load(None, Some(keys.clone()), SHARED);
    assert_eq!(refused(lacks_password), "COMPOSE_BROKER_PASSWORD");
    let lacks_keys = load(Some("word"), None, SHARED);
    assert_eq!(refused(lacks_keys), "COMPOSE_BROKER_ENCRYPTION_KEYS");
    let given = load(Some("word"), Some(keys), SHARED).expect("all that it needs");
    assert!(given.access.made.is_empty() && !given.has_new_keys());
    assert_eq!(given.access.platform.username, "broker");
    // What an earlier start made is there, and may be what the store was sealed with.
    let file = format!("sqlite://{}/broker.db", folder.path().display());
    load(None, None, &file).expect("made").keep().expect("kept");
    load(None, None, SHARED).expect("what is there");
}

#[test]
fn a_webhook_is_on_tls_or_on_this_machine_and_signs_with_what_it_is_given() {
    let read = |url: &str, secret: &str, flags: &[&str]| {
        let folder = tempfile::tempdir().expect("a folder");
        let secrets = SecretSettings {
            webhook_url: Some(Secret::new(url)),
            webhook_secret: Some(Secret::new(secret)),
            ..SecretSettings::default()
        };
        let settings = settings(folder.path(), flags);
        Config::check(
            &settings,
            secrets,
            CloudFoundry::default(),
            AwsSettings::default(),
        )
    };
    let (one, other) = ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "a".repeat(32));
    let both = format!("whsec_{one}, {other}");
    for url in [
        "https://host/a?b=c",
        "http://127.0.0.1:1/",
        "http://[::1]/",
        "http://localhost/",
    ] {
        let config = read(url, &both, &[]).expect("a configuration");
        let webhook = config.monitoring.webhook.expect("a webhook");
        assert_eq!(webhook.url.as_str(), url);
        let secrets: Vec<_> = webhook.secrets.iter().map(Secret::expose).collect();
        assert_eq!(secrets, [one, &other]);
        let shown = format!("{webhook:?}");
        assert!(!shown.contains("b=c") && !shown.contains(one), "{shown}");
    }
    let far = "http://192.0.2.1/";
    assert!(read(far, one, &[]).is_err());
    assert!(read(far, one, &["--webhook-http", "anywhere"]).is_ok());
    assert!(
        read("", "", &[])
            .expect("none")
            .monitoring
            .webhook
            .is_none()
    );
}
