//! How a broker starts, and what it says when it does not.

use std::net::TcpListener;

use clap::{Args as _, Command};
use compose_broker::config;
use diesel::{
    Connection as _, PgConnection, QueryableByName, RunQueryDsl as _, sql_query, sql_types::Text,
};
use reqwest::Method;
use serde_json::json;

use crate::{
    broker::{answer, eventually, kill},
    etcd,
    line::Line,
    postgres,
    process::{BrokerProcess, Settings, assert_one_line, command, new_key_ring, refused, settings},
};

/// What operators read of the settings.
const SETTINGS_PAGE: &str = include_str!("../../docs/operating/settings.md");

#[tokio::test(flavor = "multi_thread")]
async fn osb_117_a_second_broker_keeps_away_from_the_first_one_s_data() {
    // Over PostgreSQL it stands by.
    if postgres::is_store() {
        return;
    }
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
        ("PUBLIC_URL", "http://broker example.org".to_owned()),
        ("PUBLIC_URL", " http://broker.example.org".to_owned()),
        ("PUBLIC_URL", "http://broker.example.org/a\tb".to_owned()),
        (
            "PUBLIC_URL",
            "http://ada:hidden@broker.example.org".to_owned(),
        ),
        (
            "PUBLIC_URL",
            "ftp://ada:hidden@broker.example.org".to_owned(),
        ),
        ("AUDIT_DAYS", "for ever".to_owned()),
        ("BACKUP_GRACE_HOURS", "1 day".to_owned()),
        ("BACKUP_GRACE_HOURS", "8761".to_owned()),
        ("DATABASE_URL", "mysql://db".to_owned()),
        ("DATABASE_URL", format!("sqlite://{nowhere}")),
        ("DATA_DIR", file("plain", "")),
        ("BACKUP_STORE", "gs://bucket".to_owned()),
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
        ("DEPLOYMENT_NAMES", "db-{plan}".to_owned()),
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

/// What stands between says another version than the server's own.
#[tokio::test]
async fn a_server_that_is_too_old_is_refused_and_one_that_is_too_new_is_told_of() {
    for (major, is_refused) in [("12", true), ("19", false)] {
        let Some(url) = postgres::new_database() else {
            return;
        };
        let mut inside = PgConnection::establish(&url).expect("a connection");
        let asked = sql_query("SELECT current_setting('server_version_num') AS number");
        let told: ServerVersion = asked.get_result(&mut inside).expect("a version");
        let (line, url) = Line::to_server_of(&url);
        line.say(&format!("{major}{}", &told.number[2..]), &told.number);
        let mut broker = BrokerProcess::stopped_with(|settings| {
            settings.insert("DATABASE_URL", url);
            settings.insert("ENCRYPTION_KEYS", new_key_ring());
        });
        if is_refused {
            let told = refused(broker.settings()).await;
            assert_one_line(&told, "COMPOSE_BROKER_DATABASE_URL");
            assert_one_line(
                &told,
                "the server is PostgreSQL 12, and the broker needs 13",
            );
            continue;
        }
        broker.start_again().await;
        let logged = broker.logged();
        assert!(logged.contains("the server is PostgreSQL 19"), "{logged}");
    }
}

#[derive(QueryableByName)]
struct ServerVersion {
    #[diesel(sql_type = Text)]
    number: String,
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
        // Lines are broken where the terminal's width wants it.
        let sections = help.split("\n      -");
        let mut sections =
            sections.map(|told| told.split_whitespace().collect::<Vec<_>>().join(" "));
        let told = sections.find(|told| told.contains(&format!("[env: {name}=")));
        let told = told.unwrap_or_else(|| panic!("no word of {name} in\n{help}"));
        assert!(told.contains("[default: "), "{told}");
        let flag = argument.get_long().expect("a flag");
        let row = format!("| `{name}` | `--{flag}` |");
        assert!(SETTINGS_PAGE.contains(&row), "settings.md has no row {row}");
    }
    // Secrets are no flags.
    let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for name in [
        "DATABASE_URL",
        "PASSWORD",
        "MORE_CREDENTIALS",
        "READ_ONLY_CREDENTIALS",
        "ENCRYPTION_KEYS",
    ] {
        let told = words.split_once(&format!("COMPOSE_BROKER_{name} "));
        let (_, told) = told.unwrap_or_else(|| panic!("no word of {name} in\n{help}"));
        let told = told.split("COMPOSE_BROKER_").next();
        assert!(told.is_some_and(|t| t.contains("[default: ")), "{name}");
        let row = format!("| `COMPOSE_BROKER_{name}` | none |");
        assert!(SETTINGS_PAGE.contains(&row), "settings.md has no row {row}");
        let flag = format!("--{}", name.to_lowercase().replace('_', "-"));
        assert!(!help.contains(&flag), "{flag}");
    }
}

