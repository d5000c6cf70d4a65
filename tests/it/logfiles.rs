//! What members print, as their users read it.

use std::{fs::OpenOptions, io::Write as _, time::Duration};

use compose_broker::model::limits::DOWNLOAD_LINK_TTL;
use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    broker::{Answer, TestBroker, answer, engines_dir, text},
    control::TestClock,
    inside::Inside,
};

fn path_of(credentials: &Value) -> String {
    format!(
        "/deployments/{}/logfiles",
        text(&credentials["deployment_id"])
    )
}

async fn get(broker: &TestBroker, credentials: &Value, path: &str) -> Answer {
    answer(broker.compose(Method::GET, credentials, path)).await
}

/// The logs that are listed.
async fn listed(broker: &TestBroker, credentials: &Value) -> Vec<Value> {
    let told = get(broker, credentials, &path_of(credentials)).await;
    assert_eq!(told.status, StatusCode::OK, "{told:?}");
    let slash = get(broker, credentials, &format!("{}/", path_of(credentials))).await;
    assert_eq!(slash.status, StatusCode::OK, "{slash:?}");
    let list = told.body["_embedded"]["logfiles"].as_array();
    list.expect("a list").clone()
}

async fn one(broker: &TestBroker, credentials: &Value, log: &Value) -> Value {
    let path = format!("{}/{}", path_of(credentials), text(&log["id"]));
    let told = get(broker, credentials, &path).await;
    assert_eq!(told.status, StatusCode::OK, "{told:?}");
    told.body
}

/// What is behind a link, for somebody with nothing but the link.
async fn followed(link: &str) -> reqwest::Response {
    let got = reqwest::Client::new().get(link).send().await;
    got.expect("an answer")
}

