//! Bindings: a user of its own for each application, and a token for the administration API.

use std::{collections::HashSet, process::Command};

use compose_broker::model::operation::OperationKind;
use etcd_client::{Client, GetOptions, PutOptions};
use futures::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{Answer, SERVICE, STANDARD, TestBroker, answer, binding_path, instance_path, text},
    control::Script,
    etcd,
    transport::description,
};

fn request(change: Value) -> Value {
    let mut body = json!({ "service_id": SERVICE, "plan_id": STANDARD });
    for (field, value) in change.as_object().expect("an object") {
        body[field] = value.clone();
    }
    body
}

/// Asks for a binding of instance `i`, without waiting.
async fn put(broker: &TestBroker, binding: &str, change: Value) -> Answer {
    let path = format!("{}?accepts_incomplete=true", binding_path("i", binding));
    answer(broker.osb(Method::PUT, &path).json(&request(change))).await
}

/// Asks for a binding of instance `i` as a platform that speaks 2.`minor` and waits.
async fn put_as(broker: &TestBroker, minor: u32, binding: &str) -> Answer {
    let (username, password) = broker.platform();
    let request = broker
        .anonymous(Method::PUT, &binding_path("i", binding))
        .basic_auth(username, Some(password))
        .header("X-Broker-API-Version", format!("2.{minor}"))
        .json(&request(json!({})));
    answer(request).await
}

async fn fetch(broker: &TestBroker, binding: &str) -> Answer {
    answer(broker.osb(Method::GET, &binding_path("i", binding))).await
}

async fn poll(broker: &TestBroker, binding: &str, token: Option<&str>) -> Answer {
    let query = token.map_or(String::new(), |token| format!("?operation={token}"));
    let path = format!("{}/last_operation{query}", binding_path("i", binding));
    answer(broker.osb(Method::GET, &path)).await
}

fn token(answer: &Answer) -> &str {
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    assert_eq!(answer.body.get("credentials"), None);
    text(&answer.body["operation"])
}

async fn end(broker: &TestBroker, binding: &str, accepted: &Answer) -> Value {
    let path = binding_path("i", binding);
    broker
        .end_of(&format!(
            "{path}/last_operation?operation={}",
            token(accepted)
        ))
        .await
}

/// Whether the administration API lets these credentials in.
async fn api_status(broker: &TestBroker, credentials: &Value) -> StatusCode {
    answer(broker.compose(Method::GET, credentials, ""))
        .await
        .status
}

/// Whether the database lets this user in. Asked as a login: a client's connection alone proves
/// nothing.
async fn logs_in(credentials: &Value, user: &str, password: &str) -> bool {
    match etcd::connect_as(credentials, "uri", user, password).await {
        Ok(mut client) => client.get("k", None).await.is_ok(),
        Err(_) => false,
    }
}

async fn works(credentials: &Value) -> bool {
    logs_in(
        credentials,
        &etcd::user(credentials),
        &etcd::password(credentials),
    )
    .await
}

/// Everything in a binding that nobody else may know.
fn secrets(credentials: &Value) -> [String; 2] {
    let token = &credentials["instance_administration_api"]["token"];
    [etcd::password(credentials), text(token).to_owned()]
}

