//! How a broker starts, and what it says when it does not.

use std::net::TcpListener;

use clap::{Args as _, Command};
use compose_broker::config;
use reqwest::Method;
use serde_json::json;

use crate::{
    broker::answer,
    process::{BrokerProcess, Settings, assert_one_line, command, refused, settings},
};

#[tokio::test(flavor = "multi_thread")]
async fn osb_117_a_second_broker_keeps_away_from_the_first_one_s_data() {
    let broker = BrokerProcess::start().await;
    let accepted = broker.put_instance("i", json!({})).await;
    let mut second = broker.settings().clone();
    second.insert("LISTEN", "127.0.0.1:0".to_owned());
    assert_one_line(&refused(&second).await, "another broker");
    let end = broker.instance_end("i", &accepted.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    assert_eq!(broker.members().len(), 3);
    second.insert("LISTEN", broker.settings()["LISTEN"].clone());
    assert_one_line(&refused(&second).await, "COMPOSE_BROKER_LISTEN");
    let ready = answer(broker.osb(Method::GET, "/v2/catalog")).await;
    assert!(ready.status.is_success(), "{ready:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_setting_stops_the_start_with_one_line_that_names_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("a port").to_string();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("a file");
        path.display().to_string()
    };
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).expect("a folder");
    let nowhere = folder.path().join("nowhere/at/all").display().to_string();
    let cases = [
        ("LISTEN", "everywhere".to_owned()),
        ("LISTEN", taken),
        ("LISTEN", "192.0.2.1:80".to_owned()),
        ("PUBLIC_URL", "broker.example.org".to_owned()),
        ("DATABASE_URL", "mysql://db".to_owned()),
        ("DATABASE_URL", format!("sqlite://{nowhere}")),
        ("DATA_DIR", file("plain", "")),
        ("BACKUP_STORE", "s3://bucket".to_owned()),
        ("BACKUP_STORE", format!("file://{}", file("other", ""))),
        ("CATALOG", nowhere.clone()),
        ("CATALOG", file("catalog.json", r#"{"services": 1}"#)),
        ("CLUSTERS", nowhere.clone()),
        ("CLUSTERS", file("clusters.json", "[]")),
        ("ENGINES_DIR", nowhere.clone()),
        ("ENGINES_DIR", empty.display().to_string()),
        ("PORT_RANGE", "30000-20000".to_owned()),
        ("PORT_RANGE", "many".to_owned()),
        ("USERNAME", "a:b".to_owned()),
        ("PASSWORD", String::new()),
        ("ENCRYPTION_KEYS", "short".to_owned()),
        ("RESTORE_SCOPE", "galaxy".to_owned()),
        ("DELETED_POLL", "perhaps".to_owned()),
        ("LOG", "compose_broker=loud".to_owned()),
        ("LOG_FORMAT", "xml".to_owned()),
        ("CLOCK_OFFSET_FILE", nowhere.clone()),
        ("CLOCK_OFFSET_FILE", file("clock", "tomorrow")),
    ];
    for (i, (name, value)) in cases.into_iter().enumerate() {
        let mut wrong: Settings = settings(&folder.path().join(format!("broker{i}")));
        wrong.insert(name, value);
        assert_one_line(&refused(&wrong).await, &format!("COMPOSE_BROKER_{name}"));
    }
}

#[test]
fn help_tells_every_setting_with_its_default() {
    let help = command(&["serve", "--help"], &Settings::new()).output();
    let help = String::from_utf8(help.expect("an end").stdout).expect("a text");
    let all = config::Settings::augment_args(Command::new("serve"));
    for argument in all.get_arguments() {
        let name = argument.get_env().and_then(|name| name.to_str());
        let name = name.unwrap_or_else(|| panic!("{} has no variable", argument.get_id()));
        assert!(name.starts_with("COMPOSE_BROKER_"), "{name}");
        let told = help
            .split("\n      -")
            .find(|told| told.contains(&format!("[env: {name}=")));
        let told = told.unwrap_or_else(|| panic!("no word of {name} in\n{help}"));
        assert!(told.contains("[default: "), "{told}");
    }
    // Secrets are no flags.
    for name in [
        "DATABASE_URL",
        "PASSWORD",
        "MORE_CREDENTIALS",
        "ENCRYPTION_KEYS",
    ] {
        let told = help.split_once(&format!("COMPOSE_BROKER_{name} "));
        let (_, told) = told.unwrap_or_else(|| panic!("no word of {name} in\n{help}"));
        let told = told.split("COMPOSE_BROKER_").next();
        assert!(told.is_some_and(|t| t.contains("[default: ")), "{name}");
        let flag = format!("--{}", name.to_lowercase().replace('_', "-"));
        assert!(!help.contains(&flag), "{flag}");
    }
}
