//! Who got to see what: written down, folded where it is too much, and ended with the binding.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use compose_broker::model::limits::{ACCESSES_FOLDED_FOR, REFUSALS_TOLD_APART_MAX};
use reqwest::{Method, StatusCode, header, redirect::Policy};
use serde_json::{Value, json};

use crate::{
    broker::{
        Answer, SERVICE, STANDARD, TestBroker, answer, binding_path, eventually, instance_path,
        text,
    },
    control::TestClock,
    process::BrokerProcess,
    user::User,
};

/// The entries of the audit with this action, newest first.
async fn entries(broker: &TestBroker, action: &str) -> Vec<Value> {
    let page = answer(broker.osb(Method::GET, "/operator/audit?limit=200")).await;
    assert_eq!(page.status, StatusCode::OK, "{page:?}");
    let all = page.body["entries"].as_array().expect("entries").clone();
    all.into_iter()
        .filter(|entry| entry["action"] == action)
        .collect()
}

/// How many accesses the entries with this action stand for.
async fn times(broker: &TestBroker, action: &str) -> i64 {
    let entries = entries(broker, action).await;
    entries
        .iter()
        .map(|entry| entry["times"].as_i64().expect("a number"))
        .sum()
}

/// Somebody at a browser that follows no redirection.
fn visitor() -> reqwest::Client {
    let client = reqwest::Client::builder().redirect(Policy::none()).build();
    client.expect("a client")
}

async fn post(broker: &TestBroker, path: &str, fields: &[(&str, &str)]) -> reqwest::Response {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(fields);
    let request = visitor()
        .post(format!("{}{path}", broker.url))
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(form.finish());
    request.send().await.expect("an answer")
}

/// The cookie of a session that a form opens.
async fn session(broker: &TestBroker, fields: &[(&str, &str)]) -> String {
    let entered = post(broker, "/dashboard/sign-in", fields).await;
    assert_eq!(entered.status(), StatusCode::SEE_OTHER);
    let cookie = entered.headers()[header::SET_COOKIE].to_str();
    let cookie = cookie.expect("a text").split(';').next();
    cookie.expect("a cookie").to_owned()
}

fn token(credentials: &Value) -> &str {
    text(&credentials["instance_administration_api"]["token"])
}