/// A body with `ID` for what differs from run to run.
fn masked(mut body: Value) -> Value {
    for field in ["id", "deployment_id", "capsule_id"] {
        assert_eq!(text(&body[field]).len(), 24, "{body}");
        body[field] = json!("ID");
    }
    assert!(body["size_bytes"].as_u64() > Some(1000), "{body}");
    body["size_bytes"] = json!(4711);
    body["created_at"] = json!("NOW");
    body["download_link"] = json!("LINK");
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn the_logs_of_members_are_listed_and_read_by_links_that_expire() {
    let clock = TestClock::default();
    let surroundings = clock.surroundings();
    let broker = TestBroker::start_with(&[], surroundings).await;
    broker.provision("i", json!({})).await;
    broker.provision("other", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    let other = broker.bind("other", "b").await;
    let logs = listed(&broker, &credentials).await;
    let names: Vec<&str> = logs.iter().map(|log| text(&log["name"])).collect();
    assert_eq!(names, ["m0.log", "m1.log", "m2.log"]);
    let log = one(&broker, &credentials, &logs[0]).await;
    insta::assert_json_snapshot!(masked(log.clone()));
    let link = text(&log["download_link"]);
    let got = followed(link).await;
    assert_eq!(got.status(), StatusCode::OK);
    let header = |name: header::HeaderName| {
        let value = got.headers().get(name).expect("a header");
        value.to_str().expect("a text").to_owned()
    };
    assert_eq!(header(header::CONTENT_TYPE), "text/plain; charset=utf-8");
    assert_eq!(header(header::X_CONTENT_TYPE_OPTIONS), "nosniff");
    assert_eq!(
        header(header::CONTENT_DISPOSITION),
        format!(
            "attachment; filename=\"{}_m0.log\"",
            text(&credentials["deployment_id"])
        )
    );
    let printed = got.text().await.expect("a text");
    assert!(printed.contains("starting an etcd server"), "{printed}");
    assert!(printed.ends_with('\n'));

    // Links are for what they were made for, and for a while.
    let (address, query) = link.split_once('?').expect("a query");
    let of_m1 = text(&logs[1]["id"]);
    let elsewhere = address.replace(text(&log["id"]), of_m1);
    let other_instance = address.replace("/instances/i/", "/instances/other/");
    let other_deployment = address.replace(
        text(&credentials["deployment_id"]),
        text(&other["deployment_id"]),
    );
    let longer = query.replacen("expires=", "expires=9", 1);
    for bad in [
        address.to_owned(),
        format!("{address}?{longer}"),
        format!("{elsewhere}?{query}"),
        format!("{other_instance}?{query}"),
        format!("{other_deployment}?{query}"),
        format!("{address}?expires=x&signature=y"),
    ] {
        let refused = followed(&bad).await;
        assert_eq!(refused.status(), StatusCode::NOT_FOUND, "{bad}");
        let body: Value = refused.json().await.expect("JSON");
        let reason = "this link is not good (any more); ask for a new one";
        assert_eq!(body, json!({ "errors": { "base": [reason] } }), "{bad}");
    }
    clock.forward(DOWNLOAD_LINK_TTL + Duration::from_secs(1));
    assert_eq!(followed(link).await.status(), StatusCode::NOT_FOUND);
    let newer = one(&broker, &credentials, &logs[0]).await;
    let newer = followed(text(&newer["download_link"])).await;
    assert_eq!(newer.status(), StatusCode::OK);

    // What is foreign, and what is none.
    let of_other = text(&listed(&broker, &other).await[0]["id"]).to_owned();
    let path = path_of(&credentials);
    for unknown in [
        of_other.as_str(),
        "member.log",
        "..%2F..%2F..%2Fbroker.db",
        "%2Fetc%2Fpasswd",
        "0123456789abcdef01234567",
    ] {
        let refused = get(&broker, &credentials, &format!("{path}/{unknown}")).await;
        assert_eq!(refused.status, StatusCode::NOT_FOUND, "{refused:?}");
    }
    let foreign = get(&broker, &other, &path).await;
    assert_eq!(foreign.status, StatusCode::NOT_FOUND, "{foreign:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_log_tells_secrets_or_places_of_the_machine() {
    let broker = TestBroker::start().await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    let files = broker.files();
    let logs = files.iter().filter(|file| file.ends_with("member.log"));
    let logs: Vec<_> = logs.map(|file| broker.data_dir().join(file)).collect();
    // What etcd prints of a login that takes long; not every machine is slow when it should be.
    let login = "etcdserver: request \"header:<ID:1 > authenticate:<name:root \
                 simple_token:HIykNgaWvVAAbFpl>\" with result \"size:48\" took too long\n";
    let log = OpenOptions::new().append(true).open(&logs[0]);
    log.and_then(|mut log| log.write_all(login.as_bytes()))
        .expect("a line");
    let read = |file| std::fs::read(file).expect("a log");
    let raw: Vec<u8> = logs.iter().flat_map(read).collect();
    let raw = String::from_utf8_lossy(&raw).into_owned();
    let place = broker.data_dir().display().to_string();
    assert!(raw.contains(&place), "nothing to hide: {raw}");
    let mut all = String::new();
    for log in listed(&broker, &credentials).await {
        let log = one(&broker, &credentials, &log).await;
        let got = followed(text(&log["download_link"])).await;
        all += &got.text().await.expect("a text");
    }
    assert!(all.contains("simple_token:[removed]"), "{all}");
    let (_, secrets) = Inside::of(&broker).deployment("i").await.expect("one");
    let secrets = secrets.expect("secrets");
    let engines = engines_dir().canonicalize().expect("a folder");
    let uri = url::Url::parse(text(&credentials["uri"])).expect("a URI");
    let mut hidden = vec![
        place,
        engines.display().to_string(),
        secrets.root_password.expose().to_owned(),
        uri.password().expect("a password").to_owned(),
        text(&credentials["instance_administration_api"]["token"]).to_owned(),
    ];
    let tokens = raw.split("simple_token:").skip(1);
    hidden.extend(tokens.filter_map(|rest| Some(rest.split_once('>')?.0.to_owned())));
    assert!(hidden.len() > 5, "{raw}");
    for secret in hidden {
        assert!(!secret.is_empty() && !all.contains(&secret), "{secret}");
    }
}