/// Whatever stops the start of a broker after the machine was started anew, its databases run.
#[tokio::test(flavor = "multi_thread")]
async fn databases_are_started_before_anything_that_stops_the_start() {
    let mut broker = BrokerProcess::start().await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    etcd::fill(&mut etcd::connect(&credentials).await, 5, "v").await;
    broker.kill();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("a port").to_string();
    let folder = tempfile::tempdir().expect("a folder");
    let broken = folder.path().join("broken");
    std::fs::write(&broken, "{").expect("a file");
    let broken = broken.display().to_string();
    let other_ring = "k9:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
    let causes = [
        ("CATALOG", vec![("CATALOG", broken.clone())]),
        ("CATALOG", vec![("CATALOG", format!("{broken}/nowhere"))]),
        (
            "ENCRYPTION_KEYS",
            vec![("ENCRYPTION_KEYS", "short".to_owned())],
        ),
        (
            "ENCRYPTION_KEYS",
            vec![("ENCRYPTION_KEYS", other_ring.to_owned())],
        ),
        (
            "TLS_CERTIFICATE",
            vec![
                ("TLS_CERTIFICATE", broken.clone()),
                ("TLS_KEY", broken.clone()),
            ],
        ),
        ("LISTEN", vec![("LISTEN", taken)]),
        (
            "DATABASE_URL",
            vec![("DATABASE_URL", format!("sqlite://{broken}/db"))],
        ),
        (
            "BACKUP_STORE",
            vec![("BACKUP_STORE", format!("file://{broken}"))],
        ),
    ];
    for (named, wrong) in causes {
        // What a reboot leaves.
        broker.members().into_iter().for_each(kill);
        eventually("no member", || async {
            broker.members().is_empty().then_some(())
        })
        .await;
        let mut settings = broker.settings().clone();
        settings.extend(wrong);
        let refused = refused(&settings).await;
        // Beside that, the log tells of the members.
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        let last = said.lines().last().unwrap_or_default();
        let reason = format!("compose-broker: COMPOSE_BROKER_{named}");
        assert!(
            !refused.status.success() && last.starts_with(&reason),
            "{said}"
        );
        assert_eq!(broker.members().len(), 3, "{named}");
        let keys = eventually("a database that serves", || async {
            let mut client = etcd::connect_to(&credentials, "uri").await.ok()?;
            client
                .get("key-0001", None)
                .await
                .ok()
                .map(|got| got.count())
        })
        .await;
        assert_eq!(keys, 1, "{named}");
    }
    broker.start_again().await;
    assert_eq!(broker.members().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_reach_that_lead_to_nothing_are_logged() {
    let mut broker = BrokerProcess::stopped_with(|settings| {
        // Of the addresses that documents may use, so that no machine has it.
        settings.insert("MEMBER_LISTEN", "192.0.2.77".to_owned());
        let versions = "ectd 3.5.35, etcd 3.5.99, etcd 3.5.35";
        settings.insert("MEMBER_EXPOSED_VERSIONS", versions.to_owned());
    });
    broker.start_again().await;
    let log = broker.logged();
    for named in ["ectd 3.5.35", "etcd 3.5.99"] {
        let warning = format!("exposed_versions names {named}, which is not installed");
        assert!(log.contains(&warning), "{named}: {log}");
    }
    assert!(!log.contains("names etcd 3.5.35"), "{log}");
    assert!(log.contains("members are to listen on 192.0.2.77"), "{log}");
}