fn operator(broker: &TestBroker) -> [(&'static str, String); 3] {
    let (username, password) = broker.platform();
    [
        ("way", "operator".to_owned()),
        ("username", username.to_owned()),
        ("password", password.to_owned()),
    ]
}

async fn status_of(link: &str) -> StatusCode {
    let answer = reqwest::get(link).await.expect("an answer");
    let status = answer.status();
    // Only so many are sent at once: one that nobody reads keeps its place for a moment.
    answer.bytes().await.expect("its bytes");
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn who_got_what_is_written_down_before_they_have_it() {
    let broker = TestBroker::in_memory().await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    assert_eq!(times(&broker, "credentials").await, 0, "the bind says it");
    let backup = broker.back_up(&credentials).await;
    let identity = BASE64.encode(json!({ "user_id": "ada" }).to_string());
    let fetch = broker.osb(Method::GET, &binding_path("i", "b")).header(
        "X-Broker-API-Originating-Identity",
        format!("cloudfoundry {identity}"),
    );
    assert_eq!(answer(fetch).await.status, StatusCode::OK);
    // A link tells for whom it was made, whatever else the request says.
    let link = text(&backup["download_link"]);
    let follow = visitor().get(link).header(
        "X-Broker-API-Originating-Identity",
        format!("cloudfoundry {identity}"),
    );
    let followed = follow.send().await.expect("an answer");
    assert_eq!(followed.status(), StatusCode::OK);
    followed.bytes().await.expect("bytes");
    let logs = format!(
        "/deployments/{}/logfiles",
        text(&credentials["deployment_id"])
    );
    let listed = answer(broker.compose(Method::GET, &credentials, &logs)).await;
    let log = text(&listed.body["_embedded"]["logfiles"][0]["id"]).to_owned();
    let log = answer(broker.compose(Method::GET, &credentials, &format!("{logs}/{log}"))).await;
    assert_eq!(
        status_of(text(&log.body["download_link"])).await,
        StatusCode::OK
    );
    for (action, origin, platform, user, binding, of) in [
        ("credentials", "osb", "cloudfoundry", "ada", Some("b"), None),
        (
            "download_link",
            "compose",
            "compose",
            "binding b",
            Some("b"),
            Some(&backup["id"]),
        ),
        (
            "download",
            "compose",
            "compose",
            "binding b",
            Some("b"),
            Some(&backup["id"]),
        ),
        (
            "log_link",
            "compose",
            "compose",
            "binding b",
            Some("b"),
            None,
        ),
        (
            "log_download",
            "compose",
            "compose",
            "binding b",
            Some("b"),
            None,
        ),
    ] {
        let found = entries(&broker, action).await;
        assert_eq!(found.len(), 1, "{action}: {found:?}");
        let entry = &found[0];
        assert_eq!(entry["origin"], origin, "{entry}");
        assert_eq!(entry["platform"], platform, "{entry}");
        assert_eq!(entry["user"], user, "{entry}");
        assert_eq!(entry["instance_id"], "i", "{entry}");
        assert_eq!(entry["binding_id"], json!(binding), "{entry}");
        assert_eq!(
            entry["backup_id"],
            of.cloned().unwrap_or_default(),
            "{entry}"
        );
        assert_eq!(entry["address"], "127.0.0.1", "{entry}");
        assert_eq!(entry["times"], 1, "{entry}");
        assert_eq!(entry["operation"], Value::Null, "{entry}");
    }
    // Work tells where it was asked for from, too.
    assert_eq!(
        entries(&broker, "provision").await[0]["address"],
        "127.0.0.1"
    );
    // A page that only looks at the instance is none.
    let all = answer(broker.osb(Method::GET, "/operator/audit"))
        .await
        .body;
    for secret in [token(&credentials), link, "signature"] {
        assert!(!all.to_string().contains(secret), "{secret}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sign_ins_good_and_bad_are_written_down() {
    let clock = TestClock::default();
    let broker = TestBroker::in_memory_with(&[], clock.surroundings()).await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    session(&broker, &[("way", "token"), ("token", token(&credentials))]).await;
    let operator = operator(&broker);
    let fields: Vec<_> = operator.iter().map(|(k, v)| (*k, v.as_str())).collect();
    session(&broker, &fields).await;
    let link = broker.dashboard_link("i").await;
    let link = link.expect("a link");
    let (_, code) = link.split_once("code=").expect("a code");
    let entered = post(&broker, "/dashboard/link", &[("code", code)]).await;
    assert_eq!(entered.status(), StatusCode::SEE_OTHER);
    let wrong = [("way", "token"), ("token", "hidden")];
    for _ in 0..3 {
        let refused = post(&broker, "/dashboard/sign-in", &wrong).await;
        assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    }
    let again = post(&broker, "/dashboard/link", &[("code", code)]).await;
    assert_eq!(again.status(), StatusCode::FORBIDDEN);

    let seen = |entries: Vec<Value>| -> Vec<Value> {
        let entries = entries.iter();
        entries
            .map(|e| {
                json!([
                    e["origin"],
                    e["instance_id"],
                    e["platform"],
                    e["user"],
                    e["address"]
                ])
            })
            .collect()
    };
    let here = "127.0.0.1";
    assert_eq!(
        seen(entries(&broker, "sign_in").await),
        [
            json!(["dashboard", null, "dashboard", "operator", here]),
            json!(["dashboard", "i", "dashboard", "binding b", here]),
        ]
    );
    assert_eq!(
        seen(entries(&broker, "one_time_link").await),
        [json!([
            "dashboard",
            "i",
            "dashboard",
            "one-time link",
            here
        ])]
    );
    assert_eq!(
        seen(entries(&broker, "refused").await),
        [json!(["dashboard", null, null, null, here])]
    );
    clock.forward(ACCESSES_FOLDED_FOR.to_std().expect("a time"));
    eventually("the others, counted", || async {
        (times(&broker, "refused").await == 4).then_some(())
    })
    .await;
    assert_eq!(entries(&broker, "refused").await.len(), 2);
    let all = answer(broker.osb(Method::GET, "/operator/audit"))
        .await
        .body;
    assert!(!all.to_string().contains("hidden"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_wrong_credentials_does_not_fill_the_audit() {
    const TRIES: usize = 300;
    let flags = ["--trusted-proxies", "127.0.0.1"];
    let clock = TestClock::default();
    let mut broker = TestBroker::in_memory_with(&flags, clock.surroundings()).await;
    let tried = || async {
        let paths = ["/v2/catalog", "/operator/audit", "/api/2016-07/instances/i"];
        for (i, path) in (0..TRIES).zip(paths.iter().cycle()) {
            let from = format!("198.51.{}.{}", i / 250, i % 250);
            let wrong = broker.anonymous(Method::GET, path);
            let wrong = if path.starts_with("/api") {
                wrong.bearer_auth("wrong")
            } else {
                wrong.basic_auth("eve", Some("wrong"))
            };
            let wrong = wrong
                .header("X-Broker-API-Version", "2.17")
                .header("X-Forwarded-For", from);
            let refused = wrong.send().await.expect("an answer").status();
            assert!(refused.is_client_error(), "{refused}");
        }
    };
    tried().await;
    let found = entries(&broker, "refused").await;
    // Those above the limit are one more for each door.
    assert!(
        found.len() <= REFUSALS_TOLD_APART_MAX + 3,
        "{}",
        found.len()
    );
    let from_one = found.iter().any(|e| e["address"] == "198.51.0.1");
    assert!(from_one, "{found:?}");
    // A request without credentials tries none.
    let before = found.len();
    for _ in 0..3 {
        answer(broker.anonymous(Method::GET, "/operator/audit")).await;
    }
    // What was counted is not lost when the broker stops.
    broker.restart_with(clock.surroundings()).await;
    let after = entries(&broker, "refused").await;
    assert!(after.len() <= 2 * before, "{}", after.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_is_kept_for_as_long_as_the_operator_says() {
    let clock = TestClock::default();
    let mut broker = TestBroker::in_memory_with(&[], clock.surroundings()).await;
    broker.put_instance("old", json!({})).await;
    broker.delete_instance("old").await;
    assert_eq!(entries(&broker, "provision").await.len(), 1);
    clock.forward(Duration::from_secs(400 * 24 * 3600));
    broker.put_instance("new", json!({})).await;
    assert_eq!(entries(&broker, "provision").await.len(), 2);
    broker.stop().await;
    broker.also(&["--audit-days", "365"]);
    broker.start_again(clock.surroundings()).await;
    eventually("the end of what is old", || async {
        let left = entries(&broker, "provision").await;
        let ids: Vec<&Value> = left.iter().map(|entry| &entry["instance_id"]).collect();
        (ids == ["new"]).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_one_time_link_leads_to_no_other_instance_of_the_same_id() {
    let clock = TestClock::default();
    let broker = TestBroker::in_memory_with(&[], clock.surroundings()).await;
    broker.put_instance_in("ours", "i", json!({})).await;
    let link = broker.dashboard_link("i").await;
    let link = link.expect("a link");
    let (_, code) = link.split_once("code=").expect("a code");
    broker.deprovision("i").await;
    broker.put_instance_in("theirs", "i", json!({})).await;
    let looked = visitor().get(format!("{}{link}", broker.url)).send().await;
    assert_eq!(looked.expect("an answer").status(), StatusCode::FORBIDDEN);
    let used = post(&broker, "/dashboard/link", &[("code", code)]).await;
    assert_eq!(used.status(), StatusCode::FORBIDDEN);
    assert!(!used.headers().contains_key(header::SET_COOKIE));
    // A new one is as good as ever.
    let link = broker.dashboard_link("i").await;
    let link = link.expect("a link");
    let (_, code) = link.split_once("code=").expect("a code");
    let used = post(&broker, "/dashboard/link", &[("code", code)]).await;
    assert_eq!(used.status(), StatusCode::SEE_OTHER);
}

#[tokio::test(flavor = "multi_thread")]
async fn links_end_with_the_person_they_were_made_for() {
    let broker = TestBroker::in_memory().await;
    broker.provision("i", json!({})).await;
    let (ours, theirs) = (
        broker.bind("i", "ours").await,
        broker.bind("i", "theirs").await,
    );
    let backup = broker.back_up(&theirs).await;
    let deployment = format!("/deployments/{}", text(&ours["deployment_id"]));
    let link_of = async |credentials: &Value, path: &str| {
        let found = answer(broker.compose(Method::GET, credentials, path)).await;
        text(&found.body["download_link"]).to_owned()
    };
    let logs = format!("{deployment}/logfiles");
    let listed = answer(broker.compose(Method::GET, &ours, &logs)).await;
    let log = text(&listed.body["_embedded"]["logfiles"][0]["id"]).to_owned();
    let (log, of_backup) = (
        format!("{logs}/{log}"),
        format!("{deployment}/backups/{}", text(&backup["id"])),
    );
    // The dashboard's own, by a session that stands on the same binding.
    let cookie = session(&broker, &[("way", "token"), ("token", token(&theirs))]).await;
    let page = format!(
        "{}/dashboard/instances/i/backups/{}/download",
        broker.url,
        text(&backup["id"])
    );
    let sent = visitor().get(page).header(header::COOKIE, cookie).send();
    let sent = sent.await.expect("an answer");
    let of_page = sent.headers()[header::LOCATION].to_str().expect("a text");
    let good = [link_of(&ours, &of_backup).await, link_of(&ours, &log).await];
    let ended = [
        link_of(&theirs, &of_backup).await,
        link_of(&theirs, &log).await,
        of_page.to_owned(),
    ];
    for link in good.iter().chain(&ended) {
        assert_eq!(status_of(link).await, StatusCode::OK, "{link}");
    }
    broker.unbind("i", "theirs").await;
    // A new binding with the same id belongs to somebody else.
    broker.bind("i", "theirs").await;
    for link in &ended {
        assert_eq!(status_of(link).await, StatusCode::NOT_FOUND, "{link}");
    }
    for link in &good {
        assert_eq!(status_of(link).await, StatusCode::OK, "{link}");
    }
}

fn cache_control(answer: &Answer) -> &str {
    let value = answer.headers.get(header::CACHE_CONTROL);
    value.map_or("", |value| value.to_str().expect("a text"))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_is_kept_on_its_way_unless_it_may_be() {
    let broker = TestBroker::in_memory().await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    let deployment = format!("/deployments/{}", text(&credentials["deployment_id"]));
    let asked = [
        broker.osb(Method::GET, &binding_path("i", "b")),
        broker.osb(Method::GET, &instance_path("i")),
        broker.osb(Method::GET, &instance_path("nobody")),
        broker.osb(Method::GET, "/operator/audit"),
        broker.osb(Method::POST, "/v2/catalog"),
        broker
            .osb(Method::PUT, &binding_path("i", "b"))
            .json(&json!({ "service_id": SERVICE, "plan_id": STANDARD })),
        broker.compose(Method::GET, &credentials, ""),
        broker.compose(Method::GET, &credentials, &deployment),
        broker.compose(Method::GET, &credentials, &format!("{deployment}/backups")),
        broker.compose(Method::GET, &credentials, &format!("{deployment}/alerts")),
        broker.anonymous(Method::GET, "/v2/catalog"),
        broker.anonymous(Method::GET, "/api/2016-07/instances/i"),
        broker.anonymous(Method::GET, "/readyz"),
        broker.anonymous(Method::GET, "/nowhere"),
    ];
    for request in asked {
        let told = answer(request).await;
        assert_eq!(cache_control(&told), "no-store", "{told:?}");
    }
    // It has a tag, and may be kept as long as one asks whether it still is the same.
    let catalog = answer(broker.osb(Method::GET, "/v2/catalog")).await;
    assert_eq!(cache_control(&catalog), "no-cache");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_sends_makes_no_field_of_the_log() {
    let broker = BrokerProcess::start().await;
    let forged = broker
        .osb(Method::PUT, &instance_path("i"))
        .header("X-B3-TraceId", "1 status=200 user=admin")
        .json(&json!({}));
    assert_eq!(answer(forged).await.status, StatusCode::BAD_REQUEST);
    let wrong = broker
        .anonymous(Method::GET, "/operator/audit")
        .basic_auth("eve", Some("hidden"));
    assert_eq!(answer(wrong).await.status, StatusCode::UNAUTHORIZED);
    let line = eventually("the request in the log", || async {
        let log = broker.logged();
        let line = log.lines().find(|line| line.contains("trace="))?;
        Some(line.to_owned())
    })
    .await;
    assert!(
        line.contains(r#" trace="1 status=200 user=admin" "#),
        "{line}"
    );
    assert!(line.contains(" status=400 "), "{line}");
    let log = broker.logged();
    let noted = log.lines().find(|line| line.contains("noted in the audit"));
    let noted = noted.expect("a line");
    assert!(noted.contains(" action=refused "), "{noted}");
    assert!(noted.contains(" from=127.0.0.1 "), "{noted}");
    assert!(!log.contains("hidden"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_is_found_by_the_name_that_its_platform_gave_it() {
    let broker = TestBroker::start().await;
    let path = format!("{}?accepts_incomplete=true", instance_path("i"));
    let body = json!({
        "service_id": SERVICE, "plan_id": STANDARD,
        "organization_guid": "org", "space_guid": "space",
        "context": { "platform": "cloudfoundry", "instance_name": "my-database" },
    });
    answer(broker.osb(Method::PUT, &path).json(&body)).await;
    let user = User::of_broker(&broker);
    let by_name = user.does(&["dashboard-link", "my-database"]).await.out;
    assert!(by_name.contains("/dashboard/link?code="), "{by_name}");
    user.run(&["dashboard-link", "database"])
        .await
        .must_say(1, "No service instance 'database' for ");
    for (field, name, id) in [
        ("service_id", "compose-for-etcd", SERVICE),
        ("plan_id", "Standard", STANDARD),
    ] {
        let mut named = body.clone();
        named[field] = json!(name);
        let path = format!("{}?accepts_incomplete=true", instance_path("j"));
        let told = answer(broker.osb(Method::PUT, &path).json(&named)).await;
        assert_eq!(told.status, StatusCode::BAD_REQUEST, "{told:?}");
        let reason = text(&told.body["description"]);
        assert!(reason.contains(&format!("the id is {id:?}")), "{reason}");
    }
}