/// Files of the broker, the members' and the backups among them, that hold `secret`.
pub fn files_with(broker: &TestBroker, secret: &str) -> String {
    let found = Command::new("grep")
        .args([
            "--recursive",
            "--text",
            "--files-with-matches",
            "--fixed-strings",
            "-e",
            secret,
        ])
        .arg(broker.data_dir())
        .output()
        .expect("grep");
    String::from_utf8_lossy(&found.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_have_every_documented_field_and_all_of_them_work() {
    let broker = TestBroker::start().await;
    broker.provision("i", json!({})).await;
    let answer = put_as(&broker, 17, "b").await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    let credentials = &answer.body["credentials"];
    let mut fields: Vec<&str> = credentials
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "ca_certificate_base64",
            "db_type",
            "deployment_id",
            "instance_administration_api",
            "maps",
            "name",
            "uri",
            "uri_cli",
            "uri_direct_1",
            "uri_direct_2",
        ]
    );
    assert_eq!(credentials["db_type"], "etcd");
    assert_eq!(credentials["maps"], json!([]));
    let api = &credentials["instance_administration_api"];
    assert_eq!(api["root"], format!("{}/api", broker.url));
    assert_eq!(api["instance_id"], "i");
    assert_eq!(api["deployment_id"], credentials["deployment_id"]);
    assert_eq!(api_status(&broker, credentials).await, StatusCode::OK);

    let endpoints = answer.body["endpoints"].as_array().expect("endpoints");
    assert_eq!(endpoints.len(), 3);
    for (endpoint, field) in endpoints
        .iter()
        .zip(["uri", "uri_direct_1", "uri_direct_2"])
    {
        let uri: url::Url = text(&credentials[field]).parse().expect("a URI");
        assert_eq!(endpoint["host"], uri.host_str().expect("a host"));
        assert_eq!(
            endpoint["ports"],
            json!([uri.port().expect("a port").to_string()])
        );
        assert_eq!(endpoint["protocol"], "tcp");
        let mut client = etcd::connect_to(credentials, field).await.expect(field);
        client.put(field, "v", None).await.expect(field);
        let got = client.get(field, None).await.expect(field);
        assert_eq!(got.kvs()[0].value_str().expect("text"), "v");
    }
    for field in ["uri", "uri_direct_1", "uri_direct_2"] {
        let uri: url::Url = text(&credentials[field]).parse().expect("a URI");
        assert!(text(&credentials["uri_cli"]).contains(&uri.port().expect("a port").to_string()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binding_s_user_reads_and_writes_every_key_and_nothing_else() {
    let broker = TestBroker::start().await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    let mut client = etcd::connect(&credentials).await;
    let lease = client.lease_grant(60, None).await.expect("a lease").id();
    for key in ["", "\0", "a", "zzz", "\u{10FFFF}"] {
        let options = PutOptions::new().with_lease(lease);
        let put = client.put(key, "v", Some(options)).await;
        assert_eq!(put.is_ok(), !key.is_empty(), "{key:?}");
    }
    let all = client
        .get("", Some(GetOptions::new().with_all_keys()))
        .await
        .expect("a get");
    assert_eq!(all.count(), 4);
    client.delete("a", None).await.expect("a delete");

    assert!(client.user_list().await.is_err());
    assert!(client.user_add("eve", "x", None).await.is_err());
    assert!(client.user_change_password("root", "x").await.is_err());
    assert!(
        client
            .user_grant_role(etcd::user(&credentials), "root")
            .await
            .is_err()
    );
    assert!(client.role_list().await.is_err());
    assert!(client.role_add("eve").await.is_err());
    assert!(client.auth_disable().await.is_err());
    assert!(takes_no_snapshot(&mut client).await);
    assert!(
        client
            .member_add(["https://127.0.0.1:1"], None)
            .await
            .is_err()
    );
    let members = client
        .member_list()
        .await
        .map(|list| list.members()[0].id());
    if let Ok(id) = members {
        assert!(client.member_remove(id).await.is_err());
    }
    if let Ok(mut anonymous) = etcd::connect_anonymously(&credentials).await {
        assert!(anonymous.get("a", None).await.is_err());
        assert!(anonymous.put("a", "x", None).await.is_err());
        assert!(takes_no_snapshot(&mut anonymous).await);
    }
    for password in ["", "root", "password", &etcd::password(&credentials)] {
        assert!(!logs_in(&credentials, "root", password).await);
    }
}

async fn takes_no_snapshot(client: &mut Client) -> bool {
    match client.snapshot().await {
        Ok(mut snapshot) => snapshot.message().await.is_err(),
        Err(_) => true,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_093_unbinding_one_shuts_it_out_and_leaves_the_others_in() {
    let broker = TestBroker::start().await;
    broker.provision("i", json!({})).await;
    let (one, other) = (
        broker.bind("i", "one").await,
        broker.bind("i", "other").await,
    );
    for secret in secrets(&one) {
        assert!(!secrets(&other).contains(&secret));
    }
    let mut client = etcd::connect(&one).await;
    client.put("k", "v", None).await.expect("a put");
    let unbound = broker.unbind("i", "one").await;
    assert_eq!((unbound.status, unbound.body), (StatusCode::OK, json!({})));
    assert!(!works(&one).await);
    assert!(
        client.put("k", "v", None).await.is_err(),
        "an open connection is shut out too"
    );
    assert_eq!(api_status(&broker, &one).await, StatusCode::UNAUTHORIZED);
    assert!(works(&other).await);
    assert_eq!(api_status(&broker, &other).await, StatusCode::OK);
    assert_eq!(fetch(&broker, "one").await.status, StatusCode::NOT_FOUND);
    assert_eq!(broker.unbind("i", "one").await.status, StatusCode::GONE);
    // The id is free again, and what comes under it is new.
    let anew = broker.bind("i", "one").await;
    for secret in secrets(&one) {
        assert!(!secrets(&anew).contains(&secret));
    }
    assert!(works(&anew).await);
    assert!(!works(&one).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bind_that_failed_is_told_and_can_be_unbound() {
    let script = Script::default();
    let broker = TestBroker::start_with(&[], script.surroundings()).await;
    broker.provision("i", json!({})).await;
    let failing = script.fail(OperationKind::Bind, "issue");
    let accepted = put(&broker, "b", json!({})).await;
    let end = end(&broker, "b", &accepted).await;
    assert_eq!(end["state"], "failed");
    let waited = put_as(&broker, 17, "c").await;
    assert!(waited.status.is_server_error(), "{waited:?}");
    drop(failing);
    for binding in ["b", "c"] {
        // A platform that polls finds the reason, and so does one that waits.
        let again = put(&broker, binding, json!({})).await;
        assert_eq!(again.status, StatusCode::ACCEPTED, "{again:?}");
        let again = put_as(&broker, 17, binding).await;
        description(&again, StatusCode::CONFLICT);
        assert_eq!(fetch(&broker, binding).await.status, StatusCode::NOT_FOUND);
        assert_eq!(broker.unbind("i", binding).await.status, StatusCode::OK);
        assert!(works(&broker.bind("i", binding).await).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_binds_at_once_are_fifty_users() {
    let broker = TestBroker::start().await;
    broker.provision("i", json!({})).await;
    let ids: Vec<String> = (0..50).map(|i| format!("b{i}")).collect();
    let bound = join_all(ids.iter().map(|id| broker.bind("i", id))).await;
    let all: HashSet<String> = bound.iter().flat_map(secrets).collect();
    assert_eq!(all.len(), 100);
    let users: HashSet<String> = bound.iter().map(etcd::user).collect();
    assert_eq!(users.len(), 50);
    assert!(
        join_all(bound.iter().map(works))
            .await
            .into_iter()
            .all(|works| works)
    );
    let unbound = join_all(ids[..25].iter().map(|id| broker.unbind("i", id))).await;
    assert!(
        unbound.iter().all(|answer| answer.status == StatusCode::OK),
        "{unbound:?}"
    );
    let still: Vec<bool> = join_all(bound.iter().map(works)).await;
    assert!(still[..25].iter().all(|works| !works));
    assert!(still[25..].iter().all(|works| *works));
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_nowhere_but_in_the_credentials() {
    let broker = TestBroker::start().await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    let mut client = etcd::connect(&credentials).await;
    etcd::fill(&mut client, 3, "a value to be found").await;
    assert_ne!(files_with(&broker, "a value to be found"), "");
    let backup = broker.back_up(&credentials).await;
    let deployment = format!("/deployments/{}", text(&credentials["deployment_id"]));
    let mut told = vec![
        fetch(&broker, "unknown").await,
        poll(&broker, "b", None).await,
        answer(broker.osb(Method::GET, &instance_path("i"))).await,
        answer(broker.osb(Method::GET, "/v2/catalog")).await,
    ];
    let paths = ["", "/backups", "/recipes", "/versions"];
    for path in paths.map(|path| format!("{deployment}{path}")) {
        told.push(answer(broker.compose(Method::GET, &credentials, &path)).await);
    }
    for secret in secrets(&credentials) {
        assert!(!backup.to_string().contains(&secret));
        for answer in &told {
            assert!(!answer.body.to_string().contains(&secret), "{answer:?}");
        }
        assert_eq!(files_with(&broker, &secret), "");
    }
    broker.unbind("i", "b").await;
    broker.deprovision("i").await;
    for secret in secrets(&credentials) {
        assert_eq!(files_with(&broker, &secret), "");
    }
    for id in [
        etcd::user(&credentials),
        text(&credentials["deployment_id"]).to_owned(),
    ] {
        let left = files_with(&broker, &id);
        // The broker's own record of what was done is kept for a while.
        assert!(
            left.lines().all(|file| file.contains("broker.db")),
            "{left}"
        );
    }
    assert_eq!(files_with(&broker, "a value to be found"), "");
}

/// etcd before 3.5 writes passwords into its own log as they come; newer ones do not, see above.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_etcd_keeps_passwords_in_its_own_log_and_nowhere_else() {
    let broker = TestBroker::start().await;
    broker
        .provision("i", json!({ "db_version": "3.4.23" }))
        .await;
    let credentials = broker.bind("i", "b").await;
    etcd::fill(&mut etcd::connect(&credentials).await, 3, "v").await;
    broker.back_up(&credentials).await;
    let [password, token] = secrets(&credentials);
    let found = files_with(&broker, &password);
    assert!(
        found
            .lines()
            .all(|file| file.contains("/home/data/member/wal/")),
        "{found}"
    );
    assert_eq!(files_with(&broker, &token), "");
    broker.deprovision("i").await;
    assert_eq!(files_with(&broker, &password), "");
}
